"""Shards give back what was packed, byte for byte, and let nothing through that the packer would not write."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedstory.image import MAX_BYTES
from seedstory.shards import (
    BLOCK,
    Index,
    Shard,
    ShardReader,
    StorySampler,
    image_member,
    padded,
    read_sample,
    story_key,
    tar_header,
)
from seedstory.storystream import StoryRecord

KEY = "000003-mia"


def member(name: str, data: bytes) -> bytes:
    return tar_header(name, len(data)) + data + bytes(padded(len(data)) - len(data))


def record(pages: int = 1, **more) -> StoryRecord:
    lists = {"images": [f"{n}.png" for n in range(pages)], "captions": [""] * pages, "orders": list(range(pages))}
    return StoryRecord(id="mia", **lists, **more)


def story(pages: int = 1) -> list[bytes]:
    """The members of a story, to be joined."""
    images = [member(image_member(KEY, page, "png"), b"picture %d" % page) for page in range(pages)]
    return [member(f"{KEY}.json", record(pages).to_json().encode()), *images]


def shard_folder(folder: Path, packed: list[bytes], **changes) -> Path:
    """A folder with one shard that the index describes, but for the changes."""
    (folder / "train-000000.tar").write_bytes(b"".join(packed) + bytes(2 * BLOCK))
    places, at = [], 0
    for data in packed:
        places.append(("mia", at, len(data), 1))
        at += len(data)
    shard = {"name": "train-000000.tar", "split": "train", "bytes": at + 2 * BLOCK, "sha256": "", "stories": places}
    index = {"format": "seedstory shards 1", "layout": "webdataset", "source": {}, "shards": [shard | changes]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def test_a_header_is_read_by_tarfile_as_it_was_meant():
    data = member("a-1.000.webp", b"x" * 700) + bytes(2 * BLOCK)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (info,) = archive.getmembers()
        assert info.isreg() and (info.name, info.size) == ("a-1.000.webp", 700)
        assert (info.mtime, info.uid, info.mode) == (0, 0, 0o644)
        assert archive.extractfile(info).read() == b"x" * 700


@given(st.integers(0, 10**7), st.text(max_size=80))
def test_a_key_is_plain_and_begins_with_the_number(number, id):
    key = story_key(number, id)
    name = image_member(key, 10_000, "webp")
    assert key.startswith(f"{number:06d}") and key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    assert tar_header(name, 0)[:100].rstrip(b"\0").decode() == name


def test_a_story_is_read_and_its_folder_is_light_to_send(tmp_path):
    reader = ShardReader(shard_folder(tmp_path, [b"".join(story())] * 3), "train")
    assert len(reader) == 3 and reader.ids == ["mia"] * 3 and reader.pages.tolist() == [1, 1, 1]
    assert [one.record for one in reader] == [record()] * 3
    assert reader[-1].images == [b"picture 0"] and reader[-1].key == KEY
    assert pickle.loads(pickle.dumps(reader))[1].record == record()
    with pytest.raises(IndexError):
        reader[3]


def rogue(name: str, **changes) -> bytes:
    """A member as `tarfile` writes it, with anything changed."""
    info = tarfile.TarInfo(name)
    content = changes.pop("content", b"")
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(padded(len(content)) - len(content))


IMAGE = image_member(KEY, 0, "png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (rogue(IMAGE, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "no plain member"),
        (rogue(IMAGE, type=tarfile.LNKTYPE, linkname="../x"), "no plain member"),
        (rogue(IMAGE, type=tarfile.CHRTYPE), "no plain member"),
        (rogue(IMAGE, type=tarfile.FIFOTYPE), "no plain member"),
        (rogue(IMAGE, type=tarfile.GNUTYPE_SPARSE), "no plain member"),
        (rogue(IMAGE, type=tarfile.XHDTYPE, content=b"20 path=../../evil\n"), "no plain member"),
        (member("../" + IMAGE, b""), "was due, not '../"),
        (member("/etc/" + IMAGE, b""), "was due, not '/etc/"),
        (member(image_member(KEY, 0, "pkl"), b""), "picture of page 0 was due, not '000003-mia.000.pkl'"),
        (member(image_member(KEY, 1, "png"), b""), "picture of page 0 was due"),
        (member(image_member("000004-tom", 0, "png"), b""), "picture of page 0 was due"),
        (b"", "picture of page 0 was due"),
        (member(IMAGE, b"") + member(image_member(KEY, 1, "png"), b""), "the end was due"),
        (tar_header(IMAGE, 10**9), "longer than its story"),
        (tar_header(IMAGE, 0)[:124] + b"-0000000001\0" + tar_header(IMAGE, 0)[136:], "no plain member"),
        (tar_header(IMAGE, 0)[:124] + b"\x80" + b"\0" * 10 + b"\1" + tar_header(IMAGE, 0)[136:], "no plain member"),
        (b"\0" * BLOCK, "no plain member"),
        (b"\xff" * 100, "no plain member"),
    ],
)
def test_rogue_members_do_not_come_through(data, message):
    with pytest.raises(ValueError, match=message):
        read_sample(story()[0] + data)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b"", "a record was due"),
        (member("../x.json", b"{}"), "a record was due"),
        (member(f"{KEY}.pkl", pickle.dumps([1])), "a record was due"),
        (member(f"{KEY}.json", b"{}"), "missing field 'id'"),
        (member(f"{KEY}.json", b"\xff"), "not UTF-8"),
        (member(f"{KEY}.json", b"[" * 10**5), "nested too deeply"),
    ],
)
def test_a_story_begins_with_its_record(first, message):
    with pytest.raises(ValueError, match=message):
        read_sample(first)


def test_an_image_beyond_the_limit_is_refused():
    with pytest.raises(ValueError, match="picture of page 0 was due, not"):
        read_sample(story()[0] + member(IMAGE, bytes(MAX_BYTES + 1)))


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.binary(min_size=1, max_size=3))
def test_a_damaged_story_is_an_error_or_has_other_bytes(place, noise):
    data = b"".join(story(2))
    at = place % len(data)
    broken = data[:at] + noise + data[at + len(noise) :]
    try:
        read_sample(broken)
    except ValueError:
        pass


def test_a_shard_that_was_changed_is_noticed(tmp_path):
    data = b"".join(story())
    folder = shard_folder(tmp_path, [data, data])
    shard = folder / "train-000000.tar"
    reader = ShardReader(folder)
    assert "SHA-256" in reader.verify()[0]  # this index knows none
    shard.write_bytes(data[:BLOCK] + b"{" + data[BLOCK + 1 :] * 2)
    with pytest.raises(ValueError, match="changed its size|not what it was"):
        reader[1]
    with pytest.raises(ValueError, match="bytes, but had .* when it was packed"):
        ShardReader(folder)
    shard.unlink()
    with pytest.raises(ValueError, match="cannot read shard"):
        ShardReader(folder)
    os.mkfifo(shard)
    with pytest.raises(ValueError, match="not a plain file"):
        ShardReader(folder)


def test_another_story_at_its_place_is_noticed(tmp_path):
    folder = shard_folder(tmp_path, [b"".join(story())], stories=[("tom", 0, len(b"".join(story())), 1)])
    with pytest.raises(ValueError, match="when story 'tom' was packed: it is story 'mia' of 1 pages"):
        ShardReader(folder)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../train-000000.tar"},
        {"name": "/etc/passwd"},
        {"name": "pipe:cat /etc/passwd"},
        {"name": 5},
        {"bytes": -1},
        {"stories": [["mia", 0, 10**9, 1]]},
        {"stories": [["mia", -512, 512, 1]]},
        {"stories": [["mia", 0, 512]]},
        {"stories": [5]},
        {"stories": None},
        {"surprise": 1},
    ],
)
def test_a_rogue_index_is_refused(tmp_path, changes):
    with pytest.raises(ValueError, match="is no index of shards .*: pack the data set again"):
        ShardReader(shard_folder(tmp_path, [b"".join(story())], **changes))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "\xff", '{"format": "seedstory shards 9"}', "[" * 10**5])
def test_what_is_no_index_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text, "latin-1")
    with pytest.raises(ValueError, match="is no index of shards"):
        Index.read(tmp_path)
    with pytest.raises(ValueError, match="there is no .*pack"):
        Index.read(tmp_path / "nowhere")


def test_an_index_survives(tmp_path):
    shards = [Shard(f"train-{n:06d}.tar", "train", 4096, "ab", [(f"s {n} é", 0, 1024, 2)]) for n in range(3)]
    Index("webdataset", {"files": {}}, shards).write(tmp_path)
    back = Index.read(tmp_path)
    assert back.source == {"files": {}} and [tuple(one.stories[0]) for one in back.shards] == [
        one.stories[0] for one in shards
    ]
    Index("parquet", {}, []).write(tmp_path)
    with pytest.raises(ValueError, match="holds parquet files"):
        ShardReader(tmp_path)


def test_a_wrong_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no split 'test': it has train"):
        ShardReader(shard_folder(tmp_path, [b"".join(story())]), "test")


@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_holds_each_story_once(length, seed, epoch):
    order = StorySampler(length, seed=seed)
    assert sorted(order.permutation(epoch)) == list(range(length))
    drawn = [next(order) for _ in range(2 * length)]
    assert drawn == [*order.permutation(0), *order.permutation(1)]


def test_the_order_is_the_same_for_ever():
    # Held fixed: a run that resumes under another version of anything must see the stories it has not seen.
    assert StorySampler(10, seed=7).permutation(0).tolist() == [8, 5, 9, 4, 1, 0, 2, 6, 7, 3]
    assert StorySampler(5, shuffle=False).permutation(3).tolist() == [0, 1, 2, 3, 4]
    big = StorySampler(10_000).permutation(0)
    assert abs(np.corrcoef(big, np.arange(10_000))[0, 1]) < 0.03
    assert abs(np.corrcoef(big, StorySampler(10_000).permutation(1))[0, 1]) < 0.03


@given(st.integers(4, 40), st.integers(1, 4), st.integers(0, 100))
def test_ranks_share_an_epoch(length, world, steps):
    whole = StorySampler(length)
    ranks = [StorySampler(length, rank=rank, world=world) for rank in range(world)]
    rows = [[next(order) for order in ranks] for _ in range(length // world)]
    assert [number for row in rows for number in row] == whole.permutation(0)[: length // world * world].tolist()


@given(st.integers(4, 40), st.integers(0, 90), st.integers(1, 4), st.integers(1, 4))
def test_an_order_resumes_exactly_even_with_other_ranks(length, steps, before, after):
    ranks = [StorySampler(length, seed=1, rank=rank, world=before) for rank in range(before)]
    drawn = [[next(order) for order in ranks] for _ in range(steps)]
    (state,) = {json.dumps(order.state_dict()) for order in ranks}
    resumed = [StorySampler(length, seed=1, rank=rank, world=after) for rank in range(after)]
    for order in resumed:
        order.load_state_dict(json.loads(state))
    if before == after:
        assert [[next(order) for order in ranks] for _ in range(50)] == [
            [next(order) for order in resumed] for _ in range(50)
        ]
        return
    position = ranks[0].position
    seen = [number for row in drawn[steps - position // before :] for number in row]
    new = [next(order) for _ in range((length - position) // after) for order in resumed]
    assert {order.epoch for order in resumed} == {ranks[0].epoch}
    assert len({*seen, *new}) == len(seen) + len(new)


def test_wrong_orders_are_refused():
    with pytest.raises(ValueError, match="saved with seed 0, but has 1 now"):
        StorySampler(5, seed=1).load_state_dict(StorySampler(5).state_dict())
    with pytest.raises(ValueError, match="saved with length 5, but has 6 now"):
        StorySampler(6).load_state_dict(StorySampler(5).state_dict())
    with pytest.raises(ValueError, match="too few for 4"):
        StorySampler(3, world=4)
    with pytest.raises(ValueError, match="from 0 to 1"):
        StorySampler(3, rank=2, world=2)
