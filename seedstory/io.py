"""Reading what comes from outside: regular files of bounded size only, and JSON of bounded depth.

A pipe would make a reader wait for ever, and a device such as `/dev/zero` never ends; every file that a user, a
model folder, a story folder or a data set names is opened here.
"""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 64


def open_regular(path: str | os.PathLike, *, limit: int | None = None, what: str | None = None) -> io.BufferedReader:
    """Opens a regular file for reading; never waits for a pipe and never reads a device.

    Args:
        path: The file. A link is followed to what it points to.
        limit: Largest size in bytes; None for any.
        what: What to call it in errors; the path if None.

    Raises:
        ValueError: There is no such file, it is a folder, a pipe, a socket or a device, is too large, or may not be
            read. One line that names it and says what to do.
    """
    name = str(what if what is not None else path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise ValueError(f"there is no file {name}: check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        if os.path.isdir(path):  # some systems refuse to open a folder
            reason = "it is a folder"
        raise ValueError(f"cannot read {name}: {reason}") from None
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise ValueError(f"{name} is a folder: give a file")
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{name} is not a plain file: give a file that is neither a pipe nor a device")
        if limit is not None and found.st_size > limit:
            raise ValueError(f"{name} is too large: {found.st_size:,} bytes, at most {limit:,} can be read")
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_regular(path: str | os.PathLike, *, limit: int, what: str | None = None) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        ValueError: As `open_regular`, or it cannot be read.
    """
    name = str(what if what is not None else path)
    with open_regular(path, limit=limit, what=name) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise ValueError(f"cannot read {name}: {error.strerror}") from None
    if len(data) > limit:  # it has grown since
        raise ValueError(f"{name} is too large: at most {limit:,} bytes can be read")
    return data


def parse_json(text: str | bytes, what: str, *, depth: int = MAX_JSON_DEPTH) -> Any:
    """JSON of bounded depth in UTF-8, without NaN, infinities and lone surrogates.

    Raises:
        ValueError: It is not that; one line that begins with `what`.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        words = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(words, parse_constant=refuse)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError(f"{what} is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON ({error})") from None
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
    raise ValueError(f"{what} is nested too deeply: at most {depth} levels can be read")


def read_json(
    path: str | os.PathLike, *, limit: int = MAX_JSON_BYTES, depth: int = MAX_JSON_DEPTH, what: str | None = None
) -> Any:
    """A JSON file, read by `read_regular` and `parse_json`.

    Raises:
        ValueError: As these two.
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
        ValueError: It is not that.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    bad = any(part in ("", ".", "..") for part in parts)
    if bad or "\\" in name or (len(name) > 1 and name[1] == ":") or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise ValueError(f"unsafe {what} {name!r}: it must be a relative path within {folder.name or folder}")
    return folder.joinpath(*parts)


def _refuse_surrogates(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds half a character (a lone surrogate): write it anew in UTF-8") from None
