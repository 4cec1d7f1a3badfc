"""The making of one story, and why it may be refused."""

from __future__ import annotations

from dataclasses import dataclass, field

from seedstory.errors import SeedStoryError
from seedstory.server.events import EventLog
from seedstory.server.library import JobRecord
from seedstory.settings import StorySettings

RETRY_AFTER = 10  # seconds after which a client that was refused may try again


class ServerFullError(SeedStoryError):
    """As many stories are under way as the server allows."""


class BusyError(SeedStoryError):
    """Somebody else is changing the story."""


@dataclass(eq=False)
class Job:
    """The making of a story.

    Attributes:
        story_id: Of the story.
        record: How far it is, as it is stored.
        number: In the batch, while it is under way.
        is_held: Whether a change keeps it out of the batch.
        failures: Steps that broke since its last page.
        settings: Of the story, once they are needed.
        log: What happens to it.
    """

    story_id: str
    record: JobRecord
    number: int | None = None
    is_held: bool = False
    failures: int = 0
    settings: StorySettings | None = None
    log: EventLog = field(default_factory=EventLog)

    @property
    def is_wanted(self) -> bool:
        """Whether it shall be made."""
        return self.record.state == "waiting"

    @property
    def is_open(self) -> bool:
        """Whether it is being made, or shall be."""
        return self.is_wanted or self.number is not None

    @property
    def state(self) -> str:
        """What clients read: the stored state, or "running". A story that is being changed is not known to be done."""
        if self.is_held and self.record.state == "done":
            return "waiting"
        return "running" if self.is_wanted and self.number is not None else self.record.state
