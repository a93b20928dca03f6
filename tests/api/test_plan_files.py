"""Plans and prices in a file: the real commands, run as a person would, against the running service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tenuto import plan_changes, plan_files
from tenuto.api.plan_shapes import PlanBalanceOut, PlanOut
from tenuto.api.shapes import EventPriceOut
from tenuto.core.outcomes import Refusal
from tenuto.plan_changes import Company as Seller
from tenuto.plan_changes import changes_between, pull
from tenuto.plan_files import (
    BALANCE_DEFAULTS,
    PLAN_DEFAULTS,
    PRICE_DEFAULTS,
    Catalog,
    FileRefused,
    catalog_of,
    is_plain,
    plan_from,
    read_file,
)
from tenuto.server import Server
from tests.client import Client, Company

PRO: Final = """\
plans:
  pro:
    name: Pro
    renewal_denomination: USD
    renewals:
      MONTHLY: {amount: 1000}
    balances:
      tokens: {amount: 500, overage_charge_amount: "0.25"}
event_prices:
- {type: tokens_read, denomination: USD, amount: 15, per: 1000000}
"""
Says = Callable[..., "Told"]


class Told:
    """What a command ended with and what it told."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.out.splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "plans.yaml"


@pytest.fixture
def tenuto(service: Server, company: Company, file: Path) -> Says:
    """``tenuto plans WORD FILE`` in a process of its own, with the company's key in its environment."""

    def say(word: str, *more: str, url: str = service.url, key: str = company.key, **environment: str) -> Told:
        found = {"TENUTO_URL": url, "TENUTO_COMPANY": company.id, "TENUTO_API_KEY": key, "PATH": os.environ["PATH"]}
        words = [sys.executable, "-m", "tenuto.cli", "plans", word, str(file), *more]
        return Told(
            subprocess.run(words, env=found | environment, capture_output=True, text=True, timeout=120, check=False)
        )

    return say


def sold(company: Company) -> dict[str, Any]:
    """The plans that are not archived, by code or id."""
    found = company.call("GET", "/v1/companies/{company}/plans?archived=false&limit=1000").data
    return {plan["code"] or plan["id"]: plan for plan in found}


def prices(company: Company) -> dict[str, Any]:
    """The event prices in force, by type."""
    found = company.call("GET", "/v1/companies/{company}/event_prices?limit=1000").data
    return {price["type"]: price for price in found}


# --- the round trip --------------------------------------------------------------------------------------------------


def test_what_is_pulled_is_small_sorted_and_says_what_to_do_next(tenuto: Says, company: Company, file: Path) -> None:
    nameless = company.plan(name="No code")
    company.plan(
        code="team",
        renewals={"YEARLY": {"amount": 9000}, "MONTHLY": {"amount": 1000}},
        balances={
            "seats": {"variable_amount_cost": {"MONTHLY": 200, "YEARLY": 2000}},
            "gb": {
                "amount": 10,
                "overage_charge_amount": "12.50",
                "overage_charge_per": 1,
                "overage_charge_denomination": "USD",
                "auto_refill_amount": 9,
                "auto_refill_threshold": 0,
            },
        },
        flags={"country": "NO", "sso": True, "level": 1},
        rollover=True,
        event_prices=[{"type": "CHAT", "denomination": "gb", "amount": "0.10", "match": {"model": "1e3"}}],
    )
    company.price("tokens_read", "USD", "15.00", per=1_000_000, minimum="0.5")

    pulled, diff = tenuto("pull"), tenuto("diff")

    assert (pulled.code, pulled.out) == (0, f"2 plans and 1 event prices written to {file}\n")
    assert (diff.code, diff.out) == (0, "no changes\n")
    text = file.read_text()
    assert "#   tenuto plans diff plans.yaml" in text
    assert text[text.index("plans:\n") :] == (
        f"plans:\n  {nameless}:\n    name: No code\n    renewal_denomination: USD\n"
        "    renewals:\n      MONTHLY: {amount: 1000}\n\n"
        "  team:\n    name: Pro\n    renewal_denomination: USD\n"
        "    renewals:\n      MONTHLY: {amount: 1000}\n      YEARLY: {amount: 9000}\n"
        '    balances:\n      gb:\n        amount: 10\n        overage_charge_amount: "12.5"\n'
        "        auto_refill_amount: 9\n        auto_refill_threshold: 0\n"
        "      seats:\n        variable_amount_cost: {MONTHLY: 200, YEARLY: 2000}\n"
        '    flags:\n      country: "NO"\n      level: 1\n      sso: true\n'
        "    rollover: true\n"
        '    event_prices:\n    - type: CHAT\n      denomination: gb\n      match: {model: "1e3"}\n'
        '      amount: "0.1"\n\n'
        "event_prices:\n- type: tokens_read\n  denomination: USD\n  amount: 15\n  per: 1000000\n"
        '  minimum: "0.5"\n'
    )


