"""Events, balances as events see them, transactions: the doors of the hot path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec

from tenuto.core.event import EVENTS_MAX, Decision, Event, GatedEvent, Settlement, State, UsageEvent, as_of
from tenuto.core.identifiers import read_of_account
from tenuto.core.money import Exact, exact
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer
from tenuto.lanes import Overloaded
from tenuto.service.usage import Ending, UsageRequest
from tenuto.store import records

from . import body as bodies
from . import shapes
from .explain import explanation
from .routes import PAGING, Call, Param, Route


class CostOverride(msgspec.Struct, forbid_unknown_fields=True):
    """The older nested spelling of an override."""

    amount: int
    denomination: str


class EventIn(msgspec.Struct, forbid_unknown_fields=True):
    """An event to record. ``key`` makes it safe to send again."""

    type: str
    quantity: int | str = 1
    key: str | None = None
    gate_on_balance: bool = False
    state: str = "complete"
    occurred_at: str | None = None
    metadata: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    cost_override_amount: int | None = None
    cost_override_denomination: str | None = None
    cost_override: CostOverride | None = None
    cogs: int | None = None
    cogs_amount: int | None = None
    cogs_denomination: str | None = None
    parent_event_id: str | None = None
    tag: str = "usage"
    dry_run: bool = False


class CloudEvent(msgspec.Struct):
    """A CloudEvents 1.0 envelope; ``id`` is the key, ``data`` holds the fields of an event or is its metadata."""

    specversion: str
    id: str
    type: str
    source: str
    time: str | None = None
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class SettlementIn(msgspec.Struct, forbid_unknown_fields=True):
    """How a pending event ends."""

    state: str
    quantity: int | str | None = None
    cost_override_amount: int | None = None


_STATES: Final[dict[str, State]] = {
    "complete": "complete",
    "completed": "complete",
    "pending": "pending",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
_DATA_FIELDS: Final = frozenset(EventIn.__struct_fields__) - {"type", "key"}
_PLAIN: Final = b"application/json"
_ONE: Final = Exact(1, 1)


async def record_events(call: Call) -> Answer:
    """One event or a list of them, recorded, priced, and answered with the balance right after."""
    account_id = call.id("a", "account_id")
    given, trees, is_list = _events_in(call)
    events = [read_event(event, tree, account_id, path) for event, tree, path in _placed(given, trees, is_list=is_list)]
    dry_runs = {event.dry_run for event in given}
    if len(dry_runs) > 1:
        raise invalid("dry_run", "is the same for all events of a list.")
    request = UsageRequest(
        environment=call.environment,
        key_id=call.caller.key_id,
        account_id=account_id,
        request_id=call.request_id,
        render=_renderer(is_list=is_list, dry_run=dry_runs.pop()),
        events=events,
        once=call.idempotency(),
        dry_run=given[0].dry_run,
    )
    try:
        return await submitted(call, account_id, request)
    except Refusal as refusal:
        path = refusal.details.get("path")
        if not is_list and isinstance(path, str) and path.startswith("events[0]."):
            refusal.details["path"] = path.removeprefix("events[0].")
        raise


async def submitted(call: Call, account_id: int, request: UsageRequest) -> Answer:
    """The answer of the account's lane. Raises Refusal ``overloaded`` when too much waits."""
    try:
        return await call.engine.lanes.submit(account_id, request)  # type: ignore[no-any-return]
    except Overloaded as error:
        raise Refusal("overloaded") from error


def _events_in(call: Call) -> tuple[list[EventIn], list[Any], bool]:
    """The events of a body: ours or CloudEvents, one or a list, with the plain values of each."""
    kind = call.headers.get(b"content-type", _PLAIN).partition(b";")[0].strip().lower()
    if kind.startswith(b"application/cloudevents"):
        return _cloud_events(call.body, is_batch=kind == b"application/cloudevents-batch+json")
    if call.body.lstrip()[:1] == b"[":
        found, trees = bodies.decode(call.body, list[EventIn])
        if not 1 <= len(found) <= EVENTS_MAX:
            raise Refusal("invalid_field", f"A list holds 1 to {EVENTS_MAX} events; split a longer one.")
        return found, trees, True
    event, tree = bodies.decode(call.body, EventIn)
    return [event], [tree], False


