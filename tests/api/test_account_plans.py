"""An account on a plan over HTTP: started, changed, renewed, paused, ended; every preview against what it previews."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.client import Company, Reply

BASIC: Final = {"name": "Basic", "balances": {"tokens": {"amount": 1000}}}
PRO: Final = {"name": "Pro", "renewals": {"MONTHLY": {"amount": 4000}}, "balances": {"tokens": {"amount": 5000}}}


def change(company: Company, account_id: str, plan_id: str, **more: object) -> Reply:
    return company.call("POST", f"/v1/accounts/{account_id}/changeplan", {"plan_id": plan_id, **more})


def shown(company: Company, account_id: str) -> Any:
    return company.call("GET", f"/v1/accounts/{account_id}").data


def amounts(company: Company, account_id: str) -> dict[str, int]:
    found = company.call("GET", f"/v1/accounts/{account_id}/balance").data
    return {balance["denomination"]: balance["amount"] for balance in found}


def charges(company: Company, account_id: str) -> list[tuple[str, str, int]]:
    found = company.call("GET", f"/v1/accounts/{account_id}/payments").data
    return [(payment["reason"], payment["status"], payment["amount"]) for payment in reversed(found)]


def forward(company: Company, days: float) -> Any:
    moved = company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": int(days * 86400)})
    assert moved.status == 200, moved
    return moved.data["done"]


def to(company: Company, now: str) -> Any:
    moved = company.call("POST", "/v1/companies/{company}/clock", {"now": now})
    assert moved.status == 200, moved
    return moved.data["done"]


def use(company: Company, account_id: str, units: int, denomination: str = "tokens") -> None:
    usage = {"type": "USE", "cost_override_amount": units, "cost_override_denomination": denomination}
    assert company.send(account_id, usage).status == 200


@pytest.fixture
def account_id(company: Company) -> str:
    found = company.account()
    company.card(found)
    return found


def test_an_account_begins_with_a_plan(company: Company, account_id: str) -> None:
    plan_id = company.plan(**BASIC)
    begun = change(company, account_id, plan_id)
    assert begun.status == 200, begun
    assert (begun.data["plan_id"], begun.data["plan_status"]) == (plan_id, "ACTIVE")
    assert (begun.data["plan_renewal_cadence"], amounts(company, account_id)) == ("MONTHLY", {"USD": 0, "tokens": 1000})
    assert charges(company, account_id) == [("plan_start", "succeeded", 1000)]


def test_the_three_schemes_up(company: Company) -> None:
    basic, pro = company.plan(**BASIC), company.plan(**PRO)
    seen = {}
    for scheme in ("sleeping_beauty", "snow_white", "ariel"):
        account_id = company.account()
        company.card(account_id)
        assert change(company, account_id, basic).status == 200
        use(company, account_id, 250)
        preview = change(company, account_id, pro, scheme=scheme, preview=True).data
        assert change(company, account_id, pro, scheme=scheme).status == 200
        paid = charges(company, account_id)[1:]
        assert [amount for _, _, amount in paid] == ([preview["charge"]] if preview["charge"] else [])
        seen[scheme] = (preview["charge"], amounts(company, account_id)["tokens"])
    assert seen == {"sleeping_beauty": (0, 750), "snow_white": (3000, 4750), "ariel": (3250, 5000)}


def test_a_plan_renews_by_the_clock(company: Company, account_id: str) -> None:
    to(company, "2030-01-31T10:00:00Z")
    assert change(company, account_id, company.plan(**BASIC)).status == 200
    use(company, account_id, 300)
    assert shown(company, account_id)["next_plan_renewal"].startswith("2030-03-01 10:00:0")
    to(company, "2030-03-02T00:00:00Z")
    assert amounts(company, account_id) == {"USD": 0, "tokens": 1000}
    assert shown(company, account_id)["next_plan_renewal"].startswith("2030-04-01 10:00:0")
    assert [reason for reason, _, _ in charges(company, account_id)] == ["plan_start", "plan_renewal"]


def test_an_account_made_with_a_plan_is_not_left_behind(company: Company) -> None:
    plan_id = company.plan(**BASIC)
    body = {"name": "Ada", "email": "ada@example.com", "plan_id": plan_id}
    before = len(company.call("GET", "/v1/companies/{company}/accounts").data)
    refused = company.call("POST", "/v1/companies/{company}/accounts", body)
    assert (refused.status, refused.code) == (402, "payment_method_required")
    declined = company.call("POST", "/v1/companies/{company}/accounts", {**body, "token": "tok_chargeCustomerFail"})
    assert (declined.status, declined.code) == (402, "payment_failed")
    assert len(company.call("GET", "/v1/companies/{company}/accounts").data) == before
    made = company.call("POST", "/v1/companies/{company}/accounts", {**body, "token": "tok_visa"})
    assert (made.status, made.data["plan_status"]) == (200, "ACTIVE")
    assert amounts(company, made.data["id"]) == {"USD": 0, "tokens": 1000}


def test_a_grant_ends_at_its_date_swept_or_not(company: Company) -> None:
    account_id = company.account(tokens=0)
    now = company.call("GET", "/v1/companies/{company}/clock").data["now"]
    day = now[:10]
    company.grant(account_id, 100, "tokens", expires_at=f"{int(day[:4]) + 1}{day[4:]}T00:00:00Z", reason="goodwill")
    use(company, account_id, 30)
    assert company.balance(account_id, "tokens")["amount"] == 70
    to(company, f"{int(day[:4]) + 1}{day[4:]}T00:00:00Z")
    assert company.balance(account_id, "tokens")["amount"] == 0
    gated = {"type": "USE", "cost_override_amount": 1, "cost_override_denomination": "tokens", "gate_on_balance": True}
    assert company.send(account_id, gated).status == 402
    listed = company.call("GET", f"/v1/accounts/{account_id}/balance/tokens/grants").data
    assert [(grant["amount"], grant["amount_left"], grant["closed_at"] is not None) for grant in listed] == [
        (100, 70, True)
    ]


def test_a_plan_fills_its_balances_by_itself(company: Company, account_id: str) -> None:
    refill = {"auto_refill_amount": 100, "auto_refill_threshold": 50, "overage_charge_amount": 2}
    plan_id = company.plan(balances={"tokens": {"amount": 60, **refill}})
    company.start(account_id, plan_id)
    assert company.balance(account_id, "tokens")["threshold"] == 50
    use(company, account_id, 20)
    forward(company, 0.001)
    assert amounts(company, account_id)["tokens"] == 140
    assert charges(company, account_id)[-1] == ("threshold_refill", "succeeded", 200)
    company.start(account_id, company.plan(**BASIC), scheme="ariel")
    assert company.balance(account_id, "tokens")["threshold"] is None


def test_a_year_bought_at_once_is_filled_every_month(company: Company, account_id: str) -> None:
    to(company, "2031-01-15T00:00:00Z")
    yearly = {"MONTHLY": {"amount": 1000}, "YEARLY": {"amount": 10_000}}
    plan_id = company.plan(renewals=yearly, refill_cadence="MONTHLY", balances={"tokens": {"amount": 1000}})
    company.start(account_id, plan_id, cadence="yearly")
    for month in range(2, 13):
        use(company, account_id, 10 * month)
        to(company, f"2031-{month:02}-15T00:00:01Z")
        assert amounts(company, account_id)["tokens"] == 1000
    assert charges(company, account_id) == [("plan_start", "succeeded", 10_000)]
    to(company, "2032-01-15T00:00:01Z")
    assert charges(company, account_id)[1:] == [("plan_renewal", "succeeded", 10_000)]


def test_what_overage_owes_is_charged_with_the_renewal(company: Company, account_id: str) -> None:
    to(company, "2032-02-01T00:00:00Z")
    balances = {
        "storage_gb": {"amount": 10, "overage_charge_amount": 100},
        "compute_minutes": {"amount": 60, "overage_charge_amount": 50},
    }
    company.start(account_id, company.plan(balances=balances))
    use(company, account_id, 12, "storage_gb")
    use(company, account_id, 61, "compute_minutes")
    assert amounts(company, account_id) == {"USD": -250, "compute_minutes": 0, "storage_gb": 0}
    to(company, "2032-03-01T00:00:01Z")
    assert charges(company, account_id)[-1] == ("plan_renewal", "succeeded", 1250)
    assert amounts(company, account_id) == {"USD": 0, "compute_minutes": 60, "storage_gb": 10}
    newest = company.call("GET", f"/v1/accounts/{account_id}/plan/history").data[0]
    assert [(line["kind"], line["amount"]) for line in newest["lines"]] == [("plan", 1000), ("owed", 250)]


def test_what_is_owed_when_a_plan_ends_is_asked_for(company: Company, account_id: str) -> None:
    company.start(account_id, company.plan(balances={"gb": {"amount": 1, "overage_charge_amount": 100}}))
    use(company, account_id, 4, "gb")
    path = f"/v1/accounts/{account_id}/cancelplan"
    preview = company.call("POST", path, {"at_period_end": False, "preview": True}).data
    assert (preview["charge"], [line["kind"] for line in preview["lines"]]) == (300, ["owed"])
    ended = company.call("POST", path, {"at_period_end": False})
    assert (ended.status, ended.data["plan_status"]) == (200, "CANCELLED")
    forward(company, 0.001)
    assert charges(company, account_id)[-1] == ("plan_end", "succeeded", 300)
    assert amounts(company, account_id) == {"USD": 0, "gb": 0}


def test_a_plan_ends_though_nothing_can_be_charged(company: Company) -> None:
    account_id = company.account()
    company.start(
        account_id,
        company.plan(renewals={"MONTHLY": {"amount": 0}}, balances={"gb": {"amount": 1, "overage_charge_amount": 100}}),
    )
    use(company, account_id, 4, "gb")
    ended = company.call("POST", f"/v1/accounts/{account_id}/cancelplan", {"at_period_end": False})
    assert (ended.status, ended.data["plan_status"]) == (200, "CANCELLED")
    assert amounts(company, account_id)["USD"] == -300


def test_every_movement_of_a_plan_names_its_cause(company: Company, account_id: str) -> None:
    company.start(account_id, company.plan(**BASIC))
    use(company, account_id, 250)
    company.start(account_id, company.plan(**PRO), scheme="ariel")
    company.grant(account_id, 5, "tokens")
    steps = [step["id"] for step in company.call("GET", f"/v1/accounts/{account_id}/plan/history").data]
    payments = [payment["id"] for payment in company.call("GET", f"/v1/accounts/{account_id}/payments").data]
    grants = [grant["id"] for grant in company.call("GET", f"/v1/accounts/{account_id}/balance/tokens/grants").data]
    for movement in company.call("GET", f"/v1/accounts/{account_id}/transactions").data:
        kind, cause = movement["type"], movement["cause_id"]
        known = {"EVENT": [None], "PAYMENT": payments, "GRANT": grants}.get(kind, steps)
        assert cause in known, movement


def test_a_refill_that_is_modified_names_its_payment(company: Company, account_id: str) -> None:
    path = f"/v1/accounts/{account_id}/balance/tokens/autorefill"
    monthly = {"amount": 1000, "usd_charge": 1000, "refill_monthly": True}
    assert company.call("PUT", path, monthly).status == 200
    use(company, account_id, 750)
    more = {"denomination": "tokens", "amount": 5000, "usd_charge": 4000}
    preview = company.call("POST", f"/v1/accounts/{account_id}/modifymidmonth", {**more, "preview": True}).data
    done = company.call("POST", f"/v1/accounts/{account_id}/modifymidmonth", more).data
    assert (preview["amount_to_charge"], done["charged"], done["credit"], done["balance"]["amount"]) == (
        *(3750, 3750, 250),
        5000,
    )
    newest = company.call("GET", f"/v1/accounts/{account_id}/payments").data[0]["id"]
    moved = company.call("GET", f"/v1/accounts/{account_id}/transactions").data[:2]
    assert [(movement["amount"], movement["cause_id"]) for movement in moved] == [(-250, newest), (5000, newest)]


def test_moving_accounts_leaves_alone_who_leaves_or_changes(company: Company) -> None:
    basic, pro = company.plan(**BASIC), company.plan(**PRO)
    leaving, changing, staying = (company.account() for _ in range(3))
    for account_id in (leaving, changing, staying):
        company.card(account_id)
        company.start(account_id, pro)
    assert company.call("POST", f"/v1/accounts/{leaving}/cancelplan").status == 200
    company.start(changing, basic, scheme="sleeping_beauty")
    assert company.call("PUT", f"/v1/plans/{pro}", {"renewals": {"MONTHLY": {"amount": 9900}}}).status == 200
    moved = company.call("POST", f"/v1/plans/{pro}/move")
    assert (moved.status, moved.data) == (200, {"moved": 1, "refused": {}})
    assert company.call("POST", f"/v1/plans/{pro}/move").data["moved"] == 0
    forward(company, 32)
    assert [charges(company, account_id)[-1][2] for account_id in (leaving, changing, staying)] == [4000, 1000, 9900]
    assert shown(company, leaving)["plan_status"] == "CANCELLED"


def test_what_was_refunded_is_not_given_back_again(company: Company, account_id: str) -> None:
    company.start(account_id, company.plan(**BASIC))
    payment_id = company.call("GET", f"/v1/accounts/{account_id}/payments").data[0]["id"]
    refund = company.call("POST", f"/v1/payments/{payment_id}/refund", {"amount": 600})
    assert refund.status == 200, refund
    assert amounts(company, account_id)["USD"] == 0
    ended = {"at_period_end": False, "prorate": True}
    preview = company.call("POST", f"/v1/accounts/{account_id}/cancelplan", {**ended, "preview": True}).data
    assert 390 <= preview["credit"] <= 400
    assert company.call("POST", f"/v1/accounts/{account_id}/cancelplan", ended).status == 200


def test_a_plan_in_tokens_that_waits_for_a_card_waits_for_tokens_too(company: Company) -> None:
    plan_id = company.plan(renewal_denomination="credits", renewals={"MONTHLY": {"amount": 50}})
    body = {"name": "Ada", "email": "ada@example.com", "plan_id": plan_id, "enable_card_collector": 1}
    made = company.call("POST", "/v1/companies/{company}/accounts", body).data
    assert made["plan_status"] == "PENDING_CARD"
    company.card(made["id"])
    forward(company, 0.001)
    assert shown(company, made["id"])["plan_status"] == "PENDING_CARD"
    company.grant(made["id"], 80)
    forward(company, 0.1)
    assert shown(company, made["id"])["plan_status"] == "ACTIVE"
    assert amounts(company, made["id"])["credits"] == 30


def test_what_is_agreed_holds_for_a_version_that_is_to_come(company: Company, account_id: str) -> None:
    plan_id = company.start(account_id, company.plan(**BASIC))
    company.call("PUT", f"/v1/plans/{plan_id}", {"renewals": {"MONTHLY": {"amount": 2000}}})
    assert company.call("POST", f"/v1/plans/{plan_id}/move").data["moved"] == 1
    agreed = {"renewals": {"MONTHLY": {"amount": 700}}}
    assert company.call("PUT", f"/v1/accounts/{account_id}/plan/overrides", agreed).status == 200
    forward(company, 32)
    assert charges(company, account_id)[-1] == ("plan_renewal", "succeeded", 700)


def test_what_was_given_back_is_not_refunded_too(company: Company, account_id: str) -> None:
    company.start(account_id, company.plan(**BASIC))
    payment_id = company.call("GET", f"/v1/accounts/{account_id}/payments").data[0]["id"]
    company.start(account_id, company.plan(renewals={"MONTHLY": {"amount": 0}}), scheme="ariel")
    credit = amounts(company, account_id)["USD"]
    assert 990 <= credit <= 1000
    refused = company.call("POST", f"/v1/payments/{payment_id}/refund", {"amount": 11})
    assert (refused.status, refused.code) == (422, "refund_exceeds_payment")


def test_a_voided_invoice_gives_nothing_back_a_second_time(company: Company) -> None:
    account_id = company.account()
    company.call("PUT", f"/v1/accounts/{account_id}/invoicing", {"currency": "USD"})
    company.start(account_id, company.plan(**PRO))
    draft = company.call("POST", f"/v1/accounts/{account_id}/invoices", {"currency": "USD"})
    invoice_id = draft.data["id"]
    for verb in ("finalize", "void"):
        assert company.call("POST", f"/v1/invoices/{invoice_id}/{verb}").status == 200
    assert amounts(company, account_id)["USD"] == 0
    ended = company.call("POST", f"/v1/accounts/{account_id}/cancelplan", {"at_period_end": False, "prorate": True})
    assert (ended.status, amounts(company, account_id)["USD"]) == (200, 0)


def test_units_that_end_with_a_change_do_not_pay_for_it(company: Company) -> None:
    account_id = company.account()
    company.start(account_id, company.plan(renewals={"MONTHLY": {"amount": 0}}, balances={"USD": {"amount": 5000}}))
    refused = change(company, account_id, company.plan(**PRO), scheme="ariel")
    assert (refused.status, refused.code) == (402, "payment_method_required")


def test_little_by_little_is_not_for_nothing(company: Company) -> None:
    account_id = company.account()
    seats = {"seats": {"amount": 0, "variable_amount_cost": 40}}
    plan_id = company.start(account_id, company.plan(renewals={"MONTHLY": {"amount": 0}}, balances=seats))
    more = {"plan_variable_amounts": {"seats": 1}, "scheme": "snow_white"}
    refused = change(company, account_id, plan_id, **more)
    assert (refused.status, refused.code) == (402, "payment_method_required")
    company.card(account_id)
    for number in (1, 2, 3):
        company.start(account_id, plan_id, **{**more, "plan_variable_amounts": {"seats": number}})
    # 40 were carried, then 80 charged, and 40 are carried again.
    assert [amount for _, _, amount in charges(company, account_id)] == [80]
    assert amounts(company, account_id) == {"USD": -40, "seats": 3}
