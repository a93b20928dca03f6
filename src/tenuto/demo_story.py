"""What a demo is told with: numbered steps on the terminal, each checked, and a company as its engineers would call it.

Every line is told from an answer. A step that is not true raises :class:`StepFailed`, and the story ends there.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding

from tenuto.importer import Connection, Reply

UNTIL_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.01


class StepFailed(Exception):
    """A step of the story that was not true; the text says what was expected and what came."""


class Story:
    """The terminal: numbered steps, what was done, what came back."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.step, self.title = 0, "The service starts"

    def begin(self, title: str) -> None:
        """The next step."""
        self.step, self.title = self.step + 1, title
        self._console.print(f"\n[bold]{self.step}  {escape(title)}[/]")

    def tell(self, text: str, *, did: str = "") -> None:
        """A line: what was done, dimmed, and what came of it."""
        told = f"[dim]{escape(did):<36}[/]  " if did else ""
        self._console.print(f"   {told}{escape(text)}", soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """A table or the like."""
        self._console.print(Padding(what, (0, 0, 0, 3)))

    def proven(self, text: str) -> None:
        """The line that ends a step: what was checked and held."""
        self._console.print(f"   [green]✓[/] {escape(text)}", soft_wrap=True)


def check(is_true: bool, what: str, found: object = "") -> None:  # noqa: FBT001 - reads as an assertion
    """Go on, or end the story. Raises StepFailed."""
    if not is_true:
        raise StepFailed(f"{what} ({found})" if found != "" else what)


EMAIL: Final = "demo@example.com"


class Company:
    """The demo's company, as its engineers would call the service."""

    def __init__(self, url: str) -> None:
        self.door, self.id = Connection(url), ""
        self.password = f"demo {secrets.token_hex(6)}"
        opened = self.ask("POST", "/v1/companies", {"name": "Demo", "email": EMAIL, "password": self.password})
        self.id, self.door.key = opened["id"], opened["api_key"]

    @property
    def key(self) -> str:
        """Its API key."""
        return self.door.key

    def call(self, method: str, path: str, body: object = None) -> Reply:
        """One request, whatever it answers; ``{company}`` in the path is this one."""
        return self.door.call(method, path.replace("{company}", self.id), body)

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - whatever JSON holds
        """The data of a request that must succeed. Raises StepFailed with the refusal."""
        reply = self.call(method, path, body)
        check(reply.status == 200, f"{method} {path} answers 200", f"{reply.status} {reply.error['message']}")  # noqa: PLR2004
        return reply.data

    def account(self, name: str, **balances: int) -> str:
        """A new account with balances of the given amounts; its id."""
        body = {"name": name, "email": f"{name.lower()}@example.com"}
        account_id = str(self.ask("POST", "/v1/companies/{company}/accounts", body)["id"])
        for denomination, amount in balances.items():
            self.ask("POST", f"/v1/accounts/{account_id}/balance/{denomination}", {"amount": amount})
        return account_id

    def price(self, kind: str, denomination: str, amount: str, per: int = 1) -> None:
        """Set a price per unit."""
        body = {"type": kind, "denomination": denomination, "amount": amount, "per": per}
        self.ask("POST", "/v1/companies/{company}/event_prices", body)

    def send(self, account_id: str, body: object) -> Reply:
        """An event or a list of them, whatever comes of it."""
        return self.call("POST", f"/v1/accounts/{account_id}/events", body)

    def balance(self, account_id: str, denomination: str) -> Any:  # noqa: ANN401 - whatever JSON holds
        """A balance as it stands."""
        return self.ask("GET", f"/v1/accounts/{account_id}/balance/{denomination}")


def until(is_true: Callable[[], bool], what: str) -> None:
    """Look until something is true; the clockwork needs a moment. Raises StepFailed when that takes too long."""
    give_up_at = time.monotonic() + UNTIL_SECONDS
    while not is_true():
        check(time.monotonic() < give_up_at, what)
        time.sleep(LOOK_SECONDS)
