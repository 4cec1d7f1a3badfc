"""One HTML file that is the whole picture book: pictures inside, no network, readable without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path

from PIL import Image

from seedstory.errors import StoryFolderError
from seedstory.io import write_atomic
from seedstory.story import UNTITLED, Page, Story, StoryFolder

_STYLE = (Path(__file__).parent / "book.css").read_text("utf-8")

# Arrow and page keys turn pages; without it the browser scrolls as always.
_SCRIPT = """
(() => {
  const leaves = [...document.querySelectorAll('.leaf')];
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const middle = leaf => { const box = leaf.getBoundingClientRect(); return (box.top + box.bottom) / 2; };
  addEventListener('keydown', event => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 }[event.key];
    if (!step) return;
    const centre = innerHeight / 2;
    let now = 0;
    leaves.forEach((leaf, i) => {
      if (Math.abs(middle(leaf) - centre) < Math.abs(middle(leaves[now]) - centre)) now = i;
    });
    const next = leaves[Math.min(leaves.length - 1, Math.max(0, now + step))];
    event.preventDefault();
    next.scrollIntoView({ behavior: calm ? 'auto' : 'smooth', block: 'center' });
  });
})();
"""


def write_html(story: Story | StoryFolder, path: str | Path) -> Path:
    """Writes a story as one self-contained HTML file.

    The page carries a content security policy that forbids every connection, and all text of the story is
    escaped: captions are a model's or a user's words, not markup.

    Args:
        story: A story in memory, or a story folder, which is read one page at a time.
        path: The file to write, whole or not at all. Its folder must exist.

    Returns:
        The path.

    Raises:
        StoryFolderError: The story has no page, or the file cannot be written.
    """
    path = Path(path)
    parts = list(_parts(story))
    try:
        write_atomic(path, "".join(parts))
    except OSError as error:
        raise StoryFolderError(f"cannot write {path}: {error.strerror}; choose another place") from None
    return path


def _parts(story: Story | StoryFolder) -> Iterable[str]:
    pages = iter(story.pages)
    first = next(pages, None)
    if first is None:
        raise StoryFolderError("the story has no page yet: nothing to show")
    total = len(story.pages) if isinstance(story, Story) else len(story)
    title = escape(story.title or UNTITLED)
    language = f' lang="{escape(story.language, quote=True)}"' if story.language else ""
    yield _head(title, language, escape(first.caption, quote=True))
    yield _cover(title, first, total)
    yield '<main aria-label="Story">\n'
    yield _leaf(first, total)
    for page in pages:
        yield _leaf(page, total)
    yield "</main>\n" + _colophon(story, total) + f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _head(title: str, language: str, summary: str) -> str:
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode("utf-8")).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""<!doctype html>
<html{language}>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="seedstory">
<meta name="description" content="{summary}">
<title>{title}</title>
<style>
{_STYLE}</style>
</head>
<body>
"""


def _cover(title: str, first: Page, total: int) -> str:
    vignette = f'<img class="vignette" alt="" src="{_data_url(first.image)}">\n' if first.image else ""
    count = "one page" if total == 1 else f"{total} pages"
    return f"""<header class="leaf cover">
{vignette}<h1 dir="auto">{title}</h1>
<p class="ornament" aria-hidden="true">\N{BLACK FLORETTE}</p>
<p class="byline">A picture story in {count}</p>
</header>
"""


def _leaf(page: Page, total: int) -> str:
    name = f"page-{page.number}"
    alt = escape(page.describe(), quote=True)
    if page.image:
        image = f'<img alt="{alt}" src="{_data_url(page.image)}" decoding="async">'
    else:
        image = '<p class="blank">This picture is not drawn yet.</p>'
    caption = f'<p dir="auto">{escape(page.caption)}</p>' if page.caption else ""
    return f"""<article class="leaf page" id="{name}" aria-label="Page {page.number} of {total}">
<div class="picture">{image}</div>
<div class="text">{caption}</div>
<a class="folio" href="#{name}" aria-label="Page {page.number}">{page.number}</a>
</article>
"""


def _colophon(story: Story | StoryFolder, total: int) -> str:
    ended = total >= story.settings.pages
    model = escape(Path(story.model.name).name)
    version = escape(story.versions.get("seedstory", ""))
    maker = " ".join(part for part in ("seedstory", version, f"({model})" if model else "") if part)
    return f"""<footer class="colophon">
<p class="end">{"The End" if ended else "To be continued"}</p>
<p>Written and drawn by the machine {maker}, seed {story.settings.seed}.</p>
</footer>
"""


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
