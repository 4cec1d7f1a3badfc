"""The stories of a server: folders in one folder, named by ids. A client names an id, never a path."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from seedstory.errors import SeedStoryError, StoryFolderError
from seedstory.export.book import png_of
from seedstory.image import load_image
from seedstory.io import exclusive_writer, read_json, remove_leftovers, write_atomic
from seedstory.model_folder import versions
from seedstory.story import StoryFolder, make_title
from seedstory.story_request import opening_page

if TYPE_CHECKING:
    from torch import Tensor

    from seedstory.pipeline import StoryPipeline

STORY_ID = r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?"
JOB_STATES = ("waiting", "stopped", "failed", "done")
_JOBS = ".jobs"  # job records and uploaded images: a story folder belongs to whoever writes its pages
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_FORMAT = "seedstory-job"


class NotFoundError(SeedStoryError):
    """There is no such story, page or image."""


@dataclass(frozen=True)
class JobRecord:
    """What is stored of a story's making, so that a server that starts anew goes on with it.

    Attributes:
        state: "waiting" to be made (or being made), "stopped" by a user, "failed" or "done".
        error: Why it failed.
        temporary: Whether the story goes away with the request that asked for it.
    """

    state: str
    error: str = ""
    temporary: bool = False


class Library:
    """The folder of the stories.

    Args:
        path: The folder; made if it is missing.

    Raises:
        StoryFolderError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            (path / _JOBS).mkdir(parents=True, exist_ok=True)
            probe = path / f".{secrets.token_hex(4)}.probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoryFolderError(f"cannot write to the library {path}: {error.strerror}; choose another") from None

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Holds the library for one server.

        Raises:
            StoryFolderError: Another one has it.
        """
        with exclusive_writer(self.path):
            remove_leftovers(self.path / _JOBS)
            known = set(self.ids())
            for file in (self.path / _JOBS).iterdir():
                if file.stem not in known:
                    file.unlink(missing_ok=True)
            yield

    def ids(self) -> list[str]:
        """Ids of all stories, the one changed last first."""
        found = []
        for folder in self.path.iterdir():
            if re.fullmatch(STORY_ID, folder.name) and not folder.is_symlink():
                try:
                    found.append(((folder / "story.json").stat().st_mtime_ns, folder.name))
                except OSError:
                    continue
        return [name for _, name in sorted(found, reverse=True)]

    def folder(self, story_id: str) -> Path:
        """The folder of a story.

        Raises:
            NotFoundError: There is none.
        """
        path = self.path / story_id
        if not re.fullmatch(STORY_ID, story_id) or path.is_symlink() or not (path / "story.json").is_file():
            raise NotFoundError("there is no such story")
        return path

    def open(self, story_id: str) -> StoryFolder:
        """Reads a story.

        Raises:
            NotFoundError: There is none.
            StoryFolderError: It is broken.
        """
        return StoryFolder.open(self.folder(story_id))

    def free_id(self) -> str:
        """An id that no story has."""
        while True:
            story_id = "".join(secrets.choice(_LETTERS) for _ in range(12))
            if not (self.path / story_id).exists():
                return story_id

    def create(self, pipeline: StoryPipeline, *, temporary: bool = False, **arguments: Any) -> str:
        """Stores what is asked of a new story, which is then waiting to be made.

        Args:
            pipeline: Will make it.
            temporary: As in `JobRecord`.
            **arguments: Those of `StoryPipeline.stream`.

        Returns:
            Its id.

        Raises:
            SeedStoryError: As `StoryPipeline.stream`.
        """
        request = pipeline._request(**arguments)
        story_id = self.free_id()
        StoryFolder.create(
            self.path / story_id,
            title=request.title or make_title(request.settings.text or ""),
            settings=request.settings,
            model=pipeline.identity,
            versions=versions(),
            language=request.language,
        )
        try:
            if request.image is not None:
                write_atomic(self._file(story_id, "png"), png_of(request.image))
            self.write_job(story_id, JobRecord("waiting", temporary=temporary))
        except BaseException:
            self.delete(story_id)
            raise
        return story_id

    def delete(self, story_id: str) -> None:
        """Removes a story that nobody is writing; files that are not the story's stay.

        Raises:
            NotFoundError: There is none.
        """
        path = self.folder(story_id)
        try:
            StoryFolder.open(path).discard()
        except StoryFolderError:  # a broken one: its record goes, so that it is no story any more
            (path / "story.json").unlink(missing_ok=True)
        for file in (self._file(story_id, "json"), self._file(story_id, "png"), path / "index.html"):
            file.unlink(missing_ok=True)
        remove_leftovers(path)
        try:
            path.rmdir()
        except OSError:
            return

    def store_opening(self, story_id: str, encode: Callable[[Image.Image], Tensor]) -> StoryFolder | None:
        """Makes the first page of a story that an uploaded image opens; the upload goes, since the page has it now.

        Args:
            story_id: The story.
            encode: Image to features `[F, Df]`.

        Returns:
            The story, or None if nothing was to be done.
        """
        file = self._file(story_id, "png")
        if not file.is_file():
            return None
        image, folder = load_image(file, "the opening image", formats=("PNG",)), self.open(story_id)
        if len(folder):
            file.unlink(missing_ok=True)
            return None
        page = replace(opening_page(folder.settings), image=image, features=encode(image))
        with exclusive_writer(folder.path):
            folder.add_page(page)
        file.unlink(missing_ok=True)
        return folder

    def read_job(self, story_id: str) -> JobRecord:
        """How far the making of a story is; a folder that no server has written is done, or stopped.

        The folder has the last word: a server may have been killed between it and the job record, and commands change
        stories without one.
        """
        record = self._stored_job(story_id)
        try:
            complete = self.open(story_id).is_complete
        except SeedStoryError:
            if record is None:
                raise
            return record
        if record is None:
            return JobRecord("done" if complete else "stopped")
        if complete:
            return JobRecord("done", temporary=record.temporary)
        return replace(record, state="stopped") if record.state == "done" else record

    def _stored_job(self, story_id: str) -> JobRecord | None:
        try:
            values = read_json(self._file(story_id, "json"), limit=2**16)
        except SeedStoryError:
            return None
        if isinstance(values, dict) and values.get("format") == _FORMAT and values.get("state") in JOB_STATES:
            return JobRecord(values["state"], str(values.get("error", "")), values.get("temporary") is True)
        return None

    def write_job(self, story_id: str, record: JobRecord) -> None:
        """Stores how far the making of a story is."""
        self.folder(story_id)
        write_atomic(self._file(story_id, "json"), json.dumps({"format": _FORMAT} | asdict(record)))

    def _file(self, story_id: str, ending: str) -> Path:
        """A file of the server about a story, whose id is checked."""
        return self.path / _JOBS / f"{story_id}.{ending}"
