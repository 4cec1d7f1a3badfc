"""Generates many stories: one for each record of a data set, from its first page, or one for each opening of a file.

python -m inference.generate --data data/theatre --split heldout --stories 10 --pages 10 --out stories/heldout
python -m inference.generate --data data/theatre --stories 60 --batch-size 8 --int8 --out stories/heldout
python -m inference.generate --openings tests/data/openings.jsonl --out stories/openings

  # by two workers of Ray; several machines: docs/guides/many_stories.md
  python -m inference.generate --data data/theatre --stories 60 --engine ray --workers 2 --out stories/heldout

Stories of `--openings` also come on one page, OUT/index.html, to be read aloud.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress

from inference.openings import read_openings, write_contact_page
from inference.story_task import StoryTask, is_finished
from inference.workers import (
    AddressOption,
    EngineOption,
    LocalWorker,
    RayWorkers,
    Workers,
    WorkersOption,
)
from seedstory.pipeline import StoryPipeline
from seedstory.ray_cluster import check_engine
from seedstory.settings import StorySettings
from seedstory.storystream import StoryRecord, read_jsonl


def main(
    data: Annotated[Path | None, typer.Option(help="folder of a StoryStream data set")] = None,
    out: Annotated[Path, typer.Option(help="folder for the story folders")] = Path("stories/generated"),
    split: Annotated[str, typer.Option(help="name of its JSONL without the ending")] = "heldout",
    stories: Annotated[int, typer.Option(help="how many stories")] = 10,
    pages: Annotated[int, typer.Option(help="pages of each, the opening included (0: as many as the record has)")] = 10,
    opening: Annotated[str, typer.Option(help="what is given of the first page: text, image or both")] = "text",
    scripted: Annotated[bool, typer.Option(help="give all captions and only draw")] = False,
    policy: Annotated[str, typer.Option(help="cache policy")] = "mm_sink",
    temperature: Annotated[float, typer.Option(help="of the words; 0 takes the likeliest")] = StorySettings.temperature,
    steps: Annotated[int | None, typer.Option(help="de-tokenizer steps; by default those of its scheduler")] = None,
    batch_size: Annotated[int, typer.Option(help="stories whose words are written together", min=1)] = 4,
    int8: Annotated[bool, typer.Option("--int8", help="keep the language model in 8 bits")] = False,
    model: Annotated[str, typer.Option(help="mini, a model folder or a Hub id")] = "mini",
    seed: Annotated[int, typer.Option(help="of the first story; each later one has the next")] = 0,
    openings: Annotated[Path | None, typer.Option(help="JSONL of openings, in place of a data set")] = None,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    address: AddressOption = None,
) -> None:
    """Generate stories from the openings of a data set; a stopped run resumes behind its finished stories."""
    if opening not in ("text", "image", "both"):
        raise typer.BadParameter(f"{opening!r}: choose text, image or both", param_hint="--opening")
    try:
        check_engine(engine, workers, address)
        records = _records(data, split, openings, stories, text_alone=opening == "text" and not scripted)
        makers: Workers = (
            LocalWorker(StoryPipeline.from_pretrained(model, quantization="int8" if int8 else ""))
            if engine == "local"
            else RayWorkers(model, int8=int8, workers=workers, address=address)
        )
        asked: list[dict[str, Any]] = [
            {
                "text": record.captions[0] if opening != "image" or scripted else None,
                "image": (data / record.images[0]).resolve() if data and opening != "text" else None,
                "pages": len(record.captions) if scripted or not pages else pages,
                "captions": record.captions[1:] if scripted else None,
                "seed": seed + number,
                "title": record.title or None,
                "policy": policy,
                "temperature": temperature,
                "num_inference_steps": steps,
                "out": out.resolve() / record.id,
                "overwrite": True,
            }
            for number, record in enumerate(records)
        ]
        with makers as ready:
            faults = _make(ready, asked, batch_size)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if openings:
        made = [out / record.id for record in records if is_finished(out / record.id)]
        write_contact_page(made, out / "index.html")
    if faults:
        typer.echo(f"error: {len(faults)} of {len(records)} stories could not be made; the others are there", err=True)
        raise typer.Exit(1)


def _make(makers: Workers, asked: list[dict[str, Any]], batch_size: int) -> list[str]:
    """Makes the stories that are not finished; returns why some could not be made, and says so at once."""
    groups = [StoryTask(tuple(asked[first : first + batch_size])) for first in range(0, len(asked), batch_size)]
    tasks, faults = [task for task in groups if not all(map(is_finished, task.folders))], []
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), transient=True) as progress:
        bar = progress.add_task("pages", total=sum(task.pages for task in tasks))
        for outcome in makers.run(tasks, lambda pages: progress.advance(bar, pages)):
            if outcome.fault:
                faults.append(outcome.line)
                typer.echo(f"error: {outcome.line}", err=True)
    return faults


def _records(
    data: Path | None, split: str, openings: Path | None, stories: int, *, text_alone: bool
) -> list[StoryRecord]:
    """The records whose first pages open the stories.

    Raises:
        ValueError: There is not one source of openings, or it holds none that can be used so.
    """
    if (data is None) == (openings is None):
        raise ValueError("give --data or --openings, one of them")
    if openings is None:
        assert data is not None, "one of them is given"
        return list(itertools.islice(read_jsonl(data / f"{split}.jsonl"), stories))
    if not text_alone:
        raise ValueError("--openings are words alone: leave --opening and --scripted out")
    return [opening.as_record() for opening in read_openings(openings)[:stories]]


if __name__ == "__main__":
    typer.run(main)
