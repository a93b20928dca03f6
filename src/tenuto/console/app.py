"""The table of the console's pages, and how they are mounted beside the API."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from litestar import HttpMethod, Response, route
from litestar.handlers import HTTPRouteHandler

from tenuto.core.outcomes import Refusal
from tenuto.store.database import Contended, Unavailable

from . import (
    account_admin,
    account_balances,
    account_flags,
    account_plan,
    accounts,
    credit,
    engine_pauses,
    home,
    invoices,
    issuers,
    money,
    people,
    plans,
    reports,
    settings,
    sign,
    webhook_logs,
    webhooks,
)
from .frame import HEADERS, Asked, House, Page, attend, closed

REPORT_MAX: Final = 4096
REPORT_SECONDS: Final = 1.0
"""At most one report is written down in so many seconds: anybody can send one."""
_REPORTED: Final = [0.0]
_log = structlog.get_logger()

PAGES: Final = (
    *home.PAGES,
    *(*accounts.PAGES, *account_admin.PAGES, *account_balances.PAGES, *account_plan.PAGES, *account_flags.PAGES),
    *(*money.PAGES, *invoices.PAGES, *plans.PAGES, *reports.PAGES),
    *(*settings.PAGES, *credit.PAGES, *issuers.PAGES, *webhooks.PAGES, *webhook_logs.PAGES),
    *(*engine_pauses.PAGES, *people.PAGES),
)
"""Every page for those who are signed in."""

OPEN: Final[tuple[tuple[str, str, Callable[[House, Asked], Awaitable[Response[Any]]]], ...]] = (
    ("GET", "/control/sign-in", sign.sign_in_page),
    ("POST", "/control/sign-in", sign.sign_in),
    ("GET", "/control/sign-up", sign.sign_up_page),
    ("POST", "/control/sign-up", sign.sign_up),
    ("GET", "/control/join/{token}", sign.join_page),
    ("POST", "/control/join/{token}", sign.join),
)
"""Every page for those who are not, by method and path."""


def is_page(path: str) -> bool:
    """Whether an address is one that people look at."""
    return path == "/" or path.startswith("/control")


def lost(*, is_method: bool) -> Response[Any]:
    """What people see at an address where there is no page, or none for what was sent."""
    return closed(Refusal("method_not_allowed" if is_method else "not_found"))


async def _csp_report(house: House, request: Asked) -> Response[Any]:  # noqa: ARG001 - as every open page
    """What a browser refused to do for a page: a fault of ours, or of an extension; written down, never answered."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > REPORT_MAX:
            break
    if time.monotonic() >= _REPORTED[0] + REPORT_SECONDS:
        _REPORTED[0] = time.monotonic()
        _log.warning("csp_report", report=body[:REPORT_MAX].decode("ascii", "replace"))
    return Response(b"", status_code=204, headers=HEADERS)


def handlers(house: House) -> list[HTTPRouteHandler]:
    """The handlers, for Litestar."""
    by_path: dict[str, dict[str, Callable[[Asked], Awaitable[Response[Any]]]]] = {}
    for page in PAGES:
        by_path.setdefault(page.path, {})[page.method] = _attending(house, page)
    for method, path, serve in (*OPEN, ("POST", "/control/csp", _csp_report)):
        by_path.setdefault(path, {})[method] = _open(house, serve)
    return [_mounted(path, methods) for path, methods in by_path.items()]


def _attending(house: House, page: Page) -> Callable[[Asked], Awaitable[Response[Any]]]:
    async def attending(request: Asked) -> Response[Any]:
        return await attend(house, page, request)

    return attending


def _open(
    house: House, serve: Callable[[House, Asked], Awaitable[Response[Any]]]
) -> Callable[[Asked], Awaitable[Response[Any]]]:
    async def opened(request: Asked) -> Response[Any]:
        try:
            return await serve(house, request)
        except Refusal as refusal:
            return closed(refusal)
        except (Unavailable, Contended, TimeoutError):
            return closed(Refusal("unavailable"))
        except Exception as error:  # noqa: BLE001 - the last door: whatever is wrong leaves as a page
            _log.error("console", path=request.scope["path"], exc_info=error)
            return closed(Refusal("internal_error", "Something went wrong on our side; it was written down."))

    return opened


def _mounted(path: str, methods: dict[str, Callable[[Asked], Awaitable[Response[Any]]]]) -> HTTPRouteHandler:
    async def page(request: Asked) -> Response[Any]:
        return await methods[request.method](request)

    decorate = route(
        path.replace("}", ":str}"), http_method=[HttpMethod(method) for method in methods], status_code=200
    )
    return decorate(page)
