"""The output layout of ViStoryBench, in which a benchmark finds the pictures of a story.

    PATH/METHOD/MODE/{en,ch}/TIMESTAMP/STORY_ID/shots/shot_01.png

Its reader stops at any name without a number, so nothing else is written there. Missing shots are skipped by its
scores and not counted as errors: report how many there are beside them.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from seedstory.errors import RequestError, StoryFolderError
from seedstory.export.book import Book, BookDesign, png_of
from seedstory.io import write_atomic
from seedstory.story import Story, StoryFolder

logger = logging.getLogger(__name__)
TIMESTAMP = "20000101_000000"  # the layout must have one; a story has none


def write_vistorybench(
    story: Story | StoryFolder,
    path: str | Path,
    *,
    design: BookDesign | None = None,
    method: str = "seedstory",
    mode: str = "base",
    story_id: str = "01",
) -> Path:
    """Writes the pictures of a story in the output layout of ViStoryBench.

    Args:
        story: A story in memory, or a story folder.
        path: The folder of outputs (`data/outputs` in a checkout of the benchmark); made if it is missing.
        design: Without effect: the layout has pictures alone.
        method: Name of the method.
        mode: Name of the mode.
        story_id: Number of the benchmark's story.

    Returns:
        The folder of the story's shots.

    Raises:
        RequestError: A name has other characters than letters, digits, `-` and `_`, or the number is none.
        StoryFolderError: No page has a picture, or the folder cannot be written.
    """
    for what, name in (("method", method), ("mode", mode)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
            raise RequestError(f"{what} must be a name of letters, digits, - and _, not {name!r:.40}")
    if not re.fullmatch(r"[0-9]{1,6}", story_id):
        raise RequestError(f"the number of a ViStoryBench story must be digits such as 01, not {story_id!r:.40}")
    book = Book.of(story, design)
    drawn = sum(page.has_image for page in book.pages)
    if not drawn:
        raise StoryFolderError("no page of the story has a picture: nothing to write")
    language = "ch" if book.language.split("-")[0].lower() == "zh" else "en"
    shots = Path(path) / method / mode / language / TIMESTAMP / story_id / "shots"
    named = set()
    try:
        for page, image in book.images():
            if image is not None:
                name = f"shot_{page.number:02d}.png"
                write_atomic(shots / name, png_of(image), make_folder=True)
                named.add(name)
        for old in shots.glob("shot_*.png"):
            if old.name not in named:
                old.unlink()
    except OSError as error:
        raise StoryFolderError(f"cannot write {shots}: {error.strerror}; choose another place") from error
    if drawn < len(book.pages):
        logger.warning(
            "%d of %d pages have no picture: ViStoryBench skips them", len(book.pages) - drawn, len(book.pages)
        )
    return shots
