"""Features on disk: what the tower says, whole or not at all, computed once, and never from a shard that changed."""

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_tools.pack import pack
from seedstory.image import image_to_tensor
from seedstory.modeling.vision_tower import VisionTower
from seedstory.storystream import StoryRecord, write_jsonl
from tests.tiny import SIDE, tiny_vision_tower
from training import features
from training.feature_shards import FeatureWorker
from training.features import main, page_features

PAGES = (3, 1, 4, 2)  # of each story; ten in all, and shards of four or so cut through stories


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    torch.manual_seed(0)
    tiny_vision_tower().save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path):
    """Ten pages with a picture of noise each."""
    numbers = np.random.default_rng(0)
    folder, records = tmp_path / "data", []
    for story, count in enumerate(PAGES):
        images = [f"images/{story}-{page}.png" for page in range(count)]
        captions, orders = [f"Page {page}." for page in range(count)], list(range(count))
        records.append(StoryRecord(id=f"s{story}", images=images, captions=captions, orders=orders))
        for image in images:
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numbers.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(folder / image)
    write_jsonl(folder / "train.jsonl", records)
    return folder


def compute(data, tower, **options):
    return page_features(data, "train", tower, "cpu", **{"shard_pages": 4, "batch_size": 3} | options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "checked.json"}