def _cloud_events(body: bytes, *, is_batch: bool) -> tuple[list[EventIn], list[Any], bool]:
    if is_batch:
        envelopes, trees = bodies.decode(body, list[CloudEvent])
        if not 1 <= len(envelopes) <= EVENTS_MAX:
            raise Refusal("invalid_field", f"A batch holds 1 to {EVENTS_MAX} events; split a longer one.")
    else:
        envelope, tree = bodies.decode(body, CloudEvent)
        envelopes, trees = [envelope], [tree]
    events: list[EventIn] = []
    values: list[Any] = []
    for index, (envelope, tree) in enumerate(zip(envelopes, trees, strict=True)):
        if envelope.specversion != "1.0":
            raise invalid(f"events[{index}].specversion", "is 1.0.")
        event, data = _of_data(envelope, tree.get("data"), f"events[{index}].data")
        event.type, event.key = envelope.type, envelope.id
        event.occurred_at = event.occurred_at or envelope.time
        events.append(event)
        values.append({"metadata": data})
    return events, values, is_batch


def _of_data(envelope: CloudEvent, tree: Any, path: str) -> tuple[EventIn, Any]:
    """An envelope's data: its members that are fields of an event count as such; with others, all of it is metadata.

    ``state`` and ``tag`` are words with other meanings too: they count where they hold a value of ours (decision 0013).
    """
    if not isinstance(tree, dict):
        return EventIn(type="-", metadata=envelope.data), tree
    members = msgspec.json.decode(envelope.data, type=dict[str, msgspec.Raw])
    taken = {name: raw for name, raw in members.items() if name in _DATA_FIELDS}
    for name, allowed in (("state", _STATES), ("tag", records.TAGS)):
        if name in taken and tree[name] not in allowed:
            del taken[name]
    is_whole = len(taken) < len(members)
    if is_whole:
        taken.pop("metadata", None)
    pieces = b",".join(msgspec.json.encode(name) + b":" + bytes(raw) for name, raw in taken.items())
    try:
        event = msgspec.json.decode(b'{"type":"-"' + (b"," + pieces if pieces else b"") + b"}", type=EventIn)
    except msgspec.ValidationError as error:
        raise invalid(path, f"{error}.".replace("`", "")) from error
    if not is_whole:
        return event, tree.get("metadata")
    event.metadata = envelope.data
    return event, tree


def _placed(events: Sequence[EventIn], trees: Sequence[Any], *, is_list: bool) -> list[tuple[EventIn, Any, str]]:
    if not is_list:
        return [(events[0], trees[0], "")]
    return [(event, tree, f"events[{index}].") for index, (event, tree) in enumerate(zip(events, trees, strict=True))]


def read_event(event: EventIn, tree: Any, account_id: int, path: str) -> UsageEvent:
    """An event as the core takes it. ``tree`` is its body as plain values; ``path`` stands before field names."""
    kind = bodies.event_type(event.type, f"{path}type")
    if event.quantity == 1 and event.quantity is not True:
        quantity_text, quantity = "1", _ONE
    else:
        quantity_text = bodies.quantity(event.quantity, f"{path}quantity")
        quantity = Exact(event.quantity, 1) if isinstance(event.quantity, int) else exact(quantity_text)
    state = _STATES.get(event.state)
    if state is None:
        raise invalid(f"{path}state", "is one of complete, pending, cancelled.")
    if event.tag not in records.TAGS:
        raise invalid(f"{path}tag", "is one of usage, revenue, payout.")
    key = event.key
    if key is not None:
        bodies.token(key, f"{path}key", bodies.KEY_MAX, spaces=True)
    override = _override(event, path)
    occurred_at = None if event.occurred_at is None else bodies.moment(event.occurred_at, f"{path}occurred_at")
    cogs = _cogs(event, path)
    parent = _parent(event.parent_event_id, account_id, f"{path}parent_event_id")
    metadata = bodies.metadata(event.metadata, f"{path}metadata") if event.metadata else None
    found = tree.get("metadata") if metadata is not None else None
    digest, fingerprint = None, 0
    if key is not None:
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        free = "" if found is None else msgspec.json.encode(found, order="sorted").decode()
        gate, tag = event.gate_on_balance, event.tag
        body = f"{kind}\n{quantity_text}\n{state}\n{gate}\n{override}\n{tag}\n{occurred_at}\n{cogs}\n{parent}\n{free}"
        seal = hashlib.blake2b(body.encode(), digest_size=8).digest()
        fingerprint = int.from_bytes(seal, "big", signed=True)
    return UsageEvent(
        kind,
        quantity,
        quantity_text,
        state,
        event.gate_on_balance,
        key,
        digest,
        fingerprint,
        override,
        found if isinstance(found, dict) else {},
        metadata,
        event.tag,
        occurred_at,
        None if cogs is None else cogs[0],
        None if cogs is None else cogs[1],
        parent,
    )


