"""A plan as a form without code: rows of fields, read into a body of the API and made from one.

The problem, on one example. Ten dollars a month with 10 GB, a further one for a dollar, is typed as people write it:

    fields of the form                                   what the API takes
    currency USD, monthly 10.00                          "renewals": {"MONTHLY": {"amount": 1000}}
    row: storage_gb, included 10, a further one 1.00     "balances": {"storage_gb": {"amount": 10, "overage_…": "100"}}
    tiers, a line each: 1000: 0.03 / beyond: 0.02        "tiers": [{"up_to": 1000, "amount": "3"}, …]

What is typed is kept as it is until the API has taken it. A refusal names a path of the body; ``place_of`` finds the
field that it stands in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from tenuto.core.money import CURRENCY_EXPONENTS
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.plan import CADENCES

from .formats import read_amount, read_number, shifted, typed_amount, without_separators
from .forms import WHOLE, read_denomination, whole
from .frame import Visit

SINGLE: Final = (
    *("name", "code", "currency", "renewal_MONTHLY", "renewal_YEARLY", "renewal_ONE_OFF", "refill_cadence"),
    *("trial_days", "setup_fee", "minimum_spend", "spend_cap", "alert_percentage", "rollover"),
    *("preview_cadence", "version"),
)
"""Fields that stand once."""
ROWS: Final[Mapping[str, Sequence[str]]] = {
    "balance": (
        *("denomination", "amount", "variable", "chosen", "overage", "overage_per", "overage_denomination"),
        *("refill_amount", "refill_threshold", "refill_charge", "rollover"),
    ),
    "price": ("type", "denomination", "model", "amount", "per", "tiers", "free", "minimum", "cap", "highest", "match"),
    "flag": ("name", "kind", "value"),
    "usage": ("type", "quantity", "events"),
}
"""Fields that come once a row; each is sent as ``<group>_<field>``."""
CHOICES: Final = frozenset({"model", "kind", "highest", "rollover", "per", "overage_per", "events"})
"""Fields that hold something without anybody having typed it."""
MODELS: Final = (
    ("per_unit", "Per unit"),
    ("package", "Per package"),
    ("graduated", "Graduated"),
    ("volume", "Volume"),
)
KINDS: Final = (("binary", "On or off"), ("limit", "Limit"), ("text", "Text"), ("metered", "Metered by a balance"))
BEYOND: Final = "beyond"
"""What the last tier is called, the one without an end."""

_TIER: Final = re.compile(r"\s*([^:]+?)\s*:\s*(\S+?)(?:\s+per\s+(\S+))?\s*", re.IGNORECASE)
_INDEX: Final = re.compile(r"event_prices\[(\d+)\](?:\.(\w+))?")
_PAIR: Final = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^=]+?)\s*=\s*(.*?)\s*')

Row = dict[str, str]


@dataclass
class PlanForm:
    """What stands in the fields, as it was typed."""

    values: dict[str, str] = field(default_factory=lambda: dict.fromkeys(SINGLE, ""))
    rows: dict[str, list[Row]] = field(default_factory=lambda: {group: [] for group in ROWS})

    def fields(self) -> Iterator[tuple[str, str]]:
        """Every field with its value, to be sent along once more."""
        yield from self.values.items()
        for group, rows in self.rows.items():
            for row in rows:
                for name, value in row.items():
                    yield f"{group}_{name}", value


def empty_form() -> PlanForm:
    """A form that nothing was typed into."""
    form = PlanForm()
    form.values["currency"] = "USD"
    return form


def typed_form(visit: Visit) -> PlanForm:
    """The form as it was sent. A row in which nothing was typed is none."""
    form = PlanForm({name: visit.field(name) for name in SINGLE})
    for group, names in ROWS.items():
        columns = [visit.fields(f"{group}_{name}") for name in names]
        for values in zip(*columns, strict=False):
            row = dict(zip(names, values, strict=True))
            if any(value for name, value in row.items() if name not in CHOICES):
                form.rows[group].append(row)
    return form


# --- from the form to a body ------------------------------------------------------------------------------------------


def body_of(form: PlanForm) -> dict[str, Any]:
    """The body that publishes the plan, without ``code`` where there is none.

    Raises Refusal ``invalid_field`` with the path that the API would name, for what cannot be read as a number at all.
    """
    values, currency = form.values, form.values["currency"]
    body: dict[str, Any] = {"name": values["name"], "renewal_denomination": currency, "renewals": {}, "balances": {}}
    for cadence in CADENCES:
        if values[f"renewal_{cadence}"]:
            path = f"renewals.{cadence}.amount"
            body["renewals"][cadence] = {"amount": read_amount(values[f"renewal_{cadence}"], currency, path)}
    for row in form.rows["balance"]:
        name = _named(row["denomination"], "balances", body["balances"])
        body["balances"][name] = _balance(row, currency)
    body["event_prices"] = [_price(row, index) for index, row in enumerate(form.rows["price"])]
    body["flags"] = {}
    for row in form.rows["flag"]:
        name = _named(row["name"], "flags", body["flags"])
        body["flags"][name] = _flag(row, f"flags.{name}")
    body["rollover"] = values["rollover"] == "yes"
    found = {**body, **_single(values, currency)}
    # Zero is said, though Python finds it equal to False.
    return {name: value for name, value in found.items() if _is_said(value) or name in _NEEDED}


_NEEDED: Final = ("name", "renewal_denomination", "renewals")


def _is_said(value: object) -> bool:
    return value is not False and value not in ([], {}, "")


def _single(values: Mapping[str, str], currency: str) -> dict[str, Any]:
    """What stands once and may be missing."""
    found: dict[str, Any] = {name: values[name] for name in ("code", "refill_cadence") if values[name]}
    for name in ("setup_fee", "minimum_spend", "spend_cap"):
        if values[name]:
            found[name] = read_amount(values[name], currency, name)
    for typed, name in (("trial_days", "trial_days"), ("alert_percentage", "threshold_alert_percentage")):
        if values[typed]:
            found[name] = whole(values[typed], name)
    return found


def denominations_of(form: PlanForm) -> Iterator[tuple[str, str]]:
    """Every denomination that a form names, each after the path of the body that it goes to."""
    yield "renewal_denomination", form.values["currency"]
    for row in form.rows["balance"]:
        yield f"balances.{row['denomination']}", row["denomination"]
        yield f"balances.{row['denomination']}.overage_charge_denomination", row["overage_denomination"]
    for index, row in enumerate(form.rows["price"]):
        yield f"event_prices[{index}].denomination", row["denomination"]
    for row in form.rows["flag"]:
        if row["kind"] == "metered":
            yield f"flags.{row['name']}.metered", row["value"]


def refuse_mistaken(form: PlanForm, known: Collection[str] = ()) -> None:
    """Raises Refusal where a form names a currency in another case; ``known`` are those that the plan has already."""
    for path, name in denominations_of(form):
        read_denomination(name, path, known)


def terms_in(form: PlanForm) -> dict[str, Any]:
    """The whole of a plan's terms in a form, but for its code, which stays what it is."""
    body = body_of(form)
    body.pop("code", None)
    return {"balances": {}, **body}


