"""The Stripe simulator, driven by Stripe's own client: cards, money, faults, the book after a kill."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import stripe

from tenuto.gateway.simulator_book import Book
from tests.simulated import SECRET, Simulated

Client = stripe.StripeClient
Made = Callable[[str, str], Client]

# Stripe's client sends forms to httpx in a way that httpx would rather not be used.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def client_of() -> Iterator[Made]:
    """Makes a client for a URL and a key."""
    opened: list[stripe.HTTPXClient] = []

    def make(url: str, key: str) -> Client:
        sender = stripe.HTTPXClient(timeout=10, allow_sync_methods=True)
        opened.append(sender)
        return stripe.StripeClient(key, base_addresses={"api": url}, http_client=sender, max_network_retries=0)

    yield make
    for sender in opened:
        sender.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def client(simulator: Simulated, stripe_key: str, client_of: Made) -> Client:
    return client_of(simulator.url, stripe_key)


@pytest.fixture
def customer(client: Client) -> str:
    return client.v1.customers.create({"name": "Ada", "metadata": {"tenuto_account": "acc_1"}}).id


def card_of(client: Client, customer: str, name: str = "pm_card_visa") -> str:
    return client.v1.payment_methods.attach(name, {"customer": customer}).id


def intent_of(client: Client, customer: str, amount: int = 1000, **more: Any) -> stripe.PaymentIntent:
    asked: Any = {
        "amount": amount,
        "currency": "usd",
        "customer": customer,
        "allowed_payment_method_types": ["card"],
        **more,
    }
    return client.v1.payment_intents.create(asked)


def paid(client: Client, customer: str, card: str = "pm_card_visa", amount: int = 1000) -> stripe.PaymentIntent:
    method = card_of(client, customer, card)
    return intent_of(client, customer, amount, payment_method=method, confirm=True, off_session=True)


def raw(
    simulator: Simulated, method: str, path: str, body: str = "", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection(simulator.host, simulator.port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_call_needs_a_secret_key(simulator: Simulated) -> None:
    for header in ("", "Bearer nonsense", "Bearer pk_test_1", "Basic !!"):
        assert raw(simulator, "GET", "/v1/customers", Authorization=header)[0] == 401
    assert raw(simulator, "GET", "/v1/customers", Authorization="Basic c2tfdGVzdF8xOg==")[0] == 200


def test_a_revoked_key_opens_nothing_and_a_restricted_one_not_all(
    simulator: Simulated, client: Client, stripe_key: str
) -> None:
    simulator.set_key(stripe_key, missing_rights=["charge_write"])
    client.v1.customers.list({"limit": 1})
    with pytest.raises(stripe.PermissionError, match="rak_charge_write"):
        client.v1.refunds.create({"charge": "ch_1"})
    simulator.set_key(stripe_key, revoked=True)
    with pytest.raises(stripe.AuthenticationError):
        client.v1.customers.list()


def test_a_key_is_an_account_unless_it_shares_one(
    simulator: Simulated, client_of: Made, stripe_key: str, customer: str
) -> None:
    other = f"rk_test_{secrets.token_hex(8)}"
    with pytest.raises(stripe.InvalidRequestError) as missing:
        client_of(simulator.url, other).v1.customers.retrieve(customer)
    assert (missing.value.code, missing.value.http_status) == ("resource_missing", 404)
    simulator.set_key(other, account=stripe_key)
    assert client_of(simulator.url, other).v1.customers.retrieve(customer).name == "Ada"


# --- customers and cards ---------------------------------------------------------------------------------------------


def test_a_customer_is_changed_and_deleted(client: Client, customer: str) -> None:
    changed = client.v1.customers.update(customer, {"email": "ada@example.com", "metadata": {"x": "1"}})
    assert (changed.email, changed.name) == ("ada@example.com", "Ada")
    assert changed.metadata is not None
    assert changed.metadata.to_dict() == {"tenuto_account": "acc_1", "x": "1"}
    assert [found.id for found in client.v1.customers.list().data] == [customer]
    card = card_of(client, customer)
    assert client.v1.customers.delete(customer).deleted
    assert client.v1.customers.retrieve(customer).deleted
    assert client.v1.payment_methods.retrieve(card).customer is None
    assert not client.v1.customers.list().data


def test_a_card_by_its_number_by_token_and_by_name(client: Client, customer: str) -> None:
    token = client.v1.tokens.create(
        {"card": {"number": "4242424242424242", "exp_month": "1", "exp_year": "2031", "cvc": "1"}}
    )
    asked: Any = {"type": "card", "card": {"token": token.id}}
    by_token = client.v1.payment_methods.create(asked)
    with pytest.raises(stripe.InvalidRequestError) as twice:
        client.v1.payment_methods.create(asked)
    assert twice.value.code == "token_already_used"
    number: Any = {"type": "card", "card": {"number": "5555555555554444", "exp_month": 5, "exp_year": 2032}}
    by_number = client.v1.payment_methods.create(number)
    for method in (by_token.id, by_number.id):
        client.v1.payment_methods.attach(method, {"customer": customer})
    by_name = card_of(client, customer, "pm_card_amex")
    assert by_name != "pm_card_amex"
    listed = client.v1.customers.payment_methods.list(customer).data
    assert [found.id for found in listed] == [by_name, by_number.id, by_token.id]
    assert [found.card.brand for found in listed if found.card] == ["amex", "mastercard", "visa"]
    same = client.v1.payment_methods.list({"customer": customer, "type": "card"}).data
    assert [found.id for found in same] == [found.id for found in listed]


def test_a_detached_card_does_not_come_back(client: Client, customer: str) -> None:
    card = card_of(client, customer)
    client.v1.payment_methods.detach(card)
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        client.v1.payment_methods.attach(card, {"customer": customer})
    with pytest.raises(stripe.InvalidRequestError, match="not attached"):
        client.v1.payment_methods.detach(card)


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("tok_chargeDeclined", "card_declined", "generic_decline"),
        ("tok_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("tok_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("tok_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
        ("tok_chargeDeclinedExpiredCard", "expired_card", None),
        ("tok_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("tok_chargeDeclinedProcessingError", "processing_error", None),
    ],
)
def test_a_declining_card_is_refused_when_it_is_attached(
    client: Client, customer: str, card: str, code: str, decline_code: str | None
) -> None:
    asked: Any = {"type": "card", "card": {"token": card}}
    method = client.v1.payment_methods.create(asked)
    with pytest.raises(stripe.CardError) as declined:
        client.v1.payment_methods.attach(method.id, {"customer": customer})
    assert (declined.value.http_status, declined.value.code) == (402, code)
    assert declined.value.error is not None
    assert declined.value.error.decline_code == decline_code
    assert not client.v1.customers.payment_methods.list(customer).data


def test_a_setup_intent_gives_the_customer_a_card(
    simulator: Simulated, client: Client, stripe_key: str, customer: str
) -> None:
    asked: Any = {"customer": customer, "usage": "off_session", "allowed_payment_method_types": ["card"]}
    made = client.v1.setup_intents.create(asked)
    assert (made.status, made.client_secret is not None) == ("requires_payment_method", True)
    confirmed = client.v1.setup_intents.confirm(made.id, {"payment_method": "pm_card_authenticationRequiredOnSetup"})
    assert confirmed.status == "requires_action"
    simulator.authenticate(stripe_key, made.id)
    done = client.v1.setup_intents.retrieve(made.id)
    assert done.status == "succeeded"
    card = str(done.payment_method)
    assert client.v1.payment_methods.retrieve(card).customer == customer
    # A card that was set up may be charged while its owner is away.
    assert intent_of(client, customer, payment_method=card, confirm=True, off_session=True).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError) as late:
        client.v1.setup_intents.cancel(made.id)
    assert late.value.code == "setup_intent_unexpected_state"
    declined = client.v1.setup_intents.create({"customer": customer})
    with pytest.raises(stripe.CardError):
        client.v1.setup_intents.confirm(declined.id, {"payment_method": "pm_card_chargeDeclined"})
    assert client.v1.setup_intents.cancel(declined.id).status == "canceled"


# --- intents ---------------------------------------------------------------------------------------------------------


def test_an_intent_is_paid_once(client: Client, customer: str) -> None:
    made = intent_of(client, customer, metadata={"tenuto_payment": "pay_1"})
    assert (made.status, made.amount_received, made.latest_charge) == ("requires_payment_method", 0, None)
    card = card_of(client, customer)
    done = client.v1.payment_intents.confirm(
        made.id, {"payment_method": card, "off_session": True, "expand": ["latest_charge"]}
    )
    assert (done.status, done.amount_received) == ("succeeded", 1000)
    assert isinstance(done.latest_charge, stripe.Charge)
    assert (done.latest_charge.paid, done.latest_charge.metadata["tenuto_payment"]) == (True, "pay_1")
    with pytest.raises(stripe.InvalidRequestError) as again:
        client.v1.payment_intents.confirm(made.id, {"payment_method": card})
    assert again.value.code == "payment_intent_unexpected_state"
    assert again.value.error is not None
    assert again.value.error.payment_intent is not None
    assert again.value.error.payment_intent.status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError, match="status of succeeded"):
        client.v1.payment_intents.cancel(made.id)
    with pytest.raises(stripe.InvalidRequestError, match="amount could not be updated"):
        client.v1.payment_intents.update(made.id, {"amount": 5000})
    assert len(client.v1.charges.list({"payment_intent": made.id}).data) == 1


def test_a_declined_intent_can_be_paid_with_another_card(client: Client, customer: str) -> None:
    made = intent_of(client, customer)
    bad, good = card_of(client, customer, "pm_card_chargeCustomerFail"), card_of(client, customer)
    with pytest.raises(stripe.CardError) as declined:
        client.v1.payment_intents.confirm(made.id, {"payment_method": bad, "off_session": True})
    assert declined.value.error is not None
    assert (declined.value.error.code, declined.value.error.decline_code) == ("card_declined", "generic_decline")
    assert declined.value.error.payment_intent is not None
    assert declined.value.error.payment_intent.id == made.id
    now = client.v1.payment_intents.retrieve(made.id)
    assert (now.status, now.payment_method) == ("requires_payment_method", None)
    assert now.last_payment_error is not None
    assert now.last_payment_error.decline_code == "generic_decline"
    assert (
        client.v1.payment_intents.confirm(made.id, {"payment_method": good, "off_session": True}).status == "succeeded"
    )
    assert [found.status for found in client.v1.charges.list({"payment_intent": made.id}).data] == [
        "succeeded",
        "failed",
    ]


def test_a_card_that_wants_its_owner_is_declined_while_the_owner_is_away(
    simulator: Simulated, client: Client, stripe_key: str, customer: str
) -> None:
    card = card_of(client, customer, "pm_card_authenticationRequired")
    made = intent_of(client, customer)
    with pytest.raises(stripe.CardError) as declined:
        client.v1.payment_intents.confirm(made.id, {"payment_method": card, "off_session": True})
    assert declined.value.code == "authentication_required"
    assert client.v1.payment_intents.confirm(made.id, {"payment_method": card}).status == "requires_action"
    simulator.authenticate(stripe_key, made.id)
    assert client.v1.payment_intents.retrieve(made.id).status == "succeeded"


def test_a_fault_makes_a_good_card_decline(
    simulator: Simulated, client: Client, stripe_key: str, customer: str
) -> None:
    simulator.fault("decline", code="insufficient_funds", key=stripe_key)
    with pytest.raises(stripe.CardError, match="insufficient funds"):
        paid(client, customer)
    assert paid(client, customer).status == "succeeded"
    simulator.fault("decline", key=stripe_key, route="payment_methods.attach")
    with pytest.raises(stripe.CardError):
        card_of(client, customer)


def test_what_an_intent_may_not_be(client: Client, customer: str) -> None:
    for amount, currency, code in (
        (49, "usd", "amount_too_small"),
        (49, "jpy", "amount_too_small"),
        (100_000_000, "usd", "amount_too_large"),
        (0, "usd", "parameter_invalid_integer"),
        (5001, "kwd", "parameter_invalid_integer"),
        (1000, "xxx", None),
    ):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            intent_of(client, customer, amount, currency=currency)
        assert refused.value.code == code
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"colour": "red"}, "parameter_unknown"),
        ({"customer": "cus_0"}, "resource_missing"),
    ]
    asked: Any = {"amount": 1000, "currency": "usd"}
    for more, code in wrongs:
        with pytest.raises(stripe.InvalidRequestError) as wrong:
            client.v1.payment_intents.create(asked | more)
        assert wrong.value.code == code


def test_another_customers_card_is_refused(client: Client, customer: str) -> None:
    other = client.v1.customers.create({"name": "Bob"}).id
    with pytest.raises(stripe.InvalidRequestError, match="does not have a payment method"):
        intent_of(client, customer, payment_method=card_of(client, other))


def test_a_cancelled_intent_never_takes_money(client: Client, customer: str) -> None:
    made = intent_of(client, customer)
    assert client.v1.payment_intents.cancel(made.id).status == "canceled"
    for again in (client.v1.payment_intents.cancel, client.v1.payment_intents.confirm):
        with pytest.raises(stripe.InvalidRequestError) as late:
            again(made.id)
        assert late.value.code == "payment_intent_unexpected_state"


def test_a_part_of_a_reservation_is_captured(client: Client, customer: str) -> None:
    made = intent_of(client, customer, capture_method="manual")
    held = client.v1.payment_intents.confirm(
        made.id, {"payment_method": card_of(client, customer), "off_session": True}
    )
    assert (held.status, held.amount_capturable, held.amount_received) == ("requires_capture", 1000, 0)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_intents.capture(made.id, {"amount_to_capture": 1001})
    done = client.v1.payment_intents.capture(made.id, {"amount_to_capture": 700})
    assert (done.status, done.amount_received) == ("succeeded", 700)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.create({"payment_intent": made.id, "amount": 701})


def test_an_intent_may_stay_processing(own_simulator: Simulated, client_of: Made, stripe_key: str) -> None:
    client = client_of(own_simulator.url, stripe_key)
    customer = client.v1.customers.create({"name": "Ada"}).id
    own_simulator.fault("processing", key=stripe_key, seconds=3600)  # it waits until the bank is asked
    made = intent_of(client, customer)
    card = card_of(client, customer)
    assert (
        client.v1.payment_intents.confirm(made.id, {"payment_method": card, "off_session": True}).status == "processing"
    )
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_intents.cancel(made.id)
    own_simulator.advance(3601)
    assert client.v1.payment_intents.retrieve(made.id).status == "succeeded"
    slow = paid(client, customer, "pm_card_simulatorProcessing")
    assert slow.status == "processing"
    assert own_simulator.release() == 1
    assert client.v1.payment_intents.retrieve(slow.id).amount_received == 1000


def test_intents_are_listed_newest_first_page_by_page(client: Client, customer: str) -> None:
    made = [intent_of(client, customer, 1000 + number).id for number in range(7)][::-1]
    other = client.v1.customers.create({}).id
    intent_of(client, other)
    page = client.v1.payment_intents.list({"customer": customer, "limit": 3})
    assert ([found.id for found in page.data], page.has_more) == (made[:3], True)
    rest = client.v1.payment_intents.list({"customer": customer, "limit": 10, "starting_after": made[2]})
    assert ([found.id for found in rest.data], rest.has_more) == (made[3:], False)
    assert len(list(client.v1.payment_intents.list({"limit": 2}).auto_paging_iter())) == 8
    newest = page.data[0].created
    since: Any = {"created": {"gte": newest}}
    assert made[0] in [found.id for found in client.v1.payment_intents.list(since).data]
    later: Any = {"created": {"gt": newest + 60}}
    assert not client.v1.payment_intents.list(later).data


# --- refunds and disputes --------------------------------------------------------------------------------------------


def test_no_more_is_refunded_than_was_paid(client: Client, customer: str) -> None:
    intent = paid(client, customer).id
    first = client.v1.refunds.create({"payment_intent": intent, "amount": 400, "metadata": {"tenuto_refund": "ref_1"}})
    assert (first.status, first.amount) == ("succeeded", 400)
    with pytest.raises(stripe.InvalidRequestError, match=r"greater than unrefunded amount on charge"):
        client.v1.refunds.create({"payment_intent": intent, "amount": 601})
    client.v1.refunds.create({"payment_intent": intent})
    with pytest.raises(stripe.InvalidRequestError) as over:
        client.v1.refunds.create({"payment_intent": intent, "amount": 1})
    assert over.value.code == "charge_already_refunded"
    listed = client.v1.refunds.list({"payment_intent": intent}).data
    assert [found.amount for found in listed] == [600, 400]
    named = client.v1.refunds.retrieve(first.id).metadata
    assert named is not None
    assert named["tenuto_refund"] == "ref_1"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.create({"payment_intent": intent_of(client, customer).id})


def test_a_refund_may_be_pending_and_fail(simulator: Simulated, client: Client, stripe_key: str, customer: str) -> None:
    intent = paid(client, customer).id
    simulator.fault("refund_pending", key=stripe_key, code="failed")
    refund = client.v1.refunds.create({"payment_intent": intent})
    assert refund.status == "pending"
    simulator.release()
    failed = client.v1.refunds.retrieve(refund.id)
    assert (failed.status, failed.failure_reason) == ("failed", "expired_or_canceled_card")
    # What failed can be given back again.
    assert client.v1.refunds.create({"payment_intent": intent}).status == "succeeded"
    events = [event["type"] for event in simulator.book(stripe_key)["events"]]
    assert {"refund.created", "refund.failed", "refund.updated", "charge.refunded"} <= set(events)


def test_a_dispute_is_opened_and_closed(simulator: Simulated, client: Client, stripe_key: str, customer: str) -> None:
    by_card = paid(client, customer, "pm_card_createDispute").id
    by_control = paid(client, customer).id
    opened = simulator.dispute(stripe_key, by_control)
    simulator.close_dispute(stripe_key, opened["id"], "lost")
    with pytest.raises(stripe.InvalidRequestError) as disputed:
        client.v1.refunds.create({"payment_intent": by_control})
    assert disputed.value.code == "charge_disputed"
    found = client.v1.disputes.list({"payment_intent": by_card}).data[0]
    assert (found.status, found.amount, found.payment_intent) == ("needs_response", 1000, by_card)
    simulator.close_dispute(stripe_key, found.id, "won")
    events = client.v1.events.list({"types": ["charge.dispute.created", "charge.dispute.closed"]}).data
    assert [event.type.rpartition(".")[2] for event in events] == ["closed", "closed", "created", "created"]
    assert [event.data.object["status"] for event in events] == ["won", "lost", "needs_response", "needs_response"]
    assert client.v1.events.retrieve(events[0].id).data.object["payment_intent"] == by_card


# --- the same request again ------------------------------------------------------------------------------------------


def form(key: str, name: str = "") -> dict[str, str]:
    found = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-www-form-urlencoded"}
    return {**found, "Idempotency-Key": name} if name else found


def test_the_same_key_gets_the_same_bytes(own_simulator: Simulated, stripe_key: str) -> None:
    asked = "name=Ada&metadata[a]=1"
    first = raw(own_simulator, "POST", "/v1/customers", asked, **form(stripe_key, "k"))
    again = raw(own_simulator, "POST", "/v1/customers", "metadata[a]=1&name=Ada", **form(stripe_key, "k"))
    assert (first[0], first[2]) == (again[0], again[2])
    assert ("idempotent-replayed" in first[1], again[1]["idempotent-replayed"]) == (False, "true")
    other = raw(own_simulator, "POST", "/v1/customers", "name=Bob", **form(stripe_key, "k"))
    assert (other[0], msgspec.json.decode(other[2])["error"]["type"]) == (400, "idempotency_error")
    assert len(own_simulator.book(stripe_key)["customers"]) == 1
    own_simulator.advance(86_401)
    assert raw(own_simulator, "POST", "/v1/customers", "name=Bob", **form(stripe_key, "k"))[0] == 200
    assert len(own_simulator.book(stripe_key)["customers"]) == 2


def test_a_decline_is_remembered_and_a_form_error_is_not(client: Client, customer: str) -> None:
    card = card_of(client, customer, "pm_card_chargeCustomerFail")
    made = intent_of(client, customer)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            client.v1.payment_intents.confirm(
                made.id, {"payment_method": card, "off_session": True}, {"idempotency_key": "c"}
            )
    assert len(client.v1.charges.list({"payment_intent": made.id}).data) == 1
    asked: Any = {"amount": 1, "currency": "usd"}
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_intents.create(asked, {"idempotency_key": "f"})
    assert client.v1.payment_intents.create({"amount": 50, "currency": "usd"}, {"idempotency_key": "f"}).amount == 50


def test_a_request_in_flight_keeps_its_key(simulator: Simulated, stripe_key: str) -> None:
    simulator.fault("slow", seconds=0.5, key=stripe_key)
    found: list[int] = []

    def ask() -> None:
        found.append(raw(simulator, "POST", "/v1/customers", "name=Ada", **form(stripe_key, "k"))[0])

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    ask()
    thread.join()
    assert found == [409, 200]
    assert len(simulator.book(stripe_key)["customers"]) == 1


# --- faults ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_lost_after_the_work_was_done(
    simulator: Simulated, client: Client, stripe_key: str, customer: str
) -> None:
    made = intent_of(client, customer)
    asked: Any = {"payment_method": card_of(client, customer), "off_session": True}
    simulator.fault("timeout_after_effect", route="payment_intents.confirm", key=stripe_key)
    with pytest.raises(stripe.APIConnectionError):
        client.v1.payment_intents.confirm(made.id, asked, {"idempotency_key": "c"})
    assert client.v1.payment_intents.retrieve(made.id).status == "succeeded"
    again = client.v1.payment_intents.confirm(made.id, asked, {"idempotency_key": "c"})
    assert again.status == "succeeded"
    assert again.last_response is not None
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert len(simulator.book(stripe_key)["charges"]) == 1


def test_a_request_is_lost_before_anything_was_done(simulator: Simulated, client: Client, stripe_key: str) -> None:
    simulator.fault("timeout_before_effect", method="POST", key=stripe_key, seconds=0.05)
    with pytest.raises(stripe.APIConnectionError):
        client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "c"})
    assert not simulator.book(stripe_key)["customers"]
    assert client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "c"}).name == "Ada"


@pytest.mark.parametrize(
    ("kind", "error", "done"),
    [
        ("429", stripe.RateLimitError, 0),
        ("lock_timeout", stripe.RateLimitError, 0),
        ("500_before", stripe.APIError, 0),
        ("500_after_effect", stripe.APIError, 2),
    ],
)
def test_a_fault_strikes_as_often_as_it_was_told(
    simulator: Simulated,
    client: Client,
    stripe_key: str,
    kind: str,
    error: type[stripe.StripeError],
    done: int,
) -> None:
    simulator.fault(kind, path="/v1/cus*", key=stripe_key, times=2)
    for name in ("a", "b"):
        with pytest.raises(error):
            client.v1.customers.create({"name": name}, {"idempotency_key": name})
    assert len(simulator.book(stripe_key)["customers"]) == done
    if done:  # the 500 is the answer that is kept
        with pytest.raises(error):
            client.v1.customers.create({"name": "a"}, {"idempotency_key": "a"})
    else:
        assert client.v1.customers.create({"name": "a"}, {"idempotency_key": "a"}).name == "a"


def test_chance_can_be_repeated(simulator: Simulated, stripe_key: str) -> None:
    def statuses() -> list[int]:
        simulator.fault("500_before", probability=0.5, seed=7, key=stripe_key)
        found = [raw(simulator, "GET", "/v1/customers", **form(stripe_key))[0] for _ in range(20)]
        simulator.heal()
        return found

    first = statuses()
    assert set(first) == {200, 500}
    assert statuses() == first


def test_the_rate_is_measured_and_limited(simulator: Simulated, client: Client, stripe_key: str) -> None:
    simulator.set_key(stripe_key, requests_per_second=5)
    for _ in range(5):
        client.v1.customers.list()
    with pytest.raises(stripe.RateLimitError):
        client.v1.customers.list()
    assert simulator.rate(stripe_key) == {"peak_per_second": 6, "total": 6}


# --- events ----------------------------------------------------------------------------------------------------------


class Inbox:
    """An endpoint that keeps what it is sent, and refuses the first few."""

    def __init__(self, refusals: int = 0) -> None:
        self.taken: list[tuple[str, str]] = []
        inbox = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                nonlocal refusals
                body = self.rfile.read(int(self.headers["content-length"]))
                event = stripe.Webhook.construct_event(body, self.headers["stripe-signature"], SECRET)
                refusals -= 1
                if refusals < 0:
                    inbox.taken.append((event.id, event.type))
                self.send_response(200 if refusals < 0 else 500)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?x=1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def types(self) -> list[str]:
        return [kind for _, kind in self.taken]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def inbox_of() -> Iterator[Callable[[int], Inbox]]:
    opened: list[Inbox] = []

    def make(refusals: int) -> Inbox:
        opened.append(Inbox(refusals))
        return opened[-1]

    yield make
    for inbox in opened:
        inbox.close()


@pytest.fixture
def inbox(inbox_of: Callable[[int], Inbox]) -> Inbox:
    return inbox_of(0)


def test_every_change_is_told_and_signed(
    simulator: Simulated, client: Client, stripe_key: str, customer: str, inbox: Inbox
) -> None:
    endpoint = simulator.endpoint(stripe_key, inbox.url)
    assert simulator.endpoint(stripe_key, inbox.url)["id"] == endpoint["id"]
    paid(client, customer)
    simulator.flush()
    assert sorted(inbox.types) == [
        "charge.succeeded",
        "payment_intent.created",
        "payment_intent.succeeded",
        "payment_method.attached",
    ]
    assert simulator.book(stripe_key)["undelivered"] == 0
    client.v1.webhook_endpoints.delete(endpoint["id"])
    paid(client, customer)
    simulator.flush()
    assert len(inbox.taken) == 4


def test_an_endpoint_hears_what_it_asked_for(client: Client) -> None:
    made = client.v1.webhook_endpoints.create({"url": "http://127.0.0.1:9/x", "enabled_events": ["charge.succeeded"]})
    assert str(made.secret).startswith("whsec_")
    client.v1.customers.create({})
    listed = client.v1.webhook_endpoints.list().data
    assert [(found.id, getattr(found, "secret", None)) for found in listed] == [(made.id, None)]


def test_an_event_that_was_refused_is_sent_again(
    simulator: Simulated, client: Client, stripe_key: str, inbox_of: Callable[[int], Inbox]
) -> None:
    inbox = inbox_of(2)
    simulator.endpoint(stripe_key, inbox.url)
    client.v1.customers.create({})
    give_up_at = time.monotonic() + 10
    while not inbox.taken and time.monotonic() < give_up_at:
        simulator.flush()
    assert inbox.types == ["customer.created"]


def test_events_are_doubled_dropped_delayed_and_shuffled(
    simulator: Simulated, client: Client, stripe_key: str, inbox: Inbox
) -> None:
    simulator.endpoint(stripe_key, inbox.url)
    simulator.fault("duplicate", copies=3, key=stripe_key)
    client.v1.customers.create({})
    simulator.flush()
    assert len(inbox.taken) == 3
    assert len(set(inbox.taken)) == 1
    simulator.fault("drop", event="customer.*", key=stripe_key)
    client.v1.customers.create({})
    simulator.fault("delay", seconds=300, key=stripe_key)
    client.v1.customers.create({})
    time.sleep(0.05)
    assert len(inbox.taken) == 3
    simulator.flush()
    assert len(inbox.taken) == 4
    simulator.fault("shuffle", key=stripe_key)
    made = [client.v1.customers.create({"name": str(number)}).id for number in range(12)]
    assert len(inbox.taken) == 4
    simulator.flush(seed=3)
    order = [client.v1.events.retrieve(id).data.object["id"] for id, _ in inbox.taken[4:]]
    assert sorted(order) == sorted(made)
    assert order != made


# --- the book --------------------------------------------------------------------------------------------------------


class Process:
    """The simulator as a process of its own."""

    def __init__(self, data: Path) -> None:
        command = [sys.executable, "-m", "tenuto.cli", "stripe-simulator", "--port", "0", "--data", str(data)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        self.url = self._process.stderr.readline().split(" at ")[1].strip()

    def end(self, with_signal: int = signal.SIGTERM) -> None:
        self._process.send_signal(with_signal)
        self._process.wait(10)
        assert self._process.stderr is not None
        self._process.stderr.close()


@pytest.fixture
def started() -> Iterator[Callable[[Path], Process]]:
    running: list[Process] = []

    def start(data: Path) -> Process:
        running.append(Process(data))
        return running[-1]

    yield start
    for process in running:
        process.end(signal.SIGKILL)


def test_what_was_answered_outlives_a_kill(
    tmp_path: Path, stripe_key: str, client_of: Made, inbox: Inbox, started: Callable[[Path], Process]
) -> None:
    data = tmp_path / "book.ndjson"
    process = started(data)
    client = client_of(process.url, stripe_key)
    customer = client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "k"}).id
    closed: Any = {"url": inbox.url, "enabled_events": ["*"]}
    intent = paid(client, customer)
    client.v1.refunds.create({"payment_intent": intent.id, "amount": 1})
    waiting = paid(client, customer, "pm_card_simulatorProcessing").id
    client.v1.webhook_endpoints.create(closed)
    process.end(signal.SIGKILL)
    with data.open("ab") as journal:
        journal.write(b'{"account":"sk_te')  # torn: it was never answered

    process = started(data)
    again = client_of(process.url, stripe_key)
    assert again.v1.customers.create({"name": "Ada"}, {"idempotency_key": "k"}).id == customer
    assert again.v1.payment_intents.retrieve(intent.id).to_dict() == intent.to_dict()
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        again.v1.refunds.create({"payment_intent": intent.id, "amount": 1000})
    assert [found.id for found in again.v1.payment_intents.list({"customer": customer}).data] == [waiting, intent.id]
    events = [(event.id, event.data.object["id"]) for event in again.v1.events.list({"limit": 100}).data]
    process.end()
    book = Book(data)
    assert [(event.id, event.object_id) for event in book.accounts[stripe_key].events.values()] == events[::-1]
    assert book.next_due(is_released=True) == (book.accounts[stripe_key], waiting, "paid")
    book.close()


def test_an_event_that_was_not_delivered_is_sent_by_the_next_process(
    tmp_path: Path, stripe_key: str, client_of: Made, inbox: Inbox
) -> None:
    data = tmp_path / "book.ndjson"
    with Simulated(data) as first:
        first.endpoint(stripe_key, inbox.url)
        first.fault("shuffle")
        client_of(first.url, stripe_key).v1.customers.create({})
        assert first.book(stripe_key)["undelivered"] == 1
    with Simulated(data) as second:
        second.flush()
        assert inbox.types == ["customer.created"]
        assert second.book(stripe_key)["undelivered"] == 0


def test_a_journal_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "book.ndjson"
    data.write_bytes(b"nonsense\n{}\n")
    with pytest.raises(ValueError, match="line 1 of the journal"):
        Book(data)
    assert data.read_bytes() == b"nonsense\n{}\n"


def test_a_book_is_kept_by_one_simulator_at_a_time(tmp_path: Path) -> None:
    data = tmp_path / "book.ndjson"
    first = Book(data)
    with pytest.raises(ValueError, match="another simulator"):
        Book(data)
    first.close()
    Book(data).close()
