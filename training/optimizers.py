"""Muon for matrices and convolutions, AdamW for all else, behind one optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seedstory.precision import fast_dtype
from training.config import RunConfig

_MOMENTS = ("mean", "square")
# Numbers in a stack of matrices: larger ones keep a GPU busy one by one, and on a CPU they leave its caches.
_MOST_STACKED = {"cuda": 2**22, "cpu": 2**15}


class MuonAdamW(torch.optim.Optimizer):
    """Momentum orthogonalized by Newton-Schulz for weights of two or more axes, AdamW for the rest.

    Muon: Jordan et al. 2024 (kellerjordan.github.io/posts/muon). `torch.optim.Muon` takes matrices only;
    here a convolution [O, I, k, k] is orthogonalized as the matrix [O, I*k*k].

    Args:
        named_parameters: name and tensor; tensors that need no gradient are left out.
        muon_lr: step of the orthogonalized part, relative to the weight's RMS scale.
        adam_lr: step of the AdamW part (biases, norms, embeddings, and names in `adam_names`).
        weight_decay: decoupled, for the Muon part only.
        adam_names: substrings of parameter names that AdamW trains although they are matrices.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        muon_lr: float = 1e-2,
        adam_lr: float = 1e-3,
        weight_decay: float = 1e-3,
        adam_names: tuple[str, ...] = (),
    ) -> None:
        muon: list[Tensor] = []
        adam: list[Tensor] = []
        for name, parameter in named_parameters:
            if parameter.requires_grad:
                by_adam = parameter.ndim < 2 or parameter.shape[0] == 1 or any(part in name for part in adam_names)
                (adam if by_adam else muon).append(parameter)
        groups = [
            {"params": muon, "kind": "muon", "lr": muon_lr, "weight_decay": weight_decay},
            {"params": adam, "kind": "adam", "lr": adam_lr, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # closures are not supported
        assert closure is None, "closures are not supported"
        for group in self.param_groups:
            update = self._muon_step if group["kind"] == "muon" else self._adam_step
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                update(weights, group)

    def _states(self, weights: list[Tensor], name: str) -> list[Tensor]:
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]

    def _muon_step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        grads, momenta = [_grad(weight) for weight in weights], self._states(weights, "momentum")
        torch._foreach_lerp_(momenta, grads, 0.05)
        directions = [lerped.flatten(1) for lerped in torch._foreach_lerp(grads, momenta, 0.95)]
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        most = _MOST_STACKED.get(weights[0].device.type, 2**15)
        for rows in _stacks([direction.shape for direction in directions], most):
            stacked = orthogonalize(torch.stack([directions[row] for row in rows]))
            scale = max(1.0, stacked.shape[1] / stacked.shape[2]) ** 0.5
            some = [weights[row] for row in rows]
            changes = [change.view_as(weight) for change, weight in zip(stacked, some, strict=True)]
            torch._foreach_add_(some, changes, alpha=-group["lr"] * scale)

    def _adam_step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        by_step: dict[int, list[Tensor]] = {}
        for weight in weights:
            state = self.state[weight]
            state["step"] = int(state.get("step", 0)) + 1  # a checkpoint gives it back as a tensor
            by_step.setdefault(state["step"], []).append(weight)
        for step, some in by_step.items():
            grads, means, squares = [_grad(weight) for weight in some], *map(partial(self._states, some), _MOMENTS)
            torch._foreach_lerp_(means, grads, 0.1)
            torch._foreach_lerp_(squares, torch._foreach_mul(grads, grads), 0.01)
            corrected = torch._foreach_div(squares, 1 - 0.99**step)
            torch._foreach_sqrt_(corrected)
            torch._foreach_add_(corrected, 1e-8)
            torch._foreach_addcdiv_(some, torch._foreach_div(means, 1 - 0.9**step), corrected, value=-group["lr"])


def _grad(weight: Tensor) -> Tensor:
    assert weight.grad is not None, "only weights with a gradient are changed"
    return weight.grad


def _cut(rows: list[int], most: int) -> list[list[int]]:
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def _stacks(shapes: Sequence[tuple[int, ...]], most: int) -> list[list[int]]:
    """Numbers of matrices of one shape that are orthogonalized together: a GPU is given one product for all of them."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, shape in enumerate(shapes):
        by_shape.setdefault(tuple(shape), []).append(row)
    return [rows for shape, alike in by_shape.items() for rows in _cut(alike, max(1, most // math.prod(shape)))]


def build_optimizer(
    named_parameters: Iterable[tuple[str, Tensor]], config: RunConfig, adam_names: tuple[str, ...] = ()
) -> torch.optim.Optimizer:
    """The configured optimizer; each group remembers its learning rate as `initial_lr`."""
    named = list(named_parameters)
    if config.optimizer == "muon":
        optimizer: torch.optim.Optimizer = MuonAdamW(
            named, config.muon_lr, config.adam_lr, config.weight_decay, adam_names
        )
    else:
        decayed = [weight for _, weight in named if weight.ndim > 1]
        plain = [weight for _, weight in named if weight.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], config.adam_lr, (0.9, 0.99))
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def learning_rate(progress: float, warmup: float = 0.02, minimum: float = 0.02) -> float:
    """Factor of all learning rates at `progress` in [0, 1]: linear warm-up, then cosine down to `minimum`."""
    factor = minimum + (1 - minimum) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return factor * min(1.0, (progress + 1e-3) / warmup)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return the nearest semi-orthogonal matrix to each of [..., M, N], roughly, by quintic Newton-Schulz iteration.

    In the type that the machine multiplies fastest: the iteration bears the rounding of bfloat16, and on a CPU that is
    slow at it, it would take nearly all of a step.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if tall else matrix).to(fast_dtype(matrix.device))
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class AveragedWeights:
    """Exponential moving average of trained weights, in float32.

    Args:
        weights: by name; changed in place by training and by `swap`.
        decay: share of the average that stays at each update.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float = 0.998) -> None:
        self.weights, self.decay = weights, decay
        self.average = {name: weight.detach().float().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Blend in the current weights; the first steps are averaged over a shorter span."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [weight.detach().float() for weight in self.weights.values()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the weights are the averaged ones."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.weights.items():
            current = weight.detach().float().clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(current)
