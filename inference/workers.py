"""Where stories are made: in this process, or by workers of Ray, each with the model loaded once.

A task makes one story, or several that are written together. What it writes depends on the task alone, so an engine
changes how long a run takes and nothing else. A task that loses its worker is tried once more, and then story by story;
a story that fails again, or that cannot be made at all, is reported, and the others are made.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from seedstory.error_reporting import one_line
from seedstory.errors import RequestError, SeedStoryError
from seedstory.ray_cluster import connect, divide, is_connected

if TYPE_CHECKING:
    from seedstory.pipeline import StoryPipeline

_TRIES = 2  # of a task, before its stories are tried one by one or given up
_LOADS = 3  # workers in a row that may die while they load the model
_NOTICE = 20.0  # seconds after which a user is told why nothing happens

EngineOption = Annotated[str, typer.Option("--engine", help="local (this process) or ray: workers of a Ray cluster")]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="of Ray, alike; by default one a GPU, or a CPU where there is no GPU"),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="HOST:PORT of a Ray cluster, or auto; by default RAY_ADDRESS, or this machine"),
]


class Task(Protocol):
    """Makes stories; picklable.

    Attributes:
        pages: How many it counts while it works.
    """

    @property
    def pages(self) -> int: ...

    @property
    def folders(self) -> Sequence[Path]:
        """Of its stories."""

    def make(self, pipeline: StoryPipeline) -> Iterator[Any]:
        """Makes what is missing; yields once for each page that is written, and for each that is drawn."""

    def split(self) -> Sequence[Task]:
        """A task for each of its stories."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        task: The task.
        seconds: It took its worker.
        fault: Why its story is not made.
    """

    task: Task
    seconds: float = 0.0
    fault: str = ""

    @property
    def line(self) -> str:
        """The fault, with the story's name."""
        return f"{', '.join(folder.name for folder in self.task.folders)}: {self.fault}"


class Workers(Protocol):
    """Whoever makes tasks."""

    def __enter__(self) -> Workers: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, tasks: Sequence[Task], advance: Callable[[int], Any]) -> Generator[Outcome, None, None]:
        """Makes all tasks.

        Args:
            tasks: They write different folders.
            advance: Called with the number of pages that have come, or that are to come once more.

        Yields:
            What became of each, as soon as it is known.
        """


@dataclass
class LocalWorker:
    """Makes one task after another in this process.

    Attributes:
        pipeline: The model.
    """

    pipeline: StoryPipeline

    def __enter__(self) -> LocalWorker:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, tasks: Sequence[Task], advance: Callable[[int], Any]) -> Generator[Outcome, None, None]:
        waiting = deque(tasks)
        while waiting:
            task, made, start = waiting.popleft(), 0, time.perf_counter()
            try:
                for _ in task.make(self.pipeline):
                    made += 1
                    advance(1)
            except SeedStoryError as error:
                advance(-made)
                if len(task.folders) > 1:
                    waiting.extendleft(reversed(task.split()))
                else:
                    yield Outcome(task, fault=one_line(str(error)))
                continue
            advance(task.pages - made)
            yield Outcome(task, time.perf_counter() - start)


class StoryActor:
    """A worker of Ray: loads the model once and makes tasks. Faults come home as text, in the order of the pages."""

    def __init__(self) -> None:
        self.pipeline: StoryPipeline | None = None

    def load(self, model: str, int8: bool) -> str:
        """Loads the model; returns why it cannot be, or nothing."""
        from seedstory.model_folder import find_model
        from seedstory.progress_display import quiet_libraries

        try:
            find_model(model)  # which waits for no network to be imported
            from seedstory.pipeline import StoryPipeline

            quiet_libraries()
            self.pipeline = StoryPipeline.from_pretrained(model, quantization="int8" if int8 else "")
        except (SeedStoryError, OSError) as error:
            return one_line(str(error))
        return ""

    def make(self, task: Task) -> Iterator[tuple[str, Any]]:
        """Yields ("page", 1) for each page, then ("done", seconds), ("fault", why) or ("lost", why)."""
        assert self.pipeline is not None, "load comes first"
        start = time.perf_counter()
        try:
            for _ in task.make(self.pipeline):
                yield "page", 1
        except SeedStoryError as error:
            yield "fault", one_line(str(error))
        except Exception as error:  # noqa: BLE001 - this machine or its memory may be at fault: another one tries
            yield "lost", one_line(f"{type(error).__name__}: {error}")
        else:
            yield "done", time.perf_counter() - start


