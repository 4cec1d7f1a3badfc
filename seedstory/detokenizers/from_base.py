"""De-tokenizers around a trained model of images from text, in diffusers' layout; the adapter is untrained."""

from __future__ import annotations

import os

import torch

from seedstory.detokenizers.backbones import BACKBONES, Networks, backbone_of
from seedstory.detokenizers.components import base_folder, load_component, load_scheduler
from seedstory.detokenizers.context_adapter import ContextAdapter
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.flux2_autoencoder import Flux2Autoencoder
from seedstory.detokenizers.kl_autoencoder import KLAutoencoder
from seedstory.errors import ModelError

CONTEXT_FORMS = ("sd15", "sd3", "flux2")
"""The forms whose adapter is a `ContextAdapter`."""

FLUX2_IMAGE_SIZE = 1024  # px; its network does not say


def detokenizer_from_base(
    form: str,
    base: str | os.PathLike[str],
    num_features: int = 64,
    feature_dim: int = 64,
    *,
    context_tokens: int = 64,
    width: int = 1024,
    depth: int = 4,
    image_size: int | None = None,
    dtype: torch.dtype | None = None,
) -> Detokenizer:
    """Build a de-tokenizer of the forms of Stable Diffusion 1, Stable Diffusion 3 or FLUX.2.

    Args:
        form: "sd15", "sd3" or "flux2".
        base: folder in diffusers' layout, or Hub id; `unet/` or `transformer/`, `vae/` and `scheduler/` are read.
        num_features: F, a square number.
        feature_dim: D.
        context_tokens: tokens that the network attends to.
        width, depth: of the adapter, whose heads are 64 wide.
        image_size: side of the pictures in px; by default what the network was made for (FLUX.2: 1024).
        dtype: of all weights; by default float32.

    Raises:
        ModelError: There is no such model or form, it is of another form, or the size of pictures does not go.
    """
    if form not in CONTEXT_FORMS:
        raise ModelError(f"form must be one of {', '.join(CONTEXT_FORMS)}, not {form!r}")
    backbone = BACKBONES[form]
    folder = base_folder(os.fspath(base), backbone.folder, form)
    network = load_component(folder / backbone.folder, Networks(backbone.network), dtype)
    if (found := backbone_of(network).form) != form:
        what = {"mini": "draws from more than latents and context tokens"}.get(found, f"is of the form {found}")
        raise ModelError(f"{folder / backbone.folder} is no network of the form {form}: it {what}")
    kinds = {"AutoencoderKL": KLAutoencoder, "AutoencoderKLFlux2": Flux2Autoencoder}
    vae = load_component(folder / "vae", kinds, dtype)
    own = backbone.latent_size(network.config)
    size = image_size or (own * vae.downscale if own else FLUX2_IMAGE_SIZE)
    check_image_size(size, vae.downscale, network.config)
    widths = backbone.widths(network.config)
    adapter = ContextAdapter(
        form=form,
        feature_dim=feature_dim,
        num_features=num_features,
        context_tokens=context_tokens,
        cross_attention_dim=widths.context,
        pooled_dim=widths.pooled,
        image_size=size,
        width=width,
        depth=depth,
        heads=max(1, width // 64),
    )
    if dtype:
        adapter.to(dtype)
    return Detokenizer(network, adapter.eval(), vae, load_scheduler(folder / "scheduler"))


def check_image_size(size: int, downscale: int, config: object) -> None:
    """See that a network can draw pictures of so many px.

    Args:
        size: side in px.
        downscale: px along the edge of a latent.
        config: of the network.

    Raises:
        ModelError: It cannot.
    """
    patch = getattr(config, "patch_size", None)
    levels = len(getattr(config, "block_out_channels", None) or ())
    step = downscale * (patch or 2 ** max(0, levels - 1))
    most = getattr(config, "pos_embed_max_size", None)
    if size < step or size % step:
        raise ModelError(f"image_size must be a multiple of {step}, not {size}")
    if most and size // step > most:
        raise ModelError(f"image_size must be at most {most * step}, not {size}: the network has no more positions")
