"""The study of long stories, with a tiny random model on a tiny data set."""

import json
import math

import pytest
import typer

from inference.long_report import Measurement, markdown, page_ranges, summarize
from inference.long_story import main, make_variants, page_distances
from seedstory.storystream import read_jsonl
from tests.data_tools.theatre import run_theatre
from tests.tiny import tiny_model_folder

OPTIONS = {"lengths": "4,9", "stories": 1, "window": "2,3", "max_sink_tokens": "80", "images": 2, "steps": 1}
TIMES = {"seconds", "process_bytes", "process_mb"}


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theatre")
    run_theatre("generate", "--out", folder, "--split", "heldout", "--stories", "2", "--pages", "16", "--size", "48")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def study(theatre, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    main(theatre, out, model=model, json_file=out / "copy.json", **OPTIONS)
    return out


def untimed(value):
    """A JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: untimed(part) for key, part in value.items() if key not in TIMES}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def test_the_report_has_every_policy_and_range(study):
    report = json.loads((study / "report.json").read_text())
    assert report == json.loads((study / "copy.json").read_text())
    labels = {"dense"} | {
        f"{name} w{window}" for name in ("recompute", "window", "sink", "mm_sink") for window in (2, 3)
    }
    assert set(report["table"]) == {"2-4", "5-9"}
    for rows in report["table"].values():
        assert set(rows) == labels
        for row in rows.values():
            assert {"perplexity", "feature_error", "feature_mse", "species_and_outfit", "seconds", "cache_mb"} <= set(
                row
            )
            assert row["perplexity"]["mean"] > 1 and 0 < row["feature_error"]["mean"] < 2
    assert set(report["absence"]) == set(report["curves"]) == labels
    assert [page for page, _ in report["curves"]["dense"]["perplexity"]] == list(range(2, 10))
    text = (study / "report.md").read_text()
    assert "## Pages 5-9" in text and "| mm_sink w2 |" in text
    assert (study / "pages.png").read_bytes()[:4] == b"\x89PNG" and b"<svg" in (study / "pages.svg").read_bytes()


def test_policies_differ_only_when_pages_have_left(study):
    table = json.loads((study / "report.json").read_text())["curves"]
    errors = {label: dict(curves["feature_error"]) for label, curves in table.items()}
    kept = ("window w3", "sink w3", "mm_sink w3")
    for page in (2, 3, 4):  # with a window of 3, page 5 is the first that is written after an eviction
        assert {errors[label][page] for label in kept} == {errors["dense"][page]}
    for page in (5, 6):
        assert len({errors[label][page] for label in ("dense", *kept)}) == 4
    held = {label: dict(curves["cached_tokens"]) for label, curves in table.items()}
    assert held["window w3"][9] < held["sink w3"][9] <= held["mm_sink w3"][9] < held["dense"][9]


def test_a_stopped_study_goes_on_and_two_runs_agree(study, theatre, model, tmp_path):
    report = json.loads((study / "report.json").read_text())
    results = sorted((study / "results").iterdir())
    assert len(results) == 9
    stamps = [path.stat().st_mtime_ns for path in results]
    before = results[0].read_bytes()
    results[0].unlink()
    main(theatre, study, model=model, **OPTIONS)
    assert sorted((study / "results").iterdir()) == results
    assert [path.stat().st_mtime_ns for path in results[1:]] == stamps[1:]
    assert untimed(json.loads(results[0].read_text())) == untimed(json.loads(before))
    assert untimed(json.loads((study / "report.json").read_text())) == untimed(report)
    with pytest.raises(typer.BadParameter, match="another seed: give another --out"):
        main(theatre, study, model=model, seed=1, **OPTIONS)


def test_free_writing_measures_repetition(theatre, model, tmp_path):
    main(theatre, tmp_path, model=model, mode="free", policies="dense:4,window", **OPTIONS | {"window": "2"})
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["table"]["2-4"]) == {"dense", "window", "the data set"}
    assert set(report["table"]["5-9"]) == {"window", "the data set"}
    assert {"distinct_2", "repeated_4", "seconds", "cache_mb"} <= set(report["table"]["2-4"]["window"])
    assert (tmp_path / "pages.png").is_file()


def test_requests_that_cannot_be_met(theatre, model, tmp_path):
    for options, message in (
        ({"mode": "sung"}, "choose scripted or free"),
        ({"policies": "lru"}, "unknown policy 'lru'"),
        ({"policies": "dense:x"}, "number of pages after the colon"),
        ({"window": "2,b"}, "whole numbers"),
        ({"window": "0"}, "window_pages must be at least 1"),
        ({"stories": 3}, "has 2 stories, not 3"),
        ({"lengths": "10,20"}, "has 16 pages, not 20: give --lengths 10,16, or write longer ones with python -m"),
        ({"lengths": "10,25,200"}, "has 16 pages, not 200: give --lengths 10,16, or write"),
        ({"lengths": "10,5"}, "must grow"),
        ({"split": "other"}, "write it with python -m data_tools.paper_theatre"),
    ):
        with pytest.raises(typer.BadParameter, match=message):
            main(theatre, tmp_path, model=model, **OPTIONS | options)
    assert list(tmp_path.iterdir()) == []


def test_variants_name_what_differs():
    lists = {"window_pages": [12, 5], "first_tokens": [64], "salient_pages": [9], "kept_images": [3]}
    lists |= {"image_ends": [2, 4], "max_sink_tokens": [192]}
    variants = {v.label: v for v in make_variants("recompute:50, dense,window,sink,mm_sink", 100, **lists)}
    assert set(variants) == {
        "dense",
        *(f"{name} w{window}" for name in ("recompute", "window", "sink") for window in (12, 5)),
        *(f"mm_sink w{window} e{ends}" for window in (12, 5) for ends in (2, 4)),
    }
    assert {v.label for v in variants.values() if v.pages == 50} == {"recompute w12", "recompute w5"}
    policy = variants["mm_sink w5 e2"].policy
    assert (policy.window_pages, policy.image_head, policy.image_tail, policy.max_sink_tokens) == (5, 2, 2, 192)


def test_absence_is_counted_in_pages(theatre):
    record = next(read_jsonl(theatre / "long-heldout.jsonl"))
    for page, absences in enumerate(page_distances(record)):
        for name, away in absences.items():
            before = [n for n in range(page) if name in {actor["name"] for actor in record.pages[n]["actors"]}]
            assert away == (page - before[-1] if before else None)


def test_figures_by_hand():
    def character(right, away):
        return dict.fromkeys(("species", "outfit", "hat", "pose", "expression"), right) | {"hero": True, "away": away}

    costs = {"cached_tokens": 7, "cache_bytes": 2_000_000, "process_bytes": 5_000_000}
    pages = [
        {"page": 1, "seconds": 9, "log_likelihood": -100, "caption_tokens": 1} | costs,
        {"page": 2, "seconds": 1, "log_likelihood": -3, "caption_tokens": 2, "characters": [character(True, 1)]}
        | costs,
        {"page": 3, "seconds": 5, "log_likelihood": -5, "caption_tokens": 2, "characters": [character(False, 20)]}
        | costs,
    ]
    stories = [Measurement("sink", "one", pages), Measurement("sink", "two", pages[:2])]
    report = summarize(stories, page_ranges([3]), away=12)
    row = report["table"]["2-3"]["sink"]
    assert row["perplexity"]["mean"] == pytest.approx((math.exp(2) + math.exp(1.5)) / 2)
    assert row["species_and_outfit"]["mean"] == row["hero"]["mean"] == 0.75 and row["returning"] == {
        "mean": 0.0,
        "error": None,
        "stories": 1,
    }
    assert row["seconds"]["mean"] == 2 and row["cache_mb"]["mean"] == 2
    assert report["absence"]["sink"] == {"1": {"share": 1.0, "characters": 2}, "13-24": {"share": 0.0, "characters": 1}}
    assert report["curves"]["sink"]["seconds"] == [[2, 1.0], [3, 5.0]]
    text = {"mode": "scripted", "model": {"name": "m"}, "data": "d", "settings": {}, "away": 12} | report
    assert "| sink | 5.94 ± 1.45 |" in markdown(text)
