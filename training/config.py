"""Training configurations: dataclasses filled from YAML, unknown keys refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TypeVar

import yaml

T = TypeVar("T")


@dataclasses.dataclass(kw_only=True)
class RunConfig:
    """What every stage needs.

    Attributes:
        data: folder of a StoryStream data set (`train.jsonl`, optionally `heldout.jsonl`).
        out: folder for weights, logs and samples.
        steps: optimiser steps; the learning rate reaches its floor there.
        max_minutes: wall minutes after which the run closes its schedule early (0: no limit).
        batch_size: samples a step.
        muon_lr, adam_lr, weight_decay: of `training.optimizers.MuonAdamW`.
        log_every, save_every: in steps.
        seed: of weights, data order and noise.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads (0: as torch chooses).
    """

    data: str
    out: str
    steps: int
    max_minutes: float = 0.0
    batch_size: int = 32
    muon_lr: float = 1e-2
    adam_lr: float = 1e-3
    weight_decay: float = 1e-3
    log_every: int = 20
    save_every: int = 500
    seed: int = 0
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


def load_config(path: str | Path, kind: type[T], overrides: list[str] = ()) -> T:
    """Read a YAML file into the dataclass `kind`.

    Args:
        path: YAML file, a flat mapping.
        kind: dataclass to fill.
        overrides: `key=value` strings that win over the file; values are YAML.

    Raises:
        ValueError: on a missing file, an unknown key or a value that the dataclass refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no configuration at {path}")
    values = yaml.safe_load(path.read_text()) or {}
    for override in overrides:
        key, found, value = override.partition("=")
        if not found:
            raise ValueError(f"override {override!r} is not of the form key=value")
        values[key] = yaml.safe_load(value)
    known = {field.name for field in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}")
    for field in dataclasses.fields(kind):
        value = values.get(field.name)
        if field.type in ("int", "float") and value is not None:
            try:
                values[field.name] = {"int": int, "float": float}[field.type](value)  # YAML reads 1e-3 as text
            except (TypeError, ValueError):
                raise ValueError(f"{path}: {field.name} must be a number, not {value!r}") from None
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from None
