"""Changing a story on disk: its words, its pages and their order.

Each change is one atomic step on `story.json`, which `undo` takes back. Pages that a change is not about keep their
bytes. A page that has to be made anew is marked so (`Page.pending`) and keeps its old words and picture until
`StoryPipeline.resume` has made the new ones; so a change is quick, needs no model, and survives being killed.

    editor = StoryEditor("stories/lantern")
    editor.edit(2, caption="Mia met a frog in a green vest.")
    editor.insert(3)
    for page in pipeline.resume("stories/lantern"):
        print(page.number, page.caption)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedstory.errors import RequestError, StoryFolderError
from seedstory.io import exclusive_writer
from seedstory.page_facts import change_facts
from seedstory.settings import MAX_PAGES, PAGE_SETTINGS, StorySettings, check_int, check_text
from seedstory.story_folder import StoryFolder, check_target
from seedstory.story_record import PageEntry, Pending
from seedstory.story_state import StoryState

KEEP, REDRAW, REWRITE = FOLLOWING = ("keep", "redraw", "rewrite")


class StoryEditor:
    """Changes the story in a folder. Pages are named by their index, from 0; the opening is page 0.

    Args:
        folder: The story folder.

    Raises:
        StoryFolderError: It holds no story, or a broken one.
    """

    def __init__(self, folder: str | Path | StoryFolder) -> None:
        self.folder = folder if isinstance(folder, StoryFolder) else StoryFolder.open(folder)

    # -------------------------------------------------------------------------------------------------- single pages

    def edit(self, page: int, caption: str, *, redraw: bool = True, following: str = KEEP) -> None:
        """Gives a page other words.

        Args:
            page: Index of the page.
            caption: Its new words.
            redraw: Whether its picture is drawn anew from them. The opening keeps a picture that was given.
            following: What becomes of the pages after it: "keep" them, "redraw" them from their words, or "rewrite"
                words and pictures. Locked pages stay in any case.

        Raises:
            RequestError: There is no such page, it is locked, or the words cannot be a caption.
            StoryFolderError: Another process writes in the folder.
        """
        words = check_text(caption, f"the caption of page {page + 1}")

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            entry = pages[page]
            if entry.is_empty or (redraw and not self._has_given_image(page)):
                pages[page] = replace(entry, pending=replace(_making(entry), caption=words))
            else:
                pages[page] = replace(entry, caption=words, caption_given=True, alt="", prompt="")
            self._follow(pages, page, following, None)

        self._change(change, page, text=words if page == 0 else None)

    def redo(
        self,
        page: int,
        *,
        caption: str | None = None,
        keep_caption: bool = False,
        seed: int | None = None,
        following: str = KEEP,
        **settings: Any,
    ) -> None:
        """Has a page made anew.

        Args:
            page: Index of the page.
            caption: Its new words; None lets the model write them, except those of the opening.
            keep_caption: Keep its words and make a new picture.
            seed: Story seed of the page; None takes one that was not used yet, the same for the same story.
            following: As in `edit`.
            **settings: Settings for this page alone, some of `seedstory.settings.PAGE_SETTINGS`.

        Raises:
            RequestError: As `edit`; or the page is a picture that was given, or a setting is out of range or does not
                agree with those of the story.
            StoryFolderError: Another process writes in the folder.
        """
        if caption is not None and keep_caption:
            raise RequestError("a new caption is given, and the old one shall stay: choose one of the two")
        words = None if caption is None else check_text(caption, f"the caption of page {page + 1}")
        own = _page_settings(settings)
        _check_seed(seed)

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            if self._has_given_image(page):
                raise RequestError(f"the picture of page {page + 1} was given: its words can be edited")
            replace(self.folder.settings, **own)  # which says if the two do not agree
            entry = pages[page]
            kept = words if words is not None else entry.caption if keep_caption or page == 0 else None
            base = self._new_seed() if seed is None else seed
            pages[page] = replace(entry, pending=Pending(caption=kept, story_seed=base, settings=own))
            self._follow(pages, page, following, base)

        self._change(change, page, text=words if page == 0 else None)

    def insert(self, page: int, *, caption: str | None = None, seed: int | None = None, **settings: Any) -> int:
        """Makes room for a new page before another one, or at the end. No other page changes.

        Args:
            page: Index that the new page will have, from 1; the number of pages puts it at the end.
            caption: Its words; None lets the model write them.
            seed: As in `redo`.
            **settings: As in `redo`.

        Returns:
            The id of the new page.

        Raises:
            RequestError, StoryFolderError: As `redo`; or the story would be too long.
        """
        words = None if caption is None else check_text(caption, "the caption of the new page")
        own = _page_settings(settings)
        _check_seed(seed)

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            if not 1 <= page <= len(pages):
                raise RequestError(f"a page can be inserted as page 2 to {len(pages) + 1}, not {page + 1}")
            replace(self.folder.settings, **own)
            base = self._new_seed() if seed is None else seed
            pages.insert(page, _place(self._new_id(pages), Pending(caption=words, story_seed=base, settings=own)))
            plan.insert(page - 1, "")

        self._change(change)
        return self.folder.entries[page].id

    def remove(self, page: int) -> None:
        """Removes a page. No other page changes.

        Raises:
            RequestError: There is no such page, it is locked, or it is the opening.
            StoryFolderError: Another process writes in the folder.
        """

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            if page == 0:
                raise RequestError("page 1 opens the story and cannot be removed: edit it instead")
            del pages[page], plan[page - 1]

        self._change(change, page)

    def move(self, page: int, to: int) -> None:
        """Moves a page to another place. No page changes.

        Args:
            page: Index of the page.
            to: The index that it will have.

        Raises:
            RequestError: There is no such place, or one of the two is the opening's.
            StoryFolderError: Another process writes in the folder.
        """

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            if page == 0 or not 1 <= to < len(pages):
                raise RequestError(f"pages 2 to {len(pages)} can change places: page 1 opens the story")
            pages.insert(to, pages.pop(page))
            plan.insert(to - 1, plan.pop(page - 1))

        self._change(change, page, locked=True)

    def lock(self, page: int, locked: bool = True) -> None:
        """Keeps a page from being made anew or removed, or allows it again.

        Raises:
            RequestError: There is no such page.
            StoryFolderError: Another process writes in the folder.
        """

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            pages[page] = replace(pages[page], locked=locked)

        self._change(change, page, locked=True)

    def describe(self, page: int, alt: str) -> None:
        """Sets the description of a page's picture for those who cannot see it.

        Raises:
            RequestError, StoryFolderError: As `edit`.
        """
        words = check_text(alt, "the description")

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            pages[page] = replace(pages[page], alt=words)

        self._change(change, page, locked=True)

    def set_facts(self, page: int, facts: Mapping[str, str]) -> None:
        """Sets facts of a page: notes such as {"place": "the meadow", "who": "Mia, Tom"}. The model does not read them.

        Args:
            page: Index of the page.
            facts: Those to change; an empty text takes one away, and the others stay.

        Raises:
            RequestError: There is no such page, or they are not well formed.
            StoryFolderError: Another process writes in the folder.
        """

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            pages[page] = replace(pages[page], facts=change_facts(pages[page].facts, facts))

        self._change(change, page, locked=True)

    # --------------------------------------------------------------------------------------------------- whole story

    def extend(self, pages: int, *, seed: int | None = None) -> None:
        """Lets a story go on to so many pages in all.

        Args:
            pages: Pages in all, more than there are.
            seed: Story seed of the new pages; None is that of the story.

        Raises:
            RequestError: It is not more, or too many.
            StoryFolderError: Another process writes in the folder.
        """
        check_int("pages", pages, 1, MAX_PAGES)
        _check_seed(seed)
        total = pages

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            if total <= len(pages):
                raise RequestError(f"the story has {len(pages)} pages: it can go on to more, not to {total}")
            self._append(pages, total, seed)

        self._change(change)

    def rewrite_after(self, page: int, *, seed: int | None = None, pages: int | None = None) -> None:
        """Has the story go on anew after a page.

        Args:
            page: Index of the last page that stays.
            seed: As in `redo`.
            pages: Pages in all; None is as many as before.

        Raises:
            RequestError, StoryFolderError: As `extend`.
        """
        total = self.folder.settings.pages if pages is None else pages
        check_int("pages", total, page + 1, MAX_PAGES)
        _check_seed(seed)

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            base = self._new_seed() if seed is None else seed
            for index in range(total, len(pages)):
                _refuse_locked(pages[index], index)
            del pages[total:]
            self._follow(pages, page, REWRITE, base)
            self._append(pages, total, base)

        self._change(change, page, locked=True)

    def set_state(
        self,
        page: int,
        *,
        cast: Mapping[str, str] | None = None,
        plan: Sequence[str] | None = None,
        following: str = KEEP,
    ) -> None:
        """Changes the cast and the plan that stand before a page.

        Args:
            page: Index of the page before which a story state stands: 1, or the first of a later chapter.
            cast: The new cast, name and look of each; None leaves it.
            plan: The new plan, a line a page; None leaves it.
            following: What becomes of that page and those after it, as in `edit`.

        Raises:
            RequestError: No story state stands there, or it is not well formed.
            StoryFolderError: Another process writes in the folder.
        """
        new_plan = None if plan is None else tuple(plan)

        def change(pages: list[PageEntry], plan: list[str]) -> None:
            before = pages[page - 1] if 0 < page < len(pages) else None
            if before is None or before.next_state is None:
                raise RequestError(f"no cast and no plan stand before page {page + 1}")
            left = len(pages) - page
            if new_plan is not None and len(new_plan) > left:
                raise RequestError(
                    f"the plan has {len(new_plan)} lines, but {left} pages stand from page {page + 1} on"
                )
            old = before.next_state
            state = StoryState(
                old.cast if cast is None else tuple(cast.items()), old.plan if new_plan is None else new_plan
            )
            pages[page - 1] = replace(before, next_state=state)
            self._follow(pages, page - 1, following, None)

        self._change(change)

    def rename(self, title: str) -> None:
        """Gives the story another title.

        Raises:
            RequestError: It is empty or too long.
            StoryFolderError: Another process writes in the folder.
        """
        words = check_text(title, "the title")
        with exclusive_writer(self.folder.path):
            self.folder.refresh()
            self.folder.revise(title=words)

    def undo(self, *, forward: bool = False) -> None:
        """Takes the last change back; with `forward` makes it again.

        Pages that were made after the change go with it, and come back with it.

        Raises:
            StoryFolderError: There is none, or another process writes in the folder.
        """
        with exclusive_writer(self.folder.path):
            self.folder.refresh()
            self.folder.undo(forward=forward)

    def branch(self, target: str | Path, *, pages: int | None = None, seed: int | None = None) -> StoryFolder:
        """Copies the story to a new folder, in which it can go another way. It has no history there.

        Args:
            target: The new folder.
            pages: How many of its first pages are copied; None for all.
            seed: The story's seed in the copy, which pages that are still to be made come from; None takes another one
                where pages are left out, and otherwise the same.

        Raises:
            RequestError: There are not so many pages.
            StoryFolderError: The folder is not free, or cannot be written.
        """
        source = StoryFolder.open(self.folder.path)
        count = len(source) if pages is None else pages
        check_int("pages", count, 1, max(1, len(source)))
        if not len(source):
            raise StoryFolderError(f"{source.path} has no page yet: nothing to copy", source.path)
        check_target(target)
        own = source.settings.seed
        new = seed if seed is not None else own if count == len(source) else own + 1
        copied = source.entries[:count]
        if new != own:
            copied = [_with_seed(entry, own) for entry in copied]
        settings = replace(source.settings, seed=new)
        return self._copy(source, target, copied, settings)

    def repeat(self, target: str | Path) -> StoryFolder:
        """Begins the story once more in a new folder, to be made again by the same weights, seeds and settings.

        Its pages come out as the same bytes where each was made after the ones before it, in a story of as many pages.
        A picture that opened the story is copied.

        Args:
            target: The new folder.

        Raises:
            StoryFolderError: The story has no page, or the folder is not free or cannot be written.
        """
        source = StoryFolder.open(self.folder.path)
        if not source.entries:
            raise StoryFolderError(f"{source.path} has no page yet: nothing to repeat", source.path)
        first = source.entries[0]
        opening = [first] if source.settings.image_name is not None else []
        if source.revision:
            entries = opening + [_once_more(entry, index) for index, entry in enumerate(source.entries)][len(opening) :]
        else:
            entries = opening
        return self._copy(source, target, entries, source.settings)

    # ---------------------------------------------------------------------------------------------------- the inside

    def _change(
        self,
        change: Callable[[list[PageEntry], list[str]], None],
        page: int | None = None,
        *,
        locked: bool = False,
        text: str | None = None,
    ) -> None:
        """Makes a change of the pages.

        Args:
            change: Changes a list of the pages, places of missing ones included, and the plan's lines for them.
            page: A page that has to be there.
            locked: Whether that page may be locked.
            text: The new opening text.
        """
        folder = self.folder
        with exclusive_writer(folder.path):
            folder.refresh()
            if not folder.entries:
                raise StoryFolderError(f"{folder.path} has no page yet: go on with the story first", folder.path)
            pages, settings = self._with_missing(), folder.settings
            if page is not None:
                if not 0 <= page < len(pages):
                    raise RequestError(f"the story has pages 1 to {len(pages)}, not {page + 1}")
                if not locked:
                    _refuse_locked(pages[page], page)
            plan = list(settings.plan or [""] * (len(pages) - 1))
            change(pages, plan)
            if len(pages) > MAX_PAGES:
                raise RequestError(f"a story has at most {MAX_PAGES:,} pages")
            plan = (plan + [""] * len(pages))[: len(pages) - 1]
            changed = replace(
                settings,
                text=settings.text if text is None else text,
                pages=len(pages),
                plan=plan if settings.plan else None,
                captions=None,  # they are in the pages now, and so are the facts
                facts=None,
                story_state=settings.story_state if settings.captions is None else settings.cast is not None,
            )
            folder.revise(entries=pages, settings=changed)

    def _with_missing(self) -> list[PageEntry]:
        """The pages, and places for those that are not begun."""
        folder, entries = self.folder, list(self.folder.entries)
        if folder.settings.captions is not None:
            entries[1:] = [replace(entry, caption_given=True) for entry in entries[1:]]
        new_id = folder.next_id()
        for index in range(len(entries), folder.settings.pages):
            captions = folder.settings.captions
            words = captions[index - 1] if captions is not None else None
            entries.append(replace(_place(new_id, Pending(caption=words)), facts=folder.settings.facts_of(index)))
            new_id += 1
        return entries

    @staticmethod
    def _copy(
        source: StoryFolder, target: str | Path, entries: list[PageEntry], settings: StorySettings
    ) -> StoryFolder:
        """Copies pages of a story to a new folder."""
        path = Path(target)
        check_target(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoryFolderError(f"cannot write to {path}: {error.strerror}; choose another folder", path) from error
        try:
            with exclusive_writer(path):
                return StoryFolder.create(
                    path,
                    title=source.title,
                    settings=settings,
                    model=source.model,
                    versions=source.versions,
                    language=source.language,
                    source=source,
                    entries=entries,
                )
        except BaseException:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
            raise

    def _append(self, pages: list[PageEntry], total: int, seed: int | None) -> None:
        """Adds places for new pages at the end."""
        new_id = self._new_id(pages)
        pages += [_place(new_id + i, Pending(story_seed=seed)) for i in range(total - len(pages))]

    def _new_id(self, pages: list[PageEntry]) -> int:
        """An id that neither these pages nor the story's have or had."""
        return max([self.folder.next_id(), *(entry.id + 1 for entry in pages)])

    def _follow(self, pages: list[PageEntry], page: int, following: str, seed: int | None) -> None:
        """Marks the pages after one that are to be made anew."""
        if following not in FOLLOWING:
            raise RequestError(f"following pages can be {', '.join(FOLLOWING)}, not {following!r:.40}")
        if following == KEEP:
            return
        for index in range(page + 1, len(pages)):
            entry = pages[index]
            if entry.locked:
                continue
            if following == REWRITE:
                pages[index] = replace(entry, pending=Pending(story_seed=seed, settings=entry.settings))
            elif entry.pending is None:
                pages[index] = replace(entry, pending=replace(_making(entry), caption=entry.caption))

    def _new_seed(self) -> int:
        """A story seed that no page was made with."""
        return (self.folder.settings.seed + self.folder.revision + 1) % 2**63

    def _has_given_image(self, page: int) -> bool:
        return page == 0 and self.folder.settings.image_name is not None


