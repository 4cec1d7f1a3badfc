"""A small disk for tests, which is filled or made read-only; where there is none, the test is skipped."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def disk(path: Path) -> Iterator[Path]:
    """A disk of two MiB of its own."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", str(path)]
    try:
        made = sys.platform == "linux" and subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("only root on Linux can mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Nothing can be written to a disk meanwhile; what is open there stays so."""
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path, left: int) -> Path:
    """Leaves so many bytes free on a disk; returns the file that takes the rest."""
    found = os.statvfs(path)
    filler = path / "filler"
    filler.write_bytes(bytes(found.f_bavail * found.f_frsize - left))
    return filler


def contents(path: Path) -> dict[str, bytes]:
    """All files under a folder."""
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
