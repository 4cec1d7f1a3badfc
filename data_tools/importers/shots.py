"""Shots of a film and the frame that shows each best, from a few numbers about every frame.

A cut is a change from frame to frame that stands out from those around it, as in PySceneDetect's adaptive detector, but
against the greatest of its neighbors, so that a flash is no cut. Shapes: T frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SIGNATURE = (16, 9)  # px: the copy of a frame by which frames are compared


@dataclass(frozen=True, kw_only=True)
class ShotSettings:
    """How a film is split into shots.

    Attributes:
        change: Of 255; least mean difference of two frames at a cut.
        ratio: How many times greater than its neighbors' the difference at a cut is.
        min_seconds: Shorter shots are taken together with the one before.
        max_seconds: Longer shots are split evenly.
        distinct: Of 255; keyframes that differ less are the same picture.
        blank: Of 255; frames whose brightness varies less are blank, such as black ones between scenes.
    """

    change: float = 12.0
    ratio: float = 2.0
    min_seconds: float = 0.5
    max_seconds: float = 8.0
    distinct: float = 10.0
    blank: float = 6.0

    def __post_init__(self) -> None:
        if min(self.change, self.ratio, self.min_seconds, self.max_seconds) <= 0 or min(self.distinct, self.blank) < 0:
            raise ValueError("the settings of shots must be positive numbers")
        if self.max_seconds < 2 * self.min_seconds:
            raise ValueError("the longest shot must be at least twice as long as the shortest")


@dataclass(frozen=True)
class Film:
    """Numbers about every frame that could be decoded, in the order of time.

    Attributes:
        stamps: [T] presentation time stamps, by which a frame is found again.
        times: [T] seconds from the beginning.
        change: [T] mean absolute difference of the pixels to the frame before; 0 at the first.
        sharpness: [T] variance of the Laplacian.
        spread: [T] standard deviation of the brightness.
        signatures: [T, 9, 16] brightness of a tiny copy.
        seconds: Where the last frame ends.
    """

    stamps: np.ndarray
    times: np.ndarray
    change: np.ndarray
    sharpness: np.ndarray
    spread: np.ndarray
    signatures: np.ndarray
    seconds: float

    def __len__(self) -> int:
        return len(self.stamps)


@dataclass
class Keyframe:
    """A frame, and the span of the film that it stands for, in seconds."""

    stamp: int
    time: float
    start: float
    end: float


def find_cuts(film: Film, settings: ShotSettings) -> list[int]:
    """Indices of the frames that begin a shot; the first is 0."""
    change = film.change
    padded = np.pad(change, 2)
    around = np.max([padded[i : i + len(change)] for i in (0, 1, 3, 4)], axis=0)
    cuts = np.flatnonzero((change >= settings.change) & (change >= settings.ratio * around))
    return [0, *(int(cut) for cut in cuts if cut > 0)]


def find_keyframes(film: Film, settings: ShotSettings) -> tuple[list[Keyframe], int]:
    """One sharp frame for each shot, or each part of a long one, that differs from the one before it.

    The spans of the keyframes follow each other without gaps: what shows nothing new, or nothing at all, is counted to
    the keyframe before it, or to the first.

    Args:
        film: The numbers.
        settings: How to part it.

    Returns:
        The keyframes, and how many parts of the film were blank.
    """
    kept: list[Keyframe] = []
    last: np.ndarray | None = None
    blank = 0
    for start, end in _parts(film, settings):
        best = _best_frame(film, start, end, settings)
        until = float(film.times[end]) if end < len(film) else film.seconds
        if best is None:
            blank += 1
        elif last is None or np.abs(film.signatures[best].astype(np.float32) - last).mean() >= settings.distinct:
            last = film.signatures[best].astype(np.float32)
            since = kept[-1].end if kept else 0.0
            kept.append(Keyframe(int(film.stamps[best]), float(film.times[best]), since, until))
        if kept:
            kept[-1].end = until
    return kept, blank


def _parts(film: Film, settings: ShotSettings) -> list[tuple[int, int]]:
    """(first, end) frames of shots of a good length."""
    if len(film) == 0:
        return []
    cuts = find_cuts(film, settings)
    starts = [0]
    for cut in cuts[1:]:
        if film.times[cut] - film.times[starts[-1]] >= settings.min_seconds:
            starts.append(cut)
    parts = []
    for start, end in zip(starts, [*starts[1:], len(film)], strict=True):
        until = film.times[end] if end < len(film) else film.seconds
        count = max(1, math.ceil((until - film.times[start]) / settings.max_seconds - 1e-6))
        marks = [start + (end - start) * i // count for i in range(count + 1)]
        parts += [(a, b) for a, b in zip(marks, marks[1:], strict=False) if b > a]
    return parts


def _best_frame(film: Film, start: int, end: int, settings: ShotSettings) -> int | None:
    """The sharpest frame that is not blank, if possible away from both ends where transitions are; None if all are."""
    margin = min(5, (end - start) // 5)
    for first, last in ((start + margin, end - margin), (start, end)):
        frames = np.arange(first, last)
        frames = frames[film.spread[frames] >= settings.blank]
        if len(frames):
            return int(frames[np.argmax(film.sharpness[frames])])
    return None
