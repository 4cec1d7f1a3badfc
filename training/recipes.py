"""What a kind of data set may add to the stages: a recipe reads its ground truth, which the stages know nothing of.

A recipe is chosen by configuration (`recipe: theatre`, `recipe_settings: {...}`). Without one (`recipe: null`) the
stages train on images and captions alone. `Recipe` is all that they ever ask of it: its methods do nothing here, so
that it is both the interface and the empty recipe.

To add one, write a class with these methods and a dataclass of its settings, and enter it in `RECIPES`.

Shape legend: `P` pages with a query branch, `N` visual tokens of an image, `D` hidden width, `K` numbers of a page,
`G` side of a weight map.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from seedstory.storystream import StoryRecord
from training.config import RunConfig, fill

if TYPE_CHECKING:
    from seedstory.modeling.story_model import StoryModel, StoryModelOutput

RECIPES = {"theatre": ("training.theatre.recipe", "TheatreRecipe", "TheatreSettings")}


class Recipe(Protocol):
    """What the stages ask of a recipe. Each method has an answer for data sets that know nothing of the kind.

    `region_weights` is for the stages that see pixels, `prompt` for those that draw from words, `names` for the choice
    of a sample's pages, the rest for stage 2.
    """

    def region_weights(self, truth: dict[str, Any], size: tuple[int, int], grid: int) -> Tensor | None:
        """How much each region of an image counts in losses of pixels.

        Args:
            truth: ground truth of the page, as in `StoryRecord.pages`.
            size: width and height of the image in px; the stages see its center square.
            grid: `G`, side of the map that is laid over the center square.

        Returns:
            `[G, G]`; None if all regions count alike.
        """
        return None

    def names(self, truth: dict[str, Any]) -> set[str] | None:
        """Names of who is on a page; None if its ground truth does not say so in a way of this recipe."""
        return None

    def prompt(self, caption: str, truth: dict[str, Any], draw: random.Random) -> str:
        """What a model that draws from words is to read for a page.

        Args:
            caption: of the page.
            truth: as in `region_weights`.
            draw: all that is random about it.
        """
        return caption

    @property
    def sources(self) -> Sequence[Path]:
        """Files of earlier stages that a run has to find unchanged when it goes on."""
        return ()

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Names and weights of the recipe's losses of visual tokens; empty if it has none, and no rows of pages."""
        return {}

    def prepare(self, model: StoryModel, fresh: bool) -> None:
        """Take what the recipe needs of a story model before its training, and change what it starts from.

        Args:
            model: on the CPU.
            fresh: whether its trained weights are as they were drawn, not those of an earlier run.

        Raises:
            ValueError: the recipe does not fit the model, or files of an earlier stage are missing.
        """
        return

    def check(self, record: StoryRecord) -> None:
        """See that a record has the ground truth that `page_rows` needs.

        Raises:
            ValueError: it has not.
        """
        return

    def page_rows(self, record: StoryRecord) -> Tensor:
        """What the losses need to know of each page of a story, int64 `[pages, K]`."""
        raise AssertionError("asked of recipes with loss_weights only")

    def losses(self, output: StoryModelOutput, hidden: Tensor, context: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Means over pages of the losses that `loss_weights` names.

        Args:
            output: of the story model.
            hidden: its states at the query tokens, `[P, N, D]`.
            context: the embeddings by which it reads the pictures of the same pages, `[P, N, D]`.
            rows: of the same pages, from `page_rows`, `[P, K]`.
        """
        raise AssertionError("asked of recipes with loss_weights only")

    def trains_features(self, progress: float) -> bool:
        """Whether the features' own loss counts at this share of the run, beside the recipe's."""
        return True

    def count_right(self, hidden: Tensor, context: Tensor, rows: Tensor) -> dict[str, tuple[int, int]]:
        """For each held-out figure, how many answers are right and how many were asked; arguments as in `losses`."""
        return {}


class NoRecipe(Recipe):
    """The recipe of data sets without ground truth."""


@dataclass(kw_only=True)
class RecipeConfig(RunConfig):
    """What the stages share that a recipe may add to.

    Attributes:
        recipe: what reads the data set's ground truth ("theatre"; null: nothing, it is not used).
        recipe_settings: settings of the recipe, a mapping; on the command line `recipe_settings.NAME=VALUE`.
    """

    recipe: str | None = None
    recipe_settings: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        make_recipe(self.recipe, self.recipe_settings)


def recipe_settings_kind(name: str) -> type:
    """The dataclass of a recipe's settings."""
    module, _, settings = RECIPES[name]
    return getattr(import_module(module), settings)


def make_recipe(name: str | None, settings: dict[str, Any] | None = None) -> Recipe:
    """A recipe by its name.

    Raises:
        ValueError: there is no such recipe, or one of its settings is wrong.
    """
    if name is None:
        if settings:
            raise ValueError("recipe_settings are given, but no recipe: set recipe, or leave them out")
        return NoRecipe()
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, or null, not {name!r}")
    if settings is not None and not isinstance(settings, dict):
        raise ValueError(f"recipe_settings must be a mapping, not {settings!r}")
    module, kind, _ = RECIPES[name]
    recipe: Recipe = getattr(import_module(module), kind)(
        fill(recipe_settings_kind(name), settings or {}, "recipe_settings")
    )
    return recipe
