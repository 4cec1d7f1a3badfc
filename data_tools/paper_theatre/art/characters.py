"""The first eight animals, everybody's limbs, and the whole figure in a pose.

A figure is drawn around x = 0 with its feet on the ground line; the renderer moves it to its slot.
"""

from __future__ import annotations

from functools import cache, lru_cache

from data_tools.paper_theatre.art import clothes
from data_tools.paper_theatre.art.animals import ANIMALS
from data_tools.paper_theatre.art.faces import FaceAnchors, cheeks, eyes, mouth
from data_tools.paper_theatre.art.parts import Fur
from data_tools.paper_theatre.art.people import PEOPLE
from data_tools.paper_theatre.art.shapes import (
    GROUND_Y,
    INK,
    both_sides,
    circle,
    darker,
    ellipse,
    group,
    line,
    path,
)
from data_tools.paper_theatre.world import Appearance

SIT_DROP = 19  # how much lower the upper body is when sitting


# Everybody but the first eight, who are drawn below.
NEWCOMERS = PEOPLE | ANIMALS
BIRDS = ("owl", "duck")

FURS = {
    "bear": Fur("#98602f", "#e8c796", "#d9a06b", "#bd8448"),
    "fox": Fur("#d4581f", "#fff3e0", "#4a2a22", "#4f2d25"),
    "rabbit": Fur("#dcd8e2", "#ffffff", "#f3a9b8", "#c9c4d2"),
    "cat": Fur("#7d8493", "#ffffff", "#e79aa6", "#f4f4f6"),
    "mouse": Fur("#9fb9d6", "#e3edf7", "#f4b3c0", "#f4b3c0"),
    "pig": Fur("#f4a3b2", "#f9c3cc", "#dd7287", "#dd7287"),
    "frog": Fur("#74bd3f", "#d8efa0", "#74bd3f", "#4c9128"),
    "owl": Fur("#b88646", "#fbe9c6", "#8a5f2c", "#efa02b"),
} | {species: parts.fur for species, parts in NEWCOMERS.items()}

FACES = {
    "bear": FaceAnchors(),
    "fox": FaceAnchors(mouth_y=127, mouth_scale=0.8, cheek_dx=24),
    "rabbit": FaceAnchors(mouth_y=126, mouth_scale=0.85),
    "cat": FaceAnchors(mouth_y=126, mouth_scale=0.9),
    "mouse": FaceAnchors(mouth_y=126, mouth_scale=0.8, eye_dx=12.5, cheek_dx=21),
    "pig": FaceAnchors(eye_dx=15, eye_y=101, mouth_y=128, mouth_scale=0.9, cheek="#e0637c", cheek_dx=24),
    "frog": FaceAnchors(eye_dx=16, eye_y=88, mouth_y=119, mouth_scale=1.6, cheek_dx=25, cheek_y=112, brow_lift=1),
    "owl": FaceAnchors(eye_dx=14.5, eye_y=104, mouth_y=128, mouth_scale=0.75, cheek_dx=25, cheek_y=124, brow_lift=1),
} | {species: parts.face for species, parts in NEWCOMERS.items()}

_ARM_DOWN = ("M15,149 Q26,158 27,174", (27.5, 180))
_ARM_UP = ("M15,150 Q37,144 33,83", (33.5, 72))
_ARM_SWING_OUT = ("M15,149 Q28,153 32,164", (34, 169))
_ARM_ACROSS = ("M15,149 Q23,166 8,170", (2, 169))
_ARM_LAP = ("M15,149 Q25,162 16,176", (12, 180))
# Left arm, right arm: each drawn for the right side; the left one is mirrored.
ARMS = {
    "standing": (_ARM_DOWN, _ARM_DOWN),
    "waving": (_ARM_DOWN, _ARM_UP),
    "sitting": (_ARM_LAP, _ARM_LAP),
    "walking": (_ARM_SWING_OUT, _ARM_ACROSS),
    "cheering": (_ARM_UP, _ARM_UP),
}


@lru_cache(maxsize=16384)
def figure(appearance: Appearance, pose: str, expression: str) -> str:
    """A whole character without its shadow.

    Args:
        appearance: Species, outfit and hat.
        pose: One of the world's poses.
        expression: One of the world's expressions.

    Returns:
        An SVG fragment around x = 0.
    """
    if pose not in ARMS:
        raise ValueError(f"unknown pose {pose!r}")
    upper = clothes.torso(appearance.outfit) + _head_with_hat(appearance.species, expression, appearance.hat)
    upper += arms(appearance.species, appearance.outfit, pose)
    legs_ = legs(appearance.species, appearance.outfit, pose)
    if pose == "sitting":
        return tail(appearance.species) + group(upper, f"translate(0 {SIT_DROP})") + legs_
    if pose == "walking":
        wide = appearance.species in NEWCOMERS  # manes and large ears stay inside the slot
        lean = "translate(-4.6 0) rotate(3 0 196) scale(.94 1)" if wide else "translate(-4 0) rotate(4 0 196)"
        upper = group(upper, lean)
    return tail(appearance.species) + legs_ + upper


