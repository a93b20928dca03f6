"""Companies, their environments and keys, users, and accounts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from tenuto.core.entitlement import flags_of
from tenuto.core.plan import FlagValue
from tenuto.core.subscription import RUNNING
from tenuto.core.terms import Terms, terms_of

from .catalog import read_prices
from .database import Reader, Record, Unit
from .flags import OWN_FLAGS, FlagRow, OwnFlag, own_flags, system_names, values_of
from .pauses import BEFORE, ITSELF, Word, tell_pauses
from .plans import read_plan_versions
from .records import decoded
from .signals import LISTENING, listening_of


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it is kept: ``digest`` is the SHA-256 of the whole key, ``hint`` its last four characters."""

    id: int
    name: str
    digest: bytes
    hint: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """A company's Stripe: the secrets sealed as they are kept, the key's hint, and the key that browsers may know."""

    key: bytes | None
    hint: str | None
    publishable_key: str | None
    webhook_secret: bytes | None


@dataclass(frozen=True, slots=True)
class Environment:
    """The test or live half of a company with all that a request is judged by, as of ``revision``."""

    id: int
    company_id: int
    company_name: str
    live: bool
    revision: int
    clock_offset: timedelta
    zone_name: str
    created_at: datetime
    keys: Mapping[int, Key]
    terms: Terms
    money: Mapping[str, Any]
    """Settings of refills, invoices, dunning and tax, each section read by the module that it is for."""
    stripe: StripeSettings
    capture_suspended: bool

    @property
    def mode(self) -> str:
        """``live`` or ``test``."""
        return "live" if self.live else "test"

    def key_in_force(self, key_id: int, now: datetime) -> Key | None:
        """An API key that is neither revoked nor expired at ``now`` (real time)."""
        key = self.keys.get(key_id)
        if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            return None
        return key


class AccountPlan(NamedTuple):
    """The plan of an account as it is shown with it: on now, or last."""

    plan_id: int
    cadence: str
    status: str
    renewed_at: datetime | None
    period_end: datetime | None
    cancels_at_end: bool
    changed_at: datetime
    flags: Mapping[str, FlagValue]

    @property
    def is_running(self) -> bool:
        """Whether its terms are in force."""
        return self.status in RUNNING


@dataclass(frozen=True, slots=True)
class Account:
    """An account as it is shown. ``metadata`` is JSON text as it was given, or None.

    ``flags`` are those of its plan and those set for it, as they stand; what pauses it is shown by fields of their own.
    """

    id: int
    environment_id: int
    company_id: int
    name: str
    email: str
    metadata: str | None
    stripe_id: str | None
    credit_limit: int | None
    opened: int
    created_at: datetime
    updated_at: datetime | None
    paused_at: datetime | None = None
    paused_by: str | None = None
    credit_blocked_at: datetime | None = None
    credit_blocked_by: str | None = None
    capture_suspended: bool = False
    usage_suspended_at: datetime | None = None
    is_replaying: bool = False
    waiting: int = 0
    """How many of its events are kept aside."""
    public_id: str | None = None
    address: Mapping[str, str] | None = None
    currency: str | None = None
    organization_id: str | None = None
    """The organization whose account it is, as tokens name that one."""
    plan: AccountPlan | None = None
    flags: tuple[FlagRow, ...] = ()


async def insert_company(unit: Unit, id: int, name: str, now: datetime) -> None:
    """A company, without environments yet."""
    await unit.execute("insert into company (id, name, created_at) values ($1, $2, $3)", id, name, now)


async def insert_user(
    unit: Unit, *, company_id: int, id: int, email: str, password_hash: str, role: str, now: datetime
) -> None:
    """A user of a company."""
    await unit.execute(
        "insert into console_user (company_id, id, email, password_hash, role, created_at)"
        " values ($1, $2, $3, $4, $5, $6)",
        company_id,
        id,
        email,
        password_hash,
        role,
        now,
    )


async def insert_environment(unit: Unit, *, company_id: int, live: bool, now: datetime) -> int:
    """The test or live half of a company with the default settings; its id."""
    found: int = await unit.fetchval(
        "insert into environment (company_id, live, revision, zone, default_credit_limit, late_seconds, ahead_seconds,"
        " clock_offset, created_at, updated_at) values ($1, $2, 1, 'UTC', 0, 3024000, 300, 0, $3, $3) returning id",
        company_id,
        live,
        now,
    )
    return found


async def find_environment(reader: Reader, company_id: int, *, live: bool) -> int | None:
    """The id of one half of a company."""
    found: int | None = await reader.fetchval(
        "select id from environment where company_id = $1 and live = $2", company_id, live
    )
    return found


