"""Finds the files that a user names."""

from __future__ import annotations

from pathlib import Path

from data_tools.importers.run_import import Source, is_inside, natural_key, unique_ids


def files_of(paths: list[Path], suffixes: tuple[str, ...], what: str) -> list[Source]:
    """One source for each file with one of the suffixes: those named, and those in the folders named.

    Args:
        paths: Files and folders.
        suffixes: In lower case, with the dot. A file that the user names itself may have another.
        what: What such a file is called, for the error.

    Raises:
        ValueError: There is no such path, or no such file in any of the folders.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inner = [p for p in path.rglob("*") if p.suffix.lower() in suffixes and is_inside(p, path)]
            found += sorted(inner, key=natural_key)
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"there is no file or folder {path}: check the path")
    if not found:
        raise ValueError(f"there is no {what} ({', '.join(suffixes)}) in {', '.join(map(str, paths))}")
    ids = unique_ids(path.stem for path in found)
    return [Source(one, path) for one, path in zip(ids, found, strict=True)]
