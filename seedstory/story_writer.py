"""Storing a story while it is generated, and checking that an interrupted one can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from seedstory.errors import LostOpeningError, OtherModelError, StoryFolderError
from seedstory.identity import ModelIdentity
from seedstory.io import check_unlocked, exclusive_writer
from seedstory.model_folder import versions
from seedstory.settings import StorySettings
from seedstory.story import Page, StoryFolder, make_title


class StoryWriter:
    """Stores the pages of a new story in a folder, which nobody else may write meanwhile; a context manager.

    The folder is made at once, so that a killed run can be resumed; where an older story is replaced, only when the
    first page is whole. A run that fails before its first page leaves nothing.

    Args:
        folder: Where to write; None writes nothing.
        settings: Of the story.
        model: The model that generates it.
        title: The title; None: made from the first sentence.
        language: Of the captions.
        overwrite: Whether an older story there may be replaced.

    Raises:
        StoryFolderError: The folder is not free or cannot be written.
    """

    def __init__(
        self,
        folder: str | Path | None,
        settings: StorySettings,
        model: ModelIdentity,
        *,
        title: str | None,
        language: str,
        overwrite: bool,
    ) -> None:
        self.path = None if folder is None else Path(folder)
        self.settings, self.model = settings, model
        self.title, self.language, self.overwrite = title, language, overwrite
        self.folder: StoryFolder | None = None
        self._has_page, self._made = False, list[Path]()
        self._lock = ExitStack()

    def __enter__(self) -> StoryWriter:
        if self.path is not None:
            self._made = [part for part in (self.path, *self.path.parents) if not part.exists()]
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                message = f"cannot write to {self.path}: {error.strerror}; choose another folder"
                raise StoryFolderError(message, self.path) from error
            self._lock.enter_context(exclusive_writer(self.path))
            if not (self.path / "story.json").exists():
                self._create(make_title(self.settings.text or ""))
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder is not None and not self._has_page:
            self.folder.discard()
        self._lock.close()
        if not self._has_page:
            with suppress(OSError):
                for part in self._made:
                    part.rmdir()

    def __call__(self, page: Page) -> None:
        """Stores a page: the next one, or one already there anew."""
        if self.path is None:
            return
        if self.folder is None:
            self._create(make_title(page.caption))
        assert self.folder is not None
        self.folder.title = self.folder.title or make_title(page.caption)
        self.folder.add_page(page)
        self._has_page = True

    def _create(self, title: str) -> None:
        assert self.path is not None
        self.folder = StoryFolder.create(
            self.path,
            title=self.title or title,
            settings=self.settings,
            model=self.model,
            versions=versions(),
            language=self.language,
            overwrite=self.overwrite,
        )


@contextmanager
def resumed(folder: StoryFolder, model: ModelIdentity) -> Iterator[Callable[[Page], None]]:
    """Goes on with a story folder, which nobody else may write meanwhile; see `check_resumable`.

    Args:
        folder: The folder; its pages are read again, since they may have been written meanwhile.
        model: The model that goes on.

    Yields:
        What stores a page.
    """

    def write(page: Page) -> None:
        folder.title = folder.title or make_title(page.caption)  # an image opened the story: its words come now
        folder.add_page(page)

    with exclusive_writer(folder.path):
        folder.refresh()
        folder.remove_leftovers()
        folder.resumed_by(model)
        yield write


def check_resumable(folder: StoryFolder) -> None:
    """Checks that a story can be resumed: that it has a page, or opens with words, which its settings hold.

    Raises:
        StoryFolderError: It cannot.
    """
    check_unlocked(folder.path)
    if len(folder) == 0 and folder.settings.image_name is not None:
        raise LostOpeningError(
            f"{folder.path} was stopped before its opening image was stored: generate the story again", folder.path
        )


def check_same_model(folder: StoryFolder, model: ModelIdentity) -> None:
    """Checks that a story was begun with this model, in its types of weights.

    Raises:
        OtherModelError: It was not.
    """
    for key in ("fingerprint", "dtype"):
        begun, here = getattr(folder.model, key), getattr(model, key)
        if begun != here:
            raise OtherModelError(
                f"{folder.path} was begun with the model {folder.model.name or '(unnamed)'} of {key} "
                f"{begun[:16] or '(none)'}, this one has {here[:16] or '(none)'}: load the model that began it",
                folder.path,
            )


def check_feature_shape(folder: StoryFolder, shape: tuple[int, int]) -> None:
    """Checks that the stored features of all pages are `[F, Df]` of this shape.

    Raises:
        StoryFolderError: Those of a page are not.
    """
    for number in range(len(folder)):
        features = folder.page(number, image=False).features
        if features is not None and tuple(features.shape) != shape:
            raise StoryFolderError(
                f"page {number + 1} of {folder.path} has features {list(features.shape)}, but this model's are "
                f"{list(shape)}: put its file back, or generate the story again",
                folder.path,
            )
