"""Stage 2: train the story model to write the next caption and to regress the next picture's features.

A sample is a whole story in one packed pass: every page is supervised (`seedstory.layout.pack_story`).

    python -m training.mllm --config configs/mini/mllm.yaml
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.layout import IGNORE
from seedstory.modeling.story_model import StoryModel
from training.autoencoder import psnr
from training.backend import Backend
from training.command import run_stage
from training.config import RunConfig
from training.detokenizer import draw_images, require_files
from training.loop import Stage, StepPlan
from training.pages import ShuffledSampler, noise_of
from training.recorder import Recorder
from training.samples import SampleDropout, StoryDataset, collate_stories, draw_dropout
from training.scenes import WRITTEN, SceneCodes, SceneWords, head_weights, load_head
from training.splits import files_of

LOOSE_PER_STORY = 10


@dataclass(kw_only=True)
class StoryConfigOfRun(RunConfig):
    """What the stages that read stories with a story model share.

    Attributes:
        stage1: folder with `vision_tower/` and `detokenizer/`.
        split: JSONL of stories; `heldout`: for held-out figures and sample pages.
        base_lm: as for `StoryModel.from_base`.
        stories: at most so many training stories.
    """

    stage1: str
    split: str = "train"
    heldout: str = "heldout"
    base_lm: str = "smollm2-135m-instruct"
    stories: int | None = None


@dataclass(kw_only=True)
class MllmConfig(StoryConfigOfRun):
    """Stage 2.

    Attributes:
        loose_split: JSONL of single pages for the first part (none: leave it out); ten stand for a story.
        loose_until: share of the run after which loose pages are no longer trained.
        long_split: JSONL of stories of many chapters, of which a part is shown at a time (none: leave them out).
        long_share: share of the steps after the loose ones that show such a part.
        init: folder of a story model to go on from; the `lora_` settings and `feature_head` are then its own.
        image_only: share of stories whose first caption is dropped, to learn openings of a picture alone.
        max_pages: a sample shows at most so many pages of a story; of a longer one some in a row, and earlier ones.
        skipped: share of stories from whose middle pages are left out: the first pages, a gap, and the last pages.
        window: of longer stories, so many consecutive pages are a sample instead, drawn anew each time (0: off).
        context_noise: context features get Gaussian noise of a level drawn from U(0, context_noise).
        own_features_from: share of the run after which half of the steps show the model its own regressed
            features as context (Bengio et al. 2015, arXiv 1506.03099, in one parallel pass); 1: never.
        last_page_only: supervise the last page alone, as published (for comparison).
        scenes: folder that stage 2a wrote (none: learn to draw from nothing, without scene codes).
        code_loss_weight: weight of the regression of scene codes, where the data set has ground truth.
        word_loss_weight: weight of naming the scene's words at the query tokens.
        train_head_from: share of the run after which the head of stage 2a is trained with the rest (1: never). The few pages
            of a step would spoil it; until then, pages are trained on their scene codes alone.
        feature_head, lora_rank, lora_alpha, lora_targets, visual_loss_weight: as in `StoryConfig`.
    """

    loose_split: str | None = None
    loose_until: float = 0.3
    long_split: str | None = None
    long_share: float = 0.5
    init: str | None = None
    image_only: float = 0.1
    max_pages: int = 10
    skipped: float = 0.0
    window: int = 0
    context_noise: float = 0.5
    own_features_from: float = 0.6
    last_page_only: bool = False
    scenes: str | None = None
    code_loss_weight: float = 5.0
    word_loss_weight: float = 2.0
    train_head_from: float = 1.0
    feature_head: str = "regression"
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_targets: str | list[str] = "all-linear"
    visual_loss_weight: float = 2.0


def use_own_features(model: StoryModel, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with the model's own regression as the context features of supervised pages."""
    with torch.no_grad():
        predicted = model(**{**batch, "labels": None, "target_features": None}).features
    context = batch["context_features"].clone()
    context[batch["target_mask"]] = predicted.float()
    return {**batch, "context_features": context}


