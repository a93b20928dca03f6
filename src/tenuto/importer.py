"""Usage out of a file, sent through the HTTP API.

    file -> rows -> events -> batches of an account -> POST /v1/accounts/{id}/events

A row is one line of usage and may make several events. Every event has a key, taken from a column or made from the row
(its number, its content, the event's type), so whatever is sent again has no second effect: an interrupted import, an
import repeated by mistake, a batch whose answer was lost. The side file that remembers how far an import came only
saves time. Events of one account are sent in the order of the file; several accounts share a few connections.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import http.client
import io
import json
import os
import queue
import re
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self
from urllib.parse import quote, urlsplit

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

BATCH_MAX: Final = 1000
"""Events the service takes in one request."""
BATCH_LEAST: Final = 10
KEY_MAX: Final = 255
BODY_MAX: Final = 1_000_000
"""Bytes of a request's body, below the service's 1 MiB."""
WINDOW_ROWS: Final = 5000
"""Rows after which the side file is written."""
CONNECTIONS: Final = 4
HEAD_BYTES: Final = 65_536
"""Bytes at the beginning of a file by which it is recognised."""
PATIENCE_SECONDS: Final = 60.0
"""How long the service may be away or busy before an import gives up."""
PAUSE_MAX_SECONDS: Final = 10.0
SHOWN_MAX: Final = 20
"""Rows that did not go in and are told one by one; all of them go to the file that was asked for."""

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))? ?(Z|z|UTC|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_QUANTITY: Final = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")
_ACCOUNT: Final = re.compile(r"a_[0-9A-Za-z]{1,40}")
_TYPE: Final = re.compile(r"\S{1,128}")
_PLACE: Final = re.compile(r"\[(\d+)\]")
_FORMATS: Final = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_TRY_AGAIN: Final = frozenset({429, 500, 502, 503, 504})


class BadRow(ValueError):
    """A row that cannot become events; the text says why."""


class ImportStopped(Exception):
    """What keeps an import from going on at all; the text says what to do. What went in stays in."""


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file: its number (from 1, header and blank lines not counted), its line, its cells by column.

    A cell is text (CSV) or a JSON value as it stands (NDJSON). ``problem`` says why a row could not be read.
    """

    number: int
    line: int
    content: str
    cells: Mapping[str, str | msgspec.Raw]
    problem: str | None = None

    def text(self, column: str) -> str:
        """The cell as text; empty where there is none. Raises BadRow for an object, a list or a truth value."""
        cell = self.cells.get(column, "")
        if isinstance(cell, str):
            return cell.strip()
        spelled = bytes(cell).decode()
        if spelled.startswith('"'):
            return str(json.loads(spelled)).strip()
        if spelled[0] in "{[tf":
            raise BadRow(f"{column} is {spelled[:40]}, but takes a text or a number.")
        return "" if spelled == "null" else spelled


def format_of(path: Path) -> str:
    """``csv`` or ``ndjson`` by a file's ending, with or without ``.gz``. Raises ImportStopped for another."""
    name = path.name.lower().removesuffix(".gz")
    found = _FORMATS.get(Path(name).suffix)
    if found is None:
        raise ImportStopped(f"{path.name} ends neither in .csv nor in .ndjson; say --format csv or --format ndjson.")
    return found