@dataclass
class _Work:
    """A task that a worker has in hand."""

    actor: Any
    task: Task
    tries: int
    made: int = 0


class RayWorkers:
    """Makes tasks side by side on a Ray cluster; a context manager, which ends the workers.

    Args:
        model: "mini", a folder that all machines see, or a Hub id.
        int8: As in `StoryPipeline.from_pretrained`.
        workers: How many; by default one for each GPU, or for each CPU where there is none.
        address: As in `seedstory.ray_cluster.connect`.
        say: Told of what a user may wonder about.

    Raises:
        RequestError: Ray is not installed, the cluster cannot be reached, or it has no room for a worker.
    """

    def __init__(
        self,
        model: str,
        *,
        int8: bool = False,
        workers: int | None = None,
        address: str | None = None,
        say: Callable[[str], Any] = lambda line: typer.echo(line, err=True),
    ) -> None:
        self.model = str(Path(model).resolve()) if Path(model).is_dir() else model
        self.int8, self.say = int8, say
        self._ours = not is_connected()
        self._ray = connect(address, small=True)
        self._share = divide(self._ray, workers)
        self._actor = self._ray.remote(**self._share.options)(StoryActor)
        self._loading: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, _Work] = {}
        self._failed_loads, self._waited = 0, False

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in (*self._loading.values(), *self._idle):
            self._ray.kill(actor)
        if self._ours:
            self._ray.shutdown()

    def run(self, tasks: Sequence[Task], advance: Callable[[int], Any]) -> Generator[Outcome, None, None]:
        waiting = deque((task, 0) for task in tasks)
        try:
            while waiting or self._busy:
                self._start(len(waiting) + len(self._busy))
                while self._idle and waiting:
                    actor, (task, tries) = self._idle.pop(), waiting.popleft()
                    self._busy[actor.make.options(num_returns="streaming").remote(task)] = _Work(actor, task, tries)
                ready, _ = self._ray.wait([*self._loading, *self._busy], timeout=_NOTICE)
                if not (ready or self._busy or self._waited):
                    self._waited = True
                    self.say("waiting for a worker: it still loads the model, or the cluster has no room for it")
                for one in ready:
                    if one in self._loading:
                        self._loaded(one)
                    else:
                        yield from self._heard(one, waiting, advance)
        finally:
            for work in self._busy.values():
                self._ray.kill(work.actor)
            self._busy.clear()

    def _start(self, tasks: int) -> None:
        """Starts workers, as many as have something to do."""
        there = len(self._loading) + len(self._idle) + len(self._busy)
        for _ in range(there, min(self._share.workers, tasks)):
            actor = self._actor.remote()
            self._loading[actor.load.remote(self.model, self.int8)] = actor

    def _loaded(self, ready: Any) -> None:
        actor = self._loading.pop(ready)
        try:
            fault = self._ray.get(ready)
        except self._ray.exceptions.RayError:
            self._failed_loads += 1
            if self._failed_loads >= _LOADS:
                raise RequestError(
                    "workers die while they load the model, most often because memory runs out: take fewer of them"
                ) from None
            return
        if fault:
            raise RequestError(f"a worker cannot load the model: {fault}")
        self._failed_loads = 0
        self._idle.append(actor)

    def _heard(self, pages: Any, waiting: deque[tuple[Task, int]], advance: Callable[[int], Any]) -> Iterator[Outcome]:
        """What a worker says next of its task."""
        work = self._busy[pages]
        try:
            what, value = self._ray.get(next(pages))
        except (self._ray.exceptions.RayError, StopIteration):
            what, value = "lost", "its worker died, most often because memory ran out or its machine is gone"
        if what == "page":
            work.made += 1
            advance(1)
            return
        del self._busy[pages]
        if what == "lost":  # who knows in which state it is
            self._ray.kill(work.actor)
        else:
            self._idle.append(work.actor)
        if what == "done":
            advance(work.task.pages - work.made)
            _check_seen(work.task)
            yield Outcome(work.task, value)
            return
        advance(-work.made)
        if what == "lost" and work.tries + 1 < _TRIES:
            waiting.appendleft((work.task, work.tries + 1))
        elif len(work.task.folders) > 1:
            waiting.extendleft((task, work.tries) for task in reversed(work.task.split()))
        else:
            yield Outcome(work.task, fault=value)


def _check_seen(task: Task) -> None:
    for folder in task.folders:
        if not (folder / "story.json").is_file():
            raise RequestError(
                f"a worker has made {folder}, which is not to be seen here: write to a disk that all machines share"
            )
