"""A vision tower of transformers, frozen: CLIP, SigLIP, SigLIP 2, DINOv2 or DINOv3 gives an image's features.

It has the interface of `VisionTower`, and `load_vision_tower` loads either, by what a folder says. Stage 1b
in the SDXL form teaches a de-tokenizer to draw from it; the later stages only read its features.

Shapes: B batch, S side of an image in px, G side of the patch grid, F features of an image (on a square grid), D their
width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from seedstory.errors import ModelError
from seedstory.hub import download
from seedstory.image import Fit
from seedstory.io import read_json
from seedstory.model_files import MAX_CONFIG_BYTES, CheckedLoading, check_files, described, read_config, stored_shapes
from seedstory.modeling.configuration import check_attention_name

# Tokens before those of the patches, registers not counted.
_CLASS_TOKENS = {
    "clip_vision_model": 1,
    "siglip_vision_model": 0,
    "siglip2_vision_model": 0,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_vit": 1,
}
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")  # transformers 5 writes the latter


class PretrainedTower(CheckedLoading, ModelMixin, ConfigMixin):
    """Encodes an image into the F tokens of its patches, each of zero mean and unit variance; never trained.

    Tokens that stand for no patch (class, registers) are left out. Positions are interpolated where the image has
    another size than in pretraining, as the network itself does it.

    Args:
        network_config: Configuration of the network in transformers, with its `model_type`.
        image_size: S, side of the images that it shall read, in px.
        image_mean: Of each color channel, for pixels in [0, 1].
        image_std: Likewise.
        grid_size: Side of the square grid of features, F = grid_size²; the patches are averaged to it. None: G.
        feature_dim: D, which is the network's width; written with the rest for who reads the configuration.
    """

    @register_to_config
    def __init__(
        self,
        network_config: dict[str, Any],
        image_size: int,
        image_mean: tuple[float, float, float],
        image_std: tuple[float, float, float],
        grid_size: int | None = None,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        config = _checked_config(network_config)
        self.patch_size = _one_number(config.patch_size, "patch_size")
        self.patches = image_size // self.patch_size
        self.grid_size = self.patches if grid_size is None else grid_size
        if not 1 <= self.grid_size <= self.patches or self.patches % self.grid_size:
            raise ModelError(
                f"an image of {image_size} px has {self.patches} patches of {self.patch_size} px a side, which cannot "
                f"be averaged to {self.grid_size}: choose another image_size or grid_size"
            )
        if len(image_mean) != 3 or len(image_std) != 3 or min(image_std) <= 0:
            raise ModelError(f"image_mean and image_std must be three numbers each, not {image_mean} and {image_std}")
        self.skipped = _CLASS_TOKENS[config.model_type] + getattr(config, "num_register_tokens", 0)
        self.network = AutoModel.from_config(config, trust_remote_code=False)
        if feature_dim not in (None, config.hidden_size):
            raise ModelError(f"feature_dim is {feature_dim}, but the network has the width {config.hidden_size}")
        self.register_to_config(feature_dim=config.hidden_size)
        self.requires_grad_(False).eval()

    @classmethod
    def from_network(
        cls, name: str | Path, *, image_size: int | None = None, grid_size: int | None = None
    ) -> PretrainedTower:
        """The tower of a model of transformers, of which only the vision part is read.

        Args:
            name: Folder with `config.json`, safetensors and the image processor's settings, or Hub id.
            image_size: As in the class; by default that of pretraining.
            grid_size: As in the class.

        Raises:
            ModelError: There is no such model, it is of another family, damaged, or says no mean and std of images.
        """
        folder = Path(name) if (Path(name) / "config.json").exists() else download(str(name))
        check_files(folder)
        read_config(folder), stored_shapes(folder)  # looked at before transformers does
        config = described(lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False), folder, "vision model")
        config = getattr(config, "vision_config", config)
        settings = config.to_dict() | {"model_type": config.model_type}
        if hasattr(config, "vision_use_head"):
            settings["vision_use_head"] = False  # it pools the image to one vector
        settings = {key: value for key, value in settings.items() if key not in ("_name_or_path", "dtype")}
        size = image_size or getattr(config, "image_size", None)
        if size is None:  # SigLIP 2 for images of any shape has a number of patches instead
            size = round(config.num_patches**0.5) * _one_number(config.patch_size, "patch_size")
        mean, std = _normalization(folder)
        tower = cls(settings, _one_number(size, "image_size"), mean, std, grid_size)
        loaded, report = described(
            lambda: AutoModel.from_pretrained(
                folder,
                config=tower.network.config,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            ),
            folder,
            "vision model",
        )
        if missing := [*report["missing_keys"], *report["mismatched_keys"]]:
            raise ModelError(f"{folder} is damaged: {len(missing)} weights are missing, such as {missing[0]}")
        tower.network = loaded
        tower.requires_grad_(False).eval()
        return tower

    image_fit: Fit = "crop"
    """How a picture becomes the square that the tower reads, see `to_square`."""

    @property
    def num_features(self) -> int:
        """F, the number of feature tokens of an image."""
        return self.grid_size**2

    @torch.no_grad()
    def blank_features(self) -> Tensor:
        """Features of a gray picture, [F, D]."""
        size = self.config.image_size
        return self(torch.zeros(1, 3, size, size, dtype=self.dtype, device=self.device))[0]

    def train(self, mode: bool = True) -> PretrainedTower:
        """Stays in evaluation mode: it is frozen, and DINOv3 jitters its positions in training."""
        super().train(False)
        return self

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode pixels [B, 3, S, S] in [-1, 1] to features [B, F, D]."""
        size = self.config.image_size
        if tuple(pixel_values.shape[1:]) != (3, size, size):
            raise ModelError(f"pixel_values must be [B, 3, {size}, {size}], not {list(pixel_values.shape)}")
        mean, std = (
            pixel_values.new_tensor(part)[:, None, None] for part in (self.config.image_mean, self.config.image_std)
        )
        tokens = self._encode(((pixel_values + 1) / 2 - mean) / std)
        count = self.patches**2
        if tokens.shape[1] != self.skipped + count:
            raise ModelError(
                f"the network gives {tokens.shape[1]} tokens for {count} patches and {self.skipped} others"
            )
        grid = tokens[:, self.skipped :].transpose(1, 2).unflatten(2, (self.patches, self.patches))
        if self.grid_size != self.patches:
            grid = nn.functional.avg_pool2d(grid, self.patches // self.grid_size)
        x = grid.flatten(2).transpose(1, 2)
        return nn.functional.layer_norm(x.float(), x.shape[-1:]).to(x.dtype)

    def _encode(self, pixels: Tensor) -> Tensor:
        """All tokens of the last layer: normalized pixels [B, 3, S, S] → [B, skipped + G * G, D]."""
        kind = self.network.config.model_type
        if kind == "siglip2_vision_model":
            side, patch = self.patches, self.patch_size
            parts = pixels[:, :, : side * patch, : side * patch].unflatten(2, (side, patch)).unflatten(4, (side, patch))
            parts = parts.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
            mask = torch.ones(parts.shape[:2], dtype=torch.long, device=parts.device)
            shapes = torch.tensor([[side, side]] * len(parts))
            return self.network(parts, pixel_attention_mask=mask, spatial_shapes=shapes).last_hidden_state
        if kind in ("clip_vision_model", "siglip_vision_model"):
            return self.network(pixels, interpolate_pos_encoding=True).last_hidden_state
        return self.network(pixels).last_hidden_state


def _checked_config(network_config: dict[str, Any]) -> Any:
    settings = dict(network_config)
    kind = settings.pop("model_type", None)
    if kind not in _CLASS_TOKENS:
        raise ModelError(
            f"a vision tower of the model_type {kind!r:.60} is not supported: {', '.join(_CLASS_TOKENS)} are"
        )
    check_attention_name(settings, "network_config")
    return described(lambda: AutoConfig.for_model(kind, **settings), "network_config", str(kind))


def _normalization(folder: Path) -> tuple[Any, Any]:
    """Mean and std of an image's channels, as the folder's image processor subtracts and divides by them."""
    path = next((folder / name for name in _PROCESSORS if (folder / name).is_file()), None)
    if path is None:
        raise ModelError(
            f"{folder} has no {_PROCESSORS[0]}, which says the mean and std of its images: download it, too"
        )
    settings = read_json(path, limit=MAX_CONFIG_BYTES)
    settings = settings.get("image_processor", settings) if isinstance(settings, dict) else settings
    if not isinstance(settings, dict) or settings.get("do_rescale") is False:
        raise ModelError(f"{path} does not describe pixels that are brought to [0, 1] and normalized")
    if settings.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    parts: list[Any] = [settings.get(name) for name in ("image_mean", "image_std")]
    if not all(isinstance(part, list) and all(isinstance(one, int | float) for one in part) for part in parts):
        raise ModelError(f"{path} names no image_mean and image_std")
    return tuple(parts[0]), tuple(parts[1])


def _one_number(value: Any, name: str) -> int:
    """A size that transformers may give as a pair."""
    pair = value if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2 or pair[0] != pair[1] or not isinstance(pair[0], int) or pair[0] < 1:
        raise ModelError(f"{name} must be one number, since images are square, not {value!r:.60}")
    return pair[0]
