"""Frames of a film by PyAV: numbers about all of them, then the few that are wanted as pictures.

One thread decodes: films, not threads, are what an engine runs side by side, and so a broken film gives the same frames
on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from data_tools.importers.shots import SIGNATURE, Film
from seedstory.image import MAX_PIXELS, MAX_SIDE

MAX_FRAMES = 2_000_000
FAULTS = (av.error.FFmpegError, ValueError, OSError)
_SMALL = (64, 36)  # px: the copy in which change is measured
_SHARP = 320  # px: width of the copy in which sharpness is measured; the smaller ones are made of it
_NEAR = 5.0  # seconds; a frame farther on than this is sought, not decoded up to
# Play lists and concatenations are not among these: they could name any other file or address.
_CONTAINERS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,mpegts,mpeg,flv",
    "protocol_whitelist": "file",
}


def read_film(path: Path) -> tuple[Film, int]:
    """Decodes a film once.

    Args:
        path: The file.

    Returns:
        Numbers about its frames, and how many packets could not be decoded.

    Raises:
        ValueError, OSError, av.error.FFmpegError: It is no film, or none of it can be decoded.
    """
    numbers: list[tuple[int, float, float, float]] = []
    signatures: list[np.ndarray] = []
    before: np.ndarray | None = None
    to_middle, to_small, to_signature = VideoReformatter(), VideoReformatter(), VideoReformatter()
    with _opened(path) as (container, stream):
        broken = [0]
        # Subtitles count from where the whole file begins, sound included, which may be before the first picture.
        base, begin = float(stream.time_base or 0), (container.start_time or 0) / av.time_base
        for stamp, frame in _decoded(container, stream, broken):
            if numbers and stamp <= numbers[-1][0]:
                continue
            if len(numbers) == MAX_FRAMES:
                raise ValueError(f"it has more than {MAX_FRAMES} frames: cut it into parts")
            height = min(4 * _SHARP, max(2, round(_SHARP * frame.height / frame.width / 2) * 2))
            middle = to_middle.reformat(frame, _SHARP, height, format="yuv420p", interpolation="AREA")
            gray = middle.to_ndarray()[:height].astype(np.float32)
            small = to_small.reformat(middle, *_SMALL, format="rgb24").to_ndarray().astype(np.int16)
            change = 0.0 if before is None else float(np.abs(small - before).mean())
            before = small
            numbers.append((stamp, change, _sharpness(gray), float(gray.std())))
            signatures.append(to_signature.reformat(middle, *SIGNATURE, format="gray").to_ndarray())
        rate = float(stream.average_rate or stream.guessed_rate or 25)
    if not numbers:
        raise ValueError("no frame of it can be decoded")
    stamps, changes, sharpness, spread = (np.array(column) for column in zip(*numbers, strict=True))
    times = stamps * base - begin
    seconds = float(times[-1]) + 1 / rate
    return Film(stamps, times, changes, sharpness, spread, np.stack(signatures), seconds), broken[0]


def grab_frames(path: Path, stamps: list[int], side: int) -> Iterator[tuple[int, Image.Image | None]]:
    """The pictures of some frames.

    Args:
        path: The film.
        stamps: Presentation time stamps of the frames, ascending.
        side: Longer side of the pictures in px at the most.

    Yields:
        (stamp, picture) in the order of `stamps`; None for a picture that is not found again.
    """
    with _opened(path) as (container, stream):
        base = float(stream.time_base or 0)
        frames = _decoded(container, stream, [0])
        here: int | None = None
        for wanted in stamps:
            if here is not None and (wanted - here) * base > _NEAR:
                container.seek(wanted, stream=stream, backward=True)
                frames = _decoded(container, stream, [0])
            image = None
            for here, frame in frames:
                if here >= wanted:
                    image = _image(frame, stream, side) if here == wanted else None
                    break
            yield wanted, image


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    with av.open(f"file:{path.resolve()}", options=_CONTAINERS, metadata_errors="replace") as container:
        if not container.streams.video:
            raise ValueError("it has no pictures")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise ValueError("no decoder for its pictures is known")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        _check(stream.width, stream.height)
        yield container, stream


def _decoded(container: InputContainer, stream: VideoStream, broken: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """(time stamp, frame); packets that cannot be decoded are counted in `broken[0]`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:  # the rest of the file cannot be parsed
            broken[0] += 1
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            broken[0] += 1
            continue
        for frame in frames:
            _check(frame.width, frame.height)
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is not None:
                yield stamp, frame


def _check(width: int, height: int) -> None:
    if min(width, height) < 16 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ValueError(f"its frames are {width} x {height} px, which is too small or too large")


def _sharpness(gray: np.ndarray) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al., ICPR 2000)."""
    edges = 4 * gray[1:-1, 1:-1] - gray[:-2, 1:-1] - gray[2:, 1:-1] - gray[1:-1, :-2] - gray[1:-1, 2:]
    return float(edges.var())


def _image(frame: av.VideoFrame, stream: VideoStream, side: int) -> Image.Image:
    """A frame with square pixels, upright, at most `side` px."""
    aspect = float(stream.sample_aspect_ratio or 1)
    width, height = frame.width * (aspect if 0.1 < aspect < 10 else 1.0), float(frame.height)
    scale = min(1.0, side / max(width, height))
    image = frame.to_image().convert("RGB")
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
