"""The plan of one account: put on, changed, modified, paused, ended, agreed; each with a preview that is the truth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from tenuto.core.identifiers import read, spell, spell_of_account
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.plan import SCHEMES, PlanTerms, Scheme, price_of
from tenuto.core.subscription import Step, Subscription
from tenuto.engine import Answer
from tenuto.service import payments as payment_service
from tenuto.service import renewals
from tenuto.service import subscriptions as service
from tenuto.service.idempotency import Steps
from tenuto.service.subscriptions import Begun, Decide, Decided, ModifyAsk, PlanAsk
from tenuto.store import payments as payment_store
from tenuto.store import subscriptions
from tenuto.store.accounts import read_account
from tenuto.store.database import Unit
from tenuto.store.invoices import read_owed
from tenuto.store.records import Page
from tenuto.store.subscriptions import StoredStep

from . import body as bodies
from . import shapes
from .payments import PENDING, refused_answer
from .plan_input import PlanChange, cadence_of, changes_of
from .refills import ModifiedOut, modified, modify_refill, the_denomination
from .routes import PAGING, Call, Route
from .usage import page_of

UNITS_MAX: Final = 50


class ChangePlanIn(msgspec.Struct, forbid_unknown_fields=True):
    """The plan an account is to be on; what is missing stays as it is."""

    plan_id: str | None = None
    scheme: str | None = None
    cadence: str | None = None
    plan_variable_amounts: dict[str, int] | None = None
    preview: bool = False


class PlanAskedIn(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The plan that an account is to begin with, where something else is asked for too."""

    plan_id: str | None = None
    plan_variable_amounts: dict[str, int] | None = None
    plan_renewal_cadence: str | None = None


class ModifyIn(msgspec.Struct, forbid_unknown_fields=True):
    """More of one balance a month, for another price, from now on."""

    amount: int
    usd_charge: int
    denomination: str | None = None
    preview: bool = False


class CancelPlanIn(msgspec.Struct, forbid_unknown_fields=True):
    """When the plan ends, and whether what is unused is given back."""

    at_period_end: bool = True
    prorate: bool = False
    preview: bool = False


class PlanOverridesIn(PlanChange, forbid_unknown_fields=True):
    """What is agreed with this account alone, in the shape of a plan: only what differs."""


class PlanLineOut(shapes.Shape):
    """One explained part: ``quantity`` at ``unit`` each come to ``amount`` of ``denomination``."""

    kind: str
    description: str
    quantity: int
    unit: int | None
    amount: int
    denomination: str


class PlanStepOut(shapes.Shape):
    """What a step does: charged and credited in ``denomination``, units that end and come, line by line."""

    kind: str
    scheme: str | None
    plan_id: str
    denomination: str
    charge: int
    credit: int
    lines: list[PlanLineOut]
    granted: dict[str, int]
    cancelled: dict[str, int]
    at: str | None
    id: str | msgspec.UnsetType | None = msgspec.UNSET
    payment_id: str | msgspec.UnsetType | None = msgspec.UNSET
    preview: bool | msgspec.UnsetType = msgspec.UNSET
    cadence: str | msgspec.UnsetType = msgspec.UNSET
    plan_status: str | msgspec.UnsetType = msgspec.UNSET
    next_plan_renewal: str | msgspec.UnsetType | None = msgspec.UNSET


class ScheduledOut(shapes.Shape):
    """What the plan changes to at the next renewal."""

    plan_id: str
    cadence: str
    plan_variable_amounts: dict[str, int]
    at: str | None


class AccountPlanOut(shapes.Shape):
    """The plan an account is on, or was on last: its running period, what it costs, and what is scheduled."""

    account_id: str
    plan_id: str
    plan_status: str
    name: str
    cadence: str
    renewal_denomination: str
    renewal_amount: int
    plan_variable_amounts: dict[str, int]
    period_start: str | None
    period_end: str | None
    next_refill: str | None
    cancel_at_period_end: bool
    scheduled: ScheduledOut | None
    has_overrides: bool
    payment_id: str | None
    ended_at: str | None
    created_at: str | None


