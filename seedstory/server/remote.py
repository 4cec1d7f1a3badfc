"""Batches of a job runner on a Ray cluster: each worker holds the model and a batch of stories of its own.

Workers write the library's folders themselves, so every machine sees the library and the model at the same paths.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedstory.error_reporting import one_line
from seedstory.errors import ModelError, RequestError, SeedStoryError
from seedstory.identity import ModelIdentity
from seedstory.ray_cluster import connect, divide, is_connected
from seedstory.server.batches import Batch, LocalBatch, OnDrawing, OpenBatch, WorkerLostError
from seedstory.server.previews import Previews
from seedstory.story import Page

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from seedstory.pipeline import OnText

_LOOK = 0.5  # seconds between two looks at whether the server stops
_STOPPING = 5.0  # seconds for a worker to let its stories go
_LOADS = 3  # times in a row that a worker may die while it loads the model


class _StoppedError(Exception):
    """The page under way is given up."""


class _WorkerFaultError(Exception):
    """What went wrong in a worker by no fault of the user's."""


class BatchActor:
    """A worker of Ray. One thread of it uses the model; faults come home as values."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._events: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._previews = self._stopped = False
        self._batch: LocalBatch

    def load(self, model: str, device: str | None, int8: bool, decoding: str) -> tuple[str, Any]:
        """Loads the model."""

        def load() -> ModelIdentity:
            from seedstory.model_folder import find_model
            from seedstory.progress_display import quiet_libraries

            find_model(model)  # which waits for no network to be imported
            from seedstory.pipeline import StoryPipeline

            quiet_libraries()
            pipeline = StoryPipeline.from_pretrained(
                model, device=device, quantization="int8" if int8 else "", decoding=decoding
            )
            self._batch = LocalBatch(pipeline, Previews(pipeline), self._drawing)
            return pipeline.identity

        return self._answer(self._thread.submit(load))

    def encode(self, image: Image.Image) -> tuple[str, Any]:
        """Features of an image."""
        return self._answer(self._thread.submit(self._batch.encode, image))

    def resume(self, folder: Path) -> tuple[str, Any]:
        """Lets a story join."""
        number: list[int] = []

        def pass_on(index: int, text: str) -> None:
            self._check_going()
            self._events.put(("text", (number[0], index, text)))

        def resume() -> int:
            number.append(self._batch.resume(folder, callback_on_text=pass_on))
            return number[0]

        return self._answer(self._thread.submit(resume))

    def remove(self, number: int) -> tuple[str, Any]:
        """Lets a story go."""
        return self._answer(self._thread.submit(self._batch.remove, number))

    def step(self, previews: bool) -> Iterator[tuple[str, Any]]:
        """What happens in a step, as it happens, and then its pages or its fault."""
        self._previews = previews
        future = self._thread.submit(self._batch.step)
        future.add_done_callback(lambda _: self._events.put(None))
        while (event := self._events.get()) is not None:
            yield event
        what, value = self._answer(future)
        if what == "answer":
            value = [(number, replace(page, image=None, features=None)) for number, page in value]
        yield what, value

    def _drawing(self, pages: Sequence[tuple[int, Page]], step: int, draw_preview: Callable[[int], str | None]) -> None:
        drafts = [draw_preview(row) if self._previews and step else None for row in range(len(pages))]
        small = [(number, replace(page, image=None, features=None)) for number, page in pages]
        self._events.put(("drawing", (small, step, drafts)))

    def stop(self) -> None:
        """Gives up the page under way, and lets all stories go; called beside a step."""
        self._stopped = True
        self._thread.submit(self._batch.close).result()

    def _check_going(self) -> None:
        if self._stopped:
            raise _StoppedError("the server stops")

    @staticmethod
    def _answer(future: Future[Any]) -> tuple[str, Any]:
        try:
            return "answer", future.result()
        except SeedStoryError as error:
            return "known", one_line(str(error))
        except OSError as error:
            return "disk", (error.errno, error.strerror)
        except Exception as error:  # noqa: BLE001 - raised again by the server
            return "fault", one_line(f"{type(error).__name__}: {error}")


class RemoteBatch:
    """A batch that a worker holds.

    Args:
        ray: As `seedstory.ray_cluster.connect` returned it.
        actor: The worker, with its model loaded.
        on_drawing: As in `OpenBatch`.
        is_closing: As there.
    """

    def __init__(self, ray: Any, actor: Any, on_drawing: OnDrawing, is_closing: Callable[[], bool]) -> None:
        self._ray, self._actor = ray, actor
        self._on_drawing, self._is_closing = on_drawing, is_closing
        self._texts: dict[int, OnText] = {}

    def encode(self, image: Image.Image) -> Tensor:
        """Features `[F, Df]` of an image."""
        return self._get(self._actor.encode.remote(image))

    def resume(self, folder: Path, *, callback_on_text: OnText) -> int:
        """Lets an unfinished story folder join; returns its number."""
        number: int = self._get(self._actor.resume.remote(folder.resolve()))
        self._texts[number] = callback_on_text
        return number

    def remove(self, number: int) -> None:
        """Lets a story go before its end."""
        self._texts.pop(number, None)
        with suppress(WorkerLostError):  # with all its stories; the next step says so
            self._get(self._actor.remove.remote(number))

    def step(self, *, previews: bool) -> list[tuple[int, Page]]:
        """Number and next page of every story; the pages hold words and no images."""
        events = self._actor.step.options(num_returns="streaming").remote(previews)
        while True:
            what, value = self._heard(self._next(events))
            if what == "answer":
                return value
            if what == "text":
                number, index, text = value
                if number in self._texts:
                    self._texts[number](index, text)
            else:
                pages, step, drafts = value
                self._on_drawing(pages, step, drafts.__getitem__)

    def close(self) -> None:
        """Ends the worker, which lets all stories go."""
        with suppress(Exception):  # it may be dead, or busy with something long
            self._ray.get(self._actor.stop.remote(), timeout=_STOPPING)
        self._ray.kill(self._actor)

    def _next(self, events: Any) -> Any:
        """The next event of a step, or the loss of the worker."""
        self._wait(events)
        try:
            return next(events)
        except StopIteration:
            raise WorkerLostError("a worker ended in the middle of a step") from None

    def _get(self, reference: Any) -> Any:
        return self._heard(reference)[1]

    def _heard(self, reference: Any) -> tuple[str, Any]:
        self._wait(reference)
        try:
            what, value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise WorkerLostError(f"a worker is gone: {str(error).strip().splitlines()[0]}") from None
        if what == "known":
            raise RequestError(value)
        if what == "disk":
            raise OSError(*value)
        if what == "fault":
            raise _WorkerFaultError(value)
        return what, value

    def _wait(self, reference: Any) -> None:
        while not self._ray.wait([reference], timeout=_LOOK)[0]:
            if self._is_closing():
                raise WorkerLostError("the server stops")


class RemoteBatches:
    """The workers of a server on a Ray cluster.

    Args:
        model: "mini", a folder that all machines see, or a Hub id.
        device: As in `StoryPipeline.from_pretrained`, where workers have no GPU.
        int8, decoding: As there.
        workers: How many; by default one for each GPU, or for each CPU where there is none.
        address: As in `seedstory.ray_cluster.connect`.

    Raises:
        RequestError: Ray is not installed, the cluster cannot be reached, or it has no room for a worker.
        ModelError: The model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        int8: bool = False,
        decoding: str = "auto",
        workers: int | None = None,
        address: str | None = None,
    ) -> None:
        self._ours = not is_connected()
        self._ray = connect(address, small=True)
        share = divide(self._ray, workers)
        model = str(Path(model).resolve()) if Path(model).is_dir() else model
        self._options = (model, None if share.num_gpus else device, int8, decoding)
        self._kind = self._ray.remote(max_concurrency=2, **share.options)(BatchActor)  # a step, and its stop
        self._starting = [self._start() for _ in range(share.workers)]
        try:
            actor, loaded = self._starting[0]
            self.identity: ModelIdentity = self._loaded(actor, loaded, lambda: False)
        except BaseException:
            self.close()
            raise

    def open_all(self) -> list[OpenBatch]:
        """What opens the batch of each worker, see `JobRunner`; one that is lost is replaced by another one."""
        return [partial(self._open, [started]) for started in self._starting]

    def close(self) -> None:
        """Ends the workers, and a cluster that was started here."""
        for actor, _ in self._starting:
            self._ray.kill(actor)
        if self._ours:
            self._ray.shutdown()

    def _start(self) -> tuple[Any, Any]:
        actor = self._kind.remote()
        return actor, actor.load.remote(*self._options)

    def _open(self, started: list[tuple[Any, Any]], on_drawing: OnDrawing, is_closing: Callable[[], bool]) -> Batch:
        for _ in range(_LOADS):
            actor, loaded = started.pop() if started else self._start()
            try:
                self._loaded(actor, loaded, is_closing)
            except WorkerLostError:
                self._ray.kill(actor)
                if is_closing():
                    raise
                continue
            return RemoteBatch(self._ray, actor, on_drawing, is_closing)
        raise WorkerLostError("workers die while they load the model, most often because memory runs out")

    def _loaded(self, actor: Any, loaded: Any, is_closing: Callable[[], bool]) -> ModelIdentity:
        try:
            return RemoteBatch(self._ray, actor, lambda *_: None, is_closing)._get(loaded)
        except (RequestError, OSError) as error:
            raise ModelError(f"a worker cannot load the model: {error}") from None
