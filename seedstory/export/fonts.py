"""Fonts of the book: open ones from installed packages, cut down to the characters that a book uses.

The first font that has a character shows it. What no font has is counted by script, reported in one line, and shown
as the replacement character.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seedstory.export.book import require

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """A font file of an installed package; `weights` are cut from a variable font."""

    package: str
    file: str
    family: str
    weights: tuple[int, ...] = (400,)


_NOTO = (
    "Armenian Bengali Devanagari Ethiopic Georgian Gujarati Gurmukhi Kannada Khmer Lao Malayalam Myanmar Oriya "
    "Sinhala Symbols Tamil Telugu Thai"
).split()
_LATIN = _Source("fontpkg_noto_serif", "files/NotoSerif[wdth,wght].ttf", "Noto Serif", (400, 600))
_RIGHT_TO_LEFT = (
    _Source("pylopdf_fonts_ar", "NotoNaskhArabic-Variable.ttf", "Noto Naskh Arabic"),
    _Source("pylopdf_fonts_he", "NotoSerifHebrew-Variable.ttf", "Noto Serif Hebrew"),
)
_EAST_ASIAN = {
    "zh": _Source("pylopdf_fonts_zh_cn", "NotoSerifSC-Regular.otf", "Noto Serif SC"),
    "ja": _Source("pylopdf_fonts_jp", "NotoSerifJP-Regular.otf", "Noto Serif JP"),
    "ko": _Source("pylopdf_fonts_ko", "NotoSerifKR-Regular.otf", "Noto Serif KR"),
}
_OTHERS = tuple(_Source("manimgx_fonts", f"NotoSans{script}[wght].ttf", f"Noto Sans {script}") for script in _NOTO)
_EMOJI = _Source("manimgx_fonts", "NotoEmoji[wght].ttf", "Noto Emoji")
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class FontFile:
    """A font of the book: static, subset, licensed under the SIL Open Font License."""

    family: str
    weight: int
    path: Path


@dataclass(frozen=True)
class BookFonts:
    """The fonts that a book needs, in order of preference.

    Args:
        files: The fonts, written into the folder that `make_fonts` was given.
        missing: How many different characters of which script no font has.
        unknown: These characters.
        widths: Advance of each character in em.
    """

    files: list[FontFile]
    missing: dict[str, int]
    unknown: frozenset[str]
    widths: dict[str, float]

    @property
    def families(self) -> list[str]:
        return list(dict.fromkeys(file.family for file in self.files))

    def show(self, text: str) -> str:
        """A text with what no font has replaced."""
        return "".join(REPLACEMENT if char in self.unknown else char for char in text) if self.unknown else text

    def width(self, text: str) -> float:
        """The width of a text in em, kerning and ligatures left out."""
        return sum(self.widths.get(char, 0.6) for char in text)


def make_fonts(text: str, language: str, folder: Path) -> BookFonts:
    """Writes the fonts that a text needs into a folder.

    Args:
        text: All text of the book.
        language: BCP 47 tag; it decides between Chinese, Japanese and Korean forms of a sign.
        folder: Where the files go.

    Raises:
        RequestError: fonttools or the packages of fonts are not installed.
    """
    ttlib = require("fontTools.ttLib", "a book with its own fonts")
    require(_LATIN.package, "a book with its own fonts")
    left = {char for char in text if not _IGNORABLE.match(char) and not char.isspace()} | {" "}
    ignorable = {char for char in text if _IGNORABLE.match(char)} | set("\u00a0\u200b\u200c\u200d\ufe0f")
    files: list[FontFile] = []
    widths: dict[str, float] = {}
    for source in _order(text, language):
        path = _path(source)
        if path is None or not left:
            continue
        with ttlib.TTFont(path, lazy=True) as font:
            cmap, metrics, em = font.getBestCmap(), font["hmtx"].metrics, font["head"].unitsPerEm
            found = {char for char in left if ord(char) in cmap}
            if not found:
                continue
            widths |= {char: metrics[cmap[ord(char)]][0] / em for char in found}
        left -= found
        for weight in source.weights:
            target = folder / f"{len(files):02d}-{source.family.replace(' ', '')}-{weight}{path.suffix}"
            _subset(path, target, found | ignorable, source.family, weight)
            files.append(FontFile(source.family, weight, target))
    widths |= dict.fromkeys(ignorable, 0.0)
    missing = Counter(_script(char) for char in left)
    if missing:
        shown = ", ".join(f"{script} ({count} characters)" for script, count in sorted(missing.items()))
        logger.warning("no installed font of the book has %s: shown as %s", shown, REPLACEMENT)
    return BookFonts(files, dict(missing), frozenset(left), widths)


def _order(text: str, language: str) -> list[_Source]:
    """All fonts, the most fitting first."""
    first = language.split("-")[0].lower()
    if first not in _EAST_ASIAN:
        first = "ja" if re.search("[\u3040-\u30ff]", text) else "ko" if re.search("[\uac00-\ud7a3]", text) else "zh"
    asian = [_EAST_ASIAN[first], *(font for key, font in _EAST_ASIAN.items() if key != first)]
    return [_LATIN, *_RIGHT_TO_LEFT, *asian, *_OTHERS, _EMOJI]


def _path(source: _Source) -> Path | None:
    spec = find_spec(source.package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / source.file
    return path if path.is_file() else None


def _subset(path: Path, target: Path, characters: set[str], family: str, weight: int) -> None:
    """Writes a static font of these characters; the same bytes each time."""
    subset = require("fontTools.subset", "a book with its own fonts")
    options = subset.Options(layout_features=["*"], name_IDs=[0, 1, 2, 3, 4, 5, 6, 13, 14], notdef_outline=True)
    options.drop_tables += ["DSIG", "STAT", "meta"]
    font = subset.load_font(str(path), options, dontLoadGlyphNames=False)
    font.recalcTimestamp = False
    worker = subset.Subsetter(options)
    worker.populate(unicodes=[ord(char) for char in characters])
    _quietly(worker.subset, font)
    if "fvar" in font:
        instancer = require("fontTools.varLib.instancer", "a book with its own fonts")
        axes = {axis.axisTag: axis.defaultValue for axis in font["fvar"].axes} | {"wght": weight}
        _quietly(instancer.instantiateVariableFont, font, axes, inplace=True)
    font["OS/2"].usWeightClass = weight
    style = "Regular" if weight == 400 else "SemiBold"
    names = {
        1: family,
        2: style,
        3: f"{family} {style}",
        4: f"{family} {style}",
        6: f"{family}-{style}".replace(" ", ""),
    }
    for number in (1, 2, 3, 4, 6, 16, 17, 25):
        font["name"].removeNames(nameID=number)
    for number, value in names.items():
        font["name"].setName(value, number, 3, 1, 0x409)
    font.save(target)


def _quietly(call: Any, *arguments: Any, **options: Any) -> None:
    log = logging.getLogger("fontTools")
    level, log.level = log.level, logging.ERROR
    try:
        call(*arguments, **options)
    finally:
        log.level = level


def _script(char: str) -> str:
    """The script of a character by its Unicode name, or what else it is."""
    if unicodedata.category(char).startswith("S"):
        return "symbols"
    name = unicodedata.name(char, "")
    known = re.match(r"(.+?) (?:LETTER|SIGN|VOWEL|SYLLABLE|DIGIT|IDEOGRAPH|HIEROGLYPH|MARK|CHARACTER)\b", name)
    return known[1].split(" ")[0].capitalize() if known else (name.split(" ")[0].capitalize() or "unnamed")
