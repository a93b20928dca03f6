"""An invoice on paper: the same data make the same bytes, whoever asks and whenever.

Texts come from anybody and in any script; the fonts are ours and have Latin, Greek, Cyrillic, Arabic and the like, but
not Chinese: a character that they lack is shown as a replacement mark, and none breaks the page.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from babel.numbers import format_currency

from tenuto.core.money import CURRENCY_EXPONENTS
from tenuto.store.invoices import WholeInvoice

if TYPE_CHECKING:
    from fpdf import FPDF

_FONT: Final = "DejaVu"
_GREY: Final = 110
_LINE: Final = 210
_MARGIN: Final = 18
_COLUMNS: Final = (104, 30, 40)
_WIDTH: Final = 174
_ROW: Final = 6.0


def money(amount: int, currency: str) -> str:
    """Minor units as people write them: 123456 US cents are ``$1,234.56``."""
    exponent = CURRENCY_EXPONENTS.get(currency, 2)
    return format_currency(
        Decimal(amount).scaleb(-exponent), currency, locale="en_US", decimal_quantization=False, currency_digits=True
    )


def day(at: datetime | None, zone: tzinfo) -> str:
    """A date as people write it: ``1 Feb 2030``."""
    return "" if at is None else at.astimezone(zone).strftime("%d %b %Y").lstrip("0")


def facts(whole: WholeInvoice, zone: tzinfo) -> list[tuple[str, str]]:
    """What an invoice says of itself beside its lines; a period's last day is the one that ended."""
    invoice = whole.invoice
    last = max(invoice.period_start, invoice.period_end - timedelta(microseconds=1))
    return [
        (name, value)
        for name, value in (
            ("Number", invoice.number or "DRAFT"),
            ("Date", day(invoice.finalized_at, zone)),
            ("Due", day(invoice.due_at, zone)),
            ("Period", f"{day(invoice.period_start, zone)} – {day(last, zone)}"),  # noqa: RUF001 - a range
            ("Status", invoice.status),
        )
        if value
    ]


def totals(whole: WholeInvoice) -> list[tuple[str, int]]:
    """The sums below the lines, in order; those of nothing are left out."""
    invoice = whole.invoice
    rows = [("Subtotal", invoice.subtotal)]
    for tax in whole.taxes:
        rate = f" {tax.rate} %" if tax.rate else ""
        rows.append((f"{'of which ' if tax.is_inclusive else ''}{tax.name}{rate}", tax.amount))
    rows.append(("Total", invoice.total))
    for name, amount in (
        ("From balance", invoice.applied),
        ("Paid", invoice.amount_paid),
        ("Credited", invoice.amount_credited),
    ):
        if amount:
            rows.append((name, -amount))
    if invoice.status not in {"draft", "void"}:
        rows.append(("Amount due", invoice.remaining))
    return rows


def parties(whole: WholeInvoice) -> tuple[list[str], list[str]]:
    """Seller and customer, each as the lines of an address."""
    seller, customer = whole.invoice.seller, whole.invoice.customer
    found = [seller.get("name", ""), *str(seller.get("address", "")).splitlines(), seller.get("tax_id", "")]
    numbers = [str(one["value"]) for one in customer.get("tax_ids", ())]
    return (
        [line for line in (*found, seller.get("email", "")) if line],
        [line for line in (customer.get("name", ""), customer.get("email", ""), *numbers) if line],
    )


def invoice_pdf(whole: WholeInvoice, footer: str, zone: tzinfo) -> bytes:
    """The PDF, with dates as they are in ``zone``. A draft says that it is one, a void invoice too."""
    pdf = _document(whole)
    _head(pdf, whole, zone)
    _lines(pdf, whole)
    _sums(pdf, whole)
    if whole.invoice.memo:
        pdf.ln(4)
        pdf.set_font(_FONT, size=9)
        pdf.multi_cell(_WIDTH, 4.5, _clean(whole.invoice.memo), align="L", new_x="LMARGIN", new_y="NEXT")
    _feet(pdf, footer)
    return bytes(pdf.output())


def _document(whole: WholeInvoice) -> FPDF:
    # Imported where it is needed: it takes a second that no start should wait for.
    from fpdf import FPDF  # noqa: PLC0415

    # A character that no font has is no fault of ours, and nothing for the log.
    for name in ("fpdf", "fontTools"):
        logging.getLogger(name).setLevel(logging.ERROR)
    pdf = FPDF(format="A4")
    pdf.set_margins(_MARGIN, _MARGIN)
    pdf.set_auto_page_break(auto=True, margin=22)
    pdf.set_creation_date(whole.invoice.finalized_at or whole.invoice.created_at)
    pdf.set_title(whole.invoice.number or "Draft")
    pdf.set_creator("Tenuto")
    fonts = resources.files("tenuto") / "static" / "fonts"
    pdf.add_font(_FONT, "", str(fonts / "DejaVuSans.ttf"))
    pdf.add_font(_FONT, "B", str(fonts / "DejaVuSans-Bold.ttf"))
    pdf.add_page()
    return pdf


