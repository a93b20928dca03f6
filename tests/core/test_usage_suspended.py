"""Usage that is suspended: events are kept aside, and billed or taken back later.

The notation is told in ``ledger_language``; here are also ``suspend`` (the account; ``suspend company``: all of them),
``resume``, and ``replay [NAME ...]``, which bills those events, or all that are kept aside.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from typing import Final, Literal

import pytest

from tenuto.core.catalog import EventPrice, by_type, families_of, price_version
from tenuto.core.event import HOLD_LIFE, Asked, prices_as_of
from tenuto.core.money import AMOUNT_MAX, exact
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.plan import plan_terms
from tenuto.core.terms import terms_of
from tenuto.core.topic import Heard, watch_of
from tests.core.account_life import CANCEL, NO_PLAN, PLAN_VERSION_ID, START, Life, event, settle_for
from tests.core.ledger_language import _lines, _Reader, expected, told


def live(text: str) -> list[str]:
    reader = _Reader(Life())
    lines: list[str] = []
    for asked, arrow, _ in _lines(text):
        answer = _read(reader, asked.split())
        lines.append(f"{asked} -> {answer}" if arrow else asked)
    return lines


def _read(reader: _Reader, words: list[str]) -> str:
    life = reader.life
    match words:
        case ["suspend", "company"]:
            life.is_suspended = True
        case ["suspend"]:
            life.stored = life.stored._replace(is_suspended=True)
        case ["resume"]:
            life.is_suspended = False
            life.stored = life.stored._replace(is_suspended=False)
        case ["replay", *names]:
            try:
                return told(life.replay(*(reader.names[name] for name in names))) or "nothing"
            except Refusal as refusal:
                return f"refused {refusal.code} at {refusal.details['path']}"
        case _:
            return reader.read(words)
    return ""


KEPT = {
    "nothing is touched: no balance, no counter, no gate": """
        price CHAT 3 in credits free 2
        balance credits 1
        suspend
        CHAT gated as a                   -> recorded
        CHAT 9 gated pending              -> recorded
        CHAT 5 for 7 USD                  -> recorded
        LOGIN as login                    -> recorded
        event a                           -> suspended: 1 for nothing
        event login                       -> suspended: 1 for nothing
        ledger credits                    -> nothing
        ledger USD                        -> nothing
        record                            -> nothing
        resume
        CHAT 2                            -> credits 1
        replay                            -> credits -2 (27 held) | credits -2 (27 held) | USD -7 | recorded
    """,
    "the whole company is suspended": """
        price CHAT 3 in credits
        balance credits 10
        suspend company
        CHAT as a                         -> recorded
        resume
        CHAT                              -> credits 7
        replay                            -> credits 4
    """,
    "a key is answered as it was answered first, before and after it is billed": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT key k as a                   -> recorded
        CHAT key k                        -> again recorded
        CHAT 2 key k                      -> refused key_reused at events[0].key
        resume
        CHAT key k                        -> again recorded
        replay                            -> credits 7
        CHAT key k                        -> again recorded
        delete a                          -> credits 10
        CHAT key k                        -> again recorded
        ledger credits                    -> 1 event -3 at 3, 2 reversal +3 at 3
    """,
    "a key that was billed before is known while events are kept aside": """
        price CHAT 3 in credits
        balance credits 10
        CHAT key k                        -> credits 7
        suspend
        CHAT key k                        -> again credits 7
        replay                            -> nothing
    """,
    "the time of an event is judged all the same": """
        suspend
        CHAT at -40d                      -> refused too_late at events[0].occurred_at
        CHAT at +1h                       -> refused in_future at events[0].occurred_at
    """,
    "what was cancelled when it was pushed waits for nothing": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT cancelled as a               -> recorded
        event a                           -> cancelled (pushed): 1 for nothing
        replay                            -> nothing
    """,
    "a hold from before can be ended meanwhile": """
        price CHAT 3 in credits
        balance credits 10
        CHAT pending as hold              -> credits 10 (3 held)
        CHAT pending as other             -> credits 10 (6 held)
        CHAT as done                      -> credits 7 (6 held)
        suspend
        complete hold                     -> credits 4 (3 held)
        cancel other                      -> credits 4
        delete done                       -> credits 7
    """,
}

REPLAYED = {
    "each costs what it cost at its own time": """
        price CHAT 3 in credits
        balance credits 100
        suspend
        CHAT as a                         -> recorded
        wait 1h
        price CHAT 5 in credits since +0s
        CHAT as b                         -> recorded
        CHAT at -30m as c                 -> recorded
        wait 1h
        price CHAT 50 in credits since +0s
        resume
        replay                            -> credits 89
        event a                           -> complete: 1 for 3 credits
        event b                           -> complete: 1 for 5 credits
        event c                           -> complete: 1 for 3 credits
        ledger credits                    -> 1 event -11
    """,
    "the price that its metadata chooses": """
        price CHAT 3 in credits
        price CHAT 9 in credits where model="big"
        balance credits 100
        suspend
        CHAT where model="big"            -> recorded
        CHAT where model="small"          -> recorded
        replay                            -> credits 88
    """,
    "no gate refuses it any more": """
        price CHAT 3 in credits
        balance credits 1
        suspend
        CHAT gated                        -> recorded
        resume
        CHAT gated                        -> 402 insufficient_balance credits: 1 available, 3 required, 2 short
        replay                            -> credits -2
    """,
    "in order: the first finds what is there, the others pay overage": """
        plan tokens 2 into USD
        price CHAT 1 in tokens
        balance tokens 3
        suspend
        CHAT 2 as a                       -> recorded
        CHAT 2 as b                       -> recorded
        CHAT 2 as c                       -> recorded
        replay                            -> tokens 0 | tokens 0, USD -6 | tokens 0, USD -6
        event a                           -> complete: 2 for 2 tokens
        event b                           -> complete: 2 for 1 tokens and 2 USD
        event c                           -> complete: 2 for 0 tokens and 4 USD
        ledger tokens                     -> 1 event -3 at 1
        ledger USD                        -> 1 overage -6 at 2
    """,
    "those that are named, and no others": """
        price CHAT 3 in credits
        balance credits 100
        suspend
        CHAT as a                         -> recorded
        CHAT 2 as b                       -> recorded
        CHAT 4 as c                       -> recorded
        replay b                          -> credits 94
        event a                           -> suspended: 1 for nothing
        replay b                          -> nothing
        replay                            -> credits 79
        replay                            -> nothing
    """,
    "free units count in the month of the event, not of the replay": """
        price CHAT 1 in credits free 2
        balance credits 100
        suspend
        CHAT 3                            -> recorded
        wait 20d
        CHAT 3                            -> recorded
        resume
        CHAT                              -> credits 100
        replay                            -> credits 97
        CHAT                              -> credits 96
        CHAT at -20d                      -> credits 95
    """,
    "the highest value is the highest in the order of billing": """
        price SEATS 10 in USD highest
        balance USD 1000
        SEATS 5                           -> USD 950
        suspend
        SEATS 3                           -> recorded
        SEATS 8                           -> recorded
        SEATS 7                           -> recorded
        resume
        replay                            -> USD 920
        SEATS 9                           -> USD 910
    """,
    "what is suspended is billed whoever is blocked": """
        price CHAT 3 in USD
        limit 1
        balance USD 0
        suspend
        CHAT as a                         -> recorded
        CHAT as b                         -> recorded
        replay a                          -> USD -3
        replay b                          -> USD -6
    """,
    "a fraction of a unit is owed on": """
        price READ 0.4 in USD
        balance USD 1
        suspend
        READ                              -> recorded
        READ                              -> recorded
        resume
        replay                            -> USD 1 + 4/5
        READ                              -> USD 0 + 1/5
    """,
    "what costs too much names its place, and nothing is billed": """
        price CHAT 1 in credits
        balance credits 10
        suspend
        CHAT as a                         -> recorded
        CHAT 999999999999 as b            -> recorded
        price CHAT 999999 in credits since -1h
        replay                            -> refused out_of_range at events[1].quantity
        event a                           -> suspended: 1 for nothing
    """,
}

ENDED = {
    "a hold that waits becomes a hold, whose hour begins then": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT 2 pending as hold            -> recorded
        wait 5h
        event hold                        -> suspended: 2 for nothing
        resume
        replay                            -> credits 10 (6 held)
        wait 59m
        complete hold quantity 1          -> credits 7
    """,
    "and ends with it": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT pending as hold              -> recorded
        replay                            -> credits 10 (3 held)
        wait 1h
        complete hold                     -> refused event_expired
        sweep                             -> credits 10
    """,
    "completed meanwhile, it is billed whole": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT 2 pending as hold            -> recorded
        complete hold                     -> recorded
        event hold                        -> suspended: 2 for nothing
        complete hold                     -> refused event_finished
        cancel hold                       -> refused event_finished
        replay                            -> credits 4
        event hold                        -> complete: 2 for 6 credits
    """,
    "completed for less, it is billed for that": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT 4 pending as hold            -> recorded
        complete hold quantity 5          -> refused exceeds_reserved
        complete hold quantity 0.5        -> recorded
        event hold                        -> suspended: 0.5 for nothing
        replay                            -> credits 9 + 1/2
    """,
    "at its own total, or at less of it": """
        balance credits 10
        suspend
        CHAT pending for 8 credits as a   -> recorded
        CHAT pending for 8 credits as b   -> recorded
        CHAT pending for 8 credits as c   -> recorded
        complete a                        -> recorded
        complete b cost 9                 -> refused exceeds_reserved
        complete b cost 5                 -> recorded
        complete c cost 0                 -> recorded
        replay a                          -> credits 2
        replay b                          -> credits -3
        replay c                          -> credits -3
        event b                           -> complete: 1 for 5 credits
    """,
    "a total needs a denomination, which a price gives it later": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT 2 pending as hold            -> recorded
        complete hold cost 1              -> refused invalid_field at cost_override_amount
        replay                            -> credits 10 (6 held)
        complete hold cost 1              -> credits 9
    """,
    "cancelled meanwhile, it is never billed": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT pending key k as hold        -> recorded
        cancel hold                       -> recorded
        event hold                        -> cancelled (requested): 1 for nothing
        cancel hold                       -> refused event_finished
        delete hold                       -> refused event_finished
        replay                            -> nothing
        replay hold                       -> nothing
        CHAT pending key k                -> again recorded
    """,
    "what is no hold cannot be completed, only billed or taken back": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT as a                         -> recorded
        complete a                        -> refused event_finished
        cancel a                          -> refused event_finished
    """,
    "taken back, it is never billed": """
        price CHAT 3 in credits
        balance credits 10
        suspend
        CHAT key k as a                   -> recorded
        CHAT pending as b                 -> recorded
        CHAT pending as c                 -> recorded
        complete c                        -> recorded
        delete a                          -> recorded
        delete b                          -> recorded
        delete c                          -> recorded
        event a                           -> cancelled (deleted): 1 for nothing
        event c                           -> cancelled (deleted): 1 for nothing
        delete a                          -> refused event_finished
        replay                            -> nothing
        CHAT key k                        -> again recorded
        ledger credits                    -> nothing
    """,
    "billed, and taken back then": """
        price CHAT 3 in credits free 1
        balance credits 10
        suspend
        CHAT 3 as a                       -> recorded
        resume
        replay                            -> credits 4
        delete a                          -> credits 10
        event a                           -> cancelled (deleted): 3 for 6 credits
        CHAT                              -> credits 10
        CHAT                              -> credits 7
    """,
}

