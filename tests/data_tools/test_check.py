"""A check names file, line and field of every fault, in folders and in shards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_tools.check import check
from data_tools.pack import pack
from tests.data_tools.image_data import change, drawing, write_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", {name: [drawing(ord(name)), drawing(ord(name) + 50)] for name in "abcd"})


def found(path: Path, **options) -> list[tuple]:
    return [(fault.file, fault.line, fault.field) for fault in check(path, **options).faults]


def test_a_sound_folder_and_its_shards_have_no_fault(data, tmp_path):
    Image.new("L", (160, 120), 1).save(data / "mask.png")
    change(data, "a", pages=[{"mask": "mask.png", "characters": [{"name": "Mia", "box": [0, 0, 160, 120]}]}, None])
    write_data(data, {"v": [drawing(7)]}, "val")
    verdict = check(data)
    assert (verdict.kind, verdict.stories, verdict.pages, verdict.faults) == ("data set folder", 5, 9, [])
    for layout in ("webdataset", "parquet"):
        pack(data, tmp_path / layout, layout=layout)
        verdict = check(tmp_path / layout)
        assert (verdict.kind, verdict.stories, verdict.pages, verdict.faults) == (f"{layout} shards", 5, 9, [])


def test_faults_of_a_folder(data):
    change(data, "a", images=["images/a/0.png", "../../x.png"], orders=[3, 1])
    change(data, "b", images=["images/b/0.png", "images/b/7.png"], pages=[None, {"time": [3.0, 1.0], "mask": "m.png"}])
    pages = [{"characters": [{"name": "A", "box": [0, 0, 9, 9]}, {"name": "B", "box": [100, 0, 161, 9]}]}, None]
    change(data, "c", pages=pages)
    (data / "images/d/1.png").write_bytes((data / "images/d/1.png").read_bytes()[:-500])
    drawing(1).save(data / "images/d/0.png", "GIF")
    with open(data / "train.jsonl", "ab") as file:
        file.write(b'{"id": "a", "images": [], "captions": []}\n')
        file.write(b'{"id": "e", "images": ["a.png"], "captions": []}\n\xff\n')
    (data / "drops.jsonl").write_text("7\n")
    assert found(data, engine="processes", workers=2) == [
        ("train.jsonl", 1, "orders"),
        ("train.jsonl", 1, "images[1]"),
        ("train.jsonl", 2, "images[1]"),
        ("train.jsonl", 2, "pages[1].mask"),
        ("train.jsonl", 2, "pages[1].time"),
        ("train.jsonl", 3, "pages[0].characters[1].box"),
        ("train.jsonl", 4, "images[0]"),
        ("train.jsonl", 4, "images[1]"),
        ("train.jsonl", 5, "id"),
        ("train.jsonl", 5, "images"),
        ("train.jsonl", 6, "captions"),
        ("train.jsonl", 7, ""),
        ("drops.jsonl", None, ""),
    ]
    assert ("train.jsonl", 4, "images[1]") not in found(data, decode=False)  # damage behind the header


def test_faults_of_shards(data, tmp_path):
    shards = tmp_path / "shards"
    index, _ = pack(data, shards, shard_size=100_000)
    assert len(index.shards) >= 3
    first, second, third = (shards / shard.name for shard in index.shards[:3])
    content = bytearray(first.read_bytes())
    content[index.shards[0].stories[0][1] + 5] ^= 1  # within the name of a member
    first.write_bytes(content)
    second.unlink()
    third.write_bytes(b"")
    faults = check(shards).faults
    places = [(fault.file, fault.line) for fault in faults]
    assert places[:3] == [(first.name, None), (first.name, 1), (second.name, None)]
    assert "has changed since it was packed" in faults[0].message
    assert {fault.file for fault in faults} == {first.name, second.name, third.name}
    (shards / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="no index of shards"):
        check(shards)


def test_faults_of_parquet(data, tmp_path):
    index, _ = pack(data, tmp_path / "shards", layout="parquet")
    path = tmp_path / "shards" / index.shards[0].name
    path.write_bytes(path.read_bytes()[:-1000])
    faults = check(tmp_path / "shards").faults
    assert [(fault.file, fault.line) for fault in faults] == [(path.name, None)] * 2


def test_the_command(data, tmp_path):
    command = [sys.executable, "-m", "data_tools.check"]
    done = subprocess.run([*command, str(data)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(": ", 1)[1]) == (0, "data set folder, 4 stories, 8 pages, no faults\n")
    change(data, "b", images=["images/b/0.png", "[red]gone.png"])
    done = subprocess.run([*command, str(data)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith("train.jsonl, line 2, story b, images[1]: ")
    assert "[red]gone.png" in done.stdout
    done = subprocess.run([*command, str(data), "--json"], cwd=ROOT, capture_output=True, text=True)
    (fault,) = json.loads(done.stdout)["faults"]
    assert (done.returncode, fault["line"], fault["field"], fault["story"]) == (1, 2, "images[1]", "b")
    done = subprocess.run([*command, str(tmp_path / "nothing")], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
