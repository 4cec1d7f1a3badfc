"""Stage 2a: teach the output resampler to draw from scene codes, before a language model has to speak them.

Where a data set says who stands where (`pages` of its records), a picture is a function of sixteen words:
four for each of three slots, place, time and two props. Here every word gets a code of its own, one for each query
token, and the output resampler learns the features of a picture from the codes alone, at a thirtieth of the cost of a
step through the language model. Stage 2 then shows the language model which code each query token should carry.

    python -m training.scenes --config configs/mini/scenes.yaml
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.resampler import OutputResampler
from seedstory.modeling.story_model import StoryModel
from seedstory.storystream import read_jsonl
from training.config import RunConfig
from training.features import page_features
from training.optimizers import AveragedWeights, MuonAdamW
from training.pages import shuffled_rows
from training.run import Run, parse_arguments

SLOTS = ("left", "centre", "right")
ROLES = (
    *((slot, attribute) for slot in SLOTS for attribute in ("species", "outfit", "pose", "expression")),
    *(("page", word) for word in ("place", "time", "first prop", "second prop")),
)
NOTHING = "nothing"
WORDS_FOR = {"none": "bare"}  # how a hat that is not there is said


@dataclass(kw_only=True)
class ScenesConfig(RunConfig):
    """Stage 2a.

    Attributes:
        stage1: folder with `vision_tower/` and `detokenizer/`.
        split: JSONL files with ground truth, joined by "+".
        heldout: JSONL for the reported figures.
        code_noise: codes get Gaussian noise of a level drawn from U(0, code_noise) times their RMS.
    """

    stage1: str
    split: str = "loose-train+train"
    heldout: str = "loose-heldout"
    code_noise: float = 0.4


def scene_words(truth: dict) -> dict[tuple[str, str], str]:
    """The sixteen words of a page's ground truth by role; a hat goes with the outfit."""
    props = truth["props"]
    words = {("page", "place"): truth["place"], ("page", "time"): truth["time"]}
    words |= {("page", f"{name} prop"): prop for name, prop in zip(("first", "second"), props, strict=False)}
    for actor in truth["actors"]:
        for attribute in ("species", "outfit", "pose", "expression"):
            words[actor["slot"], attribute] = actor[attribute]
        words[actor["slot"], "hat"] = actor["hat"]
    return words


