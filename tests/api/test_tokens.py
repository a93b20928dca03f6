"""Tokens of organizations: which are believed, and all the ways to make one that is not. Sources: bar 4.8 and 5."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

import asyncpg
import jwt
import pytest

from tenuto.api.tokens import LEEWAY_SECONDS, OWN_AUDIENCE, OWN_LIFE_SECONDS, TOKEN_MAX
from tenuto.server import Server
from tests.api.providers import LIFE_SECONDS, Login, Provider, SigningKey
from tests.client import Client, Company, Reply
from tests.members import Members

REFUSED: Final = {"message": "The token is not valid."}
QUICK_SECONDS: Final = 0.5
"""What a refusal may take here, where two cores are shared; the bar says 50 ms of a machine of its own."""
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")


@pytest.fixture(scope="module")
def keys() -> Mapping[str, SigningKey]:
    return {name: SigningKey.make(name, f"{name}-1") for name in ALGORITHMS}


@pytest.fixture
def caller(calling_service: Server) -> Iterator[Company]:
    """A company of a service that may fetch keys from this machine."""
    with Client(*calling_service.address) as client:
        yield Company.open(client)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as found:
        yield found


@pytest.fixture
def members(service: Server, company: Company) -> Members:
    return Members(service, company)


@pytest.fixture
def login(company: Company, keys: Mapping[str, SigningKey]) -> Login:
    """A company that believes a provider's RS256 key, which it was given by hand."""
    return Login(company, "https://auth.example.com/", algorithm="RS256", keys=[keys["RS256"].jwk])


def believed(reply: Reply) -> bool:
    """Whether the token was good: its organization is told that it has no account yet."""
    if reply.status == 401:
        assert reply.body == REFUSED
        assert reply.headers["www-authenticate"].startswith("Bearer ")
        return False
    assert reply.status == 422, reply
    assert reply.body["message"] == "You need to create an account first"
    return True


def encoded(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def mac(signed: str, secret: bytes) -> str:
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


# --- who is believed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_given_by_hand_opens_to_its_own_tokens_only(
    company: Company, keys: Mapping[str, SigningKey], algorithm: str
) -> None:
    login = Login(company, "https://auth.example.com/", algorithm=algorithm, keys=[keys[algorithm].jwk])

    assert believed(login.ask(keys[algorithm].sign(login.claims())))
    stranger = SigningKey.make(algorithm, keys[algorithm].kid)
    assert not believed(login.ask(stranger.sign(login.claims())))
    for other in ALGORITHMS:
        if other != algorithm:
            signed = keys[other]._replace(kid=keys[algorithm].kid).sign(login.claims())
            assert not believed(login.ask(signed))


@pytest.mark.parametrize("encoding", ["text", "base64"])
def test_a_shared_secret(company: Company, encoding: str) -> None:
    raw = secrets.token_bytes(48)
    told = secrets.token_urlsafe(40) if encoding == "text" else base64.b64encode(raw).decode()
    key = told.encode() if encoding == "text" else raw
    login = Login(company, "https://auth.example.com/", algorithm="HS256", secret=told, secret_encoding=encoding)

    assert believed(login.ask(jwt.encode(login.claims(), key, "HS256")))
    assert not believed(login.ask(jwt.encode(login.claims(), key[:-1] + b"\0", "HS256")))
    assert not believed(login.ask(jwt.encode(login.claims(), key, "HS384")))
    assert told.encode() not in company.call("GET", login.path).raw
    assert login.row()["has_secret"] is True


async def test_a_shared_secret_is_sealed(service: Server, company: Company) -> None:
    told = secrets.token_urlsafe(40)
    Login(company, "https://auth.example.com/", algorithm="HS256", secret=told)
    rows = await asyncpg.connect(service.dsn)
    try:
        kept = await rows.fetch("select issuer::text as told, secret from issuer where algorithm = 'HS256'")
    finally:
        await rows.close()
    for form in (told.encode(), base64.b64encode(told.encode())):
        assert not any(form in bytes(row["secret"]) or form in row["told"].encode() for row in kept)