# --- shapes -----------------------------------------------------------------------------------------------------------


def status_of(found: Subscription | None) -> str:
    """The status in the contract's words (contract 2.1)."""
    return "NONE" if found is None else found.status.upper()


def next_renewal(found: Subscription) -> str | None:
    """When the plan renews next by itself."""
    is_renewing = found.status in {"trialing", "active"} and not found.cancels_at_end
    return bodies.spelled(found.period_end) if is_renewing else None


def _previewed(decided: Decided) -> PlanStepOut:
    step, after = decided.step, decided.step.subscription
    later = after.scheduled or {}
    return PlanStepOut(
        kind=step.kind,
        scheme=step.scheme,
        plan_id=spell("p", later.get("plan_id", after.plan_id)),
        denomination=step.denomination,
        charge=step.charge,
        credit=step.credit,
        lines=[
            PlanLineOut(line.kind, line.description, line.quantity, line.unit, line.amount, line.denomination)
            for line in step.lines
        ],
        granted=dict(step.granted),
        cancelled=dict(step.cancelled),
        at=bodies.spelled(_takes_effect(step)),
        preview=True,
        cadence=later.get("cadence", after.cadence),
        plan_status=status_of(after),
        next_plan_renewal=next_renewal(after),
    )


def _takes_effect(step: Step) -> Any:
    """When a step counts: at its own date, or with the next renewal."""
    return step.at if step.is_now else step.subscription.period_end


def _stored(step: StoredStep) -> PlanStepOut:
    payment_id = step.payment_id
    return PlanStepOut(
        kind=step.kind,
        scheme=step.scheme,
        plan_id=spell("p", step.plan_id),
        denomination=step.denomination,
        charge=step.charge,
        credit=step.credit,
        lines=[PlanLineOut(**{name: line.get(name) for name in PlanLineOut.__struct_fields__}) for line in step.lines],
        granted=step.granted,
        cancelled=step.cancelled,
        at=bodies.spelled(step.for_at),
        id=spell_of_account("ps", step.account_id, step.id),
        payment_id=None if payment_id is None else spell_of_account("pay", step.account_id, payment_id),
    )


def _shown(found: Subscription, terms: PlanTerms) -> AccountPlanOut:
    scheduled = None
    if found.scheduled:
        later = found.scheduled
        scheduled = ScheduledOut(
            spell("p", later["plan_id"]), later["cadence"], later["variable_units"], bodies.spelled(found.period_end)
        )
    payment_id = found.payment_id
    return AccountPlanOut(
        account_id=spell("a", found.account_id),
        plan_id=spell("p", found.plan_id),
        plan_status=status_of(found),
        name=terms.name,
        cadence=found.cadence,
        renewal_denomination=terms.denomination,
        renewal_amount=price_of(terms, found.cadence, found.variable_units),
        plan_variable_amounts=dict(found.variable_units),
        period_start=bodies.spelled(found.period_start),
        period_end=bodies.spelled(found.period_end),
        next_refill=bodies.spelled(found.refill_at or found.period_end) if found.is_running else None,
        cancel_at_period_end=found.cancels_at_end,
        scheduled=scheduled,
        has_overrides=found.override_id is not None,
        payment_id=None if payment_id is None else spell_of_account("pay", found.account_id, payment_id),
        ended_at=bodies.spelled(found.ended_at),
        created_at=bodies.spelled(found.created_at),
    )


# --- reading ----------------------------------------------------------------------------------------------------------


async def get_account_plan(call: Call) -> Answer:
    """The plan an account is on, or was on last."""
    account = await call.account()
    async with call.engine.database.reading() as reader:
        found = await subscriptions.read_subscription(reader, account.id)
        if found is None:
            raise Refusal("no_plan")
        terms = await subscriptions.read_terms(reader, call.environment.id, account.id, found)
    return Answer(200, shapes.wrapped(_shown(found, terms)))


