"""Invoices: what a month comes to, what of it is still to be paid, and what pays what.

The problem, on one example. An account pays by invoice, in dollars, with 20 percent tax on top. In January it uses
1,000 cents' worth; by the time the invoice is final it has used 300 more, and in March it pays:

    step                    balance   on the invoice                            why
    January's usage         -1000     nothing yet                               usage is posted as it happens
    cut on 1 February       -1000     draft: subtotal 1000, tax 200             all posted up to this tick, no more
    usage in the grace      -1300     the same                                  it belongs to the next invoice
    final an hour later     -1500     INV-000001: total 1200, due 1200          the tax is posted: -200
    a deposit of 500        -1000     paid 500, 700 remain                      what comes in pays the oldest first
    a credit note of 700    -300      credited 700, nothing remains: paid       only the new usage is left

The balance is the truth and an invoice explains a part of it. An account that has paid ahead owes less than its
invoice comes to: with 400 cents on the balance before January only 800 would be due, and 400 *applied*. That is told
from the *position* of an invoice: the balance without what was posted after the cut, and without what earlier invoices
still wait for. Sources: contract 2.7 and 3.8, design 11, bar I-55 and I-56; decisions 0016 to 0019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final, Literal, NamedTuple

from .event import AccountState
from .ledger import (
    ADJUSTMENT_BOOK,
    CREDIT_NOTE_BOOK,
    DEPOSIT_BOOK,
    DISPUTE_BOOK,
    DISPUTE_WON_BOOK,
    EXPIRY_BOOK,
    GRANT_BOOK,
    INVOICE_ITEM_BOOK,
    PAYMENT_BOOK,
    REFILL_BOOK,
    REFUND_BOOK,
    REFUND_CREDIT_BOOK,
    REFUND_FAILED_BOOK,
    TAX_BOOK,
    VOID_BOOK,
    Balance,
    Transaction,
    move,
    open_balance,
)
from .money import AMOUNT_MAX, BALANCE_MAX, Exact, allocate, exact, plus, round_half_up, times
from .outcomes import Refusal, invalid
from .payment import Payment
from .payment import voided as given_up_payment
from .period import day_after

InvoiceStatus = Literal["draft", "open", "paid", "void", "uncollectible"]
Collection = Literal["send_invoice", "charge_automatically"]
DunningAction = Literal["remind", "pause", "credit_block"]

UNBILLED_BOOKS: Final = (
    *(DEPOSIT_BOOK, PAYMENT_BOOK, REFUND_BOOK, REFUND_CREDIT_BOOK, REFUND_FAILED_BOOK, DISPUTE_BOOK, DISPUTE_WON_BOOK),
    *(TAX_BOOK, CREDIT_NOTE_BOOK, VOID_BOOK, INVOICE_ITEM_BOOK, GRANT_BOOK, EXPIRY_BOOK),
)
"""Books that move money or units and sell nothing: they never make a line. Nor does what a refill puts on a balance."""

CREDIT_NOTE_PREFIX: Final = "CN-"
NUMBER_DIGITS: Final = 6
COLLECT_AGAIN: Final = timedelta(days=1)
"""When a collection that cannot begin (no card, or another one under way) is looked at again."""
FINALIZE_AGAIN: Final = timedelta(days=1)
"""When a draft that cannot be posted (the balance has no room for it) is looked at again."""


class TaxRate(NamedTuple):
    """A tax as it is set: ``rate`` is percent in decimal text; an inclusive one is contained in the prices."""

    name: str
    rate: str
    is_inclusive: bool


class DunningStep(NamedTuple):
    """What happens ``days`` after an invoice was due and not paid."""

    days: int
    action: DunningAction


class InvoiceSettings(NamedTuple):
    """How a company invoices. An empty ladder does nothing by itself; ``seller`` is shown as it is."""

    prefix: str = "INV-"
    grace: timedelta = timedelta(hours=1)
    terms_days: int = 30
    seller: Mapping[str, str] = {}
    taxes: tuple[TaxRate, ...] = ()
    dunning: tuple[DunningStep, ...] = ()
    currency: str = "USD"
    footer: str = ""


def settings_of(money: Mapping[str, Any]) -> InvoiceSettings:
    """The section ``invoicing`` of a company's settings; what is not set has its default."""
    given = money.get("invoicing") or {}
    usual = InvoiceSettings()
    return InvoiceSettings(
        prefix=given.get("prefix", usual.prefix),
        grace=timedelta(seconds=given["grace_seconds"]) if "grace_seconds" in given else usual.grace,
        terms_days=given.get("terms_days", usual.terms_days),
        seller=given.get("seller") or {},
        taxes=rates_of(given.get("taxes") or ()),
        dunning=tuple(
            sorted((DunningStep(step["days"], step["action"]) for step in given.get("dunning") or ()), key=_days)
        ),
        currency=given.get("currency", usual.currency),
        footer=given.get("footer") or "",
    )


