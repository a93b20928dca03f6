"""The audit's look at the payment provider: the same on both sides, or named; and nothing is changed by it."""

from __future__ import annotations

import asyncio
import os
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import asyncpg
import pytest

from tenuto.core.identifiers import spell_of_account
from tenuto.engine import Settings
from tenuto.server import SANDBOX_ADDRESS, Server, wait_until_ready
from tenuto.service import gateway_audit
from tenuto.store import payments as payment_rows
from tests.client import Client, Company
from tests.money_books import Money, money_books


@pytest.fixture(scope="module")
async def money(new_database: Callable[[str], str]) -> AsyncIterator[Money]:
    async with money_books(new_database("audit_gateway")) as found:
        yield found


async def compared(money: Money) -> gateway_audit.Compared:
    mine, _ = await gateway_audit.halves(money.engine)
    return await gateway_audit.compare(money.engine, mine)


@asynccontextmanager
async def changed(money: Money, change: str, where: str) -> AsyncIterator[str]:
    """A card payment with other columns, for as long as it lasts: its public id."""
    connection = await asyncpg.connect(money.engine.settings.database)
    try:
        row = await connection.fetchrow(f"select * from payment where method = 'card' and {where} order by id limit 1")
        assert row is not None
        mine = (row["account_id"], row["id"])
        await connection.execute(f"update payment set {change} where account_id = $1 and id = $2", *mine)
        try:
            yield spell_of_account("pay", *mine)
        finally:
            await connection.execute(
                "update payment set status = $3, amount = $4, intent_id = $5, refunded = $6, currency = $7"
                " where account_id = $1 and id = $2",
                *(*mine, row["status"], row["amount"], row["intent_id"], row["refunded"], row["currency"]),
            )
    finally:
        await connection.close()


async def test_the_provider_says_the_same(money: Money) -> None:
    found = await compared(money)
    assert (found.problem, found.findings, found.foreign) == ("", (), ())
    assert found.payments
    assert found.intents


@pytest.mark.parametrize(
    ("change", "where", "expected"),
    [
        ("status = 'failed'", "status = 'succeeded'", "succeeded: its intent took the money"),
        ("status = 'succeeded'", "status = 'failed'", "not succeeded: its intent is"),
        ("amount = amount + 5", "status = 'succeeded'", "as its intent"),
        ("currency = 'EUR'", "status = 'succeeded'", "as its intent"),
        ("intent_id = 'pi_gone'", "status = 'succeeded'", "an intent that the provider knows"),
        ("intent_id = null", "status = 'succeeded'", "an intent that the provider knows"),
    ],
)
async def test_a_payment_that_the_provider_knows_otherwise_is_named(
    money: Money, change: str, where: str, expected: str
) -> None:
    async with changed(money, change, where) as public:
        found = await compared(money)
    (named,) = [finding for finding in found.findings if finding.row == public]
    assert expected in named.expected
    is_intent_lost = "intent_id" in change
    assert found.total == 1 + is_intent_lost  # the intent that took the money is then nobody's


async def test_a_half_without_payments_is_compared_since_it_has_a_key(money: Money) -> None:
    _, live = await gateway_audit.halves(money.engine)
    found = await gateway_audit.compare(money.engine, live)
    assert (found.half[-6:], found.problem, found.total, found.payments) == ("(live)", "", 0, 0)


async def test_a_payment_under_way_is_no_difference(money: Money) -> None:
    async with changed(money, "status = 'confirming'", "status = 'succeeded'"):
        assert (await compared(money)).total == 0


async def test_a_second_intent_for_a_payment_is_a_second_charge(money: Money) -> None:
    (public, customer, card) = await whoever_paid(money)
    gateway = await money.engine.gateway_for(money.company.environment)
    for payment_id, expected in ((public, "not charged"), ("pay_nobody", "a payment that is here")):
        made = await gateway.create_intent(
            key=f"again {payment_id}",
            amount=900,
            currency="USD",
            customer=customer,
            account="a_1",
            payment=payment_id,
            description="again",
        )
        assert (await compared(money)).total == (payment_id == "pay_nobody")  # no money moved yet
        paid = await gateway.confirm_intent(made.gateway_id, key=f"again {payment_id} now", card=card)
        assert paid.status == "succeeded"
        named = {finding.row: finding for finding in (await compared(money)).findings}
        assert expected in named[made.gateway_id].expected


