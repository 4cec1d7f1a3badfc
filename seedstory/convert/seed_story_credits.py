"""Under which terms SEED-Story's released weights may be used, and what they stand on: goes into a converted model."""

from __future__ import annotations

from typing import Any

CREDITS: dict[str, Any] = {
    "license": "other",
    "credits": [
        "Converted from the weights of SEED-Story (arXiv 2407.08683, TencentARC), whose code and weights are released "
        "under the Apache License 2.0, except for the parts of others below.",
        "The language model is Llama 2 with what SEED-Story trained: Llama 2 is licensed under the LLAMA 2 Community "
        "License, Copyright (c) Meta Platforms, Inc. All Rights Reserved. Its Acceptable Use Policy applies.",
        "The vision tower is that of Qwen-VL (arXiv 2308.12966, Alibaba Cloud), under the Tongyi Qianwen license.",
        "U-Net and autoencoder are those of Stable Diffusion XL (Stability AI), under the CreativeML Open RAIL++-M "
        "license, whose restrictions of use pass on to everyone who gets the weights.",
        "It was trained on StoryStream, whose images are frames of cartoons that belong to their makers.",
    ],
}
"""What `credits.json` in a converted model's folder says; check it against the files that you have."""
