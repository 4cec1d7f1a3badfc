"""Whether words keep to a plot: true stories, and stories spoiled in one way at a time."""

import json
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from data_tools.paper_theatre.plots import load_plots
from inference.plot_classifier import PlotModel
from inference.plot_coherence import (
    FIGURES,
    app,
    diversity,
    figures_of,
    mixed,
    page_accuracy,
    plot_coherence,
    read_story,
    shuffled,
)
from inference.story_text import EVENING, StoryText, text_from_folder, text_from_record, words_of
from seedstory.settings import StorySettings
from seedstory.story import Page, Story
from seedstory.story_state import StoryState
from seedstory.storystream import read_jsonl, write_jsonl
from tests.inference.plots import written_long_record, written_record

PLOTS = [plot for plot in load_plots() if not plot.held_out]
KNOWN, UNKNOWN = PLOTS[:12], PLOTS[12:15]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of twelve plots, in words alone."""
    folder = tmp_path_factory.mktemp("data")
    names = [plot.name for plot in KNOWN]
    write_jsonl(folder / "train.jsonl", (written_record(n, "train", names[n % 12]) for n in range(300)))
    write_jsonl(folder / "heldout.jsonl", (written_record(n, "heldout", names[n % 12]) for n in range(36)))
    return folder


@pytest.fixture(scope="module")
def true():
    return [text_from_record(written_record(100 + n, "heldout", plot.name)) for n, plot in enumerate(KNOWN * 2)]


@pytest.fixture(scope="module")
def model(data):
    return PlotModel(map(text_from_record, read_jsonl(data / "train.jsonl")))


def figures(model, stories):
    return figures_of([read_story(model, story) for story in stories])


def with_page(story, page, caption):
    return replace(story, captions=(*story.captions[:page], caption, *story.captions[page + 1 :]))


def test_true_stories_are_nearly_perfect(model, true):
    read = [read_story(model, story) for story in true]
    accuracy = page_accuracy(read)
    assert accuracy["page_accuracy"] > 0.98 and accuracy["plot_accuracy"] >= accuracy["page_accuracy"]
    found = figures_of(read)
    for name in FIGURES[:6]:
        assert found[name] > 0.97 and 0 <= found["errors"][name] < 0.05, name
    assert found["invented_names"] == 0 and found["broken_words"] < 0.003
    assert found["pages"] == sum(len(story.captions) - 1 for story in true) == found["pages_with_plan"]


def test_names_are_not_what_a_plot_is_known_by(model, true):
    story = true[0]
    others = dict(zip(story.cast, ("Zorbo", "Quilla", "Vashti")))
    renamed = re.sub("|".join(others), lambda name: others[name[0]], "\n".join(story.captions))
    other = replace(story, captions=tuple(renamed.split("\n")), cast={}, plan=())
    assert read_story(model, other).labels == read_story(model, story).labels


def test_pages_of_plots_that_training_never_saw_are_of_none(model):
    stories = [text_from_record(written_record(n, "heldout", plot.name)) for n, plot in enumerate(UNKNOWN * 4)]
    assert figures(model, stories)["pages_in_a_plot"] < 0.05
    assert figures(model, [StoryText(("The fox ran.", "It is raining in Paris.", ""), (3,))])["pages_in_a_plot"] == 0


def test_pages_of_two_stories_mixed(model, true):
    changed = mixed(true)
    pairs = [pair for story in changed for pair in zip(story.labels, story.labels[1:])]
    alike = sum(before[0] == after[0] for before, after in pairs) / len(pairs)
    found = figures(model, changed)
    assert alike < 0.3 and found["same_plot"] == pytest.approx(alike, abs=0.04)
    assert found["plan_followed"] < 0.75 and found["pages_in_a_plot"] > 0.97


def test_half_a_story_of_another_plot(model, true):
    story, other = true[0], true[1]
    cut = replace(story, captions=(*story.captions[:3], *other.captions[3:6]), lengths=(6,), plan=(), labels=())
    assert read_story(model, cut).parts["same_plot"] == (4, 5)


def test_shuffled_pages_are_of_one_plot_in_another_order(model, true):
    found = figures(model, shuffled(true))
    assert found["same_plot"] > 0.97 and found["next_beat"] < 0.4
    assert found["plan_followed"] < 0.4 and found["plan_beat"] < 0.4 and found["ends_on_last_page"] < 0.5


def test_what_may_follow_is_what_the_plots_say(model):
    for plot in KNOWN:
        core = [number for number, beat in enumerate(plot.beats) if beat.core]
        short = set(zip(core, core[1:]))
        for before in range(len(plot.beats)):
            for after in range(len(plot.beats)):
                skipped = plot.beats[before + 1 : after]
                allowed = after > before and (all(beat.optional for beat in skipped) or (before, after) in short)
                assert model.follows((plot.name, before), (plot.name, after)) == allowed, (plot.name, before, after)
        assert model.last[plot.name] == len(plot.beats) - 1
    assert not model.follows((KNOWN[0].name, 0), (KNOWN[1].name, 1))


def test_a_story_that_stops_early_or_says_a_page_twice(model, true):
    story = true[0]
    count = len(story.captions)
    early = replace(story, captions=story.captions[:-1], lengths=(count - 1,), plan=(), labels=())
    assert read_story(model, early).parts["ends_on_last_page"] == (0, 1)
    unfinished = replace(early, lengths=(count,))
    assert read_story(model, unfinished).parts["ends_on_last_page"] == (0, 0), "nothing is known of its end"
    twice = with_page(story, 2, story.captions[1])
    parts = read_story(model, twice).parts
    assert parts["same_plot"][0] == count - 1 and parts["next_beat"][0] < count - 1


def test_an_opening_of_no_plot_is_not_held_against_the_next_page(model, true):
    story = with_page(true[0], 0, "I have a bicycle and it is made of glass.")
    assert read_story(model, story).parts["same_plot"] == (len(story.captions) - 2,) * 2


def test_an_invented_name_is_found(model, true):
    story = true[0]
    hero, other = list(story.cast)[:2]
    spoiled = with_page(story, 3, story.captions[3].replace(hero, "Zorbo").replace(other, "Zorbo") + " And Zorbo ran.")
    read = read_story(model, spoiled)
    assert read.names == ("Zorbo",) and read.broken == ()
    known = sorted(model.names)[0]
    assert read_story(model, with_page(story, 3, f"{known} ran home.")).names == (known,), "a name, but not of the cast"
    assert read_story(model, replace(spoiled, cast={**story.cast, "Zorbo": "fox, red coat"})).names == ()
    assert read_story(model, replace(spoiled, plan=(*story.plan[:3], "Zorbo runs", *story.plan[4:]))).names == ()
    assert read_story(model, with_page(story, 1, f"{hero} saw Zorbo.")).names == (), "page 2 may bring somebody on"


def test_a_broken_word_is_found(model, true):
    story = true[0]
    read = read_story(model, with_page(story, 2, f"{story.captions[2]} Then they all laughled, and Slowply went home."))
    assert read.broken == ("laughled",) and read.names == ("Slowply",), "a capital inside a sentence makes a name"
    read = read_story(model, with_page(story, 2, f"{story.captions[2]} Slowply he laughled and laughled."))
    assert read.broken == ("Slowply", "laughled", "laughled") and read.names == ()
    found = figures_of([read])
    words = sum(len(words_of(caption)) for caption in read.story.captions[1:])
    assert found["broken_words"] == 3 / words and found["words_broken"] == {"laughled": 2, "slowply": 1}
    given = with_page(read.story, 0, f"{story.captions[0]} They laughled slowply.")
    assert read_story(model, given).broken == (), "the opening has it"


def test_a_line_that_no_plot_has_is_matched_by_its_words(model, true):
    story = true[0]
    plan = ["They count silver teapots", "A giraffe paints the moon green", "The bus breaks down in the desert"]
    captions = ("Once upon a time.", "In the desert the old bus would not go on.", "A giraffe took green paint.")
    told = StoryText(captions, (3,), story.cast, (plan[0], plan[2], plan[1]))
    assert read_story(model, told).parts["plan_followed"] == (2, 2)
    assert read_story(model, replace(told, plan=tuple(plan))).parts["plan_followed"] == (0, 2)
    assert read_story(model, told).parts["plan_beat"] == (0, 0)


def test_chapters_are_read_one_by_one():
    stories = [text_from_record(written_long_record(n, "train", [8, 8, 8, 8])) for n in range(60)]
    model = PlotModel(stories)
    parts = [read_story(model, story).parts for story in stories[:5]]
    assert all(part["same_plot"][1] == 4 * 7 and part["ends_on_last_page"][1] == 4 for part in parts)
    assert sum(part["same_plot"][0] for part in parts) > 0.95 * 5 * 28
    plot, last = next(iter(model.last.items()))
    assert model.follows((plot, last), EVENING) and not model.follows((plot, last - 1), EVENING)
    assert model.is_last(EVENING) and model.is_last((plot, last)) and not model.is_last(None)


def test_diversity_by_hand(model, true):
    opening = "Once there was Pip."
    fox, owl = {"Pip": "cat, red coat", "Mia": "fox, red coat"}, {"Pip": "cat, red coat", "Tom": "owl, green vest"}

    def story(plot, cast):
        return StoryText((opening, *true[plot].captions[1:]), (len(true[plot].captions),), cast)

    def read(*stories):
        return [read_story(model, one) for one in stories]

    found = diversity(model, read(story(0, fox), story(0, fox), story(1, owl), story(1, fox), true[5]))
    assert found["openings"] == 1 and found["stories"] == 4
    assert found["plot_bits"] == pytest.approx(1) and found["plot_bits_at_most"] == 2
    assert found["appearance_bits"] == pytest.approx(0.8112781), "three foxes and an owl; Pip is in the opening"
    assert diversity(model, read(true[0], true[1])) is None
    alike = diversity(model, read(story(0, {}), story(0, {})))
    assert alike["plot_bits"] == 0 and alike["appearance_bits"] is None


def test_the_reference_is_read_as_the_stories_are(data, true):
    found = plot_coherence([replace(story, plan=(), cast={}) for story in true[:2]], data, "heldout")
    assert found["plan_followed"] is None is found["reference"]["plan_followed"]
    assert found["reference"]["stories"] == 36 and found["reference"]["page_accuracy"] > 0.98
    with_state = plot_coherence(true[:2], data, "heldout")
    assert with_state["reference"]["plan_followed"] > 0.97 and with_state["reference"]["invented_names"] == 0
    assert plot_coherence(true[:2], data, "none")["reference"] is None
    assert plot_coherence(true[:2], data / "nothing", "heldout") is None


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def save(story, folder):
    pages = [Page(index=n, caption=caption, state="opening") for n, caption in enumerate(story.captions)]
    pages[0].next_state = StoryState(tuple(story.cast.items()), story.plan[1:])
    Story(title="", pages=pages, settings=StorySettings(text="x", pages=len(pages))).save(folder)


def test_the_command_reads_story_folders_and_their_states(data, true, tmp_path):
    for number, story in enumerate(true[:3]):
        save(story, tmp_path / "stories" / str(number))
    story = text_from_folder(tmp_path / "stories" / "0")
    assert story.captions == true[0].captions and story.cast == true[0].cast and story.lengths == true[0].lengths
    assert story.plan == ("", *true[0].plan[1:])
    result = run(tmp_path / "stories", "--data", data, "--json", tmp_path / "found.json")
    assert result.exit_code == 0 and "true stories" in result.output, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["stories"] == 3 and found["plan_followed"] > 0.9 and found["reference"]["same_plot"] > 0.97
    assert found["fitted_on"]["stories"] == 300 and found["fitted_on"]["plots"] == 12


def test_the_self_test_says_how_good_the_measure_is(data, tmp_path):
    result = run("--self-test", "--data", data, "--json", tmp_path / "found.json")
    assert result.exit_code == 0 and "plot and beat recognized" in result.output, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["true stories"]["page_accuracy"] > 0.98
    assert found["pages shuffled"]["next_beat"] < 0.5 and found["two stories mixed"]["same_plot"] < 0.5


def test_requests_that_cannot_be_met(data, true, tmp_path):
    save(true[0], tmp_path / "torn")
    record = json.loads((tmp_path / "torn" / "story.json").read_text())
    record["pages"][0]["next_state"] = {"cast": []}
    (tmp_path / "torn" / "story.json").write_text(json.dumps(record))
    (tmp_path / "bad").mkdir()
    spoiled = json.loads((data / "train.jsonl").read_text().partition("\n")[0]) | {"beats": [0]}
    (tmp_path / "bad" / "train.jsonl").write_text(json.dumps(spoiled))
    for arguments, message in (
        (["--data", data], "give a folder of stories, or --self-test"),
        ([tmp_path / "none", "--data", data], "no folder"),
        ([tmp_path / "torn", "--data", data], "a story state must have a cast and a plan"),
        (["--self-test", "--data", tmp_path], "no train.jsonl whose stories say their plots"),
        (["--self-test", "--data", data, "--split", "test"], "no split 'test' whose stories say their plots"),
        (["--self-test", "--data", tmp_path / "bad"], "plots, beats, chapters, cast or plan are not well formed"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and message in result.output, result.output
        assert result.output.startswith("error: ") and len(result.output.splitlines()) == 1
