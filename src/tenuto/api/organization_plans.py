"""Prices and subscriptions as the people of an organization see them, on the plans that the company sells.

A price is a plan at one cadence, a subscription the account on it, a quantity the units chosen of the plan's one
balance that has any to choose (decision 0046). Sources: contract 5.8 and 5.12.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple, get_args

import msgspec

from tenuto.core.event import AccountState
from tenuto.core.identifiers import read, read_of_account, spell, spell_of_account
from tenuto.core.invoice import Collection
from tenuto.core.money import AMOUNT_MAX, is_fiat
from tenuto.core.organization import READ_SCOPE, WRITE_SCOPE, currency_of
from tenuto.core.outcomes import Kind, Refusal
from tenuto.core.payment import Payment
from tenuto.core.plan import Cadence, PlanTerms, included, variable_lines
from tenuto.core.subscription import Offer, Step, Subscription
from tenuto.engine import Answer
from tenuto.service import invoicing
from tenuto.service import organization_plans as own
from tenuto.service import payments as payment_service
from tenuto.service import subscriptions as service
from tenuto.service.idempotency import Steps
from tenuto.service.invoicing import TermsWanted
from tenuto.service.organization_plans import Current
from tenuto.service.subscriptions import Decide, PlanAsk
from tenuto.store import payments as payment_store
from tenuto.store.accounts import Account, read_account
from tenuto.store.database import Reader, Unit
from tenuto.store.plans import read_plan
from tenuto.store.subscriptions import Standing, read_subscription

from . import body as bodies
from . import dialect, shapes
from .dialect import FAMILY, Problems
from .organizations import own_account
from .payments import refused_payment
from .routes import Call, Param, Route

_LETTERS: Final[Mapping[Cadence, str]] = {"MONTHLY": "m", "YEARLY": "y", "ONE_OFF": "o"}
_INTERVALS: Final[Mapping[Cadence, str | None]] = {"MONTHLY": "month", "YEARLY": "year", "ONE_OFF": None}
_NO: Final = frozenset({"plan_not_active", "plan_change_in_progress", "plan_not_paid", "no_plan", "nothing_scheduled"})
"""What the plan of the account does not allow now: to the people of an organization, a field that is not right."""


# --- shapes -----------------------------------------------------------------------------------------------------------


class BoundsOut(shapes.Shape):
    """From how many to how many may be bought."""

    minimum: int
    maximum: int


class PriceOut(shapes.Shape):
    """A plan at one interval: ``base_amount`` and ``quantity`` times ``unit_amount`` a period, in major units.

    ``unit`` names what the quantity counts, ``includes`` what a period brings without it. ``…_minor`` are the same
    amounts in the smallest units of the currency.
    """

    id: str
    plan: str
    nickname: str
    type: str
    interval: str | None
    currency: str
    currency_symbol: str
    unit: str | None
    unit_amount: float
    unit_amount_minor: int
    base_amount: float
    base_amount_minor: int
    quantity: BoundsOut
    includes: dict[str, int]
    trial_days: int
    setup_fee: float


class SubscriptionItemOut(shapes.Shape):
    """What is subscribed to, how many of it, and what a period of that costs in major units."""

    price: PriceOut
    quantity: int
    amount: float


class UpdateOut(shapes.Shape):
    """What the subscription changes to at the next renewal."""

    items: list[SubscriptionItemOut]
    at: str | None


class SubscriptionOut(shapes.Shape):
    """A subscription, with a status in Stripe's words. Times are in the zone of the token."""

    id: str
    status: str
    automatic_tax: bool
    cancel_at_period_end: bool
    collection_method: str
    currency: str
    currency_symbol: str
    current_period_start: str | None
    current_period_end: str | None
    trial_end: str | None
    cancel_at: str | None
    canceled_at: str | None
    ended_at: str | None
    items: list[SubscriptionItemOut]
    pending_update: UpdateOut | None
    created_at: str | None


class ItemIn(msgspec.Struct):
    """What is to be subscribed to."""

    price: str | None = None
    quantity: int = 1


