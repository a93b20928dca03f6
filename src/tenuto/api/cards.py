"""Cards, links to the page on which a card is given, and what the payment provider tells us."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from tenuto.core.identifiers import read, spell, spell_of_account
from tenuto.core.invoice import settings_of
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer
from tenuto.gateway.port import Card
from tenuto.service import accounts as accounts_service
from tenuto.service import cards as service
from tenuto.service import payments, refunds, subscriptions
from tenuto.service.idempotency import Steps
from tenuto.store import accounts
from tenuto.store import payments as store
from tenuto.store.accounts import Account
from tenuto.store.database import Unit
from tenuto.store.payments import Link, StoredCard

from . import body as bodies
from . import shapes
from .account_plans import PlanAskedIn, plan_asked
from .accounts import NAME_MAX, email
from .body import spelled
from .routes import Call, Route

TOKEN_MAX: Final = 255
URL_MAX: Final = 2000
LIFE_MAX: Final = timedelta(days=90)


class CardOut(shapes.Shape):
    """A card of an account; ``default`` is the one that is charged."""

    id: str
    account_id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    default: bool
    created_at: str | None


class LinkOut(shapes.Shape):
    """A hosted page for one customer. Whoever has the address may use it, once, until it expires."""

    url: str
    expires_at: str | None


class AccountLinkOut(LinkOut):
    """A hosted page for a customer whose account was opened with it."""

    account: shapes.AccountOut


class TakenOut(shapes.Shape):
    """That a message was taken in."""

    received: bool


class CardIn(msgspec.Struct, forbid_unknown_fields=True):
    """A card, as a token that the provider gave a browser (``tok_…`` or ``pm_…``)."""

    token: str


class CardChange(msgspec.Struct, forbid_unknown_fields=True):
    """Make a card the one that is charged."""

    default: bool


class CardLinkIn(PlanAskedIn, forbid_unknown_fields=True):
    """A link to make: where the person goes afterwards, and for how long it can be used."""

    return_url: str | None = None
    expires_in_seconds: int | None = None


class AccountLinkIn(PlanAskedIn, forbid_unknown_fields=True):
    """A link for a customer who has no account yet."""

    name: str
    email: str
    metadata: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    return_url: str | None = None
    expires_in_seconds: int | None = None


class GatewayMessageIn(msgspec.Struct):
    """A message of the payment provider: its own event object, judged by the signature over its very bytes."""

    id: str = ""
    type: str = ""


def card_out(card: StoredCard) -> CardOut:
    """A card on the wire."""
    return CardOut(
        id=spell_of_account("card", card.account_id, card.id),
        account_id=spell("a", card.account_id),
        brand=card.brand,
        last4=card.last4,
        exp_month=card.exp_month,
        exp_year=card.exp_year,
        default=card.is_default,
        created_at=spelled(card.created_at),
    )


# --- cards ------------------------------------------------------------------------------------------------------------


async def attach_card(call: Call) -> Answer:
    """Give an account a card, which is charged from now on."""
    account = await call.account()
    token = bodies.token(call.decoded(CardIn).token, "token", TOKEN_MAX)
    once = call.idempotency()
    # The same request again is the same card at the provider; without a key each request is one of its own.
    nonce = secrets.token_hex(8) if once is None else once.fingerprint.hex() + once.key[:100]
    key = f"{spell('a', account.id)}:card:{nonce}"

    async def nothing(_: Unit) -> None:
        return None

    async def finish(_: None) -> Answer:
        given = await service.give_card(call.engine, call.environment, account.id, token, key)
        return await keep(call, account.id, given)

    return await call.once_in_steps(Steps(nothing, nothing, finish, leaves_nothing=True))


async def keep(call: Call, account_id: int, given: Card) -> Answer:
    """Write a card down that the provider took, and show it."""
    kept = await service.keep_given(call.engine, call.environment, account_id, given)
    return Answer(200, shapes.wrapped(card_out(kept)))


async def list_cards(call: Call) -> Answer:
    """The cards of an account, the one that is charged first."""
    account = await call.account()
    async with call.engine.database.reading() as reader:
        found = await store.list_cards(reader, account.id)
    return Answer(200, shapes.listed([card_out(card) for card in found], None))


async def change_card(call: Call) -> Answer:
    """Make a card the one that is charged."""
    account_id, card_id = await _owned(call)
    if not call.decoded(CardChange).default:
        raise invalid("default", "is true; to change it, make another card the default.")

    async def verb(unit: Unit) -> StoredCard:
        return await service.choose_card(call.engine, unit, call.environment, account_id, card_id)

    return await call.once(verb, lambda card: shapes.wrapped(card_out(card)))


async def remove_card(call: Call) -> Answer:
    """Forget a card, here and at the provider."""
    account_id, card_id = await _owned(call)

    async def begin(unit: Unit) -> StoredCard:
        return await service.remove_card(call.engine, unit, call.environment, account_id, card_id)

    async def resume(unit: Unit) -> StoredCard:
        found = await store.read_card(unit, account_id, card_id, or_removed=True)
        if found is None:
            raise Refusal("not_found")
        return found

    async def finish(card: StoredCard) -> Answer:
        await service.forget_card(call.engine, call.environment, card)
        return Answer(200, shapes.wrapped(card_out(card)))

    return await call.once_in_steps(Steps(begin, resume, finish))


async def _owned(call: Call) -> tuple[int, int]:
    account = await call.account()
    account_id, card_id = call.id_of_account("card", "card_id")
    if account_id != account.id:
        raise Refusal("not_found")
    return account_id, card_id


# --- links ------------------------------------------------------------------------------------------------------------


def link_life(given: int | None) -> timedelta:
    """How long a link is to be good for."""
    if given is None:
        return service.LINK_LIFE
    most = int(LIFE_MAX.total_seconds())
    return timedelta(seconds=bodies.whole(given, "expires_in_seconds", least=60, most=most))


def return_address(given: str | None) -> str | None:
    """Where a person may be sent afterwards: https, or this very computer."""
    if given is None:
        return None
    address = bodies.token(given, "return_url", URL_MAX)
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        host = None
    else:
        is_here = parts.scheme == "http" and host in {"localhost", "127.0.0.1"}
        if not (parts.scheme == "https" or is_here) or "@" in parts.netloc or "\\" in address:
            host = None
    if not host:
        raise invalid("return_url", "begins with https:// and the name of a host.")
    return address


def link_out(call: Call, link: Link, token: str) -> LinkOut:
    """A link on the wire."""
    return LinkOut(url=f"{call.engine.public_url}/pay/{token}", expires_at=spelled(link.expires_at))


async def make_link(call: Call) -> Answer:
    """A link to a page on which the account's person gives a card."""
    account = await call.account()
    given = call.decoded(CardLinkIn) if call.body else CardLinkIn()
    life, address = link_life(given.expires_in_seconds), return_address(given.return_url)

    ask = plan_asked(given)

    async def verb(unit: Unit) -> tuple[Link, str]:
        if ask is not None:
            await subscriptions.wait_for_card(call.engine, unit, call.environment, account.id, ask)
        return await service.make_link(call.engine, unit, call.environment, account.id, return_url=address, life=life)

    return await call.once(verb, lambda made: shapes.wrapped(link_out(call, *made)), is_secret=True)


