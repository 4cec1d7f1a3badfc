"""Any language model of the guide writes stories by the same rules: every shortcut equals the slow way."""

from functools import lru_cache

import pytest
import torch

from seedstory.cache import CachePolicy, KeyRotation
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine, StoryRequest
from seedstory.generation.native import native_unsupported_reason
from seedstory.layout import collate
from seedstory.settings import POLICIES
from tests.seedstory.families import FAMILIES, WINDOW, family_model
from tests.seedstory.plain_reader import plain_mm_sink
from tests.seedstory.tiny_language import needs_native, tiny_model

SHORT = SamplingConfig(temperature=1.0, max_caption_tokens=7)
SMALL = {"window_pages": 2, "first_tokens": 3, "image_head": 1, "image_tail": 1, "max_sink_tokens": 40}
STORIES = [
    StoryRequest([GivenPage("The fox found a lantern.")], pages=5, seed=3),
    StoryRequest(pages=3, seed=4),
]


@lru_cache
def merged(name: str):
    """The tiny model of a family as inference has it; tests do not change it."""
    return family_model(name).merge_lora()


@pytest.fixture(params=FAMILIES)
def family(request):
    return merged(request.param)


def write(model, stories=STORIES[:1], *, policy="mm_sink", decoding="eager", sampling=SHORT, **settings):
    """Pages of each story."""
    engine = StoryEngine(model, CachePolicy(name=policy, **(SMALL | settings)), sampling, decoding=decoding)
    engine.start_batch(stories)
    pages = [[] for _ in stories]
    for page in engine.pages():
        pages[page.story].append(page)
    return pages


def assert_same(left, right, atol=2e-5):
    assert [page.caption for page in left] == [page.caption for page in right]
    for one, other in zip(left, right, strict=True):
        assert (one.features - other.features).abs().max() <= atol, one.index


def script(captions, pages):
    return [GivenPage(captions[page % len(captions)]) for page in range(pages)]


# ------------------------------------------------------------------------------------------------ the cache is exact


def test_a_cache_that_keeps_everything_equals_full_recomputation(family):
    (dense,) = write(family, policy="dense")
    (naive,) = write(family, policy="recompute", window_pages=99)
    assert_same(dense, naive)


@pytest.mark.parametrize("policy", ["mm_sink", "sink", "window"])
def test_a_cache_that_evicts_equals_a_plain_reader_of_unrotated_keys(family, captions, policy):
    assert largest_difference(family, captions, policy) <= 2e-5


def test_sinks_move_by_the_frequencies_of_each_layer(captions):
    settings = FAMILIES["gemma3"]["lm"] | {"sliding_window": 999}  # so that sliding layers see the sinks, too
    model = tiny_model(family="gemma3", lm=settings).merge_lora()
    assert largest_difference(model, captions) <= 2e-5
    model.windows = [9, None]
    assert largest_difference(model, captions) > 1e-2, "the comparison notices a wrong window"


def largest_difference(model, captions, policy="mm_sink"):
    """Between the features of a written story and those of the plain reader."""
    texts = [captions[page % 4] for page in range(7)]
    (pages,) = write(model, [StoryRequest(script(captions, 7), 7)], policy=policy, salient_pages=2, kept_images=2)
    sizes = {"first": 3, "words": 2, "images": 2, "head": 1, "tail": 1, "budget": 40}
    if policy != "mm_sink":
        sizes = dict.fromkeys(sizes, 0) | {"first": 3 if policy == "sink" else 0}
    expected = plain_mm_sink(model, texts, window=2, **sizes)
    return max((page.features - features).abs().max() for page, (features, _) in zip(pages, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "policy"), [*((name, "mm_sink") for name in FAMILIES), *(("gemma3", policy) for policy in POLICIES[:-1])]
)
def test_resumed_equals_uninterrupted_and_a_batch_equals_each_alone(name, policy):
    model = merged(name)
    batch = write(model, STORIES, policy=policy)
    for request, together in zip(STORIES, batch, strict=True):
        (alone,) = write(model, [request], policy=policy)
        assert_same(alone, together)
    opening = [page.as_opening() for page in batch[0][:4]]
    (resumed,) = write(model, [StoryRequest(opening, STORIES[0].pages, STORIES[0].seed)], policy=policy)
    (whole,) = write(model, policy=policy)
    assert_same(whole, resumed)


@pytest.mark.parametrize("decoding", ["native", "static"])
def test_every_form_of_decoding_equals_the_models_own_layers(family, decoding):
    if decoding == "native" and family.llm.config.model_type == "gemma3_text":
        assert (
            native_unsupported_reason(family) == "its layers have norms behind attention and MLP, too, as Gemma's have"
        )
        assert StoryEngine(family).decoding == "eager"
        return
    if decoding == "native":
        needs_native(family)
    for plain, other in zip(write(family, STORIES), write(family, STORIES, decoding=decoding), strict=True):
        assert_same(plain, other)


def test_counting_positions_anew_changes_nothing(family, monkeypatch):
    (plain,) = write(family)
    monkeypatch.setattr("seedstory.cache.story_cache._REBASE_AT", 60)
    (rebased,) = write(family)
    assert_same(plain, rebased, atol=1e-4)


