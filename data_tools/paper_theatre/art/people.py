"""The four people: a boy, a girl, a grandmother and a grandfather."""

from __future__ import annotations

from data_tools.paper_theatre.art.faces import FaceAnchors
from data_tools.paper_theatre.art.parts import Fur, Parts
from data_tools.paper_theatre.art.shapes import both_sides, circle, darker, ellipse, line, path


def _nose(skin: str) -> str:
    return line("M-3,115.5 Q0,119 3,115.5", darker(skin, 0.38), 2.6)


def _head(skin: str, rx: float = 31) -> str:
    edge = darker(skin, 0.42)
    ears = both_sides(ellipse(rx + 0.5, 111, 6, 7.5, skin, edge) + ellipse(rx + 1.5, 111, 2.6, 3.8, darker(skin, 0.18)))
    return ears + ellipse(0, 110, rx, 31, skin, edge)


def _boy() -> Parts:
    skin, hair = "#f6cfa4", "#3f2a22"
    edge = darker(hair, 0.4)
    mop = path(
        "M-33,106 C-37,88 -27,76 -14,75 L-10,68 L-3,74 L5,66 L9,74 L19,70 L19,77 C30,82 36,92 33,106"
        " L28,99 L26,92 L17,97 L12,89 L3,96 L-4,88 L-12,96 L-18,90 L-26,99Z", hair, edge,
    )  # fmt: skip
    freckles = both_sides(circle(16, 116, 1.3, "#c98a58") + circle(20, 113, 1.3, "#c98a58"))
    return Parts(
        Fur(skin, skin, skin, skin, shoe="#3b6fa8"),
        skull=_head(skin) + mop,
        muzzle=freckles,
        nose=_nose(skin),
        face=FaceAnchors(eye_y=107, mouth_y=126, mouth_scale=0.85, cheek="#ee8d78", cheek_dx=22, cheek_y=121),
    )


def _girl() -> Parts:
    skin, hair, ribbon = "#a9693f", "#2b1a18", "#ff5f8f"
    edge = darker(hair, 0.4)
    braid = "".join(ellipse(x, y, 7.2 - i * 0.5, 8, hair, edge) for i, (x, y) in enumerate(
        ((33, 118), (36, 129), (37, 140), (37, 150))))  # fmt: skip
    braid += path("M37,158 l-7,-4 v8Z M37,158 l7,-4 v8Z", ribbon, darker(ribbon, 0.4), 1.5)
    braid += path("M33,160 L41,160 L38,168 L36,168Z", hair, edge, 1.5)
    cap = path(
        "M-33,112 C-36,86 -22,76 0,76 C22,76 36,86 33,112 C30,104 26,96 14,92 Q6,90 0,84 Q-6,90 -14,92"
        " C-26,96 -30,104 -33,112Z", hair, edge,
    )  # fmt: skip
    cap += line("M0,77 V84", "#6a463c", 2)
    return Parts(
        Fur(skin, skin, skin, skin, shoe="#e05a7c"),
        ears=both_sides(braid) + ellipse(0, 106, 34, 29, hair, edge),
        skull=_head(skin, 30) + cap,
        nose=_nose(skin),
        face=FaceAnchors(eye_y=107, mouth_y=126, mouth_scale=0.85, cheek="#d9695a", cheek_dx=21, cheek_y=120),
    )


def _grandmother() -> Parts:
    skin, hair = "#f2cdb0", "#d3d6de"
    edge = "#8d90a0"
    bun = circle(0, 67, 13.5, hair, edge) + line("M-8,64 Q0,56 8,65 M-6,71 Q1,65 7,72", edge, 2)
    bun += line("M-12,76 Q0,82 12,76", "#c8569a", 4.5)
    curls = circle(29, 94, 9, hair, edge) + circle(33, 106, 8, hair, edge) + circle(32, 118, 6.5, hair, edge)
    wave = path(
        "M-33,102 C-35,84 -20,76 0,76 C20,76 35,84 33,102 C28,90 20,88 12,92 C6,94 2,90 0,86"
        " C-2,90 -6,94 -12,92 C-20,88 -28,90 -33,102Z", hair, edge,
    )  # fmt: skip
    wave += line("M-22,86 Q-12,80 -4,82 M22,86 Q12,80 4,82", "#b4b8c6", 2)
    rims = both_sides(circle(13.5, 106, 11.2, "none", "#b98322", 2.6)) + line("M-3,104 Q0,102 3,104", "#b98322", 2.6)
    lines = both_sides(line("M28,112 l4,-2 M28,116 l4,1", darker(skin, 0.25), 1.6))
    return Parts(
        Fur(skin, skin, skin, skin, shoe="#8a5a86"),
        ears=both_sides(curls),
        bare=bun,
        skull=ellipse(0, 110, 31, 31, skin, darker(skin, 0.42)) + lines + wave,
        nose=_nose(skin),
        over=rims,
        face=FaceAnchors(eye_y=106, mouth_y=127, mouth_scale=0.8, cheek="#f09a8e", cheek_dx=21, cheek_y=122,
                         brow_lift=3),
    )  # fmt: skip


def _grandfather() -> Parts:
    skin, hair = "#c08a5f", "#f6f4ee"
    edge = "#a29c94"
    tuft = circle(31, 100, 7.5, hair, edge) + circle(33, 110, 6.5, hair, edge)
    beard = path(
        "M-32,112 C-33,138 -24,148 -14,150 Q-10,158 -4,153 Q0,162 4,153 Q10,158 14,150 C24,148 33,138 32,112"
        " C27,118 20,119 12,118 Q0,116 -12,118 C-20,119 -27,118 -32,112Z", hair, edge,
    )  # fmt: skip
    moustache = path(
        "M0,118 C6,113 16,115 22,123 C15,127 5,126 0,121 C-5,126 -15,127 -22,123 C-16,115 -6,113 0,118Z", hair, edge
    )
    shine = line("M-14,86 Q-6,82 2,82", "#dcae86", 3.5)
    return Parts(
        Fur(skin, skin, skin, skin, shoe="#5a4634"),
        ears=both_sides(tuft),
        skull=_head(skin) + shine,
        muzzle=beard,
        nose=moustache + ellipse(0, 114, 5.5, 4.6, darker(skin, 0.12), darker(skin, 0.42)),
        face=FaceAnchors(eye_y=103, mouth_y=132, mouth_scale=0.8, cheek="#d9735c", cheek_dx=24, cheek_y=112),
    )


PEOPLE = {"boy": _boy(), "girl": _girl(), "grandmother": _grandmother(), "grandfather": _grandfather()}
