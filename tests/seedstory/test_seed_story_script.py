"""`reference=True` writes, token by token, what a plain version of SEED-Story's script writes."""

import re

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from seedstory.cli import app
from seedstory.convert.seed_story import SeedStoryConversion
from seedstory.errors import RequestError
from seedstory.generation import GivenPage, StoryRequest
from seedstory.generation.reference import ReferenceEngine
from seedstory.image import image_to_tensor
from seedstory.modeling.story_model import StoryModel
from seedstory.pipeline import StoryPipeline
from seedstory.story import Story
from seedstory.story_batch import StoryBatch
from tests.seedstory import seed_story_reference as reference
from tests.seedstory import seed_story_table as released
from tests.seedstory.seed_story_checkpoints import IMAGE_TOKENS, tiny_form, write_released
from tests.seedstory.tiny_language import tiny_model
from tests.seedstory.tiny_sentencepiece import WORDS, PlainTokenizer, write_sentencepiece

SIZES = released.Sizes.tiny(vocabulary=WORDS)
IMAGE = "<img>" + "".join(IMAGE_TOKENS[:-2]) + "</img>"
OPENING = "The fox found a lantern."
WINDOW, MOST = 2, 40
EOS = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    files, weights = write_released(folder, SIZES, lambda path: write_sentencepiece(path, IMAGE_TOKENS))
    agent = weights["agent"]
    for name, tensor in agent.items():
        if "lora_B" in name:
            tensor.mul_(0.3)
    ids = {name: WORDS + place for place, name in enumerate(IMAGE_TOKENS)}
    tokenizer = PlainTokenizer(folder / "tokenizer/tokenizer.model", IMAGE_TOKENS)
    teach_to_draw(agent, ids, tokenizer)
    torch.save(agent, files.agent)
    SeedStoryConversion(files, dtype=torch.float32, form=tiny_form(SIZES)).write(folder / "model")
    plain = reference.Agent(agent, SIZES.heads, SIZES.resampler_heads, ids)
    return folder / "model", plain, tokenizer


def teach_to_draw(weights, ids, tokenizer, after=5, margin=0.6):
    """Lets a random model write `<img>` about where it first has `after` tokens, and eos behind pictures."""
    plain = reference.Agent(weights, SIZES.heads, SIZES.resampler_heads, ids)
    head = weights["llm.base_model.model.lm_head.weight"]
    head[:259], head[WORDS:] = 0.0, 0.0  # neither bytes nor special tokens
    written = [1, *tokenizer.encode(OPENING + IMAGE)]
    for _ in range(after):
        hidden = plain.hidden(written, picture()[None])[-1]
        written.append(int(plain.logits(hidden).argmax()))
    for token, more in ((ids["<img>"], []), (EOS, [ids["<img>"], *plain.queries, ids["</img>"]])):
        hidden = plain.hidden([*written, *more], picture()[None])[-1]
        head[token] = hidden * (plain.logits(hidden).max() + margin) / hidden.square().sum()


def picture(seed=0):
    return torch.randn(SIZES.features, SIZES.feature_dim, generator=torch.Generator().manual_seed(seed))


def plain_story(agent, tokenizer, caption, image, pages):
    """The loop of the script: texts and features of the pages after the opening."""
    names = {id: name for name, id in agent.ids.items()}

    def decode(ids):
        text, run = "", []
        for id in [*ids, None]:
            if id in names or id in (None, 1, EOS):
                text += tokenizer.pieces.decode(run) + names.get(id, "" if id is None else "</s>")
                run = []
            else:
                run.append(id)
        return text

    prompt, images, written = caption + IMAGE, [image], []
    for _ in range(pages - 1):
        ids, features = agent.generate([1, *tokenizer.encode(prompt)], images, MOST, EOS)
        text = re.sub(r"\s*<[^>]*>\s*", " ", decode(ids)).strip()
        if features is None:
            break
        written.append((ids, text, features))
        images.append(features)
        prompt += text + IMAGE
        while len(images) > WINDOW:
            prompt = prompt[prompt.index("</img>") + len("</img>") + len("[INST]") :]
            images = images[1:]
    return written


@pytest.fixture
def engine(made, monkeypatch):
    """Ours, with a window of 2 pictures and 40 tokens a page, and the ids that it writes in their order."""
    monkeypatch.setattr("seedstory.generation.reference.WINDOW_IMAGES", WINDOW)
    monkeypatch.setattr("seedstory.generation.reference.MAX_NEW_TOKENS", MOST)
    model = StoryModel.from_pretrained(made[0] / "story_model", dtype=torch.float32)
    return Recorded(model)


