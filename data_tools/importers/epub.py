"""EPUB picture books: the pictures and texts of the spine in reading order, put together as pages."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

from data_tools.drops import Drop
from data_tools.importers.archive import Archive
from data_tools.importers.facing import FacingPage, pair
from data_tools.importers.files import files_of
from data_tools.importers.markup import SHAPES, background_in, backgrounds_of, data_url, parse_xml, render_svg
from data_tools.importers.run_import import (
    MAX_CAPTION,
    Imported,
    Metadata,
    RecordBuilder,
    Source,
    Target,
    decode_text,
    license_name,
)
from seedstory.text import clean_text

MIN_SIDE = 96  # px; smaller pictures are ornaments
MAX_DOCUMENTS = 5_000
_HIDDEN = {"script", "style", "head", "template", "rt", "rp"}
_BLOCKS = {"p", "div", "br", "li", "tr", "td", "section", "blockquote", "figcaption", *(f"h{n}" for n in range(1, 7))}
_MATTER = {"cover", "titlepage", "copyright-page", "colophon", "toc", "imprint", "frontmatter", "backmatter"}
_ROLES = {"aut": "Text", "ill": "Illustration", "art": "Illustration", "trl": "Translation"}
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
_OPF = "{http://www.idpf.org/2007/opf}"


@dataclass(frozen=True)
class LinkedImage:
    """A picture of the book: a member, a `data:` address, pixels made here; or one elsewhere, which is not read."""

    member: str
    alt: str = ""
    elsewhere: bool = False
    pixels: Image.Image | None = None

    def read(self, archive: Archive) -> bytes | Image.Image:
        """Its file, or its pixels.

        Raises:
            ValueError: There is no such member, or it is damaged.
        """
        if self.pixels is not None:
            return self.pixels
        return data_url(self.member) if self.member.startswith("data:") else archive.read(archive.find(self.member))

    @property
    def name(self) -> str:
        """What to call it."""
        return self.member[:60]


class Reader(HTMLParser):
    """Text and pictures of one document, in order.

    Attributes:
        events: ("text", words, ""), ("picture", address, description) and ("background", address, "").

    Args:
        backgrounds: Addresses of background pictures by the tags, `.classes` and `#ids` that have them.
    """

    def __init__(self, backgrounds: Mapping[str, str] | None = None) -> None:
        super().__init__(convert_charrefs=True)
        self._backgrounds = backgrounds or {}
        self.events: list[tuple[str, str, str]] = []
        self._body: set[str] = set()
        self._sections: list[set[str]] = []
        self._hidden = 0
        self.pixels: Image.Image | None = None

    def is_matter(self) -> bool:
        """Whether the document, or the one section that it is, is marked as no part of the story."""
        sole = self._sections[0] if len(self._sections) == 1 else set()
        return bool((self._body | sole) & _MATTER)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {key: value or "" for key, value in attrs}
        if tag == "body":
            self._body.update(said.get("epub:type", "").split())
        elif tag == "section":
            self._sections.append(set(said.get("epub:type", "").split()))
        self._add_background(tag, said)
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "object" and said.get("data") and said.get("type", "image").startswith("image"):
            self.events.append(("picture", said["data"], said.get("title", "")))
        elif tag == "img" and said.get("src"):
            self.events.append(("picture", said["src"], said.get("alt", "")))
        elif tag == "image":  # of SVG
            address = said.get("xlink:href") or said.get("href")
            if address:
                self.events.append(("picture", address, ""))
        elif tag in _BLOCKS:
            self.events.append(("text", " ", ""))

    def _add_background(self, tag: str, said: Mapping[str, str]) -> None:
        marks = [tag, *(f".{name}" for name in said.get("class", "").split()), f"#{said.get('id', '')}"]
        address = background_in(said.get("style", "")) or next(
            (self._backgrounds[mark] for mark in marks[::-1] if mark in self._backgrounds), ""
        )
        if address:
            self.events.append(("background", address, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in _HIDDEN:
            self._hidden -= 1

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag in _BLOCKS:
            self.events.append(("text", " ", ""))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.events.append(("text", data, ""))


def find(paths: list[Path]) -> list[Source]:
    """The EPUB files that some paths name, or that lie in some folders."""
    return files_of(paths, (".epub",), "EPUB file")


def convert(source: Source, target: Target, *, text_first: bool = False) -> Imported:
    """Imports one EPUB file; for `text_first`, see `facing.pair`."""
    try:
        with Archive(source.path) as archive:
            facts, documents = _package(archive, _package_path(archive))
            story = RecordBuilder(source.id, target)
            for image, text in pair(facing_pages(_documents(archive, documents, story)), text_first=text_first):
                if image.elsewhere:
                    story.drop_page("picture-elsewhere", f"{image.name} is not in the book")
                    continue
                try:
                    data = image.read(archive)
                except ValueError as error:
                    story.drop_page("unreadable-picture", str(error))
                    continue
                story.add(data, text, alt=image.alt, source=image.name, min_side=MIN_SIDE)
            return story.finish(facts)
    except ValueError as error:
        return Imported.dropped(source.id, "unreadable-book", error)


def _documents(archive: Archive, names: list[str], story: RecordBuilder) -> Iterator[tuple[str, Reader]]:
    for name in names:
        try:
            if name.lower().endswith(_IMAGES):
                reader = Reader()
                reader.events.append(("picture", f"/{name}", ""))
            elif name.lower().endswith(".svg"):
                reader = _svg_page(archive, name, story)
            else:
                text = decode_text(archive.read(archive.find(name)), name)
                reader = Reader(_style_sheets(archive, name, text))
                reader.feed(_tame(text))
                reader.close()
        except ValueError as error:
            story.drops.append(Drop(story.id, None, "unreadable-text", str(error)))
            continue
        yield name, reader


def _svg_page(archive: Archive, name: str, story: RecordBuilder) -> Reader:
    """A page that is an SVG document: its one picture as it is, if it shows nothing else; or else rendered."""

    def fetch(address: str) -> bytes | None:
        image = _image(name, address)
        try:
            data = None if image is None or image.elsewhere else image.read(archive)
            return data if isinstance(data, bytes) else None
        except ValueError as error:
            story.drops.append(Drop(story.id, None, "unreadable-picture", f"{name}: {error}"))
            return None

    data, reader = archive.read(archive.find(name)), Reader()
    shapes = [item.tag for item in parse_xml(data, name).iter() if item.tag in SHAPES]
    if shapes == ["image"]:
        reader.feed(_tame(decode_text(data, name)))
        reader.close()
        return reader
    pixels, text = render_svg(data, name, fetch)
    reader.events.append(("text", text, ""))
    reader.pixels = pixels
    return reader


def _style_sheets(archive: Archive, document: str, text: str) -> dict[str, str]:
    """Background pictures of a document's style sheets, as addresses from the root of the book."""
    sheets = [(document, css) for css in re.findall(r"<style[^>]*>(.{1,100000}?)</style", text, re.S | re.I)]
    for link in re.findall(r"<link\b[^<>]{0,500}>", text, re.I)[:20]:
        href = re.search(r"href\s*=\s*[\"']([^\"']+)", link, re.I)
        sheet = _resolve(document, href[1]) if href and "stylesheet" in link.lower() else None
        if sheet:
            with suppress(ValueError):  # a missing style sheet costs no page
                sheets.append((sheet, decode_text(archive.read(archive.find(sheet)), sheet)))
    found: dict[str, str] = {}
    for sheet, css in sheets:
        for mark, address in backgrounds_of(css).items():
            member = _resolve(sheet, address)
            found[mark] = f"/{member}" if member else address
    return found


