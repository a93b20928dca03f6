"""The demo's steps about plans: started by card, used beyond what is included, changed as previewed, a year long."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

from rich.table import Table

from tenuto.demo_story import Company, Story, check

MONTHS: Final = 12
BASIC: Final = {
    "name": "Basic",
    "code": "basic",
    "renewal_denomination": "USD",
    "renewals": {"MONTHLY": {"amount": 1000}},
    "balances": {"words": {"amount": 1000, "overage_charge_amount": "0.5"}},
}
PRO: Final = {
    "name": "Pro",
    "code": "pro",
    "renewal_denomination": "USD",
    "renewals": {"MONTHLY": {"amount": 4000}},
    "balances": {"words": {"amount": 5000, "overage_charge_amount": "0.4"}},
}


def on_plans(story: Story, company: Company) -> None:
    """All steps about plans, in order."""
    company.price("WORD", "words", "1")
    basic = _started(story, company, account := _with_card(company, "Hana"))
    _overflowed(story, company, account)
    _upgraded(story, company, basic)
    _a_year(story, company, account)


def _with_card(company: Company, name: str) -> str:
    account = company.account(name)
    company.ask("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"})
    return account


def _payments(company: Company, account: str) -> list[Any]:
    """What the card was asked for, oldest first."""
    return list(reversed(company.ask("GET", f"/v1/accounts/{account}/payments?limit=100")))


def _steps(company: Company, account: str) -> list[Any]:
    """What was done to the plan, oldest first."""
    return list(reversed(company.ask("GET", f"/v1/accounts/{account}/plan/history?limit=100")))


def _started(story: Story, company: Company, account: str) -> str:
    """A plan, and an account that starts on it; the plan's id."""
    story.begin("A plan is published, and a card pays for its first month")
    plan = company.ask("POST", "/v1/companies/{company}/plans", BASIC)
    check((plan["version"], plan["code"]) == (1, "basic"), "The plan is published", plan)
    story.tell("10.00 USD a month for 1,000 words; half a cent for each word more", did="the plan Basic")
    company.ask("POST", f"/v1/accounts/{account}/changeplan", {"plan_id": plan["id"]})
    found = _payments(company, account)
    charged = [(payment["reason"], payment["status"], payment["amount"]) for payment in found]
    check(charged == [("plan_start", "succeeded", 1000)], "The card was charged once, 10.00", charged)
    units = company.balance(account, "words")["amount"]
    check(units == 1000, "1,000 words have arrived", units)  # noqa: PLR2004
    on = company.ask("GET", f"/v1/accounts/{account}/plan")
    check(on["plan_status"] == "ACTIVE", "The plan runs", on)
    story.tell(f"ACTIVE until {on['period_end'][:10]}, 1,000 words", did="charged 10.00 USD")
    story.proven("Published, started, charged once; the words came in the unit that took the money in.")
    return str(plan["id"])


def _overflowed(story: Story, company: Company, account: str) -> None:
    story.begin("Usage beyond the plan becomes overage")
    reply = company.send(account, {"type": "WORD", "quantity": 1200})
    check(reply.status == 200, "The usage is taken", reply.raw)  # noqa: PLR2004
    left = {name: company.balance(account, name)["amount"] for name in ("words", "USD")}
    check(left == {"words": 0, "USD": -100}, "1,000 words of the plan and 200 x 0.5 cents", left)
    story.tell("0 words left, 1.00 USD owed", did="1,200 words in one event")
    story.proven("One event, two charges: the 1,000 that were there, and 200 more at half a cent.")


