"""Known keys, and the order of judgement, as lives of an account. Told as in ``ledger_language``."""

from __future__ import annotations

import pytest

from tests.core.account_life import Life, event
from tests.core.ledger_language import expected, live

KEYS = {
    "the same key and body again: the first answer, and nothing moves": """
        price CHAT 3 in credits
        balance credits 10
        CHAT key k                        -> credits 7
        CHAT                              -> credits 4
        CHAT key k                        -> again credits 7
        CHAT key other                    -> credits 1
        CHAT key k                        -> again credits 7
    """,
    "the same key with another body": """
        price CHAT 3 in credits
        balance credits 10
        CHAT key k                        -> credits 7
        CHAT 2 key k                      -> refused key_reused at events[0].key
        CHAT key k gated                  -> refused key_reused at events[0].key
        CHAT; CHAT 2 key k                -> refused key_reused at events[1].key
        ledger credits                    -> 1 event -3 at 3
    """,
    "a key twice in one list: equal bodies have one effect, other bodies none": """
        price CHAT 3 in credits
        balance credits 10
        CHAT key k; CHAT key k; CHAT key l -> credits 4
        CHAT key m; CHAT 2 key m          -> refused key_reused at events[1].key
        CHAT key m                        -> credits 1
    """,
    "a refused key twice in one list is refused twice and kept once": """
        price CHAT 3 in credits
        balance credits 1
        CHAT gated key k; CHAT gated key k -> 402 [0] insufficient_balance credits: 1 available, 3 required, 2 short
                                            | [1] insufficient_balance credits: 1 available, 3 required, 2 short
        record                            -> CHAT 1 insufficient_balance
    """,
    "a 402 sticks to its key, without a second record, until another key is used": """
        price CHAT 3 in credits
        balance credits 1
        CHAT gated key k                  -> 402 insufficient_balance credits: 1 available, 3 required, 2 short
        balance credits 100
        CHAT gated key k                  -> 402 insufficient_balance credits: 1 available, 3 required, 2 short
        CHAT gated 2 key k                -> refused key_reused at events[0].key
        record                            -> CHAT 1 insufficient_balance
        CHAT gated key l                  -> credits 97
    """,
    "a refused list uses up the keys of the refused events only": """
        price CHAT 3 in credits
        balance credits 4
        CHAT gated key a; CHAT gated key b -> 402 [1] insufficient_balance credits: 1 available, 3 required, 2 short
        CHAT gated key a                  -> credits 1
        CHAT gated key b                  -> 402 insufficient_balance credits: 1 available, 3 required, 2 short
    """,
    "a list cut anew: the known are answered as before, the new are billed": """
        price CHAT 3 in credits
        balance credits 20
        CHAT key a; CHAT key b            -> credits 14
        CHAT key b; CHAT key c            -> credits 14 | credits 11
        CHAT key a; CHAT key b; CHAT key c -> again credits 14 | credits 14 | credits 11
        ledger credits                    -> 1 event -6 at 3, 2 event -3 at 3
    """,
    "a list with a key that was refused before is refused again, its new events unbilled": """
        price CHAT 3 in credits
        balance credits 1
        CHAT gated key a                  -> 402 insufficient_balance credits: 1 available, 3 required, 2 short
        balance credits 100
        CHAT key b; CHAT gated key a      -> 402 [1] insufficient_balance credits: 1 available, 3 required, 2 short
        record                            -> CHAT 1 insufficient_balance
        CHAT key b                        -> credits 97
    """,
    "a refused key again beside a new refusal: one new record": """
        price CHAT 3 in credits
        balance credits 1
        CHAT gated key a                  -> 402 insufficient_balance credits: 1 available, 3 required, 2 short
        CHAT gated key a; CHAT 2 gated key b -> 402 [0] insufficient_balance credits: 1 available, 3 required, 2 short
                                            | [1] insufficient_balance credits: 1 available, 6 required, 5 short
        record                            -> CHAT 1 insufficient_balance, CHAT 2 insufficient_balance
    """,
    "the key of a hold gives the first answer, finished or not": """
        price CHAT 3 in credits
        balance credits 20
        CHAT 2 pending key k as hold      -> credits 20 (6 held)
        CHAT 2 pending key k              -> again credits 20 (6 held)
        complete hold quantity 1          -> credits 17
        CHAT 2 pending key k              -> again credits 20 (6 held)
        delete hold                       -> credits 20
        CHAT 2 pending key k              -> again credits 20 (6 held)
    """,
    "the key of a hold gives the first answer after it expired too": """
        price CHAT 3 in credits
        balance credits 20
        CHAT 2 pending key k              -> credits 20 (6 held)
        wait 1h
        CHAT 2 pending key k              -> again credits 20 (6 held)
        sweep                             -> credits 20
        CHAT 2 pending key k              -> again credits 20 (6 held)
        CHAT pending key k                -> refused key_reused at events[0].key
    """,
    "the key of an event taken back gives the first answer": """
        price CHAT 3 in credits
        balance credits 20
        CHAT key k as chat                -> credits 17
        delete chat                       -> credits 20
        CHAT key k                        -> again credits 17
    """,
    "a key is known longer than an event may be late": """
        price CHAT 3 in credits
        balance credits 20
        CHAT key k at 2030-01-15T11:00Z   -> credits 17
        wait 400d
        CHAT key k at 2030-01-15T11:00Z   -> again credits 17
        CHAT key l at 2030-01-15T11:00Z   -> refused too_late at events[0].occurred_at
    """,
    "an event without effect has a key too": """
        LOGIN key k                       -> recorded
        LOGIN key k                       -> again recorded
    """,
}

