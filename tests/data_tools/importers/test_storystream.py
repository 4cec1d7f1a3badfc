"""Stories that have the layout already come through as they are, under names of their own."""

from functools import partial

import pytest
from PIL import Image

from data_tools.check import check
from data_tools.importers.run_import import Metadata, Target, run_import
from data_tools.importers.storystream import convert, find
from seedstory.storystream import StoryRecord, read_jsonl
from tests.data_tools.image_data import change, content, drawing, write_data


def test_records_and_images_are_kept(tmp_path):
    data = write_data(tmp_path / "data", {"a": [drawing(1), drawing(2)], "b c": [drawing(3)]}, mood="calm")
    Image.new("L", (160, 120), 1).save(data / "m.png")
    pages = [{"place": "pond", "characters": [{"name": "Mia", "mask": "m.png"}]}, {"mask": "gone.png"}]
    change(data, "a", pages=pages, orders=[4, 7], license="CC0")
    target = Target(tmp_path / "out", "films", facts=Metadata(license="CC-BY 4.0", language="en"))
    count, tally = run_import(convert, find([data]), target)
    assert (count, tally.counts()) == (2, {"unreadable-mask": 1})
    before = list(read_jsonl(data / "train.jsonl"))
    after = list(read_jsonl(tmp_path / "out" / "films.jsonl"))
    assert [record.license for record in after] == ["CC0", "CC-BY 4.0"]
    assert after[0].orders == [4, 7]
    assert after[0].pages[0]["place"] == "pond"
    assert after[0].pages[1] == {}
    for old, new in zip(before, after, strict=True):
        assert (new.id, new.captions, new.extra) == (old.id, old.captions, {"mood": "calm"})
        for one, other in zip(old.images, new.images, strict=True):
            assert (data / one).read_bytes() == (tmp_path / "out" / other).read_bytes()
    assert check(tmp_path / "out").faults == []
    first = content(tmp_path / "out")
    run_import(convert, find([data / "train.jsonl"]), target, engine="processes", workers=2)
    assert content(tmp_path / "out") == first
    run_import(partial(convert, prefix="x-"), find([data]), target)
    assert [record.id for record in read_jsonl(tmp_path / "out" / "films.jsonl")] == ["x-a", "x-b c"]


def test_images_may_lie_apart_from_their_stories(tmp_path):
    data = write_data(tmp_path / "data", {"x": [drawing(1), drawing(2)]})
    (tmp_path / "stories").mkdir()
    line = b'{"id": 3, "images": ["x/0.png", "x/1.png"], "captions": ["One.", "Two."]}'
    (tmp_path / "stories/val.jsonl").write_bytes(line)
    assert run_import(convert, find([tmp_path / "stories"]), Target(tmp_path / "none"))[0] == 0
    found = find([tmp_path / "stories"], data / "images")
    assert run_import(convert, found, Target(tmp_path / "out"))[0] == 1
    (record,) = read_jsonl(tmp_path / "out/train.jsonl")
    assert (tmp_path / "out" / record.images[1]).read_bytes() == (data / "images/x/1.png").read_bytes()
    with pytest.raises(ValueError, match="there is no folder .*nowhere: name the one in which the images' paths start"):
        find([data], tmp_path / "nowhere")


def test_released_lines_and_broken_ones(tmp_path):
    data = write_data(tmp_path / "data", {"x": [drawing(1), drawing(2), drawing(3)]})
    released = b'{"id": 17, "images": ["images/x/0.png", "images/x/1.png"], "captions": ["One.", "Two."]}'
    hostile = b'{"id": "h", "images": ["../data/images/x/0.png", "/etc/passwd"], "captions": ["", ""]}'
    (data / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n\n".join([released, b"\xff", hostile]))
    drawing(2).save(data / "images/x/1.png", "GIF")
    count, tally = run_import(convert, find([data]), Target(tmp_path / "out"))
    assert count == 1
    assert [(drop.story, drop.page, drop.reason) for drop in tally] == [
        ("train.jsonl, line 3", None, "broken-line"),
        ("h", 0, "unreadable-picture"),
        ("h", 1, "unreadable-picture"),
        ("h", None, "no-pages"),
    ]
    (record,) = read_jsonl(tmp_path / "out" / "train.jsonl")
    assert isinstance(record, StoryRecord)
    assert (record.id, record.orders) == ("17", [0, 1])
    assert record.images == ["images/train/000001-17/000.png", "images/train/000001-17/001.png"]
    with Image.open(tmp_path / "out" / record.images[1]) as image:
        assert image.format == "PNG"


def test_paths_made_on_windows_are_read_and_stay_inside(tmp_path):
    data = write_data(tmp_path / "data", {"a": [drawing(1), drawing(2)]})
    Image.new("L", (160, 120), 1).save(data / "m.png")
    (tmp_path / "outside.png").write_bytes((data / "m.png").read_bytes())
    (record,) = read_jsonl(data / "train.jsonl")
    images = [path.replace("/", "\\") for path in record.images]
    pages = [{"mask": ".\\m.png", "characters": [{"name": "Mia", "mask": "images\\..\\..\\outside.png"}]}, None]
    change(data, "a", images=images, pages=pages)
    assert any("importers storystream" in fault.message for fault in check(data).faults)
    target = Target(tmp_path / "out")
    count, tally = run_import(convert, find([data]), target)
    assert count == 1 and tally.counts() == {"unreadable-mask": 1}
    (new,) = read_jsonl(tmp_path / "out/train.jsonl")
    assert [(tmp_path / "out" / path).read_bytes() for path in new.images] == [
        (data / path).read_bytes() for path in record.images
    ]
    change(data, "a", images=["..\\outside.png", "C:\\outside.png"], pages=None)
    assert run_import(convert, find([data]), Target(tmp_path / "none"))[0] == 0
