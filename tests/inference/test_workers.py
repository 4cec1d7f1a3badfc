"""Stories made by two workers of Ray are those of this process, whatever happens to a worker or to the run."""

import json
import os
import socket
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from inference import evaluate as evaluation
from inference import generate
from inference.evaluate import evaluate
from inference.rollout import RolloutOptions
from inference.story_task import StoryTask, is_finished
from inference.workers import LocalWorker, RayWorkers
from seedstory.errors import RequestError
from seedstory.pipeline import StoryPipeline
from seedstory.ray_cluster import Share, connect, divide_nodes
from tests.data_tools.theatre import run_theatre
from tests.tiny import tiny_model_folder

QUICK = {"max_caption_tokens": 6, "num_inference_steps": 1, "overwrite": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def workers(model):
    """Two workers on this machine for all tests, since each takes seconds to start."""
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    ray = connect(small=True, processes=3)  # one is left for a worker that fails
    with RayWorkers(str(model), workers=2) as workers:
        yield workers
    ray.shutdown()


@pytest.fixture(scope="module")
def alone(model):
    return LocalWorker(StoryPipeline.from_pretrained(model, device="cpu"))


@dataclass(frozen=True)
class Deadly:
    """A task whose worker dies after its first page, so many times."""

    task: StoryTask
    deaths: int
    notes: Path

    pages = property(lambda self: self.task.pages)
    folders = property(lambda self: self.task.folders)

    def split(self):
        first, *others = self.task.split()
        return [Deadly(first, self.deaths, self.notes), *others]

    def make(self, pipeline):
        for page in self.task.make(pipeline):
            yield page
            if len(list(self.notes.iterdir())) < self.deaths:
                (self.notes / str(len(list(self.notes.iterdir())))).touch()
                os._exit(9)


def task(out: Path, *names: str, pages: int = 2) -> StoryTask:
    stories = [{"text": f"Mia found {name}.", "pages": pages, "seed": len(name), "out": out / name} for name in names]
    return StoryTask(tuple(story | QUICK for story in stories))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_workers_make_the_bytes_of_this_process(workers, model, tmp_path, monkeypatch, capsys):
    openings = tmp_path / "openings.jsonl"
    lines = [{"id": f"story-{n}", "text": f"Mia found {n} keys.", "heroes": ["Mia"]} for n in range(5)]
    openings.write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = {"openings": openings, "pages": 2, "steps": 1, "batch_size": 2, "model": str(model)}
    monkeypatch.setattr(generate, "RayWorkers", lambda *_, **__: nullcontext(workers))
    generate.main(out=tmp_path / "local", **common)
    generate.main(out=tmp_path / "ray", engine="ray", workers=2, **common)
    assert len(files(tmp_path / "local")) > 25
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_a_lost_worker_costs_its_story_only(workers, alone, tmp_path):
    (tmp_path / "deaths").mkdir()
    made, came = tmp_path / "ray", []
    deadly = Deadly(task(made, "a lamp", "a hat"), 99, tmp_path / "deaths")
    outcomes = list(workers.run([deadly, task(made, "a drum"), task(made, "a key")], came.append))
    assert [outcome.line for outcome in outcomes if outcome.fault] == [
        "a lamp: its worker died, most often because memory ran out or its machine is gone"
    ]
    assert len(list((tmp_path / "deaths").iterdir())) == 3, "twice with the other story, and once alone"
    list(alone.run([task(tmp_path / "local", name) for name in ("a key", "a hat", "a drum")], int))
    for name in ("a key", "a hat", "a drum"):
        assert files(made / name) == files(tmp_path / "local" / name)
    assert sum(came) == sum(outcome.task.pages for outcome in outcomes if not outcome.fault)


def test_a_run_that_was_stopped_goes_on(workers, alone, tmp_path):
    names = ["a key", "a lamp", "a hat", "a drum"]
    run = workers.run([task(tmp_path / "ray", *names[:2], pages=3), task(tmp_path / "ray", *names[2:], pages=3)], int)
    next(run)
    run.close()
    whole = [folder for name in names if is_finished(folder := tmp_path / "ray" / name)]
    before = {path: path.stat().st_mtime_ns for folder in whole for path in folder.rglob("*")}
    assert before
    tasks = [task(tmp_path / "ray", *names[:2], pages=3), task(tmp_path / "ray", *names[2:], pages=3)]
    assert not [outcome for outcome in workers.run(tasks, int) if outcome.fault]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    list(alone.run([task(tmp_path / "local", *pair, pages=3) for pair in (names[:2], names[2:])], int))
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_only_what_is_missing_of_a_batch_is_made(alone, tmp_path):
    pair = task(tmp_path / "parts", "a key", "a lamp")
    list(alone.run([pair], int))
    whole = files(tmp_path)
    (tmp_path / "parts/a lamp/index.html").unlink()
    kept = (tmp_path / "parts/a key/story.json").stat().st_mtime_ns
    assert list(alone.run([pair], int))[0].fault == ""
    assert files(tmp_path) == whole and (tmp_path / "parts/a key/story.json").stat().st_mtime_ns == kept


def test_a_story_that_cannot_be_made_is_named_and_the_others_are_made(workers, alone, tmp_path):
    for name, makers in {"ray": workers, "local": alone}.items():
        bad = task(tmp_path / name, "a key", "a lamp")
        bad.stories[0]["captions"] = ["word " * 700]
        outcomes = list(makers.run([bad, task(tmp_path / name, "a hat")], int))
        (fault,) = [outcome.line for outcome in outcomes if outcome.fault]
        assert fault.startswith("a key: the words of page 2 have "), fault
        assert sorted(path.parent.name for path in tmp_path.glob(f"{name}/*/index.html")) == ["a hat", "a lamp"]


def test_scores_are_those_of_this_process(workers, model, tmp_path, monkeypatch):
    theatre = tmp_path / "theatre"
    run_theatre("generate", "--out", theatre, "--split", "heldout", "--stories", "2")
    monkeypatch.setattr(evaluation, "RayWorkers", lambda *_, **__: nullcontext(workers))
    rollout = RolloutOptions(pages=2, steps=1, batch_size=1)
    local = evaluate(str(model), rollout, data=theatre, stories=2, out=tmp_path / "local")
    ray = evaluate(str(model), rollout, data=theatre, stories=2, out=tmp_path / "ray", engine="ray", workers=2)
    assert {**ray, "seconds_per_page": 0} == {**local, "seconds_per_page": 0}
    one, two = (files(tmp_path / name) for name in ("local", "ray"))
    assert one.pop("rollout.json") and two.pop("rollout.json")
    assert one == two and len(one) > 10


def test_bad_requests_are_one_line(workers, model, tmp_path, capsys):
    with pytest.raises(RequestError, match="a worker cannot load the model: there is no model nowhere"):
        list(RayWorkers("nowhere", workers=3).run([task(tmp_path, "a key")], int))
    with pytest.raises(RequestError, match=r"workers must be from 1 to 10,000, not 0"):
        RayWorkers(str(model), workers=0)
    with pytest.raises(typer.Exit):
        generate.main(openings=tmp_path, engine="dask")
    assert capsys.readouterr().err.splitlines()[-1] == "error: the engine must be one of local, ray, not 'dask'"
    with pytest.raises(ValueError, match="workers and an address are for the engine ray"):
        evaluate("mini", RolloutOptions(), workers=2)
    with pytest.raises(ValueError, match="--engine is for a model: the stories in .* are generated already"):
        evaluate(str(tmp_path), RolloutOptions(), engine="ray")


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RequestError, match=rf"the Ray cluster at 127.0.0.1:{port} cannot be reached: .* ray start"):
        connect(f"127.0.0.1:{port}")
    with pytest.raises(RequestError, match="'ray://head:10001' is no address of a Ray cluster: give HOST:PORT"):
        connect("ray://head:10001")


@pytest.mark.parametrize(
    ("nodes", "workers", "share"),
    [
        ([(2, 0)], None, Share(2, 1.0)),
        ([(16, 0)], 3, Share(3, 5.0)),
        ([(8, 0), (8, 0)], 3, Share(3, 4.0)),  # shares of 5 would be but two
        ([(2, 0)], 3, Share(3, 0.5)),
        ([(16, 2), (16, 2), (4, 0)], None, Share(4, 8.0, 1.0)),
        ([(16, 2)], 4, Share(4, 4.0, 0.5)),
        ([(1, 2)], None, Share(2, 0.0, 1.0)),
    ],
)
def test_workers_share_all_that_there_is(nodes, workers, share):
    assert divide_nodes(nodes, workers) == share


def test_a_cluster_without_room_is_refused():
    with pytest.raises(RequestError, match="no CPU and no GPU"):
        divide_nodes([(0, 0)], None)