class MllmStage(Stage):
    """The story model on whole stories, and on loose pages in the beginning."""

    name = "mllm"
    adam_names = ("lora_", "token_rows", "queries", "output_resampler.to_width")

    def __init__(self, config: MllmConfig, backend: Backend) -> None:
        super().__init__()
        require_files(config.stage1, ("vision_tower", "detokenizer"), "detokenizer", "stage1")
        self.config = config
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        if config.init:
            self.model = StoryModel.from_pretrained(config.init, base_model=config.base_lm, dtype=dtype, merge=False)
        else:
            self.model = StoryModel.from_base(
                config.base_lm,
                dtype=dtype,
                lora_rank=config.lora_rank,
                lora_alpha=config.lora_alpha,
                lora_targets=config.lora_targets,
                visual_loss_weight=config.visual_loss_weight,
                feature_head=config.feature_head,
            )
        if config.gradient_checkpointing:
            self.model.llm.gradient_checkpointing_enable({"use_reentrant": False})
        self.codes: SceneCodes | None = None
        self.words: SceneWords | None = None
        if config.scenes:
            self._start_from_scenes(Path(config.scenes))
        self.stories = StoryDataset(config, config.split, backend, self.codes, config.stories)
        self.loose = StoryDataset(config, config.loose_split, backend, self.codes) if config.loose_split else None
        self.long = StoryDataset(config, config.long_split, backend, self.codes) if config.long_split else None
        self.heldout = StoryDataset(config, config.heldout, backend, self.codes, limit=16)
        self.sources = files_of(config.data, config.split, config.loose_split, config.long_split, config.heldout)
        self.sources += [Path(config.stage1) / "vision_tower", *([config.init] if config.init else [])]
        self.sources += [Path(config.scenes) / name for name in WRITTEN if config.scenes]
        self.rows = ShuffledSampler(len(self.stories), config.seed)
        self.loose_rows = ShuffledSampler(len(self.loose), config.seed + 1) if self.loose else None
        self.long_rows = ShuffledSampler(len(self.long), config.seed + 2) if self.long else None
        self._drawn: tuple[int, Counter[str]] = 0, Counter()

    def _start_from_scenes(self, folder: Path) -> None:
        require_files(folder, WRITTEN, "scenes", "scenes")
        self.codes = SceneCodes.load(folder / "scene_codes.safetensors")
        self.words = SceneWords(self.codes, self.model)
        for weight in head_weights(self.model.output_resampler).values():
            weight.requires_grad_(self.config.train_head_from < 1)
        if self.config.init:
            return
        self.words.ask(self.model)
        load_head(self.model.output_resampler, folder)

    def draw(self, step: int, progress: float) -> StepPlan:
        stream, kind, size = self._kind(step)
        rows = {"loose": self.loose_rows, "long": self.long_rows, "story": self.rows}[stream]
        assert rows is not None, "only streams that there are get drawn from"
        # Each stream goes on where its own last step ended, so that none skips rows while another one is shown.
        taken = self._earlier(stream, step) * size
        return StepPlan(list(zip(range(step * size, step * size + size), rows.take(taken, size), strict=True)), kind)

    def _kind(self, step: int) -> tuple[str, str, int]:
        """From which stream a step's samples come, what is done with them, and how many they are."""
        config, choice = self.config, random.Random(f"{self.config.seed}-{step}")
        progress = step / config.steps
        if self.loose_rows and progress < config.loose_until and choice.random() < 1 - progress / config.loose_until:
            return "loose", "loose", config.batch_size * LOOSE_PER_STORY
        own = progress >= config.own_features_from and choice.random() < 0.5
        long = self.long_rows is not None and choice.random() < config.long_share
        kind = ("own_long" if own else "long") if long else ("own" if own else "story")
        return ("long" if long else "story"), kind, config.batch_size

    def _earlier(self, stream: str, step: int) -> int:
        """How many of the steps before this one drew from a stream."""
        until, counts = self._drawn  # read once: another thread may ask for another step meanwhile
        if until > step:
            until, counts = 0, Counter()
        counts = counts + Counter(self._kind(before)[0] for before in range(until, step))
        self._drawn = step, counts
        return counts[stream]

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        config = self.config
        stories = self.loose if kind == "loose" else self.long if kind.endswith("long") else self.stories
        rows = [row for _, row in samples]
        drops, noise, starts, times = [], [], [], []
        for number, row in samples:
            generator = noise_of(config.seed, number)
            choice = random.Random(int(torch.randint(2**62, (), generator=generator)))
            drops.append(draw_dropout(stories.records[row], config, choice))
            shape = (len(drops[-1].pages), *stories.features.shape[1:])
            level = config.context_noise * torch.rand(shape[0], 1, 1, generator=generator)
            noise.append(level * torch.randn(shape, generator=generator))
            if self.model.config.feature_head == "flow":
                starts.append(torch.randn(shape, generator=generator))
                times.append(1 - torch.rand(shape[0], generator=generator))
        batch = collate_stories(self.model.layout, stories, rows, drops, config.last_page_only)
        batch["context_features"] = batch["target_features"] + torch.cat(noise)
        if starts:
            batch |= {"feature_noise": torch.cat(starts), "feature_time": torch.cat(times)}
        names = ("visual", "cosine", "mse", "code", "words") if self.codes else ("visual", "cosine", "mse")
        tokens, images = int((batch["labels"] != IGNORE).sum()), int(batch["target_mask"].sum())
        return batch | {"kind": kind, "counts": {"lm": tokens, **dict.fromkeys(names, images)}}

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        return batch["counts"]

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        counts, scenes = batch["counts"], batch.get("scenes")
        stories = {name: value for name, value in batch.items() if name not in ("counts", "scenes", "kind")}
        if batch["kind"].startswith("own"):
            stories = use_own_features(self.model, stories)
        output = self.model(**stories)
        means = {
            "lm": output.lm_loss,
            "visual": output.visual_loss,
            "cosine": output.cosine_loss,
            "mse": output.mse_loss,
        }
        if scenes is not None and counts["visual"]:
            means["code"] = F.mse_loss(output.codes.float(), self.codes(scenes))
            hidden = output.last_hidden_state[batch["query_mask"]].unflatten(0, (len(scenes), -1))
            means["words"] = self.words.loss(hidden, scenes)
        nothing = output.lm_loss.new_zeros(())
        return {name: nothing if means.get(name) is None else counts[name] * means[name] for name in counts}

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        config, sizes = self.config, self.model.config
        weights = {"lm": sizes.lm_loss_weight, "visual": sizes.visual_loss_weight}
        if self.codes:
            weights |= {"code": config.code_loss_weight, "words": config.word_loss_weight}
            if progress < config.train_head_from:
                weights.pop("visual")
        return weights

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        report(self.model, self.heldout, step, recorder, backend, self.config.stage1, self.words)

    def export(self, folder: Path) -> None:
        """Write `story_model/`."""
        self.model.save_pretrained(folder / "story_model", dtype=torch.bfloat16)


