"""Picture books as folders of pages with Markdown or text beside them.

The files in a folder decide which of three layouts it has:

- African Storybook: `LANGUAGE/0004_name.md`, whose pages are parted by lines of `##` and whose last page lists license
  and credits; its pictures are `0004/01.jpg` ...: 01 the cover, 02 the first page; one more may be the back cover.
- Book Dash, and any Markdown with pictures in it: `![description](images/01.jpg)` and then the text of the page.
- A plain folder: pictures with `01.txt` beside `01.jpg`, or with one text whose pages are parted by lines of `##`,
  `## BookPage 3` or `---`, or by form feeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from data_tools.folder import IMAGES
from data_tools.importers.run_import import (
    MAX_CAPTION,
    Imported,
    Metadata,
    RecordBuilder,
    Source,
    Target,
    is_inside,
    license_name,
    natural_key,
    read_text,
    unique_ids,
)
from seedstory.text import clean_text

TEXTS = (".md", ".markdown", ".txt")
_NUMBERED = re.compile(r"(\d{4})_.+\.md")
# Repetitions are bounded here and in `plain`, so that no text takes longer than its length.
_IMAGE = re.compile(
    r"!\[(?P<alt>[^\]]{0,2000})\]\([ \t]*"
    r"(?P<path><[^>\n]{0,500}>|(?:\{\{[^}\n]{0,80}\}\}|(?!\{\{)[^\s)]){0,500})"
    r"(?:[ \t][^)\n]{0,500})?\)(?:\{:[^}\n]{0,200}\})?"
)
_FACT = re.compile(r"^\* *([A-Z][\w ]{0,30}): *(.+)$", re.M)
_PAGE_BREAK = re.compile(r"^(?:##[ \t]{0,4}(?:page)?[ \t]{0,4}\d{0,4}|-{3,9}|\*{3,9})[ \t]{0,9}$|\f", re.M | re.I)
_MARKUP = re.compile(r"<!--.{0,2000}?-->|\{%.{0,500}?%\}|\{:[^{}\n]{0,200}\}|<[a-zA-Z/][^<>]{0,500}>", re.M | re.S)
_ESCAPED = 0xE000  # where escaped characters stay while marks are taken away
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z]{2,8})?")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.S)
_PEOPLE = ("text", "author", "illustration", "illustrator", "translation", "creator", "contributor", "design")
_NO_PEOPLE = ("license", "licence", "language", "title", "level", "source", "url")


@dataclass(frozen=True)
class BookPage:
    """One page as the text has it; `image` is a path relative to the text."""

    image: str
    caption: str
    alt: str = ""


def find(paths: list[Path], images: list[Path], only: str | None = None) -> list[Source]:
    """The books in some folders.

    Args:
        paths: Folders that the user named.
        images: Folders with the pictures of African Storybook's texts, the best first; `paths` are tried after them.
        only: Only books in folders of this name, such as the code of a language.

    Raises:
        ValueError: A path is no folder, or there is no book in any of them.
    """
    for path in [*paths, *images]:
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder: name one that holds picture books")
    found = [book for root in paths for book in _scan(root, [*images, *paths], only)]
    if not found:
        where = f"{f'a folder {only!r} of ' if only else ''}{', '.join(map(str, paths))}"
        raise ValueError(f"there is no picture book in {where}: it needs pictures beside Markdown or text")
    ids = unique_ids(name for name, *_ in found)
    return [Source(one, text, root, beside) for one, (_, text, root, beside) in zip(ids, found, strict=True)]


def convert(source: Source, target: Target) -> Imported:
    """Imports one book; `source.path` is its text, or its folder where each page has a text of its own."""
    assert source.root is not None
    if source.path.is_dir():
        return _folder(source, target)
    name = source.path.relative_to(source.root).as_posix()
    if not is_inside(source.path, source.root):
        return Imported.dropped(source.id, "outside-the-source", f"{name} is a link to elsewhere")
    try:
        front, body = front_matter(read_text(source.path, name), name)
    except ValueError as error:
        return Imported.dropped(source.id, "unreadable-text", error)
    facts = _facts(front, body).filled_from(_catalog(source)).filled_from(Metadata(language=_language(source)))
    if _NUMBERED.fullmatch(source.path.name):
        return _numbered(source, target, body, facts)
    if _IMAGE.search(body):
        return _linked(source, target, body, facts)
    return _parted(source, target, body, facts)


def linked_pages(body: str) -> Iterator[BookPage]:
    """Pages of Markdown with pictures: a picture and the text up to the next; what precedes the first is no page."""
    found = list(_IMAGE.finditer(body))
    for place, match in enumerate(found):
        end = found[place + 1].start() if place + 1 < len(found) else len(body)
        path = re.sub(r"\{\{[^}]*\}\}", "", match["path"].strip("<>")).lstrip("/")
        yield BookPage(unquote(path), plain(body[match.end() : end]), plain(match["alt"]))


def plain(markdown: str) -> str:
    """Markdown as plain text on one line: what is marked up is kept, the marks are not."""
    text = re.sub(r"\\([\\`*_{}\[\]()#+.!-])", lambda found: chr(_ESCAPED + ord(found[1])), markdown[: 4 * MAX_CAPTION])
    text = re.sub(r"(?<=\w)-\n(?=\w)", "-", _MARKUP.sub(" ", text))
    text = re.sub(r"^[ \t]{0,3}(?:#{1,6}[ \t]+|>[ \t]?|[-*_]{3,9}[ \t]*$|[*+-][ \t]+)", "", text, flags=re.M)
    text = re.sub(r"!?\[([^\[\]]{0,500})\]\([^()]{0,500}\)", r"\1", text)
    text = re.sub(r"(\*{1,3}|(?<!\w)_{1,3})(?=\S)(.{1,500}?)(?<=\S)\1(?!\w)", r"\2", text)
    return clean_text("".join(chr(ord(c) - _ESCAPED) if _ESCAPED < ord(c) < _ESCAPED + 128 else c for c in text))


def front_matter(text: str, name: str) -> tuple[dict[str, Any], str]:
    """The YAML block at the head of a Markdown file, and the rest.

    Raises:
        ValueError: The block is no YAML mapping; the message begins with `name`.
    """
    text = text.replace("\r\n", "\n")
    match = _FRONT_MATTER.match(text)
    if not match or not re.search(r"^[\w-]+:", match[1], re.M):
        return {}, text
    return yaml_mapping(match[1], name), text[match.end() :]


def yaml_mapping(text: str, name: str) -> dict[str, Any]:
    """A YAML mapping from outside; see `front_matter`."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{name} has a YAML block that cannot be read ({str(error).splitlines()[0]})") from None
    return data if isinstance(data, dict) else {}


