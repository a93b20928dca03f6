from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tenuto.demo import READ_CENTS, WRITTEN_CENTS, write_usage
from tenuto.importer import BadRow, Columns, Import, ImportStopped, Source, Tally, moment, quantity_of
from tenuto.server import Server
from tests.client import Company

TRACE = Path(__file__).parents[2] / ".." / "shared" / "data" / "llm-requests.csv"
TOKENS = (("tokens_read", "ContextTokens"), ("tokens_written", "GeneratedTokens"))
TEN_YEARS = 315_360_000
CENTS = 1_000_000


def bring(
    service: Server, company: Company, path: Path, columns: Columns, progress: Path, window_rows: int = 5000
) -> tuple[Tally, list[tuple[int, str]]]:
    """Import a file; the tally, and the rows that did not go in with the reasons."""
    told: list[tuple[int, str]] = []
    with Source(path) as source:
        running = Import(source, columns, service.url, company.key, progress=progress, window_rows=window_rows)
        running.on_bad = lambda number, _, why: told.append((number, why))
        return running.run(), told


def priced(company: Company) -> None:
    company.price("tokens_read", "USD", "15", per=1_000_000)
    company.price("tokens_written", "USD", "60", per=1_000_000)
    assert company.call("PUT", "/v1/companies/{company}", {"late_event_seconds": TEN_YEARS}).status == 200


def exact_shares(path: Path, accounts: int) -> list[Fraction]:
    """What each account owes in cents, from the file alone."""
    shares = [Fraction(0)] * accounts
    for index, line in enumerate(path.read_text().splitlines()[1:]):
        _, read, written = line.split(",")
        shares[index % accounts] += int(read) * READ_CENTS + int(written) * WRITTEN_CENTS
    return shares


def check_billed(company: Company, accounts: Sequence[str], shares: Sequence[Fraction]) -> None:
    for account, exact in zip(accounts, shares, strict=True):
        balance = company.balance(account, "USD")
        posted = CENTS - balance["amount"]
        assert abs(posted - exact) < 1
        assert posted + Fraction(balance["residue_fraction"]) == exact


@pytest.mark.skipif(not TRACE.exists(), reason="../shared/data/llm-requests.csv, the real usage, is not here")
@pytest.mark.parametrize("count", [1, 7])
def test_real_usage_is_billed_to_the_last_fraction(
    service: Server, company: Company, tmp_path: Path, count: int
) -> None:
    priced(company)
    accounts = [company.account(USD=CENTS) for _ in range(count)]
    columns = Columns(account_ids=accounts, events=TOKENS, at="TIMESTAMP")
    shares = exact_shares(TRACE, count)
    assert sum(shares) == Fraction("285.65337")

    first, _ = bring(service, company, TRACE, columns, tmp_path / "progress")
    check_billed(company, accounts, shares)
    again, _ = bring(service, company, TRACE, columns, tmp_path / "progress")
    check_billed(company, accounts, shares)

    assert first.is_whole
    assert (first.rows, first.events, first.known) == (8819, 17638, 0)
    assert (again.rows, again.events, again.known) == (8819, 17638, 17638)


@pytest.fixture
def usage(tmp_path: Path) -> Path:
    """600 made rows, of which every fiftieth is equal to the one before."""
    path = tmp_path / "usage.csv"
    write_usage(path, 600)
    return path


def test_generated_usage_counts_equal_rows_and_counts_a_file_once(
    service: Server, company: Company, usage: Path, tmp_path: Path
) -> None:
    priced(company)
    accounts = [company.account(USD=CENTS) for _ in range(3)]
    columns = Columns(account_ids=accounts, events=TOKENS, at="TIMESTAMP")
    lines = usage.read_text().splitlines()
    assert len(set(lines)) < len(lines)

    for _ in range(2):
        tally, told = bring(service, company, usage, columns, tmp_path / "progress")
        assert not told
        assert tally.rows == 600
        check_billed(company, accounts, exact_shares(usage, 3))
    assert not (tmp_path / "progress").exists()


