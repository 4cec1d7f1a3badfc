"""What the stories of a data set share, and splits that share nothing.

Legend: P pages, S stories.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

_BANDS = 16  # of 16 bits each: two fingerprints that differ in fewer than 16 bits agree on one of them for certain


class UnionFind:
    """Groups of what is linked, directly or through others (union-find); the first member stands for its group.

    Args:
        size: How many members there are; at first each is a group of its own.
    """

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def first(self, member: int) -> int:
        """The first member of its group."""
        while self._above[member] != member:
            self._above[member] = self._above[self._above[member]]
            member = self._above[member]
        return member

    def join(self, one: int, other: int) -> None:
        """Links two members."""
        one, other = sorted((self.first(one), self.first(other)))
        self._above[other] = one

    def groups(self) -> list[list[int]]:
        """All groups, by their first members."""
        found = defaultdict(list)
        for member in range(len(self._above)):
            found[self.first(member)].append(member)
        return list(found.values())


def distances(prints: np.ndarray, others: np.ndarray) -> np.ndarray:
    """In how many bits fingerprints differ; uint8 `[..., 32]` each, broadcast against each other."""
    return np.bitwise_count(np.bitwise_xor(prints, others)).sum(axis=-1, dtype=np.int32)


def near_links(prints: np.ndarray, distance: int) -> np.ndarray:
    """Links between pictures whose fingerprints differ in at most `distance` bits.

    Only fingerprints that agree on one of 16 bands are compared, so the work grows with what is alike and not with the
    square of the data set. Up to 15 bits no pair is missed; at 24 bits, about one in a hundred.

    Args:
        prints: Fingerprints, uint8 [P, 32].
        distance: The most bits.

    Returns:
        Pairs of rows, int64 [N, 2]. Of several equal fingerprints only the first is paired with others.
    """
    _, firsts, copies = np.unique(prints, axis=0, return_index=True, return_inverse=True)
    equal = np.stack([firsts[copies.ravel()], np.arange(len(prints))], axis=1)
    rows = np.sort(firsts)
    bands = np.ascontiguousarray(prints[rows]).view(np.uint16).reshape(len(rows), _BANDS)
    found = [equal[equal[:, 0] != equal[:, 1]]]
    for band in range(_BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        values = bands[order, band]
        step = 1
        left = np.flatnonzero(values[:-1] == values[1:])
        while len(left):  # neighbors `step` places apart in the same bucket
            one, other = rows[order[left]], rows[order[left + step]]
            near = distances(prints[one], prints[other]) <= distance
            found.append(np.stack([one[near], other[near]], axis=1))
            step += 1
            left = left[left + step < len(values)]
            left = left[values[left] == values[left + step]]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def text_key(text: str, words: int = 12) -> bytes | None:
    """A key that long texts share when they differ in case and punctuation only; None of a text that is shorter."""
    plain = "".join(c if c.isalnum() else " " for c in text.casefold()).split()
    return hashlib.sha256(" ".join(plain).encode()).digest()[:16] if len(plain) >= words else None


def assign_splits(
    groups: Sequence[Sequence[int]], ids: Sequence[str], weights: Sequence[int], shares: dict[str, float], seed: int
) -> list[str]:
    """Assigns groups of stories to splits, so that each split has its share of the pages and no group is divided.

    Groups larger than the smallest share go first, the largest ahead, then the others in a seeded order that depends on
    ids alone; each to the split that lacks most.

    Args:
        groups: Numbers of stories that stay together.
        ids: Id of each story.
        weights: Pages of each story.
        shares: Which part of the pages each split should have.
        seed: Another seed gives another order.

    Returns:
        The split of each story, [S].
    """
    total = sum(weights)
    lacking = {name: total * share for name, share in shares.items()}
    sizes = [sum(weights[story] for story in group) for group in groups]
    large = min(lacking.values())

    def turn(place: int) -> tuple[int, bytes]:
        name = min(ids[story] for story in groups[place])
        return -sizes[place] if sizes[place] > large else 0, hashlib.sha256(f"{seed} {name}".encode()).digest()

    splits = [""] * len(weights)
    for place in sorted(range(len(groups)), key=turn):
        name = max(lacking, key=lambda name: lacking[name])
        lacking[name] -= sizes[place]
        for story in groups[place]:
            splits[story] = name
    return splits


def gather(groups: Sequence[Sequence[int]], weights: Sequence[int], splits: Sequence[str]) -> list[str]:
    """Moves the groups that span several splits into the one that holds most of their pages.

    Returns:
        The split of each story, [S].
    """
    moved = list(splits)
    for group in groups:
        pages: Counter[str] = Counter()
        for story in group:
            pages[splits[story]] += weights[story]
        home = min(pages, key=lambda name: (-pages[name], name))
        for story in group:
            moved[story] = home
    return moved
