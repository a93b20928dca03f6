"""Requests to the customer: a signed link that asks for a top-up, or to go on past what a plan includes.

The problem, on one example. Ada is asked to buy 1,000 tokens for 5 dollars or 5,000 for 20; she opens the link:

    what she does                        payments of the request                     the request
    chooses 1,000, twice in a hurry      rq_…        under way, driven once          open
    the bank says no                     rq_…        failed                          open
    chooses 1,000 with another card      rq_…        tried again, the same intent    open
    no again, chooses 5,000              rq_… given up at the provider, then rq_…:2  open
    the bank says yes                    rq_…:2      succeeded                       done, told in the same unit

So one request is paid for once: a payment that may still come in is ended before another begins. What is asked is kept
with the link and never changes; overage is asked of the terms that the account was on, and void once those are others.
Sources: contract 2.5, 2.7, 3.9.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from tenuto.core import subscription as plan
from tenuto.core.identifiers import read_of_account, spell
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import Payment
from tenuto.core.plan import merged, plan_terms
from tenuto.core.subscription import Subscription
from tenuto.core.topic import Notification
from tenuto.engine import Engine, Once
from tenuto.store import ledger, payments, requests, signals, subscriptions
from tenuto.store.accounts import Environment
from tenuto.store.database import Reader, Unit, translated
from tenuto.store.payments import Link

OFFERS_MAX: Final = 10
MESSAGE_MAX: Final = 1000
TURNS_MAX: Final = 4
"""How often the next step is looked for: an offer that is given up, another that is begun, and two between."""

Agree = Callable[[Engine, Unit, Environment, int, Mapping[str, Any]], Awaitable[Subscription]]


class Offer(NamedTuple):
    """What can be bought: ``amount`` units for ``charge_amount``."""

    amount: int
    charge_amount: int
    charge_denomination: str


class OverageAsk(NamedTuple):
    """What a unit beyond the included ones is to cost; without a denomination that of the plan's renewals."""

    denomination: str
    amount: str
    charged_in: str | None


class Letter(NamedTuple):
    """What every request comes with: a word to the customer, where they go afterwards, how long they may answer."""

    message: str | None
    return_url: str | None
    life: timedelta


class Standing(NamedTuple):
    """A request with the newest payment that it led to."""

    link: Link
    payment: Payment | None

    @property
    def is_waiting(self) -> bool:
        """Whether a payment is under way whose end nobody knows yet."""
        return self.payment is not None and self.payment.is_open

    @property
    def seen(self) -> str:
        """What a page that shows this stands for: a button pressed on an older one does nothing."""
        return "0" if self.payment is None else f"{requests.number_of(self.payment)}.{self.payment.attempts}"


# --- asking -----------------------------------------------------------------------------------------------------------


async def ask_topup(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    denomination: str,
    offers: Sequence[Offer],
    letter: Letter,
) -> Link:
    """Ask a customer to buy units of one balance, for one of these prices."""
    asked = {"denomination": denomination, "amounts": [offer._asdict() for offer in offers]}
    return await _keep(engine, unit, environment, account_id, "topup", asked, letter)


async def ask_overage(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    ask: OverageAsk,
    letter: Letter,
) -> Link:
    """Ask a customer to pay for each unit beyond what the plan includes, where usage stops there now.

    Raises Refusal ``no_plan``, ``overage_exists``, or as a plan in these terms would be refused.
    """
    await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    known = await subscriptions.read_subscription(unit, account_id)
    if known is None or not known.is_running:
        raise Refusal("no_plan")
    offer = await subscriptions.read_offer(unit, environment.id, known)
    balance = offer.terms.balances.get(ask.denomination)
    if balance is None:
        raise invalid("denomination", "is no balance of the plan that the account is on.")
    if balance.overage is not None:
        raise Refusal("overage_exists", path="denomination")
    asked = {
        "denomination": ask.denomination,
        "overage_charge_amount": ask.amount,
        "overage_charge_denomination": ask.charged_in or offer.terms.denomination,
        "plan_id": known.plan_id,
        "version_id": known.version_id,
        "override_id": known.override_id,
    }
    await _refuse_terms(unit, environment, known, asked)
    return await _keep(engine, unit, environment, account_id, "overage", asked, letter)


