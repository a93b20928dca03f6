"""Settings and the engine: what every verb needs from the world, gathered in one value.

The only reader of the environment variables. The engine holds the database, the clock, chance for ids, and what a
worker remembers of companies; a remembered environment is never trusted by itself, each write proves its revision.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import structlog

from tenuto.core.identifiers import ID_MAX, spell
from tenuto.core.outcomes import Refusal
from tenuto.gateway.port import GatewayUnclear, PaymentGateway
from tenuto.gateway.sandbox import register_endpoint
from tenuto.lanes import Lanes
from tenuto.store import accounts as store
from tenuto.store import due
from tenuto.store.accounts import Environment
from tenuto.store.database import AccountMovedOn, Contended, Database, Record, Unavailable
from tenuto.vault import Vault, VaultError, master_key

if TYPE_CHECKING:
    from tenuto.gateway.egress import Egress

_log = structlog.get_logger()

ASKED_CONNECT_SECONDS: Final = 1.5
ASKED_SECONDS: Final = 3.0
"""How long somebody outside may take for whom a request waits."""
ASKED_MAX: Final = 64
"""How many calls of one half of a company a worker waits for at once; the others have places too."""
ENVIRONMENTS_MAX: Final = 10_000
"""Environments one worker remembers."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set from outside, by ``TENUTO_*`` variables or flags of the same names. All have a default."""

    host: str = "127.0.0.1"
    port: int = 8080
    database: str = ""
    data: str = ".tenuto"
    workers: int = 1
    lanes: int = 1
    registration: str = ""
    operator_token: str = ""
    log_level: str = "info"
    secret_key: str = field(default="", repr=False)
    public_url: str = ""
    stripe_url: str = "https://api.stripe.com"
    sandbox: str = ""
    sandbox_url: str = ""
    private_webhooks: str = ""

    @property
    def may_call_near(self) -> bool:
        """Whether webhooks may go to private addresses and plain http: for those who develop on one machine."""
        return self.private_webhooks == "on"

    @property
    def is_registration_open(self) -> bool:
        """Whether anybody may open a company: said so, or not said and on the embedded database."""
        return self.registration == "open" or (not self.registration and not self.database)

    @property
    def is_sandbox_ours(self) -> bool:
        """Whether ``tenuto serve`` runs a simulator of Stripe: said so, or not said and on the embedded database."""
        return not self.sandbox_url and (self.sandbox == "on" or (not self.sandbox and not self.database))


SECRET_SETTINGS: Final = frozenset({"operator_token", "database", "secret_key"})


