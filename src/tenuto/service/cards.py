"""Cards, given by token or on a hosted page and kept at the provider; the company's own key to that provider; links.

A card is given to the provider first and written down after: a crash between the two leaves a card there that nobody
charges. A new card takes up what an old one had stopped: payments that wait after a decline, and parked refills.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from tenuto.core.event import AccountState
from tenuto.core.identifiers import read_of_account, spell, spell_of_account
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import retried
from tenuto.core.refill import resumed
from tenuto.engine import Engine
from tenuto.gateway.messages import read_event
from tenuto.gateway.port import (
    BadSignature,
    Card,
    CardDeclined,
    GatewayEvent,
    GatewayRefused,
    GatewayUnclear,
    SetupIntent,
)
from tenuto.store import accounts, invoices, ledger, payments, refills, requests, subscriptions
from tenuto.store.accounts import Account, Environment
from tenuto.store.database import Unit, translated
from tenuto.store.payments import Link, StoredCard

LINK_LIFE: Final = timedelta(days=7)
BACK_LIFE: Final = timedelta(hours=1)
"""How long somebody who was sent here by another page of ours has to give a card."""
CARDS_MAX: Final = 20
KEY_SECONDS: Final = 30.0
_TEST_METHOD: Final = "pm_card_"
_MISSING: Final = "resource_missing"
_SECRET_KEY: Final = re.compile(r"(sk|rk)_(test|live)_[0-9A-Za-z_]{10,240}", re.ASCII)
_PUBLISHABLE_KEY: Final = re.compile(r"pk_(test|live)_[0-9A-Za-z_]{10,240}", re.ASCII)
_WEBHOOK_SECRET: Final = re.compile(r"whsec_[0-9A-Za-z+/=_-]{16,240}", re.ASCII)


def refusal_of(error: GatewayRefused | GatewayUnclear | CardDeclined) -> Refusal:
    """What the provider raised, as somebody who waits for an answer hears it."""
    match error:
        case CardDeclined():
            return Refusal("payment_failed", error.decline.message or None, decline_code=error.decline.code)
        case GatewayRefused():
            return Refusal("gateway_refused", f"Stripe refuses: {error.message}", gateway_code=error.code)
        case _:
            return Refusal("gateway_unavailable")


# --- customers and cards ----------------------------------------------------------------------------------------------


async def customer_of(engine: Engine, environment: Environment, account_id: int) -> str:
    """The account's customer at the provider, made at first need unless the company named one (contract 2.1)."""
    async with engine.database.reading() as reader:
        account = await accounts.read_account(reader, environment.id, account_id)
    if account is None:
        raise Refusal("not_found")
    if account.stripe_id is not None:
        return account.stripe_id
    made = await _make_customer(engine, environment, account_id, name=account.name, email=account.email)
    async with engine.database.writing() as unit:
        return await accounts.keep_customer(unit, account_id, made)


async def _make_customer(engine: Engine, environment: Environment, account_id: int, *, name: str, email: str) -> str:
    gateway = await engine.gateway_for(environment)
    public = spell("a", account_id)
    try:
        return await gateway.create_customer(key=f"{public}:customer", name=name, email=email, account=public)
    except (GatewayRefused, GatewayUnclear) as error:
        raise refusal_of(error) from error


async def _attach(engine: Engine, environment: Environment, customer: str, token: str, key: str) -> Card:
    gateway = await engine.gateway_for(environment)
    try:
        return await gateway.attach_card(key=key, customer=customer, token=token)
    except (CardDeclined, GatewayRefused, GatewayUnclear) as error:
        raise refusal_of(error) from error


async def give_card(engine: Engine, environment: Environment, account_id: int, token: str, key: str) -> Card:
    """Give the provider the card behind a token. Raises Refusal ``payment_failed`` when the bank says no."""
    async with engine.database.reading() as reader:
        if len(await payments.list_cards(reader, account_id)) >= CARDS_MAX:
            raise invalid("token", f"an account has at most {CARDS_MAX} cards; remove one first.")
    customer = await customer_of(engine, environment, account_id)
    return await _attach(engine, environment, customer, token, key)


