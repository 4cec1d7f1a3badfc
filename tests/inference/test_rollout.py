"""From openings to generated stories to figures, with a tiny random model: the three commands of the README."""

import json

import pytest

from inference import generate
from inference.evaluate import evaluate
from inference.judge import Judge
from inference.judge_metrics import can_judge
from inference.rollout import RolloutOptions
from seedstory.pipeline import StoryPipeline
from tests.data_tools.theatre import run_theatre
from tests.tiny import tiny_model_folder


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theatre")
    run_theatre("generate", "--out", folder, "--split", "heldout", "--stories", "2")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("model"))


def test_scripted_stories_are_judged_on_every_character(theatre, model, tmp_path):
    generate.main(theatre, tmp_path / "told", stories=2, scripted=True, steps=1, model=str(model))
    stories = sorted((tmp_path / "told").iterdir())
    run_theatre("annotate", *stories)
    scores = evaluate(str(tmp_path / "told"), RolloutOptions(), model=str(model))
    judge = Judge.load()
    records = [json.loads(line) for line in (theatre / "heldout.jsonl").read_text().splitlines()]
    pages = [page for record in records for page in record["pages"][1:]]
    known = [page for page in pages if can_judge(judge, page)]
    assert sum(scores["characters_judged"].values()) == sum(len(page["actors"]) for page in known) > 0
    assert scores["pages_not_judged"] == len(pages) - len(known)
    assert scores["character_accuracy"]["2-10"] < 0.3, "random pictures cannot be right"


@pytest.mark.parametrize("opening", ["text", "image", "both"])
def test_finished_stories_are_kept_and_a_new_rollout_needs_new_truths(theatre, model, tmp_path, opening):
    generate.main(theatre, tmp_path, stories=1, pages=2, opening=opening, steps=1, model=str(model))
    (story,) = tmp_path.iterdir()
    before = (story / "story.json").read_bytes()
    run_theatre("annotate", story)
    generate.main(theatre, tmp_path, stories=1, pages=2, opening=opening, steps=1, model=str(model), seed=5)
    assert (story / "story.json").read_bytes() == before
    record = json.loads(before)
    record["pages"][1]["caption"] = "Another telling."
    (story / "story.json").write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match="belongs to another run of this story: run python -m data_tools.paper_theatre annotate"
    ):
        evaluate(str(tmp_path), RolloutOptions(), model=str(model))


def test_a_loaded_model_can_be_saved_again(model, tmp_path):
    first = StoryPipeline.from_pretrained(model, device="cpu")
    first.save_pretrained(tmp_path / "copy")
    again = StoryPipeline.from_pretrained(tmp_path / "copy", device="cpu")
    opening = "The fox found a lantern."
    one, two = (pipe(opening, pages=2, num_inference_steps=1).pages[1] for pipe in (first, again))
    assert one.caption == two.caption and one.image.tobytes() == two.image.tobytes()
