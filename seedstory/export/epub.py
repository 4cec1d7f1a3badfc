"""The book for readers of e-books: EPUB 3 in fixed layout, with alternative texts, a page list and its own fonts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path

from seedstory.export.balloons import balloon_place, fits_balloon
from seedstory.export.book import BLANK, FIXED_DATE, Book, BookDesign, BookPage, direction_of, png_of
from seedstory.export.files import write_export, zip_bytes
from seedstory.export.fitting import fit
from seedstory.export.fonts import BookFonts, make_fonts
from seedstory.story import Story, StoryFolder

WIDTH, HEIGHT = 900, 1200  # of a page in CSS pixels
_SIZES = (40, 36, 33, 30, 27, 24, 21, 18)
_LEADING = 1.45
_MEDIA = {
    ".png": "image/png",
    ".ttf": "font/ttf",
    ".otf": "font/otf",
    ".css": "text/css",
    ".xhtml": "application/xhtml+xml",
}
_CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>
"""
_SUMMARY = (
    "A picture book in fixed layout. Every picture has a description, all words are text in reading order, and pages "
    "have numbers and a list. Words cannot be enlarged apart from the page."
)
_STYLE = """html, body {{ margin: 0; padding: 0; width: {width}px; height: {height}px; overflow: hidden; }}
body {{ background: {paper}; color: {ink}; font-family: {families}, serif; }}
.page {{ position: absolute; inset: 0; }}
img {{ display: block; object-fit: contain; border-radius: 14px; }}
p, h1 {{ margin: 0; overflow-wrap: anywhere; }}
.picture {{ position: absolute; margin: 0; overflow: hidden; border-radius: 14px; }}
.blank {{ display: flex; align-items: center; justify-content: center; box-sizing: border-box; height: 100%;
  border: 3px dashed {soft}; border-radius: 14px; color: {soft}; font-size: 24px; }}
.caption {{ position: absolute; display: flex; align-items: center; line-height: {leading}; }}
.caption p {{ flex: 1; min-width: 0; }}
.balloon {{ position: absolute; box-sizing: border-box; padding: 8px 12px; border: 2px solid {ink}; border-radius: 18px;
  background: {paper}; line-height: 1.3; text-align: center; }}
.folio {{ position: absolute; left: 0; right: 0; bottom: 22px; text-align: center; font-size: 20px; color: {soft}; }}
.matter {{ position: absolute; inset: 80px; display: flex; flex-direction: column; align-items: center;
  justify-content: center; gap: 28px; text-align: center; }}
.matter h1 {{ font-weight: 600; line-height: 1.2; }}
.matter img {{ border-radius: 50% 50% 14px 14px; object-fit: cover; }}
.small {{ font-size: 22px; line-height: 1.5; color: {soft}; }}
.end {{ font-size: 56px; }}
"""


def write_epub(story: Story | StoryFolder, path: str | Path, *, design: BookDesign | None = None) -> Path:
    """Writes a story as an EPUB 3 file in fixed layout.

    The same story gives the same bytes. A caption that does not fit beside its picture goes on on another page.

    Args:
        story: A story in memory, or a story folder.
        path: The file to write, whole or not at all. Its folder must exist.
        design: Layout, colors, author and license.

    Returns:
        The path.

    Raises:
        RequestError: The extra `book` is not installed.
        StoryFolderError: The story has no page, or the file cannot be written.
    """
    book = Book.of(story, design)
    with tempfile.TemporaryDirectory(prefix="seedstory-book-") as name:
        fonts = make_fonts(book.texts(), book.language, Path(name))
        return write_export(path, zip_bytes(_Epub(book, fonts).files()))