class Recorded(ReferenceEngine):
    """Keeps the ids of each page."""

    def _generate(self, *arguments):
        ids, features = super()._generate(*arguments)
        self.written = [*getattr(self, "written", []), ids]
        return ids, features


def in_released_order(model, ids):
    names = model.layout.tokenizer.convert_ids_to_tokens(ids)
    return [WORDS + IMAGE_TOKENS.index(name) if name in IMAGE_TOKENS else id for name, id in zip(names, ids)]


@pytest.mark.parametrize("seed", [0, 6])
def test_tokens_and_features_are_those_of_the_script(made, engine, seed):
    _, agent, tokenizer = made
    expected = plain_story(agent, tokenizer, OPENING, picture(seed), 5)
    assert len(expected) > WINDOW  # pictures have left
    engine.start([GivenPage(OPENING, picture(seed))], pages=len(expected) + 1)
    pages = list(engine.pages())[1:]
    assert [in_released_order(engine.model, ids) for ids in engine.written] == [ids for ids, _, _ in expected]
    assert [page.prompt for page in pages] == [text for _, text, _ in expected]
    for page, (_, _, features) in zip(pages, expected, strict=True):
        torch.testing.assert_close(page.features, features, rtol=0, atol=1e-5)


def test_visual_tokens_of_score_0_win_where_all_others_score_less(made, engine):
    _, agent, tokenizer = made
    prompt = [1, *tokenizer.encode(OPENING + IMAGE)]
    hidden = agent.hidden(prompt, picture()[None])[-1]
    head, model = agent.weights["llm.base_model.model.lm_head.weight"], engine.model
    before = head.clone()
    try:
        with torch.no_grad():
            less = 9 * hidden / hidden.square().sum()
            head -= less
            model.llm.get_output_embeddings().weight -= less
            model.image_start_head -= less
        [(ids, text, features)] = plain_story(agent, tokenizer, OPENING, picture(), 2)
        engine.start([GivenPage(OPENING, picture())], pages=2)
        page = list(engine.pages())[1]
    finally:
        head.copy_(before)
    assert ids[0] == agent.queries[0] and in_released_order(model, engine.written[0]) == ids
    torch.testing.assert_close(page.features, features, rtol=0, atol=1e-5)


def test_a_story_ends_where_the_model_ends_it(made, engine):
    agent, tokenizer = made[1:]
    shorter = len(plain_story(agent, tokenizer, OPENING, picture(2), 5))
    engine.start_batch([StoryRequest([GivenPage(OPENING, picture(seed))], pages=4) for seed in (0, 2)])
    pages = list(engine.pages())
    assert [sum(page.story == story for page in pages) for story in (0, 1)] == [4, shorter + 1] and shorter < 3
    assert engine.stories == []


def test_a_story_that_is_resumed_is_the_one_of_one_go(engine):
    engine.start([GivenPage(OPENING, picture())], pages=5)
    whole = list(engine.pages())
    for done in (2, 4):
        engine.start([page.as_opening() for page in whole[:done]], pages=5)
        again = list(engine.pages())
        assert [page.prompt for page in again] == [page.prompt for page in whole]
        assert all(torch.equal(one.features, two.features) for one, two in zip(again, whole))


def test_given_words_get_the_picture_that_the_script_would_draw_from_them(made, engine):
    _, agent, tokenizer = made
    engine.start([GivenPage(OPENING, picture()), GivenPage("Bruno laughed!")], pages=2)
    drawn = list(engine.pages())[1].features
    hidden = agent.hidden([1, *tokenizer.encode(f"{OPENING}{IMAGE}[INST]Bruno laughed!{IMAGE}")], picture()[None])
    torch.testing.assert_close(drawn, agent.features(hidden[-SIZES.visual_tokens - 1 : -1]), rtol=0, atol=1e-5)


def test_a_cut_through_an_image_is_said(engine):
    opening = [GivenPage(text, picture(seed), prompt=text) for seed, text in enumerate((OPENING, "fo", "fox", "x"))]
    engine.start(opening, pages=5)
    with pytest.raises(RequestError, match="cut its prompt inside an image"):
        list(engine.pages())


def test_what_a_script_does_not_know_is_refused(pipe, engine):
    with pytest.raises(RequestError, match="not trained with SEED-Story's prompt"):
        ReferenceEngine(tiny_model())
    with pytest.raises(RequestError, match="Reference knows no story state"):
        engine.start_batch([StoryRequest([GivenPage("a")], 3, state_pages=(1,))])
    with pytest.raises(RequestError, match="Reference has no static decoding"):
        ReferenceEngine(engine.model, decoding="static")
    for name, value in {"temperature": 0.9, "policy": "dense", "captions": ["a"] * 9, "cast": {"Mia": "fox"}}.items():
        with pytest.raises(RequestError, match=f"leave {name} out"):
            pipe("The fox.", reference=True, **{name: value})


