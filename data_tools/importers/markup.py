"""Markup from outside: XML read leniently and without entities of its own, CSS backgrounds, SVG as pixels."""

from __future__ import annotations

import base64
import codecs
import io
import re
from collections.abc import Callable
from html.entities import html5
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from data_tools.importers.run_import import marked_encoding

SHAPES = {"path", "rect", "circle", "ellipse", "polygon", "polyline", "line", "image", "use"}  # of SVG
MAX_ELEMENTS = 20_000  # of an SVG page
MAX_SIDE = 1_024  # px of one that is rendered
_PREFIX = re.compile(r"(</?|\s)(?!xmlns)[\w-]{1,40}:(?=[\w-]+[\s=/>])")
_XML = {"amp", "lt", "gt", "quot", "apos"}
_HREFS = ("href", "{http://www.w3.org/1999/xlink}href")
_RULE = re.compile(r"([^{}]{1,500})\{([^{}]*)\}")
_BACKGROUND = re.compile(r"background(?:-image)?\s*:[^;{}]*?url\(\s*['\"]?([^'\")]+)['\"]?\s*\)", re.I)
_LAST = re.compile(r"(?P<tag>[a-z][\w-]*)?(?P<marks>(?:[.#][\w-]+)*)(?:::?[\w-]+)?$", re.I)


def parse_xml(data: bytes, name: str) -> ElementTree.Element:
    """A small XML document without entities of its own; names of elements lose their namespaces.

    What many a tool writes wrongly is put right: entities of HTML, an `&` that stands alone.

    Raises:
        ValueError: It is no XML, or declares entities, by which a few bytes can unfold into gigabytes.
    """
    text = _decoded(data, name)
    if "<!ENTITY" in text:
        raise ValueError(f"{name} declares entities: it is not read")
    text = re.sub(r"<\?xml[^>]*\?>|<!DOCTYPE[^>\[]*>", "", text)
    text = re.sub(r"&(#\w+;|\w+;)?", _entity, text)
    try:
        try:
            root = ElementTree.fromstring(text.strip())
        except ElementTree.ParseError:  # perhaps of a prefix that nothing declares
            root = ElementTree.fromstring(_PREFIX.sub(r"\1", text).strip())
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise ValueError(f"{name} is not XML ({error})") from None
    for item in root.iter():
        if isinstance(item.tag, str):
            item.tag = item.tag.rpartition("}")[2]
    return root


def backgrounds_of(css: str) -> dict[str, str]:
    """The addresses of background pictures in a style sheet, by the tag, `.class` or `#id` that they are for."""
    found: dict[str, str] = {}
    for selectors, body in _RULE.findall(re.sub(r"/\*.*?\*/", "", css, flags=re.S)):
        address = background_in(body)
        for selector in selectors.split(",") if address else ():
            last = _LAST.search(selector.strip())
            marks = re.findall(r"[.#][\w-]+", last["marks"]) if last else []
            for mark in marks[-1:] or ([last["tag"].lower()] if last and last["tag"] else []):
                found[mark] = address
    return found


def background_in(style: str) -> str:
    """The address of the background picture in the declarations of a style; empty if there is none."""
    found = _BACKGROUND.search(style)
    return found[1].strip() if found else ""


def data_url(address: str) -> bytes:
    """The bytes that a `data:` address holds.

    Raises:
        ValueError: It does not hold base64.
    """
    head, _, body = address.partition(",")
    if not head.lower().rstrip().endswith(";base64"):
        raise ValueError("a data: address of another kind than base64")
    try:
        return base64.b64decode("".join(body.split()) + "==", validate=False)
    except ValueError as error:
        raise ValueError(f"a damaged data: address ({error})") from None


