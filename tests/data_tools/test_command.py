"""Every command shows an example, and ends with one line where it cannot do what it was asked for."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from data_tools import benchmark, build, check, pack, unpack
from data_tools.captioning.__main__ import app as captioning
from data_tools.clean.__main__ import main as clean
from data_tools.command import Running, application, command
from data_tools.engine import StepError
from data_tools.importers.__main__ import app as importers
from data_tools.report.__main__ import main as report

MODULES = {"benchmark": benchmark, "build": build, "check": check, "pack": pack, "unpack": unpack}
SINGLE = {name: application(module.main) for name, module in MODULES.items()}
SINGLE |= {"clean": application(clean), "report": application(report)}


def run(app: typer.Typer, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300", "TERM": "dumb"})
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("name", SINGLE)
def test_every_command_shows_an_example(name: str) -> None:
    assert f"Example: python -m data_tools.{name} " in run(SINGLE[name], "--help")[1]


@pytest.mark.parametrize("name", ["captioning", "importers"])
def test_every_command_of_a_group_shows_an_example(name: str) -> None:
    app = {"captioning": captioning, "importers": importers}[name]
    for one in get_command(app).commands:
        assert f"Example: python -m data_tools.{name} {one} " in run(app, one, "--help")[1]


@dataclass(frozen=True, kw_only=True)
class Options(Running):
    name: Annotated[str, typer.Option(help="What to say.")]
    times: int = 2


@command
def say(*, loud: bool = False, fault: str = "", shared: Options) -> None:
    if fault:
        raise {"value": ValueError, "step": StepError, "file": OSError, "bug": TypeError}[fault]("it is\nbroken")
    typer.echo(f"{shared.name * shared.times} {loud} {shared.engine} {shared.workers}")


def test_a_dataclass_stands_for_its_options() -> None:
    assert run(application(say), "--name", "a", "--loud", "--workers", "3") == (0, "aa True inline 3")
    assert run(application(say))[0] == 2  # --name is missing
    assert run(application(say), "--name", "a", "--workers", "0")[0] == 2


@pytest.mark.parametrize("fault", ["value", "step", "file"])
def test_a_fault_is_one_line_and_status_2(fault: str) -> None:
    result = CliRunner().invoke(application(say), ["--name", "a", "--fault", fault])
    assert (result.exit_code, result.stderr, result.stdout) == (2, "error: it is broken\n", "")


def test_a_bug_is_no_fault_of_the_user() -> None:
    result = CliRunner().invoke(application(say), ["--name", "a", "--fault", "bug"])
    assert isinstance(result.exception, TypeError)
