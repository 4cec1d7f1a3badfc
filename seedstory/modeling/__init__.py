"""Networks of the language half: the story model, its resamplers and its base language model."""

from seedstory.modeling.base_lm import base_lm_folder
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.resampler import InputResampler, OutputResampler
from seedstory.modeling.story_model import StoryModel, StoryModelOutput

__all__ = ["InputResampler", "OutputResampler", "StoryConfig", "StoryModel", "StoryModelOutput", "base_lm_folder"]
