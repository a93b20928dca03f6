"""A Stripe of our own: a server that speaks Stripe's HTTP, so that Stripe's own client can be tested, shown and broken.

The problem, on one example. A test wants a confirmation that is done and never answered, then asked again:

    POST /_simulator/faults     {"kind": "timeout_after_effect", "route": "payment_intents.confirm"}
    POST /v1/payment_intents/pi_1/confirm, Idempotency-Key: k     the card is charged; the connection breaks
    POST /v1/payment_intents/pi_1/confirm, Idempotency-Key: k     the answer that was lost: Idempotent-Replayed: true

Each API key is an account of its own, in one durable book (``simulator_book``). Nothing is charged and nobody is asked:
what a card does stands in ``simulator_input``. It listens on this machine only, unless told otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tenuto.gateway import simulator_cards as cards
from tenuto.gateway import simulator_intents as intents
from tenuto.gateway import simulator_taxes as taxes
from tenuto.gateway.simulator_book import (
    ANSWER_SECONDS,
    API_VERSION,
    Account,
    Answer,
    Book,
    Change,
    KeySettings,
    Obj,
    Refusal,
    encode,
)
from tenuto.gateway.simulator_control import Control, Rate
from tenuto.gateway.simulator_courier import Courier
from tenuto.gateway.simulator_faults import Fault, Faults
from tenuto.gateway.simulator_input import Params, pairs_of

BODY_BYTES_MAX: Final = 1_000_000
IDEMPOTENCY_KEY_MAX: Final = 255
EXPAND_MAX: Final = 20
EXPAND_DEPTH_MAX: Final = 4
TICK_SECONDS: Final = 0.05
HANG_SECONDS_MAX: Final = 600.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Verb = Callable[[Change, Params, str], Obj]


class Route(NamedTuple):
    """What answers a method and a path; ``right`` is what a restricted key needs for it."""

    name: str
    verb: Verb
    right: str


_PLACES: Final = {
    "create": ("POST", False, ""),
    "list": ("GET", False, ""),
    "retrieve": ("GET", True, ""),
    "update": ("POST", True, ""),
    "delete": ("DELETE", True, ""),
    "list_payment_methods": ("GET", True, "payment_methods"),
    "create_tax_id": ("POST", True, "tax_ids"),
    "list_tax_ids": ("GET", True, "tax_ids"),
    "retrieve_tax_id": ("GET", True, "tax_ids/"),
    "delete_tax_id": ("DELETE", True, "tax_ids/"),
}
"""Method, whether an id stands in the path, and what follows it; any other name is its own ``POST …/{id}/{name}``.

A slash at the end: another id follows, and the verb is given both, with a slash between.
"""

_VERBS: Final[dict[tuple[str, str], dict[str, Verb]]] = {
    ("customers", "customer"): {
        "create": cards.create_customer,
        "retrieve": cards.read_customer,
        "update": cards.update_customer,
        "delete": cards.delete_customer,
        "list": cards.list_customers,
        "list_payment_methods": cards.list_customer_methods,
        "create_tax_id": taxes.create_tax_id,
        "list_tax_ids": taxes.list_tax_ids,
        "retrieve_tax_id": taxes.read_tax_id,
        "delete_tax_id": taxes.delete_tax_id,
    },
    ("tokens", "token"): {"create": cards.create_token, "retrieve": cards.read_token},
    ("payment_methods", "payment_method"): {
        "create": cards.create_method,
        "retrieve": cards.read_method,
        "update": cards.update_method,
        "attach": cards.attach_method,
        "detach": cards.detach_method,
        "list": cards.list_methods,
    },
    ("setup_intents", "setup_intent"): {
        "create": cards.create_setup,
        "retrieve": cards.read_setup,
        "list": cards.list_setups,
        "confirm": cards.confirm_setup,
        "cancel": cards.cancel_setup,
    },
    ("payment_intents", "payment_intent"): {
        "create": intents.create_intent,
        "retrieve": intents.read_intent,
        "update": intents.update_intent,
        "list": intents.list_intents,
        "confirm": intents.confirm_intent,
        "capture": intents.capture_intent,
        "cancel": intents.cancel_intent,
    },
    ("charges", "charge"): {"retrieve": intents.read_charge, "list": intents.list_charges},
    ("refunds", "charge"): {
        "create": intents.create_refund,
        "retrieve": intents.read_refund,
        "update": intents.update_refund,
        "list": intents.list_refunds,
    },
    ("disputes", "dispute"): {
        "retrieve": intents.read_dispute,
        "list": intents.list_disputes,
        "close": intents.close_dispute,
    },
    ("events", "event"): {"retrieve": cards.read_event, "list": cards.list_events},
    ("webhook_endpoints", "webhook"): {
        "create": cards.create_endpoint,
        "list": cards.list_endpoints,
        "delete": cards.delete_endpoint,
    },
    ("account", "account"): {"list": cards.read_account},
    ("balance", "balance"): {"list": cards.read_balance},
}
"""The verbs of each resource, with the word for it in the rights of restricted keys."""


def _routes() -> dict[tuple[str, str, bool, str], Route]:
    """Every route, by method, resource, whether an id stands in the path, and what follows it."""
    found: dict[tuple[str, str, bool, str], Route] = {}
    for (resource, right), verbs in _VERBS.items():
        for name, verb in verbs.items():
            method, has_id, action = _PLACES.get(name, ("POST", True, name))
            access = "read" if method == "GET" else "write"
            found[method, resource, has_id, action] = Route(f"{resource}.{name}", verb, f"rak_{right}_{access}")
    return found


ROUTES: Final = _routes()


class Request(NamedTuple):
    """A request, read."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes


