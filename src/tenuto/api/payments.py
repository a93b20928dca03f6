"""Deposits, refills, payments with their retries and refunds, and captures that are suspended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.invoice import settings_of
from tenuto.core.money import is_fiat
from tenuto.core.outcomes import Kind, Refusal, invalid
from tenuto.core.payment import Payment, shown_status
from tenuto.core.refill import Refill, new_refill
from tenuto.engine import Answer, Once
from tenuto.service import payments as service
from tenuto.service import refills, refunds
from tenuto.service.idempotency import Steps
from tenuto.store import payments as store
from tenuto.store import records
from tenuto.store import refills as refill_store
from tenuto.store.database import Reader, Unit
from tenuto.store.payments import Refund

from . import body as bodies
from . import shapes
from .body import spelled
from .routes import PAGING, Call, Param, Route
from .usage import error_body, page_of

REASON_MAX: Final = 500
RESUMED_MAX: Final = 10_000


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


class PaymentWholeOut(PaymentOut):
    """A payment with every attempt and refund."""

    attempt_log: list[AttemptOut]
    refunds: list[RefundOut]


class DepositOut(shapes.Shape):
    """A deposit: its payment, and the balance after it."""

    payment: PaymentOut
    balance: shapes.BalanceOut | None


class DepositPreviewOut(shapes.Shape):
    """What a deposit, or a first refill, would charge and add."""

    preview: bool
    amount_to_charge: int
    currency: str
    amount_to_deposit: int
    denomination: str


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
    """A payment with its attempts and refunds."""
    attempts = await store.list_attempts(reader, payment.account_id, payment.id)
    refunded = await store.list_refunds(reader, payment.account_id, payment.id)
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
    )


# --- bodies -----------------------------------------------------------------------------------------------------------


class DepositIn(msgspec.Struct, forbid_unknown_fields=True):
    """A deposit: how much to add, and what to charge for it."""

    amount_to_deposit: int
    amount_to_charge: int
    charge_against_denomination: str | None = None
    denomination: str | None = None
    currency: str | None = None
    preview: bool = False


class RefillIn(msgspec.Struct, forbid_unknown_fields=True):
    """How a balance is refilled. What is missing stays as it is; ``threshold`` null ends refilling by threshold."""

    denomination: str | None = None
    threshold: int | msgspec.UnsetType | None = msgspec.UNSET
    amount: int | None = None
    usd_charge: int | None = None
    refill_monthly: bool | None = None
    charge_against_denomination: str | msgspec.UnsetType | None = msgspec.UNSET
    currency: str | None = None
    preview: bool = False


class RefundIn(msgspec.Struct, forbid_unknown_fields=True):
    """What to give back: an amount, or all that is left, and why."""

    amount: int | None = None
    reason: str = "Refund"


class ResumeIn(msgspec.Struct, forbid_unknown_fields=True):
    """What becomes of captures that were skipped: ``process`` or ``void``."""

    skipped: str = "process"


# --- deposits ---------------------------------------------------------------------------------------------------------


async def _denomination(call: Call, account_id: int, given: str | None) -> str:
    """The balance that is meant: the one named, else the account's only one that is no money (contract 6.1, 18)."""
    if "denomination" in call.params:
        named = call.denomination()
        if given is not None and given != named:
            raise invalid("denomination", "differs from the one in the address.")
        return named
    if given is not None:
        return bodies.token(given, "denomination", bodies.DENOMINATION_MAX)
    async with call.engine.database.reading() as reader:
        found = await records.list_balances(reader, account_id, call.engine.now_of(call.environment))
    tokens = [row.denomination for row in found if not is_fiat(row.denomination)]
    if len(tokens) != 1:
        raise invalid(
            "denomination", "name the balance; the account has not just one that is no money.", "missing_field"
        )
    return tokens[0]


def _currency(call: Call, given: str | None) -> str:
    if given is None:
        return settings_of(call.environment.money).currency
    if not is_fiat(given):
        raise invalid("currency", "is an ISO 4217 code such as USD.")
    return given


