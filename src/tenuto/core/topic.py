"""Topics: what a company can hear of, at which levels, and what its own rules do there.

The problem, on one example. An account was filled with 1,000 tokens; its company hears ``threshold`` at 90 % consumed
and at fewer than 50 left, and blocks whoever owes twice the credit limit of 500 cents:

    tokens 1,000 -> 120    nothing is reached
    tokens 120 -> 40       consumed:90 is reached (100 are left) and below:50 too: two notifications
    tokens 40 -> 30        nothing: both were reached before
    tokens 30 -> 1,030     filled again: 100 % is 1,030 now, and both wait for the next time
    USD -700 -> -1,000     credit:200 is reached: its rule blocks the account

A level is told when a movement passes it, so it is told once, and again only after it was left. Sources: contract 3.8
and 3.9, 6.1 (23 to 25).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from .money import AMOUNT_MAX
from .outcomes import Refusal, invalid

LevelKind = Literal["consumed", "remaining", "below", "credit"]
Action = Literal["notify", "flag", "block"]

PERCENT_MAX: Final = 10_000
"""The highest percentage of a credit limit; of a balance it is 100."""
RULES_MAX: Final = 20
OVER_LIMIT_FLAG: Final = "over_credit_limit"
PAUSED_FLAG: Final = "account_paused"
BLOCKED_FLAG: Final = "credit_blocked"
SUSPENDED_FLAG: Final = "usage_suspended"
SYSTEM_FLAGS: Final = (PAUSED_FLAG, BLOCKED_FLAG, SUSPENDED_FLAG)
"""The flags of pauses: they follow them, and nobody else sets them."""

EVERY_TOPIC: Final = "*"

_BALANCE: Final = (
    *("denomination", "amount", "pending", "available", "previous_amount", "sequence", "transaction_id", "event_id"),
    "metadata",
)
_LEVEL: Final = (
    *("threshold_percentage", "remaining_percentage", "level", "credit_limit_percentage"),
    *("filled", "credit_limit", "owed"),
)
_PAYMENT: Final = (
    *("payment_id", "reason", "status", "method", "amount", "currency", "denomination", "units", "code", "message"),
)
_RETURN: Final = (*_PAYMENT, "refund_id", "refund_amount", "refund_units", "refunded")
_INVOICE: Final = ("invoice_id", "number", "status", "currency", "total", "amount_due", "amount_remaining", "due_at")
_PLAN: Final = (
    *("plan_id", "version", "status", "step_id", "payment_id", "cadence", "scheme", "charge", "credit", "denomination"),
    *("period_start", "period_end"),
)


class Topic(NamedTuple):
    """A kind of fact: what it says, and the names of the fields of its ``data``."""

    what: str
    fields: tuple[str, ...]


TOPICS: Final[Mapping[str, Topic]] = {
    "negative_balance": Topic("Usage has left a balance below zero.", _BALANCE),
    "balance_change": Topic("A balance has moved.", (*_BALANCE, "change", "type", "book")),
    "auto_refill": Topic(
        "A balance was refilled by itself: by date (the first one too), below a threshold, or by its plan.",
        ("denomination", "units", "amount", "currency", "reason", "payment_id", "step_id"),
    ),
    "threshold": Topic("A level of a balance was reached.", (*_BALANCE, *_LEVEL)),
    "pause_balance": Topic("A balance has nothing left.", _BALANCE),
    "credit_limit": Topic("What is owed has reached a level of the credit limit.", (*_BALANCE, *_LEVEL)),
    "payment.succeeded": Topic(
        "A payment has come in; `method` says whether by card, out of band, or from another balance.", _PAYMENT
    ),
    "payment.failed": Topic(
        "A payment was refused, each time; `next_attempt_at` says whether it is tried again.",
        (*_PAYMENT, "next_attempt_at"),
    ),
    "payment.refunded": Topic("Money has gone back; `refunded` is how much of the payment in sum.", _RETURN),
    "payment.disputed": Topic("The bank has taken money back; `refunded` as above.", _RETURN),
    "refill.parked": Topic(
        "A refill has stopped until somebody acts.",
        ("denomination", "code", "payment_id", "units", "amount", "currency"),
    ),
    "invoice.finalized": Topic("An invoice is final.", _INVOICE),
    "invoice.paid": Topic("An invoice is paid, wholly.", _INVOICE),
    "invoice.past_due": Topic(
        "An invoice was not paid in time; steps of the ladder were taken, `dunning_step` of them by now.",
        (*_INVOICE, "dunning_step"),
    ),
    "invoice.voided": Topic("An invoice was taken back.", _INVOICE),
    "plan.started": Topic("An account has begun with a plan.", _PLAN),
    "plan.renewed": Topic("A period of a plan has begun.", _PLAN),
    "plan.changed": Topic(
        "What an account is on has changed: its plan, a version, agreed terms, an amount; not what is only scheduled.",
        (*_PLAN, "previous_plan_id", "previous_version"),
    ),
    "plan.past_due": Topic("A renewal could not be paid.", _PLAN),
    "plan.cancelled": Topic("An account's plan has ended.", _PLAN),
    "flag.changed": Topic(
        "A flag of an account has changed (a flagback).",
        ("name", "type", "enabled", "value", "before", "source", "reason", "denomination"),
    ),
    "account.paused": Topic("An account was paused.", ("by",)),
    "account.resumed": Topic("An account goes on after a pause.", ("by",)),
    "account.credit_blocked": Topic("An account is over its limit and blocked.", ("by",)),
    "account.credit_unblocked": Topic("An account is no longer blocked.", ("by",)),
    "account.usage_suspended": Topic("Events of an account are kept aside from now on.", ("by",)),
    "account.usage_resumed": Topic("Events of an account are billed again.", ("by", "waiting", "queued")),
    "account.capture_suspended": Topic("Automatic captures of an account are skipped from now on.", ("by",)),
    "account.capture_resumed": Topic("Automatic captures of an account are made again.", ("by",)),
    "topup.completed": Topic(
        "A customer has bought units on the page that was asked for.",
        ("denomination", "units", "charge", "currency", "payment_id", "request_id"),
    ),
    "overage.accepted": Topic(
        "A customer has agreed to pay overage on the page that was asked for.",
        ("denomination", "overage_charge_amount", "overage_charge_denomination", "plan_id", "request_id"),
    ),
    "webhook.paused": Topic(
        "A webhook took nothing for days and is paused; what it hears waits for it, for 35 days.",
        ("webhook_id", "url", "failing_since", "waiting"),
    ),
    "webhook.test": Topic("A trial, asked for by the company.", ("webhook_id", "message")),
}
"""Every topic there is."""

OF_BALANCES: Final = frozenset({"negative_balance", "balance_change", "pause_balance", "threshold", "credit_limit"})
"""Topics that a movement of a balance brings up; they may be heard of one denomination only."""
WITH_LEVELS: Final[Mapping[str, tuple[LevelKind, ...]]] = {
    "threshold": ("consumed", "remaining", "below", "credit"),
    "credit_limit": ("credit",),
}


class Level(NamedTuple):
    """A level that a balance can reach.

    ``consumed``: so many percent of what it was last filled to are gone (reached at exactly that). ``remaining``: fewer
    than so many percent are left. ``below``: fewer than so many units are left. ``credit``: what is owed has come to so
    many percent of the credit limit.
    """

    kind: LevelKind
    value: int

    @property
    def spelled(self) -> str:
        """``consumed:90``."""
        return f"{self.kind}:{self.value}"

    @property
    def is_of_credit(self) -> bool:
        """Whether it looks at what is owed."""
        return self.kind == "credit"

    def is_reached(self, amount: int, *, filled: int, limit: int) -> bool:
        """Whether a balance of ``amount`` is at the level; without anything to be a percentage of it never is."""
        match self.kind:
            case "consumed":
                return filled > 0 and amount * 100 <= filled * (100 - self.value)
            case "remaining":
                return filled > 0 and amount * 100 < filled * self.value
            case "below":
                return amount < self.value
            case _:  # credit
                return limit > 0 and -amount * 100 >= limit * self.value


def level_of(text: str) -> Level:
    """A level from its spelling."""
    kind, _, value = text.partition(":")
    return Level(kind, int(value))  # type: ignore[arg-type] # only spelled levels are kept


LEVEL_FIELDS: Final[Mapping[str, LevelKind]] = {
    "threshold_percentage": "consumed",
    "remaining_percentage": "remaining",
    "level": "below",
    "credit_limit_percentage": "credit",
}
"""How each kind of level is named wherever one is asked for or shown (contract 2.6)."""


def level_fields(level: Level | None) -> dict[str, int | None]:
    """A level under the name of its kind; the other names are null."""
    return {
        name: level.value if level is not None and level.kind == kind else None for name, kind in LEVEL_FIELDS.items()
    }


class Rule(NamedTuple):
    """What a company does by itself at a level: tell it, raise the flag ``flag``, or block the account's credit."""

    level: Level
    action: Action = "notify"
    flag: str | None = None
    denomination: str | None = None

    @property
    def is_of_credit(self) -> bool:
        """Whether its level looks at what is owed."""
        return self.level.is_of_credit


