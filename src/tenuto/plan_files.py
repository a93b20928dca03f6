"""Plans and event prices in one YAML file: read exactly, judged as the service judges them, written back.

The problem, on one example. A file in a repository says what a company sells:

    plans:
      pro:                                  the code of the plan
        name: Pro
        renewal_denomination: USD
        renewals:
          MONTHLY: {amount: 1000}
        balances:
          tokens: {amount: 500, overage_charge_amount: "0.25"}
    event_prices:
    - {type: tokens_read, denomination: USD, amount: 15, per: 1000000}

What it leaves out holds as it does in a body, so two files may mean the same. Both sides are compared *settled*: each
field there, each decimal in one spelling. YAML is read without what makes it dangerous: no anchors, no tags, no key
twice, no binary fraction, and no word that is true to one reader and text to another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import yaml
from yaml import events

from tenuto.api import body as bodies
from tenuto.api.catalog import EventPriceIn, match_of, terms_of
from tenuto.api.plan_input import CODE_MAX, PlanIn, plan_of
from tenuto.core.catalog import price_version
from tenuto.core.outcomes import Refusal, beneath, invalid
from tenuto.core.plan import PlanBalance, merged, plan_terms, refuse_prices

Given = TypeVar("Given")
Result = TypeVar("Result")
Terms = dict[str, Any]

FILE_MAX: Final = 4_194_304
"""Bytes of a file."""
DEPTH_MAX: Final = 12
DIGITS_MAX: Final = 18

DECIMALS: Final = ("amount", "minimum", "cap")
"""Fields of an event price that are exact decimals."""
PRICE_DEFAULTS: Final[Mapping[str, object]] = {
    "model": "per_unit",
    "amount": None,
    "per": 1,
    "tiers": None,
    "free_units": 0,
    "minimum": None,
    "cap": None,
    "max_value_billing": False,
}
"""The terms of an event price, with what holds where nothing is said."""
PLAN_DEFAULTS: Final[Mapping[str, object]] = {
    "name": None,
    "renewal_denomination": None,
    "refill_cadence": None,
    "renewals": {},
    "balances": {},
    "flags": {},
    "trial_days": 0,
    "setup_fee": 0,
    "minimum_spend": None,
    "spend_cap": None,
    "threshold_alert_percentage": None,
    "rollover": False,
    "event_prices": [],
}
BALANCE_DEFAULTS: Final[Mapping[str, object]] = {
    "amount": 0,
    "variable_amount_cost": None,
    "overage_charge_amount": None,
    "overage_charge_per": None,
    "overage_charge_denomination": None,
    "auto_refill_amount": None,
    "auto_refill_threshold": None,
    "auto_refill_charge_amount": None,
    "rollover": False,
}
_EARLIER: Final = ("charge_amount", "charge_denomination", "billing_period")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_FRACTION: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_ZEROS: Final = re.compile(r"[-+]?[0-9]+")
_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_ANY_TIME: Final = datetime.min.replace(tzinfo=UTC)
_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FileRefused(Exception):
    """What keeps a file from being understood; the text says where and what to do. Nothing was sent."""


class PriceName(NamedTuple):
    """What makes an event price this one and not another; ``match`` is JSON in one spelling."""

    type: str
    denomination: str
    match: str

    @property
    def words(self) -> str:
        """The name for people."""
        return " ".join(part for part in self if part != "{}")


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a file or a company has: stored terms of plans by code, terms of prices by name; None is not said."""

    plans: Mapping[str, Terms] | None
    prices: Mapping[PriceName, Terms] | None


# --- YAML, read without its surprises --------------------------------------------------------------------------------


