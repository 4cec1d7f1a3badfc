"""Every form of the one-token step gives the numbers of the model's own layers, and stories together those alone."""

import ctypes

import pytest
import torch

from seedstory.cache import CachePolicy, StoryCache
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine, StoryRequest
from seedstory.generation.native import BuildError, NativeStep, NativeUnsupportedError, native_unsupported_reason
from seedstory.generation.native import build as native_build
from tests.seedstory.tiny_language import needs_native, tiny_model

SMALL_SINK = {"window_pages": 2, "first_tokens": 3, "image_head": 1, "image_tail": 1, "max_sink_tokens": 15}
WORDS = SamplingConfig(temperature=1.0, max_caption_tokens=9, min_caption_tokens=2)
MODELS = {
    "llama": {},
    "smollm2": {"lm": {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 4}},
    "qwen2": {"family": "qwen2"},
    "qwen3": {"family": "qwen3"},
    "linear": {"lm": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}},
    "llama3": {
        "lm": {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        }
    },
    "untied": {"lm": {"tie_word_embeddings": False}},
    "eager attention": {"lm": {"attn_implementation": "eager"}},
}


@pytest.fixture(scope="module", params=MODELS)
def family(request):
    return tiny_model(**MODELS[request.param]).merge_lora()


def generate(model, decoding, stories, *, sampling=WORDS, policy=None, score=False):
    """Drafts of each story, and the scores of every decoded token by page and story."""
    seen = {}

    def listen(page, ids, scores):
        seen.setdefault((page, tuple(ids)), []).append(scores.clone())

    policy = policy or CachePolicy(**SMALL_SINK)
    engine = StoryEngine(model, policy, sampling, decoding=decoding, logits_processor=listen)
    engine.start_batch(stories, score=score)
    generated = [[] for _ in stories]
    for draft in engine.pages():
        generated[draft.story].append(draft)
    return generated, seen


def assert_same_scores(left, right, atol=1e-5):
    assert left.keys() == right.keys()
    for key, scores in left.items():
        for one, other in zip(scores, right[key], strict=True):
            assert (one - other).abs().max() <= atol, key


def assert_same_pages(left, right, atol=1e-5):
    assert [page.caption for page in left] == [page.caption for page in right]
    for one, other in zip(left, right, strict=True):
        assert (one.features - other.features).abs().max() <= atol, one.index
        assert one.cached_tokens == other.cached_tokens


ONE = [StoryRequest([GivenPage("The fox found a lantern.")], pages=7, seed=3)]
MANY = [
    StoryRequest([GivenPage("The fox found a lantern.")], pages=6, seed=3),
    StoryRequest(pages=3, seed=4),
    StoryRequest([GivenPage("Was it a star?"), GivenPage(), GivenPage("No, said the owl, it is the moon.")], 8, 5),
]


@pytest.mark.parametrize("decoding", ["native", "static"])
def test_every_form_gives_the_scores_of_the_models_own_layers(family, decoding):
    if decoding == "native":
        needs_native(family)
    (plain,), expected = generate(family, "eager", ONE)
    (pages,), scores = generate(family, decoding, ONE)
    assert_same_pages(plain, pages)
    assert_same_scores(expected, scores)


@pytest.mark.slow
@pytest.mark.skipif(native_build.shutil.which("g++") is None, reason="torch.compile needs g++")
def test_the_compiled_step_is_compiled_once_for_a_story_across_evictions():
    model = tiny_model().merge_lora()
    (plain,), expected = generate(model, "static", ONE)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    (pages,), scores = generate(model, "compiled", ONE)
    assert_same_pages(plain, pages)
    assert_same_scores(expected, scores)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("decoding", ["eager", "native", "static"])
@pytest.mark.parametrize("policy", ["mm_sink", "dense", "recompute"])
def test_stories_in_a_batch_equal_the_same_stories_alone(decoding, policy):
    model = tiny_model().merge_lora()
    if decoding == "native":
        needs_native(model)
    keeping = CachePolicy(name=policy, **SMALL_SINK)
    batched, _ = generate(model, decoding, MANY, policy=keeping, score=True)
    for number, story in enumerate(MANY):
        (alone,), _ = generate(model, decoding, [story], policy=keeping, score=True)
        assert_same_pages(alone, batched[number])
        for one, other in zip(alone, batched[number], strict=True):
            assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-3)
        assert [page.index for page in batched[number]] == list(range(story.pages))


