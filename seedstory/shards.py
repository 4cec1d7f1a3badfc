"""Shards: a packed data set as tar files that webdataset reads too, with an index for reading any story at once.

A story is a run of members with one key, so webdataset gives it as one sample:

    000017-asp-0004.json              the record, image paths as in the data set folder
    000017-asp-0004.000.webp          the picture of its first page, bytes as they came
    000017-asp-0004.001.jpg           ...
    000017-asp-0004.000.mask-0.png    the files of `StoryRecord.masks()`, in its order, with their page

`index.json` holds each shard's size and SHA-256 and each story's place in it. The reader trusts neither: it reads story
by story, unpacks nothing to disk, and takes only members whose every header byte is what the packer writes, so links,
devices, sparse files and names with paths in them do not come through. Nothing in a shard is ever unpickled.

    reader = ShardReader("data/shards", "train")
    for number in StorySampler(len(reader), seed=7):
        story = reader[number]
        first = story.record.captions[0], story.picture(0)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seedstory.image import MAX_BYTES, STORED, load_image
from seedstory.io import open_regular, read_json
from seedstory.storystream import StoryRecord

FORMAT = "seedstory shards 1"
INDEX = "index.json"
BLOCK = 512  # bytes; tar counts in these
MAX_RECORD = 64 * 2**20  # bytes
MAX_STORY = 2**32  # bytes
MAX_INDEX = 2**30  # bytes of index.json, which has a line for each story
_SUFFIXES = frozenset(STORED.values())
_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,71}")
_SHARD = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,199}")
_SPLIT = re.compile(r"[^\W_][\w.+-]{0,99}")  # letters and digits of any script first; no path


def story_key(number: int, id: str) -> str:
    """The key of a story's members: its number in the file, which makes it unique, and what of its id fits."""
    plain = re.sub(r"[^0-9A-Za-z_]+", "-", id).strip("-")[:48].strip("-")
    return f"{number:06d}-{plain}" if plain else f"{number:06d}"


def image_member(key: str, page: int, suffix: str) -> str:
    """Name of a page's picture."""
    return f"{key}.{page:03d}.{suffix}"


def mask_member(key: str, page: int, number: int) -> str:
    """Name of the file `number` of `StoryRecord.masks()`."""
    return f"{key}.{page:03d}.mask-{number}.png"


def tar_header(name: str, size: int) -> bytes:
    """The header of a regular member: POSIX ustar, owner 0, time 0, so that equal members have equal bytes."""
    written = name.encode("ascii")
    digits = b"%011o" % size
    checksum = _CHECKSUM + sum(written) + sum(digits)
    return b"%b%b%b%b%06o%b" % (written.ljust(100, b"\0"), _OWNER, digits, _TIME, checksum, _REST)


_OWNER = b"0000644\0" + b"0000000\0" * 2
_TIME = b"\0" + b"0" * 11 + b"\0"
_REST = b"\0 0" + b"\0" * 100 + b"ustar\00000" + b"\0" * 247
_CHECKSUM = sum(_OWNER + _TIME + _REST[2:]) + 8 * ord(" ")  # the field of the checksum itself counts as blanks


