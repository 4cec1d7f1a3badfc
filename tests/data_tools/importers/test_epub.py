"""EPUB picture books: which text belongs to which picture, what the package says, and hostile files."""

import time
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.importers.archive import MAX_MEMBERS, Archive
from data_tools.importers.epub import Reader, _tame, convert, find, parse_xml
from data_tools.importers.harvest import Source, Target
from tests.data_tools.importers.sources import art, check_stored, file_of, reasons, stored, write, write_epub

METADATA = """
<dc:title>The Kite</dc:title><dc:language>en</dc:language>
<dc:creator id="a">Ann Lee</dc:creator><meta refines="#a" property="role">aut</meta>
<dc:creator opf:role="ill">Bo Ray</dc:creator><dc:contributor opf:role="bkp">Some program</dc:contributor>
<dc:rights>Under https://creativecommons.org/licenses/by/4.0/</dc:rights>
"""


def pictures(count: int) -> dict[str, bytes]:
    return {f"img/p{n}.jpg": file_of(art(n)) for n in range(count)}


def imported(path, tmp_path, **options):
    target = Target(tmp_path / "out")
    return convert(Source("book", path), target, **options), target


def test_one_picture_per_document(tmp_path):
    documents = {
        "cover.xhtml": '<body epub:type="cover"><img src="img/p0.jpg"/></body>',
        "p1.xhtml": "<head><title>not told</title></head><p>Mia <b>ran</b>.</p><img src='img/p1.jpg' alt='A fox'/>",
        "p2.xhtml": '<svg><image xlink:href="img/p2.jpg"/></svg><p>She fell&#8212;and&nbsp;wept.</p><script>x</script>',
    }
    done, target = imported(write_epub(tmp_path / "k.epub", documents, pictures(3), METADATA), tmp_path)
    (record,) = done.records
    assert record.captions == ["Mia ran.", "She fell—and wept."]
    assert record.alts == ["A fox", ""]
    assert (record.title, record.language, record.license) == ("The Kite", "en", "CC-BY 4.0")
    assert record.credit == {"Text": "Ann Lee", "Illustration": "Bo Ray"}
    assert [stored(target, path) for path in record.images] == [file_of(art(1)), file_of(art(2))]  # bytes as they were
    assert done.drops == []
    check_stored(done, target)


def test_several_pictures_in_a_document(tmp_path):
    body = "<h1>One</h1><img src='img/p0.jpg'><p>a</p><p>b</p><img src='./img/../img/p1.jpg#x'><p>c</p>"
    done, _ = imported(write_epub(tmp_path / "k.epub", {"a.xhtml": body, "b.xhtml": "<p>d</p>"}, pictures(2)), tmp_path)
    assert done.records[0].captions == ["One a b", "c d"]


def test_an_imprint_within_a_document_does_not_hide_the_story(tmp_path):
    section = "<section epub:type='{}'><img src='img/p{}.jpg'><p>{}</p></section>"
    whole = section.format("chapter", 0, "a") + section.format("colophon", 1, "b")
    documents = {"a.xhtml": whole, "b.xhtml": section.format("colophon", 2, "c")}
    done, _ = imported(write_epub(tmp_path / "k.epub", documents, pictures(3)), tmp_path)
    assert done.records[0].captions == ["a", "b"]


def test_text_on_facing_pages(tmp_path):
    documents = {"t1": "<p>one</p>", "a": "<img src='img/p0.jpg'>", "t2": "<p>two</p>", "b": "<img src='img/p1.jpg'>"}
    path = write_epub(tmp_path / "k.epub", documents, pictures(2))
    assert imported(path, tmp_path)[0].records[0].captions == ["two", ""]
    assert imported(path, tmp_path, text_first=True)[0].records[0].captions == ["one", "two"]


