r"""How the pages of a story become tokens: special tokens, page order, masks and labels.

Training (`pack_story`, `collate`) and generation (the `*_ids` methods of `StoryLayout`) both read this file, so they
cannot disagree. A story is

    bos  "\n3:" " caption"  <img> picture </img>  "\n2:" " caption"  <img> picture </img>  "\n1:" ...  </img>  eos

The *page label* ("\n3:") is forced text: it counts down the pages that are left, this one included, and is never
decoded or supervised, so that a story asked for in ten pages ends on page ten. Label and caption are tokenized
separately and their ids concatenated, in training as in generation. A picture is `N` visual embeddings.

Released models of SEED-Story were trained with another order, `LAYOUTS[1]`, which knows no countdown:

    bos  "caption"  <img> picture </img>  "[INST]" "caption"  <img> picture </img>  "[INST]" "caption" ...  </img>

The first caption begins the text, so a tokenizer of sentencepiece's kind puts its space before it; every later one goes
on from "[INST]" without one. "[INST]" is learned there, and eos behind every picture that the model makes. (In the
samples of SEED-Story the last page, the only one that is learned, begins a text of its own, "▁[INST]", whereas the
pages before it read "[INST]". Here one page is both, so all read "[INST]".)

A story state (`story_state.py`) may stand before the label of any page but the first, line by line, each after a "\n".
That of the second page may stand in the first one instead, between caption and `<img>`, so that the first picture, too,
shows the cast; a line break then ends it.

Shape legend: `T` tokens of one packed story, `B` stories, `N` visual tokens of a picture, `P` pages.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from seedstory.errors import RequestError
from seedstory.story_state import StoryState

IMAGE_START = "<img>"
IMAGE_END = "</img>"
IGNORE = -100
LONGEST_CHAPTER = 11
LAYOUTS = ("countdown", "seed_story")
INSTRUCTION = "[INST]"  # what SEED-Story has between its pages

_KNOWN_TEXTS = 2**17  # about 70 MB of captions
_CONTEXT = -1
_PADDING = -2


def image_query_token(index: int) -> str:
    """Name of the `index`-th query token of a picture."""
    return f"<img_{index:05d}>"


def chapters(pages: int, longest: int = LONGEST_CHAPTER) -> list[int]:
    """Split a story into chapters of about equal length.

    Args:
        pages: Number of pages of the whole story.
        longest: Most pages that one chapter may have.

    Returns:
        The number of pages of each chapter; they sum to `pages` and differ by at most one.

    Raises:
        RequestError: If `pages` or `longest` is below 1.
    """
    if pages < 1 or longest < 1:
        raise RequestError(
            f"A story needs at least one page and chapters of at least one page, got {pages=}, {longest=}."
        )
    count = -(-pages // longest)
    short, extra = divmod(pages, count)
    return [short + (chapter < extra) for chapter in range(count)]


def countdown(pages: int, longest: int = LONGEST_CHAPTER) -> list[int]:
    """Pages left in its chapter, itself included, for every page: `countdown(3) == [3, 2, 1]`."""
    return [left for length in chapters(pages, longest) for left in range(length, 0, -1)]


class StoryLayout:
    """Ids of every piece of a story for one tokenizer.

    Args:
        tokenizer: A tokenizer that already has the image tokens; `StoryLayout.extend` adds them.
        num_visual_tokens: `N`, the number of visual tokens of a picture.
        name: Which order of tokens, one of `LAYOUTS`.

    Attributes:
        special_ids: Ids that no caption may hold.
        counts_down: Whether labels say how many pages are left; otherwise they are learned, and so is eos behind
            every picture that the model makes.

    Raises:
        RequestError: If the tokenizer lacks an image token, an end-of-sequence token or, where the first page has no
            label, a token that begins a sequence; or there is no such layout.
    """

    def __init__(self, tokenizer: Any, num_visual_tokens: int, name: str = LAYOUTS[0]) -> None:
        if name not in LAYOUTS:
            raise RequestError(f"Unknown layout {name!r:.40}; choose one of {', '.join(LAYOUTS)}.")
        vocabulary = tokenizer.get_vocab()
        names = self.token_names(num_visual_tokens)
        missing = [name for name in names if name not in vocabulary]
        if missing:
            raise RequestError(
                f"The tokenizer lacks {len(missing)} image tokens ({missing[0]!r} ...). "
                "Add them with StoryLayout.extend(tokenizer, num_visual_tokens)."
            )
        ids = [vocabulary[name] for name in names]
        if ids != list(range(ids[0], ids[0] + len(ids))):
            raise RequestError("The image tokens must have consecutive ids in the order of StoryLayout.token_names().")
        if tokenizer.eos_token_id is None:
            raise RequestError("The tokenizer has no end-of-sequence token; set tokenizer.eos_token.")
        self.tokenizer, self.name, self.counts_down = tokenizer, name, name == LAYOUTS[0]
        if not self.counts_down and tokenizer.bos_token_id is None:
            raise RequestError(f"The layout {name} needs a tokenizer with a begin-of-sequence token.")
        self.num_visual_tokens = num_visual_tokens
        self.image_start_id, self.image_end_id = ids[0], ids[1]
        self.query_ids: list[int] = ids[2:]
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int = tokenizer.eos_token_id
        added = (id for id, token in tokenizer.added_tokens_decoder.items() if token.special)
        self.special_ids = {*tokenizer.all_special_ids, *added, *ids}
        self._special_text = re.compile("|".join(re.escape(text) for text in sorted(tokenizer.get_added_vocab())))
        self.page_label_ids = lru_cache(maxsize=None)(self._page_label_ids)
        self._encode = lru_cache(maxsize=_KNOWN_TEXTS)(self._encode_text)

    @staticmethod
    def token_names(num_visual_tokens: int) -> list[str]:
        """The added tokens in id order: `<img>`, `</img>`, then the `N` query tokens."""
        if num_visual_tokens < 1:
            raise RequestError(f"num_visual_tokens must be at least 1, got {num_visual_tokens}.")
        return [IMAGE_START, IMAGE_END, *(image_query_token(index) for index in range(num_visual_tokens))]

    @classmethod
    def extend(cls, tokenizer: Any, num_visual_tokens: int, name: str = LAYOUTS[0]) -> "StoryLayout":
        """Add the image tokens to `tokenizer` (in place, once) and return its layout."""
        known = tokenizer.get_vocab()
        new = [name for name in cls.token_names(num_visual_tokens) if name not in known]
        if new:
            tokenizer.add_tokens(new, special_tokens=True)
        return cls(tokenizer, num_visual_tokens, name)

    @property
    def opening_ids(self) -> list[int]:
        """Ids before the first page's label: bos where the tokenizer has one."""
        return [] if self.bos_id is None else [self.bos_id]

    def _page_label_ids(self, pages_left: int, first: bool = False) -> list[int]:
        r"""Ids of the forced text that opens a page: `"\n7:"` for the page with which seven are left.

        Args:
            pages_left: The number.
            first: Whether the page is the first one, which SEED-Story opens with nothing.
        """
        if pages_left < 1:
            raise RequestError(f"A page label counts down to 1, got {pages_left}.")
        if not self.counts_down:
            return [] if first else list(self._encode(INSTRUCTION, "A page label", IMAGE_END))
        return self.tokenizer.encode(f"\n{pages_left}:", add_special_tokens=False)

    def state_ids(self, state: StoryState, label: int) -> list[int]:
        """Ids of a story state, an empty list for an empty one.

        Args:
            state: The state.
            label: Number in the label of the page before which it stands.

        Raises:
            RequestError: If it contains one of the tokenizer's special tokens.
        """
        return [id for line in state.lines(label) for id in self.line_ids(line)]

    def opening_state_ids(self, state: StoryState, label: int) -> list[int]:
        """Ids of a story state that stands in the first page, before its `<img>`; as `state_ids` otherwise."""
        ids = self.state_ids(state, label)
        return [*ids, *self.line_ids("")] if ids else []

    def line_ids(self, line: str) -> list[int]:
        r"""Ids of one line of a story state: a line break, then the line.

        Raises:
            RequestError: If it contains one of the tokenizer's special tokens.
        """
        return list(self._encode("\n" + line, "A story state"))

    def _encode_text(self, text: str, what: str, after: str = "") -> tuple[int, ...]:
        """Ids of a text that stands behind a special token, or else begins.

        Those of the last many texts are known, since training reads every story again and again.
        """
        ids = tuple(self.tokenizer.encode(after + text, add_special_tokens=False))[bool(after) :]
        bad = self.special_ids.intersection(ids)
        if bad:
            names = ", ".join(sorted(self.tokenizer.convert_ids_to_tokens(sorted(bad))))
            raise RequestError(f"{what} must not contain the special tokens {names}: {text.strip()[:80]!r}")
        return ids

    def caption_ids(self, caption: str, first: bool = False) -> list[int]:
        """Ids of one caption (white space made plain, one space in front). An empty caption has no ids.

        Args:
            caption: Its text.
            first: Whether it is that of the first page, which begins SEED-Story's text; the others go on from their
                label there, without a space.

        Raises:
            RequestError: If the caption contains one of the tokenizer's special tokens, such as `<img>`.
        """
        text = " ".join(caption.split())
        if not text:
            return []
        if self.counts_down:
            return list(self._encode(" " + text, "A caption"))
        if first:
            return list(self._encode(text, "A caption"))
        label, ids = self._page_label_ids(1), self._encode(INSTRUCTION + text, "A caption", IMAGE_END)
        if list(ids[: len(label)]) != label:  # a token lies across the border
            return list(self._encode(text, "A caption", IMAGE_END))
        return list(ids[len(label) :])

    def caption_text(self, ids: Sequence[int]) -> str:
        """Text of one caption's ids, without the space in front and with white space made plain."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return re.sub(r"\s+", " ", text).strip()

    def without_special_tokens(self, text: str) -> str:
        """A text without the names of special tokens, which letters may happen to spell."""
        return self._special_text.sub(" ", text)

    def pack_story(self, captions: Sequence[str], **options: Any) -> "PackedSequence":
        """`pack_story` for captions given as text."""
        ids = [self.caption_ids(caption, first=page == 0) for page, caption in enumerate(captions)]
        return pack_story(ids, self, **options)


@dataclass
class PackedSequence:
    """One story as one training sequence; build it with `pack_story`.

    Attributes:
        input_ids: Ids; picture slots and branches hold the query tokens, `[T]`.
        position_ids: Position in the story as it is generated; a branch has its context slots' positions, `[T]`.
        labels: Id that the model shall predict *at* this position (already shifted), or -100, `[T]`.
        branch: Page of the query branch that the token belongs to, or -1 in the context stream, `[T]`.
        context_mask: True where the input embedding is a context picture's, `N` for every page, `[T]`.
        query_mask: True at the query tokens of branches, `N` for every supervised picture, `[T]`.
        target_mask: True for pages that have a query branch, `[P]`.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    branch: torch.Tensor
    context_mask: torch.Tensor
    query_mask: torch.Tensor
    target_mask: torch.Tensor

    def __len__(self) -> int:
        return self.input_ids.shape[0]


