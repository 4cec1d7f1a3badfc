"""seedstory: illustrated stories from a sentence, a picture or both.

    from seedstory import StoryPipeline

    pipeline = StoryPipeline.from_pretrained("mini")
    output = pipeline(text="A small fox finds a lantern.", pages=10, out="stories/fox")

Names below are imported when first used, so that `import seedstory` stays instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "CachePolicy": "seedstory.cache",
    "DataError": "seedstory.errors",
    "Detokenizer": "seedstory.detokenizers.detokenizer",
    "ModelError": "seedstory.errors",
    "ModelIdentity": "seedstory.identity",
    "Page": "seedstory.story",
    "RequestError": "seedstory.errors",
    "SamplingConfig": "seedstory.generation",
    "SeedStoryError": "seedstory.errors",
    "Story": "seedstory.story",
    "StoryBatch": "seedstory.story_batch",
    "StoryConfig": "seedstory.modeling.configuration",
    "StoryEngine": "seedstory.generation",
    "StoryFolder": "seedstory.story",
    "StoryFolderError": "seedstory.errors",
    "StoryModel": "seedstory.modeling.story_model",
    "StoryOutput": "seedstory.outputs",
    "StoryPipeline": "seedstory.pipeline",
    "StorySettings": "seedstory.settings",
    "TextIllustrator": "seedstory.illustrator",
    "VisionTower": "seedstory.modeling.vision_tower",
    "load_image": "seedstory.image",
    "write_html": "seedstory.export.html",
}

__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from seedstory.cache import CachePolicy
    from seedstory.detokenizers.detokenizer import Detokenizer
    from seedstory.errors import DataError, ModelError, RequestError, SeedStoryError, StoryFolderError
    from seedstory.export.html import write_html
    from seedstory.generation import SamplingConfig, StoryEngine
    from seedstory.identity import ModelIdentity
    from seedstory.illustrator import TextIllustrator
    from seedstory.image import load_image
    from seedstory.modeling.configuration import StoryConfig
    from seedstory.modeling.story_model import StoryModel
    from seedstory.modeling.vision_tower import VisionTower
    from seedstory.outputs import StoryOutput
    from seedstory.pipeline import StoryPipeline
    from seedstory.settings import StorySettings
    from seedstory.story import Page, Story, StoryFolder
    from seedstory.story_batch import StoryBatch


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seedstory' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
