"""Picture books as folders: African Storybook's layout, Book Dash's, plain ones, and hostile ones."""

import json
import time

import pytest

from data_tools.importers.books import convert, find, plain
from data_tools.importers.run_import import Metadata, Target
from tests.data_tools.importers.sources import STORYBOOKS, art, check_stored, file_of, reasons, stored, write

ASP = """# Goat, Dog, and Cow

##
Goat and Dog went
on a jour-
ney.

##

##
The *end*.

##
* License: [CC-BY]
* Text: Fabian Wakholi
* Illustration: Marleen Visser
* Language: en
"""
BOOK_DASH = """---
stylesheet: screen.css
title: "A Day: {title}"
---

# A Day

![Mom greets Nicholas.]({{{{ page.images-folder }}}}/01.jpg)

“Wake up,” says Mom.

“Hello **sun**,” says _Nicholas_.{{:.small}}

![](images/2.jpg){{: .wide}}

![Gone]({{{{ page.images-folder }}}}/03.jpg)
Lost.
"""


def african_storybook(folder, images=5, number="0004"):
    write(folder / "asp-source" / "en" / f"{number}_goat.md", ASP)
    write(folder / "asp-source" / "fr" / f"{number}_chevre.md", ASP.replace("Goat", "Chèvre"))
    write(folder / "asp-source" / "README.md", "# About")
    for n in range(1, images + 1):
        write(folder / "bank" / number / f"{n:02d}.jpg", file_of(art(n)))
    return folder / "asp-source", folder / "bank"


def convert_all(found, tmp_path, facts=None):
    target = Target(tmp_path / "out", facts=facts or Metadata())
    return [convert(source, target) for source in found], target


@pytest.mark.parametrize("images", [4, 5])  # without and with a back cover
def test_african_storybook(tmp_path, images):
    texts, bank = african_storybook(tmp_path, images)
    found = find([texts], [bank])
    assert [source.id for source in found] == ["en-0004", "fr-0004"]
    (source,) = find([texts], [bank], only="en")
    (done,), target = convert_all([source], tmp_path)
    (record,) = done.records
    assert record.captions == ["Goat and Dog went on a jour-ney.", "", "The end."]
    assert [stored(target, path) for path in record.images] == [file_of(art(n)) for n in (2, 3, 4)]  # 1 is the cover
    assert (record.title, record.license, record.language) == ("Goat, Dog, and Cow", "CC-BY", "en")
    assert record.credit == {"Text": "Fabian Wakholi", "Illustration": "Marleen Visser"}
    check_stored(done, target)


@pytest.mark.parametrize(
    ("images", "reason"), [(3, "pages-and-pictures-differ"), (6, "pages-and-pictures-differ"), (0, "no-pictures")]
)
def test_african_storybook_out_of_step(tmp_path, images, reason):
    texts, bank = african_storybook(tmp_path, images)
    bank.mkdir(exist_ok=True)
    (done,), _ = convert_all(find([texts], [bank], only="en"), tmp_path)
    assert (done.records, reasons(done.drops)) == ([], [reason])


def test_the_first_image_folder_goes_before_the_others(tmp_path):
    texts, bank = african_storybook(tmp_path)
    for n in range(1, 6):
        write(tmp_path / "colored" / "0004" / f"{n:02d}.jpg", file_of(art(100 + n)))
    (done,), target = convert_all(find([texts], [tmp_path / "colored", bank], only="en"), tmp_path)
    assert stored(target, done.records[0].images[0]) == file_of(art(102))


def test_book_dash(tmp_path):
    root = tmp_path / "bookdash-books"
    for language in ("en", "xh"):
        write(root / "a-day" / language / "index.md", BOOK_DASH.format(title=language))
        write(root / "a-day" / language / "images" / "01.jpg", file_of(art(1)))
        write(root / "a-day" / language / "images" / "2.jpg", file_of(art(2)))
    write(root / "_site" / "a-day" / "index.md", BOOK_DASH.format(title="built"))
    rights = "[CC](http://creativecommons.org/licenses/by/4.0/)"
    write(root / "_data" / "meta.yml", f'titles:\n  a-day:\n    creator: "Ann, Bo"\n    rights: "{rights}"\n')
    assert [source.id for source in find([root], [])] == ["a-day-en", "a-day-xh"]
    (done,), target = convert_all(
        find([root], [], only="xh"), tmp_path, Metadata(license="unknown", source_repo="here")
    )
    (record,) = done.records
    assert (record.id, record.title, record.language) == ("a-day", "A Day: xh", "xh")
    assert record.captions == ["“Wake up,” says Mom. “Hello sun,” says Nicholas.", ""]
    assert record.alts == ["Mom greets Nicholas.", ""]
    assert (record.license, record.credit, record.source_repo) == ("CC-BY 4.0", {"Creator": "Ann, Bo"}, "here")
    assert reasons(done.drops) == ["missing-picture"]
    check_stored(done, target)


def test_images_in_a_folder_for_the_web(tmp_path):
    write(tmp_path / "in" / "a" / "index.md", "![x]({{ page.image-set }}/1.jpg) One.")
    write(tmp_path / "in" / "a" / "images" / "web" / "1.jpg", file_of(art(1)))
    (done,), _ = convert_all(find([tmp_path / "in"], []), tmp_path)
    assert done.records[0].captions == ["One."]


