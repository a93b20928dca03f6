"""The life of an account in dated lines, driven through the service's verbs on a real database.

    2030-02-01 09:00  open credits 10
                      price CHAT credits 3
    2030-02-03 10:00  event CHAT gated key k1          -> 3 credits, 7 left
                      event CHAT gated pending key h1  -> holds 3 credits, 7 left (3 pending)
                      event CHAT 2 gated key k2        -> refused insufficient_balance (4 available, 6 needed, 2 short)
    clock +1h
                      settle h1                        -> refused event_expired
                      balance credits                  -> 7

Times are UTC; a line without one happens at the time of the line above. Time only moves forward. After ``#`` is a
remark. Lines with an arrow ask something, and what follows it is the answer.

Scene     ``zone NAME``, ``credit limit N`` (of the company), ``open D N [limit N]``, ``clock +1h``,
          ``price TYPE D AMOUNT [per N] [package] [free N] [minimum A] [cap A] [highest] [where NAME=JSON]``,
          ``price TYPE D graduated|volume UP_TO:AMOUNT ... rest:AMOUNT`` (one more alike is a new version),
          ``drop TYPE D``, ``late 10d`` (how old an event may be), ``crash`` (the worker starts anew and knows nothing)
Verbs     ``event TYPE [QUANTITY] [gated] [pending] [cancelled] [key K] [at DATE TIME] [cost N D]
          [where NAME=JSON]``, several in one request with ``;`` between; ``settle K [QUANTITY] [cost N]``;
          ``cancel K``; ``delete K``; ``adjust D +N``; ``sweep``
Questions ``balance D``; ``ledger D``; ``show K``; ``refusals``
Answers   ``again:`` before what a known key is answered; ``owing 2/5`` is the fraction not yet posted
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Final

from tenuto.core.event import Event, GatedEvent, Settlement, State, UsageEvent, as_of
from tenuto.core.money import Exact, exact
from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tenuto.service import accounts, catalog
from tenuto.service.usage import open_lanes, release_all_expired
from tenuto.store import records
from tests.conftest import MadeUpClock
from tests.inside import Asked, Inside, event, let_go

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DATE: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?)\s+(.*)")


class Line:
    """One line of a story: when, what is asked, and what is answered (None where nothing is asked)."""

    def __init__(self, text: str) -> None:
        body = text.partition("#")[0].rstrip()
        dated = _DATE.match(body.strip())
        self.at = None if dated is None else datetime.fromisoformat(dated[1]).replace(tzinfo=UTC)
        asked, arrow, answer = (body.strip() if dated is None else dated[2]).partition("->")
        self.words = asked.split()
        self.answer = " ".join(answer.split()) if arrow else None
        self.text = " ".join(body.split())

    def told(self, answer: str) -> str:
        """The line as it would stand with another answer."""
        return self.text if self.answer is None else f"{self.text.partition('->')[0]}-> {answer}"


def lines_of(text: str) -> list[Line]:
    """The lines of a story that say something."""
    return [line for line in map(Line, text.splitlines()) if line.words]


class Story:
    """One company with one account, living through the lines of a story."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = MadeUpClock()
        engine.clock = self.clock
        self.prices: dict[tuple[str, str, str], int] = {}
        self.events: dict[str, int] = {}
        self.company: Inside
        self.account_id: int

    async def live(self, lines: Sequence[Line]) -> list[str]:
        """The lines again, with the answers that were really given."""
        assert lines[0].at is not None, "a story begins with a date"
        self.clock.at = lines[0].at
        self.company = await Inside.open(self.engine)
        self.account_id = await self.company.account()
        told: list[str] = []
        for line in lines:
            if line.at is not None:
                assert line.at >= self.clock.at, f"time runs backwards: {line.text}"
                await self.pass_until(line.at)
            verb, *words = line.words
            try:
                answer = await getattr(self, f"do_{verb.removesuffix('?')}")(words)
            except Refusal as refusal:
                answer = f"refused {refusal.code}"
            assert (answer is None) == (line.answer is None), f"an arrow too many or too few: {line.text} {answer}"
            told.append(line.told(answer or ""))
            await self.rest()
        return told

    async def pass_until(self, at: datetime) -> None:
        """Let time pass; nothing happens by itself."""
        self.clock.at = at

    async def rest(self) -> None:
        """What happens by itself after each line: nothing."""

    # --- the scene

    async def do_zone(self, words: list[str]) -> None:
        await self.company.set_up(zone=words[0])

    async def do_late(self, words: list[str]) -> None:
        await self.company.set_up(late_seconds=int(_span(words[0]).total_seconds()))

    async def do_credit(self, words: list[str]) -> None:
        await self.company.set_up(default_credit_limit=int(words[1]))

    async def do_open(self, words: list[str]) -> None:
        limit = int(words[3]) if len(words) > 2 else None
        await self.company.balance_opened(self.account_id, words[0], int(words[1]), limit)

    async def do_clock(self, words: list[str]) -> None:
        self.clock.at += _span(words[0].removeprefix("+"))

    async def do_crash(self, _: list[str]) -> None:
        await let_go(self.engine)
        self.engine.lanes = open_lanes(self.engine)
        self.engine.lanes.start()

    async def do_price(self, words: list[str]) -> None:
        kind, denomination, *rest = words
        terms: dict[str, object] = {"amount": None}
        match: dict[str, object] = {}
        while rest:
            word = rest.pop(0)
            match word:
                case "graduated" | "volume":
                    terms |= {"model": word, "tiers": [_tier(tier) for tier in rest]}
                    rest = []
                case "package":
                    terms["model"] = word
                case "highest":
                    terms["max_value_billing"] = True
                case "per" | "free":
                    terms[{"per": "per", "free": "free_units"}[word]] = int(rest.pop(0))
                case "minimum" | "cap":
                    terms[word] = rest.pop(0)
                case "where":
                    match = _properties(rest.pop(0))
                case _:
                    terms["amount"] = word
        slot = (kind, denomination, json.dumps(match))
        if slot in self.prices:
            await self.company.reprice(self.prices[slot], **terms)
            await self.company.look()
        else:
            self.prices[slot] = await self.company.price(kind, denomination, match=match, **terms)

    async def do_drop(self, words: list[str]) -> None:
        price_id = self.prices.pop((words[0], words[1], "{}"))
        async with self.engine.database.writing() as unit:
            await catalog.delete_event_price(self.engine, unit, self.company.environment, price_id)
        await self.company.look()

    # --- verbs

    async def do_event(self, words: list[str]) -> str:
        asked = " ".join(["event", *words]).split(" ; ")
        events = [self._event(part.split()[1:] if part.startswith("event ") else part.split()) for part in asked]
        answered = await self.company.send(self.account_id, *events)
        assert answered.decision is not None
        for made in answered.events:
            if made.key is not None:
                self.events[made.key] = made.id
        return _told(answered)

    def _event(self, words: list[str]) -> UsageEvent:
        kind, *rest = words
        quantity, state, gated, key = "1", "complete", False, None
        occurred_at, override, properties = None, None, None
        while rest:
            word = rest.pop(0)
            match word:
                case "gated":
                    gated = True
                case "pending" | "cancelled":
                    state = word
                case "key":
                    key = rest.pop(0)
                case "at":
                    occurred_at = datetime.fromisoformat(f"{rest.pop(0)} {rest.pop(0)}").replace(tzinfo=UTC)
                case "cost":
                    override = (int(rest.pop(0)), rest.pop(0))
                case "where":
                    properties = _properties(rest.pop(0))
                case _:
                    quantity = word
        states: dict[str, State] = {"complete": "complete", "pending": "pending", "cancelled": "cancelled"}
        return event(
            kind,
            quantity,
            state=states[state],
            gated=gated,
            key=key,
            override=override,
            properties=properties,
            occurred_at=occurred_at,
        )

    async def do_settle(self, words: list[str]) -> str:
        key, *rest = words
        cost = int(rest[1]) if rest and rest[0] == "cost" else None
        quantity = rest[0] if rest and cost is None else None
        settlement = Settlement("complete", None if quantity is None else exact(quantity), quantity, cost)
        return _told(await self.company.finish(self.account_id, self.events[key], settlement))

    async def do_cancel(self, words: list[str]) -> str:
        return _told(await self.company.finish(self.account_id, self.events[words[0]], Settlement("cancelled")))

    async def do_delete(self, words: list[str]) -> str:
        return _told(await self.company.void(self.account_id, self.events[words[0]]))

    async def do_adjust(self, words: list[str]) -> str:
        async with self.engine.database.writing() as unit:
            made = await accounts.adjust_balance(
                self.engine,
                unit,
                self.company.environment,
                self.account_id,
                words[0],
                amount=int(words[1]),
                reason="by hand",
            )
        return f"{made.ending_balance} left"

    async def do_sweep(self, _: list[str]) -> str:
        done = await release_all_expired(self.engine, self.company.environment.id)
        return f"{done} expired"

    # --- questions

    async def do_balance(self, words: list[str]) -> str:
        found = await self.company.balance(self.account_id, words[0])
        return _balance(found.amount, found.pending, found.residue)

    async def do_ledger(self, words: list[str]) -> str:
        rows = await self.company.rows(
            "select seq, amount, ending_balance, book, type from transaction"
            " where account_id = $1 and denomination = $2 order by seq",
            self.account_id,
            words[0],
        )
        names = {"REVERSAL": "reversal"}
        return " | ".join(
            f"{row['seq']}: {names.get(row['type'], row['book'])} {row['amount']:+} = {row['ending_balance']}"
            for row in rows
        )

    async def do_show(self, words: list[str]) -> str:
        async with self.engine.database.reading() as reader:
            found = await records.read_event(
                reader, self.company.environment.id, self.account_id, self.events[words[0]]
            )
        assert found is not None
        shown = as_of(found, self.clock.now())
        state = shown.state if shown.reason is None else f"{shown.state} ({shown.reason})"
        amounts = [f"{charge.amount} {charge.denomination}" for charge in shown.charges]
        return ", ".join([state, *amounts])

    async def do_refusals(self, _: list[str]) -> str:
        rows = await self.company.rows(
            "select type, key, code from gated_event where account_id = $1 order by id", self.account_id
        )
        return " | ".join(f"{row['type']} {row['key']} {row['code']}" for row in rows) or "none"


