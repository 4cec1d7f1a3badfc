"""The app in a real browser, for tests: Debian's chromium, a real server, a tiny model."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    pytest.skip("there is no chromium", allow_module_level=True)

from tests.seedstory.serving import serving  # noqa: E402

expect = sync_api.expect
expect.set_options(timeout=60_000)  # a busy machine takes its time
SIZES = {"wide": (1280, 900), "phone": (390, 844)}

QUICK = {"max_caption_tokens": 16, "num_inference_steps": 4}
SLOW = {"min_caption_tokens": 400, "max_caption_tokens": 400, "num_inference_steps": 40}  # slower than a page is told


class App:
    """A server, and pages of a browser that reach nothing else; what they log and ask for is kept."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser, self.address = browser, address
        self.contexts: list[Any] = []
        self.foreign: list[str] = []
        self.errors: list[str] = []

    def page(
        self, size: str = "wide", scheme: str = "light", *, settings: dict[str, int] = QUICK, **options: Any
    ) -> Any:
        width, height = SIZES[size]
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, base_url=self.address, **options
        )
        context.set_default_timeout(60_000)
        context.route(lambda url: not url.startswith((self.address, "blob:" + self.address)), self._refuse)
        context.route("**/api/stories", lambda route: self._add_settings(route, settings))
        self.contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda line: self._note(line))
        return page

    def begin(self, page: Any, words: str = "Mia the fox found a key.", pages: int = 4) -> Any:
        """Begins a story by the form; returns its cards."""
        page.goto("/")
        page.get_by_label("Opening words").fill(words)
        page.get_by_label("Pages", exact=True).fill(str(pages))
        page.get_by_role("button", name="Begin the story").click()
        page.wait_for_url(re.compile("#/story/"))
        return page.locator(".card")

    def _refuse(self, route: Any) -> None:
        self.foreign.append(route.request.url)
        route.abort()

    def _add_settings(self, route: Any, settings: dict[str, int]) -> None:
        request = route.request
        if request.method == "POST" and request.headers["content-type"] == "application/json":
            route.continue_(post_data=request.post_data_json | settings)
        else:
            route.fallback()

    def _note(self, line: Any) -> None:
        if line.type == "error" and "Failed to load resource" not in line.text:  # an answer of 401, or a cut stream
            self.errors.append(line.text)


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield running
        running.close()


@contextlib.contextmanager
def open_app(browser: Any, pipe: Any, library: Path, **settings: Any) -> Iterator[App]:
    """A server and its app, which must ask no other host and log no error."""
    with serving(pipe, library, **settings) as client:
        made = App(browser, str(client.base_url).rstrip("/"))
        try:
            yield made
        finally:
            for context in made.contexts:
                context.close()
    assert made.foreign == [], "the app asked other hosts"
    assert made.errors == []


def sources(cards: Any) -> list[str | None]:
    return [image.get_attribute("src") for image in cards.locator("img.picture").all()]


def is_done(page: Any, pages: int) -> None:
    expect(page.locator(".state")).to_have_text(f"{pages} pages, done")
    expect(page.locator(".card img.sharp")).to_have_count(pages)


def choose(page: Any, number: int, name: str) -> None:
    """Takes an entry of the menu of a page of the story."""
    page.locator(".card").nth(number - 1).get_by_role("button", name="More", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=name).click()


class Axe:
    """What axe finds that is serious, in light and in dark."""

    def __init__(self) -> None:
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
        self._axe = axe.Axe()
        self.found: dict[str, Any] = {}

    def __call__(self, page: Any, what: str) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            result = self._axe.run(page).response
            for one in result["violations"]:
                if one["impact"] in ("serious", "critical"):
                    self.found[f"{what}, {scheme}: {one['id']}"] = [node["html"] for node in one["nodes"]]
            assert len(result["passes"]) > 10
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{what} is too wide"
