"""Webhooks: where a company hears what happens, what it hears there, and how it asks for it again."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from tenuto.core.identifiers import spell
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.topic import EVERY_TOPIC, OF_BALANCES, WITH_LEVELS, Level, Notification
from tenuto.engine import Engine
from tenuto.gateway.addresses import parse_target
from tenuto.store import accounts, deliveries, ledger, signals, webhooks
from tenuto.store.accounts import Environment
from tenuto.store.database import Unit
from tenuto.store.webhooks import PASSWORD_OF, SECRET_OF, Subscription, Webhook

WEBHOOKS_MAX: Final = 100
SUBSCRIPTIONS_MAX: Final = 1000
LOOKS_MAX: Final = 1000
"""Subscriptions of all webhooks to one account, and to levels of all: each movement is held against every one."""
OVERLAP_MAX: Final = timedelta(days=7)
OVERLAP: Final = timedelta(hours=24)
"""How long the secret before a rotation goes on signing, unless it is said otherwise."""
IN_FLIGHT: Final = 2
IN_FLIGHT_MAX: Final = 50
SECRET_BYTES: Final = 32


class Subscribed(NamedTuple):
    """A webhook and all that it hears."""

    webhook: Webhook
    subscriptions: Sequence[Subscription]


class TopicAsk(NamedTuple):
    """What a webhook is to hear, or no more."""

    topic: str
    account_id: int | None = None
    denomination: str | None = None
    level: Level | None = None


def new_secret() -> str:
    """A secret of Standard Webhooks: ``whsec_`` and 256 bits from chance."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


async def _webhook(unit: Unit, environment: Environment, webhook_id: int) -> Webhook:
    """A webhook of this half, with the half locked: what is heard is part of every decision."""
    await accounts.lock_environment(unit, environment.id)
    found = await webhooks.read_webhook(unit, environment.id, webhook_id)
    if found is None:
        raise Refusal("not_found")
    return found


async def _subscribed(unit: Unit, webhook: Webhook) -> Subscribed:
    again = await webhooks.read_webhook(unit, webhook.environment_id, webhook.id)
    heard = await webhooks.list_subscriptions(unit, webhook.environment_id, webhook.id)
    return Subscribed(again or webhook, heard.get(webhook.id, ()))


async def create_webhook(
    engine: Engine, unit: Unit, environment: Environment, asked: Mapping[str, Any], topics: Sequence[TopicAsk]
) -> tuple[Subscribed, str]:
    """A webhook, and its secret as it is shown once. ``asked``: the fields of a webhook; ``password`` in plain text."""
    if asked.get("url") is not None:
        _refuse_near(engine, asked["url"])
    await accounts.lock_environment(unit, environment.id)
    if len(await webhooks.list_webhooks(unit, environment.id)) >= WEBHOOKS_MAX:
        raise invalid("url", f"a company has at most {WEBHOOKS_MAX} webhooks; delete one first.")
    id, secret = engine.new_id(), new_secret()
    made = Webhook(
        environment_id=environment.id,
        id=id,
        url=asked.get("url"),
        username=asked.get("username"),
        password=_sealed_password(engine, environment, id, asked.get("password")),
        secret=_sealed_secret(engine, environment, id, secret),
        old_secret=None,
        old_secret_until=None,
        description=asked.get("description") or "",
        in_flight=asked.get("in_flight") or IN_FLIGHT,
        merges=bool(asked.get("merges")),
        failing_since=None,
        paused_at=None,
        paused_by=None,
        created_at=engine.now_of(environment),
        updated_at=None,
    )
    await webhooks.insert_webhook(unit, made)
    # All at once and in order, as everybody locks accounts; one that is not this half's is refused below.
    await ledger.lock_accounts(unit, {ask.account_id for ask in topics if ask.account_id is not None})
    for ask in topics:
        await _hear(engine, unit, environment, id, ask)
    await _refresh(engine, unit, environment, [ask.account_id for ask in topics])
    return await _subscribed(unit, made), secret


def _refuse_near(engine: Engine, url: str) -> None:
    """Raises Refusal ``url_not_allowed`` for an address that nothing is sent to, ours among them."""
    target = parse_target(url, allow_private=engine.settings.may_call_near)
    if not engine.settings.may_call_near and target.host == urlsplit(engine.public_url).hostname:
        raise Refusal("url_not_allowed", "url: this is the address of Tenuto itself.", path="url")


def _sealed_password(engine: Engine, environment: Environment, webhook_id: int, password: str | None) -> bytes | None:
    if password is None:
        return None
    return engine.vault.seal(
        password, context=engine.context_of(environment, PASSWORD_OF.format(spell("w", webhook_id)))
    )


def _sealed_secret(engine: Engine, environment: Environment, webhook_id: int, secret: str) -> bytes:
    return engine.vault.seal(secret, context=engine.context_of(environment, SECRET_OF.format(spell("w", webhook_id))))


async def change_webhook(
    engine: Engine, unit: Unit, environment: Environment, webhook_id: int, changes: Mapping[str, Any]
) -> Subscribed:
    """Change fields of a webhook. ``paused`` true stops its deliveries, false lets all that waits be tried at once."""
    webhook = await _webhook(unit, environment, webhook_id)
    now, wanted = engine.now(), dict(changes)
    if "url" in wanted:
        _refuse_near(engine, wanted["url"])
    if "password" in wanted:
        wanted["password"] = _sealed_password(engine, environment, webhook_id, wanted["password"])
    is_paused = wanted.pop("paused", None)
    if is_paused and webhook.paused_at is None:
        wanted.update(paused_at=now, paused_by="manual")
    elif is_paused is False and webhook.paused_at is not None:
        wanted.update(paused_at=None, paused_by=None, failing_since=None)
        await deliveries.wake(unit, environment.id, webhook_id, now)
    if wanted:
        await webhooks.update_webhook(unit, environment.id, webhook_id, wanted, engine.now_of(environment))
    return await _subscribed(unit, webhook)


