"""Webhooks: where a company hears what happens, and what it hears there. Sources: contract 2.6, 3.9, 6.1 (23, 24)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from tenuto.core.identifiers import read, spell
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.topic import (
    EVERY_TOPIC,
    LEVEL_FIELDS,
    Action,
    Level,
    Rule,
    checked_level,
    checked_rules,
    checked_topic,
    level_fields,
    level_of,
)
from tenuto.engine import Answer
from tenuto.service import webhooks as service
from tenuto.service.webhooks import Subscribed, TopicAsk
from tenuto.store import webhooks as store
from tenuto.store.accounts import Environment
from tenuto.store.database import Unit
from tenuto.store.webhooks import Subscription

from . import body as bodies
from . import shapes
from .routes import Call, Param, Route

TOPICS_AT_ONCE: Final = 50
TEXT_MAX: Final = 255


class TopicIn(msgspec.Struct, forbid_unknown_fields=True):
    """What is heard of a topic: one account's or all, one balance's or all; a level where the topic has levels."""

    account_id: str | None = None
    denomination: str | None = None
    threshold_percentage: int | None = None
    remaining_percentage: int | None = None
    level: int | None = None
    credit_limit_percentage: int | None = None


class NamedTopicIn(TopicIn, forbid_unknown_fields=True, kw_only=True):
    """The same with the name of the topic."""

    topic: str


class WebhookIn(msgspec.Struct, forbid_unknown_fields=True):
    """A webhook. Without ``url`` nothing is sent: what it hears is there to be read."""

    url: str | None = None
    username: str | None = None
    password: str | None = None
    description: str = ""
    max_in_flight: int = service.IN_FLIGHT
    merge_balance_changes: bool = False
    topics: list[str | NamedTopicIn] = []


class WebhookChange(msgspec.Struct, forbid_unknown_fields=True):
    """Fields to change; what is missing stays as it is. ``username`` null sends no credentials any more."""

    url: str | msgspec.UnsetType = msgspec.UNSET
    username: str | msgspec.UnsetType | None = msgspec.UNSET
    password: str | msgspec.UnsetType | None = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    max_in_flight: int | msgspec.UnsetType = msgspec.UNSET
    merge_balance_changes: bool | msgspec.UnsetType = msgspec.UNSET
    paused: bool | msgspec.UnsetType = msgspec.UNSET


class RotationIn(msgspec.Struct, forbid_unknown_fields=True):
    """How long the secret before goes on signing beside the new one."""

    overlap_seconds: int = int(service.OVERLAP.total_seconds())


class LevelIn(msgspec.Struct, forbid_unknown_fields=True):
    """A level with what happens there: ``notify``, ``flag`` (raise the flag ``flag``) or ``block`` (credit block)."""

    threshold_percentage: int | None = None
    remaining_percentage: int | None = None
    level: int | None = None
    credit_limit_percentage: int | None = None
    denomination: str | None = None
    action: str = "notify"
    flag: str | None = None


class TopicOut(shapes.Shape):
    """One topic that a webhook hears."""

    topic: str
    account_id: str | None
    denomination: str | None
    threshold_percentage: int | None
    remaining_percentage: int | None
    level: int | None
    credit_limit_percentage: int | None
    created_at: str | None


class WebhookOut(shapes.Shape):
    """A webhook. ``status``: active, failing (since ``failing_since``), paused, or pull, without a url."""

    id: str
    company_id: str
    url: str | None
    username: str | None
    description: str
    max_in_flight: int
    merge_balance_changes: bool
    status: str
    failing_since: str | None
    paused_at: str | None
    paused_by: str | None
    old_secret_until: str | None
    topics: list[TopicOut]
    created_at: str | None
    updated_at: str | None


class WebhookIssuedOut(WebhookOut):
    """A webhook with its secret, which is shown this once."""

    secret: str


def _topic(found: Subscription) -> TopicOut:
    return TopicOut(
        topic=found.topic,
        account_id=None if found.account_id is None else spell("a", found.account_id),
        denomination=found.denomination,
        created_at=bodies.spelled(found.created_at),
        **level_fields(None if found.level is None else level_of(found.level)),
    )


def _fields(found: Subscribed, environment: Environment) -> dict[str, Any]:
    webhook = found.webhook
    status = "active" if webhook.failing_since is None else "failing"
    if webhook.paused_at is not None or webhook.url is None:
        status = "pull" if webhook.url is None else "paused"
    return {
        "id": spell("w", webhook.id),
        "company_id": spell("c", environment.company_id),
        "url": webhook.url,
        "username": webhook.username,
        "description": webhook.description,
        "max_in_flight": webhook.in_flight,
        "merge_balance_changes": webhook.merges,
        "status": status,
        "failing_since": bodies.spelled(webhook.failing_since),
        "paused_at": bodies.spelled(webhook.paused_at),
        "paused_by": webhook.paused_by,
        "old_secret_until": bodies.spelled(webhook.old_secret_until),
        "topics": [_topic(one) for one in found.subscriptions],
        "created_at": bodies.spelled(webhook.created_at),
        "updated_at": bodies.spelled(webhook.updated_at),
    }


def _level(given: TopicIn | LevelIn, path: str = "") -> Level | None:
    named = [
        (name, kind, getattr(given, name)) for name, kind in LEVEL_FIELDS.items() if getattr(given, name) is not None
    ]
    if not named:
        return None
    if len(named) > 1:
        raise invalid(path + named[1][0], f"stands beside {named[0][0]}; a level is one of them.")
    name, kind, value = named[0]
    return checked_level(kind, value, path + name)


def _ask(topic: str, given: TopicIn, path: str = "") -> TopicAsk:
    account_id = None
    if given.account_id is not None:
        account_id = read("a", given.account_id)
        if account_id is None:
            raise invalid(f"{path}account_id", "is the id of an account.")
    denomination = given.denomination
    if denomination is not None:
        denomination = bodies.token(denomination, f"{path}denomination", bodies.DENOMINATION_MAX)
    return TopicAsk(topic, account_id, denomination, _level(given, path))


def _asks(given: Sequence[str | NamedTopicIn]) -> list[TopicAsk]:
    if len(given) > TOPICS_AT_ONCE:
        raise invalid("topics", f"at most {TOPICS_AT_ONCE} topics.", "out_of_range")
    found: list[TopicAsk] = []
    for index, one in enumerate(given):
        name, path = (one, f"topics[{index}]") if isinstance(one, str) else (one.topic, f"topics[{index}].topic")
        try:
            topic = checked_topic(name)
        except Refusal as refusal:
            raise invalid(path, refusal.message) from refusal
        found.append(TopicAsk(topic) if isinstance(one, str) else _ask(topic, one, f"topics[{index}]."))
    return found


def _changes(given: WebhookIn | WebhookChange) -> dict[str, Any]:
    """The fields that were given, checked; of the url, only its length: the service judges where it leads."""
    changes: dict[str, Any] = {}
    if isinstance(given.url, str):
        changes["url"] = bodies.token(given.url, "url", 2000)
    if not isinstance(given.username, msgspec.UnsetType):
        changes["username"] = given.username
        if given.username is not None:
            changes["username"] = bodies.token(given.username, "username", TEXT_MAX, spaces=True)
            if ":" in given.username:
                raise invalid("username", "holds no colon: it could not be told from the password.")
    if not isinstance(given.password, msgspec.UnsetType):
        password = given.password
        changes["password"] = None if password is None else bodies.token(password, "password", TEXT_MAX, spaces=True)
    if not isinstance(given.description, msgspec.UnsetType):
        changes["description"] = bodies.text(given.description, "description", TEXT_MAX, shortest=0)
    if not isinstance(given.max_in_flight, msgspec.UnsetType):
        most = service.IN_FLIGHT_MAX
        changes["in_flight"] = bodies.whole(given.max_in_flight, "max_in_flight", least=1, most=most)
    if not isinstance(given.merge_balance_changes, msgspec.UnsetType):
        changes["merges"] = given.merge_balance_changes
    return changes


def rules_of_body(given: Sequence[LevelIn]) -> tuple[Rule, ...]:
    """A company's levels. Raises Refusal with a path such as ``levels[1].flag``."""
    rules: list[Rule] = []
    for index, one in enumerate(given):
        path = f"levels[{index}]."
        level = _level(one, path)
        if level is None:
            raise invalid(path + "level", f"one of {', '.join(LEVEL_FIELDS)} says where it is.", "missing_field")
        actions: tuple[Action, ...] = ("notify", "flag", "block")
        action = next((name for name in actions if name == one.action), None)
        if action is None:
            raise invalid(path + "action", f"is one of {', '.join(actions)}.")
        flag = None if one.flag is None else bodies.token(one.flag, path + "flag", 64)
        denomination = one.denomination
        if denomination is not None:
            denomination = bodies.token(denomination, path + "denomination", bodies.DENOMINATION_MAX)
        rules.append(Rule(level, action, flag, denomination))
    return checked_rules(rules)


