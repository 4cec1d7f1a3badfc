"""A story, its pages, and the folder that holds them on disk.

The story folder is the one format that generating, resuming, exporting and serving work on:

    story.json                   title, settings, model and version hashes, and the list of pages
    pages/page-001.png           the picture of page 1, its making written into PNG text chunks
    pages/page-001.safetensors   the visual features of page 1, `[F, Df]`

`story.json` is rewritten last, in one atomic step, so that a page is either whole or absent: a process
killed at any moment leaves a folder that opens. A page that is drawn anew goes to fresh file names first
(`page-001.r1.png`), and the old files go away only after `story.json` has stopped naming them.

This module imports neither torch nor transformers until tensors are read or written.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin

from seedstory.image import load_image
from seedstory.io import read_json, read_regular
from seedstory.settings import MAX_PAGES, StorySettings, check_int
from seedstory.writer import LOCK, check_unlocked, exclusive_writer

if TYPE_CHECKING:
    import torch

FORMAT = "seedstory-story"
FORMAT_VERSION = 1
STATES = ("opening", "written", "illustrated")
MAX_TITLE = 60  # characters of a title made from a sentence
MAX_JSON = 256 * 2**20  # bytes of story.json
MAX_FEATURES = 64 * 2**20  # bytes of a page's features
UNTITLED = "A story"  # what readers see while a story has no title

_FILE = re.compile(r"pages/page-\d{3,5}(\.r\d{1,6})?\.(png|safetensors)")
_CLAUSE = r"[,;:–—]| (?:and|at|because|but|by|from|in|near|on|so|that|under|until|when|where|while|who|with) "
# What story.json and the pictures call settings that have other names here.
_NAMES_ON_DISK = {
    "image_name": "picture",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "text_guidance_scale": "text_guidance",
}
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@dataclass(kw_only=True, eq=False)
class Page:
    """One page: a caption and its picture.

    Args:
        index: Position in the story, from 0; the opening is page 0. Readers see `number`, from 1.
        caption: The text of the page.
        image: The picture, or None while it is not drawn (or not loaded).
        features: Visual features `[F, Df]` of the picture, or None.
        seed: Seed of everything random about this page.
        state: "opening" (given by the user), "written" (caption and features), "illustrated" (picture too).
        alt: A description of the picture for those who cannot see it; empty: made from the caption.
    """

    index: int
    caption: str
    image: Image.Image | None = None
    features: torch.Tensor | None = None
    seed: int = 0
    state: str = "written"
    alt: str = ""

    def __post_init__(self) -> None:
        check_int("index", self.index, 0, MAX_PAGES - 1)
        if self.state not in STATES:
            raise ValueError(f"unknown page state {self.state!r}: choose one of {', '.join(STATES)}")

    @property
    def number(self) -> int:
        """The page number that a reader sees, from 1."""
        return self.index + 1

    def describe(self) -> str:
        """Alternative text of the picture."""
        return self.alt or (f"Picture for: {self.caption}" if self.caption else f"Picture of page {self.number}")


@dataclass(kw_only=True, eq=False)
class Story:
    """A whole story in memory.

    Args:
        title: The title.
        pages: The pages in order; `pages[0]` is the opening.
        settings: What was asked for.
        model: Name and fingerprint of the model, `{"name": ..., "fingerprint": ...}`.
        versions: Versions of seedstory, torch, transformers and diffusers that made it.
        language: BCP 47 tag of the language of the captions; empty if it is not known.
    """

    title: str
    pages: list[Page]
    settings: StorySettings
    model: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    language: str = ""

    @classmethod
    def load(cls, folder: str | Path) -> Story:
        """Reads a story folder with all pictures and features.

        Raises:
            ValueError: The folder holds no story, or a broken one.
        """
        source = StoryFolder.open(folder)
        return cls(
            title=source.title,
            pages=[source.page(i) for i in range(len(source))],
            settings=source.settings,
            model=source.model,
            versions=source.versions,
            language=source.language,
        )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> StoryFolder:
        """Writes the whole story as a story folder; see `StoryFolder.create` for the errors."""
        target = StoryFolder.create(
            folder,
            title=self.title,
            settings=self.settings,
            model=self.model,
            versions=self.versions,
            language=self.language,
            overwrite=overwrite,
        )
        with exclusive_writer(target.path):
            for page in self.pages:
                target.add_page(page)
        return target


class StoryFolder:
    """A story on disk, read and written page by page. Use `create` or `open`."""

    def __init__(
        self,
        path: Path,
        *,
        title: str,
        settings: StorySettings,
        model: dict[str, str],
        versions: dict[str, str],
        language: str,
        entries: list[dict[str, Any]],
    ) -> None:
        self.path = path
        self.title = title
        self.settings = settings
        self.model = model
        self.versions = versions
        self.language = language
        self._entries = entries

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        title: str,
        settings: StorySettings,
        model: dict[str, str] | None = None,
        versions: dict[str, str] | None = None,
        language: str = "",
        overwrite: bool = False,
    ) -> StoryFolder:
        """Starts an empty story in a new or empty folder, or in place of an older story.

        Raises:
            ValueError: See `check_target`.
        """
        path = Path(path)
        check_target(path, overwrite=overwrite, idle=False)
        _check_pages_folder(path)
        try:
            (path / "pages").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write to {path}: {error.strerror}; choose another folder") from None
        story = cls(
            path,
            title=title,
            settings=settings,
            model=dict(model or {}),
            versions=dict(versions or {}),
            language=language,
            entries=[],
        )
        story.save_record()  # the older story, if any, ends here; then its files go
        story.remove_leftovers()
        (path / "index.html").unlink(missing_ok=True)
        return story

    @classmethod
    def open(cls, path: str | Path) -> StoryFolder:
        """Opens an existing story folder without changing it.

        Raises:
            ValueError: There is no folder, no story in it, or a story that is broken or of a newer format.
        """
        path = Path(path)
        file = path / "story.json"
        if not file.exists():
            raise ValueError(f"{path} holds no story (there is no story.json in it): check the folder's name")
        _check_pages_folder(path)
        try:
            return cls(path, **_checked(read_json(file, limit=MAX_JSON, what="it")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{file} is not a readable story: {reason}") from None

    def refresh(self) -> None:
        """Reads the pages again, which another process may have written meanwhile.

        Raises:
            ValueError: As `open`.
        """
        now = StoryFolder.open(self.path)
        self.title, self._entries = now.title, now._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def pages(self) -> Iterator[Page]:
        """The pages in order with their pictures and without features, read one at a time."""
        return (self.page(i, features=False) for i in range(len(self)))

    def page(self, index: int, *, features: bool = True) -> Page:
        """Reads one page.

        Args:
            index: From 0.
            features: Also read the features `[F, Df]` (needs torch).

        Raises:
            ValueError: There is no such page, or one of its files is missing or damaged.
        """
        if not 0 <= index < len(self):
            raise ValueError(f"{self.path} has pages 0 to {len(self) - 1}, not {index}")
        entry = self._entries[index]
        image = tensor = None
        try:
            if entry["picture"]:
                image = load_image(self.path / entry["picture"], formats=("PNG",))
            if features and entry["features"]:
                tensor = _read_features(self.path / entry["features"])
        except ValueError as error:
            raise ValueError(
                f"page {index + 1} of {self.path} is damaged or missing: {error}; put it back or tell anew"
            ) from None
        return Page(
            index=index,
            caption=entry["caption"],
            image=image,
            features=tensor,
            seed=entry["seed"],
            state=entry["state"],
            alt=entry["alt"],
        )

    def add_page(self, page: Page) -> None:
        """Writes a page: the next one, or one already there anew (its old files stay until the new ones are named).

        Raises:
            ValueError: The page would leave a gap.
        """
        if page.index > len(self):
            raise ValueError(f"{self.path} has {len(self)} pages: page {page.number} cannot be added before the others")
        old = self._entries[page.index] if page.index < len(self) else {"picture": None, "features": None}
        entry = {
            "caption": page.caption,
            "picture": None,
            "features": None,
            "seed": page.seed,
            "state": page.state,
            "alt": page.alt,
        }
        if page.image is not None:
            data = _png(page, self.title, self.settings)
            entry["picture"] = self._write_new(page.index, "png", data, old["picture"])
        if page.features is not None:
            from safetensors.torch import save

            data = save({"features": page.features.detach().cpu().contiguous()})
            entry["features"] = self._write_new(page.index, "safetensors", data, old["features"])
        before = list(self._entries)
        self._entries[page.index : page.index + 1] = [entry]
        try:
            self.save_record()
        except BaseException:
            self._entries = before
            raise
        for name in (old["picture"], old["features"]):
            if name and name not in entry.values():
                (self.path / name).unlink(missing_ok=True)

    def save_record(self) -> None:
        """Rewrites `story.json` in one atomic step."""
        record = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "title": self.title,
            "language": self.language,
            "model": self.model,
            "versions": self.versions,
            "settings": _settings_to_dict(self.settings),
            "pages": self._entries,
        }
        write_atomic(self.path / "story.json", json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8"))

    def remove_leftovers(self) -> None:
        """Removes what a killed process may have left: temporary files and page files that no page names."""
        named = {entry[kind] for entry in self._entries for kind in ("picture", "features")}
        for file in [
            *self.path.glob(".*.tmp"),
            *(self.path / "pages").glob("*"),
            *(self.path / "pages").glob(".*.tmp"),
        ]:
            relative = file.relative_to(self.path).as_posix()
            if _LEFTOVER.fullmatch(file.name) or (_FILE.fullmatch(relative) and relative not in named):
                file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes the story: its record first, then its files. Other files stay, and the folder if it is not empty."""
        (self.path / "story.json").unlink(missing_ok=True)
        self._entries = []
        self.remove_leftovers()
        with contextlib.suppress(OSError):
            (self.path / "pages").rmdir()

    def _write_new(self, index: int, ending: str, data: bytes, old: str | None) -> str:
        """Writes a file of a page beside the old one, which stays if it holds the same; returns the file's name."""
        if old is not None and (self.path / old).is_file() and (self.path / old).read_bytes() == data:
            return old
        name = f"pages/page-{index + 1:03d}.{ending}"
        if name == old:
            name = f"pages/page-{index + 1:03d}.r1.{ending}"
        write_atomic(self.path / name, data)
        return name