def asked_of(form: PlanForm, body: Mapping[str, Any]) -> dict[str, Any]:
    """What the API is asked for a preview: the plan, and the usage that was typed beside it."""
    asked: dict[str, Any] = {"plan": body, "usage": []}
    if form.values["preview_cadence"] in body["renewals"]:
        asked["cadence"] = form.values["preview_cadence"]
    asked["units"] = {
        row["denomination"]: whole(row["chosen"], f"units.{row['denomination']}")
        for row in form.rows["balance"]
        if row["chosen"] and row["variable"]
    }
    for index, row in enumerate(form.rows["usage"]):
        if row["quantity"]:
            usage: dict[str, Any] = {"type": row["type"], "quantity": without_separators(row["quantity"])}
            if row["events"]:
                usage["events"] = whole(row["events"], f"usage[{index}].events")
            asked["usage"].append(usage)
    return asked


def _named(name: str, path: str, known: Mapping[str, object]) -> str:
    if not name:
        raise invalid(path, "each row has a name.", "missing_field")
    if name in known:
        raise invalid(f"{path}.{name}", "stands in two rows.")
    return name


def _balance(row: Row, currency: str) -> dict[str, Any]:
    name, path = row["denomination"], f"balances.{row['denomination']}"
    found: dict[str, Any] = {"amount": read_amount(row["amount"] or "0", name, f"{path}.amount")}
    if row["variable"]:
        found["variable_amount_cost"] = _variable(row["variable"], currency, f"{path}.variable_amount_cost")
    if row["overage"]:
        into = row["overage_denomination"]
        found["overage_charge_amount"] = read_price(row["overage"], into or currency, f"{path}.overage_charge_amount")
        # The price of a unit of money is said by its smallest unit.
        if row["overage_per"] not in {"", "1"}:
            found["overage_charge_per"] = whole(row["overage_per"], f"{path}.overage_charge_per")
        if into:
            found["overage_charge_denomination"] = into
    for typed, field_name, denomination in (
        ("refill_amount", "auto_refill_amount", name),
        ("refill_threshold", "auto_refill_threshold", name),
        ("refill_charge", "auto_refill_charge_amount", currency),
    ):
        if row[typed]:
            found[field_name] = read_amount(row[typed], denomination, f"{path}.{field_name}")
    if row["rollover"]:
        found["rollover"] = row["rollover"] == "yes"
    return found


