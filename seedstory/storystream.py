"""The data-set record: SEED-Story's StoryStream layout, one JSON object per story and line.

A record has `id`, `images`, `captions` and `orders`, three lists of one length. Image paths are relative to the folder
of the JSON Lines file. Further keys are optional, and keys unknown here survive a round trip.
`docs/storystream.schema.json` says the same as a JSON Schema, but for the equal lengths, which no schema can say.

The released StoryStream files are read as they are: their `id` is a number, which becomes a string, and their ten-page
chunks have no `orders`, which become 0, 1, 2 ...
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from seedstory.errors import DataError
from seedstory.io import atomic_path, open_regular

_STRINGS = ("id", "title", "license", "language", "source_repo")
_STRING_LISTS = ("images", "captions", "alts")
_REQUIRED = ("id", "images", "captions")
_MAX_ORDER = 2**53 - 1  # the largest whole number that every JSON reader keeps


@dataclass(frozen=True, kw_only=True)
class StoryRecord:
    """One story of a data set.

    Attributes:
        id: Name of the story, unique in its file.
        images: One image path per page, relative to the folder of the JSON Lines file.
        captions: One caption per page.
        orders: The place of each page in the story, counted as the data set counts it (0, 1, 2 ... in ours).
        title: Title of the story.
        license: License of text and pictures.
        credit: Who made what, such as `{"Text": ..., "Illustration": ...}`.
        language: Language of the captions as a BCP 47 tag, such as "en".
        source_repo: Where the story comes from.
        alts: One description per picture, for readers who cannot see it; may be empty strings.
        pages: What is known of each page, or None. Keys are free; of these the meaning is fixed: `description` (what
            the picture shows), `characters` (`[{"name", "box", "mask"}, ...]`), `coreference` (who is meant by which
            words), `mask` (path of a PNG), `panel` (box of the picture on its sheet) and `time` (`[start, end]` in a
            film, in seconds; or the time of day as a word). A box is `[x0, y0, x1, y1]` in px, x1 and y1 exclusive.
        extra: Keys of the file that are unknown here; written back as they were. Stage 2 of training reads three of
            them: `cast` ({name: look}), `plan` (a line a page) and `unsaid` (names whose look the words leave out).
    """

    id: str
    images: list[str]
    captions: list[str]
    orders: list[int]
    title: str | None = None
    license: str | None = None
    credit: dict[str, str] | str | None = None
    language: str | None = None
    source_repo: str | None = None
    alts: list[str] | None = None
    pages: list[dict[str, Any] | None] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in _STRINGS:
            value = getattr(self, key)
            if not isinstance(value, str) and not (value is None and key != "id"):
                raise DataError(f"field {key!r} must be a string, not {_kind(value)}")
        if not self.id:
            raise DataError("field 'id' must not be empty")
        for key in _STRING_LISTS:
            value = getattr(self, key)
            if value is not None or key != "alts":
                _check_list(key, value, str, "strings")
        _check_list("orders", self.orders, int, "integers")
        if any(not 0 <= order <= _MAX_ORDER for order in self.orders):
            raise DataError("field 'orders' must hold places from 0 upwards")
        if self.credit is not None and not isinstance(self.credit, dict | str):
            raise DataError(f"field 'credit' must be an object or a string, not {_kind(self.credit)}")
        if self.pages is not None:
            _check_list("pages", self.pages, dict | None, "objects or nulls")
            for number, page in enumerate(self.pages):
                _check_page(f"pages[{number}]", page or {})
        for key in ("captions", "orders", "alts", "pages"):
            value = getattr(self, key)
            if value is not None and len(value) != len(self.images):
                raise DataError(f"field {key!r} has {len(value)} entries, but 'images' has {len(self.images)}")

    def __len__(self) -> int:
        """Number of pages."""
        return len(self.images)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StoryRecord:
        """Builds a record from one line's JSON object.

        Args:
            data: The decoded object. Keys unknown here go to `extra`; a number as `id` becomes a string, and `orders`
                that are absent become 0, 1, 2 ...

        Returns:
            The checked record.

        Raises:
            DataError: A key is missing, has the wrong type, or lists differ in length. The message names the field.
        """
        if not isinstance(data, dict):
            raise DataError(f"a story must be a JSON object, not {_kind(data)}")  # noqa: TRY004
        missing = [key for key in _REQUIRED if key not in data]
        if missing:
            raise DataError(f"missing field {missing[0]!r} (a story needs {', '.join(_REQUIRED)})")
        known = {key: value for key, value in data.items() if key in _FIELDS}
        extra = {key: value for key, value in data.items() if key not in _FIELDS}
        known["id"] = _whole(known["id"])
        if isinstance(known["id"], int) and not isinstance(known["id"], bool):
            known["id"] = str(known["id"])
        if "orders" not in known:
            known["orders"] = list(range(len(known["images"]))) if isinstance(known["images"], list) else []
        elif isinstance(known["orders"], list):
            known["orders"] = [_whole(order) for order in known["orders"]]
        return cls(**known, extra=extra)

    @classmethod
    def from_json(cls, line: str | bytes) -> StoryRecord:
        """Reads a record from its line, however broken that is.

        Raises:
            DataError: It is not UTF-8, not JSON, or not a story. The message names the place.
        """
        try:
            text = line.decode() if isinstance(line, bytes) else line
            data = json.loads(text, parse_constant=_no_number)
            if "\\ud" in text.lower():  # JSON may name half a surrogate pair, which is no text and can never be written
                json.dumps(data, ensure_ascii=False).encode()
            return cls.from_dict(data)
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 at byte {error.start} of the line ({error.reason})") from error
        except UnicodeEncodeError as error:
            raise DataError("half a surrogate pair, which is no character") from error
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON at column {error.colno} ({error.msg})") from error
        except RecursionError as error:
            raise DataError("nested too deeply for a story") from error

    def to_json(self) -> str:
        """The line of this record, without its end."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of this record; optional fields that are None are left out."""
        known = {name: getattr(self, name) for name in _FIELDS}
        return {k: v for k, v in known.items() if v is not None} | self.extra

    def masks(self) -> list[tuple[int, str]]:
        """The mask files that the pages name, as (page, path), in the order of the pages; each path once."""
        found: dict[str, int] = {}
        for number, page in enumerate(self.pages or ()):
            holders = [page or {}, *(page or {}).get("characters", ())]
            for path in (holder["mask"] for holder in holders if "mask" in holder):
                found.setdefault(path, number)
        return [(number, path) for path, number in found.items()]


