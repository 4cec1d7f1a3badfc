"""Figures of a server, in the text form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

from seedstory.server.service import Service

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(service: Service, seconds: float) -> str:
    """All figures: a line each, with their meaning before them.

    Args:
        service: The server.
        seconds: Until answers began, of all requests.
    """
    jobs, counts = service.jobs, service.counts
    requests = [(name.split(" "), count) for name, count in sorted(counts.items()) if " " in name]
    parts = [
        _figure(
            "seedstory_requests_total",
            "counter",
            "Requests by method and status.",
            [(f'{{method="{method}",status="{status}"}}', count) for (method, status), count in requests],
        ),
        _figure(
            "seedstory_request_seconds_total",
            "counter",
            "Seconds until answers began.",
            [("", round(seconds, 3))],
        ),
        _figure("seedstory_event_streams", "gauge", "Event streams that are open.", [("", service.streams)]),
        _figure(
            "seedstory_stories",
            "gauge",
            "Stories by state, of those that were asked about.",
            [(f'{{state="{state}"}}', count) for state, count in sorted(jobs.states().items())],
        ),
    ]
    for name, meaning in (
        ("created", "Stories begun."),
        ("done", "Stories made to their end."),
        ("failed", "Stories that failed."),
        ("refused", "Requests refused because too many stories were under way."),
        ("pages", "Pages made."),
        ("tokens", "Tokens of captions written."),
    ):
        parts.append(_figure(f"seedstory_{name}_total", "counter", meaning, [("", jobs.counts[name])]))
    return "".join(parts)


def _figure(name: str, kind: str, meaning: str, values: Iterable[tuple[str, float]]) -> str:
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{labels} {value}" for labels, value in values]
    return "\n".join(lines) + "\n"
