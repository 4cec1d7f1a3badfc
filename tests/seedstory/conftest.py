"""Fixtures of the language half."""

import pytest

from seedstory.layout import StoryLayout
from seedstory.modeling import StoryModel
from tests.seedstory.tiny_language import SENTENCES, tiny_model


@pytest.fixture(scope="session")
def model() -> StoryModel:
    """The tiny model; tests do not change it."""
    return tiny_model()


@pytest.fixture(scope="session")
def layout(model) -> StoryLayout:
    return model.layout


@pytest.fixture(scope="session")
def captions() -> list[str]:
    return [*SENTENCES, "The end."]