LIVES: Final = KEPT | REPLAYED | ENDED


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
def test_life(life: str) -> None:
    assert live(life) == expected(life)


def suspended() -> Life:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    life.open("credits", 10)
    life.stored = life.stored._replace(is_suspended=True)
    return life


def test_an_event_that_is_kept_aside_remembers_what_it_asks_for() -> None:
    life = suspended()
    hold = event("CHAT", state="pending", gated=True, override=(4, "USD"), cogs=(1, "USD"))
    decision = life.push(hold, event("LOGIN"))
    first, second = decision.events
    assert (first.state, first.asked, first.gated) == ("suspended", Asked("pending", (4, "USD")), True)
    assert (first.expires_at, first.finished_at, first.reason, first.charges) == (None, None, None, ())
    assert (first.cogs_amount, first.cogs_denomination) == (1, "USD")
    assert second.asked == Asked("complete", None)
    assert decision.answers == decision.events
    assert (decision.transactions, decision.balances, decision.counters, decision.gated) == ((), (), (), ())
    assert decision.state.is_suspended
    assert decision.state.expires_at is None


@pytest.mark.parametrize("bar", ["account_paused", "credit_blocked"])
def test_what_is_gated_is_kept_aside_even_where_the_gate_is_shut(
    bar: Literal["account_paused", "credit_blocked"],
) -> None:
    life = suspended()
    life.stored = life.stored._replace(bar=bar)
    (kept,) = life.push(event("CHAT", gated=True)).events
    assert kept.state == "suspended"
    assert [charge.amount for charge in life.replay().finished[0].charges] == [3]
    life.stored = life.stored._replace(is_suspended=False)
    assert [refused.code for refused in life.push(event("CHAT", gated=True)).gated] == [bar]


