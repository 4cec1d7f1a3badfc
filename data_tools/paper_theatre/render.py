"""Turn a `Scene` of the paper theatre into SVG, pixels, boxes and masks.

A picture is a pure function of its scene: there is no randomness anywhere in the art.
"""

from __future__ import annotations

import io

import numpy as np
import resvg_py
from PIL import Image

from data_tools.paper_theatre.art import characters, places, props
from data_tools.paper_theatre.world import PROP_SPOTS, SLOTS, Actor, Scene

VIEW = 256
_SLOT_HALF_WIDTH, _SLOT_TOP, _SLOT_BOTTOM = 44, 24, 232


def scene_svg(scene: Scene) -> str:
    """Return the whole picture as one SVG document on a 256 x 256 view box."""
    shadows = "".join(
        _at(SLOTS[slot], characters.shadow(actor.pose)) for slot, actor in zip(scene.slots, scene.actors, strict=True)
    )
    layers = (places.place(scene.place, scene.time), _floating(scene), shadows, *_figures(scene), _lying(scene))
    return _document("".join(layers))


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
    """Return (x0, y0, x1, y1) of a slot: a whole character with its hat, the same size for all slots."""
    if slot not in SLOTS:
        raise ValueError(f"unknown slot {slot!r}: choose one of {', '.join(SLOTS)}")
    middle, half = round(SLOTS[slot] * size), round(_SLOT_HALF_WIDTH * size / VIEW)
    return middle - half, round(_SLOT_TOP * size / VIEW), middle + half, round(_SLOT_BOTTOM * size / VIEW)


def actor_masks(scene: Scene, size: int = 128) -> list[np.ndarray]:
    """Return the visible pixels of each actor, without shadows.

    Args:
        scene: What the picture shows.
        size: Width and height in pixels.

    Returns:
        One bool array [size, size] per actor, in the order of `scene.actors`; they are disjoint.
    """
    in_front = _opaque(_lying(scene), size) if _lying(scene) else np.zeros((size, size), dtype=bool)
    masks: list[np.ndarray] = []
    for figure in reversed(_figures(scene)):
        alone = _opaque(figure, size)
        masks.append(alone & ~in_front)
        in_front = in_front | alone
    return masks[::-1]


def actor_box(scene: Scene, i: int, size: int = 128) -> tuple[int, int, int, int]:
    """Return the tight box (x0, y0, x1, y1) of what is visible of actor `i`; x1 and y1 are exclusive."""
    mask = actor_masks(scene, size)[i]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def actor_svg(actor: Actor) -> str:
    """Return one character alone on a transparent ground, standing in the centre."""
    return _document(_at(SLOTS["centre"], characters.figure(actor.look, actor.pose, actor.expression)))


def _figures(scene: Scene) -> tuple[str, ...]:
    return tuple(
        _at(SLOTS[slot], characters.figure(actor.look, actor.pose, actor.expression))
        for slot, actor in zip(scene.slots, scene.actors, strict=True)
    )


def _floating(scene: Scene) -> str:
    spots = zip(PROP_SPOTS, scene.props, strict=False)
    return "".join(_at(x, props.prop(name)) for x, name in spots if name in props.FLOATING)


def _lying(scene: Scene) -> str:
    spots = zip(PROP_SPOTS, scene.props, strict=False)
    return "".join(_at(x, props.shadow(name) + props.prop(name)) for x, name in spots if name not in props.FLOATING)


def _at(x: float, fragment: str) -> str:
    return f'<g transform="translate({x * VIEW:g} 0)">{fragment}</g>'


def _document(content: str) -> str:
    frame = f'viewBox="0 0 {VIEW} {VIEW}" width="{VIEW}" height="{VIEW}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>{content}</svg>'


def _raster(svg: str, size: int) -> Image.Image:
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png)))


def _opaque(fragment: str, size: int) -> np.ndarray:
    alpha = np.asarray(_raster(_document(fragment), size).convert("RGBA"))[..., 3]
    return alpha >= 128
