"""A story in memory. `seedstory.story_folder` holds it on disk, `seedstory.page` its pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from seedstory.identity import NO_IDENTITY, ModelIdentity
from seedstory.io import exclusive_writer
from seedstory.page import Page, make_title, page_seed
from seedstory.settings import StorySettings
from seedstory.story_folder import StoryFolder, check_target

UNTITLED = "A story"  # what readers see while a story has no title

__all__ = ["UNTITLED", "Page", "Story", "StoryFolder", "check_target", "make_title", "page_seed"]


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
