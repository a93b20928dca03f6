"""The book of the Stripe simulator: what every account holds, and the journal that outlives a killed process.

The problem, on one example. An intent is confirmed, and the process is killed right after it answered:

    in memory                                    in the journal, one line, written before the answer
    the intent (succeeded), its charge           both objects as they are now
    two events for the account's endpoints       their ids and types, and which object each is about
    the answer kept for the Idempotency-Key      the key, and that the answer was the intent

Read from the start, the lines make the same book again; a torn last line was never answered and is cut off. Objects are
Stripe's own JSON objects, as plain dictionaries. Nothing here waits, so one request is one step and needs no lock.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from msgspec import Raw, Struct

from tenuto.gateway.simulator_faults import Fault

API_VERSION: Final = "2026-10-28.endive"

ANSWER_SECONDS: Final = 24 * 3600
"""How long an answer is kept for its Idempotency-Key."""
ANSWERS_KEPT_MAX: Final = 500_000
EVENTS_KEPT_MAX: Final = 20_000
PAGE_MAX: Final = 100

Obj = dict[str, Any]
"""One of Stripe's objects."""
encode: Final = msgspec.json.Encoder().encode
_SAME: Final = Raw(b"null")  # in the journal: the bytes are those of an object of the same line

INDEXED: Final[Mapping[str, tuple[str, ...]]] = {
    "payment_method": ("customer",),
    "payment_intent": ("customer",),
    "setup_intent": ("customer", "payment_method"),
    "charge": ("payment_intent", "customer"),
    "refund": ("payment_intent", "charge"),
    "dispute": ("payment_intent", "charge"),
    "tax_id": ("customer",),
}
"""The fields by which each kind can be listed."""


def new_id(prefix: str) -> str:
    """A fresh id in Stripe's manner."""
    return f"{prefix}_{secrets.token_hex(12)}"


class Refusal(Exception):
    """An answer in Stripe's error shape. ``is_stored`` says whether an Idempotency-Key remembers it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 - Stripe's word
        code: str | None = None,
        param: str | None = None,
        is_stored: bool = True,
        **more: object,
    ) -> None:
        self.status, self.is_stored = status, is_stored
        found = {"type": type, "code": code, "message": message, "param": param, **more}
        self.error = {name: value for name, value in found.items() if value is not None}
        super().__init__(message)

    def body(self) -> bytes:
        """The answer's bytes."""
        return encode({"error": self.error})


class Event(Struct):
    """Something that happened to an object, with the object's bytes at that moment."""

    id: str
    type: str
    created: int
    object_id: str
    snapshot: bytes
    request_id: str | None = None
    idempotency_key: str | None = None

    def shown(self, *, is_live: bool) -> Obj:
        """The event as endpoints and readers are given it."""
        return {
            "id": self.id,
            "object": "event",
            "api_version": API_VERSION,
            "created": self.created,
            "data": {"object": Raw(self.snapshot)},
            "livemode": is_live,
            "pending_webhooks": 0,
            "request": {"id": self.request_id, "idempotency_key": self.idempotency_key},
            "type": self.type,
        }


class Answer(Struct):
    """What a request with an Idempotency-Key was answered."""

    fingerprint: str
    status: int
    body: bytes
    at: int


class KeySettings(Struct, omit_defaults=True):
    """What the control route said about an API key."""

    is_revoked: bool = False
    missing_rights: list[str] = []
    requests_per_second: int | None = None
    account: str | None = None


class EventLine(Struct, omit_defaults=True, array_like=True):
    """An event in the journal; without a snapshot it is the object's in the same line."""

    id: str
    type: str
    created: int
    object_id: str
    request_id: str | None = None
    idempotency_key: str | None = None
    snapshot: Raw = _SAME


class AnswerLine(Struct, array_like=True):
    """A stored answer in the journal; its body is an object of the same line where ``object_id`` names one."""

    key: str
    fingerprint: str
    status: int
    object_id: str | None = None
    body: Raw = _SAME


