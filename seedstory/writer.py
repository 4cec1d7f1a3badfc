"""One writer at a time: a story folder is held by the process that tells the story, and by no other.

The lock is the operating system's, so it ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".writer.lock"


@contextlib.contextmanager
def exclusive_writer(folder: Path) -> Iterator[None]:
    """Holds a story folder, which must exist, until the end of the block.

    Raises:
        ValueError: Another process, or another story in this one, holds it.
    """
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{folder} is being written by another seedstory: wait until it has ended, or choose another folder"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes it when it is released
            (folder / LOCK).unlink()
        with contextlib.suppress(OSError):
            lock.release()


def check_unlocked(folder: Path) -> None:
    """Checks that nobody writes into a story folder.

    Raises:
        ValueError: Somebody does.
    """
    if (folder / LOCK).exists():
        with exclusive_writer(folder):
            pass
