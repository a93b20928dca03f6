"""The pipeline every request goes through, and the application made of the table of routes.

Order of judgement: route, method, size, caller, scope, content type, syntax, shape, ids, idempotency, rule (bar 4.1).
Litestar routes and serves; the few routes of the hot path stand beside it in front, matched by hand, because a general
router costs more than they do. Both ends run the same pipeline, ``perform``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

import structlog
import uuid_utils
from litestar import HttpMethod, Litestar, Request, Response
from litestar import route as litestar_route
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.handlers import HTTPRouteHandler
from litestar.types import HTTPScope, Receive, Scope, Send

from tenuto.console.app import handlers as console_handlers
from tenuto.console.app import is_page, lost
from tenuto.core.outcomes import REFUSALS, Kind, Refusal, invalid
from tenuto.core.user import Session
from tenuto.engine import Answer, Engine
from tenuto.lanes import Lost, Overloaded
from tenuto.store.accounts import Environment
from tenuto.store.database import Contended, Unavailable

from . import (
    account_plans,
    accounts,
    cards,
    catalog,
    clearance,
    clock,
    deliveries,
    dialect,
    flags,
    forecast,
    grants,
    invoices,
    issuers,
    organization_cards,
    organization_invoices,
    organization_plans,
    organization_tax,
    organization_tree,
    organizations,
    pages,
    pauses,
    payments,
    plans,
    portal,
    refills,
    reports,
    requests,
    tokens,
    usage,
    users,
    webhooks,
)
from .auth import Caller, Callers, caller_of
from .body import BODY_MAX
from .openapi import document
from .routes import Call, Route
from .tokens import Member
from .usage import error_body

ROUTES: Final = (
    *(*accounts.ROUTES, *users.ROUTES, *clock.ROUTES),
    *(*catalog.ROUTES, *plans.ROUTES, *forecast.ROUTES, *usage.ROUTES),
    *(*account_plans.ROUTES, *grants.ROUTES, *flags.ROUTES, *pauses.ROUTES),
    *(*cards.ROUTES, *refills.ROUTES, *payments.ROUTES, *invoices.ROUTES, *requests.ROUTES, *portal.ROUTES),
    *(*reports.ROUTES, *webhooks.ROUTES, *deliveries.ROUTES),
    *organizations.ROUTES,
    *organization_plans.ROUTES,
    *organization_invoices.ROUTES,
    *organization_cards.ROUTES,
    *organization_tax.ROUTES,
    *issuers.ROUTES,
    *clearance.ROUTES,
    *organization_tree.ROUTES,
)

STATUSES: Final = {
    Kind.UNREADABLE: 400,
    Kind.UNAUTHORIZED: 401,
    Kind.PAYMENT: 402,
    Kind.FORBIDDEN: 403,
    Kind.MISSING: 404,
    Kind.METHOD: 405,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.TOO_LONG: 414,
    Kind.MEDIA: 415,
    Kind.INVALID: 422,
    Kind.FAULT: 500,
    Kind.BUSY: 503,
}
URI_MAX: Final = 8192
QUERY_FIELDS_MAX: Final = 50
BODY_SECONDS: Final = 10.0

_ESCAPED_SLASH: Final = re.compile("%2[fF]")
_SLASH: Final = "\ufffe"
"""A slash inside a name of the path (a denomination may hold one) until the path is taken apart; never a character."""

_JSON: Final = (b"content-type", b"application/json; charset=utf-8")
_PRIVATE: Final = (
    _JSON,
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_log = structlog.get_logger()


class Reply(NamedTuple):
    """What goes on the wire."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


async def perform(
    engine: Engine, callers: Callers, route: Route, params: Mapping[str, str], scope: HTTPScope, receive: Receive
) -> Reply:
    """One request, from its headers to its reply. Never raises but for cancellation."""
    headers = dict(scope["headers"])
    request_id = f"req_{uuid_utils.uuid7().hex}"
    started = time.perf_counter()
    try:
        answer = await _judged(engine, callers, route, params, headers, scope, receive, request_id)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - the last door: whatever is wrong leaves in the one shape
        return _failed(error, route, request_id, started)
    if route.method != "GET" and route.serve not in _PROVEN_BY_THE_STORE:
        _log.info(
            route.serve.__name__, status=answer.status, request_id=request_id, ms=_milliseconds(started), **params
        )
    shown = [*_PRIVATE, (b"x-request-id", request_id.encode())]
    if answer.is_replay:
        shown.append((b"idempotent-replayed", b"true"))
    if answer.media:
        shown[0] = (b"content-type", answer.media.encode())
    return Reply(answer.status, shown, answer.body)


