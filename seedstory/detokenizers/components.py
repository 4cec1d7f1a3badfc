"""The folders of a de-tokenizer's parts: each names its class in its config, and holds safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError

from seedstory.errors import ModelError
from seedstory.hub import download
from seedstory.model_files import CheckedLoading, check_finite, check_network, described, read_config

BASE_COMPONENTS = ("unet", "vae", "scheduler")
_MAX_STEPS = 100_000  # of a scheduler; ours have 1,000


def load_component(folder: Path, kinds: Mapping[str, Any], dtype: torch.dtype | None = None) -> Any:
    """Load a network of the class that its folder names, in evaluation mode.

    Args:
        folder: with `config.json` and safetensors.
        kinds: the classes that may stand there, by name.
        dtype: of its weights; by default float32.

    Raises:
        ModelError: The folder is missing, damaged or holds something else.
    """
    kind = component_class(folder, kinds)
    options = {"torch_dtype": dtype} if dtype else {}
    ours = issubclass(kind, CheckedLoading)
    if not ours:
        check_network(getattr(kind, "network", kind), folder)
    try:
        network = kind.from_pretrained(folder, use_safetensors=True, **options).eval()
    except (OSError, SafetensorError, RuntimeError) as error:
        message = f"{folder} cannot be loaded as a {kind.__name__} ({error}): copy or download it again"
        raise ModelError(message) from error
    if not ours:
        check_finite(network.state_dict(), folder)
    return network


def lay_out_component(folder: Path, kinds: Mapping[str, Any]) -> Any:
    """The network of `load_component` without memory for its weights, on torch's meta device.

    Raises:
        ModelError: As `load_component`.
    """
    kind = component_class(folder, kinds)
    network = getattr(kind, "network", kind)
    check_network(network, folder)

    def build() -> Any:
        with torch.device("meta"):
            made = network.from_config(read_config(folder))
        return made if kind is network else kind(made)

    return described(build, folder / "config.json", network.__name__).eval()


def component_class(folder: Path, kinds: Mapping[str, Any]) -> Any:
    """The class that a folder names; the arguments are those of `load_component`.

    Raises:
        ModelError: The folder is missing, damaged or holds something else.
    """
    name = _class_name(folder / "config.json")
    if name not in kinds:
        raise ModelError(f"{folder} holds a {name}, which is none of {', '.join(kinds)}")
    return kinds[name]


def load_scheduler(folder: Path) -> Any:
    """Load a scheduler of diffusers.

    Raises:
        ModelError: The folder is missing, damaged or holds something else.
    """
    name = _class_name(folder / "scheduler_config.json")
    kind: Any = getattr(diffusers, str(name), None)
    known: bool = isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)
    if not known:
        raise ModelError(f"{folder} holds a {name}, which is no scheduler of diffusers {diffusers.__version__}")
    steps = read_config(folder, "scheduler_config.json").get("num_train_timesteps", 1000)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= _MAX_STEPS:
        raise ModelError(
            f"{folder}: num_train_timesteps must be a whole number from 1 to {_MAX_STEPS:,}, not {steps!r}"
        )
    return described(lambda: kind.from_pretrained(folder), folder, "scheduler")


def base_folder(name: str | Path, network: str = "unet", what: str = "SDXL") -> Path:
    """Find a model in diffusers' layout: a local folder, or what the Hugging Face Hub has by this id.

    Args:
        name: the folder or id.
        network: the part that denoises: "unet" or "transformer".
        what: the model's name, for messages.

    Raises:
        ModelError: There is no such model, or the folder lacks a part.
    """
    folder, parts = Path(name), (network, *BASE_COMPONENTS[1:])
    if not folder.is_dir():
        if folder.is_absolute() or str(name).count("/") != 1:
            raise ModelError(f"there is no {what} folder {name}: give one with {_listed(parts)}, or a Hub id")
        folder = _from_hub(str(name), parts)
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise ModelError(
            f"{folder} is no {what} folder of diffusers' layout: it lacks {_listed(missing)}"
            + (" (this is a single-file checkpoint: convert it first)" if any(folder.glob("*.safetensors")) else "")
        )
    return folder


def _from_hub(name: str, parts: tuple[str, ...]) -> Path:
    # Plain safetensors only: the repository of SDXL also holds half-precision, ONNX, Flax and OpenVINO copies.
    weights = "diffusion_pytorch_model"
    patterns = [f"{part}/*.json" for part in parts]
    patterns += [f"{part}/{weights}{end}" for part in parts[:2] for end in (".safetensors", "-*.safetensors")]
    return download(name, allow_patterns=patterns)


def _class_name(config: Path) -> Any:
    if not config.exists():
        raise ModelError(f"{config.parent} is no part of a model: it has no {config.name}")
    name = read_config(config.parent, config.name).get("_class_name")
    if not isinstance(name, str):
        raise ModelError(f"{config} cannot be read: it names no class; the folder is damaged")
    return name


def _listed(parts: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"{part}/" for part in parts)
