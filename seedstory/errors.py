"""Errors of the library: what a user can put right, in one line that says how.

Every one is a `ValueError`, too. Anything else that a call raises is a fault of the machine (`OSError`, `MemoryError`)
or a bug. Messages never name options of the command line, which adds its own advice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class SeedStoryError(ValueError):
    """Base of all errors below."""


class RequestError(SeedStoryError):
    """What was asked for cannot be: an argument is out of range, of the wrong type or contradicts another one."""


class ModelError(SeedStoryError):
    """A model folder is missing, damaged, incomplete, of an unknown kind, or its parts do not fit each other."""


class DataError(SeedStoryError):
    """A file, an image or a record of a data set is missing, damaged, unsafe or not of the right form."""


class StoryFolderError(SeedStoryError):
    """A story folder cannot be read or written."""

    def __init__(self, message: str, folder: Path | None = None) -> None:
        super().__init__(message)
        self.folder = folder


class StoryExistsError(StoryFolderError):
    """The folder holds a story already, and it may not be replaced."""


class OtherModelError(StoryFolderError):
    """The story was begun with another model than the one that should go on with it."""


class LostOpeningError(StoryFolderError):
    """The story was stopped before its opening image was stored, so there is nothing to go on from."""


@contextlib.contextmanager
def raised_as(kind: type[SeedStoryError]) -> Iterator[None]:
    """Turns other errors of the library into errors of one kind, with the same message."""
    try:
        yield
    except SeedStoryError as error:
        if isinstance(error, kind):
            raise
        raise kind(str(error)) from error
