"""The plots of the paper theatre: readable, clean, whole, unlike each other, and some of them held out."""

import hashlib
import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from data_tools.paper_theatre.chapters import generate_long_story
from data_tools.paper_theatre.dataset import scene_truth
from data_tools.paper_theatre.language import VIEW
from data_tools.paper_theatre.plots import FIRST, load_plots
from data_tools.paper_theatre.plots.load import SHIPPED, read_plots
from data_tools.paper_theatre.reader import Reader
from data_tools.paper_theatre.stories import FEW_WORDS, PAGES, SHORT_PAGES, SPLITS, generate_story, plots_of
from tests.data_tools.theatre import has_open_beginning, reader_of

PLOTS = load_plots()
FIRST_PLOTS, NEW_PLOTS = PLOTS[:FIRST], PLOTS[FIRST:]
HELD_OUT_PLOTS = plots_of("heldout-plots")[0]
# Of captions and scenes of 126 stories: it changes with every plot, and with nothing else.
GOLDEN = "801647300b52e1e82717dafa04650e72c1138b97079cd63bf72e39ea29916011"


def split_of(plot, seed):
    return "heldout-plots" if plot.held_out else ("train", "heldout")[seed % 2]


@pytest.fixture(scope="module")
def generated():
    """50 stories of each new plot."""
    return {
        plot.name: [generate_story(seed, split_of(plot, seed), plot.name) for seed in range(50)] for plot in NEW_PLOTS
    }


def test_there_are_enough_plots():
    assert len(PLOTS) >= 83 and len(NEW_PLOTS) >= 68
    assert len(plots_of("train")[0]) >= 80 and len(HELD_OUT_PLOTS) >= 2


def test_not_a_word_of_the_first_plots_changes():
    said = [(p.name, p.titles, p.cast, [(b.parts, b.optional) for b in p.beats], p.values) for p in FIRST_PLOTS]
    assert hashlib.sha256(repr(said).encode()).hexdigest() == (
        "9d4302b61f324488126994f5c5efe21d27d308caee78bdc72bd85b618f92307b"
    )
    assert not any(VIEW.search(repr(plot.beats)) for plot in FIRST_PLOTS), "a first plot would be seen from elsewhere"


def test_the_same_seeds_give_the_same_stories_as_ever():
    said = []
    for split in SPLITS:
        stories = [generate_story(seed, split) for seed in range(40)] + [
            generate_long_story(seed, split, [10] * 6) for seed in range(2)
        ]
        said += [[story.title, [[page.caption, scene_truth(page.scene)] for page in story.pages]] for story in stories]
    assert hashlib.sha256(json.dumps(said).encode()).hexdigest() == GOLDEN


def test_every_plot_has_a_file_of_its_name():
    plots, faults = read_plots([SHIPPED])
    assert faults == [] and [plot.number for _, plot in plots] == list(range(1, len(PLOTS) + 1))
    for file, plot in plots:
        assert Path(file).stem == re.sub(r"[^a-z]+", "_", plot.name)


def test_the_captions_alone_give_every_scene(generated):
    for stories in generated.values():
        for story in stories:
            reader, pages = reader_of(story)
            for page in pages:
                assert reader.read(page.caption) == page.scene, (story.plot, page.caption)


def test_every_story_is_clean_and_of_the_right_length(generated):
    for stories in generated.values():
        for story in stories:
            begun = has_open_beginning(story)
            assert len(story.pages) in PAGES or len(story.pages) - begun in SHORT_PAGES
            for page in story.pages[begun:]:
                text = page.caption.replace("...", ".")
                assert len(text.split()) in FEW_WORDS, text
                assert not re.search(r"[{}\[\]|]|  |\bHIS\b|NAME|WEAR| [,.!?]|[.!?,][.,]|^\s|\s$", text), text
                assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n (?!hour)[^aeiouAEIOU]", text), text
                assert not re.search(r"\b(down down|up up|the the|a the|a a|the a)\b", text), text


def test_the_last_page_answers_the_first(generated):
    returning = set()
    for stories in generated.values():
        for story in stories:
            first, last = story.pages[has_open_beginning(story)].scene, story.pages[-1].scene
            if first.place == last.place or set(first.props) & set(last.props):
                returning.add(story.plot)
            assert first.actors[0].name in {actor.name for actor in last.everyone}, story.plot
    assert len(returning) > 0.65 * len(generated), "most stories end where they began, or with what they began with"


def test_every_value_of_a_plot_is_used():
    for plot in NEW_PLOTS:
        text = repr(plot.beats)
        for value in plot.values:
            assert re.search(rf"\b{value}\b", text), (plot.name, value)


def test_no_two_plots_say_the_same():
    said = {
        plot.name: {text for at, beat in enumerate(plot.beats) for part in beat.parts[at == 0 :] for text in part}
        for plot in PLOTS
    }
    for (one, texts), (other, others) in combinations(said.items(), 2):
        assert len(texts & others) <= 0.05 * min(len(texts), len(others)), (one, other, texts & others)


def test_views_and_two_places_are_generated(generated):
    scenes = [page.scene for stories in generated.values() for story in stories for page in story.pages]
    for share in (
        sum(scene.view == "near" for scene in scenes),
        sum(scene.view == "wide" for scene in scenes),
        sum(scene.meanwhile is not None for scene in scenes),
    ):
        assert share > 0.015 * len(scenes)
    shown = [any(slot in repr(plot.beats) for slot in ("{near:", "{wide:", "{meanwhile:")) for plot in NEW_PLOTS]
    assert sum(shown) > 0.6 * len(shown)


def test_two_places_on_a_page_are_read_back():
    reader = Reader()
    reader.read("One day by the pond there was Pip, a fox in a red coat. He met Lily, a girl in blue overalls.")
    scene = reader.read(
        "Pip sat down in the meadow with a kite. Meanwhile, in the kitchen, Lily had a cake, and she cheered."
    )
    assert (scene.place, scene.props, [a.name for a in scene.actors]) == ("meadow", ("kite",), ["Pip"])
    other = scene.meanwhile
    assert (other.place, other.props, [a.pose for a in other.actors]) == ("kitchen", ("cake",), ["cheering"])
    assert reader.read("Pip bent down so close that he sneezed.").view == "near"
    assert reader.read("Pip walked on.").view == "middle"


def test_held_out_plots_are_generated_in_their_split_only():
    held_out = {plot.name for plot in HELD_OUT_PLOTS}
    assert {generate_story(seed, "heldout-plots").plot for seed in range(20)} == held_out
    for split in ("train", "heldout"):
        assert held_out.isdisjoint(plot.name for plot in plots_of(split)[0])
        assert held_out.isdisjoint(generate_long_story(0, split, [10] * 40).plots)
        with pytest.raises(ValueError, match="in this split"):
            generate_story(0, split, HELD_OUT_PLOTS[0].name)


def test_people_are_introduced_as_people_are(generated):
    texts = [page.caption for stories in generated.values() for story in stories for page in story.pages]
    people = [text for text in texts if re.search(r"\b(girl|boy|grandmother|grandfather)\b", text)]
    assert people and not any(re.search(r"(small|little|young) grand", text) for text in people)
    for stories in generated.values():
        for member in (member for story in stories for member in story.cast):
            assert member.appearance.species not in ("girl", "grandmother") or member.pronoun == "she"
            assert member.appearance.species not in ("boy", "grandfather") or member.pronoun == "he"
