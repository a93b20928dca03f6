"""Where a webhook may go: decided of an address, and of a URL as it is written.

The problem, on one example. A customer types where we shall call, and we stand inside a network that trusts us:

    https://hooks.example/tenuto      a name: its addresses are judged when we connect, see egress.py
    https://169.254.169.254/          the cloud's own secrets
    https://[64:ff9b::7f00:1]/        127.0.0.1 in a coat that a translator takes off
    https://2130706433/               127.0.0.1 once more, for those who read it as a number
    https://①②⑦.⓪.⓪.①/              and again, when the host is made ASCII

The flags of the standard library call some of these public (bar, section 0, finding 11), so the table below comes first
and the flags are asked only after it. In IPv6, all is refused that is not global unicast, whatever it is. A URL is read
twice, by the grammar here, which is narrow, and by yarl, which is what connects; where they differ it is refused. A
host that looks like a number must be the four decimal numbers that it means.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, NoReturn

from yarl import URL

from tenuto.core.outcomes import invalid

__all__ = ["PORTS", "URL_CHARACTERS_MAX", "Address", "Target", "parse_target", "refuse_reason"]

URL_CHARACTERS_MAX: Final = 2000
"""How long the URL of a receiver may be, as it is written and as it is sent."""

PORTS: Final = frozenset({443, 8443})
"""The ports of public receivers."""

HOST_CHARACTERS_MAX: Final = 253

Address = IPv4Address | IPv6Address

_Block = tuple[int, int, str]
"""A block of addresses, as the bits that are fixed and what they are, and the words for it."""


def _block(network: str, reason: str) -> _Block:
    found = IPv6Network(network) if ":" in network else IPv4Network(network)
    return int(found.netmask), int(found.network_address), reason


_V4: Final = tuple(
    _block(network, reason)
    for network, reason in (
        ("169.254.169.254/32", "a cloud's metadata service"),
        ("100.100.100.200/32", "a cloud's metadata service"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("0.0.0.0/8", "this host itself"),
        ("10.0.0.0/8", "a private network"),
        ("100.64.0.0/10", "a carrier's shared network"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link local"),
        ("172.16.0.0/12", "a private network"),
        ("192.0.0.0/24", "kept for protocols"),
        ("192.0.2.0/24", "kept for documentation"),
        ("192.31.196.0/24", "kept for protocols"),
        ("192.52.193.0/24", "kept for protocols"),
        ("192.88.99.0/24", "a relay of 6to4"),
        ("192.168.0.0/16", "a private network"),
        ("192.175.48.0/24", "kept for protocols"),
        ("198.18.0.0/15", "kept for benchmarks"),
        ("198.51.100.0/24", "kept for documentation"),
        ("203.0.113.0/24", "kept for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)
"""IANA's registry of special-purpose IPv4 addresses, multicast, and where clouds keep secrets."""

_V6: Final = tuple(
    _block(network, reason)
    for network, reason in (
        ("fd00:ec2::254/128", "a cloud's metadata service"),
        ("fd20:ce::254/128", "a cloud's metadata service"),
        ("::/128", "this host itself"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "a local translation to IPv4"),
        ("100::/64", "kept for what is thrown away"),
        ("100:0:0:1::/64", "kept for what is thrown away"),
        ("2001::/32", "a tunnel, Teredo"),
        ("2001:2::/48", "kept for benchmarks"),
        ("2001:10::/28", "kept for identifiers"),
        ("2001:20::/28", "kept for identifiers"),
        ("2001:30::/28", "kept for identifiers"),
        ("2001::/23", "kept for protocols"),
        ("2001:db8::/32", "kept for documentation"),
        ("2002::/16", "a tunnel, 6to4"),
        ("2620:4f:8000::/48", "kept for protocols"),
        ("3fff::/20", "kept for documentation"),
        ("5f00::/16", "kept for segment routing"),
        ("fc00::/7", "a private network"),
        ("fe80::/10", "link local"),
        ("fec0::/10", "a site's own network"),
        ("ff00::/8", "multicast"),
    )
)
"""The same of IPv6. What stands in it is refused for that reason, all else outside of 2000::/3 for the last one."""

_GLOBAL_UNICAST: Final = 0b001
_COMPATIBLE: Final = 0
_MAPPED: Final = 0xFFFF
_TRANSLATED: Final = 0xFFFF0000
_NAT64: Final = 0x64_FF9B << 64
"""The upper 96 bits of the forms whose lower 32 are an address of IPv4."""

_LOCAL_NAMES: Final = ("localhost", "localdomain", "local", "internal", "home.arpa")
"""Names that mean something near, with all that stand under them; metadata.google.internal is one."""

_WHOLE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([/?].*)?")
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s\[\]:@\\%]+)(?::([1-9][0-9]{0,4}))?")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Target(NamedTuple):
    """A URL that may be called: ``url`` for the library that connects, ``host`` in ASCII, and ``port``."""

    url: URL
    host: str
    port: int


