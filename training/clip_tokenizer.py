"""A tokenizer of CLIP's kind whose words are those of one's own prompts, the same whenever it is made.

The library `tokenizers` breaks ties between pairs by the order of a hash table, so that two runs on the same prompts
give different tokens; a run that goes on would read other ids than those it was trained on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

_START, _END, _LAST = "<|startoftext|>", "<|endoftext|>", "</w>"


def make_tokenizer(prompts: Iterable[str], vocabulary: int, max_tokens: int) -> CLIPTokenizer:
    """A tokenizer that knows the most frequent words of the prompts, and every other text byte by byte.

    Args:
        prompts: What it is to read.
        vocabulary: Tokens, at least the 514 that every such tokenizer has; fewer if the prompts have no more.
        max_tokens: Of a prompt.

    Raises:
        ValueError: The vocabulary is too small.
    """
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + _LAST for letter in letters)]
    if vocabulary < len(tokens) + 2:
        raise ValueError(f"vocabulary must be at least {len(tokens) + 2}, not {vocabulary}")
    reader = CLIPTokenizer(vocab={_START: 0, _END: 1}, merges=[]).backend_tokenizer
    words: Counter[str] = Counter()
    for prompt in prompts:
        words.update(word for word, _ in reader.pre_tokenizer.pre_tokenize_str(reader.normalizer.normalize_str(prompt)))
    merges = learn_merges(words, vocabulary - len(tokens) - 2)
    tokens += dict.fromkeys(left + right for left, right in merges)
    vocab = {token: number for number, token in enumerate([*tokens, _START, _END])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_tokens)


def learn_merges(words: Counter[str], count: int) -> list[tuple[str, str]]:
    """The pairs of tokens that are joined, the most frequent first (byte pair encoding, arXiv 1508.07909).

    Args:
        words: How often each occurs.
        count: At most so many; equally frequent ones in the order of the alphabet.
    """
    spelled = {word: [*word[:-1], word[-1] + _LAST] for word in sorted(words)}
    pairs: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, str], set[str]] = defaultdict(set)

    def add(word: str, sign: int) -> None:
        parts = spelled[word]
        for pair in zip(parts, parts[1:], strict=False):
            pairs[pair] += sign * words[word]
            found[pair].add(word)

    for word in spelled:
        add(word, 1)
    merges: list[tuple[str, str]] = []
    while len(merges) < count and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] <= 0:
            break
        merges.append(best)
        for word in found.pop(best):
            add(word, -1)
            parts, joined = spelled[word], []
            while parts:
                size = 2 if tuple(parts[:2]) == best else 1
                joined.append("".join(parts[:size]))
                parts = parts[size:]
            spelled[word] = joined
            add(word, 1)
        del pairs[best]
    return merges
