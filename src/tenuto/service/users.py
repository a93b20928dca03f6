"""People who sign in to the console: invitations, passwords, codes of an authenticator, and sessions.

Who signs in is answered the same for an address that nobody has and for a password that is wrong, after the same work.
A session is known by the digest of what its cookie holds, so that no copy of the database signs anybody in. Sources:
bar 4.9 and 5 (Login, Sessions, Passwords).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from ipaddress import ip_address
from math import ceil
from typing import Final, NamedTuple, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor import InvalidToken
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from tenuto.core.identifiers import spell
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.user import (
    CODE_SECONDS,
    EMAIL_MAX,
    INVITED,
    NEAR_WINDOW,
    PASSWORD_MAX,
    PLACE_FAILURES,
    USERS_MAX,
    Session,
    User,
    judge_change,
    judge_password,
    judge_role,
    may_try_at,
)
from tenuto.engine import Engine
from tenuto.store import users
from tenuto.store.activity import insert_activity
from tenuto.store.database import Reader, Unit
from tenuto.store.users import Credentials
from tenuto.vault import VaultError

CODE_BYTES: Final = 20
CODE_DIGITS: Final = 6
COMPANIES_MAX: Final = 10
"""Of how many companies one address and password are tried, in the order in which they were joined."""
AGENT_MAX: Final = 200
_PASSWORDS: Final = PasswordHasher(time_cost=2, memory_cost=47_104, parallelism=1)
WAITING_MAX: Final = 50
"""Passwords that wait to be looked at; who comes after them is told to come again."""
Hashed = TypeVar("Hashed")


class _Hashing:
    """One password at a time: whoever guesses has at most one core of a worker, and no endless queue."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "password")
        self._waiting = 0

    async def do(self, work: Callable[[], Hashed]) -> Hashed:
        """Work off the event loop. Raises Refusal ``overloaded``."""
        if self._waiting >= WAITING_MAX:
            raise Refusal("overloaded")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1


_HASHING: Final = _Hashing()


class SignedIn(NamedTuple):
    """What the cookie holds, and whose session it is."""

    token: str
    session: Session


class Invited(NamedTuple):
    """Somebody who is invited, and the token that lets them in; told this once."""

    user: User
    token: str


async def hash_password(password: str) -> str:
    """Argon2id, off the event loop: it takes tens of milliseconds of one core by design."""
    return await _HASHING.do(partial(_PASSWORDS.hash, password))


async def _fits(password_hash: str, password: str) -> bool:
    try:
        return await _HASHING.do(partial(_PASSWORDS.verify, password_hash, password))
    except (VerificationError, InvalidHashError):
        return False


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


# --- signing in -------------------------------------------------------------------------------------------------------


class Came(NamedTuple):
    """Where a request came from, with what, and the address it called; for the activity and the list of sessions."""

    address: str
    agent: str = ""
    target: str = ""


async def _tell(engine: Engine, unit: Unit, user: User, came: Came, action: str, *, is_known: bool = True) -> None:
    """Write down what a user did; of a try that failed nobody knows who it was."""
    await insert_activity(
        unit,
        company_id=user.company_id,
        environment_id=None,
        at=engine.now(),
        actor=spell("u", user.id) if is_known else "",
        actor_name=user.email,
        address=came.address,
        action=action,
        target=came.target,
        asked=None,
    )


async def sign_in(
    engine: Engine,
    *,
    email: str,
    password: str,
    code: str,
    came: Came,
    company_id: int | None = None,
    is_only: bool = False,
) -> SignedIn:
    """Let somebody in: to the company that is named, if the address has a user there, else (unless ``is_only``) to any.

    Raises Refusal ``sign_in_failed``, ``code_needed``, ``sign_in_delayed`` with the seconds, or ``invalid_field`` where
    the password is longer than any can be.
    """
    email = email.strip().lower()
    if len(password) > PASSWORD_MAX:
        raise invalid("password", f"takes at most {PASSWORD_MAX} characters.")
    if len(email) > EMAIL_MAX or not email.isprintable():
        raise Refusal("sign_in_failed")
    async with engine.database.reading() as reader:
        wait = await _wait_of(engine, reader, email, came)
        found = await users.find_credentials(reader, email, COMPANIES_MAX, company_id, is_only=is_only)
    if wait is not None:
        raise wait
    known: Credentials | None = None
    for one in found:
        if await _fits(one.password_hash, password):
            known = one
            break
    if not found:
        # The same work for an address that nobody has.
        await hash_password(password)
    async with engine.database.writing() as unit:
        done = await _judged(engine, unit, email, found, known, code, came)
    if isinstance(done, Refusal):
        raise done
    return done


