"""Faults on demand: what the Stripe simulator is told to do wrong, to whom, and how often.

The problem, on one example. A test wants the next confirmation to be done and never answered:

    {"kind": "timeout_after_effect", "route": "payment_intents.confirm", "times": 1}

A fault strikes its next ``times`` calls, or each call with a ``probability`` (chance with a ``seed``, so that a run can
be repeated), as long as the call fits everything that the fault names.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from random import Random
from typing import Final, Literal

import msgspec
from msgspec import Struct

FAULTS_MAX: Final = 1000

Kind = Literal[
    "timeout_before_effect",
    "timeout_after_effect",
    "429",
    "lock_timeout",
    "500_before",
    "500_after_effect",
    "slow",
    "processing",
    "decline",
    "refund_pending",
    "forget",
    "duplicate",
    "shuffle",
    "delay",
    "drop",
]
BANK_KINDS: Final = frozenset(("processing", "decline", "refund_pending"))
WEBHOOK_KINDS: Final = frozenset(("duplicate", "shuffle", "delay", "drop"))
_TAKES_CARDS: Final = frozenset(
    ("customers.create", "payment_methods.attach", "setup_intents.create", "setup_intents.confirm")
)


class Fault(Struct, forbid_unknown_fields=True):
    """One thing to do wrong.

    ``path`` is a prefix of the path, or a pattern if it holds a ``*``; ``route`` a name such as ``refunds.create``;
    ``event`` a pattern for the type of an event. ``seconds`` is how long to wait, be slow, delay or stay processing;
    ``code`` why a card is declined, or how a pending refund ends; ``copies`` how often an event is sent. A bank's fault
    strikes when the bank is asked, not before: a decline a charge, unless ``route`` names where cards are taken in.
    """

    kind: Kind
    times: int | None = None
    probability: float | None = None
    seed: int = 0
    path: str | None = None
    route: str | None = None
    method: str | None = None
    key: str | None = None
    event: str | None = None
    seconds: float | None = None
    code: str | None = None
    copies: int = 2
    struck: int = 0


class Faults:
    """The faults that are active."""

    def __init__(self) -> None:
        self._calls: list[Fault] = []
        self._bank: list[Fault] = []
        self._events: list[Fault] = []
        self._chances: dict[int, Random] = {}

    def add(self, fault: Fault) -> None:
        """Make a fault active. Without ``times`` and ``probability`` it strikes once; ``shuffle`` until it is ended."""
        if fault.times is None and fault.probability is None and fault.kind != "shuffle":
            fault.times = 1
        faults = (
            self._events if fault.kind in WEBHOOK_KINDS else self._bank if fault.kind in BANK_KINDS else self._calls
        )
        if len(faults) >= FAULTS_MAX:
            raise ValueError(f"There may be {FAULTS_MAX} faults at a time.")
        self._chances[id_of(fault)] = Random(fault.seed)  # noqa: S311 - chance that can be repeated
        faults.append(fault)

    def clear(self) -> None:
        """End them all."""
        self._calls.clear()
        self._bank.clear()
        self._events.clear()
        self._chances.clear()

    def shown(self) -> list[object]:
        """The active faults, for people."""
        return [msgspec.to_builtins(fault) for fault in (*self._calls, *self._bank, *self._events)]

    def strike_call(self, key: str, method: str, path: str, route: str) -> list[Fault]:
        """The faults that strike a call."""
        if not self._calls:
            return []
        return [
            fault
            for fault in list(self._calls)
            if _concerns(fault, key, method, path, route) and self._strikes(fault, self._calls)
        ]

    def strike_bank(self, kind: str, key: str, method: str, path: str, route: str) -> Fault | None:
        """The fault of a kind that strikes when the bank is asked, if one does."""
        for fault in list(self._bank):
            if fault.kind != kind or not _concerns(fault, key, method, path, route):
                continue
            if fault.route is None and route in _TAKES_CARDS:
                continue
            if self._strikes(fault, self._bank):
                return fault
        return None

    def strike_event(self, account: str, type: str) -> list[Fault]:  # noqa: A002 - Stripe's word
        """The faults that strike the sending of an event."""
        if not self._events:
            return []
        return [
            fault
            for fault in list(self._events)
            if (fault.key is None or fault.key == account)
            and (fault.event is None or fnmatchcase(type, fault.event))
            and self._strikes(fault, self._events)
        ]

    def _strikes(self, fault: Fault, among: list[Fault]) -> bool:
        if fault.probability is not None and self._chances[id_of(fault)].random() >= fault.probability:
            return False
        fault.struck += 1
        if fault.times is not None and fault.struck >= fault.times:
            among.remove(fault)
            self._chances.pop(id_of(fault), None)
        return True


def id_of(fault: Fault) -> int:
    """What tells two faults with the same terms apart."""
    return id(fault)


def _concerns(fault: Fault, key: str, method: str, path: str, route: str) -> bool:
    return (
        (fault.key is None or fault.key == key)
        and (fault.method is None or fault.method.upper() == method)
        and (fault.route is None or fault.route == route)
        and (fault.path is None or _fits(fault.path, path))
    )


def _fits(pattern: str, path: str) -> bool:
    return fnmatchcase(path, pattern) if "*" in pattern else path.startswith(pattern)