class Source:
    """An open file of usage, read row by row. Raises ImportStopped when it cannot be opened or breaks off."""

    def __init__(self, path: Path, format: str = "", delimiter: str = ",") -> None:  # noqa: A002 - the option's name
        self.path, self._delimiter = path, delimiter
        self.format = format or format_of(path)
        try:
            self._raw = path.open("rb", buffering=0)
            self.size = os.fstat(self._raw.fileno()).st_size
            self.head = self._raw.read(HEAD_BYTES)
            self._raw.seek(0)
        except OSError as error:
            raise ImportStopped(f"{path} cannot be read: {error.strerror}.") from error
        plain: IO[bytes] = io.BufferedReader(self._raw, 1 << 16)
        if self.head.startswith(b"\x1f\x8b"):
            plain = gzip.open(plain, "rb")  # type: ignore[assignment]  # noqa: SIM115 - closed in __exit__
        self._plain = plain
        self.columns: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._plain.close()
        self._raw.close()

    @property
    def position(self) -> int:
        """Bytes of the file taken so far, out of ``size``."""
        return self._raw.tell()

    def rows(self) -> Iterator[Row]:
        """The rows in the order of the file."""
        found = self._csv() if self.format == "csv" else self._ndjson()
        number = 0
        try:
            for row in found:
                number = row.number
                yield row
        except (OSError, EOFError, zlib.error) as error:
            raise ImportStopped(f"{self.path} cannot be read after row {number}: {error}.") from error

    def _csv(self) -> Iterator[Row]:
        # Held by self: a wrapper that is forgotten closes the file under everybody else.
        self._text = io.TextIOWrapper(self._plain, "utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(self._text, delimiter=self._delimiter)
        try:
            header = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise ImportStopped(f"The header of {self.path} cannot be read: {error}.") from error
        if not any(header):
            raise ImportStopped(f"{self.path} has no header; its first line names the columns.")
        repeated = [name for name, count in Counter(header).items() if count > 1]
        if repeated:
            raise ImportStopped(f"The header of {self.path} names {repeated[0]!r} twice.")
        self.columns = tuple(header)
        number = 0
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                yield Row(number, reader.line_num, "", {}, f"is no CSV: {error}.")
                continue
            if not cells:
                continue
            number += 1
            problem = None
            if len(cells) != len(header):
                problem = f"has {len(cells)} cells where the header has {len(header)}."
            yield Row(number, reader.line_num, "\x1f".join(cells), dict(zip(header, cells, strict=False)), problem)

    def _ndjson(self) -> Iterator[Row]:
        decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
        number = 0
        for line, spelled in enumerate(self._plain, 1):
            stripped = spelled.strip()
            if not stripped:
                continue
            number += 1
            content = stripped.decode("utf-8", "surrogateescape")
            try:
                # What a JSON value does not own (its line) must not be kept alive by it, nor change under it.
                cells = {name: msgspec.Raw(bytes(cell)) for name, cell in decoder.decode(stripped).items()}
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield Row(number, line, content, {}, f"is no JSON object: {error}.")
                continue
            yield Row(number, line, content, cells)


# --- events ----------------------------------------------------------------------------------------------------------


class Event(msgspec.Struct, omit_defaults=True):
    """The body of one event."""

    type: str
    key: str
    quantity: int | str = 1
    occurred_at: str | None = None
    metadata: dict[str, str | msgspec.Raw] | None = None


class Sent(NamedTuple):
    """An event on its way: the row it came from, its time if it has one, and its bytes."""

    row: int
    line: int
    occurred_at: str | None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How a row becomes events: which column holds what.

    The account comes from ``account`` or, row by row in turn, from ``account_ids``. The type is ``type``, the cell of
    ``type_column``, or each of ``events``, pairs of a type and the column of its quantity. Raises ImportStopped when
    that does not add up.
    """

    account: str | None = None
    account_ids: Sequence[str] = ()
    type: str | None = None
    type_column: str | None = None
    events: Sequence[tuple[str, str]] = ()
    quantity: str | None = None
    at: str | None = None
    key: str | None = None
    metadata: Sequence[str] = ()
    is_time_ignored: bool = False

    def __post_init__(self) -> None:
        if (self.account is None) == (not self.account_ids):
            raise ImportStopped("Say whose usage it is: either --account COLUMN or --account-id a_...")
        if (self.type is not None) + (self.type_column is not None) + bool(self.events) != 1:
            raise ImportStopped("Say what was used: one of --type NAME, --type-column COLUMN, --event TYPE=COLUMN.")
        if self.events and self.quantity is not None:
            raise ImportStopped("--event names the column of the quantity itself; leave --quantity out.")
        types = [name for name, _ in self.events] or ([] if self.type is None else [self.type])
        if len(set(types)) != len(types):
            raise ImportStopped("--event names one type twice; a row makes at most one event of a type.")
        for name in types:
            if not _TYPE.fullmatch(name):
                raise ImportStopped(f"{name!r} is no event type: 1 to 128 characters without spaces.")
        for account_id in self.account_ids:
            if not _ACCOUNT.fullmatch(account_id):
                raise ImportStopped(f"{account_id!r} is no account id; one looks like a_2xk9.")

    @property
    def names(self) -> list[str]:
        """The columns that the file must have."""
        single = (self.account, self.type_column, self.quantity, self.at, self.key)
        return [*(name for name in single if name is not None), *(name for _, name in self.events), *self.metadata]

    def refuse_missing(self, columns: Sequence[str]) -> None:
        """Raises ImportStopped when a column that was named is not there."""
        for name in self.names:
            if name not in columns:
                raise ImportStopped(f"There is no column {name!r}; the file has {', '.join(columns)}.")

    def events_of(self, row: Row) -> tuple[str, list[Sent]]:
        """Whose events a row makes, and which: none where every quantity is 0. Raises BadRow."""
        if row.problem is not None:
            raise BadRow(row.problem)
        try:
            content = row.content.encode()
        except UnicodeEncodeError as error:
            raise BadRow("is not UTF-8 text.") from error
        account_id = self._account_of(row)
        given_key = None if self.key is None else row.text(self.key)
        occurred_at = None if self.at is None or self.is_time_ignored else moment(row.text(self.at), self.at)
        metadata = {name: cell for name in self.metadata if (cell := row.cells.get(name)) is not None} or None
        sent: list[Sent] = []
        for type_, column in self._types_of(row):
            quantity = 1 if column is None else quantity_of(row.text(column), column)
            if quantity == 0:
                continue
            if given_key is None:
                digest = hashlib.blake2b(b"%d\x1f%b\x1f%b" % (row.number, content, type_.encode()), digest_size=16)
                key = f"import-{digest.hexdigest()}"
            else:
                key = f"{given_key}:{type_}" if self.events else given_key
                if not (given_key and key.isascii() and key.isprintable() and len(key) <= KEY_MAX):
                    raise BadRow(f"{self.key} is {given_key[:40]!r}, but a key has 1 to {KEY_MAX} ASCII characters.")
            body = msgspec.json.encode(Event(type_, key, quantity, occurred_at, metadata))
            sent.append(Sent(row.number, row.line, occurred_at, body))
        return account_id, sent

    def _account_of(self, row: Row) -> str:
        if self.account is None:
            return self.account_ids[(row.number - 1) % len(self.account_ids)]
        account_id = row.text(self.account)
        if not _ACCOUNT.fullmatch(account_id):
            raise BadRow(f"{self.account} is {account_id[:40]!r}, which is no account id.")
        return account_id

    def _types_of(self, row: Row) -> Sequence[tuple[str, str | None]]:
        if self.events:
            return self.events
        if self.type is not None:
            return ((self.type, self.quantity),)
        assert self.type_column is not None
        found = row.text(self.type_column)
        if not _TYPE.fullmatch(found):
            raise BadRow(f"{self.type_column} is {found[:40]!r}, but a type has 1 to 128 characters without spaces.")
        return ((found, self.quantity),)


def quantity_of(text: str, column: str) -> int | str:
    """A quantity: a whole number, or decimal text of up to 9 places; 0 in any spelling is 0. Raises BadRow."""
    if not _QUANTITY.fullmatch(text):
        raise BadRow(f"{column} is {text[:40]!r}, but a quantity is a number of up to 9 decimals, not below 0.")
    if not text.strip("0."):
        return 0
    return text if "." in text else int(text)


def moment(text: str, column: str) -> str:
    """A time with its zone, UTC where it names none, cut to microseconds. Raises BadRow."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise BadRow(f"{column} is {text[:40]!r}, but a time looks like 2023-11-16 18:17:03.979 (UTC unless it says).")
    day, clock, fraction, zone = found.groups()
    if len(clock) == 5:  # noqa: PLR2004 - hh:mm
        clock += ":00"
    offset = "Z" if zone in {None, "Z", "z", "UTC"} else zone
    spelled = f"{day}T{clock}{f'.{fraction[:6]}' if fraction else ''}{offset}"
    try:
        instant(spelled)
    except (ValueError, OverflowError) as error:
        raise BadRow(f"{column} is {text[:40]!r}, a time that does not exist.") from error
    return spelled


def instant(spelled: str) -> datetime:
    """A time as :func:`moment` spells it, in UTC. Raises ValueError or OverflowError for one that does not exist."""
    return datetime.fromisoformat(spelled).astimezone(UTC)


# --- the service -----------------------------------------------------------------------------------------------------


class Reply(NamedTuple):
    """An answer: status, headers in lower case, and the bytes as they came."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """The decoded body; an empty object where it is no JSON."""
        try:
            return msgspec.json.decode(self.raw)
        except msgspec.DecodeError:
            return {}

    @property
    def data(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """What the answer is about."""
        return self.body["data"]

    @property
    def error(self) -> dict[str, Any]:
        """The refusal: ``code``, ``message``, ``details``; all of them there, if empty."""
        body = self.body
        found = body.get("error") if isinstance(body, dict) else None
        return {"code": "", "message": "", "details": {}} | (found if isinstance(found, dict) else {})

    @property
    def is_replay(self) -> bool:
        """Whether this is the stored answer of an earlier request."""
        return self.headers.get("idempotent-replayed") == "true"


class Connection:
    """One keep-alive connection to the service with a key. Raises ImportStopped for an address that is none."""

    def __init__(self, url: str, key: str = "") -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ImportStopped(f"{url} is no address of the service; one looks like http://127.0.0.1:8080.")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=PATIENCE_SECONDS)
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")
        self.url, self.key = url, key

    def call(self, method: str, path: str, body: object = None, once: str = "") -> Reply:
        """One request; ``once`` is its Idempotency-Key. Raises OSError or HTTPException when there is no answer."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        headers |= {"idempotency-key": once} if once else {}
        payload = None
        if body is not None:
            payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
            headers["content-type"] = "application/json"
        try:
            self._connection.request(method, f"{self._prefix}{path}", payload, headers)
            answer = self._connection.getresponse()
            raw = answer.read()
        except BaseException:
            self._connection.close()
            raise
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, raw)

    def insist(self, method: str, path: str, body: object, stopping: threading.Event, once: str = "") -> Reply:
        """One request, repeated while the service is away or busy, as long as it asks for, within patience.

        For requests that may be repeated. Raises ImportStopped when patience ends or ``stopping`` is set.
        """
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        pause, why = 0.1, ""
        while not stopping.is_set():
            wanted = 0.0
            try:
                reply = self.call(method, path, body, once)
                if reply.status not in _TRY_AGAIN:
                    return reply
                why = f"answers {reply.status} {reply.error['code']}".strip()
                after = reply.headers.get("retry-after", "")
                wanted = float(after) if after.isdecimal() else 0.0
            except (OSError, http.client.HTTPException) as error:
                why = f"does not answer ({str(error) or type(error).__name__})"
            if time.monotonic() > give_up_at:
                raise ImportStopped(f"{self.url} {why}, for {PATIENCE_SECONDS:.0f} s now. Start again to go on.")
            stopping.wait(min(max(pause, wanted), PAUSE_MAX_SECONDS))
            pause *= 2
        raise ImportStopped("Interrupted.")

    def close(self) -> None:
        """Let go."""
        self._connection.close()


