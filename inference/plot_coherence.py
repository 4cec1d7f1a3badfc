r"""Do the words of generated stories keep to one plot, go on to its next beat, follow their plan, and end?

Every page is given a plot and beat, or none, by its words alone (`inference/plot_classifier.py`, fitted on the training
split of the data set). Page 1 is given: it is not scored. Pages of two chapters are no pair.

    pages_in_a_plot      share of the pages whose words belong to a beat of some plot at all
    same_plot            share of the pairs of consecutive pages that are of one plot; page 1 counts where its plot is
                         recognized
    next_beat            of these pairs in one plot: share whose second page is a beat that may come next: right after
                         the first, with optional beats skipped, or as in a short story of core beats
    ends_on_last_page    share of the chapters whose last page is the last beat of its plot
    plan_followed        of the pages with a line in the plan: share whose text fits it better than each other line of
                         the same chapter. How well a text fits a line is the page's score under the beat that the line
                         belongs to (0 where the line is of no known beat), plus the cosine of the words of both
    plan_beat            of the pages whose line is of a known beat: share that are of this very beat
    invented_names       how many names a story has that come in on page 3 or later and are in neither opening, plan nor
                         cast; where no story has a state, the third character of a true story counts, too
    broken_words         share of the words that are in neither training captions, opening, plan nor cast, and no names
    diversity            of stories with the same opening: entropy in bits of their plots, and of the looks in the cast
                         whom the opening does not name, each beside the greatest that so many draws could have

`reference` has the same figures of the true stories of the held-out split, read in the same way (without their cast and
plan where the generated stories have none), and `page_accuracy`, the share of their pages, with page 1, whose plot and
beat are recognized. What a true story falls short of 1 is the error of the measure. `errors` are standard errors over
stories.

\b
examples:
  python -m inference.plot_coherence stories --data data/theatre
  # the measure itself: true stories, their pages shuffled, and two of them mixed
  python -m inference.plot_coherence --self-test --data data/theatre
"""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from inference.plot_classifier import PlotModel, Runs
from inference.samples import find_story_folders
from inference.scorecard import coherence_table
from inference.story_text import EVENING, Label, StoryText, has_plots, text_from_folder, text_from_record, words_of
from inference.text_quality import ratio
from seedstory.storystream import read_jsonl

FIT_STORIES = 2000  # training stories at most
REFERENCE_STORIES = 200  # true stories at most
_LISTED = 40  # names and words in the lists
FIGURES = (
    "pages_in_a_plot",
    "same_plot",
    "next_beat",
    "ends_on_last_page",
    "plan_followed",
    "plan_beat",
    "invented_names",
    "broken_words",
)

Part = tuple[float, float]  # what counts, of how many


@dataclass(frozen=True)
class ReadStory:
    """What a story's words say.

    Attributes:
        story: The story.
        labels: Plot and beat of each page, None where it is of none.
        parts: Each of `FIGURES`: what counts, of how many.
        names: Its invented names.
        broken: Its broken words.
    """

    story: StoryText
    labels: tuple[Label | None, ...]
    parts: dict[str, Part]
    names: tuple[str, ...]
    broken: tuple[str, ...]


def read_story(model: PlotModel, story: StoryText) -> ReadStory:
    """Finds the plot and beat of every page of a story, and counts what `FIGURES` are made of."""
    names = model.names_in(story)
    runs = [model.runs(caption, names) for caption in story.captions]
    scores = [model.pages.bayes.scores(page) for page in runs]
    labels = tuple(map(model.pages.label, scores))
    whole = [(start, end) for start, end in story.spans if end <= len(labels)]
    pairs = [
        (before, after)
        for start, end in story.spans
        for page, (before, after) in enumerate(zip(labels[start:end], labels[start + 1 : end]), start)
        if page or before is not None
    ]
    in_one_plot = [(before, after) for before, after in pairs if _in_one_plot(before, after)]
    invented, broken = _invented_names(model, story), _broken_words(model, story)
    parts = {
        "pages_in_a_plot": (sum(label is not None for label in labels[1:]), len(labels) - 1),
        "same_plot": (len(in_one_plot), len(pairs)),
        "next_beat": (
            sum(model.follows(before, after) for before, after in in_one_plot if before and after),
            len(in_one_plot),
        ),
        "ends_on_last_page": (sum(model.is_last(labels[end - 1]) for _, end in whole), len(whole)),
        **_follow_plan(model, story, names, runs, scores, labels),
        "invented_names": (len(invented), 1),
        "broken_words": (len(broken), sum(len(words_of(caption)) for caption in story.captions[1:])),
    }
    return ReadStory(story, labels, parts, invented, broken)


