"""Bad input to the routes of cards, deposits, refills, payments and Stripe: rows as in ``bad_input``.

``{card}``, ``{payment}`` and ``{paid}`` are the caller's own (``{paid}`` was paid from a balance); ``{strange_card}``
is a card of another account of the same company.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tests.api.bad_input import Bad

COMPANY: Final = "/v1/companies/{company}"
ACCOUNT: Final = "/v1/accounts/{account}"
CARD: Final = ACCOUNT + "/card"
CARDS: Final = ACCOUNT + "/cards"
DEPOSIT: Final = ACCOUNT + "/deposit"
REFILL: Final = ACCOUNT + "/auto_refill"
BALANCE: Final = ACCOUNT + "/balance"
PAYMENT: Final = "/v1/payments/{payment}"
LINKS: Final = ACCOUNT + "/payment_links"
MOST: Final = 10**15
GIVEN: Final = {"amount_to_deposit": 1000, "amount_to_charge": 500, "denomination": "credits"}
SET: Final = {"threshold": 100, "amount": 1000, "usd_charge": 500, "denomination": "credits"}
PERSON: Final = {"name": "Eve", "email": "eve@example.com"}

STATUS: Final = {
    "not_found": 404,
    "invalid_json": 400,
    "bad_signature": 400,
    "method_not_allowed": 405,
    "unsupported_media_type": 415,
}

Fields = Mapping[str, object]


def at(
    name: str, method: str, path: str, body: object, code: str = "invalid_field", /, field: str | None = None
) -> Bad:
    """A request that is refused with 422, or with the status that goes with the code."""
    status = STATUS.get(code, 422)
    return Bad(f"money: {name}", method, path, body, status, code, {}, field)


def numbers(
    name: str, method: str, path: str, body: Fields, field: str, *, least: int, most: int = MOST, can_be_null: bool
) -> Iterator[Bad]:
    """A whole number given as everything that it is not."""
    key = field.rpartition(".")[2]
    for what, value in {
        "as text": "5",
        "true": True,
        "a fraction": 500.5,
        "a float beyond all": 1e300,
        "a list": [5],
        "an object": {"amount": 5},
        **({} if can_be_null else {"null": None}),
    }.items():
        yield at(f"{name}: {key} {what}", method, path, {**body, key: value}, field=field)
    too_small = "must_be_positive" if least == 1 else "out_of_range"
    yield at(f"{name}: {key} below {least}", method, path, {**body, key: least - 1}, too_small, field)
    far_below = "must_be_positive" if least > 0 else "out_of_range"
    yield at(f"{name}: {key} far below", method, path, {**body, key: -(10**18)}, far_below, field)
    yield at(f"{name}: {key} above {most}", method, path, {**body, key: most + 1}, "out_of_range", field)


def names(name: str, method: str, path: str, body: Fields, field: str, longest: int) -> Iterator[Bad]:
    """A name for machines given as everything that it is not."""
    for what, value in {
        "a number": 5,
        "false": False,
        "a list": ["credits"],
        "empty": "",
        "with a space": "a b",
        "not ASCII": "tökens",
        "with a line": "a\nb",
        "too long": "x" * (longest + 1),
        "10 kB": "x" * 10_000,
    }.items():
        yield at(f"{name}: {field} {what}", method, path, {**body, field: value}, field=field)
    yield at(f"{name}: {field} with NUL", method, path, {**body, field: "a\0b"}, "invalid_string")


def bodies(name: str, method: str, path: str, *, can_be_none: bool = False) -> Iterator[Bad]:
    """A body that is no object, or has a field that is not known."""
    yield at(f"{name}: a list", method, path, [{}])
    yield at(f"{name}: a text", method, path, b'"x"')
    yield at(f"{name}: null", method, path, b"null")
    yield at(f"{name}: not JSON", method, path, b"{", "invalid_json")
    yield at(f"{name}: unknown field", method, path, {"surprise": 1}, "unknown_field", "surprise")
    if not can_be_none:
        yield at(f"{name}: no body", method, path, None, "unsupported_media_type")


def nowhere(name: str, method: str, path: str, body: object) -> Iterator[Bad]:
    """An account of the path that is none of ours."""
    for what, account in {
        "unknown": "a_00000000",
        "no id": "1",
        "an event": "{event}",
        "a company": "{company}",
    }.items():
        yield at(f"{name}: account {what}", method, path.replace("{account}", account), body, "not_found")


def without(body: Fields, field: str) -> dict[str, object]:
    return {name: value for name, value in body.items() if name != field}


CARD_ROWS: Final = (
    *bodies("card", "POST", CARD),
    *nowhere("card", "POST", CARD, {"token": "tok_visa"}),
    *nowhere("cards", "GET", CARDS, None),
    *names("card", "POST", CARD, {}, "token", 255),
    at("card: no token", "POST", CARD, {}, "missing_field", "token"),
    at("card: token null", "POST", CARD, {"token": None}, field="token"),
    at("card: a number of a card", "POST", CARD, {"number": "4242424242424242"}, "unknown_field", "number"),
    *bodies("change card", "PUT", CARDS + "/{card}"),
    at("change card: default missing", "PUT", CARDS + "/{card}", {}, "missing_field", "default"),
    at("change card: default false", "PUT", CARDS + "/{card}", {"default": False}, field="default"),
    at("change card: default a number", "PUT", CARDS + "/{card}", {"default": 1}, field="default"),
    at("change card: default null", "PUT", CARDS + "/{card}", {"default": None}, field="default"),
    *(
        at(f"{method} card: {what}", method, f"{CARDS}/{card}", body, "not_found")
        for method, body in (("PUT", {"default": True}), ("DELETE", None))
        for what, card in {
            "of another account": "{strange_card}",
            "unknown": "card_000000000000000000",
            "a payment": "{payment}",
            "Stripe's own id": "pm_card_visa",
            "short": "card_1",
            "long": "card_" + "0" * 200,
        }.items()
    ),
    at("cards: a method that is none", "POST", CARDS, {}, "method_not_allowed"),
    *names("account", "POST", COMPANY + "/accounts", PERSON, "token", 255),
)

DEPOSIT_ROWS: Final = (
    *bodies("deposit", "POST", DEPOSIT),
    *nowhere("deposit", "POST", DEPOSIT, GIVEN),
    *numbers("deposit", "POST", DEPOSIT, GIVEN, "amount_to_deposit", least=1, can_be_null=False),
    *numbers("deposit", "POST", DEPOSIT, GIVEN, "amount_to_charge", least=0, can_be_null=False),
    *names("deposit", "POST", DEPOSIT, GIVEN, "denomination", 64),
    *names("deposit", "POST", DEPOSIT, GIVEN, "charge_against_denomination", 64),
    *(
        at(f"deposit: no {field}", "POST", DEPOSIT, without(GIVEN, field), "missing_field", field)
        for field in ("amount_to_deposit", "amount_to_charge")
    ),
    *(
        at(
            f"deposit: charges {charge}",
            "POST",
            DEPOSIT,
            {**GIVEN, "amount_to_charge": charge},
            "amount_not_chargeable",
        )
        for charge in (0, 1, 49, 100_000_000, MOST)
    ),
    *(
        at(f"deposit: currency {currency!r}"[:60], "POST", DEPOSIT, {**GIVEN, "currency": currency}, field="currency")
        for currency in ("usd", "US", "XXY", "", " USD", "USD\n", "credits", 840, "X" * 5000)
    ),
    at("deposit: preview a number", "POST", DEPOSIT, {**GIVEN, "preview": 1}, field="preview"),
    at("deposit: preview as text", "POST", DEPOSIT, {**GIVEN, "preview": "true"}, field="preview"),
    at("deposit: against itself", "POST", DEPOSIT, {**GIVEN, "charge_against_denomination": "credits"}),
    at("deposit: two denominations", "POST", BALANCE + "/tokens/deposit", GIVEN, field="denomination"),
    at("deposit: a name in the path with a space", "POST", BALANCE + "/a%20b/deposit", without(GIVEN, "denomination")),
    at("deposit: a name in the path of 65", "POST", f"{BALANCE}/{'x' * 65}/deposit", without(GIVEN, "denomination")),
    at("deposit: dollars that are not what is charged", "POST", DEPOSIT, {**GIVEN, "denomination": "USD"}),
    at("deposit: metadata", "POST", DEPOSIT, {**GIVEN, "metadata": {}}, "unknown_field", "metadata"),
)

REFILL_ROWS: Final = (
    *bodies("refill", "PUT", REFILL),
    *nowhere("refill", "PUT", REFILL, SET),
    *numbers("refill", "PUT", REFILL, SET, "amount", least=1, can_be_null=True),
    *numbers("refill", "PUT", REFILL, SET, "usd_charge", least=0, can_be_null=True),
    *numbers("refill", "PUT", REFILL, SET, "threshold", least=0, can_be_null=True),
    *names("refill", "PUT", REFILL, SET, "denomination", 64),
    *names("refill", "PUT", REFILL, SET, "charge_against_denomination", 64),
    *(
        at(f"refill: monthly {value!r}", "PUT", REFILL, {**SET, "refill_monthly": value}, field="refill_monthly")
        for value in (1, "true", [True], "")
    ),
    *(
        at(f"refill: currency {currency!r}", "PUT", REFILL, {**SET, "currency": currency}, field="currency")
        for currency in ("usd", "XXY", "", 840)
    ),
    *(
        at(
            f"refill: charges {charge}",
            "PUT",
            REFILL,
            {**SET, "usd_charge": charge},
            "amount_not_chargeable",
            "usd_charge",
        )
        for charge in (1, 49, 100_000_000, MOST)
    ),
    at("refill: no amount", "PUT", REFILL, without(SET, "amount"), "missing_field", "amount"),
    at("refill: no charge", "PUT", REFILL, without(SET, "usd_charge"), "missing_field", "usd_charge"),
    at("refill: never", "PUT", REFILL, without(SET, "threshold"), "missing_field", "threshold"),
    at("refill: nothing said", "PUT", REFILL, {"denomination": "credits"}, "missing_field", "amount"),
    at("refill: from itself", "PUT", REFILL, {**SET, "charge_against_denomination": "credits"}),
    at("refill: two denominations", "PUT", BALANCE + "/tokens/autorefill", SET, field="denomination"),
    at("refill: dollars that are not what is charged", "PUT", REFILL, {**SET, "denomination": "USD"}, field="amount"),
    at("refill: ended where no balance is", "DELETE", BALANCE + "/none/autorefill", None, "not_found"),
    at("refill: ended under a name with a space", "DELETE", BALANCE + "/a%20b/autorefill", None),
    Bad("money: refill: resumed where none is", "POST", BALANCE + "/credits/autorefill/resume", None, 409, "no_refill"),
    *nowhere("refill ended", "DELETE", BALANCE + "/credits/autorefill", None),
    *nowhere("refill resumed", "POST", BALANCE + "/credits/autorefill/resume", None),
)

PAYMENT_ROWS: Final = (
    *bodies("refund", "POST", PAYMENT + "/refund", can_be_none=True),
    *numbers("refund", "POST", PAYMENT + "/refund", {}, "amount", least=1, can_be_null=True),
    at("refund: more than was paid", "POST", PAYMENT + "/refund", {"amount": 501}, "refund_exceeds_payment"),
    *(
        at(f"refund: reason {what}", "POST", PAYMENT + "/refund", {"amount": 1, "reason": reason}, field="reason")
        for what, reason in {"empty": "", "blank": "  ", "of 501": "x" * 501, "a number": 5, "null": None}.items()
    ),
    at("refund: reason with NUL", "POST", PAYMENT + "/refund", {"amount": 1, "reason": "a\0"}, "invalid_string"),
    Bad("money: refund: paid by balance", "POST", "/v1/payments/{paid}/refund", {}, 409, "payment_not_refundable"),
    Bad("money: retry: paid", "POST", PAYMENT + "/retry", None, 409, "payment_not_retryable"),
    Bad("money: void: paid", "POST", PAYMENT + "/void", None, 409, "payment_not_voidable"),
    *(
        at(f"{verb or 'get'}: {what}", "POST" if verb else "GET", f"/v1/payments/{payment}{verb}", None, "not_found")
        for verb in ("", "/retry", "/void", "/refund")
        for what, payment in {
            "unknown": "pay_000000000000000000",
            "an event": "{event}",
            "a card": "{card}",
            "Stripe's own id": "pi_3MtwBwLkdIwHu7ix28a3tqPa",
            "in upper case": "PAY_000000000000000000",
            "long": "pay_" + "0" * 300,
        }.items()
    ),
    *(
        Bad(f"money: list: {query}"[:60], "GET", f"{path}/payments?{query}", None, status, code)
        for path in (ACCOUNT, COMPANY)
        for query, status, code in (
            ("status=settled", 422, "invalid_field"),
            ("status=", 422, "invalid_field"),
            ("reason=fun", 422, "invalid_field"),
            ("method=cash", 422, "invalid_field"),
            ("from=yesterday", 422, "invalid_field"),
            ("from=2030-01-01T00:00:00", 422, "zone_required"),
            ("limit=0", 422, "invalid_field"),
            ("limit=1001", 422, "invalid_field"),
            ("cursor=x", 400, "invalid_cursor"),
            ("cursor=1-1-000000000000", 400, "invalid_cursor"),
            ("currency=%00", 422, "invalid_string"),
            ("denomination=credits", 422, "unknown_field"),
        )
    ),
)

OPENED: Final = {"threshold": 100, "refill_amount": 1000, "usd_charge": 500}
OPENING_ROWS: Final = (
    *numbers("open", "POST", BALANCE + "/new", OPENED, "refill_amount", least=1, can_be_null=True),
    *numbers("open", "POST", BALANCE + "/new", OPENED, "usd_charge", least=0, can_be_null=True),
    *numbers("open", "POST", BALANCE + "/new", OPENED, "threshold", least=0, can_be_null=True),
    at("open: monthly as text", "POST", BALANCE + "/new", {**OPENED, "refill_monthly": "true"}, field="refill_monthly"),
    at("open: charges 49", "POST", BALANCE + "/new", {**OPENED, "usd_charge": 49}, "amount_not_chargeable"),
    at("open: no charge", "POST", BALANCE + "/new", without(OPENED, "usd_charge"), "missing_field"),
    at("open: no amount", "POST", BALANCE + "/new", without(OPENED, "refill_amount"), "missing_field"),
)

CAPTURE_ROWS: Final = (
    *bodies("resume", "POST", ACCOUNT + "/resume_capture", can_be_none=True),
    *(
        at(f"resume: skipped {skipped!r}", "POST", f"{path}/resume_capture", {"skipped": skipped}, field="skipped")
        for path in (ACCOUNT, COMPANY)
        for skipped in ("", "drop", "PROCESS", 1, None, ["void"])
    ),
    *nowhere("suspend", "POST", ACCOUNT + "/suspend_capture", None),
    *nowhere("resume", "POST", ACCOUNT + "/resume_capture", None),
    at("suspend: a company that is none", "POST", "/v1/companies/c_00000000/suspend_capture", None, "not_found"),
    at("resume: a company that is none", "POST", "/v1/companies/c_00000000/resume_capture", None, "not_found"),
)

LINK_ROWS: Final = (
    *bodies("link", "POST", LINKS, can_be_none=True),
    *nowhere("link", "POST", LINKS, {}),
    *numbers("link", "POST", LINKS, {}, "expires_in_seconds", least=60, most=7_776_000, can_be_null=True),
    *(
        at(f"link: to {url!r}"[:60], "POST", LINKS, {"return_url": url}, field="return_url")
        for url in (
            *("", "example.com", "//example.com", "javascript:alert(1)", "data:text/html,x", "ftp://example.com"),
            *("http://example.com", "https://exa mple.com", "https://example.com\r\nx: y", "https://exämple.com"),
            *("https://" + "x" * 2000, 5, True, ["https://example.com"], "mailto:ada@example.com"),
        )
    ),
    *bodies("account link", "POST", COMPANY + "/payment_links"),
    at("account link: no name", "POST", COMPANY + "/payment_links", without(PERSON, "name"), "missing_field", "name"),
    at(
        "account link: no email", "POST", COMPANY + "/payment_links", without(PERSON, "email"), "missing_field", "email"
    ),
    at("account link: name empty", "POST", COMPANY + "/payment_links", {**PERSON, "name": ""}, field="name"),
    at("account link: email none", "POST", COMPANY + "/payment_links", {**PERSON, "email": "eve"}, field="email"),
    at("account link: a company that is none", "POST", "/v1/companies/c_00000000/payment_links", PERSON, "not_found"),
)

PORTAL: Final = ACCOUNT + "/portal_links"
PORTAL_ROWS: Final = (
    *bodies("portal link", "POST", PORTAL, can_be_none=True),
    *nowhere("portal link", "POST", PORTAL, {}),
    *numbers("portal link", "POST", PORTAL, {}, "expires_in_seconds", least=300, most=2_592_000, can_be_null=True),
    at("portal link: back to http", "POST", PORTAL, {"return_url": "http://example.com"}, field="return_url"),
    at("portal link: origins no list", "POST", PORTAL, {"embed_origins": "https://a.com"}, field="embed_origins"),
    at("portal link: a number", "POST", PORTAL, {"embed_origins": [5]}, field="embed_origins[0]"),
    at("portal link: a path", "POST", PORTAL, {"embed_origins": ["https://a.com/b"]}, field="embed_origins[0]"),
    at("portal link: two in one", "POST", PORTAL, {"embed_origins": ["https://a.com *"]}, field="embed_origins[0]"),
)

STRIPE: Final = COMPANY + "/stripe/test"
STRIPE_ROWS: Final = (
    *(
        at(f"caps: {field} {value!r}", "PUT", COMPANY, {"refill_caps": {field: value}}, code, f"refill_caps.{field}")
        for field, value, code in (
            ("per_hour", 0, "must_be_positive"),
            ("per_hour", 1001, "out_of_range"),
            ("per_hour", None, "invalid_field"),
            ("per_hour", "4", "invalid_field"),
            ("per_day", 0, "must_be_positive"),
            ("per_day", 24_001, "out_of_range"),
            ("per_day", 1.5, "invalid_field"),
            ("amount_per_day", -1, "must_be_positive"),
            ("amount_per_day", MOST + 1, "out_of_range"),
            ("per_week", 1, "unknown_field"),
        )
    ),
    at("caps: a number", "PUT", COMPANY, {"refill_caps": 4}, field="refill_caps"),
    *(
        at(f"company: {field} {value!r}"[:60], "PUT", COMPANY, {field: value}, field=field)
        for field in ("stripe_key", "stripe_publishable_key", "stripe_webhook_secret")
        for value in (5, True, ["sk_test_0123456789"], " ", "x", "sk_live_0123456789abcdef", "pk_live_0123456789abcdef")
    ),
    at("company: stripe_key with NUL", "PUT", COMPANY, {"stripe_key": "sk_test_\0"}, "invalid_string"),
    at("message: unsigned", "POST", STRIPE, {"id": "evt_1"}, "bad_signature"),
    at("message: a list", "POST", STRIPE, [], "bad_signature"),
    at("message: of nobody", "POST", "/v1/companies/c_00000000/stripe/test", {"id": "evt_1"}, "bad_signature"),
    at("message: no JSON", "POST", STRIPE, b"{", "bad_signature"),
    at("message: a mode that is none", "POST", COMPANY + "/stripe/sandbox", {"id": "evt_1"}, "not_found"),
    at("message: read", "GET", STRIPE, None, "method_not_allowed"),
)

MONEY: Final[tuple[Bad, ...]] = (
    *CARD_ROWS,
    *DEPOSIT_ROWS,
    *REFILL_ROWS,
    *PAYMENT_ROWS,
    *OPENING_ROWS,
    *CAPTURE_ROWS,
    *LINK_ROWS,
    *PORTAL_ROWS,
    *STRIPE_ROWS,
)
