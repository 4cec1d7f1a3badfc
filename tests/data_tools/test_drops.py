"""Drops are counted by reason and travel with the data set."""

import io

import pytest
from rich.console import Console

from data_tools.drops import Drop, Tally


def test_tally_counts_writes_and_reads_back(tmp_path):
    tally = Tally()
    tally.add(Drop("s-1", 3, "too-small", "5 x 5 px"))
    tally.add([Drop("s-2", None, "license"), Drop("s-3", 0, "too-small", "Zoé \udcff")])
    assert tally.counts() == {"too-small": 2, "license": 1}
    tally.write(tmp_path / "new")
    back = Tally.read(tmp_path / "new")
    assert len(back) == 3
    assert list(back)[:2] == list(tally)[:2]
    assert (tally + back).counts() == {"too-small": 4, "license": 2}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["drops.jsonl"]


def test_without_drops_there_is_no_file(tmp_path):
    Tally([Drop("s", None, "x")]).write(tmp_path)
    Tally().write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(Tally.read(tmp_path)) == 0


@pytest.mark.parametrize("line", ["[1]", "{", '{"story": "s"}', "7"])
def test_foreign_line_is_named(tmp_path, line):
    (tmp_path / "drops.jsonl").write_text('{"story": "s", "page": null, "reason": "x"}\n' + line + "\n")
    with pytest.raises(ValueError, match="drops.jsonl, line 2: not a drop"):
        Tally.read(tmp_path)


def test_table_names_reason_count_and_example():
    out = io.StringIO()
    tally = Tally([Drop("s-1", 3, "too-small", "5 x 5 [px]"), Drop("s-2", None, "too-small")])
    tally.show(Console(file=out, width=100))
    assert [line.split() for line in out.getvalue().splitlines()][1][:2] == ["too-small", "2"]
    assert "s-1, page 3: 5 x 5 [px]" in out.getvalue()
    Tally().show(Console(file=out))
    assert out.getvalue().endswith("Nothing was dropped.\n")
