"""How the next word of a caption is chosen, and when a caption ends.

The controls are those of transformers' `generate`, in its order: repetition penalty, no-repeat n-gram, minimal length,
temperature, top-k, top-p, min-p. `V` is the vocabulary, of which the last token ends a caption.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from seedstory.errors import RequestError
from seedstory.settings import StorySettings, check_sampling, check_stops
from seedstory.text import sentence_ends

LogitsProcessor = Callable[[int, Sequence[int], torch.Tensor], torch.Tensor | None]
"""A user's own control: page (from 0), the caption's ids so far and their scores `[V]` to new scores, or None."""

Scores = npt.NDArray[np.float32]

_GREEDY = 1e-6  # a temperature below this would overflow float32
_PROBABLE = 1e-3
_DRAWN = 1024


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings of caption sampling, a part of `StorySettings`, which holds their defaults and ranges.

    Args:
        temperature: Divides the scores; 0 takes the best token always (greedy).
        top_k: Choose among this many best tokens; 0 is off.
        top_p: Choose among the best tokens that together reach this probability; 1 is off.
        min_p: Choose among tokens at least this fraction as probable as the best one (arXiv 2407.01082); 0 is off.
        repetition_penalty: Above 1, tokens already used score less (CTRL, arXiv 1909.05858); 1 is off.
        no_repeat_ngram_size: Never write a run of this many tokens twice; 0 is off.
        history_pages: Earlier pages that count as already used, besides the caption being written.
        min_caption_tokens: Shortest caption: neither the end token nor a stop ends one before.
        max_caption_tokens: Longest caption; a longer one is cut after its last whole sentence.
        stop: A caption ends right after any of these strings; capitals and spaces count.
        max_sentences: A caption ends after this many sentences; 0 is off.
        text_guidance_scale: Scale of classifier-free guidance of the text, see `apply_guidance`; 1 is off.

    Raises:
        RequestError: If a setting is out of range.
    """

    temperature: float = StorySettings.temperature
    top_k: int = StorySettings.top_k
    top_p: float = StorySettings.top_p
    min_p: float = StorySettings.min_p
    repetition_penalty: float = StorySettings.repetition_penalty
    no_repeat_ngram_size: int = StorySettings.no_repeat_ngram_size
    history_pages: int = StorySettings.history_pages
    min_caption_tokens: int = StorySettings.min_caption_tokens
    max_caption_tokens: int = StorySettings.max_caption_tokens
    stop: tuple[str, ...] = StorySettings.stop
    max_sentences: int = StorySettings.max_sentences
    text_guidance_scale: float = StorySettings.text_guidance_scale

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", check_stops(self.stop))
        check_sampling(self)

    @classmethod
    def of(cls, settings: StorySettings) -> "SamplingConfig":
        """What a story's settings say about its words."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


def page_generator(seed: int, page: int) -> torch.Generator:
    """Random numbers of one page, so that a page does not depend on how the pages before it came about."""
    digest = hashlib.sha256(f"{seed}/{page}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def apply_guidance(cond: torch.Tensor, uncond: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance of the text (Sanchez et al., 2023, arXiv 2306.17806, equation 7).

    Args:
        cond: Scores given the whole story, `[..., V]`.
        uncond: Scores without what the text shall be drawn towards, `[..., V]`.
        scale: 0 gives `uncond`, 1 gives `cond`, more goes beyond it.

    Returns:
        Scores in float32, `[..., V]`.
    """
    cond, uncond = cond.float().log_softmax(-1), uncond.float().log_softmax(-1)
    return uncond + scale * (cond - uncond)


