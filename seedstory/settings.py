"""What a user may ask of a story, checked before anything heavy is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from seedstory.errors import RequestError
from seedstory.page_facts import check_facts
from seedstory.story_state import StoryState
from seedstory.text import clean_text, detect_language

POLICIES = ("recompute", "dense", "window", "sink", "mm_sink")
SCHEDULERS = ("euler", "euler_ancestral", "ddim", "dpmsolver++", "unipc", "lcm", "tcd", "lightning")
DECODINGS = ("auto", "eager", "native", "static", "compiled")
MAX_PAGES = 10_000
MAX_TEXT = 4_000  # characters of one caption or opening
MAX_CAPTION_TOKENS = 2_000  # of one caption or opening
MAX_STOPS = 32
# Settings that a single page may be made with, apart from the story's.
PAGE_SETTINGS = (
    *(
        "num_inference_steps",
        "guidance_scale",
        "scheduler",
        "guidance_interval",
        "policy",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
    ),
    *("repetition_penalty", "no_repeat_ngram_size", "history_pages", "min_caption_tokens", "max_caption_tokens"),
    *("stop", "max_sentences", "text_guidance_scale"),
)


@dataclass(kw_only=True)
class StorySettings:
    """What a story was asked to be. Checks itself; the same settings, model and versions give the same story.

    Args:
        text: The opening text, or None when a picture alone opens the story.
        image_name: File name of the opening picture, for the record only; its pixels are those of page 1.
        pages: Pages in all, the opening included.
        seed: The seed from which the seed of every page is derived.
        num_inference_steps: Diffusion steps per picture; None: as many as the scheduler needs.
        guidance_scale: Strength of classifier-free guidance; 1.0 is none, and None what suits the scheduler.
        scheduler: The way from noise to a picture, one of `SCHEDULERS`; None: the model's own.
        guidance_interval: Share of the steps, from and to, in which guidance steers; the others cost half.
        policy: Which keys and values the language model keeps, one of `POLICIES`.
        captions: The user's own script, one caption for each page after the opening, or None.
        story_state: Whether the model writes a cast and a plan first and follows them; None: if it was trained to.
        cast: The user's own characters, name and look of each, or None.
        plan: The user's own plan, a line for each page after the opening (an empty one leaves its page to the model),
            or None.
        facts: The user's own notes, {name: text} for each page, the opening included, or None; the model does not read
            them.
        temperature: Sampling temperature of the captions; 0 takes the most likely token.
        top_k: Sampling chooses among this many most likely tokens; 0 is all.
        top_p: Probability mass that sampling may choose from; 1.0 is all.
        min_p: Sampling leaves out tokens less probable than this fraction of the most likely one; 0.0 is none.
        repetition_penalty: Divides the logits of tokens already used; 1.0 is none.
        no_repeat_ngram_size: No run of this many tokens is written twice; 0 is off. Names and set phrases come back
            in any good story, so small runs do harm: 12 or more break a loop and leave them alone.
        history_pages: Earlier pages in which the two settings above look, besides the page being written.
        min_caption_tokens: Shortest caption, in tokens.
        max_caption_tokens: Longest caption, in tokens; a longer one is cut after its last whole sentence.
        stop: Texts that end a caption right after themselves, to the letter (a single text may stand alone).
        max_sentences: Most sentences of a caption; 0 is no limit.
        text_guidance_scale: Strength of classifier-free guidance of the text; 1.0 is none.
        reference: Whether the story is made as SEED-Story's own script makes it, see `seedstory.generation.reference`;
            nothing else is then to be said of the words.
    """

    text: str | None = None
    image_name: str | None = None
    pages: int = 10
    seed: int = 0
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    policy: str = "mm_sink"
    captions: list[str] | None = None
    story_state: bool | None = None
    cast: dict[str, str] | None = None
    plan: list[str] | None = None
    facts: list[dict[str, str]] | None = None
    temperature: float = 0.5
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    history_pages: int = 3
    min_caption_tokens: int = 1
    max_caption_tokens: int = 96
    stop: tuple[str, ...] = ()
    max_sentences: int = 0
    text_guidance_scale: float = 1.0
    reference: bool = False

    def __post_init__(self) -> None:
        if self.text is not None:
            self.text = check_text(self.text, "the opening text")
        if self.image_name is not None:
            self.image_name = check_text(self.image_name, "the picture's name")
        if self.text is None and self.image_name is None:
            raise RequestError("a story needs an opening: give a text, a picture, or both")
        check_int("pages", self.pages, 1, MAX_PAGES)
        check_int("seed", self.seed, 0, 2**63 - 1)
        self._check_drawing()
        self.stop = check_stops(self.stop)
        check_sampling(self)
        if self.policy not in POLICIES:
            raise RequestError(f"unknown policy {self.policy!r}: choose one of {', '.join(POLICIES)}")
        if self.captions is not None:
            if isinstance(self.captions, str):
                raise RequestError("captions are a list with a text for each page, not one text: give [text, ...]")
            if not isinstance(self.captions, list | tuple):
                raise RequestError(f"captions are a list of texts, not {type(self.captions).__name__}")
            if len(self.captions) != self.pages - 1:
                raise RequestError(
                    f"the script has {len(self.captions)} captions, but {self.pages} pages need {self.pages - 1}: "
                    "one for each page after the opening"
                )
            self.captions = [check_text(c, f"caption {i} of the script") for i, c in enumerate(self.captions, 1)]
        self._check_state()
        if self.facts is not None:
            if isinstance(self.facts, str) or not isinstance(self.facts, Sequence) or len(self.facts) > self.pages:
                raise RequestError(f"facts are a list of at most {self.pages} {{name: text}}, one for each page")
            self.facts = [check_facts(facts) for facts in self.facts]

        self._check_reference()

    def _check_reference(self) -> None:
        if not isinstance(self.reference, bool):
            raise RequestError(f"reference is true or false, not {self.reference!r:.40}")
        if not self.reference:
            return
        free = ("text", "image_name", "pages", "seed", "num_inference_steps", "guidance_scale", "facts", "reference")
        for one in fields(self):
            if one.name not in free and getattr(self, one.name) != one.default:
                raise RequestError(f"reference writes as SEED-Story's script does: leave {one.name} out")

    def facts_of(self, index: int) -> dict[str, str]:
        """The user's notes of a page, as long as they are not the page's own."""
        return dict(self.facts[index]) if self.facts and index < len(self.facts) else {}

    def _check_drawing(self) -> None:
        if self.num_inference_steps is not None:
            check_int("num_inference_steps", self.num_inference_steps, 1, 1000)
        if self.guidance_scale is not None:
            check_float("guidance_scale", self.guidance_scale, 0.0, 100.0)
        if self.scheduler is not None and self.scheduler not in SCHEDULERS:
            raise RequestError(f"unknown scheduler {self.scheduler!r:.40}: choose one of {', '.join(SCHEDULERS)}")
        ends = self.guidance_interval
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            raise RequestError(f"guidance_interval must be two numbers, from and to, not {ends!r:.40}")
        for end in ends:
            check_float("guidance_interval", end, 0.0, 1.0)
        if ends[0] > ends[1]:
            raise RequestError(f"guidance_interval must not end, at {ends[1]}, before it begins, at {ends[0]}")
        self.guidance_interval = (ends[0], ends[1])

    def _check_state(self) -> None:
        if self.story_state not in (None, True, False):
            raise RequestError(f"story_state is true, false or None, not {self.story_state!r}")
        if self.story_state is False and (self.cast or self.plan):
            raise RequestError("story_state is false, but a cast or a plan is given: leave one of them out")
        if self.captions is not None and self.plan:
            raise RequestError("a script says what happens on each page: leave the plan out")
        if self.cast is not None:
            if not isinstance(self.cast, Mapping):
                raise RequestError("cast is {name: look, ...}, such as {'Mia': 'fox, red coat'}")
            self.cast = dict(StoryState(cast=tuple(self.cast.items())).cast)
        if self.plan is not None:
            if isinstance(self.plan, str) or not isinstance(self.plan, Sequence):
                raise RequestError("plan is a list with a line for each page after the opening: give [line, ...]")
            if len(self.plan) != self.pages - 1:
                raise RequestError(
                    f"the plan has {len(self.plan)} lines, but {self.pages} pages need {self.pages - 1}: one for each "
                    "page after the opening"
                )
            self.plan = list(StoryState(plan=tuple(self.plan)).plan)


def check_sampling(settings: Any) -> None:
    """Checks how the words of a story are chosen: the fields that `StorySettings` and `SamplingConfig` share.

    Raises:
        RequestError: One is out of range, or two do not agree.
    """
    check_float("temperature", settings.temperature, 0.0, 10.0)
    check_int("top_k", settings.top_k, 0, 1_000_000)
    check_float("top_p", settings.top_p, 1e-6, 1.0)
    check_float("min_p", settings.min_p, 0.0, 1.0)
    check_float("repetition_penalty", settings.repetition_penalty, 0.1, 10.0)
    check_int("no_repeat_ngram_size", settings.no_repeat_ngram_size, 0, 1000)
    if settings.no_repeat_ngram_size == 1:
        raise RequestError("no_repeat_ngram_size 1 would allow every word once only: give 0 (off) or 2 and more")
    check_int("history_pages", settings.history_pages, 0, 1000)
    check_int("max_caption_tokens", settings.max_caption_tokens, 1, 1000)
    check_int("min_caption_tokens", settings.min_caption_tokens, 1, 1000)
    if settings.min_caption_tokens > settings.max_caption_tokens:
        raise RequestError(
            f"min_caption_tokens {settings.min_caption_tokens} is more than max_caption_tokens "
            f"{settings.max_caption_tokens}: lower the one or raise the other"
        )
    check_int("max_sentences", settings.max_sentences, 0, 1000)
    check_float("text_guidance_scale", settings.text_guidance_scale, 0.0, 100.0)


def check_stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    """Stop texts as they can stand in a caption: one line, single spaces. Spaces at the ends count and stay.

    Raises:
        RequestError: One is no text, has nothing to be seen or is too long, or there are too many.
    """
    if not isinstance(stop, (str, list, tuple)):
        raise RequestError(f"stop must be a text or several, not {type(stop).__name__}")
    stops = [stop] if isinstance(stop, str) else stop
    if len(stops) > MAX_STOPS:
        raise RequestError(f"there are {len(stops)} stop texts: at most {MAX_STOPS} fit")
    cleaned = []
    for text in stops:
        core = check_text(text, "a stop text")
        cleaned.append(" " * text[0].isspace() + core + " " * text[-1].isspace())
    return tuple(cleaned)


def check_text(text: str, what: str) -> str:
    """Text as `clean_text` keeps it.

    Raises:
        RequestError: It is empty or longer than `MAX_TEXT` characters.
    """
    if not isinstance(text, str):
        raise RequestError(f"{what} must be text, not {type(text).__name__}")
    if len(text) <= 10 * MAX_TEXT:  # no time is spent on more
        text = clean_text(text)
    if not text:
        raise RequestError(f"{what} is empty: write at least one word")
    if len(text) > MAX_TEXT:
        raise RequestError(f"{what} has {len(text)} characters: at most {MAX_TEXT} fit")
    return text


def check_language(tag: str) -> str:
    """A BCP 47 language tag, or nothing.

    Raises:
        RequestError: It is neither.
    """
    if not isinstance(tag, str) or (tag and not re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", tag)):
        raise RequestError(f"the language must be a tag such as de or pt-BR, not {tag!r:.40}")
    return tag


def story_language(settings: StorySettings) -> str:
    """Language of a story's words as a BCP 47 tag: guessed from a script; empty where that is too short to guess from.

    The embedded model writes English alone, and so do stories without a script.
    """
    if not settings.captions:
        return "en"
    words = " ".join([settings.text or "", *settings.captions])
    language, probability = detect_language(words[:10_000])
    return language if probability >= 0.8 else ""


def check_decoding(name: str) -> None:
    """Raises ValueError unless there is a decoding of this name."""
    if name not in DECODINGS:
        raise RequestError(f"unknown decoding {name!r}: choose one of {', '.join(DECODINGS)}")


def check_int(name: str, value: Any, low: int, high: int) -> None:
    """Raises ValueError unless a value is a whole number in range, both ends included."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} must be a whole number from {low} to {high:,}, not {value}")


def check_float(name: str, value: Any, low: float, high: float) -> None:
    """Raises ValueError unless a value is a finite number in range, both ends included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RequestError(f"{name} must be a number from {low:g} to {high:g}, not {value}")
