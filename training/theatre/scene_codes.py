"""Scene codes: what each query token of an image of the paper theatre says, as a row of a table.

Where a data set says who stands where (`pages` of its records), an image is a function of a few words: four for each
of up to three actors, place, time, two props, and what joins one of these now and then (`TABLES`). Every word gets a
row of its own, and the rows of one query token add up to its code. `SceneWords` asks for the same words in the
language model's own vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seedstory.modeling.story_model import StoryModel

ACTORS = ("first", "second", "third")  # in the order of the record's `actors`, from left to right
PROPS = ("first prop", "second prop")
# What each query token is for: of whom or what, and which word.
ROLES = (
    *((actor, word) for actor in ACTORS for word in ("species", "outfit", "pose", "expression")),
    *(("page", word) for word in ("place", "time", *PROPS)),
)
NOTHING = "nothing"
_APPEARANCE = ("species", "outfit")
# A page of two places is cut after its first actor or after the second: with the actors, that says who is where.
SPLIT = {1: "split one", 2: "split two"}
# How a word is said that no caption holds: a hat that is not there, a page of two places.
WORDS_FOR = {"none": "bare", "split one": "Meanwhile one", "split two": "Meanwhile two"}


class Table(NamedTuple):
    """One word of a scene, and the query token that carries it.

    Attributes:
        owner: one of `ACTORS`, "page", or "meanwhile", the second half of a page of two places.
        word: what is said of the owner.
        role: the query token, one of `ROLES`; it carries the words of all its tables at once.
    """

    owner: str
    word: str
    role: tuple[str, str]

    @property
    def name(self) -> str:
        return f"{self.owner} {self.word}"

    @property
    def kind(self) -> str:
        """Whose vocabulary the word is of: all props have one, and both places."""
        return "prop" if self.word in PROPS else self.word

    @property
    def query(self) -> int:
        return ROLES.index(self.role)


TABLES = (
    *(Table(*role, role) for role in ROLES),
    *(Table(actor, "hat", (actor, "outfit")) for actor in ACTORS),
    Table("page", "view", ("page", "place")),
    Table("meanwhile", "place", ("page", "time")),
    *(Table("meanwhile", prop, ("page", prop)) for prop in PROPS),
)


def scene_words(truth: dict[str, Any]) -> dict[str, str]:
    """The words of a page's ground truth by the name of their table; a table that is missing says `NOTHING`.

    Raises:
        ValueError: more actors or props than there are query tokens for.
    """
    elsewhere = truth.get("meanwhile", {"props": []})
    for kind, most, found in (
        ("actors", len(ACTORS), truth["actors"]),
        *(("props in one place", len(PROPS), half["props"]) for half in (truth, elsewhere)),
    ):
        if len(found) > most:
            raise ValueError(f"scene codes have room for {most} {kind} on a page, this one has {len(found)}: {truth}")
    view = truth.get("view", "middle")
    if view == "split":
        view = SPLIT[sum(actor["place"] == truth["place"] for actor in truth["actors"])]
    words = {"page place": truth["place"], "page time": truth["time"], "page view": view}
    if "place" in elsewhere:
        words["meanwhile place"] = elsewhere["place"]
    for owner, half in (("page", truth), ("meanwhile", elsewhere)):
        words |= {f"{owner} {name}": prop for name, prop in zip(PROPS, half["props"])}
    for owner, actor in zip(ACTORS, truth["actors"]):
        words |= {table.name: actor[table.word] for table in TABLES if table.owner == owner}
    return words


def word_indices(vocabulary: dict[str, list[str]], truth: dict[str, Any]) -> list[int]:
    """Number of every table's word for a page's ground truth, in the order of `TABLES`.

    Raises:
        ValueError: a word that the vocabulary does not have, or too many actors or props.
    """
    words = scene_words(truth)
    rows = []
    for table in TABLES:
        word = words.get(table.name, NOTHING)
        if word not in vocabulary[table.kind]:
            raise ValueError(f"{table.name}: no training page says {word!r}, the vocabulary does not have it")
        rows.append(vocabulary[table.kind].index(word))
    return rows


class SceneCodes(nn.Module):
    """A code [N, W] for every scene: one row for each role, the sum of what its tables hold for their words.

    Args:
        vocabulary: words of each kind of table, in order; the first is `NOTHING`.
        width: W, the width of the output resampler.
    """

    def __init__(self, vocabulary: dict[str, list[str]], width: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.tables = nn.ModuleDict({table.name: nn.Embedding(len(vocabulary[table.kind]), width) for table in TABLES})

    def indices(self, truth: dict[str, Any]) -> list[int]:
        """Row of every table for a page's ground truth, as `word_indices`."""
        return word_indices(self.vocabulary, truth)

    def forward(self, indices: Tensor) -> Tensor:
        """Indices [B, T] of the T tables to codes [B, 16, W] of unit RMS."""
        rows: list[list[Tensor]] = [[] for _ in ROLES]
        for column, table in enumerate(TABLES):
            rows[table.query].append(self.tables[table.name](indices[:, column]))
        codes = torch.stack([torch.stack(parts).sum(0) for parts in rows], 1)
        return F.layer_norm(codes, codes.shape[-1:])

    def save(self, path: Path) -> None:
        """Write the tables, with the vocabulary in the file's metadata."""
        save_file(self.state_dict(), path, {"vocabulary": json.dumps(self.vocabulary)})

    @classmethod
    def load(cls, path: Path) -> SceneCodes:
        """Read what `save` wrote."""
        with safe_open(path, "pt") as file:
            vocabulary = json.loads(file.metadata()["vocabulary"])
            tables = {name: file.get_tensor(name) for name in file.keys()}
        if tables.keys() != {f"tables.{table.name}.weight" for table in TABLES}:
            raise ValueError(f"{path} has codes of other tables than this version knows: run stage 2a again")
        codes = cls(vocabulary, next(iter(tables.values())).shape[1])
        codes.load_state_dict(tables)
        return codes.requires_grad_(False)