def _days(step: DunningStep) -> int:
    return step.days


def rates_of(given: Sequence[Mapping[str, Any]]) -> tuple[TaxRate, ...]:
    """Tax rates as they are kept in settings and terms."""
    return tuple(TaxRate(tax["name"], tax["rate"], tax["inclusive"]) for tax in given)


class InvoiceTerms(NamedTuple):
    """An account that pays by invoice in ``currency``.

    Everything posted up to ``invoiced_tick`` stands on an invoice (or came before the terms). ``grace`` and ``taxes``
    None mean the company's. ``last_at`` begins the open period; at ``next_at`` it is cut. ``number`` counts the cuts.
    """

    account_id: int
    environment_id: int
    currency: str
    terms_days: int
    grace: timedelta | None
    collection: Collection
    taxes: tuple[TaxRate, ...] | None
    memo: str | None
    invoiced_tick: int
    anchor_at: datetime
    number: int
    last_at: datetime
    next_at: datetime | None
    created_at: datetime


class Line(NamedTuple):
    """One line. ``quantity`` (decimal text) and ``exact`` are None where the line is not usage.

    ``kind``: usage, reversal, manual, or the book of what was posted: adjustment, refill…
    """

    position: int
    kind: str
    description: str
    amount: int
    event_type: str | None = None
    price_version_id: int | None = None
    quantity: str | None = None
    event_count: int = 0
    exact: Exact | None = None


class TaxLine(NamedTuple):
    """One tax of an invoice. ``rate`` is empty where the amount was given from outside."""

    position: int
    name: str
    rate: str
    is_inclusive: bool
    amount: int


class Invoice(NamedTuple):
    """An invoice as it is kept; amounts in minor units of ``currency``.

    What was posted with ids above ``tick_from`` up to ``tick_to`` stands on it. ``applied`` is what the balance
    covered; ``amount_due`` the rest of ``total``.
    """

    account_id: int
    id: int
    environment_id: int
    currency: str
    status: InvoiceStatus
    number: str | None
    collection: Collection
    terms_days: int
    period_start: datetime
    period_end: datetime
    tick_from: int
    tick_to: int
    subtotal: int
    tax: int
    tax_included: int
    total: int
    applied: int
    amount_due: int
    amount_paid: int
    amount_credited: int
    memo: str | None
    seller: Mapping[str, Any]
    customer: Mapping[str, Any]
    created_at: datetime
    finalize_at: datetime | None = None
    finalized_at: datetime | None = None
    due_at: datetime | None = None
    paid_at: datetime | None = None
    voided_at: datetime | None = None
    dunning_step: int = 0
    next_dunning_at: datetime | None = None
    next_collection_at: datetime | None = None

    @property
    def remaining(self) -> int:
        """What is still to be paid; of a draft or a void one nothing."""
        if self.status in {"draft", "void"}:
            return 0
        return self.amount_due - self.amount_paid - self.amount_credited


class UsageGroup(NamedTuple):
    """Events of one type at one price version: their quantity (decimal text), their number, their exact cost in sum.

    ``is_reversal``: events of earlier invoices that were taken back; their ``exact`` is below zero. ``overage`` is the
    denomination that did not cover them, where that is what all of it is for.
    """

    event_type: str
    price_version_id: int | None
    quantity: str
    event_count: int
    exact: Exact
    is_reversal: bool = False
    overage: str | None = None


class Moved(NamedTuple):
    """Transactions of one book and description: what they moved in sum, as the balance saw it."""

    book: str
    description: str
    amount: int


