"""Fixtures: the tiny language model, and a tiny pipeline for each module."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seedstory.layout import StoryLayout
from seedstory.modeling import StoryModel
from seedstory.pipeline import StoryPipeline
from tests.seedstory.tiny_language import SENTENCES, tiny_model
from tests.tiny import tiny_model_folder


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny model, whose base language model lies beside it."""
    return tiny_model_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pipe(folder) -> StoryPipeline:
    """The tiny model of `folder`."""
    return StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """A folder for the stories of a server."""
    return tmp_path_factory.mktemp("library")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.seedstory.app_pages import open_browser

    with open_browser() as running:
        yield running


@pytest.fixture
def app(request, browser, pipe, tmp_path) -> Iterator[Any]:
    """The app of a server with no stories; its parameters are settings of the server."""
    from tests.seedstory.app_pages import open_app

    with open_app(browser, pipe, tmp_path / "stories", **getattr(request, "param", {})) as made:
        yield made
