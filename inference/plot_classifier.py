r"""Which plot and beat of the paper theatre a page's words belong to: naive Bayes over runs of one to three words.

The classifier is fitted in seconds on the stories of a data set that say their plots and beats. Names are masked, so
that it learns plots and not who plays in them. A run of words counts once a page. The probability of a run in a beat is
its count there, smoothed by its probability in all pages (a Dirichlet prior of that mean). The *score* of a page under
a beat is the mean over its runs of log P(run | beat) / P(run | all pages): how much better the beat explains a run of
the page than the theatre's language at large does.

*No plot*: a page whose best score is below a threshold is of no beat. To set the threshold, a classifier is fitted
without every fifth story and without every fifth plot. The pages of those stories should pass, the pages of those plots
should not, and the threshold makes the larger of both error rates as small as it can be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from inference.story_text import EVENING, Label, StoryText, words_of

_RUN = 3  # words of the longest runs
_PRIOR = 300.0  # runs' worth of all pages in each beat
_FOLDS = 5
_SHORT = 7  # a story with so many pages or fewer leaves out beats that are not optional
_NAME = "_"

Runs = tuple[str, ...]


class NaiveBayes:
    """Texts of known labels, counted.

    Args:
        texts: The runs of words of each text.
        labels: The label of each text.
    """

    def __init__(self, texts: Sequence[Runs], labels: Sequence[Label]) -> None:
        self.labels = list(dict.fromkeys(labels))
        self.number = {label: number for number, label in enumerate(self.labels)}
        self.texts, count = len(texts), len(self.labels)
        self._rows: dict[str, int] = {}
        rows = np.fromiter((self._rows.setdefault(run, len(self._rows)) for runs in texts for run in runs), np.int64)
        numbers = np.repeat([self.number[label] for label in labels], [len(runs) for runs in texts])
        pairs, found = np.unique(rows * count + numbers, return_counts=True)
        self._texts_with = np.bincount(rows, minlength=len(self._rows))
        self._starts = np.searchsorted(pairs, np.arange(len(self._rows) + 1) * count)
        self._numbers = pairs % count
        self._gains = np.log1p(found * len(rows) / (_PRIOR * self._texts_with[pairs // count]))
        sizes = np.bincount(numbers, minlength=count)
        self._missing = np.log(_PRIOR / (sizes + _PRIOR))  # of a run that a label never has

    def scores(self, runs: Runs) -> np.ndarray:
        """Score of a text under each label, `[C]`."""
        rows = [self._rows[run] for run in runs if run in self._rows]
        if not rows:
            return self._missing.copy()
        spans = [slice(self._starts[row], self._starts[row + 1]) for row in rows]
        numbers, gains = (np.concatenate([column[span] for span in spans]) for column in (self._numbers, self._gains))
        return self._missing + np.bincount(numbers, gains, len(self.labels)) / len(runs)

    def rarity(self, run: str) -> float:
        """Log of one over the share of the texts that have a run of words."""
        found = self._texts_with[self._rows[run]] if run in self._rows else 0
        return math.log((self.texts + 1) / (int(found) + 1))


@dataclass(frozen=True)
class Recognizer:
    """A classifier that also knows what it does not know.

    Attributes:
        bayes: The classifier.
        threshold: The score below which a text has no label.
    """

    bayes: NaiveBayes
    threshold: float

    @classmethod
    def fit(cls, stories: Sequence[Sequence[tuple[Runs, Label]]]) -> Recognizer:
        """Fits on labeled texts, story by story, and sets the threshold."""
        plots = list(dict.fromkeys(label[0] for story in stories for _, label in story))
        unknown = set(plots[1::_FOLDS]) if len(plots) >= _FOLDS else set()
        left_out = [number % _FOLDS == 0 for number in range(len(stories))]
        kept = [
            (runs, label)
            for story, left in zip(stories, left_out, strict=True)
            for runs, label in story
            if not left and label[0] not in unknown
        ]
        threshold = 0.0
        if kept and len(stories) >= _FOLDS:
            trial = NaiveBayes(*zip(*kept, strict=True))
            tried = [text for story, left in zip(stories, left_out, strict=True) if left for text in story]
            best = [(trial.scores(runs).max(), label[0] not in unknown) for runs, label in tried]
            strange = [score for score, known in best if not known]
            threshold = _threshold([score for score, known in best if known], strange)
        return cls(NaiveBayes(*zip(*(text for story in stories for text in story), strict=True)), threshold)

    def label(self, scores: np.ndarray) -> Label | None:
        """The label of a text with these scores, None if it has none of them."""
        return self.bayes.labels[int(scores.argmax())] if scores.max() >= self.threshold else None


def _threshold(known: Sequence[float], unknown: Sequence[float]) -> float:
    """The score that makes the larger of both error rates smallest; in the middle, where a range does."""
    if not known or not unknown:
        return 0.0
    ours, others = np.sort(known), np.sort(unknown)
    scores = np.unique(np.concatenate([ours, others]))
    middles = np.concatenate([scores[:1] - 1, (scores[1:] + scores[:-1]) / 2, scores[-1:] + 1])
    refused = np.searchsorted(ours, middles) / len(ours)
    passed = 1 - np.searchsorted(others, middles) / len(others)
    worst = np.maximum(refused, passed)
    return float(np.median(middles[worst == worst.min()]))


class PlotModel:
    """What stories of known plots teach: words, beats, lines of plans, and which beats may follow each other.

    A beat may follow another if it does so in some of the stories, or if every beat between them is optional: some
    story of more than 7 pages leaves it out.

    Args:
        stories: Stories with labels.

    Raises:
        ValueError: None of them has labels.
    """

    def __init__(self, stories: Iterable[StoryText]) -> None:
        self.stories = [story for story in stories if story.labels]
        if not self.stories:
            raise ValueError("no story says its plot and beats")
        self.names: set[str] = set()
        self.words: set[str] = set()
        for story in self.stories:
            names = story.cast_words or story.capital_inside
            self.names |= names
            self.words |= {word.lower() for text in story.captions for word in words_of(text) if word not in names}
        self.last: dict[str, int] = {}
        self._transitions: set[tuple[Label, Label]] = set()
        self._optional: set[Label] = set()
        self._learn_order()
        pages, lines = [], []
        for story in self.stories:
            names = self.names_in(story)
            runs = [self.runs(caption, names) for caption in story.captions]
            pages.append(list(zip(runs, story.labels, strict=True)))
            said = zip(story.line_of_page, story.labels, strict=True)
            lines.append([(self.runs(line, names), label) for line, label in said if line])
        self.pages = Recognizer.fit(pages)
        self.lines = Recognizer.fit([story for story in lines if story]) if any(lines) else None

    @property
    def plots(self) -> int:
        """How many plots it knows."""
        return len(self.last)

    def _learn_order(self) -> None:
        chapters = [
            [label for label in story.labels[start:end] if label != EVENING]
            for story in self.stories
            for start, end in story.spans
        ]
        for chapter in filter(None, chapters):
            plot, last = chapter[-1]
            self.last[plot] = max(last, self.last.get(plot, 0))
            self._transitions |= set(zip(chapter, chapter[1:]))
        for chapter in chapters:
            if len(chapter) > _SHORT:
                plot = chapter[0][0]
                self._optional |= {(plot, beat) for beat in range(self.last[plot] + 1)} - set(chapter)

    def follows(self, before: Label, after: Label) -> bool:
        """Whether a beat may come right after another one in their plot."""
        if after == EVENING:
            return self.is_last(before)
        plot, beat = before
        if plot != after[0] or after[1] <= beat:
            return False
        between = ((plot, skipped) for skipped in range(beat + 1, after[1]))
        return (before, after) in self._transitions or all(label in self._optional for label in between)

    def is_last(self, label: Label | None) -> bool:
        """Whether a chapter may end with this beat."""
        return label is not None and (label == EVENING or self.last.get(label[0]) == label[1])

    def names_in(self, story: StoryText) -> frozenset[str]:
        """The names of a story: those of its cast, and capital words that are no words of the training captions."""
        words = {word for text in (*story.captions, *story.plan) for word in words_of(text) if word[0].isupper()}
        return story.cast_words | {word for word in words if word.lower() not in self.words}

    def runs(self, text: str, names: frozenset[str]) -> Runs:
        """The runs of one to three words of a text, each once, with its names masked."""
        words = [_NAME if word in names else word.lower() for word in words_of(text)]
        found = (" ".join(words[at : at + size]) for size in range(1, _RUN + 1) for at in range(len(words) - size + 1))
        return tuple(dict.fromkeys(found))

    def alike(self, page: Runs, line: Runs) -> float:
        """How alike the words of a page and of a line are: a cosine in [0, 1], where rare words weigh more."""
        page_words, line_words = ({run for run in runs if " " not in run} for runs in (page, line))
        weights = {word: self.pages.bayes.rarity(word) ** 2 for word in sorted(page_words | line_words)}
        lengths = [math.fsum(weights[word] for word in words) for words in (page_words, line_words)]
        shared = math.fsum(weights[word] for word in page_words & line_words)
        return shared / math.sqrt(math.prod(lengths)) if all(lengths) else 0.0
