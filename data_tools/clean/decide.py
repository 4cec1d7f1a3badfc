"""The second pass: what stories share decides which of them stay, and which must stay in one split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from data_tools.clean.duplicates import UnionFind, assign_splits, gather, near_links, text_key
from data_tools.clean.rules import Inspection, Rules, too_short
from data_tools.drops import Drop


@dataclass
class Plan:
    """What is decided of each story of the first pass, by its number.

    Attributes:
        pages: The pages that stay; none of a story that is dropped.
        splits: The split that a story goes to.
        groups: Numbers of the stories that stay together, of those that stay.
        moved: Stories that were moved to the split of their group; 0 where all splits were assigned anew.
        drops: What was dropped for what it shares with others.
    """

    pages: list[list[int]]
    splits: list[str]
    groups: list[list[int]]
    moved: int
    drops: list[Drop]


@dataclass
class _Facts:
    """What the decision needs of the stories, side by side."""

    ids: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    prints: list[bytes] = field(default_factory=list)
    texts: list[list[bytes]] = field(default_factory=list)
    group_keys: list[list[tuple[str, str]]] = field(default_factory=list)

    def note(self, split: str, found: Inspection, rules: Rules) -> None:
        """Adds a story."""
        record = found.record
        values = record.to_dict() if record else {}
        self.ids.append(record.id if record else "")
        self.splits.append(split)
        self.pages.append(len(found.inspections))
        self.prints += [inspection.fingerprint for inspection in found.inspections]
        self.texts.append([key for text in (record.captions if record else ()) if (key := text_key(text))])
        self.group_keys.append([(key, str(values[key])) for key in rules.group_by if values.get(key)])


def decide(stories: Iterable[tuple[str, Inspection]], rules: Rules) -> Plan:
    """Decides over all stories at once.

    Args:
        stories: The split that each comes from, and what the first pass found of it.
        rules: The rules.
    """
    facts = _Facts()
    for split, found in stories:
        facts.note(split, found, rules)
    images = _same_images(facts, rules.distance)
    pages, drops = _without_cards(facts, images, rules)
    _drop_copies(facts, images, pages, drops, rules)
    staying = [story for story, kept in enumerate(pages) if kept]
    groups = [group for group in _group_related(facts, images, staying, rules) if group[0] in set(staying)]
    weights = list(map(len, pages))
    if rules.splits:
        splits, moved = assign_splits(groups, facts.ids, weights, rules.splits, rules.seed), 0
    else:
        splits = gather(groups, weights, facts.splits)
        moved = sum(old != new for old, new in zip(facts.splits, splits, strict=True))
    return Plan(pages, splits, groups, moved, drops)


def _same_images(facts: _Facts, distance: int) -> list[list[int]]:
    """For each story, the number of each page's picture; the same number where pictures are the same."""
    numbers = UnionFind(len(facts.prints))
    if distance >= 0 and facts.prints:
        prints = np.frombuffer(b"".join(facts.prints), np.uint8).reshape(len(facts.prints), -1)
        for one, other in near_links(prints, distance).tolist():
            numbers.join(one, other)
    ends = np.cumsum(facts.pages).tolist()
    return [[numbers.first(page) for page in range(end - count, end)] for end, count in zip(ends, facts.pages)]


def _without_cards(facts: _Facts, images: list[list[int]], rules: Rules) -> tuple[list[list[int]], list[Drop]]:
    """The pages of each story without pictures that too many stories share."""
    owners = Counter(image for story in images for image in set(story))
    pages: list[list[int]] = []
    drops: list[Drop] = []
    for name, story in zip(facts.ids, images, strict=True):
        pages.append([page for page, image in enumerate(story) if owners[image] <= rules.max_stories])
        drops += [
            Drop(name, page, "repeated-picture", f"{owners[image]} stories have this picture")
            for page, image in enumerate(story)
            if owners[image] > rules.max_stories
        ]
        if story and len(pages[-1]) < rules.min_pages:
            drops.append(too_short(name, len(pages[-1]), rules))
            pages[-1] = []
    return pages, drops


def _drop_copies(
    facts: _Facts, images: list[list[int]], pages: list[list[int]], drops: list[Drop], rules: Rules
) -> None:
    """Empties the stories whose pictures are those of one before."""
    owners: dict[int, list[int]] = defaultdict(list)
    for story, kept in enumerate(pages):
        shared = Counter(other for page in kept for other in owners[images[story][page]])
        other, most = min(shared.items(), key=lambda item: (-item[1], item[0]), default=(0, 0))
        if most > rules.max_overlap * len(kept):
            detail = f"{most} of its {len(kept)} pictures are those of {facts.ids[other]}"
            drops.append(Drop(facts.ids[story], None, "near-duplicate-story", detail))
            pages[story] = []
            continue
        for image in {images[story][page] for page in kept}:
            owners[image].append(story)


def _group_related(facts: _Facts, images: list[list[int]], staying: list[int], rules: Rules) -> list[list[int]]:
    """Groups of the stories that share a picture, a long caption, or the value of a key of `group_by`."""
    owners: dict[object, list[int]] = defaultdict(list)
    for story in staying:
        for key in {*images[story], *facts.texts[story]}:
            owners[key].append(story)
    # What very many share is no sign of relation: a line on the license, a publisher's card.
    bonds = [stories for stories in owners.values() if len(stories) <= rules.max_stories]
    group_keys: dict[tuple[str, str], list[int]] = defaultdict(list)
    for story in staying:
        for key in facts.group_keys[story]:
            group_keys[key].append(story)
    links = UnionFind(len(images))
    for stories in [*bonds, *group_keys.values()]:
        for story in stories[1:]:
            links.join(stories[0], story)
    return links.groups()
