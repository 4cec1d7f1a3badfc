"""The embedded model, as a user meets it: it loads, tells, and repeats itself when asked with the same seed."""

import numpy as np
import pytest
from PIL import Image

from seedstory.pipeline import StoryPipeline

OPENING = "One sunny morning in the meadow, there was a small fox named Mia in a red coat and a straw hat. She smiled."


@pytest.fixture(scope="module")
def mini():
    return StoryPipeline.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def story(mini):
    return mini(text=OPENING, pages=2, seed=1)


def test_two_pages_with_words_and_images(story):
    first, second = story.pages
    assert first.caption == OPENING
    assert len(second.caption.split()) >= 5 and second.caption[-1] in '.!?"'
    for page in story.pages:
        assert page.image.size == (256, 256)
        assert np.asarray(page.image).std() > 20, "a blank picture"


def test_same_seed_same_story(mini, story):
    again = mini(text=OPENING, pages=2, seed=1)
    assert [page.caption for page in again.pages] == [page.caption for page in story.pages]
    for one, other in zip(again.pages, story.pages, strict=True):
        assert one.image.tobytes() == other.image.tobytes()


def test_an_image_alone_opens_a_story(mini):
    gradient = np.linspace(0, 255, 200 * 300 * 3).reshape(200, 300, 3).astype(np.uint8)
    story = mini(image=Image.fromarray(gradient), pages=2, seed=2)
    assert story.pages[0].caption == "" and story.pages[1].caption


def test_images_come_back_from_their_own_tokens(mini):
    pytest.importorskip("resvg_py")
    from data_tools.paper_theatre.loose import single_page
    from data_tools.paper_theatre.render import render
    from seedstory.image import image_to_tensor

    scenes = [single_page(seed, "heldout").scene for seed in range(900_000, 900_100)]
    by_layout = {scene.layout: scene for scene in scenes}
    assert len(by_layout) >= 4, "middle, near, wide and two places at least"
    for layout, scene in by_layout.items():
        image = image_to_tensor(render(scene)).unsqueeze(0)
        large = image_to_tensor(render(scene, mini.image_size)).unsqueeze(0)
        drawn = mini.detokenizer(mini.vision_tower(image), output_type="pt") * 2 - 1
        noise = -10 * ((drawn - large) / 2).square().mean().log10()
        assert noise > 23, f"{layout}: {noise:.1f} dB"
