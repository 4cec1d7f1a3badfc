"""Stage 2: train the story model to write the next caption and to regress the next picture's features.

python -m training.mllm --config configs/mini/mllm.yaml
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.layout import collate
from seedstory.modeling.story_model import StoryModel
from seedstory.storystream import StoryRecord, read_jsonl
from training.config import RunConfig
from training.features import page_features
from training.optimizers import MuonAdamW
from training.pages import shuffled_rows
from training.run import Run, parse_arguments
from training.scenes import SceneCodes, SceneWords, drawing_weights


@dataclass(kw_only=True)
class MllmConfig(RunConfig):
    """Stage 2.

    Attributes:
        stage1: folder with `vision_tower/` and `detokenizer/`.
        split: JSONL of stories; `loose_split`: JSONL of single pages for the first part (none: leave it out).
        heldout: JSONL for held-out losses and sample pages.
        base_lm: as for `StoryModel.from_base`.
        init: folder of a story model to go on from.
        batch_size: stories a step; loose pages come ten to a story.
        loose_until: share of the run after which loose pages are no longer trained.
        picture_only: share of stories whose first caption is dropped, to learn openings of a picture alone.
        context_noise: context features get Gaussian noise of a level drawn from U(0, context_noise).
        own_context_from: share of the run after which half of the steps show the model its own regressed
            features as context (Bengio et al. 2015, in one parallel pass).
        scenes: folder that stage 2a wrote (none: learn to draw from nothing, without scene codes).
        code_loss_weight: weight of the regression of scene codes, where the data set has ground truth.
        word_loss_weight: weight of naming the scene's words at the query tokens.
        draw_from: share of the run before which pages with scene codes are trained on these alone: a drawing from
            codes that are still wrong would teach neither side anything.
        lora_rank, lora_alpha, lora_targets, visual_loss_weight: as in `StoryConfig`.
        stories: at most so many training stories.
    """

    stage1: str
    split: str = "train"
    loose_split: str | None = "loose-train"
    heldout: str = "heldout"
    base_lm: str = "smollm2-135m-instruct"
    init: str | None = None
    loose_until: float = 0.3
    picture_only: float = 0.1
    context_noise: float = 0.5
    own_context_from: float = 0.6
    scenes: str | None = None
    code_loss_weight: float = 5.0
    word_loss_weight: float = 2.0
    draw_from: float = 0.6
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_targets: str | list[str] = "all-linear"
    visual_loss_weight: float = 2.0
    stories: int | None = None


class StoryBatches:
    """Batches of packed stories with their features.

    Args:
        config: stage 2's configuration.
        split: JSONL to read.
        model: its layout packs the stories.
        run: where the vision tower runs.
        per_batch: stories a batch.
        limit: at most so many stories.
    """

    def __init__(
        self, config: MllmConfig, split: str, model: StoryModel, run: Run, per_batch: int, limit: int | None = None
    ) -> None:
        self.config, self.layout, self.device = config, model.layout, run.device
        self.codes: SceneCodes | None = None
        if config.scenes:
            self.codes = SceneCodes.load(Path(config.scenes) / "scene_codes.safetensors").to(run.device)
        records = list(read_jsonl(Path(config.data) / f"{split}.jsonl"))
        features = page_features(config.data, split, Path(config.stage1) / "vision_tower", run.device)
        starts = [0, *itertools.accumulate(len(record.images) for record in records)]
        self.stories: list[tuple[StoryRecord, Tensor]] = [
            (record, features[start : start + len(record.images)])
            for record, start in zip(records[:limit], starts, strict=False)
        ]
        self.rows = shuffled_rows(len(self.stories), per_batch, config.seed)
        self.random = random.Random(config.seed)

    def next(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """The next training batch, with random drops of first captions, and the scenes of its pages."""
        rows = next(self.rows).tolist()
        return self.batch(rows, self.config.picture_only), self.scenes(rows)

    def batch(self, rows: list[int], picture_only: float = 0.0) -> dict[str, Tensor]:
        """The stories of the given rows as keyword arguments of `StoryModel.forward`."""
        packed, features = [], []
        for record, pictures in (self.stories[row] for row in rows):
            keep = [True] * len(record.captions)
            if len(keep) > 1:
                keep[0] = self.random.random() >= picture_only
            # A lone picture is given, never asked for: without a caption nothing says what it should show.
            packed.append(self.layout.pack_story(record.captions, keep_caption=keep, supervise_picture=keep))
            features.append(pictures)
        batch = collate(packed)
        batch["target_features"] = torch.cat(features).float()
        batch["context_features"] = batch["target_features"]
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def scenes(self, rows: list[int]) -> Tensor | None:
        """Indices [P, 19] of the words of the stories' pages; None without stage 2a or ground truth."""
        truths = [self.stories[row][0].pages for row in rows]
        if self.codes is None or any(pages is None or None in pages for pages in truths):
            return None
        return torch.tensor([self.codes.indices(page) for pages in truths for page in pages]).to(self.device)