def _in_one_plot(before: Label | None, after: Label | None) -> bool:
    if before is None or after is None:
        return False
    return before[0] == after[0] or after == EVENING


def _follow_plan(
    model: PlotModel,
    story: StoryText,
    names: frozenset[str],
    runs: Sequence[Runs],
    scores: Sequence[np.ndarray],
    labels: Sequence[Label | None],
) -> dict[str, Part]:
    """`plan_followed` and `plan_beat`."""
    followed, planned, right, known = 0, 0, 0, 0
    plan = story.line_of_page
    line_runs = [model.runs(line, names) for line in plan]
    beats = [model.lines.label(model.lines.bayes.scores(line)) if model.lines and line else None for line in line_runs]

    def fit(page: int, line: int) -> float:
        beat = beats[line]
        likely = 0.0 if beat is None else float(scores[page][model.pages.bayes.number[beat]])
        return likely + model.alike(runs[page], line_runs[line])

    for start, end in story.spans:
        for page in range(max(start, 1), min(end, len(labels))):
            others = [line for line in range(start, min(end, len(plan))) if plan[line] not in ("", plan[page])]
            if plan[page] and others:
                planned += 1
                followed += fit(page, page) > max(fit(page, line) for line in others)
            if beats[page] is not None:
                known += 1
                right += beats[page] == labels[page]
    return {"plan_followed": (followed, planned), "plan_beat": (right, known)}


def _given_words(story: StoryText) -> frozenset[str]:
    """All words of opening, plan and cast."""
    given = (*story.captions[:1], *story.plan, *story.cast, *story.cast.values())
    return frozenset(word for text in given for word in words_of(text))


def _invented_names(model: PlotModel, story: StoryText) -> tuple[str, ...]:
    before = _given_words(story) | {word for caption in story.captions[:2] for word in words_of(caption)}
    words = dict.fromkeys(word for caption in story.captions[2:] for word in words_of(caption))
    strange = {word for word in story.capital_inside if word.lower() not in model.words}
    return tuple(word for word in words if word not in before and (word in model.names or word in strange))


def _broken_words(model: PlotModel, story: StoryText) -> tuple[str, ...]:
    """In order, each as often as it stands there."""
    given = {word.lower() for word in _given_words(story)}
    names = model.names | story.capital_inside
    return tuple(
        word
        for caption in story.captions[1:]
        for word in words_of(caption)
        if word not in names and word.lower() not in model.words and word.lower() not in given
    )


def figures_of(read: Sequence[ReadStory]) -> dict[str, Any]:
    """Each of `FIGURES`, None where there is nothing to count; their `errors`; what was found, and where."""
    found = {name: ratio([one.parts[name] for one in read]) for name in FIGURES}
    return {
        **{name: value for name, (value, _) in found.items()},
        "errors": {name: error for name, (_, error) in found.items()},
        "names_invented": _counted(name for one in read for name in one.names),
        "words_broken": _counted(word.lower() for one in read for word in one.broken),
        "stories": len(read),
        "pages": sum(len(one.labels) - 1 for one in read),
        "pages_with_plan": int(sum(one.parts["plan_followed"][1] for one in read)),
    }


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common(_LISTED))


