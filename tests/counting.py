"""A service that creates sites, as a customer of Tenuto runs one: it counts what it has when it is asked to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

import jwt

PREFIX: Final = "/v1/sites"
CHUNK: Final = b"x" * 65_536


class Sites:
    """What the service has, by organization; ``answer`` takes the place of its usual answer.

    ``asked`` are the paths and the organizations that it was asked for, in their order.
    """

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.asked: list[tuple[str, str]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.closing = threading.Event()
        self._lock = threading.Lock()
        sites = self

        class Visit(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                sites.serve(self)

            def log_message(  # type: ignore[explicit-override]  # 3.11 has no override
                self, format: str, *args: object
            ) -> None:
                """Nothing is written down."""

        class Listener(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True
            block_on_close = False

            def handle_error(  # type: ignore[explicit-override]  # 3.11 has no override
                self, request: object, client_address: object
            ) -> None:
                """Whoever asks may hang up."""

        self._server = Listener(("127.0.0.1", 0), Visit)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The prefix below which it counts."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{PREFIX}"

    def make(self, organization: str) -> None:
        """One more site of an organization."""
        with self._lock:
            self.rows[organization] += 1

    def serve(self, visit: BaseHTTPRequestHandler) -> None:
        """Count the sites of the organization in the token; its signature is for others to verify."""
        token = visit.headers["authorization"].removeprefix("Bearer ")
        organization = str(jwt.decode(token, options={"verify_signature": False})["id"])
        with self._lock:
            self.asked.append((visit.path, organization))
            count = self.rows[organization]
        if self.answer is not None:
            self.answer(visit)
            return
        send(visit, 200, {"count": count})

    def hang(self, visit: BaseHTTPRequestHandler) -> None:
        """Say nothing."""
        self.closing.wait(30)
        visit.close_connection = True

    def drip(self, visit: BaseHTTPRequestHandler) -> None:
        """Answer a byte at a time, without an end."""
        visit.send_response(200)
        visit.send_header("content-length", "1000000")
        visit.end_headers()
        while not self.closing.is_set():
            visit.wfile.write(b" ")
            visit.wfile.flush()
            time.sleep(0.2)


def send(visit: BaseHTTPRequestHandler, status: int, body: object, **headers: str) -> None:
    """One whole answer; bytes go as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    visit.send_response(status)
    for name, value in {**headers, "content-length": str(len(content))}.items():
        visit.send_header(name, value)
    visit.end_headers()
    visit.wfile.write(content)


def flood(visit: BaseHTTPRequestHandler) -> None:
    """Answer a count, and a hundred megabytes after it."""
    visit.send_response(200)
    visit.send_header("content-length", str(1600 * len(CHUNK)))
    visit.end_headers()
    visit.wfile.write(b'{"count": 0}')
    for _ in range(1600):
        visit.wfile.write(CHUNK)


def saying(status: int, body: object, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that is always the same."""
    return lambda visit: send(visit, status, body, **headers)
