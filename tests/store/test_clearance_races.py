"""Crowds that want the last places of a plan: exactly as many pass as there are places."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tenuto.server import Server
from tests.client import Client, Company
from tests.counting import Sites
from tests.members import Members

CROWD, PLACES, TOTAL = 200, 10, 25
PAUSE_SECONDS = 0.4
SITE = {"class": "App\\Models\\Site", "basename": "Site"}


@pytest.fixture
def service(calling_service: Server) -> Server:
    """Two workers that may call services of this machine."""
    return calling_service


@pytest.fixture
def members(service: Server, company: Company) -> Members:
    """The people of organizations below ``org-1``, whose plan has so many places."""
    found = Members(service, company)
    found.account("org-1")
    account_id = company.call("GET", "/v1/companies/{company}/accounts").data[0]["id"]
    plan = company.plan(renewals={"MONTHLY": {"amount": 0}}, balances={"sites": {"amount": TOTAL}})
    company.start(account_id, plan)
    for child in ("org-2", "org-3"):
        path = f"/v1/companies/{{company}}/organizations/{child}"
        assert company.call("PUT", path, {"parent": "org-1"}).status == 200
    settings = {"billables": {"Site": {"denomination": "sites"}}}
    assert company.call("PUT", "/v1/companies/{company}", settings).status == 200
    return found


def crowd(members: Members, organizations: list[str], body: object, make: Callable[[str], None]) -> Counter[int]:
    """How everybody was answered who wants one more at once; who may, makes it after a while."""
    start = threading.Barrier(CROWD)
    chance = random.Random(7)
    wants = [(organizations[index % len(organizations)], chance.uniform(0, PAUSE_SECONDS)) for index in range(CROWD)]

    def ask(want: tuple[str, float]) -> int:
        organization, pause = want
        headers = {"authorization": f"Bearer {members.token(organization)}"}
        with Client(*members.server.address) as client:
            start.wait(30)
            reply = client.call("POST", "/v1/billable", body, headers)
            if reply.status == 200:
                time.sleep(pause)  # the service that asks makes its row some time after the answer
                make(organization)
            else:
                assert "in use" in reply.body["message"], reply
            return reply.status

    with ThreadPoolExecutor(CROWD) as threads:
        return Counter(threads.map(ask, wants))


@pytest.mark.parametrize("organizations", [["org-1"], ["org-1", "org-2", "org-3"]], ids=["alone", "tree"])
def test_only_the_last_places_are_cleared_while_rows_are_made_late(
    company: Company, members: Members, organizations: list[str]
) -> None:
    with Sites() as sites:
        company.call("PUT", "/v1/companies/{company}", {"billable_prefixes": [sites.url]})
        body = {**SITE, "api_prefix": sites.url}
        for index in range(TOTAL - PLACES):
            organization = organizations[index % len(organizations)]
            assert members.call("POST", "/v1/billable", body, organization).status == 200
            sites.make(organization)

        assert crowd(members, organizations, body, sites.make) == {200: PLACES, 402: CROWD - PLACES}

        assert sites.rows.total() == TOTAL
        assert {organization for _, organization in sites.asked} == set(organizations)


@pytest.mark.parametrize("organizations", [["org-1"], ["org-2", "org-3"]], ids=["alone", "tree"])
def test_only_the_last_places_are_cleared_where_clearances_are_counted(
    members: Members, organizations: list[str]
) -> None:
    made: Counter[str] = Counter()
    for index in range(TOTAL - PLACES):
        assert members.call("POST", "/v1/billable", SITE, organizations[index % len(organizations)]).status == 200
    lock = threading.Lock()

    def make(organization: str) -> None:
        with lock:
            made[organization] += 1

    assert crowd(members, organizations, SITE, make) == {200: PLACES, 402: CROWD - PLACES}
    assert made.total() == PLACES

    for organization in (name for name, count in made.items() for _ in range(count)):
        assert members.call("DELETE", "/v1/billable", SITE, organization).status == 204
    again = crowd(members, organizations, SITE, make)
    assert again == {200: PLACES, 402: CROWD - PLACES}, "what was given back is there again, once"
