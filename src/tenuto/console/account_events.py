"""An event explained: what it cost and by which price, what moved, and what became of its hold.

The problem, on one example. Twelve renders at 2.5 cents each left 0.4 cents over from the event before:

    12 x RENDER cost exactly $0.30 by version 3 of its price. With $0.004 carried over from before that moves $0.30,
    and carries $0.004 on.

Fractions of a cent are shown to the last digit; what has no last digit, such as a third, is shown as about so much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from litestar import Response

from . import formats
from .frame import Page, Visit

DIGITS: Final = Decimal("0.000001")
"""How far a fraction is shown that has no last digit."""
CHILDREN: Final = 50
_TAKEN_BACK: Final = frozenset({"complete", "pending", "suspended"})
"""The states of an event that can be taken back."""
_ENDED: Final = {
    "pushed": "it was pushed as cancelled",
    "requested": "it was cancelled on request",
    "expired": "its hour was over before it was settled",
    "deleted": "it was taken back",
}


def exact_amount(text: str | None, denomination: str, locale: str = formats.LOCALE) -> str:
    """An exact amount: 1/4 USD is 0.0025 USD; a third of a cent is about 0.003333 USD."""
    if text is None:
        return formats.NOTHING
    whole = Fraction(text)
    shown = Decimal(whole.numerator) / Decimal(whole.denominator)
    if Fraction(shown) == whole:
        return formats.amount(shown, denomination, locale)
    return f"about {formats.amount(shown.quantize(DIGITS), denomination, locale)}"


def left_over(charge: Mapping[str, Any], charges: Sequence[Mapping[str, Any]]) -> str | None:
    """How much of a charge was not on its balance, and became overage on another one; None: all of it was there."""
    for other in charges:
        over = other["overage"]
        if over is not None and charge["overage"] is None and over["denomination"] == charge["denomination"]:
            return str(over["units"])
    return None


def sentence_of(
    event: Mapping[str, Any], charge: Mapping[str, Any], left: str | None = None, locale: str = formats.LOCALE
) -> str:
    """Why one balance moved as it did, in words; ``left`` of it was not there and became overage."""
    name = charge["denomination"]
    what = f"{event['quantity']} x {event['type']}"
    cost = exact_amount(str(Fraction(charge["exact"]) + Fraction(left or 0)), name, locale)
    over, price = charge["overage"], charge["price"]
    if over is not None:
        unit = exact_amount(over["unit_cost"], name, locale)
        said = (
            f"{over['units']} {over['denomination']} were not there; at {unit} each they cost exactly {cost} as overage"
        )
    elif price is None:
        said = f"{what} cost exactly {cost}, as the event itself said"
    else:
        said = f"{what} cost exactly {cost} by version {price['version']} of price {price['id']}"
    if left is not None:
        said += f"; {exact_amount(left, name, locale)} of that were not there, and became overage"
    moved = formats.amount(charge["amount"], name, locale)
    match event["state"]:
        case "pending":
            return f"{said}; {moved} are held until it is settled."
        case "cancelled":
            return f"{said}; {_ENDED.get(event['reason'] or '', 'it was cancelled')}, so it costs nothing."
        case _:
            before = exact_amount(charge["residue_before"], name, locale)
            after = exact_amount(charge["residue_after"], name, locale)
            return f"{said}. With {before} carried over from before, that moves {moved} and carries {after} on."


def story_of(event: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What became of an event, as moments and what happened at each."""
    recorded, finished, state = event["recorded_at"], event["finished_at"], event["state"]
    story: list[tuple[str, str]] = []
    if event["occurred_at"] and event["occurred_at"] != recorded:
        story.append((event["occurred_at"], "It happened, as its sender says."))
    if event["expires_at"]:
        story.append((recorded, "It was recorded, and its cost held."))
        if state == "pending":
            story.append((event["expires_at"], "The hold ends by itself, unless it is settled before."))
        elif state == "complete":
            story.append((finished or recorded, "The hold was settled."))
    elif state == "suspended":
        story.append((recorded, "It was kept aside, because usage was suspended."))
    else:
        story.append((recorded, "It was recorded."))
    if state == "cancelled":
        ended = _ENDED.get(event["reason"] or "", "it was cancelled")
        story.append((finished or recorded, f"{ended[:1].upper()}{ended[1:]}."))
    return story


async def explained(visit: Visit) -> Response[Any]:
    """The event's page."""
    event_id = visit.param("event_id")
    found = await visit.get("/events/{event_id}/explain", event_id=event_id)
    event = found["event"]
    account = await visit.get("/accounts/{account_id}", account_id=event["account_id"])
    query = {"parent_event_id": event_id, "limit": str(CHILDREN)}
    children = await visit.rows("/accounts/{account_id}/events", query=query, account_id=event["account_id"])
    charges = [_shown(visit, event, charge, found["charges"]) for charge in found["charges"]]
    return visit.page(
        "event.html",
        event=event,
        account=account,
        charges=charges,
        sentence="" if charges else found["sentence"],
        balances=event.get("balances") or ([event["balance"]] if event["balance"] else []),
        story=story_of(event),
        children=children.rows,
        can_take_back=event["state"] in _TAKEN_BACK,
        exact=lambda text, name: exact_amount(text, name, visit.locale),
    )


def _shown(
    visit: Visit, event: Mapping[str, Any], charge: Mapping[str, Any], charges: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A charge with its sentence; what became overage on another balance is named as that among its lines."""
    left = left_over(charge, charges)
    lines = [
        {**line, "what": "left to overage" if left is not None and line["what"] == "overage" else line["what"]}
        for line in charge["lines"]
    ]
    return {**charge, "lines": lines, "sentence": sentence_of(event, charge, left, visit.locale)}


async def take_back(visit: Visit) -> Response[Any]:
    """Let a hold go, or reverse a charge."""
    event_id = visit.param("event_id")
    await visit.do("DELETE", "/events/{event_id}", event_id=event_id)
    return visit.go(f"/control/events/{event_id}", "The event was taken back.")


async def replay(visit: Visit) -> Response[Any]:
    """Bill an event that was kept aside."""
    event_id = visit.param("event_id")
    await visit.do("POST", "/events/{event_id}/replay", event_id=event_id)
    return visit.go(f"/control/events/{event_id}", "The event was billed.")


async def settle(visit: Visit) -> Response[Any]:
    """Settle a hold, for all or for less than it holds."""
    event_id = visit.param("event_id")
    body = {"state": "complete"}
    if visit.field("quantity"):
        body["quantity"] = visit.field("quantity")
    await visit.do("PUT", "/events/{event_id}", body, event_id=event_id)
    return visit.go(f"/control/events/{event_id}", "The event was settled.")


PAGES: Final = (
    Page("GET", "/control/events/{event_id}", explained, "events:read"),
    Page("POST", "/control/events/{event_id}/take-back", take_back, "events:write"),
    Page("POST", "/control/events/{event_id}/replay", replay, "events:write"),
    Page("POST", "/control/events/{event_id}/settle", settle, "events:write"),
)
