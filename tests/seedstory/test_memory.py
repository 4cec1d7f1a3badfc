"""A model takes what it is said to take; one network at a time gives the same story; what cannot fit is refused."""

import gc
import weakref

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from seedstory.convert.seed_story_form import SeedStoryForm
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.kl_autoencoder import KLAutoencoder
from seedstory.errors import ModelError, RequestError
from seedstory.layout import StoryLayout
from seedstory.memory import choose
from seedstory.memory.activations import peak_bytes
from seedstory.memory.choose import MemoryPlan, asked_plan, memory_plans
from seedstory.memory.estimate import MemoryNeeds, ModelMemory, cache_bytes, key_bytes, weight_bytes
from seedstory.memory.machine import host_memory
from seedstory.memory.modes import MEMORY_MODES, find_mode
from seedstory.modeling.host_embedding import HostEmbedding
from seedstory.modeling.quantization import stored_bytes
from seedstory.modeling.story_model import StoryModel
from seedstory.pipeline import StoryPipeline
from seedstory.server.batches import local_batches
from seedstory.story_batch import StoryBatch
from seedstory.story_request import opening_page, story_request
from tests.seedstory.tiny_language import tiny_lm, tiny_tokenizer
from tests.tiny import tiny_model_folder
from tests.tiny_sdxl import tiny_vae

