"""Money that a stranger must say yes to: which step a payment takes next, and what an answer makes of it.

The problem, on one example. A refill of 1,000 tokens for 10 dollars; anything may die between any two lines:

    status       what is known                                     next step
    intended     written and committed, nobody asked yet           create an unconfirmed intent: no money moves
    created      the provider's id of the intent is committed      confirm by that id
    confirming   the confirmation may have left                    read the intent before anything else
    succeeded    the card was charged                              none; the 1,000 tokens were credited in the same unit

So a card is charged at most once: an intent succeeds once, only an intent whose id we committed is ever confirmed, and
what nobody knows is read and never guessed. A decline that may pass is tried again by schedule, on the same intent; a
hard one, or the third in a row, fails the payment. Sources: design 7 (A card must say yes), bar 2.5 and its appendix
(protocol P7), contract 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from .event import AccountState
from .ledger import DEPOSIT_BOOK, EXPIRY_BOOK, PAYMENT_BOOK, REFILL_BOOK, Balance, Transaction, move, open_balance
from .outcomes import Refusal

Status = Literal[
    "intended", "created", "confirming", "processing", "succeeded", "failed", "skipped", "voiding", "voided"
]
Method = Literal["card", "balance", "out_of_band"]
PaymentReason = Literal[
    "deposit",
    "refill",
    "threshold_refill",
    "refill_start",
    "invoice",
    "plan_start",
    "plan_renewal",
    "plan_change",
    "plan_end",
]
Action = Literal["create", "confirm", "inspect", "cancel", "wait", "none"]

RETRIES: Final = (timedelta(hours=1), timedelta(hours=24))
"""How long after the first and the second decline a card is asked again; the third one fails the payment."""

HARD_DECLINES: Final = frozenset(
    {
        "authentication_required",
        "authentication_not_handled",
        "expired_card",
        "fraudulent",
        "incorrect_number",
        "invalid_account",
        "lost_card",
        "merchant_blacklist",
        "pickup_card",
        "restricted_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "stolen_card",
        "stop_payment_order",
        "transaction_not_allowed",
    }
)
"""Refusals that asking again cannot change: the customer has to act, or give another card."""

DOUBT_FIRST: Final = timedelta(seconds=2)
DOUBT_MAX: Final = timedelta(seconds=60)
PROCESSING: Final = timedelta(seconds=30)
PROCESSING_MAX: Final = timedelta(hours=6)
LEASE: Final = timedelta(seconds=60)
"""How long a worker may take for one step before another may take the payment over."""

AWAITED: Final = frozenset({"deposit", "refill_start", "plan_start", "plan_change"})
"""Reasons for which somebody waits while the card is asked."""

FOR_PLANS: Final = frozenset({"plan_start", "plan_renewal", "plan_change"})
"""Reasons that carry a step of a plan, which is done when the money is there."""

OPEN: Final = frozenset({"intended", "created", "confirming", "processing", "voiding"})
"""Statuses in which something is still to be done."""


class Payment(NamedTuple):
    """Money that is to come in, as it is kept. Amounts in whole minor units of ``currency``.

    Success credits ``units`` to the balance ``denomination``. ``slot`` keeps a second payment for the same need out
    while this one is open. ``next_attempt_at`` is in the company's time and None where nothing is to be done by itself.
    ``fence`` rises each time a worker takes the payment in hand: one that was overtaken records nothing.
    """

    account_id: int
    id: int
    environment_id: int
    method: Method
    reason: PaymentReason
    status: Status
    amount: int
    currency: str
    denomination: str
    units: int
    description: str
    created_at: datetime
    due_at: datetime
    slot: str | None = None
    period_at: datetime | None = None
    settings: Mapping[str, Any] | None = None
    request_key: str | None = None
    fingerprint: bytes | None = None
    intent_id: str | None = None
    charge_id: str | None = None
    card_id: int | None = None
    attempts: int = 0
    declines: int = 0
    code: str | None = None
    message: str | None = None
    refunded: int = 0
    units_returned: int = 0
    fence: int = 0
    next_attempt_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether something is still to be done about it."""
        return self.status in OPEN