def page_accuracy(read: Sequence[ReadStory]) -> dict[str, float | None]:
    """Of stories whose plots and beats are known: shares of the pages on which they are recognized."""
    pairs = [pair for one in read if one.story.labels for pair in zip(one.story.labels, one.labels)]
    hits = {
        "page_accuracy": [true == found for true, found in pairs],
        "plot_accuracy": [found is not None and true[0] == found[0] for true, found in pairs],
    }
    return {name: sum(right) / len(right) if right else None for name, right in hits.items()}


def diversity(model: PlotModel, read: Sequence[ReadStory]) -> dict[str, Any] | None:
    """Entropies over stories with the same opening, means over the openings; None where no two stories share one.

    A story's plot is that of most of its pages after the first ("none" is one, too). Its looks are those of the
    characters in the cast whom the opening does not name.
    """
    groups: dict[str, list[ReadStory]] = defaultdict(list)
    for one in read:
        groups[one.story.captions[0]].append(one)
    groups = {opening: group for opening, group in groups.items() if len(group) > 1}
    if not groups:
        return None
    everyone = len({line for story in model.stories for line in story.cast.values()})
    plots = [entropy([main_plot(one.labels[1:]) for one in group], model.plots) for group in groups.values()]
    drawn = [
        [
            line
            for one in group
            for name, line in one.story.cast.items()
            if not set(words_of(name)) & set(words_of(opening))
        ]
        for opening, group in groups.items()
    ]
    cast = [entropy(lines, everyone) for lines in drawn if len(lines) > 1]
    figures: dict[str, Any] = {"openings": len(groups), "stories": sum(map(len, groups.values()))}
    for name, entropies in (("plot", plots), ("appearance", cast)):
        for key, column in (("bits", 0), ("bits_at_most", 1)):
            values = [entropy[column] for entropy in entropies]
            figures[f"{name}_{key}"] = sum(values) / len(values) if values else None
    return figures


def main_plot(labels: Sequence[Label | None]) -> str:
    """The plot of most of these pages; "none" is one, too."""
    plots = Counter("none" if label is None else label[0] for label in labels if label != EVENING)
    return plots.most_common(1)[0][0] if plots else "none"


def entropy(draws: Sequence[str], choices: int) -> tuple[float, float]:
    """Entropy of draws in bits, and the greatest that so many draws of so many choices can have."""
    shares = [count / len(draws) for count in Counter(draws).values()]
    return -sum(share * math.log2(share) for share in shares), math.log2(max(1, min(len(draws), choices)))


