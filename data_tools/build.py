"""Builds a data set by one YAML file, from its sources to shards and a report: `python -m data_tools.build --help`.

Every step is one of the other commands, and its entry in the file holds that command's options by their names. All
entries are checked before the first step runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table
from typer.main import get_command

from data_tools.command import Running, application, command

_UsageError: Any = typer.BadParameter.__base__  # of Click, which newer versions of typer carry inside
_KEYS = ("out", "import", "clean", "caption", "pack", "report")


@dataclass(frozen=True)
class Step:
    """One command with its arguments."""

    name: str
    command: Any
    arguments: list[str]

    def check(self) -> None:
        """Parses the arguments without running the command.

        Raises:
            ValueError: The command does not take them.
        """
        try:
            self.command.make_context(self.name, list(self.arguments))
        except _UsageError as error:
            raise ValueError(f"{self.name}: {error.format_message()}") from None

    def run(self) -> None:
        """Runs the command.

        Raises:
            ValueError: The command refuses, or ends with an error.
        """
        try:
            code = self.command.main(list(self.arguments), prog_name=self.name, standalone_mode=False)
        except _UsageError as error:
            raise ValueError(f"{self.name}: {error.format_message()}") from None
        if code:
            raise ValueError(f"{self.name} ended with exit code {code}; what it said stands above")


def steps(plan: dict[str, Any], engine: str, workers: int | None) -> list[Step]:
    """The steps of a plan, in their order.

    Args:
        plan: The content of the YAML file.
        engine: See `data_tools.engine`.
        workers: See `data_tools.engine`.

    Raises:
        ValueError: A key is unknown or missing, or an entry is not what its command takes.
    """
    # Here, so that worker processes, which import this module again, load what their own step needs and no more.
    from data_tools.captioning.__main__ import app as captioning
    from data_tools.clean.__main__ import main as clean
    from data_tools.importers.__main__ import app as importers
    from data_tools.pack import main as pack
    from data_tools.report.__main__ import main as report

    if not isinstance(plan, dict) or set(plan) - set(_KEYS):
        unknown = sorted(map(str, set(plan) - set(_KEYS))) if isinstance(plan, dict) else [repr(plan)[:40]]
        raise ValueError(f"unknown: {', '.join(unknown)}; a plan has {', '.join(_KEYS)}")
    if not isinstance(plan.get("out"), str) or not isinstance(plan.get("import"), list) or not plan["import"]:
        raise ValueError("a plan needs `out`, a folder, and `import`, a list of sources")
    out = Path(plan["out"])
    shared = {"engine": engine, **({"workers": workers} if workers else {})}
    found = []
    for number, entry in enumerate(plan["import"], start=1):
        found.append(_of_group(f"import {number}", importers, "kind", entry, ["sources"], out / "imported", shared))
    data = out / "imported"
    found.append(_step("clean", get_command(application(clean)), plan.get("clean"), [data], out / "clean", shared))
    data = out / "clean"
    for number, entry in enumerate(plan.get("caption") or [], start=1):
        target = out / f"captioned-{number}"
        found.append(_of_group(f"caption {number}", captioning, "step", entry, [], target, shared, [data]))
        data = target
    found.append(_step("pack", get_command(application(pack)), plan.get("pack"), [data], out / "shards", shared))
    page = {"title": out.name} | shared
    found.append(
        _step("report", get_command(application(report)), plan.get("report"), [data], out / "report.html", page)
    )
    for step in found:
        step.check()
    return found


def _of_group(
    name: str,
    app: typer.Typer,
    choice: str,
    entry: Any,
    lists: list[str],
    out: Path,
    shared: dict[str, Any],
    before: list[Path] | None = None,
) -> Step:
    """The step of an entry whose key `choice` names a command of a group."""
    group: Any = get_command(app)
    if not isinstance(entry, dict) or entry.get(choice) not in group.commands:
        raise ValueError(f"{name}: it needs `{choice}`, one of {', '.join(sorted(group.commands))}")
    options = {key: value for key, value in entry.items() if key not in (choice, *lists)}
    places = [*(before or []), *(path for key in lists for path in _listed(entry.get(key)))]
    return _step(f"{name} ({entry[choice]})", group.commands[entry[choice]], options, places, out, shared)


def _step(name: str, command: Any, options: Any, places: list[Any], out: Path, shared: dict[str, Any]) -> Step:
    """A step of a command: its sources, its output and the options of its entry."""
    if not isinstance(options or {}, dict):
        raise ValueError(f"{name}: its options must be a mapping such as `min_pages: 4`, not {options!r:.60}")
    known = {parameter.name: parameter for parameter in command.params if parameter.param_type_name == "option"}
    arguments = [str(place) for place in places]
    chosen = {key: value for key, value in shared.items() if key in known} | {"out": str(out)} | (options or {})
    for key, value in chosen.items():
        if key not in known:
            choice = ", ".join(sorted(key for key in known if key not in ("help", "out", *shared)))
            raise ValueError(f"{name}: there is no option {key!r}; there are {choice}")
        arguments += _argument(known[key], value)
    return Step(name, command, arguments)


def _argument(option: Any, value: Any) -> list[str]:
    """An option as it stands on the command line."""
    flag = option.opts[0]
    if option.is_flag:
        return [flag] if value else option.secondary_opts[:1]
    if isinstance(value, dict):
        value = [f"{name}={share}" for name, share in value.items()]
    if option.multiple:
        return [word for one in _listed(value) for word in (flag, str(one))]
    return [flag, *map(str, _listed(value))]


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


@command
def main(*, plan: Annotated[Path, typer.Argument(metavar="PLAN", help="The YAML file.")], running: Running) -> None:
    """Build a data set by a plan: import, clean, caption where asked for, pack, and report.

    Example: python -m data_tools.build configs/data/storybooks.yaml --engine processes

    The plan's folder `out` gets imported/, clean/, captioned-N/, shards/ and report.html. A killed run
    resumes, and the same sources give the same bytes.
    """
    try:
        with open(plan, encoding="utf-8") as file:
            todo = steps(yaml.safe_load(file), running.engine, running.workers)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{plan}: {error}") from None
    console = Console(soft_wrap=True)
    times = Table("step", "seconds", box=None, pad_edge=False)
    times.columns[1].justify = "right"
    start = time.perf_counter()
    for step in todo:
        console.rule(step.name, align="left")
        begin = time.perf_counter()
        step.run()
        times.add_row(step.name, f"{time.perf_counter() - begin:.1f}")
    times.add_row("all", f"{time.perf_counter() - start:.1f}")
    console.rule("done", align="left")
    console.print(times)


if __name__ == "__main__":
    application(main)()
