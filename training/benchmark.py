"""Measure a step of story training against the published scheme, side by side on the same stories and weights.

SEED-Story trains on samples that supervise one page each, padded to a fixed length, with the frozen vision tower in
the loop and scores of the whole vocabulary at every position. Here a story is packed once, so that all its pages are
learned in one pass over shared context; features are computed beforehand; and only supervised positions are scored.
Both give the same losses, which every run shows before it measures (`training/published_scheme.py` has both).

    python -m training.benchmark --shape mini
    python -m training.benchmark --shape published --json benchmark.json
    python -m training.benchmark --shape mini --ingredients --steps 7

`--shape mini` is the embedded model on a data set's own stories, samples padded to the longest one of the split.
`--shape published` has the published layout (64 visual tokens a picture, samples of 1,280 tokens, captions of 46
tokens, the mean of the published sample story) and random weights of the size of the mini's language model.

A step learns each page of a story but the first, on which the published scheme never trains. The published scheme
takes these samples at once, as its configuration does (thirty), or, in a row of its own, one after the other. Schemes
take turns step by step; figures are medians. Memory is the growth of a process of its own over one step. On a CPU that
others use too, look at the column of CPU time. No memory is shown where a scheme needs more than the machine has.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import itertools
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from seedstory.identity import ModelIdentity
from seedstory.image import image_to_tensor, to_square
from seedstory.layout import IGNORE, StoryLayout
from seedstory.modeling import StoryModel
from seedstory.modeling.base_lm import base_lm_folder
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.vision_tower import AnyTower, load_vision_tower
from seedstory.precision import fast_dtype
from training.command import run_function
from training.published_scheme import (
    ONE_BY_ONE,
    OURS,
    PUBLISHED,
    SCHEMES,
    BenchStory,
    Scheme,
    Trainer,
    compare_losses,
    page_sample,
)
from training.splits import open_split

T = TypeVar("T")

MINI = Path(__file__).resolve().parents[1] / "seedstory" / "weights" / "mini"
SHAPES = ("mini", "published")
PUBLISHED_TOKENS = 64  # visual tokens of a picture
PUBLISHED_LENGTH = 1280
PUBLISHED_PAGES = 10
PUBLISHED_CAPTION = 46  # tokens; with captions of fifty words the last samples would be longer than 1,280, and dropped
TOLERANCE = 1e-4  # of float32 losses, relative


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of a run, as on the command line; `length` 0 stands for the shape's own."""

    shape: str = "mini"
    data: str = "data/theatre"
    split: str = "train"
    model: str = str(MINI)
    length: int = 0
    stories: int = 1
    steps: int = 3
    ingredients: bool = False
    memory: bool = True
    device: str = "cpu"
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}, not {self.shape!r}")
        for name in ("stories", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def schemes(self) -> dict[str, Scheme]:
        return {
            name: scheme
            for name, scheme in SCHEMES.items()
            if self.ingredients or name in (PUBLISHED, ONE_BY_ONE, OURS)
        }


def build_model(options: Options, dtype: torch.dtype) -> StoryModel:
    """The model of a shape, LoRA apart and trainable."""
    torch.manual_seed(options.seed)
    folder = Path(options.model) / "story_model"
    if options.shape == "mini":
        return StoryModel.from_pretrained(folder, dtype=dtype, merge=False)
    config = StoryConfig.from_pretrained(folder)
    kept = ("feature_tokens", "feature_dim", "lora_rank", "lora_alpha", "lora_targets", "visual_loss_weight")
    llm = AutoModelForCausalLM.from_config(
        config.language_config(), dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
    )
    own = (folder / "tokenizer_config.json").is_file()  # otherwise the language model's, as in StoryModel
    tokenizer = AutoTokenizer.from_pretrained(
        folder if own else base_lm_folder(config.base_lm), trust_remote_code=False
    )
    settings = {name: getattr(config, name) for name in kept}
    return StoryModel.from_base(llm, tokenizer=tokenizer, num_visual_tokens=PUBLISHED_TOKENS, **settings)


def load_stories(options: Options, layout: StoryLayout, tower: AnyTower, count: int) -> list[BenchStory]:
    """Stories of the data set, picked by the seed. Features are computed here, so neither scheme waits for a disk."""
    source = open_split(options.data, options.split)
    least = PUBLISHED_PAGES if options.shape == "published" else 2
    fit = [number for number, pages in enumerate(source.pages) if pages >= least]
    if not fit:
        raise ValueError(f"no story of {options.data}, split {options.split}, has {least} pages or more")
    order = torch.randperm(len(fit), generator=torch.Generator().manual_seed(options.seed)).tolist()
    found = []
    for place in range(count):
        story = source[fit[order[place % len(fit)]]]
        captions = [layout.caption_ids(caption, first=page == 0) for page, caption in enumerate(story.record.captions)]
        if options.shape == "published":
            words = itertools.cycle([token for caption in captions for token in caption])
            captions = [list(itertools.islice(words, PUBLISHED_CAPTION)) for _ in range(PUBLISHED_PAGES)]
        size, fit_of = tower.config.image_size, tower.image_fit
        squares = [to_square(story.image(page), size, fit_of) for page in range(len(captions))]
        pixels = image_to_tensor(squares)
        with torch.no_grad():
            features = tower(pixels).to(torch.bfloat16)
        found.append(BenchStory(captions, ((pixels + 1) * 127.5).round().to(torch.uint8), features))
    return found


def sample_length(options: Options, layout: StoryLayout) -> int:
    """The fixed length of the published scheme's samples: 1,280, or the longest sample of the split."""
    if options.length or options.shape == "published":
        return options.length or PUBLISHED_LENGTH
    longest = 0
    for story in open_split(options.data, options.split):
        texts = [" " + " ".join(caption.split()) for caption in story.record.captions]
        ids = layout.tokenizer(texts, add_special_tokens=False)["input_ids"]  # a story at once
        longest = max(longest, len(page_sample(layout, ids, len(ids) - 1)["labels"]))
    return longest


def build(options: Options, length: int, dtype: torch.dtype | None = None) -> Trainer:
    """A trainer of the model of a shape, whose samples are padded to `length`; by default in the fast type."""
    dtype = fast_dtype(options.device) if dtype is None else dtype
    if options.threads:
        torch.set_num_threads(options.threads)
    disable_progress_bar()  # one for every file of weights
    tower = load_vision_tower(Path(options.model) / "vision_tower")
    return Trainer(build_model(options, dtype), tower, length, torch.device(options.device))


def check(options: Options) -> dict[str, dict[str, float]]:
    """Losses of every scheme on the first pages of one story, in float32.

    Raises:
        ValueError: They differ, so that comparing speeds would mean nothing.
    """
    trainer = build(options, 0, torch.float32)
    layout = trainer.model.layout
    (story,) = load_stories(options, layout, trainer.tower, 1)
    story = first_pages(story, 3)
    trainer.length = len(page_sample(layout, story.caption_ids, 2)["labels"]) + 9  # padding is part of the comparison
    with torch.no_grad():
        pixels = story.pixels.to(trainer.device).float() / 127.5 - 1
        story.features = trainer.tower(pixels).cpu()  # not rounded, as the tower in the loop has them
    losses = compare_losses(trainer, [story])
    for name, values in losses.items():
        for kind, value in values.items():
            expected = losses[OURS][kind]
            if not abs(value - expected) <= TOLERANCE * abs(expected):
                raise ValueError(f"the {kind} loss of {name!r} is {value:.6f}, but that of {OURS!r} {expected:.6f}")
    return losses


def first_pages(story: BenchStory, count: int) -> BenchStory:
    return BenchStory(story.caption_ids[:count], story.pixels[:count], story.features[:count])


def work(trainer: Trainer, scheme: Scheme, stories: Sequence[BenchStory]) -> dict[str, float]:
    """What a scheme processes for each page that it supervises."""
    batches = trainer.batches(scheme, stories)
    pages = sum(int(batch.is_target.sum()) for batch in batches)
    tokens = sum(batch.labels.numel() for batch in batches)
    scored = sum(int((batch.labels != IGNORE).sum()) for batch in batches) if scheme.gathered else tokens
    images = 0 if scheme.cached else sum(len(batch.rows) for batch in batches)
    return {"tokens": tokens / pages, "scored": scored / pages, "pictures": images / pages}


def clocks(device: torch.device) -> tuple[float, float]:
    """Seconds of the wall clock, after all work that was given to the device, and of this process's CPU time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter(), time.process_time()


def peak_memory(options: Options, length: int, scheme: Scheme) -> float | None:
    """MB that training needs beyond the model, in a process that has done nothing else. Linux or CUDA only."""
    trainer = build(options, length)
    stories = load_stories(options, trainer.model.layout, trainer.tower, options.stories)
    gc.collect()
    clear = Path("/proc/self/clear_refs")
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
        before = torch.cuda.memory_allocated(trainer.device)
    elif clear.exists():
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
        clear.write_text("5")  # begin a new peak
        before = resident("VmRSS")
    else:
        return None
    trainer.step(scheme, [first_pages(stories[0], 2)])  # from then on the optimizer has its moments
    trainer.step(scheme, stories)
    peak = torch.cuda.max_memory_allocated(trainer.device) if trainer.device.type == "cuda" else resident("VmHWM")
    return (peak - before) / 1e6


def in_own_process(function: Callable[..., T], *args: Any) -> T | None:
    """What a function returns in a fresh process; None if that was killed, as systems do when memory runs out."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool:
            return None


def resident(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) * 1024


def measure(options: Options) -> dict[str, Any]:
    """All figures of a run."""
    trainer = build(options, 0)
    layout, device = trainer.model.layout, trainer.device
    trainer.length = length = sample_length(options, layout)
    result: dict[str, Any] = {
        "options": dataclasses.asdict(options),
        "identity": ModelIdentity.of_folders(Path(options.model), None, name=options.model).to_dict(),
        "sample_length": length,
        "machine": {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "load_average": [round(load, 1) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        },
        "losses": check(options),
    }
    schemes = options.schemes
    names = list(schemes)
    stories = load_stories(options, layout, trainer.tower, options.stories * options.steps)
    groups = [stories[start : start + options.stories] for start in range(0, len(stories), options.stories)]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    peaks: dict[str, float | None] = dict.fromkeys(names)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(names) * (1 + options.steps + options.memory))
        for name in names if options.memory else []:  # first, while this process needs little itself
            bar.update(task, description=f"memory of {name}")
            peaks[name] = in_own_process(peak_memory, options, length, schemes[name])
            bar.advance(task)
        for name in names:
            bar.update(task, description="warm-up")
            trainer.step(schemes[name], [first_pages(stories[0], 2)])
            bar.advance(task)
        for turn, group in enumerate(groups):
            for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
                bar.update(task, description=name)
                before = clocks(device)
                trainer.step(schemes[name], group)
                wall, cpu = (after - start for after, start in zip(clocks(device), before, strict=True))
                seconds[name].append((wall, cpu))
                bar.advance(task)
        amounts = {name: work(trainer, scheme, stories) for name, scheme in schemes.items()}
    pages = [sum(len(story.caption_ids) - 1 for story in group) for group in groups]
    result["pages_per_step"] = statistics.median(pages)
    result["schemes"] = {}
    for name in names:
        slower = [[b / a for a, b in zip(*turn, strict=True)] for turn in zip(seconds[name], seconds[PUBLISHED])]
        peak, other = peaks[name], peaks[PUBLISHED]
        result["schemes"][name] = {
            **{f"{what}_per_page": amount for what, amount in amounts[name].items()},
            "pages_per_s": spread([count / wall for count, (wall, _) in zip(pages, seconds[name], strict=True)]),
            "peak_memory_mb": peak,
            "ratio": {
                "tokens": amounts[PUBLISHED]["tokens"] / amounts[name]["tokens"],
                "pages_per_s": spread([wall for wall, _ in slower]),
                "pages_per_cpu_s": spread([cpu for _, cpu in slower]),
                "memory": other / peak if peak and other else None,
            },
        }
    return result


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "count": len(values)}


