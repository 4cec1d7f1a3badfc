"""Turn a `Scene` of the paper theatre into SVG, pixels, boxes and masks.

A picture is a pure function of its scene: there is no randomness anywhere in the art.
"""

from __future__ import annotations

import io

import numpy as np
import resvg_py
from PIL import Image

from data_tools.paper_theatre.art import characters, places, props, stages
from data_tools.paper_theatre.art.shapes import GROUND_Y
from data_tools.paper_theatre.world import PROP_SPOTS, SLOTS_OF_VIEW, STANDS, Actor, Scene, Stand

VIEW = 256
_Stands = dict[str, tuple[Stand, Stand]]
_SLOT_HALF_WIDTH, _SLOT_TOP, _SLOT_BOTTOM = 44, 24, 232

# Where the two props of a layout lie, and where they float; a middle view has `PROP_SPOTS`.
_LIE = {
    "near": (Stand(0.14, 225 / VIEW, 1.15), Stand(0.86, 225 / VIEW, 1.15)),
    "wide": (Stand(0.41, 229 / VIEW, 0.6), Stand(0.59, 229 / VIEW, 0.6)),
    "first": (Stand(104 / VIEW, 231 / VIEW, 0.7), Stand(20 / VIEW, 231 / VIEW, 0.7)),
    "second": (Stand(236 / VIEW, 231 / VIEW, 0.7), Stand(152 / VIEW, 231 / VIEW, 0.7)),
}
_FLOAT = {
    "near": (Stand(0.12), Stand(0.88)),
    "wide": (Stand(0.41, 229 / VIEW, 0.65), Stand(0.59, 229 / VIEW, 0.65)),
    "first": (Stand(104 / VIEW, 231 / VIEW, 0.8), Stand(20 / VIEW, 231 / VIEW, 0.8)),
    "second": (Stand(236 / VIEW, 231 / VIEW, 0.8), Stand(152 / VIEW, 231 / VIEW, 0.8)),
}
# Two characters leave other gaps: in the middle first.
_LIE_OF_TWO = {
    "near": (Stand(0.5, 225 / VIEW, 1.15), Stand(0.9, 225 / VIEW, 1.15)),
    "first": (Stand(62 / VIEW, 231 / VIEW, 0.7), Stand(106 / VIEW, 231 / VIEW, 0.7)),
    "second": (Stand(194 / VIEW, 231 / VIEW, 0.7), Stand(238 / VIEW, 231 / VIEW, 0.7)),
}
_FLOAT_OF_TWO = {
    "near": (Stand(0.5), Stand(0.9)),
    "first": (Stand(62 / VIEW, 231 / VIEW, 0.8), Stand(108 / VIEW, 231 / VIEW, 0.8)),
    "second": (Stand(194 / VIEW, 231 / VIEW, 0.8), Stand(240 / VIEW, 231 / VIEW, 0.8)),
}


def scene_svg(scene: Scene) -> str:
    """Return the whole picture as one SVG document on a 256 x 256 view box."""
    if scene.meanwhile:
        return _document("".join(_ground(*half) + _stage(*half) for half in _halves(scene)) + stages.gutter())
    return _document(_ground(scene, scene.view) + _stage(scene, scene.view))


def render(scene: Scene, size: int = 128) -> Image.Image:
    """Render a scene to an RGB picture.

    Args:
        scene: What the picture shows.
        size: Width and height in pixels.

    Returns:
        An RGB picture of `size` x `size` pixels; the same scene always gives the same pixels.
    """
    return _raster(scene_svg(scene), size).convert("RGB")


def slot_box(slot: str, size: int = 128) -> tuple[int, int, int, int]:
    """Return (x0, y0, x1, y1) of a slot: a whole character with its hat, cut off at the edges of the picture.

    All slots of a view have boxes of one size, but for what the edges cut off.
    """
    if slot not in STANDS:
        raise ValueError(f"unknown slot {slot!r}: choose one of {', '.join(STANDS)}")
    stand = STANDS[slot]
    middle, half = round(stand.x * size), round(_SLOT_HALF_WIDTH * stand.scale * size / VIEW)
    top, bottom = (
        round((stand.ground * VIEW + (y - GROUND_Y) * stand.scale) * size / VIEW) for y in (_SLOT_TOP, _SLOT_BOTTOM)
    )
    return max(0, middle - half), max(0, top), min(size, middle + half), min(size, bottom)


