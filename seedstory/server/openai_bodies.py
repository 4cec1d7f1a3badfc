"""What OpenAI's clients send. What cannot be honored is refused rather than passed over."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Literal

from pydantic import ConfigDict, Field

from seedstory.errors import RequestError
from seedstory.server.bodies import Bounded
from seedstory.settings import StorySettings

_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)
_REMOTE = "an image comes as a data URL (data:image/png;base64,...): this server fetches no address"


class _Body(Bounded):
    model_config = ConfigDict(extra="ignore")  # clients send much that changes nothing here


class ImageUrl(_Body):
    """Where an image is."""

    url: str


class Part(_Body):
    """A piece of a message."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(_Body):
    """A message."""

    role: str
    content: str | list[Part] | None = None


class StreamOptions(_Body):
    """What a stream holds beside the answer."""

    include_usage: bool = False


class ChatBody(_Body):
    """A request for a story: the last message of the user opens it. Fields after `store` are seedstory's own."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=1000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    store: bool | None = None
    pages: int = StorySettings.pages
    title: str | None = None
    captions: list[str] | None = None
    cast: dict[str, str] | None = None
    plan: list[str] | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    guidance_interval: list[float] | None = None


class ImagesBody(_Body):
    """A request for images: each is the first page of a story that the prompt opens."""

    model: str | None = None
    prompt: str
    n: int | None = None
    size: str | None = None
    response_format: str | None = None
    output_format: str | None = None
    stream: bool | None = None
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    guidance_interval: list[float] | None = None


def opening_of(body: ChatBody) -> tuple[str | None, bytes | None]:
    """The words and the image that open the story: those of the user's last message.

    Raises:
        RequestError: There is none, or it holds more than one image or an address.
    """
    said = [message for message in body.messages if message.role == "user"]
    if not said:
        raise RequestError("messages hold none of the role user: the last one opens the story")
    content = said[-1].content
    if isinstance(content, str) or content is None:
        return content, None
    words = [part.text or "" for part in content if part.type == "text"]
    images = [part.image_url for part in content if part.type == "image_url"]
    if len(images) > 1:
        raise RequestError(f"the opening has {len(images)} images: a story has one on its first page")
    text = "\n".join(word for word in words if word.strip())
    image = None
    if images:
        if images[0] is None:
            raise RequestError("a part image_url holds no image_url")
        image = decode_data_url(images[0].url)
    return text or None, image


def decode_data_url(url: str) -> bytes:
    """The bytes of a data URL.

    Raises:
        RequestError: It is another kind of address, or damaged.
    """
    head = _DATA_URL.match(url)
    if head is None:
        raise RequestError(_REMOTE)
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("the data URL of the image is damaged: its base64 cannot be read") from None


def chat_settings(body: ChatBody) -> dict[str, Any]:
    """The arguments of `StoryPipeline.stream` that a request for a story means, but for its opening.

    Raises:
        RequestError: It asks for what this server cannot do.
    """
    refuse(
        n=body.n not in (None, 1),
        frequency_penalty=bool(body.frequency_penalty),
        presence_penalty=bool(body.presence_penalty),
        logprobs=bool(body.logprobs),
        tools=bool(body.tools),
        response_format=body.response_format is not None and body.response_format.get("type") != "text",
    )
    most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if most is not None and most < 1:
        raise RequestError(f"max_tokens must be at least 1, not {most}")
    asked = {
        "pages": body.pages,
        "seed": body.seed,
        "title": body.title,
        "captions": body.captions,
        "cast": body.cast,
        "plan": body.plan,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "stop": body.stop,
        "num_inference_steps": body.num_inference_steps,
        "guidance_scale": body.guidance_scale,
        "scheduler": body.scheduler,
        "guidance_interval": body.guidance_interval,
        # The limit is on the whole answer, and pages share it.
        "max_caption_tokens": None if most is None else max(1, min(1000, most // max(1, body.pages - 1))),
    }
    return {name: value for name, value in asked.items() if value is not None}


def refuse(**asked: bool) -> None:
    """Refuses fields that change nothing here.

    Raises:
        RequestError: One of them is asked for.
    """
    names = [name for name, wanted in asked.items() if wanted]
    if names:
        raise RequestError(f"this server cannot honor {', '.join(names)}: leave it out")
