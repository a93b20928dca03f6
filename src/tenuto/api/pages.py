"""What is served beside the API: health, metrics, the OpenAPI document, and the pages under ``/docs``.

The pages need nothing but this service: script and style come from ``static/``, a folder of which only the files named
here are handed out. They hold no inline script and no inline style, so their Content-Security-Policy can forbid both.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cache
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tenuto import metrics
from tenuto.core.outcomes import REFUSALS
from tenuto.core.topic import TOPICS
from tenuto.store import accounts
from tenuto.store.database import Unavailable

from . import card_pages, invoice_pages, portal, request_pages

if TYPE_CHECKING:
    from .app import Application

HTML: Final = "text/html"  # Litestar adds the charset to every text
STATIC: Final = {
    "docs.css": "text/css",
    "docs.js": "text/javascript",
    "card.js": "text/javascript",
    "hosted.css": "text/css",
    "control/control.css": "text/css",
    "control/control.js": "text/javascript",
    "control/mark.svg": "image/svg+xml",
    "htmx/htmx.min.js": "text/javascript",
    "htmx/sse.min.js": "text/javascript",
    "htmx/LICENSE": "text/plain",
    "chart/chart.umd.min.js": "text/javascript",
    "chart/LICENSE.md": "text/plain",
    "swagger-ui/swagger-ui.css": "text/css",
    "swagger-ui/swagger-ui-bundle.js": "text/javascript",
    "swagger-ui/swagger-ui-bundle.js.LICENSE.txt": "text/plain",
    "swagger-ui/LICENSE": "text/plain",
    "swagger-ui/NOTICE": "text/plain",
}
"""Every file that ``/static`` knows, with its content type."""

_PLAIN_HEADERS: Final = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
# img-src data: is for the icons inside Swagger UI's style sheet; connect-src is for "Try it out" and the document.
_PAGE_HEADERS: Final = {
    **_PLAIN_HEADERS,
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
}
_HEAD: Final = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="/static/docs.css">\n'
)
_LINKS: Final = (
    '<header><a href="/docs">API</a><a href="/docs/errors">Errors</a><a href="/docs/topics">Topics</a>'
    '<a href="/openapi.json">OpenAPI</a></header>\n'
)
_API_PAGE: Final = (
    f"{_HEAD}<title>Tenuto API</title>\n"
    '<link rel="stylesheet" href="/static/swagger-ui/swagger-ui.css">\n'
    '<script src="/static/swagger-ui/swagger-ui-bundle.js" defer></script>\n'
    '<script src="/static/docs.js" defer></script>\n'
    f'</head>\n<body>\n{_LINKS}<main id="api"></main>\n'
    "<noscript>This page needs JavaScript; the same description is at /openapi.json.</noscript>\n</body>\n</html>\n"
)


class _StaticFile(NamedTuple):
    content: bytes
    etag: str


@cache
def _static_file(path: str) -> _StaticFile:
    content = (resources.files("tenuto") / "static" / path).read_bytes()
    return _StaticFile(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def errors_page(statuses: dict[str, int]) -> str:
    """The page that ``doc_url`` of every error leads to: a section per code, named by it."""
    sections = "".join(
        f'<section id="{code}"><h2><code>{code}</code><span class="status">{statuses[code]}</span></h2>'
        f"<p>{escape(sentence)}</p></section>\n"
        for code, (_, sentence) in REFUSALS.items()
    )
    return (
        f'{_HEAD}<title>Tenuto errors</title>\n</head>\n<body>\n{_LINKS}<main class="text">\n<h1>Errors</h1>\n'
        "<p>Every error has a code from this list and the HTTP status beside it. The order is the order of judgement:"
        f" what stands above is said first.</p>\n{sections}</main>\n</body>\n</html>\n"
    )


def topics_page() -> str:
    """The page of what webhooks can hear: a section per topic, named by it, with the fields of its ``data``."""
    sections = "".join(
        f'<section id="{name}"><h2><code>{name}</code></h2><p>{escape(topic.what)}</p>'
        f"<p>{', '.join(f'<code>{field}</code>' for field in topic.fields)}</p></section>\n"
        for name, topic in TOPICS.items()
    )
    return (
        f'{_HEAD}<title>Tenuto topics</title>\n</head>\n<body>\n{_LINKS}<main class="text">\n<h1>Topics</h1>\n'
        "<p>Every topic that a webhook can hear, with the fields of its <code>data</code>. What is about an account"
        f" carries its <code>metadata</code> too.</p>\n{sections}</main>\n</body>\n</html>\n"
    )


def handlers(openapi: dict[str, Any], application: Application) -> list[HTTPRouteHandler]:
    """The handlers, for Litestar."""
    from .app import STATUSES  # noqa: PLC0415 - app makes these pages, so at the top this would be a circle

    spec = msgspec.json.encode(openapi)
    errors = errors_page({code: STATUSES[kind] for code, (kind, _) in REFUSALS.items()})
    topics = topics_page()

    @get("/openapi.json")
    async def openapi_document() -> Response[bytes]:
        return Response(spec, media_type="application/json; charset=utf-8", headers=_PLAIN_HEADERS)

    @get("/docs")
    async def api_page() -> Response[str]:
        return Response(_API_PAGE, media_type=HTML, headers=_PAGE_HEADERS)

    @get("/docs/errors")
    async def errors_reference() -> Response[str]:
        return Response(errors, media_type=HTML, headers=_PAGE_HEADERS)

    @get("/docs/topics")
    async def topics_reference() -> Response[str]:
        return Response(topics, media_type=HTML, headers=_PAGE_HEADERS)

    return [
        *invoice_pages.handlers(application),
        *card_pages.handlers(application),
        *request_pages.handlers(application),
        *portal.handlers(application),
        *_probes(application),
        openapi_document,
        api_page,
        errors_reference,
        topics_reference,
        _static(),
    ]


def _probes(application: Application) -> list[HTTPRouteHandler]:
    """Whether the process lives, whether it can take work, and what it has counted."""

    @get("/healthz", media_type=MediaType.JSON)
    async def healthz() -> Response[dict[str, str]]:
        return Response({"status": "ok"}, headers=_PLAIN_HEADERS)

    @get("/readyz")
    async def readyz() -> Response[dict[str, str]]:
        try:
            async with application.engine.database.reading() as reader:
                await accounts.current_revision(reader, 0)
        except Unavailable:
            headers = {**_PLAIN_HEADERS, "retry-after": "1"}
            return Response({"status": "the database does not answer"}, status_code=503, headers=headers)
        return Response({"status": "ready"}, headers=_PLAIN_HEADERS)

    @get("/metrics")
    async def metrics_page(request: Request[Any, Any, Any]) -> Response[bytes]:
        token = application.engine.settings.operator_token
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        is_local = request.client is not None and request.client.host in {"127.0.0.1", "::1"}
        if not (hmac.compare_digest(given.encode(), token.encode()) if token else is_local):
            refusal = b"Send the operator's token as Bearer.\n"
            return Response(refusal, status_code=401, media_type="text/plain", headers=_PLAIN_HEADERS)
        metrics.WAITING.set(application.engine.lanes.waiting)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST, headers=_PLAIN_HEADERS)

    return [healthz, readyz, metrics_page]


def _static() -> HTTPRouteHandler:
    """The files of ``STATIC`` and no others, kept by browsers and asked about again each time."""

    @get([f"/static/{path}" for path in STATIC])
    async def static_file(request: Request[Any, Any, Any]) -> Response[bytes]:
        path = request.scope["path"].removeprefix("/static/")
        kind = STATIC.get(path)
        if kind is None:
            raise NotFoundException
        found = _static_file(path)
        headers = {**_PLAIN_HEADERS, "cache-control": "no-cache", "etag": found.etag}
        if request.headers.get("if-none-match") == found.etag:
            return Response(b"", status_code=304, media_type=kind, headers=headers)
        return Response(found.content, media_type=kind, headers=headers)

    return static_file