def refuse_reason(address: str | Address) -> str | None:
    """Why ``address`` must not be called, in a few words such as "loopback"; None when it is public.

    An address that carries one of IPv4 is judged by that one too. What is no address is refused.
    """
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return "not an address"
    if isinstance(address, IPv4Address):
        return _listed(int(address), _V4) or _flagged(address)
    if address.scope_id is not None:
        return "link local"
    return _refuse_v6(address)


def parse_target(url: str, *, allow_private: bool) -> Target:
    """Judge the URL of a receiver as it is written; ``allow_private`` lets plain http, near hosts and any port pass.

    Of a name, only its spelling is judged: its addresses are asked for, and judged, when we connect.
    Raises Refusal (url_not_allowed), whose message says what is wrong.
    """
    scheme, host, port = _read(url)
    if scheme != "https" and not (scheme == "http" and allow_private):
        _refuse("it takes https.")
    found = _read_by_yarl(url)
    explicit = None if port is None else int(port)
    if found.scheme != scheme or found.explicit_port != explicit or found.raw_user is not None or found.raw_fragment:
        _refuse("it is not written plainly.")
    name = _judge_host(host, found.raw_host or "", allow_private=allow_private)
    at = found.port or 0
    if at < 1 or (at not in PORTS and not allow_private):
        _refuse("a public receiver listens at port 443 or 8443.")
    return Target(found, name, at)


def _refuse(message: str) -> NoReturn:
    raise invalid("url", message, "url_not_allowed")


def _listed(value: int, table: tuple[_Block, ...]) -> str | None:
    return next((reason for mask, bits, reason in table if value & mask == bits), None)


def _flagged(address: Address) -> str | None:
    """What the standard library knows of ``address`` beyond the tables, which is more with each version of Python."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return "not public"
    return None


def _refuse_v6(address: IPv6Address) -> str | None:
    value = int(address)
    # Two that are local in themselves, not for the address of IPv4 that their last 32 bits would be.
    if value <= 1:
        return _listed(value, _V6)
    upper, lower = value >> 32, IPv4Address(value & 0xFFFFFFFF)
    if upper in {_MAPPED, _NAT64}:
        return refuse_reason(lower)
    if upper in {_COMPATIBLE, _TRANSLATED}:
        return refuse_reason(lower) or "an IPv4 address in a retired form"
    if address.sixtofour is not None and (inner := refuse_reason(address.sixtofour)):
        return inner
    if address.teredo is not None and (inner := refuse_reason(address.teredo[1])):
        return inner
    if reason := _listed(value, _V6):
        return reason
    return "not a public address" if value >> 125 != _GLOBAL_UNICAST else _flagged(address)


def _read(url: str) -> tuple[str, str, str | None]:
    """The scheme in lower case, the host and the port as they are written. Raises Refusal."""
    if not 1 <= len(url) <= URL_CHARACTERS_MAX:
        _refuse(f"it takes 1 to {URL_CHARACTERS_MAX} characters.")
    if not url.isprintable() or " " in url or "\\" in url:
        _refuse("it holds a space, a backslash or a character that cannot be printed.")
    if "#" in url:
        _refuse("a fragment (#) is not sent to anybody; leave it out.")
    whole = _WHOLE.fullmatch(url)
    if whole is None:
        _refuse("write it whole, as https://host/path.")
    scheme, authority = whole[1].lower(), whole[2]
    if "@" in authority:
        _refuse("a user or a password does not stand in the URL; the webhook has fields for them.")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        _refuse("its host or port is missing or not written plainly.")
    return scheme, parts[1], parts[2]


def _read_by_yarl(url: str) -> URL:
    """The URL as the library that connects understands it. Raises Refusal."""
    try:
        found = URL(url)
    except ValueError:
        _refuse("it cannot be read.")
    if len(str(found)) > URL_CHARACTERS_MAX:
        _refuse(f"it takes at most {URL_CHARACTERS_MAX} characters as it is sent.")
    return found


def _judge_host(written: str, host: str, *, allow_private: bool) -> str:
    """The host in ASCII: an address that may be called, or a name that is known everywhere. Raises Refusal."""
    if (address := _literal(written, host)) is not None:
        if not allow_private and (reason := refuse_reason(address)):
            _refuse(f"{address} is not called: {reason}.")
        return str(address)
    labels = host.split(".")
    if len(host) > HOST_CHARACTERS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        _refuse("its host is not a name; mind dots at its ends.")
    if not allow_private and (len(labels) == 1 or any(f".{host}".endswith(f".{near}") for near in _LOCAL_NAMES)):
        _refuse("its host is a name that only this network knows.")
    return host


def _literal(written: str, host: str) -> Address | None:
    """The address that ``host`` is, None when it is a name. It must mean the same as ``written``. Raises Refusal."""
    if not written.startswith("[") and not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return None
    with suppress(ValueError):
        address = ip_address(host)
        if ip_address(written.strip("[]")) == address:
            return address
    _refuse("an address is written as four decimal numbers, or in brackets.")
