"""A continuous story over the descriptions of its images, narrated page by page.

A whole book asked for in one reply breaks: a page is skipped, two are merged, the JSON ends early. So each page is a
question of its own, in one growing conversation: what the picture shows, answered by the text of the page. A reply
is judged before it becomes part of the story, and sent back with the reason where it cannot be used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_tools.captioning.answers import Answers
from data_tools.captioning.chat import AnswerError, Message, Question
from data_tools.captioning.describing import tokens_for
from data_tools.captioning.replies import check_narration, clean_page

_TASK = """\
You write the text of a picture book{title}, one page at a time. For each page you are told what its picture shows. \
Tell what happens there as the next part of one continuous story, in the past tense, {low} to {high} words a page: \
keep names and events as they are, link each page to the one before, repeat nothing, and never mention a picture.\
{requests} Reply with a JSON object and nothing else: {{"text": "..."}}"""

# What a small model is shown before its story: descriptions, and how they are narrated.
_EXAMPLE = (
    (
        "A frog with a red umbrella sits on a log.",
        "Once upon a time there was a little frog who sat on a log. He held a red umbrella, for he did not like rain.",
    ),
    (
        "The wind takes the umbrella. The frog jumps.",
        "Suddenly the wind took the umbrella away! The frog jumped as high as he could to catch it.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class NarrationStyle:
    """How a story is narrated.

    Attributes:
        instructions: Further instructions, such as "Write for children of four" or "Write in rhymes".
        language: Language to write in, as a BCP 47 tag.
        min_words: Shortest page.
        max_words: Longest page; a longer one is cut after its last whole sentence.
        memory: How many of the last pages the model sees; 0 is all. None: all, or two if the model is small.
        lookahead: How many of the coming descriptions it sees, so that it can lead up to them. None: two, or none if
            the model is small.
        temperature: Of the sampling; 0 takes the likeliest word.
        top_p: Probability mass that words are sampled from.
        seed: Seed of the sampling.
    """

    instructions: str = ""
    language: str = "en"
    min_words: int = 5
    max_words: int = 60
    memory: int | None = None
    lookahead: int | None = None
    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words <= 1000:
            raise ValueError(f"--words must be two numbers from 1 to 1000, not {self.min_words} {self.max_words}")
        if not re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", self.language):
            raise ValueError(f"--language must be a tag like en, sw or pt-BR, not {self.language!r}")
        if (self.memory or 0) < 0 or (self.lookahead or 0) < 0:
            raise ValueError("--memory and --lookahead count pages: give 0 or more")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"--temperature must be 0 to 2, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p must be above 0 and at most 1, not {self.top_p}")


class ChatNarrator:
    """A `Narrator` that asks a chat model.

    Args:
        answers: The model behind its answers on disk.
        style: How to narrate.
    """

    def __init__(self, answers: Answers, style: NarrationStyle) -> None:
        self.answers = answers
        self.style = style

    def narrate(self, title: str, history: Sequence[str], descriptions: Sequence[str]) -> str:
        """Narrates the next page; see `Narrator`."""
        style, page = self.style, len(history)

        def judge(text: str) -> str:
            text = clean_page(text, min_words=style.min_words, max_words=style.max_words)
            check_narration(text, history, descriptions[page])
            return text

        question = Question(
            messages=self._conversation(title, history, descriptions),
            field="text",
            max_tokens=tokens_for(style.max_words),
            temperature=style.temperature,
            top_p=style.top_p,
            seed=style.seed,
        )
        return self.answers.ask(question, judge)

    def _conversation(self, title: str, history: Sequence[str], descriptions: Sequence[str]) -> tuple[Message, ...]:
        style, page, count, small = self.style, len(history), len(descriptions), self.answers.model.small
        memory = (2 if small else 0) if style.memory is None else style.memory
        lookahead = (0 if small else 2) if style.lookahead is None else style.lookahead
        requests = [style.instructions.strip()]
        if style.language != "en":
            requests.append(f"Write in the language that has the tag “{style.language}”.")
        task = _TASK.format(
            title=f" called “{title}”" if title else "",
            low=style.min_words,
            high=style.max_words,
            requests="".join(f" {request}" for request in requests if request),
        )
        example = _EXAMPLE if small else ()
        pairs = [(_asked(place, len(example), shown), text) for place, (shown, text) in enumerate(example)]
        earlier = range(max(0, page - memory) if memory else 0, page)
        pairs += [(_asked(place, count, descriptions[place]), history[place]) for place in earlier]
        messages = [Message("system", task)]
        for shown, text in pairs:
            messages += [Message("user", shown), Message("assistant", json.dumps({"text": text}, ensure_ascii=False))]
        coming = " ".join(descriptions[page + 1 : page + 1 + lookahead])
        asked = _asked(page, count, descriptions[page])
        if coming:
            asked = f"Later in the story, not to be told yet: {coming}\n\n{asked}"
        return (*messages, Message("user", asked))


class PlainNarrator:
    """A `Narrator` without a model: the description of the picture is the text of its page."""

    def narrate(self, title: str, history: Sequence[str], descriptions: Sequence[str]) -> str:
        """The description of the page, unchanged; see `Narrator`."""
        text = descriptions[len(history)].strip()
        if not text:
            raise AnswerError("no-description", "nothing is known of this page")
        return text


def _asked(page: int, count: int, description: str) -> str:
    place = ", the beginning" if page == 0 else ", the end" if page == count - 1 else ""
    return f"Page {page + 1} of {count}{place}. The picture shows: {description}"
