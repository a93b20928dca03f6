"""Webhooks leave by one door: real receivers on this machine that lie, hang, drip, flood and reset."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from tenuto.gateway import egress as door
from tenuto.gateway.addresses import Target
from tenuto.gateway.egress import ANSWER_BYTES_MAX, ERRORS, Egress, Posted
from tests.gateway.receivers import GIGABYTE, Authority, Behaviour, Visit, answering, flooding, once, receiving, silent

PUBLIC = "93.184.215.14"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@pytest.fixture(scope="module")
async def egress() -> AsyncIterator[Egress]:
    """The door of a developer, who calls this very machine."""
    made = Egress(allow_private=True)
    yield made
    await made.close()


@pytest.fixture(scope="module")
async def hasty() -> AsyncIterator[Egress]:
    """The same, with little time."""
    made = Egress(allow_private=True, connect_seconds=0.4, total_seconds=0.8)
    yield made
    await made.close()


async def post(egress: Egress, url: str, body: bytes = b"{}") -> Posted:
    posted = await egress.post(url, headers={"content-type": "application/json"}, body=body)
    assert posted.error is None or posted.error in ERRORS
    return posted


# --- the good receiver ------------------------------------------------------------------------------------------------


async def test_a_message_arrives_as_it_was_given_and_its_answer_is_told(egress: Egress) -> None:
    async with receiving(answering(OK)) as receiver:
        posted = await egress.post(
            f"{receiver.url}?a=%20b", headers={"webhook-id": "msg_1", "content-type": "text/x"}, body=b'{"n": 1}'
        )
        assert posted[:4] == (200, "ok", None, None)
        assert posted.is_taken
        assert 0 <= posted.ms < 15_000
    head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"n": 1}'
    assert head.startswith(b"post /hook?a=%20b http/1.1\r\n")
    lines = head.split(b"\r\n")
    port = receiver.address[1]
    for line in (f"host: 127.0.0.1:{port}", "webhook-id: msg_1", "content-type: text/x", "accept-encoding: identity"):
        assert line.encode() in lines


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_two_hundred_and_something_is_taken(egress: Egress, status: int) -> None:
    async with receiving(answering(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)) as receiver:
        assert (await post(egress, receiver.url)).is_taken


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 410, 429, 500, 503, 599, 999])
async def test_any_other_status_is_not_taken_and_no_error_of_the_line(egress: Egress, status: int) -> None:
    async with receiving(answering(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)) as receiver:
        posted = await post(egress, receiver.url)
        assert (posted.status, posted.error, posted.is_taken) == (status, None, False)


async def test_one_connection_serves_posts_that_follow_each_other(egress: Egress) -> None:
    async with receiving(answering(OK)) as receiver:
        for _ in range(20):
            assert (await post(egress, receiver.url)).is_taken
        assert (receiver.connections, len(receiver.requests)) == (1, 20)


async def test_no_cookie_comes_back(egress: Egress) -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: tracked=yes; Path=/\r\n\r\n")
    async with receiving(answering(answer)) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")  # cookies belong to names
        await post(egress, url)
        await post(egress, url)
    assert len(receiver.requests) == 2
    assert not any(b"cookie" in request for request in receiver.requests)


async def test_a_name_is_found_by_the_systems_resolver(egress: Egress) -> None:
    async with receiving(answering(OK)) as receiver:
        assert (await post(egress, f"http://localhost:{receiver.address[1]}/")).is_taken


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"120", "120"),
        (b"Fri, 31 Dec 2032 23:59:59 GMT", "Fri, 31 Dec 2032 23:59:59 GMT"),
        (b"-1", "-1"),
        (b"9" * 64, "9" * 64),
        (b"9" * 65, None),
        ("½".encode(), None),
    ],
)
async def test_retry_after_is_told_as_it_came_when_it_is_short(egress: Egress, line: bytes, told: str | None) -> None:
    answer = b"HTTP/1.1 429 Slow\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % line
    async with receiving(answering(answer)) as receiver:
        posted = await post(egress, receiver.url)
        assert (posted.status, posted.retry_after) == (429, told)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"a\0b\xff\xfec", "ab��c"),
        ("€".encode() * 3_000, "€" * 2_048),
        ("😀".encode() * 3_000, "😀" * 2_048),
        (b"x" * ANSWER_BYTES_MAX, "x" * 2_048),
        (b"", ""),
    ],
)
async def test_of_the_answer_a_page_of_storable_text_is_kept(egress: Egress, body: bytes, kept: str) -> None:
    async with receiving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))) as receiver:
        posted = await post(egress, receiver.url)
        assert (posted.answer, posted.error) == (kept, None)


# --- the bad receiver -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(egress: Egress, status: int) -> None:
    async with receiving(answering(OK)) as inner:
        to = b"HTTP/1.1 %d Go\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, inner.url.encode())
        async with receiving(answering(to)) as receiver:
            posted = await post(egress, receiver.url)
        assert (posted.status, posted.error, posted.is_taken) == (status, None, False)
        assert inner.connections == 0


async def dripping(visit: Visit) -> None:
    await visit.request()
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nslow")
    while True:
        await asyncio.sleep(0.02)  # the drip itself
        await visit.send(b".")


async def dripping_head(visit: Visit) -> None:
    await visit.request()
    for number in range(10_000):
        await asyncio.sleep(0.02)  # the drip itself
        await visit.send(b"HTTP/1.1 200 OK\r\nX: "[number : number + 1] or b"x")


@pytest.mark.parametrize(("behave", "status"), [(silent, None), (dripping_head, None), (dripping, 200)])
async def test_a_slow_receiver_is_left_when_the_time_is_over(behave: Behaviour, status: int | None) -> None:
    egress = Egress(allow_private=True, total_seconds=0.3)
    async with receiving(behave) as receiver:
        posted = await post(egress, receiver.url)
        assert (posted.status, posted.error, posted.is_taken) == (status, "timeout", False)
        assert posted.answer.startswith("slow.") == (behave is dripping)
        assert 290 <= posted.ms < 1_000
        await asyncio.wait_for(receiver.left.wait(), 1)
    await egress.close()


GIGABYTES = [
    flooding(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIGABYTE, b"x" * 8_192),
    flooding(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 8_192),
    flooding(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2000\r\n" + b"x" * 8_192 + b"\r\n"),
    flooding(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1_000),
    flooding(b"HTTP/1.1 500 Oh\r\nContent-Length: %d\r\n\r\n" % GIGABYTE, b"x" * 8_192),
]


@pytest.mark.parametrize("behave", GIGABYTES, ids=["sized", "endless", "chunked", "crumbs", "error"])
async def test_a_gigabyte_is_cut_off_and_costs_no_memory(egress: Egress, behave: Behaviour) -> None:
    async with receiving(behave) as receiver:
        tracemalloc.start()
        try:
            posted = await post(egress, receiver.url)
            await asyncio.wait_for(receiver.left.wait(), 2)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (posted.error, posted.is_taken) == ("too_large", False)
        assert posted.answer == "x" * 2_048
        assert receiver.sent < 2_000_000
        assert peak < 4_000_000


async def test_a_gzip_bomb_is_not_unpacked(egress: Egress) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with receiving(answering(head + bomb)) as receiver:
        tracemalloc.start()
        try:
            posted = await post(egress, receiver.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (posted.status, posted.answer, posted.error) == (200, "", None)
    assert len(bomb) < ANSWER_BYTES_MAX
    assert peak < 4_000_000


HEADS = {
    "one of 64 kB": b"X: " + b"x" * 65_536,
    "a hundred of 64 kB": b"\r\n".join([b"X: " + b"x" * 65_536] * 100),
    "a thousand of one": b"\r\n".join([b"X: x"] * 1_000),
    "a name of 64 kB": b"X" * 65_536 + b": x",
}


@pytest.mark.parametrize("lines", HEADS.values(), ids=list(HEADS))
async def test_a_huge_head_is_not_read(egress: Egress, lines: bytes) -> None:
    async with receiving(once(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\nContent-Length: 0\r\n\r\n")) as receiver:
        posted = await post(egress, receiver.url)
        assert (posted.status, posted.error) == (None, "bad_answer")


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n", b""])
async def test_a_head_without_end_is_cut_off(egress: Egress, start: bytes) -> None:
    async with receiving(flooding(start, b"x" * 8_192)) as receiver:
        posted = await post(egress, receiver.url)
        assert (posted.status, posted.error) == (None, "bad_answer")
        await asyncio.wait_for(receiver.left.wait(), 1)
        assert receiver.sent < 2_000_000


async def test_a_flood_of_provisional_answers_ends_in_time_and_others_are_served_meanwhile(hasty: Egress) -> None:
    async with (
        receiving(flooding(b"", b"HTTP/1.1 102 Wait\r\n\r\n" * 400)) as receiver,
        receiving(answering(OK)) as healthy,
    ):
        flooded = asyncio.create_task(post(hasty, receiver.url))
        await receiver.asked.wait()
        served = await post(hasty, healthy.url)
        assert not flooded.done()
        assert served.is_taken
        posted = await flooded
        assert (posted.status, posted.error) == (None, "timeout")
        assert posted.ms < 2_500
        await asyncio.wait_for(receiver.left.wait(), 1)


@pytest.mark.parametrize(
    "answer",
    [
        *(b"hello, this is HTTP/0.9\r\n", b"GARBAGE\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 99999 OK\r\n\r\n"),
        *(b"\0" * 100, b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
    ],
)
async def test_what_is_no_whole_answer_is_a_failed_attempt(egress: Egress, answer: bytes) -> None:
    async with receiving(once(answer)) as receiver:
        posted = await post(egress, receiver.url)
        assert posted.error == "bad_answer"
        assert not posted.is_taken


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_who_hangs_up_before_the_answer_is_disconnected(egress: Egress, answer: bytes) -> None:
    async with receiving(once(answer)) as receiver:
        posted = await post(egress, receiver.url)
        assert (posted.status, posted.error) == (None, "disconnected")


async def test_another_protocol_is_not_switched_to(egress: Egress) -> None:
    switch = b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    async with receiving(flooding(switch, b"x" * 8_192)) as receiver:
        assert not (await post(egress, receiver.url)).is_taken
        await asyncio.wait_for(receiver.left.wait(), 1)
        assert receiver.sent < 2_000_000


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_reset_in_the_middle_is_a_failed_attempt(egress: Egress, part: bytes) -> None:
    async def behave(visit: Visit) -> None:
        await visit.request()
        await visit.send(part)
        visit.reset()

    async with receiving(behave) as receiver:
        posted = await post(egress, receiver.url)
        assert posted.error in {"disconnected", "bad_answer"}
        assert not posted.is_taken


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_one_that_never_reads_our_message_is_left(hasty: Egress) -> None:
    async def behave(visit: Visit) -> None:
        visit.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport of both directions
        await asyncio.Event().wait()

    async with receiving(behave) as receiver:
        assert (await post(hasty, receiver.url, body=bytes(20_000_000))).error == "timeout"


async def test_where_nobody_listens_there_is_no_connection(egress: Egress) -> None:
    async with receiving(silent) as receiver:
        url = receiver.url
    assert (await post(egress, url)).error == "connect"


# --- names and addresses ----------------------------------------------------------------------------------------------


class Network:
    """The internet as this machine sees it: what is called is written down, and PUBLIC leads to a receiver of ours."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.leads_to: tuple[str, int] | None = None


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, event_loop_of_tests: asyncio.AbstractEventLoop) -> Network:
    found, connect = Network(), event_loop_of_tests.sock_connect

    async def sock_connect(sock: socket.socket, address: tuple[str, int]) -> None:
        found.called.append(address[0])
        if address[0] == PUBLIC and found.leads_to is not None:
            address = found.leads_to
        elif address[0] != "127.0.0.1":
            raise ConnectionRefusedError(address[0])  # no test leaves this machine
        await connect(sock, address)

    monkeypatch.setattr(event_loop_of_tests, "sock_connect", sock_connect)
    return found