async def _shown_balance(call: Call, account_id: int, denomination: str) -> shapes.BalanceOut | None:
    environment = call.environment
    async with call.engine.database.reading() as reader:
        _, found = await records.read_balance(
            reader,
            environment.id,
            environment.revision,
            account_id,
            denomination,
            call.engine.now_of(environment),
        )
    return None if found is None else shapes.balance(found)


async def deposit(call: Call) -> Answer:
    """Add to a balance, and charge for it: the card, or another balance of the account."""
    given = call.decoded(DepositIn)
    account = await call.account()
    units = bodies.whole(given.amount_to_deposit, "amount_to_deposit", least=1)
    charge = bodies.whole(given.amount_to_charge, "amount_to_charge")
    denomination = await _denomination(call, account.id, given.denomination)
    if given.charge_against_denomination is not None:
        return await _deposit_from_balance(call, account.id, denomination, given, units, charge)
    currency = _currency(call, given.currency)
    service.refuse_uncharged(charge, currency, "amount_to_charge")
    if denomination == currency and units != charge:
        raise invalid("amount_to_deposit", f"is what is charged, {charge}: {currency} is put on a {currency} balance.")
    if given.preview:
        return _previewed(charge, currency, units, denomination)
    ask = service.Deposit(denomination, units, charge, currency)
    once = call.idempotency()

    async def begin(unit: Unit) -> Payment:
        return await service.begin_deposit(call.engine, unit, call.environment, account.id, ask, once)

    return await paid_in_steps(call, account.id, once, begin)


def _previewed(charge: int, currency: str, units: int, denomination: str) -> Answer:
    out = DepositPreviewOut(
        preview=True,
        amount_to_charge=charge,
        currency=currency,
        amount_to_deposit=units,
        denomination=denomination,
    )
    return Answer(200, shapes.wrapped(out))


async def paid_in_steps(call: Call, account_id: int, once: Once | None, begin: Any) -> Answer:
    """Begin a payment that somebody waits for, drive it, and answer: 200 paid, 402 refused, 202 not known yet."""

    async def resume(unit: Unit) -> Payment:
        found = None if once is None else await store.find_by_request(unit, account_id, once.key)
        if found is None:
            raise Refusal("request_in_progress")
        return found

    async def finish(payment: Payment) -> Answer:
        driven = await service.drive(call.engine, call.environment, account_id, payment.id)
        if driven.status == "failed":
            return refused_answer(call, driven)
        balance = await _shown_balance(call, account_id, driven.denomination)
        body = shapes.wrapped(DepositOut(payment=PaymentOut(**payment_fields(driven)), balance=balance))
        return Answer(202 if driven.is_open else 200, body)

    return await call.once_in_steps(Steps(begin, resume, finish))


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


async def _deposit_from_balance(
    call: Call, account_id: int, denomination: str, given: DepositIn, units: int, charge: int
) -> Answer:
    source = bodies.token(
        given.charge_against_denomination or "", "charge_against_denomination", bodies.DENOMINATION_MAX
    )
    if source == denomination:
        raise invalid("charge_against_denomination", "is another balance than the one that is filled.")
    if given.preview:
        return _previewed(charge, source, units, denomination)

    async def verb(unit: Unit) -> Payment:
        return await refills.deposit_from_balance(
            call.engine,
            unit,
            call.environment,
            account_id,
            denomination=denomination,
            units=units,
            amount=charge,
            source=source,
        )

    async def begin(unit: Unit) -> Payment:
        return await verb(unit)

    async def finish(payment: Payment) -> Answer:
        balance = await _shown_balance(call, account_id, denomination)
        return Answer(200, shapes.wrapped(DepositOut(payment=PaymentOut(**payment_fields(payment)), balance=balance)))

    async def resume(_: Unit) -> Payment:
        raise Refusal("request_in_progress")

    return await call.once_in_steps(Steps(begin, resume, finish))


# --- refills ----------------------------------------------------------------------------------------------------------


