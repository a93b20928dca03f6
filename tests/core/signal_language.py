"""What movements of balances have to say, in lines that the company's people can read.

    hear threshold                     -> (scene) somebody hears it: ``of D``, ``at LEVEL``; ``alone``: of this account
    balance tokens 1000 filled 1000    -> (scene) as in ``ledger_language``, with what it was last filled to
    use 900 tokens                     -> threshold tokens consumed:90
    move +5 tokens refill, -5 tokens expiry -> nothing

Scene       ``hear TOPIC ...``, ``rule LEVEL [of D] [flag NAME | block]`` (in place of the usual ones), ``no rules``,
            ``balance D N [limit N] [filled N]``, ``limit N`` (of the account), ``company limit N``,
            ``plan D ... [alert N]``, ``plan flag NAME=JSON``, ``own flag NAME=JSON``, ``blocked by WHO``, ``paused``
Movements   ``use N D [and N D ...]`` (one request, an event each), ``void`` (of the event used last),
            ``move N D BOOK[, N D BOOK ...]`` (one save)
Answers     notifications in their order, with the level or the number of the transaction where those are what tells
            them apart; ``NAME on`` and ``NAME off`` are changes of flags; ``blocked``, ``free``
"""

from __future__ import annotations

import json

from tenuto.core.topic import BLOCKED_FLAG, FlagChange, Heard, Notification, Rule, Told, level_of, watch_of
from tests.core.account_life import ACCOUNT_ID, Life, event
from tests.core.ledger_language import _clauses, _lines


class Reader:
    """Turns the lines at the top of this page into a life, and what it has to say into words."""

    def __init__(self) -> None:
        self.life = Life()
        self.heard: list[Heard] = []
        self.balances: dict[str, dict[str, object]] = {}
        self.terms: dict[str, object] = {}

    def read(self, text: str) -> str:
        words = text.split()
        match words[0]:
            case "hear":
                self._hear(words)
            case "rule" | "no":
                self._rule(words)
            case "balance":
                _, named = _clauses(words[3:], {"limit": 1, "filled": 1})
                limit = int(named["limit"][0]) if "limit" in named else None
                self.life.open(words[1], int(words[2]), limit=limit, filled=int(named.get("filled", ["0"])[0]))
            case "limit":
                self.life.account_limit = int(words[1])
            case "company":
                self.life.company_limit = int(words[2])
            case "plan" | "own":
                self._promise(words)
            case "blocked":
                self.life.stored = self.life.stored._replace(blocked_by=words[2], bar="credit_blocked")
            case "paused":
                self.life.stored = self.life.stored._replace(bar="account_paused")
            case _:
                return spoken(self._moved(words))
        return ""

    def _moved(self, words: list[str]) -> Told:
        match words[0]:
            case "use":
                parts = " ".join(words[1:]).split(" and ")
                costs = [(int(amount), denomination) for amount, denomination in map(str.split, parts)]
                return self.life.push(*(event("USE", override=cost) for cost in costs)).told
            case "void":
                return self.life.void(max(self.life.events)).told
            case "move":
                moves = [part.split() for part in " ".join(words[1:]).split(", ")]
                return self.life.move(*((name, int(amount), book) for amount, name, book in moves))
            case _:
                raise AssertionError(words)

    def _hear(self, words: list[str]) -> None:
        plain, named = _clauses(words[2:], {"of": 1, "at": 1})
        account_id = ACCOUNT_ID if "alone" in plain else None
        of, level = (named[word][0] if word in named else None for word in ("of", "at"))
        self.heard.append(Heard(1, words[1], account_id, of, level))
        self.life.watch = watch_of(one for one in self.heard if one.account_id is None)
        own = watch_of(one for one in self.heard if one.account_id is not None)
        self.life.stored = self.life.stored._replace(watch=own if account_id else self.life.stored.watch)

    def _rule(self, words: list[str]) -> None:
        if words[0] == "no":
            self.life.rules = ()
            return
        plain, named = _clauses(words[2:], {"of": 1, "flag": 1})
        flag, of = (named[word][0] if word in named else None for word in ("flag", "of"))
        known = () if self.life.rules == Life().rules else self.life.rules
        action = "block" if "block" in plain else "notify" if flag is None else "flag"
        self.life.rules = (*known, Rule(level_of(words[1]), action, flag, of))  # type: ignore[arg-type]

    def _promise(self, words: list[str]) -> None:
        if words[1] == "flag":
            name, _, value = words[2].partition("=")
            if words[0] == "own":
                own = {**self.life.stored.own_flags, name: json.loads(value)}
                self.life.stored = self.life.stored._replace(own_flags=own)
                return
            flags = self.terms.setdefault("flags", {})
            assert isinstance(flags, dict)
            flags[name] = json.loads(value)
        else:
            plain, named = _clauses(words[1:], {"alert": 1})
            self.balances |= {name: {"amount": 0} for name in plain}
            if "alert" in named:
                self.terms["threshold_alert_percentage"] = int(named["alert"][0])
        self.life.subscribe(self.balances, **self.terms)


def spoken(told: Told) -> str:
    said = [_fact(one) for one in told.notifications]
    said += [_change(one) for one in told.flags if one.name != BLOCKED_FLAG]
    said += [] if told.blocks is None else ["blocked" if told.blocks else "free"]
    blocks = [told.blocks] if told.blocks is not None else []
    assert [(one.after or {})["enabled"] for one in told.flags if one.name == BLOCKED_FLAG] == blocks
    assert len({(one.id, one.name) for one in told.flags}) == len(told.flags), "a change has a row of its own"
    return ", ".join(said) or "nothing"


def _change(one: FlagChange) -> str:
    return f"{one.name} {'on' if (one.after or {})['enabled'] else 'off'}"


def _fact(one: Notification) -> str:
    if one.topic == "balance_change":
        return f"{one.topic} {one.denomination} {one.sequence}"
    return " ".join(word for word in (one.topic, one.denomination, one.level) if word)


def listened(text: str) -> list[str]:
    """The lines of a life again, with what was really told."""
    reader = Reader()
    told: list[str] = []
    for asked, arrow, _ in _lines(text):
        answer = reader.read(asked)
        told.append(f"{asked} -> {answer}" if arrow else asked)
    return told
