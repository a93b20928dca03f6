"""Tax numbers as the people of an organization see them: given, listed, deleted; never changed.

A register may take days to say whether a number is real, so nobody waits for it: a number is ``pending`` at first and
stands on invoices all the same. Sources: contract 5.6.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tenuto.core.identifiers import spell_of_account
from tenuto.core.organization import READ_SCOPE, TAX_TYPES, WRITE_SCOPE, flag_of, tax_country
from tenuto.core.outcomes import Refusal
from tenuto.engine import Answer
from tenuto.service import tax_ids as service
from tenuto.store import tax_ids as store
from tenuto.store.database import Unit
from tenuto.store.tax_ids import TaxId

from . import dialect, shapes
from .dialect import FAMILY, Problems
from .organization_cards import fields
from .organizations import own_account
from .routes import Call, Route

VALUE_MAX: Final = 50
TYPE_MAX: Final = 50
_NAMES: Final = {"ca_gst_hst": "GST/HST", "de_stn": "Steuernummer", "eu_oss_vat": "OSS VAT"}
"""What kinds of numbers are called where it is not their own letters."""


class TaxIdIn(msgspec.Struct):
    """A tax number: its kind, one of the tax types, and the number itself of at most 50 characters."""

    type: str | None = None
    value: str | None = None


class TaxTypeOut(shapes.Shape):
    """A kind of tax number; ``country`` is EU for one of the whole union."""

    type: str
    flag: str
    name: str
    country: str


class VerificationOut(shapes.Shape):
    """What a register says of a number: pending, verified, unverified; unavailable where none is asked."""

    status: str
    verified_address: str | None
    verified_name: str | None


class TaxIdOut(shapes.Shape):
    """A tax number."""

    id: str
    value: str
    type: str
    country: str
    verification: VerificationOut
    created_at: str | None


def _kind(type_: str) -> TaxTypeOut:
    country = tax_country(type_, "")
    name = _NAMES.get(type_) or type_.partition("_")[2].replace("_", " ").upper()
    return TaxTypeOut(type=type_, flag=flag_of(country), name=name, country=country)


TAX_TYPES_OUT: Final = tuple(_kind(one) for one in TAX_TYPES)


def _shown(tax_id: TaxId, zone: str) -> TaxIdOut:
    return TaxIdOut(
        id=spell_of_account("txi", tax_id.account_id, tax_id.id),
        value=tax_id.value,
        type=tax_id.type,
        country=tax_id.country,
        verification=VerificationOut(
            status=tax_id.status,
            verified_address=tax_id.verified_address,
            verified_name=tax_id.verified_name,
        ),
        created_at=dialect.moment(tax_id.created_at, zone),
    )


async def list_tax_types(call: Call) -> Answer:
    """All kinds of tax numbers; everybody with a token may see them, with an account or without."""
    del call
    return dialect.bare(200, TAX_TYPES_OUT)


async def list_tax_ids(call: Call) -> Answer:
    """The organization's tax numbers, the oldest first."""
    account = await own_account(call)
    async with call.engine.database.reading() as reader:
        found = await store.list_tax_ids(reader, account.id)
    return dialect.bare(200, [_shown(one, call.member.claims.zone) for one in found])


async def add_tax_id(call: Call) -> Answer:
    """Give the organization a tax number."""
    account = await own_account(call)
    kind, value = _checked(fields(call))

    async def verb(unit: Unit) -> TaxId:
        return await service.add_tax_id(call.engine, unit, call.environment, account.id, type=kind, value=value)

    zone = call.member.claims.zone
    return (await call.once(verb, lambda made: msgspec.json.encode(_shown(made, zone))))._replace(status=201)


def _checked(given: dict[str, Any]) -> tuple[str, str]:
    problems = Problems()
    kind, value = given.get("type"), given.get("value")
    if isinstance(value, str):
        value = value.strip()
    if problems.required("type", kind):
        kind = problems.text("type", kind, TYPE_MAX)
        if kind is not None and kind not in TAX_TYPES:
            problems.add("type", "The selected type is invalid.")
    if problems.required("value", value):
        value = problems.text("value", value, VALUE_MAX)
        if value is not None and not value.isprintable():
            problems.add("value", "The value field must be printable.")
    problems.refuse()
    return str(kind), str(value)


async def remove_tax_id(call: Call) -> Answer:
    """Delete a tax number; invoices that show it keep it."""
    account = await own_account(call)
    account_id, tax_id = call.id_of_account("txi", "tax_id")
    if account_id != account.id:
        raise Refusal("not_found")

    async def verb(unit: Unit) -> TaxId:
        return await service.remove_tax_id(call.engine, unit, call.environment, account.id, tax_id)

    answer = await call.once(verb, lambda _: b"")
    return dialect.empty()._replace(is_replay=answer.is_replay)


_TAG: Final = "Organizations"
_HAS_ACCOUNT: Final = ("no_account", "parent_pays")

ROUTES: Final = tuple(
    route
    for path in ("/account/tax", "/billing/tax")
    for route in (
        Route(
            "GET",
            f"{path}/types",
            list_tax_types,
            "List the kinds of tax numbers",
            _TAG,
            TaxTypeOut,
            family=FAMILY,
            is_list=True,
        ),
        Route(
            "GET",
            path,
            list_tax_ids,
            "List tax numbers",
            _TAG,
            TaxIdOut,
            scope=READ_SCOPE,
            family=FAMILY,
            refusals=_HAS_ACCOUNT,
            is_list=True,
        ),
        Route(
            "POST",
            path,
            add_tax_id,
            "Add a tax number",
            _TAG,
            TaxIdOut,
            scope=WRITE_SCOPE,
            family=FAMILY,
            body=TaxIdIn,
            refusals=("tax_id_exists", "too_many_tax_ids", *_HAS_ACCOUNT),
            example={"type": "eu_vat", "value": "DE123456789"},
        ),
        Route(
            "DELETE",
            f"{path}/{{tax_id}}",
            remove_tax_id,
            "Delete a tax number",
            _TAG,
            TaxIdOut,
            scope=WRITE_SCOPE,
            family=FAMILY,
            refusals=_HAS_ACCOUNT,
        ),
    )
)