@cache
def shadow(pose: str) -> str:
    """The soft paper shadow under a figure."""
    wide = 33 if pose in ("sitting", "walking") else 27
    return f'<ellipse cx="3" cy="{GROUND_Y}" rx="{wide}" ry="5.5" fill="#1c1430" fill-opacity=".22"/>'


@cache
def tail(species: str) -> str:
    """Tails that show beside the body, always on the right."""
    fur = FURS[species]
    if species in NEWCOMERS:
        return NEWCOMERS[species].tail
    if species == "fox":
        bush = path("M12,196 C22,210 40,204 39,182 C38,172 33,168 31,162 C26,174 20,182 12,184Z", fur.coat, fur.edge)
        return bush + path("M39,180 C38,171 33,168 31,162 C28,169 26,173 24,176 Q32,174 39,180Z", "#fff3e0")
    if species == "cat":
        d = "M12,200 C30,208 38,196 34,180 C33,174 36,170 37,167"
        return line(d, fur.edge, 10) + line(d, fur.coat, 7) + line(d, "#4d5361", 7, "5 8", "butt")
    if species == "mouse":
        return line("M12,202 C30,214 40,204 36,192 C34,186 37,182 38,178", "#d98898", 4.5)
    if species == "pig":
        return line("M16,190 C28,194 34,186 29,182 C24,179 22,188 30,190 C35,190 37,186 37,183", "#dd7287", 4.5)
    return ""


@cache
def legs(species: str, outfit: str, pose: str) -> str:
    """Legs and feet in a pose, in trousers or boots where the outfit has them."""
    fur = FURS[species]
    trousers, boots = clothes.LEGWEAR.get(outfit, ("", ""))
    leg = trousers or fur.leg or (fur.paw if species == "owl" else fur.coat)
    foot = boots or fur.shoe or fur.paw
    edge, foot_edge = darker(leg, 0.4), darker(foot, 0.4)
    if pose == "sitting":
        sole = "#fff3e0" if foot in ("#4f2d25", "#5b3a2a", "#bd8448") else darker(foot, 0.22)
        half = line("M8,206 L17,211", edge, 17) + line("M8,206 L17,211", leg, 13)
        half += ellipse(19, 212, 10.5, 10, foot, foot_edge) + ellipse(19, 214, 5.5, 4.5, sole)
        return both_sides(half)
    thick = 7 if species in BIRDS and not trousers else 11
    if pose == "walking":
        back, front = "M-8,192 L-19,211", "M8,192 L17,209"
        parts = line(back, edge, thick + 3.5) + line(back, leg, thick) + line(front, edge, thick + 3.5)
        parts += line(front, leg, thick) + group(ellipse(-19, 216, 10.5, 6, foot, foot_edge), "rotate(14 -19 216)")
        return parts + group(ellipse(22, 215, 11.5, 6, foot, foot_edge), "rotate(-14 22 215)")
    d = "M9.5,190 L9.5,214"
    half = line(d, edge, thick + 3.5) + line(d, leg, thick) + ellipse(11, 216, 11, 6.2, foot, foot_edge)
    return both_sides(half)


@cache
def arms(species: str, outfit: str, pose: str) -> str:
    """Both arms with their sleeves and hands."""
    left, right = ARMS[pose]
    return group(_arm(species, outfit, *left), "scale(-1 1)") + _arm(species, outfit, *right)


def _arm(species: str, outfit: str, d: str, hand: tuple[float, float]) -> str:
    fur = FURS[species]
    paw = {"owl": "#dba95c", "duck": "#f2c93c"}.get(species, fur.paw)
    x, y = hand
    arm = circle(x, y, 7 if species not in BIRDS else 7.8, paw, darker(paw, 0.4))
    return arm + clothes.sleeve(outfit, d, fur.coat)


@cache
def _head_with_hat(species: str, expression: str, hat: str) -> str:
    at, fur = FACES[species], FURS[species]
    if species in NEWCOMERS:
        parts = NEWCOMERS[species]
        said = mouth(expression, at)
        said = group(said, f"translate({parts.mouth_dx:g} 0)") if parts.mouth_dx else said
        top = clothes.hat(hat) if hat != "none" else ""
        head = parts.ears + (parts.bare if hat == "none" else "") + parts.skull + cheeks(expression, at)
        return head + parts.muzzle + said + parts.nose + top + eyes(expression, at) + parts.over
    skull = ears(species) + _skull(species)
    worn = clothes.hat(hat)
    features = cheeks(expression, at)
    if species == "frog":
        # The eyes sit on top of the head, so the hat goes behind them.
        bumps = both_sides(circle(at.eye_dx, at.eye_y, 13, fur.coat, fur.edge)) + both_sides(
            circle(at.eye_dx, at.eye_y + 0.5, 9.8, "#f7fbe4")
        )
        joins = ellipse(0, 104, 29, 10, fur.coat)
        features += group(worn, "translate(0 -5)") + bumps + joins
        return skull + features + eyes(expression, at) + mouth(expression, at) + _nose(species)
    features += _muzzle(species) + mouth(expression, at) + _nose(species) + worn + eyes(expression, at)
    return skull + features