def actor_masks(scene: Scene, size: int = 128) -> list[np.ndarray]:
    """Return the visible pixels of each actor, without shadows.

    Args:
        scene: What the picture shows.
        size: Width and height in pixels.

    Returns:
        One bool array [size, size] per actor, in the order of `scene.everyone`; they are disjoint.
    """
    return [mask for half in _halves(scene) for mask in _masks(*half, size)]


def actor_box(scene: Scene, i: int, size: int = 128) -> tuple[int, int, int, int]:
    """Return the tight box (x0, y0, x1, y1) of what is visible of actor `i`; x1 and y1 are exclusive."""
    mask = actor_masks(scene, size)[i]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def actor_svg(actor: Actor) -> str:
    """Return one character alone on a transparent ground, standing in the center."""
    return _document(_put("centre", characters.figure(actor.appearance, actor.pose, actor.expression)))


def _halves(scene: Scene) -> tuple[tuple[Scene, str], ...]:
    """The places that a page shows, each with its layout, a key of `SLOTS_OF_VIEW`."""
    return tuple(zip(scene.halves, ("first", "second") if scene.meanwhile else (scene.view,), strict=True))


def _ground(scene: Scene, layout: str) -> str:
    if layout in ("first", "second"):
        return stages.half(scene.place, scene.time, layout == "second")
    return {"near": stages.near, "wide": stages.wide}.get(layout, places.place)(scene.place, scene.time)


def _stage(scene: Scene, layout: str) -> str:
    """All that stands, lies and floats before a place."""
    slots = SLOTS_OF_VIEW[layout][len(scene.actors)]
    shadows = "".join(
        _put(slot, characters.shadow(actor.pose)) for slot, actor in zip(slots, scene.actors, strict=True)
    )
    return _floating(scene, layout) + shadows + "".join(_figures(scene, layout)) + _lying(scene, layout)


def _masks(scene: Scene, layout: str, size: int) -> list[np.ndarray]:
    lying = _lying(scene, layout)
    in_front = _opaque(lying, size) if lying else np.zeros((size, size), dtype=bool)
    masks: list[np.ndarray] = []
    for figure in reversed(_figures(scene, layout)):
        alone = _opaque(figure, size)
        masks.append(alone & ~in_front)
        in_front = in_front | alone
    return masks[::-1]


def _figures(scene: Scene, layout: str) -> tuple[str, ...]:
    return tuple(
        _put(slot, characters.figure(actor.appearance, actor.pose, actor.expression))
        for slot, actor in zip(SLOTS_OF_VIEW[layout][len(scene.actors)], scene.actors, strict=True)
    )


def _floating(scene: Scene, layout: str) -> str:
    spots = _prop_stands(scene, layout, _FLOAT, _FLOAT_OF_TWO)
    return "".join(_at(spot, props.prop(name)) for spot, name in spots if name in props.FLOATING)


def _lying(scene: Scene, layout: str) -> str:
    spots = _prop_stands(scene, layout, _LIE, _LIE_OF_TWO)
    return "".join(
        _at(spot, props.shadow(name) + props.prop(name)) for spot, name in spots if name not in props.FLOATING
    )


def _prop_stands(scene: Scene, layout: str, alone: _Stands, of_two: _Stands) -> zip[tuple[Stand, str]]:
    """Each prop with its stand."""
    stands = (of_two if len(scene.actors) == 2 else alone).get(layout) or alone.get(layout)
    return zip(stands or [Stand(x) for x in PROP_SPOTS], scene.props, strict=False)


def _put(slot: str, fragment: str) -> str:
    return _at(STANDS[slot], fragment)


def _at(stand: Stand, fragment: str) -> str:
    x, ground = stand.x * VIEW, stand.ground * VIEW
    if stand == Stand(stand.x):
        return f'<g transform="translate({x:g} 0)">{fragment}</g>'
    top = ground - GROUND_Y * stand.scale
    return f'<g transform="translate({x:g} {top:g}) scale({stand.scale:g})">{fragment}</g>'


def _document(content: str) -> str:
    frame = f'viewBox="0 0 {VIEW} {VIEW}" width="{VIEW}" height="{VIEW}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>{content}</svg>'


def _raster(svg: str, size: int) -> Image.Image:
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png)))


def _opaque(fragment: str, size: int) -> np.ndarray:
    alpha = np.asarray(_raster(_document(fragment), size).convert("RGBA"))[..., 3]
    return alpha >= 128