async def create_webhook(call: Call) -> Answer:
    """Make a webhook; its secret is shown this once."""
    call.company()
    given = call.decoded(WebhookIn)
    asked, topics = _changes(given), _asks(given.topics)
    environment = call.environment

    async def verb(unit: Unit) -> tuple[Subscribed, str]:
        return await service.create_webhook(call.engine, unit, environment, asked, topics)

    def render(made: tuple[Subscribed, str]) -> bytes:
        return shapes.wrapped(WebhookIssuedOut(**_fields(made[0], environment), secret=made[1]))

    return await call.once(verb, render, is_secret=True)


async def list_webhooks(call: Call) -> Answer:
    """All webhooks, the oldest first."""
    call.company()
    environment = call.environment
    async with call.engine.database.reading() as reader:
        found = await store.list_webhooks(reader, environment.id)
        heard = await store.list_subscriptions(reader, environment.id)
    rows = [WebhookOut(**_fields(Subscribed(one, heard.get(one.id, ())), environment)) for one in found]
    return Answer(200, shapes.listed(rows, None))


async def get_webhook(call: Call) -> Answer:
    """One webhook."""
    call.company()
    environment, webhook_id = call.environment, call.id("w", "webhook_id")
    async with call.engine.database.reading() as reader:
        found = await store.read_webhook(reader, environment.id, webhook_id)
        if found is None:
            raise Refusal("not_found")
        heard = await store.list_subscriptions(reader, environment.id, webhook_id)
    shown = WebhookOut(**_fields(Subscribed(found, heard.get(webhook_id, ())), environment))
    return Answer(200, shapes.wrapped(shown))


