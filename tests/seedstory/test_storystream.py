"""The data-set record reads what SEED-Story's layout says, writes it back, and names what is wrong."""

import json
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ({"id": 7.5}, "field 'id' must be a string, not a number"),
        ({"id": True}, "field 'id' must be a string, not a boolean"),
        ({"id": ""}, "field 'id' must not be empty"),
        ({"title": ["x"]}, "field 'title' must be a string, not a list"),
        ({"images": "a.png"}, "field 'images' must be a list of strings, not a string"),
        ({"captions": ["One.", None]}, "field 'captions' must be a list of strings, but entry 1 is null"),
        ({"orders": [0, True]}, "field 'orders' must be a list of integers, but entry 1 is a boolean"),
        ({"orders": [0, -1]}, "field 'orders' must hold places from 0 upwards"),
        ({"orders": [0]}, "field 'orders' has 1 entries, but 'images' has 2"),
        ({"captions": ["One."]}, "field 'captions' has 1 entries, but 'images' has 2"),
        ({"pages": [{}, "x"]}, "field 'pages' must be a list of objects or nulls, but entry 1 is a string"),
        ({"pages": [None]}, "field 'pages' has 1 entries, but 'images' has 2"),
        ({"credit": 3}, "field 'credit' must be an object or a string, not a number"),
        ({"alts": [1, 2]}, "field 'alts' must be a list of strings, but entry 0 is a number"),
        ({"language": 1}, "field 'language' must be a string, not a number"),
        ({"pages": [None, {"description": 1}]}, "field 'pages[1].description' must be a string, not a number"),
        ({"pages": [{"panel": [0, 0, 9]}, None]}, "field 'pages[0].panel' must be a list of four numbers"),
        ({"pages": [{"time": [1]}, None]}, "field 'pages[0].time' must be two numbers, start and end in seconds"),
        ({"pages": [{"characters": ["Mia"]}, None]}, "'pages[0].characters' must be a list of objects"),
        (
            {"pages": [{"characters": [{"box": None}]}, None]},
            "field 'pages[0].characters[0].box' must be a list of four",
        ),
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
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id": NaN}', "not JSON: NaN is no JSON number"),
        (b'{"id": "\\ud83d"}', "half a surrogate pair"),
        (b'{"id": ' + b"9" * 5000 + b"}", "digits"),
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


def test_released_lines_are_read_as_they_are():
    # A line of the released archives, and one of its ten-page chunks, which lost its orders.
    line = {"id": 258, "images": ["000258/000258_keyframe_0-19-49-688.jpg"], "captions": ["George."], "orders": [0]}
    record = StoryRecord.from_json(json.dumps(line))
    assert (record.id, record.orders) == ("258", [0])
    del line["orders"]
    assert StoryRecord.from_json(json.dumps(line)) == record


def test_masks_are_listed_once_in_page_order():
    pages = [None, {"mask": "m/1.png", "characters": [{"name": "Mia"}, {"name": "Tom", "mask": "m/tom.png"}]}]
    again = {"characters": [{"mask": "m/1.png"}]}
    record = StoryRecord.from_dict(
        story(images=["a", "b", "c"], captions=[""] * 3, orders=[0, 1, 2], pages=[*pages, again])
    )
    assert record.masks() == [(1, "m/1.png"), (1, "m/tom.png")]


text = st.text(st.characters(codec="utf-8"), max_size=8)
number = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaf = st.none() | st.booleans() | number | text
anything = st.recursive(leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=3))
SHOWN = ("name", "description", "coreference", "box", "mask", "panel", "time", "characters")
LISTS = ("images", "captions", "orders", "alts", "pages")


def mostly(good, bad=anything):
    """Right nine times of ten, so that most stories come far into the checks."""
    return st.integers(0, 9).flatmap(lambda n: bad if n == 0 else good)


box = mostly(st.lists(number, min_size=4, max_size=4))
shown = st.recursive(
    st.just({}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "name": mostly(text),
            "description": mostly(text),
            "coreference": anything,
            "box": box,
            "panel": box,
            "mask": mostly(text),
            "time": mostly(st.lists(number, min_size=2, max_size=2) | text),
            "characters": mostly(st.lists(mostly(inner), max_size=2)),
            "weather": anything,
        },
    ),
    max_leaves=4,
)


@st.composite
def stories(draw):
    """JSON objects that are stories, or nearly."""
    length = draw(st.integers(0, 3))

    def pages(item):
        return st.lists(item, min_size=length, max_size=length)

    required = {"id": mostly(text | st.integers()), "images": mostly(pages(mostly(text))), "captions": pages(text)}
    optional = {
        "orders": mostly(pages(mostly(st.integers(0, 2**53 - 1) | st.just(1.0), number))),
        "alts": mostly(pages(mostly(text)) | st.none()),
        "pages": mostly(pages(mostly(shown | st.none()))),
        "credit": mostly(st.dictionaries(text, text, max_size=2) | text),
        "mood": anything,
    } | {key: mostly(text | st.none()) for key in ("title", "license", "language", "source_repo")}
    data = draw(st.fixed_dictionaries(required, optional=optional))
    if draw(st.integers(0, 9)) == 0:
        data.pop(draw(st.sampled_from(sorted(data))))
    return data


SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "storystream.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def name(value) -> str:
    return value if isinstance(value, str) else str(int(value))


def lengths_agree(data) -> bool:
    return len({len(data[key]) for key in LISTS if data.get(key) is not None}) == 1


@settings(max_examples=600)
@given(stories())
def test_the_schema_and_the_reader_agree_and_records_survive(data):
    line = json.dumps(data)
    valid = VALIDATOR.is_valid(data) and lengths_agree(data)
    try:
        record = StoryRecord.from_json(line)
    except ValueError:
        assert not valid
        return
    assert valid
    assert StoryRecord.from_json(record.to_json()) == record
    kept = {key: value for key, value in data.items() if value is not None or key not in SCHEMA["properties"]}
    assert record.to_dict() == {"orders": list(range(len(record)))} | kept | {"id": name(data["id"])}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == {f.name for f in fields(StoryRecord)} - {"extra"}
    assert set(SCHEMA["$defs"]["shown"]["properties"]) == set(SHOWN)
