"""Subtitles: SRT, WebVTT and what else pysubs2 reads, as cues in the order of time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pysubs2

from data_tools.importers.run_import import read_text
from seedstory.text import clean_text

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
MAX_SECONDS = 600.0  # of one cue
PAUSE = 0.25  # seconds; rolling captions follow each other without one


@dataclass(frozen=True)
class Cue:
    """A line that is spoken or written from `start` to `end`, in seconds of the film."""

    start: float
    end: float
    text: str


def read_subtitles(path: Path, encoding: str = "utf-8-sig") -> tuple[list[Cue], list[str]]:
    """Reads a subtitle file.

    Cues are put in the order of time. A cue that ends before it starts, or lasts longer than `MAX_SECONDS`, is left
    out. Lines that a cue repeats from the one right before it, as rolling captions do, are said once, and again after
    a pause.

    Args:
        path: The file.
        encoding: How its text is encoded.

    Returns:
        The cues, and one note for each that was left out.

    Raises:
        ValueError: It is too large, wrongly encoded, or in no known format. The message begins with the file's name.
    """
    text = read_text(path, path.name, encoding)
    try:
        events = pysubs2.SSAFile.from_string(text).events if text.strip() else []
    except (pysubs2.exceptions.Pysubs2Error, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise ValueError(f"{path.name} is not read as subtitles ({error or type(error).__name__})") from None
    cues: list[Cue] = []
    notes = []
    before: list[str] = []
    until = 0.0
    for event in sorted(events, key=lambda event: (event.start, event.end)):
        start, end = event.start / 1000, event.end / 1000
        plain = re.sub(r"<[^<>]{0,100}>", "", event.plaintext)  # the times of single words in WebVTT
        lines = [line for part in plain.splitlines() if (line := clean_text(part))]
        if event.is_comment or not lines:
            continue
        if not 0 <= start < end or end - start > MAX_SECONDS:
            notes.append(f"{path.name}: a cue from {start:.3f} s to {end:.3f} s")
            continue
        new = [line for line in lines if line not in before or start - until > PAUSE]
        before, until = lines, end
        if new:
            cues.append(Cue(start, end, " ".join(new)))
    return cues, notes


def spoken_in(cues: list[Cue], spans: list[tuple[float, float]]) -> list[str]:
    """Gives each cue to the one span that it overlaps most, and joins the text of each span.

    Args:
        cues: In the order of time.
        spans: (start, end) in seconds, in the order of time; the end is exclusive.

    Returns:
        One text for each span, empty where nothing is said. Cues outside all spans are left out.
    """
    texts: list[list[str]] = [[] for _ in spans]
    first = 0
    for cue in cues:
        while first < len(spans) and spans[first][1] <= cue.start:
            first += 1
        best, most = None, 0.0
        for place in range(first, len(spans)):
            start, end = spans[place]
            if start >= cue.end:
                break
            shared = min(end, cue.end) - max(start, cue.start)
            if shared > most:
                best, most = place, shared
        if best is not None:
            texts[best].append(cue.text)
    return [" ".join(text) for text in texts]
