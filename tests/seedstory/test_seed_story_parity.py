"""A converted model computes, number by number, what the released one is described to compute."""

import pytest
import torch
from safetensors.torch import load_file

from seedstory.cache import CachePolicy, StoryCache
from seedstory.convert.seed_story import SeedStoryConversion
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.generation import GivenPage
from seedstory.layout import IGNORE, collate
from seedstory.modeling.story_model import StoryModel
from tests.seedstory import plain_unet
from tests.seedstory import seed_story_reference as reference
from tests.seedstory import seed_story_table as released
from tests.seedstory.seed_story_checkpoints import IMAGE_TOKENS, tiny_form, write_released
from tests.seedstory.test_engine import write
from tests.seedstory.tiny_sentencepiece import WORDS, PlainTokenizer, write_sentencepiece

SIZES = released.Sizes.tiny(vocabulary=WORDS)
CAPTIONS = ["The fox found a lantern.", "Bruno laughed!"]
IMAGE = "<img>" + "".join(IMAGE_TOKENS[:-2]) + "</img>"
TOLERANCE = {"rtol": 0, "atol": 1e-5}
TRAPS = ("LoRA once", "no LoRA", "original norms", "other norm eps", "neighbors as pairs")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    files, weights = write_released(folder, SIZES, lambda path: write_sentencepiece(path, IMAGE_TOKENS))
    for name, tensor in weights["agent"].items():
        if "lora_B" in name:
            tensor.mul_(0.3)  # or rounding alone would be seen
    torch.save(weights["agent"], files.agent)
    SeedStoryConversion(files, dtype=torch.float32, form=tiny_form(SIZES)).write(folder / "model")
    ids = {name: WORDS + place for place, name in enumerate(IMAGE_TOKENS)}
    agent = reference.Agent(weights["agent"], SIZES.heads, SIZES.resampler_heads, ids)
    model = StoryModel.from_pretrained(folder / "model/story_model", dtype=torch.float32)
    return model, agent, PlainTokenizer(folder / "tokenizer/tokenizer.model", IMAGE_TOKENS), folder, weights


