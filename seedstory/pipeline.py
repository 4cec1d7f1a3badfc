"""`StoryPipeline`: an opening goes in, pages come out one by one, and land in a story folder.

Torch and the networks are imported when a model is loaded, not before: whoever only wants to check a request or find
a model waits for neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from seedstory.errors import RequestError
from seedstory.identity import ModelIdentity
from seedstory.image import Fit, image_to_tensor, load_image, to_square
from seedstory.layout import LAYOUTS
from seedstory.model_folder import versions
from seedstory.outputs import OUTPUT_TYPES, OutputType, StoryOutput
from seedstory.pipeline_base import PipelineBase
from seedstory.rendering import Rendering, render_story
from seedstory.settings import (
    MAX_CAPTION_TOKENS,
    StorySettings,
    check_language,
    check_text,
    story_language,
)
from seedstory.story import UNTITLED, Page, Story, StoryFolder, check_target, make_title
from seedstory.story_request import drafted_page, opening_page, state_pages, story_request, writing_runs
from seedstory.story_writer import StoryWriter, check_feature_shape, check_resumable, check_same_model, resumed

if TYPE_CHECKING:
    import torch

    from seedstory.generation import StoryEngine
    from seedstory.generation.sampling import LogitsProcessor

logger = logging.getLogger(__name__)

OnText = Callable[[int, str], Any]
OnStep = Callable[..., Any]


@dataclass(frozen=True)
class _Request:
    """A checked request for a new story."""

    settings: StorySettings
    image: Image.Image | None
    seen: Image.Image | None  # what the vision tower reads of it
    title: str | None
    language: str
    output_type: str
    out: str | Path | None
    overwrite: bool
    rendering: Rendering
    callback_on_text: OnText | None
    callback_on_step_end: OnStep | None
    logits_processor: LogitsProcessor | None

    def writer(self, model: ModelIdentity) -> StoryWriter:
        return StoryWriter(
            self.out, self.settings, model, title=self.title, language=self.language, overwrite=self.overwrite
        )


class StoryPipeline(PipelineBase):
    """Generates illustrated stories. Load one with `from_pretrained`, call it, or `stream` its pages.

    Args:
        story_model: Writes captions and regresses the features of images; in evaluation mode.
        vision_tower: Pixels `[B, 3, H, W]` to features `[B, F, Df]`.
        detokenizer: Features `[B, F, Df]` to images.
        identity: Of the weights; empty for a model that was never on disk.
        source: The folder it was loaded from.
        decoding: How captions are decoded, one of `seedstory.settings.DECODINGS`; the words do not depend on it but
            for rounding.
        salience: Which pages' words the cache keeps of a long story, see `seedstory.salience`. It is not recorded:
            give the same one to resume.
    """

    def __call__(
        self,
        text: str | None = None,
        image: Image.Image | str | Path | None = None,
        pages: int = StorySettings.pages,
        seed: int = StorySettings.seed,
        *,
        generator: torch.Generator | None = None,
        title: str | None = None,
        language: str | None = None,
        captions: Sequence[str] | None = None,
        story_state: bool | None = StorySettings.story_state,
        cast: Mapping[str, str] | None = None,
        plan: Sequence[str] | None = None,
        facts: Sequence[Mapping[str, str]] | None = None,
        policy: str = StorySettings.policy,
        temperature: float = StorySettings.temperature,
        top_k: int = StorySettings.top_k,
        top_p: float = StorySettings.top_p,
        min_p: float = StorySettings.min_p,
        repetition_penalty: float = StorySettings.repetition_penalty,
        no_repeat_ngram_size: int = StorySettings.no_repeat_ngram_size,
        history_pages: int = StorySettings.history_pages,
        min_caption_tokens: int = StorySettings.min_caption_tokens,
        max_caption_tokens: int = StorySettings.max_caption_tokens,
        max_sentences: int = StorySettings.max_sentences,
        stop: str | Sequence[str] = StorySettings.stop,
        text_guidance_scale: float = StorySettings.text_guidance_scale,
        reference: bool = StorySettings.reference,
        num_inference_steps: int | None = StorySettings.num_inference_steps,
        guidance_scale: float | None = StorySettings.guidance_scale,
        scheduler: str | None = StorySettings.scheduler,
        guidance_interval: tuple[float, float] = StorySettings.guidance_interval,
        rendering: str = Rendering.rendering,
        render_batch: int = Rendering.render_batch,
        render_queue: int = Rendering.render_queue,
        output_type: OutputType = "pil",
        out: str | Path | None = None,
        overwrite: bool = False,
        callback_on_page: Callable[[Page], Any] | None = None,
        callback_on_text: OnText | None = None,
        callback_on_step_end: OnStep | None = None,
        logits_processor: LogitsProcessor | None = None,
    ) -> StoryOutput:
        """Generates a story and returns it whole.

        All parameters but one are those of `stream`, which documents them.

        Args:
            callback_on_page: Called with each page when it is finished.

        Returns:
            The story with its pages, captions, images and features.

        Raises:
            SeedStoryError: As `stream`.
        """
        arguments = {key: value for key, value in locals().items() if key not in ("self", "callback_on_page")}
        request = self._request(**arguments)
        model, generated = self.identity, []
        with closing(self._generate(request)) as stream, self._progress_bar(request.settings.pages) as bar:
            for page in stream:
                generated.append(page)
                bar.update(page.number - bar.n)
                if callback_on_page is not None:
                    callback_on_page(page)
        first = next((page.caption for page in generated if page.caption), "")
        story = Story(
            title=request.title or make_title(first) or UNTITLED,
            pages=generated,
            settings=request.settings,
            model=model,
            versions=versions(),
            language=request.language,
        )
        return StoryOutput(story=story, folder=None if out is None else Path(out), output_type=output_type)

    def stream(
        self,
        text: str | None = None,
        image: Image.Image | str | Path | None = None,
        pages: int = StorySettings.pages,
        seed: int = StorySettings.seed,
        *,
        generator: torch.Generator | None = None,
        title: str | None = None,
        language: str | None = None,
        captions: Sequence[str] | None = None,
        story_state: bool | None = StorySettings.story_state,
        cast: Mapping[str, str] | None = None,
        plan: Sequence[str] | None = None,
        facts: Sequence[Mapping[str, str]] | None = None,
        policy: str = StorySettings.policy,
        temperature: float = StorySettings.temperature,
        top_k: int = StorySettings.top_k,
        top_p: float = StorySettings.top_p,
        min_p: float = StorySettings.min_p,
        repetition_penalty: float = StorySettings.repetition_penalty,
        no_repeat_ngram_size: int = StorySettings.no_repeat_ngram_size,
        history_pages: int = StorySettings.history_pages,
        min_caption_tokens: int = StorySettings.min_caption_tokens,
        max_caption_tokens: int = StorySettings.max_caption_tokens,
        max_sentences: int = StorySettings.max_sentences,
        stop: str | Sequence[str] = StorySettings.stop,
        text_guidance_scale: float = StorySettings.text_guidance_scale,
        reference: bool = StorySettings.reference,
        num_inference_steps: int | None = StorySettings.num_inference_steps,
        guidance_scale: float | None = StorySettings.guidance_scale,
        scheduler: str | None = StorySettings.scheduler,
        guidance_interval: tuple[float, float] = StorySettings.guidance_interval,
        rendering: str = Rendering.rendering,
        render_batch: int = Rendering.render_batch,
        render_queue: int = Rendering.render_queue,
        output_type: OutputType = "pil",
        out: str | Path | None = None,
        overwrite: bool = False,
        callback_on_text: OnText | None = None,
        callback_on_step_end: OnStep | None = None,
        logits_processor: LogitsProcessor | None = None,
    ) -> Generator[Page, None, None]:
        """Generates a story page by page. The arguments are checked at once, not when the first page is asked for.

        Args:
            text: The opening text: the caption of page 1.
            image: The opening image, any image; its central square becomes the image of page 1. Without it page 1 is
                drawn from its text. Text, image or both must be given.
            pages: Pages in all, the opening included.
            seed: Same seed, settings, model and versions: same story.
            generator: Draws the seed instead.
            title: The title; by default made from the first sentence.
            language: BCP 47 tag of the captions' language; by default guessed from `captions`, "en" without them.
            captions: Your own script, one caption for each page after the opening.
            story_state: Whether a cast and a plan are written first and followed; None: if the model was trained to.
            cast: Your own characters: name and look of each. What you leave out is the model's.
            plan: Your own plan, a line for each page after the opening; an empty one is the model's.
            facts: Your own notes, {name: text} for each page, the opening included. The model does not read them.
            policy: Which keys and values the language model keeps, one of `seedstory.settings.POLICIES`.
            temperature: Of sampling; 0 takes the most likely token.
            top_k: Sample among this many most likely tokens; 0 is all.
            top_p: Sample from this probability mass; 1.0 is all.
            min_p: Leave out tokens less probable than this fraction of the most likely one; 0.0 is none.
            repetition_penalty: Divides the logits of tokens already used; 1.0 is none.
            no_repeat_ngram_size: No run of this many tokens is written twice; 0 is off.
            history_pages: Earlier pages in which these two look for repetition.
            min_caption_tokens: Shortest caption, in tokens.
            max_caption_tokens: Longest caption, in tokens; a longer one is cut after its last whole sentence.
            max_sentences: Most sentences of a caption; 0 is no limit.
            stop: Texts that end a caption right after themselves.
            text_guidance_scale: Classifier-free guidance of the text; 1.0 is none.
            reference: Write and draw as SEED-Story's script does, bugs included, in order to compare: see
                `seedstory.generation.reference`. It reads the image stretched to a square and draws every page from
                seed 42. Its words follow no settings; the script draws with 50 steps and a guidance of 7.5.
            num_inference_steps: Diffusion steps of an image; None: as many as the scheduler needs.
            guidance_scale: Classifier-free guidance of the image; 1.0 is none, and None what suits the scheduler.
            scheduler: The way from noise to an image, one of `seedstory.settings.SCHEDULERS`; None: the model's own.
            guidance_interval: Share of the steps, from and to, in which guidance steers; the others cost half.
            rendering: When images are drawn: "inline", "ahead" or "after", see `Rendering`.
            render_batch: Images that are drawn in a batch.
            render_queue: Batches that "ahead" may leave undrawn.
            output_type: "pil"; "np" or "pt" for another form of `StoryOutput.images`; or "features", which writes
                without drawing. `Page.image` is always a PIL image.
            out: Story folder to write, page by page.
            overwrite: Whether an older story there may be replaced.
            callback_on_text: Called with a page's index and its caption so far after every token.
            callback_on_step_end: Called after every diffusion step as `callback(detokenizer, step, timestep, kwargs)`,
                where `kwargs` holds the `latents` and their clean estimate, `pred_original_sample`.
            logits_processor: Your own function over the scores of the next token, see
                `seedstory.generation.sampling.LogitsProcessor`.

        Yields:
            The pages, the opening first, each when it is whole (and, with `out`, on disk).

        Raises:
            RequestError: An argument is out of range, or two do not agree.
            DataError: The image cannot be read.
            StoryFolderError: `out` is not free.
        """
        arguments = {key: value for key, value in locals().items() if key != "self"}
        return self._generate(self._request(**arguments))

    def resume(
        self,
        folder: str | Path | StoryFolder,
        *,
        allow_other_model: bool = False,
        rendering: str = Rendering.rendering,
        render_batch: int = Rendering.render_batch,
        render_queue: int = Rendering.render_queue,
        callback_on_text: OnText | None = None,
        callback_on_step_end: OnStep | None = None,
        logits_processor: LogitsProcessor | None = None,
    ) -> Generator[Page, None, None]:
        """Goes on with an unfinished story folder: draws pages that are only written, then generates the missing ones.

        The result is the story that an uninterrupted run would have given.

        Args:
            folder: The story folder.
            allow_other_model: Also go on with a story that another model began, or this one in other types. The
                story is then no longer what either would have written; the folder records both.
            rendering: As in `stream`.
            render_batch: As in `stream`.
            render_queue: As in `stream`.
            callback_on_text: As in `stream`.
            callback_on_step_end: As in `stream`.
            logits_processor: As in `stream`; it is not recorded, so give the one that the story was begun with.

        Yields:
            The pages that are new or newly drawn.

        Raises:
            RequestError: An argument is out of range.
            OtherModelError: Another model began the story.
            ModelError: A page is to be drawn with a scheduler that does not fit the model.
            StoryFolderError: The folder holds no story, or none that can be resumed.
        """
        how = self._rendering(rendering, render_batch, render_queue)
        resumable = self._resumable(folder, allow_other_model)
        return self._resume(resumable, how, callback_on_text, callback_on_step_end, logits_processor)

    def write_batch(self, stories: Sequence[Mapping[str, Any]]) -> Generator[tuple[int, Page], None, None]:
        """Writes several stories in a batch and leaves their images to `resume`.

        The language model then reads its weights once for all of them, which is most of its work. Words and features
        are those of the same story generated alone, but for the rounding of the model's type.

        Args:
            stories: The arguments of `stream` for each, `out` included. They agree on words and policy.

        Yields:
            Number of a story and its next page, which has no image yet.

        Raises:
            SeedStoryError: As `stream`; or a story has no `out`, or they do not agree.
        """
        requests = [self._request(**story) for story in stories]
        from seedstory.generation import SamplingConfig

        if any(request.out is None for request in requests):
            raise RequestError("stories that are written in a batch need a folder each: give `out`")
        ways = {
            (SamplingConfig.of(request.settings), request.settings.policy, request.settings.reference)
            for request in requests
        }
        if len(ways) > 1:
            raise RequestError(
                "stories that are written in a batch need the same settings of the words and the same policy"
            )
        return self._write_batch(requests)

    # ------------------------------------------------------------------------------------------------------ the inside

    def _request(
        self,
        *,
        image: Image.Image | str | Path | None = None,
        seed: int = StorySettings.seed,
        generator: torch.Generator | None = None,
        title: str | None = None,
        language: str | None = None,
        rendering: str = Rendering.rendering,
        render_batch: int = Rendering.render_batch,
        render_queue: int = Rendering.render_queue,
        output_type: OutputType = "pil",
        out: str | Path | None = None,
        overwrite: bool = False,
        callback_on_text: OnText | None = None,
        callback_on_step_end: OnStep | None = None,
        logits_processor: LogitsProcessor | None = None,
        **settings: Any,
    ) -> _Request:
        if output_type not in OUTPUT_TYPES:
            raise RequestError(f"unknown output_type {output_type!r}: choose one of {', '.join(OUTPUT_TYPES)}")
        how = self._rendering(rendering, render_batch, render_queue)
        if generator is not None:
            import torch

            seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        opening = seen = picture = name = None
        if image is not None:
            name = "a picture" if isinstance(image, Image.Image) else Path(image).name
            picture = load_image(image)
            opening = to_square(picture, self.image_size)
        checked = StorySettings(image_name=name, seed=seed, **settings)
        if checked.scheduler is not None:
            self.detokenizer.objective_with(checked.scheduler)
        if checked.reference and self.story_model.config.layout != LAYOUTS[1]:
            raise RequestError("this model was not trained with SEED-Story's prompt: leave reference out")
        if picture is not None:
            seen = opening if self._image_fit(checked) == "crop" else picture
        self._check_captions([checked.text or "", *(checked.captions or [])])
        if checked.cast or checked.plan or checked.story_state:
            state_pages(checked, self.story_model.config.story_state)
        if out is not None:
            check_target(out, overwrite=overwrite)
        return _Request(
            settings=checked,
            image=opening,
            seen=seen,
            title=None if title is None else check_text(title, "the title"),
            language=story_language(checked) if language is None else check_language(language),
            output_type=output_type,
            out=out,
            overwrite=overwrite,
            rendering=how,
            callback_on_text=callback_on_text,
            callback_on_step_end=callback_on_step_end,
            logits_processor=logits_processor,
        )

    def _resumable(self, folder: str | Path | StoryFolder, allow_other_model: bool) -> StoryFolder:
        """A story folder that this pipeline can go on with."""
        folder = folder if isinstance(folder, StoryFolder) else StoryFolder.open(folder)
        check_resumable(folder)
        if not allow_other_model:
            check_same_model(folder, self.identity)
        check_feature_shape(folder, self.feature_shape)
        undrawn = [entry for entry in folder.entries if not entry.is_drawn]
        for own in [{}, *((entry.pending or entry).settings for entry in undrawn)]:
            self.detokenizer.objective_with(own.get("scheduler", folder.settings.scheduler))
        return folder

    def _check_captions(self, captions: Sequence[str]) -> None:
        """Refuses captions that name special tokens or are longer than the model can read at once."""
        model = self.story_model
        assert model.layout is not None, "a loaded story model has its layout"
        most = min(MAX_CAPTION_TOKENS, model.llm.config.max_position_embeddings // 2)
        for number, caption in enumerate(captions, 1):
            count = len(model.layout.caption_ids(caption))
            if count > most:
                fits = len(caption) * most // count
                raise RequestError(
                    f"the words of page {number} have {count:,} tokens, and {most:,} fit: shorten its "
                    f"{len(caption):,} characters to about {fits:,}, or make several pages of it"
                )

    def _rendering(self, rendering: str, render_batch: int, render_queue: int) -> Rendering:
        how = Rendering(rendering, render_batch, render_queue)
        if rendering == "inline" and self.memory_plan is not None and self.memory_plan.mode.one_at_a_time:
            how = replace(how, rendering="after")  # the same story; networks come and go once, not for every page
        if rendering == "after" and self.source is None and self._offload_device is None:
            raise RequestError(
                "rendering 'after' frees the language model, and this pipeline has no folder to load it from again: "
                "choose inline or ahead, or load the pipeline with from_pretrained"
            )
        if rendering == "ahead" and (self._offload_device is not None or self._phases is not None):
            raise RequestError("rendering 'ahead' needs all components at once: choose after, or inline")
        return how

    def _generate(self, request: _Request) -> Generator[Page, None, None]:
        """All pages of a new story."""
        with request.writer(self.identity) as write:
            opening = self._opening(request)
            if opening.features is not None:
                write(opening)
                yield opening
            written = self._write(
                request.settings, [opening], request.callback_on_text, request.logits_processor, write
            )
            if request.output_type == "features":
                for page in written:
                    write(page)
                    yield page
            else:
                yield from self._render(
                    written, request.settings, request.rendering, write, request.callback_on_step_end
                )

    def _resume(
        self,
        folder: StoryFolder,
        rendering: Rendering,
        callback_on_text: OnText | None,
        callback_on_step_end: OnStep | None,
        logits_processor: LogitsProcessor | None,
    ) -> Generator[Page, None, None]:
        with resumed(folder, self.identity) as write:
            done = [folder.page(i) for i in range(len(folder))] or [opening_page(folder.settings)]
            undrawn = [page for page in done if page.image is None and page.is_whole]
            pages = chain(undrawn, self._write(folder.settings, done, callback_on_text, logits_processor, write))
            yield from self._render(pages, folder.settings, rendering, write, callback_on_step_end)

    def _render(
        self,
        pages: Iterator[Page],
        settings: StorySettings,
        rendering: Rendering,
        write: Callable[[Page], None],
        callback_on_step_end: OnStep | None,
    ) -> Iterator[Page]:
        return render_story(
            pages,
            self.detokenizer,
            settings,
            rendering,
            write,
            (lambda: None) if self._offload_device or self._phases else self.free_story_model,
            before_batch=lambda: self._activate("detokenizer"),
            callback_on_step_end=callback_on_step_end,
        )

    def _write_batch(self, requests: list[_Request]) -> Generator[tuple[int, Page], None, None]:
        if not requests:
            return
        with ExitStack() as stack:
            writers = [stack.enter_context(request.writer(self.identity)) for request in requests]
            given = [[self._opening(request)] for request in requests]
            for number, pages in enumerate(given):
                if pages[0].features is not None:
                    writers[number](pages[0])
                    yield number, pages[0]
            engine = self._engine(requests[0].settings)
            writes = self.story_model.config.story_state
            engine.start_batch(
                [story_request(request.settings, own, writes) for request, own in zip(requests, given, strict=True)]
            )
            for draft in engine.pages():
                own = given[draft.story]
                page = drafted_page(requests[draft.story].settings, own, draft)
                if page is not None:
                    writers[draft.story](page)
                    if not (draft.index < len(own) and own[draft.index].is_whole):
                        yield draft.story, page

    def _opening(self, request: _Request) -> Page:
        fit = self._image_fit(request.settings)
        features = None if request.seen is None else self._encode(request.seen, fit)
        return replace(opening_page(request.settings), image=request.image, features=features)

    def _write(
        self,
        settings: StorySettings,
        given: list[Page],
        callback_on_text: OnText | None,
        logits_processor: LogitsProcessor | None,
        store: Callable[[Page], None],
    ) -> Iterator[Page]:
        """Writes the pages that `given` lacks, those that are to be made anew, and features where they are missing.

        A given page is stored anew where another story state now follows it. Pages made anew take their places in
        `given`, since those after them read them.
        """
        on_text = None if callback_on_text is None else lambda _, index, text: callback_on_text(index, text)
        for last, own in writing_runs(settings, given):
            made_with = replace(settings, **own) if own else settings
            engine = self._engine(made_with, logits_processor)
            engine.start_batch([story_request(settings, given, self.story_model.config.story_state)])
            drafts = engine.pages(on_text)
            while True:
                self._activate("story_model")
                draft = next(drafts, None)
                if draft is None or draft.index > last:
                    break
                page = drafted_page(settings, given, draft)
                if page is None:
                    continue
                if draft.index < len(given):
                    whole, given[draft.index] = given[draft.index].is_whole, page
                    if whole:
                        store(page)
                        continue
                logger.debug("page %d: %d tokens in the cache", page.number, draft.cached_tokens)
                yield page

    def _engine(self, settings: StorySettings, logits_processor: LogitsProcessor | None = None) -> StoryEngine:
        from seedstory.cache import CachePolicy
        from seedstory.generation import SamplingConfig, StoryEngine
        from seedstory.generation.reference import ReferenceEngine

        self._activate("story_model")
        if settings.reference:
            if logits_processor is not None:
                raise RequestError("reference writes as SEED-Story's script does: leave logits_processor out")
            return ReferenceEngine(self.story_model, decoding=self.decoding)
        return StoryEngine(
            self.story_model,
            CachePolicy(name=settings.policy),
            SamplingConfig.of(settings),
            decoding=self.decoding,
            logits_processor=logits_processor,
            salience=self.salience,
        )

    def _image_fit(self, settings: StorySettings) -> Fit:
        """How the vision tower's picture becomes a square."""
        return "stretch" if settings.reference else self.vision_tower.image_fit

    def _encode(self, image: Image.Image, fit: Fit | None = None) -> torch.Tensor:
        """Features `[F, Df]` of an image."""
        import torch

        self._activate("vision_tower")
        with torch.inference_mode():
            image = to_square(image, self.vision_tower.config.image_size, fit or self.vision_tower.image_fit)
            pixels = image_to_tensor(image).unsqueeze(0).to(self.vision_tower.device, self.vision_tower.dtype)
            return self.vision_tower(pixels)[0].float().cpu()
