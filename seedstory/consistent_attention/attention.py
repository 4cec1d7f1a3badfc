"""Consistent self-attention for the U-Net of any diffusers pipeline (StoryDiffusion, arXiv 2405.01434, equation 2).

The queries of an image stay its own. Its keys and values are its own tokens and sampled tokens of others: of the other
images in the batch, and of images drawn before, which a `TokenBank` holds. There are no new weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from seedstory.consistent_attention.bank import TokenBank
from seedstory.consistent_attention.processor import SharingProcessor
from seedstory.consistent_attention.sampling import sampled_tokens, shares
from seedstory.consistent_attention.settings import ConsistentAttentionSettings
from seedstory.errors import ModelError, RequestError


@dataclass(frozen=True)
class PageSharing:
    """What one image of a batch sees, and who may see it.

    Args:
        key: Its name in the bank, and for what is drawn at random.
        reads: Keys of the images in the bank that it sees.
        writes: Whether the bank keeps its tokens.
        sees_batch: Whether it sees the other images of the batch.
        is_seen: Whether the other images of the batch see it.
        subject: Where the image may be seen, `[h, w]` of bool, of any size: the character without the place behind it.
        regions: Where on this image each other one may be read, by its key, `[h, w]` of bool; everywhere, if not given.
    """

    key: str
    reads: tuple[str, ...] = ()
    writes: bool = False
    sees_batch: bool = True
    is_seen: bool = True
    subject: torch.Tensor | None = None
    regions: Mapping[str, torch.Tensor] = field(default_factory=dict)


def up_block_self_attention(name: str) -> bool:
    """Whether a module is a self-attention of the released code's choice; motion modules are not among them."""
    spatial = ".attentions." in name and "motion_modules" not in name
    return name.startswith("up_blocks.") and spatial and name.endswith(".attn1")


