"""Model folders: where a model is, what it is made of, and what tells it from another.

    model_index.json    what the folder is, and its parts
    story_model/        weights and settings of the language model's own parts
    vision_tower/
    detokenizer/

Nothing heavy is imported here: whoever only wants to find a model waits for no network.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from seedstory import __version__
from seedstory.io import MAX_JSON_BYTES, open_regular, parse_json, read_json

PARTS = {"story_model": "StoryModel", "vision_tower": "VisionTower", "detokenizer": "Detokenizer"}
EMBEDDED = Path(__file__).parent / "weights"
_DECIDING = (".safetensors", ".json", ".txt", ".model", ".jinja")
_SETTINGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "generation_config.json")
_FLEETING = ("transformers_version", "name_or_path", "is_local", "local_files_only")


def find_model(name: str | Path) -> Path:
    """The folder of a model, given its name or folder; loads nothing.

    Raises:
        ValueError: There is no such model, or its folder is not one of ours.
    """
    folder = Path(name)
    if str(name) == "mini":
        folder = EMBEDDED / "mini"
        if not folder.is_dir():
            raise ValueError(
                "this installation lacks the embedded model mini: install seedstory again, or give --model"
            )
    elif not folder.is_dir():
        raise ValueError(f"there is no model {name}: give 'mini' or the folder of a model")
    index = folder / "model_index.json"
    if not index.exists():
        raise ValueError(f"{folder} is not a model folder: it has no model_index.json")
    try:
        kind = read_json(index, limit=2**20)["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} cannot be read: the model folder is damaged ({error})") from None
    if kind != "StoryPipeline":
        raise ValueError(f"{folder} holds a {kind}, not a StoryPipeline")
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise ValueError(f"the model folder {folder} lacks {', '.join(missing)}: copy or download it again")
    return folder


def fingerprint(*folders: Path) -> str:
    """SHA-256 over all that decides what a model does: weights, settings and tokenizers, every byte of them.

    Which version of a library wrote the settings does not count, since a base language model may be converted anew on
    another machine.

    Args:
        *folders: The model folder, and that of its base language model.

    Raises:
        ValueError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix in _DECIDING and not p.is_dir()):
            with open_regular(path) as file:
                if path.name in _SETTINGS:
                    settings = parse_json(file.read(MAX_JSON_BYTES), str(path))
                    found = hashlib.sha256(json.dumps(_lasting(settings), sort_keys=True).encode()).hexdigest()
                else:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{found}\0".encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _lasting(settings: Any) -> Any:
    """Settings without what says by whom and where they were written."""
    if isinstance(settings, dict):
        return {
            key: _lasting(value)
            for key, value in settings.items()
            if not (key.startswith("_") and key != "_class_name") and key not in _FLEETING
        }
    return settings


def versions() -> dict[str, str]:
    """Versions of what makes a story what it is."""
    found = {"seedstory": __version__}
    for package in ("torch", "transformers", "diffusers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