async def make_account_link(call: Call) -> Answer:
    """Open an account, with a link to the page on which its person gives a card."""
    call.company()
    given = call.decoded(AccountLinkIn)
    fields: dict[str, Any] = {
        "name": bodies.text(given.name, "name", NAME_MAX),
        "email": email(given.email, "email"),
        "metadata": bodies.metadata(given.metadata, "metadata"),
        "stripe_id": None,
        "credit_limit": None,
    }
    life, address = link_life(given.expires_in_seconds), return_address(given.return_url)
    ask = plan_asked(given)

    async def verb(unit: Unit) -> tuple[Account, Link, str]:
        account = await accounts_service.open_account(call.engine, unit, call.environment, **fields)
        if ask is not None:
            await subscriptions.wait_for_card(call.engine, unit, call.environment, account.id, ask)
            found = await accounts.read_account(unit, call.environment.id, account.id)
            assert found is not None
            account = found
        link, token = await service.make_link(
            call.engine, unit, call.environment, account.id, return_url=address, life=life
        )
        return account, link, token

    def render(made: tuple[Account, Link, str]) -> bytes:
        account, link, token = made
        shown = link_out(call, link, token)
        return shapes.wrapped(
            AccountLinkOut(
                url=shown.url,
                expires_at=shown.expires_at,
                account=shapes.account(account, {}, settings_of(call.environment.money).currency),
            )
        )

    return await call.once(verb, render, is_secret=True)


