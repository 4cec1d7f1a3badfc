"""What goes into the page loop and what comes out of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from seedstory.story_state import StoryState


@dataclass(frozen=True)
class GivenPage:
    """What is given of a page; what is not given, the model makes.

    Attributes:
        caption: The text; None leaves it to the model, or means no text where there are features.
        features: Features of the picture, `[F, Df]`.
        prompt: What `ReferenceEngine` reads for the words, where that is not made from the caption.
    """

    caption: str | None = None
    features: torch.Tensor | None = None
    prompt: str = ""


@dataclass(frozen=True)
class StoryRequest:
    """A story to be written.

    Attributes:
        opening: What is given of the first pages. It may span the whole story (a script of captions), and it
            resumes a story if it holds that story's pages so far. It may have holes: pages of which nothing is given.
        pages: Pages of the whole story, the opening included.
        seed: Seed of the captions; each page has random numbers of its own, derived from it and the page's index.
        state_pages: Indices of the pages before which a story state stands, 1 or more; see `seedstory.story_state`.
        states: What is given of these states, by the page's index; the model writes the rest. Where no cast is given,
            that of the state before goes on.
        fixed_states: Indices of those that are taken as they are, whether they have a cast and a plan or not.
        state_in_opening: Whether the state of page 1 stands in page 0, between its caption and its picture, so that
            this picture, too, shows the cast. For openings without a picture.
        page_seeds: By page index, the seed from which that page's random numbers come instead of `seed`: those of its
            caption, of its features and of the state before it.
    """

    opening: Sequence[GivenPage] = ()
    pages: int = 10
    seed: int = 0
    state_pages: Collection[int] = ()
    states: Mapping[int, StoryState] = field(default_factory=dict)
    fixed_states: Collection[int] = ()
    state_in_opening: bool = False
    page_seeds: Mapping[int, int] = field(default_factory=dict)

    def seed_of(self, page: int) -> int:
        """The seed from which a page's random numbers come."""
        return self.page_seeds.get(page, self.seed)


@dataclass(frozen=True)
class PageDraft:
    """A page as the language model leaves it, before its picture is painted.

    Attributes:
        index: Number of the page, from 0.
        caption: Its text.
        features: Features of its picture, float32, `[F, Df]`. Keep them in full precision to resume exactly.
        caption_seconds: Time to decode the caption. Stories written together share their time equally.
        image_seconds: Time to regress the features.
        context_seconds: Time to read the picture, open the next page and evict.
        cached_tokens: Tokens held in the cache after the page.
        caption_tokens: Tokens of the caption and the `<img>` that ends it.
        log_likelihood: Sum of the natural log-probabilities of these tokens, if the engine was asked for scores.
        story: Number of the story, from 0, among those written together.
        next_state: The story state that stands before the next page, if one does.
        prompt: What `ReferenceEngine` reads for the words.
    """

    index: int
    caption: str
    features: torch.Tensor
    caption_seconds: float
    image_seconds: float
    context_seconds: float
    cached_tokens: int
    caption_tokens: int
    log_likelihood: float | None = None
    story: int = 0
    next_state: StoryState | None = None
    prompt: str = ""

    @property
    def seconds(self) -> float:
        return self.caption_seconds + self.image_seconds + self.context_seconds

    def as_opening(self) -> GivenPage:
        """This page as something given, to resume a story after it."""
        return GivenPage(self.caption, self.features, self.prompt)
