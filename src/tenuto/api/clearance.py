"""Clearance: a service asks, with the token of whoever creates something, whether one more of it is covered.

Sources: contract 5.9, 6.2 (6).
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from tenuto.core.organization import Cleared
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer, Engine
from tenuto.service import clearance as service
from tenuto.service.clearance import Asker, Billable, Counted
from tenuto.store.database import Unit

from . import body as bodies
from . import dialect, shapes
from .dialect import FAMILY, Problems
from .organizations import standing
from .routes import Call, Route

BILLABLES_MAX: Final = 100
PREFIXES_MAX: Final = 20
CLASS_MAX: Final = 255
PREFIX_MAX: Final = 2000
_BASENAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
"""A short class name: what it is called in an address is made of it, so nothing else is let in."""


class BillableIn(msgspec.Struct, forbid_unknown_fields=True):
    """What limits one kind of thing: a denomination of the plan, or nothing, where it is free."""

    denomination: str | None = None
    free: bool = False


class BillablesIn(msgspec.Struct, forbid_unknown_fields=True):
    """Settings of a company: what is limited by what, by short class name, and below which addresses it is counted."""

    billables: dict[str, BillableIn] | None = None
    billable_prefixes: list[str] | None = None


class ClearanceIn(msgspec.Struct):
    """What is to be created: its class, the short name of that, and where its service answers."""

    class_: str = msgspec.field(name="class")
    basename: str
    api_prefix: str | None = None


class ClearanceOut(shapes.Shape):
    """One more may be made. Without a limit nothing is counted: both numbers are null."""

    allowed: bool
    used: int | None
    total: int | None


class _Asked(NamedTuple):
    asker: Asker
    billable: Billable
    prefix: str | None


def billable_settings(engine: Engine, given: BillablesIn) -> dict[str, object]:
    """The sections of a company's settings that are about billables, as far as they were given."""
    sections: dict[str, object] = {}
    if given.billables is not None:
        if len(given.billables) > BILLABLES_MAX:
            raise invalid("billables", f"takes at most {BILLABLES_MAX} names.", "out_of_range")
        sections["billables"] = {name: _billable(name, one) for name, one in sorted(given.billables.items())}
    if given.billable_prefixes is not None:
        if len(given.billable_prefixes) > PREFIXES_MAX:
            raise invalid("billable_prefixes", f"takes at most {PREFIXES_MAX} addresses.", "out_of_range")
        sections["billable_prefixes"] = [
            _prefix(engine, url, f"billable_prefixes[{index}]") for index, url in enumerate(given.billable_prefixes)
        ]
    return sections


def _billable(name: str, given: BillableIn) -> dict[str, object]:
    if not _BASENAME.fullmatch(name):
        raise invalid("billables", "takes short class names: letters, digits and _, at most 100.")
    path = f"billables.{name}"
    if given.free == (given.denomination is not None):
        raise invalid(path, "takes either a denomination or free.")
    if given.denomination is None:
        return {"free": True}
    return {"denomination": bodies.token(given.denomination, f"{path}.denomination", bodies.DENOMINATION_MAX)}


def _prefix(engine: Engine, url: str, path: str) -> str:
    try:
        return service.checked_prefix(engine, url)
    except Refusal as refusal:
        raise invalid(path, refusal.message.removeprefix("url: "), "url_not_allowed") from refusal


async def _asked(call: Call) -> _Asked:
    """Who asks for what. Raises Refusal ``no_account``, or all that is wrong with the fields together."""
    found = await standing(call)
    if found.account is None:
        message = "You need to create an account first" if found.is_direct else "Whoever pays has no account yet"
        raise Refusal("no_account", message)
    given = bodies.parse(call.body)
    if not isinstance(given, dict):
        raise Refusal("invalid_field", "The body must be an object.")
    problems = Problems()
    basename = _text(problems, given, "basename", 100)
    _text(problems, given, "class", CLASS_MAX)
    if basename is not None and not _BASENAME.fullmatch(basename):
        problems.add("basename", "The basename field must be a short class name.")
    prefix = _given_prefix(call, problems, given)
    problems.refuse()
    billable = service.billable_of(call.environment, str(basename))
    return _Asked(Asker(found.organization.id, found.payer.id, found.account), billable, prefix)


def _text(problems: Problems, given: dict[str, Any], field: str, longest: int) -> str | None:
    if not problems.required(field, given.get(field)):
        return None
    found = problems.text(field, given[field], longest)
    if found is not None and not found.isprintable():
        problems.add(field, f"The {field} field must hold characters that can be printed only.")
    return found


def _given_prefix(call: Call, problems: Problems, given: dict[str, Any]) -> str | None:
    """Where the service counts; None where the company registered none, and what is sent is not looked at."""
    if not call.environment.money.get("billable_prefixes"):
        return None
    if not problems.required("api_prefix", given.get("api_prefix")):
        return None
    written = problems.text("api_prefix", given["api_prefix"], PREFIX_MAX)
    if written is None:
        return None
    found = service.prefix_of(call.engine, call.environment, written)
    if found is None:
        problems.add("api_prefix", "The api prefix field must lie below an address that the company has registered.")
    return found


async def clear(call: Call) -> Answer:
    """Clear one more of something for the organization of the token."""
    asked = await _asked(call)
    billable = asked.billable
    if billable.is_free:
        return dialect.bare(200, ClearanceOut(allowed=True, used=None, total=None))
    counted: Counted | None = None
    if asked.prefix is not None and billable.denomination is not None:
        token = call.headers[b"authorization"].decode("ascii")
        counted = await service.count(call.engine, call.environment.id, asked.prefix, billable.basename, token)

    async def verb(unit: Unit) -> Cleared | None:
        return await service.clear_one(call.engine, unit, call.environment, asked.asker, billable, counted)

    try:
        return await call.once(verb, _rendered)
    except Refusal as refusal:
        if refusal.code == "not_cleared":
            await service.keep_count(call.engine, call.environment, asked.asker, billable, counted)
        raise


def _rendered(cleared: Cleared | None) -> bytes:
    if cleared is None:
        return msgspec.json.encode(ClearanceOut(allowed=True, used=None, total=None))
    return msgspec.json.encode(ClearanceOut(allowed=True, used=cleared.used, total=cleared.total))


async def give_back(call: Call) -> Answer:
    """Give one clearance back: what it was for was not made, or is gone."""
    asked = await _asked(call)

    async def verb(unit: Unit) -> None:
        await service.give_back(call.engine, unit, call.environment, asked.asker, asked.billable)

    answer = await call.once(verb, lambda _: b"")
    return dialect.empty()._replace(is_replay=answer.is_replay)


_EXAMPLE: Final = {
    "class": "App\\Models\\Site",
    "basename": "Site",
    "api_prefix": "https://api.example.com/v1/sites",
}
_TAG: Final = "Organizations"

ROUTES: Final = tuple(
    route
    for path in ("/billable", "/account/subscriptions/clearance")
    for route in (
        Route(
            "POST",
            path,
            clear,
            "Ask whether one more may be made",
            _TAG,
            ClearanceOut,
            body=ClearanceIn,
            example=_EXAMPLE,
            family=FAMILY,
            refusals=("no_account", "not_cleared", "organization_unknown"),
        ),
        Route(
            "DELETE",
            path,
            give_back,
            "Give a clearance back",
            _TAG,
            ClearanceOut,
            body=ClearanceIn,
            example=_EXAMPLE,
            family=FAMILY,
            refusals=("no_account", "organization_unknown"),
        ),
    )
)
