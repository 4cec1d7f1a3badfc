"""FlashAttention over packed stories: the runs say what the mask says, and the kernel's answer is put back in place."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from seedstory.layout import collate
from seedstory.modeling.flash_attention import can_flash, find_runs
from tests.seedstory.tiny_language import tiny_model

CAPTIONS = ["The fox ran over the hill.", "She sat down.", "The owl woke up and sang.", "Good night."]


def features(pages, seed=0):
    return torch.randn(pages, 9, 6, generator=torch.Generator().manual_seed(seed))


def varlen_attention(
    query, key, value, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal
):
    """What `flash_attn_varlen_func` is documented to do, run by run; its causal mask ends at the bottom right."""
    assert causal and dropout_p == 0 and cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    out = []
    for run in range(len(cu_seqlens_q) - 1):
        rows, keys = (slice(*edges[run : run + 2].tolist()) for edges in (cu_seqlens_q, cu_seqlens_k))
        q, k, v = (part.transpose(0, 1)[None] for part in (query[rows], key[keys], value[keys]))
        asked, seen = q.shape[2], k.shape[2]
        assert asked <= max_seqlen_q and seen <= max_seqlen_k
        mask = torch.ones(asked, seen, dtype=torch.bool).tril(seen - asked)
        out.append(scaled_dot_product_attention(q, k, v, mask, scale=softmax_scale, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(out)


@pytest.fixture
def model():
    return tiny_model(family="qwen3")


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


def test_a_step_through_the_kernel_is_a_step_through_the_mask(model, batch, monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=varlen_attention))
    by_mask, expected = gradients(model, {**batch, "context_length": None})
    monkeypatch.setattr("seedstory.modeling.story_model.can_flash", lambda embeds: True)
    by_runs, found = gradients(model, {**batch, "context_length": None})
    assert abs(by_mask.loss - by_runs.loss) <= 1e-6 and not torch.equal(by_mask.loss, torch.zeros(()))
    for name, gradient in expected.items():
        assert (gradient - found[name]).abs().max() <= 1e-5 * max(1.0, gradient.abs().max().item()), name


def test_a_machine_without_the_kernel_uses_the_mask(model, batch):
    assert not can_flash(torch.zeros(1))
    assert torch.isfinite(model(**batch).loss)


@pytest.mark.skipif(not can_flash(torch.zeros(1, device="cuda" if torch.cuda.is_available() else "cpu")), reason="GPU")
def test_the_real_kernel_agrees_with_the_mask(model, batch):
    model = model.to("cuda", torch.bfloat16)
    on_gpu = {name: value.to("cuda") for name, value in batch.items()}
    by_runs, _ = gradients(model, on_gpu)
    by_mask, _ = gradients(model, {**on_gpu, "spans": None})
    assert abs(by_mask.loss - by_runs.loss) <= 2e-2
