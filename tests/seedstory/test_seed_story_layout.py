"""SEED-Story's order of tokens: the same ids, the same supervision, and every shortcut equals the slow way."""

import copy

import pytest
import torch

from seedstory.cache import CachePolicy
from seedstory.convert.seed_story_tokenizer import write_base_tokenizer
from seedstory.errors import ModelError, RequestError
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine, StoryRequest
from seedstory.generation.scoring import score_pages
from seedstory.layout import IGNORE, StoryLayout, collate
from seedstory.modeling import StoryModel
from seedstory.modeling.base_lm import load_tokenizer
from tests.seedstory.test_engine import NOTHING_LEAVES, assert_same, write
from tests.seedstory.tiny_language import needs_native, tiny_model, tiny_tokenizer
from tests.seedstory.tiny_sentencepiece import WORDS, PlainTokenizer, write_sentencepiece
from training.published_scheme import page_sample

CAPTIONS = ["The fox found a lantern.", "Bruno laughed!", '"The mill," said the owl.', "The end."]
N = 4
IMAGE = "<img>" + "".join(f"<img_{index:05d}>" for index in range(N)) + "</img>"
SETTINGS = {"layout": "seed_story", "cosine_weight": 1.0, "mse_weight": 0.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_sentencepiece(folder / "released", StoryLayout.token_names(N))
    (folder / "base").mkdir()
    write_base_tokenizer(folder / "released", folder / "base", WORDS)
    return folder


@pytest.fixture(scope="module")
def model(files):
    return tiny_model(load_tokenizer(files / "base"), lm={"tie_word_embeddings": False}, **SETTINGS)


@pytest.fixture(scope="module")
def plain(files):
    return PlainTokenizer(files / "released/tokenizer.model", StoryLayout.token_names(N))


def features(pages, seed=0):
    return torch.randn(pages, 9, 6, generator=torch.Generator().manual_seed(seed))


def test_the_ids_are_those_of_the_released_prompt(model, plain):
    story = model.layout.pack_story(CAPTIONS)
    stream = story.input_ids[story.branch == -1].tolist()
    text = CAPTIONS[0] + IMAGE + "".join(f"[INST]{caption}{IMAGE}" for caption in CAPTIONS[1:])
    assert stream == [1, *plain.encode(text)]
    assert model.layout.page_label_ids(7) == plain.after_token("[INST]") and model.layout.page_label_ids(9, True) == []
    assert model.layout.caption_ids("The fox", first=True) == plain.text("The fox") != plain.after_token("The fox")
    assert model.layout.caption_text(model.layout.caption_ids(" The  fox\n")) == "The fox"
    with pytest.raises(RequestError, match="A caption must not contain the special tokens <img>"):
        model.layout.caption_ids("A <img> here")


def test_learned_are_labels_captions_and_eos_behind_every_picture_that_is_made(model, plain):
    asked = [False, True, True, True]
    story = model.layout.pack_story(CAPTIONS, supervise_caption=asked, supervise_image=asked)
    context, branches = story.branch == -1, story.branch >= 0
    learned = [id for caption in CAPTIONS[1:] for id in [*plain.after_token("[INST]" + caption), WORDS]]
    assert [id for id in story.labels[context].tolist() if id != IGNORE] == learned
    # The state at </img> says "[INST]", where the picture was given, and eos, where it was made.
    ends = (story.input_ids[context] == WORDS + 1).nonzero().flatten()
    assert story.labels[context][ends].tolist() == [*[plain.after_token("[INST]")[0]] * 3, IGNORE]
    one = [*model.layout.query_ids, WORDS + 1]
    assert story.input_ids[branches].tolist() == one * 3 and story.labels[branches].tolist() == ([IGNORE] * N + [2]) * 3
    assert int(story.query_mask.sum()) == 3 * N


def test_a_packed_story_equals_seed_storys_samples(model, plain):
    """A sample shows pages 0 to g whole and learns page g + 1, whose query tokens stand in line."""
    images, targets = features(4), features(4, 1)
    asked = [False, True, True, True]
    batch = collate([model.layout.pack_story(CAPTIONS, supervise_caption=asked, supervise_image=asked)], 8)
    losses, cosines = [], []
    caption_ids = [model.layout.caption_ids(caption, first=page == 0) for page, caption in enumerate(CAPTIONS)]
    with torch.no_grad():
        packed = model(**batch, context_features=images, target_features=targets)
        for given in range(3):
            text = CAPTIONS[0] + IMAGE + "".join(f"[INST]{caption}{IMAGE}" for caption in CAPTIONS[1 : given + 1])
            instruction = [1, *plain.encode(text)]
            response = [*plain.after_token("[INST]" + CAPTIONS[given + 1]), *plain.encode(IMAGE), 2]
            ids = torch.tensor([[*instruction, *response]])
            labels = ids.clone()
            labels[0, : len(instruction)] = IGNORE
            start = int((ids[0] == WORDS).nonzero()[-1])
            labels[0, start + 1 : start + N + 2] = IGNORE
            queries = (ids >= WORDS + 2) & (ids < WORDS + 2 + N)
            slots = queries.clone()
            slots[0, start:], queries[0, :start] = False, False
            shifted = torch.cat([labels[:, 1:], torch.tensor([[IGNORE]])], 1)
            single = model(
                ids,
                labels=shifted,
                context_features=images[: given + 1],
                context_mask=slots,
                query_mask=queries,
                target_features=targets[given + 1 : given + 2],
            )
            published = page_sample(model.layout, caption_ids, given + 1)
            assert published["labels"] == shifted[0, :-1].tolist() and published["input_ids"] == ids[0, :-1].tolist()
            count = int((shifted != IGNORE).sum())
            losses.append((single.lm_loss * count, count))
            cosines.append(single.cosine_loss)
    expected = sum(loss for loss, _ in losses) / sum(count for _, count in losses)
    assert abs(packed.lm_loss - expected) <= 1e-5
    assert abs(packed.visual_loss - sum(cosines) / 3) <= 1e-5
    assert int((batch["labels"] != IGNORE).sum()) == sum(count for _, count in losses)


def test_every_way_to_write_a_story_gives_the_same(model):
    dense, few = write(model, pages=4), {"window_pages": 2, "max_sink_tokens": 20}
    assert_same(dense, write(model, pages=4, policy="recompute", window_pages=99))
    assert_same(dense, write(model, pages=4, policy="mm_sink", **NOTHING_LEAVES))
    bounded = write(model, pages=4, policy="mm_sink", **few)
    assert (bounded[3].features - dense[3].features).abs().max() > 1e-4
    for policy, whole, options in (("dense", dense, {}), ("mm_sink", bounded, few)):
        opening = [page.as_opening() for page in whole[:3]]
        assert_same(whole, write(model, opening, pages=4, policy=policy, **options), atol=0)


def test_a_batch_is_its_stories_alone(model):
    engine = StoryEngine(model, CachePolicy(name="dense"), SamplingConfig(temperature=1.0, max_caption_tokens=8))
    requests = [StoryRequest(pages=pages, seed=seed) for pages, seed in ((3, 5), (5, 6))]
    engine.start_batch(requests)
    drafts = list(engine.pages())
    for number, request in enumerate(requests):
        alone = write(model, pages=request.pages, seed=request.seed)
        assert_same(alone, [draft for draft in drafts if draft.story == number])


def test_generation_reads_what_training_packs(model):
    drafts = write(model, [GivenPage(caption) for caption in CAPTIONS], pages=4)
    made = torch.stack([draft.features for draft in drafts])
    with torch.no_grad():
        packed = model(**collate([model.layout.pack_story(CAPTIONS)]), context_features=made, target_features=made)
    torch.testing.assert_close(packed.features, made, rtol=0, atol=1e-5)


@pytest.mark.parametrize("decoding", ["static", "native"])
def test_faster_decoding_gives_the_same_words(model, decoding):
    merged = copy.deepcopy(model).merge_lora()
    if decoding == "native":
        needs_native(merged)
    stories = []
    for name in ("eager", decoding):
        engine = StoryEngine(merged, sampling=SamplingConfig(temperature=0, max_caption_tokens=8), decoding=name)
        engine.start(pages=3)
        stories.append(list(engine.pages()))
    assert_same(*stories)


def test_scores_are_those_of_the_engine(model):
    given = [GivenPage(caption, picture) for caption, picture in zip(CAPTIONS, features(4))]
    engine = StoryEngine(model, CachePolicy(name="window", window_pages=2))
    engine.start(given, pages=4, score=True)
    written = [draft.log_likelihood for draft in engine.pages()]
    [scored] = score_pages(model, [StoryRequest(given, 4)], CachePolicy(name="window", window_pages=2))
    assert [score for score, _ in scored] == pytest.approx(written, abs=1e-4)


def test_text_guidance_reads_the_page_alone(model):
    sampling = SamplingConfig(temperature=0, max_caption_tokens=6, text_guidance_scale=2.0)
    opening = [GivenPage(caption) for caption in CAPTIONS[:2]]
    guided = write(model, opening, pages=3, sampling=sampling)
    assert_same(guided[2:], write(model, [page.as_opening() for page in guided[:2]], pages=3, sampling=sampling)[2:])


def test_a_stored_model_keeps_its_layout(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = StoryModel.from_pretrained(tmp_path, base_model=model.llm.__class__(model.llm.config), dtype=torch.float32)
    assert again.layout.name == "seed_story" and again.layout.page_label_ids(3) == model.layout.page_label_ids(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "chat"}, "layout 'chat'; choose one of countdown, seed_story"),
        ({"layout": "seed_story", "story_state": True}, "layout seed_story has no place for a story state"),
    ],
)
def test_layouts_that_do_not_exist_are_refused(settings, message):
    with pytest.raises((ModelError, RequestError), match=message):
        tiny_model(**settings)
    with pytest.raises(RequestError, match="needs a tokenizer with a begin-of-sequence token"):
        StoryLayout.extend(tiny_tokenizer(bos=None), N, "seed_story")