class Answered(NamedTuple):
    """What the provider said about an intent: ``status`` in its words, and the last refusal of a card."""

    intent_id: str
    status: str
    amount: int
    currency: str
    decline_code: str | None = None
    decline_message: str | None = None
    charge_id: str | None = None


def next_step(payment: Payment, *, now: datetime) -> Action:
    """What is to be done about a payment at ``now`` (the company's time): a table, in order.

    ``wait``: something is to be done, but later. ``none``: nothing by itself.
    """
    if payment.status not in OPEN or payment.next_attempt_at is None:
        return "none"
    if payment.next_attempt_at > now:
        return "wait"
    match payment.status:
        case "intended":
            return "create"
        case "created":
            return "confirm"
        case "voiding":
            return "cancel"
        case _:
            return "inspect"


def began(payment: Payment, action: Action, *, card_id: int | None, now: datetime) -> Payment:
    """The payment as it must be committed before a step's call leaves: a confirmation is in doubt from then on."""
    taken = payment._replace(fence=payment.fence + 1)
    if action != "confirm":
        return taken
    return taken._replace(
        status="confirming", attempts=payment.attempts + 1, card_id=card_id, next_attempt_at=now + DOUBT_FIRST
    )


def answered(payment: Payment, answer: Answered, *, now: datetime, is_reading: bool) -> Payment:
    """The payment after the provider said how its intent stands. Applying the same answer twice changes nothing more.

    ``is_reading``: the intent was read, not confirmed. If it still waits for a card, the confirmation may never have
    arrived, and its refusal may be an older one: the attempt is made again under its own number and key.

    Raises Refusal ``gateway_mismatch`` where the intent is not for this amount and currency: that is never applied.
    """
    if answer.amount != payment.amount or answer.currency != payment.currency:
        raise Refusal("gateway_mismatch", expected=payment.amount, found=answer.amount)
    if payment.status in {"succeeded", "voided"}:
        return payment
    known = payment._replace(intent_id=answer.intent_id, charge_id=answer.charge_id or payment.charge_id)
    match answer.status:
        case "succeeded":
            return known._replace(
                status="succeeded", code=None, message=None, next_attempt_at=None, finished_at=now, slot=payment.slot
            )
        case "canceled":
            return known._replace(status="voided", next_attempt_at=None, finished_at=now)
        case "processing" | "requires_capture":
            # What was given up stays so: once the bank has decided, the intent is cancelled, if it still can be.
            status: Status = "voiding" if payment.status == "voiding" else "processing"
            return known._replace(status=status, next_attempt_at=now + _patience(known))
        case _ if payment.status == "failed":
            return known
        case _ if payment.status == "voiding":
            return known._replace(next_attempt_at=now)
        case "requires_confirmation" | "requires_payment_method" if answer.decline_code is None or (
            is_reading and payment.status == "confirming"
        ):
            attempts = payment.attempts - (payment.status == "confirming")
            return known._replace(status="created", attempts=attempts, next_attempt_at=now)
        case "requires_action":
            return _declined(known, "authentication_required", "The bank wants the customer to confirm.", now)
        case _:
            return _declined(known, answer.decline_code or "card_declined", answer.decline_message or "", now)


def _patience(payment: Payment) -> timedelta:
    """How long a bank that takes its time is left alone: ever longer, from half a minute to six hours."""
    looks = max(0, payment.fence - 1 - payment.attempts)
    return min(PROCESSING * (1 << min(looks, 10)), PROCESSING_MAX)


def _declined(payment: Payment, code: str, message: str, now: datetime) -> Payment:
    """After a decline: tried again by schedule, or failed."""
    if payment.status not in {"confirming", "processing"}:
        # An old refusal, read again: it was counted when it was new.
        return payment._replace(status="created", next_attempt_at=payment.next_attempt_at or now)
    declines = payment.declines + 1
    told = payment._replace(declines=declines, code=code, message=message)
    if code in HARD_DECLINES or declines > len(RETRIES) or payment.reason in AWAITED:
        # Somebody waits for its answer; to try it again is theirs to decide.
        return told._replace(status="failed", next_attempt_at=None, finished_at=now)
    return told._replace(status="created", next_attempt_at=now + RETRIES[declines - 1])


