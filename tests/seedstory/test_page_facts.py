"""Facts of a page: checked, kept through every change, shown where they help, and read by no model."""

import ctypes
import json
import zipfile

import pytest
from typer.testing import CliRunner

from seedstory.cli import app as command
from seedstory.errors import RequestError, StoryFolderError
from seedstory.export import write_book
from seedstory.page_facts import MAX_FACT, MAX_FACTS, change_facts, check_facts, describe_facts, parse_fact
from seedstory.script import read_script
from seedstory.story import Page, StoryFolder
from seedstory.story_editor import StoryEditor
from tests.seedstory.serving import QUICK, serving

MEADOW = {"place": "the meadow", "time": "evening", "who": "Mia, Tom"}


@pytest.fixture
def story(pipe, tmp_path):
    pipe("Mia the fox found a key.", pages=3, seed=3, title="T", out=tmp_path / "s", **QUICK)
    return tmp_path / "s"


def page_files(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "pages").iterdir()}


def record(folder) -> dict:
    return json.loads((folder / "story.json").read_text("utf-8"))


def test_facts_are_clean_lines_under_names_in_small_letters():
    assert check_facts({"Place": " the\n meadow\u202e ", "who": "Mia"}) == {"place": "the meadow", "who": "Mia"}
    assert change_facts(MEADOW, {"TIME": "", "mood": "glad"}) == {
        "place": "the meadow",
        "who": "Mia, Tom",
        "mood": "glad",
    }
    assert parse_fact(" place = a = b ") == ("place", "a = b")
    assert describe_facts(MEADOW | {"mood": "glad"}) == "Who: Mia, Tom. Where: the meadow. When: evening."
    assert describe_facts({"mood": "glad"}) == ""


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"place": ""}, "says nothing"),
        ({"": "x"}, "cannot name a fact"),
        ({"a:b": "x"}, "cannot name a fact"),
        ({"Place": "x", "place": "y"}, "twice"),
        ({"place": "x" * (MAX_FACT + 1)}, "at most 200"),
        ({"x" * 25: "x"}, "at most 24"),
        ({f"n{i}": "x" for i in range(MAX_FACTS + 1)}, "at most 12"),
        ({"place": 3}, "must be text"),
        (["place"], "facts are"),
    ],
)
def test_others_are_refused_in_one_line(facts, words):
    with pytest.raises(RequestError, match=words) as error:
        check_facts(facts)
    assert "\n" not in str(error.value)


def test_a_change_of_facts_touches_no_page_file_and_can_be_undone(story):
    files, before = page_files(story), record(story)
    editor = StoryEditor(story)
    editor.lock(1)
    editor.set_facts(1, MEADOW)
    editor.set_facts(1, {"time": "", "mood": "glad"})
    assert StoryFolder.open(story).page(1).facts == {"place": "the meadow", "who": "Mia, Tom", "mood": "glad"}
    assert StoryFolder.open(story).is_complete
    assert page_files(story) == files
    editor.undo()
    assert record(story)["pages"][1]["facts"] == MEADOW
    editor.undo()
    editor.undo()
    assert record(story)["pages"] == before["pages"]
    with pytest.raises(RequestError, match="pages 1 to 3"):
        editor.set_facts(3, MEADOW)


def test_facts_stay_when_a_page_is_made_anew_moved_or_copied(pipe, story, tmp_path):
    editor = StoryEditor(story)
    editor.set_facts(1, MEADOW)
    editor.redo(1)
    list(pipe.resume(story))
    editor.move(1, 2)
    assert [entry.facts for entry in StoryFolder.open(story).entries] == [{}, {}, MEADOW]
    assert editor.branch(tmp_path / "branch").entries[2].facts == MEADOW
    assert editor.repeat(tmp_path / "again").entries[2].facts == MEADOW
    list(pipe.resume(tmp_path / "again"))
    assert [page.facts for page in StoryFolder.open(tmp_path / "again").pages] == [{}, {}, MEADOW]


def test_the_model_does_not_read_them(pipe, story, tmp_path):
    pipe("Mia the fox found a key.", pages=3, seed=3, title="T", out=tmp_path / "t", facts=[{}, MEADOW], **QUICK)
    assert page_files(tmp_path / "t") == page_files(story)
    assert [entry.facts for entry in StoryFolder.open(tmp_path / "t").entries] == [{}, MEADOW, {}]


def test_a_story_that_was_stopped_keeps_the_facts_of_pages_to_come(pipe, tmp_path):
    out = tmp_path / "s"
    stream = pipe.stream("Mia the fox found a key.", pages=4, out=out, facts=[MEADOW, {}, {"who": "Mia"}], **QUICK)
    next(stream)
    stream.close()
    StoryEditor(out).edit(3, "Tom sang.")  # from now on the pages have them
    assert record(out)["settings"]["facts"] is None
    list(pipe.resume(out))
    assert [page.facts for page in StoryFolder.open(out).pages] == [MEADOW, {}, {"who": "Mia"}, {}]


def test_older_folders_open_and_broken_facts_are_refused(story):
    values = record(story)
    assert not any("facts" in page for page in values["pages"])
    del values["settings"]["facts"]
    (story / "story.json").write_text(json.dumps(values), "utf-8")
    assert StoryFolder.open(story).entries[0].facts == {}
    for facts in ([], {"place": 1}, {"place": "x" * 300}, {f"n{i}": "x" for i in range(99)}, None):
        values["pages"][1]["facts"] = facts
        (story / "story.json").write_text(json.dumps(values), "utf-8")
        with pytest.raises(StoryFolderError, match="facts of page 2"):
            StoryFolder.open(story)


