"""PDF picture books: a page's text, and its picture without the text that is printed on it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from math import hypot, prod
from pathlib import Path

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image, ImageChops

from data_tools.drops import Drop
from data_tools.importers.facing import FacingPage, pair
from data_tools.importers.files import files_of
from data_tools.importers.run_import import Imported, Metadata, RecordBuilder, Source, Target, license_name
from seedstory.image import MAX_PIXELS, load_image
from seedstory.text import clean_text

MAX_BYTES = 512 * 2**20
MAX_PAGES = 2_000
MAX_OBJECTS = 50_000  # of one page
MIN_SIDE = 96  # px
MIN_SHARE = 0.04  # of the page's area; what is drawn smaller is an ornament
MAIN_SHARE = 0.25  # of a region's area; a picture that is drawn larger sets its resolution
MAX_FITTED = 2048  # px; longer side of what is rendered to fit a picture
PAPER = 12  # of 255: how far from white paper may be
SAME = 8  # of 255: how far the pixels of a file may be from the page as rendered
_BAND = 8_000_000  # px that are compared at a time
_Box = tuple[float, float, float, float]  # left, bottom, right, top in points
_TEXT, _IMAGE, _FORM = pdfium.FPDF_PAGEOBJ_TEXT, pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_FORM


def find(paths: list[Path]) -> list[Source]:
    """The PDF files that some paths name, or that lie in some folders."""
    return files_of(paths, (".pdf",), "PDF file")


def convert(
    source: Source, target: Target, *, side: int = 1024, keep_text: bool = False, text_first: bool = False
) -> Imported:
    """Imports one PDF file.

    A page whose only picture is a JPEG is stored as that file where a reader of the page sees just its pixels: no
    mask, clip path, inverted channel or blending changes them. Any other page is rendered without its text and cut
    down to what is drawn, at the resolution of a large picture on it. Text on a page without picture goes to a picture
    near it.

    Args:
        source: The file.
        target: Where to store.
        side: Longer side in px of a whole page where it is rendered; more where a large picture on it is finer.
        keep_text: Render pages with the text on them.
        text_first: See `facing.pair`.
    """
    try:
        if source.path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MB")
        document = pypdfium2.PdfDocument(source.path)
    except (pypdfium2.PdfiumError, ValueError, OSError) as error:
        return Imported.dropped(source.id, "unreadable-book", f"{source.path.name}: {error}")
    with document:
        story = RecordBuilder(source.id, target)
        for (image, number), text in pair(_facing_pages(document, story, side, keep_text), text_first=text_first):
            story.add(image, text, source=f"page {number}", min_side=MIN_SIDE, source_page=number)
        said = document.get_metadata_dict(skip_empty=True)
    rights = next((value for value in said.values() if "creativecommons.org" in value), None)
    credit = {"Text": clean_text(said["Author"])} if said.get("Author") else None
    title = clean_text(said.get("Title", "")) or None
    return story.finish(Metadata(title=title, license=license_name(rights), credit=credit))


def _facing_pages(
    document: pypdfium2.PdfDocument, story: RecordBuilder, side: int, keep_text: bool
) -> Iterator[FacingPage[tuple[bytes | Image.Image, int]]]:
    """The pages, each with its number."""
    for number in range(1, min(len(document), MAX_PAGES) + 1):
        try:
            page = document[number - 1]
            text = _text(page)
            image = _image(page, side, keep_text)
        except (pypdfium2.PdfiumError, ValueError, OSError) as error:
            story.drop_page("unreadable-page", f"page {number}: {error}")
            continue
        yield FacingPage((image, number) if image is not None else None, text)
    if len(document) > MAX_PAGES:
        detail = f"{len(document)} pages, the first {MAX_PAGES} were read"
        story.drops.append(Drop(story.id, None, "too-many-pages", detail))


def _text(page: pypdfium2.PdfPage) -> str:
    """The text of a page, without a page number that stands alone and without hyphens at line ends."""
    lines = page.get_textpage().get_text_bounded().splitlines()
    text = "\n".join(line.strip() for line in lines if not re.fullmatch(r"\s*\d{1,4}\s*", line))
    return re.sub(r"(?<=\w)[\u00ad\ufffe\u2010-]\n(?=[a-zà-ÿ])", "", text)


def _image(page: pypdfium2.PdfPage, side: int, keep_text: bool) -> bytes | Image.Image | None:
    """What is drawn on a page; None where that is nothing but text, paper and ornaments."""
    size = page.get_size()
    if min(size) <= 0:
        raise ValueError("it has no size")
    objects = list(_objects(page))
    texts = [one for one in objects if one.type == _TEXT]
    drawn = [one for one in objects if one.type not in (_TEXT, _FORM)]
    hidden = [] if keep_text else [*texts, *_labels(drawn, texts)]
    drawn = [one for one in drawn if one not in hidden]
    if not drawn:
        return None
    images = [one for one in drawn if isinstance(one, pypdfium2.PdfImage)]
    if any(prod(one.get_px_size()) > MAX_PIXELS for one in images):
        raise ValueError(f"a picture on it has more than {MAX_PIXELS // 1_000_000} megapixels")
    for one in hidden:
        pdfium.FPDFPageObj_SetIsActive(one, False)
    if len(drawn) == len(images) == 1 and not (texts and keep_text):
        data = _stored(page, images[0])
        region = _seen(page, images[0])
        return data if data is not None else _ink(page, region, _scale(page, images, region, side))
    return _ink(page, page.get_bbox(), _scale(page, images, page.get_bbox(), side))


def _scale(page: pypdfium2.PdfPage, images: list[pypdfium2.PdfImage], region: _Box, side: int) -> float:
    """Pixels a point: what `side` says, or what large images bring, as long as the region does not grow too large."""
    scale = side / max(page.get_size())
    large = [one for one in images if _area(_seen(page, one)) >= MAIN_SHARE * _area(region)]
    longer = max(region[2] - region[0], region[3] - region[1], 1e-6)
    return max(scale, min(max(map(_density, large), default=0.0), MAX_FITTED / longer))


def _ink(page: pypdfium2.PdfPage, region: _Box, scale: float) -> Image.Image | None:
    """A region of a page, cut down to what is drawn; None where that is one flat color, or an ornament."""
    if _area(region) < MIN_SHARE * _area(page.get_bbox()):
        return None
    width, height = region[2] - region[0], region[3] - region[1]
    if page.get_rotation() % 180:
        width, height = height, width
    pixels = _render(page, region, (max(1, round(width * scale)), max(1, round(height * scale))))
    paper = ImageChops.difference(pixels, Image.new("RGB", pixels.size, "white")).convert("L")
    box = paper.point(lambda value: 255 * (value > PAPER)).getbbox()
    if box is None or len(pixels.getcolors(1) or ()) == 1:
        return None
    share = (box[2] - box[0]) * (box[3] - box[1]) / (pixels.width * pixels.height)
    if share * _area(region) < MIN_SHARE * _area(page.get_bbox()):
        return None
    return pixels.crop(box)


def _render(
    page: pypdfium2.PdfPage, region: _Box, size: tuple[int, int], rows: tuple[int, int] | None = None
) -> Image.Image:
    """A region of a page on white, `size` px large; of that only some rows, if given.

    The region's edges fall just inside the outermost pixels: a picture that fills it is drawn pixel on pixel.
    """
    first, last = rows or (0, size[1])
    corners = [_on_paper(page, region[0], region[1]), _on_paper(page, region[2], region[3])]
    (x0, x1), (y0, y1) = sorted(x for x, _ in corners), sorted(y for _, y in corners)
    inset = 0.05  # px
    a, d = (size[0] - 2 * inset) / max(x1 - x0, 1e-6), (size[1] - 2 * inset) / max(y1 - y0, 1e-6)
    matrix = pypdfium2.PdfMatrix(a, 0, 0, d, inset - x0 * a, inset - first - y0 * d)
    bitmap = pypdfium2.PdfBitmap.new_native(size[0], last - first, pdfium.FPDFBitmap_BGRx)
    bitmap.fill_rect((255, 255, 255, 255), 0, 0, size[0], last - first)
    all_of_it = pdfium.FS_RECTF(0, 0, size[0], last - first)
    pdfium.FPDF_RenderPageBitmapWithMatrix(bitmap, page, matrix, all_of_it, pdfium.FPDF_ANNOT)
    return bitmap.to_pil().convert("RGB")


def _on_paper(page: pypdfium2.PdfPage, x: float, y: float) -> tuple[float, float]:
    """A point of the page's own space as points from the upper left corner of the page as it is seen."""
    fine = min(10_000, 2**30 / max(page.get_size()))  # it answers in whole numbers
    width, height = (round(side * fine) for side in page.get_size())
    right, down = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page, 0, 0, width, height, 0, x, y, right, down)
    return right.value / fine, down.value / fine