def test_a_replay_is_one_posting_that_names_its_events() -> None:
    life = suspended()
    life.watch = watch_of([Heard(1, "negative_balance", None, None, None)])
    a, b, c = life.push(event("CHAT", key="a"), event("CHAT", "2"), event("CHAT", "3")).events
    life.wait(timedelta(days=2))
    decision = life.replay(a.id, c.id)
    (made,) = decision.transactions
    assert (made.amount, made.first_event_id, made.event_count, made.description) == (-12, a.id, 2, "2 events")
    assert made.unit_cost == exact("3")
    assert made.recorded_at == life.now
    for before, after in zip((a, c), decision.finished, strict=True):
        assert (after.id, after.first, after.asked, after.state) == (before.id, before, None, "complete")
        assert (after.occurred_at, after.recorded_at, after.finished_at) == (START, START, life.now)
        assert after.posting == decision.finished[0].posting > before.posting
        assert [charge.transaction_id for charge in after.charges] == [made.id]
    assert decision.answers == decision.finished
    assert decision.events == ()
    assert life.events[b.id] == b, "the others are left alone"
    assert [(one.topic, one.data["amount"]) for one in decision.told.notifications] == [("negative_balance", -2)]


def test_a_replay_of_nothing_moves_nothing() -> None:
    life = suspended()
    life.stored = life.stored._replace(is_suspended=False)
    (done,) = life.push(event("CHAT")).events
    decision = life.replay(done.id)
    assert (decision.finished, decision.answers, decision.transactions, decision.balances) == ((), (), (), ())
    assert life.events[done.id] == done
    assert life.amount("credits") == 7


