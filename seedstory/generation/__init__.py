"""The page loop that writes a story as captions and picture features."""

from seedstory.generation.engine import StoryEngine
from seedstory.generation.pages import GivenPage, PageDraft, StoryRequest
from seedstory.generation.sampling import CaptionSampler, SamplingConfig

__all__ = ["CaptionSampler", "GivenPage", "PageDraft", "SamplingConfig", "StoryEngine", "StoryRequest"]
