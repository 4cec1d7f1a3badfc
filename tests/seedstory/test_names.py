"""What counts as a name."""

import doctest

import pytest

import seedstory.names
from seedstory.names import find_capitals, find_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Once there was a fox called Mia, who wore a red coat.", {"Mia"}),
        ("The next day it was Klaus, and Nobody else, who came.", {"Klaus", "Nobody"}),
        ('Boom! Nobody came. "Go away," said Otto. "I will," said Émile\'s dog.', {"Otto", "Émile"}),
        ("The bear and I ran, and I'm tired.", set()),
        ("Es war ein Fuchs mit einem Hut.", {"Fuchs", "Hut"}),
        ("", set()),
        ("从前有一只狐狸。", {"从前有一只狐狸。"}),
        ("小狐狸叫Mia，她很小。", {"小狐狸叫Mia，她很小。"}),
        ("the fox and mia", {"the fox and mia"}),
        ("იყო ერთი მელა.", {"იყო ერთი მელა."}),
        ("123 456", {"123 456"}),
    ],
)
def test_names_are_capital_inside_a_sentence(text, names):
    assert find_names(text) == names


def test_capitals_are_found_at_a_sentences_start_too():
    assert find_capitals('Otto ran. "Stop!" said Mia (and I).') == {"Otto", "Stop", "Mia"}
    assert find_capitals("一只狐狸") == find_names("一只狐狸")


def test_the_example_holds():
    assert doctest.testmod(seedstory.names).failed == 0
