"""Checks of a network's folder before anything is built or loaded from it.

A folder may come from anyone: its configuration may ask for a billion layers, its weights may be pickles, cut short,
of other shapes or NaN, and a file of it may be a pipe. So the files are looked at first, the network is laid out
without memory (on torch's `meta` device) and held against the headers of the safetensors files, and only then loaded.
"""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedstory.errors import ModelError
from seedstory.io import inside, open_regular, read_json

if TYPE_CHECKING:
    import torch

MAX_CONFIG_BYTES = 8 * 2**20
MAX_TOKENIZER_BYTES = 256 * 2**20
MAX_NUMBER = 2**53  # what every reader of JSON keeps exactly
_COUNTS = re.compile(r"^(?!max_window_layers$).*(depth|layers|blocks)")  # settings that say how often a part is built
_FLOATS = ("F64", "F32", "F16", "BF16")
_TENSOR_FILES = "*.safetensors"


def read_config(folder: str | Path, name: str = "config.json") -> dict[str, Any]:
    """The configuration of a network: one JSON object of plain values.

    Raises:
        ModelError: It is missing, no plain file, too large, too deep, holds numbers beyond any network, or asks for
            quantized weights.
    """
    path = Path(folder) / name
    if not path.exists():
        raise ModelError(f"{folder} holds no network: it has no {name}; copy or download it again")
    config = read_json(path, limit=MAX_CONFIG_BYTES)
    if not isinstance(config, dict):
        raise ModelError(f"{path} must be a JSON object of settings, not {type(config).__name__}")
    for key, value in _leaves(config):
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= MAX_NUMBER):
            raise ModelError(f"{path}: {key} is {value!r:.40}, more than any network has")
    if config.get("quantization_config") is not None:
        raise ModelError(f"{path} asks for quantized weights (quantization_config): give a model with plain weights")
    return config


def check_files(folder: str | Path) -> None:
    """Looks at the files of a folder that a library will read: plain ones of bounded size only.

    Raises:
        ModelError: The folder is missing, or one of its files is a pipe, a device, or too large to be what it says.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder}: copy or download the model again")
    for path in sorted(folder.iterdir()):
        if path.is_dir() or path.name.startswith("."):
            continue
        limit = None if path.suffix in (".safetensors", ".gguf", ".bin") else MAX_TOKENIZER_BYTES
        open_regular(path, limit=limit).close()


def stored_shapes(folder: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a folder's safetensors files, from their headers alone.

    Raises:
        ModelError: There are none (pickles are never read), one is damaged, or holds numbers other than floats.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in tensor_files(Path(folder)):
        open_regular(path).close()
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    tensor = file.get_slice(name)
                    counts = tensor.get_dtype() == "I64" and not tensor.get_shape()  # such as batch norm's steps
                    if tensor.get_dtype() not in _FLOATS and not counts:
                        raise ModelError(f"{path} is damaged: {name} holds {tensor.get_dtype()}, not floats")
                    shapes[name] = tuple(tensor.get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} cannot be read as safetensors ({error}): copy or download it again") from None
    return shapes


def check_counts(config: Mapping[str, Any], tensors: int, where: str | Path) -> None:
    """Refuses settings that would build more layers than there are tensors.

    Raises:
        ModelError: There is such a setting.
    """
    for key, value in _leaves(config):
        if _COUNTS.search(key) and isinstance(value, int) and value > max(tensors, 1):
            raise ModelError(f"{where} does not fit its weights: {key} is {value:,}, but there are {tensors} tensors")


def check_network(kind: Any, folder: str | Path) -> None:
    """Checks that a folder holds a network of a class of diffusers: its settings, and the shapes of all its weights.

    Args:
        kind: The class, a `ModelMixin` with `from_config`.
        folder: What `save_pretrained` wrote.

    Raises:
        ModelError: It does not.
    """
    import torch

    folder = Path(folder)
    check_files(folder)
    config = read_config(folder)
    shapes = stored_shapes(folder)
    check_counts(config, len(shapes), folder / "config.json")
    _check_types(kind.__init__, config, folder / "config.json")

    def build() -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in kind.from_config(config).state_dict().items()}

    wanted = described(build, folder / "config.json", kind.__name__)
    check_shapes(wanted, {_today(name): shape for name, shape in shapes.items()}, folder)


class CheckedLoading:
    """Mixin before diffusers' `ModelMixin`: `from_pretrained` looks at the folder first, and at the weights after."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Any:
        """Load what `save_pretrained` wrote.

        Raises:
            ModelError: The folder is missing or damaged, its weights do not fit its configuration, or are NaN.
        """
        check_network(cls, folder)
        network = typing.cast(Any, super()).from_pretrained(folder, **({"use_safetensors": True} | options))
        check_finite(network.state_dict(), folder)
        return network


