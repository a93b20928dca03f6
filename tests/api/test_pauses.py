"""Pauses, credit blocks and suspended usage over HTTP: what stands still, what waits, and what becomes of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import asyncpg
import msgspec
import pytest

from tenuto.core.identifiers import read
from tenuto.core.topic import TOPICS
from tenuto.server import Server
from tests.client import Client, Company, Reply
from tests.inside import audit, disagreements
from tests.wire import Wire

PATIENCE_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.02
TOLD: Final = sorted(name for name in TOPICS if name.startswith("account.") or name == "flag.changed")
UNKNOWN: Final = "a_00000000"


def ask(company: Company, account_id: str, verb: str, body: object = None) -> Any:
    """A pause of an account, which is answered with the account."""
    reply = company.call("POST", f"/v1/accounts/{account_id}/{verb}", body)
    assert reply.status == 200, reply
    return reply.data


def ask_all(company: Company, verb: str, body: object = None) -> Any:
    """A pause of the company's half, which is answered with how that stands."""
    reply = company.call("POST", f"/v1/companies/{{company}}/{verb}", body)
    assert reply.status == 200, reply
    return reply.data


def account(company: Company, account_id: str) -> Any:
    return company.call("GET", f"/v1/accounts/{account_id}").data


def event(company: Company, event_id: str) -> Any:
    return company.call("GET", f"/v1/events/{event_id}").data