class SceneCodes(nn.Module):
    """A code [N, W] for every scene: one row for each role, looked up by its word.

    Args:
        vocabulary: words of each kind of role, in order; the first is `NOTHING`.
        width: W, the width of the output resampler.
    """

    def __init__(self, vocabulary: dict[str, list[str]], width: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.tables = nn.ModuleDict(
            {f"{place} {kind}": nn.Embedding(len(vocabulary[kind]), width) for place, kind in self.keys()}
        )

    @staticmethod
    def keys() -> list[tuple[str, str]]:
        """Roles that have a table: the sixteen, and the hat of each slot."""
        return [*ROLES, *((slot, "hat") for slot in SLOTS)]

    def indices(self, truth: dict) -> list[int]:
        """Row of every table for a page's ground truth."""
        words = scene_words(truth)
        return [self.vocabulary[kind].index(words.get((place, kind), NOTHING)) for place, kind in self.keys()]

    def forward(self, indices: Tensor) -> Tensor:
        """Indices [B, 19] to codes [B, 16, W] of unit RMS."""
        parts = {key: self.tables[f"{key[0]} {key[1]}"](indices[:, column]) for column, key in enumerate(self.keys())}
        for slot in SLOTS:
            parts[slot, "outfit"] = parts[slot, "outfit"] + parts[slot, "hat"]
        codes = torch.stack([parts[role] for role in ROLES], 1)
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
        spoken = {kind: [WORDS_FOR.get(word, word) for word in words] for kind, words in codes.vocabulary.items()}
        ids = {
            kind: [model.layout.tokenizer.encode(f" {word}", add_special_tokens=False) for word in words]
            for kind, words in spoken.items()
        }
        self.rows = {kind: torch.stack([head[word].mean(0) for word in words]) for kind, words in ids.items()}
        self.questions = torch.stack(
            [
                torch.stack([embed[word].mean(0) for word in ids[kind][1:]]).mean(0)
                + embed[model.layout.tokenizer.encode(f" {place}", add_special_tokens=False)].mean(0)
                for place, kind in ROLES
            ]
        )
        self.questions *= embed.norm(dim=1).mean() / self.questions.norm(dim=1, keepdim=True)

    @torch.no_grad()
    def ask(self, model: StoryModel) -> None:
        """Start each query token near the words of its role; what is left of the noise tells equal roles apart."""
        model.token_rows[2:].mul_(0.3).add_(self.questions)

    def loss(self, hidden: Tensor, indices: Tensor) -> Tensor:
        """Mean cross-entropy of the scene's words.

        Args:
            hidden: states at the query tokens, [P, N, D].
            indices: of the words, [P, 19], as from `SceneCodes.indices`.
        """
        losses = []
        for column, (place, kind) in enumerate(SceneCodes.keys()):
            query = ROLES.index((place, "outfit" if kind == "hat" else kind))
            logits = hidden[:, query].float() @ self.rows[kind].to(hidden.device).T
            losses.append(F.cross_entropy(logits, indices[:, column]))
        return torch.stack(losses).mean()


def drawing_weights(resampler: OutputResampler) -> dict[str, Tensor]:
    """The weights that `OutputResampler.draw` uses: all but those that read the language model."""
    reading = ("to_width", "source_norm")
    return {name: weight for name, weight in resampler.named_parameters() if not name.startswith(reading)}


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
    """Words of every kind of role that occur in the data."""
    found: dict[str, set[str]] = {kind: set() for _, kind in SceneCodes.keys()}
    for truth in truths:
        for (_, kind), word in scene_words(truth).items():
            found[kind].add(word)
    found["first prop"] = found["second prop"] = found["first prop"] | found["second prop"]
    return {kind: [NOTHING, *sorted(words - {NOTHING})] for kind, words in found.items()}


def train(config: ScenesConfig) -> None:
    """Run stage 2a; write `OUT/output_resampler.safetensors` and `OUT/scene_codes.safetensors`."""
    run = Run(config, "scenes")
    tower = Path(config.stage1) / "vision_tower"
    splits = config.split.split("+")
    features = torch.cat([page_features(config.data, name, tower, run.device)[:] for name in splits])
    heldout = page_features(config.data, config.heldout, tower, run.device)[:].float().to(run.device)
    truths = page_truths(config.data, config.split)
    sizes = StoryConfig()
    width = sizes.output_resampler_width
    codes = SceneCodes(scene_vocabulary(truths), width)
    resampler = OutputResampler(
        sizes.feature_tokens,
        features.shape[-1],
        width,
        width=width,
        depth=sizes.output_resampler_depth,
        heads=sizes.output_resampler_heads,
    )
    networks = nn.ModuleDict({"codes": codes, "resampler": resampler}).to(run.device).train()
    indices = torch.tensor([codes.indices(truth) for truth in truths])
    heldout_indices = torch.tensor([codes.indices(truth) for truth in page_truths(config.data, config.heldout)])
    optimizer = MuonAdamW(
        networks.named_parameters(),
        config.muon_lr,
        config.adam_lr,
        config.weight_decay,
        adam_names=("tables", "queries"),
    )
    average = AveragedWeights(networks)
    rows = shuffled_rows(len(truths), config.batch_size, config.seed)
    detokenizer = Detokenizer.from_pretrained(Path(config.stage1) / "detokenizer").to(run.device)

    def save(step: int) -> None:
        average.swap()
        with torch.no_grad(), run.autocast():
            drawn = resampler.draw(codes(heldout_indices.to(run.device))).float()
            cosine = F.cosine_similarity(drawn, heldout, dim=-1).mean().item()
            generator = torch.Generator(run.device)
            pictures = [detokenizer(f[:8], generator.manual_seed(0), output_type="pt") for f in (heldout, drawn)]
        run.write(step, heldout_cosine=cosine)
        run.sheet(step, "scenes", pictures)
        save_file(drawing_weights(resampler), run.folder / "output_resampler.safetensors")
        codes.save(run.folder / "scene_codes.safetensors")
        average.swap()

    for step, progress in run.steps():
        chosen = next(rows)
        target = features[chosen].float().to(run.device)
        with run.autocast():
            code = codes(indices[chosen].to(run.device))
            level = config.code_noise * torch.rand(len(code), 1, 1, device=run.device)
            drawn = resampler.draw(code + level * torch.randn_like(code)).float()
        cosine = F.cosine_similarity(drawn, target, dim=-1).mean()
        loss = 1 - cosine + F.mse_loss(drawn, target)
        optimizer.set_progress(progress)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(step)
        run.log(step, loss=loss.item(), cosine=cosine.item())
        if run.saves(step):
            save(step)


if __name__ == "__main__":
    train(parse_arguments(ScenesConfig, __doc__))
