"""The ten places at three times of day: calm, large paper layers behind the actors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from data_tools.paper_theatre.art.shapes import circle, ellipse, line, path, rect, tint
from data_tools.paper_theatre.art.sky import ground_band, lamp_glow, pebble, sky, window

Paint = Callable[[str], str]
INDOORS = ("kitchen", "bedroom")


@cache
def place(name: str, time: str) -> str:
    """The background of a place at a time of day."""
    ground = land(name, time)
    return ("" if name in INDOORS else sky(time)) + ground


@cache
def land(name: str, time: str) -> str:
    """A place without its sky."""
    if name not in _DRAW:
        raise ValueError(f"unknown place {name!r}")
    if time not in ("day", "dusk", "night"):
        raise ValueError(f"unknown time {time!r}")
    return _DRAW[name](paint_of(name, time), time)


def paint_of(name: str, time: str) -> Paint:
    """The light of a place at a time of day: a color to a color."""

    def paint(color: str) -> str:
        return tint(color, time, name in INDOORS)

    return paint


def _flower(x: float, y: float, color: str, p: Paint) -> str:
    return line(f"M{x},{y} v10", p("#5c9a4a"), 2.5) + circle(x, y, 5, p(color)) + circle(x, y, 2, p("#ffe27a"))


def _meadow(p: Paint, time: str) -> str:
    out = ground_band("M0,140 Q60,96 130,134 Q190,100 256,128", p("#b9dd9c"))
    out += ground_band("M0,166 Q70,136 150,162 Q210,142 256,160", p("#a0d080"))
    out += ground_band("M0,196 Q120,176 256,198", p("#88c36a"))
    for x, y, color in ((14, 182, "#f29ab0"), (92, 186, "#ffffff"), (108, 176, "#f6c04a"), (162, 184, "#f29ab0"),
                         (178, 174, "#ffffff"), (244, 184, "#f6c04a"), (16, 240, "#ffffff"), (62, 244, "#f6c04a"),
                         (196, 244, "#ffffff"), (240, 238, "#f29ab0"), (128, 242, "#f29ab0")):  # fmt: skip
        out += _flower(x, y, color, p)
    return out


@cache
def forest_moon() -> str:
    """The moon among the leaves, where the sky does not show."""
    return circle(36, 26, 12, "#ffeaa0") + circle(42, 22, 10.5, paint_of("forest", "night")("#4b8556"))


def _forest(p: Paint, time: str) -> str:
    out = rect(0, 30, 256, 170, {"day": "#b5dab4", "dusk": "#f7b57e", "night": "#2b4668"}[time])
    for x in (16, 62, 112, 160, 206, 246):
        out += rect(x - 6, 40, 12, 140, p("#8fb096"))
    out += ground_band("M0,178 Q128,164 256,178", p("#86b57c"))
    for x in (34, 92, 164, 224):
        out += path(f"M{x - 11},30 L{x + 11},30 L{x + 11},182 L{x + 17},194 L{x - 17},194 L{x - 11},182Z", p("#96714f"))
        out += line(f"M{x - 4},90 v22 M{x + 4},128 v22", p("#7c5a3c"), 3)
    leaves = "M0,0 H256 V58 Q240,76 222,60 Q204,82 184,62 Q164,80 146,60"
    leaves += " Q126,82 108,62 Q88,80 70,60 Q50,80 32,62 Q14,76 0,58Z"
    out += path(leaves, p("#5f9c68")) + path(
        "M0,0 H256 V34 Q230,52 206,34 Q180,52 154,34 Q128,52 102,34 Q76,52 50,34 Q24,52 0,34Z", p("#4b8556")
    )
    out += ground_band("M0,206 Q128,192 256,206", p("#74a566"))
    for x in (20, 238):
        out += rect(x - 3, 236, 6, 10, p("#f5e6cc")) + path(f"M{x - 10},238 Q{x},222 {x + 10},238Z", p("#d9705c"))
    if time == "night":
        out += forest_moon()
        out += "".join(
            circle(x, y, 2.4, "#ffe98a") for x, y in ((64, 96), (128, 76), (194, 104), (244, 130), (12, 140))
        )
    else:
        color = "#fff0a0" if time == "day" else "#ffb45c"
        beams = "M70,40 L110,40 L60,200 L-10,200Z M150,40 L176,40 L150,200 L96,200Z"
        out += path(beams, color, extra=' fill-opacity=".16"')
    return out


def _beach(p: Paint, time: str) -> str:
    out = rect(0, 118, 256, 70, p("#6cb8d6"))
    out += line("M10,136 q10,-6 20,0 t20,0 M92,130 q10,-6 20,0 t20,0 M186,140 q10,-6 20,0 t20,0", p("#c6e8f2"), 3)
    out += path("M0,176 Q40,166 80,176 T160,176 T256,172 V190 H0Z", p("#d9f0f2"))
    out += ground_band("M0,184 Q40,174 80,184 T160,184 T256,180", p("#f2dfb0"))
    out += ground_band("M0,228 Q128,216 256,230", p("#e8d09a"))
    out += path("M236,190 Q246,130 230,70 L238,68 Q256,130 250,190Z", p("#a9825a"))
    for d in ("M234,70 Q206,44 184,66 Q212,60 234,70Z", "M234,70 Q210,74 200,100 Q220,80 234,70Z",
              "M234,70 Q248,42 256,44 V60 Q246,60 234,70Z", "M234,70 Q222,34 200,34 Q224,46 234,70Z",
              "M234,70 Q254,74 256,92 V78 Q246,68 234,70Z"):  # fmt: skip
        out += path(d, p("#6fae74"))
    star = "M18,240 l3,-8 3,8 8,1 -6,5 2,8 -7,-4 -7,4 2,-8 -6,-5Z"
    return out + path(star, p("#f09a78")) + path("M226,246 q10,-18 20,0 q-10,5 -20,0Z", p("#f6b8b0"))


def _house(x: float, top: float, w: float, wall: str, roof: str, p: Paint, time: str) -> str:
    glow = "#ffd977" if time != "day" else "#d6eef5"
    h = 196 - top
    out = rect(x - w / 2, top, w, h, p(wall))
    out += path(f"M{x - w / 2 - 7},{top + 2} L{x},{top - 38} L{x + w / 2 + 7},{top + 2}Z", p(roof))
    out += rect(x - w / 2 + 8, top + 14, 15, 17, glow, p("#8a6a50"), 2.5)
    out += rect(x + w / 2 - 23, top + 14, 15, 17, glow, p("#8a6a50"), 2.5)
    return out + circle(x, top - 14, 6, glow, p("#8a6a50"), 2.5) + rect(x - 8, top + 44, 16, h - 44, p("#9c7050"))


def _village(p: Paint, time: str) -> str:
    out = ground_band("M0,150 Q128,110 256,150", p("#b6d6a0"))
    out += rect(206, 42, 12, 30, p("#b08a74")) + rect(56, 56, 11, 30, p("#b08a74"))
    out += _house(46, 100, 70, "#f6e3c4", "#d98a70", p, time)
    out += _house(206, 92, 74, "#e9dcec", "#a58cb8", p, time)
    out += _house(128, 112, 60, "#fbeecb", "#8fb0c4", p, time)
    out += ground_band("M0,190 Q128,182 256,190", p("#a3cc88"))
    out += path("M112,188 Q128,184 144,188 L196,256 H60Z", p("#ead8b4"))
    return out + "".join(pebble(x, y, r, p("#cdb88e")) for x, y, r in ((122, 206, 7), (140, 234, 9), (112, 246, 8)))


def _mountain(p: Paint, time: str) -> str:
    cap, far_cap = ("#a9bce8", "#8ea4d6") if time == "night" else (p("#ffffff"), p("#fbfdff"))
    out = path("M-20,190 L52,62 L124,190Z", p("#b3bed0")) + path("M140,190 L216,54 L290,190Z", p("#b3bed0"))
    out += path("M30,101 L52,62 L74,101 L62,94 L52,104 L42,94Z", far_cap)
    out += path("M191,99 L216,54 L241,99 L228,90 L216,102 L204,90Z", far_cap)
    out += path("M46,196 L132,32 L218,196Z", p("#93a2ba")) + path("M132,32 L218,196 L150,196 L140,120Z", p("#8192ac"))
    out += path("M104,85 L132,32 L160,85 L146,76 L132,92 L118,76Z", cap)
    out += ground_band("M0,186 L40,172 L92,184 L150,170 L206,182 L256,168", p("#b9b5a4"))
    out += ground_band("M0,204 Q128,192 256,204", p("#a8a48f"))
    for x in (10, 246):
        out += path(f"M{x},130 L{x + 18},178 H{x - 18}Z M{x},152 L{x + 22},200 H{x - 22}Z", p("#6d9a7c"))
    stones = path("M4,246 L12,232 L28,230 L36,246Z M222,248 L230,236 L244,234 L252,248Z", p("#8b8a80"))
    return out + stones


def _pond(p: Paint, time: str) -> str:
    out = ground_band("M0,132 Q60,104 128,126 Q200,104 256,130", p("#a6cf9a"))
    out += ground_band("M0,146 Q128,136 256,146", p("#8fc08a"))
    out += ellipse(128, 178, 150, 34, p("#79bccb")) + ellipse(128, 174, 136, 24, p("#93d0da"))
    for x, y, rx in ((92, 166, 17), (164, 164, 17), (128, 186, 16), (22, 178, 15), (236, 178, 15)):
        out += path(f"M{x},{y} L{x + rx},{y - 3} A{rx},{rx * 0.4:g} 0 1 1 {x + rx * 0.7:g},{y - 5}Z", p("#6aa85e"))
    for x, y in ((94, 158), (160, 157)):
        lily = f"M{x - 9},{y} Q{x - 7},{y - 11} {x},{y - 4} Q{x + 7},{y - 11} {x + 9},{y} Q{x},{y + 8} {x - 9},{y}Z"
        out += path(lily, p("#f6a9c4"))
    for x, top in ((6, 96), (20, 76), (112, 112), (144, 104), (238, 74), (251, 98)):
        foot = 196 if x in (6, 20, 238, 251) else 152
        out += line(f"M{x},{foot} V{top}", p("#5e9256"), 4) + line(f"M{x},{top + 2} V{top + 22}", p("#8a5f3c"), 9)
    out += ground_band("M0,212 Q60,196 128,206 Q200,196 256,212", p("#82b870"))
    return out + path("M8,250 q4,-18 8,0 q4,-14 8,0Z M232,250 q4,-18 8,0 q4,-14 8,0Z", p("#5e9256"))


def _garden(p: Paint, time: str) -> str:
    out = ground_band("M0,128 Q40,100 84,122 Q128,96 176,122 Q220,98 256,124", p("#9cc98c"))
    for x, y in ((13, 72), (243, 72)):
        out += line(f"M{x},{y} V170", p("#5e9a50"), 4) + path(
            f"M{x},{y + 40} q14,-14 18,2 q-10,8 -18,-2Z", p("#5e9a50")
        )
        out += circle(x, y, 16, p("#f7c948")) + circle(x, y, 8, p("#8a5a34"))
    out += rect(0, 136, 256, 7, p("#f4ead8")) + rect(0, 164, 256, 7, p("#f4ead8"))
    for x in range(4, 256, 24):
        out += path(f"M{x},184 V128 L{x + 7},118 L{x + 14},128 V184Z", p("#fffaf0"), p("#cdbfa8"), 1.5)
    out += ground_band("M0,182 Q128,176 256,182", p("#98c878"))
    out += ground_band("M0,200 Q128,192 256,200", p("#a98664"))
    out += line("M0,214 Q128,206 256,214 M0,234 Q128,226 256,234", p("#94714f"), 3)
    for x, y in ((16, 240), (240, 240)):
        out += circle(x, y, 13, p("#a8d48a")) + path(
            f"M{x - 9},{y + 5} Q{x},{y - 12} {x + 9},{y + 5}", "none", p("#6fa85c"), 3
        )
    for x in (58, 128, 198):
        out += path(f"M{x - 6},238 H{x + 6} L{x},254Z", p("#f0903c")) + line(
            f"M{x},237 l-6,-10 M{x},237 v-12 M{x},237 l6,-10", p("#5e9a50"), 3.5)  # fmt: skip
    return out


def _snowfield(p: Paint, time: str) -> str:
    # Snow stays bright by moonlight, or the field would look like any other place at night.
    snow, far_snow = ("#96aed8", "#7c94c4") if time == "night" else (p("#f8fbfd"), p("#e8f1f7"))
    out = ground_band("M0,136 Q70,104 140,134 Q200,108 256,130", p("#d8e6f0"))
    for x, y, s in ((22, 92, 1.0), (92, 112, 0.7), (166, 104, 0.8), (238, 88, 1.0)):
        for i, width in enumerate((16, 22, 28)):
            top, w = y + i * 22 * s, width * s
            out += path(f"M{x - w:g},{top + 30 * s:g} L{x},{top:g} L{x + w:g},{top + 30 * s:g}Z", p("#7fa39c"))
            low, half = top + 15 * s, w * 0.5
            cap = f"M{x - half:g},{low:g} L{x},{top:g} L{x + half:g},{low:g} Q{x},{low + 7 * s:g} {x - half:g},{low:g}Z"
            out += path(cap, snow)
    out += ground_band("M0,172 Q80,150 150,170 Q210,156 256,168", far_snow)
    out += ground_band("M0,200 Q128,182 256,202", snow)
    out += path(
        "M0,240 Q40,228 78,244 Q40,250 0,252Z M256,236 Q210,230 176,246 Q220,250 256,250Z",
        "#869ecc" if time == "night" else p("#dfeaf2"),
    )
    flakes = ((66, 30), (88, 64), (118, 40), (146, 66), (176, 28), (200, 66), (232, 24), (12, 66), (250, 58), (128, 84))
    return out + "".join(circle(x, y, 3.6, "#ffffff") for x, y in flakes)


def _kitchen(p: Paint, time: str) -> str:
    out = rect(0, 0, 256, 190, p("#f5e3bd")) + rect(0, 108, 256, 82, p("#dbe8e4"))
    out += line("M0,135 H256 M0,162 H256 M32,108 V190 M64,108 V190 M96,108 V190 M128,108 V190 M160,108 V190",
                p("#c3d6d2"), 2, cap="butt")  # fmt: skip
    out += window(100, 18, 56, 62, time, p("#fffaf0"))
    out += rect(4, 62, 76, 6, p("#a67a50"))
    for x, color in ((10, "#d9877a"), (34, "#86b0c8"), (58, "#e2b85c")):
        out += rect(x, 38, 17, 24, p(color), "", 2, 4) + rect(x + 2, 32, 13, 7, p("#a67a50"))
    out += path("M190,64 L202,22 H238 L250,64Z", p("#b8c0c6")) + rect(186, 62, 68, 9, p("#98a2aa"))
    out += rect(0, 136, 100, 8, p("#c99a68")) + rect(0, 144, 96, 50, p("#e8c896"))
    out += line("M48,146 V194 M36,166 v8 M60,166 v8", p("#b88a58"), 3)
    out += rect(156, 136, 100, 62, p("#8f9aa6"), p("#6f7a88"), 3, 4) + rect(152, 130, 104, 9, p("#5f6874"))
    out += rect(168, 156, 76, 34, "#ff9a4a" if time != "day" else p("#e8a05c"), p("#5f6874"), 4, 4)
    out += (
        rect(196, 104, 40, 26, p("#c8605a"), "", 2, 5)
        + rect(192, 102, 48, 6, p("#a84a48"))
        + circle(216, 100, 4, p("#5f4a44"))
    )
    out += line("M206,92 q-6,-6 0,-12 M224,92 q-6,-6 0,-12", p("#ffffff"), 3)
    out += rect(0, 190, 256, 66, p("#e6cfa8"))
    for row, y in enumerate((190, 212, 234)):
        out += "".join(rect(x, y, 32, 22, p("#d6b98c")) for x in range(0 if row % 2 else 32, 256, 64))
    if time != "day":
        out += lamp_glow(88, 22, 84) + line("M88,0 V12", "#6f5a4a", 3) + path("M76,24 Q88,2 100,24Z", "#ffd25c")
    return out


def _bedroom(p: Paint, time: str) -> str:
    out = rect(0, 0, 256, 192, p("#cfd9ee"))
    for x in range(16, 256, 32):
        out += rect(x, 0, 12, 192, p("#c2cee8"))
    out += window(26, 18, 56, 66, time, p("#fffaf0"))
    out += path("M18,12 H44 Q40,60 16,92Z M90,12 H64 Q68,60 92,92Z", p("#e59aa6")) + rect(12, 8, 84, 6, p("#a67a50"))
    out += rect(178, 22, 46, 38, p("#fffaf0"), p("#a67a50"), 5) + path(
        "M201,28 l4,9 10,1 -7,7 2,10 -9,-5 -9,5 2,-10 -7,-7 10,-1Z", p("#f2c04c"))  # fmt: skip
    out += rect(0, 188, 256, 68, p("#d9b48c")) + line("M0,210 H256 M0,234 H256", p("#c69d74"), 2.5, cap="butt")
    out += path("M84,196 V104 Q84,84 104,84 H126 Q146,84 146,104 V196Z", p("#a67a50"))
    out += rect(240, 122, 14, 78, p("#a67a50"), "", 2, 5) + rect(100, 150, 150, 44, p("#8a633f"))
    out += ellipse(126, 134, 26, 15, p("#ffffff"))
    out += path("M100,196 V150 Q110,138 150,136 Q220,128 246,142 V196Z", p("#8fa6d8"))
    out += path("M132,138 Q150,134 166,134 V196 H132Z", p("#f3e6ee"))
    out += "".join(
        circle(x, y, 6, p("#f2d878")) for x, y in ((184, 150), (212, 146), (236, 158), (196, 178), (224, 180))
    )
    out += ellipse(128, 230, 112, 22, p("#e8a3a0")) + ellipse(128, 230, 88, 15, p("#f3cbb8"))
    out += (
        rect(0, 152, 34, 40, p("#b98a5c")) + rect(-4, 146, 42, 8, p("#9c7048")) + line("M15,146 V128", p("#7a5a40"), 5)
    )
    shade = path("M2,130 L9,106 H23 L30,130Z", "#ffd25c" if time != "day" else p("#f0d9a0"))
    return out + (lamp_glow(16, 118, 84) if time != "day" else "") + shade


_DRAW: dict[str, Callable[[Paint, str], str]] = {
    "meadow": _meadow, "forest": _forest, "beach": _beach, "village": _village, "mountain": _mountain,
    "pond": _pond, "garden": _garden, "snowfield": _snowfield, "kitchen": _kitchen, "bedroom": _bedroom,
}  # fmt: skip
