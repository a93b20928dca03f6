"""What a company has set against what a file says: pulled, told field by field, and made so.

    what the service answers, and what the file says, are settled -> flattened to path and value -> compared
    each difference is a change -> each change is one request, in order

Changes go out so that no moment has less than the one before: what is new, then what is changed, then what is archived
or ended. Each carries an Idempotency-Key made from its content and from the version it starts at, so that a request
whose answer was lost has one effect; a whole apply that broke off is said again, and finds done what was done.
"""

from __future__ import annotations

import hashlib
import http
import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.text import Text

from tenuto.core.outcomes import Refusal

from .importer import Connection, ImportStopped, Reply
from .plan_files import (
    BALANCE_DEFAULTS,
    PLAN_DEFAULTS,
    PRICE_DEFAULTS,
    Catalog,
    FileRefused,
    PriceName,
    Terms,
    catalog_of,
    plan_as_written,
    plan_from,
    price_as_written,
    price_from,
    read_file,
    settled_plan,
    settled_price,
    written,
)

PAGE_MAX: Final = 1000
REPLAYS_MAX: Final = 1000
"""How often one and the same thing may have been made and ended again while its stored answers live."""
NOT_SET: Final = "not set"
STAYING: Final = "accounts stay on their version until they are moved"

Kind = Literal["new", "changed", "archived", "ended"]
_SIGNS: Final[Mapping[Kind, tuple[str, str]]] = {
    "new": ("+", "green"),
    "changed": ("~", "yellow"),
    "archived": ("-", "red"),
    "ended": ("-", "red"),
}
_DONE: Final[Mapping[Kind, str]] = {"new": "made", "changed": "changed", "archived": "archived", "ended": "ended"}
_BESIDE_TERMS: Final = (
    "id",
    "company_id",
    "code",
    "version",
    "archived_at",
    "created_at",
    "updated_at",
    "effective_at",
)


class PlansStopped(Exception):
    """What keeps a command from going on; the text says what to do."""


class Found(NamedTuple):
    """A plan or an event price that the company has: its id, its version and its terms."""

    id: str
    version: int
    terms: Terms


