"""EPUB picture books: which text belongs to which picture, what the package says, and hostile files."""

import base64
import re
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.importers.archive import MAX_MEMBERS, Archive
from data_tools.importers.epub import Reader, _tame, convert, find
from data_tools.importers.markup import parse_xml, render_svg
from data_tools.importers.run_import import Source, Target
from seedstory.image import load_image
from tests.data_tools.importers.sources import art, check_stored, file_of, reasons, stored, write, write_epub

METADATA = """
<dc:title>The Kite</dc:title><dc:language>en</dc:language>
<dc:creator id="a">Ann Lee</dc:creator><meta refines="#a" property="role">aut</meta>
<dc:creator opf:role="ill">Bo Ray</dc:creator><dc:contributor opf:role="bkp">Some program</dc:contributor>
<dc:rights>Under https://creativecommons.org/licenses/by/4.0/</dc:rights>
"""


def images(count: int) -> dict[str, bytes]:
    return {f"img/p{n}.jpg": file_of(art(n)) for n in range(count)}


def imported(path, tmp_path, **options):
    target = Target(tmp_path / "out")
    return convert(Source("book", path), target, **options), target


def test_one_image_per_document(tmp_path):
    documents = {
        "cover.xhtml": '<body epub:type="cover"><img src="img/p0.jpg"/></body>',
        "p1.xhtml": "<head><title>not told</title></head><p>Mia <b>ran</b>.</p><img src='img/p1.jpg' alt='A fox'/>",
        "p2.xhtml": '<svg><image xlink:href="img/p2.jpg"/></svg><p>She fell&#8212;and&nbsp;wept.</p><script>x</script>',
    }
    done, target = imported(write_epub(tmp_path / "k.epub", documents, images(3), METADATA), tmp_path)
    (record,) = done.records
    assert record.captions == ["Mia ran.", "She fell—and wept."]
    assert record.alts == ["A fox", ""]
    assert (record.title, record.language, record.license) == ("The Kite", "en", "CC-BY 4.0")
    assert record.credit == {"Text": "Ann Lee", "Illustration": "Bo Ray"}
    assert [stored(target, path) for path in record.images] == [file_of(art(1)), file_of(art(2))]  # bytes as they were
    assert done.drops == []
    check_stored(done, target)


def test_several_images_in_a_document(tmp_path):
    body = "<h1>One</h1><img src='img/p0.jpg'><p>a</p><p>b</p><img src='./img/../img/p1.jpg#x'><p>c</p>"
    done, _ = imported(write_epub(tmp_path / "k.epub", {"a.xhtml": body, "b.xhtml": "<p>d</p>"}, images(2)), tmp_path)
    assert done.records[0].captions == ["One a b", "c d"]


def test_an_imprint_within_a_document_does_not_hide_the_story(tmp_path):
    section = "<section epub:type='{}'><img src='img/p{}.jpg'><p>{}</p></section>"
    whole = section.format("chapter", 0, "a") + section.format("colophon", 1, "b")
    documents = {"a.xhtml": whole, "b.xhtml": section.format("colophon", 2, "c")}
    done, _ = imported(write_epub(tmp_path / "k.epub", documents, images(3)), tmp_path)
    assert done.records[0].captions == ["a", "b"]


def test_text_on_facing_pages(tmp_path):
    documents = {"t1": "<p>one</p>", "a": "<img src='img/p0.jpg'>", "t2": "<p>two</p>", "b": "<img src='img/p1.jpg'>"}
    path = write_epub(tmp_path / "k.epub", documents, images(2))
    assert imported(path, tmp_path)[0].records[0].captions == ["two", ""]
    assert imported(path, tmp_path, text_first=True)[0].records[0].captions == ["one", "two"]


def test_bad_images_are_counted_and_the_rest_goes_on(tmp_path):
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
        *["picture-elsewhere"] * 2,
        "too-small",
        "unreadable-picture",
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