def test_a_token_may_have_several_audiences_and_the_type_of_an_access_token(
    login: Login, keys: Mapping[str, SigningKey]
) -> None:
    key = keys["RS256"]
    assert believed(login.ask(key.sign(login.claims(aud=["https://other.example", login.audience]))))
    for kind in ("at+jwt", "application/at+jwt", "JWT", "jwt"):
        assert believed(login.ask(key.sign(login.claims(), {"typ": kind})))
    assert believed(login.ask(key.sign(login.claims(typ="Bearer", sub="somebody", nbf=int(time.time())))))


def test_a_clock_that_differs_by_less_than_the_leeway_does_no_harm(
    login: Login, keys: Mapping[str, SigningKey]
) -> None:
    now, half = int(time.time()), LEEWAY_SECONDS // 2
    assert believed(login.ask(keys["RS256"].sign(login.claims(iat=now + half, nbf=now + half))))
    assert believed(login.ask(keys["RS256"].sign(login.claims(iat=now - LIFE_SECONDS, exp=now - half))))


def test_an_audience_of_two_companies_is_of_neither(company: Company, keys: Mapping[str, SigningKey]) -> None:
    key, other = keys["EdDSA"], Company.open(company.client)
    logins = [Login(one, "https://auth.example.com/", algorithm="EdDSA", keys=[key.jwk]) for one in (company, other)]
    both = [login.audience for login in logins]

    assert all(believed(login.ask(key.sign(login.claims()))) for login in logins)
    assert not believed(logins[0].ask(key.sign(logins[0].claims(aud=both))))


# --- tokens that are not believed -------------------------------------------------------------------------------------

CLAIMS: Final[Mapping[str, Callable[[int], Mapping[str, Any]]]] = {
    "no exp": lambda _: {"exp": None},
    "no iat": lambda _: {"iat": None},
    "no iss": lambda _: {"iss": None},
    "no aud": lambda _: {"aud": None},
    "expired": lambda now: {"iat": now - 700, "exp": now - LEEWAY_SECONDS - 30},
    "issued too far in the future": lambda now: {"iat": now + LEEWAY_SECONDS + 30, "exp": now + 600},
    "not yet good": lambda now: {"nbf": now + LEEWAY_SECONDS + 30},
    "a life that is too long": lambda now: {"exp": now + 86_401},
    "it ends before it begins": lambda now: {"iat": now, "exp": now - 1},
    "exp is a text": lambda now: {"exp": str(now + 600)},
    "exp is true": lambda _: {"exp": True},
    "exp is infinite": lambda _: {"exp": float("inf")},
    "exp is no number": lambda _: {"exp": float("nan")},
    "exp is huge": lambda _: {"exp": 10**30},
    "iat is negative": lambda _: {"iat": -1},
    "iat is a list": lambda now: {"iat": [now]},
    "nbf is a text": lambda now: {"nbf": str(now)},
    "another audience": lambda _: {"aud": "https://other.example"},
    "audiences without ours": lambda _: {"aud": ["https://a.example", "https://b.example"]},
    "no audience of a list": lambda _: {"aud": []},
    "an audience that is no text": lambda _: {"aud": [1]},
    "an audience that is an object": lambda _: {"aud": {"https://billing.example.com": 1}},
    "an audience with NUL": lambda _: {"aud": "a\0b"},
    "an audience that cannot be spelled": lambda _: {"aud": "\ud800"},
    "a thousand audiences": lambda _: {"aud": [str(number) for number in range(1000)]},
    "the audience of our own tokens": lambda _: {"aud": OWN_AUDIENCE},
    "another issuer": lambda _: {"iss": "https://evil.example/"},
    "the issuer without its slash": lambda _: {"iss": "https://auth.example.com"},
    "an issuer that is a list": lambda _: {"iss": ["https://auth.example.com/"]},
    "an id token": lambda _: {"typ": "ID"},
    "a refresh token": lambda _: {"typ": "Refresh"},
    "user_id is an object": lambda _: {"user_id": {}},
    "scopes are numbers": lambda _: {"scopes": [1]},
}


