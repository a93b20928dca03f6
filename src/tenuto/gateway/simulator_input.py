"""What callers of the Stripe simulator say, and the test cards they say it with.

The problem, on one example. Stripe's clients send forms, and Stripe's answers depend on which test card is meant:

    card[token]=tok_chargeDeclinedInsufficientFunds     {"card": {"token": "tok_chargeDeclined..."}}
    the card behind it                                  4000 0000 0000 9995: the bank says insufficient_funds
    what attaching and charging it answer               402 card_declined, decline_code insufficient_funds

A card is known again by its fingerprint, which is made from its number, so what an object says about itself is enough.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from tenuto.gateway.simulator_book import PAGE_MAX, Obj, Refusal

METADATA_MAX: Final = 50
METADATA_NAME_MAX: Final = 40
METADATA_VALUE_MAX: Final = 500
AMOUNT_MAX: Final = 99_999_999
FIELDS_MAX: Final = 1000

_BRACKETS: Final = re.compile(r"\[([^\[\]]*)\]")
_WHOLE: Final = re.compile(r"-?\d{1,18}")


class Decline(NamedTuple):
    """How Stripe words a bank's no."""

    code: str
    decline_code: str
    message: str


DECLINES: Final = {
    "generic_decline": Decline("card_declined", "generic_decline", "Your card was declined."),
    "insufficient_funds": Decline("card_declined", "insufficient_funds", "Your card has insufficient funds."),
    "lost_card": Decline("card_declined", "lost_card", "Your card was declined."),
    "stolen_card": Decline("card_declined", "stolen_card", "Your card was declined."),
    "fraudulent": Decline("card_declined", "fraudulent", "Your card was declined."),
    "do_not_honor": Decline("card_declined", "do_not_honor", "Your card was declined."),
    "card_velocity_exceeded": Decline(
        "card_declined",
        "card_velocity_exceeded",
        "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
    ),
    "expired_card": Decline("expired_card", "expired_card", "Your card has expired."),
    "incorrect_cvc": Decline("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect."),
    "processing_error": Decline(
        "processing_error",
        "processing_error",
        "An error occurred while processing your card. Try again in a little bit.",
    ),
    "authentication_required": Decline(
        "authentication_required",
        "authentication_required",
        "Your card was declined. This transaction requires authentication.",
    ),
}


class TestCard(NamedTuple):
    """A card number of Stripe's documentation, and what it does.

    ``attach`` and ``charge`` name a decline. ``authentication``: ``always``, or ``unless_set_up`` by a SetupIntent.
    ``refund``: what becomes of a refund that is pending at first. ``dispute``: the reason of one that follows.
    """

    number: str
    names: tuple[str, ...] = ()
    brand: str = "visa"
    attach: str | None = None
    charge: str | None = None
    authentication: str | None = None
    refund: str | None = None
    dispute: str | None = None
    is_slow: bool = False


def _declining(number: str, why: str, *names: str) -> TestCard:
    return TestCard(number, names, attach=why, charge=why)


CARDS: Final = (
    TestCard("4242424242424242", ("visa",)),
    TestCard("4000056655665556", ("visa_debit",)),
    TestCard("5555555555554444", ("mastercard",), "mastercard"),
    TestCard("5200828282828210", ("mastercard_debit",), "mastercard"),
    TestCard("378282246310005", ("amex",), "amex"),
    TestCard("6011111111111117", ("discover",), "discover"),
    _declining("4000000000000002", "generic_decline", "chargeDeclined", "visa_chargeDeclined"),
    _declining(
        "4000000000009995",
        "insufficient_funds",
        "chargeDeclinedInsufficientFunds",
        "visa_chargeDeclinedInsufficientFunds",
    ),
    _declining("4000000000009987", "lost_card", "chargeDeclinedLostCard", "visa_chargeDeclinedLostCard"),
    _declining("4000000000009979", "stolen_card", "chargeDeclinedStolenCard", "visa_chargeDeclinedStolenCard"),
    _declining("4000000000000069", "expired_card", "chargeDeclinedExpiredCard"),
    _declining("4000000000000127", "incorrect_cvc", "chargeDeclinedIncorrectCvc"),
    _declining("4000000000000119", "processing_error", "chargeDeclinedProcessingError"),
    _declining("4000000000006975", "card_velocity_exceeded", "visa_chargeDeclinedVelocityLimitExceeded"),
    _declining("4100000000000019", "fraudulent", "radarBlock", "chargeDeclinedFraudulent"),
    TestCard("4000000000000341", ("chargeCustomerFail",), charge="generic_decline"),
    TestCard("4000002500003155", ("authenticationRequiredOnSetup",), authentication="unless_set_up"),
    TestCard("4000002760003184", ("authenticationRequired",), authentication="always"),
    TestCard(
        "4000008260003178",
        ("authenticationRequiredChargeDeclinedInsufficientFunds",),
        charge="insufficient_funds",
        authentication="unless_set_up",
    ),
    TestCard("4000000000000259", ("createDispute",), dispute="fraudulent"),
    TestCard("4000000000002685", ("createDisputeProductNotReceived",), dispute="product_not_received"),
    TestCard("4000000000007726", ("pendingRefund",), refund="succeeded"),
    TestCard("4000000000005126", ("refundFail",), refund="failed"),
    # This one is ours, not Stripe's: its intents stay processing until they are released.
    TestCard("4000000000090005", ("simulatorProcessing",), is_slow=True),
)


