"""The judge: a small classifier that says who stands where in a picture of the paper theatre, and what place it shows.

Trained on renders only, so that it measures generated pictures independently of the models that drew them.

    python -m inference.judge train --data data/theatre
    python -m inference.judge test --data data/theatre
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from rich.progress import track
from torch import Tensor, nn

from inference.truth_images import TruthImages, view_of
from seedstory.model_files import CheckedLoading
from seedstory.precision import fast_precision

ATTRIBUTES = ("species", "outfit", "hat", "pose", "expression")
NOBODY = "nobody"
# The parts of a picture that show one place each: a page of two places has one on either half.
PLACES = {"page": (0.0, 0.0, 1.0, 1.0), "first half": (0.0, 0.0, 0.5, 1.0), "second half": (0.5, 0.0, 1.0, 1.0)}
WEIGHTS = Path(__file__).parent / "weights" / "judge"


class Judge(CheckedLoading, ModelMixin, ConfigMixin):
    """Looks at one box of a picture: at a slot for a character (or nobody), at a key of `PLACES` for a place.

    Args:
        labels: attribute to its class names, and "place" to those of places; species also holds "nobody".
        slots: slot name to its box [x0, y0, x1, y1] in units of the picture's side.
        views: view to the names of its slots.
        width: half of the channels of the first layer.
    """

    @register_to_config
    def __init__(
        self,
        labels: dict[str, list[str]],
        slots: dict[str, list[float]],
        views: dict[str, list[str]],
        width: int = 32,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        last = 12
        for channels, stride in ((2 * width, 1), (3 * width, 2), (3 * width, 1), (4 * width, 2), (4 * width, 1)):
            layers += [nn.Conv2d(last, channels, 3, stride, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
            last = channels
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((5, 3)), nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({name: nn.Linear(last * 15, len(labels[name])) for name in labels})

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        """Crops [B, 3, 96, 48] in [-1, 1] to logits [B, classes] of each attribute and of the place."""
        hidden = self.trunk(crops)
        return {name: head(hidden) for name, head in self.heads.items()}

    def crop(self, pixels: Tensor, where: str) -> Tensor:
        """Cut a slot or a part with one place out of pictures [B, 3, S, S] and bring it to [B, 3, 96, 48]."""
        box = PLACES.get(where) or self.config.slots[where]
        x0, y0, x1, y1 = (round(edge * pixels.shape[-1]) for edge in box)
        return F.interpolate(pixels[..., y0:y1, x0:x1], (96, 48), mode="bilinear", antialias=True)

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS) -> Judge:
        """Load the judge in float32 and evaluation mode; by default the shipped one.

        Raises:
            ValueError: The folder is missing or damaged, or its weights do not fit its configuration.
        """
        return cls.from_pretrained(folder, torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def classify(self, pixels: Tensor, where: str) -> list[dict[str, str]]:
        """Name what stands on a slot of each picture [B, 3, S, S] in [-1, 1], or the place that a part of it shows."""
        logits = self(self.crop(pixels.to(self.device, self.dtype), where))
        names = ("place",) if where in PLACES else ATTRIBUTES
        best = {name: logits[name].argmax(1).tolist() for name in names}
        return [{name: self.config.labels[name][best[name][row]] for name in names} for row in range(len(pixels))]

    def questions(self, truth: dict[str, Any]) -> dict[str, dict[str, str]]:
        """All boxes to look at in a picture with this ground truth, with what is to be seen there.

        On an empty slot of its view that is `nobody`.
        """
        seen = {slot: {"species": NOBODY} for slot in self.config.views[view_of(truth)]}
        seen |= {actor["slot"]: {name: actor[name] for name in ATTRIBUTES} for actor in truth["actors"]}
        if "meanwhile" in truth:
            halves = {"first half": truth["place"], "second half": truth["meanwhile"]["place"]}
        else:
            halves = {"page": truth["place"]}
        return seen | {where: {"place": place} for where, place in halves.items()}


def by_box(judge: Judge, truths: list[dict[str, Any]]) -> dict[str, list[tuple[int, dict[str, str]]]]:
    """For each box of any picture: the pictures to look at there, by number, with what is to be seen."""
    boxes: dict[str, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for row, truth in enumerate(truths):
        for where, seen in judge.questions(truth).items():
            boxes[where].append((row, seen))
    return boxes


def score(judge: Judge, pixels: Tensor, truths: list[dict[str, Any]]) -> dict[str, float]:
    """Share of the characters and places in `truths` that the judge finds right.

    Args:
        judge: the classifier.
        pixels: [B, 3, S, S] in [-1, 1].
        truths: ground truth of each picture, with `actors` and `place`.

    Returns:
        A share for each attribute of the characters, `species_and_outfit`, `all` (five attributes), `characters` (their
        count), `character_f1` (is the right species on the right slot, and nobody on the others) and `place`.
    """
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    hits = found = 0
    for where, cases in by_box(judge, truths).items():
        for row, seen in zip(cases, judge.classify(pixels[[row for row, _ in cases]], where), strict=True):
            truth = row[1]
            if where in PLACES:
                right["place"] += seen == truth
                asked["place"] += 1
                continue
            found += seen["species"] != NOBODY
            if truth["species"] == NOBODY:
                continue
            same = {name: seen[name] == truth[name] for name in ATTRIBUTES}
            hits += same["species"]
            asked["characters"] += 1
            right.update(name for name in ATTRIBUTES if same[name])
            right["species_and_outfit"] += same["species"] and same["outfit"]
            right["all"] += all(same.values())
    count = asked["characters"]
    shares = {name: right[name] / max(count, 1) for name in (*ATTRIBUTES, "species_and_outfit", "all")}
    return shares | {
        "character_f1": 2 * hits / max(found + count, 1),
        "place": right["place"] / max(asked["place"], 1),
        "characters": count,
    }


def augment(pixels: Tensor) -> Tensor:
    """Pictures [B, 3, S, S] as a de-tokenizer might draw them: moved by a pixel or two, soft, a little noisy."""
    shift = torch.randint(-2, 3, (2,)).tolist()
    pixels = torch.roll(pixels, shift, (2, 3))
    width = torch.rand(()) * 1.1
    if width > 0.3:
        weights = torch.exp(-(torch.arange(-2, 3) ** 2) / (2 * width**2))
        kernel = (weights / weights.sum()).expand(3, 1, 1, 5)
        pixels = F.conv2d(F.pad(pixels, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
        pixels = F.conv2d(pixels, kernel.transpose(2, 3), groups=3)
    gain, offset, noise = torch.rand(3, len(pixels), 1, 1, 1) * torch.tensor([0.2, 0.1, 0.06]).view(3, 1, 1, 1, 1)
    return pixels * (0.9 + gain) + offset - 0.05 + noise * torch.randn_like(pixels)


def _chances(answers: list[dict[str, str]]) -> Tensor:
    """How often to draw each crop: one in four is an empty slot, where there is only one thing to learn."""
    empty = torch.tensor([seen.get("species") == NOBODY for seen in answers])
    return torch.where(empty, (~empty).sum() / (3 * empty.sum()).clamp(min=1), 1.0)


app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="folder of a StoryStream data set with ground truth")],
    split: str = "loose-train",
    heldout: str = "loose-heldout",
    out: Annotated[Path, typer.Option(help="folder for the weights")] = WEIGHTS,
    init: Annotated[Path | None, typer.Option(help="folder of weights to start from")] = None,
    steps: int = 3000,
    learning_rate: float = 4e-3,
    boxes: Annotated[int, typer.Option(help="boxes that a step trains on")] = 6,
    batch_size: Annotated[int, typer.Option(help="pictures for each box")] = 16,
    limit: Annotated[int | None, typer.Option(help="at most so many pictures")] = None,
    width: int = 32,
    seed: int = 0,
) -> None:
    """Train the judge on renders and print its accuracy on held-out renders."""
    torch.manual_seed(seed)
    images = TruthImages(data, split, limit=limit)
    if init:
        judge = Judge.load(init)
    else:
        labels = images.labels(ATTRIBUTES) | {"place": sorted({truth["place"] for truth in images.truths})}
        labels["species"].append(NOBODY)
        judge = Judge(labels, images.slots, images.views, width)
    cases: dict[tuple[str, str], list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for where, found in by_box(judge, images.truths).items():
        for row, seen in found:
            cases[where, view_of(images.truths[row])].append((row, seen))
    names = list(cases)
    chances = [_chances([seen for _, seen in cases[name]]) for name in names]
    losses = torch.ones(len(names))  # recent loss of each kind of crop: a crop with a higher loss is drawn more often
    judge = judge.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps)
    for step in track(range(steps), "training the judge"):
        chosen = torch.multinomial(losses + 0.1 * losses.mean(), boxes)
        crops: list[Tensor] = []
        answers: list[dict[str, str]] = []
        for number in chosen.tolist():
            where, _ = names[number]
            drawn = torch.multinomial(chances[number], batch_size, replacement=True).tolist()
            rows, shown = zip(*(cases[names[number]][index] for index in drawn))
            crops.append(judge.crop(augment(images.pixels(torch.tensor(rows))), where))
            answers += shown
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision() == "bf16"):
            logits = judge(torch.cat(crops).to(memory_format=torch.channels_last))
        loss = torch.zeros(len(answers))
        for name, classes in judge.config.labels.items():
            target = torch.tensor([classes.index(seen[name]) if name in seen else -100 for seen in answers])
            loss = loss + F.cross_entropy(logits[name].float(), target, reduction="none")
        optimizer.zero_grad(set_to_none=True)
        loss.mean().backward()
        optimizer.step()
        schedule.step()
        losses[chosen] = 0.8 * losses[chosen] + 0.2 * loss.detach().view(boxes, batch_size).mean(1)
        if step % 50 == 49:
            print(f"step {step + 1}  loss {losses.mean().item():.4f}", flush=True)
    judge.eval().bfloat16().save_pretrained(out)
    test(data, heldout, out)


@app.command()
def test(
    data: Annotated[Path, typer.Option(help="folder of a StoryStream data set with ground truth")],
    split: str = "loose-heldout",
    judge: Annotated[Path, typer.Option(help="folder of the weights")] = WEIGHTS,
    limit: Annotated[int | None, typer.Option(help="at most so many pictures")] = None,
) -> None:
    """Print the judge's accuracy on renders."""
    images = TruthImages(data, split, limit=limit)
    model = Judge.load(judge)
    result = score(model, images.pixels(torch.arange(len(images))), images.truths)
    for name, value in result.items():
        print(f"{name:20s} {value:.4g}")


if __name__ == "__main__":
    app()
