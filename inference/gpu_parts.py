"""The parts of `inference.gpu_check`. Each one measures on weights drawn at random on the device, and needs no file.

A part notes a figure as soon as it has it. One that lacks a library raises `Skipped`.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.instruments import GB, bandwidth, bytes_per_step, clock

Note = Callable[[str, Any], None]
REPOSITORY = Path(__file__).resolve().parents[1]


class Skipped(Exception):
    """A part cannot run here; the message says why."""


@dataclass(frozen=True)
class Settings:
    """What the parts share.

    Attributes:
        device: Where they run.
        tiny: Sizes that any CPU runs in seconds, to try the parts themselves; their figures mean nothing.
        quick: First figures alone: fewer repeats, and nothing that is compiled.
    """

    device: torch.device
    tiny: bool = False
    quick: bool = False


def needs(*packages: str) -> None:
    """Skip a part that lacks a package.

    Raises:
        Skipped: One is not installed.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise Skipped(f"not installed: {', '.join(missing)}")


def peak(settings: Settings, note: Note) -> None:
    """Note the most memory that torch had allocated on the GPU since the part began."""
    if settings.device.type == "cuda":
        note("peak_memory_gb", round(torch.cuda.max_memory_allocated(settings.device) / GB, 3))


# ---------------------------------------------------------------------------------------------------------------- tests


def files_of_tests() -> list[Path]:
    """The files that hold tests that need a GPU. Others are not even imported: they may need more libraries."""
    files = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    return [file for file in files if "mark.cuda" in file.read_text("utf-8")]


def tests(settings: Settings, note: Note, files: Iterable[Path] | None = None) -> None:
    """Run the tests that need a GPU."""
    needs("pytest", "hypothesis")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "-ra"]
    command += [str(file) for file in (files_of_tests() if files is None else files)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-500:]]
    for word in ("passed", "failed", "skipped", "error"):
        found = re.search(rf"(\d+) {word}", lines[-1])
        note(word, int(found[1]) if found else 0)
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    note("failures", failures or ([] if done.returncode in (0, 5) else lines[-5:]))


# ------------------------------------------------------------------------------------------------------- language model


def language_model(settings: Settings, note: Note) -> None:
    """Decoding of the 7B shape against the copy bandwidth, and a page against the reference's algorithm."""
    needs("peft", "PIL")
    from inference.baselines import WINDOW_PAGES
    from inference.benchmark import Options, baselines, figures, generate_story, opening_pages, ours
    from inference.model_shapes import load

    device, tokens = settings.device, 6 if settings.tiny else 46
    speed = statistics.median(bandwidth(device, 2**22 if settings.tiny else 2**29, 3 if settings.tiny else 10))
    note("copy_bandwidth_gb_per_s", round(speed, 1))
    started = clock(device)
    model = load("tiny" if settings.tiny else "llama2-7b", device)
    note("load_s", round(clock(device) - started, 2))
    note("weights_gb_per_step", round(bytes_per_step(model)[0] / GB, 3))
    decodings = ("eager", "static") if settings.quick or settings.tiny else ("eager", "static", "compiled")
    count = 1 if settings.quick or settings.tiny else 2
    options = Options(decodings=decodings, pages=count, caption_tokens=tokens, repeats=1, seed=0, quick=settings.quick)
    opening = opening_pages(model, options, 2 if settings.tiny else WINDOW_PAGES)
    slow, pages = 0.0, dict[str, float]()
    for name in ("eager", "reference", *decodings[1:]):
        system = baselines(model, options)[name] if name == "reference" else ours(model, options, name)
        first, story = generate_story(system, opening, options, device)
        seconds = statistics.median(page.seconds for page in story)
        found = figures(model, system, [story], speed, None)
        note(f"{name}.page_ms", round(1e3 * seconds, 1))
        note(f"{name}.decode_tokens_per_s", found["decode_tokens_per_s"]["median"])
        note(f"{name}.decode_share_of_copy_bandwidth", found["decode_bandwidth_share"])
        note(f"{name}.first_page_s", round(first, 2))
        note(f"{name}.compile_s", round(max(0.0, first - seconds), 2))
        if name == "reference":
            slow = seconds
        else:
            pages[name] = seconds
        for ours_is, one in pages.items():
            if slow:
                note(f"{ours_is}.speedup_over_reference", round(slow / one, 2))
    peak(settings, note)


# -------------------------------------------------------------------------------------------------------------- stage 2