def _is_own_place(address: str) -> bool:
    """Whether an address tells places apart: one of a proxy, or of this machine, is everybody's."""
    try:
        return ip_address(address).is_global
    except ValueError:
        return False


async def _wait_of(engine: Engine, reader: Reader, email: str, came: Came) -> Refusal | None:
    """The refusal of who has to wait before the next try."""
    now = engine.now()
    if _is_own_place(came.address) and await users.count_failures_from(reader, came.address, now) >= PLACE_FAILURES:
        return Refusal("sign_in_delayed", retry_after=int(NEAR_WINDOW.total_seconds()))
    try_at = may_try_at(await users.list_failures(reader, email, came.address, now), now)
    if try_at <= now:
        return None
    return Refusal("sign_in_delayed", retry_after=ceil((try_at - now).total_seconds()))


async def _judged(
    engine: Engine, unit: Unit, email: str, found: list[Credentials], known: Credentials | None, code: str, came: Came
) -> SignedIn | Refusal:
    """What comes of a try whose password was looked at; a refusal is given back, so that what it leaves is kept."""
    # Of many tries at once each is judged after the one before it, and none is told anything while it would have to
    # wait: so nobody guesses more often by guessing at the same time.
    await users.lock_tries(unit, email)
    wait = await _wait_of(engine, unit, email, came)
    if wait is not None:
        return wait
    if known is None:
        await _failed(engine, unit, email, [one.user for one in found], came)
        return Refusal("sign_in_failed")
    if known.code_secret is not None:
        if not code.strip():
            return Refusal("code_needed")
        step = _step_of(engine, known, code)
        if step is None or not await users.take_code(unit, known.user.company_id, known.user.id, step):
            await _failed(engine, unit, email, [known.user], came)
            return Refusal("code_needed", "That code is not good, or was used already; take the next one.")
    await users.forgive(unit, email, came.address)
    return await _let_in(engine, unit, known.user, came, "sign_in")


async def _let_in(engine: Engine, unit: Unit, user: User, came: Came, action: str) -> SignedIn:
    now, token = engine.now(), secrets.token_urlsafe(32)
    session = Session(
        user=user,
        company_name="",
        digest=_digest(token),
        live=False,
        created_at=now,
        seen_at=now,
        authenticated_at=now,
        address=came.address,
        agent=came.agent[:AGENT_MAX],
    )
    await users.insert_session(unit, session)
    await _tell(engine, unit, user, came, action)
    return SignedIn(token, session)


async def _failed(engine: Engine, unit: Unit, email: str, whom: list[User], came: Came) -> None:
    """Count a try that failed, and tell those whom it was about."""
    await users.insert_failure(unit, email, came.address, engine.now())
    for user in whom:
        await _tell(engine, unit, user, came, "sign_in_failed", is_known=False)


async def begin(engine: Engine, company_id: int, user_id: int, came: Came) -> SignedIn:
    """Let in the user who has just opened a company."""
    async with engine.database.writing() as unit:
        known = await users.read_credentials(unit, company_id, user_id)
        if known is None:
            raise Refusal("not_found")
        return await _let_in(engine, unit, known.user, came, "sign_in")


async def find_session(engine: Engine, token: str, *, is_there: bool = True) -> Session | None:
    """Who holds this cookie, if their session is not over.

    Says now and then that they were there, unless (``is_there``) it is only their page that asks by itself.
    """
    digest, now = _digest(token), engine.now()
    async with engine.database.reading() as reader:
        found = await users.find_session(reader, digest)
    if found is None or found.is_over(now):
        return None
    if is_there and now - found.seen_at >= users.SEEN_EVERY:
        async with engine.database.writing() as unit:
            await users.update_session(unit, digest, seen_at=now)
    return found


async def confirm(engine: Engine, session: Session, password: str, came: Came) -> None:
    """Take the password once more, for what needs it anew. Raises Refusal ``sign_in_failed`` or ``sign_in_delayed``."""
    user = session.user
    if len(password) > PASSWORD_MAX:
        raise invalid("password", f"takes at most {PASSWORD_MAX} characters.")
    async with engine.database.reading() as reader:
        refusal = await _wait_of(engine, reader, user.email, came)
        known = await users.read_credentials(reader, user.company_id, user.id)
    if refusal is not None:
        raise refusal
    is_right = known is not None and await _fits(known.password_hash, password)
    async with engine.database.writing() as unit:
        await users.lock_tries(unit, user.email)
        refusal = await _wait_of(engine, unit, user.email, came)
        if refusal is None and not is_right:
            await _failed(engine, unit, user.email, [user], came)
            refusal = Refusal("sign_in_failed", "The password is not right.")
        elif refusal is None:
            await users.update_session(unit, session.digest, authenticated_at=engine.now())
            await users.forgive(unit, user.email, came.address)
    if refusal is not None:
        raise refusal


