"""What a species brings to a figure: its colors, and the drawings of its head."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_tools.paper_theatre.art.faces import FaceAnchors
from data_tools.paper_theatre.art.shapes import darker


@dataclass(frozen=True)
class Fur:
    """Colors of a species: coat, light parts, inside of the ears, hands and feet.

    `shoe` is the color of the feet where they differ from the hands, `leg` that of bare legs where they differ
    from the coat.
    """

    coat: str
    light: str
    ear: str
    paw: str
    shoe: str = ""
    leg: str = ""

    @property
    def edge(self) -> str:
        return darker(self.coat, 0.42)


@dataclass(frozen=True)
class Parts:
    """A species as data, from the back to the front.

    Attributes:
        fur: The colors.
        tail: Behind the body.
        ears: Behind the head.
        bare: On the head's top, only without a hat: a bun, a tuft.
        skull: The head.
        muzzle: On the head, behind the mouth.
        nose: Before the mouth, behind the hat.
        over: Before the eyes: glasses.
        mouth_dx: How far the mouth is beside the middle.
        face: Where eyes, mouth and cheeks sit.
    """

    fur: Fur
    skull: str
    tail: str = ""
    ears: str = ""
    bare: str = ""
    muzzle: str = ""
    nose: str = ""
    over: str = ""
    mouth_dx: float = 0
    face: FaceAnchors = field(default_factory=FaceAnchors)
