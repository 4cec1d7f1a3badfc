"""One place knows which type this machine multiplies fastest."""

import json
import subprocess
import sys

import pytest
import torch

from seedstory import precision
from seedstory.modeling import StoryModel
from tests.seedstory.tiny_language import tiny_model
from training.config import RunConfig


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A machine that has not been measured yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(precision.OVERRIDE, raising=False)
    precision._of_this_cpu.cache_clear()
    yield tmp_path
    precision._of_this_cpu.cache_clear()


@pytest.mark.parametrize(("bf16", "expected"), [(0.5, "bf16"), (2.0, "fp32")])
def test_the_faster_type_wins_and_is_kept(fresh, monkeypatch, bf16, expected):
    seconds = {torch.float32: 1.0, torch.bfloat16: bf16}
    asked = []
    monkeypatch.setattr(precision, "seconds_of", lambda dtype: asked.append(dtype) or seconds[dtype])
    assert precision.fast_precision() == expected and len(asked) == 2
    precision._of_this_cpu.cache_clear()  # as in another process
    assert precision.fast_precision("cpu") == expected and len(asked) == 2
    (kept,) = (fresh / "seedstory").iterdir()
    assert json.loads(kept.read_text())["precision"] == expected
    kept.write_text("{")  # damaged: measured again
    precision._of_this_cpu.cache_clear()
    assert precision.fast_precision() == expected and len(asked) == 4


def test_another_limit_of_the_cpu_is_another_machine(fresh, monkeypatch):
    before = precision._cache_file()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "something else")
    assert precision._cache_file() != before


def test_the_environment_overrides(fresh, monkeypatch):
    for asked, dtype in {"bf16": torch.bfloat16, "fp32": torch.float32}.items():
        monkeypatch.setenv(precision.OVERRIDE, asked)
        assert precision.fast_dtype("cpu") == dtype
        assert RunConfig(data="data", out="out", steps=1, device="cpu").precision == asked
        assert RunConfig(data="data", out="out", steps=1, device="cpu", precision="fp32").precision == "fp32"
    monkeypatch.setenv(precision.OVERRIDE, "fp8")
    with pytest.raises(ValueError, match="SEEDSTORY_PRECISION must be bf16, fp32 or auto, not 'fp8'"):
        precision.fast_precision()
    assert not (fresh / "seedstory").exists()


def test_a_cache_that_cannot_be_written_stops_nobody(fresh, monkeypatch):
    (fresh / "seedstory").write_text("a file where the folder should be")
    monkeypatch.setattr(precision, "seconds_of", lambda dtype: 1.0)
    assert precision.fast_precision() == "fp32"


def test_this_machine_is_measured():
    code = "from seedstory.precision import fast_precision, cpu_name; print(fast_precision(), cpu_name())"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.split()[0] in ("bf16", "fp32") and said.strip().endswith(")")


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_rotary_frequencies_stay_exact_in_any_type(family, tmp_path):
    model = tiny_model(family=family)
    exact = {name: buffer for name, buffer in model.llm.named_buffers() if name.endswith("inv_freq")}
    model.save_pretrained(tmp_path / "model")
    base = tiny_model(family=family).merge_lora().llm
    loaded = [StoryModel.from_pretrained(tmp_path / "model", base_model=base, dtype=torch.bfloat16)]
    loaded += [tiny_model(family=family).merge_lora().bfloat16(), tiny_model(family=family).merge_lora().half()]
    for one in loaded:
        assert one.llm.dtype in (torch.bfloat16, torch.float16)
        kept = dict(one.llm.named_buffers())
        assert exact and all(torch.equal(kept[name], buffer) for name, buffer in exact.items())
