"""The part of a story model that the stage "reading" trains: its input resampler, as a file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedstory.modeling.checkpoint import WEIGHTS_FILE
from seedstory.modeling.configuration import StoryConfig
from seedstory.resampler import InputResampler, ResamplerBlock

WRITTEN = ("input_resampler.safetensors",)
_PREFIX = "input_resampler."


def sizes_of(resampler: InputResampler) -> dict[str, int]:
    """Sizes of an input resampler, by the names of `StoryConfig` and, for D, `hidden_size`."""
    block = resampler.blocks[0]
    assert isinstance(block, ResamplerBlock)
    return {
        "num_visual_tokens": resampler.queries.shape[0],
        "feature_tokens": resampler.get_buffer("positions").shape[0],
        "feature_dim": resampler.to_width.in_features,
        "input_resampler_width": resampler.to_width.out_features,
        "input_resampler_depth": len(resampler.blocks),
        "input_resampler_heads": block.cross.heads,
        "hidden_size": resampler.to_embedding.out_features,
    }


def save_input_resampler(resampler: InputResampler, vocabulary: dict[str, list[str]], folder: Path) -> None:
    """Write the weights, with the words that they can say and the sizes in the file's metadata."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in resampler.state_dict().items()}
    about = {"sizes": json.dumps(sizes_of(resampler)), "vocabulary": json.dumps(vocabulary)}
    save_file(weights, folder / WRITTEN[0], about)


def read_vocabulary(folder: Path) -> dict[str, list[str]]:
    """The words that an input resampler of the stage "reading" can say."""
    with safe_open(folder / WRITTEN[0], "pt") as file:
        vocabulary: dict[str, list[str]] = json.loads(file.metadata()["vocabulary"])
    return vocabulary


def load_input_resampler(resampler: InputResampler, folder: Path) -> None:
    """Load the weights that the stage "reading" wrote, or those of a story model's folder.

    Raises:
        ValueError: there are none, or they are of other sizes.
    """
    sizes, weights = _of_reading(folder) if (folder / WRITTEN[0]).is_file() else _of_story_model(folder)
    own = sizes_of(resampler)
    other = [f"{name} {sizes[name]} instead of {own[name]}" for name in own if sizes[name] != own[name]]
    if other:
        raise ValueError(f"{folder} has an input resampler of other sizes: {', '.join(other)}")
    resampler.load_state_dict(weights)


def init_file(folder: Path) -> Path:
    """The file that `load_input_resampler` reads the weights from."""
    return next((folder / name for name in WRITTEN if (folder / name).is_file()), folder / WEIGHTS_FILE)


def _of_reading(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(folder / WRITTEN[0], "pt") as file:
        sizes = json.loads((file.metadata() or {}).get("sizes", "null"))
    if sizes is None:
        raise ValueError(f"{folder / WRITTEN[0]} was not written by python -m training.theatre.reading")
    return sizes, load_file(folder / WRITTEN[0])


def _of_story_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not (folder / WEIGHTS_FILE).is_file():
        raise ValueError(f"{folder} holds neither {WRITTEN[0]} nor a story model ({WEIGHTS_FILE})")
    config = StoryConfig.of_folder(folder)
    sizes = config.to_dict() | {"hidden_size": config.language_config().hidden_size}
    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        names = [name for name in file.keys() if name.startswith(_PREFIX)]
        return sizes, {name.removeprefix(_PREFIX): file.get_tensor(name).float() for name in names}
