"""Chat models behind the OpenAI protocol: a paid service, or vLLM, llama.cpp, Ollama and others on one's own machine.

Faults that pass (no connection, time-out, 408, 429, 5xx, a reply that is no JSON) are tried again with growing pauses;
faults that stay (a wrong key, no such model, no money) end the run at once.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any

import httpx2
from filelock import FileLock

from data_tools.captioning.backend_settings import ServerSettings
from data_tools.captioning.chat import Answer, AnswerError, Message, ModelUnavailableError, Question

MAX_REPLY = 8 * 2**20  # bytes
MAX_PAUSE = 120.0  # s
PASSING = {408, 409, 425, 429}  # HTTP codes worth another try, with all from 500 up
_OWN_FAULT = re.compile(
    r"content.?(?:filter|polic|management)|context.?(?:length|window)|too long|safety", re.IGNORECASE
)


class ServerChat:
    """A `ChatModel` behind the OpenAI protocol.

    Args:
        settings: Where and how to ask.
        folder: Where the processes of a run agree on their pace.
    """

    def __init__(self, settings: ServerSettings, folder: Path) -> None:
        self.settings = settings
        self.name = settings.model
        self.small = False  # who serves a model can serve a larger one
        # Without the URL: the same model on another port gives the same answers.
        self.identity = json.dumps(["openai", settings.model, json.loads(settings.body)], sort_keys=True)
        self._pace = folder / "pace.json"
        key = os.environ.get(settings.key_variable, "").strip()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(headers=headers, timeout=settings.timeout, follow_redirects=False)

    def answer(self, question: Question) -> Answer:
        """Asks, waits and tries again.

        Raises:
            AnswerError: The server will not answer this question: its filter, or its length.
            ModelUnavailableError: The server refuses all questions, or does not come back.
        """
        body = self._body(question)
        fault = ""
        for attempt in range(self.settings.retries + 1):
            self._wait_for_turn()
            pause = self.settings.pause * 2**attempt * random.uniform(0.75, 1.25)
            try:
                status, headers, data = self._post(body)
            except httpx2.RequestError as error:
                fault = f"{type(error).__name__}: {error}"
            else:
                if status == 200:
                    try:
                        return _read_answer(data)
                    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
                        if isinstance(error, AnswerError):
                            raise
                        fault = f"a reply that is no chat completion ({error})"
                else:
                    fault = f"HTTP {status}: {_message(data)}"
                    self._judge(status, fault)
                    pause = max(pause, _retry_after(headers))
            if attempt < self.settings.retries:
                time.sleep(min(pause, MAX_PAUSE))
        raise ModelUnavailableError(
            f"{self.settings.url} did not answer in {self.settings.retries + 1} tries, the last one: {fault}. "
            "The answers so far are kept: run the same command again to resume"
        )

    def _body(self, question: Question) -> dict[str, Any]:
        reply_format = {"name": "reply", "strict": True, "schema": question.schema}
        body = {
            "model": self.settings.model,
            "messages": [_message_dict(message, question.side) for message in question.messages],
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
            "seed": question.seed,
            "response_format": {"type": "json_schema", "json_schema": reply_format},
        }
        return {key: value for key, value in (body | json.loads(self.settings.body)).items() if value is not None}

    def _post(self, body: dict[str, Any]) -> tuple[int, httpx2.Headers, bytes]:
        """Sends one request; its time limit also holds if the server sends its reply slowly."""
        end = time.monotonic() + self.settings.timeout
        data = b""
        with self._client.stream("POST", f"{self.settings.url.rstrip('/')}/chat/completions", json=body) as response:
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_REPLY:
                    raise httpx2.RequestError(
                        f"a reply of more than {MAX_REPLY // 2**20} MiB", request=response.request
                    )
                if time.monotonic() > end:
                    raise httpx2.ReadTimeout("the reply is not whole in time", request=response.request)
            return response.status_code, response.headers, data

    def _judge(self, status: int, fault: str) -> None:
        """Ends the question or the run if a retry cannot help."""
        if status == 429 and "insufficient_quota" in fault:
            raise ModelUnavailableError(f"{self.settings.url} wants money: {fault}")
        if status == 413 or (status in (400, 422) and _OWN_FAULT.search(fault)):
            raise AnswerError("refused-by-server", fault)
        if status < 500 and status not in PASSING:
            hint = {
                401: f"check the key in {self.settings.key_variable}",
                403: f"check the key in {self.settings.key_variable}",
                404: "check --url (it often ends in /v1) and --model",
            }
            advice = hint.get(status, "a field that this server does not know can be changed or taken out with --body")
            raise ModelUnavailableError(f"{self.settings.url} answered {fault}; {advice}")

    def _wait_for_turn(self) -> None:
        if not self.settings.per_minute:
            return
        self._pace.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._pace.with_suffix(".lock")):
            now = time.time()
            try:
                free = min(float(self._pace.read_text()), now + 60.0)
            except (FileNotFoundError, ValueError):
                free = now
            turn = max(now, free)
            self._pace.write_text(str(turn + 60.0 / self.settings.per_minute))
        time.sleep(max(0.0, turn - now))


def _message_dict(message: Message, side: int) -> dict[str, Any]:
    if message.image is None:
        return {"role": message.role, "content": message.text}
    data = base64.b64encode(message.image.jpeg(side)).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
    return {"role": message.role, "content": [image, {"type": "text", "text": message.text}]}


def _read_answer(data: bytes) -> Answer:
    reply = json.loads(data)
    choice = reply["choices"][0]
    if choice["message"].get("refusal") or choice.get("finish_reason") == "content_filter":
        raise AnswerError("refused-by-server", str(choice["message"].get("refusal") or "content filter"))
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise ValueError("no text in it")  # noqa: TRY004
    usage = reply.get("usage") or {}
    return Answer(text, int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))


def _message(data: bytes) -> str:
    """What the server says went wrong, on one line."""
    text = data.decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        text = " ".join(str(error[key]) for key in ("message", "code") if error.get(key)) or text
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    text = " ".join(text.split())
    return text[:300] or "(no message)"


def _retry_after(headers: httpx2.Headers) -> float:
    try:
        return max(0.0, float(headers.get("retry-after", "0")))
    except ValueError:
        return 0.0
