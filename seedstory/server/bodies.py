"""What requests say. Their forms are checked here, their values by `StorySettings` and `StoryEditor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from seedstory.errors import RequestError
from seedstory.io import parse_json
from seedstory.settings import MAX_PAGES, PAGE_SETTINGS, StorySettings

_MAX_FIELDS = 100
_MAX_SHOWN = 80  # characters of a field's name in an error

Following = Literal["keep", "redraw", "rewrite"]
Seed = int | None


class Bounded(BaseModel):
    """A body of few fields and short lists: what is wrong with each of a million would take long to say."""

    @model_validator(mode="before")
    @classmethod
    def _is_bounded(cls, values: Any) -> Any:
        if isinstance(values, dict):
            if len(values) > _MAX_FIELDS:
                raise RequestError(f"at most {_MAX_FIELDS} fields are read, not {len(values):,}")
            longest = max((len(value) for value in values.values() if isinstance(value, list | dict)), default=0)
            if longest > MAX_PAGES:
                raise RequestError(f"at most {MAX_PAGES:,} entries of a field are read, not {longest:,}")
        return values


class Body(Bounded):
    """The body of a request: nothing but what it lists, and no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StoryBody(Body):
    """A new story: the arguments of `StoryPipeline.stream` that say what it shall be."""

    text: str | None = None
    pages: int = StorySettings.pages
    seed: int = StorySettings.seed
    title: str | None = None
    language: str | None = None
    captions: list[str] | None = None
    story_state: bool | None = None
    cast: dict[str, str] | None = None
    plan: list[str] | None = None
    facts: list[dict[str, str]] | None = None
    policy: str = StorySettings.policy
    temperature: float = StorySettings.temperature
    top_k: int = StorySettings.top_k
    top_p: float = StorySettings.top_p
    min_p: float = StorySettings.min_p
    repetition_penalty: float = StorySettings.repetition_penalty
    no_repeat_ngram_size: int = StorySettings.no_repeat_ngram_size
    history_pages: int = StorySettings.history_pages
    min_caption_tokens: int = StorySettings.min_caption_tokens
    max_caption_tokens: int = StorySettings.max_caption_tokens
    max_sentences: int = StorySettings.max_sentences
    stop: str | list[str] = Field(default_factory=list)
    text_guidance_scale: float = StorySettings.text_guidance_scale
    num_inference_steps: int | None = StorySettings.num_inference_steps
    guidance_scale: float | None = StorySettings.guidance_scale
    scheduler: str | None = StorySettings.scheduler
    guidance_interval: list[float] = Field(default_factory=lambda: list(StorySettings.guidance_interval))


class RedoBody(Body):
    """A page made anew."""

    caption: str | None = None
    keep_caption: bool = False
    seed: Seed = None
    following: Following = "keep"
    settings: dict[str, Any] = Field(default_factory=dict, description=f"Some of {', '.join(PAGE_SETTINGS)}")
    later: bool = False


class EditBody(Body):
    """Other words for a page."""

    caption: str
    redraw: bool = True
    following: Following = "keep"
    later: bool = False


class InsertBody(Body):
    """A new page after another one."""

    caption: str | None = None
    seed: Seed = None
    settings: dict[str, Any] = Field(default_factory=dict)
    later: bool = False


class MoveBody(Body):
    """Another place for a page."""

    to: int = Field(description="The number that the page will have, from 2")


class LockBody(Body):
    """Whether a page stays as it is."""

    locked: bool = True


class DescribeBody(Body):
    """The description of a page's image."""

    alt: str


class FactsBody(Body):
    """Notes on a page, which the model does not read."""

    facts: dict[str, str] = Field(
        description="Those to change, such as place, time or who; an empty text takes one away"
    )


class StateBody(Body):
    """Another cast or plan before a page."""

    cast: dict[str, str] | None = None
    plan: list[str] | None = None
    following: Following = "keep"
    later: bool = False


class ContinueBody(Body):
    """More pages, or others after one."""

    pages: int | None = None
    after: int | None = Field(default=None, description="Id of the last page that stays")
    seed: Seed = None
    later: bool = False


class UndoBody(Body):
    """Which way to go in the history."""

    forward: bool = False


class BranchBody(Body):
    """A copy of a story."""

    pages: int | None = None
    seed: Seed = None


class TitleBody(Body):
    """Another title."""

    title: str


class SessionBody(Body):
    """An API key, for a browser."""

    key: str


SomeBody = TypeVar("SomeBody", bound=BaseModel)


def parse_body(kind: type[SomeBody], data: bytes | str, what: str = "the body") -> SomeBody:
    """A body from JSON; an empty one has all its defaults.

    Raises:
        RequestError: It is not that; one line.
        DataError: It is no JSON.
    """
    values = parse_json(data, what) if data.strip() else {}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise RequestError(f"{what}: {describe(first)}") from None


def describe(first: Mapping[str, Any]) -> str:
    """What pydantic says is wrong, in one line."""
    place = ".".join(map(str, first["loc"]))[:_MAX_SHOWN].encode("utf-8", "replace").decode()
    return f"{place}: {first['msg'][:200]}" if place else str(first["msg"])[:200]
