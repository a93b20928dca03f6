"""The courier: publishes what happened and delivers it, at least once, each receiver at its own pace.

One process delivers for a database at a time; others stand by and take over when its connection ends. A turn publishes,
writes down how attempts ended, and begins those that are due. A place among the few requests that a webhook has under
way is free again only when the end of the one before is written down: so a process that dies repeats no more than those
few. Sources: contract 3.9, bar 4.10, the specification of Standard Webhooks.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple, Protocol

import structlog
from standardwebhooks import Webhook as Signer

from tenuto.core.identifiers import spell
from tenuto.core.notification import PATIENCE, RETRY_AFTER_MAX, next_wait, public_id
from tenuto.core.period import moment_text
from tenuto.core.topic import Notification
from tenuto.engine import Engine, context_of
from tenuto.store import accounts, deliveries, signals, webhooks
from tenuto.store.database import Record, Unavailable, Unit, translated
from tenuto.store.deliveries import Attempt, Ended
from tenuto.store.webhooks import PASSWORD_OF, SECRET_OF
from tenuto.vault import VaultError

UNDER_WAY_MAX: Final = 256
"""Requests under way at a time, to all receivers together."""
FAILING_MAX: Final = 128
"""Of these, to webhooks that fail: however many of them hang, the others have room."""
POLL_SECONDS: Final = 0.2
PUBLISH_SECONDS: Final = 0.1
"""How long publishing rests while attempts end: many are published in the time of one."""
STAND_BY_SECONDS: Final = 1.0
CONNECT_SECONDS: Final = 3.0
KEPT: Final = timedelta(days=35)
"""How long notifications and deliveries are kept."""
AGENT: Final = "Tenuto-Webhooks/1"

_log = structlog.get_logger()


class Posted(Protocol):
    """What became of one request (gateway.egress)."""

    @property
    def status(self) -> int | None:
        """The status of the answer, if there was one."""

    @property
    def answer(self) -> str:
        """The beginning of its body."""

    @property
    def retry_after(self) -> str | None:
        """When the receiver wants to be asked again, as it says it."""

    @property
    def error(self) -> str | None:
        """A code for what went wrong."""

    @property
    def ms(self) -> int:
        """How long it took."""

    @property
    def is_taken(self) -> bool:
        """Whether the receiver took it."""


class _Unsent(NamedTuple):
    """A request that could not be made, for the secrets of its webhook do not open."""

    status: int | None = None
    answer: str = ""
    retry_after: str | None = None
    error: str | None = "secret"
    ms: int = 0
    is_taken: bool = False


class Post(Protocol):
    """Sends one request and tells what became of it; raises nothing (gateway.egress)."""

    async def __call__(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Posted:
        """Send it."""


class Courier:
    """Publishes and delivers for one database, in turns, until it is stopped."""

    def __init__(self, engine: Engine, post: Post) -> None:
        self._engine, self._post = engine, post
        self._under_way: dict[tuple[int, int, int], bool] = {}
        self._ended: list[Ended] = []
        self._stuck: set[int] = set()
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_delivering = asyncio.Event()
        """Set once this is the process that delivers."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver until ``stopping`` is set, whatever becomes of the database meanwhile."""
        while not stopping.is_set():
            unit: Unit | None = None
            try:
                unit = await self._engine.database.lane_connection(CONNECT_SECONDS)
                async with translated():
                    await self._run_on(unit, stopping)
            except Unavailable as error:
                _log.warning("courier", outcome="the database does not answer", reason=str(error))
                await self._wait(STAND_BY_SECONDS, stopping)
            except Exception as error:  # noqa: BLE001 - deliveries go on, whatever one turn met
                _log.error("courier", outcome="failed", exc_info=error)
                await self._wait(STAND_BY_SECONDS, stopping)
            finally:
                self.is_delivering.clear()
                if unit is not None:
                    unit.terminate()
        for task in list(self._tasks):
            task.cancel()

    async def _run_on(self, unit: Unit, stopping: asyncio.Event) -> None:
        while not stopping.is_set() and not await deliveries.become_courier(unit):
            await self._wait(STAND_BY_SECONDS, stopping)
        self.is_delivering.set()
        is_more, publish_at = True, 0.0
        while not stopping.is_set():
            if is_more or time.monotonic() >= publish_at:
                is_more = await publish(self._engine, unit, self._stuck)
                publish_at = time.monotonic() + PUBLISH_SECONDS
            await self.turn(unit)
            if not is_more:
                await self._wait(POLL_SECONDS, stopping)

    async def _wait(self, seconds: float, stopping: asyncio.Event) -> None:
        """Wait for an attempt to end, for the end, or so long."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._woken, stopping)]
        _, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        self._woken.clear()

    async def turn(self, unit: Unit) -> None:
        """Write down how attempts ended and begin those that are due, in one transaction."""
        now = self._engine.now()
        ended, self._ended = self._ended, []
        if ended:
            self._engine.reach("delivered")
        done = {one.place for one in ended}
        under_way = {place: is_failing for place, is_failing in self._under_way.items() if place not in done}
        found: Sequence[Attempt] = ()
        try:
            async with unit.transaction():
                for row in await deliveries.save_ended(unit, ended, now):
                    if now - row["failing_since"] >= PATIENCE:
                        await self._give_up(unit, row, now)
                if room := UNDER_WAY_MAX - len(under_way):
                    failing = FAILING_MAX - sum(under_way.values())
                    found = await deliveries.next_attempts(
                        unit, now=now, under_way=list(under_way), limit=room, failing=failing
                    )
        except BaseException:
            self._ended = ended + self._ended  # still not written down: the next turn does it
            raise
        self._under_way = under_way
        for attempt in found:
            self._under_way[attempt.place] = attempt.is_failing
            task = asyncio.create_task(self._deliver(attempt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _give_up(self, unit: Unit, row: Record, now: datetime) -> None:
        """Pause a webhook that took nothing for days, and say so wherever somebody may hear it."""
        environment = await accounts.read_environment(unit, row["environment_id"])
        assert environment is not None
        at = self._engine.now_of(environment)
        await webhooks.update_webhook(unit, environment.id, row["id"], {"paused_at": now, "paused_by": "failures"}, at)
        name = spell("w", row["id"])
        data = {
            "webhook_id": name,
            "url": row["url"],
            "failing_since": moment_text(row["failing_since"]),
            "waiting": await deliveries.count_waiting(unit, environment.id, row["id"]),
        }
        await signals.tell(unit, environment.id, Notification(None, "webhook.paused", data, at))
        # The address is not logged: many hold a secret.
        _log.error("webhook_paused", webhook=name, failing_since=data["failing_since"])

    async def _deliver(self, attempt: Attempt) -> None:
        """One attempt, to its end. It is free for another only once that is written down."""
        at = self._engine.now()
        try:
            headers = headers_of(self._engine, attempt, at)
            posted: Posted = await self._post(attempt.url, headers=headers, body=attempt.body.encode())
        except VaultError as error:
            _log.error(
                "courier", outcome="a secret does not open", webhook=spell("w", attempt.webhook_id), why=str(error)
            )
            posted = _Unsent()
        except Exception as error:  # noqa: BLE001 - whatever it is: a place that nobody frees is lost for ever
            _log.error("courier", outcome="not sent", webhook=spell("w", attempt.webhook_id), exc_info=error)
            posted = _Unsent(error="fault")
        if posted.error == "closed":
            return  # it is us who end: the attempt was none
        self._ended.append(_ended(attempt, posted, at))
        self._woken.set()


async def publish(engine: Engine, unit: Unit, stuck: set[int]) -> bool:
    """Publish what is not published yet, some of every company's; whether there is more.

    A half of a company that cannot be published stops no other; ``stuck`` remembers those that were told of.
    """
    is_more = False
    for environment_id in await deliveries.unpublished(unit):
        try:
            async with unit.transaction():
                done = await deliveries.publish(unit, environment_id, engine.now())
        except Exception as error:
            if unit.is_closed():
                raise
            if environment_id not in stuck:
                stuck.add(environment_id)
                _log.error("courier", outcome="not published", environment=environment_id, exc_info=error)
            continue
        stuck.discard(environment_id)
        is_more = is_more or done >= deliveries.PUBLISHED_AT_ONCE
    return is_more


def headers_of(engine: Engine, attempt: Attempt, at: datetime) -> dict[str, str]:
    """The headers of an attempt: Standard Webhooks, and Basic where the webhook has a user. Raises VaultError.

    While a secret is being changed both sign; a receiver takes either.
    """

    def opened(sealed: bytes, what: str) -> str:
        context = context_of(attempt.company_id, what.format(spell("w", attempt.webhook_id)), live=attempt.live)
        return engine.vault.open(sealed, context=context)

    id = public_id(attempt.company_id, attempt.account_id, attempt.position, live=attempt.live)
    sealed = [attempt.secret, *([] if attempt.old_secret is None else [attempt.old_secret])]
    signatures = [Signer(opened(secret, SECRET_OF)).sign(id, at, attempt.body) for secret in sealed]
    headers = {
        "content-type": "application/json; charset=utf-8",
        "user-agent": AGENT,
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
    if attempt.username is not None:
        password = "" if attempt.password is None else opened(attempt.password, PASSWORD_OF)
        credentials = base64.b64encode(f"{attempt.username}:{password}".encode()).decode()
        headers["authorization"] = f"Basic {credentials}"
    return headers


def _ended(attempt: Attempt, posted: Posted, at: datetime) -> Ended:
    log = {
        "at": moment_text(at),
        "url": attempt.url,
        "status": posted.status,
        "error": posted.error,
        "ms": posted.ms,
        "answer": posted.answer,
    }
    if posted.is_taken:
        return Ended(attempt.place, is_taken=True, next_attempt_at=None, log=log)
    wait = next_wait(attempt.attempts + 1, secrets.randbelow(1000))
    asked = retry_after(posted.retry_after, at)
    if wait is not None and asked is not None:
        wait = max(wait, min(asked, RETRY_AFTER_MAX))
    return Ended(attempt.place, is_taken=False, next_attempt_at=None if wait is None else at + wait, log=log)


def retry_after(text: str | None, now: datetime) -> timedelta | None:
    """How long a receiver asks us to wait: seconds, or until a date; None where it says nothing that can be read."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return timedelta(seconds=min(int(text[:9]), int(RETRY_AFTER_MAX.total_seconds())))
    with suppress(ValueError, OverflowError):
        at = parsedate_to_datetime(text)
        return max(timedelta(), (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - now)
    return None


async def forget_notifications(engine: Engine, *, now: datetime, limit: int) -> int:
    """Sweep: delete notifications and deliveries that are older than they are kept; how many."""
    async with engine.database.writing() as unit:
        return await deliveries.forget(unit, now - KEPT, limit)
