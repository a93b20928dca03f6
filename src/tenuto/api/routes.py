"""What a route is, and what a call to one looks like to its function.

A route is a row: method, path, function, scope, body, query, answer. The router, the pipeline (``app``) and the
OpenAPI document (``openapi``) are made from the same rows, so none can drift from the others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from tenuto.core.identifiers import read, read_of_account, spell
from tenuto.core.invoice import settings_of
from tenuto.core.money import AMOUNT_MAX
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Answer, Engine, Once, microseconds
from tenuto.service.activity import Actor, Telling, tell, tell_apart
from tenuto.service.idempotency import Steps, run_in_steps, run_once
from tenuto.store import accounts
from tenuto.store.accounts import Account, Environment
from tenuto.store.database import Unit
from tenuto.store.records import Page, Whose

from . import body as bodies
from .auth import Caller, Callers
from .tokens import Member

Body = TypeVar("Body")
Result = TypeVar("Result")

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
QUERY_TEXT_MAX: Final = 300


class Param(NamedTuple):
    """A query parameter: how it is read, and what it is for."""

    name: str
    kind: str
    what: str


PAGING: Final = (
    Param("limit", "limit", "Rows to return, 1 to 1000."),
    Param("cursor", "cursor", "The `next_cursor` of the page before."),
)


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table. ``body`` and ``answer`` are the shapes; ``example`` is a body that works.

    ``pending`` says what an answer of 202 means, where there is one. ``family`` names the dialect of a route that is
    not of the first family (``dialect``).
    """

    method: str
    path: str
    serve: Callable[[Call], Awaitable[Answer]]
    summary: str
    tag: str
    answer: Any
    scope: str | None = None
    body: Any = None
    query: tuple[Param, ...] = ()
    refusals: tuple[str, ...] = ()
    example: Any = None
    is_open: bool = False
    is_list: bool = False
    details: str = ""
    pending: str = ""
    family: str = ""


