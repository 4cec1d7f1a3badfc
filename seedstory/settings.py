"""What a user may ask of a story, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

POLICIES = ("recompute", "dense", "window", "sink", "mm_sink")
MAX_PAGES = 10_000
MAX_TEXT = 4_000  # characters of one caption or opening


@dataclass(kw_only=True)
class StorySettings:
    """What a story was asked to be. Checks itself; the same settings, model and versions give the same story.

    Args:
        text: The opening text, or None when a picture alone opens the story.
        picture: File name of the opening picture, for the record only; its pixels are those of page 1.
        pages: Pages in all, the opening included.
        seed: The seed from which the seed of every page is derived.
        num_inference_steps: Diffusion steps per picture.
        guidance_scale: Strength of classifier-free guidance; 1.0 is none.
        policy: Which keys and values the language model keeps, one of `POLICIES`.
        temperature: Sampling temperature of the captions; 0 takes the most likely token.
        top_p: Probability mass that sampling may choose from.
        repetition_penalty: Divides the logits of tokens already used; 1.0 is none.
        captions: The user's own script, one caption for each page after the opening, or None.
    """

    text: str | None = None
    picture: str | None = None
    pages: int = 10
    seed: int = 0
    num_inference_steps: int = 4
    guidance_scale: float = 1.0
    policy: str = "mm_sink"
    temperature: float = 0.5
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    captions: list[str] | None = None

    def __post_init__(self) -> None:
        if self.text is not None:
            self.text = clean_text(self.text, "the opening text")
        if self.picture is not None:
            self.picture = clean_text(self.picture, "the picture's name")
        if self.text is None and self.picture is None:
            raise ValueError("a story needs an opening: give a text, a picture, or both")
        check_whole("pages", self.pages, 1, MAX_PAGES)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        check_whole("num_inference_steps", self.num_inference_steps, 1, 1000)
        check_number("guidance_scale", self.guidance_scale, 0.0, 100.0)
        check_number("temperature", self.temperature, 0.0, 10.0)
        check_number("top_p", self.top_p, 1e-6, 1.0)
        check_number("repetition_penalty", self.repetition_penalty, 0.1, 10.0)
        if self.policy not in POLICIES:
            raise ValueError(f"unknown policy {self.policy!r}: choose one of {', '.join(POLICIES)}")
        if self.captions is not None:
            if len(self.captions) != self.pages - 1:
                raise ValueError(
                    f"the script has {len(self.captions)} captions, but {self.pages} pages need {self.pages - 1}: "
                    "one for each page after the opening"
                )
            self.captions = [clean_text(c, f"caption {i} of the script") for i, c in enumerate(self.captions, 1)]


def clean_text(text: str, what: str) -> str:
    """Text with single spaces and without control characters.

    Raises:
        ValueError: It is empty or longer than `MAX_TEXT` characters.
    """
    if not isinstance(text, str):
        raise ValueError(f"{what} must be text, not {type(text).__name__}")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not text:
        raise ValueError(f"{what} is empty: write at least one word")
    if len(text) > MAX_TEXT:
        raise ValueError(f"{what} has {len(text)} characters: at most {MAX_TEXT} fit")
    return text


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """Raises ValueError unless a value is a whole number in range, both ends included."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high:,}, not {value}")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Raises ValueError unless a value is a finite number in range, both ends included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {value}")
