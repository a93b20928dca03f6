"""Notifications: what movements of an account's balances have to say, and how they are sent.

The problem, on one example. A company hears ``balance_change`` and ``threshold``. A request bills an account of 105
tokens, once filled with 1,000, for two events of 10 and an overage of 3 US cents:

    transaction               notifications
    tokens seq 7, 105 -> 85   balance_change, sequence 7; threshold at consumed:90, for 85 is a tenth or less of 1,000
    USD seq 2, 0 -> -3        balance_change, sequence 2; negative_balance, if somebody heard it

Each is made in the decision that moves the balance and written in its unit, so none tells of something that did not
happen and nothing happens untold. Movements of one save are judged as a whole where levels are concerned: a renewal
that ends 40 units and brings 1,000 has emptied nothing. Sources: contract 3.8 to 3.10, bar 2.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from .entitlement import flags_of_rules, metered_flags
from .event import AccountState, credit_limit_of
from .identifiers import spell, spell_of_account
from .ledger import PASSING_BOOKS, TAKEN_BOOKS, Balance, Transaction
from .money import is_fiat
from .period import moment_text
from .plan import PlanTerms
from .topic import (
    BLOCKED_FLAG,
    DEAF,
    NOTHING,
    SYSTEM_FLAGS,
    FlagChange,
    Level,
    Listening,
    Notification,
    Rule,
    Told,
    Watch,
    level_fields,
)

BLOCKED_BY_LEVEL: Final = "level"

SCHEDULE: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
"""How long is waited after each failed attempt; the first is made at once, the last after 75 hours and 35 minutes."""
JITTER_PERCENT: Final = 10
RETRY_AFTER_MAX: Final = timedelta(hours=24)
PATIENCE: Final = timedelta(days=5)
"""After so long without a single success a webhook is paused."""


def told_of(
    before: AccountState,
    transactions: Sequence[Transaction],
    after: Mapping[str, Balance],
    *,
    listening: Listening,
    plan: PlanTerms | None,
    now: datetime,
) -> Told:
    """What transactions of one save have to say; ``after`` are the balances they left, ``plan`` the account's terms."""
    if not transactions:
        return NOTHING
    own = DEAF if before.watch is None else before.watch
    is_heard = not (listening.watch.is_deaf and own.is_deaf)
    if not is_heard and not _may_matter(before, transactions, plan):
        return NOTHING
    said = _Said(before, listening, own, plan, now)
    moved: dict[str, list[Transaction]] = {}
    for made in transactions:
        moved.setdefault(made.denomination, []).append(made)
        said.change(made, after[made.denomination])
    for denomination, of_balance in moved.items():
        said.levels(of_balance, after[denomination])
    return said.told(transactions, after)


def after_told(
    state: AccountState, told: Told
) -> tuple[Literal["account_paused", "credit_blocked"] | None, str | None]:
    """What bars the account, and what blocks its credit, once what is told has come true."""
    if told.blocks is None:
        return state.bar, state.blocked_by
    if told.blocks:
        return state.bar or "credit_blocked", BLOCKED_BY_LEVEL
    return None if state.bar == "credit_blocked" else state.bar, None


def keeps_block(balance: Balance, credit_limit: int | None, listening: Listening) -> bool:
    """Whether what is owed on a balance is above its limit, or still at a level that blocks: that may be lower.

    ``credit_limit`` is the account's.
    """
    limit, amount = credit_limit_of(balance, credit_limit, listening.default_credit_limit), balance.amount
    return limit > 0 and (
        -amount > limit
        or any(
            rule.action == "block" and rule.level.is_reached(amount, filled=0, limit=limit)
            for rule in listening.rules
            if rule.denomination in {None, balance.denomination}
        )
    )