class SubscriptionIn(msgspec.Struct):
    """A subscription: one item, how it is paid, and whether it ends with its period."""

    items: list[ItemIn] = []
    collection_method: str | None = None
    cancel_at_period_end: bool | None = None


class EndIn(msgspec.Struct):
    """When a subscription ends."""

    at_period_end: bool = False


def amount_in(amount: int, currency: str) -> float:
    """An amount in major units; units that are no money are whole as they are."""
    return dialect.major(amount, currency) if is_fiat(currency) else float(amount)


def price_id(plan_id: int, cadence: Cadence) -> str:
    """The id of a price: the plan's digits, and a letter for how often."""
    return f"{spell('price', plan_id)}{_LETTERS[cadence]}"


def _counted(terms: PlanTerms) -> list[str]:
    """The balances of a plan of which an account chooses how many units it wants."""
    return [name for name, balance in terms.balances.items() if balance.variable_cost is not None]


def _comes_to(terms: PlanTerms, cadence: Cadence, units: Mapping[str, int]) -> int:
    """What a period costs, shown even where it is more than could be charged."""
    return terms.renewals[cadence] + sum(cost * count for _, count, cost in variable_lines(terms, cadence, units))


def _price(plan_id: int, cadence: Cadence, terms: PlanTerms, units: Mapping[str, int] | None = None) -> PriceOut:
    """A price; one that the account is on is shown with ``units`` where it counts more than one thing."""
    counted, currency = _counted(terms), terms.denomination
    if len(counted) == 1:
        balance = terms.balances[counted[0]]
        assert balance.variable_cost is not None
        base, unit = terms.renewals[cadence], balance.variable_cost[cadence]
        bounds = BoundsOut(minimum=0, maximum=AMOUNT_MAX - balance.amount)
    else:
        base, unit, bounds = 0, _comes_to(terms, cadence, units or {}), BoundsOut(minimum=1, maximum=1)
    return PriceOut(
        id=price_id(plan_id, cadence),
        plan=spell("p", plan_id),
        nickname=terms.name,
        type="one_time" if cadence == "ONE_OFF" else "recurring",
        interval=_INTERVALS[cadence],
        currency=currency,
        currency_symbol=dialect.symbol(currency),
        unit=counted[0] if len(counted) == 1 else None,
        unit_amount=amount_in(unit, currency),
        unit_amount_minor=unit,
        base_amount=amount_in(base, currency),
        base_amount_minor=base,
        quantity=bounds,
        includes=included(terms, {} if len(counted) == 1 else units or {}),
        trial_days=terms.trial_days if cadence != "ONE_OFF" else 0,
        setup_fee=amount_in(terms.setup_fee, currency),
    )


def _item(plan_id: int, cadence: Cadence, terms: PlanTerms, units: Mapping[str, int]) -> SubscriptionItemOut:
    counted = _counted(terms)
    return SubscriptionItemOut(
        price=_price(plan_id, cadence, terms, units),
        quantity=units.get(counted[0], 0) if len(counted) == 1 else 1,
        amount=amount_in(_comes_to(terms, cadence, units), terms.denomination),
    )


def subscription_id(account: Account, tick: int) -> str:
    """The id of a subscription."""
    return spell_of_account("sub", account.id, tick)


def _shown(call: Call, account: Account, found: Current) -> SubscriptionOut:
    known, terms, zone = found.subscription, found.terms, call.member.claims.zone
    has_period = found.status != "incomplete"
    ends = known.cancels_at_end and found.status != "canceled"
    later = None
    if found.later is not None and known.scheduled:
        then = known.scheduled
        items = [_item(then["plan_id"], then["cadence"], found.later, then["variable_units"])]
        later = UpdateOut(items=items, at=dialect.moment(known.period_end, zone))
    return SubscriptionOut(
        id=subscription_id(account, found.tick),
        status=found.status,
        automatic_tax=False,
        cancel_at_period_end=ends,
        collection_method=found.collection,
        currency=terms.denomination,
        currency_symbol=dialect.symbol(terms.denomination),
        current_period_start=dialect.moment(known.period_start, zone) if has_period else None,
        current_period_end=dialect.moment(known.period_end, zone) if has_period else None,
        trial_end=dialect.moment(known.period_end, zone) if found.status == "trialing" else None,
        cancel_at=dialect.moment(known.period_end, zone) if ends else None,
        canceled_at=dialect.moment(found.asked_at, zone),
        ended_at=dialect.moment(known.ended_at, zone),
        items=[_item(known.plan_id, known.cadence, terms, known.variable_units)],
        pending_update=later,
        created_at=dialect.moment(known.created_at, zone),
    )


