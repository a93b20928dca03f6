"""Users of a company, and what was done by whom.

The problem, on one example. Ada invites Grace, who takes the invitation and is seen at work:

    POST /v1/companies/c_10000000/users {"email": "grace@example.com", "role": "finance"}
        the user, `invited` for 7 days, and the `url` that lets her in, told this once
    GET /v1/companies/c_10000000/activity
        {"actor": "u_...", "action": "refund_payment", "target": "POST /payments/pay_.../refund", "number": 17, ...}

Each row of the activity is sealed: its ``digest`` is SHA-256 over the 32 bytes of ``previous_digest`` (none, for the
first) and the text ``sealed``, so that anybody can check that no row was altered or taken out. Source: bar 5 (Audit
log).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tenuto.core.identifiers import spell
from tenuto.core.user import User
from tenuto.engine import Answer
from tenuto.service import users as service
from tenuto.service.users import Invited
from tenuto.store import activity
from tenuto.store.activity import Activity
from tenuto.store.database import Unit

from . import shapes
from .accounts import email
from .body import spelled
from .routes import PAGING, Call, Param, Route
from .usage import page_of

_USERS: Final = "/companies/{company_id}/users"
_USER: Final = _USERS + "/{user_id}"


class UserIn(msgspec.Struct, forbid_unknown_fields=True):
    """Somebody to invite."""

    email: str
    role: str


class RoleIn(msgspec.Struct, forbid_unknown_fields=True):
    """Another role."""

    role: str


class CompanyUserOut(shapes.Shape):
    """Somebody who signs in to the console, or is invited to. ``two_factor``: asked for codes of an authenticator."""

    id: str
    email: str
    role: str
    status: str
    two_factor: bool
    created_at: str | None
    signed_in_at: str | None
    invited_until: str | None


class UserInvitedOut(CompanyUserOut):
    """Somebody who is invited. ``url`` lets them in, and is shown this once."""

    url: str


class ActivityOut(shapes.Shape):
    """One thing that somebody did: a user (``u_``), a key (``k_``), or nobody, where a sign-in failed.

    ``environment`` is the half of the company it was about, or null: the whole of it. ``asked`` is the body without its
    secrets. ``number``, ``digest`` and ``previous_digest`` are null until the row is sealed, a few seconds later.
    """

    id: str
    at: str | None
    environment: str | None
    actor: str | None
    actor_name: str | None
    address: str
    action: str
    target: str
    asked: Any
    number: int | None
    digest: str | None
    previous_digest: str | None
    sealed: str | None


def _fields(user: User) -> dict[str, Any]:
    return {
        "id": spell("u", user.id),
        "email": user.email,
        "role": user.role,
        "status": "active" if user.invited_until is None else "invited",
        "two_factor": user.has_code,
        "created_at": spelled(user.created_at),
        "signed_in_at": spelled(user.signed_in_at),
        "invited_until": spelled(user.invited_until),
    }


def _user(user: User) -> CompanyUserOut:
    return CompanyUserOut(**_fields(user))


async def list_users(call: Call) -> Answer:
    """Everybody who may sign in to the console, and who is invited to, the oldest first."""
    call.company()
    everybody = await service.list_users(call.engine, call.environment.company_id)
    after, limit = call.after(1), call.limit()
    start = 0
    if after is not None:
        start = next((index + 1 for index, user in enumerate(everybody) if user.id == after[0]), len(everybody))
    return page_of(call, everybody[start : start + limit + 1], lambda user: (user.id,), _user)


async def invite_user(call: Call) -> Answer:
    """Invite somebody. The answer's `url` lets them in for 7 days, once; it is shown this once."""
    call.company()
    given = call.decoded(UserIn)
    address = email(given.email, "email")

    async def verb(unit: Unit) -> Invited:
        company_id = call.environment.company_id
        return await service.invite(call.engine, unit, company_id, call.caller.user, email=address, role=given.role)

    return await call.once(verb, lambda invited: _invited(call, invited), is_secret=True)


def _invited(call: Call, invited: Invited) -> bytes:
    url = f"{call.engine.public_url}/control/join/{invited.token}"
    return shapes.wrapped(UserInvitedOut(**_fields(invited.user), url=url))


