"""Pages drawn from words by a text-to-image pipeline of diffusers, with the same characters on all of them.

For each character a few portraits are drawn first, together. Every page then sees those of who is on it (consistent
self-attention, `seedstory.consistent_attention`). What a page looks like depends on its words, its seed and the
portraits alone: not on the order of the pages, on those drawn with it, or on those drawn before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedstory.errors import ModelError, RequestError
from seedstory.page import page_seed
from seedstory.prompt_script import PagePrompt
from seedstory.settings import check_float, check_int, check_text

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from seedstory.consistent_attention import ConsistentAttentionSettings, PageSharing

logger = logging.getLogger(__name__)

MAX_PORTRAITS = 8
MAX_SIDE = 4_096  # px


@dataclass(frozen=True, kw_only=True)
class IllustratorSettings:
    """How pages are drawn.

    Args:
        style: Words that every image gets, behind the page's; or a template with `{prompt}` in it.
        negative_prompt: What no image shows.
        width, height: Of an image in px, multiples of 8; None: as the pipeline was trained.
        num_inference_steps: Diffusion steps of an image.
        guidance_scale: Strength of classifier-free guidance.
        seed: Decides all images.
        portraits: Images of each character that its pages see; 0: pages share nothing.
        portrait: Prompt of a portrait, with `{description}` in it.
        same_noise: Whether all images start from the same noise, which makes their layouts alike, as StoryDiffusion's
            released code does.

    Raises:
        RequestError: A value is out of its range.
    """

    style: str = ""
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    num_inference_steps: int = 30
    guidance_scale: float = 5.0
    seed: int = 0
    portraits: int = 2
    portrait: str = "{description}, full body, plain background"
    same_noise: bool = False

    def __post_init__(self) -> None:
        for name in ("style", "negative_prompt"):
            if getattr(self, name):
                check_text(getattr(self, name), name)
        for name in ("width", "height"):
            side = getattr(self, name)
            if side is not None:
                check_int(name, side, 8, MAX_SIDE)
                if side % 8:
                    raise RequestError(f"{name} must be a multiple of 8 px, not {side}")
        check_int("num_inference_steps", self.num_inference_steps, 1, 1000)
        check_float("guidance_scale", self.guidance_scale, 0.0, 100.0)
        check_int("seed", self.seed, 0, 2**63 - 1)
        check_int("portraits", self.portraits, 0, MAX_PORTRAITS)
        if "{description}" not in self.portrait:
            raise RequestError("the prompt of a portrait needs {description} where the character's description stands")

    def prompt(self, words: str) -> str:
        """What the pipeline reads for an image."""
        if "{prompt}" in self.style:
            return self.style.replace("{prompt}", words)
        return f"{words}, {self.style}" if self.style else words


@dataclass
class Portrait:
    """An image of a character, and the name by which the bank knows it."""

    key: str
    image: Image.Image
    prompt: str


@dataclass
class TextIllustrator:
    """Draws pages from prompts.

    Args:
        pipeline: A text-to-image pipeline of diffusers with a U-Net, such as Stable Diffusion 1.5 or XL.
        cast: Characters and their descriptions.
        settings: How pages are drawn.
        sharing: How images share tokens.

    Raises:
        ModelError: The pipeline has no U-Net, or one without the self-attention that is shared.

    Example:
        >>> illustrator = TextIllustrator.from_pretrained("my/stable-diffusion", cast={"Mia": "a fox in a red coat"})
        >>> pages = read_prompts("[Mia] finds a key # Look, a key!", illustrator.cast)
        >>> for image in illustrator(pages):
        ...     image.show()
    """

    pipeline: Any
    cast: Mapping[str, str] = field(default_factory=dict)
    settings: IllustratorSettings = field(default_factory=IllustratorSettings)
    sharing: ConsistentAttentionSettings | None = None
    portraits: dict[str, list[Portrait]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        from seedstory.consistent_attention import ConsistentAttention

        if getattr(self.pipeline, "unet", None) is None:
            raise ModelError(f"{type(self.pipeline).__name__} has no U-Net: take a pipeline of Stable Diffusion")
        self.attention = ConsistentAttention(self.pipeline.unet, self.sharing)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        **arguments: Any,
    ) -> TextIllustrator:
        """Loads a pipeline from a folder in diffusers' layout, or from the Hub; pickles and foreign code are not run.

        Args:
            folder: Folder or Hub id.
            device: Where to draw; None: a GPU if there is one.
            dtype: Of the weights; None: half precision on a GPU, float32 elsewhere.
            **arguments: Those of the class.

        Raises:
            ModelError: There is no such pipeline.
        """
        import torch
        from diffusers import DiffusionPipeline

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
        try:
            pipeline = DiffusionPipeline.from_pretrained(str(folder), torch_dtype=dtype, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot load a pipeline of diffusers from {folder}: {error}") from error
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), **arguments)

    def __call__(self, pages: Sequence[PagePrompt], *, first: int = 0, batch_size: int = 1) -> Iterator[Image.Image]:
        """Draws pages.

        Args:
            pages: What they show.
            first: Index of the first of them in the story, which decides their seeds.
            batch_size: Pages that are drawn together.

        Yields:
            The image of each page, in order.

        Raises:
            RequestError: A page shows somebody who is not in the cast.
        """
        self.check(pages)
        for start in range(0, len(pages), batch_size):
            some = list(enumerate(pages[start : start + batch_size], first + start))
            yield from self.draw(some, [page_seed(self.settings.seed, index) for index, _ in some])

    def check(self, pages: Iterable[PagePrompt]) -> None:
        """Checks that the cast has everybody who is on these pages.

        Raises:
            RequestError: It has not.
        """
        missing = sorted({name for page in pages for name in page.characters} - set(self.cast))
        if missing:
            raise RequestError(f"the cast has no {missing[0]!r}: give a description of everybody who is on a page")

    def draw(self, pages: Sequence[tuple[int, PagePrompt]], seeds: Sequence[int]) -> list[Image.Image]:
        """Draws some pages in a batch.

        Args:
            pages: Index in the story, and what is shown.
            seeds: Of the pages.
        """
        from seedstory.consistent_attention import PageSharing

        for _, page in pages:
            for name in page.characters:
                self.portraits_of(name)
        shared = [
            PageSharing(
                f"page {index}",
                tuple(portrait.key for name in page.characters for portrait in self.portraits_of(name)),
                sees_batch=False,
            )
            for index, page in pages
        ]
        return self._run(shared, [page.prompt for _, page in pages], seeds)

    def portraits_of(self, name: str) -> list[Portrait]:
        """The portraits of a character, drawn together when they are first asked for.

        Raises:
            RequestError: The cast does not have it.
        """
        from seedstory.consistent_attention import PageSharing

        if name not in self.portraits:
            if name not in self.cast:
                raise RequestError(f"the cast has no {name!r}: give a description of everybody who is on a page")
            keys = [f"{name} {number}" for number in range(self.settings.portraits)]
            prompt = self.settings.portrait.replace("{description}", self.cast[name])
            shared = [PageSharing(key, writes=True) for key in keys]
            # The seeds are the character's own, wherever it first occurs.
            seeds = [_seed_of(self.settings.seed, key) for key in keys]
            images = self._run(shared, [prompt] * len(keys), seeds) if keys else []
            self.portraits[name] = [Portrait(*one, prompt) for one in zip(keys, images, strict=True)]
        return self.portraits[name]

    def _run(self, shared: Sequence[PageSharing], prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        import torch

        settings = self.settings
        seeds = [page_seed(settings.seed, 0)] * len(prompts) if settings.same_noise else seeds
        sizes = {name: side for name in ("width", "height") if (side := getattr(settings, name)) is not None}
        with self.attention.sharing(shared, self.pipeline.scheduler):
            drawn = self.pipeline(
                prompt=[settings.prompt(words) for words in prompts],
                negative_prompt=[settings.negative_prompt] * len(prompts),
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                **sizes,
            )
        return list(drawn.images)


def _seed_of(seed: int, key: str) -> int:
    """The seed of a portrait, a function of the story's seed and the portrait's name."""
    import hashlib

    return int.from_bytes(hashlib.sha256(f"seedstory portrait {key} of {seed}".encode()).digest()[:4], "big")
