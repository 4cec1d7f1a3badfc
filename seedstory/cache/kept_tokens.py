"""The books of one story: which of its tokens the cache holds, and where. No tensors here."""

from dataclasses import dataclass, replace

from seedstory.cache.policy import CachePolicy, PageSpan
from seedstory.salience import NOBODY, Mentions


@dataclass(frozen=True)
class Eviction:
    """What a row of the cache has to do when pages leave.

    Attributes:
        kept: Sorted places, among the tokens held, of those that stay; the sinks come first.
        sinks: How many of them are sinks from now on.
        old_sinks: How many of them were sinks before; these come first of all.
        shift: Distance from each sink's position in the story to its position right before the window.
    """

    kept: list[int]
    sinks: int
    old_sinks: int
    shift: list[int]


class KeptTokens:
    """Tokens held of one story: first the sinks, then the tokens of recent pages (the window).

    Positions count the story's tokens from its start.

    Attributes:
        length: Tokens held.
        evicted_count: Tokens of the story that are not held.
        pages: Finished pages that are held whole.
        evicted: Pages that left, as far as a policy may still ask for them.
        sink_positions: Positions of the sinks, sorted.
        last_used: Number of the page that last used each name whose introduction is held; 0 if only that did.
        pinned: Positions between pages that every policy keeps, until others are pinned.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new story."""
        self.length = self.evicted_count = 0
        self.pages: list[PageSpan] = []
        self.evicted: list[PageSpan] = []
        self.sink_positions: list[int] = []
        self.last_used: dict[str, int] = {}
        self.pinned = range(0)
        self._ended = 0

    @property
    def position(self) -> int:
        """Position of the story's next token."""
        return self.length + self.evicted_count

    def advance(self, count: int) -> None:
        """Note that the next `count` tokens are held."""
        self.length += count

    def drop_last(self, count: int) -> None:
        """Note that the last `count` tokens are not held; they must belong to the page being written."""
        assert 0 <= count <= self.length
        self.length -= count
        assert self.position >= (self.pages[-1].end if self.pages else 0), "only the open page may be cropped"

    def end_page(self, image_start: int, image_end: int, mentions: Mentions = NOBODY) -> None:
        """Note that a page has ended.

        Args:
            image_start: Position of its `<img>`.
            image_end: Position of its `</img>`.
            mentions: Names in its caption, by which it may turn out to introduce somebody.
        """
        start = self.pages[-1].end if self.pages else self.evicted[-1].end if self.evicted else 0
        if self.pinned.start == start:  # between the pages
            start = self.pinned.stop
        assert start <= image_start < image_end < self.position, "a page must lie inside the cache"
        number = self._ended
        self._ended += 1
        self.pages.append(PageSpan(start, image_start, image_end, mentions.candidates))
        self.last_used |= dict.fromkeys(self.last_used.keys() & mentions.candidates, number)
        for name in mentions.names - self.last_used.keys():
            # An earlier page may have had it as a candidate, where nothing said that it is a name.
            first = next(at for at, page in enumerate(self.pages) if name in page.candidates)
            self.last_used[name] = number if first < len(self.pages) - 1 else 0
            self.pages[first] = replace(self.pages[first], names=self.pages[first].names | {name})

    def pin(self, start: int, end: int) -> None:
        """Pin the tokens from `start` to `end`, behind the last page; those pinned before are no longer.

        What was pinned before leaves with the pages around it.
        """
        assert (self.pages[-1].end if self.pages else 0) <= start <= end <= self.position, "pinned tokens follow a page"
        self.pinned = range(start, end)

    def evict(self, policy: CachePolicy) -> Eviction | None:
        """Take the pages that the policy does not keep whole out of the books; None if there are none."""
        count = len(self.pages) - policy.window_pages
        if not policy.bounded or count <= 0:
            return None
        leaving, self.pages = self.pages[:count], self.pages[count:]
        self.evicted = [*self.evicted, *leaving]
        held_sinks = len(self.sink_positions)
        window_start = self.position - (self.length - held_sinks)
        place = {position: index for index, position in enumerate(self.sink_positions)}
        place |= {at: held_sinks + at - window_start for at in range(window_start, self.pages[0].start)}
        wanted = {*policy.sinks(self.evicted, self.last_used), *self.pinned}
        sinks = sorted(at for at in wanted if at in place)
        kept = [place[position] for position in sinks]
        first = self.pages[0].start - len(sinks)
        eviction = Eviction(
            kept=[*kept, *range(held_sinks + self.pages[0].start - window_start, self.length)],
            sinks=len(sinks),
            old_sinks=sum(index < held_sinks for index in kept),
            shift=[first + index - position for index, position in enumerate(sinks)],
        )
        self.evicted_count += self.length - len(eviction.kept)
        self.length = len(eviction.kept)
        self.sink_positions = sinks
        self._prune(policy)
        return eviction

    def _prune(self, policy: CachePolicy) -> None:
        """Strike out what no policy asks for any more.

        Who is introduced by words that have gone is unknown again, and may be introduced anew.
        """
        num_kept, evicted = set(self.sink_positions), []
        for page in self.evicted:
            if not num_kept.issuperset(range(page.start, page.image_start)):
                for name in page.names:
                    del self.last_used[name]
                page = replace(page, names=frozenset())
            evicted.append(page)
        recent = max(1, policy.kept_images)
        old = [page for page in evicted[1:-recent] if page.names]
        self.evicted = [*evicted[:1], *old, *evicted[1:][-recent:]]

    def rebase(self) -> int:
        """Count positions from the first token held on.

        Returns:
            By how much all positions became smaller.
        """
        base, self.evicted_count = self.evicted_count, 0
        self.pages = [page.shifted(-base) for page in self.pages]
        self.evicted = [page.shifted(-base) for page in self.evicted]
        self.sink_positions = [position - base for position in self.sink_positions]
        self.pinned = range(self.pinned.start - base, self.pinned.stop - base)
        return base
