"""What captioning asks of a model: two small protocols for its users, and the one for chat models beneath them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from data_tools.folder import encode
from seedstory.image import MAX_BYTES, load_image
from seedstory.io import read_regular

JPEG_QUALITY = 92


class Describer(Protocol):
    """Says what a picture shows."""

    def describe(self, image: PromptImage, context: str) -> str:
        """Describes a picture.

        Args:
            image: The picture.
            context: What is known beside it: title, names, the page's own words; may be empty.

        Raises:
            AnswerError: Nothing usable can be said of this picture.
            ModelUnavailableError: Nothing can be asked at all.
        """


class Narrator(Protocol):
    """Narrates a story page by page."""

    def narrate(self, title: str, history: Sequence[str], descriptions: Sequence[str]) -> str:
        """Narrates the next page.

        Args:
            title: Title of the story; may be empty.
            history: The text of the pages before this one.
            descriptions: What the picture of every page shows, those still to come included. The page to narrate
                is number `len(history)`, counted from 0.

        Raises:
            AnswerError: Nothing usable comes for this page.
            ModelUnavailableError: Nothing can be asked at all.
        """


class ChatModel(Protocol):
    """A model that answers in a conversation.

    Attributes:
        identity: Name of the model and of all else that its answers depend on, besides the question. Answers are kept
            on disk under it, so it must not hold a secret, a place or a time.
        name: Name of the model, as a data set gives it.
        small: Whether it is too small to learn from the fault of a reply. It then gets the same question with another
            seed, and an example of what is wanted.
    """

    identity: str
    name: str
    small: bool

    def answer(self, question: Question) -> Answer: ...


class AnswerError(ValueError):
    """One question has no usable answer: its page is dropped with `reason`, and the run continues."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ModelUnavailableError(RuntimeError):
    """The model cannot be asked at all: the run ends. Started again, it resumes here."""


@dataclass(frozen=True)
class PromptImage:
    """The bytes of an image file, which are decoded when a model needs the pixels."""

    data: bytes
    name: str

    @classmethod
    def read(cls, path: Path) -> PromptImage:
        """Reads a file; `AnswerError` where there is none or it is too large for a picture."""
        try:
            return cls(read_regular(path, limit=MAX_BYTES, what=path.name), path.name)
        except ValueError as error:
            raise AnswerError("unreadable-picture", str(error)) from None

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def image(self, side: int) -> Image.Image:
        """As an RGB picture of at most `side` px a side; `AnswerError` where it cannot be read."""
        try:
            image = load_image(self.data, self.name)
        except ValueError as error:
            raise AnswerError("unreadable-picture", str(error)) from None
        if max(image.size) > side:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return image

    def jpeg(self, side: int) -> bytes:
        """As a JPEG file of at most `side` px a side, which every server understands."""
        return encode(self.image(side), "JPEG", quality=JPEG_QUALITY)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; a picture stands before its text."""

    role: Literal["system", "user", "assistant"]
    text: str
    image: PromptImage | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A conversation to be answered with a JSON object that has one string, `field`.

    Attributes:
        messages: The conversation so far.
        field: Key of that string.
        max_tokens: Length of the answer at most.
        temperature: Of the sampling; 0 takes the likeliest word.
        top_p: Probability mass that words are sampled from.
        seed: Seed of the sampling.
        side: Longest side of a picture in px, as the model sees it.
    """

    messages: tuple[Message, ...]
    field: str
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    side: int = 768

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the answer."""
        return {
            "type": "object",
            "properties": {self.field: {"type": "string"}},
            "required": [self.field],
            "additionalProperties": False,
        }

    def digest(self, identity: str) -> str:
        """Name of the question put to a model: SHA-256 over all that the answer depends on."""
        messages = [[m.role, m.text, m.image.digest if m.image else None] for m in self.messages]
        rest = [self.field, self.max_tokens, self.temperature, self.top_p, self.seed, self.side]
        return hashlib.sha256(json.dumps([identity, messages, rest]).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a model said, and how many tokens it read and wrote for it."""

    text: str
    prompt_tokens: int = 0
    reply_tokens: int = 0