async def _keep(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    kind: str,
    asked: Mapping[str, Any],
    letter: Letter,
) -> Link:
    state = await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    tick = max(engine.tick(), state.tick + 1)
    # The person who opens it lives in real time, whatever the company's test clock says.
    now = engine.now()
    until, ask = now + letter.life, {**asked, "message": letter.message}
    link = Link(account_id, tick, environment.id, kind, None, None, letter.return_url, until, None, now, ask)
    await payments.insert_link(unit, link)
    await ledger.raise_tick(unit, account_id, tick)
    return link


def token_of(engine: Engine, link: Link) -> str:
    """What stands in the address of a request."""
    public = requests.public_id(link)
    return f"{public}.{engine.vault.sign(f'request {public}')}"


# --- opening ----------------------------------------------------------------------------------------------------------


async def open_request(engine: Engine, token: str) -> tuple[Link, Environment]:
    """The request behind a token, open or not, and whose it is. Raises Refusal ``link_not_usable``."""
    public, _, mac = token.partition(".")
    found = read_of_account(requests.PREFIX, public)
    if found is None or not engine.vault.verify(f"request {public}", mac):
        raise Refusal("link_not_usable")
    async with engine.database.reading() as reader:
        link = await payments.read_link(reader, *found)
    environment = None if link is None else await engine.environment(link.environment_id)
    if link is None or environment is None or link.kind not in requests.KINDS:
        raise Refusal("link_not_usable")
    return link, environment


async def read_standing(reader: Reader, link: Link) -> Standing:
    """How a request stands."""
    found = await payments.read_link(reader, link.account_id, link.id)
    if found is None:
        raise Refusal("link_not_usable")
    return Standing(found, await requests.latest_payment(reader, found))


async def take_standing(unit: Unit, link: Link) -> Standing:
    """How a request stands, with its account locked."""
    await ledger.lock_accounts(unit, [link.account_id])
    return await read_standing(unit, link)


# --- a top-up ---------------------------------------------------------------------------------------------------------


def offers_of(link: Link) -> list[Offer]:
    """What can be bought on a page."""
    return [Offer(**offer) for offer in link.ask["amounts"]]


class Till(NamedTuple):
    """What can be done about payments of an account: begun and changed in a unit, driven with nothing open."""

    begin: Callable[[Unit, Offer, Once], Awaitable[Payment]]
    retry: Callable[[Unit, int], Awaitable[Payment]]
    give_up: Callable[[Unit, int], Awaitable[Payment]]
    drive: Callable[[int, int | None], Awaitable[Payment]]


async def buy(engine: Engine, link: Link, offer: Offer, seen: str, till: Till) -> None:
    """Buy an offer that was chosen on a page that showed ``seen``. Whatever came of it, the request's rows say so.

    Raises Refusal ``payment_method_required``, and what a deposit is refused with.
    """
    for _ in range(TURNS_MAX):
        async with translated(), engine.database.writing() as unit:
            standing = await take_standing(unit, link)
            turn = await _turn(engine, unit, standing, offer, seen, till)
        if turn is None:
            return
        driven = await till.drive(turn.payment.id, turn.fence)
        if not turn.is_given_up or driven.status != "voided":
            return
        async with engine.database.reading() as reader:
            seen = (await read_standing(reader, link)).seen


class _Turn(NamedTuple):
    """A payment to drive: ``fence`` where it is in our hands, ``is_given_up`` where another follows it."""

    payment: Payment
    fence: int | None
    is_given_up: bool = False


