"""Films with subtitles: sharp, distinct keyframes, each with what is said in its span, in stories of some pages."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from data_tools.drops import Drop
from data_tools.importers.files import files_of
from data_tools.importers.frames import FAULTS, grab_frames, read_film
from data_tools.importers.run_import import Imported, Metadata, RecordBuilder, Source, Target, natural_key
from data_tools.importers.shots import Keyframe, ShotSettings, find_keyframes
from data_tools.importers.subtitles import SUFFIXES as SUBTITLES
from data_tools.importers.subtitles import read_subtitles, spoken_in

SubtitleKind = Literal["full", "sdh", "forced"]
KINDS: tuple[SubtitleKind, ...] = get_args(SubtitleKind)
_KIND_OF: dict[str, SubtitleKind] = {"forced": "forced", "foreign": "forced", "sdh": "sdh", "cc": "sdh", "hi": "sdh"}
FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ogv", ".ts", ".mpg", ".mpeg", ".flv")


def find(
    paths: list[Path], subtitles: Path | None = None, language: str | None = None, kind: SubtitleKind = "full"
) -> list[Source]:
    """The films that some paths name, or that lie in some folders, each with the subtitles beside it.

    Args:
        paths: Files and folders.
        subtitles: The subtitles, where there is one film. Otherwise `film.srt` or `film.en.srt` is looked for.
        language: Which of several subtitles to take.
        kind: And which of these: "full", "sdh" (for the hard of hearing) or "forced" (foreign speech and signs alone).
            Others are taken only where there is none of it, full ones first.

    Raises:
        ValueError: There is no such file, or no film, or one subtitle file for several films.
    """
    films = files_of(paths, FILMS, "film")
    if subtitles is None:
        beside: dict[Path, list[Path]] = {}
        for folder in {film.path.parent for film in films}:
            texts = (path for path in folder.iterdir() if path.suffix.lower() in SUBTITLES and path.is_file())
            beside[folder] = sorted(texts, key=natural_key)
        return [Source(f.id, f.path, None, _beside(f.path, beside[f.path.parent], language, kind)) for f in films]
    if len(films) != 1:
        raise ValueError(f"one subtitle file for {len(films)} films: put film.srt beside each film.mp4 instead")
    if not subtitles.is_file():
        raise ValueError(f"there is no file {subtitles}: check the path")
    return [Source(films[0].id, films[0].path, None, (subtitles,))]


def convert(
    source: Source,
    target: Target,
    *,
    pages: int = 30,
    min_pages: int = 5,
    side: int = 1024,
    encoding: str = "utf-8-sig",
    settings: ShotSettings | None = None,
) -> Imported:
    """Imports one film.

    Args:
        source: The film, with its subtitles in `beside`.
        target: Where to store.
        pages: Length of a story.
        min_pages: A shorter rest at the end is left out.
        side: Longer side in px of a picture, which is never enlarged.
        encoding: How the subtitles are encoded.
        settings: How to find shots.
    """
    name = source.path.name
    try:
        film, broken = read_film(source.path)
    except FAULTS as error:
        return Imported.dropped(source.id, "unreadable-film", f"{name}: {_reason(error)}")
    done = Imported()
    if broken:
        done.drops.append(Drop(source.id, None, "broken-packets", f"{name}: {broken} could not be decoded"))
    keyframes, blank = find_keyframes(film, settings or ShotSettings())
    done.drops += [Drop(source.id, None, "blank-shot", name)] * blank
    said = _said(source, keyframes, encoding, done)
    facts = Metadata(title=source.path.stem, language=_language(source))
    frames = grab_frames(source.path, [keyframe.stamp for keyframe in keyframes], side)
    for start in range(0, len(keyframes), pages):
        part = list(zip(keyframes[start : start + pages], said[start : start + pages], strict=True))
        if len(part) < min_pages:
            detail = f"{name}: {len(part)} pages, fewer than {min_pages}"
            done.drops.append(Drop(source.id, None, "short-story", detail))
            continue
        story = RecordBuilder(f"{source.id}-{start // pages + 1:03d}", target)
        try:
            for (keyframe, text), (_, image) in zip(part, islice(frames, len(part)), strict=True):
                _add(story, keyframe, text, image)
        except FAULTS as error:
            story.drop_page("unreadable-frame", f"{name}: {_reason(error)}")
        finished = story.finish(facts, film=name)
        done.records += finished.records
        done.drops += finished.drops
    return done


def _add(story: RecordBuilder, keyframe: Keyframe, text: str, image: Image.Image | None) -> None:
    if image is None:
        story.drop_page("unreadable-frame", f"the frame at {keyframe.time:.3f} s")
        return
    times = [round(keyframe.start, 3), round(keyframe.end, 3)]
    story.add(image, text, source=f"{keyframe.time:.3f} s", time=times, keyframe=round(keyframe.time, 3))


def _said(source: Source, keyframes: list[Keyframe], encoding: str, done: Imported) -> list[str]:
    """The text of each keyframe's span, from all subtitle files of the film."""
    cues = []
    for path in source.beside:
        try:
            read, notes = read_subtitles(path, encoding)
        except (ValueError, OSError, LookupError) as error:
            done.drops.append(Drop(source.id, None, "unreadable-subtitles", str(error)))
            continue
        cues += read
        done.drops += [Drop(source.id, None, "bad-cue", note) for note in notes]
    return spoken_in(cues, [(keyframe.start, keyframe.end) for keyframe in keyframes])


def _beside(film: Path, here: list[Path], language: str | None, kind: SubtitleKind) -> tuple[Path, ...]:
    """The subtitle file of a film, of those in its folder.

    The wanted language goes first, then a file that names none; then the wanted kind, and of the others full subtitles
    before those for the hard of hearing before forced ones, which hold foreign speech and signs alone.
    """
    kinds = dict.fromkeys((kind, *KINDS))

    def rank(path: Path) -> tuple[int, int, bool]:
        spoken, what = _marks(film, path)
        known = 0 if language and spoken.lower() == language.lower() else 1 if not spoken or not language else 2
        return known, list(kinds).index(what), path.stem != film.stem

    fitting = [path for path in here if path.stem == film.stem or path.stem.startswith(f"{film.stem}.")]
    return tuple(sorted(fitting, key=rank)[:1])


def _marks(film: Path, subtitles: Path) -> tuple[str, SubtitleKind]:
    """The language in the name of subtitles, which may be empty, and their kind."""
    language = ""
    kind: SubtitleKind = "full"
    for part in subtitles.stem.removeprefix(film.stem).split("."):
        if part.lower() in _KIND_OF and (part.lower() != "hi" or language):  # alone, "hi" is Hindi
            kind = _KIND_OF[part.lower()]
        elif 2 <= len(part) <= 8 and not language:
            language = part
    return language, kind


def _language(source: Source) -> str | None:
    """The language in the name of the subtitles."""
    return (_marks(source.path, source.beside[0])[0] if source.beside else "") or None


def _reason(error: Exception) -> str:
    """The message of a fault without its path, so that it is the same on every machine."""
    return str(getattr(error, "strerror", None) or error)
