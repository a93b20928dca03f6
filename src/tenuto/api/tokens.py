"""Tokens: a JWT to one ``Member``, strictly, and without a fetch made for its sake.

What a token may be signed with is written down where its issuer is registered, never in the token: its ``alg`` has to
be that one, its ``kid`` one of the keys that are kept. Sources: contract 5.2, bar 4.8 and 5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import jwt

from tenuto.core.identifiers import read, spell
from tenuto.core.organization import Claims, read_claims
from tenuto.core.outcomes import Refusal
from tenuto.engine import Engine
from tenuto.service.issuers import SHARED, kept_keys, shared_secret
from tenuto.store import accounts, organizations
from tenuto.store.accounts import Environment
from tenuto.store.organizations import Issuer

TOKEN_MAX: Final = 8192
LEEWAY_SECONDS: Final = 60
OWN_LIFE_SECONDS: Final = 900
"""The longest life of a token that a company mints with its key."""
OWN_AUDIENCE: Final = "tenuto:organizations"
TYPES: Final = frozenset({"JWT", "AT+JWT", "APPLICATION/AT+JWT"})
"""What the header of a token may say it is; one that is something else, such as a token of a log-out, says so."""
BODY_TYPES: Final = frozenset({"BEARER", *TYPES})
"""The same of its body, where some providers tell an id token or a refresh token from one for an API."""
AUDIENCES_MAX: Final = 20
_REQUIRED: Final = ("exp", "iat", "iss", "aud")
_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
"""The one spelling of a signed token: the decoder would overlook white space and padding."""


class Member(NamedTuple):
    """Somebody of an organization who proved who they are, to one half of a company.

    ``opens``: an organization that is not known yet may be made.
    """

    environment: Environment
    claims: Claims
    opens: bool

    def needs(self, scope: str) -> None:
        """Raises Refusal ``insufficient_scope`` where the token lacks a scope."""
        self.claims.needs(scope)


def own_issuer(engine: Engine, environment: Environment) -> str:
    """Who has signed the tokens that a company mints itself."""
    return f"{engine.public_url}/v1/companies/{spell('c', environment.company_id)}/{environment.mode}"


def own_secret(engine: Engine, environment: Environment) -> str:
    """What they are signed with; another one once the company has revoked all that it minted."""
    version = environment.money.get("tokens", {}).get("version", 0)
    return engine.vault.sign(engine.context_of(environment, f"tokens {version}"))


class Minted(NamedTuple):
    """A token as it is told once, and when it ends."""

    token: str
    expires_at: datetime


def mint(
    engine: Engine,
    environment: Environment,
    *,
    organization: str,
    user: str | None,
    scopes: Sequence[str],
    zone: str,
    life_seconds: int,
) -> Minted:
    """A token of the company's own for somebody of an organization, for at most :data:`OWN_LIFE_SECONDS`."""
    now = engine.now().replace(microsecond=0)
    expires_at = now + timedelta(seconds=life_seconds)
    claims = {
        "iss": own_issuer(engine, environment),
        "aud": OWN_AUDIENCE,
        "iat": int(now.timestamp()),
        "exp": int(expires_at.timestamp()),
        "id": organization,
        "scopes": list(scopes),
        "timezone": zone,
    }
    if user is not None:
        claims["user_id"] = user
    return Minted(jwt.encode(claims, own_secret(engine, environment), algorithm=SHARED), expires_at)


async def proven(engine: Engine, header: bytes | None) -> Member:
    """The member behind an Authorization header. Raises Refusal ``invalid_credentials``, the same for every reason.

    Only a token that is good in all else is told that it names no organization.
    """
    token = _token_of(header)
    head, body = _unproven(token)
    issuer, audiences = _addressed(body)
    own = await _own(engine, issuer) if audiences == [OWN_AUDIENCE] else None
    if own is not None:
        claims = _verified(token, own_secret(engine, own), SHARED, issuer, OWN_AUDIENCE, engine, OWN_LIFE_SECONDS)
        return Member(own, read_claims(claims), opens=True)
    async with engine.database.reading() as reader:
        found = await organizations.find_issuer(reader, issuer, audiences)
    if found is None:
        raise _refused()
    environment = await engine.environment(found.environment_id)
    if environment is None:
        raise _refused()
    key = _key_of(engine, environment, found, head)
    claims = _verified(token, key, found.algorithm, issuer, found.audience, engine, found.max_life)
    return Member(environment, read_claims(claims), opens=found.opens)


