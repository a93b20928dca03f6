"""A company's own Stripe: its key and how it is kept, Stripe's messages, and the links on which a card is given."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import asyncpg
import pytest

from tenuto.core.identifiers import read_of_account
from tenuto.gateway.messages import signature_of
from tenuto.server import Server
from tests.api.facts import facts_of
from tests.client import Client, Company, Reply
from tests.simulated import Simulated

FIELDS: Final = ("stripe_key", "stripe_publishable_key", "stripe_webhook_secret")
SLOW: Final = "pm_card_simulatorProcessing"


@pytest.fixture
async def rows(service: Server) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(service.dsn)
    yield connection
    await connection.close()


def refused(reply: Reply, status: int, code: str, /, **details: object) -> None:
    assert (reply.status, reply.code) == (status, code), reply.raw[:500]
    assert {name: reply.details.get(name) for name in details} == details


def ask(company: Company, method: str, path: str, body: object = None) -> Any:
    reply = company.call(method, f"/v1{path}", body)
    assert reply.status == 200, reply.raw[:500]
    return reply.data


def change(company: Company, **settings: object) -> Reply:
    return company.call("PUT", "/v1/companies/{company}", settings)


def shown(company: Company) -> dict[str, Any]:
    found = ask(company, "GET", f"/companies/{company.id}")
    return {name: found[name] for name in FIELDS}


def new_key(prefix: str = "sk_test_") -> str:
    return prefix + secrets.token_hex(16)


# --- the key ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["sk_test_", "rk_test_"])
async def test_a_key_is_tried_kept_sealed_and_shown_masked(
    company: Company, stripe: Simulated, rows: asyncpg.Connection, prefix: str
) -> None:
    key, secret = new_key(prefix), "whsec_" + secrets.token_hex(16)
    reply = change(company, stripe_key=key, stripe_webhook_secret=secret, stripe_publishable_key="pk_test_" + "a1" * 8)

    assert reply.status == 200, reply.raw
    assert reply.data["stripe_key"] == f"{prefix}…{key[-4:]}"
    assert shown(company) == {
        "stripe_key": f"{prefix}…{key[-4:]}",
        "stripe_publishable_key": "pk_test_" + "a1" * 8,
        "stripe_webhook_secret": "whsec_…",
    }
    assert stripe.rate(key)["total"] >= 1, "a key is tried before it is kept"
    for table in ("environment", "company", "stored_answer"):
        dump = "".join(str(row[0]) for row in await rows.fetch(f"select t::text from {table} t"))
        assert table != "environment" or key[-4:] in dump, "the hint is there to be found, so the rest would be too"
        blobs = bytes.fromhex("".join(re.findall(r"\\\\?x((?:[0-9a-f]{2})+)", dump)))
        for text in (key, key[8:], secret, secret[6:]):
            assert text not in dump, table
            assert text.encode() not in blobs, table
    assert change(company, name="Another").data["stripe_key"] == f"{prefix}…{key[-4:]}", "it stays when others change"
    assert all(shown(Company.open(company.client))[name] is None for name in FIELDS)


@pytest.mark.parametrize("mode", ["test", "live"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stripe_key", "pk_{mode}_0123456789abcdef"),
        ("stripe_key", "sk_{other}_0123456789abcdef"),
        ("stripe_key", "rk_{other}_0123456789abcdef"),
        ("stripe_key", "sk_{mode}_0123456789 abcdef"),
        ("stripe_key", " sk_{mode}_0123456789abcdef"),
        ("stripe_key", "sk_{mode}_0123456789abcdef\n"),
        ("stripe_key", "sk_{mode}_short"),
        ("stripe_key", "sk_{mode}_" + "a" * 10_000),
        ("stripe_key", "sk_{mode}_0123456789abcdéf"),
        ("stripe_key", "whsec_0123456789abcdef0123"),
        ("stripe_key", "mysecretkey"),
        ("stripe_publishable_key", "sk_{mode}_0123456789abcdef"),
        ("stripe_publishable_key", "pk_{other}_0123456789abcdef"),
        ("stripe_publishable_key", "pk_{mode}_" + "a" * 10_000),
        ("stripe_webhook_secret", "sk_{mode}_0123456789abcdef"),
        ("stripe_webhook_secret", "whsec_ 0123456789abcdef0123"),
        ("stripe_webhook_secret", "whsec_" + "a" * 10_000),
    ],
)
def test_what_is_no_key_is_refused_and_never_echoed(
    company: Company, client: Client, stripe: Simulated, mode: str, field: str, value: str
) -> None:
    if mode == "live":
        issued = ask(company, "POST", f"/companies/{company.id}/keys", {"mode": "live"})
        company = Company(client, company.id, issued["api_key"])
    given = value.replace("{mode}", mode).replace("{other}", "live" if mode == "test" else "test")
    reply = change(company, name="Changed", **{field: given})

    refused(reply, 422, "invalid_field", path=field)
    assert given.strip()[-10:].encode() not in reply.raw
    assert ask(company, "GET", f"/companies/{company.id}")["name"] == "Acme"
    assert shown(company)[field] is None
    assert stripe.rate(given.strip())["total"] == 0 or len(given) > 1000


def test_a_key_that_stripe_revoked_is_refused(company: Company, stripe: Simulated) -> None:
    key = new_key()
    stripe.set_key(key, revoked=True)

    reply = change(company, stripe_key=key)
    refused(reply, 422, "gateway_refused", path="stripe_key")
    assert key.encode() not in reply.raw
    assert shown(company)["stripe_key"] is None


def test_a_key_without_the_rights_is_refused(company: Company, stripe: Simulated) -> None:
    key = new_key("rk_test_")
    stripe.set_key(key, missing_rights=["rak_customer_read", "rak_customer_write"])

    reply = change(company, stripe_key=key)
    refused(reply, 422, "gateway_refused", path="stripe_key")
    assert key.encode() not in reply.raw


def test_charges_go_to_the_key_that_is_set(company: Company, stripe: Simulated) -> None:
    account = company.account(credits=0)
    company.card(account)
    key = company.own_stripe()

    assert ask(company, "GET", f"/accounts/{account}/cards") == [], "cards of the sandbox mean nothing to Stripe"
    company.card(account)
    company.deposit(account)
    assert [intent["status"] for intent in stripe.book(key)["payment_intents"]] == ["succeeded"]
    assert change(company, stripe_key="").data["stripe_key"] is None
    assert ask(company, "GET", f"/accounts/{account}/cards") == []
    company.card(account)
    company.deposit(account)
    assert len(stripe.book(key)["payment_intents"]) == 1


def test_a_key_revoked_later_fails_a_deposit_and_loses_nothing(company: Company, stripe: Simulated) -> None:
    key = company.own_stripe()
    account = company.account(credits=0)
    company.card(account)
    stripe.set_key(key, revoked=True)

    body = {"amount_to_deposit": 1000, "amount_to_charge": 500}
    reply = company.call("POST", f"/v1/accounts/{account}/deposit", body)
    assert reply.status in {402, 409, 422}, reply.raw
    assert key.encode() not in reply.raw
    assert company.balance(account, "credits")["amount"] == 0
    stripe.set_key(key)
    company.deposit(account)
    assert company.balance(account, "credits")["amount"] == 1000


# --- messages of Stripe -----------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """A company with a Stripe and a webhook secret of its own, and a charge that is under way."""

    company: Company
    key: str
    secret: str
    account: str
    payment: str
    intent: str


@pytest.fixture
def told(company: Company) -> Told:
    return under_way(company)


def under_way(company: Company) -> Told:
    key, secret = company.own_stripe(), "whsec_" + secrets.token_hex(16)
    assert change(company, stripe_webhook_secret=secret).status == 200
    account = company.account(credits=0)
    company.card(account, SLOW)
    begun = company.call(
        "POST", f"/v1/accounts/{account}/deposit", {"amount_to_deposit": 1000, "amount_to_charge": 500}
    )
    assert begun.status == 202, begun.raw
    payment = begun.data["payment"]
    return Told(company, key, secret, account, payment["id"], payment["stripe_payment_intent_id"])


def message(intent: str, **changes: object) -> bytes:
    """A message that says that an intent succeeded."""
    about = {"id": intent, "object": "payment_intent", "amount": 500, "currency": "usd", "status": "succeeded"}
    return json.dumps(
        {
            "id": f"evt_{secrets.token_hex(8)}",
            "object": "event",
            "type": "payment_intent.succeeded",
            "created": int(time.time()),
            "livemode": changes.pop("livemode", False),
            "data": {"object": {**about, **changes}},
        }
    ).encode()


def tell(told: Told, body: bytes, signature: str | None, *, mode: str = "test", company: str | None = None) -> Reply:
    """Send a message as Stripe would."""
    headers = {"content-type": "application/json; charset=utf-8"}
    if signature is not None:
        headers["stripe-signature"] = signature
    path = f"/v1/companies/{company or told.company.id}/stripe/{mode}"
    return told.company.client.call("POST", path, body, headers)


def signed(told: Told, body: bytes, **ago: float) -> str:
    return signature_of(body, secret=told.secret, at=datetime.now(UTC) - timedelta(**ago))


def test_a_signed_message_settles_what_is_under_way_at_once(told: Told, stripe: Simulated) -> None:
    body = message(told.intent)
    early = tell(told, body, signed(told, body))
    assert (early.status, early.data) == (200, {"received": True})
    assert told.company.balance(told.account, "credits")["amount"] == 0, "a message is a hint to look, no more"

    stripe.release()
    body = message(told.intent)
    for _ in range(3):
        assert tell(told, body, signed(told, body)).status == 200
    assert told.company.balance(told.account, "credits")["amount"] == 1000
    paid = ask(told.company, "GET", f"/payments/{told.payment}")
    assert (paid["status"], paid["attempts"]) == ("succeeded", 1)
    assert len(ask(told.company, "GET", f"/accounts/{told.account}/transactions?denomination=credits")) == 1


async def test_a_message_without_the_right_signature_is_not_believed(
    told: Told, stripe: Simulated, rows: asyncpg.Connection
) -> None:
    stripe.release()
    body = message(told.intent)
    good = signed(told, body)
    at, mac = good.split(",v1=")
    other = under_way(Company.open(told.company.client))
    before = await facts_of(rows, told.company.id)
    bad = {
        "missing": None,
        "empty": "",
        "wrong": f"{at},v1={'0' * 64}",
        "of another tenant": signed(other, body),
        "for other bytes": signed(told, body + b" "),
        "301 s old": signed(told, body, seconds=301),
        "303 s ahead": signed(told, body, seconds=-303),
        "v0 only": f"{at},v0={mac}",
        "no time": f"v1={mac}",
        "two times": f"{at},{at},v1={mac}",
        "a time that is none": f"t=now,v1={mac}",
        "another time": f"t={int(at[2:]) - 1},v1={mac}",
        "upper case": f"{at},v1={mac.upper()}",
        "long": f"{at},v1=" + "0" * 7000,
    }
    replies = {name: tell(told, body, signature) for name, signature in bad.items()}
    found = {name: (reply.status, reply.code) for name, reply in replies.items()}
    assert found == dict.fromkeys(bad, (400, "bad_signature"))
    assert tell(told, b"", good).status == 400
    assert tell(told, b"not json", signed(told, b"not json")).status == 400
    assert tell(told, b'{"id":"evt_1"}', signed(told, b'{"id":"evt_1"}')).status == 400
    assert {**await facts_of(rows, told.company.id), "payment": ""} == {**before, "payment": ""}
    assert told.company.balance(told.account, "credits")["amount"] == 0
    assert tell(told, body, f"{at},v1={'0' * 64},v1={mac}").status == 200, "one right signature is enough"
    assert told.company.balance(told.account, "credits")["amount"] == 1000


def test_messages_have_an_address_per_company_and_mode(told: Told) -> None:
    body = message(told.intent)
    good = signed(told, body)
    other = Company.open(told.company.client)

    refused(tell(told, body, good, company=other.id), 400, "bad_signature")
    refused(tell(told, body, good, company="c_00000000"), 400, "bad_signature")
    refused(tell(told, body, good, company="nobody"), 400, "bad_signature")
    refused(tell(told, body, good, mode="live"), 400, "bad_signature")
    refused(tell(told, body, good, mode="sandbox"), 404, "not_found")
    path = f"/v1/companies/{told.company.id}/stripe/test"
    refused(told.company.call("GET", path), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "pi_nobody"},
        {"livemode": True},
        {"amount": 501},
        {"amount": 50_000},
        {"currency": "eur"},
        {"object": "customer"},
        {"object": "payout", "id": "po_1"},
    ],
    ids=str,
)
async def test_a_message_that_fits_nothing_of_ours_changes_nothing(
    told: Told, rows: asyncpg.Connection, changes: dict[str, Any]
) -> None:
    before = await facts_of(rows, told.company.id)
    body = message(told.intent, **changes)

    assert tell(told, body, signed(told, body)).status == 200
    assert await facts_of(rows, told.company.id) == before
    outcome = await rows.fetchval("select outcome from gateway_event where id = $1", json.loads(body)["id"])
    expected = "mismatch" if {"amount", "currency"} & set(changes) else "not_ours"
    assert outcome == (None if "object" in changes else expected)


async def test_the_object_of_another_tenant_is_out_of_reach(
    told: Told, stripe: Simulated, rows: asyncpg.Connection
) -> None:
    other = under_way(Company.open(told.company.client))
    stripe.release()
    before = await facts_of(rows, other.company.id)
    body = message(other.intent)

    assert tell(told, body, signed(told, body)).status == 200
    assert await facts_of(rows, other.company.id) == before


def test_a_dispute_is_heard_of_by_message_and_taken_back_when_won(told: Told, stripe: Simulated) -> None:
    company = told.company
    url = f"http://{company.client.host}:{company.client.port}/v1/companies/{company.id}/stripe/test"
    stripe.endpoint(told.key, url, told.secret)
    account = company.account(credits=0)
    company.card(account)
    paid = ask(company, "GET", f"/payments/{company.deposit(account)}")

    dispute = stripe.dispute(told.key, paid["stripe_payment_intent_id"])
    stripe.flush()
    shown = ask(company, "GET", f"/payments/{paid['id']}")
    assert (shown["status"], shown["refunded"]) == ("refunded", 500)
    assert [(one["kind"], one["status"], one["units"]) for one in shown["refunds"]] == [("dispute", "succeeded", 1000)]
    assert company.balance(account, "credits")["amount"] == 0
    stripe.close_dispute(told.key, dispute["id"], "won")
    stripe.flush()
    assert company.balance(account, "credits")["amount"] == 1000
    assert ask(company, "GET", f"/payments/{paid['id']}")["status"] == "succeeded"


# --- links ------------------------------------------------------------------------------------------------------------


def page(company: Company, url: str) -> Reply:
    return company.client.call("GET", url[url.index("/pay/") :])


def test_a_link_leads_to_a_page_of_our_own(company: Company) -> None:
    account = company.account()
    made = ask(company, "POST", f"/accounts/{account}/payment_links", {"return_url": "https://example.com/thanks"})

    base = f"http://{company.client.host}:{company.client.port}/pay/"
    assert set(made) == {"url", "expires_at"}
    assert re.fullmatch(re.escape(base) + r"pl_[0-9a-z]{18}\.[\w-]{43}", made["url"], re.ASCII)
    life = datetime.fromisoformat(f"{made['expires_at']}:00") - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < life <= timedelta(days=7)
    assert page(company, made["url"]).status == 200
    assert company.call("POST", f"/v1/accounts/{account}/payment_links").status == 200
    short = ask(company, "POST", f"/accounts/{account}/payment_links", {"expires_in_seconds": 60})
    assert short["expires_at"] < made["expires_at"]


def test_a_link_can_open_an_account(company: Company) -> None:
    body = {"name": "Ada", "email": "ada@example.com", "metadata": {"id": 1}}
    made = ask(company, "POST", f"/companies/{company.id}/payment_links", body)

    assert set(made) == {"url", "expires_at", "account"}
    assert made["account"]["metadata"] == {"id": 1}
    assert ask(company, "GET", f"/accounts/{made['account']['id']}") == made["account"]
    assert page(company, made["url"]).status == 200


async def test_a_link_that_cannot_be_used_says_the_same_for_every_reason(
    company: Company, rows: asyncpg.Connection
) -> None:
    account = company.account()
    path = f"/accounts/{account}/payment_links"
    good, expired, used = (ask(company, "POST", path)["url"] for _ in range(3))
    await _set(rows, expired, "expires_at = now()")
    await _set(rows, used, "used_at = now()")
    public, _, mac = good.rpartition("/")[2].partition(".")
    forged = [
        f"/pay/{public}.{mac[:-1]}{'A' if mac[-1] != 'A' else 'E'}",
        f"/pay/{public[:-1]}{'0' if public[-1] != '0' else '1'}.{mac}",
        f"/pay/{public}",
        f"/pay/{public}.",
        f"/pay/.{mac}",
        "/pay/x",
        "/pay/" + "x" * 2000,
        "/pay/pl_000000000000000000." + "A" * 43,
        f"/pay/inv{public[2:]}.{mac}",
        expired,
        used,
    ]
    replies = [page(company, url) for url in forged]

    assert {reply.status for reply in replies} == {404}
    assert len({reply.raw for reply in replies}) == 1
    assert account.encode() not in replies[0].raw
    assert page(company, good).status == 200


async def _set(rows: asyncpg.Connection, url: str, change: str) -> None:
    place = read_of_account("pl", url.rpartition("/")[2].partition(".")[0])
    assert place is not None
    done = await rows.execute(f"update payment_link set {change} where account_id = $1 and id = $2", *place)
    assert done == "UPDATE 1", done


def test_a_key_and_a_link_that_were_asked_for_once_are_kept_sealed(company: Company, service: Server) -> None:
    once = {"idempotency-key": "sealed"}
    issued = company.call("POST", "/v1/companies/{company}/keys", {"name": "second"}, once)
    path = f"/v1/accounts/{company.account()}/payment_links"
    link = company.call("POST", path, {}, {"idempotency-key": "sealed too"})
    assert company.call("POST", "/v1/companies/{company}/keys", {"name": "second"}, once).raw == issued.raw

    async def kept() -> list[bytes]:
        connection = await asyncpg.connect(service.dsn)
        try:
            rows = await connection.fetch("select body from stored_answer where key like 'sealed%'")
            return [bytes(row["body"]) for row in rows]
        finally:
            await connection.close()

    bodies = asyncio.run(kept())
    assert len(bodies) == 2
    for body in bodies:
        assert issued.data["api_key"].encode() not in body
        assert link.data["url"].encode() not in body
