"""The data-set record reads what SEED-Story's layout says, writes it back, and names what is wrong."""

import json
from pathlib import Path

import pytest

from seedstory.storystream import StoryRecord, read_jsonl, write_jsonl

STORYBOOKS = Path(__file__).resolve().parents[3] / "shared" / "data" / "storybooks"


def story(**changes):
    data = {"id": "s-1", "images": ["a.png", "b.png"], "captions": ["One.", "Two."], "orders": [0, 1]}
    data.update(changes)
    return {key: value for key, value in data.items() if value is not ...}


def write_lines(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_round_trip_keeps_known_and_unknown_keys(tmp_path):
    data = story(
        title="Zoé's kite",
        license="CC0",
        credit={"Text": "A"},
        alts=["", "x"],
        pages=[None, {"place": "pond"}],
        mood={"a": [1, None]},
    )
    record = StoryRecord.from_dict(data)
    assert record.extra == {"mood": {"a": [1, None]}}
    assert len(record) == 2
    target = tmp_path / "new" / "train.jsonl"
    assert write_jsonl(target, [record, StoryRecord.from_dict(story())]) == 2
    back = list(read_jsonl(target))
    assert back[0] == record
    assert back[0].to_dict() == data
    assert back[1].to_dict() == story()
    assert "Zoé" in target.read_text(encoding="utf-8")


def test_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "train.jsonl"
    write_jsonl(target, [StoryRecord.from_dict(story())])
    before = target.read_bytes()

    def broken():
        yield StoryRecord.from_dict(story(id="s-2"))
        raise RuntimeError("disk fire")

    with pytest.raises(RuntimeError, match="disk fire"):
        write_jsonl(target, broken())
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captions": ...}, "missing field 'captions'"),
        ({"id": 7}, "field 'id' must be a string, not a number"),
        ({"id": ""}, "field 'id' must not be empty"),
        ({"title": ["x"]}, "field 'title' must be a string, not a list"),
        ({"images": "a.png"}, "field 'images' must be a list of strings, not a string"),
        ({"captions": ["One.", None]}, "field 'captions' must be a list of strings, but entry 1 is null"),
        ({"orders": [0, True]}, "field 'orders' must be a list of integers, but entry 1 is a boolean"),
        ({"orders": [0]}, "field 'orders' has 1 entries, but 'images' has 2"),
        ({"captions": ["One."]}, "field 'captions' has 1 entries, but 'images' has 2"),
        ({"pages": [{}, "x"]}, "field 'pages' must be a list of objects or nulls, but entry 1 is a string"),
        ({"pages": [None]}, "field 'pages' has 1 entries, but 'images' has 2"),
        ({"credit": 3}, "field 'credit' must be an object or a string, not a number"),
        ({"alts": [1, 2]}, "field 'alts' must be a list of strings, but entry 0 is a number"),
    ],
)
def test_fault_messages_name_file_line_and_field(tmp_path, changes, message):
    good, bad = json.dumps(story()).encode(), json.dumps(story(**changes)).encode()
    path = write_lines(tmp_path / "val.jsonl", good, b"", bad)
    with pytest.raises(ValueError) as caught:
        list(read_jsonl(path))
    assert str(caught.value) == f"{path}, line 3: {message}" or message in str(caught.value)
    assert str(caught.value).startswith(f"{path}, line 3: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "\xff"}', "not UTF-8 at byte 8"),
        (b'{"id": ', "not JSON at column"),
        (b"[1]", "a story must be a JSON object, not a list"),
    ],
)
def test_broken_lines(tmp_path, line, message):
    path = write_lines(tmp_path / "val.jsonl", json.dumps(story()).encode(), line)
    with pytest.raises(ValueError, match="line 2: ") as caught:
        list(read_jsonl(path))
    assert message in str(caught.value)


@pytest.mark.skipif(not STORYBOOKS.is_dir(), reason="the storybooks data set is not beside this checkout")
@pytest.mark.parametrize(("name", "count"), [("train", 301), ("val", 29)])
def test_storybooks_round_trip(tmp_path, name, count):
    source = STORYBOOKS / f"{name}.jsonl"
    records = list(read_jsonl(source))
    assert len(records) == count
    write_jsonl(tmp_path / "copy.jsonl", records)
    originals = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    copies = [json.loads(line) for line in (tmp_path / "copy.jsonl").read_text(encoding="utf-8").splitlines()]
    assert copies == originals
