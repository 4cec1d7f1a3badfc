"""The command line of every main of `training/`.

Stages, and all else that has a dataclass of settings, share `--config FILE KEY=VALUE...`; their `--help` lists the
settings with what the dataclass says of them. Other mains are functions with options. A fault is one line on stderr
that starts with `error:`, with exit status 2. A run that was stopped has 130, or 0 if its minutes were over.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from training.backend import Backend
from training.config import RunConfig, load_config
from training.loop import Interrupted, Stage, train
from training.recipes import RECIPES, RecipeConfig, recipe_settings_kind

T = TypeVar("T")
C = TypeVar("C", bound=RunConfig)

BAD_REQUEST, INTERRUPTED = 2, 130
WIDTH = 100  # columns of the help


def run_stage(kind: type[C], make: Callable[[C, Backend], Stage], description: str | None) -> None:
    """Train the stage that `make` builds, as the command line says."""
    run_command(kind, lambda config: train(config, make), description)


def run_command(kind: type[T], run: Callable[[T], object], description: str | None) -> None:
    """Read a configuration and run it.

    Args:
        kind: dataclass of the settings, with an `Attributes` section in its docstring.
        run: what is done with them.
        description: for `--help`; the module's docstring, with an example.
    """

    def command(
        config: Annotated[Path, typer.Option(metavar="FILE", help="Settings, a YAML file as in configs/.")],
        overrides: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="KEY=VALUE", help="Settings that win over the file; values are YAML.", show_default=False
            ),
        ] = None,
    ) -> None:
        run(load_config(config, kind, overrides or ()))

    run_function(command, f"{description or ''}\n\nSettings:\n\n{describe_settings(kind)}")


def run_function(function: Callable[..., object], description: str | None) -> None:
    """Run a function with typer's options as the command line says; leaves the process unless all went well."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    )

    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except KeyboardInterrupt:  # of which typer makes an exit status without a word
            raise Interrupted("stopped; the same command goes on from the last checkpoint") from None

    app.command(help=_unwrapped(description or ""))(guarded)
    status: int | None
    try:
        status = app(standalone_mode=False)
    except Interrupted as stopped:
        typer.echo(str(stopped), err=True)
        status = 0 if stopped.on_time else INTERRUPTED
    except (ValueError, OSError) as error:
        status = _complain(str(error))
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer raises for a wrong command line has it
            raise
        status = _complain(f"{error.format_message()} See --help.")
    if status:
        sys.exit(status)


def _complain(message: str) -> int:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return BAD_REQUEST


def _unwrapped(text: str) -> str:
    """Help whose paragraphs click leaves as they are."""
    paragraphs = re.split(r"\n\s*\n", textwrap.dedent(text).strip())
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in paragraphs)


def describe_settings(kind: type[Any]) -> str:
    """The settings of a dataclass, each with its default and what the docstrings say of it, as text."""
    text = "\n".join(_settings(kind))
    if issubclass(kind, RecipeConfig):
        for name in RECIPES:
            text += f"\n\nSettings of recipe_settings, if recipe is {name}:\n\n"
            text += "\n".join(_settings(recipe_settings_kind(name)))
    return text


def _settings(kind: type[Any]) -> Iterator[str]:
    docs = setting_docs(kind)
    shown: dict[str, list[str]] = {}  # names that share a line of the docstring
    for field in dataclasses.fields(kind):
        default = "" if field.default is dataclasses.MISSING else f"={_plain(field.default)}"
        shown.setdefault(docs.get(field.name, ""), []).append(field.name + default)
    for doc, names in shown.items():
        yield textwrap.fill(" ".join(names), WIDTH - 4, initial_indent="  ", subsequent_indent="  ")
        yield textwrap.fill(doc, WIDTH - 4, initial_indent="      ", subsequent_indent="      ")


def _plain(value: object) -> str:
    """A default as YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def setting_docs(kind: type[Any]) -> dict[str, str]:
    """What the `Attributes` of a dataclass and of its bases say, by setting."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("\nAttributes:\n")[2]
        entries = re.findall(r"^    (\w+(?:, \w+)*): (.*(?:\n        .*)*)", section, re.M)
        found |= {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
    return found
