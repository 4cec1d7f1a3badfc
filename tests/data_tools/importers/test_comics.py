"""Comics: gutters, reading order, archives, and hostile files."""

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from data_tools.importers.comics import convert, find
from data_tools.importers.panels import PanelSettings, find_panels
from data_tools.importers.run_import import Metadata, Source, Target
from seedstory.image import load_image
from tests.data_tools.importers.sources import art, check_stored, file_of, reasons, stored, write

WIDTH, HEIGHT, GUTTER = 600, 800, 12


def compose(rows, *, margin=30, paper="white", frame="black", size=(WIDTH, HEIGHT)):
    """A page of rows, each with the shares of its panels, and the panels' boxes in the order of rows."""
    page, boxes, seed = Image.new("RGB", size, paper), [], 0
    y = margin
    height = (size[1] - 2 * margin - GUTTER * (len(rows) - 1)) // len(rows)
    for shares in rows:
        x, room = margin, size[0] - 2 * margin - GUTTER * (len(shares) - 1)
        for share in shares:
            width = room * share // sum(shares)
            page.paste(art(seed := seed + 1, (width, height)), (x, y))
            if frame:
                ImageDraw.Draw(page).rectangle((x, y, x + width - 1, y + height - 1), outline=frame, width=3)
            boxes.append((x, y, x + width, y + height))
            x += width + GUTTER
        y += height + GUTTER
    return page, boxes


def close(found, wanted, slack=4):  # a black frame on black paper is gutter
    return len(found) == len(wanted) and all(
        abs(a - b) <= slack for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("paper", ["white", "black", (250, 230, 190)])
@pytest.mark.parametrize("margin", [30, 0])  # 0: the pictures bleed over the edge
def test_panels_in_reading_order(paper, margin):
    page, boxes = compose([[1, 1], [1], [1, 2, 1]], paper=paper, margin=margin)
    assert close(find_panels(page)[0], boxes)
    backwards = [boxes[1], boxes[0], boxes[2], boxes[5], boxes[4], boxes[3]]
    assert close(find_panels(page, PanelSettings(right_to_left=True))[0], backwards)


def test_scans_are_not_clean():
    page, boxes = compose([[2, 1], [1, 2]])
    draw = ImageDraw.Draw(page)
    for n in range(12):
        draw.point((37 * n % WIDTH, 53 * n % HEIGHT), fill="black")
    draw.text((WIDTH // 2, HEIGHT - 20), "17", fill="black")  # the page number
    assert close(find_panels(load_image(file_of(page)))[0], boxes)


def test_the_white_inside_of_a_frame_is_no_gutter():
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(page)
    boxes = [(30, 30, 290, 380), (310, 30, 570, 380), (30, 400, 570, 770)]
    for x0, y0, x1, y1 in boxes:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="black", width=2)
        draw.ellipse((x0 + 60, y0 + 90, x0 + 120, y0 + 150), fill="red")
        draw.ellipse((x0 + 60, y0 + 250, x0 + 120, y0 + 300), fill="blue")
    assert close(find_panels(page)[0], boxes)


def test_a_column_beside_a_stack_and_a_balloon_over_the_gutter():
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    boxes = [(30, 30, 290, 770), (310, 30, 570, 390), (310, 410, 570, 770)]
    for seed, box in enumerate(boxes):
        page.paste(art(seed, (box[2] - box[0], box[3] - box[1])), box[:2])
    ImageDraw.Draw(page).ellipse((270, 100, 330, 130), fill="white", outline="black")
    assert close(find_panels(page)[0], boxes)


def test_the_left_half_of_a_double_page_goes_first():
    left, boxes = compose([[1, 1], [1]])
    right, others = compose([[1], [1, 1]])
    page = Image.new("RGB", (2 * WIDTH, HEIGHT), "white")
    page.paste(left, (0, 0))
    page.paste(right, (WIDTH, 0))
    wanted = [*boxes, *((x0 + WIDTH, y0, x1 + WIDTH, y1) for x0, y0, x1, y1 in others)]
    assert close(find_panels(page)[0], wanted)
    assert find_panels(page, PanelSettings(right_to_left=True))[0][0][0] > WIDTH


def test_small_parts_are_counted():
    page, boxes = compose([[1, 1]])
    page.paste(page.crop((0, 0, WIDTH, HEIGHT - 60)), (0, 0))
    ImageDraw.Draw(page).rectangle((0, HEIGHT - 60, WIDTH, HEIGHT), fill="white")
    ImageDraw.Draw(page).rectangle((250, HEIGHT - 30, 300, HEIGHT - 10), fill="black")
    found, small = find_panels(page)
    assert (len(found), small) == (len(boxes), 1)


def test_pages_without_gutters_are_one_panel():
    assert find_panels(art(1, (300, 400))) == ([(0, 0, 300, 400)], 0)
    assert find_panels(Image.new("RGB", (300, 400), "white")) == ([(0, 0, 300, 400)], 0)
    assert find_panels(Image.new("RGB", (8, 4000))) == ([(0, 0, 8, 4000)], 0)


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=3), min_size=1, max_size=4),
    st.sampled_from([0, 20, 41]),
    st.sampled_from(["white", "black"]),
)
def test_every_grid_is_found(rows, margin, paper):
    page, boxes = compose(rows, margin=margin, paper=paper)
    assert close(find_panels(page)[0], boxes)


def test_settings_check_themselves():
    for wrong in ({"gutter": 0}, {"tolerance": 300}, {"min_side": 2}, {"dirt": -1}):
        with pytest.raises(ValueError):
            PanelSettings(**wrong)


