"""Pictures and texts on facing pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

P = TypeVar("P")


class Leaf(NamedTuple, Generic[P]):
    """A page of a book: a picture or None, and the text beside it."""

    image: P | None
    text: str


def pair(leaves: Iterable[Leaf[P]], *, text_first: bool = False) -> Iterator[tuple[P, str]]:
    """Gives the text of pages without picture to a picture.

    Args:
        leaves: The pages in reading order.
        text_first: A page of text belongs to the picture after it, not to the one before it. Text without such a
            picture is front or back matter, and left out.

    Yields:
        (picture, text) in reading order, each as soon as it is complete.
    """
    image: P | None = None
    texts: list[str] = []
    for leaf in leaves:
        if leaf.image is None:
            if image is not None or text_first:
                texts.append(leaf.text)
        elif text_first:
            yield leaf.image, "\n".join([*texts, leaf.text])
            texts = []
        else:
            if image is not None:
                yield image, "\n".join(texts)
            image, texts = leaf.image, [leaf.text]
    if image is not None:
        yield image, "\n".join(texts)
