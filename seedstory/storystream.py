"""The data-set record: SEED-Story's StoryStream layout, one JSON object per story and line.

A record needs `id`, `images`, `captions` and `orders`, three lists of one length. Image paths are relative
to the folder of the JSON Lines file. Further keys are optional, and keys unknown here survive a round trip.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

_STRING_LISTS = ("images", "captions", "alts")
_REQUIRED = ("id", "images", "captions", "orders")


@dataclass(frozen=True, kw_only=True)
class StoryRecord:
    """One story of a data set.

    Attributes:
        id: Name of the story, unique in its file.
        images: One image path per page, relative to the folder of the JSON Lines file.
        captions: One caption per page.
        orders: The place of each page in the story, counted as the data set counts it (0, 1, 2 ... in ours).
        title: Title of the story.
        license: Licence of text and pictures.
        credit: Who made what, such as `{"Text": ..., "Illustration": ...}`.
        source_repo: Where the story comes from.
        alts: One description per picture, for readers who cannot see it; may be empty strings.
        pages: One ground-truth dict per page, or None where nothing is known of a page.
        extra: Keys of the file that are unknown here; written back as they were.
    """

    id: str
    images: list[str]
    captions: list[str]
    orders: list[int]
    title: str | None = None
    license: str | None = None
    credit: dict[str, str] | str | None = None
    source_repo: str | None = None
    alts: list[str] | None = None
    pages: list[dict[str, Any] | None] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("id", "title", "license", "source_repo"):
            value = getattr(self, key)
            if not isinstance(value, str) and not (value is None and key != "id"):
                raise ValueError(f"field {key!r} must be a string, not {_kind(value)}")
        if not self.id:
            raise ValueError("field 'id' must not be empty")
        for key in _STRING_LISTS:
            value = getattr(self, key)
            if value is not None or key != "alts":
                _check_list(key, value, str, "strings")
        _check_list("orders", self.orders, int, "integers")
        if self.credit is not None and not isinstance(self.credit, dict | str):
            raise ValueError(f"field 'credit' must be an object or a string, not {_kind(self.credit)}")
        if self.pages is not None:
            _check_list("pages", self.pages, dict | None, "objects or nulls")
        for key in ("captions", "orders", "alts", "pages"):
            value = getattr(self, key)
            if value is not None and len(value) != len(self.images):
                raise ValueError(f"field {key!r} has {len(value)} entries, but 'images' has {len(self.images)}")

    def __len__(self) -> int:
        """Number of pages."""
        return len(self.images)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StoryRecord:
        """Builds a record from one line's JSON object.

        Args:
            data: The decoded object. Keys unknown here go to `extra`.

        Returns:
            The checked record.

        Raises:
            ValueError: A key is missing, has the wrong type, or lists differ in length. The message names the field.
        """
        if not isinstance(data, dict):
            raise ValueError(f"a story must be a JSON object, not {_kind(data)}")  # noqa: TRY004
        missing = [key for key in _REQUIRED if key not in data]
        if missing:
            raise ValueError(f"missing field {missing[0]!r} (a story needs {', '.join(_REQUIRED)})")
        known = {f.name for f in fields(cls)} - {"extra"}
        extra = {key: value for key, value in data.items() if key not in known}
        return cls(**{key: value for key, value in data.items() if key in known}, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of this record; optional fields that are None are left out."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        return {k: v for k, v in known.items() if v is not None} | self.extra


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[StoryRecord]:
    """Reads the stories of a JSON Lines file one by one; blank lines are skipped.

    Args:
        path: The file.

    Yields:
        One record per line.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is not UTF-8, not JSON or not a story. The message names file, line and field.
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            where = f"{os.fspath(path)}, line {number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: not UTF-8 at byte {error.start} of the line ({error.reason})") from error
            if not line.strip():
                continue
            try:
                data = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON at column {error.colno} ({error.msg})") from error
            try:
                yield StoryRecord.from_dict(data)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error


def write_jsonl(path: str | os.PathLike[str], records: Iterable[StoryRecord]) -> int:
    """Writes stories as JSON Lines; the file appears whole or, after an error, stays as it was.

    Args:
        path: The file to write. Its folder is made where it is missing.
        records: The stories; consumed one by one, so a generator is fine.

    Returns:
        How many stories were written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    count = 0
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(json.dumps(record.to_dict(), ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return count


def _check_list(key: str, value: Any, kind: Any, plural: str) -> None:
    if not isinstance(value, list):
        raise ValueError(f"field {key!r} must be a list of {plural}, not {_kind(value)}")  # noqa: TRY004
    for index, item in enumerate(value):
        if not isinstance(item, kind) or isinstance(item, bool):
            raise ValueError(f"field {key!r} must be a list of {plural}, but entry {index} is {_kind(item)}")  # noqa: TRY004


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
