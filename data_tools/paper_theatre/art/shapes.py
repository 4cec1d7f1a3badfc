"""Small SVG building blocks and color helpers shared by all the art."""

from __future__ import annotations

GROUND_Y = 222
INK = "#33221f"


def ellipse(cx: float, cy: float, rx: float, ry: float, fill: str, stroke: str = "", width: float = 2) -> str:
    """An ellipse, with an outline when `stroke` is given."""
    return f'<ellipse cx="{cx:g}" cy="{cy:g}" rx="{rx:g}" ry="{ry:g}" fill="{fill}"{_outline(stroke, width)}/>'


def circle(cx: float, cy: float, r: float, fill: str, stroke: str = "", width: float = 2) -> str:
    """A circle, with an outline when `stroke` is given."""
    return f'<circle cx="{cx:g}" cy="{cy:g}" r="{r:g}" fill="{fill}"{_outline(stroke, width)}/>'


def rect(
    x: float, y: float, w: float, h: float, fill: str, stroke: str = "", width: float = 2, round_: float = 0
) -> str:
    """A rectangle with optional round corners."""
    corner = f' rx="{round_:g}"' if round_ else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}"{corner} fill="{fill}"{_outline(stroke, width)}/>'


def path(d: str, fill: str = "none", stroke: str = "", width: float = 2, extra: str = "") -> str:
    """A path with round joins; `extra` is appended to the element's attributes."""
    return f'<path d="{d}" fill="{fill}"{_outline(stroke, width)}{extra}/>'


def line(d: str, stroke: str, width: float, dash: str = "", cap: str = "round") -> str:
    """An open stroke."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="{d}" fill="none" stroke="{stroke}" stroke-width="{width:g}" '
        f'stroke-linecap="{cap}" stroke-linejoin="round"{dashes}/>'
    )


def group(content: str, transform: str) -> str:
    """A group moved by an SVG transform."""
    return f'<g transform="{transform}">{content}</g>'


def both_sides(right: str) -> str:
    """The fragment for the right half, and the same mirrored about x = 0."""
    return right + group(right, "scale(-1 1)")


def darker(color: str, amount: float = 0.35) -> str:
    """A shade of a #rrggbb color, for outlines and folds."""
    return _hex(tuple(v * (1 - amount) for v in _rgb(color)))


def tint(color: str, time: str, indoors: bool = False) -> str:
    """A background color in the light of a time of day; rooms are warmed by their lamp."""
    r, g, b = _rgb(color)
    if indoors and time == "dusk":
        return _hex((r * 0.88 + 22, g * 0.76 + 10, b * 0.62 + 16))
    if indoors and time == "night":
        return _hex((r * 0.46 + 12, g * 0.40 + 16, b * 0.44 + 40))
    if time == "dusk":
        return _hex((r * 0.86 + 32, g * 0.72 + 14, b * 0.64 + 34))
    if time == "night":
        return _hex((r * 0.34 + 4, g * 0.40 + 12, b * 0.46 + 42))
    return color


def _outline(stroke: str, width: float) -> str:
    return f' stroke="{stroke}" stroke-width="{width:g}" stroke-linejoin="round"' if stroke else ""


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _hex(values: tuple[float, ...]) -> str:
    return "#" + "".join(f"{max(0, min(255, round(v))):02x}" for v in values)
