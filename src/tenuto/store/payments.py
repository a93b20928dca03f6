"""Cards, payments with their attempts, refunds, links to hosted pages, and the provider's messages.

Whoever changes a payment or a refund holds its account's row lock, so a row read in a unit is the newest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from tenuto.core.payment import Payment, RefillsDone

from . import facts
from .database import Reader, Record, Unit
from .records import Page, Whose, decoded
from .signals import tell

_PAYMENT_COLUMNS: Final = Payment._fields
_PAYMENT_SELECT: Final = "select " + ", ".join(f"p.{name}" for name in _PAYMENT_COLUMNS)
_PAYMENT_INSERT: Final = "insert into payment ({}, claimed_until, updated_at) values ({})".format(
    ", ".join(_PAYMENT_COLUMNS), ", ".join(f"${place}" for place in range(1, len(_PAYMENT_COLUMNS) + 3))
)
_PAYMENT_CHANGES: Final = (
    *("status", "intent_id", "charge_id", "card_id", "attempts", "declines", "code", "message", "refunded"),
    *("units_returned", "fence", "next_attempt_at", "finished_at", "slot"),
)
_PAYMENT_UPDATE: Final = (
    "update payment p set {}, claimed_until = $3, updated_at = $4 from payment b where p.account_id = $1 and p.id = $2"
    " and b.account_id = p.account_id and b.id = p.id returning b.status, b.declines".format(
        ", ".join(f"{name} = ${place}" for place, name in enumerate(_PAYMENT_CHANGES, 5))
    )
)


class Held(NamedTuple):
    """A payment with until when (in real time) a worker has it in hand."""

    payment: Payment
    claimed_until: datetime | None


async def insert_payment(unit: Unit, payment: Payment, *, claimed_until: datetime | None = None) -> None:
    """Write a payment down before anybody is asked for money. Fails with 23505 where its slot is taken."""
    values = [_encoded(value) if name == "settings" else value for name, value in payment._asdict().items()]
    await unit.execute(_PAYMENT_INSERT, *values, claimed_until, payment.created_at)
    told = facts.of_payment(facts.NEW_PAYMENT, payment, payment.created_at)
    await tell(unit, payment.environment_id, *told)


async def update_payment(unit: Unit, payment: Payment, now: datetime, *, claimed_until: datetime | None = None) -> None:
    """Write how a payment stands now, and until when somebody has it in hand (nobody, if not said)."""
    before = await unit.fetchrow(
        _PAYMENT_UPDATE,
        payment.account_id,
        payment.id,
        claimed_until,
        now,
        *(getattr(payment, name) for name in _PAYMENT_CHANGES),
    )
    if before is not None:  # an account that was opened for the payment is gone with it
        told = facts.of_payment(facts.PaymentBefore(*before), payment, now)
        await tell(unit, payment.environment_id, *told)


async def read_payment(reader: Reader, account_id: int, payment_id: int) -> Held | None:
    """One payment."""
    row = await reader.fetchrow(
        f"{_PAYMENT_SELECT}, p.claimed_until from payment p where p.account_id = $1 and p.id = $2",
        account_id,
        payment_id,
    )
    return None if row is None else Held(payment_of(row), row["claimed_until"])


async def find_by_request(reader: Reader, account_id: int, request_key: str) -> Payment | None:
    """The payment that a request with this Idempotency-Key began."""
    row = await reader.fetchrow(
        f"{_PAYMENT_SELECT} from payment p where p.account_id = $1 and p.request_key = $2", account_id, request_key
    )
    return None if row is None else payment_of(row)


async def last_of_request(reader: Reader, account_id: int, request_id: str) -> Payment | None:
    """The newest payment whose request key begins with this id."""
    row = await reader.fetchrow(
        f"{_PAYMENT_SELECT} from payment p where p.account_id = $1 and starts_with(p.request_key, $2)"
        " order by p.id desc limit 1",
        account_id,
        request_id,
    )
    return None if row is None else payment_of(row)


async def find_by_intent(reader: Reader, environment_id: int, intent_id: str) -> Payment | None:
    """The payment of a company's half that committed this intent as its own."""
    row = await reader.fetchrow(
        f"{_PAYMENT_SELECT} from payment p where p.intent_id = $2 and p.environment_id = $1", environment_id, intent_id
    )
    return None if row is None else payment_of(row)