class Reply(NamedTuple):
    """An answer, ready to be sent."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class HungUp(Exception):
    """The connection is to be closed without an answer."""


class Door:
    """The ASGI application: Stripe's routes below ``/v1``, the control routes below ``/_simulator``."""

    def __init__(self, book: Book) -> None:
        self.book, self.faults = book, Faults()
        self.courier = Courier(book, self.faults)
        self.rates: dict[str, Rate] = {}
        self.control = Control(book, self.faults, self.courier, self.rates)
        self._ticker: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > BODY_BYTES_MAX or not message.get("more_body"):
                break
        query = scope["query_string"].decode("latin-1")
        request = Request(scope["method"], scope["path"], query, dict(scope["headers"]), body)
        try:
            if len(body) > BODY_BYTES_MAX:
                reply = Reply(413, Refusal(413, "The request is too large.").body(), ((b"connection", b"close"),))
            elif request.path.startswith("/_simulator/"):
                reply = Reply(*await self.control.answer(request.method, request.path, request.query, request.body))
            else:
                reply = await self._answer(request)
        except HungUp:
            transport = scope.get("extensions", {}).get("tenuto.transport")
            if transport is not None:
                transport.abort()
                while (await receive())["type"] != "http.disconnect":
                    pass
                return
            reply = Reply(500, b"{}")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.courier.start()
                self._ticker = asyncio.get_running_loop().create_task(self._tick())
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._ticker is not None:
                    self._ticker.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await self._ticker
                await self.courier.stop()
                self.book.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.control.finish_due()

    # --- Stripe's routes ---------------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Reply:
        request_id = f"req_{secrets.token_hex(7)}"
        headers: list[tuple[bytes, bytes]] = [
            (b"request-id", request_id.encode()),
            (b"stripe-version", API_VERSION.encode()),
        ]
        try:
            key = _key_of(request.headers.get(b"authorization", b""))
            settings = self._let_in(key)
            route, id = _route_of(request, key, settings, self.book.account_of(key))
            struck = self.faults.strike_call(key, request.method, request.path, route.name)
            await _strike_before(struck)
            name = request.headers.get(b"idempotency-key", b"").decode("latin-1") if request.method == "POST" else ""
            account = self.book.account_of(key)
            _refuse_name(name, account)
            account.in_flight.add(name)
            try:
                await _strike_slow(struck)
                status, body, is_replay = self._work(
                    request, route, id, Change(self.book, account, request_id, name or None), struck
                )
            finally:
                account.in_flight.discard(name)
            await _strike_after(struck)
        except Refusal as refusal:
            return Reply(refusal.status, refusal.body(), tuple(headers))
        if name:
            headers.append((b"idempotency-key", name.encode("latin-1")))
        if is_replay:
            headers.append((b"idempotent-replayed", b"true"))
        return Reply(status, body, tuple(headers))

    def _let_in(self, key: str) -> KeySettings | None:
        """What is known of a key that may call. Raises what Stripe answers to one that may not."""
        settings = self.book.keys.get(key)
        masked = f"{key[:8]}{'*' * 8}{key[-4:]}"
        if settings is not None and settings.is_revoked:
            raise Refusal(401, f"Expired API Key provided: {masked}", code="api_key_expired")
        if key.startswith("pk_"):
            message = "This API call cannot be made with a publishable API key. Please use a secret API key."
            raise Refusal(401, message, code="secret_key_required")
        if not key.startswith(("sk_test_", "rk_test_", "sk_live_", "rk_live_")):
            raise Refusal(401, f"Invalid API Key provided: {masked}")
        rate = self.rates.get(key)
        if rate is None:
            rate = self.rates[key] = Rate()
        calls = rate.count(time.monotonic())
        if settings is not None and settings.requests_per_second is not None and calls > settings.requests_per_second:
            raise _too_many()
        return settings

    def _work(
        self, request: Request, route: Route, id: str, change: Change, struck: list[Fault]
    ) -> tuple[int, bytes, bool]:
        """Do what is asked, once for its Idempotency-Key: status, body, and whether it was done before."""
        account, key = change.account, change.idempotency_key
        pairs = pairs_of(request.body.decode("utf-8", "replace") if request.body else request.query)
        fingerprint = ""
        if key is not None:
            said = encode([request.method, request.path, sorted(pairs)])
            fingerprint = blake2b(said, digest_size=12).hexdigest()
            before = account.answers.get(key)
            if before is not None and before.at > change.now - ANSWER_SECONDS:
                if before.fingerprint != fingerprint:
                    raise _other_request(key)
                return before.status, before.body, True
        change.ask_bank = lambda kind: self.faults.strike_bank(
            kind, _key_of(request.headers[b"authorization"]), request.method, request.path, route.name
        )
        status, is_stored, answered, body = 200, True, None, b""
        try:
            params = Params.parse(pairs)
            found = route.verb(change, params, id)
            answered = str(found.get("id", ""))
            if params.expand:
                found, answered = _expand(account, found, params.expand), None
            body = encode(found)
        except Refusal as refusal:
            status, body, is_stored = refusal.status, refusal.body(), refusal.is_stored
        kinds = {fault.kind for fault in struck}
        if "500_after_effect" in kinds:
            status, body, is_stored, answered = 500, _server_error().body(), True, None  # the work stays done
        is_stored = is_stored and key is not None and "forget" not in kinds
        answer = (key or "", Answer(fingerprint, status, body, change.now)) if is_stored else None
        self.book.commit(change, answer, answered)
        return status, body, False