def print_report(result: dict[str, Any], console: Console) -> None:
    options, machine = result["options"], result["machine"]
    losses = result["losses"][OURS]
    console.print(
        f"Shape {options['shape']}, {machine['device']}, {machine['threads']} threads, load {machine['load_average']}; "
        f"{result['pages_per_step']:g} supervised pages a step; samples padded to {result['sample_length']} tokens.\n"
        f"On the same pages every scheme has the losses {losses['lm']:.5f} (captions) and {losses['visual']:.5f} "
        "(pictures), in float32."
    )
    columns = ("tokens", "scored positions", "pictures read", "pages/s", "least-most", "peak MB", "fewer tokens")
    table = Table("scheme", *columns, "faster", "in CPU time", "less memory", title="per supervised page")
    for name, figures in result["schemes"].items():
        rate, ratio, peak = figures["pages_per_s"], figures["ratio"], figures["peak_memory_mb"]
        table.add_row(
            name,
            *(f"{figures[key]:.1f}" for key in ("tokens_per_page", "scored_per_page", "pictures_per_page")),
            f"{rate['median']:.3f}",
            f"{rate['min']:.3f}-{rate['max']:.3f}",
            f"{peak:.0f}" if peak else "-",
            f"{ratio['tokens']:.2f}x",
            f"{ratio['pages_per_s']['median']:.2f}x",
            f"{ratio['pages_per_cpu_s']['median']:.2f}x",
            f"{ratio['memory']:.2f}x" if ratio["memory"] else "-",
        )
    console.print(table)