def fingerprint_of(number: str) -> str:
    """What a card is known by without its number."""
    return blake2b(number.encode(), digest_size=8).hexdigest()


_BY_NUMBER: Final = {card.number: card for card in CARDS}
_BY_NAME: Final = {name: card for card in CARDS for name in card.names}
_BY_FINGERPRINT: Final = {fingerprint_of(card.number): card for card in CARDS}


def card_by_number(number: str) -> TestCard:
    """The test card with a number. Raises what Stripe answers to any other number in test mode."""
    number = number.replace(" ", "").replace("-", "")
    found = _BY_NUMBER.get(number)
    if found is None:
        if not (number.isascii() and number.isdigit()) or not _is_luhn(number):
            raise card_error(
                Decline("incorrect_number", "incorrect_number", "Your card number is incorrect."), param="number"
            )
        message = "Your card was declined. Your request was in test mode, but used a non test card."
        raise card_error(Decline("card_declined", "test_mode_live_card", message))
    return found


def card_by_name(id: str, prefix: str) -> TestCard | None:
    """The test card behind a built-in ``tok_…`` or ``pm_card_…``."""
    return _BY_NAME.get(id.removeprefix(prefix)) if id.startswith(prefix) else None


def card_of(method: Obj) -> TestCard:
    """The test card that a payment method stands for."""
    return _BY_FINGERPRINT[method["card"]["fingerprint"]]


def _is_luhn(number: str) -> bool:
    doubled = (
        int(digit) if index % 2 == 0 else sum(divmod(2 * int(digit), 10)) for index, digit in enumerate(number[::-1])
    )
    return sum(doubled) % 10 == 0


def card_error(decline: Decline, **more: object) -> Refusal:
    """The 402 that a bank's no becomes."""
    plain = {"incorrect_number", "authentication_required", "expired_card", "incorrect_cvc", "processing_error"}
    decline_code = None if decline.code in plain - {"authentication_required"} else decline.decline_code
    refusal = Refusal(402, decline.message, type="card_error", code=decline.code, decline_code=decline_code)
    refusal.error.update(more)
    return refusal


# --- money -----------------------------------------------------------------------------------------------------------