async def whoever_paid(money: Money) -> tuple[str, str, str]:
    """A payment that succeeded, its customer at the provider, and a card that is good."""
    async with money.engine.database.reading() as reader:
        row = await reader.fetchrow(
            "select p.account_id, p.id from payment p join payment_method m on m.account_id = p.account_id"
            " and m.id = p.card_id where p.status = 'succeeded' and p.method = 'card' and m.is_default limit 1"
        )
        assert row is not None
        found = await payment_rows.chargeable_card(reader, row["account_id"])
    assert found is not None
    return spell_of_account("pay", row["account_id"], row["id"]), found.customer, found.card.gateway_id


async def test_an_intent_that_is_not_ours_is_named_and_not_counted(money: Money) -> None:
    before = await compared(money)
    key = money.engine.sandbox_key(money.company.environment)
    form = {"amount": "700", "currency": "usd", "payment_method": "pm_card_visa", "confirm": "true"}
    form |= {"automatic_payment_methods[enabled]": "true", "automatic_payment_methods[allow_redirects]": "never"}
    request = Request(
        f"{money.stripe.url}/v1/payment_intents",
        urlencode(form).encode(),
        {"authorization": f"Basic {b64encode(f'{key}:'.encode()).decode()}"},
    )
    await asyncio.to_thread(lambda: urlopen(request, timeout=10).close())

    found = await compared(money)
    assert (found.total, found.strangers) == (before.total, 1)
    (named,) = found.foreign
    assert "700 USD" in named.stored


async def test_the_command_asks_the_provider_when_told(money: Money) -> None:
    silent = await command(money.engine.settings.database, url="http://127.0.0.1:9")
    async with changed(money, "status = 'failed'", "status = 'succeeded' and refunded = 0") as public:
        differing = await command(money.engine.settings.database, url=money.stripe.url)
    assert silent[0] == 2, silent[1]
    assert "not asked" in silent[1]
    assert differing[0] == 1
    assert f"{public}: failed" in differing[1]


async def command(dsn: str, *, url: str = "", data: str = ".tenuto") -> tuple[int, str]:
    """The command line itself, as cron would call it: its exit status and what it said."""
    said = {"TENUTO_SANDBOX_URL": url, "TENUTO_STRIPE_URL": url, "TENUTO_SECRET_KEY": "0" * 64} if url else {}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tenuto.cli", "audit", "--gateway", "--database", dsn, "--data", data),
        env={**os.environ, **said},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_the_simulator_of_a_running_server_is_found_by_its_folder(
    new_database: Callable[[str], str], tmp_path: Path
) -> None:
    dsn = new_database("audit_sandbox")
    server = Server(
        Settings(port=0, database=dsn, data=str(tmp_path), sandbox="on", registration="open", log_level="error")
    )
    await asyncio.to_thread(server.start)
    try:
        assert wait_until_ready(*server.address, seconds=30)
        await asyncio.to_thread(pay_in, server)
        found = await command(dsn, data=str(tmp_path))
    finally:
        server.stop()
    assert found[0] == 0, found[1]
    assert "1 card payments, 1 intents" in found[1]
    assert not (tmp_path / SANDBOX_ADDRESS).exists()


def pay_in(server: Server) -> None:
    with Client(*server.address) as client:
        company = Company.open(client)
        account = company.account(USD=0)
        assert company.call("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"}).status == 200
        body = {"amount_to_deposit": 900, "amount_to_charge": 900}
        assert company.call("POST", f"/v1/accounts/{account}/balance/USD/deposit", body).status == 200
