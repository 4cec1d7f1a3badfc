"""Only regular files of bounded size are read, and JSON of bounded depth."""

import json
import os
from pathlib import Path

import pytest

from seedstory.io import inside, open_regular, parse_json, read_json, read_regular


def test_reads_a_plain_file_and_a_link_to_one(tmp_path):
    (tmp_path / "a").write_bytes(b"words")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_regular(tmp_path / "a", limit=5) == read_regular(tmp_path / "link", limit=5) == b"words"
    with open_regular(tmp_path / "a") as file:
        assert file.read(2) == b"wo" and file.seek(-1, 2) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_refuses_pipes_devices_folders_and_large_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"0" * 11)
    for path, reason in {
        tmp_path / "pipe": "not a plain file",
        Path("/dev/zero"): "not a plain file",
        tmp_path: "is a folder",
        tmp_path / "large": "too large: 11 bytes, at most 10",
        tmp_path / "none": "there is no file",
        tmp_path / "a\0b": "cannot read",
    }.items():
        with pytest.raises(ValueError, match=reason) as caught:
            read_regular(path, limit=10)
        assert "\n" not in str(caught.value)


def test_json_is_bounded(tmp_path):
    good = {"a": [1, {"b": None}], "c": "ü 🦊"}
    (tmp_path / "good.json").write_text(json.dumps(good), "utf-8")
    assert read_json(tmp_path / "good.json") == good
    for text, reason in {
        "[" * 100_000: "nested too deeply",
        "[" * 70 + "]" * 70: "nested too deeply",
        "{": "not valid JSON",
        "": "not valid JSON",
        '{"a": NaN}': "NaN is not JSON",
        '"\\ud800"': "lone surrogate",
        '{"\\ud800": 1}': "lone surrogate",
        b"\xff\xfe": "is not UTF-8",
        "9" * 10_000: "not valid JSON",
    }.items():
        with pytest.raises(ValueError, match=reason) as caught:
            parse_json(text, "x.json")
        assert str(caught.value).startswith("x.json") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/../b", "/a", "a//b", "a\\b", "C:a", "a\nb", "a/", 7, None])
def test_unsafe_names(name):
    with pytest.raises(ValueError, match="unsafe split"):
        inside(Path("there"), name, "split")


def test_safe_names():
    assert inside(Path("there"), "pages/1.png") == Path("there/pages/1.png")
