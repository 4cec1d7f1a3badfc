"""The closed sets of the paper theatre, and what one picture shows.

A `Scene` is all that the renderer needs and all that the ground truth says: a picture is a pure
function of its scene. Nothing is placed at random. Characters stand on named slots, props lie on
named spots, a place always looks the same at the same time of day.
"""

from __future__ import annotations

from dataclasses import dataclass

SPECIES = ("bear", "fox", "rabbit", "cat", "mouse", "pig", "frog", "owl")
OUTFITS = (
    "red coat",
    "blue overalls",
    "yellow raincoat",
    "green vest",
    "purple dress",
    "orange sweater",
    "white apron",
    "striped shirt",
)
HATS = ("none", "straw hat", "top hat", "woolly hat", "party hat", "crown")
EXPRESSIONS = ("happy", "sad", "surprised", "angry", "sleepy")
POSES = ("standing", "waving", "sitting", "walking", "cheering")
PLACES = (
    "meadow",
    "forest",
    "beach",
    "village",
    "mountain",
    "pond",
    "garden",
    "snowfield",
    "kitchen",
    "bedroom",
)
TIMES = ("day", "dusk", "night")
PROPS = (
    "ball",
    "kite",
    "basket",
    "lantern",
    "book",
    "boat",
    "umbrella",
    "cake",
    "key",
    "balloon",
    "map",
    "drum",
)

# Where characters stand, as the x of their centre in units of the picture's width.
SLOTS = {"left": 0.22, "centre": 0.50, "right": 0.78}
SLOTS_BY_COUNT = {1: ("centre",), 2: ("left", "right"), 3: ("left", "centre", "right")}
# Where props lie: in the foreground, between the slots.
PROP_SPOTS = (0.36, 0.64)

# Combinations that no training story uses: every outfit and every species appears in training,
# these pairs only in the held-out split.
HELD_OUT_LOOKS = frozenset(
    (SPECIES[i], OUTFITS[(3 * i + shift) % len(OUTFITS)]) for i in range(len(SPECIES)) for shift in (1,)
)


@dataclass(frozen=True)
class Look:
    """What stays the same about a character through a whole story."""

    species: str
    outfit: str
    hat: str = "none"

    def __post_init__(self) -> None:
        _check("species", self.species, SPECIES)
        _check("outfit", self.outfit, OUTFITS)
        _check("hat", self.hat, HATS)

    @property
    def held_out(self) -> bool:
        return (self.species, self.outfit) in HELD_OUT_LOOKS


@dataclass(frozen=True)
class Actor:
    """A character on one page."""

    look: Look
    pose: str = "standing"
    expression: str = "happy"
    name: str = ""

    def __post_init__(self) -> None:
        _check("pose", self.pose, POSES)
        _check("expression", self.expression, EXPRESSIONS)


@dataclass(frozen=True)
class Scene:
    """One picture: a place, a time of day, one to three actors from left to right, up to two props."""

    place: str
    time: str
    actors: tuple[Actor, ...]
    props: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check("place", self.place, PLACES)
        _check("time", self.time, TIMES)
        for prop in self.props:
            _check("prop", prop, PROPS)
        if len(self.actors) not in SLOTS_BY_COUNT:
            raise ValueError(f"a scene has 1 to 3 actors, not {len(self.actors)}")
        if len(self.props) > len(PROP_SPOTS):
            raise ValueError(f"a scene has at most {len(PROP_SPOTS)} props, not {len(self.props)}")

    @property
    def slots(self) -> tuple[str, ...]:
        """The slot of each actor, in the order of `actors`."""
        return SLOTS_BY_COUNT[len(self.actors)]


def _check(kind: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {kind} {value!r}: choose one of {', '.join(known)}")
