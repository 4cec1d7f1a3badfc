"""The stories of a data set folder, whichever form it has: `SPLIT.jsonl` beside its pictures, or packed shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seedstory.image import STORED, load_image
from seedstory.shards import INDEX, ShardReader
from seedstory.storystream import StoryRecord, read_jsonl


class Story(Protocol):
    """A story with its images: `FolderStory`, or `seedstory.shards.ShardSample`."""

    @property
    def record(self) -> StoryRecord: ...

    def image(self, page: int) -> Image.Image:
        """The picture of a page, upright and RGB; ValueError if it is missing or damaged."""
        ...


class Stories(Protocol):
    """The stories of a split: `FolderReader`, or `seedstory.shards.ShardReader`."""

    @property
    def pages(self) -> NDArray[np.int64]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Story: ...

    def __iter__(self) -> Iterator[Story]: ...


@dataclass(frozen=True)
class FolderStory:
    """A story whose pictures lie in a folder; `seedstory.shards.ShardSample` is the same from a shard."""

    record: StoryRecord
    folder: Path

    def image(self, page: int) -> Image.Image:
        """The picture of a page, upright and RGB; ValueError if it is missing or damaged."""
        return load_image(self.folder / self.record.images[page], formats=STORED)


class FolderReader:
    """The stories of `SPLIT.jsonl`, by number, with the face of `seedstory.shards.ShardReader`.

    Attributes:
        pages: The number of pages of each story, int64 [N].
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        self.folder, self.path = Path(folder), Path(folder) / f"{split}.jsonl"
        self.records = list(read_jsonl(self.path))
        self.pages = np.array([len(record) for record in self.records], np.int64)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: int) -> FolderStory:
        return FolderStory(self.records[number], self.folder)

    def __iter__(self) -> Iterator[FolderStory]:
        return (self[number] for number in range(len(self)))


def open_split(data: str | Path, split: str) -> Stories:
    """The stories of a split: `len(stories)`, `stories[17].record`, `stories[17].image(0)`, `stories.pages`.

    Raises:
        ValueError: The folder has no such split, in neither form, or its index or a record is damaged.
    """
    if (Path(data) / f"{split}.jsonl").is_file():
        return FolderReader(data, split)
    if (Path(data) / INDEX).is_file():
        return ShardReader(data, split)
    raise ValueError(f"{data} holds neither {split}.jsonl nor packed shards ({INDEX}): give the folder of a data set")


def files_of(data: str | Path, *splits: str | None) -> list[Path]:
    """The files that say which stories are in the splits (several are joined by "+", None has none)."""
    names = [name for split in splits if split for name in split.split("+")]
    found = [Path(data) / f"{name}.jsonl" for name in names]
    return sorted({path if path.is_file() else Path(data) / INDEX for path in found})


def fingerprint(stories: Stories) -> dict[str, str]:
    """SHA-256 that identifies these stories, without reading a picture.

    A folder is identified by its JSONL and the size of each picture, shards by the checksums in their index.
    """
    if isinstance(stories, ShardReader):
        return {"shards": hashlib.sha256("\n".join(shard.sha256 for shard in stories.shards).encode()).hexdigest()}
    assert isinstance(stories, FolderReader)
    sizes = hashlib.sha256()
    for record in stories.records:
        for image in record.images:
            try:
                sizes.update(f"{image} {(stories.folder / image).stat().st_size}\n".encode())
            except OSError as error:
                raise ValueError(f"cannot read {stories.folder / image}: {error.strerror}") from None
    return {"jsonl": hashlib.sha256(stories.path.read_bytes()).hexdigest(), "pictures": sizes.hexdigest()}