class Crash(Exception):
    """The power goes."""


def interrupted(service: Server, company: Company, path: Path, columns: Columns, progress: Path) -> None:
    """An import that ends in the midst of the file."""
    steps = 0

    def crash() -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Crash

    with Source(path) as source:
        running = Import(source, columns, service.url, company.key, progress=progress, window_rows=100, connections=1)
        running.on_step = crash
        with pytest.raises(Crash):
            running.run()


@pytest.mark.parametrize("side_file", ["kept", "lost", "garbled"])
def test_an_interrupted_import_goes_on(
    service: Server, company: Company, usage: Path, tmp_path: Path, side_file: str
) -> None:
    priced(company)
    account, progress = company.account(USD=CENTS), tmp_path / "progress"
    columns = Columns(account_ids=(account,), events=TOKENS, at="TIMESTAMP")

    interrupted(service, company, usage, columns, progress)
    assert json.loads(progress.read_bytes())["rows"] == 300
    if side_file == "lost":
        progress.unlink()
    if side_file == "garbled":
        progress.write_text('{"of": [')
    tally, _ = bring(service, company, usage, columns, progress)

    assert tally.resumed_at == (300 if side_file == "kept" else 0)
    assert tally.rows == 600
    check_billed(company, [account], exact_shares(usage, 1))


def test_the_side_file_of_another_file_is_not_believed(
    service: Server, company: Company, usage: Path, tmp_path: Path
) -> None:
    priced(company)
    account, progress = company.account(USD=CENTS), tmp_path / "progress"
    columns = Columns(account_ids=(account,), events=TOKENS, at="TIMESTAMP")
    interrupted(service, company, usage, columns, progress)
    other = tmp_path / "other.csv"
    other.write_text("ContextTokens,GeneratedTokens,TIMESTAMP\n1000000,0,2026-01-01 00:00\n")

    tally, _ = bring(service, company, other, columns, progress)

    assert (tally.resumed_at, tally.rows, tally.events) == (0, 1, 1)


def test_a_bad_row_is_told_and_stops_nothing_else(service: Server, company: Company, tmp_path: Path) -> None:
    account = company.account(credits=100)
    company.price("CHAT", "credits", "1")
    path, bad = tmp_path / "usage.csv", tmp_path / "bad.ndjson"
    path.write_bytes(
        b"\xef\xbb\xbfwhen,n,who\r\n2026-01-01 10:00,1,x\r\n2026-02-30 10:00,1,x\r\n\r\n2026-01-01 10:00,-1,x\r\n"
        b"2026-01-01 10:00,2\r\n2026-01-01 10:00,2,\xff\r\n2026-01-01 10:00,0,x\r\n2026-01-01 10:00,1e3,x\r\n"
        b'2026-01-01 10:00,2.50,"a ""b"", c"\r\n'
    )
    company.call("PUT", "/v1/companies/{company}", {"late_event_seconds": TEN_YEARS})
    words = [sys.executable, "-m", "tenuto.cli", "import", str(path), "--url", service.url, "--account-id", account]
    words += ["--type", "CHAT", "--quantity", "n", "--at", "when", "--metadata", "who", "--bad", str(bad)]
    result = subprocess.run(
        words, env={"TENUTO_KEY": company.key}, capture_output=True, text=True, timeout=60, check=False
    )

    assert result.returncode == 1, result.stderr
    assert "3 of 8 rows went in: 2 events" in result.stderr
    assert "row 2 (line 3): when is '2026-02-30 10:00', a time that does not exist." in result.stderr
    assert [json.loads(line)["row"] for line in bad.read_text().splitlines()] == [2, 3, 4, 5, 7]
    balance = company.balance(account, "credits")
    assert (balance["amount"], balance["residue"]) == (97, "0.500000000000")
    events = company.call("GET", f"/v1/accounts/{account}/events").data
    assert [(event["quantity"], event["metadata"]) for event in events] == [
        ("2.5", {"who": 'a "b", c'}),
        (1, {"who": "x"}),
    ]


