"""The one way to run a step over many items: in this process, in local processes, or on Ray.

A step is a picklable pure function of one picklable item. What it returns, and the files it writes, depend on
the item alone; so an engine changes how long a run takes and nothing else.
"""

from __future__ import annotations

import os
import pickle
import reprlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from seedstory.ray_cluster import connect, import_ray

Engine = Literal["inline", "processes", "ray"]
Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # items handed to each local process ahead of the one whose result is due; bounds what a run holds in memory


class StepError(RuntimeError):
    """A step failed on an item; the message names the item and the fault."""


def run(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    engine: Engine = "inline",
    workers: int | None = None,
    label: str = "",
    total: int | None = None,
) -> Iterator[Result]:
    """Applies a step to every item.

    Args:
        function: The step: a picklable pure function of one item.
        items: What to apply it to; consumed as needed, except by Ray, which takes all of it first.
        engine: "inline" (this process), "processes" (local ones) or "ray" (Ray Data on the cluster that RAY_ADDRESS
            names, or on this machine; its nodes need this checkout and the data at the same paths).
        workers: How many items are worked on at the same time; as many as there are CPU cores (with Ray, in the
            cluster) if None. "inline" has one.
        label: What the step does, for the progress bar on a terminal and for errors.
        total: How many items there are, for the progress bar, where `items` has no length.

    Returns:
        The results in the order of the items, whatever the engine.

    Raises:
        ValueError: There is no such engine, or it is not installed; at once.
        StepError: The step raised on an item; when that item's result is due.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {', '.join(get_args(Engine))}, not {engine!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if engine == "ray":
        _import_ray()
    call = _Call(function, label)
    start = {"inline": _inline, "processes": _processes, "ray": _ray}[engine]
    total = len(items) if total is None and isinstance(items, Sized) else total
    return _shown(start(call, items, workers), label, total)


@dataclass(frozen=True)
class _Call(Generic[Item, Result]):
    """The step, with its fault as a value, which every engine can return: (result, "") or (None, fault)."""

    function: Callable[[Item], Result]
    label: str

    def __call__(self, item: Item) -> tuple[Result | None, str]:
        try:
            return self.function(item), ""
        except Exception as error:  # noqa: BLE001 - raised again by `run`, with the item's name
            return None, f"{self.label or 'the step'} failed on {_name(item)}: {type(error).__name__}: {error}"


def _name(item: Any) -> str:
    if isinstance(item, str | Path):
        return str(item)
    return str(getattr(item, "id", None) or getattr(item, "name", None) or reprlib.repr(item))


def _shown(outcomes: Iterator[tuple[Result | None, str]], label: str, total: int | None) -> Iterator[Result]:
    """The results, with a progress bar if stderr is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not (label and console.is_terminal)) as bar:
        task = bar.add_task(label, total=total)
        for result, fault in outcomes:
            if fault:
                raise StepError(fault)
            yield result  # type: ignore[misc]
            bar.advance(task)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _inline(call: _Call[Any, Any], items: Iterable[Item], workers: int | None) -> Iterator[tuple[Any, str]]:
    return map(call, items)


def _processes(call: _Call[Any, Any], items: Iterable[Item], workers: int | None) -> Iterator[tuple[Any, str]]:
    workers = workers or cores()
    source = iter(items)
    pending: deque[tuple[Item, Future[tuple[Any, str]]]] = deque()
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker)
    try:
        while True:
            try:
                for item in islice(source, _AHEAD * workers - len(pending)):
                    pending.append((item, pool.submit(call, item)))
                if not pending:
                    return
                outcome = pending[0][1].result()
            except BrokenProcessPool:
                raise StepError(
                    f"{call.label or 'the step'}: a worker process died at {_name(pending[0][0])} or soon after, most "
                    "often because memory ran out: run again with fewer workers"
                ) from None
            pending.popleft()
            yield outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Makes a worker end silently on Ctrl-C, and with its parent even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ray(call: _Call[Any, Any], items: Iterable[Item], workers: int | None) -> Iterator[tuple[Any, str]]:
    _import_ray()
    ray = connect()
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    rows = [{"item": pickle.dumps(item)} for item in items]
    if not rows:
        return
    workers = workers or int(ray.cluster_resources().get("CPU", 1))
    blocks = min(len(rows), _AHEAD * workers)
    data = ray.data.from_items(rows, override_num_blocks=blocks)
    for row in data.map(partial(_ray_row, call), compute=ray.data.TaskPoolStrategy(size=workers)).iter_rows():
        yield pickle.loads(row["outcome"])  # written by `_ray_row` of this very run


def _ray_row(call: _Call[Any, Any], row: dict[str, bytes]) -> dict[str, bytes]:
    return {"outcome": pickle.dumps(call(pickle.loads(row["item"])))}


def _import_ray() -> None:
    import_ray()
    try:
        import_module("ray.data")
    except ImportError:
        raise ValueError("engine 'ray' needs Ray Data: pip install 'seedstory[ray]', or choose 'processes'") from None
