"""Home: what is shown, and that it is shown as it comes in."""

from __future__ import annotations

import http.client
import time

from tests.console.visitor import Visitor


def test_a_new_company_is_told_its_first_steps(visitor: Visitor) -> None:
    seen = visitor.visit("/")
    assert seen.status == 200
    assert "No event has come in yet." in seen.words
    steps = visitor.visit("/control/steps")
    assert "Publish a plan" in steps.words
    assert steps.text.count('class="done"') == 1, "the sandbox charges cards from the start"


def test_an_event_stands_in_home_within_a_second(visitor: Visitor) -> None:
    account = visitor.company.account(USD=1000)
    visitor.company.price("CHAT", "USD", "3")
    connection = http.client.HTTPConnection(*visitor.address, timeout=10)
    cookie = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    connection.request("GET", "/control/stream", None, {"cookie": cookie})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    assert answer.readline().startswith(b": here")
    sent = visitor.company.call("POST", f"/v1/accounts/{account}/events", {"type": "CHAT"})
    begun = time.monotonic()
    heard = b""
    while sent.data["id"].encode() not in heard:
        heard += answer.readline()
    assert time.monotonic() - begun < 1
    assert b"event: usage" in heard
    answer.close()
    connection.close()
