"""Flow matching as diffusion transformers are trained with it: velocity along a straight line from noise to latents.

The forms sd3 and flux2; see `objectives.RectifiedFlow` for the mini's, which predicts clean latents.

Shapes: B batch, Z latent channels, h w latent grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Generator, Tensor

from seedstory.errors import ModelError

Predict = Callable[[Tensor, Tensor], Tensor]
Shift = Callable[[Any, int, int], float]
"""From the configuration of a scheduler, the tokens of a picture and the number of steps: log of the time shift."""

_EDGE = 1e-4  # uniform numbers nearer to 0 or 1 are drawn in; the times that they stand for are of no use


class FlowMatching:
    """The velocity noise - latents is predicted at (1 - t) latents + t noise (arXiv 2210.02747).

    A time runs from 0 (clean) to 1 (noise). In training it is logit-normal, shifted towards noise as the scheduler's
    `shift` says (Stable Diffusion 3, arXiv 2403.03206, sections 3.1 and 5.3.2), and all times weigh the same. With
    `use_dynamic_shifting` the shift depends on the size of the picture, and is left out in training.

    Args:
        scheduler: of flow matching; its `shift` bends the time steps.
        shift: the size's part in the shift, where the scheduler has `use_dynamic_shifting`.
        steps, guidance_scale: of drawing, by default.
        patch_size: latents along the edge of a token of the network.
        from_one: time steps begin at 1 and are evenly spaced before the shift, whatever the scheduler's own spacing.

    Raises:
        ModelError: The scheduler is of another kind.
    """

    def __init__(
        self,
        scheduler: Any,
        shift: Shift,
        *,
        steps: int,
        guidance_scale: float,
        patch_size: int = 1,
        from_one: bool = False,
    ) -> None:
        if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            raise ModelError(
                f"a diffusion transformer cannot draw with {type(scheduler).__name__}: "
                "it needs a FlowMatchEulerDiscreteScheduler"
            )
        self.scheduler, self.shift = scheduler, shift
        self.num_inference_steps, self.guidance_scale = steps, guidance_scale
        self.patch_size, self.from_one = patch_size, from_one

    def time(self, uniform: Tensor) -> Tensor:
        """A time to train on, from a number drawn from U[0, 1)."""
        time = torch.special.ndtri(uniform.double().clamp(_EDGE, 1 - _EDGE)).sigmoid()
        config = self.scheduler.config
        shift = 1.0 if config.use_dynamic_shifting else config.shift
        return (shift * time / (1 + (shift - 1) * time)).to(uniform.dtype)

    def timestep(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        """A time as the network takes it: in thousandths, never rounded."""
        return 1000 * time

    def noisy(self, latents: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Latents [B, Z, h, w] at the times [B]."""
        t = time[:, None, None, None]
        return (1 - t) * latents + t * noise

    def target(self, latents: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be predicted, [B, Z, h, w], and how much its squared error weighs, [B, 1, 1, 1]."""
        return noise - latents, torch.ones_like(time)[:, None, None, None]

    def denoise(
        self, noise: Tensor, steps: int, predict: Predict, generator: Generator | list[Generator] | None
    ) -> Iterator[tuple[float, Tensor, Tensor]]:
        """Go from noise to latents; after each step its timestep, the latents so far, and what they seem to become."""
        scheduler = copy(self.scheduler)  # it counts steps, and two threads may draw
        config, tokens = scheduler.config, noise.shape[-2] * noise.shape[-1] // self.patch_size**2
        options: dict[str, Any] = {"num_inference_steps": steps, "device": noise.device}
        if config.use_dynamic_shifting:
            options["mu"] = self.shift(config, tokens, steps)
        if self.from_one and not config.get("use_flow_sigmas"):
            options["sigmas"] = [1 - step / steps for step in range(steps)]
        scheduler.set_timesteps(**options)
        latents = noise
        for step, timestep in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[step]
            velocity = predict(latents, sigma)
            clean = latents - sigma * velocity
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            yield float(timestep), latents, clean


def linear_shift(config: Any, tokens: int, steps: int) -> float:
    """Between the scheduler's `base_shift` and `max_shift`, by the tokens of the picture: Stable Diffusion 3's way."""
    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.16)
    return float(low + (high - low) * (tokens - fewest) / (most - fewest))


def empirical_shift(config: Any, tokens: int, steps: int) -> float:
    """By tokens and steps, as FLUX.2's pipeline in diffusers has it, constants included.

    Two lines over the tokens, for 10 and for 200 steps; between them by the steps. Large pictures take the second.
    """
    many = 0.00016927 * tokens + 0.45666666
    few = 8.73809524e-05 * tokens + 1.89833333
    return many if tokens > 4300 else many + (many - few) * (steps - 200) / 190
