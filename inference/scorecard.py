"""The figures of `inference.evaluate`: what they mean, and how they are printed.

What `--json` writes, one flat object. *By range* is an object with a value for the pages 2-10, 11-25 and 26-50 (and
51-, where there are any); null is what was not or could not be measured. Page 1 is given and does not count, but
for the n-grams and the consistency of whole stories.

    scored, protocol, model, fingerprint, weights, policy, split, seed, settings        what was asked
    stories, pages                 how many stories, and how many pages after the first, all stories together
    character_accuracy             by range; share of the characters whose species and outfit the judge finds right
    character_f1                   by range; the right species on the right slot, and nobody on the others
    species_, outfit_, hat_, pose_, expression_accuracy     by range; share of the characters
    all_five_accuracy              by range; share of the characters with all five right
    place_accuracy                 by range; share of the pages
    characters_judged, pages_judged      by range; what the shares above are of
    pages_not_judged               pages of which it is not known what they should show
    judge_accuracy_on_renders      character_accuracy on the true pictures of the same pages: the judge's own
    judge_on_renders               all the shares above on these pictures
    text_image_agreement
      seen, error, pages           share of the pages on which the judge sees all that the text says: five attributes of
                                   each character, and the place
      retrieval                    needs no truth: are the features that the story model regresses for a page nearest to
                                   its picture's, among the pictures of the story? `inference/image_quality.py`
    perplexity                     of the held-out captions under the story model, the true pictures in context, with
                                   the policy asked for; of stories, of their captions, pictures regressed
    base_perplexity                of the same captions under the base language model, without our weights or pictures
    free_base_perplexity           of the captions that were generated freely, under the base language model
    caption_tokens                 tokens that perplexity is the mean of
    distinct_1, distinct_2, distinct_3, repetition      of the captions generated, or given: `inference/text_quality.py`
    data_text                      the same four of the data set's own captions, where others were generated freely
    consistency                    cosines of one character on two pages of a story, and of two stories' (of whole
                                   pictures without truth): `same`, `different`, `separation` (0.5 is chance), `pairs`;
                                   `true_images`: the same of the data set's pictures
    frechet_distance               `value` between the features of pictures drawn and true; not an FID, and too large
                                   where there are fewer pictures than features are wide
    feature_cosine                 of the regressed features with those of the true pictures, captions given
    plot_coherence                 of stories written freely, where the data set's training split says its plots: do
                                   pages stay in one plot, go on to its next beat, follow the plan, end, and keep to
                                   known names and words; `reference`, the same of true stories. Each of them is
                                   explained in `inference/plot_coherence.py`
    seconds_per_page               of reading the caption given, or writing it, and of the picture; page 1 counts; null
                                   for stories that were there
    errors                         standard errors over stories, in the form of the figures; null of a single story
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from inference.judge_metrics import MEASURES

_TITLES = {
    "character_accuracy": "species + outfit",
    "character_f1": "characters, F1",
    "species_accuracy": "species",
    "outfit_accuracy": "outfit",
    "hat_accuracy": "hat",
    "pose_accuracy": "pose",
    "expression_accuracy": "expression",
    "all_five_accuracy": "all five",
    "place_accuracy": "place",
}
# Of `inference.plot_coherence`, with what each is a share or a number of.
_COHERENCE = {
    "pages_in_a_plot": ("of a known plot", "% of pages"),
    "same_plot": ("of one plot", "% of pairs of pages"),
    "next_beat": ("next beat", "% of the pairs in one plot"),
    "ends_on_last_page": ("ends on its last page", "% of chapters"),
    "plan_followed": ("page fits its line best", "% of pages with a plan"),
    "plan_beat": ("page is the line's beat", "% of pages whose line is known"),
    "invented_names": ("invented names", "a story"),
    "broken_words": ("broken words", "% of words"),
    "page_accuracy": ("plot and beat recognized", "% of true pages"),
    "plot_accuracy": ("plot recognized", "% of true pages"),
}
_DIVERSITY = {"plot": "plots, one opening", "appearance": "looks, one opening"}


def print_scores(scores: dict[str, Any], console: Console) -> None:
    split = f"{scores['split']}, " if scores["split"] else ""
    console.print(
        f"{scores['model']}, {scores['protocol']}: {split}{scores['stories']} stories, {scores['pages']} pages after "
        f"the first, policy {scores['policy']}",
        highlight=False,
        soft_wrap=True,
    )
    if any(scores["pages_judged"].values()):
        console.print(_judged(scores))
    console.print(_others(scores))
    if scores["plot_coherence"] is not None:
        reference = scores["plot_coherence"]["reference"]
        columns = {"stories": scores["plot_coherence"]} | ({"true stories": reference} if reference else {})
        console.print(coherence_table(columns))
    if scores["pages_not_judged"]:
        console.print(f"not judged: {scores['pages_not_judged']} pages of which it is not known what they should show")


def _judged(scores: dict[str, Any]) -> Table:
    """Shares by range of pages, and what the judge makes of the true pictures."""
    spans = [span for span, count in scores["pages_judged"].items() if count]
    table = Table(title="the judge finds right, in % (± standard error over stories)")
    table.add_column("", no_wrap=True)
    renders = ["on renders"] if scores["judge_accuracy_on_renders"] is not None else []
    for column in (*spans, *renders):
        table.add_column(column, justify="right")
    for name in MEASURES:
        errors = scores["errors"].get(name, {})
        cells = [_percent(scores[name][span], errors.get(span)) for span in spans]
        if any(cells):
            table.add_row(_TITLES[name], *cells, *(_percent(scores["judge_on_renders"][name]) for _ in renders))
    for name in ("characters_judged", "pages_judged"):
        table.add_row(name.removesuffix("_judged"), *(str(scores[name][span]) for span in spans))
    return table


def _others(scores: dict[str, Any]) -> Table:
    """Everything else, one figure a row, with what it is."""
    agreement, alike, distance = (scores[name] for name in ("text_image_agreement", "consistency", "frechet_distance"))
    found, true, errors, data = (
        agreement["retrieval"],
        alike["true_pictures"] or {},
        scores["errors"],
        scores["data_text"],
    )
    given = scores["protocol"] == "captions given"
    words = "captions given" if given else "captions"
    held_out = "held-out " if scores["scored"] == "checkpoint" else ""

    def beside(other: float | None) -> str:
        return "" if other is None else f" (data set: {_figure(other)})"

    def text(name: str, note: str) -> tuple[str, str, str]:
        return name.replace("_", "-"), _figure(scores[name]), note + beside((data or {}).get(name))

    def surprise(title: str, name: str, note: str) -> tuple[str, str, str]:
        return title, _figure(scores[name], errors[name]), note

    rows = [
        ("text and picture agree", _percent(agreement["seen"], agreement["error"]), "% of pages with all right"),
        ("picture found by words", _percent(found["found"]), f"% of pages; by chance {_percent(found['chance'])}"),
        surprise("perplexity", "perplexity", f"{scores['caption_tokens']} tokens of {held_out}captions"),
        surprise("- of the base LM", "base_perplexity", "same captions, no pictures"),
        surprise("- of the base LM, free", "free_base_perplexity", "free captions"),
        text("distinct_1", words),
        text("distinct_2", words),
        text("distinct_3", words),
        text("repetition", f"4-grams that stood before; {words}"),
        ("consistency", _figure(alike["separation"]), f"of {alike['of']}" + beside(true.get("separation"))),
        ("- cosine, same", _figure(alike["same"]), f"{alike['pairs']} pairs" + beside(true.get("same"))),
        ("- cosine, different", _figure(alike["different"]), "of two stories" + beside(true.get("different"))),
        ("Fréchet distance", _figure(distance["value"]), f"{distance['pictures']} pictures, tower features"),
        ("feature cosine", _figure(scores["feature_cosine"]), "regressed to true pictures"),
        ("seconds a page", _figure(scores["seconds_per_page"]), "picture alone" if given else "words and picture"),
    ]
    table = Table(show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("of what", style="dim")
    for name, value, note in rows:
        if value:
            table.add_row(name, value, note)
    return table


def coherence_table(columns: dict[str, dict[str, Any]]) -> Table:
    """Figures of `inference.plot_coherence`, a column for each kind of stories, by its title."""
    table = Table(title="the words keep to their plot (± standard error over stories)")
    table.add_column("figure", no_wrap=True)
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("of what", style="dim")
    for name, (title, unit) in _COHERENCE.items():
        form = _percent if unit.startswith("%") else _figure
        cells = [form(figures.get(name), figures["errors"].get(name)) for figures in columns.values()]
        if any(cells):
            table.add_row(title, *cells, unit)
    for name, title in _DIVERSITY.items():
        found = [figures.get("diversity") or {} for figures in columns.values()]
        cells = [_figure(figures.get(f"{name}_bits")) for figures in found]
        most = [_figure(figures.get(f"{name}_bits_at_most")) for figures in found]
        if any(cells):
            table.add_row(title, *cells, f"bits; at most {' and '.join(filter(None, most))}")
    return table


def _percent(value: float | None, error: float | None = None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _figure(value: float | None, error: float | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" + ("" if error is None else f" ± {error:.2g}")
