"""The pages on which a customer answers a request: buys units, or agrees to pay for what the plan does not include.

Everything a button does, it does once: it names what its page showed, and a page that is older than the request does
nothing but show how the request stands. So a button pressed twice, a page that is loaded again and two windows come to
the same. There is no script; everything that came from somebody is escaped; no other site may frame the page.
"""

from __future__ import annotations

from collections.abc import Awaitable
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from babel.numbers import format_currency
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response import Redirect

from tenuto.core import subscription as plan
from tenuto.core.money import CURRENCY_EXPONENTS, is_fiat
from tenuto.core.outcomes import Kind, Refusal
from tenuto.core.payment import Payment
from tenuto.core.plan import included
from tenuto.engine import Engine, Once
from tenuto.service import cards, payments, requests, subscriptions
from tenuto.service.requests import Offer, Standing, Till
from tenuto.store import accounts, records
from tenuto.store import payments as payment_store
from tenuto.store.accounts import Account, Environment
from tenuto.store.database import Contended, KeyIsKnown, Reader, Unavailable, Unit
from tenuto.store.payments import Chargeable, Link
from tenuto.store.records import BalanceRow

from .card_pages import read_form
from .invoice_pages import GONE, HEAD, HEADERS, page
from .invoice_pdf import money
from .requests import PATH

if TYPE_CHECKING:
    from .app import Application

_AGAIN: Final = '<meta http-equiv="refresh" content="5">\n'
_BANK: Final = (
    "Your bank wants you to confirm this payment with it, which cannot be done on this page. Nothing was charged."
    " Use another card, or ask your bank."
)
_log = structlog.get_logger()


class _Shown(NamedTuple):
    """All that a page is made of."""

    environment: Environment
    account: Account
    standing: Standing
    balances: list[BalanceRow]
    card: Chargeable | None
    basis: plan.Offer | None
    is_over: bool


def handlers(application: Application) -> list[HTTPRouteHandler]:
    """The handlers, for Litestar."""

    @get(PATH + "/{token:str}")
    async def request_page(token: str) -> Response[Any]:
        return await _answered(_look(application.engine, token))

    @post(PATH + "/{token:str}")
    async def answer_request(request: Request[Any, Any, Any], token: str) -> Response[Any]:
        form = {name: values[0] for name, values in (await read_form(request)).items()}
        return await _answered(_do(application.engine, token, form))

    @post(PATH + "/{token:str}/card")
    async def card_for_request(token: str) -> Response[Any]:
        return await _answered(_to_card(application.engine, token))

    return [request_page, answer_request, card_for_request]


async def _answered(work: Awaitable[Response[Any]]) -> Response[Any]:
    """The page that some work makes, or the one that says why it could not be done."""
    try:
        return await work
    except Refusal as refusal:
        return _refused(refusal)
    except KeyIsKnown:
        return _refused(Refusal("refill_in_progress"))
    except (Unavailable, Contended, TimeoutError):
        return _refused(Refusal("unavailable"))


async def _look(engine: Engine, token: str) -> Response[Any]:
    link, environment = await requests.open_request(engine, token)
    async with engine.database.reading() as reader:
        shown = await _read(engine, reader, environment, link)
    return page(*_page(shown, token))


async def _read(engine: Engine, reader: Reader, environment: Environment, link: Link) -> _Shown:
    account = await accounts.read_account(reader, environment.id, link.account_id)
    if account is None:
        raise Refusal("link_not_usable")
    standing = await requests.read_standing(reader, link)
    is_over = standing.link.expires_at <= engine.now()
    is_offer = link.kind == "overage" and standing.link.used_at is None and not is_over
    return _Shown(
        environment,
        account,
        standing,
        await records.list_balances(reader, account.id, engine.now_of(environment)),
        await payment_store.chargeable_card(reader, account.id),
        await requests.overage_basis(reader, environment, link) if is_offer else None,
        is_over,
    )


# --- what a button does -----------------------------------------------------------------------------------------------


def _back(token: str) -> Response[Any]:
    """On to the page, which shows how the request stands: to load that again does nothing."""
    return Redirect(f"{PATH}/{token}", status_code=303, headers=HEADERS)


async def _do(engine: Engine, token: str, form: dict[str, str]) -> Response[Any]:
    link, environment = await requests.open_request(engine, token)
    if link.kind == "overage":
        if form.get("agree") == "yes":
            await requests.accept_overage(engine, environment, link, subscriptions.agree_terms)
        return _back(token)
    offers, chosen = requests.offers_of(link), form.get("offer", "")
    if chosen in {str(index) for index in range(len(offers))}:
        try:
            till = _till(engine, environment, link)
            await requests.buy(engine, link, offers[int(chosen)], form.get("seen", ""), till)
        except Refusal as refusal:
            if refusal.code != "payment_method_required":
                raise
            return await _to_card(engine, token)
    return _back(token)


