"""What the page loop knows of one story while it is written.

Shape legend: `T` tokens, `D` hidden width.
"""

import torch

from seedstory.generation.pages import GivenPage, StoryRequest
from seedstory.layout import countdown
from seedstory.story_state import StoryState


class ActiveStory:
    """A story while it is written.

    Args:
        number: Names it.
        start: What is to be written.
        score: Whether it is reported how probable the model finds each caption.

    Attributes:
        index: Of the page that comes now.
        history: Ids of recent captions.
        window: Embeddings of recent pages, `[T, D]` each, for the policy that reads them again.
        cast: That of the newest story state.
        read_states: Pages before which story states stand, and the states' embeddings, `[T, D]`.
        pin: From where to where the newest state lies, until the cache knows.
        text: Embeddings of the open page's caption and `<img>`, `[T, D]`.
        caption: Of the open page.
    """

    def __init__(self, number: int, start: StoryRequest, *, score: bool = False) -> None:
        self.score = score
        self.number, self.opening, self.pages, self.seed_of = number, list(start.opening), start.pages, start.seed_of
        self.labels = countdown(start.pages)
        self.index = 0
        self.history: list[list[int]] = []
        self.window: list[torch.Tensor] = []
        self.state_pages, self.states = frozenset(start.state_pages), dict(start.states)
        self.fixed_states, self.cast = frozenset(start.fixed_states), StoryState().cast
        self.state_in_opening = start.state_in_opening and 1 in self.state_pages
        self.read_states: list[tuple[int, torch.Tensor]] = []
        self.pin: tuple[int, int] | None = None
        self.text = torch.empty(0)
        self.caption = ""

    @property
    def given(self) -> GivenPage:
        return self.opening[self.index] if self.index < len(self.opening) else GivenPage()

    @property
    def needs_state(self) -> bool:
        """Whether a story state stands before the label of the page that comes now."""
        return self.index in self.state_pages and not (self.index == 1 and self.state_in_opening)

    @property
    def opens_with_state(self) -> bool:
        """Whether a story state stands in the page that comes now, the first one."""
        return self.index == 0 and self.state_in_opening

    def reread(self) -> list[torch.Tensor]:
        """What the policy that reads pages again reads of the last ones, in order, with the states between them.

        The last state stays when the pages around it have gone; that of the first page may be a part of it.
        """
        first = self.index - len(self.window)
        between: dict[int, torch.Tensor] = {}
        for number, (page, state) in enumerate(self.read_states):
            inside = page == 1 and self.state_in_opening and first == 0
            if not inside and (page > first or number == len(self.read_states) - 1):
                between[max(page, first)] = state
        pages = range(first, self.index + 1)
        pieces = [[between.get(page), window] for page, window in zip(pages, [*self.window, None], strict=True)]
        return [piece for pair in pieces for piece in pair if piece is not None]
