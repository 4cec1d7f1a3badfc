"""Describes and narrates a data set: `python -m data_tools.captioning --help`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_tools.captioning.answers import Usage
from data_tools.captioning.backend_settings import Backend, HuggingFaceSettings, ServerSettings
from data_tools.captioning.describing import DescribingStyle
from data_tools.captioning.narration import NarrationStyle
from data_tools.captioning.steps import Done, Job, describe_story, narrate_story
from data_tools.drops import Drop, Tally
from data_tools.engine import StepError, cores, run
from data_tools.folder import read_lines, story_files
from seedstory.io import remove_leftovers
from seedstory.storystream import StoryRecord, write_jsonl

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Words for pictures: a description of each, and a story told over the descriptions.",
)


class Backends(StrEnum):
    hf = "hf"
    openai = "openai"
    none = "none"


class Engines(StrEnum):
    inline = "inline"
    processes = "processes"
    ray = "ray"


class Sources(StrEnum):
    description = "description"
    alt = "alt"
    caption = "caption"


Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of the data set.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Folder of the new data set.", show_default=False)]
Kind = Annotated[
    Backends, typer.Option(help="hf: a local model folder; openai: a server; none: the words the source has.")
]
Model = Annotated[str, typer.Option(help="Model folder, or name of the model on the server.")]
Url = Annotated[str, typer.Option(envvar="OPENAI_BASE_URL", help="Server, such as http://localhost:8000/v1.")]
KeyVariable = Annotated[str, typer.Option(help="Environment variable that holds the server's key.")]
PerMinute = Annotated[int, typer.Option(help="Questions a minute at most, over all workers; 0 is no limit.")]
Timeout = Annotated[float, typer.Option(help="Seconds for one answer of the server.")]
Retries = Annotated[int, typer.Option(help="How often a passing fault of the server is tried again.")]
Body = Annotated[str, typer.Option(help="JSON laid over each request; null takes a field out.")]
Price = Annotated[
    tuple[float, float], typer.Option(metavar="PROMPT REPLY", help="Prices per million tokens, to sum up the cost.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...; by default a GPU if there is one.")]
AnswersFolder = Annotated[Path | None, typer.Option(help="Where answers are kept. [default: OUT/.answers]")]
Repairs = Annotated[int, typer.Option(help="How often an unusable reply is sent back.")]
Engine = Annotated[Engines, typer.Option(help="Where stories are worked on.")]
Workers = Annotated[int | None, typer.Option(help="Stories at the same time. [default: one a core]")]
Seed = Annotated[int, typer.Option(help="Same seed, same words.")]


@app.command()
def describe(
    data: Data,
    out: Out,
    backend: Kind = Backends.none,
    model: Model = "",
    url: Url = "",
    hint: Annotated[str, typer.Option(help="What holds for all pictures, such as who is who.")] = "",
    words: Annotated[tuple[int, int], typer.Option(metavar="MIN MAX", help="Length of a description.")] = (5, 120),
    side: Annotated[int, typer.Option(help="Longest side of a picture as the model sees it, px.")] = 768,
    source: Annotated[Sources, typer.Option("--from", help="With --backend none: which words to take.")] = Sources.alt,
    again: Annotated[bool, typer.Option("--again", help="Also describe pages that have a description.")] = False,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest words.")] = 0.0,
    seed: Seed = 0,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    per_minute: PerMinute = 0,
    timeout: Timeout = 120.0,
    retries: Retries = 6,
    body: Body = "{}",
    price: Price = (0.0, 0.0),
    device: Device = "",
    answers: AnswersFolder = None,
    repairs: Repairs = 2,
    engine: Engine = Engines.inline,
    workers: Workers = None,
) -> None:
    """Say what each picture shows: `pages[].description`.

    **Examples**

    python -m data_tools.captioning describe books --out described --backend hf --model models/SmolVLM-256M-Instruct

    python -m data_tools.captioning describe books --out described --backend openai --url http://localhost:8000/v1
    --model Qwen3-VL-8B --engine processes --workers 16
    """
    try:
        style = DescribingStyle(
            hint=hint, min_words=words[0], max_words=words[1], side=side, temperature=temperature, seed=seed
        )
        settings = _backend(
            backend, model, url, key_variable, per_minute, timeout, retries, body, device, engine, workers
        )
        if settings is None and source is Sources.description:
            raise ValueError("--from description describes nothing: choose alt or caption, or another --backend")
        job = _job(data, out, settings, answers, repairs)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    step = partial(describe_story, job=job, style=style, source=source.value, again=again)
    _run(step, job, engine, workers, price, "describing")


@app.command()
def narrate(
    data: Data,
    out: Out,
    backend: Kind = Backends.hf,
    model: Model = "",
    url: Url = "",
    source: Annotated[
        Sources, typer.Option("--from", help="Which words of the data set say what a picture shows.")
    ] = Sources.description,
    instructions: Annotated[str, typer.Option(help='Wishes, such as "Write for children of four."')] = "",
    language: Annotated[str, typer.Option(help="Language to write in, such as en, sw or pt-BR.")] = "en",
    words: Annotated[tuple[int, int], typer.Option(metavar="MIN MAX", help="Length of a page.")] = (5, 60),
    memory: Annotated[
        int | None, typer.Option(help="Pages told before that the model sees; 0 is all. [default: all; small model: 2]")
    ] = None,
    lookahead: Annotated[
        int | None, typer.Option(help="Coming descriptions that it sees. [default: 2; small model: 0]")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest words.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Probability mass that words come from.")] = 0.9,
    seed: Seed = 0,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    per_minute: PerMinute = 0,
    timeout: Timeout = 120.0,
    retries: Retries = 6,
    body: Body = "{}",
    price: Price = (0.0, 0.0),
    device: Device = "",
    answers: AnswersFolder = None,
    repairs: Repairs = 2,
    engine: Engine = Engines.inline,
    workers: Workers = None,
) -> None:
    """Tell one continuous story over the descriptions of the pictures: `captions`.

    **Examples**

    python -m data_tools.captioning narrate described --out told

    python -m data_tools.captioning narrate described --out told --backend openai --url https://api.openai.com/v1
    --model gpt-4.1-mini --per-minute 300 --price 0.40 1.60 --engine processes --workers 8
    """
    try:
        style = NarrationStyle(
            instructions=instructions,
            language=language,
            min_words=words[0],
            max_words=words[1],
            memory=memory,
            lookahead=lookahead,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )
        model = model or ("smollm2-135m-instruct" if backend is Backends.hf else "")
        settings = _backend(
            backend, model, url, key_variable, per_minute, timeout, retries, body, device, engine, workers
        )
        job = _job(data, out, settings, answers, repairs)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    step = partial(narrate_story, job=job, style=style, source=source.value)
    _run(step, job, engine, workers, price, "narrating")


def _backend(
    kind: Backends,
    model: str,
    url: str,
    key_variable: str,
    per_minute: int,
    timeout: float,
    retries: int,
    body: str,
    device: str,
    engine: Engines,
    workers: int | None,
) -> Backend | None:
    if kind is Backends.none:
        return None
    if kind is Backends.openai:
        return ServerSettings(
            url=url,
            model=model,
            key_variable=key_variable,
            per_minute=per_minute,
            timeout=timeout,
            retries=retries,
            body=body,
        )
    if not model:
        raise ValueError("--model is missing: give the folder of a vision-language model")
    threads = 0 if engine is Engines.inline else max(1, cores() // (workers or cores()))
    return HuggingFaceSettings(model=model, device=device, threads=threads)


def _job(data: Path, out: Path, backend: Backend | None, answers: Path | None, repairs: int) -> Job:
    story_files(data)
    if out.resolve() == data.resolve():
        raise ValueError("--out is DATA itself: a data set is never changed in place, give another folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: give a folder")
    if not 0 <= repairs <= 10:
        raise ValueError(f"--repairs must be 0 to 10, not {repairs}")
    return Job(data=data, out=out, answers=answers or out / ".answers", backend=backend, repairs=repairs)


def _run(
    step: Callable[[StoryRecord], Done],
    job: Job,
    engine: Engines,
    workers: int | None,
    price: tuple[float, float],
    label: str,
) -> None:
    """Runs a step over every story file of the folder, and says what came of it."""
    broken, dropped = [], []
    usage = Usage()
    stories = pages = 0

    def records(path: Path) -> Iterator[StoryRecord]:
        for line in read_lines(path):
            if line.record is None:
                broken.append(Drop(line.where, None, "broken-line", line.fault))
            else:
                yield line.record

    def results(path: Path) -> Iterator[StoryRecord]:
        nonlocal usage, stories, pages
        for done in run(step, records(path), engine=engine.value, workers=workers, label=f"{label} {path.name}"):
            usage += done.usage
            dropped.extend(done.drops)
            if done.record is not None:
                stories, pages = stories + 1, pages + len(done.record)
                yield done.record

    try:
        if job.out.is_dir():
            remove_leftovers(job.out)
        for path in story_files(job.data):
            write_jsonl(job.out / path.name, results(path))
        tally = Tally.read(job.data) + Tally([*broken, *dropped])
        tally.write(job.out)
    except (StepError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    console = Console()
    console.print(f"{stories} stories with {pages} pages in {job.out}", highlight=False)
    if job.backend is not None:
        cost = f", cost {usage.cost(*price):.2f}" if any(price) else ""
        console.print(
            f"{usage.answers} answers, {usage.asked} of them new ({usage.prompt_tokens} tokens read, "
            f"{usage.reply_tokens} written{cost}); {usage.repairs} replies sent back",
            highlight=False,
        )
    Tally([*broken, *dropped]).show(console)


if __name__ == "__main__":
    app()
