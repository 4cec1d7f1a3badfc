"""The animals that came after the first eight: dog, hedgehog, duck, elephant, lion and sheep."""

from __future__ import annotations

from math import cos, pi, sin

from data_tools.paper_theatre.art.faces import FaceAnchors
from data_tools.paper_theatre.art.parts import Fur, Parts
from data_tools.paper_theatre.art.shapes import INK, both_sides, circle, darker, ellipse, line, path


def _spikes(cx: float, cy: float, inner: float, outer: float, count: int, first: float, last: float) -> str:
    """A path of spikes around a center, between two angles in turns (0 is right, 0.25 is down)."""
    points = []
    for i in range(2 * count + 1):
        turn, r = first + (last - first) * i / (2 * count), outer if i % 2 else inner
        points.append(f"{cx + r * cos(2 * pi * turn):.1f},{cy + r * sin(2 * pi * turn):.1f}")
    return "M" + " L".join(points) + "Z"


def _dog() -> Parts:
    fur = Fur("#f7ecd8", "#ffffff", "#5a3a2a", "#f7ecd8")
    ear = path("M16,82 C28,76 40,86 41,104 C42,118 38,128 32,128 C26,128 25,112 24,102Z", fur.ear, darker(fur.ear))
    wag = "M14,198 C28,200 38,190 38,174"
    return Parts(
        fur,
        tail=line(wag, fur.edge, 11) + line(wag, fur.coat, 7.5) + line("M38,180 L38,174", fur.ear, 7.5),
        skull=ellipse(0, 110, 31, 31, fur.coat, fur.edge)
        + path("M2,82 C18,80 28,92 27,106 C26,118 12,120 6,112 C1,104 0,92 2,82Z", "#c98f56")
        + both_sides(ear),
        muzzle=ellipse(0, 126, 16, 12.5, fur.light, darker(fur.coat, 0.2), 1.5),
        nose=ellipse(0, 117, 6.8, 5, INK) + ellipse(-2, 115.6, 2, 1.2, "#8a7a78"),
        face=FaceAnchors(eye_dx=13, mouth_y=127, mouth_scale=0.85, cheek_dx=21, cheek_y=120),
    )


def _hedgehog() -> Parts:
    fur = Fur("#f0cfa0", "#fbe6c6", "#d99f78", "#c98a5e")
    quill, dark = "#6d4630", "#3f261a"
    crown = path(_spikes(0, 106, 32, 43.5, 13, 0.36, 1.14), quill, dark) + path(
        _spikes(0, 106, 25, 33, 11, 0.40, 1.10), "#a8764e"
    )
    back = path(_spikes(0, 176, 24, 36, 8, -0.22, 0.22), quill, dark) + path(
        _spikes(0, 176, 24, 36, 8, 0.28, 0.72), quill, dark
    )
    brow = path("M-27,102 L-21,90 L-15,97 L-8,85 L0,95 L8,85 L15,97 L21,90 L27,102 C26,80 -26,80 -27,102Z", quill)
    return Parts(
        fur,
        tail=back,
        ears=crown,
        skull=ellipse(0, 113, 28, 27, fur.coat, fur.edge) + brow + both_sides(circle(25, 97, 5.5, fur.ear, fur.edge)),
        muzzle=path("M-13,124 Q0,106 13,124 Q0,134 -13,124Z", fur.light),
        nose=circle(0, 116, 5.4, INK) + circle(-1.7, 114.4, 1.5, "#8a7a78"),
        face=FaceAnchors(eye_dx=12.5, eye_y=106, mouth_y=126, mouth_scale=0.75, cheek_dx=20, cheek_y=120),
    )


def _duck() -> Parts:
    fur = Fur("#ffe060", "#fff3b0", "#ffe060", "#f58a1f", leg="#f58a1f")
    edge, bill, rim = "#b8901a", "#f58a1f", "#a8560c"
    return Parts(
        fur,
        tail=path("M12,190 Q34,194 41,176 Q32,178 30,172 Q24,180 14,180Z", fur.coat, edge),
        ears="",
        bare=path("M-3,82 C-10,72 -6,66 -9,60 C-1,62 1,68 2,74 C4,68 9,66 13,67 C9,71 6,76 5,82Z", fur.coat, edge),
        skull=ellipse(0, 110, 32, 31, fur.coat, edge),
        muzzle=path("M-17,119 Q-20,139 0,139 Q20,139 17,119Z", "#ffb04a", rim),
        nose=path("M-23,119 C-24,112 -12,112 -7,109 Q0,105 7,109 C12,112 24,112 23,119 C20,124 8,121 0,122"
                  " C-8,121 -20,124 -23,119Z", bill, rim)
        + both_sides(ellipse(3.6, 112.5, 1.3, 1.8, rim)),
        face=FaceAnchors(eye_dx=14, eye_y=100, mouth_y=127, mouth_scale=0.8, cheek_dx=25, cheek_y=112,
                         cheek="#f59a5c"),
    )  # fmt: skip