class Line(NamedTuple):
    """One field that is otherwise; None where it is not set."""

    path: str
    old: object
    new: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing to be done, by one request. ``version`` is the one that it starts at, 0 for what is not there yet."""

    kind: Kind
    what: Literal["plan", "event price"]
    name: str
    method: str
    path: str
    body: Terms | None = None
    version: int = 0
    lines: Sequence[Line] = field(default_factory=tuple)

    @property
    def title(self) -> str:
        """What it is about, for people."""
        return f"{self.what} {printable(self.name)}"

    def key(self, after: str = "") -> str:
        """The Idempotency-Key: the same for the same change from the same start; ``after`` is what it made before."""
        said = msgspec.json.encode([self.method, self.path, self.version, self.body, after], order="sorted")
        return f"plans-{hashlib.blake2b(said, digest_size=20).hexdigest()}"


# --- the company -----------------------------------------------------------------------------------------------------


class Company:
    """A company at a service, asked with its key. Raises PlansStopped where it does not answer or refuses."""

    def __init__(self, url: str, company_id: str, key: str) -> None:
        try:
            self._connection = Connection(url, key)
        except (ImportStopped, ValueError) as error:
            raise PlansStopped(str(error)) from error
        self.id, self._stopping = company_id, threading.Event()
        self.path = f"/v1/companies/{quote(company_id, safe='')}"

    def plans(self) -> dict[str, Found]:
        """The plans that are not archived, by code, one without a code by its id."""
        found: dict[str, Found] = {}
        for answer in self._all(f"{self.path}/plans", "&archived=false"):
            name = answer["code"] or answer["id"]
            if name in found:
                raise PlansStopped(f"Two plans are called {name}: the id of one is the code of another. Archive one.")
            found[name] = Found(answer["id"], answer["version"], self._terms(answer, plan_from))
        return found

    def prices(self) -> dict[PriceName, Found]:
        """The event prices in force, but for those of plans and of accounts, in the order in which they were set."""
        found: dict[PriceName, Found] = {}
        for answer in self._all(f"{self.path}/event_prices", ""):
            name, terms = self._terms(answer, price_from)
            found[name] = Found(answer["id"], answer["version"], terms)
        return found

    def _terms(self, answer: Terms, read: Any) -> Any:  # noqa: ANN401 - what the reader gives
        try:
            return read({name: value for name, value in answer.items() if name not in _BESIDE_TERMS})
        except Refusal as refusal:
            raise PlansStopped(
                f"The service has {answer['id']} with terms that this version does not know: {refusal.message}"
                " Use the version of tenuto that the service has."
            ) from refusal

    def _all(self, path: str, filters: str) -> Iterator[Terms]:
        cursor = ""
        while True:
            reply = self.ask(f"{path}?limit={PAGE_MAX}{filters}{cursor}")
            if reply.status != http.HTTPStatus.OK:
                raise PlansStopped(f"{self._connection.url} refuses: {refusal_of(reply)}")
            try:
                page = reply.body
                yield from page["data"]
                following = page["next_cursor"]
            except (KeyError, TypeError) as error:
                raise PlansStopped(f"{self._connection.url} answers, but not as Tenuto does.") from error
            if following is None:
                return
            cursor = f"&cursor={quote(following, safe='')}"

    def ask(self, path: str) -> Reply:
        """A question, asked once."""
        try:
            return self._connection.call("GET", path)
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise PlansStopped(f"{self._connection.url} does not answer ({why}).") from error

    def do(self, change: Change) -> Reply:
        """Carry a change out, with patience; done already, by an earlier request, is done."""
        after = ""
        for _ in range(REPLAYS_MAX):
            try:
                once = change.key(after)
                reply = self._connection.insist(change.method, change.path, change.body, self._stopping, once)
            except ImportStopped as error:
                raise PlansStopped(str(error)) from error
            if reply.status != http.HTTPStatus.OK or not reply.is_replay or change.kind != "new":
                return reply
            # The stored answer of the same words may be about something that has ended since: that one is not meant.
            after = str(reply.data["id"])
            if self._is_in_force(change, after):
                return reply
        raise PlansStopped(f"{change.title} was made and ended {REPLAYS_MAX} times in the last weeks.")

    def _is_in_force(self, change: Change, id: str) -> bool:
        if change.what == "plan":
            reply = self.ask(f"/v1/plans/{id}")
            return reply.status == http.HTTPStatus.OK and reply.data["archived_at"] is None
        return self.ask(f"{self.path}/event_prices/{id}").status == http.HTTPStatus.OK

    def close(self) -> None:
        """Let go."""
        self._connection.close()


def refusal_of(reply: Reply) -> str:
    """What the service says against a request."""
    error = reply.error
    return f"{error['message']} ({error['code']})" if error["code"] else f"it answers {reply.status}."


# --- the changes -----------------------------------------------------------------------------------------------------


def changes_between(company: Company, wanted: Catalog) -> list[Change]:
    """What is to be done for a company to have what a file says, in the order in which it is done."""
    changes: list[Change] = []
    if wanted.prices is not None:
        changes += _price_changes(company, company.prices(), wanted.prices)
    if wanted.plans is not None:
        changes += _plan_changes(company, company.plans(), wanted.plans)
    order: Sequence[Kind] = ("new", "changed", "archived", "ended")
    return sorted(changes, key=lambda change: order.index(change.kind))


def _plan_changes(company: Company, known: Mapping[str, Found], wanted: Mapping[str, Terms]) -> Iterator[Change]:
    for code, terms in wanted.items():
        settled, found = settled_plan(terms), known.get(code)
        if found is None:
            lines = [Line(path, None, value) for path, value in _flat(plan_as_written(settled), "")]
            body, path = {"code": code, **terms}, f"{company.path}/plans"
            yield Change(kind="new", what="plan", name=code, method="POST", path=path, body=body, lines=lines)
        elif lines := _lines(settled_plan(found.terms), settled):
            yield Change(
                kind="changed",
                what="plan",
                name=code,
                method="PUT",
                path=f"/v1/plans/{found.id}",
                body=in_place_of(found.terms, terms),
                version=found.version,
                lines=lines,
            )
    for code, found in known.items():
        if code not in wanted:
            path = f"/v1/plans/{found.id}"
            yield Change(kind="archived", what="plan", name=code, method="DELETE", path=path, version=found.version)


def _price_changes(
    company: Company, known: Mapping[PriceName, Found], wanted: Mapping[PriceName, Terms]
) -> Iterator[Change]:
    path = f"{company.path}/event_prices"
    for name, terms in wanted.items():
        settled, found = settled_price(terms), known.get(name)
        body = {each: terms.get(each, default) for each, default in PRICE_DEFAULTS.items()}
        if found is None:
            body |= {**name._asdict(), "match": msgspec.json.decode(name.match)}
            body = {each: value for each, value in body.items() if value is not None}
            lines = [Line(each, None, value) for each, value in _flat(price_as_written(settled), "")]
            yield Change(
                kind="new", what="event price", name=name.words, method="POST", path=path, body=body, lines=lines
            )
        elif lines := _lines(settled_price(found.terms), settled):
            yield Change(
                kind="changed",
                what="event price",
                name=name.words,
                method="PUT",
                path=f"{path}/{found.id}",
                body=body,
                version=found.version,
                lines=lines,
            )
    for name, found in known.items():
        if name not in wanted:
            yield Change(
                kind="ended",
                what="event price",
                name=name.words,
                method="DELETE",
                path=f"{path}/{found.id}",
                version=found.version,
            )


def in_place_of(known: Terms, wanted: Terms) -> Terms:
    """The change after which a plan has the wanted terms and nothing else: null takes away what is not wanted."""
    body: Terms = {name: wanted.get(name) for name in PLAN_DEFAULTS}
    for name in ("renewals", "flags"):
        body[name] = {**dict.fromkeys(known.get(name) or ()), **(wanted.get(name) or {})}
    balances: Terms = dict.fromkeys(known["balances"])
    for name, balance in wanted["balances"].items():
        said = {each: balance.get(each) for each in BALANCE_DEFAULTS}
        before = (known["balances"].get(name) or {}).get("variable_amount_cost")
        if isinstance(before, dict) and isinstance(said["variable_amount_cost"], dict):
            said["variable_amount_cost"] = {**dict.fromkeys(before), **said["variable_amount_cost"]}
        balances[name] = said
    body["balances"] = balances
    return body


def _lines(old: Terms, new: Terms) -> list[Line]:
    """The fields that differ, those of the file first and in its order."""
    before, after = dict(_flat(old, "")), dict(_flat(new, ""))
    paths = [*after, *(path for path in before if path not in after)]
    return [
        Line(path, before.get(path), after.get(path))
        for path in paths
        if _spelled(before.get(path)) != _spelled(after.get(path))
    ]


def _flat(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Every single value below an object, by its path."""
    if isinstance(value, dict) and (value or not path):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _flat(item, f"{path}[{index}]")
    else:
        yield path, value