def command(
    shape: Annotated[str, typer.Option(help=" or ".join(SHAPES))] = Options.shape,
    data: Annotated[str, typer.Option(help="Folder of a data set.")] = Options.data,
    split: Annotated[str, typer.Option(help="Of the data set.")] = Options.split,
    model: Annotated[
        str, typer.Option(help="Folder with story_model/ and vision_tower/.", show_default="mini")
    ] = Options.model,
    length: Annotated[
        int, typer.Option(help="Tokens of a published sample.", show_default="the shape's own")
    ] = Options.length,
    stories: Annotated[int, typer.Option(help="Stories a step.")] = Options.stories,
    steps: Annotated[int, typer.Option(help="Steps of each scheme.")] = Options.steps,
    ingredients: Annotated[
        bool, typer.Option("--ingredients", help="Also measure what each change brings alone.")
    ] = Options.ingredients,
    memory: Annotated[bool, typer.Option(help="Measure memory too.")] = Options.memory,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Of torch (0: as many as torch chooses).")] = Options.threads,
    seed: Annotated[int, typer.Option(help="Of the stories.")] = Options.seed,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all figures to this file.")] = None,
) -> None:
    """Measure, and print a table."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    options = Options(
        shape=shape,
        data=data,
        split=split,
        model=model,
        length=length,
        stories=stories,
        steps=steps,
        ingredients=ingredients,
        memory=memory,
        device=device,
        threads=threads,
        seed=seed,
    )
    result = measure(options)
    print_report(result, Console(width=160))
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def main() -> None:
    """Command line."""
    run_function(command, __doc__)


if __name__ == "__main__":
    main()
