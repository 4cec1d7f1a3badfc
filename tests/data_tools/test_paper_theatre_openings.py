"""Open beginnings: first pages as people write them, and the stories that go on from them."""

import re
import shutil
from collections import Counter
from random import Random

import pytest
import yaml

from data_tools.paper_theatre.chapters import generate_long_story
from data_tools.paper_theatre.language import SAID, describe_appearance
from data_tools.paper_theatre.openings import FIRST_WORDS, draw_opening, load_grammar
from data_tools.paper_theatre.openings.grammar import SHIPPED, read_grammars
from data_tools.paper_theatre.openings.inflect import inflect
from data_tools.paper_theatre.stories import FEW_WORDS, OPEN, PAGES, SHORT_PAGES, SPLITS, generate_story
from data_tools.paper_theatre.world import SPECIES, Appearance
from seedstory.storystream import read_jsonl
from tests.data_tools.theatre import has_open_beginning, reader_of, run_theatre

TRAIN, HELD_OUT = load_grammar(held_out=False), load_grammar(held_out=True)
COUNTS = {"train": 500, "heldout": 150, "heldout-plots": 60}


@pytest.fixture(scope="module")
def stories():
    """Stories that all have an open beginning."""
    return {split: [generate_story(seed, split, opening=True) for seed in range(COUNTS[split])] for split in SPLITS}


def every(stories):
    return [story for split in SPLITS for story in stories[split]]


def test_there_is_enough_to_say():
    both = (TRAIN, HELD_OUT)
    assert sum(len(grammar.kinds) for grammar in both) >= 150
    assert sum(len(grammar.homes) + len(grammar.spots) for grammar in both) >= 80
    assert sum(len(frames) for grammar in both for frames in grammar.frames.values()) >= 60
    assert sum(len(facts) for grammar in both for facts in grammar.facts.values()) >= 80
    assert all(grammar.frames[count] for grammar in both for count in (1, 2, 3))


def test_the_same_seed_gives_the_same_story():
    for split in SPLITS:
        story = generate_story(3, split, opening=True)
        assert story == generate_story(3, split, opening=True) != generate_story(4, split, opening=True)
        assert has_open_beginning(story) and not has_open_beginning(generate_story(3, split, opening=False))


def test_a_quarter_of_the_stories_of_mixed_looks_has_one():
    share = sum(has_open_beginning(generate_story(seed, "train")) for seed in range(400)) / 400
    assert abs(share - OPEN) < 0.07
    for appearances in ("said", "shown"):
        assert not any(has_open_beginning(generate_story(seed, "train", appearances=appearances)) for seed in range(40))


def test_every_scene_is_right(stories):
    for story in every(stories):
        reader, pages = reader_of(story)
        for page in pages:
            assert reader.read(page.caption) == page.scene, (story.plot, page.caption)
        assert reader.names == [member.name for member in story.cast]
        assert reader.appearances == [member.appearance for member in story.cast]


def test_no_two_beginnings_are_alike(stories):
    assert len({story.pages[0].caption for story in stories["train"]}) >= 0.97 * COUNTS["train"]
    begun = Counter(" ".join(story.pages[0].caption.split()[:4]) for story in stories["train"])
    assert begun.most_common(1)[0][1] < 0.06 * COUNTS["train"]
    assert {len(story.pages[0].scene.actors) for story in stories["train"]} == {1, 2, 3}
    assert {story.pages[0].scene.time for story in stories["train"]} == {"day", "dusk", "night"}


def test_the_splits_share_nothing_that_is_held_out():
    for name in ("kinds", "homes", "spots"):
        assert set(getattr(TRAIN, name)).isdisjoint(getattr(HELD_OUT, name))
    for name in ("frames", "facts"):
        texts = [{text for texts in getattr(grammar, name).values() for text in texts} for grammar in (TRAIN, HELD_OUT)]
        assert texts[0].isdisjoint(texts[1])
    for split in SPLITS:
        own = TRAIN if split == "train" else HELD_OUT
        for seed in range(200):
            opening = draw_opening(split, 3, Random(seed))
            assert opening.frame in own.frames[len(opening.roles)]
            assert all(own.kinds[kind.name].figures == kind.figures for kind in opening.kinds)


def test_no_held_out_word_is_in_a_training_beginning(stories):
    words = [*HELD_OUT.kinds, *HELD_OUT.homes, *HELD_OUT.spots]
    held_out = re.compile("|".join(rf"\b{word}\b" for word in words), re.IGNORECASE)
    for story in stories["train"]:
        assert not held_out.search(story.pages[0].caption), story.pages[0].caption
        assert not any(member.appearance.held_out for member in story.cast)
    shown = [held_out.search(story.pages[0].caption) for story in stories["heldout"]]
    assert sum(map(bool, shown)) > 0.7 * len(shown)


