"""The places as near, wide and two-place pages show them; a middle view shows a place as it is drawn."""

from __future__ import annotations

from functools import cache

from data_tools.paper_theatre.art.places import INDOORS, forest_moon, land, paint_of, place
from data_tools.paper_theatre.art.shapes import circle, ellipse, group, line, path, rect
from data_tools.paper_theatre.art.sky import ground_band, sky

# A near view cuts this window out of the place: x, y, side. It keeps the sun or moon, which tell the time.
NEAR_WINDOW = (10, 8, 196)
# A wide view shows the land at this scale, with more of it on both sides. At 128 pixels and every multiple the
# tiles end on whole pixels, so no seam shows.
WIDE_SCALE, WIDE_TOP = 0.625, 84
HALF_WIDTH, HALF_LEFT = 126, (0, 130)  # of the halves of a two-place page; the gutter covers their inner edges
# Which part of a place the half of a page shows: its left edge.
_HALF_FROM = {"mountain": 14, "kitchen": 34, "bedroom": 4, "village": 8, "snowfield": 4}
# The strip of ground in front of a wide view.
_FRONT = {
    "meadow": "#6fae55", "forest": "#5c8f54", "beach": "#d9bd84", "village": "#8bb873", "mountain": "#918d7a",
    "pond": "#6aa25c", "garden": "#94714f", "snowfield": "#dfeaf2",
}  # fmt: skip


@cache
def near(name: str, time: str) -> str:
    """The place, enlarged."""
    x, y, side = NEAR_WINDOW
    scale = 256 / side
    return group(place(name, time), f"scale({scale:.6g}) translate({-x} {-y})")


@cache
def wide(name: str, time: str) -> str:
    """The place from far away: outdoors more land and sky, indoors a house cut open like a doll's house."""
    return _doll_house(name, time) if name in INDOORS else _landscape(name, time)


@cache
def half(name: str, time: str, second: bool) -> str:
    """The place on one half of a two-place page, without the gutter."""
    ground = place(name, time)
    if second:  # the other half's sky may have another color under the same id
        ground = ground.replace('id="', 'id="other-').replace("url(#", "url(#other-")
    left, shown = HALF_LEFT[second], _HALF_FROM.get(name, 0)
    return window(left, 0, HALF_WIDTH, 256, ground, f"{shown} 0 {HALF_WIDTH} 256")


@cache
def gutter() -> str:
    """The strip of white paper between the halves of a two-place page, with its shadow."""
    edge = "M124,-4 q2.5,22 0,44 t0,44 t0,44 t0,44 t0,44 t0,48 H132 q2.5,-24 0,-48 t0,-44 t0,-44 t0,-44 t0,-44 t0,-44Z"
    shade = path(edge, "#1c1430", extra=' fill-opacity=".25" transform="translate(2 0)"')
    return shade + path(edge, "#fffaf0", "#d8cbb6", 1)


def window(x: float, y: float, width: float, height: float, content: str, box: str) -> str:
    """Content in units of `box`, cut off outside of it and put into a rectangle."""
    return (
        f'<svg x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" viewBox="{box}" '
        f'preserveAspectRatio="none">{content}</svg>'
    )


def _landscape(name: str, time: str) -> str:
    paint, ground = paint_of(name, time), land(name, time)
    side = 256 * WIDE_SCALE
    left = 128 - side / 2
    out = sky(time)
    if name == "forest":
        ground = ground.replace(forest_moon(), "")
        out += _crowns(paint("#5f9c68"), 22, 17) + _crowns(paint("#4b8556"), 30, 9)
    tile = window(left, WIDE_TOP, side, side, ground, "0 0 256 256")
    shown = left / WIDE_SCALE  # of the land beyond each edge
    mirrored = group(ground, "translate(256 0) scale(-1 1)")
    out += window(0, WIDE_TOP, left, side, mirrored, f"{256 - shown:g} 0 {shown:g} 256")
    out += tile + window(left + side, WIDE_TOP, left, side, mirrored, f"0 0 {shown:g} 256")
    front = "#869ecc" if name == "snowfield" and time == "night" else paint(_FRONT[name])
    return out + ground_band("M0,242 Q64,234 128,240 T256,238", front)


def _crowns(color: str, step: int, up: float) -> str:
    """Round tree tops along the upper edge of a wide forest."""
    tops = "".join(ellipse(x, WIDE_TOP + 4, step * 0.62, up + 4, color) for x in range(0, 256 + step, step))
    return tops + rect(0, WIDE_TOP, 256, 12, color)


def _doll_house(name: str, time: str) -> str:
    paint = paint_of("meadow", time)
    out = sky(time) + ground_band("M0,196 Q60,170 128,186 Q200,168 256,190", paint("#a0d080"))
    for x, y, r in ((8, 178, 24), (250, 176, 26)):
        out += rect(x - 4, y, 8, 46, paint("#8a6a4a")) + circle(x, y - 8, r, paint("#6fae66"))
    wall, beam = paint("#e9c9a0"), paint("#8a5a3c")
    out += rect(182, 18, 20, 40, paint("#b5654a")) + rect(179, 14, 26, 8, paint("#94503a"))
    out += path("M14,80 L128,8 L242,80Z", paint("#c8604c"), paint("#8e3f30"), 3)
    out += "".join(line(f"M{128 - w},{y} H{128 + w}", paint("#a94b3a"), 2.5) for y, w in ((32, 36), (48, 60), (64, 86)))
    out += circle(128, 56, 13, "#ffd977" if time != "day" else "#d6eef5", beam, 3)
    out += line("M128,43 V69 M115,56 H141", beam, 2.5)
    out += rect(24, 76, 208, 172, wall, beam, 3)
    out += window(32, 80, 192, 160, place(name, time), "0 30 256 213.33")
    out += rect(32, 80, 192, 160, "none", beam, 3) + rect(16, 240, 224, 16, paint("#9a8f84"))
    return out + line("M16,248 H240", paint("#7f756b"), 2)
