"""The life of an account in lines that an accountant can read.

Lines without an arrow set the scene, or let time pass; the others say what is asked and what is answered:

    price CHAT 3 in credits
    balance credits 10
    CHAT gated                      -> credits 7
    CHAT 2 gated pending as hold    -> credits 7 (6 held)
    CHAT gated                      -> 402 insufficient_balance credits: 1 available, 6 held, 3 required, 2 short
    wait 1h
    CHAT gated                      -> credits 4
    complete hold                   -> refused event_expired

Scene       ``zone NAME``, ``limit N`` (of the account), ``company limit N``, ``balance D N [limit N] [residue R]``,
            ``price TYPE [AMOUNT [per N]] [MODEL] [UP_TO:AMOUNT ... rest:AMOUNT] in D [free N] [minimum A] [cap A]
            [highest] [where NAME=JSON] [since TIME]`` (a second one alike is a new version), ``drop TYPE``,
            ``wait 90s``; ``plan [agreed] D [A into O] ... [cap N] [unspent N]`` (A: the price of overage),
            ``period NAME TIME`` (of the plan), ``own price ...`` and ``plan price ...`` as ``price``
Events      ``TYPE [QUANTITY] [gated] [pending] [cancelled] [key K] [for N D] [at TIME] [where NAME=JSON] [cogs N D]
            [as NAME]``; several in one request with ``;`` between them. ``for`` is the cost override
Endings     ``complete NAME [quantity Q] [cost N]``, ``cancel NAME``, ``delete NAME``, ``sweep`` (all holds that lapsed)
Questions   ``ledger D``, ``event NAME``, ``record`` (of the gated)
Answers     the balances right after the request, ``again`` before them where it was answered before, `` | `` between
            events that were answered differently; a fraction still owed as ``+ 2/5``
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final

from tenuto.core.catalog import EventPrice, Property
from tenuto.core.event import Charge, Decision, Event, GatedEvent, State, UsageEvent, as_of
from tenuto.core.ledger import Transaction
from tenuto.core.outcomes import Refusal
from tests.core.account_life import CANCEL, LONG_AGO, Life, event, fraction, settle_for

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def live(text: str, life: Life | None = None) -> list[str]:
    """Live a life line by line; the lines again, with the answers that were really given."""
    reader = _Reader(life or Life())
    told: list[str] = []
    for asked, arrow, _ in _lines(text):
        answer = reader.read(asked.split())
        told.append(f"{asked} -> {answer}" if arrow else asked)
    return told


def expected(text: str) -> list[str]:
    """The lines of a life as they were written, spaces evened out."""
    return [f"{asked} -> {' '.join(answer.split())}" if arrow else asked for asked, arrow, answer in _lines(text)]


def _lines(text: str) -> list[tuple[str, str, str]]:
    """What is asked, the arrow where there is one, what is answered. ``|`` or ``->`` in front goes on with a line."""
    joined = re.sub(r"\n\s*(?=->|\|)", " ", text)
    parts = (line.partition("->") for line in joined.splitlines())
    return [(asked.strip(), arrow, answer.strip()) for asked, arrow, answer in parts if asked.strip()]


class _Reader:
    """Turns the lines of a life into calls, and what comes back into words."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.names: dict[str, int] = {}

    def read(self, words: list[str]) -> str:
        verbs: dict[str, Callable[[list[str]], str | None]] = {
            "zone": self._zone,
            "limit": self._limit,
            "company": self._company_limit,
            "balance": self._balance,
            "price": self._price,
            "drop": self._drop,
            "plan": self._plan,
            "own": self._own,
            "period": self._period,
            "wait": self._wait,
            "complete": self._end,
            "cancel": self._end,
            "delete": self._end,
            "sweep": self._sweep,
            "ledger": self._ledger,
            "event": self._event,
            "record": self._record,
        }
        try:
            if words[0] in verbs:
                return verbs[words[0]](words) or ""
            return self._push(words)
        except Refusal as refusal:
            path = f" at {refusal.details['path']}" if "path" in refusal.details else ""
            return f"refused {refusal.code}{path}"

    def _zone(self, words: list[str]) -> None:
        self.life.zone = words[1]

    def _limit(self, words: list[str]) -> None:
        self.life.account_limit = int(words[1])

    def _company_limit(self, words: list[str]) -> None:
        self.life.company_limit = int(words[2])

    def _balance(self, words: list[str]) -> None:
        named = dict(zip(words[3::2], words[4::2], strict=True))
        limit = int(named["limit"]) if "limit" in named else None
        self.life.open(words[1], int(words[2]), limit=limit, residue=named.get("residue", "0"))

    def _plan(self, words: list[str]) -> None:
        if words[1] == "price":
            return self._price(words[1:], self.life.plan_prices)
        plain, named = _clauses(words[1:], {"cap": 1, "unspent": 1, "into": 1})
        self.life.is_agreed = "agreed" in plain
        self.life.unspent = int(named.get("unspent", ["0"])[0])
        balances: dict[str, dict[str, object]] = {}
        for name, price in pairwise([*plain, ""]):
            if name != "agreed" and not name[0].isdigit():
                balances[name] = {"amount": 0}
                if price[:1].isdigit():
                    into = named["into"].pop(0)
                    balances[name] |= {"overage_charge_amount": price, "overage_charge_denomination": into}
        cap = {"spend_cap": int(named["cap"][0])} if "cap" in named else {}
        return self.life.subscribe(balances, **cap)

    def _own(self, words: list[str]) -> None:
        self._price(words[1:], self.life.own_prices)

    def _period(self, words: list[str]) -> None:
        self.life.periods.append((self._time(words[2]), words[1]))

    def _price(self, words: list[str], among: dict[tuple[str, str, str], EventPrice] | None = None) -> None:
        plain, named = _clauses(words[2:], dict.fromkeys(("in", "free", "minimum", "cap", "per", "where", "since"), 1))
        terms: dict[str, object] = {bound: named[bound][0] for bound in ("minimum", "cap") if bound in named}
        terms |= {name: int(named[word][0]) for word, name in (("free", "free_units"), ("per", "per")) if word in named}
        tiers = [word.split(":") for word in plain if ":" in word]
        if tiers:
            terms["tiers"] = [{"up_to": None if to == "rest" else int(to), "amount": amount} for to, amount in tiers]
        for word in plain:
            if word == "highest":
                terms["max_value_billing"] = True
            elif word in {"package", "graduated", "volume"}:
                terms["model"] = word
            elif ":" not in word:
                terms["amount"] = word
        since = self._time(named["since"][0]) if "since" in named else LONG_AGO
        match = _properties(named.get("where", []))
        self.life.price(words[1], named["in"][0], terms, match=match, since=since, among=among)

    def _drop(self, words: list[str]) -> None:
        self.life.prices = {slot: price for slot, price in self.life.prices.items() if slot[0] != words[1]}

    def _wait(self, words: list[str]) -> None:
        self.life.wait(_span(words[1]))

    def _push(self, words: list[str]) -> str:
        texts = [part.split() for part in " ".join(words).split(";")]
        read = [self._usage_event(text) for text in texts]
        decision = self.life.push(*(usage_event for usage_event, _ in read))
        for (_, name), answer in zip(read, decision.answers, strict=True):
            if name and isinstance(answer, Event):
                self.names[name] = answer.id
        return told(decision)

    def _usage_event(self, words: list[str]) -> tuple[UsageEvent, str]:
        sizes = {"key": 1, "for": 2, "at": 1, "where": 1, "cogs": 2, "as": 1}
        plain, named = _clauses(words[1:], sizes)
        state: State = "pending" if "pending" in plain else "cancelled" if "cancelled" in plain else "complete"
        made = event(
            words[0],
            next((word for word in plain if word not in {"gated", "pending", "cancelled"}), "1"),
            state=state,
            gated="gated" in plain,
            key=named["key"][0] if "key" in named else None,
            override=_sum(named.get("for")),
            properties=_properties(named["where"]) if "where" in named else None,
            occurred_at=self._time(named["at"][0]) if "at" in named else None,
            cogs=_sum(named.get("cogs")),
        )
        return made, named.get("as", [""])[0]

    def _end(self, words: list[str]) -> str:
        event_id = self.names[words[1]]
        named = dict(zip(words[2::2], words[3::2], strict=True))
        if words[0] == "delete":
            return told(self.life.void(event_id))
        if words[0] == "cancel":
            return told(self.life.finish(event_id, CANCEL))
        cost = int(named["cost"]) if "cost" in named else None
        return told(self.life.finish(event_id, settle_for(quantity=named.get("quantity"), cost=cost)))

    def _sweep(self, _: list[str]) -> str:
        return " | ".join(told(decision) for decision in self.life.sweep()) or "nothing"

    def _ledger(self, words: list[str]) -> str:
        rows = [row for row in self.life.transactions if row.denomination == words[1]]
        return ", ".join(_row(row, rows) for row in rows) or "nothing"

    def _event(self, words: list[str]) -> str:
        made = as_of(self.life.events[self.names[words[1]]], self.life.now)
        costs = " and ".join(_cost(charge) for charge in made.charges)
        reason = f" ({made.reason})" if made.reason else ""
        cogs = f", cogs {made.cogs_amount} {made.cogs_denomination}" if made.cogs_amount is not None else ""
        return f"{made.state}{reason}: {made.quantity} for {costs or 'nothing'}{cogs}"

    def _record(self, _: list[str]) -> str:
        return (
            ", ".join(f"{row.event.type} {row.event.quantity_text} {row.code}" for row in self.life.gated) or "nothing"
        )

    def _time(self, text: str) -> datetime:
        return self.life.now + _span(text) if text[0] in "+-" else datetime.fromisoformat(text)


