"""Packing loses nothing, gives the same bytes always, survives being killed, and leaves out what cannot be read."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import typer
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from data_tools import pack as module
from data_tools.drops import Tally
from data_tools.pack import byte_size, pack
from data_tools.parquet import from_row
from seedstory.shards import Index, ShardReader
from seedstory.storystream import StoryRecord, read_jsonl, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
STORYBOOKS = ROOT.parent / "shared" / "data" / "storybooks"
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def image(seed: int, kind: str = "PNG", side: int = 24) -> bytes:
    buffer = io.BytesIO()
    noise = random.Random(seed).randbytes(3 * side * side)
    Image.frombytes("RGB", (side, side), noise).save(buffer, kind)
    return buffer.getvalue()


def make_data(folder: Path, stories: int = 6, pages: int = 3, name: str = "train") -> Path:
    """A data set of noise in all formats that are kept, with a mask a story."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(stories):
        images = []
        for page in range(pages):
            suffix = list(FORMATS)[(number + page) % 3]
            images.append(f"images/{name}-{number}-{page}.{suffix}")
            (folder / images[-1]).write_bytes(image(100 * number + page, FORMATS[suffix]))
        mask = f"images/{name}-{number}.mask.png"
        (folder / mask).write_bytes(image(number, side=9))
        truth = [{"characters": [{"name": "Mia", "box": [0, 0, 8, 8.5], "mask": mask}]}, *[None] * (pages - 1)]
        records.append(
            StoryRecord(
                id=f"{name}/story no. {number}",
                images=images,
                captions=[f"Page {page} of Zoé's day." for page in range(pages)],
                orders=list(range(pages)),
                title=None if number % 2 else "A day",
                credit={"Text": "A"} if number % 2 else "A and B",
                language="en",
                pages=truth if number % 2 else None,
                extra={"mood": [number, {"a": None}]} if number % 3 else {},
            )
        )
    write_jsonl(folder / f"{name}.jsonl", records)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drops(folder: Path) -> list[tuple[str, int | None, str]]:
    return [(drop.story, drop.page, drop.reason) for drop in Tally.read(folder)]


