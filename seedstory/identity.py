"""Which weights made a story: a SHA-256 of every weight file, the base language model's included.

Hashing a large model takes seconds, so the digest of a weight file is kept in the user's cache folder for as long as
its size and times stay the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from seedstory.errors import ModelError, raised_as
from seedstory.io import MAX_JSON_BYTES, cache_folder, open_regular, parse_json, write_atomic
from seedstory.model_credits import FILE as CREDITS

logger = logging.getLogger(__name__)

_DECIDING = (".safetensors", ".json", ".txt", ".model", ".jinja")
_SETTINGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "generation_config.json")
_FLEETING = ("transformers_version", "name_or_path", "is_local", "local_files_only")
_MOST_REMEMBERED = 2_000  # digests in the cache


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What a story, a checkpoint or a benchmark says of the model that made it.

    Args:
        name: What the user called it: "mini", a folder or a Hub id.
        fingerprint: SHA-256 over all that decides what the model does, see `fingerprint`. Two models are the same if
            this is the same.
        dtype: Types of the language model's weights: "float32+bfloat16" computes in the one and decodes from the other.
        files: SHA-256 of every weight file by its path in the model folder; those of the base language model are
            under `base_lm/`.
    """

    name: str = ""
    fingerprint: str = ""
    dtype: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_folders(cls, folder: Path, base_lm: Path | None, *, name: str = "", dtype: str = "") -> ModelIdentity:
        """The identity of a model folder with its base language model.

        Raises:
            ModelError: A file cannot be read.
        """
        parts = {"": _digests(folder)} | ({} if base_lm is None else {"base_lm/": _digests(base_lm)})
        files = {
            prefix + path: digest
            for prefix, digests in parts.items()
            for path, digest in digests.items()
            if path.endswith(".safetensors")
        }
        return cls(name=name, fingerprint=_combined(parts.values()), dtype=dtype, files=files)

    def with_loras(self, loras: dict[str, tuple[str, float]]) -> ModelIdentity:
        """The identity of these weights with LoRA added, each a SHA-256 and its part, by name."""
        parts = {f"{sha256} {scale:g}": "" for sha256, scale in sorted(loras.values())}  # names decide nothing
        files = {f"lora/{name}": sha256 for name, (sha256, _) in loras.items()}
        mark = _combined([{"": self.fingerprint}, parts])
        return replace(self, fingerprint=mark, files=self.files | files)

    @classmethod
    def from_dict(cls, data: Any) -> ModelIdentity:
        """The identity that `to_dict` wrote, an older one included, which had no files.

        Raises:
            ValueError: It is something else.
        """
        texts, files = ("name", "fingerprint", "dtype"), data.get("files", {}) if isinstance(data, dict) else None
        if not isinstance(files, dict) or not all(isinstance(part, str) for part in [*files, *files.values()]):
            raise ValueError("it must be an object of texts, and its files another one")
        if not all(isinstance(data.get(key, ""), str) for key in texts):
            raise ValueError("name, fingerprint and dtype must be texts")
        return cls(**{key: data.get(key, "") for key in texts}, files=dict(files))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


NO_IDENTITY = ModelIdentity()


def fingerprint(*folders: Path) -> str:
    """SHA-256 over all that decides what a model does: weights, settings and tokenizers, every byte of them.

    Which version of a library wrote the settings does not count, since a base language model may be converted anew on
    another machine.

    Args:
        *folders: The model folder, and that of its base language model.

    Raises:
        ModelError: A file cannot be read.
    """
    return _combined(map(_digests, folders))


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each deciding file of a folder, by its path in it."""
    digests = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in _DECIDING and p.name != CREDITS and not p.is_dir()):
        if path.name in _SETTINGS:
            with raised_as(ModelError), open_regular(path) as file:
                settings = parse_json(file.read(MAX_JSON_BYTES), str(path))
            found = hashlib.sha256(json.dumps(_lasting(settings), sort_keys=True).encode()).hexdigest()
        else:
            found = file_sha256(path)
        digests[path.relative_to(folder).as_posix()] = found
    return digests


def _combined(folders: Iterable[dict[str, str]]) -> str:
    """One SHA-256 over the digests of several folders."""
    digest = hashlib.sha256()
    for digests in folders:
        for path, found in digests.items():
            digest.update(f"{path}\0{found}\0".encode())
        digest.update(b"\0")
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; that of a weight file is computed once, see the module.

    Raises:
        ModelError: The file cannot be read.
    """
    with raised_as(ModelError), open_regular(path) as file:
        if path.suffix != ".safetensors":
            return hashlib.file_digest(file, "sha256").hexdigest()
        status = path.stat()
        key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        known = _remembered()
        if key not in known:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
            _remember(known)
        return known[key]


def _lasting(settings: Any) -> Any:
    """Settings without what says by whom and where they were written."""
    if isinstance(settings, dict):
        return {
            key: _lasting(value)
            for key, value in settings.items()
            if not (key.startswith("_") and key != "_class_name") and key not in _FLEETING
        }
    return settings


def _remembered() -> dict[str, str]:
    try:
        known = json.loads((cache_folder() / "sha256.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    good = isinstance(known, dict) and all(isinstance(value, str) and len(value) == 64 for value in known.values())
    return known if good else {}


def _remember(known: dict[str, str]) -> None:
    try:
        recent = dict(list(known.items())[-_MOST_REMEMBERED:])
        write_atomic(cache_folder() / "sha256.json", json.dumps(recent, indent=1), make_folder=True)
    except OSError as error:  # it is hashed again next time
        logger.debug("the digests of weights are not kept: %s", error)
