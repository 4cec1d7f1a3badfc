"""The rules of the house: who may import whom, what the wheel holds, and what a checkout may contain."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPLICATIONS = ("training", "inference", "data_tools")
MB = 1_000_000

# The layers of seedstory, top first. A module imports from its own layer or from one below.
# A new file or folder directly under seedstory/ must be given its layer here.
LAYERS = (
    {"cli", "commands", "error_reporting", "progress_display", "server", "app", "__main__"},
    {
        "pipeline",
        "pipeline_base",
        "story_batch",
        "story_editor",
        "story_writer",
        "story_request",
        "outputs",
        "illustrator",
    }
    | {"rendering", "export", "convert", "memory"},
    {"generation"},
    {"consistent_attention", "detokenizers", "modeling", "cache", "resampler"},
    {
        "errors",
        "history",
        "hub",
        "identity",
        "image",
        "io",
        "layout",
        "model_credits",
        "model_files",
        "model_folder",
        "page",
        "page_facts",
    }
    | {
        "precision",
        "prompt_script",
        "ray_cluster",
        "salience",
        "script",
        "settings",
        "shards",
        "story",
        "story_folder",
        "story_record",
    }
    | {"story_state", "storystream", "text"},
)
LAYER_OF = {unit: level for level, units in enumerate(LAYERS) for unit in units}

# Machine paths: absolute paths into someone's home or workplace.
MACHINE_PATH = re.compile(rb"(?<![\w.:/)}])(?:/(?:work|root|home|Users|opt|mnt|scratch)/|[A-Z]:\\\\?Users\\)[\w.-]")


@cache
def tracked() -> tuple[Path, ...]:
    """The files of the repository: tracked ones, and new ones that git does not ignore."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    return tuple(path for name in sorted(filter(None, listed)) if (path := ROOT / name).is_file())


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Every import in a file, at any depth, as (line, absolute dotted name); `from a import b` gives `a.b`."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            found += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    return tuple(found)


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def unit_imports() -> Iterator[tuple[str, str, str]]:
    """Imports between the units of seedstory: (place, importing unit, imported unit)."""
    for path in sources("seedstory"):
        parts = path.relative_to(ROOT / "seedstory").with_suffix("").parts
        if parts == ("__init__",):
            continue  # the lazy front door names everything
        for line, name in imports(path):
            top, _, rest = name.partition(".")
            unit = rest.split(".")[0]
            if top == "seedstory" and unit != "__version__":
                yield where(path, line), parts[0], unit


def test_top_level_folders_are_packages() -> None:
    # Without its __init__.py an installed distribution of the same name would win, even inside the checkout.
    assert [package for package in ("seedstory", *APPLICATIONS) if not (ROOT / package / "__init__.py").is_file()] == []


@pytest.mark.parametrize("package", ["seedstory", *APPLICATIONS])
def test_packages_import_the_library_only(package: str) -> None:
    closed = {*APPLICATIONS, "tests"} - {package}
    found = [(where(path, line), name) for path in sources(package) for line, name in imports(path)]
    assert [f"{place} imports {name}" for place, name in found if name.split(".")[0] in closed] == []


def test_every_unit_has_a_layer() -> None:
    entries = (p for p in (ROOT / "seedstory").iterdir() if p.suffix == ".py" or any(p.glob("*.py")))
    units = {p.stem for p in entries} - {"__init__"}
    assert units - set(LAYER_OF) == set(), "give the new unit its layer in LAYERS, and a line in docs/architecture.md"


def test_layers_import_downwards_only() -> None:
    wrong = []
    for place, here, there in unit_imports():
        if there not in LAYER_OF:
            wrong.append(f"{place}: import {there} from the module that defines it, not from the front door")
        elif LAYER_OF[there] < LAYER_OF[here]:
            wrong.append(f"{place}: {here} must not know {there}, which stands above it")
    assert wrong == []


def test_no_cycles_between_units() -> None:
    below: dict[str, set[str]] = {}
    for _, here, there in unit_imports():
        if here != there:
            below.setdefault(here, set()).add(there)
    state: dict[str, bool] = {}  # False: being visited, True: done

    def visit(unit: str, trail: tuple[str, ...]) -> None:
        assert state.get(unit) is not False, f"import cycle: {' -> '.join((*trail, unit))}"
        if unit not in state:
            state[unit] = False
            for other in sorted(below.get(unit, ())):
                visit(other, (*trail, unit))
            state[unit] = True

    for unit in sorted(below):
        visit(unit, ())


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def runtime_imports(path: Path, modules: Container[str]) -> Iterator[str]:
    """Which of the modules a file imports when it runs, at any depth: not what is for the type checker only."""
    tree = ast.parse(path.read_text("utf-8"), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    package = path.relative_to(ROOT).parent.parts
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names += [full if (full := f"{base}.{alias.name}") in modules else base for alias in node.names]
    return (name for name in names if name in modules)


@pytest.mark.parametrize("package", ["seedstory", *APPLICATIONS])
def test_no_module_imports_itself_through_others(package: str) -> None:
    paths = {module_of(path): path for path in sources(package)}
    left = {name: {*runtime_imports(path, paths)} - {name} for name, path in paths.items()}
    # Take away, again and again, what imports nothing that is left: cycles stay, and what leads to them.
    while done := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in done}
    assert {name: sorted(others & left.keys()) for name, others in left.items()} == {}, "these import in a circle"