_FIELDS = tuple(f.name for f in fields(StoryRecord) if f.name != "extra")


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[StoryRecord]:
    """Reads the stories of a JSON Lines file one by one; blank lines are skipped.

    Args:
        path: The file.

    Yields:
        One record per line.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A line is not UTF-8, not JSON or not a story. The message names file, line and field.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"there is no file {os.fspath(path)}")
    with open_regular(path) as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            if not line.strip():
                continue
            try:
                yield StoryRecord.from_json(line)
            except ValueError as error:
                raise DataError(f"{os.fspath(path)}, line {number}: {error}") from error


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
    count = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(record.to_json() + "\n")
            count += 1
    return count


def _check_page(where: str, page: dict[str, Any]) -> None:
    """Checks the keys of a page, or of a character of it, whose meaning is fixed."""
    for key in ("name", "description", "mask"):
        if key in page and not isinstance(page[key], str):
            raise DataError(f"field '{where}.{key}' must be a string, not {_kind(page[key])}")
    for key in ("box", "panel"):
        if key in page and not _is_numbers(page[key], 4):
            raise DataError(f"field '{where}.{key}' must be a list of four numbers, x0, y0, x1, y1")
    if "time" in page and not isinstance(page["time"], str) and not _is_numbers(page["time"], 2):
        raise DataError(f"field '{where}.time' must be two numbers, start and end in seconds, or a string")
    if "characters" in page:
        _check_list(f"{where}.characters", page["characters"], dict, "objects")
        for number, character in enumerate(page["characters"]):
            _check_page(f"{where}.characters[{number}]", character)


def _is_numbers(value: Any, count: int) -> bool:
    numbers = isinstance(value, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in value)
    return numbers and len(value) == count


def _whole(value: Any) -> Any:
    """An integer where the value is one to JSON, which writes 1.0 for 1, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _no_number(name: str) -> None:
    raise DataError(f"not JSON: {name} is no JSON number")


def _check_list(key: str, value: Any, kind: Any, plural: str) -> None:
    if not isinstance(value, list):
        raise DataError(f"field {key!r} must be a list of {plural}, not {_kind(value)}")  # noqa: TRY004
    for index, item in enumerate(value):
        if not isinstance(item, kind) or isinstance(item, bool):
            raise DataError(f"field {key!r} must be a list of {plural}, but entry {index} is {_kind(item)}")  # noqa: TRY004


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
