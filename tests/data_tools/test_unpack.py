"""Unpacking gives back the data set folder, and writes nothing outside the one it is told to write."""

import hashlib
import io
import json
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from data_tools import unpack as module
from data_tools.pack import pack
from data_tools.unpack import unpack
from seedstory.shards import BLOCK, ShardReader, padded, tar_header
from seedstory.storystream import StoryRecord, write_jsonl


def make_data(folder: Path, png: bytes) -> Path:
    (folder / "images").mkdir(parents=True)
    for name in ("a", "b", "m"):
        (folder / f"images/{name}.png").write_bytes(png)
    record = {"images": ["images/a.png", "images/b.png"], "captions": ["One.", "Two."], "orders": [0, 1]}
    pages = [{"mask": "images/m.png"}, None]
    stories = [StoryRecord(id="one", pages=pages, extra={"mood": 1}, **record), StoryRecord(id="two", **record)]
    write_jsonl(folder / "train.jsonl", stories)
    write_jsonl(folder / "val.jsonl", stories[:1])
    return folder


@pytest.fixture
def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, "PNG")
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_the_data_set_folder_comes_back(tmp_path, png, layout):
    data = make_data(tmp_path / "data", png)
    pack(data, tmp_path / "shards", layout=layout)
    assert len(unpack(tmp_path / "shards", tmp_path / "back")) == 0
    assert contents(tmp_path / "back") == contents(data)
    with pytest.raises(ValueError, match="is there already"):
        unpack(tmp_path / "shards", tmp_path / "back")


def rogue_shards(folder: Path, stories: list[tuple[dict, bytes]]) -> Path:
    """Shards with records that no packer would let in."""
    folder.mkdir(parents=True)
    data, places = b"", []
    for number, (record, png) in enumerate(stories):
        begin = len(data)
        for name, content in ((f"{number:06d}.json", json.dumps(record).encode()), (f"{number:06d}.000.png", png)):
            data += tar_header(name, len(content)) + content + bytes(padded(len(content)) - len(content))
        places.append([record["id"], begin, len(data) - begin, 1])
    data += bytes(2 * BLOCK)
    shard = {"name": "train-000000.tar", "split": "train", "bytes": len(data), "stories": places}
    shard["sha256"] = hashlib.sha256(data).hexdigest()
    index = {"format": "seedstory shards 1", "layout": "webdataset", "source": {}, "shards": [shard]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "train-000000.tar").write_bytes(data)
    return folder


def test_nothing_is_written_outside_the_folder(tmp_path, png):
    paths = ["../evil.png", "/evil.png", f"{tmp_path}/evil.png", "a/../../evil.png", "C:\\evil.png", "evil.py", ""]
    paths += ["ok.png", "ok.png/in.png", "n\0.png", "o" * 300 + ".png"]
    stories = [({"id": f"s{n}", "images": [path], "captions": [""]}, png) for n, path in enumerate(paths)]
    stories.append(({"id": "other", "images": ["ok.png"], "captions": [""]}, png[:-1]))
    tally = unpack(rogue_shards(tmp_path / "in/shards", stories), tmp_path / "in/out")
    assert tally.counts() == {"unsafe-path": len(stories) - 1}
    assert set(contents(tmp_path)) == {
        "in/shards/index.json",
        "in/shards/train-000000.tar",
        "in/out/drops.jsonl",
        "in/out/ok.png",
        "in/out/train.jsonl",
    }
    assert json.loads((tmp_path / "in/out/train.jsonl").read_text())["id"] == "s7"


def test_a_changed_shard_leaves_no_folder(tmp_path, png):
    pack(make_data(tmp_path / "data", png), tmp_path / "shards")
    shard = tmp_path / "shards/train-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"000001-two", b"000001-tow"))
    with pytest.raises(ValueError, match="train-000000.tar has changed since it was packed"):
        unpack(tmp_path / "shards", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_command_says_what_is_wrong(tmp_path, png):
    app = typer.Typer()
    app.command()(module.main)
    pack(make_data(tmp_path / "data", png), tmp_path / "shards")
    assert CliRunner().invoke(app, [str(tmp_path / "shards"), "--out", str(tmp_path / "back")]).exit_code == 0
    result = CliRunner().invoke(app, [str(tmp_path / "data"), "--out", str(tmp_path / "more")])
    assert result.exit_code == 2 and "pack" in result.output


@pytest.mark.parametrize("split", ["../precious", "/precious", "..", "", "a/b", "a\\b", ".hidden", "a\0b", "C:x"])
def test_a_split_is_a_name_and_no_path(tmp_path, png, split):
    shards = rogue_shards(tmp_path / "in/shards", [({"id": "a", "images": ["ok.png"], "captions": [""]}, png)])
    (tmp_path / "in/precious.jsonl").write_text("mine")
    index = json.loads((shards / "index.json").read_text())
    index["shards"][0]["split"] = split
    (shards / "index.json").write_text(json.dumps(index))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="is no name of a split"):
        unpack(shards, tmp_path / "in/out")
    with pytest.raises(ValueError, match="is no name of a split"):
        ShardReader(shards)
    assert contents(tmp_path) == before
