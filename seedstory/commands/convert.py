"""`seedstory convert`: a model folder from checkpoints that others have released, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedstory.error_reporting import reported_errors
from seedstory.errors import RequestError
from seedstory.progress_display import quiet_libraries

TYPES = ("bfloat16", "float16", "float32", "released")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Make a model folder of checkpoints that others have released, and back.",
)


@app.callback()
def _root() -> None:
    """Make a model folder of checkpoints that others have released, and back."""


@app.command("seed-story")
def seed_story(
    agent: Annotated[Path, typer.Option(help="pytorch_model.bin of the language model.", show_default=False)],
    vision_tower: Annotated[
        Path, typer.Option(help="qwen_vit_G.pt, or the folder of Qwen-VL-Chat.", show_default=False)
    ],
    detokenizer: Annotated[Path, typer.Option(help="pytorch_model.bin of the de-tokenizer.", show_default=False)],
    tokenizer: Annotated[Path, typer.Option(help="The folder cvlm_llama2_tokenizer.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The model folder to write, a new one.", show_default=False)],
    sdxl: Annotated[
        str, typer.Option(help="Stable Diffusion XL: a folder in diffusers' layout, or a Hub id.")
    ] = "stabilityai/stable-diffusion-xl-base-1.0",
    keep_lora: Annotated[bool, typer.Option("--keep-lora", help="Keep LoRA apart, to train it further.")] = False,
    dtype: Annotated[str, typer.Option(help=f"Type of the large networks: {', '.join(TYPES)}.")] = TYPES[0],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every name and shape, and write nothing.")] = False,
) -> None:
    """Make a model of SEED-Story's released checkpoints. They are checked as a whole before anything is written.

    **Example**: seedstory convert seed-story --agent seed_story/george_sft/pytorch_model.bin
    --vision-tower qwen_vit_G.pt --detokenizer detokenizer/checkpoint-4000/pytorch_model.bin
    --tokenizer cvlm_llama2_tokenizer --out models/george
    """
    with reported_errors():
        if dtype not in TYPES:
            raise RequestError(f"--dtype must be one of {', '.join(TYPES)}, not {dtype!r}")
        if out.exists() and not dry_run:
            raise RequestError(f"{out} exists: choose a new folder, or remove it")
        quiet_libraries()
        import torch

        from seedstory.convert.seed_story import SeedStoryConversion, SeedStoryFiles

        files = SeedStoryFiles(agent, vision_tower, detokenizer, tokenizer, sdxl)
        kind = None if dtype == TYPES[-1] else getattr(torch, dtype)
        conversion = SeedStoryConversion(files, keep_lora=keep_lora, dtype=kind)
        for line in conversion.summary:
            typer.echo(line)
        if dry_run:
            typer.echo("All weights are there. Nothing was written.")
            return
        conversion.write(out, typer.echo)
        typer.echo(f"The model: {out}")


@app.command("to-seed-story")
def to_seed_story(
    model: Annotated[Path, typer.Argument(help="A model folder that `convert seed-story` made.", show_default=False)],
    tokenizer: Annotated[Path, typer.Option(help="The folder cvlm_llama2_tokenizer.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write, a new one.", show_default=False)],
    whole_unet: Annotated[
        bool, typer.Option("--whole-unet", help="The whole U-Net, and not its keys and values alone.")
    ] = False,
) -> None:
    """Write a converted model, perhaps trained further, as SEED-Story's own files.

    What was converted with `--dtype released --keep-lora` comes back bit by bit.

    **Example**: seedstory convert to-seed-story models/george --tokenizer cvlm_llama2_tokenizer --out released
    """
    with reported_errors():
        if out.exists():
            raise RequestError(f"{out} exists: choose a new folder, or remove it")
        quiet_libraries()
        from seedstory.convert.seed_story_release import SeedStoryRelease

        SeedStoryRelease(model, tokenizer, whole_unet=whole_unet).write(out, typer.echo)
        typer.echo(f"SEED-Story's files: {out}")
