"""The folder that holds a story on disk.

The story folder is the one format that generating, editing, exporting and serving work on:

    story.json                   title, settings, model and version hashes, and the list of pages
    pages/page-001.png           the picture of the page whose id is 1, its making written into PNG text chunks
    pages/page-001.safetensors   the visual features of that page, `[F, Df]`
    history/00001.json           `story.json` as it was before the second change, for undo

`story.json` is rewritten last, in one atomic step, so that a page is either whole or absent: a process killed at any
moment leaves a folder that opens. Page files are never written over: a page that is made anew goes to fresh names
(`page-001.r1.png`), and the old files go away only when neither `story.json` nor the history names them.

This module imports neither torch nor transformers until tensors are read or written.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedstory.errors import StoryExistsError, StoryFolderError
from seedstory.history import HISTORY, History
from seedstory.identity import NO_IDENTITY, ModelIdentity
from seedstory.image import load_image
from seedstory.io import (
    WRITER_LOCK,
    check_unlocked,
    inside,
    is_leftover,
    read_json,
    read_regular,
    remove_leftovers,
    write_atomic,
)
from seedstory.page import Page, settings_of
from seedstory.settings import StorySettings
from seedstory.story_record import (
    FORMAT,
    FORMAT_VERSION,
    MAX_FEATURES,
    MAX_JSON,
    PAGE_FILE,
    PageEntry,
    check_record,
    png_bytes,
    read_features,
    settings_to_dict,
)

BOOKS = ("index.html", "book.pdf", "book.epub", "book.cbz", "book.mp4")  # of an older story, which go with it
# What a page in memory and its entry on disk have in common.
_SHARED = (
    *("id", "caption", "seed", "state", "alt", "next_state"),
    *("caption_given", "story_seed", "settings", "locked", "pending", "facts", "prompt"),
)


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
        entries: list[PageEntry],
        earlier_models: Sequence[ModelIdentity] = (),
        revision: int = 0,
    ) -> None:
        self.path = path
        self.title = title
        self.settings = settings
        self.model = model
        self.versions = versions
        self.language = language
        self.entries = entries
        self.earlier_models = list(earlier_models)
        self.revision = revision
        self.history = History(path)

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
        source: StoryFolder | None = None,
        entries: Sequence[PageEntry] = (),
    ) -> StoryFolder:
        """Starts an empty story in a new or empty folder, or in place of an older story.

        With `source` it begins with pages of another story, the `entries`, whose files are copied before the new story
        is there: it is whole or absent.

        Raises:
            StoryFolderError: See `check_target`; or a file of `source` is missing or damaged.
        """
        path = Path(path)
        check_target(path, overwrite=overwrite, idle=False)
        _check_pages_folder(path)
        try:
            (path / "pages").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoryFolderError(f"cannot write to {path}: {error.strerror}; choose another folder") from error
        story = cls(
            path,
            title=title,
            settings=settings,
            model=model,
            versions=dict(versions or {}),
            language=language,
            entries=list(entries),
            earlier_models=source.earlier_models if source is not None else (),
        )
        try:
            if source is not None:
                story._copy_files(source)
            story.save_record()
        except BaseException:
            if source is not None:
                story.discard()
            raise
        # The older story, if any, has ended; now its files go.
        story.history.clear()
        story.remove_leftovers()
        for book in BOOKS:
            (path / book).unlink(missing_ok=True)
        return story

    @classmethod
    def open(cls, path: str | Path) -> StoryFolder:
        """Opens an existing story folder without changing it.

        Raises:
            StoryFolderError: There is no folder, no story in it, or a story that is broken or of a newer format.
        """
        path = Path(path)
        file = path / "story.json"
        try:
            found = file.exists()
        except (OSError, ValueError) as error:  # the name is too long, or holds what no name can
            raise StoryFolderError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        if not found:
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
        for name in ("title", "language", "settings", "entries", "model", "earlier_models", "versions", "revision"):
            setattr(self, name, getattr(now, name))

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def pages(self) -> Iterator[Page]:
        """The pages in order with their pictures and without features, read one at a time.

        Places of pages that are still to be made are left out.
        """
        return (self.page(i, features=False) for i, entry in enumerate(self.entries) if not entry.is_empty)

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
        entry = self.entries[index]
        picture = tensor = None
        try:
            if image and entry.image_file:
                picture = load_image(self.path / entry.image_file, formats=("PNG",))
            if features and entry.features_file:
                tensor = read_features(self.path / entry.features_file)
        except ValueError as error:
            raise StoryFolderError(
                f"page {index + 1} of {self.path} is damaged or missing: {error}; put it back, or start the story anew"
            ) from None
        return Page(
            index=index,
            image=picture,
            features=tensor,
            **{name: getattr(entry, name) for name in _SHARED},
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
        old = self.entries[page.index] if page.index < len(self) else None
        named = self.history.files() if old is not None else set()
        own = page.id or (old.id if old is not None else self.next_id())
        entry = PageEntry(**{name: getattr(page, name) for name in _SHARED if name != "id"}, id=own)
        if page.image is not None:
            data = png_bytes(
                page.image,
                title=self.title,
                caption=page.caption,
                number=page.number,
                seed=page.seed,
                settings=settings_of(page, self.settings),
                model=self.model.fingerprint,
                version=self.versions.get("seedstory", ""),
            )
            entry = replace(entry, image_file=self._write_new(own, "png", data, old.image_file if old else None, named))
        if page.features is not None:
            from safetensors.torch import save

            data = save({"features": page.features.detach().cpu().contiguous()})
            name = self._write_new(own, "safetensors", data, old.features_file if old else None, named)
            entry = replace(entry, features_file=name)
        if self.earlier_models and (old is None or old.features_file != entry.features_file):
            entry = replace(entry, model=self.model.fingerprint)
        before = list(self.entries)
        self.entries[page.index : page.index + 1] = [entry]
        try:
            self.save_record()
        except BaseException:
            self.entries = before
            raise
        for name in (old.files if old is not None else set()) - entry.files - named:
            (self.path / name).unlink(missing_ok=True)

    def next_id(self) -> int:
        """An id that no page has or had, as far as the history goes."""
        return 1 + max((entry.id for entry in [*self.entries, *self.history.entries()]), default=0)

    def index_of(self, page_id: int) -> int:
        """Where the page of an id stands, from 0.

        Raises:
            StoryFolderError: There is none.
        """
        for index, entry in enumerate(self.entries):
            if entry.id == page_id:
                return index
        raise StoryFolderError(f"{self.path} has no page with the id {page_id}")

    @property
    def is_complete(self) -> bool:
        """Whether every page is there and drawn, and none is to be made anew."""
        return all(entry.is_drawn for entry in self.entries) and len(self) == self.settings.pages

    # ------------------------------------------------------------------------------------------------------- changes

    def revise(
        self,
        *,
        entries: Sequence[PageEntry] | None = None,
        settings: StorySettings | None = None,
        title: str | None = None,
        language: str | None = None,
    ) -> None:
        """Changes the record in one atomic step that `undo` takes back. The caller alone writes in the folder.

        Args:
            entries: The pages from now on.
            settings: The settings from now on.
            title: The title from now on.
            language: The language from now on.
        """
        given: dict[str, Any] = {"entries": entries, "settings": settings, "title": title, "language": language}
        changes = {name: value for name, value in given.items() if value is not None}
        before = {name: getattr(self, name) for name in (*changes, "revision")}
        self.history.keep(self.revision, self._record())
        for name, value in {**changes, "revision": self.revision + 1}.items():
            setattr(self, name, list(value) if name == "entries" else value)
        try:
            self.save_record()
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        self.history.drop_after(self.revision - 1)
        self.remove_leftovers()

    def undo(self, *, forward: bool = False) -> None:
        """Takes the last change back, or with `forward` makes it again. The caller alone writes in the folder.

        Raises:
            StoryFolderError: There is nothing to take back, or to make again.
        """
        target = self.revision + (1 if forward else -1)
        earlier = self.history.read(target)
        if earlier is None:
            what = "has no change that was taken back" if forward else "has no change to take back"
            raise StoryFolderError(f"{self.path} {what}", self.path)
        self.history.keep(self.revision, self._record())
        # What has changed hands since stays on record.
        earlier |= {"model": self.model, "earlier_models": self.earlier_models, "versions": self.versions}
        for name, value in earlier.items():
            setattr(self, name, value)
        self.save_record()

    def save_record(self) -> None:
        """Rewrites `story.json` in one atomic step."""
        write_atomic(self.path / "story.json", self._record())

    def _record(self) -> str:
        """What `story.json` says."""
        record: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "title": self.title,
            "language": self.language,
            "model": self.model.to_dict(),
            "versions": self.versions,
            "settings": settings_to_dict(self.settings),
            "pages": [entry.to_dict() for entry in self.entries],
        }
        if self.revision:
            record["revision"] = self.revision
        if self.earlier_models:
            record["earlier_models"] = [model.to_dict() for model in self.earlier_models]
        return json.dumps(record, indent=1, ensure_ascii=False)

    def resumed_by(self, model: ModelIdentity) -> None:
        """Notes the model that goes on with the story; one that began it stays on record."""
        if (model.fingerprint, model.dtype) != (self.model.fingerprint, self.model.dtype):
            self.earlier_models, self.model = [*self.earlier_models, self.model], model
            self.save_record()

    def remove_leftovers(self) -> None:
        """Removes what a killed process may have left: temporary files and page files that no page names."""
        named = self.history.files().union(*(entry.files for entry in self.entries))
        for folder in (self.path, self.path / "pages", self.path / HISTORY):
            remove_leftovers(folder)
        for file in (self.path / "pages").glob("*"):
            relative = file.relative_to(self.path).as_posix()
            if PAGE_FILE.fullmatch(relative) and relative not in named:
                file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes the story: its record first, then its files. Other files stay, and the folder if it is not empty."""
        (self.path / "story.json").unlink(missing_ok=True)
        self.entries = []
        self.history.clear()
        self.remove_leftovers()
        with contextlib.suppress(OSError):
            (self.path / "pages").rmdir()

    def _copy_files(self, source: StoryFolder) -> None:
        """Copies the files of the pages from another story."""
        for name in sorted(set[str]().union(*(entry.files for entry in self.entries))):
            try:
                data = read_regular(inside(source.path, name), limit=MAX_FEATURES)
            except ValueError as error:
                raise StoryFolderError(f"a page of {source.path} cannot be copied: {error}; put it back") from None
            write_atomic(self.path / name, data)

    def _write_new(self, page_id: int, ending: str, data: bytes, old: str | None, named: set[str]) -> str:
        """Writes a file of a page beside the old one, which stays if it holds the same; returns the file's name."""
        if old is not None and (self.path / old).is_file() and (self.path / old).read_bytes() == data:
            return old
        name, attempt = f"pages/page-{page_id:03d}.{ending}", 0
        while name == old or name in named:
            attempt += 1
            name = f"pages/page-{page_id:03d}.r{attempt}.{ending}"
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
    if file.name in ("pages", HISTORY):
        return file.is_symlink() or not file.is_dir() or any(file.glob("[!.]*"))
    return file.name != WRITER_LOCK and not is_leftover(file)


def _check_pages_folder(path: Path) -> None:
    """Pages are written and removed in a folder of their own, never where a link leads."""
    for folder in (path / "pages", path / HISTORY):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise StoryFolderError(
                f"{folder} is a link or a file: a story keeps its pages in a plain folder; put one there"
            )
