"""The twelve props: each about 44 units, bottom at y = 244, drawn around x = 0."""

from __future__ import annotations

from functools import cache

from data_tools.paper_theatre.art.shapes import both_sides, circle, darker, ellipse, line, path, rect

# These hang in the sky above their spot, behind the actors; all others lie in front.
FLOATING = frozenset({"kite", "balloon"})


@cache
def prop(name: str) -> str:
    """One prop around x = 0, without its shadow."""
    if name not in _DRAW:
        raise ValueError(f"unknown prop {name!r}")
    return _DRAW[name]()


@cache
def shadow(name: str) -> str:
    """The paper shadow of a prop that lies on the ground."""
    if name in FLOATING:
        return ""
    return '<ellipse cx="2" cy="243" rx="22" ry="4.5" fill="#1c1430" fill-opacity=".22"/>'


def _ball() -> str:
    return (
        circle(0, 223, 21, "#fdfbf5", "#5a3a34")
        + path("M0,202 A21,21 0 0 1 19,214 Q8,214 0,223 Q-3,212 0,202Z", "#e2413a")
        + path("M20,229 A21,21 0 0 1 2,244 Q6,233 0,223 Q12,222 20,229Z", "#3a7fd0")
        + path("M-12,240 A21,21 0 0 1 -20,217 Q-8,216 0,223 Q-10,229 -12,240Z", "#f7c62c")
        + circle(0, 223, 21, "none", "#5a3a34")
    )


def _kite() -> str:
    string = line("M0,66 C10,84 -8,96 2,114 C10,130 -4,160 0,236", "#7a6a5c", 2)
    bows = "".join(path(f"M{x},{y} l-7,-4 v8Z M{x},{y} l7,-4 v8Z", c) for x, y, c in
                   ((4, 80, "#e2413a"), (-1, 98, "#f7c62c"), (5, 116, "#3a9fd0")))  # fmt: skip
    sail = path("M0,8 L22,34 L0,68 L-22,34Z", "#f7c62c") + path("M0,8 L22,34 L0,34Z M0,34 L0,68 L-22,34Z", "#2f8fd6")
    return string + bows + sail + path("M0,8 L22,34 L0,68 L-22,34Z M0,8 V68 M-22,34 H22", "none", "#7d4a20", 2)


def _balloon() -> str:
    string = line("M0,64 C8,90 -7,120 1,150 C7,180 -3,210 0,236", "#8a7a70", 2)
    return (
        string
        + path("M-5,66 L5,66 L0,58Z", "#b01f3a")
        + ellipse(0, 35, 20, 25, "#e8304f", "#94142f")
        + ellipse(-7, 26, 5, 8, "#ff9aa8")
    )


def _basket() -> str:
    edge = "#6b3f18"
    return (
        line("M-17,222 C-17,192 17,192 17,222", edge, 7)
        + line("M-17,222 C-17,192 17,192 17,222", "#c98a44", 4)
        + circle(-8, 217, 7.5, "#d8362f", "#7d1c1a")
        + circle(8, 217, 7.5, "#8cc63f", "#4a7a1a")
        + path("M-22,219 H22 L18,242 Q0,246 -18,242Z", "#c98a44", edge)
        + line("M-20,228 H20 M-18,236 H18", edge, 2)
        + line("M-8,220 V243 M8,220 V243", edge, 2)
    )


def _lantern() -> str:
    edge = "#2f2a33"
    return (
        '<radialGradient id="flame"><stop offset=".3" stop-color="#ffe27a" stop-opacity=".8"/>'
        '<stop offset="1" stop-color="#ffc04a" stop-opacity="0"/></radialGradient>'
        '<circle cx="0" cy="226" r="28" fill="url(#flame)"/>'
        + line("M-9,206 C-9,192 9,192 9,206", edge, 3.5)
        + path("M-13,212 L-8,203 H8 L13,212Z", "#4a4552", edge)
        + rect(-12, 212, 24, 26, "#ffd84a", edge, 3)
        + path("M0,217 C8,226 6,234 0,234 C-6,234 -8,226 0,217Z", "#f47a1c")
        + rect(-16, 237, 32, 7, "#4a4552", edge, 2, 2)
    )


