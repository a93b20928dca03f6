"""Settings: users and their roles, what was done by whom, and one's own sign-in.

Users and the activity are the API's. A sign-in is nobody's but one's own: its pages ask the verbs of ``service.users``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import segno
from litestar import Response

from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.user import PASSWORD_MIN, ROLES, SCOPES, judge_password
from tenuto.service import users
from tenuto.vault import VaultError

from .frame import Page, Visit, said
from .tables import Column, Listing, answer

USERS_PATH: Final = "/control/settings/users"
YOU_PATH: Final = "/control/settings/you"
USERS_MOST: Final = "1000"
WORDS: Final[Mapping[str, str]] = {
    "owner": "Everything, and may name other owners.",
    "admin": "Everything but owners.",
    "finance": "Reads all; refunds, credits, invoices, adjusts balances. No keys, plans or users.",
    "support": "Reads all but reports; changes accounts, flags, pauses. Charges and lends nothing; no keys or users.",
    "read_only": "Reads all, changes nothing.",
}
"""What each role is for, in a sentence."""
BROWSERS: Final = (("Edg", "Edge"), ("Firefox", "Firefox"), ("Chrom", "Chrome"), ("Safari", "Safari"))
SYSTEMS: Final = (
    *(("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS", "macOS")),
    ("Linux", "Linux"),
)
AGENT_SHOWN: Final = 60
AREAS: Final = tuple(dict.fromkeys(scope.partition(":")[0] for scope in SCOPES))

ACTIVITY: Final = Listing(
    name="activity",
    path="/companies/{company_id}/activity",
    columns=(
        Column("number", "Seal"),
        Column("at", "When", "moment"),
        Column("actor_name", "Who", filter="actor"),
        Column("action", "Did what", "badge", filter="action"),
        Column("target", "At", "code"),
        Column("address", "From", "code"),
    ),
    empty="Nothing was done yet.",
    hint="Whoever changes something, in the console or with a key, stands here.",
)


# --- users ------------------------------------------------------------------------------------------------------------


def _rights() -> list[tuple[str, dict[str, str]]]:
    """For each area what each role may do there."""

    def right(role: str, area: str) -> str:
        reads, writes = (f"{area}:{kind}" in ROLES[role] for kind in ("read", "write"))
        return "change" if writes else "see" if reads else ""

    return [(area, {role: right(role, area) for role in ROLES}) for area in AREAS]


async def list_users(visit: Visit) -> Response[Any]:
    """Who may sign in, who is invited, and what each role may do."""
    found = await visit.rows("/companies/{company_id}/users", query={"limit": USERS_MOST})
    roles = [role for role in ROLES if role != "owner" or visit.session.user.role == "owner"]
    return visit.page(
        "people_users.html", users=found.rows, me=_me(found.rows, visit), roles=roles, words=WORDS, rights=_rights()
    )


def _me(rows: list[dict[str, Any]], visit: Visit) -> str:
    return next((row["id"] for row in rows if row["email"] == visit.session.user.email), "")


async def invite(visit: Visit) -> Response[Any]:
    """Invite somebody; the link is shown this once."""
    body = {"email": visit.field("email"), "role": visit.field("role")}
    made = await visit.do("POST", "/companies/{company_id}/users", body)
    return visit.page("people_invited.html", invited=made)


async def invite_again(visit: Visit) -> Response[Any]:
    """Another link for an invitation that is open."""
    made = await visit.do("POST", "/companies/{company_id}/users/{user_id}/invite", user_id=visit.param("user_id"))
    return visit.page("people_invited.html", invited=made)


async def change_role(visit: Visit) -> Response[Any]:
    """Give a user another role."""
    body = {"role": visit.field("role")}
    user = await visit.do("PUT", "/companies/{company_id}/users/{user_id}", body, user_id=visit.param("user_id"))
    return visit.go(USERS_PATH, f"{user['email']} is {user['role'].replace('_', ' ')} from now on.")


async def remove(visit: Visit) -> Response[Any]:
    """Remove a user, or take an invitation back."""
    user = await visit.do("DELETE", "/companies/{company_id}/users/{user_id}", user_id=visit.param("user_id"))
    return visit.go(USERS_PATH, f"{user['email']} is let in no more.")


# --- what was done ----------------------------------------------------------------------------------------------------


async def activity(visit: Visit) -> Response[Any]:
    """What was done, by whom and from where."""
    return await answer(visit, ACTIVITY, "activity.html", {"title": "Activity"})


# --- one's own sign-in ------------------------------------------------------------------------------------------------


def _context(visit: Visit) -> str:
    return f"code of {visit.session.digest.hex()}"


def _browser(agent: str) -> str:
    """A browser as people call it, where it is a known one; else what it says of itself, cut."""
    name = next((word for mark, word in BROWSERS if mark in agent), "")
    system = next((word for mark, word in SYSTEMS if mark in agent), "")
    return f"{name} on {system}" if name and system else agent[:AGENT_SHOWN]


async def you(visit: Visit) -> Response[Any]:
    """Password, authenticator and sessions of whoever looks."""
    sessions = await users.list_sessions(visit.engine, visit.session.user)
    shown = [
        {
            "id": one.digest.hex(),
            "is_this": one.digest == visit.session.digest,
            "address": one.address,
            "agent": _browser(one.agent),
            "created_at": one.created_at.isoformat(),
            "seen_at": one.seen_at.isoformat(),
        }
        for one in sessions
    ]
    return visit.page("you.html", sessions=shown, password_min=PASSWORD_MIN)


async def change_password(visit: Visit) -> Response[Any]:
    """Another password: it takes the present one, however lately that was given."""
    user, password = visit.session.user, visit.secret("password")
    if password != visit.secret("again"):
        raise invalid("password", "is not the same twice.")
    judge_password(password, user.email)
    if visit.session.is_fresh(visit.engine.now()):
        # Else the page has taken the present password with this very form already.
        await _confirmed(visit)
    await users.change_password(visit.engine, visit.session, password, visit.came)
    return visit.go(YOU_PATH, "Your password is changed; your other sessions have ended.")


async def _confirmed(visit: Visit) -> None:
    try:
        await users.confirm(visit.engine, visit.session, visit.secret("_password"), visit.came)
    except Refusal as refusal:
        raise Refusal(refusal.code, said(refusal), **refusal.details) from refusal


async def set_up_codes(visit: Visit) -> Response[Any]:
    """A new secret for an authenticator, as a picture and as text; it is kept once a code shows that it is there."""
    secret = users.new_code_secret()
    address = users.code_address(secret, visit.session.user, visit.environment.company_name)
    sealed = visit.engine.vault.seal(secret.hex(), context=_context(visit))
    text = base64.b32encode(secret).decode()
    return visit.page(
        "you_code.html",
        picture=segno.make(address, error="m").svg_data_uri(scale=5, border=3, dark="#000", light="#fff"),
        text=" ".join(text[at : at + 4] for at in range(0, len(text), 4)),
        sealed=sealed.hex(),
    )


async def ask_for_codes(visit: Visit) -> Response[Any]:
    """Ask for codes from now on."""
    try:
        secret = bytes.fromhex(visit.engine.vault.open(bytes.fromhex(visit.field("sealed")), context=_context(visit)))
    except (ValueError, VaultError) as error:
        raise invalid("code", "is of a picture that is no longer good; begin anew.") from error
    await users.ask_for_codes(visit.engine, visit.session.user, secret, visit.field("code"), visit.came)
    return visit.go(YOU_PATH, "From now on you sign in with your password and a code.")


async def ask_for_no_codes(visit: Visit) -> Response[Any]:
    """Ask for no codes any more."""
    await users.ask_for_no_codes(visit.engine, visit.session.user, visit.came)
    return visit.go(YOU_PATH, "Your password alone will do again.")


async def end_session(visit: Visit) -> Response[Any]:
    """End one session of one's own, or all others."""
    asked = visit.field("session")
    if not asked:
        await users.end_others(visit.engine, visit.session, visit.came)
    else:
        try:
            digest = bytes.fromhex(asked)
        except ValueError as error:
            raise Refusal("not_found") from error
        await users.end_session(visit.engine, visit.session, digest, visit.came)
    return visit.go(YOU_PATH, "Ended." if asked else "All your other sessions have ended.")


PAGES: Final = (
    Page("GET", USERS_PATH, list_users, "users:read"),
    Page("POST", USERS_PATH, invite, "users:write", fresh=True),
    Page("POST", USERS_PATH + "/{user_id}/role", change_role, "users:write", fresh=True),
    Page("POST", USERS_PATH + "/{user_id}/remove", remove, "users:write", fresh=True),
    Page("POST", USERS_PATH + "/{user_id}/invite", invite_again, "users:write", fresh=True),
    Page("GET", "/control/settings/activity", activity, "company:read"),
    Page("GET", YOU_PATH, you),
    Page("POST", YOU_PATH + "/password", change_password, fresh=True),
    Page("POST", YOU_PATH + "/code", set_up_codes, fresh=True),
    Page("POST", YOU_PATH + "/code/on", ask_for_codes, fresh=True),
    Page("POST", YOU_PATH + "/code/off", ask_for_no_codes, fresh=True),
    Page("POST", YOU_PATH + "/sessions/end", end_session),
)