def _refill_changes(call: Call, given: RefillIn, denomination: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if given.amount is not None:
        changes["amount"] = bodies.whole(given.amount, "amount", least=1)
    if given.usd_charge is not None:
        changes["charge_amount"] = bodies.whole(given.usd_charge, "usd_charge")
    if given.threshold is not msgspec.UNSET:
        changes["threshold"] = None if given.threshold is None else bodies.whole(given.threshold, "threshold")
    if given.refill_monthly is not None:
        changes["is_monthly"] = given.refill_monthly
    if given.charge_against_denomination is not msgspec.UNSET:
        if given.charge_against_denomination is None:
            changes |= {"source": "card", "charge_denomination": _currency(call, given.currency)}
        else:
            source = bodies.token(
                given.charge_against_denomination, "charge_against_denomination", bodies.DENOMINATION_MAX
            )
            if source == denomination:
                raise invalid("charge_against_denomination", "is another balance than the one that is filled.")
            changes |= {"source": "balance", "charge_denomination": source}
    elif given.currency is not None:
        changes["charge_denomination"] = _currency(call, given.currency)
    return changes


def _refuse_unchargeable(refill: Refill) -> None:
    if refill.source == "card" and refill.charge_amount:
        service.refuse_uncharged(refill.charge_amount, refill.charge_denomination, "usd_charge")
        if refill.denomination == refill.charge_denomination and refill.amount != refill.charge_amount:
            raise invalid("amount", f"is what is charged, {refill.charge_amount}: both are {refill.denomination}.")


async def set_refill(call: Call) -> Answer:
    """Set how a balance is refilled. A first monthly refill is charged at once, and nothing is set if that fails."""
    given = call.decoded(RefillIn)
    account = await call.account()
    denomination = await _denomination(call, account.id, given.denomination)
    changes = _refill_changes(call, given, denomination)
    engine, environment, once = call.engine, call.environment, call.idempotency()
    if given.preview:
        return await _preview_refill(call, account.id, denomination, changes)

    async def begin(unit: Unit) -> Payment | None:
        known = await refill_store.read_refill(unit, account.id, denomination)
        planned = known or new_refill(account.id, denomination, environment.id, account.created_at)
        _refuse_unchargeable(planned._replace(**changes))
        found = await refills.set_refill(engine, unit, environment, account.id, denomination, changes)
        if found.starts is None:
            return None
        starts = found.starts
        ask = service.Deposit(denomination, starts.amount, starts.charge_amount, starts.charge_denomination)
        return await service.begin_deposit(engine, unit, environment, account.id, ask, once, starts=starts)

    async def resume(unit: Unit) -> Payment | None:
        return None if once is None else await store.find_by_request(unit, account.id, once.key)

    async def finish(payment: Payment | None) -> Answer:
        status = 200
        if payment is not None:
            driven = await service.drive(engine, environment, account.id, payment.id)
            if driven.status == "failed":
                return refused_answer(call, driven)
            status = 202 if driven.is_open else 200
        return Answer(status, shapes.wrapped(await _shown_balance(call, account.id, denomination)))

    return await call.once_in_steps(Steps(begin, resume, finish))


async def _preview_refill(call: Call, account_id: int, denomination: str, changes: Mapping[str, Any]) -> Answer:
    """What setting it so would charge now: the first monthly refill, or nothing."""
    async with call.engine.database.reading() as reader:
        known = await refill_store.read_refill(reader, account_id, denomination)
    now = call.engine.now_of(call.environment)
    planned = (known or new_refill(account_id, denomination, call.environment.id, now))._replace(**changes)
    _refuse_unchargeable(planned)
    starts = planned.is_monthly and (known is None or not known.is_monthly)
    return _previewed(
        planned.charge_amount if starts else 0,
        planned.charge_denomination,
        planned.amount if starts else 0,
        denomination,
    )


async def end_refill(call: Call) -> Answer:
    """End the refills of a balance at once."""
    account, denomination = await call.account(), call.denomination()

    async def begin(unit: Unit) -> None:
        await refills.end_refill(call.engine, unit, call.environment, account.id, denomination)

    return await _balance_after(call, account.id, denomination, begin)


async def resume_refill(call: Call) -> Answer:
    """Take a parked refill up again."""
    account, denomination = await call.account(), call.denomination()

    async def begin(unit: Unit) -> None:
        await refills.resume_refill(call.engine, unit, call.environment, account.id, denomination)

    return await _balance_after(call, account.id, denomination, begin)


async def _balance_after(call: Call, account_id: int, denomination: str, begin: Any) -> Answer:
    async def resume(_: Unit) -> None:
        return None

    async def finish(_: None) -> Answer:
        return Answer(200, shapes.wrapped(await _shown_balance(call, account_id, denomination)))

    return await call.once_in_steps(Steps(begin, resume, finish))


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
        found: Payment = await verb(call.engine, unit, call.environment, payment.account_id, payment.id)
        return found

    async def resume(_: Unit) -> Payment:
        return payment

    async def finish(changed: Payment) -> Answer:
        driven = await service.drive(call.engine, call.environment, changed.account_id, changed.id)
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
    payment, once = await _owned(call), call.idempotency()
    given = call.decoded(RefundIn) if call.body else RefundIn()
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
        driven = await refunds.drive_refund(call.engine, call.environment, refund.account_id, refund.id)
        if driven.status == "failed":
            refusal = Refusal("gateway_refused", f"Stripe refuses the refund: {driven.code}.", gateway_code=driven.code)
            return Answer(422, error_body(refusal, call.request_id))
        status = 202 if driven.status == "intended" else 200
        return Answer(status, shapes.wrapped(refund_out(driven, payment)))

    return await call.once_in_steps(Steps(begin, resume, finish))


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
            Param("status", "pending|succeeded|failed|skipped|voided|refunded", "Only payments with this status."),
            Param("reason", "deposit|refill|threshold_refill|refill_start|invoice", "Only payments for this."),
            Param("method", "card|balance|out_of_band", "Only payments made this way."),
            Param("currency", "text", "Only payments in this currency."),
            Param("from", "moment", "Made at or after this time."),
            Param("to", "moment", "Made before this time."),
        ),
        is_list=True,
        refusals=("invalid_cursor",),
    )


