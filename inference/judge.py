"""The judge: a small classifier that says who stands where in a picture of the paper theatre.

Trained on renders only, so that it measures generated pictures independently of the models that drew them.

    python -m inference.judge train --data data/theatre
    python -m inference.judge test --data data/theatre
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from rich.progress import track
from torch import Tensor, nn

from inference.pictures import TruthPictures

ATTRIBUTES = ("species", "outfit", "hat", "pose", "expression")
NOBODY = "nobody"
WEIGHTS = Path(__file__).parent / "weights" / "judge"


class Judge(ModelMixin, ConfigMixin):
    """Classifies the character on a slot: species (or nobody), outfit, hat, pose and expression.

    Args:
        labels: attribute to its class names; species also holds "nobody".
        slots: slot name to its box [x0, y0, x1, y1] in units of the picture's side.
        width: channels of the first layer.
    """

    @register_to_config
    def __init__(self, labels: dict[str, list[str]], slots: dict[str, list[float]], width: int = 32) -> None:
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.BatchNorm2d(widths[-1]), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((5, 3)), nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({name: nn.Linear(widths[-1] * 15, len(labels[name])) for name in ATTRIBUTES})

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        """Crops [B, 3, 96, 48] in [-1, 1] to logits [B, classes] of each attribute."""
        hidden = self.trunk(crops)
        return {name: head(hidden) for name, head in self.heads.items()}

    def crop(self, pixels: Tensor, slot: str) -> Tensor:
        """Cut a slot out of pictures [B, 3, S, S] and bring it to [B, 3, 96, 48]."""
        x0, y0, x1, y1 = (round(edge * pixels.shape[-1]) for edge in self.config.slots[slot])
        return F.interpolate(pixels[..., y0:y1, x0:x1], (96, 48), mode="bilinear", antialias=True)

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS) -> Judge:
        """Load the judge in float32, ready to look; the shipped one without an argument."""
        return cls.from_pretrained(folder, torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def look(self, pixels: Tensor, slot: str) -> list[dict[str, str]]:
        """Name what stands on a slot of each picture [B, 3, S, S] in [-1, 1]."""
        logits = self(self.crop(pixels.to(self.device, self.dtype), slot))
        best = {name: values.argmax(1).tolist() for name, values in logits.items()}
        return [{name: self.config.labels[name][best[name][row]] for name in ATTRIBUTES} for row in range(len(pixels))]


def score(judge: Judge, pixels: Tensor, truths: list[dict]) -> dict[str, float]:
    """Share of the characters in `truths` that the judge finds right, attribute by attribute.

    Args:
        judge: the classifier.
        pixels: [B, 3, S, S] in [-1, 1].
        truths: ground truth of each picture, with `actors`.

    Returns:
        A share for each attribute, `species_and_outfit`, `all` (five attributes) and `characters` (the count).
    """
    names = (*ATTRIBUTES, "species_and_outfit", "all")
    hits, count = dict.fromkeys(names, 0), 0
    for slot in judge.config.slots:
        rows = [(i, actor) for i, truth in enumerate(truths) for actor in truth["actors"] if actor["slot"] == slot]
        if not rows:
            continue
        found = judge.look(pixels[[i for i, _ in rows]], slot)
        for (_, actor), seen in zip(rows, found, strict=True):
            right = {name: seen[name] == actor[name] for name in ATTRIBUTES}
            right["species_and_outfit"] = right["species"] and right["outfit"]
            right["all"] = all(right[name] for name in ATTRIBUTES)
            count += 1
            for name in names:
                hits[name] += right[name]
    return {name: hits[name] / max(count, 1) for name in names} | {"characters": count}


app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="folder of a StoryStream data set with ground truth")],
    split: str = "loose-train",
    heldout: str = "loose-heldout",
    out: Annotated[Path, typer.Option(help="folder for the weights")] = WEIGHTS,
    steps: int = 1500,
    batch_size: int = 64,
    limit: Annotated[int, typer.Option(help="at most so many pictures")] = 8000,
    seed: int = 0,
) -> None:
    """Train the judge on renders and print its accuracy on held-out renders."""
    torch.manual_seed(seed)
    pictures = TruthPictures(data, split, limit=limit)
    judge = Judge(labels=pictures.labels(ATTRIBUTES, NOBODY), slots=pictures.slots)
    judge = judge.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    showing = {slot: pictures.showing(slot) for slot in judge.config.slots}
    for _ in track(range(steps), "training the judge"):
        slot = list(judge.config.slots)[torch.randint(len(judge.config.slots), ()).item()]
        rows = showing[slot][torch.randint(len(showing[slot]), (batch_size,))]
        targets = pictures.targets(rows, slot, judge.config.labels, NOBODY)
        shift = torch.randint(-2, 3, (2,)).tolist()
        pixels = torch.roll(pictures.pixels(rows), shift, (2, 3))
        with torch.autocast("cpu", torch.bfloat16):
            logits = judge(judge.crop(pixels, slot))
        loss = sum(F.cross_entropy(logits[name].float(), targets[name], ignore_index=-100) for name in ATTRIBUTES)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    judge.eval().bfloat16().save_pretrained(out)
    test(data, heldout, out)


@app.command()
def test(
    data: Annotated[Path, typer.Option(help="folder of a StoryStream data set with ground truth")],
    split: str = "loose-heldout",
    judge: Annotated[Path, typer.Option(help="folder of the weights")] = WEIGHTS,
    limit: int = 512,
) -> None:
    """Print the judge's accuracy on renders."""
    pictures = TruthPictures(data, split, limit=limit)
    model = Judge.load(judge)
    result = score(model, pictures.pixels(torch.arange(len(pictures))), pictures.truths)
    for name, value in result.items():
        print(f"{name:20s} {value:.4g}")


if __name__ == "__main__":
    app()