def test_a_script_gives_facts(pipe, tmp_path):
    script = tmp_path / "pages.jsonl"
    script.write_text(
        '{"caption": "Mia ran.", "facts": {"place": "the mill"}}\n"Tom sang."\n{"text": "Both slept."}\n', "utf-8"
    )
    read = read_script(script)
    assert read.captions == ("Mia ran.", "Tom sang.", "Both slept.")
    assert read.facts == ({"place": "the mill"}, {}, {})
    script.write_text('{"caption": "Mia ran."}\n', "utf-8")
    assert read_script(script).facts == ()
    script.write_text('{"caption": "Mia ran."}\n{"caption": "x", "facts": {"place": 7}}\n', "utf-8")
    with pytest.raises(RequestError, match=r"line 2 of .*pages.jsonl: the fact place must be text"):
        read_script(script)


def test_images_say_who_and_where(story, tmp_path):
    assert Page(index=2, caption="", facts=MEADOW).describe() == (
        "Picture of page 3. Who: Mia, Tom. Where: the meadow. When: evening."
    )
    assert Page(index=2, caption="Mia ran.", alt="A fox", facts=MEADOW).describe() == "A fox"
    editor = StoryEditor(story)
    editor.set_facts(1, MEADOW | {"place": 'the "old" <mill>'})
    write_book(StoryFolder.open(story), tmp_path / "book.html", "html")
    page = (tmp_path / "book.html").read_text("utf-8")
    assert "Who: Mia, Tom. Where: the &quot;old&quot; &lt;mill&gt;. When: evening." in page
    write_book(StoryFolder.open(story), tmp_path / "book.epub", "epub")
    with zipfile.ZipFile(tmp_path / "book.epub") as book:
        texts = [book.read(name).decode() for name in book.namelist() if name.endswith("html")]
    assert sum("Who: Mia, Tom. Where: the &quot;old&quot;" in text for text in texts) == 1


def test_a_tagged_pdf_says_who_and_where(story, tmp_path):
    pytest.importorskip("typst")
    pdfium = pytest.importorskip("pypdfium2")
    StoryEditor(story).set_facts(1, MEADOW)
    write_book(StoryFolder.open(story), tmp_path / "book.pdf", "pdf")
    alts = [
        alt for page in pdfium.PdfDocument(tmp_path / "book.pdf") for alt in alternative_texts(pdfium.raw, page.raw)
    ]
    assert len([alt for alt in alts if alt.endswith("Who: Mia, Tom. Where: the meadow. When: evening.")]) == 1


def alternative_texts(pdfium, page) -> list[str]:
    tree = pdfium.FPDF_StructTree_GetForPage(page)
    waiting = [
        pdfium.FPDF_StructTree_GetChildAtIndex(tree, i) for i in range(pdfium.FPDF_StructTree_CountChildren(tree))
    ]
    found = []
    while waiting:
        element = waiting.pop()
        if not element:
            continue
        size = pdfium.FPDF_StructElement_GetAltText(element, None, 0)
        buffer = ctypes.create_string_buffer(size)
        pdfium.FPDF_StructElement_GetAltText(element, buffer, size)
        found.append(buffer.raw.decode("utf-16-le").rstrip("\0"))
        count = pdfium.FPDF_StructElement_CountChildren(element)
        waiting += [pdfium.FPDF_StructElement_GetChildAtIndex(element, i) for i in range(count)]
    return found


def test_the_command_sets_and_shows_them(story):
    runner = CliRunner()
    made = runner.invoke(command, ["edit", str(story), "3", "--fact", "place=the meadow", "--fact", "who=Mia, Tom"])
    assert made.exit_code == 0, made.output
    assert runner.invoke(command, ["edit", str(story), "3", "--fact", "who="]).exit_code == 0
    shown = runner.invoke(command, ["info", str(story)]).output
    assert shown.endswith("facts\n   3  place: the meadow\n")
    refused = runner.invoke(command, ["edit", str(story), "3", "--fact", "the meadow"])
    assert refused.exit_code == 2 and "NAME=TEXT" in refused.output


def test_the_server_sets_and_shows_them(pipe, tmp_path):
    with serving(pipe, tmp_path / "stories") as client:
        story_id = client.make(pages=2, facts=[{"who": "Mia"}])
        story = client.wait(story_id)
        assert [page["facts"] for page in story["pages"]] == [{"who": "Mia"}, {}]
        path = f"/api/stories/{story_id}/pages/{story['pages'][1]['id']}/facts"
        story = client.post(path, json={"facts": MEADOW}).raise_for_status().json()
        assert story["pages"][1]["facts"] == MEADOW
        assert story["state"] == "done" and story["can_undo"]
        for facts in ({"place": "x" * 300}, {"a=b": "x"}, {"place": 3}, "place"):
            answer = client.post(path, json={"facts": facts})
            assert answer.status_code == 422 and "\n" not in answer.json()["detail"]
        assert client.post("/api/stories", json={"text": "x", "pages": 1, "facts": [{}, {}]}).status_code == 422