def _elephant() -> Parts:
    fur = Fur("#a3a0b8", "#bcb9cc", "#e3a7b6", "#8b88a2")
    ear = path("M18,86 C30,74 43,82 43.5,104 C44,124 36,134 27,131 C20,128 18,120 19,110Z", fur.coat, fur.edge)
    ear += path("M25,92 C32,86 38,92 38.5,104 C39,118 34,125 29,123 C25,120 24,112 24,106Z", fur.ear)
    trunk = "M5,110 C7,122 9,130 10,138 C12,152 26,153 29,143"
    return Parts(
        fur,
        tail=line("M14,192 Q30,194 34,206", fur.edge, 5) + ellipse(35, 208, 4, 5, "#4a475c"),
        ears=both_sides(ear),
        skull=ellipse(0, 109, 27, 30, fur.coat, fur.edge),
        nose=line(trunk, fur.edge, 16) + line(trunk, fur.coat, 12.2) + line("M6,122 l7,-2 M8,130 l7,-2 M10,139 l7,-3",
                                                                          fur.edge, 1.8)
        + ellipse(4, 107, 6.2, 5, fur.coat),
        mouth_dx=-9,
        face=FaceAnchors(eye_dx=12.5, eye_y=101, mouth_y=124, mouth_scale=0.7, cheek_dx=20, cheek_y=115,
                         cheek="#e08aa6"),
    )  # fmt: skip


def _lion() -> Parts:
    fur = Fur("#f4bc52", "#fff0cf", "#d98a4a", "#e0a23c")
    mane, dark = "#b4551c", "#6f2f0c"
    ring = [(38 * cos(2 * pi * i / 14), 108 + 38 * sin(2 * pi * i / 14)) for i in range(14)]
    locks = "".join(circle(round(x, 1), round(y, 1), 9 if abs(x) < 34 else 6, mane, dark) for x, y in ring)
    swing = "M12,196 C28,204 38,194 36,176"
    tuft = path("M36,182 C28,178 30,168 37,160 C43,168 43,178 36,182Z", mane, dark)
    return Parts(
        fur,
        tail=line(swing, fur.edge, 8.5) + line(swing, fur.coat, 5) + tuft,
        ears=locks + circle(0, 108, 38, mane),
        skull=both_sides(circle(24, 87, 8.5, fur.coat, fur.edge) + circle(24, 87, 4, fur.ear))
        + ellipse(0, 111, 28, 27.5, fur.coat, fur.edge),
        muzzle=both_sides(ellipse(7, 125, 9.5, 8.5, fur.light)) + ellipse(0, 131, 9, 6.5, fur.light),
        nose=path("M-6,113 Q0,110.5 6,113 Q4,119.5 0,120 Q-4,119.5 -6,113Z", "#7a3a22")
        + both_sides(circle(9, 123, 1, "#a8743c") + circle(12.5, 125.5, 1, "#a8743c")),
        face=FaceAnchors(eye_dx=12.5, eye_y=105, mouth_y=126, mouth_scale=0.8, cheek_dx=20.5, cheek_y=119),
    )


def _sheep() -> Parts:
    fur = Fur("#fdfaf3", "#fffdf8", "#e8b9a0", "#5c4a4c", leg="#5c4a4c")
    edge, face = "#a8a094", "#f0cdb0"
    around = [(30, 122), (34, 109), (31, 95), (22, 85), (9, 80)]
    puffs = both_sides("".join(circle(x, y, 10, fur.coat, edge) for x, y in around))
    fringe = "".join(circle(x, y, 8.5, fur.coat, edge) for x, y in ((-14, 90), (14, 90), (0, 87)))
    fill = ellipse(0, 106, 31, 27, fur.coat)
    ear = ellipse(0, 0, 11, 6, face, darker(face, 0.4)) + ellipse(1, 0.5, 7, 3, fur.ear)
    ears = both_sides(f'<g transform="translate(32 110) rotate(28)">{ear}</g>')
    return Parts(
        fur,
        tail=circle(26, 190, 9, fur.coat, edge),
        ears=puffs + fill,
        skull=ears + ellipse(0, 114, 24, 25, face, darker(face, 0.4)) + fringe + ellipse(0, 82, 20, 7, fur.coat),
        muzzle=ellipse(0, 128, 14, 9.5, "#f9e2cc"),
        nose=line("M-4,117 L0,120.5 L4,117 M0,120 V123", "#8a5a54", 2.8),
        face=FaceAnchors(eye_dx=11.5, eye_y=108, mouth_y=127, mouth_scale=0.75, cheek_dx=18, cheek_y=121),
    )


ANIMALS = {
    "dog": _dog(), "hedgehog": _hedgehog(), "duck": _duck(),
    "elephant": _elephant(), "lion": _lion(), "sheep": _sheep(),
}  # fmt: skip