def blur_context(model: StoryModel, batch: dict[str, Tensor], level: float, own: bool, run: Run) -> None:
    """Make context features what they are in generation: imprecise, or the model's own.

    Args:
        model: the story model.
        batch: arguments of its forward; `context_features` is replaced.
        level: largest noise level.
        own: replace the features of supervised pages with the model's own regression.
        run: for its autocast.
    """
    clean = batch["target_features"]
    noise = level * torch.rand(len(clean), 1, 1, device=clean.device) * torch.randn_like(clean)
    batch["context_features"] = clean + noise
    if own:
        with torch.no_grad(), run.autocast():
            predicted = model(**{**batch, "labels": None, "target_features": None}).features
        context = batch["context_features"].clone()
        context[batch["target_mask"]] = predicted.float()
        batch["context_features"] = context


@torch.no_grad()
def report(model: StoryModel, heldout: StoryBatches, run: Run, step: int, detokenizer: Detokenizer) -> None:
    """Log held-out losses and save sample pages: renders above, what the model regresses below."""
    model.eval()
    totals = {"heldout_lm": 0.0, "heldout_cosine": 0.0, "heldout_mse": 0.0}
    count = min(16, len(heldout.stories))
    for row in range(count):
        with run.autocast():
            batch = heldout.batch([row])
            output = model(**batch)
        totals["heldout_lm"] += output.lm_loss.item() / count
        totals["heldout_cosine"] += (1 - output.cosine_loss.item()) / count
        totals["heldout_mse"] += output.mse_loss.item() / count
        if row == 0:
            rows = [batch["target_features"][:8], output.features[:8]]
            with run.autocast():
                pictures = [
                    detokenizer(f.float(), torch.Generator(run.device).manual_seed(0), output_type="pt") for f in rows
                ]
            run.sheet(step, "mllm", pictures)
    run.write(step, **totals)
    model.train()


def train(config: MllmConfig) -> StoryModel:
    """Run stage 2 and write `OUT/story_model`."""
    run = Run(config, "mllm")
    if config.init:
        model = StoryModel.from_pretrained(config.init, base_model=config.base_lm, merge=False).train()
    else:
        model = StoryModel.from_base(
            config.base_lm,
            lora_rank=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_targets=config.lora_targets,
            visual_loss_weight=config.visual_loss_weight,
        )
    words = None
    if config.scenes:
        words = SceneWords(SceneCodes.load(Path(config.scenes) / "scene_codes.safetensors"), model)
        if not config.init:
            words.ask(model)
    model.to(run.device)
    drawing = drawing_weights(model.output_resampler)
    if config.scenes and not config.init:
        weights = load_file(Path(config.scenes) / "output_resampler.safetensors")
        unexpected = model.output_resampler.load_state_dict(weights, strict=False).unexpected_keys
        assert not unexpected and weights.keys() == drawing.keys(), "stage 2a trained another output resampler"
    detokenizer = Detokenizer.from_pretrained(Path(config.stage1) / "detokenizer").to(run.device)
    stories = StoryBatches(config, config.split, model, run, config.batch_size, config.stories)
    loose = config.loose_split and StoryBatches(config, config.loose_split, model, run, 10 * config.batch_size)
    heldout = StoryBatches(config, config.heldout, model, run, 1, limit=16)
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer = MuonAdamW(
        trainable,
        config.muon_lr,
        config.adam_lr,
        config.weight_decay,
        adam_names=("lora_", "token_rows", "queries", "output_resampler.to_width"),
    )
    choice = random.Random(config.seed)

    def save(step: int) -> None:
        report(model, heldout, run, step, detokenizer)
        model.save_pretrained(run.folder / "story_model", dtype=torch.bfloat16)

    for step, progress in run.steps():
        on_loose = bool(loose) and progress < config.loose_until and choice.random() < 1 - progress / config.loose_until
        batch, scenes = (loose if on_loose else stories).next()
        own = not on_loose and progress >= config.own_context_from and choice.random() < 0.5
        blur_context(model, batch, config.context_noise, own, run)
        with run.autocast():
            output = model(**batch)
        drawing_rests = scenes is not None and progress < config.draw_from
        loss = output.lm_loss if drawing_rests else output.loss
        kind = "loose" if on_loose else "own" if own else "story"
        if scenes is not None:
            scenes = scenes[batch["target_mask"]]
            code_loss = F.mse_loss(output.codes.float(), stories.codes(scenes))
            hidden = output.last_hidden_state[batch["query_mask"]].unflatten(0, (len(scenes), -1))
            word_loss = words.loss(hidden, scenes)
            loss = loss + config.code_loss_weight * code_loss + config.word_loss_weight * word_loss
            run.log_value(f"{kind}_code", code_loss.item())
            run.log_value(f"{kind}_words", word_loss.item())
        optimizer.set_progress(progress)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in trainable], 1.0)
        optimizer.step()
        run.log(
            step,
            **{
                f"{kind}_lm": output.lm_loss.item(),
                f"{kind}_cosine": 1 - output.cosine_loss.item(),
                f"{kind}_mse": output.mse_loss.item(),
            },
        )
        if run.saves(step):
            save(step)
    return model


if __name__ == "__main__":
    train(parse_arguments(MllmConfig, __doc__))
