"""Scoring checkpoints and stories: each measure by hand, and the command on the embedded mini and on a tiny model."""

import json
import math
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from inference import reconstruction
from inference.evaluate import app, evaluate
from inference.image_quality import (
    character_appearances,
    consistency,
    frechet_distance,
    image_appearances,
    retrieval,
    slot_features,
)
from inference.judge import Judge, score
from inference.judge_metrics import MEASURES, RANGES, can_judge, judge_renders, judge_stories
from inference.rollout import RolloutOptions, choose_records
from inference.samples import sample_from_record
from inference.text_quality import base_scores, distinct, ngrams, perplexity, ratio, repetition, story_scores, variety
from inference.truth_images import TruthImages
from seedstory.generation import GivenPage
from seedstory.pipeline import StoryPipeline
from seedstory.storystream import read_jsonl, write_jsonl
from tests.data_tools.theatre import run_theatre
from tests.inference.plots import written_record
from tests.tiny import tiny_model_folder

BY_RANGE = [*MEASURES, "characters_judged", "pages_judged"]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    """Two held-out stories, and one of 16 pages."""
    folder = tmp_path_factory.mktemp("theatre")
    run_theatre("generate", "--out", folder, "--split", "heldout", "--stories", "2")
    run_theatre("generate", "--out", folder, "--split", "heldout", "--stories", "1", "--pages", "16", "--size", "48")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model_folder(tmp_path_factory.mktemp("model")))


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def unclocked(scores):
    return {name: value for name, value in scores.items() if name != "seconds_per_page"}


# ------------------------------------------------------------------------------------------------------------- words


def test_ngrams_know_neither_case_nor_punctuation():
    assert ngrams('"Don’t!" said the fox; the FOX ran.', 2) == [
        ("don't", "said"),
        ("said", "the"),
        ("the", "fox"),
        ("fox", "the"),
        ("the", "fox"),
        ("fox", "ran"),
    ]
    assert ngrams("one two", 3) == []


def test_variety_by_hand():
    story = ["the fox ran home", "the fox ran home again", "far far away", ""]
    assert distinct(story, 1) == 7 / 12  # the fox ran home again far away
    assert distinct(story, 2) == 6 / 9  # 3, 4 of which 3 were there, 2; none reaches over a page's end
    assert distinct([""], 1) is None
    assert repetition(story) == [0.5, None, None]  # "the fox ran home" again, "fox ran home again" is new
    assert repetition(["a b c d a b c d"]) == [], "what a page itself repeats does not count"
    figures = variety([story, ["one two three four"] * 2])
    assert figures["distinct_1"] == pytest.approx((7 / 12 + 1 / 2) / 2)
    assert figures["repetition"] == pytest.approx((0.5 + 1) / 2)


def test_ratios_and_perplexity_by_hand():
    assert ratio([]) == (None, None) and ratio([(3, 4), (0, 0)]) == (0.75, None)
    mean, error = ratio([(1, 2), (3, 4)])
    assert mean == 4 / 6 and error == pytest.approx(math.sqrt(2 * ((1 - 4 / 3) ** 2 + (3 - 8 / 3) ** 2)) / 6)
    value, error = perplexity([[(-100, 1), (-2, 1), (-4, 2)], [(-100, 1), (-3, 1)]])
    assert value == pytest.approx(math.exp(9 / 4)) and error == pytest.approx(value * ratio([(6, 3), (3, 1)])[1])
    assert perplexity([[(-5, 1)]]) == (None, None), "the first page is given"


def test_the_base_model_reads_plain_text(model):
    pipeline = StoryPipeline.from_pretrained(model, dtype=torch.float32, device="cpu")
    layout, captions = pipeline.story_model.layout, ["The fox ran.", "A bear saw the fox.", "They ran home."]
    (scores,) = base_scores(pipeline.story_model, [captions])
    base = AutoModelForCausalLM.from_pretrained(pipeline.story_model.config.base_lm).eval()
    end = layout.tokenizer.encode("\n", add_special_tokens=False)
    ids = list(layout.opening_ids or [layout.eos_id])
    for caption, (likelihood, tokens) in zip(captions, scores, strict=True):
        own = [*layout.caption_ids(caption), *end]
        with torch.no_grad():
            chances = base(torch.tensor([[*ids, *own]])).logits[0].log_softmax(-1)
        plain = sum(chances[len(ids) + place - 1, token].item() for place, token in enumerate(own))
        assert tokens == len(own) and likelihood == pytest.approx(plain, abs=1e-4)
        ids += own


