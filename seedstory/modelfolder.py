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

from seedstory import __version__

PARTS = {"story_model": "StoryModel", "vision_tower": "VisionTower", "detokenizer": "Detokenizer"}
EMBEDDED = Path(__file__).parent / "weights"
_WHOLE_FILE = 64 * 2**20  # bytes; of larger files the fingerprint reads both ends only


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
    try:
        kind = json.loads(index.read_text("utf-8"))["_class_name"]
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a model folder: it has no model_index.json") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{index} cannot be read: the model folder is damaged") from None
    if kind != "StoryPipeline":
        raise ValueError(f"{folder} holds a {kind}, not a StoryPipeline")
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise ValueError(f"the model folder {folder} lacks {', '.join(missing)}: copy or download it again")
    return folder


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names, sizes and contents of a model folder's weights and settings.

    Of files above 64 MB only the first and the last megabyte count, so that a large model is hashed in a moment.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with open(path, "rb") as file:
            if size <= _WHOLE_FILE:
                digest.update(file.read())
            else:
                digest.update(file.read(2**20))
                file.seek(-(2**20), 2)
                digest.update(file.read())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what makes a story what it is."""
    found = {"seedstory": __version__}
    for package in ("torch", "transformers", "diffusers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