def facing_pages(documents: Iterable[tuple[str, Reader]]) -> Iterator[FacingPage[LinkedImage]]:
    """Puts the text of a document to its pictures.

    All text belongs to the one picture of a document, wherever it stands; where there are several, to the one before
    it, and what precedes the first to the first. Documents marked as cover, title page, contents or imprint are no
    pages.
    """
    for name, reader in documents:
        if reader.is_matter():
            continue
        images: list[LinkedImage] = []
        texts: list[list[str]] = [[]]
        # Backgrounds are ornaments, but where a page has no other picture.
        wanted = "picture" if any(kind == "picture" for kind, _, _ in reader.events) else "background"
        if reader.pixels is not None:
            images.append(LinkedImage(name, pixels=reader.pixels))
        for kind, value, alt in reader.events:
            image = _image(name, value, alt) if kind == wanted else None
            if image is not None and image not in images[-1:]:
                if images:
                    texts.append([])
                images.append(image)
            elif kind == "text":
                texts[-1].append(value)
        if images:
            yield from (FacingPage(one, "".join(text)) for one, text in zip(images, texts, strict=True))
        else:
            yield FacingPage(None, "".join(texts[0]))


def _image(document: str, address: str, alt: str = "") -> LinkedImage | None:
    """The picture at an address in a document; None where the address is empty."""
    address = address.strip()
    if address.startswith("data:"):
        return LinkedImage(address, alt)
    if address.startswith("/") and not address.startswith("//"):
        member: str | None = posixpath.normpath(address[1:])
    else:
        member = _resolve(document, address)
    if member and not member.startswith(("../", "/")):
        return LinkedImage(member, alt)
    return LinkedImage(address, alt, elsewhere=True) if address.partition("#")[0] else None


