r"""How much stories of one opening differ: many seeds write the cast and the plan, or the first captions.

A model that always samples the same has an entropy near 0 bits ("mode collapse"). Nothing is drawn: of a model with
story states page 1 alone is written, whose state is the draw; of one without, the first captions are.

    names        share of the opening's heroes whom the cast names; a model without story states has no cast
    kind, outfit, hat, appearance
                 what the cast says of the opening's heroes; the last one is all three together. What most draws take
                 from the opening's own words was not sampled, and is left out
    newcomers    what the cast says of characters whom the opening does not name, each a draw
    plot         the plot of most lines of the plan, or of most captions after the first, as `inference.plot_classifier`
                 finds it in the words; without --data it is not known

Each is given as entropy in bits, and the greatest that so many draws could have; how many values there are; and the
share of the most frequent one. Figures of several heroes are means over them.

\b
example:
  python -m inference.diversity mini --openings tests/data/openings.jsonl --data data/theatre --seeds 100
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from inference.openings import Opening, read_openings
from inference.plot_classifier import PlotModel
from inference.plot_coherence import entropy, load_plot_model, main_plot, read_story
from inference.story_text import StoryText, words_of
from seedstory.io import write_atomic
from seedstory.pipeline import StoryPipeline
from seedstory.settings import StorySettings
from seedstory.story import Page
from seedstory.story_request import story_request

PARTS = ("kind", "outfit", "hat")
FIGURES = (*PARTS, "appearance", "newcomers", "plot")


@dataclass(frozen=True)
class Spread:
    """How draws of one thing spread.

    Attributes:
        bits: Their entropy.
        bits_at_most: The greatest that so many draws can have.
        values: How many different ones there are.
        top: The most frequent one.
        top_share: Its share of the draws.
    """

    bits: float
    bits_at_most: float
    values: int
    top: str
    top_share: float

    @classmethod
    def of(cls, draws: Sequence[str], choices: int | None = None) -> Spread | None:
        """The spread of draws, each of `choices` values if that is known; None if there are none."""
        if not draws:
            return None
        (top, count), *rest = Counter(draws).most_common()
        found = entropy(draws, len(draws) if choices is None else choices)
        return cls(*found, values=1 + len(rest), top=top, top_share=count / len(draws))


def parts_of(line: str) -> dict[str, str]:
    """Kind, outfit and hat of a line of a cast such as `fox, red coat, straw hat`; "none" where it has none."""
    said = [part.strip() for part in line.split(",")]
    return dict(zip(PARTS, [*said, *["none"] * len(PARTS)], strict=False)) | {"appearance": ", ".join(said)}


def diversity_of(opening: Opening, stories: Sequence[StoryText], plots: PlotModel | None = None) -> dict[str, Any]:
    """The figures of one opening: `names`, and a list of `Spread` as dictionaries for each of `FIGURES`.

    Args:
        opening: The opening.
        stories: What each seed wrote of it.
        plots: Finds the plots.
    """
    given = set(words_of(opening.text.lower()))
    lines: dict[str, list[str]] = {hero: [] for hero in opening.heroes}
    newcomers = []
    for story in stories:
        cast = dict(story.cast)
        for hero in opening.heroes:
            name = next((name for name in cast if set(words_of(hero)) <= set(words_of(name))), None)
            if name is not None:
                lines[hero].append(cast.pop(name))
        newcomers += [line for name, line in cast.items() if not set(words_of(name.lower())) & given]
    spreads: dict[str, list[Spread | None]] = {name: [] for name in FIGURES}
    for drawn in lines.values():
        unsaid = [part for part in PARTS if (found := _spread(drawn, part)) and not _is_said(found.top, given)]
        for part in (*unsaid, "appearance") if unsaid else ():
            spreads[part].append(_spread(drawn, part))
    spreads["newcomers"].append(Spread.of(newcomers))
    if plots is not None:
        spreads["plot"].append(Spread.of([_plot(plots, story) for story in stories], plots.plots + 1))
    states = any(story.cast or story.plan for story in stories)
    named = sum(map(len, lines.values())) / (len(stories) * len(opening.heroes)) if opening.heroes and states else None
    return {
        "id": opening.id,
        "stories": len(stories),
        "names": named,
        **{name: [asdict(found) for found in some if found] for name, some in spreads.items()},
    }


def _spread(lines: Sequence[str], part: str) -> Spread | None:
    return Spread.of([parts_of(line)[part] for line in lines])


def _is_said(value: str, given: set[str]) -> bool:
    """Whether an opening with these words says of somebody what a cast says."""
    return value != "none" and set(words_of(value.lower())) <= given


def _plot(plots: PlotModel, story: StoryText) -> str:
    if plots.lines is None or not any(story.plan):
        return main_plot(read_story(plots, story).labels[1:])
    lines, names = plots.lines, plots.names_in(story)
    return main_plot([lines.label(lines.bayes.scores(plots.runs(line, names))) for line in story.plan if line])


def draw_stories(
    pipeline: StoryPipeline,
    text: str,
    seeds: Iterable[int],
    *,
    pages: int = 10,
    captions: int = 4,
    temperature: float = StorySettings.temperature,
    on_seed: Callable[[], Any] = lambda: None,
) -> list[StoryText]:
    """What a model writes first of an opening, once for each seed, side by side.

    Args:
        pipeline: The model.
        text: The opening.
        seeds: Seeds of the stories.
        pages: Pages that the stories would have.
        captions: Captions that a model without story states writes after the first one.
        temperature: Of the words.
        on_seed: Called for each story that is done.

    Returns:
        Stories of one page with cast and plan, or of `1 + captions` pages without.
    """
    from seedstory.cache import CachePolicy
    from seedstory.generation import PageDraft, SamplingConfig, StoryEngine

    trained = pipeline.story_model.config.story_state
    settings = [StorySettings(text=text, pages=pages, seed=seed, temperature=temperature) for seed in seeds]
    opening = [Page(index=0, caption=text, state="opening")]
    engine = StoryEngine(
        pipeline.story_model,
        CachePolicy(name=settings[0].policy),
        SamplingConfig.of(settings[0]),
        decoding=pipeline.decoding,
        salience=pipeline.salience,
    )
    engine.start_batch([story_request(one, opening, trained) for one in settings])
    written: list[list[PageDraft]] = [[] for _ in settings]
    count = 1 if trained else min(pages, 1 + captions)
    for draft in islice(engine.pages(), count * len(settings)):
        written[draft.story].append(draft)
        if len(written[draft.story]) == count:
            on_seed()
    return [_as_text(drafts, pages) for drafts in written]


def _as_text(drafts: Sequence[Any], pages: int) -> StoryText:
    state = drafts[0].next_state
    captions = tuple(draft.caption for draft in drafts)
    if state is None:
        return StoryText(captions, (pages,))
    return StoryText(captions, (pages,), dict(state.cast), ("", *state.plan))


def diversity_table(figures: Sequence[dict[str, Any]]) -> Table:
    """A row for each opening, with means over its heroes."""
    table = Table(title="entropy in bits (of at most), values, share of the most frequent one")
    table.add_column("opening", no_wrap=True)
    for name in ("names", *FIGURES):
        table.add_column(name, justify="right", no_wrap=True)
    for one in figures:
        names = "" if one["names"] is None else f"{100 * one['names']:.0f} %"
        table.add_row(one["id"], names, *(_cell(one[name]) for name in FIGURES))
    return table


def _cell(spreads: Sequence[dict[str, Any]]) -> str:
    if not spreads:
        return ""
    bits, most, values, share = (
        sum(spread[key] for spread in spreads) / len(spreads) for key in ("bits", "bits_at_most", "values", "top_share")
    )
    return f"{bits:.1f} ({most:.1f}), {values:.3g}, {100 * share:.0f} %"


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__, no_args_is_help=True)
def main(
    model: Annotated[str, typer.Argument(help='"mini", or a model folder')],
    openings: Annotated[Path, typer.Option(help="JSONL of openings")],
    seeds: Annotated[int, typer.Option(help="stories of each opening", min=2)] = 100,
    pages: Annotated[int, typer.Option(help="pages that the stories would have", min=2)] = 10,
    captions: Annotated[int, typer.Option(help="captions that a model without story states writes", min=1)] = 4,
    data: Annotated[Path | None, typer.Option(help="StoryStream data set with plots, for `plot`")] = None,
    temperature: Annotated[float, typer.Option(help="of the words")] = StorySettings.temperature,
    batch_size: Annotated[int, typer.Option(help="stories written side by side", min=1)] = 25,
    int8: Annotated[bool, typer.Option("--int8", help="keep the language model in 8 bits")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
) -> None:
    started = time.perf_counter()
    try:
        asked = read_openings(openings)
        plots = None if data is None else load_plot_model(data)
        if data is not None and plots is None:
            raise ValueError(f"{data} has no train.jsonl whose stories say their plots: leave --data out, or write it")
        pipeline = StoryPipeline.from_pretrained(model, quantization="int8" if int8 else "")
        figures = []
        with Progress(transient=True) as progress:
            bar = progress.add_task("stories", total=seeds * len(asked))
            for opening in asked:
                stories: list[StoryText] = []
                for first in range(0, seeds, batch_size):
                    stories += draw_stories(
                        pipeline,
                        opening.text,
                        range(first, min(seeds, first + batch_size)),
                        pages=pages,
                        captions=captions,
                        temperature=temperature,
                        on_seed=lambda: progress.advance(bar),
                    )
                figures.append(diversity_of(opening, stories, plots))
        if json_file:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(json_file, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    console = Console()
    console.print(diversity_table(figures))
    console.print(f"{time.perf_counter() - started:.1f} s", highlight=False)


if __name__ == "__main__":
    app()