def test_lengths(stories):
    for story in every(stories):
        assert len(story.pages) in PAGES or len(story.pages) - 1 in SHORT_PAGES
        assert len(story.pages[0].caption.split()) in FIRST_WORDS
        assert all(len(page.caption.split()) in FEW_WORDS for page in story.pages[1:])
    lengths = [len(story.pages[0].caption.split()) for story in every(stories)]
    assert min(lengths) <= 6 and max(lengths) >= 30


def test_text_is_clean(stories):
    for story in every(stories):
        for text in [*(page.caption for page in story.pages[:3]), *story.plan[:1]]:
            assert not re.search(r"[{}\[\]|]|  |\bHI[SM]\b|NAME|KIND|WEAR| [,.!?]|[,!?][,.]|,[.!?]|^\s|\s$", text), text
            assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n (?!hour)[^aeiou]", text), text
            assert not re.search(r'(^"?|[.!?] "?|[.]" )[a-z]', text), text
            assert not re.search(r"\b(\w+) \1\b(?<!deep)", text.replace("deep, deep", "")), text
            assert text.isascii() and text.count('"') % 2 == 0, text


def test_the_spans_say_who_is_meant(stories):
    forms = {"she": {"she", "her"}, "he": {"he", "him", "his"}}
    for story in every(stories):
        first = story.pages[0]
        named = first.scene.actors[0].name in first.caption
        assert all((actor.name in first.caption) == named for actor in first.scene.actors)
        for start, end, who in first.spans:
            said, member = first.caption[start:end], story.cast[who]
            nouns = {member.name} if named else {f"{word} {member.kind}" for word in ("a", "an", "the", "his", "her")}
            others = forms[member.pronoun] | {"they", "them", "their"}
            phrase = not named and re.search(rf"^(an?|the|two|three) .*{member.kind[:3]}", said.lower())
            assert said in nouns or said.lower() in others | nouns or phrase, (said, first.caption)
        assert {who for *_, who in first.spans} == set(range(len(first.scene.actors)))


def test_the_second_page_names_whom_the_first_did_not(stories):
    nameless = [story for story in every(stories) if story.cast[0].name not in story.pages[0].caption]
    assert len(nameless) > 100
    for story in nameless:
        hero, caption = story.cast[0], story.pages[1].caption
        assert hero.name in caption and re.search(hero.kind[:3], caption), caption
        later = [page.caption for page in story.pages[2:]]
        assert not any(f"who was called {hero.name}" in text or f"name was {hero.name}" in text for text in later)


def test_the_first_page_shows_what_it_says(stories):
    places = {**TRAIN.homes, **TRAIN.spots, **HELD_OUT.homes, **HELD_OUT.spots}
    facts = " ".join(text for grammar in (TRAIN, HELD_OUT) for texts in grammar.facts.values() for text in texts)
    phrases = {phrase: re.compile(rf"\b{phrase}\b", re.IGNORECASE) for phrase in places if phrase not in facts}
    somewhere = 0
    for story in every(stories):
        scene, caption = story.pages[0].scene, story.pages[0].caption
        said = {places[phrase] for phrase, pattern in phrases.items() if pattern.search(caption)}
        assert not said or scene.place in said, caption
        somewhere += bool(said)
        assert len(scene.props) <= 2 and scene.view == "middle" and scene.meanwhile is None
    assert somewhere > 0.3 * len(every(stories))
    shown = {story.pages[0].caption: story.pages[0].scene for story in every(stories)}
    lonely = [scene for text, scene in shown.items() if re.search(r"\b(lonely|sad)\b", text)]
    assert lonely and all("sad" in {actor.expression for actor in scene.actors} for scene in lonely)
    assert all(scene.props == ("balloon",) for text, scene in shown.items() if "a red balloon" in text)


def test_kinds_are_drawn_as_the_nearest_figures(stories):
    firsts = {member.kind: Counter() for story in every(stories) for member in story.cast if member.kind}
    for story in every(stories):
        for member in story.cast[: len(story.pages[0].scene.actors)]:
            if member.kind:
                firsts[member.kind][member.appearance.species] += 1
        assert len({member.appearance.species for member in story.cast}) == len(story.cast)
    assert len(firsts) > 150
    assert set(firsts["dragon"]) <= {"frog", "lion", "elephant"} and set(firsts["queen"]) <= {"grandmother", "girl"}
    assert all(set(figures) <= set(SPECIES) for figures in firsts.values())
    crowned = [member for story in every(stories) for member in story.cast if member.kind in ("king", "queen")]
    assert crowned and all(member.appearance.hat == "crown" for member in crowned)