def _book() -> str:
    edge = "#5e1726"
    return (
        path("M-25,212 L0,218 L25,212 V240 L0,245 L-25,240Z", "#b3243e", edge)
        + path("M0,217 Q-12,206 -22,210 V236 Q-11,233 0,241Z", "#fff8e4", "#8a7a5c", 1.5)
        + path("M0,217 Q12,206 22,210 V236 Q11,233 0,241Z", "#fff8e4", "#8a7a5c", 1.5)
        + line("M-17,217 L-6,219 M-17,224 L-6,226 M6,219 L17,217 M6,226 L17,224", "#9a9080", 2.4)
    )


def _boat() -> str:
    return (
        line("M0,198 V230", "#6b3f18", 4)
        + path("M3,198 L22,225 H3Z", "#fdfbf5", "#8a8a94")
        + path("M-3,203 L-17,225 H-3Z", "#7fc6ea", "#3a7fa8")
        + path("M-25,228 H25 Q20,244 10,244 H-10 Q-20,244 -25,228Z", "#c8452e", "#6a1f14")
        + line("M-20,233 H20", "#fdfbf5", 3)
    )


def _umbrella() -> str:
    edge = "#3f1f6a"
    return (
        line("M0,206 V237 Q0,243 6,243 Q11,242 11,237", "#6b3f18", 4)
        + path(
            "M-25,224 Q-24,200 0,199 Q24,200 25,224 Q18,217 12.5,224 Q6,217 0,224 Q-6,217 -12.5,224 Q-18,217 -25,224Z",
            "#7d4fd0",
            edge,
        )
        + path("M0,199 Q-11,206 -12.5,224 Q-6,217 0,224 Q6,217 12.5,224 Q11,206 0,199Z", "#ff9ecb")
        + line("M0,199 V194", edge, 4)
    )


def _cake() -> str:
    candle = line("M0,212 V203", "#3a8fd8", 4) + path("M0,192 Q6,200 0,203 Q-6,200 0,192Z", "#ffb52e")
    icing = "M-21,227 Q-22,212 0,212 Q22,212 21,227 Q17,234 13,227 Q9,233 4,227"
    icing += " Q0,234 -5,227 Q-9,233 -13,227 Q-17,233 -21,227Z"
    return (
        candle
        + rect(-20, 225, 40, 17, "#b5713c", "#6b3f18", 2, 3)
        + rect(-20, 231, 40, 4, "#f7e3b8")
        + path(icing, "#ffc4dc", "#b85c86")
        + circle(-11, 218, 3.2, "#d8362f") + circle(11, 218, 3.2, "#d8362f")
        + rect(-24, 240, 48, 4.5, "#dfe8f0", "#7f90a4", 1.5, 2)
    )  # fmt: skip


def _key() -> str:
    edge = "#8a5a0c"
    return (
        line("M2,226 H23", edge, 9)
        + line("M13,228 V239 M21,228 V238", edge, 8)
        + circle(-10, 226, 11, "none", edge, 11)
        + circle(-10, 226, 11, "none", "#f7c62c", 6.5)
        + line("M2,226 H23", "#f7c62c", 5)
        + line("M13,228 V239 M21,228 V238", "#f7c62c", 4.5)
    )


def _map() -> str:
    return (
        path("M-25,208 L-8,202 L8,208 L25,202 V238 L8,244 L-8,238 L-25,244Z", "#f3dfae", "#8a6a34")
        + path("M-8,202 L8,208 V244 L-8,238Z", darker("#f3dfae", 0.1))
        + path("M-25,216 Q-16,210 -12,218 Q-14,228 -25,228Z", "#7fbfe0")
        + line("M-17,236 Q-8,222 0,228 T13,219", "#6b3f18", 3, "4 5")
        + line("M12,210 L21,219 M21,210 L12,219", "#d8362f", 4.5)
    )


def _drum() -> str:
    return (
        line("M-22,196 L4,212 M22,196 L-4,212", "#8a5a2c", 3.5)
        + both_sides(circle(22, 196, 4, "#f7e3b8", "#8a5a2c", 1.5))
        + path("M-21,216 V237 Q0,248 21,237 V216Z", "#2f6fc0", "#173a6a")
        + line("M-20,221 L-11,240 L0,223 L11,240 L20,221", "#f7c62c", 3)
        + line("M-21,237 Q0,248 21,237", "#d8362f", 4.5)
        + ellipse(0, 215, 21, 7.5, "#fff3dc", "#d8362f", 4)
    )


_DRAW = {
    "ball": _ball, "kite": _kite, "basket": _basket, "lantern": _lantern, "book": _book, "boat": _boat,
    "umbrella": _umbrella, "cake": _cake, "key": _key, "balloon": _balloon, "map": _map, "drum": _drum,
}  # fmt: skip
