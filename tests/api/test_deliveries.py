"""Deliveries by the real courier to real receivers, good and bad ones: everything arrives, and nobody waits for others.

What would take hours is moved in the database (the moment of the next attempt, the moment since which one fails).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final, NamedTuple

import asyncpg
import pytest

from tenuto.core.notification import JITTER_PERCENT, SCHEDULE
from tenuto.server import Server
from tests.client import Client
from tests.hearing import NOTIFICATIONS, Hearer, Hook
from tests.receivers import (
    Gate,
    Message,
    Receiver,
    Receivers,
    answer,
    drip,
    flood,
    hang,
    redirect,
    reset,
    until,
)

P95_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 15.0
EVENTS: Final = 10


def number(id: str) -> int:
    return int(id.partition("_")[2], 36)


async def due(rows: asyncpg.Connection, hook: Hook) -> None:
    """Let the hours pass until the next attempts of what waits for a webhook."""
    await rows.execute(
        "update delivery set next_attempt_at = now() where webhook_id = $1 and status = 'waiting'", number(hook.id)
    )


def sequences(messages: Sequence[Message]) -> list[int]:
    return [message.data["sequence"] for message in messages]


def assert_same_on_each_attempt(messages: Sequence[Message], secret: str) -> None:
    """Identical bytes and id, and a signature of its own for every attempt."""
    bodies: defaultdict[str, set[bytes]] = defaultdict(set)
    for message in messages:
        bodies[message.id].add(message.body)
        assert message.verified(secret)["id"] == message.id
    assert all(len(found) == 1 for found in bodies.values())


# --- everything arrives -----------------------------------------------------------------------------------------------

_BAD_DAYS: Final = {
    "statuses": (answer(500), answer(404), answer(429), answer(100 + 299), answer(200)),
    "a redirect": (redirect("http://127.0.0.1:1/"), answer(202)),
    "gone": (answer(410), answer(204)),
    "resets": (reset, reset, answer(201)),
    "a gigabyte": (flood, answer(200)),
}


@pytest.mark.parametrize("day", _BAD_DAYS)
async def test_every_message_arrives_though_each_fails_by_schedule(
    hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection, day: str
) -> None:
    turns = _BAD_DAYS[day]
    receiver, account = receivers.open(*turns, per_message=True), hearer.account(tokens=100)
    hook = hearer.hook(receiver, "balance_change", max_in_flight=10)
    for _ in range(EVENTS):
        hearer.spend(account)

    for failed in range(1, len(turns)):
        counted = receiver.until(lambda came, n=failed: Counter(Counter(m.id for m in came).values())[n] == EVENTS)  # type: ignore[misc] # mypy cannot type a default
        assert len(counted) == failed * EVENTS
        until(lambda n=failed: all(log["attempt_count"] == n for log in hearer.logs(hook)))  # type: ignore[misc] # likewise
        assert {log["status"] for log in hearer.logs(hook)} == {"waiting"}
        await due(rows, hook)
    messages = receiver.wait(len(turns) * EVENTS)
    until(lambda: all(log["status"] == "delivered" for log in hearer.logs(hook)))

    assert_same_on_each_attempt(messages, hook.secret)
    assert sorted(sequences(messages)) == sorted([*range(2, EVENTS + 2)] * len(turns))
    assert hearer.done(hook, "GET")["failing_since"] is None
    for log in hearer.logs(hook):
        whole = hearer.log(hook, log["id"])
        assert len(whole["attempts"]) == len(turns)
        assert whole["body"] == next(message.told for message in messages if message.id == log["id"])


async def test_an_answer_is_kept_in_the_log_but_only_its_beginning(
    hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection
) -> None:
    receiver = receivers.open(
        answer(500, b"out \0of order"), flood, answer(302, location="/hook"), answer(200, b"x" * 9000)
    )
    hook = hearer.hook(receiver)
    hearer.done(hook, "POST", "/test", {})
    (message,) = receiver.wait(1)
    for attempts in range(1, 4):
        hearer.logged(hook, message.id, attempt_count=attempts)
        await due(rows, hook)

    log = hearer.logged(hook, message.id, status="delivered")

    assert [(one["status"], one["error"]) for one in log["attempts"]] == [
        *((500, None), (200, "too_large"), (302, None), (200, None)),
    ]
    assert log["attempts"][0]["answer"] == "out of order"
    assert log["attempts"][3]["answer"] == "x" * 2048
    assert {one["url"] for one in log["attempts"]} == {receiver.url}
    assert (log["last_status"], log["last_error"], log["next_attempt_at"]) == (200, None, None)
    assert len(receiver.messages) == 4  # the redirect was led nowhere


async def test_a_redirect_is_not_followed(hearer: Hearer, receivers: Receivers) -> None:
    inside = receivers.open()
    receiver = receivers.open(redirect(inside.url))
    hook = hearer.hook(receiver)

    hearer.done(hook, "POST", "/test", {})
    (message,) = receiver.wait(1)
    log = hearer.logged(hook, message.id, attempt_count=1)

    assert (log["status"], log["last_status"]) == ("waiting", 302)
    assert inside.messages == []


# --- when it is tried again -------------------------------------------------------------------------------------------


def wait_of(log: Any) -> timedelta:
    """How long after the last attempt the next one is."""
    return datetime.fromisoformat(log["next_attempt_at"]) - datetime.fromisoformat(log["attempts"][-1]["at"])


async def test_attempts_follow_the_schedule_and_end(
    hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection
) -> None:
    receiver = receivers.open(answer(503))
    hook = hearer.hook(receiver)
    hearer.done(hook, "POST", "/test", {})
    (message,) = receiver.wait(1)

    for attempts, least in enumerate(SCHEDULE, 1):
        log = hearer.logged(hook, message.id, attempt_count=attempts)
        most = least * (100 + JITTER_PERCENT) / 100
        assert log["status"] == "waiting"
        assert least <= wait_of(log) <= most, attempts
        await due(rows, hook)
    log = hearer.logged(hook, message.id, attempt_count=len(SCHEDULE) + 1)

    assert sum(SCHEDULE, timedelta()) >= timedelta(hours=72)
    assert (log["status"], log["next_attempt_at"], log["finished_at"] is None) == ("failed", None, False)
    assert len({found.body for found in receiver.messages}) == 1
    assert len(receiver.messages) == len(SCHEDULE) + 1
    assert hearer.done(hook, "GET")["status"] == "failing"


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("600", 600, 600),
        ("1", 5, 5.5),
        ("99999999", 86_400, 86_400),
        ("a while", 5, 5.5),
        ("-5", 5, 5.5),
        ("a date", 540, 600),
    ],
)
def test_a_receiver_may_ask_for_time(
    hearer: Hearer, receivers: Receivers, said: str, least: float, most: float
) -> None:
    in_ten_minutes = datetime.now().astimezone() + timedelta(minutes=10)
    receiver = receivers.open(answer(503, retry_after=format_datetime(in_ten_minutes) if said == "a date" else said))
    hook = hearer.hook(receiver)

    hearer.done(hook, "POST", "/test", {})
    (message,) = receiver.wait(1)

    assert least <= wait_of(hearer.logged(hook, message.id, attempt_count=1)).total_seconds() <= most


async def test_a_failing_webhook_is_asked_one_at_a_time(
    hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection
) -> None:
    gate = Gate()
    receiver, account = receivers.open(answer(500), gate), hearer.account(tokens=10)
    hook = hearer.hook(receiver, "balance_change", max_in_flight=5)
    hearer.spend(account)
    (first,) = receiver.wait(1)
    hearer.logged(hook, first.id, attempt_count=1)

    for _ in range(4):
        hearer.spend(account)
    receiver.wait(2)
    until(lambda: len(hearer.logs(hook)) == 5)
    assert len(receiver.messages) == 2
    gate.let_go()
    receiver.wait(5)
    await due(rows, hook)
    assert sorted(set(sequences(receiver.wait(6)))) == [2, 3, 4, 5, 6]


def test_no_more_are_under_way_than_a_webhook_allows(hearer: Hearer, receivers: Receivers) -> None:
    gate = Gate()
    receiver, account = receivers.open(gate), hearer.account(tokens=100)
    marker, hook = receivers.open(), hearer.hook(receiver, "balance_change", max_in_flight=3)
    for _ in range(7):
        hearer.spend(account)
    receiver.wait(3)
    other = hearer.hook(marker, "balance_change")
    hearer.spend(account)
    marker.wait(1)
    hearer.logged(other, marker.messages[0].id, status="delivered")

    assert len(receiver.messages) == 3  # though all had been published before the marker was
    gate.let_go()
    assert sorted(sequences(receiver.wait(8))) == [*range(2, 10)]
    until(lambda: len(hearer.logs(hook, "status=delivered")) == 8)
    assert len(receiver.messages) == 8


# --- merging ----------------------------------------------------------------------------------------------------------


def test_changes_that_wait_together_become_one(hearer: Hearer, receivers: Receivers) -> None:
    gate = Gate()
    receiver, account = receivers.open(gate), hearer.account(tokens=100, credits=100)
    hook = hearer.hook(receiver, "balance_change", merge_balance_changes=True, max_in_flight=1)
    hearer.spend(account, 1)
    (first,) = receiver.wait(1)
    for amount in range(2, 9):
        hearer.spend(account, amount)
        hearer.spend(account, 1, "credits")
    until(lambda: len(hearer.logs(hook)) == 15)
    gate.let_go()

    _, *later = receiver.wait(3)
    until(lambda: not hearer.logs(hook, "status=waiting"))

    assert sequences([first]) == [2]
    assert "merged_from_sequence" not in first.data
    merged = {message.data["denomination"]: message for message in later}
    for denomination, amount, before, first_of, last in (
        ("tokens", 100 - 36, 99, 3, 9),
        ("credits", 93, 100, 2, 8),
    ):
        data = merged[denomination].data
        assert merged[denomination].verified(hook.secret) == merged[denomination].told
        assert (data["amount"], data["available"], data["previous_amount"]) == (amount, amount, before)
        assert data["change"] == amount - before
        assert (data["merged_from_sequence"], data["sequence"]) == (first_of, last)
    logs = hearer.logs(hook)
    assert Counter(log["status"] for log in logs) == {"delivered": 3, "merged": 12}
    ids = {message.id for message in later}
    assert all((log["merged_into"] in ids) is (log["status"] == "merged") for log in logs)
    assert len(receiver.messages) == 3
    assert sorted(one["data"]["sequence"] for one in hearer.told(8, denomination="tokens")) == [*range(2, 10)]


def test_what_is_on_its_way_is_not_merged_into_what_comes_later(hearer: Hearer, receivers: Receivers) -> None:
    gate = Gate()
    receiver, account = receivers.open(gate), hearer.account(tokens=100)
    hook = hearer.hook(receiver, "balance_change", merge_balance_changes=True, max_in_flight=2)
    hearer.spend(account)
    receiver.wait(1)
    hearer.spend(account)
    receiver.wait(2)
    gate.let_go()
    until(lambda: not hearer.logs(hook, "status=waiting"))

    first, second = receiver.messages
    assert sequences([first, second]) == [2, 3]
    assert "merged_from_sequence" not in second.data
    assert [log["status"] for log in hearer.logs(hook)] == ["delivered", "delivered"]


async def test_what_was_merged_stays_so_on_each_attempt(
    hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection
) -> None:
    receiver, account = receivers.open(answer(500), answer(500), answer(200)), hearer.account(tokens=100)
    hook = hearer.hook(receiver, "balance_change", merge_balance_changes=True)
    hearer.done(hook, "PUT", body={"paused": True})
    for _ in range(3):
        hearer.spend(account)
    until(lambda: len(hearer.logs(hook)) == 3)
    hearer.done(hook, "PUT", body={"paused": False})
    (first,) = receiver.wait(1)
    hearer.logged(hook, first.id, attempt_count=1)
    hearer.spend(account)
    receiver.wait(2)
    until(lambda: all(log["attempt_count"] for log in hearer.logs(hook, "status=waiting")))
    await due(rows, hook)

    until(lambda: not hearer.logs(hook, "status=waiting"))
    messages = receiver.messages

    assert_same_on_each_attempt(messages, hook.secret)
    assert first.data["merged_from_sequence"] == 2
    assert set(sequences(messages)) == {4, 5}
    assert Counter(log["status"] for log in hearer.logs(hook)) == {"delivered": 2, "merged": 2}


# --- again ------------------------------------------------------------------------------------------------------------


async def test_what_was_sent_can_be_sent_again(hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection) -> None:
    receiver, account = receivers.open(), hearer.account(tokens=100)
    hook = hearer.hook(receiver, "balance_change")
    for _ in range(6):
        hearer.spend(account)
    receiver.wait(6)
    until(lambda: len(hearer.logs(hook, "status=delivered")) == 6)
    ids = [log["id"] for log in reversed(hearer.logs(hook))]
    await rows.execute(
        "update delivery set status = 'failed' where webhook_id = $1 and position in (2, 5)", number(hook.id)
    )

    def again(path: str, body: object, *expected: str) -> None:
        before = len(receiver.messages)
        assert hearer.done(hook, "POST", path, body) == {"count": len(expected)}
        came = receiver.wait(before + len(expected))[before:]
        assert sorted(message.id for message in came) == sorted(expected)
        until(lambda: not hearer.logs(hook, "status=waiting"))

    changed = hearer.call("PUT", f"/v1/accounts/{account}", {"metadata": {"crm": "4711"}, "name": "Eve"})
    assert changed.status == 200  # what was said once is not said otherwise later
    again(f"/logs/{ids[0]}/replay", None, ids[0])
    again("/replay", {"status": "failed"}, ids[1], ids[4])
    again("/replay", {"status": "failed"})
    again("/replay", {"from_id": ids[1], "to_id": ids[3]}, *ids[1:4])
    again("/replay", {"from_id": ids[4]}, *ids[4:])
    again("/replay", {"to_id": ids[1], "status": "delivered"}, *ids[:2])

    assert_same_on_each_attempt(receiver.messages, hook.secret)
    whole = hearer.log(hook, ids[1])
    assert (whole["status"], len(whole["attempts"])) == ("delivered", 4)
    assert len(receiver.messages) == 6 + 1 + 2 + 3 + 2 + 2


def test_a_foreign_notification_is_not_sent_again(
    calling_service: Server, hearer: Hearer, receivers: Receivers
) -> None:
    """Both are the first of their companies: only whose they are tells them apart."""
    with Client(*calling_service.address) as line:
        other = Hearer.begin(line)
        sides = []
        for company in (hearer, other):
            receiver, account = receivers.open(), company.account(tokens=5)
            hook = company.hook(receiver, "balance_change")
            company.spend(account)
            (message,) = receiver.wait(1)
            company.logged(hook, message.id, status="delivered")
            sides.append((receiver, hook, message.id))
    (receiver, hook, mine), (_, _, theirs) = sides

    for path, method in ((f"/logs/{theirs}", "GET"), (f"/logs/{theirs}/replay", "POST")):
        reply = hearer.of(hook, method, path)
        assert (reply.status, reply.code) == (404, "not_found"), path
    assert hearer.done(hook, "POST", f"/logs/{mine}/replay") == {"count": 1}
    assert [message.id for message in receiver.wait(2)] == [mine, mine]


# --- a webhook that fails for days ------------------------------------------------------------------------------------


async def test_a_webhook_that_fails_for_days_is_paused_loudly_and_goes_on_when_it_is_told(
    hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection
) -> None:
    ill, well, account = receivers.open(answer(500)), receivers.open(), hearer.account(tokens=100)
    hook, other = hearer.hook(ill, "balance_change", "webhook.paused"), hearer.hook(well, "webhook.paused")
    hearer.spend(account)
    hearer.logged(hook, ill.wait(1)[0].id, attempt_count=1)
    before = hearer.done(hook, "GET")
    assert (before["status"], before["failing_since"] is None) == ("failing", False)

    await rows.execute(
        "update webhook set failing_since = now() - interval '4 days 23 hours' where id = $1", number(hook.id)
    )
    await due(rows, hook)
    hearer.logged(hook, ill.messages[0].id, attempt_count=2)
    assert hearer.done(hook, "GET")["status"] == "failing"
    await rows.execute("update webhook set failing_since = now() - interval '5 days' where id = $1", number(hook.id))
    await due(rows, hook)

    (said,) = well.wait(1)
    paused = hearer.done(hook, "GET")
    assert (paused["status"], paused["paused_by"]) == ("paused", "failures")
    told = said.verified(other.secret)
    assert (told["topic"], told["data"]["webhook_id"], told["data"]["url"]) == ("webhook.paused", hook.id, ill.url)
    assert told["data"]["waiting"] == 1

    asked = len(ill.messages)
    hearer.spend(account)
    until(lambda: len(hearer.logs(hook, "status=waiting")) == 3)  # its own pause among them
    await due(rows, hook)
    well_again = len(well.messages)
    hearer.done(other, "POST", "/test", {})
    well.wait(well_again + 1)
    assert len(ill.messages) == asked

    ill.behave(answer(200))
    resumed = hearer.done(hook, "PUT", body={"paused": False})
    assert (resumed["status"], resumed["failing_since"], resumed["paused_by"]) == ("active", None, None)
    until(lambda: len(hearer.logs(hook, "status=delivered")) == 3)
    assert_same_on_each_attempt(ill.messages, hook.secret)


def test_a_paused_webhook_gets_nothing_until_it_goes_on(hearer: Hearer, receivers: Receivers) -> None:
    receiver, other, account = receivers.open(), receivers.open(), hearer.account(tokens=100)
    hook, _ = hearer.hook(receiver, "balance_change"), hearer.hook(other, "balance_change")
    hearer.done(hook, "PUT", body={"paused": True})
    for _ in range(3):
        hearer.spend(account)
    other.wait(3)
    assert receiver.messages == []

    hearer.done(hook, "PUT", body={"paused": False})

    assert sorted(sequences(receiver.wait(3))) == [2, 3, 4]


async def test_what_waits_for_a_deleted_webhook_is_not_sent_any_more(
    hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection
) -> None:
    receiver, marker, account = receivers.open(answer(500)), receivers.open(), hearer.account(tokens=100)
    hook, other = hearer.hook(receiver, "balance_change"), hearer.hook(marker)
    for _ in range(3):
        hearer.spend(account)
    until(lambda: sum(log["attempt_count"] for log in hearer.logs(hook)) == 3)

    hearer.done(hook, "DELETE")
    await due(rows, hook)
    hearer.done(other, "POST", "/test", {})
    marker.wait(1)

    assert len(receiver.messages) == 3
    assert await rows.fetchval("select count(*) from delivery where webhook_id = $1", number(hook.id)) == 0


async def test_one_company_that_cannot_be_published_does_not_stop_the_others(
    calling_service: Server, hearer: Hearer, receivers: Receivers, rows: asyncpg.Connection
) -> None:
    """A fact of a topic that this version does not know: written by a later one, which was taken back."""
    hearer.hook(None, "*")
    environment_id = await rows.fetchval("select environment_id from webhook order by created_at desc limit 1")
    id = await rows.fetchval(
        "insert into notification (environment_id, topic, by_rule, data, created_at)"
        " values ($1, 'of.tomorrow', false, '{}', now()) returning id",
        environment_id,
    )
    try:
        with Client(*calling_service.address) as line:
            other, receiver = Hearer.begin(line), receivers.open()
            hook = other.hook(receiver)
            other.done(hook, "POST", "/test", {})
            receiver.wait(1)
    finally:
        await rows.execute("delete from notification where environment_id = $1 and id = $2", environment_id, id)
    hearer.spend(hearer.account(tokens=1))
    assert len(hearer.told(2)) >= 2


# --- the log that is asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["after", "cursor"])
def test_the_log_is_whole_and_in_order_while_it_is_written(calling_service: Server, hearer: Hearer, way: str) -> None:
    hearer.hook(None, "balance_change")
    accounts, each = [hearer.account(tokens=1000) for _ in range(4)], 40

    def write(account: str) -> None:
        with Client(*calling_service.address) as line:
            writer = Hearer(line, hearer.id, hearer.key)
            for _ in range(each):
                writer.spend(account)

    read: list[Any] = []
    with ThreadPoolExecutor(len(accounts)) as pool:
        writing = [pool.submit(write, account) for account in accounts]
        after = cursor = ""
        give_up_at = time.monotonic() + 30
        while len(read) < len(accounts) * (each + 1) and time.monotonic() < give_up_at:
            page = hearer.call("GET", f"{NOTIFICATIONS}?limit=7{after}{cursor}")
            read += page.data
            if way == "cursor" and page.body["has_more"]:
                cursor = f"&cursor={page.body['next_cursor']}"
            elif page.data:
                after, cursor = f"&after={page.data[-1]['id']}", ""
        for done in writing:
            done.result()

    by_account: defaultdict[str, list[int]] = defaultdict(list)
    for one in read:
        by_account[one["account_id"]].append(one["data"]["sequence"])
    assert by_account == {account: [*range(1, each + 2)] for account in accounts}
    assert read == hearer.told(len(read))


# --- others do not wait -----------------------------------------------------------------------------------------------


class Patience(NamedTuple):
    """Receivers that were begun with: their ends come later, while other tests are under way."""

    hearer: Hearer
    hooks: dict[str, Hook]
    receivers: dict[str, Receiver]
    began_at: float


@pytest.fixture(scope="module", autouse=True)
def patience(calling_service: Server, receivers: Receivers) -> Iterator[Patience]:
    """One that never answers and one that never ends, begun with before all the tests of this module."""
    with Client(*calling_service.address) as client:
        hearer = Hearer.begin(client)
        opened = {"hangs": receivers.open(hang), "drips": receivers.open(drip)}
        hooks = {name: hearer.hook(receiver) for name, receiver in opened.items()}
        for hook in hooks.values():
            hearer.done(hook, "POST", "/test", {})
        yield Patience(hearer, hooks, opened, time.monotonic())


def test_one_that_hangs_does_not_delay_nineteen_others(hearer: Hearer, receivers: Receivers) -> None:
    healthy, hanging, account = [receivers.open() for _ in range(19)], receivers.open(hang), hearer.account(tokens=1000)
    hooks = {receiver.url: hearer.hook(receiver, "balance_change") for receiver in (hanging, *healthy)}
    hearer.spend(account)
    hanging.wait(1)

    said: dict[int, float] = {}
    for _ in range(20):
        said[hearer.spend(account)["balance"]["amount"]] = time.monotonic()

    delays: list[float] = []
    for receiver in healthy:
        messages = receiver.wait(21)
        assert sorted(sequences(messages)) == [*range(2, 23)]
        assert all(message.verified(hooks[receiver.url].secret) for message in messages)
        delays += [message.at - said[message.data["amount"]] for message in messages if message.data["amount"] in said]
    assert len(delays) == 19 * 20
    assert sorted(delays)[int(len(delays) * 0.95)] <= P95_SECONDS
    assert len(hanging.messages) <= 2


@pytest.mark.parametrize("kind", ["hangs", "drips"])
def test_one_that_never_comes_to_an_end_is_cut(patience: Patience, kind: str) -> None:
    hook, receiver = patience.hooks[kind], patience.receivers[kind]
    (message, *_) = receiver.wait(1)

    log = patience.hearer.logged(hook, message.id, attempt_count=1)

    (attempt,) = log["attempts"]
    assert (attempt["error"], attempt["status"]) == ("timeout", 200 if kind == "drips" else None)
    assert abs(attempt["ms"] - TOTAL_SECONDS * 1000) <= 3000
    assert log["status"] == "waiting"


# --- the ordinary service calls nobody near ---------------------------------------------------------------------------


async def test_a_near_address_is_not_called_though_it_was_registered(service: Server, receivers: Receivers) -> None:
    receiver = receivers.open()
    rows = await asyncpg.connect(service.dsn)
    with Client(*service.address) as client:
        hearer = Hearer.begin(client)
        hook = hearer.hook()
        await rows.execute("update webhook set url = $2 where id = $1", number(hook.id), receiver.url)
        hearer.done(hook, "POST", "/test", {})
        until(lambda: any(log["attempt_count"] for log in hearer.logs(hook)))
        (log,) = hearer.logs(hook)
    await rows.close()

    assert (log["last_status"], log["last_error"]) == (None, "blocked_address")
    assert receiver.messages == []
