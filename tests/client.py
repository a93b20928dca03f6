"""A small HTTP client that speaks the domain: companies, accounts, prices, events."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self


class Reply(NamedTuple):
    """A status, the decoded body, the headers in lower case, and the bytes as they came."""

    status: int
    body: Any
    headers: Mapping[str, str]
    raw: bytes

    @property
    def data(self) -> Any:
        return self.body["data"]

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])

    @property
    def details(self) -> Any:
        return self.body["error"].get("details", {})

    @property
    def is_replay(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"


class Client:
    """One keep-alive connection to the service."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._connection = http.client.HTTPConnection(host, port, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request; ``body`` is sent as it is when it is bytes, else as JSON."""
        sent: dict[str, str] = dict(headers or {})
        payload: bytes | None = None
        if body is not None:
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        self._connection.request(method, path, payload, sent)
        answer = self._connection.getresponse()
        raw = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        decoded = json.loads(raw) if "json" in found.get("content-type", "") and raw else None
        return Reply(answer.status, decoded, found, raw)


class Company:
    """A company with a key, and what its engineers would do with it."""

    def __init__(self, client: Client, id: str, key: str) -> None:
        self.client, self.id, self.key = client, id, key

    @classmethod
    def open(cls, client: Client, name: str = "Acme") -> Company:
        body = {"name": name, "email": "owner@example.com", "password": "correct horse battery"}
        reply = client.call("POST", "/v1/companies", body)
        assert reply.status == 200, reply
        return cls(client, reply.data["id"], reply.data["api_key"])

    def call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
        """A request with the company's key; ``{company}`` in the path is its id."""
        basic = base64.b64encode(f"{self.id}:{self.key}".encode()).decode()
        return self.client.call(
            method, path.replace("{company}", self.id), body, {"authorization": f"Basic {basic}", **(headers or {})}
        )

    def live_half(self) -> Company:
        """The live half of the company, which its first live key opens, with that key."""
        reply = self.call("POST", "/v1/companies/{company}/keys", {"mode": "live"})
        assert reply.status == 200, reply
        return Company(self.client, self.id, reply.data["api_key"])

    def account(self, **balances: int) -> str:
        """A new account's id, with balances of the given amounts."""
        reply = self.call("POST", "/v1/companies/{company}/accounts", {"name": "Ada", "email": "ada@example.com"})
        assert reply.status == 200, reply
        account_id = str(reply.data["id"])
        for denomination, amount in balances.items():
            opened = self.call("POST", f"/v1/accounts/{account_id}/balance/{denomination}", {"amount": amount})
            assert opened.status == 200, opened
        return account_id

    def price(self, type: str, denomination: str, amount: str | None = None, **terms: object) -> str:
        """A new event price's id."""
        body = {"type": type, "denomination": denomination, **terms}
        if amount is not None:
            body["amount"] = amount
        reply = self.call("POST", "/v1/companies/{company}/event_prices", body)
        assert reply.status == 200, reply
        return str(reply.data["id"])

    def plan(self, **terms: object) -> str:
        """The id of a new plan; without terms it is 10 dollars a month."""
        body = {"name": "Pro", "renewal_denomination": "USD", "renewals": {"MONTHLY": {"amount": 1000}}, **terms}
        reply = self.call("POST", "/v1/companies/{company}/plans", body)
        assert reply.status == 200, reply
        return str(reply.data["id"])

    def agreed_price(self, account_id: str, type: str, denomination: str, amount: str) -> str:
        """The id of a new event price that is agreed with one account."""
        body = {"type": type, "denomination": denomination, "amount": amount}
        reply = self.call("POST", f"/v1/accounts/{account_id}/event_prices", body)
        assert reply.status == 200, reply
        return str(reply.data["id"])

    def send(self, account_id: str, *events: Mapping[str, object], **event: object) -> Reply:
        """One event by its fields, or a list of events."""
        return self.call("POST", f"/v1/accounts/{account_id}/events", event or list(events))

    def invoice(self, account_id: str, *, is_final: bool = True) -> str:
        """The id of a new invoice of two events of the type INVOICED, which cost 300 US cents each."""
        self.call("PUT", f"/v1/accounts/{account_id}/invoicing", {"currency": "USD"})
        usage = {"type": "INVOICED", "cost_override_amount": 300, "cost_override_denomination": "USD"}
        assert self.send(account_id, usage, usage).status == 200
        draft = self.call("POST", f"/v1/accounts/{account_id}/invoices", {"currency": "USD"})
        assert draft.status == 200, draft
        if is_final:
            final = self.call("POST", f"/v1/invoices/{draft.data['id']}/finalize")
            assert final.status == 200, final
        return str(draft.data["id"])

    def card(self, account_id: str, token: str = "tok_visa") -> str:
        """The id of a card that an account is given."""
        reply = self.call("POST", f"/v1/accounts/{account_id}/card", {"token": token})
        assert reply.status == 200, reply
        return str(reply.data["id"])

    def deposit(self, account_id: str, units: int = 1000, charge: int = 500, denomination: str = "credits") -> str:
        """The id of the payment of a deposit that the account's card paid."""
        body = {"amount_to_deposit": units, "amount_to_charge": charge, "denomination": denomination}
        reply = self.call("POST", f"/v1/accounts/{account_id}/deposit", body)
        assert reply.status == 200, reply
        return str(reply.data["payment"]["id"])

    def refund(self, payment_id: str, amount: int = 1) -> str:
        """The id of a new refund of a payment."""
        reply = self.call("POST", f"/v1/payments/{payment_id}/refund", {"amount": amount, "reason": "goodwill"})
        assert reply.status == 200, reply
        return str(reply.data["id"])

    def credit_note(self, invoice_id: str, amount: int = 1) -> str:
        """The id of a new credit note of an invoice."""
        body = {"amount": amount, "reason": "outage"}
        reply = self.call("POST", f"/v1/invoices/{invoice_id}/credit_notes", body)
        assert reply.status == 200, reply
        return str(reply.data["id"])

    def moved(self, account_id: str) -> str:
        """The id of the newest transaction of an account."""
        return str(self.call("GET", f"/v1/accounts/{account_id}/transactions?limit=1").data[0]["id"])

    def start(self, account_id: str, plan_id: str, **more: object) -> str:
        """The id of a plan that an account begins with, or changes to as ``more`` says."""
        reply = self.call("POST", f"/v1/accounts/{account_id}/changeplan", {"plan_id": plan_id, **more})
        assert reply.status == 200, reply
        return plan_id

    def grant(self, account_id: str, amount: int = 10, denomination: str = "credits", **more: object) -> str:
        """The id of a grant by hand."""
        path = f"/v1/accounts/{account_id}/balance/{denomination}/grants"
        reply = self.call("POST", path, {"amount": amount, **more})
        assert reply.status == 200, reply
        return str(reply.data["id"])

    def flag(self, account_id: str, name: str, value: object, **more: object) -> Any:
        """A flag that is set for one account."""
        reply = self.call("PUT", f"/v1/accounts/{account_id}/flags/{name}", {"value": value, **more})
        assert reply.status == 200, reply
        return reply.data

    def flags(self, account_id: str) -> dict[str, Any]:
        """All flags of an account, by name."""
        reply = self.call("GET", f"/v1/accounts/{account_id}/flags")
        assert reply.status == 200, reply
        return {flag["name"]: flag for flag in reply.data}

    def listening_webhook(self, account_id: str) -> tuple[str, str]:
        """The ids of a webhook that hears everything, and of the last notification that waits for it.

        It is paused, so nothing leaves the house.
        """
        hooks = "/v1/companies/{company}/webhooks"
        hook = str(self.call("POST", hooks, {"url": "https://hooks.example/tenuto"}).data["id"])
        assert self.call("PUT", f"{hooks}/{hook}", {"paused": True}).status == 200
        assert self.call("POST", f"{hooks}/{hook}/subscribe/*").status == 200
        for amount in (1, 2):
            adjusted = self.call("POST", f"/v1/accounts/{account_id}/balance/heard/adjust", {"amount": amount})
            assert adjusted.status == 200, adjusted
        give_up_at = time.monotonic() + 10
        while len(waiting := self.call("GET", f"{hooks}/{hook}/logs").data) < 2:
            assert time.monotonic() < give_up_at, "nothing was published"
            time.sleep(0.02)
        return hook, str(waiting[0]["id"])

    def organization(self, external_id: str = "org-1", **fields: object) -> str:
        """The company's own name of a new organization."""
        reply = self.call("PUT", f"/v1/companies/{{company}}/organizations/{external_id}", fields)
        assert reply.status == 200, reply
        return external_id

    def issuer(self, audience: str = "", **fields: object) -> str:
        """The id of an issuer; without fields it signs with a key that nobody has."""
        key = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
        body = {
            "issuer": "https://auth.example.com/",
            "audience": audience or f"https://billing.example.com/{secrets.token_hex(8)}",
            **(fields or {"algorithm": "EdDSA", "keys": [key]}),
        }
        reply = self.call("POST", "/v1/companies/{company}/issuers", body)
        assert reply.status == 200, reply
        return str(reply.data["id"])

    def invite(self, email: str = "grace@example.com", role: str = "support") -> str:
        """The id of a user who is invited."""
        reply = self.call("POST", "/v1/companies/{company}/users", {"email": email, "role": role})
        assert reply.status == 200, reply
        return str(reply.data["id"])

    def own_stripe(self) -> str:
        """A Stripe key of the company's own, which it is charged with from now on."""
        mode = self.call("GET", "/v1/companies/{company}").data["mode"]
        key = f"sk_{mode}_{secrets.token_hex(16)}"
        reply = self.call("PUT", "/v1/companies/{company}", {"stripe_key": key})
        assert reply.status == 200, reply
        return key

    def balance(self, account_id: str, denomination: str) -> Any:
        reply = self.call("GET", f"/v1/accounts/{account_id}/balance/{denomination}")
        assert reply.status == 200, reply
        return reply.data
