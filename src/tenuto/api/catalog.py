"""Event prices, of a company or agreed with one account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tenuto.core.catalog import MATCH_MAX, PER_MAX, TIERS_MAX
from tenuto.core.money import AMOUNT_MAX
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer
from tenuto.service import catalog as service
from tenuto.store import catalog
from tenuto.store.database import Record, Unit

from . import body as bodies
from . import shapes
from .routes import PAGING, Call, Param, Route
from .usage import page_of

MODELS: Final = ("per_unit", "package", "graduated", "volume")
Amount = msgspec.Raw
"""A decimal string, or a JSON number taken digit by digit."""


class TierIn(msgspec.Struct, forbid_unknown_fields=True):
    """Units of the period up to and including ``up_to`` (null: without end)."""

    up_to: int | None
    amount: Amount
    per: int = 1


class EventPriceIn(msgspec.Struct, forbid_unknown_fields=True):
    """A price for events of a type, in a denomination."""

    type: str
    denomination: str
    model: str = "per_unit"
    amount: Amount = msgspec.field(default_factory=msgspec.Raw)
    per: int = 1
    tiers: list[TierIn] | None = None
    free_units: int = 0
    minimum: Amount = msgspec.field(default_factory=msgspec.Raw)
    cap: Amount = msgspec.field(default_factory=msgspec.Raw)
    max_value_billing: bool = False
    match: dict[str, Any] = msgspec.field(default_factory=dict)


class EventPriceChange(msgspec.Struct, forbid_unknown_fields=True):
    """Terms to change; a new version begins. Type, denomination and match stay."""

    model: str | msgspec.UnsetType = msgspec.UNSET
    amount: Amount | msgspec.UnsetType = msgspec.UNSET
    per: int | msgspec.UnsetType = msgspec.UNSET
    tiers: list[TierIn] | msgspec.UnsetType | None = msgspec.UNSET
    free_units: int | msgspec.UnsetType = msgspec.UNSET
    minimum: Amount | msgspec.UnsetType = msgspec.UNSET
    cap: Amount | msgspec.UnsetType = msgspec.UNSET
    max_value_billing: bool | msgspec.UnsetType = msgspec.UNSET


def terms_of(given: EventPriceIn | EventPriceChange) -> dict[str, object]:
    """The terms in a body, each judged in itself, in the spelling in which they are kept; unset ones are left out."""
    terms: dict[str, object] = {}
    if given.model is not msgspec.UNSET:
        if given.model not in MODELS:
            raise invalid("model", f"is one of {', '.join(MODELS)}.")
        terms["model"] = given.model
    for name in ("amount", "minimum", "cap"):
        value = getattr(given, name)
        if value is not msgspec.UNSET:
            terms[name] = bodies.decimal(value, name)
    if given.per is not msgspec.UNSET:
        terms["per"] = bodies.whole(given.per, "per", least=1, most=PER_MAX)
    if given.free_units is not msgspec.UNSET:
        terms["free_units"] = bodies.whole(given.free_units, "free_units")
    if given.max_value_billing is not msgspec.UNSET:
        terms["max_value_billing"] = given.max_value_billing
    if given.tiers is not msgspec.UNSET:
        terms["tiers"] = None if given.tiers is None else _tiers(given.tiers)
    return terms


def _tiers(tiers: Sequence[TierIn]) -> list[dict[str, object]]:
    if len(tiers) > TIERS_MAX:
        raise invalid("tiers", f"at most {TIERS_MAX} tiers.")
    return [
        {
            "up_to": None if tier.up_to is None else bodies.whole(tier.up_to, f"tiers[{index}].up_to", least=1),
            "amount": bodies.decimal(tier.amount, f"tiers[{index}].amount"),
            "per": bodies.whole(tier.per, f"tiers[{index}].per", least=1, most=PER_MAX),
        }
        for index, tier in enumerate(tiers)
    ]


async def set_event_price(call: Call) -> Answer:
    """A price; what occurs from now on is priced by it."""
    call.company()
    given = call.decoded(EventPriceIn)
    kind = bodies.event_type(given.type, "type")
    denomination = bodies.token(given.denomination, "denomination", bodies.DENOMINATION_MAX)
    match = match_of(given.match)
    terms = terms_of(given)

    async def verb(unit: Unit) -> Record:
        return await service.set_event_price(
            call.engine, unit, call.environment, kind=kind, denomination=denomination, match=match, terms=terms
        )

    return await call.once(verb, lambda row: shapes.wrapped(shapes.event_price(row)))


def match_of(match: dict[str, Any]) -> dict[str, Any]:
    """The match in a body, each property judged in itself."""
    if len(match) > MATCH_MAX:
        raise invalid("match", f"holds at most {MATCH_MAX} properties.")
    for name, value in match.items():
        if isinstance(value, dict | list | float):
            raise invalid(f"match.{name}", "is a text, a whole number, true, false or null.")
        bodies.text(name, "match", bodies.TEXT_MAX)
        if isinstance(value, int) and abs(value) > AMOUNT_MAX:
            raise invalid(f"match.{name}", f"takes a whole number from {-AMOUNT_MAX} to {AMOUNT_MAX}.")
        if isinstance(value, str) and len(value) > bodies.TEXT_MAX:
            raise invalid(f"match.{name}", f"takes at most {bodies.TEXT_MAX} characters.")
    return match


async def list_event_prices(call: Call) -> Answer:
    """The prices in force, each at its latest version."""
    call.company()
    after = call.after(1)
    filters = {name: str(value) for name, value in call.filters().items()}
    async with call.engine.database.reading() as reader:
        found = await catalog.list_prices(
            reader,
            call.environment.id,
            limit=call.limit() + 1,
            after=None if after is None else after[0],
            filters=filters,
        )
    return page_of(call, found, lambda row: (row["id"],), shapes.event_price)


async def get_event_price(call: Call) -> Answer:
    """One price at its latest version."""
    call.company()
    async with call.engine.database.reading() as reader:
        found = await catalog.read_price(reader, call.environment.id, call.id("ep", "price_id"))
    if found is None:
        raise Refusal("not_found")
    return Answer(200, shapes.wrapped(shapes.event_price(found)))


async def change_event_price(call: Call) -> Answer:
    """A new version of a price. What was priced before keeps its version."""
    call.company()
    price_id = call.id("ep", "price_id")
    terms = terms_of(call.decoded(EventPriceChange))

    async def verb(unit: Unit) -> Record:
        return await service.change_event_price(call.engine, unit, call.environment, price_id, terms)

    return await call.once(verb, lambda row: shapes.wrapped(shapes.event_price(row)))


async def delete_event_price(call: Call) -> Answer:
    """Take a price out of force."""
    call.company()
    price_id = call.id("ep", "price_id")

    async def verb(unit: Unit) -> Record:
        return await service.delete_event_price(call.engine, unit, call.environment, price_id)

    return await call.once(verb, lambda row: shapes.wrapped(shapes.event_price(row)))


async def agree_event_price(call: Call) -> Answer:
    """A price that only this account has, in place of the one with its type, denomination and match."""
    account_id = call.id("a", "account_id")
    given = call.decoded(EventPriceIn)
    kind = bodies.event_type(given.type, "type")
    denomination = bodies.token(given.denomination, "denomination", bodies.DENOMINATION_MAX)
    match = match_of(given.match)
    terms = terms_of(given)

    async def verb(unit: Unit) -> Record:
        return await service.agree_event_price(
            call.engine,
            unit,
            call.environment,
            account_id,
            kind=kind,
            denomination=denomination,
            match=match,
            terms=terms,
        )

    return await call.once(verb, lambda row: shapes.wrapped(shapes.agreed_price(row)))


async def list_agreed_prices(call: Call) -> Answer:
    """The prices agreed with an account that are in force, each at its latest version."""
    account = await call.account()
    after = call.after(1)
    filters = {name: str(value) for name, value in call.filters().items()}
    async with call.engine.database.reading() as reader:
        found = await catalog.list_overrides(
            reader, account.id, limit=call.limit() + 1, after=None if after is None else after[0], filters=filters
        )
    return page_of(call, found, lambda row: (row["id"],), shapes.agreed_price)


async def get_agreed_price(call: Call) -> Answer:
    """One price agreed with an account at its latest version."""
    account = await call.account()
    async with call.engine.database.reading() as reader:
        found = await catalog.read_override(reader, account.id, call.id("ep", "account_price_id"))
    if found is None:
        raise Refusal("not_found")
    return Answer(200, shapes.wrapped(shapes.agreed_price(found)))


async def change_agreed_price(call: Call) -> Answer:
    """A new version of a price agreed with an account. What was priced before keeps its version."""
    account_id, price_id = call.id("a", "account_id"), call.id("ep", "account_price_id")
    terms = terms_of(call.decoded(EventPriceChange))

    async def verb(unit: Unit) -> Record:
        return await service.change_agreed_price(call.engine, unit, call.environment, account_id, price_id, terms)

    return await call.once(verb, lambda row: shapes.wrapped(shapes.agreed_price(row)))


async def end_agreed_price(call: Call) -> Answer:
    """Take a price agreed with an account out of force; its plan's and the company's hold again."""
    account_id, price_id = call.id("a", "account_id"), call.id("ep", "account_price_id")

    async def verb(unit: Unit) -> Record:
        return await service.end_agreed_price(call.engine, unit, call.environment, account_id, price_id)

    return await call.once(verb, lambda row: shapes.wrapped(shapes.agreed_price(row)))


_EXAMPLE: Final = {"type": "tokens_read", "denomination": "USD", "amount": "15", "per": 1000000}

ROUTES: Final = (
    Route(
        "POST",
        "/companies/{company_id}/event_prices",
        set_event_price,
        "Set an event price",
        "Event prices",
        shapes.EventPriceOut,
        scope="catalog:write",
        body=EventPriceIn,
        refusals=("price_exists",),
        example=_EXAMPLE,
    ),
    Route(
        "GET",
        "/companies/{company_id}/event_prices",
        list_event_prices,
        "List event prices",
        "Event prices",
        shapes.EventPriceOut,
        scope="catalog:read",
        query=(
            *PAGING,
            Param("type", "text", "Only prices of this event type."),
            Param("denomination", "text", "Only prices in this denomination."),
        ),
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/companies/{company_id}/event_prices/{price_id}",
        get_event_price,
        "Get an event price",
        "Event prices",
        shapes.EventPriceOut,
        scope="catalog:read",
    ),
    Route(
        "PUT",
        "/companies/{company_id}/event_prices/{price_id}",
        change_event_price,
        "Change an event price",
        "Event prices",
        shapes.EventPriceOut,
        scope="catalog:write",
        body=EventPriceChange,
        example={"amount": "20"},
    ),
    Route(
        "DELETE",
        "/companies/{company_id}/event_prices/{price_id}",
        delete_event_price,
        "Delete an event price",
        "Event prices",
        shapes.EventPriceOut,
        scope="catalog:write",
    ),
    Route(
        "POST",
        "/accounts/{account_id}/event_prices",
        agree_event_price,
        "Agree an event price with an account",
        "Event prices",
        shapes.AgreedPriceOut,
        scope="catalog:write",
        body=EventPriceIn,
        refusals=("price_exists",),
        example=_EXAMPLE,
    ),
    Route(
        "GET",
        "/accounts/{account_id}/event_prices",
        list_agreed_prices,
        "List the event prices agreed with an account",
        "Event prices",
        shapes.AgreedPriceOut,
        scope="catalog:read",
        query=(
            *PAGING,
            Param("type", "text", "Only prices of this event type."),
            Param("denomination", "text", "Only prices in this denomination."),
        ),
        is_list=True,
    ),
    Route(
        "GET",
        "/accounts/{account_id}/event_prices/{account_price_id}",
        get_agreed_price,
        "Get an event price agreed with an account",
        "Event prices",
        shapes.AgreedPriceOut,
        scope="catalog:read",
    ),
    Route(
        "PUT",
        "/accounts/{account_id}/event_prices/{account_price_id}",
        change_agreed_price,
        "Change an event price agreed with an account",
        "Event prices",
        shapes.AgreedPriceOut,
        scope="catalog:write",
        body=EventPriceChange,
        example={"amount": "20"},
    ),
    Route(
        "DELETE",
        "/accounts/{account_id}/event_prices/{account_price_id}",
        end_agreed_price,
        "End an event price agreed with an account",
        "Event prices",
        shapes.AgreedPriceOut,
        scope="catalog:write",
    ),
)