def _till(engine: Engine, environment: Environment, link: Link) -> Till:
    """What buys for the account of a request: an ordinary deposit."""

    async def begin(unit: Unit, offer: Offer, once: Once) -> Payment:
        ask = payments.Deposit(link.ask["denomination"], offer.amount, offer.charge_amount, offer.charge_denomination)
        return await payments.begin_deposit(engine, unit, environment, link.account_id, ask, once)

    async def retry(unit: Unit, payment_id: int) -> Payment:
        return await payments.retry_payment(engine, unit, environment, link.account_id, payment_id, is_claimed=True)

    async def give_up(unit: Unit, payment_id: int) -> Payment:
        return await payments.void_payment(engine, unit, environment, link.account_id, payment_id, is_claimed=True)

    async def drive(payment_id: int, fence: int | None) -> Payment:
        return await payments.drive(engine, environment, link.account_id, payment_id, fence=fence)

    return Till(begin, retry, give_up, drive)


async def _to_card(engine: Engine, token: str) -> Response[Any]:
    """On to the page on which a card is given, and from there back."""
    link, environment = await requests.open_request(engine, token)
    if link.used_at is not None or link.expires_at <= engine.now() or link.kind != "topup":
        return _back(token)
    address = f"{engine.public_url}{PATH}/{token}"
    onward = await cards.link_back_to(engine, environment, link.account_id, address)
    return Redirect(f"/pay/{onward}", status_code=303, headers=HEADERS)


# --- pages ------------------------------------------------------------------------------------------------------------


def _page(shown: _Shown, token: str) -> tuple[str, int]:
    """The page of a request as it stands, with its status."""
    link = shown.standing.link
    if link.used_at is not None:
        return _done(shown), 200
    if shown.standing.is_waiting:
        text = "<p>The payment is under way. This page shows it as soon as it is done.</p>\n"
        return _whole("One moment", f"{_seller(shown)}<h1>One moment</h1>\n{text}", _AGAIN), 200
    if shown.is_over:
        text = "<p>Nothing was changed. Ask whoever sent it for a new one.</p>\n"
        return _whole("Expired", f"{_seller(shown)}<h1>This request has expired</h1>\n{text}"), 404
    if shown.basis is not None:
        return _overage(shown, shown.basis, token), 200
    return _topup(shown, token), 200


def _topup(shown: _Shown, token: str) -> str:
    link, address = shown.standing.link, f"{PATH}/{escape(token)}"
    denomination, seen = escape(link.ask["denomination"]), escape(shown.standing.seen)
    title = f"Top up {denomination} for {escape(shown.account.name)}"
    rows = "".join(
        _row(index, offer, link, has_card=bool(shown.card)) for index, offer in enumerate(requests.offers_of(link))
    )
    table = f'<div class="lines"><table>\n<thead><tr><th>Units</th><th>Price</th>{"<th></th>" if shown.card else ""}'
    table += f"</tr></thead>\n<tbody>{rows}</tbody>\n</table></div>\n"
    if shown.card:
        used = shown.card.card
        paid_by = f'<p class="soft">Charged to {escape(used.brand)} {escape(used.last4)}.</p>\n'
        hidden = f'<input type="hidden" name="seen" value="{seen}">'
        table = f'<form method="post" action="{address}">{hidden}\n{table}</form>\n{paid_by}'
    label = "Use another card" if shown.card else "Give a card to go on"
    card = f'<form method="post" action="{address}/card"><p class="actions"><button>{label}</button></p></form>\n'
    return _whole(title, f"{_head(shown, title)}{_told(shown)}{_balances(shown)}{table}{card}")


def _row(index: int, offer: Offer, link: Link, *, has_card: bool) -> str:
    units = _units(offer.amount, link.ask["denomination"])
    price = escape(money(offer.charge_amount, offer.charge_denomination))
    label = escape(f"Buy {offer.amount:,} for {money(offer.charge_amount, offer.charge_denomination)}")
    button = f'<td><button name="offer" value="{index}" aria-label="{label}">Buy</button></td>' if has_card else ""
    return f"<tr><td>{units}</td><td>{price}</td>{button}</tr>\n"


def _told(shown: _Shown) -> str:
    """What became of the last try, where the bank said no."""
    payment = shown.standing.payment
    if payment is None or payment.status != "failed":
        return ""
    text = "Nothing was charged: the payment could not be made. Try again later, or ask whoever sent this."
    if payment.code == "authentication_required":
        text = _BANK
    elif payment.declines:
        # What the bank says is for its customer; what the provider says to the company is not.
        text = f"Nothing was charged. {payment.message or 'The card was refused.'}"
    return f'<p class="notice" role="alert">{escape(text)}</p>\n'


