"""Stage 3: adapt the de-tokenizer to the features that the story model regresses.

python -m training.adapt --config configs/mini/adapt.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.story_model import StoryModel
from training.autoencoder import psnr
from training.backend import Backend
from training.detokenizer import DrawingConfig, DrawingStage, draw_pictures, encode_latents
from training.loop import run_stage
from training.mllm import Drops, Stories, StoryConfigOfRun, show_own, story_batch
from training.pages import PagePictures, ShuffledRows
from training.recorder import Recorder


@dataclass(kw_only=True)
class AdaptConfig(DrawingConfig, StoryConfigOfRun):
    """Stage 3.

    Attributes:
        story_model: folder of the trained story model.
        regressed_share: share of pictures trained on regressed features; the rest keep the tower's, with noise.
    """

    story_model: str
    regressed_share: float = 0.6


@torch.no_grad()
def regress_features(model: StoryModel, stories: Stories, backend: Backend) -> tuple[Tensor, Tensor]:
    """Features that the model regresses for the stories' pages when it sees its own earlier pages.

    Returns:
        Features of the vision tower and of the model, both [N, F, D] in the order of the pages, bf16.
    """
    model.eval()
    tower, own = [], []
    for row in range(len(stories)):
        batch = story_batch(model.layout, stories, [row], [Drops(list(range(len(stories.records[row].captions))))])
        batch = {name: tensor.to(backend.device) for name, tensor in batch.items()}
        with backend.autocast():
            batch = show_own(model, batch)
            features = model(**{**batch, "labels": None}).features
        tower.append(batch["target_features"].to(torch.bfloat16).cpu())
        own.append(features.to(torch.bfloat16).cpu())
    return torch.cat(tower), torch.cat(own)


class AdaptStage(DrawingStage):
    """The de-tokenizer on features as the story model regresses them."""

    name = "adapt"

    def __init__(self, config: AdaptConfig, backend: Backend) -> None:
        model = StoryModel.from_pretrained(config.story_model, base_model=config.base_lm).to(backend.device)
        stories = Stories(config, config.split, backend, limit=config.stories)
        heldout = Stories(config, config.heldout, backend, limit=8)
        tower, own = regress_features(model, stories, backend)
        _, heldout_own = regress_features(model, heldout, backend)
        del model
        super().__init__(config, Detokenizer.from_pretrained(Path(config.stage1) / "detokenizer").to(backend.device))
        self.to(memory_format=torch.channels_last)
        self.tower_features, self.own_features, self.heldout_features = tower, own, heldout_own
        self.pictures = PagePictures(config.data, config.split, head_weight=config.head_weight, limit=len(own))
        self.heldout = PagePictures(config.data, config.heldout, limit=len(heldout_own))
        self.latents = encode_latents(self.detokenizer.autoencoder, self.pictures, backend)
        self.rows = ShuffledRows(len(self.pictures), config.seed)

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        rows = torch.tensor([row for _, row in samples])
        latents, shape = self.latents[rows], tuple(self.own_features.shape[1:])
        noise = [self.drawing_noise(number, latents[0], shape) for number, _ in samples]
        stacked = {name: torch.stack([one[name] for one in noise]) for name in noise[0]}
        coin = stacked["coin"][:, None, None]
        noisy = self.tower_features[rows].float() + stacked.pop("token_noise")
        features = torch.where(coin < self.config.regressed_share, self.own_features[rows].float(), noisy)
        return {"latents": latents, "weights": self.pictures.weights[rows], "features": features, **stacked}

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        return {"loss": self.flow_loss(batch, batch["features"])}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        pixels, _ = self.heldout.batch(torch.arange(len(self.heldout)))
        with backend.autocast():
            drawn = draw_pictures(self.detokenizer, self.heldout_features.float().to(backend.device))
        recorder.write(step, heldout_psnr=psnr(2 * drawn - 1, pixels).mean().item())
        recorder.sheet(step, [pixels[:8] / 2 + 0.5, drawn[:8]])

    def export(self, folder: Path) -> None:
        """Write `detokenizer/`."""
        self.export_detokenizer(folder)


if __name__ == "__main__":
    run_stage(AdaptConfig, AdaptStage, __doc__)
