"""Scene codes: sixteen query tokens that say all of a page's picture, on many pages of the paper theatre."""

import random
from itertools import product

import pytest
import torch
from safetensors.torch import save_file

from data_tools.paper_theatre.dataset import scene_truth
from data_tools.paper_theatre.loose import single_page
from data_tools.paper_theatre.render import render
from data_tools.paper_theatre.stories import generate_story
from data_tools.paper_theatre.world import Actor, Appearance, Scene
from seedstory.modeling.story_model import StoryModel
from tests.tiny import tiny_model_folder
from training.theatre.scene_codes import (
    ACTORS,
    NOTHING,
    PROPS,
    ROLES,
    SPLIT,
    TABLES,
    SceneCodes,
    SceneWords,
    scene_vocabulary,
    scene_words,
)

NUMBERS = {table.name: column for column, table in enumerate(TABLES)}


@pytest.fixture(scope="module")
def pages() -> list[Scene]:
    """Loose pages, and pages of whole stories, some of which show two places."""
    loose = [single_page(seed, "train").scene for seed in range(1500)]
    return loose + [page.scene for seed in range(60) for page in generate_story(seed, "train").pages]


@pytest.fixture(scope="module")
def codes(pages) -> SceneCodes:
    torch.manual_seed(0)
    return SceneCodes(scene_vocabulary([scene_truth(scene) for scene in pages]), 32)


def drawn_from(words: dict[str, str]) -> Scene:
    """The scene that a page's words describe, its characters without names."""

    def props(owner: str) -> tuple[str, ...]:
        return tuple(words[f"{owner} {prop}"] for prop in PROPS if words[f"{owner} {prop}"] != NOTHING)

    actors = tuple(
        Actor(
            Appearance(*(words[f"{actor} {word}"] for word in ("species", "outfit", "hat"))),
            *(words[f"{actor} {word}"] for word in ("pose", "expression")),
        )
        for actor in ACTORS
        if words[f"{actor} species"] != NOTHING
    )
    place, time, view = (words[f"page {word}"] for word in ("place", "time", "view"))
    if view not in SPLIT.values():
        return Scene(place, time, actors, props("page"), view)
    cut = next(count for count, word in SPLIT.items() if word == view)
    other = Scene(words["meanwhile place"], time, actors[cut:], props("meanwhile"))
    return Scene(place, time, actors[:cut], props("page"), meanwhile=other)


def words_of(codes: SceneCodes, rows: list[int]) -> dict[str, str]:
    return {table.name: codes.vocabulary[table.kind][row] for table, row in zip(TABLES, rows, strict=True)}


def test_sixteen_query_tokens_carry_every_table():
    assert len(ROLES) == 16 and {table.role for table in TABLES} == set(ROLES)
    assert len(NUMBERS) == len(TABLES) == 23


def test_an_image_is_a_function_of_its_rows(pages, codes):
    """The scene that the rows alone describe has the ground truth of the page, but for the names."""
    for scene in pages:
        again = drawn_from(words_of(codes, codes.indices(scene_truth(scene))))
        nameless = [[actor | {"name": ""} for actor in scene_truth(s)["actors"]] for s in (scene, again)]
        assert nameless[0] == nameless[1]
        assert scene_truth(scene) | {"actors": 0} == scene_truth(again) | {"actors": 0}


def test_the_scene_of_the_rows_is_drawn_byte_for_byte(pages, codes):
    kinds = {}
    for scene in pages:  # one page of every view, number of actors and of props
        kinds.setdefault((scene.layout, *((len(h.actors), len(h.props)) for h in scene.halves)), scene)
    assert len(kinds) > 30
    for scene in kinds.values():
        again = drawn_from(words_of(codes, codes.indices(scene_truth(scene))))
        assert render(scene).tobytes() == render(again).tobytes()


