"""Judge what the picture networks can show: a data set's pictures, rebuilt from their own visual tokens.

No story is generated. The figures are a bound for `inference.evaluate`: a story model can hardly draw better than
from the features of the true picture. Pictures of any size become squares as the vision tower's own are made, of the
size that each network reads; PSNR is against the picture at the size that is drawn, the judge sees the data set's.

    python -m inference.reconstruction --data data/theatre --split loose-heldout
    python -m inference.reconstruction --data data/theatre --model my_model --limit 64 --json rebuilt.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from inference.judge import WEIGHTS, Judge, score
from inference.truth_images import TruthImages
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.image import image_to_tensor, resize_pixels, to_square
from seedstory.pipeline import StoryPipeline

_BATCH = 32


@torch.inference_mode()
def reconstruct(
    tower: Any, detokenizer: Detokenizer, images: TruthImages, judge: Judge, steps: int
) -> dict[str, dict[str, float]]:
    """Figures of renders, their autoencoder reconstructions, and pictures rebuilt from their visual tokens."""
    renders, coded, drawn = [], [], []
    for rows in torch.arange(len(images)).split(_BATCH):
        pictures = images.pil_images(rows)
        seen, read, render = (
            image_to_tensor([to_square(picture, size, tower.image_fit) for picture in pictures])
            for size in (tower.config.image_size, detokenizer.encoder_image_size, detokenizer.image_size)
        )
        renders.append(render)
        coded.append(detokenizer.autoencoder(read.to(detokenizer.device, detokenizer.dtype)).float().clamp(-1, 1).cpu())
        generator = torch.Generator().manual_seed(0)
        features = tower(seen.to(tower.device, tower.dtype))
        rebuilt = detokenizer(features, generator, num_inference_steps=steps, output_type="pt")
        assert isinstance(rebuilt, torch.Tensor)
        drawn.append(rebuilt.float().cpu() * 2 - 1)
    target = torch.cat(renders)
    columns = {}
    for name, parts in (("renders", renders), ("autoencoder", coded), ("visual tokens", drawn)):
        output = torch.cat(parts)
        columns[name] = score(judge, resize_pixels(output, images.images.shape[1]).clamp(-1, 1), images.truths)
        if parts is not renders:
            error = ((output - target) / 2).square().mean((1, 2, 3))
            columns[name]["PSNR (dB)"] = (-10 * torch.log10(error)).mean().item()
    return columns


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def main(
    data: Annotated[Path, typer.Option(help="folder of a StoryStream data set with ground truth")],
    split: Annotated[str, typer.Option(help="name of its JSONL without the ending")] = "heldout",
    limit: Annotated[int, typer.Option(help="at most so many pictures", min=1)] = 256,
    steps: Annotated[int, typer.Option(help="de-tokenizer steps", min=1)] = 4,
    model: Annotated[str, typer.Option(help="mini, or a model folder")] = "mini",
    judge: Annotated[
        Path, typer.Option(help="folder of the judge's weights", show_default="the shipped one")
    ] = WEIGHTS,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
) -> None:
    try:
        images, looker = TruthImages(data, split, limit=limit), Judge.load(judge)
        logging.disable_progress_bar()
        pipeline = StoryPipeline.from_pretrained(model)
        columns = reconstruct(pipeline.vision_tower, pipeline.detokenizer, images, looker, steps)
        if json_file:
            json_file.write_text(json.dumps(columns, indent=1) + "\n", "utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    table = Table(title=f"{split} of {data}")
    table.add_column("right")
    for name in columns:
        table.add_column(name, justify="right")
    for row in dict.fromkeys(row for column in columns.values() for row in column):
        cells = [column.get(row) for column in columns.values()]
        table.add_row(row, *("" if value is None else f"{value:.4g}" for value in cells))
    Console().print(table)


if __name__ == "__main__":
    app()
