"""Files of a `StoryModel`: one safetensors with the trained weights, and nothing of the base model."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

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
    state = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in trained_state(model).items()}
    unfinished = folder / (WEIGHTS_FILE + ".part")
    save_file(state, unfinished, metadata={"format": "pt"})
    unfinished.chmod(0o644)
    unfinished.replace(folder / WEIGHTS_FILE)


def read_trained(model: torch.nn.Module, folder: Path) -> None:
    """Read the trained weights of `folder` into `model`, in the model's own types.

    Raises:
        ValueError: If the file is missing or broken, or if weights are missing, unknown or of another shape.
    """
    file = folder / WEIGHTS_FILE
    try:
        stored = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} cannot be read as a safetensors checkpoint: {error}") from error
    own = trained_state(model)
    check_shapes(_shapes(own), _shapes(stored), file)
    check_finite(stored, file)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def resolve_checkpoint(name: Any) -> Path:
    """The local folder of a checkpoint that is given as a folder or as a Hugging Face Hub id.

    Raises:
        ValueError: If there is no such folder and the Hub has no such checkpoint or cannot be reached.
    """
    folder = Path(name)
    if (folder / "config.json").exists():
        return folder
    if folder.is_dir() or folder.is_absolute():
        raise ValueError(f"{folder} is not a checkpoint folder: it has no config.json.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "*.jinja"]))
    except Exception as error:
        raise ValueError(
            f"Checkpoint {str(name)!r} is neither a local folder nor available from the Hugging Face Hub "
            f"({type(error).__name__})."
        ) from error