class Line(Struct, omit_defaults=True):
    """One committed change."""

    account: str = ""
    at: int = 0
    objects: list[Raw] = []
    events: list[EventLine] = []
    answer: AnswerLine | None = None
    spent: list[str] = []
    due: list[tuple[float, str, str]] = []
    delivered: tuple[str, str] | None = None
    clock_offset: int | None = None
    key: tuple[str, KeySettings] | None = None


class Account:
    """Everything of one Stripe account."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_live = "_live_" in name
        self.objects: dict[str, Obj] = {}
        self.events: dict[str, Event] = {}
        self.answers: dict[str, Answer] = {}
        self.in_flight: set[str] = set()
        self.spent: set[str] = set()
        self.undelivered: dict[tuple[str, str], None] = {}
        self._places: dict[str, int] = {}
        self._filed: dict[tuple[str, str], str] = {}
        self._lists: dict[tuple[str, str, str], list[str]] = {}

    def put(self, obj: Obj) -> None:
        """Take an object in, or note that it changed."""
        id, kind = obj["id"], obj["object"]
        if id not in self._places:
            self._places[id] = len(self._places)
            self._lists.setdefault((kind, "", ""), []).append(id)
        self.objects[id] = obj
        for field in INDEXED.get(kind, ()):
            value, before = obj.get(field) or "", self._filed.get((id, field), "")
            if value == before:
                continue
            if before:
                self._lists[kind, field, before].remove(id)
            if value:
                insort(self._lists.setdefault((kind, field, value), []), id, key=self._places.__getitem__)
            self._filed[id, field] = value

    def place(self, id: str) -> int | None:
        """When an object was made, as a number that only rises."""
        return self._places.get(id)

    def newest(self, kind: str, field: str = "", value: str = "", *, before: str | None = None) -> Iterator[Obj]:
        """The objects of a kind, newest first, from the one that was made before ``before``."""
        ids = self._lists.get((kind, field, value), [])
        end = bisect_left(ids, self._places[before], key=self._places.__getitem__) if before else len(ids)
        for index in range(end - 1, -1, -1):
            yield self.objects[ids[index]]

    def endpoints(self) -> list[Obj]:
        """The webhook endpoints that are not deleted."""
        return [found for found in self.newest("webhook_endpoint") if not found.get("deleted")]

    def take_event(self, event: Event) -> list[Obj]:
        """Keep an event, and say which endpoints are to hear of it."""
        if len(self.events) >= EVENTS_KEPT_MAX:
            for old in list(islice(self.events, EVENTS_KEPT_MAX // 10)):
                del self.events[old]
        self.events[event.id] = event
        heard = [
            found for found in self.endpoints() if {"*", event.type}.intersection(found.get("enabled_events") or ["*"])
        ]
        for endpoint in heard:
            self.undelivered[event.id, endpoint["id"]] = None
        return heard

    def take_answer(self, key: str, answer: Answer) -> None:
        """Keep an answer; those that are too old go."""
        for old in list(islice(self.answers, 2)):
            if self.answers[old].at <= answer.at - ANSWER_SECONDS or len(self.answers) >= ANSWERS_KEPT_MAX:
                del self.answers[old]
        self.answers.pop(key, None)  # one that is made anew is the youngest
        self.answers[key] = answer


class Change:
    """One request's work on one account: what it touched, and what is to be told of it."""

    def __init__(self, book: Book, account: Account, request_id: str | None = None, key: str | None = None) -> None:
        self.book, self.account, self.now = book, account, book.now()
        self.request_id, self.idempotency_key = request_id, key
        self.touched: dict[str, Obj] = {}
        self.events: list[Event] = []
        self.spent: list[str] = []
        self.due: list[tuple[float, str, str]] = []
        self.ask_bank: Callable[[str], Fault | None] = lambda _kind: None

    def declined(self) -> str | None:
        """Why the bank says no although the card is good, if it was told to."""
        fault = self.ask_bank("decline")
        return None if fault is None else fault.code or "generic_decline"

    def new(self, prefix: str, kind: str, **fields: object) -> Obj:
        """A fresh object of this account; it is in the book once it is kept."""
        start: Obj = {"id": new_id(prefix), "object": kind, "created": self.now, "livemode": self.account.is_live}
        return start | fields

    def keep(self, obj: Obj) -> None:
        """Put an object into the book as it now is."""
        self.touched[obj["id"]] = obj
        self.account.put(obj)

    def emit(self, type: str, obj: Obj) -> None:  # noqa: A002 - Stripe's word
        """Keep an object, and tell that something happened to it."""
        self.keep(obj)
        made = Event(new_id("evt"), type, self.now, obj["id"], encode(obj), self.request_id, self.idempotency_key)
        self.events.append(made)

    def spend(self, id: str) -> None:
        """Note that a payment method or token may not be used again."""
        self.spent.append(id)
        self.account.spent.add(id)

    def finish_at(self, at: float, id: str, outcome: str) -> None:
        """Note what becomes of an object at a moment (infinity: when it is released)."""
        self.due.append((at, id, outcome))

    def find(self, kind: str, id: object, *, param: str = "id", status: int = 404) -> Obj:
        """An object by its id. Raises the Refusal that Stripe has for one that is not there."""
        found = self.account.objects.get(str(id))
        if found is None or found["object"] != kind:
            said = "PaymentMethod" if kind == "payment_method" else kind
            raise Refusal(status, f"No such {said}: '{id}'", code="resource_missing", param=param)
        return found


