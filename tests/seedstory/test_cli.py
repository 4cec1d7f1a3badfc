"""The command: what it says to bad input, and that it says it before anything is loaded or written."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from typer.testing import CliRunner

from seedstory import __version__
from seedstory.cli import app, main
from seedstory.pipeline import StoryPipeline
from seedstory.settings import StorySettings
from seedstory.story import Page, StoryFolder
from tests.seedstory.test_image import png_header


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder to work in with a good picture, bad ones, a finished and a foreign folder, and scripts."""
    monkeypatch.chdir(tmp_path)
    image = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(image, "PNG")
    for name, data in {
        "good.png": image.getvalue(),
        "bomb.png": png_header(30_000, 30_000),
        "cut.png": image.getvalue()[:60],
        "empty.png": b"",
        "letter.png": b"Dear owl,\nit is late.\n",
        "blank.txt": b" \n\n",
        "latin.txt": "früh".encode("latin-1"),
        "script.txt": b"One.\n\nTwo.\n",
        "long.txt": b"line\n" * 10_001,
    }.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/thesis.txt").write_text("mine")
    folder = StoryFolder.create("told", title="The [bold]Lantern", settings=StorySettings(text="x", pages=2))
    for index in range(2):
        folder.add_page(
            Page(index=index, caption=f"Page {index}.", image=Image.new("RGB", (16, 16)), state="illustrated")
        )
    return tmp_path


def tree(path) -> dict:
    return {f.relative_to(path).as_posix(): f.is_file() and f.read_bytes() for f in sorted(path.rglob("*"))}


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Runs the console script's own entry point in this process."""
    old, sys.argv = sys.argv, ["seedstory", *arguments]
    try:
        with pytest.raises(SystemExit) as left:
            main()
    finally:
        sys.argv = old
    captured = capsys.readouterr()
    return left.value.code, captured.out, captured.err


TEXT = ["--text", "A fox finds a lantern."]
FAULTS = [
    (["generate"], "opening"),
    (["generate", "--text", ""], "empty"),
    (["generate", "--text", " \t "], "empty"),
    (["generate", "--text", "", "--image", "good.png"], "empty"),
    (["generate", "--text", "x" * 5000], "at most 4000"),
    (["generate", "--image", "none.png"], "no file none.png"),
    (["generate", "--image", "foreign"], "foreign is a folder"),
    (["generate", "--image", "letter.png"], "letter.png is not a picture"),
    (["generate", "--image", "empty.png"], "empty.png is empty"),
    (["generate", "--image", "cut.png"], "cut.png"),
    (["generate", "--image", "bomb.png"], "bomb.png is too large"),
    (["generate", *TEXT, "--pages", "0"], "pages must be"),
    (["generate", *TEXT, "--pages", "10001"], "10,000"),
    (["generate", *TEXT, "--pages", "ten"], "--pages"),
    (["generate", *TEXT, "--seed", "-1"], "seed"),
    (["generate", *TEXT, "--steps", "0"], "num_inference_steps"),
    (["generate", *TEXT, "--policy", "magic"], "unknown policy 'magic'"),
    (["generate", *TEXT, "--temperature", "-1"], "temperature"),
    (["generate", *TEXT, "--top-p", "2"], "top_p"),
    (["generate", *TEXT, "--top-k", "-1"], "top_k must be a whole number from 0"),
    (["generate", *TEXT, "--min-p", "1.5"], "min_p must be a number from 0 to 1"),
    (["generate", *TEXT, "--repetition-penalty", "0"], "repetition_penalty"),
    (["generate", *TEXT, "--no-repeat-ngram-size", "1"], "give 0 (off) or 2 and more"),
    (["generate", *TEXT, "--history-pages", "-1"], "history_pages"),
    (["generate", *TEXT, "--min-caption-tokens", "20", "--max-caption-tokens", "10"], "lower the one or raise"),
    (["generate", *TEXT, "--max-caption-tokens", "0"], "max_caption_tokens"),
    (["generate", *TEXT, "--max-sentences", "two"], "--max-sentences"),
    (["generate", *TEXT, "--stop", "ok", "--stop", " "], "a stop text is empty"),
    (["generate", *TEXT, "--text-guidance-scale", "nan"], "text_guidance_scale"),
    (["generate", *TEXT, "--rendering", "later"], "choose one of inline, ahead, after"),
    (["generate", *TEXT, "--render-batch", "0"], "render_batch"),
    (["continue", "told", "--rendering", "later"], "choose one of inline, ahead, after"),
    (["generate", *TEXT, "--captions", "none.txt"], "none.txt"),
    (["generate", *TEXT, "--captions", "blank.txt"], "blank.txt is empty"),
    (["generate", *TEXT, "--captions", "latin.txt"], "UTF-8"),
    (["generate", *TEXT, "--captions", "long.txt"], "10,000"),
    (["generate", *TEXT, "--captions", "script.txt", "--pages", "9"], "one for each page"),
    (["generate", *TEXT, "--out", "told"], "continue told"),
    (["generate", *TEXT, "--out", "foreign"], "foreign holds other files"),
    (["generate", *TEXT, "--out", "foreign", "--overwrite"], "foreign holds other files"),
    (["generate", *TEXT, "--out", "good.png"], "good.png is a file"),
    (["generate", *TEXT, "--out", "good.png/story"], "cannot write to good.png/story"),
    (["generate", *TEXT, "--out", "/proc/story"], "cannot write to /proc/story"),
    (["generate", *TEXT, "--model", "giant"], "no model giant"),
    (["generate", *TEXT, "--model", "foreign"], "model_index.json"),
    (["generate", *TEXT, "--title", " "], "the title is empty"),
    (["generate", *TEXT, "--wings", "2"], "wings"),
    (["continue", "foreign"], "holds no story"),
    (["continue", "nowhere"], "holds no story"),
    (["continue"], "FOLDER"),
    (["export", "foreign"], "holds no story"),
    (["info", "--model", "giant"], "no model giant"),
    (["fly"], "fly"),
]


