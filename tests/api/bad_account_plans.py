"""Bad input to the plans of accounts and to grants: rows as in ``bad_input``.

``{account}`` is on no plan; ``{subscriber}`` is on ``{plan}``, which sells 10 of ``storage`` for 1,000 USD a month.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.api.bad_input import Bad
from tests.api.bad_money import ACCOUNT, MOST, STATUS, bodies, names, nowhere, numbers

SUBSCRIBER: Final = "/v1/accounts/{subscriber}"
CHANGE: Final = ACCOUNT + "/changeplan"
MODIFY: Final = ACCOUNT + "/modifymidmonth"
CANCEL: Final = ACCOUNT + "/cancelplan"
OVERRIDES: Final = ACCOUNT + "/plan/overrides"
GRANTS: Final = ACCOUNT + "/balance/credits/grants"
NEW: Final = "/v1/companies/{company}/accounts"
PERSON: Final = {"name": "Eve", "email": "eve@example.com"}
MORE: Final = {"denomination": "storage", "amount": 20, "usd_charge": 1800}
CONFLICTS: Final = dict.fromkeys(
    ("no_plan", "plan_not_active", "plan_not_paused", "nothing_scheduled", "no_refill", "grant_closed"), 409
)


def at(
    name: str, method: str, path: str, body: object, code: str = "invalid_field", /, field: str | None = None
) -> Bad:
    """A request that is refused with 422, or with the status that goes with the code."""
    status = {**STATUS, **CONFLICTS, "payment_method_required": 402}.get(code, 422)
    return Bad(f"account plans: {name}", method, path, body, status, code, {}, field)


def asked(name: str, code: str = "invalid_field", /, field: str | None = None, **fields: object) -> Iterator[Bad]:
    """A plan that does not fit, for an account that is there, one that is to be, and on the links of both."""
    yield at(f"change, {name}", "POST", CHANGE, {"plan_id": "{plan}", **fields}, code, field)
    given = {"plan_renewal_cadence" if key == "cadence" else key: value for key, value in fields.items()}
    yield at(f"new account, {name}", "POST", NEW, {**PERSON, "plan_id": "{plan}", **given}, code)
    yield at(f"link, {name}", "POST", ACCOUNT + "/payment_links", {"plan_id": "{plan}", **given}, code)
    path = "/v1/companies/{company}/payment_links"
    yield at(f"new link, {name}", "POST", path, {**PERSON, "plan_id": "{plan}", **given}, code)


PLAN_ROWS: Final = (
    *bodies("change", "POST", CHANGE),
    *nowhere("change", "POST", CHANGE, {"plan_id": "{plan}"}),
    *asked("unknown plan", field="plan_id", plan_id="p_00000000"),
    *asked("no plan's id", field="plan_id", plan_id="{account}"),
    *asked("archived plan", field="plan_id", plan_id="{archived}"),
    *asked("plan a number", field="plan_id", plan_id=5),
    *asked("cadence not sold", field="cadence", cadence="yearly"),
    *asked("cadence unknown", field="cadence", cadence="daily"),
    *asked("cadence a number", field="cadence", cadence=1),
    *asked("units of what cannot be chosen", plan_variable_amounts={"storage": 5}),
    *asked("units of what is not there", plan_variable_amounts={"seats": 5}),
    *asked("units below zero", "out_of_range", plan_variable_amounts={"storage": -1}),
    *asked("units beyond all", "out_of_range", plan_variable_amounts={"storage": MOST + 1}),
    *asked("units a fraction", plan_variable_amounts={"storage": 1.5}),
    *asked("units as text", plan_variable_amounts={"storage": "5"}),
    *asked("units of a name with a space", plan_variable_amounts={"a b": 5}),
    *asked("units of many", "out_of_range", plan_variable_amounts={f"d{number}": 1 for number in range(51)}),
    *asked("units a list", plan_variable_amounts=[5]),
    at("change: no plan", "POST", CHANGE, {}, "missing_field", "plan_id"),
    at("new account: units without a plan", "POST", NEW, {**PERSON, "plan_variable_amounts": {"storage": 1}}),
    at("new account: no card", "POST", NEW, {**PERSON, "plan_id": "{plan}"}, "payment_method_required"),
    at("change: scheme unknown", "POST", CHANGE, {"plan_id": "{plan}", "scheme": "cinderella"}, field="scheme"),
    at("change: scheme a number", "POST", CHANGE, {"plan_id": "{plan}", "scheme": 1}, field="scheme"),
    at("change: preview as text", "POST", CHANGE, {"plan_id": "{plan}", "preview": "yes"}, field="preview"),
    *(
        at(f"{name} without a plan", method, ACCOUNT + path, body, "no_plan")
        for name, method, path, body in (
            ("end", "POST", "/cancelplan", {}),
            ("pause", "POST", "/pauseplan", None),
            ("resume", "POST", "/resumeplan", None),
            ("renew", "POST", "/renewplan", None),
            ("drop", "DELETE", "/plan/scheduled", None),
            ("read", "GET", "/plan", None),
            ("agree", "PUT", "/plan/overrides", {"spend_cap": 5}),
        )
    ),
    at("resume what runs", "POST", SUBSCRIBER + "/resumeplan", None, "plan_not_paused"),
    at("renew what runs", "POST", SUBSCRIBER + "/renewplan", None, "plan_not_active"),
    at("drop nothing", "DELETE", SUBSCRIBER + "/plan/scheduled", None, "nothing_scheduled"),
    *bodies("end", "POST", CANCEL, can_be_none=True),
    at("end: prorated at the end", "POST", SUBSCRIBER + "/cancelplan", {"prorate": True}, field="prorate"),
    at("end: prorate as text", "POST", SUBSCRIBER + "/cancelplan", {"prorate": "yes"}, field="prorate"),
    *nowhere("end", "POST", CANCEL, {}),
    *nowhere("pause", "POST", ACCOUNT + "/pauseplan", None),
    *nowhere("plan", "GET", ACCOUNT + "/plan", None),
    *nowhere("history", "GET", ACCOUNT + "/plan/history", None),
)

MONEY_ROWS: Final = (
    *bodies("modify", "POST", MODIFY),
    *nowhere("modify", "POST", MODIFY, MORE),
    *numbers("modify", "POST", MODIFY, MORE, "amount", least=1, can_be_null=False),
    *numbers("modify", "POST", MODIFY, MORE, "usd_charge", least=0, can_be_null=False),
    at("modify: no refill", "POST", MODIFY, {**MORE, "denomination": "credits"}, "no_refill"),
    at("modify: less", "POST", SUBSCRIBER + "/modifymidmonth", {**MORE, "amount": 10}, field="amount"),
    at(
        "modify: too little for a card",
        "POST",
        SUBSCRIBER + "/modifymidmonth",
        {**MORE, "usd_charge": 49},
        "out_of_range",
    ),
    *bodies("overrides", "PUT", OVERRIDES),
    at("overrides: event prices", "PUT", SUBSCRIBER + "/plan/overrides", {"event_prices": []}, field="event_prices"),
    at("overrides: another currency", "PUT", SUBSCRIBER + "/plan/overrides", {"renewal_denomination": "EUR"}),
    at(
        "overrides: no renewal", "PUT", SUBSCRIBER + "/plan/overrides", {"renewals": {"MONTHLY": None}}, "missing_field"
    ),
    at("overrides: below zero", "PUT", SUBSCRIBER + "/plan/overrides", {"spend_cap": -1}, "out_of_range", "spend_cap"),
    *bodies("grant", "POST", GRANTS),
    *nowhere("grant", "POST", GRANTS, {"amount": 5}),
    *nowhere("grants", "GET", GRANTS, None),
    *numbers("grant", "POST", GRANTS, {"amount": 5}, "amount", least=1, can_be_null=False),
    *numbers("grant", "POST", GRANTS, {"amount": 5}, "priority", least=0, most=255, can_be_null=False),
    *numbers("grant", "POST", GRANTS, {"amount": 5}, "price", least=0, can_be_null=False),
    *names("grant", "POST", GRANTS, {"amount": 5}, "price_denomination", 64),
    at("grant: no amount", "POST", GRANTS, {}, "missing_field", "amount"),
    at("grant: ended", "POST", GRANTS, {"amount": 5, "expires_at": "2020-01-01T00:00:00Z"}, field="expires_at"),
    at("grant: no zone", "POST", GRANTS, {"amount": 5, "expires_at": "2090-01-01T00:00:00"}, "zone_required"),
    at("grant: end a number", "POST", GRANTS, {"amount": 5, "expires_at": 5}, field="expires_at"),
    at("grant: reason empty", "POST", GRANTS, {"amount": 5, "reason": ""}, field="reason"),
    at("grant: reason too long", "POST", GRANTS, {"amount": 5, "reason": "x" * 501}, field="reason"),
    at("grant: unknown id", "DELETE", GRANTS + "/g_000000000000000000", None, "not_found"),
    at("grant: no id", "DELETE", GRANTS + "/{event}", None, "not_found"),
)

ACCOUNT_PLANS: Final = (*PLAN_ROWS, *MONEY_ROWS)
