"""Users: the people who sign in to the console, what their role lets them do, and how often somebody may try.

The problem, on one example. Ada opened the company, Grace does its books, and a stranger guesses at Ada's password:

    who              may
    Ada, owner       everything, and name other owners
    Grace, finance   read all; refund, credit and invoice; no keys, no plans, no users
    the stranger     5 tries a quarter of an hour from one address, each after a longer wait than the one before

A key of the company stands beside them: it can do what its scopes say, and invite an admin, never an owner. Sources:
issue of the console, contract 2.7, bar 4.9 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from .outcomes import Refusal, invalid

SCOPES: Final = (
    "accounts:read",
    "accounts:write",
    "balances:read",
    "balances:write",
    "catalog:read",
    "catalog:write",
    "company:read",
    "company:write",
    "events:read",
    "events:write",
    "invoices:read",
    "invoices:write",
    "keys:write",
    "payments:read",
    "payments:write",
    "reports:read",
    "users:read",
    "users:write",
)
"""Every scope that a key can have. A key made without a list gets those of the key that makes it."""

READING: Final = frozenset(scope for scope in SCOPES if scope.endswith(":read"))
ROLES: Final[Mapping[str, frozenset[str]]] = {
    "owner": frozenset(SCOPES),
    "admin": frozenset(SCOPES),
    "finance": READING | {"balances:write", "invoices:write", "payments:write"},
    "support": (READING - {"reports:read"}) | {"accounts:write"},
    "read_only": READING,
}
"""What each role may do, as the scopes of a key."""

EMAIL_MAX: Final = 254
USERS_MAX: Final = 500
"""The most users, with those who are invited, that one company has."""
PASSWORD_MIN: Final = 12
PASSWORD_MAX: Final = 1024
NEAR_FAILURES: Final = 5
NEAR_WINDOW: Final = timedelta(minutes=15)
FAR_FAILURES: Final = 100
FAR_WINDOW: Final = timedelta(hours=1)
PLACE_FAILURES: Final = 500
"""How many tries an hour may fail from one place, whoever they are for: a house full of people shares one."""

IDLE: Final = timedelta(minutes=30)
"""How long somebody who does nothing stays signed in."""
WHOLE: Final = timedelta(hours=12)
"""How long anybody stays signed in."""
FRESH: Final = timedelta(minutes=15)
"""How long a password that was given holds for what needs it anew: keys, the provider, users."""
INVITED: Final = timedelta(days=7)
CODE_SECONDS: Final = 30
"""How long one code of an authenticator lasts."""


class User(NamedTuple):
    """Somebody of a company who signs in; ``invited_until`` is set until the invitation is taken. Times are real."""

    company_id: int
    id: int
    email: str
    role: str
    has_code: bool
    created_at: datetime
    signed_in_at: datetime | None
    invited_until: datetime | None

    @property
    def scopes(self) -> frozenset[str]:
        """What the user may do."""
        return ROLES[self.role]


def judge_password(password: str, email: str) -> None:
    """Raises Refusal where a password is too short, too long, or the address itself. Any characters will do."""
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise invalid("password", f"takes {PASSWORD_MIN} to {PASSWORD_MAX} characters.")
    if len(set(password)) < PASSWORD_MIN // 3:
        raise invalid("password", "repeats the same few characters.")
    if password.casefold().strip() in {email.casefold(), email.partition("@")[0].casefold()}:
        raise invalid("password", "is your address.")


def judge_role(role: str, path: str = "role") -> None:
    """Raises Refusal where there is no such role."""
    if role not in ROLES:
        raise invalid(path, f"is one of {', '.join(ROLES)}.")


def judge_change(by: User | None, owners: int, before: str | None, after: str | None) -> None:
    """Whether somebody may give a user the role ``after``. None before: it is a new one; None after: it goes.

    ``by`` None is a key of the company, ``owners`` how many owners there are. Raises Refusal ``owner_needed`` or
    ``last_owner``.
    """
    touches_owner = "owner" in {before, after}
    if touches_owner and (by is None or by.role != "owner"):
        raise Refusal("owner_needed")
    if before == "owner" and after != "owner" and owners <= 1:
        raise Refusal("last_owner")


def may_try_at(failures: Sequence[tuple[datetime, bool]], now: datetime) -> datetime:
    """When the next try may be made, ``now`` or later, after failures for one address of mail, in any order.

    ``failures`` are moments, and whether each came from where this try comes from. From one place five tries a quarter
    of an hour may fail, each followed by a wait twice as long as the one before; from all places a hundred an hour.
    """
    near = sorted(at for at, is_near in failures if is_near and at > now - NEAR_WINDOW)
    far = sorted(at for at, _ in failures if at > now - FAR_WINDOW)
    at = now
    if near:
        at = max(at, near[-1] + timedelta(seconds=2 ** (len(near) - 1)))
    if len(near) >= NEAR_FAILURES:
        at = max(at, near[-NEAR_FAILURES] + NEAR_WINDOW)
    if len(far) >= FAR_FAILURES:
        at = max(at, far[-FAR_FAILURES] + FAR_WINDOW)
    return at


class Session(NamedTuple):
    """Somebody signed in. ``authenticated_at`` is when the password was given last; ``live`` the half looked at."""

    user: User
    company_name: str
    digest: bytes
    live: bool
    created_at: datetime
    seen_at: datetime
    authenticated_at: datetime
    address: str
    agent: str

    def is_over(self, now: datetime) -> bool:
        """Whether it has ended by itself: nobody there for a while, or long enough."""
        return now >= self.seen_at + IDLE or now >= self.created_at + WHOLE

    def is_fresh(self, now: datetime) -> bool:
        """Whether the password was given a short while ago."""
        return now < self.authenticated_at + FRESH
