"""Payments with their attempts, retries and refunds, and captures that are suspended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

import msgspec

from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.outcomes import Kind, Refusal, invalid
from tenuto.core.payment import Payment, PaymentReason, shown_status
from tenuto.engine import Answer
from tenuto.service import payments as service
from tenuto.service import refunds
from tenuto.service.idempotency import Steps
from tenuto.store import invoices
from tenuto.store import payments as store
from tenuto.store.database import Reader, Unit
from tenuto.store.payments import Refund

from . import body as bodies
from . import shapes
from .body import spelled
from .routes import PAGING, Call, Param, Route
from .usage import error_body, page_of

REASON_MAX: Final = 500
RESUMED_MAX: Final = 10_000
NOT_OURS: Final = -1
"""No fence: whoever has the payment in hand keeps it."""


# --- shapes -----------------------------------------------------------------------------------------------------------


class AttemptOut(shapes.Shape):
    """One time that a card was asked. ``outcome`` is null while nobody knows."""

    number: int
    card: str | None
    outcome: str | None
    code: str | None
    message: str | None
    started_at: str | None
    ended_at: str | None


class RefundOut(shapes.Shape):
    """Money that goes back: a refund, or a dispute that the bank opened. ``units`` are taken off the balance."""

    id: str
    payment_id: str
    account_id: str
    kind: str
    status: str
    amount: int
    units: int
    denomination: str
    currency: str
    reason: str
    stripe_refund_id: str | None
    code: str | None
    created_at: str | None
    finished_at: str | None


class PaymentOut(shapes.Shape):
    """Money that came in, or is to. ``units`` of ``denomination`` are credited when it succeeds (contract 2.4)."""

    id: str
    account_id: str
    amount: int
    currency: str
    reason: str
    status: str
    method: str
    denomination: str
    units: int
    description: str
    code: str | None
    message: str | None
    attempts: int
    refunded: int
    stripe_payment_intent_id: str | None
    due_at: str | None
    next_attempt_at: str | None
    created_at: str | None
    finished_at: str | None


class PaidInvoiceOut(shapes.Shape):
    """What a payment paid of one invoice."""

    invoice_id: str
    number: str | None
    amount: int


class PaymentWholeOut(PaymentOut):
    """A payment with every attempt and refund, and the invoices that it paid."""

    attempt_log: list[AttemptOut]
    refunds: list[RefundOut]
    invoices: list[PaidInvoiceOut]


class CaptureOut(shapes.Shape):
    """Whether automatic captures are suspended, and what became of those that were skipped."""

    capture_suspended: bool
    payments: list[str]


def payment_fields(payment: Payment) -> dict[str, Any]:
    """A payment on the wire."""
    return {
        "id": spell_of_account("pay", payment.account_id, payment.id),
        "account_id": spell("a", payment.account_id),
        "amount": payment.amount,
        "currency": payment.currency,
        "reason": payment.reason,
        "status": shown_status(payment),
        "method": payment.method,
        "denomination": payment.denomination,
        "units": payment.units,
        "description": payment.description,
        "code": payment.code,
        "message": payment.message,
        "attempts": payment.attempts,
        "refunded": payment.refunded,
        "stripe_payment_intent_id": payment.intent_id,
        "due_at": spelled(payment.due_at),
        "next_attempt_at": spelled(payment.next_attempt_at) if payment.is_open else None,
        "created_at": spelled(payment.created_at),
        "finished_at": spelled(payment.finished_at),
    }


def refund_out(refund: Refund, payment: Payment) -> RefundOut:
    """A refund on the wire. What a refund under way is, an outsider calls pending."""
    return RefundOut(
        id=spell_of_account("re", refund.account_id, refund.id),
        payment_id=spell_of_account("pay", refund.account_id, refund.payment_id),
        account_id=spell("a", refund.account_id),
        kind=refund.kind,
        status="pending" if refund.status == "intended" else refund.status,
        amount=refund.amount,
        units=refund.units,
        denomination=payment.denomination,
        currency=payment.currency,
        reason=refund.reason,
        stripe_refund_id=refund.gateway_id,
        code=refund.code,
        created_at=spelled(refund.created_at),
        finished_at=spelled(refund.finished_at),
    )


async def payment_whole(reader: Reader, payment: Payment) -> PaymentWholeOut:
    """A payment with its attempts, its refunds and the invoices it paid."""
    attempts = await store.list_attempts(reader, payment.account_id, payment.id)
    refunded = await store.list_refunds(reader, payment.account_id, payment.id)
    paid = await invoices.paid_by(reader, payment.account_id, payment.id)
    return PaymentWholeOut(
        **payment_fields(payment),
        attempt_log=[
            AttemptOut(
                number=row["number"],
                card=None if row["last4"] is None else f"{row['brand']} {row['last4']}",
                outcome=row["outcome"],
                code=row["code"],
                message=row["message"],
                started_at=spelled(row["started_at"]),
                ended_at=spelled(row["ended_at"]),
            )
            for row in attempts
        ],
        refunds=[refund_out(refund, payment) for refund in refunded],
        invoices=[
            PaidInvoiceOut(
                invoice_id=spell_of_account("inv", payment.account_id, invoice_id), number=number, amount=amount
            )
            for invoice_id, number, amount in paid
        ],
    )


# --- bodies -----------------------------------------------------------------------------------------------------------


class RefundIn(msgspec.Struct, forbid_unknown_fields=True):
    """What to give back: an amount, or all that is left, and why."""

    amount: int | None = None
    reason: str = "Refund"


class ResumeIn(msgspec.Struct, forbid_unknown_fields=True):
    """What becomes of captures that were skipped: ``process`` or ``void``."""

    skipped: str = "process"


# --- what a payment that failed is answered with ----------------------------------------------------------------------


def refused_payment(payment: Payment) -> Refusal:
    """Why a payment failed, as a refusal."""
    public = spell_of_account("pay", payment.account_id, payment.id)
    if payment.code == "payment_method_required":
        return Refusal("payment_method_required", payment_id=public)
    if payment.code == "gateway_refused":
        return Refusal("gateway_refused", f"Stripe refuses: {payment.message}", payment_id=public)
    return Refusal("payment_failed", payment.message or None, payment_id=public, decline_code=payment.code)


def refused_answer(call: Call, payment: Payment) -> Answer:
    """The answer that tells why a payment failed: 402, or 422 where the provider refused the request itself."""
    refusal = refused_payment(payment)
    status = 422 if refusal.kind is Kind.INVALID else 402
    return Answer(status, error_body(refusal, call.request_id))


# --- payments ---------------------------------------------------------------------------------------------------------


async def list_payments(call: Call) -> Answer:
    """Payments, newest first: of an account, or of the whole company."""
    account = await call.account() if "account_id" in call.params else None
    if account is None:
        call.company()
    async with call.engine.database.reading() as reader:
        found = await store.list_payments(reader, call.whose(account), call.page(), call.filters())
    return page_of(call, found, lambda row: (row.id, row.account_id), lambda row: PaymentOut(**payment_fields(row)))


async def _owned(call: Call) -> Payment:
    account_id, payment_id = call.id_of_account("pay", "payment_id")
    async with call.engine.database.reading() as reader:
        held = await store.read_payment(reader, account_id, payment_id)
    if held is None or held.payment.environment_id != call.environment.id:
        raise Refusal("not_found")
    return held.payment


async def get_payment(call: Call) -> Answer:
    """A payment with every attempt and refund."""
    payment = await _owned(call)
    async with call.engine.database.reading() as reader:
        return Answer(200, shapes.wrapped(await payment_whole(reader, payment)))


async def _driven(call: Call, verb: Any) -> Answer:
    """Change a payment by hand, drive it, and show it whole."""
    payment = await _owned(call)

    async def begin(unit: Unit) -> Payment:
        found: Payment = await verb(
            call.engine, unit, call.environment, payment.account_id, payment.id, is_claimed=True
        )
        return found

    async def resume(_: Unit) -> Payment:
        return payment._replace(fence=NOT_OURS)

    async def finish(changed: Payment) -> Answer:
        driven = await service.drive(call.engine, call.environment, changed.account_id, changed.id, fence=changed.fence)
        async with call.engine.database.reading() as reader:
            return Answer(200, shapes.wrapped(await payment_whole(reader, driven)))

    return await call.once_in_steps(Steps(begin, resume, finish))


async def retry_payment(call: Call) -> Answer:
    """Try a failed or skipped payment again, now."""
    return await _driven(call, service.retry_payment)


async def void_payment(call: Call) -> Answer:
    """Give a payment up, at the provider too."""
    return await _driven(call, service.void_payment)


async def refund_payment(call: Call) -> Answer:
    """Give money back, and take the units that it bought off the balance."""
    payment = await _owned(call)
    given = call.decoded(RefundIn) if call.body else RefundIn()
    once = call.idempotency()
    amount = None if given.amount is None else bodies.whole(given.amount, "amount", least=1)
    reason = bodies.text(given.reason, "reason", REASON_MAX)

    async def begin(unit: Unit) -> Refund:
        return await refunds.begin_refund(
            call.engine,
            unit,
            call.environment,
            payment.account_id,
            payment.id,
            amount=amount,
            reason=reason,
            once=once,
        )

    async def resume(unit: Unit) -> Refund:
        found = None if once is None else await store.find_refund(unit, payment.account_id, request_key=once.key)
        if found is None:
            raise Refusal("request_in_progress")
        return found

    async def finish(refund: Refund) -> Answer:
        driven = await refunds.drive_refund(call.engine, call.environment, refund.account_id, refund.id, fence=0)
        if driven.status == "failed":
            refusal = Refusal("gateway_refused", f"Stripe refuses the refund: {driven.code}.", gateway_code=driven.code)
            return Answer(422, error_body(refusal, call.request_id))
        status = 202 if driven.status == "intended" else 200
        return Answer(status, shapes.wrapped(refund_out(driven, payment)))

    return await call.once_in_steps(Steps(begin, resume, finish))


async def get_refund(call: Call) -> Answer:
    """A refund, or a dispute, with the payment that it is of."""
    account_id, refund_id = call.id_of_account("re", "refund_id")
    async with call.engine.database.reading() as reader:
        found = await store.read_refund(reader, account_id, refund_id)
        held = None if found is None else await store.read_payment(reader, account_id, found[0].payment_id)
    if found is None or held is None or found[0].environment_id != call.environment.id:
        raise Refusal("not_found")
    return Answer(200, shapes.wrapped(refund_out(found[0], held.payment)))


# --- captures ---------------------------------------------------------------------------------------------------------


async def _whose(call: Call) -> int | None:
    if "account_id" in call.params:
        return (await call.account()).id
    call.company()
    return None


async def suspend_capture(call: Call) -> Answer:
    """Skip automatic captures from now on; usage goes on."""
    account_id = await _whose(call)

    async def verb(unit: Unit) -> None:
        await service.suspend_capture(call.engine, unit, call.environment, account_id)

    return await call.once(verb, lambda _: shapes.wrapped(CaptureOut(capture_suspended=True, payments=[])))


async def resume_capture(call: Call) -> Answer:
    """Take automatic captures up again; what was skipped is processed or voided."""
    account_id = await _whose(call)
    given = call.decoded(ResumeIn) if call.body else ResumeIn()
    if given.skipped not in {"process", "void"}:
        raise invalid("skipped", "is process or void.")

    async def verb(unit: Unit) -> Sequence[tuple[int, int]]:
        return await service.resume_capture(
            call.engine,
            unit,
            call.environment,
            account_id,
            process=given.skipped == "process",
            limit=RESUMED_MAX,
        )

    def render(found: Sequence[tuple[int, int]]) -> bytes:
        ids = [spell_of_account("pay", *place) for place in found]
        return shapes.wrapped(CaptureOut(capture_suspended=False, payments=ids))

    answer = await call.once(verb, render)
    call.engine.nudge("collect_due")
    return answer


def _listing(path: str) -> Route:
    return Route(
        "GET",
        path,
        list_payments,
        "List payments",
        "Payments",
        PaymentOut,
        scope="payments:read",
        query=(
            *PAGING,
            Param(
                "status",
                "pending|succeeded|failed|skipped|voided|refunded|paid",
                "Only payments with this status; `paid`: money came in, by card or out of band, refunded since or not.",
            ),
            Param("reason", "|".join(get_args(PaymentReason)), "Only payments for this."),
            Param("method", "card|balance|out_of_band", "Only payments made this way."),
            Param("currency", "text", "Only payments in this currency."),
            Param("from", "moment", "Made at or after this time."),
            Param("to", "moment", "Made before this time."),
            Param("finished_from", "moment", "Finished (succeeded, failed, voided) at or after this time."),
            Param("finished_to", "moment", "Finished before this time."),
        ),
        is_list=True,
        refusals=("invalid_cursor",),
    )


PENDING: Final = "Not known yet: it goes on by itself. Ask for it again, by its id."
ROUTES: Final = (
    _listing("/accounts/{account_id}/payments"),
    _listing("/companies/{company_id}/payments"),
    Route(
        "GET",
        "/payments/{payment_id}",
        get_payment,
        "Get a payment with its attempts and refunds",
        "Payments",
        PaymentWholeOut,
        scope="payments:read",
    ),
    Route(
        "POST",
        "/payments/{payment_id}/retry",
        retry_payment,
        "Try a payment again",
        "Payments",
        PaymentWholeOut,
        scope="payments:write",
        refusals=("payment_not_retryable", "refill_in_progress"),
    ),
    Route(
        "POST",
        "/payments/{payment_id}/void",
        void_payment,
        "Give a payment up",
        "Payments",
        PaymentWholeOut,
        scope="payments:write",
        refusals=("payment_not_voidable",),
    ),
    Route(
        "POST",
        "/payments/{payment_id}/refund",
        refund_payment,
        "Refund a payment, whole or in part",
        "Payments",
        RefundOut,
        scope="payments:write",
        body=RefundIn,
        refusals=("payment_not_refundable", "refund_exceeds_payment", "gateway_refused"),
        pending=PENDING,
        example={"amount": 100, "reason": "goodwill"},
    ),
    Route(
        "GET",
        "/refunds/{refund_id}",
        get_refund,
        "Get a refund, or a dispute",
        "Payments",
        RefundOut,
        scope="payments:read",
    ),
    *(
        Route(
            "POST",
            f"{whose}/{verb.__name__}",
            verb,
            summary,
            "Captures",
            CaptureOut,
            scope="payments:write",
            body=body,
        )
        for whose in ("/accounts/{account_id}", "/companies/{company_id}")
        for verb, summary, body in (
            (suspend_capture, "Suspend automatic captures", None),
            (resume_capture, "Resume automatic captures", ResumeIn),
        )
    ),
)
