"""Stage 2a: teach the output resampler to draw from scene codes, before a language model has to speak them.

The output resampler learns the features of a picture from its scene codes alone (`scene_codes.py`), at a thirtieth of
the cost of a step through the language model. Stage 2 then shows the language model which code each query token should
carry (`recipe.py`).

    python -m training.theatre.scenes --config configs/mini/scenes.yaml
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.flow_head import FlowResampler, make_output_resampler
from seedstory.resampler import OutputResampler
from seedstory.storystream import read_jsonl
from training.backend import Backend
from training.command import run_stage
from training.config import RunConfig
from training.detokenizer import draw_images, require_files
from training.distances import feature_losses
from training.features import read_features
from training.loop import Stage
from training.pages import ShuffledSampler, noise_of
from training.recorder import Recorder
from training.splits import files_of
from training.theatre.output_resampler import WRITTEN, head_weights, load_head
from training.theatre.scene_codes import ROLES, SceneCodes, scene_vocabulary, scene_words


@dataclass(kw_only=True)
class ScenesConfig(RunConfig):
    """Stage 2a.

    Attributes:
        stage1: folder with `vision_tower/` and `detokenizer/`.
        split: JSONL files with ground truth, joined by "+".
        heldout: JSONL for the reported figures.
        output_resampler_width, output_resampler_depth, output_resampler_heads, feature_head, flow_depth: of the story
            model that stage 2 will train, as in `StoryConfig`.
        code_noise: codes get Gaussian noise of a level drawn from U(0, code_noise) times their RMS.
        balance: how much more often pages of a rare layout are shown, from 0 (as often as others) to 1 (every layout
            as often as the commonest): most scenes stand in the middle, but each layout has to be learned.
        init: folder of an earlier stage 2a to go on from.
    """

    stage1: str
    split: str = "loose-train+train"
    heldout: str = "loose-heldout"
    output_resampler_width: int = 256
    output_resampler_depth: int = 3
    output_resampler_heads: int = 4
    feature_head: str = "regression"
    flow_depth: int = 2
    code_noise: float = 0.4
    balance: float = 0.5
    init: str | None = None
    average: float = 0.998


def page_truths(data: str | Path, split: str) -> list[dict[str, Any]]:
    """Ground truth of all pages of the splits, in the order of `page_features`."""
    truths: list[dict[str, Any]] = []
    for name in split.split("+"):
        for record in read_jsonl(Path(data) / f"{name}.jsonl"):
            known = [page for page in record.pages or () if page is not None]
            if len(known) != len(record.images):
                raise ValueError(f"{name}.jsonl: story {record.id} has no ground truth (`pages`), scene codes need it")
            truths += known
    return truths


def balanced(truths: list[dict[str, Any]], power: float) -> list[int]:
    """Numbers of all pages, those of rare layouts (view and number of actors) several times.

    A layout that is `r` times as rare as the commonest is repeated `r ** power` times, rounded.
    """
    layouts = [(scene_words(truth)["page view"], len(truth["actors"])) for truth in truths]
    counts = Counter(layouts)
    repeats = {layout: round((max(counts.values()) / count) ** power) for layout, count in counts.items()}
    return [page for page, layout in enumerate(layouts) for _ in range(repeats[layout])]


class ScenesStage(Stage):
    """Scene codes to features of pictures."""

    name = "scenes"
    adam_names = ("tables", "queries")
    config: ScenesConfig

    def __init__(self, config: ScenesConfig, backend: Backend) -> None:
        super().__init__()
        require_files(config.stage1, ("vision_tower", "detokenizer"), "detokenizer", "stage1")
        self.config = config
        tower = Path(config.stage1) / "vision_tower"
        self.sources = [*files_of(config.data, config.split, config.heldout), tower]
        self.sources += [Path(config.init) / name for name in WRITTEN if config.init]
        self.features = read_features(config.data, config.split, tower, backend)
        self.heldout = read_features(config.data, config.heldout, tower, backend).float()
        truths, heldout = (page_truths(config.data, split) for split in (config.split, config.heldout))
        sizes = StoryConfig(
            num_visual_tokens=len(ROLES),
            feature_tokens=self.features.shape[1],
            feature_dim=self.features.shape[2],
            output_resampler_width=config.output_resampler_width,
            output_resampler_depth=config.output_resampler_depth,
            output_resampler_heads=config.output_resampler_heads,
            feature_head=config.feature_head,
            flow_depth=config.flow_depth,
        )
        width = sizes.output_resampler_width
        self.codes, self.code_shape = SceneCodes(scene_vocabulary(truths), width), (len(ROLES), width)
        resampler = make_output_resampler(sizes, width)
        assert isinstance(resampler, OutputResampler), "which is the default kind"
        self.resampler = resampler
        for part in (self.resampler.to_width, self.resampler.source_norm):  # they read a language model
            part.requires_grad_(False)
        self.indices, self.heldout_indices = (
            torch.tensor([self.codes.indices(truth) for truth in some]) for some in (truths, heldout)
        )
        if config.init:
            self._go_on(Path(config.init))
        self.order = torch.tensor(balanced(truths, config.balance))
        self.rows = ShuffledSampler(len(self.order), config.seed)

    def _go_on(self, folder: Path) -> None:
        codes = SceneCodes.load(folder / "scene_codes.safetensors")
        if codes.vocabulary != self.codes.vocabulary:
            raise ValueError(f"{folder} was trained on scenes of other words: leave init out")
        self.codes.load_state_dict(codes.state_dict())
        load_head(self.resampler, folder)

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        rows = self.order[[row for _, row in samples]]
        noise, starts, times = [], [], []
        for number, _ in samples:
            generator = noise_of(self.config.seed, number)
            level = self.config.code_noise * torch.rand((), generator=generator)
            noise.append(level * torch.randn(self.code_shape, generator=generator))
            if self.config.feature_head == "flow":
                starts.append(torch.randn(self.features.shape[1:], generator=generator))
                times.append(1 - torch.rand((), generator=generator))
        batch = {"indices": self.indices[rows], "features": self.features[rows].float(), "noise": torch.stack(noise)}
        if starts:
            batch |= {"feature_noise": torch.stack(starts), "feature_time": torch.stack(times)}
        return batch

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        names = ("flow", "cosine", "mse") if self.config.feature_head == "flow" else ("cosine", "mse")
        return dict.fromkeys(names, len(batch["indices"]))

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        gathered = self.resampler.gather(self.codes(batch["indices"]) + batch["noise"])
        features, start = batch["features"], batch.get("feature_noise")
        drawn = self.resampler.finish(gathered, start).float()
        losses = feature_losses(drawn, features)
        if isinstance(self.resampler, FlowResampler):
            assert start is not None
            losses["flow"] = self.resampler.flow_loss(gathered, features, start, batch["feature_time"])
        return {name: len(drawn) * loss for name, loss in losses.items()}

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        return {"flow": 1.0} if self.config.feature_head == "flow" else {"cosine": 1.0, "mse": 1.0}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        parts = []
        for indices in self.heldout_indices.split(256):
            with backend.autocast():
                parts.append(self.resampler.draw(self.codes(indices.to(backend.device))).float().cpu())
        drawn = torch.cat(parts)
        recorder.write(step, heldout_cosine=F.cosine_similarity(drawn, self.heldout, dim=-1).mean().item())
        detokenizer = Detokenizer.from_pretrained(Path(self.config.stage1) / "detokenizer").to(backend.device)
        with backend.autocast():
            rows = [draw_images(detokenizer, f[:8].to(backend.device)) for f in (self.heldout, drawn)]
        recorder.sheet(step, rows)

    def export(self, folder: Path) -> None:
        """Write `output_resampler.safetensors` and `scene_codes.safetensors`."""
        weights = {name: weight.detach().cpu() for name, weight in head_weights(self.resampler).items()}
        save_file(weights, folder / "output_resampler.safetensors")
        self.codes.save(folder / "scene_codes.safetensors")


def main() -> None:
    """Command line."""
    run_stage(ScenesConfig, ScenesStage, __doc__)


if __name__ == "__main__":
    main()
