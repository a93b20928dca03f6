"""The one door through which webhooks leave the house, and through which keys of issuers are fetched.

The problem, on one example. A message goes to https://hooks.example/tenuto, which its owner may point anywhere, at any
time, and which may answer anything, or nothing:

    the URL is judged again, as it was when it was registered (addresses.py)
    the name is asked for once               203.1.2.3 and 127.0.0.1       one of them is near: nothing is called
                                             203.1.2.3                     it is public: this, and no other, is called
    the certificate is for hooks.example     not for 203.1.2.3, and not one that nobody vouches for
    it answers 302 to http://127.0.0.1/      a failed attempt, and that is all
    it answers 200 and 1 GB                  65,536 bytes are read, then the line is cut: too_large
    it answers one byte a second             15 s, then the line is cut: timeout

So a name that means another address at each question (rebinding) cannot lead us astray: between the judgement and the
connection nobody is asked again. A second guard stands where the socket is made; it should never have a thing to do.
Proxies and password files that the environment names are not looked at, cookies are not kept, nothing is unpacked.

Importing aiohttp takes a quarter of a second: import this module in the process that sends, and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tenuto.core.outcomes import Refusal
from tenuto.gateway.addresses import parse_target, refuse_reason

__all__ = ["ERRORS", "Egress", "Lookup", "Posted"]

CONNECT_SECONDS: Final = 3.0
"""How long one address may take to give us a connection, its handshake included; with the name's lookup twice that."""

TOTAL_SECONDS: Final = 15.0
"""How long an attempt may take from its start to the end of the answer."""

ANSWER_BYTES_MAX: Final = 65_536
"""How much of an answer's body is read."""

ANSWER_CHARACTERS_MAX: Final = 2_048
"""How much of it is kept."""

HEADER_BYTES_MAX: Final = 8_190
HEADERS_MAX: Final = 64
RETRY_AFTER_CHARACTERS_MAX: Final = 64

CONNECTIONS_MAX: Final = 256
"""How many posts may be under way at a time; the others wait, and their time begins when they go."""

KEEP_SECONDS: Final = 1.5
"""How long an idle connection is kept: less than the two seconds after which the hasty among servers hang up."""

LOOKUPS_MAX: Final = 32
"""How many names are asked for at a time. A name that hangs holds one of these threads, however often it is wanted."""

ADDRESSES_TRIED: Final = 4