@pytest.mark.parametrize("what", CLAIMS)
def test_claims_that_are_refused(login: Login, keys: Mapping[str, SigningKey], what: str) -> None:
    changes = CLAIMS[what](int(time.time()))
    reply = login.ask(keys["RS256"].sign(login.claims(**changes)))
    assert reply.status == 401
    if what not in {"user_id is an object", "scopes are numbers"}:
        assert not believed(reply)


@pytest.mark.parametrize("id", [None, "", " a", "a\0b", "x" * 256, {}, True])
def test_a_token_without_an_organization_is_told_so(login: Login, keys: Mapping[str, SigningKey], id: object) -> None:
    reply = login.ask(keys["RS256"].sign(login.claims(id=id)))
    assert (reply.status, list(reply.body)) == (401, ["message"])
    assert "customer id" in reply.body["message"]


HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "a foreign kid": {"kid": "k2"},
    "an empty kid": {"kid": ""},
    "a kid that is a path": {"kid": "../../../../dev/null"},
    "a kid of SQL": {"kid": "x' union select 'secret' --"},
    "a kid that is an address": {"kid": "http://127.0.0.1:1/key"},
    "a huge kid": {"kid": "k" * 5000},
    "a kid in other letters": {"kid": "rs256-1"},
    "a critical extension": {"crit": ["exp"], "exp": 1},
    "an unknown critical extension": {"crit": ["http://example.com/unknown"], "http://example.com/unknown": 1},
    "critical, but nothing": {"crit": []},
    "the type of an id token": {"typ": "id_token+jwt"},
    "the type of a logout": {"typ": "logout+jwt"},
    "the type of a proof": {"typ": "dpop+jwt"},
    "a nested token": {"cty": "JWT"},
}


@pytest.mark.parametrize("what", HEADERS)
def test_headers_that_are_refused(login: Login, keys: Mapping[str, SigningKey], what: str) -> None:
    assert not believed(login.ask(keys["RS256"].sign(login.claims(), HEADERS[what])))


@pytest.mark.parametrize("kid", [1, None, ["RS256-1"], {"a": 1}, True])
def test_a_kid_that_is_no_text(login: Login, keys: Mapping[str, SigningKey], kid: object) -> None:
    key = keys["RS256"]
    signed = f"{encoded({'alg': 'RS256', 'typ': 'JWT', 'kid': kid})}.{encoded(login.claims())}"
    raw = jwt.get_algorithm_by_name("RS256").sign(signed.encode(), key.private)
    assert not believed(login.ask(f"{signed}.{encoded(raw)}"))


def test_a_missing_kid_is_no_question_only_where_there_is_one_key(
    company: Company, keys: Mapping[str, SigningKey]
) -> None:
    key, second = keys["ES256"], SigningKey.make("ES256", "second")
    login = Login(company, "https://auth.example.com/", algorithm="ES256", keys=[key.jwk])
    nameless = jwt.encode(login.claims(), key.private, "ES256")

    assert believed(login.ask(nameless))
    assert company.call("PUT", login.path, {"keys": [key.jwk, second.jwk]}).status == 200
    assert not believed(login.ask(nameless))
    assert believed(login.ask(key.sign(login.claims())))
    assert believed(login.ask(second.sign(login.claims())))
    assert not believed(login.ask(second._replace(kid=key.kid).sign(login.claims())))


def test_no_algorithm_is_no_signature(login: Login) -> None:
    body = encoded(login.claims())
    for name in ("none", "None", "NONE", "nOnE", "", "HS", None, 1, ["RS256"]):
        head = encoded({"alg": name, "typ": "JWT", "kid": "RS256-1"})
        for signature in ("", encoded(b"x"), encoded(bytes(256))):
            assert not believed(login.ask(f"{head}.{body}.{signature}"))
    assert not believed(login.ask(f"{encoded({'typ': 'JWT', 'kid': 'RS256-1'})}.{body}.{encoded(bytes(256))}"))