def _upgraded(story: Story, company: Company, basic: str) -> None:
    story.begin("A preview is what the change then charges")
    pro = company.ask("POST", "/v1/companies/{company}/plans", PRO)["id"]
    account = _with_card(company, "Ivan")
    change = f"/v1/accounts/{account}/changeplan"
    company.ask("POST", change, {"plan_id": basic})
    company.send(account, {"type": "WORD", "quantity": 250})
    story.tell("750 words left", did="on Basic, 250 words used")
    asked = {"plan_id": pro, "scheme": "ariel"}
    previewed = company.ask("POST", change, {**asked, "preview": True})
    check(len(_payments(company, account)) == 1, "A preview charges nothing")
    for line in previewed["lines"]:
        story.tell(f"{line['amount'] / 100:>7.2f} {line['denomination']}", did=line["description"])
    company.ask("POST", change, asked)
    done, charged = _steps(company, account)[-1], _payments(company, account)[-1]["amount"]
    same = ("kind", "scheme", "plan_id", "denomination", "charge", "credit", "lines", "granted", "cancelled")
    differing = [(name, previewed[name], done[name]) for name in same if previewed[name] != done[name]]
    check(not differing, "What was done is what was previewed", differing)
    check(charged == previewed["charge"] == 3250, "The card was charged what was previewed", (charged, previewed))  # noqa: PLR2004
    units = company.balance(account, "words")["amount"]
    check(units == 5000, "The old words ended, the new ones are there", units)  # noqa: PLR2004
    story.tell(f"charged {charged / 100:.2f} USD, {units:,} words", did="changed to Pro, by Ariel")
    story.proven("Three quarters of the words were left, so three quarters of the price came back; to the cent.")


def _a_year(story: Story, company: Company, account: str) -> None:
    """Twelve months by the test clock: twelve renewals, each at its own date, each charged once."""
    story.begin("A year passes in seconds")
    first = datetime.fromisoformat(company.ask("GET", f"/v1/accounts/{account}/plan")["period_end"])
    first = first.replace(tzinfo=first.tzinfo or UTC)
    dates = [_months_after(first, number) for number in range(MONTHS)]
    began = time.perf_counter()
    end = dates[-1].replace(hour=23, minute=59, second=59, microsecond=0)
    company.ask("POST", "/v1/companies/{company}/clock", {"now": f"{end:%Y-%m-%dT%H:%M:%SZ}"})
    took = time.perf_counter() - began
    renewals = [step for step in _steps(company, account) if step["kind"] == "renewal"]
    at = [datetime.fromisoformat(step["at"]).replace(tzinfo=UTC) for step in renewals]
    check(at == dates, "Twelve renewals, each at its own date", [str(moment) for moment in at])
    payments = {
        payment["id"]: payment for payment in _payments(company, account) if payment["reason"] == "plan_renewal"
    }
    check(len(payments) == MONTHS, "One payment a renewal", len(payments))
    charged = [payments[step["payment_id"]] for step in renewals]
    check(all(payment["status"] == "succeeded" for payment in charged), "Every payment succeeded", charged)
    amounts = [payment["amount"] for payment in charged]
    check(amounts == [1100] + [1000] * (MONTHS - 1), "10.00 each, and the overage with the first", amounts)
    left = {name: company.balance(account, name)["amount"] for name in ("words", "USD")}
    check(left == {"words": 1000, "USD": 0}, "A new month of words, and nothing is owed", left)
    story.tell(f"{took:.1f} s", did=f"the test clock moved to {end:%d %B %Y}")
    story.show(_table(dates, amounts))
    story.proven(f"{MONTHS} renewals at their dates, {MONTHS} charges, {sum(amounts) / 100:.2f} USD: none twice.")


def _months_after(first: datetime, number: int) -> datetime:
    month = first.month - 1 + number
    return first.replace(year=first.year + month // 12, month=month % 12 + 1)


def _table(dates: list[datetime], amounts: list[int]) -> Table:
    """Renewals in two halves beside each other, and the sum of what was charged."""
    half = len(dates) // 2
    table = Table(box=None, show_footer=True, pad_edge=False, padding=(0, 2, 0, 0))
    for at in (0, half):
        table.add_column("renewal", footer="")
        table.add_column("charged", justify="right", footer="" if at == 0 else f"{sum(amounts) / 100:.2f} USD")
    for number in range(half):
        cells = [(f"{dates[place]:%d %b %Y}", f"{amounts[place] / 100:.2f}") for place in (number, number + half)]
        table.add_row(*(cell for pair in cells for cell in pair))
    return table