class ConsistentAttention:
    """Lets the images that a U-Net draws see each other.

    Within `sharing`, the selected layers have other attention processors; afterwards they have the very objects that
    they had before. Nothing else of the network is touched, so that IP-Adapter, ControlNet, LoRA and any scheduler work
    as before. Guidance is doubled along the batch, as all pipelines of diffusers do it, and its groups never mix.

    Args:
        unet: The network, compiled or not.
        settings: How images share tokens.
        bank: Tokens of earlier images; a new one by default.
        layers: Which modules share, by their names.

    Raises:
        ModelError: No self-attention is selected.

    Example:
        >>> attention = ConsistentAttention(pipe.unet)
        >>> with attention.sharing([PageSharing("mia", writes=True)], pipe.scheduler):
        ...     portrait = pipe("Mia, a fox in a red coat").images
        >>> with attention.sharing([PageSharing("page 2", reads=("mia",))], pipe.scheduler):
        ...     page = pipe("Mia, a fox in a red coat, finds a key").images
    """

    def __init__(
        self,
        unet: nn.Module,
        settings: ConsistentAttentionSettings | None = None,
        *,
        bank: TokenBank | None = None,
        layers: Callable[[str], bool] = up_block_self_attention,
    ) -> None:
        self.unet, self.settings = getattr(unet, "_orig_mod", unet), settings or ConsistentAttentionSettings()
        self.bank = TokenBank(self.settings.storage, self.settings.device) if bank is None else bank
        modules: dict[str, Any] = dict(self.unet.named_modules())
        self.layers = {
            name: module
            for name, module in modules.items()
            if layers(name) and hasattr(module, "set_processor") and not module.is_cross_attention
        }
        if not self.layers:
            raise ModelError("the network has no self-attention in the layers that are to share: up_blocks have none")
        self._pages: Sequence[PageSharing] = ()
        self._scheduler: Any = None
        self._call, self._point, self._slot, self._size = -1, 0.0, 0, (1, 1)
        self._writes, self._written = False, set[int]()
        self._numbers: dict[tuple[str, int], torch.Tensor] = {}

    @contextmanager
    def sharing(self, pages: Sequence[PageSharing], scheduler: Any) -> Iterator[TokenBank]:
        """Within it, one run of a pipeline draws these images, in this order, as one batch.

        Args:
            pages: One for each image.
            scheduler: Of the pipeline; tells how far a run is.

        Raises:
            RequestError: Two images have the same key, or one that is read is not in the bank.
        """
        keys = [page.key for page in pages]
        if not pages or len(set(keys)) < len(keys):
            raise RequestError("each image that is drawn needs a key of its own")
        missing = sorted({key for page in pages for key in page.reads} - set(self.bank.keys()))
        if missing:
            raise RequestError(f"the bank has no image {missing[0]!r}: draw it before the pages that read it")
        self.bank.drop([page.key for page in pages if page.writes])
        before = {name: layer.processor for name, layer in self.layers.items()}
        hook = self.unet.register_forward_pre_hook(self._step_begins, with_kwargs=True)
        self._pages, self._scheduler, self._call, self._point = tuple(pages), scheduler, -1, 0.0
        self._writes, self._written = False, set()
        try:
            for name, layer in self.layers.items():
                layer.set_processor(SharingProcessor(before[name], self, name))
            yield self.bank
        except BaseException:
            self.bank.drop([page.key for page in pages if page.writes])  # they are not whole
            raise
        finally:
            hook.remove()
            for name, layer in self.layers.items():
                layer.set_processor(before[name])
            self._pages, self._scheduler, self._numbers = (), None, {}

    # -------------------------------------------------------------------------------------- what processors ask, a step

    @property
    def pages(self) -> Sequence[PageSharing]:
        """The images of the batch."""
        return self._pages

    @property
    def step(self) -> int:
        """Under which number the bank keeps what belongs to this step."""
        return self._slot

    @property
    def is_writing(self) -> bool:
        """Whether the bank keeps tokens of this step."""
        return self._writes

    def is_sharing(self, layer: str, count: int) -> bool:
        """Whether a layer of so many tokens an image shares in this step."""
        settings = self.settings
        return self.settings.rate_of(self.side(count)) > 0 and shares(
            settings.probability_at(self._point), seed=settings.seed, step=self._call, layer=layer
        )

    def side(self, count: int) -> int:
        """Pixels of the latent image that a token covers a side, where an image has so many tokens.

        Raises:
            ModelError: The tokens are no grid over the image.
        """
        height, width = self._size
        side = max(1, round(math.sqrt(height * width / count)))
        if math.ceil(height / side) * math.ceil(width / side) != count:
            raise ModelError(
                f"a layer has {count} tokens, which are no grid over latents of {height} x {width}: choose a height "
                "and a width that are multiples of 64 pixels"
            )
        return side

    def mask(self, mask: torch.Tensor, count: int, device: torch.device) -> torch.Tensor:
        """A mask over the image as one over its tokens, `[h, w]` → `[N]`: where it covers half a token or more."""
        height, width = self._size
        side = self.side(count)
        grid = (math.ceil(height / side), math.ceil(width / side))
        small = nn.functional.adaptive_avg_pool2d(mask.to(device, torch.float32)[None], grid)
        return (small[0] >= 0.5).flatten()

    def numbers(self, page: PageSharing, count: int, device: torch.device) -> torch.Tensor:
        """Numbers of the tokens that others see of an image, `[M]`."""
        key = (page.key, count)
        if key not in self._numbers:
            settings, rate = self.settings, self.settings.rate_of(self.side(count))
            within = None if page.subject is None else self.mask(page.subject, count, device).nonzero()[:, 0]
            of = count if within is None else len(within)
            chosen = sampled_tokens(settings.sampler, of, rate, seed=settings.seed, step=self._slot, key=page.key)
            numbers = torch.from_numpy(chosen).to(device)
            self._numbers[key] = numbers if within is None else within[numbers]
        return self._numbers[key]

    def _step_begins(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = args[0] if args else kwargs["sample"]
        time = args[1] if len(args) > 1 else kwargs["timestep"]
        if sample.shape[0] % len(self._pages):
            raise RequestError(
                f"the pipeline draws a batch of {sample.shape[0]}, which is no multiple of the {len(self._pages)} "
                "images that were announced"
            )
        self._call, self._size = self._call + 1, tuple(sample.shape[-2:])
        self._point = self._point_of(float(torch.as_tensor(time).flatten()[0]))
        self._numbers.clear()
        count = self.settings.bank_steps
        self._slot = self._call if count is None else min(count - 1, int(self._point * count))
        self._writes = self.settings.probability_at(self._point) > 0 and self._slot not in self._written
        if self._writes:
            self._written.add(self._slot)

    def _point_of(self, time: float) -> float:
        """How far the run is, from 0 to 1.

        Raises:
            RequestError: The run begins at a time that the scheduler does not know.
        """
        times = [float(one) for one in self._scheduler.timesteps]
        if time in times:
            return times.index(time) / len(times)
        if not self._call:
            raise RequestError("the pipeline draws with another scheduler than the one that was announced")
        return self._point
