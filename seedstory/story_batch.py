"""Stories that are written and drawn side by side, and come and go: what a server needs on top of `StoryPipeline`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedstory.errors import RequestError
from seedstory.page import settings_of
from seedstory.pipeline import OnText, StoryPipeline
from seedstory.rendering import DrawingOptions, Rendering, drawing_options, render_pages
from seedstory.settings import StorySettings
from seedstory.story import Page, StoryFolder
from seedstory.story_request import drafted_page, opening_page, story_request, writing_runs
from seedstory.story_writer import resumed

if TYPE_CHECKING:
    from collections.abc import Hashable

    from seedstory.generation import PageDraft, StoryEngine
    from seedstory.generation.sampling import LogitsProcessor


OnDraw = Callable[[Sequence[tuple[int, Page]], int, dict[str, Any]], Any]


@dataclass
class _Member:
    """A story of the batch.

    Attributes:
        settings: Of the story.
        given: Its pages when it joined, the opening at least.
        store: Stores a page.
        closing: Ends with the story, and lets its folder go.
        callback_on_text: Called after every token.
        draws: Whether its pages are drawn.
        logits_processor: A control of the user's own over its words.
        runs: Runs of the page loop that are left, see `writing_runs`.
        waiting: Indices of the pages that are still to come out.
        key: Of its engine.
        number: That the engine has given it.
    """

    settings: StorySettings
    given: list[Page]
    store: Callable[[Page], None]
    closing: ExitStack
    callback_on_text: OnText | None
    draws: bool = True
    logits_processor: LogitsProcessor | None = None
    runs: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)
    key: Hashable = None
    number: int = -1


@dataclass
class _Group:
    """Stories whose words are chosen alike, and the drafts of theirs that are not yet stored."""

    engine: StoryEngine
    members: dict[int, int] = field(default_factory=dict)  # number in the engine: number in the batch
    drafts: deque[PageDraft] = field(default_factory=deque)


class StoryBatch:
    """Writes and draws several stories, a page of each at a time; stories may join and leave between pages.

    Words and features are those of the same story alone but for the rounding of the model's type, and so are images
    but for that of a batch (see `seedstory.rendering`). The language model reads its weights once for all stories
    that agree on the settings of their words, on the policy and on the logits processor. Use it in one thread, and as
    a context manager: a folder is locked as long as its story is under way.

    Args:
        pipeline: Writes and draws; not one that reads its networks in phases.
        callback_on_draw: Called as `callback(pages, step, callback_kwargs)` with the stories' numbers and pages that
            are drawn in a batch: before the first diffusion step with step 0, and after each with the tensors that
            `Detokenizer` names, a row for each page. What it raises ends `step`.

    Example:
        >>> with StoryBatch(pipeline) as batch:
        ...     batch.add(text="Mia the fox found a key.", pages=5, out="stories/key")
        ...     while batch:
        ...         for number, page in batch.step():
        ...             print(number, page.number, page.caption)
    """

    def __init__(self, pipeline: StoryPipeline, callback_on_draw: OnDraw | None = None) -> None:
        check_takes_turns(pipeline)
        self.pipeline, self.callback_on_draw = pipeline, callback_on_draw
        self._members: dict[int, _Member] = {}
        self._groups: dict[Hashable, _Group] = {}
        self._undrawn: list[tuple[int, Page]] = []  # written and stored
        self._ready: list[tuple[int, Page]] = []  # whole and stored
        self._count = 0

    def __len__(self) -> int:
        """Stories under way."""
        return len(self._members)

    def __enter__(self) -> StoryBatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, **arguments: Any) -> int:
        """Lets a new story join.

        Args:
            **arguments: Those of `StoryPipeline.stream`, without those of rendering and `callback_on_step_end`: the
                images of a step are drawn together.

        Returns:
            The story's number, which no other one gets.

        Raises:
            SeedStoryError: As `StoryPipeline.stream`.
        """
        request = self.pipeline._request(**arguments)
        if (
            request.rendering != self.pipeline._rendering(**asdict(Rendering()))
            or request.callback_on_step_end is not None
        ):
            raise RequestError(
                "the images of a batch of stories are drawn together: leave out rendering, render_batch, render_queue "
                "and callback_on_step_end"
            )
        with ExitStack() as stack:
            store = stack.enter_context(request.writer(self.pipeline.identity))
            opening = self.pipeline._opening(request)
            if opening.features is not None:
                store(opening)
            draws = request.output_type != "features"
            member = _Member(
                request.settings, [opening], store, stack, request.callback_on_text, draws, request.logits_processor
            )
            number = self._start(member)
            if opening.features is not None:
                member.waiting.add(0)
                self._ready.append((number, opening))
            member.closing = stack.pop_all()
        return number

    def resume(
        self,
        folder: str | Path | StoryFolder,
        *,
        allow_other_model: bool = False,
        callback_on_text: OnText | None = None,
        logits_processor: LogitsProcessor | None = None,
    ) -> int:
        """Lets an unfinished story folder join. One of its stored pages is read at a step, before new ones come.

        Args:
            folder: As in `StoryPipeline.resume`.
            allow_other_model: As there.
            callback_on_text: As there.
            logits_processor: As there.

        Returns:
            The story's number. A story that lacks nothing is not under way.

        Raises:
            SeedStoryError: As `StoryPipeline.resume`.
        """
        folder = self.pipeline._resumable(folder, allow_other_model)
        with ExitStack() as stack:
            store = stack.enter_context(resumed(folder, self.pipeline.identity))
            done = [folder.page(i) for i in range(len(folder))] or [opening_page(folder.settings)]
            undrawn = [page for page in done if page.image is None and page.is_whole]
            if not undrawn and not writing_runs(folder.settings, done):
                self._count += 1
                return self._count - 1
            member = _Member(folder.settings, done, store, stack, callback_on_text, logits_processor=logits_processor)
            number = self._start(member)
            member.waiting |= {page.index for page in undrawn}
            self._undrawn += [(number, page) for page in undrawn]
            member.closing = stack.pop_all()
        return number

    def remove(self, number: int) -> None:
        """Lets a story go before its end. Its folder keeps the pages that it has, and can be resumed if it has any.

        Args:
            number: As `add` or `resume` returned it.

        Raises:
            RequestError: No such story is under way.
        """
        if number not in self._members:
            raise RequestError(f"story {number} is not under way: it has ended, was removed, or was never added")
        member = self._members[number]
        self._quit(member)
        self._undrawn = [one for one in self._undrawn if one[0] != number]
        self._ready = [one for one in self._ready if one[0] != number]
        self._leave(number)

    def close(self) -> None:
        """Lets all stories go; their folders can be resumed."""
        for number in list(self._members):
            self.remove(number)

    def step(self) -> list[tuple[int, Page]]:
        """The next page of every story, drawn in one batch and stored; an empty list if no story is under way.

        A story that is resumed gives none while its stored pages are read. What a step that broke off has written is
        not lost: the next step goes on with it.

        Returns:
            Number of a story and its page.

        Raises:
            SeedStoryError: A page cannot be written or stored.
        """
        while self._members and not self._ready and not self._undrawn:
            for group in list(self._groups.values()):
                self._write(group)
        self._draw()
        pages, self._ready = sorted(self._ready, key=lambda one: one[0]), []
        for number, page in pages:
            self._members[number].waiting.discard(page.index)
        for number in {number for number, _ in pages}:
            if not self._members[number].waiting:
                self._leave(number)
        return pages

    # ------------------------------------------------------------------------------------------------------ the inside

    def _start(self, member: _Member) -> int:
        """Takes a story in; returns its number."""
        member.runs = writing_runs(member.settings, member.given)
        member.waiting = {page.index for page in member.given if not page.is_whole}
        member.waiting |= set(range(len(member.given), member.settings.pages))
        number, self._count = self._count, self._count + 1
        if member.runs:
            self._join(number, member)
        self._members[number] = member
        return number

    def _join(self, number: int, member: _Member) -> None:
        """Lets a story join the engine that writes its next run."""
        from seedstory.generation import SamplingConfig

        own = member.runs[0][1]
        settings = replace(member.settings, **own) if own else member.settings
        member.key = (SamplingConfig.of(settings), settings.policy, settings.reference, id(member.logits_processor))
        request = story_request(member.settings, member.given, self.pipeline.story_model.config.story_state)
        if member.key not in self._groups:
            self._groups = {key: group for key, group in self._groups.items() if group.members}
            self._groups[member.key] = _Group(self.pipeline._engine(settings, member.logits_processor))
        group = self._groups[member.key]
        member.number = group.engine.add(request)
        group.members[member.number] = number

    def _quit(self, member: _Member) -> None:
        """Takes a story out of its engine."""
        group = self._groups.get(member.key)
        if group is None or member.number < 0:
            return
        group.drafts = deque(draft for draft in group.drafts if draft.story != member.number)
        if member.number in group.engine.stories:
            group.engine.remove(member.number)
        group.members.pop(member.number, None)
        member.number = -1

    def _leave(self, number: int) -> None:
        member = self._members.pop(number)
        self._quit(member)
        member.closing.close()

    def _write(self, group: _Group) -> None:
        """Writes and stores the next page of each story."""
        if not group.drafts and group.members:
            self._write_drafts(group)
        while group.drafts:
            draft = group.drafts[0]
            number = group.members[draft.story]
            member = self._members[number]
            page, index = drafted_page(member.settings, member.given, draft), draft.index
            whole = index < len(member.given) and member.given[index].is_whole
            if page is not None:
                member.store(page)
                if index < len(member.given):
                    member.given[index] = page
            group.drafts.popleft()
            if page is not None and not whole:
                if member.draws and page.image is None:
                    self._undrawn.append((number, page))
                else:
                    self._ready.append((number, page))
            if index == member.runs[0][0]:
                self._quit(member)
                del member.runs[0]
                if member.runs:
                    self._join(number, member)

        for story, number in list(group.members.items()):
            if story not in group.engine.stories:
                self._end(number)

    def _end(self, number: int) -> None:
        """Lets a story go that its model has ended early, as soon as its pages are out."""
        member = self._members[number]
        self._quit(member)
        member.runs = []
        member.waiting = {page.index for one, page in [*self._undrawn, *self._ready] if one == number}
        if not member.waiting:
            self._leave(number)

    def _write_drafts(self, group: _Group) -> None:
        def pass_on(story: int, index: int, text: str) -> None:
            member = self._members.get(group.members.get(story, -1))
            if member is not None and member.callback_on_text is not None:
                member.callback_on_text(index, text)

        self.pipeline._activate("story_model")
        listens = any(self._members[number].callback_on_text is not None for number in group.members.values())
        try:
            group.drafts.extend(group.engine.next_pages(pass_on if listens else None))
        except BaseException:
            for story, number in list(group.members.items()):
                if story not in group.engine.stories:  # a page broke off in the middle: its folder can be resumed
                    self._leave(number)
            raise

    def _draw(self) -> None:
        """Draws and stores what is written, in one batch for each way to draw."""
        while self._undrawn:
            first, _ = self._undrawn[0]
            batch = [one for one in self._undrawn if self._how(*one) == self._how(*self._undrawn[0])]
            self.pipeline._activate("detokenizer")
            pages = [page for _, page in batch]
            listen, on_step = self.callback_on_draw, None
            if listen is not None:
                listen(batch, 0, {})
                on_step = partial(_pass_on_step, listen, batch)
            settings = self._members[first].settings
            drawn = render_pages(self.pipeline.detokenizer, settings, pages, callback_on_step_end=on_step)
            for one, page in zip(batch, drawn, strict=True):
                self._members[one[0]].store(page)
                self._undrawn.remove(one)
                self._ready.append((one[0], page))

    def _how(self, number: int, page: Page) -> tuple[DrawingOptions, DrawingOptions]:
        """Pages are drawn in one batch where this is the same: how their stories draw, and how they are drawn."""
        settings = self._members[number].settings
        return drawing_options(settings), drawing_options(settings_of(page, settings))


def check_takes_turns(pipeline: StoryPipeline) -> None:
    """Refuses a pipeline that cannot write and draw in turns.

    Raises:
        RequestError: It reads its networks in phases.
    """
    if pipeline.reads_in_phases:
        raise RequestError(
            "a batch of stories writes and draws in turns, and this pipeline reads its networks from disk when they "
            "work: load it without 'phases'"
        )


def _pass_on_step(
    listen: OnDraw, batch: Sequence[tuple[int, Page]], _: object, step: int, __: float, callback_kwargs: dict[str, Any]
) -> None:
    listen(batch, step + 1, callback_kwargs)
