"""The page on which an account's person gives a card, at a signed address that can be used once.

Where the company has its own Stripe, the card goes from the browser to Stripe (Elements) and never to us. In the
sandbox there are no cards, only Stripe's test ones, so the page offers those by name. Nobody can type a number here.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import structlog
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler

from tenuto.core.identifiers import spell_of_account
from tenuto.core.outcomes import Kind, Refusal
from tenuto.core.plan import price_of
from tenuto.engine import Engine
from tenuto.service import cards
from tenuto.store import accounts, subscriptions
from tenuto.store.accounts import Environment
from tenuto.store.database import Contended, Reader, Unavailable
from tenuto.store.payments import Link

from .invoice_pages import GONE, HEAD, HEADERS, page
from .invoice_pdf import money

if TYPE_CHECKING:
    from .app import Application

FORM_MAX: Final = 4096
TEST_CARDS: Final = (
    ("pm_card_visa", "Visa 4242: is charged"),
    ("pm_card_mastercard", "Mastercard 4444: is charged"),
    ("pm_card_chargeCustomerFail", "Visa 0341: is accepted here, then declined"),
    ("pm_card_chargeDeclined", "Visa 0002: is refused at once"),
)
"""What the sandbox offers, by Stripe's names."""

_ELEMENTS: Final = "https://js.stripe.com"
_ELEMENTS_POLICY: Final = (
    f"default-src 'none'; script-src 'self' {_ELEMENTS}; style-src 'self'; img-src 'self' data:;"
    f" frame-src {_ELEMENTS} https://hooks.stripe.com; connect-src https://api.stripe.com;"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_log = structlog.get_logger()


def handlers(application: Application) -> list[HTTPRouteHandler]:
    """The handlers, for Litestar."""

    @get("/pay/{token:str}")
    async def card_page(token: str) -> Response[str]:
        engine = application.engine
        try:
            link, environment = await cards.open_link(engine, token)
            return await _shown(engine, environment, link, token)
        except Refusal as refusal:
            return _refused(refusal)
        except (Unavailable, Contended):
            return _refused(Refusal("unavailable"))

    @post("/pay/{token:str}")
    async def give_card(request: Request[Any, Any, Any], token: str) -> Response[Any]:
        try:
            return await _taken(application.engine, token, await read_form(request))
        except Refusal as refusal:
            return _refused(refusal)
        except (Unavailable, Contended):
            return _refused(Refusal("unavailable"))

    return [card_page, give_card]


def _is_sandbox(environment: Environment) -> bool:
    return environment.stripe.key is None and not environment.live


async def _taken(engine: Engine, token: str, form: dict[str, list[str]]) -> Response[Any]:
    """Keep the card that was given: a test card by name, or what Stripe says that the browser gave it."""
    link, environment = await cards.open_link(engine, token)
    if _is_sandbox(environment):
        chosen = _token_of(form)
        if chosen is None:
            return await _shown(engine, environment, link, token, notice="Choose a card.")
        key = f"{spell_of_account('pl', link.account_id, link.id)}:{chosen}"
        try:
            given = await cards.give_card(engine, environment, link.account_id, chosen, key)
        except Refusal as refusal:
            if refusal.code != "payment_failed":
                raise
            return await _shown(engine, environment, link, token, notice=refusal.message)
    else:
        given = await cards.card_of_setup(engine, environment, link)
    await cards.keep_linked(engine, environment, link, given)
    if link.return_url is not None:
        return page(_onward(link.return_url), 200)
    return page(_message("Thank you", "The card is saved. You may close this page."), 200)


def _onward(address: str) -> str:
    """Thanks, and on to where the company wants its customer: no redirect, since browsers take that for the form's."""
    url = escape(address)
    return (
        f'{HEAD}<title>Thank you</title>\n<meta http-equiv="refresh" content="1;url={url}">\n</head>\n<body>\n<main>\n'
        f'<h1>Thank you</h1>\n<p>The card is saved. <a href="{url}" rel="noreferrer">Go on</a></p>\n'
        "</main>\n</body>\n</html>\n"
    )


async def _shown(
    engine: Engine, environment: Environment, link: Link, token: str, *, notice: str = ""
) -> Response[str]:
    async with engine.database.reading() as reader:
        account = await accounts.read_account(reader, environment.id, link.account_id)
        pending = await _pending_plan(reader, environment, link.account_id)
    assert account is not None
    told = f'<p class="notice" role="alert">{escape(notice)}</p>\n' if notice else ""
    address = f"/pay/{escape(token)}"
    title = f"Add a card for {escape(account.name)}"
    head = f'<p class="soft">{escape(environment.company_name)}</p>\n<h1>{title}</h1>\n{pending}{told}'
    if _is_sandbox(environment):
        choices = "".join(
            f'<p><label><input type="radio" name="token" value="{value}"{" checked" if not index else ""}> {label}'
            "</label></p>\n"
            for index, (value, label) in enumerate(TEST_CARDS)
        )
        form = (
            f'<p class="soft">This is the sandbox: no real card is asked for, and no money moves.</p>\n'
            f'<form method="post" action="{address}"><fieldset><legend>Test card</legend>\n{choices}</fieldset>'
            '<p class="actions"><button>Save card</button></p></form>\n'
        )
        return page(_whole(head + form), 200)
    public, secret = await cards.begin_setup(engine, environment, link)
    form = (
        f'<form id="card-form" method="post" action="{address}" data-key="{escape(public)}"'
        f' data-secret="{escape(secret)}"><div id="card-element"></div>\n'
        '<p class="notice" id="card-error" role="alert"></p>'
        '<p class="actions"><button>Save card</button></p></form>\n'
        "<noscript>Giving a card needs JavaScript, which takes it to Stripe directly.</noscript>\n"
    )
    scripts = f'<script src="{_ELEMENTS}/v3/" defer></script>\n<script src="/static/card.js" defer></script>\n'
    headers = {**HEADERS, "content-security-policy": _ELEMENTS_POLICY}
    return Response(_whole(head + form, scripts), status_code=200, media_type="text/html", headers=headers)


async def _pending_plan(reader: Reader, environment: Environment, account_id: int) -> str:
    """What the card will be charged for, where a plan waits for it."""
    found = await subscriptions.read_subscription(reader, account_id)
    if found is None or found.status != "pending_card":
        return ""
    terms = await subscriptions.read_terms(reader, environment.id, account_id, found)
    price = price_of(terms, found.cadence, found.variable_units)
    amount = money(price, terms.denomination) if terms.charges_money else f"{price} {terms.denomination}"
    each = {"MONTHLY": " each month", "YEARLY": " each year", "ONE_OFF": ""}[found.cadence]
    trial = f", after {terms.trial_days} days for nothing" if terms.trial_days else ""
    return f"<p>Saving a card begins {escape(terms.name)}: {escape(amount)}{each}{trial}.</p>\n"


def _whole(inside: str, scripts: str = "") -> str:
    return f"{HEAD}<title>Add a card</title>\n{scripts}</head>\n<body>\n<main>\n{inside}</main>\n</body>\n</html>\n"


def _message(title: str, text: str) -> str:
    return _whole(f"<h1>{escape(title)}</h1>\n<p>{escape(text)}</p>\n")


def _refused(refusal: Refusal) -> Response[str]:
    """A link that cannot be used looks the same for every reason; other trouble is told in one sentence."""
    if refusal.kind is Kind.MISSING:
        return page(GONE, 404)
    _log.warning("card_page", code=refusal.code)
    return page(_message("This cannot be done now", refusal.message), 503 if refusal.kind is Kind.BUSY else 409)


async def read_form(request: Request[Any, Any, Any]) -> dict[str, list[str]]:
    """The fields of a small form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MAX:
            return {}
    try:
        return parse_qs(body.decode("ascii", "replace"), max_num_fields=10)
    except ValueError:
        return {}


def _token_of(form: dict[str, list[str]]) -> str | None:
    """The test card that was chosen, if it is one of those that were offered."""
    given = form.get("token", [""])[0]
    return given if any(given == value for value, _ in TEST_CARDS) else None
