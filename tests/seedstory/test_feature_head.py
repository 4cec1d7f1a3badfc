"""The flow head: it commits where regression averages, and keeps the promises of the page loop."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, layer_norm, mse_loss

from seedstory.cache import CachePolicy
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine, StoryRequest
from seedstory.layout import collate
from seedstory.modeling import StoryConfig, StoryModel
from seedstory.modeling.flow_head import make_output_resampler
from tests.seedstory.tiny_language import tiny_lm, tiny_model, tiny_tokenizer

FLOW = {"feature_head": "flow", "flow_depth": 1}
SHORT = SamplingConfig(temperature=1.0, max_caption_tokens=6)


@pytest.fixture(scope="module")
def flow_model():
    return tiny_model(**FLOW)


def batch_of(model, captions):
    images = layer_norm(torch.randn(len(captions), 9, 6, generator=torch.Generator().manual_seed(3)), (6,))
    return collate([model.layout.pack_story(captions)]) | {"context_features": images, "target_features": images}


def write(model, opening=(), pages=5, seed=5):
    engine = StoryEngine(model, CachePolicy(name="dense"), SHORT)
    engine.start(opening, pages=pages, seed=seed)
    return list(engine.pages())


def test_flow_commits_to_one_of_two_images_where_regression_gives_their_mean():
    """Two pictures follow the same words, as often the one as the other."""
    torch.manual_seed(0)
    pair = layer_norm(torch.randn(2, 9, 6), (6,))
    words = torch.randn(1, 4, 32)
    likeness = {}
    for head in ("regression", "flow"):
        sizes = {f"output_resampler_{name}": value for name, value in (("width", 32), ("depth", 1), ("heads", 2))}
        config = StoryConfig(feature_tokens=9, feature_dim=6, feature_head=head, flow_depth=2, **sizes)
        resampler = make_output_resampler(config, 32)
        optimizer = torch.optim.AdamW(resampler.parameters(), lr=3e-3)
        for _ in range(300):
            targets = pair.repeat(16, 1, 1)
            gathered = resampler.gather(resampler.read(words)).expand(32, -1, -1)
            if head == "flow":
                loss = resampler.flow_loss(gathered, targets, *resampler.sample_noise(32))
            else:
                loss = mse_loss(resampler.finish(gathered), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            drawn = resampler(words.expand(64, -1, -1), torch.randn(64, 9, 6))
        # Of every token, to both pictures, [64, 2, 9].
        likeness[head] = cosine_similarity(drawn[:, None], pair[None], dim=-1)
    mean = cosine_similarity(layer_norm(pair.mean(0), (6,)), pair, dim=-1)
    assert (likeness["regression"] - mean).abs().max() < 0.05
    image = likeness["flow"].mean(-1).argmax(1)
    chosen = likeness["flow"][torch.arange(64), image]
    assert chosen.mean() > 0.97 and (chosen.amin(1) > 0.9).float().mean() > 0.8  # all tokens agree on the picture
    assert 16 <= image.sum() <= 48


def test_training_lowers_the_flow_loss_and_reaches_all_that_is_ours(captions):
    model = tiny_model(**FLOW).train()
    batch = batch_of(model, captions)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    history = []
    for step in range(60):
        output = model(**batch)
        output.loss.backward()
        if step == 0:
            without = [
                name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None
            ]
            assert without == []
        optimizer.step()
        optimizer.zero_grad()
        history.append(output.visual_loss.item())
    assert sum(history[-10:]) < 0.7 * sum(history[:10])
    assert not output.features.requires_grad and output.loss.dtype == torch.float32


def test_given_noise_and_time_decide_and_evaluation_needs_none(flow_model, captions):
    batch = batch_of(flow_model, captions)
    noise = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(1))
    given = batch | {"feature_noise": noise, "feature_time": torch.tensor([0.1, 0.4, 0.7, 1.0])}
    with torch.no_grad():
        plain, again, one, two = flow_model(**batch), flow_model(**batch), flow_model(**given), flow_model(**given)
        last = flow_model(**given | {"labels": None, "target_features": None})
        alone, both = (flow_model.decode_features(torch.zeros(count, 4, 32)) for count in (1, 2))
    torch.testing.assert_close(both, alone.expand(2, -1, -1))
    for left, right in ((plain, again), (one, two)):
        assert left.loss == right.loss and torch.equal(left.features, right.features)
    assert not torch.equal(plain.features, one.features)
    assert torch.equal(last.features, one.features) and last.loss is None


def test_a_loss_is_the_mean_over_its_images_however_they_are_cut(flow_model):
    generator = torch.Generator().manual_seed(2)
    gathered, features, noise = (torch.randn(6, 9, size, generator=generator) for size in (16, 6, 6))
    time = torch.rand(6, generator=generator)
    with torch.no_grad():
        whole = flow_model.output_resampler.flow_loss(gathered, features, noise, time)
        parts = [
            len(rows) * flow_model.output_resampler.flow_loss(gathered[rows], features[rows], noise[rows], time[rows])
            for rows in (torch.arange(2), torch.arange(2, 6))
        ]
    torch.testing.assert_close(sum(parts) / 6, whole)


def test_sampling_takes_euler_steps_of_the_predicted_velocity(flow_model):
    resampler = flow_model.output_resampler
    gathered, noise = torch.randn(2, 9, 16), torch.randn(2, 9, 6)
    with torch.no_grad():
        x = noise
        for left in (4, 3, 2, 1):
            time = torch.full((2,), left / 4)
            x = x - (x - resampler.predict_clean(gathered, x, time)) / time[:, None, None] / 4
        torch.testing.assert_close(resampler.finish(gathered, noise), layer_norm(x, (6,)), atol=1e-5, rtol=1e-5)


def test_images_depend_on_seed_and_page_alone(flow_model, captions):
    script = [GivenPage(captions[0])] * 5
    one, other = write(flow_model, script, seed=5), write(flow_model, script, seed=6)
    assert all((a.features - b.features).abs().max() > 1e-3 for a, b in zip(one, other, strict=True))
    engine = StoryEngine(flow_model, CachePolicy(name="dense"), SHORT)
    engine.start(script, pages=5, seed=5)
    noises = [engine._image_noise()]
    noises += [engine._image_noise() for page in engine.pages() if page.index < 4]
    assert len(torch.unique(torch.cat(noises).flatten(1), dim=0)) == 5
    # A page with a seed of its own begins at that seed's noise.
    engine.start_batch([StoryRequest(script, 5, 5, page_seeds={1: 6})])
    seeded = list(engine.pages())
    assert torch.equal(seeded[0].features, one[0].features)
    assert (seeded[1].features - one[1].features).abs().max() > 1e-3


def test_resumed_and_batched_stories_are_those_generated_in_one_go(flow_model, captions):
    generated = write(flow_model, [GivenPage(captions[0])])
    for done in (1, 3):
        opening = [GivenPage(page.caption, page.features) for page in generated[:done]]
        for page, again in zip(generated[done:], write(flow_model, opening)[done:], strict=True):
            assert page.caption == again.caption and torch.equal(page.features, again.features)
    engine = StoryEngine(flow_model, CachePolicy(name="dense"), SHORT)
    engine.start_batch([StoryRequest([GivenPage(captions[1])], 3, 9), StoryRequest([GivenPage(captions[0])], 5, 5)])
    batched = [page for page in engine.pages() if page.story == 1]
    for page, again in zip(generated, batched, strict=True):
        assert page.caption == again.caption
        assert (page.features - again.features).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_and_load_round_trip(tmp_path, captions, dtype):
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()
    tiny_lm(len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    sizes = {"num_visual_tokens": 4, "feature_tokens": 9, "feature_dim": 6, "lora_rank": 2}
    model = StoryModel.from_base(tmp_path / "base", dtype=torch.float32, flow_steps=3, **sizes, **FLOW).eval()
    model.save_pretrained(tmp_path / "ours")
    loaded = StoryModel.from_pretrained(tmp_path / "ours", dtype=dtype)
    assert loaded.output_resampler.flow_steps == 3 and loaded.config.feature_head == "flow"
    written = write(loaded, [GivenPage(captions[0])], pages=2)
    assert all(bool(page.features.isfinite().all()) and page.features.dtype == torch.float32 for page in written)
    if dtype == torch.float32:
        batch = batch_of(model, captions)
        with torch.no_grad():
            torch.testing.assert_close(loaded(**batch).features, model(**batch).features, atol=1e-5, rtol=1e-5)


def test_a_regression_has_no_weights_of_the_flow_and_its_configuration_is_the_default(model):
    assert StoryConfig().feature_head == "regression"
    assert not any("flow" in name or "noisy" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"feature_head": "diffusion"}, "must be one of regression, flow"), ({"flow_steps": 0}, "at least 1")],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        StoryConfig(**settings)