def in_doubt(payment: Payment, *, tries: int, now: datetime) -> Payment:
    """After a call that nobody knows the end of: asked about again, ever more slowly, up to once a minute."""
    return payment._replace(next_attempt_at=now + min(DOUBT_FIRST * 2 ** min(tries, 10), DOUBT_MAX))


def told_of_success(payment: Payment, *, now: datetime) -> Payment | None:
    """The payment once a message says that its intent succeeded: a hint to look, not the truth. None: no news.

    The fence rises, for a worker may hold the refusal of a later attempt: recorded after this, it would bury the hint,
    and what was charged would stay failed.
    """
    if payment.status not in {"created", "confirming", "processing", "failed", "voided"}:
        return None
    status: Status = "processing"
    if payment.status == "confirming":
        status = "confirming"
    elif payment.status in {"failed", "voided"}:
        # What was given up without asking the provider may be paid all the same. Its slot may be another's by now.
        # To be cancelled it is read first, and found to have been paid.
        payment, status = payment._replace(slot=None), "voiding"
    return payment._replace(status=status, fence=payment.fence + 1, next_attempt_at=now, finished_at=None)


def failed(payment: Payment, code: str, message: str, *, now: datetime) -> Payment:
    """The payment when it cannot go on: no card, or the provider refuses the request itself."""
    return payment._replace(status="failed", code=code, message=message, next_attempt_at=None, finished_at=now)


def retried(payment: Payment, *, now: datetime) -> Payment:
    """Try a failed or skipped payment again, on the same intent. Raises Refusal ``payment_not_retryable``."""
    is_over = payment.status in {"failed", "skipped"} and payment.reason not in {"plan_start", "plan_change"}
    if not is_over and not (payment.status == "created" and payment.declines):
        raise Refusal("payment_not_retryable", status=shown_status(payment))
    status: Status = "created" if payment.intent_id else "intended"
    return payment._replace(status=status, declines=0, next_attempt_at=now, finished_at=None)


def voided(payment: Payment, *, now: datetime) -> Payment:
    """Give a payment up. Where an intent exists the provider has to cancel it first, for it may have succeeded.

    Until that is known an open one keeps its slot; the slot of a failed or skipped one may be another's by now.
    Raises Refusal ``payment_not_voidable``.
    """
    if payment.status in {"succeeded", "voided"}:
        raise Refusal("payment_not_voidable", status=shown_status(payment))
    if payment.intent_id is None and payment.status not in {"confirming", "processing"}:
        return payment._replace(status="voided", next_attempt_at=None, finished_at=now)
    slot = payment.slot if payment.is_open else None
    return payment._replace(status="voiding", slot=slot, next_attempt_at=now, finished_at=None)


_CREDITS: Final[Mapping[PaymentReason, tuple[str, str]]] = {
    "deposit": (DEPOSIT_BOOK, "DEPOSIT"),
    "refill": (REFILL_BOOK, "REFILL"),
    "refill_start": (REFILL_BOOK, "REFILL"),
    "threshold_refill": (REFILL_BOOK, "THRESHOLD_REFILL"),
    "invoice": (PAYMENT_BOOK, "PAYMENT"),
    "plan_start": (PAYMENT_BOOK, "PAYMENT"),
    "plan_renewal": (PAYMENT_BOOK, "PAYMENT"),
    "plan_change": (PAYMENT_BOOK, "PAYMENT"),
    "plan_end": (PAYMENT_BOOK, "PAYMENT"),
}


def paid_in(state: AccountState, payment: Payment, *, id: int, now: datetime) -> tuple[Balance, Transaction]:
    """What a payment that succeeded does to its balance; a balance that is not there yet is opened by it."""
    book, kind = _CREDITS[payment.reason]
    return move(
        state.balances.get(payment.denomination) or open_balance(payment.denomination),
        payment.units,
        id=id,
        book=book,
        type=kind,
        description=payment.description,
        now=now,
        cause_id=payment.id,
    )