# Words of the paper theatre, which training knows behind `training.recipes.Recipe` only.
OF_THE_THEATRE = re.compile(
    r"\b(?:species|outfits?|hats?|poses?|actors?|scenes?|box|boxes|head_weights?)\b|scene_|Scene"
)


def test_general_training_code_knows_nothing_of_the_paper_theatre() -> None:
    general = sorted((ROOT / "training").glob("*.py"))
    assert len(general) > 20
    words = [
        f"{where(path, number)}: {line.strip()}"
        for path in general
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if OF_THE_THEATRE.search(line)
    ]
    assert words == [], "this belongs into training/theatre/"
    found = [where(path, line) for path in general for line, name in imports(path) if "theatre" in name.split(".")]
    assert found == []


def test_nothing_imports_torchvision() -> None:
    banned = {"torchvision", "torchaudio"}
    paths = [p for p in tracked() if p.suffix == ".py"]
    assert [where(p, n) for p in paths for n, name in imports(p) if name.split(".")[0] in banned] == []


def test_importing_the_library_is_instant() -> None:
    heavy = "torch transformers diffusers peft numpy PIL".split()
    code = f"import sys, seedstory; print(*[m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert out.split() == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the library, with the build tools that are installed."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "seedstory", tree / "seedstory", ignore=ignore)
    for package in APPLICATIONS:  # there, so that leaving them out is the build's own doing
        shutil.copytree(ROOT / package, tree / package, ignore=ignore)
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run([sys.executable, "-c", code, "out"], cwd=tree, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    (built,) = (tree / "out").glob("*.whl")
    return zipfile.ZipFile(built)


def test_wheel_holds_the_library_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert top == {"seedstory", f"seedstory-{project['version']}.dist-info"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())
    assert any(name.endswith(".dist-info/licenses/NOTICE") for name in wheel.namelist())


def test_wheel_holds_every_file_of_the_library(wheel: zipfile.ZipFile) -> None:
    # Weights, style sheets and templates too: package data is easily forgotten and missed only by the installed.
    ours = {p.relative_to(ROOT).as_posix() for p in tracked() if p.is_relative_to(ROOT / "seedstory")}
    assert ours - set(wheel.namelist()) == set()


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    code = "import seedstory; print(seedstory.__version__)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert out.strip() == project["version"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {project['version']}\n" in citation


def test_lock_covers_the_declared_dependencies() -> None:
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == [], "exact pins only"
    plain = [re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins]
    assert sorted({name for name in plain if plain.count(name) > 1}) == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [
        *project["dependencies"],
        *extras["train"],
        *extras["data"],
        *extras["test"],
        *extras["dev"],
        *extras["docs"],
    ]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", item)[0]).lower() for item in declared}
    assert names - set(plain) == set()


def test_configs_start_with_their_command() -> None:
    wrong = []
    for path in sorted((ROOT / "configs").rglob("*.y*ml")):
        first = path.read_text("utf-8").partition("\n")[0]
        name = path.relative_to(ROOT).as_posix()
        module = re.search(r"-m ((?:training|inference|data_tools)(?:\.\w+)+)", first)
        if not first.startswith("# ") or name not in first:
            wrong.append(f"{name}: the first line must be the command that uses this file, with its path: {first!r}")
        elif module is not None and not is_module(module[1]):
            wrong.append(f"{name}: there is no module {module[1]}")
        elif module is None and not first.startswith("# seedstory "):
            wrong.append(f"{name}: the first line runs none of our commands: {first!r}")
    assert wrong == []


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def code_of(path: Path) -> str:
    """The fenced blocks and inline code of a Markdown file."""
    text = path.read_text("utf-8")
    fences = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S)
    return "\n".join([*fences, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))])


def commands() -> set[str]:
    """The verbs of the `seedstory` command."""
    from typer.main import get_command

    from seedstory.cli import app

    return set(get_command(app).commands)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_documented_commands_exist(name: str) -> None:
    code = code_of(ROOT / name)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert set(re.findall(r"(?:^|[\s;&(])make ([a-z]+)", code)) - targets == set()
    assert set(re.findall(r"(?:^|/)seedstory ([a-z][a-z-]*)", code, re.M)) - commands() == set()
    modules = set(re.findall(r"-m ((?:training|inference|data_tools)(?:\.\w+)+)", code))
    assert {module for module in modules if not is_module(module)} == set()
    configs = set(re.findall(r"configs/[\w./-]+\.ya?ml", code))
    assert {config for config in configs if not (ROOT / config).is_file()} == set()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_documented_links_exist(name: str) -> None:
    path = ROOT / name
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
    ours = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in ours if not (path.parent / link).exists()] == []


def test_no_machine_paths() -> None:
    wrong = []
    for path in tracked():
        for hit in MACHINE_PATH.finditer(path.read_bytes()):
            wrong.append(f"{path.relative_to(ROOT)}: {hit[0].decode(errors='replace')}...")
    assert wrong == []


def test_tree_stays_small() -> None:
    sizes = {path: path.stat().st_size for path in tracked()}
    weights = sum(size for path, size in sizes.items() if path.is_relative_to(ROOT / "seedstory" / "weights"))
    assert weights < 40 * MB
    assert sum(sizes.values()) < 60 * MB
