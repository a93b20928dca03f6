"""The demo: a service, a company, and the engine's promises shown one by one with its own answers.

Every line is told from an answer, and every step is checked before the next one begins; a step that is not true ends
the demo with its name. Nothing is made up for the terminal, and nothing waits for effect.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NoReturn

from rich.console import Console
from rich.markup import escape

from tenuto.demo_plans import on_plans
from tenuto.demo_signals import on_signals
from tenuto.demo_story import EMAIL, Company, StepFailed, Story, check, until
from tenuto.engine import Settings
from tenuto.importer import Columns, Import, Source, show_import
from tenuto.server import Server, wait_until_ready

PORT: Final = 8080
PORTS_TRIED: Final = 100
READY_SECONDS: Final = 30.0
AUDIT_SECONDS: Final = 60.0
ROWS: Final = 4000
LATE_SECONDS: Final = 315_360_000
"""Ten years, so that usage of the past can be imported."""
BUDGET_CENTS: Final = 10_000
READ_CENTS: Final = Fraction(15, 1_000_000)
WRITTEN_CENTS: Final = Fraction(60, 1_000_000)


def falling_balance(story: Story, company: Company, account: str) -> None:
    """Each answer carries the balance right after its own event; what cannot be paid gets a 402."""
    story.begin("The balance falls in the answers")
    left = 11
    for number in range(1, 4):
        reply = company.send(account, {"type": "CHAT", "gate_on_balance": True, "key": f"chat-{number}"})
        left -= 3
        check(reply.status == 200 and reply.data["balance"]["amount"] == left, f"{left} credits are left", reply.raw)  # noqa: PLR2004
        story.tell(f"200  cost {reply.data['cost']['amount']}, balance {left}", did="CHAT, 3 credits, gated")
    story.proven("Each answer carried the balance right after its own event, already committed.")

    story.begin("What cannot be paid is refused, with the reason")
    reply = company.send(account, {"type": "CHAT", "gate_on_balance": True, "key": "chat-4"})
    check(reply.status == 402, "A gated event above the balance gets 402", reply.raw)  # noqa: PLR2004
    error = reply.error
    details = error["details"]
    expected = {"denomination": "credits", "available": 2, "required": 3, "shortfall": 1}
    check(error["code"] == "insufficient_balance", "The code is insufficient_balance", error["code"])
    check(expected.items() <= details.items(), "The details say what is missing", details)
    story.tell(f"402  {error['code']}", did="CHAT, 3 credits, gated")
    story.tell(error["message"])
    check(company.balance(account, "credits")["amount"] == 2, "A refusal moves nothing")  # noqa: PLR2004
    story.proven("Refused before any work was done; the balance did not move.")


def held_units(story: Story, company: Company, account: str) -> None:
    """A hold settled for less than it reserved, and one that nobody settles."""
    story.begin("A hold is settled for less")
    company.ask("POST", f"/v1/accounts/{account}/balance/credits/adjust", {"amount": 10, "reason": "demo"})
    story.tell("balance 12", did="10 credits added")
    hold = {"type": "CHAT", "quantity": 3, "state": "pending", "gate_on_balance": True}
    reply = company.send(account, hold)
    check(reply.status == 200, "The hold is taken", reply.raw)  # noqa: PLR2004
    _check_balance(company, account, amount=12, pending=9, available=3)
    story.tell("balance 12, 9 held, 3 available", did="CHAT x 3, pending")
    settled = company.ask("PUT", f"/v1/events/{reply.data['id']}", {"state": "complete", "quantity": 1})
    check(settled["cost"]["amount"] == 3, "One of three units is charged", settled["cost"])  # noqa: PLR2004
    _check_balance(company, account, amount=9, pending=0, available=9)
    story.tell("balance 9, nothing held", did="settled for 1 of 3")
    story.proven("Charged for what was used; the rest was let go at once.")

    story.begin("A hold that nobody settles expires")
    left = company.send(account, hold | {"quantity": 2})
    check(left.status == 200, "The hold is taken", left.raw)  # noqa: PLR2004
    _check_balance(company, account, amount=9, pending=6, available=3)
    story.tell("balance 9, 6 held, 3 available", did="CHAT x 2, pending")
    clock = company.ask("POST", "/v1/companies/{company}/clock", {"advance_seconds": 3600})
    check(clock["done"].get("release_expired") == 1, "Moving the clock released one hold", clock)
    story.tell(f"now {clock['now'][:19]}, 1 hold released", did="the company's test clock + 1 hour")
    _check_balance(company, account, amount=9, pending=0, available=9)
    late = company.call("PUT", f"/v1/events/{left.data['id']}", {"state": "complete"})
    check(
        (late.status, late.error["code"]) == (409, "event_expired"),
        "Settling it now is refused",
        (late.status, late.raw),
    )
    story.tell("409  event_expired", did="settling it after that")
    story.proven("After exactly an hour the credits were free again.")


def _check_balance(company: Company, account: str, **expected: int) -> None:
    found = company.balance(account, "credits")
    check(expected.items() <= found.items(), f"The balance has {expected}", found)


def batch_and_replay(story: Story, company: Company, account: str) -> str:
    """A thousand events in one request, and the same request again; the id of the event that filled a credit."""
    story.begin("A thousand events in one request")
    before = company.balance(account, "credits")["amount"]
    batch = [{"type": "EMBED", "key": f"embed-{number}"} for number in range(1000)]
    began = time.perf_counter()
    first = company.send(account, batch)
    took = time.perf_counter() - began
    check(first.status == 200 and first.body["events_submitted"] == len(batch), "The batch is taken", first.status)  # noqa: PLR2004
    after = company.balance(account, "credits")
    moved = before - after["amount"]
    check((moved, after["residue_fraction"]) == (7, "0"), "1,000 x 0.007 credits are 7", (moved, after))
    transactions = {event["transaction_id"] for event in first.data}
    check(len(transactions) == 1, "One request makes one transaction", len(transactions))
    story.tell(f"200  1,000 events, {moved} credits, {took * 1000:.0f} ms", did="EMBED, 0.007 credits, 1,000 times")
    story.proven("Exactly 7 credits in one transaction: fractions are carried, nothing is rounded away.")

    story.begin("The same request again changes nothing")
    again = company.send(account, batch)
    check(again.status == 200 and again.is_replay, "The answer is marked as a replay", again.headers)  # noqa: PLR2004
    check(again.raw == first.raw, "The answer is the first one, byte by byte")
    check(company.balance(account, "credits") == after, "A replay moves nothing")
    story.tell(f"200  Idempotent-Replayed: true, the same {len(again.raw):,} bytes", did="the same 1,000 keys")
    story.proven("The first answer came again and the balance stood still.")
    return next(str(event["id"]) for event in first.data if event["cost"]["amount"] > 0)


def import_of_usage(story: Story, company: Company, console: Console, usage: Path) -> None:
    """A file of usage billed to the last fraction of a cent, twice without a difference."""
    story.begin("Usage is imported from a file and billed exactly")
    company.price("tokens_read", "USD", "15", 1_000_000)
    company.price("tokens_written", "USD", "60", 1_000_000)
    company.ask("PUT", "/v1/companies/{company}", {"late_event_seconds": LATE_SECONDS})
    accounts = [company.account(name, USD=BUDGET_CENTS) for name in ("Bela", "Clara", "Dinu")]
    columns = Columns(
        account_ids=accounts,
        events=(("tokens_read", "ContextTokens"), ("tokens_written", "GeneratedTokens")),
        at="TIMESTAMP",
    )
    expected, rows, read, written = _expected(usage, len(accounts))
    story.tell(f"{rows:,} requests: {read:,} tokens read at 15 cents a million, {written:,} written at 60")

    def run(title: str) -> int:
        with Source(usage) as source, tempfile.TemporaryDirectory() as folder:
            side_file = Path(folder) / "progress"
            running = Import(source, columns, company.door.url, company.key, progress=side_file)
            tally = show_import(running, source, console, title=title)
        check(tally.rows == rows and tally.is_whole, "Every row goes in", (tally.bad, tally.refused))
        return tally.events

    began = time.perf_counter()
    events = run(" importing")
    took = time.perf_counter() - began
    story.tell(f"{events:,} events in {took:.1f} s, over {len(accounts)} accounts", did=f"tenuto import {usage.name}")
    balances = [company.balance(account, "USD") for account in accounts]
    total = Fraction(0)
    for found, exact in zip(balances, expected, strict=True):
        posted = BUDGET_CENTS - found["amount"]
        rest = Fraction(found["residue_fraction"])
        check(0 <= rest < 1, "Less than a cent is carried on", rest)
        check(posted + rest == exact, f"Posted and carried cents are exactly {exact}", posted + rest)
        story.tell(f"{posted:>5} cents posted + {found['residue']} carried", did=f"account {found['account_id']}")
        total += posted + rest
    check(total == read * READ_CENTS + written * WRITTEN_CENTS, "The total is exact", total)
    story.proven(f"Together {_decimal(total)} cents: the exact sum of {events:,} events, to the last digit.")

    run("once more")
    check([company.balance(account, "USD") for account in accounts] == balances, "A second import moves nothing")
    story.proven("The same file once more: nothing moved.")


def _expected(usage: Path, accounts: int) -> tuple[list[Fraction], int, int, int]:
    """The exact cents of each account, the rows, the tokens read and written: from the file, by fractions."""
    shares = [Fraction(0)] * accounts
    rows = read = written = 0
    with Source(usage) as source:
        for row in source.rows():
            context, generated = int(row.text("ContextTokens")), int(row.text("GeneratedTokens"))
            shares[rows % accounts] += context * READ_CENTS + generated * WRITTEN_CENTS
            rows, read, written = rows + 1, read + context, written + generated
    return shares, rows, read, written


def _decimal(value: Fraction) -> str:
    """A fraction whose denominator divides a power of ten, in full."""
    scaled = value * 10**12
    whole, rest = divmod(scaled.numerator // scaled.denominator, 10**12)
    return f"{whole}.{rest:012}".rstrip("0").rstrip(".")


def why_it_cost(story: Story, company: Company, event_id: str) -> None:
    """One event explained down to its fractions."""
    story.begin("Any event can be explained")
    found = company.ask("GET", f"/v1/events/{event_id}/explain")
    check(found["exact"] == "0.007" and found["price"]["version"] == 1, "The explanation has price and cost", found)
    before, after = Fraction(found["residue_before"]), Fraction(found["residue_after"])
    check(before + Fraction(found["exact"]) == found["amount"] + after, "Residue and cost add up", found)
    story.tell(found["sentence"])
    story.proven(
        f"Residue {_decimal(before)} + cost {found['exact']} = {found['amount']} moved + {_decimal(after)} carried on."
    )


def refilled_by_card(story: Story, company: Company) -> None:
    """A balance that fills itself from a card; and a card that says no, with what puts it right."""
    story.begin("A balance refills itself from a card")
    account = company.account("Edda", credits=11)
    card = company.ask("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"})
    story.tell(f"{card['brand']} {card['last4']}", did="a test card, in the sandbox")
    refill = {"threshold": 10, "amount": 100, "usd_charge": 500}
    company.ask("PUT", f"/v1/accounts/{account}/balance/credits/autorefill", refill)
    story.tell("below 10 credits: 100 more for 5.00 USD", did="set once")
    began = time.perf_counter()
    answer = company.send(account, {"type": "CHAT", "gate_on_balance": True})
    check(answer.status == 200 and answer.data["balance"]["amount"] == 8, "8 credits are left", answer.raw)  # noqa: PLR2004
    story.tell("200  balance 8", did="CHAT, 3 credits, gated")
    until(lambda: company.balance(account, "credits")["amount"] == 108, "The refill arrives")  # noqa: PLR2004
    payment = _only_payment(company, account)
    check((payment["status"], payment["amount"]) == ("succeeded", 500), "The card was charged once", payment)
    story.tell(f"balance 108, {(time.perf_counter() - began) * 1000:.0f} ms later", did="charged 5.00 USD")
    story.proven("One refill, one charge: the provider was asked outside any transaction, the credit is written once.")

    story.begin("A declined card, and its recovery")
    account = company.account("Finn", credits=11)
    company.ask("POST", f"/v1/accounts/{account}/card", {"token": "pm_card_chargeCustomerFail"})
    company.ask("PUT", f"/v1/accounts/{account}/balance/credits/autorefill", refill)
    company.send(account, {"type": "CHAT", "gate_on_balance": True})
    until(lambda: _only_payment(company, account)["code"] is not None, "The card is refused")
    payment = _only_payment(company, account)
    check(company.balance(account, "credits")["amount"] == 8, "A refused card adds nothing", payment)  # noqa: PLR2004
    story.tell(f"{payment['code']}; next try at {payment['next_attempt_at'][:19]}", did="charging 5.00 USD")
    company.ask("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"})
    until(lambda: company.balance(account, "credits")["amount"] == 108, "The new card pays")  # noqa: PLR2004
    payment = _only_payment(company, account)
    check((payment["status"], payment["attempts"]) == ("succeeded", 2), "The same payment, at its second try", payment)
    story.tell("balance 108, the same payment, second attempt", did="another card given")
    story.proven("Refused, nothing was added; with a good card the same payment went through, once.")


def _only_payment(company: Company, account: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    found = company.ask("GET", f"/v1/accounts/{account}/payments")
    check(len(found) <= 1, "There is one payment", found)
    return found[0] if found else {"code": None}


def invoiced(story: Story, company: Company) -> None:
    """A month of usage on credit, its invoice with tax, and its payment."""
    story.begin("A month of usage becomes an invoice")
    account = company.account("Gerd", USD=0)
    company.ask("PUT", f"/v1/accounts/{account}", {"credit_limit": 50_000})
    company.price("PAGE", "USD", "2.5")
    terms = {"currency": "USD", "terms_days": 30, "taxes": [{"name": "VAT", "rate": "20", "inclusive": False}]}
    company.ask("PUT", f"/v1/accounts/{account}/invoicing", terms)
    sent = company.send(account, [{"type": "PAGE", "quantity": 999, "gate_on_balance": True}, {"type": "PAGE"}])
    check(sent.status == 200, "Usage on credit is taken", sent.raw)  # noqa: PLR2004
    owed = company.balance(account, "USD")["amount"]
    check(owed == -2500, "1,000 x 2.5 cents are owed", owed)  # noqa: PLR2004
    story.tell("balance -25.00 USD, inside the credit limit", did="1,000 pages at 2.5 cents")
    clock = company.ask("GET", "/v1/companies/{company}/clock")
    today = datetime.fromisoformat(clock["now"])
    first = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, 2, tzinfo=UTC)
    company.ask("POST", "/v1/companies/{company}/clock", {"now": f"{first:%Y-%m-%dT%H:%M:%SZ}"})
    found = company.ask("GET", f"/v1/accounts/{account}/invoices")
    check(len(found) == 1, "The month made one invoice", found)
    invoice = company.ask("GET", f"/v1/invoices/{found[0]['id']}")
    sums = (invoice["status"], invoice["subtotal"], invoice["tax"], invoice["total"])
    check(sums == ("open", 2500, 500, 3000), "25.00 and 20 % tax are 30.00", invoice)
    check(sum(line["amount"] for line in invoice["lines"]) == invoice["subtotal"], "Lines add up", invoice["lines"])
    story.tell(f"{invoice['number']}: 25.00 + 5.00 VAT = 30.00 USD", did=f"the clock moved to {first:%d %B}")
    paper = company.call("GET", f"/v1/invoices/{invoice['id']}/pdf").raw
    check(paper.startswith(b"%PDF-"), "The invoice is a PDF", paper[:20])
    story.tell(f"{len(paper):,} bytes", did="its PDF")
    company.ask("POST", f"/v1/accounts/{account}/card", {"token": "tok_visa"})
    paid = company.ask("POST", f"/v1/invoices/{invoice['id']}/pay", {})
    check(paid["status"] == "paid", "The card pays the invoice", paid)
    check(company.balance(account, "USD")["amount"] == 0, "Nothing is owed any more")
    story.tell("paid; balance 0.00 USD", did="charged to the card")
    story.proven("Lines, tax and total agree to the cent, and with the ledger; the payment closed both.")


def audited(story: Story, data: Path) -> None:
    """The books, recomputed from the facts by another program."""
    story.begin("The books agree with the facts")
    command = [sys.executable, "-m", "tenuto.cli", "audit", "--gateway", "--data", str(data)]
    environ = {name: value for name, value in os.environ.items() if name != "TENUTO_DATABASE"}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False)
    said = (result.stdout + result.stderr).strip()
    check(result.returncode == 0, "tenuto audit is clean", said[-2000:])
    story.tell(said.splitlines()[-1] if said else "clean", did="tenuto audit --gateway")
    story.proven("Every balance, hold, payment, invoice and plan was recomputed, and the card provider's book agrees.")


def tell_story(story: Story, company: Company, console: Console, data: Path, usage: Path) -> str:
    """All steps in order; the account of the first ones. Raises StepFailed."""
    company.price("CHAT", "credits", "3")
    company.price("EMBED", "credits", "0.007")
    account = company.account("Ada", credits=11)
    falling_balance(story, company, account)
    held_units(story, company, account)
    event_id = batch_and_replay(story, company, account)
    import_of_usage(story, company, console, usage)
    why_it_cost(story, company, event_id)
    refilled_by_card(story, company)
    invoiced(story, company)
    on_plans(story, company)
    on_signals(story, company)
    audited(story, data)
    return account


def write_usage(path: Path, rows: int = ROWS) -> None:
    """Usage as of a language model: long questions, short answers, two equal rows now and then.

    The same every time but for its day, which is yesterday.
    """
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    state = 20_231_116
    with path.open("w", encoding="ascii") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for number in range(rows):
            if number % 50:
                state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
            context, generated = 20 + (state >> 40) % 7400, (state >> 20) % 190
            at = begin + timedelta(milliseconds=900 * (number - (number % 50 == 0)))
            file.write(f"{at:%Y-%m-%d %H:%M:%S.%f}0,{context},{generated}\n")


def _started(data: Path, port: int | None, say: Callable[[str], None]) -> Server:
    """A running server on the port, or on the first free one from 8080 on. Raises what keeps it from starting."""
    ports: Sequence[int] = range(PORT, PORT + PORTS_TRIED) if port is None else (port,)
    for candidate in ports:
        # The demo's webhook goes to this very machine.
        settings = Settings(
            port=candidate, data=str(data), registration="open", log_level="error", private_webhooks="on"
        )
        server = Server(settings, say)
        try:
            server.start()
        except OSError as error:
            if port is None and "--port" in str(error) and candidate != ports[-1]:
                continue
            raise
        if wait_until_ready(*server.address, seconds=READY_SECONDS):
            return server
        server.stop()
        raise StepFailed(f"The service was not ready within {READY_SECONDS:.0f} s.")
    raise AssertionError


@contextlib.contextmanager
def _usage_file(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llm-requests.csv"
        write_usage(path)
        yield path


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def run_demo(data: Path, *, port: int | None, usage: Path | None, is_once: bool) -> int:
    """The command ``tenuto demo``: 0 when every step was true, else 1; unless ``is_once``, it stays up then."""
    console = Console(highlight=False)
    story, began = Story(console), time.monotonic()
    server: Server | None = None
    previous = signal.signal(signal.SIGTERM, _interrupt)
    console.print("[bold]Tenuto[/]  real-time usage billing on PostgreSQL\n")
    try:
        server = _started(data, port, story.tell)
        company = Company(server.url)
        story.tell(f"The service answers at {server.url}, {time.monotonic() - began:.1f} s after the start.")
        with _usage_file(usage) as path:
            account = tell_story(story, company, console, data, path)
        console.print(
            f"\n[bold green]All {story.step} steps were checked and true[/], in {time.monotonic() - began:.1f} s."
        )
        if not is_once:
            _stay(console, server, company, account)
    except KeyboardInterrupt:
        console.print("\nInterrupted.")
        return 130
    except Exception as error:  # noqa: BLE001 - whatever it is ends the step it happened in
        console.print(f"   [red]✗ {story.step}  {escape(story.title)}[/]", soft_wrap=True)
        console.print(f"   {escape(str(error) or type(error).__name__)}", soft_wrap=True)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
        if server is not None:
            server.stop()
    return 0


def _stay(console: Console, server: Server, company: Company, account: str) -> None:
    """Say how to go on, and serve until SIGINT or SIGTERM."""
    lines = (
        f"Console   {server.url}   sign in as {EMAIL} with the password: {company.password}",
        f"API       {server.url}/docs",
        f"Company   {company.id}",
        f"Key       {company.key}",
        "",
        "Try it:",
        "",
        f"curl {server.url}/v1/accounts/{account}/events -u {company.id}:{company.key} \\",
        '  -H \'content-type: application/json\' -d \'{"type": "CHAT", "gate_on_balance": true}\'',
        "",
        "It stays up until Ctrl-C.",
    )
    console.print()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
    server.run()
