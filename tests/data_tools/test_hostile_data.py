"""Data sets and shards that mean harm: a fault in one line, in no time and little memory, and nothing outside."""

import json
import os
import shutil
from pathlib import Path

import pytest

from data_tools import check as module
from data_tools.check import check
from data_tools.pack import pack
from data_tools.report.facts import gather
from data_tools.unpack import unpack
from seedstory.shards import BLOCK, Index, ShardReader
from seedstory.storystream import read_jsonl
from tests.data_tools import test_unpack
from tests.data_tools.test_unpack import contents, png, rogue_shards  # noqa: F401 - png is a fixture

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders"),
]


def make_data(folder: Path, png: bytes) -> Path:  # noqa: F811
    """Two stories in one split; both show a.png, and one has the mask m.png."""
    test_unpack.make_data(folder, png)
    (folder / "val.jsonl").unlink()
    return folder


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("put", [pipe, device, folder])
@pytest.mark.parametrize("victim", ["images/a.png", "images/m.png"])
def test_an_image_that_is_no_plain_file_is_a_fault(tmp_path, png, put, victim):  # noqa: F811
    data = make_data(tmp_path / "data", png)
    put(data / victim)
    faults = [str(fault) for fault in check(data).faults]
    assert len(faults) == (2 if victim == "images/a.png" else 1)
    assert all("plain file" in fault or "is a folder" in fault or "leads out" in fault for fault in faults)
    _, tally = pack(data, tmp_path / "shards")
    assert sum(tally.counts().values()) == len(faults)
    assert gather(data)


@pytest.mark.parametrize("put", [pipe, device])
@pytest.mark.parametrize(
    "act",
    [
        check,
        lambda data: pack(data, data.parent / "shards"),
        gather,
        lambda data: list(read_jsonl(data / "train.jsonl")),
    ],
    ids=["check", "pack", "report", "read"],
)
def test_a_story_file_that_is_no_plain_file_is_refused(tmp_path, png, put, act):  # noqa: F811
    data = make_data(tmp_path / "data", png)
    put(data / "train.jsonl")
    with pytest.raises(ValueError, match="train.jsonl is not a plain file"):
        act(data)


@pytest.mark.parametrize("put", [pipe, device])
@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_shards_that_are_no_plain_files_are_refused(tmp_path, png, put, layout):  # noqa: F811
    pack(make_data(tmp_path / "data", png), tmp_path / "shards", layout=layout)
    shard = next((tmp_path / "shards").glob("train-*"))
    put(shard)
    faults = check(tmp_path / "shards").faults
    assert [fault.file for fault in faults] == [shard.name] * len(faults)
    assert "is not a plain file" in faults[0].message
    with pytest.raises(ValueError, match="not a plain file"):
        unpack(tmp_path / "shards", tmp_path / "out")
    if layout == "webdataset":
        with pytest.raises(ValueError, match="not a plain file"):
            ShardReader(tmp_path / "shards")
    put(tmp_path / "shards/index.json")
    with pytest.raises(ValueError, match="not a plain file"):
        Index.read(tmp_path / "shards")


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500, b'{"format": NaN}', b"\xff", b"5"]
)
def test_an_index_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(ValueError, match="is no index of shards") as error:
        check(tmp_path)
    assert "\n" not in str(error.value)


def test_a_shard_is_checked_with_little_of_it_in_memory(tmp_path, png, monkeypatch):  # noqa: F811
    size = 600 * 2**20
    shards = rogue_shards(tmp_path / "shards", [({"id": "a", "images": ["a.png"], "captions": [""]}, png)])
    index = json.loads((shards / "index.json").read_text("utf-8"))
    index["shards"][0] |= {"bytes": size, "stories": [["a", 0, size - 2 * BLOCK, 1]]}
    (shards / "index.json").write_text(json.dumps(index), "utf-8")
    os.truncate(shards / "train-000000.tar", size)
    largest, pread = 0, os.pread

    def counted(file: int, length: int, at: int) -> bytes:
        nonlocal largest
        largest = max(largest, length)
        return pread(file, length, at)

    monkeypatch.setattr(os, "pread", counted)
    messages = [fault.message for fault in check(shards).faults]
    assert any("has changed since it was packed" in message for message in messages)
    assert any("no plain member" in message for message in messages)
    assert 0 < largest < 2**20


@pytest.mark.parametrize("path", ["../evil.png", "/evil.png", "C:\\evil.png", "evil.py", "a/../../evil.png"])
@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_paths_that_leave_the_folder_are_faults_inside_shards_too(tmp_path, png, path, layout):  # noqa: F811
    if layout == "webdataset":
        shards = rogue_shards(tmp_path / "shards", [({"id": "a", "images": [path], "captions": [""]}, png)])
    else:
        pack(make_data(tmp_path / "data", png), tmp_path / "shards", layout="parquet")
        shards = tmp_path / "shards"
        _rename_in_parquet(shards, path)
    faults = check(shards).faults
    assert faults and any(fault.field == "images[0]" for fault in faults)
    before = set(contents(tmp_path))
    if layout == "webdataset":
        assert unpack(shards, tmp_path / "out").counts() == {"unsafe-path": 1}
        assert set(contents(tmp_path)) - before == {"out/drops.jsonl", "out/train.jsonl"}


def _rename_in_parquet(shards: Path, path: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next(shards.glob("train-*.parquet"))
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0]["images"][0]["path"] = path
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


def test_a_bomb_of_a_parquet_file_is_refused_by_its_numbers(tmp_path, png, monkeypatch):  # noqa: F811
    pack(make_data(tmp_path / "data", png), tmp_path / "shards", layout="parquet")
    monkeypatch.setattr("data_tools.parquet.MAX_GROUP", 100)
    assert any("group of rows" in fault.message for fault in check(tmp_path / "shards").faults)


def test_the_check_needs_no_shard_that_is_gone(tmp_path, png):  # noqa: F811
    pack(make_data(tmp_path / "data", png), tmp_path / "shards")
    shutil.rmtree(tmp_path / "data")
    next((tmp_path / "shards").glob("train-*")).unlink()
    assert [fault.message for fault in module.check(tmp_path / "shards").faults] == [
        "there is no file shard train-000000.tar: check the path"
    ]
