"""Small real sources for the importers' tests: pictures, books and films."""

import ctypes
import io
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image, ImageDraw

from data_tools.drops import Drop
from data_tools.importers.run_import import Imported, Target
from seedstory.image import load_image

STORYBOOKS = Path(__file__).resolve().parents[4] / "shared" / "data" / "storybooks"


def art(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture full of shapes, another one for every seed."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(int(v) for v in rng.integers(60, 200, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
        w, h = rng.integers(5, max(6, size[0] // 3)), rng.integers(5, max(6, size[1] // 3))
        draw.ellipse((x, y, x + w, y + h), fill=tuple(int(v) for v in rng.integers(20, 230, 3)))
    return image


def file_of(image: Image.Image, format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def stored(target: Target, path: str) -> bytes:
    return (target.out / path).read_bytes()


def reasons(drops: list[Drop]) -> list[str]:
    return [drop.reason for drop in drops]


def check_stored(imported: Imported, target: Target) -> None:
    """Every picture that a record names is there and is a picture, and nothing else was written."""
    named = {name for record in imported.records for name in record.images}
    for name in named:
        load_image(target.out / name)
    assert {p.relative_to(target.out).as_posix() for p in target.out.rglob("*") if p.is_file()} == named


CONTAINER = '<?xml version="1.0"?><container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'


def write_epub(path: Path, documents: dict[str, str], members: dict[str, bytes], metadata: str = "") -> Path:
    """An EPUB whose spine is `documents` (name: body)."""
    items = "".join(
        f'<item id="d{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(documents)
    )
    spine = "".join(f'<itemref idref="d{n}"/>' for n in range(len(documents)))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'xmlns:opf="http://www.idpf.org/2007/opf"><metadata>{metadata}</metadata>'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OEBPS/book.opf", package)
        for name, body in documents.items():
            archive.writestr(f"OEBPS/{name}", body if "<html" in body else f"<html><body>{body}</body></html>")
        for name, data in members.items():
            archive.writestr(f"OEBPS/{name}", data)
    return path


def write_pdf(path: Path, pages: list[dict], size: tuple[int, int] = (400, 300)) -> Path:
    """A PDF; a page is {"text": [(x, y, words)], "jpeg": (x, y, width, height, image), "box": (x, y, w, h)}."""
    document = pypdfium2.PdfDocument.new()
    for one in pages:
        page = document.new_page(*size)
        if "box" in one:
            shape = pdfium.FPDFPageObj_CreateNewRect(*map(float, one["box"]))
            pdfium.FPDFPageObj_SetFillColor(shape, 180, 40, 40, 255)
            pdfium.FPDFPath_SetDrawMode(shape, pdfium.FPDF_FILLMODE_ALTERNATE, False)
            pdfium.FPDFPage_InsertObject(page, shape)
        if "jpeg" in one:
            x, y, width, height, image = one["jpeg"]
            embedded = pypdfium2.PdfImage.new(document)
            embedded.load_jpeg(io.BytesIO(file_of(image)), inline=True)
            embedded.set_matrix(pypdfium2.PdfMatrix().scale(width, height).translate(x, y))
            page.insert_obj(embedded)
        for x, y, words in one.get("text", ()):
            text = pdfium.FPDFPageObj_NewTextObj(document, b"Helvetica", 16.0)
            encoded = (words + "\0").encode("utf-16-le")
            pdfium.FPDFText_SetText(text, ctypes.cast(ctypes.create_string_buffer(encoded), pdfium.FPDF_WIDESTRING))
            pdfium.FPDFPageObj_Transform(text, 1, 0, 0, 1, x, y)
            pdfium.FPDFPage_InsertObject(page, text)
        page.gen_content()
    document.save(path)
    document.close()
    return path


def write_raw_pdf(
    path: Path,
    content: str,
    *,
    image: Image.Image,
    keys: str = "/ColorSpace /DeviceRGB",
    page: str = "/MediaBox [0 0 400 300]",
    resources: str = "",
    others: tuple[tuple[str, bytes | None], ...] = (),
) -> Path:
    """A PDF of one page that draws a JPEG `/Im`; object numbers of `others` (dictionary, stream) begin with 6."""
    size = f"/Type /XObject /Subtype /Image /Width {image.width} /Height {image.height} /BitsPerComponent 8"
    objects = [
        ("/Type /Catalog /Pages 2 0 R", None),
        ("/Type /Pages /Kids [3 0 R] /Count 1", None),
        (
            f"/Type /Page /Parent 2 0 R {page} /Contents 4 0 R /Resources << /XObject << /Im 5 0 R >> {resources} >>",
            None,
        ),
        ("", content.encode()),
        (f"{size} /Filter /DCTDecode {keys}", file_of(image)),
        *others,
    ]
    data, places = b"%PDF-1.7\n", []
    for number, (said, stream) in enumerate(objects, start=1):
        places.append(len(data))
        body = b"" if stream is None else b"\nstream\n" + stream + b"\nendstream"
        length = "" if stream is None else f" /Length {len(stream)}"
        data += f"{number} 0 obj\n<< {said}{length} >>".encode() + body + b"\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF"
    return write(path, data + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode())


def write_film(path: Path, frames: list[Image.Image], rate: int = 10, codec: str = "mpeg4", begin: float = 0.0) -> Path:
    """Writes a film; one that begins later has silence before its first picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size = 12
        if begin:
            sound = container.add_stream("aac", rate=8000, layout="mono")
            for place in range(0, int(8000 * (begin + len(frames) / rate)), 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 8000, place
                container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = round(begin * rate) + number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def moving_shot(seed: int, count: int, size: tuple[int, int] = (192, 108)) -> list[Image.Image]:
    """A pan over a picture."""
    wide = art(seed, (size[0] + 40, size[1]))
    return [wide.crop((n % 40, 0, n % 40 + size[0], size[1])) for n in range(count)]
