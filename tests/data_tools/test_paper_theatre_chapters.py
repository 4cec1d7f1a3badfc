"""Long stories of the paper theatre: only the first chapter says the looks, and the captions alone give every scene."""

import json
import re

import pytest

from data_tools.paper_theatre.chapters import generate_long_story
from data_tools.paper_theatre.names import HELD_OUT_HE, HELD_OUT_SHE
from data_tools.paper_theatre.plots import load_plots
from data_tools.paper_theatre.world import OUTFITS, SPECIES
from seedstory.layout import chapters, countdown
from seedstory.storystream import read_jsonl
from tests.data_tools.theatre import has_open_beginning, reader_of, run_theatre

# Words of species and clothes that plots use for something else: a duck swims by, somebody counts sheep.
IN_PLOTS = {
    word
    for word in (*SPECIES, *OUTFITS)
    if any(re.search(rf"\b{word}\b", repr([beat.parts for beat in plot.beats]).lower()) for plot in load_plots())
}
LENGTHS = chapters(200)


@pytest.fixture(scope="module")
def stories():
    return [generate_long_story(seed, "heldout", LENGTHS) for seed in range(8)]


def test_the_captions_alone_give_every_scene(stories):
    stories = [
        *stories,
        *(generate_long_story(seed, "train", chapters(pages)) for seed, pages in enumerate((16, 24, 50, 100))),
    ]
    for story in stories:
        reader, pages = reader_of(story)
        for page in pages:
            assert reader.read(page.caption) == page.scene, page.caption
        assert reader.names == [member.name for member in story.cast]
        assert reader.appearances == [member.appearance for member in story.cast]


def test_appearances_are_said_in_the_first_chapter_only(stories):
    for story in stories:
        later = " ".join(page.caption.lower() for page in story.pages[LENGTHS[0] :])
        for member in story.cast:
            assert member.name.lower() in later
        for word in (*SPECIES, *OUTFITS):
            assert word in IN_PLOTS or not re.search(rf"\b{word}\b", later), word
        for member in story.cast:
            look = member.appearance
            assert f"{look.species} in" not in later and f"in a {look.outfit}" not in later


def test_names_and_appearances_are_held_out(stories):
    for story in stories:
        assert {member.name for member in story.cast} <= {*HELD_OUT_SHE, *HELD_OUT_HE}
        assert any(member.appearance.held_out for member in story.cast)
    assert generate_long_story(3, "heldout", LENGTHS) == stories[3] != generate_long_story(4, "heldout", LENGTHS)


def test_every_hero_is_away_longer_than_a_chapter_now_and_then(stories):
    for story in stories:
        gaps = {member.name: [0] for member in story.cast}
        for page in story.pages:
            shown = {actor.name for actor in page.scene.actors}
            for name, away in gaps.items():
                away[-1] += 1
                if name in shown:
                    away.append(0)
        assert max(max(away) for away in gaps.values()) > max(LENGTHS)


def test_a_chapter_begins_where_the_countdown_begins(stories):
    starts = [page for page, left in enumerate(countdown(200)) if left == 1]
    assert [at + 1 for at in starts] == [sum(LENGTHS[: n + 1]) for n in range(len(LENGTHS))]
    for story in stories:
        assert len(story.pages) == 200 and len(story.plots) == len(LENGTHS)
        # A chapter opens with one hero alone, whatever happened before; an open beginning may have more.
        for start in (int(has_open_beginning(story)), *(at + 1 for at in starts[:-1])):
            assert len(story.pages[start].scene.actors) == 1, story.pages[start].caption


def test_records_hold_the_ground_truth(tmp_path):
    run_theatre("generate", "--out", tmp_path, "--split", "heldout", "--stories", "1", "--pages", "24", "--size", "32")
    (record,) = read_jsonl(tmp_path / "long-heldout.jsonl")
    story = generate_long_story(0, "heldout", chapters(24))
    assert record.captions == [page.caption for page in story.pages]
    assert (record.extra["plots"], record.extra["chapters"]) == (list(story.plots), [8, 8, 8])
    for path, truth, page in zip(record.images, record.pages, story.pages, strict=True):
        assert (tmp_path / path).is_file()
        assert [actor["name"] for actor in truth["actors"]] == [actor.name for actor in page.scene.everyone]
        assert {"place", "time", "props", "coreference"} <= set(truth)
    # The same fields as a story of one chapter.
    run_theatre("generate", "--out", tmp_path, "--split", "heldout", "--stories", "1", "--size", "32")
    plain = json.loads((tmp_path / "heldout.jsonl").read_text().splitlines()[0])
    assert set(plain) - {"plot"} == set(record.to_dict()) - {"plots", "chapters"}
    assert set(plain["pages"][0]) == set(record.pages[0])
    assert set(plain["pages"][0]["actors"][0]) == set(record.pages[0]["actors"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stories", "1", "--pages", "14"], "chapter of 7 pages"),
        (["--stories", "1", "--pages", "-3"], "at least one page"),
        (["--loose-pages", "1", "--pages", "24"], "how many with --stories"),
    ],
)
def test_impossible_requests_are_said(tmp_path, arguments, message):
    assert message in run_theatre("generate", "--out", tmp_path, *arguments, code=2)


def test_a_chapter_that_no_plot_fits_is_refused():
    with pytest.raises(ValueError, match="chapter of 5 pages"):
        generate_long_story(0, "heldout", [12, 5])
