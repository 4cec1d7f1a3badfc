"""Whether pictures in the context count: the measure itself, on a model that copies them and on one that does not."""

import json

import pytest
import torch
from typer.testing import CliRunner

from data_tools.paper_theatre.stories import generate_story
from inference.image_use import app, image_use, read_stories
from seedstory.pipeline import StoryPipeline
from seedstory.storystream import read_jsonl
from tests.data_tools.theatre import run_theatre

MINI_JUDGE = None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    for more in ([], ["--recast"]):
        stories = ["--split", "heldout", "--stories", "2", "--appearances", "shown"]
        run_theatre("generate", "--out", folder, *stories, *more)
    return folder


def test_recast_stories_have_the_same_words_and_other_appearances():
    for seed in range(30):
        one, other = (generate_story(seed, "heldout", appearances="shown", recast=recast) for recast in (False, True))
        assert [page.caption for page in one.pages] == [page.caption for page in other.pages] and one.plan == other.plan
        for member, again in zip(one.cast, other.cast, strict=True):
            assert (member.name, member.pronoun) == (again.name, again.pronoun)
            first, second = member.appearance, again.appearance
            assert first.species != second.species and first.outfit != second.outfit and first.hat != second.hat


def test_stories_are_read_with_their_twins(data, tmp_path):
    stories = read_stories(data, "heldout", 9, 10)
    assert len(stories) == 2
    for story in stories:
        met = set()
        for number, truth in enumerate(story.record.pages[:10]):
            names = {actor["name"] for actor in truth["actors"]}
            assert (number in story.given) == bool(names - met or number == 0)
            met |= names
    lines = (data / "heldout.jsonl").read_text().splitlines()
    (tmp_path / "heldout.jsonl").write_text(lines[0] + "\n")
    (tmp_path / "recast-heldout.jsonl").write_text(lines[1] + "\n")
    with pytest.raises(ValueError, match="other words"):
        read_stories(tmp_path, "heldout", 9, 10)
    (tmp_path / "recast-heldout.jsonl").write_text("")
    with pytest.raises(ValueError, match="make both"):
        read_stories(tmp_path, "heldout", 9, 10)


class Copyist:
    """In the place of the engine: draws each page as the data set shows it, in the cast of the given pictures."""

    def __init__(self, story_model, policy, *, decoding):
        self.home = story_model

    def start_batch(self, requests):
        self.request = requests[0]

    def pages(self):
        shown = torch.stack([page.features for page in self.request.opening if page.features is not None])
        for story in self.home.stories:
            for record in (story.record, story.recast):
                features = self.home.features(record)
                count = len(self.request.opening)
                if record.captions[:count] != [page.caption for page in self.request.opening]:
                    continue
                if torch.equal(features[list(story.given)], shown):
                    for index in range(count):
                        yield Draft(index, features[index])
                    return
        for index in range(len(self.request.opening)):
            yield Draft(index, torch.zeros_like(shown[0]))


class Draft:
    def __init__(self, index, features):
        self.index, self.features = index, features


def test_a_model_that_copies_pictures_follows_them(data, monkeypatch):
    from inference.image_use import _features
    from inference.judge import Judge

    pipeline = StoryPipeline.from_pretrained("mini")
    stories = read_stories(data, "heldout", 2, 8)

    class Home:
        pass

    home = Home()
    home.stories = stories
    home.features = lambda record: torch.cat([_features(pipeline, data, [path]) for path in record.images])

    def one_by_one(model, folder, paths):  # a picture's features are the same to the last bit then
        return torch.cat([_features(model, folder, [path]) for path in paths])

    monkeypatch.setattr("inference.image_use._features", one_by_one)
    monkeypatch.setattr("inference.image_use.StoryEngine", Copyist)
    monkeypatch.setattr(StoryPipeline, "story_model", home)
    figures = image_use(pipeline, Judge.load(), data, stories, pages=8, policy="dense")
    assert figures["characters"] > 5
    for name in ("species", "outfit", "hat"):
        assert figures["true"]["true"][name] > 0.8 > 0.5 > figures["true"]["recast"][name]
        assert figures["recast"]["recast"][name] > 0.8 > 0.5 > figures["recast"]["true"][name]
        assert figures["zero"]["true"][name] < 0.6


def test_the_command_measures_the_mini(data, tmp_path):
    arguments = ["mini", "--data", str(data), "--stories", "1", "--pages", "4"]
    result = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "figures.json")], env={"COLUMNS": "200"})
    assert result.exit_code == 0 and "species_and_outfit" in result.output, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    record = next(iter(read_jsonl(data / "heldout.jsonl")))
    assert figures["pages"] == min(4, len(record)) - len(read_stories(data, "heldout", 1, 4)[0].given)
    assert len(figures["fingerprint"]) == 64
    missing = CliRunner().invoke(app, ["mini", "--data", str(tmp_path / "none")])
    assert missing.exit_code == 2 and "error:" in missing.output
