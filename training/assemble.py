"""Put the trained parts together as one model folder.

python -m training.assemble --stage1 runs/mini/stage1 --stage2 runs/mini/stage2 --out seedstory/weights/mini
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.vision_tower import load_vision_tower
from seedstory.pipeline import StoryPipeline
from training.command import run_function


def assemble(stage1: Path, stage2: Path, out: Path, stage3: Path | None = None) -> None:
    """Write the folder that `StoryPipeline.from_pretrained` reads, all weights in bf16.

    Args:
        stage1: has `vision_tower/` and `detokenizer/`.
        stage2: has `story_model/`.
        out: the model folder; older parts in it are replaced.
        stage3: has the adapted `detokenizer/`; stage 1's is taken without it.
    """
    parts = {"story_model": stage2, "vision_tower": stage1, "detokenizer": stage3 or stage1}
    for name, folder in parts.items():
        if not (folder / name).is_dir():
            raise ValueError(f"{folder} has no {name}/: train that stage first")
        if (folder / name).resolve() == (out / name).resolve():
            raise ValueError(f"{out} holds {name}/, one of the parts: choose another --out")
    for name in parts:  # the model card beside them stays
        shutil.rmtree(out / name, ignore_errors=True)
    load_vision_tower(stage1 / "vision_tower", torch.bfloat16).save_pretrained(out / "vision_tower")
    Detokenizer.from_pretrained((stage3 or stage1) / "detokenizer", dtype=torch.bfloat16).save_pretrained(
        out / "detokenizer"
    )
    # The tokenizer is the base language model's, which comes with one.
    leave = shutil.ignore_patterns("tokenizer*", "chat_template*")
    source = stage2 / "story_model"
    shutil.copytree(
        source, out / "story_model", ignore=lambda folder, names: leave(folder, names) if Path(folder) == source else ()
    )
    StoryPipeline.write_index(out)
    for config in out.rglob("config.json"):
        values = json.loads(config.read_text("utf-8"))
        for part in (values, values.get("base_lm_config", {})):
            part.pop("_name_or_path", None)  # a folder of the machine that trained it
        config.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    megabytes = sum(path.stat().st_size for path in out.rglob("*.safetensors")) / 1e6
    print(f"{out}: {megabytes:.1f} MB of weights")


def command(
    stage1: Annotated[Path, typer.Option(help="Folder with vision_tower/ and detokenizer/.")],
    stage2: Annotated[Path, typer.Option(help="Folder with story_model/.")],
    out: Annotated[Path, typer.Option(help="The model folder.")],
    stage3: Annotated[Path | None, typer.Option(help="Folder with the adapted detokenizer/.")] = None,
) -> None:
    """Put the parts together."""
    assemble(stage1, stage2, out, stage3)


def main() -> None:
    """Command line."""
    run_function(command, __doc__)


if __name__ == "__main__":
    main()
