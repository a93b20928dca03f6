"""Payment methods as the people of an organization see them: the very cards that the company sees.

The problem, on one example. Somebody gives a card in a browser, and nobody but the provider sees its number:

    POST /account/setup-intent                           seti_1, with a publishable key and a secret for the browser
    the browser, by Stripe's own script                  the card is the customer's; seti_1 has succeeded with pm_1
    POST /account/payment-methods {"id": "pm_1"}         pm_1 is charged from now on

A method that was confirmed for somebody else cannot be used: the provider says whose it is. Sources: contract 5.5, 6.2.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Final

import msgspec

from tenuto.core.identifiers import spell
from tenuto.core.organization import READ_SCOPE, WRITE_SCOPE
from tenuto.core.outcomes import Refusal
from tenuto.engine import Answer
from tenuto.gateway.port import SetupIntent
from tenuto.service import cards as service
from tenuto.service.idempotency import Steps
from tenuto.store import payments as store
from tenuto.store.database import Unit
from tenuto.store.payments import StoredCard

from . import body as bodies
from . import dialect, shapes
from .dialect import FAMILY, Problems
from .organizations import own_account
from .routes import Call, Route

ID_MAX: Final = 255
_METHOD: Final = re.compile(r"[a-z]+_[0-9A-Za-z_]{1,250}", re.ASCII)


class PaymentMethodIn(msgspec.Struct):
    """A payment method that is to be charged from now on, by its id at the provider."""

    id: str | None = None


class SetupIntentOut(shapes.Shape):
    """What a browser needs to give the provider a card."""

    id: str
    publishable_key: str
    client_secret: str
    status: str
    created_at: str | None


class PaymentMethodOut(shapes.Shape):
    """A card. ``default`` is the one that is charged; ``name`` is the cardholder's, empty where it was not given."""

    id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    name: str
    default: bool
    created_at: str | None


def _shown(call: Call, card: StoredCard) -> PaymentMethodOut:
    return PaymentMethodOut(
        id=card.gateway_id,
        brand=card.brand,
        last4=card.last4,
        exp_month=card.exp_month,
        exp_year=card.exp_year,
        name=card.name or "",
        default=card.is_default,
        created_at=dialect.moment(card.created_at, call.member.claims.zone),
    )


def fields(call: Call) -> dict[str, Any]:
    """The body as plain values: this family does not mind fields that it does not know."""
    tree = bodies.parse(call.body)
    if not isinstance(tree, dict):
        raise Refusal("invalid_field", "The body must be an object.")
    return tree


def _provider_key(call: Call, account_id: int) -> str:
    """The provider's idempotency key: of the request where it has one, else of this very call."""
    once = call.idempotency()
    nonce = secrets.token_hex(8) if once is None else once.fingerprint.hex() + once.key[:100]
    return f"{spell('a', account_id)}:method:{nonce}"


async def _nothing(_: Unit) -> None:
    return None


async def make_setup_intent(call: Call) -> Answer:
    """A SetupIntent for the organization's customer. Its secret is kept nowhere here: a replay reads it anew."""
    account = await own_account(call)
    engine, environment = call.engine, call.environment
    public = service.publishable_key_of(engine, environment)
    made: list[SetupIntent] = []

    async def finish(_: None) -> Answer:
        # A key of its own each time: one too many harms nobody, and the provider would repeat its own fault for a day.
        key = f"{spell('a', account.id)}:setup:{secrets.token_hex(8)}"
        made.append(await service.make_setup(engine, environment, account.id, key))
        return Answer(201, msgspec.json.encode(made[0].gateway_id))

    answer = await call.once_in_steps(Steps(_nothing, _nothing, finish, leaves_nothing=True))
    if not made:
        made.append(await service.read_setup(engine, environment, msgspec.json.decode(answer.body, type=str)))
    setup = made[0]
    shown = SetupIntentOut(
        id=setup.gateway_id,
        publishable_key=public,
        client_secret=setup.client_secret,
        status=setup.status,
        created_at=dialect.moment(setup.created_at, call.member.claims.zone),
    )
    return dialect.bare(201, shown)._replace(is_replay=answer.is_replay)


