"""The OpenAPI document is the API: complete, and true under generated requests, good and bad."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tenuto.api import dialect
from tenuto.api.app import ROUTES, STATUSES
from tenuto.api.routes import Route
from tenuto.core.outcomes import REFUSALS, Kind
from tenuto.server import Server
from tests.client import Client, Company

EXAMPLES: Final = 10
NAMES: Final = [f"{route.method} /v1{route.path}" for route in ROUTES]
OURS: Final = [route for route in ROUTES if not route.family]  # the others: test_organization_matrix
UNREADABLE: Final = {"invalid_json", "duplicate_key", "unsupported_media_type", "unknown_field", "invalid_cursor"}
"""What a request made after the schema is never refused for."""


_ELSEWHERE: Final = {
    *("gateway_mismatch", "link_not_usable", "offer_void"),
    *("sign_in_failed", "code_needed", "sign_in_delayed", "foreign_form"),
}
"""Refusals that stand in a payment or on a hosted page, not in an answer of a route."""


class Service(NamedTuple):
    """The running service as the document describes it, a caller, and ids that exist."""

    url: str
    schema: BaseSchema
    headers: dict[str, str]
    ids: dict[str, str]


@pytest.fixture(scope="module")
def described(service: Server) -> Iterator[Service]:
    with Client(*service.address) as client:
        company = Company.open(client)
        account = company.account(credits=1_000_000)
        price = company.price("CHAT", "credits", "3")
        event = company.send(account, type="CHAT", state="pending").data["id"]
        company.call("POST", "/v1/companies/{company}/keys", {"name": "spare"})
        keys = company.call("GET", "/v1/companies/{company}/keys")
        basic = base64.b64encode(f"{company.id}:{company.key}".encode()).decode()
        ids = {
            "company_id": company.id,
            "account_id": account,
            "event_id": event,
            "price_id": price,
            "account_price_id": company.agreed_price(account, "OTHER", "credits", "2"),
            "plan_id": company.plan(),
            "key_id": keys.data[0]["id"],
            "user_id": company.invite("sue@example.com"),
            "denomination": "credits",
            "name": "seats",
            "invoice_id": company.invoice(account),
            "position": "1",
            "card_id": company.card(account),
            "payment_id": company.deposit(account),
            "grant_id": company.grant(account),
            "mode": "test",
            "topic": "balance_change",
        }
        ids["webhook_id"], ids["notification_id"] = company.listening_webhook(account)
        ids["issuer_id"], ids["external_id"] = company.issuer(), company.organization()
        ids["refund_id"], ids["credit_note_id"] = (
            company.refund(ids["payment_id"]),
            company.credit_note(ids["invoice_id"]),
        )
        ids["transaction_id"] = company.moved(account)
        company.start(account, ids["plan_id"])
        # The first PDF of a process loads its fonts; that is not what is measured here.
        assert company.call("GET", f"/v1/invoices/{ids['invoice_id']}/pdf").status == 200
        schema = schemathesis.openapi.from_dict(client.call("GET", "/openapi.json").body)
        yield Service(service.url, schema, {"authorization": f"Basic {basic}"}, ids)


def code_is_documented(case: Case[Any], code: str, status: int) -> None:
    described = case.operation.definition.raw["responses"][str(status)]["description"]
    assert f"`{code}`" in described, f"{code} is not documented for {case.operation.label}"


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("name", [f"{route.method} /v1{route.path}" for route in OURS])
def test_the_document_is_true(described: Service, name: str, mode: GenerationMode) -> None:
    method, path = name.split(" ")
    operation = described.schema[path][method]
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ]
    if mode is GenerationMode.NEGATIVE:
        checks += [negative_data_rejection, *([] if method == "POST" and path == "/v1/companies" else [ignored_auth])]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), is_seeded=st.sampled_from([True, True, True, False]))
    def hold(case: Case[Any], is_seeded: bool) -> None:  # noqa: FBT001
        if is_seeded and mode is GenerationMode.POSITIVE:
            case.path_parameters = {name: described.ids[name] for name in case.path_parameters or {}}
            case.query.pop("cursor", None)
            case.headers.pop("X-DedupeId", None)
        response = case.call(base_url=described.url, headers=described.headers)
        assert response.elapsed < 1.0
        assert response.status_code < 500, response.text
        case.validate_response(response, checks=checks)
        if response.status_code >= 400:
            code = response.json()["error"]["code"]
            assert response.status_code == STATUSES[REFUSALS[code][0]]
            if code != "method_not_allowed":
                code_is_documented(case, code, response.status_code)
            if mode is GenerationMode.POSITIVE:
                assert code not in UNREADABLE - {"invalid_cursor"}, response.text

    hold()


# --- completeness ---


@pytest.fixture(scope="module")
def document(described: Service) -> dict[str, Any]:
    return dict(described.schema.raw_schema)


def test_every_route_is_documented_and_nothing_else(document: dict[str, Any]) -> None:
    documented = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}

    assert document["openapi"].startswith("3.1")
    assert documented == set(NAMES)
    identifiers = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(identifiers)) == len(identifiers)


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_a_route_is_documented_whole(document: dict[str, Any], route: Route) -> None:
    operation = document["paths"][f"/v1{route.path}"][route.method.lower()]
    parameters = {(one["in"], one["name"]) for one in operation["parameters"]}

    assert operation["summary"]
    assert operation["description"]
    assert {name for where, name in parameters if where == "path"} == set(re.findall(r"{(\w+)}", route.path))
    assert {name for where, name in parameters if where == "query"} == {param.name for param in route.query}
    keys = {name for where, name in parameters if where == "header"}
    assert keys == (set() if route.method == "GET" or route.is_open else {"Idempotency-Key", "X-DedupeId"})
    assert ("requestBody" in operation) is (route.body is not None)
    assert (operation.get("security") == []) is route.is_open
    own = dialect.STATUSES if route.family else {}
    for code in route.refusals:
        assert f"`{code}`" in operation["responses"][str(own.get(code, STATUSES[REFUSALS[code][0]]))]["description"]


@pytest.mark.parametrize("route", [route for route in ROUTES if route.family], ids=lambda one: one.method + one.path)
def test_the_second_family_is_documented_in_its_own_words(document: dict[str, Any], route: Route) -> None:
    operation = document["paths"][f"/v1{route.path}"][route.method.lower()]
    schemas = {
        status: told["content"]["application/json"]["schema"]
        for status, told in operation["responses"].items()
        if "content" in told
    }

    assert operation["security"] == [{"organization": []}]
    assert document["components"]["securitySchemes"]["organization"]["bearerFormat"] == "JWT"
    assert {"401", "403", "410", "422"} <= set(schemas)
    errors = {str(schema) for status, schema in schemas.items() if int(status) >= 400}
    assert errors == {str({"$ref": "#/components/schemas/OrganizationError"})}
    done = {status for status in operation["responses"] if status.startswith("2")}
    waiting = {"202"} if route.pending else set()
    assert done == {"DELETE": {"204"}, "POST": {"200", "201"}}.get(route.method, {"200"}) | waiting
    assert not any("data" in schema.get("properties", {}) for status, schema in schemas.items() if status in done)


@pytest.mark.parametrize(
    "route", [route for route in OURS if route.example], ids=lambda route: f"{route.method} {route.path}"
)
def test_the_examples_run(service: Server, route: Route) -> None:
    with Client(*service.address) as client:
        company = Company.open(client)
        account = company.account(credits=1000, USD=0)
        company.price("CHAT", "credits", "3")
        event = company.send(account, type="CHAT", quantity=2, state="pending").data["id"]
        ids = {
            "company_id": company.id,
            "account_id": account,
            "event_id": event,
            "price_id": company.price("OTHER", "credits", "1"),
            "account_price_id": company.agreed_price(account, "OTHER", "credits", "2"),
            "plan_id": company.plan(balances={"tokens": {"amount": 1000}}),
            "user_id": company.invite("sue@example.com"),
            "denomination": "new" if route.method == "POST" else "credits",
            "name": "seats",
            "invoice_id": company.invoice(account, is_final=route.method != "PUT"),
            "card_id": company.card(account),
            "payment_id": company.deposit(account),
            "topic": "threshold",
        }
        ids["webhook_id"], ids["notification_id"] = company.listening_webhook(account)
        ids["issuer_id"], ids["external_id"] = company.issuer(), company.organization()
        company.start(account, ids["plan_id"])
        company.send(account, type="USED", cost_override_amount=9, cost_override_denomination="USD")
        told = json.dumps(route.example).replace("p_00000000", ids["plan_id"])
        body = json.loads(told.replace("https://billing.example.com", f"https://billing.example.com/{company.id}"))
        reply = company.call(route.method, f"/v1{route.path.format(**ids)}", body)

    assert reply.status == 200, reply.raw


def test_every_refusal_can_be_found_in_the_document(document: dict[str, Any]) -> None:
    """But for those that have no route of their own, and those of parts that come later."""
    spoken = {
        code
        for item in document["paths"].values()
        for operation in item.values()
        for response in operation["responses"].values()
        for code in re.findall(r"`(\w+)`", response["description"])
    }
    elsewhere = {code for code, (kind, _) in REFUSALS.items() if kind in {Kind.FAULT, Kind.METHOD}}

    assert set(REFUSALS) - spoken - elsewhere <= {"account_paused", "credit_blocked", *_ELSEWHERE}
    assert document["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"] == list(
        REFUSALS
    )


def test_every_id_parameter_is_named_by_its_kind(document: dict[str, Any]) -> None:
    for item in document["paths"].values():
        for operation in item.values():
            for one in operation["parameters"]:
                if one["in"] == "path":
                    assert one["name"] in {
                        *("company_id", "account_id", "event_id", "price_id", "key_id", "user_id", "denomination"),
                        *("invoice_id", "position", "payment_id", "card_id", "mode"),
                        *("plan_id", "account_price_id", "grant_id", "name"),
                        *("own_invoice_id", "subscription_id", "method_id", "tax_id"),
                        *("transaction_id", "refund_id", "credit_note_id"),
                        *("webhook_id", "notification_id", "topic", "issuer_id", "external_id"),
                        *("method_id", "tax_id"),
                    }
                    assert one["schema"]["pattern"]
