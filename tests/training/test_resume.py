"""What a run leaves behind however it ends, and what it wants to find when it goes on."""

import hashlib
import json
import threading

import pytest
import torch

from tests.training.test_loop import assert_same_bits, last_checkpoint, losses
from tests.training.toy_stage import PowerCut, StopsAtEighthStep, ToyStage, toy_config
from training.checkpoint import lock_run
from training.loop import train


def lines(folder):
    return [json.loads(line) for line in (folder / "toy.jsonl").read_text().splitlines()]


def test_means_of_a_log_line_are_of_all_its_steps_though_the_run_stopped_between(tmp_path):
    train(toy_config(tmp_path / "whole", log_every=4), ToyStage)
    with pytest.raises(PowerCut):
        train(toy_config(tmp_path / "halves", log_every=4), StopsAtEighthStep)
    train(toy_config(tmp_path / "halves", log_every=4), ToyStage)
    assert sorted(losses(tmp_path / "whole")) == [3, 7, 9]
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")
    assert losses(tmp_path / "whole", "grad_norm") == losses(tmp_path / "halves", "grad_norm")


def test_an_evaluation_that_was_cut_short_is_done_again_once(tmp_path):
    class Killed(ToyStage):
        def evaluate(self, step, recorder, backend):
            super().evaluate(step, recorder, backend)
            raise PowerCut

    train(toy_config(tmp_path / "whole"), ToyStage)
    for _ in range(2):
        with pytest.raises(PowerCut):
            train(toy_config(tmp_path / "cut"), Killed)
    train(toy_config(tmp_path / "cut"), ToyStage)
    assert losses(tmp_path / "whole", "heldout") == losses(tmp_path / "cut", "heldout")
    assert [line["step"] for line in lines(tmp_path / "cut") if "heldout" in line] == [4, 9]
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")
    before = lines(tmp_path / "cut")
    train(toy_config(tmp_path / "cut"), ToyStage)
    assert lines(tmp_path / "cut") == before, "of a finished run nothing is done again"


def test_an_evaluation_may_draw_random_numbers(tmp_path):
    class Draws(ToyStage):
        def evaluate(self, step, recorder, backend):
            recorder.write(step, drawn=torch.rand(()).item())

    for every in (2, 10):
        train(toy_config(tmp_path / str(every), seed=30, eval_every=every), Draws)  # with dropout
    assert_same_bits(tmp_path / "2", tmp_path / "10")
    assert len(set(losses(tmp_path / "2", "drawn").values())) == 5


def test_an_export_takes_the_place_of_the_one_before_when_it_is_whole(tmp_path):
    class Exports(ToyStage):
        fails = False

        def export(self, folder):
            super().export(folder)
            (folder / "model").mkdir()
            for part in ("one", "two"):
                if self.fails and part == "two":
                    raise PowerCut
                (folder / "model" / part).write_text(str(self.net[0].bias.tolist()))

    class Fails(Exports):
        fails = True

    train(toy_config(tmp_path, steps=5), Exports)
    before = {path.name: path.read_text() for path in (tmp_path / "model").iterdir()}
    assert len(before) == 2
    with pytest.raises(PowerCut):
        train(toy_config(tmp_path, steps=5, resume="never", seed=1), Fails)
    assert {path.name: path.read_text() for path in (tmp_path / "model").iterdir()} == before
    train(toy_config(tmp_path, steps=5, seed=1), Exports)
    after = {path.name: path.read_text() for path in (tmp_path / "model").iterdir()}
    assert after.keys() == before.keys() and after["one"] == after["two"] != before["one"]
    assert not list(tmp_path.glob(".export*"))


def test_two_runs_of_a_stage_do_not_share_a_folder_but_two_stages_may(tmp_path):
    class Other(ToyStage):
        name = "other"

    with lock_run(tmp_path / "checkpoints" / ".toy.lock"):
        with pytest.raises(ValueError, match="another run of this stage holds .*toy.lock: wait until it ends"):
            train(toy_config(tmp_path), ToyStage)
        train(toy_config(tmp_path, steps=1), Other)
    train(toy_config(tmp_path, steps=1), ToyStage)


def test_what_the_run_was_made_of_has_to_be_the_same(tmp_path):
    data, part = tmp_path / "train.jsonl", tmp_path / "part"
    part.mkdir()
    (part / "config.json").write_text("{}")
    data.write_text("a story\n")

    class Made(ToyStage):
        sources = (data, part)

    out = tmp_path / "out"
    train(toy_config(out), Made)
    train(toy_config(out), Made)
    (part / "config.json").write_text('{"width": 2}')
    with pytest.raises(ValueError, match="part changed since .*toy was begun: choose another `out`"):
        train(toy_config(out), Made)
    as_if_older(out / "checkpoints/toy/step-000010", without=("sources", "window"))
    train(toy_config(out), Made)


def as_if_older(checkpoint, without):
    """Take entries out of a checkpoint's state."""
    state = json.loads((checkpoint / "state.json").read_text())
    content = json.dumps({key: value for key, value in state.items() if key not in without}).encode()
    (checkpoint / "state.json").write_bytes(content)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"]["state.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_batches_are_built_a_step_ahead_and_change_nothing(tmp_path):
    class Watched(ToyStage):
        events = []

        def batch(self, samples, kind):
            step = samples[0][0] // self.config.batch_size
            self.events.append(("built", step, threading.current_thread() is threading.main_thread()))
            return super().batch(samples, kind)

        def forward(self, batch, progress):
            self.events.append(("taken", batch["step"], True))
            return super().forward(batch, progress)

    train(toy_config(tmp_path / "watched"), Watched)
    built = [(step, here) for event, step, here in Watched.events if event == "built"]
    assert built == [(step, False) for step in range(10)]
    taken = [step for event, step, _ in Watched.events if event == "taken"]
    assert taken == list(range(10))
    for step in range(10):
        assert Watched.events.index(("built", step, False)) < Watched.events.index(("taken", step, True))


@pytest.mark.parametrize("stage", [ToyStage, StopsAtEighthStep])
def test_the_thread_that_builds_batches_ends_with_the_run(tmp_path, stage):
    before = threading.active_count()
    if stage is StopsAtEighthStep:
        with pytest.raises(PowerCut):
            train(toy_config(tmp_path, save_every=1, keep_checkpoints=9), stage)
        steps = sorted(path.name for path in (tmp_path / "checkpoints/toy").iterdir())
        assert steps[-1] == "step-000007", "the fault belongs to the step whose batch it is, not to the one before"
    else:
        train(toy_config(tmp_path), stage)
        assert last_checkpoint(tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
    assert threading.active_count() <= before + 1  # TensorBoard's writer may still be ending
