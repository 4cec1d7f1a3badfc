"""What the benchmark compares with: the reference's own generation loop, and plain Hugging Face.

Both run on a `StoryModel`, so that weights, token layout and attention are ours, and both write captions of a fixed
length, greedily, batch 1. Where the originals leave a choice, it is made in favor of the baseline:

- LoRA is merged (the reference computes it apart, in every layer of every step);
- attention is computed once (the reference computes `q @ k.T` a second time and drops it);
- the next forced id is known without looking at the scores (the reference finds it in a logits processor).

Shape legend: `F` feature tokens of width `Df`, `T` tokens of a caption, `N` visual tokens of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from inference.instruments import clock
from seedstory.generation import GivenPage
from seedstory.generation.pages import PageDraft
from seedstory.layout import StoryLayout, countdown
from seedstory.modeling import StoryModel

WINDOW_PAGES = 8  # `window_size` of the reference's gen_george.py


def embed(model: StoryModel, ids: Sequence[int]) -> Tensor:
    """Input embeddings of ids, `[1, T, D]`."""
    return model.embed_tokens(torch.tensor([ids], dtype=torch.long, device=model.device))


def image(model: StoryModel, features: Tensor) -> Tensor:
    """Input embeddings of a context picture and its `</img>`: `[F, Df]` → `[1, N + 1, D]`."""
    end = embed(model, [story_layout(model).image_end_id])
    features = features.to(model.device, model.dtype)
    return torch.cat([model.embed_images(features[None]).to(end.dtype), end], dim=1)


def story_layout(model: StoryModel) -> StoryLayout:
    assert model.layout is not None, "the model comes with its tokenizer"
    return model.layout


def _whole(page: GivenPage) -> tuple[str, Tensor]:
    if page.features is None:
        raise ValueError("A baseline's opening pages need features; give whole pages.")
    return page.caption or "", page.features


def forbidden_ids(model: StoryModel) -> list[int]:
    """Ids that no caption holds, `<img>` included: it comes after exactly `T` tokens."""
    layout, first = story_layout(model), model.config.image_start_id
    special = {layout.eos_id, *layout.tokenizer.all_special_ids, *layout.tokenizer.added_tokens_decoder}
    return sorted({id for id in special if id < first} | {first})


@torch.inference_mode()
def reference(
    model: StoryModel,
    opening: Sequence[GivenPage] = (),
    *,
    pages: int,
    caption_tokens: int = 46,
    window_pages: int = WINDOW_PAGES,
) -> Iterator[PageDraft]:
    """A story as SEED-Story writes it (src/inference/gen_george.py and ContinuousLVLM.generate at commit aec3c1c).

    For every page the last `window_pages` pages are tokenized and read anew, without anything carried over. Then
    every token is a decoding step of its own: the label that opens the page, the caption, `<img>`, the `N` query
    tokens and `</img>`. Each step, the reading of the prompt included, keeps the hidden states of all layers and
    computes the scores of the whole vocabulary at all its positions. The picture's features come from the last hidden
    states at the query tokens, and are the context picture of the next pages.

    Args:
        model: In evaluation mode, with LoRA merged.
        opening: Whole pages, with caption and features.
        pages: Pages of the whole story, the opening included.
        caption_tokens: `T`, tokens of every caption.
        window_pages: Pages that are read anew.

    Yields:
        The pages after the opening.
    """
    layout, labels, forbidden = story_layout(model), countdown(pages), forbidden_ids(model)
    story = [_whole(page) for page in opening]

    for index in range(len(story), pages):
        times = [clock(model.device)]
        prompt = [embed(model, layout.opening_ids)]
        for page in range(max(0, index - window_pages), index):
            caption, features = story[page]
            first = page == 0
            label, words = layout.page_label_ids(labels[page], first), layout.caption_ids(caption, first)
            text = [*label, *words, layout.image_start_id]
            prompt += [embed(model, text), image(model, features)]
        step, kept, cache = _keep_everything(model)
        step(torch.cat(prompt, dim=1))
        times.append(clock(model.device))

        for token in layout.page_label_ids(labels[index], index == 0):
            scores = step(embed(model, [token]))
        ids: list[int] = []
        while True:
            scores[forbidden] = -torch.inf
            ids.append(int(scores.argmax()))
            if len(ids) == caption_tokens:
                break
            scores = step(embed(model, ids[-1:]))
        times.append(clock(model.device))

        for token in [ids[-1], layout.image_start_id, *layout.query_ids, layout.image_end_id]:
            step(embed(model, [token]))
        states = [layers[-1] for layers in kept[-len(layout.query_ids) - 1 : -1]]
        features = model.decode_features(torch.cat(states, dim=1))[0].float()
        times.append(clock(model.device))

        story.append((layout.caption_text(ids), features))
        yield _draft(model, index, *story[-1], times, cache)


def _keep_everything(model: StoryModel) -> tuple[Callable[[Tensor], Tensor], list[tuple[Tensor, ...]], DynamicCache]:
    """A decoding step on an empty cache that keeps all hidden states, the list it keeps them in, and the cache."""
    cache = DynamicCache(config=model.llm.config)
    kept: list[tuple[Tensor, ...]] = []

    def step(embeds: Tensor) -> Tensor:
        output = model.llm.base_model(
            inputs_embeds=embeds, past_key_values=cache, use_cache=True, output_hidden_states=True
        )
        kept.append(output.hidden_states)
        return model.caption_logits(output.last_hidden_state)[0, -1].float()

    return step, kept, cache


@torch.inference_mode()
def hugging_face(
    model: StoryModel, opening: Sequence[GivenPage] = (), *, pages: int, caption_tokens: int = 46
) -> Iterator[PageDraft]:
    """A story as a careful user of transformers writes it: `generate`, and one cache for the whole story.

    Nothing is read twice, only last hidden states are kept, and forced tokens need no scores. `generate` writes the
    caption; it knows the base vocabulary alone, hence captions of a fixed length. `<img>` and the query tokens follow
    one by one; then the queries leave the cache, and the picture waits for the next page's prompt.

    Args:
        model: In evaluation mode, with LoRA merged.
        opening: Whole pages, with caption and features.
        pages: Pages of the whole story, the opening included.
        caption_tokens: `T`, tokens of every caption.

    Yields:
        The pages after the opening.
    """
    layout, labels, llm = story_layout(model), countdown(pages), model.llm
    beyond = range(model.config.image_start_id, llm.config.vocab_size)
    settings = GenerationConfig(
        do_sample=False,
        min_new_tokens=caption_tokens,
        max_new_tokens=caption_tokens,
        suppress_tokens=[*forbidden_ids(model)[:-1], *beyond] or None,
        pad_token_id=layout.eos_id,
    )
    cache = DynamicCache(config=llm.config)
    parts = [embed(model, layout.opening_ids)]
    for page, (caption, features) in enumerate(map(_whole, opening)):
        label, words = layout.page_label_ids(labels[page], page == 0), layout.caption_ids(caption, page == 0)
        text = [*label, *words, layout.image_start_id]
        parts += [embed(model, text), image(model, features)]
    story = torch.cat(parts, dim=1)

    for index in range(len(opening), pages):
        times = [clock(model.device)]
        story = torch.cat([story, embed(model, layout.page_label_ids(labels[index], index == 0))], dim=1)

        def note_first_token(_: Tensor, scores: Tensor, times: list[float] = times) -> Tensor:
            if len(times) == 1:
                times.append(clock(scores.device))
            return scores

        ids = llm.generate(
            inputs_embeds=story,
            attention_mask=torch.ones(story.shape[:2], dtype=torch.long, device=story.device),
            past_key_values=cache,
            generation_config=settings,
            logits_processor=[note_first_token],
        )[0].tolist()
        times.append(clock(model.device))

        states = [
            llm.base_model(inputs_embeds=embed(model, [token]), past_key_values=cache, use_cache=True).last_hidden_state
            for token in [ids[-1], layout.image_start_id, *layout.query_ids]
        ]
        features = model.decode_features(torch.cat(states[2:], dim=1))[0].float()
        cache.crop(-len(layout.query_ids))
        times.append(clock(model.device))

        story = torch.cat([story, embed(model, [*ids, layout.image_start_id]), image(model, features)], dim=1)
        yield _draft(model, index, layout.caption_text(ids), features, times, cache)


def _draft(
    model: StoryModel, index: int, caption: str, features: Tensor, times: Sequence[float], cache: DynamicCache
) -> PageDraft:
    """A page from the times at its start, after its context, after its caption and after its picture."""
    context, words, drawing = (after - before for before, after in zip(times, times[1:], strict=False))
    kept = len(story_layout(model).caption_ids(caption)) + 1
    held = cache.get_seq_length()
    return PageDraft(index, caption, features, words, drawing, context, cached_tokens=held, caption_tokens=kept)
