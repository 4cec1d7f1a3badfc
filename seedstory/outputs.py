"""What a pipeline returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from seedstory.story import Page, Story

if TYPE_CHECKING:
    import numpy
    import torch
    from PIL import Image

OutputType = Literal["pil", "np", "pt", "features"]
OUTPUT_TYPES = ("pil", "np", "pt", "features")


@dataclass(kw_only=True, eq=False)
class StoryOutput:
    """A generated story, as `StoryPipeline` returns it.

    Args:
        story: The story with title, settings and pages.
        folder: Where it was written, or None.
        output_type: Form of `images`, one of `OUTPUT_TYPES`.
    """

    story: Story
    folder: Path | None = None
    output_type: str = "pil"

    @property
    def title(self) -> str:
        """The title."""
        return self.story.title

    @property
    def pages(self) -> list[Page]:
        """The pages in order; `pages[0]` is the opening."""
        return self.story.pages

    @property
    def captions(self) -> list[str]:
        """The caption of each page."""
        return [page.caption for page in self.pages]

    @property
    def images(self) -> list[Image.Image] | numpy.ndarray | torch.Tensor | None:
        """The images: a list of PIL images ("pil"), an array `[P, H, W, 3]` in [0, 1] ("np") or a tensor
        `[P, 3, H, W]` in [0, 1] ("pt"); None for "features", which draws nothing.
        """
        images = [page.image for page in self.pages if page.image is not None]
        if self.output_type == "features":
            return None
        if self.output_type == "pil":
            return images
        import numpy

        array = numpy.stack([numpy.asarray(image.convert("RGB"), dtype=numpy.float32) / 255 for image in images])
        if self.output_type == "np":
            return array
        import torch

        return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()

    @property
    def features(self) -> torch.Tensor:
        """Visual features of all pages, `[P, F, Df]`."""
        import torch

        return torch.stack([page.features for page in self.pages if page.features is not None])