@torch.no_grad()
def report(
    model: StoryModel,
    heldout: StoryDataset,
    step: int,
    recorder: Recorder,
    backend: Backend,
    stage1: str | Path,
    words: SceneWords | None = None,
) -> None:
    """Log held-out figures and save sample pages: drawn from true features above, from regressed ones below.

    Perplexity of captions, features and drawn pictures against the true ones, and, with scene words, the share of
    characters that the query tokens name with the right species and outfit.
    """
    sums = dict.fromkeys(("lm", "cosine", "mse"), 0.0)
    tokens = images = named = characters = 0
    shown: list[Tensor] = []
    for row in range(len(heldout)):
        drops = SampleDropout(list(range(len(heldout.records[row].captions))))
        batch = collate_stories(model.layout, heldout, [row], [drops])
        scenes = batch.pop("scenes", None)
        supervised, pages = int((batch["labels"] != IGNORE).sum()), int(batch["target_mask"].sum())
        with backend.autocast():
            output = model(**{name: tensor.to(backend.device) for name, tensor in batch.items()})
        sums["lm"] += supervised * output.lm_loss.item()
        sums["cosine"] += pages * (1 - output.cosine_loss.item())
        sums["mse"] += pages * output.mse_loss.item()
        tokens, images = tokens + supervised, images + pages
        if words is not None and scenes is not None:
            hidden = output.last_hidden_state[batch["query_mask"].to(backend.device)].unflatten(0, (pages, -1))
            right, there = words.characters_right(hidden, scenes.to(backend.device))
            named, characters = named + right, characters + there
        if len(shown) < 2:
            shown = [batch["target_features"][batch["target_mask"]][:8], output.features[:8].float().cpu()]
    values = {f"heldout_{name}": sums[name] / images for name in ("cosine", "mse")}
    values |= {"heldout_lm": sums["lm"] / tokens, "heldout_perplexity": math.exp(sums["lm"] / tokens)}
    if characters:
        values["heldout_characters_named"] = named / characters
    detokenizer = Detokenizer.from_pretrained(Path(stage1) / "detokenizer").to(backend.device)
    with backend.autocast():
        rows = [draw_images(detokenizer, features.to(backend.device)) for features in shown]
    recorder.write(step, **values, heldout_psnr=psnr(2 * rows[1] - 1, 2 * rows[0] - 1).mean().item())
    recorder.sheet(step, rows)


if __name__ == "__main__":
    run_stage(MllmConfig, MllmStage, __doc__)
