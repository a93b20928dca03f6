"""Plans in the console: the list, a plan's page, and the editor that loses nothing that was typed."""

from __future__ import annotations

import html
import json
import re
from typing import Any, Final

import pytest

from tests.console.visitor import Visitor

HOSTILE: Final = '<script>alert("x")</script>{{7*7}}' + "w" * 150
ROWS: Final = {
    "balance": (
        *("denomination", "amount", "variable", "chosen", "overage", "overage_per", "overage_denomination"),
        *("refill_amount", "refill_threshold", "refill_charge", "rollover"),
    ),
    "price": ("type", "denomination", "model", "amount", "per", "tiers", "free", "minimum", "cap", "highest", "match"),
    "flag": ("name", "kind", "value"),
    "usage": ("type", "quantity", "events"),
}
GB: Final = {"denomination": "storage_gb", "amount": "10", "overage": "1.00", "overage_per": "1"}
CHAT: Final = {"type": "CHAT", "denomination": "USD", "model": "graduated", "tiers": "1000: 0.03\nbeyond: 0.005"}


def typed(*rows: tuple[str, dict[str, str]], **values: str) -> dict[str, Any]:
    """The fields of the form: those that stand once, and rows of (group, fields)."""
    fields: dict[str, Any] = {"name": "Pro", "code": "pro", "currency": "USD", "renewal_MONTHLY": "10.00", **values}
    for group, names in ROWS.items():
        of_group = [row for each, row in rows if each == group]
        for name in names:
            fields[f"{group}_{name}"] = [row.get(name, "") for row in of_group]
    return fields


def published(visitor: Visitor) -> list[Any]:
    return list(visitor.company.call("GET", "/v1/companies/{company}/plans").data)


def test_a_company_without_plans_is_led_to_the_editor(visitor: Visitor) -> None:
    seen = visitor.visit("/control/plans")

    assert "No plan has been published yet." in seen.words
    assert 'href="/control/plans/new"' in seen.text


def test_a_plan_is_published_from_the_form(visitor: Visitor) -> None:
    seen = visitor.send(
        "/control/plans/new",
        **typed(
            ("balance", GB),
            ("balance", {"denomination": "seats", "variable": "MONTHLY: 2.00"}),
            ("balance", {"denomination": "credits", "amount": "5", "refill_amount": "50", "refill_threshold": "5",
                         "refill_charge": "4.99", "rollover": "yes"}),
            ("price", CHAT),
            ("price", {"type": "STORE", "denomination": "storage_gb", "model": "per_unit", "amount": "1", "per": "1",
                       "match": 'kind = video\nsize = 4\nname = "4"'}),
            ("price", {"type": "READ", "denomination": "USD", "model": "package", "amount": "0.15", "per": "1000000",
                       "free": "10", "minimum": "0.01", "cap": "2", "highest": "yes"}),
            ("flag", {"name": "watermark", "kind": "binary", "value": "off"}),
            ("flag", {"name": "projects", "kind": "limit", "value": "3"}),
            ("flag", {"name": "support", "kind": "text", "value": "by mail"}),
            ("flag", {"name": "ai", "kind": "metered", "value": "credits"}),
            trial_days="14",
            setup_fee="5",
            minimum_spend="20.00",
            spend_cap="1 000",
            alert_percentage="80",
        ),
    )  # fmt: skip

    assert seen.status == 200, seen.words
    assert "Pro is published" in seen.words
    (plan,) = published(visitor)
    assert plan["code"] == "pro"
    assert plan["renewals"] == {"MONTHLY": {"amount": 1000}}
    assert plan["balances"]["storage_gb"]["overage_charge_amount"] == 100
    assert plan["balances"]["seats"]["variable_amount_cost"] == {"MONTHLY": 200}
    assert plan["balances"]["credits"]["auto_refill_charge_amount"] == 499
    assert plan["balances"]["credits"]["rollover"] is True
    chat, store, read = plan["event_prices"]
    assert [(tier["up_to"], tier["amount"]) for tier in chat["tiers"]] == [(1000, "3"), (None, "0.5")]
    assert store["match"] == {"kind": "video", "size": 4, "name": "4"}
    assert (read["amount"], read["per"], read["free_units"], read["minimum"], read["cap"]) == (
        "15",
        10**6,
        10,
        "1",
        "200",
    )
    assert plan["flags"] == {"watermark": False, "projects": 3, "support": "by mail", "ai": {"metered": "credits"}}
    assert (plan["trial_days"], plan["setup_fee"], plan["minimum_spend"], plan["spend_cap"]) == (14, 500, 2000, 100_000)
    assert plan["threshold_alert_percentage"] == 80


