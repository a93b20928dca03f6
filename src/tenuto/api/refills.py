"""What fills a balance: deposits, and refills by date or below a threshold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from tenuto.core.invoice import settings_of
from tenuto.core.money import is_fiat
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import Payment
from tenuto.core.refill import Refill, change, new_refill
from tenuto.engine import Answer, Once
from tenuto.service import payments as service
from tenuto.service import refills
from tenuto.service import subscriptions as plans
from tenuto.service.idempotency import Steps
from tenuto.service.subscriptions import ModifyAsk
from tenuto.store import payments as store
from tenuto.store import records
from tenuto.store import refills as refill_store
from tenuto.store.accounts import Account
from tenuto.store.database import Unit
from tenuto.store.ledger import lock_accounts

from . import body as bodies
from . import shapes
from .payments import PENDING, PaymentOut, payment_fields, refused_answer
from .routes import Call, Route


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


class ModifiedOut(shapes.Shape):
    """A balance after it was modified in the middle of a month, what that charged, and what it gave back."""

    balance: shapes.BalanceOut | None
    charged: int
    credit: int
    next_periodic_refill: str | None


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


# --- deposits ---------------------------------------------------------------------------------------------------------


async def the_denomination(call: Call, account_id: int, given: str | None) -> str:
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
    denomination = await the_denomination(call, account.id, given.denomination)
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
        preview=True, amount_to_charge=charge, currency=currency, amount_to_deposit=units, denomination=denomination
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
        driven = await service.drive(call.engine, call.environment, account_id, payment.id, fence=0)
        if driven.status == "failed":
            return refused_answer(call, driven)
        balance = await _shown_balance(call, account_id, driven.denomination)
        body = shapes.wrapped(DepositOut(payment=PaymentOut(**payment_fields(driven)), balance=balance))
        return Answer(202 if driven.is_open else 200, body)

    return await call.once_in_steps(Steps(begin, resume, finish))


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

    async def verb(unit: Unit) -> tuple[Payment, records.BalanceRow]:
        payment = await refills.deposit_from_balance(
            call.engine,
            unit,
            call.environment,
            account_id,
            denomination=denomination,
            units=units,
            amount=charge,
            source=source,
        )
        return payment, await balance_in(call, unit, account_id, denomination)

    def render(made: tuple[Payment, records.BalanceRow]) -> bytes:
        payment, row = made
        return shapes.wrapped(DepositOut(payment=PaymentOut(**payment_fields(payment)), balance=shapes.balance(row)))

    return await call.once(verb, render)


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
    denomination = await the_denomination(call, account.id, given.denomination)
    changes = _refill_changes(call, given, denomination)
    if given.preview:
        return await _preview_refill(call, account.id, denomination, changes)
    return await put_refill(call, account, denomination, changes)


async def put_refill(
    call: Call,
    account: Account,
    denomination: str,
    changes: Mapping[str, Any],
    *,
    opening: Callable[[Unit], Awaitable[None]] | None = None,
) -> Answer:
    """Set a refill, on a balance that ``opening`` opens in the same unit where there is none yet."""
    engine, environment, once = call.engine, call.environment, call.idempotency()

    async def begin(unit: Unit) -> Payment | None:
        if opening is not None:
            await opening(unit)
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
            driven = await service.drive(engine, environment, account.id, payment.id, fence=0)
            if driven.status == "failed":
                return refused_answer(call, driven)
            status = 202 if driven.is_open else 200
        return Answer(status, shapes.wrapped(await _shown_balance(call, account.id, denomination)))

    return await call.once_in_steps(Steps(begin, resume, finish))


async def _preview_refill(call: Call, account_id: int, denomination: str, changes: Mapping[str, Any]) -> Answer:
    """What setting it so would charge now: the first monthly refill, or nothing. Refused as setting it would be."""
    async with call.engine.database.reading() as reader:
        known = await refill_store.read_refill(reader, account_id, denomination)
    now = call.engine.now_of(call.environment)
    before = known or new_refill(account_id, denomination, call.environment.id, now)
    planned = before._replace(**changes)
    _refuse_unchargeable(planned)
    if known is None:
        refills.refuse_incomplete(changes)
    starts = change(before, changes, is_new=known is None).starts_monthly
    return _previewed(
        planned.charge_amount if starts else 0,
        planned.charge_denomination,
        planned.amount if starts else 0,
        denomination,
    )


async def schedule_refill(call: Call) -> Answer:
    """Set a refill, or of what a plan fills: another amount for another price from the next renewal on."""
    given = call.decoded(RefillIn)
    if given.amount is None or given.usd_charge is None or given.threshold is not msgspec.UNSET:
        return await set_refill(call)
    account = await call.account()
    ask = ModifyAsk(
        await the_denomination(call, account.id, given.denomination),
        bodies.whole(given.amount, "amount"),
        bodies.whole(given.usd_charge, "usd_charge"),
    )
    async with call.engine.database.reading() as reader:
        offer = await plans.modified_offer(call.engine, reader, call.environment, account.id, ask, keeps=False)
    if offer is None:
        return await set_refill(call)
    if given.preview:
        return _previewed(0, offer.terms.denomination, 0, ask.denomination)

    async def verb(unit: Unit) -> records.BalanceRow:
        if await plans.schedule_amount(call.engine, unit, call.environment, account.id, ask) is None:
            raise Refusal("no_plan")
        return await balance_in(call, unit, account.id, ask.denomination)

    return await call.once(verb, lambda found: shapes.wrapped(shapes.balance(found)))


async def modify_refill(call: Call, account: Account, ask: ModifyAsk, *, is_preview: bool) -> Answer:
    """More of a monthly refill now, for the price less what is left of the last one (contract 3.3)."""
    engine, environment, once = call.engine, call.environment, call.idempotency()
    if is_preview:
        async with engine.database.reading() as reader:
            change = await refills.modified(reader, environment, account.id, ask.denomination, ask.amount, ask.charge)
        _refuse_modified(change)
        return _previewed(change.charge, change.refill.charge_denomination, ask.amount, ask.denomination)

    async def begin(unit: Unit) -> tuple[refills.Modified | None, Payment | None]:
        await lock_accounts(unit, [account.id])
        change = await refills.modified(unit, environment, account.id, ask.denomination, ask.amount, ask.charge)
        _refuse_modified(change)
        if change.refill.source == "balance" or not change.charge:
            await refills.modify_at_once(engine, unit, environment, account.id, change)
            return change, None
        wanted = service.Deposit(ask.denomination, ask.amount, change.charge, change.refill.charge_denomination)
        begun = await service.begin_deposit(
            engine, unit, environment, account.id, wanted, once, starts=change.refill, cancels=change.cancels
        )
        return change, begun

    async def resume(unit: Unit) -> tuple[refills.Modified | None, Payment | None]:
        found = None if once is None else await store.find_by_request(unit, account.id, once.key)
        if found is None:
            raise Refusal("request_in_progress")
        return None, found

    async def finish(begun: tuple[refills.Modified | None, Payment | None]) -> Answer:
        change, payment = begun
        status, charged, credit = 200, 0, 0 if change is None else change.credit
        if payment is not None:
            driven = await service.drive(engine, environment, account.id, payment.id, fence=0)
            if driven.status == "failed":
                return refused_answer(call, driven)
            status, charged, credit = 202 if driven.is_open else 200, driven.amount, ask.charge - driven.amount
        elif change is not None:
            charged = change.charge
        return Answer(status, shapes.wrapped(await modified(call, account.id, ask.denomination, charged, credit)))

    return await call.once_in_steps(Steps(begin, resume, finish))


def _refuse_modified(change: refills.Modified) -> None:
    if change.refill.source == "card" and change.charge:
        service.refuse_uncharged(change.charge, change.refill.charge_denomination, "usd_charge")


async def modified(call: Call, account_id: int, denomination: str, charged: int, credit: int) -> ModifiedOut:
    """The answer to a change in the middle of a month (contract 2.2)."""
    balance = await _shown_balance(call, account_id, denomination)
    return ModifiedOut(balance, charged, credit, None if balance is None else balance.next_periodic_refill)


async def end_refill(call: Call) -> Answer:
    """End the refills of a balance at once."""
    return await _balance_after(call, refills.end_refill)


async def resume_refill(call: Call) -> Answer:
    """Take a parked refill up again."""
    return await _balance_after(call, refills.resume_refill)


async def _balance_after(call: Call, change: Callable[..., Awaitable[object]]) -> Answer:
    account, denomination = await call.account(), call.denomination()

    async def verb(unit: Unit) -> records.BalanceRow:
        await change(call.engine, unit, call.environment, account.id, denomination)
        return await balance_in(call, unit, account.id, denomination)

    return await call.once(verb, lambda found: shapes.wrapped(shapes.balance(found)))


async def balance_in(call: Call, unit: Unit, account_id: int, denomination: str) -> records.BalanceRow:
    """A balance as the unit that changed it sees it."""
    found = await records.list_balances(unit, account_id, call.engine.now_of(call.environment))
    return next(row for row in found if row.denomination == denomination)


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
            pending=PENDING,
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
            schedule_refill,
            "Set how a balance is refilled",
            "Refills",
            shapes.BalanceOut | DepositPreviewOut,
            scope="payments:write",
            body=RefillIn,
            refusals=_CHARGED,
            pending=PENDING,
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
)
