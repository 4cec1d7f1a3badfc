"""Model folders: where a model is, what it is made of, and what identifies it.

    model_index.json    what the folder is, and its parts
    story_model/        weights and settings of the language model's own parts
    vision_tower/
    detokenizer/

Nothing heavy is imported here: whoever only wants to find a model waits for no network.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from seedstory import __version__
from seedstory.errors import ModelError
from seedstory.hub import download, is_repo_id
from seedstory.io import read_json

COMPONENTS = {"story_model": "StoryModel", "vision_tower": "VisionTower", "detokenizer": "Detokenizer"}
EMBEDDED = Path(__file__).parent / "weights"


def find_model(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model; loads nothing.

    Args:
        name: "mini", a folder, or a Hub id such as `owner/model`.
        revision: As the other arguments, only for a Hub id, see `seedstory.hub.download`.
        token: As `revision`.
        cache_dir: As `revision`.
        local_files_only: As `revision`.

    Raises:
        ModelError: There is no such model, it cannot be fetched, or its folder is not one of ours.
    """
    folder = Path(name)
    if str(name) == "mini":
        folder = EMBEDDED / "mini"
        if not folder.is_dir():
            raise ModelError("this installation lacks the embedded model mini: install seedstory again")
    elif not folder.is_dir():
        if not is_repo_id(name):
            raise ModelError(f"there is no model {name}: give 'mini', the folder of a model, or a Hub id")
        folder = download(
            str(name), revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
    index = folder / "model_index.json"
    if not index.exists():
        raise ModelError(f"{folder} is not a model folder: it has no model_index.json")
    try:
        kind = read_json(index, limit=2**20)["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{index} cannot be read: the model folder is damaged ({error})") from None
    if kind != "StoryPipeline":
        raise ModelError(f"{folder} holds a {kind}, not a StoryPipeline")
    missing = [part for part in COMPONENTS if not (folder / part).is_dir()]
    if missing:
        raise ModelError(f"the model folder {folder} lacks {', '.join(missing)}: copy or download it again")
    return folder


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Versions of what makes a story what it is."""
    packages = ("torch", "transformers", "diffusers")
    return {"seedstory": __version__} | {package: _version(package) for package in packages}
