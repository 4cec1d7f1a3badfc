"""The findings of the first pass on disk, one line per story, so that a killed run resumes and memory stays small."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from data_tools.clean.rules import Inspection, PageInspection
from data_tools.drops import Drop
from seedstory.storystream import StoryRecord


class Spool:
    """A file of inspected stories, in the order of the source.

    Args:
        path: The file. What a killed run left of it is kept, but for a line that is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        whole, self.lines = 0, 0
        with open(path, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    whole, self.lines = whole + len(line), self.lines + 1
        with open(path, "r+b") as file:
            file.truncate(whole)

    def extend(self, lines: Iterable[bytes]) -> None:
        """Adds what `to_line` made."""
        with open(self.path, "ab") as file:
            for line in lines:
                file.write(line)
                self.lines += 1

    def __iter__(self) -> Iterator[tuple[str, Inspection]]:
        with open(self.path, "rb") as file:
            yield from map(from_line, file)


def to_line(split: str, found: Inspection) -> bytes:
    """A story as it stands in the file."""
    data = {
        "split": split,
        "record": found.record and found.record.to_dict(),
        "looks": [[inspection.fingerprint.hex(), inspection.crop] for inspection in found.inspections],
        "drops": [asdict(drop) for drop in found.drops],
    }
    return json.dumps(data).encode() + b"\n"


def from_line(line: bytes) -> tuple[str, Inspection]:
    """The split a story comes from, and what was found of it."""
    data = json.loads(line)
    inspections = [PageInspection(bytes.fromhex(name), tuple(crop) if crop else None) for name, crop in data["looks"]]
    record = StoryRecord.from_dict(data["record"]) if data["record"] else None
    return data["split"], Inspection(record, inspections, [Drop(**drop) for drop in data["drops"]])