def check_target(path: str | Path, *, overwrite: bool = False, idle: bool = True) -> None:
    """Checks, changing nothing, that a new story may go into a folder.

    Args:
        path: The folder; it need not exist.
        overwrite: Whether an older story there may be replaced.
        idle: Whether another process must not be writing there.

    Raises:
        ValueError: The path is a file, is being written, holds a story and `overwrite` is False, or holds files that
            are not ours.
    """
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise ValueError(f"{path} is a file: give a folder for the story")
    if idle:
        check_unlocked(path)
    if (path / "story.json").exists():
        if not overwrite:
            raise ValueError(f"{path} already holds a story: use `seedstory resume {path}`, or --overwrite")
        StoryFolder.open(path)  # only a story of ours is ever replaced
    elif any(map(_is_foreign, path.iterdir())):
        raise ValueError(f"{path} holds other files: give a new or an empty folder")


def _is_foreign(file: Path) -> bool:
    """Whether a file in a folder without a story is something else than what a killed process may have left."""
    if file.name == "pages":
        return file.is_symlink() or not file.is_dir() or any(file.glob("[!.]*"))
    return file.name != LOCK and not _LEFTOVER.fullmatch(file.name)


def _check_pages_folder(path: Path) -> None:
    """Pages are written and removed in a folder of their own, never where a link leads."""
    pages = path / "pages"
    if pages.is_symlink() or (pages.exists() and not pages.is_dir()):
        raise ValueError(f"{pages} is a link or a file: a story keeps its pages in a plain folder; put one there")


