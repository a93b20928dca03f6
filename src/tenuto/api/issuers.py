"""Whose tokens a company believes, and tokens that it mints itself. Sources: contract 5.2, bar 5 (JWT self-service)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tenuto.core.identifiers import spell
from tenuto.core.organization import ID_MAX_CHARACTERS, READ_SCOPE, WRITE_SCOPE
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer
from tenuto.service import issuers as service
from tenuto.service.idempotency import Steps
from tenuto.service.issuers import ALGORITHMS, SHARED, Source
from tenuto.store import organizations as store
from tenuto.store.database import Unit
from tenuto.store.organizations import Issuer

from . import body as bodies
from . import dialect, shapes, tokens
from .routes import Call, Route

NAME_MAX: Final = 500
URL_MAX: Final = 2000
SECRET_MAX: Final = 1024
LIFE_SECONDS: Final = (60, 86_400)
OWN_LIFE_LEAST: Final = 10
SCOPES_MAX: Final = 20
SCOPE_MAX: Final = 64
ZONE_MAX: Final = 64
ENCODINGS: Final = ("text", "base64")


class IssuerIn(msgspec.Struct, forbid_unknown_fields=True):
    """Somebody whose tokens are believed; keys come from one of ``jwks_url``, ``keys`` and ``secret``."""

    issuer: str
    audience: str
    algorithm: str
    jwks_url: str | None = None
    keys: list[dict[str, Any]] | None = None
    secret: str | None = None
    secret_encoding: str = "text"  # noqa: S105 - how it is written, not a secret
    creates_organizations: bool = False
    max_life_seconds: int = LIFE_SECONDS[1]


class IssuerChange(msgspec.Struct, forbid_unknown_fields=True):
    """Fields to change; what is missing stays as it is. A source that is given takes the place of the one before."""

    algorithm: str | msgspec.UnsetType = msgspec.UNSET
    jwks_url: str | None = None
    keys: list[dict[str, Any]] | None = None
    secret: str | None = None
    secret_encoding: str = "text"  # noqa: S105 - how it is written, not a secret
    creates_organizations: bool | msgspec.UnsetType = msgspec.UNSET
    max_life_seconds: int | msgspec.UnsetType = msgspec.UNSET


class TokenIn(msgspec.Struct, forbid_unknown_fields=True):
    """A token to mint: for whom, with which scopes, and for how long."""

    organization_id: str
    user_id: str | None = None
    scopes: list[str] = msgspec.field(default_factory=lambda: [READ_SCOPE])
    timezone: str = "UTC"
    life_seconds: int = tokens.OWN_LIFE_SECONDS


class PublicKeyOut(shapes.Shape):
    """A public key by which tokens are verified, as a JWK."""

    kid: str
    kty: str
    crv: str | None
    n: str | None
    e: str | None
    x: str | None
    y: str | None


class IssuerOut(shapes.Shape):
    """An issuer. ``fetched_at``: when ``jwks_url`` was last looked at; ``fetch_error``: why that gave no keys."""

    id: str
    company_id: str
    issuer: str
    audience: str
    algorithm: str
    jwks_url: str | None
    keys: list[PublicKeyOut]
    has_secret: bool
    creates_organizations: bool
    max_life_seconds: int
    fetched_at: str | None
    fetch_error: str | None
    created_at: str | None
    updated_at: str | None


class TokenOut(shapes.Shape):
    """A token, which is shown this once, and when it ends."""

    token: str
    expires_at: str | None


class RevokedOut(shapes.Shape):
    """How often all minted tokens were revoked; none from before is good any more."""

    version: int


def _shape(found: Issuer, company_id: int) -> IssuerOut:
    return IssuerOut(
        id=spell("iss", found.id),
        company_id=spell("c", company_id),
        issuer=found.issuer,
        audience=found.audience,
        algorithm=found.algorithm,
        jwks_url=found.jwks_url,
        keys=[
            PublicKeyOut(kid, *(key.get(name) for name in ("kty", "crv", "n", "e", "x", "y")))  # type: ignore[arg-type]
            for kid, key in found.keys.items()
        ],
        has_secret=found.secret is not None,
        creates_organizations=found.opens,
        max_life_seconds=found.max_life,
        fetched_at=bodies.spelled(found.fetched_at),
        fetch_error=found.fetch_error,
        created_at=bodies.spelled(found.created_at),
        updated_at=bodies.spelled(found.updated_at),
    )


def _shown(call: Call, found: Issuer) -> bytes:
    return shapes.wrapped(_shape(found, call.environment.company_id))


def _algorithm(name: str) -> str:
    if name not in ALGORITHMS:
        raise invalid("algorithm", f"is one of {', '.join(ALGORITHMS)}.")
    return name


def _life(seconds: int) -> int:
    least, most = LIFE_SECONDS
    return bodies.whole(seconds, "max_life_seconds", least=least, most=most)


def _source(given: IssuerIn | IssuerChange) -> Source | None:
    """Where the keys come from, if it is said. Raises Refusal where it is said twice."""
    told = [name for name in ("jwks_url", "keys", "secret") if getattr(given, name) is not None]
    if len(told) > 1:
        raise invalid(told[1], f"stands beside {told[0]}; keys come from one of them.")
    if given.secret_encoding not in ENCODINGS:
        raise invalid("secret_encoding", f"is one of {', '.join(ENCODINGS)}.")
    if not told:
        return None
    if given.jwks_url is not None:
        return Source(jwks_url=bodies.token(given.jwks_url, "jwks_url", URL_MAX))
    if given.keys is not None:
        return Source(keys=given.keys)
    assert given.secret is not None
    secret = bodies.text(given.secret, "secret", SECRET_MAX)
    return Source(secret=service.judged_secret(secret, given.secret_encoding))


def _own_name(call: Call, issuer: str, audience: str) -> None:
    """Nobody is believed under the name that we sign with ourselves."""
    if issuer.startswith(f"{call.engine.public_url}/"):
        raise invalid("issuer", "is ours; tokens that you mint are believed without it.")
    if audience == tokens.OWN_AUDIENCE:
        raise invalid("audience", "is that of tokens that you mint.")


def _may_let_in(call: Call) -> None:
    """Raises Refusal where a key would give away more than it has: who signs tokens can do what tokens can."""
    call.caller.needs("accounts:read")
    call.caller.needs("accounts:write")


async def create_issuer(call: Call) -> Answer:
    """Believe tokens of an issuer for an audience, by one algorithm and its keys."""
    call.company()
    _may_let_in(call)
    given = call.decoded(IssuerIn)
    issuer = bodies.token(given.issuer, "issuer", NAME_MAX, spaces=True)
    audience = bodies.token(given.audience, "audience", NAME_MAX, spaces=True)
    _own_name(call, issuer, audience)
    asked = {
        "issuer": issuer,
        "audience": audience,
        "algorithm": _algorithm(given.algorithm),
        "opens": given.creates_organizations,
        "max_life": _life(given.max_life_seconds),
    }
    source = _source(given)
    if source is None:
        name = "secret" if given.algorithm == SHARED else "jwks_url"
        raise invalid(name, "is required: keys come from jwks_url, keys or secret.", "missing_field")

    async def verb(unit: Unit) -> Issuer:
        return await service.create_issuer(call.engine, unit, call.environment, asked, source)

    return await call.once(verb, lambda found: _shown(call, found))


async def list_issuers(call: Call) -> Answer:
    """All issuers, the oldest first."""
    call.company()
    async with call.engine.database.reading() as reader:
        found = await store.list_issuers(reader, call.environment.id)
    return Answer(200, shapes.listed([_shape(one, call.environment.company_id) for one in found], None))


async def get_issuer(call: Call) -> Answer:
    """One issuer with the public keys that are kept of it."""
    call.company()
    async with call.engine.database.reading() as reader:
        found = await store.read_issuer(reader, call.environment.id, call.id("iss", "issuer_id"))
    if found is None:
        raise Refusal("not_found")
    return Answer(200, _shown(call, found))


async def change_issuer(call: Call) -> Answer:
    """Change how an issuer's tokens are judged; other keys hold at once, and those before no more."""
    call.company()
    _may_let_in(call)
    given, issuer_id = call.decoded(IssuerChange), call.id("iss", "issuer_id")
    asked: dict[str, Any] = {}
    if not isinstance(given.algorithm, msgspec.UnsetType):
        asked["algorithm"] = _algorithm(given.algorithm)
    if not isinstance(given.creates_organizations, msgspec.UnsetType):
        asked["opens"] = given.creates_organizations
    if not isinstance(given.max_life_seconds, msgspec.UnsetType):
        asked["max_life"] = _life(given.max_life_seconds)
    source = _source(given)

    async def verb(unit: Unit) -> Issuer:
        return await service.change_issuer(call.engine, unit, call.environment, issuer_id, asked, source)

    return await call.once(verb, lambda found: _shown(call, found))


