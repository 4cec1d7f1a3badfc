"""A server on this machine that speaks the OpenAI protocol, well and badly, and remembers what it was asked."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


class TalkingServer:
    """Answers every question sensibly, after it has gone through `faults`, one for each request.

    A fault is an HTTP code with a message, a body to send with code 200, or the name of a bad habit: "disconnect",
    "slow", "trickle", "hang" (until `go_on` is set).
    """

    def __init__(self) -> None:
        self.faults: list[object] = []
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.go_on = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @contextmanager
    def running(self) -> Iterator["TalkingServer"]:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self.go_on.set()
            self._server.shutdown()
            self._server.server_close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.requests.append(body)
                    server.headers.append(dict(self.headers))
                    fault = server.faults.pop(0) if server.faults else None
                try:
                    self._fail(fault, body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client has gone, as some tests want it to

            def _fail(self, fault: object, body: dict) -> None:
                if fault == "disconnect":
                    self.connection.close()
                elif fault == "hang":
                    server.go_on.wait(60)
                elif fault == "slow":
                    time.sleep(1.5)
                elif fault == "trickle":
                    self.send_response(200)
                    self.end_headers()
                    for _ in range(100):
                        self.wfile.write(b" ")
                        time.sleep(0.05)
                elif isinstance(fault, tuple):
                    code, text, *headers = fault
                    self._send(code, text.encode(), dict(headers))
                elif isinstance(fault, bytes):
                    self._send(200, fault)
                else:
                    self._send(200, completion(sensible(body)))

            def _send(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(code)
                for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

        return Handler


def completion(text: object, **choice: object) -> bytes:
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}]
    return json.dumps({"choices": choices, "usage": {"prompt_tokens": 100, "completion_tokens": 10}}).encode()


def sensible(body: dict) -> str:
    """A good answer: the color of a picture, or the description told as a story."""
    content = body["messages"][-1]["content"]
    if isinstance(content, list):
        data = content[0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
        red, _, blue = Image.open(io.BytesIO(base64.b64decode(data))).resize((1, 1)).getpixel((0, 0))
        seen = content[1]["text"].partition("The page says: “")[2].partition("”")[0]
        return json.dumps({"description": f"All in {'red' if red > blue else 'blue'}: {seen}"})
    turns = [turn["content"].partition("The picture shows: ")[2] for turn in body["messages"]]
    asked = [shown for shown in turns if shown][-1]
    return json.dumps({"text": f"On day {len(body['messages'])} it so happened: {asked}"})
