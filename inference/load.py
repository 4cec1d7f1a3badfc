"""How a server bears many clients: stories made by several clients at a time, beside one client alone.

    python -m inference.load --clients 8 --minutes 10 --json runs/load.json

It starts `seedstory serve` on a free port with an empty library, lets one client make stories alone, and then several
at a time. Each client begins a story, watches its events to the end, removes it and begins the next one. The report
has pages and stories a minute, the time to the first word and to the first image that the model has made, what went
wrong (a 429 is no error: the client waits as it is told), and the memory of the server.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

OPENING = "One sunny morning in the meadow, there was a curious fox named Mia in a red coat and a straw hat."
_SAMPLE = 1.0  # seconds between two looks at the memory


@dataclass
class Load:
    """What clients have seen.

    Attributes:
        seconds: It took.
        pages: That were made.
        stories: That were made to their end.
        first_words: Seconds from a request to the first word of page 2, of each story.
        first_images: Seconds from a request to the image of page 2.
        errors: By kind; "429" are refusals.
    """

    seconds: float = 0.0
    pages: int = 0
    stories: int = 0
    first_words: list[float] = field(default_factory=list)
    first_images: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """The figures of a report."""
        minutes = max(self.seconds, 1e-9) / 60
        return {
            "seconds": round(self.seconds, 1),
            "pages_per_minute": round(self.pages / minutes, 2),
            "stories_per_minute": round(self.stories / minutes, 2),
            "first_word_seconds": _spread(self.first_words),
            "first_image_seconds": _spread(self.first_images),
            "refused": self.errors["429"],
            "errors": {kind: count for kind, count in self.errors.items() if kind != "429"},
        }


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    high = quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    return {"median": round(median(values), 2), "p95": round(high, 2)}


class _Client:
    """Makes stories one after the other until it is time to stop."""

    def __init__(self, address: str, pages: int, load: Load, lock: threading.Lock) -> None:
        import httpx

        self.http = httpx.Client(base_url=address, timeout=600)
        self.pages, self.load, self.lock = pages, load, lock

    def run(self, until: float, seed: int) -> None:
        while time.monotonic() < until:
            seed += 1000
            try:
                self._story(seed, until)
            except Exception as error:  # noqa: BLE001 - every kind is counted
                with self.lock:
                    self.load.errors[type(error).__name__] += 1
                time.sleep(0.5)
        self.http.close()

    def _story(self, seed: int, until: float) -> None:
        begun = time.monotonic()
        answer = self.http.post("/api/stories", json={"text": OPENING, "pages": self.pages, "seed": seed})
        if answer.status_code != 201:
            with self.lock:
                self.load.errors[str(answer.status_code)] += 1
            time.sleep(min(float(answer.headers.get("retry-after", 1)), max(0.0, until - time.monotonic())))
            return
        story_id, kind, seen = answer.json()["id"], "", False
        with self.http.stream("GET", f"/api/stories/{story_id}/events") as events:
            for line in events.iter_lines():
                name, _, value = line.partition(": ")
                kind = value if name == "event" else kind
                if name != "data" or time.monotonic() > until:
                    if time.monotonic() > until:
                        break
                    continue
                values = json.loads(value)
                if kind == "state" and values["state"] in ("done", "failed"):
                    with self.lock:
                        self.load.stories += values["state"] == "done"
                        self.load.errors["failed"] += values["state"] == "failed"
                    break
                with self.lock:
                    self.load.pages += kind == "page"
                    if kind == "text" and values["number"] == 2 and not seen:
                        seen = True
                        self.load.first_words.append(time.monotonic() - begun)
                    if kind == "page" and values["number"] == 2:
                        self.load.first_images.append(time.monotonic() - begun)
        self.http.delete(f"/api/stories/{story_id}").raise_for_status()


def run_clients(address: str, clients: int, seconds: float, pages: int) -> Load:
    """Lets clients make stories for a while.

    Args:
        address: Of the server.
        clients: How many at a time.
        seconds: How long.
        pages: Of each story.
    """
    load, lock = Load(), threading.Lock()
    begun = time.monotonic()
    threads = [
        threading.Thread(target=_Client(address, pages, load, lock).run, args=(begun + seconds, number))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
    load.seconds = time.monotonic() - begun
    counted = Load(load.seconds, load.pages, load.stories, list(load.first_words), list(load.first_images))
    for thread in threads:
        thread.join()
    counted.errors = load.errors
    return counted


class _Memory(threading.Thread):
    """Looks at the memory of a process until told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.samples, self.ended = pid, list[float](), threading.Event()

    def run(self) -> None:
        import psutil

        process = psutil.Process(self.pid)
        while not self.ended.wait(_SAMPLE):
            try:
                self.samples.append(process.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                return

    def summary(self) -> dict[str, float]:
        """MiB: of the second tenth of the time, when all clients are at work, of the last one, and the peak."""
        self.ended.set()
        tenth = max(1, len(self.samples) // 10)
        early, late = self.samples[tenth : 2 * tenth] or self.samples, self.samples[-tenth:]
        return {
            "early_mib": round(median(early), 1),
            "late_mib": round(median(late), 1),
            "peak_mib": round(max(self.samples), 1),
        }


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10.0, help="with all clients")
    parser.add_argument("--alone-minutes", type=float, default=2.0, help="with one client, before")
    parser.add_argument("--pages", type=int, default=6, help="of a story")
    parser.add_argument("--max-stories", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the report here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seedstory-load-") as library:
        command = [sys.executable, "-m", "seedstory.cli", "serve", "--library", library, "--port", "0"]
        command += ["--model", options.model, "--max-stories", str(options.max_stories), "--device", options.device]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
            assert server.stdout is not None
            try:
                address = server.stdout.readline().rpartition(" ")[2].strip()
                if not address.startswith("http"):
                    raise SystemExit("the server did not start")
                run_clients(address, 1, 1.0, 2)  # what is compiled or read at first use is not measured
                alone = run_clients(address, 1, options.alone_minutes * 60, options.pages)
                memory = _Memory(server.pid)
                memory.start()
                crowd = run_clients(address, options.clients, options.minutes * 60, options.pages)
                report = {
                    "clients": options.clients,
                    "pages_per_story": options.pages,
                    "alone": alone.summary(),
                    "crowd": crowd.summary(),
                    "memory": memory.summary(),
                }
                gain = report["crowd"]["pages_per_minute"] / max(report["alone"]["pages_per_minute"], 1e-9)
                report["gain"] = round(gain, 2)
            finally:
                server.terminate()
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
