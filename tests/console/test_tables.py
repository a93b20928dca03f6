"""Tables: the files that they give, the days that their filters take, and the details at their side."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tenuto.console.frame import Rows
from tenuto.console.tables import Column, Listing, file_lines, moments
from tests.client import Company
from tests.console.visitor import Visitor

NEW_YORK = ZoneInfo("America/New_York")
SALES = Listing("sales", "/sales", (Column("id", "Sale"), Column("total", "Total", "amount")), empty="None.")


def file_of(visitor: Visitor, path: str) -> list[dict[str, str]]:
    """The rows of a table's file by the names in its head."""
    seen = visitor.visit(path)
    assert seen.headers["content-type"].startswith("text/csv"), seen
    return list(csv.DictReader(io.StringIO(seen.text)))


def owing(company: Company, account: str, currency: str, amount: int) -> None:
    """Let an account owe an invoice of this amount."""
    company.call("PUT", f"/v1/accounts/{account}/invoicing", {"currency": currency})
    company.send(account, type="CHAT", cost_override_amount=amount, cost_override_denomination=currency)
    made = company.call("POST", f"/v1/accounts/{account}/invoices", {"currency": currency})
    assert made.status == 200, made
    company.call("POST", f"/v1/invoices/{made.data['id']}/finalize")


def sale(number: int) -> dict[str, object]:
    return {"id": f"s{number}", "total": 1250 + number, "denomination": "USD"}


def taken(read: Callable[[str | None], Awaitable[Rows]], most: int) -> str:
    """A file as far as it comes, with ``broken off`` where it does."""

    async def take() -> str:
        found = ""
        try:
            async for part in file_lines(SALES, await read(None), read, most):
                found += part.decode()
        except ConnectionError:
            found += "broken off"
        return found

    return asyncio.run(take())


# --- files ------------------------------------------------------------------------------------------------------------


def test_amounts_in_a_file_are_major_units_beside_their_denomination(visitor: Visitor) -> None:
    company = visitor.company
    company.price("CHAT", "USD", "250")
    company.price("TOKENS", "tokens", "3")
    account = company.account(USD=1000, tokens=100)
    company.send(account, type="CHAT")
    company.send(account, type="TOKENS")

    moved = file_of(visitor, "/control/transactions?format=csv&book=usage")
    assert {(row["amount"], row["ending_balance"], row["denomination"]) for row in moved} == {
        ("-2.50", "7.50", "USD"),
        ("-3", "97", "tokens"),
    }
    events = file_of(visitor, f"/control/accounts/{account}/events?format=csv")
    assert {(row["cost.amount"], row["cost.denomination"]) for row in events} == {("2.50", "USD"), ("3", "tokens")}
    head = visitor.visit(f"/control/accounts/{account}/events?format=csv").text.splitlines()[0].split(",")
    assert head.count("cost.denomination") == 1, "it is a column of the table already"
    assert head[head.index("balance.amount") + 1] == "balance.denomination"


def test_payments_in_a_file_say_their_currency(visitor: Visitor) -> None:
    account = visitor.company.account()
    visitor.company.card(account)
    visitor.company.deposit(account, units=1000, charge=500)
    for path in ("/control/payments", f"/control/accounts/{account}/payments"):
        (row,) = file_of(visitor, f"{path}?format=csv")
        assert (row["amount"], row["currency"]) == ("5.00", "USD"), path
        assert (row["units"], row["denomination"]) == ("1000", "credits"), path


def test_what_accounts_owe_is_told_by_currency(visitor: Visitor) -> None:
    account = visitor.company.account()
    owing(visitor.company, account, "USD", 1250)
    owing(visitor.company, account, "EUR", 300)
    (row,) = file_of(visitor, "/control/accounts?format=csv")
    assert sorted(row["owed_balances"].split("; ")) == ["EUR 3.00", "USD 12.50"]
    assert "owed_balance" not in row


def test_lists_in_a_file_are_words(visitor: Visitor) -> None:
    visitor.company.plan(balances={"credits": {"amount": 5}, "tokens": {"amount": 7}})
    (plan,) = file_of(visitor, "/control/plans?format=csv")
    assert sorted(plan["included"].split("; ")) == ["credits", "tokens"]
    assert (plan["renewals.MONTHLY.amount"], plan["renewal_denomination"]) == ("10.00", "USD")
    assert "[" not in visitor.visit("/control/settings/keys?format=csv").text


def test_a_file_of_nothing_has_its_head(visitor: Visitor) -> None:
    (head,) = visitor.visit("/control/payments?format=csv").text.splitlines()
    assert head.startswith("id,created_at,account_id,amount,currency")