def stage2(settings: Settings, note: Note) -> None:
    """Steps of stage 2 with 32 stories of ten pages, as the mini trains, and what share of them is arithmetic."""
    needs("peft")
    from transformers import AutoModelForCausalLM, LlamaConfig

    from inference.model_shapes import SHAPES, script, word_tokenizer
    from seedstory.layout import attention_mask, collate, find_places
    from seedstory.modeling import StoryModel
    from seedstory.modeling.flash_attention import find_runs

    device, tiny = settings.device, settings.tiny
    stories, pages, tokens, steps = (2, 3, 8, 2) if tiny else (32, 10, 46, 5 if settings.quick else 20)
    mixed = device.type == "cuda"
    rate = products_per_s(device, 256 if tiny else 8192)
    note("products_tflop_per_s", round(rate / 1e12, 3))
    shape = SHAPES["tiny" if tiny else "smollm2-135m"]
    names = [f"{side}_resampler_{what}" for side in ("input", "output") for what in ("width", "depth", "heads")]
    small: dict[str, Any] = dict(zip(names, (16, 1, 2) * 2, strict=True)) if tiny else {}
    torch.manual_seed(0)
    with torch.device(device):
        config = LlamaConfig(**shape, max_position_embeddings=8192)
        llm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if mixed else torch.float32)
        model = StoryModel.from_base(
            llm, tokenizer=word_tokenizer(config.vocab_size), num_visual_tokens=16, feature_tokens=64, feature_dim=64,
            lora_rank=16, dtype=llm.dtype, **small,
        )  # fmt: skip
    model = model.to(device).train()
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW([weight for _, weight in named], lr=1e-4, fused=device.type == "cuda")
    assert model.layout is not None
    packed = [model.layout.pack_story(script(model.layout, pages, tokens))] * stories
    batch: dict[str, Any] = collate(packed, mask=False)
    branch, order, spans = (batch.pop(name) for name in ("branch", "order", "spans"))
    places = find_places(*(batch[name] for name in ("labels", "context_mask", "query_mask", "target_mask")))
    length = batch["input_ids"].shape[1]
    by_runs = model.takes_runs(device, torch.bfloat16 if mixed else torch.float32)
    note("attention", "runs" if by_runs else "mask")
    note("tokens_a_step", stories * length)
    batch = {name: value.to(device) for name, value in batch.items() if name != "context_length"}
    batch["places"] = type(places)(*(part if part is None else part.to(device) for part in places))
    runs = find_runs(spans, length)
    moved: list[Any] = [part.to(device) if torch.is_tensor(part) else part for part in runs]
    batch["spans"] = type(runs)(*moved)
    features = torch.randn(2, stories * pages, 64, 64, device=device)
    batch |= {"context_features": features[0], "target_features": features[1]}
    branch, order = branch.to(device), order.to(device)

    def step() -> None:
        mask = None if by_runs else attention_mask(branch, order)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = model(**batch, attention_mask=mask).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weight for _, weight in named], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    started = clock(device)
    step()
    note("first_step_s", round(clock(device) - started, 2))
    step()
    started, asked = clock(device), 0.0
    for _ in range(steps):
        begun = clock(torch.device("cpu"))
        step()
        asked += clock(torch.device("cpu")) - begun
    seconds = (clock(device) - started) / steps
    arithmetic = flops(model, int((branch != -2).sum()), len(places.labels if places.labels is not None else ())) / rate
    note("step_s", round(seconds, 4))
    note("steps_per_s", round(1 / seconds, 3))
    note("host_s_a_step", round(asked / steps, 4))
    note("arithmetic_s_a_step", round(arithmetic, 4))
    note("share_of_arithmetic_limit", round(arithmetic / seconds, 3))
    peak(settings, note)


