"""Colleagues of a visitor: other people of the same company, each with a browser of their own."""

from __future__ import annotations

import http.client
import secrets
from typing import Final
from urllib.parse import urlencode, urlsplit

from tests.client import Company
from tests.console.visitor import PASSWORD, Seen, Visitor

FORM: Final = "application/x-www-form-urlencoded"


def invited(visitor: Visitor, role: str, email: str = "") -> tuple[str, str]:
    """The address of somebody who is invited by the visitor, and the path of their link."""
    email = email or f"grace-{secrets.token_hex(4)}@example.com"
    seen = visitor.send("/control/settings/users", email=email, role=role)
    assert seen.status == 200, seen
    return email, urlsplit(seen.attribute(r'id="link" value="([^"]+)"')).path


def colleague(visitor: Visitor, role: str, email: str = "") -> Visitor:
    """Somebody of the visitor's company who has taken an invitation and is signed in."""
    made = Visitor(visitor.address)
    made.email, path = invited(visitor, role, email)
    seen = made.send(path, password=PASSWORD)
    assert (seen.status, seen.path) == (200, "/"), seen
    made.belong_to(visitor.company)
    return made


def signed_in(address: tuple[str, int], company: Company, email: str, password: str = PASSWORD) -> Visitor:
    """Somebody who signs in with another browser."""
    made = Visitor(address)
    made.email = email
    seen = made.send("/control/sign-in", email=email, password=password)
    assert (seen.status, seen.path) == (200, "/"), seen
    made.belong_to(company)
    return made


def raw(visitor: Visitor, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Seen:
    """A request as a test wants it, with the visitor's cookies and nothing else that a browser would add."""
    connection = http.client.HTTPConnection(*visitor.address, timeout=30)
    try:
        cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
        connection.request(method, path, body, {**({"cookie": cookies} if cookies else {}), **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        return Seen(answer.status, text, {name.lower(): value for name, value in answer.getheaders()}, path)
    finally:
        connection.close()


def own_headers(visitor: Visitor) -> dict[str, str]:
    """What a browser adds to a form of ours."""
    origin = f"http://{visitor.address[0]}:{visitor.address[1]}"
    return {"content-type": FORM, "origin": origin, "sec-fetch-site": "same-origin", "referer": f"{origin}/"}


def form(**fields: str) -> bytes:
    """A form as it is sent."""
    return urlencode(fields).encode()
