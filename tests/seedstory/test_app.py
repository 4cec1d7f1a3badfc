"""The app in a real browser: a story from its opening to its book, and what the command opens."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner

from seedstory.cli import app as command
from tests.seedstory.app_pages import SIZES, SLOW, App, Axe, choose, expect, is_done, sources

HOSTILE = "<img src=x onerror=alert(1)> & <b>Mia</b>"
KEY = "a-long-secret-key-of-a-test"


def test_a_story_from_its_opening_to_a_book(app: App, tmp_path: Path) -> None:
    page = app.page()
    cards = app.begin(page)
    expect(cards.first.locator(".caption")).to_have_text("Mia the fox found a key.")
    is_done(page, 4)
    made = sources(cards)

    # page 3 anew
    cards.nth(2).get_by_role("button", name="Try again").click()
    page.get_by_role("dialog").get_by_role("button", name="Make it anew").click()
    expect(cards.nth(2).locator("img.picture")).not_to_have_attribute("src", made[2])
    is_done(page, 4)
    redone = sources(cards)
    assert [old == new for old, new in zip(made, redone)] == [True, True, False, True]

    # other words for page 2; what follows is drawn anew
    cards.nth(1).get_by_role("button", name="Edit words").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Words").fill(HOSTILE)
    dialog.get_by_label("Are drawn anew").check()
    dialog.get_by_role("button", name="Keep the words").click()
    expect(cards.nth(3).locator("img.picture")).not_to_have_attribute("src", redone[3])
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

    expect(cards.nth(2).locator("img.sharp")).to_be_visible()
    before = sources(cards)
    choose(page, 2, "Move later")
    expect(cards.nth(2).locator("img.picture")).to_have_attribute("src", before[1])
    page.keyboard.press("Control+z")
    expect(cards.nth(1).locator("img.picture")).to_have_attribute("src", before[1])
    page.get_by_role("button", name="Redo", exact=True).click()
    expect(cards.nth(2).locator("img.picture")).to_have_attribute("src", before[1])

    choose(page, 3, "Lock")
    expect(cards.nth(2).locator(".badge")).to_have_text("locked")
    expect(cards.nth(2).get_by_role("button", name="Try again")).to_be_disabled()
    choose(page, 2, "Describe the picture")
    page.get_by_label("Description").fill('A "red" fox')
    page.get_by_role("button", name="Keep", exact=True).click()
    expect(cards.nth(1).locator("img.picture")).to_have_attribute("alt", 'A "red" fox')
    count = cards.count()
    choose(page, 2, "Remove the page")
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
    check = Axe()
    cards = app.begin(app.page(), pages=2)
    is_done(cards.page, 2)
    address = cards.page.url
    for size in SIZES:
        page = app.page(size)
        page.goto("/")
        page.get_by_text("Title, seed").click()
        check(page, f"the desk, {size}")
        page.goto(address)
        is_done(page, 2)
        check(page, f"a story, {size}")
        page.locator(".card").nth(0).get_by_role("button", name="Edit words").click()
        check(page, f"a dialog, {size}")
        page.keyboard.press("Escape")
        choose(page, 2, "Who, where, when")
        check(page, f"notes, {size}")
    assert check.found == {}


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