def test_a_hold_that_is_replayed_lapses_an_hour_later() -> None:
    life = suspended()
    life.push(event("CHAT", state="pending"))
    life.wait(timedelta(days=2))
    decision = life.replay()
    (hold,) = decision.finished
    assert (hold.state, hold.expires_at, hold.finished_at) == ("pending", life.now + HOLD_LIFE, None)
    assert decision.state.expires_at == hold.expires_at
    assert [(charge.amount, charge.transaction_id) for charge in hold.charges] == [(3, None)]


def test_how_it_was_billed_is_kept_behind_how_it_ended() -> None:
    life = suspended()
    (pushed,) = life.push(event("CHAT", state="pending")).events
    (billed,) = life.replay().finished
    (ended,) = life.finish(pushed.id, settle_for()).finished
    assert billed.first == pushed
    assert ended.first == billed
    (voided,) = life.void(pushed.id).finished
    assert voided.first == billed


def test_how_it_was_pushed_is_kept_behind_how_it_was_ended_before_it_was_billed() -> None:
    life = suspended()
    (pushed,) = life.push(event("CHAT", "2", state="pending")).events
    (ended,) = life.finish(pushed.id, settle_for(quantity="1")).finished
    assert (ended.state, ended.asked, ended.quantity, ended.first) == (
        "suspended",
        Asked("complete", None),
        "1",
        pushed,
    )
    (billed,) = life.replay().finished
    assert (billed.first, billed.quantity) == (pushed, "1")
    (voided,) = life.void(pushed.id).finished
    assert voided.first == billed


@pytest.mark.parametrize("takes_back", [False, True])
def test_what_ends_before_it_is_billed_has_no_charges(takes_back: bool) -> None:  # noqa: FBT001 - two cases
    life = suspended()
    (pushed,) = life.push(event("CHAT", state="pending")).events
    life.wait(timedelta(hours=9))
    decision = life.void(pushed.id) if takes_back else life.finish(pushed.id, CANCEL)
    (ended,) = decision.finished
    assert (ended.state, ended.reason) == ("cancelled", "deleted" if takes_back else "requested")
    assert (ended.finished_at, ended.first, ended.asked, ended.charges) == (life.now, pushed, None, ())
    assert (decision.transactions, decision.balances) == ((), ())


