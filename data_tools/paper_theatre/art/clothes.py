"""Outfits (torso, sleeves, legwear) and hats, drawn for a body whose middle is x = 0."""

from __future__ import annotations

from functools import cache

from data_tools.paper_theatre.art.shapes import both_sides, circle, darker, ellipse, line, path, rect

RED, BLUE, YELLOW, GREEN = "#d8362f", "#3a6fc4", "#fbcb25", "#17704a"
PURPLE, ORANGE, WHITE, NAVY = "#8746b4", "#f7921e", "#fdfbf5", "#243a70"
CREAM, PALE_BLUE, PALE_GRAY = "#f7e8c4", "#dcecf5", "#b9c0c9"

# Outfit -> (color of the trousers, color of the boots); bare legs and feet where it is not named.
LEGWEAR = {
    "red coat": ("", "#5b3a2a"),
    "blue overalls": (BLUE, ""),
    "yellow raincoat": ("", "#e9a912"),
    "green vest": ("#7a5a3c", ""),
    "orange sweater": ("#6a4f7c", ""),
    "white apron": (PALE_GRAY, ""),
    "striped shirt": (NAVY, ""),
}

_BODY = "M-13,138 Q-19,140 -20,150 L-24,192 Q0,199 24,192 L20,150 Q19,140 13,138Z"


@cache
def torso(outfit: str) -> str:
    """The garment on the body, without sleeves."""
    if outfit == "red coat":
        edge = darker(RED)
        coat = path("M-13,138 Q-19,140 -20,150 L-28,198 Q0,205 28,198 L20,150 Q19,140 13,138Z", RED, edge)
        coat += line("M0,150 L0,201", edge, 2.5) + both_sides(line("M10,183 L20,182", edge, 3.5))
        coat += "".join(circle(-6, y, 3.2, "#ffd966", "#a87a12", 1) for y in (160, 173, 186))
        return coat + path("M-17,139 L0,154 L17,139 L20,147 L6,158 L0,154 L-6,158 L-20,147Z", "#8e1d22", "#6a1318", 1.5)
    if outfit == "blue overalls":
        edge = darker(BLUE)
        shirt = path(_BODY, PALE_BLUE, darker(PALE_BLUE))
        bib = path(
            "M-13,158 L13,158 L14,172 L23,174 L25,196 L3,198 L0,194 L-3,198 L-25,196 L-23,174 L-14,172Z", BLUE, edge
        )
        straps = both_sides(line("M11,160 L15,140", BLUE, 6) + circle(11, 161, 3.2, "#ffd966"))
        return shirt + bib + straps + rect(-7, 166, 14, 12, darker(BLUE, 0.15), edge, 2, 2)
    if outfit == "yellow raincoat":
        edge = darker(YELLOW, 0.38)
        coat = path("M-13,138 Q-19,141 -20,152 L-33,198 Q0,208 33,198 L20,152 Q19,141 13,138Z", YELLOW, edge)
        coat += line("M-31,193 Q0,203 31,193", "#e39c10", 3.5) + line("M0,152 L0,197", edge, 2.5)
        coat += "".join(line(f"M-5,{y} L5,{y}", "#8a5a12", 4) for y in (164, 178))
        return coat + path("M-25,136 Q0,168 25,136 Q22,152 0,157 Q-22,152 -25,136Z", "#e9a912", edge)
    if outfit == "green vest":
        edge = darker(GREEN, 0.45)
        shirt = path(_BODY, CREAM, darker(CREAM, 0.3))
        shirt += "".join(circle(0, y, 2.2, "#a8834a") for y in (158, 170, 182))
        side = path("M12,138 Q19,140 20,150 L25,194 L9,198 L6,170 Q10,156 6,142Z", GREEN, edge)
        bow = path("M0,148 L-10,143 L-10,154Z M0,148 L10,143 L10,154Z", "#c8452e", "#7d2418", 1.5)
        return shirt + both_sides(side) + both_sides(line("M14,180 L20,179", "#f2c94c", 3)) + bow
    if outfit == "purple dress":
        edge = darker(PURPLE, 0.4)
        dress = path(
            "M-12,138 Q-17,140 -17,150 L-15,166 L-34,201 Q0,211 34,201 L15,166 L17,150 Q17,140 12,138Z", PURPLE, edge
        )
        dress += line("M-31,197 Q0,207 31,197", "#d9b3f0", 4) + line("M-15,167 Q0,171 15,167", "#f2d24c", 5)
        return dress + both_sides(ellipse(7, 144, 8, 5, "#f6ecfb", edge, 1.5))
    if outfit == "orange sweater":
        edge = darker(ORANGE, 0.4)
        knit = path(_BODY, ORANGE, edge) + path("M-22,164 L22,164 L23.5,179 L-23.5,179Z", "#fff1d0")
        knit += line("M-20,175 L-13.5,168 L-7,175 L0,168 L7,175 L13.5,168 L20,175", "#2c8c9a", 3.5)
        knit += line("M-22,191 Q0,197 22,191", darker(ORANGE, 0.2), 5)
        return knit + path("M-14,137 Q0,148 14,137 L15,145 Q0,155 -15,145Z", darker(ORANGE, 0.15), edge)
    if outfit == "white apron":
        edge = "#a8a29a"
        top = path(_BODY, PALE_GRAY, darker(PALE_GRAY))
        bib = path(
            "M-12,150 L12,150 L14,170 L23,172 Q27,186 26,197 Q0,207 -26,197 Q-27,186 -23,172 L-14,170Z", WHITE, edge
        )
        ties = both_sides(line("M12,151 L14,140", WHITE, 4.5) + line("M22,172 L31,168 M22,173 L31,179", WHITE, 4.5))
        pocket = path("M-9,180 L9,180 Q9,191 0,191 Q-9,191 -9,180Z", "#f3e9e0", edge, 2)
        heart = path("M0,166 C-9,160 -5,153 0,158 C5,153 9,160 0,166Z", "#e2574c")
        return top + ties + bib + line("M-22,172 Q0,176 22,172", edge, 2) + pocket + heart
    if outfit == "striped shirt":
        shirt = path(_BODY, WHITE, darker(NAVY, 0.2))
        shirt += "".join(
            line(f"M{-w},{y} Q0,{y + 5} {w},{y}", NAVY, 6, cap="butt") for y, w in ((153, 20), (167, 21.5), (181, 22.5))
        )
        return shirt + path("M-15,137 Q0,150 15,137 L12,147 L0,153 L-12,147Z", "#d8362f", "#8e1d22", 1.5)
    raise ValueError(f"unknown outfit {outfit!r}")


