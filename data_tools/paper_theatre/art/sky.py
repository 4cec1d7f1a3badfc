"""Skies and windows: the part of a place that tells the time of day."""

from __future__ import annotations

from functools import cache

from data_tools.paper_theatre.art.shapes import circle, ellipse, line, path, rect

SKIES = {"day": ("#9fd6f2", "#e6f6fb"), "dusk": ("#b886b4", "#ffc78c"), "night": ("#141d4a", "#34488a")}
_STARS = (
    (62, 20),
    (92, 44),
    (120, 16),
    (148, 38),
    (178, 14),
    (204, 46),
    (236, 22),
    (84, 78),
    (168, 70),
    (24, 74),
    (228, 82),
)


@cache
def sky(time: str) -> str:
    """The whole sky, with sun and clouds or moon and stars."""
    top, low = SKIES[time]
    out = (
        f'<linearGradient id="sky" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{top}"/>'
        f'<stop offset=".75" stop-color="{low}"/></linearGradient><rect width="256" height="256" fill="url(#sky)"/>'
    )
    if time == "night":
        stars = "".join(circle(x, y, 2.4 if i % 2 else 1.8, "#fff4c4") for i, (x, y) in enumerate(_STARS))
        return out + stars + path("M36,14 A19,19 0 1 0 48,42 A15,15 0 0 1 36,14Z", "#ffeaa0")
    if time == "dusk":
        sun = '<circle cx="30" cy="36" r="29" fill="#ffe09a" fill-opacity=".4"/>' + circle(30, 36, 19, "#ff8a4c")
        return out + sun + cloud(108, 26, "#e9a6ac") + cloud(216, 40, "#f2b5a4")
    sun = '<circle cx="30" cy="34" r="27" fill="#fff3b0" fill-opacity=".6"/>' + circle(30, 34, 18, "#ffd44a")
    return out + sun + cloud(108, 26, "#ffffff") + cloud(216, 40, "#ffffff")


def cloud(x: float, y: float, color: str) -> str:
    """A paper cloud."""
    d = f"M{x - 26},{y + 10} a10,10 0 0 1 6,-18 a15,15 0 0 1 27,-4 a12,12 0 0 1 17,22Z"
    return path(d, color)


@cache
def window(x: float, y: float, w: float, h: float, time: str, frame: str) -> str:
    """A window that shows the sky outside."""
    top, low = SKIES[time]
    mid, radius = x + w / 2, min(w, h) * 0.2
    out = rect(x, y, w, h, low if time != "day" else "#aee0f5")
    out += path(f"M{x},{y + h} V{y + h * 0.75} Q{mid},{y + h * 0.5} {x + w},{y + h * 0.8} V{y + h}Z",
                {"day": "#9ccc7a", "dusk": "#b08a6a", "night": "#1f3a5c"}[time])  # fmt: skip
    if time == "night":
        out = out.replace(low, top, 1)
        cx, cy = x + w * 0.28, y + h * 0.3
        out += circle(cx, cy, radius, "#ffeaa0") + circle(cx + radius * 0.5, cy - radius * 0.25, radius * 0.85, top)
        out += circle(x + w * 0.72, y + h * 0.22, 1.8, "#fff4c4") + circle(x + w * 0.85, y + h * 0.42, 1.8, "#fff4c4")
    else:
        out += circle(x + w * 0.28, y + h * 0.32, radius, "#ffd44a" if time == "day" else "#ff7a3c")
    bars = line(f"M{mid},{y} V{y + h} M{x},{y + h / 2} H{x + w}", frame, 3, cap="butt")
    return out + bars + rect(x, y, w, h, "none", frame, 5) + rect(x - 5, y + h, w + 10, 6, frame)


@cache
def lamp_glow(x: float, y: float, r: float) -> str:
    """Warm light around a lamp."""
    return (
        '<radialGradient id="glow"><stop offset="0" stop-color="#ffe08a" stop-opacity=".85"/>'
        '<stop offset="1" stop-color="#ffb84a" stop-opacity="0"/></radialGradient>'
        f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="url(#glow)"/>'
    )


def ground_band(d: str, color: str) -> str:
    """A large paper layer that runs to the bottom of the picture, with its shadow on the layer behind."""
    shape = d + " L256,256 L0,256Z"
    return path(shape, "#1c1430", extra=' fill-opacity=".09" transform="translate(0 -4)"') + path(shape, color)


def pebble(x: float, y: float, r: float, color: str) -> str:
    """A flat stone or tuft on the ground."""
    return ellipse(x, y, r, r * 0.45, color)