# --- prices -----------------------------------------------------------------------------------------------------------


def currency_for(account: Account) -> str:
    """The currency of an account: its own, else that of its country."""
    return account.currency or currency_of((account.address or {}).get("country", ""))


async def _offered(call: Call, reader: Reader, account: Account) -> dict[int, PlanTerms]:
    """What the account may be on, by plan: what is sold, and its own plan as agreed with it; each at its latest."""
    known = await read_subscription(reader, account.id)
    mine = known.plan_id if known is not None and known.is_running else None
    offered: dict[int, PlanTerms] = {}
    for plan_id, version in sorted(own.versions_on_sale(call.environment).items()):
        terms = version.terms
        if plan_id == mine:
            terms = (await service.next_offer(reader, call.environment, account.id, PlanAsk())).terms
        elif version.is_archived:
            continue
        if len(_counted(terms)) <= 1:
            offered[plan_id] = terms
    return offered


async def list_prices(call: Call) -> Answer:
    """Prices in the currency of the account, after what was agreed with it."""
    account = await own_account(call)
    async with call.engine.database.reading() as reader:
        offered = await _offered(call, reader, account)
        known = await read_subscription(reader, account.id)
    mine = known.plan_id if known is not None and known.is_running else None
    currency = currency_for(account)
    found = [
        _price(plan_id, cadence, terms)
        for plan_id, terms in offered.items()
        if terms.denomination == currency or plan_id == mine
        for cadence in terms.renewals
    ]
    return dialect.bare(200, found)


# --- what is asked for ------------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """What a body asks for, each field judged."""

    ask: PlanAsk | None
    collection: Collection | None
    ends: bool | None
    currency: str


def _fields(call: Call) -> dict[str, Any]:
    tree = bodies.parse(call.body)
    if not isinstance(tree, dict):
        raise Refusal("invalid_field", "The body must be an object.")
    return tree


async def _asked(call: Call, reader: Reader, account: Account, now: Current | None) -> _Asked:
    """The body of a subscription; ``now`` is the one that it changes. Raises Refusal with all that is wrong."""
    given, problems = _fields(call), Problems()
    collection: Collection | None = None
    if given.get("collection_method") is not None:
        collection = given["collection_method"]
        if collection not in get_args(Collection):
            problems.add("collection_method", "The selected collection method is invalid.")
    ends = given.get("cancel_at_period_end")
    if ends is not None and not isinstance(ends, bool):
        problems.add("cancel_at_period_end", "The cancel at period end field must be true or false.")
    ask, currency = None, currency_for(account) if now is None else now.terms.denomination
    if now is None or "items" in given:
        offered = await _offered(call, reader, account)
        ask = _item_asked(given.get("items"), offered, currency, now, problems)
    if collection == "send_invoice" and not is_fiat(currency):
        problems.add("collection_method", "A subscription that is not paid in money is not invoiced.")
    if now is not None and ask is not None and ends:
        problems.add("cancel_at_period_end", "A subscription that is to end cannot be changed as well.")
    problems.refuse()
    return _Asked(ask, collection, ends, currency)


def _item_asked(
    items: object, offered: Mapping[int, PlanTerms], currency: str, now: Current | None, problems: Problems
) -> PlanAsk | None:
    if items is None:
        problems.required("items", items)
        return None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        problems.add("items", "The items field must be an array of objects.")
        return None
    if len(items) != 1:
        problems.add("items", "The items field must contain 1 item.")
        return None
    found = _price_asked(items[0], offered, currency, now, problems)
    if found is None:
        return None
    plan_id, cadence = found
    units = _units_asked(items[0], offered[plan_id], now, problems)
    if units and _comes_to(offered[plan_id], cadence, units) > AMOUNT_MAX:
        problems.add("items.0.quantity", "The items.0.quantity field comes to more than can be charged.")
    return PlanAsk(plan_id, cadence, units)