class Book:
    """All accounts, with the clock they share and the journal behind them."""

    def __init__(self, path: Path | None = None, *, is_synced: bool = False) -> None:
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, KeySettings] = {}
        self.clock_offset = 0
        self.due: list[tuple[float, str, str, str]] = []
        self.on_event: Callable[[Account, Event, Obj], None] = lambda _account, _event, _endpoint: None
        self._is_synced = is_synced
        self._journal: BinaryIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._journal = path.open("ab")
            path.chmod(0o600)  # it holds the secrets of endpoints, and there may be others on this machine
            try:
                fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._replay(path)
            except BlockingIOError as error:
                self.close()
                raise ValueError(f"{path} is the book of another simulator that is running.") from error
            except BaseException:
                self.close()
                raise

    def now(self) -> int:
        """The simulator's own time, in whole seconds as Stripe has it."""
        return int(time.time()) + self.clock_offset

    def account_of(self, key: str) -> Account:
        """The account that a key opens; each key opens its own unless it was told to share."""
        settings = self.keys.get(key)
        name = settings.account if settings is not None and settings.account else key
        found = self.accounts.get(name)
        if found is None:
            found = self.accounts[name] = Account(name)
        return found

    def commit(self, change: Change, answer: tuple[str, Answer] | None = None, answered: str | None = None) -> None:
        """Write what a change did, then let it be known. ``answered`` names the object that is the answer's body."""
        account = change.account
        if change.touched or change.spent or change.due or answer is not None:
            if self._journal is not None:
                self._write(_line_of(change, answer, answered))
            for at, id, outcome in change.due:
                heappush(self.due, (at, account.name, id, outcome))
            if answer is not None:
                for event in change.events:
                    if event.snapshot == answer[1].body:
                        answer[1].body = event.snapshot  # the same bytes need not be kept twice
                account.take_answer(*answer)
        for event in change.events:
            for endpoint in account.take_event(event):
                self.on_event(account, event, endpoint)

    def next_due(self, *, is_released: bool = False) -> tuple[Account, str, str] | None:
        """What is to be finished now, if anything is; with ``is_released``, whatever waits."""
        if self.due and (is_released or self.due[0][0] <= self.now()):
            _, name, id, outcome = heappop(self.due)
            return self.accounts[name], id, outcome
        return None

    def move_clock(self, seconds: int) -> None:
        """Move the simulator's time forward."""
        self.clock_offset += seconds
        self._write(Line(clock_offset=self.clock_offset))

    def set_key(self, key: str, settings: KeySettings) -> None:
        """Note what is to be thought of a key."""
        self.keys[key] = settings
        self._write(Line(key=(key, settings)))

    def note_delivered(self, account: Account, event_id: str, endpoint_id: str) -> None:
        """An endpoint took an event, or was given up on."""
        if account.undelivered.pop((event_id, endpoint_id), 0) is None:
            # Lost in a kill, it costs a second delivery at most, which Stripe makes as well.
            self._write(Line(account=account.name, delivered=(event_id, endpoint_id)), is_flushed=False)

    def close(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _write(self, line: Line, *, is_flushed: bool = True) -> None:
        if self._journal is None:
            return
        self._journal.write(encode(line) + b"\n")
        if is_flushed:
            self._journal.flush()
            if self._is_synced:
                os.fsync(self._journal.fileno())

    def _replay(self, path: Path) -> None:
        """Make the book again from its journal, and cut off a last line that was never finished."""
        decode = msgspec.json.Decoder(Line).decode
        good = 0
        with path.open("r+b") as journal:
            for number, text in enumerate(journal, 1):
                if not text.endswith(b"\n"):
                    break
                try:
                    self._take(decode(text))
                except msgspec.DecodeError as error:
                    raise ValueError(f"{path}: line {number} of the journal cannot be read: {error}") from error
                good += len(text)
            journal.truncate(good)

    def _take(self, line: Line) -> None:
        if line.clock_offset is not None:
            self.clock_offset = line.clock_offset
        if line.key is not None:
            self.keys[line.key[0]] = line.key[1]
        if not line.account:
            return
        account = self.accounts.get(line.account)
        if account is None:
            account = self.accounts[line.account] = Account(line.account)
        snapshots: dict[str, bytes] = {}
        for raw in line.objects:
            obj: Obj = msgspec.json.decode(raw)
            account.put(obj)
            snapshots[obj["id"]] = bytes(raw)
        account.spent.update(line.spent)
        for at, id, outcome in line.due:
            heappush(self.due, (at, account.name, id, outcome))
        if line.answer is not None:
            found = line.answer
            body = bytes(found.body) if found.object_id is None else snapshots[found.object_id]
            account.take_answer(found.key, Answer(found.fingerprint, found.status, body, line.at))
        for event in line.events:
            account.take_event(_event_of(event, snapshots))
        if line.delivered is not None:
            account.undelivered.pop(line.delivered, None)


def _event_of(line: EventLine, snapshots: dict[str, bytes]) -> Event:
    body = bytes(line.snapshot)
    if body == bytes(_SAME):
        body = snapshots[line.object_id]
    return Event(line.id, line.type, line.created, line.object_id, body, line.request_id, line.idempotency_key)


def _line_of(change: Change, answer: tuple[str, Answer] | None, answered: str | None) -> Line:
    """A change as the journal has it: no object's bytes stand in a line twice."""
    last = {id: encode(obj) for id, obj in change.touched.items()}
    events = [
        EventLine(
            event.id,
            event.type,
            event.created,
            event.object_id,
            event.request_id,
            event.idempotency_key,
            _SAME if last.get(event.object_id) == event.snapshot else Raw(event.snapshot),
        )
        for event in change.events
    ]
    line = Line(change.account.name, change.now, [Raw(body) for body in last.values()], events)
    line.spent, line.due = change.spent, [(min(at, 1e18), id, outcome) for at, id, outcome in change.due]
    if answer is not None:
        key, found = answer
        is_same = answered is not None and last.get(answered) == found.body
        line.answer = AnswerLine(
            key, found.fingerprint, found.status, answered if is_same else None, _SAME if is_same else Raw(found.body)
        )
    return line