async def find_environment_of_key(reader: Reader, key_id: int) -> int | None:
    """The environment that a key with this id belongs to."""
    found: int | None = await reader.fetchval("select environment_id from api_key where id = $1", key_id)
    return found


async def current_revision(reader: Reader, environment_id: int) -> int | None:
    """The revision an environment has now."""
    found: int | None = await reader.fetchval("select revision from environment where id = $1", environment_id)
    return found


async def read_environment(reader: Reader, environment_id: int) -> Environment | None:
    """An environment whole: settings, keys, prices and plans with all their versions.

    The revision is read first: if something changes between the statements, what is read is newer than the revision
    says, which the next proof finds out.
    """
    row = await reader.fetchrow(
        f"select v.*, c.name, {LISTENING} from environment v join company c on c.id = v.company_id where v.id = $1",
        environment_id,
    )
    if row is None:
        return None
    listening = listening_of(row)
    keys = await reader.fetch("select * from api_key where environment_id = $1", environment_id)
    prices = await read_prices(reader, environment_id)
    plans = await read_plan_versions(reader, environment_id, prices.of_plans)
    return Environment(
        id=row["id"],
        company_id=row["company_id"],
        company_name=row["name"],
        live=row["live"],
        revision=row["revision"],
        clock_offset=timedelta(microseconds=row["clock_offset"]),
        zone_name=row["zone"],
        created_at=row["created_at"],
        keys={key["id"]: _key(key) for key in keys},
        terms=terms_of(
            zone=ZoneInfo(row["zone"]),
            default_credit_limit=row["default_credit_limit"],
            late=timedelta(seconds=row["late_seconds"]),
            ahead=timedelta(seconds=row["ahead_seconds"]),
            prices=prices.own,
            versions=prices.versions,
            past=prices.past,
            plans=plans,
            watch=listening.watch,
            rules=listening.rules,
            is_paused=row["paused_at"] is not None,
            is_suspended=row["usage_suspended_at"] is not None,
        ),
        money=decoded(row["money"]),
        stripe=StripeSettings(
            row["stripe_key"], row["stripe_key_hint"], row["stripe_publishable_key"], row["stripe_webhook_secret"]
        ),
        capture_suspended=row["capture_suspended"],
    )


async def lock_environment(unit: Unit, environment_id: int) -> int:
    """Take an environment for changing; its revision. Every change to keys, prices, settings or clock begins here."""
    found: int = await unit.fetchval("select revision from environment where id = $1 for no key update", environment_id)
    return found


async def raise_revision(unit: Unit, environment_id: int, now: datetime) -> None:
    """Say that something of the environment has changed. Every change to one ends here."""
    await unit.execute(
        "update environment set revision = revision + 1, updated_at = $2 where id = $1", environment_id, now
    )


async def update_company(unit: Unit, company_id: int, name: str) -> None:
    """Rename a company."""
    await unit.execute("update company set name = $2 where id = $1", company_id, name)


async def update_settings(unit: Unit, environment_id: int, changes: Mapping[str, object]) -> None:
    """Set columns of an environment; the names come from the service's own closed list.

    ``money`` holds whole sections, each of which takes the place of the one before.
    """
    for column in _SETTINGS:
        if column in changes:
            await unit.execute(f"update environment set {column} = $2 where id = $1", environment_id, changes[column])
    if "money" in changes:
        await unit.execute(
            "update environment set money = (money::jsonb || $2::text::jsonb)::json where id = $1",
            environment_id,
            msgspec.json.encode(changes["money"]).decode(),
        )


_SETTINGS: Final = (
    *("zone", "default_credit_limit", "late_seconds", "ahead_seconds", "stripe_key", "stripe_key_hint"),
    *("stripe_publishable_key", "stripe_webhook_secret"),
)


async def set_clock_offset(unit: Unit, environment_id: int, offset: timedelta) -> None:
    """Move a test clock to ``offset`` ahead of real time."""
    await unit.execute(
        "update environment set clock_offset = $2 where id = $1", environment_id, offset // timedelta(microseconds=1)
    )


async def insert_key(unit: Unit, environment_id: int, key: Key) -> None:
    """Keep a key."""
    await unit.execute(
        "insert into api_key (environment_id, id, name, digest, hint, scopes, created_at, expires_at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)",
        environment_id,
        key.id,
        key.name,
        key.digest,
        key.hint,
        sorted(key.scopes),
        key.created_at,
        key.expires_at,
    )


