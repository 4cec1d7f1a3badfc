"""The benchmark compares like with like: its baselines write what the engine writes, and do the work they stand for."""

import json

import pytest
import torch
from rich.console import Console

from inference import benchmark
from inference.baselines import hugging_face, reference
from inference.benchmark import Options, generate_story, memory_growth, page_cost_ratio
from inference.benchmark_report import print_report
from inference.instruments import Memory, bytes_per_step, spread
from inference.model_shapes import script, word_tokenizer
from seedstory.cache import CachePolicy
from seedstory.generation import GivenPage
from tests.seedstory.tiny_language import tiny_model, tiny_tokenizer
from tests.tiny import tiny_model_folder

TOKENS = 5
OPTIONS = Options(decodings=("eager",), pages=1, caption_tokens=TOKENS, repeats=1, seed=0, quick=False)


@pytest.fixture(scope="module")
def model():
    """A caption of made-up words comes back from its text as the same tokens."""
    return tiny_model(word_tokenizer(300))


def opening(model, pages):
    shape = (pages, model.config.feature_tokens, model.config.feature_dim)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    captions = script(model.layout, pages, TOKENS)
    return [GivenPage(caption, image) for caption, image in zip(captions, features, strict=True)]


def ours(model, given, pages, **policy):
    engine = benchmark.engine(model, OPTIONS, "eager", CachePolicy(**policy))
    engine.start(given, pages=pages)
    return list(engine.pages())[len(given) :]


def assert_same(left, right):
    assert [page.index for page in left] == [page.index for page in right]
    assert [page.caption for page in left] == [page.caption for page in right]
    for one, other in zip(left, right, strict=True):
        assert len(one.caption.split()) == TOKENS and one.caption_tokens == other.caption_tokens == TOKENS + 1
        assert (one.features - other.features).abs().max() <= 1e-5, one.index


@pytest.mark.parametrize("given", [0, 3])
def test_the_reference_writes_what_recompute_writes(model, given):
    given = opening(model, given)
    theirs = list(reference(model, given, pages=7, caption_tokens=TOKENS, window_pages=2))
    assert_same(theirs, ours(model, given, 7, name="recompute", window_pages=2))
    assert len({page.caption for page in theirs}) > 1


@pytest.mark.parametrize("given", [0, 3])
def test_hugging_face_writes_what_dense_writes(model, given):
    given = opening(model, given)
    theirs = list(hugging_face(model, given, pages=7, caption_tokens=TOKENS))
    assert_same(theirs, ours(model, given, 7, name="dense"))


def test_the_reference_takes_a_step_for_every_token(model):
    steps = []
    hook = model.llm.base_model.register_forward_hook(
        lambda module, args, kwargs, output: steps.append((kwargs["inputs_embeds"].shape[1], output.hidden_states)),
        with_kwargs=True,
    )
    pages = reference(model, opening(model, 4), pages=5, caption_tokens=TOKENS, window_pages=3)
    page = next(pages)
    hook.remove()
    label, visual = len(model.layout.page_label_ids(1)), model.config.num_visual_tokens
    whole_page = label + TOKENS + 1 + visual + 1
    assert [size for size, _ in steps] == [1 + 3 * whole_page, *[1] * whole_page]
    assert all(len(states) == model.llm.config.num_hidden_layers + 1 for _, states in steps)
    assert page.cached_tokens == 1 + 4 * whole_page and page.seconds > 0


def test_a_script_has_the_asked_length():
    for tokenizer in (word_tokenizer(200), tiny_tokenizer()):
        layout = tiny_model(tokenizer).layout
        captions = script(layout, 60, 46)
        assert {len(layout.caption_ids(caption)) for caption in captions} == {46} and len(set(captions)) > 20


def test_a_step_reads_all_weights_but_the_embedding(model):
    weights, held = bytes_per_step(model)
    assert weights == sum(weight.nbytes for weight in model.llm.parameters())  # tied: the embedding is the head
    assert held == 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    untied = tiny_model(word_tokenizer(300), lm={"tie_word_embeddings": False})
    assert bytes_per_step(untied)[0] == weights


