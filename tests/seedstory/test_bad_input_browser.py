"""Words that mean harm, in a real browser: in books and in the app nothing runs, and nothing asks another host."""

import dataclasses
import zipfile

import pytest

from seedstory.export import write_book
from seedstory.export.book import BookDesign
from seedstory.story import StoryFolder
from seedstory.story_editor import StoryEditor
from seedstory.story_state import StoryState
from tests.seedstory.bad_input import WORDS
from tests.seedstory.book_stories import CHROMIUM, make_story
from tests.seedstory.serving import QUICK, serving

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Watched:
    """A page that keeps what it should not have done."""

    def __init__(self, browser, own: str) -> None:
        self.context = browser.new_context()
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.context.on("request", lambda request: self._note(request.url, own))
        self.context.on("page", lambda page: self.wrong.append(f"a window: {page.url}"))
        self.page.on("dialog", lambda dialog: (self.wrong.append("a dialog"), dialog.dismiss()))
        self.page.on("download", lambda download: self.wrong.append("a download"))

    def _note(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:image/", "blob:")):
            self.wrong.append(url)

    def check(self) -> None:
        self.page.wait_for_timeout(150)
        assert self.page.evaluate("window.__ran") is None and self.wrong == []


def test_the_words_do_harm_as_markup(browser, tmp_path):
    (tmp_path / "open.html").write_text(f"<!doctype html><meta charset=utf-8>{''.join(WORDS[:3])}", "utf-8")
    watched = Watched(browser, tmp_path.as_uri())
    watched.page.goto((tmp_path / "open.html").as_uri())
    with pytest.raises(AssertionError):
        watched.check()
    watched.context.close()


def hostile():
    """A story with the words in all that is shown of it."""
    story = make_story(list(WORDS), title=" ".join(WORDS[:3]), blank=(2,))
    for page, word in zip(story.pages, reversed(WORDS), strict=True):
        page.alt = word
    story.pages[1].next_state = StoryState(cast=(("<b>Mia", WORDS[0]),), plan=(WORDS[1],))
    return dataclasses.replace(story, versions={"seedstory": WORDS[0]})


@pytest.mark.parametrize("layout", ["picture-book", "comic"])
def test_books(browser, tmp_path, layout):
    design = BookDesign(layout=layout, balloons=layout == "comic", author=WORDS[2], license=WORDS[4])
    book = write_book(hostile(), tmp_path / "index.html", design=design)
    with zipfile.ZipFile(write_book(hostile(), tmp_path / "book.epub", "epub", design=design)) as archive:
        assert all(not name.startswith("/") and ".." not in name for name in archive.namelist())
        archive.extractall(tmp_path / "epub")
    watched = Watched(browser, tmp_path.as_uri())
    pages = sorted((tmp_path / "epub").rglob("*.xhtml"))
    assert len(pages) > (len(WORDS) if layout == "picture-book" else 2)
    for path in [book, *pages]:
        watched.page.goto(path.as_uri())
        watched.check()
        assert watched.page.locator("iframe, object, embed, base, svg image, video, input[autofocus]").count() == 0
        assert watched.page.locator("a[href^='javascript' i], link[href*=evil], img[src*=evil]").count() == 0
    watched.context.close()


def test_the_app(browser, pipe, tmp_path):
    with serving(pipe, tmp_path) as client:
        story_id = client.make(text=WORDS[0], captions=list(WORDS), pages=len(WORDS) + 1, title=WORDS[1])
        client.wait(story_id)
        editor = StoryEditor(tmp_path / story_id)
        for index in range(len(WORDS)):
            editor.describe(index, WORDS[index])
        failed = client.make(text=WORDS[3], title=WORDS[2], pages=1, **QUICK)
        client.wait(failed)
        assert StoryFolder.open(tmp_path / story_id).entries[1].caption.startswith("<script>")

        own = str(client.base_url).rstrip("/")
        watched = Watched(browser, own)
        page = watched.page
        page.goto(own)
        api.expect(page.get_by_text("<img src=x onerror").first).to_be_visible(timeout=30_000)
        watched.check()
        page.goto(f"{own}/#/story/{story_id}")
        api.expect(page.locator(".card")).to_have_count(len(WORDS) + 1, timeout=30_000)
        watched.check()
        client.post(f"/api/stories/{story_id}/pages/2/redo", json={"caption": WORDS[3]}).raise_for_status()
        client.wait(story_id)  # words and pictures come as events
        watched.check()
        for word in WORDS[:2]:
            client.patch(f"/api/stories/{story_id}", json={"title": word}).raise_for_status()
            client.post(f"/api/stories/{story_id}/pages/3/describe", json={"alt": word}).raise_for_status()
        watched.check()
        for path in (f"/api/stories/{story_id}/export/html?inline=true", f"/api/stories/{story_id}", "/docs"):
            page.goto(own + path)
            watched.check()
        watched.context.close()
