"""EPUB, CBZ, film and ViStoryBench's layout: what their readers check, hostile words, the same bytes each time."""

import io
import re
import shutil
import subprocess
import zipfile
from xml.etree import ElementTree

import pytest
from PIL import Image

from seedstory.errors import RequestError, StoryFolderError
from seedstory.export import write_book
from seedstory.export.book import BookDesign
from seedstory.export.vistorybench import write_vistorybench
from tests.seedstory.book_stories import ATTACKS, hostile_story, make_story, program

pytest.importorskip("typst", reason="the extra book is not installed")

COMIC, BALLOONS = BookDesign(layout="comic", author="Ann & Lee"), BookDesign(layout="comic", balloons=True)


def read_zip(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def check_epub(path):
    """Epubcheck's messages; Debian installs the program as an archive of Java."""
    java, jar = program("java"), program("epubcheck")
    with open(jar, "rb") as file:
        command = [java, "-jar", jar] if file.read(2) == b"PK" else [jar]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("design", [BookDesign(), BALLOONS], ids=["book", "balloons"])
def test_epub_of_hostile_words_is_valid(tmp_path, design):
    path = write_book(hostile_story(), tmp_path / "book.epub", "epub", design=design)
    code, messages = check_epub(path)
    assert code == 0 and "0 fatals / 0 errors / 0 warnings" in messages, messages


@pytest.mark.parametrize("design", [BookDesign(), COMIC], ids=["book", "comic"])
def test_epub_says_what_readers_need(tmp_path, design):
    story = make_story(["A fox.", "", "الثعلب"], title="The Lantern", blank=(1,), language="en-GB")
    path = write_book(story, tmp_path / "book.epub", "epub", design=design)
    assert path.read_bytes() == write_book(story, tmp_path / "again.epub", "epub", design=design).read_bytes()
    files = read_zip(path)
    assert next(iter(files)) == "mimetype" and files["mimetype"] == b"application/epub+zip"
    package = files["EPUB/package.opf"].decode()
    for said in (
        "pre-paginated",
        "schema:accessMode",
        "schema:accessibilitySummary",
        "pageBreakMarkers",
        "cover-image",
    ):
        assert said in package
    nav = ElementTree.fromstring(files["EPUB/nav.xhtml"])
    kind = "{http://www.idpf.org/2007/ops}type"
    html = "{http://www.w3.org/1999/xhtml}"
    lists = {one.get(kind): [a.text for a in one.iter(f"{html}a")] for one in nav.iter(f"{html}nav")}
    assert lists["page-list"] == ["1", "2", "3"] and {"toc", "landmarks"} <= set(lists)
    images = [
        one
        for name, data in files.items()
        if name.endswith(".xhtml")
        for one in ElementTree.fromstring(data).iter(f"{html}img")
    ]
    assert len(images) == 3 and all(image.get("alt") for image in images)
    with Image.open(io.BytesIO(files["EPUB/images/page-1.png"])) as image:
        assert image.size == (48, 48)


def test_cbz_has_pages_and_metadata(tmp_path):
    story = hostile_story()
    path = write_book(story, tmp_path / "book.cbz", "cbz", design=COMIC)
    assert path.read_bytes() == write_book(story, tmp_path / "again.cbz", "cbz", design=COMIC).read_bytes()
    files = read_zip(path)
    info = ElementTree.fromstring(files.pop("ComicInfo.xml"))
    assert info.findtext("Writer") == "Ann & Lee" and ATTACKS[0] in info.findtext("Title")
    assert int(info.findtext("PageCount")) == len(files) == len(info.findall("Pages/Page"))
    assert sorted(files) == [f"{number:03d}.png" for number in range(1, len(files) + 1)]
    for page, data in zip(info.findall("Pages/Page"), files.values(), strict=True):
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (int(page.get("ImageWidth")), int(page.get("ImageHeight"))) == (1071, 1638)


@pytest.mark.parametrize("narration", [False, True], ids=["silent", "read aloud"])
def test_film_has_its_length_and_its_subtitles(tmp_path, narration):
    av = pytest.importorskip("av")
    if narration and shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    captions = ["A fox <b>found</b> {\\an8} a key.", "It is warm, she said."]
    story = make_story(captions, blank=(1,))
    path = write_book(story, tmp_path / "book.mp4", "mp4") if not narration else None
    if path is None:
        from seedstory.export.mp4 import write_mp4

        path = write_mp4(story, tmp_path / "book.mp4", narration=True)
    with av.open(str(path)) as film:
        kinds = [stream.type for stream in film.streams]
        assert kinds == ["video", "subtitle", *(["audio"] if narration else [])]
        frames = sum(1 for _ in film.decode(video=0))
        length = film.duration / 1e6
    if not narration:
        # Two cards of 3 s, then 2.5 s a page and a second for each 2.6 words.
        assert frames == 2 * 72 + round((2.5 + 6 / 2.6) * 24) + round((2.5 + 5 / 2.6) * 24)
    assert length == pytest.approx(frames / 24, abs=0.1)
    with av.open(str(path)) as film:
        shown = [bytes(packet)[2:].decode() for packet in film.demux(subtitles=0) if packet.size > 2]
    assert shown == captions
    if narration:
        with av.open(str(path)) as film:
            sound = max(int(abs(frame.to_ndarray()).max() * 1000) for frame in film.decode(audio=0))
        assert sound > 50


def test_film_of_hostile_words(tmp_path):
    av = pytest.importorskip("av")
    attacks = [ATTACKS[0][:36], ATTACKS[2][:36]]
    story = make_story(attacks, title=ATTACKS[2])
    path = write_book(story, tmp_path / "book.mp4", "mp4")
    with av.open(str(path)) as film:
        assert [bytes(p)[2:].decode() for p in film.demux(subtitles=0) if p.size > 2] == attacks


def test_vistorybench_layout(tmp_path, caplog):
    story = make_story(["One.", "Two.", "Three."], blank=(1,))
    shots = write_vistorybench(story, tmp_path, story_id="08")
    assert shots == tmp_path / "seedstory/base/en/20000101_000000/08/shots"
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == ["shot_01.png", "shot_03.png"]
    assert "1 of 3 pages have no picture" in caplog.text
    # What its reader does: digits alone name stories, and the number behind the last _ names a shot.
    assert [int(re.split(r"[_.]", file.name)[-2]) for file in sorted(shots.iterdir())] == [1, 3]
    write_vistorybench(make_story(["One."]), tmp_path, story_id="08")
    assert [file.name for file in shots.iterdir()] == ["shot_01.png"]
    assert "/ch/" in str(write_vistorybench(make_story(["一。"], language="zh-CN"), tmp_path))
    for wrong in ({"story_id": "../8"}, {"method": "a/b"}, {"mode": ""}):
        with pytest.raises(RequestError):
            write_vistorybench(story, tmp_path, **wrong)
    with pytest.raises(StoryFolderError, match="no page of the story has a picture"):
        write_vistorybench(make_story(["One."], blank=(0,)), tmp_path)


@pytest.mark.parametrize("name", ["pdf", "epub", "cbz", "mp4"])
def test_an_export_that_cannot_be_written_is_one_line(tmp_path, name):
    with pytest.raises(StoryFolderError, match="choose another place"):
        write_book(make_story(["One."]), tmp_path / "missing" / f"book.{name}", name)
    with pytest.raises(StoryFolderError, match="no page yet"):
        write_book(_empty(), tmp_path / f"book.{name}", name)
    assert not list(tmp_path.iterdir())


def _empty():
    story = make_story(["One."])
    story.pages.clear()
    return story
