"""Reads generated stories and writes down what each of their pages should show.

A told story has no ground truth but its own words: the reader follows them page by page, exactly as it follows the
training stories, and `truth.json` beside each `story.json` says who should stand where. `inference.evaluate` holds the
pictures against it.

    python -m data_tools.paper_theatre.annotate stories/heldout/*
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from data_tools.paper_theatre.dataset import scene_truth
from data_tools.paper_theatre.names import PRONOUNS
from data_tools.paper_theatre.reader import Reader
from data_tools.paper_theatre.world import SPECIES

# Whom a sentence introduces, in the wordings of `language`: "a fox called Pip", "Pip was a shy fox", "Pip, a shy fox".
_INTRODUCED = re.compile(
    r"\b(?:named|called|by the name of|whose name was) ([A-Z][a-z]+)"
    rf"|\b([A-Z][a-z]+)(?: was|,) an? [a-z]+ (?:{'|'.join(SPECIES)})\b"
)
# What may stand there and is no name: "There was a shy fox".
_NO_NAMES = frozenset("He Here It Meanwhile She Soon Suddenly That Then There This".split())
_TOGETHER = re.compile(r"\b(?:they|them|their|friends|both|together)\b", re.IGNORECASE)


def annotate(captions: list[str]) -> list[dict[str, Any] | None]:
    """What each page should show; None for a page that cannot be read.

    A page cannot be read if it breaks a rule of `reader`, or speaks of a character whose name the model invented, which
    the reader does not know.
    """
    reader = Reader()
    strangers: set[str] = set()
    truths: list[dict[str, Any] | None] = []
    for caption in captions:
        narration = re.sub(r'"[^"]*"', "", caption)
        introduced = {found[1] or found[2] for found in _INTRODUCED.finditer(narration)}
        strangers |= introduced - PRONOUNS.keys() - _NO_NAMES
        strange = bool(strangers) and (
            any(re.search(rf"\b{name}\b", narration) for name in strangers) or bool(_TOGETHER.search(narration))
        )
        try:
            scene = reader.read(caption)
        except ValueError:
            strange = True
        if strange:
            truths.append(None)
            continue
        truths.append(scene_truth(scene))
    return truths


def main(arguments: list[str] | None = None) -> None:
    """Writes `truth.json` into every story folder on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.paper_theatre.annotate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a story folder (with story.json)")
    folders = parser.parse_args(arguments).folders
    readable = total = 0
    for folder in folders:
        try:
            pages = json.loads((folder / "story.json").read_text("utf-8"))["pages"]
        except (OSError, ValueError, KeyError):
            parser.error(f"{folder} is not a story folder: it has no readable story.json")
        captions = [page["caption"] for page in pages]
        truths = annotate(captions)
        read = [{"caption": caption, "scene": truth} for caption, truth in zip(captions, truths, strict=True)]
        (folder / "truth.json").write_text(json.dumps(read, indent=1) + "\n", "utf-8")
        readable += sum(truth is not None for truth in truths)
        total += len(truths)
    print(f"{readable} of {total} pages could be read in {len(folders)} stories")


if __name__ == "__main__":
    main()