async def invite_user_again(call: Call) -> Answer:
    """Another link for an invitation that is open; the one before lets nobody in any more."""
    call.company()
    user_id = call.id("u", "user_id")

    async def verb(unit: Unit) -> Invited:
        return await service.invite_again(call.engine, unit, call.environment.company_id, call.caller.user, user_id)

    return await call.once(verb, lambda invited: _invited(call, invited), is_secret=True)


async def change_role(call: Call) -> Answer:
    """Give a user another role. Their sessions end; they sign in again, and have it."""
    call.company()
    user_id, given = call.id("u", "user_id"), call.decoded(RoleIn)

    async def verb(unit: Unit) -> User:
        return await service.change_role(unit, call.environment.company_id, call.caller.user, user_id, given.role)

    return await call.once(verb, lambda user: shapes.wrapped(_user(user)))


async def remove_user(call: Call) -> Answer:
    """Remove a user, who is let in no more from this moment on, or take an invitation back."""
    call.company()
    user_id = call.id("u", "user_id")

    async def verb(unit: Unit) -> User:
        return await service.remove_user(unit, call.environment.company_id, call.caller.user, user_id)

    return await call.once(verb, lambda user: shapes.wrapped(_user(user)))


async def list_activity(call: Call) -> Answer:
    """What was done in this half of the company, and in the whole of it, by whom and from where; the latest first."""
    call.company()
    filters, after = call.filters(), call.after(1)
    actor, action = filters.get("actor"), filters.get("action")
    async with call.engine.database.reading() as reader:
        found = await activity.list_activity(
            reader,
            call.environment.company_id,
            call.environment.id,
            before=None if after is None else after[0],
            limit=call.limit() + 1,
            actor=None if actor is None else str(actor),
            action=None if action is None else str(action),
        )
    return page_of(call, found, lambda row: (row.id,), lambda row: _activity(call, row))


def _activity(call: Call, row: Activity) -> ActivityOut:
    return ActivityOut(
        id=spell("act", row.id),
        at=spelled(row.at),
        environment=None if row.environment_id is None else call.environment.mode,
        actor=row.actor or None,
        actor_name=row.actor_name or None,
        address=row.address,
        action=row.action,
        target=row.target,
        asked=shapes.raw(row.asked),
        number=row.number,
        digest=None if row.digest is None else row.digest.hex(),
        previous_digest=None if row.previous is None else row.previous.hex(),
        sealed=None if row.digest is None else row.sealed,
    )


ROUTES: Final = (
    Route(
        "GET",
        _USERS,
        list_users,
        "List users",
        "Users",
        CompanyUserOut,
        scope="users:read",
        query=PAGING,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "POST",
        _USERS,
        invite_user,
        "Invite a user",
        "Users",
        UserInvitedOut,
        scope="users:write",
        body=UserIn,
        refusals=("owner_needed", "user_exists"),
        example={"email": "grace@example.com", "role": "finance"},
    ),
    Route(
        "PUT",
        _USER,
        change_role,
        "Change a user's role",
        "Users",
        CompanyUserOut,
        scope="users:write",
        body=RoleIn,
        refusals=("owner_needed", "last_owner"),
        example={"role": "support"},
    ),
    Route(
        "DELETE",
        _USER,
        remove_user,
        "Remove a user",
        "Users",
        CompanyUserOut,
        scope="users:write",
        refusals=("owner_needed", "last_owner"),
    ),
    Route(
        "POST",
        _USER + "/invite",
        invite_user_again,
        "Invite a user again",
        "Users",
        UserInvitedOut,
        scope="users:write",
        refusals=("owner_needed", "user_exists"),
    ),
    Route(
        "GET",
        "/companies/{company_id}/activity",
        list_activity,
        "List what was done",
        "Users",
        ActivityOut,
        scope="company:read",
        query=(
            *PAGING,
            Param("actor", "text", "By this user or key, or this address of mail, only."),
            Param("action", "text", "This action only, such as `issue_key` or `sign_in`."),
        ),
        is_list=True,
        refusals=("invalid_cursor",),
        details="A row is sealed a few seconds after it was written: its `digest` is SHA-256 over the bytes of"
        " `previous_digest` and the text `sealed`.",
    ),
)
