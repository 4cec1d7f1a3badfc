"""Pages drawn from words: what an image depends on, and what it does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from seedstory.errors import ModelError, RequestError
from seedstory.illustrator import IllustratorSettings, TextIllustrator
from seedstory.page import page_seed
from seedstory.prompt_script import read_characters, read_prompts
from tests.tiny_stable_diffusion import tiny_stable_diffusion

CAST = read_characters("[Mia] a fox in a red coat\n[Tom] a cat")
PAGES = read_prompts("[Mia] finds a key\n[Tom] meets [Mia] # Hello!\nrain [NC]", CAST)
QUICK = IllustratorSettings(num_inference_steps=3, seed=7, style="ink")


@pytest.fixture(scope="module")
def pipe():
    return tiny_stable_diffusion()


def illustrator(pipe, **changes):
    return TextIllustrator(pipe, CAST, replace(QUICK, **changes))


def difference(one, other):
    return int(np.abs(np.int16(one) - np.int16(other)).max())


@pytest.fixture(scope="module")
def drawn(pipe):
    return list(illustrator(pipe)(PAGES))


def test_a_page_is_the_same_alone_in_a_batch_and_in_any_order(pipe, drawn):
    together = list(illustrator(pipe)(PAGES, batch_size=3))
    assert [difference(*pair) <= 1 for pair in zip(together, drawn, strict=True)] == [True] * 3
    last_first = illustrator(pipe)
    alone = [next(last_first([PAGES[index]], first=index)) for index in (2, 1, 0)]
    assert [difference(*pair) for pair in zip(reversed(alone), drawn, strict=True)] == [0, 0, 0]


def test_pages_see_the_portraits_of_who_is_on_them(pipe, drawn):
    plain = list(illustrator(pipe, portraits=0)(PAGES))
    assert difference(plain[2], drawn[2]) == 0 and min(difference(plain[i], drawn[i]) for i in (0, 1)) > 0
    other = TextIllustrator(pipe, {**CAST, "Tom": "a red fox"}, QUICK)
    images = list(other(PAGES))
    assert difference(images[0], drawn[0]) == 0 and difference(images[1], drawn[1]) > 0
    assert [len(other.portraits_of(name)) for name in CAST] == [2, 2]
    assert other.portraits["Tom"][0].prompt == "a red fox, full body, plain background"
    more = list(illustrator(pipe, portraits=1)(PAGES))
    assert difference(more[0], drawn[0]) > 0


def test_without_portraits_it_is_the_pipeline_itself(pipe):
    (page,) = illustrator(pipe, portraits=0, negative_prompt="blur", style="{prompt}, in ink")(PAGES[:1])
    expected = pipe(
        "a fox in a red coat finds a key, in ink", negative_prompt="blur", num_inference_steps=3, guidance_scale=5.0,
        generator=torch.Generator().manual_seed(page_seed(7, 0)),
    ).images[0]  # fmt: skip
    assert difference(page, expected) == 0


def test_the_same_noise_is_a_choice(pipe, drawn):
    page = read_prompts("rain", CAST) * 2
    same = list(illustrator(pipe, same_noise=True)(page))
    assert difference(*same) == 0 and difference(*illustrator(pipe)(page)) > 0


def test_it_is_loaded_from_a_folder_of_diffusers(pipe, drawn, tmp_path):
    pipe.save_pretrained(tmp_path / "sd")
    loaded = TextIllustrator.from_pretrained(tmp_path / "sd", device="cpu", cast=CAST, settings=QUICK)
    assert difference(next(loaded(PAGES)), drawn[0]) == 0
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError, match="cannot load a pipeline of diffusers"):
        TextIllustrator.from_pretrained(tmp_path / "none", device="cpu")


def test_what_is_wrong_is_said_before_anything_is_drawn(pipe):
    with pytest.raises(RequestError, match="the cast has no 'Tom'"):
        next(TextIllustrator(pipe, {"Mia": "a fox"}, QUICK)(PAGES))
    with pytest.raises(ModelError, match="has no U-Net"):
        TextIllustrator(torch.nn.Identity())
    for wrong, words in {
        "width": 100,
        "height": 0,
        "portraits": 9,
        "portrait": "a figure",
        "guidance_scale": -1,
    }.items():
        with pytest.raises(RequestError, match=wrong if wrong != "portrait" else "the prompt of a portrait"):
            replace(QUICK, **{wrong: words})