def _variable(text: str, currency: str, path: str) -> int | dict[str, int]:
    """The price of a further unit: one for all cadences, or ``MONTHLY: 2, YEARLY: 20``."""
    if ":" not in text:
        return read_amount(text, currency, path)
    costs: dict[str, int] = {}
    for part in text.split(","):
        cadence, _, cost = part.partition(":")
        costs[cadence.strip().upper()] = read_amount(cost.strip(), currency, path)
    return costs


def _price(row: Row, index: int) -> dict[str, Any]:
    path, denomination = f"event_prices[{index}]", row["denomination"]
    model = row["model"] or "per_unit"
    found: dict[str, Any] = {"type": row["type"], "denomination": denomination, "model": model}
    if model in {"graduated", "volume"}:
        found["tiers"] = _tiers(row["tiers"], denomination, f"{path}.tiers")
    else:
        if row["amount"]:
            found["amount"] = read_price(row["amount"], denomination, f"{path}.amount")
        if row["per"] not in {"", "1"}:
            found["per"] = whole(row["per"], f"{path}.per")
    if row["free"]:
        found["free_units"] = whole(row["free"], f"{path}.free_units")
    for name in ("minimum", "cap"):
        if row[name]:
            found[name] = read_price(row[name], denomination, f"{path}.{name}")
    if row["highest"] == "yes":
        found["max_value_billing"] = True
    if row["match"]:
        found["match"] = _match(row["match"], f"{path}.match")
    return found


def _tiers(text: str, denomination: str, path: str) -> list[dict[str, Any]]:
    tiers: list[dict[str, Any]] = []
    for line in filter(str.strip, text.splitlines()):
        found = _TIER.fullmatch(line)
        if found is None:
            raise invalid(path, f"a line is like 1000: 0.03, and the last one like {BEYOND}: 0.02.")
        up_to, amount, per = found.groups()
        tier: dict[str, Any] = {
            "up_to": None if up_to.lower() == BEYOND else whole(up_to, path),
            "amount": read_price(amount, denomination, path),
        }
        if per is not None:
            tier["per"] = whole(per, path)
        tiers.append(tier)
    return tiers


def _match(text: str, path: str) -> dict[str, Any]:
    """Lines like ``model = large``; numbers, true, false and null are that, unless they stand in quotes."""
    found: dict[str, Any] = {}
    for line in filter(str.strip, text.splitlines()):
        parts = _PAIR.fullmatch(line)
        if parts is None:
            raise invalid(path, "a line is like model = large.")
        name = _literal(parts[1])
        found[name if isinstance(name, str) else parts[1]] = _literal(parts[2])
    return found


def _literal(text: str) -> Any:
    if text in {"true", "false", "null"} or WHOLE.fullmatch(text) or text.startswith('"'):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _flag(row: Row, path: str) -> object:
    value = row["value"]
    match row["kind"]:
        case "limit":
            return whole(value, path)
        case "text":
            return value
        case "metered":
            return {"metered": value}
        case _:
            if value.lower() not in {"", "on", "off", "yes", "no", "true", "false"}:
                raise invalid(path, "is on or off.")
            return value.lower() not in {"off", "no", "false"}


