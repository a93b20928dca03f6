"""The audit: every fact that is stored twice, or follows from others, worked out again from the rows beneath it.

The problem, on one example. A balance says 7, its residue 0.1, and nobody remembers why. The audit adds up:

    check      stored                          worked out                                          verdict
    balances   balance.amount 7                its transactions: +10 -3                            agrees
    chain      seq 2 starts at 10              seq 1 ended at 10                                   agrees
    residue    posted 3, residue 1/10          costs of its complete events: 2.7 + 0.4             agrees
    holds      balance.pending 4               its open holds keep 3                               names the balance

A check is one statement over whole tables, so that ten million events are a matter of minutes; fractions are summed per
denominator by PostgreSQL and put together exactly here. All checks of an audit must see one snapshot
(``Database.snapshot``): then they agree while the service writes, since every unit leaves the books in order.
Hot tables have no foreign keys and no checks of their own; here is where their rules are held. The statements stand in
``audit_queries``, ``audit_money``, ``audit_plans``, ``audit_signals`` and ``audit_organizations``. Sources: design 5,
6, 11 and 12, bar 2.1 to 2.4, 2.6 and I-64; ``docs/audit.md`` tells the rules to operators.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import asyncpg
import msgspec

from tenuto.core.catalog import PriceVersion, price_version
from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.money import Exact, exact
from tenuto.core.outcomes import REFUSALS, Kind, Refusal
from tenuto.core.period import monthly
from tenuto.core.plan import plan_terms
from tenuto.core.rating import Counter, rate

from . import activity
from . import audit_money as money
from . import audit_organizations as organizations
from . import audit_plans as plans
from . import audit_queries as queries
from . import audit_signals as signals
from .database import Reader, Record

FINDINGS_MAX: Final = 100
"""Findings of one check that are named; all are counted."""

SAMPLED_FROM: Final = 1_000_000
"""Stored events from which on the checks that work row by row in Python take a random share, about this many rows."""

_PREFETCH: Final = 5_000

_ZONE_MOVE: Final = timedelta(days=5)
"""By how much a monthly date may differ in another zone: the 28th in one is the 29th, so the first, in the other."""


class Finding(NamedTuple):
    """One row that disagrees: its public id, what it says, and what it should say by the rows beneath it."""

    check: str
    row: str
    stored: str
    expected: str


class Outcome(NamedTuple):
    """What one check found: ``total`` rows that disagree, the first of them in ``findings``."""

    check: str
    total: int
    findings: tuple[Finding, ...]


class Plan(NamedTuple):
    """How an audit goes about it.

    ``counts`` are the rows of the snapshot by name. Row by row, only every ``stride``-th event is looked at, the ones
    whose id leaves ``offset``: 1 and 0 mean all of them.
    """

    counts: Mapping[str, int]
    limit: int
    stride: int
    offset: int


class Price(NamedTuple):
    """A version of a price with what it is for, or without terms where those stored cannot be read.

    ``account_id`` is None for a price of the company or of one of its plans.
    """

    environment_id: int
    account_id: int | None
    id: int
    price_id: int
    number: int
    type: str
    denomination: str
    version: PriceVersion | None
    problem: str


class Check(NamedTuple):
    """A rule by its name, in one sentence, and how rows that break it are found: (total, the first ones)."""

    name: str
    rule: str
    find: Callable[[Reader, Plan, str], Awaitable[Outcome]]


async def plan(reader: Reader, *, limit: int = FINDINGS_MAX) -> Plan:
    """Count what there is, and set the transaction up for statements that read whole tables.

    ``reader`` must be inside a transaction that sees one snapshot (``Database.snapshot``).
    """
    # Whole tables are joined: a nested loop could only be chosen by mistake, on statistics older than the rows.
    await reader.execute("set local work_mem = '128MB'")
    await reader.execute("set local enable_nestloop = off")
    counts: dict[str, int] = {}
    for query in (queries.COUNTS, money.COUNTS, plans.COUNTS, signals.COUNTS, organizations.COUNTS):
        counts.update(await reader.fetchrow(query) or {})
    stride = max(1, counts["events"] // SAMPLED_FROM)
    return Plan(counts, limit, stride, secrets.randbelow(stride))


async def run(reader: Reader, planned: Plan, check: Check) -> Outcome:
    """One check. Data that cannot even be computed with (text that is no JSON, say) is a finding, not a fault."""
    try:
        async with reader.transaction():
            return await check.find(reader, planned, check.name)
    except asyncpg.DataError as error:
        finding = Finding(check.name, "(unreadable data)", str(error), check.rule)
        return Outcome(check.name, 1, (finding,))


async def outcomes(reader: Reader, planned: Plan) -> AsyncIterator[Outcome]:
    """All checks, one after the other."""
    for check in CHECKS:
        yield await run(reader, planned, check)


# --- names ------------------------------------------------------------------------------------------------------------


_PREFIXES: Final = {
    "event": "e",
    "transaction": "t",
    "payment": "pay",
    "refund": "re",
    "invoice": "inv",
    "credit note": "cn",
    "card": "card",
    "link": "pl",
    "step": "ps",
    "grant": "g",
    "tax number": "txi",
}
_PATHS: Final = {
    "account": "{account}",
    "balance": "{account}/balance/{word}",
    "refill": "{account}/balance/{word}/refill",
    "terms": "{account}/invoicing/{word}",
    "subscription": "{account}/plan",
    "flag": "{account}/flags/{word}",
}


def row_name(kind: str, account_id: int, number: int, word: str) -> str:
    """How a row is named to people: its public id, or for what has none of its own, the id of what owns it and a path.

    ``number`` is the id in the account or company, ``word`` a denomination, a period or a key.
    """
    if kind in _PREFIXES:
        return spell_of_account(_PREFIXES[kind], account_id, number)
    if kind in _PATHS:
        return _PATHS[kind].format(account=spell("a", account_id), word=word)
    match kind:
        case "line" | "tax":
            return f"{spell_of_account('inv', account_id, number)}/{kind} {word}"
        case "counter":
            return f"{spell('a', account_id)}/{spell('ep', number)}/{word}"
        case "price" | "plan":
            return f"{spell('p' if kind == 'plan' else 'ep', number)}/versions/{word}"
        case "webhook" | "issuer":
            return spell("w" if kind == "webhook" else "iss", number)
        case "period" | "agreement":
            return f"{spell('a', account_id)}/plan, {kind} {number}"
        case "activity" | "environment":
            return f"{spell('c', account_id)} ({word})"
        case "message" | "series" | "notification" | "delivery" | "topic" | "organization" | "clearance":
            return f"environment {account_id}, {kind} {number or ''}{' ' * bool(number)}{word}"
        case _:
            return f"environment {account_id}, idempotency key {word}"


_Find: TypeAlias = Callable[[Reader, Plan, str], Awaitable[Outcome]]


class _Tray:
    """Findings as they come up, one by one: counted all, kept up to the limit."""

    def __init__(self, check: str, limit: int) -> None:
        self._check, self._limit = check, limit
        self._total = 0
        self._findings: list[Finding] = []

    def add(self, row: tuple[str, int, int, str], stored: str, expected: str) -> None:
        self._total += 1
        if len(self._findings) < self._limit:
            self._findings.append(Finding(self._check, row_name(*row), stored, expected))

    def outcome(self) -> Outcome:
        return Outcome(self._check, self._total, tuple(self._findings))


def _by_sql(query: str, *arguments: object) -> _Find:
    """A check that is one statement of (kind, account_id, number, word, stored, expected) per row that disagrees."""

    async def find(reader: Reader, planned: Plan, name: str) -> Outcome:
        return _outcome(name, await reader.fetch(_limited(query), planned.limit, *arguments))

    return find


def _by_rows(query: str, judge: Callable[[Record], str]) -> _Find:
    """A check of rows of which ``judge`` says what each should be; a share of them where accounts are very many."""

    async def find(reader: Reader, planned: Plan, name: str) -> Outcome:
        tray = _Tray(name, planned.limit)
        stride = max(1, planned.counts["subscriptions"] // SAMPLED_FROM)
        async for row in reader.cursor(query, stride, secrets.randbelow(stride), prefetch=_PREFETCH):
            try:
                expected = judge(row)
            except _UNREADABLE as error:
                expected = f"what can be worked out ({error})"
            if expected:
                tray.add((row["kind"], row["account_id"], row["number"], row["word"]), row["stored"], expected)
        return tray.outcome()

    return find


def _limited(query: str) -> str:
    """The query with its total, cut at $1 rows. Its own CTEs stay inside."""
    return (
        "select found.kind, found.account_id, found.number, found.word, found.stored, found.expected,"
        f" count(*) over () as total from ({query}) as found (kind, account_id, number, word, stored, expected)"
        ' order by found.account_id, found.number, found.word collate "C" limit $1'
    )


def _outcome(name: str, rows: Sequence[Record]) -> Outcome:
    findings = tuple(
        Finding(
            name,
            row_name(row["kind"], row["account_id"], row["number"], row["word"]),
            row["stored"],
            row["expected"],
        )
        for row in rows
    )
    return Outcome(name, rows[0]["total"] if rows else 0, findings)


# --- fractions --------------------------------------------------------------------------------------------------------


def _sum(parts: Iterable[str] | None) -> Fraction:
    """The exact sum of fractions, one per denominator."""
    return sum((Fraction(part) for part in parts or ()), Fraction(0))


def _fraction(text: str | None) -> Fraction | None:
    """The fraction behind a text, None where it is none."""
    try:
        return None if text is None else Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _sum_of(cost: str | None, spilt: str | None) -> Fraction | None:
    """A cost with what of it was not there to pay it; None where one of them is no fraction."""
    covered, rest = _fraction(cost), Fraction(0) if spilt is None else _fraction(spilt)
    return None if covered is None or rest is None else covered + rest


# --- the ledger -------------------------------------------------------------------------------------------------------


async def _residues(reader: Reader, planned: Plan, name: str) -> Outcome:
    """Units posted by usage plus residue against the exact sum of the costs (design 5.3, bar I-57)."""
    tray = _Tray(name, planned.limit)
    async for row in reader.cursor(queries.RESIDUE, prefetch=_PREFETCH):
        owed, residue, posted = _sum(row["parts"]), _fraction(row["residue"]), int(row["posted"])
        if residue is None or posted + residue != owed:
            tray.add(
                ("balance", row["account_id"], 0, row["denomination"]),
                f"posted {posted}, residue {row['residue']}",
                f"together {owed}, the exact cost of its complete events",
            )
    return tray.outcome()


# --- events -----------------------------------------------------------------------------------------------------------


async def _digests(reader: Reader, planned: Plan, name: str) -> Outcome:
    """BLAKE2b-128 of each key against its digest, by which keys are told apart (design 6); a share of very many."""
    tray = _Tray(name, planned.limit)
    async for row in reader.cursor(queries.KEYED, planned.stride, planned.offset, prefetch=_PREFETCH):
        digest = blake2b(row["key"].encode(), digest_size=queries.DIGEST_BYTES).digest()
        if digest != row["key_digest"]:
            tray.add(
                ("event", row["account_id"], row["id"], ""),
                f"key {row['key']}, digest {(row['key_digest'] or b'').hex() or 'none'}",
                f"digest {digest.hex()}",
            )
    return tray.outcome()


async def _seals(reader: Reader, planned: Plan, name: str) -> Outcome:
    """The chain of what was done in each company: numbered without a gap, each row as it was sealed."""
    tray = _Tray(name, planned.limit)
    company, number, before = None, 0, b""
    async for row in reader.cursor(activity.SEALED, prefetch=_PREFETCH):
        if row["company_id"] != company:
            company, number, before = row["company_id"], 0, b""
        number += 1
        place = ("activity", row["company_id"], row["number"], f"activity {row['number']}")
        if row["number"] != number:
            tray.add(place, f"number {row['number']}", f"number {number}: what stood there is gone")
            number = row["number"]
        elif activity.seal(row, before) != row["digest"]:
            tray.add(place, f"seal {row['digest'].hex()[:16]}", "the row that was sealed, after the one before it")
        before = row["digest"]
    return tray.outcome()


_PAYMENT_CODES: Final = sorted(code for code, (kind, _) in REFUSALS.items() if kind is Kind.PAYMENT)


# --- prices -----------------------------------------------------------------------------------------------------------


_UNREADABLE: Final = (
    Refusal,
    ValueError,
    ArithmeticError,
    TypeError,
    AttributeError,
    LookupError,
    msgspec.MsgspecError,
)
"""What stored terms may raise that are none."""


async def _prices(reader: Reader) -> list[Price]:
    """Every version of every price there ever was."""
    rows = await reader.fetch(
        "select p.environment_id, null::bigint as account_id, p.id as price_id, p.type, p.denomination, v.id, v.number,"
        " v.terms, v.effective_at"
        " from event_price p join event_price_version v on v.environment_id = p.environment_id and v.price_id = p.id"
        " union all select a.environment_id, o.account_id, o.price_id, o.type, o.denomination, o.id, o.number, o.terms,"
        " o.effective_at from price_override o join account a on a.id = o.account_id"
    )
    return [_price(row) for row in rows]


def _price(row: Record) -> Price:
    version, problem = None, ""
    try:
        version = price_version(
            id=row["id"],
            price_id=row["price_id"],
            number=row["number"],
            denomination=row["denomination"],
            effective_at=row["effective_at"],
            terms=msgspec.json.decode(row["terms"], type=dict[str, Any]),
        )
    except _UNREADABLE as error:
        problem = str(error)
    return Price(
        row["environment_id"],
        row["account_id"],
        row["id"],
        row["price_id"],
        row["number"],
        row["type"],
        row["denomination"],
        version,
        problem,
    )


async def _terms(reader: Reader, planned: Plan, name: str) -> Outcome:
    """Stored terms that the engine itself could not read any more."""
    tray = _Tray(name, planned.limit)
    for price in await _prices(reader):
        if price.version is None:
            tray.add(("price", 0, price.price_id, str(price.number)), price.problem, "terms that can be read")
    return tray.outcome()


async def _priced(reader: Reader, planned: Plan, name: str) -> Outcome:
    """Each charge against the price it names; of a plain price its cost too, quantity times unit to the last digit."""
    prices = await _prices(reader)
    units = [price.version.unit if price.version else Exact(0, 1) for price in prices]
    rows = await reader.fetch(
        _limited(queries.PRICED),
        planned.limit,
        [price.environment_id for price in prices],
        [price.account_id for price in prices],
        [price.id for price in prices],
        [price.price_id for price in prices],
        [price.type for price in prices],
        [price.denomination for price in prices],
        [price.version is not None and price.version.is_plain for price in prices],
        [str(unit.numerator) for unit in units],
        [str(unit.denominator) for unit in units],
    )
    return _outcome(name, rows)


async def _overages(reader: Reader, planned: Plan, name: str) -> Outcome:
    """Each price of overage against what was not there and what the plan asks for it (contract 2.5)."""
    rows = await reader.fetch(
        "select environment_id, null::bigint as account_id, id, terms from plan_version union all"
        " select a.environment_id, o.account_id, o.version_id, o.terms from plan_override o"
        " join account a on a.id = o.account_id"
    )
    found: list[tuple[int, int | None, int, str, str, str, str]] = []
    for row in rows:
        try:
            terms = plan_terms(msgspec.json.decode(row["terms"]))
        except _UNREADABLE:
            continue
        whose = (row["environment_id"], row["account_id"], row["id"])
        for denomination, balance in terms.balances.items():
            if balance.overage is not None:
                (numerator, denominator), into = balance.overage
                found.append((*whose, denomination, into, str(numerator), str(denominator)))
    columns = [list(column) for column in zip(*found, strict=True)] or [[] for _ in range(7)]
    return _outcome(name, await reader.fetch(_limited(queries.OVERAGES), planned.limit, *columns))


async def _rated(reader: Reader, planned: Plan, name: str) -> Outcome:
    """Charges of tiers, packages, free units, minimum and cap, rated again after what their period had seen."""
    tray = _Tray(name, planned.limit)
    versions = {
        (price.environment_id, price.account_id, price.id): price.version
        for price in await _prices(reader)
        if price.version is not None and not price.version.is_plain
    }
    query = reader.cursor(
        queries.RATED,
        [environment_id for environment_id, _, _ in versions],
        [account_id for _, account_id, _ in versions],
        [version_id for _, _, version_id in versions],
        planned.stride,
        planned.offset,
        prefetch=_PREFETCH,
    )
    async for row in query:
        try:
            expected = _rated_again(row, versions[row["environment_id"], row["owner_id"], row["id"]])
        except (ValueError, ArithmeticError, AttributeError, TypeError) as error:
            expected = f"a quantity and a past that can be rated ({error})"
        if expected:
            tray.add(
                ("event", row["account_id"], row["event_id"], row["denomination"]),
                f"quantity {row['quantity']}, cost {row['cost']} {row['denomination']}, before it {row['prior']}",
                expected,
            )
    return tray.outcome()


def _rated_again(row: Record, version: PriceVersion) -> str:
    """What a charge should be by its version, or nothing where it is that."""
    prior = msgspec.json.decode(row["prior"] or "null")
    if version.is_counted and (prior is None or "period" not in prior):
        return "" if row["state"] == queries.CANCELLED else "what its period had seen before it"
    before = [_fraction((prior or {}).get(name)) for name in ("units", "billed", "counted")]
    units, billed, counted = (Fraction(0) if part is None else part for part in before)
    rated = rate(version, exact(row["quantity"]), Counter(_exact(units), _exact(billed)))
    cost, again = _sum_of(row["cost"], row["spilt"]), Fraction(*rated.cost)
    is_override = row["is_settled"] and cost is not None and cost.denominator == 1
    if cost != again and not is_override:
        return f"cost {again}"
    if "units" in (prior or {}) and counted != Fraction(*rated.counted):
        return f"counted {Fraction(*rated.counted)}"
    return ""


def _exact(value: Fraction) -> Exact:
    return Exact(value.numerator, value.denominator)


async def _counters(reader: Reader, planned: Plan, name: str) -> Outcome:
    """What a period has seen of a counted price against the events it has seen (design 11, Rating)."""
    tray = _Tray(name, planned.limit)
    async for row in reader.cursor(queries.COUNTERS, prefetch=_PREFETCH):
        units, billed = _sum(row["units_parts"]), _sum(row["billed_parts"])
        if (_fraction(row["units"]), _fraction(row["billed"])) != (units, billed):
            tray.add(
                ("counter", row["account_id"], row["price_id"], row["period"]),
                f"units {row['units']}, billed {row['billed']}",
                f"units {units}, billed {billed}, the sums over its events",
            )
    return tray.outcome()


# --- refills ----------------------------------------------------------------------------------------------------------


async def _refill_dates(reader: Reader, planned: Plan, name: str) -> Outcome:
    """Each next date counted again from the first one, in the company's zone; a share of very many accounts.

    Where the company was changed since, it may have moved to another zone: then the date may be off by as much.
    """
    tray = _Tray(name, planned.limit)
    stride = max(1, planned.counts["refills"] // SAMPLED_FROM)
    query = reader.cursor(money.REFILL_DATES, stride, secrets.randbelow(stride), prefetch=_PREFETCH)
    async for row in query:
        try:
            expected = monthly(row["anchor_at"], row["number"], ZoneInfo(row["zone"]))
        except (ValueError, OverflowError, ZoneInfoNotFoundError) as error:
            tray.add(("refill", row["account_id"], 0, row["denomination"]), str(error), "dates that can be counted")
            continue
        slack = _ZONE_MOVE if row["is_moved"] else timedelta(0)
        if abs(row["next_at"] - expected) > slack:
            tray.add(
                ("refill", row["account_id"], 0, row["denomination"]),
                f"next {row['next_at']}",
                f"{expected}, number {row['number']} from {row['anchor_at']} in {row['zone']}",
            )
    return tray.outcome()


# --- the checks -------------------------------------------------------------------------------------------------------


_MONEY: Final = (
    Check("payments", "a payment that succeeded moved its balance once, any other nothing", _by_sql(money.PAYMENTS)),
    Check(
        "payment_states",
        "payments are open, skipped or ended, with all that belongs to it",
        _by_sql(money.PAYMENT_STATES),
    ),
    Check("returned", "what went back of a payment is the sum of its refunds and disputes", _by_sql(money.RETURNED)),
    Check("refunds", "a refund takes its units off once, a won dispute gives them back", _by_sql(money.REFUNDS)),
    Check("causes", "movements of money name what caused them, of their account", _by_sql(money.CAUSES)),
    Check("refills", "a refill has its dates, and one open payment of its balance at most", _by_sql(money.REFILLS)),
    Check("refill_dates", "monthly refills come again on dates counted from the first", _refill_dates),
    Check("invoices", "an invoice is the sum of what stands on it, its status what remains", _by_sql(money.INVOICES)),
    Check("lines", "lines are numbered, of usage within a unit of their exact cost", _by_sql(money.LINES)),
    Check("taxes", "taxes by rate come to the same again", _by_sql(money.TAXES)),
    Check("invoice_moves", "taxes, manual lines and voids were posted once", _by_sql(money.INVOICE_MOVES)),
    Check("credit_notes", "a credit note was posted once", _by_sql(money.CREDIT_NOTES)),
    Check("billed", "an invoice bills what was posted in its range, to the unit", _by_sql(money.BILLED)),
    Check("ranges", "ranges of invoices do not overlap and end where the terms say", _by_sql(money.RANGES)),
    Check("numbers", "invoices and credit notes are numbered without a gap", _by_sql(money.NUMBERS)),
    Check(
        "settlements",
        "invoices are paid by payments that succeeded, of their units at most",
        _by_sql(money.SETTLEMENTS),
    ),
    Check("cards", "an account that has cards has one default", _by_sql(money.CARDS)),
    Check("pauses", "a pause or a credit block says since when and by whom", _by_sql(money.PAUSES)),
    Check("secrets", "the secrets of companies are sealed", _by_sql(money.SECRETS)),
)

_PLANS: Final = (
    Check(
        "plan_payments",
        "a plan's payment that came in paid for one step, any other for none",
        _by_sql(plans.PLAN_PAYMENTS),
    ),
    Check("steps", "a step charges and credits what its lines say, once for its date", _by_sql(plans.STEPS)),
    Check("step_moves", "a step moved balances once, by its lines and units", _by_sql(plans.STEP_MOVES)),
    Check(
        "periods",
        "periods do not overlap, and cost and give back what their steps say",
        _by_sql(plans.PERIODS),
    ),
    Check(
        "subscriptions",
        "a plan in force is in its last period, and due when that says so",
        _by_sql(plans.SUBSCRIPTIONS),
    ),
    Check("plan_dates", "plans renew on dates counted from the first", _by_rows(plans.PLAN_DATES, plans.judge_dates)),
    Check("grants", "grants are what steps granted, and end with their period", _by_sql(plans.GRANTS)),
    Check("grant_moves", "what was given by hand came once, and its rest ended once", _by_sql(plans.GRANT_MOVES)),
    Check("burned", "grants are burned down by what usage took, and hold no more than is there", _by_sql(plans.BURNED)),
    Check("plan_numbers", "versions of a plan are numbered without a gap", _by_sql(plans.PLAN_NUMBERS)),
    Check(
        "plan_terms",
        "the terms of every plan can be read, agreed ones are laid over them",
        _by_rows(plans.PLAN_TERMS, plans.judge_terms),
    ),
    Check("plan_refills", "a plan fills the balances that it says it fills", _by_sql(plans.PLAN_REFILLS)),
)

_SIGNALS: Final = (
    Check("told", "a notification says what the transaction of its sequence moved, once", _by_sql(signals.TOLD)),
    Check("untold", "every transaction that somebody hears is told", _by_sql(signals.UNTOLD)),
    Check("published", "what is published has its text, and the next place", _by_sql(signals.PUBLISHED)),
    Check("deliveries", "deliveries are where their attempts have brought them", _by_sql(signals.DELIVERIES)),
    Check("heard", "what is published is on its way to every webhook that hears it", _by_sql(signals.HEARD)),
    Check("webhooks", "webhooks have sealed secrets, and hear what there is to hear", _by_sql(signals.WEBHOOKS)),
    Check("filled", "a balance was last filled to what it held then", _by_sql(signals.FILLED)),
    Check("flags", "flags set by hand and pauses are as their history says", _by_sql(signals.FLAGS)),
    Check("replays", "what is to be taken up of events that wait says up to where", _by_sql(signals.REPLAYS)),
)

_ORGANIZATIONS: Final = (
    Check(
        "organizations",
        "organizations stand in trees, and who stands at the top has the account",
        _by_sql(organizations.ORGANIZATIONS),
    ),
    Check("tax_ids", "tax numbers are told apart, and looked up until it is known", _by_sql(organizations.TAX_IDS)),
    Check("issuers", "issuers have the keys that their algorithm takes", _by_sql(organizations.ISSUERS)),
    Check("clearances", "what was cleared is of organizations that exist", _by_sql(organizations.CLEARANCES)),
)

CHECKS: Final = (
    Check("balances", "a balance is the sum of its transactions", _by_sql(queries.BALANCES)),
    Check("chain", "transactions are numbered without a gap, each starts where the last ended", _by_sql(queries.CHAIN)),
    Check("ends", "a balance stands where its last transaction ended", _by_sql(queries.ENDS)),
    Check("holds", "what is pending is what open holds keep", _by_sql(queries.HOLDS)),
    Check("residue", "units posted by usage plus residue are the exact sum of costs", _residues),
    Check("last", "the last event of a balance shows the residue it has", _by_sql(queries.LAST)),
    Check("arrived", "what has arrived on a balance is all that moved it but usage", _by_sql(queries.ARRIVED)),
    Check("postings", "charges name usage transactions that exist, and where those ended", _by_sql(queries.POSTINGS)),
    Check("totals", "a usage transaction is what its events moved", _by_sql(queries.TOTALS)),
    Check("amounts", "a charge moves or holds its cost, to the unit", _by_sql(queries.AMOUNTS)),
    Check(
        "states",
        "events are pending, complete, cancelled or suspended, with all that belongs to it",
        _by_sql(queries.EVENT_STATES),
    ),
    Check("keys", "a key has one outcome, accepted or refused", _by_sql(queries.KEYS)),
    Check("digests", "digests are those of their keys", _digests),
    Check(
        "refusals",
        "refused events are marked at their account and had no effect",
        _by_sql(queries.REFUSALS, _PAYMENT_CODES),
    ),
    Check("terms", "the terms of every price can be read", _terms),
    Check("prices", "charges name a price of theirs and cost what it says", _priced),
    Check("overages", "overage is what was not there, at the price of the plan", _overages),
    Check("ratings", "tiers, packages, minimum and cap come to the same again", _rated),
    Check("counters", "counted prices have seen the units and amounts of their events", _counters),
    *_MONEY,
    *_PLANS,
    *_SIGNALS,
    *_ORGANIZATIONS,
    Check(
        "ticks",
        "no id of an account lies above its tick",
        _by_sql(queries.TICKS.format(more=money.GIVEN + plans.GIVEN + organizations.GIVEN)),
    ),
    Check(
        "owners",
        "every row belongs to an account, a balance, an event, a price that exist",
        _by_sql(queries.OWNERS + money.OWNERS + plans.OWNERS + signals.OWNERS),
    ),
    Check(
        "environments",
        "live time is real, test clocks are not behind",
        _by_sql(queries.ENVIRONMENTS + money.ENVIRONMENTS),
    ),
    Check(
        "bounds",
        "amounts and quantities lie within their bounds",
        _by_sql(queries.BOUNDS + money.BOUNDS + plans.BOUNDS),
    ),
    Check("spellings", "stored fractions are fractions", _by_sql(queries.SPELLINGS + money.SPELLINGS)),
    Check("answers", "stored answers were given", _by_sql(queries.ANSWERS)),
    Check("activity", "what was done by whom is what was sealed", _seals),
)
"""All checks, in the order in which they are made."""
