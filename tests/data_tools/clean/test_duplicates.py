"""Links find what is alike, and splits keep it together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_tools.clean.duplicates import UnionFind, assign_splits, distances, gather, near_links, text_key

PRINTS = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).integers(0, 256, (12, 32), np.uint8))


def flipped(prints: np.ndarray, count: int, seed: int) -> np.ndarray:
    bits = np.unpackbits(prints)
    bits[np.random.default_rng(seed).permutation(256)[:count]] ^= 1
    return np.packbits(bits)


@given(PRINTS, st.lists(st.tuples(st.integers(0, 11), st.integers(0, 15)), max_size=20))
def test_links_join_what_plain_comparison_joins(prints, copies):
    prints = np.concatenate([prints, *(flipped(prints[n], bits, bits + n)[None] for n, bits in copies)])
    found, plain = UnionFind(len(prints)), UnionFind(len(prints))
    for one, other in near_links(prints, 15).tolist():
        assert distances(prints[one], prints[other]) <= 15
        found.join(one, other)
    for one in range(len(prints)):
        for other in range(one):
            if distances(prints[one], prints[other]) <= 15:
                plain.join(one, other)
    assert found.groups() == plain.groups()


def test_many_equal_images_take_no_time():
    prints = np.zeros((200_000, 32), np.uint8)
    assert len(near_links(prints, 24)) == len(prints) - 1
    assert len(near_links(prints[:0], 24)) == 0


def test_long_texts_are_distinguished_by_their_words_only():
    long = "One day, Anansi the spider picked some yams from his garden. They were extra beautiful."
    assert text_key(long) == text_key(long.upper().replace(",", " –"))
    assert text_key(long) != text_key(long.replace("yams", "figs"))
    assert text_key("The end.") is None


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 5), st.data())
def test_dealing_parts_no_group_and_keeps_the_shares(weights, seed, data):
    owners = data.draw(st.lists(st.integers(0, 20), min_size=len(weights), max_size=len(weights)))
    groups = [[n for n, owner in enumerate(owners) if owner == group] for group in sorted(set(owners))]
    ids = [f"s-{n}" for n in range(len(weights))]
    shares = {"train": 0.8, "val": 0.2}
    splits = assign_splits(groups, ids, weights, shares, seed)
    assert all(len({splits[story] for story in group}) == 1 for group in groups)
    largest = max(sum(weights[story] for story in group) for group in groups)
    for name, share in shares.items():
        pages = sum(weight for weight, split in zip(weights, splits, strict=True) if split == name)
        assert abs(pages - share * sum(weights)) <= largest


def test_gathering_moves_a_group_to_where_most_of_it_is():
    assert gather([[0, 1], [2]], [3, 8, 5], ["val", "train", "val"]) == ["train", "train", "val"]