def test_a_settlement_that_is_wrong_is_said_after_the_state_and_changes_nothing() -> None:
    life = suspended()
    done, hold = life.push(event("CHAT"), event("CHAT", state="pending", override=(4, "USD"))).events
    problem = settle_for()._replace(problem=invalid("quantity", "is wrong."))
    for event_id, code in ((hold.id, "invalid_field"), (done.id, "event_finished")):
        with pytest.raises(Refusal) as refused:
            life.finish(event_id, problem)
        assert refused.value.code == code
    with pytest.raises(Refusal) as refused:
        life.finish(hold.id, settle_for(cost=5))
    assert refused.value.details == {"denomination": "USD", "reserved": 4, "required": 5}
    assert life.events[hold.id] == hold


def test_a_replay_that_comes_to_more_than_can_be_billed_is_refused_whole() -> None:
    life = suspended()
    events = life.push(event("CHAT"), event("CHAT", f"{AMOUNT_MAX}")).events
    with pytest.raises(Refusal) as refused:
        life.replay()
    assert (refused.value.code, refused.value.details) == ("out_of_range", {"path": "events[1].quantity"})
    assert list(life.events.values()) == list(events)


# --- prices that have come and gone -----------------------------------------------------------------------------------


def _price(
    id: int, amount: str, *, made: int = 0, ended: int | None = None, denomination: str = "credits"
) -> EventPrice:
    """A price of CHAT that was made, and ended, so many hours after the start."""
    version = price_version(
        id=id, price_id=id, number=1, denomination=denomination, effective_at=START, terms={"amount": amount}
    )
    gone = None if ended is None else START + timedelta(hours=ended)
    return EventPrice(id, "CHAT", denomination, {}, (version,), START + timedelta(hours=made), gone)


@pytest.mark.parametrize(
    ("in_force", "past", "own", "own_past", "expected"),
    [
        ([_price(1, "3")], [], [], [], [1]),
        # one that was deleted after the event came prices it, one that was deleted before it does not
        ([], [_price(1, "3", ended=2)], [], [], [1]),
        ([], [_price(1, "3", ended=1)], [], [], []),
        # what took its place was made later, and prices what comes later
        ([_price(2, "9", made=2)], [_price(1, "3", ended=2)], [], [], [1]),
        ([_price(2, "9", made=2)], [], [], [], []),
        # what was agreed with the account goes before, if it was agreed by then
        ([_price(1, "3")], [], [_price(5, "2")], [], [5]),
        ([_price(1, "3")], [], [_price(5, "2", made=2)], [], [1]),
        ([_price(1, "3")], [], [], [_price(5, "2", ended=2)], [5]),
        ([_price(1, "3"), _price(4, "1", denomination="USD")], [], [], [_price(5, "2", ended=2)], [4, 5]),
    ],
)
def test_what_was_kept_aside_has_the_prices_of_when_it_came(
    in_force: list[EventPrice],
    past: list[EventPrice],
    own: list[EventPrice],
    own_past: list[EventPrice],
    expected: list[int],
) -> None:
    life = Life()
    terms = terms_of(
        zone=UTC,
        default_credit_limit=0,
        late=timedelta(days=35),
        ahead=timedelta(),
        prices=in_force,
        versions=[price.latest for price in (*in_force, *past)],
        past=past,
    )
    state = life.state._replace(own_prices=families_of(own), own_past=by_type(own_past))
    found = prices_as_of(START + timedelta(hours=1), None, "CHAT", state, terms)
    assert sorted(price.id for family in found for price in family) == expected


def test_a_plan_that_prices_a_type_prices_it_alone_whatever_the_company_had_deleted() -> None:
    life = Life(plan=plan_terms(NO_PLAN))
    life.price("CHAT", "credits", {"amount": "4"}, among=life.plan_prices)
    terms = replace(life.terms, past=by_type([_price(9, "3", ended=2)]))
    at = START + timedelta(hours=1)
    found = prices_as_of(at, PLAN_VERSION_ID, "CHAT", life.state, terms)
    assert [price.latest.unit for family in found for price in family] == [exact("4")]
    assert [price.id for family in prices_as_of(at, None, "CHAT", life.state, terms) for price in family] == [9]
