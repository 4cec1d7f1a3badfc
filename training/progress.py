"""How far a run is and how long it will take: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class StepProgress:
    """Counts steps for who watches.

    Args:
        name: of the stage.
        steps: in all.
        done: of them, before this part of the run.
        say: writes a line; None in processes that say nothing.
        every: seconds between two lines.
    """

    def __init__(
        self, name: str, steps: int, done: int, say: Callable[[str], None] | None, *, every: float = 20.0
    ) -> None:
        self.steps, self.before, self.say, self.every = steps, done, say, every
        self.began = self.last = time.monotonic()
        self._bar: Progress | None = None
        if say is not None and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(name, total=steps, completed=done)
            self._bar.start()

    def update(self, done: int) -> None:
        """So many steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
            return
        now = time.monotonic()
        if self.say is None or now - self.last < self.every or done >= self.steps:
            return
        self.last = now
        left = (now - self.began) / max(done - self.before, 1) * (self.steps - done)
        self.say(f"step {done} of {self.steps}, {format_duration(left)} left")

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()


def format_duration(seconds: float) -> str:
    """A span of time as a reader says it."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