@cache
def sleeve(outfit: str, d: str, skin: str) -> str:
    """The arm along the path `d`, from shoulder to wrist, in the sleeve of an outfit."""
    color = {
        "red coat": RED, "blue overalls": PALE_BLUE, "yellow raincoat": YELLOW, "green vest": CREAM,
        "purple dress": skin, "orange sweater": ORANGE, "white apron": PALE_GRAY, "striped shirt": WHITE,
    }[outfit]  # fmt: skip
    edge = darker(color, 0.4)
    arm = line(d, edge, 15, cap="butt") + line(d, color, 11.5, cap="butt")
    if outfit == "purple dress":
        return arm + circle(16, 149, 8.5, PURPLE, darker(PURPLE, 0.4))
    if outfit == "striped shirt":
        return arm + line(d, NAVY, 11.5, "5 6", "butt")
    return arm


@cache
def hat(name: str) -> str:
    """A hat on a head whose top is at about y = 79."""
    if name == "none":
        return ""
    if name == "straw hat":
        straw, edge = "#efce78", "#9c742a"
        brim = ellipse(0, 84, 37, 8, straw, edge) + line("M-30,86 Q0,92 30,86", "#d6ab4e", 2)
        crown_ = path("M-20,83 Q-20,56 0,56 Q20,56 20,83 Q0,88 -20,83Z", straw, edge)
        return brim + crown_ + path("M-20,74 Q0,79 20,74 L20,83 Q0,88 -20,83Z", "#d8362f")
    if name == "top hat":
        black, edge = "#2d2a38", "#15131c"
        tube = path("M-18,82 L-20,43 Q0,37 20,43 L18,82Z", black, edge)
        band = path("M-18.5,70 Q0,75 18.5,70 L18,80 Q0,85 -18,80Z", "#8e93a8")
        return (
            tube
            + ellipse(0, 83, 29, 6, black, edge)
            + path("M-18,80 Q0,85 18,80 L18.5,70 Q0,75 -18.5,70Z", "#8e93a8")
            + band
        )
    if name == "woolly hat":
        teal, edge = "#1fa39a", "#0f5f5d"
        dome = path("M-29,88 Q-30,52 0,52 Q30,52 29,88Z", teal, edge)
        ribs = line("M-14,60 L-17,78 M0,57 L0,78 M14,60 L17,78", "#5fd0c6", 3)
        cuff = path("M-31,80 Q0,70 31,80 L31,90 Q0,81 -31,90Z", "#e8f4ee", edge)
        return dome + ribs + cuff + circle(0, 48, 10, "#f5f7f2", edge)
    if name == "party hat":
        pink, edge = "#f2559b", "#98245a"
        cone = path("M-20,84 L0,36 L20,84 Q0,91 -20,84Z", pink, edge)
        dots = circle(-7, 76, 3.6, "#ffe45c") + circle(8, 74, 3.6, "#7fe0f5") + circle(0, 59, 3.4, "#ffffff")
        return cone + dots + circle(0, 36, 6.5, "#ffe45c", "#b98a12")
    if name == "crown":
        gold, edge = "#ffc93a", "#a8741a"
        top = path("M-24,86 L-27,55 L-13,68 L0,49 L13,68 L27,55 L24,86 Q0,92 -24,86Z", gold, edge, 2.5)
        gems = circle(0, 78, 4.2, "#d8362f") + both_sides(circle(14, 77, 3, "#3a8fd8"))
        return (
            top
            + gems
            + circle(0, 49, 3.6, "#fff0a8", edge, 1.5)
            + both_sides(circle(27, 55, 3.2, "#fff0a8", edge, 1.5))
        )
    raise ValueError(f"unknown hat {name!r}")
