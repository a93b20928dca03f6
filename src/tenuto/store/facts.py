"""What payments, refunds, refills, invoices and plans have to tell, from what was stored before and what is now.

The problem, on one example. A renewal of 1,000 cents for 1,000 tokens is declined once and paid a day later:

    written                                   stored before          told
    the payment: created, declines 1          confirming, declines 0 payment.failed, with when it is tried again
    the plan: past_due                        active                 plan.past_due
    the payment: created, declines 1          created, declines 1    nothing: it is the same state, saved again
    the plan: active, in a new period         past_due               plan.renewed, auto_refill of 1,000 tokens
    the payment: succeeded                    confirming, declines 1 payment.succeeded

Each store compares where it writes, so no way to a change can forget to tell of it, and what is saved twice is told
once. Pure functions from the core's values; the names of the fields are those of ``core.topic.TOPICS``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from tenuto.core.effect import Effect
from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.invoice import Invoice
from tenuto.core.payment import Payment, shown_status
from tenuto.core.period import moment_text
from tenuto.core.refill import Refill
from tenuto.core.subscription import RUNNING, Step, Subscription
from tenuto.core.topic import Notification

_REFILLS: Final = frozenset({"refill", "threshold_refill", "refill_start"})
"""Reasons of payments that fill a balance by its refill, and not because somebody bought units."""
_FILLING_STEPS: Final[Mapping[str, str]] = {"renewal": "plan_renewal", "refill": "plan_refill"}
"""Steps of plans that fill balances by themselves, and what they are called there."""


def _moment(at: datetime | None) -> str | None:
    return None if at is None else moment_text(at)


def _spelled(prefix: str, account_id: int, id: int | None) -> str | None:
    return None if id is None else spell_of_account(prefix, account_id, id)


# --- payments ---------------------------------------------------------------------------------------------------------


class PaymentBefore(NamedTuple):
    """A payment as it was stored; a new one was ``intended`` and never declined."""

    status: str = "intended"
    declines: int = 0


NEW_PAYMENT: Final = PaymentBefore()


def of_payment(before: PaymentBefore, payment: Payment, now: datetime) -> list[Notification]:
    """What a payment tells when it is written: that it came in, what it filled, that it was refused."""
    is_new = payment.status != before.status
    if payment.status == "succeeded" and is_new:
        told = [_of_payment("payment.succeeded", payment, _payment(payment), now)]
        if payment.reason in _REFILLS:
            told.append(_of_payment("auto_refill", payment, _filled(payment), now))
        return told
    if payment.declines > before.declines or (payment.status == "failed" and is_new):
        data = {**_payment(payment), "next_attempt_at": _moment(payment.next_attempt_at)}
        return [_of_payment("payment.failed", payment, data, now)]
    return []


def of_return(
    payment: Payment, *, refund_id: int, is_dispute: bool, amount: int, units: int, refunded: int, now: datetime
) -> Notification:
    """What money that went back tells; ``refunded`` is what of the payment has gone back in sum."""
    data = {
        **_payment(payment._replace(refunded=refunded)),
        "refund_id": spell_of_account("re", payment.account_id, refund_id),
        "refund_amount": amount,
        "refund_units": units,
        "refunded": refunded,
    }
    return _of_payment("payment.disputed" if is_dispute else "payment.refunded", payment, data, now)


def _of_payment(topic: str, payment: Payment, data: Mapping[str, object], now: datetime) -> Notification:
    return Notification(payment.account_id, topic, data, now, payment.denomination)


def _payment(payment: Payment) -> dict[str, object]:
    return {
        "payment_id": spell_of_account("pay", payment.account_id, payment.id),
        "reason": payment.reason,
        "status": shown_status(payment),
        "method": payment.method,
        "amount": payment.amount,
        "currency": payment.currency,
        "denomination": payment.denomination,
        "units": payment.units,
        "code": payment.code,
        "message": payment.message,
    }


def _filled(payment: Payment) -> dict[str, object]:
    return {
        "denomination": payment.denomination,
        "units": payment.units,
        "amount": payment.amount,
        "currency": payment.currency,
        "reason": payment.reason,
        "payment_id": spell_of_account("pay", payment.account_id, payment.id),
        "step_id": None,
    }


# --- refills ----------------------------------------------------------------------------------------------------------


class RefillBefore(NamedTuple):
    """A refill as it was stored, if it was: its open payment, and since when it was parked."""

    payment_id: int | None
    parked_at: datetime | None


def of_refill(before: RefillBefore, refill: Refill, now: datetime) -> list[Notification]:
    """What a refill tells when it is written: that it has stopped. The payment that stopped it was open until then."""
    if refill.parked_at is None or before.parked_at is not None:
        return []
    data = {
        "denomination": refill.denomination,
        "code": refill.parked_code,
        "payment_id": _spelled("pay", refill.account_id, before.payment_id),
        "units": refill.amount,
        "amount": refill.charge_amount,
        "currency": refill.charge_denomination,
    }
    return [Notification(refill.account_id, "refill.parked", data, now, refill.denomination)]


# --- invoices ---------------------------------------------------------------------------------------------------------


class InvoiceBefore(NamedTuple):
    """An invoice as it was stored: its status, and how many steps of the ladder had been taken."""

    status: str
    dunning_step: int


def of_invoice(before: InvoiceBefore, invoice: Invoice, now: datetime) -> list[Notification]:
    """What an invoice tells when it is written; one with nothing due is final and paid at once, and tells both."""
    topics = []
    if before.status == "draft" and invoice.status != "draft":
        topics.append("invoice.finalized")
    if invoice.status == "paid" and before.status != "paid":
        topics.append("invoice.paid")
    if invoice.status == "void" and before.status != "void":
        topics.append("invoice.voided")
    if invoice.dunning_step > before.dunning_step:
        topics.append("invoice.past_due")
    return [_of_invoice(topic, invoice, now) for topic in topics]


def _of_invoice(topic: str, invoice: Invoice, now: datetime) -> Notification:
    data: dict[str, object] = {
        "invoice_id": spell_of_account("inv", invoice.account_id, invoice.id),
        "number": invoice.number,
        "status": invoice.status,
        "currency": invoice.currency,
        "total": invoice.total,
        "amount_due": invoice.amount_due,
        "amount_remaining": invoice.remaining,
        "due_at": _moment(invoice.due_at),
    }
    if topic == "invoice.past_due":
        data["dunning_step"] = invoice.dunning_step
    return Notification(invoice.account_id, topic, data, now, invoice.currency)


# --- plans ------------------------------------------------------------------------------------------------------------


class PlanBefore(NamedTuple):
    """A subscription as it was stored, with the number of its plan's version."""

    status: str
    plan_id: int
    version_id: int
    override_id: int | None
    cadence: str
    variable_units: Mapping[str, Any]
    version: int | None


