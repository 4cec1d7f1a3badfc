"""ViStoryBench: its scripts with their characters' reference pictures, or with pictures that a method made for them.

The layout is that of the benchmark's data set: `NN/story.json` and `NN/image/CHARACTER/00.jpg`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from data_tools.folder import IMAGES
from data_tools.importers.run_import import (
    Imported,
    Metadata,
    RecordBuilder,
    Source,
    Target,
    is_inside,
    natural_key,
    read_text,
    unique_ids,
)
from seedstory.text import clean_text

Language = Literal["en", "ch"]
_TEXTS = {
    "plot": "Plot Correspondence",
    "setting": "Setting Description",
    "camera": "Shot Perspective Design",
    "description": "Static Shot Description",
}


def find(paths: list[Path], images: Path | None = None) -> list[Source]:
    """The stories below some folders: each a folder with `story.json`.

    Args:
        paths: Folders, or single `story.json` files.
        images: What a method made: the folder that holds one folder per story, with its shots.

    Raises:
        ValueError: There is no such folder, or no story in it.
    """
    for path in [*paths, *([images] if images else [])]:
        if not path.exists():
            raise ValueError(f"there is no file or folder {path}: check the path")
    found = [
        p for path in paths for p in ([path] if path.is_file() else sorted(path.rglob("story.json"), key=natural_key))
    ]
    if not found:
        raise ValueError(
            f"there is no story.json in {', '.join(map(str, paths))}: name ViStoryBench's folder of stories"
        )
    ids = unique_ids(f"vistory-{path.parent.name}" for path in found)
    return [
        Source(one, path, path.parent, (images / path.parent.name,) if images else (path.parent / "image",))
        for one, path in zip(ids, found, strict=True)
    ]


def convert(source: Source, target: Target, *, language: Language = "en", shots: bool = False) -> Imported:
    """Imports one story.

    The benchmark has no pictures of shots. So, by default, the pages of the record are the reference pictures of the
    characters, each with the character's description, and the script stands in the record's `shots`.

    Args:
        source: `story.json`, with the folder of the pictures in `beside`.
        target: Where to store.
        language: Which of the two languages of the script.
        shots: The pages are the shots: pictures that a method made, named by the index of the shot, with the plot.
    """
    try:
        data = json.loads(read_text(source.path, "story.json"))
        script = [_shot(one, language) for one in _list(data["Shots"])]
        cast = {str(key): _character(one, language) for key, one in _dict(data["Characters"]).items()}
        kind = clean_text(str(_dict(data.get("Story_type", {})).get(language, "")))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        detail = f"{source.path.parent.name}/story.json: {type(error).__name__}: {error}"
        return Imported.dropped(source.id, "unreadable-story", detail)
    story = RecordBuilder(source.id, target)
    facts = Metadata(title=f"ViStoryBench {source.path.parent.name}", language={"en": "en", "ch": "zh"}[language])
    extra = {"story_type": kind, "characters": cast}
    if shots:
        _add_shots(story, source.beside[0], script)
        return story.finish(facts, **extra)
    _add_references(story, source.beside[0], cast)
    return story.finish(facts, **extra, shots=script)


def _add_shots(story: RecordBuilder, folder: Path, script: list[dict[str, Any]]) -> None:
    folder = folder / "shots" if (folder / "shots").is_dir() else folder
    files = sorted(folder.iterdir(), key=natural_key) if folder.is_dir() else []
    numbered = {int(found[1]): path for path in files if (found := re.search(r"(?:^|_)(\d{1,6})$", path.stem))}
    for shot in script:
        path = numbered.get(shot["index"])
        if path is None or path.suffix.lower() not in IMAGES or not is_inside(path, folder):
            story.drop_page("missing-picture", f"shot {shot['index']}")
            continue
        characters = [{"name": name} for name in shot["characters"]]
        known = {key: shot[key] for key in _TEXTS if key != "plot"}
        story.add_file(path, folder, shot["plot"], characters=characters, **known)


def _add_references(story: RecordBuilder, folder: Path, cast: dict[str, dict[str, str]]) -> None:
    for key, character in cast.items():
        # A key is the name of a folder, and no path.
        home = folder / key if key not in (".", "..") and not re.search(r"[/\\\x00]", key) else folder / "none"
        files = sorted(home.iterdir(), key=natural_key) if home.is_dir() else []
        images = [path for path in files if path.suffix.lower() in IMAGES and is_inside(path, folder)]
        if not images:
            story.drop_page("missing-picture", f"no reference of {key}")
        for path in images:
            known: dict[str, Any] = {
                "characters": [{"name": character["name"], "tag": character["tag"]}],
                "reference": key,
            }
            story.add_file(path, folder, character["description"], source=f"{key}/{path.name}", **known)


def _shot(data: Any, language: Language) -> dict[str, Any]:
    said = _dict(data)
    shot: dict[str, Any] = {"index": int(said["index"])}
    for ours, theirs in _TEXTS.items():
        shot[ours] = clean_text(str(_dict(said.get(theirs, {})).get(language, "")))
    # Characters are known by their English names, in both languages.
    shot["characters"] = [str(name) for name in _list(_dict(said.get("Characters Appearing", {})).get("en", []))]
    return shot


def _character(data: Any, language: Language) -> dict[str, str]:
    said = _dict(data)
    keys = {"name": f"name_{language}", "description": f"prompt_{language}", "tag": "tag"}
    return {ours: clean_text(str(said.get(theirs, ""))) for ours, theirs in keys.items()}


def _dict(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TypeError("an object was expected")
    return data


def _list(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise TypeError("a list was expected")
    return data