async def open_payment(reader: Reader, account_id: int, slot: str, *, or_skipped: bool = True) -> Payment | None:
    """The payment that holds a slot of an account: the open one, else one that was skipped, if that counts."""
    row = await reader.fetchrow(
        f"{_PAYMENT_SELECT} from payment p where p.account_id = $1 and p.slot = $2"
        " and (p.status in ('intended', 'created', 'confirming', 'processing', 'voiding')"
        " or $3 and p.status = 'skipped')"
        " order by p.status = 'skipped', p.id limit 1",
        account_id,
        slot,
        or_skipped,
    )
    return None if row is None else payment_of(row)


PAID: Final = "p.status = 'succeeded' and p.method <> 'balance'"
"""SQL: a payment ``p`` brought money in, whether or not it went back; one from a balance had come in before."""


async def list_payments(reader: Reader, whose: Whose, page: Page, filters: Mapping[str, object]) -> list[Payment]:
    """Payments, newest first. ``filters``: reason, method, currency, status, from, to, finished_from, finished_to.

    A status is one that is shown, or ``paid``: what the report of revenue counts.
    """
    arguments: list[object] = [whose.environment_id, page.limit]
    where = "p.environment_id = $1"
    for name in ("reason", "method", "currency"):
        if name in filters:
            arguments.append(filters[name])
            where += f" and p.{name} = ${len(arguments)}"
    if "status" in filters:
        where += f" and {_SHOWN_STATUS[str(filters['status'])]}"
    for name, condition in _PAYMENT_TIMES.items():
        if name in filters:
            arguments.append(filters[name])
            where += f" and p.{condition} ${len(arguments)}"
    rows = await reader.fetch(
        f"{_PAYMENT_SELECT} from payment p where {where}{older(whose, page, arguments, 'p')}"
        " order by p.id desc, p.account_id desc limit $2",
        *arguments,
    )
    return [payment_of(row) for row in rows]


_PAYMENT_TIMES: Final = {
    "from": "created_at >=",
    "to": "created_at <",
    "finished_from": "finished_at >=",
    "finished_to": "finished_at <",
}
_SHOWN_STATUS: Final = {
    "pending": "p.status in ('intended', 'created', 'confirming', 'processing', 'voiding')",
    "succeeded": "p.status = 'succeeded' and (p.refunded < p.amount or p.amount = 0)",
    "refunded": "p.status = 'succeeded' and p.refunded = p.amount and p.amount > 0",
    "failed": "p.status = 'failed'",
    "skipped": "p.status = 'skipped'",
    "voided": "p.status = 'voided'",
    "paid": PAID,
}


def older(whose: Whose, page: Page, arguments: list[object], alias: str) -> str:
    """The conditions of a page of a list by (id, account id), newest first; their values go to ``arguments``."""
    where = ""
    if whose.account_id is not None:
        arguments.append(whose.account_id)
        where += f" and {alias}.account_id = ${len(arguments)}"
    if page.after is not None:
        arguments.extend(page.after)
        where += f" and ({alias}.id, {alias}.account_id) < (${len(arguments) - 1}, ${len(arguments)})"
    return where


async def give_up(unit: Unit, account_id: int, payment_id: int | None, now: datetime) -> None:
    """Give up a payment that failed, was skipped or waits after a decline: its intent waits for a card for ever."""
    await unit.execute(
        "update payment set status = 'voided', next_attempt_at = null, finished_at = $3, updated_at = $3"
        " where account_id = $1 and id = $2"
        " and (status in ('failed', 'skipped') or status = 'created' and declines > 0)",
        account_id,
        payment_id,
        now,
    )