def _override(event: EventIn, path: str) -> tuple[int, str] | None:
    """The forced cost: flat fields, or the older nested one; both parts or none (contract 6.1, 8 to 10)."""
    amount, denomination = event.cost_override_amount, event.cost_override_denomination
    if event.cost_override is not None:
        if amount is not None or denomination is not None:
            raise invalid(f"{path}cost_override", "repeats cost_override_amount; send one of them.")
        amount, denomination = event.cost_override.amount, event.cost_override.denomination
    if amount is None and denomination is None:
        return None
    if amount is None or denomination is None:
        missing = "cost_override_amount" if amount is None else "cost_override_denomination"
        raise invalid(f"{path}{missing}", "amount and denomination of an override go together.", "missing_field")
    bodies.whole(amount, f"{path}cost_override_amount")
    return amount, bodies.token(denomination, f"{path}cost_override_denomination", bodies.DENOMINATION_MAX)


def _cogs(event: EventIn, path: str) -> tuple[int, str] | None:
    amount = event.cogs_amount if event.cogs is None else event.cogs
    if amount is None:
        if event.cogs_denomination is not None:
            raise invalid(f"{path}cogs_amount", "goes with cogs_denomination.", "missing_field")
        return None
    if event.cogs is not None and event.cogs_amount is not None:
        raise invalid(f"{path}cogs", "repeats cogs_amount; send one of them.")
    bodies.whole(amount, f"{path}cogs_amount")
    denomination = event.cogs_denomination or "USD"
    return amount, bodies.token(denomination, f"{path}cogs_denomination", bodies.DENOMINATION_MAX)


def _parent(parent: str | None, account_id: int, path: str) -> int | None:
    if parent is None:
        return None
    found = read_of_account("e", parent)
    if found is None or found[0] != account_id:
        raise invalid(path, "is the id of an event of the same account.")
    return found[1]


def _renderer(*, is_list: bool, dry_run: bool) -> Callable[[Decision], Answer]:
    """How a decision about events becomes an answer: accepted, or refused by the gate."""

    def render(decision: Decision) -> Answer:
        if decision.is_refused:
            refused = [(i, answer) for i, answer in enumerate(decision.answers) if isinstance(answer, GatedEvent)]
            return Answer(402, refusal_body(refused, is_list=is_list), decision.is_replay)
        writer = shapes.EventWriter()
        is_dry = dry_run and not decision.is_replay
        events = [writer.event(answer, dry_run=is_dry) for answer in decision.answers if isinstance(answer, Event)]
        data = b'{"data":' + shapes.encode(events if is_list else events[0])
        return Answer(200, data + b',"events_submitted":%d}' % len(events), decision.is_replay)

    return render


def refusal_body(refused: Sequence[tuple[int, GatedEvent]], *, is_list: bool) -> bytes:
    """The body of a 402: the first refusal, and for a list which events were refused and why."""
    _, first = refused[0]
    refusal = Refusal(first.code)
    refusal.details.update(first.details)
    if is_list:
        refusal.details["refused"] = [
            {"index": index, "key": gated.event.key, "code": gated.code, **gated.details} for index, gated in refused
        ]
    short = first.details
    if "denomination" in short:
        refusal.message = (
            f"{short['required']} {short['denomination']} are needed and {short['available']} are available"
            f" ({short['pending']} held); {short['shortfall']} are missing. Add to the balance, then send it with a"
            " new key."
        )
    return error_body(refusal, first.request_id)


def error_body(refusal: Refusal, request_id: str) -> bytes:
    """The one shape of every error (design 4)."""
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.details:
        error["details"] = refusal.details
    error["request_id"] = request_id
    error["doc_url"] = f"/docs/errors#{refusal.code}"
    return shapes.encode({"error": error})