def assert_same_as(reader: ShardReader, data: Path, records: list[StoryRecord]) -> None:
    assert reader.ids == [record.id for record in records]
    for story, record in zip(reader, records, strict=True):
        assert story.record == record
        assert story.images == [(data / path).read_bytes() for path in record.images]
        assert story.masks == {path: (data / path).read_bytes() for _, path in record.masks()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(make_data(tmp_path / "data"), 2, name="val")


def test_shards_give_back_the_data_set(tmp_path, data):
    index, tally = pack(data, tmp_path / "out", shard_size=20_000)
    assert len(tally) == 0 and len(index.shards) > 3
    assert all(shard.bytes <= 20_480 for shard in index.shards)
    for split in ("train", "val"):
        reader = ShardReader(tmp_path / "out", split)
        assert reader.verify() == []
        assert_same_as(reader, data, list(read_jsonl(data / f"{split}.jsonl")))
    assert reader[1].image(2).size == (24, 24)
    assert sorted(contents(tmp_path / "out")) == ["index.json", *(shard.name for shard in index.shards)]


def test_webdataset_gives_a_story_a_sample(tmp_path, data):
    index, _ = pack(data, tmp_path / "out", shard_size=20_000)
    names = [str(tmp_path / "out" / shard.name) for shard in index.shards if shard.split == "train"]
    samples = list(webdataset.WebDataset(names, shardshuffle=False, empty_check=False))
    stories = list(ShardReader(tmp_path / "out", "train"))
    assert [StoryRecord.from_json(sample["json"]) for sample in samples] == [story.record for story in stories]
    for sample, story in zip(samples, stories, strict=True):
        assert sample["__key__"] == story.key
        pages = [name for name in sorted(sample) if re.fullmatch(r"\d+\.(jpg|png|webp)", name)]
        assert [sample[name] for name in pages] == story.images
    (decoded, *_) = webdataset.WebDataset(names, shardshuffle=False).decode("pil")
    assert decoded["json"]["id"] == "train/story no. 0" and decoded["001.png"].size == (24, 24)


def test_parquet_gives_back_the_data_set_through_datasets(tmp_path, data):
    index, _ = pack(data, tmp_path / "out", layout="parquet", shard_size=20_000)
    files = {
        split: [str(tmp_path / "out" / shard.name) for shard in index.shards if shard.split == split]
        for split in ("train", "val")
    }
    assert len(files["train"]) > 1
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert loaded["train"][0]["images"][1].size == (24, 24)
    kept = datasets.List(datasets.Image(decode=False))
    for split in files:
        rows = loaded[split].cast_column("images", kept).cast_column("masks", kept)
        records = list(read_jsonl(data / f"{split}.jsonl"))
        assert [from_row(row) for row in rows] == records
        for row, record in zip(rows, records, strict=True):
            for column, paths in (("images", record.images), ("masks", [path for _, path in record.masks()])):
                assert [image["bytes"] for image in row[column]] == [(data / path).read_bytes() for path in paths]


def test_the_released_layout_is_packed_as_it_is(tmp_path):
    """A story of 30 frames, and its three chunks of ten as `chunk_data.py` writes them: one id, no orders."""
    names = [f"000258/000258_keyframe_0-19-{page:02d}-688.jpg" for page in range(30)]
    (tmp_path / "000258").mkdir()
    for page, name in enumerate(names):
        (tmp_path / name).write_bytes(image(page, "JPEG"))
    captions = [f"George looks at page {page}." for page in range(30)]
    whole = {"id": 258, "images": names, "captions": captions, "orders": list(range(30))}
    chunks = [{"id": 258, "images": names[at : at + 10], "captions": captions[at : at + 10]} for at in range(0, 30, 10)]
    (tmp_path / "val.jsonl").write_text(json.dumps(whole) + "\n")
    (tmp_path / "train_10.jsonl").write_text("".join(json.dumps(chunk) + "\n" for chunk in chunks))
    _, tally = pack(tmp_path, tmp_path / "out")
    assert len(tally) == 0
    assert [len(story.images) for story in ShardReader(tmp_path / "out", "val")] == [30]
    train = list(ShardReader(tmp_path / "out", "train_10"))
    assert [story.key for story in train] == ["000000-258", "000001-258", "000002-258"]
    assert [story.record.captions for story in train] == [chunk["captions"] for chunk in chunks]
    assert [story.record.orders for story in train] == [list(range(10))] * 3


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
anything = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))


@st.composite
def stories(draw):
    pages = draw(st.integers(0, 3))

    def each(item):
        return st.lists(item, min_size=pages, max_size=pages)

    page = st.none() | st.dictionaries(text.filter(lambda key: key not in module_keys), anything, max_size=2)
    optional = {
        "title": text,
        "license": text,
        "language": text,
        "credit": text | st.dictionaries(text, text, max_size=2),
        "alts": each(text),
        "pages": each(page),
        "extra": anything,
        "mood": anything,
        "images2": anything,
    }
    required = {"id": text.filter(bool), "captions": each(text), "orders": each(st.integers(0, 2**53 - 1))}
    data = draw(st.fixed_dictionaries(required, optional=optional))
    kinds = [draw(st.sampled_from([*FORMATS])) for _ in range(pages)]
    return StoryRecord.from_dict(data | {"images": [f"{n}.{kind}" for n, kind in enumerate(kinds)]})


