"""What a run says of itself: JSONL, TensorBoard, the terminal, sample sheets, and Weights & Biases if asked."""

from __future__ import annotations

import json
import time
import uuid
from collections import defaultdict
from pathlib import Path

import torch
from PIL import Image

from seedstory.io import write_atomic
from training.config import RunConfig

_SPEED = "steps_per_s"  # in lines of steps, not in those of evaluations


class Recorder:
    """The log of one run. In all processes but the first it writes nothing.

    Args:
        config: the run's configuration.
        name: of the stage; names the files.
        writes: whether this process writes.
    """

    def __init__(self, config: RunConfig, name: str, writes: bool = True) -> None:
        self.folder, self.name, self.writes = Path(config.out), name, writes
        self.path = self.folder / f"{name}.jsonl"
        self.seconds_before, self.started = 0.0, time.monotonic()
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, float] = defaultdict(float)
        self._board = self._wandb = None
        if not writes:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(self.folder / "tensorboard" / name)
        if config.wandb_project:
            try:
                import wandb
            except ImportError:
                raise ValueError("wandb_project is set but wandb is not installed: pip install wandb") from None
            self._wandb = wandb.init(
                project=config.wandb_project,
                name=name,
                id=self._wandb_id(),
                resume="allow",
                dir=self.folder,
                config=vars(config),
            )

    def _wandb_id(self) -> str:
        """The run's id at Weights & Biases: a run that goes on is the same run there, too."""
        path = self.folder / f"{self.name}.wandb-id"
        if not path.is_file():
            path.write_text(uuid.uuid4().hex[:12], "utf-8")
        return path.read_text("utf-8")

    @property
    def seconds_here(self) -> float:
        """Time that this part of the run has taken."""
        return time.monotonic() - self.started

    @property
    def seconds(self) -> float:
        """Time that the run has taken, over all its parts."""
        return self.seconds_before + self.seconds_here

    @property
    def window(self) -> dict[str, dict[str, float]]:
        """What was collected since the last `flush`, as a checkpoint keeps it."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def resume(
        self, step: int, seconds: float = 0.0, window: dict[str, dict[str, float]] | None = None, again: bool = False
    ) -> None:
        """Go on after `step` finished steps: lines of what will be done again are dropped.

        Args:
            step: so many steps are finished.
            seconds: that the run has taken so far.
            window: as it was then.
            again: whether the evaluation after the last of these steps will be done again, too.
        """
        self.seconds_before = seconds
        if window:
            self._sums.update(window["sums"])
            self._counts.update(window["counts"])
        if not (self.writes and self.path.is_file()):
            return

        def stays(line: dict[str, float]) -> bool:
            return line["step"] < (step - 1 if again and _SPEED not in line else step)

        lines = self.path.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and stays(json.loads(line))]
        write_atomic(self.path, "".join(kept))

    def add(self, sums: dict[str, float], counts: dict[str, float]) -> None:
        """Collect a step's sums and what they are sums of; `flush` writes the means."""
        for key, value in sums.items():
            self._sums[key] += value
            self._counts[key] += counts[key]

    def flush(self, step: int, speed: float) -> None:
        """Write the means of what was collected since the last time, and the speed in steps per second."""
        means = {key: total / max(self._counts[key], 1e-12) for key, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        self.write(step, **means, **{_SPEED: speed})

    def write(self, step: int, **values: float) -> None:
        """Write one line everywhere at once."""
        if not self.writes:
            return
        line = {"step": step, "minutes": round(self.seconds / 60, 2)}
        line |= {key: round(float(value), 6) for key, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        assert self._board is not None
        for key, value in values.items():
            self._board.add_scalar(key, value, step)
        if self._wandb:
            self._wandb.log(values, step=step)
        self.say(" ".join(f"{key}={value:.5g}" for key, value in line.items()))

    def say(self, text: str) -> None:
        """One line on the terminal."""
        if self.writes:
            print(f"{self.name}: {text}", flush=True)

    def sheet(self, step: int, rows: list[torch.Tensor]) -> None:
        """Save rows of pictures [B, 3, H, W] in [0, 1] as one PNG, on TensorBoard and at Weights & Biases."""
        if not self.writes:
            return
        grid = torch.cat([torch.cat(list(row.float().cpu().clamp(0, 1)), 2) for row in rows], 1)
        assert self._board is not None
        self._board.add_image(self.name, grid, step)
        array = (grid * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        image = Image.fromarray(array)
        image.save(folder / f"{self.name}-{step:06d}.png")
        if self._wandb:
            import wandb

            self._wandb.log({"samples": wandb.Image(image)}, step=step)

    def close(self) -> None:
        """Bring everything to disk."""
        if self._board:
            self._board.close()
        if self._wandb:
            self._wandb.finish()
