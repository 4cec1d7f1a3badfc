"""`StoryPipeline`: an opening goes in, pages come out one by one, and land in a story folder.

Torch and the networks are imported when a model is loaded, not before: whoever only wants to check a request or find
a model waits for neither.
"""

from __future__ import annotations

import ctypes
import gc
import json
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from seedstory import __version__
from seedstory.image import image_to_tensor, load_image, to_square
from seedstory.io import read_json
from seedstory.model_folder import PARTS, find_model, fingerprint, versions
from seedstory.rendering import Rendering, render_story
from seedstory.settings import (
    MAX_CAPTION_TOKENS,
    StorySettings,
    check_decoding,
    check_language,
    check_text,
    story_language,
)
from seedstory.story import UNTITLED, Page, Story, StoryFolder, check_target, make_title, page_seed
from seedstory.writer import check_unlocked, exclusive_writer

if TYPE_CHECKING:
    import torch

    from seedstory.detokenizers.detokenizer import Detokenizer
    from seedstory.generation import PageDraft, StoryEngine, StoryRequest
    from seedstory.generation.sampling import LogitsProcessor
    from seedstory.modeling.story_model import StoryModel
    from seedstory.modeling.vision_tower import VisionTower

OnText = Callable[[int, str], Any]


@dataclass(frozen=True)
class _Request:
    """A checked request for a new story."""

    settings: StorySettings
    image: Image.Image | None
    title: str | None
    draw: bool
    callback_on_text: OnText | None
    logits_processor: LogitsProcessor | None
    out: str | Path | None
    overwrite: bool
    rendering: Rendering
    language: str


