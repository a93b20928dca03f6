"""What the payment provider says about money, compared with what is kept here. Nothing is changed.

The problem, on one example. Our rows may agree with each other and still be wrong about the world:

    the provider                          here                       verdict
    intent succeeded, 1000 USD            payment succeeded, 1000    agrees
    intent succeeded, 1000 USD            payment failed             a card was charged for nothing
    intent succeeded, 1000 USD            payment confirming         under way: whoever drives it will read it
    intent canceled                       payment succeeded          units were given for nothing
    two intents name one payment          payment names the first    the card was charged twice
    intent succeeded, not made by us      nothing                    named, for the company may use Stripe otherwise

The service goes on meanwhile, so what looks wrong is looked at a second time, on both sides, before it is told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from tenuto.core.identifiers import read_of_account, spell, spell_of_account
from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tenuto.gateway.port import GatewayRefused, GatewayUnclear, Intent, PaymentGateway
from tenuto.store import audit_money
from tenuto.store.accounts import Environment
from tenuto.store.audit import FINDINGS_MAX, Finding
from tenuto.store.database import Record

PAYMENT: Final = "tenuto_payment"
BEFORE: Final = timedelta(hours=1)
"""How long before its payment an intent may seem to have been made: clocks differ."""
CHECK: Final = "gateway"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Compared(NamedTuple):
    """What the comparison of one half of a company came to.

    ``findings`` are what disagrees (``total`` in all), ``foreign`` the intents that succeeded and are not ours
    (``strangers`` in all). ``problem`` says why the provider could not be asked, else it is empty.
    """

    half: str
    intents: int = 0
    payments: int = 0
    total: int = 0
    findings: tuple[Finding, ...] = ()
    strangers: int = 0
    foreign: tuple[Finding, ...] = ()
    problem: str = ""


class Half(NamedTuple):
    """One half of a company as a comparison begins with it: how it is named, and since when intents are listed."""

    id: int
    name: str
    since: datetime


async def halves(engine: Engine) -> list[Half]:
    """Every half of every company that has card payments, or could have lost them, for it has a key of its own.

    It is compared since its oldest card payment, or since it was opened where there is none.
    """
    async with engine.database.reading() as reader:
        rows = await audit_money.environments(reader)
    return [
        Half(
            row["id"],
            f"{spell('c', row['company_id'])} ({'live' if row['live'] else 'test'})",
            (row["created_at"] if row["oldest"] is None else _EPOCH + timedelta(microseconds=row["oldest"])) - BEFORE,
        )
        for row in rows
    ]


async def compare(
    engine: Engine, half: Half, *, limit: int = FINDINGS_MAX, seen: Callable[[int], None] = lambda _: None
) -> Compared:
    """Compare one half of a company with its provider. ``seen`` is told how many intents were read so far."""
    environment = await engine.environment(half.id)
    assert environment is not None
    try:
        async with _provider(engine, environment) as gateway:
            intents: dict[str, Intent] = {}
            async for intent in gateway.intents(since=half.since):
                intents[intent.gateway_id] = intent
                seen(len(intents))
            return await _Comparison(engine, environment, gateway, intents, limit).run(half.name)
    except (Refusal, GatewayRefused, GatewayUnclear) as error:
        return Compared(half.name, problem=str(error))


@asynccontextmanager
async def _provider(engine: Engine, environment: Environment) -> AsyncIterator[PaymentGateway]:
    """The provider of one half, to read from. The sandbox is not told where to send messages: that is the server's."""
    if environment.stripe.key is not None or environment.live or not engine.settings.sandbox_url:
        yield await engine.gateway_for(environment)
        return
    sandbox = engine.gateway_with(engine.sandbox_key(environment), live=False, url=engine.settings.sandbox_url)
    try:
        yield sandbox
    finally:
        await sandbox.close()


