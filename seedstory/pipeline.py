"""`StoryPipeline`: an opening goes in, pages come out one by one, and land in a story folder.

Torch and the networks are imported when a model is loaded, not before: whoever only wants to check a request or find
a model waits for neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from seedstory import __version__
from seedstory.picture import read_picture, square, to_tensor
from seedstory.settings import StorySettings, clean_text
from seedstory.story import Page, Story, StoryFolder, check_free, page_seed, title_from

if TYPE_CHECKING:
    import torch

    from seedstory.detokenizers.detokenizer import Detokenizer
    from seedstory.modeling.story_model import StoryModel
    from seedstory.modeling.vision_tower import VisionTower

PARTS = {"story_model": "StoryModel", "vision_tower": "VisionTower", "detokenizer": "Detokenizer"}
EMBEDDED = Path(__file__).parent / "weights"
_WHOLE_FILE = 64 * 2**20  # bytes; of larger files the fingerprint reads both ends only


OnText = Callable[[int, str], Any]


@dataclass(frozen=True)
class _Request:
    """A checked request for a new story."""

    settings: StorySettings
    image: Image.Image | None
    title: str | None
    draw: bool
    on_text: OnText | None
    out: str | Path | None
    overwrite: bool


class StoryPipeline:
    """Tells illustrated stories. Load one with `from_pretrained`.

    Args:
        story_model: Writes captions and regresses the features of pictures; in evaluation mode.
        vision_tower: Pixels `[B, 3, H, W]` to features `[B, F, Df]`.
        detokenizer: Features `[B, F, Df]` to pictures.
        name: What the model is called in a story's record.
        fingerprint: Hash of its files, see `fingerprint`; empty for a model that was never on disk.
        source: The folder it was loaded from.
    """

    def __init__(
        self,
        story_model: StoryModel,
        vision_tower: VisionTower,
        detokenizer: Detokenizer,
        *,
        name: str = "",
        fingerprint: str = "",
        source: Path | None = None,
    ) -> None:
        self.story_model = story_model
        self.vision_tower = vision_tower
        self.detokenizer = detokenizer
        self.name = name
        self.fingerprint = fingerprint
        self.source = source

    # ------------------------------------------------------------------------------------------------ load and store

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "mini",
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> StoryPipeline:
        """Loads a model folder.

        Args:
            name: "mini" for the embedded model, or a folder with `model_index.json`, `story_model/`, `vision_tower/`
                and `detokenizer/`.
            dtype: Type of all weights; by default bfloat16 for the language model and float32 for the small
                picture networks.
            device: Where the model runs; by default a GPU if there is one.

        Raises:
            ValueError: There is no such model, or its folder is incomplete.
        """
        folder = find_model(name)
        import torch

        from seedstory.detokenizers.detokenizer import Detokenizer
        from seedstory.modeling.story_model import StoryModel
        from seedstory.modeling.vision_tower import VisionTower

        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        picture_dtype = dtype or torch.float32
        return cls(
            StoryModel.from_pretrained(folder / "story_model", dtype=dtype or torch.bfloat16, device=device),
            VisionTower.from_pretrained(folder / "vision_tower", torch_dtype=picture_dtype).to(device).eval(),
            Detokenizer.from_pretrained(folder / "detokenizer", dtype=picture_dtype).to(device),
            name=str(name),
            fingerprint=fingerprint(folder),
            source=folder,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the folder that `from_pretrained` reads; `model_index.json` last."""
        folder = Path(folder)
        for part in PARTS:
            if part == "story_model" and self.source is not None:  # here LoRA is merged; the source keeps it apart
                shutil.copytree(self.source / part, folder / part, dirs_exist_ok=True)
            else:
                getattr(self, part).save_pretrained(folder / part)
        self.write_index(folder)

    @classmethod
    def write_index(cls, folder: Path) -> None:
        """Writes the `model_index.json` that makes a folder of parts a model."""
        index: dict[str, Any] = {"_class_name": cls.__name__, "_seedstory_version": __version__}
        index |= {part: ["seedstory", kind] for part, kind in PARTS.items()}
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")

    def to(self, device: str | torch.device) -> StoryPipeline:
        """Moves all networks to a device."""
        for part in PARTS:
            getattr(self, part).to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        return self.story_model.device

    @property
    def image_size(self) -> int:
        """Side of the pictures in px."""
        return self.detokenizer.image_size

    # --------------------------------------------------------------------------------------------------- tell a story

    def __call__(
        self,
        text: str | None = None,
        image: Image.Image | str | Path | None = None,
        pages: int = 10,
        seed: int = 0,
        *,
        callback_on_page: Callable[[Page], Any] | None = None,
        title: str | None = None,
        **options: Any,
    ) -> Story:
        """Tells a story and returns it whole.

        Args:
            text: As in `stream`, which documents all arguments but one.
            image: As in `stream`.
            pages: As in `stream`.
            seed: As in `stream`.
            callback_on_page: Called with each page when it is finished.
            title: As in `stream`.
            **options: As in `stream`.

        Raises:
            ValueError: As `stream`.
        """
        request = self._request(text, image, pages, seed, title=title, **options)
        told = []
        for page in self._tell(request):
            told.append(page)
            if callback_on_page is not None:
                callback_on_page(page)
        return Story(
            title=request.title or title_from(next((page.caption for page in told if page.caption), "")),
            pages=told,
            settings=request.settings,
            model=self._model_record(),
            versions=versions(),
        )

    def stream(
        self,
        text: str | None = None,
        image: Image.Image | str | Path | None = None,
        pages: int = 10,
        seed: int = 0,
        *,
        title: str | None = None,
        **options: Any,
    ) -> Iterator[Page]:
        """Tells a story page by page. The arguments are checked at once, not when the first page is asked for.

        Args:
            text: The opening text: the caption of page 1.
            image: The opening picture, any picture; its centre square becomes the picture of page 1. Without it
                page 1 is drawn from its text. Text, picture or both must be given.
            pages: Pages in all, the opening included.
            seed: Same seed, settings, model and versions: same story.
            title: The title; by default made from the first sentence.
            **options: `generator`, a `torch.Generator` to draw the seed from; `num_inference_steps`,
                `guidance_scale`, `policy`, `temperature`, `top_p`, `repetition_penalty` and `captions`, as in
                `StorySettings`; `output_type`, "pil" or "features" (write without drawing); `on_text`, called with a
                page's index and its caption so far while it is written; `out`, the story folder to write, page by
                page; `overwrite`, whether it may replace an older story there.

        Yields:
            The pages, the opening first, each when it is whole (and, with `out`, on disk).

        Raises:
            ValueError: An argument is out of range, the picture cannot be read, or `out` is not free.
        """
        return self._tell(self._request(text, image, pages, seed, title=title, **options))

    def resume(self, folder: str | Path | StoryFolder, *, on_text: OnText | None = None) -> Iterator[Page]:
        """Goes on with an unfinished story folder: draws pages that are only written, then tells the missing ones.

        The result is the story that an uninterrupted run would have given.

        Args:
            folder: The story folder.
            on_text: As in `stream`.

        Yields:
            The pages that are new or newly drawn.

        Raises:
            ValueError: The folder holds no story, no page of it, or one that another model began.
        """
        folder = folder if isinstance(folder, StoryFolder) else StoryFolder.open(folder)
        if len(folder) == 0:
            raise ValueError(f"{folder.path} has no page to go on from: start again with `generate --overwrite`")
        here = self._model_record()
        for key in ("fingerprint", "dtype"):
            if folder.model.get(key) != here[key]:
                raise ValueError(
                    f"{folder.path} was begun with the model {folder.model.get('name') or '(unnamed)'} of {key} "
                    f"{(folder.model.get(key) or '(none)')[:16]}, this one has {here[key][:16] or '(none)'}: "
                    "load the model that began it"
                )
        folder.sweep()
        return self._go_on(folder, on_text)

    # ------------------------------------------------------------------------------------------------------ the inside

    def _request(
        self,
        text: str | None,
        image: Image.Image | str | Path | None,
        pages: int,
        seed: int,
        *,
        title: str | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        on_text: OnText | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        **options: Any,
    ) -> _Request:
        if output_type not in ("pil", "features"):
            raise ValueError(f"unknown output_type {output_type!r}: choose pil or features")
        if generator is not None:
            import torch

            seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        if title is not None:
            title = clean_text(title, "the title")
        opening = name = None
        if image is not None:
            name = "a picture" if isinstance(image, Image.Image) else Path(image).name
            opening = square(read_picture(image), self.image_size)
        settings = StorySettings(text=text, picture=name, pages=pages, seed=seed, **options)
        layout = self.story_model.layout
        assert layout is not None, "a loaded story model has its layout"
        for caption in (settings.text or "", *(settings.captions or [])):
            layout.caption_ids(caption)  # refuses the names of special tokens
        if out is not None:
            check_free(out, overwrite=overwrite)
        return _Request(settings, opening, title, output_type == "pil", on_text, out, overwrite)

    def _tell(self, request: _Request) -> Iterator[Page]:
        """All pages of a new story. The folder is made when the first page is whole, so a failure leaves nothing."""
        settings, folder, titled = request.settings, None, request.title is not None
        opening = Page(
            index=0,
            caption=settings.text or "",
            image=request.image,
            features=None if request.image is None else self._encode(request.image),
            seed=page_seed(settings.seed, 0),
            state="opening",
        )
        whole = [] if opening.features is None else [opening]
        for page in chain(whole, self._write(settings, [opening], request.on_text)):
            if page.image is None and request.draw:
                page = self._draw(page, settings)
            if request.out is not None:
                title = request.title or title_from(page.caption)
                if folder is None:
                    folder = StoryFolder.create(
                        request.out,
                        title=title,
                        settings=settings,
                        model=self._model_record(),
                        versions=versions(),
                        overwrite=request.overwrite,
                    )
                elif not titled:
                    folder.title = title
                folder.add_page(page)
            titled = titled or bool(page.caption)
            yield page

    def _go_on(self, folder: StoryFolder, on_text: OnText | None) -> Iterator[Page]:
        done = [folder.page(i) for i in range(len(folder))]
        untold = (self._draw(page, folder.settings) for page in done if page.image is None)
        written = (self._draw(page, folder.settings) for page in self._write(folder.settings, done, on_text))
        for page in chain(untold, written):
            if folder.title == title_from("") and page.caption:  # a picture opened the story: its words come only now
                folder.title = title_from(page.caption)
            folder.add_page(page)
            yield page

    def _write(self, settings: StorySettings, given: list[Page], on_text: OnText | None) -> Iterator[Page]:
        """Writes the pages that `given` lacks, and the features of its last page if that has none."""
        if len(given) == settings.pages and given[-1].features is not None:
            return
        from seedstory.cache import CachePolicy
        from seedstory.generation import OpeningPage, SamplingConfig, StoryEngine

        engine = StoryEngine(self.story_model, CachePolicy(name=settings.policy), SamplingConfig.of(settings))
        script = (settings.captions or [])[len(given) - 1 :]
        opening = [OpeningPage(page.caption, page.features) for page in given]
        engine.start([*opening, *map(OpeningPage, script)], pages=settings.pages, seed=settings.seed)
        for draft in engine.pages(on_text):
            if draft.index >= len(given):
                yield Page(
                    index=draft.index,
                    caption=draft.caption,
                    features=draft.features.cpu(),
                    seed=page_seed(settings.seed, draft.index),
                )
            elif given[draft.index].features is None:
                yield replace(given[draft.index], features=draft.features.cpu())

    def _encode(self, image: Image.Image) -> torch.Tensor:
        """Features `[F, Df]` of a square picture."""
        import torch

        with torch.inference_mode():
            pixels = to_tensor(image).unsqueeze(0).to(self.vision_tower.device, self.vision_tower.dtype)
            return self.vision_tower(pixels)[0].float().cpu()

    def _draw(self, page: Page, settings: StorySettings) -> Page:
        """The page with its picture; the noise is a function of the page's seed alone."""
        import torch

        assert page.features is not None, "a page is written before it is drawn"
        (image,) = self.detokenizer(
            page.features.unsqueeze(0),
            generator=torch.Generator().manual_seed(page.seed),
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
        )
        assert isinstance(image, Image.Image)
        return replace(page, image=image, state="opening" if page.index == 0 else "illustrated")

    def _model_record(self) -> dict[str, str]:
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "dtype": str(self.story_model.dtype).removeprefix("torch."),
        }


