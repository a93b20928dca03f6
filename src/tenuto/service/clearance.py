"""Clearance: whether an organization may make one more of something, judged one at a time for each who pays.

The problem, on one example. A plan includes 10 sites; 9 are there, and two people create one in the same moment:

    asks        counted   expected before   used   total   answer    expected after, for a minute
    the first   9         -                 9      10      allowed   10
    the second  9         10                10     10      402       10

Its row is not made yet when the second is asked, so what was cleared a moment ago counts. The service that makes the
rows is asked before anything is locked; the judgement itself is made under the lock of the organization that pays.
Where no service is registered, clearances that were granted and not given back are counted. Source: contract 5.9.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tenuto.core.invoice import settings_of
from tenuto.core.organization import Cleared, clear
from tenuto.core.outcomes import Refusal
from tenuto.core.plan import FlagValue, PlanTerms, included
from tenuto.core.subscription import Subscription
from tenuto.engine import ASKED_SECONDS, Engine
from tenuto.gateway.addresses import parse_target
from tenuto.store import clearances, organizations, subscriptions
from tenuto.store.accounts import Account, Environment
from tenuto.store.clearances import Known
from tenuto.store.database import AccountMovedOn, Contended, Reader, Unit, translated

REMEMBERED: Final = timedelta(seconds=60)
"""How long a clearance counts as made, whatever is counted (real time)."""
COUNT_MAX: Final = 2**53
"""The largest count that is believed."""
REASON_MAX: Final = 200
"""How many characters of what a service says are passed on."""

_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
_CLEARED: Final = frozenset({"active", "trialing"})
_NOT_RUNNING: Final = {
    "pending_card": "The subscription waits for a payment method.",
    "past_due": "The subscription was not paid.",
    "paused": "The subscription is paused.",
    "cancelled": "The subscription has ended.",
}
_UNKNOWN: Final = 410
_NOT_BILLABLE: Final = 422


class Billable(NamedTuple):
    """What limits something, by its basename: a denomination of the plan; free, or None of both: nothing does."""

    basename: str
    denomination: str | None
    is_free: bool


class Asker(NamedTuple):
    """The organization that asks, the one that pays for it, and that one's account."""

    organization_id: int
    payer_id: int
    account: Account

    @property
    def is_direct(self) -> bool:
        """Whether it pays for itself."""
        return self.organization_id == self.payer_id


class Counted(NamedTuple):
    """What a service answered: how many there are, or why that is not known."""

    number: int | None
    reason: str | None


def billable_of(environment: Environment, basename: str) -> Billable:
    """What the company has set for a basename; what it has not listed needs a subscription and has no limit."""
    found = environment.money.get("billables", {}).get(basename, {})
    return Billable(basename, found.get("denomination"), bool(found.get("free")))


# --- services that count ----------------------------------------------------------------------------------------------


def checked_prefix(engine: Engine, url: str) -> str:
    """The address below which a service counts, in one spelling. Raises Refusal ``url_not_allowed``.

    Its path is written plainly, so that none means another one: no escapes, no dots for folders, no query.
    """
    target = parse_target(url, allow_private=engine.settings.may_call_near)
    written = "/" + url.partition("://")[2].partition("/")[2]
    if "?" in url:
        raise Refusal("url_not_allowed", "its path is all there is of it: no query.")
    folders = written.split("/")
    if not _PLAIN_PATH.fullmatch(written) or "." in folders or ".." in folders or target.url.raw_path != written:
        raise Refusal("url_not_allowed", "its path takes letters, digits and -._~ between single slashes.")
    if not engine.settings.may_call_near and target.host == urlsplit(engine.public_url).hostname:
        raise Refusal("url_not_allowed", "this is the address of Tenuto itself.")
    return str(target.url).rstrip("/")


def prefix_of(engine: Engine, environment: Environment, given: str) -> str | None:
    """The prefix as it is called; None where it does not lie below one that the company registered."""
    try:
        prefix = checked_prefix(engine, given)
    except Refusal:
        return None
    known: Sequence[str] = environment.money.get("billable_prefixes", ())
    return prefix if any(f"{prefix}/".startswith(f"{one}/") for one in known) else None


