"""The objects of the API, as they are written to the wire. Sources: contract 2, design 4 and 10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tenuto.core import ledger
from tenuto.core.event import Charge, Event, GatedEvent
from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.invoice import InvoiceSettings, settings_of
from tenuto.core.ledger import Transaction
from tenuto.core.money import Exact, exact_text, fraction_text, parse_fraction, residue_text
from tenuto.core.payment import RefillCaps
from tenuto.core.topic import level_fields
from tenuto.store.accounts import Account, AccountPlan, Environment, Key
from tenuto.store.catalog import terms_of_row
from tenuto.store.database import Record
from tenuto.store.flags import FlagRow
from tenuto.store.records import BalanceRow

from .body import spelled


class Shape(msgspec.Struct):
    """One object on the wire."""


class UserOut(Shape):
    """A person who signs in to the console."""

    id: str
    email: str


class CompanyOpenedOut(Shape):
    """A new company. ``api_key`` is shown this once."""

    id: str
    name: str
    mode: str
    api_key: str
    user: UserOut


class CompanyOut(Shape):
    """A company and the settings of the half that the key belongs to."""

    id: str
    name: str
    mode: str
    time_zone: str
    default_credit_limit: int
    late_event_seconds: int
    ahead_event_seconds: int
    stripe_key: str | None
    stripe_publishable_key: str | None
    stripe_webhook_secret: str | None
    refill_caps: RefillCapsOut
    plans: PlanSettingsOut
    levels: list[dict[str, Any]]
    invoicing: dict[str, Any]
    billables: dict[str, Any]
    billable_prefixes: list[str]
    created_at: str | None


class PlanSettingsOut(Shape):
    """How plans change where no scheme is named, and what becomes of one whose renewal was refused for good."""

    scheme: str
    failed_renewal: str


class RefillCapsOut(Shape):
    """How often one balance may be refilled by itself, and for how much a day."""

    per_hour: int
    per_day: int | None
    amount_per_day: int | None


class KeyOut(Shape):
    """An API key without its secret."""

    id: str
    name: str
    mode: str
    hint: str
    scopes: list[str]
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class KeyIssuedOut(KeyOut):
    """A new API key. ``api_key`` is shown this once."""

    api_key: str


class ClockOut(Shape):
    """The clock of a test company, and per sweep what was done by moving it."""

    now: str | None
    offset_seconds: int
    done: dict[str, int]


class AccountOut(Shape):
    """An end customer of the company."""

    id: str
    name: str
    email: str
    company_id: str
    plan_id: str | None
    plan_renewal_cadence: str | None
    billing_address_id: str | None
    stripe_id: str | None
    metadata: msgspec.Raw
    last_plan_renewal: str | None
    next_plan_renewal: str | None
    plan_status: str
    flags: list[FlagOut]
    credit_limit: int | None
    owed_balance: int
    owed_balances: dict[str, int]
    paused: bool
    credit_blocked: bool
    usage_suspended: bool
    capture_suspended: bool
    paused_at: str | None
    paused_by: str | None
    credit_blocked_at: str | None
    credit_blocked_by: str | None
    usage_suspended_at: str | None
    events_waiting: int
    replaying: bool
    organization_id: str | None
    address: dict[str, str] | None
    currency: str | None
    created_at: str | None
    updated_at: str | None
    card_collector_url: str | msgspec.UnsetType = msgspec.UNSET


class FlagOut(Shape):
    """A flag as it stands. ``value`` is the limit or the text; ``overrides`` what the plan says under one set by hand.

    ``source`` is `plan`, `operator` or `system`; `none`: nobody set it.
    """

    name: str
    type: str | None
    enabled: bool
    value: int | str | None
    denomination: str | None
    source: str
    overrides: bool | int | str | dict[str, str] | None
    updated_at: str | None


class BalanceOut(Shape):
    """A balance now: ``available`` is the amount less what holds reserve."""

    account_id: str
    denomination: str
    amount: int
    pending: int
    available: int
    residue: str
    residue_fraction: str
    credit_limit: int | None
    last_periodic_refill: str | None
    next_periodic_refill: str | None
    threshold: int | None
    refill_amount: int | None
    usd_charge: int | None
    charge_denomination: str | None
    refill_monthly: bool
    refill_parked: str | None
    managed_by_plan_id: str | None
    plan_variable_amount: int | None
    created_at: str | None
    updated_at: str | None


class BalanceAfterOut(Shape):
    """A balance right after a request."""

    account_id: str
    denomination: str
    amount: int
    pending: int
    available: int
    residue: str
    residue_fraction: str
    updated_at: str | None


class CostOut(Shape):
    """What an event costs: ``exact`` to the last fraction; ``amount`` the whole units it moved, or holds."""

    denomination: str
    amount: int
    exact: str


class EventOut(Shape):
    """An event. ``costs`` and ``balances`` are there when it costs something in several denominations."""

    id: str | None
    account_id: str
    type: str
    quantity: int | str
    state: str
    gated: bool
    key: str | None
    cost: CostOut | None
    balance: BalanceAfterOut | None
    transaction_id: str | None
    metadata: msgspec.Raw
    tag: str
    cogs_amount: int | None
    cogs_denomination: str | None
    parent_event_id: str | None
    reason: str | None
    occurred_at: str | None
    recorded_at: str | None
    expires_at: str | None
    finished_at: str | None
    created_at: str | None
    costs: list[CostOut] | msgspec.UnsetType = msgspec.UNSET
    balances: list[BalanceAfterOut] | msgspec.UnsetType = msgspec.UNSET
    dry_run: bool | msgspec.UnsetType = msgspec.UNSET


class GatedEventOut(Shape):
    """A refused event with the refusal it got."""

    id: str
    account_id: str
    type: str
    quantity: int | str
    state: str
    key: str | None
    code: str
    details: dict[str, Any]
    metadata: msgspec.Raw
    tag: str
    request_id: str
    occurred_at: str | None
    recorded_at: str | None
    created_at: str | None


class AccountNameOut(Shape):
    """Whose transaction it is."""

    account_id: str
    name: str


class TransactionEventOut(Shape):
    """An event that a transaction is made of."""

    event_id: str
    type: str


class TransactionOut(Shape):
    """One movement of one balance; ``book`` is its other side."""

    id: str
    account_id: str
    denomination: str
    seq: int
    type: str
    book: str
    description: str
    unit_cost: int | str | None
    amount: int
    starting_balance: int
    ending_balance: int
    max_value_billing_amount: int | str | None
    max_value_billing_previous_id: str | None
    cause_id: str | None
    account: AccountNameOut
    event_ids: list[str]
    events: list[TransactionEventOut]
    created_at: str | None


class EventPriceOut(Shape):
    """A price in force, at its latest version."""

    id: str
    version: int
    type: str
    denomination: str
    model: str
    amount: str | None
    per: int | None
    tiers: list[dict[str, Any]] | None
    free_units: int
    minimum: str | None
    cap: str | None
    max_value_billing: bool
    match: dict[str, Any]
    effective_at: str | None
    created_at: str | None


class AgreedPriceOut(EventPriceOut):
    """A price agreed with one account, at its latest version."""

    account_id: str


class LineOut(Shape):
    """One explained part of a cost: ``units`` at ``unit_cost`` each make ``exact``."""

    what: str
    units: str
    unit_cost: str
    exact: str


class OverageOut(Shape):
    """What was not there on the balance of ``denomination``: ``units`` at ``unit_cost`` each, by ``plan_id``."""

    denomination: str
    units: str
    unit_cost: str
    plan_id: str | None


class ChargeExplainedOut(Shape):
    """Why an event moved one balance by what it did; for ``overage`` where another balance did not cover it."""

    denomination: str
    exact: str
    lines: list[LineOut]
    residue_before: str | None
    residue_after: str | None
    amount: int
    price: EventPriceOut | None
    overage: OverageOut | None
    transaction: TransactionOut | None


class ExplanationOut(Shape):
    """Why an event cost what it did, from its price to its transaction."""

    event: msgspec.Raw
    sentence: str
    price: EventPriceOut | None
    lines: list[LineOut]
    exact: str | None
    amount: int | None
    denomination: str | None
    residue_before: str | None
    residue_after: str | None
    transaction: TransactionOut | None
    charges: list[ChargeExplainedOut]


encode = msgspec.json.Encoder().encode
NULL = msgspec.Raw(b"null")


def wrapped(data: object) -> bytes:
    """``{"data": …}``."""
    return b'{"data":' + encode(data) + b"}"


def listed(data: Sequence[object], next_cursor: str | None) -> bytes:
    """A page of a list."""
    return encode({"data": data, "has_more": next_cursor is not None, "next_cursor": next_cursor})


def raw(json_text: str | None) -> msgspec.Raw:
    """Stored JSON as it was given; null where there is none."""
    return NULL if json_text is None else msgspec.Raw(json_text.encode())


def number(text: str) -> int | str:
    """A quantity as a JSON number where it is whole, else as decimal text."""
    return text if "." in text or "/" in text else int(text)


def company(environment: Environment) -> CompanyOut:
    """A company with the settings of one half."""
    terms = environment.terms
    return CompanyOut(
        id=spell("c", environment.company_id),
        name=environment.company_name,
        mode=environment.mode,
        time_zone=environment.zone_name,
        default_credit_limit=terms.default_credit_limit,
        late_event_seconds=int(terms.late.total_seconds()),
        ahead_event_seconds=int(terms.ahead.total_seconds()),
        stripe_key=environment.stripe.hint,
        stripe_publishable_key=environment.stripe.publishable_key,
        stripe_webhook_secret="whsec_…" if environment.stripe.webhook_secret is not None else None,
        refill_caps=RefillCapsOut(**RefillCaps(**environment.money.get("refills", {}))._asdict()),
        plans=PlanSettingsOut(
            **{"scheme": "sleeping_beauty", "failed_renewal": "past_due", **environment.money.get("plans", {})}
        ),
        levels=[
            {**level_fields(rule.level), "denomination": rule.denomination, "action": rule.action, "flag": rule.flag}
            for rule in terms.listening.rules
        ],
        invoicing=invoicing(settings_of(environment.money)),
        billables=environment.money.get("billables", {}),
        billable_prefixes=environment.money.get("billable_prefixes", []),
        created_at=spelled(environment.created_at),
    )


def invoicing(settings: InvoiceSettings) -> dict[str, Any]:
    """How a company invoices, with the defaults filled in, in the words in which it is set."""
    return {
        "prefix": settings.prefix,
        "grace_seconds": int(settings.grace.total_seconds()),
        "terms_days": settings.terms_days,
        "seller": dict(settings.seller),
        "taxes": [{"name": tax.name, "rate": tax.rate, "inclusive": tax.is_inclusive} for tax in settings.taxes],
        "dunning": [{"days": step.days, "action": step.action} for step in settings.dunning],
        "currency": settings.currency,
        "footer": settings.footer,
    }


def key_fields(key: Key, *, live: bool) -> dict[str, Any]:
    """The public part of a key."""
    return {
        "id": spell("k", key.id),
        "name": key.name,
        "mode": "live" if live else "test",
        "hint": key.hint,
        "scopes": sorted(key.scopes),
        "created_at": spelled(key.created_at),
        "expires_at": spelled(key.expires_at),
        "revoked_at": spelled(key.revoked_at),
        "last_used_at": spelled(key.last_used_at),
    }


def account(found: Account, owed: Mapping[str, int] | None = None, currency: str = "USD") -> AccountOut:
    """An account, with what its open invoices still wait for, by currency; ``currency`` is the company's.

    An account that never was on a plan says so by null and NONE.
    """
    plan = found.plan
    return AccountOut(
        id=spell("a", found.id),
        name=found.name,
        email=found.email,
        company_id=spell("c", found.company_id),
        plan_id=None if plan is None else spell("p", plan.plan_id),
        plan_renewal_cadence=None if plan is None else plan.cadence,
        billing_address_id=None,
        stripe_id=found.stripe_id,
        metadata=raw(found.metadata),
        last_plan_renewal=None if plan is None else spelled(plan.renewed_at),
        next_plan_renewal=None if plan is None else _next_renewal(plan),
        plan_status="NONE" if plan is None else plan.status.upper(),
        flags=[flag(row) for row in found.flags],
        credit_limit=found.credit_limit,
        owed_balance=(owed or {}).get(currency, 0),
        owed_balances=dict(owed or {}),
        paused=found.paused_at is not None,
        credit_blocked=found.credit_blocked_at is not None,
        usage_suspended=found.usage_suspended_at is not None,
        capture_suspended=found.capture_suspended,
        paused_at=spelled(found.paused_at),
        paused_by=found.paused_by,
        credit_blocked_at=spelled(found.credit_blocked_at),
        credit_blocked_by=found.credit_blocked_by,
        usage_suspended_at=spelled(found.usage_suspended_at),
        events_waiting=found.waiting,
        replaying=found.is_replaying,
        organization_id=found.organization_id,
        address=None if found.address is None else dict(found.address),
        currency=found.currency,
        created_at=spelled(found.created_at),
        updated_at=spelled(found.updated_at),
    )


def _next_renewal(plan: AccountPlan) -> str | None:
    is_renewing = plan.status in {"trialing", "active"} and not plan.cancels_at_end
    return spelled(plan.period_end) if is_renewing else None


def flag(row: FlagRow) -> FlagOut:
    """A flag as it stands."""
    found, over = row.flag, row.flag.overrides
    return FlagOut(
        name=found.name,
        type=found.type,
        enabled=found.enabled,
        value=found.value,
        denomination=found.denomination,
        source=found.source,
        overrides=dict(over) if isinstance(over, Mapping) else over,
        updated_at=spelled(row.updated_at),
    )


def balance(row: BalanceRow) -> BalanceOut:
    """A balance as it stands. Its refill of every month is shown before what its plan includes again and again."""
    refill, plan = row.refill, row.plan
    periodic = plan if plan is not None and (refill is None or not refill.is_monthly) else refill
    return BalanceOut(
        account_id=spell("a", row.account_id),
        denomination=row.denomination,
        amount=row.amount,
        pending=row.pending,
        available=row.amount - row.pending,
        residue=residue_text(row.residue),
        residue_fraction=fraction_text(row.residue),
        credit_limit=row.credit_limit,
        last_periodic_refill=spelled(periodic.last_at) if periodic is not None else None,
        next_periodic_refill=spelled(periodic.next_at) if periodic is not None else None,
        threshold=refill.threshold if refill is not None else None,
        refill_amount=refill.amount if refill is not None else None,
        usd_charge=refill.charge_amount if refill is not None else None,
        charge_denomination=refill.charge_denomination if refill is not None else None,
        refill_monthly=refill is not None and refill.is_monthly,
        refill_parked=refill.parked_code if refill is not None else None,
        managed_by_plan_id=spell("p", plan.id) if plan is not None else None,
        plan_variable_amount=plan.variable_units if plan is not None else None,
        created_at=spelled(row.created_at),
        updated_at=spelled(row.updated_at),
    )


class EventWriter:
    """Writes the events of one answer; a balance that several of them share is spelled once."""

    def __init__(self) -> None:
        self._balances: dict[str, tuple[tuple[object, ...], BalanceAfterOut]] = {}

    def event(self, event: Event, *, dry_run: bool = False) -> EventOut:
        """An event with its cost and the balance right after its request."""
        charges, account_id = event.charges, event.account_id
        parent, recorded_at = event.parent_event_id, spelled(event.recorded_at)
        out = EventOut(
            None if dry_run else spell_of_account("e", account_id, event.id),
            spell("a", account_id),
            event.type,
            number(event.quantity),
            event.state,
            event.gated,
            event.key,
            _cost(charges[0]) if charges else None,
            self._balance(event, charges[0]) if charges else None,
            _transaction_id(event, dry_run=dry_run),
            raw(event.metadata),
            event.tag,
            event.cogs_amount,
            event.cogs_denomination,
            None if parent is None else spell_of_account("e", account_id, parent),
            event.reason,
            recorded_at if event.occurred_at is event.recorded_at else spelled(event.occurred_at),
            recorded_at,
            spelled(event.expires_at),
            spelled(event.finished_at),
            recorded_at,
        )
        if len(charges) > 1:
            out.costs = [_cost(charge) for charge in charges]
            # Usage and overage may have moved one balance both: it is shown once.
            seen = {charge.denomination: charge for charge in charges}
            out.balances = [self._balance(event, charge) for charge in seen.values()]
        if dry_run:
            out.dry_run = True
        return out

    def _balance(self, event: Event, charge: Charge) -> BalanceAfterOut:
        denomination, amount, pending, residue = (
            charge.denomination,
            charge.balance_amount,
            charge.balance_pending,
            charge.residue,
        )
        at = event.finished_at or event.recorded_at
        slot = (amount, pending, residue, at)
        known = self._balances.get(denomination)
        if known is not None and known[0] == slot:
            return known[1]
        after = BalanceAfterOut(
            spell("a", event.account_id),
            denomination,
            amount,
            pending,
            amount - pending,
            residue_text(residue),
            fraction_text(residue),
            spelled(at),
        )
        self._balances[denomination] = (slot, after)
        return after


def _cost(charge: Charge) -> CostOut:
    return CostOut(charge.denomination, charge.amount, exact_text(charge.cost))


def _transaction_id(event: Event, *, dry_run: bool) -> str | None:
    if not event.charges or event.charges[0].transaction_id is None or dry_run:
        return None
    return spell_of_account("t", event.account_id, event.charges[0].transaction_id)


def gated_event(found: GatedEvent) -> GatedEventOut:
    """A refused event."""
    return GatedEventOut(
        id=spell_of_account("e", found.account_id, found.id),
        account_id=spell("a", found.account_id),
        type=found.event.type,
        quantity=number(found.event.quantity_text),
        state=found.event.state,
        key=found.event.key,
        code=found.code,
        details=dict(found.details),
        metadata=raw(found.event.metadata),
        tag=found.event.tag,
        request_id=found.request_id,
        occurred_at=spelled(found.occurred_at),
        recorded_at=spelled(found.recorded_at),
        created_at=spelled(found.recorded_at),
    )


def transaction(row: Record) -> TransactionOut:
    """A transaction as it was read, with its account's name and its events."""
    account_id = row["account_id"]
    events = msgspec.json.decode(row["events"]) if row["events"] else []
    previous = row["max_value_billing_previous_id"]
    return TransactionOut(
        id=spell_of_account("t", account_id, row["id"]),
        account_id=spell("a", account_id),
        denomination=row["denomination"],
        seq=row["seq"],
        type=row["type"],
        book=row["book"],
        description=row["description"],
        unit_cost=_unit_cost(row["unit_cost"]),
        amount=row["amount"],
        starting_balance=row["starting_balance"],
        ending_balance=row["ending_balance"],
        max_value_billing_amount=_unit_cost(row["max_value_billing_amount"]),
        max_value_billing_previous_id=None if previous is None else spell_of_account("t", account_id, previous),
        cause_id=cause_of(
            account_id,
            row["id"],
            ledger.PAYMENT_BOOK if row["is_of_payment"] else row["book"],
            row["type"],
            row["cause_id"],
        ),
        account=AccountNameOut(account_id=spell("a", account_id), name=row["account_name"]),
        event_ids=[spell_of_account("e", account_id, id) for id, _ in events],
        events=[TransactionEventOut(event_id=spell_of_account("e", account_id, id), type=kind) for id, kind in events],
        created_at=spelled(row["recorded_at"]),
    )


