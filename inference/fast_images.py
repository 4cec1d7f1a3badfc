"""Time of a picture, the ways of `docs/guides/fast_pictures.md` in turns, beside the plain one.

\b
python -m inference.fast_images                    # a random U-Net of SDXL's structure, a hundredth of its size
python -m inference.fast_images --model mini       # the de-tokenizer of a model, 'mini' or a folder
python -m inference.fast_images --model sdxl --device cuda --dtype float16 --compile    # SDXL's sizes, random weights

Each turn draws once each way, so that a busy machine is busy for all of them; on a CPU the clock counts this process
alone. The ratio of a way is the median over the turns of its time by that of the first way in the same turn. Nothing
is downloaded.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from rich.console import Console
from rich.table import Table

from inference.instruments import clock, machine
from seedstory.detokenizers.adapters import ResamplerAdapter
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.kl_autoencoder import KLAutoencoder
from seedstory.model_folder import find_model

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Widths, heads and widths of the condition of SDXL, and the same proportions at a hundredth of the weights.
SHAPES = {
    "sdxl": {"widths": (320, 640, 1280), "heads": (5, 10, 20), "side": 128, "tokens": 64, "context": 2048},
    "small": {"widths": (32, 64, 128), "heads": (1, 2, 4), "side": 32, "tokens": 4, "context": 204},
}


@dataclass(frozen=True)
class Way:
    """A way to draw: what is turned on before, and how the de-tokenizer is called."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    enable: Callable[[Detokenizer], Any] = lambda detokenizer: None
    pages: int = 1
    exact: bool = True  # but for rounding


def random_detokenizer(shape: str) -> Detokenizer:
    """A de-tokenizer of SDXL's structure with random weights."""
    sizes: dict[str, Any] = SHAPES[shape]
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=sizes["side"],
        block_out_channels=sizes["widths"],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=sizes["heads"],
        use_linear_projection=True,
        cross_attention_dim=sizes["context"],
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + 1280,
    )
    widths = (128, 256, 512, 512) if shape == "sdxl" else (8, 16)
    vae = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
    )
    adapter = ResamplerAdapter(64, 64, sizes["tokens"], sizes["context"], 1280, width=64, depth=1, heads=1)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = EulerDiscreteScheduler(**schedule, timestep_spacing="leading", steps_offset=1)
    return Detokenizer(unet.eval(), adapter.eval(), KLAutoencoder(vae.eval()), scheduler)


def ways(form: str, steps: int, pages: int, compiles: bool) -> list[Way]:
    """All ways of one form; the first is the plain one."""
    asked = {"num_inference_steps": steps} | ({"guidance_scale": 7.5} if form == "sdxl" else {})

    def one_pass(detokenizer: Detokenizer) -> None:
        detokenizer.guides_in_one_pass = True

    found = [
        Way("plain", asked),
        Way("context cache", asked, Detokenizer.enable_context_cache),
        Way("fused QKV", asked, Detokenizer.fuse_qkv_projections),
        Way("channels last", asked, lambda detokenizer: detokenizer.to(memory_format=torch.channels_last)),
        Way("fast path", asked, Detokenizer.enable_fast_path),
        Way(f"fast path, {pages} pages in a batch", asked, Detokenizer.enable_fast_path, pages),
    ]
    if form == "sdxl":
        found.insert(4, Way("guidance in one pass", asked, one_pass))
        part = asked | {"guidance_interval": (0.2, 0.8)}
        found.append(Way("guidance in 0.2 to 0.8 of the steps", part, exact=False))
        found += [
            Way(f"{name}, {count} steps", {"scheduler": name, "num_inference_steps": count}, exact=False)
            for name, count in (("euler", 50), ("dpmsolver++", 20), ("lightning", 4))
        ]
    else:
        found.append(Way("2 steps", {"num_inference_steps": 2}, exact=False))
    if compiles:
        found.append(Way("fast path, compiled", asked, lambda detokenizer: detokenizer.enable_fast_path(compile=True)))
    return found


@torch.inference_mode()
def measure(detokenizer: Detokenizer, some: list[Way], turns: int) -> dict[str, dict[str, float]]:
    """Seconds a picture, ratio to the first way and, where it ought to be exact, the greatest difference in pixels."""
    config = detokenizer.adapter.config
    shape = (max(way.pages for way in some), config.num_features, config.feature_dim)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(detokenizer.device, detokenizer.dtype)
    seconds: dict[str, list[float]] = {way.name: [] for way in some}
    images: dict[str, torch.Tensor] = {}

    def now() -> float:
        return time.process_time() if detokenizer.device.type == "cpu" else clock(detokenizer.device)

    for turn in range(turns + 1):  # the first one warms up
        for way in some:
            way.enable(detokenizer)
            seeds = [torch.Generator().manual_seed(page) for page in range(way.pages)]
            if detokenizer.is_compiled:  # which the first drawing is
                detokenizer(features[: way.pages], seeds, output_type="pt", **way.options)
            start = now()
            pixels = detokenizer(features[: way.pages], seeds, output_type="pt", **way.options)
            if turn:
                seconds[way.name].append((now() - start) / way.pages)
            assert isinstance(pixels, torch.Tensor)
            images.setdefault(way.name, pixels[:1].float().cpu())
            detokenizer.disable_fast_path()
    plain = some[0].name
    figures = {}
    for way in some:
        ratios = [one / other for one, other in zip(seconds[way.name], seconds[plain], strict=True)]
        figures[way.name] = {"seconds": statistics.median(seconds[way.name]), "ratio": statistics.median(ratios)}
        if way.exact:
            figures[way.name]["difference"] = (images[way.name] - images[plain]).abs().max().item()
    return figures


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def main(
    model: Annotated[str, typer.Option(help="small or sdxl (random weights), mini, or a model folder")] = "small",
    steps: Annotated[int, typer.Option(help="of the ways that ought to be exact", min=1)] = 4,
    pages: Annotated[int, typer.Option(help="in a batch", min=1)] = 4,
    turns: Annotated[int, typer.Option(help="of all ways, after one that warms up", min=1)] = 5,
    compile_blocks: Annotated[bool, typer.Option("--compile", help="also with compiled blocks")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
) -> None:
    if dtype not in TYPES:
        raise typer.BadParameter(f"choose one of {', '.join(TYPES)}", param_hint="--dtype")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter("torch sees no GPU here", param_hint="--device")
    try:
        detokenizer = (
            random_detokenizer(model)
            if model in SHAPES
            else Detokenizer.from_pretrained(find_model(model) / "detokenizer")
        ).to(device)
        if dtype != "float32":
            detokenizer.to(TYPES[dtype])
        figures = measure(detokenizer, ways(detokenizer.form, steps, pages, compile_blocks), turns)
        if json_file:
            facts = {"model": model, "steps": steps, "machine": machine(detokenizer.device), "ways": figures}
            json_file.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    table = Table(title=f"{model}, {steps} steps, {turns} turns")
    for name in ("way", "ms a picture", "ratio", "largest difference (0 to 1)"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for name, found in figures.items():
        difference = found.get("difference")
        table.add_row(
            name,
            f"{1000 * found['seconds']:.0f}",
            f"{found['ratio']:.2f}",
            "" if difference is None else f"{difference:.1e}",
        )
    Console().print(table)


if __name__ == "__main__":
    app()