def _render_ended(decision: Decision) -> Answer:
    ended = decision.answers[0]
    assert isinstance(ended, Event)
    return Answer(200, shapes.wrapped(shapes.EventWriter().event(ended)))


async def finish_event(call: Call) -> Answer:
    """End a pending event: complete, for all or less than it holds, or cancelled."""
    account_id, event_id = call.event_id()
    bodies.parse(call.body)
    try:
        settlement = _settlement(call)
    except Refusal as problem:
        settlement = Settlement("cancelled", problem=problem)
    return await _end(call, account_id, Ending(event_id, settlement))


def _settlement(call: Call) -> Settlement:
    given = call.decoded(SettlementIn)
    state = _STATES.get(given.state)
    if state is None or state == "pending":
        raise invalid("state", "is complete or cancelled.")
    if state == "cancelled" and (given.quantity is not None or given.cost_override_amount is not None):
        raise invalid("quantity", "belongs to a settlement; a cancelled event costs nothing.")
    if given.quantity is not None and given.cost_override_amount is not None:
        raise invalid("cost_override_amount", "replaces the quantity; send one of them.")
    if given.cost_override_amount is not None:
        bodies.whole(given.cost_override_amount, "cost_override_amount")
    if given.quantity is None:
        return Settlement(state, override=given.cost_override_amount)
    text = bodies.quantity(given.quantity, "quantity")
    return Settlement(state, quantity=exact(text), quantity_text=text)


async def delete_event(call: Call) -> Answer:
    """Take an event back: a hold is let go, a charge is reversed."""
    account_id, event_id = call.event_id()
    return await _end(call, account_id, Ending(event_id, None))


async def _end(call: Call, account_id: int, ending: Ending) -> Answer:
    request = UsageRequest(
        environment=call.environment,
        key_id=call.caller.key_id,
        account_id=account_id,
        request_id=call.request_id,
        render=_render_ended,
        ending=ending,
        once=call.idempotency(),
    )
    answer = await submitted(call, account_id, request)
    await call.tell_by_hand(answer)
    return answer


async def get_event(call: Call) -> Answer:
    """One event, as it stands now."""
    event = await _event(call)
    return Answer(200, shapes.wrapped(shapes.EventWriter().event(event)))


async def _event(call: Call) -> Event:
    account_id, event_id = call.event_id()
    async with call.engine.database.reading() as reader:
        event = await records.read_event(reader, call.environment.id, account_id, event_id)
    if event is None:
        raise Refusal("not_found")
    return as_of(event, call.engine.now_of(call.environment))


async def list_account_events(call: Call) -> Answer:
    """Billed, pending, cancelled and unpriced events of an account, newest first."""
    return await _events(call, call.whose(await call.account()))


async def list_company_events(call: Call) -> Answer:
    """The same of all accounts of the company."""
    call.company()
    filters = call.filters()
    accounts = {filters[name] for name in ("account_id", "parent_account_id") if name in filters}
    whose = await _narrowed(call, accounts)
    if whose is None:
        return Answer(200, shapes.listed([], None))
    return await _events(call, whose)


async def _narrowed(call: Call, accounts: AbstractSet[object]) -> records.Whose | None:
    """The company's records, or those of the one account that its filters name; None where they can name none."""
    whose = call.whose(None)
    if len(accounts) > 1:
        return None
    for account_id in map(int, map(str, accounts)):
        whose = whose._replace(account_id=account_id)
        async with call.engine.database.reading() as reader:
            if not await records.owns_account(reader, call.environment.id, account_id):
                return None
    return whose


async def _events(call: Call, whose: records.Whose) -> Answer:
    now, filters = call.engine.now_of(call.environment), call.filters()
    if filters.get("parent_account_id", whose.account_id) != whose.account_id:
        return Answer(200, shapes.listed([], None))
    async with call.engine.database.reading() as reader:
        found = await records.list_events(reader, whose, call.page(), filters, now)
    writer = shapes.EventWriter()
    return page_of(call, found, lambda event: (event.id, event.account_id), writer.event)


async def list_account_gated(call: Call) -> Answer:
    """Events of an account that the gate refused, newest first."""
    return await _gated(call, call.whose(await call.account()))


