"""Builds `decode.c` with the machine's own C compiler, once, into the user's cache folder."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from seedstory.io import cache_folder

SOURCE = Path(__file__).with_name("decode.c")
HEADER = SOURCE.with_name("products.h")
# No sum may be reordered; infinities and NaN keep their meaning, so damage stays visible.
FLAGS = "-O3 -std=gnu11 -fopenmp -fno-math-errno -fno-signed-zeros -fno-trapping-math -shared -fPIC".split()
MARCH = (
    "SEEDSTORY_MARCH"  # builds for another kind of CPU than this one, as `-march` names it: x86-64-v3 has AVX2 alone
)


class BuildError(Exception):
    """Why there is no native code on this machine."""


@cache
def library() -> ctypes.CDLL:
    """The compiled code, loaded.

    Raises:
        BuildError: If there is no C compiler, it fails, or the result cannot be loaded.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise BuildError("there is no C compiler (install gcc or clang)")
    try:
        version = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"the C compiler {compiler} does not run: {error}") from None
    made_for = [SOURCE.read_text("utf-8"), HEADER.read_text("utf-8"), *_flags(), version, platform.machine(), _cpu()]
    name = hashlib.sha256("\0".join(made_for).encode()).hexdigest()[:20]
    target = cache_folder() / "native" / f"decode-{name}.so"
    try:
        if not target.is_file():
            _compile(compiler.split(), target)
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise BuildError(f"the compiled code cannot be written or loaded: {error}") from None


def _compile(compiler: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        built = Path(folder) / target.name
        command = [*compiler, *_flags(), "-o", str(built), str(SOURCE), "-lm"]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            raise BuildError(f"{compiler[0]} took more than five minutes") from None
        if run.returncode:
            raise BuildError(f"{compiler[0]} failed: {(run.stderr.strip().splitlines() or ['no message'])[-1]}")
        os.replace(built, target)


def _flags() -> list[str]:
    return [f"-march={os.environ.get(MARCH) or 'native'}", *FLAGS]


def _cpu() -> str:
    """What `-march=native` depends on, so that a cache folder may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
