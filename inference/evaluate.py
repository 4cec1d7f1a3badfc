"""Score a checkpoint, or a folder of stories: characters, places, pictures, words, consistency and speed.

A checkpoint (mini, or a model folder) generates stories of a data set that it was not trained on. By default all
captions are given and it draws, so what each page should show is known exactly. With --free it writes on from the
first caption alone; figures that need ground truth are left out, and the words are held against the plots of the data
set's training split (`inference/plot_coherence.py`), where it has any. Existing stories are scored as they are; if
data_tools.paper_theatre annotate has written truth.json beside story.json, characters and places are judged too.

\b
examples:
  # a checkpoint, on the captions of 20 held-out stories
  python -m inference.evaluate mini --data data/theatre --stories 20 --pages 10 --json scores.json
  # far beyond the pages of training, with another cache policy: data/theatre/long-heldout.jsonl
  python -m inference.evaluate mini --stories 4 --pages 50 --policy sink
  # generated freely and kept; then read, and scored once more with what the words say
  python -m inference.evaluate mini --free --out stories/heldout
  python -m data_tools.paper_theatre annotate stories/heldout/*/
  python -m inference.evaluate mini --free --out stories/heldout
  # your own stories, or one of them
  python -m inference.evaluate stories

Page 1 is given and not scored. What the figures mean, and what --json writes: inference/scorecard.py.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers.utils import logging

from inference.image_quality import (
    CONSISTENCY_FEATURES,
    FRECHET_FEATURES,
    RETRIEVAL_FEATURES,
    character_appearances,
    consistency,
    frechet_distance,
    image_appearances,
    retrieval,
    tower_features,
)
from inference.judge import WEIGHTS, Judge
from inference.judge_metrics import judge_renders, judge_stories
from inference.plot_coherence import plot_coherence
from inference.rollout import RolloutFolder, RolloutOptions, choose_records, generate_stories
from inference.samples import EvalSample, find_story_folders, sample_from_folder, sample_from_record
from inference.scorecard import print_scores
from inference.story_text import text_from_folder
from inference.text_quality import base_scores, perplexity, story_scores, variety
from inference.workers import (
    AddressOption,
    EngineOption,
    LocalWorker,
    RayWorkers,
    Workers,
    WorkersOption,
)
from seedstory.generation import GivenPage
from seedstory.model_folder import find_model
from seedstory.modeling.base_lm import model_identity
from seedstory.pipeline import StoryPipeline
from seedstory.ray_cluster import check_engine
from seedstory.settings import POLICIES, StorySettings
from seedstory.storystream import StoryRecord

DATA = Path("data/theatre")


def evaluate(
    what: str,
    rollout: RolloutOptions,
    *,
    data: Path | None = None,
    split: str = "heldout",
    stories: int | None = None,
    pages: int | None = None,
    out: Path | None = None,
    model: str | None = None,
    judge: Path = WEIGHTS,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """The scores of a model or of stories, as `inference/scorecard.py` describes them.

    Args:
        what: "mini", a model folder, a story folder or a folder of these.
        rollout: How a model generates, and by which policy words are scored.
        data: The data set; of stories that are there, true pictures to compare with.
        split: Name of its JSONL without the ending.
        stories: How many; by default 20 of a model, all that are there.
        pages: Pages of each story that is there; by default all.
        out: Where generated stories are kept.
        model: By whose features and probabilities stories that are there are scored; by default the mini.
        judge: Folder of the judge's weights.
        engine: Where a model generates: "local", or "ray", by workers of a Ray cluster; scored is here.
        workers: How many workers of Ray, see `inference.workers.RayWorkers`.
        address: Of the Ray cluster.

    Raises:
        ValueError: There is no such model, data set, split or story, or a setting is out of range.
    """
    if rollout.policy not in POLICIES:
        raise ValueError(f"unknown policy {rollout.policy!r}: choose one of {', '.join(POLICIES)}")
    if min(rollout.pages, pages or 2) < 2:
        raise ValueError("--pages must be 2 or more: the first page is given and not scored")
    if not (judge / "config.json").is_file():
        raise ValueError(f"{judge} holds no judge: train one with python -m inference.judge train --out {judge}")
    check_engine(engine, workers, address)
    is_model = what == "mini" or (Path(what) / "model_index.json").is_file()
    if is_model and model is not None:
        raise ValueError(f"--model is for stories that are there: {what} is scored by its own features")
    if not is_model and engine != "local":
        raise ValueError(f"--engine is for a model: the stories in {what} are generated already")
    if not is_model and (rollout.free or out is not None):
        raise ValueError(f"--free and --out are for a model: the stories in {what} are generated already")
    if is_model:
        data, stories = data or DATA, stories or 20
    model = what if is_model else model or "mini"
    folders = [] if is_model else find_story_folders(Path(what), stories)
    records: list[StoryRecord] = []
    if data is not None:
        split, records = choose_records(data, split, stories or len(folders), rollout.pages)
    folder = find_model(model)
    logging.disable_progress_bar()
    seconds = coherence = None
    with ExitStack() as stack:
        if is_model:
            home = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            # Refuses a folder of something else before anything is loaded.
            generated = RolloutFolder(home, rollout, model_identity(folder).fingerprint)
            if engine == "ray":  # as long as this process has no model in memory
                with RayWorkers(model, workers=workers, address=address) as makers:
                    seconds = _generate(makers, records, generated)
        pipeline, looker = StoryPipeline.from_pretrained(model), Judge.load(judge)
        side, fit = pipeline.vision_tower.config.image_size, pipeline.vision_tower.image_fit
        true: list[EvalSample] = []
        if data is not None:
            true = [sample_from_record(data, record, rollout.pages, side, fit) for record in records]
        if is_model:
            if engine == "local":
                seconds = _generate(LocalWorker(pipeline), records, generated)
            truths = [None if rollout.free else sample.truths for sample in true]
            samples = [
                sample_from_folder(home / record.id, rollout.pages, side, known, fit)
                for record, known in zip(records, truths, strict=True)
            ]
            if rollout.free and data is not None:
                texts = [text_from_folder(home / record.id, rollout.pages) for record in records]
                coherence = plot_coherence(texts, data, split)
        else:
            samples = [sample_from_folder(folder, pages, side, fit=fit) for folder in folders]
    drawn = [sample for sample in samples if sample is not None]
    if not any(len(sample.captions) > 1 for sample in drawn):
        raise ValueError(f"the stories in {what} have no drawn page after the first: draw them with seedstory resume")
    figures = score_samples(pipeline, looker, drawn, true, rollout, retold=is_model)
    return {
        "scored": "checkpoint" if is_model else "stories",
        "protocol": ("free" if rollout.free else "captions given") if is_model else "as they are",
        "model": model,
        "fingerprint": pipeline.identity.fingerprint,
        "weights": pipeline.identity.files,
        "policy": rollout.policy,
        "split": split if data is not None else None,
        "seed": rollout.seed if is_model else None,
        "stories": len(drawn),
        "pages": sum(len(sample.captions) - 1 for sample in drawn),
        **figures,
        "plot_coherence": coherence,
        "seconds_per_page": seconds,
        "settings": {
            "data": None if data is None else str(data),
            "pages": rollout.pages if is_model else pages,
            "steps": rollout.steps if is_model else None,
            "temperature": StorySettings.temperature if rollout.free else None,
            "batch_size": rollout.batch_size,
            "judge": "shipped" if judge == WEIGHTS else str(judge),
        },
    }


def score_samples(
    pipeline: StoryPipeline,
    judge: Judge,
    samples: list[EvalSample],
    true: list[EvalSample],
    rollout: RolloutOptions,
    *,
    retold: bool,
) -> dict[str, Any]:
    """All figures of stories, but for what they took.

    Args:
        pipeline: Its language model finds words more or less probable, its vision tower gives features.
        judge: Looks at the pictures.
        samples: The stories.
        true: Those of the data set; empty if there is nothing to compare with.
        rollout: Whether their words are the model's own, and the policy by which words are scored.
        retold: Whether `samples` are `true`, generated by this model.
    """
    seen = [tower_features(pipeline.vision_tower, sample.pixels) for sample in samples]
    real = [tower_features(pipeline.vision_tower, sample.pixels) for sample in true]
    words, regressed = _score_words(pipeline, samples, true, real, rollout, retold)
    figures, errors = judge_stories(judge, [(sample.pixels, sample.truths) for sample in samples])
    after = [features[1:] for features in seen]
    figures["text_image_agreement"]["retrieval"] = {
        "features": RETRIEVAL_FEATURES,
        **retrieval([features[1:] for features in regressed], after),
    }
    figures |= judge_renders(judge, [(sample.pixels, sample.truths) for sample in true])
    figures |= words | _consistency(samples, true, seen, real, dict(judge.config.slots))
    figures["frechet_distance"] = {
        "features": FRECHET_FEATURES,
        "value": frechet_distance(_pooled(seen), _pooled(real)) if true else None,
        "pictures": len(_pooled(seen)),
        "true_pictures": len(_pooled(real)) if true else 0,
    }
    figures["feature_cosine"] = None
    if retold and not rollout.free:
        pairs = zip(regressed, real, strict=True)
        alike = [torch.cosine_similarity(own[1:], other[1:], dim=-1).flatten() for own, other in pairs]
        figures["feature_cosine"] = torch.cat(alike).mean().item()
    return figures | {"errors": errors | words["errors"]}


def _score_words(
    pipeline: StoryPipeline,
    samples: list[EvalSample],
    true: list[EvalSample],
    real: list[Tensor],
    rollout: RolloutOptions,
    retold: bool,
) -> tuple[dict[str, Any], list[Tensor]]:
    """Figures of the words, and the features that the model regresses from the captions of each story."""
    read, own = (true, samples if rollout.free else []) if retold else (samples, [])
    images: Sequence[Iterable[Any]] = real if retold else [[None] * len(sample.captions) for sample in samples]
    stories = [
        [GivenPage(*page) for page in zip(sample.captions, given, strict=True)]
        for sample, given in zip(read, images, strict=True)
    ]
    plain = [sample.captions for sample in (*read, *own)]
    with _progress("reading", sum(map(len, stories)) + len(plain)) as step:
        lengths = [sample.length for sample in read]
        scores, regressed = story_scores(
            pipeline.story_model, stories, lengths, rollout.policy, rollout.batch_size, step
        )
        base = base_scores(pipeline.story_model, plain, step)
    measured = {
        "perplexity": perplexity(scores),
        "base_perplexity": perplexity(base[: len(read)]),
        "free_base_perplexity": perplexity(base[len(read) :]),
    }
    figures: dict[str, Any] = {name: value for name, (value, _) in measured.items()}
    figures["caption_tokens"] = sum(tokens for story in scores for _, tokens in story[1:])
    figures |= variety([sample.captions for sample in samples])
    figures["data_text"] = variety([sample.captions for sample in true]) if own else None
    figures["errors"] = {name: error for name, (_, error) in measured.items()}
    if retold:
        regressed = [sample.regressed for sample in samples if sample.regressed is not None]
    return figures, regressed


def _consistency(
    samples: list[EvalSample],
    true: list[EvalSample],
    seen: list[Tensor],
    real: list[Tensor],
    slots: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """Of characters where it is known who stands where, else of whole pictures."""
    kind = "characters"
    appearances = character_appearances(seen, [sample.truths for sample in samples], slots)
    real_appearances = character_appearances(real, [sample.truths for sample in true], slots)
    if not appearances:
        kind, appearances, real_appearances = "pictures", image_appearances(seen), image_appearances(real)
    figures = {"of": kind, "features": CONSISTENCY_FEATURES[kind], **consistency(appearances)}
    return {"consistency": figures | {"true_pictures": consistency(real_appearances) if true else None}}


def _generate(workers: Workers, records: Sequence[StoryRecord], generated: RolloutFolder) -> float:
    with _progress("generating", 2 * len(records) * generated.rollout.pages) as step:
        return generate_stories(workers, records, generated, step)


def _pooled(features: list[Tensor]) -> Tensor:
    """Mean token of every picture after the first, `[N, D]`."""
    return torch.cat([pages[1:].mean(1) for pages in features])


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[..., None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(name, total=total)
        yield lambda pages=1: bars.advance(bar, pages)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__, no_args_is_help=True)
def main(
    what: Annotated[str, typer.Argument(help="mini, a model folder, a story folder, or a folder of story folders")],
    data: Annotated[
        Path | None,
        typer.Option(help=f"StoryStream data set; for a model {DATA}; with stories, true pictures to compare with"),
    ] = None,
    split: Annotated[str, typer.Option(help="name of its JSONL without the ending")] = "heldout",
    stories: Annotated[int | None, typer.Option(help="how many; by default 20 for a model, else all", min=1)] = None,
    pages: Annotated[
        int | None,
        typer.Option(help="pages of each, with the first; by default 10 for a model, else all; long ones: long-SPLIT"),
    ] = None,
    policy: Annotated[str, typer.Option(help=f"cache policy: {', '.join(POLICIES)}")] = RolloutOptions.policy,
    free: Annotated[
        bool, typer.Option("--free", help="write on from the first caption; no other caption is given")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="keep what a model generates in this folder; a stopped run resumes there")
    ] = None,
    seed: Annotated[int, typer.Option(help="of words and pictures", min=0)] = RolloutOptions.seed,
    steps: Annotated[
        int | None, typer.Option(help="de-tokenizer steps; by default those of its scheduler", min=1)
    ] = RolloutOptions.steps,
    batch_size: Annotated[int, typer.Option(help="stories written together", min=1)] = RolloutOptions.batch_size,
    model: Annotated[
        str | None, typer.Option(help="by whose features and probabilities stories are scored; by default mini")
    ] = None,
    judge: Annotated[
        Path, typer.Option(help="folder of the judge's weights", show_default="the shipped one")
    ] = WEIGHTS,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    address: AddressOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
) -> None:
    try:
        generated = RolloutOptions(
            pages=RolloutOptions.pages if pages is None else pages,
            free=free,
            policy=policy,
            seed=seed,
            steps=steps,
            batch_size=batch_size,
        )
        scores = evaluate(
            what,
            generated,
            data=data,
            split=split,
            stories=stories,
            pages=pages,
            out=out,
            model=model,
            judge=judge,
            engine=engine,
            workers=workers,
            address=address,
        )
        if json_file:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    print_scores(scores, Console())


if __name__ == "__main__":
    app()
