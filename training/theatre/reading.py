"""The stage "reading": teach the input resampler to say what a picture shows, in words of the language model.

It mirrors stage 2a. There the output resampler learns to draw from what its query tokens say (`scenes.py`); here the
input resampler learns, for each of the N context embeddings, the words of the same tables (`scene_codes.TABLES`), by
cross-entropy against the language model's own embeddings (`context_words.py`). The language model never runs, so a step
costs as little as the resampler. Stage 2 starts from what this stage writes (`recipe_settings.reading`).

    python -m training.theatre.reading --config configs/mini/reading.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedstory.modeling.base_lm import base_lm_folder, embedding_scale, load_base_lm, load_tokenizer
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.story_model import make_input_resampler
from seedstory.resampler import InputResampler
from training.backend import Backend
from training.command import run_stage
from training.config import RunConfig
from training.detokenizer import require_files
from training.features import read_features
from training.loop import Stage
from training.pages import ShuffledSampler, noise_of
from training.recorder import Recorder
from training.splits import files_of
from training.theatre.context_words import ContextWords
from training.theatre.input_resampler import init_file, load_input_resampler, save_input_resampler
from training.theatre.scene_codes import NOTHING, ROLES, TABLES, scene_vocabulary, word_indices
from training.theatre.scenes import balanced, page_truths


@dataclass(kw_only=True)
class ReadingConfig(RunConfig):
    """The stage "reading".

    Attributes:
        stage1: folder with `vision_tower/`.
        base_lm: whose embeddings are the words; as for `StoryModel.from_base`.
        split: JSONL files with ground truth, joined by "+".
        heldout: JSONL for the reported figures.
        input_resampler_width, input_resampler_depth, input_resampler_heads: of the story model that stage 2 will
            train, as in `StoryConfig`.
        context_noise: features get Gaussian noise of a level drawn from U(0, context_noise), as in stage 2.
        balance: how much more often pages of a rare layout are shown, as in stage 2a.
        init: folder of an earlier run of this stage, or of a story model, whose input resampler is trained on.
    """

    stage1: str
    base_lm: str = "smollm2-135m-instruct"
    split: str = "loose-train+train"
    heldout: str = "loose-heldout"
    input_resampler_width: int = 192
    input_resampler_depth: int = 2
    input_resampler_heads: int = 4
    context_noise: float = 0.5
    balance: float = 0.5
    init: str | None = None
    average: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("context_noise", "balance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")


class ReadingStage(Stage):
    """Features of pictures to the words of their scenes."""

    name = "reading"
    adam_names = ("queries",)
    config: ReadingConfig

    def __init__(self, config: ReadingConfig, backend: Backend) -> None:
        super().__init__()
        require_files(config.stage1, ("vision_tower",), "detokenizer", "stage1")
        self.config = config
        tower, base = Path(config.stage1) / "vision_tower", base_lm_folder(config.base_lm)
        self.sources = [*files_of(config.data, config.split, config.heldout), tower, base]
        llm = load_base_lm(base, torch.bfloat16)
        embedding = llm.get_input_embeddings().weight.detach().float() * embedding_scale(llm)
        self.features = read_features(config.data, config.split, tower, backend)
        self.heldout = read_features(config.data, config.heldout, tower, backend).float()
        sizes = StoryConfig(
            num_visual_tokens=len(ROLES),
            feature_tokens=self.features.shape[1],
            feature_dim=self.features.shape[2],
            input_resampler_width=config.input_resampler_width,
            input_resampler_depth=config.input_resampler_depth,
            input_resampler_heads=config.input_resampler_heads,
        )
        resampler = make_input_resampler(sizes, embedding.shape[1])
        assert isinstance(resampler, InputResampler), "which is the default kind"
        self.resampler = resampler
        if config.init:
            load_input_resampler(self.resampler, Path(config.init))
            self.sources.append(init_file(Path(config.init)))
        truths, heldout = (page_truths(config.data, split) for split in (config.split, config.heldout))
        self.vocabulary = scene_vocabulary(truths)
        self.indices, self.heldout_indices = (
            torch.tensor([word_indices(self.vocabulary, truth) for truth in some]) for some in (truths, heldout)
        )
        self.words = ContextWords(self.vocabulary, embedding, load_tokenizer(base))
        self.words.fit_scale(self.resampler)
        self.resampler.out_norm.requires_grad_(False)  # the scale is that of words, and stays so
        self.order = torch.tensor(balanced(truths, config.balance))
        self.rows = ShuffledSampler(len(self.order), config.seed)

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        rows = self.order[[row for _, row in samples]]
        noise = []
        for number, _ in samples:
            generator = noise_of(self.config.seed, number)
            level = self.config.context_noise * torch.rand((), generator=generator)
            noise.append(level * torch.randn(self.features.shape[1:], generator=generator))
        return {"indices": self.indices[rows], "features": self.shown(rows) + torch.stack(noise)}

    def shown(self, rows: Tensor) -> Tensor:
        """Features [B, F, Df] by which the resampler sees pages: the vision tower's.

        Those that a story model predicted for the same pages would be mixed in here.
        """
        return self.features[rows].float()

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        return dict.fromkeys(("read", "right"), len(batch["indices"]))

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        said, indices = self.resampler(batch["features"]), batch["indices"]
        return {
            "read": len(indices) * self.words.loss(said, indices),
            "right": self.words.right(said.detach(), indices).float().mean(1).sum(),
        }

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        return {"read": 1.0}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        """Log how many words are right, by table where it says something, and how like words the embeddings are."""
        parts = []
        for features in self.heldout.split(256):
            with backend.autocast():
                parts.append(self.resampler(features.to(backend.device)).float().cpu())
        said, indices = torch.cat(parts), self.heldout_indices
        right = self.words.right(said, indices)
        values = {"read": self.words.loss(said, indices).item(), "right": right.float().mean().item()}
        values |= {"alignment": self.words.alignment(said, indices), "spread": self.words.spread_of(said)}
        for column, table in enumerate(TABLES):
            there = indices[:, column] != self.vocabulary[table.kind].index(NOTHING)
            if there.any():
                values[table.name.replace(" ", "_")] = right[there, column].float().mean().item()
        found, characters = self.words.characters_right(said, indices)
        values["characters"] = found / max(characters, 1)
        recorder.write(step, **{f"heldout_{name}": value for name, value in values.items()})

    def export(self, folder: Path) -> None:
        """Write `input_resampler.safetensors`."""
        save_input_resampler(self.resampler, self.vocabulary, folder)


def main() -> None:
    """Command line."""
    run_stage(ReadingConfig, ReadingStage, __doc__)


if __name__ == "__main__":
    main()