class StoryPipeline:
    """Tells illustrated stories. Load one with `from_pretrained`.

    Args:
        story_model: Writes captions and regresses the features of pictures; in evaluation mode.
        vision_tower: Pixels `[B, 3, H, W]` to features `[B, F, Df]`.
        detokenizer: Features `[B, F, Df]` to pictures.
        name: What the model is called in a story's record.
        fingerprint: Hash of its files, see `fingerprint`; empty for a model that was never on disk.
        source: The folder it was loaded from.
        decoding: How captions are decoded, one of `seedstory.settings.DECODINGS`; the words do not depend on it but
            for rounding.
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
        decoding: str = "auto",
    ) -> None:
        self._story_model: StoryModel | None = story_model
        self._decode_dtype: torch.dtype | None = None
        self._types = ""  # of a language model that was freed, for the record
        self._freed: dict[str, Any] = {}  # how a language model that was freed is loaded again
        self.vision_tower = vision_tower
        self.detokenizer = detokenizer
        self.name = name
        self.fingerprint = fingerprint
        self.source = source
        self.decoding = decoding

    # ------------------------------------------------------------------------------------------------ load and store

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "mini",
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        int8: bool = False,
        decoding: str = "auto",
        story_dtype: str = "",
    ) -> StoryPipeline:
        """Loads a model folder.

        Args:
            name: "mini" for the embedded model, or a folder with `model_index.json`, `story_model/`, `vision_tower/`
                and `detokenizer/`.
            dtype: Type of all weights; by default float32 for the small picture networks and, for the language model,
                the type that `device` multiplies fastest (`seedstory.precision`). Captions are decoded from
                bfloat16 weights in either case, since memory is their bound.
            device: Where the model runs; by default a GPU if there is one.
            int8: Store the language model's weights in eight bits: less memory, faster words, slightly rounded.
            decoding: As in the class.
            story_dtype: The `dtype` recorded in a story to be resumed, perhaps on another kind of machine; the language
                model is then loaded in it.

        Raises:
            ValueError: There is no such model, type or decoding, or the model's folder is incomplete.
        """
        folder = find_model(name)
        check_decoding(decoding)
        import torch

        from seedstory.detokenizers.detokenizer import Detokenizer
        from seedstory.modeling.base_lm import resolve_base_lm
        from seedstory.modeling.story_model import StoryModel
        from seedstory.modeling.vision_tower import VisionTower
        from seedstory.precision import fast_dtype

        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        image_dtype = dtype or torch.float32
        language_dtype, decode_dtype = dtype or fast_dtype(device), None if dtype else torch.bfloat16
        if story_dtype and dtype is None:
            language_dtype, decode_dtype = _recorded_types(story_dtype)
        story_model = StoryModel.from_pretrained(folder / "story_model", dtype=language_dtype, int8=int8, device=device)
        story_model.decode_dtype = decode_dtype
        return cls(
            story_model,
            VisionTower.from_pretrained(folder / "vision_tower", torch_dtype=image_dtype).to(device).eval(),
            Detokenizer.from_pretrained(folder / "detokenizer", dtype=image_dtype).to(device),
            name=str(name),
            fingerprint=fingerprint(folder, resolve_base_lm(folder / "story_model")),
            source=folder,
            decoding=decoding,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the folder that `from_pretrained` reads; `model_index.json` last.

        Args:
            folder: A new folder, or one that holds a model to be replaced.

        Raises:
            ValueError: The language model cannot be written: LoRA is merged into it, and the folder that keeps it apart
                is gone or has changed since.
        """
        folder = Path(folder)
        if self.source is not None:
            self._check_source(self.source)
        for part in PARTS:
            if part != "story_model" or self.source is None:
                getattr(self, part).save_pretrained(folder / part)
            elif folder.resolve() != self.source.resolve():
                _copy_story_model(self.source / part, folder / part)
        self.write_index(folder)

    def _check_source(self, source: Path) -> None:
        """What was loaded must still lie there before it is copied or loaded again."""
        from seedstory.modeling.base_lm import resolve_base_lm

        found = fingerprint(source, resolve_base_lm(source / "story_model")) if source.is_dir() else ""
        if found != self.fingerprint:
            raise ValueError(f"{source} is gone or has changed since this model was loaded from it: load it again")

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
    def story_model(self) -> StoryModel:
        """The language model; loaded again from `source` if it was freed."""
        if self._story_model is None:
            from seedstory.modeling.story_model import StoryModel

            assert self.source is not None and self._freed, "only what can be loaded again is freed"
            self._check_source(self.source)
            self._story_model = StoryModel.from_pretrained(
                self.source / "story_model", device=self.device, **self._freed
            )
            self._story_model.decode_dtype = self._decode_dtype
        return self._story_model

    def free_story_model(self) -> None:
        """Frees the memory of the language model. It is loaded again when it is next needed.

        Raises:
            ValueError: There is no folder to load it from again.
        """
        if self.source is None:
            raise ValueError("this pipeline was not loaded from a folder: a freed language model could not come back")
        if self._story_model is not None:
            import torch

            self._types = _type_record(self._story_model)
            self._freed = {"dtype": self._story_model.dtype, "int8": self._story_model.int8}
            self._decode_dtype = self._story_model.decode_dtype
            self._story_model = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if sys.platform == "linux":  # glibc keeps what is freed for later
                getattr(ctypes.CDLL(None), "malloc_trim", int)(0)

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Feature tokens of a picture and their width, `(F, Df)`."""
        config = self.detokenizer.adapter.config
        return config.num_features, config.feature_dim

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.detokenizer.device

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
        model = self._model_record()
        generated = []
        for page in self._generate(request):
            generated.append(page)
            if callback_on_page is not None:
                callback_on_page(page)
        return Story(
            title=request.title
            or make_title(next((page.caption for page in generated if page.caption), ""))
            or UNTITLED,
            pages=generated,
            settings=request.settings,
            model=model,
            versions=versions(),
            language=request.language,
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
    ) -> Generator[Page, None, None]:
        """Tells a story page by page. The arguments are checked at once, not when the first page is asked for.

        Args:
            text: The opening text: the caption of page 1.
            image: The opening picture, any picture; its center square becomes the picture of page 1. Without it
                page 1 is drawn from its text. Text, picture or both must be given.
            pages: Pages in all, the opening included.
            seed: Same seed, settings, model and versions: same story.
            title: The title; by default made from the first sentence.
            **options: What `StorySettings` has beyond these: pictures (`num_inference_steps`, `guidance_scale`), words
                (`temperature`, `top_p`, `stop` ...), `policy` and `captions`; `generator`, a `torch.Generator` to draw
                the seed from; `language`, a BCP 47 tag (by default guessed from `captions`, "en" without them);
                `output_type`, "pil" or "features" (write without drawing); `callback_on_text`, called with a page's index
                and its caption so far while it is written; `logits_processor`, a control of your own over the words, see
                `seedstory.generation.sampling.LogitsProcessor`; `out`, the story folder to write, page by page;
                `overwrite`, whether it may replace an older story there; `rendering`, `render_batch` and
                `render_queue`, when and in what batches pictures are drawn, as in `Rendering`.

        Yields:
            The pages, the opening first, each when it is whole (and, with `out`, on disk).

        Raises:
            ValueError: An argument is out of range, the picture cannot be read, or `out` is not free.
        """
        return self._generate(self._request(text, image, pages, seed, title=title, **options))

    def resume(
        self,
        folder: str | Path | StoryFolder,
        *,
        callback_on_text: OnText | None = None,
        logits_processor: LogitsProcessor | None = None,
        **rendering: Any,
    ) -> Generator[Page, None, None]:
        """Goes on with an unfinished story folder: draws pages that are only written, then tells the missing ones.

        The result is the story that an uninterrupted run would have given.

        Args:
            folder: The story folder.
            callback_on_text: As in `stream`.
            logits_processor: As in `stream`; it is not recorded, so give the one that the story was begun with.
            **rendering: `rendering`, `render_batch` and `render_queue`, as in `stream`.

        Yields:
            The pages that are new or newly drawn.

        Raises:
            ValueError: An argument is out of range, or the folder holds no story, no page of it, or one that another
                model began.
        """
        how = self._rendering(**rendering)
        folder = folder if isinstance(folder, StoryFolder) else StoryFolder.open(folder)
        check_resumable(folder)
        here = self._model_record()
        for key in ("fingerprint", "dtype"):
            if folder.model.get(key) != here[key]:
                raise ValueError(
                    f"{folder.path} was begun with the model {folder.model.get('name') or '(unnamed)'} of {key} "
                    f"{(folder.model.get(key) or '(none)')[:16]}, this one has {here[key][:16] or '(none)'}: "
                    "load the model that began it"
                )
        shape = list(self.feature_shape)
        for number in range(len(folder)):
            features = folder.page(number).features
            if features is not None and list(features.shape) != shape:
                raise ValueError(
                    f"page {number + 1} of {folder.path} has features {list(features.shape)}, but this model's are "
                    f"{shape}: put its file back, or tell the story anew with generate --overwrite"
                )
        return self._resume(folder, callback_on_text, logits_processor, how)

    def write_batch(self, stories: Sequence[dict[str, Any]]) -> Generator[tuple[int, Page], None, None]:
        """Writes several stories together and leaves their pictures to `resume`.

        The language model then reads its weights once for all of them, which is most of its work. Words and features
        are those of the same story told alone, but for the rounding of the model's type.

        Args:
            stories: The arguments of `stream` for each, `out` included. They agree on words and policy.

        Yields:
            Number of a story and its next page, which has no picture yet.

        Raises:
            ValueError: As `stream`; or a story has no `out`, or they do not agree.
        """
        requests = [self._request(**story) for story in stories]
        from seedstory.generation import SamplingConfig

        if any(request.out is None for request in requests):
            raise ValueError("stories that are written together need a folder each: give `out`")
        ways = {(SamplingConfig.of(request.settings), request.settings.policy) for request in requests}
        if len(ways) > 1:
            raise ValueError(
                "stories that are written together need the same settings of the words and the same policy"
            )
        return self._write_batch(requests)

    # ------------------------------------------------------------------------------------------------------ the inside

    def _write_batch(self, requests: list[_Request]) -> Generator[tuple[int, Page], None, None]:
        if not requests:
            return
        with ExitStack() as stack:
            keepers = [stack.enter_context(_StoryWriter(request, self._model_record())) for request in requests]
            given = [[self._opening(request)] for request in requests]
            for number, pages in enumerate(given):
                if pages[0].features is not None:
                    keepers[number](pages[0])
                    yield number, pages[0]
            engine = self._engine(requests[0].settings)
            engine.start_batch([_start(request.settings, own) for request, own in zip(requests, given, strict=True)])
            for draft in engine.pages():
                page = _page(requests[draft.story].settings, given[draft.story], draft)
                if page is not None:
                    keepers[draft.story](page)
                    yield draft.story, page

    def _request(
        self,
        text: str | None = None,
        image: Image.Image | str | Path | None = None,
        pages: int = 10,
        seed: int = 0,
        *,
        title: str | None = None,
        generator: torch.Generator | None = None,
        language: str | None = None,
        output_type: str = "pil",
        callback_on_text: OnText | None = None,
        logits_processor: LogitsProcessor | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        rendering: str = Rendering.rendering,
        render_batch: int = Rendering.render_batch,
        render_queue: int = Rendering.render_queue,
        **options: Any,
    ) -> _Request:
        if output_type not in ("pil", "features"):
            raise ValueError(f"unknown output_type {output_type!r}: choose pil or features")
        how = self._rendering(rendering, render_batch, render_queue)
        if generator is not None:
            import torch

            seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        if title is not None:
            title = check_text(title, "the title")
        opening = name = None
        if image is not None:
            name = "a picture" if isinstance(image, Image.Image) else Path(image).name
            opening = to_square(load_image(image), self.image_size)
        settings = StorySettings(text=text, image_name=name, pages=pages, seed=seed, **options)
        self._check_captions([settings.text or "", *(settings.captions or [])])
        language = story_language(settings) if language is None else check_language(language)
        if out is not None:
            check_target(out, overwrite=overwrite)
        draw = output_type == "pil"
        return _Request(
            settings, opening, title, draw, callback_on_text, logits_processor, out, overwrite, how, language
        )

    def _check_captions(self, captions: Sequence[str]) -> None:
        """Refuses captions that name special tokens or are longer than the model can read at once."""
        model = self.story_model
        assert model.layout is not None, "a loaded story model has its layout"
        most = min(MAX_CAPTION_TOKENS, model.llm.config.max_position_embeddings // 2)
        for number, caption in enumerate(captions, 1):
            count = len(model.layout.caption_ids(caption))
            if count > most:
                fits = len(caption) * most // count
                raise ValueError(
                    f"the words of page {number} have {count:,} tokens, and {most:,} fit: shorten its "
                    f"{len(caption):,} characters to about {fits:,}, or make several pages of it"
                )

    def _rendering(self, *args: Any, **kwargs: Any) -> Rendering:
        rendering = Rendering(*args, **kwargs)
        if rendering.rendering == "after" and self.source is None:
            raise ValueError(
                "rendering 'after' frees the language model, and this pipeline has no folder to load it from again: "
                "choose inline or ahead, or load the pipeline with from_pretrained"
            )
        return rendering

    def _generate(self, request: _Request) -> Generator[Page, None, None]:
        """All pages of a new story."""
        with _StoryWriter(request, self._model_record()) as keep:
            opening = self._opening(request)
            if opening.features is not None:
                keep(opening)
                yield opening
            written = self._write(request.settings, [opening], request.callback_on_text, request.logits_processor)
            if request.draw:
                yield from render_story(
                    written, self.detokenizer, request.settings, request.rendering, keep, self.free_story_model
                )
            else:
                for page in written:
                    keep(page)
                    yield page

    def _resume(
        self,
        folder: StoryFolder,
        callback_on_text: OnText | None,
        logits_processor: LogitsProcessor | None,
        rendering: Rendering,
    ) -> Generator[Page, None, None]:
        def keep(page: Page) -> None:
            folder.title = folder.title or make_title(page.caption)  # a picture opened the story: its words come now
            folder.add_page(page)

        with exclusive_writer(folder.path):
            folder.refresh()
            folder.remove_leftovers()
            done = [folder.page(i) for i in range(len(folder))] or [_opening_page(folder.settings)]
            undrawn = (page for page in done if page.image is None and page.features is not None)
            pages = chain(undrawn, self._write(folder.settings, done, callback_on_text, logits_processor))
            yield from render_story(pages, self.detokenizer, folder.settings, rendering, keep, self.free_story_model)

    def _opening(self, request: _Request) -> Page:
        features = None if request.image is None else self._encode(request.image)
        return replace(_opening_page(request.settings), image=request.image, features=features)

    def _write(
        self,
        settings: StorySettings,
        given: list[Page],
        callback_on_text: OnText | None,
        logits_processor: LogitsProcessor | None,
    ) -> Iterator[Page]:
        """Writes the pages that `given` lacks, and the features of its last page if that has none."""
        if len(given) == settings.pages and given[-1].features is not None:
            return
        engine = self._engine(settings, logits_processor)
        engine.start_batch([_start(settings, given)])
        for draft in engine.pages(callback_on_text):
            page = _page(settings, given, draft)
            if page is not None:
                yield page

    def _engine(self, settings: StorySettings, logits_processor: LogitsProcessor | None = None) -> StoryEngine:
        from seedstory.cache import CachePolicy
        from seedstory.generation import SamplingConfig, StoryEngine

        return StoryEngine(
            self.story_model,
            CachePolicy(name=settings.policy),
            SamplingConfig.of(settings),
            decoding=self.decoding,
            logits_processor=logits_processor,
        )

    def _encode(self, image: Image.Image) -> torch.Tensor:
        """Features `[F, Df]` of a square picture."""
        import torch

        with torch.inference_mode():
            pixels = image_to_tensor(image).unsqueeze(0).to(self.vision_tower.device, self.vision_tower.dtype)
            return self.vision_tower(pixels)[0].float().cpu()

    def _model_record(self) -> dict[str, str]:
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "dtype": self._types if self._story_model is None else _type_record(self._story_model),
        }


def _copy_story_model(source: Path, target: Path) -> None:
    """Copies a story model's folder in place of an older one; a base language model beside it stays where it is."""
    from seedstory.modeling.base_lm import base_lm_name

    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    settings, name = read_json(target / "config.json"), base_lm_name(source)
    if settings["base_lm"] != name:
        settings["base_lm"] = name
        (target / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")


def _type_record(model: StoryModel) -> str:
    """What the words of a story depend on: "float32+bfloat16" computes in the one and decodes from the other."""
    names = [str(model.dtype).removeprefix("torch.")]
    if model.decode_dtype not in (None, model.dtype) and not model.int8:
        names.append(str(model.decode_dtype).removeprefix("torch."))
    return "+".join(names) + (", int8" if model.int8 else "")


def _recorded_types(record: str) -> tuple[torch.dtype, torch.dtype | None]:
    """The types of `_type_record`, of the language model and for decoding."""
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    names = record.removesuffix(", int8").split("+")
    if len(names) > 2 or not all(name in known for name in names):
        raise ValueError(f"the story was begun with an unknown type of weights ({record!r}): start it again")
    types = [known[name] for name in names]
    return types[0], types[1] if len(types) == 2 else None


class _StoryWriter:
    """Stores the pages of a new story, which nobody else may write meanwhile.

    The folder is made at once, so that a killed run can be gone on with; where an older story is replaced, only when
    the first page is whole. A run that fails before its first page leaves nothing.
    """

    def __init__(self, request: _Request, model: dict[str, str]) -> None:
        self.request, self.model = request, model
        self.folder: StoryFolder | None = None
        self._whole, self._made = False, list[Path]()
        self._held = ExitStack()

    def __enter__(self) -> _StoryWriter:
        if self.request.out is not None:
            out = Path(self.request.out)
            self._made = [part for part in (out, *out.parents) if not part.exists()]
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"cannot write to {out}: {error.strerror}; choose another folder") from None
            self._held.enter_context(exclusive_writer(out))
            if not (out / "story.json").exists():
                self._create(make_title(self.request.settings.text or ""))
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder is not None and not self._whole:
            self.folder.discard()
        self._held.close()
        if not self._whole:
            with suppress(OSError):
                for part in self._made:
                    part.rmdir()

    def __call__(self, page: Page) -> None:
        if self.request.out is None:
            return
        if self.folder is None:
            self._create(make_title(page.caption))
        assert self.folder is not None
        self.folder.title = self.folder.title or make_title(page.caption)
        self.folder.add_page(page)
        self._whole = True

    def _create(self, title: str) -> None:
        assert self.request.out is not None
        self.folder = StoryFolder.create(
            self.request.out,
            title=self.request.title or title,
            settings=self.request.settings,
            model=self.model,
            versions=versions(),
            language=self.request.language,
            overwrite=self.request.overwrite,
        )