async def give_first_card(
    engine: Engine, environment: Environment, account_id: int, token: str, *, name: str, email: str
) -> tuple[str, Card]:
    """Make the customer of an account that is not there yet, and give it a card: (customer, card)."""
    customer = await _make_customer(engine, environment, account_id, name=name, email=email)
    return customer, await _attach(engine, environment, customer, token, f"{spell('a', account_id)}:card:first")


async def open_with_card(
    engine: Engine,
    environment: Environment,
    open_account: Callable[[Unit], Awaitable[Account]],
    given: Card,
    then: Callable[[Unit], Awaitable[None]],
) -> Account:
    """Open an account, keep its first card and do what comes next, in one unit."""
    async with translated(), engine.database.writing() as unit:
        account = await open_account(unit)
        await keep_card(engine, unit, environment, account.id, given)
        await then(unit)
        return account


async def keep_card(engine: Engine, unit: Unit, environment: Environment, account_id: int, given: Card) -> StoredCard:
    """Write a card down as the one that is charged, and take up what waited for one. Twice is once."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    known = await payments.find_card(unit, account_id, given.gateway_id)
    tick = max(engine.tick(), state.tick + 1)
    if known is None:
        card = StoredCard(
            account_id,
            tick,
            given.gateway_id,
            given.brand,
            given.last4,
            given.exp_month,
            given.exp_year,
            is_default=True,
            created_at=now,
            name=given.name,
        )
        await payments.insert_card(unit, card)
    else:
        card = known._replace(is_default=True)
        await payments.choose_card(unit, account_id, known.id)
    await ledger.raise_tick(unit, account_id, tick)
    await _take_up(engine, unit, state, now)
    return card


async def keep_given(engine: Engine, environment: Environment, account_id: int, given: Card) -> StoredCard:
    """Write down, in a unit of its own, a card that the provider took."""
    async with translated(), engine.database.writing() as unit:
        return await keep_card(engine, unit, environment, account_id, given)


async def choose_card(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, card_id: int
) -> StoredCard:
    """Charge this card from now on."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    found = await payments.read_card(unit, account_id, card_id)
    if found is None:
        raise Refusal("not_found")
    await payments.choose_card(unit, account_id, card_id)
    await _take_up(engine, unit, state, now)
    return found._replace(is_default=True)


async def _take_up(engine: Engine, unit: Unit, state: AccountState, now: datetime) -> None:
    """What an old card had stopped goes on with the new one, where it is still needed."""
    account_id = state.account_id
    await payments.wake_payments(unit, account_id, now)
    await invoices.wake_collections(unit, account_id, now)
    if await subscriptions.wake(unit, account_id, now):
        engine.nudge("renew_due")
    for refill in await refills.list_refills(unit, account_id):
        if refill.parked_at is None or refill.parked_code == "refill_cap_reached" or refill.source != "card":
            continue
        taken = resumed(refill)
        failed = await payments.last_failed(unit, account_id, refill.denomination)
        is_low = refill.threshold is not None and state.balances[refill.denomination].available < refill.threshold
        is_needed = failed is not None and (failed.reason == "refill" or is_low)
        is_free = await payments.open_payment(unit, account_id, refill.denomination) is None
        if failed is not None and is_needed and is_free:
            await payments.update_payment(unit, retried(failed, now=now), now)
            taken = taken._replace(payment_id=failed.id)
        await refills.put_refill(unit, taken, now)
    engine.nudge("collect_due")


async def remove_card(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, card_id: int
) -> StoredCard:
    """Forget a card here; the caller forgets it at the provider. The newest of the others is charged from now on."""
    now = engine.now_of(environment)
    await ledger.take_account(unit, environment.id, account_id, now)
    found = await payments.read_card(unit, account_id, card_id)
    if found is None:
        raise Refusal("not_found")
    await payments.remove_card(unit, account_id, card_id, now)
    return found._replace(is_default=False)


async def forget_card(engine: Engine, environment: Environment, card: StoredCard) -> None:
    """Forget a card at the provider; one that it no longer knows is forgotten already."""
    try:
        await (await engine.gateway_for(environment)).detach_card(card.gateway_id)
    except GatewayRefused:
        return
    except GatewayUnclear as error:
        raise refusal_of(error) from error