def described(build: Callable[[], Any], where: str | Path, what: str) -> Any:
    """What `build` returns; whatever a library raises over settings that describe no network becomes one line.

    Raises:
        ModelError: It raised anything.
    """
    try:
        return build()
    except Exception as error:  # noqa: BLE001 - libraries raise all kinds for settings that fit nothing
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{where} does not describe a {what}: {reason}") from error


def check_shapes(wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]], where: Any) -> None:
    """Holds the tensors of a network against those that are stored.

    Raises:
        ModelError: Some are missing, unknown or of another shape.
    """
    faults = {
        "missing": sorted(wanted.keys() - stored.keys()),
        "unknown": sorted(stored.keys() - wanted.keys()),
        "of another shape": sorted(name for name in wanted.keys() & stored.keys() if wanted[name] != stored[name]),
    }
    report = "; ".join(
        f"{len(names)} weights are {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in faults.items()
        if names
    )
    if report:
        raise ModelError(f"the weights in {where} do not fit its configuration: {report}")


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor is free of NaN and infinity; fast, since a sum shows it unless it overflows."""
    import torch

    if not tensor.is_floating_point():
        return not tensor.is_complex()
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def check_finite(weights: Mapping[str, torch.Tensor], where: str | Path) -> None:
    """Refuses weights that are NaN or infinite, which would make every page of a story so.

    Raises:
        ModelError: There are such weights.
    """
    for name, weight in weights.items():
        if not is_finite(weight):
            raise ModelError(f"{where} is damaged: the weight {name} holds NaN or infinity; copy or download it again")


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those that its index names, or all.

    Raises:
        ModelError: There are none (pickles are never read), or the index is damaged.
    """
    indexed = sorted(folder.glob(f"{_TENSOR_FILES}.index.json"))
    if indexed:
        index = read_json(indexed[0], limit=MAX_CONFIG_BYTES)
        names = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise ModelError(f"{indexed[0]} is no index of safetensors files: copy or download it again")
        return [inside(folder, name, "name of a weight file") for name in sorted(set(names.values()))]
    files = sorted(folder.glob(_TENSOR_FILES))
    if not files:
        pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.ckpt"))
        hint = "; its pickles are never loaded: convert them to safetensors" if pickles else ": copy or download it"
        raise ModelError(f"{folder} holds no safetensors file{hint}")
    return files


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of a configuration, with the key that it, or the list it is in, stands under."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _leaves(item, str(inner))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value


def _check_types(function: Callable[..., Any], config: Mapping[str, Any], where: Path) -> None:
    """Compares settings with the annotations of the constructor that will get them, as far as these are plain."""
    function = inspect.unwrap(function)
    hints = typing.get_type_hints(function)
    for key, value in config.items():
        if key in hints and not _fits(value, hints[key]):
            wanted = str(getattr(hints[key], "__name__", hints[key])).replace("typing.", "")
            raise ModelError(f"{where}: {key} must be of type {wanted}, not {value!r:.60}")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        items = inner[:1] * len(value) if inner[1:] in ((), (...,)) else inner  # diffusers writes tuple[int] for many
        return not inner or (len(value) == len(items) and all(map(_fits, value, items)))
    if origin is list:
        return isinstance(value, list | tuple) and all(_fits(item, one) for item in value for one in inner)
    return True


def _today(name: str) -> str:
    """The name that diffusers gives today to the weight of an attention block of old."""
    for old, new in ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")):
        name = name.replace(old, new)
    return name
