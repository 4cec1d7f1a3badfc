"""The terminal while a story is generated, without the chatter of the libraries under this one."""

from __future__ import annotations

import os
import warnings

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from seedstory.story import Page
from seedstory.text import clean_text


class StoryScreen:
    """Shows a story as it is generated: on a terminal with a bar and the words as they come, else one line a page."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done
        self.interrupted: list[int] = []
        self._console = Console(highlight=False)
        self._words = Text(style="dim", no_wrap=True, overflow="ellipsis")
        columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("pages"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console)
        self._task = self._bar.add_task("", total=total, completed=done)
        self._live = Live(Group(self._words, self._bar), console=self._console, transient=True, refresh_per_second=8)

    def __enter__(self) -> StoryScreen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show_text(self, index: int, text: str) -> None:
        """Shows the end of the caption that is being written."""
        if self.interrupted:
            raise KeyboardInterrupt
        text, room = clean_text(text), max(10, self._console.width - 10)
        self._words.plain = f"{index + 1:>4}  {text if len(text) <= room else '…' + text[-room:]}"

    def show(self, page: Page) -> None:
        """Shows a finished page."""
        self.done += 1
        if not self._console.is_terminal:
            print(f"[{page.number}/{self.total}] {clean_text(page.caption)}", flush=True)
            return
        self._words.plain = ""
        row = Table.grid(padding=(0, 2))
        row.add_column(width=4, justify="right", style="dim")
        row.add_column()
        row.add_row(str(page.number), Text(clean_text(page.caption) or "(a picture)"))
        self._console.print(row)
        self._bar.update(self._task, completed=self.done)


def quiet_libraries() -> None:
    """Silences the chatter of the libraries under this one."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore")
    import diffusers
    import transformers

    for library in (transformers, diffusers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
