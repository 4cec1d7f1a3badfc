"""Who made the weights of a model folder, and under which terms: `credits.json`, which goes into its model card.

    {"license": "apache-2.0", "credits": ["a sentence for each part"]}

The license is a name that the Hub knows, "other" where several apply.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from seedstory.errors import ModelError
from seedstory.io import read_json, write_atomic

FILE = "credits.json"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_MOST_CREDITS, _LONGEST_CREDIT = 100, 2_000


def write_credits(folder: Path, credits: dict[str, Any]) -> None:
    """Writes the file, or takes it away where there is nothing to say."""
    if credits:
        write_atomic(folder / FILE, json.dumps(credits, indent=2) + "\n")
    else:
        (folder / FILE).unlink(missing_ok=True)


def read_credits(folder: Path) -> dict[str, Any]:
    """License and credits of a model folder; empty where it says nothing.

    Raises:
        ModelError: The file is there, and it is no such record.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    found = read_json(path, limit=2**20)
    license, credits = (found.get(key) for key in ("license", "credits")) if isinstance(found, dict) else (None, None)
    if not isinstance(license, str) or not _LICENSE.fullmatch(license):
        raise ModelError(f"{path}: license must be the short name of a license, such as apache-2.0")
    if not isinstance(credits, list) or len(credits) > _MOST_CREDITS or not all(map(_is_line, credits)):
        raise ModelError(f"{path}: credits must be a list of single lines of text")
    return {"license": license, "credits": credits}


def _is_line(text: Any) -> bool:
    return isinstance(text, str) and 0 < len(text) <= _LONGEST_CREDIT and text.isprintable()
