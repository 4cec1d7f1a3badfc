"""A stage so small that a step takes a millisecond; run as a script it trains in as many processes as there are.

python tests/training/toy_stage.py '{"out": "runs/toy", "zero_stage": 2}'
"""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

from training.backend import Backend
from training.config import RunConfig
from training.loop import Stage, StepPlan, train
from training.pages import ShuffledSampler, noise_of

SAMPLES = 40


class ToyStage(Stage):
    """A small network on noisy rows; a frozen bfloat16 layer stands for a base model."""

    name = "toy"
    poisoned: set[int] = set()  # steps whose loss is not finite
    faulty: set[int] = set()  # steps that the last process cannot take
    unready: set[int] = set()  # processes that fail where the first one goes ahead
    unwritten: set[int] = set()  # processes that fail in their part of an export
    idle: set[int] | None = None  # steps that leave `late` out of the loss; None: there is no such part

    def __init__(self, config: RunConfig, backend: Backend) -> None:
        super().__init__()
        self.config, self.backend = config, backend
        with backend.main_process_first():
            if backend.rank in self.unready:
                raise KeyError("a feature")
        torch.manual_seed(0)
        self.frozen = nn.Linear(8, 8).requires_grad_(False).bfloat16()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(config.seed / 100), nn.Linear(16, 4))
        self.late = nn.Linear(8, 4) if self.idle is not None else None
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(SAMPLES, 8, generator=generator)
        self.targets = torch.randn(SAMPLES, 4, generator=generator)
        self.rows = ShuffledSampler(SAMPLES, config.seed)

    def draw(self, step, progress):
        size = self.config.batch_size
        return StepPlan(list(enumerate(self.rows.take(step * size, size), start=step * size)))

    def batch(self, samples, kind):
        rows = torch.tensor([row for _, row in samples])
        noise = torch.stack([torch.randn(8, generator=noise_of(self.config.seed, number)) for number, _ in samples])
        step = samples[0][0] // self.config.batch_size
        return {"x": self.inputs[rows] + 0.1 * noise, "y": self.targets[rows], "step": step}

    def counts(self, batch):
        return {"loss": len(batch["x"])}

    def forward(self, batch, progress):
        x = self.frozen(batch["x"].to(self.frozen.weight.dtype)).to(batch["x"].dtype) + batch["x"]
        if batch["step"] in self.faulty and self.backend.rank == self.backend.processes - 1:
            raise ValueError("a fault of one process")
        y = self.net(x)
        if self.late and batch["step"] not in self.idle:
            y = y + self.late(x)
        loss = (y - batch["y"]).square().mean(1).sum()
        if batch["step"] in self.poisoned:
            loss = loss * float("inf")
        return {"loss": loss}

    def weights(self, kind, progress):
        return {"loss": 1.0}

    def evaluate(self, step, recorder, backend):
        recorder.write(step, heldout=(self.net(self.inputs) - self.targets).square().mean().item())

    def export(self, folder: Path):
        if self.backend.rank in self.unwritten:
            raise KeyError("a weight")
        (folder / "exported.json").write_text(json.dumps({name: w.tolist() for name, w in self.net.named_parameters()}))


class PowerCut(RuntimeError):
    pass


class StopsAtEighthStep(ToyStage):
    """Fails when the eighth step's batch is built."""

    def batch(self, samples, kind):
        if samples[0][0] // self.config.batch_size == 7:
            raise PowerCut
        return super().batch(samples, kind)


def toy_config(out, **settings) -> RunConfig:
    """A run of ten steps with a checkpoint every five."""
    defaults = {
        "data": "none",
        "steps": 10,
        "batch_size": 8,
        "precision": "fp32",
        "optimizer": "adamw",
        "adam_lr": 1e-2,
        "log_every": 1,
        "save_every": 5,
        "device": "cpu",
    }
    return RunConfig(out=str(out), **defaults | settings)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    for name, steps in json.loads(os.environ.get("TOY", "{}")).items():
        setattr(ToyStage, name, set(steps))
    train(toy_config(**settings), ToyStage)