def _spelled(value: object) -> str:
    # JSON tells true from 1, which Python finds equal. What is empty and what is not there are the same.
    return "" if value is None or value in ({}, []) else json.dumps(value)


# --- at the terminal -------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """A text without what could move a terminal's cursor or turn its words around."""
    return "".join(found if found.isprintable() else found.encode("unicode_escape").decode() for found in text)


def _shown(value: object) -> str:
    return NOT_SET if value is None else printable(json.dumps(value, ensure_ascii=False))


def show(changes: Sequence[Change], console: Console) -> None:
    """Tell each change, field by field."""
    for change in changes:
        sign, style = _SIGNS[change.kind]
        to_be = {"new": "new", "changed": f"version {change.version} -> {change.version + 1}"}.get(
            change.kind, f"to be {change.kind}"
        )
        console.print(Text(f"{sign} {change.title}: {to_be}", style))
        for line in change.lines:
            path, new = printable(line.path), _shown(line.new)
            console.print(f"    {path}: {new}" if change.kind == "new" else f"    {path}: {_shown(line.old)} -> {new}")
        if change.what == "plan" and change.kind != "new":
            console.print(Text(f"    {STAYING}", "dim"))
    console.print(_summary(changes) if changes else "no changes")


def _summary(changes: Sequence[Change]) -> str:
    told: list[str] = []
    for what in ("plan", "event price"):
        for kind in _SIGNS:
            count = sum(change.what == what and change.kind == kind for change in changes)
            if count:
                told.append(f"{count} {what}{'s' if count > 1 else ''} {'to be ' if kind != 'new' else ''}{kind}")
    return ", ".join(told)