def test_a_public_key_is_no_shared_secret(login: Login, keys: Mapping[str, SigningKey]) -> None:
    """The confusion of algorithms: what everybody may read would sign."""
    key = keys["RS256"]
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': key.kid})}.{encoded(login.claims())}"
    published = json.dumps(key.jwk)
    for secret in (key.pem, key.pem.strip(), published.encode(), key.jwk["n"].encode(), b""):
        assert not believed(login.ask(mac(signed, secret)))
    modulus = base64.urlsafe_b64decode(key.jwk["n"] + "==")
    assert not believed(login.ask(mac(signed, modulus)))


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "PS384"])
def test_another_algorithm_of_the_same_key(login: Login, keys: Mapping[str, SigningKey], algorithm: str) -> None:
    key = keys["RS256"]
    assert not believed(login.ask(key._replace(algorithm=algorithm).sign(login.claims())))


def test_keys_that_a_token_brings_along_count_for_nothing(
    caller: Company, provider: Provider, keys: Mapping[str, SigningKey]
) -> None:
    evil = SigningKey.make("RS256", "RS256-1")
    provider.publish(evil)
    login = Login(caller, "https://auth.example.com/", algorithm="RS256", keys=[keys["RS256"].jwk])
    for headers in (
        {"jwk": evil.jwk},
        {"jku": provider.url},
        {"x5u": provider.url},
        {"x5c": [base64.b64encode(evil.pem).decode()]},
        {"kid": "new", "jku": provider.url, "jwk": evil.jwk},
        {"kid": provider.url},
    ):
        assert not believed(login.ask(evil.sign(login.claims(), headers)))
    evil_issuer = login.claims(iss=provider.name)
    assert not believed(login.ask(evil.sign(evil_issuer, {"jku": provider.url})))
    assert provider.asked == 0


def test_spellings_that_are_no_token(login: Login, keys: Mapping[str, SigningKey]) -> None:
    good = keys["RS256"].sign(login.claims())
    head, body, signature = good.split(".")
    assert believed(login.ask(good))
    bad: tuple[str, ...] = (
        *("", ".", "..", "...", "a", "a.b", "a.b.c", "a.b.c.d", "é.é.é", "null.null.null"),
        *(f"{head}.{body}", f"{head}.{body}.", f".{body}.{signature}", f"{head}..{signature}"),
        *(f"{head} .{body}.{signature}", f"{head}. {body}.{signature}", f"{head}.{body}. {signature}"),
        *(f"{head}.{body}.{signature[:20]} {signature[20:]}", f"{head}.{body}.{signature}=", f"{good}=="),
        *(f"{head}.{body}.{signature}\tx", f"{good} {good}", f"{good},{good}", f"{good}."),
        *(f"{head}.{body}.{signature}.x.y", f"{head}.{body}.{signature}!", f"{head}.{body}.+{signature[1:]}"),
        *(f"{head[:-2]}.{body}.{signature}", f"{head}.{body[:-4]}.{signature}", f"{head}.{body}.{signature[:-4]}"),
        *(f"{encoded([])}.{body}.{signature}", f"{head}.{encoded([])}.{signature}", f"{head}.{encoded(5)}.{signature}"),
        *(f"{head}.{encoded(b'[' * 4000)}.{signature}", f"{head}.{encoded(b'9' * 5000)}.{signature}"),
        *(f"{encoded(b'{')}.{body}.{signature}", f"{head}.{encoded(bytes(50))}.{signature}"),
    )
    for token in bad:
        assert not believed(login.ask(token)), token


def test_an_encrypted_token_and_one_within_another(login: Login, keys: Mapping[str, SigningKey]) -> None:
    encrypted = encoded({"alg": "dir", "enc": "A256GCM", "typ": "JWT"})
    assert not believed(login.ask(f"{encrypted}..{encoded(bytes(12))}.{encoded(bytes(80))}.{encoded(bytes(16))}"))
    assert not believed(login.ask(f"{encrypted}.{encoded(login.claims())}.{encoded(bytes(16))}"))
    inner = keys["RS256"].sign(login.claims())
    signed = f"{encoded({'alg': 'RS256', 'typ': 'JWT', 'cty': 'JWT', 'kid': 'RS256-1'})}.{encoded(inner.encode())}"
    raw = jwt.get_algorithm_by_name("RS256").sign(signed.encode(), keys["RS256"].private)
    assert not believed(login.ask(f"{signed}.{encoded(raw)}"))


