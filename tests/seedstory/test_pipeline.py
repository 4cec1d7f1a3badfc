"""The pipeline with a tiny random model: openings, exact resume, and nothing left behind by a failure."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from seedstory.identity import fingerprint
from seedstory.model_folder import find_model
from seedstory.modeling.story_model import StoryModel
from seedstory.pipeline import StoryPipeline
from seedstory.story import Page, Story, StoryFolder, page_seed
from tests.tiny import SIDE, tiny_model_folder, tiny_pipeline

TEXT = "The fox found a lantern near the mill."
QUICK = {"num_inference_steps": 1}


@pytest.fixture
def photo():
    noise = np.random.default_rng(0).integers(0, 255, (70, 100, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def same(one: Page, other: Page) -> bool:
    return (
        (one.index, one.caption, one.seed, one.state) == (other.index, other.caption, other.seed, other.state)
        and torch.equal(one.features, other.features)
        and np.array_equal(np.asarray(one.image), np.asarray(other.image))
    )


def contents(path) -> dict:
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_a_story_from_text(pipe, tmp_path):
    seen = []
    story = pipe(TEXT, pages=4, seed=3, out=tmp_path / "s", callback_on_page=seen.append, **QUICK)
    assert story.title == "The fox found a lantern near the mill" and story.pages == seen
    assert [page.state for page in story.pages] == ["opening", "illustrated", "illustrated", "illustrated"]
    assert story.pages[0].caption == TEXT and all(page.caption for page in story.pages)
    for index, page in enumerate(story.pages):
        assert page.index == index and page.seed == page_seed(3, index)
        assert (
            page.image.size == (SIDE, SIDE) and page.features.shape == (9, 6) and page.features.dtype == torch.float32
        )
    loaded = Story.load(tmp_path / "s")
    assert loaded.title == story.title and loaded.settings == story.story.settings and loaded.model == story.story.model
    assert all(map(same, loaded.pages, story.pages))
    assert loaded.model.fingerprint == pipe.identity.fingerprint and loaded.versions["torch"]


def test_seed_decides_everything(pipe):
    first, again, other = (pipe(TEXT, pages=3, seed=seed, **QUICK) for seed in (1, 1, 2))
    assert all(map(same, first.pages, again.pages))
    assert other.pages[1].caption != first.pages[1].caption
    draw = [pipe(TEXT, pages=2, generator=torch.Generator().manual_seed(5), **QUICK) for _ in range(2)]
    assert draw[0].story.settings.seed == draw[1].story.settings.seed and all(map(same, draw[0].pages, draw[1].pages))


def test_an_image_opens_the_story(pipe, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    for text in (None, TEXT):
        story = pipe(text, tmp_path / "photo.png", pages=3, **QUICK)
        assert story.pages[0].caption == (text or "") and story.pages[0].state == "opening"
        assert story.pages[0].image.size == (SIDE, SIDE) and story.story.settings.image_name == "photo.png"
        expected = photo.crop((15, 0, 85, 70)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        assert np.array_equal(np.asarray(story.pages[0].image), np.asarray(expected))
    alone = pipe(image=photo, pages=2, out=tmp_path / "s", **QUICK)
    assert alone.title == StoryFolder.open(tmp_path / "s").title != "A story"


def test_the_image_matters_to_what_follows(pipe, photo):
    other = Image.new("RGB", (64, 64), "orange")
    one, two = (pipe(TEXT, image, pages=2, **QUICK).pages[1] for image in (photo, other))
    assert one.caption != two.caption or not torch.equal(one.features, two.features)


@pytest.mark.parametrize(
    ("policy", "given", "stop"), [("mm_sink", "text", 10), ("mm_sink", "picture", 1), ("recompute", "text", 9)]
)
def test_resumed_equals_uninterrupted(pipe, photo, tmp_path, policy, given, stop):
    opening = {"text": TEXT} if given == "text" else {"image": photo}
    request = {**opening, "pages": 11, "policy": policy, "title": "T", **QUICK}  # the cache evicts from page 10 on
    pipe(**request, out=tmp_path / "whole")
    stream = pipe.stream(**request, out=tmp_path / "cut")
    for _ in range(stop):
        next(stream)
    stream.close()
    assert len(StoryFolder.open(tmp_path / "cut")) == stop
    new = list(pipe.resume(tmp_path / "cut"))
    assert [page.index for page in new] == list(range(stop, 11))
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_story_written_first_is_drawn_later(pipe, tmp_path):
    request = {"text": TEXT, "pages": 3, "title": "T", **QUICK}
    story = pipe(**request, out=tmp_path / "late", output_type="features")
    assert [page.state for page in story.pages] == ["opening", "written", "written"]
    assert all(page.image is None for page in story.pages)
    assert len(list(pipe.resume(tmp_path / "late"))) == 3
    pipe(**request, out=tmp_path / "once")
    assert contents(tmp_path / "late") == contents(tmp_path / "once")


def test_the_users_own_words(pipe, tmp_path):
    script = ["“Is it a star?”", "No, it is the moon."]
    story = pipe(TEXT, pages=3, captions=script, out=tmp_path / "s", **QUICK)
    assert [page.caption for page in story.pages] == [TEXT, *script]
    stream = pipe.stream(TEXT, pages=3, captions=script, out=tmp_path / "cut", **QUICK)
    next(stream)
    stream.close()
    list(pipe.resume(tmp_path / "cut"))
    assert contents(tmp_path / "cut") == contents(tmp_path / "s")


def test_words_are_shown_while_they_come(pipe):
    seen: dict[int, list[str]] = {}
    story = pipe(TEXT, pages=2, callback_on_text=lambda index, text: seen.setdefault(index, []).append(text), **QUICK)
    assert list(seen) == [1] and len(seen[1]) > 1
    assert seen[1][-1].startswith(story.pages[1].caption)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "opening"),
        ({"text": "A fox <img> here."}, "special tokens"),
        ({"text": TEXT, "pages": 2, "captions": ["the </img> end"]}, "special tokens"),
        ({"text": TEXT, "output_type": "latent"}, "output_type"),
        ({"text": TEXT, "policy": "magic"}, "policy"),
        ({"text": TEXT, "image": "none.png"}, "no file"),
        ({"text": TEXT, "out": "here/story.txt"}, "is a file"),
    ],
)
def test_bad_requests_are_refused_at_once(pipe, tmp_path, monkeypatch, request_, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/story.txt").touch()
    with pytest.raises(ValueError, match=message):
        pipe.stream(**request_)  # before the first page is asked for
    assert set(contents(tmp_path)) == {"here/story.txt"}


def test_an_older_story_goes_only_when_the_new_one_has_a_page(pipe, tmp_path):
    pipe(TEXT, pages=2, out=tmp_path / "s", **QUICK)
    stream = pipe.stream("Another day.", pages=2, out=tmp_path / "s", overwrite=True, **QUICK)
    assert StoryFolder.open(tmp_path / "s").page(0).caption == TEXT
    next(stream)
    assert len(StoryFolder.open(tmp_path / "s")) == 1
    with pytest.raises(ValueError, match="being written"):
        pipe(TEXT, out=tmp_path / "s")
    stream.close()
    with pytest.raises(ValueError, match="resume"):
        pipe(TEXT, out=tmp_path / "s")


def test_resume_refuses_another_model(pipe, tmp_path):
    pipe(TEXT, pages=2, out=tmp_path / "s", **QUICK)
    record = json.loads((tmp_path / "s/story.json").read_text())
    record["model"]["fingerprint"] = "0" * 64
    (tmp_path / "s/story.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="load the model that began it"):
        pipe.resume(tmp_path / "s")


def test_save_and_load_round_trip(pipe, folder, tmp_path):
    base = folder.parent / "base"
    assert fingerprint(folder, base) == pipe.identity.fingerprint
    pipe.save_pretrained(tmp_path / "copy")
    assert fingerprint(tmp_path / "copy", base) == pipe.identity.fingerprint
    weights = tmp_path / "copy/story_model/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert fingerprint(tmp_path / "copy", base) != pipe.identity.fingerprint


def test_find_model_says_what_is_wrong(folder, tmp_path):
    assert find_model(folder) == folder
    with pytest.raises(ValueError, match="no model"):
        find_model(tmp_path / "none")
    with pytest.raises(ValueError, match=r"no model_index\.json"):
        find_model(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match="damaged"):
        find_model(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="StableDiffusionPipeline"):
        find_model(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StoryPipeline"}')
    with pytest.raises(ValueError, match="lacks story_model"):
        find_model(tmp_path)


def test_the_front_door_opens_every_name():
    import seedstory

    assert {name for name in seedstory.__all__ if getattr(seedstory, name) is not None} == set(dir(seedstory))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = seedstory.nonsense


def test_stories_written_in_a_batch_are_those_generated_alone(pipe, tmp_path):
    asked = [
        {"text": "The fox found a lantern.", "pages": 4, "seed": 3},
        {"text": "Was it a star?", "pages": 2, "seed": 4},
        {"image": Image.new("RGB", (60, 40), "teal"), "pages": 3, "seed": 5},
    ]
    seen = list(pipe.write_batch([one | {"out": tmp_path / str(number)} for number, one in enumerate(asked)]))
    order = [(2, 0), (0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (0, 2), (2, 2), (0, 3)]
    assert [(number, page.index) for number, page in seen] == order
    for number, one in enumerate(asked):
        folder = StoryFolder.open(tmp_path / str(number))
        alone = pipe(**one)
        assert [page.caption for page in folder.pages] == [page.caption for page in alone.pages]
        for page in pipe.resume(folder):
            assert np.abs(np.int16(page.image) - np.int16(alone.pages[page.index].image)).max() <= 1
        assert all(page.image is not None for page in folder.pages)


def test_stories_written_in_a_batch_must_agree(pipe, tmp_path):
    one = {"text": "A fox.", "out": tmp_path / "a"}
    with pytest.raises(ValueError, match="need a folder each"):
        pipe.write_batch([one, {"text": "A fox."}])
    with pytest.raises(ValueError, match="same settings of the words"):
        pipe.write_batch([one, {"text": "A fox.", "out": tmp_path / "b", "top_k": 5}])
    assert not (tmp_path / "a").exists() and list(pipe.write_batch([])) == []


def test_int8_is_recorded_and_asked_for_again(tmp_path):
    folder = tiny_model_folder(tmp_path)
    small = StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu", int8=True)
    generated = list(small.stream("A fox.", pages=3, seed=1, out=tmp_path / "story"))
    story = StoryFolder.open(tmp_path / "story")
    assert story.model.dtype == "float32, int8" and len(generated) == 3
    with pytest.raises(ValueError, match="load the model that began it"):
        StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu").resume(story)
    with pytest.raises(ValueError, match="unknown decoding 'fast'"):
        StoryPipeline.from_pretrained(folder, decoding="fast")
    small.free_story_model()
    assert [page.caption for page in small("A fox.", pages=3, seed=1).pages] == [page.caption for page in generated]


def test_a_logits_hook_chooses_the_words(pipe):
    (letter,) = pipe.story_model.layout.tokenizer.encode("a", add_special_tokens=False)

    def only_a(page, ids, scores):
        scores[:] = -torch.inf
        scores[letter if len(ids) < 3 + page else -1] = 0.0
        return scores

    pages = pipe("Was it a star?", pages=3, logits_processor=only_a).pages
    assert [page.caption for page in pages[1:]] == ["aaaa", "aaaaa"]


def test_a_story_goes_on_in_the_types_that_it_was_begun_with(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDSTORY_PRECISION", "fp32")
    story = StoryPipeline.from_pretrained(folder, device="cpu")("The fox.", pages=2, out=tmp_path / "s", **QUICK)
    record = StoryFolder.open(tmp_path / "s").model.dtype
    assert len(story.pages) == 2 and record == "float32+bfloat16"
    monkeypatch.setenv("SEEDSTORY_PRECISION", "bf16")
    elsewhere = StoryPipeline.from_pretrained(folder, device="cpu")
    assert elsewhere.identity.dtype == "bfloat16"
    with pytest.raises(ValueError, match="load the model that began it"):
        elsewhere.resume(tmp_path / "s")
    list(StoryPipeline.from_pretrained(folder, device="cpu", story_dtype=record).resume(tmp_path / "s"))
    with pytest.raises(ValueError, match="unknown type of weights"):
        StoryPipeline.from_pretrained(folder, device="cpu", story_dtype="float8")


def test_one_text_is_no_script(pipe):
    with pytest.raises(ValueError, match="captions are a list with a text for each page"):
        pipe(TEXT, captions="ab", pages=3)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_another_base_language_model_is_another_model(tmp_path, name):
    pipe = tiny_pipeline(tmp_path)
    pipe(TEXT, pages=2, out=tmp_path / "s", **QUICK)
    file = tmp_path / "base" / name
    if name == "model.safetensors":
        data = bytearray(file.read_bytes())
        data[-2] ^= 1  # the middle of a number: still finite
        file.write_bytes(bytes(data))
    else:
        content = json.loads(file.read_text("utf-8"))
        if name == "config.json":
            content["rms_norm_eps"] = 1e-4
        else:
            content["post_processor"] = None
            content["truncation"] = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
        file.write_text(json.dumps(content), "utf-8")
    changed = StoryPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32, device="cpu")
    with pytest.raises(ValueError, match="load the model that began it"):
        changed.resume(tmp_path / "s")
    with pytest.raises(ValueError, match="has changed since"):
        pipe.save_pretrained(tmp_path / "copy")


def test_the_library_that_wrote_the_base_does_not_count(tmp_path):
    pipe = tiny_pipeline(tmp_path)
    file = tmp_path / "base/config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"transformers_version": "6.0"}), "utf-8")
    assert fingerprint(tmp_path / "model", tmp_path / "base") == pipe.identity.fingerprint


def test_every_byte_of_a_large_file_counts(tmp_path):
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.truncate(80 * 2**20)
    before = fingerprint(tmp_path)
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.seek(40 * 2**20)
        file.write(b"x")
    assert fingerprint(tmp_path) != before


def test_a_relative_base_starts_at_the_folder_that_names_it(tmp_path, monkeypatch):
    tiny_pipeline(tmp_path)
    file = tmp_path / "model/story_model/config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"base_lm": "../../base"}), "utf-8")
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere/deep")
    pipe = StoryPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32, device="cpu")
    pipe.save_pretrained(tmp_path / "elsewhere/copy")
    again = StoryPipeline.from_pretrained(tmp_path / "elsewhere/copy", dtype=torch.float32, device="cpu")
    assert again(TEXT, pages=2, **QUICK).pages[1].caption == pipe(TEXT, pages=2, **QUICK).pages[1].caption


def test_saving_leaves_no_file_of_an_older_model(pipe, tmp_path):
    (tmp_path / "copy/story_model").mkdir(parents=True)
    (tmp_path / "copy/story_model/merges.txt").write_text("of another tokenizer")
    pipe.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy/story_model/merges.txt").exists()


def test_a_freed_language_model_is_not_loaded_to_read_its_type(tmp_path, monkeypatch):
    pipe = tiny_pipeline(tmp_path)
    pipe(TEXT, pages=2, output_type="features", out=tmp_path / "s", **QUICK)
    pipe.free_story_model()
    monkeypatch.setattr(StoryModel, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded again"))
    assert [page.state for page in pipe.resume(tmp_path / "s")] == ["opening", "illustrated"]


def test_a_title_of_ones_own_stays_and_an_unnamed_story_gets_its_own(pipe, photo, tmp_path):
    pipe(image=photo, pages=1, title="A story", out=tmp_path / "named", **QUICK)
    pipe(image=photo, pages=1, out=tmp_path / "unnamed", **QUICK)
    for name in ("named", "unnamed"):
        record = json.loads((tmp_path / name / "story.json").read_text("utf-8"))
        record["settings"]["pages"] = 2
        (tmp_path / name / "story.json").write_text(json.dumps(record), "utf-8")
        list(pipe.resume(tmp_path / name))
    assert StoryFolder.open(tmp_path / "named").title == "A story"
    assert StoryFolder.open(tmp_path / "unnamed").title not in ("", "A story")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda features: features[:4], "features .4, 6., but this model's are .9, 6."),
        (lambda features: features * float("nan"), "NaN"),
        (lambda features: features.long(), "torch.int64"),
        (lambda features: features.to(torch.complex64), "torch.complex64"),
    ],
)
def test_pages_that_cannot_be_gone_on_from_are_reported_before_anything_is_written(pipe, tmp_path, damage, message):
    from safetensors.torch import load_file, save_file

    pipe(TEXT, pages=3, out=tmp_path / "s", **QUICK)
    record = json.loads((tmp_path / "s/story.json").read_text("utf-8"))
    del record["pages"][2]
    (tmp_path / "s/story.json").write_text(json.dumps(record), "utf-8")
    file = tmp_path / "s/pages/page-002.safetensors"
    save_file({"features": damage(load_file(file)["features"])}, file)
    before = (tmp_path / "s/story.json").read_bytes()
    with pytest.raises(ValueError, match=message) as error:
        list(pipe.resume(tmp_path / "s"))
    assert "page 2" in str(error.value)
    assert "resume" not in str(error.value)
    assert (tmp_path / "s/story.json").read_bytes() == before


def test_a_story_killed_before_its_first_page_is_generated_from_its_settings(pipe, tmp_path):
    whole = pipe(TEXT, pages=2, seed=3, **QUICK)
    StoryFolder.create(
        tmp_path / "s",
        title="",
        settings=whole.story.settings,
        model=whole.story.model,
        versions=whole.story.versions,
    )
    pages = list(pipe.resume(tmp_path / "s"))
    assert [page.caption for page in pages] == [page.caption for page in whole.pages]
    assert [page.image.tobytes() for page in pages] == [page.image.tobytes() for page in whole.pages]


def test_a_caption_beyond_the_context_is_reported_with_the_length_that_fits(pipe):
    with pytest.raises(
        ValueError, match=r"page 2 have [\d,]+ tokens, and [\d,]+ fit: shorten its 3,900 characters to about"
    ):
        pipe.stream(TEXT, pages=2, captions=["\u5c0f\u72d0" * 1950])


@pytest.mark.parametrize(
    ("captions", "given", "language"),
    [
        (["Der Fuchs fand einen goldenen Schl\u00fcssel.", "Er lief in den Wald."], None, "de"),
        (["Le renard a trouv\u00e9 une cl\u00e9 dans la for\u00eat.", "Il est rentr\u00e9 chez lui."], None, "fr"),
        (["Hm.", "Oh."], None, ""),
        (["Hm.", "Oh."], "pt-BR", "pt-BR"),
        (None, None, "en"),
    ],
)
def test_the_language_of_a_book(pipe, tmp_path, captions, given, language):
    opening = {"text": None, "image": Image.new("RGB", (64, 64), "red")}
    story = pipe(**opening, captions=captions, language=given, pages=3, out=tmp_path / "s", **QUICK)
    assert story.story.language == StoryFolder.open(tmp_path / "s").language == language
    with pytest.raises(ValueError, match="must be a tag"):
        pipe.stream(TEXT, language='de" onload="')