def test_bad_pictures_are_counted_and_the_rest_goes_on(tmp_path):
    good = file_of(art(1))
    names = [
        "good.jpg",
        "cut.jpg",
        "empty.png",
        "tiny.png",
        "gone.jpg",
        "../../../../etc/passwd",
        "/etc/passwd",
        "http://x/y.png",
    ]
    body = "".join(f"<img src='{name}'><p>{name}</p>" for name in names)
    members = {"good.jpg": good, "cut.jpg": good[:-200], "empty.png": b"", "tiny.png": file_of(art(2, (20, 20)), "PNG")}
    done, target = imported(write_epub(tmp_path / "k.epub", {"a.xhtml": body}, members), tmp_path)
    assert len(done.records[0]) == 1
    assert sorted(reasons(done.drops)) == [
        "too-small",
        "unreadable-picture",
        "unreadable-picture",
        "unreadable-picture",
    ]
    check_stored(done, target)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x05\x06" + bytes(18),
        b"not a zip" * 100,
        file_of(art(1)),
    ],
)
def test_no_epub(tmp_path, data):
    done, target = imported(write(tmp_path / "k.epub", data), tmp_path)
    assert (done.records, reasons(done.drops)) == ([], ["unreadable-book"])
    assert not target.out.exists()


def test_bombs_are_refused(tmp_path):
    bomb = "<!DOCTYPE x [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]><container>&b;</container>"
    path = tmp_path / "k.epub"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", bomb)
    done, _ = imported(path, tmp_path)
    assert "entities" in done.drops[0].detail
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.jpg", bytes(65 * 2**20))  # 65 MB in 65 KB
    with Archive(path) as archive, pytest.raises(ValueError, match="unfolds into more than 64 MB"):
        archive.read("big.jpg")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MAX_MEMBERS + 1):
            archive.writestr(str(number), b"")
    with pytest.raises(ValueError, match="members"):
        Archive(path)


def test_links_in_an_archive_are_no_members(tmp_path):
    path = tmp_path / "k.epub"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../up.jpg", b"x")
    with Archive(path) as archive:
        assert archive.names() == ["../up.jpg"]  # a name is only a key: nothing is unpacked
        with pytest.raises(ValueError, match="not in"):
            archive.read("link.jpg")


def test_damaged_and_encrypted_members(tmp_path):
    path = write_epub(tmp_path / "k.epub", {"a.xhtml": "<img src='p.jpg'>"}, {"p.jpg": file_of(art(1))})
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xd8\xff")
    data[at + 300 : at + 310] = b"0123456789"
    path.write_bytes(data)
    done, _ = imported(path, tmp_path)
    assert reasons(done.drops) == ["unreadable-picture", "no-pages"]
    assert "CRC" in done.drops[0].detail


@pytest.mark.parametrize("piece", ["<!--", "<a ", "<![CDATA[", "<?", "<!x ", "&#", "<p a='", "</", "<script>"])
def test_reading_takes_linear_time(piece):
    start = time.process_time()
    reader = Reader()
    reader.feed(_tame(piece * (200_000 // len(piece))))
    reader.close()
    assert time.process_time() - start < 10  # minutes where it is quadratic


@given(st.binary(max_size=200))
def test_xml_is_read_or_refused(data):
    try:
        parse_xml(data, "x")
    except ValueError as error:
        assert str(error).startswith("x ")


def test_find(tmp_path):
    write(tmp_path / "b" / "Book 10.EPUB", b"")
    write(tmp_path / "b" / "Book 2.epub", b"")
    write(tmp_path / "c" / "book--10.epub", b"")
    write(tmp_path / "c" / "книга.epub", b"")
    assert [source.id for source in find([tmp_path])] == ["book-2", "book-10", "book-10-2", "story-695b9685"]
    with pytest.raises(ValueError, match="no EPUB file"):
        find([write(tmp_path / "d" / "x.txt", "").parent])
    with pytest.raises(ValueError, match="check the path"):
        find([tmp_path / "nowhere"])
