"""Measure the page loop: the reference's algorithm, plain Hugging Face and our decodings, in one run on one machine.

\b
python -m inference.benchmark --quick
python -m inference.benchmark --json bench.json
python -m inference.benchmark --models smollm2-135m --decoding eager,native --threads 2 --repeats 9
python -m inference.benchmark --models stories/my_model --caption-tokens 30 --pages 5

Every system writes pages of the same story with captions of the same length, greedily, batch 1, on the same weights.
The story opens with as many whole pages as the reference's window holds; the page after them is not counted. Systems
take turns story by story. Figures are medians over pages and repeats, with the least and the greatest. Each story's
figure is shown, and the file of `--json` written anew, as soon as it is there: a run that is cut off has what it has.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from inference.baselines import WINDOW_PAGES, hugging_face, reference
from inference.benchmark_report import print_report
from inference.instruments import GB, MB, Memory, bandwidth, bytes_per_step, clock, machine, spread, weight_bytes
from inference.model_shapes import SHAPES, identity_of, load, script
from seedstory.cache import CachePolicy
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine
from seedstory.generation.pages import PageDraft
from seedstory.io import write_atomic
from seedstory.modeling import StoryModel
from seedstory.settings import POLICIES

POLICIES_AT_LENGTH = tuple(name for name in ("mm_sink", "sink", "window", "dense") if name in POLICIES)
AROUND = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of a run; `None` in `pages` and `repeats` has become a number."""

    decodings: tuple[str, ...]
    pages: int
    caption_tokens: int
    repeats: int
    seed: int
    quick: bool


@dataclass(frozen=True)
class System:
    """One way to write a story.

    Attributes:
        write: Opening and number of pages → the pages after the opening.
        forwards: Decoding steps in a page's `caption_seconds`.
        page_tokens: Tokens of the page itself in its `cached_tokens`; None if these are the next page's context.
    """

    write: Callable[[Sequence[GivenPage], int], Iterator[PageDraft]]
    forwards: int
    page_tokens: int | None


@dataclass(frozen=True)
class TimedPage:
    draft: PageDraft
    seconds: float
    context_tokens: float  # mean number of tokens that a decoding step of its caption looks back at


# ---------------------------------------------------------------------------------------------------------- the systems


def baselines(model: StoryModel, options: Options) -> dict[str, System]:
    """The reference's algorithm and plain Hugging Face."""
    tokens, visual = options.caption_tokens, model.config.num_visual_tokens
    assert model.layout is not None
    label = len(model.layout.page_label_ids(1))
    return {
        "reference": System(
            lambda opening, pages: reference(model, opening, pages=pages, caption_tokens=tokens),
            forwards=label + tokens - 1,
            page_tokens=tokens + visual + 2,
        ),
        "hf": System(
            lambda opening, pages: hugging_face(model, opening, pages=pages, caption_tokens=tokens),
            forwards=tokens - 1,
            page_tokens=tokens + 1,
        ),
    }


def engine(model: StoryModel, options: Options, decoding: str, policy: CachePolicy | None = None) -> StoryEngine:
    """Our engine, writing captions of exactly `caption_tokens`: `<img>` comes after them, and not before."""
    length = options.caption_tokens

    def end_caption(page: int, caption: Sequence[int], scores: torch.Tensor) -> None:
        if len(caption) == length:
            scores[:-1] = -torch.inf

    sampling = SamplingConfig(temperature=0, min_caption_tokens=length, max_caption_tokens=length + 1)
    return StoryEngine(model, policy, sampling, decoding=decoding, logits_processor=end_caption)


def ours(model: StoryModel, options: Options, decoding: str) -> System:
    """Our engine with its default cache policy."""
    writer = engine(model, options, decoding)

    def write(opening: Sequence[GivenPage], pages: int) -> Iterator[PageDraft]:
        writer.start(opening, pages=pages, seed=options.seed)
        return islice(writer.pages(), len(opening), None)

    return System(write, forwards=options.caption_tokens, page_tokens=None)


