"""Reads generated stories, to say what each of their pages should show.

A generated story has no ground truth but its own words: the reader follows them page by page, exactly as it follows the
training stories. `python -m data_tools.paper_theatre annotate` writes what it read beside each story.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from data_tools.paper_theatre.dataset import scene_truth
from data_tools.paper_theatre.names import PRONOUNS
from data_tools.paper_theatre.reader import Reader
from data_tools.paper_theatre.world import SPECIES, Appearance

# Whom a sentence introduces, in the wordings of `language`: "a fox called Pip", "Pip was a shy fox", "Pip, a shy fox".
_INTRODUCED = re.compile(
    r"\b(?:named|called|by the name of|whose name was) ([A-Z][a-z]+)"
    rf"|\b([A-Z][a-z]+)(?: was|,) an? [a-z]+ (?:{'|'.join(SPECIES)})\b"
)
# What may stand there and is no name: "There was a shy fox".
_NO_NAMES = frozenset("He Here It Meanwhile She Soon Suddenly That Then There This".split())
_TOGETHER = re.compile(r"\b(?:they|them|their|friends|both|together)\b", re.IGNORECASE)


def annotate(captions: list[str], cast: Mapping[str, Appearance] | None = None) -> list[dict[str, Any] | None]:
    """What each page should show; None for a page that cannot be read.

    A page cannot be read if it breaks a rule of `reader`, or speaks of a character whose name the model invented, which
    the reader does not know. The first page, which a user wrote, need keep no rule: who of the cast is named on it
    is known afterwards.

    Args:
        captions: Of all pages.
        cast: Appearances of characters that the words need not say, by name.
    """
    reader = Reader(cast or {})
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
            if not truths:
                reader.meet(sorted(reader.cast, key=lambda name: (narration.find(name) < 0, narration.find(name))))
        if strange:
            truths.append(None)
            continue
        truths.append(scene_truth(scene))
    return truths
