"""What all importers share: metadata, a builder of records, and a run over many sources that resumes."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from data_tools.drops import Drop, Tally
from data_tools.engine import Engine, run
from data_tools.folder import encode
from seedstory.image import MAX_BYTES, STORED, load_image, read_image_header
from seedstory.io import open_regular, remove_leftovers, write_atomic
from seedstory.storystream import StoryRecord, write_jsonl
from seedstory.text import clean_text

ImageFormat = Literal["jpg", "png", "webp"]
MAX_TEXT = 2 * 2**20  # bytes of a text file
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MAX_CAPTION = 20_000  # characters of a page
_ENCODE: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 92, "subsampling": 0, "optimize": True},
    "png": {"format": "PNG", "compress_level": 6},
    "webp": {"format": "WEBP", "quality": 92, "method": 4},
}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What is known of a story beside its pages.

    Attributes:
        title: Its title.
        license: License of text and pictures, by its short name.
        credit: Who made what.
        language: ISO 639 code of its text.
        source_repo: Where it comes from.
    """

    title: str | None = None
    license: str | None = None
    credit: dict[str, str] | str | None = None
    language: str | None = None
    source_repo: str | None = None

    def filled_from(self, other: Metadata) -> Metadata:
        """These facts, and `other`'s where nothing is known."""
        ours, theirs = asdict(self), asdict(other)
        return Metadata(**{key: ours[key] or theirs[key] for key in ours})


@dataclass(frozen=True)
class Source:
    """One file or folder that an importer reads.

    Attributes:
        id: Id of its story, or the beginning of it where several come of one source.
        path: The file or folder.
        root: The folder that the user named: nothing outside it is read. None where the user named more than one.
        beside: Further files or folders that belong to it, such as subtitles.
    """

    id: str
    path: Path
    root: Path | None = None
    beside: tuple[Path, ...] = ()


@dataclass
class Imported:
    """What came of one source."""

    records: list[StoryRecord] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)

    @classmethod
    def dropped(cls, story: str, reason: str, detail: object) -> Imported:
        """Nothing but one drop, of the whole source."""
        return cls([], [Drop(story, None, reason, str(detail))])


@dataclass(frozen=True)
class Target:
    """Where an importer writes: `OUT/SPLIT.jsonl` and `OUT/images/SPLIT/ID/000.jpg`.

    Attributes:
        out: The data set folder.
        split: Name of the JSON Lines file.
        format: File format of pictures that are cut out or rendered here; others are stored as they came.
        facts: What the user says of all stories; a source's own facts go before them.
    """

    out: Path
    split: str = "train"
    format: ImageFormat = "jpg"
    facts: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-][\w.-]*", self.split):
            raise ValueError(f"the split {self.split!r} must be a plain name such as 'train'")


