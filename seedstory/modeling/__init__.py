"""Networks of the language half: the story model, its resamplers and its base language model."""

from seedstory.modeling.base_lm import base_lm_folder
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.story_model import StoryModel, StoryModelOutput
from seedstory.resampler import InputResampler, OutputResampler

__all__ = ["InputResampler", "OutputResampler", "StoryConfig", "StoryModel", "StoryModelOutput", "base_lm_folder"]