def test_a_token_that_is_too_long_is_refused_in_no_time(login: Login, keys: Mapping[str, SigningKey]) -> None:
    for size in (TOKEN_MAX, 30_000, 60_000):
        started = time.monotonic()
        reply = login.ask(keys["RS256"].sign(login.claims(more="x" * size)))
        assert time.monotonic() - started < QUICK_SECONDS
        assert not believed(reply)
    started = time.monotonic()
    reply = login.ask(keys["RS256"].sign(login.claims(more="x" * 100_000)))
    assert reply.status == 401
    assert time.monotonic() - started < QUICK_SECONDS


def test_refusals_look_the_same(login: Login, keys: Mapping[str, SigningKey]) -> None:
    replies = [
        login.company.client.call("GET", "/v1/account"),
        *(
            login.company.client.call("GET", "/v1/account", headers={"authorization": header})
            for header in ("", "Bearer", "Bearer ", "Basic eDp5", "Token a.b.c", f"Basic {keys['RS256'].sign({})}")
        ),
        login.ask(keys["RS256"].sign(login.claims(exp=None))),
        login.ask(SigningKey.make("RS256", "RS256-1").sign(login.claims())),
    ]
    assert {(reply.status, reply.raw, reply.headers["www-authenticate"]) for reply in replies} == {
        (401, b'{"message":"The token is not valid."}', 'Bearer realm="tenuto"')
    }


def test_a_token_in_the_query_or_the_body_is_none(login: Login, keys: Mapping[str, SigningKey]) -> None:
    token = keys["RS256"].sign(login.claims())
    for path in (f"/v1/account?access_token={token}", f"/v1/account?token={token}"):
        assert login.company.client.call("GET", path).status == 401
    assert login.company.client.call("POST", "/v1/account", {"access_token": token}).status == 401


# --- two doors --------------------------------------------------------------------------------------------------------


def test_a_key_opens_no_family_route_and_a_token_no_company_route(members: Members) -> None:
    company, token = members.company, members.token()
    basic = base64.b64encode(f"{company.id}:{company.key}".encode()).decode()
    for header in (f"Bearer {company.key}", f"Basic {basic}"):
        assert not believed(company.client.call("GET", "/v1/account", headers={"authorization": header}))
    path = f"/v1/companies/{company.id}"
    as_password = base64.b64encode(f"{company.id}:{token}".encode()).decode()
    told = {
        company.client.call("GET", place, headers={"authorization": header}).status
        for place in (path, f"{path}/accounts", f"{path}/issuers")
        for header in (f"Bearer {token}", f"Basic {as_password}")
    }
    assert told == {401}
    assert company.client.call("GET", path, headers={"authorization": f"Bearer {company.key}"}).status == 200


def test_two_headers_mean_nothing(service: Server, members: Members) -> None:
    line = http.client.HTTPConnection(*service.address, timeout=10)
    line.putrequest("GET", "/v1/account")
    for _ in range(2):
        line.putheader("authorization", f"Bearer {members.token()}")
    line.endheaders()
    assert line.getresponse().status == 401
    line.close()


# --- tokens that a company mints --------------------------------------------------------------------------------------


def mint(company: Company, **fields: object) -> Reply:
    return company.call("POST", "/v1/companies/{company}/tokens", {"organization_id": "org-1", **fields})


