"""The recipe of the paper theatre: who stands where decides what the stages look at, and what query tokens learn.

- Images: the upper half of each character's box, head and hat, weighs more in losses of pixels.
- Samples: names are those of the characters in the ground truth.
- Stage 2: each query token has its scene code, as stage 2a learned it, for a target, and the words of that code in the
  language model's own vocabulary. The drawing is left as stage 2a learned it. The input resampler may start as the
  stage "reading" left it, and be held to saying what each picture of the context shows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seedstory.modeling.story_model import StoryModel, StoryModelOutput
from seedstory.resampler import InputResampler, OutputResampler
from seedstory.storystream import StoryRecord
from training.detokenizer import require_files
from training.theatre import input_resampler, output_resampler
from training.theatre.context_words import ContextWords
from training.theatre.output_resampler import head_weights, load_head
from training.theatre.prompts import scene_prompt
from training.theatre.scene_codes import ROLES, SceneCodes, SceneWords, word_indices


@dataclass(kw_only=True)
class TheatreSettings:
    """Settings of the recipe "theatre".

    Attributes:
        head_weight: weight of heads in losses of pixels.
        scenes: stage 2: folder that stage 2a wrote (null: learn to draw from nothing, without scene codes).
        code_loss_weight: stage 2: weight of the regression of scene codes.
        word_loss_weight: stage 2: weight of naming the scene's words at the query tokens.
        reading: stage 2: folder that the stage "reading" wrote, whose input resampler the story model gets, be it new
            or that of `init` (null: it keeps its own).
        read_loss_weight: stage 2: weight of reading the scene's words off the context embeddings (0: left out; needs
            `scenes` or `reading`).
        train_head_from: stage 2: share of the run after which the head of stage 2a is trained with the rest (1: never).
            The few pages of a step would spoil it; until then, pages are trained on their scene codes alone.
    """

    head_weight: float = 3.0
    scenes: str | None = None
    code_loss_weight: float = 5.0
    word_loss_weight: float = 2.0
    reading: str | None = None
    read_loss_weight: float = 0.0
    train_head_from: float = 1.0

    def __post_init__(self) -> None:
        for name in ("head_weight", "code_loss_weight", "word_loss_weight", "read_loss_weight", "train_head_from"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.read_loss_weight and not (self.scenes or self.reading):
            raise ValueError("read_loss_weight needs the words of an earlier stage: set reading or scenes, too")


class TheatreRecipe(nn.Module):
    """`training.recipes.Recipe` for the paper theatre. A module, so that the codes move with the stage.

    Args:
        settings: of the recipe.
    """

    def __init__(self, settings: TheatreSettings) -> None:
        super().__init__()
        self.settings = settings
        self.codes: SceneCodes | None = None
        self.words: SceneWords | None = None
        self.context_words: ContextWords | None = None
        self.vocabulary: dict[str, list[str]] = {}

    def region_weights(self, truth: dict[str, Any], size: tuple[int, int], grid: int) -> Tensor | None:
        """Heads weigh `head_weight`, all else 1."""
        if not truth.get("actors"):
            return None
        weights = torch.ones(grid, grid)
        scale = grid / min(size)
        cut = [(edge - min(size)) // 2 for edge in size]
        for actor in truth["actors"]:
            x0, y0, x1, y1 = (
                min(max(int((edge - less) * scale), 0), grid) for edge, less in zip(actor["box"], cut * 2, strict=True)
            )
            weights[y0 : (y0 + y1) // 2 + 1, x0 : x1 + 1] = self.settings.head_weight
        return weights

    def names(self, truth: dict[str, Any]) -> set[str] | None:
        """Names of the actors."""
        if "actors" not in truth:
            return None
        return {actor["name"] for actor in truth["actors"] if "name" in actor}

    def prompt(self, caption: str, truth: dict[str, Any], draw: random.Random) -> str:
        """The caption, or for three pages in four what the ground truth says, with or without looks."""
        return caption if "actors" not in truth or draw.random() < 0.25 else scene_prompt(truth, draw)

    @property
    def sources(self) -> Sequence[Path]:
        """What stage 2a and the stage "reading" wrote."""
        settings = self.settings
        found = [Path(settings.scenes) / name for name in output_resampler.WRITTEN] if settings.scenes else []
        return found + ([Path(settings.reading) / name for name in input_resampler.WRITTEN] if settings.reading else [])

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Of scene codes and scene words, if stage 2a was given, and of words that are read, if asked for."""
        weights = {}
        if self.settings.scenes:
            weights = {"code": self.settings.code_loss_weight, "words": self.settings.word_loss_weight}
        if self.settings.read_loss_weight:
            weights["read"] = self.settings.read_loss_weight
        return weights

    def prepare(self, model: StoryModel, fresh: bool) -> None:
        """Load what stage 2a and the stage "reading" wrote, and start a fresh model from it."""
        if not (self.settings.scenes or self.settings.reading):
            return
        if self.settings.scenes:
            require_files(self.settings.scenes, output_resampler.WRITTEN, "theatre.scenes", "recipe_settings.scenes")
        if self.settings.reading:
            require_files(self.settings.reading, input_resampler.WRITTEN, "theatre.reading", "recipe_settings.reading")
        if model.config.num_visual_tokens != len(ROLES):
            raise ValueError(
                f"scene codes are of {len(ROLES)} visual tokens, the story model has {model.config.num_visual_tokens}: "
                f"set num_visual_tokens: {len(ROLES)}, or recipe_settings: {{scenes: null, reading: null}}"
            )
        if not isinstance(model.input_resampler, InputResampler):
            raise ValueError("scene codes need resamplers of the kind that stage 2a trains: set resampler: transformer")
        if self.settings.reading:
            input_resampler.load_input_resampler(model.input_resampler, Path(self.settings.reading))
            self.vocabulary = input_resampler.read_vocabulary(Path(self.settings.reading))
        if self.settings.scenes:
            self._prepare_scenes(model, Path(self.settings.scenes), fresh)
        if self.settings.reading or self.settings.read_loss_weight:
            assert model.layout is not None
            embedding = model.llm.get_input_embeddings().weight[: model.config.image_start_id] * model.embedding_scale
            self.context_words = ContextWords(self.vocabulary, embedding, model.layout.tokenizer)

    def _prepare_scenes(self, model: StoryModel, folder: Path, fresh: bool) -> None:
        self.codes = SceneCodes.load(folder / "scene_codes.safetensors")
        self.vocabulary = self.codes.vocabulary
        self.words = SceneWords(self.codes, model)
        resampler = model.output_resampler
        assert isinstance(resampler, OutputResampler), "as checked in prepare"
        for weight in head_weights(resampler).values():
            weight.requires_grad_(self.settings.train_head_from < 1)
        if fresh:
            self.words.ask(model)
            load_head(resampler, folder)

    def check(self, record: StoryRecord) -> None:
        """Losses of scene codes and words need the ground truth of every page."""
        if self.loss_weights and (record.pages is None or None in record.pages):
            raise ValueError(
                f"story {record.id} has no ground truth (`pages`), which scene codes need: "
                "set recipe_settings: {scenes: null, read_loss_weight: 0}"
            )

    def page_rows(self, record: StoryRecord) -> Tensor:
        """Which words each page's tables say, `[pages, tables]`."""
        assert record.pages is not None, "as checked"
        return torch.tensor([word_indices(self.vocabulary, page) for page in record.pages if page is not None])

    def losses(self, output: StoryModelOutput, hidden: Tensor, context: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Squared error of the codes, and cross-entropy of the words that are asked for and that are read."""
        losses = {}
        if self.codes is not None and self.words is not None:
            assert output.codes is not None
            losses["code"] = F.mse_loss(output.codes.float(), self.codes(rows))
            losses["words"] = self.words.loss(hidden, rows)
        if self.context_words is not None and self.settings.read_loss_weight:
            losses["read"] = self.context_words.loss(context, rows)
        return losses

    def trains_features(self, progress: float) -> bool:
        """Without scene codes always; with them, once the head of stage 2a is trained too."""
        return not self.settings.scenes or progress >= self.settings.train_head_from

    def count_right(self, hidden: Tensor, context: Tensor, rows: Tensor) -> dict[str, tuple[int, int]]:
        """How many characters are named, and how many are read, with the right species and outfit."""
        counts = {"characters_named": self.words.characters_right(hidden, rows)} if self.words else {}
        if self.context_words:
            counts["characters_read"] = self.context_words.characters_right(context, rows)
        return counts