def test_what_the_service_refuses_is_dropped_and_the_rest_goes_in(
    service: Server, company: Company, tmp_path: Path
) -> None:
    account = company.account(credits=10_000)
    company.price("CHAT", "credits", "1")
    company.call("PUT", "/v1/companies/{company}", {"late_event_seconds": 86_400 * 3650})
    path = tmp_path / "usage.csv"
    rows = [f"2026-01-01,12:00,k{number},1" for number in range(700)]
    rows[99] = rows[99].replace("2026", "1999")
    rows[500] = "2026-01-01,12:00,k1,2"  # the key of another row, which had another quantity
    rows[650] = "2026-01-01,12:00,k650,999999999999999999999"
    path.write_text("\n".join(["day,clock,key,n", *(row.replace(",12:00", " 12:00,", 1) for row in rows)]))
    columns = Columns(account_ids=(account,), type="CHAT", quantity="n", at="day", key="key")

    tally, told = bring(service, company, path, columns, tmp_path / "progress")

    assert [number for number, _ in sorted(told)] == [100, 501, 651]
    assert dict(told)[100].startswith("too_late: ")
    assert dict(told)[501].startswith("key_reused: ")
    assert (tally.refused, tally.bad, tally.events) == (2, 1, 697)
    assert company.balance(account, "credits")["amount"] == 10_000 - 697


def test_a_file_that_is_too_old_says_which_setting_to_change(service: Server, company: Company, tmp_path: Path) -> None:
    account = company.account(credits=10_000)
    company.price("CHAT", "credits", "1")
    company.call("PUT", "/v1/companies/{company}", {"late_event_seconds": 3600})
    company.call("POST", "/v1/companies/{company}/clock", {"advance_seconds": 86_400})
    path = tmp_path / "usage.csv"
    path.write_text("at\n" + "2020-01-01T00:00:00+01:00\n" * 3000)
    words = [sys.executable, "-m", "tenuto.cli", "import", str(path), "--url", service.url, "--account-id", account]
    words += ["--type", "CHAT", "--at", "at", "--key", company.key]

    refused = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    taken = subprocess.run([*words, "--ignore-time"], capture_output=True, text=True, timeout=60, check=False)

    assert refused.returncode == 1, refused.stderr
    assert "too_late (3,000): Set the company's late_event_seconds" in refused.stderr
    assert taken.returncode == 0, taken.stderr
    assert company.balance(account, "credits")["amount"] == 7_000


def test_ndjson_names_account_type_key_and_metadata_itself(service: Server, company: Company, tmp_path: Path) -> None:
    accounts = [company.account(credits=100) for _ in range(2)]
    company.price("CHAT", "credits", "1")
    company.price("DRAW", "credits", "10")
    rows = [
        {"who": accounts[0], "what": "CHAT", "n": 2, "id": 1, "tags": {"a": [1, 0.50]}},
        {"who": accounts[1], "what": "DRAW", "n": "1.5", "id": 2, "tags": None},
        {"who": "a_1", "what": "CHAT", "n": 1, "id": 3},
        {"who": accounts[1], "what": "DRAW AGAIN", "n": 1, "id": 4},
        {"who": accounts[1], "what": "CHAT", "n": True, "id": 5},
    ]
    path = tmp_path / "usage.jsonl.gz"
    text = "\n".join([*map(json.dumps, rows), "{", ""])
    path.write_bytes(gzip.compress(text.encode()))
    columns = Columns(account="who", type_column="what", quantity="n", key="id", metadata=("tags",))

    tally, told = bring(service, company, path, columns, tmp_path / "progress")

    assert [number for number, _ in sorted(told)] == [3, 4, 5, 6]
    assert dict(told)[3] == "there is no account a_1."
    assert (tally.events, tally.refused, tally.bad) == (2, 1, 3)
    assert [company.balance(account, "credits")["amount"] for account in accounts] == [98, 85]
    event = company.call("GET", f"/v1/accounts/{accounts[0]}/events").data[0]
    assert (event["key"], event["metadata"]) == ("1", {"tags": {"a": [1, 0.5]}})


