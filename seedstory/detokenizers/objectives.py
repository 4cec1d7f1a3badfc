"""What a de-tokenizer's U-Net predicts, how it learns that, and the way from noise to latents: by its scheduler.

Shapes: B batch, Z latent channels, h w latent grid. Latents are scaled to unit variance, a time is one number for each
picture of a batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Generator, Tensor

from seedstory.detokenizers.flow_matching import FlowMatching
from seedstory.detokenizers.schedulers import scheduler_choice
from seedstory.errors import ModelError

Predict = Callable[[Tensor, Tensor], Tensor]
"""From latents [B, Z, h, w] as the U-Net reads them and a time, the prediction [B, Z, h, w] in float32."""


class RectifiedFlow:
    """Clean latents are predicted from a straight line to noise (rectified flow, arXiv 2209.03003).

    A time runs from 0 (clean) to 1 (noise). Errors weigh as those of the velocity do, capped near time 0.

    Args:
        scheduler: its `shift` bends the time steps.
    """

    num_inference_steps = 4  # enough where the tokens fix the picture
    guidance_scale = 1.0

    def __init__(self, scheduler: FlowMatchEulerDiscreteScheduler) -> None:
        self.scheduler = scheduler

    def time(self, uniform: Tensor) -> Tensor:
        """A time to train on, from a number drawn from U[0, 1); late times are more frequent."""
        return (1 - uniform**1.5).clamp_min(1e-3)

    def timestep(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        """A time as the U-Net, which computes in `dtype`, takes it."""
        return 1000 * time.to(dtype)

    def noisy(self, latents: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Latents [B, Z, h, w] at the times [B]."""
        t = _per_image(time)
        return (1 - t) * latents + t * noise

    def target(self, latents: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be predicted, [B, Z, h, w], and how much its squared error weighs, [B, 1, 1, 1]."""
        return latents, (1 / _per_image(time).square()).clamp_max(9.0)

    def denoise(
        self, noise: Tensor, steps: int, predict: Predict, generator: Generator | list[Generator] | None
    ) -> Iterator[tuple[float, Tensor, Tensor]]:
        """Go from noise to latents; after each step its timestep, the latents so far, and what they seem to become."""
        scheduler = copy(self.scheduler)  # it counts steps, and two threads may draw
        scheduler.set_timesteps(steps, device=noise.device)
        latents = noise
        for step, timestep in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[step]
            clean = predict(latents, sigma)
            velocity = (latents - clean) / sigma
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            yield float(timestep), latents, clean


class Diffusion:
    """Noise, or the velocity v (arXiv 2202.00512), is predicted at a discrete time of a variance-preserving schedule.

    A time is a number of the scheduler's training steps. All times are equally frequent and weigh the same (DDPM,
    arXiv 2006.11239, equation 14), as SDXL was trained.

    Args:
        scheduler: any of diffusers that knows the schedule (`alphas_cumprod`); its config says what is predicted. Steps
            and guidance are those of `schedulers.SCHEDULERS`, where it is one of these.

    Raises:
        ModelError: The scheduler is of another kind.
    """

    num_inference_steps = 50  # these two as SEED-Story's scripts have them
    guidance_scale = 7.5

    def __init__(self, scheduler: Any) -> None:
        kind, name = scheduler.config.get("prediction_type"), type(scheduler).__name__
        if not hasattr(scheduler, "alphas_cumprod") or scheduler.config.get("timestep_type") == "continuous":
            raise ModelError(f"a de-tokenizer cannot draw with {name}: it has no discrete schedule (alphas_cumprod)")
        if kind not in ("epsilon", "v_prediction"):
            raise ModelError(f"prediction_type of {name} must be epsilon or v_prediction, not {kind!r}")
        self.scheduler, self.predicts_noise = scheduler, kind == "epsilon"
        choice = scheduler_choice(scheduler)
        if choice is not None:
            self.num_inference_steps, self.guidance_scale = choice.num_inference_steps, choice.guidance_scale

    def time(self, uniform: Tensor) -> Tensor:
        """As in `RectifiedFlow`."""
        count = self.scheduler.config.num_train_timesteps
        return (count * uniform).floor().clamp_max(count - 1)

    def timestep(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        """As in `RectifiedFlow`; never rounded, since bfloat16 ends at 256 whole numbers."""
        return time

    def noisy(self, latents: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """As in `RectifiedFlow`."""
        signal, sigma = self._shares(time)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """As in `RectifiedFlow`."""
        signal, sigma = self._shares(time)
        return noise if self.predicts_noise else signal * noise - sigma * latents, torch.ones_like(sigma)

    def denoise(
        self, noise: Tensor, steps: int, predict: Predict, generator: Generator | list[Generator] | None
    ) -> Iterator[tuple[float, Tensor, Tensor]]:
        """As in `RectifiedFlow`; the generator serves schedulers that add noise on the way."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)  # it counts steps, two threads may draw
        try:
            scheduler.set_timesteps(steps, device=noise.device)
        except (ValueError, IndexError) as error:  # such as more steps than its weights were distilled for
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{type(scheduler).__name__} cannot draw in {steps} steps: {reason}") from error
        options = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            noisy = scheduler.scale_model_input(latents, timestep)
            predicted = predict(noisy, timestep)
            latents = scheduler.step(predicted, timestep, latents, **options, return_dict=False)[0]
            yield float(timestep), latents, self._clean(noisy, predicted, timestep)

    def _clean(self, noisy: Tensor, predicted: Tensor, time: Tensor) -> Tensor:
        """The latents without noise, from those that the U-Net read at one time and its prediction."""
        signal, sigma = self._shares(time.expand(1))
        return (noisy - sigma * predicted) / signal if self.predicts_noise else signal * noisy - sigma * predicted

    def _shares(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of latents and noise, both [B, 1, 1, 1]."""
        kept = _per_image(self.scheduler.alphas_cumprod.to(time.device)[time.long()])
        return kept.sqrt(), (1 - kept).sqrt()


Objective = RectifiedFlow | Diffusion | FlowMatching


def make_objective(scheduler: Any) -> Objective:
    """The objective that a U-Net's scheduler stands for.

    Raises:
        ModelError: None is known for it.
    """
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    return RectifiedFlow(scheduler) if flow else Diffusion(scheduler)


def _per_image(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]
