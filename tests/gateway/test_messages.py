"""Which messages are believed, and what they say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe

from tenuto.gateway.messages import read_event, signature_of
from tenuto.gateway.port import BadSignature, EventReader, GatewayEvent

NOW = datetime(2030, 1, 15, 12, tzinfo=UTC)
OURS, OLD, STRANGE = "whsec_ours", "whsec_old", "whsec_strange"
READER: EventReader = read_event


def body_of(about: dict[str, Any], type: str = "payment_intent.succeeded", **more: Any) -> bytes:
    event = {
        "id": "evt_1",
        "object": "event",
        "type": type,
        "created": int(NOW.timestamp()) - 7,
        "livemode": False,
        "data": {"object": about},
        **more,
    }
    return json.dumps(event, indent=2).encode()


INTENT = {"id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 1000, "currency": "usd"}
BODY = body_of(INTENT)


def mac(secret: str = OURS, at: datetime = NOW, body: bytes = BODY) -> str:
    return signature_of(body, secret=secret, at=at).partition("v1=")[2]


T = int(NOW.timestamp())
RIGHT = mac()


@pytest.mark.parametrize(
    "header",
    [
        f"t={T},v1={RIGHT}",
        f"t={T}, v1={RIGHT}",
        f"v1={RIGHT},t={T}",
        f"t={T},v1={'0' * 64},v1={RIGHT}",
        f"t={T},v1={RIGHT},v1={'0' * 64}",
        f"t={T},v1={RIGHT},v0={'0' * 64},v2=x,nonsense",
        f"t={T},v1={mac(OLD)}",
        signature_of(BODY, secret=OURS, at=NOW - timedelta(seconds=300)),
        signature_of(BODY, secret=OURS, at=NOW + timedelta(seconds=300)),
        stripe.WebhookSignature.generate_signature_header(BODY.decode(), OURS, T) + ",v1=same-as-the-sdk",
    ],
)
def test_a_right_signature_is_believed(header: str) -> None:
    found = READER(BODY, header, secrets=(OURS, OLD), now=NOW)
    assert found == GatewayEvent(
        id="evt_1",
        type="payment_intent.succeeded",
        created_at=NOW - timedelta(seconds=7),
        is_live=False,
        object_type="payment_intent",
        object_id="pi_1",
        intent_id="pi_1",
        status="succeeded",
        amount=1000,
        currency="USD",
        reason=None,
    )


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        ",",
        f"t={T}",
        f"v1={RIGHT}",
        f"t={T},v0={RIGHT}",
        f"t={T},v1=",
        f"t={T},v1={mac(STRANGE)}",
        f"t={T},v1={mac('')}",
        f"t={T},v1={RIGHT[:-1]}",
        f"t={T},v1={RIGHT.upper()}",
        f"t={T},v1=\N{SNOWMAN}",
        f"t={T + 1},v1={RIGHT}",
        f"t={T},t={T + 1},v1={RIGHT}",
        f"t=0{T},v1={RIGHT}",
        f"t=-{T},v1={RIGHT}",
        f"t={T}.0,v1={RIGHT}",
        f"t={'9' * 30},v1={RIGHT}",
        f"t=\u0661,v1={RIGHT}",
        f"t={T}," + "v1=0," * 2000 + f"v1={RIGHT}",
        signature_of(BODY, secret=OURS, at=NOW - timedelta(seconds=301)),
        signature_of(BODY, secret=OURS, at=NOW + timedelta(seconds=301)),
        signature_of(BODY, secret=OURS, at=datetime(1970, 1, 1, tzinfo=UTC)),
        signature_of(BODY, secret=OURS, at=datetime(9999, 1, 1, tzinfo=UTC)),
    ],
    ids=str,
)
def test_any_other_is_not(header: str) -> None:
    with pytest.raises(BadSignature) as raised:
        READER(BODY, header, secrets=(OURS, "", OLD), now=NOW)
    assert "whsec" not in str(raised.value)


def test_without_a_secret_nothing_is_believed() -> None:
    for secrets in ((), ("",)):
        with pytest.raises(BadSignature):
            READER(BODY, f"t={T},v1={mac('')}", secrets=secrets, now=NOW)


def test_the_very_bytes_are_signed() -> None:
    for altered in (BODY + b" ", json.dumps(json.loads(BODY)).encode(), BODY.replace(b"1000", b"9000")):
        with pytest.raises(BadSignature):
            READER(altered, f"t={T},v1={RIGHT}", secrets=(OURS,), now=NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"id": "evt_1"}',
        body_of(INTENT, id=None),
        body_of(INTENT, type=""),
        body_of(INTENT, created="yesterday"),
        body_of(INTENT, created=10**18),
        body_of(INTENT, data={}),
        body_of(INTENT, data={"object": None}),
        body_of({**INTENT, "amount": "1000"}),
        body_of({"id": "x"}),
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:20]) + str(len(body)),
)
def test_a_signed_message_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(BadSignature, match="no event"):
        READER(body, signature_of(body, secret=OURS, at=NOW), secrets=(OURS,), now=NOW)


@pytest.mark.parametrize(
    ("type", "about", "told"),
    [
        (
            "payment_intent.payment_failed",
            {
                **INTENT,
                "status": "requires_payment_method",
                "currency": "isk",
                "amount": 50_000,
                "last_payment_error": {"code": "card_declined", "decline_code": "insufficient_funds"},
            },
            ("payment_intent", "pi_1", "pi_1", "requires_payment_method", 500, "ISK", "insufficient_funds"),
        ),
        (
            "payment_intent.canceled",
            {**INTENT, "status": "canceled", "cancellation_reason": "abandoned"},
            ("payment_intent", "pi_1", "pi_1", "canceled", 1000, "USD", "abandoned"),
        ),
        (
            "refund.failed",
            {
                "id": "re_1",
                "object": "refund",
                "payment_intent": "pi_1",
                "status": "failed",
                "amount": 7,
                "currency": "jpy",
                "failure_reason": "expired_or_canceled_card",
                "reason": "requested_by_customer",
            },
            ("refund", "re_1", "pi_1", "failed", 7, "JPY", "expired_or_canceled_card"),
        ),
        (
            "charge.refunded",
            {
                "id": "ch_1",
                "object": "charge",
                "payment_intent": {"id": "pi_1", "object": "payment_intent"},
                "status": "succeeded",
                "amount": 1000,
                "amount_refunded": 10,
                "currency": "eur",
            },
            ("charge", "ch_1", "pi_1", "succeeded", 1000, "EUR", None),
        ),
        (
            "charge.failed",
            {"id": "ch_1", "object": "charge", "payment_intent": None, "status": "failed", "failure_code": "lost_card"},
            ("charge", "ch_1", None, "failed", None, None, "lost_card"),
        ),
        (
            "charge.dispute.created",
            {
                "id": "du_1",
                "object": "dispute",
                "charge": "ch_1",
                "payment_intent": "pi_1",
                "status": "needs_response",
                "amount": 900,
                "currency": "usd",
                "reason": "fraudulent",
            },
            ("dispute", "du_1", "pi_1", "needs_response", 900, "USD", "fraudulent"),
        ),
        (
            "setup_intent.setup_failed",
            {
                "id": "seti_1",
                "object": "setup_intent",
                "status": "requires_payment_method",
                "last_setup_error": {"code": "expired_card"},
            },
            ("setup_intent", "seti_1", None, "requires_payment_method", None, None, "expired_card"),
        ),
        ("balance.available", {"object": "balance"}, ("balance", "", None, None, None, None, None)),
        (
            "invoice.upcoming",
            {"object": "invoice", "status": "draft", "currency": "usd"},
            ("invoice", "", None, "draft", None, "USD", None),
        ),
    ],
)
def test_every_kind_of_event_is_told_in_our_words(type: str, about: dict[str, Any], told: tuple[Any, ...]) -> None:
    body = body_of(about, type, livemode=True)
    found = READER(body, signature_of(body, secret=OURS, at=NOW), secrets=(OURS,), now=NOW)
    assert found[:4] == ("evt_1", type, NOW - timedelta(seconds=7), True)
    assert found[4:] == told