@pytest.mark.parametrize(
    ("rows", "values", "place"),
    [
        ([("price", CHAT), ("price", {**CHAT, "type": "B", "tiers": "5: 1"})], {}, "price_tiers:1"),
        ([("price", {**CHAT, "tiers": "five"})], {}, "price_tiers:0"),
        ([("price", {**CHAT, "model": "per_unit", "amount": "x"})], {}, "price_amount:0"),
        ([("price", {**CHAT, "match": "large"})], {}, "price_match:0"),
        ([("balance", GB), ("balance", {"denomination": "b", "amount": "-1"})], {}, "balance_amount:1"),
        ([("balance", {**GB, "denomination": "a.b", "overage_per": "11"})], {}, "balance_overage_per:0"),
        ([("flag", {"name": "f", "kind": "limit", "value": "many"})], {}, "flag_value:0"),
        ([], {"renewal_MONTHLY": "0.10"}, "renewal_MONTHLY"),
        ([], {"renewal_MONTHLY": "ten"}, "renewal_MONTHLY"),
        ([], {"renewal_MONTHLY": ""}, "renewal_MONTHLY"),
        ([], {"name": ""}, "name"),
        ([], {"currency": "U S"}, "currency"),
        ([], {"currency": "usd"}, "currency"),
        ([("balance", {**GB, "denomination": "Usd"})], {}, "balance_denomination:0"),
        ([("balance", {**GB, "overage_denomination": "eur"})], {}, "balance_overage_denomination:0"),
        ([("price", CHAT), ("price", {**CHAT, "type": "B", "denomination": "usd"})], {}, "price_denomination:1"),
        ([("flag", {"name": "f", "kind": "metered", "value": "usd"})], {}, "flag_value:0"),
        ([("price", {**CHAT, "model": "per_unit", "amount": "1e-9999999"})], {}, "price_amount:0"),
        ([("price", {**CHAT, "tiers": "beyond: 1e9999999"})], {}, "price_tiers:0"),
        ([], {"renewal_MONTHLY": "1e-99999999"}, "renewal_MONTHLY"),
        ([], {"code": "p q"}, "code"),
        ([], {"trial_days": "9999"}, "trial_days"),
        ([], {"spend_cap": "1", "minimum_spend": "2"}, "minimum_spend"),
        ([], {"alert_percentage": "120"}, "alert_percentage"),
    ],
)  # fmt: skip
def test_a_refusal_stands_beside_its_field_and_nothing_is_lost(
    visitor: Visitor, rows: list[tuple[str, dict[str, str]]], values: dict[str, str], place: str
) -> None:
    sent = typed(*rows, ("usage", {"type": "CHAT", "quantity": "77", "events": "1"}), **values)
    seen = visitor.send("/control/plans/new", **sent)

    assert seen.status == 422, seen.words
    assert f'id="wrong-{place.replace(":", "-")}"' in seen.text
    name = place.partition(":")[0]
    assert re.search(rf'name="{name}"[^>]*aria-invalid="true"', seen.text)
    for field, value in sent.items():
        for each in value if isinstance(value, list) else [value]:
            assert each in html.unescape(seen.text), field
    assert published(visitor) == []