def padded(size: int) -> int:
    """Bytes that a member's content takes up."""
    return -(-size // BLOCK) * BLOCK


@dataclass(frozen=True)
class ShardSample:
    """A story read from a shard.

    Attributes:
        key: What its members' names begin with.
        record: The record as it stood in the data set.
        images: The picture file of each page.
        masks: The mask files, by their path in the record.
    """

    key: str
    record: StoryRecord
    images: list[bytes]
    masks: dict[str, bytes]

    def image(self, page: int) -> Image.Image:
        """The picture of a page, upright and RGB.

        Raises:
            ValueError: It is damaged, or too large to decode.
        """
        return load_image(self.images[page], f"{self.key}, page {page}", STORED)


@dataclass(frozen=True)
class Shard:
    """A line of the index: file name, split, size in bytes, SHA-256 and stories, each [id, offset, bytes, pages]."""

    name: str
    split: str
    bytes: int
    sha256: str
    stories: list[tuple[str, int, int, int]]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _SHARD.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a shard")
        if isinstance(self.split, str) and not _SPLIT.fullmatch(self.split):  # it becomes the name of a file
            raise ValueError(f"{self.name}: {self.split!r:.80} is no name of a split")
        if not isinstance(self.split, str) or not isinstance(self.sha256, str) or not _is_count(self.bytes):
            raise ValueError(f"{self.name}: split, sha256 or bytes are not as the packer writes them")
        for story in self.stories:
            if len(story) != 4 or not isinstance(story[0], str) or not all(map(_is_count, story[1:])):
                raise ValueError(f"{self.name}: a story must be [id, offset, bytes, pages], not {story!r:.80}")
            if story[1] + story[2] > self.bytes or story[2] > MAX_STORY:
                raise ValueError(f"{self.name}: story {story[0]!r:.80} is said to lie outside the shard")

    @property
    def pages(self) -> int:
        return sum(story[3] for story in self.stories)

    def fault(self, folder: str | os.PathLike[str]) -> str:
        """Reads the shard of a folder and compares it with its SHA-256; empty if it is what was packed."""
        try:
            with open_regular(Path(folder) / self.name, what=f"shard {self.name}") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == self.sha256:
                    return ""
        except ValueError as error:
            return str(error)
        except OSError as error:
            return f"cannot read shard {self.name}: {error.strerror}"
        return f"{self.name} has changed since it was packed: its SHA-256 is another one"


@dataclass(frozen=True)
class Index:
    """What `index.json` says: layout ("webdataset" or "parquet"), the settings of the packer, and the shards."""

    layout: str
    source: dict[str, Any]
    shards: list[Shard]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Index:
        """Reads and checks the index of a shard folder.

        Raises:
            ValueError: There is none, or it is not as the packer writes it.
        """
        path = Path(folder) / INDEX
        if not path.exists():
            raise ValueError(
                f"there is no {path}: give a folder of shards that `python -m data_tools.pack` has finished"
            )
        try:
            data = read_json(path, limit=MAX_INDEX, depth=8, what="it")
            if data["format"] != FORMAT:
                raise ValueError(f"its format is {data['format']!r:.80}, not {FORMAT!r}")
            shards = [Shard(**shard) for shard in data["shards"]]
            return cls(str(data["layout"]), dict(data["source"]), shards)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is no index of shards ({error}): pack the data set again") from error

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes `index.json` in one atomic step, a shard a line."""
        head = {"format": FORMAT, "layout": self.layout, "source": self.source}
        lines = ",\n".join(json.dumps(vars(shard), ensure_ascii=False) for shard in self.shards)
        text = f'{json.dumps(head, ensure_ascii=False)[:-1]}, "shards": [\n{lines}\n]}}\n'
        part = Path(folder) / f".{INDEX}.part"
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, Path(folder) / INDEX)


class ShardReader:
    """The stories of a shard folder, by number: `len(reader)`, `reader[17]`, or one after the other.

    It holds no open file, so it can be shared by threads and sent to processes such as those of a torch `DataLoader`.

    Args:
        folder: What `python -m data_tools.pack` wrote.
        split: Name of the split, such as "train"; all stories if None.

    Attributes:
        ids: The id of each story.
        pages: The number of pages of each story, int64 [N].

    Raises:
        ValueError: There is no index, no such split, or a shard is missing or has another size than when it was packed.
    """

    def __init__(self, folder: str | os.PathLike[str], split: str | None = None) -> None:
        self.folder = Path(folder)
        index = Index.read(folder)
        if index.layout != "webdataset":
            raise ValueError(
                f"{folder} holds {index.layout} files: read them with datasets.load_dataset({index.layout!r})"
            )
        splits = sorted({shard.split for shard in index.shards})
        if split is not None and split not in splits:
            raise ValueError(f"{folder} has no split {split!r}: it has {', '.join(splits) or 'no stories'}")
        self.shards = [shard for shard in index.shards if split in (None, shard.split)]
        for shard in self.shards:
            self._check_file(shard)
        self.ids = [story[0] for shard in self.shards for story in shard.stories]
        places = [story[1:] for shard in self.shards for story in shard.stories]
        self._places = np.array(places, np.int64).reshape(-1, 3)
        self._shard_of = np.repeat(np.arange(len(self.shards)), [len(shard.stories) for shard in self.shards])
        self.pages = self._places[:, 2]

    def __len__(self) -> int:
        """Number of stories."""
        return len(self.ids)

    def __getitem__(self, number: int) -> ShardSample:
        """Reads a story.

        Raises:
            IndexError: There are not so many stories.
            ValueError: The shard is not what it was when it was packed. The message names shard and story.
        """
        if not -len(self) <= number < len(self):
            raise IndexError(f"there is no story {number}: there are {len(self)}")
        shard = self.shards[self._shard_of[number]]
        offset, size, pages = map(int, self._places[number])
        with open_regular(self.folder / shard.name) as file:
            if os.fstat(file.fileno()).st_size != shard.bytes:
                raise ValueError(f"{shard.name} has changed its size since it was packed: pack it again")
            data = os.pread(file.fileno(), size, offset)
        try:
            story = read_sample(data)
            if story.record.id != self.ids[number] or len(story.record) != pages:
                raise ValueError(f"it is story {story.record.id!r:.80} of {len(story.record)} pages")
        except ValueError as error:
            raise ValueError(
                f"{shard.name} is not what it was when story {self.ids[number]!r} was packed: {error}"
            ) from error
        return story

    def __iter__(self) -> Iterator[ShardSample]:
        return (self[number] for number in range(len(self)))

    def verify(self) -> list[str]:
        """Reads every shard and compares its SHA-256 with the index; returns one line per shard that has changed."""
        return [fault for shard in self.shards if (fault := shard.fault(self.folder))]

    def _check_file(self, shard: Shard) -> None:
        try:
            status = os.stat(self.folder / shard.name)
        except OSError as error:
            raise ValueError(f"cannot read shard {self.folder / shard.name}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{self.folder / shard.name} is not a plain file")
        if status.st_size != shard.bytes:
            raise ValueError(
                f"{self.folder / shard.name} has {status.st_size} bytes, but had {shard.bytes} when it was packed: "
                "copy or pack it again"
            )


def read_sample(data: bytes) -> ShardSample:
    """Takes a story's run of tar members apart.

    Raises:
        ValueError: Anything in it is not as the packer writes it.
    """
    places = locate_sample(lambda at, size: data[at : at + size], len(data))
    return ShardSample(
        places.key,
        places.record,
        [data[at : at + size] for at, size in places.images],
        {path: data[at : at + size] for path, (at, size) in places.masks.items()},
    )


@dataclass(frozen=True)
class SampleOffsets:
    """Where the files of a story lie in its run of tar members, each (first byte, bytes); and its record."""

    key: str
    record: StoryRecord
    images: list[tuple[int, int]]
    masks: dict[str, tuple[int, int]]


def locate_sample(read: Callable[[int, int], bytes], size: int) -> SampleOffsets:
    """Finds the files of a story by the headers of its members; of their contents only the record is read.

    Args:
        read: Gives so many bytes of the story from a place on; fewer at its end.
        size: Bytes of the story.

    Raises:
        ValueError: Anything in it is not as the packer writes it.
    """
    members = _members(read, size)
    name, at, length = next(members, ("", 0, 0))
    key, _, suffix = name.partition(".")
    if suffix != "json" or not _KEY.fullmatch(key) or length > MAX_RECORD:
        raise ValueError(f"a record was due, not {name!r:.80} of {length} bytes")
    record = StoryRecord.from_json(read(at, length))
    images = []
    for page in range(len(record)):
        name, at, length = next(members, ("", 0, 0))
        suffix = name.rpartition(".")[2]
        if suffix not in _SUFFIXES or name != image_member(key, page, suffix) or length > MAX_BYTES:
            raise ValueError(f"the picture of page {page} was due, not {name!r:.80} of {length} bytes")
        images.append((at, length))
    masks = {}
    for number, (page, path) in enumerate(record.masks()):
        name, at, length = next(members, ("", 0, 0))
        if name != mask_member(key, page, number) or length > MAX_BYTES:
            raise ValueError(f"mask {number} was due, not {name!r:.80} of {length} bytes")
        masks[path] = (at, length)
    if (rest := next(members, None)) is not None:
        raise ValueError(f"the end was due, not {rest[0]!r:.80}")
    return SampleOffsets(key, record, images, masks)


def _members(read: Callable[[int, int], bytes], total: int) -> Iterator[tuple[str, int, int]]:
    """Name, place and size of each member."""
    at = 0
    while at < total:
        header = read(at, BLOCK)
        name, digits = header[:100].rstrip(b"\0"), header[124:135]
        if not name.isascii() or not digits.isdigit() or header != tar_header(name.decode(), size := _octal(digits)):
            raise ValueError(f"at byte {at} there is no plain member")
        at += BLOCK
        if at + padded(size) > total:
            raise ValueError(f"{name.decode()!r} is longer than its story")
        yield name.decode(), at, size
        at += padded(size)


def _octal(digits: bytes) -> int:
    return 0 if digits.strip(b"01234567") else int(digits, 8)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class StorySampler:
    """An endless seeded order of story numbers, each once an epoch, that stops and resumes exactly.

    Every rank of a distributed run draws its own part: of each `world` stories in a row, rank r takes number r, and
    what does not fill a row is left out of that epoch. The order depends on seed and epoch alone, not on platform or
    library versions. A run may resume with another `world`: no story comes twice in an epoch.

    Args:
        length: Number of stories.
        seed: Another seed gives another order.
        shuffle: False gives 0, 1, 2 ... in every epoch.
        rank: Number of this process.
        world: Number of processes.
    """

    def __init__(self, length: int, *, seed: int = 0, shuffle: bool = True, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank must be from 0 to {world - 1}, not {rank}")
        if length < world:
            raise ValueError(f"{length} stories are too few for {world} processes")
        self.length, self.seed, self.shuffle, self.rank, self.world = length, seed, shuffle, rank, world
        self.epoch = self.position = 0  # position: how many stories of the epoch all ranks together have taken
        self._order: tuple[int, np.ndarray] | None = None

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.position + self.world > self.length:
            self.epoch, self.position = self.epoch + 1, 0
        if self._order is None or self._order[0] != self.epoch:
            self._order = self.epoch, self.permutation(self.epoch)
        self.position += self.world
        return int(self._order[1][self.position - self.world + self.rank])

    def permutation(self, epoch: int) -> np.ndarray:
        """The order of all stories in an epoch, int64 [N]."""
        numbers = np.arange(self.length)
        if not self.shuffle:
            return numbers
        digest = hashlib.sha256(f"{self.seed} {epoch}".encode()).digest()
        return np.argsort(_mixed(numbers.astype(np.uint64) + np.frombuffer(digest, "<u8", 1)), kind="stable")

    def state_dict(self) -> dict[str, int | bool]:
        """Where the order stands; the same on every rank."""
        kept = ("length", "seed", "shuffle", "epoch", "position")
        return {name: getattr(self, name) for name in kept}

    def load_state_dict(self, state: dict[str, int | bool]) -> None:
        """Goes on where `state_dict` stood.

        Raises:
            ValueError: The state is of other stories, or of another order.
        """
        for name in ("length", "seed", "shuffle"):
            if state[name] != getattr(self, name):
                raise ValueError(f"the order was saved with {name} {state[name]}, but has {getattr(self, name)} now")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])


def _mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a one-to-one map of 64-bit numbers that looks random."""
    values = values * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