def pack_story(
    caption_ids: Sequence[Sequence[int]],
    layout: StoryLayout,
    *,
    pages_left: Sequence[int] | None = None,
    keep_caption: Sequence[bool] | None = None,
    supervise_caption: Sequence[bool] | None = None,
    supervise_image: Sequence[bool] | None = None,
    state_ids: Mapping[int, Sequence[int]] | None = None,
    supervise_state: Collection[int] | None = None,
    state_in_opening: bool = False,
    ends: bool = True,
) -> PackedSequence:
    """Lay out a whole story so that one pass supervises every page.

    The context stream is the story as generation sees it. After each `<img>` a *branch* of the `N` query tokens is
    put in, at the same positions as the context slots that follow. A context token sees the earlier context; a branch
    sees the context up to its `<img>` and itself, causally; nobody else sees a branch. (SEED-Story supervises the
    last page of each sample only: arXiv 2407.08683, section 3.2. Packing gives the same losses for all pages.)

    Args:
        caption_ids: Ids of each page's caption, without label and `<img>`, `P` lists.
        layout: The tokens.
        pages_left: Number in each page's label, `[P]`; by default `countdown(P)`.
        keep_caption: False where the caption is dropped (an opening of a picture alone); nothing of that page's text
            is supervised, `[P]`. A page whose caption is empty counts as dropped.
        supervise_caption: False where caption and `<img>` are given but not learned, `[P]`.
        supervise_image: False where the picture is given but not learned; the page then has no branch, `[P]`.
        state_ids: Ids of the story states that stand before pages, by the page's place, 1 or more. All of a state is
            learned but its first token, and so is the line break behind it.
        supervise_state: Pages whose states are learned, by default all.
        state_in_opening: Whether the state of page 1 stands in page 0, before its `<img>`; its ids are then those of
            `StoryLayout.opening_state_ids`.
        ends: Whether the story ends after its last page, that is, whether eos is supervised; SEED-Story's layout has
            it behind every branch instead.

    Returns:
        The packed story.

    Raises:
        RequestError: If the story has no page, an option has the wrong length, or a state stands before the first page.
    """
    pages = len(caption_ids)
    if pages == 0:
        raise RequestError("A story needs at least one page.")
    pages_left = countdown(pages) if pages_left is None else pages_left
    everywhere = [True] * pages
    keep_caption = everywhere if keep_caption is None else keep_caption
    supervise_caption = everywhere if supervise_caption is None else supervise_caption
    supervise_image = everywhere if supervise_image is None else supervise_image
    for name, option in [
        ("pages_left", pages_left),
        ("keep_caption", keep_caption),
        ("supervise_caption", supervise_caption),
        ("supervise_image", supervise_image),
    ]:
        if len(option) != pages:
            raise RequestError(f"{name} has {len(option)} entries for a story of {pages} pages.")

    states = dict(state_ids or {})
    if not all(0 < page < pages for page in states):
        raise RequestError(f"A state stands before a page from the second on, not before {sorted(states)} of {pages}.")

    learned_states = states.keys() if supervise_state is None else supervise_state

    n = layout.num_visual_tokens
    ids: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    branch: list[int] = []
    is_slot: list[bool] = []
    position = 0

    def put(tokens: Sequence[int], at: int, of_branch: int = _CONTEXT, slot: bool = False) -> None:
        ids.extend(tokens)
        positions.extend(range(at, at + len(tokens)))
        labels.extend([IGNORE] * len(tokens))
        branch.extend([of_branch] * len(tokens))
        is_slot.extend([slot] * len(tokens))

    put(layout.opening_ids, position)
    position += len(layout.opening_ids)
    for page in range(pages):
        text = [*layout.page_label_ids(pages_left[page], first=page == 0)]
        state = [] if state_in_opening and page == 1 else list(states.get(page, ()))
        if state:
            put(state, position)
            position += len(state)
            if page in learned_states:
                labels[-len(state) :] = [*state[1:], text[0]]
        caption = list(caption_ids[page]) if keep_caption[page] else []
        early = list(states.get(1, ())) if state_in_opening and page == 0 else []
        put([*text, *caption, *early, layout.image_start_id], position)
        position += len(text) + len(caption) + len(early) + 1
        if early and 1 in learned_states:
            labels[-len(early) - 1 : -2] = early[1:]
        if caption and supervise_caption[page]:
            # Where a state follows the caption, it is forced; that the caption ends there is learned on other pages.
            targets = caption if early else [*caption, layout.image_start_id]
            start = len(labels) - 2 - len(early) - len(caption)
            if not layout.counts_down:
                start, targets = start - len(text), [*text, *targets]
            labels[start : start + len(targets)] = targets
        if supervise_image[page]:
            put(layout.query_ids, position, of_branch=page)
            if not layout.counts_down:
                put([layout.image_end_id], position + n, of_branch=page)
                labels[-1] = layout.eos_id
        put(layout.query_ids, position, slot=True)
        put([layout.image_end_id], position + n)
        position += n + 1
    if ends and layout.counts_down:
        labels[-1] = layout.eos_id

    branches, input_ids = torch.tensor(branch), torch.tensor(ids)
    return PackedSequence(
        input_ids=input_ids,
        position_ids=torch.tensor(positions),
        labels=torch.tensor(labels),
        branch=branches,
        context_mask=torch.tensor(is_slot),
        query_mask=(branches >= 0) & (input_ids != layout.image_end_id),
        target_mask=torch.tensor([bool(flag) for flag in supervise_image]),
    )


