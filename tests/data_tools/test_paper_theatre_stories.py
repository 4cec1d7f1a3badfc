"""The stories of the paper theatre: what a page shows is a function of the text so far."""

import re
from collections import Counter
from random import Random

import pytest
from PIL import Image

from data_tools.paper_theatre.language import SAID
from data_tools.paper_theatre.loose import single_page
from data_tools.paper_theatre.names import HE, HELD_OUT_HE, HELD_OUT_SHE, PRONOUNS, SHE
from data_tools.paper_theatre.plots import load_plots
from data_tools.paper_theatre.reader import Reader
from data_tools.paper_theatre.script import Member, Script
from data_tools.paper_theatre.stories import FEW_WORDS, OPENING_BEAT, PAGES, SHORT_PAGES, generate_story, plots_of
from data_tools.paper_theatre.world import (
    EXPRESSIONS,
    HATS,
    OUTFITS,
    PLACES,
    POSES,
    PROPS,
    SPECIES,
    TIMES,
    Appearance,
)
from seedstory.storystream import read_jsonl
from tests.data_tools.theatre import has_open_beginning, reader_of, run_theatre

SPLITS = ("train", "heldout", "heldout-plots")
PLOTS = load_plots()


@pytest.fixture(scope="module")
def stories():
    """Five stories of each plot and split, no two with the same seed."""
    return {
        split: [
            generate_story(5 * at + n, split, plot.name) for at, plot in enumerate(plots_of(split)[0]) for n in range(5)
        ]
        for split in SPLITS
    }


def pages(stories, *splits):
    return [page for split in splits or SPLITS for story in stories[split] for page in story.pages]


def test_the_captions_alone_give_every_scene(stories):
    for split in SPLITS:
        for story in stories[split]:
            reader, pages = reader_of(story)
            for page in pages:
                assert reader.read(page.caption) == page.scene, (story.plot, page.caption)


def test_where_the_words_say_all_looks_no_cast_is_needed():
    for split in SPLITS:
        for seed in range(20):
            reader, story = Reader(), generate_story(seed, split, appearances="said")
            assert [reader.read(page.caption) for page in story.pages] == [page.scene for page in story.pages]
            assert set(story.said.values()) == {"look"}


def test_how_much_the_words_say_of_looks():
    counts = Counter()
    for seed in range(300):
        story = generate_story(seed, "train", opening=False)
        for member in story.cast:
            level = story.said[member.name]
            counts[level] += 1
            page = next(page for page in story.pages if member.name in [actor.name for actor in page.scene.everyone])
            first = next(start for start, _, who in page.spans if story.cast[who] == member)
            around = page.caption[max(0, first - 80) : first + 90].lower()
            look = member.appearance
            assert (look.species in around) == ("species" in SAID[level]) or level == "name", (level, page.caption)
            assert (look.outfit in around) or "outfit" not in SAID[level], (level, page.caption)
            assert look.hat == "none" or (look.hat in around) or "hat" not in SAID[level], (level, page.caption)
            if level in ("species", "name"):
                assert look.outfit not in page.caption and (look.hat == "none" or look.hat not in page.caption)
    total = sum(counts.values())
    assert 0.45 < counts["look"] / total < 0.6
    assert all(counts[level] / total > 0.05 for level in ("look", "wear", "species", "name"))
    for seed in range(20):
        shown = generate_story(seed, "heldout", appearances="shown")
        assert set(shown.said.values()) == {"name"}
        text = " ".join(page.caption for page in shown.pages)
        assert not any(member.appearance.outfit in text for member in shown.cast)


def test_every_page_has_its_line_of_the_plan():
    plots = {plot.name: plot for plot in PLOTS}
    lengths = Counter()
    for seed in range(300):
        story = generate_story(seed, "train")
        beats = plots[story.plot].beats
        assert len(story.plan) == len(story.beats) == len(story.pages) and list(story.beats) == sorted(story.beats)
        lengths[len(story.pages) - has_open_beginning(story)] += 1
        for line, number in zip(story.plan, story.beats, strict=True):
            assert not re.search(r"[{}]|\.$", line) and line[0] == line[0].upper()
            if number == OPENING_BEAT:
                continue
            for letter in "abc":
                assert beats[number].plan.count(f"{{{letter}}}") <= sum(line.count(m.name) for m in story.cast)
        if len(story.pages) < PAGES[0]:
            assert all(beats[number].core for number in story.beats if number != OPENING_BEAT)
    assert (
        set(lengths) <= {*SHORT_PAGES, *PAGES, PAGES[0] - 1}
        and 0.15 < sum(lengths[n] for n in SHORT_PAGES) / 300 < 0.35
    )


def test_loose_pages_are_read_too():
    seen = Counter()
    for split in ("train", "heldout"):
        for seed in range(400):
            page = single_page(seed, split)
            assert Reader().read(page.caption) == page.scene, page.caption
            assert page == single_page(seed, split)
            seen.update(len(page.scene.everyone) * [split])
            seen.update((actor.pose, actor.expression) for actor in page.scene.everyone)
            held_out = [actor.appearance.held_out for actor in page.scene.everyone]
            assert any(held_out) == (split == "heldout")
    assert sum((pose, mood) in seen for pose in POSES for mood in EXPRESSIONS) == len(POSES) * len(EXPRESSIONS)


