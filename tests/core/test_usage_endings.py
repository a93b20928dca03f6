"""How events end: holds settled, cancelled and lapsed, and events taken back. Told as in ``ledger_language``."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tenuto.core.event import HOLD_LIFE, Settlement, as_of
from tenuto.core.ledger import Transaction
from tenuto.core.money import exact
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.usage import expire_event
from tests.core.account_life import CANCEL, START, Life, event, settle_for
from tests.core.ledger_language import expected, live

HOLDS = {
    "a hold keeps its cost away and leaves the amount": """
        price CHAT 3 in credits
        balance credits 10
        CHAT 2 gated pending as hold      -> credits 10 (6 held)
        CHAT 2 gated                      -> 402 insufficient_balance credits: 4 available, 6 held, 6 required, 2 short
        CHAT gated                        -> credits 7 (6 held)
        complete hold                     -> credits 1
        ledger credits                    -> 1 event -3 at 3, 2 event -6 at 3
    """,
    "a hold is rounded up, its settlement is exact": """
        price READ 0.7 in USD
        balance USD 10 residue 2/5
        READ pending as hold              -> USD 10 (1 held) + 2/5
        complete hold                     -> USD 9 + 1/10
        READ pending as hold              -> USD 9 (1 held) + 1/10
        complete hold                     -> USD 9 + 4/5
        ledger USD                        -> 1 event -1 at 7/10
    """,
    "settled for fewer units, the rest is free again": """
        price CHAT 3 in credits
        balance credits 10
        CHAT 3 gated pending as hold      -> credits 10 (9 held)
        complete hold quantity 2          -> credits 4
        event hold                        -> complete: 2 for 6 credits
        CHAT gated                        -> credits 1
    """,
    "settled for nothing": """
        price CHAT 3 in credits
        balance credits 10
        CHAT gated pending as hold        -> credits 10 (3 held)
        complete hold quantity 0          -> credits 10
        event hold                        -> complete: 0 for 0 credits
        ledger credits                    -> nothing
    """,
    "settled at a cost, whatever the quantity": """
        price CHAT 3 in credits
        balance credits 10
        CHAT 3 gated pending as hold      -> credits 10 (9 held)
        complete hold cost 4              -> credits 6
        event hold                        -> complete: 3 for 4 credits
        ledger credits                    -> 1 event -4
    """,
    "settled at a cost, with the quantity that it really was": """
        price CHAT 3 in credits
        balance credits 10
        CHAT 3 gated pending as hold      -> credits 10 (9 held)
        complete hold quantity 1 cost 4   -> credits 6
        event hold                        -> complete: 1 for 4 credits
    """,
    "a hold of an override is settled in full or at a cost": """
        balance credits 10
        CHAT 2 for 5 credits pending as a -> credits 10 (5 held)
        CHAT 2 for 4 credits pending as b -> credits 10 (9 held)
        complete a                        -> credits 5 (4 held)
        complete b cost 1                 -> credits 4
    """,
    "above the reserve is refused by quantity and by cost, the reserve itself is not": """
        price READ 0.7 in USD
        balance USD 10
        READ 2 pending as hold            -> USD 10 (2 held)
        complete hold quantity 3          -> refused exceeds_reserved
        complete hold cost 3              -> refused exceeds_reserved
        complete hold quantity 2.857142857 -> USD 9 + 9999999999/10000000000
        READ 2 pending as hold            -> USD 9 (2 held) + 9999999999/10000000000
        complete hold cost 2              -> USD 7 + 9999999999/10000000000
    """,
    "a hold that reserved nothing has nothing to be settled above": """
        LOGIN pending as hold             -> recorded
        complete hold cost 1              -> refused exceeds_reserved
        complete hold cost 0              -> recorded
        event hold                        -> complete: 1 for nothing
    """,
    "completing never gates again": """
        price CHAT 3 in credits
        balance credits 3
        CHAT gated pending as hold        -> credits 3 (3 held)
        CHAT 5                            -> credits -12 (3 held)
        complete hold                     -> credits -15
    """,
    "cancelled, a hold lets go of everything": """
        price CHAT 3 in credits
        balance credits 3
        CHAT gated pending as hold        -> credits 3 (3 held)
        cancel hold                       -> credits 3
        event hold                        -> cancelled (requested): 1 for 3 credits
        CHAT gated                        -> credits 0
        ledger credits                    -> 1 event -3 at 3
    """,
    "a hold lives until just before its hour is over": """
        price CHAT 3 in credits
        balance credits 3
        CHAT gated pending as hold        -> credits 3 (3 held)
        wait 3599.999999s
        CHAT gated                        -> 402 insufficient_balance credits: 0 available, 3 held, 3 required, 3 short
        event hold                        -> pending: 1 for 3 credits
        complete hold                     -> credits 0
    """,
    "at exactly 3,600 s a hold is gone, swept or not": """
        price CHAT 3 in credits
        balance credits 3
        CHAT gated pending as hold        -> credits 3 (3 held)
        wait 3600s
        event hold                        -> cancelled (expired): 1 for 3 credits
        complete hold                     -> refused event_expired
        cancel hold                       -> refused event_expired
        delete hold                       -> refused event_expired
        CHAT gated                        -> credits 0
        sweep                             -> credits 0
        sweep                             -> nothing
        event hold                        -> cancelled (expired): 1 for 3 credits
        complete hold                     -> refused event_expired
        cancel hold                       -> refused event_expired
        delete hold                       -> refused event_expired
    """,
    "the hour counts from when the event was taken, not from when it occurred": """
        price CHAT 3 in credits
        balance credits 3
        CHAT gated pending at -3d as hold -> credits 3 (3 held)
        wait 59m
        complete hold                     -> credits 0
    """,
    "what is over cannot be ended again": """
        price CHAT 3 in credits
        balance credits 20
        CHAT as done                      -> credits 17
        CHAT pending as a                 -> credits 17 (3 held)
        CHAT pending as b                 -> credits 17 (6 held)
        complete a                        -> credits 14 (3 held)
        cancel b                          -> credits 14
        complete done                     -> refused event_finished
        complete a quantity 99            -> refused event_finished
        complete b                        -> refused event_finished
        cancel a                          -> refused event_finished
        cancel b                          -> refused event_finished
    """,
    "a gated hold needs its cost rounded up, for that is what it reserves": """
        price READ 0.5 in USD
        balance USD 2
        READ gated pending as a           -> USD 2 (1 held)
        READ gated pending as b           -> USD 2 (2 held)
        READ gated pending                -> 402 insufficient_balance USD: 0 available, 2 held, 1 required, 1 short
        complete a                        -> USD 2 (1 held) + 1/2
        complete b                        -> USD 1
    """,
    "holds and events in one request": """
        price CHAT 3 in credits
        balance credits 9
        CHAT gated; CHAT gated pending as hold; CHAT gated -> credits 3 (3 held)
        complete hold                     -> credits 0
        ledger credits                    -> 1 event -6 at 3, 2 event -3 at 3
    """,
    "a hold is settled on the terms it was pushed with": """
        price CHAT 3 in credits
        balance credits 20
        CHAT 2 pending as hold            -> credits 20 (6 held)
        wait 1m
        price CHAT 1 in credits since +0s
        complete hold quantity 1          -> credits 17
        CHAT                              -> credits 16
    """,
    "a hold outlives its price": """
        price CHAT 3 in credits
        balance credits 20
        CHAT 2 pending as hold            -> credits 20 (6 held)
        drop CHAT
        CHAT                              -> recorded
        complete hold quantity 1          -> credits 17
    """,
}

TAKEN_BACK = {
    "a charge is reversed by a new transaction, to the last fraction": """
        price READ 0.7 in USD
        balance USD 10
        READ as a                         -> USD 10 + 7/10
        READ as b                         -> USD 9 + 2/5
        delete a                          -> USD 10 + 7/10
        delete b                          -> USD 10
        ledger USD                        -> 1 event -1 at 7/10, 2 reversal +1 at 7/10
        event a                           -> cancelled (deleted): 1 for 7/10 USD
        delete a                          -> refused event_finished
    """,
    "every balance that an event debited is given back": """
        price CHAT 3 in credits
        price CHAT 2 in USD
        balance credits 10
        balance USD 10
        CHAT 2 as chat                    -> USD 6, credits 4
        delete chat                       -> USD 10, credits 10
        ledger credits                    -> 1 event -6 at 3, 2 reversal +6 at 3
    """,
    "an override is given back": """
        balance credits 10
        CHAT 2 for 5 credits as chat      -> credits 5
        delete chat                       -> credits 10
        ledger credits                    -> 1 event -5, 2 reversal +5
    """,
    "one of a request is given back, the others stay": """
        price CHAT 3 in credits
        balance credits 10
        CHAT as a; CHAT 2 as b            -> credits 1
        delete b                          -> credits 7
    """,
    "a hold is let go": """
        price CHAT 3 in credits
        balance credits 10
        CHAT pending as hold              -> credits 10 (3 held)
        delete hold                       -> credits 10
        event hold                        -> cancelled (deleted): 1 for 3 credits
        ledger credits                    -> nothing
    """,
    "a settled hold is given back at what it was settled for": """
        price CHAT 3 in credits
        balance credits 10
        CHAT 3 pending as hold            -> credits 10 (9 held)
        complete hold quantity 2          -> credits 4
        delete hold                       -> credits 10
        ledger credits                    -> 1 event -6 at 3, 2 reversal +6 at 3
    """,
    "counters are taken back with it": """
        price STORE graduated 10:2 rest:1 in credits free 2
        balance credits 100
        STORE 2 as a                      -> credits 100
        STORE 10 as b                     -> credits 80
        STORE                             -> credits 79
        delete b                          -> credits 99
        STORE                             -> credits 97
    """,
    "volume is counted anew": """
        price STORE volume 10:2 rest:1 in credits
        balance credits 100
        STORE 5 as a                      -> credits 90
        STORE 5 as b                      -> credits 80
        delete a                          -> credits 90
        STORE 5                           -> credits 80
        STORE 5                           -> credits 80
        STORE 10                          -> credits 75
    """,
    "an event without a charge can be taken back too": """
        LOGIN as login                    -> recorded
        delete login                      -> recorded
        event login                       -> cancelled (deleted): 1 for nothing
    """,
    "the month of the event is the one whose counter goes down": """
        price CHAT 1 in credits free 1
        balance credits 100
        CHAT at 2029-12-31T00:00Z as old  -> credits 100
        CHAT                              -> credits 100
        delete old                        -> credits 100
        CHAT at 2029-12-31T00:00Z         -> credits 100
        CHAT                              -> credits 99
    """,
}

LIVES = HOLDS | TAKEN_BACK


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
def test_life(life: str) -> None:
    assert live(life) == expected(life)


def test_a_hold_read_after_its_hour_is_cancelled_and_holds_nothing() -> None:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    (hold,) = life.push(event("CHAT", state="pending")).events
    assert hold.expires_at == START + HOLD_LIFE == START + timedelta(seconds=3600)
    assert as_of(hold, START + HOLD_LIFE - timedelta(microseconds=1)) == hold
    read = as_of(hold, START + timedelta(days=9))
    assert (read.state, read.reason, read.finished_at) == ("cancelled", "expired", hold.expires_at)
    assert [charge.amount for charge in read.charges] == [0]
    life.wait(timedelta(days=9))
    (decision,) = life.sweep()
    (ended,) = decision.finished
    assert (ended.state, ended.reason) == ("cancelled", "expired")
    assert ended.finished_at == hold.expires_at
    assert ended.first == hold


def test_an_account_knows_when_its_next_hold_lapses() -> None:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    assert life.push(event("CHAT", state="pending")).state.expires_at == START + timedelta(hours=1)
    life.wait(timedelta(minutes=1))
    assert life.push(event("CHAT", state="pending"), event("CHAT")).state.expires_at == START + timedelta(hours=1)


def test_a_reversal_is_a_transaction_that_says_so() -> None:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    (chat, _) = life.push(event("CHAT", "2"), event("CHAT")).events
    (pushed,) = life.transactions
    life.wait(timedelta(minutes=1))
    (reversal,) = life.void(chat.id).transactions
    assert reversal == Transaction(
        id=reversal.id,
        denomination="credits",
        seq=2,
        book="usage",
        type="REVERSAL",
        description="Reversal of 1 event",
        amount=6,
        starting_balance=-9,
        ending_balance=-3,
        recorded_at=START + timedelta(minutes=1),
        unit_cost=exact("3"),
        first_event_id=chat.id,
        event_count=1,
    )
    assert reversal.id > pushed.id


def test_only_a_hold_whose_hour_is_over_can_be_swept() -> None:
    life = Life()
    done, hold = life.push(event("LOGIN"), event("LOGIN", state="pending")).events
    late = START + HOLD_LIFE
    (swept,) = expire_event(life.state, hold, terms=life.terms, now=late, tick=0).finished
    for over, now in ((done, late), (hold, late - timedelta(microseconds=1)), (swept, late)):
        with pytest.raises(Refusal) as refused:
            expire_event(life.state, over, terms=life.terms, now=now, tick=0)
        assert (refused.value.code, refused.value.details) == ("event_finished", {"state": over.state})


@pytest.mark.parametrize(
    ("ending", "reason", "moved"),
    [
        (settle_for(), None, 6),
        (settle_for(quantity="1"), None, 3),
        (CANCEL, "requested", 0),
    ],
)
def test_an_ended_hold_keeps_how_it_began(ending: Settlement, reason: str | None, moved: int) -> None:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    (hold,) = life.push(event("CHAT", "2", state="pending")).events
    life.wait(timedelta(minutes=5))
    (ended,) = life.finish(hold.id, ending).finished
    assert (ended.reason, ended.finished_at, ended.first) == (reason, START + timedelta(minutes=5), hold)
    assert ended.posting > hold.posting
    assert [charge.amount for charge in ended.charges] == [moved]
    if moved:
        (voided,) = life.void(hold.id).finished
        assert voided.first == hold
        assert [charge.amount for charge in voided.charges] == [0]


def test_a_problem_of_the_request_is_said_once_the_event_may_be_ended() -> None:
    life = Life()
    problem = invalid("quantity", "is wrong.")
    (hold,) = life.push(event("LOGIN", state="pending")).events
    (done,) = life.push(event("LOGIN")).events
    for event_id, code in ((hold.id, "invalid_field"), (done.id, "event_finished")):
        with pytest.raises(Refusal) as refused:
            life.finish(event_id, Settlement("complete", problem=problem))
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("ending", "details"),
    [
        (settle_for(quantity="2"), {"denomination": "USD", "reserved": 1, "required": 2}),
        (settle_for(cost=9), {"denomination": "USD", "reserved": 1, "required": 9}),
    ],
)
def test_a_settlement_above_the_reserve_names_both(ending: Settlement, details: dict[str, object]) -> None:
    life = Life()
    life.price("READ", "USD", {"amount": "0.7"})
    (hold,) = life.push(event("READ", state="pending")).events
    with pytest.raises(Refusal) as refused:
        life.finish(hold.id, ending)
    assert refused.value.details == details


def test_a_hold_that_reserved_nothing_has_nothing_to_be_settled_above() -> None:
    life = Life()
    (hold,) = life.push(event("LOGIN", state="pending")).events
    with pytest.raises(Refusal) as refused:
        life.finish(hold.id, settle_for(cost=1))
    assert (refused.value.code, refused.value.details) == ("exceeds_reserved", {"reserved": 0, "required": 1})
