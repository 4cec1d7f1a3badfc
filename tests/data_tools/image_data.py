"""Pictures and data set folders, drawn for a test."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = "the fox went down to the river and found a small red boat under the old willow tree".split()


def drawing(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Smooth colored noise: no two seeds are alike, and each looks like itself in any size."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(30, 226, (9, 12, 3), np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def text_card(lines: int, size: tuple[int, int] = (320, 240), ink: str = "white", paper: str = "black") -> Image.Image:
    """A card with lines of text."""
    card = Image.new("RGB", size, paper)
    font = ImageFont.load_default(16)
    for line in range(lines):
        words = WORDS[line % 5 : line % 5 + 6]
        ImageDraw.Draw(card).text((30, 40 + 26 * line), " ".join(words), ink, font=font)
    return card


def framed(image: Image.Image, top: int = 0, side: int = 0, color: str = "black") -> Image.Image:
    """A picture between bars."""
    frame = Image.new("RGB", (image.width + 2 * side, image.height + 2 * top), color)
    frame.paste(image, (side, top))
    return frame


def caption(seed: int) -> str:
    """A caption of its own, in English."""
    draw = np.random.default_rng(seed)
    return f"On day {seed} {' '.join(WORDS[n] for n in draw.permutation(len(WORDS)))}."


def write_data(folder: Path, stories: dict[str, list[Image.Image]], split: str = "train", **facts) -> Path:
    """A data set folder of stories, each a list of pictures; `facts` are keys of every record."""
    lines = []
    for number, (name, image_files) in enumerate(stories.items()):
        images = [f"images/{name}/{page}.png" for page in range(len(image_files))]
        for path, image in zip(images, image_files, strict=True):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            image.save(folder / path)
        captions = [caption(1000 * number + 7 * page + len(split)) for page in range(len(image_files))]
        record = {"id": name, "images": images, "captions": captions, "orders": list(range(len(image_files)))}
        lines.append(json.dumps(record | facts))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def change(folder: Path, story: str, split: str = "train", **keys) -> None:
    """Changes keys of a story's record."""
    path = folder / f"{split}.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record["id"] == story:
            record.update(keys)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