def read_price(text: str, denomination: str, path: str) -> str:
    """A price as it is typed, as decimal text in the smallest unit: 0.0003 USD is ``0.03``. Raises Refusal."""
    return _plain(shifted(read_number(text, path, "0.03"), CURRENCY_EXPONENTS.get(denomination, 0)))


def typed_price(text: str | int | None, denomination: str | None) -> str:
    """The same backwards: ``0.03`` of USD is 0.0003."""
    if text is None:
        return ""
    exponent = CURRENCY_EXPONENTS.get(denomination or "", 0)
    found = _plain(shifted(Decimal(text), -exponent))
    whole, _, decimals = found.partition(".")
    return f"{whole}.{decimals:0<{exponent}}" if exponent else found


def _plain(number: Decimal) -> str:
    found = f"{number:f}"
    return found.rstrip("0").rstrip(".") if "." in found else found


# --- from a plan to the form ------------------------------------------------------------------------------------------


def form_of(plan: Mapping[str, Any]) -> PlanForm:
    """A plan, as the API shows it, in the fields of the form."""
    form, currency = PlanForm(), plan["renewal_denomination"]
    only = next(iter(plan["renewals"])) if len(plan["renewals"]) == 1 else None
    form.values.update(
        {
            "name": plan["name"],
            "code": plan["code"] or "",
            "currency": currency,
            # The only cadence that it is sold by is shown where nothing was said.
            "refill_cadence": "" if plan["refill_cadence"] in {None, only} else plan["refill_cadence"],
            "trial_days": _text(plan["trial_days"] or None),
            "alert_percentage": _text(plan["threshold_alert_percentage"]),
            "rollover": "yes" if plan["rollover"] else "",
            "version": str(plan["version"]),
        }
    )
    for cadence, price in plan["renewals"].items():
        form.values[f"renewal_{cadence}"] = typed_amount(price["amount"], currency)
    for name in ("setup_fee", "minimum_spend", "spend_cap"):
        form.values[name] = "" if name == "setup_fee" and not plan[name] else typed_amount(plan[name], currency)
    form.rows["balance"] = [_balance_row(name, found, plan) for name, found in plan["balances"].items()]
    form.rows["price"] = [_price_row(price) for price in plan["event_prices"]]
    form.rows["flag"] = [_flag_row(name, value) for name, value in plan["flags"].items()]
    types = dict.fromkeys(price["type"] for price in plan["event_prices"])
    form.rows["usage"] = [{"type": kind, "quantity": "", "events": ""} for kind in types]
    return form


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _balance_row(name: str, found: Mapping[str, Any], plan: Mapping[str, Any]) -> Row:
    currency, variable = plan["renewal_denomination"], found["variable_amount_cost"]
    into = found["overage_charge_denomination"]
    if isinstance(variable, Mapping):
        variable = ", ".join(f"{cadence}: {typed_amount(cost, currency)}" for cadence, cost in variable.items())
    else:
        variable = typed_amount(variable, currency)
    return {
        "denomination": name,
        "amount": typed_amount(found["amount"], name),
        "variable": variable,
        "chosen": "",
        "overage": typed_price(found["overage_charge_amount"], into),
        "overage_per": _text(found["overage_charge_per"]),
        "overage_denomination": "" if into in {None, currency} else into,
        "refill_amount": typed_amount(found["auto_refill_amount"], name),
        "refill_threshold": typed_amount(found["auto_refill_threshold"], name),
        "refill_charge": typed_amount(found["auto_refill_charge_amount"], currency),
        "rollover": "" if found["rollover"] == plan["rollover"] else "yes" if found["rollover"] else "no",
    }


def _price_row(price: Mapping[str, Any]) -> Row:
    denomination = price["denomination"]
    lines = []
    for tier in price.get("tiers") or ():
        per = tier.get("per") or 1
        up_to = BEYOND if tier["up_to"] is None else tier["up_to"]
        suffix = f" per {per}" if per != 1 else ""
        lines.append(f"{up_to}: {typed_price(tier['amount'], denomination)}{suffix}")
    return {
        "type": price["type"],
        "denomination": denomination,
        "model": price.get("model") or "per_unit",
        "amount": typed_price(price.get("amount"), denomination),
        "per": _text(price.get("per") or 1),
        "tiers": "\n".join(lines),
        "free": _text(price.get("free_units") or None),
        "minimum": typed_price(price.get("minimum"), denomination),
        "cap": typed_price(price.get("cap"), denomination),
        "highest": "yes" if price.get("max_value_billing") else "",
        "match": "\n".join(
            f"{_written(name, '=')} = {_written(value)}" for name, value in (price.get("match") or {}).items()
        ),
    }