class RecordBuilder:
    """Builds the record of a story: stores images, and counts pages that have none.

    Args:
        name: Id of the story.
        target: Where to store.
    """

    def __init__(self, name: str, target: Target) -> None:
        self.id = name
        self.target = target
        self.drops: list[Drop] = []
        self._place = 0
        self._images: list[str] = []
        self._captions: list[str] = []
        self._alts: list[str] = []
        self._truths: list[dict[str, Any] | None] = []

    def __len__(self) -> int:
        """Number of pages stored."""
        return len(self._images)

    def add(
        self,
        image: bytes | Image.Image,
        caption: str = "",
        *,
        source: str,
        alt: str = "",
        min_side: int = 0,
        **truth: Any,
    ) -> bool:
        """Adds a page; one whose picture cannot be read or is too small is dropped and counted.

        Args:
            image: The bytes of a picture file, stored as they are, or pixels that were made here.
            caption: Text of the page.
            source: Name of the picture for errors.
            alt: Description of the picture.
            min_side: The least width and height in px.
            **truth: What is known of the page, for the record's `pages`.

        Returns:
            Whether the page was stored.
        """
        place, self._place = self._place, self._place + 1
        try:
            pixels = image if isinstance(image, Image.Image) else load_image(image, source)  # decodes all of it
        except ValueError as error:
            self.drops.append(Drop(self.id, place, "unreadable-picture", str(error)))
            return False
        if min(pixels.size) < min_side:
            detail = f"{source} is {pixels.width} x {pixels.height} px, less than {min_side}"
            self.drops.append(Drop(self.id, place, "too-small", detail))
            return False
        suffix = STORED.get(read_image_header(image, source)[0]) if isinstance(image, bytes) else None
        if isinstance(image, bytes) and suffix:
            data = image
        else:
            suffix = "png" if isinstance(image, bytes) else self.target.format
            data = encode(pixels.convert("RGB"), **_ENCODE[suffix])
        relative = f"images/{self.target.split}/{self.id}/{len(self):03d}.{suffix}"
        write_atomic(self.target.out / relative, data, durable=False, make_folder=True)
        self._images.append(relative)
        self._captions.append(clean_text(caption)[:MAX_CAPTION])
        self._alts.append(clean_text(alt)[:MAX_CAPTION])
        self._truths.append(truth or None)
        return True

    def add_file(self, path: Path, root: Path, caption: str = "", *, source: str = "", **page: Any) -> None:
        """Adds a page whose image is a file under `root`, links followed; any other file is a counted drop.

        Args:
            path: The file.
            root: The folder that it may not leave.
            caption: Text of the page.
            source: Name of the image for errors; the file's name if empty.
            **page: As for `add`.
        """
        if not is_inside(path, root):
            self.drop_page("outside-the-source", f"{path.name} is a link or a path to elsewhere")
        elif path.stat().st_size > MAX_BYTES:
            self.drop_page("unreadable-picture", f"{path.name} is larger than {MAX_BYTES // 2**20} MB")
        else:
            self.add(path.read_bytes(), caption, source=source or path.name, **page)

    def drop_page(self, reason: str, detail: str = "") -> None:
        """Counts a page of the source that does not become one of the story."""
        self.drops.append(Drop(self.id, self._place, reason, detail))
        self._place += 1

    def finish(self, facts: Metadata, **extra: Any) -> Imported:
        """The record and the drops; without a single page there is no record but one more drop.

        Args:
            facts: What the source says of the story.
            **extra: Further keys of the record.
        """
        folder = self.target.out / "images" / self.target.split / self.id
        kept = {Path(name).name for name in self._images}
        for left in folder.glob("[0-9][0-9][0-9]*.*"):  # of an earlier run with other options
            if left.name not in kept:
                left.unlink()
        if not self._images:
            return Imported([], [*self.drops, Drop(self.id, None, "no-pages", "nothing in it became a page")])
        data = {
            "id": self.id,
            "images": self._images,
            "captions": self._captions,
            "orders": list(range(len(self))),
            **{key: value for key, value in asdict(facts.filled_from(self.target.facts)).items() if value},
            "alts": self._alts if any(self._alts) else None,
            "pages": self._truths if any(self._truths) else None,
            **extra,
        }
        written = json.dumps({key: value for key, value in data.items() if value is not None}, ensure_ascii=False)
        # Names of files may hold bytes that are no text, and no JSON Lines file could be written with them.
        return Imported([StoryRecord.from_json(written.encode(errors="replace"))], self.drops)


Convert = Callable[[Source, Target], Imported]


def run_import(
    convert: Convert,
    sources: Sequence[Source],
    target: Target,
    *,
    engine: Engine = "inline",
    workers: int | None = None,
    label: str = "",
) -> tuple[int, Tally]:
    """Runs an importer over its sources and writes the data set; resumes a killed run.

    Args:
        convert: The importer's pure function, picklable.
        sources: What to import.
        target: Where to write.
        engine: Where the function runs; see `data_tools.engine.run`.
        workers: How many processes.
        label: What the progress bar says.

    Returns:
        The number of stories, and what was left out.
    """
    receipts = target.out / f".import-{target.split}"
    receipts.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.out)
    tally = Tally()

    def records() -> Iterable[StoryRecord]:
        for one in run(partial(_once, convert, target), sources, engine=engine, workers=workers, label=label):
            tally.add(one.drops)
            yield from one.records

    count = write_jsonl(target.out / f"{target.split}.jsonl", records())
    ours = set(tally)
    others = Tally(drop for drop in Tally.read(target.out) if drop not in ours)  # of earlier imports into this folder
    (others + tally).write(target.out)
    shutil.rmtree(receipts)
    return count, tally


