"""What the page of a company's customer looks like: balances, a top-up, usage, the plan, invoices, payments, the card.

Everything that came from somebody is escaped where it is put into the page. Whoever changes something here looks at it
at a width of 390 too: tables scroll inside their own box.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from decimal import Decimal
from html import escape
from typing import Final, NamedTuple

from tenuto.core.cards import maximum, minimum, to_stripe
from tenuto.core.invoice import Invoice
from tenuto.core.money import CURRENCY_EXPONENTS, is_fiat
from tenuto.core.payment import Payment, shown_status
from tenuto.service.portal import PlanView, Usage, View
from tenuto.store.accounts import Environment
from tenuto.store.payments import Link
from tenuto.store.records import BalanceRow

from .invoice_pages import HEAD
from .invoice_pdf import day, money
from .portal_chart import figure, short

PATH: Final = "/me"
_AGAIN: Final = '<meta http-equiv="refresh" content="5">\n'
_BANK: Final = (
    "Your bank wants you to confirm this payment with it, which cannot be done on this page. Nothing was charged."
    " Use another card, or ask your bank."
)
_PLAN_STATES: Final = {"trialing": "trial", "active": "active", "past_due": "payment due"}
_EACH: Final = {"MONTHLY": " each month", "YEARLY": " each year", "ONE_OFF": ""}
_INVOICE_STATES: Final = {"open": "Open", "paid": "Paid", "void": "Void", "uncollectible": "Past due"}
_PAYMENT_STATES: Final = {
    "pending": "Under way",
    "succeeded": "Paid",
    "refunded": "Refunded",
    "failed": "Not paid",
    "skipped": "Not charged",
    "voided": "Given up",
}
_OWN: Final = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,3})?", re.ASCII)


class Shown(NamedTuple):
    """A page to be made: for whom, by which link, with which form, and what is to be said first, if anything."""

    environment: Environment
    link: Link
    view: View
    token: str
    form: str
    invoice_tokens: Mapping[int, str]
    is_framed: bool
    notice: str = ""

    @property
    def zone(self) -> tzinfo:
        """The company's, by which dates are shown."""
        return self.environment.terms.zone

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"{PATH}/{escape(self.token)}"

    @property
    def away(self) -> str:
        """The attributes of what leads to a page that nobody frames: where this one is framed, to a tab of its own."""
        return ' target="_blank" rel="noopener"' if self.is_framed else ""


