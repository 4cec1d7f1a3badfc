"""One vocabulary: no public name and no option uses a word that docs/glossary.md rules out."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("seedstory", "training", "inference", "data_tools")
# Names of others, or of what is on disk: who writes a GGUF or reads Markdown does not choose the words.
ALLOWED = {
    "data_tools/importers/books.py": {"licence"},
}


def rows() -> list[list[str]]:
    """The cells of every row of the glossary's tables."""
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    return [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]


@cache
def forbidden() -> dict[str, str]:
    """Each word that is ruled out, with the term that stands for it."""
    words = {}
    for cells in rows():
        term, last = cells[0].strip(), cells[-1].strip()
        if term != "term":
            words |= {word.strip(): term for word in last.split(",") if word.strip()}
    return words


def words_of(name: str) -> set[str]:
    """The words of an identifier or an option, and each run of neighbors: "on_text" is one of "callback_on_text"."""
    parts = [part.lower() for part in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
    return {"_".join(parts[start:end]) for start in range(len(parts)) for end in range(start + 1, len(parts) + 1)}


def names_in(path: Path) -> Iterator[tuple[int, str]]:
    """Public names that a module defines, their parameters, and its options on the command line."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if not node.name.startswith("_"):
                yield node.lineno, node.name
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                yield from ((argument.lineno, argument.arg) for argument in arguments)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.lineno, node.target.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node.lineno, option) for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", node.value))


def ruled_out(name: str) -> list[str]:
    words = words_of(name)
    kept = words_of("callback_on_text") if "callback_on_text" in words else set()
    return sorted((words - kept) & set(forbidden()))


def test_the_glossary_is_read() -> None:
    assert len(rows()) >= 40 and {"ledger", "told", "harvest", "licence"} <= set(forbidden())
    assert ruled_out("read_told_stories") == ["told"] and ruled_out("StoryLedger") == ["ledger"]
    assert ruled_out("callback_on_text") == [] and ruled_out("on_text") == ["on_text"] and ruled_out("untold") == []


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_and_options_keep_to_the_glossary(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        for line, name in names_in(path):
            words = [word for word in ruled_out(name) if word not in ALLOWED.get(place, set())]
            wrong += [f"{place}:{line}: {name} says {word!r}, the term is {forbidden()[word]!r}" for word in words]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_keep_to_the_glossary(package: str) -> None:
    paths = (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    assert [str(path) for path in paths if ruled_out(path.stem)] == []


def test_every_term_lives_where_the_glossary_says() -> None:
    places = {
        place for cells in rows() for place in re.findall(r"`([\w/]+(?:\.\w+|/))`", cells[2] if len(cells) > 2 else "")
    }
    assert len(places) > 20
    assert [place for place in sorted(places) if not (ROOT / place).exists()] == []