def _written(value: object, unfit: str = "\n") -> str:
    """A name or value of a match so that it is read back as the same."""
    if (
        isinstance(value, str)
        and value
        and _literal(value.strip()) == value
        and value.isprintable()
        and unfit not in value
    ):
        return value
    return json.dumps(value, ensure_ascii=False)


def _flag_row(name: str, value: object) -> Row:
    match value:
        case bool():
            return {"name": name, "kind": "binary", "value": "on" if value else "off"}
        case int():
            return {"name": name, "kind": "limit", "value": str(value)}
        case {"metered": balance}:
            return {"name": name, "kind": "metered", "value": str(balance)}
        case _:
            return {"name": name, "kind": "text", "value": str(value)}


# --- where a refusal stands -------------------------------------------------------------------------------------------

_SINGLE_PLACES: Final[Mapping[str, str]] = {
    "renewal_denomination": "currency",
    "threshold_alert_percentage": "alert_percentage",
    "renewals": "renewal_MONTHLY",
    "cadence": "preview_cadence",
    "plan_code": "code",
}
_BALANCE_PLACES: Final[Mapping[str, str]] = {
    "amount": "amount",
    "variable_amount_cost": "variable",
    "overage_charge_amount": "overage",
    "overage_charge_per": "overage_per",
    "overage_charge_denomination": "overage_denomination",
    "auto_refill_amount": "refill_amount",
    "auto_refill_threshold": "refill_threshold",
    "auto_refill_charge_amount": "refill_charge",
    "rollover": "rollover",
}
_PRICE_PLACES: Final[Mapping[str, str]] = {"free_units": "free", "max_value_billing": "highest"}


def place_of(refusal: Refusal, form: PlanForm) -> str:
    """The field that a refusal is about: its name, and for one of a row ``:`` and the row; empty where it is none."""
    path = str(refusal.details.get("path", "")).removeprefix("plan.")
    if refusal.code == "plan_exists":
        return "code"
    found = _INDEX.match(path)
    if found is not None:
        name = found[2] or "type"
        return f"price_{_PRICE_PLACES.get(name, name)}:{found[1]}"
    head, _, rest = path.partition(".")
    if head == "renewals" and rest:
        return f"renewal_{rest.split('.')[0]}"
    if head == "balances" and rest:
        return _place_of_balance(rest, form)
    if head == "flags" and rest:
        return _row_named(rest.removesuffix(".metered"), form, "flag", "name", "value")
    if head in {"units", "plan_variable_amounts"}:
        return _row_named(rest, form, "balance", "denomination", "chosen")
    if head.startswith("usage["):
        return f"usage_{rest or 'type'}:{head[6:-1]}"
    return _SINGLE_PLACES.get(head, head if head in SINGLE else "")


def _place_of_balance(rest: str, form: PlanForm) -> str:
    """A denomination may hold points itself, so the row is found by its name."""
    for name in sorted(_BALANCE_PLACES, key=len, reverse=True):
        for tail in (f".{name}", *(f".{name}.{cadence}" for cadence in CADENCES)):
            if rest.endswith(tail):
                return _row_named(rest.removesuffix(tail), form, "balance", "denomination", _BALANCE_PLACES[name])
    return _row_named(rest, form, "balance", "denomination", "denomination")


def _row_named(name: str, form: PlanForm, group: str, by: str, what: str) -> str:
    rows = [index for index, row in enumerate(form.rows[group]) if row[by] == name]
    return f"{group}_{what}:{rows[-1]}" if rows else ""


def plain_message(refusal: Refusal) -> str:
    """What a refusal says beside its field, without the path."""
    path = refusal.details.get("path")
    text = refusal.message.removeprefix(f"{path}: ") if path else refusal.message
    return text[:1].upper() + text[1:]