def imported(source, tmp_path, **options):
    target = Target(tmp_path / "out", format="png", facts=Metadata(license="CC-BY 4.0"))
    return convert(Source("comic", source), target, **options), target


def test_a_folder_of_pages(tmp_path):
    page, boxes = compose([[1, 1], [1]])
    cover = file_of(art(99, (300, 400)))
    write(tmp_path / "in" / "page1.jpg", cover)
    write(tmp_path / "in" / "page2.png", file_of(page, "PNG"))
    write(tmp_path / "in" / "page10.jpg", cover[:-100])
    done, target = imported(tmp_path / "in", tmp_path)
    (record,) = done.records
    assert stored(target, record.images[0]) == cover  # a page that is one panel stays as it came
    assert [one["source_page"] for one in record.pages] == ["page1.jpg", *["page2.png"] * 3]
    assert close([tuple(one["panel"]) for one in record.pages[1:]], boxes)
    assert reasons(done.drops) == ["unreadable-picture"]
    assert (record.title, record.license) == ("in", "CC-BY 4.0")
    check_stored(done, target)
    assert len(imported(tmp_path / "in", tmp_path, whole=True)[0].records[0]) == 2


def test_a_cbz_with_comic_info(tmp_path):
    page, boxes = compose([[1, 1]])
    info = "<ComicInfo><Series>Fox</Series><Number>3</Number><Writer>Ann</Writer><Penciller>Bo</Penciller>"
    info += "<LanguageISO>ja</LanguageISO><Manga>YesAndRightToLeft</Manga></ComicInfo>"
    path = tmp_path / "fox.cbz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ComicInfo.xml", info)
        archive.writestr("a/2.png", file_of(art(2), "PNG"))
        archive.writestr("../../1.png", file_of(page, "PNG"))
        archive.writestr("__MACOSX/._1.png", b"x")
        archive.writestr("3.png", b"")
    done, target = imported(path, tmp_path)
    (record,) = done.records
    assert (record.title, record.language) == ("Fox 3", "ja")
    assert record.credit == {"Text": "Ann", "Illustration": "Bo"}
    assert close([tuple(one["panel"]) for one in record.pages[:2]], boxes[::-1])
    assert reasons(done.drops) == ["unreadable-picture"]
    check_stored(done, target)
    assert not (tmp_path / "1.png").exists()


@pytest.mark.parametrize(
    ("name", "info", "title", "dropped"),
    [
        ("ComicInfo.xml", b"<ComicInfo><Title>Fox & Bear</Title></ComicInfo>", "Fox & Bear", []),
        ("ComicInfo.xml", "<ComicInfo><Title>Caf\u00e9</Title></ComicInfo>".encode("utf-16"), "Caf\u00e9", []),
        ("Fox 1/ComicInfo.xml", b"<ComicInfo><Title>Nested</Title></ComicInfo>", "Nested", []),
        ("comicinfo.xml", b"<ComicInfo><Title>Small</Title></ComicInfo>", "Small", []),
        ("ComicInfo.xml", b"<ComicInfo><Title>cut", "fox", ["unreadable-comic-info"]),
        ("ComicInfo.xml", b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "fox", ["unreadable-comic-info"]),
        ("ComicInfo.xml", bytes(200), "fox", ["unreadable-comic-info"]),
    ],
)
def test_no_comic_is_lost_over_its_record(tmp_path, name, info, title, dropped):
    with zipfile.ZipFile(tmp_path / "fox.cbz", "w") as archive:
        archive.writestr(name, info)
        archive.writestr("Fox 1/1.png", file_of(art(1), "PNG"))
    done, _ = imported(tmp_path / "fox.cbz", tmp_path)
    assert done.records[0].title == title and reasons(done.drops) == dropped


def test_archives_in_an_archive_are_read_one_level_deep(tmp_path):
    def cbz(members) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return buffer.getvalue()

    deepest = cbz({"9.png": file_of(art(9), "PNG")})
    volumes = {f"vol {n}.cbz": cbz({"1.png": file_of(art(n), "PNG"), "deep.cbz": deepest}) for n in (10, 2)}
    path = write(tmp_path / "all.cbz", cbz({"0.png": file_of(art(0), "PNG"), "bad.zip": b"no"} | volumes))
    done, _ = imported(path, tmp_path, whole=True)
    assert [page["source_page"] for page in done.records[0].pages] == ["0.png", "vol 2.cbz/1.png", "vol 10.cbz/1.png"]
    assert reasons(done.drops) == ["unreadable-archive"]


def test_a_folder_is_called_by_its_whole_name(tmp_path):
    write(tmp_path / "Mr. Fox vol. 2" / "1.png", file_of(art(1), "PNG"))
    assert imported(tmp_path / "Mr. Fox vol. 2", tmp_path)[0].records[0].title == "Mr. Fox vol. 2"


@pytest.mark.parametrize("data", [b"", b"Rar!\x1a\x07" + bytes(90), b"PK\x03\x04" + bytes(500)])
def test_no_comic(tmp_path, data):
    done, _ = imported(write(tmp_path / "x.cbz", data), tmp_path)
    assert (done.records, reasons(done.drops)) == ([], ["unreadable-comic"])


def test_find(tmp_path):
    write(tmp_path / "in" / "ep2" / "1.jpg", b"")
    write(tmp_path / "in" / "ep10" / "1.jpg", b"")
    write(tmp_path / "in" / "ep3.cbz", b"")
    assert [source.id for source in find([tmp_path / "in"])] == ["ep2", "ep3", "ep10"]
    with pytest.raises(ValueError, match="no comic"):
        find([write(tmp_path / "none" / "x.txt", "").parent])
