"""Configurations: unknown keys, overrides, and every file of configs/."""

from pathlib import Path

import pytest

from training.adapt import AdaptConfig
from training.autoencoder import AutoencoderConfig
from training.config import load_config
from training.detokenizer import DetokenizerConfig
from training.mllm import MllmConfig
from training.recipes import make_recipe
from training.text_to_image import TextToImageConfig
from training.theatre.reading import ReadingConfig
from training.theatre.scenes import ScenesConfig
from training.visual_tokens import VisualTokensConfig

CONFIGS = Path(__file__).parents[2] / "configs"
STAGES = {
    "autoencoder": AutoencoderConfig,
    "detokenizer": DetokenizerConfig,
    "theatre.scenes": ScenesConfig,
    "theatre.reading": ReadingConfig,
    "mllm": MllmConfig,
    "adapt": AdaptConfig,
    "visual_tokens": VisualTokensConfig,
    "text_to_image": TextToImageConfig,
}


@pytest.mark.parametrize(
    "path",
    sorted(
        [
            *CONFIGS.glob("mini/*.yaml"),
            *(path for form in ("sdxl", "sd15", "sd3", "flux2") for path in CONFIGS.glob(f"{form}/*.yaml")),
            *CONFIGS.glob("published/*.yaml"),
            *CONFIGS.glob("gpu/*.yaml"),
            *CONFIGS.glob("lab/*.yaml"),
            *CONFIGS.glob("large/*.yaml"),
        ]
    ),
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_every_shipped_configuration_is_valid(path):
    other = {"scenes": "theatre.scenes", "reading": "theatre.reading", "decoder": "autoencoder"}
    module = other.get(path.stem, path.stem)
    assert load_config(path, STAGES[module]).steps > 0
    command = f"-m training.{module} --config configs/{path.parent.name}/{path.name}"
    heads = path.read_text().splitlines()[:3]
    assert heads[0] == f"# python {command}" and all(command in head for head in heads)


def test_overrides_win_over_the_file():
    config = load_config(CONFIGS / "mini" / "mllm.yaml", MllmConfig, ["steps=7", "loose_split=null"])
    assert config.steps == 7 and config.loose_split is None


def test_an_override_inside_a_mapping_leaves_the_rest_as_it_is():
    override = ["recipe_settings.train_head_from=6e-1"]
    config = load_config(CONFIGS / "mini" / "mllm.yaml", MllmConfig, override)
    assert config.recipe_settings == {"scenes": "runs/mini/stage2", "train_head_from": "6e-1"}
    recipe = make_recipe(config.recipe, config.recipe_settings)
    assert recipe.settings.train_head_from == 0.6 and recipe.loss_weights == {"code": 5.0, "words": 2.0}


def test_a_setting_that_is_new_had_its_default_before():
    config = load_config(CONFIGS / "mini" / "mllm.yaml", MllmConfig, ["recipe=null", "recipe_settings=null"])
    before = {name: value for name, value in config.fingerprint().items() if not name.startswith("recipe")}
    assert config.differing(before) == "" and config.differing(before | {"seed": 5}).startswith("seed;")


def test_scientific_notation_is_a_number():
    assert load_config(CONFIGS / "mini" / "mllm.yaml", MllmConfig, ["adam_lr=1e-3"]).adam_lr == 0.001


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("adam_lr=fast", "adam_lr must be a number"),
        ("stepz=3", "unknown key 'stepz'"),
        ("steps=0", "steps must be at least 1"),
        ("steps", "key=value"),
        ("steps=2.7", "steps must be a whole number, not 2.7"),
        ("batch_size=true", "batch_size must be a whole number, not True"),
        ("gradient_checkpointing=maybe", "gradient_checkpointing must be true or false"),
        ("max_minutes=.nan", "max_minutes must be a number"),
        ("seed=null", "seed must be a whole number, not None"),
        ("data=5", "data must be text, not 5"),
        ("resume=no", "resume must be text, not False"),
        ("data=[", "is no YAML"),
        ("recipe=circus", "recipe must be one of theatre, or null, not 'circus'"),
        ("recipe=null", "recipe_settings are given, but no recipe"),
        ("recipe_settings=3", "recipe_settings must be a mapping, not 3"),
        ("recipe_settings.scene=x", "recipe_settings: unknown key 'scene'"),
        ("recipe_settings.code_loss_weight=much", "recipe_settings: code_loss_weight must be a number"),
        ("data.folder=x", "data is no mapping"),
    ],
)
def test_faults_are_named(override, message):
    with pytest.raises(ValueError, match=message):
        load_config(CONFIGS / "mini" / "mllm.yaml", MllmConfig, [override])


def test_missing_file_and_missing_key(tmp_path):
    with pytest.raises(ValueError, match="no configuration at"):
        load_config(tmp_path / "none.yaml", MllmConfig)
    (tmp_path / "short.yaml").write_text("data: x\n")
    with pytest.raises(ValueError, match="short.yaml: .*missing"):
        load_config(tmp_path / "short.yaml", MllmConfig)
