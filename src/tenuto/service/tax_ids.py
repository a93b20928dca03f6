"""Tax numbers of accounts, and what a register says of them.

The problem, on one example. An account is given ``eu_vat DE123456789``; registers of the tax offices answer slowly, if
at all, and the customer must not wait for them:

    at once          the number is kept, pending, and stands on invoices, whatever a register may say later
    a turn           the provider is given the number, by a key of ours; it asks the register
    further turns    the provider is asked what it has heard, at growing pauses, until it says verified or unverified
    deleted          the number is gone here; a turn has the provider forget it too

A turn is taken by the clockwork: the number is marked, the provider asked with nothing open, the answer written down. A
crash between costs one more turn; what the lost one may have made is looked for first. Source: contract 5.6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog

from tenuto.core.identifiers import spell_of_account
from tenuto.core.organization import VERIFIED_TYPES, tax_country
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import LEASE
from tenuto.engine import Engine
from tenuto.gateway.port import GatewayRefused, GatewayTaxId, GatewayUnclear, PaymentGateway
from tenuto.store import accounts, due, ledger, tax_ids
from tenuto.store.accounts import Environment
from tenuto.store.database import Record, Unit, translated
from tenuto.store.tax_ids import TaxId

TAX_IDS_MAX: Final = 20
AT_ONCE: Final = 4
EACH: Final = 50
"""Numbers of one company that a pass takes."""
PAUSES: Final = (
    *(timedelta(seconds=5), timedelta(seconds=15), timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15)),
    *(timedelta(hours=1), timedelta(hours=6), timedelta(days=1)),
)
"""How long after each turn the next one comes; the last for all that follow."""
TRIES_MAX: Final = 40
"""After so many turns, more than a month, nobody is asked any more."""
KEY_TROUBLE: Final = timedelta(hours=1)
_SKIPPED: Final = str.maketrans("", "", " .-/")

CustomerOf = Callable[[Engine, Environment, int], Awaitable[str]]
"""Gives an account's customer at the provider, who is made at first need."""

_log = structlog.get_logger()


