"""Checkpoints of PyTorch that others have released: opened without being read, checked by name, written as safetensors.

Pickles are opened with torch's `weights_only`, which runs no code of theirs, and mapped into memory: a tensor is read
from the disk when it is converted.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from seedstory.errors import ModelError
from seedstory.io import inside, open_regular, read_json, write_atomic
from seedstory.model_files import MAX_CONFIG_BYTES, is_finite

Shapes = dict[str, tuple[int, ...]]
SHARD_BYTES = 2 * 2**30
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_NAMED = 5  # names in an error


def open_checkpoint(file: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, mapped into memory; names as they were before wrappers added to them.

    Raises:
        ModelError: There is no such file, or it holds anything but tensors by name.
    """
    file = Path(file)
    open_regular(file).close()
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # damaged pickles raise whatever they happen to meet
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{file} cannot be read as a checkpoint ({reason}): copy or download it again") from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and tensor.is_floating_point()
        and tensor.layout == torch.strided
        for name, tensor in found.items()
    ):
        raise ModelError(f"{file} is not a checkpoint of weights by name")
    plain = {name.removeprefix("module.").replace(".base_layer.", "."): tensor for name, tensor in found.items()}
    if len(plain) < len(found):
        raise ModelError(f"{file} has weights twice, with and without what a wrapper adds to their names")
    return plain


def open_part(folder: str | Path, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of one part of a large model in several files, of which only those that hold some of it are opened.

    Args:
        folder: With an index of the files, as transformers writes it.
        prefix: With which the part's names begin; it is taken off.

    Raises:
        ModelError: There is no index, it is damaged, or nothing has the prefix; or as `open_checkpoint`.
    """
    folder = Path(folder)
    indices = [folder / name for name in _INDICES if (folder / name).is_file()]
    if not indices:
        raise ModelError(f"{folder} has no index of checkpoint files: it lacks {' and '.join(_INDICES)}")
    index = read_json(indices[0], limit=MAX_CONFIG_BYTES)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{indices[0]} is no index of checkpoint files: copy or download it again")
    files = sorted({file for name, file in names.items() if name.startswith(prefix)})
    if not files:
        raise ModelError(f"{indices[0]} names no weight that begins with {prefix}")
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        found = open_checkpoint(inside(folder, file, "name of a checkpoint file"))
        weights |= {name.removeprefix(prefix): found[name] for name in found if name.startswith(prefix)}
    return weights


def without_unused(weights: Mapping[str, torch.Tensor], patterns: Collection[str]) -> dict[str, torch.Tensor]:
    """The weights whose names match none of the patterns."""
    return {
        name: tensor for name, tensor in weights.items() if not any(re.fullmatch(pattern, name) for pattern in patterns)
    }


def check_released(wanted: Shapes, weights: Mapping[str, torch.Tensor], file: Path, what: str) -> None:
    """Holds the tensors of a file against those that it should have.

    Args:
        wanted: Shapes by released name.
        weights: What it has.
        file: For the error.
        what: What it should be.

    Raises:
        ModelError: Some are missing, not expected or of another shape.
    """
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    shared = sorted(name for name in wanted.keys() & stored.keys() if wanted[name] != stored[name])
    faults = (
        ("missing", sorted(wanted.keys() - stored.keys())),
        ("not expected", sorted(stored.keys() - wanted.keys())),
        ("misshapen", [f"{name} is {list(stored[name])} and not {list(wanted[name])}" for name in shared]),
    )
    report = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in faults if names)
    if report:
        raise ModelError(f"{file} is not {what}: of its weights are {report}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f", and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A place to write a folder in, which then gets its name: it is there whole or not at all.

    Raises:
        ModelError: The folder exists.
    """
    if folder.exists():
        raise ModelError(f"{folder} exists: choose a new folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


class SafetensorsWriter:
    """Writes tensors one after another into a folder, in files of bounded size and with an index if they are many.

    Args:
        folder: An existing one.
        stem: Name of the files, such as "model".
        source: The file that the tensors are of, for errors.
        dtype: Type to round them to; None leaves them.
        limit: Bytes of a file, unless a single tensor is larger.
    """

    def __init__(
        self, folder: Path, stem: str, source: Path, dtype: torch.dtype | None = None, limit: int = SHARD_BYTES
    ) -> None:
        self.folder, self.stem, self.source, self.dtype, self.limit = folder, stem, source, dtype, limit
        self._held: dict[str, torch.Tensor] = {}
        self._size = 0
        self._files: list[list[str]] = []
        self._total = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take a tensor.

        Raises:
            ModelError: It holds NaN or infinity, be it by rounding.
        """
        tensor = tensor.detach().to(self.dtype or tensor.dtype).contiguous()
        if not is_finite(tensor):
            raise ModelError(f"{self.source} is damaged: the weight {name} holds NaN or infinity as {tensor.dtype}")
        size = tensor.numel() * tensor.element_size()
        if self._held and self._size + size > self.limit:
            self._flush()
        self._held[name] = tensor
        self._size, self._total = self._size + size, self._total + size

    def _flush(self) -> None:
        try:
            save_file(self._held, self._part(len(self._files)), metadata={"format": "pt"})
        except SafetensorError as error:
            raise ModelError(f"{self.folder} cannot be written to ({error}): is the disk full?") from error
        self._files.append(list(self._held))
        self._held, self._size = {}, 0

    def _part(self, number: int) -> Path:
        return self.folder / f"{self.stem}.part-{number}"

    def close(self) -> int:
        """Give the files their names, and say how many bytes of weights they hold."""
        if self._held or not self._files:
            self._flush()
        names = [f"{self.stem}.safetensors"]
        if len(self._files) > 1:
            count = len(self._files)
            names = [f"{self.stem}-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
            weight_map = {tensor: name for name, held in zip(names, self._files, strict=True) for tensor in held}
            index = {"metadata": {"total_size": self._total}, "weight_map": weight_map}
            write_atomic(self.folder / f"{self.stem}.safetensors.index.json", json.dumps(index, indent=2) + "\n")
        for number, name in enumerate(names):
            self._part(number).rename(self.folder / name)
            (self.folder / name).chmod(0o644)
        return self._total
