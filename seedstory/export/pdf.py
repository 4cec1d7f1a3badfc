"""The book for print and screen: PDF/UA-1 with bleed and trim boxes, embedded fonts and tags.

Typst sets it: one wheel without system libraries, its own shaping of all scripts, tagged PDF/UA, bleed boxes, and the
same bytes each time. WeasyPrint needs Pango from the system, and draws no pages as pixels, which CBZ and MP4 need.
"""

from __future__ import annotations

from pathlib import Path

from seedstory.export.book import Book, BookDesign
from seedstory.export.files import write_export
from seedstory.export.typeset import typeset
from seedstory.story import Story, StoryFolder


def write_pdf(story: Story | StoryFolder, path: str | Path, *, design: BookDesign | None = None) -> Path:
    """Writes a story as a PDF file: 210 x 210 mm, or 170 x 260 mm for a comic, with 3 mm of bleed.

    Pictures are embedded in their own pixels. The same story gives the same bytes.

    Args:
        story: A story in memory, or a story folder.
        path: The file to write, whole or not at all. Its folder must exist.
        design: Layout, colors, author and license.

    Returns:
        The path.

    Raises:
        RequestError: The extra `book` is not installed.
        StoryFolderError: The story has no page, or the file cannot be written.
    """
    return write_export(path, typeset(Book.of(story, design))[0])
