"""The control routes of the Stripe simulator, below ``/_simulator/``: what a test, a demo or an audit asks of it.

The problem, on one example. A test wants to see that a dispute stops refills:

    POST /_simulator/disputes              {"key": "sk_test_1", "payment_intent": "pi_1"}     du_1, and its events
    POST /_simulator/disputes/du_1/close   {"key": "sk_test_1", "status": "lost"}
    GET  /_simulator/book?key=sk_test_1    everything that the account holds, newest first

They speak JSON, and need no key: whoever reaches the simulator is its master, which is why it listens on this machine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tenuto.gateway import simulator_cards as cards
from tenuto.gateway import simulator_intents as intents
from tenuto.gateway import simulator_taxes as taxes
from tenuto.gateway.simulator_book import Account, Book, Change, KeySettings, Obj, Refusal, encode
from tenuto.gateway.simulator_courier import Courier
from tenuto.gateway.simulator_faults import Fault, Faults
from tenuto.gateway.simulator_input import DECLINES, pairs_of

RATE_BUCKET_SECONDS: Final = 10
RATE_BUCKETS_MAX: Final = 90
FLUSH_SECONDS: Final = 10

KINDS: Final = ("customer", "payment_method", "setup_intent", "payment_intent", "charge", "refund", "dispute", "tax_id")

Given = dict[str, Any]


class Rate:
    """How often a key calls: the most in any one second, per stretch of time, and in all."""

    def __init__(self) -> None:
        self.total = 0
        self._last: deque[float] = deque()
        self._peaks: dict[int, int] = {}

    def count(self, now: float) -> int:
        """Note a call; how many there were in the second that ends with it."""
        self.total += 1
        self._last.append(now)
        while self._last[0] <= now - 1:
            self._last.popleft()
        bucket, most = int(now // RATE_BUCKET_SECONDS), len(self._last)
        if most > self._peaks.get(bucket, 0):
            self._peaks[bucket] = most
            while len(self._peaks) > RATE_BUCKETS_MAX:
                del self._peaks[next(iter(self._peaks))]
        return most

    def peak(self, now: float, minutes: float) -> int:
        """The most calls in any one second of the last minutes."""
        since = (now - 60 * minutes) // RATE_BUCKET_SECONDS
        return max((most for bucket, most in self._peaks.items() if bucket >= since), default=0)


class Control:
    """What the control routes do."""

    def __init__(self, book: Book, faults: Faults, courier: Courier, rates: dict[str, Rate]) -> None:
        self.book, self.faults, self.courier, self.rates = book, faults, courier, rates
        self._routes: dict[tuple[str, str], Callable[[Given], object]] = {
            ("GET", "healthz"): lambda _: {"status": "ok"},
            ("GET", "faults"): lambda _: {"faults": faults.shown()},
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("POST", "clock"): self._set_clock,
            ("POST", "release"): lambda _: {"finished": self.finish_due(is_released=True)},
            ("POST", "keys"): self._set_key,
            ("GET", "rate"): self._show_rate,
            ("GET", "book"): self._show_book,
        }

    async def answer(self, method: str, path: str, query: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of a request."""
        name = path.removeprefix("/_simulator/").strip("/")
        try:
            given: Given = msgspec.json.decode(body, type=dict) if body else {}
            given.update(pairs_of(query))
            if (method, name) == ("POST", "flush"):
                seconds, seed = float(given.get("seconds", FLUSH_SECONDS)), int(given.get("seed", 0))
                return 200, encode(await self.courier.flush(seconds, seed))
            route = self._routes.get((method, name))
            return 200, encode(self._change(method, name.split("/"), given) if route is None else route(given))
        except Refusal as refusal:
            return refusal.status, refusal.body()
        except KeyError as error:
            return 400, Refusal(400, f"Missing: {error}").body()
        except (TypeError, ValueError) as error:
            return 400, Refusal(400, str(error)).body()

    def finish_due(self, *, is_released: bool = False) -> int:
        """Finish what is due (or all that waits), and say how much that was."""
        count = 0
        while (due := self.book.next_due(is_released=is_released)) is not None:
            account, id, outcome = due
            change = Change(self.book, account)
            if not taxes.finish(change, id, outcome):
                intents.finish(change, id, outcome)
            self.book.commit(change)
            count += 1
        return count

    def _change(self, method: str, path: list[str], given: Given) -> Obj:
        """The control routes that change an account."""
        if method != "POST":
            raise Refusal(404, "There is no such control route.")
        change = Change(self.book, self.book.account_of(str(given["key"])))
        match path:
            case ["disputes"]:
                charge = change.find("charge", _charge_of(change, given), param="charge")
                found = intents.open_dispute(change, charge, given.get("reason", "fraudulent"), given.get("amount"))
            case ["disputes", id, "close"]:
                if given["status"] not in {"won", "lost"}:
                    raise ValueError("status is won or lost")
                found = intents.end_dispute(change, id, given["status"])
            case ["webhook_endpoints"]:
                found = _endpoint(change, given)
            case ["authenticate"]:
                found = intents.authenticate(change, given["id"], is_passed=bool(given.get("passed", True)))
            case _:
                raise Refusal(404, "There is no such control route.")
        self.book.commit(change)
        return found

    def _add_fault(self, given: Given) -> object:
        fault = msgspec.convert(given, Fault)
        if fault.kind == "decline" and (fault.code or "generic_decline") not in DECLINES:
            raise ValueError(f"code is one of {', '.join(DECLINES)}")
        self.faults.add(fault)
        return {"faults": self.faults.shown()}

    def _clear_faults(self, _: Given) -> object:
        self.faults.clear()
        return {"faults": []}

    def _set_clock(self, given: Given) -> object:
        seconds = int(given.get("advance_seconds", 0))
        if seconds < 0:
            raise ValueError("advance_seconds is at least 0: time does not go back")
        if seconds:
            self.book.move_clock(seconds)
        if "signature_offset_seconds" in given:
            self.courier.signature_offset_seconds = int(given["signature_offset_seconds"])
        self.finish_due()
        return {"now": self.book.now()}

    def _set_key(self, given: Given) -> object:
        settings = KeySettings(
            is_revoked=bool(given.get("revoked", False)),
            missing_rights=[str(right) for right in given.get("missing_rights", [])],
            requests_per_second=given.get("requests_per_second"),
            account=given.get("account"),
        )
        self.book.set_key(given["key"], settings)
        return {"key": given["key"], **msgspec.to_builtins(settings)}

    def _show_rate(self, given: Given) -> object:
        rate, minutes = self.rates.get(given["key"], Rate()), float(given.get("minutes", 15))
        return {"peak_per_second": rate.peak(time.monotonic(), minutes), "total": rate.total}

    def _show_book(self, given: Given) -> object:
        account: Account = self.book.account_of(given["key"])
        shown: Obj = {f"{kind}s": list(account.newest(kind)) for kind in KINDS}
        shown["webhook_endpoints"] = account.endpoints()
        shown["events"] = [
            {"id": event.id, "type": event.type, "object_id": event.object_id} for event in account.events.values()
        ]
        shown["undelivered"] = len(account.undelivered)
        return shown


def _charge_of(change: Change, given: Given) -> str:
    if "charge" in given:
        return str(given["charge"])
    return str(change.find("payment_intent", given["payment_intent"], param="payment_intent")["latest_charge"])


def _endpoint(change: Change, given: Given) -> Obj:
    """The account's endpoint at a URL, with a secret that the caller knows."""
    for found in change.account.endpoints():
        if found["url"] == given["url"]:
            if found["secret"] != given["secret"]:
                found["secret"] = given["secret"]
                change.keep(found)
            return found
    types = [str(each) for each in given.get("enabled_events") or ["*"]]
    return cards.add_endpoint(change, str(given["url"]), types, str(given["secret"]), {})