def _read_features(path: Path) -> torch.Tensor:
    """The features `[F, Df]` of a page, finite floats.

    Raises:
        ValueError: The file is missing, too large, damaged, or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensor = load(read_regular(path, limit=MAX_FEATURES))["features"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} holds no features ({error})") from None
    if not tensor.is_floating_point() or tensor.ndim != 2:
        raise ValueError(f"{path} holds {tensor.dtype} of shape {list(tensor.shape)}, not features [F, Df]")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{path} holds NaN or infinity")
    return tensor


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that it is either whole or as it was before, also after a crash."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def page_seed(seed: int, index: int) -> int:
    """The seed of one page, a function of the story's seed and the page's index alone (32 bits)."""
    return int.from_bytes(hashlib.sha256(f"seedstory page {index} of {seed}".encode()).digest()[:4], "big")


# A full stop after one of these, or after a single capital, ends no sentence.
_ABBREVIATION = r"(?:^|[\s\"'“‘(])(?:Mr|Mrs|Ms|Dr|St|Prof|Capt|Sgt|Rev|Jr|Sr|vs|vol|Vol|no|No|[A-HJ-Z])\.$"


def make_title(text: str) -> str:
    """A title from the first sentence of a text.

    "Once upon a time there was" is left out; what is longer than `MAX_TITLE` characters ends before a clause or,
    failing that, after a whole word. A text without words gives none.
    """
    words = " ".join(text.split())
    ends = (
        end for end in re.finditer(r"[.!?][\"'”’)]*(?=\s)", words) if not re.search(_ABBREVIATION, words[: end.end()])
    )
    first = words[: end.start()] + words[end.start()].strip(".") if (end := next(ends, None)) else words
    first = first.strip(" \"'“”‘’.")
    first = re.sub(r"^once upon a time\W+(?:there (?:was|were|lived) )?", "", first, flags=re.IGNORECASE)
    if not first:
        return ""
    first = first[0].upper() + first[1:]
    if len(first) <= MAX_TITLE:
        return first
    clauses = [match.start() for match in re.finditer(_CLAUSE, first) if 20 <= match.start() <= MAX_TITLE]
    if clauses:
        return first[: clauses[-1]]
    return first[: MAX_TITLE - 1].rsplit(" ", 1)[0].rstrip(" ,;:–—-") + "…"


def _png(page: Page, title: str, settings: StorySettings) -> bytes:
    """PNG bytes with the making of the picture in text chunks."""
    chunks = PngImagePlugin.PngInfo()
    made = {k: v for k, v in _settings_to_dict(settings).items() if k != "captions"}
    for key, value in {
        "Software": "seedstory",
        "Title": title,
        "Description": page.caption,
        "seedstory.page": str(page.number),
        "seedstory.seed": str(page.seed),
        "seedstory.prompt": settings.text or "",
        "seedstory.settings": json.dumps(made, ensure_ascii=False),
    }.items():
        chunks.add_itxt(key, value)
    buffer = io.BytesIO()
    assert page.image is not None, "only a drawn page becomes a PNG"
    page.image.convert("RGB").save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def _settings_to_dict(settings: StorySettings) -> dict[str, Any]:
    return {_NAMES_ON_DISK.get(key, key): value for key, value in asdict(settings).items()}


def _is_page_file(name: Any, ending: str) -> bool:
    return isinstance(name, str) and bool(_FILE.fullmatch(name)) and name.endswith(ending)


def _checked(record: Any) -> dict[str, Any]:
    """The parts of a parsed story.json, each checked, as keyword arguments of `StoryFolder`."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError("it was not written by seedstory")
    version = record["format_version"]
    if isinstance(version, bool) or not isinstance(version, int):
        raise ValueError(f"format_version must be a whole number, not {version!r:.40}")
    if version != FORMAT_VERSION:
        raise ValueError(f"its format is {version}, this seedstory reads {FORMAT_VERSION}: update it")
    if not isinstance(record["settings"], dict) or not isinstance(record["pages"], list):
        raise ValueError("settings must be an object, and pages a list")
    known = {_NAMES_ON_DISK.get(f.name, f.name): f.name for f in fields(StorySettings)}
    unknown = set(record["settings"]) - set(known)
    if unknown:
        raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
    if len(record["pages"]) > MAX_PAGES:
        raise ValueError(f"it lists {len(record['pages']):,} pages: a story has at most {MAX_PAGES:,}")
    entries = []
    for number, page in enumerate(record["pages"], 1):
        if not isinstance(page, dict):
            raise ValueError(f"page {number} is not well formed")
        entry = {key: page[key] for key in ("caption", "picture", "features", "seed", "state")}
        entry["alt"] = page.get("alt", "")
        good = isinstance(entry["caption"], str) and isinstance(entry["alt"], str) and entry["state"] in STATES
        good = good and isinstance(entry["seed"], int) and not isinstance(entry["seed"], bool)
        for kind, ending in (("picture", ".png"), ("features", ".safetensors")):
            name = entry[kind]
            good = good and (name is None or _is_page_file(name, ending))
        if not good:
            raise ValueError(f"page {number} is not well formed")
        entries.append(entry)
    for key in ("title", "language"):
        if not isinstance(record[key], str):
            raise ValueError(f"{key} is not text")
    for key in ("model", "versions"):
        facts = record[key]
        if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
            raise ValueError(f"{key} must be an object of texts")
    settings = StorySettings(**{known[key]: value for key, value in record["settings"].items()})
    if len(entries) > settings.pages:
        count = len(entries)
        raise ValueError(f"it has {count} pages, but settings.pages is {settings.pages}: set that to {count}")
    return {
        "title": record["title"],
        "settings": settings,
        "model": dict(record["model"]),
        "versions": dict(record["versions"]),
        "language": record["language"],
        "entries": entries,
    }