class Posted(NamedTuple):
    """All that is to be billed of a range: usage as groups, with what it moved as the balance saw it, and the rest."""

    groups: tuple[UsageGroup, ...]
    usage_amount: int
    moved: tuple[Moved, ...]


class ManualLine(NamedTuple):
    """A line that the company wrote; it is posted when the invoice is final."""

    description: str
    amount: int


_BOOK_LINES: Final[Mapping[str, str]] = {ADJUSTMENT_BOOK: "Adjustment", REFILL_BOOK: "Refill"}


def lines_of(posted: Posted, manual: Sequence[ManualLine] = ()) -> tuple[Line, ...]:
    """The lines of a range: in sum exactly what was posted, turned round, and the manual lines after them.

    Whole amounts of usage are given out by largest remainder, so a line is within one unit of its exact cost.
    """
    lines: list[Line] = []
    total, groups = -posted.usage_amount, posted.groups
    if not groups and total:
        lines.append(Line(1, "usage", "Usage of earlier periods", total))
    else:
        for group, amount in zip(groups, allocate(total, [group.exact for group in groups]), strict=True):
            said = group.event_type if group.overage is None else f"{group.event_type}, overage of {group.overage}"
            said = f"{said}, taken back" if group.is_reversal else said
            kind = "reversal" if group.is_reversal else "usage"
            lines.append(
                Line(
                    len(lines) + 1,
                    kind,
                    said,
                    amount,
                    group.event_type,
                    group.price_version_id,
                    group.quantity,
                    group.event_count,
                    group.exact,
                )
            )
    for book, description, amount in posted.moved:
        title = _BOOK_LINES.get(book, book.replace("_", " ").capitalize())
        lines.append(Line(len(lines) + 1, book, f"{title}: {description}" if description else title, -amount))
    return with_manual(lines, manual)


def with_manual(lines: Sequence[Line], manual: Sequence[ManualLine]) -> tuple[Line, ...]:
    """Lines with other manual ones at their end."""
    kept = [line for line in lines if line.kind != "manual"]
    added = [Line(0, "manual", description, amount) for description, amount in manual]
    return tuple(line._replace(position=position) for position, line in enumerate([*kept, *added], 1))


def taxes_of(subtotal: int, rates: Sequence[TaxRate]) -> tuple[TaxLine, ...]:
    """Each rate on the whole subtotal, half up to the unit; inclusive ones are the part of it that they are.

    With inclusive rates of 20 and 5 percent, 125 cents contain 20 and 5 of them (decision 0018).
    """
    contained = exact("100")
    for rate in rates:
        if rate.is_inclusive:
            contained = plus(contained, exact(rate.rate))
    whole = Exact(100, 1)
    lines: list[TaxLine] = []
    for position, rate in enumerate(rates, 1):
        share = times(Exact(subtotal, 1), exact(rate.rate))
        over = contained if rate.is_inclusive else whole
        amount = round_half_up(Exact(share.numerator * over.denominator, share.denominator * over.numerator))
        lines.append(TaxLine(position, *rate, amount))
    return tuple(lines)


def given_taxes(taxes: Sequence[tuple[str, int]]) -> tuple[TaxLine, ...]:
    """Taxes that somebody else worked out, by name and amount: added to the subtotal, never recomputed."""
    return tuple(TaxLine(position, name, "", False, amount) for position, (name, amount) in enumerate(taxes, 1))  # noqa: FBT003 - a row


def recomputed(subtotal: int, taxes: Sequence[TaxLine]) -> tuple[TaxLine, ...]:
    """The taxes of a draft whose lines changed: by their rates; what was given from outside stays."""
    if any(not tax.rate for tax in taxes):
        return tuple(taxes)
    return taxes_of(subtotal, [TaxRate(tax.name, tax.rate, tax.is_inclusive) for tax in taxes])


def summed(invoice: Invoice, lines: Sequence[Line], taxes: Sequence[TaxLine]) -> Invoice:
    """A draft with the sums of its lines and taxes (bar I-55)."""
    subtotal = sum(line.amount for line in lines)
    tax = sum(line.amount for line in taxes if not line.is_inclusive)
    included = sum(line.amount for line in taxes if line.is_inclusive)
    total = subtotal + tax
    return invoice._replace(subtotal=subtotal, tax=tax, tax_included=included, total=total, applied=0, amount_due=total)