def test_a_minted_token_says_what_was_asked(members: Members) -> None:
    company = members.company
    asked = {"user_id": "user-7", "scopes": ["account:read", "account:write"], "timezone": "Africa/Cairo"}
    minted = mint(company, **asked, life_seconds=60)
    assert minted.status == 200
    claims = jwt.decode(minted.data["token"], options={"verify_signature": False})

    assert {name: claims[name] for name in asked} == asked
    assert (claims["id"], claims["aud"], claims["iss"]) == ("org-1", OWN_AUDIENCE, members.issuer)
    assert claims["exp"] - claims["iat"] == 60
    opened = members.bearing(
        minted.data["token"], "POST", "/v1/account", {"name": "A", "email": "a@b.example", "address": {"country": "AU"}}
    )
    assert opened.status == 201
    reading = mint(company).data["token"]
    assert members.bearing(reading, "GET", "/v1/account").body["id"] == opened.body["id"]
    assert members.bearing(reading, "PATCH", "/v1/account", {"name": "B"}).status == 403


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"organization_id": ""}, "invalid_field"),
        ({"organization_id": "x" * 256}, "invalid_field"),
        ({"organization_id": " a"}, "invalid_field"),
        ({"organization_id": 5}, "invalid_field"),
        ({"user_id": "a\nb"}, "invalid_field"),
        ({"scopes": ["two words"]}, "invalid_field"),
        ({"scopes": ["a"] * 21}, "out_of_range"),
        ({"scopes": "account:read"}, "invalid_field"),
        ({"timezone": "Mars/Olympus"}, "unknown_zone"),
        ({"timezone": "../../etc/passwd"}, "unknown_zone"),
        ({"life_seconds": 901}, "out_of_range"),
        ({"life_seconds": 9}, "out_of_range"),
        ({"life_seconds": -1}, "must_be_positive"),
        ({"aud": "x"}, "unknown_field"),
    ],
)
def test_what_is_not_minted(company: Company, fields: dict[str, object], code: str) -> None:
    reply = mint(company, **fields)
    assert (reply.status, reply.code) == (422, code)


def test_minting_needs_a_key_that_may_write(company: Company) -> None:
    issued = company.call("POST", "/v1/companies/{company}/keys", {"scopes": ["company:read", "accounts:write"]})
    reader = Company(company.client, company.id, issued.data["api_key"])
    for path, body in (("tokens", {"organization_id": "a"}), ("tokens/revoke", None), ("issuers", {})):
        reply = reader.call("POST", f"/v1/companies/{company.id}/{path}", body)
        assert (reply.status, reply.code) == (403, "insufficient_scope")


def test_revoking_ends_all_that_was_minted_and_nothing_else(
    company: Company, members: Members, login: Login, keys: Mapping[str, SigningKey]
) -> None:
    before, live = mint(company).data["token"], Company.open(company.client)
    others = mint(live).data["token"]
    assert believed(members.bearing(before, "GET", "/v1/account"))

    for version in (1, 2):
        assert company.call("POST", "/v1/companies/{company}/tokens/revoke").data == {"version": version}
        assert not believed(members.bearing(before, "GET", "/v1/account"))
        assert not believed(members.call("GET", "/v1/account"))
        assert believed(members.bearing(mint(company).data["token"], "GET", "/v1/account"))
    assert believed(members.bearing(others, "GET", "/v1/account"))
    assert believed(login.ask(keys["RS256"].sign(login.claims())))


def test_nobody_else_mints(members: Members) -> None:
    now = int(time.time())
    assert not believed(members.call("GET", "/v1/account", exp=now + OWN_LIFE_SECONDS + 60))
    other = Company.open(members.company.client)
    theirs = f"{members.issuer.rpartition('/companies/')[0]}/companies/{other.id}/test"
    for issuer in (
        theirs,
        members.issuer.replace("/test", "/live"),
        members.issuer + "/",
        members.issuer.replace("/test", "/prod"),
        members.issuer.replace("/test", ""),
        "https://elsewhere.example" + members.issuer.partition("//")[2],
    ):
        assert not believed(members.call("GET", "/v1/account", iss=issuer))
    assert not believed(members.call("GET", "/v1/account", aud=[OWN_AUDIENCE, "x"]))
    for secret in ("x" * 43, members.secret(1), members.company.key):
        forged = jwt.encode(members.claims(), secret, "HS256")
        assert not believed(members.bearing(forged, "GET", "/v1/account"))
    unsigned = f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(members.claims())}."
    assert not believed(members.bearing(unsigned, "GET", "/v1/account"))


# --- issuers that are gone, or changed ---


def test_a_deleted_issuer_is_believed_no_more(login: Login, keys: Mapping[str, SigningKey]) -> None:
    token = keys["RS256"].sign(login.claims())
    assert believed(login.ask(token))
    assert login.company.call("DELETE", login.path).status == 200
    assert not believed(login.ask(token))
    assert login.company.call("GET", login.path).status == 404


