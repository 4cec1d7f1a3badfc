"""Stories that have the layout already: data set folders and the released StoryStream files, several into one folder.

Each story is read by itself, its pictures are decoded once and stored as they came, under names of their own, so that
data sets whose pictures have the same names can be put together. All that a record says is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from data_tools.drops import Drop
from data_tools.folder import MAX_LINE, encode, locate, map_masks, only_pages, read_file, story_files
from data_tools.importers.run_import import Imported, Metadata, Source, Target, slug
from seedstory.image import STORED, load_image, read_image_header
from seedstory.io import open_regular, write_atomic
from seedstory.storystream import StoryRecord


@dataclass(frozen=True)
class SourceLine(Source):
    """One line of a story file, which begins at a byte of it."""

    offset: int = 0
    number: int = 1


def find(paths: list[Path], images: Path | None = None) -> list[Source]:
    """The stories of some files or data set folders.

    Args:
        paths: `NAME.jsonl`, or folders that hold them.
        images: Where the paths of images start; by default in the folder of each file.

    Raises:
        ValueError: There is no such file or folder, or no story file in a folder.
    """
    if images is not None and not images.is_dir():
        raise ValueError(f"there is no folder {images}: name the one in which the images' paths start")
    files = [file for path in paths for file in (story_files(path) if path.is_dir() else [path])]
    for file in files:
        if not file.is_file():
            raise ValueError(f"there is no file {file}: name a data set folder, or a NAME.jsonl of one")
    return [line for file in files for line in _lines(file, images or file.parent)]


def convert(source: Source, target: Target, prefix: str = "") -> Imported:
    """Imports one story.

    Args:
        source: Its line.
        target: Where to write.
        prefix: What to put before its id, where another data set has the same ids.
    """
    assert isinstance(source, SourceLine) and source.root is not None
    with open(source.path, "rb") as file:
        file.seek(source.offset)
        raw = file.readline(MAX_LINE + 1)
    try:
        if len(raw) > MAX_LINE:
            raise ValueError(f"longer than {MAX_LINE // 2**20} MiB")
        record = _with_slashes(StoryRecord.from_json(raw))
    except ValueError as error:
        return Imported.dropped(f"{source.path.name}, line {source.number}", "broken-line", error)
    record = replace(_filled(record, target.facts), id=prefix + record.id)
    stem = f"images/{target.split}/{source.number:06d}-{slug(record.id)[:40]}"
    images: list[str] = []
    kept, drops = [], []
    for page, path in enumerate(record.images):
        try:
            data, suffix = _image(source.root, path)
        except (OSError, ValueError) as error:
            drops.append(Drop(record.id, page, "unreadable-picture", str(error)))
            continue
        kept.append(page)
        images.append(f"{stem}/{len(images):03d}.{suffix}")
        write_atomic(target.out / images[-1], data, durable=False, make_folder=True)
    if not kept:
        return Imported([], [*drops, Drop(record.id, None, "no-pages", "no picture of it can be read")])
    record = replace(only_pages(record, kept), images=images)
    masks: dict[str, str | None] = {}
    for number, (page, path) in enumerate(record.masks()):
        masks[path] = f"{stem}/{page:03d}.mask-{number}.png"
        try:
            found = locate(source.root, path)
            read_image_header(found, path, ["PNG"])
            write_atomic(
                target.out / f"{stem}/{page:03d}.mask-{number}.png",
                read_file(source.root, path),
                durable=False,
                make_folder=True,
            )
        except (OSError, ValueError) as error:
            masks[path] = None
            drops.append(Drop(record.id, kept[page], "unreadable-mask", str(error)))
    if masks:
        record = map_masks(record, masks.get)
    return Imported([record], drops)


def _lines(file: Path, root: Path) -> Iterator[SourceLine]:
    with open_regular(file) as opened:
        offset = number = 0
        if opened.read(3) != b"\xef\xbb\xbf":
            opened.seek(0)
        offset = opened.tell()
        for raw in opened:
            number += 1
            if raw.strip():
                yield SourceLine(f"{file.stem}-{number}", file, root, (), offset, number)
            offset += len(raw)


def _with_slashes(record: StoryRecord) -> StoryRecord:
    """A record that was made on Windows with the paths that every system reads."""
    images = [path.replace("\\", "/") for path in record.images]
    return map_masks(replace(record, images=images), lambda path: path.replace("\\", "/"))


def _filled(record: StoryRecord, facts: Metadata) -> StoryRecord:
    """The record, with the user's facts where it has none."""
    return replace(record, **{key: value for key, value in asdict(facts).items() if getattr(record, key) is None})


def _image(root: Path, path: str) -> tuple[bytes, str]:
    """The bytes of a picture that can be decoded, and its suffix; a PNG where the format is not kept as it is."""
    data = read_file(root, path)
    pixels = load_image(data, path)
    suffix = STORED.get(read_image_header(data, path)[0])
    return (data, suffix) if suffix else (encode(pixels, "PNG"), "png")