def posts_within(state: AccountState, draft: Invoice, lines: Sequence[Line]) -> bool:
    """Whether the balance has room for what a draft posts when it becomes final: its manual lines and its tax."""
    balance = state.balances.get(draft.currency) or open_balance(draft.currency)
    after = balance.amount - sum(line.amount for line in lines if line.kind == "manual")
    return all(-BALANCE_MAX <= amount <= BALANCE_MAX for amount in (after, after - draft.tax))


def must_stay_in_range(
    state: AccountState, draft: Invoice, lines: Sequence[Line], *, most: int = AMOUNT_MAX, is_taxed: bool = False
) -> None:
    """Judge a draft with lines or taxes that the company wrote. ``is_taxed``: the taxes are what it wrote.

    Raises Refusal ``out_of_range`` where the sums are above ``most``, or the balance has no room for what it posts.
    Usage alone is on the balance already, so it may come to more than a single amount: ``most`` is ``BALANCE_MAX``.
    """
    if draft.subtotal > most:
        raise invalid("lines", f"would take the subtotal above {most}.", "out_of_range")
    path = "taxes" if is_taxed else "lines"
    if draft.total > most:
        raise invalid(path, f"would take the total above {most}.", "out_of_range")
    if not posts_within(state, draft, lines):
        raise invalid(path, "would take the balance out of the range that can be kept.", "out_of_range")


def draft_of(
    terms: InvoiceTerms, settings: InvoiceSettings, *, id: int, tick_to: int, period_end: datetime, now: datetime
) -> Invoice:
    """An empty draft for all that was posted since the last one, up to ``tick_to``."""
    grace = settings.grace if terms.grace is None else terms.grace
    return Invoice(
        account_id=terms.account_id,
        id=id,
        environment_id=terms.environment_id,
        currency=terms.currency,
        status="draft",
        number=None,
        collection=terms.collection,
        terms_days=terms.terms_days,
        period_start=terms.last_at,
        period_end=period_end,
        tick_from=terms.invoiced_tick,
        tick_to=tick_to,
        subtotal=0,
        tax=0,
        tax_included=0,
        total=0,
        applied=0,
        amount_due=0,
        amount_paid=0,
        amount_credited=0,
        memo=terms.memo,
        seller=settings.seller,
        customer={},
        created_at=now,
        finalize_at=now + grace,
    )


class Paper(NamedTuple):
    """What a final invoice says of itself and its parties."""

    number: str
    settings: InvoiceSettings
    customer: Mapping[str, Any]


class Around(NamedTuple):
    """What else stands on the balance: what was posted after the cut, and what remains of earlier invoices."""

    posted_since: int
    waiting: int


class Finalized(NamedTuple):
    """An invoice that is final, the moves that post its manual lines and its tax, and the largest id given."""

    invoice: Invoice
    moves: list[tuple[Balance, Transaction | None]]
    tick: int


def finalize(
    state: AccountState,
    draft: Invoice,
    lines: Sequence[Line],
    *,
    paper: Paper,
    around: Around,
    now: datetime,
    zone: tzinfo,
    tick: int,
) -> Finalized:
    """Make a draft final: numbered, dated, posted, and due for what the balance does not cover.

    ``tick`` is the largest id that was given before. The account has to be locked, its state read after that.
    """
    assert draft.status == "draft"
    balance = state.balances.get(draft.currency) or open_balance(draft.currency)
    moves: list[tuple[Balance, Transaction | None]] = []
    manual = sum(line.amount for line in lines if line.kind == "manual")
    for amount, book, kind, said in (
        (-manual, INVOICE_ITEM_BOOK, "ADJUSTMENT", f"Lines of {paper.number}"),
        (-draft.tax, TAX_BOOK, "TAX", f"Tax of {paper.number}"),
    ):
        if amount:
            tick += 1
            balance, made = move(
                balance, amount, id=tick, book=book, type=kind, description=said, now=now, cause_id=draft.id
            )
            moves.append((balance, made))
    position = balance.amount - around.posted_since + around.waiting
    due = min(draft.total, max(0, -position))
    due_at = day_after(now, draft.terms_days, zone)
    final = draft._replace(
        status="open" if due else "paid",
        number=paper.number,
        applied=draft.total - due,
        amount_due=due,
        seller=paper.settings.seller,
        customer=paper.customer,
        finalize_at=None,
        finalized_at=now,
        due_at=due_at,
        paid_at=None if due else now,
        next_dunning_at=_step_at(paper.settings, due_at, 0, zone) if due else None,
        next_collection_at=now if due and draft.collection == "charge_automatically" else None,
    )
    return Finalized(final, moves, tick)


