"""The app in a real browser: Debian's chromium, a real server, a tiny model."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from seedstory.cli import app as command
from seedstory.pipeline import StoryPipeline

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    pytest.skip("there is no chromium", allow_module_level=True)

from tests.seedstory.serving import serving  # noqa: E402
from tests.tiny import tiny_model_folder  # noqa: E402

expect = sync_api.expect
expect.set_options(timeout=60_000)  # a busy machine takes its time
HOSTILE = "<img src=x onerror=alert(1)> & <b>Mia</b>"
KEY = "a-long-secret-key-of-a-test"
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

    def page(self, size: str = "wide", scheme: str = "light", *, settings: dict[str, int] = QUICK) -> Any:
        width, height = SIZES[size]
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, base_url=self.address
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu")


@pytest.fixture
def app(request: pytest.FixtureRequest, browser: Any, pipe: Any, tmp_path: Path) -> Iterator[App]:
    with serving(pipe, tmp_path / "stories", **getattr(request, "param", {})) as client:
        made = App(browser, str(client.base_url).rstrip("/"))
        try:
            yield made
        finally:
            for context in made.contexts:
                context.close()
    assert made.foreign == [], "the app asked other hosts"
    assert made.errors == []


def sources(cards: Any) -> list[str | None]:
    return [image.get_attribute("src") for image in cards.locator(".frame img").all()]


def is_done(page: Any, pages: int) -> None:
    expect(page.locator(".state")).to_have_text(f"{pages} pages, done")
    expect(page.locator(".card img.sharp")).to_have_count(pages)


def test_a_story_from_its_opening_to_a_book(app: App, tmp_path: Path) -> None:
    page = app.page()
    cards = app.begin(page)
    expect(cards.first.locator(".caption")).to_have_text("Mia the fox found a key.")
    is_done(page, 4)
    made = sources(cards)

    # page 3 anew
    cards.nth(2).get_by_role("button", name="Try again").click()
    page.get_by_role("dialog").get_by_role("button", name="Make it anew").click()
    expect(cards.nth(2).locator("img")).not_to_have_attribute("src", made[2])
    is_done(page, 4)
    redone = sources(cards)
    assert [old == new for old, new in zip(made, redone)] == [True, True, False, True]

    # other words for page 2; what follows is drawn anew
    cards.nth(1).get_by_role("button", name="Edit words").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Words").fill(HOSTILE)
    dialog.get_by_label("Are drawn anew").check()
    dialog.get_by_role("button", name="Keep the words").click()
    expect(cards.nth(3).locator("img")).not_to_have_attribute("src", redone[3])
    is_done(page, 4)
    assert [old == new for old, new in zip(redone, sources(cards))] == [True, False, False, False]
    expect(cards.nth(1).locator(".caption")).to_have_text(HOSTILE)
    assert page.locator(".caption *").count() == 0

    # a new page after it
    cards.nth(1).get_by_role("button", name="Insert after").click()
    page.get_by_role("dialog").get_by_label("Words").fill("Tom the frog came along.")
    page.get_by_role("dialog").get_by_role("button", name="Insert the page").click()
    is_done(page, 5)
    expect(cards.nth(2).locator(".caption")).to_have_text("Tom the frog came along.")

    with page.expect_download() as download:
        page.get_by_role("button", name="Web page").click()
    book = Path(download.value.path()).read_text("utf-8")
    assert "Tom the frog came along." in book
    assert "<img src=x" not in book
    if page.get_by_role("button", name="PDF").count():
        with page.expect_download() as download:
            page.get_by_role("button", name="PDF").click()
        assert Path(download.value.path()).read_bytes().startswith(b"%PDF-")
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Read").click()
    expect(popup.value.get_by_text(HOSTILE)).to_be_visible()
    popup.value.close()

    address, before = page.url, sources(cards)
    page.reload()
    is_done(page, 5)
    assert (page.url, sources(cards)) == (address, before)
    page.get_by_role("link", name="All stories").click()
    page.get_by_role("link", name="Mia the fox found a key").click()
    is_done(page, 5)


def test_words_and_steps_are_shown_while_they_come(app: App) -> None:
    page = app.page(settings=SLOW)
    page.goto("/")
    # What a card said at each change, kept by the page itself: too quick to be looked at from here.
    page.evaluate("""() => {
        window.seen = [];
        const look = () => document.querySelectorAll(".card").forEach((card, index) => window.seen.push([
            index, card.querySelector(".caption").textContent, card.querySelector(".stage").textContent,
            card.querySelector("progress").hidden ? null : card.querySelector("progress").value]));
        new MutationObserver(look).observe(document.getElementById("view"),
            { childList: true, subtree: true, characterData: true, attributes: true });
    }""")
    page.get_by_label("Opening words").fill("Mia the fox found a key.")
    page.get_by_label("Pages", exact=True).fill("3")
    page.get_by_role("button", name="Begin the story").click()
    is_done(page, 3)
    seen = [(words, stage, step) for index, words, stage, step in page.evaluate("window.seen") if index == 2]
    grown = {words for words, stage, _ in seen if stage == "Writing …" and words}
    steps = {step for _, stage, step in seen if stage == "Painting …" and step is not None}
    assert len(grown) > 3
    assert len(steps) > 3


def test_stop_resume_order_lock_undo_branch_and_more_pages(app: App) -> None:
    page = app.page()
    cards = app.begin(page, pages=60)
    expect(cards.nth(1).locator("img.sharp")).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".state")).to_contain_text("stopped")
    page.get_by_role("button", name="Go on", exact=True).click()
    expect(page.locator(".state")).not_to_contain_text("stopped")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".state")).to_contain_text("stopped")

    def choose(number: int, name: str) -> None:
        cards.nth(number - 1).get_by_role("button", name="More", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name=name).click()

    expect(cards.nth(2).locator("img.sharp")).to_be_visible()
    before = sources(cards)
    choose(2, "Move later")
    expect(cards.nth(2).locator("img")).to_have_attribute("src", before[1])
    page.keyboard.press("Control+z")
    expect(cards.nth(1).locator("img")).to_have_attribute("src", before[1])
    page.get_by_role("button", name="Redo", exact=True).click()
    expect(cards.nth(2).locator("img")).to_have_attribute("src", before[1])

    choose(3, "Lock")
    expect(cards.nth(2).locator(".badge")).to_have_text("locked")
    expect(cards.nth(2).get_by_role("button", name="Try again")).to_be_disabled()
    choose(2, "Describe the picture")
    page.get_by_label("Description").fill('A "red" fox')
    page.get_by_role("button", name="Keep", exact=True).click()
    expect(cards.nth(1).locator("img")).to_have_attribute("alt", 'A "red" fox')
    count = cards.count()
    choose(2, "Remove the page")
    expect(cards).to_have_count(count - 1)

    page.get_by_role("button", name="Title", exact=True).click()
    page.get_by_role("dialog").get_by_label("Title").fill("The <key>")
    page.get_by_role("button", name="Keep", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The <key>")

    first = page.url
    page.get_by_role("button", name="Branch", exact=True).click()
    page.get_by_role("dialog").get_by_label("First pages").fill("2")
    page.get_by_role("dialog").get_by_role("button", name="Make the copy").click()
    page.wait_for_url(lambda url: url != first)
    expect(cards).to_have_count(2)

    page.goto("/")
    cards = app.begin(page, "Tom the frog woke up.", 2)
    is_done(page, 2)
    page.get_by_role("button", name="More pages").click()
    page.get_by_role("dialog").get_by_label("Pages in all").fill("3")
    page.get_by_role("dialog").get_by_role("button", name="Go on").click()
    is_done(page, 3)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for good").click()
    page.wait_for_url(re.compile("#/$"))
    expect(page.get_by_role("link", name="Tom the frog")).to_have_count(0)


def test_a_picture_a_script_and_errors_in_one_line(app: App) -> None:
    page = app.page("phone")
    page.goto("/")
    page.get_by_role("button", name="Begin the story").click()
    expect(page.get_by_role("alert")).to_contain_text("Write how the story begins")
    picture = io.BytesIO()
    Image.new("RGB", (64, 40), "teal").save(picture, "PNG")
    page.get_by_label("Drop a picture").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    expect(page.get_by_role("alert")).to_contain_text("notes.txt is no picture")
    page.get_by_label("Drop a picture").set_input_files(
        {"name": "fox.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.get_by_role("button", name="Begin the story").click()
    expect(page.get_by_role("alert")).to_contain_text("picture")
    page.get_by_label("Drop a picture").set_input_files(
        {"name": "fox.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    )
    expect(page.get_by_alt_text("The picture of page 1")).to_be_visible()
    page.get_by_text("Title, seed").click()
    page.get_by_label("Your own script").fill("Mia ran.\n\nTom\nsang.\n\n")
    page.get_by_role("button", name="Begin the story").click()
    is_done(page, 3)
    expect(page.locator(".caption")).to_have_text(["", "Mia ran.", "Tom sang."])
    expect(page.locator(".card").first.get_by_role("button", name="Try again")).to_be_hidden()
    page.goto("/#/story/aaaaaaaaaaaa")
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no such story here")


def test_by_keyboard_alone(app: App) -> None:
    page = app.page()
    page.goto("/")
    page.get_by_label("Opening words").focus()
    page.keyboard.type("Mia the fox found a key.")
    page.get_by_label("Pages", exact=True).fill("2")
    page.keyboard.press("Control+Enter")
    is_done(page, 2)
    edit = page.locator(".card").nth(1).get_by_role("button", name="Edit words")
    edit.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Page 2: edit the words")
    expect(dialog.get_by_label("Words")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(edit).to_be_focused()
    # Tab leads through everything and out at the end: no trap.
    page.get_by_role("link", name="Seedstory").focus()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
        if page.evaluate("document.activeElement === document.body"):
            break
    assert {"All stories", "Try again", "More", "Web page"} <= set(reached)
    assert page.evaluate("document.activeElement === document.body")


@pytest.mark.parametrize("app", [{"api_keys": (KEY,)}], indirect=True)
def test_a_server_with_keys_asks_for_one(app: App) -> None:
    page = app.page("phone", "dark")
    page.goto("/")
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Come in").click()
    expect(page.get_by_text("this is no API key of the server")).to_be_visible()
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Come in").click()
    cards = app.begin(page, pages=2)
    is_done(page, 2)
    expect(cards).to_have_count(2)


def test_axe_finds_nothing_serious(app: App) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing").Axe()
    cards = app.begin(app.page(), pages=2)
    is_done(cards.page, 2)
    address = cards.page.url
    found = {}

    def check(page: Any, what: str) -> None:
        result = axe.run(page).response
        for one in result["violations"]:
            if one["impact"] in ("serious", "critical"):
                found[f"{what}: {one['id']}"] = [node["html"] for node in one["nodes"]]
        assert len(result["passes"]) > 10
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{what} is too wide"

    def check_both(page: Any, what: str) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            check(page, f"{what}, {scheme}")

    for size in SIZES:
        page = app.page(size)
        page.goto("/")
        page.get_by_text("Title, seed").click()
        check_both(page, f"the desk, {size}")
        page.goto(address)
        is_done(page, 2)
        check_both(page, f"a story, {size}")
        page.locator(".card").nth(0).get_by_role("button", name="Edit words").click()
        check_both(page, f"a dialog, {size}")
    assert found == {}


def test_the_verb_opens_the_browser_on_a_free_port(folder: Path, tmp_path: Path) -> None:
    opener, opened = tmp_path / "opener", tmp_path / "opened"
    opener.write_text(f'#!/bin/sh\necho "$1" > {opened}.new && mv {opened}.new {opened}\n')
    opener.chmod(0o755)
    root = Path(__file__).parents[2]
    options = ("--model", str(folder), "--library", str(tmp_path / "stories"))
    running = subprocess.Popen(
        [sys.executable, "-m", "seedstory.cli", "app", *options],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"BROWSER": f"{opener} %s", "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        found = re.fullmatch(r"The app: (http://127\.0\.0\.1:[0-9]+) \(Ctrl-C ends it\)\n", line)
        assert found, line
        answer = httpx.get(found[1])
        assert "<title>Seedstory</title>" in answer.text
        assert "unsafe" not in answer.headers["content-security-policy"]
        for _ in range(100):
            if opened.exists():
                break
            time.sleep(0.05)
        assert opened.read_text("utf-8").strip() == found[1]
        running.send_signal(signal.SIGINT)
        assert running.wait(20) in (0, -signal.SIGINT, 130)
    finally:
        running.kill()
        running.communicate()


def test_the_verb_refuses_a_wider_bind_without_a_key(tmp_path: Path) -> None:
    made = CliRunner(env={"SEEDSTORY_API_KEYS": ""}).invoke(command, ["app", "--host", "0.0.0.0"])
    assert made.exit_code == 2
    assert "give API keys" in made.output