async def skipped_payments(
    reader: Reader, environment_id: int, account_id: int | None, limit: int
) -> list[tuple[int, int]]:
    """(account id, payment id) of captures that were skipped, oldest first; of one account or of all."""
    rows = await reader.fetch(
        "select account_id, id from payment where environment_id = $1 and status = 'skipped'"
        " and ($2::bigint is null or account_id = $2) order by id limit $3",
        environment_id,
        account_id,
        limit,
    )
    return [(row["account_id"], row["id"]) for row in rows]


async def last_failed(reader: Reader, account_id: int, slot: str) -> Payment | None:
    """The newest payment of a refill, if it failed: what is tried again when its refill is taken up."""
    row = await reader.fetchrow(
        f"{_PAYMENT_SELECT} from payment p where p.account_id = $1 and p.slot = $2"
        " and p.reason in ('refill', 'threshold_refill') order by p.id desc limit 1",
        account_id,
        slot,
    )
    return None if row is None or row["status"] != "failed" else payment_of(row)


async def refills_done(reader: Reader, account_id: int, denomination: str, now: datetime) -> RefillsDone:
    """What was refilled of a balance below its threshold, within the last hour and day."""
    row = await reader.fetchrow(
        "select count(*) filter (where finished_at > $3) as hour, count(*) as day,"
        " coalesce(sum(amount), 0)::bigint as amount from payment"
        " where account_id = $1 and denomination = $2 and status = 'succeeded' and finished_at > $4"
        " and reason = 'threshold_refill'",
        account_id,
        denomination,
        now - timedelta(hours=1),
        now - timedelta(days=1),
    )
    assert row is not None
    return RefillsDone(row["hour"], row["day"], row["amount"])


def payment_of(row: Record) -> Payment:
    """A payment as core knows it."""
    return Payment(*(decoded(row[name]) if name == "settings" else row[name] for name in _PAYMENT_COLUMNS))


