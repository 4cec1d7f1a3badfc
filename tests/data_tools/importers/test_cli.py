"""The importers' command line: what it writes, its last lines, and wrong requests in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_tools.importers.__main__ import app
from tests.data_tools.importers.sources import art, file_of, moving_shot, write, write_epub, write_film, write_pdf

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ("books", "epub", "pdf", "comics", "video", "vistory")


def run(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def shelf(tmp_path):
    """A folder with something for each of four importers, and something broken."""
    book = "".join(f"![{n}](images/{n}.jpg)\n\nPage {n}.\n\n" for n in range(3))
    write(tmp_path / "shelf" / "kite" / "index.md", book)
    for n in range(2):
        write(tmp_path / "shelf" / "kite" / "images" / f"{n}.jpg", file_of(art(n)))
    write_epub(tmp_path / "shelf" / "fox.epub", {"a": "<img src='p.jpg'/><p>Fox.</p>"}, {"p.jpg": file_of(art(3))})
    write(tmp_path / "shelf" / "broken.epub", b"PK")
    write_pdf(tmp_path / "shelf" / "hen.pdf", [{"jpeg": (0, 0, 400, 300, art(4)), "text": [(9, 9, "Hen.")]}])
    write_film(tmp_path / "shelf" / "film.mp4", [*moving_shot(5, 10), *moving_shot(6, 10)])
    return tmp_path / "shelf"


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_all_into_one_folder(shelf, tmp_path):
    out = tmp_path / "out"
    generated = run("books", shelf, "--out", out, "--split", "books", "--license", "CC0", "--source-repo", "here")
    assert generated.exit_code == 0
    assert "1 stories of 1 sources" in generated.output and "missing-picture" in generated.output
    assert run("epub", shelf, "--out", out, "--split", "epub").exit_code == 0
    assert run("pdf", shelf, "--out", out, "--split", "pdf", "--format", "png").exit_code == 0
    assert run("video", shelf, "--out", out, "--split", "film", "--min-pages", 1).exit_code == 0
    assert run("comics", shelf / "kite" / "images", "--out", out, "--split", "comic").exit_code == 0
    (book,) = lines(out / "books.jsonl")
    assert (book["license"], book["source_repo"], book["captions"]) == ("CC0", "here", ["Page 0.", "Page 1."])
    assert [one["captions"] for one in lines(out / "epub.jsonl")] == [["Fox."]]
    assert [one["captions"] for one in lines(out / "pdf.jsonl")] == [["Hen."]]
    assert [one["film"] for one in lines(out / "film.jsonl")] == ["film.mp4"]
    assert [len(one["images"]) for one in lines(out / "comic.jsonl")] == [2]
    assert [one["reason"] for one in lines(out / "drops.jsonl")] == ["missing-picture", "unreadable-book"]
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["books", "SHELF/none", "--out", "OUT"], "is not a folder"),
        (["epub", "SHELF/kite", "--out", "OUT"], "there is no EPUB file"),
        (["comics", "SHELF", "--out", "OUT", "--gutter", "7"], "shares of the page"),
        (["video", "SHELF", "--out", "OUT", "--encoding", "klingon"], "unknown encoding"),
        (["video", "SHELF", "--out", "OUT", "--subtitles", "SHELF/none.srt"], "check the path"),
        (["books", "SHELF", "--out", "SHELF/out"], "lies in the source"),
        (["books", "SHELF", "--out", "OUT", "--split", "../x"], "plain name"),
        (["books", "SHELF", "--out", "OUT", "--engine", "abacus"], "abacus"),
        (["vistory", "SHELF", "--out", "OUT"], "no story.json"),
    ],
)
def test_wrong_requests(shelf, tmp_path, arguments, message):
    named = [one.replace("SHELF", str(shelf)).replace("OUT", str(tmp_path / "out")) for one in arguments]
    generated = run(*named)
    assert generated.exit_code == 2
    assert message in " ".join(generated.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_nothing_imported_is_a_failure(tmp_path):
    write(tmp_path / "in" / "x.pdf", b"%PDF")
    generated = run("pdf", tmp_path / "in", "--out", tmp_path / "out")
    assert generated.exit_code == 1
    assert "unreadable-book" in generated.output


def test_help_shows_an_example():
    for command in COMMANDS:
        generated = run(command, "--help")
        assert f"python -m data_tools.importers {command}" in " ".join(generated.output.split())


def test_it_runs_as_a_module(shelf, tmp_path):
    command = [sys.executable, "-m", "data_tools.importers", "epub", str(shelf), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 stories of 2 sources" in done.stdout