def test_a_text_for_each_image(tmp_path):
    for n in (1, 2, 10):
        write(tmp_path / "in" / "Kite" / f"{n}.png", file_of(art(n), "PNG"))
        write(tmp_path / "in" / "Kite" / f"{n}.txt", f"Page {n}.")
    write(tmp_path / "in" / "Kite" / "11.png", file_of(art(11), "PNG"))
    write(tmp_path / "in" / "Kite" / "2.txt", b"\xff\xff")
    (done,), _ = convert_all(find([tmp_path / "in"], []), tmp_path)
    assert done.records[0].captions == ["Page 1.", "Page 10.", ""]
    assert done.records[0].title == "Kite"
    assert reasons(done.drops) == ["unreadable-text"]


@pytest.mark.parametrize("mark", ["##", "---", "\f", "## Page 2"])
@pytest.mark.parametrize("cover", [0, 1])
def test_one_text_with_marked_pages(tmp_path, mark, cover):
    for n in range(2 + cover):
        write(tmp_path / "in" / "kite" / f"{n}.jpg", file_of(art(n)))
    write(tmp_path / "in" / "kite" / "story.md", f"# My kite\n\nOne.\n\n{mark}\n\nTwo.\n")
    (done,), target = convert_all(find([tmp_path / "in"], []), tmp_path)
    assert done.records[0].captions == ["One.", "Two."]
    assert done.records[0].title == "My kite"
    assert stored(target, done.records[0].images[0]) == file_of(art(cover))


def test_nothing_outside_the_source_is_read(tmp_path):
    secret = write(tmp_path / "secret.jpg", file_of(art(9)))
    write(tmp_path / "secret.md", "![](x.jpg) secret")
    book = tmp_path / "in" / "book"
    write(
        book / "index.md",
        f"![a](../../secret.jpg) a\n\n![b]({secret}) b\n\n![c](link.jpg) c\n\n![d](ok.jpg) d\n\n![e](file:///x) e",
    )
    write(book / "ok.jpg", file_of(art(1)))
    (book / "link.jpg").symlink_to(secret)
    (tmp_path / "in" / "linked").mkdir()
    (tmp_path / "in" / "linked" / "index.md").symlink_to(tmp_path / "secret.md")
    results, _ = convert_all(find([tmp_path / "in"], []), tmp_path)
    assert [record.captions for done in results for record in done.records] == [["d"]]
    assert reasons(results[0].drops) == [
        "outside-the-source",
        "missing-picture",
        "outside-the-source",
        "picture-not-local",
    ]
    assert reasons(results[1].drops) == ["outside-the-source"]


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe broken",
        b"---\ntitle: [unclosed\n---\n![a](1.jpg)",
        b"---\na: &a [x]\nb: " + b"[" * 5000 + b"\n---\n![a](1.jpg)",
        b"---\ntitle: !!python/object/apply:os.system ['true']\n---\n![a](1.jpg)",
    ],
)
def test_broken_texts_are_counted(tmp_path, text):
    write(tmp_path / "in" / "book" / "index.md", text)
    write(tmp_path / "in" / "book" / "1.jpg", file_of(art(1)))
    (done,), _ = convert_all(find([tmp_path / "in"], []), tmp_path)
    assert (done.records, reasons(done.drops)) == ([], ["unreadable-text"])


@pytest.mark.parametrize(
    "piece", ["![", "![](", "![]({{", "{{a}}", "<!--", "<a ", "**a", "_a", "[x](", "{% ", "##\n", "* A: b\n"]
)
def test_reading_takes_linear_time(tmp_path, piece):
    write(tmp_path / "in" / "book" / "index.md", "![x](1.jpg)\n" + piece * (100_000 // len(piece)))
    write(tmp_path / "in" / "book" / "1.jpg", file_of(art(1)))
    start = time.process_time()
    (done,), _ = convert_all(find([tmp_path / "in"], []), tmp_path)
    assert len(done.records) == 1
    assert time.process_time() - start < 10  # minutes where a pattern backtracks


def test_find_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        find([tmp_path / "x"], [])
    (tmp_path / "y").mkdir()
    with pytest.raises(ValueError, match="no picture book in a folder 'en' of"):
        find([tmp_path / "y"], [], only="en")


def test_plain():
    assert plain("## Head\n> *One*, __two__ and [three](x)\n- \\*four\\*<br/>snake_case_word") == (
        "Head One, two and three *four* snake_case_word"
    )


@pytest.mark.skipif(not STORYBOOKS.is_dir(), reason="the storybooks data set is not beside this checkout")
def test_real_books_come_back(tmp_path):
    lines = (STORYBOOKS / "val.jsonl").read_text("utf-8").splitlines()
    wanted = [one for one in map(json.loads, lines) if one["id"].startswith("bookdash-")]
    for one in wanted:
        folder = tmp_path / "in" / one["id"] / "en"
        pages = []
        for number, (path, caption, alt) in enumerate(zip(one["images"], one["captions"], one["alts"], strict=True)):
            write(folder / "images" / f"{number:02d}.webp", (STORYBOOKS / path).read_bytes())
            pages.append(f"![{alt}]({{{{ page.images-folder }}}}/{number:02d}.webp)\n\n{caption}\n")
        write(folder / "index.md", f'---\ntitle: "{one["title"]}"\n---\n\n# {one["title"]}\n\n' + "\n".join(pages))
    results, target = convert_all(find([tmp_path / "in"], [], only="en"), tmp_path)
    assert len(results) == len(wanted) > 0
    for done, one in zip(results, sorted(wanted, key=lambda one: one["id"]), strict=True):
        (record,) = done.records
        assert (record.title, record.captions, record.alts) == (one["title"], one["captions"], one["alts"])
        assert [stored(target, p) for p in record.images] == [(STORYBOOKS / p).read_bytes() for p in one["images"]]
