"""What the engine is to write of a story, from its settings and the pages that are there; and pages from its drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from seedstory.errors import RequestError
from seedstory.layout import countdown
from seedstory.settings import StorySettings
from seedstory.story import Page, page_seed
from seedstory.story_state import StoryState

if TYPE_CHECKING:
    from seedstory.generation import PageDraft, StoryRequest


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


def opening_page(settings: StorySettings) -> Page:
    """The opening of a story of which nothing is written yet."""
    return Page(index=0, caption=settings.text or "", seed=page_seed(settings.seed, 0), state="opening")


def is_whole(given: list[Page], index: int) -> bool:
    """Whether a page was given with its features."""
    return index < len(given) and given[index].features is not None


def drafted_page(settings: StorySettings, given: list[Page], draft: PageDraft) -> Page | None:
    """The page of a draft; None if it was given whole."""
    if draft.index < len(given):
        page = given[draft.index]
        if page.features is not None and page.next_state == draft.next_state:
            return None
        features = draft.features.cpu() if page.features is None else page.features
        return replace(page, features=features, next_state=draft.next_state)
    seed = page_seed(settings.seed, draft.index)
    return Page(
        index=draft.index,
        caption=draft.caption,
        features=draft.features.cpu(),
        seed=seed,
        next_state=draft.next_state,
    )
