"""Stage 2a: teach the output resampler to draw from scene codes, before a language model has to speak them.

Where a data set says who stands where (`pages` of its records), a picture is a function of a few words: four for each
of up to three actors, place, time, two props, and what joins one of these now and then (`TABLES`). Here every word gets
a row of its own, the rows of one query token add up to its code, and the output resampler learns the features of a
picture from the codes alone, at a thirtieth of the cost of a step through the language model. Stage 2 then shows the
language model which code each query token should carry.

    python -m training.scenes --config configs/mini/scenes.yaml
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.flow_head import FlowResampler, make_output_resampler
from seedstory.modeling.story_model import StoryModel
from seedstory.resampler import OutputResampler
from seedstory.storystream import read_jsonl
from training.backend import Backend
from training.command import run_stage
from training.config import RunConfig
from training.detokenizer import draw_images, require_files
from training.features import read_features
from training.loop import Stage
from training.pages import ShuffledSampler, noise_of
from training.recorder import Recorder
from training.splits import files_of

ACTORS = ("first", "second", "third")  # in the order of the record's `actors`, from left to right
PROPS = ("first prop", "second prop")
# What each query token is for: of whom or what, and which word.
ROLES = (
    *((actor, word) for actor in ACTORS for word in ("species", "outfit", "pose", "expression")),
    *(("page", word) for word in ("place", "time", *PROPS)),
)
NOTHING = "nothing"
WRITTEN = ("scene_codes.safetensors", "output_resampler.safetensors")
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


@dataclass(kw_only=True)
class ScenesConfig(RunConfig):
    """Stage 2a.

    Attributes:
        stage1: folder with `vision_tower/` and `detokenizer/`.
        split: JSONL files with ground truth, joined by "+".
        heldout: JSONL for the reported figures.
        feature_head: of the story model that stage 2 will train, as in `StoryConfig`.
        code_noise: codes get Gaussian noise of a level drawn from U(0, code_noise) times their RMS.
        balance: how much more often pages of a rare layout are shown, from 0 (as often as others) to 1 (every layout
            as often as the commonest): stories are mostly told from the middle, but each layout has to be learned.
        init: folder of an earlier stage 2a to go on from.
    """

    stage1: str
    split: str = "loose-train+train"
    heldout: str = "loose-heldout"
    feature_head: str = "regression"
    code_noise: float = 0.4
    balance: float = 0.5
    init: str | None = None
    average: float = 0.998


def scene_words(truth: dict) -> dict[str, str]:
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

    def indices(self, truth: dict) -> list[int]:
        """Row of every table for a page's ground truth, in the order of `TABLES`.

        Raises:
            ValueError: a word that the vocabulary does not have, or too many actors or props.
        """
        words = scene_words(truth)
        rows = []
        for table in TABLES:
            word = words.get(table.name, NOTHING)
            if word not in self.vocabulary[table.kind]:
                raise ValueError(f"{table.name}: no training page says {word!r}, the vocabulary does not have it")
            rows.append(self.vocabulary[table.kind].index(word))
        return rows

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


class SceneWords:
    """The words of a scene in the language model's own vocabulary: what each query token should be about to say.

    A pretrained language model is good at repeating words of its context. Its output rows for the words of a role
    are therefore the easiest target for that role's query token: a cross-entropy over the role's few words.

    Args:
        codes: has the vocabulary.
        model: the story model; its tokenizer and output embeddings are read.
    """

    def __init__(self, codes: SceneCodes, model: StoryModel) -> None:
        embed, head = (m.weight.detach().float() for m in (model.llm.get_input_embeddings(), model.llm.lm_head))

        def mean_rows(weight: Tensor, text: str) -> Tensor:
            return weight[model.layout.tokenizer.encode(f" {text}", add_special_tokens=False)].mean(0)

        spoken = {kind: [WORDS_FOR.get(word, word) for word in words] for kind, words in codes.vocabulary.items()}
        self.rows = {kind: torch.stack([mean_rows(head, word) for word in words]) for kind, words in spoken.items()}
        kinds = {
            kind: torch.stack([mean_rows(embed, word) for word in words[1:] or words]).mean(0)
            for kind, words in spoken.items()
        }
        self.questions = torch.zeros(len(ROLES), embed.shape[1])
        for table in TABLES:
            self.questions[table.query] += kinds[table.kind] + mean_rows(embed, table.owner)
        self.questions *= embed.norm(dim=1).mean() / self.questions.norm(dim=1, keepdim=True)

    @torch.no_grad()
    def ask(self, model: StoryModel) -> None:
        """Start each query token near the words of its tables; what is left of the noise tells equal roles apart."""
        model.token_rows[2:].mul_(0.3).add_(self.questions)

    def loss(self, hidden: Tensor, indices: Tensor) -> Tensor:
        """Mean cross-entropy of the scene's words.

        Args:
            hidden: states at the query tokens, [P, N, D].
            indices: of the words, [P, T], as from `SceneCodes.indices`.
        """
        losses = [F.cross_entropy(logits, indices[:, column]) for column, logits in enumerate(self._logits(hidden))]
        return torch.stack(losses).mean()

    def _logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """Scores of every table's words [P, words], in the order of `TABLES`."""
        self.rows = {kind: rows.to(hidden.device) for kind, rows in self.rows.items()}  # moved once
        for table in TABLES:
            yield hidden[:, table.query].float() @ self.rows[table.kind].T

    def characters_right(self, hidden: Tensor, indices: Tensor) -> tuple[int, int]:
        """How many characters are named with the right species and outfit, and how many there are."""
        said = torch.stack([logits.argmax(1) for logits in self._logits(hidden)], 1)
        right = said == indices
        found = total = 0
        for actor in ACTORS:
            species, outfit = (next(n for n, t in enumerate(TABLES) if t.name == f"{actor} {w}") for w in _APPEARANCE)
            there = indices[:, species] != 0
            found += int((right[:, species] & right[:, outfit] & there).sum())
            total += int(there.sum())
        return found, total