async def delete_webhook(engine: Engine, unit: Unit, environment: Environment, webhook_id: int) -> Subscribed:
    """Take a webhook away; what waits for it is not sent any more."""
    webhook = await _webhook(unit, environment, webhook_id)
    found = await _subscribed(unit, webhook)
    await _refresh(engine, unit, environment, [one.account_id for one in found.subscriptions])
    await webhooks.delete_webhook(unit, environment.id, webhook_id, engine.now_of(environment))
    return found


async def rotate_secret(
    engine: Engine, unit: Unit, environment: Environment, webhook_id: int, overlap: timedelta
) -> tuple[Subscribed, str]:
    """A new secret; for ``overlap`` the one before signs beside it. The secret is shown this once."""
    webhook, secret = await _webhook(unit, environment, webhook_id), new_secret()
    changes = {
        "secret": _sealed_secret(engine, environment, webhook_id, secret),
        "old_secret": webhook.secret if overlap else None,
        "old_secret_until": engine.now() + overlap if overlap else None,
    }
    await webhooks.update_webhook(unit, environment.id, webhook_id, changes, engine.now_of(environment))
    return await _subscribed(unit, webhook), secret


async def subscribe(engine: Engine, unit: Unit, environment: Environment, webhook_id: int, ask: TopicAsk) -> Subscribed:
    """Let a webhook hear a topic. Twice is once."""
    webhook = await _webhook(unit, environment, webhook_id)
    await _hear(engine, unit, environment, webhook_id, ask)
    await _refresh(engine, unit, environment, [ask.account_id])
    return await _subscribed(unit, webhook)


async def _hear(engine: Engine, unit: Unit, environment: Environment, webhook_id: int, ask: TopicAsk) -> None:
    if ask.level is not None and ask.level.kind not in WITH_LEVELS.get(ask.topic, ()):
        raise invalid("topic", f"{ask.topic} has no such level; threshold and credit_limit have levels.")
    if ask.denomination is not None and ask.topic not in OF_BALANCES | {EVERY_TOPIC, "flag.changed"}:
        raise invalid("denomination", f"{ask.topic} is not about one balance.")
    if ask.account_id is not None:
        # Locked, so that nobody decides on the account without knowing that it is heard from now on.
        await ledger.take_account(unit, environment.id, ask.account_id, engine.now_of(environment))
    level = None if ask.level is None else ask.level.spelled
    asked = Subscription(
        engine.new_id(),
        webhook_id,
        ask.topic,
        ask.account_id,
        ask.denomination,
        level,
        engine.now_of(environment),
    )
    is_new = await webhooks.insert_subscription(unit, environment.id, asked)
    if is_new and await webhooks.count_subscriptions(unit, environment.id, webhook_id) > SUBSCRIPTIONS_MAX:
        raise invalid("topic", f"a webhook hears at most {SUBSCRIPTIONS_MAX} topics.")
    if is_new and await webhooks.count_looks(unit, environment.id, ask.account_id) > LOOKS_MAX:
        raise invalid("topic", f"at most {LOOKS_MAX} of one account, and {LOOKS_MAX} levels of all, are heard.")


async def unsubscribe(
    engine: Engine, unit: Unit, environment: Environment, webhook_id: int, topic: str, narrowed: Mapping[str, object]
) -> Subscribed:
    """Let a webhook hear a topic no more, or no more of one account, balance or level. Raises Refusal ``not_found``."""
    webhook = await _webhook(unit, environment, webhook_id)
    ended = await webhooks.delete_subscriptions(unit, environment.id, webhook_id, topic, narrowed)
    if not ended:
        raise Refusal("not_found", f"The webhook does not hear {topic[:64]} so.")
    await _refresh(engine, unit, environment, ended)
    return await _subscribed(unit, webhook)


async def _refresh(engine: Engine, unit: Unit, environment: Environment, account_ids: Sequence[int | None]) -> None:
    """Let everybody who decides find out that somebody listens otherwise than before."""
    if None in account_ids:
        await accounts.raise_revision(unit, environment.id, engine.now())
    for account_id in sorted({id for id in account_ids if id is not None}):
        await ledger.raise_tick(unit, account_id, engine.tick())


async def send_again(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    webhook_id: int,
    *,
    since: int,
    until: int,
    status: str | None,
) -> int:
    """Send deliveries of a range of places in the log once more; how many."""
    await _webhook(unit, environment, webhook_id)
    return await deliveries.send_again(
        unit, environment.id, webhook_id, since=since, until=until, status=status, now=engine.now()
    )


async def send_test(engine: Engine, unit: Unit, environment: Environment, webhook_id: int, message: str) -> None:
    """Send a trial to one webhook, whatever it hears. Raises Refusal where it has no address."""
    webhook = await _webhook(unit, environment, webhook_id)
    if webhook.url is None:
        raise invalid("url", "the webhook has no address; its notifications are there to be read.")
    data = {"webhook_id": spell("w", webhook_id), "message": message, "number": webhook_id}
    await signals.write(unit, environment.id, Notification(None, "webhook.test", data, engine.now_of(environment)))
