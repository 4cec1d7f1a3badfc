"""The ablation of the number of visual tokens: real features through N tokens and back."""

import json

import pytest
from safetensors.torch import load_file

from tests.training.tiny_data import write_stage1, write_theatre
from training.loop import train
from training.visual_tokens import VisualTokensConfig, VisualTokensStage


@pytest.mark.parametrize("count", [1, 8])
def test_features_come_back_through_a_few_tokens(tmp_path, count):
    write_theatre(tmp_path / "data", stories=1, loose=24)
    config = VisualTokensConfig(
        data=str(tmp_path / "data"),
        stage1=str(write_stage1(tmp_path / "stage1")),
        out=str(tmp_path / "out"),
        visual_tokens=count,
        embedding_dim=48,
        batch_size=8,
        steps=12,
        log_every=1,
        eval_every=6,
        device="cpu",
    )
    train(config, VisualTokensStage)
    lines = [json.loads(line) for line in (tmp_path / "out/visual_tokens.jsonl").read_text().splitlines()]
    losses = [line["cosine"] for line in lines if "cosine" in line]
    assert len(losses) == 12 and losses[-1] < 0.8 * losses[0]
    heldout = [line["heldout_cosine"] for line in lines if "heldout_cosine" in line]
    assert len(heldout) == 2 and heldout[1] > heldout[0]
    assert all("heldout_psnr" in line for line in lines if "heldout_cosine" in line)
    weights = load_file(tmp_path / "out/visual_tokens.safetensors")
    assert weights["input_resampler.queries"].shape[0] == count
    assert weights["output_resampler.to_width.weight"].shape[1] == 48


def test_no_tokens_are_refused(tmp_path):
    with pytest.raises(ValueError, match="visual_tokens must be at least 1, not 0"):
        VisualTokensConfig(data="none", stage1="none", out=str(tmp_path), steps=1, visual_tokens=0)
