"""Stories that are written together and end as books: what `inference.generate` hands to a worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedstory.errors import SeedStoryError
from seedstory.export.html import write_html
from seedstory.story import StoryFolder
from seedstory.story_writer import check_same_model

if TYPE_CHECKING:
    from seedstory.pipeline import StoryPipeline


def is_finished(folder: Path) -> bool:
    """Whether a story is whole: its book is written last."""
    return (folder / "index.html").is_file()


@dataclass(frozen=True)
class StoryTask:
    """The making of stories whose words are written together.

    Args:
        stories: The arguments of `StoryPipeline.stream` for each, `out` included.
    """

    stories: tuple[dict[str, Any], ...]

    @property
    def pages(self) -> int:
        return 2 * sum(story["pages"] for story in self.stories)

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(story["out"] for story in self.stories)

    def split(self) -> list[StoryTask]:
        return [StoryTask((story,)) for story in self.stories if not is_finished(story["out"])]

    def make(self, pipeline: StoryPipeline) -> Iterator[Any]:
        """Writes the words that are missing, of the same stories together, so that rounding is the same; then draws.

        Yields:
            Once for each page that is written and for each one that is drawn.
        """
        unfinished = [story for story in self.stories if not is_finished(story["out"])]
        unwritten = [story for story in unfinished if not _is_written(pipeline, story)]
        if unwritten:
            # Stories are drawn once all are written: where one is finished, the others have their words, or are new.
            yield from pipeline.write_batch(self.stories if len(unfinished) == len(self.stories) else unwritten)
        for story in unfinished:
            yield from pipeline.resume(story["out"])
            write_html(StoryFolder.open(story["out"]), story["out"] / "index.html")


def _is_written(pipeline: StoryPipeline, story: dict[str, Any]) -> bool:
    """Whether a folder has all words and features of a story, as this model writes it."""
    try:
        folder = StoryFolder.open(story["out"])
        check_same_model(folder, pipeline.identity)
    except SeedStoryError:
        return False
    whole = all(folder.page(index, image=False).is_whole for index in range(len(folder)))
    return whole and len(folder) == story["pages"] and folder.settings == pipeline._request(**story).settings