def find_model(name: str | Path) -> Path:
    """The folder of a model, given its name or folder; loads nothing.

    Raises:
        ValueError: There is no such model, or its folder is not one of ours.
    """
    folder = Path(name)
    if str(name) == "mini":
        folder = EMBEDDED / "mini"
        if not folder.is_dir():
            raise ValueError(
                "this installation lacks the embedded model mini: install seedstory again, or give --model"
            )
    elif not folder.is_dir():
        raise ValueError(f"there is no model {name}: give 'mini' or the folder of a model")
    index = folder / "model_index.json"
    try:
        kind = json.loads(index.read_text("utf-8"))["_class_name"]
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a model folder: it has no model_index.json") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{index} cannot be read: the model folder is damaged") from None
    if kind != "StoryPipeline":
        raise ValueError(f"{folder} holds a {kind}, not a StoryPipeline")
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise ValueError(f"the model folder {folder} lacks {', '.join(missing)}: copy or download it again")
    return folder


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names, sizes and contents of a model folder's weights and settings.

    Of files above 64 MB only the first and the last megabyte count, so that a large model is hashed in a moment.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with open(path, "rb") as file:
            if size <= _WHOLE_FILE:
                digest.update(file.read())
            else:
                digest.update(file.read(2**20))
                file.seek(-(2**20), 2)
                digest.update(file.read())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what makes a story what it is."""
    found = {"seedstory": __version__}
    for package in ("torch", "transformers", "diffusers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
