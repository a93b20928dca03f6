"""Transactions and payments: what moved a balance and why, and what became of money that was to come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, get_args

from litestar import Response

from tenuto.core import ledger
from tenuto.core.outcomes import Refusal
from tenuto.core.payment import Method, PaymentReason

from .formats import read_amount
from .frame import Page, Visit
from .tables import Column, Listing, answer

EVENTS_SHOWN: Final = 200
"""How many events of one transaction its page lists; a posting may hold a thousand."""
HISTORY: Final = 100
"""How many steps of a plan are looked through for the one that a payment paid."""

BOOKS: Final[Mapping[str, str]] = {
    ledger.USAGE_BOOK: "What events cost.",
    ledger.OVERAGE_BOOK: "What usage cost beyond a balance of the plan.",
    ledger.ADJUSTMENT_BOOK: "Put on or taken off by hand, without payment.",
    ledger.DEPOSIT_BOOK: "Units that were bought.",
    ledger.REFILL_BOOK: "Units that a refill bought by rule.",
    ledger.PAYMENT_BOOK: "Money that came in for an invoice or a plan.",
    ledger.REFUND_BOOK: "What a refund took off with the money that went back.",
    ledger.REFUND_CREDIT_BOOK: "Credited again, for it had paid invoices before it went back.",
    ledger.REFUND_FAILED_BOOK: "Put back, because the refund failed.",
    ledger.DISPUTE_BOOK: "What the bank took back for its customer.",
    ledger.DISPUTE_WON_BOOK: "Put back, because the dispute was won.",
    ledger.TAX_BOOK: "Tax of an invoice.",
    ledger.CREDIT_NOTE_BOOK: "What a credit note gave.",
    ledger.VOID_BOOK: "What a void invoice gave back.",
    ledger.INVOICE_ITEM_BOOK: "A line of an invoice that was written by hand.",
    ledger.PLAN_BOOK: "The price of a plan.",
    ledger.PRORATION_BOOK: "The part of a plan that was not used.",
    ledger.GRANT_BOOK: "Units that arrived together, with an end.",
    ledger.EXPIRY_BOOK: "Units whose time was over.",
}
"""What each book is for: it is the other side of a transaction."""

TYPES: Final = (
    *("EVENT", "REVERSAL", "OVERAGE", "ADJUSTMENT", "DEPOSIT", "REFILL", "THRESHOLD_REFILL", "PAYMENT", "REFUND"),
    *("GRANT", "EXPIRY", "TAX", "PLAN_START", "PLAN_RENEWAL", "PLAN_CHANGE", "CANCEL_REMAINING"),
)
STATUSES: Final = ("pending", "succeeded", "failed", "skipped", "voided", "refunded", "paid")
_PERIOD: Final = (("from", "From"), ("to", "To"))


def account_path(row: Mapping[str, Any]) -> str:
    """Where the account of a row has its page."""
    return f"/control/accounts/{row['account_id']}"


def cause_of(moved: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """What moved a balance, as far as its id alone says it: in words, as an address, and the scope to read it.

    None where events did, or somebody's hand, or something that has no page of its own.
    """
    public = str(moved["cause_id"] or "")
    match public.partition("_")[0]:
        case "pay":
            return "A payment", f"/control/payments/{public}", "payments:read"
        case "inv":
            return "An invoice", f"/control/invoices/{public}", "invoices:read"
        case "ps":
            return "A step of its plan", account_path(moved), "accounts:read"
        case "g":
            return "A grant", account_path(moved), "accounts:read"
        case _:
            return None


def made_of(moved: Mapping[str, Any]) -> str:
    """The page of what made a transaction: its event, or its cause; empty where there is none."""
    if moved["event_ids"]:
        return f"/control/events/{moved['event_ids'][0]}"
    cause = cause_of(moved)
    return "" if cause is None else cause[1]


# --- transactions -----------------------------------------------------------------------------------------------------

TRANSACTIONS: Final = Listing(
    name="transactions",
    path="/companies/{company_id}/transactions",
    columns=(
        Column("id", "Transaction", "code"),
        Column("created_at", "When", "moment"),
        Column("account.name", "Account", link=account_path),
        Column("type", "Type", filter="type", choices=TYPES),
        Column("book", "Book", "badge", filter="book", choices=tuple(BOOKS)),
        Column("description", "Of", link=made_of),
        Column("amount", "Amount", "amount"),
        Column("ending_balance", "Balance after", "amount"),
    ),
    empty="No balance has moved yet.",
    hint="Every event, deposit, refill and adjustment leaves a transaction here.",
    anchor=lambda row: f"/control/transactions/{row['id']}",
    filters=(("account_id", "Account id"), ("denomination", "Denomination"), *_PERIOD),
)


async def transactions(visit: Visit) -> Response[Any]:
    """All movements of all balances, newest first."""
    return await answer(visit, TRANSACTIONS, "transactions.html", {"title": "Transactions"})


async def transaction(visit: Visit) -> Response[Any]:
    """One movement: both sides of it, what caused it, and its events."""
    found = await visit.get("/transactions/{transaction_id}", transaction_id=visit.param("transaction_id"))
    return visit.page(
        "transaction.html",
        moved=found,
        book=BOOKS.get(found["book"], ""),
        cause=await _cause(visit, found),
        events=found["events"][:EVENTS_SHOWN],
    )


async def _cause(visit: Visit, moved: Mapping[str, Any]) -> tuple[str, str] | None:
    """What moved a balance, in words and as an address; None where events, or somebody's hand, did."""
    public = str(moved["cause_id"] or "")
    match public.partition("_")[0]:
        case "re" if visit.may("payments:read"):
            found = await visit.get("/refunds/{refund_id}", refund_id=public)
            return "A dispute" if found["kind"] == "dispute" else "A refund", f"/control/payments/{found['payment_id']}"
        case "cn" if visit.may("invoices:read"):
            found = await visit.get("/credit_notes/{credit_note_id}", credit_note_id=public)
            return f"Credit note {found['number']}", f"/control/invoices/{found['invoice_id']}"
    cause = cause_of(moved)
    return cause[:2] if cause is not None and visit.may(cause[2]) else None