_CAUSES = {
    ledger.DEPOSIT_BOOK: "pay",
    ledger.REFILL_BOOK: "pay",
    ledger.PAYMENT_BOOK: "pay",
    ledger.REFUND_BOOK: "re",
    ledger.REFUND_CREDIT_BOOK: "re",
    ledger.REFUND_FAILED_BOOK: "re",
    ledger.DISPUTE_BOOK: "re",
    ledger.DISPUTE_WON_BOOK: "re",
    ledger.CREDIT_NOTE_BOOK: "cn",
    ledger.PLAN_BOOK: "ps",
    ledger.PRORATION_BOOK: "ps",
    ledger.GRANT_BOOK: "ps",
    ledger.EXPIRY_BOOK: "ps",
}


def cause_of(account_id: int, id: int, book: str, type: str, cause_id: int | None) -> str | None:  # noqa: A002
    """The public id of what moved a balance: a payment, a refund, a credit note, a plan's step, a grant, an invoice.

    Units that end by themselves are their own cause, which says nothing.
    """
    if cause_id is None or cause_id == id:
        return None
    return spell_of_account("g" if type == "GRANT" else _CAUSES.get(book, "inv"), account_id, cause_id)


def made_transaction(made: Transaction, account_id: int, name: str) -> TransactionOut:
    """A transaction that a verb just made, without events."""
    return TransactionOut(
        id=spell_of_account("t", account_id, made.id),
        account_id=spell("a", account_id),
        denomination=made.denomination,
        seq=made.seq,
        type=made.type,
        book=made.book,
        description=made.description,
        unit_cost=None,
        amount=made.amount,
        starting_balance=made.starting_balance,
        ending_balance=made.ending_balance,
        max_value_billing_amount=None,
        max_value_billing_previous_id=None,
        cause_id=cause_of(account_id, made.id, made.book, made.type, made.cause_id),
        account=AccountNameOut(account_id=spell("a", account_id), name=name),
        event_ids=[],
        events=[],
        created_at=spelled(made.recorded_at),
    )


