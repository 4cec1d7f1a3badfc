"""Consistent self-attention on tiny random U-Nets of Stable Diffusion 1.5, 2.1 and XL, in float64."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.nn import functional as F

from seedstory.consistent_attention import ConsistentAttention, ConsistentAttentionSettings, PageSharing, TokenBank
from seedstory.errors import ModelError, RequestError
from tests.tiny_sdxl import tiny_unet, tiny_vae

CLOSE = 1e-12
ALL = ConsistentAttentionSettings(rate=1.0, start=0.0)
HALF = ConsistentAttentionSettings(rate=0.5, start=0.0)


def sd15(**changes):
    return tiny_unet(**{
        "addition_embed_type": None, "use_linear_projection": False, "attention_head_dim": 4,
        "transformer_layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    } | changes)  # fmt: skip


def sd21():
    return sd15(use_linear_projection=True, attention_head_dim=(4, 8), upcast_attention=True)


@pytest.fixture(params=[sd15, sd21, tiny_unet], ids=["1.5", "2.1", "xl"])
def unet(request):
    torch.manual_seed(0)
    return request.param().double().eval()


class Run:
    """A run of two steps: the U-Net alone, twice, on latents that do not depend on what it says."""

    def __init__(self, unet, pages=3, groups=2):
        generator = torch.Generator().manual_seed(1)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.unet, self.groups = unet, groups
        self.latents, self.words = draw(2, groups, pages, 4, 8, 8), draw(groups, pages, 5, 64)
        self.added = None
        if unet.config.addition_embed_type:
            self.added = {"text_embeds": draw(groups, pages, 24), "time_ids": draw(groups, pages, 6)}
        self.scheduler = DDIMScheduler()
        self.scheduler.set_timesteps(2)

    @torch.no_grad()
    def __call__(self, rows=(0, 1, 2)):
        """What the U-Net says for some of the pages in both steps, `[2, G, P, 4, 8, 8]`."""
        said = []
        for latents, time in zip(self.latents, self.scheduler.timesteps, strict=True):
            added = {key: value[:, rows].flatten(0, 1) for key, value in (self.added or {}).items()} or None
            words = self.words[:, rows].flatten(0, 1)
            out = self.unet(latents[:, rows].flatten(0, 1), time, words, added_cond_kwargs=added).sample
            said.append(out.unflatten(0, (self.groups, -1)))
        return torch.stack(said)


def joint(run, settings, rows=(0, 1, 2), **changes):
    attention = ConsistentAttention(run.unet, settings)
    with attention.sharing([PageSharing(str(row), **changes) for row in rows], run.scheduler):
        return run(rows)


def difference(one, other):
    return float((one - other).abs().max())


def test_rate_0_and_a_single_image_are_the_plain_network_bit_for_bit(unet):
    run = Run(unet)
    plain = run()
    assert torch.equal(joint(run, replace(ALL, rate=0.0)), plain)
    assert torch.equal(joint(run, replace(ALL, start=1.0)), plain)
    assert torch.equal(joint(run, ALL, rows=(1,)), run((1,)))
    assert torch.equal(joint(run, ALL, sees_batch=False), plain)
    assert difference(joint(run, ALL), plain) > 1e-3


def test_the_same_image_three_times_is_the_plain_network_at_rate_1_only(unet):
    run = Run(unet)
    for tensor in [run.latents, run.words, *(run.added or {}).values()]:
        pages = 2 if tensor is run.latents else 1
        tensor.copy_(tensor.select(pages, 0).unsqueeze(pages).expand_as(tensor).clone())
    plain = run()
    assert difference(joint(run, ALL), plain) < CLOSE
    assert difference(joint(run, HALF), plain) > 1e-4


class Masked:
    """Equation 2 as a mask over all tokens of the batch, written for the test alone."""

    def __init__(self, attention, run):
        self.attention, self.run = attention, run

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        groups, pages = self.run.groups, len(self.attention.pages)
        x = hidden_states.view(groups, pages, -1, hidden_states.shape[-1])
        count = x.shape[2]
        seen = torch.zeros(pages, count, dtype=torch.bool)
        for row, page in enumerate(self.attention.pages):
            seen[row, self.attention.numbers(page, count, x.device)] = True
        mask = seen[None].repeat(pages, 1, 1)
        mask[torch.arange(pages), torch.arange(pages)] = True
        mask = mask.flatten(1).repeat_interleave(count, 0)
        flat = x.flatten(1, 2)
        heads = [
            project(flat).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        ]
        weights = (heads[0] @ heads[1].transpose(-1, -2) * heads[0].shape[-1] ** -0.5).masked_fill(~mask, -torch.inf)
        out = (weights.softmax(-1) @ heads[2]).transpose(1, 2).reshape(hidden_states.shape)
        return attn.to_out[0](out)


@pytest.mark.parametrize("sampler", ["fixed", "bernoulli", "grid"])
def test_it_is_equation_2_as_a_mask_over_all_tokens(unet, sampler):
    run, settings = Run(unet), replace(HALF, sampler=sampler)
    ours = joint(run, settings)
    attention = ConsistentAttention(unet, settings)
    with attention.sharing([PageSharing(str(row)) for row in range(3)], run.scheduler):
        for layer in attention.layers.values():
            layer.set_processor(Masked(attention, run))
        assert difference(run(), ours) < CLOSE


@pytest.mark.parametrize("keep", ["hidden", "kv"])
def test_pages_that_read_a_bank_are_those_of_one_batch_in_which_nobody_sees_them(unet, keep):
    run = Run(unet)
    attention = ConsistentAttention(unet, replace(HALF, keep=keep))
    with attention.sharing([PageSharing("0"), PageSharing("1"), PageSharing("2", is_seen=False)], run.scheduler):
        expected = run()
    with attention.sharing([PageSharing("0", writes=True), PageSharing("1", writes=True)], run.scheduler) as bank:
        written = run((0, 1))
    assert bank.nbytes > 0 and difference(written, expected[:, :, :2]) < CLOSE
    with attention.sharing([PageSharing("2", ("0", "1"))], run.scheduler):
        assert difference(run((2,)), expected[:, :, 2:]) < CLOSE


def test_pages_of_a_batch_are_the_same_pages_one_by_one_in_any_order(unet):
    run = Run(unet)
    attention = ConsistentAttention(unet, HALF)
    with attention.sharing([PageSharing("0", writes=True)], run.scheduler):
        run((0,))

    def read(*rows):
        pages = [PageSharing(str(row), ("0",) * (row == 1), sees_batch=False) for row in rows]
        with attention.sharing(pages, run.scheduler):
            return run(rows)

    together = read(1, 2)
    assert difference(read(1), together[:, :, :1]) < CLOSE and difference(read(2), together[:, :, 1:]) < CLOSE
    assert difference(read(2, 1).flip(2), together) < CLOSE


def test_the_order_of_images_does_not_matter(unet):
    run = Run(unet)
    assert difference(joint(run, HALF, rows=(2, 0, 1)), joint(run, HALF)[:, :, [2, 0, 1]]) < CLOSE


def test_groups_of_guidance_do_not_mix(unet):
    run = Run(unet)
    before = joint(run, HALF)
    run.words[1] += 1
    run.latents[:, 1] += 1
    after = joint(run, HALF)
    assert torch.equal(before[:, 0], after[:, 0]) and difference(before[:, 1], after[:, 1]) > 1e-3


def test_a_window_averages_the_windows_that_an_image_is_in(unet):
    run = Run(unet)
    assert difference(joint(run, replace(HALF, window=3)), joint(run, HALF)) < CLOSE
    first = ConsistentAttention(unet, replace(HALF, window=2))
    seen = {}
    name, layer = next(iter(first.layers.items()))
    with first.sharing([PageSharing(str(row)) for row in range(3)], run.scheduler):
        layer.register_forward_hook(lambda _, args, out: seen.setdefault(name, (args[0], out)) and None)
        run()
    x, out = (part.view(2, 3, -1, part.shape[-1]) for part in seen[name])

    def attend(at, other):
        page = PageSharing(str(other))
        with first.sharing([page], run.scheduler):
            first._size, first._slot = (8, 8), 0
            seen = x[:, other, first.numbers(page, x.shape[2], x.device)]
        own, both = x[:, at], torch.cat([seen, x[:, at]], 1)
        q, k, v = (
            project(part).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for project, part in ((layer.to_q, own), (layer.to_k, both), (layer.to_v, both))
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    middle = layer.to_out[0]((attend(1, 0) + attend(1, 2)) / 2)
    assert difference(out[:, 1], middle.detach()) < CLOSE
    assert difference(out[:, 0], layer.to_out[0](attend(0, 1)).detach()) < CLOSE


def test_regions_and_subjects_keep_two_characters_apart(unet):
    run = Run(unet)
    left, right = torch.zeros(8, 8, dtype=torch.bool), torch.ones(8, 8, dtype=torch.bool)
    left[:, :4], right[:, :4] = True, False

    def draw(regions, subject=None):
        attention = ConsistentAttention(unet, HALF)
        pages = [PageSharing("0", writes=True, subject=subject), PageSharing("1", writes=True)]
        with attention.sharing([replace(page, sees_batch=False) for page in pages], run.scheduler) as bank:
            run((0, 1))
        with attention.sharing([PageSharing("2", ("0", "1"), regions=regions)], run.scheduler):
            return run((2,)), bank.nbytes

    everywhere, size = draw({})
    apart, _ = draw({"0": left, "1": right})
    assert difference(apart, everywhere) > 1e-6
    assert difference(draw({"0": torch.ones(8, 8, dtype=torch.bool)})[0], everywhere) < CLOSE
    nobody = torch.zeros(8, 8, dtype=torch.bool)
    assert difference(draw({"0": nobody, "1": nobody})[0], run((2,))) < CLOSE
    assert draw({}, left)[1] < size


def test_a_bank_of_one_step_and_one_of_eight_bits_are_smaller(unet):
    run = Run(unet)
    sizes, said = {}, {}
    for name, changes in {"full": {}, "one step": {"bank_steps": 1}, "int8": {"storage": "int8"}}.items():
        attention = ConsistentAttention(unet, replace(HALF, **changes))
        with attention.sharing([PageSharing("0", writes=True)], run.scheduler) as bank:
            run((0,))
        with attention.sharing([PageSharing("1", ("0",))], run.scheduler):
            said[name], sizes[name] = run((1,)), bank.nbytes
    assert sizes["one step"] == sizes["full"] / 2 and sizes["int8"] < sizes["full"] / 3
    assert 0 < difference(said["int8"], said["full"]) < 0.05
    assert torch.equal(said["one step"][0], said["full"][0]) and difference(said["one step"][1], said["full"][1]) > 0


def test_processors_come_back_as_the_same_objects_also_after_an_error(unet):
    run = Run(unet)
    before = dict(unet.attn_processors)
    attention = ConsistentAttention(unet, HALF)
    with pytest.raises(ZeroDivisionError), attention.sharing([PageSharing("0", writes=True)], run.scheduler):
        run((0,))
        raise ZeroDivisionError
    after = unet.attn_processors
    assert all(after[name] is before[name] for name in before) and not unet._forward_pre_hooks
    assert "0" not in attention.bank


def test_an_empty_bank_is_the_one_that_is_written(unet):
    run, bank = Run(unet), TokenBank()
    attention = ConsistentAttention(unet, HALF, bank=bank)
    with attention.sharing([PageSharing("0", writes=True)], run.scheduler):
        run((0,))
    assert bank.keys() == ["0"]


def test_a_compiled_network_is_the_one_within(unet):
    compiled = ConsistentAttention(torch.compile(unet, backend="eager"))
    assert compiled.unet is unet and compiled.layers == ConsistentAttention(unet).layers


def test_layers_are_those_of_the_released_code_and_no_motion_module():
    from diffusers import MotionAdapter, UNetMotionModel

    with torch.device("meta"):
        full = UNet2DConditionModel(cross_attention_dim=768)  # the default is the form of 1.5
        xl = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
            transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        motion = UNetMotionModel.from_unet2d(full, MotionAdapter())
    assert len(ConsistentAttention(full).layers) == 9 and len(ConsistentAttention(xl).layers) == 36
    assert len(ConsistentAttention(motion).layers) == 9


def pipeline(unet):
    return StableDiffusionPipeline(
        vae=tiny_vae().double(), text_encoder=None, tokenizer=None, unet=unet, scheduler=DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@pytest.mark.parametrize("scheduler", [DDIMScheduler, DPMSolverMultistepScheduler])
def test_a_pipeline_of_diffusers_draws_with_it(scheduler):
    torch.manual_seed(0)
    pipe = pipeline(sd15().double().eval())
    pipe.scheduler = scheduler()
    pipe.set_progress_bar_config(disable=True)
    words = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def draw(rows):
        return pipe(
            prompt_embeds=words[list(rows)], negative_prompt_embeds=torch.zeros_like(words[list(rows)]), height=16,
            width=16, num_inference_steps=4, output_type="latent",
            generator=[torch.Generator().manual_seed(row) for row in rows],
        ).images  # fmt: skip

    plain = draw([0, 1, 2])
    attention = ConsistentAttention(pipe.unet, replace(HALF, start=0.3, probability=((0.0, 0.7), (0.6, 1.0))))
    with attention.sharing([PageSharing("0", writes=True)], pipe.scheduler):
        assert difference(draw([0]), plain[:1]) < CLOSE
    pages = [PageSharing(str(row), ("0",), sees_batch=False) for row in (1, 2)]
    with attention.sharing(pages, pipe.scheduler):
        together = draw([1, 2])
    with attention.sharing(pages[1:], pipe.scheduler):
        assert difference(draw([2]), together[1:]) < 1e-9
    assert difference(together, plain[1:]) > 1e-3 and torch.equal(draw([0, 1, 2]), plain)


def test_what_is_wrong_is_said_in_one_line(unet):
    run = Run(unet)
    attention = ConsistentAttention(unet, HALF)
    with (
        pytest.raises(RequestError, match="no image 'mia'"),
        attention.sharing([PageSharing("0", ("mia",))], run.scheduler),
    ):
        pass
    with (
        pytest.raises(RequestError, match="a key of its own"),
        attention.sharing([PageSharing("0")] * 2, run.scheduler),
    ):
        pass
    with (
        pytest.raises(RequestError, match="a batch of 6"),
        attention.sharing([PageSharing(str(row)) for row in range(4)], run.scheduler),
    ):
        run()
    with pytest.raises(ModelError, match="no self-attention"):
        ConsistentAttention(tiny_vae())
    for wrong, words in {
        "rate": 2,
        "sampler": "odd",
        "window": 0,
        "keep": "all",
        "probability": ((0.5, 1), (0, 1)),
    }.items():
        with pytest.raises(RequestError, match=wrong):
            ConsistentAttentionSettings(**{wrong: words})
    with attention.sharing([PageSharing("0", writes=True)], run.scheduler):
        run((0,))
    other = DDIMScheduler()
    other.set_timesteps(3)
    with pytest.raises(RequestError, match="another scheduler"), attention.sharing([PageSharing("2")], other):
        run((2,))
    unguided = Run(unet, groups=1)
    with (
        pytest.raises(RequestError, match="2 groups of guidance and is read with 1"),
        attention.sharing([PageSharing("1", ("0",))], unguided.scheduler),
    ):
        unguided((1,))
    run.scheduler.set_timesteps(3)
    run.latents = torch.cat([run.latents, run.latents[:1]])
    with (
        pytest.raises(RequestError, match="scheduler and steps"),
        attention.sharing([PageSharing("1", ("0",))], run.scheduler),
    ):
        run((1,))