async def _turn(engine: Engine, unit: Unit, standing: Standing, offer: Offer, seen: str, till: Till) -> _Turn | None:
    """What choosing an offer comes to now; None where the request stands otherwise than the page said."""
    link, payment = standing
    if link.used_at is not None:
        return None
    if payment is not None and payment.is_open:
        return _Turn(payment, None)
    if link.expires_at <= engine.now() or seen != standing.seen:
        return None
    if payment is None or payment.status in {"voided", "succeeded"}:
        number = 1 if payment is None else requests.number_of(payment) + 1
        return _Turn(await till.begin(unit, offer, Once(*requests.key_of(link, number))), 0)
    if await payments.chargeable_card(unit, link.account_id) is None:
        raise Refusal("payment_method_required")
    if offer == Offer(payment.units, payment.amount, payment.currency):
        retried = await till.retry(unit, payment.id)
        return _Turn(retried, retried.fence)
    # It failed, but may have been paid all the same: only the provider can say that it was not.
    given_up = await till.give_up(unit, payment.id)
    return _Turn(given_up, given_up.fence, is_given_up=True)


# --- overage ----------------------------------------------------------------------------------------------------------


async def overage_basis(reader: Reader, environment: Environment, link: Link) -> plan.Offer:
    """What overage is asked on. Raises Refusal ``offer_void`` where the account is on something else by now."""
    return await subscriptions.read_offer(reader, environment.id, await _asked_of(reader, link))


async def _asked_of(reader: Reader, link: Link) -> Subscription:
    known = await subscriptions.read_subscription(reader, link.account_id)
    basis = (link.ask["plan_id"], link.ask["version_id"], link.ask["override_id"])
    if known is None or not known.is_running or (known.plan_id, known.version_id, known.override_id) != basis:
        raise Refusal("offer_void")
    return known


async def accept_overage(engine: Engine, environment: Environment, link: Link, agree: Agree) -> Link:
    """Agree overage with the account, use the request up and tell it, in one unit; a second time changes nothing.

    ``agree`` lays terms over those of the plan. Raises Refusal ``link_not_usable``, ``offer_void``, and what ``agree``
    raises.
    """
    async with translated(), engine.database.writing() as unit:
        found = (await take_standing(unit, link)).link
        if found.used_at is not None:
            return found
        if found.expires_at <= engine.now():
            raise Refusal("link_not_usable")
        known = await _asked_of(unit, found)
        await agree(engine, unit, environment, found.account_id, await _changes(unit, known, found.ask))
        done = found._replace(used_at=engine.now())
        await payments.update_link(unit, done)
        data = {
            "denomination": found.ask["denomination"],
            "overage_charge_amount": found.ask["overage_charge_amount"],
            "overage_charge_denomination": found.ask["overage_charge_denomination"],
            "plan_id": spell("p", known.plan_id),
            "request_id": requests.public_id(found),
        }
        now, of = engine.now_of(environment), found.ask["denomination"]
        await signals.tell(unit, environment.id, Notification(found.account_id, "overage.accepted", data, now, of))
        return done


async def _changes(reader: Reader, known: Subscription, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is agreed with the account, with the overage that is asked for laid over it."""
    agreed: dict[str, Any] = {}
    if known.override_id is not None:
        agreed = await subscriptions.read_override_changes(reader, known.account_id, known.override_id)
    overage = {name: asked[name] for name in ("overage_charge_amount", "overage_charge_denomination")}
    return merged(agreed, {"balances": {asked["denomination"]: overage}})


async def _refuse_terms(
    reader: Reader, environment: Environment, known: Subscription, asked: Mapping[str, Any]
) -> None:
    """Raises Refusal where no plan could have these terms, with the path of the field in the request."""
    stored = await subscriptions.read_version_terms(reader, environment.id, known.version_id)
    try:
        plan_terms(merged(stored, await _changes(reader, known, asked)))
    except Refusal as refusal:
        path = str(refusal.details.get("path", ""))
        prefix = f"balances.{asked['denomination']}."
        message = refusal.message.removeprefix(f"{path}: ").removeprefix(path).lstrip(": ")
        raise invalid(path.removeprefix(prefix), message, refusal.code) from refusal
