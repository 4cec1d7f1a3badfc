"""Fine-tune a model on one's own book, or several: a data set goes in, a model that writes and draws it comes out.

    python -m data_tools.importers books my_book/ --out data/own_book
    python -m training.finetune --config configs/finetune/own_book.yaml
    seedstory generate --model runs/own_book/model --text "..."

Three stages run one after the other, each from the model's own weights, each with checkpoints of its own:

1. `images` (stage 1a): the autoencoder's decoder learns the book's lines and colors, its latents stay;
2. `story` (stage 2): the story model learns the book's words, and which picture goes with them;
3. `drawing` (stage 3): the de-tokenizer learns the book's pages, from what the story model says of them.

The vision tower stays, so what the story model knows of its features stays true. A book has too few pages to hold any
out: unless `heldout` names a split, the figures that are called held-out are of the pages that were learned.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from seedstory.detokenizers.autoencoder import ImageAutoencoder
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.image import to_square
from seedstory.model_folder import find_model
from seedstory.modeling.base_lm import base_lm_name, model_identity
from seedstory.modeling.story_model import StoryModel
from seedstory.precision import fast_dtype
from seedstory.storystream import write_jsonl
from training.adapt import AdaptConfig, AdaptStage, regress_features
from training.assemble import assemble
from training.autoencoder import AutoencoderConfig, AutoencoderStage
from training.backend import Backend
from training.command import run_command
from training.detokenizer import draw_images
from training.distances import psnr
from training.loop import train
from training.mllm import MllmConfig, MllmStage
from training.pages import PageImages
from training.samples import StoryDataset
from training.splits import fingerprint as stories_fingerprint
from training.splits import open_split

Fit = Literal["pad", "crop"]

SHOWN = 12  # pages on the sheet
_BEGUN, _FINISHED, _FIGURES = "begun.json", "finished", "book.json"
_OF_THE_MACHINE = frozenset({"out", "device", "threads", "save_every"})


@dataclass(kw_only=True)
class FinetuneConfig:
    """Fine-tuning on one's own book.

    Attributes:
        data: folder of a data set with the book: `SPLIT.jsonl` and pictures, or packed shards.
        out: folder for the new model (`model/`), a sheet of what it draws (`book.png`) and all on the way there.
        model: "mini", or the model folder to start from.
        split: what is learned; each of its stories is a book.
        heldout: split that the figures are of (none: the pages that were learned).
        fit: how a page becomes a square: "pad" keeps all of it and adds white, "crop" keeps its center.
        window: of longer books, so many consecutive pages are learned at a time.
        autoencoder_steps, story_model_steps, detokenizer_steps: optimizer steps of each part.
        save_every: steps from one checkpoint to the next.
        seed: of data order and noise.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads (0: as torch chooses).
    """

    data: str
    out: str
    model: str = "mini"
    split: str = "train"
    heldout: str | None = None
    fit: Fit = "pad"
    window: int = 12
    autoencoder_steps: int = 300
    story_model_steps: int = 40
    detokenizer_steps: int = 200
    save_every: int = 20
    seed: int = 0
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("window", "autoencoder_steps", "story_model_steps", "detokenizer_steps", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("data", "out", "model", "split"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, not {getattr(self, name)!r}")
        if self.fit not in get_args(Fit):
            raise ValueError(f"fit must be one of {', '.join(get_args(Fit))}, not {self.fit!r}")


def finetune(config: FinetuneConfig) -> Path:
    """Fine-tune a model, or go on with it: parts that are finished are not run again.

    Returns:
        The folder of the new model.

    Raises:
        ValueError: There is no such model or book, a picture is damaged, or `out` holds another fine-tuning.
        Interrupted: As `training.loop.fit`.
    """
    out = Path(config.out)
    model = check_model(config.model)
    prepare_run(config, model)
    parts = (
        (autoencoder_config(config, model), AutoencoderStage),
        (story_model_config(config, model), MllmStage),
        (detokenizer_config(config, model), AdaptStage),
    )
    for number, (part, make) in enumerate(parts, start=1):
        finished = Path(part.out) / _FINISHED
        name = f"part {number} of {len(parts)}, {finished.parent.name}"
        if finished.is_file():
            print(f"{name}: finished before", flush=True)
            continue
        print(f"{name}: {part.steps} steps", flush=True)
        if number > 1:
            assemble_model(model, out / "pictures" / "autoencoder", out / "start")
        train(part, make)
        finished.touch()
    if not (out / _FIGURES).is_file():
        assemble(out / "start", out / "story", out / "model", out / "drawing")
        show(config, {"before": model, "after": out / "model"})
    figures = json.loads((out / _FIGURES).read_text("utf-8"))
    print(", ".join(f"{name} {value['before']:.1f} -> {value['after']:.1f} dB" for name, value in figures.items()))
    print(f"the new model is {out / 'model'}, what it draws is on {out / 'book.png'}")
    return out / "model"


def check_model(name: str) -> Path:
    """The folder of a model that these stages can go on from."""
    folder = find_model(name)
    detokenizer = Detokenizer.from_pretrained(folder / "detokenizer")
    if detokenizer.form != "mini":
        raise ValueError(f"{name} draws with another kind of de-tokenizer than mini does: it cannot be fine-tuned here")
    return folder


def image_size(model: Path) -> int:
    """Side in px of the images that a model draws and reads."""
    return Detokenizer.from_pretrained(model / "detokenizer").image_size


def prepare_run(config: FinetuneConfig, model: Path) -> None:
    """Write the book as square pages into `out/pages`; or see that this was done, for the same book and settings.

    Raises:
        ValueError: As `finetune`.
    """
    if not Path(config.data).is_dir():
        raise ValueError(
            f"there is no folder {config.data}: import the book first, such as with "
            f"python -m data_tools.importers books FOLDER --out {config.data}"
        )
    splits = {"train": config.split} | ({"heldout": config.heldout} if config.heldout else {})
    stories = {name: open_split(config.data, split) for name, split in splits.items()}
    for name, split in splits.items():
        if not len(stories[name]):
            raise ValueError(f"{config.data} has no story in the split {split!r}")
    now = {key: value for key, value in dataclasses.asdict(config).items() if key not in _OF_THE_MACHINE}
    now |= {"weights": model_identity(model).fingerprint}
    now |= {f"{name}_stories": stories_fingerprint(reader) for name, reader in stories.items()}
    begun = Path(config.out) / _BEGUN
    if begun.is_file():
        was = json.loads(begun.read_text("utf-8"))
        differing = [key for key in now if was.get(key) != now[key]]
        if differing:
            raise ValueError(
                f"{config.out} holds the fine-tuning of another book, model or settings "
                f"({', '.join(differing)}): choose another `out`, or delete that folder"
            )
        return
    pages, side = Path(config.out) / "pages", image_size(model)
    for name, reader in stories.items():
        records = []
        for number, story in enumerate(reader):
            images = [f"{name}/{number:05d}/{page:05d}.png" for page in range(len(story.record))]
            for page, image in enumerate(images):
                (pages / image).parent.mkdir(parents=True, exist_ok=True)
                to_square(story.image(page), side, config.fit).save(pages / image)
            # What is known of each page is known of the picture as it was, not of the square.
            records.append(dataclasses.replace(story.record, images=images, pages=None))
        write_jsonl(pages / f"{name}.jsonl", records)
    begun.write_text(json.dumps(now, indent=1) + "\n", "utf-8")  # last, so that what was cut short is done again


def assemble_model(model: Path, autoencoder: Path, out: Path) -> None:
    """Write the model's vision tower and de-tokenizer with another autoencoder, as parts 2 and 3 read them."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(model / "vision_tower", out / "vision_tower")
    detokenizer = Detokenizer.from_pretrained(model / "detokenizer")
    detokenizer.autoencoder = ImageAutoencoder.from_pretrained(autoencoder)
    detokenizer.save_pretrained(out / "detokenizer")


