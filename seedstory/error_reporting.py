"""How the `seedstory` command ends when something is wrong: one line that starts with `error:`, and an exit status.

A request that cannot be met ends with 2, a failure of the machine with 1, an interruption with 130. Any other
exception is a bug: one line, a log file, and the traceback with `--debug`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator

import typer
from rich.console import Console

from seedstory import __version__
from seedstory.errors import LostOpeningError, OtherModelError, SeedStoryError, StoryExistsError
from seedstory.io import cache_folder

BAD_REQUEST, FAILED, INTERRUPTED = 2, 1, 130

_REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room: your share of the disk is used up",
    errno.EFBIG: "a limit of this system or disk allows no larger file",
    errno.EROFS: "the disk is read-only: copy the story to another one",
    errno.EACCES: "you may not write there: change the rights, or copy the story",
}


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Turns what a user can put right into one line and exit status 2, and a bug into one line and a log file."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except SeedStoryError as error:
        print_error(one_line(str(error)) + _advice(error))
        raise typer.Exit(BAD_REQUEST) from None
    except OSError as error:
        print_error(machine_error(error))
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        typer.echo("\nStopped: no page was finished.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        _report_bug(error)
        raise typer.Exit(FAILED) from None


def machine_error(error: Exception) -> str:
    """A failure of the machine in one line: what has failed, where, and what to do where that is known."""
    if not isinstance(error, OSError) or error.strerror is None:
        return one_line(str(error))
    place = f": {error.filename}" if error.filename is not None else ""
    advice = _REMEDIES.get(error.errno or 0)
    return one_line(f"{error.strerror}{place}" + (f" ({advice})" if advice else ""))


def _advice(error: SeedStoryError) -> str:
    """What the command line adds to an error of the library."""
    if isinstance(error, StoryExistsError):
        return f" (seedstory continue {error.folder}, or --overwrite)"
    if isinstance(error, OtherModelError):
        return " (--model), or go on with this one (--allow-other-model)"
    if isinstance(error, LostOpeningError):
        return " (seedstory generate ... --overwrite)"
    return ""


def _report_bug(error: Exception) -> None:
    """One line on stderr, and all that a report needs in a log file."""
    if logging.getLogger("seedstory").isEnabledFor(logging.DEBUG):
        Console(stderr=True).print_exception()
    where = "run it with --debug to see where"
    log = cache_folder() / "logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        facts = f"seedstory {__version__}, Python {sys.version}\n{sys.argv}\n\n"
        log.write_text(facts + "".join(traceback.format_exception(error)), "utf-8", "replace")
        where = f"please report it with {log}"
    except OSError:
        pass
    print_error(f"this is a bug in seedstory ({type(error).__name__}: {one_line(str(error))[:200]}); {where}")


def print_error(message: str) -> None:
    """Prints one line on stderr."""
    typer.echo(f"error: {message}", err=True)


def one_line(message: str) -> str:
    """A message without its line breaks."""
    return " ".join(message.split())