@pytest.mark.parametrize(("arguments", "message"), FAULTS, ids=[" ".join(a)[:60] for a, _ in FAULTS])
def test_bad_input_is_one_line_and_leaves_no_trace(desk, capsys, arguments, message):
    before = tree(desk)
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert tree(desk) == before


def test_exit_status_of_the_real_command_and_nothing_heavy_loaded(desk):
    code = (
        "import sys; from seedstory.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in ('torch', 'transformers', 'diffusers') if m in sys.modules])"
    )
    for arguments in (["--image", "letter.png"], ["--image", "good.png", "--pages", "0"], [*TEXT, "--out", "told"]):
        run = subprocess.run(
            [sys.executable, "-c", code, "generate", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert run.returncode == 2 and run.stderr.startswith("error: ") and run.stdout == "[]\n"


def test_help_and_version_are_quick(desk):
    start = time.monotonic()
    command = [sys.executable, "-m", "seedstory.cli"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, env=env, check=True).stdout
    taken = time.monotonic() - start
    assert shown == f"seedstory {__version__}\n"
    assert taken < 5, "two cores under load included; 0.2 s on an idle machine"
    for arguments in (["--help"], ["generate", "--help"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0 and "generate" in result.output
    shown = CliRunner().invoke(app, ["generate", "--help"]).output
    assert "--image drawing.jpg" in shown and "--no-repeat-ngram-size 12" in shown
    assert all(f"─ {panel} ─" in shown for panel in ("Opening", "Book", "Words", "Pictures", "Model"))


def test_export_writes_the_book_again(desk, capsys):
    code, out, _ = run(capsys, "export", "told")
    assert code == 0 and "told/index.html" in out
    text = (desk / "told/index.html").read_text("utf-8")
    assert "The [bold]Lantern" in text and "Page 1." in text


def test_export_takes_formats_and_a_place(desk, capsys):
    pytest.importorskip("typst", reason="the extra book is not installed")
    code, out, _ = run(
        capsys, "export", "told", "--format", "epub", "-f", "vistorybench", "--author", "Ann", "--style", "night"
    )
    assert code == 0 and "told/book.epub" in out and (desk / "told/vistorybench/seedstory/base/en").is_dir()
    code, out, _ = run(capsys, "export", "told", "--out", "comic.cbz")
    assert code == 0 and "comic.cbz" in out and (desk / "comic.cbz").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "docx"], "unknown format 'docx': choose one of html"),
        (["--out", "book.docx"], "the ending of book.docx names no format"),
        (["--format", "pdf", "--format", "epub", "--out", "book.pdf"], "one --format"),
        (["--narration"], "--narration belongs to a film"),
        (["--layout", "scroll"], "unknown layout 'scroll'"),
        (["--layout", "picture-book", "--balloons"], "balloons belong to a comic"),
        (["--format", "vistorybench", "--story-id", "../1"], "must be digits"),
    ],
)
def test_export_refuses_in_one_line(desk, capsys, arguments, said):
    before = tree(desk)
    code, _, err = run(capsys, "export", "told", *arguments)
    assert code == 2 and said in err and err.count("\n") == 1 and tree(desk) == before


