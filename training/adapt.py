"""Stage 3: adapt the de-tokenizer to the features that the story model regresses.

python -m training.adapt --config configs/mini/adapt.yaml
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.identity import ModelIdentity
from seedstory.modeling.base_lm import base_lm_folder
from seedstory.modeling.story_model import StoryModel
from seedstory.modeling.vision_tower import load_vision_tower
from seedstory.precision import fast_dtype
from training.backend import Backend, in_memory_format
from training.command import run_stage
from training.detokenizer import PRETRAINED_HELDOUT, DetokenizerTrainingConfig, FeaturesStage, require_files
from training.mllm import StoryConfigOfRun, use_own_features
from training.pages import PageImages, compute_on_all, noise_of
from training.recipes import make_recipe
from training.row_shards import MappedRows, store_rows
from training.samples import SampleDropout, StoryDataset, collate_stories
from training.splits import files_of

STORIES_OF_A_FILE = 16  # of regressed features


@dataclass(kw_only=True)
class AdaptConfig(DetokenizerTrainingConfig, StoryConfigOfRun):
    """Stage 3.

    Attributes:
        story_model: folder of the trained story model.
        regressed_share: share of pictures trained on regressed features; the rest keep the tower's, with noise.
    """

    story_model: str
    regressed_share: float = 0.6


def regress_features(model: StoryModel, stories: StoryDataset, backend: Backend, seed: int) -> Tensor:
    """Features that the model regresses for the stories' pages when it sees its own earlier pages.

    Returns:
        [N, F, D] in the order of the pages, bf16. A flow draws each page from noise of its own, as in generation.
    """

    def regress(row: int) -> Tensor:
        return regress_story(model, stories, row, backend, seed)

    return torch.cat(compute_on_all(regress, range(len(stories)), backend))


def store_regressed(
    model: StoryModel, stories: StoryDataset, backend: Backend, config: AdaptConfig, seed: int
) -> MappedRows:
    """As `regress_features`, in files in the run's folder: 256 features of width 1,152 take 590 kB a page."""
    made_from = [
        ModelIdentity.of_folders(Path(config.story_model), base_lm_folder(config.base_lm)).fingerprint,
        stories.features.folder.name,
        [seed, backend.config.precision],
    ]
    folder = Path(config.out) / "regressed" / hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
    parts = torch.arange(len(stories)).split(STORIES_OF_A_FILE)
    counts = [sum(len(stories.records[row].images) for row in part.tolist()) for part in parts]

    def regress(number: int) -> dict[str, Tensor]:
        rows = parts[number].tolist()
        return {"features": torch.cat([regress_story(model, stories, row, backend, seed) for row in rows])}

    files = store_rows(folder, counts, regress, backend)
    return MappedRows(files, "features", (sum(counts), *stories.features.shape[1:]), what="pages")


@torch.no_grad()
def regress_story(model: StoryModel, stories: StoryDataset, row: int, backend: Backend, seed: int) -> Tensor:
    """Features [P, F, D] of one story, as `regress_features` gives them."""
    assert model.layout is not None
    model.eval()
    drops = SampleDropout(list(range(len(stories.records[row].captions))))
    batch = collate_stories(model.layout, stories, [row], [drops])
    if model.config.feature_head == "flow":
        shape, pages = stories.features.shape[1:], range(*stories.starts[row : row + 2])
        batch["feature_noise"] = torch.stack([torch.randn(shape, generator=noise_of(seed, page)) for page in pages])
    batch = {name: tensor.to(backend.device) for name, tensor in batch.items()}
    with backend.autocast():
        shown = use_own_features(model, batch)
        return model(**{**shown, "labels": None, "target_features": None}).features.to(torch.bfloat16).cpu()


class AdaptStage(FeaturesStage):
    """The de-tokenizer on features as the story model regresses them."""

    name = "adapt"
    config: AdaptConfig

    def __init__(self, config: AdaptConfig, backend: Backend) -> None:
        require_files(config.stage1, ("vision_tower", "detokenizer"), "detokenizer", "stage1")
        detokenizer = Detokenizer.from_pretrained(Path(config.stage1) / "detokenizer")
        model = StoryModel.from_pretrained(
            config.story_model, base_model=config.base_lm, dtype=fast_dtype(backend.device)
        ).to(backend.device)
        stories = StoryDataset(config, config.split, backend, limit=config.stories)
        heldout = StoryDataset(config, config.heldout, backend, limit=8)
        # Another seed than that of the samples, whose noise would be like that of the page of the same number.
        seed = config.seed + 1
        own: Tensor | MappedRows
        if detokenizer.form == "mini":
            own = regress_features(model, stories, backend, seed)
        else:
            own = store_regressed(model, stories, backend, config, seed)
        heldout_own = regress_features(model, heldout, backend, seed)
        del model
        super().__init__(config, detokenizer.to(backend.device))
        in_memory_format(self, torch.channels_last)
        self.tower_features, self.own_features = stories.features, own
        parts = [Path(config.stage1) / "vision_tower", Path(config.stage1) / "detokenizer", Path(config.story_model)]
        self.sources = [*files_of(config.data, config.split, config.heldout), *parts]
        size = detokenizer.encoder_image_size
        recipe = make_recipe(config.recipe, config.recipe_settings)
        fit = load_vision_tower(Path(config.stage1) / "vision_tower").image_fit
        images = PageImages(config.data, config.split, size, recipe, limit=len(own), keep=False, fit=fit)
        self.read(images, backend)
        most = config.heldout_limit or (len(heldout_own) if detokenizer.form == "mini" else PRETRAINED_HELDOUT)
        self.heldout_features = heldout_own[:most]
        self.heldout_pages, _ = PageImages(
            config.data, config.heldout, size, limit=len(self.heldout_features), keep=False, fit=fit
        ).batch(torch.arange(len(self.heldout_features)))

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        batch = self.noisy_batch(samples, self.own_features.shape[1:])
        rows, coin = batch.pop("rows"), batch["coin"][:, None, None]
        noisy = self.tower_features[rows].float() + batch.pop("token_noise")
        own = self.own_features[rows].float()
        return batch | {"features": torch.where(coin < self.config.regressed_share, own, noisy)}


def main() -> None:
    """Command line."""
    run_stage(AdaptConfig, AdaptStage, __doc__)


if __name__ == "__main__":
    main()
