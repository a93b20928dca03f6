"""Issuers: whose tokens a half of a company believes, by which keys, and how those keys are kept fresh.

The problem, on one example. A company lets its people in by a provider that signs with RS256 and changes keys:

    09:00:00   the provider publishes k1                      {k1} is kept
    09:20:10   it publishes k1 and k2, and signs with k2      {k1, k2} from the next look on: a minute at most
    09:40:00   it withdraws k1                                {k2}: what k1 has signed is worth nothing any more
    09:41:00   it does not answer                             {k2} still, and ``fetch_error`` says why

Keys are looked for by the clock or when the company asks, never because somebody sends a token: a token that names a
key nobody has heard of costs its sender a 401 and us nothing. Sources: contract 5.2, bar 4.8 and 5.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Engine
from tenuto.gateway.addresses import parse_target
from tenuto.store import accounts, organizations
from tenuto.store.accounts import Environment
from tenuto.store.database import Unit
from tenuto.store.organizations import Issuer
from tenuto.vault import VaultError

ISSUERS_MAX: Final = 20
KEYS_MAX: Final = 20
KID_MAX: Final = 255
RSA_BITS: Final = (2048, 8192)
RSA_EXPONENT_MAX: Final = 2**32
SECRET_BYTES: Final = (32, 512)
"""How long a shared secret is; what it is made of has to look like chance."""
SECRET_DISTINCT: Final = 8
FETCH_EVERY: Final = timedelta(seconds=60)
"""How often published keys are looked at, in real time."""
KEYS_LAST: Final = timedelta(days=1)
"""How long fetched keys are believed while no look gives any: somebody may have withdrawn one of them since."""
FETCH_WAIT_SECONDS: Final = 20.0
"""How long somebody who asks for a look waits for it."""
POLL_SECONDS: Final = 0.1
ERROR_MAX: Final = 300
SECRET_OF: Final = "issuer_{}_secret"  # noqa: S105 - what it is sealed for, not a secret
SHARED: Final = "HS256"
_CURVE: Final = {"ES256": "P-256", "EdDSA": "Ed25519"}
_KIND: Final = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
ALGORITHMS: Final = (*_KIND, SHARED)
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_P256: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_P256_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_COORDINATE_BYTES: Final = 32
_BASE64URL: Final = re.compile("[A-Za-z0-9_-]+", re.ASCII)


class KeyProblem(ValueError):
    """Why a key, or a set of keys, is not taken: a few words that end a sentence."""


# --- what a key is ----------------------------------------------------------------------------------------------------


def judged_key(jwk: object, algorithm: str) -> dict[str, str]:
    """The public members of a JWK that ``algorithm`` can be verified with. Raises KeyProblem."""
    if not isinstance(jwk, dict):
        raise KeyProblem("is no object")
    kid, kind = jwk.get("kid"), _KIND[algorithm]
    if not isinstance(kid, str) or not 0 < len(kid) <= KID_MAX or not kid.isprintable():
        raise KeyProblem(f"has no kid of 1 to {KID_MAX} printable characters")
    if jwk.get("kty") != kind:
        raise KeyProblem(f"is not of the kty {kind}, which {algorithm} takes")
    _judge_purpose(jwk, algorithm)
    if kind == "RSA":
        _judge_rsa(jwk)
        return {"kty": kind, "kid": kid, "n": jwk["n"], "e": jwk["e"]}
    if jwk.get("crv") != _CURVE[algorithm]:
        raise KeyProblem(f"is not on the curve {_CURVE[algorithm]}, which {algorithm} takes")
    if kind == "OKP":
        _coordinate(jwk, "x")
        return {"kty": kind, "kid": kid, "crv": jwk["crv"], "x": jwk["x"]}
    x, y = _coordinate(jwk, "x"), _coordinate(jwk, "y")
    if max(x, y) >= _P256 or (y * y - (x * x * x - 3 * x + _P256_B)) % _P256:
        raise KeyProblem("is no point of its curve")
    return {"kty": kind, "kid": kid, "crv": jwk["crv"], "x": jwk["x"], "y": jwk["y"]}


def _judge_purpose(jwk: Mapping[str, Any], algorithm: str) -> None:
    if any(name in jwk for name in _PRIVATE):
        raise KeyProblem("holds its private part; publish the public one only, and make another key")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise KeyProblem("is not for signatures")
    if jwk.get("alg", algorithm) != algorithm:
        raise KeyProblem(f"is for another algorithm than {algorithm}")


def _judge_rsa(jwk: Mapping[str, Any]) -> None:
    modulus, exponent = (int.from_bytes(_octets(jwk, name)) for name in ("n", "e"))
    least, most = RSA_BITS
    if not least <= modulus.bit_length() <= most or not modulus % 2:
        raise KeyProblem(f"is no RSA key of {least} to {most} bits")
    if not (3 <= exponent < RSA_EXPONENT_MAX and exponent % 2):  # noqa: PLR2004 - the least there is
        raise KeyProblem("has an exponent that is not safe")


def _coordinate(jwk: Mapping[str, Any], name: str) -> int:
    found = _octets(jwk, name)
    if len(found) != _COORDINATE_BYTES:
        raise KeyProblem(f"has an {name} that is not {_COORDINATE_BYTES} bytes")
    return int.from_bytes(found)


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str) or len(text) > 2 * RSA_BITS[1] // 8 or not _BASE64URL.fullmatch(text):
        raise KeyProblem(f"has no {name} in base64url")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyProblem(f"has no {name} in base64url") from error


def judged_keys(given: Sequence[object], algorithm: str) -> dict[str, dict[str, str]]:
    """Keys that a company gives itself, by kid: each has to fit. Raises Refusal with a path such as ``keys[1]``."""
    if not 0 < len(given) <= KEYS_MAX:
        raise invalid("keys", f"takes 1 to {KEYS_MAX} keys.", "out_of_range")
    found: dict[str, dict[str, str]] = {}
    for index, jwk in enumerate(given):
        try:
            key = judged_key(jwk, algorithm)
        except KeyProblem as problem:
            raise invalid(f"keys[{index}]", f"{problem}.") from problem
        if key["kid"] in found:
            raise invalid(f"keys[{index}].kid", "is the kid of another key too.")
        found[key["kid"]] = key
    return found


def published_keys(text: str, algorithm: str) -> dict[str, dict[str, str]]:
    """The keys of a published JWKS that fit, by kid; those for other uses are none of ours. Raises KeyProblem."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise KeyProblem("what came back is no JSON") from error
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise KeyProblem("what came back is no JWKS: it has no list of keys")
    found: dict[str, dict[str, str]] = {}
    for jwk in listed:
        try:
            key = judged_key(jwk, algorithm)
        except KeyProblem:
            continue
        if found.setdefault(key["kid"], key) != key:
            raise KeyProblem("two keys have one kid")
    if len(found) > KEYS_MAX:
        raise KeyProblem(f"there are more than {KEYS_MAX} keys")
    return found


