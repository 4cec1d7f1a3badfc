"""Stories as Parquet rows that `datasets` reads, images included; and such rows as stories again.

One row is one story. `images` and `masks` are lists of `{bytes, path}`, which `datasets` shows as pictures; what has no
fixed type (`credit`, each entry of `pages`, and all unknown keys in `extra`) is JSON text, so that nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from seedstory.io import open_regular
from seedstory.storystream import StoryRecord

if TYPE_CHECKING:
    from data_tools.pack import LoadedStory

_IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_COLUMNS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "images": _IMAGES,
    "captions": pa.list_(pa.string()),
    "orders": pa.list_(pa.int64()),
    "title": pa.string(),
    "license": pa.string(),
    "credit": pa.string(),
    "language": pa.string(),
    "source_repo": pa.string(),
    "alts": pa.list_(pa.string()),
    "pages": pa.list_(pa.string()),
    "masks": _IMAGES,
    "extra": pa.string(),
}
MAX_GROUP = 2**30  # bytes of a group of rows, unpacked; the packer closes one after 64 MB
_ROW_GROUP = 64_000_000  # bytes of pictures; what a reader has to load to see one row


def write_rows(path: Path, stories: Iterable[LoadedStory]) -> Iterator[tuple[str, int]]:
    """Writes a Parquet file of stories, and yields (id, number of pages) of each as it goes."""
    with pq.ParquetWriter(path, _schema(), compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        rows: list[dict[str, Any]] = []
        weight = 0
        for story in stories:
            rows.append(to_row(story))
            weight += sum(len(data) for _, data in story.images)
            if weight > _ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, _schema()))
                rows, weight = [], 0
            yield story.record.id, len(story.record)
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, _schema()))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file of stories, with one group of rows in memory at a time.

    Raises:
        ValueError: It is no plain file, or no such Parquet; or a group of rows is larger than memory should have to be.
    """
    with open_regular(path) as file:
        try:
            source = pq.ParquetFile(file)
            for number in range(source.num_row_groups):
                if source.metadata.row_group(number).total_byte_size > MAX_GROUP:
                    raise ValueError(f"a group of rows has more than {MAX_GROUP // 2**30} GiB: pack the data set again")
                for batch in source.iter_batches(batch_size=1, row_groups=[number]):
                    yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise ValueError(str(error)) from None


def to_row(story: LoadedStory) -> dict[str, Any]:
    """The row of a story."""
    record = story.record
    row = {name: getattr(record, name, None) for name in _COLUMNS}
    row["images"] = [{"bytes": data, "path": path} for path, (_, data) in zip(record.images, story.images, strict=True)]
    row["masks"] = [{"bytes": data, "path": path} for (_, path), data in zip(record.masks(), story.masks, strict=True)]
    for name in ("credit", "extra"):
        row[name] = None if row[name] is None else _json(row[name])
    row["pages"] = None if record.pages is None else [None if page is None else _json(page) for page in record.pages]
    return row


def from_row(row: dict[str, Any]) -> StoryRecord:
    """The record of a row, as `pyarrow` reads it, or `datasets` with `Image(decode=False)`."""
    data = {name: row[name] for name in _COLUMNS if name not in ("masks", "extra") and row[name] is not None}
    data["images"] = [image["path"] for image in row["images"]]
    if row["credit"] is not None:
        data["credit"] = json.loads(row["credit"])
    if row["pages"] is not None:
        data["pages"] = [None if page is None else json.loads(page) for page in row["pages"]]
    return StoryRecord.from_dict(data | json.loads(row["extra"] or "{}"))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _schema() -> pa.Schema:
    """The columns, with the metadata by which `datasets` finds the images."""
    from datasets import Features, Image, List, Value

    def feature(kind: pa.DataType) -> Any:
        if kind == _IMAGES:
            return List(Image())
        return List(Value(str(kind.value_type))) if pa.types.is_list(kind) else Value(str(kind))

    return Features({name: feature(kind) for name, kind in _COLUMNS.items()}).arrow_schema