def test_what_is_left_out_elsewhere_is_written_where_it_says_something(
    company: Company, seller: Seller, file: Path
) -> None:
    company.plan(
        code="team",
        renewals={"YEARLY": {"amount": 9000}, "MONTHLY": {"amount": 1000}},
        refill_cadence="MONTHLY",
        rollover=True,
        minimum_spend=0,
        balances={
            "kept": {"rollover": True},
            "lost": {"rollover": False, "overage_charge_amount": 0, "overage_charge_denomination": "EUR"},
            "dear": {
                "overage_charge_amount": 2,
                "auto_refill_amount": 100,
                "auto_refill_threshold": 0,
                "auto_refill_charge_amount": 500,
            },
        },
    )
    pull(file, seller, Quiet())  # type: ignore[arg-type]
    said = yaml.safe_load(file.read_text())["plans"]["team"]
    assert (said["refill_cadence"], said["minimum_spend"], said["rollover"]) == ("MONTHLY", 0, True)
    assert said["balances"] == {
        "kept": {},
        "lost": {"rollover": False, "overage_charge_amount": 0, "overage_charge_denomination": "EUR"},
        "dear": {
            "overage_charge_amount": 2,
            "auto_refill_amount": 100,
            "auto_refill_threshold": 0,
            "auto_refill_charge_amount": 500,
        },
    }


def test_a_file_has_every_field_of_a_plan_and_of_a_price() -> None:
    beside = {"id", "company_id", "code", "version", "archived_at", "created_at", "updated_at"}
    assert set(PlanOut.__struct_fields__) - beside == set(PLAN_DEFAULTS)
    assert set(PlanBalanceOut.__struct_fields__) == set(BALANCE_DEFAULTS)
    name = {"type", "denomination", "match", "effective_at"}
    assert set(EventPriceOut.__struct_fields__) - beside - name == set(PRICE_DEFAULTS)


AMOUNTS: Final = st.integers(0, 10**6)
DECIMALS: Final = st.decimals(0, 10**6, places=6).map(lambda found: f"{found:f}") | st.integers(0, 10**9)
NAMES: Final = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64) | st.sampled_from(
    [
        "NO",
        "010",
        "08",
        "1e3",
        "null",
        "~",
        "<<",
        "=",
        "1:30",
        "2024-01-01",
        "- x"[0],
        "#a",
        "a:",
        "{",
        "&a",
        "*a",
        "!t",
    ]
)
TEXTS: Final = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=200)
SCALARS: Final = st.booleans() | st.integers(-(10**15), 10**15) | TEXTS
CADENCES: Final = ("MONTHLY", "YEARLY", "ONE_OFF")


def filled(text: str) -> bool:
    return bool(text.strip())