def _price_asked(
    item: Mapping[str, Any],
    offered: Mapping[int, PlanTerms],
    currency: str,
    now: Current | None,
    problems: Problems,
) -> tuple[int, Cadence] | None:
    """The plan and cadence of a price; where none is named, those of the subscription that is changed."""
    price = item.get("price")
    if price is None and now is not None:
        price = price_id(now.subscription.plan_id, now.subscription.cadence)
    if not problems.required("items.0.price", price):
        return None
    found = _price_named(price) if isinstance(price, str) else None
    terms = None if found is None else offered.get(found[0])
    if found is None or terms is None or found[1] not in terms.renewals:
        problems.add("items.0.price", "The selected items.0.price is invalid.")
        return None
    if terms.denomination != currency:
        problems.add("items.0.price", f"The items.0.price field must be a price in {currency}.")
        return None
    return found


def _price_named(text: str) -> tuple[int, Cadence] | None:
    plan_id = read("price", text[:-1])
    cadence = next((cadence for cadence, letter in _LETTERS.items() if letter == text[-1:]), None)
    return None if plan_id is None or cadence is None else (plan_id, cadence)


def _units_asked(
    item: Mapping[str, Any], terms: PlanTerms, now: Current | None, problems: Problems
) -> dict[str, int] | None:
    """The units that a quantity means; None: as many as before."""
    counted = _counted(terms)
    quantity = item.get("quantity")
    if quantity is None:
        if now is not None:
            return None
        quantity = 1
    most = AMOUNT_MAX - terms.balances[counted[0]].amount if counted else 1
    if isinstance(quantity, bool) or not isinstance(quantity, int):
        problems.add("items.0.quantity", "The items.0.quantity field must be an integer.")
    elif not (0 if counted else 1) <= quantity <= most:
        least = 0 if counted else 1
        problems.add("items.0.quantity", f"The items.0.quantity field must be between {least} and {most}.")
    elif counted:
        return {counted[0]: quantity}
    return {}


def _told(refusal: Refusal) -> Refusal:
    """What a service of the house refuses, said of the fields of this family."""
    if refusal.code in _NO:
        return Refusal("invalid_field", refusal.message)
    path = str(refusal.details.get("path", ""))
    if not path:
        return refusal
    field = {"plan_id": "items.0.price", "cadence": "items.0.price", "scheme": "items"}.get(path, "items.0.quantity")
    message = refusal.message.removeprefix(f"{path}: ")
    return Refusal("invalid_field", message, errors={field: [message]})


# --- subscriptions ----------------------------------------------------------------------------------------------------


async def _current(call: Call, account: Account) -> SubscriptionOut | None:
    """The subscription of an account as it is now."""
    async with call.engine.database.reading() as reader:
        again = await read_account(reader, call.environment.id, account.id)
        assert again is not None
        found = await own.read_current(reader, again)
    return None if found is None else _shown(call, again, found)


async def _named(call: Call, reader: Reader, account: Account) -> Current:
    """The subscription in the path, of this account. Raises Refusal ``not_found``."""
    found = await own.read_current(reader, account)
    if found is None or not await _is_named(call, reader, account, found):
        raise Refusal("not_found")
    return found


async def _running(call: Call, unit: Unit, account_id: int) -> tuple[Account, Current]:
    """The account, locked, and the subscription in the path, to be changed."""
    account = await own.lock_account(call.engine, unit, call.environment, account_id)
    found = await _named(call, unit, account)
    own.must_run(found)
    return account, found


async def _is_named(call: Call, reader: Reader, account: Account, found: Current) -> bool:
    """Whether the path means this subscription: by its id, or as the successor does, by its plan's id or code."""
    text = call.params["subscription_id"]
    if read_of_account("sub", text) == (account.id, found.tick):
        return True
    if not call.route.path.startswith("/billing/"):
        return False
    plan_id = found.subscription.plan_id
    if read("p", text) == plan_id:
        return True
    row = await read_plan(reader, call.environment.id, plan_id)
    return row is not None and row.code == text