def render_svg(data: bytes, name: str, fetch: Callable[[str], bytes | None]) -> tuple[Image.Image | None, str]:
    """An SVG page without its text as pixels, and that text.

    Args:
        data: The document.
        name: What to call it in errors.
        fetch: Bytes of the picture at an address in it; None for one outside the book, which is left out.

    Returns:
        The picture, None where nothing but text is drawn; and the text.

    Raises:
        ValueError: It is no SVG, too large or too deeply nested, or cannot be rendered.
    """
    root = parse_xml(data, name)
    elements = list(root.iter())
    if len(elements) > MAX_ELEMENTS:
        raise ValueError(f"{name} has more than {MAX_ELEMENTS} elements")
    nested = {f"#{one.get('id')}" for one in elements if any(inner.tag == "use" for inner in one.iter())}
    text = " ".join("".join(one.itertext()) for one in elements if one.tag == "text")
    drawn = 0
    for parent in elements:
        for child in list(parent):
            address = next((child.get(href) for href in _HREFS if child.get(href)), None)
            if child.tag == "use" and address in nested:
                raise ValueError(f"{name} nests <use> in <use>, by which a few bytes can unfold into millions")
            if child.tag in ("text", "script", "foreignObject") or (child.tag == "image" and not _embed(child, fetch)):
                parent.remove(child)
            elif child.tag in SHAPES:
                drawn += 1
    if not drawn:
        return None, text
    for one in elements:  # they lost their namespace when they were parsed
        one.tag = f"{{http://www.w3.org/2000/svg}}{one.tag}"
    size = _size(root, name)
    try:
        import resvg_py

        written = ElementTree.tostring(root, "unicode")
        png = resvg_py.svg_to_bytes(svg_string=written, skip_system_fonts=True, **size)
        return Image.open(io.BytesIO(bytes(png)), formats=["PNG"]), text
    except ImportError:
        raise ValueError(f"{name} is an SVG page, and to render it takes the package resvg_py") from None
    except (ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"{name} cannot be rendered ({error})") from None


def _size(root: ElementTree.Element, name: str) -> dict[str, Any]:
    """The longer side of the picture; the document then asks for no size itself.

    A renderer that meets with too large a one ends the whole process.
    """
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", root.get("viewBox") or "")[2:4]]
    if len(numbers) != 2:
        numbers = [float((re.match(r"[\d.]+", root.get(key) or "") or ["0"])[0]) for key in ("width", "height")]
    width, height = numbers
    if not (0 < width < 1e6 and 0 < height < 1e6 and 1 / 20 < width / height < 20):
        raise ValueError(f"{name} has no size that a page can have: {width:g} x {height:g}")
    for key in ("width", "height", "preserveAspectRatio"):
        root.attrib.pop(key, None)
    root.set("viewBox", root.get("viewBox") or f"0 0 {width} {height}")
    return {"width" if width >= height else "height": MAX_SIDE}


def _embed(image: ElementTree.Element, fetch: Callable[[str], bytes | None]) -> bool:
    """Puts the picture that an `<image>` names into it, so that the renderer opens no file."""
    address = next((image.get(href) for href in _HREFS if image.get(href)), "") or ""
    for href in _HREFS:
        image.attrib.pop(href, None)
    data = fetch(address)
    if data is None:
        return False
    kind = "jpeg" if data[:2] == b"\xff\xd8" else "gif" if data[:3] == b"GIF" else "png"
    image.set(_HREFS[1], f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
    return True


def _decoded(data: bytes, name: str) -> str:
    if data.startswith(codecs.BOM_UTF8):
        return data.decode("utf-8-sig", "replace")
    if encoding := marked_encoding(data):
        return data.decode(encoding, "replace")
    if data[:1] == b"<" and data[1:2] == b"\0":
        return data.decode("utf-16-le", "replace")
    if data[:2] == b"\0<":
        return data.decode("utf-16-be", "replace")
    said = re.match(rb"\s*<\?xml[^>]*encoding=[\"']([\w.-]{1,40})[\"']", data)
    try:
        return data.decode(said[1].decode() if said else "utf-8")
    except (UnicodeDecodeError, LookupError):
        pass
    if b"\0" in data:
        raise ValueError(f"{name} is no text")
    return data.decode("cp1252", "replace")


def _entity(found: re.Match[str]) -> str:
    said = found[1] or ""
    if said.startswith("#") or said.removesuffix(";") in _XML:
        return found[0] if re.fullmatch(r"#(\d{1,7}|[xX][0-9a-fA-F]{1,6});|\w+;", said) else f"&amp;{said}"
    return html5.get(said, f"&amp;{said}").replace("&", "&amp;", 1) if said in html5 else f"&amp;{said}"