def _unit_cost(text: str | None) -> int | str | None:
    if text is None:
        return None
    value = parse_fraction(text)
    return value.numerator if value.denominator == 1 else exact_text(value)


def event_price(row: Record) -> EventPriceOut:
    """A price at its latest version."""
    return price_shape(row, row["id"], row["number"], terms_of_row(row))


def price_shape(row: Record, price_id: int, version: int, terms: Mapping[str, Any]) -> EventPriceOut:
    """A price at one of its versions."""
    return EventPriceOut(
        id=spell("ep", price_id),
        version=version,
        type=row["type"],
        denomination=row["denomination"],
        model=terms["model"],
        amount=terms["amount"],
        per=terms["per"],
        tiers=terms["tiers"],
        free_units=terms["free_units"],
        minimum=terms["minimum"],
        cap=terms["cap"],
        max_value_billing=terms["max_value_billing"],
        match=msgspec.json.decode(row["match"]),
        effective_at=spelled(row["effective_at"]),
        created_at=spelled(row["created_at"]),
    )


def agreed_price(row: Record) -> AgreedPriceOut:
    """A price agreed with an account at its latest version."""
    price = msgspec.structs.asdict(event_price(row))
    return AgreedPriceOut(**price, account_id=spell("a", row["account_id"]))


def line(what: str, units: Exact, unit: Exact, exact: Exact) -> LineOut:
    """One line of an explanation."""
    return LineOut(what=what, units=exact_text(units), unit_cost=exact_text(unit), exact=exact_text(exact))
