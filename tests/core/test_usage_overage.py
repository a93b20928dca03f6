"""Plans as usage meets them: overage, spend caps, prices and periods that are not the company's.

Each row is the life of an account in the lines of ``ledger_language``; ``Life`` audits itself after each of them.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from tenuto.core.event import OverageOf, plan_terms_of
from tenuto.core.money import Exact
from tenuto.core.outcomes import Refusal
from tests.core.account_life import PLAN_VERSION_ID, Life, event, settle_for
from tests.core.ledger_language import expected, live

# 10 USD a month include 10 GB and 60 minutes; a further GB is 1 USD, a further minute 0.50 USD (contract 2.5).
WORKED = """
    plan storage_gb 100 into USD compute_minutes 50 into USD
    price STORE 1 in storage_gb
    price RUN 1 in compute_minutes
    balance storage_gb 10
    balance compute_minutes 60
    balance USD 1000
"""

OVERAGE = {
    "the worked plan: what is included is used, what is over is charged, exactly": f"""
        {WORKED}
        STORE 7 gated                -> storage_gb 3
        STORE 5 gated as a           -> storage_gb 0, USD 800
        RUN 61 gated                 -> compute_minutes 0, USD 750
        STORE 1 gated as b           -> storage_gb 0, USD 650
        event a                      -> complete: 5 for 3 storage_gb and 200 USD
        event b                      -> complete: 1 for 0 storage_gb and 100 USD
        ledger storage_gb            -> 1 event -7 at 1, 2 event -3 at 1
        ledger USD                   -> 1 overage -200 at 100, 2 overage -50 at 50, 3 overage -100 at 100
    """,
    "terms agreed with the account take the place of the plan's": """
        plan agreed credits 3 into USD
        price CHAT 1 in credits
        balance credits 1
        balance USD 10
        CHAT 3 gated                 -> credits 0, USD 4
    """,
    "a balance that the plan names without a price for more goes below zero as ever": """
        plan credits
        price CHAT 1 in credits
        balance credits 1
        CHAT 3                       -> credits -2
        CHAT gated                   -> 402 insufficient_balance credits: -2 available, 1 required, 3 short
    """,
    "a part of a unit is charged exactly, and what is carried counts as used": """
        plan credits 100 into USD
        price READ 0.3 in credits
        balance credits 1 residue 1/5
        balance USD 1000
        READ 2 gated                 -> credits 1 + 4/5
        READ 1 gated as a            -> credits 0, USD 990
        event a                      -> complete: 1 for 1/5 credits and 10 USD
        READ 1 gated                 -> credits 0, USD 960
    """,
    "a balance that is below zero already covers nothing": """
        plan credits 2 into USD
        price CHAT 1 in credits
        balance credits -5
        balance USD 9
        CHAT 2 gated                 -> credits -5, USD 5
    """,
    "the credit of the balance itself does not count": """
        plan credits 2 into USD
        price CHAT 1 in credits
        balance credits 1 limit 100
        balance USD 9
        CHAT 2 gated                 -> credits 0, USD 7
    """,
    "the gate asks what overflows of the balance that it overflows into": """
        plan credits 100 into USD
        price CHAT 1 in credits
        balance credits 1
        balance USD 150
        CHAT 3 gated                 -> 402 insufficient_balance USD: 150 available, 200 required, 50 short
        CHAT 2 gated                 -> credits 0, USD 50
        CHAT 1                       -> credits 0, USD -50
        record                       -> CHAT 3 insufficient_balance
    """,
    "the limit of that balance counts": """
        plan credits 100 into USD
        price CHAT 1 in credits
        balance credits 1
        balance USD 0 limit 100
        CHAT 2 gated                 -> credits 0, USD -100
        CHAT 1 gated                 -> 402 credit_limit_reached USD: -100 available, 100 required, 100 short
    """,
    "events of a list see what those before them left": """
        plan credits 100 into USD
        price CHAT 2 in credits
        balance credits 3
        balance USD 500
        CHAT gated; CHAT gated; CHAT gated -> credits 0 | credits 0, USD 200 | credits 0, USD 200
        ledger credits               -> 1 event -3 at 2
        ledger USD                   -> 1 overage -300 at 100
    """,
    "a request that uses a balance and overflows into it moves it twice, usage first": """
        plan credits 100 into USD
        price CHAT 2 in credits
        price PLUS 7 in USD
        balance credits 1
        balance USD 500
        CHAT; PLUS; CHAT             -> credits 0, USD 193 | USD 193 | credits 0, USD 193
        ledger USD                   -> 1 event -7 at 7, 2 overage -300 at 100
        CHAT; PLUS                   -> credits 0, USD -14 | USD -14
        ledger USD  -> 1 event -7 at 7, 2 overage -300 at 100, 3 event -7 at 7, 4 overage -200 at 100
    """,
    "an event that costs both pays both from the one balance": """
        plan credits 100 into USD
        price CHAT 2 in credits
        price CHAT 5 in USD
        balance credits 1
        balance USD 104
        CHAT gated                   -> 402 insufficient_balance USD: 104 available, 105 required, 1 short
        CHAT as a                    -> USD -1, credits 0, USD -1
        event a                      -> complete: 1 for 5 USD and 1 credits and 100 USD
        delete a                     -> USD 104, credits 1, USD 104
        ledger USD       -> 1 event -5 at 5, 2 overage -100 at 100, 3 reversal +5 at 5, 4 reversal +100 at 100
    """,
    "two balances may overflow into one": """
        plan a 10 into USD b 0.5 into USD
        price X 3 in a
        price X 5 in b
        balance a 1
        balance b 2
        balance USD 22
        X gated pending as h         -> a 1 (1 held), USD 22 (22 held), b 2 (2 held), USD 22 (22 held)
        complete h                   -> a 0, USD 1 + 1/2, b 0, USD 1 + 1/2
        ledger USD                   -> 1 overage -21
        X gated                      -> 402 insufficient_balance USD: 1 available, 33 required, 32 short
    """,
    "a hold of two overages needs what it holds of each": """
        plan a 0.5 into USD b 0.5 into USD
        price X 1 in a
        price X 1 in b
        balance a 0
        balance b 0
        balance USD 1
        X gated pending              -> 402 insufficient_balance USD: 1 available, 2 required, 1 short
        X gated                      -> a 0, USD 0, b 0, USD 0
    """,
    "an override overflows alike": """
        plan credits 100 into USD
        balance credits 5
        balance USD 1000
        CHAT for 7 credits gated as a -> credits 0, USD 800
        event a                      -> complete: 1 for 5 credits and 200 USD
        CHAT for 3 credits pending as h -> credits 0, USD 800 (300 held)
        complete h cost 1            -> credits 0, USD 700
    """,
    "overage that costs nothing is still told": """
        plan credits 0 into USD
        price CHAT 1 in credits
        balance credits 1
        balance USD 0
        CHAT 3 gated as a            -> credits 0, USD 0
        event a                      -> complete: 3 for 1 credits and 0 USD
        ledger USD                   -> nothing
    """,
    "a free event is nobody's overage": """
        plan credits 100 into USD
        price CHAT 0 in credits
        balance credits -1
        CHAT gated                   -> credits -1
    """,
    "tiers count an event whole and once": """
        plan credits 100 into USD
        price STORE graduated 10:2 rest:1 in credits
        balance credits 15
        balance USD 1000
        STORE 8 gated                -> credits 0, USD 900
        STORE 4 gated as a           -> credits 0, USD 300
        event a                      -> complete: 4 for 0 credits and 600 USD
        delete a                     -> credits 0, USD 900
        STORE 4 gated                -> credits 0, USD 300
    """,
}

HOLDS = {
    "a hold is split once, and holds both parts": f"""
        {WORKED}
        STORE 12 gated pending as h  -> storage_gb 10 (10 held), USD 1000 (200 held)
        STORE 1 gated as b           -> storage_gb 10 (10 held), USD 900 (200 held)
        complete h                   -> storage_gb 0, USD 700
        ledger USD                   -> 1 overage -100 at 100, 2 overage -200 at 100
        delete h                     -> storage_gb 10, USD 900
        delete b                     -> storage_gb 10, USD 1000
    """,
    "a settlement for less takes what was covered first": f"""
        {WORKED}
        STORE 12 gated pending as h  -> storage_gb 10 (10 held), USD 1000 (200 held)
        complete h quantity 11.5     -> storage_gb 0, USD 850
        event h                      -> complete: 11.5 for 10 storage_gb and 150 USD
        ledger USD                   -> 1 overage -150 at 100
    """,
    "a settlement within what was covered frees the overage": f"""
        {WORKED}
        STORE 12 gated pending as h  -> storage_gb 10 (10 held), USD 1000 (200 held)
        complete h quantity 4        -> storage_gb 6, USD 1000
        event h                      -> complete: 4 for 4 storage_gb and 0 USD
        delete h                     -> storage_gb 10, USD 1000
    """,
    "what was used meanwhile does not change what a hold covers": f"""
        {WORKED}
        STORE 8 gated pending as h   -> storage_gb 10 (8 held)
        STORE 4 gated                -> storage_gb 8 (8 held), USD 800
        complete h quantity 6        -> storage_gb 2
    """,
    "nothing may come to more than was held": f"""
        {WORKED}
        STORE 12 gated pending as h  -> storage_gb 10 (10 held), USD 1000 (200 held)
        complete h quantity 13       -> refused exceeds_reserved
        complete h cost 13           -> refused exceeds_reserved
        complete h cost 12           -> storage_gb 0, USD 800
    """,
    "a hold that is let go, deleted or lapses gives all of it back": f"""
        {WORKED}
        STORE 12 pending as a        -> storage_gb 10 (10 held), USD 1000 (200 held)
        cancel a                     -> storage_gb 10, USD 1000
        STORE 12 pending as b        -> storage_gb 10 (10 held), USD 1000 (200 held)
        delete b                     -> storage_gb 10, USD 1000
        STORE 12 pending as c        -> storage_gb 10 (10 held), USD 1000 (200 held)
        wait 1h
        sweep                        -> storage_gb 10, USD 1000
        STORE 11                     -> storage_gb 0, USD 900
    """,
    "fractions are held rounded up, and settled exactly": """
        plan credits 1.5 into USD
        price READ 0.7 in credits
        balance credits 1 residue 1/2
        balance USD 10
        READ gated pending as h      -> credits 1 (1 held) + 1/2, USD 10 (1 held)
        READ gated                   -> credits 1 (1 held) + 1/2, USD 9 (1 held) + 1/20
        complete h                   -> credits 0, USD 9 + 7/20
        event h                      -> complete: 1 for 1/2 credits and 3/10 USD
    """,
    "tiers of a hold are rated as when it was pushed": """
        plan credits 100 into USD
        price STORE graduated 10:2 rest:1 in credits
        balance credits 4
        balance USD 10000
        STORE 12 pending as h        -> credits 4 (4 held), USD 10000 (1800 held)
        STORE 1                      -> credits 4 (4 held), USD 9900 (1800 held)
        complete h quantity 3        -> credits 0, USD 9700
        STORE 1                      -> credits 0, USD 9500
    """,
}

CAPS = {
    "a cap stops gated usage where the period has spent enough": """
        plan credits 100 into USD cap 300 unspent 1000
        price CHAT 1 in credits
        price PLUS 50 in USD
        balance credits 1
        balance USD 1000
        CHAT 3 gated                 -> credits 0, USD 800
        PLUS gated                   -> USD 750
        CHAT gated                   -> 402 spend_cap_reached USD: 50 available, 100 required, 50 short
        PLUS gated                   -> USD 700
        PLUS gated                   -> 402 spend_cap_reached USD: 0 available, 50 required, 50 short
        CHAT                         -> credits 0, USD 600
        PLUS gated                   -> 402 spend_cap_reached USD: -100 available, 50 required, 150 short
        record                       -> CHAT 1 spend_cap_reached, PLUS 1 spend_cap_reached, PLUS 1 spend_cap_reached
    """,
    "what is held is spent until it is free again": """
        plan credits cap 100 unspent 500
        price PLUS 60 in USD
        balance USD 500
        PLUS gated pending as h      -> USD 500 (60 held)
        PLUS gated                   -> 402 spend_cap_reached USD: 40 available, 60 held, 60 required, 20 short
        cancel h                     -> USD 500
        PLUS gated                   -> USD 440
    """,
    "money is judged before the cap": """
        plan credits cap 10 unspent 5
        price PLUS 60 in USD
        balance USD 5
        PLUS gated                   -> 402 insufficient_balance USD: 5 available, 60 required, 55 short
    """,
    "what has arrived since is not what was spent": """
        plan credits cap 100 unspent 700
        price PLUS 60 in USD
        balance USD 640
        PLUS gated                   -> 402 spend_cap_reached USD: 40 available, 60 required, 20 short
    """,
    "fractions that are owed count": """
        plan credits cap 1 unspent 100
        price READ 0.4 in USD
        balance USD 100
        READ 2 gated                 -> USD 100 + 4/5
        READ gated                   -> 402 spend_cap_reached USD: 1 available, 2 required, 1 short
    """,
    "other balances know no cap, and what is free passes until it is behind": """
        plan credits cap 0 unspent 100
        price CHAT 1 in credits
        price FREE 0 in USD
        balance credits 10
        balance USD 100
        CHAT 5 gated                 -> credits 5
        FREE gated                   -> USD 100
        X for 1 USD                  -> USD 99
        FREE gated                   -> 402 spend_cap_reached USD: -1 available, 0 required, 1 short
    """,
    "an event that uses and overflows is judged by its sum": """
        plan credits 100 into USD cap 104 unspent 500
        price CHAT 2 in credits
        price CHAT 5 in USD
        balance credits 1
        balance USD 500
        CHAT gated                   -> 402 spend_cap_reached USD: 104 available, 105 required, 1 short
    """,
}

PRICES = {
    "a plan that prices a type prices it alone": """
        plan credits
        price CHAT 3 in credits
        price CHAT 1 in USD
        price READ 2 in credits
        plan price CHAT 2 in credits
        balance credits 100
        CHAT                         -> credits 98
        READ                         -> credits 96
    """,
    "the account's own price takes the place of the same rule, and stands beside others": """
        plan credits
        plan price CHAT 2 in credits
        plan price CHAT 7 in credits where model="large"
        own price CHAT 1 in credits
        balance credits 100
        CHAT                         -> credits 99
        CHAT where model="large"     -> credits 92
        own price CHAT 4 in credits where model="large"
        CHAT where model="large"     -> credits 88
        own price CHAT 5 in USD
        CHAT                         -> USD -5, credits 87
    """,
    "without a plan an account's own price lies over the company's": """
        price CHAT 3 in credits
        price READ 3 in credits where hot=1
        own price CHAT 1 in credits
        own price READ 1 in credits where hot=true
        balance credits 100
        CHAT                         -> credits 99
        READ where hot=1             -> credits 96
        READ where hot=true          -> credits 95
        READ                         -> recorded
    """,
    "an own price for what nobody else prices": """
        own price CHAT 2 in credits
        balance credits 10
        CHAT                         -> credits 8
        CHAT pending as h            -> credits 8 (2 held)
        complete h quantity 0.5      -> credits 7
    """,
    "a hold is settled at the own price it was rated with": """
        own price STORE graduated 10:2 rest:1 in credits
        balance credits 100
        STORE 12 pending as h        -> credits 100 (22 held)
        complete h quantity 11       -> credits 79
        STORE 1                      -> credits 78
    """,
}

PERIODS = {
    "prices count by the plan's period, before the first one by the month": """
        plan credits
        period 1 -10d
        period 2 -3d
        price STORE graduated 1:10 rest:1 in credits
        balance credits 100
        STORE at -4d                 -> credits 90
        STORE                        -> credits 80
        STORE at -3d                 -> credits 79
        STORE at -10d                -> credits 78
        STORE at -11d                -> credits 68
        STORE at -12d                -> credits 67
    """,
    "without periods the month counts": """
        plan credits
        price STORE graduated 1:10 rest:1 in credits
        balance credits 100
        STORE; STORE                 -> credits 89
    """,
}


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, id=name) for table in (OVERAGE, HOLDS, CAPS, PRICES, PERIODS) for name, text in table.items()],
)
def test_an_account_on_a_plan(text: str) -> None:
    assert live(text) == expected(text)


def overflown() -> Life:
    life = Life()
    life.subscribe({"credits": {"overage_charge_amount": "100", "overage_charge_denomination": "USD"}})
    life.price("CHAT", "credits", {"amount": "1"})
    life.open("credits", 2)
    life.open("USD", 1000)
    return life


def test_a_charge_says_whose_overage_it_is_and_at_which_price() -> None:
    life = overflown()
    covered, over = life.push(event("CHAT", "5")).events[0].charges

    assert (covered.denomination, covered.amount, covered.overage) == ("credits", 2, None)
    assert over.overage == OverageOf("credits", Exact(3, 1), Exact(100, 1), PLAN_VERSION_ID)
    assert (over.denomination, over.amount, over.price_version_id) == ("USD", 300, None)


def test_overage_goes_to_a_book_of_its_own() -> None:
    life = overflown()
    made = life.push(event("CHAT", "5")).events[0]
    life.void(made.id)

    assert [(row.book, row.type, row.description, row.amount) for row in life.transactions] == [
        ("usage", "EVENT", "1 event", -2),
        ("overage", "OVERAGE", "Overage of credits", -300),
        ("usage", "REVERSAL", "Reversal of 1 event", 2),
        ("overage", "REVERSAL", "Reversal of overage of credits", 300),
    ]


def test_a_hold_keeps_its_price_of_overage_when_the_plan_changes() -> None:
    life = overflown()
    hold = life.push(event("CHAT", "5", state="pending")).events[0]
    life.subscribe({"credits": {"overage_charge_amount": "900", "overage_charge_denomination": "USD"}})
    life.finish(hold.id, settle_for(quantity="4"))
    assert life.amount("USD") == 800

    life.subscribe({})
    other = life.push(event("CHAT", "5", state="pending")).events[0]
    life.finish(other.id, settle_for())
    assert life.amount("credits") == -5


def test_a_settled_list_names_its_event_once_however_much_of_it_overflowed() -> None:
    life = overflown()
    life.subscribe(
        {
            name: {"overage_charge_amount": "1", "overage_charge_denomination": "USD"}
            for name in ("credits", "tokens", "other")
        }
    )
    life.price("CHAT", "tokens", {"amount": "1"})
    life.push(event("CHAT", "5"), event("CHAT", "1"))

    row = next(row for row in life.transactions if row.book == "overage")
    assert (row.event_count, row.amount, row.description) == (2, -10, "Overage of credits, tokens")


def test_overage_beyond_what_can_be_billed_is_refused() -> None:
    life = overflown()
    life.subscribe({"credits": {"overage_charge_amount": "1000", "overage_charge_denomination": "USD"}})
    with pytest.raises(Refusal) as refused:
        life.push(event("CHAT", str(10**13)))
    assert (refused.value.code, refused.value.details["path"]) == ("out_of_range", "events[0].quantity")


def test_a_plan_that_nobody_knows_yet_promises_nothing() -> None:
    life = overflown()
    state, terms = life.state, life.terms
    assert plan_terms_of(state, terms) == life.plan
    assert plan_terms_of(state._replace(plan=None), terms) is None
    life.plan = None
    assert plan_terms_of(state, life.terms) is None
    assert life.push(event("CHAT", "5")).events[0].charges[0].balance_amount == -3


def test_a_first_answer_is_what_was_held() -> None:
    life = overflown()
    hold = life.push(event("CHAT", "5", state="pending", key="k")).events[0]
    life.wait(timedelta(minutes=1))
    life.finish(hold.id, settle_for(quantity="3"))
    again = life.push(event("CHAT", "5", state="pending", key="k"))
    assert again.is_replay
    assert again.answers == (hold,)
