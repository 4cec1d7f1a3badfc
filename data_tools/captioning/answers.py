"""Answers kept on disk by what was asked, so that no question is paid for twice and a killed run resumes for free."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from data_tools.captioning.chat import Answer, AnswerError, ChatModel, Message, Question
from data_tools.captioning.replies import BadReply, read_reply
from seedstory.io import write_atomic

Value = TypeVar("Value")
HOTTER = 0.3  # added to the temperature each time the same question is asked again, or the same reply comes back


@dataclass(frozen=True)
class Usage:
    """What a run has asked for, and how much of it was new.

    Attributes:
        answers: Answers used, those from disk included.
        asked: Answers that the model was asked for in this run.
        prompt_tokens: Tokens that the model read for the new answers.
        reply_tokens: Tokens that it wrote for them.
        repairs: Replies that could not be used, so that the model was asked again.
    """

    answers: int = 0
    asked: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    repairs: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values())))

    def cost(self, prompt_price: float, reply_price: float) -> float:
        """Cost of the new answers, from prices per million tokens."""
        return (self.prompt_tokens * prompt_price + self.reply_tokens * reply_price) / 1e6


class Answers:
    """A chat model behind the answers it has given already.

    Args:
        model: Who is asked.
        folder: Where answers are kept, one small JSON file each.
        repairs: How often a reply that cannot be used is sent back with the reason.
    """

    def __init__(self, model: ChatModel, folder: Path, repairs: int = 2) -> None:
        self.model = model
        self.folder = folder
        self.repairs = repairs
        self.usage = Usage()

    def ask(self, question: Question, judge: Callable[[str], Value]) -> Value:
        """Asks until a reply can be used.

        Args:
            question: What to ask.
            judge: Makes of the reply's text what is wanted, or raises `BadReply` with what is wrong.

        Raises:
            AnswerError: No reply could be used, or the question was refused.
            ModelUnavailableError: The model cannot be asked at all.
        """
        for attempt in range(self.repairs + 1):
            answer = self._answer(question)
            try:
                return judge(read_reply(answer.text, question.field))
            except BadReply as fault:
                if attempt == self.repairs:
                    raise AnswerError("unusable-reply", f"{fault} (asked {attempt + 1} times)") from None
                self.usage += Usage(repairs=1)
                question = _again(question, answer.text, str(fault), attempt, self.model.small)
        raise AssertionError

    def _answer(self, question: Question) -> Answer:
        digest = question.digest(self.model.identity)
        path = self.folder / digest[:2] / f"{digest}.json"
        answer = _read(path)
        if answer is None:
            answer = self.model.answer(question)
            _write(path, answer)
            self.usage += Usage(0, 1, answer.prompt_tokens, answer.reply_tokens)
        self.usage += Usage(answers=1)
        return answer


def _again(question: Question, reply: str, fault: str, attempt: int, small: bool) -> Question:
    """The question once more, after a reply that cannot be used."""
    seed = question.seed + 1
    if small:
        return replace(question, seed=seed, temperature=min(2.0, question.temperature + HOTTER))
    asked = question.messages if attempt == 0 else question.messages[:-2]  # only the last bad reply is shown
    again = f"That reply cannot be used: {fault}. Reply once more, with the JSON object and nothing else."
    return replace(question, messages=(*asked, Message("assistant", reply), Message("user", again)), seed=seed)


def _read(path: Path) -> Answer | None:
    try:
        return Answer(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):  # absent, or damaged from outside: ask again
        return None


def _write(path: Path, answer: Answer) -> None:
    data = json.dumps(asdict(answer), ensure_ascii=False).encode("utf-8", "backslashreplace")
    write_atomic(path, data, make_folder=True)
