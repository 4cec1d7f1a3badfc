"""EPUB picture books: the pictures and texts of the spine in reading order, put together as pages."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from data_tools.drops import Drop
from data_tools.importers.archive import Archive
from data_tools.importers.facing import Leaf, pair
from data_tools.importers.files import files_of
from data_tools.importers.harvest import (
    MAX_CAPTION,
    Facts,
    Imported,
    Source,
    Story,
    Target,
    clean_text,
    decode_text,
    licence_name,
)

MIN_SIDE = 96  # px; smaller pictures are ornaments
MAX_DOCUMENTS = 5_000
_HIDDEN = {"script", "style", "head", "template", "rt", "rp"}
_BLOCKS = {"p", "div", "br", "li", "tr", "td", "section", "blockquote", "figcaption", *(f"h{n}" for n in range(1, 7))}
_MATTER = {"cover", "titlepage", "copyright-page", "colophon", "toc", "imprint", "frontmatter", "backmatter"}
_ROLES = {"aut": "Text", "ill": "Illustration", "art": "Illustration", "trl": "Translation"}
_DC = "{http://purl.org/dc/elements/1.1/}"
_OPF = "{http://www.idpf.org/2007/opf}"


@dataclass(frozen=True)
class Picture:
    """A picture of the book."""

    member: str
    alt: str = ""


class Reader(HTMLParser):
    """Text and pictures of one document, in order.

    Attributes:
        events: ("text", words, "") and ("picture", address, description).
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.events: list[tuple[str, str, str]] = []
        self._body: set[str] = set()
        self._sections: list[set[str]] = []
        self._hidden = 0
        self._size = 0

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
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "img" and said.get("src"):
            self.events.append(("picture", said["src"], said.get("alt", "")))
        elif tag == "image":  # of SVG
            address = said.get("xlink:href") or said.get("href")
            if address:
                self.events.append(("picture", address, ""))
        elif tag in _BLOCKS:
            self.events.append(("text", " ", ""))

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
            story = Story(source.id, target)
            for picture, text in pair(leaves_of(_documents(archive, documents, story)), text_first=text_first):
                try:
                    data = archive.read(picture.member)
                except ValueError as error:
                    story.drop_page("unreadable-picture", str(error))
                    continue
                story.add(data, text, alt=picture.alt, source=picture.member, min_side=MIN_SIDE)
            return story.finish(facts)
    except ValueError as error:
        return Imported([], [Drop(source.id, None, "unreadable-book", str(error))])


def _documents(archive: Archive, names: list[str], story: Story) -> Iterator[tuple[str, Reader]]:
    for name in names:
        try:
            reader = Reader()
            reader.feed(_tame(decode_text(archive.read(name), name)))
            reader.close()
        except ValueError as error:
            story.drops.append(Drop(story.id, None, "unreadable-text", str(error)))
            continue
        yield name, reader


def leaves_of(documents: Iterable[tuple[str, Reader]]) -> Iterator[Leaf[Picture]]:
    """Puts the text of a document to its pictures.

    All text belongs to the one picture of a document, wherever it stands; where there are several, to the one before
    it, and what precedes the first to the first. Documents marked as cover, title page, contents or imprint are no
    pages.
    """
    for name, reader in documents:
        if reader.is_matter():
            continue
        pictures: list[Picture] = []
        texts: list[list[str]] = [[]]
        for kind, value, alt in reader.events:
            member = _resolve(name, value) if kind == "picture" else None
            if member is not None:
                if pictures:
                    texts.append([])
                pictures.append(Picture(member, alt))
            elif kind == "text":
                texts[-1].append(value)
        if pictures:
            yield from (Leaf(one, "".join(text)) for one, text in zip(pictures, texts, strict=True))
        else:
            yield Leaf(None, "".join(texts[0]))


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


def _package(archive: Archive, path: str) -> tuple[Facts, list[str]]:
    """What the package document says of the book, and its documents in reading order."""
    root = parse_xml(archive.read(path), path)
    said = [(item.tag.removeprefix(_DC), item) for item in root.iter() if isinstance(item.tag, str) and item.text]
    first: dict[str, str] = {}
    for key, item in said:
        first.setdefault(key, clean_text(item.text or "")[:MAX_CAPTION])
    roles = {
        (item.get("refines") or "").lstrip("#"): (item.text or "").strip()
        for item in root.iter(f"{_OPF}meta")
        if item.get("property") == "role"
    }
    credit: dict[str, str] = {}
    for key, item in said:
        if key in ("creator", "contributor"):
            role = roles.get(item.get("id") or "") or item.get(f"{_OPF}role") or "aut"
            if role in _ROLES:
                kind, name = _ROLES[role], clean_text(item.text or "")
                credit[kind] = f"{credit[kind]}, {name}" if kind in credit else name
    facts = Facts(
        title=first.get("title"),
        license=licence_name(first.get("rights")),
        credit=credit or None,
        language=first.get("language"),
    )
    manifest = {item.get("id"): item for item in root.iter(f"{_OPF}item")}
    documents = []
    for reference in root.iter(f"{_OPF}itemref"):
        entry = manifest.get(reference.get("idref"))
        if entry is None or reference.get("linear") == "no" or "nav" in (entry.get("properties") or "").split():
            continue
        member = _resolve(path, entry.get("href") or "")
        if member and "html" in (entry.get("media-type") or ""):
            documents.append(member)
    if not documents:
        raise ValueError(f"{path} lists no document to read")
    return facts, documents[:MAX_DOCUMENTS]


def parse_xml(data: bytes, name: str) -> ElementTree.Element:
    """A small XML document without entities of its own.

    Raises:
        ValueError: It is no XML, or declares entities, by which a few bytes can unfold into gigabytes.
    """
    if b"<!ENTITY" in data or b"\x00" in data[:200]:
        raise ValueError(f"{name} declares entities or is not UTF-8: it is not read")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise ValueError(f"{name} is not XML ({error})") from None