def some(values: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields."""
    return st.fixed_dictionaries({}, optional=dict(values))


TIERS: Final = st.tuples(
    st.sets(st.integers(1, 10**6), max_size=3), st.lists(DECIMALS, min_size=4, max_size=4), st.sampled_from([1, 10])
).map(
    lambda found: [
        {"up_to": up_to, "amount": amount, "per": found[2]}
        for up_to, amount in zip([*sorted(found[0]), None], found[1], strict=False)
    ]
)
TERMS: Final = (
    st.fixed_dictionaries({"amount": DECIMALS}, optional={"model": st.sampled_from(["per_unit", "package"])})
    | st.fixed_dictionaries({"tiers": TIERS, "model": st.sampled_from(["graduated", "volume"])})
).flatmap(
    lambda known: some(
        {"free_units": AMOUNTS, "minimum": st.just("0.10"), "cap": DECIMALS.map(lambda _: "9.90")}
        | ({"per": st.sampled_from([1, 2, 10**6])} if "amount" in known else {})
        | {"max_value_billing": st.booleans() if known.get("model", "per_unit") == "per_unit" else st.just(value=False)}
    ).map(lambda more: {**known, **more})
)
TYPES: Final = st.sampled_from(["CHAT", "on", "日本", "1.5", "a:b"]) | NAMES
PRICES: Final = st.builds(
    lambda name, terms: {**name, **terms},
    st.fixed_dictionaries(
        {
            "type": TYPES,
            "denomination": NAMES,
            "match": st.dictionaries(TEXTS.filter(filled), SCALARS | st.none(), max_size=2),
        }
    ),
    TERMS,
)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """A plan in the current shape, mostly one that the service takes."""
    cadences = draw(st.lists(st.sampled_from(CADENCES), min_size=1, max_size=3, unique=True))
    denomination = draw(st.sampled_from(["USD", "gold"]))
    balances: dict[str, Any] = {}
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        entry = draw(some({"amount": AMOUNTS, "rollover": st.booleans()}))
        if draw(st.booleans()):
            costs = st.fixed_dictionaries(dict.fromkeys(cadences, AMOUNTS))
            entry["variable_amount_cost"] = draw(AMOUNTS | costs)
        if draw(st.booleans()):
            entry["overage_charge_amount"] = draw(DECIMALS)
            entry |= draw(some({"overage_charge_per": st.sampled_from([1, 2, 10, 1000])}))
            entry |= draw(some({"overage_charge_denomination": st.sampled_from(["USD", "gold", "silver"])}))
        if draw(st.booleans()):
            entry["auto_refill_amount"] = draw(st.integers(1, 10**4))
            entry["auto_refill_threshold"] = draw(AMOUNTS)
            entry |= draw(some({"auto_refill_charge_amount": st.sampled_from([0, 50, 500])}))
        balances[name] = entry
    renewal = st.sampled_from([0, 100, 12345])
    return {
        "name": draw(TEXTS.filter(filled)),
        "renewal_denomination": denomination,
        "renewals": {cadence: {"amount": draw(renewal)} for cadence in cadences},
        "balances": balances,
        **draw(
            some(
                {
                    "refill_cadence": st.sampled_from([None, *CADENCES]),
                    "flags": st.dictionaries(NAMES, SCALARS, max_size=4),
                    "trial_days": st.integers(0, 730),
                    "setup_fee": st.sampled_from([0, 500]),
                    "minimum_spend": st.integers(0, 100),
                    "spend_cap": st.integers(100, 10**6),
                    "threshold_alert_percentage": st.integers(0, 100),
                    "rollover": st.booleans(),
                    "event_prices": st.lists(PRICES, max_size=3),
                }
            )
        ),
    }


seeded = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    phases=(Phase.explicit, Phase.generate),  # nothing is smaller than what it was after what came before
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@pytest.fixture
def seller(service: Server, company: Company) -> Iterator[Seller]:
    found = Seller(service.url, company.id, company.key)
    yield found
    found.close()


class Quiet:
    """A console that nobody looks at."""

    def print(self, *_: object, **__: object) -> None:
        pass


@pytest.fixture
def copy(service: Server, client: Client) -> Iterator[tuple[Company, Seller]]:
    """Another company."""
    other = Company.open(client, "Copy")
    found = Seller(service.url, other.id, other.key)
    yield other, found
    found.close()


def all_prices(company: Company) -> dict[str, object]:
    found = company.call("GET", "/v1/companies/{company}/event_prices?limit=1000").data
    return {
        json.dumps([price["type"], price["denomination"], price["match"]], sort_keys=True): terms_of(price)
        for price in found
    }


def terms_of(answer: object) -> object:
    """An answer about a plan or a price without what another company has otherwise, decimals as numbers."""
    if isinstance(answer, list):
        return [terms_of(item) for item in answer]
    if not isinstance(answer, dict):
        return repr(answer)
    decimals = {"amount", "minimum", "cap", "overage_charge_amount"}
    beside = {"id", "company_id", "code", "created_at", "updated_at", "effective_at", "version"}
    return {
        name: Fraction(value) if name in decimals and isinstance(value, str | int) else terms_of(value)
        for name, value in answer.items()
        if name not in beside
    }


def test_any_plan_that_the_service_takes_comes_back_and_copies_without_a_change(
    company: Company, seller: Seller, copy: tuple[Company, Seller], file: Path
) -> None:
    taken: list[int] = []
    other, copier = copy

    @seeded
    @given(plan=plans(), price=PRICES, code=st.none() | NAMES)
    def lived(plan: dict[str, Any], price: dict[str, Any], code: str | None) -> None:
        made = company.call("POST", "/v1/companies/{company}/plans", {**plan, "code": code})
        priced = company.call("POST", "/v1/companies/{company}/event_prices", price)
        assert made.status in {200, 409, 422}, made
        assert priced.status in {200, 409, 422}, priced
        if made.status != 200:
            return
        taken.append(1)
        pull(file, seller, Quiet())  # type: ignore[arg-type]
        assert changes_between(seller, read_file(file)) == []
        assert yaml.safe_load(file.read_text())["plans"].keys() == sold(company).keys()
        for change in changes_between(copier, read_file(file)):
            assert copier.do(change).status == 200
        assert {name: terms_of(plan) for name, plan in sold(other).items()} == {
            name: terms_of(plan) for name, plan in sold(company).items()
        }
        assert all_prices(other) == all_prices(company)
        assert company.call("DELETE", f"/v1/plans/{made.data['id']}").status == 200

    lived()
    assert len(taken) > 30


def test_what_does_not_fit_on_a_page_is_read_to_the_end(
    company: Company, seller: Seller, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_changes, "PAGE_MAX", 2)
    codes = {company.call("GET", f"/v1/plans/{company.plan(code=f'p{count}')}").data["code"] for count in range(5)}
    for count in range(4):
        company.price(f"T{count}", "credits", "1")
    pull(file, seller, Quiet())  # type: ignore[arg-type]
    found = read_file(file)
    assert set(found.plans or ()) == codes
    assert len(found.prices or ()) == 4


def test_any_plan_becomes_any_other(seller: Seller, copy: tuple[Company, Seller]) -> None:
    done: list[int] = []

    @seeded
    @given(found=st.lists(plans(), min_size=1, max_size=2))
    def lived(found: list[dict[str, Any]]) -> None:
        for plan in found:
            try:
                wanted = Catalog({"x": plan_from(plan)}, None)
            except Refusal:
                continue
            for one in (seller, copy[1]) if len(done) % 2 else (seller,):
                for change in changes_between(one, wanted):
                    reply = one.do(change)
                    assert reply.status == 200, (change, reply)
                assert changes_between(one, wanted) == []
            done.append(1)

    lived()
    assert len(done) > 30


@pytest.mark.parametrize(
    "word", ["NO", "on", "010", "08", "0x1F", "1_000", "1:30", "1e3", ".5", "+1", "=", "<<", "~", "True", "2024-01-01"]
)
def test_a_word_that_is_not_text_to_every_reader_is_quoted(word: str) -> None:
    assert not is_plain(word)
    assert is_plain(f"{word}x")


# --- diff and apply --------------------------------------------------------------------------------------------------


def test_a_file_makes_a_company_and_a_second_time_nothing(tenuto: Says, company: Company, file: Path) -> None:
    file.write_text(PRO)

    diff, dry = tenuto("diff"), tenuto("apply")
    assert diff.code == 1
    assert diff.lines == [
        "+ event price tokens_read USD: new",
        "amount: 15",
        "per: 1000000",
        "+ plan pro: new",
        'name: "Pro"',
        'renewal_denomination: "USD"',
        "renewals.MONTHLY.amount: 1000",
        "balances.tokens.amount: 500",
        'balances.tokens.overage_charge_amount: "0.25"',
        "1 plan new, 1 event price new",
    ]
    assert (dry.code, dry.lines) == (0, [*diff.lines, "Nothing was sent. With --yes, this is done."])
    assert (sold(company), prices(company)) == ({}, {})

    made, again, after = tenuto("apply", "--yes"), tenuto("apply", "--yes"), tenuto("diff")
    plan, price = sold(company)["pro"], prices(company)["tokens_read"]
    assert (made.code, made.lines) == (
        0,
        [
            f"+ event price tokens_read USD: made ({price['id']})",
            f"+ plan pro: made ({plan['id']})",
            "2 of 2 done.",
        ],
    )
    assert plan["balances"]["tokens"]["overage_charge_amount"] == "0.25"
    assert (again.code, again.out) == (after.code, after.out) == (0, "no changes\n")
    assert (sold(company)["pro"], prices(company)["tokens_read"]) == (plan, price)


def test_each_changed_field_is_told_and_what_is_gone_is_archived_or_ends(
    tenuto: Says, company: Company, file: Path
) -> None:
    file.write_text(PRO)
    company.plan(code="old")
    company.price("CHAT", "credits", "1", match={"model": "big"})
    nameless = company.plan(name="No code", flags={"sso": True}, trial_days=7)
    pro = company.plan(
        code="pro",
        renewals={"MONTHLY": {"amount": 900}, "YEARLY": {"amount": 9000}},
        refill_cadence="MONTHLY",
        balances={"tokens": {"amount": 500}, "seats": {"variable_amount_cost": {"MONTHLY": 1, "YEARLY": 2}}},
    )
    company.price("tokens_read", "USD", "14.50", per=1_000_000)
    terms = f"  {nameless}: {{name: No code, renewal_denomination: USD, renewals: {{monthly: {{amount: 1000}}}},"
    file.write_text(PRO.replace("  pro:\n", f"{terms} flags: {{sso: 1}}}}\n  pro:\n"))

    diff = tenuto("diff")

    assert diff.code == 1
    assert diff.lines == [
        "~ event price tokens_read USD: version 1 -> 2",
        'amount: "14.5" -> 15',
        f"~ plan {nameless}: version 1 -> 2",
        "flags.sso: true -> 1",
        "trial_days: 7 -> 0",
        "accounts stay on their version until they are moved",
        "~ plan pro: version 1 -> 2",
        "renewals.MONTHLY.amount: 900 -> 1000",
        'balances.tokens.overage_charge_amount: not set -> "0.25"',
        "balances.tokens.overage_charge_per: not set -> 1",
        'balances.tokens.overage_charge_denomination: not set -> "USD"',
        "renewals.YEARLY.amount: 9000 -> not set",
        "balances.seats.amount: 0 -> not set",
        "balances.seats.variable_amount_cost.MONTHLY: 1 -> not set",
        "balances.seats.variable_amount_cost.YEARLY: 2 -> not set",
        "balances.seats.rollover: false -> not set",
        "accounts stay on their version until they are moved",
        "- plan old: to be archived",
        "accounts stay on their version until they are moved",
        '- event price CHAT credits {"model":"big"}: to be ended',
        "2 plans to be changed, 1 plan to be archived, 1 event price to be changed, 1 event price to be ended",
    ]
    applied = tenuto("apply", "--yes")
    assert applied.code == 0, applied.err
    assert f"~ plan pro: changed ({pro}, version 2)" in applied.lines
    assert sold(company).keys() == {"pro", nameless}
    assert sold(company)[nameless]["flags"] == {"sso": 1}
    assert prices(company).keys() == {"tokens_read"}
    assert prices(company)["tokens_read"]["amount"] == "15"
    assert tenuto("diff").out == "no changes\n"


def test_a_part_that_a_file_does_not_have_is_left_alone(tenuto: Says, company: Company, file: Path) -> None:
    company.plan(code="pro")
    company.price("CHAT", "credits", "1")
    file.write_text("event_prices: []\n")
    assert tenuto("apply", "--yes").code == 0
    assert (set(sold(company)), prices(company)) == ({"pro"}, {})
    file.write_text("plans: {}\n")
    assert tenuto("apply", "--yes").code == 0
    assert sold(company) == {}


def test_what_was_archived_and_is_wanted_again_is_made_again(tenuto: Says, company: Company, file: Path) -> None:
    """The stored answer of the same request must not pass for it."""
    ids: set[str] = set()
    for _ in range(3):
        file.write_text(PRO)
        assert tenuto("apply", "--yes").code == 0
        ids |= {sold(company)["pro"]["id"], prices(company)["tokens_read"]["id"]}
        file.write_text("plans: {}\nevent_prices: []\n")
        assert tenuto("apply", "--yes").code == 0
        assert (sold(company), prices(company)) == ({}, {})
    assert len(ids) == 6


def test_a_price_goes_to_and_fro(tenuto: Says, company: Company, file: Path) -> None:
    for amount in (15, 16, 15, 16):
        file.write_text(PRO.replace("amount: 15", f"amount: {amount}"))
        assert tenuto("apply", "--yes").code == 0
        assert prices(company)["tokens_read"]["amount"] == str(amount)


def test_an_apply_stops_at_the_first_refusal_and_goes_on_from_there(
    tenuto: Says, company: Company, file: Path, door: Door
) -> None:
    """The service has the last word: here a plan whose code somebody else takes while the file is being applied."""
    file.write_text(PRO + "- {type: CHAT, denomination: credits, amount: 1}\n")
    door.before["/plans"] = lambda: company.plan(code="pro")

    stopped = tenuto("apply", "--yes", url=door.url)

    assert stopped.code == 2
    assert [line.partition(" (")[0] for line in stopped.lines] == [
        "+ event price tokens_read USD: made",
        "+ event price CHAT credits: made",
    ]
    assert "plan pro: " in stopped.err
    assert "(plan_exists)" in stopped.err
    assert "2 of 3 done; the rest was not sent." in stopped.err
    assert tenuto("apply", "--yes").lines[-1] == "1 of 1 done."
    assert tenuto("diff").code == 0


class Door(ThreadingHTTPServer):
    """A door before the service that hands each request on, and loses the answer of every second change."""

    daemon_threads = True

    def __init__(self, service: Server) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.service = service
        self.loses = False
        self.changes: list[tuple[str, str]] = []
        self.before: dict[str, Callable[[], object]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    methods: ClassVar = ("GET", "POST", "PUT", "DELETE")

    def _pass(self) -> None:
        door = self.server
        assert isinstance(door, Door)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.command != "GET":
            door.changes.append((self.path, self.headers["idempotency-key"]))
            for ending, act in list(door.before.items()):
                if self.path.endswith(ending):
                    act()
                    del door.before[ending]
        connection = HTTPConnection(*door.service.address, timeout=30)
        names = ("authorization", "content-type", "idempotency-key")
        connection.request(self.command, self.path, body or None, {n: v for n in names if (v := self.headers[n])})
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        if door.loses and self.command != "GET" and len(door.changes) % 2:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() in {"content-type", "idempotent-replayed"}:
                self.send_header(name, value)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = do_DELETE = _pass  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # type: ignore[explicit-override]
        pass


@pytest.fixture
def door(service: Server) -> Iterator[Door]:
    with Door(service) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_a_request_whose_answer_is_lost_is_sent_again_and_has_one_effect(
    tenuto: Says, company: Company, file: Path, door: Door
) -> None:
    pro = company.plan(code="pro")
    company.plan(code="old")
    door.loses = True
    file.write_text(PRO)

    applied = tenuto("apply", "--yes", url=door.url)

    assert applied.code == 0, applied.err
    assert len(door.changes) == 2 * 3
    assert door.changes[::2] == door.changes[1::2]
    assert sold(company)["pro"]["version"] == 2
    assert len(company.call("GET", f"/v1/plans/{pro}/versions").data) == 2
    assert len(prices(company)) == 1


def test_a_refused_key_and_a_silent_service_are_told_in_a_sentence(tenuto: Says, file: Path) -> None:
    file.write_text(PRO)
    assert tenuto("diff", key="sk_test_wrong").code == 2
    silent = tenuto("pull", url="http://127.0.0.1:1")
    assert (silent.code, silent.out) == (2, "")
    assert "http://127.0.0.1:1 does not answer" in silent.err
    assert tenuto("diff", url="ftp://x").code == 2
    assert tenuto("diff", url="http://127.0.0.1:99999").code == 2
    assert tenuto("diff", "--company", "c_1").code == 2
    assert file.read_text() == PRO


def test_the_guide_shows_what_diff_tells(tenuto: Says, file: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "plans-as-code.md").read_text()
    said = re.search(r"<<'YAML'\n(.*?)YAML\n", page, re.DOTALL)
    shown = re.search(r"tells every field:\n\n(.*?)\n\n", page, re.DOTALL)
    assert said
    assert shown
    file.write_text(said[1])
    assert tenuto("diff").out.splitlines() == [line.removeprefix("    ") for line in shown[1].splitlines()]


# --- files that are not understood -----------------------------------------------------------------------------------

HEAD: Final = "plans:\n  pro:\n    name: Pro\n    renewal_denomination: USD\n    renewals: {MONTHLY: {amount: 1000}}\n"
BAD: Final = {
    "nothing": ("", 1, "begin with"),
    "no object": ("- plans\n", 1, "begin with"),
    "an unknown part": (HEAD + "accounts: {}\n", 6, "accounts is no part of a file"),
    "plans without a word": ("event_prices: []\nplans:\n", 2, "{} says that there is none"),
    "prices without a word": ("event_prices:\n", 1, "[] says that there is none"),
    "a plan without terms": ("plans:\n  pro:\n", 2, "a plan is an object"),
    "a price that is a word": ("event_prices:\n- CHAT\n", 2, "an event price is an object"),
    "an unknown field": (HEAD + "    tial_days: 3\n", 6, "plans.pro.tial_days: is not a field"),
    "a field of the earlier shape": (HEAD + "    charge_amount: 3\n", 6, "belongs to the earlier shape"),
    "balances of the earlier shape": (HEAD + "    balances: []\n", 6, "belongs to the earlier shape"),
    "a code inside": (HEAD + "    code: pro\n", 6, "the name that the plan stands under"),
    "a code with a space": ('plans:\n  "a b": {}\n', 2, "printable ASCII"),
    "a missing field": ("plans:\n  pro:\n    name: Pro\n", 3, "plans.pro.renewal_denomination: is required"),
    "a wrong field": (HEAD + "    balances:\n      gb:\n        amount: -1\n", 8, "plans.pro.balances.gb.amount"),
    "a wrong sum": (HEAD + "    setup_fee: 7\n", 6, "plans.pro.setup_fee: a card can be charged"),
    "a wrong price": (HEAD + "    event_prices:\n    - {type: A, denomination: B}\n", 7, "plans.pro.event_prices[0]"),
    "a price twice": (
        "event_prices:\n- {type: A, denomination: B, amount: 1}\n- {type: A, denomination: B, amount: 2}\n",
        3,
        "A B stands in the list already",
    ),
    "a key twice": (HEAD + "  pro: {}\n", 6, "pro stands here a second time"),
    "a float": ("event_prices:\n- type: A\n  denomination: B\n  amount: 0.1\n", 4, 'put it in quotes: "0.1"'),
    "an exponent": ("event_prices:\n- type: A\n  amount: 1e3\n", 3, "not exact"),
    "no number": ("event_prices:\n- type: A\n  amount: .nan\n", 3, "not exact"),
    "a large number": (HEAD + f"    trial_days: {'9' * 5000}\n", 6, "larger than can be kept"),
    "a truth of old": (HEAD + "    rollover: yes\n", 6, "not the same to every reader"),
    "an octal": (HEAD + "    trial_days: 010\n", 6, "not the same to every reader"),
    "a date": (HEAD + "    flags: {since: 2024-01-01}\n", 6, "not the same to every reader"),
    "an anchor": ("plans: &a {}\n", 1, "anchors and aliases"),
    "an alias": ("plans: &a\n  x: *a\n", 1, "anchors and aliases"),
    "an anchored name": ("plans:\n  &a pro: {}\n", 2, "without anchor"),
    "a merge": ("plans:\n  pro:\n    <<: {}\n", 3, "merging"),
    "a tag": ("plans: !!python/object/apply:os.system ['true']\n", 1, "the tag"),
    "a tagged text": ("plans: {pro: {name: !!str 5}}\n", 1, "the tag"),
    "an object as a name": ("plans:\n  ? {a: b}\n  : {}\n", 2, "a name is a text"),
    "two documents": ("plans: {}\n---\nplans: {}\n", 2, "a second document"),
    "depths": ("plans: " + "[" * 100_000 + "\n", 1, "nested deeper"),
    "an open bracket": ("plans: {\n\n", 3, "this is no YAML"),
    "a tabulator": ("plans:\n\tpro: {}\n", 2, "this is no YAML"),
    "a bell": ("plans: {}\n# \a\n", 2, "this is no YAML"),
    "half a character": ('plans: {pro: {name: "\\ud800"}}\n', 1, ""),
    "no character": ('plans: {pro: {name: "\\UFFFFFFFF"}}\n', 1, ""),
    "NUL": ('plans: {pro: {name: "a\\0"}}\n', 1, "NUL"),
}


@pytest.mark.parametrize("parser", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)], ids=["py", "c"])
@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_meant_is_refused_at_its_line(
    case: str, parser: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the parser in C and with the one in Python, which is used where the other was not built."""
    monkeypatch.setattr(plan_files, "_PARSER", parser)
    text, line, why = BAD[case]
    with pytest.raises(FileRefused, match=rf"^plans\.yaml, line {line}: .*{re.escape(why)}"):
        catalog_of(Path("plans.yaml"), text)


@pytest.mark.parametrize("word", ["diff", "apply"])
def test_a_bad_file_ends_with_2_and_nothing_sent(tenuto: Says, company: Company, file: Path, word: str) -> None:
    company.plan(code="old")
    file.write_text(HEAD + "    trial_days: 0.1\n")
    told = tenuto(word, *(["--yes"] if word == "apply" else []))
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(f"tenuto: {file}, line 6: 0.1 is read as a binary fraction, which is not exact")
    assert sold(company).keys() == {"old"}


def test_a_file_that_cannot_be_read_is_told(tenuto: Says, file: Path) -> None:
    assert "cannot be read" in tenuto("diff").err
    file.write_bytes(b"plans: {}\n# \xff\n")
    assert "line 2: this is not UTF-8 text" in tenuto("diff").err
    file.write_bytes(b"# " + b"x" * 5_000_000)
    assert "larger than" in tenuto("diff").err
    assert tenuto("pull", url="http://127.0.0.1:1").code == 2


def test_a_file_that_cannot_be_written_leaves_the_old_one(tenuto: Says, company: Company, file: Path) -> None:
    (file.parent / f"{file.name}.new").mkdir()
    file.write_text(PRO)
    told = tenuto("pull")
    assert (told.code, told.out, file.read_text()) == (2, "", PRO)
    assert "cannot be written" in told.err


def test_words_of_a_company_do_not_move_the_terminal(tenuto: Says, company: Company, file: Path) -> None:
    company.plan(code="pro", name="\x1b[2Jwiped\u202e\r\n[red]:smiley:")
    file.write_text(PRO)
    told = tenuto("diff", FORCE_COLOR="1", TERM="xterm")
    assert "\x1b[33m~ plan pro" in told.out
    assert "[red]:smiley:" in told.out
    assert "\x1b[2J" not in told.out
    assert "\u202e" not in told.out
    assert "\x1b[" not in tenuto("diff").out