def test_other_keys_hold_at_once(login: Login, keys: Mapping[str, SigningKey]) -> None:
    old, new = keys["RS256"], SigningKey.make("RS256", "RS256-1")
    login.company.call("PUT", login.path, {"keys": [new.jwk]})
    assert not believed(login.ask(old.sign(login.claims())))
    assert believed(login.ask(new.sign(login.claims())))
    login.company.call("PUT", login.path, {"max_life_seconds": 60})
    assert not believed(login.ask(new.sign(login.claims())))


def test_an_organization_that_is_not_known_is_made_only_where_that_is_allowed(
    company: Company, keys: Mapping[str, SigningKey]
) -> None:
    key = keys["EdDSA"]
    login = Login(company, "https://auth.example.com/", algorithm="EdDSA", keys=[key.jwk], creates_organizations=False)
    reply = login.ask(key.sign(login.claims(id="org-strange")))
    assert reply.status == 403
    company.call("PUT", login.path, {"creates_organizations": True})
    assert believed(login.ask(key.sign(login.claims(id="org-strange"))))


# --- keys that are published ---


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_keys_change_under_load_and_no_good_token_is_refused(
    calling_service: Server, caller: Company, provider: Provider, algorithm: str
) -> None:
    ring = [SigningKey.make(algorithm, f"k{number}") for number in range(3)]
    provider.publish(ring[0])
    login = Login(caller, provider.name, algorithm=algorithm, jwks_url=provider.url)
    assert [key["kid"] for key in login.refresh().data["keys"]] == ["k0"]
    current, stopping = [ring[0]], threading.Event()
    outcomes: list[tuple[str, int]] = []

    def people() -> None:
        with Client(*calling_service.address) as client:
            while not stopping.is_set():
                key = current[0]
                header = {"authorization": f"Bearer {key.sign(login.claims())}"}
                outcomes.append((key.kid, client.call("GET", "/v1/account", headers=header).status))

    crowd = [threading.Thread(target=people) for _ in range(4)]
    for one in crowd:
        one.start()
    try:
        for before, after in pairwise(ring):
            provider.publish(before, after)
            assert {key["kid"] for key in login.refresh().data["keys"]} == {before.kid, after.kid}
            current[0] = after
            settled = len(outcomes) + 20
            while len(outcomes) < settled:
                time.sleep(0.01)
            provider.publish(after)
            assert [key["kid"] for key in login.refresh().data["keys"]] == [after.kid]
            assert not believed(login.ask(before.sign(login.claims())))
    finally:
        stopping.set()
        for one in crowd:
            one.join()

    assert {status for _, status in outcomes} == {422}
    assert {kid for kid, _ in outcomes} == {"k0", "k1", "k2"}


def test_tokens_make_nobody_fetch(caller: Company, provider: Provider) -> None:
    key = SigningKey.make("ES256")
    provider.publish(key)
    login = Login(caller, provider.name, algorithm="ES256", jwks_url=provider.url)
    login.refresh()
    asked = provider.asked

    provider.publish(key, SigningKey.make("ES256", "k2"))
    for number in range(50):
        assert not believed(login.ask(SigningKey.make("ES256", f"new-{number}").sign(login.claims())))
    assert believed(login.ask(key.sign(login.claims())))
    assert provider.asked == asked


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"", "500"),
        (302, b"", "302"),
        (200, b"<html>", "JSON"),
        (200, b"[]", "JWKS"),
        (200, b'{"keys": {}}', "JWKS"),
        (200, b"[" * 60_000, "JSON"),
        (200, b'{"keys": [' + b" " * 70_000 + b"]}", "too_large"),
    ],
)
def test_a_failure_keeps_the_keys_and_says_why(
    caller: Company, provider: Provider, status: int, body: bytes, reason: str
) -> None:
    key = SigningKey.make("EdDSA")
    provider.publish(key)
    login = Login(caller, provider.name, algorithm="EdDSA", jwks_url=provider.url)
    login.refresh()
    provider.headers = {"location": "http://127.0.0.1:1/"}
    provider.answer = (status, body)
    failed = login.refresh().data

    assert reason in failed["fetch_error"]
    assert [one["kid"] for one in failed["keys"]] == ["k1"]
    assert believed(login.ask(key.sign(login.claims())))
    provider.publish(key)
    assert login.refresh().data["fetch_error"] is None
    provider.publish()
    assert login.refresh().data["keys"] == []
    assert not believed(login.ask(key.sign(login.claims())))