def scene_vocabulary(truths: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Words of every kind of table that occur in the data."""
    found: dict[str, set[str]] = {table.kind: set() for table in TABLES}
    for words in map(scene_words, truths):
        for table in TABLES:
            found[table.kind] |= {words.get(table.name, NOTHING)}
    return {kind: [NOTHING, *sorted(words - {NOTHING})] for kind, words in found.items()}


def spoken_words(vocabulary: dict[str, list[str]]) -> dict[str, list[str]]:
    """The vocabulary as captions say it."""
    return {kind: [WORDS_FOR.get(word, word) for word in words] for kind, words in vocabulary.items()}


def mean_rows(weight: Tensor, tokenizer: Any, text: str) -> Tensor:
    """Mean of a word's rows in a language model's embeddings, [D]."""
    return weight[tokenizer.encode(f" {text}", add_special_tokens=False)].mean(0)


class TableWords:
    """States at the N visual tokens of a picture, held against the words of each token's tables.

    Args:
        rows: what a state is multiplied with for every word of a kind, [words, D].
    """

    def __init__(self, rows: dict[str, Tensor]) -> None:
        self.rows = rows

    def loss(self, states: Tensor, indices: Tensor) -> Tensor:
        """Mean cross-entropy of the scene's words.

        Args:
            states: at the visual tokens, [P, N, D].
            indices: of the words, [P, T], as from `word_indices`.
        """
        losses = [F.cross_entropy(scores, indices[:, column]) for column, scores in enumerate(self.scores(states))]
        return torch.stack(losses).mean()

    def scores(self, states: Tensor) -> Iterator[Tensor]:
        """Scores of every table's words [P, words], in the order of `TABLES`."""
        self.rows = {kind: rows.to(states.device) for kind, rows in self.rows.items()}  # moved once
        for table in TABLES:
            yield states[:, table.query].float() @ self.rows[table.kind].T

    def right(self, states: Tensor, indices: Tensor) -> Tensor:
        """Which words have the best score of their table, bool [P, T]; arguments as in `loss`."""
        return torch.stack([scores.argmax(1) for scores in self.scores(states)], 1) == indices

    def characters_right(self, states: Tensor, indices: Tensor) -> tuple[int, int]:
        """How many characters are named with the right species and outfit, and how many there are."""
        right = self.right(states, indices)
        found = total = 0
        for actor in ACTORS:
            species, outfit = (next(n for n, t in enumerate(TABLES) if t.name == f"{actor} {w}") for w in _APPEARANCE)
            there = indices[:, species] != 0
            found += int((right[:, species] & right[:, outfit] & there).sum())
            total += int(there.sum())
        return found, total


class SceneWords(TableWords):
    """The words of a scene in the language model's own vocabulary: what each query token should be about to say.

    A pretrained language model is good at repeating words of its context. Its output rows for the words of a role
    are therefore the easiest target for that role's query token: a cross-entropy over the role's few words.

    Args:
        codes: has the vocabulary.
        model: the story model; its tokenizer and output embeddings are read.
    """

    def __init__(self, codes: SceneCodes, model: StoryModel) -> None:
        assert model.layout is not None
        tokenizer, spoken = model.layout.tokenizer, spoken_words(codes.vocabulary)
        embed, head = (m.weight.detach().float() for m in (model.llm.get_input_embeddings(), model.llm.lm_head))
        super().__init__(
            {kind: torch.stack([mean_rows(head, tokenizer, word) for word in words]) for kind, words in spoken.items()}
        )
        kinds = {
            kind: torch.stack([mean_rows(embed, tokenizer, word) for word in words[1:] or words]).mean(0)
            for kind, words in spoken.items()
        }
        self.questions = torch.zeros(len(ROLES), embed.shape[1])
        for table in TABLES:
            self.questions[table.query] += kinds[table.kind] + mean_rows(embed, tokenizer, table.owner)
        self.questions *= embed.norm(dim=1).mean() / self.questions.norm(dim=1, keepdim=True)

    @torch.no_grad()
    def ask(self, model: StoryModel) -> None:
        """Start each query token near the words of its tables; what is left of the noise keeps equal roles apart."""
        model.token_rows[2:].mul_(0.3).add_(self.questions)
