"""What movements of balances have to say, as lives of an account. The notation is told in ``signal_language``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tenuto.core.event import AccountState
from tenuto.core.identifiers import spell_of_account
from tenuto.core.ledger import PASSING_BOOKS
from tenuto.core.notification import (
    BLOCKED_BY_LEVEL,
    JITTER_PERCENT,
    RETRY_AFTER_MAX,
    SCHEDULE,
    after_told,
    envelope,
    next_wait,
    public_id,
)
from tenuto.core.topic import NOTHING, TOPICS, Heard, Level, Notification, Rule, Told, watch_of
from tests.core.account_life import ACCOUNT_ID, CANCEL, START, Life, event
from tests.core.ledger_language import expected
from tests.core.signal_language import listened

CONSUMED: Final = {
    "nine tenths consumed is told once, at exactly that, and again after the balance was filled": """
        hear threshold
        balance tokens 1000 filled 1000
        use 899 tokens                  -> nothing
        use 1 tokens                    -> threshold tokens consumed:90
        use 1 tokens                    -> nothing
        use 98 tokens                   -> nothing
        use 500 tokens                  -> nothing
        move +1499 tokens refill        -> nothing
        use 899 tokens                  -> nothing
        use 2 tokens                    -> threshold tokens consumed:90
    """,
    "what was last filled is all that the balance held then": """
        hear threshold
        balance tokens 500 filled 800
        move +500 tokens deposit        -> nothing
        use 899 tokens                  -> nothing
        use 1 tokens                    -> threshold tokens consumed:90
    """,
    "usage that is taken back leaves the level, and passes it again": """
        hear threshold
        balance tokens 101 filled 1000
        use 1 tokens                    -> threshold tokens consumed:90
        void                            -> nothing
        use 1 tokens                    -> threshold tokens consumed:90
    """,
    "what was never filled has no percentage": """
        hear threshold
        balance tokens 1000
        use 2000 tokens                 -> nothing
        rule remaining:10
        use 1 tokens                    -> nothing
    """,
    "several levels passed by one movement are all told": """
        hear threshold
        rule consumed:50
        rule consumed:90
        rule below:500
        rule remaining:50
        balance tokens 1000 filled 1000
        use 500 tokens                  -> threshold tokens consumed:50
        void                            -> nothing
        use 999 tokens                  -> threshold tokens consumed:50, threshold tokens consumed:90,
                                        | threshold tokens below:500, threshold tokens remaining:50
    """,
    "remaining and below are passed strictly below": """
        hear threshold
        rule remaining:10
        rule below:50
        balance tokens 1000 filled 1000
        use 900 tokens                  -> nothing
        use 1 tokens                    -> threshold tokens remaining:10
        use 49 tokens                   -> nothing
        use 1 tokens                    -> threshold tokens below:50
    """,
    "a level can lie above what the balance was filled to": """
        hear threshold
        rule below:5000
        balance tokens 1000 filled 1000
        use 1 tokens                    -> nothing
        move +4001 tokens adjustment    -> nothing
        move -1 tokens adjustment       -> threshold tokens below:5000
    """,
    "whoever takes units out passes levels too": """
        hear threshold
        balance tokens 1000 filled 1000
        move -900 tokens expiry         -> threshold tokens consumed:90
    """,
    "a save is judged as a whole: what ends and comes in one has emptied nothing": """
        hear threshold
        hear pause_balance
        balance tokens 1000 filled 1000
        move -1000 tokens expiry, +800 tokens grant -> nothing
        move -790 tokens expiry, +1 tokens grant -> nothing
        use 11 tokens                   -> pause_balance tokens, threshold tokens consumed:90
    """,
    "what the first of a save has passed is told with the last": """
        hear threshold
        balance tokens 1000 filled 1000
        move -900 tokens expiry, -1 tokens adjustment -> threshold tokens consumed:90
    """,
    "a rule holds for its denomination": """
        hear threshold
        rule consumed:90 of tokens
        balance tokens 10 filled 10
        balance credits 10 filled 10
        use 10 credits and 9 tokens     -> threshold tokens consumed:90
    """,
    "switched off, the usual levels are not told": """
        no rules
        hear *
        limit 500
        balance tokens 10 filled 10
        balance USD 0
        use 9 tokens                    -> balance_change tokens 1
        use 1500 USD                    -> balance_change USD 1, negative_balance USD
    """,
    "a subscription brings a level of its own, for its denomination": """
        no rules
        hear threshold of tokens at consumed:75
        hear threshold at below:2 alone
        balance tokens 10 filled 10
        balance credits 10 filled 10
        use 8 tokens and 8 credits      -> threshold tokens consumed:75
        use 1 tokens and 1 credits      -> threshold tokens below:2, threshold credits below:2
    """,
    "a plan alerts below a percentage of the balances that it has": """
        no rules
        hear threshold
        plan tokens alert 20
        balance tokens 10 filled 10
        balance credits 10 filled 10
        use 8 tokens and 9 credits      -> nothing
        use 1 tokens                    -> threshold tokens remaining:20
    """,
    "a plan without an alert has none": """
        no rules
        hear threshold
        plan tokens alert 0
        balance tokens 10 filled 10
        use 10 tokens                   -> nothing
    """,
}

CREDIT: Final = {
    "as shipped: the flag at 150, the block at 200, lifted within the limit": """
        hear credit_limit
        limit 500
        balance USD 0
        use 749 USD                     -> nothing
        use 1 USD                       -> credit_limit USD credit:150, over_credit_limit on
        use 249 USD                     -> nothing
        use 1 USD                       -> credit_limit USD credit:200, blocked
        use 500 USD                     -> nothing
        move +750 USD payment           -> nothing
        move +249 USD payment           -> over_credit_limit off
        move +1 USD payment             -> free
    """,
    "the flag goes down by itself once less is owed, and can go up again": """
        hear credit_limit
        hear flag.changed
        limit 500
        balance USD -749
        use 1 USD                       -> credit_limit USD credit:150, flag.changed USD, over_credit_limit on
        move +1 USD deposit             -> flag.changed USD, over_credit_limit off
        move -1 USD adjustment          -> credit_limit USD credit:150, flag.changed USD, over_credit_limit on
        use 1 USD                       -> nothing
    """,
    "one movement passes both, and tells whoever hears thresholds too": """
        hear credit_limit
        hear threshold
        hear account.credit_blocked
        hear account.credit_unblocked alone
        limit 500
        balance USD 10
        use 5010 USD                    -> credit_limit USD credit:150, credit_limit USD credit:200,
                                        | threshold USD credit:150, threshold USD credit:200,
                                        | account.credit_blocked, over_credit_limit on, blocked
        move +5000 USD deposit          -> account.credit_unblocked, over_credit_limit off, free
    """,
    "the acts of a company need nobody who hears": """
        limit 500
        balance USD 0
        use 1000 USD                    -> over_credit_limit on, blocked
        move +600 USD payment           -> over_credit_limit off, free
    """,
    "without a limit nothing is a percentage of it": """
        hear *
        balance tokens 0
        balance USD 0 limit 0
        use 1000 tokens                 -> balance_change tokens 1, negative_balance tokens
        use 1000 USD                    -> balance_change USD 1, negative_balance USD
    """,
    "the default of the company holds for money": """
        hear credit_limit
        company limit 100
        balance tokens 0
        use 150 USD and 150 tokens      -> credit_limit USD credit:150, over_credit_limit on
    """,
    "a balance of tokens has a limit of its own, and keeps the flag up for all": """
        hear credit_limit
        limit 100
        balance tokens -140 limit 100
        balance USD -149
        use 10 tokens                   -> credit_limit tokens credit:150, over_credit_limit on
        use 1 USD                       -> credit_limit USD credit:150
        move +10 tokens refill          -> nothing
        move +1 USD deposit             -> over_credit_limit off
    """,
    "a block is lifted only when every balance is within its limit": """
        limit 100
        balance tokens 0 limit 100
        balance USD 0
        use 200 tokens and 200 USD      -> over_credit_limit on, blocked
        move +200 tokens refill         -> nothing
        move +99 USD payment            -> over_credit_limit off
        use 1 credits                   -> nothing
        move +1 USD payment             -> free
    """,
    "somebody else's block stands, whatever is paid, and no level blocks twice": """
        hear account.credit_unblocked
        hear credit_limit
        blocked by manual
        limit 100
        balance USD 0
        use 200 USD                     -> credit_limit USD credit:150, credit_limit USD credit:200,
                                        | over_credit_limit on
        move +200 USD payment           -> over_credit_limit off
    """,
    "a limit that was raised frees with the next movement, whichever it is": """
        blocked by level
        limit 1000
        balance USD -500
        balance tokens 5
        use 1 tokens                    -> free
    """,
    "dunning's block stands too": """
        blocked by dunning
        limit 100
        balance USD -120
        move +500 USD payment           -> nothing
    """,
    "a level that blocks below the limit holds until it is left": """
        rule credit:50 block
        limit 100
        balance USD 0
        use 50 USD                      -> blocked
        use 5 USD                       -> nothing
        use 5 tokens                    -> nothing
        move +5 USD payment             -> nothing
        move +1 USD payment             -> free
    """,
    "at exactly the limit a level of 100 goes on blocking": """
        rule credit:100 block
        limit 100
        balance USD 0
        use 100 USD                     -> blocked
        use 1 tokens                    -> nothing
        move +1 USD payment             -> free
    """,
    "a rule cannot raise the flag of a block beside the block": """
        rule credit:100 block
        rule credit:100 flag credit_blocked
        limit 100
        use 100 USD                     -> blocked
        move +1 USD payment             -> free
    """,
    "a rule's flag is up while any of its levels is reached": """
        rule credit:100 flag slow
        rule credit:150 of tokens flag slow
        rule credit:50 flag warned
        limit 100
        balance tokens 0 limit 10
        balance USD 0
        use 50 USD                      -> warned on
        use 50 USD                      -> slow on
        use 15 tokens                   -> nothing
        move +100 USD payment           -> nothing
        move +15 tokens refill          -> slow off, warned off
    """,
    "a rule of one denomination looks at no other": """
        rule credit:100 of tokens block
        limit 100
        balance tokens 0 limit 10
        balance USD 0
        use 500 USD                     -> nothing
        use 10 tokens                   -> blocked
        move +1 tokens refill           -> nothing
        move +400 USD payment           -> free
    """,
    "a subscription names a level of credit, told beside those of the rules": """
        hear credit_limit of USD at credit:80
        limit 100
        balance tokens 0 limit 100
        use 80 tokens                   -> nothing
        use 80 USD                      -> credit_limit USD credit:80
        use 20 USD                      -> nothing
        move +21 USD deposit            -> nothing
        use 1 USD                       -> credit_limit USD credit:80
    """,
    "a debt that shrinks passes no level": """
        hear credit_limit
        limit 100
        balance USD -500
        move +100 USD payment           -> nothing
    """,
}

FLAGS: Final = {
    "a metered flag follows its balance, down and up": """
        hear flag.changed
        plan flag sms={"metered":"messages"}
        balance messages 2
        use 1 messages                  -> nothing
        use 1 messages                  -> flag.changed messages, sms off
        use 1 messages                  -> nothing
        move +1 messages refill         -> nothing
        move +1 messages refill         -> flag.changed messages, sms on
    """,
    "nobody has to hear of it: it is history": """
        plan flag sms={"metered":"messages"}
        plan flag calls={"metered":"messages"}
        plan flag exports=true
        move +1 messages grant          -> calls on, sms on
        use 5 messages                  -> calls off, sms off
    """,
    "what is set for the account goes before the plan": """
        plan flag sms={"metered":"messages"}
        plan flag calls={"metered":"messages"}
        own flag sms=true
        own flag calls={"metered":"minutes"}
        balance messages 1
        balance minutes 1
        use 1 messages                  -> nothing
        use 1 minutes                   -> calls off
    """,
    "an account without a plan can have a metered flag": """
        own flag sms={"metered":"messages"}
        balance messages 1
        use 1 messages                  -> sms off
    """,
    "a metered flag that a rule's or a pause's hides does not change": """
        plan flag over_credit_limit={"metered":"USD"}
        plan flag account_paused={"metered":"USD"}
        limit 100
        balance USD 10
        use 160 USD                     -> over_credit_limit on
        move +160 USD deposit           -> over_credit_limit off
    """,
}

HEARING: Final = {
    "nobody hears, nothing is said": """
        balance tokens 10 filled 10
        use 10 tokens                   -> nothing
        use 10 tokens                   -> nothing
        move +5 tokens refill           -> nothing
    """,
    "who hears something else is told nothing of this": """
        hear payment.succeeded
        balance tokens 10 filled 10
        use 20 tokens                   -> nothing
    """,
    "every transaction is one change, numbered without a gap": """
        hear balance_change
        use 2 tokens and 3 USD          -> balance_change tokens 1, balance_change USD 1
        use 1 tokens                    -> balance_change tokens 2
        use 0 tokens                    -> nothing
        move +5 USD payment, -5 USD plan -> balance_change USD 2, balance_change USD 3
        void                            -> nothing
        use 7 USD                       -> balance_change USD 4
        void                            -> balance_change USD 5
    """,
    "below zero is told of every request that takes, and of nothing else": """
        hear negative_balance
        balance tokens 2
        use 2 tokens                    -> nothing
        use 1 tokens                    -> negative_balance tokens
        use 1 tokens                    -> negative_balance tokens
        void                            -> nothing
        move +1 tokens refill           -> nothing
        move -9 tokens adjustment       -> nothing
        use 1 USD and 1 tokens          -> negative_balance USD, negative_balance tokens
    """,
    "nothing left is told once, until there was something": """
        hear pause_balance
        balance tokens 2
        use 1 tokens                    -> nothing
        use 1 tokens                    -> pause_balance tokens
        use 1 tokens                    -> nothing
        move +3 tokens refill           -> nothing
        use 9 tokens                    -> pause_balance tokens
    """,
    "money that passes through neither fills nor empties, but a flag says what is there": """
        hear pause_balance
        hear threshold
        plan flag rich={"metered":"USD"}
        balance USD 0 filled 1000
        move +500 USD payment           -> rich on
        move -500 USD plan              -> rich off
        move +70 USD payment, -70 USD invoice_item -> nothing
    """,
    "what is paid out of a balance does not empty it, what arrives and is given back does": """
        hear pause_balance
        hear threshold
        plan flag rich={"metered":"USD"}
        balance USD 1000 filled 1000
        move -950 USD plan              -> nothing
        move -50 USD tax                -> rich off
        move +10 USD deposit            -> rich on
        move -9 USD refund              -> threshold USD consumed:90
        move -1 USD refund              -> pause_balance USD, rich off
    """,
    "of one denomination only": """
        hear balance_change of tokens
        hear negative_balance of USD
        use 1 tokens and 1 USD          -> balance_change tokens 1, negative_balance USD
    """,
    "who hears one denomination and then all, hears all": """
        hear balance_change of tokens
        hear balance_change
        hear balance_change of USD
        use 1 credits                   -> balance_change credits 1
    """,
    "an account's own ears hear beside the company's": """
        hear negative_balance of tokens
        hear negative_balance of credits alone
        use 1 tokens and 1 credits and 1 USD -> negative_balance tokens, negative_balance credits
    """,
    "everything is heard under one star": """
        hear *
        plan tokens alert 50
        plan flag sms={"metered":"tokens"}
        limit 10
        balance tokens 10 filled 10
        use 10 tokens                   -> balance_change tokens 1, pause_balance tokens, flag.changed tokens,
                                        | threshold tokens consumed:90, threshold tokens remaining:50, sms off
        use 20 USD                      -> balance_change USD 1, negative_balance USD, credit_limit USD credit:150,
                                        | credit_limit USD credit:200, threshold USD credit:150,
                                        | threshold USD credit:200, flag.changed USD, flag.changed USD,
                                        | account.credit_blocked, over_credit_limit on, blocked
        move +20 USD deposit            -> balance_change USD 2, flag.changed USD, flag.changed USD,
                                        | account.credit_unblocked,
                                        | over_credit_limit off, free
    """,
    "one star for one denomination": """
        hear * of USD alone
        balance tokens 1
        use 1 tokens and 1 USD          -> balance_change USD 1, negative_balance USD
    """,
}

LIVES: Final = CONSUMED | CREDIT | FLAGS | HEARING


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
def test_life(life: str) -> None:
    text = life.replace(",\n", ", ").replace(" | ", " ")
    assert listened(text) == expected(text)


# --- what is said exactly ---------------------------------------------------------------------------------------------


def alive(*heard: Heard, limit: int | None = None) -> Life:
    return Life(watch=watch_of(heard), account_limit=limit)


def hears(topic: str, *, level: str | None = None, denomination: str | None = None) -> Heard:
    return Heard(1, topic, None, denomination, level)


EVERYTHING: Final = hears("*")


def test_a_change_of_a_balance_says_all_of_it() -> None:
    life = alive(hears("balance_change"))
    life.open("tokens", 10)
    life.price("CHAT", "tokens", {"amount": "3"})
    (hold,) = life.push(event("CHAT", state="pending")).events
    assert life.notifications == [], "a hold moves nothing"
    first, _ = (decision := life.push(event("CHAT"), event("CHAT", "2"))).events
    (made,) = decision.transactions
    (told,) = decision.told.notifications
    assert told == Notification(
        account_id=ACCOUNT_ID,
        topic="balance_change",
        data={
            "denomination": "tokens",
            "amount": 1,
            "pending": 3,
            "available": -2,
            "previous_amount": 10,
            "sequence": 1,
            "transaction_id": spell_of_account("t", ACCOUNT_ID, made.id),
            "event_id": spell_of_account("e", ACCOUNT_ID, first.id),
            "change": -9,
            "type": "EVENT",
            "book": "usage",
        },
        created_at=START,
        denomination="tokens",
        level=None,
        by_rule=False,
        sequence=1,
    )
    life.finish(hold.id, CANCEL)
    (told,) = life.move(("tokens", 5, "refill")).notifications
    assert told.data["event_id"] is None
    assert (told.data["amount"], told.data["pending"], told.data["available"]) == (6, 0, 6)
    assert (told.data["type"], told.data["book"], told.data["change"]) == ("REFILL", "refill", 5)


def test_usage_and_overage_are_two_changes_and_below_zero_twice() -> None:
    life = alive(hears("balance_change"), hears("negative_balance"))
    life.subscribe(
        {"tokens": {"amount": 0, "overage_charge_amount": "2", "overage_charge_denomination": "USD"}},
    )
    life.price("CHAT", "tokens", {"amount": "1"})
    told = life.push(event("CHAT", "4"), event("OTHER", override=(1, "USD"))).told
    assert [(one.topic, one.data["book"], one.sequence) for one in told.notifications if "book" in one.data] == [
        ("balance_change", "usage", 1),
        ("balance_change", "overage", 2),
    ]
    below = [one.data for one in told.notifications if one.topic == "negative_balance"]
    assert [(data["previous_amount"], data["amount"]) for data in below] == [(0, -1), (-1, -9)]


def test_a_level_of_a_balance_says_what_it_is_a_part_of() -> None:
    life = alive(hears("threshold"), hears("threshold", level="below:50"))
    life.open("tokens", 200, filled=1000)
    told = life.push(event("USE", override=(160, "tokens"))).told.notifications
    assert [(one.level, one.by_rule) for one in told] == [("below:50", False), ("consumed:90", True)]
    below, consumed = (one.data for one in told)
    assert consumed == {**below, "level": None, "threshold_percentage": 90}
    assert [below["threshold_percentage"], below["remaining_percentage"]] == [None, None]
    assert {name: below[name] for name in ("level", "filled", "amount", "previous_amount")} == {
        "level": 50,
        "filled": 1000,
        "amount": 40,
        "previous_amount": 200,
    }
    assert [below[name] for name in ("credit_limit_percentage", "credit_limit", "owed")] == [None, None, None]


def test_a_level_of_a_plan_is_told_to_who_names_none_and_says_its_percentage() -> None:
    life = alive(hears("threshold"), hears("threshold", level="remaining:20"))
    life.rules = ()
    life.subscribe({"tokens": {"amount": 0}}, threshold_alert_percentage=20)
    life.open("tokens", 10, filled=10)
    (told,) = life.push(event("USE", override=(9, "tokens"))).told.notifications
    assert (told.level, told.by_rule, told.data["remaining_percentage"]) == ("remaining:20", True, 20)


def test_a_level_of_credit_says_what_is_owed_and_the_limit() -> None:
    life = alive(hears("credit_limit"), hears("threshold"), limit=500)
    life.open("USD", -10)
    told = life.push(event("USE", override=(790, "USD"))).told.notifications
    assert [(one.topic, one.level, one.by_rule) for one in told] == [
        ("credit_limit", "credit:150", True),
        ("threshold", "credit:150", True),
    ]
    assert told[0].data == told[1].data
    assert {name: told[0].data[name] for name in ("owed", "credit_limit", "credit_limit_percentage", "filled")} == {
        "owed": 800,
        "credit_limit": 500,
        "credit_limit_percentage": 150,
        "filled": None,
    }
    assert told[0].data["threshold_percentage"] is None


def test_each_topic_carries_the_fields_that_it_lists() -> None:
    life = alive(EVERYTHING, limit=10)
    life.subscribe({"tokens": {"amount": 0}}, flags={"sms": {"metered": "tokens"}})
    life.open("tokens", 10, filled=10)
    life.push(event("USE", override=(10, "tokens")), event("USE", override=(20, "USD")))
    life.move(("USD", 20, "deposit"))
    assert {told.topic for told in life.notifications} == {
        *("balance_change", "negative_balance", "pause_balance", "threshold", "credit_limit", "flag.changed"),
        *("account.credit_blocked", "account.credit_unblocked"),
    }
    for told in life.notifications:
        assert {*told.data, "metadata"} == {*TOPICS[told.topic].fields, "metadata"}, told.topic


def test_a_flag_of_a_rule_says_from_what_to_what_by_which_transaction() -> None:
    life = alive(EVERYTHING, limit=100)
    decision = life.push(event("USE", override=(150, "USD")), event("USE", override=(1, "tokens")))
    (change,) = decision.told.flags
    of_money = next(made for made in decision.transactions if made.denomination == "USD")
    assert (change.id, change.name, change.source) == (of_money.id, "over_credit_limit", "system")
    assert change.actor == spell_of_account("t", ACCOUNT_ID, of_money.id)
    before = {"type": "binary", "enabled": False, "value": None, "denomination": None}
    assert (change.before, change.after) == (before, before | {"enabled": True})
    (told,) = (one for one in decision.told.notifications if one.topic == "flag.changed")
    assert told.data == {
        **before,
        "enabled": True,
        "name": "over_credit_limit",
        "before": before,
        "source": "system",
        "reason": change.reason,
    }
    (down,) = life.move(("tokens", 1, "refill"), ("USD", 1, "deposit"), ("tokens", 1, "refill")).flags
    assert (down.before, down.after) == (change.after, change.before)
    assert down.reason != change.reason
    assert down.id == next(made.id for made in life.transactions if made.book == "deposit")


def test_a_metered_flag_says_which_balance_it_follows() -> None:
    life = Life()
    life.stored = life.stored._replace(own_flags={"sms": {"metered": "messages"}})
    (up,) = life.move(("messages", 3, "grant")).flags
    (down,) = life.push(event("USE", override=(3, "messages"))).told.flags
    shown = {"type": "metered", "enabled": True, "value": None, "denomination": "messages"}
    assert (up.source, up.before, up.after) == ("balance", shown | {"enabled": False}, shown)
    assert (down.source, down.before, down.after) == ("balance", shown, shown | {"enabled": False})
    assert up.reason != down.reason


def test_what_a_level_does_bars_the_account_at_once() -> None:
    life = Life(account_limit=100)
    life.open("USD", 0)
    assert life.push(event("USE", override=(200, "USD"))).state.bar == "credit_blocked"
    assert [life.stored.blocked_by] == [BLOCKED_BY_LEVEL]
    (refused,) = life.push(event("LOGIN", gated=True)).gated
    assert refused.code == "credit_blocked"
    life.move(("USD", 100, "payment"))
    assert [life.stored.bar, life.stored.blocked_by] == [None, None]
    assert not life.push(event("LOGIN", gated=True)).gated


def state(bar: str | None, blocked_by: str | None) -> AccountState:
    return Life().stored._replace(bar=bar, blocked_by=blocked_by)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "blocks", "after"),
    [
        ((None, None), None, (None, None)),
        (("account_paused", None), None, ("account_paused", None)),
        ((None, None), True, ("credit_blocked", "level")),
        (("account_paused", None), True, ("account_paused", "level")),
        (("credit_blocked", "level"), False, (None, None)),
        (("account_paused", "level"), False, ("account_paused", None)),
    ],
)
def test_a_block_stands_behind_a_pause(
    before: tuple[str | None, str | None],
    blocks: bool | None,  # noqa: FBT001 - a row of the table
    after: tuple[str | None, str | None],
) -> None:
    assert after_told(state(*before), Told(blocks=blocks)) == after


def test_what_arrives_on_a_debt_has_filled_nothing() -> None:
    life = Life()
    life.push(event("USE", override=(10, "tokens")))
    for amount, filled in ((3, 0), (7, 0), (5, 5), (-2, 5), (4, 7)):
        life.move(("tokens", amount, "adjustment"))
        assert life.stored.balances["tokens"].filled == filled


def test_nothing_moved_nothing_told() -> None:
    life = alive(EVERYTHING)
    life.price("TICK", "tokens", {"amount": "0.1"})
    assert life.push(event("TICK")).told is NOTHING
    assert life.move() is NOTHING


def test_unheard_and_without_credit_a_movement_costs_no_thought() -> None:
    life = Life(rules=(Rule(Level("consumed", 1)),))
    life.open("tokens", 10, filled=10)
    assert life.push(event("USE", override=(10, "tokens"))).told is NOTHING


def test_a_paused_company_refuses_what_is_gated() -> None:
    life = Life(is_paused=True)
    (refused,) = life.push(event("LOGIN", gated=True)).gated
    assert (refused.code, refused.details) == ("account_paused", {})
    assert life.push(event("LOGIN")).events


def test_the_books_that_money_passes_through_are_those_of_payments_and_their_papers() -> None:
    assert sorted(PASSING_BOOKS) == [
        *("credit_note", "invoice_item", "payment", "plan", "refund_credit", "tax", "void"),
    ]


# --- sending ----------------------------------------------------------------------------------------------------------


def test_what_is_sent_is_the_same_for_every_attempt() -> None:
    life = alive(hears("balance_change"))
    told = life.push(event("USE", override=(5, "tokens"))).told.notifications[0]
    sent = envelope(told, id="wd_10000000000000002s", company_id=5, metadata={"crm": 1})
    assert sent == {
        "id": "wd_10000000000000002s",
        "topic": "balance_change",
        "company_id": "c_00000005",
        "account_id": "a_10000000",
        "created_at": "2030-01-15 12:00:00.000000+00",
        "data": {**told.data, "metadata": {"crm": 1}},
    }
    assert list(sent["data"]) == [*told.data, "metadata"]  # type: ignore[call-overload]
    assert envelope(told, id="wd_10000000000000002s", company_id=5, metadata={"crm": 1}) == sent
    assert "metadata" not in told.data, "what is kept is not changed by being sent"


def test_a_merged_change_says_from_which_one_on_it_speaks() -> None:
    told = Notification(ACCOUNT_ID, "balance_change", {"sequence": 9, "previous_amount": 3}, START)
    sent = envelope(told, id="wd_1", company_id=5, metadata=None, merged_from=7)
    assert sent["data"] == {"sequence": 9, "previous_amount": 3, "metadata": None, "merged_from_sequence": 7}


def test_what_is_of_no_account_carries_no_metadata() -> None:
    told = Notification(
        None, "webhook.test", {"message": "hello"}, datetime(2024, 2, 20, 5, 46, 11, 769107, tzinfo=UTC)
    )
    sent = envelope(told, id="wd_1", company_id=5, metadata={"crm": 1})
    assert (sent["account_id"], sent["data"]) == (None, {"message": "hello"})
    assert sent["created_at"] == "2024-02-20 05:46:11.769107+00"


def test_a_notification_has_one_id_that_no_other_has() -> None:
    places = [
        (company_id, account_id, position, live)
        for company_id, account_id in ((5, None), (5, 77), (6, None), (6, 78))
        for position in (1, 2, 10**12)
        for live in (False, True)
    ]
    ids = [public_id(company, account, position, live=live) for company, account, position, live in places]
    assert len(set(ids)) == len(places)
    assert ids == [public_id(company, account, position, live=live) for company, account, position, live in places]
    assert public_id(5, None, 1, live=False) == "wd_000000050000000002"
    assert public_id(5, 77, 1, live=True) == "wd_000000250000000003"
    in_order = [public_id(5, 77, position, live=True) for position in (1, 2, 35, 36, 10**6)]
    assert in_order == sorted(in_order), "ids sort by the order of the log"


def test_attempts_go_on_for_three_days_and_wait_longer_each_time() -> None:
    assert sum(SCHEDULE, timedelta()) == timedelta(hours=75, minutes=35, seconds=5) >= timedelta(hours=72)
    assert list(SCHEDULE) == sorted(set(SCHEDULE))
    assert SCHEDULE[0] <= timedelta(seconds=5), "a receiver that hiccups hears it soon"
    assert max(SCHEDULE) <= RETRY_AFTER_MAX


@pytest.mark.parametrize("attempts", range(1, len(SCHEDULE) + 1))
def test_a_wait_is_stretched_by_a_tenth_at_most(attempts: int) -> None:
    wait = SCHEDULE[attempts - 1]
    assert next_wait(attempts, 0) == wait
    waits = [next_wait(attempts, chance) for chance in range(1000)]
    assert all(one is not None and wait <= one < wait * (100 + JITTER_PERCENT) / 100 for one in waits)
    assert len(set(waits)) == 1000, "no two of a thousand come back together"


def test_after_the_last_attempt_there_is_none() -> None:
    assert next_wait(len(SCHEDULE), 0) is not None
    assert next_wait(len(SCHEDULE) + 1, 0) is None
    assert next_wait(len(SCHEDULE) + 99, 999) is None
