"""The page loop that writes a story as captions and picture features."""

from seedstory.generation.engine import StoryEngine
from seedstory.generation.pages import OpeningPage, PageDraft, StoryStart
from seedstory.generation.sampling import CaptionSampler, SamplingConfig

__all__ = ["CaptionSampler", "OpeningPage", "PageDraft", "SamplingConfig", "StoryEngine", "StoryStart"]
