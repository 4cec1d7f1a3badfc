"""Drafts of images while they are drawn, for those who watch: a data URL with a step's event, stored nowhere."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from seedstory.detokenizers.preview import LatentPreview
    from seedstory.pipeline import StoryPipeline

PREVIEW_TYPE = "image/jpeg"
_QUALITY = 80


class Previews:
    """Makes the drafts. What they need is made for the first one, so that nobody else pays for it.

    Args:
        pipeline: Its de-tokenizer draws.
    """

    def __init__(self, pipeline: StoryPipeline) -> None:
        self._pipeline = pipeline
        self._preview: LatentPreview | None = None

    def __call__(self, latents: Tensor) -> str:
        """The draft of one image as a data URL.

        Args:
            latents: `[Z, h, w]`, without noise.
        """
        if self._preview is None:
            from seedstory.detokenizers.preview import LatentPreview

            self._preview = LatentPreview(self._pipeline.detokenizer)
        return data_url(self._preview(latents[None])[0])


def data_url(image: Image.Image) -> str:
    """A small image as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:{PREVIEW_TYPE};base64,{base64.b64encode(buffer.getvalue()).decode()}"
