"""Telling the sandbox where a company wants to hear of disputes and refunds: what a company tells Stripe by hand."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Final

import msgspec

from .port import GatewayUnclear

TIMEOUT_SECONDS: Final = 3.0
EVENTS: Final = (
    *("charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed"),
    *("charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated", "refund.updated", "refund.failed"),
)
"""What only a message tells. How a charge ended is asked, so it need not be told."""


async def register_endpoint(sandbox_url: str, *, key: str, url: str, secret: str) -> None:
    """Have the simulator send this company's messages to ``url``, signed with ``secret``. Raises GatewayUnclear."""
    body = msgspec.json.encode({"key": key, "url": url, "secret": secret, "enabled_events": EVENTS})
    try:
        await asyncio.to_thread(_post, f"{sandbox_url}/_simulator/webhook_endpoints", body)
    except OSError as error:
        raise GatewayUnclear(f"the sandbox does not answer: {error}") from error


def _post(url: str, body: bytes) -> None:
    # The address is a setting of ours, http by design: the simulator listens on this machine alone.
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
        answer.read()
