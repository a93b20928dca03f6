"""Bad input to the routes of issuers and of minted tokens, as in ``bad_input``; ``{issuer}`` is the caller's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.api.bad_input import Bad
from tests.api.bad_money import COMPANY, STATUS, bodies, names, numbers

ISSUERS: Final = COMPANY + "/issuers"
ISSUER: Final = ISSUERS + "/{issuer}"
TOKENS: Final = COMPANY + "/tokens"
X: Final = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
KEY: Final = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": X}
EDDSA: Final = {"algorithm": "EdDSA", "keys": [KEY]}
NEW: Final = {"issuer": "https://login.example/", "audience": "https://api.example", **EDDSA}
TEXT: Final = "correct horse battery staple 0123"
RSA: Final = {"kty": "RSA", "kid": "r1", "e": "AQAB", "n": "_" * 342}
EC: Final = {"kty": "EC", "crv": "P-256", "kid": "e1", "x": X, "y": X}


def at(
    name: str, method: str, path: str, body: object, code: str = "invalid_field", /, field: str | None = None
) -> Bad:
    """A request that is refused with 422, or with the status that goes with the code."""
    return Bad(f"issuers: {name}", method, path, body, STATUS.get(code, 422), code, {}, field)


def source(name: str, algorithm: str, field: str, code: str = "invalid_field", /, **fields: object) -> Iterator[Bad]:
    """Keys that do not fit, of a new issuer and as a change of one that is there."""
    told = {"algorithm": algorithm, **fields}
    yield at(f"new, {name}", "POST", ISSUERS, {"issuer": "a", "audience": "b", **told}, code, field)
    yield at(f"changed, {name}", "PUT", ISSUER, told, code, field)


def key(name: str, algorithm: str, jwk: object, field: str = "keys[0]") -> Iterator[Bad]:
    yield from source(f"a key {name}", algorithm, field, keys=[jwk])


KEY_ROWS: Final = (
    *key("without kid", "EdDSA", {name: value for name, value in KEY.items() if name != "kid"}),
    *key("with a kid that is a number", "EdDSA", {**KEY, "kid": 1}),
    *key("with an empty kid", "EdDSA", {**KEY, "kid": ""}),
    *key("with a huge kid", "EdDSA", {**KEY, "kid": "k" * 256}),
    *key("with its private part", "EdDSA", {**KEY, "d": X}),
    *key("of another kind", "RS256", KEY),
    *key("of another curve", "EdDSA", {**KEY, "crv": "Ed448"}),
    *key("of another algorithm", "EdDSA", {**KEY, "alg": "ES256"}),
    *key("for secrets", "EdDSA", {**KEY, "use": "enc"}),
    *key("that signs", "EdDSA", {**KEY, "key_ops": ["sign"]}),
    *key("that is too short", "EdDSA", {**KEY, "x": X[:-4]}),
    *key("that is no base64url", "EdDSA", {**KEY, "x": "+" * 43}),
    *key("that is empty", "EdDSA", {}),
    *key("that is shared", "RS256", {"kty": "oct", "kid": "o1", "k": X}),
    *key("of 1024 bits", "RS256", {**RSA, "n": "_" * 171}),
    *key("of 16,384 bits", "PS256", {**RSA, "n": "_" * 2731}),
    *key("that is even", "RS256", {**RSA, "n": "_" * 341 + "A"}),
    *key("with the exponent 1", "RS256", {**RSA, "e": "AQ"}),
    *key("with an even exponent", "RS256", {**RSA, "e": "AQAA"}),
    *key("without a modulus", "RS256", {"kty": "RSA", "kid": "r1", "e": "AQAB"}),
    *key("that is off its curve", "ES256", EC),
    *key("of half a point", "ES256", {**EC, "y": None}),
    *source("two keys of one kid", "EdDSA", "keys[1].kid", keys=[KEY, KEY]),
    *source("no keys", "EdDSA", "keys", "out_of_range", keys=[]),
    *source(
        "too many keys", "EdDSA", "keys", "out_of_range", keys=[{**KEY, "kid": f"k{number}"} for number in range(21)]
    ),
    *source("keys that are texts", "EdDSA", "keys[0]", keys=["k1"]),
)

SOURCE_ROWS: Final = (
    *source("a short secret", "HS256", "secret", secret="0123456789abcdef0123456789abcde"),
    *source("a secret of one letter", "HS256", "secret", secret="a" * 64),
    *source("a secret that is a public key", "HS256", "secret", secret="-----BEGIN PUBLIC KEY-----\n" + X),
    *source("a secret that is no base64", "HS256", "secret", secret="!" + TEXT, secret_encoding="base64"),
    *source("base64 that is short", "HS256", "secret", secret=X[:40], secret_encoding="base64"),
    *source("an unknown spelling", "HS256", "secret_encoding", secret=TEXT, secret_encoding="hex"),
    *source("a secret for a public algorithm", "RS256", "algorithm", secret=TEXT),
    *source("keys for a shared algorithm", "HS256", "algorithm", keys=[KEY]),
    *source("two sources", "EdDSA", "keys", keys=[KEY], jwks_url="https://a.example/"),
    *source("a secret beside keys", "HS256", "secret", keys=[KEY], secret=TEXT),
    *source("no algorithm at all", "none", "algorithm", keys=[KEY]),
    *source("an algorithm that is not taken", "HS512", "algorithm", secret=TEXT),
    *source("an algorithm in other letters", "rs256", "algorithm", keys=[RSA]),
    *(
        row
        for url in (
            "http://a.example/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://a.internal/",
            "ftp://a.example",
        )
        for row in source(f"keys at {url}", "RS256", "jwks_url", "url_not_allowed", jwks_url=url)
    ),
    at("another algorithm without keys", "PUT", ISSUER, {"algorithm": "RS256"}, field="algorithm"),
    at("no source", "POST", ISSUERS, {**NEW, "keys": None}, "missing_field", "jwks_url"),
    at("the audience of minted tokens", "POST", ISSUERS, {**NEW, "audience": "tenuto:organizations"}, field="audience"),
    at("the issuer is not changed", "PUT", ISSUER, {"issuer": "https://b.example"}, "unknown_field"),
    at("nothing to fetch", "POST", ISSUER + "/refresh", None, field="jwks_url"),
)

ISSUERS_ROWS: Final = (
    *bodies("issuer", "POST", ISSUERS),
    *names("issuer", "POST", TOKENS, {"organization_id": "a"}, "timezone", 64),
    *numbers("issuer", "POST", ISSUERS, NEW, "max_life_seconds", least=60, most=86_400, can_be_null=False),
    *numbers("issuer", "PUT", ISSUER, {}, "max_life_seconds", least=60, most=86_400, can_be_null=False),
    *numbers("token", "POST", TOKENS, {"organization_id": "a"}, "life_seconds", least=10, most=900, can_be_null=False),
    *KEY_ROWS,
    *SOURCE_ROWS,
    *(
        at(f"{method} {path.rpartition('}')[2]} of {what}", method, path.replace("{issuer}", id), body, "not_found")
        for method, path, body in (
            *(("GET", ISSUER, None), ("PUT", ISSUER, {}), ("DELETE", ISSUER, None)),
            ("POST", ISSUER + "/refresh", None),
        )
        for what, id in {"nobody": "iss_00000000", "no id": "1", "an account": "{account}"}.items()
    ),
    *(
        at(
            f"{method} {path[24:]} of another company",
            method,
            path.replace("{company}", "c_00000000"),
            body,
            "not_found",
        )
        for method, path, body in (
            *(("GET", ISSUERS, None), ("POST", ISSUERS, NEW), ("POST", TOKENS, {"organization_id": "a"})),
            ("POST", TOKENS + "/revoke", None),
        )
    ),
)