def check_resumable(folder: StoryFolder) -> None:
    """Checks that a story can be gone on with: that it has a page, or opens with words, which its settings hold.

    Raises:
        ValueError: It cannot.
    """
    check_unlocked(folder.path)
    if len(folder) == 0 and folder.settings.image_name is not None:
        raise ValueError(
            f"{folder.path} was stopped before its opening picture was stored: start again with `generate --overwrite`"
        )


def _opening_page(settings: StorySettings) -> Page:
    """The opening of a story of which nothing is written yet."""
    return Page(index=0, caption=settings.text or "", seed=page_seed(settings.seed, 0), state="opening")


def _start(settings: StorySettings, given: list[Page]) -> StoryRequest:
    """What the engine is to write, given the first pages."""
    from seedstory.generation import GivenPage, StoryRequest

    script = (settings.captions or [])[len(given) - 1 :]
    opening = [GivenPage(page.caption, page.features) for page in given]
    return StoryRequest([*opening, *map(GivenPage, script)], settings.pages, settings.seed)


def _page(settings: StorySettings, given: list[Page], draft: PageDraft) -> Page | None:
    """The page of a draft; None if it was given whole."""
    if draft.index < len(given):
        page = given[draft.index]
        return replace(page, features=draft.features.cpu()) if page.features is None else None
    seed = page_seed(settings.seed, draft.index)
    return Page(index=draft.index, caption=draft.caption, features=draft.features.cpu(), seed=seed)