async def delete_issuer(call: Call) -> Answer:
    """Believe an issuer's tokens no more."""
    call.company()
    issuer_id = call.id("iss", "issuer_id")

    async def verb(unit: Unit) -> Issuer:
        return await service.delete_issuer(unit, call.environment, issuer_id)

    return await call.once(verb, lambda found: _shown(call, found))


async def refresh_issuer(call: Call) -> Answer:
    """Fetch an issuer's published keys now; those that are not published any more are dropped."""
    call.company()
    issuer_id = call.id("iss", "issuer_id")

    async def begin(unit: Unit) -> Any:
        return await service.ask_for_keys(call.engine, unit, call.environment, issuer_id)

    async def finish(asked_at: Any) -> Answer:
        found = await service.fetched_since(call.engine, call.environment, issuer_id, asked_at)
        return Answer(200, _shown(call, found))

    return await call.once_in_steps(Steps(begin, begin, finish, leaves_nothing=True))


async def mint_token(call: Call) -> Answer:
    """Mint a token for somebody of an organization, for a short while; it is shown this once."""
    call.company()
    given = call.decoded(TokenIn)
    organization = _name(given.organization_id, "organization_id")
    user = None if given.user_id is None else _name(given.user_id, "user_id")
    if len(given.scopes) > SCOPES_MAX:
        raise invalid("scopes", f"takes at most {SCOPES_MAX} scopes.", "out_of_range")
    scopes = [bodies.token(scope, f"scopes[{index}]", SCOPE_MAX) for index, scope in enumerate(given.scopes)]
    for theirs, ours in ((READ_SCOPE, "accounts:read"), (WRITE_SCOPE, "accounts:write")):
        if theirs in scopes:
            call.caller.needs(ours)  # a key gives away no more than it has
    zone = _zone(given.timezone)
    most = tokens.OWN_LIFE_SECONDS
    life = bodies.whole(given.life_seconds, "life_seconds", least=OWN_LIFE_LEAST, most=most)

    async def verb(_: Unit) -> tokens.Minted:
        return tokens.mint(
            call.engine,
            call.environment,
            organization=organization,
            user=user,
            scopes=scopes,
            zone=zone,
            life_seconds=life,
        )

    def render(minted: tokens.Minted) -> bytes:
        return shapes.wrapped(TokenOut(minted.token, bodies.spelled(minted.expires_at)))

    return await call.once(verb, render, is_secret=True)


