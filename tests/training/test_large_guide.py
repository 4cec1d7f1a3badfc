"""The guide "Train a large model": its commands as they stand, with tiny networks of the same classes and data."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModel, Qwen3Config, SiglipConfig, SiglipImageProcessorPil

from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.story_model import StoryModel
from seedstory.story_folder import StoryFolder
from tests.seedstory.families import family_lm
from tests.seedstory.tiny_language import tiny_tokenizer
from tests.tiny_sdxl import SIDE, write_sdxl
from training.config import load_config
from training.mllm import SIZES as SIZES_OF_A_RUN
from training.mllm import MllmConfig

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/train_large.md"
STEPS = "steps=2 save_every=2 log_every=1 batch_size=2 device=cpu heldout_steps=1"
DRAWING = f"{STEPS} precision=fp32 micro_batch_size=1 heldout_limit=1"
SIZES = " ".join(
    f"{side}_resampler_{size}" for side in ("input", "output") for size in ("width=16", "depth=1", "heads=2")
)
# What makes a command small: it goes to the end of the command line, where it wins.
SMALLER = {
    "training.detokenizer": f"{DRAWING} context_tokens=3 adapter_width=16 adapter_depth=1",
    "training.mllm": f"{STEPS} workers=0 {SIZES}",
    "training.adapt": DRAWING,
    "training.features": "--engine local --device cpu",
    "inference.evaluate": "--stories 2 --pages 3 --steps 1",
    "seedstory.cli": "--pages 3 --max-caption-tokens 4 --num-inference-steps 1 --device cpu",
}
INSTALLS = ("make", "pip")


def guide_commands() -> list[list[str]]:
    """The words of every command of the guide."""
    blocks = re.findall(r"^```bash\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def python_command(words: list[str]) -> dict | None:
    """A module with its arguments, if a command runs one of ours."""
    if words[0] == "seedstory":
        module, arguments, processes = "seedstory.cli", words[1:], 1
    elif "-m" in words and words[0] in ("python", "torchrun"):
        place = words.index("-m") + 1
        module, arguments, processes = words[place], words[place + 1 :], 2 if words[0] == "torchrun" else 1
    else:
        return None
    return {"module": module, "arguments": arguments + SMALLER.get(module, "").split(), "processes": processes}


def cached(cache: Path, repo: str) -> Path:
    """The folder of a model in the Hub's cache."""
    home = cache / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text("0" * 40)
    (home / "snapshots" / ("0" * 40)).mkdir(parents=True)
    return home / "snapshots" / ("0" * 40)


def write_models(cache: Path) -> None:
    """Tiny models under the names that the guide has, as if they had been fetched."""
    tokenizer = tiny_tokenizer(bos=None)
    base = cached(cache, "Qwen/Qwen3-8B")
    family_lm("qwen3", len(tokenizer) + 24, tie_word_embeddings=False).save_pretrained(base)
    tokenizer.save_pretrained(base)
    write_sdxl(cached(cache, "stabilityai/stable-diffusion-xl-base-1.0"))
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = sizes | {"vocab_size": 40, "max_position_embeddings": 8}
    tower = cached(cache, "google/siglip2-so400m-patch16-512")
    config = SiglipConfig(text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 1})
    AutoModel.from_config(config).save_pretrained(tower)
    SiglipImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(tower)


