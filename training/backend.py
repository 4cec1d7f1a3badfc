"""Where a stage runs: one process or many, plain or with DeepSpeed ZeRO, behind one set of verbs.

Trained weights are float32 masters on every back end and products run in bf16 under
autocast where the machine is fast at that (`precision`), so a checkpoint of one
back end goes on in any other, with any number of processes: weights and moments are stored whole, by name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.config import RunConfig
from training.optimizers import build_optimizer
from training.zero import deepspeed_plugin, group_of_one

_OPTIMIZER = "optimizer"
_WEIGHTS = "weights"
# The other processes wait while the first one computes features or evaluates, which may take hours.
_PATIENCE = timedelta(hours=6)


class Backend:
    """One process of a run.

    Args:
        config: the run's configuration.
    """

    def __init__(self, config: RunConfig) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs  # loads slowly
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process may have left its own
        self.config = config
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: cuda, but torch sees no GPU here; device: auto takes the CPU then")
        on_cpu = config.device == "cpu" or not torch.cuda.is_available()
        if config.zero_stage and on_cpu and torch.cuda.is_available():
            raise ValueError("DeepSpeed takes the GPU it sees: hide it with CUDA_VISIBLE_DEVICES= to train on CPUs")
        self.plugin = deepspeed_plugin(config) if config.zero_stage else None
        self.environment = group_of_one() if config.zero_stage else {}
        os.environ.update(self.environment)
        os.environ["ACCELERATE_USE_DEEPSPEED"] = str(bool(config.zero_stage)).lower()
        handlers = [
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(**{"backend": "gloo"} if config.zero_stage and on_cpu else {}, timeout=_PATIENCE),
        ]
        self.accelerator = Accelerator(
            cpu=on_cpu and not config.zero_stage,  # with `cpu` accelerate would leave DeepSpeed out
            deepspeed_plugin=self.plugin,
            mixed_precision="no",  # `autocast` is ours, whatever a launcher's environment says
            kwargs_handlers=handlers,
        )
        if config.zero_stage:
            from transformers.integrations.deepspeed import unset_hf_deepspeed_config

            unset_hf_deepspeed_config()  # a stage is built whole in each process's main memory, and cut by `prepare`
        self.device = self.accelerator.device
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        if config.batch_size % self.processes:
            raise ValueError(f"batch_size {config.batch_size} does not divide among {self.processes} processes")
        share = config.batch_size // self.processes
        if config.micro_batch_size and share % config.micro_batch_size:
            raise ValueError(f"micro_batch_size {config.micro_batch_size} does not divide a process's share of {share}")
        self.accumulation = share // (config.micro_batch_size or share)
        torch.manual_seed(config.seed)
        self.stage: nn.Module | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, samples and checkpoints."""
        return self.rank == 0

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Inside, the first process goes ahead and the others follow, for what need be computed only once.

        Raises:
            RuntimeError: The first process failed, so that the others need not follow.
        """
        if not self.is_main:
            self._share(None)
        fault: Exception | None = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must not wait for this process
            fault = error
        if self.is_main:
            self._share(fault)
        if fault:
            raise fault

    def autocast(self) -> torch.autocast:
        """Mixed precision as configured."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def prepare(self, stage: nn.Module, adam_names: tuple[str, ...] = ()) -> None:
        """Put a stage on the device and make its optimizer; `trained` names what learns from here on."""
        if self.config.zero_stage:
            in_memory_format(stage, torch.contiguous_format)  # DeepSpeed sends weights as plain bytes
        self.stage = stage.to(self.device)
        self.trained = {name: weight for name, weight in stage.named_parameters() if weight.requires_grad}
        if not self.trained:
            raise ValueError("nothing to train: no weight of the stage requires a gradient")
        self.optimizer = build_optimizer(self.trained.items(), self.config, adam_names)
        self.zero = self.config.zero_stage > 0
        if self.zero:
            micro = self.config.batch_size // (self.processes * self.accumulation)
            assert self.plugin is not None
            self.plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = micro
            self.plugin.deepspeed_config["gradient_accumulation_steps"] = self.accumulation
            self.wrapped, self.optimizer = self.accelerator.prepare(stage, self.optimizer)
            self._begin_moments()
        else:
            self.wrapped = self.accelerator.prepare(stage) if self.processes > 1 else stage

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of a micro-batch's part of the step's loss, summed over micro-batches and processes.

        A loss that is not finite makes every gradient NaN, which `step` notices on every process alike.
        """
        # Both DDP and DeepSpeed average over processes, and DeepSpeed over micro-batches too.
        loss = loss * self.processes * ((loss - loss).detach() + 1)
        if self.zero:
            self.wrapped.set_gradient_accumulation_boundary(last)
            self.wrapped.backward(loss * self.accumulation)
            return
        with self._kept_here(last):
            loss.backward()

    def forward(self, batch: dict[str, Any], progress: float, last: bool) -> dict[str, Tensor]:
        """The stage's sums of losses for one micro-batch."""
        with self._kept_here(last), self.autocast():
            return self.wrapped(batch, progress)

    def _kept_here(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Inside, gradients of plain processes are not exchanged, but after a step's last micro-batch."""
        between = isinstance(self.wrapped, DistributedDataParallel) and not last
        return self.wrapped.no_sync() if between else contextlib.nullcontext()

    def step(self, factor: float, figures: Tensor) -> tuple[float | None, list[float]]:
        """Take an optimizer step with learning rates times `factor`.

        To AdamW a weight that the step's loss does not depend on has a gradient of zero, as ZeRO's flat partitions
        know no other. Muon leaves it alone: any rest of momentum, made orthogonal, would be a whole step.

        Args:
            factor: of the learning rates.
            figures: what this process found of the step [N], to come to the CPU in the same transfer as the norm.

        Returns:
            The gradient's norm before it was clipped (None if it was not finite and nothing was changed), and the
            figures summed over all processes.
        """
        figures = self._summed(figures.double())
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        if self.zero:
            self.wrapped.step()
            if self.config.zero_stage == 3:
                # DeepSpeed 0.19 keeps the gradient of a step for weights that have none in the next.
                self.wrapped.optimizer.grad_partitions_flat_buffer.zero_()
            overflow = self.wrapped.optimizer.overflow
            return None if overflow else float(self.wrapped.get_global_grad_norm() or 0.0), figures.tolist()
        weights = list(self.trained.values())
        largest = self.config.max_grad_norm or float("inf")
        measured = nn.utils.clip_grad_norm_(weights, largest, error_if_nonfinite=False)
        norm, *totals = torch.cat([measured.detach().double().reshape(1), figures]).tolist()
        finite = np.isfinite(norm)
        if finite:
            if self.config.optimizer == "adamw":
                for weight in weights:
                    weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm if finite else None, totals

    def total(self, values: list[float]) -> list[float]:
        """Each value summed over all processes."""
        if self.processes == 1:
            return values
        return self._summed(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def _summed(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values) if self.processes > 1 else values

    def gathered(self, value: Any) -> list[Any]:
        """What each process has for `value`, by rank; all of them have to ask."""
        values = [value]
        if self.processes > 1:
            values = [None] * self.processes
            torch.distributed.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Inside, where processes do not talk, the fault of one is a fault of all, so that nobody waits for it.

        Raises:
            ValueError: Another process met with a ValueError or an OSError, which a user can put right.
            RuntimeError: Another process met with anything else.
        """
        fault: Exception | None = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must not wait for this process
            fault = error
        self._share(fault)

    def _share(self, fault: Exception | None) -> None:
        """Tells the other processes of a fault, and raises it, or the first one of theirs."""
        kind = ValueError if isinstance(fault, ValueError | OSError) else RuntimeError
        text = str(fault) if kind is ValueError else f"{type(fault).__name__}: {fault}"
        generated = [one for one in self.gathered(fault and (kind is ValueError, text)) if one is not None]
        if fault:
            raise fault
        if generated:
            mendable, text = generated[0]
            raise ValueError(text) if mendable else RuntimeError(f"another process failed with {text}")

    def pinned(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch in memory from which a GPU can copy while it computes."""
        if self.device.type != "cuda":
            return batch
        with torch.cuda.device(self.device):
            return {name: _for_tensors(Tensor.pin_memory, value) for name, value in batch.items()}

    def on_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch where the stage is."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, non_blocking=True)

        return {name: _for_tensors(move, value) for name, value in batch.items()}

    @contextlib.contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Inside, every process sees whole weights, also under ZeRO-3."""
        if self.config.zero_stage < 3:
            yield
            return
        from deepspeed.runtime.zero import GatheredParameters

        assert self.stage is not None
        with GatheredParameters(list(self.stage.parameters()), modifier_rank=None):
            yield

    # ------------------------------------------------------------------------------------------------------ checkpoints

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Weights, moments and counters by name, and this process's random number generators."""
        moments = {f"{name}/{key}": value for name, key, value in self._moments()}
        return {
            _WEIGHTS: {name: self._weight(weight).detach().cpu() for name, weight in self.trained.items()},
            _OPTIMIZER: {name: torch.as_tensor(value).detach().cpu().clone() for name, value in moments.items()},
            **self._all_random_states(),
        }

    def load_tensors(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Go on from what `tensors` returned, on this back end or another.

        Raises:
            ValueError: if the weights or moments are not this stage's.
        """
        weights, moments = tensors[_WEIGHTS], tensors[_OPTIMIZER]
        shapes = {name: tuple(self._weight(weight).shape) for name, weight in self.trained.items()}
        wrong = sorted(
            name
            for name in shapes.keys() | weights.keys()
            if name not in shapes or name not in weights or tuple(weights[name].shape) != shapes[name]
        )
        if wrong:
            raise ValueError(f"the checkpoint is of another model: {len(wrong)} weights differ, {wrong[0]} is one")
        for name, weight in self.trained.items():
            self._set_weight(weight, weights[name].to(self.device))
        self._set_moments(moments)
        own = tensors.get(f"random-{self.rank}")
        if own:
            _set_random_state(own)

    def _weight(self, weight: Tensor) -> Tensor:
        if not self.zero:
            return weight
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(weight)

    def _set_weight(self, weight: Tensor, value: Tensor) -> None:
        with self.whole_weights_of(weight), torch.no_grad():
            weight.copy_(value)
        if self.zero:
            from deepspeed.utils import safe_set_full_fp32_param

            safe_set_full_fp32_param(weight, value)

    def whole_weights_of(self, weight: Tensor) -> contextlib.AbstractContextManager[None]:
        """Inside, this weight is whole and may be changed."""
        if self.config.zero_stage < 3:
            return contextlib.nullcontext()
        from deepspeed.runtime.zero import GatheredParameters

        return GatheredParameters([weight], modifier_rank=0)

    def _begin_moments(self) -> None:
        """Moments of zero from the start, so that a checkpoint can be loaded before the first step.

        DeepSpeed 0.19 also links a weight to its moments after the first group's first step only.
        """
        sharded = self.wrapped.optimizer
        stage3 = self.config.zero_stage == 3
        flat = sharded.fp32_partitioned_groups_flat if stage3 else sharded.single_partition_of_fp32_groups
        for part in flat:
            moments = {key: torch.zeros_like(part) for key in ("exp_avg", "exp_avg_sq")}
            sharded.optimizer.state[part] = {"step": torch.tensor(0.0), **moments}
        if not stage3:
            sharded._lazy_init_hp_params_optimizer_state()

    def _moments(self) -> Iterator[tuple[str, str, Tensor | float]]:
        if not self.zero:
            for name, weight in self.trained.items():
                for key, value in self.optimizer.state.get(weight, {}).items():
                    yield name, key, value
            return
        from deepspeed.utils import safe_get_full_optimizer_state

        step = next(iter(self.wrapped.optimizer.optimizer.state.values()))["step"]
        for name, weight in self.trained.items():
            for key in ("exp_avg", "exp_avg_sq"):
                yield name, key, safe_get_full_optimizer_state(weight, key)
            yield name, "step", step

    def _set_moments(self, moments: dict[str, Tensor]) -> None:
        by_name: dict[str, dict[str, Tensor]] = {}
        for path, value in moments.items():
            name, _, key = path.rpartition("/")
            by_name.setdefault(name, {})[key] = value
        if not self.zero:
            for name, state in by_name.items():
                held = {key: value.to(self.device, copy=True) if value.ndim else value for key, value in state.items()}
                self.optimizer.state[self.trained[name]] = held
            return
        from deepspeed.utils import safe_set_full_optimizer_state

        for name, state in by_name.items():
            for key in ("exp_avg", "exp_avg_sq"):
                safe_set_full_optimizer_state(self.trained[name], state[key].to(self.device), key)
        if by_name:  # ZeRO counts for all weights at once
            step = max(state["step"] for state in by_name.values())
            for state in self.wrapped.optimizer.optimizer.state.values():
                state["step"] = step.clone()

    def _all_random_states(self) -> dict[str, dict[str, Tensor]]:
        return {f"random-{rank}": state for rank, state in enumerate(self.gathered(_random_state()))}

    def close(self) -> None:
        """Leave the group of processes, after a run that ended well; after a fault nobody waits for the others."""
        self.accelerator.free_memory()
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
        for name in self.environment:
            os.environ.pop(name, None)


def in_memory_format(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Put a module's weights of four axes into a memory format."""
    move: Any = module.to  # torch's annotations leave this argument out
    move(memory_format=memory_format)


def _random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _for_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A value of a batch, a tensor or a named tuple of tensors, with each of them changed; others stay."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_for_tensors(change, part) for part in value))
    return value
