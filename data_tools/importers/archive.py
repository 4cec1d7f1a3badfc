"""Reading ZIP files from outside: EPUB and CBZ. Members are read into memory, never unpacked to disk."""

from __future__ import annotations

import io
import lzma
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

from seedstory.io import open_regular

MAX_MEMBERS = 20_000
MAX_MEMBER = 64 * 2**20  # bytes, unpacked
MAX_TOTAL = 4 * 2**30  # bytes, unpacked, of all members read
_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError)


class Archive:
    """A ZIP file whose members are opaque names with bounded contents.

    Args:
        path: The file.
        data: Its bytes, where it is itself a member of another one.

    Raises:
        ValueError: It is no ZIP file, is damaged, or has too many members.
    """

    def __init__(self, path: Path, data: bytes | None = None) -> None:
        self.name = path.name
        try:
            self._zip = zipfile.ZipFile(open_regular(path) if data is None else io.BytesIO(data))
            members = self._zip.infolist()
        except _FAULTS as error:
            raise ValueError(f"{path.name} is no ZIP file that can be read ({error})") from None
        if len(members) > MAX_MEMBERS:
            self._zip.close()
            raise ValueError(f"{path.name} has {len(members)} members, at most {MAX_MEMBERS} are read")
        self._members = {member.filename: member for member in members if _is_plain(member)}
        self._left = MAX_TOTAL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def names(self) -> list[str]:
        """Names of the plain members, as the file has them."""
        return list(self._members)

    def find(self, name: str) -> str:
        """The member that a link means: by its name, or else the only one that differs in case or composition alone."""
        if name in self._members:
            return name
        alike = [member for member in self._members if _folded(member) == _folded(name)]
        return alike[0] if len(alike) == 1 else name

    def read(self, name: str) -> bytes:
        """The contents of a member.

        Raises:
            ValueError: There is no such member, it is encrypted, damaged, or unfolds into too much.
        """
        member = self._members.get(name)
        if member is None:
            raise ValueError(f"{name} is not in {self.name}")
        if member.flag_bits & 1:
            raise ValueError(f"{name} is encrypted")
        limit = min(MAX_MEMBER, self._left)
        try:
            with self._zip.open(member) as file:
                data = file.read(limit + 1)  # what it says of its size is not believed
        except _FAULTS as error:
            raise ValueError(f"{name} is damaged ({error})") from None
        if len(data) > limit:
            raise ValueError(f"{name} unfolds into more than {limit // 2**20} MB")
        self._left -= len(data)
        return data


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_plain(member: zipfile.ZipInfo) -> bool:
    mode = member.external_attr >> 16
    return not member.is_dir() and (stat.S_IFMT(mode) in (0, stat.S_IFREG))