def test_any_other_word_changes_the_code_of_its_query_alone(pages, codes):
    rng = random.Random(0)
    for scene, table in product(rng.sample(pages, 12), TABLES):
        rows = codes.indices(scene_truth(scene))
        column = NUMBERS[table.name]
        others = [[*rows[:column], row, *rows[column + 1 :]] for row in range(len(codes.vocabulary[table.kind]))]
        found = codes(torch.tensor(others))
        assert torch.pdist(found[:, table.query]).min() > 1e-3, table.name
        same = [query for query in range(len(ROLES)) if query != table.query]
        assert (found[:, same] == found[:1, same]).all()


def test_places_and_props_of_both_halves_speak_for_themselves():
    fox, owl = Actor(Appearance("fox", "red coat")), Actor(Appearance("owl", "white apron", "crown"))
    other = Scene("pond", "dusk", (owl,), ("boat",))
    words = scene_words(scene_truth(Scene("meadow", "dusk", (fox, fox), ("kite", "ball"), meanwhile=other)))
    assert words["page view"] == "split two" and words["page place"] == "meadow" and words["page time"] == "dusk"
    assert words["meanwhile place"] == "pond" and words["meanwhile first prop"] == "boat"
    assert (words["page first prop"], words["page second prop"]) == ("kite", "ball")
    assert words["third species"] == "owl" and words["third hat"] == "crown"
    assert "meanwhile second prop" not in words


def test_a_record_without_a_view_is_of_the_middle_one():
    assert scene_words({"place": "beach", "time": "day", "actors": [], "props": []})["page view"] == "middle"


def test_what_has_no_query_token_is_refused(codes):
    fox = Actor(Appearance("fox", "red coat"))
    four = scene_truth(Scene("meadow", "day", (fox, fox), meanwhile=Scene("pond", "day", (fox, fox))))
    with pytest.raises(ValueError, match="room for 3 actors"):
        codes.indices(four)
    two = scene_truth(Scene("meadow", "day", (fox,)))
    with pytest.raises(ValueError, match="room for 2 props"):
        codes.indices(two | {"props": ["ball", "kite", "key"]})
    with pytest.raises(ValueError, match="no training page says 'moon'"):
        codes.indices(two | {"place": "moon"})


def test_codes_come_back_from_disk(codes, pages, tmp_path):
    codes.save(tmp_path / "codes.safetensors")
    again = SceneCodes.load(tmp_path / "codes.safetensors")
    rows = torch.tensor([codes.indices(scene_truth(scene)) for scene in pages[:40]])
    assert torch.equal(codes(rows), again(rows)) and again.vocabulary == codes.vocabulary
    torch.testing.assert_close(again(rows).square().mean(-1), torch.ones(40, 16), atol=1e-3, rtol=0)


def test_codes_of_other_tables_are_refused(codes, tmp_path):
    tables = codes.state_dict()
    tables.pop("tables.page view.weight")
    save_file(tables, tmp_path / "old.safetensors", {"vocabulary": "{}"})
    with pytest.raises(ValueError, match="run stage 2a again"):
        SceneCodes.load(tmp_path / "old.safetensors")


def test_the_word_loss_falls_when_a_query_says_its_words(codes, pages, tmp_path):
    model = StoryModel.from_pretrained(tiny_model_folder(tmp_path) / "story_model", dtype=torch.float32)
    words = SceneWords(codes, model)
    rows = torch.tensor([codes.indices(scene_truth(scene)) for scene in pages[:8]])
    hidden = torch.zeros(8, len(ROLES), words.questions.shape[1])
    silent = words.loss(hidden, rows)
    for column, table in enumerate(TABLES):
        spoken = words.rows[table.kind][rows[:, column]]
        # Each word alone on its query token is found best.
        logits = torch.nn.functional.normalize(spoken, dim=1) @ torch.nn.functional.normalize(words.rows[table.kind]).T
        assert (logits.argmax(1) == rows[:, column]).all(), table.name
        hidden[:, table.query] += 0.2 * spoken
    assert words.loss(hidden, rows) < silent
    model.token_rows.data = torch.zeros(2 + len(ROLES), words.questions.shape[1])
    words.ask(model)
    asked = model.token_rows[2:]
    assert torch.equal(asked, words.questions)
    assert torch.pdist(asked[: len(ROLES) - 1]).min() > 0.1, "only the two props are asked alike"
