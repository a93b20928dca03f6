"""What is served beside the API: health, metrics, the OpenAPI document and its page."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tenuto import metrics
from tenuto.store.database import Unavailable

if TYPE_CHECKING:
    from .app import Application


def handlers(openapi: dict[str, Any], application: Application) -> list[HTTPRouteHandler]:
    """The handlers, for Litestar."""
    spec = msgspec.json.encode(openapi)

    @get("/healthz", media_type=MediaType.JSON)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @get("/readyz")
    async def readyz() -> Response[dict[str, str]]:
        try:
            async with application.engine.database.reading() as reader:
                await reader.fetchval("select 1")
        except Unavailable:
            return Response({"status": "the database does not answer"}, status_code=503, headers={"retry-after": "1"})
        return Response({"status": "ready"})

    @get("/metrics")
    async def metrics_page(request: Request[Any, Any, Any]) -> Response[bytes]:
        token = application.engine.settings.operator_token
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        is_local = request.client is not None and request.client.host in {"127.0.0.1", "::1"}
        if not (hmac.compare_digest(given.encode(), token.encode()) if token else is_local):
            return Response(b"Send the operator's token as Bearer.\n", status_code=401, media_type="text/plain")
        metrics.WAITING.set(application.engine.lanes.waiting)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @get("/openapi.json")
    async def openapi_document() -> Response[bytes]:
        return Response(spec, media_type="application/json; charset=utf-8")

    return [healthz, readyz, metrics_page, openapi_document]
