"""Grants of a balance: units given by hand, with a priority and an end."""

from __future__ import annotations

from typing import Final

import msgspec

from tenuto.core.grant import MANUAL_PRIORITY, PRIORITY_MAX, Grant
from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer
from tenuto.service import grants as service
from tenuto.store import subscriptions
from tenuto.store.database import Unit

from . import body as bodies
from . import shapes
from .routes import PAGING, Call, Route
from .usage import page_of

REASON_MAX: Final = 500


class GrantIn(msgspec.Struct, forbid_unknown_fields=True):
    """Units to give. A lower ``priority`` is used first; among equals what ends sooner."""

    amount: int
    priority: int = MANUAL_PRIORITY
    expires_at: str | None = None
    price: int = 0
    price_denomination: str | None = None
    reason: str | None = None


class GrantOut(shapes.Shape):
    """Units that arrived together. ``amount_left`` is as of when a grant last came, ended or was valued."""

    id: str
    account_id: str
    denomination: str
    source: str
    amount: int
    amount_left: int
    priority: int
    price: int
    price_denomination: str
    plan_id: str | None
    reason: str
    expires_at: str | None
    created_at: str | None
    closed_at: str | None


def shown(grant: Grant) -> GrantOut:
    """A grant as it is written to the wire."""
    return GrantOut(
        id=spell_of_account("g", grant.account_id, grant.id),
        account_id=spell("a", grant.account_id),
        denomination=grant.denomination,
        source=grant.source,
        amount=grant.units,
        amount_left=grant.left,
        priority=grant.priority,
        price=grant.price,
        price_denomination=grant.price_denomination,
        plan_id=None if grant.plan_id is None else spell("p", grant.plan_id),
        reason=grant.reason,
        expires_at=bodies.spelled(grant.expires_at),
        created_at=bodies.spelled(grant.created_at),
        closed_at=bodies.spelled(grant.closed_at),
    )


async def give_grant(call: Call) -> Answer:
    """Give units that end together, by the company's word."""
    given, account_id, denomination = call.decoded(GrantIn), call.id("a", "account_id"), call.denomination()
    expires_at = None if given.expires_at is None else bodies.moment(given.expires_at, "expires_at")
    if expires_at is not None and expires_at <= call.engine.now_of(call.environment):
        raise invalid("expires_at", "lies in the future.")
    priced = given.price_denomination
    ask = service.GrantAsk(
        denomination=denomination,
        units=bodies.whole(given.amount, "amount", least=1),
        priority=bodies.whole(given.priority, "priority", most=PRIORITY_MAX),
        expires_at=expires_at,
        price=bodies.whole(given.price, "price"),
        price_denomination=call.currency()
        if priced is None
        else bodies.token(priced, "price_denomination", bodies.DENOMINATION_MAX),
        reason="given by hand" if given.reason is None else bodies.text(given.reason, "reason", REASON_MAX),
    )

    async def verb(unit: Unit) -> Grant:
        return await service.give(call.engine, unit, call.environment, account_id, ask)

    return await call.once(verb, lambda grant: shapes.wrapped(shown(grant)))


async def list_grants(call: Call) -> Answer:
    """The grants of a balance, newest first, those of its plan too."""
    account, denomination = await call.account(), call.denomination()
    async with call.engine.database.reading() as reader:
        found = await subscriptions.list_grants(reader, account.id, denomination, call.page())
    return page_of(call, found, lambda grant: (grant.id, grant.account_id), shown)


async def void_grant(call: Call) -> Answer:
    """Take back what is left of a grant."""
    account_id, denomination = call.id("a", "account_id"), call.denomination()
    owner, grant_id = call.id_of_account("g", "grant_id")
    if owner != account_id:
        raise Refusal("not_found")

    async def verb(unit: Unit) -> Grant:
        return await service.void(call.engine, unit, call.environment, account_id, denomination, grant_id)

    return await call.once(verb, lambda grant: shapes.wrapped(shown(grant)))


_PATH: Final = "/accounts/{account_id}/balance/{denomination}/grants"

ROUTES: Final = (
    Route(
        "POST",
        _PATH,
        give_grant,
        "Give units that end together",
        "Grants",
        GrantOut,
        scope="balances:write",
        body=GrantIn,
        refusals=("balance_out_of_range",),
        example={"amount": 200, "reason": "goodwill", "priority": 10},
    ),
    Route(
        "GET",
        _PATH,
        list_grants,
        "List a balance's grants",
        "Grants",
        GrantOut,
        scope="balances:read",
        query=PAGING,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "DELETE",
        _PATH + "/{grant_id}",
        void_grant,
        "Take back what is left of a grant",
        "Grants",
        GrantOut,
        scope="balances:write",
        refusals=("grant_closed",),
    ),
)