def read_settings(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings and, per name, where each came from: ``flag``, ``environment`` or ``default``.

    Raises ValueError naming the variable whose value does not fit.
    """
    environ = os.environ if environ is None else environ
    flags = flags or {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for item in fields(Settings):
        name, variable = item.name, f"TENUTO_{item.name.upper()}"
        given = flags.get(name)
        if given is not None:
            values[name], sources[name] = given, "flag"
        elif environ.get(variable, "") != "":
            values[name], sources[name] = _converted(variable, environ[variable], item.default), "environment"
        else:
            values[name], sources[name] = item.default, "default"
    return replace(Settings(), **values), sources


def _converted(variable: str, text: str, default: object) -> object:
    if isinstance(default, int):
        if not text.isdecimal():
            msg = f"{variable} is {text!r}, but it takes a whole number."
            raise ValueError(msg)
        return int(text)
    return text


class Once(NamedTuple):
    """An Idempotency-Key with the digest of the request it came with."""

    key: str
    fingerprint: bytes


class Answer(NamedTuple):
    """What goes back to a client: status, body, and whether it is the stored answer of an earlier request.

    ``media`` is the content type where the body is no JSON.
    """

    status: int
    body: bytes
    is_replay: bool = False
    media: str = ""


GATEWAY_PER_SECOND: Final = {True: 100.0, False: 25.0}
"""Requests a second that Stripe documents for a live and for a test key; all workers of a server share them."""


class Clock(Protocol):
    """Where the present comes from: the database's clock, or a made-up one in tests."""

    def now(self) -> datetime:
        """The present in UTC."""
        ...


class DatabaseClock:
    """The database's clock, carried forward between looks by the monotonic clock: the host's time never matters."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._base = datetime.now(UTC)
        self._at = time.monotonic()

    async def look(self) -> None:
        """Ask the database again. Time never goes back because of it: a clock that was ahead waits."""
        async with self._database.reading() as reader:
            before = time.monotonic()
            seen: datetime = await reader.fetchval("select clock_timestamp()")
        self._base, self._at = seen, (before + time.monotonic()) / 2

    def now(self) -> datetime:
        """The present in UTC."""
        return self._base + timedelta(seconds=time.monotonic() - self._at)


class Engine:
    """One worker's engine. ``lanes`` is set by whoever assembles the house (api.app, worker, tests)."""

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self.settings = settings
        self.database = database
        self.clock = clock
        self.lanes: Lanes[Any, Any] = Lanes(())
        self.keys_used: dict[tuple[int, int], datetime] = {}
        self.faults: Callable[[str], None] | None = None
        self._environments: dict[int, Environment] = {}
        self._vault: Vault | None = None
        self._egress: Egress | None = None
        self._asking: dict[int, asyncio.Semaphore] = {}
        self._gateways: dict[int, tuple[bytes | None, PaymentGateway]] = {}
        self._nudges: dict[str, asyncio.Event] = {}
        self._making_gateway = asyncio.Lock()

    @classmethod
    async def open(cls, settings: Settings, dsn: str, *, patience: float = 0) -> Engine:
        """Connect and look at the clock, trying for ``patience`` seconds. Raises UnsafeServer or Unavailable."""
        give_up_at = time.monotonic() + patience
        while True:
            try:
                return await cls._opened(settings, dsn)
            except Unavailable:
                if time.monotonic() >= give_up_at:
                    raise
                await asyncio.sleep(0.1)

    @classmethod
    async def _opened(cls, settings: Settings, dsn: str) -> Engine:
        database = await Database.connect(dsn)
        clock = DatabaseClock(database)
        try:
            await clock.look()
        except Unavailable:
            await database.close()
            raise
        return cls(settings, database, clock)

    async def close(self) -> None:
        """Let the lanes finish, then let go of the database."""
        await self.lanes.stop()
        for _, gateway in self._gateways.values():
            await gateway.close()
        if self._egress is not None:
            await self._egress.close()
        await self.database.close()

    @property
    def vault(self) -> Vault:
        """What seals secrets; its key is read, or made, at first use. Raises VaultError."""
        if self._vault is None:
            self._vault = Vault(master_key(self.settings.secret_key, Path(self.settings.data)))
        return self._vault

    @property
    def egress(self) -> Egress:
        """The door to addresses that companies name, for what a request waits for; made at first use, in its loop."""
        if self._egress is None:
            from tenuto.gateway.egress import Egress  # noqa: PLC0415 - it takes a quarter of a second to import

            self._egress = Egress(
                allow_private=self.settings.may_call_near,
                connect_seconds=ASKED_CONNECT_SECONDS,
                total_seconds=ASKED_SECONDS,
            )
        return self._egress

    def asking(self, environment_id: int) -> asyncio.Semaphore:
        """The places that one half of a company has among the calls through :attr:`egress`."""
        return self._asking.setdefault(environment_id, asyncio.Semaphore(ASKED_MAX))

    async def gateway_for(self, environment: Environment) -> PaymentGateway:
        """The payment provider of a company's half: its own Stripe, or in test mode without a key the sandbox.

        Raises Refusal ``gateway_not_configured``.
        """
        sealed = environment.stripe.key
        known = self._gateways.get(environment.id)
        if known is not None and known[0] == sealed:
            return known[1]
        async with self._making_gateway:
            # Made once, whoever else wanted it meanwhile: its pace is kept by counting all its requests.
            return await self._make_gateway(environment, sealed)

    async def _make_gateway(self, environment: Environment, sealed: bytes | None) -> PaymentGateway:
        known = self._gateways.get(environment.id)
        if known is not None and known[0] == sealed:
            return known[1]
        if sealed is not None:
            try:
                key = self.vault.open(sealed, context=self.context_of(environment, "stripe_key"))
            except VaultError as error:
                raise Refusal("gateway_not_configured", str(error)) from error
            made = self.gateway_with(key, live=environment.live)
        elif not environment.live and self.settings.sandbox_url:
            made = await self._sandbox_for(environment)
        else:
            raise Refusal("gateway_not_configured")
        self._gateways[environment.id] = (sealed, made)
        if known is not None:
            await known[1].close()
        return made

    async def _sandbox_for(self, environment: Environment) -> PaymentGateway:
        url, key = self.settings.sandbox_url, self.sandbox_key(environment)
        address = f"{self.public_url}/v1/companies/{spell('c', environment.company_id)}/stripe/test"
        try:
            await register_endpoint(url, key=key, url=address, secret=self.sandbox_secret(environment))
        except GatewayUnclear as error:
            _log.warning("sandbox", outcome="no messages until it answers", reason=str(error))
        return self.gateway_with(key, live=False, url=url)

    def gateway_with(self, key: str, *, live: bool, url: str | None = None) -> PaymentGateway:
        """A gateway that asks with this key, no faster than Stripe documents."""
        from tenuto.gateway.stripe import StripeGateway  # noqa: PLC0415 - the SDK takes half a second to import

        per_second = GATEWAY_PER_SECOND[live] / max(1, self.settings.workers)
        return StripeGateway(key, base_url=url or self.settings.stripe_url, per_second=per_second)

    def sandbox_key(self, environment: Environment) -> str:
        """The key under which the simulator keeps the book of a company in test mode."""
        return f"sk_test_sandbox{spell('c', environment.company_id)[2:]}"

    def sandbox_secret(self, environment: Environment) -> str:
        """What the sandbox signs its messages to this company with."""
        return "whsec_" + self.vault.sign(self.context_of(environment, "sandbox_webhook"))

    def context_of(self, environment: Environment, secret: str) -> str:
        """What a sealed secret is bound to, so that it opens nowhere else."""
        return context_of(environment.company_id, secret, live=environment.live)

    async def each_due(
        self,
        kind: due.Due,
        columns: str,
        do: Callable[[Environment, Record], Awaitable[bool]],
        *,
        now: datetime,
        limit: int,
        environment_id: int | None = None,
        each: int | None = None,
        at_once: int = 1,
    ) -> int:
        """Do the due rows of a kind, ``at_once`` at a time; how many were done.

        A row that somebody else holds, or that is refused by now, keeps no other: the next pass looks at it again.
        """
        async with self.database.reading() as reader:
            rows = await due.due_rows(
                reader, kind, columns, now=now, limit=limit, environment_id=environment_id, each=each
            )
        halves = {id: await self.environment(id) for id in {row["environment_id"] for row in rows}}
        room = asyncio.Semaphore(at_once)

        async def one(row: Record) -> bool:
            environment = halves[row["environment_id"]]
            if environment is None:
                return False
            async with room:
                try:
                    return await do(environment, row)
                except (AccountMovedOn, Contended):
                    return False
                except Refusal as refusal:
                    _log.info("not_due_any_more", table=kind.table, code=refusal.code, account=row["account_id"])
                except Unavailable:
                    raise
                except Exception as error:  # noqa: BLE001 - one row that cannot be done must not keep the others
                    _log.error("due", table=kind.table, account=row["account_id"], outcome="failed", exc_info=error)
                return False

        return sum(await asyncio.gather(*map(one, rows)))

    def reach(self, point: str) -> None:
        """A named place at which tests may stop the world; nothing happens unless faults were set."""
        if self.faults is not None:
            self.faults(point)

    def nudge(self, sweep: str) -> None:
        """Tell the clockwork of this process that a sweep has something to do."""
        self.nudged(sweep).set()

    def nudged(self, sweep: str) -> asyncio.Event:
        """What :meth:`nudge` sets."""
        return self._nudges.setdefault(sweep, asyncio.Event())

    @property
    def public_url(self) -> str:
        """How the outside reaches us, without a slash at the end."""
        return self.settings.public_url.rstrip("/") or f"http://{self.settings.host}:{self.settings.port}"

    def is_own_form(self, headers: Mapping[str, str], sites: frozenset[str]) -> bool:
        """Whether a form was sent from a page of ours, by what browsers say of it by themselves (bar 5, CSRF).

        ``sites`` are the values of Sec-Fetch-Site that will do. An origin has to be ours, or the host that was called;
        where there is none, or ``null``, the site alone says it.
        """
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None and site not in sites:
            return False
        if origin is None or origin == "null":
            return site is not None
        return _host_of(origin) in {_host_of(self.public_url), headers.get("host", "")}

    def now(self) -> datetime:
        """The real present; a company's own is :meth:`now_of`."""
        return self.clock.now()

    def now_of(self, environment: Environment) -> datetime:
        """The present as an environment lives it: a test clock may be ahead."""
        return self.clock.now() + environment.clock_offset

    def tick(self) -> int:
        """The real present in microseconds: the lower bound of every new id of an account."""
        return microseconds(self.clock.now())

    def new_id(self) -> int:
        """A number for a new company, user, key, price or account, from chance."""
        return secrets.randbelow(ID_MAX) + 1

    def remembered(self, environment_id: int) -> Environment | None:
        """What is remembered of an environment; it may be out of date until proven by a write or ``environment``."""
        return self._environments.get(environment_id)

    async def environment(self, environment_id: int) -> Environment | None:
        """An environment as it is now: what is remembered if its revision still holds, else read anew."""
        known = self._environments.get(environment_id)
        async with self.database.reading() as reader:
            if known is not None and await store.current_revision(reader, environment_id) == known.revision:
                return known
            found = await store.read_environment(reader, environment_id)
        if found is None:
            self._environments.pop(environment_id, None)
            return None
        self.remember(found)
        return found

    def remember(self, environment: Environment) -> None:
        """Keep an environment, the oldest making room."""
        self._environments.pop(environment.id, None)
        while len(self._environments) >= ENVIRONMENTS_MAX:
            self._environments.pop(next(iter(self._environments)))
        self._environments[environment.id] = environment


def context_of(company_id: int, secret: str, *, live: bool) -> str:
    """What a sealed secret of a half of a company is bound to."""
    return f"{spell('c', company_id)}/{'live' if live else 'test'}/{secret}"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _host_of(address: str) -> str | None:
    try:
        return urlsplit(address).netloc
    except ValueError:
        return None


def microseconds(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)
