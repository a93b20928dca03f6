"""Identity providers on this machine: keys of every kind, and a server that publishes their public halves."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.client import Company, Reply

AUDIENCE: Final = "https://billing.example.com"
LIFE_SECONDS: Final = 600

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class SigningKey(NamedTuple):
    """A key of a provider: it signs, and its public half is what is published."""

    kid: str
    algorithm: str
    private: PrivateKey

    @classmethod
    def make(cls, algorithm: str, kid: str = "k1", *, bits: int = 2048) -> SigningKey:
        private: PrivateKey
        match algorithm:
            case "RS256" | "PS256":
                private = rsa.generate_private_key(65_537, bits)
            case "ES256":
                private = ec.generate_private_key(ec.SECP256R1())
            case _:
                private = ed25519.Ed25519PrivateKey.generate()
        return cls(kid, algorithm, private)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half as it is published."""
        told = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        return {**{name: value for name, value in told.items() if name != "key_ops"}, "kid": self.kid, "use": "sig"}

    @property
    def secret_jwk(self) -> dict[str, Any]:
        """The private half, which nobody should ever publish."""
        return dict(jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private, as_dict=True), kid=self.kid)

    @property
    def pem(self) -> bytes:
        """The public half as many tools keep it."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, claims: Mapping[str, Any], headers: Mapping[str, Any] | None = None) -> str:
        told = json.dumps(claims).encode()  # by the lower layer, which lets nonsense pass
        return jwt.PyJWS().encode(told, self.private, self.algorithm, {"kid": self.kid, **(headers or {})})


class Provider:
    """An identity provider: its name, and a JWKS that it publishes at ``url``. What it is asked for is counted."""

    def __init__(self) -> None:
        provider = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                status, body = provider.answer
                self.send_response(status)
                for name, value in provider.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:  # type: ignore[explicit-override]  # 3.11 has no override
                """Say nothing."""

        self.asked = 0
        self.headers: dict[str, str] = {}
        self.answer: tuple[int, bytes] = (200, b'{"keys": []}')
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    @property
    def url(self) -> str:
        return f"{self.name}jwks.json"

    def publish(self, *keys: SigningKey | Mapping[str, Any]) -> None:
        told = [key.jwk if isinstance(key, SigningKey) else key for key in keys]
        self.answer = (200, json.dumps({"keys": told}).encode())


class Login:
    """A company that believes a provider, and what it answers to the provider's people."""

    def __init__(self, company: Company, issuer: str, audience: str = AUDIENCE, **fields: object) -> None:
        self.company, self.issuer, self.audience = company, issuer, f"{audience}/{company.id}"
        body = {"issuer": issuer, "audience": self.audience, "creates_organizations": True, **fields}
        reply = company.call("POST", "/v1/companies/{company}/issuers", body)
        assert reply.status == 200, reply
        self.path = f"/v1/companies/{company.id}/issuers/{reply.data['id']}"

    def claims(self, **claims: Any) -> dict[str, Any]:
        """What a good token says; a claim that is None is left out."""
        now = int(time.time())
        told = {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": now,
            "exp": now + LIFE_SECONDS,
            "id": "org-1",
            "user_id": "user-1",
            "scopes": ["account:read", "account:write"],
            **claims,
        }
        return {name: value for name, value in told.items() if value is not None}

    def ask(self, token: str | bytes) -> Reply:
        """The account of whoever has the token."""
        spelled = token if isinstance(token, str) else token.decode("latin-1")
        return self.company.client.call("GET", "/v1/account", headers={"authorization": f"Bearer {spelled}"})

    def refresh(self) -> Reply:
        return self.company.call("POST", f"{self.path}/refresh")

    def row(self) -> Any:
        return self.company.call("GET", self.path).data
