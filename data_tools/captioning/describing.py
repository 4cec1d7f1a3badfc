"""What each picture shows, in words: `pages[].description` of every page."""

from __future__ import annotations

from dataclasses import dataclass

from data_tools.captioning.answers import Answers
from data_tools.captioning.chat import AnswerError, Message, PromptImage, Question
from data_tools.captioning.replies import clean_page

_TASK = """\
You describe the pictures of a story for somebody who must draw them again without having seen them. Say who is there \
and what they look like, what they do and feel, where it happens, and how the picture is composed, in {low} to {high} \
words of plain prose. Describe only what can be seen, and guess at nothing. Use a name only where you are told it. \
Reply with a JSON object and nothing else: {{"description": "..."}}"""


@dataclass(frozen=True, kw_only=True)
class DescribingStyle:
    """How pictures are described.

    Attributes:
        hint: What holds for all pictures, such as who the characters are and how to distinguish them.
        min_words: Shortest description.
        max_words: Longest description; a longer one is cut after its last whole sentence.
        side: Longest side in px at which a model sees a picture.
        temperature: Of the sampling; 0 takes the likeliest word.
        seed: Seed of the sampling.
    """

    hint: str = ""
    min_words: int = 5
    max_words: int = 120
    side: int = 768
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words <= 1000:
            raise ValueError(f"--words must be two numbers from 1 to 1000, not {self.min_words} {self.max_words}")
        if not 32 <= self.side <= 4096:
            raise ValueError(f"--side must be 32 to 4096 px, not {self.side}")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"--temperature must be 0 to 2, not {self.temperature}")


class ChatDescriber:
    """A `Describer` that asks a chat model which sees.

    Args:
        answers: The model behind its answers on disk.
        style: How to describe.
    """

    def __init__(self, answers: Answers, style: DescribingStyle) -> None:
        self.answers = answers
        self.style = style

    def describe(self, image: PromptImage, context: str) -> str:
        """Describes a picture; see `Describer`."""
        style = self.style
        known = "\n".join(part for part in (style.hint, context) if part)
        asked = f"{known}\n\nDescribe this picture." if known else "Describe this picture."
        question = Question(
            messages=(
                Message("system", _TASK.format(low=style.min_words, high=style.max_words)),
                Message("user", asked, image),
            ),
            field="description",
            max_tokens=tokens_for(style.max_words),
            temperature=style.temperature,
            seed=style.seed,
            side=style.side,
        )
        return self.answers.ask(
            question, lambda text: clean_page(text, min_words=style.min_words, max_words=style.max_words)
        )


class SourceDescriber:
    """A `Describer` without a model: what the source itself says of the picture."""

    def describe(self, image: PromptImage, context: str) -> str:
        """The context, unchanged; see `Describer`."""
        if not context.strip():
            raise AnswerError("no-description", "the source has no words for this picture")
        return context.strip()


def tokens_for(words: int) -> int:
    """Room for a reply of so many words with its JSON, in any common vocabulary."""
    return 2 * words + 32
