"""How much memory a computation takes beside its weights, found by running it on tensors without memory.

The networks stand on torch's `meta` device. Every tensor that an operation makes is counted while it is alive; the
peak is what a GPU's allocator would have handed out. Attention counts as the fused kernels compute it, which never hold
the matrix of scores. What kernels take inside (cuDNN's workspaces, packed inputs of CPU products) is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _PeakMeter(TorchDispatchMode):
    """Counts the bytes of tensors that are made under it and still alive; what was there before is free."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = self._bytes = 0
        self._storages: dict[int, weakref.ref[Any]] = {}
        self._known = {id(tensor.untyped_storage()): tensor.untyped_storage() for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known or key in self._storages:
            return

        def freed(_: object) -> None:
            del self._storages[key]
            self._bytes -= size

        self._storages[key] = weakref.ref(storage, freed)
        self._bytes += size
        self.peak = max(self.peak, self._bytes)


class _FusedAttention(TorchFunctionMode):
    """Attention makes its result and nothing else."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            names = ("query", "key", "value")
            query, _, value = (kwargs[name] if kwargs and name in kwargs else args[at] for at, name in enumerate(names))
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))


@torch.inference_mode(False)
@torch.no_grad()
def peak_bytes(run: Callable[[], Any], weights: Iterable[Tensor]) -> int:
    """The most bytes of tensors that are alive at once while a function runs on the meta device.

    Args:
        run: The computation; what it returns counts until its end.
        weights: What is there anyway.
    """
    with _PeakMeter(weights) as meter, _FusedAttention():
        result = run()
        del result
    return meter.peak
