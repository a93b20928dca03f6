"""Requests to the customer: links that ask for something, the payments they led to, and what is told once it is done.

A payment that a request led to carries the request's public id as its request key, the second one with ``:2`` after it,
so that whoever drives a payment to its end knows which request it answers.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final, NamedTuple

from tenuto.core.identifiers import read_of_account, spell_of_account
from tenuto.core.payment import Payment
from tenuto.core.topic import Notification

from . import payments, signals
from .database import Reader, Unit
from .payments import Link
from .records import Page, Whose

PREFIX: Final = "rq"
KINDS: Final = ("topup", "overage")
_COLUMNS: Final = ", ".join(f"k.{name}" for name in Link._fields)


def public_id(link: Link) -> str:
    """The id of a request as others know it."""
    return spell_of_account(PREFIX, link.account_id, link.id)


def key_of(link: Link, number: int) -> tuple[str, bytes]:
    """The request key of the payment ``number`` (from 1) of a request, and the fingerprint that goes with it.

    The key of a caller's own request may read the same; no fingerprint of one does.
    """
    key = public_id(link) + (f":{number}" if number > 1 else "")
    return key, hashlib.blake2b(f"request {key}".encode(), digest_size=16).digest()


def number_of(payment: Payment) -> int:
    """Which payment of its request this is."""
    return int((payment.request_key or "").partition(":")[2] or 1)


async def latest_payment(reader: Reader, link: Link) -> Payment | None:
    """The newest payment that a request led to."""
    found = await payments.last_of_request(reader, link.account_id, public_id(link))
    return found if found is not None and _is_key_of(link, found) else None


async def find_card_link(reader: Reader, account_id: int, return_url: str, now: datetime) -> Link | None:
    """The newest link on which a card can still be given by somebody who then comes back to this address."""
    row = await reader.fetchrow(
        f"select {_COLUMNS} from payment_link k where k.account_id = $1 and k.kind = 'card' and k.return_url = $2"
        " and k.used_at is null and k.expires_at > $3 order by k.id desc limit 1",
        account_id,
        return_url,
        now,
    )
    return None if row is None else payments.link_of(row)


class Listed(NamedTuple):
    """A request as it is listed: with the payment that answered it, if one did."""

    link: Link
    payment_id: int | None


async def list_requests(reader: Reader, whose: Whose, page: Page) -> list[Listed]:
    """Requests, newest first."""
    arguments: list[object] = [whose.environment_id, page.limit, list(KINDS)]
    older = payments.older(whose, page, arguments, "k")
    rows = await reader.fetch(
        f"select {_COLUMNS} from payment_link k where k.environment_id = $1 and k.kind = any($3){older}"
        " order by k.id desc, k.account_id desc limit $2",
        *arguments,
    )
    links = [payments.link_of(row) for row in rows]
    paid = await _paid(reader, [link for link in links if link.kind == "topup" and link.used_at is not None])
    return [Listed(link, paid.get(public_id(link))) for link in links]


async def _paid(reader: Reader, links: list[Link]) -> dict[str, int]:
    """The first payment that came in for each request, by the request's public id."""
    if not links:
        return {}
    rows = await reader.fetch(
        "select split_part(p.request_key, ':', 1) as public, min(p.id) as id from payment p"
        " where p.account_id = any($1) and split_part(p.request_key, ':', 1) = any($2) and p.status = 'succeeded'"
        " group by 1",
        list({link.account_id for link in links}),
        [public_id(link) for link in links],
    )
    return {row["public"]: row["id"] for row in rows}


async def complete_topup(unit: Unit, payment: Payment, *, now: datetime, real_now: datetime) -> None:
    """Where a payment that has come in answers a request, write that down and tell it, in the unit that credits it."""
    link = await _asked_by(unit, payment)
    if link is None:
        return
    if link.used_at is None:
        await payments.update_link(unit, link._replace(used_at=real_now))
    data: dict[str, Any] = {
        "denomination": payment.denomination,
        "units": payment.units,
        "charge": payment.amount,
        "currency": payment.currency,
        "payment_id": spell_of_account("pay", payment.account_id, payment.id),
        "request_id": public_id(link),
    }
    told = Notification(payment.account_id, "topup.completed", data, now, payment.denomination)
    await signals.tell(unit, payment.environment_id, told)


async def _asked_by(unit: Unit, payment: Payment) -> Link | None:
    """The request that a payment answers."""
    public = (payment.request_key or "").partition(":")[0]
    found = read_of_account(PREFIX, public)
    if payment.reason != "deposit" or found is None or found[0] != payment.account_id:
        return None
    link = await payments.read_link(unit, *found)
    if link is None or link.kind != "topup" or not _is_key_of(link, payment):
        return None
    return link


def _is_key_of(link: Link, payment: Payment) -> bool:
    number = (payment.request_key or "").partition(":")[2] or "1"
    return number.isdecimal() and key_of(link, int(number)) == (payment.request_key, payment.fingerprint)
