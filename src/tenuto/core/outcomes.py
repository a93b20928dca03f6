"""Everything the engine can answer with a "no".

                               Refusal(code, message, details)
                                            |
        +-------------+-----------+---------+-----+-----------+-----------+----------+
    unreadable   unauthorized  payment     forbidden   missing     conflict     invalid
    400          401           402         403         404         409          422

A refusal is an expected answer with a code from the closed list below, not a fault. The order of the list is the order
of judgement: what stands above is said first (bar 4.1). The HTTP status belongs to the kind and is set at the edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Kind(Enum):
    """What sort of "no" a refusal is; the edge turns it into a status."""

    UNREADABLE = "unreadable"
    UNAUTHORIZED = "unauthorized"
    PAYMENT = "payment"
    FORBIDDEN = "forbidden"
    MISSING = "missing"
    METHOD = "method"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    MEDIA = "media"
    INVALID = "invalid"
    BUSY = "busy"
    FAULT = "fault"


REFUSALS: Final[Mapping[str, tuple[Kind, str]]] = {
    "not_found": (Kind.MISSING, "There is nothing at this address, or it belongs to somebody else."),
    "method_not_allowed": (Kind.METHOD, "This address does not answer that method; the Allow header says which."),
    "uri_too_long": (Kind.TOO_LONG, "The address with its query is longer than 8 kB."),
    "body_too_large": (Kind.TOO_LARGE, "A body may have at most 1 MiB; send fewer events a request."),
    "invalid_credentials": (Kind.UNAUTHORIZED, "Send the company id and API key by HTTP Basic, or the key as Bearer."),
    "registration_closed": (Kind.FORBIDDEN, "New companies are opened with the operator's token on this server."),
    "sign_in_failed": (Kind.UNAUTHORIZED, "The address or the password is not right."),
    "code_needed": (Kind.UNAUTHORIZED, "Give the code that your authenticator shows now."),
    "sign_in_delayed": (Kind.BUSY, "Too many tries have failed; wait before the next one."),
    "foreign_form": (Kind.FORBIDDEN, "The form did not come from this site's own page; load the page and try again."),
    "owner_needed": (Kind.FORBIDDEN, "Only an owner of the company can make, change or remove an owner."),
    "insufficient_scope": (Kind.FORBIDDEN, "The key is good but lacks the scope that this call needs."),
    "unsupported_media_type": (Kind.MEDIA, "Send the body as application/json."),
    "invalid_encoding": (Kind.UNREADABLE, "The body is not UTF-8 text."),
    "invalid_json": (Kind.UNREADABLE, "The body is not JSON."),
    "duplicate_key": (Kind.UNREADABLE, "An object in the body names one key twice."),
    "invalid_cursor": (Kind.UNREADABLE, "The cursor is not one that this list gave."),
    "too_deep": (Kind.INVALID, "The body nests deeper than 16 levels."),
    "invalid_string": (Kind.INVALID, "A text holds a character that cannot be stored."),
    "unknown_field": (Kind.INVALID, "A field is not known here; see the reference for those that are."),
    "invalid_field": (Kind.INVALID, "A field has a value that is not allowed."),
    "missing_field": (Kind.INVALID, "A required field is missing."),
    "must_be_positive": (Kind.INVALID, "A number must be above zero."),
    "zone_required": (Kind.INVALID, "A time must say its zone: end it with Z or an offset."),
    "unknown_zone": (Kind.INVALID, "A zone must be an IANA name such as Europe/Berlin, an offset hh:mm below a day."),
    "out_of_range": (Kind.INVALID, "A value lies outside what can be stored."),
    "in_future": (Kind.INVALID, "The event's time lies too far ahead of now."),
    "too_late": (Kind.INVALID, "The event's time lies further back than this company accepts."),
    "clock_not_forward": (Kind.INVALID, "A test clock only moves forward."),
    "not_supported_yet": (Kind.INVALID, "This part of the contract is not served yet."),
    "idempotency_key_invalid": (Kind.UNREADABLE, "An idempotency key is 1 to 255 printable ASCII characters."),
    "key_reused": (Kind.INVALID, "The key was used before with another body."),
    "event_finished": (Kind.CONFLICT, "The event is finished already; its state is in the details."),
    "event_expired": (Kind.CONFLICT, "The hold was not settled within its hour and is gone."),
    "event_not_suspended": (Kind.CONFLICT, "The event is not kept aside; its state is in the details."),
    "exceeds_reserved": (Kind.INVALID, "The settlement is above what the hold reserved."),
    "balance_exists": (Kind.CONFLICT, "The account has a balance of this denomination already."),
    "price_exists": (Kind.CONFLICT, "A price with this type, denomination and match exists; change that one."),
    "plan_exists": (Kind.CONFLICT, "A plan with this code exists; change that one, or archive it first."),
    "plan_archived": (Kind.CONFLICT, "The plan is archived; accounts on it stay, but it is not changed or sold."),
    "live_clock": (Kind.FORBIDDEN, "Only a test key can move a clock; live time is real."),
    "last_key": (Kind.CONFLICT, "This is the last key that can manage keys; make another first."),
    "account_paused": (Kind.PAYMENT, "The account is paused."),
    "credit_blocked": (Kind.PAYMENT, "The account is over its limit and blocked until it pays."),
    "credit_limit_reached": (Kind.PAYMENT, "The balance and its credit limit do not cover this."),
    "insufficient_balance": (Kind.PAYMENT, "The balance does not cover this."),
    "spend_cap_reached": (Kind.PAYMENT, "The plan's spend cap for this period does not leave room for this."),
    "payment_method_required": (Kind.PAYMENT, "The account has no card to charge; attach one first."),
    "payment_failed": (Kind.PAYMENT, "The card was refused; the reason is in the details."),
    "refill_in_progress": (Kind.CONFLICT, "A refill of this balance is being paid for; try again when it is done."),
    "no_refill": (Kind.CONFLICT, "This balance has no refill to resume."),
    "amount_not_chargeable": (Kind.INVALID, "A card cannot be charged this amount in this currency."),
    "no_account": (Kind.INVALID, "You need to create an account first."),
    "account_exists": (Kind.INVALID, "The organization has an account already."),
    "parent_pays": (Kind.FORBIDDEN, "The billing of this organization is managed by its parent."),
    "organization_unknown": (Kind.FORBIDDEN, "This organization is not known here; ask whoever runs the service."),
    "organization_cycle": (Kind.CONFLICT, "An organization cannot stand above itself, nor deeper than 32."),
    "organization_in_use": (Kind.CONFLICT, "An organization with an account, or with others below it, stays."),
    "issuer_exists": (Kind.CONFLICT, "Tokens with this issuer and audience are believed already, here or elsewhere."),
    "not_cleared": (Kind.PAYMENT, "No more of this can be made; the reasons are in the details."),
    "not_implemented": (Kind.METHOD, "This is not implemented; contact support."),
    "method_not_usable": (Kind.INVALID, "This is no payment method that was confirmed for this account."),
    "card_needed": (Kind.INVALID, "The only payment method, or the one a running subscription is paid with, stays."),
    "tax_id_exists": (Kind.INVALID, "The account has this tax number already."),
    "too_many_tax_ids": (Kind.INVALID, "An account has at most 20 tax numbers; delete one first."),
    "url_not_allowed": (Kind.INVALID, "Webhooks go to public https addresses only; the reason is in the message."),
    "payment_not_retryable": (Kind.CONFLICT, "Only a failed or skipped payment can be tried again."),
    "payment_not_voidable": (Kind.CONFLICT, "This payment is over; a refund gives money back."),
    "payment_not_refundable": (Kind.CONFLICT, "Only money that came in can go back."),
    "refund_exceeds_payment": (Kind.INVALID, "The refund is more than what is left of the payment."),
    "gateway_not_configured": (Kind.CONFLICT, "The company has no Stripe key; set stripe_key first."),
    "gateway_refused": (Kind.INVALID, "Stripe refuses the request; its reason is in the details."),
    "gateway_unavailable": (Kind.BUSY, "Stripe gives no answer; send it again with the same key after Retry-After."),
    "gateway_mismatch": (Kind.CONFLICT, "Stripe's object is not for this amount and currency; nothing was applied."),
    "bad_signature": (Kind.UNREADABLE, "The message is not signed by the secret that is set, or it is too old."),
    "link_not_usable": (Kind.MISSING, "This link was used, has expired, or never was one."),
    "no_plan": (Kind.CONFLICT, "The account is on no plan."),
    "plan_not_paid": (Kind.CONFLICT, "The plan's renewal was not paid; a new card, or another scheme, comes first."),
    "plan_not_active": (Kind.CONFLICT, "The plan is not active; its status is in the details."),
    "plan_not_paused": (Kind.CONFLICT, "The plan is not paused; its status is in the details."),
    "plan_change_in_progress": (Kind.CONFLICT, "A change or renewal of the plan is being paid for; try again then."),
    "nothing_scheduled": (Kind.CONFLICT, "Neither a change nor an end of the plan is scheduled."),
    "overage_exists": (Kind.CONFLICT, "This balance of the plan has a price for what goes beyond it already."),
    "offer_void": (Kind.CONFLICT, "The plan is not the one that this was offered for any more; ask again."),
    "grant_closed": (Kind.CONFLICT, "The grant is over already."),
    "flag_is_set_by_system": (Kind.CONFLICT, "A pause, or a rule of the company, sets this flag; nobody does by hand."),
    "balance_out_of_range": (Kind.INVALID, "The balance would leave the range that can be kept."),
    "no_invoice_terms": (Kind.CONFLICT, "The account does not pay by invoice in this currency; set its terms first."),
    "nothing_to_invoice": (Kind.CONFLICT, "Nothing was posted since the last invoice that comes to more than zero."),
    "invoice_not_draft": (Kind.CONFLICT, "Only a draft can be changed, made final or discarded."),
    "not_latest_invoice": (Kind.CONFLICT, "Only the latest cut of a currency can be discarded; void the others."),
    "invoice_not_open": (Kind.CONFLICT, "The invoice is not open; its status is in the details."),
    "invoice_settled": (Kind.CONFLICT, "The invoice is paid, wholly or in part; a credit note takes from it."),
    "credit_exceeds_invoice": (
        Kind.INVALID,
        "The credit notes and refunds would come to more than the invoice's total.",
    ),
    "payment_in_progress": (Kind.CONFLICT, "A payment for invoices of this currency is under way; wait for its end."),
    "user_exists": (Kind.CONFLICT, "The company has a user, or an invitation, with this address."),
    "last_owner": (Kind.CONFLICT, "A company has at least one owner: name another first."),
    "request_in_progress": (Kind.CONFLICT, "A request with this key is being worked on; try again in a moment."),
    "overloaded": (Kind.BUSY, "More requests wait than this server takes on; try again after Retry-After."),
    "unavailable": (Kind.BUSY, "The database does not answer; send it again with the same key after Retry-After."),
    "internal_error": (Kind.FAULT, "A fault of ours. The request id finds it in the log."),
}
"""Every code with its kind and the sentence it stands for."""


class Refusal(Exception):
    """An expected "no": ``code`` from :data:`REFUSALS`, a sentence for people, and facts under ``details``."""

    def __init__(self, code: str, message: str | None = None, **details: object) -> None:
        self.code = code
        self.kind, standard = REFUSALS[code]
        self.message = message or standard
        self.details = details
        super().__init__(self.message)


def invalid(path: str, message: str, code: str = "invalid_field") -> Refusal:
    """The refusal of one field: ``path`` as ``events[3].quantity``, ``message`` a sentence that says what it takes."""
    return Refusal(code, f"{path}: {message}", path=path)


def beneath(path: str, refusal: Refusal) -> Refusal:
    """The refusal of a field, said of the same field of what stands at ``path`` in the body."""
    details = {**refusal.details, "path": f"{path}.{refusal.details['path']}"}
    return Refusal(refusal.code, f"{path}.{refusal.message}", **details)