def test_the_same_seed_gives_the_same_story():
    for split in SPLITS:
        assert generate_story(7, split) == generate_story(7, split)
    assert generate_story(7, "train") != generate_story(8, "train")
    assert generate_story(7, "train").pages != generate_story(7, "heldout").pages


def test_the_splits_share_no_name_and_no_held_out_appearance(stories):
    plots = {plot.name: plot for plot in PLOTS}
    for split in SPLITS:
        for story in stories[split]:
            held_out = [member.appearance.held_out for member in story.cast]
            assert (
                not any(held_out) if split == "train" else any(held_out) or len(held_out) < len(plots[story.plot].cast)
            )
    used = {split: {member.name for story in stories[split] for member in story.cast} for split in SPLITS}
    assert used["train"] <= {*SHE, *HE}
    assert used["heldout"] <= {*HELD_OUT_SHE, *HELD_OUT_HE}


def test_names():
    assert len(SHE + HE) >= 350
    assert len(HELD_OUT_SHE + HELD_OUT_HE) >= 40
    assert len(PRONOUNS) == len(SHE + HE + HELD_OUT_SHE + HELD_OUT_HE), "no name twice"


def test_every_attribute_is_common_enough(stories):
    actors = Counter()
    for page in pages(stories):
        for actor in page.scene.everyone:
            actors.update((actor.pose, actor.expression))
    total = sum(actors[pose] for pose in POSES)
    for what in (*POSES, *EXPRESSIONS):
        assert actors[what] / total > 0.03, (what, actors[what] / total)
    scenes = [page.scene for page in pages(stories)]
    assert {s.place for s in scenes} == set(PLACES)
    assert {s.time for s in scenes} == set(TIMES)
    assert {prop for s in scenes for prop in s.props} == set(PROPS)
    assert {len(s.actors) for s in scenes} == {1, 2, 3}
    appearances = [member.appearance for story in stories["train"] for member in story.cast]
    assert {appearance.species for appearance in appearances} == set(SPECIES)
    assert {appearance.outfit for appearance in appearances} == set(OUTFITS)
    assert {appearance.hat for appearance in appearances} == set(HATS)


def test_length(stories):
    for split in SPLITS:
        for story in stories[split]:
            assert len(story.pages) in PAGES or len(story.pages) - has_open_beginning(story) in SHORT_PAGES
    all_stories = [story for split in SPLITS for story in stories[split]]
    lengths = [len(page.caption.split()) for story in all_stories for page in story.pages[has_open_beginning(story) :]]
    assert set(lengths) <= set(FEW_WORDS)
    assert 25 <= sum(lengths) / len(lengths) <= 34


def test_text_is_clean(stories):
    texts = [page.caption for page in pages(stories)] + [s.title for split in SPLITS for s in stories[split]]
    for text in texts:
        assert not re.search(r"[{}\[\]|]|  |\bHIS\b|NAME|WEAR| [,.!?]|(?<!\.)\.\.(?!\.)|^\s|\s$", text), text
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n (?!hour)[^aeiouAEIOU]", text), text
        assert not re.search(r'(^"?|[.!?] "?|[.]" )[a-z]', text), text
        assert text.count('"') % 2 == 0, text


def test_spans_cover_names_and_pronouns(stories):
    for split in SPLITS:
        for story in stories[split]:
            for page in story.pages[has_open_beginning(story) :]:
                for start, end, who in page.spans:
                    member = story.cast[who]
                    forms = {"she": "she her", "he": "he him his"}[member.pronoun].split()
                    said = page.caption[start:end]
                    group = [*"they them their".split(), "the two friends", "the three friends"]
                    assert said == member.name or said.lower() in [*forms, *group], (said, page.caption)
                assert {who for *_, who in page.spans} == {
                    i for i, m in enumerate(story.cast) if m.name in [a.name for a in page.scene.everyone]
                }


def test_every_plot_is_rich():
    assert len(PLOTS) >= 12
    assert len({plot.name for plot in PLOTS}) == len(PLOTS)
    for plot in PLOTS:
        assert len(plot.titles) >= 4
        needed = sum(not beat.optional for beat in plot.beats)
        assert needed <= PAGES[-1]
        assert len(plot.beats) >= PAGES[0]
        for beat in plot.beats:
            assert beat.phrasings >= 4, (plot.name, beat.parts)


def test_tellings_differ():
    for plot in PLOTS:
        split = "heldout-plots" if plot.held_out else "train"
        texts = {generate_story(seed, split, plot.name).pages[1].caption for seed in range(30)}
        assert len(texts) > 20, plot.name


def test_quotes_say_nothing_about_the_image():
    reader = Reader()
    scene = reader.read(
        "One sunny day in the meadow, there was a small fox named Pip, who wore a red coat. "
        '"Last night I saw Lily cry by the pond with a kite," said Pip.'
    )
    assert (scene.place, scene.time, scene.props, len(scene.actors)) == ("meadow", "day", (), 1)
    assert (scene.actors[0].pose, scene.actors[0].expression) == ("standing", "happy")
    assert scene.actors[0].appearance == Appearance("fox", "red coat")