def test_features_are_what_the_tower_says_of_each_page_in_order(data, tower):
    features = compute(data, tower)
    assert len(features) == 10 and features.shape == (10, 9, 6) and len(features.shards) == 3
    network = VisionTower.from_pretrained(tower).eval()
    images = [data / f"images/{story}-{page}.png" for story, count in enumerate(PAGES) for page in range(count)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        said = torch.cat([network(image_to_tensor(Image.open(path))[None]) for path in images])
    torch.testing.assert_close(features[:].float(), said.float(), atol=0.05, rtol=0)
    apart = (features[:].float()[:, None] - features[:].float()).abs().amax((2, 3)) + torch.eye(10)
    assert apart.min() > 0.1  # a picture in another's place would be seen


def test_rows_come_as_from_a_tensor(data, tower):
    features = compute(data, tower)
    whole = torch.cat([load_file(path)["features"] for path in sorted(features.folder.glob("*.safetensors"))])
    assert whole.dtype == torch.bfloat16
    rows = torch.tensor([9, 0, 4, 4, -1, 3])
    cuts = [slice(None), slice(0, 4), slice(3, 9), slice(-2, None), slice(5, 5), slice(20, 30), slice(8, 1, -3)]
    for key in [rows, rows[:0], *cuts[:-1]]:
        assert torch.equal(features[key], whole[key]), key
    assert torch.equal(features[cuts[-1]], whole[[8, 5, 2]])
    assert torch.equal(features[7], whole[7]) and torch.equal(features[-1], whole[-1])
    assert torch.equal(pickle.loads(pickle.dumps(features))[rows], whole[rows])  # as a DataLoader's worker gets them
    for beyond in (10, -11, torch.tensor([0, 10])):
        with pytest.raises(IndexError, match="10 pages"):
            features[beyond]


def test_shards_of_large_features_hold_fewer_pages(tower, tmp_path, monkeypatch):
    assert features.pages_of_a_shard(tower) == 8192
    page = 2 * 9 * 6  # bytes
    for room, pages in ((100 * page, 64), (64 * page, 64), (page - 1, 1)):
        monkeypatch.setattr(features, "SHARD_BYTES", room)
        assert features.pages_of_a_shard(tower) == pages


def test_what_is_there_is_read_and_only_what_is_missing_computed(data, tower, monkeypatch):
    first = compute(data, tower)
    before, stamps = files(first.folder), {p.name: p.stat().st_mtime_ns for p in first.folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(FeatureWorker, "write_shard", None)
        compute(data, tower)
    (first.folder / "features-00001.safetensors").unlink()
    (first.folder / "index.json").unlink()  # as a run leaves it that was killed; the index comes last
    again = compute(data, tower)
    assert again.folder == first.folder and files(again.folder) == before
    for name in ("features-00000.safetensors", "features-00002.safetensors"):
        assert (again.folder / name).stat().st_mtime_ns == stamps[name]


def test_a_run_that_dies_leaves_whole_shards_only(data, tower):
    path = data / "images/2-3.png"  # the eighth page, in the second shard
    whole = path.read_bytes()
    path.write_bytes(b"\x89PNG" + bytes(len(whole) - 4))
    with pytest.raises(ValueError, match=r"2-3\.png"):
        compute(data, tower)
    (folder,) = (data / "features").iterdir()
    assert [path.name for path in folder.iterdir()] == ["features-00000.safetensors"]
    path.write_bytes(whole)
    assert len(compute(data, tower)) == 10


@pytest.mark.parametrize("how", ["flipped", "cut", "swapped"])
def test_a_changed_shard_is_named_and_nothing_is_lost(data, tower, how):
    features = compute(data, tower)
    whole = files(features.folder)
    path = features.folder / "features-00001.safetensors"
    if how == "flipped":
        path.write_bytes(whole[path.name][:-1] + bytes([whole[path.name][-1] ^ 1]))
    elif how == "cut":
        path.write_bytes(whole[path.name][:-2])
    else:
        shutil.copy(features.folder / "features-00000.safetensors", path)
    damaged = files(features.folder)
    for _ in range(2):  # a second try is no milder
        with pytest.raises(ValueError, match=r"features-00001\.safetensors is not what it was .* delete this file"):
            compute(data, tower)
    assert files(features.folder) == damaged
    path.unlink()
    assert files(compute(data, tower).folder) == whole


def test_a_change_behind_the_systems_back_is_found_when_asked_for(data, tower):
    features = compute(data, tower)
    path = features.folder / "features-00002.safetensors"
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    compute(data, tower)
    with pytest.raises(ValueError, match="features-00002"):
        compute(data, tower, verify=True)


def test_a_deleted_shard_does_not_excuse_another_one(data, tower):
    features = compute(data, tower)
    first, second = (features.folder / f"features-0000{number}.safetensors" for number in range(2))
    first.unlink()
    content = second.read_bytes()
    second.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="features-00001"):
        compute(data, tower)


def test_other_weights_images_or_stories_have_features_of_their_own(data, tower, tmp_path):
    folders = [compute(data, tower).folder]
    torch.manual_seed(1)
    tiny_vision_tower().save_pretrained(tmp_path / "other")
    folders.append(compute(data, tmp_path / "other").folder)
    Image.new("RGB", (SIDE, SIDE)).save(data / "images/0-0.png")
    folders.append(compute(data, tower).folder)
    lines = (data / "train.jsonl").read_text().splitlines(keepends=True)
    (data / "train.jsonl").write_text("".join(reversed(lines)))
    folders.append(compute(data, tower).folder)
    assert len(set(folders)) == 4 and all(folder.is_dir() for folder in folders)


def test_packed_shards_give_the_features_of_the_folder(data, tower, tmp_path):
    index, _ = pack(data, tmp_path / "packed", shard_size=30_000)
    assert len(index.shards) > 1
    packed = compute(tmp_path / "packed", tower)
    assert packed.folder.parent == tmp_path / "packed" / "features"
    assert torch.equal(packed[:], compute(data, tower)[:])


def test_two_processes_may_compute_at_once(data, tower):
    features = compute(data, tower)
    whole = files(features.folder)
    for path in features.folder.iterdir():
        path.unlink()
    worker = FeatureWorker(str(data), "train", str(tower), str(features.folder), "cpu", 3)
    others = iter([lambda: worker.write_shard(0, 0, 4, print), lambda: compute(data, tower)])
    worker.write_shard(0, 0, 4, lambda pages: next(others)())  # after each batch another process makes headway
    assert list(others) == [] and files(features.folder) == whole
    assert torch.equal(compute(data, tower)[:], features[:])


def test_the_command_says_what_it_made(data, tower, monkeypatch, capsys):
    command = ["features", "--data", str(data), "--tower", str(tower), "--shard-pages", "4", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--split", "train"])
    main()
    assert capsys.readouterr().out.startswith("train: [10, 9, 6] in 3 shards")
    monkeypatch.setattr(sys, "argv", [*command, "--split", "train+test"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and "neither test.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "neither test.jsonl nor packed shards"),
        ({"tower_folder": "nowhere"}, "no vision tower at nowhere"),
        ({"shard_pages": 0}, "shard_pages must be at least 1"),
        ({"engine": "dask"}, "engine must be one of local, ray"),
    ],
)
def test_faults_are_said_plainly(data, tower, options, message):
    with pytest.raises(ValueError, match=message):
        page_features(**{"data": data, "split": "train", "tower_folder": tower, "device": "cpu"} | options)


def test_a_damaged_index_is_refused(data, tower):
    folder = compute(data, tower).folder
    (folder / "index.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match=r"index\.json is damaged \(its format is 'other'"):
        compute(data, tower)


def test_ray_gives_the_same_bytes(data, tower):
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    whole = files(compute(data, tower).folder)
    shutil.rmtree(data / "features")
    assert files(compute(data, tower, engine="ray").folder) == whole
    shutil.rmtree(data / "features")
    (data / "images/2-3.png").write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        compute(data, tower, engine="ray")
