"""Stage 2: train the story model to write the next caption and to regress the next picture's features.

A sample is a whole story in one packed pass: every page is supervised (`seedstory.layout.pack_story`).

    python -m training.mllm --config configs/mini/mllm.yaml
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.layout import IGNORE, LAYOUTS, attention_mask, find_places
from seedstory.modeling.base_lm import base_lm_folder
from seedstory.modeling.flash_attention import Runs, find_runs
from seedstory.modeling.story_model import StoryModel
from training.backend import Backend
from training.command import run_stage
from training.config import fill
from training.detokenizer import draw_images, require_files
from training.distances import psnr
from training.features import features_shape
from training.loop import Stage, StepPlan
from training.pages import ShuffledSampler, noise_of
from training.recipes import Recipe, RecipeConfig, make_recipe
from training.recorder import Recorder
from training.samples import SampleDropout, StoryDataset, collate_stories, draw_dropout
from training.splits import files_of
from training.states import StateSettings, story_parts

LOOSE_PER_STORY = 10
# Settings of `StoryConfig` that a run chooses. The features' own shape is the vision tower's.
SIZES = (
    "layout",
    "num_visual_tokens",
    "resampler",
    *(f"{side}_resampler_{size}" for side in ("input", "output") for size in ("width", "depth", "heads")),
    *("feature_head", "flow_depth", "flow_steps", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets"),
    *("lm_loss_weight", "visual_loss_weight", "cosine_weight", "mse_weight"),
)


@dataclass(kw_only=True)
class StoryConfigOfRun(RecipeConfig):
    """What the stages that read stories with a story model share.

    Attributes:
        stage1: folder with `vision_tower/` and `detokenizer/`.
        split: JSONL of stories.
        heldout: JSONL of stories for held-out figures and sample pages.
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
        init: folder of a story model to go on from; its sizes, `lora_` settings and loss weights are then its own.
        image_only: share of stories whose first caption is dropped, to learn openings of a picture alone.
        max_pages: a sample shows at most so many pages of a story; of a longer one some in a row, and earlier ones.
        skipped: share of stories from whose middle pages are left out: the first pages, a gap, and the last pages.
        window: of longer stories, so many consecutive pages are a sample instead, drawn anew each time (0: off).
        states: how samples show the cast and the plan of stories that have them, see `training.states.StateSettings`.
        context_noise: context features get Gaussian noise of a level drawn from U(0, context_noise).
        own_features_from: share of the run after which half of the steps show the model its own regressed
            features as context (Bengio et al. 2015, arXiv 1506.03099, in one parallel pass); 1: never.
        last_page_only: supervise the last page alone, as published (for comparison).
        heldout_steps: diffusion steps of held-out sample pages (None: the de-tokenizer's own, mini: 4, else 28 or 50).
        layout: order of the tokens of a story, "countdown" or "seed_story", as in `StoryConfig`.
        num_visual_tokens: N, tokens of an image inside the language model.
        feature_tokens, feature_dim: F and Df of the features (null: as the vision tower of `stage1` has them; a tower
            with others is refused).
        resampler: kind of both resamplers, "transformer" or "cross_attention", as in `StoryConfig`.
        input_resampler_width, input_resampler_depth, input_resampler_heads: size of features to embeddings.
        output_resampler_width, output_resampler_depth, output_resampler_heads: size of hidden states to features.
        feature_head, flow_depth, flow_steps: "regression" or "flow", as in `StoryConfig`.
        lora_rank, lora_alpha, lora_dropout, lora_targets: LoRA of the language model, as in `StoryConfig`.
        lm_loss_weight, visual_loss_weight, cosine_weight, mse_weight: weights of losses, as in `StoryConfig`.
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
    states: dict[str, Any] = field(default_factory=dict)
    context_noise: float = 0.5
    own_features_from: float = 0.6
    last_page_only: bool = False
    heldout_steps: int | None = None
    layout: str = "countdown"
    num_visual_tokens: int = 16
    resampler: str = "transformer"
    feature_tokens: int | None = None
    feature_dim: int | None = None
    input_resampler_width: int = 192
    input_resampler_depth: int = 2
    input_resampler_heads: int = 4
    output_resampler_width: int = 256
    output_resampler_depth: int = 3
    output_resampler_heads: int = 4
    feature_head: str = "regression"
    flow_depth: int = 2
    flow_steps: int = 4
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    lora_targets: str | list[str] = "all-linear"
    lm_loss_weight: float = 1.0
    visual_loss_weight: float = 2.0
    cosine_weight: float = 1.0
    mse_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.state_settings, "checked here, before anything is loaded"

    @property
    def state_settings(self) -> StateSettings:
        """What `states` says, with defaults."""
        return fill(StateSettings, self.states, "states")


def make_story_model(config: MllmConfig) -> StoryModel:
    """The story model that a run starts from: a new one of the configured sizes, or that of `init`.

    Raises:
        ValueError: the vision tower has features of another shape than the configuration or `init` says.
    """
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    tower = Path(config.stage1) / "vision_tower"
    shape = features_shape(tower)
    if config.init:
        model = StoryModel.from_pretrained(config.init, base_model=config.base_lm, dtype=dtype, merge=False)
        wanted = (model.config.feature_tokens, model.config.feature_dim)
    else:
        wanted = (config.feature_tokens or shape[0], config.feature_dim or shape[1])
    if shape != wanted:
        raise ValueError(
            f"{tower} gives {shape[0]} feature tokens of width {shape[1]}, "
            f"{config.init or 'the configuration'} wants {wanted[0]} of width {wanted[1]}"
        )
    if config.init:
        return model
    sizes = {name: getattr(config, name) for name in SIZES}
    return StoryModel.from_base(config.base_lm, dtype=dtype, feature_tokens=shape[0], feature_dim=shape[1], **sizes)


def use_own_features(model: StoryModel, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with the model's own regression as the context features of supervised pages."""
    with torch.no_grad():
        predicted = model(**{**batch, "labels": None, "target_features": None}).features
    places = batch["places"].targets if "places" in batch else batch["target_mask"].nonzero()[:, 0]
    return {**batch, "context_features": batch["context_features"].index_copy(0, places, predicted.float())}


class MllmStage(Stage):
    """The story model on whole stories, and on loose pages in the beginning."""

    name = "mllm"
    adam_names = ("lora_", "token_rows", "queries", "output_resampler.to_width")
    config: MllmConfig

    def __init__(self, config: MllmConfig, backend: Backend) -> None:
        super().__init__()
        require_files(config.stage1, ("vision_tower", "detokenizer"), "detokenizer", "stage1")
        self.config = config
        self.model = make_story_model(config)
        if config.gradient_checkpointing:
            self.model.llm.gradient_checkpointing_enable({"use_reentrant": False})
        self.recipe = recipe = make_recipe(config.recipe, config.recipe_settings)
        recipe.prepare(self.model, fresh=not config.init)
        self.stories = StoryDataset(config, config.split, backend, recipe, config.stories)
        self.loose = StoryDataset(config, config.loose_split, backend, recipe) if config.loose_split else None
        self.long = StoryDataset(config, config.long_split, backend, recipe) if config.long_split else None
        self.heldout = StoryDataset(config, config.heldout, backend, recipe, limit=16)
        if config.state_settings.state_share and any(any(story_parts(one)) for one in self.stories.records):
            if self.model.config.layout != LAYOUTS[0]:
                raise ValueError(f"layout {self.model.config.layout} has no place for cast and plan: set states={{}}")
            self.model.config.story_state = True
        self.sources = files_of(config.data, config.split, config.loose_split, config.long_split, config.heldout)
        self.sources += [Path(config.stage1) / "vision_tower", *([Path(config.init)] if config.init else [])]
        self.sources += [base_lm_folder(self.model.config.base_lm), *recipe.sources]
        self.rows = ShuffledSampler(len(self.stories), config.seed)
        self.loose_rows = ShuffledSampler(len(self.loose), config.seed + 1) if self.loose else None
        self.long_rows = ShuffledSampler(len(self.long), config.seed + 2) if self.long else None
        self._drawn: tuple[int, Counter[str]] = 0, Counter()
        products = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self.takes_runs = self.model.takes_runs(backend.device, products)

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
        assert stories is not None and self.model.layout is not None, "only streams that there are get drawn from"
        rows = [row for _, row in samples]
        drops, noise, starts, times = [], [], [], []
        for number, row in samples:
            generator = noise_of(config.seed, number)
            choice = random.Random(int(torch.randint(2**62, (), generator=generator)))
            drops.append(draw_dropout(stories.records[row], config, choice, self.recipe))
            shape = (len(drops[-1].pages), *stories.features.shape[1:])
            level = config.context_noise * torch.rand(shape[0], 1, 1, generator=generator)
            noise.append(level * torch.randn(shape, generator=generator))
            if self.model.config.feature_head == "flow":
                starts.append(torch.randn(shape, generator=generator))
                times.append(1 - torch.rand(shape[0], generator=generator))
        batch = collate_stories(self.model.layout, stories, rows, drops, config.last_page_only, mask=False)
        batch["context_features"] = batch["target_features"] + torch.cat(noise)
        if starts:
            batch |= {"feature_noise": torch.cat(starts), "feature_time": torch.cat(times)}
        names = ("visual", "cosine", "mse", *self.recipe.loss_weights)
        marks = ("labels", "context_mask", "query_mask", "target_mask")
        places = find_places(*(batch[name] for name in marks))
        assert places.labels is not None and places.targets is not None, "all are given"
        counts = {"lm": len(places.labels), **dict.fromkeys(names, len(places.targets))}
        # What a GPU would have to be waited for, or what need not travel there.
        spans = find_runs(batch["spans"], batch["input_ids"].shape[1]) if self.takes_runs else None
        more = {"places": places, "spans": spans, "context_length": int(batch["context_length"])}
        return batch | more | {"kind": kind, "counts": counts}

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        return batch["counts"]

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        counts, rows = batch["counts"], batch.get("page_rows")
        others = ("counts", "page_rows", "kind", "branch", "order")
        stories = {name: value for name, value in batch.items() if name not in others}
        if not isinstance(batch["spans"], Runs):
            stories["attention_mask"] = attention_mask(batch["branch"], batch["order"])
        if batch["kind"].startswith("own"):
            stories = use_own_features(self.model, stories)
        output = self.model(**stories)
        means = {
            "lm": output.lm_loss,
            "visual": output.visual_loss,
            "cosine": output.cosine_loss,
            "mse": output.mse_loss,
        }
        if rows is not None and counts["visual"]:
            places = batch["places"]
            hidden = output.last_hidden_state.flatten(0, 1)[places.queries].unflatten(0, (len(rows), -1))
            context = output.context_embeddings[places.targets]
            means |= self.recipe.losses(output, hidden, context, rows)
        nothing = output.lm_loss.new_zeros(())
        return {name: nothing if means.get(name) is None else counts[name] * means[name] for name in counts}

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        sizes = self.model.config
        visual = {"visual": sizes.visual_loss_weight} if self.recipe.trains_features(progress) else {}
        return {"lm": sizes.lm_loss_weight, **visual, **self.recipe.loss_weights}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        config = self.config
        report(self.model, self.heldout, step, recorder, backend, config.stage1, self.recipe, config.heldout_steps)

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
    recipe: Recipe,
    drawing_steps: int | None = None,
) -> None:
    """Log held-out figures and save sample pages: drawn from true features above, from regressed ones below.

    Perplexity of captions, features and drawn pictures against the true ones, and what the recipe counts as right at
    the visual tokens.
    """
    assert model.layout is not None
    sums = dict.fromkeys(("lm", "cosine", "mse"), 0.0)
    tokens = images = 0
    asked: dict[str, tuple[int, int]] = {}
    shown: list[Tensor] = []
    for row in range(len(heldout)):
        drops = SampleDropout(list(range(len(heldout.records[row].captions))))
        batch = collate_stories(model.layout, heldout, [row], [drops])
        page_rows = batch.pop("page_rows", None)
        supervised, pages = int((batch["labels"] != IGNORE).sum()), int(batch["target_mask"].sum())
        with backend.autocast():
            output = model(**{name: tensor.to(backend.device) for name, tensor in batch.items()})
        sums["lm"] += supervised * output.lm_loss.item()
        sums["cosine"] += pages * (1 - output.cosine_loss.item())
        sums["mse"] += pages * output.mse_loss.item()
        tokens, images = tokens + supervised, images + pages
        if page_rows is not None:
            hidden = output.last_hidden_state[batch["query_mask"].to(backend.device)].unflatten(0, (pages, -1))
            context = output.context_embeddings[batch["target_mask"].to(backend.device)]
            for name, counted in recipe.count_right(hidden, context, page_rows.to(backend.device)).items():
                right, total = asked.get(name, (0, 0))
                asked[name] = right + counted[0], total + counted[1]
        if len(shown) < 2:
            shown = [batch["target_features"][batch["target_mask"]][:8], output.features[:8].float().cpu()]
    values = {f"heldout_{name}": sums[name] / images for name in ("cosine", "mse")}
    values |= {"heldout_lm": sums["lm"] / tokens, "heldout_perplexity": math.exp(sums["lm"] / tokens)}
    values |= {f"heldout_{name}": right / total for name, (right, total) in asked.items() if total}
    detokenizer = Detokenizer.from_pretrained(Path(stage1) / "detokenizer").to(backend.device)
    with backend.autocast():
        rows = [draw_images(detokenizer, features.to(backend.device), drawing_steps) for features in shown]
    recorder.write(step, **values, heldout_psnr=psnr(2 * rows[1] - 1, 2 * rows[0] - 1).mean().item())
    recorder.sheet(step, rows)


def main() -> None:
    """Command line."""
    run_stage(MllmConfig, MllmStage, __doc__)


if __name__ == "__main__":
    main()
