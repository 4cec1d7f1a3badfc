"""Visual features of a data set's pictures, computed once with the frozen vision tower and read from disk ever after.

They lie in shards of a fixed number of pages beside the data set:

    data/theatre/features/train-1f2e3d4c5b6a7988/
        features-00000.safetensors   "features", bf16 [8192, F, D], pages in the order of the data set (fewer if large)
        features-00001.safetensors   ...
        index.json                   rows, bytes and SHA-256 of each shard; written last

The folder's name holds a digest of the tower's weights and of the data set, so a change of either computes anew. A
shard is written in one atomic step: a run that was killed goes on with the first shard that is missing, and two
processes may compute at once. A shard that has changed is never used and never overwritten: the error names it, and
once it is deleted it alone is computed anew. Training computes what is missing by itself; this command does it
beforehand, on several machines if need be (Ray; its nodes need this checkout, the data and the tower at equal paths):

    python -m training.features --data data/theatre --split train --tower runs/mini/stage1/vision_tower
    python -m training.features --data data/shards --split train --tower runs/mini/stage1/vision_tower --engine ray
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from torch import Tensor

from seedstory.io import atomic_path
from seedstory.modeling.vision_tower import tower_class
from training.checkpoint import digest_of
from training.command import run_function
from training.feature_shards import ENGINES, FeatureWorker, shard_name
from training.row_shards import MappedRows, joined
from training.splits import fingerprint, open_split

if TYPE_CHECKING:
    from training.backend import Backend

FORMAT = "seedstory features 1"
INDEX = "index.json"
CHECKED = "checked.json"
SHARD_PAGES = 8192
SHARD_BYTES = 2**29  # a shard is computed in memory and written whole; of large features it holds fewer pages
BATCH = 128


@dataclass(frozen=True)
class Shard:
    """A line of the index: file name, the pages it holds (`start` up to `stop`), size in bytes, SHA-256."""

    name: str
    start: int
    stop: int
    bytes: int
    sha256: str


class PageFeatures(MappedRows):
    """Features of all pages of a split, bf16 [N, F, D], in the order of the data set.

    Args:
        folder: With `index.json` and all shards, as `page_features` leaves it.

    Raises:
        ValueError: There is no index, or a shard is missing or has another size than it says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        shape, self.shards = read_index(self.folder)
        for shard in self.shards:
            path = self.folder / shard.name
            if not path.is_file() or path.stat().st_size != shard.bytes:
                raise ValueError(changed(path, f"it is missing or has not {shard.bytes} bytes any more"))
        files = [(self.folder / shard.name, shard.stop - shard.start) for shard in self.shards]
        super().__init__(files, "features", shape, what="pages")