async def test_keys_that_no_look_has_confirmed_for_a_day_sign_nothing(
    caller: Company, provider: Provider, calling_service: Server
) -> None:
    key = SigningKey.make("EdDSA")
    provider.publish(key)
    login = Login(caller, provider.name, algorithm="EdDSA", jwks_url=provider.url)
    login.refresh()
    provider.answer = (500, b"")
    rows = await asyncpg.connect(calling_service.dsn)
    try:
        for age, is_good in (("23 hours 59 minutes", True), ("1 day", False)):
            await rows.execute(f"update issuer set good_at = now() - interval '{age}' where issuer = $1", provider.name)
            assert believed(login.ask(key.sign(login.claims()))) is is_good
    finally:
        await rows.close()
    login.refresh()
    assert not believed(login.ask(key.sign(login.claims())))
    provider.publish(key)
    login.refresh()
    assert believed(login.ask(key.sign(login.claims())))


def test_of_what_is_published_only_what_fits_is_kept(caller: Company, provider: Provider) -> None:
    good, small = SigningKey.make("RS256", "good"), SigningKey.make("RS256", "small", bits=1024)
    private, unused = SigningKey.make("RS256", "private"), SigningKey.make("RS256", "encrypts")
    nameless = {name: value for name, value in SigningKey.make("RS256").jwk.items() if name != "kid"}
    provider.publish(
        good,
        small,
        private.secret_jwk,
        {**unused.jwk, "use": "enc"},
        {**unused.jwk, "kid": "other", "alg": "RS512"},
        SigningKey.make("EdDSA", "curve"),
        nameless,
    )
    login = Login(caller, provider.name, algorithm="RS256", jwks_url=provider.url)
    assert [key["kid"] for key in login.refresh().data["keys"]] == ["good"]
    assert b'"d"' not in caller.call("GET", login.path).raw
    assert believed(login.ask(good.sign(login.claims())))
    assert not believed(login.ask(private.sign(login.claims())))


def test_private_addresses_are_no_place_for_keys(company: Company, provider: Provider) -> None:
    for url in (provider.url, "https://169.254.169.254/", "https://localhost/jwks", "https://10.0.0.1/", "file:///etc"):
        body = {"issuer": "https://a.example", "audience": company.id, "algorithm": "RS256", "jwks_url": url}
        reply = company.call("POST", "/v1/companies/{company}/issuers", body)
        assert (reply.status, reply.code, reply.details["path"]) == (422, "url_not_allowed", "jwks_url")
    assert provider.asked == 0


def test_a_key_lets_nobody_in_further_than_it_reaches_itself(client: Client, company: Company) -> None:
    issued = company.call("POST", "/v1/companies/{company}/keys", {"scopes": ["company:write", "accounts:read"]})
    weak = Company(client, company.id, issued.data["api_key"])
    tokens = "/v1/companies/{company}/tokens"
    assert weak.call("POST", tokens, {"organization_id": "o", "scopes": ["account:read"]}).status == 200
    refused = weak.call("POST", tokens, {"organization_id": "o", "scopes": ["account:write"]})
    assert (refused.status, refused.code) == (403, "insufficient_scope")
    refused = weak.call("POST", "/v1/companies/{company}/issuers", {"issuer": "https://id.example"})
    assert (refused.status, refused.code) in {(403, "insufficient_scope"), (422, "missing_field")}
    for zone in ("localtime", "posixrules", "../../etc/passwd"):
        unknown = company.call("POST", tokens, {"organization_id": "o", "scopes": [], "timezone": zone})
        assert (unknown.status, unknown.code) == (422, "unknown_zone")
