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
from typing import Annotated

import typer

from seedstory.error_reporting import FAILED, one_line, reported_errors
from seedstory.errors import SeedStoryError
from seedstory.memory.machine import host_memory
from seedstory.model_folder import find_model, versions
from seedstory.progress_display import quiet_libraries

GB = 1e9
# What may be missing: the import, what it is for, and how it comes.
OPTIONAL = (
    ("typst", "PDF, CBZ and films", "pip install 'seedstory[book]'"),
    ("av", "films", "pip install 'seedstory[book]'"),
    ("fastapi", "seedstory serve and app", "pip install 'seedstory[server]'"),
    ("sentencepiece", "seedstory convert", "pip install 'seedstory[convert]'"),
    ("ray", "stories by several machines", "pip install 'seedstory[ray]'"),
    ("datasets", "training", "pip install 'seedstory[train]'"),
    ("deepspeed", "training on many GPUs", "pip install --no-build-isolation deepspeed"),
    (
        "flash_attn",
        "packed stories on GPUs (torch 2.11 has a kernel of its own)",
        "pip install flash-attn --no-build-isolation",
    ),
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
    total, free = host_memory()
    if total:
        yield Check("memory", f"{free / GB:.1f} GB free of {total / GB:.1f} GB")
    if not torch.cuda.is_available():
        yield Check("GPU", "none that PyTorch can use; the mini needs none")
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield Check(f"GPU {number}", f"{name}, {free / GB:.1f} GB free of {total / GB:.1f} GB", True)


def memory(model: str) -> Iterator[Check]:
    """What a model needs in each mode, by its files alone (`seedstory.memory.estimate`), and which mode fits here."""
    import torch

    from seedstory.memory.choose import free_memory, memory_plans
    from seedstory.memory.estimate import ModelMemory, parameter_count

    try:
        folder = find_model(model)
        sizes = ModelMemory.of_folder(folder)
    except (SeedStoryError, OSError) as error:
        yield Check(model, one_line(str(error)), False)
        return
    yield Check("folder", str(folder), True)
    language, drawing = parameter_count(sizes)
    yield Check("parameters", f"{language / 1e6:.0f} M to write, {drawing / 1e6:.0f} M to see and draw")
    here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu, host = free_memory(here)
    taken = False
    for device_type in ("cpu", "cuda"):
        for plan in memory_plans(sizes, device_type):
            name = f"{'GPU' if device_type == 'cuda' else 'CPU'} {plan.mode.name}{' +tiles' if plan.tiled else ''}"
            sizes_there = f"{plan.needs.host / GB:.1f} GB of main memory"
            if device_type == "cuda":
                sizes_there = f"{plan.needs.gpu / GB:.1f} GB on the GPU, {sizes_there}"
            note = ""
            if device_type == here.type:
                fits = plan.fits(gpu, host)
                note = "more than is free here" if not fits else "" if taken else "--memory auto takes this"
                taken = taken or fits
            yield Check(name, sizes_there, None, note)
    if not taken:
        yield Check("memory", "this model does not fit here: end other programs, or take a smaller one", False)