# --- payments ---------------------------------------------------------------------------------------------------------

PAYMENTS: Final = Listing(
    name="payments",
    path="/companies/{company_id}/payments",
    columns=(
        Column("id", "Payment", "code"),
        Column("created_at", "When", "moment"),
        Column("account_id", "Account", "code", link=account_path),
        Column("amount", "Amount", "amount", denomination="currency"),
        Column("status", "Status", "badge", filter="status", choices=STATUSES),
        Column("reason", "For", filter="reason", choices=get_args(PaymentReason)),
        Column("method", "Method", filter="method", choices=get_args(Method)),
        Column("units", "Units bought", "amount"),
        Column("refunded", "Refunded", "amount", denomination="currency"),
        Column("message", "What went wrong"),
    ),
    empty="No money has come in yet.",
    hint="Deposits, refills, plans and invoices that are paid stand here, and those that were refused.",
    anchor=lambda row: f"/control/payments/{row['id']}",
    filters=(
        ("currency", "Currency"),
        *_PERIOD,
        *(("finished_from", "Finished from"), ("finished_to", "Finished to")),
    ),
)


class Advice(NamedTuple):
    """Why a payment failed, in words, and what to do about it."""

    why: str
    next: str


_ANOTHER_CARD: Final = "Ask the customer for another card, then try it again."
_ADVICE: Final[Mapping[str, Advice]] = {
    "insufficient_funds": Advice(
        "There is not enough money behind the card.",
        "Try it again in a few days, or ask the customer for another card.",
    ),
    "expired_card": Advice("The card has expired.", _ANOTHER_CARD),
    "lost_card": Advice("The card was reported lost.", _ANOTHER_CARD),
    "stolen_card": Advice("The card was reported stolen.", _ANOTHER_CARD),
    "fraudulent": Advice("The bank takes the charge for a fraud.", _ANOTHER_CARD),
    "incorrect_cvc": Advice("The security code of the card is wrong.", "Ask the customer to give the card again."),
    "incorrect_number": Advice("The number of the card is wrong.", "Ask the customer to give the card again."),
    "authentication_required": Advice(
        "The bank wants its customer to agree in person.",
        "Send the customer a payment link: there the bank can ask. Then try it again.",
    ),
    "processing_error": Advice("The bank had a fault of its own.", "Try it again in a while."),
    "card_velocity_exceeded": Advice("The card is over a limit of its bank.", "Try it again in a few days."),
    "payment_method_required": Advice(
        "The account has no card.", "Send the customer a payment link, or attach a card. Then try it again."
    ),
    "gateway_refused": Advice(
        "Stripe refuses the request itself.", "Look at the message, and at the Stripe key under Settings."
    ),
}
_REFUSED: Final = Advice("The bank refused the card, and does not say more.", _ANOTHER_CARD)
_REPEATED: Final = frozenset({"plan_start", "plan_change"})
"""What was to be paid at once, with somebody waiting: it is not paid later, but begun again."""


