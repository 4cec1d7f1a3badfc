"""A page of a story in memory, its seed, and titles made from its words."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from seedstory.errors import StoryFolderError
from seedstory.page_facts import describe_facts
from seedstory.settings import MAX_PAGES, StorySettings, check_int
from seedstory.story_record import STATES, Pending
from seedstory.story_state import StoryState
from seedstory.text import sentence_ends

if TYPE_CHECKING:
    import torch

REFERENCE_SEED = 42
MAX_TITLE = 60  # characters of a title made from a sentence
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
        id: Names the page as long as there is its story, wherever it moves; None: the next free one when it is stored.
        caption_given: Whether the words are not the model's. Of an opening, and of pages of a script, it goes without
            saying.
        story_seed: The story's seed with which the page was made, if it is not that of the story's settings.
        settings: Settings with which the page was made, where they are not the story's.
        locked: Whether no change of another page may make this one anew.
        pending: How the page is to be made anew, or None. Until then it is as it was.
        facts: The author's notes of the page, such as {"place": "the meadow"}; the model does not read them.
        prompt: What the model reads for the words of the page in a `reference` story, where that is not "[INST]" and
            the caption.
    """

    index: int
    caption: str
    image: Image.Image | None = None
    features: torch.Tensor | None = None
    seed: int = 0
    state: str = "written"
    alt: str = ""
    next_state: StoryState | None = None
    id: int | None = None
    caption_given: bool = False
    story_seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    locked: bool = False
    pending: Pending | None = None
    facts: dict[str, str] = field(default_factory=dict)
    prompt: str = ""

    def __post_init__(self) -> None:
        check_int("index", self.index, 0, MAX_PAGES - 1)
        if self.state not in STATES:
            raise StoryFolderError(f"unknown page state {self.state!r}: choose one of {', '.join(STATES)}")

    @property
    def is_whole(self) -> bool:
        """Whether the page is written and is not to be made anew; its picture may still be missing."""
        return self.features is not None and self.pending is None

    @property
    def number(self) -> int:
        """The page number that a reader sees, from 1."""
        return self.index + 1

    def describe(self) -> str:
        """Alternative text of the picture: the author's own, or one made from the words, and who is where."""
        if self.alt:
            return self.alt
        said = describe_facts(self.facts)
        if self.caption:
            return f"Picture for: {self.caption} {said}".rstrip()
        return f"Picture of page {self.number}" + (f". {said}" if said else "")


def settings_of(page: Page, settings: StorySettings) -> StorySettings:
    """The settings with which a page was made: the story's, and the page's own where it has some."""
    own: dict[str, Any] = page.settings | ({} if page.story_seed is None else {"seed": page.story_seed})
    return replace(settings, **own) if own else settings


def page_seed(seed: int, index: int) -> int:
    """The seed of one page, a function of the story's seed and the page's index alone (32 bits)."""
    return int.from_bytes(hashlib.sha256(f"seedstory page {index} of {seed}".encode()).digest()[:4], "big")


def drawing_seed(settings: StorySettings, index: int) -> int:
    """The seed of a new page of a story; SEED-Story's script draws every page from the same noise."""
    return REFERENCE_SEED if settings.reference else page_seed(settings.seed, index)


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
