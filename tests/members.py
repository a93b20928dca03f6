"""People of organizations, who call with a token that their company has minted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import jwt

from tenuto.api.tokens import OWN_AUDIENCE
from tenuto.core.organization import READ_SCOPE, WRITE_SCOPE
from tenuto.server import Server
from tenuto.vault import Vault, master_key
from tests.client import Company, Reply

SCOPES: Final = (READ_SCOPE, WRITE_SCOPE)
LIFE_SECONDS: Final = 600


class Members:
    """The people of a company's organizations, over the connection of the company's own client."""

    def __init__(self, server: Server, company: Company, *, mode: str = "test") -> None:
        self.server, self.company, self.mode = server, company, mode
        self._vault = Vault(master_key(server.settings.secret_key, Path(server.settings.data)))

    @property
    def issuer(self) -> str:
        """Who has signed the tokens that the company mints."""
        url = (self.server.settings.public_url or self.server.url).rstrip("/")
        return f"{url}/v1/companies/{self.company.id}/{self.mode}"

    def secret(self, version: int = 0) -> str:
        """What they are signed with, after so many revocations."""
        return self._vault.sign(f"{self.company.id}/{self.mode}/tokens {version}")

    def claims(self, organization: str = "org-1", scopes: Iterable[str] = SCOPES, **claims: Any) -> dict[str, Any]:
        """What a token says; a claim that is None is left out."""
        now = int(time.time())
        told = {
            "iss": self.issuer,
            "aud": OWN_AUDIENCE,
            "iat": now,
            "exp": now + LIFE_SECONDS,
            "id": organization,
            "user_id": "user-1",
            "timezone": "UTC",
            "scopes": list(scopes),
            **claims,
        }
        return {name: value for name, value in told.items() if value is not None}

    def token(self, organization: str = "org-1", scopes: Iterable[str] = SCOPES, **claims: Any) -> str:
        """A token of somebody of an organization; ``claims`` go beside or over the usual ones, None leaves one out."""
        return jwt.encode(self.claims(organization, scopes, **claims), self.secret(), algorithm="HS256")

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        organization: str = "org-1",
        scopes: Iterable[str] = SCOPES,
        headers: Mapping[str, str] | None = None,
        **claims: Any,
    ) -> Reply:
        """A request of somebody of an organization."""
        token = self.token(organization, scopes, **claims)
        return self.bearing(token, method, path, body, headers)

    def bearing(
        self, token: str, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """A request with this very token."""
        return self.company.client.call(method, path, body, {"authorization": f"Bearer {token}", **(headers or {})})

    def account(self, organization: str = "org-1", country: str = "AU", **more: object) -> Any:
        """A new billing account of an organization."""
        body = {"name": "Hannes Kruger", "email": "hannes@mikrocloud.com", "address": {"country": country}, **more}
        reply = self.call("POST", "/v1/account", body, organization)
        assert reply.status == 201, reply
        return reply.body