async def add_tax_id(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    *,
    type: str,  # noqa: A002 - the contract's word
    value: str,
) -> TaxId:
    """Keep a tax number of an account. Raises Refusal ``tax_id_exists`` or ``too_many_tax_ids``."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    known = await tax_ids.list_tax_ids(unit, account_id)
    if any(one.type == type and _plain(one.value) == _plain(value) for one in known):
        raise Refusal("tax_id_exists", path="value")
    if len(known) >= TAX_IDS_MAX:
        raise Refusal("too_many_tax_ids", path="value")
    tick = max(engine.tick(), state.tick + 1)
    is_looked_up = type in VERIFIED_TYPES
    made = TaxId(
        account_id=account_id,
        id=tick,
        environment_id=environment.id,
        gateway_id=None,
        type=type,
        value=value,
        country=tax_country(type, value),
        status="pending" if is_looked_up else "unavailable",
        verified_name=None,
        verified_address=None,
        tries=0,
        next_at=now if is_looked_up else None,
        created_at=now,
        deleted_at=None,
    )
    await tax_ids.insert_tax_id(unit, made)
    await ledger.raise_tick(unit, account_id, tick)
    engine.nudge("verify_tax_ids")
    return made


def _plain(value: str) -> str:
    """A number as it is compared: how it is set in groups makes no other number of it."""
    return value.translate(_SKIPPED).upper()


async def remove_tax_id(engine: Engine, unit: Unit, environment: Environment, account_id: int, tax_id: int) -> TaxId:
    """Forget a tax number here; the provider forgets it in a turn. Raises Refusal ``not_found``."""
    now = engine.now_of(environment)
    await ledger.take_account(unit, environment.id, account_id, now)
    found = await tax_ids.read_tax_id(unit, account_id, tax_id)
    if found is None:
        raise Refusal("not_found")
    next_at = None
    if found.gateway_id is not None:
        next_at = now
    elif found.tries:
        # A turn may be under way that makes it at the provider: it is looked for when that one must be over.
        next_at = now + LEASE
    gone = found._replace(tries=found.tries + 1, next_at=next_at, deleted_at=now)
    await tax_ids.update_tax_id(unit, gone)
    engine.nudge("verify_tax_ids")
    return gone


# --- turns ------------------------------------------------------------------------------------------------------------


class _Turn(NamedTuple):
    """A number that is asked about; ``others`` are the provider's ids of the account's numbers that are known."""

    tax_id: TaxId
    others: frozenset[str]


class _Forgotten(NamedTuple):
    """The provider knows nothing of a deleted number any more."""


_Outcome = GatewayTaxId | GatewayRefused | _Forgotten | None


async def verify_due(
    engine: Engine, customer_of: CustomerOf, *, now: datetime, limit: int, environment_id: int | None = None
) -> int:
    """Sweep: take a turn for every number that is due; how many took one."""

    async def step(environment: Environment, row: Record) -> bool:
        return await _take_turn(engine, environment, customer_of, row["account_id"], row["id"])

    return await engine.each_due(
        due.TAX_IDS,
        "t.account_id, t.id",
        step,
        now=now,
        limit=limit,
        environment_id=environment_id,
        each=EACH,
        at_once=AT_ONCE,
    )


async def _take_turn(
    engine: Engine, environment: Environment, customer_of: CustomerOf, account_id: int, tax_id: int
) -> bool:
    async with translated(), engine.database.writing() as unit:
        turn = await _begin(engine, unit, environment, account_id, tax_id)
    if turn is None:
        return False
    engine.reach("tax_id.before_ask")
    outcome = await _ask(engine, environment, customer_of, turn)
    engine.reach("tax_id.after_ask")
    async with translated(), engine.database.writing() as unit:
        await ledger.lock_accounts(unit, [account_id])
        found = await tax_ids.read_tax_id(unit, account_id, tax_id, or_deleted=True)
        if found is not None and found.tries == turn.tax_id.tries:
            await tax_ids.update_tax_id(unit, _after(found, outcome, engine.now_of(environment)))
    return True


async def _begin(engine: Engine, unit: Unit, environment: Environment, account_id: int, tax_id: int) -> _Turn | None:
    await ledger.lock_accounts(unit, [account_id])
    found = await tax_ids.read_tax_id(unit, account_id, tax_id, or_deleted=True)
    now = engine.now_of(environment)
    if found is None or found.next_at is None or found.next_at > now:
        return None
    mine = found._replace(tries=found.tries + 1, next_at=now + LEASE)
    await tax_ids.update_tax_id(unit, mine)
    return _Turn(mine, await tax_ids.gateway_ids(unit, account_id) - {found.gateway_id})


async def _ask(engine: Engine, environment: Environment, customer_of: CustomerOf, turn: _Turn) -> _Outcome:
    """What the provider says in a turn. None: nobody knows."""
    tax_id = turn.tax_id
    public = spell_of_account("txi", tax_id.account_id, tax_id.id)
    try:
        gateway = await engine.gateway_for(environment)
        if tax_id.deleted_at is not None:
            return await _forget(engine, environment, gateway, turn)
        customer = await customer_of(engine, environment, tax_id.account_id)
        if tax_id.gateway_id is not None:
            return await gateway.read_tax_id(customer, tax_id.gateway_id)
        found = None if tax_id.tries == 1 else await _find(gateway, customer, turn)
        if found is not None:
            return found
        return await gateway.create_tax_id(
            key=f"{public}:{tax_id.tries}", customer=customer, type=tax_id.type, value=tax_id.value
        )
    except GatewayUnclear as error:
        _log.warning("tax_id", tax_id=public, outcome="unclear", reason=str(error))
        return None
    except GatewayRefused as refused:
        _log.warning("tax_id", tax_id=public, outcome="refused", reason=str(refused))
        return refused
    except Refusal as refusal:
        if refusal.code == "gateway_unavailable":
            return None
        return GatewayRefused(refusal.code, refusal.message, is_key=True)


async def _find(gateway: PaymentGateway, customer: str, turn: _Turn) -> GatewayTaxId | None:
    """The number at the provider, where a turn made it that never came back."""
    wanted = turn.tax_id
    for one in await gateway.list_tax_ids(customer):
        is_same = one.type == wanted.type and _plain(one.value) == _plain(wanted.value)
        if is_same and one.gateway_id not in turn.others:
            return one
    return None


async def _forget(engine: Engine, environment: Environment, gateway: PaymentGateway, turn: _Turn) -> _Outcome:
    async with engine.database.reading() as reader:
        account = await accounts.read_account(reader, environment.id, turn.tax_id.account_id)
    if account is not None and account.stripe_id is not None:
        gateway_id = turn.tax_id.gateway_id
        if gateway_id is None:
            found = await _find(gateway, account.stripe_id, turn)
            gateway_id = None if found is None else found.gateway_id
        if gateway_id is not None:
            await gateway.delete_tax_id(account.stripe_id, gateway_id)
    return _Forgotten()


def _after(tax_id: TaxId, outcome: _Outcome, now: datetime) -> TaxId:
    """What a turn makes of a number."""
    later = now + PAUSES[min(tax_id.tries, len(PAUSES)) - 1]
    done = tax_id._replace(next_at=None)
    match outcome:
        case _Forgotten():
            return done
        case GatewayRefused(is_key=True):
            after = tax_id._replace(next_at=max(later, now + KEY_TROUBLE))
        case GatewayRefused(code="resource_missing") if tax_id.gateway_id is not None and tax_id.deleted_at is None:
            # Whoever deleted it there did not delete it here: it is made again.
            after = tax_id._replace(gateway_id=None, next_at=later)
        case GatewayRefused(code="tax_id_invalid"):
            return done._replace(status="unverified")
        case GatewayRefused():
            return done._replace(status="unavailable")
        case GatewayTaxId(status="pending"):
            after = tax_id._replace(gateway_id=outcome.gateway_id, next_at=later)
        case GatewayTaxId():
            return done._replace(
                gateway_id=outcome.gateway_id,
                status=outcome.status,
                verified_name=outcome.verified_name,
                verified_address=outcome.verified_address,
            )
        case _:
            after = tax_id._replace(next_at=later)
    if after.tries < TRIES_MAX:
        return after
    return after._replace(next_at=None, status="unavailable")