def opening_pages(model: StoryModel, options: Options, pages: int) -> list[GivenPage]:
    """Whole pages: captions of the asked length and random features."""
    assert model.layout is not None
    numbers = torch.Generator().manual_seed(options.seed)
    shape = (model.config.feature_tokens, model.config.feature_dim)
    captions = script(model.layout, pages, options.caption_tokens)
    return [GivenPage(caption, torch.randn(shape, generator=numbers)) for caption in captions]


# ------------------------------------------------------------------------------------------------------- the LM's phase


def generate_story(
    system: System, opening: Sequence[GivenPage], options: Options, device: torch.device
) -> tuple[float, list[TimedPage]]:
    """Seconds until the first page after the opening is there, and the counted pages behind it.

    One more page follows them, so that the last one opens its successor too.
    """
    begun = clock(device)
    pages = system.write(opening, len(opening) + options.pages + 2)
    before = next(pages)
    first, timed = clock(device) - begun, []
    for _ in range(options.pages):
        start = clock(device)
        draft = next(pages)
        seconds = clock(device) - start
        held = before.cached_tokens if system.page_tokens is None else draft.cached_tokens - system.page_tokens
        timed.append(TimedPage(draft, seconds, held + options.caption_tokens / 2))
        before = draft
    return first, timed


def lm_phase(
    model: StoryModel,
    options: Options,
    advance: Callable[[str], None],
    note: Callable[[str, dict[str, Any]], None] = lambda line, so_far: None,
) -> dict[str, Any]:
    """Time all systems side by side.

    Args:
        model: The model.
        options: Settings.
        advance: Called with the name of the system that comes next.
        note: Called after every story with a line about it and all figures so far.
    """
    device, memory = model.device, Memory(model.device)
    opening = opening_pages(model, options, WINDOW_PAGES)
    known = baselines(model, options)
    names = [*known, *options.decodings]
    generated: dict[str, list[list[TimedPage]]] = {name: [] for name in names}
    refused: dict[str, str] = {}
    firsts: dict[str, float] = {}
    peaks: dict[str, int | None] = {}
    systems: dict[str, dict[str, Any] | None] = dict.fromkeys(names)
    speeds = bandwidth(device)

    def so_far(*changed: str) -> dict[str, Any]:
        """All figures; those of the systems that are named are computed anew."""
        for name in changed:
            if generated[name]:
                found = figures(model, known[name], generated[name], statistics.median(speeds), peaks[name])
                systems[name] = found | {"first_page_s": firsts[name]}
        ratios = {
            f"lm_phase_speedup_vs_{other}": {
                name: speedup(generated[other], generated[name]) if generated[other] and generated[name] else None
                for name in options.decodings
            }
            for other in ("reference", "hf")
        }
        shares = {name: figure and figure["decode_bandwidth_share"] for name, figure in systems.items()}
        return {
            "memory_bandwidth_gb_per_s": spread(speeds),
            **ratios,
            "decode_bandwidth_share": shares,
            "systems": dict(systems),
            "refused": refused,
        }

    for repeat in range(options.repeats):
        turn = repeat % len(names)
        for name in [*names[turn:], *names[:turn]]:
            advance(name)
            if name in refused:
                continue
            memory.settle()
            before = memory.used()
            if name not in known:
                try:
                    known[name] = ours(model, options, name)
                except ValueError as error:
                    refused[name] = str(error)
                    continue
            first, story = generate_story(known[name], opening, options, device)
            generated[name].append(story)
            firsts.setdefault(name, round(first, 3))
            peak = memory.peak()
            if name not in peaks:
                peaks[name] = None if peak is None or before is None else weight_bytes(model) + peak - before
            page = statistics.median(page.seconds for page in story)
            note(f"{name}, story {repeat + 1}: {page * 1e3:.1f} ms a page; the first page {first:.2f} s", so_far(name))
        speeds += bandwidth(device)
    return so_far(*names)  # the bandwidth is that of the whole run


