"""Earlier revisions of a story's record, from which changes are taken back.

The record of revision 7 is `history/00007.json`. It names page files that nothing else may name any more, and they stay
as long as it does.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from seedstory.errors import SeedStoryError
from seedstory.io import read_json, remove_leftovers, write_atomic
from seedstory.story_record import MAX_JSON, PageEntry, check_record

HISTORY = "history"
MAX_REVISIONS = 100  # that are kept
_FILE = re.compile(r"\d{5,10}\.json")


class History:
    """The history of the story in a folder.

    Args:
        path: The story folder.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path / HISTORY
        self._read: tuple[list[int], list[PageEntry]] = [], []

    def revisions(self) -> list[int]:
        """Those that are kept, in order."""
        names = [file.name for file in self._folder.glob("*.json")] if self._folder.is_dir() else []
        return sorted(int(name.removesuffix(".json")) for name in names if _FILE.fullmatch(name))

    def read(self, revision: int) -> dict[str, Any] | None:
        """The parts of a record, as `check_record` gives them; None where there is none, or a broken one."""
        if not self._file(revision).is_file():
            return None
        try:
            return check_record(read_json(self._file(revision), limit=MAX_JSON))
        except (SeedStoryError, KeyError):
            return None

    def keep(self, revision: int, record: str) -> None:
        """Stores a record; the oldest ones beyond `MAX_REVISIONS` go."""
        write_atomic(self._file(revision), record, make_folder=True)
        for old in [one for one in self.revisions() if one <= revision - MAX_REVISIONS]:
            self._file(old).unlink(missing_ok=True)
        self._forget()

    def drop_after(self, revision: int) -> None:
        """Removes what came after a revision: changes that were taken back."""
        for later in [one for one in self.revisions() if one > revision]:
            self._file(later).unlink(missing_ok=True)
        self._forget()

    def clear(self) -> None:
        """Removes everything."""
        if self._folder.is_dir():
            self.drop_after(-1)
            remove_leftovers(self._folder)
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def entries(self) -> list[PageEntry]:
        """What all records say of all pages."""
        revisions = self.revisions()
        if revisions != self._read[0]:
            records = [self.read(revision) or {"entries": []} for revision in revisions]
            self._read = revisions, [entry for record in records for entry in record["entries"]]
        return self._read[1]

    def files(self) -> set[str]:
        """The page files that records name, relative to the story folder."""
        return set[str]().union(*(entry.files for entry in self.entries()))

    def _file(self, revision: int) -> Path:
        return self._folder / f"{revision:05d}.json"

    def _forget(self) -> None:
        self._read = [], []
