"""Rows of large tensors on disk, shared out among processes when they are computed and mapped into memory ever after.

What all pages of a large data set need (features, latents) is more than the memory of a machine holds once for each
process. It lies in safetensors files of some rows each; the operating system reads what is asked for, and keeps it once
for all processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from seedstory.io import atomic_path

if TYPE_CHECKING:
    from training.backend import Backend


class MappedRows:
    """One tensor [N, ...] whose rows lie in several files.

    `rows[3:7]`, `rows[5]` and `rows[numbers]` with a LongTensor give tensors, `rows[:]` reads everything. It can be
    sent to other processes, which map the files anew.

    Args:
        files: With the number of rows that each holds, in order.
        name: Of the tensor in each file.
        shape: Of the whole; fewer rows than the files hold leave out the last ones.
        dtype: As the files have it.
        what: What a row is, for messages.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, int]],
        name: str,
        shape: Sequence[int],
        dtype: torch.dtype = torch.bfloat16,
        what: str = "rows",
    ) -> None:
        self.files, self.name, self.shape, self.dtype, self.what = list(files), name, torch.Size(shape), dtype, what
        counts = torch.tensor([count for _, count in self.files])
        self._stops = counts.cumsum(0)
        self._starts = self._stops - counts
        self._mapped: list[Tensor | None] = [None] * len(self.files)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | Tensor) -> Tensor:
        if isinstance(rows, int):
            return self[torch.tensor([rows])][0]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                return self[torch.arange(start, stop, step)]
            spans = zip(self._starts.tolist(), self._stops.tolist(), strict=True)
            inside = [(n, first) for n, (first, last) in enumerate(spans) if first < stop and start < last]
            parts = [self._map(n)[max(start - first, 0) : stop - first] for n, first in inside]
            if start >= stop or not parts:
                return torch.empty(0, *self.shape[1:], dtype=self.dtype)
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        rows = torch.where(rows < 0, rows + len(self), rows)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"there are {len(self)} {self.what}, not {int(rows.max()) + 1}")
        found = torch.empty(len(rows), *self.shape[1:], dtype=self.dtype)
        of_file = torch.searchsorted(self._starts, rows, right=True) - 1
        for n in of_file.unique().tolist():
            here = of_file == n
            found[here] = self._map(n)[rows[here] - self._starts[n]]
        return found

    def _map(self, number: int) -> Tensor:
        mapped = self._mapped[number]
        if mapped is None:
            with safe_open(self.files[number][0], "pt") as file:
                mapped = self._mapped[number] = file.get_slice(self.name)[:]  # a view of the mapped file, no copy
        return mapped

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_mapped": [None] * len(self.files)}


def joined(parts: Sequence[MappedRows], count: int | None = None) -> MappedRows:
    """The rows of several, one after the other; at most `count` of them."""
    first, total = parts[0], sum(map(len, parts))
    files = [file for part in parts for file in part.files]
    return MappedRows(files, first.name, (min(total, count or total), *first.shape[1:]), first.dtype, first.what)


def store_rows(
    folder: Path, counts: Sequence[int], compute: Callable[[int], dict[str, Tensor]], backend: Backend
) -> list[tuple[Path, int]]:
    """Files of rows, of which every process computes its share; what is there is left as it is.

    Where processes have disks of their own, those of each machine compute what the others have written elsewhere.

    Args:
        folder: Of the files; its name says what they were computed from.
        counts: The rows of each file.
        compute: The tensors of a file, by its number.
        backend: Whose processes share the work.

    Returns:
        The files, with the rows of each.

    Raises:
        ValueError: A file holds something else than its name says.
    """
    stops = torch.tensor(counts).cumsum(0).tolist()
    files = [
        (folder / f"{stop - count:09d}-{stop:09d}.safetensors", count)
        for stop, count in zip(stops, counts, strict=True)
    ]
    machine = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    for rank, processes in ((backend.rank, backend.processes), machine):
        with backend.all_or_none():
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(rank, len(files), processes):
                path = files[number][0]
                if not path.exists():
                    tensors = {name: tensor.contiguous() for name, tensor in compute(number).items()}
                    with atomic_path(path) as temporary:
                        save_file(tensors, temporary)
    for path, count in files:
        _check(path, count)
    return files


def _check(path: Path, count: int) -> None:
    """Refuse a file that is cut short or holds another number of rows; its header says both."""
    try:
        with safe_open(path, "pt") as file:
            rows = {name: file.get_slice(name).get_shape()[0] for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and it alone is computed again") from None
    if set(rows.values()) != {count}:
        raise ValueError(f"{path} holds {rows}, not {count} rows: delete it, and it alone is computed again")
