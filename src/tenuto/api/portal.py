"""The page of a company's customer: the route that makes a link to it, the page, and what its buttons do.

Whoever has the address may look and top up until it expires, so it is treated as a secret: no cookie is read or set,
other sites hear nothing of it, and none may frame it but those that the link names. A form counts only if it came from
this very page: browsers say so by themselves, and its number is signed for the link.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response import Redirect

from tenuto.core.outcomes import Kind, Refusal, invalid
from tenuto.core.payment import Payment
from tenuto.engine import Answer, Engine, Once
from tenuto.service import cards, invoicing, payments
from tenuto.service import portal as service
from tenuto.store.accounts import Environment
from tenuto.store.database import Contended, KeyIsKnown, Unavailable, Unit
from tenuto.store.payments import Link

from . import body as bodies
from . import shapes
from .body import spelled
from .card_pages import read_form
from .cards import return_address
from .invoice_pages import GONE, HEADERS
from .portal_page import PATH, Shown, bounds, message, read_amount, whole
from .routes import Call, Route

if TYPE_CHECKING:
    from .app import Application

ORIGIN_MAX: Final = 260
_SITES: Final = frozenset({"same-origin"})
_ORIGIN: Final = re.compile(
    r"(https?)://((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?::([1-9][0-9]{0,4}))?",
    re.ASCII,
)
_HERE: Final = frozenset({"localhost", "127.0.0.1"})
_PORT_MAX: Final = 65_535
_STATUSES: Final = {Kind.PAYMENT: 402, Kind.FORBIDDEN: 403, Kind.INVALID: 422, Kind.BUSY: 503}
_log = structlog.get_logger()

_Work = Callable[[Link, Environment], Awaitable[Response[Any]]]


# --- the route --------------------------------------------------------------------------------------------------------


class PortalLinkOut(shapes.Shape):
    """The page of one account. Whoever has the address may use it, as often as they like, until it expires."""

    url: str
    expires_at: str | None


class PortalLinkIn(msgspec.Struct, forbid_unknown_fields=True):
    """A link to make: for how long, where the page leads back to, and which sites may frame it."""

    expires_in_seconds: int | None = None
    return_url: str | None = None
    embed_origins: list[str] | None = None


async def make_portal_link(call: Call) -> Answer:
    """A link to a page on which a customer sees what one account has, used and paid, and tops it up."""
    account = await call.account()
    given = call.decoded(PortalLinkIn) if call.body else PortalLinkIn()
    life, address = _life(given.expires_in_seconds), return_address(given.return_url)
    origins = _origins(given.embed_origins or [], may_be_near=call.engine.settings.may_call_near)

    async def verb(unit: Unit) -> Link:
        return await service.make_link(
            call.engine, unit, call.environment, account.id, return_url=address, origins=origins, life=life
        )

    def render(link: Link) -> bytes:
        url = f"{call.engine.public_url}{PATH}/{service.token_of(call.engine, link)}"
        return shapes.wrapped(PortalLinkOut(url=url, expires_at=spelled(link.expires_at)))

    return await call.once(verb, render, is_secret=True)


def _life(given: int | None) -> timedelta:
    if given is None:
        return service.LIFE
    least, most = (int(bound.total_seconds()) for bound in (service.LIFE_LEAST, service.LIFE_MOST))
    return timedelta(seconds=bodies.whole(given, "expires_in_seconds", least=least, most=most))


def _origins(given: Sequence[str], *, may_be_near: bool) -> list[str]:
    """The sites that may frame a page, each once, as they go into its header: nothing else can stand in one."""
    if len(given) > service.ORIGINS_MAX:
        raise invalid("embed_origins", f"holds at most {service.ORIGINS_MAX} origins.", "out_of_range")
    for index, origin in enumerate(given):
        found = _ORIGIN.fullmatch(origin) if len(origin) <= ORIGIN_MAX else None
        is_near = may_be_near and found is not None and found[2] in _HERE
        if found is None or int(found[3] or 0) > _PORT_MAX or not (found[1] == "https" or is_near):
            raise invalid(
                f"embed_origins[{index}]", "is https:// and the name of a host in small letters, with no path."
            )
    return list(dict.fromkeys(given))


# --- the page ---------------------------------------------------------------------------------------------------------


def handlers(application: Application) -> list[HTTPRouteHandler]:
    """The handlers, for Litestar."""

    @get(PATH + "/{token:str}")
    async def customer_page(request: Request[Any, Any, Any], token: str) -> Response[Any]:
        number = request.query_params.get("form", "")

        async def look(link: Link, environment: Environment) -> Response[Any]:
            return await _shown(application.engine, link, environment, token, number=number)

        return await _answered(application.engine, token, look)

    @post(PATH + "/{token:str}/topup")
    async def top_up(request: Request[Any, Any, Any], token: str) -> Response[Any]:
        return await _changed(application.engine, request, token, _top_up)

    @post(PATH + "/{token:str}/card")
    async def card_of_customer(request: Request[Any, Any, Any], token: str) -> Response[Any]:
        return await _changed(application.engine, request, token, _to_card)

    @get([PATH + "/{token:str}/topup", PATH + "/{token:str}/card"])
    async def back_to_page(token: str) -> Response[Any]:
        async def back(link: Link, _: Environment) -> Response[Any]:
            return Redirect(f"{PATH}/{token}", status_code=303, headers=headers_of(link))

        return await _answered(application.engine, token, back)

    return [customer_page, top_up, card_of_customer, back_to_page]


_Change = Callable[[Engine, Link, Environment, str, Mapping[str, str]], Awaitable[Response[Any]]]


async def _changed(engine: Engine, request: Request[Any, Any, Any], token: str, change: _Change) -> Response[Any]:
    """What a form does, if it came from this very page."""

    async def work(link: Link, environment: Environment) -> Response[Any]:
        _refuse_foreign(engine, request)
        form = {name: values[0].strip() for name, values in (await read_form(request)).items()}
        return await change(engine, link, environment, token, form)

    return await _answered(engine, token, work)


async def _answered(engine: Engine, token: str, work: _Work) -> Response[Any]:
    """The page that some work makes, or the one that says why it could not be done."""
    headers: Mapping[str, str] = HEADERS
    try:
        link, environment = await service.open_portal(engine, token)
        headers = headers_of(link)
        return await work(link, environment)
    except Refusal as refusal:
        said = refusal
    except KeyIsKnown:
        said = Refusal("refill_in_progress")
    except (Unavailable, Contended, TimeoutError):
        said = Refusal("unavailable")
    if said.kind is Kind.MISSING:
        return _page(GONE, 404, HEADERS)
    _log.info("customer_page", code=said.code)
    return _page(message("This cannot be done now", said.message), _STATUSES.get(said.kind, 409), headers)


def headers_of(link: Link) -> dict[str, str]:
    """The headers of a page: framed by nobody, or by exactly the sites that its link names."""
    allowed = " ".join(service.origins_of(link)) or "'none'"
    policy = (
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'self';"
        f" frame-ancestors {allowed}"
    )
    # With no referrer at all a browser would tell no origin either, and the origin of every form is judged here.
    return {**HEADERS, "content-security-policy": policy, "referrer-policy": "same-origin"}


def _page(text: str, status: int, headers: Mapping[str, str]) -> Response[str]:
    return Response(text, status_code=status, media_type="text/html", headers=dict(headers))


async def _shown(
    engine: Engine,
    link: Link,
    environment: Environment,
    token: str,
    *,
    number: str = "",
    notice: str = "",
    status: int = 200,
) -> Response[Any]:
    view = await service.read_view(engine, environment, link, number)
    ids = [invoice.id for invoice in view.invoices]
    tokens = await invoicing.links_to(engine, environment, link.account_id, ids) if ids else {}
    shown = Shown(
        environment,
        link,
        view,
        token,
        service.make_form(engine, link),
        tokens,
        is_framed=bool(service.origins_of(link)),
        notice=notice,
    )
    return _page(whole(shown), status, headers_of(link))


def _refuse_foreign(engine: Engine, request: Request[Any, Any, Any]) -> None:
    """Raises Refusal where another site sent the form, or no browser."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal("unsupported_media_type", "Send the form as a browser does.")
    if not engine.is_own_form(request.headers, _SITES):
        raise Refusal("foreign_form")