@pytest.fixture
async def event_loop_of_tests() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


class Names:
    """A resolver whose answers are a list: each question takes the next, the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@asynccontextmanager
async def public_door(lookup: door.Lookup, **seconds: float) -> AsyncIterator[Egress]:
    egress = Egress(allow_private=False, lookup=lookup, **seconds)  # type: ignore[arg-type]  # all of them are times
    try:
        yield egress
    finally:
        await egress.close()


async def test_a_public_receiver_is_called_at_the_judged_address_by_its_name(
    network: Network, trusted: Authority
) -> None:
    names = Names([PUBLIC])
    async with receiving(answering(OK), tls=trusted.server("hooks.example")) as receiver, public_door(names) as egress:
        network.leads_to = receiver.address
        assert (await post(egress, "https://hooks.example/in")).is_taken
        assert (await post(egress, "https://hooks.example/in")).is_taken
        assert network.called == [PUBLIC]
        assert names.asked == 1
        assert b"host: hooks.example\r\n" in receiver.requests[0]


@pytest.mark.parametrize(
    "addresses",
    [
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [PUBLIC, "8.8.8.8", "1.1.1.1", "9.9.9.9", "8.8.4.4", "::1"],
        [PUBLIC, "169.254.169.254"],
        [PUBLIC, "::ffff:127.0.0.1"],
        [PUBLIC, "64:ff9b::7f00:1"],
        [PUBLIC, "fe80::1%lo"],
        [PUBLIC, "127.1"],
        [PUBLIC, ""],
        ["127.0.0.1"],
        ["10.0.0.1"],
    ],
)
async def test_a_name_with_one_address_that_is_near_is_not_called_at_any(
    network: Network, trusted: Authority, addresses: list[str]
) -> None:
    async with (
        receiving(answering(OK), tls=trusted.server("hooks.example")) as receiver,
        public_door(Names(addresses)) as egress,
    ):
        network.leads_to = receiver.address
        for port in (443, 8443):
            posted = await post(egress, f"https://hooks.example:{port}/")
            assert (posted.status, posted.error) == (None, "blocked_address")
        assert receiver.connections == 0
        assert network.called == []


async def test_of_a_name_with_many_addresses_a_few_are_tried(network: Network) -> None:
    async with public_door(Names([f"93.184.215.{number}" for number in range(100)])) as egress:
        assert (await post(egress, "https://hooks.example/")).error == "connect"
    assert set(network.called) == {f"93.184.215.{number}" for number in range(4)}


async def test_a_name_that_flips_is_only_ever_called_where_it_was_judged(network: Network, trusted: Authority) -> None:
    flips = [[PUBLIC], ["127.0.0.1"]] * 100
    names = Names(*flips)
    async with (
        receiving(answering(CLOSE), tls=trusted.server("hooks.example")) as receiver,
        public_door(names) as egress,
    ):
        network.leads_to = receiver.address
        ends = [(await post(egress, "https://hooks.example/")).error for _ in flips]
        assert ends == [None, "blocked_address"] * 100
        assert names.asked == 200
        assert network.called == [PUBLIC] * 100
        assert receiver.connections == 100


async def test_the_second_guard_stops_what_the_first_let_through(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trusting(url: str, *, allow_private: bool) -> Target:
        return Target(URL(url), "", 0)

    monkeypatch.setattr(door, "parse_target", trusting)
    async with receiving(answering(OK)) as receiver, public_door(Names([PUBLIC])) as egress:
        assert (await post(egress, receiver.url)).error == "blocked_address"
        assert receiver.connections == 0
        assert network.called == []


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://[::1]:8443/", "http://hooks.example/", "https://localhost/", "https://127.1/", "x"],
)
async def test_a_url_that_was_registered_under_other_rules_is_judged_again(network: Network, url: str) -> None:
    names = Names([PUBLIC])
    async with public_door(names) as egress:
        assert (await post(egress, url)).error == "blocked_address"
    assert (names.asked, network.called) == (0, [])


async def test_a_name_without_an_address_is_told(network: Network) -> None:
    async def nothing(_: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for lookup in (nothing, Names([])):
        async with public_door(lookup) as egress:
            assert (await post(egress, "https://hooks.example/")).error == "dns"
    assert network.called == []


async def test_a_name_that_hangs_is_asked_for_once_however_often_it_is_wanted() -> None:
    asked = 0

    async def hanging(_: str) -> Sequence[str]:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        return []

    egress = Egress(allow_private=False, lookup=hanging, connect_seconds=0.1)
    ends = await asyncio.gather(*(post(egress, "https://hooks.example/") for _ in range(20)))
    ends.append(await post(egress, "https://hooks.example/"))
    assert {posted.error for posted in ends} == {"connect_timeout"}
    assert asked == 1
    await egress.close()


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"])
async def test_no_proxy_and_no_password_file_of_the_environment_is_used(
    network: Network, trusted: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    passwords = tmp_path / "netrc"
    passwords.write_text("machine hooks.example login a password b\n")
    monkeypatch.setenv("NETRC", str(passwords))
    async with (
        receiving(answering(OK)) as proxy,
        receiving(answering(OK), tls=trusted.server("hooks.example")) as receiver,
    ):
        monkeypatch.setenv(variable, proxy.url)
        network.leads_to = receiver.address
        async with public_door(Names([PUBLIC])) as egress:
            assert (await post(egress, "https://hooks.example/")).is_taken
        assert proxy.connections == 0
        assert b"authorization" not in receiver.requests[0]


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "days", "is_trusted"),
    [("hooks.example", 30, False), ("other.example", 30, True), ("hooks.example", -1, True)],
    ids=["nobody vouches", "another name", "over"],
)
async def test_a_certificate_that_is_not_valid_gets_no_message(
    network: Network,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    days: int,
    *,
    is_trusted: bool,
) -> None:
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    # The server's side of a handshake that fails is told to the loop, and is no fault of the test.
    async with receiving(answering(OK), tls=authority.server(host, days=days)) as receiver:
        network.leads_to = receiver.address
        async with public_door(Names([PUBLIC])) as egress:
            posted = await post(egress, "https://hooks.example/")
        assert (posted.status, posted.error) == (None, "tls")
        assert receiver.requests == []


async def test_a_server_that_speaks_no_tls_gets_no_message(network: Network) -> None:
    async def behave(visit: Visit) -> None:
        visit.receiver.requests.append(await visit.reader.read(5))
        await visit.send(b"220 mail.example ESMTP\r\n" * 10)

    async with receiving(behave) as receiver, public_door(Names([PUBLIC])) as egress:
        network.leads_to = receiver.address
        assert (await post(egress, "https://hooks.example/")).error == "tls"
        assert receiver.requests == [b"\x16\x03\x01\x02\x00"]  # the beginning of a handshake


async def test_a_handshake_that_hangs_ends_with_the_time_to_connect(network: Network) -> None:
    async with receiving(silent) as receiver, public_door(Names([PUBLIC]), connect_seconds=0.4) as egress:
        network.leads_to = receiver.address
        posted = await post(egress, "https://hooks.example/")
        assert posted.error == "connect_timeout"
        assert 390 <= posted.ms < 1_500


@pytest.mark.parametrize("behave", [GIGABYTES[0], GIGABYTES[1]], ids=["sized", "endless"])
async def test_a_gigabyte_under_a_seal_is_cut_off_too(network: Network, trusted: Authority, behave: Behaviour) -> None:
    async with receiving(behave, tls=trusted.server("hooks.example")) as receiver:
        network.leads_to = receiver.address
        async with public_door(Names([PUBLIC])) as egress:
            assert (await post(egress, "https://hooks.example/")).error == "too_large"
            await asyncio.wait_for(receiver.left.wait(), 1)
        assert receiver.sent < 2_000_000


async def test_a_flood_before_the_answer_under_a_seal_stops_when_we_leave(network: Network, trusted: Authority) -> None:
    flood = flooding(b"", b"HTTP/1.1 102 Wait\r\n\r\n" * 400)
    async with receiving(flood, tls=trusted.server("hooks.example")) as receiver:
        network.leads_to = receiver.address
        async with public_door(Names([PUBLIC]), total_seconds=0.5) as egress:
            assert (await post(egress, "https://hooks.example/")).error == "timeout"
            await asyncio.wait_for(receiver.left.wait(), 1)


# --- many at a time, and the end --------------------------------------------------------------------------------------


async def test_no_more_posts_are_under_way_than_there_are_places() -> None:
    gate, arrived = asyncio.Event(), asyncio.Semaphore(0)
    most = now = 0

    async def behave(visit: Visit) -> None:
        nonlocal most, now
        while True:
            await visit.request()
            now += 1
            most = max(most, now)
            arrived.release()
            await gate.wait()
            now -= 1
            await visit.send(OK)

    egress = Egress(allow_private=True, connections_max=3)
    async with receiving(behave) as receiver:
        posts = [asyncio.create_task(post(egress, receiver.url)) for _ in range(12)]
        for _ in range(3):
            await arrived.acquire()
        gate.set()
        assert all(posted.is_taken for posted in await asyncio.gather(*posts))
        assert (most, receiver.connections) == (3, 3)
    await egress.close()


async def test_one_that_hangs_does_not_delay_another(hasty: Egress) -> None:
    async with receiving(silent) as hanging, receiving(answering(OK)) as healthy:
        stuck = [asyncio.create_task(post(hasty, hanging.url)) for _ in range(20)]
        await hanging.asked.wait()
        begun = time.monotonic()
        assert (await post(hasty, healthy.url)).is_taken
        assert time.monotonic() - begun < 1
        assert {posted.error for posted in await asyncio.gather(*stuck)} == {"timeout"}


async def test_closing_ends_what_is_under_way_and_blames_nobody() -> None:
    egress = Egress(allow_private=True, connections_max=2)
    async with receiving(silent) as receiver:
        posts = [asyncio.create_task(post(egress, receiver.url)) for _ in range(4)]
        await receiver.asked.wait()
        await egress.close()
        posts.append(asyncio.create_task(post(egress, receiver.url)))
        for posted in await asyncio.wait_for(asyncio.gather(*posts), 1):
            assert (posted.status, posted.error, posted.is_taken) == (None, "closed", False)
    await egress.close()


async def test_closing_ends_those_who_wait_for_a_name() -> None:
    asked = asyncio.Event()

    async def hanging(_: str) -> Sequence[str]:
        asked.set()
        await asyncio.Event().wait()
        return []

    egress = Egress(allow_private=False, lookup=hanging)
    posts = [asyncio.create_task(post(egress, "https://hooks.example/")) for _ in range(3)]
    await asked.wait()
    await egress.close()
    assert [posted.error for posted in await asyncio.wait_for(asyncio.gather(*posts), 1)] == ["closed"] * 3


async def test_who_gives_up_lets_go_of_the_receiver(egress: Egress) -> None:
    async with receiving(silent) as receiver:
        posting = asyncio.create_task(post(egress, receiver.url))
        await receiver.asked.wait()
        posting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await posting
        await asyncio.wait_for(receiver.left.wait(), 1)


@pytest.mark.parametrize("headers", [{"a": "b\r\nc: d"}, {"a\r\nb": "c"}, {"a": "\0"}])
async def test_a_request_that_cannot_be_made_is_a_fault_of_ours_and_in_the_log(
    egress: Egress, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="tenuto.gateway.egress"):
        async with receiving(answering(OK)) as receiver:
            posted = await egress.post(receiver.url, headers=headers, body=b"")
            assert (posted.status, posted.error) == (None, "fault")
            assert receiver.requests == []
    assert "a request could not be made" in caplog.text


# --- keys of issuers --------------------------------------------------------------------------------------------------


async def test_what_is_asked_for_is_kept_whole(egress: Egress) -> None:
    body = b'{"keys": [' + b" " * (ANSWER_BYTES_MAX - 12) + b"]}"
    async with receiving(once(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)) as receiver:
        got = await egress.get(receiver.url, headers={"accept": "application/json"})
    assert (got.status, got.error, got.answer) == (200, None, body.decode())
    assert receiver.requests[0].startswith(b"get /hook http/1.1\r\n")
    assert b"\r\naccept: application/json\r\n" in receiver.requests[0]


async def test_more_than_fits_a_redirect_and_silence_are_no_answer(egress: Egress, hasty: Egress) -> None:
    async with receiving(flooding(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIGABYTE, bytes(4096))) as flood:
        assert (await egress.get(flood.url, headers={})).error == "too_large"
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with receiving(answering(moved)) as receiver:
        assert (await egress.get(receiver.url, headers={}))[:4] == (302, "", None, None)
    async with receiving(silent) as receiver:
        assert (await hasty.get(receiver.url, headers={})).error == "timeout"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254"])
async def test_keys_are_not_asked_for_near_by(address: str) -> None:
    async def lookup(_: str) -> Sequence[str]:
        return [PUBLIC, address]

    async with public_door(lookup) as public:
        assert (await public.get("https://keys.example/jwks.json", headers={})).error == "blocked_address"
        literal = f"[{address}]" if ":" in address else address
        assert (await public.get(f"https://{literal}/jwks.json", headers={})).error == "blocked_address"
