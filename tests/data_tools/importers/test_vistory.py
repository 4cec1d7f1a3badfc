"""ViStoryBench: scripts with references, with a method's pictures, and broken ones."""

import json

import pytest

from data_tools.importers.run_import import Target
from data_tools.importers.vistory import convert, find
from tests.data_tools.importers.sources import art, check_stored, file_of, reasons, stored, write

STORY = {
    "Story_type": {"en": "Fable", "ch": "寓言"},
    "Characters": {
        "Fox": {
            "name_en": "Mia",
            "name_ch": "米娅",
            "prompt_en": "a red fox",
            "prompt_ch": "红狐狸",
            "tag": "non_human",
        },
        "Ann": {
            "name_en": "Ann",
            "name_ch": "安",
            "prompt_en": "a girl",
            "prompt_ch": "女孩",
            "tag": "realistic_human",
        },
    },
    "Shots": [
        {
            "index": n,
            "Plot Correspondence": {"en": f"plot {n}", "ch": "情节"},
            "Setting Description": {"en": "a wood", "ch": "森林"},
            "Shot Perspective Design": {"en": "wide", "ch": "广角"},
            "Characters Appearing": {"en": ["Fox"], "ch": ["米娅"]},
            "Static Shot Description": {"en": "Mia runs", "ch": "跑"},
        }
        for n in (1, 2)
    ],
}


def bench(tmp_path, story=STORY):
    text = story if isinstance(story, bytes) else json.dumps(story, ensure_ascii=False).encode("utf-8-sig")
    write(tmp_path / "ViStory" / "01" / "story.json", text)
    for n in range(2):
        write(tmp_path / "ViStory" / "01" / "image" / "Fox" / f"0{n}.jpg", file_of(art(n)))
    return tmp_path / "ViStory"


def test_references(tmp_path):
    target = Target(tmp_path / "out")
    (source,) = find([bench(tmp_path)])
    done = convert(source, target)
    (record,) = done.records
    assert (record.id, record.language, record.captions) == ("vistory-01", "en", ["a red fox", "a red fox"])
    assert record.pages[0] == {"characters": [{"name": "Mia", "tag": "non_human"}], "reference": "Fox"}
    assert [stored(target, path) for path in record.images] == [file_of(art(0)), file_of(art(1))]
    assert record.extra["shots"][1] == {
        "index": 2,
        "plot": "plot 2",
        "setting": "a wood",
        "camera": "wide",
        "description": "Mia runs",
        "characters": ["Fox"],
    }
    assert record.extra["story_type"] == "Fable"
    assert reasons(done.drops) == ["missing-picture"]  # Ann has none
    check_stored(done, target)


def test_chinese(tmp_path):
    (record,) = convert(find([bench(tmp_path)])[0], Target(tmp_path / "out"), language="ch").records
    assert (record.language, record.captions[0], record.extra["shots"][0]["plot"]) == ("zh", "红狐狸", "情节")


@pytest.mark.parametrize("name", ["shots/shot_02.png", "02.png", "shots/2.png"])
def test_images_of_a_method(tmp_path, name):
    write(tmp_path / "outputs" / "01" / name, file_of(art(5), "PNG"))
    write(tmp_path / "outputs" / "01" / name.replace("2.png", "x.png"), b"not numbered")
    (source,) = find([bench(tmp_path)], tmp_path / "outputs")
    done = convert(source, Target(tmp_path / "out"), shots=True)
    (record,) = done.records
    assert record.captions == ["plot 2"]
    page = {"characters": [{"name": "Fox"}], "setting": "a wood", "camera": "wide", "description": "Mia runs"}
    assert record.pages == [page]
    assert [(drop.reason, drop.detail) for drop in done.drops] == [("missing-picture", "shot 1")]


@pytest.mark.parametrize(
    "story",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"Shots": [], "Characters": []}',
        b'{"Shots": [{}], "Characters": {}}',
        b'{"Shots": [{"index": "x"}], "Characters": {}}',
        b"[" * 100_000,
    ],
)
def test_broken_stories_are_counted(tmp_path, story):
    (source,) = find([bench(tmp_path, story)])
    done = convert(source, Target(tmp_path / "out"))
    assert (done.records, reasons(done.drops)) == ([], ["unreadable-story"])


def test_a_character_is_no_path(tmp_path):
    write(tmp_path / "secret" / "1.jpg", file_of(art(9)))
    character = STORY["Characters"]["Fox"]
    names = ["../../../secret", str(tmp_path / "secret"), "..", ".", "a\0b"]
    folder = bench(tmp_path, STORY | {"Characters": dict.fromkeys(names, character)})
    done = convert(find([folder])[0], Target(tmp_path / "out"))
    assert done.records == []
    assert set(reasons(done.drops)) == {"missing-picture", "no-pages"}


def test_find_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="check the path"):
        find([tmp_path / "x"])
    with pytest.raises(ValueError, match=r"no story\.json"):
        find([tmp_path])