@cache
def ears(species: str) -> str:
    """Ears, drawn behind the head."""
    fur = FURS[species]
    if species == "bear":
        return both_sides(circle(25, 85, 11.5, fur.coat, fur.edge) + circle(25.5, 84.5, 6, fur.ear))
    if species == "fox":
        return both_sides(
            path("M9,86 L27,53 Q33,72 33,100Z", fur.coat, fur.edge) + path("M19,80 L27,62 Q30,74 30,88Z", fur.ear)
        )
    if species == "cat":
        return both_sides(
            path("M7,86 L26,58 Q34,74 33,100Z", fur.coat, fur.edge) + path("M17,80 L25.5,66 Q30,76 29,88Z", fur.ear)
        )
    if species == "rabbit":
        ear = ellipse(17, 62, 9, 30, fur.coat, fur.edge) + ellipse(17, 62, 4.6, 22, fur.ear)
        return both_sides(group(ear, "rotate(11 17 90)"))
    if species == "mouse":
        return both_sides(circle(24, 83, 16, fur.coat, fur.edge) + circle(24.5, 83, 10.5, fur.ear))
    if species == "pig":
        return both_sides(path("M8,84 Q20,66 32,70 Q36,86 30,100Z", fur.coat, fur.edge)
                          + path("M18,84 Q24,76 30,76 Q32,86 28,94Z", fur.ear))  # fmt: skip
    if species == "owl":
        return both_sides(path("M8,86 Q24,78 32,62 Q36,84 31,104Z", fur.ear, fur.edge))
    return ""


@cache
def _skull(species: str) -> str:
    fur = FURS[species]
    if species == "frog":
        return ellipse(0, 114, 35, 26, fur.coat, fur.edge) + path(
            "M-31,120 Q0,128 31,120 Q26,138 0,138.5 Q-26,138 -31,120Z", fur.light
        )
    if species == "fox":
        head = path(
            "M0,79 C22,79 34,92 34,107 C35,114 37,119 38,123 C28,124 18,142 0,142 C-18,142 -28,124 -38,123"
            " C-37,119 -35,114 -34,107 C-34,92 -22,79 0,79Z", fur.coat, fur.edge,
        )  # fmt: skip
        white = (
            "M36,122 C27,124 18,141 0,141 C-18,141 -27,124 -36,122"
            " C-26,114 -14,110 -5,119 Q0,122 5,119 C14,110 26,114 36,122Z"
        )
        return head + path(white, fur.light)
    if species == "owl":
        discs = both_sides(circle(14, 105, 16, fur.light, darker(fur.light, 0.2), 2))
        return ellipse(0, 110, 34, 31, fur.coat, fur.edge) + ellipse(0, 128, 17, 11, fur.light) + discs
    rx = {"mouse": 30, "bear": 34, "pig": 34}.get(species, 33)
    head = ellipse(0, 110, rx, 31, fur.coat, fur.edge)
    if species == "cat":
        stripe = "#4d5361"
        head += line("M0,82 L0,93", stripe, 4.5) + both_sides(line("M9,84 L8,91", stripe, 4.5))
        head += both_sides(line("M24,112 L31,110 M24,119 L31,119", stripe, 3.5))
    return head


@cache
def _muzzle(species: str) -> str:
    fur = FURS[species]
    if species == "bear":
        return ellipse(0, 125, 18, 14.5, fur.light)
    if species in ("rabbit", "cat"):
        return both_sides(ellipse(7.5, 124, 11, 10.5, fur.light)) + ellipse(0, 130, 11, 9, fur.light)
    if species == "mouse":
        return ellipse(0, 126, 15, 13, fur.light)
    if species == "pig":
        return ""
    return ""


@cache
def _nose(species: str) -> str:
    if species == "bear":
        return ellipse(0, 115.5, 6, 4.3, INK)
    if species == "fox":
        return ellipse(0, 118, 5.5, 4.2, INK)
    if species == "rabbit":
        return path("M-4.5,114 Q0,111.5 4.5,114 Q3,119 0,119 Q-3,119 -4.5,114Z", "#e8718c")
    if species == "cat":
        whiskers = both_sides(line("M20,121 L37,117 M20,126 L37,128", "#f4f4f6", 2))
        return whiskers + path("M-4.5,113.5 L4.5,113.5 L0,119Z", "#e0657c", "#e0657c", 2)
    if species == "mouse":
        return circle(0, 116.5, 5, "#e36f8b")
    if species == "pig":
        return ellipse(0, 115, 12, 8.6, "#ee8398", "#b84f66") + both_sides(ellipse(4.3, 115, 2.3, 3.6, "#9c3b52"))
    if species == "owl":
        return path("M-6,111 Q0,107 6,111 L0,123Z", "#f2a02a", "#b06a12")
    return both_sides(circle(4, 106, 1.6, "#3f7a1f"))