def _encoded(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


# --- attempts ---------------------------------------------------------------------------------------------------------


async def begin_attempt(unit: Unit, payment: Payment, now: datetime) -> None:
    """Note that a card is about to be asked; the same number again is the same attempt."""
    await unit.execute(
        "insert into payment_attempt (account_id, payment_id, number, card_id, started_at) values ($1, $2, $3, $4, $5)"
        " on conflict (account_id, payment_id, number) do nothing",
        payment.account_id,
        payment.id,
        payment.attempts,
        payment.card_id,
        now,
    )


async def end_attempt(unit: Unit, before: Payment, after: Payment, outcome: str, now: datetime) -> None:
    """Note how an attempt ended."""
    await unit.execute(
        "update payment_attempt set outcome = $4, code = $5, message = $6, ended_at = $7"
        " where account_id = $1 and payment_id = $2 and number = $3",
        before.account_id,
        before.id,
        before.attempts,
        outcome,
        after.code,
        after.message,
        now,
    )


async def list_attempts(reader: Reader, account_id: int, payment_id: int) -> list[Record]:
    """The attempts of a payment with the card each was made with, first to last."""
    return await reader.fetch(
        "select t.*, m.brand, m.last4 from payment_attempt t"
        " left join payment_method m on m.account_id = t.account_id and m.id = t.card_id"
        " where t.account_id = $1 and t.payment_id = $2 order by t.number",
        account_id,
        payment_id,
    )


# --- cards ------------------------------------------------------------------------------------------------------------


class StoredCard(NamedTuple):
    """A payment method of an account. ``gateway_id`` is its id at the provider, ``name`` whose card it says to be."""

    account_id: int
    id: int
    gateway_id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    is_default: bool
    created_at: datetime
    name: str | None = None


_CARD: Final = "select {} from payment_method m".format(", ".join(f"m.{name}" for name in StoredCard._fields))


async def insert_card(unit: Unit, card: StoredCard) -> None:
    """Keep a card; as the default it takes the place of the one before."""
    if card.is_default:
        await unit.execute(
            "update payment_method set is_default = false where account_id = $1 and is_default", card.account_id
        )
    await unit.execute(
        "insert into payment_method ({}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)".format(
            ", ".join(StoredCard._fields)
        ),
        *card,
    )


async def list_cards(reader: Reader, account_id: int) -> list[StoredCard]:
    """The cards of an account, the default first, then the newest."""
    rows = await reader.fetch(
        f"{_CARD} where m.account_id = $1 and m.removed_at is null order by m.is_default desc, m.id desc", account_id
    )
    return [StoredCard(*row) for row in rows]


async def read_card(reader: Reader, account_id: int, card_id: int, *, or_removed: bool = False) -> StoredCard | None:
    """One card that was not removed, or whether it was or not."""
    row = await reader.fetchrow(
        f"{_CARD} where m.account_id = $1 and m.id = $2 and ($3 or m.removed_at is null)",
        account_id,
        card_id,
        or_removed,
    )
    return None if row is None else StoredCard(*row)


class Chargeable(NamedTuple):
    """The card that is charged, and the customer at the provider whose it is.

    ``is_suspended``: nothing is to be captured by itself, of this account or of the company's whole half.
    """

    card: StoredCard
    customer: str
    is_suspended: bool


async def chargeable_card(reader: Reader, account_id: int) -> Chargeable | None:
    """The card that is charged for an account."""
    row = await reader.fetchrow(
        f"{_CARD.replace(' from', ', a.stripe_id, a.capture_suspended or v.capture_suspended as is_suspended from')}"
        " join account a on a.id = m.account_id join environment v on v.id = a.environment_id"
        " where m.account_id = $1 and m.is_default and m.removed_at is null and a.stripe_id is not null",
        account_id,
    )
    return None if row is None else Chargeable(StoredCard(*row[:-2]), row["stripe_id"], row["is_suspended"])


async def find_card(reader: Reader, account_id: int, gateway_id: str, *, or_removed: bool = False) -> StoredCard | None:
    """A card by its id at the provider: one that was not removed, or whether it was or not."""
    row = await reader.fetchrow(
        f"{_CARD} where m.account_id = $1 and m.gateway_id = $2 and ($3 or m.removed_at is null)"
        " order by m.id desc limit 1",
        account_id,
        gateway_id,
        or_removed,
    )
    return None if row is None else StoredCard(*row)


async def choose_card(unit: Unit, account_id: int, card_id: int) -> None:
    """Make a card the default."""
    await unit.execute(
        "update payment_method set is_default = false where account_id = $1 and is_default and id <> $2",
        account_id,
        card_id,
    )
    await unit.execute(
        "update payment_method set is_default = true where account_id = $1 and id = $2", account_id, card_id
    )


async def remove_card(unit: Unit, account_id: int, card_id: int, now: datetime) -> None:
    """Forget a card; the newest of the others becomes the default."""
    await unit.execute(
        "update payment_method set removed_at = $3, is_default = false where account_id = $1 and id = $2",
        account_id,
        card_id,
        now,
    )
    await unit.execute(
        "update payment_method set is_default = true where account_id = $1 and id = ("
        " select max(id) from payment_method where account_id = $1 and removed_at is null)"
        " and not exists (select from payment_method where account_id = $1 and is_default and removed_at is null)",
        account_id,
    )


async def forget_cards(unit: Unit, environment_id: int, now: datetime) -> None:
    """Forget every card of a company's half, and the customers that were made for them: another provider keeps them.

    A customer may have been made without a card, for a setup intent or a tax number; one that the company named, and
    that no card was given to, stays.
    """
    await unit.execute(
        "update account set stripe_id = null, customer_made = false where environment_id = $1"
        " and (customer_made or id in (select account_id from payment_method))",
        environment_id,
    )
    await unit.execute(
        "update payment_method m set removed_at = $2, is_default = false from account a"
        " where a.id = m.account_id and a.environment_id = $1 and m.removed_at is null",
        environment_id,
        now,
    )


async def wake_payments(unit: Unit, account_id: int, now: datetime) -> int:
    """A new card: what waits after a decline is tried at once. How many payments were woken."""
    done: str = await unit.execute(
        "update payment set next_attempt_at = $2 where account_id = $1 and status = 'created' and declines > 0"
        " and next_attempt_at > $2",
        account_id,
        now,
    )
    return int(done.rpartition(" ")[2])


# --- refunds ----------------------------------------------------------------------------------------------------------


class Refund(NamedTuple):
    """Money that goes back. ``kind`` is ``refund`` (we ask) or ``dispute`` (the bank took it).

    It takes ``units`` off the balance and credits ``credited`` of them again, for those had paid invoices.
    """

    account_id: int
    id: int
    environment_id: int
    payment_id: int
    kind: str
    status: str
    amount: int
    units: int
    reason: str
    gateway_id: str | None
    request_key: str | None
    fingerprint: bytes | None
    code: str | None
    fence: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    credited: int = 0


_REFUND: Final = "select {} from refund r".format(", ".join(f"r.{name}" for name in Refund._fields))


async def insert_refund(unit: Unit, refund: Refund, *, claimed_until: datetime | None = None) -> None:
    """Write a refund down before the provider is asked for it."""
    await unit.execute(
        "insert into refund ({}, claimed_until) values ({})".format(
            ", ".join(Refund._fields), ", ".join(f"${place}" for place in range(1, len(Refund._fields) + 2))
        ),
        *refund,
        claimed_until,
    )
    await _tell_returned(unit, refund, "intended")


async def update_refund(unit: Unit, refund: Refund, *, claimed_until: datetime | None = None) -> None:
    """Write how a refund stands now."""
    before: str = await unit.fetchval(
        "update refund r set status = $3, gateway_id = $4, code = $5, fence = $6, next_attempt_at = $7,"
        " finished_at = $8, claimed_until = $9, credited = $10 from refund b where r.account_id = $1 and r.id = $2"
        " and b.account_id = r.account_id and b.id = r.id returning b.status",
        refund.account_id,
        refund.id,
        refund.status,
        refund.gateway_id,
        refund.code,
        refund.fence,
        refund.next_attempt_at,
        refund.finished_at,
        claimed_until,
        refund.credited,
    )
    await _tell_returned(unit, refund, before)


async def _tell_returned(unit: Unit, refund: Refund, before: str) -> None:
    """Tell of a refund or a dispute that has taken its money, whether or not the payment says so already."""
    if refund.status != "succeeded" or before == "succeeded":
        return
    row = await unit.fetchrow(
        f"{_PAYMENT_SELECT}, (select sum(r.amount)::bigint from refund r where r.account_id = p.account_id"
        " and r.payment_id = p.id and r.status = 'succeeded') as gone"
        " from payment p where p.account_id = $1 and p.id = $2",
        refund.account_id,
        refund.payment_id,
    )
    assert row is not None
    told = facts.of_return(
        payment_of(row),
        refund_id=refund.id,
        is_dispute=refund.kind == "dispute",
        amount=refund.amount,
        units=refund.units,
        refunded=row["gone"],
        now=refund.finished_at or refund.created_at,
    )
    await tell(unit, refund.environment_id, told)


async def read_refund(reader: Reader, account_id: int, refund_id: int) -> tuple[Refund, datetime | None] | None:
    """One refund, and until when somebody has it in hand."""
    row = await reader.fetchrow(
        f"{_REFUND.replace(' from', ', r.claimed_until from')} where r.account_id = $1 and r.id = $2",
        account_id,
        refund_id,
    )
    return None if row is None else (Refund(*row[:-1]), row["claimed_until"])


async def find_refund(
    reader: Reader,
    account_id: int,
    *,
    gateway_id: str | None = None,
    kind: str | None = None,
    request_key: str | None = None,
) -> Refund | None:
    """A refund of a kind by its id at the provider, or by the Idempotency-Key it came with."""
    row = await reader.fetchrow(
        f"{_REFUND} where r.account_id = $1 and (r.gateway_id = $2 and r.kind = $3 or r.request_key = $4)",
        account_id,
        gateway_id,
        kind,
        request_key,
    )
    return None if row is None else Refund(*row)


async def list_refunds(reader: Reader, account_id: int, payment_id: int) -> list[Refund]:
    """The refunds and disputes of a payment, first to last."""
    rows = await reader.fetch(
        f"{_REFUND} where r.account_id = $1 and r.payment_id = $2 order by r.id", account_id, payment_id
    )
    return [Refund(*row) for row in rows]


# --- links and messages -----------------------------------------------------------------------------------------------


class Link(NamedTuple):
    """A hosted page for one customer. ``kind``: card, invoice, topup, overage or portal; ``ask``: what it is to do."""

    account_id: int
    id: int
    environment_id: int
    kind: str
    invoice_id: int | None
    setup_intent: str | None
    return_url: str | None
    expires_at: datetime
    used_at: datetime | None
    created_at: datetime
    ask: Any = None


async def insert_link(unit: Unit, link: Link) -> None:
    """Keep a link."""
    await unit.execute(
        "insert into payment_link ({}) values ({})".format(
            ", ".join(Link._fields), ", ".join(f"${place}" for place in range(1, len(Link._fields) + 1))
        ),
        *link[:-1],
        _encoded(link.ask),
    )


def link_of(row: Record) -> Link:
    """A link from its row."""
    return Link(*row)._replace(ask=None if row["ask"] is None else decoded(row["ask"]))


async def read_link(reader: Reader, account_id: int, link_id: int) -> Link | None:
    """One link."""
    row = await reader.fetchrow(
        "select {} from payment_link where account_id = $1 and id = $2".format(", ".join(Link._fields)),
        account_id,
        link_id,
    )
    return None if row is None else link_of(row)


async def read_invoice_links(reader: Reader, account_id: int, usable_at: datetime) -> dict[int, int]:
    """The last link to each invoice of an account, by invoice, where it can still be used at a moment of real time."""
    rows = await reader.fetch(
        "select invoice_id, max(id) from payment_link where account_id = $1 and kind = 'invoice' and expires_at > $2"
        " group by invoice_id",
        account_id,
        usable_at,
    )
    return {row[0]: row[1] for row in rows}


async def update_link(unit: Unit, link: Link) -> None:
    """Write its setup intent, and whether it was used."""
    await unit.execute(
        "update payment_link set setup_intent = $3, used_at = $4 where account_id = $1 and id = $2",
        link.account_id,
        link.id,
        link.setup_intent,
        link.used_at,
    )


async def take_event(unit: Unit, environment_id: int, id: str, type: str, outcome: str, now: datetime) -> bool:  # noqa: A002
    """Note a message of the provider; False if it was taken in before."""
    return (
        await unit.fetchval(
            "insert into gateway_event (environment_id, id, type, outcome, received_at) values ($1, $2, $3, $4, $5)"
            " on conflict (environment_id, id) do nothing returning 1",
            environment_id,
            id,
            type,
            outcome,
            now,
        )
        is not None
    )


async def forget_events(unit: Unit, before: datetime, limit: int) -> int:
    """Delete notes of messages older than a moment; how many."""
    done: str = await unit.execute(
        "delete from gateway_event where (environment_id, id) in"
        " (select environment_id, id from gateway_event where received_at < $1 limit $2)",
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])