# --- cards that an organization gives ---------------------------------------------------------------------------------


def publishable_key_of(engine: Engine, environment: Environment) -> str:
    """What a browser needs to speak to the provider; the sandbox has one made up, which no browser can use.

    Raises Refusal ``gateway_not_configured``.
    """
    if environment.stripe.publishable_key is not None:
        return environment.stripe.publishable_key
    if environment.stripe.key is None and not environment.live and engine.settings.sandbox_url:
        return "pk" + engine.sandbox_key(environment).removeprefix("sk")
    raise Refusal("gateway_not_configured", "Set stripe_publishable_key, so that a browser can give Stripe a card.")


async def make_setup(engine: Engine, environment: Environment, account_id: int, key: str) -> SetupIntent:
    """A SetupIntent with which a browser gives this account's customer a card."""
    gateway = await engine.gateway_for(environment)
    customer = await customer_of(engine, environment, account_id)
    try:
        return await gateway.create_setup_intent(key=key, customer=customer)
    except (GatewayRefused, GatewayUnclear) as error:
        raise refusal_of(error) from error


async def read_setup(engine: Engine, environment: Environment, setup_intent: str) -> SetupIntent:
    """A SetupIntent of ours as it is now."""
    gateway = await engine.gateway_for(environment)
    try:
        return await gateway.read_setup_intent(setup_intent)
    except (GatewayRefused, GatewayUnclear) as error:
        raise refusal_of(error) from error


async def use_method(engine: Engine, environment: Environment, account_id: int, method: str, key: str) -> StoredCard:
    """Charge a payment method from now on: one that is there, or that a browser has given the account's customer.

    In test mode a test method of the provider (``pm_card_visa``) is given as if a browser had. Raises Refusal
    ``method_not_usable`` for one of somebody else.
    """
    async with translated(), engine.database.writing() as unit:
        await ledger.lock_accounts(unit, [account_id])
        known = await payments.find_card(unit, account_id, method)
        if known is not None:
            return await choose_card(engine, unit, environment, account_id, known.id)
    if not environment.live and method.startswith(_TEST_METHOD):
        return await keep_given(
            engine, environment, account_id, await give_card(engine, environment, account_id, method, key)
        )
    return await keep_given(engine, environment, account_id, await _given_card(engine, environment, account_id, method))


async def _given_card(engine: Engine, environment: Environment, account_id: int, method: str) -> Card:
    """A card that the provider keeps for this very account's customer."""
    async with engine.database.reading() as reader:
        account = await accounts.read_account(reader, environment.id, account_id)
        count = len(await payments.list_cards(reader, account_id))
    gateway = await engine.gateway_for(environment)
    if account is None or account.stripe_id is None:
        raise Refusal("method_not_usable", path="id")
    if count >= CARDS_MAX:
        raise Refusal("method_not_usable", f"An account has at most {CARDS_MAX} payment methods.", path="id")
    try:
        found = await gateway.read_card(method)
    except GatewayRefused as refused:
        if refused.code == _MISSING:
            raise Refusal("method_not_usable", path="id") from refused
        raise refusal_of(refused) from refused
    except GatewayUnclear as error:
        raise refusal_of(error) from error
    if found.customer != account.stripe_id:
        raise Refusal("method_not_usable", path="id")
    return found


async def remove_spare_card(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, gateway_id: str
) -> StoredCard:
    """Forget a card here that nothing depends on. Raises Refusal ``card_needed`` for another, or ``not_found``."""
    await ledger.lock_accounts(unit, [account_id])
    found = await payments.find_card(unit, account_id, gateway_id)
    if found is None:
        raise Refusal("not_found")
    if len(await payments.list_cards(unit, account_id)) == 1:
        raise Refusal("card_needed", "The only payment method cannot be removed; add another one first.")
    subscription = await subscriptions.read_subscription(unit, account_id)
    if found.is_default and subscription is not None and subscription.is_running:
        message = "The default payment method cannot be removed while a subscription is active; choose another first."
        raise Refusal("card_needed", message)
    return await remove_card(engine, unit, environment, account_id, found.id)


# --- the company's provider -------------------------------------------------------------------------------------------