def judged_secret(secret: str, encoding: str) -> str:
    """A shared secret as it is sealed: its bytes in base64. Raises Refusal."""
    raw = secret.encode()
    if encoding == "base64":
        try:
            raw = base64.b64decode(secret.replace("-", "+").replace("_", "/") + "=" * (-len(secret) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid("secret", "is not base64.") from error
    least, most = SECRET_BYTES
    if not least <= len(raw) <= most:
        raise invalid("secret", f"takes {least} to {most} bytes: 256 bits at least.")
    if len(set(raw)) < SECRET_DISTINCT:
        raise invalid("secret", "is not from chance.")
    if b"-----BEGIN" in raw or raw.startswith(b"ssh-"):
        raise invalid("secret", "is a key of another kind.")
    return base64.b64encode(raw).decode()


def kept_keys(engine: Engine, issuer: Issuer) -> Mapping[str, Mapping[str, Any]]:
    """The public keys by which a token may be judged now: none where the last good look was too long ago."""
    is_old = issuer.jwks_url is not None and (issuer.good_at is None or issuer.good_at + KEYS_LAST <= engine.now())
    return {} if is_old else issuer.keys


def shared_secret(engine: Engine, environment: Environment, issuer: Issuer) -> bytes | None:
    """What the tokens of an issuer are signed with; None where there is no secret, or it does not open."""
    if issuer.secret is None:
        return None
    try:
        opened = engine.vault.open(issuer.secret, context=engine.context_of(environment, SECRET_OF.format(issuer.id)))
    except VaultError:
        return None
    return base64.b64decode(opened)


# --- issuers of a company ---------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """Where the keys of an issuer come from: one of the three. ``secret`` is as :func:`judged_secret` gives it."""

    jwks_url: str | None = None
    keys: Sequence[object] | None = None
    secret: str | None = None


def _sourced(
    engine: Engine, environment: Environment, issuer_id: int, algorithm: str, source: Source
) -> dict[str, object]:
    """The columns that a source decides. Raises Refusal where it does not fit the algorithm."""
    if (source.secret is None) is (algorithm == SHARED):
        is_shared = algorithm == SHARED
        raise invalid("algorithm", f"{algorithm} takes {'a secret' if is_shared else 'jwks_url or keys'}.")
    if source.jwks_url is not None:
        try:
            parse_target(source.jwks_url, allow_private=engine.settings.may_call_near)
        except Refusal as refusal:
            reason = refusal.message.removeprefix("url: ")
            raise Refusal(refusal.code, f"jwks_url: {reason}", path="jwks_url") from refusal
    sealed = None
    if source.secret is not None:
        sealed = engine.vault.seal(source.secret, context=engine.context_of(environment, SECRET_OF.format(issuer_id)))
    return {
        "algorithm": algorithm,
        "jwks_url": source.jwks_url,
        "keys": {} if source.keys is None else judged_keys(source.keys, algorithm),
        "secret": sealed,
        "fetched_at": None,
        "good_at": None,
        "fetch_error": None,
        "next_fetch_at": None if source.jwks_url is None else engine.now(),
    }


async def create_issuer(
    engine: Engine, unit: Unit, environment: Environment, asked: Mapping[str, Any], source: Source
) -> Issuer:
    """Believe somebody's tokens. ``asked``: issuer, audience, algorithm, opens, max_life.

    Raises Refusal ``issuer_exists`` where the issuer and audience are known already, here or elsewhere.
    """
    id = engine.new_id()
    columns = _sourced(engine, environment, id, asked["algorithm"], source)
    await accounts.lock_environment(unit, environment.id)
    if len(await organizations.list_issuers(unit, environment.id)) >= ISSUERS_MAX:
        raise invalid("issuer", f"a company has at most {ISSUERS_MAX} issuers; delete one first.", "out_of_range")
    made = Issuer(
        environment_id=environment.id,
        id=id,
        created_at=engine.now(),
        updated_at=None,
        **{**asked, **columns},
    )
    if not await organizations.insert_issuer(unit, made):
        raise Refusal("issuer_exists")
    return made


async def _issuer(unit: Unit, environment: Environment, issuer_id: int) -> Issuer:
    await accounts.lock_environment(unit, environment.id)
    found = await organizations.read_issuer(unit, environment.id, issuer_id)
    if found is None:
        raise Refusal("not_found")
    return found


async def change_issuer(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    issuer_id: int,
    asked: Mapping[str, Any],
    source: Source | None,
) -> Issuer:
    """Change algorithm, opens, max_life, or where the keys come from; other keys hold from this moment on."""
    found = await _issuer(unit, environment, issuer_id)
    changes = dict(asked)
    algorithm = changes.pop("algorithm", found.algorithm)
    if source is None and algorithm != found.algorithm:
        if found.jwks_url is None:
            raise invalid("algorithm", "comes with keys that fit it.")
        source = Source(jwks_url=found.jwks_url)
    if source is not None:
        changes |= _sourced(engine, environment, issuer_id, algorithm, source)
    if changes:
        await organizations.update_issuer(unit, environment.id, issuer_id, changes, engine.now())
    return await _issuer(unit, environment, issuer_id)


async def delete_issuer(unit: Unit, environment: Environment, issuer_id: int) -> Issuer:
    """Believe its tokens no more, from this moment on. Returns it as it was."""
    found = await _issuer(unit, environment, issuer_id)
    await organizations.delete_issuer(unit, environment.id, issuer_id)
    return found


async def ask_for_keys(engine: Engine, unit: Unit, environment: Environment, issuer_id: int) -> datetime:
    """Let the keys be looked at now: the sweep sees it at its next pass. Returns since when that is asked for."""
    found = await _issuer(unit, environment, issuer_id)
    if found.jwks_url is None:
        raise invalid("jwks_url", "this issuer has none: nothing can be fetched.")
    asked_at = engine.now()
    await organizations.plan_fetch(unit, environment.id, issuer_id, asked_at)
    return asked_at


async def fetched_since(engine: Engine, environment: Environment, issuer_id: int, asked_at: datetime) -> Issuer:
    """An issuer once its keys were looked at. Raises Refusal ``unavailable`` where that takes too long."""
    give_up_at = time.monotonic() + FETCH_WAIT_SECONDS
    while time.monotonic() < give_up_at:
        async with engine.database.reading() as reader:
            found = await organizations.read_issuer(reader, environment.id, issuer_id)
        if found is None:
            raise Refusal("not_found")
        if found.jwks_url is None or (found.fetched_at is not None and found.fetched_at >= asked_at):
            return found
        await asyncio.sleep(POLL_SECONDS)
    raise Refusal("unavailable", "The keys were not fetched in time; the courier may be away.")


async def revoke_tokens(engine: Engine, unit: Unit, environment: Environment) -> int:
    """Refuse every token that the company has minted so far. Returns how often it has done so."""
    await accounts.lock_environment(unit, environment.id)
    current = await accounts.read_environment(unit, environment.id)
    assert current is not None
    version = int(current.money.get("tokens", {}).get("version", 0)) + 1
    await accounts.update_settings(unit, environment.id, {"money": {"tokens": {"version": version}}})
    await accounts.raise_revision(unit, environment.id, engine.now())
    return version


# --- the sweep --------------------------------------------------------------------------------------------------------


class Got(Protocol):
    """What became of one request (gateway.egress)."""

    @property
    def status(self) -> int | None:
        """The status of the answer, if there was one."""

    @property
    def answer(self) -> str:
        """Its body."""

    @property
    def error(self) -> str | None:
        """A code for what went wrong."""


class Get(Protocol):
    """Asks for something and tells what became of it; raises nothing (gateway.egress)."""

    async def __call__(self, url: str, *, headers: Mapping[str, str]) -> Got:
        """Ask for it."""


async def refresh_keys(engine: Engine, *, now: datetime, limit: int, get: Get) -> int:
    """Sweep: look at the published keys of issuers for which it is time; how many.

    What is due is claimed first, so several processes share the work and one that dies in the middle delays no more
    than one look. A look that began earlier never takes the place of one that began later.
    """
    async with engine.database.writing() as unit:
        due = await organizations.claim_fetches(unit, now, now + FETCH_EVERY, limit)
    if due:
        await asyncio.gather(*(_refresh(engine, issuer, now, get) for issuer in due))
    return len(due)


async def _refresh(engine: Engine, issuer: Issuer, begun_at: datetime, get: Get) -> None:
    assert issuer.jwks_url is not None
    keys: Mapping[str, Mapping[str, Any]] | None = None
    error: str | None = None
    try:
        keys = published_keys(await _document(issuer.jwks_url, get), issuer.algorithm)
    except KeyProblem as problem:
        error = str(problem)[:ERROR_MAX]
    async with engine.database.writing() as unit:
        await organizations.save_fetch(unit, issuer, begun_at, keys, error)


async def _document(url: str, get: Get) -> str:
    got = await get(url, headers={"accept": "application/jwk-set+json, application/json"})
    if got.error is not None:
        raise KeyProblem(f"the request failed: {got.error}")
    if got.status != 200:  # noqa: PLR2004 - a redirect is not followed, and a page of errors holds no keys
        raise KeyProblem(f"the answer has the status {got.status}")
    return got.answer