def test_a_text_longer_than_the_base_model_reads_is_scored_to_its_end(model):
    pipeline = StoryPipeline.from_pretrained(model, dtype=torch.float32, device="cpu")
    caption = "The fox ran home and the bear saw the fox."
    size = len(pipeline.story_model.layout.caption_ids(caption)) + 1
    limit = pipeline.story_model.llm.config.max_position_embeddings
    (scores,) = base_scores(pipeline.story_model, [[caption] * (limit // size + 3)])
    assert [tokens for _, tokens in scores] == [scores[0][1]] * (limit // size + 3)
    assert all(math.isfinite(likelihood) and likelihood < 0 for likelihood, _ in scores)


def test_stories_are_scored_in_a_batch_as_alone(model):
    pipeline = StoryPipeline.from_pretrained(model, dtype=torch.float32, device="cpu")
    stories = [
        [GivenPage(text) for text in texts] for texts in (["A fox.", "It ran."], ["A bear.", "It sat.", "Home."])
    ]
    batch_size, features = story_scores(pipeline.story_model, stories, [2, 5], "window")
    for story, length, scores, drawn in zip(stories, [2, 5], batch_size, features, strict=True):
        (alone,), (own,) = story_scores(pipeline.story_model, [story], [length], "window")
        assert [tokens for _, tokens in alone] == [tokens for _, tokens in scores]
        assert [sum_ for sum_, _ in alone] == pytest.approx([sum_ for sum_, _ in scores], abs=1e-3)
        torch.testing.assert_close(own, drawn, atol=1e-4, rtol=0)


# ---------------------------------------------------------------------------------------------------------- pictures


def sample(mean, covariance, count=50):
    """Vectors of exactly this mean and covariance, `[count, D]`."""
    plain = torch.randn(count, len(mean), dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    plain -= plain.mean(0)
    plain = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(plain.T)), plain.T, upper=False)
    return (torch.linalg.cholesky(covariance) @ plain).T + mean


def test_frechet_distance_of_two_gaussians():
    zero, away = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5]).double()
    one, other = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 0.25]).double()
    distance = frechet_distance(sample(zero, one.diag()), sample(away, other.diag(), 70))
    assert distance == pytest.approx(away.square().sum() + (one.sqrt() - other.sqrt()).square().sum())
    mixed = torch.tensor([[2.0, 0.6, 0.1], [0.6, 1.0, -0.3], [0.1, -0.3, 0.5]]).double()  # does not commute with one
    cross = torch.linalg.eigvals(one.diag() @ mixed).real.sqrt().sum()
    plain = one.sum() + mixed.trace() - 2 * cross
    assert frechet_distance(sample(zero, one.diag()), sample(zero, mixed, 70)) == pytest.approx(plain.item())
    assert frechet_distance(sample(zero, mixed), sample(zero, mixed)) == pytest.approx(0, abs=1e-9)
    few = torch.randn(3, 64)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5), "singular covariances"
    assert frechet_distance(few[:1], few) is None


def test_tokens_of_a_slot():
    tokens = torch.arange(16.0)[:, None]  # a grid of 4 x 4
    assert slot_features(tokens, [0, 0, 0.5, 0.5]).item() == (0 + 1 + 4 + 5) / 4
    assert slot_features(tokens, [0.8, 0.1, 0.82, 0.11]).item() == 3, "smaller than a token: the nearest one"


