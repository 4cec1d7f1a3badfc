"""Every engine gives the same results in the same order, and says on which item a step failed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_tools.engine import StepError, run

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Job:
    id: str
    number: int


def to_square(number: int) -> int:
    return number * number


def slow_when_even(number: int) -> int:
    time.sleep(0.02 * (number % 2 == 0))
    return number


def refuse_three(job: Job) -> int:
    if job.number == 3:
        raise KeyError("no such page")
    return job.number


def die(number: int) -> int:
    if number == 2:
        os._exit(9)
    return number


def test_processes_give_what_inline_gives_in_order():
    numbers = range(40)
    plain = list(run(slow_when_even, numbers))
    assert plain == list(numbers)
    assert list(run(slow_when_even, iter(numbers), engine="processes", workers=3)) == plain


def test_ray_gives_what_inline_gives_in_order():
    pytest.importorskip("ray.data", reason="Ray is not installed (extra `ray`)")
    assert list(run(slow_when_even, range(40), engine="ray", workers=2)) == list(range(40))
    assert list(run(to_square, [], engine="ray")) == []
    with pytest.raises(StepError, match="look failed on story-3: KeyError: 'no such page'"):
        list(run(refuse_three, [Job(f"story-{n}", n) for n in range(5)], engine="ray", workers=2, label="look"))


def test_inline_takes_items_only_when_needed():
    taken = []
    results = run(to_square, (taken.append(n) or n for n in range(100)))
    assert [next(results), next(results)] == [0, 1]
    assert taken == [0, 1]


def test_processes_take_a_bounded_number_of_items_ahead():
    taken = []
    results = run(to_square, (taken.append(n) or n for n in range(1000)), engine="processes", workers=1)
    assert next(results) == 0
    assert len(taken) < 10
    results.close()


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_failing_step_names_the_item_after_the_results_before_it(engine):
    jobs = [Job(f"story-{n}", n) for n in range(6)]
    results = run(refuse_three, jobs, engine=engine, workers=2, label="look")
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StepError, match=r"^look failed on story-3: KeyError: 'no such page'$"):
        next(results)


def test_a_dead_worker_is_an_error_not_a_hang():
    with pytest.raises(StepError, match=r"a worker process died at \d or soon after, .*: run again with fewer workers"):
        list(run(die, range(6), engine="processes", workers=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"engine": "threads"}, "engine must be one of inline, processes, ray"), ({"workers": 0}, "at least 1")],
)
def test_wrong_requests_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        run(to_square, [1], **options)


def test_workers_end_with_a_killed_parent(tmp_path):
    (tmp_path / "endless.py").write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from data_tools.engine import run\n"
        "def work(folder):\n"
        "    Path(folder, 'pid').write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    list(run(work, [sys.argv[1]], engine='processes', workers=1))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, tmp_path / "endless.py", tmp_path], env=environment)
    try:
        note = tmp_path / "pid"
        wait_until(lambda: note.is_file() and note.read_text())
        worker = int(note.read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: not alive(worker))


def alive(process: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent to notice does not."""
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited for a minute in vain")
