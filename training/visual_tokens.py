"""How many visual tokens a picture needs: its features through N of them and back, with no language model between.

The story model's two resamplers are trained end to end on features of pages. The tokens between them get noise, as no
language model says them exactly. What comes back bounds what N visual tokens can do for a story, whatever N costs in
its context (`num_visual_tokens` of `StoryConfig`). An ablation: no other stage reads what it writes.

    python -m training.visual_tokens --config configs/mini/visual_tokens.yaml visual_tokens=8 out=runs/mini/tokens-8
"""

from __future__ import annotations

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
from seedstory.modeling.flow_head import make_output_resampler
from seedstory.modeling.story_model import make_input_resampler
from training.backend import Backend
from training.command import run_stage
from training.config import RunConfig
from training.detokenizer import draw_images, require_files
from training.distances import feature_losses, psnr
from training.features import read_features
from training.loop import Stage
from training.pages import ShuffledSampler, noise_of
from training.recorder import Recorder
from training.splits import files_of


@dataclass(kw_only=True)
class VisualTokensConfig(RunConfig):
    """The ablation.

    Attributes:
        stage1: folder with `vision_tower/` and `detokenizer/`.
        split: JSONL of pages; several are joined by "+".
        heldout: JSONL for the reported figures.
        visual_tokens: N, tokens of a picture.
        embedding_dim: width of a token, as in the language model.
        token_noise: tokens get Gaussian noise of a level drawn from U(0, token_noise) times their RMS.
    """

    stage1: str
    split: str = "loose-train"
    heldout: str = "loose-heldout"
    visual_tokens: int = 16
    embedding_dim: int = 576
    token_noise: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.visual_tokens < 1:
            raise ValueError(f"visual_tokens must be at least 1, not {self.visual_tokens}")


class VisualTokensStage(Stage):
    """Features of pictures to visual tokens and back."""

    name = "visual_tokens"
    adam_names = ("queries", "to_width")
    config: VisualTokensConfig

    def __init__(self, config: VisualTokensConfig, backend: Backend) -> None:
        super().__init__()
        require_files(config.stage1, ("vision_tower", "detokenizer"), "detokenizer", "stage1")
        self.config = config
        tower = Path(config.stage1) / "vision_tower"
        self.sources = [*files_of(config.data, config.split, config.heldout), tower]
        self.features = read_features(config.data, config.split, tower, backend)
        self.heldout = read_features(config.data, config.heldout, tower, backend).float()
        shape = {"feature_tokens": self.features.shape[1], "feature_dim": self.features.shape[2]}
        sizes = StoryConfig(num_visual_tokens=config.visual_tokens, **shape)
        self.input_resampler = make_input_resampler(sizes, config.embedding_dim)
        self.output_resampler = make_output_resampler(sizes, config.embedding_dim)
        self.rows = ShuffledSampler(len(self.features), config.seed)

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        config, noise = self.config, []
        for number, _ in samples:
            generator = noise_of(config.seed, number)
            level = config.token_noise * torch.rand((), generator=generator)
            noise.append(level * torch.randn(config.visual_tokens, config.embedding_dim, generator=generator))
        return {"features": self.features[[row for _, row in samples]].float(), "noise": torch.stack(noise)}

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(("cosine", "mse"), len(batch["features"]))

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        features = batch["features"]
        tokens = self.input_resampler(features)
        size = tokens.detach().float().square().mean().sqrt()
        rebuilt = self.output_resampler(tokens + size * batch["noise"])
        return {name: len(features) * loss for name, loss in feature_losses(rebuilt, features).items()}

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        return {"cosine": 1.0, "mse": 1.0}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        """Log the cosine of rebuilt and true features, and the PSNR of what is drawn from the two."""
        detokenizer = Detokenizer.from_pretrained(Path(self.config.stage1) / "detokenizer").to(backend.device)
        cosines: list[Tensor] = []
        noises: list[Tensor] = []
        shown: list[Tensor] = []
        for features in self.heldout.split(64):
            features = features.to(backend.device)
            with backend.autocast():
                rebuilt = self.output_resampler(self.input_resampler(features)).float()
                drawn = [draw_images(detokenizer, rows) for rows in (features, rebuilt)]
            cosines.append(F.cosine_similarity(rebuilt, features, dim=-1).mean(1))
            noises.append(psnr(2 * drawn[1] - 1, 2 * drawn[0] - 1))
            shown = shown or [rows[:8] for rows in drawn]
        recorder.write(
            step, heldout_cosine=torch.cat(cosines).mean().item(), heldout_psnr=torch.cat(noises).mean().item()
        )
        recorder.sheet(step, shown)

    def export(self, folder: Path) -> None:
        """Write both resamplers to `visual_tokens.safetensors`."""
        save_file(
            {name: weight.detach().cpu() for name, weight in self.state_dict().items()},
            folder / f"{self.name}.safetensors",
        )


def main() -> None:
    """Command line."""
    run_stage(VisualTokensConfig, VisualTokensStage, __doc__)


if __name__ == "__main__":
    main()