def test_consistency_by_hand():
    red, blue = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    alike = consistency([(0, "Mia", 0, red), (0, "Mia", 1, red), (1, "Otto", 0, blue), (1, "Otto", 1, blue)])
    assert alike == {"same": pytest.approx(1), "different": pytest.approx(-1), "separation": 1, "pairs": 2}
    mixed = consistency([(0, "Mia", 0, red), (0, "Mia", 1, blue), (1, "Otto", 0, red), (1, "Otto", 1, blue)])
    assert mixed["separation"] == 0.25, "same: two at -1; different: two at 1, two at -1, which are ties"
    one = consistency([(0, "Mia", 0, red), (0, "Mia", 1, red), (0, "Otto", 1, blue)])
    assert one["pairs"] == 1 and one["same"] == pytest.approx(1)
    assert one["different"] is None and one["separation"] is None
    assert consistency([]) == {"same": None, "different": None, "separation": None, "pairs": 0}


def test_appearances_are_found_by_name_and_slot():
    actors = [{"name": "Mia", "slot": "left"}, {"name": "Otto", "slot": "above the clouds"}]
    appearances = character_appearances([torch.rand(2, 4, 3)], [[None, {"actors": actors}]], {"left": [0, 0, 0.5, 1]})
    assert [classify[:3] for classify in appearances] == [(0, "Mia", 1)]
    assert [classify[:3] for classify in image_appearances([torch.rand(2, 4, 3)])] == [(0, "", 0), (0, "", 1)]


def test_retrieval_by_hand():
    images = torch.eye(3)[:, None]
    figures = retrieval([images, images[:2], images[:1]], [images, images[:2].flip(0), images[:1]])
    assert figures["found"] == 3 / 5 and figures["pages"] == 5, "a story of one page has nothing to choose from"
    assert figures["chance"] == pytest.approx((3 / 3 + 2 / 2) / 5)
    assert figures["matched"] == pytest.approx(3 / 5) and figures["mismatched"] == pytest.approx(2 / 8)
    assert retrieval([], [])["found"] is None


def test_renders_are_judged_as_renders(theatre):
    judge = Judge.load()
    true = [sample_from_record(theatre, record, 99, 128) for record in read_jsonl(theatre / "heldout.jsonl")]
    stories = [(sample.pixels, sample.truths) for sample in true]
    figures, errors = judge_stories(judge, stories)
    known = [
        (pixels, truth) for sample in true for pixels, truth in zip(sample.pixels[1:], sample.truths[1:], strict=True)
    ]
    known = [(pixels, truth) for pixels, truth in known if can_judge(judge, truth)]
    near = [
        (sample.pixels[page], truth)
        for sample in true
        for page, truth in enumerate(sample.truths)
        if 1 <= page <= 9 and can_judge(judge, truth)
    ]
    plain = score(judge, torch.stack([pixels for pixels, _ in near]), [truth for _, truth in near])
    for name, key in MEASURES.items():
        assert figures[name]["2-10"] == plain.get(key) and figures[name]["26-50"] is None
    assert list(figures["character_accuracy"]) == list(RANGES)
    assert figures["characters_judged"]["2-10"] == plain["characters"]
    assert figures["text_image_agreement"]["pages"] == len(known) > 0
    assert figures["pages_not_judged"] == sum(len(sample.truths) - 1 for sample in true) - len(known)
    assert 0 <= errors["pose_accuracy"]["2-10"] < 0.5 and errors["pose_accuracy"]["26-50"] is None
    renders = judge_renders(judge, stories)
    assert renders["judge_accuracy_on_renders"] == renders["judge_on_renders"]["character_accuracy"]
    upset = [(pixels.flip(0), truths) for pixels, truths in stories]
    assert judge_stories(judge, upset)[0]["all_five_accuracy"]["2-10"] < figures["all_five_accuracy"]["2-10"]


# ----------------------------------------------------------------------------------------------------------- stories


def test_long_stories_are_taken_where_the_split_has_none(theatre):
    assert choose_records(theatre, "heldout", 2, 4)[0] == "heldout"
    name, (record,) = choose_records(theatre, "heldout", 1, 16)
    assert name == "long-heldout" and len(record) == 16


