"""The command that makes a data set of the paper theatre."""

import pytest

from data_tools.paper_theatre.__main__ import main


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_write_the_bytes_of_one(tmp_path):
    for workers in ("1", "2"):
        what = ["--stories", "2", "--loose-pages", "9", "--size", "32"]
        main(["--out", str(tmp_path / workers), "--workers", workers, *what])
    one = files(tmp_path / "1")
    assert len([path for path in one if path.suffix == ".jsonl"]) == 2 and len(one) > 20
    assert one == files(tmp_path / "2")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_page_that_cannot_be_written_ends_with_one_line_and_no_data_set(tmp_path, workers, capsys):
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path), "--loose-pages", "3", "--workers", workers])
    assert stop.value.code == 2
    assert "loose-train failed on" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
