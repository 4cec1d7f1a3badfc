"""The books of all rows of a cache: what is held of each story. Keys and values lie in `StoryCacheLayer`."""

from collections.abc import Sequence

import torch

from seedstory.cache.kept_tokens import KeptTokens


class Books:
    """What is held of each row, without keys and values.

    The layers know this and not the cache: in a circle of references, hundreds of MiB would outlive their last use
    until Python's full collection, which a large program hardly ever reaches.

    Attributes:
        rows: The books of each story.
        capacity: Tokens a row has room for, in the static form.
        lengths: In the static form, tokens held of each story, on the device, `[B]`.
        evicted_counts: Likewise, tokens that are no longer held.
        in_decoding_step: Whether the pass under way is the static form's one-token step.
    """

    def __init__(self, stories: int, capacity: int | None, device: torch.device) -> None:
        self.rows = [KeptTokens() for _ in range(stories)]
        self.capacity = capacity
        self.lengths = torch.zeros(stories, dtype=torch.long, device=device)
        self.evicted_counts = torch.zeros_like(self.lengths)
        self.in_decoding_step = False

    def advance(self, counts: Sequence[int]) -> None:
        """Note that the next tokens of each story are held."""
        for row, count in zip(self.rows, counts, strict=True):
            row.advance(count)
        self.sync_device()

    def select(self, rows: Sequence[int | None]) -> None:
        """Keep these rows alone; None is a new one."""
        self.rows = [KeptTokens() if row is None else self.rows[row] for row in rows]
        self.lengths = self.lengths.new_zeros(len(rows))
        self.evicted_counts = torch.zeros_like(self.lengths)
        self.sync_device()

    def sync_device(self) -> None:
        """Bring the counts on the device up to date; only the static form reads them."""
        if self.capacity is not None:
            books = torch.tensor([[row.length for row in self.rows], [row.evicted_count for row in self.rows]])
            self.lengths.copy_(books[0], non_blocking=True)
            self.evicted_counts.copy_(books[1], non_blocking=True)
