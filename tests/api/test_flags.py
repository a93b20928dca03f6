"""Flags over HTTP: what an account may do right now, by its plan, by hand, by its balances; and what became of each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio

from tenuto.server import Server
from tests.client import Client, Company

FREE: Final = {"MONTHLY": {"amount": 0}}
SYSTEM: Final = ("account_paused", "credit_blocked", "over_credit_limit", "usage_suspended")
FLAGS: Final = {"exports": True, "region": "eu", "sms": {"metered": "messages"}, "storage_gb": 5, "watermark": False}


@pytest.fixture
def account(company: Company) -> str:
    """An account on a free plan with a flag of each kind and 2 messages a month; a message costs one."""
    company.price("SMS", "messages", "1")
    found = company.account()
    company.start(found, company.plan(renewals=FREE, flags=FLAGS, balances={"messages": {"amount": 2}}))
    return found


class Listener:
    """Somebody who hears every ``flag.changed`` of a company, and reads them where they are kept."""

    def __init__(self, rows: asyncpg.Connection, environment_id: int) -> None:
        self.rows, self.environment_id = rows, environment_id

    async def heard(self) -> list[Any]:
        """The data of all of them, in the order in which they were written."""
        found = await self.rows.fetch(
            "select data from notification where environment_id = $1 and topic = 'flag.changed' order by id",
            self.environment_id,
        )
        return [json.loads(row["data"]) for row in found]

    async def names(self) -> list[tuple[str, bool, str]]:
        """Name, whether it is on, and by whose doing, of all of them."""
        return [(data["name"], data["enabled"], data["source"]) for data in await self.heard()]


@pytest_asyncio.fixture
async def listener(company: Company, service: Server) -> AsyncIterator[Listener]:
    rows = await asyncpg.connect(service.dsn)
    environment_id = await rows.fetchval(
        "select id from environment where company_id = $1 and not live", int(company.id.removeprefix("c_"), 36)
    )
    await rows.execute(
        "insert into webhook (environment_id, id, secret, description, in_flight, merges, created_at)"
        " values ($1, 1, '', '', 1, false, now())",
        environment_id,
    )
    await rows.execute(
        "insert into webhook_topic (environment_id, id, webhook_id, topic, created_at)"
        " values ($1, 1, 1, 'flag.changed', now())",
        environment_id,
    )
    await rows.execute("update environment set revision = revision + 1 where id = $1", environment_id)
    yield Listener(rows, environment_id)
    await rows.close()


def own(company: Company, account: str) -> dict[str, Any]:
    """The flags of an account but those of the system."""
    return {name: flag for name, flag in company.flags(account).items() if name not in SYSTEM}


def asked(company: Company, account: str, name: str, value: int | None = None) -> Any:
    query = "" if value is None else f"?value={value}"
    reply = company.call("GET", f"/v1/accounts/{account}/flags/{name}{query}")
    assert reply.status == 200, reply
    return reply.data


def cleared(company: Company, account: str, name: str) -> Any:
    reply = company.call("DELETE", f"/v1/accounts/{account}/flags/{name}")
    assert reply.status == 200, reply
    return reply.data


def history(company: Company, account: str, name: str, query: str = "") -> list[Any]:
    reply = company.call("GET", f"/v1/accounts/{account}/flags/{name}/history{query}")
    assert reply.status == 200, reply
    return list(reply.data)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_one_call_shows_every_flag_of_every_kind(company: Company, account: str) -> None:
    found = company.flags(account)

    assert list(found) == sorted([*FLAGS, *SYSTEM])
    kinds = {name: (flag["type"], flag["enabled"], flag["value"], flag["denomination"]) for name, flag in found.items()}
    assert {name: kinds[name] for name in FLAGS} == {
        "exports": ("binary", True, None, None),
        "region": ("text", True, "eu", None),
        "sms": ("metered", True, None, "messages"),
        "storage_gb": ("limit", True, 5, None),
        "watermark": ("binary", False, None, None),
    }
    assert {found[name]["source"] for name in FLAGS} == {"plan"}
    assert all(found[name]["updated_at"] is not None for name in FLAGS)
    for name in SYSTEM:
        assert (kinds[name], found[name]["source"]) == (("binary", False, None, None), "system")


def test_an_account_without_a_plan_has_flags_of_the_system_only(company: Company) -> None:
    assert sorted(company.flags(company.account())) == sorted(SYSTEM)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("storage_gb", 4, True),
        ("storage_gb", 5, True),
        ("storage_gb", 6, False),
        ("storage_gb", 0, True),
        ("storage_gb", None, True),
        ("exports", None, True),
        ("exports", 7, True),
        ("watermark", None, False),
        ("watermark", 0, False),
        ("region", None, True),
        ("sms", None, True),
        ("never_heard_of", None, False),
        ("never_heard_of", 0, False),
    ],
)
def test_a_flag_says_whether_something_is_allowed(
    company: Company, account: str, name: str, value: int | None, *, allowed: bool
) -> None:
    assert asked(company, account, name, value)["allowed"] is allowed


def test_a_flag_that_nobody_set_is_off(company: Company, account: str) -> None:
    assert asked(company, account, "beta%2Fnew") == {
        "name": "beta/new",
        "type": None,
        "enabled": False,
        "value": None,
        "denomination": None,
        "source": "none",
        "overrides": None,
        "updated_at": None,
        "allowed": False,
    }


def test_a_name_with_a_slash_is_one_name(company: Company, account: str) -> None:
    company.flag(account, "beta%2Fnew", value=True)

    assert company.flags(account)["beta/new"]["enabled"] is True
    assert asked(company, account, "beta%2Fnew")["allowed"] is True
    assert len(history(company, account, "beta%2Fnew")) == 1


def test_the_account_shows_the_same_flags_but_for_those_of_the_system(company: Company, account: str) -> None:
    company.flag(account, "storage_gb", 8)
    company.flag(account, "credits_left", {"metered": "credits"})

    shown = company.call("GET", f"/v1/accounts/{account}").data["flags"]
    listed = next(one for one in company.call("GET", "/v1/companies/{company}/accounts").data if one["id"] == account)
    assert shown == list(own(company, account).values()) == listed["flags"]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_what_is_set_by_hand_goes_before_the_plan_and_back(company: Company, account: str) -> None:
    before = asked(company, account, "storage_gb")
    flag = company.flag(account, "storage_gb", 8, reason="a friend of the house")

    assert (flag["value"], flag["source"], flag["overrides"]) == (8, "operator", 5)
    assert company.flags(account)["storage_gb"] == flag
    assert asked(company, account, "storage_gb", 8)["allowed"] is True
    assert cleared(company, account, "storage_gb") == {name: before[name] for name in flag}
    assert asked(company, account, "storage_gb") == before


@pytest.mark.parametrize(
    ("value", "kind", "enabled", "limit"),
    [
        (True, "binary", True, None),
        (False, "binary", False, None),
        (0, "limit", False, 0),
        (12, "limit", True, 12),
        ("gold", "text", True, "gold"),
        ({"metered": "nowhere"}, "metered", False, None),
    ],
)
def test_every_kind_can_be_set_over_any_other(
    company: Company, account: str, value: object, kind: str, limit: object, *, enabled: bool
) -> None:
    for name in ("exports", "storage_gb", "sms", "something_new"):
        flag = company.flag(account, name, value)
        assert (flag["type"], flag["enabled"], flag["value"]) == (kind, enabled, limit)
        assert flag["overrides"] == FLAGS.get(name)


def test_a_flag_of_no_plan_is_gone_when_it_is_taken_back(company: Company) -> None:
    account = company.account()
    company.flag(account, "beta", value=True)

    assert cleared(company, account, "beta")["source"] == "none"
    assert own(company, account) == {}
    again = company.call("DELETE", f"/v1/accounts/{account}/flags/beta")
    assert (again.status, again.code) == (404, "not_found")


def test_true_is_not_one(company: Company, account: str) -> None:
    assert company.flag(account, "beta", value=True)["type"] == "binary"
    assert company.flag(account, "beta", 1)["type"] == "limit"
    assert len(history(company, account, "beta")) == 2


async def test_what_is_set_already_is_not_set_again(company: Company, account: str, listener: Listener) -> None:
    first = company.flag(account, "beta", value=True)

    assert company.flag(account, "beta", value=True, reason="once more") == first
    assert len(history(company, account, "beta")) == 1
    assert len(await listener.heard()) == 1


async def test_a_flag_is_set_once_per_key(company: Company, account: str, listener: Listener) -> None:
    path, key = f"/v1/accounts/{account}/flags/beta", {"idempotency-key": "beta for Ada"}
    first = company.call("PUT", path, {"value": True}, key)
    cleared(company, account, "beta")
    again = company.call("PUT", path, {"value": True}, key)

    assert (again.is_replay, again.raw) == (True, first.raw)
    assert asked(company, account, "beta")["enabled"] is False
    assert [data["enabled"] for data in await listener.heard()] == [True, False]
    reused = company.call("PUT", path, {"value": 5}, key)
    assert (reused.status, reused.code) == (422, "key_reused")


@pytest.mark.parametrize("name", SYSTEM)
def test_flags_of_the_system_are_not_set_by_hand(company: Company, account: str, name: str) -> None:
    for method, body in (("PUT", {"value": True}), ("DELETE", None)):
        reply = company.call(method, f"/v1/accounts/{account}/flags/{name}", body)
        assert (reply.status, reply.code) == (409, "flag_is_set_by_system")
        assert reply.details == {"name": name}
    assert asked(company, account, name)["enabled"] is False


def test_an_account_has_at_most_a_hundred_of_its_own(company: Company) -> None:
    account = company.account()
    for number in range(100):
        company.flag(account, f"f{number}", number)
    one_more = company.call("PUT", f"/v1/accounts/{account}/flags/f100", {"value": 1})

    assert (one_more.status, one_more.code, one_more.details["path"]) == (422, "out_of_range", "name")
    company.flag(account, "f7", 1000)
    cleared(company, account, "f8")
    company.flag(account, "f100", 1)
    assert len(own(company, account)) == 100


def test_two_who_set_one_flag_see_each_other_in_its_history(company: Company, account: str, service: Server) -> None:
    def setting(value: int) -> int:
        with Client(*service.address) as client:
            caller = Company(client, company.id, company.key)
            return caller.call("PUT", f"/v1/accounts/{account}/flags/storage_gb", {"value": value}).status

    with ThreadPoolExecutor(8) as crowd:
        assert list(crowd.map(setting, range(100, 124))) == [200] * 24

    changes = history(company, account, "storage_gb")[:-1]
    assert sorted(change["after"]["value"] for change in changes) == list(range(100, 124))
    for later, earlier in zip(changes, [*changes[1:], None], strict=True):
        assert later["before"]["value"] == (5 if earlier is None else earlier["after"]["value"])
    assert asked(company, account, "storage_gb")["value"] == changes[0]["after"]["value"]


# --- plans ------------------------------------------------------------------------------------------------------------


async def test_a_plan_brings_its_flags_changes_them_and_takes_them(company: Company, listener: Listener) -> None:
    account = company.account()
    small = company.plan(renewals=FREE, flags={"exports": True, "seats": 5, "sso": False})
    large = company.plan(renewals=FREE, flags={"exports": True, "seats": 50, "sso": True})

    company.start(account, small)
    company.start(account, large, scheme="ariel")
    assert own(company, account)["seats"]["value"] == 50
    assert company.call("POST", f"/v1/accounts/{account}/cancelplan", {"at_period_end": False}).status == 200
    assert own(company, account) == {}

    assert await listener.names() == [
        *(("exports", True, "plan"), ("seats", True, "plan"), ("sso", False, "plan")),
        *(("seats", True, "plan"), ("sso", True, "plan")),
        *(("exports", False, "plan"), ("seats", False, "plan"), ("sso", False, "plan")),
    ]
    ended, changed, begun = history(company, account, "seats")
    assert (begun["before"], begun["after"]["value"]) == (None, 5)
    assert (changed["before"]["value"], changed["after"]["value"]) == (5, 50)
    assert (ended["before"]["value"], ended["after"]) == (50, None)
    assert [change["reason"] for change in (begun, changed, ended)] == [
        "the plan has begun",
        "the plan has changed",
        "the plan has ended",
    ]
    steps = company.call("GET", f"/v1/accounts/{account}/plan/history").data
    assert [change["actor"] for change in (ended, changed, begun)] == [step["id"] for step in steps]


async def test_a_change_of_plans_below_what_was_set_by_hand_tells_nothing(company: Company, listener: Listener) -> None:
    account = company.account()
    company.start(account, company.plan(renewals=FREE, flags={"seats": 5}))
    company.flag(account, "seats", 8)
    before = await listener.heard()

    company.start(account, company.plan(renewals=FREE, flags={"seats": 50}), scheme="ariel")

    flag = asked(company, account, "seats")
    assert (flag["value"], flag["source"], flag["overrides"]) == (8, "operator", 50)
    assert await listener.heard() == before
    assert cleared(company, account, "seats")["value"] == 50


async def test_a_renewal_into_another_version_changes_flags_and_a_plain_one_does_not(
    company: Company, listener: Listener
) -> None:
    account = company.account()
    plan = company.plan(renewals=FREE, flags={"seats": 5})
    company.start(account, plan)
    assert company.call("PUT", f"/v1/plans/{plan}", {"flags": {"seats": 6}}).status == 200
    company.start(account, plan)
    assert asked(company, account, "seats")["value"] == 5

    for _ in range(3):
        moved = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 32 * 86_400})
        assert moved.status == 200

    assert asked(company, account, "seats")["value"] == 6
    assert [(data["value"], data["reason"]) for data in await listener.heard()] == [
        (5, "the plan has begun"),
        (6, "the plan was renewed"),
    ]


async def test_terms_agreed_with_one_account_change_its_flags_at_once(company: Company, listener: Listener) -> None:
    account = company.account()
    company.start(account, company.plan(renewals=FREE, flags={"seats": 5, "sso": True}))
    path = f"/v1/accounts/{account}/plan/overrides"

    for agreed in ({"flags": {"seats": 9}}, {"flags": {"seats": 9}, "trial_days": 3}, {}):
        assert company.call("PUT", path, agreed).status == 200, agreed

    assert [(data["name"], data["value"]) for data in (await listener.heard())[2:]] == [("seats", 9), ("seats", 5)]
    assert [change["reason"] for change in history(company, account, "seats")[:2]] == ["other terms were agreed"] * 2


# --- balances ---------------------------------------------------------------------------------------------------------


async def test_a_metered_flag_follows_its_balance_in_real_time(
    company: Company, account: str, listener: Listener
) -> None:
    seen = []
    for _ in range(3):
        company.send(account, type="SMS")
        seen.append(asked(company, account, "sms")["allowed"])
    company.call("POST", f"/v1/accounts/{account}/balance/messages/adjust", {"amount": 5})
    seen.append(asked(company, account, "sms")["allowed"])

    assert seen == [True, False, False, True]
    assert await listener.names() == [("sms", False, "balance"), ("sms", True, "balance")]
    up, down, begun = history(company, account, "sms")
    assert (begun["source"], begun["before"], begun["after"]["enabled"]) == ("plan", None, True)
    assert (down["before"]["enabled"], down["after"]["enabled"]) == (True, False)
    assert (up["before"], up["after"]) == (down["after"], down["before"])
    moved = company.call("GET", f"/v1/accounts/{account}/transactions?denomination=messages").data
    assert [up["actor"], down["actor"]] == [moved[0]["id"], moved[2]["id"]]


async def test_a_metered_flag_that_was_set_by_hand_follows_too(company: Company, listener: Listener) -> None:
    account = company.account()
    company.price("CHAT", "tokens", "1")
    company.send(account, type="CHAT")
    assert company.flag(account, "chat", {"metered": "tokens"})["enabled"] is False

    company.call("POST", f"/v1/accounts/{account}/balance/tokens/adjust", {"amount": 2})
    assert company.flags(account)["chat"]["enabled"] is True
    company.send(account, type="CHAT", quantity=1)
    assert company.flags(account)["chat"]["enabled"] is False

    assert await listener.names() == [
        ("chat", False, "operator"),
        ("chat", True, "balance"),
        ("chat", False, "balance"),
    ]


async def test_a_metered_flag_set_to_off_by_hand_stays_off(company: Company, account: str, listener: Listener) -> None:
    company.flag(account, "sms", value=False)
    company.send(account, type="SMS", quantity=2)
    company.call("POST", f"/v1/accounts/{account}/balance/messages/adjust", {"amount": 5})

    assert asked(company, account, "sms")["allowed"] is False
    assert await listener.names() == [("sms", False, "operator")]


async def test_a_renewal_that_fills_an_empty_balance_raises_its_flag_once(
    company: Company, account: str, listener: Listener
) -> None:
    company.send(account, type="SMS", quantity=2)
    company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 32 * 86_400})

    assert asked(company, account, "sms")["allowed"] is True
    assert await listener.names() == [("sms", False, "balance"), ("sms", True, "balance")]


async def test_a_plan_that_brings_a_metered_flag_and_its_units_tells_it_once(
    company: Company, listener: Listener
) -> None:
    account = company.account(messages=0)
    with_flag = {"renewals": FREE, "flags": {"sms": {"metered": "messages"}}, "balances": {"messages": {"amount": 2}}}
    company.start(account, company.plan(**with_flag))
    assert await listener.names() == [("sms", True, "plan")]

    company.start(account, company.plan(**with_flag), scheme="ariel")
    assert await listener.names() == [("sms", True, "plan")]


def test_a_rule_of_the_company_raises_its_flag_and_lowers_it(company: Company) -> None:
    company.call("PUT", "/v1/companies/{company}", {"default_credit_limit": 100})
    account = company.account(USD=0)
    company.send(account, type="ANY", cost_override_amount=150, cost_override_denomination="USD")
    assert asked(company, account, "over_credit_limit")["enabled"] is True

    company.call("POST", f"/v1/accounts/{account}/balance/USD/adjust", {"amount": 100})
    assert asked(company, account, "over_credit_limit")["enabled"] is False
    assert [(c["after"]["enabled"], c["source"]) for c in history(company, account, "over_credit_limit")] == [
        (False, "system"),
        (True, "system"),
    ]


def test_a_pause_of_the_account_or_of_the_company_raises_its_flag(company: Company) -> None:
    account = company.account()
    for path in (f"/v1/accounts/{account}", "/v1/companies/{company}"):
        for pause, resume, name in (
            ("pause", "resume", "account_paused"),
            ("suspend_usage", "resume_usage", "usage_suspended"),
        ):
            assert company.call("POST", f"{path}/{pause}").status == 200
            assert asked(company, account, name)["allowed"] is True
            assert company.call("POST", f"{path}/{resume}").status == 200
            assert asked(company, account, name)["allowed"] is False


def test_a_rule_takes_its_name_from_plans_and_from_what_was_set(company: Company) -> None:
    account = company.account(USD=0)
    company.start(account, company.plan(renewals=FREE, flags={"api_shut": True}))
    company.flag(account, "api_shut", 7)
    rule = {"credit_limit_percentage": 100, "action": "flag", "flag": "api_shut"}
    settings = {"levels": [rule], "default_credit_limit": 50}
    assert company.call("PUT", "/v1/companies/{company}", settings).status == 200

    shut = asked(company, account, "api_shut")
    assert (shut["enabled"], shut["type"], shut["source"]) == (False, "binary", "system")
    assert company.call("GET", f"/v1/accounts/{account}").data["flags"] == []
    again = company.call("PUT", f"/v1/accounts/{account}/flags/api_shut", {"value": 7})
    assert (again.status, again.code) == (409, "flag_is_set_by_system")
    assert cleared(company, account, "api_shut")["source"] == "system"

    company.send(account, type="ANY", cost_override_amount=50, cost_override_denomination="USD")
    assert asked(company, account, "api_shut")["enabled"] is True
    assert company.call("PUT", "/v1/companies/{company}", {"levels": []}).status == 200
    assert asked(company, account, "api_shut")["source"] == "plan"


# --- history ----------------------------------------------------------------------------------------------------------


def test_the_history_says_what_by_whom_why_and_when(company: Company) -> None:
    account = company.account()
    keys = company.call("GET", "/v1/companies/{company}/keys").data
    company.flag(account, "beta", 5, reason="on trial")
    reply = company.call("DELETE", f"/v1/accounts/{account}/flags/beta?reason=the%20trial%20is%20over")
    assert reply.status == 200

    down, up = history(company, account, "beta")
    limit = {"type": "limit", "enabled": True, "value": 5, "denomination": None}
    assert {name: value for name, value in up.items() if name != "changed_at"} == {
        "name": "beta",
        "before": None,
        "after": limit,
        "source": "operator",
        "actor": keys[0]["id"],
        "reason": "on trial",
    }
    assert (down["before"], down["after"], down["reason"]) == (limit, None, "the trial is over")
    assert down["changed_at"] > up["changed_at"]


def test_setting_what_the_plan_says_already_is_in_the_history_though_nothing_else_is_new(
    company: Company, account: str
) -> None:
    company.flag(account, "exports", value=True)

    change = history(company, account, "exports")[0]
    assert (change["source"], change["before"]) == ("operator", change["after"])


def test_a_history_comes_in_pages(company: Company) -> None:
    account = company.account()
    for value in range(5):
        company.flag(account, "seats", value)
    path = f"/v1/accounts/{account}/flags/seats/history?limit=2"
    pages = [company.call("GET", path)]
    while pages[-1].body["has_more"]:
        pages.append(company.call("GET", f"{path}&cursor={pages[-1].body['next_cursor']}"))

    assert [[change["after"]["value"] for change in page.data] for page in pages] == [[4, 3], [2, 1], [0]]
    assert history(company, account, "unheard_of") == []


# --- who, and what ----------------------------------------------------------------------------------------------------


def test_nobody_sees_or_sets_flags_of_another_company(company: Company, account: str, client: Client) -> None:
    other = Company.open(client, "Other")
    path = f"/v1/accounts/{account}/flags"
    for method, where, body in (
        ("GET", path, None),
        ("GET", f"{path}/exports", None),
        ("PUT", f"{path}/exports", {"value": False}),
        ("DELETE", f"{path}/exports", None),
        ("GET", f"{path}/exports/history", None),
    ):
        reply = other.call(method, where, body)
        assert (reply.status, reply.code) == (404, "not_found"), (method, where)
    assert asked(company, account, "exports")["source"] == "plan"


def test_a_key_needs_the_scopes_of_accounts(company: Company, account: str) -> None:
    weak = company.call("POST", "/v1/companies/{company}/keys", {"scopes": ["accounts:read"]}).data["api_key"]
    reader = Company(company.client, company.id, weak)
    none = company.call("POST", "/v1/companies/{company}/keys", {"scopes": ["events:read"]}).data["api_key"]
    stranger = Company(company.client, company.id, none)

    assert reader.flags(account) == company.flags(account)
    for method, body in (("PUT", {"value": True}), ("DELETE", None)):
        assert reader.call(method, f"/v1/accounts/{account}/flags/exports", body).code == "insufficient_scope"
    for path in ("", "/exports", "/exports/history"):
        assert stranger.call("GET", f"/v1/accounts/{account}/flags{path}").code == "insufficient_scope"


def test_a_key_that_was_revoked_reads_no_flag_any_more(company: Company, account: str) -> None:
    issued = company.call("POST", "/v1/companies/{company}/keys", {}).data
    spare = Company(company.client, company.id, issued["api_key"])
    assert spare.call("GET", f"/v1/accounts/{account}/flags").status == 200
    company.call("DELETE", "/v1/companies/{company}/keys/" + issued["id"])

    for path in ("", "/exports", "/exports/history"):
        assert spare.call("GET", f"/v1/accounts/{account}/flags{path}").code == "invalid_credentials"


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        ({}, "missing_field", "value"),
        ({"value": None}, "invalid_field", "value"),
        ({"value": 1.5}, "invalid_field", "value"),
        ({"value": [1]}, "invalid_field", "value"),
        ({"value": 10**15 + 1}, "out_of_range", "value"),
        ({"value": -(10**15) - 1}, "out_of_range", "value"),
        ({"value": "x" * 201}, "invalid_field", "value"),
        ({"value": {}}, "missing_field", "value.metered"),
        ({"value": {"metered": ""}}, "invalid_field", "value.metered"),
        ({"value": {"metered": "two words"}}, "invalid_field", "value.metered"),
        ({"value": {"metered": "x" * 65}}, "invalid_field", "value.metered"),
        ({"value": {"metered": 5}}, "invalid_field", "value.metered"),
        ({"value": {"metered": "x", "amount": 5}}, "unknown_field", "value.amount"),
        ({"value": True, "reason": ""}, "invalid_field", "reason"),
        ({"value": True, "reason": "x" * 501}, "invalid_field", "reason"),
        ({"value": True, "reason": 5}, "invalid_field", "reason"),
        ({"value": True, "until": "2030"}, "unknown_field", "until"),
    ],
)
def test_a_value_that_is_none_is_refused(
    company: Company, account: str, body: dict[str, object], code: str, path: str
) -> None:
    reply = company.call("PUT", f"/v1/accounts/{account}/flags/exports", body)

    assert (reply.status, reply.code, reply.details["path"]) == (422, code, path)
    assert asked(company, account, "exports")["source"] == "plan"


@pytest.mark.parametrize("name", ["x" * 65, "two%20words", "%C3%A9", "a%00b"])
@pytest.mark.parametrize(("method", "more"), [("GET", ""), ("GET", "/history"), ("PUT", ""), ("DELETE", "")])
def test_a_name_that_is_none_is_refused(company: Company, account: str, name: str, method: str, more: str) -> None:
    body = {"value": True} if method == "PUT" else None
    reply = company.call(method, f"/v1/accounts/{account}/flags/{name}{more}", body)

    assert (reply.status, reply.code, reply.details["path"]) == (422, "invalid_field", "name")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("value=", "invalid_field"),
        ("value=five", "invalid_field"),
        ("value=1.5", "invalid_field"),
        ("value=%2B5", "invalid_field"),
        ("value=" + "9" * 16, "out_of_range"),
        ("value=" + "9" * 30, "invalid_field"),
        ("value=5&value=6", "invalid_field"),
        ("amount=5", "unknown_field"),
    ],
)
def test_a_question_that_is_none_is_refused(company: Company, account: str, query: str, code: str) -> None:
    reply = company.call("GET", f"/v1/accounts/{account}/flags/storage_gb?{query}")

    assert (reply.status, reply.code) == (422, code)


@pytest.mark.parametrize("reason", ["", "%20", "x" * 201, "a%00b"])
def test_a_reason_that_is_none_is_refused(company: Company, account: str, reason: str) -> None:
    company.flag(account, "beta", value=True)
    reply = company.call("DELETE", f"/v1/accounts/{account}/flags/beta?reason={reason}")

    assert reply.status == 422
    assert reply.details["path"] == "reason"
    assert asked(company, account, "beta")["enabled"] is True
