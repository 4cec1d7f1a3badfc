"""What the engine is to write of a story, from its settings and the pages that are there; and pages from its drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seedstory.errors import RequestError
from seedstory.layout import INSTRUCTION, countdown
from seedstory.page import Page, drawing_seed
from seedstory.settings import StorySettings
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
    opening = [
        GivenPage(page.caption, page.features, page.prompt) if page.pending is None else GivenPage(page.pending.caption)
        for page in given
    ]
    own = [(page.index, page.story_seed if page.pending is None else page.pending.story_seed) for page in given]
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
        page_seeds={index: seed for index, seed in own if seed is not None},
    )


def writing_runs(settings: StorySettings, given: Sequence[Page]) -> list[tuple[int, dict[str, Any]]]:
    """In which runs of the page loop the pages of a story are written that are not whole.

    Pages that are to be made with settings of their own need a run of their own.

    Args:
        settings: Of the story.
        given: Its pages so far.

    Returns:
        Index of the last page of each run, and the settings in which the run differs from the story.
    """
    runs: list[tuple[int, dict[str, Any]]] = []
    wanted = [
        (page.index, page.pending.settings if page.pending else page.settings) for page in given if not page.is_whole
    ]
    if len(given) < settings.pages:
        wanted.append((settings.pages - 1, {}))
    for index, own in wanted:
        if runs and runs[-1][1] == own:
            runs.pop()
        runs.append((index, own))
    return runs


def drafted_page(settings: StorySettings, given: Sequence[Page], draft: PageDraft) -> Page | None:
    """The page of a draft; None if it was given whole and nothing of it has changed.

    Args:
        settings: Of the story.
        given: Its pages so far.
        draft: What the page loop wrote.
    """
    if draft.index >= len(given):
        last = max(page.id or page.number for page in given)
        page_id = max(last, len(given)) + 1 + draft.index - len(given)
        seed, facts = drawing_seed(settings, page_id - 1), settings.facts_of(draft.index)
        page = Page(index=draft.index, caption="", id=page_id, seed=seed, facts=facts)
    else:
        page = given[draft.index]
    if page.is_whole:
        return None if page.next_state == draft.next_state else replace(page, next_state=draft.next_state)
    if page.pending is not None:
        story_seed = page.pending.story_seed
        page = replace(
            page,
            image=None,
            pending=None,
            alt="",
            caption_given=page.pending.caption is not None,
            story_seed=story_seed,
            settings=page.pending.settings,
            seed=drawing_seed(
                settings if story_seed is None else replace(settings, seed=story_seed), (page.id or page.number) - 1
            ),
            state="opening" if page.state == "opening" else "written",
        )
    read = INSTRUCTION + draft.caption if draft.index else draft.caption
    prompt = "" if draft.prompt == read else draft.prompt
    features = draft.features.cpu()
    return replace(page, caption=draft.caption, features=features, next_state=draft.next_state, prompt=prompt)


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
    seed, facts = drawing_seed(settings, 0), settings.facts_of(0)
    return Page(index=0, id=1, caption=settings.text or "", seed=seed, state="opening", facts=facts)
