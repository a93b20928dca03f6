"""``make screens``: a picture of every screen of the console, at desktop and phone width, for people to look at.

A service of its own lives for a month, then every page is opened; the run ends with 1 where a page complains, breaks
its own policy, or is wider than its window.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console

from tenuto.engine import Settings
from tenuto.server import Server, wait_until_ready
from tests.client import Client, Company
from tests.console.browsing import DESKTOP, PHONE, Window, chromium
from tests.console.world import World, lived

EMAIL: Final = "ada@example.com"
PASSWORD: Final = "correct horse battery"


def screens(world: World) -> dict[str, str]:
    """Every screen by the name of its picture."""
    account = f"/control/accounts/{world.subscribed}"
    return {
        "home": "/",
        "treasury": "/control/accounts",
        "account-subscription": account,
        "account-prepaid": f"/control/accounts/{world.prepaid}",
        "account-postpaid": f"/control/accounts/{world.postpaid}",
        "account-paused": f"/control/accounts/{world.troubled}",
        "account-events": f"{account}/events",
        "account-transactions": f"{account}/transactions",
        "account-payments": f"{account}/payments",
        "account-invoices": f"/control/accounts/{world.postpaid}/invoices",
        "account-flags": f"{account}/flags",
        "account-admin": f"{account}/admin",
        "account-new": "/control/accounts/new",
        "event": f"/control/events/{world.event}",
        "transactions": "/control/transactions",
        "payments": "/control/payments",
        "payment": f"/control/payments/{world.payment}",
        "invoices": "/control/invoices",
        "invoice": f"/control/invoices/{world.invoice}",
        "plans": "/control/plans",
        "plan": f"/control/plans/{world.plan}",
        "plan-editor": f"/control/plans/{world.plan}/edit",
        "plan-new": "/control/plans/new",
        **{
            f"report-{name}": f"/control/reports/{name}"
            for name in ("usage", "accounts", "cogs", "revenue", "owed", "mrr")
        },
        "engine": "/control/engine",
        "webhook": f"/control/settings/webhooks/{world.webhook}",
        **{f"settings-{name}": f"/control/settings/{name}" for name in SETTINGS},
    }


SETTINGS: Final = (
    *("keys", "stripe", "webhooks", "credit", "invoicing", "company", "issuers", "organizations", "clock"),
    *("users", "activity", "you"),
)


def opened(client: Client, email: str = EMAIL, name: str = "Northwind AI") -> Company:
    """The company whose console is looked at, and its owner's address."""
    reply = client.call("POST", "/v1/companies", {"name": name, "email": email, "password": PASSWORD})
    assert reply.status == 200, reply
    return Company(client, reply.data["id"], reply.data["api_key"])


def main(folder: Path) -> int:
    """Make the pictures; 1 where something is wrong with a page."""
    console = Console(stderr=True)
    folder.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as data, console.status("Starting") as status:
        server = Server(Settings(port=0, data=data, registration="open", log_level="warning"))
        server.start()
        try:
            assert wait_until_ready(*server.address, seconds=30)
            with Client(*server.address) as client, chromium() as browser:
                world = lived(opened(client), lambda text: status.update(f"Living: {text}"))
                for size, width in (("desktop", DESKTOP), ("phone", PHONE)):
                    window = Window(browser, server.address, width)
                    window.sign_in(EMAIL, PASSWORD)
                    for name, path in screens(world).items():
                        status.update(f"{size}: {name}")
                        page = window.look(path)
                        page.wait_for_load_state()
                        page.wait_for_timeout(600)
                        window.picture(folder / f"{name}-{size}.png")
                        if wider := window.overflow():
                            wrong.append(f"{name} is {wider} pixels wider than a {size}")
                        wrong += [f"{name}, {size}: {trouble}" for trouble in window.troubles]
                        window.troubles.clear()
                    window.close()
        finally:
            server.stop()
    for trouble in wrong:
        console.print(trouble, markup=False)
    console.print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/screens")))