def _shown(call: Call, found: Subscribed) -> bytes:
    return shapes.wrapped(WebhookOut(**_fields(found, call.environment)))


async def change_webhook(call: Call) -> Answer:
    """Change a webhook; paused false lets all that waits for it be tried at once."""
    call.company()
    given, webhook_id = call.decoded(WebhookChange), call.id("w", "webhook_id")
    changes = _changes(given)
    if not isinstance(given.paused, msgspec.UnsetType):
        changes["paused"] = given.paused

    async def verb(unit: Unit) -> Subscribed:
        return await service.change_webhook(call.engine, unit, call.environment, webhook_id, changes)

    return await call.once(verb, lambda found: _shown(call, found))


async def delete_webhook(call: Call) -> Answer:
    """Take a webhook away; what waits for it is not sent any more."""
    call.company()
    webhook_id = call.id("w", "webhook_id")

    async def verb(unit: Unit) -> Subscribed:
        return await service.delete_webhook(call.engine, unit, call.environment, webhook_id)

    return await call.once(verb, lambda found: _shown(call, found))


async def rotate_secret(call: Call) -> Answer:
    """Another secret; for a while the one before signs beside it."""
    call.company()
    webhook_id = call.id("w", "webhook_id")
    given = call.decoded(RotationIn) if call.body else RotationIn()
    most = int(service.OVERLAP_MAX.total_seconds())
    overlap = timedelta(seconds=bodies.whole(given.overlap_seconds, "overlap_seconds", most=most))

    async def verb(unit: Unit) -> tuple[Subscribed, str]:
        return await service.rotate_secret(call.engine, unit, call.environment, webhook_id, overlap)

    def render(made: tuple[Subscribed, str]) -> bytes:
        return shapes.wrapped(WebhookIssuedOut(**_fields(made[0], call.environment), secret=made[1]))

    return await call.once(verb, render, is_secret=True)