def test_resume_of_a_finished_story_does_nothing(desk, capsys):
    before = tree(desk)
    code, out, _ = run(capsys, "continue", "told")
    assert code == 0 and "Nothing to do" in out
    after = tree(desk)
    assert after.pop("told/index.html") and after == before


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    from tests.tiny import tiny_model_folder

    return str(tiny_model_folder(tmp_path_factory.mktemp("tiny")))


def test_from_an_image_to_a_book(desk, capsys, model):
    request = ["generate", "--image", "good.png", "--pages", "3", "--steps", "1", "--model", model]
    code, out, err = run(capsys, *request)
    assert (code, err) == (0, "")
    assert "[3/3]" in out and out.endswith("The book: stories/good/index.html\n")
    story = StoryFolder.open("stories/good")
    assert len(story) == 3 and story.settings.image_name == "good.png" and story.model.name == model
    assert (desk / "stories/good/index.html").read_text("utf-8").count('<article class="leaf page"') == 3
    code, out, _ = run(capsys, *request)
    assert code == 0 and "stories/good-2/index.html" in out


def test_what_is_asked_of_the_words_is_done_and_recorded(desk, capsys, model):
    words = {"temperature": 0.9, "top_k": 40, "top_p": 1.0, "min_p": 0.01, "repetition_penalty": 1.1}
    words |= {"no_repeat_ngram_size": 3, "history_pages": 9, "min_caption_tokens": 6, "max_caption_tokens": 12}
    words |= {"max_sentences": 4}
    flags = [part for name, value in words.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    request = ["generate", *TEXT, *flags, "--stop", "a", "--stop", "e", "--pages", "4", "--steps", "1"]
    code, _, err = run(capsys, *request, "--model", model, "-o", "s")
    assert (code, err) == (0, "")
    story = StoryFolder.open("s")
    expected = StorySettings(text=TEXT[1], pages=4, num_inference_steps=1, stop=("a", "e"), **words)
    assert story.settings == expected
    record = json.loads((desk / "s/story.json").read_text("utf-8"))
    assert record["settings"]["stop"] == ["a", "e"] and record["settings"]["top_k"] == 40
    words["no_repeat_ngram"] = words.pop("no_repeat_ngram_size")  # its name on disk
    for key in [*words, "stop", "text_guidance"]:  # a story told before these settings existed
        del record["settings"][key]
    (desk / "s/story.json").write_text(json.dumps(record), "utf-8")
    assert StoryFolder.open("s").settings == StorySettings(text=TEXT[1], pages=4, num_inference_steps=1)


def test_a_script_gives_its_own_pages(desk, capsys, model):
    code, out, _ = run(capsys, "generate", "--captions", "script.txt", "--steps", "1", "--model", model, "-o", "mine")
    assert code == 0 and "[1/2] One.\n[2/2] Two.\n" in out
    assert StoryFolder.open("mine").title == "One"


def test_special_tokens_in_a_text_are_refused(desk, capsys, model):
    before = tree(desk)
    code, _, err = run(capsys, "generate", "--text", "An <img> here.", "--model", model, "-o", "new/place")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert tree(desk) == before


@pytest.mark.parametrize("rendering", ["inline", "ahead"])
def test_interrupt_keeps_the_finished_pages(desk, model, rendering):
    request = ["generate", *TEXT, "--pages", "500", "--steps", "1", "--model", model, "--out", "cut"]
    request += ["--rendering", rendering]
    process = subprocess.Popen(
        [sys.executable, "-m", "seedstory.cli", *request],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "pages are safe in cut; go on with: seedstory continue cut" in err and "Traceback" not in err
    story = StoryFolder.open("cut")
    drawn = [story.page(i).image is not None for i in range(len(story))]
    assert 3 <= len(story) < 500 and all(drawn[:3]) and drawn == sorted(drawn, reverse=True)
    assert all(drawn) or rendering == "ahead"
    assert "To be continued" in (desk / "cut/index.html").read_text("utf-8")


def begin(*request, before="", **options) -> subprocess.Popen:
    """The command in a process of its own, after some code."""
    run_it = f"import sys\n{before}\nfrom seedstory.cli import main\nsys.argv[1:] = {list(request)!r}\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", run_it],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        **options,
    )


