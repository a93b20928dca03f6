"""Why an event cost what it did, from its price to its transactions.

The problem, on one example. An account asks why 12 GB moved 3 GB and 900 cents:

    charge          lines                                          exact   residue          moved
    3 storage_gb    12 at 1, of which 9 overage                    3       0 before, 0 after    3
    900 USD         9 units of storage_gb beyond at 100            900     2/5 before, 2/5 after  900

An answer shows the balance after its whole request, so the residue around one charge is found by taking back what the
request charged after it. Source: design 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from tenuto.core.catalog import PriceVersion, price_version
from tenuto.core.event import Charge, Event, overflow_of, whole_cost
from tenuto.core.identifiers import spell
from tenuto.core.money import ZERO, Exact, exact, exact_text, fraction_text, minus, plus, reduced
from tenuto.core.rating import EMPTY, Counter, rate
from tenuto.store import catalog, records
from tenuto.store.database import Reader

from . import shapes
from .routes import Call

_ONE: Final = Exact(1, 1)


async def explanation(call: Call, event: Event) -> shapes.ExplanationOut:
    """Price version, lines, residue before and after, and transaction of each charge of an event."""
    async with call.engine.database.reading() as reader:
        later = await records.read_posting(reader, event) if event.state == "complete" else []
        charges = [await _explained(call, reader, event, index, later) for index in range(len(event.charges))]
    first = charges[0] if charges else None
    return shapes.ExplanationOut(
        event=msgspec.Raw(shapes.encode(shapes.EventWriter().event(event))),
        sentence=_sentence(event, first),
        price=first.price if first else None,
        lines=first.lines if first else [],
        exact=first.exact if first else None,
        amount=first.amount if first else None,
        denomination=first.denomination if first else None,
        residue_before=first.residue_before if first else None,
        residue_after=first.residue_after if first else None,
        transaction=first.transaction if first else None,
        charges=charges,
    )


def _sentence(event: Event, charge: shapes.ChargeExplainedOut | None) -> str:
    if event.state == "suspended":
        return f"Usage was suspended when {event.quantity} x {event.type} came: it waits, and costs nothing yet."
    if charge is None and event.first is not None and event.first.state == "suspended" and event.state == "cancelled":
        return f"{event.quantity} x {event.type} was cancelled and costs nothing."
    if charge is None:
        return f"No price covers events of type {event.type}: it was recorded and costs nothing."
    by = "its own override" if charge.price is None else f"version {charge.price.version} of price {charge.price.id}"
    whole = exact_text(reduced(whole_cost(event.charges, event.charges[0])))
    cost = f"{event.quantity} x {event.type} cost exactly {whole} {charge.denomination} by {by}"
    spilt = overflow_of(event.charges, event.charges[0])
    if spilt is not None and spilt.overage is not None:
        cost += (
            f"; {charge.exact} were there, the other {exact_text(spilt.overage.units)} are overage at"
            f" {exact_text(spilt.overage.unit)} {spilt.denomination} each"
        )
    match event.state:
        case "pending":
            return f"{cost}; {charge.amount} are held until it is settled."
        case "cancelled":
            return f"{cost}; it was cancelled ({event.reason}) and costs nothing."
        case _:
            return (
                f"{cost}; with the residue of {charge.residue_before} before it that moves {charge.amount} whole and"
                f" carries {charge.residue_after} on."
            )


async def _explained(
    call: Call, reader: Reader, event: Event, index: int, later: Sequence[Event]
) -> shapes.ChargeExplainedOut:
    charge = event.charges[index]
    version, price = await _priced_by(call, reader, event.account_id, charge.price_version_id)
    transaction = None
    if charge.transaction_seq is not None:
        row = await records.read_transaction(reader, event.account_id, charge.denomination, charge.transaction_seq)
        transaction = None if row is None else shapes.transaction(row)
    before: str | None = None
    after: str | None = None
    if event.state == "complete":
        rest = charge.residue
        for beside in (*event.charges[index + 1 :], *(beside for other in later for beside in other.charges)):
            if beside.denomination == charge.denomination:
                rest = plus(minus(rest, beside.cost), Exact(beside.amount, 1))
        after = fraction_text(rest)
        before = fraction_text(plus(minus(rest, charge.cost), Exact(charge.amount, 1)))
    overage, terms = None, call.environment.terms
    if charge.overage is not None:
        plan = terms.plans.get(charge.overage.version_id)
        overage = shapes.OverageOut(
            denomination=charge.overage.denomination,
            units=exact_text(charge.overage.units),
            unit_cost=exact_text(charge.overage.unit),
            plan_id=None if plan is None else spell("p", plan.plan_id),
        )
    return shapes.ChargeExplainedOut(
        denomination=charge.denomination,
        exact=exact_text(charge.cost),
        lines=_lines(event, charge, version),
        residue_before=before,
        residue_after=after,
        amount=charge.amount,
        price=price,
        overage=overage,
        transaction=transaction,
    )


async def _priced_by(
    call: Call, reader: Reader, account_id: int, version_id: int | None
) -> tuple[PriceVersion | None, shapes.EventPriceOut | None]:
    """The terms of a charge as they are rated, and as they are shown: the company's, or agreed with the account."""
    if version_id is None:
        return None, None
    version = call.environment.terms.versions.get(version_id)
    if version is not None:
        row = await catalog.read_version(reader, call.environment.id, version_id)
        if row is None:
            return version, None
        return version, shapes.price_shape(row, version.price_id, version.number, catalog.terms_of_row(row))
    row = await records.read_own_version(reader, account_id, version_id)
    if row is None:
        return None, None
    terms = catalog.terms_of_row(row)
    version = price_version(
        id=version_id,
        price_id=row["price_id"],
        number=row["number"],
        denomination=row["denomination"],
        effective_at=row["effective_at"],
        terms=terms,
    )
    return version, shapes.price_shape(row, version.price_id, version.number, terms)


def _lines(event: Event, charge: Charge, version: PriceVersion | None) -> list[shapes.LineOut]:
    """What a charge is the sum of."""
    if charge.overage is not None:
        return [shapes.line("overage", charge.overage.units, charge.overage.unit, charge.cost)]
    cost = whole_cost(event.charges, charge)
    lines = [shapes.line("override", _ONE, cost, cost)]
    if version is not None:
        counter = EMPTY if charge.prior is None else Counter(charge.prior.units, charge.prior.billed)
        rated = rate(version, exact(event.quantity), counter)
        lines = [shapes.line(*line) for line in rated.lines]
        if minus(rated.cost, cost).numerator != 0:
            lines.append(shapes.line("override", _ONE, cost, minus(cost, rated.cost)))
    spilt = overflow_of(event.charges, charge)
    if spilt is not None and spilt.overage is not None:
        units = spilt.overage.units
        lines.append(shapes.line("overage", units, Exact(-1, 1), minus(ZERO, units)))
    return lines