def whole(shown: Shown) -> str:
    """The page."""
    view = shown.view
    title = f"{escape(view.account.name)} at {escape(shown.environment.company_name)}"
    is_waiting = view.payment is not None and view.payment.is_open and not shown.notice
    parts = (
        _told(shown),
        _balances(shown),
        _topup(shown),
        _card(shown),
        _usage(view.usage),
        "" if view.plan is None else _plan(view.plan, shown.zone),
        _invoices(shown),
        _payments(shown),
        _back(shown),
    )
    return (
        f'{HEAD}{_AGAIN if is_waiting else ""}<title>{title}</title>\n</head>\n<body>\n<main class="portal">\n'
        f'<p class="soft">{escape(shown.environment.company_name)}</p>\n<h1>{escape(view.account.name)}</h1>\n'
        f"{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def message(title: str, text: str) -> str:
    """A page that only says something."""
    inside = f"<h1>{escape(title)}</h1>\n<p>{escape(text)}</p>\n"
    return f"{HEAD}<title>{escape(title)}</title>\n</head>\n<body>\n<main>\n{inside}</main>\n</body>\n</html>\n"


def _told(shown: Shown) -> str:
    """What is said first: why nothing was done, or what became of the payment of the last form."""
    if shown.notice:
        return f'<p class="notice" role="alert">{escape(shown.notice)}</p>\n'
    payment = shown.view.payment
    if payment is None:
        return ""
    if payment.status == "succeeded":
        text = f"{units(payment.units, payment.denomination)} were added."
        return f'<p class="notice good" role="status">{escape(text)}</p>\n'
    if payment.is_open:
        return '<p role="status">The payment is under way. This page shows it as soon as it is done.</p>\n'
    text = "Nothing was charged: the payment could not be made. Try again later."
    if payment.code == "authentication_required":
        text = _BANK
    elif payment.declines:
        # What the bank says is for its customer; what the provider says to the company is not.
        text = f"Nothing was charged. {payment.message or 'The card was refused.'}"
    return f'<p class="notice" role="alert">{escape(text)}</p>\n'


def _section(title: str, inside: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{inside}</section>\n"


def _table(name: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table of rows that are HTML already, in a box of its own that scrolls; ``name`` says what it holds."""
    shown = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return (
        f'<div class="lines" role="region" aria-label="{name}" tabindex="0"><table>\n'
        f"<thead><tr>{shown}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table></div>\n"
    )


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def units(amount: int, denomination: str) -> str:
    """Units as people write them, not escaped: money as money, ``1,000 tokens`` else."""
    return money(amount, denomination) if is_fiat(denomination) else f"{amount:,} {denomination}"


# --- balances and the top-up ------------------------------------------------------------------------------------------


def _balances(shown: Shown) -> str:
    rows = [_balance(row, shown.zone) for row in shown.view.balances]
    if not rows:
        return _section("Balances", "<p>There is nothing on this account yet.</p>\n")
    return _section("Balances", _table("Balances", ("Balance", "Available", "Held", "In all", "Next refill"), rows))


def _balance(row: BalanceRow, zone: tzinfo) -> str:
    def written(amount: int) -> str:
        return escape(money(amount, row.denomination) if is_fiat(row.denomination) else f"{amount:,}")

    dates = [of.next_at for of in (row.refill, row.plan) if of is not None and of.next_at is not None]
    refill = day(min(dates), zone) if dates else "–"  # noqa: RUF001 - nothing, as tables say it
    available = written(row.amount - row.pending)
    return _row(escape(row.denomination), available, written(row.pending), written(row.amount), refill)


def can_top_up(currency: str) -> bool:
    """Whether cards can be charged in a currency at all."""
    return to_stripe(minimum(currency), currency) is not None


def presets(currency: str) -> list[int]:
    """Amounts to choose from: 10, 25, 50 and 100 US dollars, and as round ones of other currencies."""
    least = 20 * minimum(currency)
    round_one = 10 ** len(str(least - 1))
    return [round_one, round_one * 5 // 2, round_one * 5, round_one * 10]


def read_amount(chosen: str, own: str, currency: str) -> int | None:
    """The amount of a form in minor units; None where it is none of those offered, or cannot be read."""
    if chosen != "own":
        return next((preset for preset in presets(currency) if chosen == str(preset)), None)
    exact = Decimal(own).scaleb(CURRENCY_EXPONENTS[currency]) if _OWN.fullmatch(own) else None
    return None if exact is None or exact != exact.to_integral_value() else int(exact)


def bounds(currency: str) -> str:
    """What a card can be charged, in words."""
    return f"A card can be charged {money(minimum(currency), currency)} to {money(maximum(currency), currency)}."


def _topup(shown: Shown) -> str:
    view = shown.view
    currency = view.currency
    if view.card is None or not can_top_up(currency):
        return ""
    action = f'<form method="post" action="{shown.address}/topup">\n{_hidden(shown)}'
    buttons = "".join(
        f'<button name="amount" value="{amount}">Pay {escape(money(amount, currency))}</button>\n'
        for amount in presets(currency)
    )
    exponent = CURRENCY_EXPONENTS[currency]
    least = Decimal(minimum(currency)).scaleb(-exponent)
    own = (
        f'<label for="own">Another amount in {escape(currency)}</label>\n'
        f'<input id="own" name="own" inputmode="decimal" autocomplete="off" maxlength="17" required'
        f' placeholder="{least}" aria-describedby="charged">\n<button name="amount" value="own">Pay</button>\n'
    )
    used = f"{escape(view.card.brand)} {escape(view.card.last4)}"
    told = f'<p class="soft" id="charged">Charged to {used} at once. {escape(bounds(currency))}</p>\n'
    return _section(
        "Top up",
        f'{action}<p class="actions">\n{buttons}</p></form>\n{action}<p class="own">\n{own}</p></form>\n{told}',
    )


def _hidden(shown: Shown) -> str:
    return f'<input type="hidden" name="form" value="{escape(shown.form)}">\n'


def _card(shown: Shown) -> str:
    card = shown.view.card
    text, label = "<p>There is no card to charge yet. With one you can top up here.</p>\n", "Give a card"
    if card is not None:
        until = f"{card.exp_month:02}/{card.exp_year}"
        text = f"<p>{escape(card.brand)} {escape(card.last4)}, good until {until}</p>\n"
        label = "Use another card"
    form = f'<form method="post" action="{shown.address}/card"{shown.away}>\n{_hidden(shown)}'
    return _section("Card", f'{text}{form}<p class="actions"><button class="quiet">{label}</button></p></form>\n')


# --- usage and the plan -----------------------------------------------------------------------------------------------


def _usage(usage: Usage | None) -> str:
    if usage is None:
        return _section("Usage", "<p>Usage cannot be summed up at this moment. Load the page again later.</p>\n")
    if not usage.amounts:
        return _section("Usage", f"<p>Nothing was used in the last {len(usage.days)} days.</p>\n")
    drawn = "".join(_figure(name, usage, amounts) for name, amounts in usage.amounts.items())
    rows = [
        _row(short(at), *(escape(units(amounts[index], name)) for name, amounts in usage.amounts.items()))
        for index, at in enumerate(usage.days)
        if any(amounts[index] for amounts in usage.amounts.values())
    ]
    table = _table("Usage by day", ("Day", *map(escape, usage.amounts)), rows)
    numbers = f"<details>\n<summary>The same in numbers</summary>\n{table}</details>\n"
    return _section(f"Usage of the last {len(usage.days)} days", drawn + numbers)


def _figure(name: str, usage: Usage, amounts: Sequence[int]) -> str:
    def written(amount: int) -> str:
        return units(amount, name)

    return figure(name, usage.days, amounts, written)


def _plan(plan: PlanView, zone: tzinfo) -> str:
    price = f"{units(plan.price, plan.denomination)}{_EACH[plan.cadence]}"
    until = ""
    if plan.period_end is not None and plan.status != "past_due":
        until = f"<p>{'Ends' if plan.ends else 'Renews'} on {day(plan.period_end, zone)}.</p>\n"
    if plan.status == "past_due":
        until = '<p class="notice">Its last payment did not come in. Another card may help.</p>\n'
    state = _PLAN_STATES.get(plan.status, plan.status)
    return _section("Plan", f"<p>{escape(plan.name)} ({escape(state)}): {escape(price)}</p>\n{until}")


# --- invoices, payments and the way back ------------------------------------------------------------------------------


def _invoices(shown: Shown) -> str:
    if not shown.view.invoices:
        return ""
    rows = [_invoice(shown, one) for one in shown.view.invoices]
    return _section("Invoices", _table("Invoices", ("Invoice", "Date", "Total", "Open", "State", "PDF"), rows))


def _invoice(shown: Shown, invoice: Invoice) -> str:
    now_late = invoice.status == "open" and invoice.due_at is not None and invoice.due_at < shown.view.now
    state = "Past due" if now_late else _INVOICE_STATES.get(invoice.status, invoice.status)
    number, token = escape(invoice.number or ""), shown.invoice_tokens.get(invoice.id)
    paper = ""
    if token is not None:
        address = f"/i/{escape(token)}"
        paper = f'<a href="{address}/invoice.pdf"{shown.away} aria-label="PDF of {number}">PDF</a>'
        number = f'<a href="{address}"{shown.away}>{number}</a>'
    total, remaining = (escape(money(amount, invoice.currency)) for amount in (invoice.total, invoice.remaining))
    return _row(number, day(invoice.finalized_at, shown.zone), total, remaining, state, paper)


def _payments(shown: Shown) -> str:
    if not shown.view.payments:
        return ""
    rows = [_payment(one, shown.zone) for one in shown.view.payments]
    return _section("Payments", _table("Payments", ("For", "Date", "Amount", "State"), rows))


def _payment(payment: Payment, zone: tzinfo) -> str:
    state = _PAYMENT_STATES[shown_status(payment)]
    if payment.status == "succeeded" and 0 < payment.refunded < payment.amount:
        state = f"Paid, {escape(units(payment.refunded, payment.currency))} refunded"
    amount = escape(units(payment.amount, payment.currency))
    return _row(escape(payment.description), day(payment.created_at, zone), amount, state)


def _back(shown: Shown) -> str:
    if shown.link.return_url is None:
        return ""
    target = ' target="_top"' if shown.is_framed else ""
    name = escape(shown.environment.company_name)
    return f'<p><a href="{escape(shown.link.return_url)}" rel="noreferrer"{target}>Back to {name}</a></p>\n'
