"""An output resampler that draws features instead of regressing them: a small rectified flow ends it.

Regression answers with the mean of all pictures that a text leaves open, which may look like none of them. A flow
starts from noise and ends on one of them: the noise decides which. Rectified flow: Liu et al. 2022, arXiv 2209.03003.
A small head on what a transformer says about each token: Li et al. 2024, arXiv 2406.11838, section 3.2. There tokens
are drawn one after another; here all at once, so the head lets them see each other, or each would commit on its own.

Shape legend: as in `seedstory.resampler`; time 1 is pure noise, as in the de-tokenizer.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.cross_attention import CrossAttentionOutput
from seedstory.resampler import Attention, OutputResampler, initialize

MAX_WEIGHT = 9.0


class FlowBlock(nn.Module):
    """Self-attention among the tokens of a picture and an MLP on each; pre-norm and residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x)
        x = x + self.attention(normed, normed)
        return x + self.mlp(self.mlp_norm(x))


class FlowResampler(OutputResampler):
    """Hidden states at the query tokens → features of the picture, by a few Euler steps from noise.

    The head predicts the clean features, so one step from pure noise gives their mean, as regression does.

    Args:
        *args, **sizes: As in `OutputResampler`.
        flow_depth: Blocks of the head.
        flow_steps: Euler steps.
    """

    def __init__(self, *args: Any, flow_depth: int, flow_steps: int, **sizes: Any) -> None:
        super().__init__(*args, **sizes)
        tokens, width = self.queries.shape
        self.from_noisy = nn.Linear(self.feature_dim, width)
        self.from_time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.flow_blocks = nn.ModuleList(FlowBlock(width, sizes["heads"]) for _ in range(flow_depth))
        self.flow_steps = flow_steps
        noise = torch.randn(tokens, self.feature_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("plain_noise", noise, persistent=False)
        for part in (self.from_noisy, self.from_time, self.flow_blocks):
            initialize(part)

    def predict_clean(self, gathered: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Clean features, float32.

        Args:
            gathered: What `gather` found, `[B, F, W]`.
            noisy: `(1 - time) * features + time * noise`, `[B, F, Df]`.
            time: In (0, 1], `[B]`.

        Returns:
            `[B, F, Df]`; their mean, given what is known.
        """
        dtype, width = self.queries.dtype, self.queries.shape[1]
        when = self.from_time(time_embedding(time, width).to(dtype))
        x = gathered + self.from_noisy(noisy.to(dtype)) + when.unsqueeze(1)
        for block in self.flow_blocks:
            x = block(x)
        return self.to_feature(self.out_norm(x)).float()

    @torch.no_grad()
    def finish(self, gathered: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Features that the noise `[B, F, Df]` leads to; the same noise for every picture if None.

        They carry no gradient: the head learns by `flow_loss`.
        """
        x = (self.plain_noise.expand(len(gathered), -1, -1) if noise is None else noise).float()
        for left in range(self.flow_steps, 0, -1):
            time = torch.full((len(x),), left / self.flow_steps, device=x.device)
            x = x + (self.predict_clean(gathered, x, time) - x) / left
        return functional.layer_norm(x, (self.feature_dim,))

    def flow_loss(
        self, gathered: torch.Tensor, features: torch.Tensor, noise: torch.Tensor, time: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error of the velocity, its weight capped near the end.

        Args:
            gathered: What `gather` found, `[B, F, W]`.
            features: The true ones, `[B, F, Df]`.
            noise: Standard normal, `[B, F, Df]`.
            time: Uniform in (0, 1], `[B]`.

        Returns:
            Scalar, float32.
        """
        features, noise, time = features.float(), noise.float(), time.float().clamp_min(1e-3)
        t = time[:, None, None]
        clean = self.predict_clean(gathered, (1 - t) * features + t * noise, time)
        return ((clean - features).square() * t.pow(-2).clamp_max(MAX_WEIGHT)).mean()

    def sample_noise(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise `[B, F, Df]` and times `[B]` for `flow_loss`: new ones in training, else always the same."""
        tokens, device = self.queries.shape[0], self.queries.device
        generator = None if self.training else torch.Generator().manual_seed(1)
        noise = torch.randn(count, tokens, self.feature_dim, generator=generator)
        return noise.to(device), (1 - torch.rand(count, generator=generator)).to(device)


def time_embedding(time: torch.Tensor, width: int) -> torch.Tensor:
    """Sine-cosine code of times in [0, 1], of even width: `[B]` → `[B, W]`, float32."""
    frequencies = torch.exp(torch.arange(width // 2, device=time.device) * (-math.log(1000.0) / (width // 2)))
    angles = 100.0 * time.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def make_output_resampler(config: StoryConfig, hidden_dim: int) -> OutputResampler | CrossAttentionOutput:
    """The output resampler that the settings name, untrained, for hidden states of this width."""
    if config.resampler == "cross_attention":
        return CrossAttentionOutput(
            config.feature_tokens,
            config.num_visual_tokens,
            hidden_dim,
            width=config.output_resampler_width,
            heads=config.output_resampler_heads,
        )
    sizes: dict[str, Any] = {
        "width": config.output_resampler_width,
        "depth": config.output_resampler_depth,
        "heads": config.output_resampler_heads,
    }
    shape = (config.feature_tokens, config.feature_dim, hidden_dim)
    if config.feature_head == "regression":
        return OutputResampler(*shape, **sizes)
    return FlowResampler(*shape, flow_depth=config.flow_depth, flow_steps=config.flow_steps, **sizes)
