"""Keys and values of a story, and which of them are kept when the story grows."""

from seedstory.cache.kept_tokens import KeptTokens
from seedstory.cache.policy import CachePolicy, PageSpan
from seedstory.cache.rotation import KeyRotation
from seedstory.cache.story_cache import StoryCache

__all__ = ["CachePolicy", "KeyRotation", "KeptTokens", "PageSpan", "StoryCache"]