def told(decision: Decision) -> str:
    """What a decision answers, in words: see the top of this page."""
    several = len(decision.answers) > 1
    if decision.refusals:
        return "402 " + " | ".join(
            (f"[{index}] " if several else "") + _refused(answer)
            for index, answer in enumerate(decision.answers)
            if isinstance(answer, GatedEvent)
        )
    answers = [_balances(answer) for answer in decision.answers if isinstance(answer, Event)]
    spoken = answers[:1] if len(set(answers)) == 1 else answers
    return ("again " if decision.is_replay else "") + " | ".join(spoken)


def _balances(made: Event) -> str:
    return ", ".join(_balance(charge) for charge in made.charges) or "recorded"


def _balance(charge: Charge) -> str:
    held = f" ({charge.balance_pending} held)" if charge.balance_pending else ""
    owed = f" + {fraction(charge.residue)}" if charge.residue.numerator else ""
    return f"{charge.denomination} {charge.balance_amount}{held}{owed}"


def _refused(refused: GatedEvent) -> str:
    facts = refused.details
    held = f", {facts['pending']} held" if facts["pending"] else ""
    return (
        f"{refused.code} {facts['denomination']}: {facts['available']} available{held}, "
        f"{facts['required']} required, {facts['shortfall']} short"
    )