def _may_matter(before: AccountState, transactions: Sequence[Transaction], plan: PlanTerms | None) -> bool:
    """Whether anything but a subscription could make a movement worth a look: credit, or a metered flag."""
    if before.own_flags or (plan is not None and plan.flags) or before.blocked_by == BLOCKED_BY_LEVEL:
        return True
    return any(made.ending_balance < 0 or made.starting_balance < 0 for made in transactions)


class _Said:
    """What is being gathered."""

    def __init__(
        self, before: AccountState, listening: Listening, own: Watch, plan: PlanTerms | None, now: datetime
    ) -> None:
        self.before, self.listening, self.own, self.plan, self.now = before, listening, own, plan, now
        self.notifications: list[Notification] = []
        self.flags: list[FlagChange] = []
        self.blocks: bool | None = None

    def _hears(self, topic: str, denomination: str) -> bool:
        return self.listening.watch.hears(topic, denomination) or self.own.hears(topic, denomination)

    def _say(
        self,
        topic: str,
        data: Mapping[str, object],
        made: Transaction,
        level: Level | None = None,
        *,
        by_rule: bool = True,
    ) -> None:
        self.notifications.append(
            Notification(
                self.before.account_id,
                topic,
                data,
                self.now,
                made.denomination,
                None if level is None else level.spelled,
                by_rule and level is not None,
                made.seq,
            )
        )

    def _limit(self, balance: Balance) -> int:
        return credit_limit_of(balance, self.before.credit_limit, self.listening.default_credit_limit)

    def _data(self, made: Transaction, balance: Balance) -> dict[str, object]:
        account_id = self.before.account_id
        return {
            "denomination": made.denomination,
            "amount": made.ending_balance,
            "pending": balance.pending,
            "available": made.ending_balance - balance.pending,
            "previous_amount": made.starting_balance,
            "sequence": made.seq,
            "transaction_id": spell_of_account("t", account_id, made.id),
            "event_id": None if made.first_event_id is None else spell_of_account("e", account_id, made.first_event_id),
        }

    def change(self, made: Transaction, balance: Balance) -> None:
        """What is said of each transaction."""
        denomination = made.denomination
        if self._hears("balance_change", denomination):
            data = self._data(made, balance)
            data |= {"change": made.amount, "type": made.type, "book": made.book}
            self._say("balance_change", data, made)
        is_taken = made.book in TAKEN_BOOKS and made.amount < 0
        if is_taken and made.ending_balance < 0 and self._hears("negative_balance", denomination):
            self._say("negative_balance", self._data(made, balance), made)

    def levels(self, of_balance: Sequence[Transaction], balance: Balance) -> None:
        """What is said of all transactions of one balance together."""
        first, last = of_balance[0], of_balance[-1]
        whole = last._replace(starting_balance=first.starting_balance)
        # A plan that is paid with tokens takes them; money only passes through the balance of its currency.
        passes = is_fiat(whole.denomination) and all(made.book in PASSING_BOOKS for made in of_balance)
        is_emptied = whole.starting_balance > 0 >= whole.ending_balance and not passes
        if is_emptied and self._hears("pause_balance", whole.denomination):
            self._say("pause_balance", self._data(whole, balance), whole)
        self._follow(whole)
        if not passes:
            self._consumed(whole, balance)
        self._credit(whole, balance)

    def _follow(self, whole: Transaction) -> None:
        """What becomes of the flags that follow a balance: whatever moves it, they say what is on it."""
        had, has = whole.starting_balance > 0, whole.ending_balance > 0
        if had == has:
            return
        flags = metered_flags({} if self.plan is None else self.plan.flags, self.before.own_flags)
        hidden = {*SYSTEM_FLAGS, *(rule.flag for rule in self.listening.rules)}
        for name in flags.get(whole.denomination, ()):
            if name in hidden:
                continue
            reason = "nothing is left of the balance" if had else "there is something on the balance again"
            self._flag(name, whole, "metered", has, "balance", reason)

    def _flag(self, name: str, whole: Transaction, kind: str, enabled: bool, source: str, reason: str) -> None:  # noqa: FBT001 - a state, not a switch
        denomination = whole.denomination if kind == "metered" else None
        then: dict[str, object] = {"type": kind, "enabled": not enabled, "value": None, "denomination": denomination}
        is_now = {**then, "enabled": enabled}
        actor = spell_of_account("t", self.before.account_id, whole.id)
        self.flags.append(FlagChange(whole.id, name, source, actor, reason, then, is_now))
        if self._hears("flag.changed", whole.denomination):
            data = {"name": name, **is_now, "before": then, "source": source, "reason": reason}
            self._say("flag.changed", data, whole)

    def _consumed(self, whole: Transaction, balance: Balance) -> None:
        """Levels of what is left; 100 % is what the balance was last filled to."""
        if whole.ending_balance >= whole.starting_balance:
            return
        filled = balance.filled
        for level, by_rule in self._levels(whole.denomination).items():
            is_reached = level.is_reached(whole.ending_balance, filled=filled, limit=0)
            if is_reached and not level.is_reached(whole.starting_balance, filled=filled, limit=0):
                data = self._data(whole, balance) | self._of_level(level, filled=filled, limit=0, owed=0)
                self._say("threshold", data, whole, level, by_rule=by_rule)

    def _levels(self, denomination: str) -> dict[Level, bool]:
        """The levels of a balance that somebody may hear, and whether each is one of the company's or a plan's."""
        found = dict.fromkeys(self._chosen("threshold", denomination, is_of_credit=False), False)
        if not self._hears("threshold", denomination):
            return found
        found |= {rule.level: True for rule in self._rules(denomination) if not rule.is_of_credit}
        plan = self.plan
        if plan is not None and plan.threshold_alert_percentage and denomination in plan.balances:
            found[Level("remaining", plan.threshold_alert_percentage)] = True
        return found

    def _chosen(self, topic: str, denomination: str, *, is_of_credit: bool) -> list[Level]:
        """The levels that subscriptions to a topic name."""
        levels = (*self.listening.watch.levels, *self.own.levels)
        named = (level for name, of, level in levels if name == topic and of in {None, denomination})
        return [level for level in named if level.is_of_credit == is_of_credit]

    def _rules(self, denomination: str) -> list[Rule]:
        return [rule for rule in self.listening.rules if rule.denomination in {None, denomination}]

    def _of_level(self, level: Level, *, filled: int, limit: int, owed: int) -> dict[str, object]:
        is_credit = level.is_of_credit
        return {
            **level_fields(level),
            "filled": None if is_credit else filled,
            "credit_limit": limit if is_credit else None,
            "owed": owed if is_credit else None,
        }

    def _credit(self, whole: Transaction, balance: Balance) -> None:
        """Levels of what is owed: how far the balance is below zero, against how far it may be."""
        limit, before, after = self._limit(balance), whole.starting_balance, whole.ending_balance
        if limit <= 0 or after >= min(0, before):
            return
        rules = [rule for rule in self._rules(whole.denomination) if rule.is_of_credit]

        def is_passed(level: Level) -> bool:
            return level.is_reached(after, filled=0, limit=limit) and not level.is_reached(
                before, filled=0, limit=limit
            )

        if self.before.blocked_by is None and any(rule.action == "block" and is_passed(rule.level) for rule in rules):
            self.blocks = True
        for topic in ("credit_limit", "threshold"):
            levels = dict.fromkeys(self._chosen(topic, whole.denomination, is_of_credit=True), False)
            if self._hears(topic, whole.denomination):
                levels |= dict.fromkeys((rule.level for rule in rules), True)
            for level, by_rule in levels.items():
                if is_passed(level):
                    data = self._data(whole, balance) | self._of_level(level, filled=0, limit=limit, owed=-after)
                    self._say(topic, data, whole, level, by_rule=by_rule)

    def _keeps_block(self, balance: Balance) -> bool:
        return keeps_block(balance, self.before.credit_limit, self.listening)

    def _mover(self, name: str, transactions: Sequence[Transaction], after: Mapping[str, Balance]) -> Transaction:
        """The transaction by whose balance a flag of the rules has changed."""
        account, default = self.before, self.listening.default_credit_limit

        def is_up(balances: Mapping[str, Balance], denomination: str) -> bool:
            one = {denomination: balances[denomination]} if denomination in balances else {}
            return flags_of_rules(self.listening.rules, one, account.credit_limit, default)[name]

        return next(
            made
            for made in reversed(transactions)
            if is_up(account.balances, made.denomination) != is_up(after, made.denomination)
        )

    def _flags_of_rules(self, transactions: Sequence[Transaction], after: Mapping[str, Balance]) -> None:
        balances = {**self.before.balances, **after}
        default = self.listening.default_credit_limit
        was = flags_of_rules(self.listening.rules, self.before.balances, self.before.credit_limit, default)
        for name, is_up in flags_of_rules(self.listening.rules, balances, self.before.credit_limit, default).items():
            if is_up != was[name] and name not in SYSTEM_FLAGS:
                reason = "what is owed has reached a level of the credit limit" if is_up else "less is owed again"
                self._flag(name, self._mover(name, transactions, after), "binary", is_up, "system", reason)

    def told(self, transactions: Sequence[Transaction], after: Mapping[str, Balance]) -> Told:
        """All of it, once the last balance was looked at."""
        if any(made.starting_balance < 0 or made.ending_balance < 0 for made in transactions):
            # Only what was owed, or is owed now, is at a level of credit.
            self._flags_of_rules(transactions, after)
        if self.before.blocked_by == BLOCKED_BY_LEVEL:
            balances = {**self.before.balances, **after}
            if not any(map(self._keeps_block, balances.values())):
                self.blocks = False
        if self.blocks is not None:
            reason = "what is owed has reached a level of the credit limit" if self.blocks else "less is owed again"
            self._flag(BLOCKED_FLAG, transactions[-1], "binary", self.blocks, "system", reason)
            topic = "account.credit_blocked" if self.blocks else "account.credit_unblocked"
            if self.listening.watch.hears(topic) or self.own.hears(topic):
                by: dict[str, object] = {"by": BLOCKED_BY_LEVEL}
                self.notifications.append(Notification(self.before.account_id, topic, by, self.now))
        return Told(tuple(self.notifications), tuple(self.flags), self.blocks)