def head_weights(resampler: OutputResampler) -> dict[str, Tensor]:
    """The weights that `OutputResampler.draw` uses: all but those that read the language model."""
    reading = ("to_width", "source_norm")
    return {name: weight for name, weight in resampler.named_parameters() if not name.startswith(reading)}


def load_head(resampler: OutputResampler, folder: Path) -> None:
    """Load what stage 2a wrote into a story model's output resampler.

    Raises:
        ValueError: stage 2a trained a resampler of another kind.
    """
    weights = load_file(folder / "output_resampler.safetensors")
    unexpected = resampler.load_state_dict(weights, strict=False).unexpected_keys
    if unexpected or weights.keys() != head_weights(resampler).keys():
        raise ValueError(f"{folder}: stage 2a trained another output resampler")


def page_truths(data: str | Path, split: str) -> list[dict]:
    """Ground truth of all pages of the splits, in the order of `page_features`."""
    truths = []
    for name in split.split("+"):
        for record in read_jsonl(Path(data) / f"{name}.jsonl"):
            if record.pages is None:
                raise ValueError(f"{name}.jsonl: story {record.id} has no ground truth (`pages`), scene codes need it")
            truths += record.pages
    return truths


def scene_vocabulary(truths: list[dict]) -> dict[str, list[str]]:
    """Words of every kind of table that occur in the data."""
    found: dict[str, set[str]] = {table.kind: set() for table in TABLES}
    for words in map(scene_words, truths):
        for table in TABLES:
            found[table.kind] |= {words.get(table.name, NOTHING)}
    return {kind: [NOTHING, *sorted(words - {NOTHING})] for kind, words in found.items()}


def balanced(truths: list[dict], power: float) -> list[int]:
    """Numbers of all pages, those of rare layouts (view and number of actors) several times.

    A layout that is `r` times as rare as the commonest is repeated `r ** power` times, rounded.
    """
    layouts = [(scene_words(truth)["page view"], len(truth["actors"])) for truth in truths]
    counts = Counter(layouts)
    repeats = {layout: round((max(counts.values()) / count) ** power) for layout, count in counts.items()}
    return [page for page, layout in enumerate(layouts) for _ in range(repeats[layout])]


def feature_losses(drawn: Tensor, features: Tensor) -> dict[str, Tensor]:
    """How far drawn features [B, F, D] are from the true ones: means of `1 - cosine` by token, and of the square."""
    cosine = F.cosine_similarity(drawn, features, dim=-1)
    return {"cosine": (1 - cosine).mean(), "mse": F.mse_loss(drawn, features)}


