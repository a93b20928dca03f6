"""Reports: every figure is the sum of what the lists show, and of nothing else."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlencode

import asyncpg
import pytest

from tenuto.server import Server
from tests.client import Client, Company

PRICES: Final = (("CHAT", "USD", "3"), ("WORD", "words", "1"), ("TWICE", "USD", "5"), ("TWICE", "tokens", "7"))
OVERAGE: Final = {"amount": 10, "overage_charge_amount": "2", "overage_charge_denomination": "USD"}


def listed(company: Company, path: str) -> Iterator[Any]:
    """All rows of a list."""
    cursor = ""
    while True:
        found = company.call("GET", f"{path}{'&' if '?' in path else '?'}limit=1000{cursor}")
        assert found.status == 200, found
        yield from found.data
        if not found.body["has_more"]:
            return
        cursor = f"&cursor={found.body['next_cursor']}"


def asked(company: Company, path: str) -> Any:
    """What a report says."""
    found = company.call("GET", path)
    assert found.status == 200, found
    return found.data


@pytest.fixture
def account(company: Company) -> str:
    """An account that used all there is to be used: priced, overflowing, pending, cancelled, deleted, without price."""
    return used(company)


def used(company: Company) -> str:
    """The id of a new account with events of every kind."""
    for name, denomination, price in PRICES:
        body = {"type": name, "denomination": denomination, "amount": price}
        assert company.call("POST", "/v1/companies/{company}/event_prices", body).status in {200, 409}
    account = company.account(USD=1000, tokens=0)
    plan = company.plan(renewals={"MONTHLY": {"amount": 0}}, balances={"words": OVERAGE})
    company.start(account, plan)
    sent = company.send(account, type="CHAT", quantity=2, cogs=4)
    assert sent.status == 200, sent
    for event in (
        {"type": "WORD", "quantity": 15, "cogs": 1},  # 5 words overflow into 10 cents
        {"type": "WORD", "quantity": "2.5"},
        {"type": "TWICE"},
        {"type": "FREE", "quantity": 4},
        {"type": "CHAT", "cogs_amount": 3, "cogs_denomination": "EUR"},
        {"type": "CHAT", "state": "pending", "cogs": 100},
        {"type": "CHAT", "quantity": 10**6, "gate_on_balance": True},
    ):
        sent = company.send(account, **event)
        assert sent.status in {200, 402}, sent
    held = company.send(account, type="CHAT", quantity=9, state="pending").data["id"]
    assert company.call("PUT", f"/v1/events/{held}", {"state": "complete", "quantity": 4}).status == 200
    dropped = company.send(account, type="CHAT", quantity=9, state="pending").data["id"]
    assert company.call("PUT", f"/v1/events/{dropped}", {"state": "cancelled"}).status == 200
    gone = company.send(account, type="WORD", quantity=100, cogs=77).data["id"]
    assert company.call("DELETE", f"/v1/events/{gone}").status == 200
    return account


def summed(events: Any, by: str = "type") -> dict[tuple[str, str | None], dict[str, Any]]:
    """What a list of events comes to, by what and denomination, as a report says it."""
    found: dict[tuple[str, str | None], dict[str, Any]] = defaultdict(
        lambda: {"events": 0, "quantity": 0.0, "amount": 0, "cogs": defaultdict(int)}
    )
    for event in events:
        if event["state"] != "complete":
            continue
        costs = event.get("costs") or ([event["cost"]] if event["cost"] else [])
        first = found[event[by], costs[0]["denomination"] if costs else None]
        first["events"] += 1
        first["quantity"] += float(event["quantity"])
        if event["cogs_amount"] is not None:
            first["cogs"][event["cogs_denomination"]] += event["cogs_amount"]
        for cost in costs:
            found[event[by], cost["denomination"]]["amount"] += cost["amount"]
    return found


def reported(rows: Any, key: str = "bucket") -> dict[tuple[str, str | None], dict[str, Any]]:
    """The rows of a report, in the shape of ``summed``."""
    return {
        (row[key], row["denomination"]): {
            "events": row["events"],
            "quantity": float(row["quantity"]),
            "amount": row["amount"],
            "cogs": row["cogs"],
        }
        for row in rows
    }


def test_usage_of_an_account_is_the_sum_of_its_complete_events(company: Company, account: str) -> None:
    used(company)
    events = list(listed(company, f"/v1/accounts/{account}/events"))
    assert {event["state"] for event in events} == {"complete", "pending", "cancelled"}
    found = asked(company, f"/v1/accounts/{account}/usage")
    assert found["account_id"] == account
    assert found["by"] == "type"
    assert reported(found["rows"]) == summed(events)
    assert ("WORD", "USD") in reported(found["rows"]), "overage stands in its own denomination"


def test_a_day_and_a_month_hold_what_their_types_hold(company: Company, account: str) -> None:
    by_type = asked(company, f"/v1/accounts/{account}/usage")["rows"]
    for by, length in (("day", 10), ("month", 7)):
        rows = asked(company, f"/v1/accounts/{account}/usage?by={by}")["rows"]
        assert {len(row["bucket"]) for row in rows} == {length}
        for what in ("events", "amount"):
            assert sum(row[what] for row in rows) == sum(row[what] for row in by_type)
        assert sum(row["cogs"].get("EUR", 0) for row in rows) == 3


def test_a_day_is_the_companys_own(company: Company) -> None:
    company.call("PUT", "/v1/companies/{company}", {"time_zone": "Pacific/Kiritimati"})
    account = company.account(USD=100)
    company.price("CHAT", "USD", "3")
    company.call("POST", "/v1/companies/{company}/clock", {"now": "2031-03-31T09:59:00Z"})
    company.send(account, type="CHAT")
    company.call("POST", "/v1/companies/{company}/clock", {"now": "2031-03-31T10:01:00Z"})
    company.send(account, type="CHAT", quantity=2)
    span = "from=2031-03-01T00:00:00Z&to=2031-05-01T00:00:00Z"
    rows = asked(company, f"/v1/accounts/{account}/usage?by=day&{span}")["rows"]
    assert [(row["bucket"], row["amount"]) for row in rows] == [("2031-03-31", 3), ("2031-04-01", 6)]
    rows = asked(company, f"/v1/accounts/{account}/usage?by=month&{span}")["rows"]
    assert [(row["bucket"], row["amount"]) for row in rows] == [("2031-03", 3), ("2031-04", 6)]
    assert asked(company, f"/v1/accounts/{account}/usage")["from"] == "2031-03-31 10:00:00.000000+00"
    assert len(asked(company, f"/v1/accounts/{account}/usage")["rows"]) == 1


def test_movements_are_the_sums_of_the_transactions(company: Company, account: str) -> None:
    moved: dict[tuple[str, str], int] = defaultdict(int)
    last: dict[str, int] = {}
    for row in listed(company, f"/v1/accounts/{account}/transactions"):
        moved[row["denomination"], row["book"]] += row["amount"]
        last.setdefault(row["denomination"], row["ending_balance"])
    for by in ("day", "month"):
        rows = asked(company, f"/v1/accounts/{account}/movements?by={by}")["rows"]
        assert {(row["denomination"], row["book"]): row["amount"] for row in rows} == moved
        assert {(row["denomination"], row["ending_balance"]) for row in rows} == set(last.items())
    balances = {row["denomination"]: row["amount"] for row in asked(company, f"/v1/accounts/{account}/balances")}
    assert all(balances[name] == amount for name, amount in last.items())


def test_a_span_is_half_open_and_sensible(company: Company, account: str) -> None:
    path = f"/v1/accounts/{account}/usage"
    events = list(listed(company, f"/v1/accounts/{account}/events"))
    at = events[0]["recorded_at"].replace(" ", "T").replace("+00", "Z")
    before = asked(company, f"{path}?from=2020-01-01T00:00:00Z&to={at}")["rows"]
    after = asked(company, f"{path}?from={at}&to=2029-01-01T00:00:00Z")["rows"]
    whole = asked(company, f"{path}?from=2020-01-01T00:00:00Z&to=2029-01-01T00:00:00Z")["rows"]
    assert sum(row["events"] for row in before + after) == sum(row["events"] for row in whole)
    for query in (
        "from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z",
        "from=2026-01-02T00:00:00Z&to=2028-01-02T00:00:00Z&by=day",
        "from=9999-12-31T00:00:00Z",
        "to=0001-01-01T00:00:00Z",
        "from=2026-01-02",
        "by=week",
    ):
        assert company.call("GET", f"{path}?{query}").status == 422, query


def test_nobody_else_sees_an_accounts_sums(client: Client, company: Company, account: str) -> None:
    other = Company.open(client)
    for name in ("usage", "movements", "revenue"):
        assert other.call("GET", f"/v1/accounts/{account}/{name}").status == 404


# --- reports of a company ---------------------------------------------------------------------------------------------


def reproduced(company: Company, filters: dict[str, str]) -> list[Any]:
    """The events that the filters of a row show."""
    return list(listed(company, f"/v1/companies/{{company}}/events?{urlencode(filters)}"))


def test_usage_is_the_sum_of_the_companys_events(client: Client, company: Company, account: str) -> None:
    used(company)
    used(Company.open(client))
    path = "/v1/companies/{company}/reports/usage"
    events = list(listed(company, "/v1/companies/{company}/events"))
    found = asked(company, path)
    assert reported(found["rows"]) == summed(events)
    assert {row["denomination"]: row["events"] for row in found["totals"]} == {
        denomination: sum(row["events"] for row in found["rows"] if row["denomination"] == denomination)
        for denomination in {row["denomination"] for row in found["rows"]}
    }
    for row in found["rows"]:
        if row["events"] and row["denomination"]:
            shown = reproduced(company, row["filters"])
            assert len(shown) == row["events"], row
            assert sum(float(event["quantity"]) for event in shown) == float(row["quantity"])
    only = asked(company, f"{path}?type=WORD&by=day")["rows"]
    assert sum(row["amount"] for row in only if row["denomination"] == "words") == 20
    assert {row["filters"]["type"] for row in only} == {"WORD"}
    assert account


def test_a_limit_cuts_rows_and_no_totals(company: Company, account: str) -> None:
    whole = asked(company, "/v1/companies/{company}/reports/usage")
    part = asked(company, "/v1/companies/{company}/reports/usage?limit=1")
    assert part["has_more"]
    assert not whole["has_more"]
    assert part["totals"] == whole["totals"]
    rows = [row for row in part["rows"] if row["denomination"] == "USD"]
    assert [row["amount"] for row in rows] == [
        max(row["amount"] for row in whole["rows"] if row["denomination"] == "USD")
    ]
    assert account


def test_accounts_are_told_by_what_they_were_charged(company: Company, account: str) -> None:
    other = used(company)
    company.send(other, type="CHAT", quantity=100)
    found = asked(company, "/v1/companies/{company}/reports/accounts")
    events = list(listed(company, "/v1/companies/{company}/events"))
    assert reported(found["rows"], "account_id") == summed(events, "account_id")
    assert [row["account_id"] for row in found["rows"] if row["denomination"] == "USD"] == [other, account]
    assert {row["name"] for row in found["rows"]} == {"Ada"}
    row = next(row for row in found["rows"] if row["denomination"] == "words")
    assert len(reproduced(company, row["filters"])) == row["events"]


def test_margin_is_revenue_less_what_events_cost(company: Company, account: str) -> None:
    events = [event for event in listed(company, f"/v1/accounts/{account}/events") if event["state"] == "complete"]
    costs = [cost for event in events for cost in event.get("costs") or ([event["cost"]] if event["cost"] else [])]
    revenue = sum(cost["amount"] for cost in costs if cost["denomination"] == "USD")
    spent = {
        currency: sum(event["cogs_amount"] for event in events if event["cogs_denomination"] == currency)
        for currency in ("USD", "EUR")
    }
    for by in ("type", "account", "day", "month"):
        found = asked(company, f"/v1/companies/{{company}}/reports/cogs?by={by}")
        totals = {row["currency"]: row for row in found["totals"]}
        assert (totals["USD"]["revenue"], totals["USD"]["cogs"]) == (revenue, spent["USD"])
        assert totals["USD"]["margin"] == revenue - spent["USD"]
        assert (totals["EUR"]["revenue"], totals["EUR"]["cogs"]) == (0, spent["EUR"])
        assert totals["EUR"]["margin_percent"] is None
        for currency, total in totals.items():
            for what in ("revenue", "cogs", "margin"):
                assert sum(row[what] for row in found["rows"] if row["currency"] == currency) == total[what]
    chats = asked(company, "/v1/companies/{company}/reports/cogs")["rows"]
    words = next(row for row in chats if row["bucket"] == "WORD")
    assert (words["revenue"], words["cogs"]) == (15, 1), "7.5 words overflow"


def test_revenue_is_payments_less_refunds(client: Client, company: Company) -> None:
    other = Company.open(client)
    other.card(them := other.account())
    other.deposit(them, charge=9999)
    account = company.account(credits=0)
    company.card(account)
    first = company.deposit(account, charge=700)
    company.deposit(account, charge=300)
    assert company.call("POST", f"/v1/payments/{first}/refund", {"amount": 200}).status == 200
    company.card(account, "tok_chargeCustomerFail")
    failed = {"amount_to_deposit": 5, "amount_to_charge": 5000, "denomination": "credits"}
    assert company.call("POST", f"/v1/accounts/{account}/deposit", failed).status == 402
    found = asked(company, "/v1/companies/{company}/reports/revenue")
    payments = list(listed(company, "/v1/companies/{company}/payments?status=succeeded"))
    assert len(found["rows"]) == 1
    row = found["rows"][0]
    assert (row["reason"], row["currency"], row["payments"]) == ("deposit", "USD", len(payments))
    assert row["amount"] == sum(payment["amount"] for payment in payments) == 1000
    assert (row["refunds"], row["refunded"], row["disputed"], row["net"]) == (1, 200, 0, 800)
    assert found["totals"][0]["net"] == 800
    assert len(row["bucket"]) == len("2026-11")
    assert asked(company, "/v1/companies/{company}/reports/revenue?to=2020-01-01T00:00:00Z")["rows"] == []


@pytest.fixture
def payer(company: Company) -> str:
    """An account whose money came in by card, by transfer and from a balance, went back, and did not come at all."""
    account = company.account(credits=0, USD=5000)
    company.card(account)
    whole, part = company.deposit(account, charge=700), company.deposit(account, charge=300)
    assert company.call("POST", f"/v1/payments/{whole}/refund").status == 200
    assert company.call("POST", f"/v1/payments/{part}/refund", {"amount": 200}).status == 200
    body = {"amount_to_deposit": 5, "amount_to_charge": 100, "denomination": "credits"}
    path = f"/v1/accounts/{account}/deposit"
    assert company.call("POST", path, {**body, "charge_against_denomination": "USD"}).status == 200
    company.card(account, "tok_chargeCustomerFail")
    failed = company.call("POST", path, body)
    assert failed.status == 402
    assert company.call("POST", f"/v1/payments/{failed.details['payment_id']}/void").status == 200
    assert company.call("POST", path, body).status == 402
    owing = company.account(USD=0)
    company.call("PUT", f"/v1/accounts/{owing}", {"credit_limit": 10_000})
    done = company.call("POST", f"/v1/invoices/{company.invoice(owing)}/mark_paid", {"reference": "transfer 77"})
    assert done.status == 200, done
    later = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 40 * 86_400})
    assert later.status == 200, later
    company.card(account)
    company.deposit(account, charge=50)
    assert company.call("POST", f"/v1/payments/{part}/refund", {"amount": 30}).status == 200
    return account


@pytest.mark.parametrize("by", ["day", "month"])
def test_a_row_of_revenue_leads_to_the_payments_it_counts(company: Company, payer: str, by: str) -> None:
    span = "from=2026-01-01T00:00:00Z&to=2036-01-01T00:00:00Z" if by == "month" else "by=day"
    found = asked(company, f"/v1/companies/{{company}}/reports/revenue?{span}")["rows"]
    found += [] if by == "month" else asked(company, "/v1/companies/{company}/reports/revenue")["rows"]
    assert found
    for row in found:
        shown = list(listed(company, f"/v1/companies/{{company}}/payments?{urlencode(row['filters'])}"))
        assert (len(shown), sum(payment["amount"] for payment in shown)) == (row["payments"], row["amount"]), row
        assert all(payment["method"] != "balance" for payment in shown)
    if by == "month":
        counted = {(row["reason"], row["bucket"]): (row["amount"], row["refunded"]) for row in found}
        assert sorted(counted.values()) == [(50, 30), (600, 0), (1000, 900)]
    assert payer


def test_payments_are_listed_by_when_they_finished(company: Company, payer: str) -> None:
    path = f"/v1/accounts/{payer}/payments"
    known = list(listed(company, path))
    at = known[0]["finished_at"]
    for query, expected in (
        ({"finished_from": at}, known[:1]),
        ({"finished_to": at}, known[1:]),
        ({"finished_from": at, "finished_to": at}, []),
        ({"status": "paid"}, [one for one in known if one["method"] == "card" and one["status"][0] in "sr"]),
    ):
        assert list(listed(company, f"{path}?{urlencode(query)}")) == expected
    assert company.call("GET", f"{path}?finished_from=yesterday").status == 422


def test_an_accounts_revenue_is_its_part_of_the_companys(client: Client, company: Company, payer: str) -> None:
    span = "from=2026-01-01T00:00:00Z&to=2036-01-01T00:00:00Z"
    whole = asked(company, f"/v1/companies/{{company}}/reports/revenue?{span}")
    mine = asked(company, f"/v1/accounts/{payer}/revenue?{span}")
    assert mine["account_id"] == payer
    assert mine["rows"] == [row for row in whole["rows"] if row["reason"] == "deposit"], "the other one paid an invoice"
    assert [(row["currency"], row["net"]) for row in mine["totals"]] == [("USD", 1050 - 930)]
    assert Company.open(client).call("GET", f"/v1/accounts/{payer}/revenue").status == 404
    made = company.call("POST", "/v1/companies/{company}/keys", {"name": "few", "scopes": ["balances:read"]})
    few = Company(client, company.id, made.data["api_key"])
    assert few.call("GET", f"/v1/accounts/{payer}/revenue").code == "insufficient_scope"


def test_what_is_owed_is_what_accounts_say(company: Company) -> None:
    account = company.account(USD=0)
    company.call("PUT", f"/v1/accounts/{account}", {"credit_limit": 10_000})
    company.invoice(account)
    other = company.account(USD=-250, EUR=40, tokens=-3)
    company.invoice(company.account(USD=0), is_final=False)
    found = asked(company, "/v1/companies/{company}/reports/owed")
    rows = {row["account_id"]: row for row in found["rows"] if row["owed"] or row["account_id"] == other}
    assert (rows[account]["owed"], rows[account]["invoices"]) == (600, 1)
    assert (rows[other]["owed"], rows[other]["negative"], rows[other]["currency"]) == (0, 250, "USD")
    total = found["totals"][0]
    assert total["owed"] == 600
    assert total["negative"] == sum(row["negative"] for row in found["rows"])
    assert {row["currency"] for row in found["rows"]} == {"USD"}
    said = company.call("GET", f"/v1/accounts/{account}").data
    assert (
        600 in said["owed_balance"].values() if isinstance(said["owed_balance"], dict) else said["owed_balance"] == 600
    )


def test_recurring_revenue_is_a_months_share_of_what_plans_cost(company: Company) -> None:
    seats = {"amount": 0, "variable_amount_cost": {"MONTHLY": 200, "YEARLY": 2000}}
    price = {"MONTHLY": {"amount": 1000}, "YEARLY": {"amount": 10000}}
    plan = company.plan(renewals=price, balances={"seats": seats})
    tried = company.plan(name="Tried", trial_days=14)
    free = company.plan(name="Tokens", renewal_denomination="gold", renewals={"MONTHLY": {"amount": 0}})
    for chosen, cadence in ((plan, "MONTHLY"), (plan, "YEARLY"), (tried, None), (free, None)):
        account = company.account()
        company.card(account)
        more: dict[str, Any] = {"cadence": cadence, "plan_variable_amounts": {"seats": 3}} if chosen == plan else {}
        company.start(account, chosen, **more)
    gone = company.account()
    company.card(gone)
    company.start(gone, plan)
    assert company.call("POST", f"/v1/accounts/{gone}/cancelplan", {"at_period_end": False}).status == 200
    found = asked(company, "/v1/companies/{company}/reports/mrr")
    rows = {row["plan_id"]: row for row in found["rows"]}
    assert set(rows) == {plan, tried}, "a plan that is paid in tokens brings no money"
    monthly, yearly = 1000 + 3 * 200, 10_000 + 3 * 2000
    assert (rows[plan]["active"], rows[plan]["mrr"]) == (2, round(monthly + yearly / 12))
    assert (rows[tried]["trialing"], rows[tried]["trialing_mrr"], rows[tried]["mrr"]) == (1, 1000, 0)
    assert found["totals"][0]["mrr"] == rows[plan]["mrr"]
    assert found["totals"][0]["trialing"] == 1
    moved = {row["plan_id"]: (row["started"], row["trials"], row["ended"]) for row in found["movement"]}
    assert moved == {plan: (3, 0, 1), tried: (1, 1, 0), free: (1, 0, 0)}


def test_a_change_of_plan_leaves_one_and_comes_to_the_other(company: Company) -> None:
    small, large = company.plan(name="Small"), company.plan(name="Large", renewals={"MONTHLY": {"amount": 5000}})
    account = company.account()
    company.card(account)
    company.start(account, small)
    company.start(account, large, scheme="ariel")
    moved = {
        row["name"]: (row["started"], row["changed_in"], row["changed_out"], row["ended"])
        for row in asked(company, "/v1/companies/{company}/reports/mrr")["movement"]
    }
    assert moved == {"Small": (1, 0, 1, 0), "Large": (0, 1, 0, 0)}


@pytest.mark.parametrize("name", ["usage", "accounts", "cogs", "revenue", "owed", "mrr"])
def test_reports_need_their_scope_and_their_company(client: Client, company: Company, name: str) -> None:
    other = Company.open(client)
    assert company.call("GET", f"/v1/companies/{other.id}/reports/{name}").status == 404
    made = company.call("POST", "/v1/companies/{company}/keys", {"name": "few", "scopes": ["events:read"]})
    few = Company(client, company.id, made.data["secret" if "secret" in made.data else "api_key"])
    refused = few.call("GET", f"/v1/companies/{{company}}/reports/{name}")
    assert (refused.status, refused.code) == (403, "insufficient_scope")
    assert company.call("GET", "/v1/companies/{company}/reports/nothing").status == 404


def test_reports_of_one_company_wait_for_each_other(service: Server, company: Company, account: str) -> None:
    def ask(name: str) -> int:
        with Client(*service.address) as client:
            path = f"/v1/companies/{{company}}/reports/{name}"
            return Company(client, company.id, company.key).call("GET", path).status

    names = ["usage", "accounts", "cogs", "revenue", "owed", "mrr"] * 2
    with ThreadPoolExecutor(len(names)) as threads:
        assert set(threads.map(ask, names)) == {200}
    assert account


def test_sums_of_accounts_leave_connections_for_others(service: Server, company: Company, account: str) -> None:
    def ask(name: str) -> int:
        with Client(*service.address) as client:
            return Company(client, company.id, company.key).call("GET", f"/v1/accounts/{account}/{name}").status

    async def asked_while_locked(threads: ThreadPoolExecutor) -> tuple[int, list[int]]:
        run = asyncio.get_running_loop().run_in_executor
        rows = await asyncpg.connect(service.dsn)
        try:
            async with rows.transaction():
                await rows.execute("lock table event_charge in access exclusive mode")
                sums = [run(threads, ask, "usage") for _ in range(16)]
                # What waits for a lock can only be asked for.
                while not await rows.fetchval("select count(*) from pg_locks where not granted"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                beside = await asyncio.wait_for(run(threads, ask, "cards"), 4)
            return beside, await asyncio.gather(*sums)
        finally:
            await rows.close()

    with ThreadPoolExecutor(17) as threads:
        beside, sums = asyncio.run(asked_while_locked(threads))
    assert beside == 200
    assert set(sums) == {200}


def test_figures_tell_money_only_to_who_reads_reports(client: Client, company: Company, account: str) -> None:
    company.card(account)
    company.deposit(account, charge=700)
    made = company.call("POST", "/v1/companies/{company}/keys", {"name": "few", "scopes": ["events:read"]})
    few = Company(client, company.id, made.data["api_key"])
    found = asked(few, "/v1/companies/{company}/figures")
    assert found["money"] is None
    assert found["accounts"] == 1
    assert found["refused"] == 1
    assert found["events"] == len(list(listed(company, "/v1/companies/{company}/events")))
    assert found["clockwork"] is True
    whole = asked(company, "/v1/companies/{company}/figures")
    assert whole["money"] == [{"currency": "USD", "revenue": 700, "owed": 0}]


def test_parked_refills_are_listed_until_somebody_acts(company: Company) -> None:
    account = company.account(credits=0)
    assert asked(company, "/v1/companies/{company}/parked_refills")["rows"] == []
    path = f"/v1/accounts/{account}/balance/credits/autorefill"
    set_up = company.call("PUT", path, {"threshold": 100, "amount": 1000, "usd_charge": 500})
    assert set_up.status == 200, set_up
    assert company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 1}).status == 200
    row = asked(company, "/v1/companies/{company}/parked_refills")["rows"][0]
    assert (row["account_id"], row["denomination"], row["code"]) == (account, "credits", "payment_method_required")
    assert (row["amount"], row["charge_amount"], row["charge_denomination"]) == (1000, 500, "USD")
    assert asked(company, "/v1/companies/{company}/figures")["parked_refills"] == 1
