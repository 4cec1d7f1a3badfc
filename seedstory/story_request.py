"""What the engine is to write of a story, from its settings and the pages that are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seedstory.errors import RequestError
from seedstory.layout import countdown
from seedstory.settings import StorySettings
from seedstory.story import Page
from seedstory.story_state import StoryState

if TYPE_CHECKING:
    from seedstory.generation import StoryRequest


def story_request(settings: StorySettings, given: Sequence[Page], trained: bool) -> StoryRequest:
    """What the engine is to write.

    Args:
        settings: Of the story.
        given: Its first pages, the opening at least.
        trained: Whether the model was trained to write and follow story states.

    Raises:
        RequestError: A cast or a plan is given to a model that was not.
    """
    from seedstory.generation import GivenPage, StoryRequest

    script = (settings.captions or [])[len(given) - 1 :]
    opening = [GivenPage(page.caption, page.features) for page in given]
    pages = state_pages(settings, trained)
    stored = {page.index + 1: page.next_state for page in given if page.next_state and page.index + 1 in pages}
    asked = {at: _asked_state(settings, at) for at in pages}
    return StoryRequest(
        [*opening, *map(GivenPage, script)],
        settings.pages,
        settings.seed,
        state_pages=pages,
        states=asked | stored,
        fixed_states=pages if settings.captions is not None else tuple(stored),
        state_in_opening=settings.image_name is None,
    )


def state_pages(settings: StorySettings, trained: bool) -> tuple[int, ...]:
    """Indices of the pages before which a story state stands: the second one, and the first one of each later chapter.

    A story that follows a script needs no plan; it has a state where a cast is given.

    Raises:
        RequestError: A cast or a plan is given to a model that was not trained for them.
    """
    given = bool(settings.cast or settings.plan)
    if not trained and (given or settings.story_state):
        raise RequestError("this model was not trained to follow a cast or a plan: leave them out, or take another one")
    wanted = trained if settings.story_state is None else settings.story_state
    if settings.captions is not None:
        wanted = settings.cast is not None
    labels = countdown(settings.pages)
    starts = [page for page in range(1, settings.pages) if page == 1 or labels[page] >= labels[page - 1]]
    return tuple(starts) if wanted else ()


def _asked_state(settings: StorySettings, page: int) -> StoryState:
    """What the user asks of the state before a page."""
    lines = tuple(settings.plan or ())[page - 1 :][: countdown(settings.pages)[page]]
    return StoryState(tuple((settings.cast or {}).items()), lines)
