"""`seedstory doctor`: what is installed, what this machine can run, and how much memory a model needs."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Annotated

import typer

from seedstory.error_reporting import FAILED, one_line, reported_errors
from seedstory.errors import SeedStoryError
from seedstory.model_folder import COMPONENTS, find_model, versions
from seedstory.progress_display import quiet_libraries

GB = 1e9
# Libraries and working memory beside the weights: the mini has 0.62 GB of weights in float32 and peaks at 0.93 GB.
BESIDE_WEIGHTS = 0.35
# What may be missing: the import, what it is for, and how it comes.
OPTIONAL = (
    ("typst", "PDF, CBZ and films", "pip install 'seedstory[book]'"),
    ("av", "films", "pip install 'seedstory[book]'"),
    ("fastapi", "seedstory serve and app", "pip install 'seedstory[server]'"),
    ("datasets", "training", "pip install 'seedstory[train]'"),
    ("deepspeed", "training on many GPUs", "pip install --no-build-isolation deepspeed"),
    ("flash_attn", "faster attention on CUDA", "pip install flash-attn --no-build-isolation"),
)
PROGRAMS = (
    ("cc", ("cc", "gcc", "clang"), "the fast decoding of words (--decoding native)"),
    ("espeak-ng", ("espeak-ng",), "narration of films"),
)


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was looked at.
        finding: What was found.
        good: None for a fact; False for something that is missing and needed.
        advice: What to do.
    """

    name: str
    finding: str
    good: bool | None = None
    advice: str = ""

    def __str__(self) -> str:
        mark = {None: " ", True: "+", False: "!"}[self.good]
        return f"{mark} {self.name:<22}{self.finding}" + (f"; {self.advice}" if self.advice else "")


def doctor(
    model: Annotated[str, typer.Option(help="'mini', a model folder or a Hub id.")] = "mini",
) -> None:
    """Say what is installed, what this machine can run, and how much memory a model and its modes need.

    Ends with 1 if no story can be generated.

    **Example**: seedstory doctor --model my_model
    """
    with reported_errors():
        quiet_libraries()
        needed = True
        for heading, checks in (("Installed", installed()), ("This machine", machine()), ("Model", memory(model))):
            typer.echo(heading)
            for check in checks:
                typer.echo(f"  {check}")
                needed = needed and check.good is not False
        if not needed:
            typer.echo("No story can be generated yet: see the lines with !")
            raise typer.Exit(FAILED)
        typer.echo("Ready: seedstory generate --text 'Mia the fox found a golden key.'")


def installed() -> Iterator[Check]:
    """Versions of what is needed, and what may be missing."""
    yield Check("python", sys.version.split()[0])
    for name, found in versions().items():
        yield Check(name, found, True)
    for module, purpose, command in OPTIONAL:
        if importlib.util.find_spec(module) is None:
            yield Check(module, f"missing, for {purpose}", None, command)
        else:
            try:
                found = version(module.replace("_", "-"))
            except PackageNotFoundError:
                found = "installed"
            yield Check(module, f"{found}, for {purpose}", True)
    for name, programs, purpose in PROGRAMS:
        place = next((place for program in programs if (place := shutil.which(program))), None)
        yield Check(name, f"{place or 'missing'}, for {purpose}", True if place else None)


def machine() -> Iterator[Check]:
    """Cores, memory, the faster type of numbers, and GPUs."""
    import torch

    from seedstory.precision import cpu_name, fast_precision

    yield Check("system", f"{platform.system()} {platform.machine()}")
    yield Check("CPU", f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used")
    yield Check("faster type", fast_precision("cpu"))
    total, free = _main_memory()
    if total:
        yield Check("memory", f"{free / GB:.1f} GB free of {total / GB:.1f} GB")
    if not torch.cuda.is_available():
        yield Check("GPU", "none that PyTorch can use; the mini needs none")
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield Check(f"GPU {number}", f"{name}, {free / GB:.1f} GB free of {total / GB:.1f} GB", True)


def memory(model: str) -> Iterator[Check]:
    """What a model needs in each mode. An estimate: its weights, and what else the mini was seen to take."""
    try:
        folder = find_model(model)
        parts = {name: _parameters(folder / name) for name in COMPONENTS}
        base = _base_parameters(folder)
    except (SeedStoryError, OSError) as error:
        yield Check(model, one_line(str(error)), False)
        return
    yield Check("folder", str(folder), True)
    language = parts["story_model"] + base
    drawing = parts["vision_tower"] + parts["detokenizer"]
    yield Check("parameters", f"{language / 1e6:.0f} M to write, {drawing / 1e6:.0f} M to see and draw")
    _, free = _main_memory()
    for name, size in (
        ("float32", 4 * (language + drawing)),
        ("bfloat16", 2 * (language + drawing)),
        ("--int8", language + 4 * drawing),
        ("--rendering after", 4 * max(language, drawing)),
    ):
        needs = size / GB + BESIDE_WEIGHTS
        short = free and needs > free / GB
        yield Check(name, f"about {needs:.1f} GB", None, "more than is free here" if short else "")


def _parameters(folder: Path) -> int:
    """Numbers in the weight files of a component."""
    from seedstory.model_files import stored_shapes

    folders = {file.parent for file in folder.rglob("*.safetensors")}
    return sum(prod(shape) for one in folders for shape in stored_shapes(one).values())


def _base_parameters(folder: Path) -> int:
    """Parameters of the base language model of a story model."""
    import torch
    from transformers import AutoModelForCausalLM

    from seedstory.modeling.base_lm import base_lm_config, resolve_base_lm

    config = base_lm_config(resolve_base_lm(folder / "story_model"))
    with torch.device("meta"):
        return sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())


def _main_memory() -> tuple[int, int]:
    """Bytes of main memory in all and free; zeros where the system does not say."""
    try:
        page, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0, 0
    free = total // 2
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        return page * total, free
    except (OSError, StopIteration, ValueError):
        return page * total, page * free
