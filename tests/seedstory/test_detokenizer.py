"""The de-tokenizer as users call it: noise from one generator or from one for each picture."""

import numpy as np
import pytest
import torch

from tests.tiny import tiny_detokenizer


@pytest.fixture(scope="module")
def detokenizer():
    torch.manual_seed(0)
    return tiny_detokenizer()


@pytest.fixture(scope="module")
def features():
    return torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(1))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_an_image_with_its_own_generator_is_the_one_drawn_alone(detokenizer, features):
    batched = detokenizer(features, generators(5, 6, 7), output_type="latent")
    alone = [detokenizer(features[i : i + 1], generators(5 + i)[0], output_type="latent") for i in range(3)]
    torch.testing.assert_close(batched, torch.cat(alone), rtol=0, atol=1e-5)
    images = detokenizer(features, generators(5, 6, 7))
    for i, image in enumerate(images):
        (single,) = detokenizer(features[i : i + 1], generators(5 + i))
        assert np.abs(np.asarray(image, int) - np.asarray(single, int)).max() <= 1


def test_one_generator_serves_all_images(detokenizer, features):
    (used,), (expected,) = generators(5), generators(5)
    detokenizer(features, used, num_inference_steps=1)
    torch.randn(3, 4, 6, 6, generator=expected)
    assert torch.equal(used.get_state(), expected.get_state())


@pytest.mark.parametrize("count", [0, 2, 4])
def test_generators_must_be_as_many_as_images(detokenizer, features, count):
    with pytest.raises(ValueError, match=f"{count} generators for 3 pictures"):
        detokenizer(features, generators(*range(count)))