def write_download(folder: Path) -> None:
    """What the guide downloads: stories of the published layout, their frames apart from them."""
    (folder / "images").mkdir(parents=True)
    stories: dict[str, list[str]] = {"train": [], "val": []}
    for number in range(5):
        episode, split = f"{number:06d}", "train" if number < 3 else "val"
        images = [f"{episode}/{episode}_keyframe_0-19-{page}-688.jpg" for page in range(4)]
        (folder / "images" / episode).mkdir()
        for page, image in enumerate(images):
            frame = Image.new("RGB", (85, 48), "skyblue")
            frame.paste("brown", (10 + 15 * page, 10, 30 + 15 * page, 10 + 8 * number))
            frame.save(folder / "images" / image)
        captions = [f"George found lantern {page} of {number}." for page in range(4)]
        story = {"id": number, "images": images, "captions": captions, "orders": list(range(4))}
        stories[split].append(json.dumps(story) + "\n")
    with tarfile.open(folder / "george.tar.gz", "w:gz") as archive:
        archive.add(folder / "images", "images")
    with zipfile.ZipFile(folder / "george_story.zip", "w") as archive:
        for split, lines in stories.items():
            archive.writestr(f"{split}.jsonl", "".join(lines))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder in which all commands of the guide have run, and what they said."""
    desk = tmp_path_factory.mktemp("desk")
    torch.manual_seed(0)
    write_models(desk / "hub")
    (desk / "configs").symlink_to(ROOT / "configs")
    modules = []
    for words in guide_commands():
        if "--nnodes" in words:
            continue  # a command that ran, but for the launcher
        if command := python_command(words):
            if importlib.util.find_spec("deepspeed") is None:
                command["arguments"] = [one for one in command["arguments"] if not one.startswith("zero_stage")]
            modules.append(command)
        elif words[0] == "hf":
            write_download(desk / words[words.index("--local-dir") + 1] / "George")
        elif words[0] not in INSTALLS:
            subprocess.run(words, cwd=desk, check=True)
    (desk / "commands.json").write_text(json.dumps(modules))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_CACHE": str(desk / "hub"), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}  # DeepSpeed loads torch's compiler for nothing
    said = desk / "said.txt"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.training.forked_commands", "commands.json"],
        cwd=desk,
        env=environment,
        stdout=said.open("w"),
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    assert ran.returncode == 0, said.read_text()[-6000:]
    return desk, said.read_text()


def test_the_last_command_writes_a_whole_story(done):
    desk, _ = done
    story = StoryFolder.open(desk / "stories/george")
    assert [page.image.size for page in story.pages] == [(SIDE, SIDE)] * 3


def test_every_stage_takes_its_steps(done):
    desk, _ = done
    for stage, name in (("stage1", "detokenizer"), ("stage2", "mllm"), ("stage3", "adapt")):
        lines = [json.loads(line) for line in (desk / "runs/large" / stage / f"{name}.jsonl").read_text().splitlines()]
        assert {line["step"] for line in lines} == {0, 1}, stage


def test_several_machines_run_what_one_runs():
    commands = [python_command(words) for words in guide_commands()]
    several = [command for command, words in zip(commands, guide_commands(), strict=True) if "--nnodes" in words]
    assert several and all(commands.count(command) == 2 for command in several)


def test_what_is_large_lies_on_disk_and_is_computed_once(done):
    desk, _ = done
    stored = [path for name in ("latents", "features") for path in (desk / "data/storystream" / name).iterdir()]
    stored += (desk / "runs/large/stage3/regressed").iterdir()
    assert len(stored) == 4  # latents of a split, features of two, regressed features of one
    assert all(list(folder.glob("*.safetensors")) for folder in stored)


def test_the_model_is_of_the_networks_that_were_named(done):
    desk, _ = done
    story_model = json.loads((desk / "runs/large/model/story_model/config.json").read_text())
    assert story_model["base_lm"] == "Qwen/Qwen3-8B" and story_model["feature_tokens"] == 256
    tower = json.loads((desk / "runs/large/model/vision_tower/config.json").read_text())
    assert tower["network_config"]["model_type"] == "siglip_vision_model"
    scores = json.loads((desk / "runs/large/scores.json").read_text())
    assert scores["stories"] == 2 and scores["perplexity"] > 1 and scores["feature_cosine"] is not None


def test_the_guide_counts_the_weights_of_stage_2():
    config = load_config(ROOT / "configs/large/mllm.yaml", MllmConfig)
    lm = Qwen3Config(
        vocab_size=151_936,
        hidden_size=4096,
        intermediate_size=12_288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=False,
    )
    sizes = {name: getattr(config, name) for name in SIZES_OF_A_RUN} | {"feature_tokens": 256, "feature_dim": 1152}
    settings = StoryConfig(base_lm=config.base_lm, base_lm_config=lm.to_dict(), image_start_id=151_936, **sizes)
    with torch.device("meta"):
        model = StoryModel(settings)
    counts = {True: 0, False: 0}
    for weight in model.parameters():
        counts[weight.requires_grad] += weight.numel()
    assert f"{counts[True] / 1e6:.1f} million trained" in GUIDE.read_text()
    assert f"{counts[False] / 1e9:.2f} billion frozen" in GUIDE.read_text()
