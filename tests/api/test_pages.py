"""What is served beside the API: probes, metrics, the OpenAPI document, the pages and their files."""

from __future__ import annotations

import re

import pytest

from tenuto.api.app import ROUTES
from tenuto.api.pages import STATIC
from tenuto.core.outcomes import REFUSALS
from tenuto.core.topic import TOPICS
from tests.client import Client, Company

PAGES = ("/docs", "/docs/", "/docs/errors", "/docs/topics")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/healthz/", "/v1/readyz"])
def test_probes_answer(client: Client, path: str) -> None:
    reply = client.call("GET", path)

    assert reply.status == 200
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_metrics_are_open_to_this_machine(client: Client) -> None:
    reply = client.call("GET", "/metrics")

    assert reply.status == 200
    assert b"tenuto_lane_waiting" in reply.raw


def test_the_openapi_document_names_every_route_and_code(client: Client) -> None:
    reply = client.call("GET", "/openapi.json")

    assert reply.status == 200
    assert reply.body["openapi"].startswith("3.1")
    served = {(method.upper(), path) for path, methods in reply.body["paths"].items() for method in methods}
    assert served == {(route.method, f"/v1{route.path}") for route in ROUTES}
    error = reply.body["components"]["schemas"]["Error"]["properties"]["error"]
    assert error["properties"]["code"]["enum"] == list(REFUSALS)


@pytest.mark.parametrize("path", PAGES)
def test_pages_forbid_everything_they_do_not_need(client: Client, path: str) -> None:
    reply = client.call("GET", path)

    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http:" not in policy
    assert "https:" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", PAGES)
def test_pages_hold_no_inline_code_and_no_stranger(client: Client, path: str) -> None:
    page = client.call("GET", path).raw.decode()

    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address == "data:," or address.startswith("/")
        if address.startswith("/"):
            assert client.call("GET", address).status == 200


@pytest.mark.parametrize("path", sorted(STATIC))
def test_static_files_are_revalidated(client: Client, path: str) -> None:
    reply = client.call("GET", f"/static/{path}")
    again = client.call("GET", f"/static/{path}", headers={"if-none-match": reply.headers["etag"]})

    assert reply.status == 200
    assert reply.raw
    charset = "; charset=utf-8" if STATIC[path].startswith("text/") else ""
    assert reply.headers["content-type"] == f"{STATIC[path]}{charset}"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert (again.status, again.raw) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["/static", "/static/", "/static/swagger-ui", "/static/swagger-ui/README.md", "/static/../engine.py",
     "/static/%2e%2e/engine.py", "/static/docs.js/x", "/docs/other"],
)  # fmt: skip
def test_nothing_else_is_served(client: Client, path: str) -> None:
    reply = client.call("GET", path)

    assert reply.status == 404
    assert reply.code == "not_found"


def test_the_errors_page_has_a_section_for_every_code(client: Client) -> None:
    page = client.call("GET", "/docs/errors").raw.decode()

    assert re.findall(r'<section id="(\w+)"', page) == list(REFUSALS)


def test_the_topics_page_has_a_section_for_every_topic_with_its_fields(client: Client) -> None:
    page = client.call("GET", "/docs/topics").raw.decode()

    parts = re.split(r'<section id="([^"]+)">', page)[1:]
    told = {
        name: tuple(re.findall(r"<code>(\w+)</code>", part.partition("</h2>")[2]))
        for name, part in zip(parts[::2], parts[1::2], strict=True)
    }
    assert told == {name: topic.fields for name, topic in TOPICS.items()}


def test_the_refusal_of_an_unknown_topic_leads_to_the_page_of_topics(company: Company) -> None:
    path = f"/v1/companies/{company.id}/webhooks"

    refused = company.call("POST", path, {"topics": ["balance_chance"]})

    assert (refused.status, refused.code) == (422, "invalid_field")
    address = re.search(r"/docs/\w+", refused.body["error"]["message"])
    assert address is not None
    assert company.client.call("GET", address[0]).status == 200


def test_an_error_leads_to_its_section(company: Company) -> None:
    refused = company.call("GET", "/v1/accounts/a_00000000")
    address, _, code = refused.body["error"]["doc_url"].partition("#")

    page = company.client.call("GET", address).raw.decode()

    assert code == "not_found"
    assert f'id="{code}"' in page
