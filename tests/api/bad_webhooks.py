"""Bad input to the routes of webhooks, deliveries and notifications: rows as in ``bad_input``.

``{webhook}`` is the caller's own, paused and hearing everything; ``{notification}`` waits for it; ``{silent}`` has no
address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tests.api.bad_input import Bad
from tests.api.bad_money import COMPANY, MOST, STATUS, bodies, names, numbers

HOOKS: Final = COMPANY + "/webhooks"
HOOK: Final = HOOKS + "/{webhook}"
THRESHOLD: Final = HOOK + "/subscribe/threshold"
LOGS: Final = HOOK + "/logs"
NOTIFICATIONS: Final = COMPANY + "/notifications"
STATUSES: Final = {**STATUS, "invalid_cursor": 400}
ALL_ROUTES: Final = (
    *(("GET", HOOK), ("PUT", HOOK), ("DELETE", HOOK), ("POST", HOOK + "/rotate_secret"), ("POST", THRESHOLD)),
    *(("DELETE", THRESHOLD), ("GET", LOGS), ("GET", LOGS + "/{notification}"), ("POST", HOOK + "/replay")),
    *(("POST", LOGS + "/{notification}/replay"), ("POST", HOOK + "/test")),
)


def at(
    name: str, method: str, path: str, body: object, code: str = "invalid_field", /, field: str | None = None
) -> Bad:
    """A request that is refused with 422, or with the status that goes with the code."""
    return Bad(f"webhooks: {name}", method, path, body, STATUSES.get(code, 422), code, {}, field)


def hook(name: str, code: str = "invalid_field", /, field: str | None = None, **fields: object) -> Iterator[Bad]:
    """Fields that do not fit, of a new webhook and as a change of one that is there."""
    yield at(f"new, {name}", "POST", HOOKS, fields, code, field)
    yield at(f"changed, {name}", "PUT", HOOK, fields, code, field)


def heard(name: str, code: str = "invalid_field", /, field: str | None = None, **fields: object) -> Iterator[Bad]:
    """What cannot be heard of the topic threshold, asked for by itself and with a new webhook."""
    yield at(f"heard, {name}", "POST", THRESHOLD, fields, code, field)
    within = None if field is None else f"topics[1].{field}"
    topics = ["threshold", {"topic": "threshold", **fields}]
    yield at(f"heard at once, {name}", "POST", HOOKS, {"topics": topics}, code, within)


def texts(field: str, longest: int, *, shortest: int = 0) -> Iterator[Bad]:
    """A text given as everything that it is not."""
    wrong: Mapping[str, object] = {"a number": 5, "a list": ["a"], "too long": "x" * (longest + 1), "true": True}
    for what, value in wrong.items():
        yield from hook(f"{field} {what}", field=field, **{field: value})
    if shortest:
        yield from hook(f"{field} empty", field=field, **{field: ""})
    yield from hook(f"{field} with NUL", "invalid_string", **{field: "a\0b"})


HOOK_ROWS: Final = (
    *bodies("webhook", "POST", HOOKS),
    *bodies("change of a webhook", "PUT", HOOK),
    *texts("url", 2000, shortest=1),
    *texts("username", 255, shortest=1),
    *texts("password", 255, shortest=1),
    *texts("description", 255),
    *hook("url not whole", "invalid_field", "url", url="https://a b/"),
    *hook("username with a colon", field="username", username="a:b"),
    *hook("username with a line", field="username", username="a\r\nx-evil: 1"),
    *hook("password with a line", field="password", password="a\nb"),
    *hook("password not ASCII", field="password", password="pässword"),
    at("url null", "PUT", HOOK, {"url": None}, field="url"),
    at("paused a text", "PUT", HOOK, {"paused": "yes"}, field="paused"),
    at("paused null", "PUT", HOOK, {"paused": None}, field="paused"),
    at("paused at the beginning", "POST", HOOKS, {"paused": True}, "unknown_field", "paused"),
    at("topics in a change", "PUT", HOOK, {"topics": ["*"]}, "unknown_field", "topics"),
    at("a secret of one's own", "POST", HOOKS, {"secret": "whsec_AAAA"}, "unknown_field", "secret"),
    *numbers("webhook", "POST", HOOKS, {}, "max_in_flight", least=1, most=50, can_be_null=False),
    *numbers("change of a webhook", "PUT", HOOK, {}, "max_in_flight", least=1, most=50, can_be_null=False),
    *(row for value in ("yes", 1, None) for row in hook(f"merges {value!r}", merge_balance_changes=value)),
    at("topics no list", "POST", HOOKS, {"topics": "*"}, field="topics"),
    at("a topic that is none", "POST", HOOKS, {"topics": ["threshold", "nonsense"]}, field="topics[1]"),
    at("a topic's name that is none", "POST", HOOKS, {"topics": [{"topic": "x"}]}, field="topics[0].topic"),
    at("a topic without a name", "POST", HOOKS, {"topics": [{}]}, "missing_field", "topics[0].topic"),
    at("a topic that is a number", "POST", HOOKS, {"topics": [5]}),
    at("51 topics", "POST", HOOKS, {"topics": ["threshold"] * 51}, "out_of_range", "topics"),
)

TOPIC_ROWS: Final = (
    *bodies("subscription", "POST", THRESHOLD, can_be_none=True),
    at("an unknown topic", "POST", HOOK + "/subscribe/nonsense", {}, "not_found"),
    at("a topic with NUL", "POST", HOOK + "/subscribe/a%00b", {}, "not_found"),
    at("an unknown topic is not left", "DELETE", HOOK + "/subscribe/nonsense", None, "not_found"),
    *names("subscription", "POST", THRESHOLD, {}, "denomination", 64),
    *heard("an account that is none", field="account_id", account_id="nobody"),
    *heard("an account that is an event", field="account_id", account_id="{event}"),
    *heard("an account that is a number", field="account_id", account_id=5),
    *(
        row
        for name in ("threshold_percentage", "remaining_percentage")
        for row in numbers("level", "POST", THRESHOLD, {}, name, least=1, most=100, can_be_null=True)
        if row.code != "must_be_positive"
    ),
    *(
        row
        for name, most in (("level", MOST), ("credit_limit_percentage", 10_000))
        for row in numbers("level", "POST", THRESHOLD, {}, name, least=1, most=most, can_be_null=True)
        if row.code != "must_be_positive"
    ),
    *(row for value in (0, -1, 101) for row in heard(f"{value} percent", "out_of_range", threshold_percentage=value)),
    *heard("two levels", field="remaining_percentage", threshold_percentage=90, remaining_percentage=10),
    at("a level of a payment", "POST", HOOK + "/subscribe/payment.failed", {"level": 5}, field="topic"),
    at("a balance's level of the credit limit", "POST", HOOK + "/subscribe/credit_limit", {"level": 5}, field="topic"),
    at("a level of everything", "POST", HOOK + "/subscribe/*", {"level": 5}, field="topic"),
    at("the denomination of a plan", "POST", HOOK + "/subscribe/plan.renewed", {"denomination": "x"}),
    *(
        at(f"left with {query}", "DELETE", f"{THRESHOLD}?{query}", None, code)
        for query, code in (
            ("level=x", "invalid_field"),
            ("level=0", "out_of_range"),
            ("level=-1", "invalid_field"),
            ("threshold_percentage=101", "out_of_range"),
            ("threshold_percentage=90&level=1", "invalid_field"),
            ("account_id=1", "invalid_field"),
            ("surprise=1", "unknown_field"),
            ("level=1&level=1", "invalid_field"),
            ("level=77", "not_found"),
            ("account_id=a_00000000", "not_found"),
        )
    ),
    at("an account that is not there", "POST", THRESHOLD, {"account_id": "a_00000000"}, "not_found"),
)

DELIVERY_ROWS: Final = (
    *bodies("rotation", "POST", HOOK + "/rotate_secret", can_be_none=True),
    *numbers(
        "rotation",
        *("POST", HOOK + "/rotate_secret", {}, "overlap_seconds"),
        least=0,
        most=604_800,
        can_be_null=False,
    ),
    *bodies("trial", "POST", HOOK + "/test", can_be_none=True),
    *(at(f"message {value!r}"[:40], "POST", HOOK + "/test", {"message": value}) for value in (5, "", " ", "x" * 501)),
    at("message with NUL", "POST", HOOK + "/test", {"message": "a\0b"}, "invalid_string"),
    at("a trial without an address", "POST", HOOKS + "/{silent}/test", {}, field="url"),
    *bodies("replay", "POST", HOOK + "/replay"),
    at("a replay of what", "POST", HOOK + "/replay", {}, "missing_field", "from_id"),
    *(
        at(f"a replay of {value!r}", "POST", HOOK + "/replay", {"status": value}, field="status")
        for value in ("waiting", "merged", "", "FAILED", 5)
    ),
    *(
        at(f"a replay with {field} {what}", "POST", HOOK + "/replay", {field: value}, field=field)
        for field in ("from_id", "to_id")
        for what, value in {"a number": 5, "empty": "", "an event": "{event}", "short": "wd_1"}.items()
    ),
    at("what is on its way is not sent again", "POST", LOGS + "/{notification}/replay", None, "not_found"),
    *(
        at(f"log by {query}", "GET", f"{LOGS}?{query}", None, code)
        for query, code in (
            ("status=gone", "invalid_field"),
            ("status=", "invalid_field"),
            ("account_id=x", "invalid_field"),
            ("limit=0", "invalid_field"),
            ("limit=1001", "invalid_field"),
            ("cursor=1", "invalid_cursor"),
            ("surprise=1", "unknown_field"),
        )
    ),
    *(
        at(f"notifications by {query}", "GET", f"{NOTIFICATIONS}?{query}", None, code)
        for query, code in (
            ("after=x", "invalid_field"),
            ("after=wd_1", "invalid_field"),
            ("after={event}", "invalid_field"),
            ("account_id=x", "invalid_field"),
            ("limit=x", "invalid_field"),
            ("cursor=x-y", "invalid_cursor"),
            ("status=failed", "unknown_field"),
        )
    ),
    at("a method that is none", "PATCH", HOOK, {}, "method_not_allowed"),
    at("notifications are not written", "POST", NOTIFICATIONS, {}, "method_not_allowed"),
)


def _body(method: str, path: str) -> object:
    if method not in {"POST", "PUT"} or "{notification}" in path:
        return None
    return {"status": "failed"} if path.endswith("/replay") else {}


NOWHERE_ROWS: Final = (
    *(
        at(f"{method} {path.rpartition('}')[2]} of {what}", method, path.replace("{webhook}", id), body, "not_found")
        for method, path in ALL_ROUTES
        for what, id in {"nobody": "w_00000000", "no id": "1", "an account": "{account}"}.items()
        for body in [_body(method, path)]
    ),
    *(
        at(f"{method} delivery{path} of {what}", method, f"{LOGS}/{id}{path}", None, "not_found")
        for method, path in (("GET", ""), ("POST", "/replay"))
        for what, id in {"nothing": "wd_000000000000000000", "no id": "1", "an event": "{event}"}.items()
    ),
    *(
        at(
            f"{method} {path.partition('}')[2]} of another company",
            method,
            path.replace("{company}", "c_00000000"),
            body,
            "not_found",
        )
        for method, path, body in (("GET", HOOKS, None), ("POST", HOOKS, {}), ("GET", NOTIFICATIONS, None))
    ),
)

WEBHOOKS: Final = (*HOOK_ROWS, *TOPIC_ROWS, *DELIVERY_ROWS, *NOWHERE_ROWS)
