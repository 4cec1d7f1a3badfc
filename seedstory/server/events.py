"""What happens to a story, for those who watch: numbered events, of which the last ones can be read again."""

from __future__ import annotations

import json
import secrets
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_EVENTS = 1000  # that are kept of a story


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


class EventLog:
    """The events of a story. Watchers read it at their own pace, so that a slow one costs no memory.

    Attributes:
        name: Of this log; another one begins when the server starts anew.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._last = 0
        self._first_kept = 1  # nothing from this number on is missing but what later events say, too
        self._wakers: set[Callable[[], None]] = set()

    @property
    def last(self) -> int:
        """Number of the last event."""
        return self._last

    def add(self, kind: str, values: dict[str, Any], *, topic: str | None = None) -> None:
        """Appends an event, and wakes the watchers."""
        with self._lock:
            self._last += 1
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

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Has a function called after every event; returns what ends that."""
        with self._lock:
            self._wakers.add(wake)

        def end() -> None:
            with self._lock:
                self._wakers.discard(wake)

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
