"""Muon for matrices and convolutions, AdamW for all else, behind one optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from seedstory.precision import fast_dtype
from training.config import RunConfig


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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, self.state[parameter], group)

    def _muon_step(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 0.05)
        direction = orthogonalize(parameter.grad.lerp(momentum, 0.95).flatten(1))
        scale = max(1.0, direction.shape[0] / direction.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction.view_as(parameter), alpha=-group["lr"] * scale)

    def _adam_step(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        if "step" not in state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] = int(state["step"]) + 1  # a checkpoint gives it back as a tensor
        mean = state["mean"].lerp_(parameter.grad, 0.1)
        square = state["square"].lerp_(parameter.grad.square(), 0.01)
        corrected = (square / (1 - 0.99 ** state["step"])).sqrt_().add_(1e-8)
        parameter.addcdiv_(mean / (1 - 0.9 ** state["step"]), corrected, value=-group["lr"])


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
    """Return the nearest semi-orthogonal matrix to [M, N], roughly, by quintic Newton-Schulz iteration.

    In the type that the machine multiplies fastest: the iteration bears the rounding of bfloat16, and on a CPU that is
    slow at it, it would take nearly all of a step.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(fast_dtype(matrix.device))
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


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
        for name, weight in self.weights.items():
            self.average[name].lerp_(weight.float(), 1 - decay)

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
