"""Whether stories of one opening differ, by hand and as a tiny random model writes them."""

import json

import pytest
from typer.testing import CliRunner

from inference.diversity import app, diversity_of, draw_stories, parts_of
from inference.openings import Opening
from inference.plot_classifier import PlotModel
from inference.story_text import StoryText, text_from_record
from seedstory.storystream import write_jsonl
from tests.inference.plots import written_record
from tests.tiny import tiny_pipeline

MIA = Opening("mia", "Mia the fox and Otto have lost a straw hat.", ("Mia", "Otto"))


def drawn(*casts, plan=()):
    return [StoryText((MIA.text,), (10,), cast, plan) for cast in casts]


def test_lines_of_a_cast():
    assert parts_of("fox, red coat") == {
        "kind": "fox",
        "outfit": "red coat",
        "hat": "none",
        "appearance": "fox, red coat",
    }
    assert parts_of("dragon (frog),red coat , straw hat")["appearance"] == "dragon (frog), red coat, straw hat"


def test_figures_by_hand():
    red, blue, otto = "fox, red coat, straw hat", "fox, blue overalls, straw hat", "dog, red coat"
    stories = drawn(
        {"Mia": red, "Mr. Otto": otto, "Zoe": "owl, red coat"},
        {"Mia": blue, "Mr. Otto": otto},
        {"Mia": red, "Mr. Otto": otto, "Lost": "cat"},
        {"Mia": blue, "Ben": "owl, red coat"},
    )
    found = diversity_of(MIA, stories)
    assert found["names"] == pytest.approx(7 / 8) and found["stories"] == 4
    (kind,) = found["kind"]
    assert kind == {
        "bits": 0,
        "bits_at_most": pytest.approx(1.585, abs=1e-3),
        "values": 1,
        "top": "dog",
        "top_share": 1,
    }
    mia, other = found["outfit"]
    assert mia["bits"] == 1 and mia["values"] == 2 and mia["top_share"] == 0.5 and other["bits"] == 0
    assert [one["top"] for one in found["hat"]] == ["none"], "Mia's is that of the opening"
    assert [one["bits"] for one in found["appearance"]] == [1, 0]
    (newcomers,) = found["newcomers"]
    assert newcomers["top"] == "owl, red coat" and newcomers["top_share"] == 1, "Lost is a word of the opening"
    assert found["plot"] == []
    alone = diversity_of(MIA, drawn({}, {}))
    assert alone["names"] is None and not any(alone[name] for name in ("kind", "appearance", "newcomers", "plot"))


@pytest.fixture(scope="module")
def records():
    return [written_record(number, "train") for number in range(120)]


def test_plots_of_plans_and_of_captions(records):
    plots = PlotModel(map(text_from_record, records))
    one, other = records[0], next(record for record in records if record.extra["plot"] != records[0].extra["plot"])
    truth = [one.extra["plot"], one.extra["plot"], other.extra["plot"]]
    plans = [StoryText((MIA.text,), (10,), {}, ("", *record.extra["plan"][1:])) for record in (one, one, other)]
    captions = [StoryText((MIA.text, *record.captions[1:]), (10,)) for record in (one, one, other)]
    for stories in (plans, captions):
        (plot,) = diversity_of(MIA, stories, plots)["plot"]
        assert plot["top"] == truth[0] and plot["values"] == 2
        assert plot["bits"] == pytest.approx(0.9183, abs=1e-4) and plot["bits_at_most"] == pytest.approx(
            1.585, abs=1e-3
        )


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture
def with_states(pipeline, monkeypatch):
    """Lines are short, since a model with random weights hardly ever ends one."""
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_LINE_TOKENS", 4)
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_CAST", 2)
    monkeypatch.setattr(pipeline.story_model.config, "story_state", True)
    return pipeline


def test_seeds_differ_and_come_out_as_they_would_alone(with_states):
    stories = draw_stories(with_states, MIA.text, range(5), pages=4, temperature=1.0)
    assert all(story.captions == (MIA.text,) and len(story.plan) == 4 for story in stories)
    assert len({story.plan for story in stories}) == 5
    assert draw_stories(with_states, MIA.text, [3], pages=4, temperature=1.0) == stories[3:4]
    greedy = draw_stories(with_states, MIA.text, range(3), pages=4, temperature=0.0)
    assert len({story.plan for story in greedy}) == 1, "all seeds alike: this is what collapse would be"


def test_a_model_without_states_writes_captions(pipeline):
    done = []
    stories = draw_stories(pipeline, MIA.text, range(3), pages=4, captions=2, on_seed=lambda: done.append(1))
    assert [len(story.captions) for story in stories] == [3, 3, 3] and len(done) == 3
    assert len({story.captions for story in stories}) == 3 and not any(story.cast or story.plan for story in stories)


def test_the_command(pipeline, records, tmp_path):
    openings = tmp_path / "openings.jsonl"
    openings.write_text(json.dumps({"id": MIA.id, "text": MIA.text, "heroes": list(MIA.heroes)}))
    write_jsonl(tmp_path / "train.jsonl", records[:40])
    model, out = str(pipeline.source), tmp_path / "found.json"
    options = ["--seeds", "3", "--batch-size", "2", "--captions", "1", "--pages", "2", "--openings", str(openings)]
    result = CliRunner().invoke(app, [model, *options, "--data", str(tmp_path), "--json", str(out)])
    assert result.exit_code == 0 and "mia" in result.output, result.output
    (found,) = json.loads(out.read_text())
    assert found["stories"] == 3 and found["names"] is None and found["plot"][0]["values"] >= 1
    for wrong, message in (
        (["--data", str(tmp_path / "none")], "has no train.jsonl whose stories say their plots"),
        (["--openings", str(tmp_path / "none")], "there is no file"),
    ):
        result = CliRunner().invoke(app, [model, *options, *wrong])
        assert result.exit_code == 2 and result.output.startswith("error: ") and message in result.output
