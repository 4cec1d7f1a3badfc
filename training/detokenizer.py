"""Stage 1b: train the de-tokenizer, pictures through visual tokens and back.

python -m training.detokenizer --config configs/mini/detokenizer.yaml    # with the vision tower
python -m training.detokenizer --config configs/sdxl/detokenizer.yaml    # SDXL, for a vision tower that is there
python -m training.detokenizer --config configs/sd3/detokenizer.yaml     # or sd15, flux2
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from seedstory.detokenizers.autoencoder import ImageAutoencoder
from seedstory.detokenizers.backbones import backbone_of
from seedstory.detokenizers.detokenizer import ADAPTERS, Detokenizer
from seedstory.detokenizers.from_base import CONTEXT_FORMS, detokenizer_from_base
from seedstory.detokenizers.kl_autoencoder import KLAutoencoder
from seedstory.detokenizers.perceiver_adapter import PerceiverAdapter
from seedstory.detokenizers.tiny_autoencoder import TinyAutoencoder
from seedstory.image import resize_pixels
from seedstory.modeling.lora import merge_lora
from seedstory.modeling.vision_tower import VisionTower, load_vision_tower
from training.backend import Backend, in_memory_format
from training.command import run_stage
from training.distances import psnr
from training.features import open_features, read_features
from training.loop import Stage
from training.pages import PageImages, ShuffledSampler, check_image_size, compute_on_all, noise_of
from training.recipes import RecipeConfig, make_recipe
from training.recorder import Recorder
from training.row_shards import MappedRows, store_rows
from training.splits import files_of

Form = Literal["mini", "sdxl", "sd15", "sd3", "flux2"]
Parts = Literal["full", "kv", "lora"]

PRETRAINED_HELDOUT = 8
PIXELS = 2**21  # of the pictures that are encoded at once: 128 of 128 px
LATENT_ROWS = 1024  # pictures of a file of latents


@dataclass(kw_only=True)
class DetokenizerTrainingConfig(RecipeConfig):
    """What the stages that train a de-tokenizer share.

    Attributes:
        parts: what of the U-Net is trained beside its adapter: "full" (all of it), "kv" (the key and value
            projections that read the visual tokens, as in IP-Adapter, arXiv 2308.06721; in a transformer also the
            projection before its blocks), or "lora".
        lora_rank: of "lora", on the attention's projections; merged into the weights that are written.
        token_noise: visual tokens get Gaussian noise of a level drawn from U(0, token_noise) times their RMS,
            so that the de-tokenizer bears what a language model regresses.
        condition_dropout: share of pictures trained without tokens, for classifier-free guidance.
        limit: at most so many training pictures.
        heldout_limit: at most so many held-out pictures (None: 8 in forms of a pretrained network, which takes up to a
            hundred passes for each; in the mini form 128, and in stage 3 all of eight stories).
        heldout_steps: diffusion steps of held-out pictures (None: the de-tokenizer's own, mini: 4, else 28 or 50).
    """

    parts: Parts = "full"
    lora_rank: int = 16
    token_noise: float = 0.4
    condition_dropout: float = 0.05
    limit: int | None = None
    heldout_limit: int | None = None
    heldout_steps: int | None = None
    average: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parts not in get_args(Parts):
            raise ValueError(f"parts must be one of {', '.join(get_args(Parts))}, not {self.parts!r}")


@dataclass(kw_only=True)
class DetokenizerConfig(DetokenizerTrainingConfig):
    """Stage 1b.

    Attributes:
        form: "mini" trains a small de-tokenizer and the vision tower together; "sdxl" teaches a trained Stable
            Diffusion XL to draw from the features of a vision tower that stays as it is; so do "sd15" (Stable
            Diffusion 1 or 2), "sd3" (Stable Diffusion 3 or 3.5) and "flux2" (FLUX.2).
        autoencoder: mini: folder of the trained autoencoder.
        image_size: side of the images in px; mini: a multiple of 16 (None: 128); sd15, sd3, flux2: of a new adapter
            (None: what the network was made for); with `init`, its own.
        sdxl: sdxl: folder in diffusers' layout, or Hub id.
        base: sd15, sd3, flux2: folder in diffusers' layout, or Hub id.
        tower: all but mini: folder of the vision tower.
        adapter: sdxl: kind of a new adapter, "resampler" or "perceiver", as in `Detokenizer.sdxl`.
        context_tokens, adapter_width, adapter_depth: all but mini: of a new adapter.
        split: JSONL to train on; several are joined by "+".
        heldout: JSONL split for the reported PSNR.
        init: folder with `vision_tower/` (mini) and `detokenizer/` to go on from; instead of `sdxl` and `base`.
    """

    form: Form = "mini"
    autoencoder: str | None = None
    image_size: int | None = None
    sdxl: str | None = None
    base: str | None = None
    tower: str | None = None
    adapter: str = "resampler"
    context_tokens: int = 64
    adapter_width: int = 1024
    adapter_depth: int = 4
    split: str = "train"
    heldout: str = "heldout"
    init: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(get_args(Form))}, not {self.form!r}")
        if self.form not in CONTEXT_FORMS:
            self.image_size = 128 if self.image_size is None else self.image_size
            check_image_size(self.image_size)
        if self.adapter not in ADAPTERS:
            raise ValueError(f"adapter must be one of {', '.join(ADAPTERS)}, not {self.adapter!r}")
        if self.adapter != "resampler" and self.form != "sdxl":
            raise ValueError(f"adapter: {self.adapter} goes with form: sdxl only")
        weights = {"mini": "autoencoder", "sdxl": "sdxl"}.get(self.form, "base")
        needs = [weights] if self.form == "mini" else ["tower"] + [weights] * (self.init is None)
        for name in ("autoencoder", "tower", "sdxl", "base"):
            if (getattr(self, name) is not None) != (name in needs):
                verb = "needs" if name in needs else "has no use for"
                raise ValueError(f"form: {self.form} {verb} {name}" + (" beside init" if self.init else ""))


class DetokenizerTraining(Stage):
    """A de-tokenizer that learns to draw from visual tokens.

    Args:
        config: what is trained, and how.
        detokenizer: its autoencoder stays as it is.
    """

    config: DetokenizerTrainingConfig

    def __init__(self, config: DetokenizerTrainingConfig, detokenizer: Detokenizer) -> None:
        super().__init__()
        self.config, self.detokenizer = config, detokenizer
        detokenizer.autoencoder.eval().requires_grad_(False)
        self.adapter, self.unet = detokenizer.adapter, detokenizer.unet
        choose_parts(self.unet, config.parts, config.lora_rank)
        if config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def read(self, images: PageImages, backend: Backend) -> None:
        """Take the latents and the weights of regions of all training pictures."""
        self.latents: Tensor | MappedRows
        self.regions: Tensor | MappedRows
        encode = encode_pages if self.detokenizer.form == "mini" else store_pages
        self.latents, self.regions = encode(self.detokenizer.autoencoder, images, backend)
        self.rows = ShuffledSampler(len(images), self.config.seed)

    def noisy_batch(self, samples: Sequence[tuple[int, int]], features: tuple[int, ...]) -> dict[str, Tensor]:
        """Rows of the samples, their latents and regions, and all that is random about them."""
        rows = torch.tensor([row for _, row in samples])
        latents = self.latents[rows]
        noise = [self.detokenizer_noise(number, latents[0], features) for number, _ in samples]
        stacked = {name: torch.stack([one[name] for one in noise]) for name in noise[0]}
        return {"rows": rows, "latents": latents, "weights": self.regions[rows], **stacked}

    def detokenizer_noise(self, number: int, latents: Tensor, features: tuple[int, ...]) -> dict[str, Tensor]:
        """Everything random about a sample: time, noise on latents and tokens, whether tokens are shown, a coin."""
        generator = noise_of(self.config.seed, number)
        level, keep, time, coin = torch.rand(4, generator=generator)
        return {
            "token_noise": self.config.token_noise * level * torch.randn(features, generator=generator),
            "keep": (keep >= self.config.condition_dropout).float(),
            "time": self.detokenizer.objective.time(time),
            "coin": coin,
            "noise": torch.randn(latents.shape, generator=generator),
        }

    def detokenizer_loss(self, batch: dict[str, Any], features: Tensor) -> Tensor:
        """Weighted squared error of what the U-Net predicts, summed over pictures.

        Args:
            batch: unscaled `latents` and `noise` [B, Z, h, w], `time` and `keep` [B], `weights` of regions [B, h, w].
            features: [B, F, D].
        """
        objective, time, noise = self.detokenizer.objective, batch["time"], batch["noise"]
        latents = self.detokenizer.autoencoder.scaled(batch["latents"].float())
        shown = batch["keep"][:, None, None].bool()
        condition = self.adapter(torch.where(shown, features, self.adapter.blank(features)))
        predicted = self.detokenizer.predict(objective.noisy(latents, noise, time), time, condition).float()
        target, weight = objective.target(latents, noise, time)
        region = batch["weights"][:, None]
        region = region / region.mean((1, 2, 3), keepdim=True)
        return len(latents) * ((predicted - target).square() * region * weight).mean()

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        return {"loss": len(batch["latents"])}

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        return {"loss": 1.0}

    def export_detokenizer(self, folder: Path) -> None:
        """Write `detokenizer/`, LoRA merged."""
        unet = self.detokenizer.unet
        if self.config.parts == "lora":
            self.detokenizer.unet = merge_lora(deepcopy(unet))
        self.detokenizer.save_pretrained(folder / "detokenizer")
        self.detokenizer.unet = unet


def choose_parts(unet: nn.Module, parts: Parts, lora_rank: int) -> None:
    """Let only the chosen parts of a U-Net, or of a transformer in its place, learn."""
    unet.requires_grad_(parts == "full")
    backbone = backbone_of(unet)
    if parts == "kv":
        reads = tuple(f"{name}.{kind}" for name in backbone.context_projections for kind in ("weight", "bias"))
        chosen = [weight for name, weight in unet.named_parameters() if name.endswith(reads)]
        if not chosen:
            raise ValueError("parts: kv needs a U-Net with cross-attention (attn2); this one has none")
        for weight in chosen:
            weight.requires_grad_(True)
    elif parts == "lora":
        targets = list(backbone.lora_targets)
        inject_adapter_in_model(LoraConfig(r=lora_rank, lora_alpha=lora_rank, target_modules=targets), unet)


@torch.no_grad()
def encode_pages(
    autoencoder: ImageAutoencoder | KLAutoencoder | TinyAutoencoder, images: PageImages, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Unscaled latents [N, Z, h, w] of all pictures, bf16, and weights of their regions [N, h, w]."""

    def encode(rows: Tensor) -> tuple[Tensor, Tensor]:
        return encode_rows(autoencoder, images, rows, backend)

    batches = torch.arange(len(images)).split(at_once(images.size))
    latents, regions = zip(*compute_on_all(encode, batches, backend), strict=True)
    return torch.cat(latents), torch.cat(regions)


def encode_rows(
    autoencoder: ImageAutoencoder | KLAutoencoder | TinyAutoencoder, images: PageImages, rows: Tensor, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Latents and regions of some pictures, as `encode_pages` gives them."""
    pixels, weights = images.batch(rows)
    with backend.autocast():
        latents = autoencoder.latents(pixels.to(backend.device)).to(torch.bfloat16).cpu()
    return latents, F.adaptive_avg_pool2d(weights[:, None], (latents.shape[-2], latents.shape[-1]))[:, 0]


def at_once(size: int) -> int:
    """How many pictures of a size are encoded at once."""
    return max(1, PIXELS // size**2)


@torch.no_grad()
def store_pages(
    autoencoder: ImageAutoencoder | KLAutoencoder | TinyAutoencoder, images: PageImages, backend: Backend
) -> tuple[MappedRows, MappedRows | Tensor]:
    """As `encode_pages`, in files beside the data set: latents of 1,024 px take 131 kB a picture."""
    key = [images.identity(), backend.config.precision, digest_weights(autoencoder)]
    folder = images.folder / "latents" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    counts = [len(part) for part in torch.arange(len(images)).split(LATENT_ROWS)]

    def encode(number: int) -> dict[str, Tensor]:
        rows = torch.arange(len(images)).split(LATENT_ROWS)[number]
        parts = [encode_rows(autoencoder, images, some, backend) for some in rows.split(at_once(images.size))]
        latents, regions = (torch.cat(part) for part in zip(*parts, strict=True))
        return {"latents": latents} | ({} if images.even else {"regions": regions})

    files = store_rows(folder, counts, encode, backend)
    side = images.size // autoencoder.downscale
    latents = MappedRows(files, "latents", (len(images), autoencoder.config.latent_channels, side, side))
    if images.even:
        return latents, torch.ones(1, side, side).expand(len(images), -1, -1)
    return latents, MappedRows(files, "regions", (len(images), side, side), torch.float32)


def digest_weights(network: nn.Module) -> str:
    """SHA-256 of the weights of a network in memory."""
    digest = hashlib.sha256()
    for name, weight in network.state_dict().items():
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class FeaturesStage(DetokenizerTraining):
    """A de-tokenizer that learns to draw from features that are there; `batch` says which.

    Attributes:
        heldout_pages: [N, 3, S, S] in [-1, 1].
        heldout_features: [N, F, D].
    """

    heldout_pages: Tensor
    heldout_features: Tensor

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        return {"loss": self.detokenizer_loss(batch, batch["features"])}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        pixels = self.heldout_pages
        with backend.autocast():
            features = self.heldout_features.float().to(backend.device)
            drawn = resize_pixels(draw_images(self.detokenizer, features, self.config.heldout_steps), pixels.shape[-1])
        recorder.write(step, heldout_psnr=psnr(2 * drawn - 1, pixels).mean().item())
        recorder.sheet(step, [pixels[:8] / 2 + 0.5, drawn[:8]])

    def export(self, folder: Path) -> None:
        """Write `detokenizer/`."""
        self.export_detokenizer(folder)


class PretrainedStage(FeaturesStage):
    """A pretrained network learns to draw from the features of a vision tower that stays as it is."""

    name = "detokenizer"
    config: DetokenizerConfig

    def __init__(self, config: DetokenizerConfig, backend: Backend) -> None:
        base = config.sdxl or config.base
        assert config.tower is not None and (config.init or base), "as checked by the configuration"
        tower = load_vision_tower(config.tower)
        if config.init:
            detokenizer = form_of(Path(config.init) / "detokenizer", config.form)
        else:
            detokenizer = new_detokenizer(config, tower.num_features, tower.config.feature_dim)
            if isinstance(detokenizer.adapter, PerceiverAdapter):
                with torch.no_grad():
                    detokenizer.adapter.blank_features.copy_(tower.blank_features())
        fit = tower.image_fit
        del tower  # a large one would stand beside the one that reads the features
        super().__init__(config, detokenizer.to(backend.device))
        in_memory_format(self, torch.channels_last)
        size, most = detokenizer.encoder_image_size, config.heldout_limit or PRETRAINED_HELDOUT
        recipe = make_recipe(config.recipe, config.recipe_settings)
        images = PageImages(config.data, config.split, size, recipe, limit=config.limit, keep=False, fit=fit)
        self.read(images, backend)
        weights = Path(config.init) / "detokenizer" if config.init else Path(base or "")
        self.sources = [*files_of(config.data, config.split, config.heldout), config.tower]
        self.sources += [weights] if weights.is_dir() else []  # it may be of the Hub
        self.features = open_features(config.data, config.split, config.tower, backend, len(images))
        heldout = PageImages(config.data, config.heldout, size, limit=most, keep=False, fit=fit)
        self.heldout_pages, _ = heldout.batch(torch.arange(len(heldout)))
        self.heldout_features = read_features(config.data, config.heldout, config.tower, backend, len(heldout))

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        batch = self.noisy_batch(samples, self.features.shape[1:])
        batch["features"] = self.features[batch.pop("rows")].float() + batch.pop("token_noise")
        return batch

    def export(self, folder: Path) -> None:
        """Write `vision_tower/`, as it was given, and `detokenizer/`."""
        assert self.config.tower is not None
        shutil.rmtree(folder / "vision_tower", ignore_errors=True)
        shutil.copytree(self.config.tower, folder / "vision_tower")
        super().export(folder)


def new_detokenizer(config: DetokenizerConfig, num_features: int, feature_dim: int) -> Detokenizer:
    """A de-tokenizer of the configured form around a pretrained network."""
    sizes: dict[str, Any] = {
        "context_tokens": config.context_tokens,
        "width": config.adapter_width,
        "depth": config.adapter_depth,
    }
    if config.form == "sdxl":
        return Detokenizer.sdxl(config.sdxl or "", num_features, feature_dim, adapter=config.adapter, **sizes)
    sizes["image_size"] = config.image_size
    return detokenizer_from_base(config.form, config.base or "", num_features, feature_dim, **sizes)


def require_files(folder: str | Path, names: Sequence[str], stage: str, setting: str) -> None:
    """See that an earlier stage has left what this one reads, be it hours after its first step.

    Raises:
        ValueError: something is missing.
    """
    for name in names:
        if not (Path(folder) / name).exists():
            raise ValueError(f"{folder} has no {name}: run python -m training.{stage} first, or set {setting} anew")


def form_of(folder: Path, form: Form) -> Detokenizer:
    """Load a de-tokenizer that must be of a form."""
    detokenizer = Detokenizer.from_pretrained(folder)
    if detokenizer.form != form:
        raise ValueError(f"{folder} holds a de-tokenizer of the form {detokenizer.form}: set form: {detokenizer.form}")
    return detokenizer


class DetokenizerStage(DetokenizerTraining):
    """Pictures through visual tokens and back, tower and de-tokenizer together."""

    name = "detokenizer"
    config: DetokenizerConfig

    def __init__(self, config: DetokenizerConfig, backend: Backend) -> None:
        assert config.autoencoder is not None and config.image_size is not None, "as checked by the configuration"
        require_files(config.autoencoder, ("config.json",), "autoencoder", "autoencoder")
        autoencoder = ImageAutoencoder.from_pretrained(config.autoencoder).to(backend.device)
        size, recipe = config.image_size, make_recipe(config.recipe, config.recipe_settings)
        if config.init:
            tower = load_vision_tower(Path(config.init) / "vision_tower")
            if not isinstance(tower, VisionTower):
                raise ValueError(f"{config.init} has a frozen vision tower, which cannot be trained: set another form")
            size = tower.config.image_size
            detokenizer = form_of(Path(config.init) / "detokenizer", "mini")
            detokenizer.autoencoder = autoencoder
        else:
            tower = VisionTower(
                latent_channels=autoencoder.config.latent_channels,
                widths=autoencoder.config.widths,
                encoder_depths=autoencoder.config.encoder_depths,
                image_size=size,
            )
            detokenizer = Detokenizer.mini(autoencoder, tower.num_features, tower.config.feature_dim)
        images = PageImages(config.data, config.split, size, recipe, limit=config.limit, keep=False)
        tower.stem.load_state_dict(autoencoder.encoder.state_dict())
        super().__init__(config, detokenizer)
        self.tower = tower
        in_memory_format(self, torch.channels_last)
        self.read(images, backend)
        self.sources = [*files_of(config.data, config.split, config.heldout), config.autoencoder]
        self.sources += [Path(config.init) / part for part in ("vision_tower", "detokenizer") if config.init]
        self.heldout = PageImages(config.data, config.heldout, size, limit=config.heldout_limit or 128)

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        return self.noisy_batch(samples, (self.tower.num_features, self.tower.config.feature_dim))

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        features = self.tower.from_latents(batch["latents"].float()).float()
        return {"loss": self.detokenizer_loss(batch, features + batch["token_noise"])}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        pixels, _ = self.heldout.batch(torch.arange(len(self.heldout)))
        output = reconstruct(self.tower, self.detokenizer, pixels, backend, self.config.heldout_steps)
        recorder.write(step, heldout_psnr=psnr(2 * output - 1, pixels).mean().item())
        recorder.sheet(step, [pixels[:8] / 2 + 0.5, output[:8]])

    def export(self, folder: Path) -> None:
        """Write `vision_tower/` and `detokenizer/`."""
        self.tower.save_pretrained(folder / "vision_tower")
        self.export_detokenizer(folder)


@torch.no_grad()
def reconstruct(
    tower: VisionTower, detokenizer: Detokenizer, pixels: Tensor, backend: Backend, steps: int | None = None
) -> Tensor:
    """Pixels [B, 3, H, W] in [-1, 1] through the visual tokens and back, in [0, 1]."""
    with backend.autocast():
        features = tower(pixels.to(backend.device)).float()
        return resize_pixels(draw_images(detokenizer, features, steps), pixels.shape[-1])


def draw_images(detokenizer: Detokenizer, features: Tensor, steps: int | None = None) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] from features [B, F, D], always with the same noise; few large ones at once."""
    generator = torch.Generator(features.device).manual_seed(0)
    side, channels = detokenizer.latent_size, detokenizer.autoencoder.config.latent_channels
    noise = torch.randn(len(features), channels, side, side, generator=generator, device=features.device)
    count, drawn = at_once(detokenizer.image_size), []
    for some, start in zip(features.split(count), noise.split(count), strict=True):
        drawn.append(detokenizer(some, generator, num_inference_steps=steps, output_type="pt", latents=start))
    assert all(isinstance(one, Tensor) for one in drawn)
    return torch.cat([torch.as_tensor(one).float().cpu() for one in drawn])


def detokenizer_stage(config: DetokenizerConfig, backend: Backend) -> DetokenizerTraining:
    """The stage of the configured form."""
    return DetokenizerStage(config, backend) if config.form == "mini" else PretrainedStage(config, backend)


def main() -> None:
    """Command line."""
    run_stage(DetokenizerConfig, detokenizer_stage, __doc__)


if __name__ == "__main__":
    main()
