"""Two ways to train a story model on the same stories and weights: the published one, and packed stories.

The published scheme (SEED-Story, arXiv 2407.08683, and its training code) makes samples that supervise one page each: a
prefix of a story, of which the last page alone is learned, with its query tokens in line, padded on the right to a
fixed length; the frozen vision tower runs in the loop; every position is scored against the whole vocabulary. A sample
learns a random page but the first; here each of them has its turn, which costs the same on average.

Left as it is in our training, so that losses and weights are the same: labels that count pages down in place of
"[INST]", what is trainable, and no end of story (one token, which the published scheme has behind the query tokens and
generation behind the picture). For the published scheme's good: pixels lie in memory, decoded, and its scores are not
copied to float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from seedstory.layout import IGNORE, StoryLayout, collate, countdown, pack_story
from seedstory.modeling import StoryModel
from seedstory.modeling.vision_tower import VisionTower
from seedstory.precision import fast_dtype
from training.optimizers import MuonAdamW
from training.pages import noise_of


@dataclass(frozen=True)
class Scheme:
    """One way to train on stories.

    Attributes:
        packed: whole stories, each page learned in one pass; otherwise a padded sample for each learned page.
        cached: features from disk; otherwise the vision tower runs in the loop.
        gathered: scores at supervised positions alone; otherwise at all.
        at_once: samples in one pass (0: all of the step).
    """

    packed: bool = False
    cached: bool = False
    gathered: bool = False
    at_once: int = 0


PUBLISHED, OURS, ONE_BY_ONE = "published", "ours", "published, one by one"
SCHEMES = {
    PUBLISHED: Scheme(),
    ONE_BY_ONE: Scheme(at_once=1),
    OURS: Scheme(packed=True, cached=True, gathered=True),
    "published + packing": Scheme(packed=True),
    "published + cached features": Scheme(cached=True),
    "published + supervised scores": Scheme(gathered=True),
}


@dataclass
class BenchStory:
    """What both schemes start from: ids of each caption, pixels uint8 [P, 3, S, S], features [P, F, D]."""

    caption_ids: list[list[int]]
    pixels: Tensor
    features: Tensor


@dataclass
class Batch:
    """One forward pass.

    Attributes:
        arguments: of `StoryModel.forward`, but for features and labels.
        labels: [B, T].
        rows: pages whose pictures are read, in order, with repeats, [R].
        is_context, is_target: which of them are shown, and which are learned, [R].
    """

    arguments: dict[str, Tensor]
    labels: Tensor
    rows: Tensor
    is_context: Tensor
    is_target: Tensor


# ---------------------------------------------------------------------------------------------------------- the batches


def page_sample(layout: StoryLayout, caption_ids: Sequence[Sequence[int]], page: int) -> dict[str, Sequence[int]]:
    """The published sample that learns one page: the pages before it as context, its queries in line behind `<img>`."""
    ids, labels = [*layout.opening_ids], [IGNORE] * len(layout.opening_ids)
    context, queries = [False] * len(ids), [False] * len(ids)
    for number, left in zip(range(page + 1), countdown(len(caption_ids)), strict=False):
        label, caption = layout.page_label_ids(left, first=number == 0), caption_ids[number]
        text = [*label, *caption, layout.image_start_id]
        ids += [*text, *layout.query_ids, layout.image_end_id]
        start, learned = len(labels), number == page
        labels += [IGNORE] * (len(ids) - start)
        if learned:
            given = len(label) if layout.counts_down else 0
            labels[start + given - 1 : start + len(text) - 1] = text[given:]
            labels[-1] = IGNORE if layout.counts_down else layout.eos_id
        for mask, marks in ((context, not learned), (queries, learned)):
            mask += [*[False] * len(text), *[marks] * len(layout.query_ids), False]
    return {"input_ids": ids, "labels": labels, "context_mask": context, "query_mask": queries}


def sample_batches(layout: StoryLayout, stories: Sequence[BenchStory], length: int, at_once: int) -> Iterator[Batch]:
    """One sample a page but the first, each padded to `length`, `at_once` of them in a batch."""
    starts = [0, *itertools.accumulate(len(story.caption_ids) for story in stories)]
    pages = [(n, page) for n, story in enumerate(stories) for page in range(1, len(story.caption_ids))]
    for some in (pages[start : start + at_once] for start in range(0, len(pages), at_once or 1)):
        samples = [page_sample(layout, stories[n].caption_ids, page) for n, page in some]
        longest = max(len(sample["labels"]) for sample in samples)
        if longest > length:
            raise ValueError(f"a sample has {longest} tokens: give a --length of at least as many, not {length}")
        padding = {"input_ids": 0, "labels": IGNORE, "context_mask": False, "query_mask": False}
        padded = {
            name: torch.tensor([[*sample[name], *[value] * (length - len(sample[name]))] for sample in samples])
            for name, value in padding.items()
        }
        is_target = torch.cat([torch.arange(page + 1) == page for _, page in some])
        yield Batch(
            labels=padded.pop("labels"),
            arguments=padded,
            rows=torch.cat([starts[n] + torch.arange(page + 1) for n, page in some]),
            is_context=~is_target,
            is_target=is_target,
        )


def packed_batch(layout: StoryLayout, stories: Sequence[BenchStory]) -> Batch:
    """Whole stories, in which each page but the first is learned."""
    packed = []
    for story in stories:
        learned = [page > 0 for page in range(len(story.caption_ids))]
        # The end of a story is left out: the published scheme has it behind query tokens, generation behind a picture.
        packed.append(
            pack_story(story.caption_ids, layout, supervise_caption=learned, supervise_image=learned, ends=False)
        )
    arguments = collate(packed)
    is_target = arguments.pop("target_mask")
    everything = torch.ones_like(is_target)
    return Batch(arguments, arguments.pop("labels"), torch.arange(len(is_target)), everything, is_target)


# ------------------------------------------------------------------------------------------------------------- the step


class Trainer:
    """A story model, its vision tower and its optimizer; each scheme makes its steps on them."""

    def __init__(self, model: StoryModel, tower: VisionTower, length: int, device: torch.device) -> None:
        self.model, self.length, self.device = model.to(device).train(), length, device
        self.tower = tower.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        names = ("lora_", "token_rows", "queries", "output_resampler.to_width")
        self.optimizer = MuonAdamW(trained, 1e-4, 1e-5, adam_names=names)

    def batches(self, scheme: Scheme, stories: Sequence[BenchStory]) -> list[Batch]:
        assert self.model.layout is not None
        if scheme.packed:
            return [packed_batch(self.model.layout, stories)]
        pages = sum(len(story.caption_ids) - 1 for story in stories)
        return list(sample_batches(self.model.layout, stories, self.length, scheme.at_once or pages))

    def losses(self, scheme: Scheme, batch: Batch, stories: Sequence[BenchStory]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of captions and regression loss of pictures, each a mean over what the batch supervises."""
        labels = batch.labels.to(self.device)
        arguments = {name: tensor.to(self.device) for name, tensor in batch.arguments.items()}
        features = self.features(scheme, batch, stories)
        output = self.model(
            **arguments,
            labels=labels if scheme.gathered else None,
            context_features=features[batch.is_context.to(self.device)],
            target_features=features[batch.is_target.to(self.device)],
            **self.noise(batch, features.shape[1:]),
        )
        assert output.visual_loss is not None and output.last_hidden_state is not None
        if scheme.gathered:
            assert output.lm_loss is not None
            return output.lm_loss, output.visual_loss
        logits = self.model.caption_logits(output.last_hidden_state)
        with torch.autocast(self.device.type, enabled=False):  # as published: the scores are not copied to float32
            lm_loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        return lm_loss, output.visual_loss

    def features(self, scheme: Scheme, batch: Batch, stories: Sequence[BenchStory]) -> Tensor:
        """Features [R, F, D] of the batch's pictures, float32."""
        if scheme.cached:
            return torch.cat([story.features for story in stories])[batch.rows].to(self.device).float()
        pixels = torch.cat([story.pixels for story in stories])[batch.rows].to(self.device)
        with torch.no_grad():
            return self.tower(pixels.float() / 127.5 - 1).float()

    def noise(self, batch: Batch, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Where a flow starts and when it is asked: for each learned page the same, however pages are batched."""
        if self.model.config.feature_head != "flow":
            return {}
        generators = [noise_of(0, row) for row in batch.rows[batch.is_target].tolist()]
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        times = torch.stack([1 - torch.rand((), generator=generator) for generator in generators])
        return {"feature_noise": noise.to(self.device), "feature_time": times.to(self.device)}

    def step(self, scheme: Scheme, stories: Sequence[BenchStory], mixed: bool | None = None) -> None:
        """Forward, backward and the optimizer's step, in bf16 mixed precision or in the model's own.

        By default mixed where this machine multiplies bf16 faster.
        """
        mixed = fast_dtype(self.device) == torch.bfloat16 if mixed is None else mixed
        batches = self.batches(scheme, stories)
        pages = sum(int(batch.is_target.sum()) for batch in batches)
        tokens = sum(int((batch.labels != IGNORE).sum()) for batch in batches)
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
                lm_loss, visual_loss = self.losses(scheme, batch, stories)
            loss = lm_loss * ((batch.labels != IGNORE).sum() / tokens)
            loss = loss + self.model.config.visual_loss_weight * visual_loss * (batch.is_target.sum() / pages)
            loss.backward()
        self.optimizer.step()


def compare_losses(trainer: Trainer, stories: Sequence[BenchStory]) -> dict[str, dict[str, float]]:
    """The losses of each scheme on the same pages: means over all that is supervised, however it is batched."""
    found = {}
    for name, scheme in SCHEMES.items():
        total = torch.zeros(2, dtype=torch.float64)
        weight = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for batch in trainer.batches(scheme, stories):
                share = torch.tensor([int((batch.labels != IGNORE).sum()), int(batch.is_target.sum())]).double()
                losses = torch.stack(trainer.losses(scheme, batch, stories)).double().cpu()
                total, weight = total + losses * share, weight + share
        found[name] = dict(zip(("lm", "visual"), (total / weight).tolist(), strict=True))
    return found