class CaptionSampler:
    """Chooses the tokens of one caption.

    Args:
        config: Settings.
        end_id: The id that ends a caption (`<img>`).
        forbidden_ids: Ids that no caption may hold (end of story, special tokens).
        history: Ids of the captions before, one list a page; the last `history_pages` count.
        generator: Random numbers; None for the default ones.
        logits_processor: Called with the caption's ids so far and the scores `[V]`, float32, before any control. What
            it returns replaces the scores; None keeps them, with the changes that it made in place.
    """

    def __init__(
        self,
        config: SamplingConfig,
        *,
        end_id: int,
        forbidden_ids: Sequence[int] = (),
        history: Sequence[Sequence[int]] = (),
        generator: torch.Generator | None = None,
        logits_processor: Callable[[Sequence[int], torch.Tensor], torch.Tensor | None] | None = None,
    ) -> None:
        self.config, self.end_id, self.generator, self.logits_processor = config, end_id, generator, logits_processor
        self.reads_text = bool(config.stop or config.max_sentences)
        self._forbidden = np.array([id for id in forbidden_ids if id != end_id], dtype=np.int64)
        recent = history[max(0, len(history) - config.history_pages) :]
        self._used: list[int] = []
        if config.repetition_penalty != 1:
            self._used = sorted({id for page in recent for id in page})
        self._followers: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        if size := config.no_repeat_ngram_size:
            for page in recent:
                for end in range(size - 1, len(page)):
                    self._followers[tuple(page[end - size + 1 : end])].append(page[end])
        self._bound = 0

    def __call__(self, logits: torch.Tensor, caption: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: Scores of the next token, `[V]`.
            caption: Ids of the caption so far.

        Returns:
            Its id.

        Raises:
            RequestError: As `choices`.
        """
        ids, probabilities = self.choices(logits, caption)
        if self.config.temperature < _GREEDY:
            return int(ids)
        # A draw takes as many random numbers whether two tokens are probable or a thousand, so what is drawn next
        # does not depend on it.
        weights = functional.pad(probabilities, (0, max(0, _DRAWN - len(probabilities))))
        return int(ids[torch.multinomial(weights, 1, generator=self.generator)])

    def choices(self, logits: torch.Tensor, caption: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the controls leave of the next token.

        Args:
            logits: Scores of the next token, `[V]`.
            caption: Ids of the caption so far.

        Returns:
            Ids of the tokens that may come, `[C]`, and their probabilities, `[C]`, which add up to 1.

        Raises:
            RequestError: If the model or the logits processor returns NaN or positive infinity, or no token is left.
        """
        config, size = self.config, len(caption)
        # A vocabulary is a little too much for one thread in torch's eyes, and waiting for two costs more: hence numpy.
        scores = np.array(logits.detach().to("cpu", torch.float32).numpy())
        if not scores.max() < np.inf:
            raise RequestError(
                "The language model returned NaN or infinite scores; its weights are damaged or overflow."
            )
        if self.logits_processor is not None:
            scores = self._processed(scores, caption)
        if config.repetition_penalty != 1 and (used := [*self._used, *caption]):
            seen, penalty = scores[used], np.float32(config.repetition_penalty)
            scores[used] = np.where(seen > 0, seen / penalty, seen * penalty)
        if config.no_repeat_ngram_size:
            scores[self._repeats(list(caption))] = -np.inf
        scores[self._forbidden] = -np.inf
        if size < config.min_caption_tokens:
            scores[self.end_id] = -np.inf
        if scores.max() == -np.inf:
            raise RequestError(
                f"No token may follow the {size} of this caption: allow more in the logits processor, or loosen "
                f"no_repeat_ngram_size (now {config.no_repeat_ngram_size}) "
                f"or min_caption_tokens (now {config.min_caption_tokens})."
            )
        if config.temperature < _GREEDY:
            return torch.tensor([int(scores.argmax())]), torch.ones(1)
        ids, probabilities = self._truncate(np.divide(scores, config.temperature, dtype=np.float32))
        return torch.from_numpy(ids), torch.from_numpy(probabilities)

    def finished(self, text: str, caption: Sequence[int]) -> str | None:
        """The caption if a stop condition ends it, else None. To be asked after every token; idle unless `reads_text`.

        A stop string ends a caption right after itself, and what its last token brought beyond it is cut. A sentence
        is over when the next one begins, because only then `"Stop!"` and `"Stop!" he cried.` can be told apart; the
        end token and `max_caption_tokens` end a caption before that. What stood there before `min_caption_tokens`
        were written ends nothing.

        Args:
            text: Text of the caption so far.
            caption: Its ids.
        """
        if len(caption) < self.config.min_caption_tokens:
            self._bound = len(text)
            return None
        found = [(text.find(stop, max(0, self._bound + 1 - len(stop))), len(stop)) for stop in self.config.stop]
        ends = [start + length for start, length in found if start >= 0]
        if count := self.config.max_sentences:
            sentences = sentence_ends(text, followed=True)
            ends += [end for end in sentences[count - 1 :] if end > self._bound][:1]
        return text[: min(ends)].strip() if ends else None

    def _processed(self, own: Scores, caption: Sequence[int]) -> Scores:
        assert self.logits_processor is not None
        scores = torch.from_numpy(own)
        returned = self.logits_processor(caption, scores)
        if returned is not None:
            if not isinstance(returned, torch.Tensor) or returned.shape != scores.shape:
                what = list(returned.shape) if isinstance(returned, torch.Tensor) else type(returned).__name__
                raise RequestError(
                    f"The logits processor returned {what}: return scores of shape {list(scores.shape)} or None."
                )
            own = np.array(returned.detach().to("cpu", torch.float32).numpy())
        if not own.max() < np.inf:
            raise RequestError(
                "The logits processor left NaN or infinite scores: forbid a token with -inf, never with NaN."
            )
        return own

    def _repeats(self, caption: list[int]) -> list[int]:
        """Tokens that would complete a run which is already there."""
        size = self.config.no_repeat_ngram_size
        if len(caption) < size - 1:
            return []
        run = caption[len(caption) - size + 1 :]
        here = [caption[end] for end in range(size - 1, len(caption)) if caption[end - size + 1 : end] == run]
        return here + self._followers.get(tuple(run), [])

    def _truncate(self, scores: Scores) -> tuple[npt.NDArray[np.int64], Scores]:
        """Top-k, top-p and min-p of scores `[V]`: ids and probabilities `[C]`, the best first unless top-p is off."""
        config = self.config
        ids = None
        if 0 < config.top_k < len(scores):
            ids = np.flatnonzero(scores >= np.partition(scores, -config.top_k)[-config.top_k])
            scores = scores[ids]
        probabilities = np.exp(scores - scores.max())
        probabilities /= probabilities.sum()
        if config.top_p < 1:
            # Sorting the whole vocabulary costs more than a layer of a small model. The tokens above the first bound
            # are few, and those below the second together have less than what top-p leaves out.
            for bound in (_PROBABLE, (1 - config.top_p) / len(probabilities)):
                likely = np.flatnonzero(probabilities >= bound)
                order = np.argsort(-probabilities[likely], kind="stable")
                best = probabilities[likely[order]]
                if best.sum() >= config.top_p:
                    break
            best = best[best.cumsum() - best < config.top_p]
            chosen = likely[order[: len(best)]]
            probabilities, ids = best, chosen if ids is None else ids[chosen]
        if config.min_p > 0:
            keep = np.flatnonzero(probabilities >= np.float32(config.min_p) * probabilities.max())
            probabilities, ids = probabilities[keep], keep if ids is None else ids[keep]
        ids = np.arange(len(probabilities)) if ids is None else ids
        return ids, probabilities / probabilities.sum()