@pytest.mark.parametrize(
    "second",
    [
        ["generate", *TEXT, "--out", "busy"],
        ["generate", *TEXT, "--out", "busy", "--overwrite"],
        ["resume", "busy"],
        ["export", "busy"],
    ],
    ids=["generate", "overwrite", "resume", "export"],
)
def test_one_writer_at_a_time(desk, capsys, model, second):
    first = begin("generate", *TEXT, "--pages", "500", "--steps", "1", "--model", model, "--out", "busy")
    try:
        assert first.stdout.readline()
        model_of_it = [] if second[0] == "export" else ["--model", model]
        code, out, err = run(capsys, *second, *model_of_it)
        assert code == 2 and out == "" and "is being written by another seedstory" in err and err.count("\n") == 1
        assert first.stdout.readline(), "the first one goes on"
    finally:
        first.kill()
        first.communicate(timeout=300)
    code, _, err = run(capsys, "export", "busy")
    assert code == 0, f"a killed writer holds nothing: {err}"


def test_killed_before_its_first_page_a_story_is_still_generated(desk, capsys, model):
    request = ["generate", *TEXT, "--pages", "2", "--steps", "1", "--seed", "3", "--model", model]
    kill = "import os, seedstory.pipeline as p\np.StoryPipeline._write = lambda *_: os.kill(os.getpid(), 9)"
    process = begin(*request, "--out", "cut", before=kill)
    process.communicate(timeout=300)
    assert process.returncode == -9
    assert run(capsys, "resume", "cut")[0] == 0
    assert run(capsys, *request, "--out", "whole")[0] == 0
    assert tree(desk / "cut") == tree(desk / "whole")


