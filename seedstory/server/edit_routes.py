"""Routes that change a story. Each is one step that `undo` takes back, and then makes the pages that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from seedstory.errors import RequestError
from seedstory.server.bodies import (
    BranchBody,
    ContinueBody,
    DescribeBody,
    EditBody,
    FactsBody,
    InsertBody,
    LockBody,
    MoveBody,
    RedoBody,
    StateBody,
    UndoBody,
)
from seedstory.server.service import Service, errors_of
from seedstory.server.story_routes import PageId, StoryId, index_of, view_of
from seedstory.story_editor import StoryEditor

Change = Callable[[StoryEditor, int], Any]
_ERRORS = errors_of(404, 409, 422, 429)


def make_edit_router(service: Service) -> APIRouter:
    """The routes that change a story."""
    router = APIRouter(prefix="/api/stories/{story_id}", tags=["changes"])

    def change(story_id: str, page_id: int, one: Change, *, later: bool = False) -> dict[str, Any]:
        service.jobs.change(story_id, lambda folder: one(StoryEditor(folder), index_of(folder, page_id)), later=later)
        return view_of(service, story_id)

    @router.post("/pages/{page_id}/redo", responses=_ERRORS)
    def redo_page(story_id: StoryId, page_id: PageId, body: RedoBody) -> dict[str, Any]:
        """Makes a page anew."""
        given = body.model_dump(exclude={"settings", "later"})
        return change(
            story_id,
            page_id,
            lambda editor, page: editor.redo(page, **given, **_own(service, body.settings)),
            later=body.later,
        )

    @router.post("/pages/{page_id}/edit", responses=_ERRORS)
    def edit_page(story_id: StoryId, page_id: PageId, body: EditBody) -> dict[str, Any]:
        """Gives a page other words."""
        given = body.model_dump(exclude={"later"})
        return change(story_id, page_id, lambda editor, page: editor.edit(page, **given), later=body.later)

    @router.post("/pages/{page_id}/insert", responses=_ERRORS)
    def insert_page(story_id: StoryId, page_id: PageId, body: InsertBody) -> dict[str, Any]:
        """Puts a new page after this one."""

        def insert(editor: StoryEditor, page: int) -> int:
            service.check_pages(max(len(editor.folder), editor.folder.settings.pages) + 1)
            return editor.insert(page + 1, caption=body.caption, seed=body.seed, **_own(service, body.settings))

        return change(story_id, page_id, insert, later=body.later)

    @router.post("/pages/{page_id}/move", responses=_ERRORS)
    def move_page(story_id: StoryId, page_id: PageId, body: MoveBody) -> dict[str, Any]:
        """Moves a page to another place."""
        return change(story_id, page_id, lambda editor, page: editor.move(page, body.to - 1), later=True)

    @router.post("/pages/{page_id}/lock", responses=_ERRORS)
    def lock_page(story_id: StoryId, page_id: PageId, body: LockBody) -> dict[str, Any]:
        """Keeps a page as it is whatever else is changed, or lets it go."""
        return change(story_id, page_id, lambda editor, page: editor.lock(page, body.locked), later=True)

    @router.post("/pages/{page_id}/describe", responses=_ERRORS)
    def describe_page(story_id: StoryId, page_id: PageId, body: DescribeBody) -> dict[str, Any]:
        """Describes a page's image for those who cannot see it."""
        return change(story_id, page_id, lambda editor, page: editor.describe(page, body.alt), later=True)

    @router.post("/pages/{page_id}/facts", responses=_ERRORS)
    def set_facts(story_id: StoryId, page_id: PageId, body: FactsBody) -> dict[str, Any]:
        """Notes on a page: who is there, where, when; alternative texts of images say them, the model reads none."""
        return change(story_id, page_id, lambda editor, page: editor.set_facts(page, body.facts), later=True)

    @router.post("/pages/{page_id}/remove", responses=_ERRORS)
    def remove_page(story_id: StoryId, page_id: PageId) -> dict[str, Any]:
        """Takes a page out."""
        return change(story_id, page_id, lambda editor, page: editor.remove(page), later=True)

    @router.post("/pages/{page_id}/state", responses=_ERRORS)
    def set_state(story_id: StoryId, page_id: PageId, body: StateBody) -> dict[str, Any]:
        """Changes the cast and the plan that stand before a page."""
        given = body.model_dump(exclude={"later"})
        return change(story_id, page_id, lambda editor, page: editor.set_state(page, **given), later=body.later)

    @router.post("/continue", responses=_ERRORS)
    def continue_story(story_id: StoryId, body: ContinueBody) -> dict[str, Any]:
        """Lets a story go on to more pages, or has it go on anew after a page."""
        service.check_pages(body.pages)

        def extend(editor: StoryEditor) -> None:
            if body.after is not None:
                page = index_of(editor.folder, body.after)
                editor.rewrite_after(page, seed=body.seed, pages=body.pages)
            elif body.pages is not None:
                editor.extend(body.pages, seed=body.seed)
            else:
                raise RequestError("say how many pages there shall be in all, or after which page it goes on anew")

        service.jobs.change(story_id, lambda folder: extend(StoryEditor(folder)), later=body.later)
        return view_of(service, story_id)

    @router.post("/undo", responses=_ERRORS)
    def undo(story_id: StoryId, body: UndoBody) -> dict[str, Any]:
        """Takes the last change back; with `forward` makes it again. Nothing new is made: `resume` does that."""
        service.jobs.change(story_id, lambda folder: StoryEditor(folder).undo(forward=body.forward), later=True)
        return view_of(service, story_id)

    @router.post("/branch", status_code=201, responses=_ERRORS)
    def branch(story_id: StoryId, body: BranchBody) -> dict[str, Any]:
        """Copies a story, or its first pages; the copy is not under way."""
        new = service.library.free_id()
        editor = StoryEditor(service.library.open(story_id))
        editor.branch(service.library.path / new, pages=body.pages, seed=body.seed)
        return view_of(service, new)

    return router


def _own(service: Service, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a page; their names are checked by the editor, but must not be those of other arguments."""
    taken = set(settings) & {"page", "caption", "keep_caption", "seed", "following", "self"}
    if taken:
        raise RequestError(f"a page has no setting {', '.join(sorted(taken))}")
    if isinstance(settings.get("scheduler"), str):
        service.pipeline.detokenizer.objective_with(settings["scheduler"])
    return settings
