"""Which type this machine multiplies fastest: bfloat16 on GPUs and on CPUs with AVX512-BF16 or AMX, else float32.

On a CPU without such units torch's bfloat16 products are 8 to 90 times slower than float32 ones. A list of CPUs would
age, so the machine is measured once: a product of the size of a small language model's and its gradient, in both types.
The verdict is kept in the user's cache folder by CPU, torch version and the limits that the environment sets on both.
`SEEDSTORY_PRECISION=bf16|fp32` overrides it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from seedstory.errors import RequestError
from seedstory.io import cache_folder, write_atomic

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "fp32"]

OVERRIDE = "SEEDSTORY_PRECISION"
_SHAPE = (256, 576, 1536)  # tokens, width and inner width of a product of SmolLM2-135M
_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def fast_precision(device: str | torch.device = "cpu") -> Precision:
    """The type in which products are fastest.

    Args:
        device: Where they run: "cpu", "cuda", "auto" (a GPU if there is one) or a torch device.

    Raises:
        RequestError: `SEEDSTORY_PRECISION` is neither "bf16" nor "fp32".
    """
    asked = os.environ.get(OVERRIDE, "")
    if asked == "bf16" or asked == "fp32":
        return "bf16" if asked == "bf16" else "fp32"
    if asked not in ("", "auto"):
        raise RequestError(f"{OVERRIDE} must be bf16, fp32 or auto, not {asked!r}")
    import torch

    kind = str(device).partition(":")[0]
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return _of_this_cpu()
    return "bf16" if kind != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def fast_dtype(device: str | torch.device = "cpu") -> torch.dtype:
    """`fast_precision` as a torch type."""
    import torch

    return torch.bfloat16 if fast_precision(device) == "bf16" else torch.float32


def cpu_name() -> str:
    """Model of this CPU and what torch may use of it, for figures and records: "AMD EPYC 9354 (AVX2)"."""
    import torch

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model} ({torch.backends.cpu.get_cpu_capability()})"


def seconds_of(dtype: torch.dtype) -> float:
    """Seconds of a product and of its gradient in one type on the CPU: the best of three."""
    import torch

    tokens, width, inner = _SHAPE
    rows = torch.ones(tokens, width, dtype=dtype, requires_grad=True)
    matrix = torch.ones(inner, width, dtype=dtype)
    best = float("inf")
    for attempt in range(4):  # the first one warms up
        start = time.perf_counter()
        torch.nn.functional.linear(rows, matrix).backward(torch.ones(tokens, inner, dtype=dtype))
        best = min(best, time.perf_counter() - start)
        if attempt and best > 0.2:
            break
    return best


@cache
def _of_this_cpu() -> Precision:
    import torch

    known = _cache_file()
    try:
        kept = json.loads(known.read_text("utf-8"))["precision"]
        if kept in ("bf16", "fp32"):
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass
    seconds = {"fp32": seconds_of(torch.float32), "bf16": seconds_of(torch.bfloat16)}
    found: Precision = "bf16" if seconds["bf16"] < seconds["fp32"] else "fp32"
    try:  # a cache that cannot be written is measured again next time
        write_atomic(
            known, json.dumps({"precision": found, "cpu": cpu_name(), "seconds": seconds}) + "\n", make_folder=True
        )
    except OSError:
        pass
    return found


def _cache_file() -> Path:
    import torch

    facts = [cpu_name(), torch.__version__, *(os.environ.get(name, "") for name in _LIMITS)]
    return cache_folder() / f"precision-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.json"
