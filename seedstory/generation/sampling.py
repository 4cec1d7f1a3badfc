"""How the next word of a caption is chosen."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_CANDIDATES = 1024
_PAGE_BREAK = -1


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings of caption sampling; the defaults suit picture-book captions.

    Args:
        temperature: Divides the scores; 0 takes the best token always (greedy).
        top_k: Choose among this many best tokens; 0 is off.
        top_p: Choose among the best tokens that together reach this probability; 1 is off.
        min_p: Choose among tokens at least this fraction as probable as the best one (arXiv 2407.01082); 0 is off.
        repetition_penalty: Above 1, tokens already used score less (CTRL, arXiv 1909.05858); 1 is off.
        no_repeat_ngram: Never write a run of this many tokens twice; 0 is off.
        history_pages: Earlier pages that count as already used, besides the caption being written.
        max_caption_tokens: Longest caption; a longer one is cut after its last whole sentence.

    Raises:
        ValueError: If a setting is out of range.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    history_pages: int = 3
    max_caption_tokens: int = 96

    def __post_init__(self) -> None:
        checks = {
            "temperature must not be negative": self.temperature >= 0,
            "top_k must not be negative": self.top_k >= 0,
            "top_p must lie in (0, 1]": 0 < self.top_p <= 1,
            "min_p must lie in [0, 1)": 0 <= self.min_p < 1,
            "repetition_penalty must be positive": self.repetition_penalty > 0,
            "no_repeat_ngram must be 0 or at least 2": self.no_repeat_ngram == 0 or self.no_repeat_ngram >= 2,
            "history_pages must not be negative": self.history_pages >= 0,
            "max_caption_tokens must be at least 1": self.max_caption_tokens >= 1,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(f"{message}, got {getattr(self, message.split()[0])}.")


def page_generator(seed: int, page: int) -> torch.Generator:
    """Random numbers of one page, so that a page does not depend on how the pages before it came about."""
    digest = hashlib.sha256(f"{seed}/{page}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class CaptionSampler:
    """Chooses the tokens of one caption.

    Args:
        config: Settings.
        end_id: The id that ends a caption (`<img>`); it can not be the first token.
        forbidden_ids: Ids that no caption may hold (end of story, special tokens).
        history: Ids of the captions before, one list a page; the last `history_pages` count.
        generator: Random numbers; None for the default ones.
    """

    def __init__(
        self,
        config: SamplingConfig,
        *,
        end_id: int,
        forbidden_ids: Sequence[int] = (),
        history: Sequence[Sequence[int]] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        self.config, self.end_id, self.generator = config, end_id, generator
        self._forbidden = torch.tensor([id for id in forbidden_ids if id != end_id], dtype=torch.long)
        recent = history[max(0, len(history) - config.history_pages) :]
        self._before = [id for page in recent for id in [*page, _PAGE_BREAK]]

    def __call__(self, logits: torch.Tensor, caption: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: Scores of the next token, `[V]`.
            caption: Ids of the caption so far.

        Returns:
            Its id.

        Raises:
            ValueError: If a score is NaN or positive infinity.
        """
        scores = logits.detach().to("cpu", torch.float32, copy=True)
        if not bool(scores.max() < torch.inf):
            raise ValueError("The language model returned NaN or infinite scores; its weights are damaged or overflow.")
        used = torch.tensor([*self._before, *caption], dtype=torch.long)
        self._penalise(scores, used[used != _PAGE_BREAK])
        self._forbid_repeats(scores, used, len(caption))
        scores[self._forbidden] = -torch.inf
        if not caption:
            scores[self.end_id] = -torch.inf
        assert scores.max() > -torch.inf, "every token is forbidden"
        return int(scores.argmax()) if self.config.temperature == 0 else self._draw(scores)

    def _penalise(self, scores: torch.Tensor, used: torch.Tensor) -> None:
        penalty = self.config.repetition_penalty
        if penalty != 1 and len(used):
            seen = scores[used]
            scores[used] = torch.where(seen > 0, seen / penalty, seen * penalty)

    def _forbid_repeats(self, scores: torch.Tensor, used: torch.Tensor, written: int) -> None:
        size = self.config.no_repeat_ngram
        if size and written >= size - 1 and len(used) >= size:
            runs = used.unfold(0, size, 1)
            repeats = runs[(runs[:, :-1] == used[len(used) - size + 1 :]).all(dim=1), -1]
            scores[repeats[repeats != _PAGE_BREAK]] = -torch.inf

    def _draw(self, scores: torch.Tensor) -> int:
        config = self.config
        probabilities = (scores / config.temperature).softmax(dim=0)
        # Sorting the whole vocabulary costs as much as a layer of a small model and is rarely needed.
        count = min(config.top_k or _CANDIDATES, len(scores))
        best, ids = probabilities.topk(count)
        if not config.top_k and best.sum() < config.top_p:
            best, ids = probabilities.sort(descending=True)
        if config.top_k:
            best = best / best.sum()
        elif config.top_p == 1:
            best, ids = probabilities, torch.arange(len(probabilities))
        keep = best >= config.min_p * best.max()
        if config.top_p < 1:
            keep &= best.cumsum(0) - best < config.top_p
        return int(ids[torch.multinomial(best * keep, 1, generator=self.generator)])