def test_cues_go_to_the_subject_of_their_clause():
    reader = Reader()
    scene = reader.read(
        "One night by the pond there was Pip, a fox in a red coat. He met Lily, a frog in blue overalls and a crown. "
        "Pip waved at Lily, smiling, and she sat down with tears in her eyes."
    )
    assert [(a.name, a.pose, a.expression) for a in scene.actors] == [
        ("Pip", "waving", "happy"),
        ("Lily", "sitting", "sad"),
    ]
    scene = reader.read("They ran into the forest as the sun went down. He yawned. She gave him a lantern and a map.")
    assert (scene.place, scene.time, scene.props) == ("forest", "dusk", ("lantern", "map"))
    assert [(a.pose, a.expression) for a in scene.actors] == [("walking", "sleepy"), ("walking", "happy")]


def test_reader_faults_are_named():
    with pytest.raises(ValueError, match=r"page 1: Pip is named without one clear look"):
        Reader().read("One day in the forest, Pip waved.")
    with pytest.raises(ValueError, match="'She' means nobody"):
        Reader().read("One day in the forest, there was Pip, a fox in a red coat. She waved.")
    with pytest.raises(ValueError, match="no place or no time"):
        Reader().read("There was Pip, a fox in a red coat.")
    with pytest.raises(ValueError, match="0"):
        Reader().read("One day the forest was empty.")
    with pytest.raises(ValueError, match="quotation"):
        Reader().read('One day in the forest, there was Pip, a fox in a red coat. "Hello, said Pip.')


def test_data_set_with_ground_truth_and_resume(tmp_path):
    run_theatre("generate", "--out", tmp_path, "--stories", "1", "--loose-pages", "2", "--size", "32", "--masks")
    (record,) = read_jsonl(tmp_path / "train.jsonl")
    story = generate_story(0, "train")
    assert record.captions == [page.caption for page in story.pages]
    assert (record.title, record.extra["plot"]) == (story.title, story.plot)
    for path, truth, page in zip(record.images, record.pages, story.pages, strict=True):
        with Image.open(tmp_path / path) as image, Image.open(tmp_path / truth["mask"]) as mask:
            assert image.size == mask.size == (32, 32)
            assert image.mode == "RGB"
            for number, actor in enumerate(truth["actors"], start=1):
                box = tuple(actor["box"])
                assert mask.point(lambda value, wanted=number: 255 * (value == wanted)).getbbox() == box
        assert [actor["name"] for actor in truth["actors"]] == [actor.name for actor in page.scene.everyone]
        assert truth["coreference"] == [list(span) for span in page.spans]
    assert len(list(read_jsonl(tmp_path / "loose-train.jsonl"))) == 2

    images = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    before = (tmp_path / "train.jsonl").read_bytes()
    broken = tmp_path / record.images[0]
    broken.write_bytes(b"half a pic")
    run_theatre("generate", "--out", tmp_path, "--stories", "1", "--loose-pages", "2", "--size", "32", "--masks")
    assert (tmp_path / "train.jsonl").read_bytes() == before
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert {path for path in after if after[path] != images[path]} == {broken, broken.with_suffix(".mask.png")}


def test_command_line_faults():
    assert "say what to make" in run_theatre("generate", "--out", "nowhere", code=2)
    said = run_theatre("generate", "--out", "nowhere", "--loose-pages", "1", "--split", "heldout-plots", code=2)
    assert "--loose-pages have no plot: use --split train or heldout" in said


def test_held_out_plots_are_written_to_a_file_of_their_own(tmp_path):
    run_theatre("generate", "--out", tmp_path, "--stories", "2", "--split", "heldout-plots", "--size", "32")
    records = list(read_jsonl(tmp_path / "heldout-plots.jsonl"))
    held_out = {plot.name for plot in PLOTS if plot.held_out}
    assert len(records) == 2 and {record.extra["plot"] for record in records} <= held_out


def test_script_faults_are_named():
    cast = {"a": Member("Pip", "he", Appearance("fox", "red coat"))}
    for template, message in (
        ("{a} waved.", "not introduced"),
        ("{t:day} {at:pond}, {a.there}. {house}", "unknown slot"),
        ("{t:day} {at:moon}, {a.there}.", "no place"),
        ("{t:day} {at:pond}, {a.there}. {a~looked}", "no cue"),
        ("{a.there}.", "place and time"),
        ("{t:day} {at:pond}, {a.there}. {near:He looked}", "near view"),
        ("{t:day} {at:pond}, {a.there}. {wide:so close}", "wide view"),
        ("{t:day} {at:pond}, {a.there}. {near:so close} {meanwhile:forest} {a} was there.", "two places"),
    ):
        with pytest.raises(ValueError, match=message):
            Script(cast, {}, Random(0)).page(template)
    with pytest.raises(ValueError, match="unknown split"):
        generate_story(0, "test")
    with pytest.raises(ValueError, match="unknown plot"):
        generate_story(0, "train", "no such plot")
