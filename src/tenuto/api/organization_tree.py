"""The tree of organizations as the company arranges it by its key: who stands below whom, and whose account is whose.

An organization stands in the path by the company's own id for it, the one that its tokens carry in the claim ``id``.
Sources: contract 5.1, 5.10.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tenuto.core.identifiers import read, spell
from tenuto.core.organization import ID_MAX_CHARACTERS, is_name
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer
from tenuto.service import organizations as service
from tenuto.store import organizations
from tenuto.store.database import Unit
from tenuto.store.organizations import Placed

from . import body as bodies
from . import shapes
from .routes import PAGING, Call, Param, Route
from .usage import page_of


class OrganizationIn(msgspec.Struct, forbid_unknown_fields=True):
    """An organization, or what is to change of one. ``parent``: the id of another, null for the top of a tree.

    ``account_id``: an account that is there already, and becomes its own.
    """

    name: str | msgspec.UnsetType = msgspec.UNSET
    owner: str | msgspec.UnsetType | None = msgspec.UNSET
    parent: str | msgspec.UnsetType | None = msgspec.UNSET
    account_id: str | msgspec.UnsetType = msgspec.UNSET


class OrganizationOut(shapes.Shape):
    """An organization. ``id`` is the company's own id for it, ``owner`` the ``user_id`` of who owns it.

    ``parent`` stands above it; without one it pays for itself and all below it, from the account ``account_id``.
    """

    id: str
    name: str
    owner: str | None
    parent: str | None
    account_id: str | None
    created_at: str | None
    updated_at: str | None


def _shown(placed: Placed) -> OrganizationOut:
    found = placed.organization
    return OrganizationOut(
        id=found.external_id,
        name=found.name,
        owner=found.owner_id,
        parent=placed.parent,
        account_id=None if found.account_id is None else spell("a", found.account_id),
        created_at=bodies.spelled(found.created_at),
        updated_at=bodies.spelled(found.updated_at),
    )


async def list_organizations(call: Call) -> Answer:
    """The organizations of a half of the company, in an order that stays."""
    call.company()
    after = call.after(1)
    async with call.engine.database.reading() as reader:
        found = await organizations.list_organizations(
            reader,
            call.environment.id,
            limit=call.limit() + 1,
            after=None if after is None else after[0],
            filters=call.filters(),
        )
    return page_of(call, found, lambda placed: (placed.organization.id,), _shown)


async def get_organization(call: Call) -> Answer:
    """One organization."""
    call.company()
    async with call.engine.database.reading() as reader:
        found = await service.read_placed(reader, call.environment, _named(call))
    return Answer(200, shapes.wrapped(_shown(found)))


def _named(call: Call) -> str:
    """The organization in the path; what cannot be the name of one is as missing as any other."""
    external_id = call.params["external_id"]
    if not is_name(external_id):
        raise Refusal("not_found")
    return external_id


async def place_organization(call: Call) -> Answer:
    """Make an organization, or change what is given of it."""
    call.company()
    external_id = _named(call)
    given = call.decoded(OrganizationIn)
    changes: dict[str, Any] = {}
    if not isinstance(given.name, msgspec.UnsetType):
        changes["name"] = bodies.text(given.name, "name", shortest=0)
    if not isinstance(given.owner, msgspec.UnsetType):
        changes["owner_id"] = _name_in("owner", given.owner)
    if not isinstance(given.parent, msgspec.UnsetType):
        changes["parent"] = _name_in("parent", given.parent)
    if not isinstance(given.account_id, msgspec.UnsetType):
        changes["account_id"] = read("a", given.account_id)
        if changes["account_id"] is None:
            raise invalid("account_id", "is the id of no account here.")

    async def verb(unit: Unit) -> Placed:
        return await service.place(call.engine, unit, call.environment, external_id, changes)

    return await call.once(verb, lambda placed: shapes.wrapped(_shown(placed)))


def _name_in(field: str, value: str | None) -> str | None:
    if value is not None and not is_name(value):
        raise invalid(field, f"takes 1 to {ID_MAX_CHARACTERS} printable characters, or null.")
    return value


async def delete_organization(call: Call) -> Answer:
    """Forget an organization that has no account and none below it."""
    call.company()
    external_id = _named(call)

    async def verb(unit: Unit) -> Placed:
        return await service.remove(unit, call.environment, external_id)

    return await call.once(verb, lambda placed: shapes.wrapped(_shown(placed)))


_PATH: Final = "/companies/{company_id}/organizations"
_ONE: Final = _PATH + "/{external_id}"
_TAG: Final = "Organizations"

ROUTES: Final = (
    Route(
        "GET",
        _PATH,
        list_organizations,
        "List organizations",
        _TAG,
        OrganizationOut,
        scope="accounts:read",
        query=(
            *PAGING,
            Param("parent", "text", "Only those right below this organization."),
            Param("account_id", "account_id", "Only the organization with this account."),
        ),
        is_list=True,
        refusals=("invalid_cursor",),
        details="In an order that stays, which is none of time.",
    ),
    Route("GET", _ONE, get_organization, "Get an organization", _TAG, OrganizationOut, scope="accounts:read"),
    Route(
        "PUT",
        _ONE,
        place_organization,
        "Make, change or move an organization",
        _TAG,
        OrganizationOut,
        scope="accounts:write",
        body=OrganizationIn,
        refusals=("organization_cycle", "account_exists"),
        example={"name": "North branch", "owner": "user-1", "parent": None},
        details="What is left out stays. A circle is refused, and a tree deeper than 32.",
    ),
    Route(
        "DELETE",
        _ONE,
        delete_organization,
        "Delete an organization",
        _TAG,
        OrganizationOut,
        scope="accounts:write",
        refusals=("organization_in_use",),
        details="A token of it makes it anew, where tokens may.",
    ),
)
