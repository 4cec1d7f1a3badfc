"""The two kinds of models that can be asked, as settings from which any process can load them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HuggingFaceSettings:
    """Which model, and where it runs.

    Attributes:
        model: A model folder, or "smollm2-135m-instruct".
        device: cpu, cuda, cuda:1 ...; "" takes a GPU if there is one.
        threads: CPU threads of this process; 0 leaves them as they are.
        repetition_penalty: Divides the logits of tokens already used; small models loop at 1.0.
    """

    model: str
    device: str = ""
    threads: int = 0
    repetition_penalty: float = 1.1


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where and how to ask.

    Attributes:
        url: Base URL, such as http://localhost:8000/v1.
        model: Name of the model, as the server knows it.
        key_variable: Environment variable that holds the key; unset or empty, none is sent.
        timeout: Seconds for one answer, to its last byte.
        retries: How often a fault that passes is tried again.
        pause: Seconds before the first retry; doubled for each further one.
        per_minute: Questions a minute at most, over all processes that share the folder of answers; 0 is no limit.
        body: JSON object that is laid over the request; null takes a field out. For servers that call a field
            otherwise, such as {"max_tokens": null, "max_completion_tokens": 400}.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    retries: int = 6
    pause: float = 1.0
    per_minute: int = 0
    body: str = "{}"

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^/\s@]+(/|$)", self.url):
            raise ValueError(f"--url must be like http://localhost:8000/v1, with no password in it, not {self.url!r}")
        if not self.model:
            raise ValueError("--model is missing: give the name of the model as the server knows it")
        try:
            overlay = json.loads(self.body)
        except json.JSONDecodeError as error:
            raise ValueError(f"--body is not JSON at column {error.colno} ({error.msg})") from None
        if not isinstance(overlay, dict):
            raise ValueError('--body must be a JSON object, like {"temperature": null}')


Backend = HuggingFaceSettings | ServerSettings