class _Reader:
    """One document, event by event, into plain values; ``lines`` is the line of each path."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text
        self.lines: dict[str, int] = {}

    def refused(self, line: int, why: str) -> FileRefused:
        return FileRefused(f"{self._path}, line {line}: {why}")

    def at(self, path: str, why: str) -> FileRefused:
        """The refusal of a path, at its line or at that of the nearest thing above that the file has."""
        place = path
        while place and place not in self.lines:
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        return self.refused(self.lines.get(place, 1), why)

    def value(self) -> object:
        """What the document holds. Raises FileRefused."""
        try:
            return self._document(yaml.parse(self._text, Loader=_PARSER))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self.refused(mark.line + 1 if mark else 1, f"this is no YAML: {error.problem}.") from error
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise self.refused(line, f"this is no YAML: {error.reason}.") from error
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise self.refused(1, f"this is no YAML: {error}.") from error

    def _document(self, stream: Iterator[events.Event]) -> object:
        found: object = None
        documents = 0
        for event in stream:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refused_event(event, "a second document begins here; a file holds one.")
                found = self._node(next(stream), stream, "", 0)
        return found

    def _refused_event(self, event: Any, why: str) -> FileRefused:  # noqa: ANN401 - its marks are always there
        return self.refused(event.start_mark.line + 1, why)

    def _node(self, event: Any, stream: Iterator[events.Event], path: str, depth: int) -> object:  # noqa: ANN401
        self.lines[path] = event.start_mark.line + 1
        if isinstance(event, events.AliasEvent) or event.anchor is not None:
            raise self._refused_event(event, "anchors and aliases (& and *) are not taken; write it out.")
        if event.tag is not None:
            raise self._refused_event(
                event, f"the tag {event.tag} is not taken; values say what they are by themselves."
            )
        if depth > DEPTH_MAX:
            raise self._refused_event(event, f"this is nested deeper than {DEPTH_MAX} levels; no plan is.")
        if isinstance(event, events.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, events.SequenceStartEvent):
            items: list[object] = []
            while not isinstance(inner := next(stream), events.SequenceEndEvent):
                items.append(self._node(inner, stream, f"{path}[{len(items)}]", depth + 1))
            return items
        members: dict[str, object] = {}
        while not isinstance(inner := next(stream), events.MappingEndEvent):
            name = self._name(inner)
            if name in members:
                raise self._refused_event(inner, f"{name} stands here a second time.")
            below = f"{path}.{name}" if path else name
            members[name] = self._node(next(stream), stream, below, depth + 1)
        return members

    def _name(self, event: Any) -> str:  # noqa: ANN401
        """A name, which is text as it is written: no code or flag turns into a number or a truth."""
        if not isinstance(event, events.ScalarEvent) or event.anchor is not None or event.tag is not None:
            raise self._refused_event(event, "a name is a text, without anchor, alias or tag.")
        if event.value == "<<" and event.implicit[0]:
            raise self._refused_event(event, "merging (<<) is not taken; write it out.")
        return self._encodable(event)

    def _encodable(self, event: events.ScalarEvent) -> str:
        try:
            event.value.encode()
        except UnicodeEncodeError as error:
            raise self._refused_event(event, "this text holds half a character (a lone surrogate).") from error
        return event.value

    def _scalar(self, event: events.ScalarEvent) -> object:
        text = self._encodable(event)
        if not event.implicit[0]:
            return text
        if text in _NULLS:
            return None
        if text in _TRUTHS:
            return _TRUTHS[text]
        if _WHOLE.fullmatch(text):
            if len(text) > DIGITS_MAX:
                raise self._refused_event(event, f"{text[:40]} is larger than can be kept.")
            return int(text)
        if _is_fraction(text):
            raise self._refused_event(
                event, f'{text} is read as a binary fraction, which is not exact; put it in quotes: "{text}".'
            )
        if not is_plain(text):
            raise self._refused_event(
                event, f'{text} is not the same to every reader of YAML; write true or false, a number, or "{text}".'
            )
        return text


def _is_fraction(text: str) -> bool:
    return _FRACTION.fullmatch(text) is not None or _tag_of(text).endswith(":float")


def _tag_of(text: str) -> str:
    """What YAML 1.1 takes an unquoted word for."""
    return str(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]


_RESOLVER: Final = yaml.resolver.Resolver()


def is_plain(text: str) -> bool:
    """Whether an unquoted word is this text to every reader of YAML."""
    return (
        text not in _NULLS
        and text not in _TRUTHS
        and not _ZEROS.fullmatch(text)
        and not _is_fraction(text)
        and _tag_of(text) == _TEXT_TAG
    )


# --- from a file, or from the service's answers ----------------------------------------------------------------------


def read_file(path: Path) -> Catalog:
    """What a file says, judged as the service would. Raises FileRefused with the line of what does not fit."""
    try:
        with path.open("rb") as opened:
            raw = opened.read(FILE_MAX + 1)
    except OSError as error:
        raise FileRefused(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) > FILE_MAX:
        raise FileRefused(f"{path} is larger than {FILE_MAX:,} bytes.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FileRefused(f"{path}, line {line}: this is not UTF-8 text.") from error
    return catalog_of(path, text)


def catalog_of(path: Path, text: str) -> Catalog:
    """What a text says; ``path`` is where it comes from. Raises FileRefused."""
    reader = _Reader(path, text)
    found = reader.value()
    if not isinstance(found, dict) or not found:
        raise reader.refused(1, "a file holds plans, event_prices, or both; begin with `tenuto plans pull`.")
    for name in found:
        if name not in {"plans", "event_prices"}:
            raise reader.at(name, f"{name} is no part of a file, which holds plans and event_prices.")
    return Catalog(
        plans=_plans(reader, found["plans"]) if "plans" in found else None,
        prices=_prices(reader, found["event_prices"]) if "event_prices" in found else None,
    )


def _plans(reader: _Reader, given: object) -> dict[str, Terms]:
    if not isinstance(given, dict):
        raise reader.at("plans", "plans is an object, code by code; {} says that there is none.")
    plans: dict[str, Terms] = {}
    for code, terms in given.items():
        path = f"plans.{code}"
        if not isinstance(terms, dict):
            raise reader.at(path, f"{path}: a plan is an object of terms.")
        _judged(reader, "plans", _code, code)
        plans[code] = _judged(reader, path, plan_from, terms)
    return plans


def _prices(reader: _Reader, given: object) -> dict[PriceName, Terms]:
    if not isinstance(given, list):
        raise reader.at("event_prices", "event_prices is a list; [] says that there is none.")
    prices: dict[PriceName, Terms] = {}
    for index, terms in enumerate(given):
        path = f"event_prices[{index}]"
        if not isinstance(terms, dict):
            raise reader.at(path, f"{path}: an event price is an object of terms.")
        name, price = _judged(reader, path, price_from, terms)
        if name in prices:
            raise reader.at(path, f"{path}: {name.words} stands in the list already.")
        prices[name] = price
    return prices


def _code(name: str) -> str:
    return bodies.token(name, name, CODE_MAX)


def _judged(reader: _Reader, path: str, judge: Callable[[Given], Result], given: Given) -> Result:
    try:
        return judge(given)
    except Refusal as refusal:
        if "path" not in refusal.details:
            raise reader.at(path, f"{path}: {refusal.message} ({refusal.code})") from refusal
        told = beneath(path, refusal)
        raise reader.at(str(told.details["path"]), f"{told.message} ({told.code})") from refusal


def plan_from(given: Mapping[str, Any]) -> Terms:
    """A plan's terms in their stored form, judged whole. Raises Refusal."""
    if "code" in given:
        raise invalid("code", "is the name that the plan stands under.", "unknown_field")
    for name in _EARLIER:
        if name in given:
            raise invalid(name, "belongs to the earlier shape; a file has renewal_denomination and renewals.")
    if isinstance(given.get("balances"), list):
        raise invalid("balances", "is an object by denomination; a list belongs to the earlier shape.")
    stored = merged({}, plan_of(bodies.decode(msgspec.json.encode(given), PlanIn)[0]))
    refuse_prices(stored.get("event_prices", ()))
    plan_terms(stored)
    return stored


