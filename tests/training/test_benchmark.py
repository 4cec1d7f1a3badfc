"""The published scheme beside ours: the same losses and gradients on the same pages, and honest counts of the work."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seedstory.layout import IGNORE
from seedstory.storystream import StoryRecord, write_jsonl
from tests.seedstory.tiny_language import SENTENCES, tiny_model
from tests.tiny import SIDE, tiny_model_folder, tiny_vision_tower
from training import benchmark
from training.benchmark import in_own_process, main
from training.published_scheme import (
    ONE_BY_ONE,
    OURS,
    PUBLISHED,
    SCHEMES,
    BenchStory,
    Trainer,
    compare_losses,
    page_sample,
)

LENGTH = 160


@pytest.fixture
def trainer(request):
    """A tiny float32 model; a test may choose its feature head."""
    torch.manual_seed(0)
    model = tiny_model(feature_head=getattr(request, "param", "regression"))
    return Trainer(model, tiny_vision_tower(), LENGTH, torch.device("cpu"))


@pytest.fixture
def stories(trainer):
    """Two stories of five and three pages, whose features are what the tower says of their pixels."""
    made = []
    for pages in (5, 3):
        captions = [trainer.model.layout.caption_ids(SENTENCES[page % 3][: 12 + 5 * page]) for page in range(pages)]
        pixels = torch.randint(0, 256, (pages, 3, SIDE, SIDE), dtype=torch.uint8)
        with torch.no_grad():
            made.append(BenchStory(captions, pixels, trainer.tower(pixels.float() / 127.5 - 1)))
    return made


def gradients(trainer, scheme, stories):
    """Of one step over all stories."""
    trainer.optimizer.step = lambda: None
    trainer.step(SCHEMES[scheme], stories, mixed=False)
    return {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.requires_grad}


def test_a_process_that_is_killed_is_not_waited_for():
    assert in_own_process(os.getpid) != os.getpid()
    assert in_own_process(os.abort) is None


@pytest.mark.parametrize("trainer", ["regression", "flow"], indirect=True)
def test_all_schemes_have_the_same_losses(trainer, stories):
    losses = compare_losses(trainer, stories)
    assert losses.keys() == SCHEMES.keys()
    for values in losses.values():
        assert values == pytest.approx(losses[OURS], rel=1e-5)
    assert losses[OURS]["lm"] > 1 and losses[OURS]["visual"] > 0.1
    stories[0].pixels[1] = 0  # the tower in the loop sees it, cached features do not
    changed = compare_losses(trainer, stories)
    assert changed[PUBLISHED]["lm"] != pytest.approx(losses[PUBLISHED]["lm"], rel=1e-5)
    assert changed[OURS] == losses[OURS]


def test_packed_losses_are_those_of_each_page_alone(trainer, stories):
    story = stories[0]
    batches = trainer.batches(SCHEMES[ONE_BY_ONE], [story])
    assert len(batches) == 4 and all(batch.labels.shape == (1, LENGTH) for batch in batches)
    alone = [trainer.losses(SCHEMES[ONE_BY_ONE], batch, [story]) for batch in batches]
    tokens = torch.tensor([float((batch.labels != IGNORE).sum()) for batch in batches])
    (packed,) = trainer.batches(SCHEMES[OURS], [story])
    lm_loss, visual_loss = trainer.losses(SCHEMES[OURS], packed, [story])
    torch.testing.assert_close((torch.stack([lm for lm, _ in alone]) * tokens).sum() / tokens.sum(), lm_loss)
    torch.testing.assert_close(torch.stack([visual for _, visual in alone]).mean(), visual_loss)


@pytest.mark.parametrize("scheme", [PUBLISHED, ONE_BY_ONE])
def test_all_schemes_have_the_same_gradients(trainer, stories, scheme):
    ours = gradients(trainer, OURS, stories)
    theirs = gradients(trainer, scheme, stories)
    assert ours.keys() == theirs.keys() and len(ours) > 20
    largest = max(gradient.abs().max() for gradient in ours.values())
    for name, gradient in ours.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-3, atol=1e-5 * float(largest), msg=name)


def test_a_published_sample_is_as_published(trainer, stories):
    layout, captions = trainer.model.layout, stories[0].caption_ids
    sample = page_sample(layout, captions, 2)
    ids, labels, n = sample["input_ids"], sample["labels"], layout.num_visual_tokens
    images = [place for place, token in enumerate(ids) if token == layout.image_start_id]
    assert len(images) == 3 and ids[-1] == layout.image_end_id and len({*map(len, sample.values())}) == 1
    for place in images:
        assert ids[place + 1 : place + n + 2] == [*layout.query_ids, layout.image_end_id]
    assert [place for place, shown in enumerate(sample["context_mask"]) if shown] == [
        place + 1 + slot for place in images[:2] for slot in range(n)
    ]
    assert [place for place, asked in enumerate(sample["query_mask"]) if asked] == [
        images[2] + 1 + slot for slot in range(n)
    ]
    learned = [place for place, label in enumerate(labels) if label != IGNORE]
    assert [labels[place] for place in learned] == [*captions[2], layout.image_start_id]
    assert [ids[place + 1] for place in learned] == [*captions[2], layout.image_start_id]


def test_work_is_counted_for_each_learned_page(trainer, stories):
    published = benchmark.work(trainer, SCHEMES[PUBLISHED], stories[:1])
    assert published == {"tokens": LENGTH, "scored": LENGTH, "pictures": (2 + 3 + 4 + 5) / 4}
    ours = benchmark.work(trainer, SCHEMES[OURS], stories[:1])
    layout, captions = trainer.model.layout, stories[0].caption_ids
    whole = len(page_sample(layout, captions, 4)["labels"]) + 4 * layout.num_visual_tokens
    assert ours == {"tokens": whole / 4, "scored": sum(len(c) + 1 for c in captions[1:]) / 4, "pictures": 0}


def test_a_sample_that_does_not_fit_is_refused(trainer, stories):
    trainer.length = 40
    with pytest.raises(ValueError, match="tokens: give a --length of at least as many, not 40"):
        trainer.step(SCHEMES[PUBLISHED], stories)


@pytest.fixture
def data(tmp_path):
    """Two stories of ten pages."""
    numbers, records = np.random.default_rng(0), []
    (tmp_path / "data/images").mkdir(parents=True)
    for story in range(2):
        images = [f"images/{story}-{page}.png" for page in range(10)]
        captions, orders = [SENTENCES[page % 3] for page in range(10)], list(range(10))
        records.append(StoryRecord(id=f"s{story}", images=images, captions=captions, orders=orders))
        for image in images:
            Image.fromarray(numbers.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(tmp_path / "data" / image)
    write_jsonl(tmp_path / "data/train.jsonl", records)
    return tmp_path / "data"


def test_the_command_measures_and_reports(data, tmp_path, monkeypatch, capsys):
    path = tmp_path / "figures.json"
    command = ["benchmark", "--data", str(data), "--model", str(tiny_model_folder(tmp_path)), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "2", "--ingredients", "--no-memory", "--json", str(path)])
    main()
    assert "every scheme has the losses" in capsys.readouterr().out
    result = json.loads(path.read_text())
    assert result["schemes"].keys() == SCHEMES.keys()
    ratio = result["schemes"][OURS]["ratio"]
    assert ratio["tokens"] > 4 and ratio["pages_per_s"]["count"] == 2
    assert result["schemes"][PUBLISHED]["ratio"]["tokens"] == 1
    packing = result["schemes"]["published + packing"]
    assert packing["tokens_per_page"] == result["schemes"][OURS]["tokens_per_page"]


def test_the_published_shape_takes_six_times_fewer_tokens(data, tmp_path):
    options = benchmark.Options(shape="published", data=str(data), model=str(tiny_model_folder(tmp_path)))
    trainer = benchmark.build(options, 0)
    layout = trainer.model.layout
    trainer.length = benchmark.sample_length(options, layout)
    stories = benchmark.load_stories(options, layout, trainer.tower, 1)
    tokens = {name: benchmark.work(trainer, SCHEMES[name], stories)["tokens"] for name in (PUBLISHED, OURS)}
    labels = sum(len(layout.page_label_ids(left)) for left in range(1, 11))
    # bos; ten pages of a label, 46 tokens, `<img>`, 64 visual tokens and `</img>`; nine branches of 64 query tokens
    assert tokens == {PUBLISHED: 1280, OURS: (1 + labels + 10 * (46 + 1 + 64 + 1) + 9 * 64) / 9}
    assert tokens[PUBLISHED] > 6 * tokens[OURS]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are known on Linux alone")
def test_memory_is_that_of_the_step(data, tmp_path):
    options = benchmark.Options(data=str(data), model=str(tiny_model_folder(tmp_path)))
    small, large = (benchmark.peak_memory(options, length, SCHEMES[PUBLISHED]) for length in (400, 1600))
    # 9 samples of 1,200 tokens more, scored against 330 words: bf16 scores and their gradient alone.
    assert large - small > 9 * 1200 * 330 * 2 * 2 / 1e6


def test_a_scheme_with_other_losses_is_not_measured(data, tmp_path, monkeypatch):
    options = benchmark.Options(data=str(data), model=str(tiny_model_folder(tmp_path)))
    assert benchmark.check(options).keys() == SCHEMES.keys()
    monkeypatch.setattr(
        "training.published_scheme.countdown", lambda pages: [pages] * pages
    )  # every page's label is wrong
    with pytest.raises(ValueError, match=r"the (lm|visual) loss of 'published' is"):
        benchmark.check(options)
