"""The smallest things that the stages can be run on: real pages, a tiny base model, an untrained stage 1."""

from pathlib import Path

import torch
from PIL import Image

from seedstory.detokenizers.autoencoder import ImageAutoencoder
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.story_model import StoryModel
from seedstory.modeling.vision_tower import VisionTower
from seedstory.pipeline import StoryPipeline
from seedstory.storystream import StoryRecord, write_jsonl
from tests.data_tools.theatre import run_theatre
from tests.seedstory.tiny_language import tiny_lm, tiny_tokenizer

_TINY = {"width": 16, "depth": 1, "heads": 2}


def write_theatre(folder: Path, stories: int = 4, loose: int = 0, long: int = 0) -> Path:
    """A data set of the paper theatre: `train` and `heldout`, and loose pages and long stories if asked for."""
    for split, count, pages in (("train", stories, loose), ("heldout", 2, min(loose, 20))):
        loose_pages = ["--loose-pages", str(pages)] if pages else []
        run_theatre("generate", "--out", folder, "--split", split, "--stories", str(count), *loose_pages)
    if long:
        run_theatre("generate", "--out", folder, "--split", "train", "--stories", str(long), "--pages", "20")
    return folder


def write_base(folder: Path) -> Path:
    """A random language model with its tokenizer."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    tiny_lm(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_stage1(folder: Path) -> Path:
    """A vision tower and a de-tokenizer with random weights."""
    torch.manual_seed(0)
    autoencoder = ImageAutoencoder()
    autoencoder.save_pretrained(folder / "autoencoder")
    VisionTower().save_pretrained(folder / "vision_tower")
    Detokenizer.mini(autoencoder).save_pretrained(folder / "detokenizer")
    return folder


def write_parts(folder: Path, stories: int, loose: int, long: int = 0) -> Path:
    """A folder with `data/`, `base/` and `stage1/`: all that the first runs of a stage start from."""
    write_theatre(folder / "data", stories=stories, loose=loose, long=long)
    write_base(folder / "base")
    write_stage1(folder / "stage1")
    return folder


def write_model(folder: Path, feature_head: str = "regression") -> Path:
    """A model folder with random weights, whose pictures have the size of the mini's; its base model lies beside it."""
    base = write_base(folder.with_name(f"{folder.name}-base"))
    torch.manual_seed(0)
    sizes = {f"{side}_resampler_{what}": size for side in ("input", "output") for what, size in _TINY.items()}
    sizes |= {"num_visual_tokens": 4, "lora_rank": 2, "feature_head": feature_head}
    StoryModel.from_base(base, dtype=torch.float32, **sizes).save_pretrained(folder / "story_model")
    write_stage1(folder)
    StoryPipeline.write_index(folder)
    return folder


def write_book(folder: Path, pages: int = 4, size: tuple[int, int] = (96, 64)) -> Path:
    """A data set of one book: a box that walks over wide pages."""
    captions = [f"The fox takes step {number}." for number in range(pages)]
    images = [f"images/{number}.png" for number in range(pages)]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        page = Image.new("RGB", size, "skyblue")
        page.paste("orange", (10 + 12 * number, 20, 34 + 12 * number, 60))
        page.save(folder / image)
    record = StoryRecord(id=folder.name, images=images, captions=captions, orders=list(range(pages)))
    write_jsonl(folder / "train.jsonl", [record])
    return folder
