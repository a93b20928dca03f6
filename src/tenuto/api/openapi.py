"""The OpenAPI 3.1 document, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tenuto import __version__
from tenuto.core.outcomes import REFUSALS

from .routes import LIMIT_MAX, Param, Route

_ALWAYS: Final = ("invalid_credentials", "insufficient_scope", "not_found", "invalid_field", "unavailable")
_BODY: Final = ("invalid_json", "unsupported_media_type", "body_too_large", "unknown_field", "key_reused")
_PATTERNS: Final = {
    "company_id": "^c_[0-9a-z]{8}$",
    "account_id": "^a_[0-9a-z]{8}$",
    "event_id": "^e_[0-9a-z]{18}$",
    "price_id": "^ep_[0-9a-z]{8}$",
    "key_id": "^k_[0-9a-z]{8}$",
    "denomination": "^[!-~]{1,64}$",
}


def document(routes: Sequence[Route], statuses: dict[str, int]) -> dict[str, Any]:
    """The whole document. ``statuses`` gives the HTTP status of each refusal code."""
    shapes = {shape for route in routes for shape in _shapes(route)}
    _, components = msgspec.json.schema_components(
        sorted(shapes, key=lambda shape: shape.__name__), schema_hook=_raw, ref_template="#/components/schemas/{name}"
    )
    components["Error"] = _error_schema()
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(f"/v1{route.path}", {})[route.method.lower()] = _operation(route, statuses)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tenuto",
            "version": __version__,
            "summary": "Real-time usage billing: price an event, move the balance, refuse what cannot be paid.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basic": []}, {"bearer": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": {name: _plain(schema) for name, schema in components.items()},
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "Company id and API key."},
                "bearer": {"type": "http", "scheme": "bearer", "description": "API key."},
            },
        },
    }


def _shapes(route: Route) -> list[Any]:
    found = [route.answer]
    if route.body is not None:
        found += [shape for shape in getattr(route.body, "__args__", (route.body,)) if not hasattr(shape, "__args__")]
    return found


def _raw(kind: type) -> dict[str, Any]:
    """Where a shape holds raw JSON, anything may stand."""
    if kind is msgspec.Raw:
        return {}
    msg = f"no schema for {kind}"
    raise NotImplementedError(msg)


def _plain(schema: Any) -> Any:
    """Defaults that are raw JSON have no value to show."""
    if isinstance(schema, dict):
        return {
            name: _plain(value)
            for name, value in schema.items()
            if not (name == "default" and isinstance(value, msgspec.Raw | bytes))
        }
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "The one shape of every error.",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "request_id", "doc_url"],
                "properties": {
                    "code": {"type": "string", "enum": list(REFUSALS)},
                    "message": {"type": "string"},
                    "details": {"type": "object"},
                    "request_id": {"type": "string"},
                    "doc_url": {"type": "string"},
                },
            }
        },
    }


def _operation(route: Route, statuses: dict[str, int]) -> dict[str, Any]:
    name = re.sub(r"[^a-z]+", "_", f"{route.method.lower()}_{route.path}".replace("{", "").replace("}", "")).strip("_")
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": route.summary,
        "description": f"{route.serve.__doc__ or ''} {route.details}".strip()
        + (f"\n\nScope: `{route.scope}`." if route.scope else ""),
        "tags": [route.tag],
        "parameters": [
            *(_path_parameter(param) for param in re.findall(r"{(\w+)}", route.path)),
            *(_query_parameter(param) for param in route.query),
        ],
        "responses": {"200": _answer(route), **_errors(route, statuses)},
    }
    if route.is_open:
        operation["security"] = []
    if route.method == "POST" and not route.is_open:
        operation["parameters"].append(_IDEMPOTENCY)
    if route.body is not None:
        content: dict[str, Any] = {"schema": _body_schema(route.body)}
        if route.example is not None:
            content["example"] = route.example
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


_IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same body gets the first answer again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": _PATTERNS[name]}}


def _query_parameter(param: Param) -> dict[str, Any]:
    schema: dict[str, Any]
    match param.kind:
        case "limit":
            schema = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}
        case "boolean":
            schema = {"type": "boolean"}
        case "moment":
            schema = {"type": "string", "format": "date-time"}
        case "text" | "cursor":
            schema = {"type": "string", "maxLength": 300}
        case "event_id" | "account_id":
            schema = {"type": "string", "pattern": _PATTERNS[param.kind]}
        case choices:
            schema = {"type": "string", "enum": choices.split("|")}
    return {"name": param.name, "in": "query", "required": False, "description": param.what, "schema": schema}


def _reference(shape: Any) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def _body_schema(body: Any) -> dict[str, Any]:
    """One shape, or one shape and a list of it."""
    if not hasattr(body, "__args__"):
        return _reference(body)
    one = _reference(body.__args__[0])
    return {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": 1000}]}


def _answer(route: Route) -> dict[str, Any]:
    one = _reference(route.answer)
    schema: dict[str, Any] = {"type": "object", "required": ["data"], "properties": {"data": one}}
    if route.is_list:
        schema["required"] = ["data", "has_more", "next_cursor"]
        schema["properties"] = {
            "data": {"type": "array", "items": one},
            "has_more": {"type": "boolean"},
            "next_cursor": {"type": ["string", "null"]},
        }
    if route.body is not None and hasattr(route.body, "__args__"):
        schema["required"] = ["data", "events_submitted"]
        schema["properties"] = {
            "data": {"oneOf": [one, {"type": "array", "items": one}]},
            "events_submitted": {"type": "integer"},
        }
    return {"description": "Done.", "content": {"application/json": {"schema": schema}}}


def _errors(route: Route, statuses: dict[str, int]) -> dict[str, Any]:
    codes = [*route.refusals, *_ALWAYS, *(_BODY if route.body is not None else ())]
    if route.is_open:
        codes = [code for code in codes if code not in {"invalid_credentials", "insufficient_scope", "not_found"}]
    grouped: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        grouped.setdefault(statuses[code], []).append(code)
    for status, code in ((400, "invalid_json"), (409, "request_in_progress")):
        grouped.setdefault(status, []).append(code) if code not in grouped.get(status, ()) else None
    return {
        str(status): {
            "description": "; ".join(f"`{code}`: {REFUSALS[code][1]}" for code in found),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, found in sorted(grouped.items())
    }
