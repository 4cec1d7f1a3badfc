"""Distances of features and of images, as losses and as figures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_losses(found: Tensor, features: Tensor) -> dict[str, Tensor]:
    """How far found features [B, F, D] are from the true ones: means of `1 - cosine` by token, and of the square."""
    cosine = F.cosine_similarity(found, features, dim=-1)
    return {"cosine": (1 - cosine).mean(), "mse": F.mse_loss(found, features)}


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB of each image [B, 3, H, W] in [-1, 1]: [B]."""
    return -10 * torch.log10(((output - target) / 2).square().mean((1, 2, 3)))
