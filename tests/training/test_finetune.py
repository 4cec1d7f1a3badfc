"""Fine-tuning on a book of four pages, at toy length, up to a model that tells a page; and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seedstory.identity import fingerprint
from seedstory.pipeline import StoryPipeline
from tests.tiny import SIDE, tiny_model_folder
from tests.training.tiny_data import write_book, write_model
from training.config import load_config
from training.finetune import FinetuneConfig, finetune
from training.finetune import main as run
from training.pages import PageImages
from training.recipes import make_recipe

CONFIG = Path(__file__).parents[2] / "configs" / "finetune" / "own_book.yaml"
STEPS = {
    "autoencoder_steps": 4,
    "story_model_steps": 3,
    "detokenizer_steps": 4,
    "save_every": 2,
    "device": "cpu",
    "threads": 1,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def tuned(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    config = FinetuneConfig(data=str(write_book(folder / "data")), model=str(model), out=str(folder / "run"), **STEPS)
    finetune(config)
    return config


def test_the_new_model_writes_and_draws_a_page(tuned, model):
    pipeline = StoryPipeline.from_pretrained(Path(tuned.out) / "model", dtype=torch.float32, device="cpu")
    assert pipeline.identity.fingerprint != fingerprint(model)
    story = pipeline("The fox takes a step.", pages=2, max_caption_tokens=4, num_inference_steps=1)
    assert [page.image.size for page in story.pages] == [(128, 128)] * 2


def test_the_tower_stays_and_every_other_part_has_learned(tuned, model):
    new = Path(tuned.out) / "model"
    loaded = [StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu") for folder in (model, new)]
    before, after = ({**pipe.vision_tower.state_dict()} for pipe in loaded)
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight.bfloat16().float(), atol=0, rtol=0)
    networks = {
        "decoder": [pipe.detokenizer.autoencoder.decoder for pipe in loaded],
        "unet": [pipe.detokenizer.unet for pipe in loaded],
        "story model": [pipe.story_model.output_resampler for pipe in loaded],
    }
    for name, (old, learned) in networks.items():
        pairs = zip(old.parameters(), learned.parameters(), strict=True)
        assert any((a - b).abs().max() > 0.02 * a.abs().max() for a, b in pairs), name


def test_pages_keep_all_they_show(tuned):
    with Image.open(Path(tuned.out) / "pages" / "train" / "00000" / "00000.png") as page:
        pixels = np.asarray(page)
    assert pixels.shape == (128, 128, 3)
    assert (pixels[:20] == 255).all() and (pixels[-20:] == 255).all(), "a wide page has white above and below"
    assert tuple(pixels[64, 2]) == (135, 206, 235), "and its edges are there"


def test_the_figures_and_the_sheet_are_of_the_model_before_and_after(tuned):
    figures = json.loads((Path(tuned.out) / "book.json").read_text())
    assert {name: set(value) for name, value in figures.items()} == {
        "rebuilt": {"before", "after"},
        "regressed": {"before", "after"},
    }
    with Image.open(Path(tuned.out) / "book.png") as sheet:
        assert sheet.size == (4 * 128, 3 * 128)


def test_what_is_finished_is_not_run_again(tuned, capsys):
    out = Path(tuned.out)
    logs = {path: path.read_bytes() for path in out.glob("*/*.jsonl")}
    before = fingerprint(out / "model")
    (out / "drawing" / "finished").unlink()  # as if stopped after the last step
    finetune(tuned)
    said = capsys.readouterr().out
    assert said.count("finished before") == 2 and "going on after 4 of 4 steps" in said
    assert fingerprint(out / "model") == before
    assert {path: path.read_bytes() for path in out.glob("*/*.jsonl")} == logs


def test_a_part_that_was_stopped_goes_on_to_the_same_model(tuned, tmp_path, monkeypatch):
    from training import finetune as module

    config = replace(tuned, out=str(tmp_path / "run"))
    train = module.train

    def interrupted(part, make):
        if make is module.MllmStage:
            stage = make.draw
            monkeypatch.setattr(
                make, "draw", lambda self, step, progress: stop() if step == 2 else stage(self, step, progress)
            )
        return train(part, make)

    def stop():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(config)
    monkeypatch.undo()
    finetune(config)
    assert fingerprint(Path(config.out) / "model") == fingerprint(Path(tuned.out) / "model")


def test_several_books_of_any_length(model, tmp_path):
    data = write_book(tmp_path / "data", pages=7)
    line = (data / "train.jsonl").read_text()
    short = json.loads(line)
    short |= {"id": "another", "images": short["images"][:1], "captions": ["A fox."], "orders": [0]}
    (data / "train.jsonl").write_text(line + json.dumps(short) + "\n")
    config = FinetuneConfig(data=str(data), model=str(model), out=str(tmp_path / "run"), **STEPS, window=3)
    finetune(config)
    with Image.open(tmp_path / "run" / "book.png") as sheet:
        assert sheet.size == (8 * 128, 3 * 128)


def test_a_model_of_other_sizes_keeps_them(tmp_path):
    data = write_book(tmp_path / "data", pages=3)
    config = FinetuneConfig(data=str(data), model=str(tiny_model_folder(tmp_path)), out=str(tmp_path / "run"), **STEPS)
    pipeline = StoryPipeline.from_pretrained(finetune(config), dtype=torch.float32, device="cpu")
    assert pipeline.detokenizer.image_size == SIDE and pipeline.story_model.config.feature_dim == 6
    with Image.open(tmp_path / "run" / "book.png") as sheet:
        assert sheet.size == (3 * SIDE, 3 * SIDE)


def test_another_book_or_other_settings_need_another_folder_and_nothing_is_lost(tuned, tmp_path):
    kept = sorted(path for path in Path(tuned.out).rglob("*") if path.is_file())
    with pytest.raises(
        ValueError, match=r"another book, model or settings \(story_model_steps\): choose another `out`"
    ):
        finetune(replace(tuned, story_model_steps=9))
    other = write_book(tmp_path / "other", pages=5)
    with pytest.raises(ValueError, match=r"\(data, train_stories\)"):
        finetune(replace(tuned, data=str(other)))
    assert sorted(path for path in Path(tuned.out).rglob("*") if path.is_file()) == kept


def test_missing_and_damaged_data_are_named(tuned, tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*import the book first"):
        finetune(replace(tuned, data=str(tmp_path / "none"), out=str(tmp_path / "run")))
    with pytest.raises(ValueError, match="holds neither val.jsonl nor packed shards"):
        finetune(replace(tuned, split="val", out=str(tmp_path / "run")))
    data = write_book(tmp_path / "data")
    (data / "images" / "2.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"2.png is not a picture"):
        finetune(replace(tuned, data=str(data), out=str(tmp_path / "run")))
    (data / "images" / "2.png").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*2.png"):
        finetune(replace(tuned, data=str(data), out=str(tmp_path / "run")))
    (data / "train.jsonl").write_text("")
    with pytest.raises(ValueError, match="has no story in the split 'train'"):
        finetune(replace(tuned, data=str(data), out=str(tmp_path / "run")))
    with pytest.raises(ValueError, match="there is no model nowhere"):
        finetune(replace(tuned, model="nowhere", out=str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=3", "unknown key 'stepz'"),
        ("story_model_steps=0", "story_model_steps must be at least 1"),
        ("fit=stretch", "fit must be one of pad, crop"),
        ("data=none/at/all", "there is no folder none/at/all: import the book first"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(override, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["finetune", "--config", str(CONFIG), override])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_the_shipped_configuration_is_valid():
    config = load_config(CONFIG, FinetuneConfig)
    assert config.model == "mini" and config.data == "data/own_book"


def test_pages_that_are_no_squares_are_cropped_for_the_image_networks(tmp_path):
    data = write_book(tmp_path, pages=1, size=(192, 96))
    record = json.loads((data / "train.jsonl").read_text())
    record["pages"] = [{"actors": [{"box": [60, 0, 84, 96]}]}]
    (data / "train.jsonl").write_text(json.dumps(record) + "\n")
    images = PageImages(data, "train", size=48, recipe=make_recipe("theatre", {"head_weight": 4.0}))
    with Image.open(data / "images" / "0.png") as page:
        center = page.crop((48, 0, 144, 96)).resize((48, 48), Image.Resampling.LANCZOS)
    assert np.abs(images.pixels[0].permute(1, 2, 0).numpy().astype(int) - np.asarray(center)).max() <= 1
    assert images.weights[0, 2, 1:4].tolist() == [4, 4, 4] and images.weights[0, 8].unique().tolist() == [1]