class _Epub:
    """The files of one EPUB."""

    def __init__(self, book: Book, fonts: BookFonts) -> None:
        self.book, self.fonts = book, fonts
        self.language = book.language or "en"
        self.page_files: dict[int, str] = {}  # number of a page -> where it begins

    def files(self) -> Iterator[tuple[str, bytes]]:
        yield "mimetype", b"application/epub+zip"
        yield "META-INF/container.xml", _CONTAINER.encode()
        content = {file.path.name: file.path.read_bytes() for file in self.fonts.files}
        content = {f"fonts/{name}": data for name, data in content.items()}
        content["style.css"] = self._style().encode()
        spine = {"title.xhtml": self._title(), "credits.xhtml": self._matter("Credits", self.book.credits)}
        spine |= self._comic(content) if self.book.design.layout == "comic" else self._picture_book(content)
        spine["colophon.xhtml"] = self._matter("Colophon", self.book.colophon, self.book.ending)
        content |= {name: text.encode("utf-8") for name, text in spine.items()}
        yield "EPUB/package.opf", self._package(list(content), list(spine)).encode("utf-8")
        yield "EPUB/nav.xhtml", self._nav().encode("utf-8")
        for name, data in content.items():
            yield f"EPUB/{name}", data

    def _picture_book(self, content: dict[str, bytes]) -> dict[str, str]:
        spine = {}
        for page, image in self.book.images():
            if image is not None:
                content[f"images/page-{page.number}.png"] = png_of(image)
            text = self.fonts.show(page.caption)
            size, parts = fit(text, 756, 270, _SIZES, self.fonts.width, _LEADING)
            name = self.page_files[page.number] = f"page-{page.number}.xhtml"
            picture = self._picture(page, 72, 72, 756, 756)
            caption = self._caption(page, parts[0] if parts else "", 72, 852, 756, 270, size)
            spine[name] = self._page(f"Page {page.number}", [page.number], picture + caption)
            for count, rest in enumerate(self._rest(parts), 2):
                body = self._caption(page, rest, 72, 100, 756, 1000, size)
                spine[f"page-{page.number}-{count}.xhtml"] = self._page(f"Page {page.number}, part {count}", [], body)
        return spine

    def _comic(self, content: dict[str, bytes]) -> dict[str, str]:
        spine = {}
        side, tall, gap = 402, 150, 20
        for group in (self.book.pages[start : start + 4] for start in range(0, len(self.book.pages), 4)):
            body, later = "", []
            for place, page in enumerate(group):
                left, top = 38 + (side + gap) * (place % 2), 30 + (side + tall + gap) * (place // 2)
                image = self.book.image(page.index)
                text = self.fonts.show(page.caption)
                if image is not None:
                    content[f"images/page-{page.number}.png"] = png_of(image)
                body += self._picture(page, left, top, side, side)
                if image is not None and text and self.book.design.balloons and fits_balloon(text):
                    body += self._balloon(page, image, text, left, top, side)
                    continue
                size, parts = fit(text, side, tall - 8, (24, 22, 20, 18, 16), self.fonts.width, 1.3)
                body += self._caption(page, parts[0] if parts else "", left, top + side + 6, side, tall - 8, size, 1.3)
                if parts[1:]:
                    later.append((page, " ".join(parts[1:])))
            name = f"panels-{group[0].number}.xhtml"
            self.page_files |= {page.number: f"{name}#page-{page.number}" for page in group}
            label = f"Panels {group[0].number} to {group[-1].number}"
            spine[name] = self._page(label, [page.number for page in group], body)
            for page, text in later:
                for count, rest in enumerate(fit(text, 756, 1000, _SIZES[3:], self.fonts.width, _LEADING)[1], 2):
                    body = self._caption(page, rest, 72, 100, 756, 1000, _SIZES[-1])
                    spine[f"panel-{page.number}-{count}.xhtml"] = self._page(f"Panel {page.number}", [], body)
        return spine

    def _rest(self, parts: list[str]) -> list[str]:
        """What is left of a caption, in pages of words alone."""
        return fit(" ".join(parts[1:]), 756, 1000, _SIZES[-1:], self.fonts.width, _LEADING)[1] if parts[1:] else []

    def _picture(self, page: BookPage, left: int, top: int, width: int, height: int) -> str:
        place = f"left:{left}px;top:{top}px;width:{width}px;height:{height}px"
        if not page.has_image:
            return f'<div class="picture" style="{place}"><p class="blank" lang="en">{BLANK}</p></div>\n'
        source, alt = f"images/page-{page.number}.png", escape(page.alt)
        return (
            f'<div class="picture" style="{place}">'
            f'<img src="{source}" alt="{alt}" style="width:{width}px;height:{height}px"/></div>\n'
        )

    def _caption(
        self,
        page: BookPage,
        text: str,
        left: int,
        top: int,
        width: int,
        height: int,
        size: int,
        leading: float = _LEADING,
    ) -> str:
        place = f"left:{left}px;top:{top}px;width:{width}px;height:{height}px;font-size:{size}px;line-height:{leading}"
        align = "flex-start" if leading < _LEADING else "center"
        words = f'<p dir="{page.direction}">{escape(text)}</p>' if text else ""
        return f'<div class="caption" style="{place};align-items:{align}">{words}</div>\n'

    def _balloon(self, page: BookPage, image: object, text: str, left: int, top: int, side: int) -> str:
        from PIL import Image

        assert isinstance(image, Image.Image)
        x, y, width, height = balloon_place(image, text, self.fonts.width)
        inner, high = width * side - 28, height * side - 18
        size, _ = fit(text, inner, high, (19, 18, 17, 16, 15, 14, 13, 12, 11, 10), self.fonts.width, 1.3)
        place = f"left:{left + x * side:.0f}px;top:{top + y * side:.0f}px;width:{width * side:.0f}px;font-size:{size}px"
        return f'<div class="balloon" style="{place}"><p dir="{page.direction}">{escape(text)}</p></div>\n'

    def _title(self) -> str:
        book = self.book
        shown = self.fonts.show(book.title)
        size, parts = fit(shown, 740, 330, (64, 56, 48, 42, 36, 30, 26, 22, 18, 14, 12), self.fonts.width, 1.25)
        cover = ""
        if book.pages[0].has_image:
            cover = (
                f'<img src="images/page-1.png" alt="{escape(book.pages[0].alt)}" style="width:440px;height:440px"/>\n'
            )
        author = (
            f'<p dir="auto" style="font-size:28px">{escape(self.fonts.show(book.author))}</p>\n' if book.author else ""
        )
        heading = f'<h1 dir="{direction_of(shown)}" style="font-size:{size}px">{escape(shown)}</h1>'
        byline = f'<p class="small" lang="en">{escape(book.byline)}</p>'
        return self._page(book.title, [], f'<div class="matter">\n{cover}{heading}\n{byline}\n{author}</div>')

    def _matter(self, label: str, lines: list[str], ending: str = "") -> str:
        first = f'<p class="end" lang="en">{ending}</p>\n' if ending else ""
        rest = "\n".join(f'<p class="small" lang="en" dir="auto">{escape(self.fonts.show(line))}</p>' for line in lines)
        return self._page(label, [], f'<div class="matter">\n{first}{rest}\n</div>')

    def _page(self, label: str, numbers: list[int], body: str) -> str:
        marks = "".join(
            f'<span epub:type="pagebreak" role="doc-pagebreak" id="page-{number}" aria-label="{number}"></span>\n'
            for number in numbers
        )
        shown = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}" if numbers else ""
        folio = f'<p class="folio" aria-hidden="true">{shown}</p>\n' if shown else ""
        language = f'lang="{self.language}" xml:lang="{self.language}"'
        return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" {language}>
