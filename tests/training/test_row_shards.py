"""Rows on disk: shared out, computed once, mapped, and never read from a file that is not what its name says."""

import pickle
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from training.row_shards import MappedRows, joined, store_rows

COUNTS = [4, 4, 3]
WHOLE = torch.arange(22.0).reshape(11, 2).to(torch.bfloat16)


def process(rank=0, processes=1):
    """All that `store_rows` asks of a back end."""
    return SimpleNamespace(rank=rank, processes=processes, all_or_none=nullcontext)


@pytest.fixture
def computed(monkeypatch):
    """The numbers of the files that were computed."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return []


def store(folder, computed, backend=None):
    def compute(number):
        computed.append(number)
        return {"rows": WHOLE.split(COUNTS)[number]}

    return store_rows(folder, COUNTS, compute, backend or process())


def test_rows_are_read_as_from_one_tensor(tmp_path, computed):
    rows = MappedRows(store(tmp_path, computed), "rows", WHOLE.shape)
    assert rows.shape == WHOLE.shape and len(rows) == 11
    numbers = torch.tensor([10, 0, 4, 4, -1])
    for key in (numbers, slice(None), slice(2, 9), slice(4, 8), 7):
        assert torch.equal(rows[key], WHOLE[key]), key
    assert torch.equal(rows[9:1:-3], WHOLE[[9, 6, 3]])
    assert torch.equal(pickle.loads(pickle.dumps(rows))[numbers], WHOLE[numbers])
    with pytest.raises(IndexError, match="there are 11 rows, not 12"):
        rows[torch.tensor([11])]


def test_parts_are_joined_and_cut(tmp_path, computed):
    rows = MappedRows(store(tmp_path, computed), "rows", WHOLE.shape)
    both = joined([rows, rows], 13)
    assert torch.equal(both[:], torch.cat([WHOLE, WHOLE[:2]]))
    assert torch.equal(both[torch.tensor([-1, 3])], WHOLE[[1, 3]])
    with pytest.raises(IndexError):
        both[torch.tensor([13])]


def test_what_is_there_is_not_computed_again(tmp_path, computed):
    (first, _), *_ = store(tmp_path, computed)
    assert computed == [0, 1, 2]
    store(tmp_path, computed)
    assert computed == [0, 1, 2]
    first.unlink()
    store(tmp_path, computed)
    assert computed == [0, 1, 2, 0]


def test_processes_compute_their_share_and_what_their_own_disk_lacks(tmp_path, computed, monkeypatch):
    # Two processes on two machines: this one's share is the second file, the others lie on a disk that it cannot see.
    store(tmp_path, computed, process(rank=1, processes=2))
    assert computed == [1, 0, 2]
    # Two on one machine: the other one writes its share meanwhile.
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    computed.clear()
    with pytest.raises(FileNotFoundError):  # it does not, here
        store(tmp_path / "other", computed, process(rank=1, processes=2))
    assert computed == [1]


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, computed):
    (path, _), *_ = store(tmp_path, computed)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{path.name} is damaged .*: delete it, and it alone is computed again"):
        store(tmp_path, computed)
    path.write_bytes((tmp_path / "000000008-000000011.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"holds \{'rows': 3\}, not 4 rows"):
        store(tmp_path, computed)
