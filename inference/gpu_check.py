"""What a GPU shows of this checkout, within ten minutes, with nothing downloaded: tests, speed and memory.

\b
python -m inference.gpu_check --json gpu.json
python -m inference.gpu_check --quick
python -m inference.gpu_check --parts stage2,sdxl

Weights are drawn at random on the device. Each part is a process with a share of the time, so that a slow one, or one
that fails, costs the others nothing; what it has found until then stays. Each figure is shown, and the file written
anew, as soon as it is there. `docs/guides/gpu.md` says what the figures mean.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from inference.gpu_parts import PARTS, REPOSITORY, Settings, Skipped
from inference.instruments import machine
from seedstory.io import write_atomic

# Seconds: the most that each part may take, within ten minutes and within one.
BUDGETS = {"stage2": 90, "language_model": 240, "sdxl": 150, "tests": 100}
QUICK = {"language_model": 28, "stage2": 16, "sdxl": 16}
GOALS = {
    "language_model.compiled.decode_share_of_copy_bandwidth": "at least 0.85",
    "language_model.compiled.speedup_over_reference": "at least 10",
    "sdxl.time_over_diffusers": "at most 1.0",
    "stage2.share_of_arithmetic_limit": "at least 0.4",
    "peak_memory_gb": "at most 14.5",
}
_MARK = "figure "


@dataclass(frozen=True)
class Plan:
    """What is run, and where its figures go.

    Attributes:
        parts: Names of `PARTS`, in order, and the seconds that each may take.
        device: "cuda" or "cpu".
        tiny: Sizes for trying the parts.
        quick: First figures alone.
        json_file: Where the report is written; None for nowhere.
    """

    parts: dict[str, float]
    device: str
    tiny: bool
    quick: bool
    json_file: Path | None


class Report:
    """The figures of a run, written anew with each of them."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan, self.say = plan, say
        options = {"parts": plan.parts, "device": plan.device, "tiny": plan.tiny, "quick": plan.quick}
        self.content: dict[str, Any] = {"schema": 1, "options": options, "machine": machine(torch.device(plan.device))}
        self.content |= {"goals": GOALS, "summary": {}, "parts": {}}
        self.write()

    def write(self) -> None:
        """Write the file, whole or not at all."""
        if self.plan.json_file is not None:
            write_atomic(self.plan.json_file, json.dumps(self.content, indent=1) + "\n")

    def note(self, part: str, name: str, value: Any) -> None:
        """One more figure, or how a part ended (`status`)."""
        figures = self.content["parts"].setdefault(part, {})
        figures[name] = value
        self.say(f"{part}: {name} = {value}")
        summary = {}
        for goal in GOALS:
            of, _, figure = goal.partition(".")
            if figure and figure in self.content["parts"].get(of, {}):
                summary[goal] = self.content["parts"][of][figure]
        # Language model and images take turns in memory (`rendering="after"`), so the larger one decides.
        peaks = [self.content["parts"].get(one, {}).get("peak_memory_gb") for one in ("language_model", "sdxl")]
        if all(peaks):
            summary["peak_memory_gb"] = max(peaks)
        self.content["summary"] = summary
        self.write()


def run(plan: Plan, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the parts one after another.

    Args:
        plan: What to run.
        say: Called with a line for each figure.

    Returns:
        The report.
    """
    report = Report(plan, say)
    for part, seconds in plan.parts.items():
        started = time.perf_counter()
        status = _in_own_process(part, seconds, plan, report)
        report.note(part, "seconds", round(time.perf_counter() - started, 1))
        report.note(part, "status", status)
    return report.content


def _in_own_process(part: str, seconds: float, plan: Plan, report: Report) -> str:
    """Runs a part, notes what it finds and says how it ended; after its seconds it is ended."""
    command = [sys.executable, "-m", "inference.gpu_check", "--one", part, "--device", plan.device]
    command += ["--tiny"] * plan.tiny + ["--quick"] * plan.quick
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    deadline = time.perf_counter() + seconds
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    rest, last, status = b"", "", ""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                left = deadline - time.perf_counter()
                if left <= 0 or not selector.select(left):
                    return f"cut off after {seconds:g} s"
                data = os.read(process.stdout.fileno(), 2**16)
                *lines, rest = (rest + data).split(b"\n")
                for line in (raw.decode("utf-8", "replace") for raw in lines):
                    if line.startswith(_MARK):
                        name, value = json.loads(line.removeprefix(_MARK))
                        status = str(value) if name == "status" else status
                        if name != "status":
                            report.note(part, name, value)
                    elif line.strip():
                        last = line.strip()
                if not data:
                    break
        code = process.wait()
        return status or f"failed with exit status {code}: {last[:300]}"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what it started ends with it
        except ProcessLookupError:
            pass
        process.stdout.close()
        process.wait()


def run_one(part: str, settings: Settings) -> None:
    """A part in this process: figures go to the standard output, one a line."""

    def note(name: str, value: Any) -> None:
        print(_MARK + json.dumps([name, value]), flush=True)

    try:
        PARTS[part](settings, note)
    except Skipped as reason:
        note("status", f"skipped: {reason}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this part's result
        note("status", f"failed: {type(error).__name__}: {str(error)[:300]}")
    else:
        note("status", "done")


def chosen(parts: str | None, budgets: dict[str, int]) -> dict[str, float]:
    """The parts that are named, with their seconds.

    Raises:
        ValueError: There is no such part.
    """
    names: Sequence[str] = parts.split(",") if parts else list(budgets)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ValueError(f"there is no part {unknown[0]!r}: choose of {', '.join(PARTS)}")
    return {name: float(budgets.get(name, BUDGETS[name])) for name in names}


def main(
    parts: Annotated[str | None, typer.Option(help=f"which parts, with commas: {', '.join(PARTS)}")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="first ratios within a minute; nothing is compiled")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="tiny sizes, to try the parts on a CPU")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if place == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("torch sees no GPU here", param_hint="--device")
    if place == "cpu" and not tiny:
        raise typer.BadParameter("torch sees no GPU here; --tiny tries the parts on a CPU", param_hint="--device")
    if one is not None:
        run_one(one, Settings(torch.device(place), tiny, quick))
        return
    try:
        plan = Plan(chosen(parts, QUICK if quick else BUDGETS), place, tiny, quick, json_file)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--parts") from None
    report = run(plan)
    print("\nsummary")
    for goal, wanted in GOALS.items():
        print(f"  {goal}: {report['summary'].get(goal, 'not measured')} (goal: {wanted})")
    if any(part["status"].startswith("failed") or part.get("failed") for part in report["parts"].values()):
        raise typer.Exit(1)


main.__doc__ = __doc__


if __name__ == "__main__":
    typer.run(main)