async def check_stripe(engine: Engine, environment: Environment, given: dict[str, str]) -> dict[str, object]:
    """The settings to keep for a company's Stripe: the key tried by a call, secrets sealed. ``""`` unsets.

    ``given``: any of stripe_key, stripe_publishable_key, stripe_webhook_secret. Raises Refusal naming the field; the
    value itself is never in an answer or a log.
    """
    kept: dict[str, object] = {}
    mode = environment.mode
    if (key := given.get("stripe_key")) is not None:
        kept["stripe_key"], kept["stripe_key_hint"] = None, None
        if key:
            _refuse_key(key, _SECRET_KEY, 2, mode, "stripe_key", f"sk_{mode}_… or rk_{mode}_…")
            gateway = engine.gateway_with(key, live=environment.live)
            try:
                await asyncio.wait_for(gateway.check(), KEY_SECONDS)
            except GatewayRefused as refused:
                raise Refusal("gateway_refused", f"stripe_key: {refused.message}", path="stripe_key") from refused
            except (GatewayUnclear, TimeoutError) as error:
                raise Refusal("gateway_unavailable") from error
            finally:
                await gateway.close()
            kept["stripe_key"] = engine.vault.seal(key, context=engine.context_of(environment, "stripe_key"))
            kept["stripe_key_hint"] = f"{key[: key.index('_', 3) + 1]}…{key[-4:]}"
    if (public := given.get("stripe_publishable_key")) is not None:
        if public:
            _refuse_key(public, _PUBLISHABLE_KEY, 1, mode, "stripe_publishable_key", f"pk_{mode}_…")
        kept["stripe_publishable_key"] = public or None
    if (secret := given.get("stripe_webhook_secret")) is not None:
        if secret and not _WEBHOOK_SECRET.fullmatch(secret):
            raise invalid("stripe_webhook_secret", "is the signing secret of the endpoint, whsec_….")
        context = engine.context_of(environment, "stripe_webhook_secret")
        kept["stripe_webhook_secret"] = engine.vault.seal(secret, context=context) if secret else None
    return kept


def _refuse_key(key: str, pattern: re.Pattern[str], group: int, mode: str, path: str, shape: str) -> None:
    found = pattern.fullmatch(key)
    if found is None or found[group] != mode:
        raise invalid(path, f"in {mode} mode it is {shape}, as Stripe shows it.")


async def keep_stripe(engine: Engine, unit: Unit, environment: Environment, kept: dict[str, object]) -> None:
    """Keep checked settings. Cards given to the sandbox mean nothing to a company's own Stripe: they are forgotten."""
    await accounts.lock_environment(unit, environment.id)
    if ("stripe_key" in kept) and (kept["stripe_key"] is None) != (environment.stripe.key is None):
        await payments.forget_cards(unit, environment.id, engine.now_of(environment))
    await accounts.update_settings(unit, environment.id, kept)
    await accounts.raise_revision(unit, environment.id, engine.now())


def message_of(engine: Engine, environment: Environment, body: bytes, signature: str) -> GatewayEvent:
    """A message of the company's provider, believed by its signature alone. Raises Refusal ``bad_signature``."""
    try:
        return read_event(body, signature, secrets=_webhook_secrets(engine, environment), now=engine.now())
    except BadSignature as error:
        raise Refusal("bad_signature") from error


def _webhook_secrets(engine: Engine, environment: Environment) -> tuple[str, ...]:
    """The secrets that may have signed a message of the company's provider."""
    sealed = environment.stripe.webhook_secret
    found: list[str] = []
    if sealed is not None:
        found.append(engine.vault.open(sealed, context=engine.context_of(environment, "stripe_webhook_secret")))
    if environment.stripe.key is None and not environment.live and engine.settings.sandbox_url:
        found.append(engine.sandbox_secret(environment))
    return tuple(found)


# --- links ------------------------------------------------------------------------------------------------------------