def rewrite(path, change, **more):
    """Changes the package document of an EPUB, and other members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["OEBPS/book.opf"] = change(members["OEBPS/book.opf"])
    members |= {f"OEBPS/{name}": data for name, data in more.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_words_stay_with_their_image_wherever_that_lies(tmp_path):
    inline = "data:image/jpeg;base64," + base64.b64encode(file_of(art(7))).decode()
    documents = {
        "1": "<img src='img/p0.jpg'><p>one</p>",
        "2": f"<img src='{inline}'><p>two</p>",
        "3": "<img src='https://example.org/3.jpg'><p>three</p>",
        "4": "<p>four</p><img src='data:image/png,broken'>",
        "5": "<img src='img/p1.jpg'><p>five</p>",
    }
    done, target = imported(write_epub(tmp_path / "k.epub", documents, images(2)), tmp_path)
    assert done.records[0].captions == ["one", "two", "five"]
    assert stored(target, done.records[0].images[1]) == file_of(art(7))
    assert sorted(reasons(done.drops)) == ["picture-elsewhere", "unreadable-picture"]


@pytest.mark.parametrize(
    ("link", "members", "found"),
    [
        ("Images/P1.JPG", ["images/p1.jpg"], 1),
        ("Images/P1.JPG", ["images/p1.jpg", "IMAGES/p1.jpg"], 0),
        ("f\u00fcchse.jpg", ["fu\u0308chse.jpg"], 1),
        ("a/../images/p1.jpg", ["images/p1.jpg"], 1),
    ],
)
def test_a_name_in_another_case_is_found_when_only_one_fits(tmp_path, link, members, found):
    members = dict.fromkeys(members, file_of(art(1)))
    path = write_epub(tmp_path / "k.epub", {"1": f"<img src='{link}'><p>one</p>"}, members)
    assert len(imported(path, tmp_path)[0].records) == found


@pytest.mark.parametrize(
    "page",
    [
        "<div style=\"background: #fff url('img/p0.jpg') no-repeat\"><p>one</p></div>",
        "<object data='img/p0.jpg' type='image/jpeg'></object><p>one</p>",
        "<html><head><style>/* x */ p, div.page { background-image: url(img/p0.jpg) }</style></head>"
        "<body><div class='page big'><p>one</p></div></body></html>",
        "<html><head><link rel='stylesheet' href='css/a.css'/></head><body id='p1'><p>one</p></body></html>",
    ],
)
def test_images_that_are_backgrounds_or_objects_are_images(tmp_path, page):
    members = images(1) | {"css/a.css": b"body#p1 { color: red; background-image: url('../img/p0.jpg'); }"}
    done, _ = imported(write_epub(tmp_path / "k.epub", {"1.xhtml": page}, members), tmp_path)
    assert done.records[0].captions == ["one"]


def test_a_background_beside_an_image_is_an_ornament(tmp_path):
    page = "<div style='background: url(img/p0.jpg)'><img src='img/p1.jpg'><p>one</p></div>"
    done, target = imported(write_epub(tmp_path / "k.epub", {"1.xhtml": page}, images(2)), tmp_path)
    assert [stored(target, path) for path in done.records[0].images] == [images(2)["img/p1.jpg"]]


SVG = (
    "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' viewBox='0 0 300 400'>{}</svg>"
)


@pytest.mark.parametrize(
    "drawn", ["<image width='9' height='9' xlink:href='img/p0.jpg'/>", "<image href='img/p0.jpg'/>"]
)
def test_an_svg_page_of_one_image_is_that_image(tmp_path, drawn):
    done, target = svg_page(tmp_path, f"{drawn}<text x='9' y='380'>Page one.</text>")
    assert done.records[0].captions == ["Page one."]
    assert stored(target, done.records[0].images[0]) == images(1)["img/p0.jpg"]


def svg_page(tmp_path, inner):
    tmp_path.mkdir(exist_ok=True)
    path = write_epub(tmp_path / "k.epub", {"1.svg": ""}, images(1))
    svg = {"1.svg": SVG.format(inner).encode()}
    path = rewrite(path, lambda package: package.replace(b"application/xhtml+xml", b"image/svg+xml"), **svg)
    return imported(path, tmp_path)


def test_an_svg_page_of_shapes_is_rendered_without_its_text(tmp_path):
    done, target = svg_page(
        tmp_path,
        "<rect width='300' height='400' fill='#00f'/><circle cx='150' cy='200' r='80' fill='#f00'/>"
        "<image width='60' height='60' xlink:href='img/p0.jpg'/><image xlink:href='/etc/passwd'/>"
        "<text x='100' y='200' font-size='40'>Hello.</text>",
    )
    assert done.records[0].captions == ["Hello."]
    assert reasons(done.drops) == ["unreadable-picture"]  # /etc/passwd, which is not in the book
    image = load_image(stored(target, done.records[0].images[0]))
    assert image.size == (768, 1024)
    assert image.getpixel((384, 512))[0] > 200 and image.getpixel((700, 60))[2] > 200
    assert np.asarray(image)[:150, :150].std() > 10, "the picture in it is drawn"


@pytest.mark.parametrize("size", ["width='3' height='40000'", "width='0' height='-5'"])
def test_no_size_that_an_svg_page_asks_for_is_made(tmp_path, size):
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' {size} viewBox='0 0 300 400'><rect width='90' height='90'/></svg>"
    image, _ = render_svg(svg.encode(), "a.svg", lambda _: None)
    assert image.size == (768, 1024)
    with pytest.raises(ValueError, match="no size that a page can have"):
        render_svg(svg.replace("viewBox='0 0 300 400'", "").encode(), "a.svg", lambda _: None)


def test_svg_bombs_and_empty_pages_are_counted(tmp_path):
    bomb = "<g id='a'><rect width='9' height='9'/></g>" + "".join(
        f"<g id='{chr(98 + n)}'>{f'<use href=%s#{chr(97 + n)}%s/>' % (chr(39), chr(39)) * 9}</g>" for n in range(9)
    )
    done, _ = svg_page(tmp_path, bomb)
    assert reasons(done.drops)[0] == "unreadable-text" and "nests <use>" in done.drops[0].detail
    assert reasons(svg_page(tmp_path / "two", "<text>words</text>")[0].drops) == ["no-pages"]


@pytest.mark.parametrize(
    ("change", "title"),
    [
        (lambda package: package.replace(b"Kite", b"Fox&nbsp;&amp; co & Bear &unknown;"), "Fox & co & Bear &unknown;"),
        (lambda package: package.replace(b'xmlns="http://www.idpf.org/2007/opf" ', b""), "Kite"),
        (lambda package: re.sub(rb' xmlns(:\w+)?="[^"]*"', b"", package), "Kite"),
        (lambda package: f'<?xml version="1.0" encoding="UTF-16"?>{package.decode()}'.encode("utf-16"), "Kite"),
        (lambda package: b'<?xml version="1.0"?><!DOCTYPE package SYSTEM "file:///etc/passwd">' + package, "Kite"),
    ],
)
def test_a_package_file_is_read_leniently(tmp_path, change, title):
    pages = {"1": "<img src='img/p0.jpg'><p>one</p>"}
    path = write_epub(tmp_path / "k.epub", pages, images(1), "<dc:title>Kite</dc:title>")
    assert imported(rewrite(path, change), tmp_path)[0].records[0].title == title


def test_entities_are_never_expanded(tmp_path):
    for text in ("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",):
        for encoding in ("utf-8", "utf-16"):
            with pytest.raises(ValueError, match="declares entities"):
                parse_xml(text.encode(encoding), "a.xml")
