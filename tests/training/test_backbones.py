"""Stages 1b, 2 and 3, and a book, with language models, towers and de-tokenizers of other families; tiny and random."""

import pytest
import torch

from seedstory.detokenizers.backbones import Flux2, StableDiffusion3
from seedstory.detokenizers.objectives import Diffusion
from seedstory.export import write_book
from seedstory.modeling.qwen_vision_tower import QwenVisionTower
from seedstory.modeling.vision_tower import load_vision_tower
from seedstory.pipeline import StoryPipeline
from seedstory.story_folder import StoryFolder
from tests.seedstory.families import FAMILIES, NETWORKS, family_lm, write_network
from tests.seedstory.tiny_language import tiny_tokenizer
from tests.tiny_backbones import FORMS, write_backbone
from tests.tiny_sdxl import SIDE, write_sdxl
from tests.training.tiny_data import write_book as write_records
from training.adapt import AdaptConfig, AdaptStage
from training.assemble import assemble
from training.detokenizer import DetokenizerConfig, detokenizer_stage
from training.loop import train
from training.mllm import MllmConfig, MllmStage
from training.tower import command as write_tower

# A language model, a vision tower and a de-tokenizer; each family of either is in one of them.
RUNS = {"gemma3": ("siglip2", "sdxl"), "smollm3": ("dinov3", "sd3")}
SHORT_RUNS = {
    "mistral": ("clip", "flux2"),
    "qwen2.5": ("dinov2", "sdxl"),
    "llama2": ("dinov2 with registers", "sd3"),
    "llama3": ("siglip", "sd15"),
    "qwen3": ("qwen", "flux2"),
    "smollm2": ("qwen", "sd3"),
}
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
    for form in FORMS:
        write_backbone(form, folder / form)
    return folder


def write_tower_of(family, folder):
    """A vision tower of 2 x 2 features."""
    if family == "qwen":
        sizes = {"width": 16, "depth": 1, "heads": 2, "patch_size": 8, "position_side": 4, "image_size": 32}
        QwenVisionTower(**sizes, feature_side=2, feature_dim=8, pool_heads=2).save_pretrained(folder / "tower")
    else:
        write_tower(str(write_network(folder / "network", family)), folder / "tower", grid_size=2)


def run_stages(parts, out, language, family, form, steps):
    """Write `base/`, `stage1/`, `stage2/`, `stage3/` and `model/` into a folder."""
    tokenizer = tiny_tokenizer(bos=None)
    family_lm(language, len(tokenizer) + 24).save_pretrained(out / "base")  # the vocabulary is padded
    tokenizer.save_pretrained(out / "base")
    write_tower_of(family, out)
    common = RUN | {"data": str(parts / "data"), "steps": steps, "save_every": steps}
    drawing = {"heldout_limit": 1, "heldout_steps": 1, "parts": "kv", "batch_size": 2}
    sizes = {"context_tokens": 3, "adapter_width": 16, "adapter_depth": 1}
    sizes |= {"sdxl": str(parts / "sdxl")} if form == "sdxl" else {"base": str(parts / form), "image_size": SIDE}
    stage1 = {"form": form, "tower": str(out / "tower"), "out": str(out / "stage1")}
    train(DetokenizerConfig(**common, **drawing, **sizes, **stage1), detokenizer_stage)
    stage2 = {"stage1": str(out / "stage1"), "base_lm": str(out / "base"), "out": str(out / "stage2")}
    with pytest.MonkeyPatch.context() as patch:  # its sample pages are drawn, for nobody
        for kind in (Diffusion, StableDiffusion3, Flux2):
            patch.setattr(kind, "num_inference_steps", 1)
        train(MllmConfig(**common, **TINY, **stage2, batch_size=1, num_visual_tokens=4, lora_rank=2), MllmStage)
    stage3 = stage2 | {"out": str(out / "stage3"), "story_model": str(out / "stage2" / "story_model")}
    train(AdaptConfig(**common, **drawing, **stage3), AdaptStage)
    assemble(out / "stage1", out / "stage2", out / "model", out / "stage3")


@pytest.fixture(scope="module", params=RUNS)
def trained(request, parts, tmp_path_factory):
    """A folder with `base/`, `stage1/`, `stage2/` and `stage3/` after two steps of each stage."""
    out = tmp_path_factory.mktemp("run")
    run_stages(parts, out, request.param, *RUNS[request.param], steps=2)
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
    write_and_resume(pipe, tmp_path, pages=4)


def write_and_resume(pipe, tmp_path, pages):
    request = REQUEST | {"pages": pages}
    whole = pipe(**request, out=tmp_path / "whole")
    assert [page.image.size for page in whole.pages] == [(SIDE, SIDE)] * pages
    stream = pipe.stream(**request, out=tmp_path / "cut")
    next(stream), next(stream)
    stream.close()
    list(pipe.resume(tmp_path / "cut"))
    folders = [StoryFolder.open(tmp_path / name) for name in ("whole", "cut")]
    for one, two in ([folder.page(index) for folder in folders] for index in range(pages)):
        assert one.caption == two.caption and torch.equal(one.features, two.features)
        assert one.image.tobytes() == two.image.tobytes()
    book = write_book(StoryFolder.open(tmp_path / "whole"), tmp_path / "book.html")
    assert "The fox takes a step." in book.read_text()


@pytest.mark.parametrize("language", SHORT_RUNS)
def test_the_other_families_are_trained_write_resume_and_make_a_book(parts, tmp_path, language):
    family, form = SHORT_RUNS[language]
    run_stages(parts, tmp_path, language, family, form, steps=1)
    pipe = StoryPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32, device="cpu")
    assert pipe.detokenizer.form == form and pipe.vision_tower.num_features == 4
    write_and_resume(pipe, tmp_path, pages=3)


def test_every_family_of_the_guide_is_in_a_run():
    runs = RUNS | SHORT_RUNS
    assert set(runs) == set(FAMILIES)
    towers = {family for family, _ in runs.values()}
    assert towers == {name for name in NETWORKS if "text model" not in name} | {"qwen"}
    assert {form for _, form in runs.values()} == {*FORMS, "sdxl"}


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
