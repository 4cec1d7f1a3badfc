"""What a run says while it goes on."""

import pytest

from training import progress
from training.progress import StepProgress, format_duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then_with_the_time_that_is_left(clock):
    said: list[str] = []
    left = StepProgress("story", 50, 10, said.append, every=20)
    for done in range(11, 51):
        clock[0] += 6
        left.update(done)
    assert said[0] == "step 14 of 50, 4 min left"
    assert said[-1] == "step 46 of 50, 24 s left"
    assert len(said) == 9


def test_other_processes_are_silent(clock):
    left = StepProgress("story", 5, 0, None)
    clock[0] += 100
    left.update(1)
    left.close()


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (100, "2 min"), (3 * 3600, "3 h 00 min")])
def test_spans_in_words(seconds, words):
    assert format_duration(seconds) == words