TEXT = "The fox found a lantern."
QUICK = {"pages": 3, "max_caption_tokens": 6, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def sizes(folder):
    return ModelMemory.of_folder(folder)


def load(folder, **options):
    return StoryPipeline.from_pretrained(folder, device="cpu", dtype=torch.float32, decoding="eager", **options)


def pages_of(story):
    return [(page.caption, page.image.tobytes()) for page in story.pages]


# ---------------------------------------------------------------------------------------------------------- estimates


def test_a_peak_is_what_is_alive_at_once():
    x, layer = torch.empty(4, 8, device="meta"), nn.Linear(8, 16, device="meta")
    assert peak_bytes(lambda: layer(x), layer.parameters()) == 4 * 16 * 4

    def three():
        grown = layer(x)
        grown = grown.relu()  # both are there while it is computed, then one
        return grown.sum()

    assert peak_bytes(three, layer.parameters()) == 2 * 4 * 16 * 4
    query = torch.empty(1, 2, 1000, 8, device="meta")
    attended = peak_bytes(lambda: functional.scaled_dot_product_attention(query, query, query), [query])
    assert attended == query.nbytes, "fused attention holds no scores"


@pytest.mark.parametrize("tiled", [False, True])
def test_passes_take_on_the_meta_device_what_they_take_on_real_tensors(tiled):
    torch.manual_seed(0)
    peaks = []
    for device in ("cpu", "meta"):
        vae = KLAutoencoder(tiny_vae()).eval().to(device)
        if tiled:
            vae.enable_tiling(16)
        latents = torch.zeros(1, 4, 32, 32, device=device)
        peaks.append(peak_bytes(lambda vae=vae, latents=latents: vae.decode(latents), vae.parameters()))
    assert peaks[0] == peaks[1] > 0
    if tiled:
        vae.disable_tiling()
        assert peaks[1] < 0.5 * peak_bytes(lambda: vae.decode(latents), vae.parameters())


@pytest.mark.parametrize("quantization", ["", "int8"])
def test_weights_are_as_large_as_they_are_said_to_be(folder, sizes, quantization):
    model = StoryModel.from_pretrained(folder / "story_model", dtype=torch.float32, quantization=quantization)
    laid_out = sizes.language(quantization, torch.float32)
    assert all(tensor.is_meta for tensor in laid_out.parameters())
    assert weight_bytes(laid_out) == weight_bytes(model)
    assert {name: (t.shape, t.dtype) for name, t in laid_out.state_dict().items()} == {
        name: (t.shape, t.dtype) for name, t in model.state_dict().items()
    }


def test_the_cache_takes_no_more_than_foretold(folder, sizes):
    pipe = load(folder)
    settings = pipe._request(text=TEXT, **QUICK).settings
    engine = pipe._engine(settings)
    engine.start_batch([story_request(settings, [opening_page(settings)], False)])
    for _ in engine.pages():
        assert engine.cache.nbytes <= cache_bytes(sizes.language("", torch.float32), sizes.cache_tokens)
    assert key_bytes(sizes.language("", torch.float32)) == 2 * 2 * 8 * 4  # layers, key heads, their width, float32


def test_modes_are_ordered_by_what_they_take(sizes):
    needs = {mode: sizes.needs(find_mode(mode, "cuda"), "cuda") for mode in MEMORY_MODES[1:]}
    assert needs["resident"].gpu > needs["half"].gpu > needs["phases"].gpu == needs["offload"].gpu
    assert needs["offload"].host > needs["phases"].host
    assert needs["phases"].networks == max(needs["phases"].phases.values())
    assert all(plan.needs.gpu == 0 for plan in memory_plans(sizes, "cpu"))


def test_seed_story_fits_what_it_was_meant_to_fit():
    form = SeedStoryForm()
    with torch.device("meta"):
        llama = form.llama_config(torch.bfloat16)
        language = AutoModelForCausalLM.from_config(llama, dtype=torch.bfloat16)
        model = StoryModel(form.story_config(llama, lora=False), language).bfloat16().eval()
    model.layout = StoryLayout.extend(tiny_tokenizer(), 64)
    sizes = ModelMemory(model, nn.Linear(1, 1), None)
    assert 13.7e9 < weight_bytes(model) < 13.8e9
    writing = weight_bytes(model) - 32066 * 4096 * 2 + cache_bytes(model, sizes.cache_tokens)
    assert writing + sizes._writing_pass(torch.bfloat16, "") <= 14.5e9
    layers = [layer.weight.shape for layer in model.llm.modules() if isinstance(layer, nn.Linear)]
    saved = sum(stored_bytes(*shape, "", 2) - stored_bytes(*shape, "int4", 2) for shape in layers)
    assert writing - saved <= 5e9, "in four bits"


# ------------------------------------------------------------------------------------------------------- this machine


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


MEMINFO = {"proc/meminfo": "MemTotal:  64000000 kB\nMemFree: 1 kB\nMemAvailable:  32000000 kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (65_536_000_000, 32_768_000_000)),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "8000000000\n",
                "sys/fs/cgroup/a/memory.current": "5000000000\n",
                "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 1000000000\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/b/memory.current": "1\n",
            },
            (8_000_000_000, 4_000_000_000),
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/\n4:memory:/docker/x\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "6000000000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000000000\n",
            },
            (6_000_000_000, 5_000_000_000),
        ),
    ],
    ids=["none", "v2", "v1 inside a container"],
)
def test_limits_of_containers_count(tmp_path, files, expected):
    write(tmp_path, MEMINFO | files)
    assert host_memory(tmp_path) == expected


def test_auto_takes_the_best_that_fits_and_refuses_what_cannot(folder, sizes, monkeypatch):
    cpu = torch.device("cpu")
    plans = {plan.mode.name: plan for plan in memory_plans(sizes, "cpu", torch.float32)}
    monkeypatch.setattr(ModelMemory, "of_folder", lambda folder: sizes)  # laid out once
    assert asked_plan(folder, "auto", cpu, dtype=torch.float32).mode.name == "resident", "it is tiny"
    host = plans["resident"].needs.host
    monkeypatch.setattr(choose, "free_memory", lambda device: (0, host - 1))
    chosen = asked_plan(folder, "auto", cpu, dtype=torch.float32)
    assert chosen.mode.name == "phases" and chosen.needs.host < host
    assert asked_plan(folder, "auto", cpu, "int8", dtype=torch.float32).mode.quantization == "int8"
    monkeypatch.setattr(choose, "free_memory", lambda device: (0, 1_000_000))
    with pytest.raises(
        ModelError, match=r"model does not fit this machine: even \S+ takes about 0\.\d GB of main memory"
    ):
        load(folder, memory="auto")


