"""The ways to hold a model in memory, the most exact and fastest first."""

from __future__ import annotations

from dataclasses import dataclass

from seedstory.errors import RequestError

PLACEMENTS = {
    "resident": "everything stays on the device",
    "offload": "all networks lie in host memory, and each is on the GPU while it works",
    "phases": "one network at a time is in memory: it is read from disk when its phase begins",
}


@dataclass(frozen=True)
class MemoryMode:
    """One way to hold a model.

    Attributes:
        name: By which users ask for it.
        placement: One of `PLACEMENTS`. With "offload" and "phases" a story is written before its first page is drawn.
        quantization: How the language model's matrices are stored, see `seedstory.modeling.quantization`.
        half: Whether the image networks have the type of the language model, too; they are float32 otherwise.
    """

    name: str
    placement: str = "resident"
    quantization: str = ""
    half: bool = False

    @property
    def one_at_a_time(self) -> bool:
        """Whether only one network is on the device at a time."""
        return self.placement != "resident"


_CPU = (
    MemoryMode("resident"),
    MemoryMode("phases", "phases"),
    MemoryMode("int8", quantization="int8"),
    MemoryMode("int8-phases", "phases", "int8"),
    MemoryMode("int4", quantization="int4"),
    MemoryMode("int4-phases", "phases", "int4"),
)
_GPU = (
    MemoryMode("resident"),
    MemoryMode("half", half=True),
    MemoryMode("offload", "offload", half=True),
    MemoryMode("phases", "phases", half=True),
    MemoryMode("int8", quantization="int8", half=True),
    MemoryMode("int8-offload", "offload", "int8", half=True),
    MemoryMode("int8-phases", "phases", "int8", half=True),
    MemoryMode("int4", quantization="int4", half=True),
    MemoryMode("int4-offload", "offload", "int4", half=True),
    MemoryMode("int4-phases", "phases", "int4", half=True),
)
MEMORY_MODES = ("auto", *dict.fromkeys(mode.name for mode in (*_GPU, *_CPU)))


def check_memory(name: str) -> None:
    """Refuses what is no memory mode anywhere; "" stands for none.

    Raises:
        RequestError: It is none.
    """
    if name and name not in MEMORY_MODES:
        raise RequestError(f"there is no memory mode {name!r:.40}: choose one of {', '.join(MEMORY_MODES)}")


def memory_modes(device_type: str) -> tuple[MemoryMode, ...]:
    """The modes that there are on a kind of device, the best first."""
    return _CPU if device_type == "cpu" else _GPU


def find_mode(name: str, device_type: str) -> MemoryMode:
    """The mode of a name.

    Raises:
        RequestError: There is none, or not on this kind of device.
    """
    found = {mode.name: mode for mode in memory_modes(device_type)}
    if name not in found:
        raise RequestError(f"there is no memory mode {name!r:.40} on {device_type}: choose auto, {', '.join(found)}")
    return found[name]
