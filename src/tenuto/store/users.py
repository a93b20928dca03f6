"""People who sign in to the console: users, open invitations, sessions, and tries that failed. All times are real."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from tenuto.core.user import FAR_WINDOW, IDLE, WHOLE, Session, User

from .database import Reader, Record, Unit

_USER: Final = (
    "u.company_id, u.id, u.email, u.role, u.code_secret is not null as has_code, u.created_at, u.signed_in_at,"
    " u.invited_until"
)
_TRIES_LOCK: Final = 0x74_6E_73
SEEN_EVERY: Final = timedelta(minutes=1)
"""How exactly it is known when somebody was last there."""


class Credentials(NamedTuple):
    """What somebody who signs in is held to. ``code_secret`` is sealed; ``code_step`` is the last code taken."""

    user: User
    password_hash: str
    code_secret: bytes | None
    code_step: int | None


def _user(row: Record) -> User:
    return User(*(row[name] for name in User._fields))


async def list_users(reader: Reader, company_id: int) -> list[User]:
    """All users of a company and all who are invited, the oldest first."""
    rows = await reader.fetch(f"select {_USER} from console_user u where company_id = $1 order by id", company_id)
    return sorted(map(_user, rows), key=lambda user: (user.created_at, user.id))


async def lock_users(unit: Unit, company_id: int) -> list[User]:
    """The same, and nobody else changes them until the unit ends."""
    await unit.execute("select from company where id = $1 for no key update", company_id)
    return await list_users(unit, company_id)


async def insert_invitation(unit: Unit, invited: User, digest: bytes) -> bool:
    """Invite somebody; False where the company has a user with that address."""
    found = await unit.fetchval(
        "insert into console_user (company_id, id, email, role, created_at, invitation, invited_until)"
        " values ($1, $2, $3, $4, $5, $6, $7) on conflict on constraint console_user_email_key do nothing returning id",
        invited.company_id,
        invited.id,
        invited.email,
        invited.role,
        invited.created_at,
        digest,
        invited.invited_until,
    )
    return found is not None


async def find_invitation(reader: Reader, digest: bytes, now: datetime) -> tuple[User, str] | None:
    """Who is invited by a token that still holds, and the name of the company."""
    row = await reader.fetchrow(
        f"select {_USER}, c.name as company_name from console_user u join company c on c.id = u.company_id"
        " where u.invitation = $1 and u.invited_until > $2",
        digest,
        now,
    )
    return None if row is None else (_user(row), row["company_name"])


async def take_invitation(unit: Unit, digest: bytes, password_hash: str, now: datetime) -> bool:
    """Make a user of who is invited, once."""
    done = await unit.fetchval(
        "update console_user set password_hash = $2, invitation = null, invited_until = null"
        " where invitation = $1 and invited_until > $3 returning id",
        digest,
        password_hash,
        now,
    )
    return done is not None


async def renew_invitation(unit: Unit, company_id: int, user_id: int, digest: bytes, until: datetime) -> None:
    """Another token for an invitation that is open; the one before is worth nothing."""
    await unit.execute(
        "update console_user set invitation = $3, invited_until = $4"
        " where company_id = $1 and id = $2 and invited_until is not null",
        company_id,
        user_id,
        digest,
        until,
    )


async def update_role(unit: Unit, company_id: int, user_id: int, role: str) -> None:
    """Give a user another role."""
    await unit.execute("update console_user set role = $3 where company_id = $1 and id = $2", company_id, user_id, role)


async def delete_user(unit: Unit, company_id: int, user_id: int) -> None:
    """Forget a user, or an invitation; with it go all sessions."""
    await unit.execute("delete from console_user where company_id = $1 and id = $2", company_id, user_id)


async def update_password(unit: Unit, company_id: int, user_id: int, password_hash: str) -> None:
    """Another password."""
    await unit.execute(
        "update console_user set password_hash = $3 where company_id = $1 and id = $2",
        company_id,
        user_id,
        password_hash,
    )


async def update_code(unit: Unit, company_id: int, user_id: int, secret: bytes | None, step: int | None) -> None:
    """Ask for codes of an authenticator from now on, or (None) no more."""
    await unit.execute(
        "update console_user set code_secret = $3, code_step = $4 where company_id = $1 and id = $2",
        company_id,
        user_id,
        secret,
        step,
    )


async def take_code(unit: Unit, company_id: int, user_id: int, step: int) -> bool:
    """Use a code up; False where it, or a later one, was used before."""
    done = await unit.fetchval(
        "update console_user set code_step = $3 where company_id = $1 and id = $2"
        " and (code_step is null or code_step < $3) returning id",
        company_id,
        user_id,
        step,
    )
    return done is not None


# --- signing in -------------------------------------------------------------------------------------------------------


async def find_credentials(
    reader: Reader, email: str, limit: int, company_id: int | None = None, *, is_only: bool = False
) -> list[Credentials]:
    """Users with an address: the one of a company first, then (unless ``is_only``) of whichever others, oldest first.

    The order by age lets nobody who opens a company with somebody's address later stand in their way.
    """
    rows = await reader.fetch(
        f"select {_USER}, u.password_hash, u.code_secret, u.code_step from console_user u"
        " where u.email = $1 and u.password_hash is not null and (u.company_id = $3 or not $4)"
        " order by u.company_id is distinct from $3, u.created_at, u.id limit $2",
        email,
        limit,
        company_id,
        is_only,
    )
    return [Credentials(_user(row), row["password_hash"], row["code_secret"], row["code_step"]) for row in rows]


async def read_credentials(reader: Reader, company_id: int, user_id: int) -> Credentials | None:
    """What one user is held to."""
    row = await reader.fetchrow(
        f"select {_USER}, u.password_hash, u.code_secret, u.code_step from console_user u"
        " where u.company_id = $1 and u.id = $2 and u.password_hash is not null",
        company_id,
        user_id,
    )
    if row is None:
        return None
    return Credentials(_user(row), row["password_hash"], row["code_secret"], row["code_step"])


async def lock_tries(unit: Unit, email: str) -> None:
    """Nobody else tries to sign in with this address until the unit ends."""
    await unit.execute("select pg_advisory_xact_lock($1, hashtext($2))", _TRIES_LOCK, email)


async def list_failures(reader: Reader, email: str, address: str, now: datetime) -> list[tuple[datetime, bool]]:
    """Tries with an address of mail that failed of late, and whether each came from ``address``."""
    rows = await reader.fetch(
        "select at, address = $2 from sign_in_failure where email = $1 and at > $3", email, address, now - FAR_WINDOW
    )
    return [(at, is_near) for at, is_near in rows]


async def count_failures_from(reader: Reader, address: str, now: datetime) -> int:
    """How many tries from one place failed of late, whatever the address of mail."""
    found: int = await reader.fetchval(
        "select count(*) from sign_in_failure where address = $1 and at > $2", address, now - FAR_WINDOW
    )
    return found


async def insert_failure(unit: Unit, email: str, address: str, at: datetime) -> None:
    """One more try that failed."""
    await unit.execute("insert into sign_in_failure (email, address, at) values ($1, $2, $3)", email, address, at)


async def forgive(unit: Unit, email: str, address: str) -> None:
    """Forget the tries from one place, where the last one was good."""
    await unit.execute("delete from sign_in_failure where email = $1 and address = $2", email, address)


# --- sessions ---------------------------------------------------------------------------------------------------------

_SESSION: Final = (
    f"select {_USER}, c.name as company_name, s.digest, s.live, s.created_at as session_created_at, s.seen_at,"
    " s.authenticated_at, s.address, s.agent from console_session s"
    " join console_user u on u.company_id = s.company_id and u.id = s.user_id join company c on c.id = s.company_id"
)


def _session(row: Record) -> Session:
    return Session(
        _user(row),
        row["company_name"],
        row["digest"],
        row["live"],
        row["session_created_at"],
        row["seen_at"],
        row["authenticated_at"],
        row["address"],
        row["agent"],
    )


async def insert_session(unit: Unit, session: Session) -> None:
    """Somebody has signed in."""
    user = session.user
    await unit.execute(
        "insert into console_session (digest, company_id, user_id, live, created_at, seen_at, authenticated_at,"
        " address, agent) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        session.digest,
        user.company_id,
        user.id,
        session.live,
        session.created_at,
        session.seen_at,
        session.authenticated_at,
        session.address,
        session.agent,
    )
    await unit.execute(
        "update console_user set signed_in_at = $3 where company_id = $1 and id = $2",
        user.company_id,
        user.id,
        session.created_at,
    )


async def find_session(reader: Reader, digest: bytes) -> Session | None:
    """The session of a cookie, over or not."""
    row = await reader.fetchrow(f"{_SESSION} where s.digest = $1", digest)
    return None if row is None else _session(row)


async def list_sessions(reader: Reader, company_id: int, user_id: int, now: datetime) -> list[Session]:
    """Where a user is signed in, the latest first."""
    rows = await reader.fetch(
        f"{_SESSION} where s.company_id = $1 and s.user_id = $2 order by s.seen_at desc", company_id, user_id
    )
    return [found for found in map(_session, rows) if not found.is_over(now)]


async def update_session(
    unit: Unit,
    digest: bytes,
    *,
    seen_at: datetime | None = None,
    authenticated_at: datetime | None = None,
    live: bool | None = None,
) -> None:
    """Say when its user was there last, gave the password last, or which half is looked at."""
    await unit.execute(
        "update console_session set seen_at = greatest(seen_at, coalesce($2, seen_at)),"
        " authenticated_at = coalesce($3, authenticated_at), live = coalesce($4, live) where digest = $1",
        digest,
        seen_at,
        authenticated_at,
        live,
    )


async def delete_sessions(
    unit: Unit, company_id: int, user_id: int, *, digest: bytes | None = None, but: bytes | None = None
) -> int:
    """End one session of a user, or all (but one); how many."""
    rows = await unit.fetch(
        "delete from console_session where company_id = $1 and user_id = $2"
        " and ($3::bytea is null or digest = $3) and ($4::bytea is null or digest <> $4) returning digest",
        company_id,
        user_id,
        digest,
        but,
    )
    return len(rows)


async def forget(unit: Unit, now: datetime, limit: int) -> int:
    """Delete sessions that are over and failures that no longer count; how many."""
    over = await unit.fetch(
        "delete from console_session where digest in (select digest from console_session"
        " where seen_at <= $1 or created_at <= $2 limit $3) returning digest",
        now - IDLE,
        now - WHOLE,
        limit,
    )
    old = await unit.fetch(
        "delete from sign_in_failure where ctid in (select ctid from sign_in_failure where at <= $1 limit $2)"
        " returning at",
        now - FAR_WINDOW,
        limit,
    )
    return len(over) + len(old)
