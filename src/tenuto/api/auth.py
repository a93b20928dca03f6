"""Who is calling: HTTP Basic (company id, key) or Bearer (key) to one ``Caller``.

A key is found by the id inside it and compared by its SHA-256 in constant time; a fast hash is right for 256 bits of
chance (bar 5). A worker remembers which header spelled which key, so that the hot path hashes once and asks nobody: the
key's being in force is proven with the write itself, or by ``Engine.environment`` for everything else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final, NamedTuple

from tenuto.core.identifiers import read, spell
from tenuto.core.outcomes import Refusal
from tenuto.core.user import User
from tenuto.engine import Engine
from tenuto.store import accounts
from tenuto.store.accounts import Environment, Key

HEADER_MAX: Final = 4096
CALLERS_MAX: Final = 10_000
_KEY: Final = re.compile(r"sk_(test|live)_([0-9a-z]{8})_[0-9A-Za-z]{49}", re.ASCII)


class Caller(NamedTuple):
    """A company that proved who it is: its environment as remembered, and the key it used.

    ``user`` is somebody of the company who is signed in to the console and uses no key: ``key`` then only holds what
    their role may do.
    """

    environment: Environment
    key: Key
    user: User | None = None

    @property
    def key_id(self) -> int | None:
        """The key that has to be in force still when something is written; None where none was used."""
        return None if self.user is not None else self.key.id

    @property
    def actor(self) -> str:
        """Who it is that does something, as it is written down."""
        return spell("k", self.key.id) if self.user is None else spell("u", self.user.id)

    def needs(self, scope: str) -> None:
        """Raises Refusal ``insufficient_scope`` where the key lacks a scope."""
        if scope not in self.key.scopes:
            who = "a key with" if self.user is None else "a user with a role that has"
            raise Refusal("insufficient_scope", f"This call needs {who} the scope {scope}.", scope=scope)

    def needs_for_money(self, scope: str) -> None:
        """The same where a person does something that can charge or owe, whatever a key may: roles tell it apart."""
        if self.user is not None:
            self.needs(scope)


def caller_of(environment: Environment, user: User) -> Caller:
    """Somebody who is signed in, as the caller of one half of their company."""
    key = Key(user.id, user.email, b"", "", user.scopes, user.created_at, None, None, None)
    return Caller(environment, key, user)


class Callers:
    """Recognises callers, and remembers the headers they came with."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[bytes, tuple[int, int]] = {}

    def remembered(self, header: bytes) -> Caller | None:
        """The caller of a header seen before, unproven: for work that proves the environment itself."""
        known = self._known.get(header)
        if known is None:
            return None
        environment = self._engine.remembered(known[0])
        return None if environment is None else self._in_force(environment, known[1])

    async def proven(self, header: bytes | None) -> Caller:
        """The caller as of now. Raises Refusal ``invalid_credentials``, the same for every reason."""
        if header is None or len(header) > HEADER_MAX:
            raise Refusal("invalid_credentials")
        company, secret = _credentials(header)
        found = _KEY.fullmatch(secret)
        key_id = read("k", f"k_{found[2]}") if found else None
        if found is None or key_id is None:
            raise Refusal("invalid_credentials")
        known = self._known.get(header)
        if known is None:
            async with self._engine.database.reading() as reader:
                environment_id = await accounts.find_environment_of_key(reader, key_id)
        else:
            environment_id = known[0]
        environment = None if environment_id is None else await self._engine.environment(environment_id)
        key = environment.keys.get(key_id) if environment is not None else None
        digest = hashlib.sha256(secret.encode()).digest()
        if environment is None or key is None or not hmac.compare_digest(digest, key.digest):
            raise Refusal("invalid_credentials")
        if company is not None and company != spell("c", environment.company_id):
            raise Refusal("invalid_credentials")
        caller = self._in_force(environment, key_id)
        if caller is None:
            raise Refusal("invalid_credentials")
        while len(self._known) >= CALLERS_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[header] = (environment.id, key.id)
        return caller

    def _in_force(self, environment: Environment, key_id: int) -> Caller | None:
        now = self._engine.now()
        key = environment.key_in_force(key_id, now)
        if key is None:
            return None
        used = self._engine.keys_used
        if (environment.id, key_id) not in used:
            used[environment.id, key_id] = now
        return Caller(environment, key)


def _credentials(header: bytes) -> tuple[str | None, str]:
    """Company id (None with Bearer) and secret. Raises Refusal ``invalid_credentials``."""
    scheme, _, rest = header.partition(b" ")
    try:
        match scheme.lower():
            case b"bearer":
                return None, rest.strip().decode("ascii")
            case b"basic":
                company, colon, secret = base64.b64decode(rest.strip(), validate=True).decode("ascii").partition(":")
                if colon and company:
                    return company, secret
            case _:
                pass
    except (binascii.Error, ValueError):
        pass
    raise Refusal("invalid_credentials")
