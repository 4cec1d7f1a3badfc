"""What ought to change nothing but time: the plain path and the fast one, side by side."""

import json

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from seedstory.detokenizers.detokenizer import Detokenizer
from tests.tiny import tiny_detokenizer
from tests.tiny_sdxl import tiny_sdxl_detokenizer

ASKED = {"num_inference_steps": 2, "guidance_scale": 3.0}


@pytest.fixture(scope="module", params=["sdxl", "mini"])
def detokenizer(request):
    torch.manual_seed(0)
    return tiny_sdxl_detokenizer() if request.param == "sdxl" else tiny_detokenizer()


@pytest.fixture(autouse=True)
def _slow_again(detokenizer):
    yield
    detokenizer.disable_fast_path()


@pytest.fixture(scope="module")
def features():
    return torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def plain(detokenizer, features):
    return drawn(detokenizer, features)


def drawn(detokenizer, features, **options):
    generator = [torch.Generator().manual_seed(seed) for seed in range(len(features))]
    return detokenizer(features, generator, output_type="latent", **ASKED | options)


def attentions(detokenizer):
    blocks = [module for module in detokenizer.unet.modules() if type(module).__name__ == "BasicTransformerBlock"]
    assert blocks
    return [attn for block in blocks for attn in (block.attn1, block.attn2)]


def test_a_kept_condition_gives_the_same_bits_and_is_computed_once_a_picture(detokenizer, features, plain):
    seen = []
    handles = [attn.to_k.register_forward_pre_hook(lambda *_: seen.append(1)) for attn in attentions(detokenizer)[1::2]]
    drawn(detokenizer, features)
    before = len(seen)
    seen.clear()
    detokenizer.enable_context_cache()
    assert torch.equal(drawn(detokenizer, features), plain)
    assert before == 2 * len(seen) == 2 * 2 * len(handles)  # two steps, two conditions
    other = features.flip(0) + 1  # another picture does not see the keys of the last one
    fast = drawn(detokenizer, other)
    detokenizer.disable_context_cache()
    assert torch.equal(drawn(detokenizer, other), fast)
    assert all(isinstance(attn.processor, AttnProcessor2_0) for attn in attentions(detokenizer))
    for handle in handles:
        handle.remove()


def test_fused_projections_are_one_product_of_the_same_weights_and_come_apart_again(detokenizer, features, plain):
    before = {name: weight.clone() for name, weight in detokenizer.unet.state_dict().items()}
    detokenizer.fuse_qkv_projections()
    attn = attentions(detokenizer)[0]
    assert attn.to_k.weight.data_ptr() == attn.to_qkv.weight[attn.to_q.out_features :].data_ptr()  # no copy
    seen = []
    handle = attn.to_k.register_forward_pre_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(drawn(detokenizer, features), plain, rtol=0, atol=1e-4)
    assert not seen
    handle.remove()
    detokenizer.to(torch.float64).to(torch.float32)
    assert attn.to_k.weight.data_ptr() == attn.to_qkv.weight[attn.to_q.out_features :].data_ptr()
    detokenizer.unfuse_qkv_projections()
    after = detokenizer.unet.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in after)
    assert torch.equal(drawn(detokenizer, features), plain)


def test_all_of_it_together_draws_the_same_and_is_saved_as_it_was(detokenizer, features, plain, tmp_path):
    assert detokenizer.enable_fast_path() is detokenizer
    detokenizer.guides_in_one_pass = True
    detokenizer.to(memory_format=torch.channels_last)
    torch.testing.assert_close(drawn(detokenizer, features), plain, rtol=0, atol=1e-4)
    alone = torch.cat([drawn(detokenizer, features[:1]), drawn_second(detokenizer, features)])
    torch.testing.assert_close(alone, plain, rtol=0, atol=1e-4)
    detokenizer.save_pretrained(tmp_path)
    assert attentions(detokenizer)[0].fused_projections
    assert torch.equal(drawn(Detokenizer.from_pretrained(tmp_path), features), plain)
    detokenizer.disable_fast_path()
    assert torch.equal(drawn(detokenizer, features), plain)


def drawn_second(detokenizer, features):
    return detokenizer(features[1:], torch.Generator().manual_seed(1), output_type="latent", **ASKED)


def test_blocks_of_one_kind_are_compiled_once(detokenizer, features, plain):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    detokenizer.enable_fast_path()
    detokenizer.compile_repeated_blocks(backend=backend)
    torch.testing.assert_close(drawn(detokenizer, features), plain, rtol=0, atol=1e-4)
    widths = {attn.to_q.in_features for attn in attentions(detokenizer)}
    blocks = len(attentions(detokenizer)) // 2
    assert len(graphs) == len(widths) and (detokenizer.form == "mini" or blocks > len(graphs))


def test_two_threads_may_draw_at_once(detokenizer, features, plain):
    from concurrent.futures import ThreadPoolExecutor

    detokenizer.enable_fast_path()
    other = drawn(detokenizer, features + 1)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda some: drawn(detokenizer, some), [features, features + 1])
    torch.testing.assert_close(one, plain, rtol=0, atol=1e-4)
    torch.testing.assert_close(two, other, rtol=0, atol=1e-4)


def test_a_network_without_attention_is_named(detokenizer):
    class Other(torch.nn.Identity):
        pass

    other = object.__new__(Detokenizer)
    other.unet = Other()
    with pytest.raises(ValueError, match="the fast path is for U-Nets, and this de-tokenizer draws with a Other"):
        other.enable_fast_path()
    assert json.dumps(other.loras) == "{}"
