"""Generates many stories: one for each record of a data set, from its first page.

python -m inference.generate --data data/theatre --split heldout --stories 10 --pages 10 --out stories/heldout
python -m inference.generate --data data/theatre --stories 60 --batch-size 8 --int8 --out stories/heldout
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress

from seedstory.export.html import write_html
from seedstory.pipeline import StoryPipeline
from seedstory.settings import StorySettings
from seedstory.story import StoryFolder
from seedstory.storystream import read_jsonl


def main(
    data: Annotated[Path, typer.Option(help="folder of a StoryStream data set")],
    out: Annotated[Path, typer.Option(help="folder for the story folders")],
    split: Annotated[str, typer.Option(help="name of its JSONL without the ending")] = "heldout",
    stories: Annotated[int, typer.Option(help="how many stories")] = 10,
    pages: Annotated[int, typer.Option(help="pages of each, the opening included (0: as many as the record has)")] = 10,
    opening: Annotated[str, typer.Option(help="what is given of the first page: text, image or both")] = "text",
    scripted: Annotated[bool, typer.Option(help="give all captions and only draw")] = False,
    policy: Annotated[str, typer.Option(help="cache policy")] = "mm_sink",
    temperature: Annotated[float, typer.Option(help="of the words; 0 takes the likeliest")] = StorySettings.temperature,
    steps: Annotated[int, typer.Option(help="de-tokenizer steps")] = 4,
    batch_size: Annotated[int, typer.Option(help="stories whose words are written together", min=1)] = 4,
    int8: Annotated[bool, typer.Option("--int8", help="keep the language model in 8 bits")] = False,
    model: str = "mini",
    seed: int = 0,
) -> None:
    """Generate stories from the openings of a data set; a stopped run resumes behind its finished stories."""
    if opening not in ("text", "image", "both"):
        raise typer.BadParameter(f"{opening!r}: choose text, image or both", param_hint="--opening")
    pipeline = StoryPipeline.from_pretrained(model, int8=int8)
    records = list(itertools.islice(read_jsonl(data / f"{split}.jsonl"), stories))
    asked: list[dict[str, Any]] = [
        {
            "text": record.captions[0] if opening != "image" or scripted else None,
            "image": data / record.images[0] if opening != "text" else None,
            "pages": len(record.captions) if scripted or not pages else pages,
            "captions": record.captions[1:] if scripted else None,
            "seed": seed + number,
            "title": record.title or None,
            "policy": policy,
            "temperature": temperature,
            "num_inference_steps": steps,
            "out": out / record.id,
            "overwrite": True,
        }
        for number, record in enumerate(records)
        if not (out / record.id / "index.html").is_file()
    ]
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), transient=True) as progress:
        bar = progress.add_task("pages", total=2 * sum(story["pages"] for story in asked))
        for first in range(0, len(asked), batch_size):
            group = asked[first : first + batch_size]
            for _ in pipeline.write_batch(group):
                progress.advance(bar)
            for story in group:
                for _ in pipeline.resume(story["out"]):
                    progress.advance(bar)
                write_html(StoryFolder.open(story["out"]), story["out"] / "index.html")


if __name__ == "__main__":
    typer.run(main)