REMEMBERING = CachePolicy(
    window_pages=2, salient_pages=3, kept_images=2, image_head=1, image_tail=1, max_sink_tokens=160
)
GUESTS = [
    ["So Bruno ran.", "Then Ida sat.", "It rained.", "So Bruno ran.", "It rained.", "It rained."],
    ["Ida ran.", "It rained.", "So Bruno ran.", "Then Otto sat.", "Then Otto ran.", "So Bruno sat."],
]


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("decoding", ["eager", "native", "static"])
def test_each_story_of_many_remembers_its_own_guests(decoding, guidance):
    model = tiny_model().merge_lora()
    if decoding == "native":
        needs_native(model)
    sampling = SamplingConfig(temperature=1.0, max_caption_tokens=9, text_guidance_scale=guidance)
    starts = [StoryRequest([GivenPage(caption) for caption in story], pages=8, seed=3) for story in GUESTS]
    batched, _ = generate(model, decoding, starts, sampling=sampling, policy=REMEMBERING)
    for number, start in enumerate(starts):
        engine = StoryEngine(model, REMEMBERING, sampling, decoding=decoding)
        engine.start_batch([start])
        alone = [next(iter(engine.pages())) for _ in range(7)]
        row = engine.cache.rows[0]
        kept = [page for page in row.evicted if {page.start, page.image_start - 1} <= {*row.sink_positions}]
        assert [set(page.names) for page in kept] == [[{"Bruno"}, {"Ida"}], [set(), {"Bruno"}, {"Otto"}]][number]
        alone += engine.pages()
        assert_same_pages(alone, batched[number])
        resumed = StoryRequest([page.as_opening() for page in alone[:7]], pages=8, seed=3)
        (again,), _ = generate(model, decoding, [resumed], sampling=sampling, policy=REMEMBERING)
        assert_same_pages(alone, again, atol=0)


def test_each_story_of_many_keeps_its_own_count():
    model = tiny_model().merge_lora()
    engine = StoryEngine(model, CachePolicy(**SMALL_SINK), WORDS)
    engine.start_batch([StoryRequest(pages=9, seed=1), StoryRequest(pages=9, seed=2)])
    pages = list(engine.pages())
    assert [page.story for page in pages] == [0, 1] * 9
    lengths = {page.cached_tokens for page in pages if page.index == 7}
    assert len(lengths) == 2, "stories of different words fill their rows differently"
    heard = {}
    engine.start_batch(MANY)
    pages = list(engine.pages(lambda story, index, text: heard.update({(story, index): text})))
    written = {(page.story, page.index): page.caption for page in pages}
    given = {(number, at) for number, story in enumerate(MANY) for at, page in enumerate(story.opening) if page.caption}
    assert heard.keys() == written.keys() - given
    assert all(text.startswith(written[key]) for key, text in heard.items())
    with pytest.raises(ValueError, match="no story to start"):
        engine.start_batch([])


@pytest.mark.parametrize("decoding", ["eager", "native", "static"])
def test_guidance_of_the_text_is_between_the_story_and_the_page_alone(decoding):
    model = tiny_model().merge_lora()
    if decoding == "native":
        needs_native(model)
    plain, generated = generate(model, decoding, ONE, sampling=WORDS)
    apply_guidance = SamplingConfig(
        temperature=1.0, max_caption_tokens=9, min_caption_tokens=2, text_guidance_scale=2.0
    )
    strong, seen = generate(model, decoding, ONE, sampling=apply_guidance)
    # What a page knows without its story: its label alone, as the first page of a shorter story has it.
    key = (1, ())
    label = StoryEngine(model)
    label.start(pages=6)
    with torch.inference_mode():
        alone = model.caption_logits(label._rows.next[0]).log_softmax(-1)
    story = generated[key][0].log_softmax(-1)
    assert (seen[key][0] - (alone + 2 * (story - alone))).abs().max() <= 1e-4
    assert [page.caption for page in strong[0]] != [page.caption for page in plain[0]]
    batched, _ = generate(model, decoding, MANY, sampling=apply_guidance)
    for number, one in enumerate(MANY):
        assert_same_pages(generate(model, decoding, [one], sampling=apply_guidance)[0][0], batched[number])