def test_a_code_that_is_taken_is_said_beside_the_code(visitor: Visitor) -> None:
    visitor.company.plan(code="pro")
    seen = visitor.send("/control/plans/new", **typed())

    assert seen.status == 422
    assert 'id="wrong-code"' in seen.text


def test_what_a_month_would_cost_is_worked_out_beside_the_form(visitor: Visitor) -> None:
    store = {"type": "STORE", "denomination": "storage_gb", "model": "per_unit", "amount": "1", "per": "1"}
    sent = typed(("balance", GB), ("price", store), ("price", CHAT), ("usage", {"type": "STORE", "quantity": "12"}),
                 ("usage", {"type": "CHAT", "quantity": "1 200", "events": "3"}))  # fmt: skip
    seen = visitor.send("/control/plans/preview", **sent)

    assert seen.status == 200
    assert "$43.00" in seen.words  # 10 for the plan, 2 for overage, 30 and 1 for the tiers
    assert "storage_gb: 10 storage_gb used of 10 storage_gb" in seen.words
    assert "Pro costs 10.00 USD a month and includes 10 storage_gb" in seen.words
    body = json.loads(html.unescape(seen.attribute(r"(?s)<pre[^>]*>(.*?)</pre>")))
    made = visitor.company.call("POST", "/v1/companies/{company}/plans", body)
    assert made.status == 200, made
    told = visitor.send("/control/plans/preview", **{**sent, "renewal_MONTHLY": "much"})
    assert (told.status, "Renewals, MONTHLY, amount: takes a number" in told.words) == (200, True)
    capped = visitor.send("/control/plans/preview", **{**sent, "spend_cap": "1.00", "setup_fee": "9"})
    assert "above the spend cap" in capped.words
    assert "$9.00 once" in capped.words


def test_a_plan_says_its_terms_in_words(visitor: Visitor) -> None:
    plan_id = visitor.company.plan(
        name=HOSTILE,
        balances={"storage_gb": {"amount": 10, "overage_charge_amount": "100"}},
        event_prices=[
            {"type": "CHAT", "denomination": "USD", "model": "volume", "free_units": 5, "cap": "9",
             "tiers": [{"up_to": 100, "amount": "3"}, {"up_to": None, "amount": "1", "per": 2}]},
            {"type": "READ", "denomination": "USD", "amount": "15", "per": 1_000_000, "match": {"model": HOSTILE[:40]}},
        ],
        flags={"watermark": False, "ai": {"metered": "storage_gb"}, "seats": 3, "note": "hello"},
        setup_fee=500, trial_days=7, minimum_spend=2000, spend_cap=5000,
    )  # fmt: skip
    seen = visitor.visit(f"/control/plans/{plan_id}")

    assert seen.status == 200
    assert "<script>alert" not in seen.text
    assert "{{7*7}}" in seen.words
    for said in ("$10.00", "$1.00 each", "1 to 100", "101 and more", "5 units of a period are free", "$5.00",
                 "$20.00 a period", "limit 3", "on while there is something on", "7 days"):  # fmt: skip
        assert said in seen.words, said
    assert visitor.visit("/control/plans/p_00000000").status == 404
    assert HOSTILE in visitor.visit("/control/plans").words


def test_the_list_shows_prices_and_leaves_archived_ones_out(visitor: Visitor) -> None:
    plan_id = visitor.company.plan(name="Old", code="old")
    visitor.company.plan(name="New", code="new", renewals={"YEARLY": {"amount": 120_000}})
    gone = visitor.send(f"/control/plans/{plan_id}/archive")

    assert "Old is sold no more" in gone.words
    assert "$1,200.00" in visitor.visit("/control/plans").words
    shown = visitor.visit("/control/plans?archived=false").text
    assert ("/control/plans/" + plan_id in shown, "New" in shown) == (False, True)
    assert plan_id in visitor.visit("/control/plans?archived=true").text
    assert "Change it" not in visitor.visit(f"/control/plans/{plan_id}").words


