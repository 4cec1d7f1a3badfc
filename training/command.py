"""The command line of every stage: `--config FILE key=value ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TypeVar

from training.backend import Backend
from training.config import load_config
from training.loop import Interrupted, Stage, train

T = TypeVar("T")


def run_stage(kind: type[T], make: Callable[[T, Backend], Stage], description: str) -> None:
    """Train the stage that `make` builds, as the command line says."""
    run_command(kind, lambda config: train(config, make), description)


def run_command(kind: type[T], run: Callable[[T], object], description: str) -> None:
    """Read a configuration and run it.

    A fault ends with one line and exit code 2, a run that was stopped with 130.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of configs/")
    parser.add_argument("overrides", nargs="*", help="key=value, wins over the file")
    arguments = parser.parse_args()
    try:
        run(load_config(arguments.config, kind, arguments.overrides))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except (Interrupted, KeyboardInterrupt) as stopped:
        print(str(stopped) or "stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(0 if isinstance(stopped, Interrupted) and stopped.on_time else 130)