def _span(text: str) -> timedelta:
    return timedelta(seconds=int(text[:-1]) * UNITS[text[-1]])


def _tier(text: str) -> dict[str, object]:
    up_to, amount = text.split(":")
    return {"up_to": None if up_to == "rest" else int(up_to), "amount": amount}


def _properties(text: str) -> dict[str, object]:
    name, value = text.split("=")
    try:
        return {name: json.loads(value)}
    except ValueError:
        return {name: value}


def _balance(amount: int, pending: int, residue: Exact) -> str:
    held = f" ({pending} pending)" if pending else ""
    return f"{amount}{held}{_owing(residue)}"


def _owing(residue: Exact) -> str:
    return f" owing {Fraction(residue.numerator, residue.denominator)}" if residue.numerator else ""


def _told(asked: Asked) -> str:
    assert asked.decision is not None
    again = "again: " if asked.answer.is_replay else ""
    return again + " | ".join(_answer(answer) for answer in asked.decision.answers)


def _answer(answer: Event | GatedEvent | None) -> str:
    if answer is None:
        return "not billed"
    if isinstance(answer, GatedEvent):
        facts = answer.details
        if "available" not in facts:
            return f"refused {answer.code}"
        return (
            f"refused {answer.code} ({facts['available']} available, {facts['required']} needed,"
            f" {facts['shortfall']} short)"
        )
    if not answer.charges:
        return "recorded" if answer.state != "cancelled" else "cancelled"
    parts: list[str] = []
    for charge in answer.charges:
        amount, pending = charge.balance_amount, charge.balance_pending
        held = f" ({pending} pending)" if pending else ""
        verb = {"pending": "holds ", "complete": "", "cancelled": "gives back "}[answer.state]
        units = charge.denomination if answer.state == "cancelled" else f"{charge.amount} {charge.denomination}"
        parts.append(f"{verb}{units}, {amount} left{held}{_owing(charge.residue)}")
    return " and ".join(parts)
