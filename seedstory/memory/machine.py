"""How much memory this machine has: main memory with the limits of containers, and that of GPUs."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_NO_LIMIT = 2**60  # cgroup v1 says "no limit" by a huge number


def host_memory(root: Path = Path("/")) -> tuple[int, int]:
    """Bytes of main memory in all and free, also within the limits of a container (cgroup); zeros if unknown.

    Args:
        root: Where `proc` and `sys` are looked for.
    """
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0, 0
    free = total // 2  # macOS and others do not say
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        found = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}
        total, free = found["MemTotal"], found["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        pass
    for limit, used in _limits(root):
        total, free = min(total, limit), max(0, min(free, limit - used))
    return total, free


def gpu_memory(device: Any) -> tuple[int, int]:
    """Bytes of a GPU in all and free; what torch has put aside for later in this process counts as free."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return total, free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _limits(root: Path) -> list[tuple[int, int]]:
    """Limits that containers set on this process, each with the bytes that are used of it and cannot be reclaimed."""
    try:
        entries = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text("ascii").splitlines()]
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for _, controllers, path in (entry for entry in entries if len(entry) == 3):
        names = ("memory.max", "memory.current", "inactive_file")
        base = root / "sys/fs/cgroup"
        if controllers:
            if "memory" not in controllers.split(","):
                continue
            base = base / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if (limit := _limit(folder, *names)) is not None:
                found.append(limit)
            if folder == base:
                break
        else:  # inside a container its own group may be the root
            if (limit := _limit(base, *names)) is not None:
                found.append(limit)
    return found


def _limit(folder: Path, limit: str, used: str, reclaimable: str) -> tuple[int, int] | None:
    try:
        most, now = int((folder / limit).read_text("ascii")), int((folder / used).read_text("ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return None
    try:
        stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        now = max(0, now - int(stat[reclaimable]))
    except (OSError, ValueError, KeyError):
        pass
    return (most, now) if most < _NO_LIMIT else None


def release_free_memory() -> None:
    """Gives the process's free memory back to the system, where the C library can (glibc's `malloc_trim`).

    Passes of ever other sizes leave holes that glibc keeps for later ones; with the mini they had grown to 270 MiB in
    three minutes of eight stories at a time.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], Any] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library, or another system
        return None
