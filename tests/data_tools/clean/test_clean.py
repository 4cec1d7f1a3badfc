"""A clean data set holds what the rules want, says what it dropped, and is the same whatever happens on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_tools.clean.rules import Rules
from data_tools.clean.steps import _WORK, clean
from data_tools.drops import Tally
from data_tools.engine import run
from seedstory.storystream import read_jsonl
from tests.data_tools.image_data import caption, change, content, drawing, framed, text_card, write_data

ROOT = Path(__file__).resolve().parents[3]
STORYBOOKS = ROOT.parent / "shared" / "data" / "storybooks"


def reasons(tally: Tally) -> set[tuple[str, int | None, str]]:
    return {(drop.story, drop.page, drop.reason) for drop in tally}


def test_each_rule_drops_what_it_names(tmp_path):
    images = [
        drawing(1),
        drawing(2, (50, 200)),  # too small
        drawing(3, (600, 100)),  # odd shape
        Image.new("RGB", (99, 99), "red"),
        text_card(4),
        drawing(4),
        drawing(5),
        drawing(4).resize((200, 150)),  # the picture of page 5
    ]
    data = write_data(tmp_path / "data", {"a": images, "b": [drawing(6)], "c": [drawing(7), drawing(8)]})
    captions = [caption(n) for n in range(7)] + ["And so on."]
    change(data, "a", captions=captions)
    (data / "images/c/1.png").write_bytes((data / "images/c/1.png").read_bytes()[:200])
    cleaned, tally = clean(data, tmp_path / "out", Rules(min_pages=2))
    assert reasons(tally) == {
        ("a", 1, "too-small"),
        ("a", 2, "odd-shape"),
        ("a", 3, "blank-picture"),
        ("a", 4, "text-card"),
        ("a", 7, "near-duplicate"),
        ("b", None, "too-few-pages"),
        ("c", 1, "unreadable-picture"),
        ("c", None, "too-few-pages"),
    }
    (record,) = read_jsonl(tmp_path / "out" / "train.jsonl")
    assert record.orders == [0, 5, 6]
    assert record.captions == [caption(0), caption(5), caption(6)]
    assert record.language == "en"
    assert cleaned.after == {"train": {"stories": 1, "pages": 3}}
    assert reasons(Tally.read(tmp_path / "out")) == reasons(tally)
    for path in record.images:
        assert (tmp_path / "out" / path).read_bytes() == (data / path).read_bytes()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "clean.json",
        "drops.jsonl",
        "images",
        "train.jsonl",
    ]


def test_a_page_takes_over_the_text_of_its_copy(tmp_path):
    data = write_data(tmp_path / "data", {"a": [drawing(1), drawing(1), drawing(2)]})
    change(data, "a", captions=["She slept.", "She woke.", "She ran."])
    clean(data, tmp_path / "out", Rules())
    (record,) = read_jsonl(tmp_path / "out" / "train.jsonl")
    assert record.captions == ["She slept. She woke.", "She ran."]


def test_bars_are_cut_off_unless_places_are_known(tmp_path):
    wide = framed(drawing(1, (200, 120)), top=40)
    data = write_data(tmp_path / "data", {"a": [wide], "b": [framed(drawing(2, (200, 120)), top=40)]})
    change(data, "b", pages=[{"characters": [{"name": "Mia", "box": [0, 50, 20, 70]}]}])
    cleaned, _ = clean(data, tmp_path / "out", Rules())
    assert cleaned.cropped == 1
    with Image.open(tmp_path / "out/images/a/0.png") as image:
        assert image.size == (200, 120)
    assert (tmp_path / "out/images/b/0.png").read_bytes() == (data / "images/b/0.png").read_bytes()
    _, tally = clean(data, tmp_path / "dropped", Rules(letterbox="drop"))
    assert tally.counts() == {"letterbox": 2, "too-few-pages": 2}
    cleaned, tally = clean(data, tmp_path / "kept", Rules(letterbox="keep"))
    assert (cleaned.cropped, len(tally)) == (0, 0)


@pytest.mark.parametrize(
    ("license", "allowed"),
    [
        ("CC-BY", True),
        ("CC BY 4.0", True),
        ("cc_by-3.0", True),
        ("Public domain", True),
        ("CC-BY-NC", False),
        ("CC-BY-NC 4.0", False),
        ("CC-BY-SA-4.0", False),
        ("CC0-1.0", False),
        (None, False),
    ],
)
def test_licenses(license, allowed):
    assert Rules(licenses=("CC-BY", "public-domain")).allows_license(license) is allowed
    assert Rules().allows_license(license)
    assert Rules(licenses=["CC-BY-4.0"]).allows_license(license) is (license == "CC BY 4.0")


def test_license_and_language_of_a_story(tmp_path):
    data = write_data(tmp_path / "data", {name: [drawing(ord(name))] for name in "abc"}, license="CC-BY")
    change(data, "a", license="CC-BY-NC 4.0")
    change(data, "b", captions=["Le petit chat est sur la table, et la souris danse dans la cuisine avec lui."])
    _, tally = clean(data, tmp_path / "out", Rules(licenses=("CC-BY",), languages=("en",)))
    assert reasons(tally) == {("a", None, "license"), ("b", None, "language")}


def test_what_stories_share(tmp_path):
    card = drawing(99)
    stories = {f"s{n}": [card, drawing(10 * n), drawing(10 * n + 1), drawing(10 * n + 2)] for n in range(1, 5)}
    stories["copy"] = [drawing(11), drawing(12), drawing(500)]
    data = write_data(tmp_path / "data", stories)
    _, tally = clean(data, tmp_path / "out", Rules(max_stories=3, max_overlap=0.5))
    expected = {(f"s{n}", 0, "repeated-picture") for n in range(1, 5)}
    assert reasons(tally) == expected | {("copy", None, "near-duplicate-story")}
    assert "2 of its 3 pictures are those of s1" in list(tally)[-1].detail


def kindred(tmp_path: Path) -> Path:
    """Stories of which 0 to 4 share a picture each with the next; 5 has a text of 6; 7 and 8 are of one film."""
    stories = {f"s{n}": [drawing(10 * n), drawing(10 * n + 1), drawing(10 * n + 10)] for n in range(5)}
    stories |= {f"s{n}": [drawing(10 * n + 5), drawing(10 * n + 6)] for n in range(6, 30)}
    data = write_data(tmp_path / "data", {name: pages for name, pages in stories.items() if name != "s9"})
    write_data(data, {"v": [drawing(40), drawing(900), drawing(901)]}, "val")
    change(data, "s6", captions=[caption(1), "Short."])
    change(data, "s7", captions=["Once.", caption(1).upper()], film="bunny.mp4")
    change(data, "s8", film="bunny.mp4")
    return data


def test_splits_do_not_leak(tmp_path):
    data = kindred(tmp_path)
    cleaned, tally = clean(data, tmp_path / "out", Rules(splits={"train": 0.7, "val": 0.2, "test": 0.1}))
    assert len(tally) == 0
    assert cleaned.largest_group == 6
    home = {}
    for split, count in cleaned.after.items():
        records = list(read_jsonl(tmp_path / "out" / f"{split}.jsonl"))
        assert count["stories"] == len(records) > 0
        home |= {record.id: split for record in records}
    assert len({home[name] for name in ("s0", "s1", "s2", "s3", "s4", "v")}) == 1
    assert len({home[name] for name in ("s6", "s7", "s8")}) == 1
    assert len(home) == 29


def test_kept_splits_are_mended(tmp_path):
    cleaned, _ = clean(kindred(tmp_path), tmp_path / "out", Rules())
    assert cleaned.moved == 1
    assert cleaned.after["val"] == {"stories": 0, "pages": 0}
    assert "v" in {record.id for record in read_jsonl(tmp_path / "out" / "train.jsonl")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set and what comes of it in one go."""
    folder = tmp_path_factory.mktemp("whole")
    data = kindred(folder)
    with open(data / "train.jsonl", "ab") as file:
        file.write(b'{"id": "\xff"}\n{"id": "s0", "images": [], "captions": []}\n')
    clean(data, folder / "out", RULES)
    return data, content(folder / "out")


