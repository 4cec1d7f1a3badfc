"""Input that means harm, for all that reads any: pictures, words, names, JSON, requests as bytes."""

import io
import json
import struct
import zipfile
import zlib
from functools import cache

from PIL import Image

SCRIPT = "<script>window.__ran = 1</script>"
EVIL = "evil.example"  # a host that nothing may ask

# Words that run, load or break out where they are taken for anything but words.
WORDS = (
    SCRIPT,
    "\"'><img src=x onerror=window.__ran=1>",
    "</title></style></textarea></noscript></p>" + SCRIPT,
    f"<svg xmlns='http://www.w3.org/2000/svg' onload='window.__ran=1'><image href='http://{EVIL}/s.png'/></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--><img src onerror=window.__ran=1>'>",
    f"<link rel=stylesheet href=//{EVIL}/x.css><base href=//{EVIL}/><meta http-equiv=refresh content='0;//{EVIL}'>",
    f"<iframe srcdoc='{SCRIPT}' src=//{EVIL}></iframe><object data=//{EVIL}></object><embed src=//{EVIL}>",
    f"[a](javascript:window.__ran=1) ![b](http://{EVIL}/b.png) <javascript:window.__ran=1> <http://{EVIL}>",
    "]]>"
    + SCRIPT
    + "<!-- --><![CDATA["
    + SCRIPT
    + "]]><?xml-stylesheet href='x.css'?><!DOCTYPE x [<!ENTITY y 'z'>]>&y;",
    "&lt;script&gt;window.__ran = 1&lt;/script&gt; &#60;script&#62; \\u003cscript\\u003e %3Cscript%3E",
    "\uff1cscript\uff1ewindow.__ran=1\uff1c/script\uff1e \u2028window.__ran=1\u2029//",
    "`); window.__ran = 1; (` ${window.__ran = 1} \\'; window.__ran = 1;// {{constructor.constructor('__ran=1')()}}",
    "<input autofocus onfocus=window.__ran=1><details open ontoggle=window.__ran=1><video src=x onerror=__ran=1>",
    f"<style>@import '//{EVIL}/x.css'; * {{ background: url(//{EVIL}/y.png) }}</style><p style='cursor:url(//{EVIL})'>",
)

# Names that lead somewhere else where they are taken for paths.
NAMES = (
    *(
        "../../escaped",
        "..\\..\\escaped",
        "/escaped",
        "C:\\escaped",
        "\\\\host\\share",
        "~root",
        ".",
        "..",
        "a/../../b",
    ),
    *("CON", "nul.txt", "COM1", "aux", "lpt9.png", "-rf", "$(touch escaped)", "`touch escaped`", "; touch escaped"),
    *("a\x00b", "x" * 5000, "x" * 255, "\u2028\u2029\x85", "\u202egnp.exe", "\u200b\u2060\ufeff", "e\u0301\u0301" * 60),
    *(
        "%2e%2e%2fescaped",
        "..%c0%afescaped",
        "\u2024\u2024\u2215escaped",
        "story.json",
        ".jobs",
        ".writer.lock",
        "a\r\nb: c",
    ),
)


def png(size: tuple[int, int] = (40, 30), mode: str = "RGB", **options) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size).save(data, "PNG", **options)
    return data.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, data: bytes, picture: bytes | None = None) -> bytes:
    """A PNG with one more chunk behind its header."""
    picture = picture or png()
    return picture[:33] + chunk(kind, data) + picture[33:]