def _making(entry: PageEntry) -> Pending:
    """How a page is to be made; or how it was made, without its words."""
    return entry.pending or Pending(story_seed=entry.story_seed, settings=entry.settings)


def _place(page_id: int, pending: Pending) -> PageEntry:
    """The place of a page that is still to be made."""
    return PageEntry(id=page_id, caption="", pending=pending)


def _once_more(entry: PageEntry, index: int) -> PageEntry:
    """The place of a page that is to be made as it was made."""
    given = entry.caption if entry.caption_given or index == 0 else None
    pending = entry.pending or replace(_making(entry), caption=given)
    place = replace(_place(entry.id, pending), next_state=entry.next_state, locked=entry.locked, facts=entry.facts)
    return replace(place, state="opening") if index == 0 else place


def _with_seed(entry: PageEntry, seed: int) -> PageEntry:
    """A page of a story that had another seed."""
    pending = entry.pending
    if pending is not None and pending.story_seed is None and not entry.is_empty:
        pending = replace(pending, story_seed=seed)
    return replace(entry, story_seed=seed if entry.story_seed is None else entry.story_seed, pending=pending)


def _check_seed(seed: int | None) -> None:
    if seed is not None:
        check_int("seed", seed, 0, 2**63 - 1)


def _page_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a single page, checked."""
    unknown = set(settings) - set(PAGE_SETTINGS)
    if unknown:
        raise RequestError(
            f"a page has no setting {', '.join(sorted(unknown))}: choose among {', '.join(PAGE_SETTINGS)}"
        )
    checked = StorySettings(text="any", **settings)
    return {name: getattr(checked, name) for name in settings}


def _refuse_locked(entry: PageEntry, index: int) -> None:
    if entry.locked:
        raise RequestError(f"page {index + 1} is locked: unlock it first")
