"""The billing account as the people of an organization see it, by their token. Sources: contract 5.1 to 5.4, S3."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from tenuto.core.organization import COUNTRIES, READ_SCOPE, WRITE_SCOPE
from tenuto.core.outcomes import Refusal
from tenuto.engine import Answer
from tenuto.service import organizations as service
from tenuto.service.organizations import Standing
from tenuto.store import records
from tenuto.store.accounts import Account
from tenuto.store.database import Reader, Unit

from . import body as bodies
from . import dialect, shapes
from .dialect import FAMILY, Problems
from .routes import Call, Route

ADDRESS: Final = {"city": 50, "country": 2, "line1": 100, "line2": 100, "postal_code": 10, "state": 50}
"""The parts of an address, with how many characters each may have."""
NAME_MAX: Final = 100
EMAIL_MAX: Final = 250
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")


class AddressIn(msgspec.Struct):
    """An address; ``""`` unsets a part."""

    city: str | None = None
    country: str | None = None
    line1: str | None = None
    line2: str | None = None
    postal_code: str | None = None
    state: str | None = None


class BillingAccountIn(msgspec.Struct):
    """A billing account: at first a name, an email and a country; later, any of it."""

    name: str | None = None
    email: str | None = None
    address: AddressIn | None = None


class AddressOut(shapes.Shape):
    """An address; a part that is not set is empty."""

    city: str
    country: str
    line1: str
    line2: str
    postal_code: str
    state: str


class BillingAccountOut(shapes.Shape):
    """A billing account. ``currency`` is empty until the first subscription; ``balance`` is in major units."""

    id: str
    name: str
    email: str
    currency: str
    balance: float
    address: AddressOut
    created_at: str | None


async def standing(call: Call) -> Standing:
    """Where the caller's organization stands."""
    member = call.member
    return await service.standing_of(call.engine, member.environment, member.claims, opens=member.opens)


async def own_account(call: Call) -> Account:
    """The account of the caller's organization. Raises Refusal ``parent_pays`` or ``no_account``."""
    return (await standing(call)).own_account()


async def _shown(call: Call, reader: Reader, account: Account) -> BillingAccountOut:
    currency = account.currency or ""
    amount = 0
    if currency:
        found = await records.list_balances(reader, account.id, call.engine.now_of(call.environment))
        amount = next((row.amount for row in found if row.denomination == currency), 0)
    address = account.address or {}
    return BillingAccountOut(
        id=account.public_id or "",
        name=account.name,
        email=account.email,
        currency=currency,
        balance=dialect.major(amount, currency),
        address=AddressOut(**{name: address.get(name, "") for name in ADDRESS}),
        created_at=dialect.moment(account.created_at, call.member.claims.zone),
    )


async def get_account(call: Call) -> Answer:
    """The organization's billing account."""
    account = await own_account(call)
    async with call.engine.database.reading() as reader:
        return dialect.bare(200, await _shown(call, reader, account))


def _fields(call: Call) -> dict[str, Any]:
    """The body as plain values: this family does not mind fields that it does not know."""
    tree = bodies.parse(call.body)
    if not isinstance(tree, dict):
        raise Refusal("invalid_field", "The body must be an object.")
    return tree


def _checked(given: dict[str, Any], *, is_new: bool) -> dict[str, Any]:
    problems = Problems()
    changes: dict[str, Any] = {}
    address = given.get("address", {})
    if not isinstance(address, dict):
        problems.add("address", "The address field must be an object.")
        address = {}
    for field, longest in (("name", NAME_MAX), ("email", EMAIL_MAX)):
        value = given.get(field)
        if isinstance(value, str):
            # Nothing but spaces is nothing; and a letter may become two in lower case.
            value = value.lower() if field == "email" else value
            value = value if value.strip() else ""
        if (is_new or field in given) and problems.required(field, value):
            changes[field] = problems.text(field, value, longest)
    email = changes.get("email")
    if email is not None and not (_EMAIL.fullmatch(email) and email.isprintable()):
        problems.add("email", "The email field must be a valid email address.")
    parts = _address(address, problems, is_new=is_new)
    problems.refuse()
    return {**changes, "address": parts}


def _address(given: dict[str, Any], problems: Problems, *, is_new: bool) -> dict[str, str]:
    """The parts of an address that were given; at first, only the country counts (seed S3)."""
    parts: dict[str, str] = {}
    country = given.get("country")
    if (is_new or "country" in given) and problems.required("address.country", country):
        if not isinstance(country, str) or country not in COUNTRIES:
            problems.add("address.country", "The address.country field must be a two-letter country code.")
        parts["country"] = str(country)
    for part, longest in ADDRESS.items():
        if part != "country" and part in given and not is_new:
            value = given[part]
            parts[part] = problems.text(f"address.{part}", "" if value is None else value, longest) or ""
    return parts


async def open_account(call: Call) -> Answer:
    """Open the billing account of the organization; the top of a tree only."""
    found = await standing(call)
    if not found.is_direct:
        raise Refusal("parent_pays")
    given = _checked(_fields(call), is_new=True)

    async def verb(unit: Unit) -> BillingAccountOut:
        opened = await service.open_billing_account(
            call.engine,
            unit,
            call.environment,
            found.organization.id,
            name=given["name"],
            email=given["email"],
            country=given["address"]["country"],
        )
        return await _shown(call, unit, opened)

    return await _once(call, verb, 201)


async def change_account(call: Call) -> Answer:
    """Change what is given of the billing account; the rest stays."""
    account = await own_account(call)
    changes = _checked(_fields(call), is_new=False)

    async def verb(unit: Unit) -> BillingAccountOut:
        changed = await service.change_billing_account(call.engine, unit, call.environment, account.id, changes)
        return await _shown(call, unit, changed)

    return await _once(call, verb, 200)


async def _once(call: Call, verb: Callable[[Unit], Awaitable[BillingAccountOut]], status: int) -> Answer:
    """Do a verb once; the same request again gets the bytes that the first one got."""
    return (await call.once(verb, msgspec.json.encode))._replace(status=status)


async def delete_account(call: Call) -> Answer:
    """Not implemented (seed S3)."""
    await own_account(call)
    raise Refusal("not_implemented")


_EXAMPLE: Final = {"name": "Hannes Kruger", "email": "hannes@mikrocloud.com", "address": {"country": "AU"}}
_TAG: Final = "Organizations"


def _route(method: str, path: str, serve: Any, summary: str, **more: Any) -> Route:
    scope = READ_SCOPE if method == "GET" else WRITE_SCOPE
    return Route(method, path, serve, summary, _TAG, BillingAccountOut, scope=scope, family=FAMILY, **more)


ROUTES: Final = tuple(
    route
    for path in ("/account", "/billing/account")
    for route in (
        _route("GET", path, get_account, "Read the billing account"),
        _route("POST", path, open_account, "Open the billing account", body=BillingAccountIn, example=_EXAMPLE),
        _route("PUT", path, change_account, "Change the billing account", body=BillingAccountIn, example=_EXAMPLE),
        _route("PATCH", path, change_account, "Change the billing account", body=BillingAccountIn, example=_EXAMPLE),
        _route("DELETE", path, delete_account, "Delete the billing account"),
    )
)