_PENDING: Final = "Not known yet: it goes on by itself. Ask for it again, by its id."
_CHARGED: Final = (
    *("payment_method_required", "payment_failed", "refill_in_progress", "amount_not_chargeable", "gateway_refused"),
    *("gateway_not_configured", "gateway_unavailable", "insufficient_balance", "credit_limit_reached"),
    "balance_out_of_range",
)

ROUTES: Final = (
    *(
        Route(
            "POST",
            path,
            deposit,
            "Deposit, charging a card or another balance",
            "Payments",
            DepositOut | DepositPreviewOut,
            scope="payments:write",
            body=DepositIn,
            refusals=_CHARGED,
            pending=_PENDING,
            example={"amount_to_deposit": 1000, "amount_to_charge": 500, "denomination": "tokens"}
            if path.endswith("{account_id}/deposit")
            else {"amount_to_deposit": 1000, "amount_to_charge": 500},
        )
        for path in ("/accounts/{account_id}/deposit", "/accounts/{account_id}/balance/{denomination}/deposit")
    ),
    *(
        Route(
            "PUT",
            path,
            set_refill,
            "Set how a balance is refilled",
            "Refills",
            shapes.BalanceOut | DepositPreviewOut,
            scope="payments:write",
            body=RefillIn,
            refusals=_CHARGED,
            pending=_PENDING,
            example={"threshold": 100, "amount": 1000, "usd_charge": 500}
            | ({"denomination": "tokens"} if path.endswith("auto_refill") else {}),
        )
        for path in ("/accounts/{account_id}/auto_refill", "/accounts/{account_id}/balance/{denomination}/autorefill")
    ),
    Route(
        "DELETE",
        "/accounts/{account_id}/balance/{denomination}/autorefill",
        end_refill,
        "End the refills of a balance",
        "Refills",
        shapes.BalanceOut,
        scope="payments:write",
    ),
    Route(
        "POST",
        "/accounts/{account_id}/balance/{denomination}/autorefill/resume",
        resume_refill,
        "Take a parked refill up again",
        "Refills",
        shapes.BalanceOut,
        scope="payments:write",
        refusals=("no_refill",),
    ),
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
        pending=_PENDING,
        example={"amount": 100, "reason": "goodwill"},
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
