"""The demo's steps about signals: a webhook that is told, and levels of a credit limit that act by themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

import msgspec
from standardwebhooks import Webhook, WebhookVerificationError

from tenuto.demo_story import Company, Story, check, until

CREDIT_LIMIT: Final = 1000
"""Cents that an account may owe."""


class Arrived(NamedTuple):
    """A request as it came to the receiver."""

    at: float
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """What it says."""
        return msgspec.json.decode(self.body)


class Receiver:
    """A customer's server in small: it keeps what comes, and verifies it as its owner would."""

    def __init__(self, url: str, arrived: list[Arrived]) -> None:
        self.url, self._arrived = url, arrived
        self.secret = ""

    def await_one(self, topic: str, account_id: str) -> Arrived:
        """What came first of a topic about an account. Raises StepFailed where nothing comes, or it is not genuine."""

        def found() -> Arrived | None:
            return next(
                (one for one in self._arrived if (one.told["topic"], one.told["account_id"]) == (topic, account_id)),
                None,
            )

        until(lambda: found() is not None, f"The webhook hears {topic}")
        one = found()
        assert one is not None
        Webhook(self.secret).verify(one.body, one.headers)
        return one


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on this machine, until the block ends."""
    arrived: list[Arrived] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            arrived.append(Arrived(time.monotonic(), {name.lower(): text for name, text in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
            """The terminal is the story's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Receiver(f"http://127.0.0.1:{server.server_port}/billing", arrived)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def on_signals(story: Story, company: Company) -> None:
    """All steps about signals, in order."""
    with receiving() as receiver:
        hook = _told(story, company, receiver)
        _shut(story, company, receiver)
    company.ask("DELETE", f"/v1/companies/{{company}}/webhooks/{hook}")  # nobody is there any more


def _told(story: Story, company: Company, receiver: Receiver) -> str:
    """A webhook, and the first thing that it hears; its id."""
    story.begin("A webhook hears that a balance is nearly used up")
    topics = ["threshold", "flag.changed", "account.credit_blocked"]
    hook = company.ask("POST", "/v1/companies/{company}/webhooks", {"url": receiver.url, "topics": topics})
    receiver.secret = hook["secret"]
    story.tell(receiver.url, did=", ".join(topics[:2]))
    account = company.account("Jana", credits=100)
    began = time.monotonic()
    company.send(account, {"type": "CHAT", "quantity": 30})
    one = receiver.await_one("threshold", account)
    data = one.told["data"]
    expected = {"threshold_percentage": 90, "denomination": "credits", "amount": 10, "filled": 100}
    check(expected.items() <= data.items(), "90 % of 100 credits are used", data)
    story.tell(f"threshold 90 %: {data['amount']} of {data['filled']} left", did="CHAT x 30, 90 credits")
    story.tell(
        f"verified, {(one.at - began) * 1000:.0f} ms after the event",
        did=f"webhook-id {one.headers['webhook-id'][:18]}...",
    )
    try:
        Webhook(receiver.secret).verify(one.body.replace(b'"amount":10', b'"amount":99'), one.headers)
    except WebhookVerificationError:
        story.tell("refused", did="the same with another amount")
    else:
        check(False, "A changed text is refused by the library")  # noqa: FBT003 - reads as an assertion
    story.proven("Signed as Standard Webhooks says; the reference library takes it, and takes no other text.")
    return str(hook["id"])


def _shut(story: Story, company: Company, receiver: Receiver) -> None:
    story.begin("Too much on credit raises a flag, then blocks")
    account = company.account("Karl", USD=0)
    company.ask("PUT", f"/v1/accounts/{account}", {"credit_limit": CREDIT_LIMIT})
    flag = f"/v1/accounts/{account}/flags/over_credit_limit"
    check(not company.ask("GET", flag)["enabled"], "The flag is down at first")
    company.send(account, {"type": "PAGE", "quantity": 600})
    check(company.ask("GET", flag)["enabled"], "The flag is up at 150 % of the credit limit")
    data = receiver.await_one("flag.changed", account).told["data"]
    is_it = (data["name"], data["enabled"], data["source"]) == ("over_credit_limit", True, "system")
    check(is_it, "The webhook hears of the flag", data)
    story.tell("GET flags: over_credit_limit is up; the webhook heard it", did="owed 15.00 USD of 10.00")
    gated = {"type": "PAGE", "gate_on_balance": True}
    company.send(account, {"type": "PAGE", "quantity": 200})
    blocked = receiver.await_one("account.credit_blocked", account).told["data"]
    reply = company.send(account, gated)
    found = (reply.status, reply.error["code"])
    check(found == (402, "credit_blocked"), "Gated usage is refused at 200 %", (found, blocked))
    story.tell("402  credit_blocked; the webhook heard it", did="owed 20.00 USD of 10.00")
    company.ask("POST", f"/v1/accounts/{account}/balance/USD/adjust", {"amount": 2500, "reason": "paid by bank"})
    check(not company.ask("GET", flag)["enabled"], "The flag is down again")
    reply = company.send(account, gated)
    check(reply.status == 200, "Usage goes on", reply.raw)  # noqa: PLR2004
    story.tell("200  the flag is down, usage goes on", did="25.00 USD paid by bank")
    story.proven("Each level acted in the very unit that reached it, and came undone with the payment.")