async def subscribe(call: Call) -> Answer:
    """Let a webhook hear a topic, or * for all."""
    call.company()
    webhook_id = call.id("w", "webhook_id")
    given = call.decoded(TopicIn) if call.body else TopicIn()
    ask = _ask(checked_topic(call.params["topic"]), given)

    async def verb(unit: Unit) -> Subscribed:
        return await service.subscribe(call.engine, unit, call.environment, webhook_id, ask)

    return await call.once(verb, lambda found: _shown(call, found))


async def unsubscribe(call: Call) -> Answer:
    """Let a webhook hear a topic no more; the query narrows it to one account, balance or level."""
    call.company()
    webhook_id, topic = call.id("w", "webhook_id"), checked_topic(call.params["topic"])
    narrowed = call.filters()
    levels = [name for name in LEVEL_FIELDS if name in narrowed]
    if len(levels) > 1:
        raise invalid(levels[1], f"stands beside {levels[0]}; a level is one of them.")
    for name in levels:
        text = str(narrowed.pop(name))
        if not (text.isascii() and text.isdecimal()):
            raise invalid(name, "takes a whole number.")
        narrowed["level"] = checked_level(LEVEL_FIELDS[name], int(text[:17]), name).spelled

    async def verb(unit: Unit) -> Subscribed:
        return await service.unsubscribe(call.engine, unit, call.environment, webhook_id, topic, narrowed)

    return await call.once(verb, lambda found: _shown(call, found))


_PATH: Final = "/companies/{company_id}/webhooks"
_ONE: Final = _PATH + "/{webhook_id}"
_NARROWED: Final = (
    Param("account_id", "account_id", "Only what is heard of this account."),
    Param("denomination", "text", "Only what is heard of balances of this."),
    *(Param(name, "text", f"Only the level with this {name}.") for name in LEVEL_FIELDS),
)
_ROTATES: Final = (
    "Both secrets sign until `old_secret_until`; a receiver that knows either takes the message. Then only the new"
    " one does."
)

ROUTES: Final = (
    Route(
        "POST",
        _PATH,
        create_webhook,
        "Make a webhook",
        "Webhooks",
        WebhookIssuedOut,
        scope="company:write",
        body=WebhookIn,
        refusals=("url_not_allowed",),
        example={"username": "tenuto", "password": "correct horse", "topics": ["balance_change", "payment.failed"]},
    ),
    Route("GET", _PATH, list_webhooks, "List webhooks", "Webhooks", WebhookOut, scope="company:read", is_list=True),
    Route("GET", _ONE, get_webhook, "Read a webhook", "Webhooks", WebhookOut, scope="company:read"),
    Route(
        "PUT",
        _ONE,
        change_webhook,
        "Change a webhook",
        "Webhooks",
        WebhookOut,
        scope="company:write",
        body=WebhookChange,
        refusals=("url_not_allowed",),
        example={"max_in_flight": 10},
    ),
    Route("DELETE", _ONE, delete_webhook, "Delete a webhook", "Webhooks", WebhookOut, scope="company:write"),
    Route(
        "POST",
        _ONE + "/rotate_secret",
        rotate_secret,
        "Change the secret of a webhook",
        "Webhooks",
        WebhookIssuedOut,
        scope="company:write",
        body=RotationIn,
        example={"overlap_seconds": 86_400},
        details=_ROTATES,
    ),
    Route(
        "POST",
        _ONE + "/subscribe/{topic}",
        subscribe,
        "Let a webhook hear a topic",
        "Webhooks",
        WebhookOut,
        scope="company:write",
        body=TopicIn,
        example={"denomination": "tokens", "threshold_percentage": 90},
        details=f"`{EVERY_TOPIC}` stands for all topics. A level belongs to `threshold` and `credit_limit`; without one"
        " they tell of the company's own levels and of plans.",
    ),
    Route(
        "DELETE",
        _ONE + "/subscribe/{topic}",
        unsubscribe,
        "Let a webhook hear a topic no more",
        "Webhooks",
        WebhookOut,
        scope="company:write",
        query=_NARROWED,
        refusals=("invalid_string", "out_of_range"),
    ),
)