def _tame(text: str) -> str:
    """HTML without comments and declarations, each `<` a tag or escaped: the parser takes linear time on the rest."""
    for start, end in (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!", ">")):
        head, *parts = text.split(start)
        text = head + "".join(part.partition(end)[2] for part in parts)
    return re.sub(r"<(?=[^<>]*(?:<|\Z))", "&lt;", text)


def _resolve(document: str, address: str) -> str | None:
    """The member that an address in a document means; None for one outside the book."""
    address = unquote(address.strip().partition("#")[0])
    if not address or re.match(r"[a-zA-Z][\w+.-]*:|/", address):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(document), address))
    return None if path.startswith("../") else path


def _package_path(archive: Archive) -> str:
    root = parse_xml(archive.read("META-INF/container.xml"), "META-INF/container.xml")
    found = [item.get("full-path") for item in root.iter() if item.tag.endswith("rootfile")]
    if not found or not found[0]:
        raise ValueError("META-INF/container.xml names no package document")
    return found[0]


def _package(archive: Archive, path: str) -> tuple[Metadata, list[str]]:
    """What the package document says of the book, and its documents in reading order."""
    root = parse_xml(archive.read(archive.find(path)), path)
    said = [(item.tag, item) for item in root.iter() if isinstance(item.tag, str) and item.text]
    first: dict[str, str] = {}
    for key, item in said:
        first.setdefault(key, clean_text(item.text or "")[:MAX_CAPTION])
    roles = {
        (item.get("refines") or "").lstrip("#"): (item.text or "").strip()
        for item in root.iter("meta")
        if item.get("property") == "role"
    }
    credit: dict[str, str] = {}
    for key, item in said:
        if key in ("creator", "contributor"):
            role = roles.get(item.get("id") or "") or item.get(f"{_OPF}role") or item.get("role") or "aut"
            if role in _ROLES:
                kind, name = _ROLES[role], clean_text(item.text or "")
                credit[kind] = f"{credit[kind]}, {name}" if kind in credit else name
    facts = Metadata(
        title=first.get("title"),
        license=license_name(first.get("rights")),
        credit=credit or None,
        language=first.get("language"),
    )
    manifest = {item.get("id"): item for item in root.iter("item")}
    documents = []
    for reference in root.iter("itemref"):
        entry = manifest.get(reference.get("idref"))
        if entry is None or reference.get("linear") == "no" or "nav" in (entry.get("properties") or "").split():
            continue
        member = _resolve(path, entry.get("href") or "")
        if member and re.search("html|svg|^image/", entry.get("media-type") or ""):
            documents.append(member)
    if not documents:
        raise ValueError(f"{path} lists no document to read")
    return facts, documents[:MAX_DOCUMENTS]