def _addressed(body: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Who has signed a token, and for whom, as it says."""
    issuer, audience = body.get("iss"), body.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(issuer, str) or not isinstance(audiences, list) or not 0 < len(audiences) <= AUDIENCES_MAX:
        raise _refused()
    if any(not isinstance(one, str) or "\0" in one for one in (issuer, *audiences)):
        raise _refused()
    try:
        "".join([issuer, *audiences]).encode()
    except UnicodeEncodeError as error:
        raise _refused() from error
    return issuer, audiences


def _refused() -> Refusal:
    return Refusal("invalid_credentials", "The token is not valid.")


def _token_of(header: bytes | None) -> str:
    if header is None or len(header) > TOKEN_MAX:
        raise _refused()
    scheme, _, rest = header.partition(b" ")
    token = rest.strip(b" ")
    if scheme.lower() != b"bearer" or _COMPACT.fullmatch(token) is None:
        raise _refused()
    return token.decode("ascii")


def _unproven(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Head and body as they are written: only to find whose keys the token has to fit."""
    try:
        head = jwt.get_unverified_header(token)
        body = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise _refused() from error
    for told, allowed in ((head.get("typ", "JWT"), TYPES), (body.get("typ", "JWT"), BODY_TYPES)):
        if not isinstance(told, str) or told.upper() not in allowed:
            raise _refused()
    if not {"crit", "cty", "enc", "b64"}.isdisjoint(head):
        raise _refused()
    return head, body


async def _own(engine: Engine, issuer: str) -> Environment | None:
    """The half of a company that minted a token, by the name under which it does."""
    prefix = f"{engine.public_url}/v1/companies/"
    if not issuer.startswith(prefix):
        return None
    company, _, mode = issuer[len(prefix) :].partition("/")
    company_id = read("c", company)
    if company_id is None or mode not in {"live", "test"}:
        return None
    async with engine.database.reading() as reader:
        environment_id = await accounts.find_environment(reader, company_id, live=mode == "live")
    return None if environment_id is None else await engine.environment(environment_id)


def _key_of(engine: Engine, environment: Environment, issuer: Issuer, head: Mapping[str, Any]) -> Any:
    if issuer.algorithm == SHARED:
        secret = shared_secret(engine, environment, issuer)
        if secret is None:
            raise _refused()
        return secret
    kid = head.get("kid")
    keys = kept_keys(engine, issuer)
    if kid is None and len(keys) == 1:
        kid = next(iter(keys))
    jwk = keys.get(kid) if isinstance(kid, str) else None
    if jwk is None:
        raise _refused()
    try:
        return jwt.PyJWK.from_json(json.dumps(jwk), algorithm=issuer.algorithm).key
    except (jwt.PyJWTError, ValueError) as error:
        raise _refused() from error


def _verified(
    token: str,
    key: Any,
    algorithm: str,
    issuer: str,
    audience: str,
    engine: Engine,
    max_life: int,
) -> Mapping[str, Any]:
    """The claims, once signature, issuer, audience and life have been found good at the database's present."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            # The library would ask the host's clock; time is judged below, by the database's.
            options={"require": list(_REQUIRED), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise _refused() from error
    now = engine.now().timestamp()
    issued, expires, begins = claims["iat"], claims["exp"], claims.get("nbf", 0)
    for moment in (issued, expires, begins):
        if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment < 2**40:
            raise _refused()
    if not (begins - LEEWAY_SECONDS <= now < expires + LEEWAY_SECONDS and issued - LEEWAY_SECONDS <= now):
        raise _refused()
    if not 0 < expires - issued <= max_life:
        raise _refused()
    return claims
