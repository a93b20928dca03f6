"""Bad input to the routes of plans and of the event prices agreed with an account: rows as in ``bad_input``.

``{plan}`` is the caller's, has the code ``taken`` and includes 10 of ``storage``; ``{archived}`` is archived,
``{agreed}`` is a price agreed with the account.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tests.api.bad_input import Bad
from tests.api.bad_money import ACCOUNT, COMPANY, MOST, STATUS, bodies, names, nowhere, numbers, without

PLANS_OF: Final = COMPANY + "/plans"
PLAN: Final = "/v1/plans/{plan}"
AGREED: Final = ACCOUNT + "/event_prices"
NEW: Final = {"name": "Pro", "renewal_denomination": "USD", "renewals": {"MONTHLY": {"amount": 1000}}}
ENTRY: Final = {"denomination": "storage", "amount": 10}
EARLIER: Final = {"charge_amount": 1000, "charge_denomination": "USD", "billing_period": "monthly", "balances": [ENTRY]}
PRICE: Final = {"type": "NEW", "denomination": "credits", "amount": "1"}
STATUSES: Final = {**STATUS, "plan_exists": 409, "plan_archived": 409, "price_exists": 409, "invalid_cursor": 400}

Fields = Mapping[str, object]


def at(
    name: str, method: str, path: str, body: object, code: str = "invalid_field", /, field: str | None = None
) -> Bad:
    """A request that is refused with 422, or with the status that goes with the code."""
    return Bad(f"plans: {name}", method, path, body, STATUSES.get(code, 422), code, {}, field)


def plan(name: str, code: str = "invalid_field", /, field: str | None = None, **fields: object) -> Iterator[Bad]:
    """Terms that do not fit, in a new plan and as a change of one that is there."""
    yield at(f"new, {name}", "POST", PLANS_OF, {**NEW, **fields}, code, field)
    yield at(f"changed, {name}", "PUT", PLAN, fields, code, field)


def balance(name: str, code: str = "invalid_field", /, field: str | None = None, **fields: object) -> Iterator[Bad]:
    """A balance of a plan that does not fit; ``field`` is its field where the path names it."""
    path = None if field is None else f"balances.gb.{field}"
    yield from plan(name, code, field=path, balances={"gb": fields})


def earlier(name: str, code: str = "invalid_field", /, field: str | None = None, **fields: object) -> Bad:
    """A new plan in the earlier shape that does not fit; ``...`` leaves a field out."""
    body = {key: value for key, value in {**EARLIER, **fields}.items() if value is not ...}
    return at(f"earlier shape, {name}", "POST", PLANS_OF, body, code, field)


def priced(name: str, code: str = "invalid_field", /, field: str | None = None, **fields: object) -> Iterator[Bad]:
    """An event price of a plan that does not fit."""
    body = {key: value for key, value in {**PRICE, **fields}.items() if value is not ...}
    path = None if field is None else f"event_prices[1].{field}"
    yield from plan(f"price, {name}", code, field=path, event_prices=[{**PRICE, "type": "OLD"}, body])


HEAD_ROWS: Final = (
    *bodies("plan", "POST", PLANS_OF),
    *bodies("change of a plan", "PUT", PLAN),
    *(at(f"no {field}", "POST", PLANS_OF, without(NEW, field), "missing_field", field) for field in NEW),
    at("nothing", "POST", PLANS_OF, {}, "missing_field", "name"),
    *(row for value in (5, None, True, ["Pro"]) for row in plan(f"name {value!r}", field="name", name=value)),
    *(
        row
        for value in ("", "   ", "x" * 201)
        for row in plan(f"name of {len(value)} characters", field="name", name=value)
    ),
    *plan("name with NUL", "invalid_string", name="a\0b"),
    *names("plan", "POST", PLANS_OF, NEW, "renewal_denomination", 64),
    *names("change of a plan", "PUT", PLAN, {}, "renewal_denomination", 64),
    *names("plan", "POST", PLANS_OF, NEW, "code", 64),
    at("a code that is taken", "POST", PLANS_OF, {**NEW, "code": "taken"}, "plan_exists"),
    at("a code is not changed", "PUT", PLAN, {"code": "other"}, "unknown_field", "code"),
    at("an archived plan is not changed", "PUT", "/v1/plans/{archived}", {"name": "B"}, "plan_archived"),
    *(
        row
        for value in ("weekly", "", "MONTHLYx", "MONTHLY ", 5, True, ["MONTHLY"], "ONE_OFF", "m" * 10_000)
        for row in plan(f"refill_cadence {value!r}"[:60], field="refill_cadence", refill_cadence=value)
    ),
    *plan("refill_cadence YEARLY of a month", field="refill_cadence", refill_cadence="YEARLY"),
    *(
        row
        for name, most in (("trial_days", 730), ("threshold_alert_percentage", 100), ("minimum_spend", MOST))
        for method, path, body in (("POST", PLANS_OF, NEW), ("PUT", PLAN, {}))
        for row in numbers("plan", method, path, body, name, least=0, most=most, can_be_null=True)
    ),
    *numbers("plan", "POST", PLANS_OF, NEW, "setup_fee", least=0, can_be_null=True),
    *numbers("plan", "POST", PLANS_OF, NEW, "spend_cap", least=0, can_be_null=True),
    *plan("a setup fee below a card's least", "out_of_range", field="setup_fee", setup_fee=49),
    *plan("a setup fee beyond a card's most", "out_of_range", field="setup_fee", setup_fee=100_000_000),
    *plan("a first charge beyond a card's most", "out_of_range", field="setup_fee", setup_fee=99_999_999),
    *plan("more spent than may be", field="minimum_spend", minimum_spend=500, spend_cap=499),
    *(row for value in ("true", 1, [True]) for row in plan(f"rollover {value!r}", field="rollover", rollover=value)),
)

RENEWAL_ROWS: Final = (
    *(
        row
        for value in (5, None, "MONTHLY", ["MONTHLY"], [{"amount": 5}])
        for row in plan(f"renewals {value!r}", field="renewals", renewals=value)
    ),
    at("renewals empty", "POST", PLANS_OF, {**NEW, "renewals": {}}, "missing_field", "renewals"),
    at("renewals null in it", "POST", PLANS_OF, {**NEW, "renewals": {"MONTHLY": None}}, "missing_field", "renewals"),
    at("the only renewal taken away", "PUT", PLAN, {"renewals": {"MONTHLY": None}}, "missing_field", "renewals"),
    *plan("a cadence that is none", field="renewals", renewals={"WEEKLY": {"amount": 5}}),
    *plan("a cadence twice", field="renewals", renewals={"MONTHLY": {"amount": 500}, "month": {"amount": 500}}),
    *plan("a cadence of 10 kB", field="renewals", renewals={"M" * 10_000: {"amount": 500}}),
    *plan("a renewal without amount", "missing_field", renewals={"MONTHLY": {}}),
    *plan("a renewal with more", "unknown_field", renewals={"MONTHLY": {"amount": 500, "currency": "USD"}}),
    *(
        row
        for value in ("5", None, True, 1.5, [5])
        for row in plan(f"{value!r}", renewals={"YEARLY": {"amount": value}})
    ),
    *(
        row
        for value in (-1, 1, 49, 100_000_000, MOST + 1, -(10**18))
        for row in plan(
            f"{value} a year", "out_of_range", field="renewals.YEARLY.amount", renewals={"YEARLY": {"amount": value}}
        )
    ),
    *plan(
        "a currency that no card can be charged",
        field="renewals.MONTHLY.amount",
        renewal_denomination="CLF",
        renewals={"MONTHLY": {"amount": 10_000}},
    ),
    *plan(
        "a coin that no card has",
        field="renewals.MONTHLY.amount",
        renewal_denomination="KWD",
        renewals={"MONTHLY": {"amount": 5001}},
    ),
    *plan(
        "a trial of what is sold once",
        field="trial_days",
        trial_days=14,
        renewals={"ONE_OFF": {"amount": 1000}, "MONTHLY": None},
    ),
    *plan(
        "a minimum of a period without end",
        field="minimum_spend",
        minimum_spend=1000,
        renewals={"ONE_OFF": {"amount": 1000}},
    ),
)

EARLIER_ROWS: Final = (
    earlier("no charge_amount", "missing_field", "charge_amount", charge_amount=...),
    earlier("no charge_denomination", "missing_field", "charge_denomination", charge_denomination=...),
    earlier("no billing_period", "missing_field", "billing_period", billing_period=...),
    earlier("no balances", "missing_field", "balances", balances=...),
    earlier("no balance in the list", field="balances", balances=[]),
    earlier("billing_period weekly", field="billing_period", billing_period="weekly"),
    earlier("billing_period 5", field="billing_period", billing_period=5),
    earlier("charge_amount as text", field="charge_amount", charge_amount="1000"),
    earlier("charge_amount null", field="charge_amount", charge_amount=None),
    earlier("charge_amount below 0", "out_of_range", "charge_amount", charge_amount=-1),
    earlier("charge_amount of a cent", "out_of_range", "renewals.MONTHLY.amount", charge_amount=1),
    earlier("renewals too", field="charge_amount", renewals={"MONTHLY": {"amount": 1000}}),
    earlier("renewal_denomination too", field="charge_denomination", renewal_denomination="USD"),
    earlier("a balance without a name", "missing_field", "balances[0].denomination", balances=[{"amount": 5}]),
    earlier("a balance twice", field="balances[1].denomination", balances=[ENTRY, ENTRY]),
    earlier("a balance of a name that is none", field="balances[0].denomination", balances=[{"denomination": "a b"}]),
    earlier("a balance that is a text", field="balances[0]", balances=["storage"]),
    earlier("a balance with more", "unknown_field", "balances[0].price", balances=[{**ENTRY, "price": 5}]),
    at("change: an empty list of balances", "PUT", PLAN, {"balances": []}, field="balances"),
    at("change: a price without its period", "PUT", PLAN, {"charge_amount": 500}, "missing_field", "billing_period"),
    at(
        "change: a period without its price", "PUT", PLAN, {"billing_period": "month"}, "missing_field", "charge_amount"
    ),
)

BALANCE_ROWS: Final = (
    *(row for value in (5, None, "gb", True) for row in plan(f"balances {value!r}", field="balances", balances=value)),
    *plan("51 balances", "out_of_range", field="balances", balances={f"b{number}": {} for number in range(51)}),
    *(
        row
        for name in ("", "a b", "ö", "x" * 65, "x" * 10_000)
        for row in plan(
            f"a balance named {name[:3]!r} of {len(name)}", field="balances", balances={name: {"amount": 5}}
        )
    ),
    *balance("a denomination in an object", "unknown_field", denomination="gb"),
    *(
        row
        for field in ("amount", "auto_refill_amount", "auto_refill_threshold", "auto_refill_charge_amount")
        for value in ("5.5", "-5", "", "five", "\u0665", "1" * 17)
        for row in balance(f"{field} {value!r}", field=field, **{field: value})
    ),
    *(
        row
        for field in ("amount", "auto_refill_amount", "auto_refill_threshold", "auto_refill_charge_amount")
        for value in (-1, MOST + 1, str(MOST + 1))
        for row in balance(f"{field} {value!r}", "out_of_range", field=field, **{field: value})
    ),
    *(row for value in (True, 1.5, [5], {"amount": 5}) for row in balance(f"amount {value!r}", amount=value)),
    *(row for value in (True, 1.5, "5", [5]) for row in balance(f"each {value!r}", variable_amount_cost=value)),
    *balance("each below 0", "out_of_range", field="variable_amount_cost", variable_amount_cost=-1),
    *balance("each by the week", field="variable_amount_cost", variable_amount_cost={"WEEKLY": 5}),
    *balance("each by the year only", field="variable_amount_cost", variable_amount_cost={"YEARLY": 5}),
    *balance("each by the month twice", field="variable_amount_cost", variable_amount_cost={"MONTHLY": 5, "month": 5}),
    *balance("each", "out_of_range", field="variable_amount_cost.MONTHLY", variable_amount_cost={"monthly": MOST + 1}),
    *(
        row
        for value in ("-1", "1e3", "", "1,5", "NaN", True, [1], {"amount": 1}, "0." + "1" * 13)
        for row in balance(f"overage {value!r}", field="overage_charge_amount", overage_charge_amount=value)
    ),
    *balance("overage beyond all", "out_of_range", field="overage_charge_amount", overage_charge_amount=MOST + 1),
    *balance("overage by 11", field="overage_charge_per", overage_charge_amount=1, overage_charge_per=11),
    *balance("overage by 0", "must_be_positive", field="overage_charge_per", overage_charge_per=0),
    *balance("overage by more", "out_of_range", field="overage_charge_per", overage_charge_per=10**12 + 1),
    *balance("overage by nothing", "missing_field", field="overage_charge_amount", overage_charge_per=10),
    *balance("overage in nothing", "missing_field", "overage_charge_amount", overage_charge_denomination="USD"),
    *(
        row
        for value in ("", "a b", "x" * 65)
        for row in balance(
            f"overage in {value!r}",
            field="overage_charge_denomination",
            overage_charge_amount=1,
            overage_charge_denomination=value,
        )
    ),
    *balance(
        "overage in itself",
        field="overage_charge_denomination",
        overage_charge_amount=1,
        overage_charge_denomination="gb",
    ),
    *plan(
        "overage in steps",
        field="balances.a.overage_charge_denomination",
        balances={
            "a": {"overage_charge_amount": 1, "overage_charge_denomination": "b"},
            "b": {"overage_charge_amount": 1},
        },
    ),
    *balance("a refill of nothing", "missing_field", "auto_refill_amount", auto_refill_threshold=5),
    *balance("a refill of 0", "missing_field", "auto_refill_amount", auto_refill_amount=0, auto_refill_threshold=5),
    *balance("a refill without end", "missing_field", "auto_refill_threshold", auto_refill_amount=5),
    *balance(
        "a refill for nothing said",
        "missing_field",
        "auto_refill_charge_amount",
        auto_refill_amount=5,
        auto_refill_threshold=5,
    ),
    *balance(
        "a refill for a cent",
        "out_of_range",
        "auto_refill_charge_amount",
        auto_refill_amount=5,
        auto_refill_threshold=5,
        auto_refill_charge_amount=1,
    ),
    *(row for value in ("true", 1) for row in balance(f"its rollover {value!r}", rollover=value)),
    *balance("more", "unknown_field", price=5),
)

FLAG_AND_PRICE_ROWS: Final = (
    *(row for value in (5, "x", ["x"]) for row in plan(f"flags {value!r}", field="flags", flags=value)),
    *(row for value in (1.5, [1], {"metered": 1}) for row in plan(f"a flag {value!r}", flags={"limit": value})),
    *plan("a flag of an unknown kind", "unknown_field", flags={"limit": {"a": 1}}),
    *plan("a metered flag of nothing", flags={"limit": {"metered": ""}}),
    *plan("a flag beyond all", "out_of_range", field="flags.limit", flags={"limit": MOST + 1}),
    *plan("a flag of 201 characters", field="flags.limit", flags={"limit": "x" * 201}),
    *(
        row
        for name in ("", "a b", "x" * 65, "x" * 10_000)
        for row in plan(f"a flag named {name[:3]!r} of {len(name)}", field="flags", flags={name: True})
    ),
    *plan("101 flags", "out_of_range", field="flags", flags={f"f{number}": True for number in range(101)}),
    *(row for value in (5, "x", {"CHAT": 1}) for row in plan(f"prices {value!r}", event_prices=value)),
    *plan("101 prices", "out_of_range", field="event_prices", event_prices=[PRICE] * 101),
    *plan("a price twice", field="event_prices[1]", event_prices=[PRICE, {**PRICE, "amount": "2"}]),
    *priced("no amount", "missing_field", field="amount", amount=...),
    *priced("amount below 0", field="amount", amount="-1"),
    *priced("type with a space", field="type", type="A B"),
    *priced("no type", "missing_field", field="type", type=...),
    *priced("denomination with a space", field="denomination", denomination="a b"),
    *priced("model", field="model", model="free"),
    *priced("per", field="per", per=11),
    *priced("tiers of per_unit", field="tiers", tiers=[{"up_to": None, "amount": "1"}]),
    *priced("minimum above cap", field="minimum", minimum="2", cap="1"),
    *priced("match on a list", field="match.a", match={"a": [1]}),
    *priced("more", "unknown_field", field="plan", plan=5),
)

ADDRESS_ROWS: Final = (
    *(
        at(f"{method} {what}", method, path, body, "not_found")
        for method, rest, body in (
            ("GET", "", None),
            ("PUT", "", {"name": "B"}),
            ("DELETE", "", None),
            ("GET", "/versions", None),
        )
        for what, path in {
            f"unknown{rest}": f"/v1/plans/p_00000000{rest}",
            f"no plan{rest}": f"/v1/plans/{{price}}{rest}",
            f"short{rest}": f"/v1/plans/p_1{rest}",
            f"long{rest}": f"/v1/plans/p_{'0' * 200}{rest}",
        }.items()
    ),
    at("plans of nobody", "POST", "/v1/companies/c_00000000/plans", NEW, "not_found"),
    at("a method that is none", "POST", PLAN, {}, "method_not_allowed"),
    at("list: archived maybe", "GET", PLANS_OF + "?archived=maybe", None, field="archived"),
    at("list: a field that is none", "GET", PLANS_OF + "?name=Pro", None, "unknown_field"),
    at("list: limit 0", "GET", PLANS_OF + "?limit=0", None, field="limit"),
    at("list: a cursor that is none", "GET", PLANS_OF + "?cursor=x", None, "invalid_cursor"),
    at("versions: a cursor that is none", "GET", PLAN + "/versions?cursor=1-2", None, "invalid_cursor"),
)

AGREED_ROWS: Final = (
    *bodies("agreed price", "POST", AGREED),
    *bodies("change of an agreed price", "PUT", AGREED + "/{agreed}"),
    *nowhere("agreed price", "POST", AGREED, PRICE),
    *nowhere("agreed prices", "GET", AGREED, None),
    *names("agreed price", "POST", AGREED, PRICE, "denomination", 64),
    at("agreed twice", "POST", AGREED, {**PRICE, "type": "DRAW"}, "price_exists"),
    at("agreed: no type", "POST", AGREED, without(PRICE, "type"), "missing_field", "type"),
    at("agreed: no amount", "POST", AGREED, without(PRICE, "amount"), "missing_field", "amount"),
    at("agreed: a type with a space", "POST", AGREED, {**PRICE, "type": "A B"}, field="type"),
    at("agreed: tiers", "POST", AGREED, {**PRICE, "tiers": [{"up_to": None, "amount": "1"}]}, field="tiers"),
    at("agreed: match", "POST", AGREED, {**PRICE, "match": {"a": 1.5}}, field="match.a"),
    at("agreed: another type", "PUT", AGREED + "/{agreed}", {"type": "B"}, "unknown_field", "type"),
    at("agreed: model", "PUT", AGREED + "/{agreed}", {"model": "volume"}, field="tiers"),
    *(
        at(f"{method} agreed: {what}", method, f"{AGREED}/{price}", body, "not_found")
        for method, body in (("GET", None), ("PUT", {"amount": "1"}), ("DELETE", None))
        for what, price in {"the company's": "{price}", "unknown": "ep_00000000", "a plan": "{plan}"}.items()
    ),
    *(
        at(f"{method} the company's: agreed", method, COMPANY + "/event_prices/{agreed}", body, "not_found")
        for method, body in (("GET", None), ("PUT", {"amount": "1"}), ("DELETE", None))
    ),
)

PLANS: Final[tuple[Bad, ...]] = (
    *HEAD_ROWS,
    *RENEWAL_ROWS,
    *EARLIER_ROWS,
    *BALANCE_ROWS,
    *FLAG_AND_PRICE_ROWS,
    *ADDRESS_ROWS,
    *AGREED_ROWS,
)
