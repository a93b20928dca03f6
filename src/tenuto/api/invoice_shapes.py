"""Invoices as they are written to the wire."""

from __future__ import annotations

from typing import Any

import msgspec

from tenuto.core.identifiers import spell, spell_of_account
from tenuto.core.invoice import Invoice, InvoiceTerms, Line, TaxLine, TaxRate
from tenuto.core.money import exact_text
from tenuto.store.invoices import CreditNote, PaidPart, WholeInvoice

from .body import spelled
from .shapes import Shape, number


class TaxRateOut(Shape):
    """A tax as it is set."""

    name: str
    rate: str
    inclusive: bool


class TermsOut(Shape):
    """How an account pays by invoice. ``grace_seconds`` and ``taxes`` null: as the company does."""

    account_id: str
    currency: str
    terms_days: int
    collection: str
    grace_seconds: int | None
    taxes: list[TaxRateOut] | None
    memo: str | None
    period_start: str | None
    next_invoice_at: str | None
    created_at: str | None


class InvoiceLineOut(Shape):
    """A line. ``exact`` is what its events cost to the last fraction, ``amount`` the whole units of it."""

    position: int
    kind: str
    description: str
    amount: int
    event_type: str | None
    quantity: int | str | None
    event_count: int
    exact: str | None


class InvoiceTaxOut(Shape):
    """A tax of an invoice; ``rate`` null where the amount was given."""

    name: str
    rate: str | None
    inclusive: bool
    amount: int


class InvoicePaymentOut(Shape):
    """What one payment paid of an invoice."""

    payment_id: str
    method: str
    description: str
    amount: int
    paid_at: str | None


class CreditNoteOut(Shape):
    """A credit note."""

    id: str
    invoice_id: str
    number: str
    amount: int
    reason: str
    created_at: str | None


class InvoiceOut(Shape):
    """An invoice; ``id`` is null in a preview. Lists leave out lines, taxes, payments and credit notes."""

    id: str | None
    account_id: str
    number: str | None
    status: str
    currency: str
    period_start: str | None
    period_end: str | None
    subtotal: int
    tax: int
    tax_included: int
    total: int
    applied: int
    amount_due: int
    amount_paid: int
    amount_credited: int
    remaining: int
    collection: str
    terms_days: int
    memo: str | None
    seller: dict[str, Any]
    customer: dict[str, Any]
    finalize_at: str | None
    finalized_at: str | None
    due_at: str | None
    paid_at: str | None
    voided_at: str | None
    dunning_step: int
    next_dunning_at: str | None
    next_collection_at: str | None
    created_at: str | None
    lines: list[InvoiceLineOut] | msgspec.UnsetType = msgspec.UNSET
    taxes: list[InvoiceTaxOut] | msgspec.UnsetType = msgspec.UNSET
    payments: list[InvoicePaymentOut] | msgspec.UnsetType = msgspec.UNSET
    credit_notes: list[CreditNoteOut] | msgspec.UnsetType = msgspec.UNSET


class InvoiceLinkOut(Shape):
    """The address of a hosted page, and until when it works."""

    url: str
    expires_at: str | None


def _rate(tax: TaxRate) -> TaxRateOut:
    return TaxRateOut(name=tax.name, rate=tax.rate, inclusive=tax.is_inclusive)


def terms(found: InvoiceTerms) -> TermsOut:
    """The terms of an account in one currency."""
    return TermsOut(
        account_id=spell("a", found.account_id),
        currency=found.currency,
        terms_days=found.terms_days,
        collection=found.collection,
        grace_seconds=None if found.grace is None else int(found.grace.total_seconds()),
        taxes=None if found.taxes is None else [_rate(tax) for tax in found.taxes],
        memo=found.memo,
        period_start=spelled(found.last_at),
        next_invoice_at=spelled(found.next_at),
        created_at=spelled(found.created_at),
    )


def invoice(found: Invoice) -> InvoiceOut:
    """An invoice in a list."""
    return InvoiceOut(
        id=spell_of_account("inv", found.account_id, found.id),
        account_id=spell("a", found.account_id),
        number=found.number,
        status=found.status,
        currency=found.currency,
        period_start=spelled(found.period_start),
        period_end=spelled(found.period_end),
        subtotal=found.subtotal,
        tax=found.tax,
        tax_included=found.tax_included,
        total=found.total,
        applied=found.applied,
        amount_due=found.amount_due,
        amount_paid=found.amount_paid,
        amount_credited=found.amount_credited,
        remaining=found.remaining,
        collection=found.collection,
        terms_days=found.terms_days,
        memo=found.memo,
        seller=dict(found.seller),
        customer=dict(found.customer),
        finalize_at=spelled(found.finalize_at),
        finalized_at=spelled(found.finalized_at),
        due_at=spelled(found.due_at),
        paid_at=spelled(found.paid_at),
        voided_at=spelled(found.voided_at),
        dunning_step=found.dunning_step,
        next_dunning_at=spelled(found.next_dunning_at),
        next_collection_at=spelled(found.next_collection_at),
        created_at=spelled(found.created_at),
    )


def whole_invoice(whole: WholeInvoice, *, is_preview: bool = False) -> InvoiceOut:
    """An invoice with all that stands on it."""
    out = invoice(whole.invoice)
    if is_preview:
        out.id = None
    out.lines = [_line(line) for line in whole.lines]
    out.taxes = [_tax(tax) for tax in whole.taxes]
    out.payments = [_payment(whole.invoice, part) for part in whole.payments]
    out.credit_notes = [credit_note(note) for note in whole.credit_notes]
    return out


def _line(line: Line) -> InvoiceLineOut:
    return InvoiceLineOut(
        position=line.position,
        kind=line.kind,
        description=line.description,
        amount=line.amount,
        event_type=line.event_type,
        quantity=None if line.quantity is None else number(line.quantity),
        event_count=line.event_count,
        exact=None if line.exact is None else exact_text(line.exact),
    )


def _tax(tax: TaxLine) -> InvoiceTaxOut:
    return InvoiceTaxOut(name=tax.name, rate=tax.rate or None, inclusive=tax.is_inclusive, amount=tax.amount)


def _payment(found: Invoice, part: PaidPart) -> InvoicePaymentOut:
    return InvoicePaymentOut(
        payment_id=spell_of_account("pay", found.account_id, part.payment_id),
        method=part.method,
        description=part.description,
        amount=part.amount,
        paid_at=spelled(part.paid_at),
    )


def credit_note(note: CreditNote) -> CreditNoteOut:
    """A credit note."""
    return CreditNoteOut(
        id=spell_of_account("cn", note.account_id, note.id),
        invoice_id=spell_of_account("inv", note.account_id, note.invoice_id),
        number=note.number,
        amount=note.amount,
        reason=note.reason,
        created_at=spelled(note.created_at),
    )