# --- sending ----------------------------------------------------------------------------------------------------------


def public_id(company_id: int, account_id: int | None, position: int, *, live: bool) -> str:
    """The id of a notification: the same for every webhook and every attempt, and another one for every fact.

    Its place in the log of its half of the company is in it, so a list can go on after it.
    """
    return spell_of_account("wd", account_id or company_id, position * 2 + live)


def next_wait(attempts: int, chance: int) -> timedelta | None:
    """How long is waited after so many failed attempts; None: it was the last. ``chance`` is from 0 to 999."""
    if attempts > len(SCHEDULE):
        return None
    wait = SCHEDULE[attempts - 1]
    return wait + wait * JITTER_PERCENT * chance // 100_000


def envelope(
    notification: Notification, *, id: str, company_id: int, metadata: object, merged_from: int | None = None
) -> dict[str, object]:
    """What is sent, as plain values (contract 3.9). ``merged_from``: the sequence of the first change it speaks for."""
    data = dict(notification.data)
    if notification.account_id is not None:
        data["metadata"] = metadata
    if merged_from is not None:
        data["merged_from_sequence"] = merged_from
    return {
        "id": id,
        "topic": notification.topic,
        "company_id": spell("c", company_id),
        "account_id": None if notification.account_id is None else spell("a", notification.account_id),
        "created_at": moment_text(notification.created_at),
        "data": data,
    }