def test_the_mini_is_scored_twice_alike(theatre, tmp_path):
    arguments = ("mini", "--data", theatre, "--stories", 2, "--pages", 3, "--batch-size", 2, "--seed", 5)
    result = run(*arguments, "--json", tmp_path / "one.json", "--out", tmp_path / "told")
    assert result.exit_code == 0, result.output
    assert "captions given: heldout, 2 stories, 4 pages after the first" in result.output
    one = json.loads((tmp_path / "one.json").read_text())
    assert set(BY_RANGE) <= set(one) and all(list(one[name]) == list(RANGES) for name in BY_RANGE)
    assert one["pages"] == 4 == one["pages_judged"]["2-10"] + one["pages_not_judged"]
    assert 1 < one["perplexity"] < one["base_perplexity"] < 200
    assert one["seconds_per_page"] > 0 and one["feature_cosine"] > 0.5
    assert 0 < one["frechet_distance"]["value"] and one["frechet_distance"]["true_pictures"] == 4
    assert one["free_base_perplexity"] is None and one["errors"]["perplexity"] > 0
    assert sum(1 for _ in (tmp_path / "told").rglob("*.png")) == 6
    assert run(*arguments, "--json", tmp_path / "two.json").exit_code == 0
    assert unclocked(json.loads((tmp_path / "two.json").read_text())) == unclocked(one)


