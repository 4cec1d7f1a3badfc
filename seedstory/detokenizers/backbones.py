"""The families of networks that a de-tokenizer draws with, and how each of them is called.

A family says which class of diffusers it is, how wide the condition is that it reads, how its latents enter it, what
it learns to predict, and which of its weights read the condition. The forms of a de-tokenizer are named after them.

Shapes: B batch, Z latent channels, h w latent grid, N context tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import diffusers
import torch
from torch import Tensor

from seedstory.detokenizers.flow_matching import FlowMatching, empirical_shift, linear_shift
from seedstory.detokenizers.objectives import Objective, make_objective
from seedstory.errors import ModelError

_GUIDANCE = 4.0  # what FLUX.2's pipeline embeds by default


class Widths(NamedTuple):
    """What a network reads: channels of latents, width of context tokens, width of the pooled embedding (0: none)."""

    latent_channels: int
    context: int
    pooled: int


class Backbone:
    """A family whose latents and condition enter its network by name, as they are.

    Attributes:
        form: its name.
        network: name of its class in diffusers, which is imported when it is first used.
        folder: of its network, in a model as in diffusers' layout.
        context_projections: ends of the names of the weights that read the context tokens and nothing else.
        lora_targets: linear layers that LoRA adapts.
    """

    form: ClassVar[str]
    network: ClassVar[str] = "UNet2DConditionModel"
    folder: ClassVar[str] = "unet"
    context_projections: ClassVar[tuple[str, ...]] = ("attn2.to_k", "attn2.to_v")
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def widths(self, config: Any) -> Widths:
        """What a network of this configuration reads."""
        return Widths(config.out_channels, config.cross_attention_dim, 0)

    def latent_size(self, config: Any) -> int | None:
        """Side of the latent grid that the network was made for; None if it does not say."""
        return int(config.sample_size)

    def objective(self, scheduler: Any, config: Any) -> Objective:
        """What the network predicts, and the way from noise to latents.

        Raises:
            ModelError: The scheduler does not fit.
        """
        return make_objective(scheduler)

    def predict(self, network: Any, noisy: Tensor, timestep: Tensor, inputs: dict[str, Any]) -> Tensor:
        """The prediction [B, Z, h, w] from noisy latents [B, Z, h, w] at timesteps [B] of the objective."""
        return network(noisy, timestep, **inputs).sample


class MiniUNet(Backbone):
    """The mini's: tokens are laid over the latents, too."""

    form = "mini"


class StableDiffusion(Backbone):
    """Stable Diffusion 1 and 2 (arXiv 2112.10752): a U-Net that reads context tokens, and nothing else."""

    form = "sd15"


class StableDiffusionXL(Backbone):
    """SDXL (arXiv 2307.01952): a U-Net that also takes a pooled embedding and time ids."""

    form = "sdxl"

    def widths(self, config: Any) -> Widths:
        """As in `Backbone`; six time ids lie beside the pooled embedding."""
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return Widths(config.out_channels, config.cross_attention_dim, pooled)


class StableDiffusion3(Backbone):
    """Stable Diffusion 3 and 3.5 (arXiv 2403.03206): a transformer over latents and context tokens side by side."""

    form = "sd3"
    network = "SD3Transformer2DModel"
    folder = "transformer"
    num_inference_steps = 28  # as in diffusers' pipeline, like the guidance
    context_projections = ("add_k_proj", "add_v_proj", "context_embedder")
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

    def widths(self, config: Any) -> Widths:
        """As in `Backbone`."""
        return Widths(config.in_channels, config.joint_attention_dim, config.pooled_projection_dim)

    def objective(self, scheduler: Any, config: Any) -> Objective:
        """As in `Backbone`: the velocity."""
        steps = self.num_inference_steps
        return FlowMatching(scheduler, linear_shift, steps=steps, guidance_scale=7.0, patch_size=config.patch_size)

    def predict(self, network: Any, noisy: Tensor, timestep: Tensor, inputs: dict[str, Any]) -> Tensor:
        """As in `Backbone`."""
        return network(hidden_states=noisy, timestep=timestep, **inputs).sample