def fields_of(text: str) -> dict[str, Any]:
    """What a browser would send of the form on a page, templates left out."""
    form = text[text.index('<form class="editor"') :].partition("</form>")[0]
    found: dict[str, list[str]] = {}
    inputs = r'<input[^>]*name="(\w+)" value="([^"]*)"'
    areas = r'<textarea name="(\w+)"[^>]*>([^<]*)'
    selects = r'(?s)<select name="(\w+)"[^>]*>(.*?)</select>'
    form = re.sub(r"(?s)<template.*?</template>", "", form)
    for name, value in [*re.findall(inputs, form), *re.findall(areas, form)]:
        found.setdefault(name, []).append(html.unescape(value))
    for name, options in re.findall(selects, form):
        chosen = re.search(r'value="([^"]*)" selected', options) or re.search(r'value="([^"]*)"', options)
        assert chosen is not None
        found.setdefault(name, []).append(chosen[1])
    return {name: values for name, values in found.items() if name not in {"_csrf", "_key"}}


WHOLE: Final[dict[str, Any]] = {
    "name": "Whole",
    "renewals": {"MONTHLY": {"amount": 1000}, "YEARLY": {"amount": 11_000}},
    "refill_cadence": "MONTHLY",
    "balances": {
        "storage_gb": {"amount": 10, "overage_charge_amount": "0.375", "overage_charge_per": 3, "rollover": False},
        "credits": {"amount": 5, "overage_charge_amount": "2", "overage_charge_denomination": "tokens"},
        "seats": {"variable_amount_cost": {"MONTHLY": 200, "YEARLY": 2000}},
        "USD": {"amount": 250, "auto_refill_amount": 500, "auto_refill_threshold": 100,
                "auto_refill_charge_amount": 450},
    },
    "event_prices": [
        {"type": "A", "denomination": "USD", "amount": "0.15", "per": 1000,
         "match": {"a=b": "4", "n": 4, "t": True, "s": " x"}},
        {"type": "B", "denomination": "credits", "model": "graduated", "free_units": 3, "minimum": "0.5", "cap": "7",
         "max_value_billing": True,
         "tiers": [{"up_to": 9, "amount": "3", "per": 2}, {"up_to": None, "amount": "0", "per": 1}]},
        {"type": "C", "denomination": "USD", "model": "package", "amount": "15", "per": 7},
    ],
    "flags": {"on": True, "off": False, "many": 7, "word": "hello", "empty": "", "by": {"metered": "credits"}},
    "trial_days": 7, "setup_fee": 500, "minimum_spend": 0, "spend_cap": 10_000, "threshold_alert_percentage": 0,
    "rollover": True,
}  # fmt: skip


def test_a_form_that_is_sent_as_it_came_changes_nothing(visitor: Visitor) -> None:
    plan_id = visitor.company.plan(**WHOLE)
    fields = fields_of(visitor.visit(f"/control/plans/{plan_id}/edit").text)
    reviewed = visitor.send(f"/control/plans/{plan_id}/edit", **fields)

    assert reviewed.status == 200, reviewed.words
    assert "Nothing changes." in reviewed.words
    visitor.send(f"/control/plans/{plan_id}/publish", **fields)
    after = visitor.company.call("GET", f"/v1/plans/{plan_id}").data
    assert {name: after[name] for name in WHOLE if name not in {"balances", "event_prices"}} == {
        name: value for name, value in WHOLE.items() if name not in {"balances", "event_prices"}
    }
    for before, now in zip(WHOLE["event_prices"], after["event_prices"], strict=True):
        assert {name: now[name] for name in before} == before
    for name, before in WHOLE["balances"].items():
        assert {field: str(after["balances"][name][field]) for field in before} == {
            field: str(value) for field, value in before.items()
        }


