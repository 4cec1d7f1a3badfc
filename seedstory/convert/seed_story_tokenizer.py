"""The tokenizer of SEED-Story's release: Llama's, without the image tokens that were added to it in another order."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from seedstory.errors import ModelError
from seedstory.io import read_json
from seedstory.layout import StoryLayout
from seedstory.model_files import MAX_TOKENIZER_BYTES
from seedstory.modeling.base_lm import load_tokenizer

_VOCABULARIES = ("tokenizer.model", "tokenizer.json")


def read_image_token_ids(folder: Path, num_visual_tokens: int, image_start_id: int) -> list[int]:
    """The released ids of `<img>`, `</img>` and the query tokens, in this order.

    Args:
        folder: With `added_tokens.json`.
        num_visual_tokens: Query tokens of an image.
        image_start_id: Where the base vocabulary ends.

    Raises:
        ModelError: The file is missing, lacks a token, or its ids are not those after the base vocabulary.
    """
    file, names = folder / "added_tokens.json", StoryLayout.token_names(num_visual_tokens)
    added = _read(file)
    missing = [name for name in names if name not in added]
    if missing:
        raise ModelError(f"{file} lacks {len(missing)} image tokens ({missing[0]}, ...)")
    ids = [added[name] for name in names]
    if not all(isinstance(one, int) for one in ids) or sorted(ids) != list(
        range(image_start_id, image_start_id + len(names))
    ):
        raise ModelError(f"{file}: the ids of the image tokens must be the {len(names)} from {image_start_id} on")
    return ids


def write_base_tokenizer(released: Path, folder: Path, image_start_id: int) -> None:
    """Write the tokenizer as it was before image tokens were added to it, in the form that needs no other library.

    Args:
        released: With `tokenizer.model` or `tokenizer.json`, and `tokenizer_config.json`.
        folder: An existing one.
        image_start_id: Where the base vocabulary ends.

    Raises:
        ModelError: A file is missing or damaged, or the vocabulary is of another size.
    """
    vocabularies = [name for name in _VOCABULARIES if (released / name).is_file()]
    if not vocabularies:
        raise ModelError(f"{released} holds no tokenizer: it has neither {' nor '.join(_VOCABULARIES)}")
    if vocabularies == ["tokenizer.model"] and importlib.util.find_spec("sentencepiece") is None:
        raise ModelError(f"reading {released / vocabularies[0]} needs sentencepiece: pip install 'seedstory[convert]'")
    config = _read(released / "tokenizer_config.json")
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        config["added_tokens_decoder"] = {
            key: value for key, value in decoder.items() if not (key.isdigit() and int(key) >= image_start_id)
        }
    for key in ("additional_special_tokens", "extra_special_tokens", "auto_map"):
        config.pop(key, None)
    with tempfile.TemporaryDirectory() as scratch:
        for name in vocabularies:
            shutil.copyfile(released / name, Path(scratch) / name)
        if "tokenizer.json" in vocabularies:
            whole = _read(released / "tokenizer.json")
            whole["added_tokens"] = [one for one in whole.get("added_tokens", []) if one["id"] < image_start_id]
            (Path(scratch) / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
        (Path(scratch) / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
        tokenizer = load_tokenizer(Path(scratch))
    if len(tokenizer) != image_start_id:
        raise ModelError(
            f"{released} holds a tokenizer of {len(tokenizer):,} tokens, the agent's has {image_start_id:,}"
        )
    tokenizer.save_pretrained(folder)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path.parent} holds no tokenizer of SEED-Story: it has no {path.name}")
    found = read_json(path, limit=MAX_TOKENIZER_BYTES)
    if not isinstance(found, dict):
        raise ModelError(f"{path} must be a JSON object")
    return found
