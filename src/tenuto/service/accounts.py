"""Companies, users, keys, settings and clocks; accounts and what is put on their balances by the company's word."""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeVar

from tenuto.core.entitlement import Flag, flags_of_rules, shown
from tenuto.core.event import AccountState
from tenuto.core.identifiers import spell
from tenuto.core.ledger import Transaction, adjust, open_balance
from tenuto.core.notification import BLOCKED_BY_LEVEL, keeps_block
from tenuto.core.outcomes import Refusal
from tenuto.core.topic import SYSTEM_FLAGS, FlagChange
from tenuto.core.user import SCOPES
from tenuto.engine import Engine
from tenuto.store import accounts, flags, ledger
from tenuto.store.accounts import Account, Environment, Key
from tenuto.store.database import Unit
from tenuto.store.pauses import Word

Seen = TypeVar("Seen")

LIFTED_MAX: Final = 500
"""Blocks that other levels or a new default credit limit end at once; others end with their account's next movement."""
CLOCK_MAX: Final = datetime(2099, 1, 1, tzinfo=UTC)
_BASE62: Final = string.digits + string.ascii_letters


class CompanyOpened(NamedTuple):
    """A new company: its key is shown this once."""

    company_id: int
    name: str
    user_id: int
    email: str
    api_key: str


async def open_company(engine: Engine, unit: Unit, *, name: str, email: str, password_hash: str) -> CompanyOpened:
    """A company with its test environment, first user and first key."""
    now = engine.now()
    company_id, user_id = engine.new_id(), engine.new_id()
    await accounts.insert_company(unit, company_id, name, now)
    await accounts.insert_user(
        unit, company_id=company_id, id=user_id, email=email, password_hash=password_hash, role="owner", now=now
    )
    environment_id = await accounts.insert_environment(unit, company_id=company_id, live=False, now=now)
    key, secret = make_key(engine.new_id(), live=False, name="first key", scopes=SCOPES, now=now)
    await accounts.insert_key(unit, environment_id, key)
    return CompanyOpened(company_id, name, user_id, email, secret)


