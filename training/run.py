"""What surrounds a training step: device, clock, logs, samples."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from training.config import RunConfig, load_config

T = TypeVar("T", bound=RunConfig)


class Run:
    """One training run: seeds and device at the start, a JSONL and TensorBoard log, sample sheets.

    Args:
        config: any stage's configuration.
        name: sub-folder of the logs, one per phase.
    """

    def __init__(self, config: RunConfig, name: str) -> None:
        self.config = config
        self.folder = Path(config.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.config.json").write_text(json.dumps(dataclasses.asdict(config), indent=1))
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        cuda = torch.cuda.is_available()
        self.device = torch.device(("cuda" if cuda else "cpu") if config.device == "auto" else config.device)
        self.board = SummaryWriter(self.folder / "tensorboard" / name)
        self.log_path = self.folder / f"{name}.jsonl"
        self.values: dict[str, list[float]] = defaultdict(list)
        self.since_log = 0
        self.over = False
        self.started = self.last_log = time.monotonic()

    def autocast(self) -> torch.autocast:
        """bf16 mixed precision on this run's device."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def progress(self, step: int) -> float:
        """Share of the run that is over, by steps or by wall time, whichever is further."""
        share = step / self.config.steps
        if self.config.max_minutes:
            share = max(share, (time.monotonic() - self.started) / (60 * self.config.max_minutes))
        return min(share, 1.0)

    def steps(self) -> Iterator[tuple[int, float]]:
        """Yield (step, progress) until `saves` says that the run is over; the clock starts here."""
        self.started = self.last_log = time.monotonic()
        step = 0
        while not self.over:
            yield step, self.progress(step)
            step += 1

    def saves(self, step: int) -> bool:
        """Whether to save after this step: every `save_every` steps, and always at the end of the run."""
        self.over = self.progress(step + 1) >= 1
        return self.over or (step + 1) % self.config.save_every == 0

    def log_value(self, key: str, value: float) -> None:
        """Collect one value for the next line of the log."""
        self.values[key].append(float(value))

    def log(self, step: int, **values: float) -> None:
        """Collect values each step; write their means every `log_every` steps."""
        for key, value in values.items():
            self.log_value(key, value)
        self.since_log += 1
        if (step + 1) % self.config.log_every == 0:
            now = time.monotonic()
            means = {key: sum(collected) / len(collected) for key, collected in self.values.items()}
            means["steps_per_s"] = self.since_log / (now - self.last_log)
            self.write(step, **means)
            self.values.clear()
            self.since_log, self.last_log = 0, now

    def write(self, step: int, **values: float) -> None:
        """Write one line to the JSONL log, TensorBoard and the terminal at once."""
        line = {"step": step, "minutes": round((time.monotonic() - self.started) / 60, 2)}
        line |= {key: round(float(value), 5) for key, value in values.items()}
        with self.log_path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for key, value in values.items():
            self.board.add_scalar(key, value, step)
        print(" ".join(f"{key}={value}" for key, value in line.items()), flush=True)

    def sheet(self, step: int, name: str, rows: list[torch.Tensor]) -> None:
        """Save rows of pictures [B, 3, H, W] in [0, 1] as one PNG and to TensorBoard."""
        grid = torch.cat([torch.cat(list(row.float().cpu().clamp(0, 1)), 2) for row in rows], 1)
        self.board.add_image(name, grid, step)
        array = (grid * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / f"{name}-{step:06d}.png")


def parse_arguments(kind: type[T], description: str) -> T:
    """Command line of every stage: `--config FILE key=value ...`; a fault ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="YAML file of configs/")
    parser.add_argument("overrides", nargs="*", help="key=value, wins over the file")
    arguments = parser.parse_args()
    try:
        return load_config(arguments.config, kind, arguments.overrides)
    except ValueError as error:
        parser.error(str(error))