@cache
def zeros(count: int) -> bytes:
    """Many zeros in few bytes."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(2**20)) for _ in range(count // 2**20)]
    return b"".join([*parts, packer.flush()])


def header_of(kind: str, width: int, height: int) -> bytes:
    """The beginning of a file that announces any size."""
    if kind == "png":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return png()[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    if kind == "jpeg":
        frame = struct.pack(">HBHHB", 17, 8, min(height, 65535), min(width, 65535), 3) + bytes.fromhex(
            "012200021101031101"
        )
        return b"\xff\xd8\xff\xc0" + frame + b"\xff\xd9"
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HHBBB", min(width, 65535), min(height, 65535), 0x80, 0, 0) + bytes(6) + b";"
    if kind == "bmp":
        return b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    if kind == "webp":
        bits = (min(width, 16384) - 1) | (min(height, 16384) - 1) << 14
        data = b"\x2f" + struct.pack("<I", bits) + bytes(40)
        return b"RIFF" + struct.pack("<I", len(data) + 13) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data + b"\0"
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries += [(277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 8)]
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", 8)  # the next one is itself


def frames(kind: str, count: int) -> bytes:
    """A film of many frames."""
    data = io.BytesIO()
    pictures = [Image.new("RGB", (16, 16), (number % 256, number // 256, 9)) for number in range(count)]
    pictures[0].save(data, kind, save_all=True, append_images=pictures[1:])
    return data.getvalue()


def archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("../../escaped", "x")
    return data.getvalue()


def bad_pictures() -> dict[str, bytes]:
    """Pictures that are refused."""
    huge = {f"huge {kind}": header_of(kind, 60_000, 60_000) for kind in ("png", "jpeg", "gif", "bmp", "webp", "tiff")}
    wide = {f"wide {kind}": header_of(kind, 2**31 - 1, 9) for kind in ("png", "bmp", "tiff")}
    whole = png((300, 300))
    return (
        huge
        | wide
        | {
            "nothing": b"",
            "no height": header_of("png", 40, 0),
            "text bomb": with_chunk(b"zTXt", b"a\0\0" + zeros(2**26)),
            "profile bomb": with_chunk(b"iCCP", b"a\0\0" + zeros(2**26)),
            "truncated": whole[: len(whole) // 2],
            "header alone": whole[:40],
            "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='window.__ran=1' width='40' height='40'/>",
            "html": f"<!doctype html>{SCRIPT}".encode(),
            "pdf": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj",
            "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n(/etc/passwd)(r)file\n",
            "zip": archive(),
            "gz": b"\x1f\x8b\x08" + bytes(20),
            "list": b"/etc/passwd\n",
        }
    )


def odd_pictures() -> dict[str, bytes]:
    """Pictures that are taken: of what else they are nothing stays."""
    gif = frames("GIF", 1)
    return {
        "gif that is a script": gif + b"/*" + SCRIPT.encode() + b"*/=1;window.__ran=1;",
        "png that is an archive": png() + archive(),
        "png that is html": png() + f"<html>{SCRIPT}</html>".encode(),
        "png with words": with_chunk(b"tEXt", b"Comment\0" + SCRIPT.encode()),
        "png with a thumbnail": with_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0" + SCRIPT.encode()),
        "apng of many frames": frames("PNG", 200),
        "gif of many frames": frames("GIF", 1500),
        "more pixels than announced": png()[:33] + chunk(b"IDAT", zeros(2**26)) + chunk(b"IEND", b""),
    }


def bad_json() -> dict[str, bytes]:
    """What is no JSON, or more of it than anybody needs."""
    return {
        "nothing": b"",
        "brackets": b"[" * 100_000,
        "braces": b'{"a":' * 100_000,
        "deep": b'{"caption":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        "nan": b'{"seed": NaN}',
        "infinity": b'{"settings": {"temperature": Infinity}}',
        "large float": b'{"settings": {"temperature": 1e999}}',
        "long number": b'{"seed": ' + b"9" * 100_000 + b"}",
        "large number": b'{"seed": ' + b"9" * 4000 + b"}",
        "float": b'{"seed": 1e3}',
        "true": b'{"seed": true}',
        "surrogate": b'{"caption": "\\ud800", "text": "\\ud800", "title": "\\ud800"}',
        "surrogate key": b'{"\\ud800": 1}',
        "long key": json.dumps({"x" * 50_000: 1}).encode(),
        "many keys": json.dumps({f"k{number}": 1 for number in range(20_000)}).encode(),
        "other bytes": b'{"caption": "\xff\xfe"}',
        "many entries": json.dumps({"captions": [1] * 300_000}).encode(),
        "many names": json.dumps({"cast": {f"n{number}": 1 for number in range(30_000)}}).encode(),
        "text": b"caption=a",
        "settings": b'{"settings": {"../../x": 1, "out": "/etc", "caption": 3}}',
        "list": b"[1, 2, 3]",
        "null": b"null",
    }


def raw_requests(host: str) -> dict[str, bytes]:
    """Requests that no client sends."""
    post = f"POST /api/stories HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n".encode()
    get = f"GET /api/stories HTTP/1.1\r\nHost: {host}\r\n".encode()
    chunked = post + b"Transfer-Encoding: chunked\r\n"
    lengths = (b"-1", b"+5", b"0x10", b"1e3", b"5 5", b"5,6", b"\xb2", b"9" * 400, b"99999999999")
    return {
        **{f"length {value[:12]!r}": post + b"Content-Length: " + value + b"\r\n\r\n{}   " for value in lengths},
        "two lengths": post + b"Content-Length: 2\r\nContent-Length: 50\r\n\r\n{}",
        "length and chunks": chunked + b"Content-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "chunk of no size": chunked + b"\r\nZZ\r\n{}\r\n0\r\n\r\n",
        "chunk of a negative size": chunked + b"\r\n-2\r\n{}\r\n0\r\n\r\n",
        "chunk of a huge size": chunked + b"\r\nFFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n",
        "chunk that is longer": chunked + b"\r\n1\r\n{}{}{}\r\n0\r\n\r\n",
        "chunks that end": chunked + b"\r\n2\r\n{}\r\n",
        "unknown encoding": post + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "packed body": post + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
        "long header": get + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n",
        "many headers": get + b"X-Many: a\r\n" * 20_000 + b"\r\n",
        "long path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n",
        "null in a header": get + b"X-Null: a\0b\r\n\r\n",
        "bytes in a header": get + b"Accept: \xff\xfe\xfd\r\nAuthorization: Bearer \xff\r\nCookie: \xff=\xff\r\n\r\n",
        "line break in a header": get + b"X-A: b\r\n c\r\n\r\n",
        "bytes in the path": b"GET /api/stories/\xff\xfe HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n",
        "no host": b"GET /api/stories HTTP/1.1\r\n\r\n",
        "two hosts": get + b"Host: evil.example\r\n\r\n",
        "user in the host": f"GET /api/stories HTTP/1.1\r\nHost: {host}@evil.example\r\n\r\n".encode(),
        "address as the path": b"GET http://evil.example/api/stories HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "proxy": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        "unknown method": f"FOO /api/stories HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(),
        "http 0.9": b"GET /\r\n\r\n",
        "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        "websocket": get + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        "two requests in one": post + b"Content-Length: 0\r\n\r\n" + get + b"Content-Length: 0\r\n\r\n",
        "two content types": post + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
        "content type of bytes": post.replace(b"application/json", b"\xff\xfe; charset=\x01")
        + b"Content-Length: 2\r\n\r\n{}",
        "form without an edge": post.replace(b"application/json", b"multipart/form-data")
        + b"Content-Length: 2\r\n\r\n{}",
        "form with a long edge": post.replace(b"application/json", b"multipart/form-data; boundary=" + b"a" * 5000)
        + b"Content-Length: 5004\r\n\r\n--"
        + b"a" * 5000
        + b"\r\n",
    }


def bad_forms() -> dict[str, bytes]:
    """Bodies of multipart/form-data with the boundary `edge`."""
    part = b'--edge\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    image = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\n\r\n' + b"\x89PNG" + b"\r\n"
    return {
        "no end": part % (b"story", b"{}"),
        "no name": b"--edge\r\nContent-Disposition: form-data\r\n\r\nx\r\n--edge--\r\n",
        "no headers": b"--edge\r\n\r\nx\r\n--edge--\r\n",
        "many fields": part % (b"story", b"{}") * 2000 + b"--edge--\r\n",
        "many files": image % b"a.png" * 50 + b"--edge--\r\n",
        "image as text": part % (b"image", b"data:image/png;base64,") + b"--edge--\r\n",
        "story as a file": image.replace(b"image", b"story") % b"a.json" + b"--edge--\r\n",
        "path as a name": image % b"../../../../tmp/escaped" + b"--edge--\r\n",
        "null as a name": image % b"a\0.png" + b"--edge--\r\n",
        "long header": b"--edge\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\nx\r\n--edge--\r\n",
        "deep story": part % (b"story", b"[" * 50_000) + b"--edge--\r\n",
        "bytes": part % (b"story", b"\xff\xfe") + b"--edge--\r\n",
    }