def _feet(pdf: FPDF, footer: str) -> None:
    """The foot of every page, once it is known how many there are."""
    pdf.set_auto_page_break(auto=False)
    count, said = pdf.page, " ".join(_clean(footer).split())[:180]
    for page in range(1, count + 1):
        pdf.page = page
        pdf.set_xy(_MARGIN, -16)
        pdf.set_font(_FONT, size=7.5)
        pdf.set_text_color(_GREY)
        pdf.cell(_WIDTH, 5, f"{said} · {page}/{count}" if said else f"{page}/{count}", align="C")


def _head(pdf: FPDF, whole: WholeInvoice, zone: tzinfo) -> None:
    seller, customer = parties(whole)
    pdf.set_font(_FONT, "B", 20)
    title = {"draft": "DRAFT", "void": "VOID"}.get(whole.invoice.status, "Invoice")
    pdf.cell(_WIDTH, 11, title, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(2)
    top = pdf.get_y()
    _block(pdf, _MARGIN, top, "From", seller)
    bottom = pdf.get_y()
    _block(pdf, _MARGIN + 58, top, "To", customer)
    bottom = max(bottom, pdf.get_y())
    pdf.set_y(top)
    for name, value in facts(whole, zone):
        pdf.set_x(_MARGIN + 116)
        pdf.set_font(_FONT, size=8)
        pdf.set_text_color(_GREY)
        pdf.cell(16, 5, name)
        pdf.set_text_color(0)
        pdf.multi_cell(42, 5, _clean(value), align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.set_y(max(bottom, pdf.get_y()) + 8)


def _block(pdf: FPDF, x: float, y: float, title: str, lines: list[str]) -> None:
    pdf.set_xy(x, y)
    pdf.set_font(_FONT, size=8)
    pdf.set_text_color(_GREY)
    pdf.cell(56, 5, title, new_x="LMARGIN", new_y="NEXT")
    pdf.set_text_color(0)
    for index, line in enumerate(lines[:12]):
        pdf.set_x(x)
        pdf.set_font(_FONT, "" if index else "B", 9)
        pdf.multi_cell(54, 4.5, _clean(line)[:300], new_x="LMARGIN", new_y="NEXT", align="L")


def _lines(pdf: FPDF, whole: WholeInvoice) -> None:
    currency = whole.invoice.currency
    pdf.set_font(_FONT, size=9)
    pdf.set_draw_color(_LINE)
    with pdf.table(
        col_widths=_COLUMNS,
        width=_WIDTH,
        align="LEFT",
        text_align=("LEFT", "RIGHT", "RIGHT"),
        borders_layout="HORIZONTAL_LINES",
        line_height=_ROW,
        padding=(0.6, 1),
    ) as table:
        head = table.row()
        for title in ("Description", "Quantity", "Amount"):
            head.cell(title)
        for line in whole.lines:
            row = table.row()
            row.cell(_clean(line.description)[:600])
            row.cell(line.quantity or "")
            row.cell(money(line.amount, currency))
    pdf.ln(3)


def _sums(pdf: FPDF, whole: WholeInvoice) -> None:
    for name, amount in totals(whole):
        is_main = name in {"Total", "Amount due"}
        if pdf.will_page_break(_ROW):
            pdf.add_page()
        pdf.set_font(_FONT, "B" if is_main else "", 10 if is_main else 9)
        pdf.set_x(_MARGIN + 74)
        pdf.cell(60, _ROW, _clean(name)[:40])
        pdf.cell(40, _ROW, money(amount, whole.invoice.currency), align="R", new_x="LMARGIN", new_y="NEXT")


def _clean(text: str) -> str:
    """A text with a mark in the place of what no font of ours has; controls and turns of direction are spaces."""
    known = _characters()
    return "".join(
        char if ord(char) in known or char == "\n" else "\ufffd" if char.isprintable() else " " for char in text
    )


@cache
def _characters() -> frozenset[int]:
    """The characters of our fonts."""
    from fpdf import FPDF  # noqa: PLC0415

    pdf = FPDF()
    pdf.add_font(_FONT, "B", str(resources.files("tenuto") / "static" / "fonts" / "DejaVuSans-Bold.ttf"))
    font: Any = pdf.fonts[f"{_FONT.lower()}B"]
    return frozenset(code for code in font.cmap if chr(code).isprintable())
