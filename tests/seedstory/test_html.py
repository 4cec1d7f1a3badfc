"""The HTML book: one file, no outside address, every picture described, every word escaped."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from seedstory.export.html import write_html
from seedstory.settings import StorySettings
from seedstory.story import Page, Story, StoryFolder

NASTY = "<script>alert('x')</script> & \"quoted\" </style></p><img src=http://evil.example/x onerror=y>"


class Book(HTMLParser):
    """Collects tags with attributes, the text, and whether tags nest."""

    VOID = {"meta", "img", "br", "link", "!doctype"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.stack, self.text = [], [], {}
        self.feed(text)
        self.close()
        assert not self.stack, f"left open: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack:
            self.text[self.stack[-1]] = self.text.get(self.stack[-1], "") + data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def make_story(captions, title="The Lantern", **options) -> Story:
    pages = [
        Page(index=i, caption=c, image=Image.new("RGB", (32, 32), (i, 0, 0)), state="illustrated" if i else "opening")
        for i, c in enumerate(captions)
    ]
    settings = StorySettings(text="x", pages=options.pop("pages", len(captions)))
    return Story(title=title, pages=pages, settings=settings, model={"name": "tiny"}, **options)


def written(story, tmp_path) -> str:
    return write_html(story, tmp_path / "index.html").read_text("utf-8")


def test_the_book_is_complete(tmp_path):
    captions = ["A fox finds a lantern.", "It is warm.", "“Good night,” says the owl."]
    book = Book(written(make_story(captions, language="en-GB"), tmp_path))
    assert book.all("html")[0]["lang"] == "en-GB"
    assert book.text["title"] == book.text["h1"] == "The Lantern"
    assert len(book.all("main")) == len(book.all("header")) == len(book.all("footer")) == 1
    assert [a["aria-label"] for a in book.all("article")] == [f"Page {i} of 3" for i in (1, 2, 3)]
    tags = [i for i in book.all("img") if i.get("class") != "vignette"]
    for caption, tag in zip(captions, tags, strict=True):
        assert caption in tag["alt"]
    for index, tag in enumerate(tags):
        kind, data = tag["src"].split(",", 1)
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.convert("RGB").getpixel((0, 0)) == (index, 0, 0)
    assert all("alt" in tag for tag in book.all("img"))
    for caption in captions:
        assert caption in book.text["p"]


def test_nothing_points_outside(tmp_path):
    text = written(make_story(["One.", "Two."]), tmp_path)
    book = Book(text)
    for _, attrs in book.tags:
        for name in ("src", "href", "action", "poster", "srcset", "data"):
            if name in attrs:
                assert attrs[name].startswith(("data:image/png;base64,", "#"))
    assert not book.all("link") and not book.all("iframe") and not book.all("base")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", book.text["style"] + book.text["script"].replace("// ", ""))
    assert not re.search(r"https?://", text)


def test_policy_allows_our_script_and_nothing_else(tmp_path):
    book = Book(written(make_story(["One."]), tmp_path))
    policy = next(m["content"] for m in book.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(book.text["script"].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-eval" not in policy and "script-src 'unsafe" not in policy


def test_all_text_is_escaped(tmp_path):
    story = make_story([NASTY, NASTY], title=NASTY, language='en" onload="x')
    story.model, story.versions = {"name": NASTY}, {"seedstory": NASTY}
    story.pages[1].alt = NASTY
    book = Book(written(story, tmp_path))
    assert len(book.all("script")) == 1 and len(book.all("img")) == 3
    assert not any(key.startswith("on") for _, attrs in book.tags for key in attrs)
    assert book.text["h1"] == book.text["title"] == NASTY
    assert book.all("img")[2]["alt"] == NASTY


def test_unfinished_stories(tmp_path):
    story = make_story(["", "Not drawn."], pages=5)
    story.pages[1].image = None
    text = written(story, tmp_path)
    assert "To be continued" in text and "not drawn yet" in text and "Picture of page 1" in text
    assert "The End" in written(make_story(["One."]), tmp_path)
    with pytest.raises(ValueError, match="no page"):
        write_html(make_story([], pages=1), tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


def test_folder_and_story_give_the_same_book(tmp_path):
    story = make_story(["One.", "Two."])
    folder = story.save(tmp_path / "s")
    assert written(story, tmp_path) == write_html(StoryFolder.open(folder.path), tmp_path / "b.html").read_text("utf-8")


def test_unwritable_place(tmp_path):
    with pytest.raises(ValueError, match="cannot write"):
        write_html(make_story(["One."]), tmp_path / "missing" / "index.html")
