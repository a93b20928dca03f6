"""The OpenAPI 3.1 document, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tenuto import __version__
from tenuto.core.catalog import MATCH_MAX, PER_MAX, TIERS_MAX
from tenuto.core.event import EVENTS_MAX
from tenuto.core.money import AMOUNT_MAX
from tenuto.core.outcomes import REFUSALS
from tenuto.core.plan import BALANCES_MAX, EVENT_PRICES_MAX, FLAGS_MAX, PERCENT_MAX, TRIAL_DAYS_MAX
from tenuto.core.topic import TOPICS
from tenuto.core.user import ROLES
from tenuto.service.issuers import ALGORITHMS, KEYS_MAX
from tenuto.service.webhooks import IN_FLIGHT_MAX

from .account_plans import UNITS_MAX
from .dialect import FAMILY
from .dialect import STATUSES as MEMBER_STATUSES
from .routes import LIMIT_MAX, Param, Route
from .usage import CloudEvent, record_events

_ALWAYS: Final = ("invalid_encoding", "uri_too_long", "unknown_field", "invalid_field", "overloaded", "unavailable")
_CALLER: Final = ("invalid_credentials", "insufficient_scope", "not_found")
_LIST: Final = ("invalid_cursor", "invalid_string", "zone_required", "unknown_zone", "out_of_range")
_BODY: Final = (
    "invalid_json",
    "duplicate_key",
    "body_too_large",
    "unsupported_media_type",
    "too_deep",
    "invalid_string",
    "missing_field",
    "must_be_positive",
    "out_of_range",
    "zone_required",
    "unknown_zone",
)
_MEMBER: Final = ("no_account", "parent_pays", "organization_unknown", "not_implemented")
_KEYED: Final = ("idempotency_key_invalid", "key_reused", "request_in_progress")
_CLOUD: Final = ("application/cloudevents+json", "application/cloudevents-batch+json")
_PATTERNS: Final = {
    "company_id": "^c_[0-9a-z]{8}$",
    "account_id": "^a_[0-9a-z]{8}$",
    "event_id": "^e_[0-9a-z]{18}$",
    "transaction_id": "^t_[0-9a-z]{18}$",
    "cause_id": "^(pay|re|inv|cn|ps|g)_[0-9a-z]{18}$",
    "price_id": "^ep_[0-9a-z]{8}$",
    "account_price_id": "^ep_[0-9a-z]{8}$",
    "plan_id": "^p_[0-9a-z]{8}$",
    "key_id": "^k_[0-9a-z]{8}$",
    "user_id": "^u_[0-9a-z]{8}$",
    "invoice_id": "^inv_[0-9a-z]{18}$",
    "own_invoice_id": "^(in|sub)_[0-9a-z]{18}$",
    "subscription_id": "^[!-~]{1,100}$",
    "card_id": "^card_[0-9a-z]{18}$",
    "payment_id": "^pay_[0-9a-z]{18}$",
    "refund_id": "^re_[0-9a-z]{18}$",
    "credit_note_id": "^cn_[0-9a-z]{18}$",
    "grant_id": "^g_[0-9a-z]{18}$",
    "webhook_id": "^w_[0-9a-z]{8}$",
    "issuer_id": "^iss_[0-9a-z]{8}$",
    "notification_id": "^wd_[0-9a-z]{18}$",
    "external_id": "^[!-~]{1,255}$",
    "method_id": "^pm_[0-9A-Za-z_]{1,250}$",
    "tax_id": "^txi_[0-9a-z]{18}$",
    "topic": r"^(\*|[a-z_.]{1,64})$",
    "mode": "^(test|live)$",
    "position": "^[1-9][0-9]{0,8}$",
    "denomination": "^[!-~]{1,64}$",
    "name": "^[!-~]{1,64}$",
}

_MEMBER_ERROR: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "The one shape of every error to somebody of an organization.",
    "required": ["message"],
    "properties": {
        "message": {"type": "string"},
        "errors": {"type": ["object", "array"], "description": "What is wrong, by field."},
        "documentation_url": {"type": "string"},
    },
}
_WHOLE: Final = {"minimum": 0, "maximum": AMOUNT_MAX}
_SIGNED: Final = {"minimum": -AMOUNT_MAX, "maximum": AMOUNT_MAX}
_UNIT: Final = {"pattern": _PATTERNS["denomination"]}
_TIME: Final = {"format": "date-time"}
_PRICE: Final = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]{1,15}(\.[0-9]{1,12})?$"},
        {"type": "number", "minimum": 0, "maximum": AMOUNT_MAX},
        {"type": "null"},
    ]
}
_RATE: Final = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,12})?$"},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
    ]
}
_STATES: Final = {"enum": ["complete", "completed", "pending", "cancelled", "canceled"]}
_LATER: Final = {"description": "Is not served yet."}
_ABOVE_ZERO: Final = {"minimum": 1, "maximum": AMOUNT_MAX}
_COUNT: Final[Mapping[str, Mapping[str, Any]]] = {"integer": _WHOLE, "string": {"pattern": "^[0-9]{1,16}$"}}
_FIELDS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "type": {"string": {"pattern": r"^\S{1,128}$"}},
    "quantity": {
        "integer": {"minimum": 1, "maximum": AMOUNT_MAX},
        "string": {"pattern": r"^[0-9]{1,16}(\.[0-9]{1,9})?$"},
    },
    "key": {"string": {"pattern": "^[ -~]{1,255}$"}},
    "state": {"string": _STATES},
    "tag": {"string": {"enum": ["usage", "revenue", "payout"]}},
    "specversion": {"string": {"const": "1.0"}},
    "id": {"string": {"pattern": "^[ -~]{1,255}$"}},
    "time": {"string": _TIME},
    "occurred_at": {"string": _TIME},
    "expires_at": {"string": _TIME},
    "now": {"string": _TIME},
    "advance_seconds": {"integer": {"minimum": 1, "maximum": 3_200_000_000}},
    "denomination": {"string": _UNIT},
    "cost_override_amount": {"integer": _WHOLE},
    "cost_override_denomination": {"string": _UNIT},
    "cogs": {"integer": _WHOLE},
    "cogs_amount": {"integer": _WHOLE},
    "cogs_denomination": {"string": _UNIT},
    "parent_event_id": {"string": {"pattern": _PATTERNS["event_id"]}},
    "CostOverride.amount": {"integer": _WHOLE},
    "BalanceIn.amount": {"integer": _SIGNED},
    "AdjustmentIn.amount": {"integer": {**_SIGNED, "not": {"const": 0}}},
    "ManualLineIn.amount": {"integer": {**_SIGNED, "not": {"const": 0}}},
    "GivenTaxIn.amount": {"integer": _WHOLE},
    "CreditNoteIn.amount": {"integer": _ABOVE_ZERO},
    "amount_to_deposit": {"integer": _ABOVE_ZERO},
    "amount_to_charge": {"integer": _WHOLE},
    "charge_against_denomination": {"string": _UNIT},
    "RefillIn.amount": {"integer": _ABOVE_ZERO},
    "RefundIn.amount": {"integer": _ABOVE_ZERO},
    "refill_amount": {"integer": _ABOVE_ZERO},
    "usd_charge": {"integer": _WHOLE},
    "threshold": {"integer": _WHOLE},
    "skipped": {"string": {"enum": ["process", "void"]}},
    "queued": {"string": {"enum": ["replay", "void", "keep"]}},
    "default": {"boolean": {"const": True}},
    "amounts": {"array": {"minItems": 1, "maxItems": 10}},
    "OfferIn.amount": {"integer": _ABOVE_ZERO},
    "TopupRequestIn.message": {"string": {"minLength": 1, "maxLength": 1000}},
    "OverageRequestIn.message": {"string": {"minLength": 1, "maxLength": 1000}},
    "return_url": {
        "string": {"pattern": r"^(https://|http://localhost|http://127\.0\.0\.1)[!-~]*$", "maxLength": 2000}
    },
    "expires_in_seconds": {"integer": {"minimum": 60, "maximum": 7_776_000}},
    "per_hour": {"integer": {"minimum": 1, "maximum": 1000}},
    "per_day": {"integer": {"minimum": 1, "maximum": 24_000}},
    "amount_per_day": {"integer": _ABOVE_ZERO},
    "stripe_key": {"string": {"pattern": "^((sk|rk)_(test|live)_[0-9A-Za-z_]{10,240})?$", "writeOnly": True}},
    "stripe_publishable_key": {"string": {"pattern": "^(pk_(test|live)_[0-9A-Za-z_]{10,240})?$"}},
    "stripe_webhook_secret": {"string": {"pattern": "^(whsec_[0-9A-Za-z+/=_-]{16,240})?$", "writeOnly": True}},
    "GatewayMessageIn.id": {},
    "GatewayMessageIn.type": {},
    "currency": {"string": {"pattern": "^[A-Z]{3}$"}},
    "collection": {"string": {"enum": ["send_invoice", "charge_automatically"]}},
    "terms_days": {"integer": {"minimum": 0, "maximum": 3650}},
    "grace_seconds": {"integer": {"minimum": 0, "maximum": 5_184_000}},
    "days": {"integer": {"minimum": 0, "maximum": 3650}},
    "action": {"string": {"enum": ["remind", "pause", "credit_block"]}},
    "prefix": {"string": {"pattern": "^[A-Za-z0-9./_-]{0,20}$"}},
    "taxes": {"array": {"maxItems": 10}},
    "dunning": {"array": {"maxItems": 20}},
    "lines": {"array": {"maxItems": 200}},
    "memo": {"string": {"maxLength": 2000}},
    "footer": {"string": {"maxLength": 2000}},
    "description": {"string": {"minLength": 1, "maxLength": 500}},
    "reference": {"string": {"minLength": 1, "maxLength": 300}},
    "rate": {"": _RATE},
    "SellerIn.name": {"string": {"maxLength": 200}},
    "SellerIn.email": {"string": {"maxLength": 254}},
    "address": {"string": {"maxLength": 1000}},
    "tax_id": {"string": {"maxLength": 100}},
    "TaxIn.name": {"string": {"minLength": 1, "maxLength": 100}},
    "GivenTaxIn.name": {"string": {"minLength": 1, "maxLength": 100}},
    "expires_in_days": {"integer": {"minimum": 1, "maximum": 366}},
    "amount": {"": _PRICE},
    "minimum": {"": _PRICE},
    "cap": {"": _PRICE},
    "credit_limit": {"integer": _WHOLE},
    "default_credit_limit": {"integer": _WHOLE},
    "late_event_seconds": {"integer": {"minimum": 0, "maximum": 315_360_000}},
    "ahead_event_seconds": {"integer": {"minimum": 0, "maximum": 86_400}},
    "free_units": {"integer": _WHOLE},
    "up_to": {"integer": {"minimum": 1, "maximum": AMOUNT_MAX}},
    "per": {"integer": {"minimum": 1, "maximum": PER_MAX}},
    "model": {"string": {"enum": ["per_unit", "package", "graduated", "volume"]}},
    "tiers": {"array": {"maxItems": TIERS_MAX}},
    "match": {"object": {"maxProperties": MATCH_MAX}},
    "mode": {"string": {"enum": ["test", "live"]}},
    "KeyIn.name": {"string": {"maxLength": 200}},
    "name": {"string": {"minLength": 1, "maxLength": 200}},
    "email": {"string": {"format": "email", "maxLength": 254}},
    "password": {"string": {"minLength": 12, "maxLength": 1024, "format": "password"}},
    "stripe_id": {"string": {"pattern": "^[!-~]{1,255}$"}},
    "reason": {"string": {"minLength": 1, "maxLength": 500}},
    "RenewalIn.amount": {"integer": _WHOLE},
    "PlanBalanceIn.amount": _COUNT,
    "ListedBalanceIn.amount": _COUNT,
    "auto_refill_amount": _COUNT,
    "auto_refill_threshold": _COUNT,
    "auto_refill_charge_amount": _COUNT,
    "variable_amount_cost": {"integer": _WHOLE},
    "overage_charge_amount": {"": _PRICE},
    "overage_charge_per": {"integer": {"minimum": 1, "maximum": PER_MAX}},
    "overage_charge_denomination": {"string": _UNIT},
    "renewal_denomination": {"string": _UNIT},
    "charge_denomination": {"string": _UNIT},
    "charge_amount": {"integer": _WHOLE},
    "setup_fee": {"integer": _WHOLE},
    "minimum_spend": {"integer": _WHOLE},
    "spend_cap": {"integer": _WHOLE},
    "trial_days": {"integer": {"minimum": 0, "maximum": TRIAL_DAYS_MAX}},
    "threshold_alert_percentage": {"integer": {"minimum": 0, "maximum": PERCENT_MAX}},
    "code": {"string": {"pattern": "^[!-~]{1,64}$"}},
    "balances": {"array": {"minItems": 1, "maxItems": BALANCES_MAX}, "object": {"maxProperties": BALANCES_MAX}},
    "flags": {"object": {"maxProperties": FLAGS_MAX}},
    "event_prices": {"array": {"maxItems": EVENT_PRICES_MAX}},
    "plan_variable_amounts": {"object": {"maxProperties": UNITS_MAX}},
    "plan_renewal_cadence": {"string": {"pattern": "^[A-Za-z_]{1,16}$"}},
    "enable_card_collector": {"": {"description": "True (or 1) gives the account a `card_collector_url`."}},
    "token": {"string": {"pattern": "^[!-~]{1,255}$"}},
    "UserIn.role": {"string": {"enum": list(ROLES)}},
    "RoleIn.role": {"string": {"enum": list(ROLES)}},
    "url": {"string": {"pattern": r"^https://[!-~]+$", "maxLength": 2000}},
    "username": {"string": {"pattern": "^[ -9;-~]{1,255}$"}},
    "WebhookIn.password": {"string": {"pattern": "^[ -~]{1,255}$", "writeOnly": True}},
    "WebhookChange.password": {"string": {"pattern": "^[ -~]{1,255}$", "writeOnly": True}},
    "WebhookIn.description": {"string": {"maxLength": 255}},
    "WebhookChange.description": {"string": {"maxLength": 255}},
    "max_in_flight": {"integer": {"minimum": 1, "maximum": IN_FLIGHT_MAX}},
    "topics": {"array": {"maxItems": 50}},
    "topic": {"string": {"enum": ["*", *TOPICS]}},
    "threshold_percentage": {"integer": {"minimum": 1, "maximum": 100}},
    "remaining_percentage": {"integer": {"minimum": 1, "maximum": 100}},
    "credit_limit_percentage": {"integer": {"minimum": 1, "maximum": 10_000}},
    "level": {"integer": _ABOVE_ZERO},
    "levels": {"array": {"maxItems": 20}},
    "LevelIn.action": {"string": {"enum": ["notify", "flag", "block"]}},
    "LevelIn.flag": {"string": {"pattern": "^[!-~]{1,64}$"}},
    "overlap_seconds": {"integer": {"minimum": 0, "maximum": 604_800}},
    "message": {"string": {"minLength": 1, "maxLength": 500}},
    "from_id": {"string": {"pattern": "^wd_[0-9a-z]{18}$"}},
    "to_id": {"string": {"pattern": "^wd_[0-9a-z]{18}$"}},
    "ReplayIn.status": {"string": {"enum": ["failed", "delivered"]}},
    "billing_address_id": {"": _LATER},
    "IssuerIn.issuer": {"string": {"pattern": "^[ -~]{1,500}$"}},
    "audience": {"string": {"pattern": "^[ -~]{1,500}$"}},
    "algorithm": {"string": {"enum": list(ALGORITHMS)}},
    "jwks_url": {"string": {"pattern": r"^https://[!-~]+$", "maxLength": 2000}},
    "keys": {"array": {"minItems": 1, "maxItems": KEYS_MAX}},
    "secret": {"string": {"minLength": 32, "maxLength": 1024, "writeOnly": True}},
    "secret_encoding": {"string": {"enum": ["text", "base64"]}},
    "max_life_seconds": {"integer": {"minimum": 60, "maximum": 86_400}},
    "organization_id": {"string": {"minLength": 1, "maxLength": 255}},
    "user_id": {"string": {"minLength": 1, "maxLength": 255}},
    "TokenIn.scopes": {"array": {"maxItems": 20}},
    "TokenIn.timezone": {"string": {"pattern": "^[!-~]{1,64}$"}},
    "life_seconds": {"integer": {"minimum": 10, "maximum": 900}},
}
"""What a field of a body takes beyond its kind, by JSON type ("" for raw JSON); ``Shape.field`` before ``field``."""


def document(routes: Sequence[Route], statuses: dict[str, int]) -> dict[str, Any]:
    """The whole document. ``statuses`` gives the HTTP status of each refusal code."""
    bodies = {shape for route in routes for shape in _bodies(route)}
    shapes = {*bodies, *(shape for route in routes if route.answer is not bytes for shape in _answers(route))}
    _, components = msgspec.json.schema_components(
        sorted(shapes, key=lambda shape: shape.__name__), schema_hook=_raw, ref_template="#/components/schemas/{name}"
    )
    asked = msgspec.json.schema_components(tuple(bodies), schema_hook=_raw)[1]
    components["Error"] = _error_schema()
    components["OrganizationError"] = _MEMBER_ERROR
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
            "schemas": {
                name: _plain(_narrowed(name, schema) if name in asked else schema)
                for name, schema in components.items()
            },
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "Company id and API key."},
                "bearer": {"type": "http", "scheme": "bearer", "description": "API key."},
                "organization": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token of somebody of an organization.",
                },
            },
        },
    }


def _bodies(route: Route) -> list[Any]:
    """The shapes a body may have; a list of one is no shape of its own."""
    if route.body is None:
        return []
    found = [shape for shape in getattr(route.body, "__args__", (route.body,)) if not hasattr(shape, "__args__")]
    return [*found, CloudEvent] if route.serve is record_events else found


def _answers(route: Route) -> tuple[Any, ...]:
    """The shapes that an answer may have."""
    return getattr(route.answer, "__args__", (route.answer,))


def _narrowed(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A body's schema with what its fields take beyond their kinds."""

    def narrow(field: dict[str, Any], extra: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        if "anyOf" in field:
            return {**field, "anyOf": [narrow(one, extra) for one in field["anyOf"]]}
        return {**field, **extra.get(field.get("type", ""), {})}

    fields = schema["properties"]
    return {
        **schema,
        "properties": {
            field: narrow(fields[field], _FIELDS.get(f"{name}.{field}", _FIELDS.get(field, {}))) for field in fields
        },
    }


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
        "responses": {**_done(route), **_pending(route), **_errors(route, statuses)},
    }
    if route.is_open:
        operation["security"] = []
    if route.family == FAMILY:
        operation["security"] = [{"organization": []}]
    if _is_keyed(route):
        operation["parameters"] += [_idempotency("Idempotency-Key"), _idempotency("X-DedupeId")]
    if route.body is not None:
        content: dict[str, Any] = {"schema": _body_schema(route.body)}
        if route.example is not None:
            content["example"] = route.example
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    if route.serve is record_events:
        one = _reference(CloudEvent)
        several = {"type": "array", "items": one, "minItems": 1, "maxItems": EVENTS_MAX}
        operation["requestBody"]["content"] |= {_CLOUD[0]: {"schema": one}, _CLOUD[1]: {"schema": several}}
    return operation