def _row(row: Transaction, rows: Sequence[Transaction]) -> str:
    unit = f" at {fraction(row.unit_cost)}" if row.unit_cost is not None else ""
    value, previous = row.max_value_billing_amount, row.max_value_billing_previous_id
    highest = f" highest {fraction(value)}" if value is not None else ""
    after = f" after {next(other.seq for other in rows if other.id == previous)}" if previous is not None else ""
    return f"{row.seq} {row.type.lower()} {row.amount:+}{unit}{highest}{after}"


def _cost(charge: Charge) -> str:
    return f"{fraction(charge.cost)} {charge.denomination}"


def _clauses(words: Sequence[str], sizes: Mapping[str, int]) -> tuple[list[str], dict[str, list[str]]]:
    """The words that stand alone, and behind each word of ``sizes`` the so many that belong to it."""
    plain: list[str] = []
    named: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in sizes:
            named.setdefault(word, []).extend(rest[: sizes[word]])
            del rest[: sizes[word]]
        else:
            plain.append(word)
    return plain, named


def _sum(words: Sequence[str] | None) -> tuple[int, str] | None:
    return None if words is None else (int(words[0]), words[1])


def _properties(texts: Sequence[str]) -> dict[str, Property]:
    pairs = (text.partition("=") for text in texts)
    return {name: json.loads(value) for name, _, value in pairs}


def _span(text: str) -> timedelta:
    seconds = Decimal(text[:-1]) * UNITS[text[-1]]
    return timedelta(microseconds=int(seconds * 10**6))
