"""Visual features of a data set's pictures, computed once with the frozen vision tower."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedstory.modeling.vision_tower import VisionTower
from seedstory.storystream import read_jsonl
from training.pages import PagePictures


@torch.no_grad()
def page_features(data: str | Path, split: str, tower_folder: str | Path, device: torch.device | str) -> Tensor:
    """Features [N, F, D] (bf16) of all pages of a split, in the order of its JSONL.

    They are kept beside the data set in `features/`, under a name that holds the hashes of the
    tower's weights, the JSONL and the pictures' sizes, so that a change of any computes them anew.
    """
    data, tower_folder = Path(data), Path(tower_folder)
    digest = hashlib.sha256()
    for path in (tower_folder / "diffusion_pytorch_model.safetensors", data / f"{split}.jsonl"):
        digest.update(path.read_bytes())
    for record in read_jsonl(data / f"{split}.jsonl"):
        for image in record.images:
            digest.update(f"{image} {(data / image).stat().st_size}\n".encode())
    cache = data / "features" / f"{split}-{digest.hexdigest()[:16]}.safetensors"
    if cache.is_file():
        return load_file(cache)["features"]
    tower = VisionTower.from_pretrained(tower_folder).to(device, memory_format=torch.channels_last).eval()
    pictures = PagePictures(data, split, size=tower.config.image_size)
    parts = []
    for rows in torch.arange(len(pictures)).split(128):
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            parts.append(tower(pictures.batch(rows)[0].to(device)).to(torch.bfloat16).cpu())
    features = torch.cat(parts)
    cache.parent.mkdir(exist_ok=True)
    temporary = cache.with_suffix(".tmp")
    save_file({"features": features}, temporary)
    temporary.replace(cache)
    return features