def make_key(
    id: int,
    *,
    live: bool,
    name: str,
    scopes: Sequence[str],
    now: datetime,
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """A key as it is kept, and the secret as it is shown once: mode, key id, 256 bits, and a checksum for scanners."""
    body = "".join(secrets.choice(_BASE62) for _ in range(43))
    text = f"sk_{'live' if live else 'test'}_{spell('k', id)[2:]}_{body}"
    text += _checksum(text)
    key = Key(
        id=id,
        name=name,
        digest=hashlib.sha256(text.encode()).digest(),
        hint=text[-4:],
        scopes=frozenset(scopes),
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    return key, text


def _checksum(text: str) -> str:
    """CRC-32 in six characters: lets a scanner tell a key of ours from noise without asking anybody."""
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits += _BASE62[digit]
    return digits


async def issue_key(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    *,
    live: bool,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
) -> tuple[Key, str]:
    """Another key of the company, for either half; the live half is made with its first key."""
    now = engine.now()
    environment_id = environment.id
    if live != environment.live:
        found = await accounts.find_environment(unit, environment.company_id, live=live)
        environment_id = found or await accounts.insert_environment(
            unit, company_id=environment.company_id, live=live, now=now
        )
    await accounts.lock_environment(unit, environment_id)
    key, secret = make_key(engine.new_id(), live=live, name=name, scopes=scopes, now=now, expires_at=expires_at)
    await accounts.insert_key(unit, environment_id, key)
    await accounts.raise_revision(unit, environment_id, now)
    return key, secret


async def revoke_key(engine: Engine, unit: Unit, environment: Environment, key_id: int) -> Key:
    """End a key at once. Raises Refusal ``last_key`` rather than lock the company out."""
    await accounts.lock_environment(unit, environment.id)
    current = await accounts.read_environment(unit, environment.id)
    key = current.keys.get(key_id) if current else None
    if current is None or key is None or key.revoked_at is not None:
        raise Refusal("not_found")
    now = engine.now()
    if "keys:write" in key.scopes and not any(_outlasts(other, key, now) for other in current.keys.values()):
        raise Refusal("last_key")
    await accounts.revoke_key(unit, environment.id, key_id, now)
    await accounts.raise_revision(unit, environment.id, now)
    return key


def _outlasts(other: Key, key: Key, now: datetime) -> bool:
    """Whether another key can manage keys, now and for at least as long as this one could."""
    if other.id == key.id or other.revoked_at is not None or "keys:write" not in other.scopes:
        return False
    return other.expires_at is None or (
        other.expires_at > now and key.expires_at is not None and other.expires_at >= key.expires_at
    )


async def change_company(
    engine: Engine, unit: Unit, environment: Environment, *, name: str | None, settings: Mapping[str, object]
) -> None:
    """Rename the company, change settings of this half of it."""
    await accounts.lock_environment(unit, environment.id)
    if name is not None:
        await accounts.update_company(unit, environment.company_id, name)
    await accounts.update_settings(unit, environment.id, settings)
    await accounts.raise_revision(unit, environment.id, engine.now())
    changed = await accounts.read_environment(unit, environment.id)
    if changed is not None and changed.terms.listening != environment.terms.listening:
        for account_id in await accounts.list_blocked(unit, environment.id, BLOCKED_BY_LEVEL, LIFTED_MAX):
            await _lift_block(engine, unit, changed, account_id)


async def clock_target(
    engine: Engine, unit: Unit, environment: Environment, *, to: datetime | None, by: timedelta | None
) -> tuple[datetime, timedelta]:
    """From when a test clock is moved, in the company's time, and how far ahead of real time it is to be in the end.

    Raises Refusal ``live_clock`` or ``clock_not_forward``.
    """
    if environment.live:
        raise Refusal("live_clock")
    await accounts.lock_environment(unit, environment.id)
    current = await accounts.read_environment(unit, environment.id)
    assert current is not None
    real_now, now = engine.now(), engine.now_of(current)
    offset = to - real_now if to is not None else current.clock_offset + (by or timedelta())
    if offset < current.clock_offset:
        raise Refusal("clock_not_forward", now=now)
    if real_now + offset > CLOCK_MAX:
        raise Refusal("out_of_range", "now: a test clock goes up to 2099-01-01.", path="now")
    return now, offset


async def set_clock(
    engine: Engine, environment: Environment, offset: timedelta, look: Callable[[Unit], Awaitable[Seen]]
) -> Seen:
    """Let a test clock be so far ahead of real time, unless it is further already. It goes on running from there.

    What ``look`` finds is seen before anybody else can see the new time.
    """
    async with engine.database.writing() as unit:
        await accounts.lock_environment(unit, environment.id)
        current = await accounts.read_environment(unit, environment.id)
        assert current is not None
        await accounts.set_clock_offset(unit, environment.id, max(offset, current.clock_offset))
        await accounts.raise_revision(unit, environment.id, engine.now())
        return await look(unit)


async def open_account(  # noqa: PLR0913 - an account is all of this
    engine: Engine,
    unit: Unit,
    environment: Environment,
    *,
    name: str,
    email: str,
    metadata: str | None,
    stripe_id: str | None,
    credit_limit: int | None,
    id: int | None = None,
) -> Account:
    """A new account of the company; it may have been given an id already."""
    account = Account(
        id=engine.new_id() if id is None else id,
        environment_id=environment.id,
        company_id=environment.company_id,
        name=name,
        email=email,
        metadata=metadata,
        stripe_id=stripe_id,
        credit_limit=credit_limit,
        opened=engine.tick(),
        created_at=engine.now_of(environment),
        updated_at=None,
    )
    await accounts.insert_account(unit, account)
    return account


async def edit_account(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, changes: Mapping[str, object]
) -> Account:
    """Change name, email, metadata, Stripe id or credit limit."""
    before = await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    if changes:
        await accounts.update_account(unit, account_id, changes, engine.now_of(environment), engine.tick())
    if "credit_limit" in changes:
        await _follow_limit(engine, unit, environment, before)
    found = await accounts.read_account(unit, environment.id, account_id)
    assert found is not None
    return found


async def open_account_balance(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    denomination: str,
    *,
    amount: int,
    credit_limit: int | None,
) -> None:
    """A new balance, with an opening amount by adjustment if there is one. Raises Refusal ``balance_exists``."""
    state = await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    if denomination in state.balances:
        raise Refusal("balance_exists", denomination=denomination)
    balance, tick = open_balance(denomination, credit_limit=credit_limit), max(engine.tick(), state.tick + 1)
    now = engine.now_of(environment)
    transaction = None
    if amount:
        balance, transaction = adjust(balance, amount, id=tick, reason="opening balance", now=now)
    await ledger.save_moves(unit, state, tick, [(balance, transaction)], now)
    if credit_limit is not None:
        await ledger.save_credit_limit(unit, account_id, tick, denomination, credit_limit)


async def limit_balance(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, denomination: str, credit_limit: int | None
) -> None:
    """Set how far below zero one balance may go; None gives the decision back to account and company."""
    state = await ledger.take_account(unit, environment.id, account_id, engine.now_of(environment))
    if denomination not in state.balances:
        raise Refusal("not_found")
    tick = max(engine.tick(), state.tick + 1)
    await ledger.save_credit_limit(unit, account_id, tick, denomination, credit_limit)
    await _follow_limit(engine, unit, environment, state)


async def _follow_limit(engine: Engine, unit: Unit, environment: Environment, before: AccountState) -> None:
    """Keep and tell which flags of the company's rules another limit of an account changes, and end its block.

    No movement will tell it: whoever keeps what flagbacks say would go on with what was true before.
    """
    now, listening = engine.now_of(environment), environment.terms.listening
    after = await ledger.take_account(unit, environment.id, before.account_id, now)

    def raised(state: AccountState) -> dict[str, bool]:
        return flags_of_rules(listening.rules, state.balances, state.credit_limit, listening.default_credit_limit)

    was, tick = raised(before), max(engine.tick(), after.tick + 1)
    reason = "the credit limit has changed"
    changes = [
        FlagChange(tick, name, "system", None, reason, _binary(name, not is_up), _binary(name, is_up))
        for name, is_up in raised(after).items()
        if is_up != was[name] and name not in SYSTEM_FLAGS
    ]
    if changes:
        await flags.save_changes(unit, environment.id, before.account_id, changes, now)
    await _lift_block(engine, unit, environment, before.account_id)


def _binary(name: str, is_up: bool) -> dict[str, object] | None:  # noqa: FBT001 - a state, not a switch
    return shown(Flag(name, "binary", is_up, None, None, "system"))


async def _lift_block(engine: Engine, unit: Unit, environment: Environment, account_id: int) -> None:
    """End the block of an account that a level began, where nothing justifies it any more (contract 3.8)."""
    now, listening = engine.now_of(environment), environment.terms.listening
    state = await ledger.take_account(unit, environment.id, account_id, now)
    if state.blocked_by != BLOCKED_BY_LEVEL:
        return
    if not any(keeps_block(balance, state.credit_limit, listening) for balance in state.balances.values()):
        lifted = {"credit_blocked_at": None, "credit_blocked_by": None}
        word = Word(reason="what is owed is within the limit again")
        await accounts.update_account(unit, account_id, lifted, now, engine.tick(), word)


async def adjust_balance(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    denomination: str,
    *,
    amount: int,
    reason: str,
) -> Transaction:
    """Units in or out without payment; a balance that is not there yet is opened by it (decision 0007)."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    tick = max(engine.tick(), state.tick + 1)
    balance = state.balances.get(denomination) or open_balance(denomination)
    balance, transaction = adjust(balance, amount, id=tick, reason=reason, now=now)
    await ledger.save_moves(unit, state, tick, [(balance, transaction)], now)
    return transaction


async def note_keys_used(engine: Engine, *, now: datetime, limit: int) -> int:  # noqa: ARG001 - the shape of a sweep
    """Sweep: write down when keys were last used; requests only remember it."""
    used, engine.keys_used = engine.keys_used, {}
    if used:
        async with engine.database.writing() as unit:
            await accounts.mark_keys_used(unit, used)
    return len(used)
