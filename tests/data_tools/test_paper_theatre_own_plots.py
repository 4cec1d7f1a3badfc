"""Plots of one's own: the documented one works as it stands, and every fault is named with its place."""

import re
from pathlib import Path

import pytest
import yaml

from data_tools.paper_theatre.chapters import generate_long_story
from data_tools.paper_theatre.plots import load_plots
from data_tools.paper_theatre.plots.check import check_plots
from data_tools.paper_theatre.plots.load import SHIPPED
from data_tools.paper_theatre.plots.slots import variants
from data_tools.paper_theatre.stories import generate_story, plots_of
from seedstory.storystream import read_jsonl
from tests.data_tools.theatre import reader_of, run_theatre

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLE = re.search(r"^```yaml\n(.*?)^```", (DOCS / "plots.md").read_text("utf-8"), re.M | re.S)[1]


@pytest.fixture
def folder(tmp_path):
    """A folder with the documented plot."""
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "the_long_nap.yaml").write_text(EXAMPLE, "utf-8")
    return tmp_path / "plots"


def example(**changes):
    return yaml.safe_load(EXAMPLE) | changes


def with_text(text, beat=3, part=2, phrasing=1):
    """The documented plot with another text in one place, and a sound one beside it."""
    data = example()
    data["beats"][beat - 1]["parts"][part - 1][phrasing - 1] = text
    return data


def with_beat(number, beat):
    data = example()
    data["beats"][number - 1] = beat
    return data


def faults_of(tmp_path, data):
    (tmp_path / "plot.yaml").write_text(data if isinstance(data, str) else yaml.safe_dump(data, width=1000), "utf-8")
    found = check_plots([tmp_path / "plot.yaml"])[1]
    assert all(fault.file == str(tmp_path / "plot.yaml") for fault in found)
    assert all("\n" not in str(fault) for fault in found)
    return [(fault.place, fault.message) for fault in found]


def test_the_documented_plot_is_sound_and_generates(folder, tmp_path):
    assert "1 plots, no faults" in run_theatre("check", folder)
    what = ["--stories", "60", "--seed", "100", "--size", "16", "--workers", "2", "--plots", folder]
    run_theatre("generate", "--out", tmp_path / "data", *what)
    records = list(read_jsonl(tmp_path / "data" / "train.jsonl"))
    plots = {record.extra["plot"] for record in records}
    assert "the long nap" in plots and len(plots) > 15
    for seed in range(200):
        reader, pages = reader_of(generate_story(seed, "heldout", "the long nap", folder))
        for page in pages:
            assert reader.read(page.caption) == page.scene
    assert any(
        "the long nap" in generate_long_story(seed, "train", [10] * 3 + [8] * 3, folder).plots for seed in range(9)
    )


def test_plots_are_in_the_order_of_their_numbers_then_of_their_names(tmp_path):
    for name, number in (("b", None), ("a", None), ("d", 1), ("c", 2)):
        data = example(name=f"plot {name}", held_out=name == "d") | ({"number": number} if number else {})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
    own = [plot.name for plot in load_plots(tmp_path)[len(load_plots()) :]]
    assert own == ["plot d", "plot c", "plot a", "plot b"]
    assert load_plots(tmp_path)[: len(load_plots())] == load_plots()
    assert plots_of("heldout-plots", tmp_path)[0] == (*plots_of("heldout-plots")[0], load_plots(tmp_path)[-4])


def test_the_shipped_plots_have_no_fault():
    assert check_plots([SHIPPED], seeds=8) == (len(load_plots()), [])


def test_plots_with_faults_are_not_generated_from(folder, tmp_path):
    (folder / "the_long_nap.yaml").write_text(EXAMPLE.replace("cast: ab", "cast: xy"))
    generate = ["generate", "--out", tmp_path / "data", "--plots"]
    assert "list them with python -m data_tools.paper_theatre check" in run_theatre(
        *generate, folder, "--stories", "1", code=2
    )
    assert "is no folder" in run_theatre(*generate, tmp_path / "none", "--stories", "1", code=2)
    assert "how many with --stories" in run_theatre(*generate, folder, "--loose-pages", "1", code=2)
    assert not (tmp_path / "data").exists()
    with pytest.raises(ValueError, match=r"the_long_nap\.yaml: cast: 'xy' is no cast"):
        generate_story(0, "train", added=folder)
    said = run_theatre("check", folder, code=1).splitlines()
    fault = f"{folder / 'the_long_nap.yaml'}: cast: 'xy' is no cast: write one letter per character, a, ab, abc"
    assert said == [fault, "0 plots, 1 faults"]


