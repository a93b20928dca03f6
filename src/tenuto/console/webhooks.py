"""Settings: webhooks, what they hear, and flagbacks, which are webhooks that hear of flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from litestar import Response

from tenuto.core.outcomes import Refusal
from tenuto.core.topic import EVERY_TOPIC, LEVEL_FIELDS, OF_BALANCES, TOPICS, WITH_LEVELS

from .credit import KINDS
from .forms import REFUSED, read_denomination, read_duration, said, spelled_duration, typed, typed_duration, whole
from .frame import Page, Visit
from .settings import ROOT

LIST: Final = "/companies/{company_id}/webhooks"
ONE: Final = LIST + "/{webhook_id}"
AT: Final = f"{ROOT}/webhooks"
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Flagbacks": ("flag.",),
    "Balances and levels": (*sorted(OF_BALANCES), "auto_refill"),
    "Payments": ("payment.", "refill."),
    "Invoices": ("invoice.",),
    "Plans": ("plan.",),
    "Accounts": ("account.",),
    "What customers agree to": ("topup.", "overage."),
    "Webhooks themselves": ("webhook.",),
}
"""Topics as the page groups them, by their beginning."""
NARROWED: Final = (*OF_BALANCES, "flag.changed", EVERY_TOPIC)
"""Topics that may be heard of one denomination only."""
_PLAIN: Final = ("url", "username", "description", "max_in_flight")


def groups() -> dict[str, dict[str, str]]:
    """Every topic with its sentence, by group."""
    found: dict[str, dict[str, str]] = {}
    left = dict(TOPICS)
    for group, beginnings in GROUPS.items():
        names = [name for name in left if name.startswith(beginnings)]
        found[group] = {name: left.pop(name).what.replace("`", "") for name in names}
    if left:
        found["More"] = {name: topic.what.replace("`", "") for name, topic in left.items()}
    return found


def level_in_words(topic: Mapping[str, Any]) -> str:
    """The level of a subscription: 90 percent consumed; empty where it hears the levels of the rules."""
    return next((f"{topic[name]} {KINDS[name]}" for name in LEVEL_FIELDS if topic[name] is not None), "")


async def webhooks(visit: Visit) -> Response[Any]:
    """All webhooks of this half."""
    return visit.page("settings_webhooks.html", webhooks=await visit.get(LIST))


# --- a new one --------------------------------------------------------------------------------------------------------

_NEW: Final[Mapping[str, Any]] = {
    "url": "",
    "username": "",
    "description": "",
    "max_in_flight": "2",
    "merge_balance_changes": "",
    "topics": (),
    "narrowed": {},
}


def _narrowing(visit: Visit, topic: str) -> dict[str, str]:
    return {name: visit.field(f"{name}:{topic}") for name in ("account_id", "denomination", "kind", "value")}


def _form(visit: Visit) -> dict[str, Any]:
    """What was typed but the password, which nobody is shown."""
    topics = list(dict.fromkeys(topic for topic in visit.fields("topic") if topic))
    return {
        **typed(visit, *_PLAIN, "merge_balance_changes"),
        "topics": topics,
        "narrowed": {topic: _narrowing(visit, topic) for topic in [*TOPICS, EVERY_TOPIC]},
    }


def _new_page(visit: Visit, form: Mapping[str, Any], problem: str = "") -> Response[Any]:
    return visit.page(
        "webhook_new.html",
        status=REFUSED if problem else 200,
        form=form,
        groups=groups(),
        kinds=KINDS,
        levels=WITH_LEVELS,
        fields_of_level=LEVEL_FIELDS,
        narrowed=NARROWED,
        problem=problem,
    )


async def new_webhook(visit: Visit) -> Response[Any]:
    """The form of a webhook."""
    asked = [topic for topic in visit.query.get("topics", "").split(",") if topic in TOPICS]
    return _new_page(visit, {**_NEW, "topics": asked})


def _topic_body(topic: str, narrowing: Mapping[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name in ("account_id", "denomination"):
        if narrowing[name]:
            body[name] = read_denomination(narrowing[name], name) if name == "denomination" else narrowing[name]
    if narrowing["value"] and topic in WITH_LEVELS and narrowing["kind"] in LEVEL_FIELDS:
        body[narrowing["kind"]] = whole(narrowing["value"], f"level of {topic}")
    return body


def _plain_body(visit: Visit, form: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same for a new webhook and for a change."""
    body: dict[str, Any] = {
        "description": form["description"],
        "max_in_flight": whole(form["max_in_flight"], "requests at a time"),
        "merge_balance_changes": bool(form["merge_balance_changes"]),
    }
    if form["url"]:
        body["url"] = form["url"]
    if visit.field("password"):
        body["password"] = visit.field("password")
    return body


async def make_webhook(visit: Visit) -> Response[Any]:
    """Make a webhook, and show its secret this once."""
    form = _form(visit)
    try:
        topics = [{"topic": topic, **_topic_body(topic, _narrowing(visit, topic))} for topic in form["topics"]]
        body = {**_plain_body(visit, form), "topics": topics}
        if form["username"]:
            body["username"] = form["username"]
        made = await visit.do("POST", LIST, body)
    except Refusal as refusal:
        return _new_page(visit, form, said(refusal))
    return visit.page("webhook_secret.html", webhook=made, is_new=True)


# --- one of them ------------------------------------------------------------------------------------------------------


def _at(visit: Visit) -> str:
    return f"{AT}/{visit.param('webhook_id')}"


async def webhook(visit: Visit) -> Response[Any]:
    """One webhook: what it hears, and what can be done about it."""
    found = await visit.get(ONE, webhook_id=visit.param("webhook_id"))
    form = {name: found[name] if found[name] is not None else "" for name in _PLAIN}
    form["merge_balance_changes"] = "on" if found["merge_balance_changes"] else ""
    return _webhook_page(visit, found, form)


