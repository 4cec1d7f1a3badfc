"""What makes the stories of a job runner: one batch for each of its threads, in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seedstory.server.previews import Previews
from seedstory.story import Page
from seedstory.story_batch import StoryBatch, check_takes_turns

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from seedstory.pipeline import OnText, StoryPipeline

DrawPreview = Callable[[int], str | None]
OnDrawing = Callable[[Sequence[tuple[int, Page]], int, DrawPreview], Any]


class WorkerLostError(RuntimeError):
    """Whoever made stories is gone, and another one goes on; nothing is said against the stories."""


class Batch(Protocol):
    """Stories that are made side by side, as in `StoryBatch`; any method may raise `WorkerLostError`."""

    def encode(self, image: Image.Image) -> Tensor:
        """Features `[F, Df]` of an image."""

    def resume(self, folder: Path, *, callback_on_text: OnText) -> int:
        """Lets an unfinished story folder join; returns its number."""

    def remove(self, number: int) -> None:
        """Lets a story go before its end."""

    def step(self, *, previews: bool) -> list[tuple[int, Page]]:
        """Number and next page of every story; `previews` says whether somebody watches for drafts."""

    def close(self) -> None:
        """Lets all stories go."""


OpenBatch = Callable[[OnDrawing, Callable[[], bool]], Batch]
"""Opens a batch, given what is called while images are drawn, and what says that the server stops.

The first is called as `callback(pages, step, preview)` with the numbers and pages of the stories that are drawn, the
diffusion step, and what makes the draft of one of these images, by its place. What a callback raises ends `step`.
"""


class LocalBatch(StoryBatch):
    """A batch of this process.

    Args:
        pipeline: Used by the batch's thread alone.
        previews: Makes the drafts.
        on_drawing: See `OpenBatch`.
    """

    def __init__(self, pipeline: StoryPipeline, previews: Previews, on_drawing: OnDrawing) -> None:
        def on_draw(pages: Sequence[tuple[int, Page]], step: int, callback_kwargs: dict[str, Any]) -> None:
            on_drawing(pages, step, lambda row: previews(callback_kwargs["pred_original_sample"][row]))

        super().__init__(pipeline, on_draw)

    def step(self, *, previews: bool = True) -> list[tuple[int, Page]]:
        """As in `StoryBatch`; a draft is made when it is asked for."""
        return super().step()

    def encode(self, image: Image.Image) -> Tensor:
        """Features `[F, Df]` of an image."""
        return self.pipeline._encode(image)


def local_batches(pipeline: StoryPipeline) -> list[OpenBatch]:
    """One batch, of this process.

    Raises:
        RequestError: The pipeline reads its networks in phases.
    """
    check_takes_turns(pipeline)
    previews = Previews(pipeline)

    def open_batch(on_drawing: OnDrawing, _: Callable[[], bool]) -> Batch:
        return LocalBatch(pipeline, previews, on_drawing)

    return [open_batch]
