"""The attention processor that lets images see sampled tokens of others.

Shape legend: `G` groups of guidance, `P` images, `N` tokens of an image, `M` sampled tokens, `C` channels, `H` heads of
width `D`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from seedstory.errors import RequestError

if TYPE_CHECKING:
    from seedstory.consistent_attention.attention import ConsistentAttention, PageSharing


@dataclass
class _Seen:
    """What an image sees in a window: keys and values `[G, M, C]` of others, and who may read which, `[N, M]`."""

    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    masks: list[torch.Tensor | None] = field(default_factory=list)


class SharingProcessor:
    """Attention over an image's own tokens and those that it shares; the processor before it, where none are.

    Args:
        before: The processor that the layer had.
        sharing: Knows the images of the batch and the step.
        layer: Name of the layer.
    """

    def __init__(self, before: Any, sharing: ConsistentAttention, layer: str) -> None:
        self.before, self.sharing, self.layer = before, sharing, layer

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As every attention processor of diffusers: `[G·P, N, C]` → `[G·P, N, C]`."""
        sharing, pages = self.sharing, self.sharing.pages
        tokens = hidden_states.unflatten(0, (-1, len(pages)))
        project = _Projections(attn, hidden_states, len(pages))
        if sharing.is_writing:
            self._write(pages, tokens, project)
        windows = list(self._windows(pages)) if sharing.is_sharing(self.layer, tokens.shape[2]) else []
        if not any(members for _, members in windows) and not (windows and any(page.reads for page in pages)):
            return self.before(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)
        read = {key: self._read(key, project, tokens) for key in sorted({key for page in pages for key in page.reads})}
        sums, counts = torch.zeros_like(project.queries), [0] * len(pages)
        by_shape: dict[int, list[tuple[int, _Seen]]] = defaultdict(list)
        for at, members in windows:
            seen = self._seen(pages, at, members, read, project, tokens)
            counts[at] += 1
            if any(mask is not None for mask in seen.masks):
                sums[:, at] += self._attend(project, [at], [seen])[:, 0]
            else:
                by_shape[sum(part.shape[1] for part in seen.keys)].append((at, seen))
        for alike in by_shape.values():  # as many as can be in one call
            while alike:
                once = dict(reversed(alike))
                sums[:, list(once)] += self._attend(project, list(once), list(once.values()))
                alike = [pair for pair in alike if pair[1] is not once[pair[0]]]
        attended = sums / torch.tensor(counts, device=sums.device, dtype=sums.dtype)[:, None, None]
        out = attn.to_out[1](attn.to_out[0](attended.flatten(0, 1).to(hidden_states.dtype)))
        out = out + hidden_states if attn.residual_connection else out
        return out / attn.rescale_output_factor

    def _windows(self, pages: Any) -> Iterator[tuple[int, list[int]]]:
        """Each image with the others that it sees at a time; several times, with a window."""
        count = len(pages)
        width = min(self.sharing.settings.window or count, count)
        for start in range(count - width + 1):
            for at in range(start, start + width):
                others = [other for other in range(start, start + width) if other != at and pages[other].is_seen]
                yield at, others if pages[at].sees_batch else []

    def _write(self, pages: Any, tokens: torch.Tensor, project: _Projections) -> None:
        sharing = self.sharing
        if not any(page.writes for page in pages) or sharing.settings.rate_of(sharing.side(tokens.shape[2])) <= 0:
            return
        if sharing.settings.bank_steps is None and not sharing.is_sharing(self.layer, tokens.shape[2]):
            return  # who reads does not share in this step either
        for at, page in enumerate(pages):
            if page.writes:
                numbers = sharing.numbers(page, tokens.shape[2], tokens.device)
                if sharing.settings.keep == "kv":
                    kept = torch.cat([project.keys[:, at, numbers], project.values[:, at, numbers]], -1)
                else:
                    kept = tokens[:, at, numbers]
                sharing.bank.write(page.key, self.layer, sharing.step, kept, numbers)

    def _read(self, key: str, project: _Projections, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of an image in the bank, `[G, M, C]` each.

        Raises:
            RequestError: The bank has none, or of another number of groups.
        """
        kept, _ = self.sharing.bank.read(key, self.layer, self.sharing.step, tokens)
        if len(kept) != len(tokens):
            raise RequestError(
                f"image {key!r} was drawn with {len(kept)} groups of guidance and is read with {len(tokens)}: draw "
                "both with guidance or both without, and announce a page for each image of the batch"
            )
        if self.sharing.settings.keep == "kv":
            keys, values = kept.chunk(2, -1)
            return keys, values
        return project.of(kept)

    def _seen(
        self,
        pages: Any,
        at: int,
        members: list[int],
        read: dict[str, tuple[torch.Tensor, torch.Tensor]],
        project: _Projections,
        tokens: torch.Tensor,
    ) -> _Seen:
        page: PageSharing = pages[at]
        seen, count = _Seen(), tokens.shape[2]
        for key, keys, values in [
            *((key, *read[key]) for key in page.reads),
            *((pages[other].key, *self._of_peer(pages[other], other, project, count)) for other in members),
        ]:
            seen.keys.append(keys)
            seen.values.append(values)
            region = page.regions.get(key)
            mask = None if region is None else self.sharing.mask(region, count, tokens.device)
            seen.masks.append(None if mask is None else mask[:, None].expand(-1, keys.shape[1]))
        return seen

    def _of_peer(
        self, page: PageSharing, at: int, project: _Projections, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = self.sharing.numbers(page, count, project.keys.device)
        return project.keys[:, at, numbers], project.values[:, at, numbers]

    def _attend(self, project: _Projections, rows: list[int], seen: list[_Seen]) -> torch.Tensor:
        """Attention of some images, each with what it sees, all of them as much: `[G, len(rows), N, C]`."""
        own = project.queries[:, rows]
        keys, values = (
            torch.stack([torch.cat([*others, mine[:, at]], 1) for at, others in zip(rows, parts, strict=True)], 1)
            for mine, parts in (
                (project.keys, [one.keys for one in seen]),
                (project.values, [one.values for one in seen]),
            )
        )
        mask = None
        if any(part is not None for one in seen for part in one.masks):
            (one,) = seen
            blocks = [
                torch.ones(own.shape[2], part.shape[1], dtype=torch.bool, device=own.device) if mask is None else mask
                for part, mask in zip(one.keys, one.masks, strict=True)
            ]
            mask = torch.cat([*blocks, blocks[0].new_ones(own.shape[2], own.shape[2])], 1)
        queries, keys, values = (project.heads(part.flatten(0, 1)) for part in (own, keys, values))
        if project.attn.norm_q is not None:
            queries = project.attn.norm_q(queries)
        if project.attn.norm_k is not None:
            keys = project.attn.norm_k(keys)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return attended.transpose(1, 2).flatten(2).unflatten(0, (-1, len(rows)))


class _Projections:
    """Queries, keys and values of a layer, each made when it is first asked for, `[G, P, N, C]`."""

    def __init__(self, attn: Any, hidden_states: torch.Tensor, pages: int) -> None:
        self.attn, self.hidden_states, self.pages = attn, hidden_states, pages
        self._made: dict[str, torch.Tensor] = {}

    @property
    def queries(self) -> torch.Tensor:
        return self._get("to_q", 0)

    @property
    def keys(self) -> torch.Tensor:
        return self._get("to_k", 1)

    @property
    def values(self) -> torch.Tensor:
        return self._get("to_v", 2)

    def of(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of other tokens, `[G, M, C]`."""
        if getattr(self.attn, "fused_projections", False):
            _, keys, values = self.attn.to_qkv(tokens).chunk(3, -1)
            return keys, values
        return self.attn.to_k(tokens), self.attn.to_v(tokens)

    def heads(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[B, T, H·D]` → `[B, H, T, D]`."""
        return tokens.unflatten(-1, (self.attn.heads, -1)).transpose(1, 2)

    def _get(self, name: str, part: int) -> torch.Tensor:
        if name not in self._made:
            if getattr(self.attn, "fused_projections", False):
                made = dict(
                    zip(("to_q", "to_k", "to_v"), self.attn.to_qkv(self.hidden_states).chunk(3, -1), strict=True)
                )
            else:
                made = {name: getattr(self.attn, name)(self.hidden_states)}
            self._made |= {key: value.unflatten(0, (-1, self.pages)) for key, value in made.items()}
        return self._made[name]