def _webhook_page(visit: Visit, found: Mapping[str, Any], form: Mapping[str, Any], problem: str = "") -> Response[Any]:
    subscribing = {name: visit.field(name) for name in ("topic", "account_id", "denomination", "kind", "value")}
    return visit.page(
        "webhook.html",
        status=REFUSED if problem else 200,
        webhook=found,
        form=form,
        subscribing=subscribing,
        groups=groups(),
        kinds=KINDS,
        sentences={name: topic.what.replace("`", "") for name, topic in TOPICS.items()},
        level_in_words=level_in_words,
        fields_of_level=LEVEL_FIELDS,
        rotation=spelled_duration("overlap", 86_400),
        problem=problem,
    )


async def change_webhook(visit: Visit) -> Response[Any]:
    """Change where it is, and how it is called."""
    webhook_id, form = visit.param("webhook_id"), typed(visit, *_PLAIN, "merge_balance_changes")
    try:
        body = {**_plain_body(visit, form), "username": form["username"] or None}
        if not form["username"]:
            body["password"] = None
        await visit.do("PUT", ONE, body, webhook_id=webhook_id)
    except Refusal as refusal:
        return _webhook_page(visit, await visit.get(ONE, webhook_id=webhook_id), form, said(refusal))
    return visit.go(_at(visit), "Saved.")


async def pause_webhook(visit: Visit) -> Response[Any]:
    """Send nothing for now, or go on."""
    is_paused = visit.field("paused") == "yes"
    await visit.do("PUT", ONE, {"paused": is_paused}, webhook_id=visit.param("webhook_id"))
    note = "Paused: what it hears waits for it." if is_paused else "It goes on: what waited is tried now."
    return visit.go(_at(visit), note)


async def rotate_secret(visit: Visit) -> Response[Any]:
    """Another secret, shown this once."""
    body = {"overlap_seconds": read_duration(visit, "overlap")}
    made = await visit.do("POST", ONE + "/rotate_secret", body, webhook_id=visit.param("webhook_id"))
    return visit.page("webhook_secret.html", webhook=made, is_new=False, overlap=typed_duration(visit, "overlap"))


async def delete_webhook(visit: Visit) -> Response[Any]:
    """Take it away, with what waits for it."""
    await visit.do("DELETE", ONE, webhook_id=visit.param("webhook_id"))
    return visit.go(AT, "The webhook is gone.")


async def subscribe(visit: Visit) -> Response[Any]:
    """Let it hear a topic."""
    webhook_id, topic = visit.param("webhook_id"), visit.field("topic")
    narrowing = {name: visit.field(name) for name in ("account_id", "denomination", "kind", "value")}
    try:
        await visit.do(
            "POST", ONE + "/subscribe/{topic}", _topic_body(topic, narrowing), webhook_id=webhook_id, topic=topic
        )
    except Refusal as refusal:
        found = await visit.get(ONE, webhook_id=webhook_id)
        form = {name: found[name] if found[name] is not None else "" for name in (*_PLAIN, "merge_balance_changes")}
        return _webhook_page(visit, found, form, said(refusal))
    return visit.go(_at(visit), f"It hears {'all topics' if topic == EVERY_TOPIC else topic} from now on.")


async def unsubscribe(visit: Visit) -> Response[Any]:
    """Let it hear a topic no more."""
    names = ("account_id", "denomination", *LEVEL_FIELDS)
    query = {name: visit.field(name) for name in names if visit.field(name)}
    await visit.do(
        "DELETE",
        ONE + "/subscribe/{topic}",
        webhook_id=visit.param("webhook_id"),
        topic=visit.field("topic"),
        query=query,
    )
    return visit.go(_at(visit), "It does not hear that any more.")


async def send_test(visit: Visit) -> Response[Any]:
    """Send a trial; the log shows what became of it."""
    body = {"message": visit.field("message")} if visit.field("message") else {}
    await visit.do("POST", ONE + "/test", body, webhook_id=visit.param("webhook_id"))
    return visit.go(f"{_at(visit)}/logs", "A trial is on its way; load this page again to see its answer.")


async def to_webhook(visit: Visit) -> Response[Any]:
    """The address of a form that was refused, loaded again: on to the webhook itself."""
    return visit.go(_at(visit))


PAGES: Final = (
    Page("GET", AT, webhooks, "company:read"),
    Page("GET", f"{AT}/new", new_webhook, "company:write"),
    Page("POST", f"{AT}/new", make_webhook, "company:write"),
    Page("GET", f"{AT}/{{webhook_id}}", webhook, "company:read"),
    Page("POST", f"{AT}/{{webhook_id}}", change_webhook, "company:write"),
    Page("POST", f"{AT}/{{webhook_id}}/pause", pause_webhook, "company:write"),
    Page("POST", f"{AT}/{{webhook_id}}/rotate", rotate_secret, "company:write", fresh=True),
    Page("POST", f"{AT}/{{webhook_id}}/delete", delete_webhook, "company:write"),
    Page("GET", f"{AT}/{{webhook_id}}/subscribe", to_webhook, "company:read"),
    Page("GET", f"{AT}/{{webhook_id}}/rotate", to_webhook, "company:read"),
    Page("POST", f"{AT}/{{webhook_id}}/subscribe", subscribe, "company:write"),
    Page("POST", f"{AT}/{{webhook_id}}/unsubscribe", unsubscribe, "company:write"),
    Page("POST", f"{AT}/{{webhook_id}}/test", send_test, "company:write"),
)