def _overage(shown: _Shown, basis: plan.Offer, token: str) -> str:
    asked = shown.standing.link.ask
    denomination, charged_in = asked["denomination"], asked["overage_charge_denomination"]
    price = escape(_unit_price(asked["overage_charge_amount"], charged_in))
    title = f"{escape(denomination)} beyond the plan for {escape(shown.account.name)}"
    units = included(basis.terms, basis.units).get(denomination, 0)
    text = (
        f"<p>{escape(basis.terms.name)} includes {_units(units, denomination)}, and there usage ends."
        f" If you agree, it goes on: each further unit costs {price}.</p>\n"
    )
    form = (
        f'<form method="post" action="{PATH}/{escape(token)}"><p class="actions">'
        f'<button name="agree" value="yes">Agree to {price} each</button></p></form>\n'
    )
    return _whole(title, f"{_head(shown, title)}{_balances(shown)}{text}{form}")


def _done(shown: _Shown) -> str:
    link = shown.standing.link
    text = f"{escape(link.ask['denomination'])} beyond the plan are charged from now on."
    payment = shown.standing.payment
    if link.kind == "topup":
        text = "The payment has come in."
        if payment is not None and payment.status == "succeeded":
            paid = escape(money(payment.amount, payment.currency))
            text = f"{_units(payment.units, payment.denomination)} were added for {paid}."
    onward = ""
    if link.return_url is not None:
        onward = f'<p><a href="{escape(link.return_url)}" rel="noreferrer">Go on</a></p>\n'
    return _whole("Thank you", f"{_seller(shown)}<h1>Thank you</h1>\n<p>{text}</p>\n{_balances(shown)}{onward}")


def _seller(shown: _Shown) -> str:
    return f'<p class="soft">{escape(shown.environment.company_name)}</p>\n'


def _head(shown: _Shown, title: str) -> str:
    """``title`` is escaped already."""
    message = shown.standing.link.ask["message"]
    said = f'<p class="message">{escape(message)}</p>\n' if message else ""
    return f"{_seller(shown)}<h1>{title}</h1>\n{said}"


def _balances(shown: _Shown) -> str:
    """What is left of each balance, and what is owed in money."""
    rows = "".join(f"<tr><td>{name}</td><td>{amount}</td></tr>\n" for name, amount in map(_balance, shown.balances))
    if not rows:
        return ""
    return (
        '<div class="lines"><table>\n<thead><tr><th>Balance</th><th>Available</th></tr></thead>\n'
        f"<tbody>{rows}</tbody>\n</table></div>\n"
    )


def _balance(row: BalanceRow) -> tuple[str, str]:
    available, name = row.amount - row.pending, row.denomination
    if not is_fiat(name):
        return escape(name), f"{available:,}"
    if row.amount < 0:
        return f"{escape(name)} owed", escape(money(-row.amount, name))
    return escape(name), escape(money(available, name))


def _units(amount: int, denomination: str) -> str:
    """Units as people write them, escaped: money as money, ``1,000 tokens`` else."""
    return escape(money(amount, denomination) if is_fiat(denomination) else f"{amount:,} {denomination}")


def _unit_price(amount: str, denomination: str) -> str:
    """A price of one unit, to the last digit that was said: ``0.15`` US cents are ``$0.0015``."""
    if not is_fiat(denomination):
        return f"{amount} {denomination}"
    exact = Decimal(amount).scaleb(-CURRENCY_EXPONENTS[denomination])
    return format_currency(exact, denomination, locale="en_US", decimal_quantization=False, currency_digits=True)


def _whole(title: str, inside: str, more: str = "") -> str:
    """A page; ``title`` is escaped already."""
    return f"{HEAD}{more}<title>{title}</title>\n</head>\n<body>\n<main>\n{inside}</main>\n</body>\n</html>\n"


_SAID: Final = {
    "offer_void": (
        "This offer no longer holds",
        "The plan is not the one that this was offered for. Nothing was changed. Ask whoever sent it for a new one.",
    ),
    "refill_in_progress": (
        "One moment",
        "Something is being paid for this balance already. Nothing was charged twice; come back when it is done.",
    ),
    "plan_change_in_progress": ("One moment", "Something about the plan is being paid for. Try again in a moment."),
}


def _refused(refusal: Refusal) -> Response[str]:
    """A link that is none looks the same for every reason; other trouble is told in one sentence."""
    if refusal.kind is Kind.MISSING:
        return page(GONE, 404)
    _log.info("request_page", code=refusal.code)
    title, text = _SAID.get(refusal.code, ("This cannot be done now", refusal.message))
    shown = _whole(title, f"<h1>{title}</h1>\n<p>{escape(text)}</p>\n")
    return page(shown, 503 if refusal.kind is Kind.BUSY else 409)
