"""The command line of the paper theatre, run in this process."""

from pathlib import Path

from typer.testing import CliRunner

from data_tools.paper_theatre.__main__ import app


def run_theatre(*arguments: str | Path, code: int = 0) -> str:
    """Runs a command, which must end with the exit code; what it printed."""
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "250", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output
