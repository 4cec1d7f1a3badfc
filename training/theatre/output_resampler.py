"""The part of a story model that stage 2a trains: its output resampler, but for what reads the language model."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from seedstory.resampler import OutputResampler

WRITTEN = ("scene_codes.safetensors", "output_resampler.safetensors")


def head_weights(resampler: OutputResampler) -> dict[str, Tensor]:
    """The weights that `OutputResampler.draw` uses: all but those that read the language model."""
    reading = ("to_width", "source_norm")
    return {name: weight for name, weight in resampler.named_parameters() if not name.startswith(reading)}


def load_head(resampler: OutputResampler, folder: Path) -> None:
    """Load what stage 2a wrote into a story model's output resampler.

    Raises:
        ValueError: stage 2a trained a resampler of another kind.
    """
    weights = load_file(folder / "output_resampler.safetensors")
    shapes = {name: weight.shape for name, weight in head_weights(resampler).items()}
    if shapes != {name: weight.shape for name, weight in weights.items()}:
        raise ValueError(f"{folder}: stage 2a trained another output resampler")
    resampler.load_state_dict(weights, strict=False)
