"""Which way to hold a model fits this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedstory.errors import ModelError, RequestError
from seedstory.memory.machine import gpu_memory, host_memory
from seedstory.memory.modes import MemoryMode, find_mode, memory_modes

if TYPE_CHECKING:
    import torch

    from seedstory.memory.estimate import MemoryNeeds, ModelMemory

GB = 1e9


@dataclass(frozen=True)
class MemoryPlan:
    """How a model is held, and what that takes.

    Attributes:
        mode: Weights and places.
        tiled: Whether images are decoded in tiles.
        needs: The peaks.
    """

    mode: MemoryMode
    tiled: bool
    needs: MemoryNeeds

    def __str__(self) -> str:
        where = f"{self.needs.gpu / GB:.1f} GB on the GPU and " if self.needs.gpu else ""
        tiles = ", images decoded in tiles" if self.tiled else ""
        return f"{self.mode.name}{tiles}, about {where}{self.needs.host / GB:.1f} GB of main memory"

    def fits(self, gpu: int, host: int) -> bool:
        """Whether that is there; what is not known (0) is taken to suffice."""
        return self.needs.gpu <= gpu and (not host or self.needs.host <= host)


def memory_plans(
    memory: ModelMemory, device_type: str, dtype: torch.dtype | None = None, image_dtype: torch.dtype | None = None
) -> Iterator[MemoryPlan]:
    """All plans for a kind of device, the best first; each is made when it is asked for.

    Args:
        memory: Of the model.
        device_type: "cpu" or "cuda".
        dtype: As `ModelMemory.needs` takes it.
        image_dtype: As `dtype`.
    """
    for mode in memory_modes(device_type):
        whole = memory.needs(mode, device_type, dtype=dtype, image_dtype=image_dtype)
        yield MemoryPlan(mode, False, whole)
        tiled = memory.needs(mode, device_type, tiled=True, dtype=dtype, image_dtype=image_dtype)
        if max(tiled.gpu, tiled.host) < max(whole.gpu, whole.host):
            yield MemoryPlan(mode, True, tiled)


def asked_plan(
    folder: Path,
    memory: str,
    device: torch.device,
    quantization: str | None = None,
    *,
    dtype: torch.dtype | None = None,
    image_dtype: torch.dtype | None = None,
) -> MemoryPlan:
    """The plan of a name, or with "auto" the best one that fits this machine.

    Args:
        folder: A checked model folder.
        memory: "auto" or the name of a mode.
        device: Where the model works.
        quantization: Only modes with this one, as a story that is resumed needs it; None for any.
        dtype: As `ModelMemory.needs` takes it.
        image_dtype: As `dtype`.

    Raises:
        RequestError: There is no such mode here, or it has another quantization.
        ModelError: With "auto", none fits; or the folder is damaged.
    """
    from seedstory.memory.estimate import ModelMemory

    sizes = ModelMemory.of_folder(folder)
    if memory != "auto":
        mode = find_mode(memory, device.type)
        if quantization not in (None, mode.quantization):
            raise RequestError(f"memory {memory!r} does not go with {quantization or 'weights that are not quantized'}")
        return MemoryPlan(mode, False, sizes.needs(mode, device.type, dtype=dtype, image_dtype=image_dtype))
    gpu, host = free_memory(device)
    smallest = None
    for plan in memory_plans(sizes, device.type, dtype, image_dtype):
        if quantization is not None and plan.mode.quantization != quantization:
            continue
        if plan.fits(gpu, host):
            return plan
        if smallest is None or plan.needs.networks < smallest.needs.networks:
            smallest = plan
    assert smallest is not None, "every kind of device has modes of each quantization"
    raise ModelError(_refusal(folder, smallest, gpu, host))


def free_memory(device: torch.device) -> tuple[int, int]:
    """Bytes that are free on the device (0 for a CPU) and in main memory (0 if unknown)."""
    gpu = 0 if device.type == "cpu" else gpu_memory(device)[1]
    return gpu, host_memory()[1]


def _refusal(folder: Path, plan: MemoryPlan, gpu: int, host: int) -> str:
    needs = plan.needs
    wanted = f"{needs.host / GB:.1f} GB of main memory, and {host / GB:.1f} GB are free"
    if needs.gpu > gpu:
        wanted = f"{needs.gpu / GB:.1f} GB on the GPU, and {gpu / GB:.1f} GB are free there"
    return (
        f"{folder.name} does not fit this machine: even {plan.mode.name} takes about {wanted}; "
        "end other programs, take a smaller model, or a larger machine"
    )
