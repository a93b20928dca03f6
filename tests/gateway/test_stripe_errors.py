"""What each answer of Stripe's means, with a transport that plays it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

import httpx
import pytest
import stripe

from tenuto.gateway.port import (
    CardDeclined,
    Decline,
    GatewayAccount,
    GatewayRefused,
    GatewayUnclear,
    PaymentGateway,
)
from tenuto.gateway.stripe import API_VERSION, StripeGateway

KEY = "rk_test_51SecretSecretSecret"
INTENT = {
    "id": "pi_1",
    "object": "payment_intent",
    "status": "requires_confirmation",
    "amount": 1000,
    "amount_received": 0,
    "currency": "usd",
    "customer": "cus_1",
    "latest_charge": None,
    "last_payment_error": None,
    "metadata": {"tenuto_account": "a_1", "tenuto_payment": "p_1"},
}
PAID = {**INTENT, "status": "succeeded", "amount_received": 1000, "latest_charge": "ch_1"}
Answer = httpx.Response | Exception | Callable[[httpx.Request], Awaitable[httpx.Response]]


class Play(Protocol):
    """Makes a gateway that is given these answers, one a request."""

    def __call__(self, *answers: Answer, timeout: float = 5) -> tuple[StripeGateway, list[httpx.Request]]: ...


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    made: list[StripeGateway] = []

    def make(*answers: Answer, timeout: float = 5) -> tuple[StripeGateway, list[httpx.Request]]:
        gateway = StripeGateway(KEY, base_url="http://stripe.test/", timeout=timeout, per_second=1000)
        asked: list[httpx.Request] = []
        left = list(answers)

        async def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            given = left.pop(0)
            if isinstance(given, Exception):
                raise given
            return given if isinstance(given, httpx.Response) else await given(request)

        gateway._http.client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        made.append(gateway)
        return gateway, asked

    yield make
    for gateway in made:
        await gateway.close()


def said(status: int, type: str | None = None, code: str | None = None, **more: Any) -> httpx.Response:
    error = {"type": type, "code": code, "message": "A sentence.", **more}
    return httpx.Response(status, json={"error": {name: value for name, value in error.items() if value is not None}})


def found(data: object) -> httpx.Response:
    return httpx.Response(200, json=data)


async def confirm(gateway: PaymentGateway) -> object:
    return await gateway.confirm_intent("pi_1", key="key-1", card="pm_1")


def form(request: httpx.Request) -> dict[str, str]:
    return dict(parse_qsl(request.content.decode()))


async def test_a_request_names_our_version_key_and_idempotency_key_and_tells_nothing_of_the_machine(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    gateway, asked = play(found(INTENT), found(PAID))
    created = await gateway.create_intent(
        key="key-0",
        amount=1000,
        currency="USD",
        customer="cus_1",
        account="a_1",
        payment="p_1",
        description="Top-up",
    )
    assert created.metadata == {"tenuto_account": "a_1", "tenuto_payment": "p_1"}
    assert created.charge_id is None
    paid = await gateway.confirm_intent("pi_1", key="key-1", card="pm_1")
    assert (paid.status, paid.amount_received, paid.charge_id, paid.declined) == ("succeeded", 1000, "ch_1", None)
    assert [str(request.url) for request in asked] == [
        "http://stripe.test/v1/payment_intents",
        "http://stripe.test/v1/payment_intents/pi_1/confirm",
    ]
    assert form(asked[0]) == {
        "amount": "1000",
        "currency": "usd",
        "customer": "cus_1",
        "description": "Top-up",
        "allowed_payment_method_types[0]": "card",
        "metadata[tenuto_account]": "a_1",
        "metadata[tenuto_payment]": "p_1",
    }
    assert form(asked[1]) == {"payment_method": "pm_1", "off_session": "true"}
    for request, key in zip(asked, ("key-0", "key-1"), strict=True):
        assert request.headers["stripe-version"] == API_VERSION == "2026-10-28.endive"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["idempotency-key"] == key
        assert "platform" not in json.loads(request.headers["x-stripe-client-user-agent"])
        assert "x-stripe-client-telemetry" not in request.headers
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - at once, in a test


@pytest.mark.parametrize(
    ("error", "declined"),
    [
        ({"code": "card_declined", "decline_code": "insufficient_funds"}, "insufficient_funds"),
        ({"code": "card_declined", "decline_code": "authentication_required"}, "authentication_required"),
        ({"code": "authentication_required", "decline_code": "generic_decline"}, "authentication_required"),
        ({"code": "expired_card"}, "expired_card"),
        ({}, "card_error"),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_shown", [True, False])
async def test_a_decline_is_an_answer(play: Play, error: dict[str, str], declined: str, *, is_shown: bool) -> None:
    now = {**INTENT, "status": "requires_payment_method", "latest_charge": "ch_failed"}
    answers = (
        [said(402, "card_error", payment_intent=now, **error)]
        if is_shown
        else [
            said(402, "card_error", **error),
            found(now),
        ]
    )
    gateway, asked = play(*answers)
    answer = await gateway.confirm_intent("pi_1", key="key-1", card="pm_1")
    assert answer.status == "requires_payment_method"
    assert answer.declined == Decline(declined, "A sentence.")
    assert answer.charge_id is None
    assert len(asked) == len(answers)


async def test_a_settled_intent_is_read_and_returned_as_it_is(play: Play) -> None:
    unexpected = said(400, "invalid_request_error", "payment_intent_unexpected_state")
    gateway, _ = play(
        unexpected, found(PAID), unexpected, found(PAID), unexpected, found({**INTENT, "status": "canceled"})
    )
    assert (await gateway.confirm_intent("pi_1", key="key-1", card="pm_1")).status == "succeeded"
    assert (await gateway.cancel_intent("pi_1", key="key-2")).status == "succeeded"
    assert (await gateway.cancel_intent("pi_1", key="key-2")).status == "canceled"


@pytest.mark.parametrize(
    ("answer", "code", "is_key"),
    [
        (said(400, "invalid_request_error", "parameter_missing"), "parameter_missing", False),
        (said(400, "invalid_request_error"), "invalid_request_error", False),
        (said(400, "idempotency_error"), "idempotency_error", False),
        (said(404, "invalid_request_error", "resource_missing"), "resource_missing", False),
        (said(401, "invalid_request_error"), "invalid_request_error", True),
        (said(401, "invalid_request_error", "api_key_expired"), "api_key_expired", True),
        (said(403, "invalid_request_error", "more_permissions_required"), "more_permissions_required", True),
        (httpx.Response(404, text="<html>no such page</html>"), "http_404", False),
        (httpx.Response(413, json={"detail": "too large"}), "http_413", False),
    ],
)
async def test_a_no_to_the_request_itself_is_refused(
    play: Play, answer: httpx.Response, code: str, *, is_key: bool
) -> None:
    gateway, asked = play(answer)
    with pytest.raises(GatewayRefused) as raised:
        await confirm(gateway)
    assert (raised.value.code, raised.value.is_key) == (code, is_key)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        said(409, "idempotency_error", "idempotency_key_in_use"),
        said(409, "invalid_request_error", "lock_timeout"),
        said(429, "invalid_request_error", "rate_limit"),
        said(429, "invalid_request_error", "lock_timeout"),
        said(424, "api_error"),
        said(500, "api_error"),
        said(503, "api_error"),
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(504),
        httpx.Response(302, headers={"location": "http://elsewhere.test/"}),
        httpx.Response(200, text="<html>welcome to the hotel</html>"),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(200, json=None),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json="x"),
        httpx.Response(200, text="[" * 100_000),
        httpx.Response(500, json=[1]),
        httpx.Response(500, json={"error": "a word"}),
        httpx.Response(500, content=b"\xff\xfe"),
        httpx.Response(200, json={"id": "pi_1"}),
        httpx.Response(200, json={**PAID, "status": "transcended"}),
        httpx.Response(200, json={**PAID, "amount": "1000"}),
        httpx.Response(200, json={**PAID, "metadata": "none"}),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("went away"),
        httpx.ReadError("reset"),
    ],
)
async def test_what_says_nothing_is_unclear_and_not_tried_again(play: Play, answer: Answer) -> None:
    gateway, asked = play(answer)
    with pytest.raises(GatewayUnclear):
        await confirm(gateway)
    assert len(asked) == 1


async def slow(_: httpx.Request) -> httpx.Response:
    await asyncio.sleep(60)
    return found(PAID)


async def test_a_call_has_a_time_out_in_all(play: Play) -> None:
    gateway, _ = play(slow, timeout=0.05)
    with pytest.raises(GatewayUnclear, match=r"within 0\.05 seconds"):
        await confirm(gateway)


async def test_a_cancelled_call_is_cancelled(play: Play) -> None:
    arrived = asyncio.Event()

    async def arrive(request: httpx.Request) -> httpx.Response:
        arrived.set()
        return await slow(request)

    gateway, _ = play(arrive)
    task = asyncio.create_task(confirm(gateway))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_too_many_requests_hold_the_next_one_back(play: Play) -> None:
    loop = asyncio.get_running_loop()
    for code, holds_back in (("lock_timeout", False), ("rate_limit", True)):
        gateway, _ = play(said(429, "invalid_request_error", code), found(PAID))
        with pytest.raises(GatewayUnclear, match="429"):
            await confirm(gateway)
        began = loop.time()
        await confirm(gateway)
        assert (loop.time() - began > 0.9) is holds_back


@pytest.mark.parametrize("status", [400, 401, 402, 403, 500])
async def test_no_secret_stands_in_an_exception_or_a_log(
    play: Play, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sentence = f"Bad key {KEY}, or sk_live_51OtherOther, whsec_abcdef0123 or pi_1_secret_xyz789."
    gateway, _ = play(said(status, "invalid_request_error", message=sentence), found(INTENT))
    try:
        told: object = await confirm(gateway)
    except (GatewayRefused, GatewayUnclear) as error:
        told = traceback.format_exception(error)
    for secret in ("SecretSecret", "OtherOther", "abcdef0123", "xyz789"):
        assert secret not in str(told)
    assert KEY not in caplog.text


async def test_an_amount_that_stripe_cannot_count_is_not_even_asked_for(play: Play) -> None:
    gateway, asked = play()
    for amount, currency in ((5124, "KWD"), (150, "MGA"), (10_000, "CLF")):
        with pytest.raises(GatewayRefused) as raised:
            await gateway.create_intent(
                key="k", amount=amount, currency=currency, customer="cus_1", account="a", payment="p", description=""
            )
        assert raised.value.code == "amount_not_chargeable"
        with pytest.raises(GatewayRefused):
            await gateway.refund(key="k", intent_id="pi_1", amount=amount, currency=currency, refund="r_1")
    assert not asked


async def test_amounts_are_counted_as_stripe_counts_and_back(play: Play) -> None:
    gateway, asked = play(
        found({**INTENT, "amount": 50_000, "currency": "isk"}),
        found({"id": "re_1", "object": "refund", "amount": 5, "currency": "mga", "status": None, "metadata": None}),
    )
    made = await gateway.create_intent(
        key="k", amount=500, currency="ISK", customer="cus_1", account="a", payment="p", description=""
    )
    assert (made.amount, made.currency) == (500, "ISK")
    given = await gateway.refund(key="k", intent_id="pi_1", amount=500, currency="MGA", refund="r_1")
    assert (given.amount, given.currency, given.status) == (500, "MGA", "pending")
    assert [form(request)["amount"] for request in asked] == ["50000", "5"]


async def test_a_check_asks_twice_and_changes_nothing(play: Play) -> None:
    empty = {"object": "list", "data": [], "has_more": False, "url": "/v1/x"}
    gateway, asked = play(found(empty), found(empty))
    assert await gateway.check() == GatewayAccount(is_live=False)
    assert [(request.method, request.url.path) for request in asked] == [
        ("GET", "/v1/customers"),
        ("GET", "/v1/payment_intents"),
    ]
    live = StripeGateway("sk_live_x")
    assert live._is_live
    await live.close()


async def test_a_check_says_what_lacks(play: Play) -> None:
    empty = {"object": "list", "data": [], "has_more": False, "url": "/v1/x"}
    gateway, _ = play(said(401, "invalid_request_error"), found(empty), said(403, "invalid_request_error"), said(503))
    with pytest.raises(GatewayRefused, match="does not know the key") as raised:
        await gateway.check()
    assert raised.value.is_key
    with pytest.raises(GatewayRefused, match="lacks the right to write PaymentIntents") as raised:
        await gateway.check()
    assert raised.value.is_key
    with pytest.raises(GatewayUnclear):
        await gateway.check()


async def test_a_card_that_is_gone_already_is_forgotten_and_one_that_cannot_be_is_told(play: Play) -> None:
    card = {
        "id": "pm_1",
        "object": "payment_method",
        "customer": None,
        "card": {"brand": "visa", "last4": "4242", "exp_month": 1, "exp_year": 2034, "fingerprint": "f"},
    }
    refused = said(400, "invalid_request_error")
    gateway, _ = play(
        found(card),
        said(404, "invalid_request_error", "resource_missing"),
        refused,
        found(card),
        refused,
        found({**card, "customer": "cus_1"}),
        said(401, "invalid_request_error"),
    )
    for _round in range(3):
        await gateway.detach_card("pm_1")
    for _round in range(2):
        with pytest.raises(GatewayRefused):
            await gateway.detach_card("pm_1")


async def test_a_card_is_declined_when_made_from_its_token_or_when_attached(play: Play) -> None:
    card = {"id": "pm_1", "object": "payment_method", "type": "card"}
    declined = said(402, "card_error", "card_declined", decline_code="do_not_honor")
    gateway, asked = play(declined, found(card), declined)
    for _round in range(2):
        with pytest.raises(CardDeclined) as raised:
            await gateway.attach_card(key="key-1", customer="cus_1", token="tok_visa")
        assert raised.value.decline.code == "do_not_honor"
    assert [(request.url.path, request.headers["idempotency-key"]) for request in asked] == [
        ("/v1/payment_methods", "key-1/method"),
        ("/v1/payment_methods", "key-1/method"),
        ("/v1/payment_methods/pm_1/attach", "key-1"),
    ]


async def test_lists_are_read_page_by_page(play: Play) -> None:
    def page(*ids: str, has_more: bool) -> httpx.Response:
        rows = [{**PAID, "id": id} for id in ids]
        return found({"object": "list", "data": rows, "has_more": has_more, "url": "/v1/payment_intents"})

    gateway, asked = play(page("pi_3", "pi_2", has_more=True), page("pi_1", has_more=False))
    since = datetime(2030, 1, 1, tzinfo=UTC)
    assert [intent.gateway_id async for intent in gateway.intents(since=since)] == ["pi_3", "pi_2", "pi_1"]
    assert [dict(request.url.params) for request in asked] == [
        {"created[gte]": "1893456000", "limit": "100"},
        {"created[gte]": "1893456000", "limit": "100", "starting_after": "pi_2"},
    ]
    gateway, _ = play(said(503))
    with pytest.raises(GatewayUnclear):
        [intent async for intent in gateway.intents(since=since)]


def test_the_sdk_is_the_one_it_was_written_for() -> None:
    assert stripe.api_version == API_VERSION
    assert not stripe.enable_telemetry
    assert "STRIPE_LOG" not in os.environ
