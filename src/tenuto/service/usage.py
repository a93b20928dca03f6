"""The desk of the hot path: usage recorded, holds ended, events taken back, through lanes.

A lane remembers the states of the accounts it served. A remembered state costs no reading and needs no trust: the save
proves, under the account's row lock, that the account's tick is still the one the decision was made on. If it is not,
nothing was written, and the batch is read again under the lock, keys included, and decided anew (decision 0002).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
import structlog

from tenuto import metrics
from tenuto.core.event import AccountState, Decision, Event, GatedEvent, Settlement, UsageEvent
from tenuto.core.outcomes import Refusal
from tenuto.core.usage import Queued, bill_events, expire_event, finish_event, replay_events, void_event
from tenuto.engine import Answer, Engine, Once
from tenuto.lanes import Again, Lane, Lanes, Lost
from tenuto.store import accounts, ledger, pauses, records, subscriptions
from tenuto.store.accounts import Environment
from tenuto.store.answers import StoredAnswer, find_answers
from tenuto.store.database import AccountMovedOn, EnvironmentMovedOn, KeyIsKnown, Unavailable, Unit, translated
from tenuto.store.pauses import Replaying

WAITING_MAX: Final = 20_000
"""Events that may wait in a lane; past it a request is answered 503."""
BATCH_MAX: Final = 4_000
"""Events a lane takes at once."""
REMEMBERED_MAX: Final = 20_000
"""Account states a worker remembers."""
TIDIED_MAX: Final = 1000
"""Holds past their hour that a lane tidies for one account before it decides; the sweep does the rest."""
REPLAYED_MAX: Final = 250
"""Events that were kept aside which a lane takes up for one account at once."""
REPLAYED_AT_ONCE: Final = 8
"""Accounts whose events a worker takes up at once."""
RECOVER_SECONDS: Final = 3.0
CLOSE_SECONDS: Final = 2.0
SURE_TURNS: Final = 32
PAYMENT_REQUIRED: Final = 402

_log = structlog.get_logger()


class Ending(NamedTuple):
    """The end of one event: a settlement, or None for taking it back."""

    event_id: int
    settlement: Settlement | None


class Replay(NamedTuple):
    """Events that were kept aside, to be billed one by one, in order, or to be voided."""

    event_ids: Sequence[int]
    is_void: bool = False


@dataclass(frozen=True, slots=True)
class UsageRequest:
    """One request for a lane: events to record, an event to end, events to replay.

    With nothing of these it only tidies the account's holds.

    ``render`` turns the decision into the answer before anything is committed, so that an answer that cannot be
    written can never hide an effect. ``key_id`` is the API key that asked; it is proven with the write.
    """

    environment: Environment
    key_id: int | None
    account_id: int
    request_id: str
    render: Callable[[Decision], Answer]
    events: Sequence[UsageEvent] = ()
    ending: Ending | None = None
    replay: Replay | None = None
    once: Once | None = None
    dry_run: bool = False

    @property
    def event_ids(self) -> Sequence[int]:
        """The stored events that it is about."""
        if self.replay is not None:
            return self.replay.event_ids
        return () if self.ending is None else (self.ending.event_id,)


def open_lanes(engine: Engine) -> Lanes[UsageRequest, Answer]:
    """The lanes of a worker; :meth:`Lanes.start` starts them."""
    count = max(1, engine.settings.lanes)
    # Beside other workers most of what one remembers is out of date by the next batch, and finding that out costs more
    # than reading does.
    remembered = REMEMBERED_MAX // count if engine.settings.workers <= 1 else 0
    return Lanes(
        [
            Lane(
                UsageWork(engine, remembered),
                weigh=_weight,
                waiting_max=WAITING_MAX // count,
                batch_max=BATCH_MAX // count,
            )
            for _ in range(count)
        ]
    )


def _weight(request: UsageRequest) -> int:
    return len(request.events) or len(request.event_ids) or 1


class _Remembered:
    """An account as a lane left it, with the holds it has open that this lane has seen."""

    __slots__ = ("holds", "state")

    def __init__(self, state: AccountState, holds: dict[int, Event]) -> None:
        self.state, self.holds = state, holds


class _Batch:
    """What a batch is decided on."""

    def __init__(self, environments: dict[int, Environment], now: datetime, tick: int) -> None:
        self.environments, self.real_now, self.tick = environments, now, tick
        self.now = {id: now + environment.clock_offset for id, environment in environments.items()}
        self.accounts: dict[int, _Remembered] = {}
        self.knows_keys = False
        self.lapsed: list[Event] = []
        self.tidied: dict[int, int] = {}
        self.unfinished: set[int] = set()
        self.known: dict[int, dict[bytes, Event | GatedEvent]] = {}
        self.events: dict[tuple[int, int], Event] = {}
        self.answers: dict[tuple[int, str], StoredAnswer] = {}


class UsageWork:
    """Load, decide and save for one lane, with the connection it owns."""

    def __init__(self, engine: Engine, remembered_max: int) -> None:
        self._engine = engine
        self._unit: Unit | None = None
        self._remembered: dict[int, _Remembered] = {}
        # Accounts that are sent what they had before, or that others write to: there the sure way is the quick one,
        # for so many turns.
        self._sure: dict[int, int] = {}
        self._remembered_max = remembered_max
        self._is_refill_due = False

    async def recover(self) -> None:
        """A new connection; what was remembered is forgotten, for nobody knows what became of the last batch."""
        self._remembered.clear()
        if self._unit is not None:
            self._unit.terminate()
            self._unit = None
        try:
            self._unit = await self._engine.database.lane_connection(RECOVER_SECONDS)
        except Unavailable as error:
            raise Lost(str(error)) from error

    async def close(self) -> None:
        """Let go of the connection."""
        if self._unit is not None:
            await self._unit.close(timeout=CLOSE_SECONDS)

    async def turn(self, requests: Sequence[UsageRequest], *, again: int) -> Sequence[Answer | BaseException]:
        """One batch. Optimistic at first; once something had changed, everything is read under the lock."""
        if self._unit is None or self._unit.is_closed():
            await self.recover()
        assert self._unit is not None
        started = time.perf_counter()
        try:
            async with translated():
                is_sure = again or any(request.account_id in self._sure for request in requests)
                turn = self._locked if is_sure else self._optimistic
                answers = await turn(self._unit, requests)
        except BaseException as error:
            # What a lane remembers was carried on before the save; without the save it is not true.
            for request in requests:
                self._remembered.pop(request.account_id, None)
                if isinstance(error, AccountMovedOn | KeyIsKnown):
                    self._sure[request.account_id] = SURE_TURNS
            if isinstance(error, AccountMovedOn | EnvironmentMovedOn | KeyIsKnown):
                metrics.STALE.inc()
                raise Again from error
            if isinstance(error, Unavailable):
                raise Lost(str(error)) from error
            raise
        if self._is_refill_due:
            # Said only now, when what was saved can be seen by others.
            self._engine.nudge("refill_due")
        if self._sure:
            self._wear_off(requests, answers)
        _account_for(requests, answers, time.perf_counter() - started)
        return answers

    def _wear_off(self, requests: Sequence[UsageRequest], answers: Sequence[Answer | BaseException]) -> None:
        """Count down what has to be done the sure way; an answer that was a replay starts anew."""
        for request, answer in zip(requests, answers, strict=True):
            left = self._sure.get(request.account_id)
            if left is None:
                continue
            if isinstance(answer, Answer) and answer.is_replay:
                self._sure[request.account_id] = SURE_TURNS
            elif left > 1:
                self._sure[request.account_id] = left - 1
            else:
                del self._sure[request.account_id]

    async def _optimistic(self, unit: Unit, requests: Sequence[UsageRequest]) -> Sequence[Answer | BaseException]:
        batch = self._begin({request.environment.id: request.environment for request in requests})
        missing: dict[int, datetime] = {}
        wanted: list[tuple[int, int]] = []
        for request in requests:
            account_id, now = request.account_id, batch.now[request.environment.id]
            found = self._remembered.get(account_id)
            if found is not None and found.state.expires_at is not None and found.state.expires_at <= now:
                found = None
            if found is None:
                missing[account_id] = now
            else:
                batch.accounts[account_id] = found
            wanted += [(account_id, id) for id in request.event_ids if found is None or id not in found.holds]
        if missing:
            await self._load(unit, missing, batch)
        batch.events = await records.load_events(unit, wanted)
        return await self._decide_and_save(unit, requests, batch)

    async def _locked(self, unit: Unit, requests: Sequence[UsageRequest]) -> Sequence[Answer | BaseException]:
        """The sure way: lock the accounts, then read all that could matter, decide, save, in one unit."""
        async with unit.transaction():
            accounts = {request.account_id: request for request in requests}
            await ledger.lock_accounts(unit, accounts)
            environments = {id: await self._environment(id) for id in {request.environment.id for request in requests}}
            batch = self._begin(environments)
            asked = {id: batch.now[request.environment.id] for id, request in accounts.items()}
            await self._load(unit, asked, batch)
            keys: dict[int, list[bytes]] = {}
            for request in requests:
                digests = [event.key_digest for event in request.events if event.key_digest is not None]
                keys.setdefault(request.account_id, []).extend(digests)
            batch.known = await records.load_known(unit, keys)
            batch.knows_keys = True
            wanted = [(request.account_id, id) for request in requests for id in request.event_ids]
            batch.events = await records.load_events(unit, wanted)
            onces = [(r.environment.id, r.once.key) for r in requests if r.once is not None]
            batch.answers = await find_answers(unit, onces)
            return await self._decide_and_save(unit, requests, batch)

    async def _load(self, unit: Unit, asked: Mapping[int, datetime], batch: _Batch) -> None:
        """Read accounts into a batch, with those of their holds that must be tidied before anything is decided."""
        loaded = await ledger.load_states(unit, asked)
        if loaded.expiring:
            loaded = await self._without_expired(unit, asked, loaded.expiring)
        for account_id, state in loaded.states.items():
            batch.accounts[account_id] = _Remembered(state, {})
        if loaded.lapsing:
            due = {account_id: asked[account_id] for account_id in loaded.lapsing}
            batch.lapsed = await records.load_lapsed(unit, due, TIDIED_MAX)
            counts = Counter(event.account_id for event in batch.lapsed)
            batch.unfinished = {account_id for account_id, count in counts.items() if count >= TIDIED_MAX}

    async def _without_expired(
        self, unit: Unit, asked: Mapping[int, datetime], expiring: Sequence[int]
    ) -> ledger.Loaded:
        """End grants whose time is over before anything is decided, and read the accounts again."""
        async with unit.transaction():
            await ledger.lock_accounts(unit, expiring)
            found = await ledger.load_states(unit, {account_id: asked[account_id] for account_id in expiring})
            for account_id, state in found.states.items():
                tick = max(self._engine.tick(), state.tick + 1)
                await subscriptions.end_grants(unit, state, tick=tick, now=asked[account_id])
        return await ledger.load_states(unit, asked)

    def _begin(self, environments: dict[int, Environment]) -> _Batch:
        return _Batch(environments, self._engine.now(), self._engine.tick())

    async def _environment(self, environment_id: int) -> Environment:
        found = await self._engine.environment(environment_id)
        if found is None:
            raise Refusal("invalid_credentials")
        return found

    async def _decide_and_save(
        self, unit: Unit, requests: Sequence[UsageRequest], batch: _Batch
    ) -> Sequence[Answer | BaseException]:
        before = {account_id: found.state for account_id, found in batch.accounts.items()}
        decided: dict[int, list[Decision]] = {}
        answers: list[Answer | BaseException] = []
        stored: list[StoredAnswer] = []
        relied: list[AccountState] = []
        for event in batch.lapsed:
            self._tidy(event, batch, decided)
        for request in requests:
            try:
                answers.append(self._decide(request, batch, decided, stored))
                is_answered_only = request.dry_run
            except Refusal as refusal:
                _need_keys(request, batch)
                answers.append(refusal)
                is_answered_only = True
            if is_answered_only and request.account_id in before:
                relied.append(before[request.account_id])
        changed = [(before[account_id], decisions) for account_id, decisions in decided.items()]
        # Even where nothing is to be written, an answer is only true if what it was decided on still holds.
        revisions = {id: environment.revision for id, environment in batch.environments.items()}
        self._is_refill_due = await ledger.save(unit, changed, relied=relied, revisions=revisions, answers=stored)
        self._remember(batch)
        return answers

    def _decide(
        self,
        request: UsageRequest,
        batch: _Batch,
        decided: dict[int, list[Decision]],
        stored: list[StoredAnswer],
    ) -> Answer:
        environment = batch.environments[request.environment.id]
        if request.key_id is not None and environment.key_in_force(request.key_id, batch.real_now) is None:
            raise Refusal("invalid_credentials")
        earlier = None if request.once is None else batch.answers.get((environment.id, request.once.key))
        if earlier is not None:
            return _replayed(earlier, request.once)
        account = batch.accounts.get(request.account_id)
        if account is None or account.state.environment_id != environment.id:
            raise Refusal("not_found")
        if request.replay is not None:
            decision = self._replay(request.replay, account, environment, batch, decided)
            answer = request.render(decision)
        elif not request.events and request.ending is None:
            return Answer(200, b"%d" % batch.tidied.pop(request.account_id, 0))
        else:
            decision = self._decision(request, account, environment, batch)
            answer = request.render(decision)
            if request.dry_run:
                _need_keys(request, batch)
                return answer
            if decision.state.tick != account.state.tick:
                _carry_on(account, decision, batch, decided)
        if request.once is not None:
            kept = StoredAnswer(
                environment.id,
                request.once.key,
                request.once.fingerprint,
                answer.status,
                answer.body,
                batch.now[environment.id],
            )
            stored.append(kept)
            batch.answers[environment.id, request.once.key] = kept
        return answer

    def _tidy(self, event: Event, batch: _Batch, decided: dict[int, list[Decision]]) -> None:
        """End a hold past its hour before the account is decided on, so that its units no longer count either."""
        account = batch.accounts[event.account_id]
        environment = batch.environments.get(account.state.environment_id)
        if environment is not None:
            now = batch.now[environment.id]
            decision = expire_event(account.state, event, terms=environment.terms, now=now, tick=batch.tick)
            _carry_on(account, decision, batch, decided)
            batch.tidied[event.account_id] = batch.tidied.get(event.account_id, 0) + 1

    def _decision(
        self, request: UsageRequest, account: _Remembered, environment: Environment, batch: _Batch
    ) -> Decision:
        now, terms, state = batch.now[environment.id], environment.terms, account.state
        if request.ending is None:
            return bill_events(
                state,
                request.events,
                terms=terms,
                known=batch.known.get(request.account_id, {}),
                now=now,
                tick=batch.tick,
                request_id=request.request_id,
            )
        ending = request.ending
        event = account.holds.get(ending.event_id) or batch.events.get((request.account_id, ending.event_id))
        if event is None:
            raise Refusal("not_found")
        if ending.settlement is None:
            return void_event(state, event, terms=terms, now=now, tick=batch.tick)
        return finish_event(state, event, ending.settlement, terms=terms, now=now, tick=batch.tick)

    def _replay(
        self,
        replay: Replay,
        account: _Remembered,
        environment: Environment,
        batch: _Batch,
        decided: dict[int, list[Decision]],
    ) -> Decision:
        """Bill or void events that were kept aside, each by a decision of its own, as if it had come by itself.

        What is not kept aside any more is passed over; so is, of several, what cannot be billed: it goes on waiting.
        """
        now, terms, account_id = batch.now[environment.id], environment.terms, account.state.account_id
        ended: list[Event] = []
        for event_id in replay.event_ids:
            event = account.holds.get(event_id) or batch.events.get((account_id, event_id))
            if event is None or event.state != "suspended":
                if len(replay.event_ids) == 1:
                    raise Refusal("not_found") if event is None else Refusal("event_not_suspended", state=event.state)
                continue
            try:
                if replay.is_void:
                    decision = void_event(account.state, event, terms=terms, now=now, tick=batch.tick)
                else:
                    queued = [Queued(event, _properties(event))]
                    decision = replay_events(account.state, queued, terms=terms, now=now, tick=batch.tick)
            except Refusal:
                if len(replay.event_ids) == 1:
                    raise
                continue
            _carry_on(account, decision, batch, decided)
            ended.extend(decision.finished)
        return Decision(account.state, now, tuple(ended))

    def _remember(self, batch: _Batch) -> None:
        remembered = self._remembered
        for account_id, account in batch.accounts.items():
            if account_id in batch.unfinished:
                remembered.pop(account_id, None)
            else:
                remembered[account_id] = account
        while len(remembered) > self._remembered_max:
            remembered.pop(next(iter(remembered)))


def _account_for(requests: Sequence[UsageRequest], answers: Sequence[Answer | BaseException], seconds: float) -> None:
    """One line in the log and a few counts for a whole batch: a line a request would cost more than the request."""
    events = sum(map(_weight, requests))
    refused = sum(1 for answer in answers if isinstance(answer, Answer) and answer.status == PAYMENT_REQUIRED)
    metrics.BATCH_EVENTS.observe(events)
    metrics.BATCH_SECONDS.observe(seconds)
    metrics.REQUESTS.inc(len(requests) - refused)
    if refused:
        metrics.REFUSED.inc(refused)
    _log.info("record_usage", requests=len(requests), events=events, refused=refused, ms=round(seconds * 1000, 1))


def _replayed(earlier: StoredAnswer, once: Once | None) -> Answer:
    if once is not None and earlier.fingerprint != once.fingerprint:
        raise Refusal("key_reused", key=once.key)
    if earlier.status is None:
        raise Refusal("request_in_progress")
    return Answer(earlier.status, earlier.body, is_replay=True)


def _need_keys(request: UsageRequest, batch: _Batch) -> None:
    """What writes nothing finds no key in its way: only a look at the keys tells whether it has an answer already."""
    if not batch.knows_keys and (request.once is not None or any(event.key_digest for event in request.events)):
        raise KeyIsKnown


def _properties(event: Event) -> Mapping[str, object]:
    """An event's metadata as prices look at it."""
    found = None if event.metadata is None else msgspec.json.decode(event.metadata)
    return found if isinstance(found, dict) else {}


