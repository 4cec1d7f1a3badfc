"""FlashAttention over packed stories: the runs say what the mask says, and the kernel's answer is put back in place."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention

from seedstory.layout import collate
from seedstory.modeling import flash_attention
from seedstory.modeling.flash_attention import find_runs, kernel_of
from tests.seedstory.families import FAMILIES
from tests.seedstory.tiny_language import tiny_model

CAPTIONS = ["The fox ran over the hill.", "She sat down.", "The owl woke up and sang.", "Good night."]


def features(pages, seed=0):
    return torch.randn(pages, 9, 6, generator=torch.Generator().manual_seed(seed))


def varlen_attention(query, key, value, row_edges, key_edges, most_rows, most_keys, scale, window_size):
    """What the kernels are documented to do, run by run; their causal masks and windows end at the bottom right."""
    assert row_edges.dtype == key_edges.dtype == torch.int32 and window_size[1] == 0
    out = []
    for run in range(len(row_edges) - 1):
        rows, keys = (slice(*edges[run : run + 2].tolist()) for edges in (row_edges, key_edges))
        q, k, v = (part.transpose(0, 1)[None] for part in (query[rows], key[keys], value[keys]))
        asked, seen = q.shape[2], k.shape[2]
        assert asked <= most_rows and seen <= most_keys
        mask = torch.ones(asked, seen, dtype=torch.bool).tril(seen - asked)
        if window_size[0] >= 0:
            mask = mask.triu(seen - asked - window_size[0])
        out.append(scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(out)


def of_flash_attn(*args, dropout_p, softmax_scale, causal, window_size):
    assert causal and dropout_p == 0
    return varlen_attention(*args, softmax_scale, window_size)


def of_torch(*args, scale, window_size, enable_gqa):
    assert enable_gqa
    return varlen_attention(*args, scale, window_size)


@pytest.fixture(params=["flash-attn", "torch"])
def kernel(request, monkeypatch):
    """A CPU with a kernel of either library."""
    name = request.param
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=of_flash_attn))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", of_torch)
    monkeypatch.setattr(flash_attention, "is_flash_attn_2_available", lambda: name == "flash-attn")
    monkeypatch.setattr("seedstory.modeling.story_model.kernel_of", lambda *where: name)
    return name


@pytest.fixture(params=["qwen3", "mistral", "gemma3"])
def model(request):
    kind = FAMILIES[request.param]
    return tiny_model(family=kind["family"], lm=kind["lm"] | {"head_dim": 8})


@pytest.fixture
def batch(model):
    pack = model.layout.pack_story
    stories = [pack(CAPTIONS), pack(CAPTIONS[1:3]), pack(CAPTIONS[:3], supervise_image=[False, True, True])]
    images = {"context_features": features(9), "target_features": features(9, seed=1)}
    return collate(stories, pad_to_multiple_of=8) | images


def gradients(model, batch):
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    return output, {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}


def test_the_runs_see_what_the_mask_lets_them_see(batch):
    mask = batch["attention_mask"].squeeze(1)
    stories, length, _ = mask.shape
    runs = find_runs(batch["spans"], length)
    seen = torch.eye(stories * length, dtype=torch.bool)  # padding sees itself
    for run in range(len(batch["spans"])):
        rows = runs.rows[runs.row_edges[run] : runs.row_edges[run + 1]]
        keys = runs.keys[runs.key_edges[run] : runs.key_edges[run + 1]]
        seen[rows[:, None], keys] = torch.ones(len(rows), len(keys), dtype=torch.bool).tril(len(keys) - len(rows))
    assert torch.equal(seen, torch.block_diag(*mask).bool())


def test_a_step_through_the_kernel_is_a_step_through_the_mask(model, batch, kernel, monkeypatch):
    by_runs, found = gradients(model, {**batch, "attention_mask": None})
    monkeypatch.setattr("seedstory.modeling.story_model.kernel_of", lambda *where: None)
    for blocks in (None, batch["context_length"]):
        by_mask, expected = gradients(model, {**batch, "context_length": blocks})
        assert abs(by_mask.loss - by_runs.loss) <= 1e-6 and by_mask.loss > 0
        for name, gradient in expected.items():
            assert (gradient - found[name]).abs().max() <= 1e-5 * max(1.0, gradient.abs().max().item()), name


def test_a_window_is_part_of_what_the_kernel_sees(batch, kernel):
    losses = {}
    for window in (12, 500):
        model = tiny_model(family="mistral", lm={"sliding_window": window})
        losses[window] = model(**batch).loss
    assert abs(losses[12] - losses[500]) > 1e-4


def test_what_torch_s_own_kernel_is_asked_for_it_takes():
    """Its real entry, on tensors without content: names of arguments, shapes and types, there and back."""
    assert flash_attention._torch_has_kernel()
    model = tiny_model()
    pack = model.layout.pack_story
    batch = collate([pack(CAPTIONS), pack(CAPTIONS[:2])])
    runs = find_runs(batch["spans"], batch["input_ids"].shape[1])
    length = batch["input_ids"].shape[1]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        heads = [torch.empty(2, n, length, 64, dtype=torch.bfloat16, requires_grad=True) for n in (9, 3, 3)]
        runs = type(runs)(*(mode.from_tensor(part) if torch.is_tensor(part) else part for part in runs))
        for window in (None, 12):
            seen = flash_attention.flash_attention(*heads, runs, 0.125, window=window)
            assert seen.shape == (2, length, 9, 64) and seen.dtype == torch.bfloat16
            seen.sum().backward()
            assert all(part.grad.shape == part.shape for part in heads)


def test_a_machine_without_a_kernel_uses_the_mask(model, batch):
    assert kernel_of(torch.device("cpu"), torch.bfloat16, 64) is None
    assert kernel_of(torch.device("cuda"), torch.float32, 64) is None
    assert not model.takes_runs(torch.device("cpu"), torch.bfloat16)
    assert torch.isfinite(model(**batch).loss)


def test_torch_s_kernel_stands_in_where_flash_attn_is_missing(monkeypatch):
    gpu, cuda = torch.device("cuda"), "torch.cuda.get_device_capability"
    monkeypatch.setattr(flash_attention, "is_flash_attn_2_available", lambda: False)
    monkeypatch.setattr("torch.backends.cuda.is_flash_attention_available", lambda: True)
    monkeypatch.setattr(cuda, lambda device: (9, 0))
    assert kernel_of(gpu, torch.bfloat16, 64) == kernel_of(gpu, torch.float16, 256) == "torch"
    assert kernel_of(gpu, torch.bfloat16, 60) is kernel_of(gpu, torch.bfloat16, 64, dropout=0.1) is None
    monkeypatch.setattr(cuda, lambda device: (7, 5))
    assert kernel_of(gpu, torch.bfloat16, 64) is None
    monkeypatch.setattr(flash_attention, "is_flash_attn_2_available", lambda: True)
    assert kernel_of(gpu, torch.bfloat16, 60, dropout=0.1) == "flash-attn"


@pytest.mark.cuda
def test_the_real_kernel_agrees_with_the_mask(model, batch):
    model = model.to("cuda", torch.bfloat16)
    if not model.takes_runs(model.device, torch.bfloat16):
        pytest.skip("this GPU and these libraries have no kernel")
    on_gpu = {name: value.to("cuda") for name, value in batch.items()}
    by_runs, found = gradients(model, {**on_gpu, "attention_mask": None})
    by_mask, expected = gradients(model, {**on_gpu, "spans": None})
    assert abs(by_mask.loss - by_runs.loss) <= 2e-2
    for name, gradient in expected.items():
        assert torch.nn.functional.cosine_similarity(gradient.flatten(), found[name].flatten(), dim=0) > 0.98, name
