"""Processes that compute the steps of a run ahead: where a step waits for its batch, more cores than one build it.

They are forked, so that they share the stage's data with the process that trains, and they end with it. What they
compute has to be a pure function of the step's number; then a run is the same with any number of them.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, parent_process
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")

_compute: Callable[[int], Any]  # in a worker


class Workers(Generic[T]):
    """Worker processes that compute `compute(first)`, `compute(first + 1)` ... `compute(last - 1)`, in order of need.

    Args:
        compute: a pure function of the step's number; it may not touch a GPU.
        first: the first step.
        last: the step after the last one.
        count: how many processes.

    Raises:
        ValueError: This system cannot fork a process.
    """

    def __init__(self, compute: Callable[[int], T], first: int, last: int, count: int) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise ValueError("this system cannot fork the processes that build batches: set workers: 0")
        self._next, self._last, self._ahead = first, last, 2 * count
        self._steps: dict[int, Future[tuple[bool, bytes]]] = {}
        self._pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _begin, (compute,))
        self._submit(first)

    def take(self, step: int) -> T:
        """What a step's `compute` returned, or raised; later steps are begun meanwhile.

        Raises:
            ValueError: A process ended before its time.
        """
        try:
            self._submit(step)
            good, data = self._steps.pop(step).result()
        except BrokenProcessPool:
            raise ValueError(
                f"a process that builds batches ended at step {step} or soon after, perhaps for want of memory: "
                "set fewer workers, or workers: 0"
            ) from None
        value: T = pickle.loads(data)
        if isinstance(value, Exception) and not good:
            raise value
        return value

    def close(self) -> None:
        """Ends the processes; what they have begun is lost."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, step: int) -> None:
        while self._next < min(step + self._ahead, self._last):
            self._steps[self._next] = self._pool.submit(_run, self._next)
            self._next += 1


def _begin(compute: Callable[[int], Any]) -> None:
    """The start of a worker: signals are for the process that trains, and without that process it ends."""
    global _compute
    _compute = compute
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)  # the workers themselves are the threads; those of the parent are not here
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _run(step: int) -> tuple[bool, bytes]:
    """What a step gives: whether it is a result or an error, and it as plain bytes, which need no shared memory."""
    try:
        return True, pickle.dumps(_compute(step), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the run
        error.add_note(f"in a process that builds batches:\n{traceback.format_exc()}")
        return False, _error_bytes(error)


def _error_bytes(error: Exception) -> bytes:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # not every error that can be written can be read again
    except Exception:  # noqa: BLE001
        kind = ValueError if isinstance(error, ValueError | OSError) else RuntimeError
        data = pickle.dumps(kind(f"{type(error).__name__}: {error}"))
    return data
