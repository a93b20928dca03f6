"""Bad input, one row a case: what is sent, and the status and code it gets.

In paths and bodies ``{company}``, ``{account}``, ``{hold}``, ``{event}``, ``{price}`` and ``{key}`` stand for ids that
exist and belong to the caller. Rows of ``RAW`` are bytes for the socket, for what no client library would send.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple


class Bad(NamedTuple):
    """One bad request. ``field`` is the path that the refusal must name."""

    name: str
    method: str
    path: str
    body: object
    status: int
    code: str
    headers: Mapping[str, str | None] = {}
    field: str | None = None


class Raw(NamedTuple):
    """One bad request as bytes; ``statuses`` are those that will do, 0 for a closed connection."""

    name: str
    request: bytes
    statuses: tuple[int, ...]
    code: str | None = None


EVENTS: Final = "/v1/accounts/{account}/events"
ACCOUNTS: Final = "/v1/companies/{company}/accounts"
PRICES: Final = "/v1/companies/{company}/event_prices"
KEYS: Final = "/v1/companies/{company}/keys"
CLOCK: Final = "/v1/companies/{company}/clock"
HOLD: Final = "/v1/events/{hold}"
BALANCE: Final = "/v1/accounts/{account}/balance"
MIB: Final = 1_048_576


def unread(name: str, body: bytes, status: int = 400, code: str = "invalid_json") -> Bad:
    """A body that cannot be taken, whatever it means."""
    return Bad(f"body: {name}", "POST", EVENTS, body, status, code)


def event(name: str, code: str = "invalid_field", /, *, field: str | None = None, **fields: object) -> Bad:
    """An event with fields that do not fit."""
    return Bad(f"event: {name}", "POST", EVENTS, {"type": "CHAT", **fields}, 422, code, {}, field)


def price(name: str, code: str = "invalid_field", /, *, field: str | None = None, **terms: object) -> Bad:
    """A price whose terms do not fit."""
    body = {"type": "NEW", "denomination": "credits", "amount": "1", **terms}
    return Bad(f"price: {name}", "POST", PRICES, {k: v for k, v in body.items() if v is not ...}, 422, code, {}, field)


def account(name: str, code: str = "invalid_field", /, *, field: str | None = None, **fields: object) -> Bad:
    """An account whose fields do not fit."""
    body = {"name": "Eve", "email": "eve@example.com", **fields}
    return Bad(
        f"account: {name}", "POST", ACCOUNTS, {k: v for k, v in body.items() if v is not ...}, 422, code, {}, field
    )


def listing(name: str, query: str, status: int = 422, code: str = "invalid_field", path: str = EVENTS) -> Bad:
    """A list asked for wrongly."""
    return Bad(f"list: {name}", "GET", f"{path}?{query}", None, status, code)


def at(
    name: str, path: str, status: int = 404, code: str = "not_found", method: str = "GET", body: object = None
) -> Bad:
    """A path that leads nowhere."""
    return Bad(f"path: {name}", method, path, body, status, code)


def caller(name: str, header: str | None, path: str = "/v1/accounts/{account}") -> Bad:
    """Credentials that are none."""
    return Bad(f"caller: {name}", "GET", path, None, 401, "invalid_credentials", {"authorization": header})


def nested(depth: int) -> bytes:
    """An event whose metadata is that deep."""
    return b'{"type":"CHAT","metadata":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


def plain(text: str) -> bytes:
    return text.encode()


BODIES: Final = (
    unread("empty", b""),
    unread("spaces", b" \n\t "),
    unread("truncated", b'{"type":"CHAT"'),
    unread("trailing bytes", b'{"type":"CHAT"} x'),
    unread("two values", b'{"type":"CHAT"}{"type":"CHAT"}'),
    unread("trailing comma", b'{"type":"CHAT",}'),
    unread("single quotes", b"{'type':'CHAT'}"),
    unread("bare names", b'{type:"CHAT"}'),
    unread("a comment", b'{"type":"CHAT"/* hi */}'),
    unread("a raw newline in a text", b'{"type":"CHAT","key":"a\nb"}'),
    unread("a raw NUL", b'{"type":"CHAT","key":"a\x00b"}'),
    unread("NUL after the value", b'{"type":"CHAT"}\x00'),
    unread("NaN", b'{"type":"CHAT","quantity":NaN}'),
    unread("Infinity", b'{"type":"CHAT","quantity":Infinity}'),
    unread("minus Infinity", b'{"type":"CHAT","quantity":-Infinity}'),
    unread("NaN in metadata", b'{"type":"CHAT","metadata":{"price":NaN}}'),
    unread("leading zero", b'{"type":"CHAT","quantity":01}'),
    unread("plus sign", b'{"type":"CHAT","quantity":+1}'),
    unread("no digit before the point", b'{"type":"CHAT","quantity":.5}'),
    unread("hexadecimal", b'{"type":"CHAT","quantity":0x10}'),
    unread("BOM", b'\xef\xbb\xbf{"type":"CHAT"}'),
    unread("UTF-16", '{"type":"CHAT"}'.encode("utf-16")),
    unread("a form", b"type=CHAT&quantity=1"),
    unread("XML", b"<event><type>CHAT</type></event>"),
    unread("a gzip magic", b"\x1f\x8b\x08\x00"),
    unread("unknown escape", b'{"type":"CHAT","key":"\\x41"}'),
    unread("half an escape", b'{"type":"CHAT","key":"\\u00"}'),
    unread("invalid UTF-8", b'{"type":"CH\xff\xfeAT"}', 400, "invalid_encoding"),
    unread("overlong UTF-8", b'{"type":"CH\xc0\xafAT"}', 400, "invalid_encoding"),
    unread("UTF-8 of a surrogate", b'{"type":"CHAT","metadata":"\xed\xa0\x80"}', 400, "invalid_encoding"),
    unread("a lone high surrogate", b'{"type":"CHAT","metadata":"\\ud800"}'),
    unread("a lone low surrogate", b'{"type":"CHAT","metadata":{"\\udc00":1}}'),
    unread("escaped NUL", b'{"type":"CHAT","metadata":{"a":"\\u0000"}}', 422, "invalid_string"),
    unread("escaped NUL in a name", b'{"type":"CHAT","metadata":{"\\u0000":1}}', 422, "invalid_string"),
    unread("escaped NUL in the type", b'{"type":"CH\\u0000AT"}', 422, "invalid_string"),
    unread("a key twice", b'{"type":"CHAT","quantity":1,"quantity":-999}', 400, "duplicate_key"),
    unread("a key twice, equal values", b'{"type":"CHAT","quantity":1,"quantity":1}', 400, "duplicate_key"),
    unread("a key twice, one escaped", b'{"type":"CHAT","quantity":1,"qu\\u0061ntity":9}', 400, "duplicate_key"),
    unread("a key twice in metadata", b'{"type":"CHAT","metadata":{"a":{"b":1,"b":2}}}', 400, "duplicate_key"),
    unread("a key twice beside colons", b'{"type":"CHAT","metadata":{"a":"::","b":1,"b":2}}', 400, "duplicate_key"),
    unread(
        "a key twice, an escaped colon",
        b'{"type":"CHAT","quantity":1,"quantity":2,"key":"\\u003a"}',
        400,
        "duplicate_key",
    ),
    unread("a key twice in a list", b'[{"type":"CHAT"},{"type":"CHAT","type":"X"}]', 400, "duplicate_key"),
    unread("empty key twice", b'{"type":"CHAT","metadata":{"":1,"":2}}', 400, "duplicate_key"),
    unread("17 deep", nested(16), 422, "too_deep"),
    unread("900 deep", nested(900), 422, "too_deep"),
    unread("100,000 deep", b"[" * 100_000, 422, "too_deep"),
    unread("lists 17 deep", b'{"type":"CHAT","metadata":' + b"[" * 16 + b"]" * 16 + b"}", 422, "too_deep"),
    unread("null", b"null", 422, "invalid_field"),
    unread("a text", b'"CHAT"', 422, "invalid_field"),
    unread("a number", b"1", 422, "invalid_field"),
    unread("true", b"true", 422, "invalid_field"),
    unread("an empty list", b"[]", 422, "invalid_field"),
    unread("an empty object", b"{}", 422, "missing_field"),
    unread("a list in a list", b'[[{"type":"CHAT"}]]', 422, "invalid_field"),
    unread("null in a list", b'[{"type":"CHAT"},null]', 422, "invalid_field"),
    unread("1,001 events", json.dumps([{"type": "CHAT"}] * 1001).encode(), 422, "invalid_field"),
    unread("one byte more than 1 MiB", b" " * (MIB - 14) + b'{"type":"CHAT"}', 413, "body_too_large"),
    unread("a number of 1e400", b'{"type":"CHAT","metadata":{"a":1e400}}', 422, "out_of_range"),
    unread("minus 1e400", b'{"type":"CHAT","metadata":{"a":-1e400}}', 422, "out_of_range"),
    unread("a quantity of 1e400", b'{"type":"CHAT","quantity":1e400}', 422, "out_of_range"),
    unread(
        "a whole number of 5,000 digits", b'{"type":"CHAT","metadata":{"a":' + b"9" * 5000 + b"}}", 422, "out_of_range"
    ),
    unread(
        "5,000 digits beside an escape",
        b'{"type":"CHAT","metadata":{"a":' + b"9" * 5000 + b',"b":"\\n"}}',
        422,
        "out_of_range",
    ),
    unread("a quantity of 5,000 digits", b'{"type":"CHAT","quantity":' + b"9" * 5000 + b"}", 422, "out_of_range"),
    unread(
        "10,000 unknown fields",
        json.dumps({"type": "CHAT", **{f"f{n}": n for n in range(10_000)}}).encode(),
        422,
        "unknown_field",
    ),
)

EVENT_FIELDS: Final = (
    *(
        event(f"sets {name}", "unknown_field", field=name, **{name: value})
        for name, value in {
            "company_id": "c_00000000",
            "account_id": "a_00000000",
            "id": "e_000000000000000000",
            "balance": 5,
            "cost": {"amount": 0},
            "amount": 1,
            "created_at": "2030-01-01T00:00:00Z",
            "recorded_at": "2030-01-01T00:00:00Z",
            "transaction_id": "t_000000000000000000",
            "price_version_id": 1,
            "role": "owner",
            "__proto__": {},
            "constructor": {},
            "Type": "CHAT",
            "quantity ": 1,
            "": 1,
        }.items()
    ),
    Bad("event: no type", "POST", EVENTS, {"quantity": 1}, 422, "missing_field", {}, "type"),
    event("type is null", field="type", type=None),
    event("type is a number", field="type", type=1),
    event("type is a list", field="type", type=["CHAT"]),
    event("type is empty", field="type", type=""),
    event("type has a space", field="type", type="A B"),
    event("type has a tab", field="type", type="A\tB"),
    event("type has a no-break space", field="type", type="A\u00a0B"),
    event("type has an RTL override", field="type", type="A\u202eB"),
    event("type has a zero-width space", field="type", type="A\u200bB"),
    event("type has a control character", field="type", type="A\x07"),
    event("type of 129", field="type", type="x" * 129),
    *(
        event(f"quantity {value!r:.40}", code, field="quantity", quantity=value)
        for value, code in (
            (True, "invalid_field"),
            (False, "invalid_field"),
            (None, "invalid_field"),
            (1.5, "invalid_field"),
            (1e2, "invalid_field"),
            (-0.0, "invalid_field"),
            ([], "invalid_field"),
            ({}, "invalid_field"),
            (0, "must_be_positive"),
            (-1, "must_be_positive"),
            (-(2**63), "must_be_positive"),
            (2**53, "out_of_range"),
            (2**63 - 1, "out_of_range"),
            (2**63, "out_of_range"),
            (2**64, "out_of_range"),
            (10**30, "out_of_range"),
            ("", "invalid_field"),
            ("0", "must_be_positive"),
            ("0.0", "must_be_positive"),
            ("-1", "invalid_field"),
            ("+1", "invalid_field"),
            (" 1", "invalid_field"),
            ("1 ", "invalid_field"),
            ("1\n", "invalid_field"),
            ("1e3", "invalid_field"),
            ("0,1", "invalid_field"),
            ("1_000", "invalid_field"),
            ("0x10", "invalid_field"),
            ("NaN", "invalid_field"),
            ("Infinity", "invalid_field"),
            ("\u0661", "invalid_field"),
            ("\uff11", "invalid_field"),
            (".5", "invalid_field"),
            ("1.", "invalid_field"),
            ("1.1.1", "invalid_field"),
            ("0.0000000001", "invalid_field"),
            ("0." + "1" * 40, "invalid_field"),
            ("9" * 17, "invalid_field"),
            ("9999999999999999", "out_of_range"),
        )
    ),
    Bad(
        "event: quantity -0", "POST", EVENTS, b'{"type":"CHAT","quantity":-0}', 422, "must_be_positive", {}, "quantity"
    ),
    event("key is empty", field="key", key=""),
    event("key is a number", field="key", key=7),
    event("key of 256", field="key", key="k" * 256),
    event("key is not ASCII", field="key", key="clé"),
    event("key has a newline", field="key", key="a\nb"),
    event("key has a combining mark", field="key", key="e\u0301"),
    event("key is an emoji", field="key", key="\U0001f4b8"),
    event("gate is a number", field="gate_on_balance", gate_on_balance=1),
    event("gate is a text", field="gate_on_balance", gate_on_balance="true"),
    event("gate is null", field="gate_on_balance", gate_on_balance=None),
    event("state is unknown", field="state", state="done"),
    event("state in capitals", field="state", state="PENDING"),
    event("state is null", field="state", state=None),
    event("tag is unknown", field="tag", tag="gift"),
    event("tag is a number", field="tag", tag=0),
    event("dry_run is a text", field="dry_run", dry_run="yes"),
    event("no zone", "zone_required", field="occurred_at", occurred_at="2026-03-08T02:30:00"),
    event("a date alone", field="occurred_at", occurred_at="2026-03-08"),
    event("a number of seconds", field="occurred_at", occurred_at=1767225600),
    event("words for a time", field="occurred_at", occurred_at="yesterday"),
    event("no time of day", field="occurred_at", occurred_at="2026-03-08T"),
    event("a zone by name", field="occurred_at", occurred_at="2026-03-08T02:30:00 EST"),
    event("a zone of another planet", field="occurred_at", occurred_at="2026-03-08T02:30:00[Mars/Base]"),
    event("Z and more", field="occurred_at", occurred_at="2026-03-08T02:30:00Z+1"),
    event("30 February", field="occurred_at", occurred_at="2026-02-30T00:00:00Z"),
    event("the 13th month", field="occurred_at", occurred_at="2026-13-01T00:00:00Z"),
    event("25 o'clock", field="occurred_at", occurred_at="2026-01-01T25:00:00Z"),
    event("a leap second", field="occurred_at", occurred_at="2026-06-30T23:59:60Z"),
    event("year 0", field="occurred_at", occurred_at="0000-01-01T00:00:00Z"),
    event("year 10000", field="occurred_at", occurred_at="10000-01-01T00:00:00Z"),
    event("Arabic digits", field="occurred_at", occurred_at="\u0662026-01-01T00:00:00Z"),
    event("offset of 25 hours", "unknown_zone", field="occurred_at", occurred_at="2026-03-08T02:30:00+25:00"),
    event("offset of 99 minutes", "unknown_zone", field="occurred_at", occurred_at="2026-03-08T02:30:00+01:99"),
    event("past the last year", "out_of_range", field="occurred_at", occurred_at="9999-12-31T23:59:59-14:00"),
    event("before the first year", "out_of_range", field="occurred_at", occurred_at="0001-01-01T00:00:00+14:00"),
    event("far ahead", "in_future", field="occurred_at", occurred_at="2099-01-01T00:00:00Z"),
    event("far back", "too_late", field="occurred_at", occurred_at="2001-01-01T00:00:00Z"),
    event("an amount alone", "missing_field", field="cost_override_denomination", cost_override_amount=1),
    event("a denomination alone", "missing_field", field="cost_override_amount", cost_override_denomination="credits"),
    *(
        event(
            f"override {amount!r}",
            code,
            field="cost_override_amount",
            cost_override_amount=amount,
            cost_override_denomination="credits",
        )
        for amount, code in (
            (-1, "out_of_range"),
            (10**15 + 1, "out_of_range"),
            (2**63, "out_of_range"),
            ("5", "invalid_field"),
            (1.5, "invalid_field"),
            (True, "invalid_field"),
        )
    ),
    *(
        event(
            f"override in {name!r:.20}",
            field="cost_override_denomination",
            cost_override_amount=1,
            cost_override_denomination=name,
        )
        for name in ("", "two words", "tökens", "a\u0301", "x" * 65, "a\tb", 5)
    ),
    event(
        "both spellings",
        cost_override_amount=1,
        cost_override_denomination="credits",
        cost_override={"amount": 1, "denomination": "credits"},
    ),
    event("nested without amount", "missing_field", cost_override={"denomination": "credits"}),
    event(
        "nested with more",
        "unknown_field",
        field="cost_override.unit",
        cost_override={"amount": 1, "denomination": "credits", "unit": 1},
    ),
    event("nested is a number", field="cost_override", cost_override=5),
    event("cogs below zero", "out_of_range", field="cogs_amount", cogs_amount=-1),
    event("cogs in two spellings", cogs=1, cogs_amount=1),
    event("cogs denomination alone", "missing_field", cogs_denomination="USD"),
    event("cogs as text", cogs_amount="1"),
    event("parent is no id", field="parent_event_id", parent_event_id="x"),
    event("parent of another account", field="parent_event_id", parent_event_id="e_000000000000000000"),
    event("parent is a number", field="parent_event_id", parent_event_id=1),
    event("metadata of more than 16 kB", field="metadata", metadata={"a": "x" * 16_400}),
    Bad(
        "event: one bad among 100",
        "POST",
        EVENTS,
        [{"type": "CHAT"}] * 99 + [{"type": "CHAT", "quantity": 0}],
        422,
        "must_be_positive",
        {},
        "events[99].quantity",
    ),
    Bad(
        "event: one unknown field in a list",
        "POST",
        EVENTS,
        [{"type": "A"}, {"type": "A", "x": 1}],
        422,
        "unknown_field",
    ),
    Bad(
        "event: some dry",
        "POST",
        EVENTS,
        [{"type": "A"}, {"type": "A", "dry_run": True}],
        422,
        "invalid_field",
        {},
        "dry_run",
    ),
    Bad(
        "event: a key twice with other bodies",
        "POST",
        EVENTS,
        [{"type": "CHAT", "key": "twice"}, {"type": "CHAT", "key": "twice", "quantity": 2}],
        422,
        "key_reused",
    ),
    Bad(
        "event: a cost above 10^15",
        "POST",
        EVENTS,
        {"type": "CHAT", "quantity": 10**15},
        422,
        "out_of_range",
    ),
)

CLOUD: Final = {"content-type": "application/cloudevents+json"}
CLOUD_BATCH: Final = {"content-type": "application/cloudevents-batch+json"}
CLOUD_EVENT: Final = {"specversion": "1.0", "id": "c1", "source": "/x", "type": "CHAT"}
CLOUD_EVENTS: Final = (
    Bad(
        "cloud: no source", "POST", EVENTS, {"specversion": "1.0", "id": "1", "type": "A"}, 422, "missing_field", CLOUD
    ),
    Bad("cloud: other version", "POST", EVENTS, {**CLOUD_EVENT, "specversion": "0.3"}, 422, "invalid_field", CLOUD),
    Bad("cloud: id is a number", "POST", EVENTS, {**CLOUD_EVENT, "id": 1}, 422, "invalid_field", CLOUD),
    Bad("cloud: id is not ASCII", "POST", EVENTS, {**CLOUD_EVENT, "id": "é"}, 422, "invalid_field", CLOUD),
    Bad("cloud: type with a space", "POST", EVENTS, {**CLOUD_EVENT, "type": "a b"}, 422, "invalid_field", CLOUD),
    Bad(
        "cloud: time without zone",
        "POST",
        EVENTS,
        {**CLOUD_EVENT, "time": "2030-01-01T00:00:00"},
        422,
        "zone_required",
        CLOUD,
    ),
    Bad(
        "cloud: bad quantity", "POST", EVENTS, {**CLOUD_EVENT, "data": {"quantity": 0}}, 422, "must_be_positive", CLOUD
    ),
    Bad(
        "cloud: quantity of a wrong kind",
        "POST",
        EVENTS,
        {**CLOUD_EVENT, "data": {"quantity": True}},
        422,
        "invalid_field",
        CLOUD,
    ),
    Bad("cloud: a list as one", "POST", EVENTS, [CLOUD_EVENT], 422, "invalid_field", CLOUD),
    Bad("cloud: one as a batch", "POST", EVENTS, CLOUD_EVENT, 422, "invalid_field", CLOUD_BATCH),
    Bad("cloud: an empty batch", "POST", EVENTS, [], 422, "invalid_field", CLOUD_BATCH),
    Bad("cloud: 1,001 of them", "POST", EVENTS, [CLOUD_EVENT] * 1001, 422, "invalid_field", CLOUD_BATCH),
    Bad(
        "cloud: on another route",
        "POST",
        ACCOUNTS,
        {"name": "A", "email": "a@b.c"},
        415,
        "unsupported_media_type",
        CLOUD,
    ),
)

MEDIA: Final = tuple(
    Bad(f"media: {kind}", "POST", path, b'{"type":"CHAT"}', 415, "unsupported_media_type", {"content-type": kind})
    for path in (EVENTS, ACCOUNTS)
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json-seq",
        "text/json",
        "application/xml",
        "json",
        "*/*",
        "",
    )
)

SETTLEMENTS: Final = tuple(
    Bad(f"settlement: {name}", "PUT", HOLD, body, status, code)
    for name, body, status, code in (
        ("nothing", b"", 400, "invalid_json"),
        ("not JSON", b"{", 400, "invalid_json"),
        ("NaN", b'{"state":"complete","quantity":NaN}', 400, "invalid_json"),
        ("state twice", b'{"state":"cancelled","state":"complete"}', 400, "duplicate_key"),
        ("no state", {}, 422, "missing_field"),
        ("pending again", {"state": "pending"}, 422, "invalid_field"),
        ("unknown state", {"state": "posted"}, 422, "invalid_field"),
        ("a number for a state", {"state": 1}, 422, "invalid_field"),
        ("null for a state", {"state": None}, 422, "invalid_field"),
        ("unknown field", {"state": "complete", "amount": 1}, 422, "unknown_field"),
        ("type changed", {"state": "complete", "type": "X"}, 422, "unknown_field"),
        ("quantity 0", {"state": "complete", "quantity": 0}, 422, "must_be_positive"),
        ("quantity below 0", {"state": "complete", "quantity": -1}, 422, "must_be_positive"),
        ("quantity true", {"state": "complete", "quantity": True}, 422, "invalid_field"),
        ("quantity a fraction", {"state": "complete", "quantity": 0.5}, 422, "invalid_field"),
        ("above the reserve", {"state": "complete", "quantity": 3}, 422, "exceeds_reserved"),
        ("far above the reserve", {"state": "complete", "quantity": 10**15}, 422, "exceeds_reserved"),
        ("override above the reserve", {"state": "complete", "cost_override_amount": 7}, 422, "exceeds_reserved"),
        ("override below zero", {"state": "complete", "cost_override_amount": -1}, 422, "out_of_range"),
        (
            "override and quantity",
            {"state": "complete", "quantity": 1, "cost_override_amount": 1},
            422,
            "invalid_field",
        ),
        ("cancelled with quantity", {"state": "cancelled", "quantity": 1}, 422, "invalid_field"),
        ("a list", [{"state": "complete"}], 422, "invalid_field"),
    )
)

ACCOUNT_FIELDS: Final = (
    account("no name", "missing_field", field="name", name=...),
    account("no address", "missing_field", field="email", email=...),
    account("name is null", field="name", name=None),
    account("name is a number", field="name", name=5),
    account("name is empty", field="name", name=""),
    account("name is only spaces", field="name", name="   "),
    account("name of 201", field="name", name="x" * 201),
    account("name of 10 kB", field="name", name="x" * 10_000),
    account("name holds NUL", "invalid_string", name="a\0b"),
    *(
        account(f"address {value!r:.30}", field="email", email=value)
        for value in (
            "",
            "x",
            "@",
            "a@",
            "@b",
            "a@b@c",
            "a b@c.d",
            "a@.c",
            "a@c..d",
            "a\n@b.c",
            f"{'x' * 65}@b.c",
            f"a@{'x' * 260}.c",
            5,
        )
    ),
    account("unknown field", "unknown_field", field="company", company="c_00000000"),
    account("sets its id", "unknown_field", field="id", id="a_00000000"),
    account("sets its company", "unknown_field", field="company_id", company_id="c_00000000"),
    account("sets its balance", "unknown_field", field="balance", balance=10),
    account("is paused", "unknown_field", field="paused", paused=True),
    account("limit below zero", "out_of_range", field="credit_limit", credit_limit=-1),
    account("limit above 10^15", "out_of_range", field="credit_limit", credit_limit=10**15 + 1),
    account("limit true", field="credit_limit", credit_limit=True),
    account("limit as text", field="credit_limit", credit_limit="10"),
    account("limit a fraction", field="credit_limit", credit_limit=1.5),
    account("Stripe id with a space", field="stripe_id", stripe_id="cus 1"),
    account("Stripe id empty", field="stripe_id", stripe_id=""),
    account("metadata of more than 16 kB", field="metadata", metadata=["x" * 16_400]),
    account("metadata holds NUL", "invalid_string", metadata={"a": "\0"}),
    account("asks for an address", "not_supported_yet", field="billing_address_id", billing_address_id="b_00000000"),
    Bad("account: a list", "POST", ACCOUNTS, [{"name": "A", "email": "a@b.c"}], 422, "invalid_field"),
    Bad("account: edited name null byte", "PUT", "/v1/accounts/{account}", {"name": "\0"}, 422, "invalid_string"),
    Bad("account: edited name empty", "PUT", "/v1/accounts/{account}", {"name": ""}, 422, "invalid_field", {}, "name"),
    Bad("account: edited id", "PUT", "/v1/accounts/{account}", {"id": "a_00000000"}, 422, "unknown_field", {}, "id"),
    Bad("account: edited plan", "PUT", "/v1/accounts/{account}", {"plan_id": "p_00000000"}, 422, "unknown_field"),
    Bad("account: edited limit", "PUT", "/v1/accounts/{account}", {"credit_limit": -5}, 422, "out_of_range"),
    Bad("account: edited by nothing", "PUT", "/v1/accounts/{account}", b"", 400, "invalid_json"),
)

BALANCES: Final = (
    Bad("balance: exists", "POST", BALANCE + "/credits", {"amount": 5}, 409, "balance_exists"),
    Bad("balance: amount as text", "POST", BALANCE + "/new", {"amount": "5"}, 422, "invalid_field", {}, "amount"),
    Bad("balance: amount true", "POST", BALANCE + "/new", {"amount": True}, 422, "invalid_field", {}, "amount"),
    Bad("balance: amount a fraction", "POST", BALANCE + "/new", {"amount": 0.1}, 422, "invalid_field", {}, "amount"),
    Bad("balance: amount null", "POST", BALANCE + "/new", {"amount": None}, 422, "invalid_field", {}, "amount"),
    Bad("balance: amount above 10^15", "POST", BALANCE + "/new", {"amount": 10**15 + 1}, 422, "out_of_range"),
    Bad("balance: limit below zero", "POST", BALANCE + "/new", {"credit_limit": -1}, 422, "out_of_range"),
    Bad("balance: sets pending", "POST", BALANCE + "/new", {"pending": 1}, 422, "unknown_field", {}, "pending"),
    Bad("balance: not JSON", "POST", BALANCE + "/new", b"{", 400, "invalid_json"),
    Bad("balance: name with a space", "POST", BALANCE + "/two%20words", {}, 422, "invalid_field"),
    Bad("balance: name with NUL", "POST", BALANCE + "/a%00b", {}, 422, "invalid_field"),
    Bad("balance: name not ASCII", "POST", BALANCE + "/t%C3%B6kens", {}, 422, "invalid_field"),
    Bad("balance: name not UTF-8", "POST", BALANCE + "/%ff%fe", {}, 422, "invalid_field"),
    Bad("balance: name of 65", "POST", BALANCE + "/" + "x" * 65, {}, 422, "invalid_field"),
    Bad("balance: limit of none there", "PUT", BALANCE + "/none", {"credit_limit": 5}, 404, "not_found"),
    Bad("balance: limit missing", "PUT", BALANCE + "/credits", {}, 422, "missing_field"),
    Bad("balance: limit as text", "PUT", BALANCE + "/credits", {"credit_limit": "5"}, 422, "invalid_field"),
    Bad(
        "balance: limit set with amount",
        "PUT",
        BALANCE + "/credits",
        {"credit_limit": 5, "amount": 5},
        422,
        "unknown_field",
    ),
    Bad("adjust: nothing", "POST", BALANCE + "/credits/adjust", {"amount": 0}, 422, "invalid_field", {}, "amount"),
    Bad(
        "adjust: amount missing",
        "POST",
        BALANCE + "/credits/adjust",
        {"reason": "x"},
        422,
        "missing_field",
        {},
        "amount",
    ),
    Bad("adjust: amount as text", "POST", BALANCE + "/credits/adjust", {"amount": "1"}, 422, "invalid_field"),
    Bad("adjust: above 10^15", "POST", BALANCE + "/credits/adjust", {"amount": 10**15 + 1}, 422, "out_of_range"),
    Bad("adjust: below -10^15", "POST", BALANCE + "/credits/adjust", {"amount": -(10**15) - 1}, 422, "out_of_range"),
    Bad("adjust: reason empty", "POST", BALANCE + "/credits/adjust", {"amount": 1, "reason": ""}, 422, "invalid_field"),
    Bad(
        "adjust: reason of 501",
        "POST",
        BALANCE + "/credits/adjust",
        {"amount": 1, "reason": "x" * 501},
        422,
        "invalid_field",
    ),
    Bad(
        "adjust: unknown field",
        "POST",
        BALANCE + "/credits/adjust",
        {"amount": 1, "book": "usage"},
        422,
        "unknown_field",
    ),
)

PRICE_TERMS: Final = (
    price("no type", "missing_field", field="type", type=...),
    price("no denomination", "missing_field", field="denomination", denomination=...),
    price("type with a space", field="type", type="A B"),
    price("denomination with a space", field="denomination", denomination="a b"),
    price("no amount", "missing_field", field="amount", amount=...),
    *(
        price(f"amount {value!r:.30}", code, amount=value)
        for value, code in (
            (-1, "invalid_field"),
            ("-1", "invalid_field"),
            (True, "invalid_field"),
            ("", "invalid_field"),
            (" 1", "invalid_field"),
            ("1,5", "invalid_field"),
            ("1_0", "invalid_field"),
            ("1e3", "invalid_field"),
            ("NaN", "invalid_field"),
            ("\u0661", "invalid_field"),
            ("0." + "1" * 13, "invalid_field"),
            ("9" * 16, "out_of_range"),
            ([], "invalid_field"),
            ({"amount": 1}, "invalid_field"),
        )
    ),
    Bad(
        "price: amount 1e2",
        "POST",
        PRICES,
        b'{"type":"NEW","denomination":"credits","amount":1e2}',
        422,
        "invalid_field",
    ),
    price("per 0", "must_be_positive", field="per", per=0),
    price("per -1", "must_be_positive", field="per", per=-1),
    price("per 11", field="per", per=11),
    price("per 10^13", "out_of_range", field="per", per=10**13),
    price("per as text", field="per", per="1000"),
    price("per a fraction", field="per", per=0.5),
    price("unknown model", field="model", model="tiered"),
    price("graduated without tiers", model="graduated", amount=...),
    price("volume with an empty list", model="volume", amount=..., tiers=[]),
    price("tiers beside per_unit", tiers=[{"up_to": None, "amount": "1"}]),
    price("tiers and amount", model="graduated", tiers=[{"up_to": None, "amount": "1"}]),
    price("the last tier ends", model="graduated", amount=..., tiers=[{"up_to": 10, "amount": "1"}]),
    price("two endless tiers", model="graduated", amount=..., tiers=[{"up_to": None, "amount": "1"}] * 2),
    price(
        "tiers fall",
        model="graduated",
        amount=...,
        tiers=[{"up_to": 10, "amount": "1"}, {"up_to": 5, "amount": "1"}, {"up_to": None, "amount": "1"}],
    ),
    price(
        "a tier up to 0",
        "must_be_positive",
        model="graduated",
        amount=...,
        tiers=[{"up_to": 0, "amount": "1"}, {"up_to": None, "amount": "1"}],
    ),
    price("a tier without amount", "missing_field", model="graduated", amount=..., tiers=[{"up_to": None}]),
    price("a tier with null", "missing_field", model="graduated", amount=..., tiers=[{"up_to": None, "amount": None}]),
    price(
        "a tier with more",
        "unknown_field",
        model="graduated",
        amount=...,
        tiers=[{"up_to": None, "amount": "1", "flat": 1}],
    ),
    price(
        "101 tiers",
        model="graduated",
        amount=...,
        tiers=[{"up_to": n, "amount": "1"} for n in range(1, 101)] + [{"up_to": None, "amount": "1"}],
    ),
    price("free units below zero", "out_of_range", field="free_units", free_units=-1),
    price("minimum above cap", minimum="5", cap="4"),
    price("minimum below zero", minimum="-1"),
    price("maximum billing as text", max_value_billing="yes"),
    price("match is a list", field="match", match=[]),
    price("match on an object", match={"a": {"b": 1}}),
    price("match on a fraction", match={"a": 0.5}),
    price("match on eleven", match={f"p{n}": 1 for n in range(11)}),
    price("match on a long text", match={"a": "x" * 201}),
    price("match on a whole number that cannot be kept", "invalid_field", match={"a": 10**400}),
    price("unknown field", "unknown_field", field="unit_cost", unit_cost=5),
    price("sets its version", "unknown_field", field="version", version=9),
    Bad(
        "price: exists", "POST", PRICES, {"type": "CHAT", "denomination": "credits", "amount": "9"}, 409, "price_exists"
    ),
    Bad("price: change of type", "PUT", PRICES + "/{price}", {"type": "X"}, 422, "unknown_field"),
    Bad("price: change to unknown model", "PUT", PRICES + "/{price}", {"model": "x"}, 422, "invalid_field"),
    Bad("price: change to per 0", "PUT", PRICES + "/{price}", {"per": 0}, 422, "must_be_positive"),
    Bad("price: change to no amount", "PUT", PRICES + "/{price}", {"amount": None}, 422, "missing_field"),
    Bad("price: change to graduated alone", "PUT", PRICES + "/{price}", {"model": "graduated"}, 422, "invalid_field"),
)

COMPANY: Final = {"name": "Evil", "email": "e@example.com", "password": "a long passphrase"}
COMPANIES: Final = (
    *(
        Bad(f"company: {name}", "POST", "/v1/companies", {**COMPANY, **fields}, 422, code)
        for name, fields, code in (
            ("name empty", {"name": ""}, "invalid_field"),
            ("name of 10 kB", {"name": "x" * 10_000}, "invalid_field"),
            ("name with NUL", {"name": "a\0"}, "invalid_string"),
            ("name a list", {"name": []}, "invalid_field"),
            ("address without @", {"email": "x"}, "invalid_field"),
            ("password of 11", {"password": "x" * 11}, "invalid_field"),
            ("password of 4 kB", {"password": "x" * 4096}, "invalid_field"),
            ("password with NUL", {"password": "long enough\0 and more"}, "invalid_string"),
            ("password a number", {"password": 123456789012}, "invalid_field"),
            ("sets its id", {"id": "c_00000000"}, "unknown_field"),
            ("asks for live", {"mode": "live"}, "unknown_field"),
        )
    ),
    Bad("company: no password", "POST", "/v1/companies", {"name": "A", "email": "a@b.c"}, 422, "missing_field"),
    Bad("company: no body", "POST", "/v1/companies", b"", 400, "invalid_json"),
    *(
        Bad(f"settings: {name}", "PUT", "/v1/companies/{company}", body, 422, code)
        for name, body, code in (
            ("zone on Mars", {"time_zone": "Mars/Base"}, "unknown_zone"),
            ("zone as a path", {"time_zone": "../../etc/passwd"}, "unknown_zone"),
            ("zone absolute", {"time_zone": "/etc/localtime"}, "unknown_zone"),
            ("zone empty", {"time_zone": ""}, "unknown_zone"),
            ("zone with NUL", {"time_zone": "UTC\0"}, "invalid_string"),
            ("zone as an offset", {"time_zone": "+02:00"}, "unknown_zone"),
            ("limit below zero", {"default_credit_limit": -1}, "out_of_range"),
            ("limit of 2^63", {"default_credit_limit": 2**63}, "out_of_range"),
            ("late below zero", {"late_event_seconds": -1}, "out_of_range"),
            ("late by a century", {"late_event_seconds": 10**10}, "out_of_range"),
            ("ahead by a week", {"ahead_event_seconds": 604_800}, "out_of_range"),
            ("name empty", {"name": ""}, "invalid_field"),
            ("mode", {"mode": "live"}, "unknown_field"),
        )
    ),
    *(
        Bad(f"clock: {name}", "POST", CLOCK, body, 422, code)
        for name, body, code in (
            ("nothing", {}, "invalid_field"),
            ("both", {"advance_seconds": 1, "now": "2098-01-01T00:00:00Z"}, "invalid_field"),
            ("zero", {"advance_seconds": 0}, "must_be_positive"),
            ("back", {"advance_seconds": -1}, "must_be_positive"),
            ("a fraction", {"advance_seconds": 0.5}, "invalid_field"),
            ("a century", {"advance_seconds": 3_200_000_001}, "out_of_range"),
            ("past 2099", {"advance_seconds": 3_200_000_000}, "out_of_range"),
            ("into the past", {"now": "2001-01-01T00:00:00Z"}, "clock_not_forward"),
            ("past 2099 by date", {"now": "2099-01-02T00:00:00Z"}, "out_of_range"),
            ("past all dates", {"now": "9999-12-31T23:59:59-14:00"}, "out_of_range"),
            ("without zone", {"now": "2098-01-01T00:00:00"}, "zone_required"),
        )
    ),
    *(
        Bad(f"key: {name}", "POST", KEYS, body, 422, code)
        for name, body, code in (
            ("no scopes", {"scopes": []}, "invalid_field"),
            ("unknown scope", {"scopes": ["events:write", "root"]}, "invalid_field"),
            ("scopes as text", {"scopes": "events:write"}, "invalid_field"),
            ("mode unknown", {"mode": "prod"}, "invalid_field"),
            ("name of 201", {"name": "x" * 201}, "invalid_field"),
            ("ends in the past", {"expires_at": "2001-01-01T00:00:00Z"}, "invalid_field"),
            ("ends without zone", {"expires_at": "2098-01-01T00:00:00"}, "zone_required"),
            ("chooses its secret", {"api_key": "sk_test_x"}, "unknown_field"),
        )
    ),
    Bad("key: the last one revoked", "DELETE", KEYS + "/{key}", None, 409, "last_key"),
)

LISTINGS: Final = (
    *(
        listing(f"limit {value!r:.20}", f"limit={value}", path=path)
        for path in (EVENTS, ACCOUNTS)
        for value in (
            "0",
            "-1",
            "1001",
            "abc",
            "",
            "1.5",
            "1e2",
            "+5",
            "%EF%BC%91",
            "99999999999999999999",
            "0x10",
            "NaN",
            "true",
            "5%00",
        )
    ),
    *(
        listing(f"cursor {value[:20]!r}", f"cursor={value}", 400, "invalid_cursor", path)
        for path in (
            EVENTS,
            ACCOUNTS,
            PRICES,
            "/v1/companies/{company}/transactions",
            "/v1/accounts/{account}/gated_events",
            KEYS,
        )
        for value in (
            "",
            "x",
            "0",
            "1-2-3",
            "a-b-000000000000",
            "%00",
            "zzzzzzzzzzzzzzzz-1-aaaaaaaaaaaa",
            "'%20OR%201=1--",
            "x" * 4000,
            "-1-1-abcdefabcdef",
        )
    ),
    listing("limit twice", "limit=1&limit=2"),
    listing("cursor twice", "cursor=a&cursor=b"),
    listing("unknown parameter", "sort=amount;drop", code="unknown_field"),
    listing("offset", "offset=-5", code="unknown_field"),
    listing("another company", "company_id=c_00000000", code="unknown_field"),
    listing("key in the query", "api_key=sk_test_x", code="unknown_field"),
    listing("state unknown", "state=posted"),
    listing("gated unknown", "gated=1"),
    listing("tag unknown", "tag=gift"),
    listing("from without zone", "from=2026-01-01T00:00:00", code="zone_required"),
    listing("from is no time", "from=now"),
    listing("to out of range", "to=9999-12-31T23:59:59-14:00", code="out_of_range"),
    listing("type of 301", f"type={'x' * 301}"),
    listing("type with NUL", "type=a%00b", code="invalid_string"),
    listing("name with NUL", "name=%00", code="invalid_string", path=ACCOUNTS),
    listing("parent is no id", "parent_event_id=x"),
    listing("account is no id", "account_id=x", path="/v1/companies/{company}/events"),
    listing("not UTF-8", "type=%ff%fe", 400, "invalid_encoding"),
    listing("51 parameters", "&".join(f"p{n}=1" for n in range(51)), 400, "invalid_encoding"),
    listing("10,000 parameters", "&".join("a=1" for _ in range(10_000)), 414, "uri_too_long"),
    listing("64 kB of query", f"type={'x' * 65_000}", 414, "uri_too_long"),
    listing("parameter on one object", "limit=5", code="unknown_field", path="/v1/accounts/{account}"),
)

INJECTIONS: Final = (
    "'%20OR%201=1--",
    ";select%20pg_sleep(5)",
    "%27",
    "%22",
    "$%7B7*7%7D",
    "%7B%7B7*7%7D%7D",
    "a_0000000",
    "a_000000000",
    "A_00000000",
    "a_0000000O",
    "a_00000000",
    "a_%00000000",
    "e_00000000",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "%ff%fe",
    "%E2%80%AE",
    "-1",
    "0",
    "null",
    "undefined",
    "*",
    "x" * 3000,
)
PATHS: Final = (
    *(at(f"account {text[:24]}", f"/v1/accounts/{text}") for text in INJECTIONS),
    *(at(f"balance of account {text[:24]}", f"/v1/accounts/{text}/balance/credits") for text in INJECTIONS),
    *(at(f"event {text[:24]}", f"/v1/events/{text}") for text in INJECTIONS),
    *(
        at(f"events for {text[:24]}", f"/v1/accounts/{text}/events", method="POST", body={"type": "CHAT"})
        for text in INJECTIONS
    ),
    *(at(f"company {text[:24]}", f"/v1/companies/{text}/accounts") for text in INJECTIONS[:6]),
    *(at(f"price {text[:24]}", PRICES + f"/{text}") for text in INJECTIONS[:6]),
    *(at(f"key {text[:24]}", KEYS + f"/{text}", method="DELETE") for text in INJECTIONS[:6]),
    at("settling an unknown event", "/v1/events/e_000000000000000000", method="PUT", body={"state": "complete"}),
    at("settling what is no id", "/v1/events/x", method="PUT", body={"state": "complete"}),
    at("deleting an unknown event", "/v1/events/e_000000000000000000", method="DELETE"),
    at("deleting with rubbish in the body", "/v1/events/e_000000000000000000", method="DELETE", body=b"{"),
    at("explaining an unknown event", "/v1/events/e_000000000000000000/explain"),
    at("a balance that is not there", BALANCE + "/none"),
    at("root of the API", "/v1"),
    at("nothing", "/v1/nothing"),
    at("another version", "/v2/accounts/{account}"),
    at("version twice", "/v1/v1/accounts/{account}"),
    at("one too many", "/v1/accounts/{account}/balance/credits/x/y"),
    at("capitals", "/V1/Accounts/{account}"),
    at("a file", "/v1/../../etc/passwd"),
    at("longer than 8 kB", "/v1/accounts/" + "x" * 9000, 414, "uri_too_long"),
    at("a balance name longer than 8 kB", BALANCE + "/" + "x" * 9000, 414, "uri_too_long"),
    *(
        at(f"{method} {path}", path, 405, "method_not_allowed", method)
        for method, path in (
            ("PATCH", EVENTS),
            ("PUT", EVENTS),
            ("DELETE", EVENTS),
            ("POST", "/v1/events/{event}"),
            ("PATCH", "/v1/events/{event}"),
            ("DELETE", BALANCE + "/credits"),
            ("PATCH", "/v1/accounts/{account}"),
            ("DELETE", "/v1/accounts/{account}"),
            ("POST", "/v1/accounts/{account}"),
            ("GET", "/v1/companies"),
            ("DELETE", "/v1/companies/{company}"),
            ("PUT", KEYS),
            ("TRACE", "/v1/accounts/{account}"),
        )
    ),
)

UNKNOWN_KEY: Final = "sk_test_00000000_" + "0" * 49
CALLERS: Final = (
    caller("no header", None),
    caller("empty", ""),
    caller("Basic alone", "Basic"),
    caller("Basic and a space", "Basic "),
    caller("bad base64", "Basic !!!!"),
    caller("base64 cut", "Basic YTpi="),
    caller("no colon", "Basic YWJj"),
    caller("empty user", "Basic OnNr"),
    caller("empty password", "Basic Y18wMDAwMDAwMDo="),
    caller("not UTF-8", "Basic //79OmE="),
    caller("64 kB", "Basic " + "A" * 65_000),
    caller("60 kB of Bearer", "Bearer " + "a" * 60_000),
    caller("Bearer alone", "Bearer"),
    caller("Bearer of an unknown key", f"Bearer {UNKNOWN_KEY}"),
    caller("a key cut short", "Bearer sk_test_00000000_0"),
    caller("a key of another prefix", "Bearer pk_test_00000000_" + "0" * 49),
    caller("a JWT", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."),
    caller("two keys", f"Bearer {UNKNOWN_KEY} {UNKNOWN_KEY}"),
    caller("another scheme", "Digest username=x"),
    caller("Token", f"Token {UNKNOWN_KEY}"),
    caller("key in the query", None, "/v1/accounts/{account}?api_key=sk_test_x"),
    caller("no header on a hot route", None, BALANCE + "/credits"),
    caller("an unknown key on a hot route", f"Bearer {UNKNOWN_KEY}", BALANCE + "/credits"),
    Bad(
        "caller: none, sending events",
        "POST",
        EVENTS,
        {"type": "CHAT"},
        401,
        "invalid_credentials",
        {"authorization": None},
    ),
    Bad("caller: none, sending rubbish", "POST", EVENTS, b"{", 401, "invalid_credentials", {"authorization": None}),
    Bad(
        "caller: none, of no content type",
        "POST",
        EVENTS,
        b"x",
        401,
        "invalid_credentials",
        {"authorization": None, "content-type": "text/plain"},
    ),
    Bad(
        "caller: none, settling",
        "PUT",
        HOLD,
        {"state": "complete"},
        401,
        "invalid_credentials",
        {"authorization": None},
    ),
    Bad(
        "caller: session cookie",
        "GET",
        "/v1/accounts/{account}",
        None,
        401,
        "invalid_credentials",
        {"authorization": None, "cookie": "session=x"},
    ),
    Bad(
        "caller: forged company header",
        "GET",
        "/v1/accounts/{account}",
        None,
        401,
        "invalid_credentials",
        {"authorization": None, "x-company-id": "{company}", "x-user": "root"},
    ),
    Bad(
        "caller: none, a body of more than 1 MiB",
        "POST",
        EVENTS,
        b" " * (MIB + 1),
        413,
        "body_too_large",
        {"authorization": None},
    ),
)

IDEMPOTENCY: Final = tuple(
    Bad(f"idempotency: {header} {name}", "POST", path, body, 400, "idempotency_key_invalid", {header: key})
    for header in ("idempotency-key", "x-dedupeid")
    for path, body in ((EVENTS, {"type": "CHAT"}), (BALANCE + "/other", {"amount": 1}))
    for name, key in (("empty", ""), ("of 256", "k" * 256), ("not ASCII", "cl\u00e9"), ("a tab", "a\tb"))
)

BAD: Final[tuple[Bad, ...]] = (
    *BODIES,
    *EVENT_FIELDS,
    *CLOUD_EVENTS,
    *MEDIA,
    *SETTLEMENTS,
    *ACCOUNT_FIELDS,
    *BALANCES,
    *PRICE_TERMS,
    *COMPANIES,
    *LISTINGS,
    *PATHS,
    *CALLERS,
    *IDEMPOTENCY,
)

_HEAD: Final = b"POST /v1/accounts/{account}/events HTTP/1.1\r\nhost: x\r\nauthorization: {basic}\r\n"
_JSON: Final = b"content-type: application/json\r\n"
_GET: Final = b"GET /v1/accounts/{account} HTTP/1.1\r\nhost: x\r\n"
_BASIC: Final = b"authorization: {basic}\r\n"

RAW: Final = (
    Raw(
        "more than 1 MiB in chunks",
        _HEAD
        + _JSON
        + b"transfer-encoding: chunked\r\n\r\n"
        + (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 17
        + b"0\r\n\r\n",
        (413,),
        "body_too_large",
    ),
    Raw("20 MB declared", _HEAD + _JSON + b"content-length: 20971520\r\n\r\n", (413,), "body_too_large"),
    Raw("20 digits declared", _HEAD + _JSON + b"content-length: 18446744073709551615\r\n\r\n", (400, 413)),
    Raw("a length below zero", _HEAD + _JSON + b"content-length: -1\r\n\r\n", (400, 0)),
    Raw("a length of words", _HEAD + _JSON + b"content-length: ten\r\n\r\n", (400, 0)),
    Raw(
        "two lengths",
        _HEAD + _JSON + b"content-length: 15\r\ncontent-length: 16\r\n\r\n" + b'{"type":"CHAT"}',
        (400, 0),
    ),
    Raw(
        "length and chunks",
        _HEAD + _JSON + b'content-length: 5\r\ntransfer-encoding: chunked\r\n\r\nf\r\n{"type":"CHAT"\r\n0\r\n\r\n',
        (400, 0),
    ),
    Raw("a chunk of no size", _HEAD + _JSON + b"transfer-encoding: chunked\r\n\r\nxyz\r\n", (400, 0)),
    Raw("no content type", _HEAD + b'content-length: 15\r\n\r\n{"type":"CHAT"}', (415,), "unsupported_media_type"),
    Raw(
        "two content types",
        _HEAD + b"content-type: text/plain\r\n" + _JSON + b'content-length: 15\r\n\r\n{"type":"CHAT"}',
        (415,),
        "unsupported_media_type",
    ),
    Raw(
        "two idempotency keys",
        _HEAD + _JSON + b"idempotency-key: a\r\nidempotency-key: b\r\n" + b'content-length: 15\r\n\r\n{"type":"CHAT"}',
        (400,),
        "idempotency_key_invalid",
    ),
    Raw(
        "two spellings of a key",
        _HEAD + _JSON + b"idempotency-key: a\r\nx-dedupeid: b\r\n" + b'content-length: 15\r\n\r\n{"type":"CHAT"}',
        (400,),
        "idempotency_key_invalid",
    ),
    Raw("two credentials", _GET + b"authorization: Bearer x\r\n" + _BASIC + b"\r\n", (401,), "invalid_credentials"),
    Raw("two good credentials", _GET + _BASIC + _BASIC + b"\r\n", (401,), "invalid_credentials"),
    Raw(
        "two credentials, the good one first",
        _GET + _BASIC + b"authorization: Bearer x\r\n\r\n",
        (401,),
        "invalid_credentials",
    ),
    Raw("a header of 64 kB", _GET + b"x-large: " + b"x" * 65_000 + b"\r\n\r\n", (401, 431, 400)),
    Raw("1,000 headers", _GET + b"".join(b"x-%d: 1\r\n" % n for n in range(1000)) + b"\r\n", (401, 431, 400)),
    Raw("NUL in a header", _GET + b"x-a: a\x00b\r\n" + _BASIC + b"\r\n", (400, 0)),
    Raw("a bare CR in a header", _GET + b"x-a: a\rb\r\n" + _BASIC + b"\r\n", (400, 0)),
    Raw("a space before the colon", _GET + b"authorization : x\r\n\r\n", (400, 401, 0)),
    Raw("a folded header", _GET + b"x-a: a\r\n b\r\n\r\n", (400, 401, 0)),
    Raw("a path of bytes", b"GET /v1/accounts/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n", (400, 401, 404, 0)),
    Raw("a path that is none", b"GET v1 HTTP/1.1\r\nhost: x\r\n\r\n", (400, 404, 0)),
    Raw(
        "an absolute target",
        b"GET http://evil.example/v1/accounts/{account} HTTP/1.1\r\nhost: x\r\n\r\n",
        (400, 401, 404),
    ),
    Raw("an asterisk", b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", (400, 404, 405, 0)),
    Raw("no host", b"GET /v1/accounts/{account} HTTP/1.1\r\n\r\n", (400, 401)),
    Raw("two hosts", _GET + b"host: y\r\n\r\n", (400, 401)),
    Raw("a host with markup", b"GET /v1/accounts/{account} HTTP/1.1\r\nhost: <script>\r\n\r\n", (400, 401, 404)),
    Raw("an unknown method", b"BREW /v1/accounts/{account} HTTP/1.1\r\nhost: x\r\n\r\n", (400, 405)),
    Raw("HTTP/9.9", b"GET / HTTP/9.9\r\nhost: x\r\n\r\n", (400, 404, 505, 0)),
    Raw("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01", (400, 0)),
    Raw(
        "forged forwarding",
        _GET + b"x-forwarded-for: 127.0.0.1\r\nx-real-ip: 127.0.0.1\r\n\r\n",
        (401,),
        "invalid_credentials",
    ),
    Raw(
        "an upgrade to a socket",
        _GET
        + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        + b"sec-websocket-key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n",
        (400, 401, 403, 404, 426, 0),
    ),
)
