"""Describes and narrates a data set: `python -m data_tools.captioning --help`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from data_tools.captioning.answers import Usage
from data_tools.captioning.backend_settings import Backend, HuggingFaceSettings, ServerSettings
from data_tools.captioning.describing import DescribingStyle
from data_tools.captioning.narration import NarrationStyle
from data_tools.captioning.steps import Done, Job, WordSource, describe_story, narrate_story
from data_tools.command import Data, Out, Running, Seed, Temperature, Words, application, command
from data_tools.drops import Tally
from data_tools.engine import cores, run
from data_tools.folder import read_stories, story_files
from seedstory.io import remove_leftovers
from seedstory.storystream import StoryRecord, write_jsonl


@dataclass(frozen=True, kw_only=True)
class Asking(Running):
    """What both commands are asked for: which data set, and which model."""

    data: Data
    out: Out
    backend: Annotated[
        Literal["hf", "openai", "none"],
        typer.Option(help="hf: a local model folder; openai: a server; none: the words of the source."),
    ] = "none"
    model: Annotated[str, typer.Option(help="Model folder, or name of the model on the server.")] = ""
    url: Annotated[str, typer.Option(envvar="OPENAI_BASE_URL", help="Server, such as http://localhost:8000/v1.")] = ""
    key_variable: Annotated[str, typer.Option(help="Environment variable that holds the server's key.")] = (
        "OPENAI_API_KEY"
    )
    per_minute: Annotated[int, typer.Option(help="Most questions a minute, over all workers; 0 is no limit.")] = 0
    timeout: Annotated[float, typer.Option(help="Seconds for one answer of the server.")] = 120.0
    retries: Annotated[int, typer.Option(help="How often a passing fault of the server is tried again.")] = 6
    body: Annotated[str, typer.Option(help="JSON laid over each request; null takes a field out.")] = "{}"
    price: Annotated[
        tuple[float, float], typer.Option(metavar="PROMPT REPLY", help="Prices per million tokens, to sum up the cost.")
    ] = (0.0, 0.0)
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...; by default a GPU if there is one.")] = ""
    answers: Annotated[Path | None, typer.Option(help="Where answers are kept. [default: OUT/.answers]")] = None
    repairs: Annotated[int, typer.Option(help="How often an unusable reply is sent back.", min=0, max=10)] = 2

    def settings(self) -> Backend | None:
        """The model to load; None if no model is asked."""
        if self.backend == "none":
            return None
        if self.backend == "openai":
            return ServerSettings(
                url=self.url,
                model=self.model,
                key_variable=self.key_variable,
                per_minute=self.per_minute,
                timeout=self.timeout,
                retries=self.retries,
                body=self.body,
            )
        if not self.model:
            raise ValueError("--model is missing: give the folder of a vision-language model")
        threads = 0 if self.engine == "inline" else max(1, cores() // (self.workers or cores()))
        return HuggingFaceSettings(model=self.model, device=self.device, threads=threads)

    def job(self) -> Job:
        """The folders and the model, checked."""
        settings = self.settings()
        story_files(self.data)
        if self.out.resolve() == self.data.resolve():
            raise ValueError("--out is DATA itself: a data set is never changed in place, give another folder")
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out {self.out} is a file: give a folder")
        answers = self.answers or self.out / ".answers"
        return Job(data=self.data, out=self.out, answers=answers, backend=settings, repairs=self.repairs)

    def run(self, step: Callable[[StoryRecord], Done], job: Job, label: str) -> None:
        """Runs a step over every story file of the folder, and prints what became of it."""
        tally, usage = Tally(), Usage()
        stories = pages = 0

        def results(path: Path) -> Iterator[StoryRecord]:
            nonlocal usage, stories, pages
            records = (record for _, record in read_stories(path, broken))
            for done in run(step, records, engine=self.engine, workers=self.workers, label=f"{label} {path.name}"):
                usage += done.usage
                tally.add(done.drops)
                if done.record is not None:
                    stories, pages = stories + 1, pages + len(done.record)
                    yield done.record

        broken = Tally()
        if job.out.is_dir():
            remove_leftovers(job.out)
        for path in story_files(job.data):
            write_jsonl(job.out / path.name, results(path))
        (Tally.read(job.data) + broken + tally).write(job.out)
        console = Console(highlight=False)
        console.print(f"{stories} stories with {pages} pages in {job.out}")
        if job.backend is not None:
            cost = f", cost {usage.cost(*self.price):.2f}" if any(self.price) else ""
            console.print(
                f"{usage.answers} answers, {usage.asked} of them new ({usage.prompt_tokens} tokens read, "
                f"{usage.reply_tokens} written{cost}); {usage.repairs} replies sent back"
            )
        (broken + tally).show(console)


@dataclass(frozen=True, kw_only=True)
class Narrating(Asking):
    """The same for `narrate`, which asks a small local model by default."""

    backend: Annotated[
        Literal["hf", "openai", "none"],
        typer.Option(help="hf: a local model folder; openai: a server; none: the descriptions themselves."),
    ] = "hf"

    def settings(self) -> Backend | None:
        """The model to load; None if no model is asked."""
        if self.backend == "hf" and not self.model:
            return replace(self, model="smollm2-135m-instruct").settings()
        return super().settings()


@command
def describe(
    *,
    hint: Annotated[str, typer.Option(help="What holds for all images, such as who is who.")] = "",
    words: Words = (5, 120),
    side: Annotated[int, typer.Option(help="Longest side of an image as the model sees it, px.")] = 768,
    source: Annotated[WordSource, typer.Option("--from", help="With --backend none: which words to take.")] = "alt",
    again: Annotated[bool, typer.Option("--again", help="Also describe pages that have a description.")] = False,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    shared: Asking,
) -> None:
    """Say what each image shows: `pages[].description`.

    Example: python -m data_tools.captioning describe books --out described --backend hf --model models/SmolVLM-256M

    With a server: python -m data_tools.captioning describe books --out described --backend openai
    --url http://localhost:8000/v1 --model Qwen3-VL-8B --engine processes --workers 16
    """
    style = DescribingStyle(
        hint=hint, min_words=words[0], max_words=words[1], side=side, temperature=temperature, seed=seed
    )
    if shared.backend == "none" and source == "description":
        raise ValueError("--from description describes nothing: choose alt or caption, or another --backend")
    job = shared.job()
    shared.run(partial(describe_story, job=job, style=style, source=source, again=again), job, "describing")


@command
def narrate(
    *,
    source: Annotated[
        WordSource, typer.Option("--from", help="Which words of the data set say what an image shows.")
    ] = "description",
    instructions: Annotated[str, typer.Option(help='Requests, such as "Write for children of four."')] = "",
    language: Annotated[str, typer.Option(help="Language to write in, such as en, sw or pt-BR.")] = "en",
    words: Words = (5, 60),
    memory: Annotated[
        int | None, typer.Option(help="Earlier pages that the model sees; 0 is all. [default: all; small model: 2]")
    ] = None,
    lookahead: Annotated[
        int | None, typer.Option(help="Coming descriptions that the model sees. [default: 2; small model: 0]")
    ] = None,
    temperature: Temperature = 0.7,
    top_p: Annotated[float, typer.Option(help="Probability mass that words come from.")] = 0.9,
    seed: Seed = 0,
    shared: Narrating,
) -> None:
    """Narrate one continuous story over the descriptions of the images: `captions`.

    Example: python -m data_tools.captioning narrate described --out narrated

    With a server: python -m data_tools.captioning narrate described --out narrated --backend openai
    --url https://api.openai.com/v1 --model gpt-4.1-mini --per-minute 300 --price 0.40 1.60 --engine processes
    """
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
    job = shared.job()
    shared.run(partial(narrate_story, job=job, style=style, source=source), job, "narrating")


app = application(
    describe,
    narrate,
    help="Words for images: a description of each image, and a story narrated over the descriptions.",
)

if __name__ == "__main__":
    app()
