"""A plan is checked whole before it runs, and a run leaves data, shards and a report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset

from data_tools.build import steps
from data_tools.check import check
from seedstory.shards import ShardReader
from tests.data_tools.image_data import content, drawing, write_data

ROOT = Path(__file__).resolve().parents[2]


def build(plan: dict, folder: Path, *options: str) -> subprocess.CompletedProcess:
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    command = [sys.executable, "-m", "data_tools.build", str(folder / "plan.yaml"), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def plan(tmp_path):
    for number in range(2):  # the same names in both
        stories = {f"s{n}": [drawing(100 * number + 9 * n + k) for k in range(4)] for n in range(5)}
        write_data(tmp_path / f"source{number}", stories)
    return {
        "out": str(tmp_path / "built"),
        "import": [
            {"kind": "storystream", "sources": [str(tmp_path / "source0")], "split": "one", "license": "CC0-1.0"},
            {
                "kind": "storystream",
                "sources": str(tmp_path / "source1"),
                "split": "two",
                "prefix": "b-",
                "license": "CC-BY 4.0",
            },
        ],
        "clean": {"license": ["CC0", "CC-BY"], "split": {"train": 0.8, "val": 0.2}, "min_pages": 2},
        "caption": [{"step": "describe", "backend": "none", "source": "caption"}],
        "pack": {"shard_size": "1MB"},
        "report": {"samples": 4},
    }


def test_a_plan_from_sources_to_shards(plan, tmp_path):
    done = build(plan, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "built"
    assert {path.name for path in out.iterdir()} == {"imported", "clean", "captioned-1", "shards", "report.html"}
    for name in ("imported", "clean", "captioned-1", "shards"):
        assert check(out / name).faults == []
    stories = list(ShardReader(out / "shards"))
    assert sorted(story.record.id for story in stories) == [f"{at}s{n}" for at in ("b-", "") for n in range(5)]
    assert all(page["description"] for story in stories for page in story.record.pages)
    first = content(out)
    assert b"<h1>built</h1>" in first["report.html"]
    done = build(plan, tmp_path, "--engine", "processes", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert content(out) == first


def test_parquet_reads_back_through_datasets(plan, tmp_path):
    plan |= {"pack": {"format": "parquet"}, "caption": None, "import": plan["import"][:1]}
    done = build(plan, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {"train": str(tmp_path / "built/shards/train-*.parquet")}
    rows = load_dataset("parquet", data_files=files, cache_dir=tmp_path / "cache")["train"]
    assert all(image.size == (160, 120) for image in rows[0]["images"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clear": {}}, "unknown: clear; a plan has out, import"),
        ({"out": None}, "a plan needs `out`"),
        ({"import": []}, "a plan needs `out`, a folder, and `import`"),
        ({"import": [{"kind": "tape"}]}, "import 1: it needs `kind`, one of books, comics"),
        ({"import": [{"kind": "pdf", "sources": "x", "sides": 3}]}, "import 1 (pdf): there is no option 'sides'"),
        ({"import": [{"kind": "pdf", "sources": "x", "side": "wide"}]}, "valid int"),
        ({"clean": {"min_page": 3}}, "clean: there is no option 'min_page'; there are"),
        ({"clean": [3]}, "clean: its options must be a mapping"),
        ({"caption": [{"step": "sing"}]}, "caption 1: it needs `step`, one of describe, narrate"),
    ],
)
def test_a_wrong_plan_is_found_before_anything_runs(plan, tmp_path, changes, message):
    plan["caption"] = None
    with pytest.raises(ValueError) as caught:
        steps(plan | changes, "inline", None)
    assert message in str(caught.value)
    assert not (tmp_path / "built").exists()


def test_the_command_says_what_is_wrong_in_short(plan, tmp_path):
    plan["caption"] = None
    plan["import"][0]["sources"] = str(tmp_path / "nothing")
    for wrong in (plan, {"out": 3}, [1], "text"):
        done = build(wrong, tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    (tmp_path / "plan.yaml").write_text("a: [")
    command = [sys.executable, "-m", "data_tools.build", str(tmp_path / "plan.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_the_shipped_plan_is_sound():
    plan = yaml.safe_load((ROOT / "configs/data/storybooks.yaml").read_text())
    names = [step.name for step in steps(plan, "processes", 2)]
    assert names == ["import 1 (storystream)", "import 2 (storystream)", "clean", "pack", "report"]
    assert json.dumps(plan)