def _once(convert: Convert, target: Target, source: Source) -> Imported:
    """Imports a source unless its receipt says that this was done, with these options, from these files."""
    what = repr((_named(convert), target, source, _state(source)))
    key = hashlib.sha256(what.encode(errors="backslashreplace")).hexdigest()[:32]
    receipt = target.out / f".import-{target.split}" / f"{key}.json"
    try:
        data = json.loads(receipt.read_bytes())
        return Imported([StoryRecord.from_dict(r) for r in data["records"]], [Drop(**d) for d in data["drops"]])
    except FileNotFoundError:
        pass
    try:
        done = convert(source, target)
    except Exception as error:  # noqa: BLE001 - one bad source of a million must not end the run; it is counted
        done = Imported.dropped(source.id, "import-failed", f"{type(error).__name__}: {error}")
    data = {"records": [r.to_dict() for r in done.records], "drops": [asdict(d) for d in done.drops]}
    write_atomic(receipt, json.dumps(data), durable=False, make_folder=True)
    return done


def _named(convert: Convert) -> str:
    """The name of an importer with its options, the same in every process."""
    if isinstance(convert, partial):
        return repr((_named(convert.func), convert.args, sorted(convert.keywords.items())))
    return f"{convert.__module__}.{convert.__qualname__}"


def _state(source: Source) -> str:
    """Sizes and times of a source's files: a receipt is void when one changes."""
    roots = (source.path, *source.beside)
    files = [file for path in roots for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return repr([(str(file), stat.st_size, stat.st_mtime_ns) for file in files if (stat := file.lstat())])


def unique_ids(names: Iterable[str]) -> list[str]:
    """Ids that are safe as folder names, one for each name, all different."""
    taken: set[str] = set()
    ids = []
    for name in names:
        base = candidate = slug(name)
        number = 2
        while candidate in taken:
            candidate, number = f"{base}-{number}", number + 1
        taken.add(candidate)
        ids.append(candidate)
    return ids


def slug(name: str) -> str:
    """A name in lower-case ASCII letters, digits and hyphens; never empty."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    safe = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:80].strip("-")
    return safe or f"story-{hashlib.sha256(name.encode(errors='backslashreplace')).hexdigest()[:8]}"


def natural_key(path: str | Path) -> tuple[list[tuple[int, str]], str]:
    """Sort key by which page2 comes before page10."""
    name = Path(path).as_posix()
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in parts], name


def license_name(text: str | None) -> str | None:
    """Short name of a license: Creative Commons by their addresses, anything else as it is written."""
    text = clean_text(text or "").strip("[]")
    found = re.search(r"creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/(\d\.\d)", text, re.I)
    if found:
        kind, version = found[1].lower(), found[2]
        return {"zero": f"CC0 {version}", "mark": "Public domain"}.get(kind, f"CC-{kind.upper()} {version}")
    return text[:300] or None


def read_text(path: Path, name: str, encoding: str = "utf-8-sig") -> str:
    """The text of a file of at most `MAX_TEXT` bytes.

    Raises:
        ValueError: It is too large or encoded in another way; the message begins with `name`.
    """
    with open_regular(path, what=name) as file:
        return decode_text(file.read(MAX_TEXT + 1), name, encoding)


def decode_text(data: bytes, name: str, encoding: str = "utf-8-sig") -> str:
    """Text of a file's bytes; see `read_text`. A byte order mark of UTF-16 or UTF-32 goes before `encoding`."""
    if len(data) > MAX_TEXT:
        raise ValueError(f"{name} is larger than {MAX_TEXT // 2**20} MB of text")
    encoding = marked_encoding(data) or encoding
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not {encoding.removesuffix('-sig')} at byte {error.start}") from None


def marked_encoding(data: bytes) -> str | None:
    """The encoding that the byte order mark of a text names, but for UTF-8."""
    return next((kind for mark, kind in _MARKS if data.startswith(mark)), None)


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, links followed, is a plain file under `root`."""
    resolved = path.resolve()
    return resolved.is_file() and resolved.is_relative_to(root.resolve())
