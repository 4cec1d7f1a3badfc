"""Stories and pages as the JSON that clients read."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedstory.story import UNTITLED, StoryFolder
from seedstory.story_record import PageEntry, cast_and_plan


def image_version(path: Path) -> str | None:
    """Names the content of an image file; None if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return hashlib.sha256(f"{path.name} {found.st_mtime_ns} {found.st_size}".encode()).hexdigest()[:16]


def summary_view(story_id: str, folder: StoryFolder, state: str, error: str) -> dict[str, Any]:
    """A story in the list of the library."""
    cover = next((view["image"] for view in _pages(story_id, folder) if view["image"]), None)
    return {
        "id": story_id,
        "title": folder.title or UNTITLED,
        "language": folder.language,
        "state": state,
        "error": error,
        "revision": folder.revision,
        "pages_total": folder.settings.pages,
        "pages_done": sum(entry.is_drawn for entry in folder.entries),
        "cover": cover,
        "updated": (folder.path / "story.json").stat().st_mtime,
    }


def story_view(story_id: str, folder: StoryFolder, state: str, error: str) -> dict[str, Any]:
    """A whole story."""
    cast, plan = cast_and_plan(folder.entries)
    revisions = folder.history.revisions()
    return summary_view(story_id, folder, state, error) | {
        "settings": asdict(folder.settings),
        "model": {"name": folder.model.name, "fingerprint": folder.model.fingerprint, "dtype": folder.model.dtype},
        "can_undo": folder.revision - 1 in revisions,
        "can_redo": folder.revision + 1 in revisions,
        "cast": cast,
        "plan": [{"number": number, "line": line} for number, line in plan],
        "pages": list(_pages(story_id, folder)),
    }


def page_view(story_id: str, folder: StoryFolder, index: int) -> dict[str, Any]:
    """A page."""
    entry: PageEntry = folder.entries[index]
    version = image_version(folder.path / entry.image_file) if entry.image_file else None
    address = f"/api/stories/{story_id}/pages/{entry.id}/image?v={version}"
    return {
        "id": entry.id,
        "number": index + 1,
        "caption": entry.caption,
        "alt": entry.alt,
        "facts": entry.facts,
        "image": address if version else None,
        "state": entry.state,
        "seed": entry.seed,
        "settings": entry.settings,
        "locked": entry.locked,
        "pending": None if entry.pending is None else {"caption": entry.pending.caption},
        "cast": None if entry.next_state is None else dict(entry.next_state.cast),
        "plan": None if entry.next_state is None else list(entry.next_state.plan),
    }


def _pages(story_id: str, folder: StoryFolder) -> Any:
    return (page_view(story_id, folder, index) for index in range(len(folder)))