def test_a_file_that_is_cut_says_so_at_its_end() -> None:
    async def endless(cursor: str | None) -> Rows:
        number = int(cursor or 0)
        return Rows([sale(number), sale(number + 1)], str(number + 2))

    assert taken(endless, 4).splitlines() == [
        *("id,total,denomination", "s0,12.50,USD", "s1,12.51,USD", "s2,12.52,USD", "s3,12.53,USD"),
        "cut at 4 rows: narrow the filter",
    ]


def test_a_file_that_ends_at_the_limit_is_whole() -> None:
    async def two(cursor: str | None) -> Rows:
        return Rows([sale(1)], None) if cursor else Rows([sale(0)], "1")

    assert taken(two, 2).splitlines()[-1] == "s1,12.51,USD"


def test_a_file_that_fails_on_the_way_breaks_off() -> None:
    async def failing(cursor: str | None) -> Rows:
        if cursor:
            raise ConnectionError
        return Rows([sale(0)], "1")

    assert taken(failing, 10).endswith("s0,12.50,USD\r\nbroken off")


# --- days -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("from", "2026-11-30", "2026-11-30T05:00:00+00:00"),
        ("to", "2026-11-30", "2026-12-01T05:00:00+00:00"),
        # Clocks go back on 1 November 2026: that day is 25 hours long.
        ("recorded_from", "2026-11-01", "2026-11-01T04:00:00+00:00"),
        ("recorded_to", "2026-11-01", "2026-11-02T05:00:00+00:00"),
        ("to", "2026-11-30T12:00:00Z", "2026-11-30T12:00:00Z"),
        ("to", "2026-11-31", "2026-11-31"),
        ("to", "9999-12-31", "9999-12-31"),
        ("type", "2026-11-30", "2026-11-30"),
    ],
)
def test_a_day_is_the_companys(name: str, value: str, bound: str) -> None:
    assert moments({name: value}, NEW_YORK) == {name: bound}


def moved_at(company: Company, at: datetime) -> None:
    """Set the company's clock forward to a moment."""
    now = datetime.fromisoformat(company.call("GET", "/v1/companies/{company}/clock").data["now"])
    company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": int((at - now).total_seconds())})


def test_a_filter_by_day_takes_the_whole_of_it_where_the_company_is(visitor: Visitor) -> None:
    company = visitor.company
    company.call("PUT", "/v1/companies/{company}", {"time_zone": "America/New_York"})
    clock = datetime.fromisoformat(company.call("GET", "/v1/companies/{company}/clock").data["now"])
    day = clock.astimezone(NEW_YORK).date() + timedelta(days=2)
    # Late in the evening in New York, when it is the next day in UTC.
    moved_at(company, datetime(day.year, day.month, day.day, 22, tzinfo=NEW_YORK))
    account = company.account(USD=1000)
    (moved,) = (row["id"] for row in company.call("GET", f"/v1/accounts/{account}/transactions").data)

    def shows(first: date, last: date) -> bool:
        seen = visitor.visit(f"/control/transactions?from={first}&to={last}")
        assert f'value="{last}" type="date"' in seen.text, "the address keeps the day"
        assert "to: " + str(last) in seen.words
        in_file = file_of(visitor, f"/control/transactions?from={first}&to={last}&format=csv")
        assert (moved in seen.text) == bool(in_file)
        return moved in seen.text

    before, after = day - timedelta(days=1), day + timedelta(days=1)
    assert shows(day, day)
    assert not shows(before, before)
    assert not shows(after, after)


# --- details ----------------------------------------------------------------------------------------------------------


def test_the_details_of_an_account_show_money_as_money(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account()
    company.call("PUT", f"/v1/accounts/{account}", {"credit_limit": 123_456})
    owing(company, account, "USD", 1250)
    words = visitor.visit("/control/accounts").words
    assert "credit limit $1,234.56" in words
    assert "owed balances $12.50" in words
    assert "owed balance " not in words


def test_details_show_an_amount_in_the_denomination_that_belongs_to_it(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account(credits=1000)
    company.card(account)
    refill = {"threshold": 100, "amount": 1000, "usd_charge": 567, "denomination": "credits"}
    assert company.call("PUT", f"/v1/accounts/{account}/auto_refill", refill).status == 200
    assert "usd charge $5.67" in visitor.visit(f"/control/accounts/{account}").words
    company.plan(setup_fee=4321)
    assert "setup fee $43.21" in visitor.visit("/control/plans").words