async def _judged(
    engine: Engine,
    callers: Callers,
    route: Route,
    params: Mapping[str, str],
    headers: Mapping[bytes, bytes],
    scope: HTTPScope,
    receive: Receive,
    request_id: str,
) -> Answer:
    if len(scope["raw_path"] or b"") + len(scope["query_string"]) > URI_MAX:
        raise Refusal("uri_too_long")
    _refuse_size(headers)
    if len(headers) != len(list(scope["headers"])):
        _refuse_doubled(scope["headers"])
    caller = await _caller_of(engine, callers, route, headers.get(b"authorization"))
    body = b"" if route.body is None else await _body(receive)
    if route.body is not None and (body or route.serve not in _OPTIONAL_BODY):
        _refuse_media(headers, route)
    query = _query(scope["query_string"], route) if scope["query_string"] else {}
    call = Call(
        engine,
        callers,
        route=route,
        params=params,
        query=query,
        headers=headers,
        body=body,
        request_id=request_id,
        caller=caller,
        address=client_of(scope),
    )
    try:
        return await route.serve(call)
    except Refusal:
        # A remembered caller was not proven if the work stopped before the store was asked.
        if caller is not None and route.serve in _PROVEN_BY_THE_STORE:
            await callers.proven(headers.get(b"authorization"))
        raise


def client_of(scope: HTTPScope) -> str:
    """The address that a request came from."""
    client = scope["client"]
    return client[0] if client else ""


async def _caller_of(engine: Engine, callers: Callers, route: Route, header: bytes | None) -> Caller | Member | None:
    """Who calls, with the scope that the route needs; None where the route is open to all."""
    if route.is_open:
        return None
    caller: Caller | Member | None = None
    if route.family == dialect.FAMILY:
        caller = await tokens.proven(engine, header)
    elif header is not None and route.serve in _PROVEN_BY_THE_STORE:
        caller = callers.remembered(header)
    if caller is None:
        caller = await callers.proven(header)
    if route.scope is not None:
        caller.needs(route.scope)
    return caller


_PROVEN_BY_THE_STORE: Final = frozenset(
    {usage.record_events, usage.finish_event, usage.delete_event, usage.get_balance, flags.list_flags, flags.get_flag}
)
_OPTIONAL_BODY: Final = frozenset(
    {
        *(accounts.open_balance, accounts.issue_key, invoices.cut_invoice, invoices.make_link, cards.make_link),
        *(payments.refund_payment, payments.resume_capture, account_plans.cancel_plan, *pauses.WITHOUT_BODY),
        *(webhooks.subscribe, webhooks.rotate_secret, deliveries.send_test, *organization_plans.WITHOUT_BODY),
        portal.make_portal_link,
    }
)
_SINGLE: Final = {
    b"authorization": "invalid_credentials",
    b"content-type": "unsupported_media_type",
    b"idempotency-key": "idempotency_key_invalid",
    b"x-dedupeid": "idempotency_key_invalid",
}


def _refuse_size(headers: Mapping[bytes, bytes]) -> None:
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or int(length[:19]) > BODY_MAX):
        raise Refusal("body_too_large")


