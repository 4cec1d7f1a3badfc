"""Schedulers by name: ways from noise to latents in fewer steps, each with its own steps and guidance.

A name and the schedule that a U-Net was trained on (its betas, and what it predicts) decide a scheduler; nothing else
of the one it replaces is kept. So `make_scheduler` gives the same one whatever was set before.

`lcm`, `tcd` and `lightning` need weights that were distilled for them, mostly a LoRA (`Detokenizer.load_lora_weights`):
latent consistency (arXiv 2310.04378), trajectory consistency (arXiv 2402.19159), and adversarial distillation
(arXiv 2402.13929), whose students are drawn with plain Euler steps. The others draw from any weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler

from seedstory.errors import ModelError

_SCHEDULE = (  # what the U-Net was trained on
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("prediction_type", "rescale_betas_zero_snr"),
)
_NAME = "_seedstory_scheduler"  # diffusers keeps what begins with an underscore in a config, and does not use it
_PUBLISHED: dict[str, Any] = {"timestep_spacing": "leading", "steps_offset": 1}  # as SDXL is published


@dataclass(frozen=True)
class SchedulerChoice:
    """A scheduler that has a name.

    Args:
        class_name: Of diffusers.
        num_inference_steps: Steps that are enough.
        guidance_scale: Of classifier-free guidance; 1.0 is none.
        distilled: Whether it needs weights that were distilled for it.
        settings: Of the scheduler, beside the schedule of the U-Net.
    """

    class_name: str
    num_inference_steps: int
    guidance_scale: float
    distilled: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


SCHEDULERS: dict[str, SchedulerChoice] = {
    "euler": SchedulerChoice("EulerDiscreteScheduler", 50, 7.5, settings=_PUBLISHED),
    "euler_ancestral": SchedulerChoice("EulerAncestralDiscreteScheduler", 30, 7.5, settings=_PUBLISHED),
    "ddim": SchedulerChoice(
        "DDIMScheduler", 50, 7.5, settings=_PUBLISHED | {"clip_sample": False, "set_alpha_to_one": False}
    ),
    "dpmsolver++": SchedulerChoice("DPMSolverMultistepScheduler", 20, 7.5, settings={"use_karras_sigmas": True}),
    "unipc": SchedulerChoice("UniPCMultistepScheduler", 20, 7.5, settings={"use_karras_sigmas": True}),
    "lcm": SchedulerChoice("LCMScheduler", 4, 1.0, distilled=True),
    "tcd": SchedulerChoice("TCDScheduler", 4, 1.0, distilled=True),
    "lightning": SchedulerChoice(
        "EulerDiscreteScheduler", 4, 1.0, distilled=True, settings={"timestep_spacing": "trailing"}
    ),
}
_BY_CLASS = {"DPMSolverMultistepScheduler": "dpmsolver++", "UniPCMultistepScheduler": "unipc"} | {
    choice.class_name: name
    for name, choice in SCHEDULERS.items()
    if choice.class_name in ("LCMScheduler", "TCDScheduler")
}


def check_scheduler(name: str) -> None:
    """Refuse a name that no scheduler has.

    Raises:
        ModelError: There is no such scheduler.
    """
    if name not in SCHEDULERS:
        raise ModelError(f"unknown scheduler {name!r}: choose one of {', '.join(SCHEDULERS)}")


def make_scheduler(name: str, like: Any) -> Any:
    """The scheduler of a name, for the U-Net that another scheduler draws with.

    Args:
        name: One of `SCHEDULERS`.
        like: A scheduler of the U-Net; its schedule and its `prediction_type` are kept.

    Raises:
        ModelError: There is no such scheduler, or it does not fit what the U-Net predicts.
    """
    check_scheduler(name)
    choice = SCHEDULERS[name]
    if isinstance(like, FlowMatchEulerDiscreteScheduler):
        if name == "euler":
            return like
        raise ModelError(
            f"the scheduler {name} does not fit this de-tokenizer, which learned rectified flow: choose euler, or none"
        )
    kept = {key: like.config[key] for key in _SCHEDULE if key in like.config}
    kind = getattr(diffusers, choice.class_name)
    made = kind.from_config(kept | choice.settings)
    if made.config.get("prediction_type") != like.config.get("prediction_type", "epsilon"):
        raise ModelError(f"the scheduler {name} does not fit this de-tokenizer, which predicts another thing")
    made.register_to_config(**{_NAME: name})
    return made


def scheduler_choice(scheduler: Any) -> SchedulerChoice | None:
    """What is known of a scheduler, by its name or by its class; None for any other one."""
    name = scheduler.config.get(_NAME) or _BY_CLASS.get(type(scheduler).__name__)
    return SCHEDULERS.get(name) if isinstance(name, str) else None