def _matrix(one: pypdfium2.PdfObject) -> pypdfium2.PdfMatrix:
    """Where an object stands on the page; pdfium knows that only within the form that holds it."""
    matrix = one.get_matrix()
    while one.container is not None:
        one = one.container
        matrix = matrix.multiply(one.get_matrix())
    return matrix


def _seen(page: pypdfium2.PdfPage, image: pypdfium2.PdfImage) -> _Box:
    """The part of the page that a picture lies on."""
    m = _matrix(image)
    xs, ys = [m.e, m.e + m.a, m.e + m.c, m.e + m.a + m.c], [m.f, m.f + m.b, m.f + m.d, m.f + m.b + m.d]
    left, bottom, right, top = page.get_bbox()
    return max(left, min(xs)), max(bottom, min(ys)), min(right, max(xs)), min(top, max(ys))


def _area(box: _Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _density(image: pypdfium2.PdfImage) -> float:
    """How many of its pixels a picture has on a point of the page."""
    m = _matrix(image)
    width, height = image.get_px_size()
    return max(width / max(hypot(m.a, m.b), 1e-6), height / max(hypot(m.c, m.d), 1e-6))


def _objects(page: pypdfium2.PdfPage) -> Iterator[pypdfium2.PdfObject]:
    for number, one in enumerate(page.get_objects(max_depth=8)):
        if number >= MAX_OBJECTS:
            raise ValueError(f"it has more than {MAX_OBJECTS} objects")
        yield one


def _labels(drawn: list[pypdfium2.PdfObject], texts: list[pypdfium2.PdfObject]) -> list[pypdfium2.PdfObject]:
    """Shapes that lie behind text and away from every photograph: what the text is printed on."""
    images = [one.get_bounds() for one in drawn if one.type == _IMAGE]
    if not images:
        return []  # a drawing of shapes alone, and text may stand anywhere on it
    middles = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in (text.get_bounds() for text in texts)]
    labels = []
    for one in (one for one in drawn if one.type == pdfium.FPDF_PAGEOBJ_PATH):
        x0, y0, x1, y1 = one.get_bounds()
        apart = all(x1 <= left or right <= x0 or y1 <= low or top <= y0 for left, low, right, top in images)
        if apart and any(x0 < x < x1 and y0 < y < y1 for x, y in middles):
            labels.append(one)
    return labels


