"""Openings outside the plots of the paper theatre, and the stories that go on from them."""

import json
import re
from pathlib import Path

import pytest
import typer

from data_tools.paper_theatre import openings as theatre_openings
from data_tools.paper_theatre import plots as theatre_plots
from data_tools.paper_theatre.names import HE, HELD_OUT_HE, HELD_OUT_SHE, SHE
from data_tools.paper_theatre.stories import generate_story
from inference import generate
from inference.openings import read_openings
from inference.story_text import words_of
from seedstory.errors import DataError
from seedstory.settings import StorySettings
from tests.tiny import tiny_model_folder

FILE = Path(__file__).parents[1] / "data" / "openings.jsonl"


def runs(text, length):
    words = [word.lower() for word in words_of(text)]
    return {tuple(words[at : at + length]) for at in range(len(words) - length + 1)}


def test_ten_openings_as_users_write_them():
    openings = read_openings(FILE)
    assert len(openings) == 10 and len({opening.text for opening in openings}) == 10
    assert sorted(len(opening.heroes) for opening in openings) == [1] * 8 + [2, 3]
    for opening in openings:
        assert StorySettings(text=opening.text).text == opening.text, "nothing is cleaned away"
    texts = [opening.text for opening in openings]
    assert min(len(text.split()) for text in texts) <= 5 and any('"' in text for text in texts)
    assert any(len(re.findall(r"[.!?](?: |$)", text)) == 2 for text in texts)


def test_they_are_outside_the_theatre():
    written = [
        path for package in (theatre_plots, theatre_openings) for path in Path(package.__file__).parent.glob("*.y*ml")
    ]
    text = "\n".join(path.read_text("utf-8") for path in written)
    theirs, known = runs(text, 5), {word for run in runs(text, 1) for word in run}
    names = {word for name in (*SHE, *HE, *HELD_OUT_SHE, *HELD_OUT_HE) for word in words_of(name)}
    for opening in read_openings(FILE):
        assert not runs(opening.text, 5) & theirs, opening.text
        assert {word.lower() for word in words_of(opening.text)} - known, opening.text
        assert not names & {word for hero in opening.heroes for word in words_of(hero)}, opening.heroes
    begun = {generate_story(seed, "train", opening=True).pages[0].caption for seed in range(200)}
    assert not begun & {opening.text for opening in read_openings(FILE)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "holds no opening"),
        ("[]", "line 1: an opening is an object with heroes, id, text"),
        ({"id": "../x"}, "line 1: the id names a folder"),
        ({"text": " "}, "line 1: the opening text is empty"),
        ({"text": 3}, "line 1: text must be text"),
        ({"heroes": ["Tom"]}, "line 1: 'Tom' is no name in the text"),
        ({"heroes": ["!"]}, "line 1: '!' is no name in the text"),
        ("{", "line 1 is not valid JSON"),
    ],
)
def test_a_wrong_line_is_refused_in_one_line(tmp_path, line, message):
    good = {"id": "a", "text": "Mia is a yak!", "heroes": ["Mia"]}
    file = tmp_path / "openings.jsonl"
    file.write_text(line if isinstance(line, str) else json.dumps(good | line))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_openings(file)
    assert "\n" not in str(caught.value)
    file.write_text(f"{json.dumps(good)}\n\n{json.dumps(good)}\n")
    with pytest.raises(DataError, match="line 3: the id 'a' comes twice"):
        read_openings(file)


def test_their_stories_come_on_one_page(tmp_path, capsys):
    model = tiny_model_folder(tmp_path)
    out = tmp_path / "stories"
    generate.main(None, out, stories=2, pages=2, steps=1, model=str(model), openings=FILE)
    openings = read_openings(FILE)[:2]
    assert sorted(path.name for path in out.iterdir()) == sorted([*(opening.id for opening in openings), "index.html"])
    page = (out / "index.html").read_text("utf-8")
    assert page.count("<section>") == 2 and page.count("<img ") == 4
    for opening in openings:
        assert opening.text in page and f'href="{opening.id}/index.html"' in page
    for options in ({"data": tmp_path}, {"opening": "image"}, {"scripted": True}):
        with pytest.raises(typer.Exit):
            generate.main(**{"data": None, "out": out, "model": str(model), "openings": FILE} | options)
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