async def list_plan_steps(call: Call) -> Answer:
    """What was done to an account's plan, newest first, as it was previewed: every amount with its lines."""
    account = await call.account()
    async with call.engine.database.reading() as reader:
        found = await subscriptions.list_steps(reader, account.id, call.page())
    return page_of(call, found, lambda step: (step.id, step.account_id), _stored)


# --- changing ---------------------------------------------------------------------------------------------------------


def plan_ask(given: ChangePlanIn) -> PlanAsk:
    """What is asked for, each field judged in itself."""
    scheme: Scheme | None = None
    if given.scheme is not None:
        if given.scheme not in SCHEMES:
            raise invalid("scheme", f"is one of {', '.join(SCHEMES)}.")
        scheme = given.scheme  # type: ignore[assignment] # one of the three, as was just seen
    return PlanAsk(
        plan_id=None if given.plan_id is None else plan_number(given.plan_id),
        cadence=None if given.cadence is None else cadence_of(given.cadence, "cadence"),
        units=None if given.plan_variable_amounts is None else chosen_units(given.plan_variable_amounts),
        scheme=scheme,
    )


def plan_asked(given: PlanAskedIn) -> PlanAsk | None:
    """The plan that an account is to begin with (contract 2.1); None where none is."""
    if given.plan_id is None:
        if given.plan_variable_amounts is not None:
            raise invalid("plan_variable_amounts", "go with a plan_id.")
        return None
    return plan_ask(
        ChangePlanIn(
            plan_id=given.plan_id,
            cadence=given.plan_renewal_cadence,
            plan_variable_amounts=given.plan_variable_amounts,
        )
    )


def plan_number(text: str) -> int:
    """The number behind a plan's id in a body."""
    found = read("p", text)
    if found is None:
        raise invalid("plan_id", "is no plan of this company.")
    return found


def chosen_units(given: Mapping[str, int]) -> dict[str, int]:
    """Units that an account chooses of its plan's balances."""
    if len(given) > UNITS_MAX:
        raise invalid("plan_variable_amounts", f"names at most {UNITS_MAX} balances.", "out_of_range")
    return {
        bodies.token(name, "plan_variable_amounts", bodies.DENOMINATION_MAX): bodies.whole(
            units, f"plan_variable_amounts.{name}"
        )
        for name, units in given.items()
    }


async def change_plan(call: Call) -> Answer:
    """Put an account on a plan, or change the one it is on, by one of three schemes."""
    given = call.decoded(ChangePlanIn)
    ask = plan_ask(given)
    account_id = call.id("a", "account_id")
    if given.preview:
        await call.account()
        return _answered(await service.preview_change(call.engine, call.environment, account_id, ask))
    call.caller.needs_for_money("payments:write")
    once = call.idempotency()

    async def begin(unit: Unit) -> Begun:
        return await service.change_plan(call.engine, unit, call.environment, account_id, ask, once)

    return await in_steps(call, account_id, begin)


def _answered(decided: Decided) -> Answer:
    return Answer(200, shapes.wrapped(_previewed(decided)))


async def in_steps(
    call: Call,
    account_id: int,
    begin: Callable[[Unit], Awaitable[Begun]],
    render: Callable[[Begun], Awaitable[Any]] | None = None,
) -> Answer:
    """Begin a step, drive its payment where it has one, and answer: 200 done, 402 refused, 202 not known yet."""
    once = call.idempotency()

    async def resume(unit: Unit) -> Begun:
        found = None if once is None else await payment_store.find_by_request(unit, account_id, once.key)
        if found is not None:
            return Begun(subscriptions.step_of_json((found.settings or {})["step"]), found, account_id)
        # No card was asked: the step was done in the unit that took the key, and only its answer is missing.
        done = await subscriptions.list_steps(unit, account_id, Page(1, None))
        if not done:
            # Nothing of it is left: the payment failed, and the account went with it.
            return await begin(unit)
        return Begun(done[0], None, account_id)

    async def finish(begun: Begun) -> Answer:
        status = 200
        if begun.payment is not None:
            driven = await payment_service.drive(call.engine, call.environment, account_id, begun.payment.id, fence=0)
            if driven.status in {"failed", "voided"}:
                return refused_answer(call, driven)
            status = 202 if driven.is_open else 200
        shown = await shown_account(call, account_id) if render is None else await render(begun)
        return Answer(status, shapes.wrapped(shown))

    return await call.once_in_steps(Steps(begin, resume, finish))