# --- what a request says ---------------------------------------------------------------------------------------------


def _key_of(header: bytes) -> str:
    """The API key that a request carries, as Bearer or as the user of Basic."""
    scheme, _, value = header.decode("latin-1").partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(BadBase64, UnicodeDecodeError):
            return b64decode(value, validate=True).decode().partition(":")[0]
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    message = (
        "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer "
        "auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
    )
    raise Refusal(401, message)


def _route_of(request: Request, key: str, settings: KeySettings | None, account: Account) -> tuple[Route, str]:
    """The route of a request, and the id in its path. Raises what Stripe answers to others."""
    parts = request.path.strip("/").split("/")
    found = None
    id = ""
    if parts[0] == "v1" and 2 <= len(parts) <= 5:  # noqa: PLR2004 - v1, resource, id, action, id
        resource, id, action, inner = (*parts[1:], "", "", "")[:4]
        if inner:
            id, action = f"{id}/{inner}", f"{action}/"
        found = ROUTES.get((request.method, resource, bool(id), action))
    if found is None:
        raise Refusal(404, f"Unrecognized request URL ({request.method}: {request.path}).")
    lacking = (
        {right if right.startswith("rak_") else f"rak_{right}" for right in settings.missing_rights} if settings else ()
    )
    if found.right in lacking:
        message = (
            f"The provided key '{key[:8]}{'*' * 8}{key[-4:]}' does not have the required permissions for this endpoint "
            f"on account '{cards.account_id(account)}'. Having the '{found.right}' permission would allow this request "
            "to continue."
        )
        raise Refusal(403, message, type="permission_error")
    return found, id


def _expand(account: Account, obj: Obj, paths: list[str]) -> Obj:
    """A copy of an answer in which the ids at some paths are the objects themselves."""
    if len(paths) > EXPAND_MAX:
        raise Refusal(400, f"You cannot expand more than {EXPAND_MAX} properties.", param="expand")
    found = dict(obj)
    for path in paths:
        steps = path.split(".")
        if len(steps) > EXPAND_DEPTH_MAX:
            message = f"You cannot expand more than {EXPAND_DEPTH_MAX} levels of a property. Property: {path}"
            raise Refusal(400, message, param="expand")
        _expand_path(account, found, steps, path)
    return found


