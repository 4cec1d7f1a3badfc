"""Which tokens of a long story stay in the cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from seedstory.errors import RequestError
from seedstory.settings import POLICIES


@dataclass(frozen=True)
class PageSpan:
    """Where a finished page lies in the story, in tokens since the story's start.

    Attributes:
        start: First token of the page.
        image_start: Its `<img>`.
        image_end: Its `</img>`; the page ends right after it.
        candidates: Words on it that may be names.
        names: Names that first occur on it: it may say who they are.
    """

    start: int
    image_start: int
    image_end: int
    candidates: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    @property
    def end(self) -> int:
        """Position right after the page."""
        return self.image_end + 1

    def shifted(self, distance: int) -> "PageSpan":
        """The same page in a story whose positions are `distance` higher."""
        start, image_start, image_end = (at + distance for at in (self.start, self.image_start, self.image_end))
        return replace(self, start=start, image_start=image_start, image_end=image_end)


@dataclass(frozen=True, kw_only=True)
class CachePolicy:
    """How a story's keys and values are bounded (SEED-Story, arXiv 2407.08683, section 3.3).

    Args:
        name: One of
            `dense`, which keeps everything;
            `recompute`, which encodes the last `window_pages` pages anew for every page, as the released scripts of
            SEED-Story do; the only policy that encodes anything twice;
            `window`, which keeps the last `window_pages` pages;
            `sink`, the window and the story's first tokens (StreamingLLM, arXiv 2309.17453);
            `mm_sink`, these, the words that introduce who is in the story, and heads and tails of evicted pictures,
            within `max_sink_tokens`.
        window_pages: Pages that stay whole, besides the one being written. With the defaults of what else is kept, a
            long story holds about as many tokens as the stories of training did.
        first_tokens: Tokens of the story's start that stay for good (`sink`, `mm_sink`); StreamingLLM keeps four.
        salient_pages: Evicted pages whose words stay (`mm_sink`): the first page, and those where names first occur.
            Where they are more, those stay whose names were used again last, and of names used once the earliest.
        kept_images: Evicted pages of whose pictures head and tail stay (`mm_sink`): the first page, and the last ones.
        image_head: Visual tokens kept after an evicted picture's `<img>`, which is kept too (`mm_sink`).
        image_tail: Visual tokens kept before an evicted picture's `</img>`, which is kept too (`mm_sink`).
        max_sink_tokens: Most tokens kept of evicted pages in all (`mm_sink`): the first tokens, page 1's picture, the
            introductions as far as they fit, then the most recently evicted pictures. Memory and time per page are
            therefore constant.

    Raises:
        RequestError: If the name is unknown or a number is out of range.
    """

    name: str = "mm_sink"
    window_pages: int = 7
    first_tokens: int = 4
    salient_pages: int = 12
    kept_images: int = 5
    image_head: int = 4
    image_tail: int = 4
    max_sink_tokens: int = 512

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise RequestError(f"Unknown cache policy {self.name!r}; choose one of {', '.join(POLICIES)}.")
        if self.window_pages < 1:
            raise RequestError(f"window_pages must be at least 1, got {self.window_pages}.")
        if min(self.first_tokens, self.salient_pages, self.kept_images, self.image_head, self.image_tail) < 0:
            raise RequestError(
                "first_tokens, salient_pages, kept_images, image_head and image_tail must not be negative."
            )
        least = self.first_tokens + self.image_head + self.image_tail + 2
        if self.name == "mm_sink" and self.max_sink_tokens < least:
            raise RequestError(
                f"max_sink_tokens must be at least {least} (first tokens and the sinks of one image), "
                f"got {self.max_sink_tokens}."
            )

    @property
    def recomputes(self) -> bool:
        return self.name == "recompute"

    @property
    def bounded(self) -> bool:
        """Whether pages are ever evicted from the cache itself."""
        return self.name in ("window", "sink", "mm_sink")

    def sinks(self, evicted: Sequence[PageSpan], last_used: Mapping[str, int] | None = None) -> list[int]:
        """Positions that stay of the pages evicted so far.

        Args:
            evicted: Evicted pages in story order. The first one, introductions and the last `kept_images` ones matter.
            last_used: Number of the page that last used each name again, 0 if none did.

        Returns:
            Sorted positions; at most `max_sink_tokens` of them for `mm_sink`.
        """
        if not evicted or self.name not in ("sink", "mm_sink"):
            return []
        start = evicted[0].start
        kept = set(range(start, min(start + self.first_tokens, evicted[-1].end)))
        if self.name == "mm_sink":
            salient_pages = self._salient_pages(evicted, last_used or {})
            words = [set(range(page.start, page.image_start)) for page in salient_pages]
            images = [self._image_sinks(page) for page in [evicted[0], *reversed(evicted[1:])][: self.kept_images]]
            for tokens in (*images[:1], *words, *images[1:]):
                if len(kept | tokens) <= self.max_sink_tokens:
                    kept |= tokens
        return sorted(kept)

    def most_sinks(self, pages: int, page_tokens: int, visual_tokens: int) -> int:
        """Most tokens that are kept of evicted pages in a story of so many pages, each of at most so many tokens."""
        if self.name == "sink":
            return self.first_tokens
        if self.name != "mm_sink":
            return 0
        kept = page_tokens - max(0, visual_tokens - self.image_head - self.image_tail)
        return min(self.max_sink_tokens, self.first_tokens + max(0, pages - self.window_pages) * kept)

    def _salient_pages(self, evicted: Sequence[PageSpan], last_used: Mapping[str, int]) -> list[PageSpan]:
        """The first page, and those that introduce somebody: whose names were used again last, then the earliest."""
        others = [page for page in evicted[1:] if page.names]
        others.sort(key=lambda page: max(last_used.get(name, 0) for name in page.names), reverse=True)
        return [evicted[0], *others][: self.salient_pages]

    def _image_sinks(self, page: PageSpan) -> set[int]:
        inside = range(page.image_start + 1, page.image_end)
        head, tail = list(inside[: self.image_head]), list(inside[max(0, len(inside) - self.image_tail) :])
        return {page.image_start, *head, *tail, page.image_end}