module_keys = {"name", "description", "characters", "coreference", "box", "mask", "panel", "time"}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(stories(), min_size=1, max_size=4), st.sampled_from([1, 2_000, 10**6]))
def test_any_record_survives_both_layouts(tmp_path_factory, records, shard_size):
    folder = tmp_path_factory.mktemp("any")
    for page in range(3):
        for suffix, kind in FORMATS.items():
            (folder / f"{page}.{suffix}").write_bytes(image(page, kind, 8))
    write_jsonl(folder / "train.jsonl", records)
    index, tally = pack(folder, folder / "tar", shard_size=shard_size)
    assert len(tally) == 0 and len(index.shards) == (len(records) if shard_size == 1 else len(index.shards))
    assert_same_as(ShardReader(folder / "tar"), folder, records)
    index, _ = pack(folder, folder / "parquet", layout="parquet", shard_size=shard_size)
    rows = [row for shard in index.shards for row in pq.read_table(folder / "parquet" / shard.name).to_pylist()]
    assert [from_row(row) for row in rows] == records


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
@pytest.mark.parametrize("engine", ["inline", "processes", "ray"])
def test_every_run_and_engine_gives_the_same_bytes(tmp_path, data, layout, engine):
    if engine == "ray":
        pytest.importorskip("ray.data", reason="Ray is not installed (extra `ray`)")
    (data / "images/train-2-1.jpg").write_bytes(b"broken")
    pack(data, tmp_path / "plain", layout=layout, shard_size=20_000)
    pack(data, tmp_path / "other", layout=layout, shard_size=20_000, engine=engine, workers=2)
    assert contents(tmp_path / "plain") == contents(tmp_path / "other")
    pack(data, tmp_path / "other", layout=layout, shard_size=20_000)  # over a finished pack
    assert contents(tmp_path / "plain") == contents(tmp_path / "other")


KILLED = """
import os, signal, sys
from pathlib import Path
from data_tools.pack import pack
replace, left = os.replace, int(sys.argv[3])
def replace_or_die(source, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = replace_or_die
pack(Path(sys.argv[1]), Path(sys.argv[2]), shard_size=20_000)
"""


@pytest.mark.parametrize("survived", [0, 1, 2, 5, 6])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, data, survived):
    pack(data, tmp_path / "plain", shard_size=20_000)
    out = tmp_path / "killed"
    assert run_and_die(data, out, survived) == -signal.SIGKILL
    with pytest.raises(ValueError, match="there is no .*index.json"):
        ShardReader(out)
    done = {path: path.stat().st_ino for path in out.glob("*.tar")}
    assert len(done) == survived // 2  # one move for the settings, then each shard is moved, then noted
    pack(data, out, shard_size=20_000)
    kept = [path for path, inode in done.items() if path.stat().st_ino == inode]
    assert len(kept) >= (survived - 1) // 2
    assert contents(out) == contents(tmp_path / "plain")


def run_and_die(data: Path, out: Path, survived: int) -> int:
    """Packs in a process that is killed in place of its next move of a file, after so many."""
    command = [sys.executable, "-c", KILLED, str(data), str(out), str(survived)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True).returncode


def test_a_resumed_run_sees_that_an_image_has_changed(tmp_path, data):
    out = tmp_path / "out"
    run_and_die(data, out, 5)
    (data / "images/train-0-0.jpg").write_bytes(image(999, "JPEG"))
    pack(data, out, shard_size=20_000)
    pack(data, tmp_path / "plain", shard_size=20_000)
    assert contents(out) == contents(tmp_path / "plain")