async def look_at(engine: Engine, session: Session, *, live: bool) -> None:
    """Look at the other half of the company."""
    async with engine.database.writing() as unit:
        await users.update_session(unit, session.digest, live=live)


async def list_sessions(engine: Engine, user: User) -> list[Session]:
    """Where a user is signed in, the latest first."""
    async with engine.database.reading() as reader:
        return await users.list_sessions(reader, user.company_id, user.id, engine.now())


async def end_session(engine: Engine, session: Session, digest: bytes, came: Came) -> None:
    """End one of the user's own sessions, this one or another. Raises Refusal ``not_found``."""
    user = session.user
    async with engine.database.writing() as unit:
        if not await users.delete_sessions(unit, user.company_id, user.id, digest=digest):
            raise Refusal("not_found")
        await _tell(engine, unit, user, came, "sign_out" if digest == session.digest else "end_session")


async def end_others(engine: Engine, session: Session, came: Came) -> int:
    """End all sessions of the user but this one; how many."""
    user = session.user
    async with engine.database.writing() as unit:
        ended = await users.delete_sessions(unit, user.company_id, user.id, but=session.digest)
        await _tell(engine, unit, user, came, "end_session")
    return ended


async def change_password(engine: Engine, session: Session, password: str, came: Came) -> None:
    """Another password: every other session of the user ends."""
    user = session.user
    judge_password(password, user.email)
    hashed = await hash_password(password)
    async with engine.database.writing() as unit:
        await users.update_password(unit, user.company_id, user.id, hashed)
        await users.delete_sessions(unit, user.company_id, user.id, but=session.digest)
        await users.update_session(unit, session.digest, authenticated_at=engine.now())
        await _tell(engine, unit, user, came, "change_password")


# --- codes of an authenticator ----------------------------------------------------------------------------------------


def new_code_secret() -> bytes:
    """What an authenticator makes its codes of."""
    return secrets.token_bytes(CODE_BYTES)


def code_address(secret: bytes, user: User, company_name: str) -> str:
    """The address that an authenticator takes up, as a picture or by hand."""
    return TOTP(secret, CODE_DIGITS, SHA1(), CODE_SECONDS).get_provisioning_uri(user.email, f"Tenuto {company_name}")  # noqa: S303 - what authenticators speak


def _step(secret: bytes, code: str, now: datetime) -> int | None:
    """Which code it is, now or one before or after; None: none of these."""
    digits = "".join(code.split())
    if len(digits) != CODE_DIGITS or not (digits.isascii() and digits.isdecimal()):
        return None
    present = int(now.timestamp()) // CODE_SECONDS
    for step in (present, present - 1, present + 1):
        try:
            TOTP(secret, CODE_DIGITS, SHA1(), CODE_SECONDS).verify(digits.encode(), step * CODE_SECONDS)  # noqa: S303 - what authenticators speak
        except InvalidToken:
            continue
        return step
    return None


def _context(company_id: int, user_id: int) -> str:
    return f"user {spell('c', company_id)} {spell('u', user_id)} code"


def _step_of(engine: Engine, known: Credentials, code: str) -> int | None:
    assert known.code_secret is not None
    try:
        opened = engine.vault.open(known.code_secret, context=_context(known.user.company_id, known.user.id))
    except VaultError:
        return None
    return _step(bytes.fromhex(opened), code, engine.now())


async def ask_for_codes(engine: Engine, user: User, secret: bytes, code: str, came: Came) -> None:
    """Ask for codes from now on, once one of them shows that the authenticator has the secret."""
    step = _step(secret, code, engine.now())
    if step is None:
        raise invalid("code", "is not the one that the authenticator shows now.")
    sealed = engine.vault.seal(secret.hex(), context=_context(user.company_id, user.id))
    async with engine.database.writing() as unit:
        await users.update_code(unit, user.company_id, user.id, sealed, step)
        await _tell(engine, unit, user, came, "ask_for_codes")


async def ask_for_no_codes(engine: Engine, user: User, came: Came) -> None:
    """The password alone will do again."""
    async with engine.database.writing() as unit:
        await users.update_code(unit, user.company_id, user.id, None, None)
        await _tell(engine, unit, user, came, "ask_for_no_codes")


# --- users of a company -----------------------------------------------------------------------------------------------