def test_log_likelihood_is_that_of_one_pass_over_the_text(captions):
    model = tiny_model().merge_lora()
    engine = StoryEngine(model, CachePolicy(name="dense"))
    engine.start([GivenPage(text) for text in captions[:2]], pages=2, score=True)
    first, _ = engine.pages()
    layout = model.layout
    ids = [*layout.opening_ids, *layout.page_label_ids(2), *layout.caption_ids(captions[0]), layout.image_start_id]
    with torch.no_grad():
        hidden = model.hidden_states(model.embed_tokens(torch.tensor([ids])))[0, :-1]
        scores = model.caption_logits(hidden).log_softmax(-1)
    picked = scores.gather(1, torch.tensor(ids[1:])[:, None])[-first.caption_tokens :]
    assert first.log_likelihood == pytest.approx(picked.sum().item(), abs=1e-3)
    assert first.caption_tokens == len(layout.caption_ids(captions[0])) + 1


def test_int8_reads_the_same_weights_in_every_form():
    model = tiny_model(lm={"hidden_size": 64, "intermediate_size": 96}).merge_lora()
    exact = [weight.clone() for name, weight in model.llm.named_parameters() if name.endswith("q_proj.weight")]
    model.quantize("int8")
    needs_native(model)
    for layer, weight in zip(model.llm.base_model.layers, exact, strict=True):
        stored = layer.self_attn.q_proj
        step = weight.abs().amax(1, keepdim=True) / 127
        assert ((stored.weight.float() * stored.scale[:, None] - weight).abs() <= step * 0.5 + 1e-6).all()
    (plain,), expected = generate(model, "eager", ONE)
    (pages,), scores = generate(model, "native", ONE)
    assert_same_pages(plain, pages)
    assert_same_scores(expected, scores)
    assert model.quantization == "int8"
    assert model.bfloat16().llm.base_model.layers[0].self_attn.q_proj.scale.dtype == torch.float32
    with pytest.raises(ValueError, match="merge_lora"):
        tiny_model().quantize("int8")


def test_bfloat16_in_c_is_closer_to_float32_than_the_models_own_layers():
    model = tiny_model(lm={"num_hidden_layers": 6}).merge_lora().bfloat16()
    needs_native(model)
    scores = {}
    for name in ("eager", "native", "exact"):
        if name == "exact":
            model.float()
        engine = StoryEngine(model, decoding="eager" if name == "exact" else name)
        engine.start([GivenPage("The fox found a lantern.")], pages=3)
        next(engine.pages())
        with torch.inference_mode():
            scores[name] = torch.cat([engine._step(engine.cache, [id], [0]) for id in range(20, 40)])
    error = {name: (scores[name].float() - scores["exact"]).pow(2).mean() for name in ("eager", "native")}
    assert error["native"] <= error["eager"]


def test_decoding_reads_small_weights_of_a_model_that_multiplies_in_float32():
    model = tiny_model().merge_lora().bfloat16().float()  # weights that bfloat16 holds exactly
    needs_native(model)
    (plain,), expected = generate(model, "native", ONE)
    model.decode_dtype = torch.bfloat16
    (pages,), scores = generate(model, "native", ONE)
    assert_same_pages(plain, pages)
    assert_same_scores(expected, scores)
    step = NativeStep(model)
    assert {weight.dtype for weight in step._alive if getattr(weight, "ndim", 0) == 2} == {torch.bfloat16}
    with torch.no_grad():  # other weights in the same layer are read, not those of before
        model.llm.base_model.layers[0].mlp.up_proj.weight.mul_(1.5)
    assert native_unsupported_reason(model) == "" and NativeStep.of(model)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("heads", [(3, 3), (6, 2), (12, 2)])
