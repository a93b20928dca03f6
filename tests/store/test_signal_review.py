"""What a second look at signals found: a backlog that is quick to look through, and keeps nobody else waiting.

Also limits and levels: what another limit changes is told, and other levels lift a block.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tenuto.engine import Engine
from tenuto.store import deliveries
from tenuto.store.database import Unit
from tests.client import Client
from tests.hearing import Hearer
from tests.inside import Inside
from tests.receivers import until

NOW: Final = datetime(2030, 1, 15, 12, tzinfo=UTC)
BACKLOG: Final = 40_000
AT_ONCE: Final = 20
SLOW_MS: Final = 500
"""What one look may take at most; sorting the backlog takes several times as long."""


async def _waiting(unit: Unit, environment_id: int, *, webhooks: int, each: int, in_flight: int) -> None:
    """Webhooks of a half of a company for each of which so many notifications wait, all since one moment."""
    await unit.execute(
        "insert into webhook (environment_id, id, url, secret, description, in_flight, merges, created_at)"
        " select $1, w, 'https://hooks.example/', '', '', $3, false, $4 from generate_series(1, $2) w",
        environment_id,
        webhooks,
        in_flight,
        NOW,
    )
    await unit.execute(
        "insert into notification (environment_id, topic, by_rule, data, created_at, position, body)"
        " select $1, 'balance_change', false, '{}', $3, p, '{}' from generate_series(1, $2) p",
        environment_id,
        each,
        NOW,
    )
    await unit.execute(
        "insert into delivery (environment_id, webhook_id, position, status, next_attempt_at, created_at)"
        " select $1, w, p, 'waiting', $4, $4 from generate_series(1, $2) w, generate_series(1, $3) p",
        environment_id,
        webhooks,
        each,
        NOW,
    )


async def test_a_backlog_keeps_no_other_company_waiting(engine: Engine) -> None:
    busy, quiet = await Inside.open(engine), await Inside.open(engine)
    async with engine.database.writing() as unit:
        await _waiting(unit, busy.environment.id, webhooks=4, each=BACKLOG // 4, in_flight=50)
        await _waiting(unit, quiet.environment.id, webhooks=1, each=1, in_flight=2)
        await unit.execute(
            "update delivery set next_attempt_at = $2 where environment_id = $1",
            quiet.environment.id,
            NOW + timedelta(minutes=1),
        )
        later, under_way = NOW + timedelta(minutes=2), list[tuple[int, int, int]]()
        begun = time.perf_counter()
        found = await deliveries.next_attempts(unit, now=later, under_way=under_way, limit=AT_ONCE, failing=AT_ONCE)
        taken_ms = (time.perf_counter() - begun) * 1000
        # The place of one that is under way is not free for the same company while another waits for its first.
        under_way = [one.place for one in found if one.environment_id == busy.environment.id]
        second = await deliveries.next_attempts(unit, now=later, under_way=under_way, limit=1, failing=1)
        # Nor does a company have all the places, where nobody else waits.
        few = await deliveries.next_attempts(
            unit, now=NOW, under_way=under_way, limit=AT_ONCE, failing=1, of_one=len(under_way) + 2
        )

    assert len(found) == AT_ONCE
    assert [one.position for one in found if one.environment_id == quiet.environment.id] == [1]
    for webhook_id in range(1, 5):
        of_one = [one.position for one in found if one.place[:2] == (busy.environment.id, webhook_id)]
        assert of_one == list(range(1, len(of_one) + 1))
    assert [one.environment_id for one in second] == [quiet.environment.id]
    assert len(few) == 2
    assert taken_ms < SLOW_MS


def _facts(hearer: Hearer, topic: str) -> list[tuple[object, object]]:
    return [(one["data"]["name"], one["data"]["enabled"]) for one in hearer.told(0, topic=topic)]


def _is_blocked(hearer: Hearer, account: str) -> bool:
    return bool(hearer.call("GET", f"/v1/accounts/{account}").data["credit_blocked"])


def _owing(hearer: Hearer, amount: int) -> str:
    account = hearer.account(USD=0)
    assert hearer.call("PUT", f"/v1/accounts/{account}", {"credit_limit": 500}).status == 200
    path = f"/v1/accounts/{account}/balance/USD/adjust"
    assert hearer.call("POST", path, {"amount": -amount}).status == 200
    return account


@pytest.mark.parametrize("path", ["", "/balance/USD"])
def test_a_flag_that_another_limit_takes_down_is_told(client: Client, path: str) -> None:
    hearer = Hearer.begin(client)
    hearer.hook(None, "flag.changed")
    account = _owing(hearer, 800)
    for limit in (5000, 500):
        assert hearer.call("PUT", f"/v1/accounts/{account}{path}", {"credit_limit": limit}).status == 200
    hearer.told(3)
    assert _facts(hearer, "flag.changed") == [("over_credit_limit", up) for up in (True, False, True)]
    changes = hearer.call("GET", f"/v1/accounts/{account}/flags/over_credit_limit/history").data
    assert [change["after"]["enabled"] for change in changes] == [True, False, True]


def test_other_levels_lift_a_block_that_they_leave_without_a_reason(client: Client) -> None:
    hearer = Hearer.begin(client)
    strict = {"levels": [{"credit_limit_percentage": 50, "action": "block"}]}
    assert hearer.call("PUT", "/v1/companies/{company}", strict).status == 200
    within, beyond = _owing(hearer, 300), _owing(hearer, 600)
    assert _is_blocked(hearer, within)
    assert _is_blocked(hearer, beyond)
    assert hearer.call("PUT", "/v1/companies/{company}", {"levels": []}).status == 200
    assert not _is_blocked(hearer, within)
    assert _is_blocked(hearer, beyond)


@pytest.mark.parametrize("scheme", ["snow_white", "ariel"])
def test_an_event_that_waited_is_billed_by_the_plan_it_came_under(client: Client, scheme: str) -> None:
    hearer = Hearer.begin(client)
    cheap, dear = (
        hearer.plan(
            renewals={"MONTHLY": {"amount": charge}},
            balances={"tokens": {"amount": units}},
            event_prices=[{"type": "USED", "denomination": "tokens", "amount": price}],
        )
        for charge, units, price in ((500, 100, "1"), (1000, 1000, "7"))
    )
    account = hearer.account()
    hearer.card(account)
    hearer.start(account, cheap)
    assert hearer.call("POST", f"/v1/accounts/{account}/suspend_usage", {"reason": "a wrong meter"}).status == 200
    assert hearer.send(account, type="USED", quantity=6).data["state"] == "suspended"
    hearer.start(account, dear, scheme=scheme)
    assert hearer.call("POST", f"/v1/accounts/{account}/resume_usage", {"queued": "replay"}).status == 200
    until(lambda: not hearer.call("GET", f"/v1/accounts/{account}").data["replaying"])
    assert hearer.balance(account, "tokens")["amount"] == 1000 - 6
    assert hearer.send(account, type="USED", quantity=1).status == 200
    assert hearer.balance(account, "tokens")["amount"] == 1000 - 6 - 7