def _scan(root: Path, banks: list[Path], only: str | None) -> Iterator[tuple[str, Path, Path, tuple[Path, ...]]]:
    """(name, text or folder, root, folders that belong to it) of each book."""
    folders = sorted({p.parent for p in root.rglob("*") if p.suffix.lower() in (*TEXTS, *IMAGES)}, key=natural_key)
    for folder in folders:
        parts = folder.relative_to(root).parts
        if any(part.startswith((".", "_")) for part in parts) or (only and only not in (root.name, *parts)):
            continue
        place = "-".join(part for part in parts if part != only) or root.name
        texts = [p for p in _files(folder, TEXTS) if p.stem.lower() not in ("readme", "license", "licence")]
        images = {p.stem for p in _files(folder, IMAGES)}
        numbered = [text for text in texts if _NUMBERED.fullmatch(text.name)]
        linked = [text for text in texts if text not in numbered and _has_images(text)]
        others = [text for text in texts if text not in numbered and text not in linked]
        for text in numbered:
            number = text.name[:4]
            yield f"{place}-{number}", text, root, tuple(b / number for b in banks if (b / number).is_dir())[:1]
        for text in linked:
            name = place if len(linked) == 1 else f"{place}-{text.stem}"
            yield name, text, root, tuple(p for p in (folder / "images",) if p.is_dir())
        if images and any(text.stem in images for text in others):
            yield place, folder, root, ()
        elif images and len(others) == 1:
            yield place, others[0], root, (folder,)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted((p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file()), key=natural_key)


def _has_images(text: Path) -> bool:
    try:
        return _IMAGE.search(read_text(text, text.name)) is not None
    except (ValueError, OSError):
        return text.name == "index.md"  # a broken book is a book: it is counted when it is read


def _numbered(source: Source, target: Target, body: str, facts: Metadata) -> Imported:
    """African Storybook."""
    title, *pages = re.split(r"^##[ \t]*$", body, flags=re.M)
    captions = [plain(page) for page in pages if not _FACT.search(page)]
    if not source.beside:
        detail = f"no folder {source.path.name[:4]} with its pictures"
        return Imported.dropped(source.id, "no-pictures", detail)
    images = _files(source.beside[0], IMAGES)
    if len(images) - 1 not in (len(captions), len(captions) + 1):
        detail = f"{len(images)} pictures for a cover and {len(captions)} pages"
        return Imported.dropped(source.id, "pages-and-pictures-differ", detail)
    story = RecordBuilder(source.id, target)
    for image, caption in zip(images[1:], captions, strict=False):
        story.add_file(image, source.beside[0], caption)
    return story.finish(facts.filled_from(Metadata(title=plain(title) or None)))


