"""A company that has webhooks, and what its engineers ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from tests.client import Client, Company, Reply
from tests.receivers import Receiver, until

WEBHOOKS = "/v1/companies/{company}/webhooks"
NOTIFICATIONS = "/v1/companies/{company}/notifications"


class Hook(NamedTuple):
    """A webhook that was made, with the secret that was shown."""

    id: str
    secret: str
    data: Any


class Hearer(Company):
    """A company that listens."""

    @classmethod
    def begin(cls, client: Client) -> Self:
        company = Company.open(client)
        return cls(client, company.id, company.key)

    def hook(self, receiver: Receiver | None = None, *topics: object, **fields: object) -> Hook:
        """A new webhook; without a receiver what it hears is only there to be read."""
        body: dict[str, object] = {**fields, "topics": list(topics)}
        if receiver is not None:
            body["url"] = receiver.url
        reply = self.call("POST", WEBHOOKS, body)
        assert reply.status == 200, reply.raw
        return Hook(reply.data["id"], reply.data["secret"], reply.data)

    def of(self, hook: Hook, method: str, path: str = "", body: object = None) -> Reply:
        """A request to a route of a webhook."""
        return self.call(method, f"{WEBHOOKS}/{hook.id}{path}", body)

    def done(self, hook: Hook, method: str, path: str = "", body: object = None) -> Any:
        """The data of a request to a route of a webhook that is not refused."""
        reply = self.of(hook, method, path, body)
        assert reply.status == 200, reply.raw
        return reply.data

    def subscribe(self, hook: Hook, topic: str, **body: object) -> Any:
        return self.done(hook, "POST", f"/subscribe/{topic}", body)

    def unsubscribe(self, hook: Hook, topic: str, **narrowed: object) -> Any:
        query = "&".join(f"{name}={quote(str(value))}" for name, value in narrowed.items())
        return self.done(hook, "DELETE", f"/subscribe/{topic}?{query}")

    def log(self, hook: Hook, id: str) -> Any:
        """A delivery with its attempts."""
        return self.done(hook, "GET", f"/logs/{id}")

    def logs(self, hook: Hook, query: str = "") -> list[Any]:
        return list(self.done(hook, "GET", f"/logs?limit=1000&{query}"))

    def logged(self, hook: Hook, id: str, **wanted: object) -> Any:
        """A delivery, once its fields are as they are wanted."""

        def is_so() -> bool:
            reply = self.of(hook, "GET", f"/logs/{id}")
            return reply.status == 200 and all(reply.data[name] == value for name, value in wanted.items())

        until(is_so)
        return self.log(hook, id)

    def told(self, count: int, **filters: str) -> list[Any]:
        """What happened, the oldest first, once it is so much."""
        query = "&".join(f"{name}={value}" for name, value in {"limit": "1000", **filters}.items())

        def ask() -> list[Any]:
            reply = self.call("GET", f"{NOTIFICATIONS}?{query}")
            assert reply.status == 200, reply.raw
            return list(reply.data)

        until(lambda: len(ask()) >= count)
        return ask()

    def spend(self, account_id: str, amount: int = 1, denomination: str = "tokens") -> Mapping[str, Any]:
        """An event of this cost."""
        reply = self.send(account_id, type="USED", cost_override_amount=amount, cost_override_denomination=denomination)
        assert reply.status == 200, reply.raw
        return dict(reply.data)