def credited(
    state: AccountState, payment: Payment, *, id: int, now: datetime
) -> tuple[tuple[Balance, Transaction], ...]:
    """The same, with the end of what is left of the refill that it takes the place of (contract 3.3), if of any."""
    came = paid_in(state, payment, id=id, now=now)
    ended: int = (payment.settings or {}).get("cancelled", 0)
    if not ended:
        return (came,)
    return came, move(
        came[0],
        -ended,
        id=id + 1,
        book=EXPIRY_BOOK,
        type="CANCEL_REMAINING",
        description="What was left of the last refill",
        now=now,
        cause_id=payment.id,
    )


def makes_room(payment: Payment) -> bool:
    """Whether a refill below a threshold waits after a decline: a deposit by hand is for the same need."""
    return payment.reason == "threshold_refill" and payment.status == "created" and payment.declines > 0


def dropped(payment: Payment, *, now: datetime) -> Payment:
    """Give up a payment that makes room. Its intent waits for a card that nobody will name: it never takes money."""
    return payment._replace(status="voided", next_attempt_at=None, finished_at=now)


class Returned(NamedTuple):
    """What a refund gives back: money, and the units it takes off the balance again."""

    amount: int
    units: int


def returnable(
    payment: Payment, amount: int | None, *, promised: int, promised_units: int, credited: int = 0
) -> Returned:
    """What can be given back of a payment: ``amount`` of it (None: all that is left), and the units that go with it.

    ``promised`` is what refunds under way give back already, with their units; ``credited`` what credit notes did.
    Units are taken in proportion, rounded down in sum, so that a full set of parts takes exactly what the payment gave.
    Raises Refusal ``payment_not_refundable`` or ``refund_exceeds_payment``.
    """
    if payment.status != "succeeded" or payment.method == "balance":
        raise Refusal("payment_not_refundable", status=shown_status(payment))
    gone = payment.refunded + promised
    left = payment.amount - gone - credited
    wanted = left if amount is None else amount
    if wanted > left or left <= 0:
        raise Refusal("refund_exceeds_payment", refundable=left, required=wanted)
    units = payment.units * (gone + wanted) // payment.amount - payment.units_returned - promised_units
    return Returned(wanted, max(0, units))


def credited_again(payment: Payment, units: int, *, settled: int, credited: int) -> int:
    """What of the units that a refund takes is credited again: the part of them that had paid invoices.

    What a customer owed for usage and paid must not be owed again because it was given back. ``settled`` is how much of
    the payment paid invoices; what the balance holds of it goes back first. ``credited`` is what refunds that stand
    have credited of it already.
    """
    held = payment.units - settled
    return min(units, max(0, payment.units_returned + units - held - credited))


def returned(payment: Payment, amount: int, units: int) -> Payment:
    """The payment once money went back."""
    return payment._replace(refunded=payment.refunded + amount, units_returned=payment.units_returned + units)


def shown_status(payment: Payment) -> str:
    """The status in the contract's words: pending, succeeded, failed, skipped, voided, refunded (contract 2.4)."""
    if payment.status == "succeeded" and payment.amount and payment.refunded == payment.amount:
        return "refunded"
    return "pending" if payment.status in OPEN else payment.status


class RefillCaps(NamedTuple):
    """How often a balance may be refilled by itself, and for how much a day; None: no bound (bar I-49)."""

    per_hour: int = 4
    per_day: int | None = 24
    amount_per_day: int | None = None


class RefillsDone(NamedTuple):
    """What was refilled of one balance lately: how often in the last hour and day, and for how much in the last day."""

    hour: int
    day: int
    amount: int


def over_cap(caps: RefillCaps, done: RefillsDone, charge: int) -> bool:
    """Whether one more refill, for ``charge``, would go beyond what the company allows."""
    if done.hour >= caps.per_hour:
        return True
    if caps.per_day is not None and done.day >= caps.per_day:
        return True
    return caps.amount_per_day is not None and done.amount + charge > caps.amount_per_day