def test_in_c_a_story_has_the_same_bits_in_any_company(kind, heads):
    shape = {"hidden_size": 108, "intermediate_size": 172, "num_attention_heads": heads[0], "head_dim": 36}
    model = tiny_model(lm={**shape, "num_key_value_heads": heads[1]}).merge_lora()
    if kind == "int8":
        model.quantize("int8")
    model = model.bfloat16() if kind == "bfloat16" else model
    needs_native(model)
    step, counts, held = NativeStep.of(model), range(1, 12), [75, 3, 40, 66, 1, 17, 33, 32, 75, 9, 12]
    cache = StoryCache(model.llm, CachePolicy(name="dense"), stories=len(held))
    with torch.inference_mode():
        embeds = model.embed_tokens(torch.arange(len(held) * 75).view(len(held), 75) % 100)
        model.hidden_states(embeds, cache.position_ids(75), cache.causal_mask(75), cache)
        cache.drop_last([75 - length for length in held])
        tokens = model.embed_tokens(torch.arange(len(held)) + 20).float()
        alone = []
        for row in range(len(held)):
            hidden = tokens[row : row + 1].clone()
            alone.append((step.read(cache, hidden, [row])[0, :-1], hidden[0]))
        for count in counts:
            hidden = tokens[:count].clone()
            logits = step.read(cache, hidden, list(range(count)))
            for row in range(count):
                assert logits[row, :-1].equal(alone[row][0]), (count, row)
                assert hidden[row].equal(alone[row][1]), (count, row)


def test_what_does_not_fit_is_reported_and_auto_takes_the_models_own_layers(monkeypatch):
    unmerged = tiny_model()
    assert native_unsupported_reason(unmerged) == "LoRA is not merged"
    assert StoryEngine(unmerged).decoding == "eager"
    with pytest.raises(ValueError, match="decoding 'native' cannot be used here: LoRA is not merged"):
        StoryEngine(unmerged, decoding="native")
    with pytest.raises(ValueError, match="unknown decoding 'fast'"):
        StoryEngine(unmerged, decoding="fast")
    strange = tiny_model(lm={"hidden_act": "gelu"}).merge_lora()
    with pytest.raises(NativeUnsupportedError, match="something else than those of Llama"):
        NativeStep.of(strange)
    assert StoryEngine(strange).decoding == "eager"


def test_without_a_working_compiler_the_reason_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("SEEDSTORY_CACHE", str(tmp_path))
    for compiler, reason in [("false", "false failed"), (str(tmp_path / "none"), "does not run")]:
        monkeypatch.setenv("CC", compiler)
        with pytest.raises(BuildError, match=reason):
            native_build.library.__wrapped__()
    assert not list((tmp_path / "native").glob("*.so")) if (tmp_path / "native").exists() else True
    monkeypatch.delenv("CC")
    monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    with pytest.raises(BuildError, match="there is no C compiler"):
        native_build.library.__wrapped__()


def test_the_code_is_built_once_and_found_again(monkeypatch, tmp_path):
    needs_native(tiny_model().merge_lora())
    monkeypatch.setenv("SEEDSTORY_CACHE", str(tmp_path))
    assert isinstance(native_build.library.__wrapped__(), ctypes.CDLL)
    (built,) = (tmp_path / "native").iterdir()
    written = built.stat().st_mtime_ns
    native_build.library.__wrapped__()
    assert [path.stat().st_mtime_ns for path in (tmp_path / "native").iterdir()] == [written]


def test_the_static_cache_refuses_what_it_has_no_room_for(captions):
    model = tiny_model().merge_lora()
    engine = StoryEngine(model, CachePolicy(**SMALL_SINK), WORDS, decoding="static")
    engine.start([GivenPage(captions[1])], pages=12)
    assert max(page.cached_tokens for page in engine.pages()) <= engine.cache.capacity
    assert len({layer.keys.shape[2] for layer in engine.cache.layers}) == 1
    engine.start(pages=2)
    engine.cache.books.capacity = engine.cache.num_kept
    engine.cache.layers[0].keys = engine.cache.layers[0].keys[:, :, : engine.cache.num_kept]
    with pytest.raises(ValueError, match="has room for"):
        list(engine.pages())