class Kept(NamedTuple):
    """A subscription as it is written, and as it was before (None: there was none).

    ``version`` is the number of its plan's version, ``denomination`` what its period is paid in, if it has one.
    """

    before: PlanBefore | None
    after: Subscription
    version: int | None
    denomination: str | None


class Done(NamedTuple):
    """The step that a subscription is written with, what it does, and the payment that paid for it."""

    step: Step
    effect: Effect
    payment_id: int | None


def of_plan(kept: Kept, done: Done | None, now: datetime) -> list[Notification]:
    """What a subscription tells when it is written, and the step it is written with: ``done``, if there is one."""
    denomination = kept.denomination if done is None else done.step.denomination
    told = []
    for topic in _topics(kept, None if done is None else done.step):
        data = _plan(kept, done)
        if topic == "plan.changed" and kept.before is not None:
            data |= {"previous_plan_id": spell("p", kept.before.plan_id), "previous_version": kept.before.version}
        told.append(Notification(kept.after.account_id, topic, data, now, denomination))
    return told if done is None else [*told, *_fillings(done, now)]


def _topics(kept: Kept, step: Step | None) -> Iterator[str]:
    before, after = kept.before, kept.after
    if before is None or before.status not in RUNNING:
        if after.is_running:
            yield "plan.started"
        return
    if not after.is_running:
        yield "plan.cancelled"
        return
    if step is not None and step.kind == "renewal":
        yield "plan.renewed"
    if _is_other(before, after) or (step is not None and step.kind in {"change", "modify"} and step.is_now):
        yield "plan.changed"
    if after.status == "past_due" and before.status != "past_due":
        yield "plan.past_due"


def _is_other(before: PlanBefore, after: Subscription) -> bool:
    """Whether an account is on something else than before: a plan, a version, terms of its own, how often, how much."""
    was = (before.plan_id, before.version_id, before.override_id, before.cadence, dict(before.variable_units))
    return was != (after.plan_id, after.version_id, after.override_id, after.cadence, dict(after.variable_units))


def _plan(kept: Kept, done: Done | None) -> dict[str, object]:
    after, account_id = kept.after, kept.after.account_id
    step = None if done is None else done.step
    # A step that changes only what comes later is not kept.
    step_id = done.effect.step_id if done is not None and done.step.is_now else None
    return {
        "plan_id": spell("p", after.plan_id),
        "version": kept.version,
        "status": after.status,
        "step_id": _spelled("ps", account_id, step_id),
        "payment_id": _spelled("pay", account_id, after.payment_id if done is None else done.payment_id),
        "cadence": after.cadence,
        "scheme": None if step is None else step.scheme,
        "charge": None if step is None else step.charge,
        "credit": None if step is None else step.credit,
        "denomination": kept.denomination if step is None else step.denomination,
        "period_start": _moment(after.period_start),
        "period_end": _moment(after.period_end),
    }


def _fillings(done: Done, now: datetime) -> Iterator[Notification]:
    """What a step fills by itself: every grant of the plan's that it opens, with its part of the price."""
    reason = _FILLING_STEPS.get(done.step.kind)
    if reason is None:
        return
    for grant in done.effect.grants:
        # Grants with earlier ids were there before and are closed, or burned down, by the step.
        if grant.source != "plan" or grant.id <= done.effect.step_id:
            continue
        data = {
            "denomination": grant.denomination,
            "units": grant.units,
            "amount": grant.price,
            "currency": grant.price_denomination,
            "reason": reason,
            "payment_id": _spelled("pay", grant.account_id, done.payment_id),
            "step_id": spell_of_account("ps", grant.account_id, done.effect.step_id),
        }
        yield Notification(grant.account_id, "auto_refill", data, now, grant.denomination)
