"""What a data tool leaves out, and why: one `Drop` per page, story or source file, counted by reason.

A bad image never ends a run: it is dropped and counted, and the last lines of the run list the drops. The list stays
with the data set as `drops.jsonl`, so that a report can still say where pages went.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from seedstory.io import write_atomic

NAME = "drops.jsonl"


@dataclass(frozen=True)
class Drop:
    """One thing that was left out.

    Attributes:
        story: Id of the story, or the name of the source file where no story came of it.
        page: Place of the page in the story's lists, from 0; None where all of the story or file is left out.
        reason: Short fixed slug that is counted, such as "unreadable-picture" or "near-duplicate".
        detail: What exactly was seen, for a person.
    """

    story: str
    page: int | None
    reason: str
    detail: str = ""


class Tally:
    """An ordered list of drops with their count by reason.

    Args:
        drops: What it begins with.
    """

    def __init__(self, drops: Iterable[Drop] = ()) -> None:
        self.drops = list(drops)

    def __len__(self) -> int:
        return len(self.drops)

    def __iter__(self) -> Iterator[Drop]:
        return iter(self.drops)

    def __add__(self, other: Tally) -> Tally:
        return Tally([*self.drops, *other.drops])

    def add(self, drop: Drop | Iterable[Drop]) -> None:
        """Adds one drop, or several."""
        self.drops.extend([drop] if isinstance(drop, Drop) else drop)

    def counts(self) -> dict[str, int]:
        """How often each reason was given, the most frequent first."""
        counted = Counter(drop.reason for drop in self.drops)
        return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes `drops.jsonl` into a data set folder in one atomic step; without drops, there is no such file."""
        path = Path(folder) / NAME
        if not self.drops:
            path.unlink(missing_ok=True)
            return
        lines = [json.dumps(asdict(drop), ensure_ascii=False) + "\n" for drop in self.drops]
        write_atomic(path, "".join(lines).encode("utf-8", "backslashreplace"), make_folder=True)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Tally:
        """Reads a folder's `drops.jsonl`; empty where there is none.

        Raises:
            ValueError: A line is no drop. The message names file and line.
        """
        path = Path(folder) / NAME
        if not path.is_file():
            return cls()
        drops = []
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                drops.append(Drop(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number}: not a drop ({error}); delete the file to go without"
                ) from None
        return cls(drops)

    def show(self, console: Console | None = None) -> None:
        """Prints the table of reasons, with an example of each: the last lines of every data tool."""
        console = console or Console()
        if not self.drops:
            console.print("Nothing was dropped.")
            return
        examples = {drop.reason: drop for drop in reversed(self.drops)}
        table = Table("dropped because", "times", "for example", box=None, pad_edge=False)
        table.columns[1].justify = "right"
        for reason, count in self.counts().items():
            example = examples[reason]
            place = example.story if example.page is None else f"{example.story}, page {example.page}"
            table.add_row(reason, str(count), f"{place}: {example.detail}" if example.detail else place)
        console.print(table, markup=False)
