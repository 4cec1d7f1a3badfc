"""Eyes, brows, cheeks and mouths: the five expressions, drawn at anchors that each species chooses."""

from __future__ import annotations

from dataclasses import dataclass

from data_tools.paper_theatre.art.shapes import INK, both_sides, circle, ellipse, line, path

TEAR = "#4fb2f2"


@dataclass(frozen=True)
class FaceAnchors:
    """Where the parts of a face sit on a head whose middle is x = 0."""

    eye_dx: float = 13.5
    eye_y: float = 105
    mouth_y: float = 125
    mouth_scale: float = 1.0
    cheek_y: float = 119
    cheek_dx: float = 23
    brow_lift: float = 0
    cheek: str = "#f08a86"


def eyes(expression: str, at: FaceAnchors) -> str:
    """Eyes, brows and tears of one expression."""
    x, y, lift = at.eye_dx, at.eye_y, at.brow_lift
    if expression == "happy":
        return both_sides(ellipse(x, y, 5.6, 7.4, INK)) + "".join(
            circle(s * x + 1.8, y - 2.6, 2.4, "#ffffff") for s in (-1, 1)
        )
    if expression == "sad":
        brow = line(f"M{x - 7:g},{y - 14 - lift:g} L{x + 8:g},{y - 8 - lift:g}", INK, 4)
        tx, ty = x + 3, y + 8
        drop = f"M{tx:g},{ty:g} C{tx + 6:g},{ty + 8:g} {tx + 5:g},{ty + 15:g} {tx:g},{ty + 15:g}"
        drop += f" C{tx - 5:g},{ty + 15:g} {tx - 6:g},{ty + 8:g} {tx:g},{ty:g}Z"
        half = brow + ellipse(x, y, 5, 5.6, INK) + path(drop, TEAR, "#2476c4", 1.5)
        return both_sides(half) + "".join(circle(s * x, y - 2, 1.9, "#ffffff") for s in (-1, 1))
    if expression == "surprised":
        brow = line(f"M{x - 6:g},{y - 14 - lift:g} Q{x + 2:g},{y - 20 - lift:g} {x + 9:g},{y - 13 - lift:g}", INK, 4)
        return both_sides(brow + circle(x, y, 9.5, "#ffffff", INK, 2.5) + circle(x, y, 4.2, INK))
    if expression == "angry":
        brow = line(f"M{x - 8:g},{y - 4 - lift:g} L{x + 8:g},{y - 12 - lift:g}", INK, 5.5)
        return both_sides(ellipse(x, y + 2, 5, 5.4, INK) + brow) + "".join(
            circle(s * x + 1, y + 2, 1.6, "#ffffff") for s in (-1, 1)
        )
    if expression == "sleepy":
        return both_sides(line(f"M{x - 7.5:g},{y:g} Q{x:g},{y + 9:g} {x + 7.5:g},{y:g}", INK, 4.2))
    raise ValueError(f"unknown expression {expression!r}")


def cheeks(expression: str, at: FaceAnchors) -> str:
    """Rosy cheeks; hot red ones when angry, none when sad."""
    if expression == "sad":
        return ""
    color = "#e2382f" if expression == "angry" else at.cheek
    size = 6.5 if expression == "angry" else 5
    return both_sides(ellipse(at.cheek_dx, at.cheek_y, size, size - 1, color))


def mouth(expression: str, at: FaceAnchors) -> str:
    """The mouth of one expression."""
    s, y = at.mouth_scale, at.mouth_y
    if expression == "happy":
        d = f"M{-10 * s:g},{y - 3:g} Q0,{y:g} {10 * s:g},{y - 3:g} Q{9 * s:g},{y + 10:g} 0,{y + 10:g}"
        d += f" Q{-9 * s:g},{y + 10:g} {-10 * s:g},{y - 3:g}Z"
        return path(d, "#8c2632", INK, 2.5) + ellipse(0, y + 6.5, 5 * s, 2.8, "#f2777c")
    if expression == "sad":
        return line(f"M{-9 * s:g},{y + 8:g} Q0,{y - 6:g} {9 * s:g},{y + 8:g}", INK, 4.4)
    if expression == "surprised":
        return ellipse(0, y + 3, 6, 7.6, "#8c2632", INK, 2.5)
    if expression == "angry":
        w = 4.6 * s
        d = f"M{-2 * w:g},{y + 5:g} L{-w:g},{y:g} L0,{y + 5:g} L{w:g},{y:g} L{2 * w:g},{y + 5:g}"
        return line(d, INK, 4)
    if expression == "sleepy":
        return line(f"M-4,{y + 2:g} Q0,{y + 5.5:g} 4,{y + 2:g}", INK, 4)
    raise ValueError(f"unknown expression {expression!r}")