def test_a_stopped_run_goes_on(theatre, model, tmp_path):
    rollout, out = RolloutOptions(pages=3, steps=1, batch_size=1), tmp_path / "parts"
    whole = evaluate(model, rollout, data=theatre, stories=2)
    evaluate(model, rollout, data=theatre, stories=1, out=out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.png")}
    assert len(before) == 3
    parts = evaluate(model, rollout, data=theatre, stories=2, out=out)
    assert unclocked(parts) == unclocked(whole) and parts["seconds_per_page"] > 0
    assert {file: file.stat().st_mtime_ns for file in before} == before, "the first story is not generated again"
    assert evaluate(model, rollout, data=theatre, stories=2, out=out) == parts
    with pytest.raises(ValueError, match="were generated with another seed: give another --out"):
        evaluate(model, RolloutOptions(pages=3, steps=1, batch_size=1, seed=1), data=theatre, stories=2, out=out)


def test_free_stories_are_judged_once_they_were_read(theatre, model, tmp_path):
    arguments = (
        model,
        "--data",
        theatre,
        "--stories",
        2,
        "--pages",
        3,
        "--free",
        "--steps",
        1,
        "--out",
        tmp_path / "told",
    )
    assert run(*arguments, "--json", tmp_path / "free.json").exit_code == 0
    free = json.loads((tmp_path / "free.json").read_text())
    assert free["protocol"] == "free" and free["pages_not_judged"] == 4
    assert free["plot_coherence"] is None, "the data set has no training split"
    assert free["character_accuracy"] == dict.fromkeys(RANGES) and free["text_image_agreement"]["seen"] is None
    assert free["free_base_perplexity"] > 1 and free["feature_cosine"] is None
    assert set(free["data_text"]) == {"distinct_1", "distinct_2", "distinct_3", "repetition"}
    stories = sorted(folder for folder in (tmp_path / "told").iterdir() if folder.is_dir())
    for story in stories:  # a random model's words cannot be read, so the first page's stand in for them
        record = json.loads((story / "story.json").read_text())
        for page in record["pages"]:
            page["caption"] = record["pages"][0]["caption"]
        (story / "story.json").write_text(json.dumps(record))
    run_theatre("annotate", *stories)
    data = shutil.copytree(theatre, tmp_path / "data")
    plots = [record.extra["plot"] for record in read_jsonl(data / "heldout.jsonl")]
    write_jsonl(data / "train.jsonl", (written_record(n, "train", plots[n % 2]) for n in range(40)))
    arguments = [data if one is theatre else one for one in arguments]
    assert run(*arguments, "--json", tmp_path / "read.json").exit_code == 0
    read = json.loads((tmp_path / "read.json").read_text())
    coherence = read["plot_coherence"]
    assert coherence["stories"] == 2 and coherence["pages_in_a_plot"] == 1, "the first page, again and again"
    assert coherence["same_plot"] == 1 and coherence["next_beat"] == 0 and coherence["plan_followed"] is None
    assert coherence["reference"]["page_accuracy"] > 0.9
    assert read["pages_judged"]["2-10"] == 4 and read["character_accuracy"]["2-10"] is not None


def test_stories_without_truth(model, tmp_path):
    pipeline = StoryPipeline.from_pretrained(model)
    pipeline("The fox found a lantern.", pages=3, num_inference_steps=1, out=tmp_path / "mine" / "fox")
    pipeline("A bear ran home.", pages=2, num_inference_steps=1, out=tmp_path / "mine" / "bear")
    result = run(tmp_path / "mine", "--model", model, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0 and "as they are: 2 stories, 3 pages" in result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["pages_not_judged"] == 3 and scores["judge_accuracy_on_renders"] is None
    assert scores["frechet_distance"]["value"] is None and scores["seconds_per_page"] is None
    assert scores["consistency"]["of"] == "pictures" and scores["consistency"]["separation"] is not None
    assert scores["text_image_agreement"]["retrieval"]["pages"] == 2
    assert scores["perplexity"] > 1 and scores["base_perplexity"] > 1 and 0 <= scores["repetition"] <= 1
    alone = evaluate(str(tmp_path / "mine" / "fox"), RolloutOptions(), model=model)
    assert alone["stories"] == 1 and alone["consistency"]["separation"] is None


def test_images_rebuilt_from_their_own_tokens(theatre, model, tmp_path):
    arguments = ["--data", theatre, "--split", "long-heldout", "--model", model, "--limit", "3", "--steps", "1"]
    result = CliRunner().invoke(
        reconstruction.app, [*map(str, arguments), "--json", str(tmp_path / "reconstruction.json")]
    )
    assert result.exit_code == 0, result.output
    columns = json.loads((tmp_path / "reconstruction.json").read_text())
    assert list(columns) == ["renders", "autoencoder", "visual tokens"]
    images = TruthImages(theatre, "long-heldout", limit=3)
    assert columns["renders"] == score(Judge.load(), images.pixels(torch.arange(3)), images.truths)
    assert columns["visual tokens"]["PSNR (dB)"] < 20, "a random model draws something else"
    result = CliRunner().invoke(reconstruction.app, ["--data", str(tmp_path / "none")])
    assert result.exit_code == 2 and result.output.startswith("error: ")


def test_requests_that_cannot_be_met(theatre, model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.txt").touch()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "rollout.json").write_text("{")
    for arguments, message in (
        (["mini", "--data", tmp_path / "none"], "there is no data set"),
        (["mini", "--data", theatre, "--split", "test"], "no split 'test': it holds heldout, long-heldout"),
        (["mini", "--data", theatre, "--pages", "17"], "no story of 17 pages, the longest has 16"),
        (["mini", "--data", theatre, "--stories", "3", "--pages", "4"], "hold 2 stories of 4 or more pages, not 3"),
        (["mini", "--data", theatre, "--policy", "lru"], "unknown policy 'lru': choose one of"),
        (["mini", "--data", theatre, "--pages", "1"], "--pages must be 2 or more"),
        (["mini", "--data", theatre, "--judge", tmp_path], "holds no judge"),
        ([tmp_path / "none"], "there is no model and no folder"),
        ([tmp_path / "empty"], "holds no story"),
        (["mini", "--data", theatre, "--model", model], "--model is for stories that are there"),
        ([tmp_path / "one", "--free"], "--free and --out are for a model"),
        (["mini", "--data", theatre, "--stories", "1", "--pages", "2", "--out", tmp_path / "other"], "other files"),
        (["mini", "--data", theatre, "--stories", "1", "--pages", "2", "--out", tmp_path / "torn"], "cannot be read"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and message in result.output, result.output
        assert result.output.startswith("error: ") and len(result.output.splitlines()) == 1