def test_memory_sees_what_is_allocated():
    memory = Memory(torch.device("cpu"))
    if memory.used() is None:
        pytest.skip("not Linux")
    memory.settle()
    before = memory.used()
    block = torch.ones(50_000_000, dtype=torch.uint8)
    assert memory.used() - before > 45_000_000
    del block
    assert memory.peak() - before > 45_000_000
    memory.settle()
    assert memory.peak() - before < 45_000_000
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "count": 3}


def test_long_stories_are_measured(model):
    ratio = page_cost_ratio(model, OPTIONS, "eager", "mm_sink", near=6, far=20)
    assert ratio["min"] <= ratio["max"] and ratio["near_ms"]["count"] == ratio["far_ms"]["count"] == 10
    growth = memory_growth(model, OPTIONS, "eager", near=10, far=25)
    assert growth is None or growth["near_mb"] > 0 and growth["growth"] > -1


def test_the_command_writes_every_key(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "bandwidth", lambda device: [8.0, 10.0])
    folder, file = str(tiny_model_folder(tmp_path)), tmp_path / "bench.json"
    benchmark.main(
        models=folder, decoding="eager,abacus", device="cpu", caption_tokens=TOKENS, quick=True, json_file=file
    )
    report = json.loads(file.read_text())
    assert report["schema"] == 1 and report["machine"]["threads"] == torch.get_num_threads()
    figures = report["models"][folder]
    for other in ("reference", "hf"):
        ratios = figures[f"lm_phase_speedup_vs_{other}"]
        assert ratios["eager"]["median"] > 0 and ratios["abacus"] is None
    assert "abacus" in figures["refused"] and figures["systems"]["abacus"] is None
    assert figures["page200_over_page20"] is None and figures["rss_growth_page20_to_1000"] is None
    for name in ("reference", "hf", "eager"):
        system = figures["systems"][name]
        assert figures["decode_bandwidth_share"][name] == system["decode_bandwidth_share"]
        assert system["page_ms"]["count"] == 4 and system["weights_gb_per_step"] >= 0
    assert figures["memory_bandwidth_gb_per_s"]["max"] == 10.0
    # A full report is shown too.
    figures["page200_over_page20"] = {"mm_sink": {**spread([1.0]), "near_ms": spread([2.0]), "far_ms": spread([2.0])}}
    figures["page200_over_page20"]["mm_sink"]["decoding"] = "eager"
    figures["rss_growth_page20_to_1000"] = {"growth": 0.01, "near_mb": 100.0, "far_mb": 101.0}
    console = Console(record=True, width=100)
    print_report(report, console)
    assert "+1.00%" in console.export_text()


def test_a_run_that_is_cut_off_has_what_it_has(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "bandwidth", lambda device: [8.0])
    folder, file = str(tiny_model_folder(tmp_path)), tmp_path / "bench.json"
    stories = []

    def generate(*args):
        stories.append(1)
        if len(stories) == 3:
            raise KeyboardInterrupt
        return generate_story(*args)

    monkeypatch.setattr(benchmark, "generate_story", generate)
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(models=folder, decoding="eager", device="cpu", caption_tokens=TOKENS, quick=True, json_file=file)
    figures = json.loads(file.read_text())["models"][folder]
    assert figures["systems"]["hf"]["page_ms"]["count"] == 2 and figures["systems"]["eager"] is None
    assert figures["systems"]["reference"]["first_page_s"] > 0
    assert figures["lm_phase_speedup_vs_hf"] == {"eager": None} and figures["shape"]["layers"] == 2
    shown = capsys.readouterr().err
    assert "reference, story 1: " in shown and "hf, story 1: " in shown and "eager, story" not in shown


def test_an_unknown_model_is_refused():
    with pytest.raises(Exception, match="nowhere"):
        benchmark.main(models="nowhere", device="cpu", quick=True)