async def list_company_gated(call: Call) -> Answer:
    """The same of all accounts of the company."""
    call.company()
    return await _gated(call, call.whose(None))


async def _gated(call: Call, whose: records.Whose) -> Answer:
    async with call.engine.database.reading() as reader:
        found = await records.list_gated(reader, whose, call.page(), call.filters())
    return page_of(call, found, lambda gated: (gated.id, gated.account_id), shapes.gated_event)


async def list_account_transactions(call: Call) -> Answer:
    """The ledger of an account, newest first."""
    return await _transactions(call, call.whose(await call.account()))


async def list_company_transactions(call: Call) -> Answer:
    """The ledger of all accounts of the company, newest first."""
    call.company()
    filters = call.filters()
    accounts = {filters["account_id"]} if "account_id" in filters else set()
    cause = filters.get("cause_id")
    whose = await _narrowed(call, {*accounts, cause[0]} if isinstance(cause, tuple) else accounts)
    if whose is None:
        return Answer(200, shapes.listed([], None))
    return await _transactions(call, whose)


async def _transactions(call: Call, whose: records.Whose) -> Answer:
    filters = call.filters()
    cause = filters.get("cause_id")
    if isinstance(cause, tuple):
        # The id of a cause names its account too; only that account's movements can be meant.
        if cause[0] != whose.account_id:
            return Answer(200, shapes.listed([], None))
        filters["cause_id"] = cause[1]
    async with call.engine.database.reading() as reader:
        found = await records.list_transactions(reader, whose, call.page(), filters)
    return page_of(call, found, lambda row: (row["id"], row["account_id"]), shapes.transaction)


async def get_transaction(call: Call) -> Answer:
    """One movement of one balance."""
    account_id, transaction_id = call.id_of_account("t", "transaction_id")
    async with call.engine.database.reading() as reader:
        found = await records.find_transaction(reader, call.environment.id, account_id, transaction_id)
    if found is None:
        raise Refusal("not_found")
    return Answer(200, shapes.wrapped(shapes.transaction(found)))


def page_of(
    call: Call, found: Sequence[Any], position: Callable[[Any], tuple[int, ...]], shape: Callable[[Any], Any]
) -> Answer:
    """A page of a list: one row more than the limit was read to know whether there are more."""
    limit = call.limit()
    rows = found[:limit]
    cursor = call.cursor(position(rows[-1])) if len(found) > limit else None
    return Answer(200, shapes.listed([shape(row) for row in rows], cursor))


async def get_balance(call: Call) -> Answer:
    """One balance, now. Reads and proves the caller in one round trip."""
    account_id, denomination = call.id("a", "account_id"), call.denomination()
    environment = call.environment
    now = call.engine.now_of(environment)
    async with call.engine.database.reading() as reader:
        is_current, found = await records.read_balance(
            reader, environment.id, environment.revision, account_id, denomination, now
        )
    if not is_current:
        caller = await call.callers.proven(call.headers.get(b"authorization"))
        caller.needs("balances:read")
        call.become(caller)
        return await get_balance(call)
    if found is None:
        raise Refusal("not_found")
    return Answer(200, shapes.wrapped(shapes.balance(found)))


async def explain_event(call: Call) -> Answer:
    """Why an event cost what it did: price version, lines, residue before and after, transaction."""
    return Answer(200, shapes.wrapped(await explanation(call, await _event(call))))