def _expand_path(account: Account, obj: Obj, steps: list[str], path: str) -> None:
    name, rest = steps[0], steps[1:]
    if name == "data" and obj.get("object") == "list":
        obj["data"] = [dict(found) for found in obj["data"]]
        for found in obj["data"]:
            _expand_path(account, found, rest or [""], path)
        return
    value = obj.get(name, "")
    if isinstance(value, str):
        known = account.objects.get(value)
        if known is None:
            raise Refusal(400, f"This property cannot be expanded ({path}).", param="expand")
        value = known
    if isinstance(value, dict):
        obj[name] = dict(value)
        if rest:
            _expand_path(account, obj[name], rest, path)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def _too_many() -> Refusal:
    message = "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits."
    return Refusal(429, message, code="rate_limit", is_stored=False)


def _server_error() -> Refusal:
    message = "An unknown error occurred. (The simulator was told to answer so.)"
    return Refusal(500, message, type="api_error")


def _refuse_name(key: str, account: Account) -> None:
    """Refuse an Idempotency-Key that is too long, or whose first request is not over."""
    if len(key) > IDEMPOTENCY_KEY_MAX:
        message = f"Idempotency-Key may have up to {IDEMPOTENCY_KEY_MAX} characters."
        raise Refusal(400, message, type="idempotency_error", is_stored=False)
    if key and key in account.in_flight:
        message = (
            "There is currently another in-progress request using this Idempotent Key (that probably means you "
            f"submitted twice, and the other request is still going through): {key}. Please try again later."
        )
        raise Refusal(409, message, type="idempotency_error", code="idempotency_key_in_use", is_stored=False)


def _other_request(key: str) -> Refusal:
    message = (
        "Keys for idempotent requests can only be used with the same parameters they were first used with. Try using "
        f"a key other than '{key}' if you meant to execute a different request."
    )
    return Refusal(400, message, type="idempotency_error", is_stored=False)


async def _strike_before(struck: list[Fault]) -> None:
    """Faults that keep a request from being done."""
    for fault in struck:
        if fault.kind == "429":
            raise _too_many()
        if fault.kind == "lock_timeout":
            message = (
                "This object cannot be accessed right now because another API request or Stripe process is currently "
                "accessing it. If you see this error intermittently, retry the request."
            )
            raise Refusal(429, message, code="lock_timeout", is_stored=False)
        if fault.kind == "500_before":
            raise _server_error()
        if fault.kind == "timeout_before_effect":
            await _hang(fault)


async def _strike_slow(struck: list[Fault]) -> None:
    for fault in struck:
        if fault.kind == "slow":
            await asyncio.sleep(min(fault.seconds or 1.0, HANG_SECONDS_MAX))


async def _strike_after(struck: list[Fault]) -> None:
    for fault in struck:
        if fault.kind == "timeout_after_effect":
            await _hang(fault)


async def _hang(fault: Fault) -> None:
    if fault.seconds:
        await asyncio.sleep(min(fault.seconds, HANG_SECONDS_MAX))
    raise HungUp


# --- the process -----------------------------------------------------------------------------------------------------


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP, which lets the door break a connection."""

    def on_message_begin(self) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
        """Hand the transport on with the request."""
        super().on_message_begin()
        self.scope["extensions"] = {"tenuto.transport": self.transport}  # type: ignore[dict-item]


def application(book: Book) -> Door:
    """The ASGI application that answers from a book."""
    return Door(book)


def server_of(door: Door) -> uvicorn.Server:
    """The server in front of a door; it is given its socket when it is run."""
    config = uvicorn.Config(
        door,
        http=Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening socket. Raises OSError when the address cannot be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def run(
    host: str = "127.0.0.1",
    port: int = 0,
    data: Path | None = None,
    *,
    socket_fd: int | None = None,
    is_synced: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM, and say where. ``socket_fd`` is a socket that listens already."""
    listener = listen(host, port) if socket_fd is None else socket.socket(fileno=socket_fd)
    door = application(Book(data, is_synced=is_synced))
    bound, chosen = listener.getsockname()[:2]
    say(f"The Stripe simulator answers at http://{f'[{bound}]' if ':' in bound else bound}:{chosen}")
    server_of(door).run(sockets=[listener])
