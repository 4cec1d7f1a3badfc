"""Wide pictures become squares as the vision tower's own: cut, or squashed where the tower was trained so."""

import numpy as np
import pytest
import torch
from PIL import Image

from inference.judge import Judge
from inference.reconstruction import reconstruct
from inference.samples import sample_from_folder, sample_from_record
from inference.truth_images import TruthImages
from seedstory.detokenizers.from_base import detokenizer_from_base
from seedstory.image import image_to_tensor, to_square
from seedstory.modeling.qwen_vision_tower import QwenVisionTower
from seedstory.page import Page
from seedstory.settings import StorySettings
from seedstory.story_folder import StoryFolder
from seedstory.storystream import read_jsonl
from tests.tiny_backbones import write_backbone
from tests.training.tiny_data import write_book

FITS = ("crop", "stretch")


@pytest.mark.parametrize("fit", FITS)
def test_pages_of_a_data_set_and_of_a_story_are_fitted_alike(tmp_path, fit):
    data = write_book(tmp_path / "book", pages=2)
    (record,) = read_jsonl(data / "train.jsonl")
    pictures = [Image.open(data / path) for path in record.images]
    expected = image_to_tensor([to_square(picture, 24, fit) for picture in pictures])
    assert torch.equal(sample_from_record(data, record, 2, 24, fit).pixels, expected)
    folder = StoryFolder.create(tmp_path / "story", title="t", settings=StorySettings(text="A fox.", pages=2))
    for index, (picture, caption) in enumerate(zip(pictures, record.captions, strict=True)):
        folder.add_page(Page(index=index, caption=caption, image=picture.convert("RGB"), state="illustrated"))
    assert torch.equal(sample_from_folder(tmp_path / "story", None, 24, fit=fit).pixels, expected)


def test_the_tower_and_the_autoencoder_each_read_their_own_size(tmp_path):
    torch.manual_seed(0)
    sizes = {"width": 16, "depth": 1, "heads": 2, "patch_size": 8, "position_side": 4, "image_size": 32}
    tower = QwenVisionTower(**sizes, feature_side=3, feature_dim=8, pool_heads=2).eval()
    base = write_backbone("sd15", tmp_path / "sd15")
    detokenizer = detokenizer_from_base("sd15", base, 9, 8, context_tokens=5, width=32, depth=1, image_size=16)
    wide = Image.open(write_book(tmp_path / "book", pages=1) / "images" / "0.png")
    images = TruthImages.__new__(TruthImages)  # without ground truth, so that nothing is judged
    images.paths, images.truths, images.images = [tmp_path], [], torch.from_numpy(np.array(wide))[None]
    columns = reconstruct(tower, detokenizer, images, Judge.load(), 2)
    with torch.inference_mode():
        features = tower(image_to_tensor([to_square(wide, 32, "stretch")]))
        render = image_to_tensor([to_square(wide, 16, "stretch")])
        drawn = detokenizer(features, torch.Generator().manual_seed(0), num_inference_steps=2, output_type="pt")
        coded = detokenizer.autoencoder(render).clamp(-1, 1)
    for name, output in (("visual tokens", 2 * drawn - 1), ("autoencoder", coded)):
        error = ((output - render) / 2).square().mean()
        assert columns[name]["PSNR (dB)"] == pytest.approx(-10 * torch.log10(error).item(), abs=1e-4), name