def _refuse_doubled(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """A header that decides something and is sent twice may mean either: it means nothing."""
    names = [name for name, _ in headers]
    for name, code in _SINGLE.items():
        if names.count(name) > 1:
            raise Refusal(code, f"The header {name.decode()} is sent more than once.")


def _refuse_media(headers: Mapping[bytes, bytes], route: Route) -> None:
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"application/json":
        return
    if route.serve is usage.record_events and kind in {
        b"application/cloudevents+json",
        b"application/cloudevents-batch+json",
    }:
        return
    raise Refusal("unsupported_media_type")


async def _body(receive: Receive) -> bytes:
    """The whole body, read no further than its bound, and not for longer than a slow but honest client needs."""
    chunks: list[bytes] = []
    size = 0
    task = asyncio.current_task()
    assert task is not None
    _READING[task] = time.monotonic() + BODY_SECONDS
    try:
        while True:
            message: Mapping[str, Any] = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal("invalid_json", "The body did not arrive whole.")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > BODY_MAX:
                raise Refusal("body_too_large")
            if not message.get("more_body"):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except asyncio.CancelledError as error:
        if time.monotonic() < _READING[task]:
            raise
        task.uncancel()
        raise Refusal("invalid_json", "The body did not arrive in time.") from error
    finally:
        del _READING[task]


_READING: Final[dict[asyncio.Task[Any], float]] = {}
"""Requests whose bodies are being read, with the moment at which that has taken too long. A timer for each would cost
every event more than its price is computed in."""


async def _end_slow_readings() -> None:
    while True:
        await asyncio.sleep(1)
        now = time.monotonic()
        for task, deadline in list(_READING.items()):
            if deadline <= now:
                task.cancel()


def _query(query_string: bytes, route: Route) -> dict[str, str]:
    """The query parameters, each known and given once."""
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=False,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except (UnicodeDecodeError, ValueError) as error:
        raise Refusal("invalid_encoding", "The query cannot be read.") from error
    known = {param.name for param in route.query}
    query: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise invalid(name[:100], "is not a parameter of this call.", "unknown_field")
        if name in query:
            raise invalid(name, "is given twice.")
        query[name] = value
    return query


def _failed(
    error: Exception, route: Route | None, request_id: str, started: float, *, is_member: bool = False
) -> Reply:
    """The reply to an expected no, to a database that is away, or to a fault of ours.

    ``is_member``: it is said in the dialect, though there is no route, whose status then stays what it is.
    """
    refusal = _refusal_of(error)
    is_member = is_member or (route is not None and route.family == dialect.FAMILY)
    status, body = STATUSES[refusal.kind], error_body(refusal, request_id)
    if is_member:
        spelled, body = dialect.refused(refusal, STATUSES)
        status = status if route is None else spelled
    headers: list[tuple[bytes, bytes]] = [*_PRIVATE, (b"x-request-id", request_id.encode())]
    if refusal.kind is Kind.UNAUTHORIZED:
        asked = b'Bearer realm="tenuto"' if is_member else b'Basic realm="tenuto", charset="UTF-8"'
        headers.append((b"www-authenticate", asked))
    if refusal.kind is Kind.BUSY or refusal.code == "request_in_progress":
        headers.append((b"retry-after", b"1"))
    action = "unknown_route" if route is None else route.serve.__name__
    if refusal.kind is Kind.FAULT:
        _log.error(action, status=status, request_id=request_id, ms=_milliseconds(started), exc_info=error)
    elif status not in {401, 402, 404}:
        _log.info(action, status=status, code=refusal.code, request_id=request_id, ms=_milliseconds(started))
    return Reply(status, headers, body)


def _refusal_of(error: Exception) -> Refusal:
    match error:
        case Refusal():
            return error
        case Unavailable() | Lost() | TimeoutError():
            return Refusal("unavailable")
        case Overloaded() | Contended():
            return Refusal("overloaded")
        case _:
            return Refusal("internal_error")


def _milliseconds(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


class Application:
    """The ASGI application: hot routes first, Litestar for the rest.

    ``open_engine`` is called once at start-up; what it gives is closed at the end.
    """

    def __init__(self, open_engine: Callable[[], Awaitable[Engine]], close: Callable[[], Awaitable[None]]) -> None:
        self._open_engine, self._close = open_engine, close
        self._engine: Engine | None = None
        self._callers: Callers | None = None
        hot = {(route.method, route.serve): route for route in ROUTES}
        self._record = hot["POST", usage.record_events]
        self._finish = hot["PUT", usage.finish_event]
        self._reads = {
            ("balance", 5): (hot["GET", usage.get_balance], "denomination"),
            ("flags", 4): (hot["GET", flags.list_flags], None),
            ("flags", 5): (hot["GET", flags.get_flag], "name"),
        }
        self._litestar = Litestar(
            route_handlers=[
                *(self._endpoint(path, routes) for path, routes in _by_path().items()),
                *pages.handlers(document(ROUTES, {code: STATUSES[kind] for code, (kind, _) in REFUSALS.items()}), self),
                *console_handlers(self),
            ],
            exception_handlers={Exception: _out_of_route, HTTPException: _out_of_route},
            lifespan=[self._lifespan],
            openapi_config=None,
            logging_config=None,
            pdb_on_exception=False,
        )

    @property
    def engine(self) -> Engine:
        """The engine, between start-up and end."""
        assert self._engine is not None
        return self._engine

    async def ask(  # noqa: PLR0913 - a request is all of this
        self,
        environment: Environment | None,
        session: Session | None,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes,
        key: str,
        address: str,
    ) -> Answer:
        """What a route answers to somebody who is signed in, in this process: how the console reads and does things.

        Scope, shape and rule are judged as for any request. ``key`` is an Idempotency-Key, or empty. Raises Refusal.
        """
        route = _TABLE[method, path]
        caller = None if environment is None or session is None else caller_of(environment, session.user)
        if caller is not None and route.scope is not None:
            caller.needs(route.scope)
        assert self._callers is not None
        call = Call(
            self.engine,
            self._callers,
            route=route,
            params=params,
            query=query,
            headers={b"idempotency-key": f"console {key}".encode()} if key else {},
            body=body,
            request_id=f"req_{uuid_utils.uuid7().hex}",
            caller=caller,
            address=address,
        )
        try:
            return await route.serve(call)
        except (Unavailable, Lost, TimeoutError, Overloaded, Contended) as error:
            raise _refusal_of(error) from error

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:  # noqa: ARG002 - Litestar's signature
        self._engine = await self._open_engine()
        self._callers = Callers(self._engine)
        slow = asyncio.create_task(_end_slow_readings())
        try:
            yield
        finally:
            slow.cancel()
            await self._close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != ScopeType.HTTP:
            await self._litestar(scope, receive, send)
            return
        path = scope["path"]
        if b"%2" in scope["raw_path"]:
            path = unquote(_ESCAPED_SLASH.sub(_SLASH, scope["raw_path"].decode("ascii")))
        if path.startswith("/v1/"):
            path = path[3:]
        if len(path) > 1 and path.endswith("/"):
            path = path[:-1]
        hot = self._hot(str(scope["method"]), path)
        if hot is None:
            scope["path"] = path
            scope["raw_path"] = path.encode()
            await self._litestar(scope, receive, send)
            return
        assert self._engine is not None
        assert self._callers is not None
        reply = await perform(self._engine, self._callers, hot[0], hot[1], scope, receive)
        await send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": [*reply.headers, (b"content-length", b"%d" % len(reply.body))],
            }
        )
        await send({"type": "http.response.body", "body": reply.body, "more_body": False})

    def _hot(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        parts = path.split("/")
        if method == "POST" and len(parts) == 4 and parts[1] == "accounts" and parts[3] == "events":  # noqa: PLR2004
            return self._record, {"account_id": parts[2]}
        if method == "GET" and len(parts) > 3 and parts[1] == "accounts":  # noqa: PLR2004
            route, name = self._reads.get((parts[3], len(parts)), (None, None))
            if route is not None:
                named = {} if name is None else {name: parts[4].replace(_SLASH, "/")}
                return route, {"account_id": parts[2], **named}
        if method == "PUT" and len(parts) == 3 and parts[1] == "events":  # noqa: PLR2004
            return self._finish, {"event_id": parts[2]}
        return None

    def _endpoint(self, path: str, routes: Sequence[Route]) -> HTTPRouteHandler:
        """One Litestar handler for all methods of a path."""
        by_method = {route.method: route for route in routes}

        async def endpoint(request: Request[Any, Any, Any]) -> Response[bytes]:
            assert self._engine is not None
            assert self._callers is not None
            route = by_method[request.scope["method"]]
            params = {name: str(value).replace(_SLASH, "/") for name, value in request.path_params.items()}
            reply = await perform(self._engine, self._callers, route, params, request.scope, request.receive)
            return _response(reply)

        decorate = litestar_route(
            path.replace("}", ":str}"), http_method=[HttpMethod(method) for method in by_method], status_code=200
        )
        return decorate(endpoint)


_TABLE: Final = {(route.method, route.path): route for route in ROUTES}


def _by_path() -> dict[str, list[Route]]:
    paths: dict[str, list[Route]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, []).append(route)
    return paths


def _response(reply: Reply) -> Response[bytes]:
    return Response(
        reply.body,
        status_code=reply.status,
        media_type=dict(reply.headers)[b"content-type"].decode(),
        headers={name.decode(): value.decode() for name, value in reply.headers if name != b"content-type"},
    )


def _out_of_route(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """What the router itself refuses, in our shape."""
    if is_page(request.scope["path"]):
        return lost(is_method=isinstance(error, MethodNotAllowedException))
    started = time.perf_counter()
    request_id = f"req_{uuid_utils.uuid7().hex}"
    is_member = dialect.is_of_family(request.scope["path"])
    if isinstance(error, MethodNotAllowedException):
        reply = _failed(Refusal("method_not_allowed"), None, request_id, started, is_member=is_member)
        allowed = sorted({route.method for route in ROUTES if _matches(route.path, request.scope["path"])}) or ["GET"]
        return _response(reply._replace(headers=[*reply.headers, (b"allow", ", ".join(allowed).encode())]))
    if isinstance(error, HTTPException) and error.status_code < 500:  # noqa: PLR2004
        error = Refusal("not_found")
    return _response(_failed(error, None, request_id, started, is_member=is_member))


def _matches(pattern: str, path: str) -> bool:
    ours, theirs = pattern.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(
        own == other or own.startswith("{") for own, other in zip(ours, theirs, strict=True)
    )