def _linked(source: Source, target: Target, body: str, facts: Metadata) -> Imported:
    """Book Dash, and other Markdown with pictures in it."""
    assert source.root is not None
    story = RecordBuilder(source.id, target)
    folder = source.path.parent
    for page in linked_pages(body):
        if re.match(r"[a-zA-Z][\w+.-]*:", page.image):
            story.drop_page("picture-not-local", page.image)
            continue
        # A path that begins with a template variable was left without its folder: look where Jekyll books have it.
        candidates = [folder / page.image, folder / "images" / page.image]
        candidates += sorted((p / page.image for p in folder.glob("images/*/")), key=natural_key)
        image = next((p for p in candidates if p.is_file()), None)
        if image is None:
            story.drop_page("missing-picture", page.image)
        else:
            story.add_file(image, source.root, page.caption, alt=page.alt)
    return story.finish(facts)


def _parted(source: Source, target: Target, body: str, facts: Metadata) -> Imported:
    """A folder of pictures and one text."""
    folder = source.path.parent
    heading = re.match(r"\s*#\s+(.+)\n", body)
    body = body[heading.end() :] if heading else body
    parts = [part for part in _PAGE_BREAK.split(body) if not _FACT.search(part)]
    captions = [plain(part) for part in parts]
    if captions and not captions[0]:
        captions = captions[1:]
    images = _files(folder, IMAGES)
    if len(images) - len(captions) not in (0, 1):
        detail = f"{len(images)} pictures for {len(captions)} pages of text (one more picture is a cover)"
        return Imported.dropped(source.id, "pages-and-pictures-differ", detail)
    story = RecordBuilder(source.id, target)
    for image, caption in zip(images[len(images) - len(captions) :], captions, strict=True):
        story.add_file(image, folder, caption)
    return story.finish(facts.filled_from(Metadata(title=folder.name)))


def _folder(source: Source, target: Target) -> Imported:
    """A folder with one text for each picture."""
    assert source.root is not None
    story = RecordBuilder(source.id, target)
    texts = {text.stem: text for text in _files(source.path, TEXTS) if is_inside(text, source.root)}
    for image in _files(source.path, IMAGES):
        text = texts.get(image.stem)
        try:
            caption = plain(read_text(text, text.name)) if text else ""
        except ValueError as error:
            story.drop_page("unreadable-text", str(error))
            continue
        story.add_file(image, source.root, caption)
    return story.finish(Metadata(title=source.path.name))


def _facts(front: dict[str, Any], body: str) -> Metadata:
    """What front matter, a first heading and a list of `* Key: value` say."""
    listed = {key.strip().lower(): clean_text(value) for key, value in _FACT.findall(body)}
    heading = re.search(r"^#\s+(.+)$", body, re.M)
    said = {str(key).lower(): value for key, value in front.items()} | listed
    people = [key for key in said if key in _PEOPLE or (key in listed and key not in _NO_PEOPLE)]
    credit = {key.capitalize(): clean_text(str(said[key])) for key in people if said[key]}
    return Metadata(
        title=clean_text(str(said.get("title") or (heading[1] if heading else ""))) or None,
        license=license_name(str(said.get("license") or said.get("licence") or said.get("rights") or "")),
        credit=credit or None,
        language=str(said["language"]) if said.get("language") else None,
    )


def _catalog(source: Source) -> Metadata:
    """What Book Dash's catalog `_data/meta.yml` says of a book."""
    assert source.root is not None
    path = source.root / "_data" / "meta.yml"
    parts = source.path.relative_to(source.root).parts
    if len(parts) < 2 or not is_inside(path, source.root):
        return Metadata()
    try:
        titles = yaml_mapping(read_text(path, path.name), path.name).get("titles")
    except ValueError:
        return Metadata()
    said = titles.get(parts[0]) if isinstance(titles, dict) else None
    return _facts(said, "") if isinstance(said, dict) else Metadata()


def _language(source: Source) -> str | None:
    """The language of a book whose folder is named by it: `en/0004_name.md`, `a-book/en/index.md`."""
    assert source.root is not None
    depth = len(source.path.relative_to(source.root).parts) - 1
    name = source.path.parent.name
    named = _NUMBERED.fullmatch(source.path.name) or depth >= 2
    return name if named and _LANGUAGE.fullmatch(name) else None
