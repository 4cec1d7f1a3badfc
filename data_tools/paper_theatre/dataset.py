"""Writes stories and loose pages as a StoryStream data set with ground truth."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from data_tools.paper_theatre.chapters import LongStory, generate_long_story
from data_tools.paper_theatre.language import SAID, describe_appearance
from data_tools.paper_theatre.loose import single_page
from data_tools.paper_theatre.render import actor_masks, render
from data_tools.paper_theatre.script import ScriptedPage
from data_tools.paper_theatre.stories import Appearances, GeneratedStory, generate_story
from data_tools.paper_theatre.world import Scene
from seedstory.io import atomic_path
from seedstory.storystream import StoryRecord

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Job:
    """What a worker needs to write one record.

    `chapters` are the lengths of a long story's chapters, `plots` is a folder of plots beside the shipped ones,
    `appearances` says whether the words say what the characters look like, `recast` whether they look otherwise than
    the seed says (`stories.generate_story`).
    """

    folder: Path
    split: str
    seed: int
    size: int = 128
    masks: bool = False
    chapters: tuple[int, ...] = ()
    plots: Path | None = None
    appearances: Appearances = "mixed"
    recast: bool = False


def write_story(job: Job) -> StoryRecord:
    """Draws the pages of story `job.seed` under `job.folder` and returns its record."""
    story = generate_story(job.seed, job.split, added=job.plots, appearances=job.appearances, recast=job.recast)
    name = f"{'recast' if job.recast else 'theatre'}-{job.split}-{job.seed:06d}"
    return _story_record(name, story, job, {"plot": story.plot, "beats": list(story.beats)})


def write_long_story(job: Job) -> StoryRecord:
    """Draws the pages of long story `job.seed` under `job.folder` and returns its record."""
    story = generate_long_story(job.seed, job.split, job.chapters, job.plots, job.appearances)
    extra = {"plots": list(story.plots), "chapters": list(job.chapters), "beats": list(story.beats)}
    return _story_record(f"long-{job.split}-{job.seed:06d}", story, job, extra)


def write_loose_page(job: Job) -> StoryRecord:
    """Draws loose page `job.seed` under `job.folder` and returns its one-page record."""
    page = single_page(job.seed, job.split)
    name = f"loose-{job.split}-{job.seed:06d}"
    path = f"images/loose-{job.split}/{job.seed // 1000:03d}/{job.seed:06d}.png"
    truth = _write_page(page, job, path)
    return StoryRecord(id=name, images=[path], captions=[page.caption], orders=[0], license="CC0-1.0", pages=[truth])


def scene_truth(scene: Scene) -> dict[str, Any]:
    """What a scene shows, as it stands in a record's `pages`.

    `view` is that of the world, or "split" for a page of two places. Then `place` and `props` are those of the left
    half, `meanwhile` holds those of the right half, and each actor has the `place` where it is.
    """
    actors = [
        {
            "name": actor.name,
            "species": actor.appearance.species,
            "outfit": actor.appearance.outfit,
            "hat": actor.appearance.hat,
            "pose": actor.pose,
            "expression": actor.expression,
            "slot": slot,
        }
        for actor, slot in zip(scene.everyone, scene.slots, strict=True)
    ]
    truth: dict[str, Any] = {"place": scene.place, "time": scene.time, "actors": actors, "props": list(scene.props)}
    truth["view"] = scene.layout
    if scene.meanwhile:
        places = [half.place for half in scene.halves for _ in half.actors]
        truth["actors"] = [actor | {"place": place} for actor, place in zip(actors, places, strict=True)]
        truth["meanwhile"] = {"place": scene.meanwhile.place, "props": list(scene.meanwhile.props)}
    return truth


def page_truth(page: ScriptedPage, boxes: list[Box]) -> dict[str, Any]:
    """The ground truth of a page that was drawn: its scene, where everybody stands, and who is meant by which word."""
    truth = scene_truth(page.scene)
    for actor, box in zip(truth["actors"], boxes, strict=True):
        actor["box"] = list(box)
    return truth | {"coreference": [list(span) for span in page.spans]}


def _story_record(name: str, story: GeneratedStory | LongStory, job: Job, extra: dict[str, Any]) -> StoryRecord:
    """Draws a story's pages and returns its record.

    Its `cast` and `plan` are the story state (`seedstory.story_state`), `said` is what the words say of each look.
    """
    pages = story.pages
    paths = [f"images/{name}/{number:02d}.png" for number in range(len(pages))]
    truth: list[dict[str, Any] | None] = [_write_page(page, job, path) for page, path in zip(pages, paths, strict=True)]
    extra = extra | {
        "cast": {member.name: describe_appearance(member.appearance, member.kind) for member in story.cast}
    }
    extra |= {"plan": list(story.plan)} if story.plan else {}
    extra |= {"said": {name: list(SAID[level]) for name, level in story.said.items()}}
    extra |= {"unsaid": [name for name, level in story.said.items() if SAID[level] != SAID["look"]]}
    return StoryRecord(
        id=name,
        images=paths,
        captions=[page.caption for page in pages],
        orders=list(range(len(paths))),
        title=story.title,
        license="CC0-1.0",
        pages=truth,
        extra=extra,
    )


def _write_page(page: ScriptedPage, job: Job, path: str) -> dict[str, Any]:
    """Draws a page unless its picture is there already, from the same scene and the same art."""
    target = job.folder / path
    mask_target = target.with_suffix(".mask.png")
    key = f"{_art_version()} {job.size} {page.scene!r}"
    boxes = _known_boxes(target, key)
    if boxes is None or (job.masks and not mask_target.exists()):
        target.parent.mkdir(parents=True, exist_ok=True)
        masks = actor_masks(page.scene, job.size)
        boxes = [_box(mask) for mask in masks]
        if job.masks:
            _save(Image.fromarray(_label_map(masks)), mask_target)
        note = PngImagePlugin.PngInfo()
        note.add_text("scene", key)
        note.add_text("boxes", json.dumps(boxes))
        _save(render(page.scene, job.size), target, pnginfo=note)
    truth = page_truth(page, boxes)
    if job.masks:
        truth["mask"] = str(Path(path).with_suffix(".mask.png").as_posix())
    return truth


def _known_boxes(path: Path, key: str) -> list[Box] | None:
    try:
        with Image.open(path) as image:
            if image.info.get("scene") == key:
                return [tuple(box) for box in json.loads(image.info["boxes"])]
    except OSError:
        pass
    return None


def _save(image: Image.Image, path: Path, **options: Any) -> None:
    with atomic_path(path, durable=False) as temporary:
        image.save(temporary, "PNG", compress_level=1, **options)


def _box(mask: np.ndarray) -> Box:
    """The tight box (x0, y0, x1, y1) of a mask, x1 and y1 exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _label_map(masks: list[np.ndarray]) -> np.ndarray:
    """0 is background, 1 the first actor, 2 the second ..."""
    labels = np.zeros(masks[0].shape, np.uint8)
    for number, mask in enumerate(masks, start=1):
        labels[mask.astype(bool)] = number
    return labels


@cache
def _art_version() -> str:
    """Changes with the code that draws."""
    here = Path(__file__).parent
    sources = [here / "render.py", here / "world.py", *sorted((here / "art").rglob("*.py"))]
    return hashlib.sha1(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
