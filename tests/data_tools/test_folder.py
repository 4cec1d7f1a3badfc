"""Story files are read behind their broken lines, and paths stay inside the folder."""

import json

import pytest

from data_tools import folder
from data_tools.folder import image_path, read_lines, story_files

GOOD = json.dumps({"id": "s", "images": ["a.png"], "captions": ["One."], "orders": [0]}).encode()


def test_broken_lines_are_distinguished_and_reading_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MAX_LINE", 5000)
    bad = [
        b'{"id": "\xff"}',
        b"{",
        b"7",
        b'{"id": "x"}',
        b"[" * 4000,
        b"x" * 12_000,
        b'{"id": "\\ud800"}',
        b'{"id": "\\ud83d\\ude00"}',
    ]
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n\n".join([GOOD, *bad, GOOD]) + b"\n")
    lines = list(read_lines(path))
    assert [line.record is not None for line in lines] == [True] + [False] * len(bad) + [True]
    assert [line.number for line in lines] == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    faults = ["not UTF-8 at byte 8", "not JSON at column", "must be a JSON object", "missing field 'images'"]
    faults += ["nested too deeply", "longer than", "half a surrogate pair", "missing field"]
    for line, fault in zip(lines[1:-1], faults, strict=True):
        assert fault in line.fault
    assert lines[1].where == "train.jsonl, line 3"


def test_story_files(tmp_path):
    for name in ("val.jsonl", "train.jsonl", "drops.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in story_files(tmp_path)] == ["train.jsonl", "val.jsonl"]
    with pytest.raises(ValueError, match="there is no folder"):
        story_files(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no NAME.jsonl"):
        story_files(tmp_path / "empty")


@pytest.mark.parametrize("path", ["../a.png", "/a.png", "a/../../b.png", "C:/a.png", "a\\b.png", "", "a\0.png"])
def test_paths_that_leave_the_folder(path):
    with pytest.raises(ValueError, match="does not stay inside"):
        image_path(path)


def test_paths_must_look_like_images():
    assert str(image_path("images/./s 1/é.PNG")) == "images/s 1/é.PNG"
    with pytest.raises(ValueError, match="does not end like a picture"):
        image_path("train.jsonl")
