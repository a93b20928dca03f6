"""Invoices: the paper, what stands behind each line, and what can be done to it while it is a draft, open or paid."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, Final, NamedTuple, get_args

import msgspec
from litestar import Response

from tenuto.core.invoice import InvoiceStatus
from tenuto.core.outcomes import Refusal, invalid

from .formats import read_amount
from .forms import read_denomination, whole
from .frame import HEADERS, Page, Visit
from .money import account_path, movements
from .tables import Column, Listing, answer

LINK_DAYS: Final = 90
"""How long a link to the hosted page of an invoice works."""

INVOICES: Final = Listing(
    name="invoices",
    path="/companies/{company_id}/invoices",
    columns=(
        Column("id", "Invoice", "code"),
        Column("number", "Number"),
        Column("customer.name", "Customer", link=account_path),
        Column("status", "Status", "badge", filter="status", choices=get_args(InvoiceStatus)),
        Column("total", "Total", "amount", denomination="currency"),
        Column("remaining", "Remaining", "amount", denomination="currency"),
        Column("period_start", "From", "moment"),
        Column("period_end", "To", "moment"),
        Column("due_at", "Due", "moment"),
        Column("created_at", "Cut", "moment"),
    ),
    empty="There is no invoice yet.",
    hint="An account that pays by invoice gets one each month; you can also cut one now.",
    anchor=lambda row: f"/control/invoices/{row['id']}",
    filters=(("currency", "Currency"),),
)
LINE_EVENTS: Final = Listing(
    name="events",
    path="/invoices/{invoice_id}/lines/{position}/events",
    columns=(
        Column("id", "Event", "code"),
        Column("occurred_at", "When", "moment"),
        Column("type", "Type"),
        Column("quantity", "Quantity", "number"),
        Column("cost.amount", "Cost", "amount", denomination="cost.denomination"),
        Column("state", "State", "badge"),
    ),
    empty="This line is no usage: no event stands behind it.",
    anchor=lambda row: f"/control/events/{row['id']}",
)


class Actions(NamedTuple):
    """What the status of an invoice leaves to be done; ``credit`` is how much may still be credited."""

    finalize: bool
    void: bool
    give_up: bool
    pay: bool
    link: bool
    credit: int


def actions_of(invoice: Mapping[str, Any]) -> Actions:
    """What can be done to an invoice. The API judges once more."""
    status = invoice["status"]
    is_final = status not in {"draft", "void"}
    credited = sum(note["amount"] for note in invoice["credit_notes"])
    return Actions(
        finalize=status == "draft",
        void=status in {"open", "uncollectible"} and not invoice["amount_paid"],
        give_up=status == "open",
        pay=status in {"open", "uncollectible"} and invoice["remaining"] > 0,
        link=status != "draft",
        credit=max(0, invoice["total"] - credited) if is_final else 0,
    )


async def invoices(visit: Visit) -> Response[Any]:
    """All invoices, newest first."""
    return await answer(visit, INVOICES, "invoices.html", {"title": "Invoices"})


async def invoice(visit: Visit) -> Response[Any]:
    """One invoice as it is on paper, with what it leads to and what can be done to it."""
    found = await _found(visit)
    company = await visit.get("/companies/{company_id}")
    return visit.page(
        "invoice.html",
        invoice=found,
        actions=actions_of(found),
        account=await visit.get("/accounts/{account_id}", account_id=found["account_id"]),
        moved=await movements(visit, found["id"]),
        ladder=company["invoicing"]["dunning"],
    )


async def _found(visit: Visit) -> dict[str, Any]:
    found: dict[str, Any] = await visit.get("/invoices/{invoice_id}", invoice_id=visit.param("invoice_id"))
    return found


async def line_events(visit: Visit) -> Response[Any]:
    """The events behind one line."""
    found, position = await _found(visit), visit.param("position")
    line = next((line for line in found["lines"] if str(line["position"]) == position), None)
    if line is None:
        raise Refusal("not_found")
    values = {"title": line["description"], "invoice": found, "line": line}
    return await answer(visit, LINE_EVENTS, "invoice_line.html", values, invoice_id=str(found["id"]), position=position)


async def paper(visit: Visit) -> Response[Any]:
    """The invoice as a PDF."""
    found = await _found(visit)
    made = await visit.raw("/invoices/{invoice_id}/pdf", invoice_id=str(found["id"]))
    name = (found["number"] or "draft").replace("/", "-")
    headers = {**HEADERS, "content-disposition": f'attachment; filename="{name}.pdf"'}
    return Response(made.body, media_type=made.media, headers=headers)


# --- what is done to one ----------------------------------------------------------------------------------------------


def _page(visit: Visit) -> str:
    return f"/control/invoices/{visit.param('invoice_id')}"


async def _do(visit: Visit, verb: str, body: Any = None) -> dict[str, Any]:
    done: dict[str, Any] = await visit.do(
        "POST", f"/invoices/{{invoice_id}}/{verb}", body, invoice_id=visit.param("invoice_id")
    )
    return done


async def finalize(visit: Visit) -> Response[Any]:
    """Make a draft final."""
    done = await _do(visit, "finalize")
    return visit.go(_page(visit), f"The invoice is final: {done['number']}.")


async def edit_memo(visit: Visit) -> Response[Any]:
    """Write what stands below the sums of a draft."""
    body = {"memo": visit.field("memo").replace("\r\n", "\n")}
    await visit.do("PUT", "/invoices/{invoice_id}", body, invoice_id=visit.param("invoice_id"))
    return visit.go(_page(visit), "The memo is kept.")


async def edit_lines(visit: Visit) -> Response[Any]:
    """Write the lines of a draft that are no usage, all of them."""
    found = await _found(visit)
    body = {"lines": _lines(visit, found["currency"])}
    await visit.do("PUT", "/invoices/{invoice_id}", body, invoice_id=visit.param("invoice_id"))
    return visit.go(_page(visit), "The lines are kept.")


async def discard(visit: Visit) -> Response[Any]:
    """Forget a draft."""
    await visit.do("DELETE", "/invoices/{invoice_id}", invoice_id=visit.param("invoice_id"))
    return visit.go("/control/invoices", "The draft is gone. What stood on it goes on the next invoice.")


async def void(visit: Visit) -> Response[Any]:
    """Take an invoice back."""
    await _do(visit, "void")
    return visit.go(_page(visit), "The invoice is void.")


async def give_up(visit: Visit) -> Response[Any]:
    """Expect no payment any more."""
    await _do(visit, "uncollectible")
    return visit.go(_page(visit), "No payment is expected any more. The debt stays on the balance.")


async def mark_paid(visit: Visit) -> Response[Any]:
    """Note that it was paid outside."""
    await _do(visit, "mark_paid", {"reference": visit.field("reference")})
    return visit.go(_page(visit), "The invoice is paid.")


async def pay(visit: Visit) -> Response[Any]:
    """Charge the card with what remains."""
    done = await _do(visit, "pay")
    said = "The card was charged." if done["status"] == "paid" else "The payment is under way."
    return visit.go(_page(visit), said)


async def credit(visit: Visit) -> Response[Any]:
    """Take an amount from it."""
    found = await _found(visit)
    amount = read_amount(visit.field("amount"), found["currency"])
    done = await _do(visit, "credit_notes", {"amount": amount, "reason": visit.field("reason")})
    return visit.go(_page(visit), f"Credit note {done['number']} is written.")


async def make_link(visit: Visit) -> Response[Any]:
    """Make the address of its hosted page, which is shown this once."""
    found = await _found(visit)
    link = await _do(visit, "link", {"expires_in_days": LINK_DAYS})
    return visit.page("invoice_link.html", invoice=found, link=link)


# --- a new one --------------------------------------------------------------------------------------------------------


async def new_invoice(visit: Visit) -> Response[Any]:
    """Where an invoice is cut for an account, with what would stand on it."""
    public = visit.query.get("account_id", "").strip()
    if not public:
        return visit.page("invoice_new.html", account=None, terms=[], currency="", company_currency="")
    account = await visit.get("/accounts/{account_id}", account_id=public)
    listed = await visit.rows("/accounts/{account_id}/invoicing", account_id=public)
    currencies = [terms["currency"] for terms in listed.rows]
    asked = visit.query.get("currency", "")
    company = await visit.get("/companies/{company_id}")
    return visit.page(
        "invoice_new.html",
        account=account,
        terms=listed.rows,
        currency=asked if asked in currencies else next(iter(currencies), ""),
        company_currency=company["invoicing"]["currency"],
    )


def _lines(visit: Visit, currency: str) -> list[dict[str, Any]]:
    """The lines that were written by hand; a row that is empty is none."""
    given = zip_longest(visit.fields("line_description"), visit.fields("line_amount"), fillvalue="")
    found = []
    for index, (description, amount) in enumerate(given):
        if not description and not amount:
            continue
        if not description:
            raise invalid(f"lines[{index}].description", "says what the line is for.")
        found.append({"description": description, "amount": read_amount(amount, currency, f"lines[{index}].amount")})
    return found


async def preview(visit: Visit) -> Response[Any]:
    """What would stand on it: a part of the page, made anew as somebody writes."""
    currency, public = visit.field("currency"), visit.field("account_id")
    body = {"currency": currency, "preview": True, "lines": _lines(visit, currency)}
    # Each preview is asked under a key of its own: what was posted since, or was written since, changes it.
    part = hashlib.sha256(msgspec.json.encode(body)).hexdigest()[:16]
    found = await visit.do("POST", "/accounts/{account_id}/invoices", body, part=part, account_id=public)
    return visit.page("invoice_preview.html", invoice=found)


async def cut(visit: Visit) -> Response[Any]:
    """Cut the draft."""
    currency, public = visit.field("currency"), visit.field("account_id")
    body = {"currency": currency, "preview": False, "lines": _lines(visit, currency)}
    made = await visit.do("POST", "/accounts/{account_id}/invoices", body, account_id=public)
    return visit.go(f"/control/invoices/{made['id']}", "The draft is cut. Make it final when it is right.")


async def set_terms(visit: Visit) -> Response[Any]:
    """Let an account pay by invoice."""
    public, days = visit.field("account_id"), whole(visit.field("terms_days"), "terms_days")
    body = {
        "currency": read_denomination(visit.field("currency"), "currency"),
        "terms_days": days,
        "collection": visit.field("collection"),
    }
    await visit.do("PUT", "/accounts/{account_id}/invoicing", body, account_id=public)
    return visit.go(f"/control/invoices/new?account_id={public}", "From now on it pays by invoice.")


_ONE: Final = "/control/invoices/{invoice_id}"
_READ: Final = "invoices:read"
_WRITE: Final = "invoices:write"

PAGES: Final = (
    Page("GET", "/control/invoices", invoices, _READ),
    Page("GET", "/control/invoices/new", new_invoice, _WRITE),
    Page("POST", "/control/invoices/new", cut, _WRITE),
    Page("POST", "/control/invoices/preview", preview, _WRITE),
    Page("POST", "/control/invoices/terms", set_terms, _WRITE),
    Page("GET", _ONE, invoice, _READ),
    Page("GET", f"{_ONE}/invoice.pdf", paper, _READ),
    Page("GET", _ONE + "/lines/{position}", line_events, _READ),
    Page("POST", f"{_ONE}/finalize", finalize, _WRITE),
    Page("POST", f"{_ONE}/memo", edit_memo, _WRITE),
    Page("POST", f"{_ONE}/lines", edit_lines, _WRITE),
    Page("POST", f"{_ONE}/discard", discard, _WRITE),
    Page("POST", f"{_ONE}/void", void, _WRITE),
    Page("POST", f"{_ONE}/give-up", give_up, _WRITE),
    Page("POST", f"{_ONE}/paid", mark_paid, _WRITE),
    Page("POST", f"{_ONE}/pay", pay, _WRITE, fresh=True),
    Page("POST", f"{_ONE}/credit", credit, _WRITE),
    Page("POST", f"{_ONE}/link", make_link, _WRITE),
)
