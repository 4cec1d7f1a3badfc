"""The app in a real browser: pictures that are dropped and pasted, drafts, notes, cast and plan, all by keyboard."""

import base64
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from seedstory.pipeline import StoryPipeline
from tests.seedstory.app_pages import SIZES, SLOW, App, Axe, choose, expect, is_done, open_app, sources
from tests.tiny import tiny_model_folder

TEAL = (0, 128, 128)
# Makes a DataTransfer with a file, as a drop or a paste brings it.
TRANSFER = """([name, type, data]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(data), (one) => one.charCodeAt(0))], name, { type }));
    return transfer;
}"""
# Keeps what the drafts were, at each change: too quick to be looked at from here.
WATCH = """() => {
    window.drafts = [];
    const keep = (image) => {
        const { hidden } = image.parentNode.querySelector("img.picture");
        window.drafts.push([image.alt, image.src, parseFloat(image.style.filter.slice(5)), hidden]);
    };
    const look = () => document.querySelectorAll("img.sketch:not([hidden])").forEach(keep);
    const all = { childList: true, subtree: true, attributes: true };
    new MutationObserver(look).observe(document.getElementById("view"), all);
}"""


def teal_png() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 40), TEAL).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def story_of(page: Any) -> dict[str, Any]:
    """The story of a page, as the server has it."""
    return page.request.get("/api/stories/" + page.url.rpartition("/")[2]).json()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(app: App, way: str) -> None:
    page = app.page()
    page.goto("/")

    def bring(name: str, kind: str, data: str) -> None:
        transfer = page.evaluate_handle(TRANSFER, [name, kind, data])
        if way == "drop":
            page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})
        else:
            page.get_by_label("Opening words").focus()
            page.evaluate(
                """(clipboardData) => document.activeElement.dispatchEvent(
                    new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }))""",
                transfer,
            )

    preview = page.get_by_alt_text("The picture of page 1")
    bring("notes.txt", "text/plain", base64.b64encode(b"no picture").decode())
    if way == "drop":
        expect(page.get_by_role("alert")).to_contain_text("notes.txt is no picture")
    expect(preview).to_be_hidden()
    bring("fox.png", "image/png", teal_png())
    expect(preview).to_be_visible()
    page.get_by_role("button", name="Take the picture away").click()
    expect(preview).to_be_hidden()
    bring("fox.png", "image/png", teal_png())
    expect(preview).to_be_visible()
    page.get_by_label("Pages", exact=True).fill("2")
    page.get_by_role("button", name="Begin the story").click()
    is_done(page, 2)
    first = page.request.get(sources(page.locator(".card"))[0])
    with Image.open(io.BytesIO(first.body())) as image:
        assert image.convert("RGB").getpixel((5, 5)) == TEAL


def test_every_book_is_what_its_button_says(app: App) -> None:
    page = app.page("phone")
    app.begin(page, pages=2)
    is_done(page, 2)
    buttons = page.get_by_role("group", name="The book").get_by_role("button").all()
    found = {}
    for button in buttons:
        with page.expect_download() as download:
            button.click()
        found[button.text_content()] = (
            Path(download.value.suggested_filename).suffix,
            Path(download.value.path()).read_bytes(),
        )
        expect(button).to_be_enabled()
    assert set(found) == {"Web page", "PDF", "EPUB", "Comic (CBZ)", "Film (MP4)", "ViStoryBench"}
    ending, data = found["Web page"]
    assert ending == ".html" and data.lower().startswith(b"<!doctype html") and b"Mia the fox found a key." in data
    ending, data = found["PDF"]
    assert ending == ".pdf" and data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    ending, data = found["EPUB"]
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        assert ending == ".epub" and book.read("mimetype") == b"application/epub+zip" and book.testzip() is None
    ending, data = found["Comic (CBZ)"]
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        images = [name for name in book.namelist() if name.endswith((".png", ".jpg"))]
        assert ending == ".cbz" and images and book.testzip() is None
        with Image.open(book.open(images[0])) as image:
            image.load()
    ending, data = found["Film (MP4)"]
    assert ending == ".mp4" and data[4:8] == b"ftyp" and b"moov" in data
    ending, data = found["ViStoryBench"]
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        assert ending == ".zip" and [name for name in book.namelist() if name.endswith(".png")]


