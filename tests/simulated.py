"""The Stripe simulator inside the test's own process, on a free port: `with Simulated() as stripe: stripe.url`."""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import msgspec

from tenuto.gateway.simulator import application, listen, server_of
from tenuto.gateway.simulator_book import Book

SECRET = "whsec_simulated"


class Simulated:
    """A running simulator. Give every test its own API key: a key is an account."""

    def __init__(self, data: Path | None = None, port: int = 0) -> None:
        self._listener = listen(port=port)
        self.host, self.port = self._listener.getsockname()[:2]
        self.url = f"http://{self.host}:{self.port}"
        self.door = application(Book(data))
        self._server = server_of(self.door)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)
        self._thread.start()
        give_up_at = time.monotonic() + 10
        while not self._server.started:
            assert self._thread.is_alive(), "the simulator did not start"
            assert time.monotonic() < give_up_at, "the simulator did not start in time"
            time.sleep(0.005)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; a book with a file can be opened again afterwards."""
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call a control route and return what it answers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request(method, f"/_simulator/{path}", msgspec.json.encode(body) if body else None)
            response = connection.getresponse()
            found = msgspec.json.decode(response.read())
        finally:
            connection.close()
        assert response.status == 200, found
        return found

    def fault(self, kind: str, **terms: Any) -> None:
        """Do something wrong: see tenuto.gateway.simulator_faults.Fault for the terms."""
        self.control("POST", "faults", {"kind": kind, **terms})

    def heal(self) -> None:
        """End all faults."""
        self.control("DELETE", "faults")

    def advance(self, seconds: int) -> None:
        """Move the simulator's clock forward."""
        self.control("POST", "clock", {"advance_seconds": seconds})

    def sign_at(self, offset_seconds: int) -> None:
        """Sign events so many seconds away from the real time (for services whose clock is made up)."""
        self.control("POST", "clock", {"signature_offset_seconds": offset_seconds})

    def release(self) -> int:
        """Finish everything that is processing or pending."""
        return int(self.control("POST", "release")["finished"])

    def flush(self, seconds: float = 10, seed: int = 0) -> dict[str, int]:
        """Send what is held or waits, and wait until nothing is on its way."""
        found: dict[str, int] = self.control("POST", "flush", {"seconds": seconds, "seed": seed})
        return found

    def book(self, key: str) -> dict[str, Any]:
        """Everything of an account, newest first: payment_intents, charges, refunds, disputes, customers…"""
        found: dict[str, Any] = self.control("GET", f"book?key={quote(key)}")
        return found

    def rate(self, key: str) -> dict[str, int]:
        """How often a key called: peak_per_second and total."""
        found: dict[str, int] = self.control("GET", f"rate?key={quote(key)}")
        return found

    def set_key(self, key: str, **settings: Any) -> None:
        """revoked, missing_rights, requests_per_second, account (another key, whose account this one opens)."""
        self.control("POST", "keys", {"key": key, **settings})

    def endpoint(self, key: str, url: str, secret: str = SECRET) -> dict[str, Any]:
        """Have an account's events sent to a URL."""
        found: dict[str, Any] = self.control("POST", "webhook_endpoints", {"key": key, "url": url, "secret": secret})
        return found

    def dispute(self, key: str, intent: str, *, reason: str = "fraudulent") -> dict[str, Any]:
        """Open a dispute about what an intent took."""
        body = {"key": key, "payment_intent": intent, "reason": reason}
        found: dict[str, Any] = self.control("POST", "disputes", body)
        return found

    def close_dispute(self, key: str, dispute: str, status: str) -> dict[str, Any]:
        """Close a dispute, won or lost."""
        found: dict[str, Any] = self.control("POST", f"disputes/{dispute}/close", {"key": key, "status": status})
        return found

    def authenticate(self, key: str, intent: str, *, passed: bool = True) -> dict[str, Any]:
        """The cardholder answers the bank's question about an intent that requires action."""
        found: dict[str, Any] = self.control("POST", "authenticate", {"key": key, "id": intent, "passed": passed})
        return found