class Call:
    """One request on its way to its function. ``caller`` is set unless the route is open to all."""

    def __init__(  # noqa: PLR0913 - a call is all of this
        self,
        engine: Engine,
        callers: Callers,
        *,
        route: Route,
        params: Mapping[str, str],
        query: Mapping[str, str],
        headers: Mapping[bytes, bytes],
        body: bytes,
        request_id: str,
        caller: Caller | Member | None,
        address: str = "",
    ) -> None:
        self.engine, self.callers, self.route = engine, callers, route
        self.params, self.query, self.headers = params, query, headers
        self.body, self.request_id = body, request_id
        self._caller, self._address = caller, address

    @property
    def caller(self) -> Caller:
        """The company that is calling."""
        assert isinstance(self._caller, Caller)
        return self._caller

    @property
    def member(self) -> Member:
        """The person of an organization who is calling."""
        assert isinstance(self._caller, Member)
        return self._caller

    def become(self, caller: Caller) -> None:
        """Go on as a caller that was proven anew."""
        self._caller = caller

    @property
    def environment(self) -> Environment:
        """The half of a company that is called."""
        assert self._caller is not None
        return self._caller.environment

    def currency(self) -> str:
        """The company's own currency."""
        return settings_of(self.environment.money).currency

    def decoded(self, kind: type[Body]) -> Body:
        """The body as one of our shapes."""
        return bodies.decode(self.body, kind)[0]

    def company(self) -> None:
        """Raises Refusal ``not_found`` where the path names another company than the caller's."""
        if self.params["company_id"] != spell("c", self.environment.company_id):
            raise Refusal("not_found")

    def id(self, prefix: str, name: str) -> int:
        """The number behind an id in the path; what is no id of this kind is as missing as a foreign one."""
        found = read(prefix, self.params[name])
        if found is None:
            raise Refusal("not_found")
        return found

    def event_id(self) -> tuple[int, int]:
        """Account id and tick of the event in the path."""
        return self.id_of_account("e", "event_id")

    def id_of_account(self, prefix: str, name: str) -> tuple[int, int]:
        """Account id and tick of something of an account in the path."""
        found = read_of_account(prefix, self.params[name])
        if found is None:
            raise Refusal("not_found")
        return found

    async def account(self) -> Account:
        """The account in the path, if it is the caller's."""
        async with self.engine.database.reading() as reader:
            found = await accounts.read_account(reader, self.environment.id, self.id("a", "account_id"))
        if found is None:
            raise Refusal("not_found")
        return found

    def denomination(self) -> str:
        """The denomination in the path."""
        return bodies.token(self.params["denomination"], "denomination", bodies.DENOMINATION_MAX)

    async def once(
        self,
        verb: Callable[[Unit], Awaitable[Result]],
        render: Callable[[Result], bytes],
        *,
        is_secret: bool = False,
    ) -> Answer:
        """Do a verb in a unit, once per Idempotency-Key; an answer that is secret is kept sealed."""
        environment = self._caller.environment if self._caller is not None else None

        async def told(unit: Unit) -> Result:
            done = await verb(unit)
            await self._tell(unit)
            return done

        return await run_once(self.engine, environment, self.idempotency(), told, render, is_secret=is_secret)

    async def once_in_steps(self, steps: Steps) -> Answer:
        """Do a verb that asks a stranger on its way, once per Idempotency-Key."""

        async def begin(unit: Unit) -> Any:
            begun = await steps.begin(unit)
            await self._tell(unit)
            return begun

        told = steps._replace(begin=begin)
        return await run_in_steps(self.engine, self.environment, self.idempotency(), told)

    async def tell(self) -> None:
        """Write down who did what was done in units of its own, account by account."""
        telling = self._telling()
        if telling is not None:
            await tell_apart(self.engine, telling)

    async def tell_by_hand(self, answer: Answer) -> None:
        """Write down what a user did to an event, which its lane has saved; what keys do to events is their work."""
        if self.caller.user is not None and not answer.is_replay:
            await self.tell()

    async def _tell(self, unit: Unit) -> None:
        """Write down who does this, in the unit that does it."""
        telling = self._telling()
        if telling is not None:
            await tell(self.engine, unit, telling)

    def _telling(self) -> Telling | None:
        """What is written down of this; None of a preview, and of what people of organizations do: it is theirs."""
        if not isinstance(self._caller, Caller):
            return None
        body = bodies.parse(self.body) if self.body else None
        if isinstance(body, dict) and body.get("preview") is True:
            return None
        caller = self._caller
        name = caller.key.name if caller.user is None else caller.user.email
        return Telling(
            Actor(caller.actor, name, self._address),
            self.route.serve.__name__,
            company_id=caller.environment.company_id,
            environment_id=None if self.route.tag == "Users" else caller.environment.id,
            target=f"{self.route.method} {self.route.path.format(**self.params)}",
            asked=body,
        )

    def idempotency(self) -> Once | None:
        """The key of the request, with a digest of all that is asked in one spelling (contract 2.2, design 6)."""
        found, older = self.headers.get(b"idempotency-key"), self.headers.get(b"x-dedupeid")
        if found is None:
            found = older
        if found is None or self._caller is None:
            return None
        if older is not None and older != found:
            raise Refusal("idempotency_key_invalid", "Idempotency-Key and X-DedupeId differ; send one of them.")
        try:
            key = bodies.token(found.decode("ascii"), "Idempotency-Key", bodies.KEY_MAX, spaces=True)
        except (Refusal, UnicodeDecodeError) as error:
            raise Refusal("idempotency_key_invalid") from error
        canonical = msgspec.json.encode(bodies.parse(self.body), order="sorted") if self.body else b""
        path = self.route.path.format(**self.params)
        if self.query:
            path += f"?{sorted(self.query.items())}"
        digest = hashlib.blake2b(f"{self.route.method} {path}\n".encode() + canonical, digest_size=16)
        if isinstance(self._caller, Member):
            # Each organization has keys of its own, and none is told what another was answered.
            whose = hashlib.blake2b(self._caller.claims.organization.encode(), digest_size=12).hexdigest()
            key = f"organization {whose} {key}"
        return Once(key, digest.digest())

    def filters(self) -> dict[str, object]:
        """The query parameters of the route that were given, each read by its kind."""
        found: dict[str, object] = {}
        for param in self.route.query:
            if param.name in self.query and param.kind not in {"limit", "cursor"}:
                found[param.name] = _read_param(param, self.query[param.name])
        parent = found.get("parent_event_id")
        if isinstance(parent, tuple):
            # An event id names its account too; only that account's events can be meant.
            found["parent_account_id"], found["parent_event_id"] = parent
        return found

    def limit(self) -> int:
        """How many rows a list may return."""
        given = self.query.get("limit")
        if given is None:
            return LIMIT_DEFAULT
        if not (given.isascii() and given.isdecimal()) or not 1 <= int(given[:9]) <= LIMIT_MAX:
            raise invalid("limit", f"takes a whole number from 1 to {LIMIT_MAX}.")
        return int(given)

    def after(self, count: int) -> tuple[int, ...] | None:
        """The position in this very list that the cursor names. Raises Refusal ``invalid_cursor``."""
        given = self.query.get("cursor")
        if given is None:
            return None
        parts = given.split("-")
        if len(parts) != count + 1 or not all(part and part.isascii() and part.isalnum() for part in parts):
            raise Refusal("invalid_cursor")
        try:
            numbers = tuple(int(part, 36) for part in parts[:-1])
        except ValueError as error:
            raise Refusal("invalid_cursor") from error
        if self.cursor(numbers) != given or max(numbers) >= 2**63:
            raise Refusal("invalid_cursor")
        return numbers

    def cursor(self, position: tuple[int, ...]) -> str:
        """A cursor for a position: it names its list by a digest, so another list or company refuses it."""
        spelled = "-".join(_base36(number) for number in position)
        path = self.route.path.format(**self.params)
        listing = f"{self.environment.id} {path} {sorted((k, v) for k, v in self.query.items() if k not in _PAGING)}"
        return f"{spelled}-{hashlib.blake2b(f'{listing} {spelled}'.encode(), digest_size=6).hexdigest()}"

    def page(self) -> Page:
        """The part of a list of records that is asked for."""
        after = self.after(2)
        return Page(self.limit() + 1, None if after is None else (after[0], after[1]))

    def whose(self, found: Account | None) -> Whose:
        """Whose records: of an account, or of the caller's whole environment."""
        environment = self.environment
        since = microseconds(environment.created_at - timedelta(days=1))
        return Whose(environment.id, None if found is None else found.id, since)


