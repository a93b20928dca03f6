"""The decision about usage, as lives of an account. The notation is told in ``ledger_language``."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal

import pytest

from tenuto.core.event import AccountState, Charge, Event, GatedEvent, UsageEvent
from tenuto.core.ledger import Transaction
from tenuto.core.money import exact
from tenuto.core.outcomes import Refusal
from tests.core.account_life import ACCOUNT_ID, CANCEL, START, Life, event, settle_for
from tests.core.ledger_language import expected, live

GATE = {
    "exactly enough is allowed, and nothing after it": """
        price CHAT 3 in credits
        balance credits 6
        CHAT gated                        -> credits 3
        CHAT gated                        -> credits 0
        CHAT gated                        -> 402 insufficient_balance credits: 0 available, 3 required, 3 short
        record                            -> CHAT 1 insufficient_balance
    """,
    "a fraction more than is there is refused, exactly as much is not": """
        price READ 15 per 1500000 in USD
        balance USD 1
        READ 99999 gated                  -> USD 1 + 99999/100000
        READ 2 gated                      -> 402 insufficient_balance USD: 1 available, 2 required, 1 short
        READ 1 gated                      -> USD 0
        READ 1 gated                      -> 402 insufficient_balance USD: 0 available, 1 required, 1 short
    """,
    "what is owed already counts: residue and cost together against what is available": """
        price READ 0.5 in USD
        balance USD 1 residue 3/5
        READ gated                        -> 402 insufficient_balance USD: 1 available, 2 required, 1 short
    """,
    "residue and cost may reach the last unit": """
        price READ 0.4 in USD
        balance USD 1 residue 3/5
        READ gated                        -> USD 0
    """,
    "without the gate every event is billed, below zero too": """
        price CHAT 3 in credits
        balance credits 1
        CHAT                              -> credits -2
        CHAT                              -> credits -5
        CHAT gated                        -> 402 insufficient_balance credits: -5 available, 3 required, 8 short
        CHAT                              -> credits -8
    """,
    "a free event passes at the floor and is refused below it": """
        price CHAT 3 in credits
        price PING 0 in credits
        balance credits 3
        CHAT                              -> credits 0
        PING gated                        -> credits 0
        CHAT                              -> credits -3
        PING gated                        -> 402 insufficient_balance credits: -3 available, 0 required, 3 short
        PING                              -> credits -3
    """,
    "a fraction owed at the floor does not refuse a free event": """
        price PING 0 in USD
        balance USD 0 residue 2/5
        PING gated                        -> USD 0 + 2/5
    """,
    "a free event is judged against the floor that the credit limit sets": """
        price CHAT 3 in USD
        price PING 0 in USD
        balance USD 0 limit 5
        CHAT                              -> USD -3
        PING gated                        -> USD -3
        CHAT                              -> USD -6
        PING gated                        -> 402 credit_limit_reached USD: -6 available, 0 required, 1 short
    """,
    "an override of nothing has a denomination, so the floor holds for it": """
        balance credits -1
        CHAT for 0 credits gated          -> 402 insufficient_balance credits: -1 available, 0 required, 1 short
    """,
    "an unpriced event is never refused": """
        balance credits -5
        LOGIN gated                       -> recorded
        LOGIN gated pending               -> recorded
    """,
    "an account without a balance of the denomination has nothing": """
        price CHAT 3 in credits
        CHAT gated                        -> 402 insufficient_balance credits: 0 available, 3 required, 3 short
        CHAT                              -> credits -3
    """,
    "units allowed free in the month are as good as a free event": """
        price CHAT 3 in credits free 2
        balance credits 0
        CHAT 2 gated                      -> credits 0
        CHAT gated                        -> 402 insufficient_balance credits: 0 available, 3 required, 3 short
    """,
    "a refused event moves no counter": """
        price CHAT 3 in credits free 2
        balance credits 0
        CHAT 3 gated                      -> 402 insufficient_balance credits: 0 available, 3 required, 3 short
        CHAT 2 gated                      -> credits 0
    """,
    "the gate uses the balance of now, whenever the event occurred": """
        price CHAT 3 in credits
        balance credits 3
        CHAT gated at -30d                -> credits 0
        CHAT gated at -30d                -> 402 insufficient_balance credits: 0 available, 3 required, 3 short
    """,
}

LIMITS = {
    "the balance's own limit comes before the account's, the account's before the company's": """
        price CHAT 1 in USD
        company limit 2
        balance USD 0
        CHAT 2 gated                      -> USD -2
        CHAT gated                        -> 402 credit_limit_reached USD: -2 available, 1 required, 1 short
        limit 3
        CHAT gated                        -> USD -3
        CHAT gated                        -> 402 credit_limit_reached USD: -3 available, 1 required, 1 short
    """,
    "a balance with a limit of its own heeds no other": """
        price CHAT 1 in USD
        company limit 20
        limit 30
        balance USD 0 limit 1
        CHAT gated                        -> USD -1
        CHAT gated                        -> 402 credit_limit_reached USD: -1 available, 1 required, 1 short
    """,
    "an account's limit of zero closes what the company would lend": """
        price CHAT 1 in USD
        company limit 20
        limit 0
        balance USD 0
        CHAT gated                        -> 402 insufficient_balance USD: 0 available, 1 required, 1 short
    """,
    "account and company lend money, not tokens": """
        price CHAT 1 in credits
        company limit 20
        limit 20
        balance credits 0
        CHAT gated                        -> 402 insufficient_balance credits: 0 available, 1 required, 1 short
    """,
    "a token balance may have a limit of its own": """
        price CHAT 1 in credits
        balance credits 0 limit 1
        CHAT gated                        -> credits -1
        CHAT gated                        -> 402 credit_limit_reached credits: -1 available, 1 required, 1 short
    """,
    "a limit is lent to a balance that does not exist yet": """
        price CHAT 1 in USD
        limit 1
        CHAT gated                        -> USD -1
        CHAT gated                        -> 402 credit_limit_reached USD: -1 available, 1 required, 1 short
    """,
}

PRICES = {
    "an override is a total, not a price of one unit, and needs no price": """
        price CHAT 3 in credits
        balance credits 10
        balance USD 10
        CHAT 4 for 5 USD                  -> USD 5
        CHAT 1 for 5 USD                  -> USD 0
        LOGIN for 1 credits               -> credits 9
        ledger USD                        -> 1 event -5, 2 event -5 at 5
    """,
    "an event without a price is only recorded": """
        LOGIN as login                    -> recorded
        event login                       -> complete: 1 for nothing
    """,
    "an event may carry a cost of goods sold, which is never charged": """
        price CHAT 3 in credits
        balance credits 10
        MODEL cogs 7 USD as model         -> recorded
        CHAT cogs 2 USD as chat           -> credits 7
        event model                       -> complete: 1 for nothing, cogs 7 USD
        event chat                        -> complete: 1 for 3 credits, cogs 2 USD
    """,
    "an event that was cancelled when it was pushed costs nothing": """
        price CHAT 3 in credits
        balance credits -1
        CHAT cancelled as a               -> recorded
        CHAT cancelled gated as b         -> recorded
        event a                           -> cancelled (pushed): 1 for nothing
        complete a                        -> refused event_finished
        delete a                          -> refused event_finished
    """,
    "a price in each of two denominations debits both": """
        price CHAT 3 in credits
        price CHAT 0.5 in USD
        balance credits 10
        balance USD 1
        CHAT gated                        -> USD 1 + 1/2, credits 7
        CHAT gated                        -> USD 0, credits 4
        CHAT gated                        -> 402 insufficient_balance USD: 0 available, 1 required, 1 short
        CHAT                              -> USD 0 + 1/2, credits 1
        CHAT pending as hold              -> USD 0 (1 held) + 1/2, credits 1 (3 held)
        complete hold quantity 0.5        -> USD 0 + 3/4, credits 0 + 1/2
    """,
    "what one balance covers is not taken when another is short": """
        price CHAT 1 in GBP
        price CHAT 3 in credits
        balance GBP 5
        balance credits 2
        CHAT gated                        -> 402 insufficient_balance credits: 2 available, 3 required, 1 short
        CHAT pending gated                -> 402 insufficient_balance credits: 2 available, 3 required, 1 short
        ledger GBP                        -> nothing
    """,
    "a cost given to a hold on two balances speaks for the first and frees the other": """
        price CHAT 3 in credits
        price CHAT 2 in USD
        balance credits 10
        balance USD 10
        CHAT pending as hold              -> USD 10 (2 held), credits 10 (3 held)
        complete hold cost 1              -> USD 9, credits 10
    """,
}

LISTS = {
    "all or nothing, judged in order with running balances; each refused one is kept": """
        price CHAT 3 in credits
        balance credits 7
        CHAT gated; CHAT gated; CHAT gated; CHAT 2 gated
                                          -> 402 [2] insufficient_balance credits: 1 available, 3 required, 2 short
                                            | [3] insufficient_balance credits: 1 available, 6 required, 5 short
        ledger credits                    -> nothing
        record                            -> CHAT 1 insufficient_balance, CHAT 2 insufficient_balance
        CHAT gated; CHAT gated            -> credits 1
    """,
    "a refused event takes nothing from those behind it": """
        price CHAT 3 in credits
        balance credits 4
        CHAT 2 gated; CHAT gated          -> 402 [0] insufficient_balance credits: 4 available, 6 required, 2 short
    """,
    "ungated neighbours are not billed either": """
        price CHAT 3 in credits
        balance credits 4
        CHAT; LOGIN; CHAT gated           -> 402 [2] insufficient_balance credits: 1 available, 3 required, 2 short
        ledger credits                    -> nothing
    """,
    "an ungated event in front of a gated one takes its money": """
        price CHAT 3 in credits
        balance credits 5
        CHAT gated; CHAT                  -> credits -1
        CHAT; CHAT gated                  -> 402 [1] insufficient_balance credits: -4 available, 3 required, 7 short
    """,
    "one request, one transaction of each denomination": """
        price CHAT 3 in credits
        price SMS 2 in USD
        balance credits 10
        balance USD 10
        CHAT; SMS; CHAT; LOGIN; SMS       -> credits 4 | USD 6 | credits 4 | recorded | USD 6
        ledger credits                    -> 1 event -6 at 3
        ledger USD                        -> 1 event -4 at 2
    """,
    "events at different prices have no common unit cost": """
        price CHAT 3 in credits
        price SMS 2 in credits
        balance credits 10
        CHAT; SMS                         -> credits 5
        CHAT for 3 credits; CHAT          -> credits -1
        ledger credits                    -> 1 event -5, 2 event -6 at 3
    """,
    "where no whole unit moves, no transaction is written": """
        price READ 0.4 in USD
        balance USD 10
        READ                              -> USD 10 + 2/5
        READ                              -> USD 10 + 4/5
        READ; READ                        -> USD 9 + 3/5
        ledger USD                        -> 1 event -1 at 2/5
    """,
    "the balance in an answer is the one after its own request": """
        price CHAT 3 in credits
        balance credits 10
        CHAT; CHAT                        -> credits 4
        CHAT                              -> credits 1
    """,
}

TIMES = {
    "as late as 35 days, as early as 5 minutes, to the microsecond": """
        price CHAT 3 in credits
        balance credits 20
        CHAT at -35d                      -> credits 17
        CHAT at -3024000.000001s          -> refused too_late at events[0].occurred_at
        CHAT at +5m                       -> credits 14
        CHAT at +300.000001s              -> refused in_future at events[0].occurred_at
        CHAT; CHAT at -36d                -> refused too_late at events[1].occurred_at
        CHAT cancelled at -36d            -> refused too_late at events[0].occurred_at
        LOGIN at +1h                      -> refused in_future at events[0].occurred_at
    """,
    "a refused time uses up no key": """
        price CHAT 3 in credits
        balance credits 20
        CHAT key k at +1h                 -> refused in_future at events[0].occurred_at
        CHAT key k                        -> credits 17
    """,
}

BOUNDS = {
    "one event may cost 10^15, not more": """
        price CHAT 1000000000000000 in credits
        price TIER graduated rest:1000000000000000 in credits
        balance credits 0
        CHAT                              -> credits -1000000000000000
        CHAT 1.000000001                  -> refused out_of_range at events[0].quantity
        LOGIN; CHAT 2                     -> refused out_of_range at events[1].quantity
        TIER                              -> credits -2000000000000000
        TIER 2                            -> refused out_of_range at events[0].quantity
    """,
    "a balance ends at 8 * 10^18, downwards too": """
        price CHAT 1000000000000000 in credits
        balance credits -7999000000000000000
        CHAT                              -> credits -8000000000000000000
        CHAT for 1 credits                -> refused balance_out_of_range
        CHAT for 0 credits                -> credits -8000000000000000000
    """,
}

LIVES = GATE | LIMITS | PRICES | LISTS | TIMES | BOUNDS


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
def test_life(life: str) -> None:
    assert live(life) == expected(life)


def test_ids_rise_from_the_present_and_never_fall_behind_the_account() -> None:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    first = life.push(event("CHAT"), event("CHAT"))
    present = int(START.timestamp()) * 10**6
    assert [made.id for made in first.events] == [present, present + 1]
    assert [made.posting for made in first.events] == [present, present]
    assert [row.id for row in first.transactions] == [present + 2]
    second = life.push(event("CHAT"))
    assert second.events[0].posting > first.transactions[0].id


def test_a_transaction_says_what_it_is_made_of() -> None:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    life.open("credits", 20)
    decision = life.push(event("LOGIN"), event("CHAT"), event("CHAT", "2"), event("CHAT"))
    (row,) = decision.transactions
    assert row == Transaction(
        id=decision.events[-1].id + 1,
        denomination="credits",
        seq=1,
        book="usage",
        type="EVENT",
        description="3 events",
        amount=-12,
        starting_balance=20,
        ending_balance=8,
        recorded_at=START,
        unit_cost=exact("3"),
        first_event_id=decision.events[1].id,
        event_count=3,
    )
    assert life.push(event("CHAT")).transactions[0].description == "1 event"


def test_an_event_keeps_all_that_was_reported() -> None:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    properties = {"model": "large"}
    reported = event(
        "CHAT",
        "2.50",
        gated=True,
        key="k",
        properties=properties,
        occurred_at=START - timedelta(days=1),
        cogs=(7, "USD"),
    )._replace(tag="revenue", parent_event_id=5)
    life.open("credits", 20)
    (kept,) = life.push(reported).events
    assert kept.charges == (
        Charge("credits", 7, kept.charges[0].cost, 1, None, None, kept.id + 1, 1, 13, 0, kept.charges[0].residue),
    )
    assert kept._replace(charges=()) == Event(
        account_id=ACCOUNT_ID,
        id=kept.id,
        posting=kept.id,
        type="CHAT",
        quantity="2.50",
        state="complete",
        gated=True,
        key="k",
        key_digest=reported.key_digest,
        fingerprint=reported.fingerprint,
        tag="revenue",
        occurred_at=START - timedelta(days=1),
        recorded_at=START,
        metadata='{"model": "large"}',
        cogs_amount=7,
        cogs_denomination="USD",
        parent_event_id=5,
    )


def test_a_refused_event_is_kept_whole_with_its_refusal_and_its_request() -> None:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    refused = event("CHAT", gated=True, key="k", occurred_at=START - timedelta(days=1))
    decision = life.push(refused)
    (kept,) = decision.gated
    assert kept == GatedEvent(
        account_id=ACCOUNT_ID,
        id=int(START.timestamp()) * 10**6,
        event=refused,
        occurred_at=START - timedelta(days=1),
        recorded_at=START,
        code="insufficient_balance",
        details={"denomination": "credits", "available": 0, "pending": 0, "required": 3, "shortfall": 3},
        request_id="r1",
    )
    assert decision.refusals == decision.answers == (kept,)
    assert decision.state.has_refusals
    assert decision.state.balances == {}


def test_a_refused_time_says_how_much_is_accepted() -> None:
    life = Life()
    for occurred_at, details in (
        (START + timedelta(hours=1), {"path": "events[0].occurred_at", "ahead_seconds": 300}),
        (START - timedelta(days=36), {"path": "events[0].occurred_at", "late_seconds": 35 * 86400}),
    ):
        with pytest.raises(Refusal) as refused:
            life.push(event("LOGIN", occurred_at=occurred_at))
        assert refused.value.details == details


# --- accounts that are paused or blocked ------------------------------------------------------------------------------

Bar = Literal["account_paused", "credit_blocked"]
BARS: Final[tuple[Bar, ...]] = ("account_paused", "credit_blocked")
BARRED: Final[dict[str, tuple[UsageEvent, int | None]]] = {
    # what is left of 100 credits; None: refused
    "well covered, gated": (event("CHAT", gated=True), None),
    "free, gated": (event("PING", gated=True), None),
    "without a price, gated": (event("LOGIN", gated=True), None),
    "for an override of nothing, gated": (event("LOGIN", gated=True, override=(0, "credits")), None),
    "a hold, gated": (event("CHAT", gated=True, state="pending"), None),
    "cancelled when it is pushed, gated": (event("CHAT", gated=True, state="cancelled"), None),
    "not gated": (event("CHAT"), 97),
    "more than there is, not gated": (event("CHAT", "40"), -20),
    "a hold, not gated": (event("CHAT", state="pending"), 97),
    "without a price, not gated": (event("LOGIN"), 100),
    "cancelled when it is pushed, not gated": (event("CHAT", state="cancelled"), 100),
}


def barred(bar: Bar | None, **limits: int) -> Life:
    life = Life(account_limit=limits.get("limit"))
    life.price("CHAT", "credits", {"amount": "3"})
    life.price("PING", "credits", {"amount": "0"})
    life.open("credits", 100)
    life.stored = life.stored._replace(bar=bar)
    return life


@pytest.mark.parametrize("bar", BARS)
@pytest.mark.parametrize(("pushed", "left"), BARRED.values(), ids=BARRED.keys())
def test_a_barred_account_refuses_what_is_gated_whatever_it_costs(
    pushed: UsageEvent, left: int | None, bar: Bar
) -> None:
    life = barred(bar)
    decision = life.push(pushed)
    assert life.stored.bar == bar, "until somebody lifts it"
    if left is None:
        (refused,) = decision.refusals
        assert (refused.code, refused.details, refused.event) == (bar, {}, pushed)
        assert (life.gated, life.events, life.available("credits")) == ([refused], {}, 100)
    else:
        assert not decision.refusals
        assert (len(life.events), life.available("credits")) == (1, left)


@pytest.mark.parametrize("pushed", [pushed for pushed, _ in BARRED.values()], ids=BARRED.keys())
def test_an_account_without_a_bar_takes_the_same_events(pushed: UsageEvent) -> None:
    life = barred(None)
    if pushed.quantity_text == "1":
        assert not life.push(pushed._replace(gated=True)).refusals
    assert not life.push(pushed._replace(gated=False)).refusals


def test_a_bar_speaks_before_the_balance_and_no_credit_limit_lifts_it() -> None:
    life = barred("credit_blocked", limit=10**6)
    assert [refused.code for refused in life.push(event("CHAT", "99", gated=True)).refusals] == ["credit_blocked"]
    life.stored = life.stored._replace(bar=None)
    assert [refused.code for refused in life.push(event("CHAT", "99", gated=True)).refusals] == ["insufficient_balance"]


def test_a_barred_list_is_refused_whole_and_each_gated_event_of_it_is_kept() -> None:
    life = barred("account_paused")
    decision = life.push(event("CHAT"), event("PING", gated=True), event("LOGIN"), event("CHAT", gated=True))
    assert [
        None if answer is None else answer.event.type for answer in decision.answers if not isinstance(answer, Event)
    ] == [
        None,
        "PING",
        None,
        "CHAT",
    ]
    assert {refused.code for refused in life.gated} == {"account_paused"}
    assert (life.events, life.available("credits")) == ({}, 100)


def test_a_known_key_is_answered_from_before_the_bar_and_a_refused_one_after_it() -> None:
    life = barred(None)
    billed = life.push(event("CHAT", gated=True, key="before")).answers
    life.stored = life.stored._replace(bar="account_paused")
    again = life.push(event("CHAT", gated=True, key="before"))
    assert (again.is_replay, again.answers) == (True, billed)
    refused = life.push(event("CHAT", gated=True, key="during")).answers
    life.stored = life.stored._replace(bar=None)
    assert life.push(event("CHAT", gated=True, key="during")).answers == refused
    assert life.available("credits") == 97


@pytest.mark.parametrize("bar", BARS)
def test_what_began_before_a_bar_ends_under_it(bar: Bar) -> None:
    life = barred(None)
    held = [life.push(event("CHAT", gated=True, state="pending")).events[0].id for _ in range(4)]
    life.stored = life.stored._replace(bar=bar)
    life.finish(held[0], settle_for(quantity="0.5"))
    life.finish(held[1], CANCEL)
    life.void(held[2])
    life.wait(timedelta(hours=1))
    assert len(life.sweep()) == 1
    assert (life.stored.bar, life.amount("credits")) == (bar, 99)


def test_an_account_is_not_barred_unless_somebody_says_so() -> None:
    assert AccountState(ACCOUNT_ID, 1, 0, None, False, {}, {}, None).bar is None