def test_what_is_no_mode_here_is_refused(folder):
    with pytest.raises(RequestError, match="no memory mode 'tiny': choose one of auto, resident, half"):
        load(folder, memory="tiny")
    with pytest.raises(RequestError, match="no memory mode 'offload' on cpu: choose auto, resident, phases"):
        load(folder, memory="offload")
    with pytest.raises(RequestError, match="memory 'phases' does not go with int8"):
        load(folder, memory="phases", int8=True)


# ------------------------------------------------------------------------------------------------------------- phases


def test_one_network_at_a_time_gives_the_same_story(folder, tmp_path, monkeypatch):
    photo = Image.effect_noise((48, 48), 90).convert("RGB")
    plain = load(folder)
    expected = pages_of(plain(TEXT, photo, **QUICK))
    pipe, alive = load(folder, memory="phases"), []
    assert pipe.image_size == plain.image_size and pipe.feature_shape == plain.feature_shape
    assert pipe.identity.dtype == plain.identity.dtype and pipe.device.type == "cpu"
    draw, seen = Detokenizer.__call__, []

    def watched(self, *args, **options):
        gc.collect()
        alive.append([one() is not None for one in seen])
        return draw(self, *args, **options)

    read = StoryModel.from_pretrained.__func__
    monkeypatch.setattr(
        StoryModel,
        "from_pretrained",
        classmethod(lambda cls, *a, **k: (made := read(cls, *a, **k), seen.append(weakref.ref(made)))[0]),
    )
    monkeypatch.setattr(Detokenizer, "__call__", watched)
    assert pages_of(pipe(TEXT, photo, out=tmp_path / "story", **QUICK)) == expected
    assert len(seen) == 1 and alive == [[False]] * len(alive) and alive, "read once, and gone before images are drawn"
    assert pipe._phases.active == "detokenizer" and pipe.vision_tower.device.type == "meta"
    pipe.save_pretrained(tmp_path / "copy")
    assert StoryPipeline.from_pretrained(tmp_path / "copy", device="cpu").identity.fingerprint
    assert pages_of(pipe(TEXT, photo, **QUICK)) == expected, "and again"
    pipe.free_story_model()
    assert pipe.detokenizer.device.type == "meta", "nothing is left"
    with pytest.raises(RequestError, match="needs all components at once"):
        pipe(TEXT, rendering="ahead", **QUICK)
    with pytest.raises(RequestError, match="read.* its networks from disk"):
        pipe.enable_model_cpu_offload("cpu:0")


def test_a_quantized_story_goes_on_in_any_mode_of_its_quantization(folder, tmp_path):
    small = load(folder, memory="int8")
    small(TEXT, out=tmp_path / "story", output_type="features", **QUICK)
    again = load(folder, memory="int8-phases")
    drawn = list(again.resume(tmp_path / "story"))
    assert [page.state for page in drawn] == ["opening", "illustrated", "illustrated"]
    assert pages_of(small(TEXT, **QUICK)) == [(page.caption, page.image.tobytes()) for page in drawn]