def _name(value: str, path: str) -> str:
    """A text as a claim takes it."""
    if not 0 < len(value) <= ID_MAX_CHARACTERS or not value.isprintable() or value != value.strip():
        raise invalid(path, f"takes 1 to {ID_MAX_CHARACTERS} printable characters, no spaces at its ends.")
    return value


def _zone(name: str) -> str:
    zone = bodies.token(name, "timezone", ZONE_MAX)
    if zone not in dialect.zones():
        raise invalid("timezone", "is an IANA name such as Africa/Cairo.", "unknown_zone")
    return zone


async def revoke_tokens(call: Call) -> Answer:
    """Revoke every token that was minted so far."""
    call.company()

    async def verb(unit: Unit) -> int:
        return await service.revoke_tokens(call.engine, unit, call.environment)

    return await call.once(verb, lambda version: shapes.wrapped(RevokedOut(version)))


_PATH: Final = "/companies/{company_id}/issuers"
_ONE: Final = _PATH + "/{issuer_id}"
_TOKENS: Final = "/companies/{company_id}/tokens"
_TAG: Final = "Issuers"
_READ: Final = "company:read"
_WRITE: Final = "company:write"
_EXAMPLE: Final = {
    "issuer": "https://auth.example.com/",
    "audience": "https://billing.example.com",
    "algorithm": "EdDSA",
    "keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}],
    "creates_organizations": True,
    "max_life_seconds": 3600,
}
_ROTATION: Final = (
    "Keys at a `jwks_url` are looked at every minute, and never because of a token: publish a key a minute before you"
    " sign with it, or ask for a look."
)

ROUTES: Final = (
    Route(
        "POST",
        _PATH,
        create_issuer,
        "Believe an issuer's tokens",
        _TAG,
        IssuerOut,
        scope=_WRITE,
        body=IssuerIn,
        refusals=("issuer_exists", "url_not_allowed"),
        example=_EXAMPLE,
        details=_ROTATION,
    ),
    Route("GET", _PATH, list_issuers, "List issuers", _TAG, IssuerOut, scope=_READ, is_list=True),
    Route("GET", _ONE, get_issuer, "Read an issuer", _TAG, IssuerOut, scope=_READ),
    Route(
        "PUT",
        _ONE,
        change_issuer,
        "Change an issuer",
        _TAG,
        IssuerOut,
        scope=_WRITE,
        body=IssuerChange,
        refusals=("url_not_allowed",),
        example={"max_life_seconds": 900},
    ),
    Route("DELETE", _ONE, delete_issuer, "Delete an issuer", _TAG, IssuerOut, scope=_WRITE),
    Route("POST", _ONE + "/refresh", refresh_issuer, "Fetch an issuer's keys", _TAG, IssuerOut, scope=_WRITE),
    Route(
        "POST",
        _TOKENS,
        mint_token,
        "Mint a token",
        _TAG,
        TokenOut,
        scope=_WRITE,
        body=TokenIn,
        example={"organization_id": "org-1", "user_id": "user-1", "scopes": ["account:read"], "life_seconds": 600},
    ),
    Route("POST", _TOKENS + "/revoke", revoke_tokens, "Revoke all minted tokens", _TAG, RevokedOut, scope=_WRITE),
)