def test_names_and_numbers_are_unlike_each_other(folder, tmp_path):
    (folder / "two.yaml").write_text("number: 3\n" + EXAMPLE)
    (folder / "three.yaml").write_text("number: 3\n" + EXAMPLE.replace("the long nap", "lost kite"))
    (tmp_path / "empty").mkdir()
    found = [(Path(f.file).name, f.place, f.message) for f in check_plots([folder, tmp_path / "empty"], seeds=1)[1]]
    assert [(file, place, message.split(":")[0]) for file, place, message in found] == [
        ("two.yaml", "number", f"3 is the number of {folder / 'three.yaml'} already"),
        ("empty", "", "there is no plot"),
        ("the_long_nap.yaml", "name", f"'the long nap' is the name of {folder / 'two.yaml'} already"),
        ("three.yaml", "name", "'lost kite' is the name of a shipped plot"),
    ]


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        ("- 1", "", "is no mapping"),
        ("", "", "nothing is no mapping"),
        ("name: a\nname: b", "line 2", "the key 'name' twice): take one out"),
        ("beats:\n  - {a} waved", "line 2", "put every phrasing in single quotes"),
        (example(colour="red"), "", "there is no key 'colour': the keys are number, name"),
        ({k: v for k, v in example().items() if k != "titles"}, "", "there is no titles: add it"),
        (example(name=7), "name", "7 is no text"),
        (example(held_out="maybe"), "held_out", "neither true nor false"),
        (example(number="one"), "number", "no whole number"),
        (example(cast="ba"), "cast", "write one letter per character"),
        (example(titles="The Nap"), "titles", "is no list of titles"),
        (example(titles=["{a}", 7]), "titles, title 2", "7 is no text: put it in single quotes"),
        (
            example(titles=["{c} Naps"]),
            "titles, title 1",
            "{c} is no name and no value: a title takes a, b, HOME, SNACK",
        ),
        (example(titles=["{ab} Nap"]), "titles, title 1", "{ab} is no name and no value"),
        (example(values=["HOME"]), "values", "is no mapping"),
        (example(values={"home": ["village"], **example()["values"]}), "values, home", "a word in capitals"),
        (example(values={"HOME": ["village"], "SNACK": ["{kite}"]}), "values, SNACK, choice 1", "plain words"),
        (example(values=example()["values"] | {"TOY": ["top"]}), "values, TOY", "nothing uses it"),
        (example(beats=[]), "beats", "is no list of beats"),
        (example(beats=example()["beats"][:7]), "beats", "there are 7, and a story has 8 pages or more"),
        (example(beats=example()["beats"] + 6 * example()["beats"][6:7]), "beats", "a story has at most 12"),
        (with_beat(2, ["{a} waved."]), "beat 2", "is no mapping: write the keys plan, parts, optional, core"),
        (with_beat(2, {"parts": [["{a} waved."]], "often": 1}), "beat 2", "there is no key 'often'"),
        (with_beat(2, {"parts": "{a}", "optional": False}), "beat 2, parts", "is no list of parts"),
        (with_beat(2, {"parts": ["{a} waved."]}), "beat 2, part 1", "is no list of phrasings"),
        (with_beat(1, {"parts": [{"opening": ["oneday"]}]}), "beat 1, part 1", "is no opening"),
        (with_beat(1, {"parts": [{"opening": ["noon", "HOME"]}]}), "beat 1, part 1", "'noon' is no time: choose"),
        (
            with_beat(1, {"parts": [{"opening": ["oneday", "CAVE"]}]}),
            "beat 1, part 1",
            "'CAVE' is no place, and no value: choose",
        ),
        (with_beat(1, {"parts": [{"opening": ["oneday", "SNACK"]}]}), "beat 1, part 1", "'plums' of SNACK is no place"),
        (with_beat(1, {"parts": [["{t:oneday} {a.there}."]]}), "beat 1", "it must name a place however it is put"),
        (with_beat(1, {"parts": [["{At:pond} {a.there}."]]}), "beat 1", "it must name a time however it is put"),
        (with_beat(1, example()["beats"][0] | {"optional": True}), "beat 1", "the first beat cannot be optional"),
    ],
)
def test_faults_of_the_form(tmp_path, data, place, message):
    found = faults_of(tmp_path, data)
    assert any(where == place and message in said for where, said in found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (7, "7 is no text: put it in single quotes"),
        ("{a} {a~waved}.\nIt rained.", "it has a line break: write it on one line"),
        ("{a} {a~waved.", "a brace is not closed"),
        ("{a} [waved|smiled.", "a square bracket is not closed"),
        ('"Hello, said {a}.', "a quotation is not closed"),
        ("{a} saw a {house}.", "{house}: it is no slot: name a value (HOME, SNACK) or a prop (ball, kite"),
        ("{a} went home to {CAVE}.", "{CAVE}: it is no slot"),
        ("{a} saw [a tree|a {house}].", "{house}: it is no slot"),
        ("{a} met {c.new}.", "{c.new}: the cast 'ab' has no 'c'"),
        ("{a} went {to:moon}.", "{to:moon}: 'moon' is no place, and no value: choose one of meadow"),
        ("{a} went {to:SNACK}.", "{to:SNACK}: 'plums' of SNACK is no place: choose one of meadow"),
        ("{t:noon} {a} woke up.", "{t:noon}: 'noon' is no time: choose one of oneday"),
        ("{a} {a:hungry}.", "{a:hungry}: 'hungry' is no pose or mood of that form: choose of happy"),
        ("{a} {a:sitting.ly}.", "'sitting' is no pose or mood of that form"),
        ("{a} {a:sad.ed}.", "there is no form 'ed': choose one of ing, ly"),
        ("{a} {a~looked}.", "it has no word that shows a pose or a mood"),
        ("{a.hers} nose itched.", "there is no form 'hers': choose one of is, there, new"),
        ("{ab.new} came by.", "it brings on one character at a time"),
        ("{a.friends} came by.", "friends are two or three letters"),
        ('"{a.is}," said {b}.', "nobody is brought on inside quotes"),
        ('"{a} {a~ran}," said {b}.', "what is said inside quotes shows nothing"),
        ("{near:up there} {a} was.", "it has no words of a near view: use one of so close"),
        ('{a} said "{wide:under the wide sky}".', "words inside quotes show nothing"),
        ('{a} said "{meanwhile:pond}".', "take it out of the quotes"),
    ],
)
def test_faults_of_the_slots(tmp_path, text, message):
    ((place, said),) = faults_of(tmp_path, with_text(text))
    assert place == "beat 3, part 2, phrasing 1" and message in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("They would rest there until the evening, and not a minute less than that.", "time would be read as dusk"),
        ("{a} had come from the forest, and {a.he} wanted a rest.", "place would be read as forest, not meadow"),
        ("{a} saw a kite up there, above a cloud of feathers.", "props would be read as kite, not none"),
        ("{b} sighed and moved over a little to make some room.", "expression of "),
        ("{b} bent so close that {b.he} saw the other nose.", "view would be read as near, not middle"),
        ("There was {b.new} again, and nobody could say why.", "introduced twice, or inside quotes: name it with {a}"),
        ("{a} had a {kite}, a {ball} and a {drum} with {a.him}.", "at most 2 props, not 3: name fewer props"),
        ("{meanwhile:pond} {a} {a~slept} {near:so close} to the edge.", "a pose or a mood"),
        ("{meanwhile:pond} {a} {a~sat} {near:so close} to the edge.", "on a page of two places"),
    ],
)
def test_faults_of_the_trial(tmp_path, text, message):
    ((place, said),) = faults_of(tmp_path, with_text(text))
    assert place == "beat 3, part 2, phrasing 1" and message in said


def test_faults_of_length(tmp_path):
    long = "and on it went and on, " * 9 + "until {a} slept."
    ((place, said),) = faults_of(tmp_path, with_text(long))
    assert place == "beat 3, part 2, phrasing 1" and "a page has 18 to 40 words" in said and "shorten it" in said
    ((place, said),) = faults_of(tmp_path, with_beat(3, {"parts": [["{a} slept.", "{a} rested."]]}))
    assert place == "beat 3" and "0% of its wordings fit" in said and "gives 2 to 2: lengthen it" in said


def test_everybody_comes_on_in_every_story(tmp_path):
    ((place, said),) = faults_of(tmp_path, example(cast="abc"))
    assert place == "cast" and said.startswith("c does not come on in every story: bring it on with {c.new}")
    data = example()
    data["beats"][1]["optional"] = True
    data["beats"].insert(6, data["beats"][5])
    assert any("b is not introduced yet: bring it on first" in said for _, said in faults_of(tmp_path, data))


def test_every_option_of_a_choice_is_looked_at():
    assert variants("[a|b|c] [d|e]") == {"a d", "b e", "c d"}
    assert variants("plain | text") == {"plain | text"}
    assert variants("[x [y|z]|w]") == {"x y", "w"}