# ----------------------------------------------------------------------------------------------- training sees the same


def test_packed_training_sees_the_story_that_generation_writes(family, captions):
    (pages,) = write(family, [StoryRequest(script(captions, 4), 4)], policy="dense")
    features = torch.stack([page.features for page in pages])
    batch = collate([family.layout.pack_story(captions)])
    with torch.no_grad():
        packed = family(**batch, context_features=features)
        batch.pop("context_length")  # the stock attention, with the mask alone
        stock = family(**batch, context_features=features)
    assert (packed.features - features).abs().max() <= 2e-5
    assert (stock.features - features).abs().max() <= 2e-5


@pytest.mark.parametrize("name", ["gemma3", "mistral", "smollm3"])
def test_eager_attention_gives_the_same(name, captions):
    model = merged(name)
    eager = family_model(name).merge_lora()
    eager.llm.set_attn_implementation("eager")
    for one, other in zip(write(model, policy="mm_sink"), write(eager, policy="mm_sink"), strict=True):
        assert_same(one, other)


def test_captions_and_images_are_learned_and_nothing_else(captions):
    for name in ("gemma3", "mistral", "smollm3"):
        model = family_model(name).train()
        images = torch.nn.functional.layer_norm(torch.randn(4, 9, 6), (6,))
        batch = collate([model.layout.pack_story(captions)])
        batch |= {"context_features": images, "target_features": images}
        optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
        first = None
        for _ in range(4):
            output = model(**batch)
            first = first or output.loss.item()
            optimizer.zero_grad()
            output.loss.backward()
            for weight_name, weight in model.named_parameters():
                ours = not weight_name.startswith("llm.") or "lora_" in weight_name
                assert (weight.grad is not None and bool(weight.grad.any())) == ours, (name, weight_name)
            optimizer.step()
        assert output.loss < first, name


def test_lora_is_merged_to_the_same_model(family, captions):
    apart = family_model(next(name for name in FAMILIES if merged(name) is family))
    adapted = {name.split(".")[-4] for name, _ in apart.llm.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    opening = [StoryRequest(script(captions, 4), 4)]
    assert_same(write(apart, opening)[0], write(family, opening)[0], atol=1e-4)


# ------------------------------------------------------------------------------------- what each family does otherwise


def test_layers_without_positions_are_not_rotated():
    first, second = KeyRotation.of_layers(merged("smollm3").llm)
    assert len(first.inverse_frequencies) == 4 and len(second.inverse_frequencies) == 0
    keys = torch.randn(1, 2, 3, 8)
    assert torch.equal(second.shift(keys, torch.tensor([5, 1, 900])), keys)


def test_gemma_has_frequencies_of_its_own_for_sliding_layers():
    sliding, full = KeyRotation.of_layers(merged("gemma3").llm)
    assert sliding.inverse_frequencies[1] == pytest.approx(1e4 ** (-1 / 6))
    assert full.inverse_frequencies[1] == pytest.approx(1e6 ** (-1 / 6) / 8)


def test_llama3_has_scaled_frequencies():
    found = KeyRotation.of_layers(merged("llama3").llm)[0].inverse_frequencies
    plain = KeyRotation.of_layers(merged("llama2").llm)[0].inverse_frequencies
    assert found[0] == 1 and found[-1] < plain[-1] / 8


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_a_sliding_layer_does_not_see_beyond_its_window(name):
    model = merged(name)
    embeds = model.embed_tokens(torch.arange(40)[None])
    changed = embeds.clone()
    changed[:, 0] += 1
    count = 1 if name == "mistral" else 0  # layers through which something would travel on
    with torch.no_grad():
        before, after = (layer_output(model, part, count) for part in (embeds, changed))
    assert (before - after)[:, WINDOW - 1].abs().max() > 1e-4
    assert torch.equal(before[:, WINDOW * (count + 1) :], after[:, WINDOW * (count + 1) :])


def layer_output(model, embeds, layer):
    """What a layer gives for embeddings of one pass."""
    seen = []
    hook = model.llm.base_model.layers[layer].register_forward_hook(lambda module, args, out: seen.append(out))
    model.hidden_states(embeds)
    hook.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


def test_added_tokens_go_through_gemmas_scale_too(captions):
    model = merged("gemma3")
    scale = 32**0.5
    table = model.llm.get_input_embeddings().weight
    start = model.layout.image_start_id
    embeds = model.embed_tokens(torch.tensor([7, start, start + 3]))
    assert torch.allclose(embeds[0], table[7] * scale, atol=1e-5)
    assert torch.allclose(embeds[1:], model.token_rows[[0, 3]] * scale, atol=1e-5)
    # The head is tied: <img> is scored by the row as it is.
    hidden = torch.randn(32)
    assert model.image_start_head is None
    assert model.caption_logits(hidden)[-1].item() == pytest.approx((model.token_rows[0] @ hidden).item(), abs=1e-4)
    images = model.embed_images(torch.nn.functional.layer_norm(torch.randn(4, 9, 6), (6,)))
    assert images.pow(2).mean().sqrt().item() == pytest.approx(table.pow(2).mean().sqrt().item() * scale, rel=0.05)