def pull(file: Path, company: Company, console: Console) -> int:
    """The command ``tenuto plans pull``: 0. The file is read again before it takes its place."""
    plans, prices = company.plans(), company.prices()
    has = Catalog(
        {name: found.terms for name, found in plans.items()}, {name: found.terms for name, found in prices.items()}
    )
    text = written(has, company.id, file)
    beside = file.with_name(f"{file.name}.new")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        if changes_from(has, catalog_of(beside, text)):
            raise PlansStopped(f"What was written to {beside} is not what the company has; please report it.")
        beside.replace(file)
    except OSError as error:
        raise PlansStopped(f"{file} cannot be written: {error.strerror}.") from error
    console.print(f"{len(plans)} plans and {len(prices)} event prices written to {file}", soft_wrap=True)
    return 0


def changes_from(has: Catalog, says: Catalog) -> bool:
    """Whether two catalogs differ in what holds."""
    return _settled(has) != _settled(says)


def _settled(catalog: Catalog) -> str:
    plans = {name: settled_plan(terms) for name, terms in (catalog.plans or {}).items()}
    prices = {" ".join(name): settled_price(terms) for name, terms in (catalog.prices or {}).items()}
    return msgspec.json.encode([plans, prices], order="sorted").decode()


def diff(file: Path, company: Company, console: Console) -> int:
    """The command ``tenuto plans diff``: 0 if the company has what the file says, else 1."""
    changes = changes_between(company, read_file(file))
    show(changes, console)
    return 1 if changes else 0


def apply(file: Path, company: Company, console: Console, *, is_meant: bool) -> int:
    """The command ``tenuto plans apply``: 0. Unless it is meant, it only tells what it would do."""
    changes = changes_between(company, read_file(file))
    if not is_meant or not changes:
        show(changes, console)
        if changes:
            console.print("Nothing was sent. With --yes, this is done.")
        return 0
    for count, change in enumerate(changes):
        try:
            reply = company.do(change)
        except PlansStopped as error:
            raise PlansStopped(f"{change.title}: {error} {_so_far(count, len(changes))}") from error
        if reply.status != http.HTTPStatus.OK:
            raise PlansStopped(f"{change.title}: {printable(refusal_of(reply))} {_so_far(count, len(changes))}")
        sign, style = _SIGNS[change.kind]
        version = f", version {reply.data['version']}" if change.kind == "changed" else ""
        console.print(Text(f"{sign} {change.title}: {_DONE[change.kind]} ({reply.data['id']}{version})", style))
    console.print(f"{len(changes)} of {len(changes)} done.")
    return 0


def _so_far(done: int, count: int) -> str:
    return f"{done} of {count} done; the rest was not sent. Apply again to go on."


def run(command: str, file: Path, *, url: str, company_id: str, key: str, is_meant: bool = False) -> int:
    """A command by its name, told at the terminal; what it ends with, 2 for an error, 130 if interrupted."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    complaint = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    company: Company | None = None
    try:
        company = Company(url, company_id, key)
        if command == "pull":
            return pull(file, company, console)
        if command == "diff":
            return diff(file, company, console)
        return apply(file, company, console, is_meant=is_meant)
    except (FileRefused, PlansStopped) as error:
        complaint.print(f"tenuto: {error}")
        return 2
    except KeyboardInterrupt:
        complaint.print("Interrupted. The same command goes on from here; nothing is done twice.")
        return 130
    finally:
        if company is not None:
            company.close()