def test_said_and_plan_are_right(stories):
    levels = Counter()
    for story in every(stories):
        caption = story.pages[0].caption
        for member in story.cast[: len(story.pages[0].scene.actors)]:
            level, appearance = story.said[member.name], member.appearance
            levels[level] += 1
            assert (appearance.outfit in caption) == ("outfit" in SAID[level]), caption
            assert "species" not in SAID[level] or member.kind == appearance.species
            if "hat" in SAID[level]:
                assert appearance.hat == "none" or appearance.hat in caption
        assert 3 <= len(story.plan[0].split()) <= 12 and story.cast[0].name in story.plan[0]
        assert len(story.plan) == len(story.beats) == len(story.pages)
    assert {"clothes", "outfit", "species", "name"} <= set(levels)


def test_the_record_says_both_what_it_is_and_what_is_drawn(tmp_path):
    assert describe_appearance(Appearance("frog", "green vest"), "dragon") == "dragon (frog), green vest"
    assert describe_appearance(Appearance("fox", "red coat", "crown"), "fox") == "fox, red coat, crown"
    seed = next(s for s in range(99) if has_open_beginning(story := generate_story(s, "train")) and story.cast[0].kind)
    run_theatre("generate", "--out", tmp_path, "--stories", "1", "--seed", str(seed), "--size", "32")
    (record,) = read_jsonl(tmp_path / "train.jsonl")
    story = generate_story(seed, "train")
    assert record.extra["cast"] == {m.name: describe_appearance(m.appearance, m.kind) for m in story.cast}
    assert record.extra["beats"][0] == -1 and record.extra["plan"] == list(story.plan)
    assert record.pages[0]["coreference"] == [list(span) for span in story.pages[0].spans]


def test_long_stories_begin_openly_too():
    begun = 0
    for seed in range(12):
        story = generate_long_story(seed, "train", [10, 9], opening=True)
        reader, pages = reader_of(story)
        begun += has_open_beginning(story)
        assert [reader.read(page.caption) for page in pages] == [page.scene for page in pages]
        assert len(story.pages) == 19 == len(story.beats)
        later = " ".join(page.caption for page in story.pages[10:])
        assert not any(member.kind and f"{member.name} the {member.kind}" in later for member in story.cast)
    assert begun == 12


@pytest.mark.parametrize(
    ("phrase", "forms"),
    [
        ("want to fly", "wants to fly, want to fly, wanted to fly, wanted to fly"),
        ("be afraid", "is afraid, are afraid, was afraid, were afraid"),
        ("have never swum", "has never swum, have never swum, had never swum, had never swum"),
        ("cannot sleep", "cannot sleep, cannot sleep, could not sleep, could not sleep"),
        ("do not care", "does not care, do not care, did not care, did not care"),
        ("miss the bus", "misses the bus, miss the bus, missed the bus, missed the bus"),
        ("try", "tries, try, tried, tried"),
        ("find it", "finds it, find it, found it, found it"),
    ],
)
def test_verbs(phrase, forms):
    said = [inflect(phrase, form, {"find": "found"}) for form in ("one", "several", "past", "past several")]
    assert ", ".join(said) == forms


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("kinds", lambda data: data["kinds"].update(blob="blob"), "kinds.yaml: blob: 'blob' is no figure"),
        ("kinds", lambda data: data["kinds"].update(blob={"figures": "cat", "hat": "fez"}), "hat 'fez': choose one of"),
        ("kinds", lambda data: data["kinds"].update({"sad cat": "cat"}), "'sad' would show in later pictures"),
        ("kinds", lambda data: data["pairs"].append("boy and her cat"), "boy is always a he"),
        ("kinds", lambda data: data["held_out"].update(fox="fox"), "held_out, fox: it is among the kinds of training"),
        ("places", lambda data: data["homes"].update({"on Venus": "Venus"}), "on Venus: 'Venus' is no place"),
        ("facts", lambda data: data["states"].append("sneeze"), "write 2 to 9 words"),
        ("frames", lambda data: data["one"].append("{hero} waits."), "{hero} is no slot of a frame for 1"),
        ("frames", lambda data: data["two"].append("{name1} waits."), "does not bring on all of its 2 heroes"),
        ("frames", lambda data: data.pop("held_out"), "no mapping with the key held_out"),
        ("frames", lambda data: data.pop("three"), "the form of the files"),
    ],
)
def test_faults_of_the_files_are_named(tmp_path, file, change, message):
    shutil.copytree(SHIPPED, tmp_path / "openings", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    data = yaml.safe_load((SHIPPED / f"{file}.yaml").read_text("utf-8"))
    change(data)
    (tmp_path / "openings" / f"{file}.yaml").write_text(yaml.safe_dump(data), "utf-8")
    grammars, faults = read_grammars(tmp_path / "openings")
    assert grammars == () and message in str(faults[0]) and "\n" not in str(faults[0])
    with pytest.raises(ValueError, match=f"{file}|kinds"):
        load_grammar(False, tmp_path / "openings")


def test_the_shipped_files_have_no_fault():
    assert read_grammars()[1] == []