def until_taken_up(company: Company, *account_ids: str) -> None:
    """Wait until nothing of accounts is being replayed any more: the clockwork is another task of the server."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    for account_id in account_ids:
        while account(company, account_id)["replaying"]:
            assert time.monotonic() < give_up_at, account(company, account_id)
            time.sleep(LOOK_SECONDS)


def until_none_waits(company: Company) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while company.call("GET", "/v1/companies/{company}/pauses").data["events_waiting"]:
        assert time.monotonic() < give_up_at
        time.sleep(LOOK_SECONDS)


@pytest.fixture
async def rows(service: Server) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(service.dsn)
    yield connection
    await connection.close()


@pytest.fixture
def heard(company: Company) -> Company:
    """A company with a webhook that hears of pauses and flags."""
    reply = company.call("POST", "/v1/companies/{company}/webhooks", {"topics": TOLD})
    assert reply.status == 200, reply
    return company


async def facts(rows: asyncpg.Connection, company: Company) -> list[tuple[str, dict[str, Any]]]:
    """What was told, in order; each fact has exactly the fields of its topic."""
    found = await rows.fetch(
        "select n.topic, n.data from notification n join environment v on v.id = n.environment_id"
        " where v.company_id = $1 order by n.id",
        read("c", company.id),
    )
    told = [(row["topic"], msgspec.json.decode(row["data"])) for row in found]
    for topic, data in told:
        assert set(data) == set(TOPICS[topic].fields), topic
    return told


async def history(rows: asyncpg.Connection, account_id: str) -> list[tuple[str, bool, str]]:
    found = await rows.fetch(
        "select name, after, reason, source from flag_change where account_id = $1 order by id", read("a", account_id)
    )
    assert {row["source"] for row in found} <= {"system"}
    return [(row["name"], msgspec.json.decode(row["after"])["enabled"], row["reason"]) for row in found]


# --- pause and credit block -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "end", "field", "code"),
    [
        ("pause", "resume", "paused", "account_paused"),
        ("credit_block", "credit_unblock", "credit_blocked", "credit_blocked"),
    ],
)
async def test_a_barred_account_takes_no_gated_event_until_it_goes_on(
    heard: Company, rows: asyncpg.Connection, begin: str, end: str, field: str, code: str
) -> None:
    company = heard
    company.price("CHAT", "credits", "1")
    account_id = company.account(credits=100)

    shown = ask(company, account_id, begin, {"reason": "asked by support"})
    assert (shown["id"], shown[field], shown[f"{field}_by"]) == (account_id, True, "manual")
    assert shown[f"{field}_at"] is not None
    refused = company.send(account_id, type="CHAT", gate_on_balance=True)
    assert (refused.status, refused.code) == (402, code)
    assert company.send(account_id, type="CHAT").status == 200, "what is not gated is always billed"

    again = ask(company, account_id, begin)
    assert again == {**shown, "updated_at": again["updated_at"]}
    assert again["updated_at"] == shown["updated_at"], "nothing was changed"

    shown = ask(company, account_id, end)
    assert (shown[field], shown[f"{field}_by"], shown[f"{field}_at"]) == (False, None, None)
    assert company.send(account_id, type="CHAT", gate_on_balance=True).data["balance"]["amount"] == 98
    ask(company, account_id, end)

    words = {"pause": ("paused", "resumed"), "credit_block": ("credit_blocked", "credit_unblocked")}[begin]
    told = await facts(rows, company)
    assert [topic for topic, _ in told] == [
        *(f"account.{words[0]}", "flag.changed"),
        *(f"account.{words[1]}", "flag.changed"),
    ]
    assert [data["by"] for topic, data in told if topic != "flag.changed"] == ["manual", "manual"]
    flags = [data for topic, data in told if topic == "flag.changed"]
    assert [(flag["enabled"], flag["before"]["enabled"], flag["source"]) for flag in flags] == [
        (True, False, "system"),
        (False, True, "system"),
    ]
    assert [change[1:] for change in await history(rows, account_id)] == [
        (True, "asked by support"),
        (False, "ended by manual"),
    ]
    actors = await rows.fetch("select distinct actor from flag_change where account_id = $1", read("a", account_id))
    assert [str(row["actor"])[:2] for row in actors] == ["k_"]


async def test_a_pause_of_the_whole_half_bars_every_account_and_ends_for_all(
    heard: Company, rows: asyncpg.Connection
) -> None:
    company = heard
    company.price("CHAT", "credits", "1")
    one, other = company.account(credits=10), company.account(credits=10)
    ask(company, other, "pause")

    shown = ask_all(company, "pause", {"reason": "an outage"})
    assert (shown["paused"], shown["usage_suspended"], shown["events_waiting"]) == (True, False, 0)
    for account_id in (one, other):
        refused = company.send(account_id, type="CHAT", gate_on_balance=True)
        assert (refused.status, refused.code) == (402, "account_paused")
    assert company.send(one, type="CHAT").status == 200
    assert ask_all(company, "pause") == shown
    assert company.call("GET", "/v1/companies/{company}/pauses").data == shown

    assert ask_all(company, "resume")["paused"] is False
    assert company.send(one, type="CHAT", gate_on_balance=True).status == 200
    assert company.send(other, type="CHAT", gate_on_balance=True).code == "account_paused", "its own pause stays"
    told = [topic for topic, _ in await facts(rows, company)]
    assert told == ["account.paused", "flag.changed", "account.paused", "account.resumed"]
    of_all = await rows.fetch(
        "select topic from notification n join environment v on v.id = n.environment_id"
        " where v.company_id = $1 and n.account_id is null order by n.id",
        read("c", company.id),
    )
    assert [row["topic"] for row in of_all] == ["account.paused", "account.resumed"]


async def test_captures_that_are_suspended_are_told_of(heard: Company, rows: asyncpg.Connection) -> None:
    company = heard
    account_id = company.account()
    for verb in ("suspend_capture", "suspend_capture", "resume_capture", "resume_capture"):
        ask(company, account_id, verb)
        ask_all(company, verb)

    assert [topic for topic, _ in await facts(rows, company)] == [
        *(2 * ["account.capture_suspended"]),
        *(2 * ["account.capture_resumed"]),
    ]
    assert company.call("GET", "/v1/companies/{company}/pauses").data["capture_suspended"] is False


async def test_the_operators_word_outlasts_what_dunning_would_lift(company: Company, rows: asyncpg.Connection) -> None:
    account_id = company.account()
    await rows.execute(
        "update account set paused_at = now(), paused_by = 'dunning' where id = $1", read("a", account_id)
    )
    since = account(company, account_id)["paused_at"]

    shown = ask(company, account_id, "pause")
    assert (shown["paused_by"], shown["paused_at"]) == ("manual", since)
    await rows.execute("update account set paused_at = now(), paused_by = 'plan' where id = $1", read("a", account_id))
    assert ask(company, account_id, "resume")["paused"] is False


async def test_what_dunning_begins_and_a_payment_ends_is_told_of_too(heard: Company, rows: asyncpg.Connection) -> None:
    company = heard
    ladder = [{"days": 1, "action": "pause"}, {"days": 2, "action": "credit_block"}]
    changed = company.call("PUT", "/v1/companies/{company}", {"invoicing": {"terms_days": 0, "dunning": ladder}})
    assert changed.status == 200, changed
    account_id = company.account()
    invoice_id = company.invoice(account_id)
    assert company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 3 * 86_400}).status == 200
    shown = account(company, account_id)
    assert (shown["paused_by"], shown["credit_blocked_by"]) == ("dunning", "dunning")

    paid = company.call("POST", f"/v1/invoices/{invoice_id}/mark_paid", {"reference": "a transfer"})
    assert paid.status == 200, paid
    shown = account(company, account_id)
    assert (shown["paused"], shown["credit_blocked"]) == (False, False)
    told = [(topic, data["by"]) for topic, data in await facts(rows, company) if topic != "flag.changed"]
    assert sorted(told) == sorted(
        (f"account.{word}", "dunning") for word in ("paused", "credit_blocked", "resumed", "credit_unblocked")
    )
    assert sorted(change[:2] for change in await history(rows, account_id)) == [
        *(("account_paused", False), ("account_paused", True)),
        *(("credit_blocked", False), ("credit_blocked", True)),
    ]


# --- limits that are raised -------------------------------------------------------------------------------------------


def blocked(company: Company, limit: Mapping[str, object]) -> str:
    """An account that owes twice its limit of 100 cents, and is blocked for it."""
    account_id = company.account(USD=0)
    if "default" in limit:
        company.call("PUT", "/v1/companies/{company}", {"default_credit_limit": 100})
    elif "balance" in limit:
        company.call("PUT", f"/v1/accounts/{account_id}/balance/USD", {"credit_limit": 100})
    else:
        company.call("PUT", f"/v1/accounts/{account_id}", {"credit_limit": 100})
    usage = {"type": "GPU", "cost_override_amount": 200, "cost_override_denomination": "USD"}
    assert company.send(account_id, usage).status == 200
    shown = account(company, account_id)
    assert (shown["credit_blocked"], shown["credit_blocked_by"]) == (True, "level")
    return account_id


@pytest.mark.parametrize("whose", ["account", "balance", "default"])
async def test_a_limit_that_is_raised_ends_the_block_of_a_level_at_once(
    heard: Company, rows: asyncpg.Connection, whose: str
) -> None:
    company = heard
    account_id = blocked(company, {whose: 100})
    path, name = {
        "account": (f"/v1/accounts/{account_id}", "credit_limit"),
        "balance": (f"/v1/accounts/{account_id}/balance/USD", "credit_limit"),
        "default": ("/v1/companies/{company}", "default_credit_limit"),
    }[whose]

    assert company.call("PUT", path, {name: 150}).status == 200
    assert account(company, account_id)["credit_blocked"] is True, "200 is still more than 150"
    assert company.call("PUT", path, {name: 1000}).status == 200
    assert account(company, account_id)["credit_blocked"] is False

    told = [topic for topic, _ in await facts(rows, company) if topic.startswith("account.")]
    assert told == ["account.credit_blocked", "account.credit_unblocked"]
    changes = [(name, is_up) for name, is_up, _ in await history(rows, account_id) if name == "credit_blocked"]
    assert changes == [("credit_blocked", True), ("credit_blocked", False)]


def test_a_block_by_hand_stays_when_the_limit_is_raised(company: Company) -> None:
    account_id = blocked(company, {"account": 100})
    assert ask(company, account_id, "credit_block")["credit_blocked_by"] == "manual"
    company.call("PUT", f"/v1/accounts/{account_id}", {"credit_limit": 100_000})
    assert account(company, account_id)["credit_blocked"] is True


# --- suspended usage --------------------------------------------------------------------------------------------------


@pytest.fixture
def priced(company: Company) -> Company:
    company.price("CHAT", "credits", "3")
    return company


def test_events_wait_and_are_billed_in_their_turn(priced: Company) -> None:
    account_id = priced.account(credits=100)
    shown = ask(priced, account_id, "suspend_usage")
    assert (shown["usage_suspended"], shown["events_waiting"]) == (True, 0)

    one = priced.send(account_id, type="CHAT", key="one", metadata={"model": "large"})
    assert (one.status, one.body["events_submitted"]) == (200, 1)
    assert (one.data["state"], one.data["cost"], one.data["balance"]) == ("suspended", None, None)
    many = priced.send(account_id, *({"type": "CHAT", "gate_on_balance": True, "quantity": 50} for _ in range(2)))
    assert (many.status, [each["state"] for each in many.data]) == (200, ["suspended"] * 2), "none is refused"
    hold = priced.send(account_id, type="CHAT", state="pending", key="hold")
    assert hold.data["state"] == "suspended"
    assert priced.send(account_id, type="CHAT", state="cancelled").data["state"] == "cancelled"
    assert priced.balance(account_id, "credits")["available"] == 100
    assert account(priced, account_id)["events_waiting"] == 4
    listed = priced.call("GET", f"/v1/accounts/{account_id}/events?state=suspended").data
    assert [each["id"] for each in listed] == [hold.data["id"], *(e["id"] for e in many.data[::-1]), one.data["id"]]
    why = priced.call("GET", f"/v1/events/{one.data['id']}/explain").data
    assert "waits" in why["sentence"]
    assert (why["charges"], why["amount"]) == ([], None)

    shown = ask(priced, account_id, "resume_usage")
    assert (shown["usage_suspended"], shown["usage_suspended_at"]) == (False, None)
    until_taken_up(priced, account_id)
    balance = priced.balance(account_id, "credits")
    assert (balance["amount"], balance["pending"]) == (100 - 3 - 300, 3)
    billed = event(priced, one.data["id"])
    assert (billed["state"], billed["cost"]["amount"], billed["balance"]["amount"]) == ("complete", 3, 97)
    assert billed["recorded_at"] == one.data["recorded_at"]
    why = priced.call("GET", f"/v1/events/{one.data['id']}/explain").data
    assert (why["exact"], why["amount"], why["residue_before"], why["residue_after"]) == ("3", 3, "0", "0")
    assert why["transaction"]["event_ids"] == [one.data["id"]]
    assert event(priced, hold.data["id"])["state"] == "pending"
    assert account(priced, account_id)["events_waiting"] == 0

    # The first answer is the answer, also of the hold, and also once that was settled and taken back.
    assert priced.send(account_id, type="CHAT", key="one", metadata={"model": "large"}).raw == one.raw
    ended = priced.call("PUT", f"/v1/events/{hold.data['id']}", {"state": "complete"})
    assert (ended.status, ended.data["cost"]["amount"]) == (200, 3)
    assert priced.send(account_id, type="CHAT", state="pending", key="hold").raw == hold.raw
    for event_id in (hold.data["id"], one.data["id"]):
        assert priced.call("DELETE", f"/v1/events/{event_id}").data["state"] == "cancelled"
    assert priced.send(account_id, type="CHAT", state="pending", key="hold").raw == hold.raw
    assert priced.send(account_id, type="CHAT", key="one", metadata={"model": "large"}).raw == one.raw
    assert priced.balance(account_id, "credits")["amount"] == 100 - 300
    transactions = priced.call("GET", f"/v1/accounts/{account_id}/transactions").data
    assert [len(made["event_ids"]) for made in transactions if made["book"] == "usage"] == [1] * 6


def test_a_price_is_that_of_the_events_own_time(priced: Company) -> None:
    account_id = priced.account(credits=100)
    ask(priced, account_id, "suspend_usage")
    early = priced.send(account_id, type="CHAT")
    price = priced.call("GET", "/v1/companies/{company}/event_prices").data[0]["id"]
    assert priced.call("PUT", f"/v1/companies/{{company}}/event_prices/{price}", {"amount": "10"}).status == 200
    late = priced.send(account_id, type="CHAT")

    ask(priced, account_id, "resume_usage", {"queued": "replay"})
    until_taken_up(priced, account_id)
    assert [event(priced, sent.data["id"])["cost"]["amount"] for sent in (early, late)] == [3, 10]


def test_what_waits_is_voided_or_kept_as_it_is_said(priced: Company) -> None:
    account_id = priced.account(credits=100)
    ask(priced, account_id, "suspend_usage")
    first = priced.send(account_id, type="CHAT", key="k").data["id"]
    assert ask(priced, account_id, "resume_usage", {"queued": "keep"})["events_waiting"] == 1
    assert priced.send(account_id, type="CHAT").data["balance"]["amount"] == 97, "new events are billed"
    assert (account(priced, account_id)["events_waiting"], account(priced, account_id)["replaying"]) == (1, False)

    ask(priced, account_id, "resume_usage", {"queued": "void"})
    until_taken_up(priced, account_id)
    voided = event(priced, first)
    assert (voided["state"], voided["reason"], voided["cost"]) == ("cancelled", "deleted", None)
    assert priced.send(account_id, type="CHAT", key="k").data["state"] == "suspended", "its first answer"
    assert priced.balance(account_id, "credits")["amount"] == 97
    assert priced.call("GET", f"/v1/events/{first}/explain").status == 200


def test_one_event_is_replayed_or_taken_back_by_itself(priced: Company) -> None:
    account_id = priced.account(credits=100)
    ask(priced, account_id, "suspend_usage")
    one, other = (priced.send(account_id, type="CHAT").data["id"] for _ in range(2))

    once = {"idempotency-key": "replay it"}
    billed = priced.call("POST", f"/v1/events/{one}/replay", None, once)
    assert (billed.status, billed.data["state"], billed.data["balance"]["amount"]) == (200, "complete", 97)
    again = priced.call("POST", f"/v1/events/{one}/replay", None, once)
    assert (again.raw, again.is_replay) == (billed.raw, True)
    refused = priced.call("POST", f"/v1/events/{one}/replay")
    assert (refused.status, refused.code, refused.details["state"]) == (409, "event_not_suspended", "complete")
    assert priced.call("DELETE", f"/v1/events/{other}").data["state"] == "cancelled"
    refused = priced.call("POST", f"/v1/events/{other}/replay")
    assert (refused.status, refused.details["state"]) == (409, "cancelled")
    assert priced.send(account_id, type="CHAT").data["state"] == "suspended"
    assert priced.balance(account_id, "credits")["amount"] == 97


def test_a_hold_that_waits_is_settled_or_let_go(priced: Company) -> None:
    account_id = priced.account(credits=100)
    ask(priced, account_id, "suspend_usage")
    settled, let_go, left = (
        priced.send(account_id, type="CHAT", quantity=10, state="pending").data["id"] for _ in range(3)
    )
    answer = priced.call("PUT", f"/v1/events/{settled}", {"state": "complete", "quantity": 4})
    assert (answer.status, answer.data["state"], answer.data["quantity"]) == (200, "suspended", 4)
    answer = priced.call("PUT", f"/v1/events/{let_go}", {"state": "cancelled"})
    assert (answer.status, answer.data["state"]) == (200, "cancelled")
    assert account(priced, account_id)["events_waiting"] == 2

    ask(priced, account_id, "resume_usage")
    until_taken_up(priced, account_id)
    balance = priced.balance(account_id, "credits")
    assert (balance["amount"], balance["pending"]) == (88, 30)
    assert event(priced, left)["state"] == "pending"
    moved = priced.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 3700})
    assert moved.status == 200
    assert event(priced, left)["reason"] == "expired"
    assert priced.balance(account_id, "credits")["pending"] == 0


def test_an_event_that_cannot_be_billed_keeps_no_other_waiting(company: Company) -> None:
    company.price("DEAR", "credits", "1000000000000000")
    company.price("CHAT", "credits", "3")
    account_id = company.account(credits=100)
    ask(company, account_id, "suspend_usage")
    dear = company.send(account_id, type="DEAR", quantity=10**6).data["id"]
    company.send(account_id, type="CHAT")
    ask(company, account_id, "resume_usage")
    until_taken_up(company, account_id)

    assert company.balance(account_id, "credits")["amount"] == 97
    assert account(company, account_id)["events_waiting"] == 1
    refused = company.call("POST", f"/v1/events/{dear}/replay")
    assert (refused.status, refused.code, refused.details["path"]) == (422, "out_of_range", "quantity")
    assert company.call("DELETE", f"/v1/events/{dear}").status == 200
    assert account(company, account_id)["events_waiting"] == 0


def test_the_clock_takes_up_what_waits_before_it_moves(priced: Company) -> None:
    account_id = priced.account(credits=100)
    ask(priced, account_id, "suspend_usage")
    event_id = priced.send(account_id, type="CHAT").data["id"]
    ask(priced, account_id, "resume_usage")
    priced.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 86_400})

    billed = event(priced, event_id)
    assert billed["state"] == "complete"
    assert billed["finished_at"][:10] == billed["recorded_at"][:10]


async def test_suspended_usage_is_told_of_with_how_much_waits(heard: Company, rows: asyncpg.Connection) -> None:
    company = heard
    company.price("CHAT", "credits", "1")
    account_id = company.account(credits=10)
    for _ in range(2):
        ask(company, account_id, "suspend_usage")
    company.send(account_id, {"type": "CHAT"}, {"type": "CHAT"})
    ask(company, account_id, "resume_usage", {"queued": "void"})
    until_taken_up(company, account_id)
    ask(company, account_id, "resume_usage")

    assert await facts(rows, company) == [
        ("account.usage_suspended", {"by": "manual"}),
        ("flag.changed", (await facts(rows, company))[1][1]),
        ("account.usage_resumed", {"by": "manual", "waiting": 2, "queued": "void"}),
        ("flag.changed", (await facts(rows, company))[3][1]),
    ]
    assert [change[:2] for change in await history(rows, account_id)] == [
        ("usage_suspended", True),
        ("usage_suspended", False),
    ]


async def test_the_whole_half_is_suspended_and_replayed(heard: Company, rows: asyncpg.Connection) -> None:
    company = heard
    company.price("CHAT", "credits", "3")
    accounts = [company.account(credits=100) for _ in range(3)]
    ask(company, accounts[2], "suspend_usage")
    shown = ask_all(company, "suspend_usage")
    assert (shown["usage_suspended"], shown["events_waiting"]) == (True, 0)
    assert ask_all(company, "suspend_usage") == shown
    for account_id in accounts:
        assert company.send(account_id, {"type": "CHAT"}, {"type": "CHAT"}).data[0]["state"] == "suspended"
    shown = company.call("GET", "/v1/companies/{company}/pauses").data
    assert (shown["events_waiting"], shown["accounts_waiting"]) == (6, 3)
    assert len(company.call("GET", "/v1/companies/{company}/events?state=suspended").data) == 6

    shown = ask_all(company, "resume_usage")
    assert (shown["usage_suspended"], shown["usage_suspended_at"]) == (False, None)
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while company.call("GET", "/v1/companies/{company}/pauses").data["events_waiting"] > 2:
        assert time.monotonic() < give_up_at
        await asyncio.sleep(LOOK_SECONDS)
    until_taken_up(company, *accounts)
    amounts = [company.balance(account_id, "credits")["amount"] for account_id in accounts]
    assert amounts == [94, 94, 100], "who was suspended by itself stays so"
    assert account(company, accounts[2])["events_waiting"] == 2
    assert company.send(accounts[2], type="CHAT").data["state"] == "suspended"
    assert company.send(accounts[0], type="CHAT").data["state"] == "complete"
    ask(company, accounts[2], "resume_usage")
    until_none_waits(company)
    assert company.balance(accounts[2], "credits")["amount"] == 91
    told = [(topic, data.get("waiting")) for topic, data in await facts(rows, company) if topic != "flag.changed"]
    assert told == [
        *(("account.usage_suspended", None), ("account.usage_suspended", None)),
        *(("account.usage_resumed", 6), ("account.usage_resumed", 3)),
    ]


def test_a_suspension_in_the_midst_of_a_replay_does_not_stop_it(priced: Company) -> None:
    account_id = priced.account(credits=10_000)
    ask_all(priced, "suspend_usage")
    for _ in range(3):
        priced.send(account_id, *({"type": "CHAT"} for _ in range(400)))
    ask_all(priced, "resume_usage")
    ask_all(priced, "suspend_usage")
    assert priced.send(account_id, type="CHAT").data["state"] == "suspended"
    until_taken_up(priced, account_id)
    assert priced.balance(account_id, "credits")["amount"] == 10_000 - 3 * 1200
    assert account(priced, account_id)["events_waiting"] == 1


# --- crowds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["an account", "the whole half"])
async def test_no_event_of_a_storm_is_lost_while_usage_is_suspended_and_resumed(
    service: Server, priced: Company, whose: str
) -> None:
    account_id = priced.account(credits=1_000_000)
    numbers, answered = iter(range(1500)), Counter[str]()
    where = f"/v1/accounts/{account_id}" if whose == "an account" else f"/v1/companies/{priced.id}"

    async def crowd() -> None:
        async with Wire(service.address, priced.id, priced.key) as wire:
            for number in numbers:
                heard = await wire.call(
                    "POST", f"/v1/accounts/{account_id}/events", {"type": "CHAT", "key": f"k{number}"}
                )
                assert heard.status == 200, heard
                answered[heard.body["data"]["state"]] += 1

    async def operator() -> None:
        async with Wire(service.address, priced.id, priced.key) as wire:
            while answered.total() < 1450:
                for verb in ("suspend_usage", "resume_usage"):
                    assert (await wire.call("POST", f"{where}/{verb}")).status == 200
                    goal = min(1450, answered.total() + 40)
                    while answered.total() < goal:  # noqa: ASYNC110 - the crowd sets no event
                        await asyncio.sleep(0.001)

    async with asyncio.timeout(90):
        await asyncio.gather(operator(), *(crowd() for _ in range(20)))
    assert set(answered) == {"complete", "suspended"}, "both happen, or this tries too little"
    until_none_waits(priced)
    assert priced.balance(account_id, "credits")["amount"] == 1_000_000 - 3 * 1500
    assert await disagreements(service.dsn) == []
    await audit(service.dsn)


async def test_replay_deletion_and_settlement_of_one_event_race_to_one_end(
    service: Server, priced: Company, rows: asyncpg.Connection
) -> None:
    account_id = priced.account(credits=1_000_000)
    ask(priced, account_id, "suspend_usage")
    body = [{"type": "CHAT", "state": "pending" if number % 2 else "complete"} for number in range(200)]
    waiting = [sent["id"] for sent in priced.send(account_id, *body).data]
    acts = [(event_id, act) for event_id in waiting for act in ("replay", "replay", "delete", "settle")]
    random.Random(7).shuffle(acts)
    replies: dict[str, list[tuple[str, int]]] = {event_id: [] for event_id in waiting}
    todo = iter(acts)

    async def hand() -> None:
        async with Wire(service.address, priced.id, priced.key) as wire:
            for event_id, act in todo:
                path = f"/v1/events/{event_id}"
                match act:
                    case "replay":
                        heard = await wire.call("POST", f"{path}/replay")
                    case "delete":
                        heard = await wire.call("DELETE", path)
                    case _:
                        heard = await wire.call("PUT", path, {"state": "complete"})
                replies[event_id].append((act, heard.status))

    async def operator() -> None:
        async with Wire(service.address, priced.id, priced.key) as wire:
            assert (await wire.call("POST", f"/v1/accounts/{account_id}/resume_usage")).status == 200

    async with asyncio.timeout(60):
        await asyncio.gather(operator(), *(hand() for _ in range(12)))
    until_taken_up(priced, account_id)

    stored = await rows.fetch("select state from event where account_id = $1", read("a", account_id))
    assert {row["state"] for row in stored} == {2}, "each was taken back by somebody, whatever came before"
    for heard in replies.values():
        assert [status for act, status in heard if act == "delete"] == [200]
        assert sum(act == "replay" and status == 200 for act, status in heard) <= 1
    balance = priced.balance(account_id, "credits")
    assert (balance["amount"], balance["pending"]) == (1_000_000, 0)
    assert await disagreements(service.dsn) == []
    await audit(service.dsn)


async def test_five_thousand_events_come_to_what_they_would_have_come_to(service: Server, company: Company) -> None:
    """Tiers, fractions, overrides, holds and unpriced events: all that an account can be sent, in the same order."""
    company.price("CHAT", "credits", "1.37")
    company.price(
        "TIERED", "credits", model="graduated", tiers=[{"up_to": 500, "amount": "2"}, {"up_to": None, "amount": "0.5"}]
    )
    company.price("MATCHED", "tokens", "7", match={"model": "large"})
    chance = random.Random(5)
    kinds = ("CHAT", "TIERED", "MATCHED", "FREE")
    events: list[dict[str, object]] = []
    for _ in range(5000):
        events.append({"type": chance.choice(kinds), "quantity": chance.randint(1, 9)})
        if chance.random() < 0.1:
            events[-1] |= {"cost_override_amount": chance.randint(0, 50), "cost_override_denomination": "credits"}
        if chance.random() < 0.5:
            events[-1] |= {"metadata": {"model": chance.choice(["large", "small"])}}
        if chance.random() < 0.05:
            events[-1] |= {"state": "pending"}
    billed, waited = company.account(credits=100), company.account(credits=100)
    ask(company, waited, "suspend_usage")
    for account_id in (billed, waited):
        for begin in range(0, 5000, 500):
            assert company.send(account_id, *events[begin : begin + 500]).status == 200
    assert account(company, waited)["events_waiting"] == 5000

    ask(company, waited, "resume_usage")
    until_taken_up(company, waited)
    assert account(company, waited)["events_waiting"] == 0
    for denomination in ("credits", "tokens"):
        expected, found = (company.balance(account_id, denomination) for account_id in (billed, waited))
        for name in ("amount", "pending", "residue_fraction"):
            assert found[name] == expected[name], (denomination, name)
    assert await disagreements(service.dsn) == []
    await audit(service.dsn)


# --- who asks, and what ---------------------------------------------------------------------------------------------


ROUTES: Final = (
    *(f"/v1/accounts/{{account}}/{verb}" for verb in ("pause", "resume", "credit_block", "credit_unblock")),
    *(f"/v1/{whose}/{verb}_usage" for whose in ("accounts/{account}", "companies/{company}") for verb in ("suspend",)),
    *(f"/v1/{whose}/resume_usage" for whose in ("accounts/{account}", "companies/{company}")),
    *(f"/v1/companies/{{company}}/{verb}" for verb in ("pause", "resume")),
)


@pytest.fixture
def stranger(client: Client) -> Company:
    return Company.open(client, "Stranger")


def call(company: Company, path: str, account_id: str, body: object = None, **headers: str) -> Reply:
    return company.call("POST", path.replace("{account}", account_id), body, headers)


@pytest.mark.parametrize("path", ROUTES)
def test_a_pause_is_asked_for_once_by_its_key_and_only_by_its_company(
    company: Company, stranger: Company, path: str
) -> None:
    account_id = company.account()
    once = {"idempotency-key": path}
    first = call(company, path, account_id, {"reason": "because"}, **once)
    assert (first.status, first.is_replay) == (200, False)
    again = call(company, path, account_id, {"reason": "because"}, **once)
    assert (again.raw, again.is_replay) == (first.raw, True)
    assert call(company, path, account_id, {"reason": "else"}, **once).code == "key_reused"

    foreign = call(stranger, path.replace("{company}", company.id), account_id)
    assert (foreign.status, foreign.code) == (404, "not_found")
    unknown = call(company, path.replace("{company}", "c_00000000"), UNKNOWN)
    assert (unknown.status, unknown.code) == (404, "not_found")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"reason": ""}, "invalid_field", "reason"),
        ({"reason": "x" * 501}, "invalid_field", "reason"),
        ({"reason": 5}, "invalid_field", "reason"),
        ({"reason": "a\0b"}, "invalid_string", None),
        ({"why": "x"}, "unknown_field", "why"),
        ([], "invalid_field", None),
        ("pause", "invalid_field", None),
    ],
)
def test_a_bad_body_pauses_nothing(company: Company, path: str, body: object, code: str, field: str | None) -> None:
    account_id = company.account()
    refused = call(company, path, account_id, body)
    assert (refused.status, refused.code) == (422, code), refused
    if field is not None:
        assert refused.details["path"] == field
    shown = account(company, account_id)
    assert not any(shown[name] for name in ("paused", "credit_blocked", "usage_suspended"))
    found = company.call("GET", "/v1/companies/{company}/pauses").data
    assert not any(found[name] for name in ("paused", "usage_suspended"))


@pytest.mark.parametrize("queued", ["", "Replay", "bill", None, 1, ["replay"]])
@pytest.mark.parametrize("whose", ["accounts/{account}", "companies/{company}"])
def test_what_waits_is_replayed_voided_or_kept_and_nothing_else(company: Company, whose: str, queued: object) -> None:
    account_id = company.account()
    ask(company, account_id, "suspend_usage")
    refused = call(company, f"/v1/{whose}/resume_usage", account_id, {"queued": queued})
    assert (refused.status, refused.code, refused.details["path"]) == (422, "invalid_field", "queued")
    assert account(company, account_id)["usage_suspended"] is True


def test_a_replay_of_what_is_not_there_is_refused(company: Company, stranger: Company) -> None:
    account_id = company.account()
    ask(company, account_id, "suspend_usage")
    event_id = company.send(account_id, type="CHAT").data["id"]
    for asker, id in ((stranger, event_id), (company, "e_000000000000000000"), (company, account_id)):
        refused = asker.call("POST", f"/v1/events/{id}/replay")
        assert (refused.status, refused.code) == (404, "not_found")
    assert event(company, event_id)["state"] == "suspended"


def test_a_price_that_was_deleted_while_an_event_waited_prices_it(company: Company) -> None:
    price_id = company.price("GONE", "tokens", "10")
    account_id = company.account(tokens=1000)
    ask(company, account_id, "suspend_usage")
    first = company.send(account_id, type="GONE").data["id"]
    assert company.call("DELETE", f"/v1/companies/{{company}}/event_prices/{price_id}").status == 200
    second = company.send(account_id, type="GONE").data["id"]
    company.price("GONE", "tokens", "500")
    ask(company, account_id, "resume_usage")
    until_taken_up(company, account_id)
    assert (event(company, first)["state"], event(company, first)["cost"]["amount"]) == ("complete", 10)
    assert (event(company, second)["state"], event(company, second)["cost"]) == ("complete", None)
    assert company.call("GET", f"/v1/accounts/{account_id}/balance/tokens").data["amount"] == 990


def test_scopes_are_those_of_accounts_companies_and_events(client: Client, company: Company) -> None:
    account_id = company.account()
    issued = company.call("POST", "/v1/companies/{company}/keys", {"scopes": ["accounts:read", "company:read"]})
    reader = Company(client, company.id, issued.data["api_key"])
    for path in (*ROUTES, "/v1/events/e_000000000000000000/replay"):
        refused = call(reader, path, account_id)
        assert (refused.status, refused.code) == (403, "insufficient_scope")
    assert reader.call("GET", "/v1/companies/{company}/pauses").status == 200
