"""A disk that is full or read-only, and two processes on one folder: one line, nothing lost, and it goes on later."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from seedstory.cli import app
from seedstory.export import EXPORTS
from seedstory.io import exclusive_writer, is_leftover
from seedstory.story import StoryFolder
from seedstory.story_editor import StoryEditor
from tests.seedstory.small_disk import contents, disk, fill, read_only

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="limits forked processes")
OPENING = "The fox found a lantern."
QUICK = {"num_inference_steps": 1, "max_caption_tokens": 8}
VERBS = {
    "redo": ["redo", "F", "2", "--seed", "9", "--following", "rewrite", "--model", "M"],
    "edit": ["edit", "F", "3", "--caption", "The mill was dark.", "--model", "M"],
    "insert": ["insert", "F", "3", "--seed", "5", "--model", "M"],
    "continue": ["continue", "F", "--pages", "5", "--seed", "7", "--model", "M"],
    "rename": ["edit", "F", "--title", "The mill"],
    "remove": ["remove", "F", "3"],
    "branch": ["branch", "F", "N"],
    "repeat": ["generate", "--like", "F", "--out", "N"],
    "export html": ["export", "F", "--format", "html"],
}
GO_ON = ["continue", "F", "--model", "M"]
CHANGES = ("redo", "edit", "insert", "continue", "rename", "remove")
# Where a disk ends in the middle of each, in bytes that are left on it.
FULL = [("redo", 4096), ("redo", 12_288), ("redo", 24_576), ("edit", 0), ("insert", 12_288), ("continue", 16_384)]
FULL += [("rename", 8192), ("branch", 16_384), ("repeat", 4096), ("export html", 4096)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process has no other threads
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def begun(pipe, tmp_path_factory) -> Path:
    """A story of four pages."""
    path = tmp_path_factory.mktemp("begun") / "story"
    list(pipe.stream(OPENING, pages=4, seed=3, title="T", out=path, **QUICK))
    return path


def run(verb: str, folder: Path, model: Path, limit: int | None = None) -> tuple[int, str, str]:
    """Runs the command in a process of its own, which may write files of so many bytes at most."""
    places = {"F": str(folder), "M": str(model), "N": f"{folder}-new"}
    words = GO_ON if verb == "go on" else VERBS.get(verb) or ["export", "F", "--format", verb.split()[-1]]
    arguments = [places.get(word, word) for word in words]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            if limit is not None:
                import resource

                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            result = CliRunner().invoke(app, arguments)
            os.write(writer, json.dumps([result.exit_code, result.stdout, result.stderr[-3000:]]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    code, out, err = json.loads(answer)
    return code, out, err


def refused(result: tuple[int, str, str], *words: str) -> None:
    """It ended with one line that says what is wrong."""
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code in (1, 2) and len(lines) == 1 and err.rstrip().splitlines()[-1] == lines[0], result
    assert "bug" not in lines[0] and "Traceback" not in err and len(lines[0]) < 600, result
    assert not words or any(word in lines[0] for word in words), lines[0]


class Case:
    """A verb on a copy of a story, which goes wrong and is then made up for.

    Attributes:
        folder: The copy.
        expected: What it holds in the end, and so does the new folder of the verb if it has one.
    """

    def __init__(self, verb: str, begun: Path, model: Path, place: Path, home: Path) -> None:
        self.verb, self.begun, self.model, self.folder = verb, begun, model, place / "story"
        shutil.copytree(begun, self.folder)
        self.book = self.folder / EXPORTS[verb.split()[-1]].file_name if verb.startswith("export") else None
        if self.book is not None:
            self.book.write_bytes(b"an older book")
        if not (home / verb).exists():
            shutil.copytree(begun, home / verb / "story")
            assert run(verb, home / verb / "story", model)[0] == 0
        self.expected = contents(home / verb)

    def run(self, limit: int | None = None) -> tuple[int, str, str]:
        return run(self.verb, self.folder, self.model, limit)

    def check(self) -> None:
        """Nothing of the story is lost or torn."""
        story = StoryFolder.open(self.folder)
        entries = [*story.entries, *story.history.entries()]
        for old in StoryFolder.open(self.begun).entries:
            assert any((old.id, old.caption, old.files) == (one.id, one.caption, one.files) for one in entries)
        assert contents(self.begun / "pages").items() <= contents(self.folder / "pages").items()
        for index in range(len(story)):
            story.page(index)
        assert self.book is None or self.book.read_bytes() == b"an older book"

    def go_on(self) -> None:
        """It comes to the bytes that it has without the fault."""
        changed = self.verb in CHANGES and StoryFolder.open(self.folder).revision
        new = self.folder.with_name("story-new")
        if changed or (new / "story.json").exists():
            result = run("go on", self.folder if changed else new, self.model)
        else:
            result = self.run()
        assert result[0] == 0, result
        found = contents(self.folder.parent)
        found.pop("filler", None)
        assert found == self.expected


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """What each verb makes when nothing goes wrong."""
    return tmp_path_factory.mktemp("whole")


@pytest.mark.parametrize(("verb", "left"), FULL)
def test_a_full_disk(begun, folder, home, tmp_path, verb, left):
    with disk(tmp_path / "disk") as small:
        case = Case(verb, begun, folder, small, home)
        filler = fill(small, left)
        refused(case.run(), "No space left on device")
        case.check()
        filler.unlink()
        case.go_on()


@pytest.mark.parametrize(
    ("verb", "limit"),
    [("edit", 300), ("branch", 300), ("export html", 300), ("insert", 6000), ("continue", 6000), ("remove", 6000)],
)
def test_a_limit_on_the_size_of_files(begun, folder, home, tmp_path, verb, limit):
    (tmp_path / "place").mkdir()
    case = Case(verb, begun, folder, tmp_path / "place", home)
    refused(case.run(limit), "File too large", "too large")
    case.check()
    case.go_on()


@pytest.mark.parametrize("verb", ["redo", "continue", "branch", "export html"])
def test_a_read_only_disk(begun, folder, home, tmp_path, verb):
    with disk(tmp_path / "disk") as small:
        case = Case(verb, begun, folder, small, home)
        with read_only(small):
            refused(case.run(), "Read-only file system")
            assert contents(case.folder).items() >= contents(begun).items()
        case.check()
        case.go_on()


@pytest.mark.parametrize("verb", ["redo", "insert", "continue", "remove", "branch", "export html"])
def test_a_folder_that_another_process_writes(begun, folder, home, tmp_path, verb):
    (tmp_path / "place").mkdir()
    case = Case(verb, begun, folder, tmp_path / "place", home)
    if verb in ("branch", "repeat"):  # they only read it
        (tmp_path / "place/story-new").mkdir()
    busy = case.folder.with_name("story-new") if verb in ("branch", "repeat") else case.folder
    with exclusive_writer(busy):
        refused(case.run(), "is being written by another")
    case.check()
    case.go_on()


@pytest.mark.parametrize("form", ["pdf", "epub", "cbz", "mp4"])
def test_a_book_that_does_not_fit(begun, folder, tmp_path, form):
    short = StoryEditor(begun).branch(tmp_path / "story", pages=1)
    book = short.path / EXPORTS[form].file_name
    book.write_bytes(b"an older book")
    refused(run(f"export {form}", short.path, folder, limit=300), "large")
    assert book.read_bytes() == b"an older book" and not any(map(is_leftover, short.path.iterdir()))
