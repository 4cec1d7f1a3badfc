"""The benchmark runs, and its figures are of the work it names."""

import json
import math

import typer
from typer.testing import CliRunner

from data_tools import benchmark
from seedstory.storystream import StoryRecord, write_jsonl


def test_the_quick_benchmark_runs(tmp_path):
    app = typer.Typer()
    app.command()(benchmark.main)
    result = CliRunner().invoke(app, ["--quick", "--stories", "2", "--json", str(tmp_path / "bench.json")])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "bench.json").read_text())["figures"]
    assert {figure["unit"] for figure in figures} == {"pages/s", "GB/s"}
    for figure in figures:
        assert 0 < figure["least"] <= figure["median"] <= figure["greatest"] and math.isfinite(figure["greatest"])


def test_wrong_requests_are_refused(tmp_path):
    app = typer.Typer()
    app.command()(benchmark.main)
    result = CliRunner().invoke(app, ["--data", str(tmp_path)])
    assert result.exit_code == 2 and "NAME.jsonl" in result.output


def test_a_data_set_without_a_story_that_can_be_packed_is_refused(tmp_path):
    (tmp_path / "page.png").write_bytes(b"no picture")
    write_jsonl(tmp_path / "train.jsonl", [StoryRecord(id="one", images=["page.png"], captions=["A."], orders=[0])])
    app = typer.Typer()
    app.command()(benchmark.main)
    result = CliRunner().invoke(app, ["--data", str(tmp_path)])
    assert result.exit_code == 2 and "can be packed" in " ".join(result.output.replace("│", " ").split())
