"""Somebody with a browser, without the browser: signs up, keeps cookies, follows what forms ask for."""

from __future__ import annotations

import html
import http.client
import re
import secrets
from http.cookies import SimpleCookie
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from tests.client import Client, Company

PASSWORD = "correct horse battery"


class Seen(NamedTuple):
    """A page: its status, its text as it was sent, its headers, and the address it was found at in the end."""

    status: int
    text: str
    headers: dict[str, str]
    path: str

    @property
    def words(self) -> str:
        """What a person reads: without tags, with entities resolved."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.text)).split())

    def attribute(self, pattern: str) -> str:
        """The first group of a pattern in the text as it was sent, with entities resolved."""
        found = re.search(pattern, self.text)
        assert found is not None, (pattern, self.text)
        return html.unescape(found[1])


class Visitor:
    """Somebody who looks at the console."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.cookies: dict[str, str] = {}
        self.csrf = ""
        self.email = f"ada-{secrets.token_hex(4)}@example.com"
        self._company: Company | None = None

    @classmethod
    def signed_up(cls, client: Client, address: tuple[str, int], name: str = "Acme") -> Self:
        """The owner of a new company, signed in; ``client`` is how its engineers call."""
        made = cls(address)
        done = made.send("/control/sign-up", name=name, email=made.email, password=PASSWORD)
        assert done.status == 200, done
        key = done.attribute(r'id="key" value="([^"]+)"')
        company = done.attribute(r'Company <input value="([^"]+)"')
        made._company = Company(client, company, key)
        return made

    def belong_to(self, company: Company) -> None:
        """Be one of the people of a company."""
        self._company = company

    @property
    def company(self) -> Company:
        """The company, as its engineers call it with its key."""
        assert self._company is not None
        return self._company

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Seen:
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            sent = {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **headers}
            connection.request(method, path, body, {name: value for name, value in sent.items() if value})
            answer = connection.getresponse()
            text = answer.read().decode()
            for name, value in answer.getheaders():
                if name.lower() == "set-cookie":
                    self._keep(value)
            return Seen(answer.status, text, {name.lower(): value for name, value in answer.getheaders()}, path)
        finally:
            connection.close()

    def _keep(self, header: str) -> None:
        for name, morsel in SimpleCookie(header).items():
            if morsel["max-age"] == "0" or not morsel.value:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = morsel.coded_value

    def visit(self, path: str, *, follow: bool = True, **headers: str) -> Seen:
        """A page, wherever it leads."""
        seen = self._ask("GET", path, None, {name.replace("_", "-"): value for name, value in headers.items()})
        return self._followed(seen) if follow else seen

    def _followed(self, seen: Seen) -> Seen:
        while seen.status == 303:
            seen = self._ask("GET", seen.headers["location"], None, {})
        found = re.search(r'"x-csrf":"([^"]+)"', seen.text)
        if found:
            self.csrf = found[1]
        return seen

    def send(self, path: str, *, follow: bool = True, came_from: str = "/", **fields: Any) -> Seen:
        """A form, sent from a page of ours with the session's token; lists are fields that come several times."""
        if not self.csrf and self._company is not None:
            self.visit("/")
        origin = f"http://{self.address[0]}:{self.address[1]}"
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "origin": origin,
            "sec-fetch-site": "same-origin",
            "referer": origin + came_from,
        }
        sent = {"_csrf": self.csrf, "_key": secrets.token_hex(8), **fields}
        seen = self._ask("POST", path, urlencode(sent, doseq=True).encode(), headers)
        return self._followed(seen) if follow else seen