def test_embeddings_on_the_host_are_looked_up_alike_and_stay_there():
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    sizes = {"num_visual_tokens": 4, "feature_tokens": 9, "feature_dim": 6, "lora_rank": 0}
    for side in ("input", "output"):
        sizes |= {f"{side}_resampler_width": 16, f"{side}_resampler_depth": 1, f"{side}_resampler_heads": 2}
    untied = StoryModel.from_base(tiny_lm(len(tokenizer), tie_word_embeddings=False), tokenizer=tokenizer, **sizes)
    ids, image = torch.tensor([[3, 4, 5]]), untied.config.image_start_id
    expected = untied.embed_tokens(torch.cat([ids, torch.tensor([[image]])], 1))
    assert torch.equal(
        untied.keep_embedding_on_host().embed_tokens(torch.cat([ids, torch.tensor([[image]])], 1)), expected
    )
    embedding = untied.llm.get_input_embeddings()
    assert isinstance(embedding, HostEmbedding) and not list(embedding.parameters())
    assert untied.to("meta").llm.get_input_embeddings().weight.device.type == "cpu"
    tied = StoryModel.from_base(tiny_lm(len(tokenizer)), tokenizer=tokenizer, **sizes).keep_embedding_on_host()
    assert not isinstance(tied.llm.get_input_embeddings(), HostEmbedding), "the head needs them"


@pytest.mark.parametrize("fuse", [True, False])
def test_a_network_that_is_read_again_keeps_its_lora_and_its_fast_path(folder, tmp_path, fuse):
    plain = load(folder)
    products = {name: layer for name, layer in plain.detokenizer.unet.named_modules() if name.endswith("to_q")}
    generator, weights = torch.Generator().manual_seed(0), {}
    for name, layer in products.items():
        weights[f"unet.{name}.lora_A.weight"] = torch.randn(2, layer.in_features, generator=generator)
        weights[f"unet.{name}.lora_B.weight"] = torch.randn(layer.out_features, 2, generator=generator)
    save_file(weights, tmp_path / "style.safetensors")
    first = pages_of(plain(TEXT, **QUICK))
    plain.detokenizer.load_lora_weights(tmp_path)
    expected = pages_of(plain(TEXT, **QUICK))
    pipe = load(folder, memory="phases")
    pipe.detokenizer.load_lora_weights(tmp_path, fuse=fuse)
    pipe.detokenizer.enable_fast_path()
    for _ in range(2):
        assert pages_of(pipe(TEXT, **QUICK)) == expected != first
        names = {type(layer.processor).__name__ for layer in pipe.detokenizer.unet.modules() if hasattr(layer, "to_q")}
        assert names == {"ContextAttnProcessor"} and not pipe.detokenizer.guides_in_one_pass
    pipe.free_story_model()
    pipe.detokenizer.disable_fast_path()
    pipe.detokenizer.unload_lora_weights()
    assert pages_of(pipe(TEXT, **QUICK)) == first and pipe.identity == load(folder).identity


def test_batches_of_stories_take_networks_that_move_and_refuse_those_that_are_read_anew(folder):
    expected = pages_of(load(folder)(TEXT, **QUICK))
    pipe = load(folder)
    pipe.enable_model_cpu_offload("cpu:0")
    pipe.memory_plan = MemoryPlan(find_mode("offload", "cuda"), False, MemoryNeeds(0, 0, 0, {}))
    with StoryBatch(pipe) as batch:
        batch.add(text=TEXT, **QUICK)
        pages = [page for _ in range(QUICK["pages"]) for _, page in batch.step()]
        assert [(page.caption, page.image.tobytes()) for page in pages] == expected and not batch
        with pytest.raises(RequestError, match="drawn together: leave out rendering"):
            batch.add(text=TEXT, render_batch=2, **QUICK)
    phases = load(folder, memory="phases")
    for begin in (StoryBatch, local_batches):
        with pytest.raises(RequestError, match="in turns.* load it without 'phases'"):
            begin(phases)


def test_drawing_is_estimated_where_the_network_names_no_side(tmp_path):
    from seedstory.detokenizers.from_base import detokenizer_from_base
    from tests.tiny_backbones import write_backbone

    write_backbone("flux2", tmp_path / "flux2")
    sizes = {"context_tokens": 4, "width": 16, "depth": 1, "image_size": 32}
    drawing = detokenizer_from_base("flux2", str(tmp_path / "flux2"), 4, 8, **sizes).to("meta")
    assert ModelMemory(None, None, drawing)._drawing_pass(torch.float32, tiled=False) > 0
