"""What happens to a story, for those who watch: numbered events, of which the last ones can be read again."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_EVENTS = 1000  # that are kept of a story
PREVIEW_EVERY = 0.05  # seconds between two previews of a page: more often no watcher is told anything


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        number: From 1, in order.
        kind: "story", "text", "written", "step", "page", "state" or "removed"; see the guide.
        values: What it says, as JSON.
        topic: A later event of the same topic says all that this one says.
    """

    number: int
    kind: str
    values: dict[str, Any]
    topic: str | None = None


@dataclass(frozen=True)
class Preview:
    """A draft of the image that a page is getting.

    Attributes:
        number: Of the event with which it came.
        image: As a data URL.
        seconds: When it came, on a clock of this process.
    """

    number: int
    image: str
    seconds: float


class EventLog:
    """The events of a story. Watchers read it at their own pace, so that a slow one costs no memory.

    Previews are no part of the events: the newest one of each topic is kept, until its page is made.

    Attributes:
        name: Of this log; another one begins when the server starts anew.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._last = 0
        self._first_kept = 1  # nothing from this number on is missing but what later events say, too
        self._wakers: dict[Callable[[], None], bool] = {}  # and whether they want previews
        self._previews: dict[str, Preview] = {}

    @property
    def last(self) -> int:
        """Number of the last event."""
        return self._last

    def add(self, kind: str, values: dict[str, Any], *, topic: str | None = None, preview: str | None = None) -> None:
        """Appends an event, and wakes the watchers.

        Args:
            kind, values, topic: As of `Event`.
            preview: A draft of an image, as a data URL, which goes with the topic.
        """
        with self._lock:
            self._last += 1
            if topic is None:
                self._previews.clear()
            elif preview is not None:
                self._previews[topic] = Preview(self._last, preview, time.monotonic())
            if topic is not None and self._events and self._events[-1].topic == topic:
                self._events.pop()
            self._events.append(Event(self._last, kind, values, topic))
            while len(self._events) > MAX_EVENTS:
                self._first_kept = self._events.popleft().number + 1
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    def after(self, number: int) -> list[Event] | None:
        """The events after one; None if some are no longer known."""
        with self._lock:
            if not self._first_kept - 1 <= number <= self._last:
                return None
            return [event for event in self._events if event.number > number]

    def wants_preview(self, topic: str) -> bool:
        """Whether somebody watches who is due for another preview of a topic."""
        with self._lock:
            newest = self._previews.get(topic)
            due = newest is None or time.monotonic() - newest.seconds >= PREVIEW_EVERY
            return due and any(self._wakers.values())

    def preview_of(self, event: Event, after: int) -> str | None:
        """The newest preview of an event's topic, if it came after the event of a number."""
        with self._lock:
            newest = self._previews.get(event.topic or "")
            return newest.image if newest is not None and newest.number > after else None

    def watch(self, wake: Callable[[], None], *, previews: bool = False) -> Callable[[], None]:
        """Has a function called after every event; returns what ends that.

        Args:
            wake: The function.
            previews: Whether previews are to be made for it.
        """
        with self._lock:
            self._wakers[wake] = previews

        def end() -> None:
            with self._lock:
                self._wakers.pop(wake, None)

        return end

    def wake_all(self) -> None:
        """Wakes the watchers without an event."""
        with self._lock:
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    def position(self, event_id: str | None) -> int | None:
        """The number in an id of `sse`; None if it is none of this log."""
        name, _, number = (event_id or "").partition("-")
        return int(number) if name == self.name and number.isascii() and number.isdigit() and len(number) < 16 else None

    def sse(self, number: int, kind: str, values: dict[str, Any]) -> bytes:
        """An event as a server sends it (text/event-stream)."""
        data = json.dumps(values, ensure_ascii=False)
        return f"id: {self.name}-{number}\nevent: {kind}\ndata: {data}\n\n".encode()