def _carry_on(account: _Remembered, decision: Decision, batch: _Batch, decided: dict[int, list[Decision]]) -> None:
    """Let what was decided be what the next request is decided on."""
    account.state = decision.state
    decided.setdefault(account.state.account_id, []).append(decision)
    _note(account, decision, batch)


def _note(account: _Remembered, decision: Decision, batch: _Batch) -> None:
    """Carry what a decision did to keys and holds on to the requests after it in the batch."""
    known = batch.known
    account_id = account.state.account_id
    for event in decision.events:
        if event.state == "pending":
            account.holds[event.id] = event
        if event.key_digest is not None:
            known.setdefault(account_id, {})[event.key_digest] = event
    for gated in decision.gated:
        if gated.event.key_digest is not None:
            known.setdefault(account_id, {})[gated.event.key_digest] = gated
    for event in decision.finished:
        account.holds.pop(event.id, None)
        batch.events[account_id, event.id] = event


async def release_expired(engine: Engine, *, now: datetime, limit: int) -> int:
    """Sweep: end holds whose hour is over, through the lanes, of at most ``limit`` accounts; how many were ended.

    ``now`` is real time; environments whose clock is ahead are judged by their own.
    """
    async with engine.database.reading() as reader:
        due = await records.due_accounts(reader, now, limit)
    return await _tidy_accounts(engine, due)


