"""What an invoice comes to, what pays it, and what happens when nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenuto.core import invoice as rules
from tenuto.core.event import AccountState
from tenuto.core.invoice import (
    Around,
    DunningStep,
    Invoice,
    InvoiceSettings,
    InvoiceTerms,
    Line,
    ManualLine,
    Moved,
    Paper,
    Posted,
    Standing,
    TaxRate,
    UsageGroup,
)
from tenuto.core.ledger import Balance, open_balance
from tenuto.core.money import AMOUNT_MAX, BALANCE_MAX, ZERO, Exact, allocate, round_half_up
from tenuto.core.outcomes import Refusal

NOW: Final = datetime(2030, 2, 1, tzinfo=UTC)
BERLIN: Final = ZoneInfo("Europe/Berlin")
LADDER: Final = (DunningStep(3, "remind"), DunningStep(14, "pause"), DunningStep(30, "credit_block"))
TERMS: Final = InvoiceTerms(
    account_id=7,
    environment_id=1,
    currency="USD",
    terms_days=30,
    grace=None,
    collection="send_invoice",
    taxes=None,
    memo="PO 7",
    invoiced_tick=100,
    anchor_at=NOW,
    number=0,
    last_at=NOW - timedelta(days=31),
    next_at=NOW,
    created_at=NOW - timedelta(days=31),
)
EMPTY: Final = rules.draft_of(TERMS, InvoiceSettings(), id=201, tick_to=200, period_end=NOW, now=NOW)


def bill(**fields: Any) -> Invoice:
    """An open invoice of 1000 cents."""
    usual: Mapping[str, Any] = {"status": "open", "subtotal": 1000, "total": 1000, "amount_due": 1000}
    return EMPTY._replace(**{**usual, **fields})


def holding(amount: int) -> AccountState:
    balance: Balance = open_balance("USD")._replace(amount=amount, seq=3)
    return AccountState(7, 1, 200, None, False, {"USD": balance}, {}, None)


def finalized(draft: Invoice, state: AccountState, lines: tuple[Line, ...] = (), **more: Any) -> rules.Finalized:
    settings = more.get("settings", InvoiceSettings(seller={"name": "Acme"}))
    return rules.finalize(
        state,
        draft,
        lines,
        paper=Paper("INV-000001", settings, {"name": "Ada"}),
        around=Around(more.get("posted_since", 0), more.get("waiting", 0)),
        now=more.get("now", NOW),
        zone=more.get("zone", UTC),
        tick=500,
    )


# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_company_that_set_nothing_has_the_defaults() -> None:
    settings = rules.settings_of({})
    assert settings == InvoiceSettings()
    assert (settings.prefix, settings.grace, settings.terms_days) == ("INV-", timedelta(hours=1), 30)
    assert (settings.taxes, settings.dunning, settings.currency) == ((), (), "USD")


def test_settings_are_read_from_what_is_kept() -> None:
    settings = rules.settings_of(
        {
            "invoicing": {
                "prefix": "A-",
                "grace_seconds": 0,
                "terms_days": 0,
                "seller": {"name": "Acme"},
                "taxes": [{"name": "VAT", "rate": "7.7", "inclusive": True}],
                "dunning": [{"days": 9, "action": "pause"}, {"days": 2, "action": "remind"}],
                "currency": "EUR",
                "footer": "Bye",
            }
        }
    )
    assert settings == InvoiceSettings(
        "A-",
        timedelta(0),
        0,
        {"name": "Acme"},
        (TaxRate("VAT", "7.7", is_inclusive=True),),
        (DunningStep(2, "remind"), DunningStep(9, "pause")),
        "EUR",
        "Bye",
    )


# --- lines ------------------------------------------------------------------------------------------------------------


def test_lines_say_what_was_posted() -> None:
    posted = Posted(
        (
            UsageGroup("chat", 3, "101", 2, Exact(505, 2)),
            UsageGroup("image", None, "1", 1, Exact(1, 4)),
            UsageGroup("chat", 2, "10", 1, Exact(-25, 1), is_reversal=True),
        ),
        -227,
        (Moved("adjustment", "an outage", 40), Moved("refill", "", -500), Moved("plan_fee", "Pro", -9)),
    )
    lines = rules.lines_of(posted, [ManualLine("Onboarding", 100)])
    assert [(line.position, line.kind, line.description, line.amount) for line in lines] == [
        (1, "usage", "chat", 252),
        (2, "usage", "image", 0),
        (3, "reversal", "chat, taken back", -25),
        (4, "adjustment", "Adjustment: an outage", -40),
        (5, "refill", "Refill", 500),
        (6, "plan_fee", "Plan fee: Pro", 9),
        (7, "manual", "Onboarding", 100),
    ]
    again = rules.with_manual(lines, [ManualLine("Discount", -5)])
    assert [line.description for line in again[-2:]] == ["Plan fee: Pro", "Discount"]


def test_usage_without_events_is_what_the_residue_came_to() -> None:
    (line,) = rules.lines_of(Posted((), -1, ()))
    assert (line.kind, line.amount) == ("usage", 1)
    assert rules.lines_of(Posted((), 0, ())) == ()


fractions = st.fractions(min_value=-50, max_value=50, max_denominator=60)


@given(st.lists(fractions, min_size=1, max_size=12), st.fractions(min_value=-1, max_value=1))
def test_parts_sum_to_the_whole_and_stay_within_a_unit(parts: list[Fraction], rest: Fraction) -> None:
    total = sum(parts, Fraction(0))
    # What a balance posted is less than one unit from the exact sum, on either side.
    whole = floor(total + rest) if rest >= 0 else ceil(total + rest)
    given_out = allocate(whole, [Exact(part.numerator, part.denominator) for part in parts])
    assert sum(given_out) == whole
    assert all(abs(part - amount) <= 1 for part, amount in zip(parts, given_out, strict=True))


def test_equal_remainders_go_by_position() -> None:
    half = Exact(1, 2)
    assert allocate(2, [half, half, half]) == (1, 1, 0)
    assert allocate(7, [ZERO, ZERO]) == (4, 3)
    assert allocate(0, []) == ()
    with pytest.raises(ValueError, match="to nobody"):
        allocate(1, [])


@pytest.mark.parametrize(("value", "nearest"), [((1, 2), 1), ((49, 100), 0), ((3, 2), 2), ((-1, 2), 0), ((7, 1), 7)])
def test_a_half_is_rounded_up(value: tuple[int, int], nearest: int) -> None:
    assert round_half_up(Exact(*value)) == nearest


# --- taxes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subtotal", "rates", "amounts"),
    [
        (1000, [("20", False)], [200]),
        (1000, [("20", True)], [167]),
        (125, [("20", True), ("5", True)], [20, 5]),
        (1001, [("7.5", False), ("0.1", False)], [75, 1]),
        (1250, [("25", True), ("10", False)], [250, 125]),
        (0, [("20", False)], [0]),
        (50, [("1", False)], [1]),
        (49, [("1", False)], [0]),
    ],
)
def test_taxes_are_rounded_once_each(subtotal: int, rates: list[tuple[str, bool]], amounts: list[int]) -> None:
    found = rules.taxes_of(subtotal, [TaxRate("VAT", rate, is_inclusive) for rate, is_inclusive in rates])
    assert [tax.amount for tax in found] == amounts
    assert rules.recomputed(subtotal, found) == found


def test_a_tax_from_outside_is_never_recomputed() -> None:
    taxes = rules.given_taxes([("VAT", 77)])
    assert rules.recomputed(5000, taxes) == taxes


def test_an_invoice_is_the_sum_of_its_lines_and_taxes() -> None:
    lines = (Line(1, "usage", "chat", 900), Line(2, "manual", "x", 350))
    taxes = rules.taxes_of(1250, [TaxRate("VAT", "25", is_inclusive=True), TaxRate("City", "10", is_inclusive=False)])
    found = rules.summed(EMPTY, lines, taxes)
    assert (found.subtotal, found.tax, found.tax_included, found.total, found.amount_due) == (
        1250,
        125,
        250,
        1375,
        1375,
    )
    assert found.remaining == 0  # a draft is not owed


def test_a_draft_has_the_grace_of_its_terms() -> None:
    assert EMPTY.finalize_at == NOW + timedelta(hours=1)
    terms = TERMS._replace(grace=timedelta(0))
    own = rules.draft_of(terms, InvoiceSettings(), id=201, tick_to=200, period_end=NOW, now=NOW)
    assert own.finalize_at == NOW


# --- final ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("balance", "posted_since", "waiting", "due"),
    [
        (-1000, 0, 0, 1200),  # the tax of 200 is posted first
        (-1300, -300, 0, 1200),  # used in the grace: the next invoice's
        (-600, 0, 0, 800),  # 400 were paid ahead
        (-1900, 0, 900, 1200),  # an earlier invoice waits for its own
        (5000, 0, 0, 0),  # all covered
        (-9000, 0, 0, 1200),  # never more than the total
    ],
)
def test_what_is_due_follows_from_the_position(balance: int, posted_since: int, waiting: int, due: int) -> None:
    draft = EMPTY._replace(subtotal=1000, tax=200, total=1200, amount_due=1200)
    final = finalized(draft, holding(balance), posted_since=posted_since, waiting=waiting)
    found = final.invoice
    assert (found.amount_due, found.applied) == (due, 1200 - due)
    assert found.status == ("open" if due else "paid")
    assert (found.paid_at is None) == bool(due)
    ((after, made),) = final.moves
    assert made is not None
    assert (made.book, made.type, made.amount, made.cause_id, made.id) == ("tax", "TAX", -200, 201, 501)
    assert (after.amount, final.tick) == (balance - 200, 501)


def test_manual_lines_are_posted_with_the_invoice() -> None:
    lines = (Line(1, "usage", "chat", 1000), Line(2, "manual", "Onboarding", 500))
    draft = rules.summed(EMPTY, lines, ())
    final = finalized(draft, AccountState(7, 1, 200, None, False, {}, {}, None), lines)
    ((after, made),) = final.moves
    assert made is not None
    assert (made.book, made.amount, after.amount) == ("invoice_item", -500, -500)
    # The balance never held the usage: nobody owes it.
    assert final.invoice.amount_due == 500


def test_a_final_invoice_is_numbered_dated_and_signed() -> None:
    settings = InvoiceSettings(seller={"name": "Acme"}, dunning=LADDER)
    at = datetime(2030, 3, 1, 12, tzinfo=UTC)
    draft = bill(status="draft", collection="charge_automatically")
    found = finalized(draft, holding(-1000), settings=settings, now=at, zone=BERLIN).invoice
    assert (found.number, found.seller, found.customer) == ("INV-000001", {"name": "Acme"}, {"name": "Ada"})
    # Thirty days later by the clocks of Berlin, where summer time has begun on the last day.
    assert found.due_at == datetime(2030, 3, 31, 11, tzinfo=UTC)
    assert found.next_dunning_at == datetime(2030, 4, 3, 11, tzinfo=UTC)
    assert found.next_collection_at == at
    covered = finalized(draft, holding(5000), settings=settings).invoice
    assert (covered.next_dunning_at, covered.next_collection_at) == (None, None)
    assert rules.spelled_number("A/", 1_234_567) == "A/1234567"


# --- what pays what ---------------------------------------------------------------------------------------------------


def test_money_pays_the_oldest_first() -> None:
    first, second, third = bill(id=1), bill(id=2, amount_due=300, applied=700), bill(id=3)
    settled = rules.settle([first, second, third], 1500, now=NOW)
    assert [(after.id, after.status, part) for after, part in settled] == [
        (1, "paid", 1000),
        (2, "paid", 300),
        (3, "open", 200),
    ]
    assert settled[0][0].paid_at == NOW
    assert settled[2][0].remaining == 800
    assert rules.settle([first], 0, now=NOW) == []
    assert rules.settle([bill(amount_paid=1000)], 5, now=NOW) == []


def test_credit_notes_take_from_what_remains() -> None:
    part = rules.credited(bill(amount_paid=300), 400, before=0, now=NOW)
    assert (part.status, part.amount_credited, part.remaining) == ("open", 400, 300)
    done = rules.credited(part, 500, before=400, now=NOW)
    assert (done.status, done.amount_credited, done.remaining) == ("paid", 700, 0)
    assert rules.credited(bill(status="paid", amount_paid=1000), 1000, before=0, now=NOW).amount_credited == 0


def test_a_credit_note_takes_nothing_that_was_refunded() -> None:
    paid = bill(status="paid", amount_paid=1000)
    assert rules.credited(paid, 300, before=300, refunded=400, now=NOW) == paid
    for before, refunded, creditable in ((300, 400, 300), (1000, 0, 0), (800, 400, 0)):
        with pytest.raises(Refusal, match="more than the invoice") as refused:
            rules.credited(paid, creditable + 1, before=before, refunded=refunded, now=NOW)
        assert refused.value.details == {"creditable": creditable, "required": creditable + 1, "refunded": refunded}


def test_what_was_given_up_is_paid_like_the_others() -> None:
    settled = rules.settle([bill(id=1, status="uncollectible"), bill(id=2)], 1500, now=NOW)
    assert [(after.id, after.status, part) for after, part in settled] == [(1, "paid", 1000), (2, "open", 500)]
    (part,) = rules.settle([bill(status="uncollectible")], 400, now=NOW)
    assert part[0].status == "uncollectible"


def test_a_capture_is_cleared_unless_it_may_be_paid_at_this_moment() -> None:
    capture = rules.capture_of(bill(), 900, id=300, now=NOW, is_suspended=False, description="Invoice")
    skipped = rules.cleared(capture._replace(status="skipped"), now=NOW)
    assert (skipped.status, skipped.slot, skipped.next_attempt_at) == ("voided", None, None)
    waiting = rules.cleared(capture._replace(status="created", declines=1, intent_id="pi_1"), now=NOW)
    assert (waiting.status, waiting.slot, waiting.next_attempt_at) == ("voiding", None, NOW)
    for status in ("intended", "created", "confirming", "processing", "voiding"):
        with pytest.raises(Refusal) as refused:
            rules.cleared(capture._replace(status=status), now=NOW)
        assert refused.value.code == "payment_in_progress"


@pytest.mark.parametrize(
    ("amount", "manual", "tax", "is_within"),
    [
        (0, 100, 100, True),
        (200 - BALANCE_MAX, 100, 100, True),
        (199 - BALANCE_MAX, 100, 100, False),
        (99 - BALANCE_MAX, 100, 0, False),
        (BALANCE_MAX, -1, 1, False),
    ],
)
def test_a_draft_posts_within_the_range_of_a_balance(amount: int, manual: int, tax: int, *, is_within: bool) -> None:
    draft, lines = bill(status="draft", tax=tax), (Line(1, "usage", "chat", 5), Line(2, "manual", "more", manual))
    assert rules.posts_within(holding(amount), draft, lines) is is_within
    assert rules.posts_within(holding(amount), draft._replace(currency="EUR"), lines)
    if not is_within:
        with pytest.raises(Refusal) as refused:
            rules.must_stay_in_range(holding(amount), draft, lines)
        assert (refused.value.code, refused.value.details) == ("out_of_range", {"path": "lines"})


@pytest.mark.parametrize(
    ("subtotal", "total", "is_taxed", "path"),
    [
        (AMOUNT_MAX, AMOUNT_MAX, True, None),
        (AMOUNT_MAX, AMOUNT_MAX + 1, False, "lines"),
        (AMOUNT_MAX, AMOUNT_MAX + 1, True, "taxes"),
        (AMOUNT_MAX + 1, AMOUNT_MAX + 1, True, "lines"),
    ],
)
def test_what_a_company_writes_stays_within_an_amount(
    subtotal: int, total: int, path: str | None, *, is_taxed: bool
) -> None:
    draft = bill(status="draft", subtotal=subtotal, total=total)
    if path is None:
        rules.must_stay_in_range(holding(0), draft, (), is_taxed=is_taxed)
        return
    with pytest.raises(Refusal) as refused:
        rules.must_stay_in_range(holding(0), draft, (), is_taxed=is_taxed)
    assert (refused.value.code, refused.value.details) == ("out_of_range", {"path": path})
    rules.must_stay_in_range(holding(0), draft, (), most=BALANCE_MAX, is_taxed=is_taxed)


@given(st.lists(st.integers(1, 400), max_size=8), st.integers(0, 1000))
def test_credit_notes_never_come_to_more_than_the_invoice(amounts: list[int], paid: int) -> None:
    found, sum_of_notes = bill(amount_paid=paid), 0
    for amount in amounts:
        if sum_of_notes + amount > 1000:
            with pytest.raises(Refusal, match="more than the invoice"):
                rules.credited(found, amount, before=sum_of_notes, now=NOW)
            continue
        found = rules.credited(found, amount, before=sum_of_notes, now=NOW)
        sum_of_notes += amount
        assert found.remaining >= 0
    rest = 1000 - sum_of_notes
    if rest:
        found = rules.credited(found, rest, before=sum_of_notes, now=NOW)
    assert found.remaining == 0


@pytest.mark.parametrize("status", ["draft", "void"])
def test_what_is_not_final_is_not_credited_or_paid(status: Any) -> None:
    for wrong in (
        lambda: rules.credited(bill(status=status), 1, before=0, now=NOW),
        lambda: rules.must_be_payable(bill(status=status)),
        lambda: rules.voided(bill(status=status), now=NOW),
        lambda: rules.given_up(bill(status=status)),
    ):
        with pytest.raises(Refusal) as refused:
            wrong()
        assert refused.value.code == "invoice_not_open"


def test_what_is_paid_is_neither_void_nor_paid_again() -> None:
    for wrong in (
        lambda: rules.voided(bill(amount_paid=1), now=NOW),
        lambda: rules.must_be_payable(bill(status="paid")),
    ):
        with pytest.raises(Refusal) as refused:
            wrong()
        assert refused.value.code == "invoice_settled"
    rules.must_be_payable(bill())


def test_a_void_invoice_asks_for_nothing() -> None:
    found = rules.voided(bill(next_dunning_at=NOW, next_collection_at=NOW), now=NOW)
    assert (found.status, found.remaining, found.voided_at) == ("void", 0, NOW)
    assert (found.next_dunning_at, found.next_collection_at) == (None, None)


def test_one_that_is_given_up_is_not_asked_for() -> None:
    found = rules.given_up(bill(next_dunning_at=NOW, next_collection_at=NOW))
    assert (found.status, found.remaining, found.next_dunning_at, found.next_collection_at) == (
        *("uncollectible", 1000),
        *(None, None),
    )


def test_units_go_back_on_the_balance() -> None:
    after, made = rules.put_back(
        holding(-1000), bill(), 300, id=9, cause_id=8, book="credit_note", said="CN-000001", now=NOW
    )
    assert (after.amount, made.amount, made.book, made.cause_id) == (-700, 300, "credit_note", 8)


def test_a_collection_is_all_that_remains_of_invoices_charged_by_themselves() -> None:
    mine = bill(collection="charge_automatically", amount_paid=100)
    assert rules.collectable([mine, bill(), mine]) == 1800
    payment = rules.capture_of(mine, 900, id=300, now=NOW, is_suspended=False, description="Invoice INV-000001")
    assert (payment.status, payment.slot, payment.amount, payment.units) == ("intended", "invoice:USD", 900, 900)
    assert payment.next_attempt_at == NOW
    kept = rules.capture_of(mine, 900, id=300, now=NOW, is_suspended=True, description="Invoice INV-000001")
    assert (kept.status, kept.next_attempt_at) == ("skipped", None)


# --- dunning ----------------------------------------------------------------------------------------------------------

SETTINGS: Final = InvoiceSettings(dunning=LADDER)


@pytest.mark.parametrize(
    ("days", "step", "actions", "after", "next_day"),
    [
        (2, 0, [], 0, 3),
        (3, 0, ["remind"], 1, 14),
        (14, 1, ["pause"], 2, 30),
        (40, 0, ["remind", "pause", "credit_block"], 3, None),
        (40, 3, [], 3, None),
    ],
)
def test_the_ladder_is_climbed_by_days(
    days: int, step: int, actions: list[str], after: int, next_day: int | None
) -> None:
    found, done = rules.dun(bill(due_at=NOW, dunning_step=step), SETTINGS, now=NOW + timedelta(days=days), zone=UTC)
    assert done == actions
    assert found.dunning_step == after
    assert found.next_dunning_at == (None if next_day is None else NOW + timedelta(days=next_day))


def test_what_is_paid_is_not_dunned() -> None:
    found, done = rules.dun(bill(status="paid", due_at=NOW, next_dunning_at=NOW), SETTINGS, now=NOW, zone=UTC)
    assert (found.next_dunning_at, done) == (None, [])


def test_dunning_changes_what_is_not_changed_yet() -> None:
    free = Standing(None, None, is_past_due=True, owed=1000, credit_limit=0)
    assert rules.punished(free, ["remind"], NOW) == {}
    assert rules.punished(free, ["pause", "credit_block"], NOW) == {
        "paused_at": NOW,
        "paused_by": "dunning",
        "credit_blocked_at": NOW,
        "credit_blocked_by": "dunning",
    }
    closed = Standing("manual", "manual", is_past_due=True, owed=1000, credit_limit=0)
    assert rules.punished(closed, ["pause", "credit_block"], NOW) == {}


_UNPAUSED: Final = {"paused_at": None, "paused_by": None}
_UNBLOCKED: Final = {"credit_blocked_at": None, "credit_blocked_by": None}


@pytest.mark.parametrize(
    ("standing", "lifted"),
    [
        (Standing("dunning", "dunning", is_past_due=False, owed=0, credit_limit=0), _UNPAUSED | _UNBLOCKED),
        (Standing("dunning", "dunning", is_past_due=True, owed=50, credit_limit=100), _UNBLOCKED),
        (Standing("dunning", "dunning", is_past_due=True, owed=100, credit_limit=100), None),
        (Standing("manual", "manual", is_past_due=False, owed=0, credit_limit=0), None),
        (Standing(None, None, is_past_due=False, owed=0, credit_limit=0), None),
    ],
)
def test_payment_undoes_what_dunning_did_and_nothing_else(standing: Standing, lifted: dict[str, object] | None) -> None:
    assert rules.relief(standing) == lifted