def price_from(given: Mapping[str, Any]) -> tuple[PriceName, Terms]:
    """An event price's name and its terms, all of them there, judged whole. Raises Refusal."""
    price = bodies.decode(msgspec.json.encode(given), EventPriceIn)[0]
    kind = bodies.event_type(price.type, "type")
    denomination = bodies.token(price.denomination, "denomination", bodies.DENOMINATION_MAX)
    match, terms = match_of(price.match), terms_of(price)
    price_version(id=0, price_id=0, number=1, denomination=denomination, effective_at=_ANY_TIME, terms=terms)
    return PriceName(kind, denomination, _one_spelling(match)), terms


def _one_spelling(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


# --- settled: everything said, in one spelling -----------------------------------------------------------------------


def settled_plan(stored: Terms) -> Terms:
    """Every field of a plan with what holds for it, as the service would answer it, decimals in one spelling."""
    terms = plan_terms(stored)
    only = next(iter(terms.renewals)) if len(terms.renewals) == 1 else None
    said: Terms = {
        "name": terms.name,
        "renewal_denomination": terms.denomination,
        "refill_cadence": stored.get("refill_cadence") or only,
        "renewals": {cadence: {"amount": amount} for cadence, amount in terms.renewals.items()},
        "balances": {
            name: _settled_balance(balance, stored["balances"][name]) for name, balance in terms.balances.items()
        },
        "flags": dict(terms.flags),
        "trial_days": terms.trial_days,
        "setup_fee": terms.setup_fee,
        "minimum_spend": terms.minimum_spend,
        "spend_cap": terms.spend_cap,
        "threshold_alert_percentage": terms.threshold_alert_percentage,
        "rollover": bool(stored.get("rollover")),
        "event_prices": [
            {**{name: price[name] for name in ("type", "denomination", "match")}, **settled_price(price)}
            for price in stored.get("event_prices", ())
        ],
    }
    return said


def _settled_balance(balance: PlanBalance, stored: Terms) -> Terms:
    overage, refill = balance.overage, balance.refill
    return {
        "amount": balance.amount,
        "variable_amount_cost": stored.get("variable_amount_cost"),
        "overage_charge_amount": one_decimal(stored.get("overage_charge_amount")),
        "overage_charge_per": None if overage is None else stored.get("overage_charge_per", 1),
        "overage_charge_denomination": None if overage is None else overage.denomination,
        "auto_refill_amount": None if refill is None else refill.amount,
        "auto_refill_threshold": None if refill is None else refill.threshold,
        "auto_refill_charge_amount": None if refill is None else refill.charge,
        "rollover": balance.rollover,
    }


def settled_price(terms: Terms) -> Terms:
    """The terms of an event price, decimals in one spelling."""
    said = {name: terms.get(name, default) for name, default in PRICE_DEFAULTS.items()}
    for name in DECIMALS:
        said[name] = one_decimal(said[name])
    said["tiers"] = [{**tier, "amount": one_decimal(tier["amount"])} for tier in said["tiers"] or ()] or None
    return said


def one_decimal(text: str | None) -> int | str | None:
    """An exact decimal in its one spelling: a whole number, or text without needless zeros."""
    if text is None:
        return None
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return f"{int(whole)}.{fraction}" if fraction else int(whole)


# --- to a file -------------------------------------------------------------------------------------------------------


class _Inline(dict[str, Any]):
    """An object that is written on one line."""


class _Writer(yaml.SafeDumper):
    """Writes what every reader of YAML reads as the same."""

    def ignore_aliases(self, _: object) -> bool:  # type: ignore[explicit-override]  # 3.11 has no override
        return True


def _text_node(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_bare = is_plain(text) and text.isprintable()
    return writer.represent_scalar(_TEXT_TAG, text, style=None if is_bare else '"')


def _inline_node(writer: yaml.SafeDumper, value: _Inline) -> yaml.MappingNode:
    return writer.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=True)


_Writer.add_representer(str, _text_node)
_Writer.add_representer(_Inline, _inline_node)

HEAD: Final = """\
# What {company} sells: its plans by their codes, and its own event prices. Tenuto wrote this file; now it is yours.
#
#   tenuto plans diff {file}         what the company would have otherwise than this file says
#   tenuto plans apply {file}        the same; with --yes, make it so
#   tenuto plans pull {file}         write this file anew, from what the company has
#
# What is left out holds as in a request. A plan that is taken out of the file is archived, a price that is taken out
# ends; a part (plans, event_prices) that is taken out whole is left alone. Exact decimals stand in quotes: "0.15".
# A plan without a code stands under its id.
"""


def written(catalog: Catalog, company: str, file: Path) -> str:
    """The text of a file, sorted, with nothing in it that holds anyway."""
    called = file.name if file.name.isprintable() else "FILE.yaml"
    lines = [HEAD.format(company=company, file=called), ""]
    plans, prices = catalog.plans or {}, catalog.prices or {}
    lines.append("plans:" if plans else "plans: {}")
    for code in sorted(plans):
        text = _yaml({code: plan_as_written(settled_plan(plans[code]))})
        lines += [f"  {line}" for line in text.splitlines()] + [""]
    lines += [] if plans else [""]
    lines.append("event_prices:" if prices else "event_prices: []")
    # Of two prices that fit an event alike the older one holds, so those of a type stay in the order of their making.
    for name in sorted(prices, key=lambda found: (found.type, found.denomination)):
        lines += _yaml(
            [_named_price(name.type, name.denomination, msgspec.json.decode(name.match), settled_price(prices[name]))]
        ).splitlines()
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    text: str = yaml.dump(
        value, Dumper=_Writer, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1_000_000
    )
    return text


def plan_as_written(plan: Terms) -> Terms:
    """A settled plan without what holds anyway."""
    said = _without(plan, PLAN_DEFAULTS)
    said["renewals"] = {cadence: _Inline(renewal) for cadence, renewal in plan["renewals"].items()}
    if len(plan["renewals"]) == 1 and plan["refill_cadence"] in plan["renewals"]:
        said.pop("refill_cadence", None)
    if plan["balances"]:
        said["balances"] = {name: _balance_as_written(balance, plan) for name, balance in plan["balances"].items()}
    if plan["event_prices"]:
        said["event_prices"] = [
            _named_price(price["type"], price["denomination"], price["match"], price) for price in plan["event_prices"]
        ]
    return said


def _balance_as_written(balance: Terms, plan: Terms) -> Terms:
    holds = {
        **BALANCE_DEFAULTS,
        "rollover": plan["rollover"],
        "overage_charge_per": 1,
        "overage_charge_denomination": plan["renewal_denomination"],
    }
    said = _without(balance, holds)
    if balance["overage_charge_amount"] is None:
        said.pop("overage_charge_per", None)
        said.pop("overage_charge_denomination", None)
    elif balance["auto_refill_charge_amount"] == _charge_of_overage(balance, plan):
        said.pop("auto_refill_charge_amount", None)
    if isinstance(balance["variable_amount_cost"], dict):
        said["variable_amount_cost"] = _Inline(balance["variable_amount_cost"])
    return said


def _charge_of_overage(balance: Terms, plan: Terms) -> int | None:
    """What a refill costs where the plan does not say it."""
    if balance["auto_refill_amount"] is None or balance["overage_charge_denomination"] != plan["renewal_denomination"]:
        return None
    implied = {**{name: value for name, value in balance.items() if value is not None}}
    implied.pop("auto_refill_charge_amount")
    implied["overage_charge_amount"] = str(balance["overage_charge_amount"])
    try:
        found = plan_terms(
            {
                "name": "",
                "renewal_denomination": plan["renewal_denomination"],
                "renewals": plan["renewals"],
                "balances": {"": implied},
            }
        )
    except Refusal:
        return None
    refill = found.balances[""].refill
    return None if refill is None else refill.charge


def _named_price(type: str, denomination: str, match: Terms, price: Terms) -> Terms:  # noqa: A002 - the field's name
    found = {"match": _Inline(match)} if match else {}
    return {"type": type, "denomination": denomination, **found, **price_as_written(price)}


def price_as_written(price: Terms) -> Terms:
    """The settled terms of an event price without what holds anyway."""
    said = _without({name: price[name] for name in PRICE_DEFAULTS}, PRICE_DEFAULTS)
    if price["tiers"]:
        said["tiers"] = [_Inline(_without(tier, {"per": 1})) for tier in price["tiers"]]
    return said


def _without(given: Terms, holds: Mapping[str, object]) -> Terms:
    """Fields that say something else than what holds anyway."""
    return {
        name: value
        for name, value in given.items()
        if name not in holds or type(value) is not type(holds[name]) or value != holds[name]
    }