def test_a_locked_page_stays_and_every_change_is_undone(app: App) -> None:
    page = app.page()
    cards = app.begin(page, pages=4)
    is_done(page, 4)
    undo, redo = (page.get_by_role("button", name=name, exact=True) for name in ("Undo", "Redo"))
    expect(undo).to_be_disabled()
    expect(redo).to_be_disabled()
    before = sources(cards)
    choose(page, 3, "Lock")
    expect(cards.nth(2).locator(".badge")).to_have_text("locked")
    cards.nth(1).get_by_role("button", name="Try again").click()
    page.get_by_role("dialog").get_by_label("Are written and drawn anew").check()
    page.get_by_role("dialog").get_by_role("button", name="Make it anew").click()
    expect(cards.nth(3).locator("img.picture")).not_to_have_attribute("src", before[3])
    is_done(page, 4)
    after = sources(cards)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True, False]
    undo.click()
    expect(cards.nth(3).locator("img.picture")).to_have_attribute("src", before[3])
    assert sources(cards) == before
    expect(redo).to_be_enabled()
    page.keyboard.press("Control+y")
    expect(cards.nth(3).locator("img.picture")).to_have_attribute("src", after[3])
    expect(redo).to_be_disabled()
    choose(page, 3, "Unlock")
    expect(cards.nth(2).locator(".badge")).to_be_hidden()
    expect(cards.nth(2).get_by_role("button", name="Try again")).to_be_enabled()
    page.keyboard.press("Control+z")
    expect(cards.nth(2).locator(".badge")).to_have_text("locked")


def test_drafts_are_shown_while_pictures_are_drawn(app: App) -> None:
    page = app.page(settings=SLOW)
    page.goto("/")
    page.evaluate(WATCH)
    page.get_by_label("Opening words").fill("Mia the fox found a key.")
    page.get_by_label("Pages", exact=True).fill("2")
    page.get_by_role("button", name="Begin the story").click()
    is_done(page, 2)
    drafts = page.evaluate("window.drafts")
    for number in (1, 2):
        own = [draft for draft in drafts if draft[0] == f"Draft of the picture of page {number}, still being painted"]
        assert len({source for _, source, _, _ in own}) > 1
        blurs = [blur for _, _, blur, _ in own]
        assert blurs == sorted(blurs, reverse=True) and blurs[0] > blurs[-1]
        assert all(source.startswith("blob:") and hidden for _, source, _, hidden in own)
    expect(page.locator("img.sketch:visible")).to_have_count(0)
    expect(page.locator("img.picture:visible")).to_have_count(2)


def test_who_wants_little_motion_gets_one_draft_in_a_second(app: App) -> None:
    page = app.page(settings=SLOW | {"max_caption_tokens": 20, "min_caption_tokens": 1}, reduced_motion="reduce")
    page.goto("/")
    page.evaluate(WATCH)
    page.get_by_label("Opening words").fill("Mia the fox found a key.")
    page.get_by_label("Pages", exact=True).fill("2")
    begun = page.evaluate("performance.now()")
    page.get_by_role("button", name="Begin the story").click()
    is_done(page, 2)
    seconds = (page.evaluate("performance.now()") - begun) / 1000
    drafts = {source for _, source, _, _ in page.evaluate("window.drafts")}
    assert 1 <= len(drafts) <= 2 + seconds
    page.locator(".card").first.evaluate("card => card.querySelector('.sketch').hidden = false")
    assert page.locator("img.sketch").first.evaluate("one => getComputedStyle(one).transitionProperty") in (
        "none",
        "all",
    )
    assert page.locator("img.sketch").first.evaluate("one => getComputedStyle(one).transitionDuration") == "0s"


def test_notes_are_shown_said_and_undone(app: App) -> None:
    page = app.page("phone")
    cards = app.begin(page, pages=2)
    is_done(page, 2)
    choose(page, 2, "Who, where, when")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Who", exact=True).fill("Mia, <b>Tom</b>")
    dialog.get_by_label("Where").fill("the meadow")
    dialog.get_by_label("More notes").fill("no colon here")
    dialog.get_by_role("button", name="Keep").click()
    expect(dialog.get_by_role("alert")).to_contain_text('Write a note as "mood: glad"')
    dialog.get_by_label("More notes").fill("Mood: glad")
    dialog.get_by_role("button", name="Keep").click()
    facts = cards.nth(1).locator(".facts")
    expect(facts).to_have_text("Who: Mia, <b>Tom</b> · Where: the meadow · mood: glad")
    said = "Picture of page 2. Who: Mia, <b>Tom</b>. Where: the meadow."
    expect(cards.nth(1).locator("img.picture")).to_have_attribute("alt", said)
    assert story_of(page)["pages"][1]["facts"] == {"who": "Mia, <b>Tom</b>", "place": "the meadow", "mood": "glad"}
    choose(page, 2, "Who, where, when")
    expect(dialog.get_by_label("More notes")).to_have_value("mood: glad")
    dialog.get_by_label("Who", exact=True).fill("")
    dialog.get_by_label("More notes").fill("")
    dialog.get_by_role("button", name="Keep").click()
    expect(facts).to_have_text("Where: the meadow")
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(facts).to_contain_text("mood: glad")
    assert story_of(page)["state"] == "done"


def test_a_model_without_story_states_says_so(app: App) -> None:
    page = app.page()
    app.begin(page, pages=2)
    is_done(page, 2)
    page.get_by_role("button", name="Cast and plan").click()
    expect(page.get_by_role("dialog")).to_contain_text("writes no cast and no plan")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="Cast and plan")).to_be_focused()