def _stored(page: pypdfium2.PdfPage, image: pypdfium2.PdfImage) -> bytes | None:
    """The JPEG file of an image that the page shows as it is: upright, whole, unchanged, and not an ornament."""
    turned = page.get_rotation() != 0 or image.level != 0 or pdfium.FPDFPageObj_HasTransparency(image)
    matrix = image.get_matrix()
    if turned or matrix.a <= 0 or matrix.d <= 0 or abs(matrix.b) + abs(matrix.c) > 1e-3 * (matrix.a + matrix.d):
        return None
    if matrix.a * matrix.d < MIN_SHARE * page.get_width() * page.get_height():
        return None
    if image.get_filters(skip_simple=True) != ["DCTDecode"]:
        return None
    data = bytes(image.get_data(decode_simple=True))
    try:
        pixels = load_image(data)
    except ValueError:
        return None  # rendered instead, as a reader of PDF shows it
    if image.get_metadata().bits_per_pixel not in (8, 24) or not _is_shown(page, image, pixels):
        return None
    return data


def _is_shown(page: pypdfium2.PdfPage, image: pypdfium2.PdfImage, pixels: Image.Image) -> bool:
    """Whether a page shows just these pixels where an upright image stands: whole, unstretched, each unchanged."""
    m = image.get_matrix()
    region = (m.e, m.f, m.e + m.a, m.f + m.d)
    left, bottom, right, top = page.get_bbox()
    if min(region[0] - left, region[1] - bottom, right - region[2], top - region[3]) < -0.5:
        return False
    if pixels.size != tuple(image.get_px_size()) or abs(pixels.width * m.d / (pixels.height * m.a) - 1) > 0.01:
        return False
    step = max(1, _BAND // pixels.width)
    for first in range(0, pixels.height, step):
        last = min(first + step, pixels.height)
        shown = _render(page, region, pixels.size, (first, last))
        away = ImageChops.difference(shown, pixels.crop((0, first, pixels.width, last)))
        if np.asarray(away).max() > SAME:
            return False
    return True