# ------------------------------------------------------------------------------------------------------ the three parts


def common(config: FinetuneConfig, part: str, steps: int) -> dict[str, Any]:
    """Settings that all parts share."""
    return {
        "data": str(Path(config.out) / "pages"),
        "heldout": "heldout" if config.heldout else "train",
        "out": str(Path(config.out) / part),
        "steps": steps,
        "save_every": config.save_every,
        "eval_every": steps,
        "log_every": max(1, steps // 5),
        "keep_checkpoints": 1,
        "seed": config.seed,
        "device": config.device,
        "threads": config.threads,
    }


def autoencoder_config(config: FinetuneConfig, model: Path) -> AutoencoderConfig:
    return AutoencoderConfig(
        **common(config, "pictures", config.autoencoder_steps),
        init=str(model / "detokenizer" / "autoencoder"),
        image_size=image_size(model),
        decoder_only=True,
        batch_size=8,
        muon_lr=3e-3,
        adam_lr=5e-4,
        max_grad_norm=0,
        average=0.98,
    )


def story_model_config(config: FinetuneConfig, model: Path) -> MllmConfig:
    return MllmConfig(
        **common(config, "story", config.story_model_steps),
        **of_stories(config, model),
        init=str(model / "story_model"),
        window=config.window,
        max_pages=config.window,  # no gaps: with few books every page has to come as often as every other
        batch_size=1,
        muon_lr=2e-2,
        adam_lr=3e-4,  # of LoRA: at 2e-3 forty steps know a book by heart, and the model writes nothing else
        own_features_from=0.6,
    )


def detokenizer_config(config: FinetuneConfig, model: Path) -> AdaptConfig:
    return AdaptConfig(
        **common(config, "drawing", config.detokenizer_steps),
        **of_stories(config, model),
        story_model=str(Path(config.out) / "story" / "story_model"),
        batch_size=8,
        muon_lr=3e-3,
        adam_lr=5e-4,
        average=0.98,
    )


def of_stories(config: FinetuneConfig, model: Path) -> dict[str, Any]:
    """Settings of the parts that read stories."""
    return {"stage1": str(Path(config.out) / "start"), "base_lm": base_lm_name(model / "story_model")}


# ------------------------------------------------------------------------------------------------------ what came of it


def show(config: FinetuneConfig, models: dict[str, Path]) -> None:
    """Write `book.json` and `book.png`: the pages, and what each model draws for the book's own words.

    PSNR in dB against the pages, of pictures through their visual tokens (`rebuilt`) and of pictures that the story
    model regressed from the words and its own earlier pictures (`regressed`).
    """
    part = detokenizer_config(config, models["before"])
    backend = Backend(part)
    figures: dict[str, dict[str, float]] = {"rebuilt": {}, "regressed": {}}
    rows: list[Tensor] = []
    for name, folder in models.items():
        stories = StoryDataset(part, part.heldout, backend, limit=8)
        pages = PageImages(part.data, part.heldout, image_size(folder), limit=stories.starts[-1])
        pixels, _ = pages.batch(torch.arange(stories.starts[-1]))
        story_model = StoryModel.from_pretrained(
            folder / "story_model", base_model=part.base_lm, dtype=fast_dtype(backend.device)
        ).to(backend.device)
        generated = regress_features(story_model, stories, backend, part.seed + 1)
        features = {"rebuilt": stories.features[: len(generated)], "regressed": generated}
        del story_model
        detokenizer = Detokenizer.from_pretrained(folder / "detokenizer").to(backend.device)
        rows = rows or [pixels[:SHOWN] / 2 + 0.5]
        for kind, values in features.items():
            drawn = [draw_images(detokenizer, some.float().to(backend.device)) for some in values.split(64)]
            figures[kind][name] = round(psnr(2 * torch.cat(drawn) - 1, pixels).mean().item(), 2)
        rows.append(drawn[0][:SHOWN])
    backend.close()
    sheet = torch.cat([torch.cat(list(row.clamp(0, 1)), 2) for row in rows], 1)
    array = (sheet * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(array).save(Path(config.out) / "book.png")
    (Path(config.out) / _FIGURES).write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def main() -> None:
    """Command line, as of every stage."""
    run_command(FinetuneConfig, finetune, __doc__)


if __name__ == "__main__":
    main()