def speedup(slow: list[list[TimedPage]], fast: list[list[TimedPage]]) -> dict[str, float]:
    """Ratio of the median page times; least and greatest are those of single repeats."""
    count = min(len(slow), len(fast))
    both = [[[page.seconds for page in pages] for pages in stories[:count]] for stories in (slow, fast)]
    repeats = [statistics.median(one) / statistics.median(other) for one, other in zip(*both, strict=True)]
    overall = [statistics.median(seconds for pages in stories for seconds in pages) for stories in both]
    return spread(repeats) | {"median": round(overall[0] / overall[1], 3)}


def figures(
    model: StoryModel, system: System, stories: list[list[TimedPage]], bandwidth_gb: float, peak: int | None
) -> dict[str, Any]:
    """What one system needs for a page and for a decoding step."""
    pages = [page for story in stories for page in story]
    weights, held = bytes_per_step(model)
    read = [weights + held * page.context_tokens for page in pages]
    rates = [system.forwards / page.draft.caption_seconds for page in pages]
    speeds = [nbytes * rate / GB for nbytes, rate in zip(read, rates, strict=True)]
    return {
        "page_ms": spread([page.seconds * 1e3 for page in pages]),
        "caption_ms": spread([page.draft.caption_seconds * 1e3 for page in pages]),
        "picture_ms": spread([page.draft.image_seconds * 1e3 for page in pages]),
        "context_ms": spread([page.draft.context_seconds * 1e3 for page in pages]),
        "decode_tokens_per_s": spread(rates),
        "weights_gb_per_step": round(weights / GB, 4),
        "keys_values_gb_per_step": round((statistics.mean(read) - weights) / GB, 4),
        "decode_gb_per_s": spread(speeds),
        "decode_bandwidth_share": round(statistics.median(speeds) / bandwidth_gb, 3),
        "peak_memory_mb": None if peak is None else round(peak / MB, 1),
        "caption_tokens": spread([page.draft.caption_tokens - 1 for page in pages]),
    }


# ------------------------------------------------------------------------------------------------------- constant cost