@pytest.fixture(scope="module")
def pipe(made):
    return StoryPipeline.from_pretrained(made[0], dtype=torch.float32, device="cpu", decoding="eager")


DRAWING = {"num_inference_steps": 2, "guidance_scale": 2.0, "reference": True}
GOES_ON = ("Bruno laughed!", Image.new("RGB", (40, 24), (168, 8, 248)))  # openings that this model follows, or ends
ENDS = ("Bruno laughed!", Image.new("RGB", (40, 24), (115, 167, 217)))


def test_the_pipeline_stretches_the_image_and_draws_every_page_from_seed_42(pipe, engine, tmp_path):
    noise = Image.effect_noise((40, 24), 90).convert("RGB")
    [page] = pipe(OPENING, noise, pages=1, output_type="features", reference=True).story.pages
    with torch.no_grad():
        squashed = image_to_tensor(noise.resize((32, 32), Image.Resampling.BILINEAR))[None]
        torch.testing.assert_close(page.features, pipe.vision_tower(squashed)[0])
    story = pipe(*GOES_ON, pages=3, **DRAWING).story
    assert [page.seed for page in story.pages] == [42] * 3 and story.settings.reference
    [image] = pipe.detokenizer(story.pages[2].features[None], [torch.Generator().manual_seed(42)], 2, 2.0)
    assert image.tobytes() == story.pages[2].image.tobytes()


def test_a_story_folder_is_resumed_to_the_same_story(pipe, engine, tmp_path):
    pipe(*GOES_ON, pages=3, out=tmp_path / "whole", **DRAWING)
    begun = pipe.stream(*GOES_ON, pages=3, out=tmp_path / "begun", **DRAWING)
    for _ in range(2):
        next(begun)
    begun.close()
    list(pipe.resume(tmp_path / "begun"))
    with StoryBatch(pipe) as batch:
        batch.add(text=GOES_ON[0], image=GOES_ON[1], pages=3, out=tmp_path / "batch", **DRAWING)
        while batch:
            batch.step()
    whole, *others = (Story.load(tmp_path / name).pages for name in ("whole", "begun", "batch"))
    for one, two in ((one, two) for pages in others for one, two in zip(pages, whole, strict=True)):
        assert (one.caption, one.prompt, one.seed) == (two.caption, two.prompt, two.seed)
        assert torch.equal(one.features, two.features) and one.image.tobytes() == two.image.tobytes()


def test_a_story_that_the_model_ends_is_kept_as_it_is(pipe, engine, tmp_path):
    assert len(pipe(*ENDS, pages=3, out=tmp_path / "alone", **DRAWING).story.pages) == 1
    assert list(pipe.resume(tmp_path / "alone")) == []
    with StoryBatch(pipe) as batch:
        first = batch.add(text=ENDS[0], image=ENDS[1], pages=3, out=tmp_path / "batch", **DRAWING)
        batch.add(text=GOES_ON[0], image=GOES_ON[1], pages=2, out=tmp_path / "other", **DRAWING)
        pages = []
        while batch:
            pages += batch.step()
    assert [page.number for number, page in pages if number == first] == [1] and len(pages) == 3


def test_the_command_writes_whole_stories_in_both_ways(made, engine, tmp_path):
    GOES_ON[1].resize((120, 80)).save(tmp_path / "start.png")
    options = ["--text", GOES_ON[0], "--image", tmp_path / "start.png", "--pages", 3, "--model", made[0]]
    drawing = ["--steps", 2, "--guidance", 2, "--decoding", "eager"]
    for name, more in (("corrected", ["--max-caption-tokens", 8]), ("reference", ["--reference"])):
        command = ["generate", *options, *drawing, *more, "--out", tmp_path / name]
        result = CliRunner().invoke(app, list(map(str, command)))
        assert result.exit_code == 0 and (tmp_path / name / "index.html").stat().st_size > 10_000, result.output
        story = Story.load(tmp_path / name)
        assert story.settings.reference == (name == "reference") and (name == "reference" or len(story.pages) == 3)
        assert all(page.image.size == (16, 16) and page.features.isfinite().all() for page in story.pages)
        assert all("[INST]" not in page.caption for page in story.pages)
    refused = CliRunner().invoke(app, ["generate", *map(str, options), "--reference", "--temperature", "1"])
    assert refused.exit_code != 0 and not (tmp_path / "stories").exists()
