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
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from seedstory.errors import StoryExistsError, StoryFolderError
from seedstory.identity import NO_IDENTITY, ModelIdentity
from seedstory.image import load_image
from seedstory.io import (
    WRITER_LOCK,
    check_unlocked,
    exclusive_writer,
    is_leftover,
    read_json,
    remove_leftovers,
    write_atomic,
)
from seedstory.settings import MAX_PAGES, StorySettings, check_int
from seedstory.story_record import (
    FORMAT,
    FORMAT_VERSION,
    PAGE_FILE,
    STATES,
    check_record,
    png_bytes,
    read_features,
    settings_to_dict,
)
from seedstory.story_state import StoryState
from seedstory.text import sentence_ends

if TYPE_CHECKING:
    import torch

MAX_TITLE = 60  # characters of a title made from a sentence
MAX_JSON = 256 * 2**20  # bytes of story.json
UNTITLED = "A story"  # what readers see while a story has no title

# What story.json says of every page; the rest is left out where there is nothing to say.
_ALWAYS = ("caption", "picture", "features", "seed", "state", "alt")
_CLAUSE = r"[,;:–—]| (?:and|at|because|but|by|from|in|near|on|so|that|under|until|when|where|while|who|with) "


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
        next_state: The story state (cast and plan) that the next page begins with, or None.
    """

    index: int
    caption: str
    image: Image.Image | None = None
    features: torch.Tensor | None = None
    seed: int = 0
    state: str = "written"
    alt: str = ""
    next_state: StoryState | None = None

    def __post_init__(self) -> None:
        check_int("index", self.index, 0, MAX_PAGES - 1)
        if self.state not in STATES:
            raise StoryFolderError(f"unknown page state {self.state!r}: choose one of {', '.join(STATES)}")

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
        model: Which weights made it.
        versions: Versions of seedstory, torch, transformers and diffusers that made it.
        language: BCP 47 tag of the language of the captions; empty if it is not known.
    """

    title: str
    pages: list[Page]
    settings: StorySettings
    model: ModelIdentity = NO_IDENTITY
    versions: dict[str, str] = field(default_factory=dict)
    language: str = ""

    @classmethod
    def load(cls, folder: str | Path) -> Story:
        """Reads a story folder with all pictures and features.

        Raises:
            StoryFolderError: The folder holds no story, or a broken one.
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
        model: ModelIdentity,
        versions: dict[str, str],
        language: str,
        entries: list[dict[str, Any]],
        earlier_models: Sequence[ModelIdentity] = (),
    ) -> None:
        self.path = path
        self.title = title
        self.settings = settings
        self.model = model
        self.versions = versions
        self.language = language
        self._entries = entries
        self.earlier_models = list(earlier_models)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        title: str,
        settings: StorySettings,
        model: ModelIdentity = NO_IDENTITY,
        versions: dict[str, str] | None = None,
        language: str = "",
        overwrite: bool = False,
    ) -> StoryFolder:
        """Starts an empty story in a new or empty folder, or in place of an older story.

        Raises:
            StoryFolderError: See `check_target`.
        """
        path = Path(path)
        check_target(path, overwrite=overwrite, idle=False)
        _check_pages_folder(path)
        try:
            (path / "pages").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoryFolderError(f"cannot write to {path}: {error.strerror}; choose another folder") from None
        story = cls(
            path,
            title=title,
            settings=settings,
            model=model,
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
            StoryFolderError: There is no folder, no story in it, or a story that is broken or of a newer format.
        """
        path = Path(path)
        file = path / "story.json"
        if not file.exists():
            raise StoryFolderError(f"{path} holds no story (there is no story.json in it): check the folder's name")
        _check_pages_folder(path)
        try:
            return cls(path, **check_record(read_json(file, limit=MAX_JSON, what="it")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise StoryFolderError(f"{file} is not a readable story: {reason}") from None

    def refresh(self) -> None:
        """Reads the pages again, which another process may have written meanwhile.

        Raises:
            StoryFolderError: As `open`.
        """
        now = StoryFolder.open(self.path)
        self.title, self._entries = now.title, now._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def pages(self) -> Iterator[Page]:
        """The pages in order with their pictures and without features, read one at a time."""
        return (self.page(i, features=False) for i in range(len(self)))

    def page(self, index: int, *, image: bool = True, features: bool = True) -> Page:
        """Reads one page.

        Args:
            index: From 0.
            image: Also read the image.
            features: Also read the features `[F, Df]` (needs torch).

        Raises:
            StoryFolderError: There is no such page, or one of its files is missing or damaged.
        """
        if not 0 <= index < len(self):
            raise StoryFolderError(f"{self.path} has pages 0 to {len(self) - 1}, not {index}")
        entry = self._entries[index]
        picture = tensor = None
        try:
            if image and entry["picture"]:
                picture = load_image(self.path / entry["picture"], formats=("PNG",))
            if features and entry["features"]:
                tensor = read_features(self.path / entry["features"])
        except ValueError as error:
            raise StoryFolderError(
                f"page {index + 1} of {self.path} is damaged or missing: {error}; put it back, or start the story anew"
            ) from None
        return Page(
            index=index,
            caption=entry["caption"],
            image=picture,
            features=tensor,
            seed=entry["seed"],
            state=entry["state"],
            alt=entry["alt"],
            next_state=StoryState.from_dict(entry["next_state"]) if entry["next_state"] else None,
        )

    def add_page(self, page: Page) -> None:
        """Writes a page: the next one, or one already there anew (its old files stay until the new ones are named).

        Raises:
            StoryFolderError: The page would leave a gap.
        """
        if page.index > len(self):
            raise StoryFolderError(
                f"{self.path} has {len(self)} pages: page {page.number} cannot be added before the others"
            )
        old = self._entries[page.index] if page.index < len(self) else {"picture": None, "features": None}
        entry = {
            "caption": page.caption,
            "picture": None,
            "features": None,
            "seed": page.seed,
            "state": page.state,
            "alt": page.alt,
            "next_state": page.next_state.to_dict() if page.next_state else None,
        }
        if page.image is not None:
            data = png_bytes(
                page.image,
                title=self.title,
                caption=page.caption,
                number=page.number,
                seed=page.seed,
                settings=self.settings,
            )
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
            "model": self.model.to_dict(),
            "versions": self.versions,
            "settings": settings_to_dict(self.settings),
            "pages": [
                {key: value for key, value in entry.items() if value or key in _ALWAYS} for entry in self._entries
            ],
        }
        if self.earlier_models:
            record["earlier_models"] = [model.to_dict() for model in self.earlier_models]
        write_atomic(self.path / "story.json", json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8"))

    def resumed_by(self, model: ModelIdentity) -> None:
        """Notes the model that goes on with the story; one that began it stays on record."""
        if (model.fingerprint, model.dtype) != (self.model.fingerprint, self.model.dtype):
            self.earlier_models, self.model = [*self.earlier_models, self.model], model
            self.save_record()

    def remove_leftovers(self) -> None:
        """Removes what a killed process may have left: temporary files and page files that no page names."""
        named = {entry[kind] for entry in self._entries for kind in ("picture", "features")}
        remove_leftovers(self.path)
        remove_leftovers(self.path / "pages")
        for file in (self.path / "pages").glob("*"):
            relative = file.relative_to(self.path).as_posix()
            if PAGE_FILE.fullmatch(relative) and relative not in named:
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
        StoryExistsError: It holds a story and `overwrite` is False.
        StoryFolderError: The path is a file, is being written, or holds files that are not ours.
    """
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise StoryFolderError(f"{path} is a file: give a folder for the story")
    if idle:
        check_unlocked(path)
    if (path / "story.json").exists():
        if not overwrite:
            raise StoryExistsError(f"{path} already holds a story: resume it, or allow it to be replaced", path)
        StoryFolder.open(path)  # only a story of ours is ever replaced
    elif any(map(_is_foreign, path.iterdir())):
        raise StoryFolderError(f"{path} holds other files: give a new or an empty folder")


def _is_foreign(file: Path) -> bool:
    """Whether a file in a folder without a story is something else than what a killed process may have left."""
    if file.name == "pages":
        return file.is_symlink() or not file.is_dir() or any(file.glob("[!.]*"))
    return file.name != WRITER_LOCK and not is_leftover(file)


def _check_pages_folder(path: Path) -> None:
    """Pages are written and removed in a folder of their own, never where a link leads."""
    pages = path / "pages"
    if pages.is_symlink() or (pages.exists() and not pages.is_dir()):
        raise StoryFolderError(f"{pages} is a link or a file: a story keeps its pages in a plain folder; put one there")


def page_seed(seed: int, index: int) -> int:
    """The seed of one page, a function of the story's seed and the page's index alone (32 bits)."""
    return int.from_bytes(hashlib.sha256(f"seedstory page {index} of {seed}".encode()).digest()[:4], "big")


def make_title(text: str) -> str:
    """A title from the first sentence of a text.

    "Once upon a time there was" is left out; what is longer than `MAX_TITLE` characters ends before a clause or,
    failing that, after a whole word. A text without words gives none.
    """
    words = " ".join(text.split())
    ends = sentence_ends(words, speech=True)
    first = (words[: ends[0]] if ends else words).strip(" \"'“”‘’.")
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