def kebab(basename: str) -> str:
    """A basename as it stands in an address: ``SiteUser`` is ``site-user``, with a hyphen before every capital."""
    return re.sub(r"(.)(?=[A-Z])", r"\1-", basename).lower()


async def count(engine: Engine, environment_id: int, prefix: str, basename: str, authorization: str) -> Counted:
    """How many the service below a prefix counts for whoever asks: it is asked with the caller's own token."""
    url = f"{prefix}/billable-count/{kebab(basename)}?count=1"
    headers = {"Accept": "application/json", "Authorization": authorization}
    try:
        async with asyncio.timeout(ASKED_SECONDS), engine.asking(environment_id):
            posted = await engine.egress.get(url, headers=headers)
    except TimeoutError:
        return Counted(None, f"How many {basename} there are could not be counted: no answer in time.")
    said = _message(posted.answer)
    if posted.error is None and posted.status == _UNKNOWN:
        return Counted(None, said or f"{basename} is not known to the service that should count it.")
    if posted.error is None and posted.status == _NOT_BILLABLE:
        return Counted(None, said or f"{basename} is not billable.")
    number = _number(posted.answer) if posted.is_taken else None
    if number is None:
        why = posted.error or f"an answer of {posted.status} without a count"
        return Counted(None, f"How many {basename} there are could not be counted: {why}.")
    return Counted(number, None)


def _object(answer: str) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(answer: str) -> int | None:
    found = _object(answer).get("count")
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= COUNT_MAX:
        return None
    return found


def _message(answer: str) -> str | None:
    found = _object(answer).get("message")
    if not isinstance(found, str) or not found.strip() or not found.isprintable():
        return None
    return found[:REASON_MAX]


# --- the judgement ----------------------------------------------------------------------------------------------------


class Standing(NamedTuple):
    """What the account that pays is on, and whether an invoice of it waits beyond the grace."""

    subscription: Subscription | None
    terms: PlanTerms | None
    is_overdue: bool
    own: FlagValue | None


def total_of(denomination: str, found: Standing) -> int | None:
    """How many there may be; None: as many as they like.

    What was agreed with the account by a flag of that name goes first, then what the plan's balance includes with the
    units that were chosen, then a flag of the plan. A flag that is on sets no limit; a metered one means its balance.
    """
    if found.subscription is None or found.terms is None:
        return 0
    units = included(found.terms, found.subscription.variable_units)
    value = found.own
    if value is None and denomination in found.terms.balances:
        return units.get(denomination, 0)
    if value is None:
        value = found.terms.flags.get(denomination)
    match value:
        case bool():
            return None if value else 0
        case int():
            return max(value, 0)
        case Mapping():
            return units.get(str(value["metered"]), 0)
        case _:
            return 0


def grace_of(money: Mapping[str, Any]) -> timedelta:
    """How long an invoice may be past due: until dunning would first stop something, and the company's own grace."""
    settings = settings_of(money)
    stops = [timedelta(days=step.days) for step in settings.dunning if step.action != "remind"]
    return max(settings.grace, *stops[:1], timedelta(0))


def reasons_of(environment: Environment, account: Account, found: Standing) -> list[str]:
    """Why the account that pays stands for nothing more, whatever it is; empty where it does."""
    reasons = []
    status = None if found.subscription is None else found.subscription.status
    if status not in _CLEARED:
        reasons.append("There is no subscription." if status is None else _NOT_RUNNING[status])
    if found.is_overdue:
        reasons.append("An invoice is past due.")
    if environment.terms.is_paused or account.paused_at is not None:
        reasons.append("The account is paused.")
    if account.credit_blocked_at is not None:
        reasons.append("The account is over its limit and blocked until it pays.")
    return reasons


async def _standing(
    reader: Reader, environment: Environment, account: Account, denomination: str | None, now: datetime
) -> Standing:
    subscription = await subscriptions.read_subscription(reader, account.id)
    terms = None
    if subscription is not None:
        terms = await subscriptions.read_terms(reader, environment.id, account.id, subscription)
    before = now - grace_of(environment.money)
    own = None if denomination is None else await clearances.read_own_flag(reader, account.id, denomination)
    return Standing(subscription, terms, await clearances.is_overdue(reader, account.id, before), own)


