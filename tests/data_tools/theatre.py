"""The command line of the paper theatre, run in this process, and its stories read back."""

from pathlib import Path

from typer.testing import CliRunner

from data_tools.paper_theatre.__main__ import app
from data_tools.paper_theatre.chapters import LongStory
from data_tools.paper_theatre.reader import Reader
from data_tools.paper_theatre.script import ScriptedPage
from data_tools.paper_theatre.stories import OPENING_BEAT, GeneratedStory


def has_open_beginning(story: GeneratedStory | LongStory) -> bool:
    return story.beats[0] == OPENING_BEAT


def reader_of(story: GeneratedStory | LongStory) -> tuple[Reader, tuple[ScriptedPage, ...]]:
    """A reader that has the story's cast and its open beginning, if it has one, and the pages that are left to read."""
    reader = Reader({member.name: member.appearance for member in story.cast})
    if not has_open_beginning(story):
        return reader, story.pages
    reader.begin(story.pages[0].scene, story.pages[0].spans)
    return reader, story.pages[1:]


def run_theatre(*arguments: str | Path, code: int = 0) -> str:
    """Runs a command, which must end with the exit code; what it printed."""
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "250", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output