async def release_all_expired(engine: Engine, environment_id: int) -> int:
    """End every hold of one environment whose hour is over; how many were ended. Stops where nothing moves any more."""
    done = 0
    before: list[tuple[int, int, int]] = []
    while True:
        async with engine.database.reading() as reader:
            due = await records.due_accounts(reader, engine.now(), TIDIED_MAX, environment_id)
        if not due or due == before:
            return done
        done += await _tidy_accounts(engine, due)
        before = due


async def _tidy_accounts(engine: Engine, due: Sequence[tuple[int, int, int]]) -> int:
    """Take accounts in hand, by a request for nothing: that is what tidies them."""
    waiting: list[Awaitable[Answer]] = []
    for environment_id, account_id, _ in due:
        environment = engine.remembered(environment_id) or await engine.environment(environment_id)
        if environment is not None:
            touch = UsageRequest(environment, None, account_id, "sweep", _nothing)
            waiting.append(engine.lanes.submit(account_id, touch))
    return sum(int(answer.body) for answer in await asyncio.gather(*waiting))


def _nothing(_: Decision) -> Answer:
    return Answer(200, b"")


# --- events that were kept aside --------------------------------------------------------------------------------------


async def replay_suspended(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: take up events that were kept aside, of accounts that are marked for it; how many were ended.

    A pass takes a page of each account, so that one with a million events keeps no other waiting. ``now`` is real time.
    """
    await _mark_companies(engine, now, limit, environment_id)
    async with engine.database.reading() as reader:
        found = await pauses.read_replaying(reader, environment_id, limit, engine.tick())
    room = asyncio.Semaphore(REPLAYED_AT_ONCE)

    async def one(replaying: Replaying) -> int:
        async with room:
            return await _replay_page(engine, replaying)

    return sum(await asyncio.gather(*map(one, found)))


async def replay_all(engine: Engine, environment_id: int) -> None:
    """Take up all that is marked in one half of a company."""
    while await replay_suspended(engine, now=engine.now(), limit=TIDIED_MAX, environment_id=environment_id):
        continue


async def _mark_companies(engine: Engine, now: datetime, limit: int, environment_id: int | None) -> None:
    """Mark the accounts of halves of companies whose usage goes on; what was late to be saved is found for a while."""
    async with engine.database.reading() as reader:
        marked = await pauses.marked_companies(reader, environment_id)
    for id, until in marked:
        is_last, after = until < now, 0
        while True:
            async with engine.database.writing() as unit:
                await accounts.lock_environment(unit, id)
                found = await pauses.mark_accounts(unit, id, limit, after=after, is_patient=is_last)
                if is_last and len(found) < limit:
                    await pauses.unmark_company(unit, id, now)
            engine.reach("replay:marked")
            # The last time all are marked in one go: one whose events cannot be billed would else be marked for ever.
            if not is_last or len(found) < limit:
                break
            after = found[-1]


async def _replay_page(engine: Engine, replaying: Replaying) -> int:
    """Take up one page of an account's events; how many were ended. After the last page its mark is gone."""
    environment = engine.remembered(replaying.environment_id) or await engine.environment(replaying.environment_id)
    if environment is None:
        return 0
    after, done = 0, 0
    while not done:
        async with engine.database.reading() as reader:
            page = await pauses.read_waiting(
                reader, replaying.account_id, after=after, to=replaying.to, limit=REPLAYED_MAX
            )
        engine.reach("replay:read")
        if page:
            done = await _replayed_of(engine, environment, replaying, page)
            engine.reach("replay:saved")
            # What cannot be billed goes on waiting; those behind it do not.
            after = page[-1]
        if len(page) < REPLAYED_MAX:
            async with engine.database.writing() as unit:
                await pauses.unmark_account(unit, replaying)
            engine.reach("replay:unmarked")
            break
    return done


async def _replayed_of(engine: Engine, environment: Environment, replaying: Replaying, page: Sequence[int]) -> int:
    request = UsageRequest(
        environment,
        None,
        replaying.account_id,
        "sweep",
        lambda decision: Answer(200, b"%d" % len(decision.answers)),
        replay=Replay(page, replaying.is_void),
    )
    try:
        answer = await engine.lanes.submit(replaying.account_id, request)
    except Refusal as refusal:
        _log.warning("replay_suspended", code=refusal.code, account=replaying.account_id, events=len(page))
        return 0
    return int(answer.body)
