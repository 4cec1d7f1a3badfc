"""Checkpoints that are whole or absent: written aside, checked by their sums, renamed when all is on disk.

    OUT/checkpoints/mllm/step-000500/
        state.json             step, counters and the configuration's fingerprint
        *.safetensors          tensors by group: weights, optimizer, average, random number generators
        manifest.json          size and sha256 of every other file, written last

A process killed at any moment, or a full disk, leaves the checkpoints before it as they were. What a stage exports is
put in place in the same way, and a lock on `OUT` keeps a second run of the stage out.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedstory.identity import file_sha256

_MANIFEST, _STATE = "manifest.json", "state.json"
_EVALUATED = "evaluated"


@dataclass
class Checkpoint:
    """All that a run needs to go on.

    Attributes:
        state: plain values; `state["step"]` counts finished steps.
        tensors: by group and name.
        folder: where it was read.
        evaluated: whether the evaluation that follows it was finished.
    """

    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]
    folder: Path | None = None
    evaluated: bool = False


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, with what to do."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: holds one sub-folder for each checkpoint.
        keep: so many last ones stay.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep

    def steps(self) -> list[int]:
        """Steps of the checkpoints that were finished, in order."""
        found = (path.parent.name.partition("step-")[2] for path in self.folder.glob(f"step-*/{_MANIFEST}"))
        return sorted(int(step) for step in found if step.isdigit())

    def path(self, step: int) -> Path:
        """Folder of the checkpoint after `step` steps."""
        return self.folder / f"step-{step:06d}"

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then remove the oldest ones, and any later ones: a future that was given up.

        Raises:
            CheckpointError: if it could not be written (a full disk); those before it stay.
        """
        final = self.path(checkpoint.state["step"])
        temporary = final.with_name(f".{final.name}.{os.getpid()}")
        try:
            temporary.mkdir(parents=True)
            (temporary / _STATE).write_text(json.dumps(checkpoint.state, indent=1), "utf-8")
            for group, tensors in checkpoint.tensors.items():
                save_file({name: t.contiguous() for name, t in tensors.items()}, temporary / f"{group}.safetensors")
            files = {path.name: _seal(path) for path in sorted(temporary.iterdir())}
            (temporary / _MANIFEST).write_text(json.dumps({"files": files}, indent=1), "utf-8")
            _seal(temporary / _MANIFEST)
            _sync_folder(temporary)
            if final.exists():
                final.rename(temporary.with_suffix(".old"))
            temporary.rename(final)
            _sync_folder(self.folder)
        except (OSError, SafetensorError) as error:
            kept = ", ".join(str(step) for step in self.steps()) or "none"
            raise CheckpointError(
                f"could not write the checkpoint {final}: {error}. Checkpoints kept: {kept}. "
                "Make room, then start the same command again: it goes on from the last one."
            ) from error
        finally:
            for rest in (temporary, temporary.with_suffix(".old")):
                shutil.rmtree(rest, ignore_errors=True)
        last = checkpoint.state["step"]
        earlier = [step for step in self.steps() if step <= last]
        for step in self.steps():
            if step > last or step not in earlier[-self.keep :]:
                shutil.rmtree(self.path(step), ignore_errors=True)
        return final

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The last checkpoint that is whole, and what was wrong with any after it."""
        faults: list[str] = []
        for step in reversed(self.steps()):
            try:
                return read_checkpoint(self.path(step)), faults
            except CheckpointError as error:
                faults.append(str(error))
        return None, faults

    def mark_evaluated(self, step: int) -> None:
        """Note that the evaluation after `step` steps is done, if there is a checkpoint of them."""
        if self.path(step).is_dir():
            (self.path(step) / _EVALUATED).touch()

    def clear(self) -> None:
        """Remove all checkpoints, for a run that begins anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Remove what a killed process left half-written."""
        for rest in self.folder.glob(".step-*"):
            shutil.rmtree(rest, ignore_errors=True)


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint and check every file against its manifest.

    Raises:
        CheckpointError: if it is not there, not whole, or not what was written.
    """
    folder = Path(folder)
    try:
        files = json.loads((folder / _MANIFEST).read_text("utf-8"))["files"]
        for name, sealed in files.items():
            if _digest(folder / name) != sealed:
                raise CheckpointError(f"{folder / name} is damaged: its checksum is not the manifest's")
        state = json.loads((folder / _STATE).read_text("utf-8"))
        tensors = {Path(name).stem: load_file(folder / name) for name in files if name.endswith(".safetensors")}
    except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is no whole checkpoint: {error}") from error
    return Checkpoint(state, tensors, folder, (folder / _EVALUATED).exists())


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Inside, this process holds a lock, which goes with it however it ends.

    Raises:
        ValueError: if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            _lock(file)
        except OSError as error:  # any other says that this file system has no locks
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise ValueError(
                    f"another run of this stage holds {path}: wait until it ends, or choose another `out`"
                ) from None
        yield


def _lock(file: IO[Any]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def replace_entries(source: Path, target: Path) -> None:
    """Move what is in `source`, a folder beside or in `target`, there: each entry whole, instead of the one before."""
    entries = sorted(source.iterdir())
    for path in source.rglob("*"):
        if path.is_file():
            _sync(path)
    before = source / ".before"
    before.mkdir()
    for entry in entries:
        place = target / entry.name
        if place.is_dir():
            place.rename(before / entry.name)
        entry.replace(place)
    _sync_folder(target)
    shutil.rmtree(source)


def digest_of(path: str | Path) -> str:
    """SHA-256 of a file, or of the settings and weights (JSON and safetensors) in a folder."""
    path = Path(path)
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for part in sorted(path.rglob("*")):
        if part.suffix in (".json", ".safetensors"):
            digest.update(f"{part.relative_to(path).as_posix()} {file_sha256(part)}\n".encode())
    return digest.hexdigest()


def _digest(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _seal(path: Path) -> dict[str, object]:
    """Bring a file to disk; its size and checksum."""
    _sync(path)
    return _digest(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