class _Company(NamedTuple):
    """All users of a company, whom nobody else changes meanwhile; ``by`` is who changes them, as they are now."""

    everybody: list[User]
    by: User | None

    def owners(self, beside: User | None = None) -> int:
        """How many owners there are; who is only invited stands beside them, and can go or change without harm."""
        owners = sum(user.role == "owner" and user.invited_until is None for user in self.everybody)
        return owners + (beside is not None and beside.invited_until is not None)

    def user(self, user_id: int) -> User:
        """One of them. Raises Refusal ``not_found``."""
        found = next((user for user in self.everybody if user.id == user_id), None)
        if found is None:
            raise Refusal("not_found")
        return found


async def _locked(unit: Unit, company_id: int, by: User | None) -> _Company:
    """Raises Refusal ``insufficient_scope`` where who changes users was removed or demoted a moment ago."""
    everybody = await users.lock_users(unit, company_id)
    if by is None:
        return _Company(everybody, None)
    now = next((user for user in everybody if user.id == by.id), None)
    if now is None or "users:write" not in now.scopes:
        raise Refusal("insufficient_scope", scope="users:write")
    return _Company(everybody, now)


async def list_users(engine: Engine, company_id: int) -> list[User]:
    """All users of a company and all who are invited, the oldest first."""
    async with engine.database.reading() as reader:
        return await users.list_users(reader, company_id)


async def invite(engine: Engine, unit: Unit, company_id: int, by: User | None, *, email: str, role: str) -> Invited:
    """Invite somebody. Raises Refusal ``user_exists``, ``owner_needed``."""
    judge_role(role)
    company = await _locked(unit, company_id, by)
    judge_change(company.by, company.owners(), None, role)
    if len(company.everybody) >= USERS_MAX:
        raise invalid("email", f"would be one too many: a company has at most {USERS_MAX} users.")
    token, now, id = secrets.token_urlsafe(32), engine.now(), engine.new_id()
    made = User(company_id, id, email, role, False, now, None, now + INVITED)  # noqa: FBT003 - a field of a row
    if not await users.insert_invitation(unit, made, _digest(token)):
        raise Refusal("user_exists")
    return Invited(made, token)


async def change_role(unit: Unit, company_id: int, by: User | None, user_id: int, role: str) -> User:
    """Give a user another role: their sessions end, and with the next they have it."""
    judge_role(role)
    company = await _locked(unit, company_id, by)
    found = company.user(user_id)
    judge_change(company.by, company.owners(found), found.role, role)
    if role != found.role:
        await users.update_role(unit, company_id, user_id, role)
        await users.delete_sessions(unit, company_id, user_id)
    return found._replace(role=role)


async def remove_user(unit: Unit, company_id: int, by: User | None, user_id: int) -> User:
    """Let a user in no more, from this moment on, or take an invitation back."""
    company = await _locked(unit, company_id, by)
    found = company.user(user_id)
    judge_change(company.by, company.owners(found), found.role, None)
    await users.delete_user(unit, company_id, user_id)
    return found


async def invite_again(engine: Engine, unit: Unit, company_id: int, by: User | None, user_id: int) -> Invited:
    """Another token for an open invitation. Raises Refusal ``user_exists`` where it was taken."""
    company = await _locked(unit, company_id, by)
    found = company.user(user_id)
    judge_change(company.by, company.owners(found), found.role, found.role)
    if found.invited_until is None:
        raise Refusal("user_exists")
    token, until = secrets.token_urlsafe(32), engine.now() + INVITED
    await users.renew_invitation(unit, company_id, user_id, _digest(token), until)
    return Invited(found._replace(invited_until=until), token)


async def open_invitation(engine: Engine, token: str) -> tuple[User, str]:
    """Who is invited by a token, and the company's name. Raises Refusal ``link_not_usable``."""
    async with engine.database.reading() as reader:
        found = await users.find_invitation(reader, _digest(token), engine.now())
    if found is None:
        raise Refusal("link_not_usable")
    return found


async def join(engine: Engine, token: str, password: str, came: Came) -> SignedIn:
    """Take an invitation with a password of one's own, and be signed in. Raises Refusal ``link_not_usable``."""
    user, _ = await open_invitation(engine, token)
    judge_password(password, user.email)
    hashed = await hash_password(password)
    async with engine.database.writing() as unit:
        if not await users.take_invitation(unit, _digest(token), hashed, engine.now()):
            raise Refusal("link_not_usable")
        return await _let_in(engine, unit, user, came, "join")


async def forget_sessions(engine: Engine, *, now: datetime, limit: int) -> int:
    """Sweep: delete sessions that are over, and failures that no longer count; how many."""
    async with engine.database.writing() as unit:
        return await users.forget(unit, now, limit)