def test_a_bug_before_the_first_page_leaves_nothing_but_a_log(desk, capsys, model, monkeypatch, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    before = tree(desk)
    monkeypatch.setattr(StoryPipeline, "_write", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    monkeypatch.setenv("SEEDSTORY_CACHE", str(cache))
    monkeypatch.setenv("SEEDSTORY_BASE_LM", "")
    code, _, err = run(capsys, "generate", *TEXT, "--model", model, "--out", "new/place")
    (log,) = (cache / "logs").glob("*.log")
    assert code == 1 and err.startswith(
        "error: this is a bug in seedstory (RuntimeError: out of memory); please report"
    )
    assert err.count("\n") == 1 and str(log) in err and "Traceback" in log.read_text()
    code, _, err = run(capsys, "--debug", "generate", *TEXT, "--model", model, "--out", "new/place")
    assert code == 1 and "Traceback" in err and "seedstory.pipeline_base: loaded" in err
    assert tree(desk) == before and not (desk / "new").exists()


def test_a_folder_deleted_meanwhile_is_named(desk, capsys, model, monkeypatch):
    write = StoryFolder.add_page

    def deleted(self, page):
        if page.index == 2:
            shutil.rmtree(self.path)
        write(self, page)

    monkeypatch.setattr(StoryFolder, "add_page", deleted)
    code, _, err = run(capsys, "generate", *TEXT, "--pages", "4", "--steps", "1", "--model", model, "--out", "gone")
    assert code == 1 and err == "error: gone was deleted or moved while its story was generated: 2 pages are lost\n"
    assert not (desk / "gone").exists()


def test_what_a_killed_run_left_goes_with_the_next_command(desk, capsys, model):
    assert run(capsys, "generate", *TEXT, "--pages", "2", "--steps", "1", "--model", model, "--out", "s")[0] == 0
    for command in ("resume", "export"):
        for name in (".index.html.0123abcd.tmp", "pages/.page-002.png.0123abcd.tmp"):
            (desk / "s" / name).write_bytes(b"half")
        assert run(capsys, command, "s")[0] == 0
        assert not [*(desk / "s").rglob("*.tmp")], command


def test_interrupt_keeps_pages_without_images(desk, capsys, model, monkeypatch):
    write = StoryFolder.add_page

    def interrupted(self, page):
        if page.index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        write(self, page)

    request = ["generate", *TEXT, "--pages", "4", "--steps", "1", "--model", model]
    with monkeypatch.context() as patch:
        patch.setattr(StoryFolder, "add_page", interrupted)
        code, out, err = run(capsys, *request, "--rendering", "after", "-o", "cut")
    assert code == 130 and out == "" and "Stopped: 2 of 4 pages are safe in cut" in err
    assert [StoryFolder.open("cut").page(i).state for i in range(2)] == ["opening", "written"]
    assert run(capsys, "continue", "cut", "--rendering", "after", "--render-batch", "2")[0] == 0
    assert run(capsys, *request, "--render-batch", "2", "-o", "whole")[0] == 0
    assert tree(desk / "cut") == tree(desk / "whole")


def test_resume_gives_the_uninterrupted_story(desk, capsys, model):
    code, _, _ = run(capsys, "generate", *TEXT, "--pages", "5", "--steps", "1", "--model", model, "--out", "whole")
    assert code == 0
    shutil.copytree("whole", "cut")
    record = json.loads((desk / "cut/story.json").read_text("utf-8"))
    record["pages"] = record["pages"][:2]
    (desk / "cut/story.json").write_text(json.dumps(record), "utf-8")
    code, out, _ = run(capsys, "resume", "cut")
    assert code == 0 and "[3/5]" in out and "[2/5]" not in out
    assert tree(desk / "cut") == tree(desk / "whole")


def test_a_full_disk_keeps_the_finished_pages(desk, capsys, model, monkeypatch):
    write = StoryFolder.add_page

    def failing(self, page):
        if page.index == 2:
            raise OSError(28, "No space left on device")
        write(self, page)

    monkeypatch.setattr(StoryFolder, "add_page", failing)
    code, _, err = run(capsys, "generate", *TEXT, "--pages", "4", "--steps", "1", "--model", model, "--out", "full")
    assert (
        code == 1
        and "2 of 4 pages are safe in full" in err
        and err.startswith("error: No space left on device (make room")
    )
    assert len(StoryFolder.open("full")) == 2 and (desk / "full/index.html").exists()


def test_control_characters_reach_neither_terminal_nor_folder(desk, capsys, model):
    text = "A \x1b[31mred\x1b[0m fox\udcff."
    request = ["generate", "--text", text, "--title", text, "--pages", "1", "--steps", "1", "--model", model, "-o", "s"]
    code, out, err = run(capsys, *request)
    assert (code, err) == (0, "") and "\x1b" not in out
    assert StoryFolder.open("s").title == StoryFolder.open("s").settings.text == "A [31mred [0m fox."


def test_resume_warns_of_damage_and_of_other_versions(desk, capsys):
    record = json.loads((desk / "told/story.json").read_text("utf-8"))
    record["settings"]["pages"], record["versions"] = 3, {"torch": "1.0"}
    (desk / "told/story.json").write_text(json.dumps(record), "utf-8")
    code, _, err = run(capsys, "continue", "told", "--model", "foreign")
    assert code == 2 and err.startswith("note: begun with torch 1.0") and "model_index.json" in err
    (desk / "told/pages/page-002.png").write_bytes(b"burnt")
    code, _, err = run(capsys, "continue", "told", "--model", "foreign")
    assert code == 2 and err.startswith("error: page 2 of told is damaged")


def test_info(desk, capsys, model):
    code, out, _ = run(capsys, "info", "--model", model)
    assert code == 0
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows["seedstory"] == __version__ and "fingerprint" in rows["model"] and rows["device"]


def test_doctor_says_what_a_machine_can_run(desk, capsys, model):
    code, out, _ = run(capsys, "doctor", "--model", model)
    assert code == 0 and "Ready: seedstory generate" in out
    assert re.search(r"parameters +\d+ M to write", out)
    assert re.search(r"resident +0\.\d GB of main memory; --memory auto takes this", out)
    assert re.search(r"GPU int4-phases +0\.\d GB on the GPU, [01]\.\d GB of main memory", out)
    code, out, _ = run(capsys, "doctor", "--model", "nowhere")
    assert code == 1 and "! nowhere" in out and "No story can be generated yet" in out


def test_stories_are_changed_by_their_verbs(desk, capsys, model):
    quick = ["--num-inference-steps", "1", "--model", model]
    (desk / "script.md").write_text("# The *Lamp*\n\nA fox came.\n\nIt found a lamp.\n\nThe end.\n")
    assert run(capsys, "visualize", "script.md", "--out", "lamp", *quick)[0] == 0
    steps = (
        (["redo", "lamp", "2", "--keep-caption", "--seed", "4", "--memory", "phases", "--fast-images"], "The book"),
        (["edit", "lamp", "3", "--caption", "Goodbye.", "--title", "Light"], "The book"),
        (["insert", "lamp", "3", "--caption", "It began to rain.", "--later"], "still to be made: page 3"),
        (["continue", "lamp"], "The book"),
        (["edit", "lamp", "4", "--to", "2", "--lock"], "The book"),
        (["remove", "lamp", "3"], "The book"),
        (["undo", "lamp"], "The book"),
        (["undo", "lamp", "--forward"], "The book"),
        (["branch", "lamp", "other", "--pages", "2"], "The book"),
        (["generate", "--like", "lamp/story.json", "--out", "again"], "The book"),
    )
    for arguments, expected in steps:
        code, out, err = run(capsys, *arguments)
        assert code == 0 and expected in out, (arguments, out, err)
    folder = StoryFolder.open("lamp")
    assert folder.title == "Light" and [page.caption for page in folder.pages] == [
        *("A fox came.", "Goodbye.", "It began to rain."),
    ]
    assert len(StoryFolder.open("other")) == 2 and StoryFolder.open("again").is_complete
    for arguments, words in (
        (["redo", "lamp", "9"], "pages 1 to 3"),
        (["remove", "lamp", "1"], "opens the story"),
        (["edit", "lamp", "2", "--caption", "x"], "locked"),
        (["edit", "lamp"], "nothing to change"),
        (["continue", "lamp", "--seed", "3"], "--pages or --after"),
        (["continue", "lamp", "--pages", "2"], "go on to more"),
        (["redo", "lamp", "3", "--following", "all"], "following"),
        (["branch", "lamp", "other"], "already holds a story"),
        (["redo", "lamp", "3", "--memory", "none"], "no memory mode"),
        (["generate", "--like", "lamp", "--out", "more", "--memory", "none"], "no memory mode"),
        (["generate", "--like", "lamp", "--text", "x"], "leave text"),
        (["generate", "--like", "lamp", "--out", "none", "--memory", "tiny"], "no memory mode 'tiny'"),
        (["generate", "--like", "lamp", "--out", "held", "--memory", "int8"], "does not go with"),
        (["visualize", "nothing.md"], "no file"),
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 2 and words in err and err.count("\n") == 1, (arguments, err)