async def shown_account(call: Call, account_id: int) -> shapes.AccountOut:
    """An account as it is now."""
    async with call.engine.database.reading() as reader:
        return await account_in(call, reader, account_id)


async def account_in(call: Call, reader: Any, account_id: int) -> shapes.AccountOut:
    """An account as a reader, or the unit that changed it, sees it."""
    found = await read_account(reader, call.environment.id, account_id)
    if found is None:
        raise Refusal("not_found")
    owed = await read_owed(reader, [account_id])
    return shapes.account(found, owed.get(account_id, {}), call.currency())


async def _simple(call: Call, decide: Decide, *, preview: bool = False) -> Answer:
    """A step that no card is asked for."""
    account_id = call.id("a", "account_id")
    if preview:
        await call.account()
        return _answered(await service.preview_step(call.engine, call.environment, account_id, decide))

    async def verb(unit: Unit) -> shapes.AccountOut:
        await service.begin_step(call.engine, unit, call.environment, account_id, decide)
        call.engine.nudge("renew_due")
        return await account_in(call, unit, account_id)

    return await call.once(verb, shapes.wrapped)


async def cancel_plan(call: Call) -> Answer:
    """End the plan with its period, or now; what is unused is given back to the balance where that is asked for."""
    given = call.decoded(CancelPlanIn) if call.body else CancelPlanIn()
    if given.at_period_end and given.prorate:
        raise invalid("prorate", "gives back what is unused now; at the end of the period nothing is.")
    if given.prorate and not given.preview:
        call.caller.needs_for_money("payments:write")
    decide = service.cancelling(at_end=given.at_period_end, prorates=given.prorate)
    return await _simple(call, decide, preview=given.preview)


async def pause_plan(call: Call) -> Answer:
    """No renewal until the plan is resumed."""
    return await _simple(call, service.PAUSING)


async def resume_plan(call: Call) -> Answer:
    """Take a paused plan up again."""
    return await _simple(call, service.RESUMING)


async def drop_scheduled(call: Call) -> Answer:
    """Drop what was scheduled for the end of the period: a change, or the end itself."""
    return await _simple(call, service.REINSTATING)


async def renew_plan(call: Call) -> Answer:
    """Try a renewal that could not be paid again, now."""
    account_id = call.id("a", "account_id")

    async def verb(unit: Unit) -> shapes.AccountOut:
        await renewals.renew_now(call.engine, unit, call.environment, account_id)
        return await account_in(call, unit, account_id)

    answer = await call.once(verb, shapes.wrapped)
    call.engine.nudge("renew_due")
    return answer


async def agree_terms(call: Call) -> Answer:
    """Agree other prices or amounts of its plan with one account."""
    account_id = call.id("a", "account_id")
    changes = changes_of(call.decoded(PlanOverridesIn))
    if "event_prices" in changes:
        raise invalid("event_prices", "of one account are set with POST /accounts/{account_id}/event_prices.")

    async def verb(unit: Unit) -> AccountPlanOut:
        found = await service.agree_terms(call.engine, unit, call.environment, account_id, changes)
        return _shown(found, await subscriptions.read_terms(unit, call.environment.id, account_id, found))

    return await call.once(verb, shapes.wrapped)


# --- in the middle of a month -----------------------------------------------------------------------------------------


