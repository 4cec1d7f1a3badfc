"""Files of a `StoryModel`: one safetensors with the trained weights, and nothing of the base model."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from seedstory.errors import ModelError
from seedstory.hub import download
from seedstory.io import atomic_path
from seedstory.model_files import check_finite, check_shapes

WEIGHTS_FILE = "model.safetensors"


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What training changes: image token rows, LoRA and both resamplers, under the names used in the file."""
    return {
        name.replace(".default.", "."): tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("llm.") or ".lora_" in name
    }


def write_trained(model: torch.nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write the trained weights of `model` into `folder`, in `dtype` (None: as they are)."""
    state = trained_state(model) | getattr(model, "merged_lora", {})
    state = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in state.items()}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)


def read_trained(model: torch.nn.Module, folder: Path, *, lora: bool = True) -> None:
    """Read the trained weights of `folder` into `model`, in the model's own types.

    Args:
        model: The story model.
        folder: What `write_trained` wrote.
        lora: Whether the model has LoRA. What is stored of it is otherwise left out.

    Raises:
        ModelError: If the file is missing or broken, or if weights are missing, unknown or of another shape.
    """
    file = folder / WEIGHTS_FILE
    try:
        stored = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read as a safetensors checkpoint: {error}") from error
    if not lora:
        stored = {name: tensor for name, tensor in stored.items() if ".lora_" not in name}
    own = trained_state(model)
    check_shapes(_shapes(own), _shapes(stored), file)
    check_finite(stored, file)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def read_lora(folder: Path) -> dict[str, torch.Tensor]:
    """LoRA's factors in a folder, in float32, by their names in the file.

    Raises:
        ModelError: If the file is missing, broken or holds NaN.
    """
    file = folder / WEIGHTS_FILE
    try:
        with safe_open(file, "pt") as stored:
            factors = {name: stored.get_tensor(name).float() for name in stored.keys() if ".lora_" in name}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read as a safetensors checkpoint: {error}") from error
    check_finite(factors, file)
    return factors


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def resolve_checkpoint(name: Any) -> Path:
    """The local folder of a checkpoint that is given as a folder or as a Hugging Face Hub id.

    Raises:
        ModelError: If there is no such folder and the Hub has no such checkpoint or cannot be reached.
    """
    folder = Path(name)
    if (folder / "config.json").exists():
        return folder
    if folder.is_dir() or folder.is_absolute():
        raise ModelError(f"{folder} is not a checkpoint folder: it has no config.json.")
    return download(str(name))
