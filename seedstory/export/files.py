"""Files of an export: written whole or not at all; archives with the same bytes each time."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from seedstory.errors import StoryFolderError
from seedstory.io import write_atomic

_DATE = (1980, 1, 1, 0, 0, 0)  # the first that an archive can hold


def write_export(path: str | Path, data: bytes | str) -> Path:
    """Writes an export.

    Raises:
        StoryFolderError: It cannot be written there.
    """
    path = Path(path)
    try:
        write_atomic(path, data)
    except OSError as error:
        raise StoryFolderError(f"cannot write {path}: {error.strerror}; choose another place") from error
    return path


def zip_bytes(files: Iterable[tuple[str, bytes]], *, stored: tuple[str, ...] = (".png", ".jpg")) -> bytes:
    """A ZIP archive of files, in this order and without dates; `stored` ones, and the first, are not compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, (name, data) in enumerate(files):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            plain = number == 0 or name.endswith(stored)
            entry.compress_type = zipfile.ZIP_STORED if plain else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return buffer.getvalue()
