"""Make the vision part of a pretrained model a vision tower, for stage 1b in all forms but mini, and what comes after.

python -m training.tower --network facebook/dinov2-base --image-size 224 --grid-size 16 --out runs/own/tower
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedstory.modeling.pretrained_tower import PretrainedTower
from training.command import run_function


def command(
    network: Annotated[str, typer.Option(help="Folder or Hub id of CLIP, SigLIP, SigLIP 2, DINOv2 or DINOv3.")],
    out: Annotated[Path, typer.Option(help="Folder of the vision tower.")],
    image_size: Annotated[int | None, typer.Option(help="Side of the images it reads; that of pretraining.")] = None,
    grid_size: Annotated[int | None, typer.Option(help="Side of the grid of features; one for each patch.")] = None,
) -> None:
    """Write the tower and say what features it gives."""
    tower = PretrainedTower.from_network(network, image_size=image_size, grid_size=grid_size)
    tower.save_pretrained(out)
    size, width = tower.config.image_size, tower.config.feature_dim
    print(f"{out}: images of {size} px become {tower.num_features} features of width {width}")


def main() -> None:
    """Command line."""
    run_function(command, __doc__)


if __name__ == "__main__":
    main()