def spelled_number(prefix: str, number: int) -> str:
    """``INV-`` and 42 make ``INV-000042``."""
    return f"{prefix}{number:0{NUMBER_DIGITS}d}"


def settle(invoices: Sequence[Invoice], amount: int, *, now: datetime) -> list[tuple[Invoice, int]]:
    """Let money pay invoices, in their order (the oldest first): each one paid with what it got.

    They are open or were given up; what is paid for is paid, whatever was expected of it.

    What is left over stays on the balance, where the next invoice finds it.
    """
    settled: list[tuple[Invoice, int]] = []
    for invoice in invoices:
        part = min(amount, invoice.remaining)
        if part <= 0:
            continue
        amount -= part
        settled.append((_closed(invoice._replace(amount_paid=invoice.amount_paid + part), now), part))
    return settled


def _closed(invoice: Invoice, now: datetime) -> Invoice:
    """The invoice, paid if nothing remains of it."""
    if invoice.remaining > 0:
        return invoice
    return invoice._replace(status="paid", paid_at=now, next_dunning_at=None, next_collection_at=None)


def credited(invoice: Invoice, amount: int, *, before: int, refunded: int = 0, now: datetime) -> Invoice:
    """The invoice after a credit note: what remains falls first; the rest of the note stays on the balance.

    ``before`` is the sum of its earlier notes, ``refunded`` what was given back of the payments that paid it. Raises
    Refusal ``invoice_not_open`` for a draft or a void one, ``credit_exceeds_invoice`` where all of that would come to
    more than the total (bar I-55).
    """
    if invoice.status in {"draft", "void"}:
        raise Refusal("invoice_not_open", status=invoice.status)
    creditable = max(0, invoice.total - before - refunded)
    if amount > creditable:
        raise Refusal("credit_exceeds_invoice", creditable=creditable, required=amount, refunded=refunded)
    if invoice.status == "paid":
        return invoice
    part = min(amount, invoice.remaining)
    return _closed(invoice._replace(amount_credited=invoice.amount_credited + part), now)


def voided(invoice: Invoice, *, now: datetime) -> Invoice:
    """The invoice, void. Raises Refusal ``invoice_not_open``, or ``invoice_settled`` where a part of it is paid for."""
    if invoice.status not in {"open", "uncollectible"}:
        raise Refusal("invoice_not_open", status=invoice.status)
    if invoice.amount_paid:
        raise Refusal("invoice_settled", amount_paid=invoice.amount_paid)
    return invoice._replace(status="void", voided_at=now, next_dunning_at=None, next_collection_at=None)


def given_up(invoice: Invoice) -> Invoice:
    """The invoice, not expected to be paid any more: it stays on the balance and is not asked for.

    Raises Refusal ``invoice_not_open``.
    """
    if invoice.status != "open":
        raise Refusal("invoice_not_open", status=invoice.status)
    return invoice._replace(status="uncollectible", next_dunning_at=None, next_collection_at=None)


def must_be_payable(invoice: Invoice) -> None:
    """Raises Refusal ``invoice_not_open`` for a draft or void one, ``invoice_settled`` for one that is paid."""
    if invoice.status == "paid":
        raise Refusal("invoice_settled", amount_paid=invoice.amount_paid)
    if invoice.status not in {"open", "uncollectible"}:
        raise Refusal("invoice_not_open", status=invoice.status)


def collectable(invoices: Sequence[Invoice]) -> int:
    """What a card is to be charged: all that remains of the open invoices of an account that are charged by themselves.

    Below the card's minimum it is carried until the next invoice reaches it (design 11, Captures).
    """
    return sum(invoice.remaining for invoice in invoices if invoice.collection == "charge_automatically")


def slot_of(currency: str) -> str:
    """What keeps a second collection of a currency out while one is open."""
    return f"invoice:{currency}"