def page_features(
    data: str | Path,
    split: str,
    tower_folder: str | Path,
    device: torch.device | str,
    *,
    engine: str = "local",
    batch_size: int = BATCH,
    shard_pages: int | None = None,
    verify: bool = False,
) -> PageFeatures:
    """Features of all pages of a split; what is not on disk yet is computed first.

    Args:
        data: folder of a data set, with `SPLIT.jsonl` or with packed shards.
        split: such as "train".
        tower_folder: of the frozen vision tower.
        device: where the tower runs.
        engine: "local" (this process) or "ray"; both give the same bytes on devices of one kind.
        batch_size: pictures the tower sees at once.
        shard_pages: pages of a shard; by default as many as `pages_of_a_shard` says, which training looks for.
        verify: read every shard and compare its checksum. Otherwise this is done for shards whose size or time of
            change is not the one it was when this machine last did so; hashing reads about 1.3 GB/s.

    Raises:
        ValueError: no such data or tower, a damaged picture, or a shard that has changed since it was written.
    """
    checked = digest_tower(tower_folder)
    shard_pages = pages_of_a_shard(Path(tower_folder)) if shard_pages is None else shard_pages
    for name, value in (("batch_size", batch_size), ("shard_pages", shard_pages)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    stories = open_split(data, split)
    generated = {
        "format": FORMAT,
        "tower": checked,
        **fingerprint(stories),
        "shard_pages": shard_pages,
    }
    pages = int(stories.pages.sum())
    if not pages:
        raise ValueError(f"split {split!r} of {data} has no pages")
    folder = Path(data) / "features" / f"{split}-{hashlib.sha256(json.dumps(generated).encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    spans = [(start, min(start + shard_pages, pages)) for start in range(0, pages, shard_pages)]
    missing = [(number, *span) for number, span in enumerate(spans) if not (folder / shard_name(number)).exists()]
    if missing:
        worker = FeatureWorker(str(data), split, str(tower_folder), str(folder), str(device), batch_size)
        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task(f"features of {split}", total=sum(stop - start for _, start, stop in missing))
            ENGINES[engine](worker, missing, partial(bar.advance, task))
    indexed = (folder / INDEX).is_file()
    if missing or not indexed:
        new = {shard_name(number) for number, _, _ in missing}
        known = {shard.name: shard for shard in read_index(folder)[1] if shard.name not in new} if indexed else {}
        write_index(folder, generated, spans, known)
    check_shards(folder, verify)
    return PageFeatures(folder)


def open_features(
    data: str | Path, splits: str, tower_folder: str | Path, backend: Backend, count: int | None = None
) -> MappedRows:
    """Features [N, F, D] of the first `count` pages of the splits (joined by "+"), bf16, mapped into memory.

    What is not on disk yet is computed first, by the main process.
    """
    parts: list[MappedRows] = []
    with backend.main_process_first():
        for split in splits.split("+"):
            if count is None or sum(map(len, parts)) < count:
                parts.append(page_features(data, split, tower_folder, backend.device))
    return joined(parts, count)


def read_features(
    data: str | Path, splits: str, tower_folder: str | Path, backend: Backend, count: int | None = None
) -> Tensor:
    """The same, read into memory."""
    features = open_features(data, splits, tower_folder, backend, count)
    return features[:].clone() if len(features.files) == 1 else features[:]


def features_shape(tower: Path) -> tuple[int, int]:
    """F and Df, the tokens of an image's features and their width, by the configuration of a vision tower."""
    kind = tower_class(tower)
    with torch.device("meta"):
        built = kind.from_config(kind.load_config(tower))
    return built.num_features, built.config.feature_dim


def pages_of_a_shard(tower: Path) -> int:
    """The largest power of two, at most `SHARD_PAGES`, whose features take no more than `SHARD_BYTES` in bf16."""
    tokens, width = features_shape(tower)
    return min(SHARD_PAGES, 2 ** max(0, (SHARD_BYTES // (2 * tokens * width)).bit_length() - 1))


def digest_tower(folder: str | Path) -> str:
    """SHA-256 of the vision tower's configuration and weights."""
    if not any(Path(folder).glob("*.safetensors")):
        raise ValueError(
            f"there is no vision tower at {folder}: give the folder that python -m training.detokenizer wrote"
        )
    return digest_of(folder)


def write_json(path: Path, value: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", "utf-8")


def write_index(folder: Path, generated: dict[str, Any], spans: list[tuple[int, int]], known: dict[str, Shard]) -> None:
    """Write `index.json` of shards that are all there; checksums that are `known` stay what they were."""
    shards = []
    for number, (start, stop) in enumerate(spans):
        path = folder / shard_name(number)
        try:
            with safe_open(path, "pt") as file:
                shape, pages = file.get_slice("features").get_shape(), file.metadata().get("pages")
        except SafetensorError as error:
            raise ValueError(changed(path, str(error))) from None
        if shape[0] != stop - start or pages != f"{start}:{stop}":
            raise ValueError(changed(path, f"it holds {shape[0]} pages, {pages}, instead of {start}:{stop}"))
        shards.append(known.get(path.name) or Shard(path.name, start, stop, path.stat().st_size, digest_of(path)))
    head = {**generated, "shape": [spans[-1][1], *shape[1:]], "dtype": "bfloat16"}
    write_json(folder / INDEX, head | {"shards": [dataclasses.asdict(shard) for shard in shards]})


def read_index(folder: Path) -> tuple[torch.Size, list[Shard]]:
    """Shape of all features, and the shards."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_bytes())
        if index["format"] != FORMAT:
            raise ValueError(f"its format is {index['format']!r:.80}, not {FORMAT!r}")
        return torch.Size(index["shape"]), [Shard(**line) for line in index["shards"]]
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: compute the features with python -m training.features") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete the folder and compute the features again") from error


def check_shards(folder: Path, every: bool) -> None:
    """Compare the shards' checksums with the index: of all, or of those that were not checked as they are now.

    Raises:
        ValueError: A shard is not what it was when it was written; it is left as it is.
    """
    try:
        checked = json.loads((folder / CHECKED).read_bytes())
    except (OSError, ValueError):
        checked = {}
    now = {}
    for shard in read_index(folder)[1]:
        path = folder / shard.name
        status = path.stat()
        now[shard.name] = [status.st_size, status.st_mtime_ns]
        if (every or checked.get(shard.name) != now[shard.name]) and digest_of(path) != shard.sha256:
            raise ValueError(changed(path, "its SHA-256 is another one"))
    if now != checked:
        with contextlib.suppress(OSError):  # a folder that cannot be written is checked each time
            write_json(folder / CHECKED, now)


def changed(path: Path, how: str) -> str:
    return f"{path} is not what it was when it was written ({how}): delete this file, and it alone is computed again"


def command(
    data: Annotated[str, typer.Option(help="Folder of a data set: SPLIT.jsonl with pictures, or packed shards.")],
    split: Annotated[str, typer.Option(help="Such as train; several joined by +.")],
    tower: Annotated[str, typer.Option(help="Folder of the vision tower.")],
    engine: Annotated[str, typer.Option(help="local (this process) or ray.")] = "local",
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Pictures at once.")] = BATCH,
    shard_pages: Annotated[
        int | None, typer.Option(help="Pictures of a shard; training finds those of the default, 8192 or 512 MB.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read all shards and compare their checksums.")] = False,
) -> None:
    """Compute the features of each split and say where they are."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in split.split("+"):
        features = page_features(
            data,
            name,
            tower,
            device,
            engine=engine,
            batch_size=batch_size,
            shard_pages=shard_pages,
            verify=verify,
        )
        size = sum(shard.bytes for shard in features.shards)
        print(
            f"{name}: {list(features.shape)} in {len(features.shards)} shards, {size / 1e6:.1f} MB, {features.folder}"
        )


def main() -> None:
    """Command line."""
    run_function(command, __doc__)


if __name__ == "__main__":
    main()
