"""Near views, wide views and two-place pages; and the first world still looks as it did."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from data_tools.paper_theatre import render as theatre
from data_tools.paper_theatre import world
from data_tools.paper_theatre.dataset import scene_truth
from data_tools.paper_theatre.world import Actor, Appearance, Scene

BEAR, DUCK, GIRL = (
    Actor(Appearance("bear", "red coat"), name="Pip"),
    Actor(Appearance("duck", "white apron", "crown"), "waving", "sad", "Lily"),
    Actor(Appearance("girl", "blue overalls"), "cheering", "surprised", "Tom"),
)
SPLIT = Scene("forest", "night", (BEAR,), ("ball",), meanwhile=Scene("beach", "night", (DUCK, GIRL), ("kite",)))


def _pixels(scene: Scene) -> np.ndarray:
    return np.asarray(theatre.render(scene)).astype(int)


def _first_world(count: int) -> list[Scene]:
    """Scenes of the world that the first weights and the first judge were trained on."""
    rng = random.Random(0)
    scenes = []
    for _ in range(count):
        actors = tuple(
            Actor(
                Appearance(rng.choice(world.FIRST_SPECIES), rng.choice(world.OUTFITS), rng.choice(world.HATS)),
                rng.choice(world.POSES),
                rng.choice(world.EXPRESSIONS),
            )
            for _ in range(rng.randint(1, 3))
        )
        props = tuple(rng.sample(world.PROPS, rng.randint(0, 2)))
        scenes.append(Scene(rng.choice(world.PLACES), rng.choice(world.TIMES), actors, props))
    return scenes


def test_the_first_world_is_drawn_as_ever() -> None:
    drawn = hashlib.sha256("".join(map(theatre.scene_svg, _first_world(1000))).encode()).hexdigest()
    assert drawn == "634821fea6350093b81d18f11079db678043eab80102151da98bcb18f45e5837"


def test_the_first_held_out_appearances_stay() -> None:
    first = {pair for pair in world.HELD_OUT_APPEARANCES if pair[0] in world.FIRST_SPECIES}
    assert first == {
        ("bear", "blue overalls"),
        ("fox", "purple dress"),
        ("rabbit", "striped shirt"),
        ("cat", "yellow raincoat"),
        ("mouse", "orange sweater"),
        ("pig", "red coat"),
        ("frog", "green vest"),
        ("owl", "white apron"),
    }
    assert {species for species, _ in world.HELD_OUT_APPEARANCES} == set(world.SPECIES)
    for species, outfit in world.HELD_OUT_APPEARANCES:
        assert (world.PRONOUN_OF_SPECIES.get(species), outfit) != ("he", "purple dress"), "nobody could wear it"


@pytest.mark.parametrize("view", world.VIEWS)
def test_every_place_and_time_shows_in_every_view(view: str) -> None:
    scenes = [Scene(place, time, (BEAR,), view=view) for place in world.PLACES for time in world.TIMES]
    images = [_pixels(scene) for scene in scenes]
    for i, one in enumerate(images):
        for other in images[:i]:
            assert (np.abs(one - other).max(axis=-1) > 24).sum() > 1000


@pytest.mark.parametrize("scene", [
    Scene("pond", "day", (BEAR,), ("ball", "kite"), "near"),
    Scene("pond", "day", (DUCK, GIRL), ("balloon", "cake"), "near"),
    Scene("pond", "day", (BEAR, DUCK, GIRL), ("ball", "kite"), "wide"),
    SPLIT,
])  # fmt: skip
def test_everyone_stands_in_the_box_of_a_slot(scene: Scene) -> None:
    masks = theatre.actor_masks(scene)
    assert len(masks) == len(scene.everyone) == len(scene.slots)
    assert np.sum(masks, axis=0).max() == 1
    for i, slot in enumerate(scene.slots):
        x0, y0, x1, y1 = theatre.actor_box(scene, i)
        left, top, right, bottom = theatre.slot_box(slot)
        assert left - 1 <= x0 and top <= y0 and x1 <= right + 1 and y1 <= bottom, slot
        assert masks[i].sum() > 0.015 * 128 * 128


def test_near_is_larger_and_wide_is_smaller() -> None:
    areas = [theatre.actor_masks(Scene("meadow", "day", (BEAR,), view=view))[0].sum() for view in world.VIEWS]
    middle, near, wide = areas
    assert near > 1.5 * middle > 4.5 * wide


def test_the_halves_of_a_two_place_page_do_not_touch_each_other() -> None:
    other = Scene("forest", "night", (GIRL,), meanwhile=SPLIT.meanwhile)
    right = slice(theatre.VIEW // 4 + 3, None)
    assert (_pixels(SPLIT)[:, right] == _pixels(other)[:, right]).all()
    assert (_pixels(SPLIT)[:, :60] != _pixels(other)[:, :60]).any()


def test_the_truth_says_view_and_place() -> None:
    assert scene_truth(Scene("pond", "day", (BEAR,)))["view"] == "middle"
    assert scene_truth(Scene("pond", "day", (BEAR,), view="near"))["actors"][0]["slot"] == "near centre"
    truth = scene_truth(SPLIT)
    assert (truth["view"], truth["place"], truth["props"]) == ("split", "forest", ["ball"])
    assert truth["meanwhile"] == {"place": "beach", "props": ["kite"]}
    assert [(actor["name"], actor["place"], actor["slot"]) for actor in truth["actors"]] == [
        ("Pip", "forest", "first"),
        ("Lily", "beach", "second left"),
        ("Tom", "beach", "second right"),
    ]


def test_pages_that_cannot_be_drawn_are_refused() -> None:
    trio = (BEAR, DUCK, GIRL)
    with pytest.raises(ValueError, match="near view has 1 to 2"):
        Scene("pond", "day", trio, view="near")
    with pytest.raises(ValueError, match="half of a two-place page"):
        Scene("pond", "day", trio, meanwhile=Scene("beach", "day", (BEAR,)))
    with pytest.raises(ValueError, match="view"):
        Scene("pond", "day", trio, view="above")
    for second in (Scene("pond", "day", (BEAR,)), Scene("beach", "day", (BEAR,), view="wide"), SPLIT):
        with pytest.raises(ValueError, match="two-place page"):
            Scene("pond", "day", (DUCK,), meanwhile=second)
