"""Comics: CBZ files or folders of page images, cut into panels in reading order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data_tools.drops import Drop
from data_tools.folder import IMAGES
from data_tools.importers.archive import Archive
from data_tools.importers.markup import parse_xml
from data_tools.importers.panels import PanelSettings, find_panels
from data_tools.importers.run_import import (
    Imported,
    Metadata,
    RecordBuilder,
    Source,
    Target,
    is_inside,
    license_name,
    natural_key,
    unique_ids,
)
from seedstory.image import MAX_BYTES, load_image
from seedstory.io import read_regular
from seedstory.text import clean_text

MIN_SIDE = 64  # px of a panel
_PEOPLE = {
    "Writer": "Text",
    "Penciller": "Illustration",
    "Inker": "Inks",
    "Colorist": "Colors",
    "Translator": "Translation",
}


def find(paths: list[Path]) -> list[Source]:
    """The comics that some paths name or that lie below them: CBZ files, and folders with page images.

    Raises:
        ValueError: There is no such path, or no comic in any of them.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inner = [p for p in path.rglob("*") if p.is_file()]
            pages = {p.parent for p in inner if p.suffix.lower() in IMAGES}
            archives = {p for p in inner if p.suffix.lower() == ".cbz" and is_inside(p, path)}
            found += sorted(pages | archives, key=natural_key)
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"there is no file or folder {path}: check the path")
    if not found:
        raise ValueError(f"there is no comic in {', '.join(map(str, paths))}: name CBZ files or folders of page images")
    ids = unique_ids(path.stem if path.is_file() else path.name for path in found)
    return [Source(one, path) for one, path in zip(ids, found, strict=True)]


def convert(source: Source, target: Target, *, settings: PanelSettings | None = None, whole: bool = False) -> Imported:
    """Imports one comic.

    Args:
        source: A CBZ file or a folder of page images.
        target: Where to store.
        settings: How to cut pages; where ComicInfo.xml says so, the reading order is from right to left all the same.
        whole: Keep pages whole.
    """
    settings = settings or PanelSettings()
    story = RecordBuilder(source.id, target)
    try:
        facts, backwards = _comic_info(source.path, story)
        for name, data in _pages(source.path, story):
            _add_page(story, name, data, replace(settings, right_to_left=settings.right_to_left or backwards), whole)
    except ValueError as error:
        return Imported.dropped(source.id, "unreadable-comic", error)
    title = source.path.name if source.path.is_dir() else source.path.stem
    return story.finish(facts.filled_from(Metadata(title=title)))


def _add_page(story: RecordBuilder, name: str, data: bytes, settings: PanelSettings, whole: bool) -> None:
    """Adds the panels of a page; the picture of a page that is one panel stays as it came."""
    try:
        page = load_image(data, name)
    except ValueError as error:
        story.drop_page("unreadable-picture", str(error))
        return
    full = (0, 0, page.width, page.height)
    boxes, small = ([full], 0) if whole else find_panels(page, settings)
    for box in boxes:
        panel = data if box == full else page.crop(box)
        story.add(panel, source=name, min_side=MIN_SIDE, source_page=name, panel=list(box))
    for _ in range(small):
        story.drop_page("too-small-for-a-panel", f"a part of {name}")


def _pages(path: Path, story: RecordBuilder) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each page image, in the order of their names."""
    if path.is_dir():
        for file in sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGES), key=natural_key):
            if not is_inside(file, path):
                story.drop_page("outside-the-source", f"{file.name} is a link to elsewhere")
            elif file.stat().st_size > MAX_BYTES:
                story.drop_page("unreadable-picture", f"{file.name} is larger than {MAX_BYTES // 2**20} MB")
            else:
                yield file.name, file.read_bytes()
        return
    with Archive(path) as archive:
        yield from _members(archive, story)
        inner = [name for name in archive.names() if name.lower().endswith((".cbz", ".zip")) and not _is_fork(name)]
        for name in sorted(inner, key=natural_key):  # one level deep
            try:
                with Archive(Path(name), archive.read(name)) as volume:
                    yield from ((f"{name}/{page}", data) for page, data in _members(volume, story))
            except ValueError as error:
                story.drop_page("unreadable-archive", str(error))


def _members(archive: Archive, story: RecordBuilder) -> Iterator[tuple[str, bytes]]:
    names = [name for name in archive.names() if name.lower().endswith(IMAGES) and not _is_fork(name)]
    for name in sorted(names, key=natural_key):
        try:
            data = archive.read(name)
        except ValueError as error:
            story.drop_page("unreadable-picture", str(error))
            continue
        yield name, data


def _is_fork(name: str) -> bool:
    """Whether a member is what macOS keeps beside a file."""
    return name.startswith("__MACOSX/")


def _comic_info(path: Path, story: RecordBuilder) -> tuple[Metadata, bool]:
    """What a ComicInfo.xml says: the facts, and whether the comic is read from right to left.

    One that cannot be read is counted, and costs no page.
    """
    try:
        data = _comic_info_file(path)
        said = {item.tag: clean_text(item.text or "") for item in parse_xml(data, "ComicInfo.xml")} if data else {}
    except ValueError as error:
        story.drops.append(Drop(story.id, None, "unreadable-comic-info", str(error)))
        said = {}
    number = said.get("Number")
    series = f"{said['Series']} {number}" if said.get("Series") and number else said.get("Series")
    facts = Metadata(
        title=said.get("Title") or series,
        license=license_name(said.get("Notes")) if "creativecommons.org" in said.get("Notes", "") else None,
        credit={ours: said[theirs] for theirs, ours in _PEOPLE.items() if said.get(theirs)} or None,
        language=said.get("LanguageISO") or None,
    )
    return facts, said.get("Manga") == "YesAndRightToLeft"


def _comic_info_file(path: Path) -> bytes | None:
    if path.is_dir():
        file = path / "ComicInfo.xml"
        return read_regular(file, limit=2**20) if file.exists() and is_inside(file, path) else None
    with Archive(path) as archive:
        found = [name for name in archive.names() if name.rpartition("/")[2].lower() == "comicinfo.xml"]
        return archive.read(min(found, key=lambda name: (name.count("/"), name))) if found else None