def test_what_cannot_be_packed_is_left_out_and_counted(tmp_path):
    data = make_data(tmp_path / "data", 11, 2)
    secret = tmp_path / "secret.png"
    secret.write_bytes(image(1))
    good = [json.loads(line) for line in (data / "train.jsonl").read_text("utf-8").splitlines()]
    good[1]["images"][0] = "../secret.png"
    good[2]["images"][1] = str(secret)
    good[3]["images"][0] = "images/none.png"
    (data / good[4]["images"][0]).write_bytes(b"")
    (data / good[5]["images"][1]).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    (data / good[6]["images"][0]).write_bytes(huge_png(30_000, 30_000))
    os.unlink(data / good[7]["images"][1])
    os.mkfifo(data / good[7]["images"][1])
    (data / good[7]["pages"][0]["characters"][0]["mask"]).write_bytes(b"GIF89a")
    (data / "elsewhere").symlink_to(tmp_path)
    good[9]["images"][0] = "elsewhere/secret.png"
    (data / "link.png").symlink_to(secret)
    good[10]["images"][0] = "link.png"
    lines = [json.dumps(story).encode() for story in good]
    lines[3:3] = [b'{"id": "\xff"}', b"[" * 10**5, b'{"id": "x", "images": ["a"], "captions": []}', b""]
    (data / "train.jsonl").write_bytes(b"\n".join(lines))
    index, tally = pack(data, tmp_path / "out")
    assert ShardReader(tmp_path / "out").ids == ["train/story no. 0", "train/story no. 8"]
    assert drops(tmp_path / "out") == [
        ("train/story no. 1", 0, "unsafe-path"),
        ("train/story no. 2", 1, "unsafe-path"),
        ("train.jsonl, line 4", None, "broken-line"),
        ("train.jsonl, line 5", None, "broken-line"),
        ("train.jsonl, line 6", None, "broken-line"),
        ("train/story no. 3", 0, "missing-picture"),
        ("train/story no. 7", 1, "unreadable-picture"),
        ("train/story no. 9", 0, "unsafe-path"),
        ("train/story no. 10", 0, "unsafe-path"),
        ("train/story no. 4", 0, "unreadable-picture"),
        ("train/story no. 5", 1, "unreadable-picture"),
        ("train/story no. 6", 0, "unreadable-picture"),
    ]
    assert list(tally) == list(Tally.read(tmp_path / "out"))


def huge_png(width: int, height: int) -> bytes:
    data = bytearray(image(0))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(data)


def test_a_shard_of_which_nothing_is_left_does_not_appear(tmp_path):
    data = make_data(tmp_path / "data", 1)
    (data / "images/train-0-0.jpg").write_bytes(b"broken")
    index, tally = pack(data, tmp_path / "out")
    assert index.shards == [] and tally.counts() == {"unreadable-picture": 1}
    assert sorted(contents(tmp_path / "out")) == ["drops.jsonl", "index.json"]
    assert Index.read(tmp_path / "out") == index


def invoke(*arguments):
    app = typer.Typer()
    app.command()(module.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_packs_and_says_what_it_did(tmp_path, data):
    (data / "images/train-2-1.jpg").write_bytes(b"broken")
    result = invoke(data, "--out", tmp_path / "out", "--shard-size", "1 MiB")
    assert result.exit_code == 0
    assert "7 stories, 21 pages, 2 shards" in " ".join(result.output.split())
    assert "unreadable-picture" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "out"], "no folder nowhere"),
        (["data", "--out", "out", "--shard-size", "big"], "'big' is no size"),
        (["data", "--out", "out", "--engine", "threads"], "engine"),
        (["data", "--out", "data"], "is not empty and holds no shards"),
        (["data", "--out", "packed", "--shard-size", "2MB"], "of another data set or other settings"),
        (["data", "--out", "file"], "is not a folder"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_code_2(tmp_path, monkeypatch, data, arguments, message):
    monkeypatch.chdir(tmp_path)
    pack(data, tmp_path / "packed")
    (tmp_path / "file").write_text("")
    before = contents(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2 and message in " ".join(re.sub(r"[│╭╰─╮╯]", " ", result.output).split())
    assert contents(tmp_path) == before


def test_odd_names_of_splits_are_refused(tmp_path, data):
    (data / "val.jsonl").rename(data / "a b.jsonl")
    with pytest.raises(ValueError, match="names a split 'a b'"):
        pack(data, tmp_path / "out")


def test_sizes():
    assert [byte_size(text) for text in ("256MB", "1.5 GiB", "7", "10kb")] == [256_000_000, 1610612736, 7, 10_000]
    for text in ("", "MB", "-1MB", "1XB", "0"):
        with pytest.raises(ValueError, match="is no size"):
            byte_size(text)


@pytest.mark.skipif(not STORYBOOKS.is_dir(), reason="the storybooks data set is not beside this checkout")
def test_the_storybooks_survive(tmp_path):
    _, tally = pack(STORYBOOKS, tmp_path / "out", shard_size=8_000_000)
    assert len(tally) == 0
    for split in ("train", "val"):
        records = list(read_jsonl(STORYBOOKS / f"{split}.jsonl"))
        assert_same_as(ShardReader(tmp_path / "out", split), STORYBOOKS, records)