def load_plot_model(data: Path) -> PlotModel | None:
    """The plots of a data set's training split; None where it has none, or none that says its plots."""
    stories = list(islice(_true_stories(data, "train"), FIT_STORIES))
    stories += islice(_true_stories(data, "long-train"), FIT_STORIES // 10)
    return PlotModel(stories) if stories else None


def _true_stories(data: Path, split: str) -> Iterator[StoryText]:
    """The stories of a split that say their plots."""
    if (data / f"{split}.jsonl").is_file():
        yield from (text_from_record(record) for record in read_jsonl(data / f"{split}.jsonl") if has_plots(record))


def plot_coherence(stories: Sequence[StoryText], data: Path, split: str) -> dict[str, Any] | None:
    """The figures of generated stories and, as `reference`, those of true ones; None where no plots can be learned.

    Args:
        stories: The stories.
        data: Data set from whose training split the plots are learned.
        split: Split of the true stories.
    """
    model = load_plot_model(data)
    if model is None:
        return None
    true = list(islice(_true_stories(data, split), REFERENCE_STORIES))
    if not any(story.plan or story.cast for story in stories):
        true = [replace(story, plan=(), cast={}) for story in true]
    read = [read_story(model, story) for story in stories]
    return figures_of(read) | {
        "diversity": diversity(model, read),
        "reference": _reference(model, true) if true else None,
        "fitted_on": {"stories": len(model.stories), "plots": model.plots, "threshold": model.pages.threshold},
    }


def _reference(model: PlotModel, true: Sequence[StoryText]) -> dict[str, Any]:
    read = [read_story(model, story) for story in true]
    return figures_of(read) | page_accuracy(read)


def shuffled(stories: Sequence[StoryText], seed: int = 0) -> list[StoryText]:
    """The stories, their pages after the first in any order; labels go with their pages, and the plan stays."""
    rng = random.Random(seed)
    result = []
    for story in stories:
        order = [0, *rng.sample(range(1, len(story.captions)), len(story.captions) - 1)]
        labels = tuple(story.labels[page] for page in order) if story.labels else ()
        result.append(replace(story, captions=tuple(story.captions[page] for page in order), labels=labels))
    return result


def mixed(stories: Sequence[StoryText]) -> list[StoryText]:
    """The stories, every second page that of the next story, as far as it has one; the plan stays."""
    result = []
    for story, other in zip(stories, [*stories[1:], *stories[:1]], strict=True):
        pages = range(len(story.captions))
        takes = [other if page % 2 and page < len(other.captions) else story for page in pages]
        labels = tuple(one.labels[page] for page, one in zip(pages, takes, strict=True)) if story.labels else ()
        captions = tuple(one.captions[page] for page, one in zip(pages, takes, strict=True))
        result.append(replace(story, captions=captions, labels=labels, cast=story.cast | other.cast))
    return result


def self_test(data: Path, split: str) -> dict[str, dict[str, Any]]:
    """The figures of true stories, of the same with their pages shuffled, and of two mixed.

    Raises:
        ValueError: The data set has no plots to learn, or no such split with plots.
    """
    model = load_plot_model(data)
    if model is None:
        raise ValueError(_no_plots(data))
    true = list(islice(_true_stories(data, split), REFERENCE_STORIES))
    if not true:
        raise ValueError(f"{data} has no split {split!r} whose stories say their plots: write it with {_GENERATE}")
    changes: dict[str, Callable[[Sequence[StoryText]], list[StoryText]]] = {
        "true stories": list,
        "pages shuffled": shuffled,
        "two stories mixed": mixed,
    }
    return {name: _reference(model, change(true)) for name, change in changes.items()}


_GENERATE = "python -m data_tools.paper_theatre generate"


def _no_plots(data: Path) -> str:
    return f"{data} has no train.jsonl whose stories say their plots: write it with {_GENERATE} --stories 1000"


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__, no_args_is_help=True)
def main(
    folder: Annotated[Path | None, typer.Argument(help="a story folder, or a folder of story folders")] = None,
    data: Annotated[Path, typer.Option(help="StoryStream data set with plots")] = Path("data/theatre"),
    split: Annotated[str, typer.Option(help="name of the JSONL of true stories, without the ending")] = "heldout",
    stories: Annotated[int | None, typer.Option(help="how many; by default all", min=1)] = None,
    test: Annotated[bool, typer.Option("--self-test", help="measure the measure, on true stories")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
) -> None:
    started = time.perf_counter()
    try:
        if test == (folder is not None):
            raise ValueError("give a folder of stories, or --self-test")
        figures: dict[str, Any]
        if folder is None:
            figures = self_test(data, split)
            columns = figures
        else:
            texts = [text_from_folder(path) for path in find_story_folders(folder, stories)]
            found = plot_coherence([text for text in texts if len(text.captions) > 1], data, split)
            if found is None:
                raise ValueError(_no_plots(data))
            figures = found
            columns = {"stories": figures} | ({"true stories": figures["reference"]} if figures["reference"] else {})
        if json_file:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    console = Console()
    console.print(coherence_table(columns))
    for name, column in columns.items():
        for key in ("names_invented", "words_broken"):
            if column[key]:
                listed = ", ".join(f"{word} ({count})" for word, count in column[key].items())
                console.print(f"{name}, {key.replace('_', ' ')}: {listed}", highlight=False, soft_wrap=True)
    console.print(f"{time.perf_counter() - started:.1f} s", highlight=False)


if __name__ == "__main__":
    app()
