"""Invoices: terms, drafts, final ones, what pays them, and their papers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, get_args

import msgspec

from tenuto.core.identifiers import read_of_account
from tenuto.core.invoice import Collection, Invoice, InvoiceStatus, InvoiceTerms, settings_of
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import Payment
from tenuto.engine import Answer
from tenuto.service import invoicing as service
from tenuto.service.idempotency import Steps
from tenuto.service.payments import drive
from tenuto.store import invoices as store
from tenuto.store.database import Unit
from tenuto.store.invoices import CreditNote, WholeInvoice
from tenuto.store.payments import Link, find_by_request
from tenuto.store.records import Whose

from . import body as bodies
from . import invoice_input as taken
from . import invoice_shapes as shown
from . import shapes
from .invoice_pdf import invoice_pdf
from .payments import refused_payment
from .routes import PAGING, Call, Param, Route
from .usage import error_body, page_of

PDF: Final = "application/pdf"
DAYS_MAX: Final = 366


def _ids(call: Call) -> tuple[int, int]:
    """Account id and tick of the invoice in the path."""
    found = read_of_account("inv", call.params["invoice_id"])
    if found is None:
        raise Refusal("not_found")
    return found


async def _found(call: Call) -> Invoice:
    account_id, invoice_id = _ids(call)
    async with call.engine.database.reading() as reader:
        found = await store.read_invoice(reader, call.environment.id, account_id, invoice_id)
    if found is None:
        raise Refusal("not_found")
    return found


async def _whole(call: Call) -> WholeInvoice:
    found = await _found(call)
    async with call.engine.database.reading() as reader:
        return await store.read_whole(reader, found)


def _rendered(whole: WholeInvoice) -> bytes:
    return shapes.wrapped(shown.whole_invoice(whole))


# --- terms ------------------------------------------------------------------------------------------------------------


async def set_terms(call: Call) -> Answer:
    """Let an account pay by invoice in a currency, from now on."""
    account_id, given = call.id("a", "account_id"), call.decoded(taken.TermsIn)
    collection: Collection = "send_invoice"
    if given.collection == "charge_automatically":
        collection = "charge_automatically"
    elif given.collection != collection:
        raise invalid("collection", f"is one of {', '.join(get_args(Collection))}.")
    grace, days = given.grace_seconds, given.terms_days
    wanted = service.TermsWanted(
        currency=taken.currency(given.currency),
        collection=collection,
        terms_days=None if days is None else bodies.whole(days, "terms_days", most=taken.TERMS_MAX_DAYS),
        grace=None if grace is None else timedelta(seconds=bodies.seconds(grace, "grace_seconds", taken.GRACE_MAX)),
        taxes=None if given.taxes is None else taken.rates(given.taxes, "taxes"),
        memo=None if given.memo is None else taken.memo(given.memo),
    )

    async def verb(unit: Unit) -> InvoiceTerms:
        return await service.set_terms(call.engine, unit, call.environment, account_id, wanted)

    return await call.once(verb, lambda found: shapes.wrapped(shown.terms(found)))


async def list_terms(call: Call) -> Answer:
    """How an account pays by invoice, one row a currency; empty where it does not."""
    account = await call.account()
    async with call.engine.database.reading() as reader:
        found = await store.read_terms(reader, account.id)
    return Answer(200, shapes.listed([shown.terms(terms) for terms in found], None))


async def end_terms(call: Call) -> Answer:
    """Cut no more invoices. Drafts and open ones stay; what is posted from now on is on none."""
    account_id = call.id("a", "account_id")
    given = call.filters().get("currency")
    currency = None if given is None else taken.currency(str(given))

    async def verb(unit: Unit) -> InvoiceTerms:
        return await service.end_terms(call.engine, unit, call.environment, account_id, currency)

    return await call.once(verb, lambda found: shapes.wrapped(shown.terms(found)))


# --- drafts -----------------------------------------------------------------------------------------------------------


async def cut_invoice(call: Call) -> Answer:
    """A draft of all that was posted since the last invoice, now; with ``preview`` nothing is kept."""
    account_id = call.id("a", "account_id")
    given = call.decoded(taken.CutIn) if call.body else taken.CutIn()
    currency = None if given.currency is None else taken.currency(given.currency)
    manual = taken.manual_lines(given.lines)

    async def verb(unit: Unit) -> WholeInvoice:
        return await service.cut_invoice(
            call.engine,
            unit,
            call.environment,
            account_id,
            currency=currency,
            manual=manual,
            is_preview=given.preview,
        )

    return await call.once(verb, lambda whole: shapes.wrapped(shown.whole_invoice(whole, is_preview=given.preview)))


async def edit_draft(call: Call) -> Answer:
    """Change the manual lines, the taxes or the memo of a draft."""
    account_id, invoice_id = _ids(call)
    given = call.decoded(taken.DraftChange)
    change = service.DraftChange(
        manual=None if isinstance(given.lines, msgspec.UnsetType) else taken.manual_lines(given.lines),
        taxes=None
        if isinstance(given.taxes, msgspec.UnsetType) or given.taxes is None
        else taken.amounts(given.taxes, "taxes"),
        by_rates=given.taxes is None,
        memo=None if isinstance(given.memo, msgspec.UnsetType) else taken.memo(given.memo),
    )

    async def verb(unit: Unit) -> WholeInvoice:
        return await service.edit_draft(call.engine, unit, call.environment, account_id, invoice_id, change)

    return await call.once(verb, _rendered)


def _verb(
    call: Call, run: Callable[..., Awaitable[WholeInvoice]], **more: object
) -> Callable[[Unit], Awaitable[WholeInvoice]]:
    """A verb of the service about the invoice in the path, ready to be done once."""
    account_id, invoice_id = _ids(call)

    async def verb(unit: Unit) -> WholeInvoice:
        return await run(call.engine, unit, call.environment, account_id, invoice_id, **more)

    return verb


async def discard_draft(call: Call) -> Answer:
    """Forget a draft, the latest of its currency; what stood on it goes on the next one."""
    return await call.once(_verb(call, service.discard_draft), _rendered)


async def finalize_invoice(call: Call) -> Answer:
    """Make a draft final now, before its grace is over; older drafts of its currency first."""
    return await call.once(_verb(call, service.finalize_invoice), _rendered)


# --- final ------------------------------------------------------------------------------------------------------------


async def void_invoice(call: Call) -> Answer:
    """Take back an invoice of which nothing was paid; what remained of it goes back on the balance."""
    return await call.once(_verb(call, service.void_invoice), _rendered)


async def give_up_invoice(call: Call) -> Answer:
    """Expect no payment of an invoice any more. The debt stays on the balance."""
    return await call.once(_verb(call, service.give_up_invoice), _rendered)


async def mark_paid(call: Call) -> Answer:
    """Note that what remains of an invoice was paid outside: by transfer, by cheque."""
    reference = bodies.text(call.decoded(taken.PaidIn).reference, "reference", 300)
    return await call.once(_verb(call, service.mark_paid, reference=reference), _rendered)


async def credit_invoice(call: Call) -> Answer:
    """Take an amount from an invoice, paid or not; with what was refunded of it never more in sum than its total."""
    account_id, invoice_id = _ids(call)
    given = call.decoded(taken.CreditNoteIn)
    amount = bodies.whole(given.amount, "amount", least=1)
    reason = bodies.text(given.reason, "reason", 500)

    async def verb(unit: Unit) -> tuple[WholeInvoice, CreditNote]:
        return await service.credit_invoice(
            call.engine, unit, call.environment, account_id, invoice_id, amount=amount, reason=reason
        )

    return await call.once(verb, lambda made: shapes.wrapped(shown.credit_note(made[1])))


async def get_credit_note(call: Call) -> Answer:
    """One credit note, with the invoice that it is of."""
    account_id, note_id = call.id_of_account("cn", "credit_note_id")
    async with call.engine.database.reading() as reader:
        found = await store.read_credit_note(reader, call.environment.id, account_id, note_id)
    if found is None:
        raise Refusal("not_found")
    return Answer(200, shapes.wrapped(shown.credit_note(found)))


async def pay_invoice(call: Call) -> Answer:
    """Charge the card with what remains of an invoice: 200 when it was charged, 202 while nobody knows.

    What comes in pays the oldest invoices first. A card that is refused is tried again by schedule.
    """
    account_id, invoice_id = _ids(call)
    once = call.idempotency()

    async def begin(unit: Unit) -> Payment:
        return await service.begin_payment(call.engine, unit, call.environment, account_id, invoice_id, once)

    async def resume(unit: Unit) -> Payment:
        found = None if once is None else await find_by_request(unit, account_id, once.key)
        if found is None:
            raise Refusal("request_in_progress")
        return found

    async def finish(payment: Payment) -> Answer:
        driven = await drive(call.engine, call.environment, account_id, payment.id, fence=0)
        if driven.status == "failed" or (driven.is_open and driven.declines):
            return Answer(402, error_body(refused_payment(driven), call.request_id))
        return Answer(202 if driven.is_open else 200, _rendered(await _whole(call)))

    return await call.once_in_steps(Steps(begin, resume, finish))


async def make_link(call: Call) -> Answer:
    """The address of a page that shows a final invoice to whoever has it, for 90 days or as long as is said."""
    account_id, invoice_id = _ids(call)
    given = call.decoded(taken.LinkIn) if call.body else taken.LinkIn()
    life = timedelta(days=bodies.whole(given.expires_in_days, "expires_in_days", least=1, most=DAYS_MAX))

    async def verb(unit: Unit) -> tuple[Link, str]:
        return await service.make_link(call.engine, unit, call.environment, account_id, invoice_id, life=life)

    def render(made: tuple[Link, str]) -> bytes:
        link, token = made
        url = f"{call.engine.public_url}/i/{token}"
        return shapes.wrapped(shown.InvoiceLinkOut(url=url, expires_at=bodies.spelled(link.expires_at)))

    return await call.once(verb, render, is_secret=True)


async def get_invoice(call: Call) -> Answer:
    """One invoice with its lines, taxes, payments and credit notes."""
    return Answer(200, _rendered(await _whole(call)))


async def list_account_invoices(call: Call) -> Answer:
    """The invoices of an account, newest first."""
    account = await call.account()
    return await _listed(call, call.whose(account))


async def list_company_invoices(call: Call) -> Answer:
    """The invoices of a company, newest first."""
    call.company()
    return await _listed(call, call.whose(None))


async def _listed(call: Call, whose: Whose) -> Answer:
    async with call.engine.database.reading() as reader:
        found = await store.list_invoices(reader, whose, call.page(), call.filters())
    return page_of(call, found, lambda row: (row.id, row.account_id), shown.invoice)


async def list_line_events(call: Call) -> Answer:
    """The events behind a line of an invoice, newest first; a line that is no usage has none."""
    found = await _found(call)
    position = call.params["position"]
    async with call.engine.database.reading() as reader:
        lines = await store.read_lines(reader, found)
        line = next((line for line in lines if str(line.position) == position), None)
        if line is None:
            raise Refusal("not_found")
        events = []
        if line.event_type is not None:
            events = await store.line_events(reader, found, line, call.page())
    return page_of(call, events, lambda event: (event.id, event.account_id), shapes.EventWriter().event)


async def get_pdf(call: Call) -> Answer:
    """The invoice as a PDF."""
    whole = await _whole(call)
    environment = call.environment
    footer, zone = settings_of(environment.money).footer, environment.terms.zone
    paper = await asyncio.to_thread(invoice_pdf, whole, footer, zone)
    return Answer(200, paper, media=PDF)


# --- the table --------------------------------------------------------------------------------------------------------

_STATUSES: Final = "|".join(get_args(InvoiceStatus))
_LISTING: Final = (
    *PAGING,
    Param("status", _STATUSES, "Only invoices of this status."),
    Param("currency", "text", "Only invoices in this currency."),
)
_TAG: Final = "Invoices"
_READ: Final = "invoices:read"
_WRITE: Final = "invoices:write"
_CURRENCY: Final = Param("currency", "text", "Which currency's terms; needed where there are several.")
_ONE: Final = "/invoices/{invoice_id}"

ROUTES: Final = (
    Route(
        "PUT",
        "/accounts/{account_id}/invoicing",
        set_terms,
        "Let an account pay by invoice",
        _TAG,
        shown.TermsOut,
        scope=_WRITE,
        body=taken.TermsIn,
        example={"currency": "USD", "terms_days": 30, "collection": "send_invoice"},
    ),
    Route(
        "GET",
        "/accounts/{account_id}/invoicing",
        list_terms,
        "How an account pays by invoice",
        _TAG,
        shown.TermsOut,
        scope=_READ,
        is_list=True,
    ),
    Route(
        "DELETE",
        "/accounts/{account_id}/invoicing",
        end_terms,
        "End invoicing of an account",
        _TAG,
        shown.TermsOut,
        scope=_WRITE,
        query=(_CURRENCY,),
        refusals=("no_invoice_terms", "missing_field", "invalid_field"),
    ),
    Route(
        "POST",
        "/accounts/{account_id}/invoices",
        cut_invoice,
        "Cut an invoice now, or preview it",
        _TAG,
        shown.InvoiceOut,
        scope=_WRITE,
        body=taken.CutIn,
        refusals=("no_invoice_terms", "nothing_to_invoice"),
        example={"preview": True},
    ),
    Route(
        "GET",
        "/accounts/{account_id}/invoices",
        list_account_invoices,
        "List an account's invoices",
        _TAG,
        shown.InvoiceOut,
        scope=_READ,
        query=_LISTING,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/companies/{company_id}/invoices",
        list_company_invoices,
        "List the company's invoices",
        _TAG,
        shown.InvoiceOut,
        scope=_READ,
        query=_LISTING,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route("GET", _ONE, get_invoice, "Get an invoice", _TAG, shown.InvoiceOut, scope=_READ),
    Route(
        "PUT",
        _ONE,
        edit_draft,
        "Change a draft",
        _TAG,
        shown.InvoiceOut,
        scope=_WRITE,
        body=taken.DraftChange,
        refusals=("invoice_not_draft",),
        example={"lines": [{"description": "Onboarding", "amount": 5000}], "taxes": [{"name": "VAT", "amount": 1000}]},
    ),
    Route(
        "DELETE",
        _ONE,
        discard_draft,
        "Discard a draft",
        _TAG,
        shown.InvoiceOut,
        scope=_WRITE,
        refusals=("invoice_not_draft", "not_latest_invoice"),
    ),
    Route(
        "POST",
        f"{_ONE}/finalize",
        finalize_invoice,
        "Make a draft final",
        _TAG,
        shown.InvoiceOut,
        scope=_WRITE,
        refusals=("invoice_not_draft", "balance_out_of_range"),
    ),
    Route(
        "POST",
        f"{_ONE}/void",
        void_invoice,
        "Void an invoice",
        _TAG,
        shown.InvoiceOut,
        scope=_WRITE,
        refusals=("invoice_not_open", "invoice_settled", "payment_in_progress"),
    ),
    Route(
        "POST",
        f"{_ONE}/uncollectible",
        give_up_invoice,
        "Give an invoice up",
        _TAG,
        shown.InvoiceOut,
        scope=_WRITE,
        refusals=("invoice_not_open",),
    ),
    Route(
        "POST",
        f"{_ONE}/mark_paid",
        mark_paid,
        "Mark an invoice as paid outside",
        _TAG,
        shown.InvoiceOut,
        scope=_WRITE,
        body=taken.PaidIn,
        refusals=("invoice_not_open", "invoice_settled", "payment_in_progress"),
        example={"reference": "bank transfer 2030-02-14"},
    ),
    Route(
        "POST",
        f"{_ONE}/pay",
        pay_invoice,
        "Pay an invoice by card",
        _TAG,
        shown.InvoiceOut,
        scope=_WRITE,
        refusals=(
            *("payment_method_required", "payment_failed", "payment_in_progress", "amount_not_chargeable"),
            *("invoice_not_open", "invoice_settled", "gateway_not_configured"),
        ),
    ),
    Route(
        "POST",
        f"{_ONE}/link",
        make_link,
        "Make a hosted page of an invoice",
        _TAG,
        shown.InvoiceLinkOut,
        scope=_WRITE,
        body=taken.LinkIn,
        refusals=("invoice_not_open",),
        example={"expires_in_days": 30},
    ),
    Route(
        "POST",
        f"{_ONE}/credit_notes",
        credit_invoice,
        "Credit a part of an invoice",
        _TAG,
        shown.CreditNoteOut,
        scope=_WRITE,
        body=taken.CreditNoteIn,
        refusals=("invoice_not_open", "credit_exceeds_invoice", "payment_in_progress"),
        example={"amount": 500, "reason": "outage on 12 January"},
    ),
    Route(
        "GET",
        "/credit_notes/{credit_note_id}",
        get_credit_note,
        "Get a credit note",
        _TAG,
        shown.CreditNoteOut,
        scope=_READ,
    ),
    Route(
        "GET",
        _ONE + "/lines/{position}/events",
        list_line_events,
        "List the events behind a line",
        _TAG,
        shapes.EventOut,
        scope=_READ,
        query=PAGING,
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route("GET", f"{_ONE}/pdf", get_pdf, "Get an invoice as PDF", _TAG, bytes, scope=_READ),
)
