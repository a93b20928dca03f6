"""The page of an invoice for the person who is to pay it, at a signed address.

Whoever has the address may look and pay, nobody else: a token that is unknown, forged or over leads to the same plain
page. There is no script; everything that came from somebody is escaped; no other site may frame the page.
"""

from __future__ import annotations

import asyncio
from datetime import tzinfo
from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import structlog
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response import Redirect

from tenuto.core.invoice import Invoice, settings_of
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import Payment
from tenuto.service.invoicing import begin_hosted_payment, can_be_paid, open_link
from tenuto.service.payments import drive
from tenuto.store.invoices import WholeInvoice

from .invoice_pdf import day, facts, invoice_pdf, money, parties, totals

if TYPE_CHECKING:
    from .app import Application

HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}
HEAD: Final = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="/static/hosted.css">\n'
)
GONE: Final = (
    f"{HEAD}<title>Not found</title>\n</head>\n<body>\n<main>\n<h1>This page does not exist</h1>\n"
    "<p>The link is not complete, or it is over. Ask whoever sent it for a new one.</p>\n</main>\n</body>\n</html>\n"
)
_STATES: Final = {
    "open": "Open",
    "late": "Past due",
    "paid": "Paid",
    "void": "Void",
    "uncollectible": "Past due",
}
_NOTICES: Final = {
    "refused": "The card was not charged. Nothing was taken; try again, or ask for another way to pay.",
    "waiting": "The payment is under way. This page shows it as soon as it is done.",
    "older": "The card was charged. What came in paid older invoices first, so a part of this one is still to be paid.",
}
_log = structlog.get_logger()


def handlers(application: Application) -> list[HTTPRouteHandler]:
    """The handlers, for Litestar."""

    @get("/i/{token:str}")
    async def hosted_invoice(request: Request[Any, Any, Any], token: str) -> Response[str]:
        engine = application.engine
        try:
            whole, environment = await open_link(engine, token)
        except Refusal:
            return page(GONE, 404)
        notice = _NOTICES.get(request.query_params.get("payment", ""), "")
        if whole.invoice.status == "paid":
            notice = ""
        can_pay = await can_be_paid(engine, whole.invoice)
        is_late = whole.invoice.due_at is not None and whole.invoice.due_at < engine.now_of(environment)
        state = "late" if is_late and whole.invoice.status == "open" else whole.invoice.status
        shown = invoice_page(
            whole, token=token, state=state, notice=notice, can_pay=can_pay, zone=environment.terms.zone
        )
        return page(shown, 200)

    @get("/i/{token:str}/invoice.pdf")
    async def hosted_pdf(token: str) -> Response[bytes] | Response[str]:
        try:
            whole, environment = await open_link(application.engine, token)
        except Refusal:
            return page(GONE, 404)
        footer, zone = settings_of(environment.money).footer, environment.terms.zone
        paper = await asyncio.to_thread(invoice_pdf, whole, footer, zone)
        name = quote(f"{whole.invoice.number}.pdf".replace("/", "-"))
        headers = {**HEADERS, "content-disposition": f'inline; filename="{name}"'}
        return Response(paper, media_type="application/pdf", headers=headers)

    @post("/i/{token:str}/pay")
    async def pay_hosted(token: str) -> Response[Any]:
        engine = application.engine
        try:
            whole, environment = await open_link(engine, token)
        except Refusal:
            return page(GONE, 404)
        try:
            begun = await begin_hosted_payment(engine, environment, whole.invoice)
            driven = await drive(engine, environment, begun.account_id, begun.id, fence=0)
            after, _ = await open_link(engine, token)
            outcome = _outcome(driven, is_paid=after.invoice.status == "paid")
        except Refusal as refusal:
            _log.info("pay_hosted", code=refusal.code)
            outcome = "waiting" if refusal.code == "payment_in_progress" else "refused"
        return Redirect(f"/i/{token}?payment={outcome}", status_code=303, headers=HEADERS)

    return [hosted_invoice, hosted_pdf, pay_hosted]


def _outcome(payment: Payment, *, is_paid: bool) -> str:
    """What the page says after the button: ``done`` only where the invoice is paid."""
    if is_paid:
        return "done"
    if payment.status == "succeeded":
        return "older"
    return "waiting" if payment.is_open and not payment.declines else "refused"


def page(text: str, status: int) -> Response[str]:
    """A page for a company's customer, which nobody keeps and no other site may frame."""
    return Response(text, status_code=status, media_type="text/html", headers=HEADERS)


def invoice_page(whole: WholeInvoice, *, token: str, state: str, notice: str, can_pay: bool, zone: tzinfo) -> str:
    """The page: what is to be paid and by when, the lines, the sums, the paper."""
    invoice, seller = whole.invoice, str(whole.invoice.seller.get("name") or "")
    address = f"/i/{escape(token)}"
    pay = f'<form method="post" action="{address}/pay"><button>{_pay_label(invoice)}</button></form>' if can_pay else ""
    due = f"due on {day(invoice.due_at, zone)}" if state in {"open", "late", "uncollectible"} else ""
    amount = invoice.remaining if due else invoice.total
    return (
        f"{HEAD}<title>{escape(f'Invoice {invoice.number}')}</title>\n</head>\n<body>\n<main>\n"
        f'<p class="soft">{escape(seller)}</p>\n<h1>Invoice {escape(invoice.number or "")}</h1>\n'
        f'<p class="state {state}">{_STATES[state]}</p>\n'
        + (f'<p class="notice" role="status">{escape(notice)}</p>\n' if notice else "")
        + f'<p class="sum">{escape(money(amount, invoice.currency))}</p>\n<p class="soft">{due}</p>\n'
        f'<div class="actions">{pay}<a class="button" href="{address}/invoice.pdf">Download PDF</a></div>\n'
        f"{_parties(whole)}{_facts(whole, zone)}{_table(whole)}"
        + (f'<p class="soft">{escape(invoice.memo)}</p>\n' if invoice.memo else "")
        + "</main>\n</body>\n</html>\n"
    )


def _pay_label(invoice: Invoice) -> str:
    return f"Pay {escape(money(invoice.remaining, invoice.currency))} by card"


def _parties(whole: WholeInvoice) -> str:
    seller, customer = parties(whole)
    blocks = "".join(
        f"<dl><dt>{title}</dt>{''.join(f'<dd>{escape(line)}</dd>' for line in lines)}</dl>"
        for title, lines in (("From", seller), ("To", customer))
        if lines
    )
    return f'<div class="parties">{blocks}</div>\n'


def _facts(whole: WholeInvoice, zone: tzinfo) -> str:
    shown = [f"{name}: {escape(value)}" for name, value in facts(whole, zone) if name in {"Date", "Period"}]
    return f'<p class="soft">{" · ".join(shown)}</p>\n'


def _table(whole: WholeInvoice) -> str:
    currency = whole.invoice.currency
    rows = "".join(
        f"<tr><td>{escape(line.description)}</td><td>{escape(line.quantity or '')}</td>"
        f"<td>{escape(money(line.amount, currency))}</td></tr>\n"
        for line in whole.lines
    )
    sums = "".join(
        f"<tr{' class=main' if name in {'Total', 'Amount due'} else ''}><td>{escape(name)}</td><td></td>"
        f"<td>{escape(money(amount, currency))}</td></tr>\n"
        for name, amount in totals(whole)
    )
    return (
        '<div class="lines"><table>\n<thead><tr><th>Description</th><th>Quantity</th><th>Amount</th></tr></thead>\n'
        f"<tbody>{rows}</tbody>\n<tfoot>{sums}</tfoot>\n</table></div>\n"
    )
