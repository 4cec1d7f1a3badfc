"""The examples, the notebook and the code of the documentation run as they stand, with a tiny model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import seedstory.model_folder
from seedstory.story import StoryFolder
from tests.tiny import tiny_model_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_mini(model, monkeypatch, tmp_path):
    """In this process "mini" is the tiny model, and the current folder is an empty one."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/mini").symlink_to(model, target_is_directory=True)
    monkeypatch.setattr(seedstory.model_folder, "EMBEDDED", tmp_path / "weights")
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")


def run(name, *arguments, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_in_the_list():
    listed = set(re.findall(r"^\| `([\w.]+)`", (ROOT / "examples/README.md").read_text("utf-8"), re.M))
    assert listed == {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb")}


def test_first_story(model, tmp_path):
    text = "The fox found a lantern near the mill."
    out = run("first_story.py", "--text", text, "--pages", 2, "--model", model, "--out", "s", folder=tmp_path)
    assert f"[1/2] {text}" in out and (tmp_path / "s/index.html").is_file()
    assert len(StoryFolder.open(tmp_path / "s")) == 2


def test_illustrate_your_words(model, tmp_path):
    (tmp_path / "mine.txt").write_text("The fox\nran home.\n\n\nThe bear laughed.\n", "utf-8")
    out = run("illustrate_your_words.py", "mine.txt", "--model", model, "--out", "s", folder=tmp_path)
    assert out.startswith("2 pages")
    assert [page.caption for page in StoryFolder.open(tmp_path / "s").pages] == [
        "The fox ran home.",
        "The bear laughed.",
    ]


def test_many_stories(model, tmp_path):
    out = run(
        "many_stories.py",
        "The fox ran.",
        "The bear sat.",
        "--pages",
        2,
        "--model",
        model,
        "--out",
        "m",
        folder=tmp_path,
    )
    assert "m/1: 2 images" in out and "m/2: 2 images" in out


def test_known_cast(model, tmp_path):
    out = run("known_cast.py", "--cast", "Mia", "--never", "the", "--pages", 3, "--model", model, folder=tmp_path)
    first, *others = out.splitlines()
    assert first == "Mia went out." and len(others) == 2 and not any(" the " in f" {line} " for line in others)


def test_the_notebook_runs(tiny_mini):
    # Without a kernel of its own: the cells are plain Python.
    cells = json.loads((ROOT / "examples/first_story.ipynb").read_text("utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells)
    shown = []
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    code = code.replace("from IPython.display import display", "")
    exec(compile(code, "first_story.ipynb", "exec"), {"display": shown.append})
    assert len(shown) == 4 and Path("stories/notebook/index.html").is_file()


def python_blocks(name):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text("utf-8"), re.M | re.S)


@pytest.mark.parametrize(
    "name", ["docs/index.md", "docs/guides/first_story.md", "docs/guides/many_stories.md", "docs/guides/extend.md"]
)
def test_the_code_of_the_documentation_runs(name, tiny_mini, monkeypatch):
    monkeypatch.setattr("PIL.Image.Image.show", lambda self: None)
    assert python_blocks(name)
    scope: dict = {}
    for block in python_blocks(name):
        exec(compile(block, name, "exec"), scope)


def test_all_python_of_the_documentation_compiles():
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for block in python_blocks(path.relative_to(ROOT)):
            compile(block, str(path), "exec")
