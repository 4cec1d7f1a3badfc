"""Pictures and texts on facing pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

P = TypeVar("P")


class FacingPage(NamedTuple, Generic[P]):
    """A page of a book: a picture or None, and the text beside it."""

    image: P | None
    text: str


def pair(pages: Iterable[FacingPage[P]], *, text_first: bool = False) -> Iterator[tuple[P, str]]:
    """Gives the text of pages without picture to a picture.

    Args:
        pages: The pages in reading order.
        text_first: A page of text belongs to the picture after it, not to the one before it. Text without such a
            picture is front or back matter, and left out.

    Yields:
        (picture, text) in reading order, each as soon as it is complete.
    """
    image: P | None = None
    texts: list[str] = []
    for page in pages:
        if page.image is None:
            if image is not None or text_first:
                texts.append(page.text)
        elif text_first:
            yield page.image, "\n".join([*texts, page.text])
            texts = []
        else:
            if image is not None:
                yield image, "\n".join(texts)
            image, texts = page.image, [page.text]
    if image is not None:
        yield image, "\n".join(texts)
