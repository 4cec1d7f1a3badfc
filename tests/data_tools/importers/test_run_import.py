"""A run over many sources: resuming, engines, ids, and stories in the making."""

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_tools.drops import Drop, Tally
from data_tools.importers.run_import import (
    Imported,
    Metadata,
    RecordBuilder,
    Source,
    Target,
    clean_text,
    license_name,
    natural_key,
    run_import,
    slug,
    unique_ids,
)
from seedstory.storystream import read_jsonl
from tests.data_tools.importers.sources import art, file_of, reasons, stored, write


def make(source: Source, target: Target, log=None, stop="") -> Imported:
    """An importer of text files: one page per line, whose number is the seed of its picture."""
    if log is not None:
        with open(log, "a") as file:
            file.write(source.id + "\n")
    if source.id == stop:
        raise KeyboardInterrupt
    story = RecordBuilder(source.id, target)
    for line in source.path.read_text().split():
        story.add(file_of(art(int(line)), "PNG"), f"page {line}", source=line)
    return story.finish(Metadata(title=source.id))


def sources(tmp_path, count=4):
    texts = [write(tmp_path / "in" / f"s{n}.txt", f"{n} {n + 1}") for n in range(count)]
    return [Source(path.stem, path) for path in texts]


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path):
    found = sources(tmp_path)
    whole, killed = Target(tmp_path / "whole"), Target(tmp_path / "killed")
    assert run_import(make, found, whole)[0] == 4
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        run_import(partial(make, log=log, stop="s2"), found, killed)
    assert not (killed.out / "train.jsonl").exists()
    log.unlink()
    with pytest.raises(KeyboardInterrupt):
        run_import(partial(make, log=log, stop="s2"), found, killed)
    assert log.read_text().split() == ["s2"]  # s0 and s1 were done
    write(found[0].path, "0 1 ")  # a source that changed is read again
    log.unlink()
    with pytest.raises(KeyboardInterrupt):
        run_import(partial(make, log=log, stop="s2"), found, killed)
    assert log.read_text().split() == ["s0", "s2"]
    write(killed.out / ".train.jsonl.0123abcd.tmp", "half")  # what a run leaves that is killed by SIGKILL
    run_import(make, found, killed)
    assert contents(killed.out) == contents(whole.out)


def test_every_engine_gives_the_same_bytes(tmp_path):
    found = sources(tmp_path, 3)
    inline, processes = Target(tmp_path / "a"), Target(tmp_path / "b")
    run_import(make, found, inline)
    run_import(make, found, processes, engine="processes", workers=2)
    assert contents(inline.out) == contents(processes.out)


def test_a_bad_source_is_counted(tmp_path):
    found = sources(tmp_path, 3)
    write(found[1].path, "1 x")
    count, tally = run_import(make, found, Target(tmp_path / "out"))
    assert (count, tally.counts()) == (2, {"import-failed": 1})
    assert Tally.read(tmp_path / "out").drops == [Drop("s1", None, "import-failed", tally.drops[0].detail)]
    write(found[1].path, "1")
    other = Target(tmp_path / "out", split="val")
    run_import(make, found[:1], other)  # another split in the same folder does not forget the drops of the first
    assert len(Tally.read(tmp_path / "out")) == 1


def test_a_shorter_story_leaves_no_old_images(tmp_path):
    (source,) = sources(tmp_path, 1)
    target = Target(tmp_path / "out")
    write(source.path, "1 2 3")
    run_import(make, [source], target)
    write(source.path, "7")
    run_import(make, [source], target)
    assert [p.name for p in target.out.rglob("*.png")] == ["000.png"]


def test_pages_of_a_story(tmp_path):
    target = Target(tmp_path, facts=Metadata(license="CC0", title="never used"))
    story = RecordBuilder("s", target)
    jpeg, webp, gif = (file_of(art(1), kind) for kind in ("JPEG", "WEBP", "GIF"))
    assert story.add(jpeg, " two\n words\u0000 ", source="a", alt="x")
    assert story.add(webp, source="b", panel=[0, 0, 9, 9])
    assert story.add(gif, source="c")
    assert story.add(art(2), source="d")
    assert not story.add(jpeg[:500], source="e")
    assert not story.add(b"", source="f")
    assert not story.add(Image.new("RGB", (60, 300)), source="g", min_side=64)
    done = story.finish(Metadata(title="T"), film="x\udcff.mp4", nothing=None)
    (record,) = done.records
    assert [path.rpartition(".")[2] for path in record.images] == ["jpg", "webp", "png", "jpg"]
    assert (stored(target, record.images[0]), stored(target, record.images[1])) == (jpeg, webp)
    assert record.captions == ["two words", "", "", ""]
    assert record.pages == [None, {"panel": [0, 0, 9, 9]}, None, None]
    assert (record.title, record.license, record.extra) == ("T", "CC0", {"film": "x?.mp4"})
    assert reasons(done.drops) == ["unreadable-picture", "unreadable-picture", "too-small"]
    assert [drop.page for drop in done.drops] == [4, 5, 6]
    assert RecordBuilder("empty", target).finish(Metadata()).records == []


def test_split_is_a_plain_name(tmp_path):
    for split in ("../x", "a/b", "", ".hidden"):
        with pytest.raises(ValueError, match="plain name"):
            Target(tmp_path, split)


@given(st.lists(st.text(max_size=30), max_size=20))
def test_ids_are_safe_and_different(names):
    ids = unique_ids(names)
    assert len(set(ids)) == len(names)
    assert all(set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and one.strip("-") for one in ids)


@given(st.text())
def test_text_is_clean(text):
    clean = clean_text(text)
    assert clean == clean_text(clean) == " ".join(clean.split())
    json.dumps(clean, ensure_ascii=False).encode()


def test_small_things():
    assert slug("  Zoë's Kite! ") == "zoe-s-kite"
    assert sorted(["p10", "p2", "P1", "p"], key=natural_key) == ["p", "P1", "p2", "p10"]
    assert license_name("[CC-BY]") == "CC-BY"
    assert license_name("see http://creativecommons.org/licenses/by-nc-sa/3.0/") == "CC-BY-NC-SA 3.0"
    assert license_name("https://creativecommons.org/publicdomain/zero/1.0/") == "CC0 1.0"
    assert license_name("https://creativecommons.org/publicdomain/mark/1.0/") == "Public domain"
    assert license_name(" ") is None


def test_records_can_be_read_back(tmp_path):
    target = Target(tmp_path / "out", split="val")
    count, _ = run_import(make, sources(tmp_path, 2), target)
    assert [record.id for record in read_jsonl(target.out / "val.jsonl")] == ["s0", "s1"][:count]