RULES = Rules(splits={"train": 0.8, "val": 0.2})


def test_processes_give_the_same_bytes(whole, tmp_path):
    data, expected = whole
    clean(data, tmp_path / "out", RULES, engine="processes", workers=2)
    assert content(tmp_path / "out") == expected
    clean(data, tmp_path / "out", RULES)
    assert content(tmp_path / "out") == expected


def test_ray_gives_the_same_bytes(whole, tmp_path):
    pytest.importorskip("ray.data", reason="Ray is not installed (extra `ray`)")
    data, expected = whole
    clean(data, tmp_path / "out", RULES, engine="ray", workers=2)
    assert content(tmp_path / "out") == expected


@pytest.mark.parametrize("stop", [1, 9, 30, 45])
def test_a_killed_run_goes_on_to_the_same_bytes(whole, tmp_path, monkeypatch, stop):
    data, expected = whole
    out = tmp_path / "out"
    seen = 0

    def stopping(function, items, **options):
        nonlocal seen
        for result in run(function, items, **options):
            seen += 1
            if seen == stop:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr("data_tools.clean.steps.run", stopping)
    with pytest.raises(KeyboardInterrupt):
        clean(data, out, RULES)
    monkeypatch.undo()
    with open(out / _WORK / "stories.jsonl", "ab") as file:
        file.write(b'{"split": "tra')  # what a power cut leaves
    with pytest.raises(ValueError, match="other rules"):
        clean(data, out, Rules())
    clean(data, out, RULES)
    assert content(out) == expected