async def use_payment_method(call: Call) -> Answer:
    """Charge a payment method from now on: one that was just confirmed, or one that is there."""
    account = await own_account(call)
    method = _method_in(fields(call))

    async def finish(_: None) -> Answer:
        key = _provider_key(call, account.id)
        kept = await service.use_method(call.engine, call.environment, account.id, method, key)
        return dialect.bare(201, _shown(call, kept))

    return await call.once_in_steps(Steps(_nothing, _nothing, finish, leaves_nothing=True))


def _method_in(given: dict[str, Any]) -> str:
    problems = Problems()
    found = given.get("id")
    method = problems.text("id", found, ID_MAX) if problems.required("id", found) else None
    if method is not None and not _METHOD.fullmatch(method):
        problems.add("id", "The id field must be the id of a payment method.")
    problems.refuse()
    assert method is not None
    return method


async def list_payment_methods(call: Call) -> Answer:
    """The organization's payment methods, the one that is charged first."""
    account = await own_account(call)
    async with call.engine.database.reading() as reader:
        found = await store.list_cards(reader, account.id)
    return dialect.bare(200, [_shown(call, card) for card in found])


async def remove_payment_method(call: Call) -> Answer:
    """Forget a payment method that nothing depends on, here and at the provider."""
    account = await own_account(call)
    method = call.params["method_id"]
    if not _METHOD.fullmatch(method):
        raise Refusal("not_found")
    await call.engine.gateway_for(call.environment)  # where there is none, nothing is begun

    async def begin(unit: Unit) -> StoredCard:
        return await service.remove_spare_card(call.engine, unit, call.environment, account.id, method)

    async def resume(unit: Unit) -> StoredCard:
        found = await store.find_card(unit, account.id, method, or_removed=True)
        if found is None:
            raise Refusal("not_found")
        return found

    async def finish(card: StoredCard) -> Answer:
        await service.forget_card(call.engine, call.environment, card)
        return dialect.empty()

    return await call.once_in_steps(Steps(begin, resume, finish))


_TAG: Final = "Organizations"
_ASKS: Final = ("no_account", "parent_pays", "gateway_refused", "gateway_not_configured", "gateway_unavailable")


def _route(method: str, path: str, serve: Any, summary: str, answer: Any, **more: Any) -> Route:
    scope = READ_SCOPE if method == "GET" else WRITE_SCOPE
    return Route(method, path, serve, summary, _TAG, answer, scope=scope, family=FAMILY, **more)


ROUTES: Final = (
    *(
        _route("POST", path, make_setup_intent, "Begin to give a payment method", SetupIntentOut, refusals=_ASKS)
        for path in ("/account/setup-intent", "/billing/setup-intent")
    ),
    *(
        route
        for path in (
            *("/account/payment-methods", "/account/payment-method"),
            *("/billing/payment-methods", "/billing/payment-method"),
        )
        for route in (
            _route(
                "POST",
                path,
                use_payment_method,
                "Charge a payment method from now on",
                PaymentMethodOut,
                body=PaymentMethodIn,
                refusals=("payment_failed", "method_not_usable", *_ASKS),
                example={"id": "pm_card_visa"},
            ),
            _route(
                "GET",
                path,
                list_payment_methods,
                "List payment methods",
                PaymentMethodOut,
                refusals=("no_account", "parent_pays"),
                is_list=True,
            ),
            _route(
                "DELETE",
                f"{path}/{{method_id}}",
                remove_payment_method,
                "Remove a payment method",
                PaymentMethodOut,
                refusals=("card_needed", *_ASKS),
            ),
        )
    ),
)
