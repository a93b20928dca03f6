"""The list of refusals, and what a refusal carries."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tenuto.core.outcomes import REFUSALS, Kind, Refusal, invalid


def test_a_refusal_says_its_standard_sentence_unless_it_has_a_better_one() -> None:
    plain = Refusal("event_finished", state="complete")
    assert (plain.code, plain.kind, plain.details) == ("event_finished", Kind.CONFLICT, {"state": "complete"})
    assert plain.message == str(plain) == REFUSALS["event_finished"][1]
    assert Refusal("event_finished", "It is over.").message == "It is over."


def test_a_code_outside_the_list_cannot_be_said() -> None:
    with pytest.raises(KeyError):
        Refusal("computer_says_no")


def test_a_field_is_refused_with_its_path() -> None:
    refusal = invalid("events[3].quantity", "a number above zero.", "must_be_positive")
    assert (refusal.code, refusal.details) == ("must_be_positive", {"path": "events[3].quantity"})
    assert refusal.message == "events[3].quantity: a number above zero."
    assert invalid("name", "is empty.").code == "invalid_field"


@pytest.mark.parametrize("code", REFUSALS)
def test_a_code_is_a_word_and_its_sentence_a_sentence(code: str) -> None:
    kind, sentence = REFUSALS[code]
    assert isinstance(kind, Kind)
    assert code == code.lower()
    assert code.replace("_", "").isalpha()
    assert sentence[0].isupper()
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        # contract 3.11 and design 4, 6, 9, 10, 12
        ("insufficient_balance", Kind.PAYMENT),
        ("credit_limit_reached", Kind.PAYMENT),
        ("account_paused", Kind.PAYMENT),
        ("credit_blocked", Kind.PAYMENT),
        ("key_reused", Kind.INVALID),
        ("event_finished", Kind.CONFLICT),
        ("event_expired", Kind.CONFLICT),
        ("exceeds_reserved", Kind.INVALID),
        ("price_exists", Kind.CONFLICT),
        ("balance_exists", Kind.CONFLICT),
        ("unknown_field", Kind.INVALID),
        ("invalid_cursor", Kind.UNREADABLE),
        ("unsupported_media_type", Kind.MEDIA),
        ("not_found", Kind.MISSING),
        ("invalid_credentials", Kind.UNAUTHORIZED),
        ("overloaded", Kind.BUSY),
    ],
)
def test_what_clients_were_promised(code: str, kind: Kind) -> None:
    assert REFUSALS[code][0] is kind


def test_the_order_of_judgement() -> None:
    order = list(REFUSALS)
    stages = [
        ["not_found", "method_not_allowed"],
        ["uri_too_long", "body_too_large"],
        ["invalid_credentials", "insufficient_scope"],
        ["unsupported_media_type"],
        ["invalid_encoding", "invalid_json"],
        ["unknown_field", "invalid_field"],
        ["key_reused"],
        ["event_finished", "event_expired"],
        ["exceeds_reserved"],
        ["account_paused", "credit_limit_reached", "insufficient_balance"],
        ["balance_out_of_range"],
    ]
    places = [[order.index(code) for code in stage] for stage in stages]
    assert all(max(before) < min(after) for before, after in pairwise(places))
