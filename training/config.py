"""Training configurations: dataclasses filled from YAML, unknown keys refused."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml

from seedstory.precision import fast_precision

T = TypeVar("T")

Precision = Literal["auto", "bf16", "fp32"]
Optimizer = Literal["muon", "adamw"]
Offload = Literal["none", "cpu"]
Device = Literal["auto", "cpu", "cuda"]

# What may change between the first and the second half of a run: where and how it runs, not what it computes.
_OF_THE_MACHINE = frozenset(
    "out max_minutes micro_batch_size zero_stage offload gradient_checkpointing log_every save_every eval_every "
    "keep_checkpoints resume device threads workers max_bad_steps wandb_project heldout_steps".split()
)


@dataclasses.dataclass(kw_only=True)
class RunConfig:
    """What every stage needs.

    Attributes:
        data: folder of a StoryStream data set (`train.jsonl`, optionally `heldout.jsonl`).
        out: folder for weights, logs, samples and checkpoints.
        steps: optimizer steps; the learning rate reaches its floor there.
        max_minutes: wall minutes after which the run stops with a checkpoint, to be gone on with (0: no limit).
        batch_size: samples of one optimizer step, over all processes and accumulated micro-batches.
        micro_batch_size: samples of one forward pass in one process (0: all of the process's share at once).
        optimizer: "muon" (Muon for matrices, AdamW for the rest) or "adamw" (needed for `zero_stage` above 0).
        muon_lr, adam_lr, weight_decay: of the optimizer.
        max_grad_norm: the gradient is scaled down to this norm (0: left as it is).
        average: decay of the average of the weights that is evaluated and written (0: the weights themselves).
        precision: "bf16" (mixed), "fp32", or "auto": what the machine multiplies faster. It becomes one of the two
            here, so that a run goes on with what it began with.
        zero_stage: DeepSpeed ZeRO stage 1, 2 or 3; 0 trains without DeepSpeed, in one process or several.
        offload: "cpu" keeps the optimizer's state, and with ZeRO-3 the weights, in main memory.
        gradient_checkpointing: compute the activations of language model or U-Net twice rather than store them.
        log_every, save_every, eval_every: in steps (`eval_every` 0: whenever a checkpoint is written).
        keep_checkpoints: so many last checkpoints stay.
        resume: "auto" (the last whole checkpoint in `out`, if there is one), "never", or a checkpoint's folder.
        max_bad_steps: so many steps with a non-finite loss or gradient are skipped before the run is given up.
        seed: of weights, data order and noise.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads (0: as torch chooses).
        workers: processes that build the batches of the next steps (0: a thread does, a step ahead). For GPUs.
        wandb_project: also log to this Weights & Biases project (needs `wandb`).
    """

    data: str
    out: str
    steps: int
    max_minutes: float = 0.0
    batch_size: int = 32
    micro_batch_size: int = 0
    optimizer: Optimizer = "muon"
    muon_lr: float = 1e-2
    adam_lr: float = 1e-3
    weight_decay: float = 1e-3
    max_grad_norm: float = 1.0
    average: float = 0.0
    precision: Precision = "auto"
    zero_stage: int = 0
    offload: Offload = "none"
    gradient_checkpointing: bool = False
    log_every: int = 20
    save_every: int = 500
    eval_every: int = 0
    keep_checkpoints: int = 2
    resume: str = "auto"
    max_bad_steps: int = 10
    seed: int = 0
    device: Device = "auto"
    threads: int = 0
    workers: int = 0
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "save_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in (
            "micro_batch_size",
            "eval_every",
            "max_bad_steps",
            "threads",
            "workers",
            "max_minutes",
            "max_grad_norm",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be at least 0 and below 1, not {self.average}")
        choices = {"precision": Precision, "optimizer": Optimizer, "offload": Offload, "device": Device}
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}, not {getattr(self, name)!r}")
        if self.precision == "auto":
            self.precision = fast_precision(self.device)
        if self.zero_stage not in range(4):
            raise ValueError(f"zero_stage must be 0, 1, 2 or 3, not {self.zero_stage}")
        if self.zero_stage and self.optimizer == "muon":
            raise ValueError("ZeRO cuts matrices into pieces, which Muon cannot work on: set optimizer: adamw")
        if self.offload != "none" and not self.zero_stage:
            raise ValueError("offload needs DeepSpeed: set zero_stage to 1, 2 or 3")
        if self.average and self.zero_stage == 3:
            raise ValueError("averaged weights need whole weights in every process: set average: 0, or zero_stage: 2")

    def fingerprint(self) -> dict[str, object]:
        """What a run computes: two runs of equal fingerprint and code give the same weights."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in _OF_THE_MACHINE}

    def differing(self, before: dict[str, object]) -> str:
        """What an earlier fingerprint has otherwise, in words; nothing if the two are of the same run."""
        now = json.loads(json.dumps(self.fingerprint()))
        # A setting that came to be later had its default then.
        was = {field.name: _default(field) for field in dataclasses.fields(self)} | before
        keys = sorted(key for key in now if was[key] != now[key])
        return f"{', '.join(keys)}; {keys[0]} was {was[keys[0]]!r}, is {now[keys[0]]!r}" if keys else ""


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def load_config(path: str | Path, kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass `kind`.

    Args:
        path: YAML file, a flat mapping.
        kind: dataclass to fill.
        overrides: `key=value` strings that win over the file; values are YAML. `key.name=value` is for mappings.

    Raises:
        ValueError: on a missing file, an unknown key or a value that the dataclass refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no configuration at {path}")
    try:
        values = yaml.safe_load(path.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a configuration is a list of `key: value` lines")
    for override in overrides:
        _override(values, override)
    return fill(kind, values, str(path))


def _override(values: dict[str, Any], override: str) -> None:
    """Set `key=value`, or `key.name=value` inside a mapping."""
    key, found, text = override.partition("=")
    if not found:
        raise ValueError(f"override {override!r} is not of the form key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"the value of override {override!r} is no YAML") from None
    key, inside, name = key.partition(".")
    if inside:
        outer = values.get(key)
        if outer is not None and not isinstance(outer, dict):
            raise ValueError(f"override {override!r}: {key} is no mapping")
        value = {**(outer or {}), name: value}
    values[key] = value


def fill(kind: type[T], values: dict[str, Any], where: str) -> T:
    """A dataclass from plain values, as YAML gives them.

    Raises:
        ValueError: on an unknown key or a value that the dataclass refuses; the message begins with `where`.
    """
    settings: Any = kind
    fields = {field.name: str(field.type) for field in dataclasses.fields(settings)}
    for key in values:
        if key not in fields:
            raise ValueError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(fields))}")
    checked = {name: _checked(f"{where}: {name}", value, fields[name]) for name, value in values.items()}
    try:
        return kind(**checked)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _checked(name: str, value: Any, kind: str) -> Any:
    """A value of YAML as its field wants it; `kind` is the field's annotation."""
    wanted = set(kind.replace(" ", "").split("|"))
    if value is None and "None" in wanted:
        return None
    if wanted & {"int", "float"}:
        try:
            number = float(value) if not isinstance(value, bool) else math.nan  # YAML reads 1e-3 as text
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or ("float" not in wanted and number != int(number)):
            raise ValueError(f"{name} must be a {'number' if 'float' in wanted else 'whole number'}, not {value!r}")
        return number if "float" in wanted else int(number)
    if wanted & {"bool"} and not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")
    if value is not None and wanted <= {"dict[str,Any]", "None"} and not isinstance(value, dict):
        raise ValueError(f"{name} must be a mapping, not {value!r}")
    if wanted <= {"str", "None"} and not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {value!r}")
    return value