def features(pages, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(pages, SIZES.features, SIZES.feature_dim, generator=generator)


def in_our_order(model, ids):
    """Released ids as ours: image tokens lie in another order."""
    names = {
        WORDS + place: model.layout.tokenizer.convert_tokens_to_ids(name) for place, name in enumerate(IMAGE_TOKENS)
    }
    return [names.get(id, id) for id in ids]


@torch.no_grad()
def both_prompts(made, traps=()):
    """Last hidden states and scores of two pages, whose second picture is made: ours and the plain ones."""
    model, agent, tokenizer = made[:3]
    images = features(1)
    ids = [1, *tokenizer.encode(CAPTIONS[0] + IMAGE + "[INST]" + CAPTIONS[1] + IMAGE)]
    own = torch.tensor([in_our_order(model, ids)])
    slots = torch.zeros_like(own, dtype=torch.bool)
    start = ids.index(agent.start)
    slots[0, start + 1 : start + 1 + SIZES.visual_tokens] = True
    hidden = model(own, context_features=images, context_mask=slots).last_hidden_state[0]
    plain = agent.hidden(ids, images, traps)
    scores = agent.logits(plain)
    return (hidden, model.caption_logits(hidden)), (plain, torch.cat([scores[:, :WORDS], scores[:, [agent.start]]], 1))


def test_hidden_states_and_scores_of_a_prompt_of_two_pages_are_the_released_ones(made):
    for ours, plain in zip(*both_prompts(made), strict=True):
        torch.testing.assert_close(ours, plain, **TOLERANCE)


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_of_the_language_model_would_be_seen(made, trap):
    (ours, _), (plain, _) = both_prompts(made, (trap,))
    assert (ours - plain).abs().max() > 1e-4


def test_the_engine_reads_the_released_prompt(made):
    model, _, tokenizer = made[:3]
    story = model.layout.pack_story(CAPTIONS)
    prompt = tokenizer.encode(CAPTIONS[0] + IMAGE + "[INST]" + CAPTIONS[1] + IMAGE)
    assert story.input_ids[story.branch == -1].tolist() == in_our_order(model, [1, *prompt])


def test_states_of_the_query_tokens_one_by_one_are_those_of_one_pass(made):
    model, agent, tokenizer = made[:3]
    given = features(1)
    page = write(model, [GivenPage(CAPTIONS[0], given[0]), GivenPage(CAPTIONS[1])], pages=2)[1]
    ids = [1, *tokenizer.encode(CAPTIONS[0] + IMAGE + "[INST]" + CAPTIONS[1] + "<img>")]
    states = []
    for query in agent.queries:
        ids.append(query)
        states.append(agent.hidden(ids, given)[-1])
    torch.testing.assert_close(page.features, agent.features(torch.stack(states)), **TOLERANCE)
    shifted = [agent.hidden(ids[:-1], given)[-SIZES.visual_tokens :]]  # of <img> and all queries but the last
    assert (page.features - agent.features(shifted[0])).abs().max() > 1e-3
    cache, ours = StoryCache(model.llm, CachePolicy(name="dense")), []
    with torch.no_grad():
        embeds = agent.embed(ids, given)
        for token in embeds[0]:
            ours.append(model.hidden_states(token[None, None], cache.position_ids(1), None, cache)[0, 0])
    torch.testing.assert_close(torch.stack(ours[-SIZES.visual_tokens :]), torch.stack(states), **TOLERANCE)


def test_both_losses_of_a_sample_are_the_released_ones(made):
    """Of a sample the last page is learned: "[INST]", caption, `<img>`, eos; neither query tokens nor `</img>`."""
    model, agent, tokenizer = made[:3]
    images, target = features(1), features(1, 1)
    instruction = [1, *tokenizer.encode(CAPTIONS[0] + IMAGE)]
    response = tokenizer.after_token("[INST]" + CAPTIONS[1])
    ids = [*instruction, *response, *tokenizer.encode(IMAGE), 2]
    labels = [IGNORE] * len(instruction) + [*response, agent.start] + [IGNORE] * (SIZES.visual_tokens + 1) + [2]
    hidden = agent.hidden(ids, images)
    scores = agent.logits(hidden)
    made_by_queries = agent.features(hidden[-SIZES.visual_tokens - 2 : -2])
    lm_loss, visual_loss = reference.cross_entropy(scores, labels), reference.cosine_loss(made_by_queries, target[0])

    asked = [False, True]
    batch = collate([model.layout.pack_story(CAPTIONS, supervise_caption=asked, supervise_image=asked)])
    shown = torch.cat([images, target])
    with torch.no_grad():
        output = model(**batch, context_features=shown, target_features=shown)
    learned = batch["labels"][batch["labels"] != IGNORE]
    assert sorted(learned.tolist()) == sorted(in_our_order(model, [id for id in labels if id != IGNORE]))
    torch.testing.assert_close(output.cosine_loss, visual_loss, **TOLERANCE)
    torch.testing.assert_close(output.visual_loss, visual_loss, **TOLERANCE)
    # The released loss is over all scores; ours leaves those of tokens out that never come.
    kept = torch.cat([scores[:, :WORDS], scores[:, [agent.start]]], 1)
    ours_of = [WORDS if id == agent.start else id for id in labels]
    torch.testing.assert_close(output.lm_loss, reference.cross_entropy(kept, ours_of), **TOLERANCE)
    assert lm_loss > output.lm_loss
    torch.testing.assert_close(output.loss, output.lm_loss + output.visual_loss, **TOLERANCE)


@torch.no_grad()
def both_steps(made, traps=()):
    """What the U-Net predicts at one step, of latents and features: ours and the plain one."""
    folder, weights = made[3:]
    detokenizer = Detokenizer.from_pretrained(folder / "model/detokenizer")
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    size, given = detokenizer.image_size, features(2)
    condition = detokenizer.adapter(given).inputs
    added = condition["added_cond_kwargs"]
    assert added["time_ids"].tolist() == [[size, size, 0, 0, size, size]] * 2
    ids = torch.tensor([[480.0, 854, 0, 398, size, size]] * 2)  # of a wide picture whose middle is cut out
    ours = detokenizer.unet(
        latents, 601, condition["encoder_hidden_states"], added_cond_kwargs=added | {"time_ids": ids}
    ).sample
    trained = load_file(f"{folder}/sdxl/unet/diffusion_pytorch_model.safetensors")
    trained |= {
        name.removeprefix("unet."): one for name, one in weights["detokenizer"].items() if name.startswith("unet.")
    }
    context, pooled = reference.sdxl_resampler(reference.part(weights["detokenizer"], "resampler."), given, 4)
    plain = plain_unet.predict(
        trained,
        latents,
        601,
        context,
        pooled,
        {"height": 480, "width": 854, "top": 0, "left": 398, "size": size},
        traps,
    )
    return ours, plain


def test_one_step_of_the_unet_is_the_released_one(made):
    ours, plain = both_steps(made)
    assert 0.05 < plain.std() < 10
    torch.testing.assert_close(ours, plain, **TOLERANCE)


@pytest.mark.parametrize("trap", plain_unet.TRAPS)
def test_a_trap_of_the_unet_would_be_seen(made, trap):
    ours, plain = both_steps(made, (trap,))
    assert (ours - plain).abs().max() > 1e-4