def page_cost_ratio(
    model: StoryModel, options: Options, decoding: str, policy: str, near: int = 20, far: int = 200
) -> dict[str, Any]:
    """Time of a page around page `far` over that of one around page `near`.

    Two stories are generated side by side, a page of one and then a page of the other, so that both see the same
    machine. Their pages before are given; the `AROUND` pages in the middle of which `near` and `far` lie are decoded.
    """
    seconds: dict[int, list[float]] = {near: [], far: []}
    stories = {}
    opening = opening_pages(model, options, far - AROUND // 2)
    for page in seconds:
        writer, given = engine(model, options, decoding, CachePolicy(name=policy)), opening[: page - AROUND // 2]
        writer.start(given, pages=len(given) + AROUND + 2, seed=options.seed)
        stories[page] = islice(writer.pages(), len(given), None)
        next(stories[page])
    for _ in range(AROUND):
        for page, story in stories.items():
            start = clock(model.device)
            next(story)
            seconds[page].append(clock(model.device) - start)
    ratios = [late / early for early, late in zip(seconds[near], seconds[far], strict=True)]
    return {
        **spread(ratios),
        "median": round(statistics.median(seconds[far]) / statistics.median(seconds[near]), 3),
        "near_ms": spread([value * 1e3 for value in seconds[near]]),
        "far_ms": spread([value * 1e3 for value in seconds[far]]),
        "decoding": decoding,
    }


def memory_growth(
    model: StoryModel, options: Options, decoding: str, near: int = 20, far: int = 1000
) -> dict[str, Any] | None:
    """Growth of the memory in use between page `near` and page `far` of one story of given captions (`mm_sink`)."""
    memory = Memory(model.device)
    opening = [GivenPage(page.caption) for page in opening_pages(model, options, AROUND)]
    writer = engine(model, options, decoding)
    memory.settle()
    writer.start([opening[page % AROUND] for page in range(far)], pages=far, seed=options.seed)
    used = [memory.used() for _ in writer.pages()]
    readings = [
        statistics.median(filter(None, used[page - AROUND : page])) if used[0] else None for page in (near, far)
    ]
    if readings[0] is None or readings[1] is None:
        return None
    early, late = readings
    return {"growth": round(late / early - 1, 5), "near_mb": round(early / MB, 1), "far_mb": round(late / MB, 1)}


def measure(
    name: str, device: torch.device, options: Options, progress: Progress, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """All figures of one model; `save` gets those that are there after every story."""
    task = progress.add_task(name, total=None)
    model = load(name, device)
    systems = 2 + len(options.decodings)
    total = systems * options.repeats + (0 if options.quick else len(POLICIES_AT_LENGTH) + 1)
    progress.update(task, total=total, completed=-1)

    def advance(what: str) -> None:
        progress.update(task, description=f"{name}: {what}", advance=1)

    def note(line: str, so_far: dict[str, Any]) -> None:
        progress.console.print(f"{name}: {line}", highlight=False, soft_wrap=True)
        save(result | so_far)

    llm = model.llm.config
    identity = identity_of(name)
    result: dict[str, Any] = {
        "identity": None if identity is None else identity.to_dict(),
        "shape": {
            "layers": llm.num_hidden_layers,
            "width": llm.hidden_size,
            "vocabulary": llm.vocab_size,
            "visual_tokens": model.config.num_visual_tokens,
            "weights_mb": round(weight_bytes(model) / MB, 1),
            "dtype": str(model.llm.dtype).removeprefix("torch."),
        },
        "page200_over_page20": None,
        "rss_growth_page20_to_1000": None,
    }
    result |= lm_phase(model, options, advance, note)
    working = [decoding for decoding in options.decodings if decoding not in result["refused"]]
    if working and not options.quick:
        ratios = result["page200_over_page20"] = {}
        for policy in POLICIES_AT_LENGTH:
            advance(f"page 200 with {policy}")
            ratios[policy] = page_cost_ratio(model, options, working[-1], policy)
            note(f"page 200 over page 20 with {policy}: {ratios[policy]['median']:.2f}", {})
        advance("a thousand pages")
        result["rss_growth_page20_to_1000"] = memory_growth(model, options, working[-1])
    progress.update(task, description=name, completed=total)
    return result


def main(
    models: Annotated[
        str | None,
        typer.Option(help=f"mini, model folders or shapes with random weights ({', '.join(SHAPES)}), with commas"),
    ] = None,
    decoding: Annotated[
        str | None, typer.Option(help="our decodings, with commas; by default all of the device")
    ] = None,
    pages: Annotated[int | None, typer.Option(min=1, help="pages counted of each story (default: 3)")] = None,
    caption_tokens: Annotated[
        int, typer.Option(min=4, help="tokens of every caption; 46 is the reference's mean")
    ] = 46,
    repeats: Annotated[int | None, typer.Option(min=1, help="stories of each system (default: 5)")] = None,
    threads: Annotated[int, typer.Option(min=0, help="threads of torch (0: as many as torch chooses)")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="mini alone, two pages, two stories, no long stories")] = False,
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    gpu = place.type == "cuda"
    names = models.split(",") if models else ["mini"] if quick else ["mini", "smollm2-135m", *["llama2-7b"] * gpu]
    options = Options(
        decodings=tuple((decoding or f"eager,static,{'compiled' if gpu else 'native'}").split(",")),
        pages=pages or (2 if quick else 3),
        caption_tokens=caption_tokens,
        repeats=repeats or (2 if quick else 5),
        seed=seed,
        quick=quick,
    )
    report: dict[str, Any] = {
        "schema": 1,
        "options": vars(options) | {"models": names},
        "machine": machine(place),
        "models": {},
    }

    def save(name: str, figures: dict[str, Any]) -> None:
        report["models"][name] = figures
        if json_file:
            write_atomic(json_file, json.dumps(report, indent=1) + "\n")

    bars = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*bars, console=Console(stderr=True)) as progress:
        for name in names:
            try:
                save(name, measure(name, place, options, progress, partial(save, name)))
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint=name) from error
    report["machine"]["load_average_after"] = machine(place)["load_average"]
    print_report(report, Console())
    if json_file:
        write_atomic(json_file, json.dumps(report, indent=1) + "\n")


main.__doc__ = __doc__


if __name__ == "__main__":
    typer.run(main)
