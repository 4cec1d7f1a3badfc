"""The closed sets of the paper theatre, and what one picture shows.

A `Scene` is all that the renderer needs and all that the ground truth says: a picture is a pure
function of its scene. Nothing is placed at random. Characters stand on named slots, props lie on
named spots, a place always looks the same at the same time of day.

The order of every set is part of the data: add at the end, never reorder, or held-out pairs change.
"""

from __future__ import annotations

from dataclasses import dataclass

SPECIES = (
    *("bear", "fox", "rabbit", "cat", "mouse", "pig", "frog", "owl"),
    *("boy", "girl", "grandmother", "grandfather"),
    *("dog", "hedgehog", "duck", "elephant", "lion", "sheep"),
)
# The species that the first weights and the first judge have seen.
FIRST_SPECIES = SPECIES[:8]
# Species whose word already says she or he; all others are either.
PRONOUN_OF_SPECIES = {"boy": "he", "girl": "she", "grandmother": "she", "grandfather": "he"}
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

# How a picture looks at its place: as a stage, near with people cut off at the waist, or from far away.
VIEWS = ("middle", "near", "wide")


@dataclass(frozen=True)
class Stand:
    """Where a slot is, in units of the picture's side, and how large a figure on it is drawn.

    Attributes:
        x: Middle of the figure.
        ground: The ground line under its feet; below the picture in near views.
        scale: 1 in a middle view.
    """

    x: float
    ground: float = 222 / 256
    scale: float = 1.0


# Where characters stand in a middle view, as the x of their center in units of the picture's width.
SLOTS = {"left": 0.22, "centre": 0.50, "right": 0.78}
SLOTS_BY_COUNT = {1: ("centre",), 2: ("left", "right"), 3: ("left", "centre", "right")}
# Every slot of every view. A name stands for one box: slots of other views have names of their own.
STANDS: dict[str, Stand] = (
    {slot: Stand(x) for slot, x in SLOTS.items()}
    | {f"near {slot}": Stand(x, 300 / 256, 1.55) for slot, x in (("left", 0.26), ("centre", 0.5), ("right", 0.74))}
    | {f"wide {slot}": Stand(x, 229 / 256, 0.5) for slot, x in (("left", 0.32), ("centre", 0.5), ("right", 0.68))}
    | {"first": Stand(62 / 256, scale=0.92), "second": Stand(194 / 256, scale=0.92)}
    | {f"first {side}": Stand(x / 256, 224 / 256, 0.66) for side, x in (("left", 32), ("right", 92))}
    | {f"second {side}": Stand(x / 256, 224 / 256, 0.66) for side, x in (("left", 164), ("right", 224))}
)
SLOTS_OF_VIEW = {
    "middle": SLOTS_BY_COUNT,
    "near": {1: ("near centre",), 2: ("near left", "near right")},
    "wide": {n: tuple(f"wide {slot}" for slot in slots) for n, slots in SLOTS_BY_COUNT.items()},
    "first": {1: ("first",), 2: ("first left", "first right")},
    "second": {1: ("second",), 2: ("second left", "second right")},
}
# Where props lie in a middle view: in the foreground, between the slots.
PROP_SPOTS = (0.36, 0.64)

# Combinations that no training story uses: every outfit and every species appears in training,
# these pairs only in the held-out split. One outfit for each species; docs/paper_theatre.md lists them.
HELD_OUT_APPEARANCES = frozenset((species, OUTFITS[(3 * i + 1) % len(OUTFITS)]) for i, species in enumerate(SPECIES))


@dataclass(frozen=True)
class Appearance:
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
        return (self.species, self.outfit) in HELD_OUT_APPEARANCES


@dataclass(frozen=True)
class Actor:
    """A character on one page."""

    appearance: Appearance
    pose: str = "standing"
    expression: str = "happy"
    name: str = ""

    def __post_init__(self) -> None:
        _check("pose", self.pose, POSES)
        _check("expression", self.expression, EXPRESSIONS)


@dataclass(frozen=True)
class Scene:
    """One picture: a place, a time of day, one to three actors from left to right, up to two props.

    Attributes:
        place: One of `PLACES`.
        time: One of `TIMES`.
        actors: One to three; at most two in a near view, and in each half of a two-place page.
        props: At most two.
        view: One of `VIEWS`.
        meanwhile: What happens elsewhere at the same time. The page then shows two places side by side: this
            scene on the left half, that one on the right half, both in a middle view.
    """

    place: str
    time: str
    actors: tuple[Actor, ...]
    props: tuple[str, ...] = ()
    view: str = "middle"
    meanwhile: Scene | None = None

    def __post_init__(self) -> None:
        _check("place", self.place, PLACES)
        _check("time", self.time, TIMES)
        _check("view", self.view, VIEWS)
        for prop in self.props:
            _check("prop", prop, PROPS)
        other = self.meanwhile
        if other and (other.meanwhile or {self.view, other.view} != {"middle"} or other.place == self.place):
            raise ValueError("a two-place page has two different places, each in a middle view, and no third one")
        layouts = SLOTS_OF_VIEW["first" if other else self.view]
        for half in (self, other) if other else (self,):
            if len(half.actors) not in layouts:
                kind = "one half of a two-place page" if other else f"a scene in {self.view} view"
                raise ValueError(f"{kind} has 1 to {max(layouts)} actors, not {len(half.actors)}")
        if len(self.props) > len(PROP_SPOTS):
            raise ValueError(f"a scene has at most {len(PROP_SPOTS)} props, not {len(self.props)}")

    @property
    def halves(self) -> tuple[Scene, ...]:
        """The scene itself, or the two of a two-place page from left to right."""
        return (self, self.meanwhile) if self.meanwhile else (self,)

    @property
    def everyone(self) -> tuple[Actor, ...]:
        """All actors of the page: `actors`, then those of `meanwhile`. Masks, boxes and `slots` have this order."""
        return tuple(actor for half in self.halves for actor in half.actors)

    @property
    def layout(self) -> str:
        """The view, or "split" for a two-place page."""
        return "split" if self.meanwhile else self.view

    @property
    def slots(self) -> tuple[str, ...]:
        """The slot of each actor, in the order of `everyone`."""
        layouts = ("first", "second") if self.meanwhile else (self.view,)
        return tuple(
            slot
            for half, layout in zip(self.halves, layouts, strict=True)
            for slot in SLOTS_OF_VIEW[layout][len(half.actors)]
        )


def _check(kind: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {kind} {value!r}: choose one of {', '.join(known)}")
