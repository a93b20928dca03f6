"""Settings: what is shown, what each form does to the API's answer, and that a secret is shown once."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any

import asyncpg
import pytest

from tenuto.server import Server
from tests.client import Client, Company
from tests.console.colleagues import colleague
from tests.console.visitor import Visitor

HOSTILE = "<script>{{7*7}}</script>"
AT = "/control/settings"
SECTIONS = (
    *("keys", "keys/new", "stripe", "webhooks", "webhooks/new", "credit", "invoicing", "issuers", "issuers/new"),
    *("organizations", "clock", "company"),
)


def of_company(company: Company) -> dict[str, object]:
    """The company as the API tells it."""
    found: dict[str, object] = company.call("GET", "/v1/companies/{company}").data
    return found


def secret_of(text: str) -> str:
    found = re.search(r'id="secret" value="([^"]+)"', text)
    assert found is not None, text
    return found[1]


@pytest.fixture
def reader(visitor: Visitor) -> Visitor:
    """A colleague of the visitor who may only read."""
    return colleague(visitor, "read_only")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_is_there_with_its_place_in_the_rail(visitor: Visitor, section: str) -> None:
    seen = visitor.visit(f"{AT}/{section}")
    assert seen.status == 200, seen
    assert seen.text.count("<h1>") == 1
    assert seen.text.count('aria-current="page"') >= 2, "the main navigation and the rail"


def test_settings_lead_to_the_first_section_that_the_role_may_see(visitor: Visitor, reader: Visitor) -> None:
    assert visitor.visit(AT, follow=False).headers["location"] == f"{AT}/keys"
    assert reader.visit(AT, follow=False).headers["location"] == f"{AT}/company"


def test_who_may_only_read_sees_settings_and_no_button(reader: Visitor) -> None:
    for section in ("stripe", "credit", "invoicing", "company", "issuers", "webhooks", "clock"):
        seen = reader.visit(f"{AT}/{section}")
        assert seen.status == 200, section
        assert "<button>Save</button>" not in seen.text
    assert reader.visit(f"{AT}/keys").status == 403
    assert reader.send(f"{AT}/company", name="Mine", came_from=f"{AT}/company").words.count("cannot do this") == 1


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_works_until_it_is_revoked(visitor: Visitor) -> None:
    made = visitor.send(f"{AT}/keys/new", name=HOSTILE, mode="test", scope=["company:read", "accounts:read"])
    secret = secret_of(made.text)
    theirs = Company(visitor.company.client, visitor.company.id, secret)
    assert theirs.call("GET", "/v1/companies/{company}").status == 200
    assert theirs.call("GET", "/v1/companies/{company}/keys").code == "insufficient_scope"

    listed = visitor.visit(f"{AT}/keys")
    assert secret not in listed.text
    assert HOSTILE in listed.words.replace("  ", " ")
    assert HOSTILE not in listed.text
    key = next(
        row for row in visitor.company.call("GET", "/v1/companies/{company}/keys").data if row["name"] == HOSTILE
    )
    assert f"{AT}/keys/{key['id']}/revoke" in listed.text

    assert "The key is revoked" in visitor.send(f"{AT}/keys/{key['id']}/revoke").words
    assert theirs.call("GET", "/v1/companies/{company}").status == 401
    assert f"{AT}/keys/{key['id']}/revoke" not in visitor.visit(f"{AT}/keys").text


def test_the_first_live_key_opens_the_live_half(visitor: Visitor) -> None:
    made = visitor.send(f"{AT}/keys/new", name="Shop", mode="live", scope=["company:read"])
    live = Company(visitor.company.client, visitor.company.id, secret_of(made.text))
    assert of_company(live)["mode"] == "live"


def test_a_key_without_a_scope_is_not_made_and_what_was_typed_stays(visitor: Visitor) -> None:
    seen = visitor.send(f"{AT}/keys/new", name="Nothing at all", mode="live")
    assert seen.status == 422
    assert "Scopes: holds at least one scope." in seen.words
    assert 'value="Nothing at all"' in seen.text
    assert len(visitor.company.call("GET", "/v1/companies/{company}/keys").data) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("keys/new", {"name": "Mine", "mode": "test", "scope": "company:read"}),
        ("stripe", {"stripe_publishable_key": "pk_test_abcdefgh12345678"}),
        ("tokens", {"organization_id": "org-1", "life": "1", "life_unit": "minutes"}),
        ("tokens/revoke", {}),
    ],
)
async def test_what_touches_secrets_asks_for_the_password_again(
    visitor: Visitor, service: Server, path: str, fields: dict[str, Any]
) -> None:
    rows = await asyncpg.connect(service.dsn)
    try:
        await rows.execute(
            "update console_session set authenticated_at = authenticated_at - interval '30 minutes' where digest = $1",
            hashlib.sha256(visitor.cookies["tenuto_session"].encode()).digest(),
        )
    finally:
        await rows.close()
    before = of_company(visitor.company)
    asked = visitor.send(f"{AT}/{path}", **fields)
    assert "Your password, please" in asked.words
    assert of_company(visitor.company) == before
    assert len(visitor.company.call("GET", "/v1/companies/{company}/keys").data) == 1


# --- Stripe -----------------------------------------------------------------------------------------------------------


def test_stripe_is_told_by_hints_and_the_address_is_this_half_s(visitor: Visitor) -> None:
    seen = visitor.visit(f"{AT}/stripe")
    assert "The sandbox charges cards now" in seen.words
    assert f"/v1/companies/{visitor.company.id}/stripe/test" in seen.text
    assert "SetupIntents" in seen.words
    secret = "whsec_" + "7" * 32
    saved = visitor.send(
        f"{AT}/stripe", stripe_publishable_key="pk_test_abcdefgh12345678", stripe_webhook_secret=secret
    )
    assert "Saved." in saved.words
    assert secret not in saved.text
    assert of_company(visitor.company)["stripe_publishable_key"] == "pk_test_abcdefgh12345678"
    assert "Saved." in visitor.send(f"{AT}/stripe", drop=["stripe_webhook_secret"]).words
    assert of_company(visitor.company)["stripe_webhook_secret"] is None


def test_a_key_of_the_other_half_is_refused_and_not_shown_again(visitor: Visitor) -> None:
    wrong = "sk_live_" + "9" * 24
    seen = visitor.send(f"{AT}/stripe", stripe_key=wrong, stripe_publishable_key="pk_test_kept")
    assert seen.status == 422
    assert "Stripe key: in test mode it is" in seen.words
    assert wrong not in seen.text
    assert 'value="pk_test_kept"' in seen.text


# --- credit and invoicing ---------------------------------------------------------------------------------------------

CREDIT: dict[str, Any] = {
    "default_credit_limit": "12.50",
    "per_hour": "3",
    "per_day": "",
    "amount_per_day": "100",
    "scheme": "ariel",
    "failed_renewal": "pause",
}


def level(kind: str, value: str, action: str = "notify", flag: str = "", of: str = "") -> dict[str, str]:
    return {"kind": kind, "value": value, "of": of, "action": action, "flag": flag}


def rows(*given: dict[str, str]) -> dict[str, Any]:
    """Repeated rows as a browser sends them."""
    return {name: [row[name] for row in given] for name in given[0]}


SHIPPED = (
    level("threshold_percentage", "90"),
    level("credit_limit_percentage", "150", "flag", "over_credit_limit"),
    level("credit_limit_percentage", "200", "block"),
)


def test_credit_is_typed_in_money_and_kept_in_cents(visitor: Visitor) -> None:
    assert "Saved." in visitor.send(f"{AT}/credit", **CREDIT, **rows(*SHIPPED)).words
    found = of_company(visitor.company)
    assert found["default_credit_limit"] == 1250
    assert found["refill_caps"] == {"per_hour": 3, "per_day": None, "amount_per_day": 10_000}
    assert found["plans"] == {"scheme": "ariel", "failed_renewal": "pause"}
    assert 'name="default_credit_limit" value="12.50"' in visitor.visit(f"{AT}/credit").text


def test_levels_are_rows_and_go_back_to_those_that_are_shipped(visitor: Visitor) -> None:
    mine = level("level", "50", of="tokens")
    empty = level("threshold_percentage", "")
    assert "Saved." in visitor.send(f"{AT}/credit", **CREDIT, **rows(*SHIPPED, mine, empty)).words
    levels = of_company(visitor.company)["levels"]
    assert isinstance(levels, list)
    assert len(levels) == 4
    assert (levels[3]["level"], levels[3]["denomination"], levels[3]["action"]) == (50, "tokens", "notify")
    assert "shipped" in visitor.send(f"{AT}/credit/levels").words
    shipped = of_company(visitor.company)["levels"]
    assert isinstance(shipped, list)
    assert len(shipped) == 3


def test_a_level_that_cannot_be_comes_back_with_its_place_and_what_was_typed(visitor: Visitor) -> None:
    wrong = level("level", "77", "block")
    seen = visitor.send(f"{AT}/credit", **CREDIT, **rows(*SHIPPED, wrong))
    assert seen.status == 422
    assert "Levels 4, action: is notify for levels of a balance." in seen.words
    assert 'value="77"' in seen.text
    assert of_company(visitor.company)["default_credit_limit"] == 0


INVOICING: dict[str, Any] = {
    "prefix": "A-",
    "currency": "eur",
    "terms_days": "14",
    "grace": "2",
    "grace_unit": "days",
    "seller_name": HOSTILE,
    "seller_address": "1 Road",
    "seller_tax_id": "T",
    "seller_email": "",
    "footer": "Thanks",
}


def test_invoicing_and_its_ladder_are_told_in_words(visitor: Visitor) -> None:
    taxes = rows({"tax": "VAT", "rate": "7,7", "how": "included"}, {"tax": "", "rate": "", "how": "added"})
    steps = rows({"days": "3", "step": "remind"}, {"days": "30", "step": "credit_block"}, {"days": "", "step": "pause"})
    saved = visitor.send(f"{AT}/invoicing", **INVOICING, **taxes, **steps)
    assert saved.status == 200, saved.words
    assert "14 days later it is due" in saved.words
    assert "30 days after that the account's credit is blocked" in saved.words
    assert HOSTILE not in saved.text
    found = of_company(visitor.company)["invoicing"]
    assert isinstance(found, dict)
    assert found["taxes"] == [{"name": "VAT", "rate": "7.7", "inclusive": True}]
    assert found["dunning"] == [{"days": 3, "action": "remind"}, {"days": 30, "action": "credit_block"}]
    assert (found["grace_seconds"], found["currency"], found["terms_days"]) == (172_800, "EUR", 14)
    assert found["seller"]["name"] == HOSTILE


def test_invoicing_that_is_refused_keeps_what_was_typed(visitor: Visitor) -> None:
    seen = visitor.send(f"{AT}/invoicing", **{**INVOICING, "currency": "QQQ"}, tax=["VAT"], rate=["7"], how=["added"])
    assert seen.status == 422
    assert "Currency: is a currency of ISO 4217" in seen.words
    assert 'value="VAT"' in seen.text
    assert 'value="A-"' in seen.text


# --- company and clock ------------------------------------------------------------------------------------------------

COMPANY: dict[str, Any] = {
    "name": HOSTILE,
    "time_zone": "Asia/Tokyo",
    "late_event": "3",
    "late_event_unit": "days",
    "ahead_event": "5",
    "ahead_event_unit": "minutes",
    "prefixes": "https://api.example.com/v1/\n",
}


def test_the_company_is_named_and_timed(visitor: Visitor) -> None:
    kinds = rows({"billable": "Server", "denomination": "servers"}, {"billable": "Note", "denomination": ""})
    seen = visitor.send(f"{AT}/company", **COMPANY, **kinds)
    assert "Saved." in seen.words, seen.words
    assert HOSTILE not in seen.text
    found = of_company(visitor.company)
    assert (found["name"], found["time_zone"]) == (HOSTILE, "Asia/Tokyo")
    assert (found["late_event_seconds"], found["ahead_event_seconds"]) == (259_200, 300)
    assert found["billables"] == {"Server": {"denomination": "servers"}, "Note": {"free": True}}
    again = visitor.visit(f"{AT}/company").text
    assert 'name="late_event" value="3"' in again


def test_a_zone_that_there_is_not_comes_back_with_what_was_typed(visitor: Visitor) -> None:
    seen = visitor.send(f"{AT}/company", **{**COMPANY, "time_zone": "Nowhere", "name": "Kept"})
    assert seen.status == 422
    assert "Time zone: is an IANA name" in seen.words
    assert 'value="Kept"' in seen.text
    assert of_company(visitor.company)["name"] == "Acme"


def test_the_test_clock_is_moved_by_days_and_hours_and_to_a_date(visitor: Visitor) -> None:
    seen = visitor.send(f"{AT}/clock", days="2", hours="3")
    assert seen.status == 200
    assert "2 days, 3 hours ahead of the real time" in seen.words
    assert "Nothing was due." in seen.words
    assert "its clock is ahead" in seen.words, "the head of the page knows the new time at once"
    assert visitor.send(f"{AT}/clock", until="2099-01-01T00:00").status == 200
    now = visitor.company.call("GET", "/v1/companies/{company}/clock").data["now"]
    assert now.startswith("2099-01-01")
    back = visitor.send(f"{AT}/clock", until="2031-01-01T00:00")
    assert back.status == 422
    assert visitor.send(f"{AT}/clock").status == 422


def test_what_fell_due_is_told_in_words(visitor: Visitor) -> None:
    company = visitor.company
    account = company.account(USD=0)
    company.call("PUT", f"/v1/accounts/{account}/invoicing", {"currency": "USD"})
    company.send(account, type="USED", cost_override_amount=300, cost_override_denomination="USD")
    assert "invoices cut" in visitor.send(f"{AT}/clock", days="40").words


def test_live_time_is_real(visitor: Visitor) -> None:
    visitor.send(f"{AT}/keys/new", name="Shop", mode="live", scope=["company:read"])
    visitor.send("/control/mode", mode="live")
    seen = visitor.visit(f"{AT}/clock")
    assert "Live time is real" in seen.words
    assert 'name="days"' not in seen.text
    assert visitor.send(f"{AT}/clock", days="1").status == 422


# --- issuers, tokens, organizations -----------------------------------------------------------------------------------

ISSUER_NAME = f"https://auth-{secrets.token_hex(4)}.example.com/"
"""One that no other company on the same service believes."""
ISSUER: dict[str, Any] = {
    "issuer": ISSUER_NAME,
    "audience": "https://billing.example.com",
    "algorithm": "HS256",
    "source": "secret",
    "secret_encoding": "text",
    "max_life": "1",
    "max_life_unit": "hours",
}
SHARED = "hK8vQ2xN5rT9wZ3bM7cD1fG6jL4pS0yU"


def test_an_issuer_is_believed_changed_and_believed_no_more(visitor: Visitor) -> None:
    seen = visitor.send(f"{AT}/issuers/new", **ISSUER, secret=SHARED, creates_organizations="on")
    assert seen.status == 200, seen.words
    assert "Tokens of this issuer are believed from now on." in seen.words
    assert SHARED not in seen.text
    found = visitor.company.call("GET", "/v1/companies/{company}/issuers").data[0]
    assert (found["has_secret"], found["max_life_seconds"], found["creates_organizations"]) == (True, 3600, True)
    one = f"{AT}/issuers/{found['id']}"
    assert ISSUER_NAME in visitor.visit(f"{AT}/issuers").words
    assert "Saved." in visitor.send(one, **{**ISSUER, "max_life": "30", "max_life_unit": "minutes"}).words
    changed = visitor.company.call("GET", "/v1/companies/{company}/issuers").data[0]
    assert (changed["max_life_seconds"], changed["has_secret"]) == (1800, True)
    assert "believed no more" in visitor.send(f"{one}/delete").words
    assert visitor.company.call("GET", "/v1/companies/{company}/issuers").data == []


def test_an_issuer_that_is_refused_keeps_what_was_typed_but_the_secret(visitor: Visitor) -> None:
    seen = visitor.send(f"{AT}/issuers/new", **ISSUER, secret="short")
    assert seen.status == 422
    assert 'value="https://billing.example.com"' in seen.text
    assert "short" not in seen.text.replace("a short while", "")
    pasted = visitor.send(f"{AT}/issuers/new", **{**ISSUER, "algorithm": "EdDSA", "source": "keys"}, keys="{oh")
    assert "Keys: take JSON" in pasted.words


def test_a_token_is_minted_once_and_all_are_revoked(visitor: Visitor, service: Server) -> None:
    fields: dict[str, Any] = {
        "organization_id": "org-1",
        "user_id": "",
        "timezone": "UTC",
        "life": "10",
        "life_unit": "minutes",
    }
    token = secret_of(visitor.send(f"{AT}/tokens", **fields, scope=["account:read"]).text)
    bearer = {"authorization": f"Bearer {token}"}
    with Client(*service.address) as client:
        assert client.call("GET", "/v1/account", None, bearer).status != 401
        assert "good any more" in visitor.send(f"{AT}/tokens/revoke").words
        assert client.call("GET", "/v1/account", None, bearer).status == 401
    long = visitor.send(f"{AT}/tokens", **{**fields, "life": "2", "life_unit": "hours"}, scope=["account:read"])
    assert long.status == 422
    assert 'value="org-1"' in long.text


def test_organizations_stand_as_a_tree(visitor: Visitor) -> None:
    assert "There is no organization yet." in visitor.visit(f"{AT}/organizations").words
    account = visitor.company.account()
    place: dict[str, Any] = {"name": "", "owner": "", "parent": "", "account_id": ""}
    visitor.send(f"{AT}/organizations", **{**place, "id": "zeta", "account_id": account})
    visitor.send(f"{AT}/organizations", **{**place, "id": "alpha", "name": HOSTILE, "parent": "zeta"})
    seen = visitor.visit(f"{AT}/organizations")
    assert seen.words.index("zeta") < seen.words.index("└ alpha")
    assert HOSTILE not in seen.text
    assert f'href="/control/accounts/{account}"' in seen.text
    below = visitor.visit(f"{AT}/organizations?parent=zeta")
    assert "alpha" in below.words
    refused = visitor.send(f"{AT}/organizations", **{**place, "id": "zeta", "parent": "alpha"})
    assert refused.status == 422
    assert "is gone" in visitor.send(f"{AT}/organizations/delete", id="alpha").words