ERRORS: Final[Mapping[str, str]] = {
    "blocked_address": "The URL, or an address of its host, is not public, so nothing was sent.",
    "dns": "The host's name has no address.",
    "connect_timeout": "The host was not found, or did not take the connection, in time.",
    "connect": "The host did not take the connection.",
    "tls": "No secure connection: the certificate is not valid for this host, or the handshake failed.",
    "disconnected": "The connection ended before the answer did.",
    "timeout": "The answer was not complete in time.",
    "bad_answer": "What came back is not HTTP, or not whole, or its head is too long.",
    "too_large": "The answer is longer than 65,536 bytes.",
    "closed": "We stopped before the answer came; the receiver is not to blame.",
    "fault": "The request could not be made; the log says why.",
}
"""Every code of :attr:`Posted.error` with what it means."""

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Asks for the addresses of a name. Raises OSError when there are none."""

_log = logging.getLogger(__name__)


class Posted(NamedTuple):
    """What became of one attempt; ``ms`` are the milliseconds that it took.

    ``status`` is None when there was no answer. ``answer`` is the beginning of its body as text that can be stored,
    and empty where the body came packed. ``retry_after`` is that header as it came, when it is of a sane length.
    ``error`` is a code of :data:`ERRORS`, or None; it may stand beside a status, where the rest did not come whole.
    """

    status: int | None
    answer: str
    retry_after: str | None
    error: str | None
    ms: int

    @property
    def is_taken(self) -> bool:
        """Whether the receiver took the message: a whole answer, with a status from 200 to 299."""
        return self.error is None and self.status is not None and 200 <= self.status <= 299  # noqa: PLR2004


class _Blocked(OSError):
    """An address that must not be called."""


class _Names(AbstractResolver):
    """The addresses of a name: all judged, and only then told."""

    def __init__(self, lookup: Lookup, *, allow_private: bool) -> None:
        self._lookup, self._allow_private = lookup, allow_private

    async def resolve(  # type: ignore[explicit-override]  # 3.11 has no override
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - both families are asked for
    ) -> list[ResolveResult]:
        """The addresses of ``host`` that may be called. Raises OSError: _Blocked when one of all must not be."""
        addresses = await self._lookup(host)
        if not addresses:
            raise OSError(f"{host} has no address")
        if not self._allow_private:
            for address in addresses:
                _judge(address)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses[:ADDRESSES_TRIED]
        ]

    async def close(self) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
        """Nothing is held."""


class Egress:
    """Posts to receivers, asks for keys, each at its own risk. Make it inside the loop that uses it, and close it.

    ``allow_private`` is for those who develop on one machine: it lets near addresses, plain http and any port pass.
    ``lookup`` replaces the system's resolver. The certificates that are trusted are the system's, or those that
    SSL_CERT_FILE and SSL_CERT_DIR name, as OpenSSL reads them.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        lookup: Lookup | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self._allow_private = allow_private
        self._places = asyncio.Semaphore(connections_max)
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, "lookup")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=ssl.create_default_context(),
                resolver=_Names(lookup or self._ask_system, allow_private=allow_private),
                # The cache forgets at once. It is there for those who ask while an answer is under way: they share it.
                use_dns_cache=True,
                ttl_dns_cache=0,
                limit=0,
                keepalive_timeout=KEEP_SECONDS,
                socket_factory=self._make_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "tenuto"},
            timeout=aiohttp.ClientTimeout(
                total=total_seconds,
                connect=2 * connect_seconds,
                sock_connect=connect_seconds,
                ceil_threshold=total_seconds + 1,  # or the library rounds up what is longer
            ),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=ANSWER_BYTES_MAX,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
        )

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Posted:
        """Send ``body`` to ``url`` once and tell what became of it. Raises nothing but CancelledError."""
        return await self._ask("POST", url, headers, body, ANSWER_CHARACTERS_MAX)

    async def get(self, url: str, *, headers: Mapping[str, str]) -> Posted:
        """Ask for ``url`` once, with the same limits; the answer is kept whole. Raises nothing but CancelledError."""
        return await self._ask("GET", url, headers, None, ANSWER_BYTES_MAX)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, kept: int) -> Posted:
        async with self._places:
            begun = time.monotonic()
            status, answer, retry_after = None, "", None
            error: str | None = None
            try:
                target = parse_target(url, allow_private=self._allow_private)
                response = await self._session.request(
                    method, target.url, headers=headers, data=body, allow_redirects=False
                )
                try:
                    status, retry_after = response.status, _retry_after(response.headers.get("Retry-After"))
                    answer, error = await _read(response, kept)
                finally:
                    response.close()
            except asyncio.CancelledError:
                # Closing cancels the lookups that are under way, and who waits for one is not given up by anybody.
                task = asyncio.current_task()
                if not self._session.closed or (task is not None and task.cancelling()):
                    raise
                error = "closed"
            except Exception as problem:  # noqa: BLE001 - an attempt ends in a row of the log, whatever happens
                error = self._named(problem)
            if error is not None and self._session.closed:
                error = "closed"
            return Posted(status, answer, retry_after, error, int((time.monotonic() - begun) * 1000))

    async def close(self) -> None:
        """Close all connections, and let what is under way fail."""
        await self._session.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _named(self, problem: Exception) -> str:
        name = _name(problem)
        if name == "fault" and not self._session.closed:
            _log.error("a request could not be made", exc_info=problem)
        return name

    async def _ask_system(self, host: str) -> Sequence[str]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _addresses_of, host)

    def _make_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """The second guard: no socket for an address that must not be called, whoever let it through."""
        family, kind, protocol, _, address = info
        if not self._allow_private:
            _judge(str(address[0]))
        made = socket.socket(family, kind, protocol)
        # What a receiver sends beyond what we read waits on its side, and one turn of the loop takes no more than this.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ANSWER_BYTES_MAX)
        return made


def _judge(address: str) -> None:
    if reason := refuse_reason(address):
        raise _Blocked(f"{address} is not called: {reason}")


def _addresses_of(host: str) -> Sequence[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def _retry_after(value: str | None) -> str | None:
    fits = value is not None and len(value) <= RETRY_AFTER_CHARACTERS_MAX and value.isascii() and value.isprintable()
    return value if fits else None


async def _read(response: aiohttp.ClientResponse, kept: int) -> tuple[str, str | None]:
    """The first ``kept`` characters of the body, and what is wrong with the rest of it, if anything is."""
    raw = bytearray()
    error: str | None = None
    try:
        while len(raw) <= ANSWER_BYTES_MAX and (piece := await response.content.readany()):
            raw += piece
    except Exception as problem:  # noqa: BLE001 - what came before it is worth keeping
        error = _name(problem)
    if len(raw) > ANSWER_BYTES_MAX:
        error = "too_large"
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return "", error
    text = raw[: 4 * kept].decode(errors="replace").replace("\0", "")
    return text[:kept], error


_NAMES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (Refusal, "blocked_address"),
    (aiohttp.ConnectionTimeoutError, "connect_timeout"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorCertificateError, "tls"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ServerDisconnectedError, "disconnected"),
    (aiohttp.ClientOSError, "disconnected"),
    (aiohttp.ClientConnectionResetError, "disconnected"),
    (aiohttp.ClientPayloadError, "bad_answer"),
    (aiohttp.ClientResponseError, "bad_answer"),
)
"""The first line that fits an exception says what it is called; the order matters, for many are kinds of others."""


def _name(problem: Exception) -> str:
    if isinstance(problem, aiohttp.ClientConnectorError) and isinstance(problem.os_error, _Blocked):
        return "blocked_address"
    return next((name for kind, name in _NAMES if isinstance(problem, kind)), "fault")