_EVENT_FILTERS: Final = (
    *PAGING,
    Param("type", "text", "Only events of this type."),
    Param("state", "complete|pending|cancelled|suspended", "Only events in this state."),
    Param("gated", "boolean", "Only events that did, or did not, ask for the gate."),
    Param("key", "text", "Only the event with this key."),
    Param("tag", "usage|revenue|payout", "Only events with this tag."),
    Param("denomination", "text", "Only events that cost something in this denomination."),
    Param("parent_event_id", "event_id", "Only events linked to this one."),
    Param("from", "moment", "Only events that occurred at or after this time."),
    Param("to", "moment", "Only events that occurred before this time."),
    Param("recorded_from", "moment", "Only events recorded at or after this time."),
    Param("recorded_to", "moment", "Only events recorded before this time."),
)
_GATED_FILTERS: Final = (
    *PAGING,
    Param("type", "text", "Only events of this type."),
    Param("code", "text", "Only refusals with this code."),
    Param("key", "text", "Only the event with this key."),
    Param("from", "moment", "Only events that occurred at or after this time."),
    Param("to", "moment", "Only events that occurred before this time."),
)
_TRANSACTION_FILTERS: Final = (
    *PAGING,
    Param("denomination", "text", "Only movements of this balance."),
    Param("type", "text", "Only movements of this type."),
    Param("book", "text", "Only movements against this book."),
    Param("cause_id", "cause_id", "Only what this payment, refund, invoice, credit note, plan step or grant moved."),
    Param("from", "moment", "Only movements recorded at or after this time."),
    Param("to", "moment", "Only movements recorded before this time."),
)
_GATE: Final = ("insufficient_balance", "credit_limit_reached", "spend_cap_reached")

ROUTES: Final = (
    Route(
        "POST",
        "/accounts/{account_id}/events",
        record_events,
        "Record events",
        "Events",
        shapes.EventOut,
        scope="events:write",
        body=EventIn | list[EventIn],
        refusals=(*_GATE, "key_reused", "in_future", "too_late", "overloaded"),
        example={"type": "CHAT", "quantity": 2, "gate_on_balance": True, "key": "chat-1"},
        details="One event or a list of up to 1,000, priced, moved and committed before the answer. A list is all or"
        " nothing for the gate. CloudEvents 1.0 are taken in the structured and the batched mode.",
    ),
    Route(
        "GET",
        "/accounts/{account_id}/events",
        list_account_events,
        "List an account's events",
        "Events",
        shapes.EventOut,
        scope="events:read",
        query=_EVENT_FILTERS,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/companies/{company_id}/events",
        list_company_events,
        "List the company's events",
        "Events",
        shapes.EventOut,
        scope="events:read",
        query=(*_EVENT_FILTERS, Param("account_id", "account_id", "Only events of this account.")),
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/accounts/{account_id}/gated_events",
        list_account_gated,
        "List an account's refused events",
        "Events",
        shapes.GatedEventOut,
        scope="events:read",
        query=_GATED_FILTERS,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/companies/{company_id}/gated_events",
        list_company_gated,
        "List the company's refused events",
        "Events",
        shapes.GatedEventOut,
        scope="events:read",
        query=_GATED_FILTERS,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/events/{event_id}",
        get_event,
        "Get an event",
        "Events",
        shapes.EventOut,
        scope="events:read",
    ),
    Route(
        "PUT",
        "/events/{event_id}",
        finish_event,
        "Settle or cancel a pending event",
        "Events",
        shapes.EventOut,
        scope="events:write",
        body=SettlementIn,
        refusals=("event_finished", "event_expired", "exceeds_reserved", "key_reused", "overloaded"),
        example={"state": "complete", "quantity": 1},
    ),
    Route(
        "DELETE",
        "/events/{event_id}",
        delete_event,
        "Take an event back",
        "Events",
        shapes.EventOut,
        scope="events:write",
        refusals=("event_finished", "event_expired", "overloaded"),
    ),
    Route(
        "GET",
        "/events/{event_id}/explain",
        explain_event,
        "Explain an event's cost",
        "Events",
        shapes.ExplanationOut,
        scope="events:read",
    ),
    Route(
        "GET",
        "/accounts/{account_id}/balance/{denomination}",
        get_balance,
        "Get a balance",
        "Balances",
        shapes.BalanceOut,
        scope="balances:read",
    ),
    Route(
        "GET",
        "/accounts/{account_id}/transactions",
        list_account_transactions,
        "List an account's transactions",
        "Transactions",
        shapes.TransactionOut,
        scope="balances:read",
        query=_TRANSACTION_FILTERS,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/companies/{company_id}/transactions",
        list_company_transactions,
        "List the company's transactions",
        "Transactions",
        shapes.TransactionOut,
        scope="balances:read",
        query=(*_TRANSACTION_FILTERS, Param("account_id", "account_id", "Only movements of this account.")),
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/transactions/{transaction_id}",
        get_transaction,
        "Get a transaction",
        "Transactions",
        shapes.TransactionOut,
        scope="balances:read",
    ),
)
