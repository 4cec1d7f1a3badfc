"""Stories for the tests of exports: a plain one, and one whose words attack every format."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedstory.identity import ModelIdentity
from seedstory.settings import StorySettings
from seedstory.story import Page, Story

CHROMIUM = shutil.which("chromium")
ATTACKS = [
    "<script>window.attacked = 1</script><img src=x onerror='window.attacked = 1'> & \"quoted\" ]]> --> </style>",
    "<svg xmlns='http://www.w3.org/2000/svg' onload='window.attacked = 1'><a href='javascript:attacked=1'>x</a></svg>",
    '#import "@preview/x:1.0.0": * #panic("attacked") #read("/etc/passwd") $x^2$ *b* _i_ `c` <label> @ref \\ // /* [',
    "\u202eover\u202c \u200f\u200e controls \x00\x01\x0b\x1b\ufffe\uffff {\\rtf1} [[attack]] {{7*7}} %s %n ../../x",
    "Emoji 👩‍👩‍👧 🏴󠁧󠁢󠁷󠁬󠁳󠁿 👍🏽 ☂️ \U0001f9ff and \u16a0\u16a2 runes \U00012000",
    "W" * 3000,
    "",
    "Ελληνικά. Кириллица. 中文故事。ひらがな。한국어. हिन्दी ไทย",
    "مرحبا يا ثعلب، هذا مفتاح ذهبي. 123 abc",
    "שלום לשועל הקטן עם המפתח. 123 abc",
    "long words of a caption " * 160,
]


def make_story(
    captions: list[str],
    title: str = "The Lantern",
    *,
    blank: tuple[int, ...] = (),
    side: int = 48,
    language: str = "en",
) -> Story:
    """A story with a picture of its own for each page; pages in `blank` (from 0) have none."""
    rows, columns = np.mgrid[:side, :side]
    pages = []
    for index, caption in enumerate(captions):
        pixels = np.full((side, side, 3), 200, np.uint8)
        pixels[(rows - side * 0.6) ** 2 + (columns - side / 2) ** 2 < (side / 4) ** 2] = (index * 20 % 255, 60, 90)
        image = None if index in blank else Image.fromarray(pixels)
        state = "opening" if index == 0 else "illustrated" if image else "written"
        pages.append(Page(index=index, caption=caption, image=image, state=state))
    settings = StorySettings(text="x", pages=len(captions), seed=7)
    model = ModelIdentity(name="tiny")
    return Story(title=title, pages=pages, settings=settings, model=model, language=language)


def hostile_story() -> Story:
    story = make_story(ATTACKS, title=" ".join(ATTACKS[:3]), blank=(2, 5))
    story.pages[0].alt = ATTACKS[1]
    story.versions = {"seedstory": ATTACKS[0]}
    return story


def program(name: str) -> str:
    """Where a program of the system is; the test is skipped where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