ORDER = {
    "a known key answers before anything is judged": """
        price CHAT 3 in credits
        balance credits 3
        CHAT gated key k                  -> credits 0
        CHAT 2 gated key k at +1h         -> refused key_reused at events[0].key
        CHAT gated key k                  -> again credits 0
    """,
    "its time before its price, its price before the gate": """
        price CHAT 1000000000000000 in credits
        balance credits 0
        CHAT 2 gated at +1h               -> refused in_future at events[0].occurred_at
        CHAT 2 gated                      -> refused out_of_range at events[0].quantity
        CHAT gated  -> 402 insufficient_balance credits: 0 available, 1000000000000000 required, 1000000000000000 short
    """,
    "what is wrong with a list is said before who cannot pay, and leaves no record": """
        price CHAT 3 in credits
        balance credits 0
        CHAT gated; CHAT at +1h           -> refused in_future at events[1].occurred_at
        CHAT gated key k; CHAT key k      -> refused key_reused at events[1].key
        record                            -> nothing
    """,
    "of two mistakes in a list the first is named": """
        price CHAT 3 in credits
        CHAT at -40d; CHAT at +1h         -> refused too_late at events[0].occurred_at
    """,
    "that an event is over is said before what is wrong with its ending": """
        price CHAT 3 in credits
        balance credits 9
        CHAT pending as a                 -> credits 9 (3 held)
        CHAT pending as b                 -> credits 9 (6 held)
        complete a                        -> credits 6 (3 held)
        complete a cost 99                -> refused event_finished
        wait 1h
        complete b cost 99                -> refused event_expired
    """,
}

LIVES = KEYS | ORDER


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
def test_life(life: str) -> None:
    assert live(life) == expected(life)


def test_a_replay_changes_nothing_at_all() -> None:
    life = Life()
    life.price("CHAT", "credits", {"amount": "3"})
    life.push(event("CHAT", key="k"))
    before = life.state
    decision = life.push(event("CHAT", key="k"))
    assert decision.is_replay
    assert decision.state == before
    written = (decision.events, decision.transactions, decision.balances, decision.counters, decision.gated)
    assert not any(written)
