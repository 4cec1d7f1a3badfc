"""Prompts with characters in brackets, read as StoryDiffusion's app reads them."""

import pytest

from seedstory.errors import RequestError
from seedstory.prompt_script import PagePrompt, read_characters, read_prompts

CAST = "[Mia] a fox in a red coat\n\n[Old Tom] a cat # our friend\n"


def test_a_cast_has_a_line_for_each_character():
    assert read_characters(CAST) == {"Mia": "a fox in a red coat", "Old Tom": "a cat"}


@pytest.mark.parametrize(
    ("line", "page"),
    [
        ("[Mia] finds a key.", PagePrompt("a fox in a red coat finds a key.", "Mia finds a key.", ("Mia",))),
        ("[Mia] runs # Off [she] went", PagePrompt("a fox in a red coat runs", "Off [she] went", ("Mia",))),
        ("[Mia] # Wait # No", PagePrompt("a fox in a red coat # Wait", "No", ("Mia",))),
        (
            "In the wood, [Old Tom] meets [Mia], and [Mia] laughs",
            PagePrompt(
                "In the wood, a cat meets a fox in a red coat, and a fox in a red coat laughs",
                "In the wood, Old Tom meets Mia, and Mia laughs",
                ("Old Tom", "Mia"),
            ),
        ),
        ("The empty house [NC] # Nobody", PagePrompt("The empty house", "Nobody")),
        ("[NC] rain", PagePrompt("rain", "rain")),
        ("a plain line", PagePrompt("a plain line", "a plain line")),
        ("[Mia] waves #", PagePrompt("a fox in a red coat waves", "", ("Mia",))),
    ],
)
def test_a_line_is_a_page(line, page):
    assert read_prompts(f"\n  {line}  \n", read_characters(CAST)) == [page]


@pytest.mark.parametrize(
    ("cast", "words"),
    [
        ("a fox", "line 1 of the cast names nobody"),
        ("[Mia] a fox\n[Mia] a cat", "line 2 of the cast: [Mia] has a description already"),
        ("[Mia]  # red", "line 1 of the cast: say what [Mia] looks like"),
        ("[NC] a fox", "cannot be a character's name"),
        ("\n", "the cast is empty"),
    ],
)
def test_a_wrong_cast_is_one_line(cast, words):
    with pytest.raises(RequestError) as error:
        read_characters(cast)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("[Mia] runs\n[Bob] runs", "line 2 of the script: the cast has no [Bob], only [Mia], [Old Tom], and [NC]"),
        ("\n# only a caption", "line 2 of the script says nothing of what the page shows"),
        ("", "a script has 1 to 10,000 lines"),
    ],
)
def test_a_wrong_script_is_one_line(script, words):
    with pytest.raises(RequestError) as error:
        read_prompts(script, read_characters(CAST))
    assert words in str(error.value)