def test_cast_and_plan_are_changed(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_LINE_TOKENS", 4)
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_CAST", 2)
    folder = tiny_model_folder(tmp_path)
    config = folder / "story_model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"story_state": True}))
    pipe = StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu")
    with open_app(browser, pipe, tmp_path / "stories") as app:
        page = app.page()
        cards = app.begin(page, pages=3)
        is_done(page, 3)
        before, made = story_of(page), sources(cards)
        page.get_by_role("button", name="Cast and plan").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("They hold from page 2 on.")
        expect(dialog.get_by_label("Page 2")).to_have_value(before["pages"][0]["plan"][0])
        dialog.get_by_label("Cast").fill("Ida, an owl")
        dialog.get_by_role("button", name="Keep them").click()
        expect(dialog.get_by_role("alert")).to_contain_text('Write a character as "Mia: fox, red coat"')
        dialog.get_by_label("Cast").fill("Ida: owl, blue scarf\nTom: frog, green vest")
        dialog.get_by_label("Page 3").fill("Ida sings")
        dialog.get_by_role("button", name="Keep them").click()
        strip = page.get_by_role("region", name="Cast").get_by_role("listitem")
        expect(strip).to_have_text(["Idaowl, blue scarf", "Tomfrog, green vest"])
        expect(cards.nth(2).locator("img.picture")).not_to_have_attribute("src", made[2])
        is_done(page, 3)
        after = story_of(page)
        assert [one["caption"] for one in after["pages"]] == [one["caption"] for one in before["pages"]]
        assert [old == new for old, new in zip(made, sources(cards), strict=True)] == [True, False, False]
        assert after["pages"][0]["cast"] == {"Ida": "owl, blue scarf", "Tom": "frog, green vest"}
        assert after["pages"][0]["plan"] == [before["pages"][0]["plan"][0], "Ida sings"]
        page.get_by_role("button", name="Undo", exact=True).click()
        expect(cards.nth(2).locator("img.picture")).to_have_attribute("src", made[2])
        assert story_of(page)["cast"] == before["cast"]
        check = Axe()
        for size in SIZES:
            page = app.page(size)
            page.goto("/#/story/" + before["id"])
            is_done(page, 3)
            page.get_by_role("button", name="Cast and plan").click()
            check(page, f"cast and plan, {size}")
        assert check.found == {}


def test_a_story_is_made_and_changed_by_keyboard_alone(app: App) -> None:
    page = app.page()
    page.goto("/")
    expect(page.get_by_label("Opening words")).to_be_visible()
    press = page.keyboard.press

    def tab_to(name: str, key: str = "Tab") -> None:
        for _ in range(60):
            said = page.evaluate(
                """() => { const one = document.activeElement;
                    return [one.textContent, one.labels?.[0]?.textContent, one.ariaLabel]; }"""
            )
            if name in said:
                return
            press(key)
        raise AssertionError(f"Tab does not lead to {name}")

    tab_to("Opening words")
    page.keyboard.type("Mia the fox found a key.")
    tab_to("Pages")
    press("Control+a")
    page.keyboard.type("2")
    tab_to("Begin the story")
    press("Enter")
    page.wait_for_url(re.compile("#/story/"))
    is_done(page, 2)
    cards = page.locator(".card")
    before = sources(cards)

    page.get_by_role("main").focus()
    tab_to("More")
    press("Enter")
    expect(page.get_by_role("dialog", name="Page 1")).to_be_visible()
    tab_to("Who, where, when")
    press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Who", exact=True)).to_be_focused()
    page.keyboard.type("Mia")
    press("Enter")
    expect(cards.first.locator(".facts")).to_have_text("Who: Mia")
    expect(cards.first.get_by_role("button", name="More", exact=True)).to_be_focused()
    press("Control+z")
    expect(cards.first.locator(".facts")).to_be_hidden()

    tab_to("Insert after", "Shift+Tab")
    tab_to("Edit words")  # of page 2
    press("Shift+Tab")
    expect(cards.nth(1).get_by_role("button", name="Try again")).to_be_focused()
    press("Space")
    expect(page.get_by_role("dialog").get_by_label("New words and a new picture")).to_be_focused()
    press("ArrowDown")
    expect(page.get_by_role("dialog").get_by_role("radio", name=re.compile("^A new picture"))).to_be_checked()
    tab_to("Make it anew")
    press("Enter")
    expect(cards.nth(1).locator("img.picture")).not_to_have_attribute("src", before[1])
    is_done(page, 2)
    expect(cards.nth(1).get_by_role("button", name="Try again")).to_be_focused()
    tab_to("Web page", "Shift+Tab")
    with page.expect_download() as download:
        press("Enter")
    assert download.value.suggested_filename.endswith(".html")
    assert page.evaluate("document.activeElement.textContent") == "Web page"
