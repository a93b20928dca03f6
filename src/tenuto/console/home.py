"""Home: how things stand, what to do first, and usage as it comes in.

Whoever looks at Home hears events as they are committed: one task for each half of a company reads the newest ones a
few times a second, for as long as somebody looks, and hands them to all who do.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import structlog
from litestar import Response
from litestar.response import Stream

from tenuto.core.event import Event, GatedEvent
from tenuto.core.identifiers import spell, spell_of_account
from tenuto.engine import Engine, microseconds
from tenuto.service import users
from tenuto.store import accounts, records
from tenuto.store.accounts import Environment
from tenuto.store.records import Page as Part
from tenuto.store.records import Whose

from . import sign
from .frame import HEADERS, Page, Visit, render, session_of

_log = structlog.get_logger()

LOOK_SECONDS: Final = 0.3
LOOK_BACK: Final = timedelta(seconds=20)
"""How long after another a commit may make an older event known."""
LOOK_ROWS: Final = 100
SHOWN: Final = 25
QUEUE: Final = 500
SEEN_MAX: Final = 5_000
BEAT_SECONDS: Final = 15.0
STREAM_SECONDS: Final = 900.0
"""How long one stream lasts; the browser comes again by itself."""


async def home(visit: Visit) -> Response[Any]:
    """The page; figures and the first steps come after it, in parts."""
    found = await visit.rows("/companies/{company_id}/events", query={"limit": str(SHOWN)})
    return visit.page("home.html", events=found.rows)


async def steps(visit: Visit) -> Response[Any]:
    """What a company does first, ticked off as it is done."""
    plans = await visit.rows("/companies/{company_id}/plans", query={"limit": "1"})
    opened = await visit.rows("/companies/{company_id}/accounts", query={"limit": "1"})
    events = await visit.rows("/companies/{company_id}/events", query={"limit": "1"})
    keys = visit.environment.keys.values()
    done = {
        "key": any(key.last_used_at is not None for key in keys) or bool(opened.rows),
        "provider": visit.environment.stripe.key is not None or _has_sandbox(visit),
        "plan": bool(plans.rows),
        "account": bool(opened.rows),
        "event": bool(events.rows),
    }
    return visit.page("part_steps.html", done=done, is_done=all(done.values()), has_sandbox=_has_sandbox(visit))


def _has_sandbox(visit: Visit) -> bool:
    settings = visit.engine.settings
    return not visit.environment.live and (settings.is_sandbox_ours or bool(settings.sandbox_url))


async def look_at(visit: Visit) -> Response[Any]:
    """Look at the live half of the company, or at the test half."""
    is_live = visit.field("mode") == "live"
    async with visit.engine.database.reading() as reader:
        found = await accounts.find_environment(reader, visit.environment.company_id, live=is_live)
    if found is None:
        return visit.go(visit.came_from(), "There is no live data yet: it begins with your first live key.")
    await users.look_at(visit.engine, visit.session, live=is_live)
    return visit.go("/")


async def sign_out(visit: Visit) -> Response[Any]:
    """End this session."""
    await users.end_session(visit.engine, visit.session, visit.session.digest, visit.came)
    return sign.signed_out(visit.house)


# --- events as they come in -------------------------------------------------------------------------------------------

Fact: TypeAlias = Event | GatedEvent


class Live:
    """The newest events of one half of a company, billed and refused, for all who look."""

    def __init__(self, engine: Engine, environment: Environment) -> None:
        self._engine, self._environment = engine, environment
        self._seen: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._listeners: set[asyncio.Queue[list[Fact]]] = set()
        self._task: asyncio.Task[None] | None = None
        self._knows = asyncio.Event()

    async def join(self) -> asyncio.Queue[list[Fact]]:
        """Begin to listen: to all that is committed after this returns."""
        queue: asyncio.Queue[list[Fact]] = asyncio.Queue(QUEUE)
        self._listeners.add(queue)
        if self._task is None:
            self._task = asyncio.create_task(self._look())
        try:
            await self._knows.wait()
        except asyncio.CancelledError:
            self.leave(queue)
            raise
        return queue

    def leave(self, queue: asyncio.Queue[list[Fact]]) -> None:
        """Listen no more; the last one out ends the looking."""
        self._listeners.discard(queue)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task = None
            self._seen.clear()
            self._knows.clear()

    async def _look(self) -> None:
        while True:
            try:
                fresh = await self._fresh()
            except Exception as error:  # noqa: BLE001 - whoever looks goes on looking
                _log.warning("live", environment=self._environment.id, exc_info=error)
                fresh = []
            else:
                # What was there before anybody looked is on the page already.
                fresh = fresh if self._knows.is_set() else []
                self._knows.set()
            for queue in self._listeners:
                if fresh and not queue.full():
                    queue.put_nowait(fresh)
            await asyncio.sleep(LOOK_SECONDS)

    async def _fresh(self) -> list[Fact]:
        """Events that were not there at the last look, oldest first."""
        whose = Whose(self._environment.id, None, microseconds(self._engine.now() - LOOK_BACK))
        part = Part(LOOK_ROWS, None)
        async with self._engine.database.reading() as reader:
            now = self._engine.now_of(self._environment)
            found: list[Fact] = [
                *await records.list_events(reader, whose, part, {}, now),
                *await records.list_gated(reader, whose, part, {}),
            ]
        fresh = sorted(
            (fact for fact in found if (fact.account_id, fact.id) not in self._seen), key=lambda fact: fact.id
        )
        for fact in fresh:
            self._seen[fact.account_id, fact.id] = None
        while len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return fresh


_LIVES: Final[WeakKeyDictionary[Engine, dict[int, Live]]] = WeakKeyDictionary()


def row_of(fact: Fact) -> dict[str, Any]:
    """An event as the table of Home shows it, by the names that the API gives."""
    account = spell("a", fact.account_id)
    if isinstance(fact, GatedEvent):
        return {
            "id": spell_of_account("e", fact.account_id, fact.id),
            "account_id": account,
            "type": fact.event.type,
            "quantity": fact.event.quantity_text,
            "state": "refused",
            "code": fact.code,
            "cost": None,
            "balance": None,
            "recorded_at": fact.recorded_at.isoformat(),
        }
    charge = fact.charges[0] if fact.charges else None
    return {
        "id": spell_of_account("e", fact.account_id, fact.id),
        "account_id": account,
        "type": fact.type,
        "quantity": fact.quantity,
        "state": fact.state,
        "code": None,
        "cost": None if charge is None else {"amount": charge.amount, "denomination": charge.denomination},
        "balance": None if charge is None else {"amount": charge.balance_amount, "denomination": charge.denomination},
        "recorded_at": fact.recorded_at.isoformat(),
    }


async def _may_listen(visit: Visit) -> bool:
    """Whether the session is still there, and its user may still see events."""
    session = await session_of(visit.engine, visit.request)
    return session is not None and "events:read" in session.user.scopes


async def stream(visit: Visit) -> Response[Any]:
    """Rows of the table as their events are committed, as server-sent events."""
    environment, locale = visit.environment, visit.locale
    lives = _LIVES.setdefault(visit.engine, {})
    live = lives.setdefault(environment.id, Live(visit.engine, environment))

    async def lines() -> AsyncIterator[bytes]:
        queue = await live.join()
        give_up_at = time.monotonic() + STREAM_SECONDS
        try:
            yield b": here\n\n"
            while time.monotonic() < give_up_at:
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        fresh = await queue.get()
                except TimeoutError:
                    yield b": here\n\n"
                    fresh = []
                if not await _may_listen(visit):
                    return
                if not fresh:
                    continue
                rows = [row_of(fact) for fact in fresh[-SHOWN:]]
                values = {"events": rows[::-1], "zone": environment.zone_name}
                html = render("part_events.html", locale, values)
                yield "event: usage\n{}\n\n".format("\n".join(f"data: {line}" for line in html.splitlines())).encode()
        finally:
            live.leave(queue)

    return Stream(lines(), media_type="text/event-stream; charset=utf-8", headers=HEADERS)


PAGES: Final = (
    Page("GET", "/", home),
    Page("GET", "/control/steps", steps),
    Page("GET", "/control/stream", stream, "events:read"),
    Page("POST", "/control/mode", look_at),
    Page("POST", "/control/sign-out", sign_out),
)