async def list_subscriptions(call: Call) -> Answer:
    """The subscription of the account, running or the last one; an account has one at a time."""
    found = await _current(call, await own_account(call))
    return dialect.bare(200, [] if found is None else [found])


async def get_subscription(call: Call) -> Answer:
    """One subscription."""
    account = await own_account(call)
    async with call.engine.database.reading() as reader:
        found = await _named(call, reader, account)
    return dialect.bare(200, _shown(call, account, found))


async def _collect_by(call: Call, unit: Unit, account_id: int, currency: str, wanted: Collection | None) -> None:
    """Have the account pay as is asked; what the company agreed on with it stays, but for how it is collected."""
    if not is_fiat(currency):
        return  # units are taken from their balance: nothing is collected
    known = await own.terms_in(unit, account_id, currency)
    if wanted is None or wanted == ("charge_automatically" if known is None else known.collection):
        return
    terms = TermsWanted(currency, wanted)
    if known is not None:
        terms = TermsWanted(currency, wanted, known.terms_days, known.grace, known.taxes, known.memo)
    await invoicing.set_terms(call.engine, unit, call.environment, account_id, terms)


def _starting(asked: _Asked, offer: Offer, zone: str) -> Decide:
    """Begin with a plan, and end it with its period where that is asked for."""
    begin = service.starting(offer, zone)

    def decide(standing: Standing, state: AccountState, now: datetime) -> Step:
        step = begin(standing, state, now)
        return replace(step, subscription=replace(step.subscription, cancels_at_end=True)) if asked.ends else step

    return decide


async def open_subscription(call: Call) -> Answer:
    """Subscribe to a price: charged at once by card, on an invoice, or after a trial."""
    account = await own_account(call)
    once = call.idempotency()

    async def begin(unit: Unit) -> Payment | None:
        locked = await own.lock_account(call.engine, unit, call.environment, account.id)
        asked = await _asked(call, unit, locked, None)
        assert asked.ask is not None
        await _collect_by(call, unit, account.id, asked.currency, asked.collection)
        decide = _starting(asked, service.new_offer(call.environment, asked.ask), call.environment.zone_name)
        begun = await service.begin_step(call.engine, unit, call.environment, account.id, decide, once=once)
        return begun.payment

    return await _in_steps(call, account, begin, 201)


async def change_subscription(call: Call) -> Answer:
    """Change what is subscribed to, how it is paid, or whether it ends with its period."""
    account = await own_account(call)
    once = call.idempotency()

    async def begin(unit: Unit) -> Payment | None:
        locked, running = await _running(call, unit, account.id)
        asked = await _asked(call, unit, locked, running)
        await _collect_by(call, unit, account.id, asked.currency, asked.collection)
        if asked.ends is not None:
            await _end_or_not(call, unit, running.subscription, ends=asked.ends)
        if asked.ask is None:
            return None
        begun = await service.change_plan(call.engine, unit, call.environment, account.id, asked.ask, once)
        return begun.payment

    answer = await _in_steps(call, account, begin, 200)
    call.engine.nudge("renew_due")
    return answer


async def _end_or_not(call: Call, unit: Unit, known: Subscription, *, ends: bool) -> None:
    """Let a subscription end with its period, or go on; nothing where it does already."""
    if ends == known.cancels_at_end:
        return
    decide = service.cancelling(at_end=True, prorates=False) if ends else service.REINSTATING
    await service.begin_step(call.engine, unit, call.environment, known.account_id, decide)


async def _in_steps(
    call: Call, account: Account, begin: Callable[[Unit], Awaitable[Payment | None]], status: int
) -> Answer:
    """Do a step, drive its payment where it has one, and answer: done, 402 refused, 202 not known yet."""
    once = call.idempotency()

    async def first(unit: Unit) -> Payment | None:
        try:
            return await begin(unit)
        except Refusal as refusal:
            raise _told(refusal) from refusal

    async def resume(unit: Unit) -> Payment | None:
        # Without a payment the step was done in the unit that took the key, and only its answer is missing.
        return None if once is None else await payment_store.find_by_request(unit, account.id, once.key)

    async def finish(payment: Payment | None) -> Answer:
        answered = status
        if payment is not None:
            driven = await payment_service.drive(call.engine, call.environment, account.id, payment.id, fence=0)
            if driven.status in {"failed", "voided"}:
                return Answer(*dialect.refused(refused_payment(driven), _REFUSED))
            answered = 202 if driven.is_open else status
        return dialect.bare(answered, await _current(call, account))

    return await call.once_in_steps(Steps(first, resume, finish))