async def revoke_key(unit: Unit, environment_id: int, key_id: int, now: datetime) -> None:
    """End a key; it stays listed."""
    await unit.execute(
        "update api_key set revoked_at = $3 where environment_id = $1 and id = $2 and revoked_at is null",
        environment_id,
        key_id,
        now,
    )


async def mark_keys_used(unit: Unit, used: Mapping[tuple[int, int], datetime]) -> None:
    """Note when keys were last used; called now and then, never for a single request."""
    await unit.executemany(
        "update api_key set last_used_at = $3 where environment_id = $1 and id = $2",
        [(environment_id, key_id, at) for (environment_id, key_id), at in sorted(used.items())],
    )


async def insert_account(unit: Unit, account: Account) -> None:
    """Open an account."""
    await unit.execute(
        "insert into account (id, environment_id, tick, credit_limit, opened, name, email, metadata, stripe_id,"
        " created_at) values ($1, $2, $3, $4, $3, $5, $6, $7, $8, $9)",
        account.id,
        account.environment_id,
        account.opened,
        account.credit_limit,
        account.name,
        account.email,
        account.metadata,
        account.stripe_id,
        account.created_at,
    )


_SIGNS_OF_USE: Final = (
    *("balance", "event", "refill", "invoice_terms", "invoice", "price_override", "flag_change", "organization"),
)
"""Tables with a row of an account that was used since it was opened."""


async def delete_opened(unit: Unit, account_id: int) -> bool:
    """Take back an account that was opened with a plan whose payment failed: nothing of it is left behind.

    False where it was used meanwhile: then it stays, on no plan.
    """
    used = " or ".join(f"exists (select from {table} where account_id = $1)" for table in _SIGNS_OF_USE)
    if await unit.fetchval(f"select {used} or (select count(*) > 1 from payment where account_id = $1)", account_id):
        return False
    for table in ("payment_attempt", "payment", "payment_link", "payment_method", "gated_event", "subscription"):
        await unit.execute(f"delete from {table} where account_id = $1", account_id)
    await unit.execute("delete from account where id = $1", account_id)
    return True


async def keep_customer(unit: Unit, account_id: int, stripe_id: str) -> str:
    """Note the account's customer at the provider; the one that was noted first stands, and is returned."""
    found: str = await unit.fetchval(
        "update account set stripe_id = coalesce(stripe_id, $2), customer_made = customer_made or stripe_id is null"
        " where id = $1 returning stripe_id",
        account_id,
        stripe_id,
    )
    return found


async def update_account(
    unit: Unit, account_id: int, changes: Mapping[str, object], now: datetime, tick: int, word: Word = ITSELF
) -> None:
    """Change columns of an account; its tick rises, since a limit or a pause is part of every decision.

    The one room in which pauses begin and end, but for the levels of credit (``core/notification``): what really
    changed is told here, whoever changed it.
    """
    columns = [name for name in _ACCOUNT_CHANGES if name in changes]
    sets = "".join(f", {name} = ${index}" for index, name in enumerate(columns, 4))
    if "stripe_id" in changes:
        sets += ", customer_made = false"
    row = await unit.fetchrow(
        f"with b as (select b.id, {BEFORE} from account b where b.id = $1 for no key update)"
        f" update account a set updated_at = $2, tick = greatest(a.tick + 1, $3){sets} from b where a.id = b.id"
        f" returning a.environment_id, a.tick, {BEFORE}",
        account_id,
        now,
        tick,
        *(_stored(changes[name]) for name in columns),
    )
    if row is not None:
        await tell_pauses(unit, account_id, row, changes, now, word)


async def list_blocked(reader: Reader, environment_id: int, blocked_by: str, limit: int) -> list[int]:
    """Accounts of an environment whose credit this has blocked, by id."""
    rows = await reader.fetch(
        "select id from account where environment_id = $1 and credit_blocked_by = $2 order by id limit $3",
        environment_id,
        blocked_by,
        limit,
    )
    return [row["id"] for row in rows]


async def unpause(unit: Unit, account_id: int, paused_by: str, now: datetime) -> None:
    """Let an account go on that this had paused; what somebody else paused stays so."""
    is_its = await unit.fetchval("select paused_by = $2 from account where id = $1", account_id, paused_by)
    if is_its:
        await update_account(unit, account_id, {"paused_at": None, "paused_by": None}, now, 0)


