"""The web page and the EPUB in a real browser: nothing runs, nothing leaves, pages turn, words are read aloud."""

import zipfile

import pytest

from seedstory.export import write_book
from seedstory.export.book import BookDesign
from tests.seedstory.book_stories import CHROMIUM, hostile_story, make_story

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

# A device with two voices, of which one sends the words away.
VOICES = """
  window.said = [];
  window.SpeechSynthesisUtterance = class extends EventTarget { constructor(text) { super(); this.text = text; } };
  const speech = new EventTarget();
  const lang = 'en-US';
  speech.getVoices = () => [{ lang, localService: false, name: 'far' }, { lang, localService: true, name: 'near' }];
  speech.cancel = () => { window.cancelled = true; };
  speech.speak = one => { window.said.push([one.text, one.voice.name]); window.now = one; };
  Object.defineProperty(window, 'speechSynthesis', { value: speech });
"""


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def opened(browser, path, width=1280, height=900, script=""):
    """A page and what it asked for beside itself."""
    page = browser.new_page(viewport={"width": width, "height": height})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: asked.append(f"error: {error}"))
    page.on("dialog", lambda dialog: asked.append("dialog"))
    if script:
        page.add_init_script(script)
    page.goto(path.as_uri())
    page.wait_for_timeout(100)
    return page, [url for url in asked if url != path.as_uri() and not url.startswith("data:image/png;base64,")]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("design", [BookDesign(), BookDesign(layout="comic", balloons=True)], ids=["book", "balloons"])
def test_hostile_words_neither_run_nor_burst_the_web_page(browser, tmp_path, design, width):
    path = write_book(hostile_story(), tmp_path / "index.html", design=design)
    page, asked = opened(browser, path, width)
    assert asked == [] and page.evaluate("window.attacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("article").count() == 11 and "#panic" in page.locator("#page-3").inner_text()
    refused = page.evaluate("fetch('data:text/plain,x').then(() => 'open', () => 'refused')")
    assert refused == "refused"
    page.close()


def test_hostile_words_do_not_run_in_the_epub(browser, tmp_path):
    with zipfile.ZipFile(write_book(hostile_story(), tmp_path / "book.epub", "epub")) as archive:
        archive.extractall(tmp_path / "epub")
    pages = sorted((tmp_path / "epub" / "EPUB").glob("*.xhtml"))
    assert len(pages) > 13
    page = browser.new_page(viewport={"width": 900, "height": 1200})
    for path in pages:
        page.goto(path.as_uri())
        assert (
            page.evaluate("window.attacked") is None
            and page.evaluate("document.querySelectorAll('script').length") == 0
        )
        over = page.evaluate(
            "[...document.querySelectorAll('.caption')].filter(box => box.scrollHeight > box.clientHeight + 2).length"
        )
        assert over == 0, f"words of {path.name} are cut off"
    page.close()


def test_pages_turn_and_night_falls(browser, tmp_path):
    page, _ = opened(browser, write_book(make_story(["One.", "Two."]), tmp_path / "index.html"))
    shown = "[...document.querySelectorAll('.leaf')].findIndex(leaf => !leaf.hidden)"
    page.click("[data-tool=view]")
    assert page.locator(".leaf:visible").count() == 1
    before = page.evaluate(shown)
    page.click("[data-tool=forward]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(shown) == before + 1
    paper = page.evaluate("getComputedStyle(document.querySelector('.leaf')).backgroundColor")
    page.click("[data-tool=theme]")
    assert page.evaluate("getComputedStyle(document.querySelector('.leaf')).backgroundColor") != paper
    page.click("[data-tool=view]")
    assert page.locator(".leaf:visible").count() == 4
    page.close()


def test_words_are_read_aloud_by_this_device_and_marked(browser, tmp_path):
    path = write_book(make_story(["One fox.", "Two owls."]), tmp_path / "index.html")
    page, asked = opened(browser, path, script=VOICES)
    page.click("[data-tool=read]")
    assert page.evaluate("window.said") == [["The Lantern", "near"]]
    page.evaluate("window.now.dispatchEvent(new Event('end'))")
    assert page.evaluate("window.said.at(-1)") == ["One fox.", "near"]
    page.evaluate("window.now.dispatchEvent(Object.assign(new Event('boundary'), { name: 'word', charIndex: 4 }))")
    assert page.evaluate("[...CSS.highlights.get('spoken')][0].toString()") == "fox."
    page.keyboard.press("Escape")
    assert page.evaluate("window.cancelled") and page.evaluate("CSS.highlights.has('spoken')") is False
    assert asked == []
    page.close()


def test_without_a_voice_of_its_own_nothing_is_offered(browser, tmp_path):
    path = write_book(make_story(["One."]), tmp_path / "index.html")
    page, _ = opened(browser, path, script=VOICES.replace("localService: true", "localService: false"))
    assert not page.locator("[data-tool=read]").is_visible()
    page.close()