# --- messages of the provider -----------------------------------------------------------------------------------------


async def take_message(call: Call) -> Answer:
    """A message of the company's Stripe. It is believed by its signature, and even then only a hint to look."""
    company_id = read("c", call.params["company_id"])
    mode = call.params["mode"]
    if mode not in {"test", "live"}:
        raise Refusal("not_found")
    engine = call.engine
    environment_id = None
    if company_id is not None:
        async with engine.database.reading() as reader:
            environment_id = await accounts.find_environment(reader, company_id, live=mode == "live")
    environment = None if environment_id is None else await engine.environment(environment_id)
    if environment is None:
        # A stranger is told the same of a company that never was as of one whose secret he lacks.
        raise Refusal("bad_signature")
    signature = call.headers.get(b"stripe-signature", b"").decode("latin-1")
    event = service.message_of(engine, environment, call.body, signature)
    if event.object_type == "payment_intent":
        payment = await payments.take_intent_event(engine, environment, event)
        if payment is not None:
            await payments.drive(engine, environment, payment.account_id, payment.id)
    elif event.object_type in {"dispute", "refund"}:
        await refunds.take_refund_event(engine, environment, event)
    return Answer(200, shapes.wrapped(TakenOut(received=True)))


ROUTES: Final = (
    Route(
        "POST",
        "/accounts/{account_id}/card",
        attach_card,
        "Give an account a card",
        "Cards",
        CardOut,
        scope="payments:write",
        body=CardIn,
        refusals=("payment_failed", "gateway_refused", "gateway_not_configured", "gateway_unavailable"),
        example={"token": "tok_visa"},
    ),
    Route(
        "GET",
        "/accounts/{account_id}/cards",
        list_cards,
        "List an account's cards",
        "Cards",
        CardOut,
        scope="payments:read",
        is_list=True,
    ),
    Route(
        "PUT",
        "/accounts/{account_id}/cards/{card_id}",
        change_card,
        "Make a card the one that is charged",
        "Cards",
        CardOut,
        scope="payments:write",
        body=CardChange,
        example={"default": True},
    ),
    Route(
        "DELETE",
        "/accounts/{account_id}/cards/{card_id}",
        remove_card,
        "Remove a card",
        "Cards",
        CardOut,
        scope="payments:write",
        refusals=("gateway_unavailable", "gateway_not_configured"),
    ),
    Route(
        "POST",
        "/accounts/{account_id}/payment_links",
        make_link,
        "Make a link on which a card is given",
        "Cards",
        LinkOut,
        scope="payments:write",
        body=CardLinkIn,
        example={"return_url": "https://example.com/thanks"},
    ),
    Route(
        "POST",
        "/companies/{company_id}/payment_links",
        make_account_link,
        "Open an account with a link on which its card is given",
        "Cards",
        AccountLinkOut,
        scope="payments:write",
        body=AccountLinkIn,
        example={"name": "Ada", "email": "ada@example.com"},
    ),
    Route(
        "POST",
        "/companies/{company_id}/stripe/{mode}",
        take_message,
        "Take in a message of Stripe",
        "Cards",
        TakenOut,
        body=GatewayMessageIn,
        refusals=("bad_signature", "not_found"),
        is_open=True,
        details="The address to give Stripe as a webhook endpoint. Believed by its signature alone.",
    ),
)
