"""Instruments of the benchmark: clock, memory, memory bandwidth, and what a decoding step reads."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from seedstory.modeling import StoryModel

MB, GB = 1e6, 1e9


def clock(device: torch.device) -> float:
    """Seconds, after all work that was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, least and greatest of some measurements, and how many there are."""
    median, low, high = (round(pick(values), digits) for pick in (statistics.median, min, max))
    return {"median": median, "min": low, "max": high, "count": len(values)}


def machine(device: torch.device) -> dict[str, Any]:
    """Where and with what the figures were taken."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": _load(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _load() -> list[float] | None:
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None


@torch.inference_mode()
def bandwidth(device: torch.device, nbytes: int = 512 * 2**20, runs: int = 10) -> list[float]:
    """Memory bandwidth in GB/s, run by run: on a CPU summing a buffer that fits no cache, on a GPU copying one."""
    buffer = torch.ones(nbytes // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(buffer) if device.type == "cuda" else None
    figures = []
    for _ in range(runs + 1):
        start = clock(device)
        if target is None:
            buffer.sum()
        else:
            target.copy_(buffer)
        seconds = clock(device) - start
        figures.append(buffer.nbytes * (1 if target is None else 2) / seconds / GB)
    return figures[1:]  # the first run pays for the pages


class Memory:
    """Memory in use and its peak, in bytes: resident memory of the process, or what torch allocated on the GPU.

    Peaks of the process are known on Linux alone; elsewhere they are None.
    """

    _STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def settle(self) -> None:
        """Give freed memory back and begin a new peak."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self._CLEAR.exists():
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
            self._CLEAR.write_text("5")

    def used(self) -> int | None:
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else self._line("VmRSS")

    def peak(self) -> int | None:
        """Most memory used since `settle`."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else self._line("VmHWM")

    def _line(self, name: str) -> int | None:
        if not self._STATUS.exists():
            return None
        lines = dict(line.split(":", 1) for line in self._STATUS.read_text().splitlines() if ":" in line)
        return int(lines[name].split()[0]) * 1024


def weight_bytes(model: StoryModel) -> int:
    """Bytes of all weights."""
    return sum(weight.nbytes for weight in model.parameters())


def bytes_per_step(model: StoryModel) -> tuple[int, int]:
    """What one decoding step must read.

    Returns:
        Bytes of weights (all layers and the output matrix; of the input embedding one row is read), and bytes of keys
        and values for each token of the context.
    """
    config = model.llm.config
    embedding, head = model.llm.get_input_embeddings().weight, model.llm.get_output_embeddings().weight
    layers = sum(weight.nbytes for weight in model.llm.base_model.parameters()) - embedding.nbytes
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    held = 2 * config.num_hidden_layers * config.num_key_value_heads * width * head.element_size()
    return layers + head.nbytes, held
