"""When pictures are drawn: with the words, beside them, or after them.

The language model never needs pixels: its visual context is the features it regressed. So it may write on while the
de-tokenizer draws, and pictures may be drawn in batches. Nothing of this changes words or features, and a page's noise
comes from its own seed. What may change is the order in which the networks sum, and so the last bit of a picture: in a
batch, and "ahead" on a CPU whose other cores write. About one color value in 100,000 then differs, by 1/255.

Peak memory of the whole process, the mini on a two-core CPU (VmHWM): 0.93 GB for ten pages, inline in batches of 1, 2
and 4 and ahead one by one. "after" peaks as inline does (0.88 and 0.89 GB for three pages) and is down
to 0.48 GB (VmRSS) when the language model is freed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from seedstory.errors import RequestError
from seedstory.page import Page, settings_of
from seedstory.settings import MAX_PAGES, StorySettings, check_int

if TYPE_CHECKING:
    import torch

    from seedstory.detokenizers.detokenizer import Detokenizer

RENDERING_MODES = ("inline", "ahead", "after")


@dataclass(frozen=True)
class Rendering:
    """When pictures are drawn, and how many together. Recorded nowhere: it does not change the story.

    Args:
        rendering: "inline" draws as soon as a batch of pages is written. "ahead" draws on a second thread (on CUDA,
            a second stream) while the language model writes on. "after" writes the whole story first, frees the
            memory of the language model and draws then.
        render_batch: Pages that are drawn together. They come out together, too.
        render_queue: Batches that "ahead" may leave undrawn before the language model waits; it is never more than
            `(render_queue + 1) * render_batch` pages ahead of the pages that came out.
    """

    rendering: str = "inline"
    render_batch: int = 1
    render_queue: int = 2

    def __post_init__(self) -> None:
        if self.rendering not in RENDERING_MODES:
            raise RequestError(f"unknown rendering {self.rendering!r}: choose one of {', '.join(RENDERING_MODES)}")
        check_int("render_batch", self.render_batch, 1, MAX_PAGES)
        check_int("render_queue", self.render_queue, 1, MAX_PAGES)

    @property
    def defers(self) -> bool:
        """Whether a page may wait for its picture while others are written."""
        return self.rendering != "inline" or self.render_batch > 1


def render_story(
    pages: Iterable[Page],
    detokenizer: Detokenizer,
    settings: StorySettings,
    rendering: Rendering,
    keep: Callable[[Page], None],
    free_story_model: Callable[[], None],
    *,
    before_batch: Callable[[], None] = lambda: None,
    callback_on_step_end: Callable[..., Any] | None = None,
) -> Iterator[Page]:
    """Draws written pages. Close the generator to end the drawing early.

    Args:
        pages: Written pages without pictures; asking for the next one may write it. They are asked for in the
            caller's thread, also when others draw.
        detokenizer: Draws.
        settings: Of the story.
        rendering: When to draw.
        keep: Stores a page: each one that is drawn, and before that each one that has to wait, so that a killed run
            loses little. Called in the caller's thread.
        free_story_model: Called by "after" when all pages are written.
        before_batch: Called before each batch is drawn.
        callback_on_step_end: Called after each diffusion step, see `Detokenizer`.

    Yields:
        The pages in order with their pictures, once their whole batch is stored.
    """
    batches = _batches(_kept(pages, keep) if rendering.defers else pages, rendering.render_batch)
    draw = partial(
        render_pages, detokenizer, settings, before_batch=before_batch, callback_on_step_end=callback_on_step_end
    )
    if rendering.rendering == "after":
        batches = iter(list(batches))
        free_story_model()
    if rendering.rendering == "ahead":
        drawn = _render_in_background(batches, draw, detokenizer.device, rendering.render_queue)
    else:
        drawn = (draw(batch) for batch in batches)
    with closing(drawn):
        for batch in drawn:
            for page in batch:
                keep(page)
            yield from batch


def render_pages(
    detokenizer: Detokenizer,
    settings: StorySettings,
    pages: list[Page],
    stopped: threading.Event | None = None,
    *,
    before_batch: Callable[[], None] = lambda: None,
    callback_on_step_end: Callable[..., Any] | None = None,
) -> list[Page]:
    """The pages with their pictures; the noise of each is a function of its seed alone.

    Args:
        detokenizer: Draws.
        settings: Of the story.
        pages: Written pages.
        stopped: Once set, drawing is given up before the next diffusion step.
        before_batch: Called first.
        callback_on_step_end: Called after each diffusion step, see `Detokenizer`.

    Raises:
        InterruptedError: Drawing was given up.
    """
    import torch

    def check(*step: object) -> None:
        if stopped is not None and stopped.is_set():
            raise InterruptedError("the drawing of pages was stopped")
        if step and callback_on_step_end is not None:
            callback_on_step_end(*step)

    assert all(page.features is not None for page in pages), "a page is written before it is drawn"
    check()
    before_batch()
    drawn: list[Page] = []
    for options, group in groupby(pages, lambda page: drawing_options(settings_of(page, settings))):
        some = list(group)
        images = detokenizer(
            torch.stack([page.features for page in some if page.features is not None]),
            generator=[torch.Generator().manual_seed(page.seed) for page in some],
            callback_on_step_end=check,
            **options._asdict(),
        )
        drawn += [
            replace(page, image=image, state="opening" if page.state == "opening" else "illustrated")
            for page, image in zip(some, images, strict=True)
        ]
    return drawn


class DrawingOptions(NamedTuple):
    """How one call of a `Detokenizer` draws; pages with the same ones are drawn together."""

    num_inference_steps: int | None
    guidance_scale: float | None
    scheduler: str | None
    guidance_interval: tuple[float, float]


def drawing_options(settings: StorySettings) -> DrawingOptions:
    """How a page with these settings is drawn."""
    return DrawingOptions(**{name: getattr(settings, name) for name in DrawingOptions._fields})


def drawing_steps(detokenizer: Detokenizer, settings: StorySettings) -> int:
    """Diffusion steps of a page with these settings, those that the scheduler brings along included."""
    if settings.num_inference_steps is not None:
        return settings.num_inference_steps
    return detokenizer.objective_with(settings.scheduler).num_inference_steps


def _kept(pages: Iterable[Page], keep: Callable[[Page], None]) -> Iterator[Page]:
    for page in pages:
        keep(page)
        yield page


def _batches(pages: Iterable[Page], size: int) -> Iterator[list[Page]]:
    """Groups pages by their place in the story, so that a resumed story draws the same ones together."""
    batch: list[Page] = []
    for page in pages:
        batch.append(page)
        if (page.index + 1) % size == 0:
            yield batch
            batch = []
    if batch:
        yield batch


def _render_in_background(
    batches: Iterable[list[Page]],
    draw: Callable[[list[Page], threading.Event], list[Page]],
    device: torch.device,
    queue: int,
) -> Generator[list[Page], None, None]:
    import torch

    stopped, stream = threading.Event(), None
    pool = ThreadPoolExecutor(1, thread_name_prefix="seedstory-draw")
    waiting: deque[Future[list[Page]]] = deque()

    def work(batch: list[Page]) -> list[Page]:
        with torch.cuda.stream(stream):  # nothing where there is none; pictures are copied to the host before it ends
            return draw(batch, stopped)

    try:
        if device.type == "cuda":
            stream = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))  # the weights are there
        else:
            # Two pools of threads would fight for the cores: drawing gets one core. The setting is partly global, so
            # it is set again here.
            threads = torch.get_num_threads()
            pool.submit(torch.set_num_threads, 1).result()
            torch.set_num_threads(threads)
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            while waiting and (len(waiting) > queue or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
