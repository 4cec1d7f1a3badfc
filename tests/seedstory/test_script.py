"""Scripts of users: a paragraph a page, in plain text, Markdown and JSON lines."""

import pytest

from seedstory.errors import SeedStoryError
from seedstory.script import Script, read_script

CASES = {
    "lines.txt": ("One.\nTwo.\n", Script(("One.", "Two."))),
    "paragraphs.txt": ("One\nand more.\n\n\nTwo.\n", Script(("One and more.", "Two."))),
    "windows.txt": ("\ufeffOne.\r\n\r\nTwo.\r\n", Script(("One.", "Two."))),
    "one.txt": ("Only one.", Script(("Only one.",))),
    "story.md": (
        "# The *Lamp*\n\nMia **found** a lamp,\nit was _warm_.\n\n---\n\n## Later\n> A [frog](http://x.y) came.\n",
        Script(("Mia found a lamp, it was warm.", "A frog came."), "The Lamp"),
    ),
    "plain.md": (
        "Two * three is six, and snake_case_name stays.",
        Script(("Two * three is six, and snake_case_name stays.",)),
    ),
    "marks.md": (
        "***Both*** and **bold *it* more** and *it **bold** it*, _the snake_case word_, __init__.\n\n"
        '[![A fox](fox.png)](http://x.y "The fox") sees 2 * 3 * 4, \\*not this\\*, *a*b.',
        Script(
            (
                "Both and bold it more and it bold it, the snake_case word, init.",
                "A fox sees 2 * 3 * 4, *not this*, *a*b.",
            )
        ),
    ),
    "pages.jsonl": ('{"caption": "One."}\n\n{"text": "Two."}\n"Three."\n', Script(("One.", "Two.", "Three."))),
}


@pytest.mark.parametrize("name", CASES)
def test_scripts_are_read(tmp_path, name):
    text, expected = CASES[name]
    (tmp_path / name).write_bytes(text.encode("utf-8"))
    assert read_script(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b" \n\n", "no words"),
        ("a.md", b"# Title\n", "no words"),
        ("a.txt", b"\xff\xfe", "UTF-8"),
        ("a.jsonl", b'{"page": 1}', "line 1"),
        ("a.jsonl", b'{"caption": 1}', "line 1"),
        ("a.jsonl", b"{", "line 1"),
        ("a.txt", b"x\n" * 10_001, "at most 10,000"),
        ("a.txt", b"x" * 5000, "page 1"),
    ],
)
def test_what_is_no_script_is_refused_in_one_line(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SeedStoryError, match=words) as caught:
        read_script(tmp_path / name)
    assert "\n" not in str(caught.value)