_PAGING: Final = ("limit", "cursor")
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_CAUSES: Final = ("pay", "re", "inv", "cn", "ps", "g")


def _read_param(param: Param, text: str) -> object:  # noqa: C901, PLR0912 - one case a kind
    if len(text) > QUERY_TEXT_MAX:
        raise invalid(param.name, f"takes at most {QUERY_TEXT_MAX} characters.")
    if "\0" in text:
        raise invalid(param.name, "holds the character NUL.", "invalid_string")
    match param.kind:
        case "text":
            return text
        case "moment":
            return bodies.moment(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text, param.name)
        case "boolean":
            if text not in {"true", "false"}:
                raise invalid(param.name, "is true or false.")
            return text == "true"
        case "whole":
            if not _WHOLE.fullmatch(text):
                raise invalid(param.name, "takes a whole number.")
            return bodies.whole(int(text), param.name, least=-AMOUNT_MAX)
        case "event_id":
            found = read_of_account("e", text)
            if found is None:
                raise invalid(param.name, "is the id of an event.")
            return found
        case "cause_id":
            found = next((found for kind in _CAUSES if (found := read_of_account(kind, text)) is not None), None)
            if found is None:
                raise invalid(param.name, "is the id of a payment, refund, invoice, credit note, plan step or grant.")
            return found
        case "account_id":
            number = read("a", text)
            if number is None:
                raise invalid(param.name, "is the id of an account.")
            return number
        case "plan_id":
            plan = read("p", text)
            if plan is None:
                raise invalid(param.name, "is the id of a plan.")
            return plan
        case choices:
            allowed = choices.split("|")
            if text not in allowed:
                raise invalid(param.name, f"is one of {', '.join(allowed)}.")
            return text


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits or "0"