async def clear_one(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    asker: Asker,
    billable: Billable,
    counted: Counted | None,
) -> Cleared | None:
    """Clear one more of something that is not free, or refuse it with all reasons; None where nothing is counted.

    ``counted``: what the service answered; None where clearances are counted. Raises Refusal ``not_cleared``, or
    ``unavailable`` where the organization was moved while its service counted.
    """
    await clearances.lock_payer(unit, environment.id, asker.payer_id)
    path = await organizations.read_path(unit, environment.id, asker.organization_id)
    if not path or path[-1].id != asker.payer_id:
        raise Refusal("unavailable", "The organization was moved a moment ago: ask again.")
    name = billable.denomination
    found = await _standing(unit, environment, asker.account, name, engine.now_of(environment))
    reasons = reasons_of(environment, asker.account, found)
    if reasons and not asker.is_direct:
        # How its parent pays is not for a child to know.
        reasons = ["Whoever pays for this organization is not in good standing."]
    if name is None:
        _refuse(reasons)
        return None
    total = total_of(name, found)
    if counted is not None and counted.number is None:
        _refuse([*reasons, str(counted.reason)])
    judged, others = await _judged(engine, unit, environment, asker, billable, counted, total)
    if not judged.is_allowed and not reasons:
        reasons.append(f"{judged.used} of {total} {billable.basename} are in use." if total else _none(billable))
    _refuse(reasons)
    now = engine.now()
    until = now if counted is None else now + REMEMBERED
    await _keep(unit, environment, asker, billable, judged.expected - others, until)
    return judged


async def _known(reader: Reader, environment: Environment, asker: Asker, billable: Billable) -> Known:
    return await clearances.read_known(reader, environment.id, asker.payer_id, asker.organization_id, billable.basename)


async def _keep(
    unit: Unit, environment: Environment, asker: Asker, billable: Billable, expected: int, until: datetime
) -> None:
    await clearances.keep(unit, environment.id, asker.organization_id, billable.basename, expected, until)


async def _judged(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    asker: Asker,
    billable: Billable,
    counted: Counted | None,
    total: int | None,
) -> tuple[Cleared, int]:
    """The judgement, and how many of ``used`` are those of other organizations of the tree."""
    known = await _known(unit, environment, asker, billable)
    if counted is None or counted.number is None:
        return clear((known.expected or 0) + known.others, None, total), known.others
    is_fresh = known.expected is not None and known.until is not None and known.until > engine.now()
    lately = (known.expected or 0) + known.others if is_fresh else None
    return clear(counted.number + known.others, lately, total), known.others


def _none(billable: Billable) -> str:
    return f"The subscription does not include any {billable.basename}."


def _refuse(reasons: Sequence[str]) -> None:
    if not reasons:
        return
    more = len(reasons) - 1
    message = reasons[0] + (f" (and {more} more reason{'s' if more > 1 else ''})" if more else "")
    raise Refusal("not_cleared", message, errors={"reasons": list(reasons)})


async def keep_count(
    engine: Engine, environment: Environment, asker: Asker, billable: Billable, counted: Counted | None
) -> None:
    """Remember what a service counted though nothing was cleared: the rest of the tree is judged by it too."""
    if counted is None or counted.number is None:
        return
    # Who waits too long for it goes without: the refusal is what was asked for.
    with suppress(Contended, AccountMovedOn):
        async with translated(), engine.database.writing() as unit:
            await clearances.lock_payer(unit, environment.id, asker.payer_id)
            known = await _known(unit, environment, asker, billable)
            now = engine.now()
            if known.until is None or known.until <= now:
                await _keep(unit, environment, asker, billable, counted.number, now)


async def give_back(engine: Engine, unit: Unit, environment: Environment, asker: Asker, billable: Billable) -> None:
    """Take one clearance of the asking organization back; where none is left, nothing."""
    await clearances.lock_payer(unit, environment.id, asker.payer_id)
    known = await _known(unit, environment, asker, billable)
    if known.expected:
        until = known.until or engine.now()
        await _keep(unit, environment, asker, billable, known.expected - 1, until)