# --- the import ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What became of the rows so far. ``known`` are events that the service had from an earlier import."""

    rows: int = 0
    events: int = 0
    known: int = 0
    bad: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    resumed_at: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every row went in."""
        return not self.bad and not self.refused


class Bookmark:
    """The side file: how many rows of which file, with which columns, were acknowledged."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self._identity = path, identity

    def read(self) -> Tally:
        """How far an earlier import came: nothing of it where there is none, or it is of another file."""
        tally = Tally()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found = json.loads(self.path.read_bytes())
            if found["of"] == self._identity:
                rows, events, known, bad, refused = (
                    int(found[name]) for name in ("rows", "events", "known", "bad", "refused")
                )
                tally = Tally(rows, events, known, bad, refused, Counter(found["reasons"]), rows)
        return tally

    def write(self, tally: Tally) -> None:
        """Remember; without a place to write to the import goes on, and merely begins anew after a break."""
        found = {name: getattr(tally, name) for name in ("rows", "events", "known", "bad", "refused")}
        beside = self.path.with_name(f"{self.path.name}.new")
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps({"of": self._identity, **found, "reasons": dict(tally.reasons)}))
            beside.replace(self.path)

    def remove(self) -> None:
        """The import is over."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class Import:
    """One import from its first row to its last, or to where it is stopped.

    ``on_bad`` is told of each row that did not go in (number, line, why), ``on_step`` of progress; both on any thread,
    one at a time.
    """

    def __init__(
        self,
        source: Source,
        columns: Columns,
        url: str,
        key: str,
        *,
        progress: Path | None = None,
        connections: int = CONNECTIONS,
        window_rows: int = WINDOW_ROWS,
    ) -> None:
        self._source, self._columns, self._window_rows = source, columns, window_rows
        mapping = hashlib.blake2b(repr((columns, url, source.format)).encode(), digest_size=8).hexdigest()
        identity = f"{hashlib.blake2b(source.head, digest_size=16).hexdigest()}-{mapping}"
        self._bookmark = Bookmark(progress or source.path.with_name(f"{source.path.name}.progress"), identity)
        self.tally = self._bookmark.read()
        self.on_bad: Callable[[int, int, str], None] = lambda *_: None
        self.on_step: Callable[[], None] = lambda: None
        self._connections: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._all = [Connection(url, key) for _ in range(max(1, connections))]
        for connection in self._all:
            self._connections.put(connection)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._refused_rows: set[int] = set()
        self._horizon: datetime | None = None

    def run(self) -> Tally:
        """Send everything. Raises ImportStopped, or KeyboardInterrupt; starting again goes on from there."""
        # Rows are acknowledged by the window, so that the side file never says more than what is in.
        done = self.tally.rows
        executor = ThreadPoolExecutor(len(self._all), "import")
        try:
            for window in self._windows(self._source.rows()):
                jobs = [executor.submit(self._send, *job) for job in window.items()]
                for job in jobs:
                    job.result()
                self._bookmark.write(self.tally)
        except BaseException:
            self._stopping.set()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
            for connection in self._all:
                connection.close()
        if self.tally.rows == done == 0 and self._source.columns is not None:
            self._columns.refuse_missing(self._source.columns)
        self._bookmark.remove()
        return self.tally

    def _windows(self, rows: Iterator[Row]) -> Iterator[dict[str, list[Sent]]]:
        """The events of so many rows at a time, by account; counts the rows it reads."""
        skip, count = self.tally.rows, 0
        window: dict[str, list[Sent]] = {}
        for row in rows:
            if row.number == 1 and self._source.columns is not None:
                self._columns.refuse_missing(self._source.columns)
            if row.number <= skip:
                continue
            with self._lock:
                self.tally.rows += 1
            try:
                account_id, events = self._columns.events_of(row)
            except BadRow as error:
                self._bad(row.number, row.line, str(error))
            else:
                if events:
                    window.setdefault(account_id, []).extend(events)
            count += 1
            if count == self._window_rows:
                yield window
                self._refused_rows.clear()
                window, count = {}, 0
        yield window

    def _bad(self, number: int, line: int, why: str) -> None:
        with self._lock:
            self.tally.bad += 1
            self.tally.reasons["unreadable"] += 1
            self.on_bad(number, line, why)

    def _refuse(self, event: Sent, code: str, why: str) -> None:
        """An event did not go in; its row is told and counted once."""
        with self._lock:
            if event.row not in self._refused_rows:
                self._refused_rows.add(event.row)
                self.tally.refused += 1
                self.tally.reasons[code] += 1
                self.on_bad(event.row, event.line, why)

    def _send(self, account_id: str, events: Sequence[Sent]) -> None:
        """The events of one account, in order. What is refused is dropped and the rest sent on.

        After a refusal the next batches are smaller, so that a file full of refusals does not send everything again and
        again.
        """
        connection = self._connections.get()
        try:
            path = f"/v1/accounts/{quote(account_id, safe='')}/events"
            waiting, size = deque(events), BATCH_MAX
            while waiting:
                batch = self._taken(waiting, size)
                if not batch:
                    continue
                reply = connection.insist("POST", path, _joined(batch), self._stopping)
                if reply.status == http.HTTPStatus.OK:
                    size = min(size * 2, BATCH_MAX)
                    with self._lock:
                        self.tally.events += len(batch)
                        self.tally.known += len(batch) if reply.is_replay else 0
                        self.on_step()
                    continue
                size = max(BATCH_LEAST, size // 2)
                waiting.extendleft(reversed(self._without_refused(batch, reply, connection, account_id)))
                if len(batch) > 1 and _PLACE.search(_path_of(reply)) is None:
                    size = max(1, len(batch) // 2)
        finally:
            self._connections.put(connection)

    def _taken(self, waiting: deque[Sent], size: int) -> list[Sent]:
        batch: list[Sent] = []
        length = 0
        while waiting and len(batch) < size and (not batch or length + len(waiting[0].body) < BODY_MAX):
            event = waiting.popleft()
            if self._horizon is not None and event.occurred_at and instant(event.occurred_at) < self._horizon:
                self._refuse(event, "too_late", _too_late(event))
                continue
            batch.append(event)
            length += len(event.body) + 1
        return batch

    def _without_refused(
        self, batch: list[Sent], reply: Reply, connection: Connection, account_id: str
    ) -> Sequence[Sent]:
        """What of a refused batch is to be sent again. Raises ImportStopped where no batch would fare better."""
        error, status = reply.error, reply.status
        why = f"{error['code']}: {error['message']}" if error["code"] else f"the service answers {status}."
        if status in {401, 403, 405, 415} or 300 <= status < 400:  # noqa: PLR2004
            raise ImportStopped(f"{connection.url} refuses: {why}")
        if status == http.HTTPStatus.NOT_FOUND:
            for event in batch:
                self._refuse(event, "not_found", f"there is no account {account_id}.")
            return []
        place = _PLACE.search(_path_of(reply))
        index = int(place[1]) if place else 0
        if (place is None and len(batch) > 1) or index >= len(batch):
            return batch
        if error["code"] == "too_late":
            self._learn_horizon(connection, account_id, reply)
            why = _too_late(batch[index])
        self._refuse(batch[index], str(error["code"] or status), why)
        return [event for at, event in enumerate(batch) if at != index]

    def _learn_horizon(self, connection: Connection, account_id: str, reply: Reply) -> None:
        """The time before which the company takes no event, so that each late row need not be tried by itself."""
        late = reply.error["details"].get("late_seconds")
        if self._horizon is not None or not isinstance(late, int):
            return
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            now = parsedate_to_datetime(reply.headers["date"])
            account = connection.call("GET", f"/v1/accounts/{quote(account_id, safe='')}")
            if account.status == http.HTTPStatus.OK:
                clock = connection.call("GET", f"/v1/companies/{account.data['company_id']}/clock")
                if clock.status == http.HTTPStatus.OK:
                    now = datetime.fromisoformat(clock.data["now"])
            # A second earlier than it is: what lies at the edge is for the service to say.
            self._horizon = now - timedelta(seconds=late + 1)


def _joined(batch: Sequence[Sent]) -> bytes:
    return b"[" + b",".join(event.body for event in batch) + b"]"


def _path_of(reply: Reply) -> str:
    details = reply.error["details"]
    return str(details.get("path", "")) if isinstance(details, dict) else ""


def _too_late(event: Sent) -> str:
    return f"too_late: {event.occurred_at} lies further back than the company accepts."


HINTS: Final[Mapping[str, str]] = {
    "too_late": "Set the company's late_event_seconds (PUT /v1/companies/{id}) to reach back to the first row, at most"
    " 315360000 (ten years), and start again; or use --ignore-time to bill everything as of now.",
    "in_future": "The times lie ahead of the company's clock. Set its ahead_event_seconds (PUT /v1/companies/{id}), or"
    " use --ignore-time.",
    "key_reused": "These rows went in before in another form (other columns, --ignore-time or not): they are billed"
    " already and stay as they are.",
    "not_found": "Account ids belong to one company and to its test or its live half; so does the key.",
}
"""What to do about a refusal that whole files meet."""


# --- at the terminal -------------------------------------------------------------------------------------------------


def show_import(
    running: Import, source: Source, console: Console, *, bad: IO[str] | None = None, title: str = "rows"
) -> Tally:
    """Run an import with a progress bar, telling of each row that did not go in, up to a number. Raises as run does."""
    progress = Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=not console.is_terminal,
    )
    tally, began, shown = running.tally, time.monotonic(), 0
    events_before = tally.events
    if tally.resumed_at:
        console.print(f"  Going on after row {tally.resumed_at:,}, where the last import stopped.")

    def told(number: int, line: int, why: str) -> None:
        nonlocal shown
        if bad is not None:
            bad.write(json.dumps({"row": number, "line": line, "why": why}) + "\n")
        shown += 1
        if shown <= SHOWN_MAX:
            console.print(f"  row {number:,} (line {line:,}): {escape(why)}", soft_wrap=True)
        elif shown == SHOWN_MAX + 1:
            console.print("  ... and more; --bad FILE writes them all to a file.")

    with progress:
        task = progress.add_task(title, total=max(1, source.size), told="")

        def step() -> None:
            rate = (tally.events - events_before) / max(0.001, time.monotonic() - began)
            text = f"{tally.rows:,} rows  {tally.events:,} events  {rate:,.0f}/s"
            if tally.refused or tally.bad:
                text += f"  [yellow]{tally.refused:,} refused  {tally.bad:,} bad[/]"
            progress.update(task, completed=source.position, told=text)

        running.on_bad, running.on_step = told, step
        running.run()
        progress.update(task, completed=max(1, source.size))
        step()
    return tally


def summary(tally: Tally, seconds: float) -> list[str]:
    """What became of everything, in a line or a few."""
    known = f", {tally.known:,} of them known from before" if tally.known else ""
    rows_in = tally.rows - tally.bad - tally.refused
    lines = [f"{rows_in:,} of {tally.rows:,} rows went in: {tally.events:,} events{known}, in {seconds:.1f} s."]
    if tally.refused or tally.bad:
        lines.append(f"{tally.refused:,} rows were refused by the service, {tally.bad:,} could not be read.")
    lines += [f"{code} ({count:,}): {HINTS[code]}" for code, count in tally.reasons.items() if code in HINTS]
    return lines


def import_file(  # noqa: PLR0913 - the command's own options
    path: Path,
    columns: Columns,
    url: str,
    key: str,
    *,
    format: str = "",  # noqa: A002 - the option's name
    delimiter: str = ",",
    progress: Path | None = None,
    bad: Path | None = None,
    connections: int = CONNECTIONS,
) -> int:
    """The command ``tenuto import``: 0 if all rows went in, 1 if some did not or it was stopped, 130 if interrupted."""
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(Source(path, format, delimiter))
            running = Import(source, columns, url, key, progress=progress, connections=connections)
            bad_file = None if bad is None else stack.enter_context(bad.open("a", encoding="utf-8"))
            tally = show_import(running, source, console, bad=bad_file)
        except ImportStopped as error:
            console.print(f"tenuto: {escape(str(error))}", soft_wrap=True)
            return 1
        except OSError as error:
            console.print(f"tenuto: {escape(str(error))}", soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            console.print("Interrupted. The same command goes on from here; nothing is billed twice.")
            return 130
    for line in summary(tally, time.monotonic() - began):
        console.print(escape(line), soft_wrap=True)
    return 0 if tally.is_whole else 1
