"""Messages that Stripe signed: who may be believed, and what they say.

The problem, on one example. A stranger may send anything to the address where Stripe's messages arrive; Stripe's come
with a header that only the holder of the secret of that address can make:

    Stripe-Signature: t=1700000000,v1=5257a8…,v0=6ffbb5…      v1 = HMAC-SHA256(secret, "1700000000." + body)

A message is believed if one ``v1`` is right for one of the secrets (there are two while a secret is changed) and ``t``
is at most five minutes away from now; ``v0`` is for tests of Stripe's own and proves nothing. The bytes are checked as
they came: reading and writing them again would change them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tenuto.core.cards import from_stripe
from tenuto.gateway.answers import decline, moment, related_id, whole
from tenuto.gateway.port import SIGNATURE_AGE_SECONDS, BadSignature, GatewayEvent

HEADER_LENGTH_MAX: Final = 4096
SIGNATURES_MAX: Final = 16
WORD_LENGTH_MAX: Final = 255
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


def read_event(body: bytes, signature: str, *, secrets: tuple[str, ...], now: datetime) -> GatewayEvent:
    """The message, if one of the secrets signed these very bytes lately. Raises BadSignature."""
    signed_at, claims = _claims(signature)
    expected = [_mac(secret, signed_at, body) for secret in secrets if secret]
    # Every pair is compared, so that the time it takes tells nothing of which one was near.
    matches = [hmac.compare_digest(mine, theirs) for mine in expected for theirs in claims]
    if not any(matches):
        raise BadSignature("No signature of the message is right for this address: another secret, or altered bytes.")
    if abs(now - _EPOCH - timedelta(seconds=int(signed_at))) > timedelta(seconds=SIGNATURE_AGE_SECONDS):
        raise BadSignature(f"The message was signed more than {SIGNATURE_AGE_SECONDS} seconds before or after now.")
    try:
        return _event(json.loads(body))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadSignature("The message is signed, but is no event of Stripe's.") from error


def signature_of(body: bytes, *, secret: str, at: datetime) -> str:
    """The header that makes ``body`` believed: for whoever plays Stripe."""
    signed_at = str(int(at.timestamp()))
    return f"t={signed_at},v1={_mac(secret, signed_at, body).decode()}"


def _claims(header: str) -> tuple[str, list[bytes]]:
    if not header:
        raise BadSignature("The message carries no signature.")
    pairs = [part.strip().partition("=") for part in header[:HEADER_LENGTH_MAX].split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    claims = [value.encode("utf-8", "replace") for name, _, value in pairs if name == "v1"][:SIGNATURES_MAX]
    if len(times) != 1 or not _TIME.fullmatch(times[0]) or not claims:
        raise BadSignature("The signature of the message cannot be read.")
    return times[0], claims


def _mac(secret: str, signed_at: str, body: bytes) -> bytes:
    return hmac.new(secret.encode(), signed_at.encode() + b"." + body, hashlib.sha256).hexdigest().encode()


def _event(data: dict[str, Any]) -> GatewayEvent:
    about: dict[str, Any] = data["data"]["object"]
    kind = str(about["object"])
    currency = str(about["currency"]).upper() if about.get("currency") else None
    amount = about.get("amount")
    return GatewayEvent(
        id=_named(data["id"]),
        type=_named(data["type"]),
        created_at=moment(data["created"]),
        is_live=data["livemode"] is True,
        object_type=kind,
        object_id=_word(about.get("id")) or "",  # an invoice that is only foreseen has none
        intent_id=_word(related_id(about if kind == "payment_intent" else about.get("payment_intent"))),
        status=_word(about.get("status")),
        amount=from_stripe(whole(amount), currency) if amount is not None and currency else None,
        currency=currency,
        reason=_reason(kind, about),
    )


def _named(value: object) -> str:
    found = _word(value)
    if found is None:
        raise TypeError("a name is missing")
    return found


def _word(value: object) -> str | None:
    """An id, a status, a reason: short and printable, as Stripe's are; None where there is none."""
    if value is None or value == "":
        return None
    text = str(value)
    if len(text) > WORD_LENGTH_MAX or not (text.isascii() and text.isprintable()):
        raise ValueError("a word that Stripe does not use")
    return text


def _reason(kind: str, about: dict[str, Any]) -> str | None:
    """Why it is as it is: the word for a decline, a failure, a dispute, a cancellation."""
    error = about.get("last_payment_error") or about.get("last_setup_error")
    if error:
        return _word(decline(error).code)
    fields = {
        "payment_intent": ("cancellation_reason",),
        "setup_intent": ("cancellation_reason",),
        "charge": ("failure_code",),
        "refund": ("failure_reason", "reason"),
    }.get(kind, ("reason",))
    return next((_word(about[field]) for field in fields if about.get(field)), None)