def products_per_s(device: torch.device, side: int) -> float:
    """Floating-point operations a second of a large product of matrices, in the type that training multiplies in."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        started = clock(device)
        for _ in range(4):
            left @ right
        best = min(best, (clock(device) - started) / 4)
    return 2 * side**3 / best


def flops(model: Any, tokens: int, labels: int) -> float:
    """What the products of a step with weights cost at least: forward, gradients of inputs, and those of LoRA.

    Padding, the resamplers and the scores of attention are left out, so that the limit is one.
    """
    weights = list(model.llm.base_model.named_parameters())
    embedding = model.llm.get_input_embeddings().weight
    lora = sum(weight.numel() for name, weight in weights if ".lora_" in name)
    frozen = sum(w.numel() for name, w in weights if w.ndim == 2 and ".lora_" not in name and w is not embedding)
    return tokens * (4.0 * frozen + 6.0 * lora) + labels * 4.0 * embedding.numel()


# -------------------------------------------------------------------------------------------------------------- images


def sdxl(settings: Settings, note: Note) -> None:
    """An SDXL page against diffusers' own pipeline: the same weights, condition, starting noise and steps."""
    needs("diffusers", "accelerate", "PIL")
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    from inference.model_shapes import SDXL_SHAPES
    from seedstory.detokenizers.adapters import ResamplerAdapter
    from seedstory.detokenizers.detokenizer import Detokenizer
    from seedstory.detokenizers.kl_autoencoder import KLAutoencoder

    device, shapes = settings.device, SDXL_SHAPES["tiny" if settings.tiny else "sdxl"]
    dtype = torch.float32 if settings.tiny else torch.bfloat16
    steps, repeats = (2, 1) if settings.tiny else (4, 1) if settings.quick else (30, 2)
    torch.manual_seed(0)
    started = clock(device)
    with torch.device(device):
        unet = UNet2DConditionModel(**shapes["unet"]).to(dtype).eval()
        vae = KLAutoencoder(AutoencoderKL(**shapes["vae"]).to(dtype).eval())
        width = unet.config.cross_attention_dim
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        side = unet.config.sample_size * vae.downscale
        adapter = ResamplerAdapter(
            feature_dim=64, num_features=64, context_tokens=64, cross_attention_dim=width, pooled_dim=pooled,
            image_size=side, width=64 if settings.tiny else 1024, depth=1 if settings.tiny else 4,
            heads=1 if settings.tiny else 16,
        ).to(dtype).eval()  # fmt: skip
    note("load_s", round(clock(device) - started, 2))
    euler = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    scheduler = EulerDiscreteScheduler(**euler, timestep_spacing="leading")
    detokenizer = Detokenizer(unet, adapter, vae, scheduler)
    theirs = AutoencoderKL(**shapes["vae"]).to(device, dtype).eval()
    theirs.load_state_dict(vae.vae.state_dict())
    pipeline = StableDiffusionXLPipeline(
        vae=theirs, unet=unet, scheduler=EulerDiscreteScheduler.from_config(scheduler.config), text_encoder=None,
        text_encoder_2=None, tokenizer=None, tokenizer_2=None, force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    features = torch.randn(1, 64, 64, device=device, dtype=dtype)
    noise = torch.randn(1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size, device=device)
    with torch.no_grad():
        shown, hidden = (adapter(one).inputs for one in (features, adapter.blank(features)))

    def by_ours() -> torch.Tensor:
        drawn = detokenizer(features, num_inference_steps=steps, guidance_scale=5.0, output_type="pt", latents=noise)
        assert isinstance(drawn, torch.Tensor)
        return drawn

    def by_diffusers() -> torch.Tensor:
        return pipeline(
            prompt_embeds=shown["encoder_hidden_states"],
            pooled_prompt_embeds=shown["added_cond_kwargs"]["text_embeds"],
            negative_prompt_embeds=hidden["encoder_hidden_states"],
            negative_pooled_prompt_embeds=hidden["added_cond_kwargs"]["text_embeds"],
            num_inference_steps=steps, guidance_scale=5.0, height=side, width=side, latents=noise.to(dtype),
            output_type="pt",
        ).images  # fmt: skip

    note("side_px", side)
    note("steps", steps)
    systems = {"diffusers": by_diffusers, "ours": by_ours}
    drawn: dict[str, torch.Tensor] = {}
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for turn, (name, draw) in itertools.product(range(repeats + 1), systems.items()):
        started = clock(device)
        drawn[name] = draw()
        taken = clock(device) - started
        if not turn:  # kernels are chosen and memory is taken
            note(f"{name}.first_page_s", round(taken, 3))
            continue
        seconds[name].append(taken)
        note(f"{name}.page_s", round(statistics.median(seconds[name]), 3))
        if all(seconds.values()):
            ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["diffusers"])
            note("time_over_diffusers", round(ratio, 3))
    note("mean_difference", round((drawn["ours"].float() - drawn["diffusers"].float()).abs().mean().item(), 5))
    peak(settings, note)


PARTS: dict[str, Callable[[Settings, Note], None]] = {
    "stage2": stage2,
    "language_model": language_model,
    "sdxl": sdxl,
    "tests": tests,
}