def attention_mask(branch: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Boolean mask of packed stories: True where the row's token sees the column's.

    Args:
        branch: Branch of every token: its page, -1 for the context stream, -2 for padding, `[B, T]`.
        order: Place of every token in its `PackedSequence`, `[B, T]`.

    Returns:
        The mask, `[B, 1, T, T]`. A padded position sees itself alone, so that no row is empty.
    """
    row, column = branch.unsqueeze(2), branch.unsqueeze(1)
    earlier = order.unsqueeze(1) <= order.unsqueeze(2)
    visible = earlier & ((column == _CONTEXT) | (column == row)) & (row != _PADDING)
    return (visible | torch.eye(branch.shape[1], dtype=torch.bool, device=branch.device)).unsqueeze(1)


class Places(NamedTuple):
    """Where the masks of a batch are True, as numbers into `[B * T]` and, of targets, into `[P]`.

    A mask says only to who reads it how many tokens it marks, and a GPU would have to be waited for. These are found
    where the batch is made.

    Attributes:
        context: Of `context_mask`.
        queries: Of `query_mask`.
        labels: Of labels that are not -100.
        targets: Of `target_mask`.
    """

    context: torch.Tensor | None
    queries: torch.Tensor | None
    labels: torch.Tensor | None
    targets: torch.Tensor | None


def find_places(
    labels: torch.Tensor | None,
    context_mask: torch.Tensor | None,
    query_mask: torch.Tensor | None,
    target_mask: torch.Tensor | None,
) -> Places:
    """The places that the arguments of `StoryModel.forward` of these names mark, each on its device."""
    marked = (context_mask, query_mask, None if labels is None else labels != IGNORE, target_mask)
    return Places(*(None if mask is None else mask.flatten().nonzero()[:, 0] for mask in marked))


def collate(
    stories: Sequence[PackedSequence], pad_to_multiple_of: int = 1, *, mask: bool = True
) -> dict[str, torch.Tensor]:
    """Right-pad packed stories into the text part of a training batch.

    The context streams come first and all branches behind them, each part padded on its right. Who sees whom does
    not change; but the context is then plainly causal, which attention can make use of.

    Args:
        stories: `B` packed stories.
        pad_to_multiple_of: Round the length of both parts up to a multiple of this, for kernels that like it.
        mask: Make the attention mask, the largest part of a batch by far. Otherwise `branch` and `order` come in its
            place, `[B, T]`, from which `attention_mask` makes it where it is needed.

    Returns:
        `input_ids`, `position_ids`, `labels`, `context_mask`, `query_mask` `[B, T]`, `attention_mask` `[B, 1, T, T]`,
        `context_length` (tokens before the branches, scalar), `spans` `[R, 4]` (see `_spans`) and `target_mask` `[P]`,
        where `P` counts the pages of all stories, in order. The caller adds `context_features` and `target_features`,
        both `[P, F, Df]` in the same order.

    Raises:
        RequestError: If there is no story.
    """
    if not stories:
        raise RequestError("A batch needs at least one story.")
    parts = [[(story.branch == _CONTEXT).nonzero()[:, 0], (story.branch >= 0).nonzero()[:, 0]] for story in stories]
    lengths = [max(len(story[part]) for story in parts) for part in range(2)]
    lengths = [-(-length // pad_to_multiple_of) * pad_to_multiple_of for length in lengths]
    # For each story: where its tokens go in the batch, and which tokens these are.
    places = [torch.cat([torch.arange(len(text)), lengths[0] + torch.arange(len(rest))]) for text, rest in parts]
    tokens = [torch.cat(story) for story in parts]

    def padded(rows: Sequence[torch.Tensor], value: int | bool) -> torch.Tensor:
        batch = rows[0].new_full((len(rows), sum(lengths)), value)
        for row, content, place, token in zip(batch, rows, places, tokens, strict=True):
            row[place] = content[token]
        return batch

    def of(name: str, value: int | bool) -> torch.Tensor:
        return padded([getattr(story, name) for story in stories], value)

    branch, order = of("branch", _PADDING), padded([torch.arange(len(story)) for story in stories], 0)
    return {
        "input_ids": of("input_ids", 0),
        "position_ids": of("position_ids", 0),
        "labels": of("labels", IGNORE),
        **({"attention_mask": attention_mask(branch, order)} if mask else {"branch": branch, "order": order}),
        "context_mask": of("context_mask", False),
        "query_mask": of("query_mask", False),
        "context_length": torch.tensor(lengths[0]),
        "spans": _spans(stories, lengths[0]),
        "target_mask": torch.cat([story.target_mask for story in stories]),
    }


def _spans(stories: Sequence[PackedSequence], context_length: int) -> torch.Tensor:
    """What `attention_mask` says of a collated batch, as `R` causal runs of tokens: contexts and branches, `[R, 4]`.

    A run is its story's number, its first place in the story's row of the batch, the place behind its last, and how
    many tokens of the story's context it sees before its own.
    """
    spans = []
    for number, story in enumerate(stories):
        context = (story.branch == _CONTEXT).nonzero()[:, 0]
        spans.append((number, 0, len(context), 0))
        start = context_length
        for branch in story.branch[story.branch >= 0].unique_consecutive():
            tokens = (story.branch == branch).nonzero()[:, 0]
            spans.append((number, start, start + len(tokens), int((context < tokens[0]).sum())))
            start += len(tokens)
    return torch.tensor(spans)