def _is_keyed(route: Route) -> bool:
    return route.method != "GET" and not route.is_open


def _idempotency(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": "The same key with the same body gets the first answer again.",
        "schema": {"type": "string", "pattern": "^[ -~]{1,255}$"},
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
        case "whole":
            schema = {"type": "integer", **_SIGNED}
        case "moment":
            schema = {"type": "string", "format": "date-time"}
        case "text" | "cursor":
            schema = {"type": "string", "maxLength": 300}
        case "event_id" | "account_id" | "cause_id":
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
    return {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": EVENTS_MAX}]}


def _answer(route: Route) -> dict[str, Any]:
    if route.answer is bytes:
        return {"description": "The file.", "content": {"application/pdf": {"schema": {}}}}
    found = [_reference(shape) for shape in _answers(route)]
    one = found[0] if len(found) == 1 else {"anyOf": found}
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


def _done(route: Route) -> dict[str, Any]:
    """What a route answers with when it is done: of the second family bare, with statuses of its own."""
    if route.family != FAMILY:
        return {"200": _answer(route)}
    if route.method == "DELETE":
        return {"204": {"description": "Done."}}
    found = [_reference(shape) for shape in _answers(route)]
    one = found[0] if len(found) == 1 else {"anyOf": found}
    schema = {"type": "array", "items": one} if route.is_list else one
    told = {"description": "Done.", "content": {"application/json": {"schema": schema}}}
    return dict.fromkeys(("200", "201") if route.method == "POST" else ("200",), told)


def _pending(route: Route) -> dict[str, Any]:
    """What a route answers with where a stranger has to say yes and has not yet."""
    if not route.pending:
        return {}
    told = _done(route)["200"] if route.family == FAMILY else _answer(route)
    return {"202": {**told, "description": route.pending}}


def _errors(route: Route, statuses: dict[str, int]) -> dict[str, Any]:
    codes = [
        *route.refusals,
        *_ALWAYS,
        *(() if route.is_open else _CALLER),
        *(_LIST if any(param.kind == "cursor" for param in route.query) else ()),
        *(_BODY if route.body is not None else ()),
        *(_KEYED if _is_keyed(route) else ()),
    ]
    grouped: dict[int, list[str]] = {}
    is_member = route.family == FAMILY
    own = MEMBER_STATUSES if is_member else {}
    for code in dict.fromkeys((*codes, *(_MEMBER if is_member else ()))):
        grouped.setdefault(own.get(code, statuses[code]), []).append(code)
    shape = "OrganizationError" if is_member else "Error"
    return {
        str(status): {
            "description": "; ".join(f"`{code}`: {REFUSALS[code][1]}" for code in found),
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}},
        }
        for status, found in sorted(grouped.items())
    }
