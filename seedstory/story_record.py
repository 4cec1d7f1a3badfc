"""What a story folder's files say: `story.json`, the features of a page, and the text chunks of its picture.

Reading checks every value, since a folder may come from anyone.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin

from seedstory.errors import RequestError, StoryFolderError
from seedstory.identity import ModelIdentity
from seedstory.io import read_regular
from seedstory.settings import MAX_PAGES, StorySettings
from seedstory.story_state import StoryState

if TYPE_CHECKING:
    import torch

FORMAT = "seedstory-story"
FORMAT_VERSION = 1
STATES = ("opening", "written", "illustrated")
MAX_FEATURES = 64 * 2**20  # bytes of a page's features
PAGE_FILE = re.compile(r"pages/page-\d{3,5}(\.r\d{1,6})?\.(png|safetensors)")

# What story.json and the pictures call settings that have other names here.
_NAMES_ON_DISK = {
    "image_name": "picture",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "text_guidance_scale": "text_guidance",
}


def read_features(path: Path) -> torch.Tensor:
    """The features `[F, Df]` of a page, finite floats.

    Raises:
        StoryFolderError: The file is missing, too large, damaged, or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensor = load(read_regular(path, limit=MAX_FEATURES))["features"]
    except (SafetensorError, KeyError) as error:
        raise StoryFolderError(f"{path} holds no features ({error})") from None
    if not tensor.is_floating_point() or tensor.ndim != 2:
        raise StoryFolderError(f"{path} holds {tensor.dtype} of shape {list(tensor.shape)}, not features [F, Df]")
    if not bool(tensor.isfinite().all()):
        raise StoryFolderError(f"{path} holds NaN or infinity")
    return tensor


def png_bytes(
    image: Image.Image, *, title: str, caption: str, number: int, seed: int, settings: StorySettings
) -> bytes:
    """PNG bytes of a page's picture, with the making of it in text chunks."""
    chunks = PngImagePlugin.PngInfo()
    made = {k: v for k, v in settings_to_dict(settings).items() if k != "captions"}
    for key, value in {
        "Software": "seedstory",
        "Title": title,
        "Description": caption,
        "seedstory.page": str(number),
        "seedstory.seed": str(seed),
        "seedstory.prompt": settings.text or "",
        "seedstory.settings": json.dumps(made, ensure_ascii=False),
    }.items():
        chunks.add_itxt(key, value)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def settings_to_dict(settings: StorySettings) -> dict[str, Any]:
    """Settings as `story.json` and the pictures write them."""
    return {_NAMES_ON_DISK.get(key, key): value for key, value in asdict(settings).items()}


def _is_page_file(name: Any, ending: str) -> bool:
    return isinstance(name, str) and bool(PAGE_FILE.fullmatch(name)) and name.endswith(ending)


def check_record(record: Any) -> dict[str, Any]:
    """The parts of a parsed story.json, each checked, as keyword arguments of `StoryFolder`.

    Raises:
        StoryFolderError, KeyError: It is not such a record, or a part is missing.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise StoryFolderError("it was not written by seedstory")
    version = record["format_version"]
    if isinstance(version, bool) or not isinstance(version, int):
        raise StoryFolderError(f"format_version must be a whole number, not {version!r:.40}")
    if version != FORMAT_VERSION:
        raise StoryFolderError(f"its format is {version}, this seedstory reads {FORMAT_VERSION}: update it")
    if not isinstance(record["settings"], dict) or not isinstance(record["pages"], list):
        raise StoryFolderError("settings must be an object, and pages a list")
    known = {_NAMES_ON_DISK.get(f.name, f.name): f.name for f in fields(StorySettings)}
    unknown = set(record["settings"]) - set(known)
    if unknown:
        raise StoryFolderError(f"unknown settings {', '.join(sorted(unknown))}")
    if len(record["pages"]) > MAX_PAGES:
        raise StoryFolderError(f"it lists {len(record['pages']):,} pages: a story has at most {MAX_PAGES:,}")
    entries = []
    for number, page in enumerate(record["pages"], 1):
        if not isinstance(page, dict):
            raise StoryFolderError(f"page {number} is not well formed")
        entry = {key: page[key] for key in ("caption", "picture", "features", "seed", "state")}
        entry["alt"] = page.get("alt", "")
        entry["next_state"] = page.get("next_state")
        if entry["next_state"] is not None:
            try:
                StoryState.from_dict(entry["next_state"])
            except RequestError as error:
                raise StoryFolderError(f"next_state of page {number} is not well formed: {error}") from None
        good = isinstance(entry["caption"], str) and isinstance(entry["alt"], str) and entry["state"] in STATES
        good = good and isinstance(entry["seed"], int) and not isinstance(entry["seed"], bool)
        for kind, ending in (("picture", ".png"), ("features", ".safetensors")):
            name = entry[kind]
            good = good and (name is None or _is_page_file(name, ending))
        if not good:
            raise StoryFolderError(f"page {number} is not well formed")
        entries.append(entry)
    for key in ("title", "language"):
        if not isinstance(record[key], str):
            raise StoryFolderError(f"{key} is not text")
    versions, earlier = record["versions"], record.get("earlier_models", [])
    if not isinstance(versions, dict) or not all(isinstance(value, str) for value in versions.values()):
        raise StoryFolderError("versions must be an object of texts")
    if not isinstance(earlier, list):
        raise StoryFolderError("earlier_models must be a list")
    try:
        model, *earlier = (ModelIdentity.from_dict(one) for one in [record["model"], *earlier])
    except ValueError as error:
        raise StoryFolderError(f"model is not well formed: {error}") from None
    settings = StorySettings(**{known[key]: value for key, value in record["settings"].items()})
    if len(entries) > settings.pages:
        count = len(entries)
        raise StoryFolderError(f"it has {count} pages, but settings.pages is {settings.pages}: set that to {count}")
    return {
        "title": record["title"],
        "settings": settings,
        "model": model,
        "earlier_models": earlier,
        "versions": dict(versions),
        "language": record["language"],
        "entries": entries,
    }