_ACCOUNT_CHANGES: Final = (
    *("name", "email", "metadata", "stripe_id", "credit_limit", "paused_at", "paused_by", "credit_blocked_at"),
    *("credit_blocked_by", "capture_suspended", "usage_suspended_at", "public_id", "address", "currency"),
)
_ACCOUNT: Final = (
    "select a.id, a.environment_id, e.company_id, a.name, a.email, a.metadata, a.stripe_id, a.credit_limit, a.opened,"
    " a.created_at, a.updated_at, a.paused_at, a.paused_by, a.credit_blocked_at, a.credit_blocked_by,"
    " a.capture_suspended, a.usage_suspended_at, a.replays_to is not null,"
    " (select count(*) from event x where x.account_id = a.id and x.state = 3), a.public_id, a.address, a.currency,"
    " (select g.external_id from organization g where g.account_id = a.id),"
    " s.plan_id, s.cadence, s.status,"
    " s.renewed_at, s.period_end, s.cancels_at_end, s.updated_at,"
    " coalesce(o.terms, w.terms) -> 'flags' as flags,"
    f" {OWN_FLAGS} as own_flags, e.money -> 'levels' as levels, (select json_object_agg(b.denomination, b.amount)"
    " from balance b where b.account_id = a.id) as amounts"
    " from account a join environment e on e.id = a.environment_id"
    " left join subscription s on s.account_id = a.id"
    " left join plan_version w on w.environment_id = a.environment_id and w.id = s.version_id"
    " left join plan_override o on o.account_id = a.id and o.id = s.override_id"
)


async def fix_currency(unit: Unit, account_id: int, currency: str) -> None:
    """Give the account of an organization its currency, with its first subscription; one that it has stays."""
    await unit.execute(
        "update account set currency = $2 where id = $1 and currency is null and public_id is not null",
        account_id,
        currency,
    )


def _stored(value: object) -> object:
    """A value as its column keeps it: an address is JSON."""
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else value


def _account(row: Record) -> Account:
    """A row of :data:`_ACCOUNT`: the account's own columns, those of its plan, and what its flags are read off."""
    *values, own, levels, amounts = row
    at = len(values) - len(AccountPlan._fields)
    values[at - 3] = decoded(values[at - 3]) or None
    plan = None
    if values[at] is not None:
        plan = AccountPlan(*values[at:])._replace(flags=decoded(values[-1]) or {})
    flags = _flags(plan, own_flags(own), decoded(amounts) or {}, system_names(levels))
    return Account(*values[:at], plan, flags)  # type: ignore[call-arg] # mypy counts the rest as two more than it may be


def _flags(
    plan: AccountPlan | None, own: Mapping[str, OwnFlag], amounts: Mapping[str, int], hidden: Collection[str]
) -> tuple[FlagRow, ...]:
    """The flags that an account has by its plan or by hand."""
    of_plan = plan.flags if plan is not None and plan.is_running else {}
    plan_at = None if plan is None else plan.changed_at
    found = flags_of(of_plan, values_of(own), amounts, {})
    return tuple(
        FlagRow(flag, own[name].changed_at if name in own else plan_at)
        for name, flag in found.items()
        if name not in hidden
    )


async def read_account(reader: Reader, environment_id: int, account_id: int) -> Account | None:
    """One account of an environment; None for a foreign one."""
    row = await reader.fetchrow(f"{_ACCOUNT} where a.id = $1 and a.environment_id = $2", account_id, environment_id)
    return None if row is None else _account(row)


async def list_accounts(
    reader: Reader, environment_id: int, *, limit: int, after: Sequence[int] | None, filters: Mapping[str, object]
) -> list[Account]:
    """Accounts, newest first; ``after`` is (opened, id) of the last one seen.

    ``filters``: name, email, stripe_id, and plan_id, of the accounts whose plan it is and still runs.
    """
    arguments: list[Any] = [environment_id, limit]
    where = "a.environment_id = $1"
    for name in ("name", "email", "stripe_id"):
        if name in filters:
            arguments.append(filters[name])
            where += f" and a.{name} = ${len(arguments)}"
    if "plan_id" in filters:
        arguments.append(filters["plan_id"])
        # Named once more for the sake of the index, which begins with the environment.
        where += f" and s.environment_id = $1 and s.plan_id = ${len(arguments)} and s.status <> 'cancelled'"
    if after is not None:
        arguments.extend(after)
        where += f" and (a.opened, a.id) < (${len(arguments) - 1}, ${len(arguments)})"
    rows = await reader.fetch(f"{_ACCOUNT} where {where} order by a.opened desc, a.id desc limit $2", *arguments)
    return [_account(row) for row in rows]


def _key(row: Record) -> Key:
    return Key(
        id=row["id"],
        name=row["name"],
        digest=row["digest"],
        hint=row["hint"],
        scopes=frozenset(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )
