"""What of a text is kept."""

import pytest

from seedstory.text import clean_text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  two\n\twords\u2028here ", "two words here"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),  # Persian
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),  # Hindi
        (
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 home",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 home",
        ),  # a family
        ("\u2764\ufe0f\u200d\U0001f525", "\u2764\ufe0f\u200d\U0001f525"),  # a heart on fire
        ("\U0001f44b\U0001f3fd", "\U0001f44b\U0001f3fd"),  # with a tone of skin
        ("\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f!", None),  # Scotland
        ("\U0001f1e9\U0001f1ea", "\U0001f1e9\U0001f1ea"),  # Germany
        ("\U0001fae9", "\U0001fae9"),  # newer than some Pythons
        ("Schiff\u00adfahrt", "Schifffahrt"),
        ("safe\u202etxt.exe\u202c", "safetxt.exe"),
        ("a\u2066b\u2069 \u200e\u200f\ufeffc\u200b\u2060d", "ab cd"),
        ("\u200d lone \u200c joiners\u200d", "lone joiners"),
        ("tags\U000e0061\U000e0062 that hide", "tags that hide"),
        ("bell\x07 and\x1b[31m escape\x7f", "bell and [31m escape"),
        ("\u06dd 5", "\u06dd 5"),  # the end of a verse: seen, though of the kind of controls
        ("e\u0301", "\u00e9"),
    ],
)
def test_what_shapes_a_text_stays_and_what_hides_goes(text, kept):
    assert clean_text(text) == (text if kept is None else kept)
    assert clean_text(clean_text(text)) == clean_text(text)