async def make_link(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    *,
    return_url: str | None,
    life: timedelta = LINK_LIFE,
) -> tuple[Link, str]:
    """A link to a page on which the account's person gives a card; the link and its token."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    tick = max(engine.tick(), state.tick + 1)
    # The person who opens it lives in real time, whatever the company's test clock says.
    real_now = engine.now()
    link = Link(account_id, tick, environment.id, "card", None, None, return_url, real_now + life, None, real_now)
    await payments.insert_link(unit, link)
    await ledger.raise_tick(unit, account_id, tick)
    return link, token_of(engine, link)


def token_of(engine: Engine, link: Link) -> str:
    """What stands in the address of a link."""
    public = spell_of_account("pl", link.account_id, link.id)
    return f"{public}.{engine.vault.sign(f'link {public}')}"


async def link_back_to(engine: Engine, environment: Environment, account_id: int, address: str) -> str:
    """The token of a link from which somebody comes back to ``address`` with a card; one that is still good is kept."""
    async with translated(), engine.database.writing() as unit:
        await ledger.lock_accounts(unit, [account_id])
        found = await requests.find_card_link(unit, account_id, address, engine.now())
        if found is not None:
            return token_of(engine, found)
        made = await make_link(engine, unit, environment, account_id, return_url=address, life=BACK_LIFE)
        return made[1]


async def open_link(engine: Engine, token: str) -> tuple[Link, Environment]:
    """The link behind a token and whose it is. Raises Refusal ``link_not_usable``, the same for every reason."""
    public, _, mac = token.partition(".")
    found = read_of_account("pl", public)
    if found is None or not engine.vault.verify(f"link {public}", mac):
        raise Refusal("link_not_usable")
    async with engine.database.reading() as reader:
        link = await payments.read_link(reader, *found)
    if link is None or link.used_at is not None or link.expires_at <= engine.now():
        raise Refusal("link_not_usable")
    environment = await engine.environment(link.environment_id)
    if environment is None:
        raise Refusal("link_not_usable")
    return link, environment


async def begin_setup(engine: Engine, environment: Environment, link: Link) -> tuple[str, str]:
    """The SetupIntent of a link, made at first sight: the company's publishable key and the browser's secret."""
    if environment.stripe.publishable_key is None:
        raise Refusal("gateway_not_configured", "Set stripe_publishable_key, so that a browser can give Stripe a card.")
    gateway = await engine.gateway_for(environment)
    customer = await customer_of(engine, environment, link.account_id)
    try:
        if link.setup_intent is not None:
            setup = await gateway.read_setup_intent(link.setup_intent)
        else:
            public = spell_of_account("pl", link.account_id, link.id)
            setup = await gateway.create_setup_intent(key=f"{public}:setup", customer=customer)
            async with engine.database.writing() as unit:
                await payments.update_link(unit, link._replace(setup_intent=setup.gateway_id))
    except (GatewayRefused, GatewayUnclear) as error:
        raise refusal_of(error) from error
    return environment.stripe.publishable_key, setup.client_secret


async def card_of_setup(engine: Engine, environment: Environment, link: Link) -> Card:
    """The card that a browser gave for a link. Raises Refusal ``link_not_usable`` while it has not."""
    if link.setup_intent is None:
        raise Refusal("link_not_usable")
    gateway = await engine.gateway_for(environment)
    customer = await customer_of(engine, environment, link.account_id)
    try:
        setup = await gateway.read_setup_intent(link.setup_intent)
        if setup.status != "succeeded" or setup.customer != customer or setup.payment_method is None:
            raise Refusal("link_not_usable")
        return await gateway.read_card(setup.payment_method)
    except (GatewayRefused, GatewayUnclear) as error:
        raise refusal_of(error) from error


async def keep_linked(engine: Engine, environment: Environment, link: Link, given: Card) -> StoredCard:
    """Keep the card that a link was for, in a unit of its own."""
    async with translated(), engine.database.writing() as unit:
        return await use_link(engine, unit, environment, link, given)


async def use_link(engine: Engine, unit: Unit, environment: Environment, link: Link, given: Card) -> StoredCard:
    """Keep the card that a link was for; the link is used up. Raises Refusal ``link_not_usable`` the second time."""
    await ledger.lock_accounts(unit, [link.account_id])
    found = await payments.read_link(unit, link.account_id, link.id)
    if found is None or found.used_at is not None:
        raise Refusal("link_not_usable")
    card = await keep_card(engine, unit, environment, link.account_id, given)
    await payments.update_link(unit, found._replace(used_at=engine.now()))
    return card