class Flux2(Backbone):
    """FLUX.2: a transformer of blocks with two streams and with one, over latents packed to tokens.

    A network that embeds a guidance scale (`guidance_embeds`, as FLUX.2-dev) always gets the one that its pipeline has
    by default; guidance by a second prediction is then off unless asked for.
    """

    form = "flux2"
    network = "Flux2Transformer2DModel"
    folder = "transformer"
    num_inference_steps = 50  # as in diffusers' pipeline, like the guidance
    context_projections = ("add_k_proj", "add_v_proj", "context_embedder")
    lora_targets = (*StableDiffusion3.lora_targets, "to_qkv_mlp_proj")

    def widths(self, config: Any) -> Widths:
        """As in `Backbone`."""
        return Widths(config.in_channels, config.joint_attention_dim, 0)

    def latent_size(self, config: Any) -> int | None:
        """As in `Backbone`: positions are rotary, so any size goes."""
        return None

    def objective(self, scheduler: Any, config: Any) -> Objective:
        """As in `Backbone`: the velocity."""
        steps, guidance = self.num_inference_steps, 1.0 if config.guidance_embeds else 4.0
        return FlowMatching(scheduler, empirical_shift, steps=steps, guidance_scale=guidance, from_one=True)

    def predict(self, network: Any, noisy: Tensor, timestep: Tensor, inputs: dict[str, Any]) -> Tensor:
        """As in `Backbone`; the network itself multiplies times by 1,000."""
        count = inputs["encoder_hidden_states"].shape[1]
        predicted = network(
            hidden_states=noisy.flatten(2).transpose(1, 2),
            timestep=timestep / 1000,
            img_ids=_image_ids(noisy),
            txt_ids=_token_ids(count, noisy.device),
            guidance=timestep.new_full((len(noisy),), _GUIDANCE) if network.config.guidance_embeds else None,
            **inputs,
        ).sample
        return predicted.transpose(1, 2).unflatten(2, noisy.shape[2:])


def _token_ids(count: int, device: torch.device) -> Tensor:
    """Places [N, 4] of context tokens: time, row, column, and place in the sequence, which alone differs."""
    ids = torch.zeros(count, 4, dtype=torch.long, device=device)
    ids[:, 3] = torch.arange(count, device=device)
    return ids


def _image_ids(latents: Tensor) -> Tensor:
    """Places [h w, 4] of latents [B, Z, h, w]: row and column count, time and place in the sequence are zero."""
    height, width = latents.shape[2:]
    ids = torch.zeros(height, width, 4, dtype=torch.long, device=latents.device)
    ids[..., 1] = torch.arange(height, device=latents.device)[:, None]
    ids[..., 2] = torch.arange(width, device=latents.device)
    return ids.flatten(0, 1)


BACKBONES: dict[str, Backbone] = {
    one.form: one for one in (MiniUNet(), StableDiffusion(), StableDiffusionXL(), StableDiffusion3(), Flux2())
}
"""The families, by form."""


class Networks(Mapping[str, Any]):
    """Classes of diffusers by name, each imported when it is asked for."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        return getattr(diffusers, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


NETWORKS = Networks(*dict.fromkeys(one.network for one in BACKBONES.values()))
"""The classes that a de-tokenizer may draw with."""


def backbone_of(network: Any) -> Backbone:
    """The family of a network of diffusers.

    Raises:
        ModelError: It is of none.
    """
    kinds = {kind.__name__ for kind in type(network).__mro__}
    if Backbone.network in kinds:
        config = network.config
        if config.addition_embed_type == "text_time":
            return BACKBONES["sdxl"]
        return BACKBONES["sd15" if config.in_channels == config.out_channels else "mini"]
    for backbone in BACKBONES.values():
        if backbone.network in kinds:
            return backbone
    raise ModelError(f"a de-tokenizer cannot draw with a {type(network).__name__}: choose {', '.join(NETWORKS)}")
