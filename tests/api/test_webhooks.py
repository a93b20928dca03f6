"""Webhooks over HTTP: made, listed, changed and deleted; what they hear; their secrets and credentials."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import asyncpg
import pytest
from standardwebhooks import WebhookVerificationError

from tenuto.core.topic import LEVEL_FIELDS, TOPICS
from tenuto.server import Server
from tests.client import Client, Company
from tests.hearing import NOTIFICATIONS, WEBHOOKS, Hearer
from tests.receivers import Receivers

FIELDS: Final = {
    *("id", "company_id", "url", "username", "description", "max_in_flight", "merge_balance_changes", "status"),
    *("failing_since", "paused_at", "paused_by", "old_secret_until", "topics", "created_at", "updated_at"),
}
PASSWORD: Final = "correct horse: battery"
ROUNDS: Final = 50


def number(id: str) -> int:
    return int(id.partition("_")[2], 36)


# --- making, reading, changing, deleting ------------------------------------------------------------------------------


def test_the_secret_is_shown_once_and_the_password_never(hearer: Hearer, receivers: Receivers) -> None:
    body = {
        "url": receivers.open().url,
        "username": "tenuto",
        "password": PASSWORD,
        "description": "the till",
        "topics": ["negative_balance", "payment.failed"],
    }
    replies = [hearer.call("POST", WEBHOOKS, body, {"idempotency-key": "one"})]
    made = replies[0].data
    path = f"{WEBHOOKS}/{made['id']}"
    replies += [
        hearer.call("GET", path),
        hearer.call("GET", WEBHOOKS),
        hearer.call("PUT", path, {"password": PASSWORD}),
        hearer.call("POST", f"{path}/subscribe/auto_refill"),
        hearer.call("DELETE", f"{path}/subscribe/auto_refill"),
        hearer.call("DELETE", path),
    ]

    assert [reply.status for reply in replies] == [200] * len(replies)
    assert made["secret"].startswith("whsec_")
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"))) == 32
    assert set(made) == FIELDS | {"secret"}
    assert set(replies[1].data) == FIELDS
    assert (made["url"], made["username"], made["description"]) == (body["url"], "tenuto", "the till")
    assert (made["status"], made["max_in_flight"], made["merge_balance_changes"]) == ("active", 2, False)
    assert [one["topic"] for one in made["topics"]] == ["negative_balance", "payment.failed"]
    assert not any(PASSWORD.encode() in reply.raw for reply in replies)
    assert not any(made["secret"].encode() in reply.raw for reply in replies[1:])


async def test_secrets_lie_sealed(hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection) -> None:
    hook = hearer.hook(receivers.open(), username="u", password=PASSWORD)
    hearer.done(hook, "POST", "/rotate_secret")

    row = await rows.fetchrow("select secret, old_secret, password from webhook where id = $1", number(hook.id))

    assert row is not None
    key = base64.b64decode(hook.secret.removeprefix("whsec_"))
    for sealed in row.values():
        assert not any(
            plain in sealed for plain in (PASSWORD.encode(), hook.secret.encode(), hook.secret[6:].encode(), key)
        )


async def test_an_answer_that_holds_a_secret_is_kept_sealed(hearer: Hearer, rows: asyncpg.Connection) -> None:
    headers = {"idempotency-key": "secret once"}
    first = hearer.call("POST", WEBHOOKS, {}, headers)
    again = hearer.call("POST", WEBHOOKS, {}, headers)

    assert (first.status, again.raw, again.is_replay) == (200, first.raw, True)
    assert len(hearer.call("GET", WEBHOOKS).data) == 1
    kept = await rows.fetch("select body from stored_answer where body is not null")
    assert kept
    assert not any(first.data["secret"].encode() in bytes(row["body"]) for row in kept)


def test_webhooks_are_listed_the_oldest_first(hearer: Hearer) -> None:
    made = [hearer.hook(None, topic).data for topic in ("threshold", "credit_limit", "*")]

    listed = hearer.call("GET", WEBHOOKS).data

    assert [one["id"] for one in listed] == [one["id"] for one in made]
    assert listed == [{name: value for name, value in one.items() if name != "secret"} for one in made]
    assert listed == [hearer.call("GET", f"{WEBHOOKS}/{one['id']}").data for one in made]
    assert {one["status"] for one in listed} == {"pull"}


def test_what_is_not_named_stays(hearer: Hearer, receivers: Receivers) -> None:
    hook = hearer.hook(receivers.open(), "threshold", username="tenuto", password="x", description="old")
    before = hearer.done(hook, "GET")

    for change, shown in (
        ({"description": "new"}, {"description": "new"}),
        ({"max_in_flight": 7, "merge_balance_changes": True}, {"max_in_flight": 7, "merge_balance_changes": True}),
        ({"url": receivers.open().url + "?a=1"}, {}),
        ({"username": None, "password": None}, {"username": None}),
        ({"paused": True}, {"status": "paused", "paused_by": "manual"}),
        ({"paused": False}, {"status": "active", "paused_by": None, "paused_at": None}),
        ({}, {}),
    ):
        after = hearer.done(hook, "PUT", body=change)
        moved = {name for name in FIELDS if after[name] != before[name]}
        assert moved <= {*change, *shown, "paused_at", "updated_at"} - {"password"}
        assert {name: after[name] for name in shown} == shown
        assert after["url"] == change.get("url", before["url"])
        assert hearer.done(hook, "GET") == after
        before = after


def test_a_deleted_webhook_is_gone_and_hears_nothing(hearer: Hearer, receivers: Receivers) -> None:
    receiver, account = receivers.open(), hearer.account(tokens=10)
    hook, marker = hearer.hook(receiver, "balance_change"), hearer.hook(None, "account.paused")

    shown = hearer.done(hook, "DELETE")
    hearer.spend(account)
    hearer.call("POST", f"/v1/accounts/{account}/pause")

    assert shown["id"] == hook.id
    assert [one["topic"] for one in hearer.told(1)] == ["account.paused"]
    assert receiver.messages == []
    for method, path in (
        *(("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/logs"), ("POST", "/test")),
        *(("POST", "/rotate_secret"), ("POST", "/subscribe/threshold"), ("DELETE", "/subscribe/balance_change")),
    ):
        reply = hearer.of(hook, method, path, {} if method in {"POST", "PUT"} else None)
        assert (reply.status, reply.code) == (404, "not_found"), (method, path)
    assert hearer.of(hook, "POST", "/replay", {"status": "failed"}).status == 404
    assert [one["id"] for one in hearer.call("GET", WEBHOOKS).data] == [marker.id]


def test_a_key_needs_the_scope_of_the_company(hearer: Hearer) -> None:
    hook = hearer.hook(None, "*")

    def holder(*scopes: str) -> Hearer:
        made = hearer.call("POST", "/v1/companies/{company}/keys", {"name": "narrow", "scopes": list(scopes)})
        assert made.status == 200, made.raw
        return Hearer(hearer.client, hearer.id, made.data["api_key"])

    reader, stranger = holder("company:read"), holder("accounts:read", "accounts:write", "events:write")
    for method, path, body in (
        *(("GET", WEBHOOKS, None), ("GET", f"{WEBHOOKS}/{hook.id}", None), ("GET", NOTIFICATIONS, None)),
        *(("GET", f"{WEBHOOKS}/{hook.id}/logs", None), ("POST", WEBHOOKS, {}), ("PUT", f"{WEBHOOKS}/{hook.id}", {})),
        *(("POST", f"{WEBHOOKS}/{hook.id}/{verb}", {}) for verb in ("rotate_secret", "subscribe/threshold", "test")),
        ("POST", f"{WEBHOOKS}/{hook.id}/replay", {"status": "failed"}),
        ("DELETE", f"{WEBHOOKS}/{hook.id}/subscribe/*", None),
        ("DELETE", f"{WEBHOOKS}/{hook.id}", None),
    ):
        assert stranger.call(method, path, body).code == "insufficient_scope", path
        reply = reader.call(method, path, body)
        assert (reply.status == 200) is (method == "GET"), path
        assert method == "GET" or reply.code == "insufficient_scope", path
    assert [one["topic"] for one in hearer.done(hook, "GET")["topics"]] == ["*"]


def test_each_half_of_a_company_hears_its_own(hearer: Hearer) -> None:
    key = hearer.call("POST", "/v1/companies/{company}/keys", {"mode": "live"}).data["api_key"]
    live = Hearer(hearer.client, hearer.id, key)
    hooks = {side: side.hook(None, "balance_change") for side in (hearer, live)}
    accounts = {side: side.account(tokens=5) for side in hooks}

    for side, account in accounts.items():
        assert [one["account_id"] for one in side.told(1)] == [account]
        assert [one["id"] for one in side.call("GET", WEBHOOKS).data] == [hooks[side].id]
    test, real = (side.told(1)[0]["id"] for side in hooks)
    assert test != real
    assert hearer.call("GET", f"{NOTIFICATIONS}?after={real}").code == "invalid_field"


def test_a_company_has_a_hundred_webhooks_at_most(hearer: Hearer) -> None:
    made = [hearer.hook() for _ in range(100)]
    assert (hearer.call("POST", WEBHOOKS, {}).status, hearer.call("POST", WEBHOOKS, {}).code) == (422, "invalid_field")
    hearer.done(made[0], "DELETE")
    assert hearer.call("POST", WEBHOOKS, {}).status == 200


NEAR: Final = (
    *("http://hooks.example/x", "https://localhost/x", "https://127.0.0.1/x", "https://10.0.0.1/x"),
    *("https://169.254.169.254/", "https://[::1]/x", "https://[::ffff:127.0.0.1]/x", "https://2130706433/x"),
    *("https://0x7f000001/", "https://127.1/", "https://user@hooks.example/", "https://hooks.example:22/"),
    *("https://metadata.google.internal/", "ftp://hooks.example/", "hooks.example", "https://hooks.example/#a"),
)


def test_what_is_near_is_refused_unless_a_setting_allows_it(company: Company) -> None:
    """The table of addresses is shown in tests/gateway/test_addresses.py; here, that both routes ask it."""
    taken = company.call("POST", WEBHOOKS, {"url": "https://hooks.example/tenuto"})
    for url in NEAR:
        made = company.call("POST", WEBHOOKS, {"url": url})
        changed = company.call("PUT", f"{WEBHOOKS}/{taken.data['id']}", {"url": url})
        for reply in (made, changed):
            assert (reply.status, reply.code, reply.details["path"]) == (422, "url_not_allowed", "url"), url
    assert [one["url"] for one in company.call("GET", WEBHOOKS).data] == ["https://hooks.example/tenuto"]


# --- what they hear ---------------------------------------------------------------------------------------------------


def test_every_topic_can_be_heard_once_and_no_more(hearer: Hearer) -> None:
    hook = hearer.hook()
    for topic in (*TOPICS, "*"):
        for _ in range(2):
            (heard,) = hearer.subscribe(hook, topic)["topics"]
            assert heard["topic"] == topic
            assert {heard[name] for name in ("account_id", "denomination", *LEVEL_FIELDS)} == {None}
        assert hearer.unsubscribe(hook, topic)["topics"] == []
        assert hearer.of(hook, "DELETE", f"/subscribe/{topic}").status == 404


@pytest.mark.parametrize("whose", ["the company", "one account"])
@pytest.mark.parametrize("field", LEVEL_FIELDS)
def test_each_kind_of_level_tells_when_it_is_reached(hearer: Hearer, field: str, whose: str) -> None:
    """1,000 tokens, and a credit limit of 1,000 below them; the level of 60 is of each kind."""
    hearer.call("PUT", "/v1/companies/{company}", {"levels": []})
    account, other = hearer.account(), hearer.account()
    for one in (account, other):
        opened = {"amount": 1000, "credit_limit": 1000}
        assert hearer.call("POST", f"/v1/accounts/{one}/balance/tokens", opened).status == 200
    topic = "credit_limit" if field == "credit_limit_percentage" else "threshold"
    narrowed = {"account_id": account} if whose == "one account" else {}
    hook = hearer.hook(None, {"topic": topic, field: 60, "denomination": "tokens", **narrowed})
    steps = {
        "threshold_percentage": (599, 1),
        "remaining_percentage": (400, 1),
        "level": (940, 1),
        "credit_limit_percentage": (1599, 1),
    }[field]

    for one in (other, account):
        hearer.spend(one, steps[0])
    hearer.subscribe(hook, "balance_change", account_id=account)
    for one in (other, account):
        hearer.spend(one, steps[1])
        hearer.spend(one)

    told = [one for one in hearer.told(3 if narrowed else 4) if one["topic"] == topic]
    assert [one["account_id"] for one in told] == ([account] if narrowed else [other, account])
    for one in told:
        assert {name: one["data"][name] for name in LEVEL_FIELDS} == {**dict.fromkeys(LEVEL_FIELDS), field: 60}
        assert one["data"]["amount"] == 1000 - sum(steps)
        assert one["data"]["previous_amount"] == 1000 - steps[0]
        assert (one["data"]["credit_limit"] == 1000) is (topic == "credit_limit")


def test_what_is_heard_no_more_can_be_narrowed(hearer: Hearer) -> None:
    account, other = hearer.account(tokens=1), hearer.account(tokens=1)
    hook = hearer.hook(
        None,
        "threshold",
        *({"topic": "threshold", "account_id": one} for one in (account, other)),
        *({"topic": "threshold", "account_id": account, "threshold_percentage": level} for level in (50, 70)),
        *({"topic": "threshold", "denomination": unit, "level": 5} for unit in ("tokens", "credits")),
        "balance_change",
    )

    def left() -> set[tuple[Any, ...]]:
        names = ("topic", "account_id", "denomination", "threshold_percentage", "level")
        return {tuple(one[name] for name in names) for one in hearer.done(hook, "GET")["topics"]}

    every = left()
    assert len(every) == 8
    for narrowed, gone in (
        ({"account_id": account, "threshold_percentage": 50}, {("threshold", account, None, 50, None)}),
        ({"account_id": other}, {("threshold", other, None, None, None)}),
        ({"denomination": "credits"}, {("threshold", None, "credits", None, 5)}),
        ({"level": 5}, {("threshold", None, "tokens", None, 5)}),
    ):
        hearer.unsubscribe(hook, "threshold", **narrowed)
        every -= gone
        assert left() == every, narrowed
    assert hearer.of(hook, "DELETE", "/subscribe/threshold?level=6").code == "not_found"
    hearer.unsubscribe(hook, "threshold")
    assert left() == {("balance_change", None, None, None, None)}


@pytest.mark.parametrize("whose", ["the company", "one account"])
def test_hearing_begins_and_ends_with_the_answer(calling_service: Server, hearer: Hearer, whose: str) -> None:
    """Events go through a line of their own, so that another worker may have them, with what it remembers."""
    hook = hearer.hook(None, "account.paused")
    accounts = [hearer.account(tokens=100) for _ in range(ROUNDS)]
    with Client(*calling_service.address) as line:
        sender = Hearer(line, hearer.id, hearer.key)
        for account in accounts:
            sender.spend(account, 1)
            narrowed = {"account_id": account} if whose == "one account" else {}
            hearer.subscribe(hook, "balance_change", **narrowed)
            sender.spend(account, 2)
            hearer.unsubscribe(hook, "balance_change", **narrowed)
            sender.spend(account, 3)
    hearer.call("POST", f"/v1/accounts/{accounts[0]}/pause")

    *told, last = hearer.told(ROUNDS + 1)

    assert last["topic"] == "account.paused"
    assert [(one["account_id"], one["data"]["change"]) for one in told] == [(account, -2) for account in accounts]


async def test_what_nobody_hears_is_not_written(hearer: Hearer, rows: asyncpg.Connection) -> None:
    account, other = hearer.account(tokens=10), hearer.account(tokens=10)
    hearer.hook(None, {"topic": "balance_change", "account_id": account, "denomination": "credits"}, "webhook.paused")

    for one in (account, other):
        hearer.spend(one, 20)
    hearer.call("POST", f"/v1/accounts/{account}/pause")
    hearer.call("POST", f"/v1/accounts/{account}/balance/credits", {"amount": 7})

    (told,) = hearer.told(1)
    assert (told["account_id"], told["data"]["denomination"], told["data"]["amount"]) == (account, "credits", 7)
    written = await rows.fetchval(
        "select count(*) from notification n join environment v on v.id = n.environment_id where v.company_id = $1",
        number(hearer.id),
    )
    assert written == 1


def test_each_webhook_gets_what_it_hears(hearer: Hearer, receivers: Receivers) -> None:
    account, other = hearer.account(tokens=5), hearer.account(tokens=5)
    every, negative, one, other_unit = (receivers.open() for _ in range(4))
    for receiver, topics in (
        (every, ["*"]),
        (negative, ["negative_balance"]),
        (one, [{"topic": "balance_change", "account_id": account}, "balance_change"]),
        (other_unit, [{"topic": "*", "denomination": "credits"}]),
    ):
        hearer.hook(receiver, *topics)

    hearer.spend(account, 3)
    hearer.spend(other, 9)
    hearer.call("POST", f"/v1/accounts/{other}/balance/credits", {"amount": 5})

    came = [message.topic for message in every.wait(6)]
    assert sorted(came) == ["balance_change"] * 3 + ["negative_balance", "pause_balance", "threshold"]
    assert [message.data["amount"] for message in negative.wait(1)] == [-4]
    assert len(one.wait(3)) == 3
    assert [message.data["denomination"] for message in other_unit.wait(1)] == ["credits"]


# --- secrets and credentials ------------------------------------------------------------------------------------------


async def test_while_a_secret_changes_both_sign(hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection) -> None:
    receiver, account = receivers.open(), hearer.account(tokens=10)
    hook = hearer.hook(receiver, "balance_change")
    hearer.spend(account)
    before = receiver.wait(1)[-1]

    turned = hearer.done(hook, "POST", "/rotate_secret")
    hearer.spend(account)
    during = receiver.wait(2)[-1]
    await rows.execute("update webhook set old_secret_until = now() where id = $1", number(hook.id))
    hearer.spend(account)
    after = receiver.wait(3)[-1]

    assert turned["secret"] != hook.secret
    assert turned["old_secret_until"] is not None
    assert [len(message.signatures) for message in (before, during, after)] == [1, 2, 1]
    before.verified(hook.secret)
    for secret in (hook.secret, turned["secret"]):
        assert during.verified(secret) == during.told
    after.verified(turned["secret"])
    for message, secret in ((before, turned["secret"]), (after, hook.secret)):
        with pytest.raises(WebhookVerificationError):
            message.verified(secret)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(hearer: Hearer, receivers: Receivers) -> None:
    receiver = receivers.open()
    hook = hearer.hook(receiver)

    turned = hearer.done(hook, "POST", "/rotate_secret", {"overlap_seconds": 0})
    hearer.done(hook, "POST", "/test")
    (message,) = receiver.wait(1)

    assert turned["old_secret_until"] is None
    assert len(message.signatures) == 1
    message.verified(turned["secret"])


def test_a_webhook_sends_its_own_credentials(hearer: Hearer, receivers: Receivers) -> None:
    receivers_of = {
        ("tenuto", PASSWORD): receivers.open(),
        ("only", None): receivers.open(),
        (None, None): receivers.open(),
    }
    for (username, password), receiver in receivers_of.items():
        hook = hearer.hook(receiver, username=username, password=password)
        hearer.done(hook, "POST", "/test", {"message": "Can you hear me?"})

    for (username, password), receiver in receivers_of.items():
        (message,) = receiver.wait(1)
        given = message.headers.get("authorization")
        if username is None:
            assert given is None
        else:
            assert given is not None
            assert base64.b64decode(given.removeprefix("Basic ")).decode() == f"{username}:{password or ''}"
        assert message.headers["content-type"] == "application/json; charset=utf-8"
        assert message.headers["user-agent"].startswith("Tenuto")


def test_a_trial_comes_to_one_webhook_whatever_it_hears(hearer: Hearer, receivers: Receivers) -> None:
    asked, other = receivers.open(), receivers.open()
    hook, _ = hearer.hook(asked), hearer.hook(other, "*")
    silent = hearer.hook()

    hearer.done(hook, "POST", "/test", {"message": "Can you hear me?"})
    refused = hearer.of(silent, "POST", "/test", {})
    hearer.spend(hearer.account(tokens=1))

    (message,) = asked.wait(1)
    told = message.verified(hook.secret)
    assert (told["topic"], told["data"]) == ("webhook.test", {"webhook_id": hook.id, "message": "Can you hear me?"})
    assert (told["account_id"], told["company_id"], told["id"]) == (None, hearer.id, message.id)
    assert (refused.status, refused.code, refused.details["path"]) == (422, "invalid_field", "url")
    assert {one.topic for one in other.wait(1)} == {"balance_change"}
    assert [one["id"] for one in hearer.told(1, topic="webhook.test")] == [message.id]


# --- the log that is asked for ----------------------------------------------------------------------------------------


def test_the_log_can_be_narrowed(hearer: Hearer) -> None:
    account, other = hearer.account(tokens=5, credits=5), hearer.account(tokens=5)
    hearer.hook(None, "*")
    hearer.spend(account, 9)
    hearer.spend(account, 1, "credits")
    hearer.spend(other)

    every = hearer.told(5)

    def those(**filters: str) -> list[Any]:
        return hearer.told(0, **filters)

    assert those(topic="negative_balance") == [one for one in every if one["topic"] == "negative_balance"] != []
    assert those(account_id=other) == every[-1:]
    assert those(denomination="credits") == [one for one in every if one["data"]["denomination"] == "credits"] != []
    assert those(after=every[1]["id"]) == every[2:]
    assert those(after=every[-1]["id"]) == []
    assert those(account_id="a_00000000") == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("after=", "invalid_field"),
        ("after=wd_1", "invalid_field"),
        ("after=e_000000000000000000", "invalid_field"),
        ("account_id=1", "invalid_field"),
        ("limit=0", "invalid_field"),
        ("cursor=1-0123456789ab", "invalid_cursor"),
        ("from=yesterday", "unknown_field"),
    ],
)
def test_the_log_is_not_asked_for_wrongly(hearer: Hearer, query: str, code: str) -> None:
    reply = hearer.call("GET", f"{NOTIFICATIONS}?{query}")
    assert (reply.status, reply.code) == (400 if code == "invalid_cursor" else 422, code)


def test_the_metadata_of_an_account_comes_as_it_was_given(hearer: Hearer, receivers: Receivers) -> None:
    receiver, metadata = receivers.open(), {"crm": "4711", "tags": ["ä", None, 1.5, {"a": [True]}]}
    hearer.hook(receiver, "balance_change")
    made = hearer.call(
        "POST",
        "/v1/companies/{company}/accounts",
        {"name": "Ada", "email": "ada@example.com", "metadata": metadata},
    )
    assert hearer.call("POST", f"/v1/accounts/{made.data['id']}/balance/tokens", {"amount": 5}).status == 200

    (message,) = receiver.wait(1)

    assert message.data["metadata"] == metadata
    assert json.loads(message.body)["id"] == message.id
