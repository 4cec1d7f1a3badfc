"""Stage 3: adapt the de-tokenizer to the features that the story model regresses.

python -m training.adapt --config configs/mini/adapt.yaml
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.story_model import StoryModel
from training.detokenizer import encode_latents, flow_loss
from training.mllm import MllmConfig, StoryBatches, blur_context
from training.optimizers import AveragedWeights, MuonAdamW
from training.pages import PagePictures, shuffled_rows
from training.run import Run, parse_arguments


@dataclass(kw_only=True)
class AdaptConfig(MllmConfig):
    """Stage 3.

    Attributes:
        story_model: folder of the trained story model.
        regressed_share: share of pictures trained on regressed features; the rest keep the tower's, with noise.
        token_noise, condition_dropout: as in stage 1b.
        head_weight: weight of heads in the loss.
    """

    story_model: str
    regressed_share: float = 0.6
    token_noise: float = 0.4
    condition_dropout: float = 0.05
    head_weight: float = 3.0


@torch.no_grad()
def regress_features(model: StoryModel, stories: StoryBatches, run: Run) -> tuple[Tensor, Tensor]:
    """Features that the model regresses for the stories' pages when it sees its own earlier pages.

    Returns:
        Features of the vision tower and of the model, both [N, F, D] in the order of the pages, bf16.
    """
    model.eval()
    tower, own = [], []
    for row in range(len(stories.stories)):
        batch = stories.batch([row])
        blur_context(model, batch, level=0.0, own=True, run=run)
        with run.autocast():
            features = model(**{**batch, "labels": None}).features
        tower.append(batch["target_features"].to(torch.bfloat16).cpu())
        own.append(features.to(torch.bfloat16).cpu())
    return torch.cat(tower), torch.cat(own)


def train(config: AdaptConfig) -> None:
    """Run stage 3 and write `OUT/detokenizer`."""
    run = Run(config, "adapt")
    model = StoryModel.from_pretrained(config.story_model, dtype=torch.bfloat16).to(run.device)
    stories = StoryBatches(config, config.split, model, run, 1, config.stories)
    tower_features, own_features = regress_features(model, stories, run)
    del model
    detokenizer = Detokenizer.from_pretrained(Path(config.stage1) / "detokenizer").to(run.device)
    pictures = PagePictures(config.data, config.split, head_weight=config.head_weight, limit=len(own_features))
    latents = encode_latents(detokenizer.autoencoder, pictures, run)
    scale = detokenizer.autoencoder.config.scaling_factor
    networks = torch.nn.ModuleDict({"adapter": detokenizer.adapter, "unet": detokenizer.unet})
    networks.to(memory_format=torch.channels_last).train()
    optimizer = MuonAdamW(networks.named_parameters(), config.muon_lr, config.adam_lr, config.weight_decay)
    average = AveragedWeights(networks)
    rows = shuffled_rows(len(pictures), config.batch_size, config.seed)

    def save(step: int) -> None:
        average.swap()
        with torch.no_grad(), run.autocast():
            generator = torch.Generator(run.device).manual_seed(0)
            drawn = detokenizer(own_features[:8].float(), generator, output_type="pt")
        run.sheet(step, "adapt", [pictures.batch(torch.arange(8))[0] / 2 + 0.5, drawn])
        detokenizer.save_pretrained(run.folder / "detokenizer")
        average.swap()

    for step, progress in run.steps():
        chosen = next(rows)
        regressed = (torch.rand(len(chosen)) < config.regressed_share)[:, None, None]
        noisy = tower_features[chosen].float()
        noisy = noisy + config.token_noise * torch.rand(len(chosen), 1, 1) * torch.randn_like(noisy)
        features = torch.where(regressed, own_features[chosen].float(), noisy)
        features = (features * (torch.rand(len(chosen), 1, 1) >= config.condition_dropout)).to(run.device)
        batch = latents[chosen].to(run.device, torch.float32) * scale
        with run.autocast():
            loss = flow_loss(detokenizer, batch, features, pictures.weights[chosen].to(run.device))
        optimizer.set_progress(progress)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        average.update(step)
        run.log(step, loss=loss.item())
        if run.saves(step):
            save(step)


if __name__ == "__main__":
    train(parse_arguments(AdaptConfig, __doc__))