async def modify_mid_month(call: Call) -> Answer:
    """More units from now on for another price: what is left of the old ones is given back, the month begins anew."""
    given = call.decoded(ModifyIn)
    account = await call.account()
    ask = ModifyAsk(
        await the_denomination(call, account.id, given.denomination),
        bodies.whole(given.amount, "amount", least=1),
        bodies.whole(given.usd_charge, "usd_charge"),
    )
    async with call.engine.database.reading() as reader:
        offer = await service.modified_offer(call.engine, reader, call.environment, account.id, ask, keeps=False)
    if offer is None:
        return await modify_refill(call, account, ask, is_preview=given.preview)
    if given.preview:
        decide = service.modifying(offer, ask)
        return _answered(await service.preview_step(call.engine, call.environment, account.id, decide))
    once = call.idempotency()

    async def begin(unit: Unit) -> Begun:
        return await service.modify_mid_month(call.engine, unit, call.environment, account.id, ask, once)

    async def render(begun: Begun) -> ModifiedOut:
        return await modified(call, account.id, ask.denomination, begun.step.charge, begun.step.credit)

    return await in_steps(call, account.id, begin, render)


_CHARGED: Final = (
    *("payment_method_required", "payment_failed", "plan_change_in_progress", "amount_not_chargeable"),
    *("gateway_refused", "gateway_not_configured", "gateway_unavailable", "insufficient_balance"),
    *("credit_limit_reached", "balance_out_of_range"),
)


def _post(path: str, serve: Any, summary: str, answer: Any, **more: Any) -> Route:
    return Route(
        more.pop("method", "POST"),
        f"/accounts/{{account_id}}/{path}",
        serve,
        summary,
        "Plans of accounts",
        answer,
        scope=more.pop("scope", "accounts:write"),
        **more,
    )


ROUTES: Final = (
    _post(
        "changeplan",
        change_plan,
        "Put an account on a plan, or change its plan",
        shapes.AccountOut | PlanStepOut,
        body=ChangePlanIn,
        refusals=(*_CHARGED, "plan_not_paid", "plan_not_active"),
        pending=PENDING,
        example={"plan_id": "p_00000000", "scheme": "ariel", "preview": True},
        details="With `preview` nothing is done, and the answer says line by line what would be.",
    ),
    _post(
        "modifymidmonth",
        modify_mid_month,
        "Modify a monthly amount now",
        ModifiedOut | PlanStepOut,
        scope="payments:write",
        body=ModifyIn,
        refusals=(*_CHARGED, "no_refill"),
        pending=PENDING,
        example={"denomination": "tokens", "amount": 5000, "usd_charge": 4000, "preview": True},
    ),
    _post(
        "cancelplan",
        cancel_plan,
        "End an account's plan",
        shapes.AccountOut | PlanStepOut,
        body=CancelPlanIn,
        refusals=("no_plan", "plan_change_in_progress"),
        example={"at_period_end": True},
    ),
    _post(
        "pauseplan",
        pause_plan,
        "Pause an account's plan",
        shapes.AccountOut,
        refusals=("no_plan", "plan_not_active", "plan_change_in_progress"),
    ),
    _post(
        "resumeplan",
        resume_plan,
        "Resume an account's plan",
        shapes.AccountOut,
        refusals=("no_plan", "plan_not_paused", "plan_change_in_progress"),
    ),
    _post(
        "renewplan",
        renew_plan,
        "Try an unpaid renewal again",
        shapes.AccountOut,
        scope="payments:write",
        refusals=("no_plan", "plan_not_active"),
    ),
    _post(
        "plan/scheduled",
        drop_scheduled,
        "Drop what is scheduled for an account's plan",
        shapes.AccountOut,
        method="DELETE",
        refusals=("no_plan", "nothing_scheduled", "plan_change_in_progress"),
    ),
    _post(
        "plan",
        get_account_plan,
        "Get an account's plan",
        AccountPlanOut,
        method="GET",
        scope="accounts:read",
        refusals=("no_plan",),
    ),
    _post(
        "plan/history",
        list_plan_steps,
        "List what was done to an account's plan",
        PlanStepOut,
        method="GET",
        scope="accounts:read",
        query=PAGING,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    _post(
        "plan/overrides",
        agree_terms,
        "Agree terms of its plan with one account",
        AccountPlanOut,
        method="PUT",
        scope="catalog:write",
        body=PlanOverridesIn,
        refusals=("no_plan", "plan_change_in_progress"),
        example={"balances": {"tokens": {"overage_charge_amount": "2"}}},
        details="What is sent takes the place of what was agreed before; an empty object takes it back.",
    ),
)
