"""What a model says, and what is made of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.captioning.replies import BadReply, check_narration, clean_page, is_repetition, read_reply
from seedstory.text import split_sentences


@given(text=st.text(), before=st.sampled_from(["", "Sure! ", "```json\n", '<think>{"text": "no"}</think>']))
def test_whatever_json_holds_is_read(text: str, before: str) -> None:
    assert read_reply(before + json.dumps({"text": text}) + "\n```", "text") == text


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ('{"text": "A fox ran.\nIt fell."}', "A fox ran.\nIt fell."),  # a raw line break
        ('{"text": "The fox said, "Come!" and ran."}', 'The fox said, "Come!" and ran.'),  # quotes left unescaped
        ('{"text": "The fox said, \\"Come!\\" and ran. The', 'The fox said, "Come!" and ran. The'),  # cut off
        ('{"text": "A fox ran."]\n```', "A fox ran."),
        ('{"title": "x"} {"text": "A fox ran."}', "A fox ran."),
    ],
)
def test_small_damage_is_mended(reply: str, text: str) -> None:
    assert read_reply(reply, "text") == text


@pytest.mark.parametrize("reply", ["", "A fox ran.", '{"text": 3}', '["text"]', "null", '{"text" "a"}', "{" * 40_000])
def test_what_is_no_reply_is_refused(reply: str) -> None:
    with pytest.raises(BadReply, match="not a JSON object"):
        read_reply(reply, "text")


@given(reply=st.text(alphabet='{}[]":, \\ntexa<hik>/'))
def test_no_reply_is_too_odd(reply: str) -> None:
    try:
        assert isinstance(read_reply(reply, "text"), str)
    except BadReply:
        pass


def test_sentences_end_where_they_end() -> None:
    text = 'Mr. Fox ran! "Stop," said Dr. Owl. "Now!" 他走了。我来了。 And then'
    assert [s.strip() for s in split_sentences(text)] == [
        "Mr. Fox ran!",
        '"Stop," said Dr. Owl.',
        '"Now!"',
        "他走了。",
        "我来了。",
    ]


def test_a_page_is_cut_to_whole_sentences() -> None:
    assert (
        clean_page("Page 3: One two three. Four five six. Seven", min_words=2, max_words=9)
        == "One two three. Four five six."
    )
    assert clean_page("One two three. Four five six. Seven.", min_words=2, max_words=5) == "One two three."
    assert clean_page("<img> A **fox**\nran\x00 home. </s>", min_words=2, max_words=9) == "A fox ran home."


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        ("no end", "no whole sentence"),
        ("Run.", "fewer than 3"),
        ("One two three four five six seven eight nine ten.", "longer than 9"),
        ("I'm sorry, but I can't help.", "excuse"),
        ("As an AI, I see nothing.", "excuse"),
    ],
)
def test_bad_pages_are_reported(text: str, fault: str) -> None:
    with pytest.raises(BadReply, match=fault):
        clean_page(text, min_words=3, max_words=9)


def test_a_character_may_be_sorry() -> None:
    for text in ("I'm sorry, said the fox.", "I cannot see my kite anywhere."):
        assert clean_page(text, min_words=3, max_words=9) == text


def test_narration_is_held_to_its_image_and_its_story() -> None:
    history = ["The fox found an old lantern near the mill."]
    check_narration("Then the bear came running.", history, "A bear runs.")
    with pytest.raises(BadReply, match="nothing of what the picture shows"):
        check_narration("Then the moon was up.", history, "A bear runs.")
    with pytest.raises(BadReply, match="tells page 1 again"):
        check_narration("The fox found an old lantern near the mill!", history, "A fox.")
    with pytest.raises(BadReply, match="speaks about a picture"):
        check_narration("The picture shows a bear.", history, "A bear runs.")


def test_a_name_said_twice_is_no_repetition() -> None:
    assert not is_repetition("The fox ran home.", "The fox found an old lantern near the mill.")
    assert is_repetition(
        "So. The fox ran home to his mother.", "And the fox ran home to his mother. The fox ran home to his mother."
    )


def test_what_stands_before_the_end_of_a_thought_is_none_of_the_answer():
    assert read_reply('I could say {"text": "no"} but</think>{"text": "yes"}', "text") == "yes"
    with pytest.raises(BadReply):
        read_reply('{"text": "no"} or so</think>', "text")