@pytest.mark.parametrize("moment", [1, 2, 5, 9])
def test_a_run_that_was_killed_while_it_wrote_leaves_nothing_behind(whole, tmp_path, moment):
    data, expected = whole
    code = f"""
import os, pathlib, sys
from data_tools.clean import steps
from tests.data_tools.clean.test_clean import RULES
replace, count = os.replace, 0
def killed(*names):
    global count
    count += 1
    if count == {moment}:
        os.kill(os.getpid(), 9)
    replace(*names)
os.replace = killed
steps.clean(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), RULES)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(data), str(tmp_path / "out")], env=environment, timeout=120)
    assert done.returncode == -9
    assert [*(tmp_path / "out").rglob("*.tmp")]
    clean(data, tmp_path / "out", RULES)
    assert content(tmp_path / "out") == expected
    assert not [*(tmp_path / "out").rglob("*.tmp")]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("\u5c0f\u72d0\u72f8\u8d70\u8fdb\u68ee\u6797\u3002", 7),
        ("\u304d\u3064\u306d\u304c\u68ee\u306b", 6),
        ("\u0e08\u0e34\u0e49\u0e07\u0e08\u0e2d\u0e01\u0e40\u0e14\u0e34\u0e19", 3),
        ("It's a fox - isn't it?", 6),
        ("\uc5ec\uc6b0\uac00 \uac14\ub2e4", 2),
    ],
)
def test_words_are_counted_where_no_spaces_part_them(tmp_path, caption, words):
    data = write_data(tmp_path / "data", {"a": [drawing(1), drawing(2)]})
    change(data, "a", captions=[caption, caption])
    assert not clean(data, tmp_path / "few", Rules(min_words=words))[1].counts()
    assert clean(data, tmp_path / "many", Rules(min_words=words + 1))[1].counts()["too-few-words"] == 2


def test_hostile_input_is_counted_and_stays_inside(tmp_path):
    data = write_data(tmp_path / "data", {name: [drawing(ord(name)), drawing(ord(name) + 50)] for name in "abcdef"})
    Image.new("RGB", (99, 99)).save(tmp_path / "outside.png")
    (data / "link.png").symlink_to(tmp_path / "outside.png")
    (data / "images/e/0.png").write_bytes(b"")
    Image.new("1", (15_000, 15_000)).save(data / "images/f/0.png")
    change(data, "a", images=["../outside.png", "images/a/1.png"])
    change(data, "b", images=["link.png", "images/b/1.png"])
    change(data, "c", images=["/etc/passwd", "images/nothing.png"])
    change(data, "d", id="../../d")
    with open(data / "train.jsonl", "ab") as file:
        file.write(b'\xff\n{"id": 1}\n{"id": "x", "images": ["a.png"], "captions": [], "orders": []}\n' + b"[" * 9999)
    _, tally = clean(data, tmp_path / "new" / "out", Rules())
    assert tally.counts() == {
        "broken-line": 4,
        "unsafe-path": 3,
        "unreadable-picture": 2,
        "missing-picture": 1,
        "too-few-pages": 1,
    }
    assert {p.name for p in tmp_path.iterdir()} == {"data", "new", "outside.png"}
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"out"}


def test_masks_travel_and_lost_ones_are_counted(tmp_path):
    data = write_data(tmp_path / "data", {"a": [drawing(1), drawing(2)]})
    Image.new("L", (160, 120), 1).save(data / "images/a/0.mask.png")
    pages = [
        {"mask": "images/a/0.mask.png", "characters": [{"name": "Mia", "mask": "gone.png"}]},
        {"mask": "../up.png"},
    ]
    change(data, "a", pages=pages)
    _, tally = clean(data, tmp_path / "out", Rules())
    assert reasons(tally) == {("a", 0, "unreadable-mask"), ("a", 1, "unreadable-mask")}
    (record,) = read_jsonl(tmp_path / "out" / "train.jsonl")
    assert record.pages == [{"mask": "images/a/0.mask.png", "characters": [{"name": "Mia"}]}, {}]
    assert (tmp_path / "out/images/a/0.mask.png").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"train": 0.5}}, "add up to 1"),
        ({"splits": {"../train": 1.0}}, "a split is a name"),
        ({"letterbox": "cut"}, "letterbox must be"),
        ({"licenses": "CC-BY"}, "must be a list of words"),
        ({"distance": 100}, "distance must be"),
        ({"min_pages": 0}, "min_pages must be"),
    ],
)
def test_rules_check_themselves(changes, message):
    with pytest.raises(ValueError, match=message):
        Rules(**changes)


def test_the_command(tmp_path):
    data = write_data(tmp_path / "data", {"a": [drawing(1), text_card(3)], "b": [drawing(2)]}, license="CC0-1.0")
    command = [sys.executable, "-m", "data_tools.clean", str(data), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--license", "CC0"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "text-card" in done.stdout
    assert "train 2 stories, 2 pages" in done.stdout
    assert json.loads((tmp_path / "out/clean.json").read_text())["drops"] == {"text-card": 1}
    for wrong in (["--split", "train"], ["--min-pages", "0"], ["--license", "MIT"]):
        done = subprocess.run([*command, *wrong], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.mark.skipif(not STORYBOOKS.is_dir(), reason="the storybooks data set is not beside this checkout")
def test_storybooks_keep_nearly_all_held_out_pages(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "val.jsonl").write_bytes((STORYBOOKS / "val.jsonl").read_bytes())
    (data / "images").mkdir()
    for record in read_jsonl(data / "val.jsonl"):
        for path in record.images:
            (data / path).parent.mkdir(parents=True, exist_ok=True)
            (data / path).write_bytes((STORYBOOKS / path).read_bytes())
    cleaned, tally = clean(data, tmp_path / "out", Rules(languages=("en",), licenses=("CC-BY", "Public domain")))
    assert cleaned.after == {"val": {"stories": 29, "pages": 354}}
    assert tally.counts() == {"near-duplicate": 4, "too-many-words": 1}