class _Comparison:
    """Intents and payments of one half, and what was found so far."""

    def __init__(
        self,
        engine: Engine,
        environment: Environment,
        gateway: PaymentGateway,
        intents: dict[str, Intent],
        limit: int,
    ) -> None:
        self._engine, self._environment, self._gateway, self._limit = engine, environment, gateway, limit
        self._intents = intents
        self._found: list[Finding] = []
        self._foreign: list[Finding] = []
        self._total = self._strangers = 0

    async def run(self, half: str) -> Compared:
        payments = await self._payments()
        for place in list(payments):
            if self._judged(payments[place], self._intents.get(payments[place]["intent_id"] or "")):
                await self._look_again(place)
        for intent in self._intents.values():
            if intent.status == "succeeded":
                await self._trace(intent, payments)
        return Compared(
            half,
            len(self._intents),
            len(payments),
            self._total,
            tuple(self._found),
            self._strangers,
            tuple(self._foreign),
        )

    async def _payments(self) -> dict[tuple[int, int], Record]:
        async with self._engine.database.reading() as reader:
            rows = await audit_money.card_payments(reader, self._environment.id)
        return {(row["account_id"], row["id"]): row for row in rows}

    async def _look_again(self, place: tuple[int, int]) -> None:
        """Read a payment anew, and then its intent, and tell what still disagrees."""
        async with self._engine.database.reading() as reader:
            row = await audit_money.card_payment(reader, *place)
        if row is None:
            return
        intent = None
        if row["intent_id"] is not None:
            try:
                intent = await self._gateway.read_intent(row["intent_id"])
            except GatewayRefused as refused:
                if refused.is_key:
                    raise
        expected = self._judged(row, intent)
        if expected:
            told = f"{row['status']}, {row['amount']} {row['currency']}, intent {row['intent_id'] or 'none'}"
            self._add(spell_of_account("pay", *place), told, expected)

    def _judged(self, row: Record, intent: Intent | None) -> str:
        """What a payment should be by its intent; nothing where it is that, or will be once it is driven."""
        if intent is None:
            is_asked = row["intent_id"] is not None or row["status"] == "succeeded"
            return "an intent that the provider knows" if is_asked else ""
        if (intent.amount, intent.currency) != (row["amount"], row["currency"]):
            return f"{intent.amount} {intent.currency}, as its intent"
        if intent.metadata.get(PAYMENT) != spell_of_account("pay", row["account_id"], row["id"]):
            return f"an intent that names it, not {intent.metadata.get(PAYMENT, 'nothing')}"
        if intent.status != "succeeded":
            return f"not succeeded: its intent is {intent.status}" if row["status"] == "succeeded" else ""
        if intent.amount_received != row["amount"]:
            return f"{intent.amount_received} {intent.currency}, what was received"
        if row["status"] == "succeeded" or self._is_under_way(row):
            return ""
        return "succeeded: its intent took the money"

    def _is_under_way(self, row: Record) -> bool:
        """Whether whoever drives payments is about to read the intent of this one."""
        if row["status"] in {"confirming", "processing", "voiding"}:
            return True
        at = row["next_attempt_at"]
        return row["status"] == "created" and at is not None and at <= self._engine.now_of(self._environment)

    async def _trace(self, intent: Intent, payments: Mapping[tuple[int, int], Record]) -> None:
        """Which payment an intent that succeeded belongs to. One that is another's second is a second charge."""
        named = intent.metadata.get(PAYMENT)
        told = f"succeeded, {intent.amount_received} {intent.currency}, for {named or 'nobody we know'}"
        if named is None:
            self._strangers += 1
            if len(self._foreign) < self._limit:
                self._foreign.append(Finding(CHECK, intent.gateway_id, told, "known to the company: it is not ours"))
            return
        place = read_of_account("pay", named)
        row = payments.get(place) if place is not None else None
        if place is not None and (row is None or row["intent_id"] != intent.gateway_id):
            async with self._engine.database.reading() as reader:
                row = await audit_money.card_payment(reader, *place)
        if row is None or row["environment_id"] != self._environment.id:
            self._add(intent.gateway_id, told, "a payment that is here")
        elif row["intent_id"] != intent.gateway_id:
            self._add(intent.gateway_id, told, f"not charged: that payment has the intent {row['intent_id'] or 'none'}")

    def _add(self, row: str, stored: str, expected: str) -> None:
        self._total += 1
        if len(self._found) < self._limit:
            self._found.append(Finding(CHECK, row, stored, expected))