def test_a_wrong_key_stops_at_once(service: Server, company: Company, usage: Path, tmp_path: Path) -> None:
    columns = Columns(account_ids=(company.account(),), events=TOKENS)
    with Source(usage) as source:
        running = Import(source, columns, service.url, "sk_test_wrong", progress=tmp_path / "progress")
        with pytest.raises(ImportStopped, match="invalid_credentials"):
            running.run()


def test_a_column_that_is_not_there_stops_before_anything_is_sent(
    service: Server, company: Company, usage: Path, tmp_path: Path
) -> None:
    columns = Columns(account_ids=(company.account(),), type="CHAT", quantity="Tokens")
    with pytest.raises(ImportStopped, match="no column 'Tokens'; the file has TIMESTAMP, ContextTokens"):
        bring(service, company, usage, columns, tmp_path / "progress")


class Moody(BaseHTTPRequestHandler):
    """Busy, then gone, then broken, then well."""

    protocol_version = "HTTP/1.1"
    moods: ClassVar[list[int]] = []
    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        type(self).bodies.append(self.rfile.read(int(self.headers["content-length"])))
        status = self.moods.pop(0) if self.moods else 200
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        if status == 503:
            self.send_header("retry-after", "1")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # type: ignore[explicit-override]
        pass


@pytest.fixture
def moody() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_service_that_is_busy_or_away_is_asked_again(moody: str, tmp_path: Path) -> None:
    Moody.moods[:], Moody.bodies[:] = [503, 0, 500], []
    path = tmp_path / "usage.csv"
    path.write_text("n\n1\n1\n")
    with Source(path) as source:
        columns = Columns(account_ids=("a_1",), type="CHAT", quantity="n")
        tally = Import(source, columns, moody, "sk", progress=tmp_path / "progress").run()

    assert (tally.events, tally.is_whole) == (2, True)
    assert len(Moody.bodies) == 4
    assert len(set(Moody.bodies)) == 1
    keys = [event["key"] for event in json.loads(Moody.bodies[0])]
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("2023-11-16 18:17:03.9799600", "2023-11-16T18:17:03.979960Z"),
        ("2023-11-16T18:17:03.97996009999Z", "2023-11-16T18:17:03.979960Z"),
        ("2023-11-16 18:17", "2023-11-16T18:17:00Z"),
        ("2023-11-16 18:17:03+0530", "2023-11-16T18:17:03+0530"),
        ("2023-11-16 18:17:03 UTC", "2023-11-16T18:17:03Z"),
    ],
)
def test_times(text: str, spelled: str) -> None:
    assert moment(text, "at") == spelled


@pytest.mark.parametrize(
    "text", ["", "now", "2023-02-29 10:00", "2023-11-16 25:00", "2023-11-16", "0001-01-01 00:00+01"]
)
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(BadRow, match=r"^at is "):
        moment(text, "at")


def test_quantities() -> None:
    assert [quantity_of(text, "n") for text in ("3", "0", "0.000", "2.50", "007")] == [3, 0, 0, "2.50", 7]
    for text in ("", "-1", "1e3", "1,5", "0.0000000001", "٣"):
        with pytest.raises(BadRow):
            quantity_of(text, "n")


@pytest.mark.parametrize(
    "given",
    [
        {"type": "CHAT"},
        {"type": "CHAT", "account": "who", "account_ids": ("a_1",)},
        {"account": "who"},
        {"account": "who", "type": "CHAT", "type_column": "what"},
        {"account": "who", "events": (("CHAT", "a"), ("CHAT", "b"))},
        {"account": "who", "events": (("CHAT", "a"),), "quantity": "n"},
        {"account": "who", "type": "TWO WORDS"},
        {"account_ids": ("me",), "type": "CHAT"},
    ],
)
def test_flags_that_do_not_add_up(given: dict[str, object]) -> None:
    with pytest.raises(ImportStopped):
        Columns(**given)  # type: ignore[arg-type]
