"""`make gpu` at tiny size on a CPU: figures come one by one, and no part can cost the others anything."""

import importlib.util
import json
import sys

import pytest
import torch
from typer.testing import CliRunner

from inference import gpu_check, gpu_parts
from inference.gpu_check import BUDGETS, GOALS, QUICK, Plan, run
from inference.gpu_parts import PARTS, Settings, Skipped, files_of_tests, flops, needs

TINY = Settings(torch.device("cpu"), tiny=True)


def figures(part, settings=TINY):
    found = {}
    PARTS[part](settings, found.__setitem__)
    return found


def test_stage_2_is_held_against_its_arithmetic():
    found = figures("stage2")
    assert found["attention"] == "mask" and 0 < found["arithmetic_s_a_step"] < found["step_s"]
    assert found["share_of_arithmetic_limit"] == pytest.approx(
        found["arithmetic_s_a_step"] / found["step_s"], abs=1e-3 + 1e-4 / found["step_s"]
    )


def test_the_arithmetic_of_a_step_counts_products_with_weights():
    linear, embedding = torch.nn.Linear(3, 5, bias=False), torch.nn.Embedding(7, 3)
    lora = torch.nn.Linear(3, 2, bias=False)
    base = torch.nn.ModuleDict({"embed": embedding, "proj": linear, "x": torch.nn.ModuleDict({"lora_A": lora})})

    class Llm:
        base_model = base

        def get_input_embeddings(self):
            return embedding

    model = type("Model", (), {"llm": Llm()})()
    assert flops(model, tokens=11, labels=2) == 11 * (4 * 15 + 6 * 6) + 2 * 4 * 21


def test_the_language_model_is_measured_in_all_ways():
    found = figures("language_model")
    for name in ("eager", "static", "reference"):
        assert found[f"{name}.page_ms"] > 0 and found[f"{name}.decode_share_of_copy_bandwidth"] >= 0
    expected = found["reference.page_ms"] / found["static.page_ms"]
    assert found["static.speedup_over_reference"] == pytest.approx(expected, rel=0.02)


def test_a_page_of_sdxl_is_the_page_that_diffusers_draws():
    found = figures("sdxl")
    assert found["mean_difference"] < 1e-4 and found["ours.page_s"] > 0 and found["diffusers.page_s"] > 0


def test_tests_that_need_a_gpu_are_found_and_counted(tmp_path):
    assert {file.name for file in files_of_tests()} >= {"test_gpu.py", "test_flash_attention.py"}
    file = tmp_path / "test_marked.py"
    file.write_text(
        "import pytest\n@pytest.mark.cuda\ndef test_good(): pass\n"
        "@pytest.mark.cuda\ndef test_bad(): assert 0\ndef test_other(): assert 0\n"
    )
    found = {}
    gpu_parts.tests(TINY, found.__setitem__, [file])
    assert (found["passed"], found["failed"], found["error"]) == (1, 1, 0) and len(found["failures"]) == 1


def test_what_is_missing_is_named():
    with pytest.raises(Skipped, match="not installed: no_such_package"):
        needs("torch", "no_such_package")


def plan(folder, parts):
    return Plan(parts, device="cpu", tiny=True, quick=True, json_file=folder / "gpu.json")


def test_each_figure_is_written_as_it_comes(tmp_path):
    written = []

    def say(line):
        written.append(json.loads((tmp_path / "gpu.json").read_text()) if written else None)

    report = run(plan(tmp_path, {"stage2": 120.0}), say)
    assert report["parts"]["stage2"]["status"] == "done"
    counts = [len(one["parts"].get("stage2", {})) for one in written[1:]]
    assert counts == sorted(counts) and counts[0] < counts[-1]
    assert (
        report["summary"]["stage2.share_of_arithmetic_limit"] == report["parts"]["stage2"]["share_of_arithmetic_limit"]
    )
    assert json.loads((tmp_path / "gpu.json").read_text()) == report


def part(tmp_path, monkeypatch, body, seconds=60.0):
    """Runs a program in a part's place."""
    program = tmp_path / "part.py"
    program.write_text(body)
    started = gpu_check.subprocess.Popen

    def begin(command, **options):
        return started([sys.executable, str(program)], **options)

    monkeypatch.setattr(gpu_check.subprocess, "Popen", begin)
    return run(plan(tmp_path, {"sdxl": seconds}), lambda line: None)["parts"]["sdxl"]


def test_a_slow_part_is_cut_off_and_keeps_what_it_found(tmp_path, monkeypatch):
    body = "import time\nprint('figure [\"steps\", 4]', flush=True)\ntime.sleep(60)\n"
    found = part(tmp_path, monkeypatch, body, seconds=4.0)
    assert found["steps"] == 4 and found["status"] == "cut off after 4 s" and found["seconds"] < 30


def test_a_part_that_dies_says_its_last_words(tmp_path, monkeypatch):
    body = "print('figure [\"steps\", 4]')\nprint('out of memory')\nraise SystemExit(3)\n"
    found = part(tmp_path, monkeypatch, body)
    assert found["steps"] == 4 and found["status"] == "failed with exit status 3: out of memory"


def test_a_part_reports_why_it_did_not_run(monkeypatch, capsys):
    def skipped(settings, note):
        raise Skipped("not installed: diffusers")

    def broken(settings, note):
        raise RuntimeError("no kernel image")

    monkeypatch.setitem(PARTS, "sdxl", skipped)
    gpu_check.run_one("sdxl", TINY)
    monkeypatch.setitem(PARTS, "sdxl", broken)
    gpu_check.run_one("sdxl", TINY)
    assert capsys.readouterr().out.splitlines() == [
        'figure ["status", "skipped: not installed: diffusers"]',
        'figure ["status", "failed: RuntimeError: no kernel image"]',
    ]


def test_the_budgets_fit_into_ten_minutes_and_one():
    assert sum(BUDGETS.values()) < 600 and sum(QUICK.values()) <= 60 and BUDGETS.keys() == PARTS.keys()
    assert {goal.partition(".")[0] for goal in GOALS if "." in goal} <= PARTS.keys()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tiny", "--parts", "nothing"], "there is no part"),
        ([], "sees no GPU"),
        (["--device", "cuda"], "sees no GPU"),
    ],
)
def test_wrong_options_are_one_line(options, said, monkeypatch):
    import typer

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    app = typer.Typer()
    app.command()(gpu_check.main)
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 2 and said in " ".join(result.output.replace("│", " ").split())


def test_a_language_model_without_pillow_is_skipped_and_not_failed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "PIL" else find(name))
    with pytest.raises(Skipped, match="not installed: PIL"):
        figures("language_model")