def test_a_plan_keeps_a_token_that_it_already_has_whatever_it_is_called(visitor: Visitor) -> None:
    company = visitor.company
    plan_id = company.plan(balances={"usd": {"amount": 5}, "storage_gb": {"amount": 1}})
    fields = fields_of(visitor.visit(f"/control/plans/{plan_id}/edit").text)

    more = {**fields, "renewal_MONTHLY": "12.00"}
    assert "Publish version 2" in visitor.send(f"/control/plans/{plan_id}/edit", **more).words
    assert "Version 2 is published" in visitor.send(f"/control/plans/{plan_id}/publish", **more).words
    assert set(company.call("GET", f"/v1/plans/{plan_id}").data["balances"]) == {"usd", "storage_gb"}
    wrong = {**more, "version": "2", "balance_denomination": ["usd", "eur"]}
    for step in ("edit", "publish"):
        seen = visitor.send(f"/control/plans/{plan_id}/{step}", **wrong)
        assert (seen.status, "Did you mean EUR?" in seen.words) == (422, True), step


def test_a_change_is_reviewed_before_it_is_published(visitor: Visitor) -> None:
    company = visitor.company
    plan_id = company.plan(
        name="Pro", balances={"storage_gb": {"amount": 10}, "gone": {"amount": 1}}, flags={"x": True}
    )
    account = company.account()
    company.card(account)
    company.start(account, plan_id)
    fields = fields_of(visitor.visit(f"/control/plans/{plan_id}/edit").text)
    changed = {**fields, **typed(("balance", GB), ("price", CHAT), name="Pro", renewal_MONTHLY="12.50")}
    changed["version"] = fields["version"]

    reviewed = visitor.send(f"/control/plans/{plan_id}/edit", **changed)
    for said in ("price, a month, amount 10.00 USD 12.50 USD", "1 account is on this plan",
                 "balance, gone, amount 1 gone taken away", "Publish version 2"):  # fmt: skip
        assert said in reviewed.words, said
    assert company.call("GET", f"/v1/plans/{plan_id}").data["version"] == 1
    again = visitor.send(f"/control/plans/{plan_id}/edit", **changed, _again="yes")
    assert 'value="12.50"' in again.text

    done = visitor.send(f"/control/plans/{plan_id}/publish", **changed)
    assert "Version 2 is published" in done.words
    plan = company.call("GET", f"/v1/plans/{plan_id}").data
    assert (plan["renewals"]["MONTHLY"]["amount"], set(plan["balances"]), plan["flags"]) == (1250, {"storage_gb"}, {})
    late = visitor.send(f"/control/plans/{plan_id}/publish", **{**changed, "name": "Mine"})
    assert (late.status, "Somebody has published version 2 meanwhile" in late.words) == (422, True)
    assert 'value="Mine"' in late.text
    versions = visitor.visit(f"/control/plans/{plan_id}/versions").words
    assert versions.index("Version 2") < versions.index("10.00 USD 12.50 USD") < versions.index("Version 1")


def test_accounts_are_moved_to_the_newest_version(visitor: Visitor) -> None:
    company = visitor.company
    plan_id, other = company.plan(name="Pro"), company.plan(name="Other")
    accounts = [company.account() for _ in range(2)]
    for account, on in zip(accounts, (plan_id, other), strict=True):
        company.card(account)
        company.start(account, on)
    assert company.call("PUT", f"/v1/plans/{plan_id}", {"renewals": {"MONTHLY": {"amount": 2000}}}).status == 200

    seen = visitor.visit(f"/control/plans/{plan_id}/accounts")
    assert (accounts[0] in seen.text, accounts[1] in seen.text) == (True, False)
    assert "Move accounts to version 2" in seen.words
    moved = visitor.send(f"/control/plans/{plan_id}/move")
    assert "1 accounts change to the newest version" in moved.words
    scheduled = company.call("GET", f"/v1/accounts/{accounts[0]}/plan").data["scheduled"]
    assert scheduled["plan_id"] == plan_id
