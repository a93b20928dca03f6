"""Where a webhook may go: every class of address, and every way to write one so that it is not noticed."""

# ruff: noqa: RUF001 - letters that look like others are what is tried here

from __future__ import annotations

import ipaddress
import random

import pytest

from tenuto.core.outcomes import Refusal
from tenuto.gateway.addresses import PORTS, URL_CHARACTERS_MAX, parse_target, refuse_reason

REFUSED_V4 = {
    "a cloud's metadata service": ["169.254.169.254", "100.100.100.200", "168.63.129.16"],
    "this host itself": ["0.0.0.0", "0.0.0.1", "0.255.255.255"],
    "a private network": [
        *("10.0.0.0", "10.1.2.3", "10.255.255.255", "172.16.0.0", "172.31.255.255"),
        *("192.168.0.0", "192.168.255.255"),
    ],
    "a carrier's shared network": ["100.64.0.0", "100.127.255.255"],
    "loopback": ["127.0.0.0", "127.0.0.1", "127.1.2.3", "127.255.255.255"],
    "link local": ["169.254.0.0", "169.254.169.253", "169.254.170.2", "169.254.255.255"],
    "kept for protocols": ["192.0.0.0", "192.0.0.8", "192.0.0.9", "192.0.0.170", "192.31.196.1", "192.52.193.1"],
    "kept for documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.255"],
    "a relay of 6to4": ["192.88.99.1"],
    "kept for benchmarks": ["198.18.0.0", "198.19.255.255"],
    "multicast": ["224.0.0.1", "232.1.1.1", "239.255.255.255"],
    "broadcast": ["255.255.255.255"],
    "reserved": ["240.0.0.0", "255.255.255.254"],
}
REFUSED_V6 = {
    "a cloud's metadata service": ["fd00:ec2::254", "fd20:ce::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"],
    "this host itself": ["::", "::ffff:0.0.0.0"],
    "loopback": [
        *("::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:7fff:ffff", "::127.0.0.1", "::ffff:0:127.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "2002:7f00:1::1"),
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo, whose client is behind 127.0.0.1
    ],
    "a private network": [
        *("fc00::", "fc00::1", "fd12:3456:789a::1", "fdff:ffff::1", "::ffff:10.0.0.1", "::10.0.0.1"),
        *("64:ff9b::192.168.1.1", "2002:c0a8:101::", "2002:ac10::1"),
    ],
    "an IPv4 address in a retired form": ["::8.8.8.8", "::ffff:0:8.8.8.8"],
    "a local translation to IPv4": ["64:ff9b:1::7f00:1", "64:ff9b:1:ffff::8.8.8.8"],
    "a tunnel, 6to4": ["2002:808:808::", "2002:808:808::1"],
    "a tunnel, Teredo": ["2001:0:4136:e378:8000:63bf:f7f7:f7f7"],
    "link local": ["fe80::1", "fe80::1%lo", "fe80::1%1", "febf::1", "2606:4700::1111%eth0"],
    "a site's own network": ["fec0::1", "feff::1"],
    "multicast": ["ff00::", "ff02::1", "ff0e::1"],
    "kept for what is thrown away": ["100::1", "100:0:0:1::1"],
    "kept for documentation": ["2001:db8::1", "2001:db8:ffff::1", "3fff::1", "3fff:fff::1"],
    "kept for benchmarks": ["2001:2::1"],
    "kept for identifiers": ["2001:10::1", "2001:20::1", "2001:30::1"],
    "kept for protocols": ["2001:1::1", "2001:3::1", "2001:4:112::1", "2001:1ff::1", "2620:4f:8000::1"],
    "kept for segment routing": ["5f00::1"],
    "not a public address": ["101::1", "1fff::1", "4000::1", "8000::1", "c000::1", "e000::1", "f000::1", "64:ff9c::1"],
}
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255"),
    *("192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.17"),
    *("2606:4700::1111", "2001:4860:4860::8888", "2001:200::1", "2001:db7::1", "2a00::1", "2003::1", "3ffe::1"),
    *("::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
]


def cases(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(address, reason) for reason, addresses in table.items() for address in addresses]


@pytest.mark.parametrize(("address", "reason"), cases(REFUSED_V4) + cases(REFUSED_V6))
def test_what_is_not_public_is_refused_with_its_reason(address: str, reason: str) -> None:
    assert refuse_reason(address) == reason
    assert refuse_reason(ipaddress.ip_address(address)) == reason


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str) -> None:
    assert refuse_reason(address) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.01", "1.2.3", "8.8.8.8 ", "8.8.8.8/32"),
        *("①②⑦.⓪.⓪.①", "٨.8.8.8", "[::1]", "::1]", "example.com", "8.8.8.8\n", "::ffff:127.1", "1:2:3", "12345::"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refuse_reason(text) == "not an address"


def test_an_address_of_ipv4_is_judged_alike_in_every_coat_that_reaches_it() -> None:
    chance = random.Random(5)
    blocks = ["0.0.0.0/0", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"]
    for _ in range(2_000):
        network = ipaddress.IPv4Network(chance.choice(blocks))
        plain = network[chance.randrange(network.num_addresses)]
        reason = refuse_reason(plain)
        for coat in ("::ffff:0:0", "64:ff9b::"):
            assert refuse_reason(ipaddress.IPv6Address(int(ipaddress.IPv6Address(coat)) + int(plain))) == reason
        tunnelled = refuse_reason(ipaddress.IPv6Address((0x2002 << 112) + (int(plain) << 80)))
        assert tunnelled == (reason or "a tunnel, 6to4")


def test_nothing_passes_that_the_standard_library_calls_private() -> None:
    chance = random.Random(6)
    for _ in range(5_000):
        bits = chance.choice([chance.getrandbits(128), 0x2001 << 112 | chance.getrandbits(112), chance.getrandbits(34)])
        found = ipaddress.IPv6Address(bits)
        if refuse_reason(found) is None:
            inner = found.ipv4_mapped or found
            assert inner.is_global
            assert not any((inner.is_private, inner.is_multicast, inner.is_reserved, inner.is_loopback))


GOOD_URLS = [
    ("https://hooks.example.com/tenuto?a=b&c=d", "hooks.example.com", 443),
    ("https://hooks.example.com", "hooks.example.com", 443),
    ("https://hooks.example.com?a", "hooks.example.com", 443),
    ("HTTPS://HOOKS.Example.COM:8443/", "hooks.example.com", 8443),
    ("https://example.com:443/", "example.com", 443),
    ("https://a_b.example.com/", "a_b.example.com", 443),
    ("https://bücher.example/", "xn--bcher-kva.example", 443),
    ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
    ("https://ｅxample.com/", "example.com", 443),
    ("https://127.0.0.1.nip.io/", "127.0.0.1.nip.io", 443),  # a name; its address is judged when we connect
    ("https://8.8.8.8/", "8.8.8.8", 443),
    ("https://[2606:4700::1111]:8443/x", "2606:4700::1111", 8443),
    ("https://[2606:4700:0:0::1111]/", "2606:4700::1111", 443),
    ("https://example.com/a%20b/../c//d;e@f:1", "example.com", 443),
]


@pytest.mark.parametrize(("url", "host", "port"), GOOD_URLS)
def test_a_public_receiver_may_be_registered(url: str, host: str, port: int) -> None:
    target = parse_target(url, allow_private=False)
    assert (target.host, target.port) == (host, port)
    # What connects sees the very host and port that were judged.
    assert (target.url.raw_host, target.url.port) == (host, port)
    again = parse_target(str(target.url), allow_private=False)
    assert (again.host, again.port) == (host, port)


LOOPBACK_SPELLINGS = [
    *("127.0.0.1", "127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0x7F000001", "0177.0.0.1"),
    *("0x7f.0.0.1", "0x7f.1", "127.0.0.0x1", "00127.0.0.1", "127.00.0.1", "127.0.0.1.", "127.0.0.1..", "0", "0x", "0."),
    *("①②⑦.⓪.⓪.①", "１２７.0.0.1", "１２７．０．０．１", "127。0。0。1", "127｡0｡0｡1", "127.0.0.1。", "١٢٧.0.0.1"),
    *("%31%32%37.0.0.1", "127.0.0.%31", "127%2e0.0.1", "127.0.0.1%00", "127.0.0.1%2f.example.com"),
    *(
        "localhost",
        "LOCALHOST",
        "LocalHost",
        "localhost.",
        "foo.localhost",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "ｌocalhost",
        "local\u00adhost",
    ),
    *("localhost.localdomain", "localhos\u200dt", "lo\u200bcalhost", "LOCALHO\u017fT"),
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::0001]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"),
    *("[0000::FFFF:7F00:0001]", "[::ffff:0:127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]"),
    *("[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25lo]", "[::1%251]", "[::ffff:127.1]", "[127.0.0.1]", "[localhost]"),
    *("[::1", "::1]", "::1", "[[::1]]", "[::1]]", "[::1].", "[::1]x", "x[::1]", "[v1.x]", "[]", "[::ffff:0x7f000001]"),
    *("[fec0::1]", "[fc00::1]", "[5f00::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[fd00:ec2::254]"),
]


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
@pytest.mark.parametrize("tail", ["", "/", ":8443/x", "?@example.com", "/@example.com"])
def test_loopback_is_refused_however_it_is_spelt(host: str, tail: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(f"https://{host}{tail}", allow_private=False)
    assert refused.value.code == "url_not_allowed"


TRICKS = [
    ("https://example.com@127.0.0.1/", "user or a password"),
    ("https://127.0.0.1@example.com/", "user or a password"),
    ("https://a:b@example.com/", "user or a password"),
    ("https://@example.com/", "user or a password"),
    ("https://:@example.com/", "user or a password"),
    ("https://example.com:443@127.0.0.1:443/", "user or a password"),
    ("https://example.com\\@127.0.0.1/", "backslash"),
    ("https:\\\\127.0.0.1/", "backslash"),
    ("https://127.0.0.1\\.example.com/", "backslash"),
    ("https://example.com／@127.0.0.1/", "user or a password"),
    ("https://127.0.0.1／.example.com/", "cannot be read"),
    ("https://127.0.0.1？.example.com/", "cannot be read"),
    ("https://127.0.0.1＃.example.com/", "cannot be read"),
    ("https://example.com：443/", "cannot be read"),
    ("https://example.com＠127.0.0.1/", "cannot be read"),
    ("https://℀.example.com/", "cannot be read"),
    ("https://exam\tple.com/", "cannot be printed"),
    ("https://example.com/\r\nHost: x", "cannot be printed"),
    ("https://example.com/a\nb", "cannot be printed"),
    ("\thttps://example.com/", "cannot be printed"),
    ("https://example.com/ ", "space"),
    ("https://exa mple.com/", "space"),
    ("https://example.com/\x00", "cannot be printed"),
    ("https://example.com/\x7f", "cannot be printed"),
    ("https://example.com/\u2028", "cannot be printed"),
    ("https://example.com/\u202e", "cannot be printed"),
    ("https://example.com/\ud800", "cannot be printed"),
    ("https://example.com\u00a0/", "cannot be printed"),
    ("https://example.com/#127.0.0.1", "fragment"),
    ("https://example.com/#", "fragment"),
    ("https://example.com./", "dots"),
    ("https://.example.com/", "dots"),
    ("https://example..com/", "dots"),
    ("https://-example.com/", "not a name"),
    ("https://example-.com/", "not a name"),
    ("https://*.example.com/", "not a name"),
    ("https://exa$mple.com/", "not a name"),
    ("https://exa,mple.com/", "not a name"),
    (f"https://{'a' * 64}.com/", "not a name"),
    (f"https://{'a.' * 126}com/", "not a name"),
    ("https://printer/", "only this network knows"),
    ("https://db.internal/", "only this network knows"),
    ("https://metadata.google.internal/", "only this network knows"),
    ("https://METADATA.google.Internal/", "only this network knows"),
    ("https://nas.local/", "only this network knows"),
    ("https://router.home.arpa/", "only this network knows"),
    ("https://169.254.169.254/latest/meta-data", "a cloud's metadata service"),
    ("https://100.100.100.200/", "a cloud's metadata service"),
    ("https://10.0.0.1/", "a private network"),
    ("https://224.0.0.1/", "multicast"),
    ("https://1.2.3.4.5/", "four decimal numbers"),
    ("https://256.1.1.1/", "four decimal numbers"),
    ("https://8.8.8.08/", "four decimal numbers"),
    ("https://8.8.8/", "four decimal numbers"),
    ("https://a.b.0x7f/", "four decimal numbers"),
    ("https://134744072/", "four decimal numbers"),
]


@pytest.mark.parametrize(("url", "why"), TRICKS)
def test_a_url_that_is_read_in_two_ways_is_refused_and_told_why(url: str, why: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(url, allow_private=False)
    assert refused.value.code == "url_not_allowed"
    assert refused.value.details == {"path": "url"}
    assert why in refused.value.message


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/", "file:///etc/passwd", "file://example.com/etc/passwd", "gopher://example.com/"),
        *("ftp://example.com/", "data:text/plain,x", "javascript:alert(1)", "//example.com/", "example.com", "/x", ""),
        *("https:example.com", "https:/example.com", "https:///example.com", "https://", "https://?a", "https://:443/"),
        *("httpss://example.com/", "ws://example.com/", "wss://example.com/", "unix:///run/x.sock", "://example.com"),
        *("https+unix://example.com/", "ſhttps://example.com/", "httpſ://example.com/", "blob:https://example.com/"),
    ],
)
def test_only_https_is_taken(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(url, allow_private=False)
    assert refused.value.code == "url_not_allowed"


@pytest.mark.parametrize("port", ["", "0", "0443", "00", "1", "22", "80", "444", "5432", "65535", "65536", "99999"])
@pytest.mark.parametrize("host", ["example.com", "8.8.8.8", "[2606:4700::1111]"])
def test_only_the_ports_of_public_receivers_are_called(host: str, port: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(f"https://{host}:{port}/", allow_private=False)
    assert refused.value.code == "url_not_allowed"


@pytest.mark.parametrize("port", ["+443", "-1", "443:443", "4 43", "４４３", "443a", "0x1bb", "4_43", "99999999999999"])
@pytest.mark.parametrize("allow_private", [False, True])
def test_a_port_is_a_plain_number(port: str, *, allow_private: bool) -> None:
    with pytest.raises(Refusal):
        parse_target(f"https://example.com:{port}/", allow_private=allow_private)


def test_the_ports_are_two() -> None:
    assert {443, 8443} == PORTS


def test_a_url_may_be_two_thousand_characters_long_as_written_and_as_sent() -> None:
    start = "https://example.com/"
    longest = start + "a" * (URL_CHARACTERS_MAX - len(start))
    assert str(parse_target(longest, allow_private=False).url) == longest
    for too_long in (longest + "a", longest[:-1] + "ü", longest[:-1] + "%", "https://" + "a" * 10_000_000):
        with pytest.raises(Refusal, match="2000 characters"):
            parse_target(too_long, allow_private=False)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://localhost:5000/hook", "localhost", 5000),
        ("http://127.0.0.1:1/", "127.0.0.1", 1),
        ("https://[::1]:65535/", "::1", 65535),
        ("http://receiver/", "receiver", 80),
        ("http://host.docker.internal:8080/", "host.docker.internal", 8080),
        ("https://10.0.0.1/", "10.0.0.1", 443),
    ],
)
def test_who_develops_on_one_machine_may_call_what_is_near(url: str, host: str, port: int) -> None:
    target = parse_target(url, allow_private=True)
    assert (target.host, target.port) == (host, port)
    with pytest.raises(Refusal):
        parse_target(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "gopher://localhost/", "ftp://localhost/", "unix:///run/x.sock"),
        *("http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://a@localhost/", "http://local\thost/"),
        *("http://①②⑦.⓪.⓪.①/", "http://localhost./", "http://localhost/#x", "http://[fe80::1%25lo]/"),
    ],
)
def test_even_there_a_url_is_written_plainly(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(url, allow_private=True)
    assert refused.value.code == "url_not_allowed"
