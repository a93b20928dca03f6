"""Every row of the tables of bad input: the right refusal in one shape, nothing written, the line good."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio

from tenuto.core.outcomes import REFUSALS
from tenuto.server import Server
from tests.api.bad_account_plans import ACCOUNT_PLANS
from tests.api.bad_input import BAD, RAW, Bad, Raw
from tests.api.bad_issuers import ISSUERS_ROWS
from tests.api.bad_money import MONEY
from tests.api.bad_plans import PLANS
from tests.api.bad_webhooks import WEBHOOKS
from tests.api.facts import counts, facts_of
from tests.client import Client, Company, Reply

ALL: Final = (*BAD, *MONEY, *PLANS, *ACCOUNT_PLANS, *WEBHOOKS, *ISSUERS_ROWS)
SECONDS_MAX: Final = 1.0
DRIVER_WORDS: Final = re.compile(
    rb"Traceback|asyncpg|postgres|msgspec|litestar|uvicorn|File \"|SELECT |\bnull value\b", re.IGNORECASE
)
HOLD_QUANTITY: Final = 2


class Target:
    """A company with one of everything, all the ids a bad request may name, and a line to its rows."""

    def __init__(self, client: Client, rows: asyncpg.Connection) -> None:
        self.client, self.rows = client, rows
        self.company = Company.open(client)
        self.account = self.company.account(credits=100)
        self.price = self.company.price("CHAT", "credits", "3")
        event = self.company.send(self.account, type="CHAT", key="first")
        hold = self.company.send(self.account, type="CHAT", quantity=HOLD_QUANTITY, state="pending")
        card, other = self.company.card(self.account), self.company.account(credits=0)
        paid = {"amount_to_deposit": 1, "amount_to_charge": 1, "charge_against_denomination": "credits"}
        by_balance = self.company.call("POST", f"/v1/accounts/{self.account}/balance/tokens/deposit", paid)
        keys = self.company.call("GET", "/v1/companies/{company}/keys")
        self._ids = {
            "company": self.company.id,
            "account": self.account,
            "price": self.price,
            "plan": self.company.plan(code="taken", balances={"storage": {"amount": 10}}),
            "archived": self._archived(),
            "agreed": self.company.agreed_price(self.account, "DRAW", "credits", "2"),
            "event": event.data["id"],
            "hold": hold.data["id"],
            "key": keys.data[0]["id"],
            "card": card,
            "strange_card": self.company.card(other),
            "payment": self.company.deposit(self.account),
            "paid": by_balance.data["payment"]["id"],
            "subscriber": other,
            "basic": "Basic " + base64.b64encode(f"{self.company.id}:{self.company.key}".encode()).decode(),
        }

        self.company.start(other, self._ids["plan"])
        self._ids["webhook"], self._ids["notification"] = self.company.listening_webhook(self.account)
        self._ids["issuer"] = self.company.issuer()
        self._ids["silent"] = self.company.call("POST", "/v1/companies/{company}/webhooks", {}).data["id"]

    def _archived(self) -> str:
        plan = self.company.plan()
        assert self.company.call("DELETE", f"/v1/plans/{plan}").status == 200
        return plan

    def filled(self, text: str) -> str:
        for name, value in self._ids.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    async def facts(self) -> tuple[dict[str, str], tuple[int, int]]:
        return await facts_of(self.rows, self.company.id), await counts(self.rows)


@pytest_asyncio.fixture(scope="module")
async def target(service: Server) -> AsyncIterator[Target]:
    rows = await asyncpg.connect(service.dsn)
    with Client(*service.address) as client:
        yield Target(client, rows)
    await rows.close()


def assert_refusal(reply: Reply, status: int, code: str) -> None:
    """The one shape of every error, and nothing of the machinery in it."""
    assert (reply.status, reply.body["error"]["code"]) == (status, code), reply.raw[:500]
    assert set(reply.body) == {"error"}
    error: dict[str, Any] = reply.body["error"]
    assert set(error) <= {"code", "message", "details", "request_id", "doc_url"}
    assert code in REFUSALS
    assert error["message"].strip()
    assert error["request_id"] == reply.headers["x-request-id"]
    assert error["doc_url"].endswith(f"#{code}")
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert ("www-authenticate" in reply.headers) is (status == 401)
    assert ("allow" in reply.headers) is (status == 405)
    assert not DRIVER_WORDS.search(reply.raw), reply.raw[:500]
    assert len(reply.raw) < 5000


@pytest.mark.parametrize(
    "bad", ALL, ids=[f"{number}-{bad.name}"[:60].replace("\0", "") for number, bad in enumerate(ALL)]
)
async def test_bad_input(target: Target, bad: Bad) -> None:
    before = await target.facts()
    headers = {"authorization": target.filled("{basic}"), "idempotency-key": f"bad {bad.name}".encode().hex()[:200]}
    for name, value in bad.headers.items():
        headers.pop("idempotency-key" if name == "x-dedupeid" else name, None)
        if value is not None:
            headers[name] = target.filled(value)

    started = time.monotonic()
    body = bad.body
    if isinstance(body, dict) and isinstance(body.get("plan_id"), str):
        body = {**body, "plan_id": target.filled(body["plan_id"])}
    reply = target.client.call(bad.method, target.filled(bad.path), body, headers)
    seconds = time.monotonic() - started

    assert_refusal(reply, bad.status, bad.code)
    if bad.field is not None:
        assert reply.details["path"] == bad.field
    assert seconds < SECONDS_MAX
    assert reply.headers.get("connection") != "close"
    assert target.company.balance(target.account, "credits")["denomination"] == "credits"
    assert await target.facts() == before


def spoken(service: Server, request: bytes) -> tuple[int, bytes, bytes]:
    """Bytes in; status (0 for a closed line), headers and body out."""
    with socket.create_connection(service.address, timeout=SECONDS_MAX) as line:
        line.settimeout(SECONDS_MAX)
        answer = b""
        try:
            line.sendall(request)
            while b"\r\n\r\n" not in answer:
                received = line.recv(65_536)
                if not received:
                    break
                answer += received
            head, _, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            while length and len(body) < int(length[1]):
                received = line.recv(65_536)
                if not received:
                    break
                body += received
        except ConnectionError:
            head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, head, body


@pytest.mark.parametrize("raw", RAW, ids=[raw.name for raw in RAW])
async def test_bad_bytes(target: Target, service: Server, raw: Raw) -> None:
    before = await target.facts()

    request = raw.request
    for name in ("account", "basic"):
        request = request.replace(f"{{{name}}}".encode(), target.filled(f"{{{name}}}").encode())
    status, _, body = spoken(service, request)

    assert status in raw.statuses, body[:500]
    if raw.code is not None:
        assert f'"code":"{raw.code}"'.encode() in body
    assert not DRIVER_WORDS.search(body), body[:500]
    assert target.company.balance(target.account, "credits")["denomination"] == "credits"
    assert await target.facts() == before


@pytest.fixture
def line(service: Server) -> Iterator[socket.socket]:
    with socket.create_connection(service.address, timeout=5) as found:
        yield found


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b'transfer-encoding: chunked\r\n\r\nf\r\n{"type":"CHAT"}\r\n', id="chunks that never end"),
        pytest.param(b'content-length: 20\r\n\r\n{"type":"CHAT"}', id="less than was declared"),
    ],
)
async def test_a_body_that_did_not_arrive_whole_is_not_acted_on(
    target: Target, line: socket.socket, sent: bytes
) -> None:
    before = await target.facts()

    head = f"POST /v1/accounts/{target.account}/events HTTP/1.1\r\nhost: x\r\nauthorization: {target.filled('{basic}')}"
    line.sendall(f"{head}\r\ncontent-type: application/json\r\n".encode() + sent)
    await asyncio.sleep(0.1)
    line.close()
    await asyncio.sleep(0.2)

    assert await target.facts() == before


def test_there_are_enough_cases() -> None:
    assert len(BAD) + len(RAW) >= 150
    assert len({bad.name + bad.path for bad in ALL}) == len(ALL)