def advice_of(payment: Mapping[str, Any]) -> Advice | None:
    """Why a payment was refused, and what to do next; None where it was not."""
    if payment["code"] is None or payment["status"] not in {"failed", "pending", "skipped"}:
        return None
    advice = _ADVICE.get(payment["code"], _REFUSED)
    if payment["status"] == "pending":
        return advice._replace(next="It is tried again by itself; you can also do it now.")
    if payment["reason"] in _REPEATED:
        return advice._replace(next="Nothing was changed. Once the account has a card that works, do it again.")
    return advice


class Actions(NamedTuple):
    """What can be done to a payment; ``left`` is what of it can be given back."""

    retry: bool
    void: bool
    left: int


def actions_of(payment: Mapping[str, Any]) -> Actions:
    """What its status leaves to be done. The API judges once more."""
    status = payment["status"]
    is_over = status in {"failed", "skipped"} and payment["reason"] not in _REPEATED
    promised = sum(refund["amount"] for refund in payment["refunds"] if refund["status"] == "pending")
    left = payment["amount"] - payment["refunded"] - promised
    return Actions(
        retry=is_over or (status == "pending" and payment["code"] is not None),
        void=status in {"pending", "failed", "skipped"},
        left=left if status == "succeeded" and payment["method"] != "balance" else 0,
    )


async def payments(visit: Visit) -> Response[Any]:
    """All payments, newest first."""
    return await answer(visit, PAYMENTS, "payments.html", {"title": "Payments"})


async def payment(visit: Visit) -> Response[Any]:
    """One payment: what it was for, how often a card was asked, what it moved, what went back."""
    found = await visit.get("/payments/{payment_id}", payment_id=visit.param("payment_id"))
    return visit.page(
        "payment.html",
        payment=found,
        advice=advice_of(found),
        actions=actions_of(found),
        moved=await movements(visit, found["id"]),
        step=await _step(visit, found),
        account=await visit.get("/accounts/{account_id}", account_id=found["account_id"]),
    )


async def movements(visit: Visit, cause_id: str) -> Sequence[Mapping[str, Any]]:
    """What something moved on balances, newest first; nothing for those who may not read them."""
    if not visit.may("balances:read"):
        return ()
    return (await visit.rows("/companies/{company_id}/transactions", query={"cause_id": cause_id})).rows


async def _step(visit: Visit, found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The step of a plan that a payment paid, if it paid one."""
    if not found["reason"].startswith("plan_"):
        return None
    listed = await visit.rows(
        "/accounts/{account_id}/plan/history", query={"limit": str(HISTORY)}, account_id=found["account_id"]
    )
    return next((step for step in listed.rows if step.get("payment_id") == found["id"]), None)


_ENDS: Final[Mapping[str, str]] = {
    "succeeded": "The card was charged.",
    "pending": "It is under way.",
    "failed": "The card was refused again.",
    "voided": "The payment is given up.",
}


async def retry_payment(visit: Visit) -> Response[Any]:
    """Try a payment again, now."""
    return await _change(visit, "POST", "/payments/{payment_id}/retry")


async def void_payment(visit: Visit) -> Response[Any]:
    """Give a payment up."""
    return await _change(visit, "POST", "/payments/{payment_id}/void")


async def _change(visit: Visit, method: str, path: str) -> Response[Any]:
    public = visit.param("payment_id")
    done = await visit.do(method, path, payment_id=public)
    said, is_bad = _ENDS.get(done["status"], "Done."), done["status"] == "failed"
    return visit.go(f"/control/payments/{public}", said, is_bad=is_bad)


async def refund_payment(visit: Visit) -> Response[Any]:
    """Give money back, with the units that it bought."""
    public = visit.param("payment_id")
    found = await visit.get("/payments/{payment_id}", payment_id=public)
    body = {"amount": read_amount(visit.field("amount"), found["currency"]), "reason": visit.field("reason")}
    if not body["reason"]:
        raise Refusal("missing_field", "Say why the money goes back.")
    done = await visit.do("POST", "/payments/{payment_id}/refund", body, payment_id=public)
    is_done = done["status"] == "succeeded"
    return visit.go(
        f"/control/payments/{public}", "The money goes back." if is_done else "The refund is under way.", is_bad=False
    )


PAGES: Final = (
    Page("GET", "/control/transactions", transactions, "balances:read"),
    Page("GET", "/control/transactions/{transaction_id}", transaction, "balances:read"),
    Page("GET", "/control/payments", payments, "payments:read"),
    Page("GET", "/control/payments/{payment_id}", payment, "payments:read"),
    Page("POST", "/control/payments/{payment_id}/retry", retry_payment, "payments:write", fresh=True),
    Page("POST", "/control/payments/{payment_id}/void", void_payment, "payments:write"),
    Page("POST", "/control/payments/{payment_id}/refund", refund_payment, "payments:write", fresh=True),
)