<head>
<title>{escape(label)}</title>
<meta name="viewport" content="width={WIDTH}, height={HEIGHT}"/>
<link rel="stylesheet" type="text/css" href="style.css"/>
</head>
<body>
<section class="page" aria-label="{escape(label)}">
{marks}{body}{folio}</section>
</body>
</html>
"""

    def _style(self) -> str:
        faces = "".join(
            f'@font-face {{ font-family: "{file.family}"; font-weight: {file.weight}; '
            f'src: url("fonts/{file.path.name}"); }}\n'
            for file in self.fonts.files
        )
        families = ", ".join(f'"{family}"' for family in self.fonts.families)
        colors = self.book.design.colors
        return faces + _STYLE.format(width=WIDTH, height=HEIGHT, families=families, leading=_LEADING, **colors)

    def _nav(self) -> str:
        book = self.book
        pages = "\n".join(f'<li><a href="{self.page_files[page.number]}">{page.number}</a></li>' for page in book.pages)
        entries = "\n".join(
            f'<li><a href="{self.page_files[page.number]}">Page {page.number}</a></li>' for page in book.pages
        )
        return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en">
<head><title>Contents</title></head>
<body>
<nav epub:type="toc" id="toc" role="doc-toc"><h1>Contents</h1>
<ol><li><a href="title.xhtml">{escape(book.title)}</a></li>
{entries}
<li><a href="colophon.xhtml">Colophon</a></li></ol></nav>
<nav epub:type="page-list" role="doc-pagelist" hidden="hidden"><h2>Pages</h2>
<ol>
{pages}
</ol></nav>
<nav epub:type="landmarks" hidden="hidden"><h2>Landmarks</h2>
<ol><li><a epub:type="titlepage" href="title.xhtml">Title page</a></li>
<li><a epub:type="bodymatter" href="{self.page_files[1]}">Start of the story</a></li>
<li><a epub:type="colophon" href="colophon.xhtml">Colophon</a></li></ol></nav>
</body>
</html>
"""

    def _package(self, content: list[str], spine: list[str]) -> str:
        book = self.book
        items = []
        for number, name in enumerate(content, 1):
            cover = ' properties="cover-image"' if name == "images/page-1.png" else ""
            items.append(f'<item id="i{number}" href="{name}" media-type="{_MEDIA[Path(name).suffix]}"{cover}/>')
        numbers = {name: number for number, name in enumerate(content, 1)}
        order = "\n".join(f'<itemref idref="i{numbers[name]}"/>' for name in spine)
        creator = f"<dc:creator>{escape(book.author)}</dc:creator>\n" if book.author else ""
        features = ("alternativeText", "readingOrder", "tableOfContents", "pageNavigation", "pageBreakMarkers")
        access = "\n".join(
            f'<meta property="schema:{name}">{value}</meta>'
            for name, value in [
                *(("accessMode", mode) for mode in ("textual", "visual")),
                *(("accessModeSufficient", mode) for mode in ("textual,visual", "textual")),
                *(("accessibilityFeature", feature) for feature in features),
                ("accessibilityHazard", "none"),
                ("accessibilitySummary", _SUMMARY),
            ]
        )
        joined = "\n".join(items)
        return f"""<?xml version="1.0" encoding="UTF-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">urn:uuid:{book.identifier}</dc:identifier>
<dc:title>{escape(book.title)}</dc:title>
<dc:language>{self.language}</dc:language>
{creator}<dc:rights>{escape(book.license)}</dc:rights>
<dc:contributor id="maker">{escape(book.maker)}</dc:contributor>
<meta refines="#maker" property="role" scheme="marc:relators">bkp</meta>
<meta property="dcterms:modified">{FIXED_DATE}</meta>
<meta property="rendition:layout">pre-paginated</meta>
<meta property="rendition:orientation">auto</meta>
<meta property="rendition:spread">auto</meta>
{access}
</metadata>
<manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
{joined}
</manifest>
<spine page-progression-direction="{direction_of(book.title)}">
{order}
</spine>
</package>
"""