def cleared(payment: Payment, *, now: datetime) -> Payment:
    """A capture, given up because what it was to pay is to change; its slot is free at once.

    That can be done with one that waits after a decline, or was skipped. Where it has an intent the provider cancels
    it. Raises Refusal ``payment_in_progress`` for one that may be paid at this moment.
    """
    if payment.status != "skipped" and not (payment.status == "created" and payment.declines):
        raise Refusal("payment_in_progress", currency=payment.currency, status=payment.status)
    return given_up_payment(payment, now=now)._replace(slot=None)


def capture_of(
    invoice: Invoice, amount: int, *, id: int, now: datetime, is_suspended: bool, description: str
) -> Payment:
    """The card payment that is to bring in ``amount``; skipped where the company's captures are suspended."""
    return Payment(
        account_id=invoice.account_id,
        id=id,
        environment_id=invoice.environment_id,
        method="card",
        reason="invoice",
        status="skipped" if is_suspended else "intended",
        amount=amount,
        currency=invoice.currency,
        denomination=invoice.currency,
        units=amount,
        description=description,
        created_at=now,
        due_at=now,
        slot=slot_of(invoice.currency),
        next_attempt_at=None if is_suspended else now,
    )


# --- dunning ----------------------------------------------------------------------------------------------------------


def _step_at(settings: InvoiceSettings, due_at: datetime, step: int, zone: tzinfo) -> datetime | None:
    """When a step of the ladder is taken: so many local days after an invoice was due."""
    if step >= len(settings.dunning):
        return None
    return day_after(due_at, settings.dunning[step].days, zone)


def dun(
    invoice: Invoice, settings: InvoiceSettings, *, now: datetime, zone: tzinfo
) -> tuple[Invoice, list[DunningAction]]:
    """Take the steps of the ladder that are due: the invoice after them, and what is to be done to its account."""
    actions: list[DunningAction] = []
    if invoice.status != "open" or invoice.due_at is None:
        return invoice._replace(next_dunning_at=None), actions
    step = invoice.dunning_step
    at = _step_at(settings, invoice.due_at, step, zone)
    while at is not None and at <= now:
        actions.append(settings.dunning[step].action)
        step += 1
        at = _step_at(settings, invoice.due_at, step, zone)
    return invoice._replace(dunning_step=step, next_dunning_at=at), actions


class Standing(NamedTuple):
    """What a relief is judged by: who paused or blocked the account, whether an invoice is past due, what is owed.

    ``owed`` and ``credit_limit`` are in the company's currency.
    """

    paused_by: str | None
    credit_blocked_by: str | None
    is_past_due: bool
    owed: int
    credit_limit: int


def punished(standing: Standing, actions: Sequence[DunningAction], now: datetime) -> dict[str, object]:
    """The columns of an account that steps of dunning change; a pause that is there already stays as it is."""
    changes: dict[str, object] = {}
    if "pause" in actions and standing.paused_by is None:
        changes.update(paused_at=now, paused_by="dunning")
    if "credit_block" in actions and standing.credit_blocked_by is None:
        changes.update(credit_blocked_at=now, credit_blocked_by="dunning")
    return changes


def relief(standing: Standing) -> dict[str, object] | None:
    """The columns of an account that change because something was paid: what dunning did is undone, nothing else.

    A pause ends when no invoice is past due any more, a credit block also when what is owed is below the limit. None
    where nothing changes.
    """
    changes: dict[str, object] = {}
    if standing.paused_by == "dunning" and not standing.is_past_due:
        changes.update(paused_at=None, paused_by=None)
    if standing.credit_blocked_by == "dunning" and (not standing.is_past_due or standing.owed < standing.credit_limit):
        changes.update(credit_blocked_at=None, credit_blocked_by=None)
    return changes or None


# --- moves of an account that belong to an invoice -----------------------------------------------------------------


def put_back(
    state: AccountState, invoice: Invoice, amount: int, *, id: int, cause_id: int, book: str, said: str, now: datetime
) -> tuple[Balance, Transaction]:
    """Units back on the balance, for an invoice that is void or credited."""
    balance = state.balances.get(invoice.currency) or open_balance(invoice.currency)
    return move(balance, amount, id=id, book=book, type="ADJUSTMENT", description=said, now=now, cause_id=cause_id)
