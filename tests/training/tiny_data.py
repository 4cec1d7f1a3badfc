"""The smallest things that the stages can be run on: real pages, a tiny base model, an untrained stage 1."""

from pathlib import Path

import torch

from data_tools.paper_theatre.__main__ import main as make_theatre
from seedstory.detokenizers.autoencoder import PictureAutoencoder
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.vision_tower import VisionTower
from tests.seedstory.tiny_language import tiny_lm, tiny_tokenizer


def write_theatre(folder: Path, stories: int = 4, loose: int = 0) -> Path:
    """A data set of the paper theatre: `train` and `heldout`, and loose pages if asked for."""
    for split, count, pages in (("train", stories, loose), ("heldout", 2, min(loose, 20))):
        loose_pages = ["--loose-pages", str(pages)] if pages else []
        make_theatre(["--out", str(folder), "--split", split, "--stories", str(count), *loose_pages])
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
    autoencoder = PictureAutoencoder()
    autoencoder.save_pretrained(folder / "autoencoder")
    VisionTower().save_pretrained(folder / "vision_tower")
    Detokenizer.mini(autoencoder).save_pretrained(folder / "detokenizer")
    return folder
