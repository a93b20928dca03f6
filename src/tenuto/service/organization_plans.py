"""The plan of an account as the people of its organization know it: one subscription at a time, by an id of its own.

An account is on one plan at a time, and its row says how it is now. What people hold is the id of a subscription, which
lives from its first payment to its end, through all renewals and changes (decision 0046).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, Literal, NamedTuple

from tenuto.core.invoice import Collection, InvoiceTerms
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import PlanTerms, PlanVersion
from tenuto.core.subscription import Subscription
from tenuto.engine import Engine
from tenuto.store import invoices, ledger, payments, subscriptions
from tenuto.store.accounts import Account, Environment, read_account
from tenuto.store.database import Reader, Unit

Status = Literal["trialing", "active", "past_due", "unpaid", "incomplete", "canceled", "paused"]

_STATUSES: Final[Mapping[str, Status]] = {
    "pending_card": "incomplete",
    "trialing": "trialing",
    "active": "active",
    "past_due": "past_due",
    "paused": "paused",
    "cancelled": "canceled",
}


class Current(NamedTuple):
    """The subscription of an account, running or the last one; ``tick`` is its id beside the account's.

    ``status`` is in Stripe's words; ``asked_at`` is when it was cancelled, where it is to end or has ended.
    """

    tick: int
    status: Status
    subscription: Subscription
    terms: PlanTerms
    later: PlanTerms | None
    collection: Collection
    asked_at: datetime | None

    @property
    def is_running(self) -> bool:
        """Whether its plan's terms are in force."""
        return self.status not in {"incomplete", "canceled"}


async def read_current(reader: Reader, account: Account) -> Current | None:
    """The subscription of an account: one that is being paid for, else the one it is on, or was on last."""
    known = await subscriptions.read_subscription(reader, account.id)
    first = await payments.open_payment(reader, account.id, "plan")
    if first is not None and first.reason == "plan_start" and (known is None or not known.is_running):
        step = subscriptions.step_of_json((first.settings or {})["step"])
        return await _current(reader, account, step.subscription, "incomplete", first.id)
    if known is None:
        return None
    if known.status == "pending_card":
        # Nothing has begun yet that it could be called by.
        return await _current(reader, account, known, "incomplete", account.opened)
    status = _STATUSES[known.status]
    if status == "past_due" and known.next_at is None and not await _is_asked_for(reader, known):
        status = "unpaid"
    tick = await subscriptions.read_begun(reader, account.id)
    return await _current(reader, account, known, status, account.opened if tick is None else tick)


async def _is_asked_for(reader: Reader, known: Subscription) -> bool:
    if known.payment_id is None:
        return False
    held = await payments.read_payment(reader, known.account_id, known.payment_id)
    return held is not None and held.payment.is_open


async def _current(reader: Reader, account: Account, known: Subscription, status: Status, tick: int) -> Current:
    terms = await subscriptions.read_terms(reader, account.environment_id, account.id, known)
    agreed = await terms_in(reader, account.id, terms.denomination)
    later = None
    if known.scheduled:
        from_then = replace(known, **known.scheduled)
        later = await subscriptions.read_terms(reader, account.environment_id, account.id, from_then)
    asked_at = known.ended_at
    if asked_at is None and known.cancels_at_end and account.plan is not None:
        asked_at = account.plan.changed_at
    collection: Collection = "charge_automatically" if agreed is None else agreed.collection
    return Current(tick, status, known, terms, later, collection, asked_at)


async def terms_in(reader: Reader, account_id: int, currency: str) -> InvoiceTerms | None:
    """How an account pays by invoice in a currency; None where it does not."""
    found = await invoices.read_terms(reader, account_id)
    return next((terms for terms in found if terms.currency == currency), None)


async def lock_account(engine: Engine, unit: Unit, environment: Environment, account_id: int) -> Account:
    """An account that this unit has locked, as it is now."""
    await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    found = await read_account(unit, environment.id, account_id)
    assert found is not None
    return found


def must_run(found: Current) -> None:
    """Raises Refusal ``invalid_field`` where a subscription is not paid for yet, or has ended."""
    if found.status == "incomplete":
        raise Refusal("invalid_field", "The subscription is not paid for yet.")
    if found.status == "canceled":
        raise Refusal("invalid_field", "The subscription has ended.")


def versions_on_sale(environment: Environment) -> dict[int, PlanVersion]:
    """The latest version of every plan, archived ones included, by the plan."""
    latest: dict[int, PlanVersion] = {}
    for version in environment.terms.plans.values():
        known = latest.get(version.plan_id)
        if known is None or known.number < version.number:
            latest[version.plan_id] = version
    return latest