CURRENCIES: Final = frozenset(
    """usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf
    clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr
    isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr
    mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd
    std szl thb tjs tnd top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer zar zmw""".split()  # noqa: SIM905 - read and compared as one piece
)
ZERO_DECIMAL: Final = frozenset("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split())  # noqa: SIM905 - the same
THREE_DECIMAL: Final = frozenset("bhd jod kwd omr tnd".split())  # noqa: SIM905 - the same
WHOLE_ONLY: Final = frozenset(("isk", "ugx"))
MINIMUMS: Final = {
    name: int(least)
    for name, _, least in (
        pair.partition("=")
        for pair in [
            "usd=50",
            "aed=200",
            "aud=50",
            "bgn=100",
            "brl=50",
            "cad=50",
            "chf=50",
            "czk=1500",
            "dkk=250",
            "eur=50",
            "gbp=30",
            "hkd=400",
            "huf=17500",
            "inr=50",
            "jpy=50",
            "mxn=1000",
            "myr=200",
            "nok=300",
            "nzd=50",
            "pln=200",
            "ron=200",
            "sek=300",
            "sgd=50",
            "thb=1000",
        ]
    )
}
"""Stripe's smallest amounts, in the units it counts in; elsewhere half a unit stands for its 50 US cents."""


def refuse_amount(amount: int, currency: str, param: str = "amount") -> None:
    """Raise Stripe's Refusal for an amount that it would not take."""
    if currency not in CURRENCIES:
        message = f"Invalid currency: {currency}. Stripe currently supports these currencies: {', '.join(CURRENCIES)}"
        raise Refusal(400, message, param="currency", is_stored=False)
    if amount < 1:
        message = "This value must be greater than or equal to 1."
        raise Refusal(400, message, code="parameter_invalid_integer", param=param, is_stored=False)
    if amount > AMOUNT_MAX:
        message = f"Amount must be no more than {_spell(AMOUNT_MAX, currency)}"
        raise Refusal(400, message, code="amount_too_large", param=param, is_stored=False)
    least = MINIMUMS.get(currency, 500 if currency in THREE_DECIMAL else 50)
    if amount < least:
        message = f"Amount must be at least {_spell(least, currency)}"
        raise Refusal(400, message, code="amount_too_small", param=param, is_stored=False)
    step = 10 if currency in THREE_DECIMAL else 100 if currency in WHOLE_ONLY else 1
    if amount % step:
        message = f"Invalid amount: the amount in {currency} must be a multiple of {step}."
        raise Refusal(400, message, code="parameter_invalid_integer", param=param, is_stored=False)


def _spell(amount: int, currency: str) -> str:
    digits = 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2
    whole, rest = divmod(amount, 10**digits)
    number = f"{whole:,}.{rest:0{digits}}" if digits else f"{whole:,}"
    return f"${number}" if currency == "usd" else f"{number} {currency}"


# --- forms -----------------------------------------------------------------------------------------------------------


class Params:
    """The parameters of one request, nested as their brackets say. Every reader raises Stripe's Refusal."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.expand: list[str] = [str(path) for path in fields.pop("expand", {}).values()] if fields else []

    @classmethod
    def parse(cls, pairs: list[tuple[str, str]]) -> Params:
        """Read decoded pairs, such as ``("metadata[x]", "1")``."""
        found: dict[str, Any] = {}
        for name, value in pairs:
            root, _, rest = name.partition("[")
            path = [root, *_BRACKETS.findall(f"[{rest}")] if rest else [root]
            inner = found
            for step in path[:-1]:
                inner = inner.setdefault(step or str(len(inner)), {})
                if not isinstance(inner, dict):
                    raise Refusal(400, f"Invalid {root}", param=root, is_stored=False)
            inner[path[-1] or str(len(inner))] = value
        if not isinstance(found.get("expand", {}), dict):
            raise Refusal(400, "Invalid array", param="expand", is_stored=False)
        return cls(found)

    def only(self, *known: str) -> None:
        """Refuse what Stripe does not know."""
        for name in self.fields:
            if name not in known:
                raise Refusal(
                    400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name, is_stored=False
                )

    def has(self, name: str) -> bool:
        """Whether a parameter was given, even if empty."""
        return name in self.fields

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text; an empty one unsets, as Stripe has it."""
        value = self.fields.get(name, default)
        if isinstance(value, dict):
            raise Refusal(400, f"Invalid string: {name}", param=name, is_stored=False)
        return None if value == "" else value

    def needed(self, name: str) -> str:
        """A text that must be there."""
        value = self.text(name)
        if value is None:
            raise missing(name)
        return value

    def whole(self, name: str, default: int | None = None) -> int | None:
        """A whole number."""
        value = self.text(name)
        if value is None:
            return default
        if not _WHOLE.fullmatch(value):
            raise Refusal(
                400, f"Invalid integer: {value}", code="parameter_invalid_integer", param=name, is_stored=False
            )
        return int(value)

    def truth(self, name: str, *, default: bool = False) -> bool:
        """A boolean."""
        value = self.text(name)
        if value is None:
            return default
        if value not in {"true", "false"}:
            raise Refusal(400, f"Invalid boolean: {value}", param=name, is_stored=False)
        return value == "true"

    def choice(self, name: str, default: str, *allowed: str) -> str:
        """One of a few words."""
        value = self.text(name) or default
        if value not in allowed:
            message = f"Invalid {name}: must be one of {', '.join(allowed)}"
            raise Refusal(400, message, param=name, is_stored=False)
        return value

    def inner(self, name: str) -> Params:
        """The parameters in a parameter's brackets."""
        value = self.fields.get(name, {})
        if not isinstance(value, dict):
            raise Refusal(400, f"Invalid object: {name}", param=name, is_stored=False)
        return Params(dict(value))

    def items(self, name: str) -> list[str]:
        """The members of an array."""
        return [str(value) for value in self.inner(name).fields.values()]

    def metadata(self, before: dict[str, str] | None = None) -> dict[str, str]:
        """The metadata after this request: given names replace, empty ones go."""
        found = dict(before or {})
        given = self.fields.get("metadata", {})
        if given == "":
            return {}
        if not isinstance(given, dict):
            raise Refusal(400, "Invalid object: metadata", param="metadata", is_stored=False)
        for name, value in given.items():
            if len(name) > METADATA_NAME_MAX or not isinstance(value, str) or len(value) > METADATA_VALUE_MAX:
                message = f"Metadata names have up to {METADATA_NAME_MAX} characters, values {METADATA_VALUE_MAX}."
                raise Refusal(400, message, param=f"metadata[{name}]", is_stored=False)
            if value:
                found[name] = value
            else:
                found.pop(name, None)
        if len(found) > METADATA_MAX:
            raise Refusal(400, f"Metadata can have up to {METADATA_MAX} keys.", param="metadata", is_stored=False)
        return found

    def page(self) -> int:
        """How many objects a list may answer with."""
        limit = self.whole("limit", 10) or 0
        if not 1 <= limit <= PAGE_MAX:
            message = f"Invalid integer: limit must be between 1 and {PAGE_MAX}"
            raise Refusal(400, message, code="parameter_invalid_integer", param="limit", is_stored=False)
        return limit


def missing(name: str) -> Refusal:
    """What Stripe says when a parameter lacks."""
    return Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name, is_stored=False)


def pairs_of(text: str) -> list[tuple[str, str]]:
    """The pairs of a query or a form. Raises a Refusal for one that is no form."""
    if not text:
        return []
    try:
        return parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise Refusal(400, f"Invalid request: {error}", is_stored=False) from error
