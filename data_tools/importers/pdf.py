"""PDF picture books: a page's text, and its picture without the text that is printed on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image, ImageChops

from data_tools.drops import Drop
from data_tools.importers.facing import Leaf, pair
from data_tools.importers.files import files_of
from data_tools.importers.harvest import Facts, Imported, Source, Story, Target, clean_text, licence_name
from seedstory.picture import MAX_PIXELS, read_picture

MAX_BYTES = 512 * 2**20
MAX_PAGES = 2_000
MAX_OBJECTS = 50_000  # of one page
MIN_SIDE = 96  # px
MIN_SHARE = 0.04  # of the page's area; what is drawn smaller is an ornament
PAPER = 12  # of 255: how far from white paper may be
_PROOF = 256  # px: longer side of a picture that is rendered to be compared with its file
_GRID = 24  # cells a side in which they are compared
_ALIKE = 6.0  # of 255: how far they may be apart on the average, and four times that in any cell
_TEXT, _IMAGE, _FORM = pdfium.FPDF_PAGEOBJ_TEXT, pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_FORM


def find(paths: list[Path]) -> list[Source]:
    """The PDF files that some paths name, or that lie in some folders."""
    return files_of(paths, (".pdf",), "PDF file")


def convert(
    source: Source, target: Target, *, side: int = 1024, keep_text: bool = False, text_first: bool = False
) -> Imported:
    """Imports one PDF file.

    A page whose only picture is a JPEG, and shows it as it is, is stored as that file. Any other page is rendered
    without its text and cut down to what is drawn. Text on a page without picture goes to a picture near it.

    Args:
        source: The file.
        target: Where to store.
        side: Longer side in px of a rendered page.
        keep_text: Render pages with the text on them.
        text_first: See `facing.pair`.
    """
    try:
        if source.path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MB")
        document = pypdfium2.PdfDocument(source.path)
    except (pypdfium2.PdfiumError, ValueError, OSError) as error:
        return Imported([], [Drop(source.id, None, "unreadable-book", f"{source.path.name}: {error}")])
    with document:
        story = Story(source.id, target)
        for (picture, number), text in pair(_leaves(document, story, side, keep_text), text_first=text_first):
            story.add(picture, text, source=f"page {number}", min_side=MIN_SIDE, source_page=number)
        said = document.get_metadata_dict(skip_empty=True)
    rights = next((value for value in said.values() if "creativecommons.org" in value), None)
    credit = {"Text": clean_text(said["Author"])} if said.get("Author") else None
    title = clean_text(said.get("Title", "")) or None
    return story.finish(Facts(title=title, license=licence_name(rights), credit=credit))


def _leaves(
    document: pypdfium2.PdfDocument, story: Story, side: int, keep_text: bool
) -> Iterator[Leaf[tuple[bytes | Image.Image, int]]]:
    """The pages, each with its number."""
    for number in range(1, min(len(document), MAX_PAGES) + 1):
        try:
            page = document[number - 1]
            text = _text(page)
            picture = _picture(page, side, keep_text)
        except (pypdfium2.PdfiumError, ValueError, OSError) as error:
            story.drop_page("unreadable-page", f"page {number}: {error}")
            continue
        yield Leaf((picture, number) if picture is not None else None, text)
    if len(document) > MAX_PAGES:
        detail = f"{len(document)} pages, the first {MAX_PAGES} were read"
        story.drops.append(Drop(story.id, None, "too-many-pages", detail))


def _text(page: pypdfium2.PdfPage) -> str:
    """The text of a page, without a page number that stands alone and without hyphens at line ends."""
    lines = page.get_textpage().get_text_bounded().splitlines()
    text = "\n".join(line.strip() for line in lines if not re.fullmatch(r"\s*\d{1,4}\s*", line))
    return re.sub(r"(?<=\w)[\u00ad\ufffe\u2010-]\n(?=[a-zà-ÿ])", "", text)


def _picture(page: pypdfium2.PdfPage, side: int, keep_text: bool) -> bytes | Image.Image | None:
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
    for one in drawn:
        if isinstance(one, pypdfium2.PdfImage) and prod(one.get_px_size()) > MAX_PIXELS:
            raise ValueError(f"a picture on it has more than {MAX_PIXELS // 1_000_000} megapixels")
    for one in hidden:
        pdfium.FPDFPageObj_SetIsActive(one, False)
    if len(drawn) == 1 and isinstance(drawn[0], pypdfium2.PdfImage) and not (texts and keep_text):
        data = _stored(page, drawn[0])
        if data is not None:
            return data
    pixels = page.render(scale=side / max(size), may_draw_forms=False).to_pil().convert("RGB")
    paper = ImageChops.difference(pixels, Image.new("RGB", pixels.size, "white")).convert("L")
    box = paper.point(lambda value: 255 * (value > PAPER)).getbbox()
    flat = all(low == high for low, high in pixels.getextrema())
    if box is None or flat or (box[2] - box[0]) * (box[3] - box[1]) < MIN_SHARE * pixels.width * pixels.height:
        return None
    return pixels.crop(box)


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
    """The JPEG file of an image that the page shows as it is: upright, opaque, and not a mere ornament."""
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
        picture = read_picture(data)
    except ValueError:
        return None  # rendered instead, as a reader of PDF shows it
    return data if _is_shown(page, image, picture) else None


def _is_shown(page: pypdfium2.PdfPage, image: pypdfium2.PdfImage, picture: Image.Image) -> bool:
    """Whether a page shows a picture as its file has it.

    Soft masks, clips, inverted colours, blending and overprint are all found in one way: the place of the picture is
    rendered, and must look like the picture.
    """
    left, bottom, right, top = image.get_bounds()
    width, height = page.get_size()
    if left < -1 or bottom < -1 or right > width + 1 or top > height + 1:
        return False  # the edge of the page cuts it off
    scale = _PROOF / max(right - left, top - bottom)
    crop = tuple(max(0.0, edge) for edge in (left, bottom, width - right, height - top))
    shown = page.render(scale=scale, crop=crop, may_draw_forms=False).to_pil().convert("RGB")
    apart = np.abs(_coarse(shown) - _coarse(picture))
    return bool(apart.mean() <= _ALIKE and apart.max() <= 4 * _ALIKE)


def _coarse(picture: Image.Image) -> np.ndarray:
    """A picture as a coarse grid of colours, in which neither scaling nor rounding shows."""
    return np.asarray(picture.resize((_GRID, _GRID), Image.Resampling.BOX), np.float32)
