"""Judge pictures: of told stories, or of a data set rebuilt from its own visual tokens.

python -m inference.evaluate told stories/heldout
python -m inference.evaluate rebuilt --data data/theatre --split loose-heldout
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from inference.judge import WEIGHTS, Judge, score
from inference.pictures import TruthPictures
from seedstory import StoryPipeline

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)
JudgeFolder = Annotated[Path, typer.Option(help="folder of the judge's weights")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")]


def show(title: str, columns: dict[str, dict[str, float]], json_file: Path | None) -> None:
    """Print one column of figures per key; write them as JSON if asked."""
    table = Table(title=title)
    table.add_column("right")
    for name in columns:
        table.add_column(name, justify="right")
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    for row in rows:
        cells = [column.get(row) for column in columns.values()]
        table.add_row(row, *("" if value is None else f"{value:.4g}" for value in cells))
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps(columns, indent=1) + "\n")


@app.command()
def told(
    folder: Annotated[Path, typer.Argument(help="folder of story folders, each with truth.json")],
    judge: JudgeFolder = WEIGHTS,
    json_file: JsonFile = None,
) -> None:
    """Judge told stories against their own words (see data_tools.paper_theatre.annotate), by page range."""
    classifier = Judge.load(judge)
    by_range: dict[str, tuple[list[Tensor], list[dict]]] = defaultdict(lambda: ([], []))
    unread = 0
    for story in sorted(folder.glob("*/truth.json")):
        pages = json.loads((story.parent / "story.json").read_text("utf-8"))["pages"]
        read = json.loads(story.read_text("utf-8"))
        if [page["caption"] for page in pages] != [page["caption"] for page in read]:
            raise typer.BadParameter(f"{story} is of another telling: run data_tools.paper_theatre.annotate again")
        for number, (page, truth) in enumerate(zip(pages, (page["scene"] for page in read), strict=True), 1):
            if truth is None or page["picture"] is None:
                unread += 1
                continue
            picture = np.array(Image.open(story.parent / page["picture"]).convert("RGB"))
            pixels = torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1
            spans = {
                "1": number == 1,
                "2-10": 2 <= number <= 10,
                "11-25": 11 <= number <= 25,
                "26-50": 26 <= number <= 50,
            }
            for span in ("all", *(name for name, inside in spans.items() if inside)):
                by_range[span][0].append(pixels)
                by_range[span][1].append(truth)
    if not by_range:
        raise typer.BadParameter(
            f"{folder} holds no page to judge: run data_tools.paper_theatre.annotate on its stories"
        )
    columns = {
        span: score(classifier, torch.stack(pixels), truths) | {"pages": len(truths)}
        for span, (pixels, truths) in by_range.items()
    }
    columns["all"]["pages not judged"] = unread
    show(f"pages of {folder}", columns, json_file)


@app.command()
@torch.inference_mode()
def rebuilt(
    data: Annotated[Path, typer.Option(help="folder of a StoryStream data set with ground truth")],
    split: str = "heldout",
    limit: Annotated[int, typer.Option(help="at most so many pictures")] = 256,
    steps: Annotated[int, typer.Option(help="de-tokenizer steps")] = 4,
    model: str = "mini",
    judge: JudgeFolder = WEIGHTS,
    json_file: JsonFile = None,
) -> None:
    """Judge renders, their autoencoder reconstructions, and pictures rebuilt from their visual tokens."""
    classifier = Judge.load(judge)
    pipeline = StoryPipeline.from_pretrained(model)
    tower, detokenizer = pipeline.vision_tower, pipeline.detokenizer
    pictures = TruthPictures(data, split, limit=limit)
    renders, coded, drawn = [], [], []
    for rows in torch.arange(len(pictures)).split(32):
        pixels = pictures.pixels(rows)
        inputs = pixels.to(detokenizer.device, detokenizer.dtype)
        renders.append(pixels)
        coded.append(detokenizer.autoencoder(inputs).float().clamp(-1, 1).cpu())
        generator = torch.Generator().manual_seed(0)
        drawn.append(
            detokenizer(tower(inputs), generator, num_inference_steps=steps, output_type="pt").float().cpu() * 2 - 1
        )
    target = torch.cat(renders)
    columns = {}
    for name, parts in (("renders", renders), ("autoencoder", coded), ("visual tokens", drawn)):
        output = torch.cat(parts)
        columns[name] = score(classifier, output, pictures.truths)
        if parts is not renders:
            error = ((output - target) / 2).square().mean((1, 2, 3))
            columns[name]["PSNR (dB)"] = (-10 * torch.log10(error)).mean().item()
    show(f"{split} of {data}", columns, json_file)


if __name__ == "__main__":
    app()
