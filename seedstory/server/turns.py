"""Stories that take turns, a page each."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from seedstory.errors import RequestError
from seedstory.story import Page, StoryFolder

if TYPE_CHECKING:
    from seedstory.pipeline import OnText, StoryPipeline


class StoryTurns:
    """Makes several stories in turn, as `StoryPipeline.resume` makes each.

    Args:
        pipeline: Writes and draws.
    """

    def __init__(self, pipeline: StoryPipeline) -> None:
        self.pipeline = pipeline
        self._members: dict[int, Generator[Page, None, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Stories under way."""
        return len(self._members)

    def resume(self, folder: str | Path | StoryFolder, *, callback_on_text: OnText | None = None) -> int:
        """Lets an unfinished story join; returns its number."""
        self._members[self._count] = self.pipeline.resume(folder, callback_on_text=callback_on_text)
        self._count += 1
        return self._count - 1

    def remove(self, number: int) -> None:
        """Lets a story go before its end.

        Raises:
            RequestError: It is not under way.
        """
        if number not in self._members:
            raise RequestError(f"story {number} is not under way")
        self._members.pop(number).close()

    def close(self) -> None:
        """Lets all stories go."""
        for number in list(self._members):
            self.remove(number)

    def step(self) -> list[tuple[int, Page]]:
        """The next page of every story."""
        pages = []
        for number, pages_of_story in list(self._members.items()):
            page = next(pages_of_story, None)
            if page is None:
                del self._members[number]
            else:
                pages.append((number, page))
        return pages
