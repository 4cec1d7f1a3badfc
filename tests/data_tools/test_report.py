"""A report counts what is there, shows some of it, and cannot be turned against its reader."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from data_tools.clean.rules import Rules
from data_tools.clean.steps import clean
from data_tools.report.__main__ import write_report
from data_tools.report.facts import gather
from data_tools.report.page import render
from tests.data_tools.image_data import change, drawing, text_card, write_data

VOID = {"meta", "img", "br", "rect"}


class Balance(HTMLParser):
    """Reads a page as a browser does, and minds that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == ["html"]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID - {"rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def data(tmp_path):
    folder = write_data(tmp_path / "data", {f"s{n}": [drawing(9 * n + k) for k in range(3)] for n in range(4)})
    write_data(folder, {"v": [drawing(70), text_card(3)]}, "val", source_repo="example.org/books", license="CC0")
    change(folder, "s1", license="CC-BY 4.0", credit={"Text": "Ada", "Illustration": "Ben"}, title="A <b>red</b> boat")
    return folder


def test_what_is_counted(data, tmp_path):
    clean(data, tmp_path / "clean", Rules())
    facts = gather(tmp_path / "clean", samples=5)
    assert {name: (split["stories"], split["pages"]) for name, split in facts.splits.items()} == {
        "train": (4, 12),
        "val": (1, 1),
    }
    assert sorted(facts.pages) == [1, 3, 3, 3, 3]
    assert facts.licenses == {"none given": 3, "CC-BY 4.0": 1, "CC0": 1}
    assert facts.sizes == {(160, 120): 13}
    assert facts.drops.counts() == {"text-card": 1}
    assert {name: len(sheet) for name, sheet in facts.sheets.items()} == {
        "s0 (no source given)": 3,
        "s1 (no source given)": 3,
        "s2 (no source given)": 3,
        "s3 (no source given)": 3,
        "example.org/books": 1,
    }
    page = Balance(render(facts))
    for words in ("Dropped", "text-card", "example.org/books", "Text: Ada, Illustration: Ben. CC-BY 4.0"):
        assert words in page.text
    assert "A <b>red</b> boat" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 13


def test_hostile_text_stays_text_and_nothing_is_loaded(data, tmp_path):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    keys = {"title": evil, "license": evil, "source_repo": evil, "credit": evil, "language": evil}
    change(data, "s0", captions=[evil] * 3, **keys)
    change(data, "s2", images=["../../x.png", "images/s2/1.png", "nothing.png"])
    Image.new("RGB", (30, 30)).save(data / "images/s2/1.png")
    (data / "images/s3/0.png").write_bytes(b"")
    with open(data / "train.jsonl", "ab") as file:
        file.write(b"\xff\n")
    write_report(data, tmp_path / "new" / "report.html")
    text = (tmp_path / "new" / "report.html").read_text()
    page = Balance(text)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"} == set()
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all(attributes["src"].startswith("data:image/webp;") for tag, attributes in page.tags if tag == "img")
    assert re.findall(r"(?:src|href)=.https?:", text) == []
    assert "4 cannot be read" in page.text


def test_processes_give_the_same_page(data, tmp_path):
    write_report(data, tmp_path / "one.html")
    write_report(data, tmp_path / "two.html", engine="processes", workers=2)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_an_empty_data_set_has_a_report(tmp_path):
    (tmp_path / "train.jsonl").touch()
    assert "0 stories" in Balance(render(gather(tmp_path))).text
    with pytest.raises(ValueError, match="there is no folder"):
        gather(tmp_path / "nothing")
