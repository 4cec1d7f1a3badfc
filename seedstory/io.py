"""Files: reading what comes from outside, writing so that a reader never sees half a file, one writer at a time.

A pipe would make a reader wait for ever, and a device such as `/dev/zero` never ends; every file that a user, a
model folder, a story folder or a data set names is opened here.

A file is written under a temporary name beside its own, `.NAME.XXXXXXXX.tmp`, and renamed. Only a killed process
leaves such a file behind; `remove_leftovers` removes it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from seedstory.errors import DataError, StoryFolderError

MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 64
WRITER_LOCK = ".writer.lock"
CACHE_VARIABLE = "SEEDSTORY_CACHE"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def open_regular(
    path: str | os.PathLike[str], *, limit: int | None = None, what: str | None = None
) -> io.BufferedReader:
    """Opens a regular file for reading; never waits for a pipe and never reads a device.

    Args:
        path: The file. A link is followed to what it points to.
        limit: Largest size in bytes; None for any.
        what: What to call it in errors; the path if None.

    Raises:
        DataError: There is no such file, it is a folder, a pipe, a socket or a device, is too large, or may not be
            read. One line that names it and says what to do.
    """
    name = str(what if what is not None else path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise DataError(f"there is no file {name}: check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        if os.path.isdir(path):  # some systems refuse to open a folder
            reason = "it is a folder"
        raise DataError(f"cannot read {name}: {reason}") from None
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise DataError(f"{name} is a folder: give a file")
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{name} is not a plain file: give a file that is neither a pipe nor a device")
        if limit is not None and found.st_size > limit:
            raise DataError(f"{name} is too large: {found.st_size:,} bytes, at most {limit:,} can be read")
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_regular(path: str | os.PathLike[str], *, limit: int, what: str | None = None) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        DataError: As `open_regular`, or it cannot be read.
    """
    name = str(what if what is not None else path)
    with open_regular(path, limit=limit, what=name) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise DataError(f"cannot read {name}: {error.strerror}") from None
    if len(data) > limit:  # it has grown since
        raise DataError(f"{name} is too large: at most {limit:,} bytes can be read")
    return data


def parse_json(text: str | bytes, what: str, *, depth: int = MAX_JSON_DEPTH) -> Any:
    """JSON of bounded depth in UTF-8, without NaN, infinities and lone surrogates.

    Raises:
        DataError: It is not that; one line that begins with `what`.
    """

    def refuse(constant: str) -> None:
        raise DataError(f"{constant} is not JSON")

    try:
        words = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(words, parse_constant=refuse)
    except RecursionError:
        raise DataError(f"{what} is nested too deeply") from None
    except UnicodeDecodeError:
        raise DataError(f"{what} is not UTF-8") from None
    except ValueError as error:
        raise DataError(f"{what} is not valid JSON ({error})") from None
    level = [value]
    for _ in range(depth + 1):
        nested: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _refuse_surrogates(item, what)
            elif isinstance(item, dict):
                for key, inner in item.items():
                    _refuse_surrogates(key, what)
                    nested.append(inner)
            elif isinstance(item, list):
                nested.extend(item)
        if not nested:
            return value
        level = nested
    raise DataError(f"{what} is nested too deeply: at most {depth} levels can be read")


def read_json(
    path: str | os.PathLike[str], *, limit: int = MAX_JSON_BYTES, depth: int = MAX_JSON_DEPTH, what: str | None = None
) -> Any:
    """A JSON file, read by `read_regular` and `parse_json`.

    Raises:
        DataError: As these two.
    """
    name = str(what if what is not None else path)
    return parse_json(read_regular(path, limit=limit, what=name), name, depth=depth)


def inside(folder: Path, name: str, what: str = "path") -> Path:
    """A path that a file from outside names, joined to the folder that it may not leave.

    Args:
        folder: Where the named file lies.
        name: A relative path in POSIX spelling; not empty, absolute, or with `..`, backslashes or control characters.
        what: What to call the name in errors.

    Raises:
        DataError: It is not that.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    bad = any(part in ("", ".", "..") for part in parts)
    if bad or "\\" in name or (len(name) > 1 and name[1] == ":") or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise DataError(f"unsafe {what} {name!r}: it must be a relative path within {folder.name or folder}")
    return folder.joinpath(*parts)


def _refuse_surrogates(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{what} holds half a character (a lone surrogate): write it anew in UTF-8") from None


def cache_folder() -> Path:
    """The user's cache folder of this library: `$SEEDSTORY_CACHE`, else `seedstory` in the system's cache folder."""
    folder = os.environ.get(CACHE_VARIABLE)
    return Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seedstory"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Writes a file so that it is either whole or as it was before, also when the process is killed.

    Args:
        path: The file; its folder must exist.
        durable: Also when the machine stops: wait until the file is on the disk. Leave it out for many files that
            another run would make again.

    Yields:
        The temporary file to write, which takes the place of `path` at the end of the block. If the block raises, it
        is removed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # nothing can be changed there
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(temporary)):
            with contextlib.suppress(AttributeError):  # one of another library
                error.filename = str(path)  # not every call says where
        raise
    if durable and os.name == "posix":
        _sync(path.parent)


def write_atomic(
    path: str | os.PathLike[str], data: bytes | str, *, durable: bool = True, make_folder: bool = False
) -> None:
    """Writes bytes, or text as UTF-8, as `atomic_path` does; with `make_folder`, into a folder that may be missing."""
    if make_folder:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def is_leftover(path: Path) -> bool:
    """Whether a file is what a killed `atomic_path` left behind."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers left in a folder. Only who alone writes there may call it."""
    for path in folder.glob(".*.tmp"):
        if is_leftover(path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_writer(folder: Path) -> Iterator[None]:
    """Holds a story folder, which must exist, until the end of the block.

    The lock is the operating system's, so it ends with its process, however that ends.

    Raises:
        StoryFolderError: Another process, or another story in this one, holds it.
    """
    lock = FileLock(folder / WRITER_LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoryFolderError(
            f"{folder} is being written by another seedstory: wait until it has ended, or choose another folder", folder
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes it when it is released
            (folder / WRITER_LOCK).unlink()
        with contextlib.suppress(OSError):
            lock.release()


def check_unlocked(folder: Path) -> None:
    """Checks that nobody writes into a story folder.

    Raises:
        StoryFolderError: Somebody does.
    """
    if (folder / WRITER_LOCK).exists():
        with exclusive_writer(folder):
            pass


def _sync(path: Path) -> None:
    """Waits until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
