"""Stages 1b, 2 and 3, and a book, with language models and vision towers of other families; tiny and random."""

import pytest
import torch

from seedstory.detokenizers.objectives import Diffusion
from seedstory.export import write_book
from seedstory.modeling.vision_tower import load_vision_tower
from seedstory.pipeline import StoryPipeline
from seedstory.story_folder import StoryFolder
from tests.seedstory.families import family_lm, write_network
from tests.seedstory.tiny_language import tiny_tokenizer
from tests.tiny_sdxl import SIDE, write_sdxl
from tests.training.tiny_data import write_book as write_records
from training.adapt import AdaptConfig, AdaptStage
from training.assemble import assemble
from training.detokenizer import DetokenizerConfig, detokenizer_stage
from training.loop import train
from training.mllm import MllmConfig, MllmStage
from training.tower import command as write_tower

PAIRS = {"gemma3": "siglip2", "smollm3": "dinov3", "mistral": "clip", "qwen2.5": "dinov2"}
TINY = {f"{side}_resampler_{size}": 16 for side in ("input", "output") for size in ("width",)}
TINY |= {f"{side}_resampler_{size}": 2 for side in ("input", "output") for size in ("heads",)}
TINY |= {f"{side}_resampler_depth": 1 for side in ("input", "output")}
RUN = {"heldout": "train", "log_every": 1, "device": "cpu", "precision": "fp32", "optimizer": "adamw"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What the stages start from."""
    folder = tmp_path_factory.mktemp("parts")
    write_records(folder / "data", pages=3)
    write_sdxl(folder / "sdxl")
    return folder


@pytest.fixture(
    scope="module",
    params=["gemma3", "smollm3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mistral", "qwen2.5"))],
)
def trained(request, parts, tmp_path_factory):
    """A folder with `base/`, `stage1/`, `stage2/` and `stage3/` after two steps of each stage."""
    out, tokenizer = tmp_path_factory.mktemp("run"), tiny_tokenizer(bos=None)
    family_lm(request.param, len(tokenizer) + 24).save_pretrained(out / "base")  # the vocabulary is padded
    tokenizer.save_pretrained(out / "base")
    network = write_network(out / "network", PAIRS[request.param])
    write_tower(str(network), out / "tower", grid_size=2)
    common = RUN | {"data": str(parts / "data"), "steps": 2, "save_every": 2}
    drawing = {"heldout_limit": 1, "heldout_steps": 1, "parts": "kv", "batch_size": 2}
    sizes = {"context_tokens": 3, "adapter_width": 16, "adapter_depth": 1}
    stage1 = {"form": "sdxl", "sdxl": str(parts / "sdxl"), "tower": str(out / "tower"), "out": str(out / "stage1")}
    train(DetokenizerConfig(**common, **drawing, **sizes, **stage1), detokenizer_stage)
    stage2 = {"stage1": str(out / "stage1"), "base_lm": str(out / "base"), "out": str(out / "stage2")}
    with pytest.MonkeyPatch.context() as patch:  # its sample pages are drawn, for nobody
        patch.setattr(Diffusion, "num_inference_steps", 1)
        train(MllmConfig(**common, **TINY, **stage2, batch_size=1, num_visual_tokens=4, lora_rank=2), MllmStage)
    stage3 = stage2 | {"out": str(out / "stage3"), "story_model": str(out / "stage2" / "story_model")}
    train(AdaptConfig(**common, **drawing, **stage3), AdaptStage)
    assemble(out / "stage1", out / "stage2", out / "model", out / "stage3")
    return out


@pytest.fixture(scope="module")
def pipe(trained):
    return StoryPipeline.from_pretrained(trained / "model", dtype=torch.float32, device="cpu")


REQUEST = {"text": "The fox takes a step.", "pages": 4, "title": "T", "max_caption_tokens": 4, "num_inference_steps": 1}


def test_the_tower_is_read_by_all_stages_and_comes_out_as_it_went_in(trained, pipe):
    before, after = load_vision_tower(trained / "tower"), pipe.vision_tower
    assert type(after) is type(before) and after.num_features == 4
    config = pipe.story_model.config
    assert (config.feature_tokens, config.feature_dim) == (4, after.config.feature_dim)
    for name, weight in before.state_dict().items():
        assert torch.allclose(weight, after.state_dict()[name], atol=1e-2), name  # assembled in bfloat16


def test_stories_are_written_resumed_and_made_a_book(pipe, tmp_path):
    whole = pipe(**REQUEST, out=tmp_path / "whole")
    assert [page.image.size for page in whole.pages] == [(SIDE, SIDE)] * 4
    stream = pipe.stream(**REQUEST, out=tmp_path / "cut")
    next(stream), next(stream)
    stream.close()
    list(pipe.resume(tmp_path / "cut"))
    folders = [StoryFolder.open(tmp_path / name) for name in ("whole", "cut")]
    for one, two in ([folder.page(index) for folder in folders] for index in range(4)):
        assert one.caption == two.caption and torch.equal(one.features, two.features)
        assert one.image.tobytes() == two.image.tobytes()
    book = write_book(StoryFolder.open(tmp_path / "whole"), tmp_path / "book.html")
    assert "The fox takes a step." in book.read_text()


def test_an_image_opens_a_story(pipe):
    from PIL import Image

    story = pipe(image=Image.new("RGB", (40, 30), "orange"), pages=2, max_caption_tokens=3, num_inference_steps=1)
    assert story.pages[0].features.shape == (4, pipe.vision_tower.config.feature_dim) and len(story.pages) == 2


def test_a_saved_pipeline_writes_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "again")
    again = StoryPipeline.from_pretrained(tmp_path / "again", dtype=torch.float32, device="cpu")
    for one, two in zip(pipe(**REQUEST).pages, again(**REQUEST).pages, strict=True):
        assert one.caption == two.caption and (one.features - two.features).abs().max() < 1e-5


def test_a_frozen_tower_is_not_trained_by_the_mini_form(trained, parts, tmp_path):
    from seedstory.detokenizers.autoencoder import ImageAutoencoder

    ImageAutoencoder(4, (8, 8), (1, 1), (1, 1)).save_pretrained(tmp_path / "autoencoder")
    config = RUN | {"data": str(parts / "data"), "out": str(tmp_path), "steps": 1, "init": str(trained / "stage1")}
    with pytest.raises(ValueError, match="has a frozen vision tower, which cannot be trained: set another form"):
        train(DetokenizerConfig(**config, autoencoder=str(tmp_path / "autoencoder")), detokenizer_stage)
