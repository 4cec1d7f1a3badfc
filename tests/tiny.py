"""A tiny random `StoryPipeline`: real classes, made in a moment, nothing read from the network."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from seedstory.detokenizers.adapters import FeatureAdapter
from seedstory.detokenizers.autoencoder import ImageAutoencoder
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.story_model import StoryModel
from seedstory.modeling.vision_tower import VisionTower
from seedstory.pipeline import StoryPipeline
from tests.seedstory.tiny_language import tiny_lm, tiny_tokenizer

SIDE = 48  # px; 9 features of width 6 on a 3 x 3 grid


def tiny_vision_tower(feature_dim: int = 6) -> VisionTower:
    return VisionTower(
        latent_channels=4,
        widths=(8, 8),
        encoder_depths=(1, 1),
        width=16,
        depth=1,
        heads=2,
        feature_dim=feature_dim,
        image_size=SIDE,
    ).eval()


def tiny_detokenizer(feature_dim: int = 6) -> Detokenizer:
    adapter = FeatureAdapter(feature_dim, num_features=9, map_channels=4, cross_attention_dim=16, latent_size=6)
    unet = UNet2DConditionModel(
        sample_size=6,
        in_channels=8,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    autoencoder = ImageAutoencoder(latent_channels=4, widths=(8, 8), encoder_depths=(1, 1), decoder_depths=(1, 1))
    return Detokenizer(unet.eval(), adapter.eval(), autoencoder.eval())


def tiny_model_folder(folder: Path) -> Path:
    """Writes a tiny model as the folder `folder / "model"`, its base language model beside it."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    base = folder / "base"
    tiny_lm(len(tokenizer)).save_pretrained(base)
    tokenizer.save_pretrained(base)
    sizes = {"num_visual_tokens": 4, "feature_tokens": 9, "feature_dim": 6, "lora_rank": 2}
    for side in ("input", "output"):
        sizes |= {f"{side}_resampler_width": 16, f"{side}_resampler_depth": 1, f"{side}_resampler_heads": 2}
    model = StoryModel.from_base(base, dtype=torch.float32, **sizes)
    StoryPipeline(model, tiny_vision_tower(), tiny_detokenizer()).save_pretrained(folder / "model")
    return folder / "model"


def tiny_pipeline(folder: Path) -> StoryPipeline:
    """Writes a tiny model into a folder and loads it in float32."""
    return StoryPipeline.from_pretrained(tiny_model_folder(folder), dtype=torch.float32, device="cpu")