USUAL_RULES: Final = (
    Rule(Level("consumed", 90)),
    Rule(Level("credit", 150), "flag", OVER_LIMIT_FLAG),
    Rule(Level("credit", 200), "block"),
)
"""What holds until a company says otherwise (contract 3.8)."""


def rules_of(settings: Mapping[str, Any]) -> tuple[Rule, ...]:
    """A company's rules from its stored settings: a list under ``levels``, else the usual ones."""
    found = settings.get("levels")
    if found is None:
        return USUAL_RULES
    return tuple(Rule(level_of(one["level"]), one["action"], one["flag"], one["denomination"]) for one in found)


def rules_to_settings(rules: Iterable[Rule]) -> list[dict[str, object]]:
    """The inverse of :func:`rules_of`."""
    return [{**rule._asdict(), "level": rule.level.spelled} for rule in rules]


def checked_rules(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Rules that may stand together. Raises Refusal with a path such as ``levels[1].flag``."""
    if len(rules) > RULES_MAX:
        raise invalid("levels", f"at most {RULES_MAX} levels.", "out_of_range")
    for index, rule in enumerate(rules):
        if rule in rules[:index]:
            raise invalid(f"levels[{index}]", "stands there twice.")
        if rule.flag in SYSTEM_FLAGS:
            raise invalid(f"levels[{index}].flag", "is a flag of the system itself.")
        if rule.action != "notify" and not rule.is_of_credit:
            raise invalid(f"levels[{index}].action", "is notify for levels of a balance.")
        if (rule.action == "flag") != (rule.flag is not None):
            raise invalid(f"levels[{index}].flag", "names the flag of the action flag, and of no other.")
    return tuple(rules)


def checked_level(kind: LevelKind, value: int, path: str) -> Level:
    """A level within its bounds. Raises Refusal with the path."""
    most = {"below": AMOUNT_MAX, "credit": PERCENT_MAX}.get(kind, 100)
    if not 1 <= value <= most:
        raise invalid(path, f"takes a whole number from 1 to {most}.", "out_of_range")
    return Level(kind, value)


def checked_topic(name: str) -> str:
    """A topic that there is. Raises Refusal ``not_found``: it stands in the path."""
    if name != EVERY_TOPIC and name not in TOPICS:
        raise Refusal("not_found", f"There is no topic {name[:64]}; /docs/topics lists those that there are.")
    return name


class Watch(NamedTuple):
    """What is listened to, of a company's half or of one account: what nobody hears is not written down.

    ``topics``: of which denominations each is heard (None: of all); the levels of a topic that is heard so are those of
    the company's rules and of plans. ``levels`` are those that are heard by name: topic, denomination or all, level.
    """

    topics: Mapping[str, frozenset[str] | None] = {}
    levels: tuple[tuple[str, str | None, Level], ...] = ()

    @property
    def is_deaf(self) -> bool:
        """Whether nobody listens."""
        return not (self.topics or self.levels)

    def hears(self, topic: str, denomination: str | None = None) -> bool:
        """Whether somebody hears a topic."""
        for name in (topic, EVERY_TOPIC):
            if name in self.topics:
                of = self.topics[name]
                if of is None or denomination in of:
                    return True
        return False


DEAF: Final = Watch()
"""Nobody listens."""


class Listening(NamedTuple):
    """By whose ears the movements of a company's half are judged: its subscriptions, rules and default credit limit."""

    watch: Watch = DEAF
    rules: tuple[Rule, ...] = USUAL_RULES
    default_credit_limit: int = 0


class Heard(NamedTuple):
    """One subscription of a webhook."""

    webhook_id: int
    topic: str
    account_id: int | None
    denomination: str | None
    level: str | None


def watch_of(heard: Iterable[Heard]) -> Watch:
    """What several subscriptions listen to together."""
    topics: dict[str, frozenset[str] | None] = {}
    levels: dict[tuple[str, str | None, Level], None] = {}
    for one in heard:
        if one.level is not None:
            levels[one.topic, one.denomination, level_of(one.level)] = None
            continue
        of = None if one.denomination is None else frozenset({one.denomination})
        known = topics.get(one.topic, frozenset())
        topics[one.topic] = None if of is None or known is None else known | of
    return Watch(topics, tuple(levels))


def wants(
    heard: Heard, *, topic: str, account_id: int | None, denomination: str | None, level: str | None, by_rule: bool
) -> bool:
    """Whether a subscription is for this notification.

    One without a level hears those of the company's rules and of plans; one with a level hears that one.
    """
    if heard.topic not in {topic, EVERY_TOPIC}:
        return False
    if heard.account_id is not None and heard.account_id != account_id:
        return False
    if heard.denomination is not None and heard.denomination != denomination:
        return False
    return heard.level == level or (heard.level is None and by_rule)


class Notification(NamedTuple):
    """One fact to be told. ``data`` is what its topic lists, but for the account's metadata, added when it is sent."""

    account_id: int | None
    topic: str
    data: Mapping[str, object]
    created_at: datetime
    denomination: str | None = None
    level: str | None = None
    by_rule: bool = False
    sequence: int | None = None


class FlagChange(NamedTuple):
    """A change of a flag; before and after are as flags are shown. ``id`` rises with time."""

    id: int
    name: str
    source: str
    actor: str | None
    reason: str
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None


class Told(NamedTuple):
    """What a decision has to say. ``blocks``: whether credit is blocked (or freed) by it; None leaves it."""

    notifications: tuple[Notification, ...] = ()
    flags: tuple[FlagChange, ...] = ()
    blocks: bool | None = None


NOTHING: Final = Told()
