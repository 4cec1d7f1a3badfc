"""The book as a film: each picture with a gentle pan and zoom, its caption as subtitle, on wish read aloud."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from seedstory.errors import StoryFolderError
from seedstory.export.book import Book, BookDesign, require
from seedstory.export.narration import RATE, Speaker
from seedstory.export.typeset import typeset
from seedstory.io import atomic_path
from seedstory.story import Story, StoryFolder
from seedstory.text import count_words

FPS = 24
LONG_SIDE = 768  # pixels of the film
CARD_SECONDS = 3.0  # of title and end
ZOOM = 0.08  # how much nearer a page's picture comes
_MILLISECOND = Fraction(1, 1000)
# The encoder wants the style of subtitles in this form; players have their own.
_SUBTITLE_STYLE = b"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Serif,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


@dataclass
class _Scene:
    """A part of the film: what is seen, for how many frames, with which words and sound."""

    image: Image.Image
    frames: int
    caption: str = ""
    sound: np.ndarray | None = None
    number: int = 0  # of the page; 0: a card, which stands still

    @property
    def seconds(self) -> float:
        return self.frames / FPS


def write_mp4(
    story: Story | StoryFolder, path: str | Path, *, design: BookDesign | None = None, narration: bool = False
) -> Path:
    """Writes a story as a film (H.264, subtitles as a track of their own).

    A page is shown for as long as its words take to read, or to be spoken. Pictures are enlarged to the film's pixels.

    Args:
        story: A story in memory, or a story folder.
        path: The file to write, whole or not at all. Its folder must exist.
        design: Colors, author and license.
        narration: Whether a local speech program reads the captions aloud.

    Returns:
        The path.

    Raises:
        RequestError: The extra `book` is not installed, or there is no speech program.
        StoryFolderError: The story has no page, or the file cannot be written.
    """
    av = require("av", "a film")
    path = Path(path)
    book = Book.of(story, design)
    speaker = Speaker.find(book.language) if narration else None
    try:
        with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
            _write(av, container, book, speaker)
    except OSError as error:
        raise StoryFolderError(f"cannot write {path}: {error.strerror}; choose another place") from error
    return path


def _write(av: Any, container: Any, book: Book, speaker: Speaker | None) -> None:
    size = _film_size(book)
    container.metadata["title"] = book.title
    container.metadata["comment"] = " ".join(book.colophon)
    container.metadata["copyright"] = book.license
    if book.author:
        container.metadata["artist"] = book.author
    options = {"crf": "18", "preset": "veryfast"}
    video = container.add_stream("libx264", rate=FPS, options=options)
    video.width, video.height, video.pix_fmt = *size, "yuv420p"
    video.codec_context.thread_count = 1  # the same bytes on every machine
    subtitles = container.add_stream("mov_text")
    subtitles.codec_context.subtitle_header = _SUBTITLE_STYLE
    subtitles.codec_context.time_base = subtitles.time_base = _MILLISECOND
    audio = container.add_stream("aac", rate=RATE, layout="mono") if speaker else None
    container.start_encoding()
    frame_number = samples = 0
    for scene in _scenes(book, speaker, size):
        start = frame_number
        for pixels in _frames(scene, size, book.design.colors["tint"]):
            frame = av.VideoFrame.from_image(pixels)
            frame.pts, frame.time_base = frame_number, Fraction(1, FPS)
            container.mux(video.encode(frame))
            frame_number += 1
        if scene.caption:
            container.mux(_subtitle(av, subtitles, scene.caption, start, frame_number))
        if audio is not None:
            until = frame_number * RATE // FPS
            sound = np.zeros(until - samples, np.int16)
            if scene.sound is not None:
                sound[: len(scene.sound)] = scene.sound[: len(sound)]
            _encode_sound(av, container, audio, sound, samples)
            samples = until
    container.mux(video.encode())
    if audio is not None:
        container.mux(audio.encode())


def _film_size(book: Book) -> tuple[int, int]:
    """The first picture's form, between 9:16 and 16:9, in even numbers of pixels; a square where there is none."""
    first = next((image for _, image in book.images() if image is not None), None)
    ratio = min(16 / 9, max(9 / 16, first.width / first.height)) if first is not None else 1.0
    width, height = (LONG_SIDE, LONG_SIDE / ratio) if ratio >= 1 else (LONG_SIDE * ratio, LONG_SIDE)
    return round(width / 2) * 2, round(height / 2) * 2


def _scenes(book: Book, speaker: Speaker | None, size: tuple[int, int]) -> Iterator[_Scene]:
    title, blank, end = (Image.open(io.BytesIO(data)).convert("RGB") for data in _cards(book))
    yield _Scene(title, round(CARD_SECONDS * FPS), sound=speaker.speak(book.title) if speaker else None)
    for page, image in book.images():
        sound = speaker.speak(page.caption) if speaker else None
        seconds = 2.5 + count_words(page.caption) / 2.6 if page.caption else 3.0
        if sound is not None and len(sound):
            seconds = max(3.0, len(sound) / RATE + 0.8)
        yield _Scene(image or blank, round(seconds * FPS), page.caption, sound, page.number if image else 0)
    yield _Scene(end, round(CARD_SECONDS * FPS))


def _cards(book: Book) -> tuple[bytes, bytes, bytes]:
    """Title, a page without a picture, and end, as pixels of a square book."""
    cards = typeset(book, output="png", ppi=LONG_SIDE / (210 / 25.4), bleed=False, cards=True)
    return cards[0], cards[2], cards[-1]


def _frames(scene: _Scene, size: tuple[int, int], color: str) -> Iterator[Image.Image]:
    """The frames of a scene: from the whole picture nearer to one of its sides, or back, in turns."""
    image = scene.image
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (min(size[0], round(image.width * scale)), min(size[1], round(image.height * scale)))
    corner = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
    side_x, side_y = ((0.5, 0.35), (0.0, 0.5), (1.0, 0.5), (0.5, 0.65))[scene.number % 4]
    canvas = Image.new("RGB", size, ImageColor.getrgb(color))
    for number in range(scene.frames):
        if scene.number or number == 0:
            way = number / max(1, scene.frames - 1)
            way = way * way * (3 - 2 * way)  # starts and ends softly
            share = 1 - ZOOM * (way if scene.number % 2 else 1 - way) if scene.number else 1.0
            width, height = image.width * share, image.height * share
            left, top = (image.width - width) * side_x, (image.height - height) * side_y
            box = (left, top, left + width, top + height)
            canvas.paste(image.resize(inner, Image.Resampling.BICUBIC, box=box), corner)
        yield canvas


def _subtitle(av: Any, stream: Any, text: str, start: int, end: int) -> Any:
    """A packet of timed text: its length in two bytes, then plain UTF-8, which players show as it is."""
    data = text.encode("utf-8")[:60_000].decode("utf-8", "ignore").encode("utf-8")
    packet = av.Packet(len(data).to_bytes(2, "big") + data)
    packet.stream, packet.time_base = stream, _MILLISECOND
    packet.pts = packet.dts = start * 1000 // FPS
    packet.duration = end * 1000 // FPS - packet.pts
    return packet


def _encode_sound(av: Any, container: Any, stream: Any, sound: np.ndarray, start: int) -> None:
    for place in range(0, len(sound), 1024):
        part = np.ascontiguousarray(sound[None, place : place + 1024])
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start + place, Fraction(1, RATE)
        container.mux(stream.encode(frame))