_REFUSED: Final = {Kind.PAYMENT: 402, Kind.INVALID: 422, Kind.CONFLICT: 409}
"""Of what kinds a payment's failure may be."""


def _ends_later(call: Call) -> bool:
    """Whether a subscription is to end with its period: as the body says, else the query, else not."""
    if call.body and "at_period_end" in (given := _fields(call)):
        problems = Problems()
        if not isinstance(given["at_period_end"], bool):
            problems.add("at_period_end", "The at period end field must be true or false.")
        problems.refuse()
        return bool(given["at_period_end"])
    return str(call.filters().get("at_period_end", "")) in {"true", "1"}


async def end_subscription(call: Call) -> Answer:
    """End a subscription now, or with its period."""
    account = await own_account(call)
    at_end = _ends_later(call)

    async def verb(unit: Unit) -> None:
        _, running = await _running(call, unit, account.id)
        try:
            if at_end:
                await _end_or_not(call, unit, running.subscription, ends=True)
            else:
                decide = service.cancelling(at_end=False, prorates=False)
                await service.begin_step(call.engine, unit, call.environment, account.id, decide)
        except Refusal as refusal:
            raise _told(refusal) from refusal

    answer = await call.once(verb, lambda _: b"")
    call.engine.nudge("renew_due")
    return answer._replace(status=204)


# --- the table --------------------------------------------------------------------------------------------------------

WITHOUT_BODY: Final = (end_subscription,)
"""Routes whose body may be left out."""
_TAG: Final = "Subscriptions of organizations"
_ONE: Final = "/subscriptions/{subscription_id}"
_EXAMPLE: Final = {"items": [{"price": "price_00000000m", "quantity": 1}], "collection_method": "charge_automatically"}
_CHARGED: Final = ("payment_method_required", "payment_failed", "gateway_refused", "gateway_not_configured")
_PENDING: Final = "The bank has not said yet whether it pays; the subscription is `incomplete` until then."
_AT_END: Final = Param("at_period_end", "true|false|1|0", "Whether it ends with its period, and not now.")


def _route(method: str, path: str, serve: Any, summary: str, answer: Any, **more: Any) -> Route:
    scope = READ_SCOPE if method == "GET" else WRITE_SCOPE
    return Route(method, path, serve, summary, _TAG, answer, scope=scope, family=FAMILY, **more)


ROUTES: Final = tuple(
    route
    for top in ("/account", "/billing")
    for route in (
        _route("GET", f"{top}/prices", list_prices, "List prices", PriceOut, is_list=True),
        _route("GET", f"{top}/subscriptions", list_subscriptions, "List subscriptions", SubscriptionOut, is_list=True),
        _route(
            "POST",
            f"{top}/subscriptions",
            open_subscription,
            "Subscribe",
            SubscriptionOut,
            body=SubscriptionIn,
            example=_EXAMPLE,
            refusals=_CHARGED,
            pending=_PENDING,
        ),
        _route("GET", f"{top}{_ONE}", get_subscription, "Get a subscription", SubscriptionOut),
        _route(
            "PATCH",
            f"{top}{_ONE}",
            change_subscription,
            "Change a subscription",
            SubscriptionOut,
            body=SubscriptionIn,
            example={"cancel_at_period_end": True},
            refusals=_CHARGED,
            pending=_PENDING,
        ),
        _route(
            "DELETE",
            f"{top}{_ONE}",
            end_subscription,
            "End a subscription",
            SubscriptionOut,
            body=EndIn,
            query=(_AT_END,),
            example={"at_period_end": True},
        ),
    )
)
