"""The command line of the mains of `training/`: help with an example and all settings, and faults in one line."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from training.adapt import AdaptConfig
from training.autoencoder import AutoencoderConfig
from training.command import describe_settings, run_function, setting_docs
from training.config import load_config
from training.detokenizer import DetokenizerConfig
from training.finetune import FinetuneConfig
from training.loop import Interrupted
from training.mllm import MllmConfig
from training.text_to_image import TextToImageConfig
from training.theatre.reading import ReadingConfig
from training.theatre.recipe import TheatreSettings
from training.theatre.scenes import ScenesConfig
from training.visual_tokens import VisualTokensConfig

CONFIGS = {
    "autoencoder": AutoencoderConfig,
    "detokenizer": DetokenizerConfig,
    "theatre.scenes": ScenesConfig,
    "theatre.reading": ReadingConfig,
    "mllm": MllmConfig,
    "adapt": AdaptConfig,
    "visual_tokens": VisualTokensConfig,
    "finetune": FinetuneConfig,
    "text_to_image": TextToImageConfig,
}
ROOT = Path(__file__).parents[2]
OTHERS = ("assemble", "benchmark", "features")


@pytest.mark.parametrize("kind", [*CONFIGS.values(), TheatreSettings], ids=lambda kind: kind.__name__)
def test_every_setting_is_described(kind):
    docs = setting_docs(kind)
    assert [field.name for field in dataclasses.fields(kind) if not docs.get(field.name)] == []
    assert set(docs) <= {field.name for field in dataclasses.fields(kind)}


def test_the_settings_come_with_their_defaults_and_those_of_recipes():
    text = describe_settings(MllmConfig)
    assert "  num_visual_tokens=16\n      N, tokens of an image inside the language model." in text
    assert "  log_every=20 save_every=500 eval_every=0\n" in text
    assert "if recipe is theatre" in text and "  head_weight=3.0\n" in text
    assert "recipe" not in describe_settings(ScenesConfig)


def test_documented_commands_are_read_as_they_are_written():
    written = re.compile(r"-m training\.([\w.]+) --config (\S+\.yaml)((?: [\w.]+=[^\s`]+)*)")
    paths = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.yaml")]
    found = {command for path in paths for command in written.findall(path.read_text("utf-8"))}
    assert {module for module, _, _ in found} == CONFIGS.keys() and len(found) > 15
    for module, config, overrides in found:
        load_config(ROOT / config, CONFIGS[module], overrides.replace("=...", "=runs/earlier").split())


def run(module, monkeypatch, *arguments):
    """Exit status of a main of `training/` that is given a command line."""
    main = importlib.import_module(f"training.{module}")
    monkeypatch.setattr("sys.argv", [module, *arguments])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    return stopped.value.code


@pytest.mark.parametrize("module", [*CONFIGS, *OTHERS])
def test_help_has_an_example(module, monkeypatch, capsys):
    main = importlib.import_module(f"training.{module}")
    monkeypatch.setattr("sys.argv", [module, "--help"])
    main.main()
    said = capsys.readouterr().out
    assert f"python -m training.{module} --" in said
    options = ("--config FILE", "KEY=VALUE", "Settings:", "  data\n") if module in CONFIGS else ("--",)
    assert all(option in said for option in options)


@pytest.mark.parametrize("module", [*CONFIGS, *OTHERS])
def test_a_wrong_command_line_is_one_line(module, monkeypatch, capsys):
    assert run(module, monkeypatch, "--shape=none" if module == "benchmark" else "--konfig=x") == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and not said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: Missing option '--config'"),
        (("--config", "none.yaml"), "error: no configuration at none.yaml"),
        (("--config", "configs/mini/mllm.yaml", "stepz=3"), "error: configs/mini/mllm.yaml: unknown key 'stepz'"),
        (("--config", "configs/mini/mllm.yaml", "steps"), "error: override 'steps' is not of the form key=value"),
        (("--config", "configs/mini/mllm.yaml", "stage1=none"), "error: none has no vision_tower: run python -m"),
    ],
)
def test_what_is_wrong_is_named(arguments, message, monkeypatch, capsys, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    assert run("mllm", monkeypatch, *arguments) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ("error", "status"),
    [(Interrupted("stopped by SIGTERM"), 130), (KeyboardInterrupt(), 130), (OSError("the disk\nis full"), 2)],
)
def test_a_run_that_ends_early_says_so(error, status, monkeypatch, capsys):
    def command() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["stage"])
    with pytest.raises(SystemExit) as stopped:
        run_function(command, "")
    assert stopped.value.code == status
    assert capsys.readouterr().err in (
        "stopped by SIGTERM\n",
        "stopped; the same command goes on from the last checkpoint\n",
        "error: the disk is full\n",
    )


def test_a_run_whose_minutes_are_over_ends_well(monkeypatch, capsys):
    def command() -> None:
        raise Interrupted("stopped by max_minutes", on_time=True)

    monkeypatch.setattr("sys.argv", ["stage"])
    run_function(command, "")
    assert "max_minutes" in capsys.readouterr().err
