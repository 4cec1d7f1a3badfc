"""Stories that are written and drawn side by side, and come and go: what a server needs on top of `StoryPipeline`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedstory.errors import RequestError
from seedstory.pipeline import OnText, StoryPipeline
from seedstory.rendering import Rendering, render_pages
from seedstory.settings import StorySettings
from seedstory.story import Page, StoryFolder
from seedstory.story_request import drafted_page, is_whole, opening_page, story_request
from seedstory.story_writer import resumed

if TYPE_CHECKING:
    from collections.abc import Hashable

    from seedstory.generation import PageDraft, StoryEngine
    from seedstory.generation.sampling import LogitsProcessor


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
        announced: Whether pages that were given whole come out, too: the opening of a new story.
        key: Of its engine.
        number: That the engine has given it.
    """

    settings: StorySettings
    given: list[Page]
    store: Callable[[Page], None]
    closing: ExitStack
    callback_on_text: OnText | None
    draws: bool = True
    announced: bool = False
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
        pipeline: Writes and draws.

    Example:
        >>> with StoryBatch(pipeline) as batch:
        ...     batch.add(text="Mia the fox found a key.", pages=5, out="stories/key")
        ...     while batch:
        ...         for number, page in batch.step():
        ...             print(number, page.number, page.caption)
    """

    def __init__(self, pipeline: StoryPipeline) -> None:
        self.pipeline = pipeline
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
        if request.rendering != Rendering() or request.callback_on_step_end is not None:
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
                request.settings, [opening], store, stack, request.callback_on_text, draws=draws, announced=True
            )
            number = self._join(member, request.logits_processor)
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
            if len(done) == folder.settings.pages and all(
                page.image is not None and is_whole(done, page.index) for page in done
            ):
                self._count += 1
                return self._count - 1
            member = _Member(folder.settings, done, store, stack, callback_on_text)
            number = self._join(member, logits_processor)
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
        group = self._groups[member.key]
        group.drafts = deque(draft for draft in group.drafts if draft.story != member.number)
        if member.number in group.engine.stories:
            group.engine.remove(member.number)
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
            if page.number == self._members[number].settings.pages:
                self._leave(number)
        return pages

    # ------------------------------------------------------------------------------------------------------ the inside

    def _join(self, member: _Member, logits_processor: LogitsProcessor | None) -> int:
        from seedstory.generation import SamplingConfig

        settings = member.settings
        member.key = (SamplingConfig.of(settings), settings.policy, id(logits_processor))
        request = story_request(settings, member.given, self.pipeline.story_model.config.story_state)
        if member.key not in self._groups:
            self._groups = {key: group for key, group in self._groups.items() if group.members}
            self._groups[member.key] = _Group(self.pipeline._engine(settings, logits_processor))
        group = self._groups[member.key]
        member.number = group.engine.add(request)
        number, self._count = self._count, self._count + 1
        group.members[member.number] = number
        self._members[number] = member
        return number

    def _leave(self, number: int) -> None:
        member = self._members.pop(number)
        self._groups[member.key].members.pop(member.number, None)
        member.closing.close()

    def _write(self, group: _Group) -> None:
        """Writes and stores the next page of each story."""
        if not group.drafts and group.members:
            self._write_drafts(group)
        while group.drafts:
            draft = group.drafts[0]
            number = group.members[draft.story]
            member = self._members[number]
            page = drafted_page(member.settings, member.given, draft)
            if page is not None:
                member.store(page)
            group.drafts.popleft()
            page = member.given[draft.index] if page is None else page
            if member.draws and page.image is None:
                self._undrawn.append((number, page))
            elif member.announced or not is_whole(member.given, draft.index):
                self._ready.append((number, page))
            elif page.number == member.settings.pages:
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
            first = self._undrawn[0][0]
            batch = [one for one in self._undrawn if self._how(one[0]) == self._how(first)]
            self.pipeline._activate("detokenizer")
            pages = [page for _, page in batch]
            drawn = render_pages(self.pipeline.detokenizer, self._members[first].settings, pages)
            for one, page in zip(batch, drawn, strict=True):
                self._members[one[0]].store(page)
                self._undrawn.remove(one)
                self._ready.append((one[0], page))

    def _how(self, number: int) -> tuple[int, float]:
        settings = self._members[number].settings
        return settings.num_inference_steps, settings.guidance_scale
