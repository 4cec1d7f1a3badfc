"""The paper theatre draws every value of its world, always the same way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data_tools.paper_theatre import render as theatre
from data_tools.paper_theatre import world
from data_tools.paper_theatre.art import characters, clothes, faces, places, props
from data_tools.paper_theatre.world import Actor, Appearance, Scene

PLAIN = Actor(Appearance("bear", "red coat"))
TRIO = Scene(
    "meadow",
    "day",
    (
        Actor(Appearance("rabbit", "yellow raincoat", "crown"), "cheering", "happy"),
        Actor(Appearance("mouse", "purple dress", "straw hat"), "waving", "angry"),
        Actor(Appearance("fox", "striped shirt", "top hat"), "sitting", "sad"),
    ),
    ("ball", "kite"),
)


def _pixels(scene: Scene, size: int = 128) -> np.ndarray:
    return np.asarray(theatre.render(scene, size)).astype(int)


def _assert_all_differ(scenes: list[Scene], least: int) -> None:
    """Every pair of pictures differs clearly in at least `least` pixels."""
    images = [_pixels(scene) for scene in scenes]
    for i, one in enumerate(images):
        for j, other in enumerate(images[:i]):
            changed = (np.abs(one - other).max(axis=-1) > 24).sum()
            assert changed >= least, f"{scenes[i]} and {scenes[j]} differ in {changed} pixels only"


def _alone(**changes: str) -> Scene:
    appearance = {k: v for k, v in changes.items() if k in ("species", "outfit", "hat")}
    rest = {k: v for k, v in changes.items() if k not in appearance}
    actor = dataclasses.replace(PLAIN, appearance=dataclasses.replace(PLAIN.appearance, **appearance), **rest)
    return Scene("meadow", "day", (actor,))


def test_same_scene_gives_same_bytes() -> None:
    assert theatre.scene_svg(TRIO) == theatre.scene_svg(TRIO)
    assert theatre.render(TRIO).tobytes() == theatre.render(TRIO).tobytes()


@pytest.mark.parametrize("size", [128, 256])
def test_size_and_mode(size: int) -> None:
    image = theatre.render(TRIO, size)
    assert image.size == (size, size)
    assert image.mode == "RGB"


@pytest.mark.parametrize(
    ("kind", "values", "least"),
    [
        ("species", world.SPECIES, 200),
        ("outfit", world.OUTFITS, 150),
        ("hat", world.HATS, 80),
        ("pose", world.POSES, 80),
        ("expression", world.EXPRESSIONS, 40),
    ],
)
def test_every_trait_of_an_actor_shows(kind: str, values: tuple[str, ...], least: int) -> None:
    _assert_all_differ([_alone(**{kind: value}) for value in values], least)


@pytest.mark.parametrize("species", world.SPECIES)
def test_every_species_shows_every_expression(species: str) -> None:
    _assert_all_differ([_alone(species=species, expression=value) for value in world.EXPRESSIONS], 40)


def test_every_place_and_time_shows() -> None:
    scenes = [Scene(place, time, (PLAIN,)) for place in world.PLACES for time in world.TIMES]
    _assert_all_differ(scenes, 1500)


def test_every_prop_shows_on_both_spots() -> None:
    for other in ((), ("ball",)):
        scenes = [Scene("beach", "day", (PLAIN,), (*other, prop)) for prop in world.PROPS if prop not in other]
        _assert_all_differ([*scenes, Scene("beach", "day", (PLAIN,), other)], 80)


@pytest.mark.parametrize("size", [128, 256])
def test_masks_are_disjoint_and_inside_their_boxes(size: int) -> None:
    masks = theatre.actor_masks(TRIO, size)
    assert len(masks) == 3
    assert np.sum(masks, axis=0).max() == 1
    for i, mask in enumerate(masks):
        assert mask.shape == (size, size)
        assert mask.dtype == bool
        x0, y0, x1, y1 = theatre.actor_box(TRIO, i, size)
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0.03 * size * size


def test_every_figure_fits_its_slot() -> None:
    x0, y0, x1, y1 = theatre.slot_box("centre")
    for i, species in enumerate(world.SPECIES):
        for hat in world.HATS if i % 3 == 0 else ("party hat",):
            for pose in ("cheering", "walking"):
                scene = Scene("meadow", "day", (Actor(Appearance(species, "yellow raincoat", hat), pose),))
                left, top, right, bottom = theatre.actor_box(scene, 0)
                assert x0 <= left < right <= x1, (species, hat, pose)
                assert y0 <= top < bottom <= y1, (species, hat, pose)


def test_neighbours_hide_little_of_each_other() -> None:
    for pose in world.POSES:
        actor = dataclasses.replace(PLAIN, pose=pose)
        alone = theatre.actor_masks(Scene("meadow", "day", (actor,)))[0].sum()
        for mask in theatre.actor_masks(Scene("meadow", "day", (actor, actor, actor))):
            assert mask.sum() > 0.92 * alone  # raised sleeves of neighbours touch


def test_slot_boxes_have_one_size_in_a_view() -> None:
    for size in (128, 256):
        boxes = {slot: theatre.slot_box(slot, size) for slot in world.STANDS}
        assert all(0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size for x0, y0, x1, y1 in boxes.values())
        assert len(set(boxes.values())) == len(boxes)
        for slots in (tuple(world.SLOTS), ("wide left", "wide centre", "wide right"), ("first", "second")):
            assert len({(x1 - x0, y1 - y0) for x0, y0, x1, y1 in map(boxes.get, slots)}) == 1


def test_unknown_values_are_refused() -> None:
    with pytest.raises(ValueError, match="slot"):
        theatre.slot_box("top")
    with pytest.raises(ValueError, match="place"):
        places.place("moon", "day")
    with pytest.raises(ValueError, match="time"):
        places.place("meadow", "noon")
    with pytest.raises(ValueError, match="prop"):
        props.prop("sword")
    with pytest.raises(ValueError, match="pose"):
        characters.figure(PLAIN.appearance, "flying", "happy")
    with pytest.raises(ValueError, match="outfit"):
        clothes.torso("pyjamas")
    with pytest.raises(ValueError, match="hat"):
        clothes.hat("helmet")
    for draw in (faces.eyes, faces.mouth):
        with pytest.raises(ValueError, match="expression"):
            draw("bored", faces.FaceAnchors())
    with pytest.raises(ValueError, match="place"):
        Scene("moon", "day", (PLAIN,))
