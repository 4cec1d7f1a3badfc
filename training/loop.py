"""The one training loop: every stage says what a sample is and what it costs, and the loop does the rest.

A step's samples and their noise are pure functions of the seed and the step's number, and every loss is a sum divided
by what the whole step holds. So a step is the same however it is cut into micro-batches and processes, and a run that
goes on from a checkpoint repeats the uninterrupted one to the bit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from training.backend import Backend
from training.checkpoint import Checkpoint, Checkpoints, digest_of, lock_run, read_checkpoint, replace_entries
from training.config import RunConfig
from training.optimizers import AveragedWeights, learning_rate
from training.pages import ShuffledSampler, cut
from training.progress import StepProgress
from training.recorder import Recorder
from training.workers import Workers

T = TypeVar("T", bound=RunConfig)


@dataclass
class StepPlan:
    """The samples of one optimizer step.

    Attributes:
        samples: anything that the stage's `batch` understands.
        kind: which sort of step this is; losses are logged under its name ("" for stages with one sort).
    """

    samples: Sequence[Any]
    kind: str = ""


class Stage(nn.Module):
    """What a stage of training is to the loop. Weights that require a gradient are trained.

    Attributes:
        name: of its logs and checkpoints.
        adam_names: parts of names of matrices that AdamW trains although Muon is chosen.
        config: of the run.
        rows: the order in which samples are drawn.
        sources: files, or folders of weights, that a run has to find unchanged when it goes on.
    """

    name = "stage"
    adam_names: tuple[str, ...] = ()
    config: RunConfig
    rows: ShuffledSampler
    sources: Sequence[str | Path] = ()

    def draw(self, step: int, progress: float) -> StepPlan:
        """The samples of a step, over all processes; a pure function of the seed and its arguments.

        By default the next `config.batch_size` rows of the stage's `rows`, each with its number in the run.
        """
        size = self.config.batch_size
        return StepPlan(list(enumerate(self.rows.take(step * size, size), start=step * size)))

    def batch(self, samples: Sequence[Any], kind: str) -> dict[str, Any]:
        """Samples as tensors on the CPU, noise included; a pure function, called ahead in a thread or a worker."""
        raise NotImplementedError

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        """What each loss of `forward` is a sum over, by the same names."""
        raise NotImplementedError

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        """Sums of losses by name, each a float32 scalar."""
        raise NotImplementedError

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        """Weights of the mean losses in what is minimized; a loss without one is only logged."""
        raise NotImplementedError

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        """Write held-out figures and sample pages."""

    def export(self, folder: Path) -> None:
        """Write what the next stage, or the user, needs."""
        raise NotImplementedError


_TIME_IS_UP = "by max_minutes"


class Interrupted(Exception):
    """The run was asked to stop; a checkpoint holds all it did.

    Attributes:
        on_time: whether its minutes were over, as configured, rather than that it was interrupted.
    """

    def __init__(self, message: str, on_time: bool = False) -> None:
        super().__init__(message)
        self.on_time = on_time


def fit(stage: Stage, config: RunConfig, backend: Backend) -> Stage:
    """Train a stage, or go on with it, to its last step.

    Raises:
        ValueError: if the checkpoint to go on from is of another run or other data, another process runs this stage
            in the same folder, or too many steps were not finite.
        Interrupted: after a signal, or when the configured minutes are over.
    """
    with ExitStack() as held:
        with backend.all_or_none():
            if backend.is_main:
                held.enter_context(lock_run(Path(config.out) / "checkpoints" / f".{stage.name}.lock"))
        return _Run(stage, config, backend).run()


@dataclass
class _Work:
    """What one process does in a step: micro-batches on the CPU, and what their losses are sums over."""

    kind: str
    batches: list[dict[str, Any]]
    counts: dict[str, float]


class _Run:
    def __init__(self, stage: Stage, config: RunConfig, backend: Backend) -> None:
        self.stage, self.config, self.backend = stage, config, backend
        Path(config.out).mkdir(parents=True, exist_ok=True)
        backend.prepare(stage, stage.adam_names)
        self.average = AveragedWeights(backend.trained, config.average) if config.average else None
        self.recorder = Recorder(config, stage.name, backend.is_main)
        self.checkpoints = Checkpoints(Path(config.out) / "checkpoints" / stage.name, config.keep_checkpoints)
        self.step, self.bad_steps = 0, 0
        self.sources: dict[str, str] = {}  # digests, by path; the first process knows them
        self.built: Future[_Work]
        self.workers: Workers[_Work] | None = None
        self.asked = self.stopping = ""  # by whom to stop; all processes agree on the second one
        self.asked_at = 0.0
        self.left: StepProgress | None = None

    def run(self) -> Stage:
        again = self._resume()
        if self.backend.is_main:
            text = json.dumps(vars(self.config), indent=1)
            (self.recorder.folder / f"{self.stage.name}.config.json").write_text(text, "utf-8")
        if self.step >= self.config.steps:
            self._export()  # it may have been killed between its last checkpoint and this
            self.recorder.say("no step is left to do")
        handlers = self._handle_signals()
        try:
            if again:
                self._evaluate()
            if self.config.workers and self.step < self.config.steps:
                self.workers = Workers(self._compose, self.step, self.config.steps, self.config.workers)
            with ThreadPoolExecutor(1, "batches") as self.builder:
                self._train()
        finally:
            if self.workers is not None:
                self.workers.close()
            if self.left is not None:
                self.left.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.recorder.close()
        if self.stopping and self.step < self.config.steps:
            raise Interrupted(
                f"stopped {self.stopping} after {self.step} of {self.config.steps} steps; "
                "the same command goes on from there",
                on_time=self.stopping == _TIME_IS_UP,
            )
        return self.stage

    def _train(self) -> None:
        self.stage.train()
        if self.step < self.config.steps:
            self.built = self.builder.submit(self._build, self.step)
        last_step, last_time = self.step, self.recorder.seconds
        say = self.recorder.say if self.backend.is_main else None
        self.left = StepProgress(self.stage.name, self.config.steps, self.step, say)
        while self.step < self.config.steps and not self.stopping:
            self._one_step()
            self.left.update(self.step)
            done = self.step == self.config.steps
            if self.step % self.config.log_every == 0 or done:
                now = self.recorder.seconds
                self.recorder.flush(self.step - 1, (self.step - last_step) / max(now - last_time, 1e-9))
                last_step, last_time = self.step, now
            saves = self.step % self.config.save_every == 0 or done or bool(self.stopping)
            evaluates = self._evaluates(saves)
            if saves or evaluates:
                wait([self.built])  # a stage's tokenizer is not for two threads at once
            if saves:
                self._save()
            if evaluates:
                self._evaluate()

    def _evaluates(self, saves: bool) -> bool:
        """Whether an evaluation follows the steps that are done, after which a checkpoint is written or not."""
        every = self.config.eval_every
        return self.step == self.config.steps or (self.step % every == 0 if every else saves)

    def _build(self, step: int) -> _Work:
        """This process's part of a step, ready to be copied to its device."""
        work = self._compose(step) if self.workers is None else self.workers.take(step)
        return replace(work, batches=[self.backend.pinned(batch) for batch in work.batches])

    def _compose(self, step: int) -> _Work:
        backend = self.backend
        draw = self.stage.draw(step, step / self.config.steps)
        parts = cut(draw.samples, backend.processes * backend.accumulation)
        batches = [self.stage.batch(part, draw.kind) for part in parts[backend.rank :: backend.processes]]
        counts: dict[str, float] = defaultdict(float)
        for batch in batches:
            for name, count in self.stage.counts(batch).items():
                counts[name] += float(count)
        return _Work(draw.kind, batches, dict(counts))

    def _one_step(self) -> None:
        """One optimizer step over all micro-batches and processes."""
        backend, progress = self.backend, self.step / self.config.steps
        work = self.built.result()
        if self.step + 1 < self.config.steps:
            self.built = self.builder.submit(self._build, self.step + 1)
        names = sorted(work.counts)
        minutes = bool(self.config.max_minutes) and self.recorder.seconds_here > 60 * self.config.max_minutes
        *totals, signals, times = backend.total([*(work.counts[name] for name in names), bool(self.asked), minutes])
        counts = dict(zip(names, totals, strict=True))
        if signals or times:
            self.stopping = (self.asked or "by a signal") if signals else _TIME_IS_UP
        weights = self.stage.weights(work.kind, progress)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(work.batches):
            last = number == len(work.batches) - 1
            losses = backend.forward(backend.on_device(batch), progress, last)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach().float()
            parts = [weight * losses[name].float() / max(counts[name], 1) for name, weight in weights.items()]
            backend.backward(sum(parts[1:], parts[0]), last)
        norm, reduced = backend.step(learning_rate(progress), torch.stack([sums[name] for name in names]))
        self._judge(norm)
        if norm is not None:
            if self.average:
                self.average.update(self.step)
            prefix = f"{work.kind}_" if work.kind else ""
            self.recorder.add(
                {f"{prefix}{name}": value for name, value in zip(names, reduced, strict=True)} | {"grad_norm": norm},
                {f"{prefix}{name}": counts[name] for name in names} | {"grad_norm": 1.0},
            )
        self.step += 1

    def _judge(self, norm: float | None) -> None:
        """Count a step that was not finite; give up after too many."""
        if norm is not None:
            return
        self.bad_steps += 1
        where = f"step {self.step}, process {self.backend.rank} of {self.backend.processes}"
        self.recorder.say(f"the loss or its gradient is not finite at {where}: skipped ({self.bad_steps} so far)")
        if self.bad_steps > self.config.max_bad_steps:
            raise ValueError(
                f"{self.bad_steps} steps were not finite, the last at {where}: lower the learning rates, or go on from "
                f"an earlier checkpoint in {self.checkpoints.folder}"
            )

    def _evaluate(self) -> None:
        self.stage.eval()
        drawn = torch.random.fork_rng([self.backend.device] if self.backend.device.type == "cuda" else [])
        with drawn, torch.no_grad(), self.backend.whole_weights(), self._averaged():
            self.stage.evaluate(self.step - 1, self.recorder, self.backend)
        self.stage.train()
        if self.backend.is_main:
            self.checkpoints.mark_evaluated(self.step)

    def _averaged(self) -> AbstractContextManager[None]:
        return self.average.applied() if self.average else nullcontext()

    # ------------------------------------------------------------------------------------------------------ checkpoints

    def _save(self) -> None:
        tensors = self.backend.tensors()
        if self.average:
            tensors["average"] = self.average.average
        state = {
            "step": self.step,
            "bad_steps": self.bad_steps,
            "seconds": round(self.recorder.seconds, 1),
            "window": self.recorder.window,
            "config": self.config.fingerprint(),
            "sources": self.sources,
        }
        with self.backend.all_or_none():
            if self.backend.is_main:
                self.checkpoints.save(Checkpoint(state, tensors))
        self._export()

    def _export(self) -> None:
        """Let the stage write beside what it wrote before, then take its place."""
        aside = self.recorder.folder / f".export-{self.stage.name}"
        with self.backend.whole_weights(), self._averaged(), self.backend.all_or_none():
            if self.backend.is_main:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir()
                self.stage.export(aside)
                replace_entries(aside, self.recorder.folder)

    def _resume(self) -> bool:
        """Go on from the checkpoint that the first process chooses; whether its evaluation is still to be done."""
        backend, checkpoint = self.backend, None
        with backend.all_or_none():
            if backend.is_main:
                self.sources = {str(path): digest_of(path) for path in self.stage.sources}
                checkpoint = self._latest_checkpoint()
                if checkpoint:
                    self._check(checkpoint.state)
        chosen = backend.gathered(checkpoint and (str(checkpoint.folder), checkpoint.evaluated))[0]
        if chosen is None:
            self.recorder.resume(0)
            return False
        folder, evaluated = chosen
        with backend.all_or_none():
            checkpoint = checkpoint or read_checkpoint(folder)
        state = checkpoint.state
        try:
            backend.load_tensors(checkpoint.tensors)
            if self.average:
                for name, value in checkpoint.tensors["average"].items():
                    self.average.average[name].copy_(value)
        except KeyError as error:
            raise ValueError(f"the checkpoint lacks {error}") from None
        self.step, self.bad_steps = state["step"], state["bad_steps"]
        again = self._evaluates(saves=True) and not evaluated
        self.recorder.resume(self.step, state["seconds"], state.get("window"), again)
        self.recorder.say(f"going on after {self.step} of {self.config.steps} steps")
        return again

    def _latest_checkpoint(self) -> Checkpoint | None:
        if self.config.resume == "never":
            self.checkpoints.clear()
            return None
        if self.config.resume != "auto":
            return read_checkpoint(self.config.resume)
        self.checkpoints.remove_leftovers()
        checkpoint, faults = self.checkpoints.latest()
        for fault in faults:
            self.recorder.say(f"left out: {fault}")
        return checkpoint

    def _check(self, state: dict[str, Any]) -> None:
        """Refuse the checkpoint of a run with other settings, or of other data."""
        advice = "choose another `out`, or set resume=never to begin anew"
        differing = self.config.differing(state["config"])
        if differing:
            raise ValueError(f"{self.checkpoints.folder} holds a run with other settings ({differing}): {advice}")
        known = state.get("sources", {})
        changed = [path for path, digest in self.sources.items() if known.get(path, digest) != digest]
        if changed:
            raise ValueError(f"{', '.join(changed)} changed since {self.checkpoints.folder} was begun: {advice}")

    def _handle_signals(self) -> dict[int, Any]:
        """Let Ctrl-C and SIGTERM end the run after the step under way, with a checkpoint."""

        def stop(number: int, frame: object) -> None:
            # Launchers pass a signal on to processes that already had it, so only a later Ctrl-C is a second wish.
            if self.asked and number == signal.SIGINT and time.monotonic() > self.asked_at + 2:
                raise KeyboardInterrupt
            if not self.asked:
                self.asked, self.asked_at = f"by {signal.Signals(number).name}", time.monotonic()

        try:
            return {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread
            return {}


def train(config: T, make: Callable[[T, Backend], Stage]) -> Stage:
    """Build a stage and train it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    backend = Backend(config)
    stopped: Interrupted | None = None
    try:
        stage = fit(make(config, backend), config, backend)
    except Interrupted as error:  # in every process alike
        stopped = error
    backend.close()
    if stopped:
        raise stopped
    return stage
