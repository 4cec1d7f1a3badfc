"""What the commands share: their options, their form, and how an error ends them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from data_tools.engine import Engine, StepError

ERROR = 2  # exit status of a command that could not do what it was asked for

Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="The data set folder: NAME.jsonl and images.", show_default=False)
]
Out = Annotated[Path, typer.Option("--out", help="The folder to write; made if it is missing.", show_default=False)]
Split = Annotated[str, typer.Option("--split", help="Name of the JSON Lines file.")]
Words = Annotated[tuple[int, int], typer.Option("--words", metavar="MIN MAX", help="Fewest and most words.")]
Temperature = Annotated[float, typer.Option("--temperature", help="0 takes the most likely words.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]


@dataclass(frozen=True, kw_only=True)
class Running:
    """Options that say where a command works; see `data_tools.engine.run`."""

    engine: Annotated[Engine, typer.Option(help="Where to work: this process, local processes, or Ray.")] = "inline"
    workers: Annotated[int | None, typer.Option(min=1, help="Items at the same time. [default: one per core]")] = None


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a function a command for `application`.

    A parameter whose type is a dataclass stands for one option per field. A `ValueError`, `OSError` or `StepError` ends
    the command with one line on stderr, `error: ...`, and exit status 2.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, list[str]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[name]):
            kinds = get_type_hints(hints[name], include_extras=True)
            fields = inspect.signature(hints[name]).parameters
            groups[name] = list(fields)
            parameters += [field.replace(annotation=kinds[key]) for key, field in fields.items()]
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def run(**given: Any) -> None:
        try:
            shared = {name: hints[name](**{key: given.pop(key) for key in keys}) for name, keys in groups.items()}
            function(**given, **shared)
        except (ValueError, OSError, StepError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(ERROR) from None

    parameters.sort(key=lambda parameter: parameter.default is not parameter.empty)  # what must be given goes first
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def application(*commands: Callable[..., None], help: str | None = None) -> typer.Typer:
    """A command line of one command, or of several that are chosen by name."""
    app = typer.Typer(
        help=help,
        add_completion=False,
        no_args_is_help=len(commands) > 1,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    for one in commands:
        app.command()(one)
    return app