class ScenesStage(Stage):
    """Scene codes to features of pictures."""

    name = "scenes"
    adam_names = ("tables", "queries")

    def __init__(self, config: ScenesConfig, backend: Backend) -> None:
        super().__init__()
        require_files(config.stage1, ("vision_tower", "detokenizer"), "detokenizer", "stage1")
        self.config = config
        tower = Path(config.stage1) / "vision_tower"
        self.sources = [*files_of(config.data, config.split, config.heldout), tower]
        self.sources += [Path(config.init) / name for name in WRITTEN if config.init]
        self.features = read_features(config.data, config.split, tower, backend)
        self.heldout = read_features(config.data, config.heldout, tower, backend).float()
        truths, heldout = (page_truths(config.data, split) for split in (config.split, config.heldout))
        sizes = StoryConfig(feature_dim=self.features.shape[-1], feature_head=config.feature_head)
        width = sizes.output_resampler_width
        self.codes, self.code_shape = SceneCodes(scene_vocabulary(truths), width), (len(ROLES), width)
        self.resampler = make_output_resampler(sizes, width)
        for part in (self.resampler.to_width, self.resampler.source_norm):  # they read a language model
            part.requires_grad_(False)
        self.indices, self.heldout_indices = (
            torch.tensor([self.codes.indices(truth) for truth in some]) for some in (truths, heldout)
        )
        if config.init:
            self._go_on(Path(config.init))
        self.order = torch.tensor(balanced(truths, config.balance))
        self.rows = ShuffledSampler(len(self.order), config.seed)

    def _go_on(self, folder: Path) -> None:
        codes = SceneCodes.load(folder / "scene_codes.safetensors")
        if codes.vocabulary != self.codes.vocabulary:
            raise ValueError(f"{folder} was trained on scenes of other words: leave init out")
        self.codes.load_state_dict(codes.state_dict())
        load_head(self.resampler, folder)

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        rows = self.order[[row for _, row in samples]]
        noise, starts, times = [], [], []
        for number, _ in samples:
            generator = noise_of(self.config.seed, number)
            level = self.config.code_noise * torch.rand((), generator=generator)
            noise.append(level * torch.randn(self.code_shape, generator=generator))
            if self.config.feature_head == "flow":
                starts.append(torch.randn(self.features.shape[1:], generator=generator))
                times.append(1 - torch.rand((), generator=generator))
        batch = {"indices": self.indices[rows], "features": self.features[rows].float(), "noise": torch.stack(noise)}
        if starts:
            batch |= {"feature_noise": torch.stack(starts), "feature_time": torch.stack(times)}
        return batch

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        names = ("flow", "cosine", "mse") if self.config.feature_head == "flow" else ("cosine", "mse")
        return dict.fromkeys(names, len(batch["indices"]))

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        gathered = self.resampler.gather(self.codes(batch["indices"]) + batch["noise"])
        features, start = batch["features"], batch.get("feature_noise")
        drawn = self.resampler.finish(gathered, start).float()
        losses = feature_losses(drawn, features)
        if isinstance(self.resampler, FlowResampler):
            losses["flow"] = self.resampler.flow_loss(gathered, features, start, batch["feature_time"])
        return {name: len(drawn) * loss for name, loss in losses.items()}

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        return {"flow": 1.0} if self.config.feature_head == "flow" else {"cosine": 1.0, "mse": 1.0}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        parts = []
        for indices in self.heldout_indices.split(256):
            with backend.autocast():
                parts.append(self.resampler.draw(self.codes(indices.to(backend.device))).float().cpu())
        drawn = torch.cat(parts)
        recorder.write(step, heldout_cosine=F.cosine_similarity(drawn, self.heldout, dim=-1).mean().item())
        detokenizer = Detokenizer.from_pretrained(Path(self.config.stage1) / "detokenizer").to(backend.device)
        with backend.autocast():
            rows = [draw_images(detokenizer, f[:8].to(backend.device)) for f in (self.heldout, drawn)]
        recorder.sheet(step, rows)

    def export(self, folder: Path) -> None:
        """Write `output_resampler.safetensors` and `scene_codes.safetensors`."""
        weights = {name: weight.detach().cpu() for name, weight in head_weights(self.resampler).items()}
        save_file(weights, folder / "output_resampler.safetensors")
        self.codes.save(folder / "scene_codes.safetensors")


if __name__ == "__main__":
    run_stage(ScenesConfig, ScenesStage, __doc__)