# --- what a button does -----------------------------------------------------------------------------------------------


async def _top_up(
    engine: Engine, link: Link, environment: Environment, token: str, form: Mapping[str, str]
) -> Response[Any]:
    """Charge the card with the amount of a form, once for each form, by an ordinary deposit."""
    number = service.number_of(engine, link, form.get("form", ""))
    currency = await service.read_currency(engine, environment, link)
    amount = read_amount(form.get("amount", ""), form.get("own", ""), currency)
    if amount is None:
        notice = f"Write the amount in digits, with a point before cents. Nothing was charged. {bounds(currency)}"
        return await _shown(engine, link, environment, token, notice=notice, status=422)

    async def begin(unit: Unit, once: Once) -> Payment:
        ask = payments.Deposit(currency, amount, amount, currency)
        return await payments.begin_deposit(engine, unit, environment, link.account_id, ask, once)

    try:
        payments.refuse_uncharged(amount, currency, "amount")
        payment, fence = await service.begin_once(engine, link, number, begin)
    except Refusal as refusal:
        if refusal.kind is Kind.MISSING:
            raise
        notice = _SAID.get(refusal.code, f"Nothing was charged. {refusal.message}")
        if refusal.code == "amount_not_chargeable":
            notice = f"Nothing was charged. {bounds(currency)}"
        status = _STATUSES.get(refusal.kind, 409)
        return await _shown(engine, link, environment, token, notice=notice, status=status)
    await payments.drive(engine, environment, link.account_id, payment.id, fence=fence)
    return Redirect(f"{PATH}/{token}?form={number}", status_code=303, headers=headers_of(link))


_SAID: Final = {
    "payment_method_required": "Nothing was charged: there is no card. Give one first.",
    "refill_in_progress": (
        "Something is being paid for this balance already. Nothing was charged twice; try again when it is done."
    ),
}


async def _to_card(
    engine: Engine, link: Link, environment: Environment, token: str, form: Mapping[str, str]
) -> Response[Any]:
    """On to the page on which a card is given, and from there back."""
    service.number_of(engine, link, form.get("form", ""))
    address = f"{engine.public_url}{PATH}/{token}"
    onward = await cards.link_back_to(engine, environment, link.account_id, address)
    return Redirect(f"/pay/{onward}", status_code=303, headers=headers_of(link))


ROUTES: Final = (
    Route(
        "POST",
        "/accounts/{account_id}/portal_links",
        make_portal_link,
        "Make a link to a customer's own page",
        "Requests",
        PortalLinkOut,
        scope="payments:write",
        body=PortalLinkIn,
        example={"return_url": "https://example.com/billing"},
        details="Whoever has the address may look and top up until it expires: keep it as secret as a password.",
    ),
)
