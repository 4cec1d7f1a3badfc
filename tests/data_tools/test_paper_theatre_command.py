"""The commands of the paper theatre: generate, check, annotate."""

import json

import pytest

from tests.data_tools.theatre import run_theatre


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_write_the_bytes_of_one(tmp_path):
    for workers in ("1", "2"):
        what = ["--stories", "2", "--loose-pages", "9", "--size", "32"]
        run_theatre("generate", "--out", tmp_path / workers, "--workers", workers, *what)
    one = files(tmp_path / "1")
    assert len([path for path in one if path.suffix == ".jsonl"]) == 2 and len(one) > 20
    assert one == files(tmp_path / "2")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_page_that_cannot_be_written_ends_with_a_message_and_no_data_set(tmp_path, workers):
    (tmp_path / "images").write_text("in the way")
    said = run_theatre("generate", "--out", tmp_path, "--loose-pages", "3", "--workers", workers, code=2)
    assert "loose-train failed on" in said and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_annotate_writes_what_the_captions_say(tmp_path):
    captions = ["One sunny day in the meadow, there was Pip, a shy fox in a red coat.", "Zoltrix waved."]
    (tmp_path / "story.json").write_text(json.dumps({"pages": [{"caption": caption} for caption in captions]}))
    assert "1 of 2 pages could be read in 1 stories" in run_theatre("annotate", tmp_path)
    read = json.loads((tmp_path / "truth.json").read_text())
    assert [page["scene"] and page["scene"]["place"] for page in read] == ["meadow", None]
    (tmp_path / "story.json").write_text("[]")
    assert "is not a story folder: it has no readable story.json" in run_theatre("annotate", tmp_path, code=2)


@pytest.mark.parametrize("command", ["generate", "check", "annotate"])
def test_every_command_shows_an_example(command):
    assert f"Example: python -m data_tools.paper_theatre {command} " in run_theatre(command, "--help")
