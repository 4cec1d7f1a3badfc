"""diffusers' tiny autoencoder as a part of a de-tokenizer."""

import pytest
import torch
from diffusers import AutoencoderTiny, EulerDiscreteScheduler

from seedstory.detokenizers.adapters import ResamplerAdapter
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.tiny_autoencoder import TinyAutoencoder
from tests.tiny_sdxl import tiny_unet


def tiny_autoencoder(latent_channels=4):
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=latent_channels,
    ).eval()


@torch.no_grad()
def test_it_reads_and_draws_what_diffusers_does():
    torch.manual_seed(0)
    vae = tiny_autoencoder()
    ours, pixels = TinyAutoencoder(vae), torch.rand(2, 3, 16, 16) * 2 - 1
    assert ours.upscale == ours.downscale == 2
    latents = ours.encode(pixels)
    assert latents.shape == (2, 4, 8, 8)
    torch.testing.assert_close(latents, torch.cat([vae.encode(one[None]).latents for one in pixels]))
    torch.testing.assert_close(ours.decode(latents), torch.cat([vae.decode(one[None]).sample for one in latents]))


def test_it_takes_the_place_of_a_large_one(tmp_path):
    torch.manual_seed(0)
    adapter = ResamplerAdapter(
        feature_dim=6,
        num_features=9,
        context_tokens=4,
        cross_attention_dim=64,
        pooled_dim=24,
        image_size=16,
        width=16,
        depth=1,
        heads=2,
    )
    parts = (tiny_unet().eval(), adapter.eval(), TinyAutoencoder(tiny_autoencoder()), EulerDiscreteScheduler())
    Detokenizer(*parts).save_pretrained(tmp_path)
    loaded = Detokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded.autoencoder, TinyAutoencoder) and loaded.image_size == 16
    features = torch.randn(1, 9, 6)
    images = [
        one(features, torch.Generator().manual_seed(1), num_inference_steps=1)[0]
        for one in (Detokenizer(*parts), loaded)
    ]
    assert images[0].size == (16, 16) and images[0].tobytes() == images[1].tobytes()
    assert not loaded.enable_tiling(), "it has no need of tiles"
    laid_out = Detokenizer.lay_out(tmp_path)
    assert all(weight.is_meta for weight in laid_out.autoencoder.parameters())
    with pytest.raises(ValueError, match="latent channels"):
        Detokenizer(*parts[:2], TinyAutoencoder(tiny_autoencoder(latent_channels=8)), parts[3])
