"""What bodies about invoices may look like: settings of a company, terms of an account, drafts, credit notes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from tenuto.core.invoice import DunningAction, ManualLine, TaxLine, TaxRate, given_taxes
from tenuto.core.money import AMOUNT_MAX, exact, is_fiat
from tenuto.core.outcomes import invalid

from . import body as bodies

TAXES_MAX: Final = 10
LINES_MAX: Final = 200
STEPS_MAX: Final = 20
TERMS_MAX_DAYS: Final = 3650
GRACE_MAX: Final = timedelta(days=60)
TEXT_MAX: Final = 2000
PERCENT_MAX: Final = 100
_PREFIX: Final = re.compile(r"[A-Za-z0-9./_-]{0,20}")
_SELLER_MAX: Final = {"name": 200, "address": 1000, "tax_id": 100, "email": 254}
ACTIONS: Final[tuple[DunningAction, ...]] = ("remind", "pause", "credit_block")


class TaxIn(msgspec.Struct, forbid_unknown_fields=True):
    """A tax: ``rate`` in percent, decimal text. An inclusive one is contained in the prices."""

    name: str
    rate: msgspec.Raw
    inclusive: bool = False


class DunningIn(msgspec.Struct, forbid_unknown_fields=True):
    """A step of the ladder: so many days after an invoice was due."""

    days: int
    action: str


class SellerIn(msgspec.Struct, forbid_unknown_fields=True):
    """Who sells, as it stands on every invoice."""

    name: str = ""
    address: str = ""
    tax_id: str = ""
    email: str = ""


class InvoicingIn(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How the company invoices; the whole section, what is missing gets its default."""

    prefix: str | None = None
    grace_seconds: int | None = None
    terms_days: int | None = None
    seller: SellerIn | None = None
    taxes: list[TaxIn] | None = None
    dunning: list[DunningIn] | None = None
    currency: str | None = None
    footer: str | None = None


class TermsIn(msgspec.Struct, forbid_unknown_fields=True):
    """How an account pays by invoice; null where the company's choice holds."""

    currency: str
    terms_days: int | None = None
    collection: str = "send_invoice"
    grace_seconds: int | None = None
    taxes: list[TaxIn] | None = None
    memo: str | None = None


class ManualLineIn(msgspec.Struct, forbid_unknown_fields=True):
    """A line that the company writes; below zero it takes off."""

    description: str
    amount: int


class GivenTaxIn(msgspec.Struct, forbid_unknown_fields=True):
    """A tax that was worked out elsewhere: an amount on top of the subtotal."""

    name: str
    amount: int


class CutIn(msgspec.Struct, forbid_unknown_fields=True):
    """An invoice to cut now, of all that was posted since the last one."""

    currency: str | None = None
    preview: bool = False
    lines: list[ManualLineIn] = []


class DraftChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change about a draft; what is missing stays. ``taxes`` null goes back to the rates of the account."""

    lines: list[ManualLineIn] | msgspec.UnsetType = msgspec.UNSET
    taxes: list[GivenTaxIn] | msgspec.UnsetType | None = msgspec.UNSET
    memo: str | msgspec.UnsetType = msgspec.UNSET


class PaidIn(msgspec.Struct, forbid_unknown_fields=True):
    """How an invoice was paid outside: a transfer's reference, a cheque's number."""

    reference: str


class CreditNoteIn(msgspec.Struct, forbid_unknown_fields=True):
    """What to take from an invoice, and why."""

    amount: int
    reason: str


class LinkIn(msgspec.Struct, forbid_unknown_fields=True):
    """A hosted page of an invoice."""

    expires_in_days: int = 90


def currency(value: str, path: str = "currency") -> str:
    """An ISO 4217 code in capitals."""
    if not is_fiat(value):
        raise invalid(path, "is a currency of ISO 4217 in capitals, such as USD.")
    return value


def rates(given: Sequence[TaxIn], path: str) -> tuple[TaxRate, ...]:
    """Tax rates above 0 and up to 100 percent."""
    if len(given) > TAXES_MAX:
        raise invalid(path, f"holds at most {TAXES_MAX} taxes.")
    found: list[TaxRate] = []
    for index, tax in enumerate(given):
        at = f"{path}[{index}]"
        rate = bodies.decimal(tax.rate, f"{at}.rate")
        if rate is None or not 0 < exact(rate).numerator <= PERCENT_MAX * exact(rate).denominator:
            raise invalid(f"{at}.rate", 'takes percent as decimal text above 0 and up to 100, such as "7.7".')
        found.append(TaxRate(bodies.text(tax.name, f"{at}.name", 100), rate, tax.inclusive))
    return tuple(found)


def amounts(given: Sequence[GivenTaxIn], path: str) -> tuple[TaxLine, ...]:
    """Taxes by amount."""
    if len(given) > TAXES_MAX:
        raise invalid(path, f"holds at most {TAXES_MAX} taxes.")
    return given_taxes(
        [
            (
                bodies.text(tax.name, f"{path}[{index}].name", 100),
                bodies.whole(tax.amount, f"{path}[{index}].amount"),
            )
            for index, tax in enumerate(given)
        ]
    )


def manual_lines(given: Sequence[ManualLineIn], path: str = "lines") -> tuple[ManualLine, ...]:
    """Manual lines; an amount may be below zero, not zero."""
    if len(given) > LINES_MAX:
        raise invalid(path, f"holds at most {LINES_MAX} lines.")
    found: list[ManualLine] = []
    for index, line in enumerate(given):
        at = f"{path}[{index}]"
        amount = bodies.whole(line.amount, f"{at}.amount", least=-AMOUNT_MAX)
        if amount == 0:
            raise invalid(f"{at}.amount", "is above or below zero.")
        found.append(ManualLine(bodies.text(line.description, f"{at}.description", 500), amount))
    return tuple(found)


def memo(value: str, path: str = "memo") -> str:
    """A text of some length; it may be empty."""
    return bodies.text(value, path, TEXT_MAX, shortest=0)


def invoicing(given: InvoicingIn) -> dict[str, Any]:
    """The section ``invoicing`` of a company's settings, as it is kept."""
    kept: dict[str, Any] = {}
    if given.grace_seconds is not None:
        kept["grace_seconds"] = bodies.seconds(given.grace_seconds, "invoicing.grace_seconds", GRACE_MAX)
    if given.terms_days is not None:
        kept["terms_days"] = bodies.whole(given.terms_days, "invoicing.terms_days", most=TERMS_MAX_DAYS)
    if given.taxes is not None:
        found = rates(given.taxes, "invoicing.taxes")
        kept["taxes"] = [{"name": tax.name, "rate": tax.rate, "inclusive": tax.is_inclusive} for tax in found]
    if given.dunning is not None:
        kept["dunning"] = _ladder(given.dunning)
    if given.currency is not None:
        kept["currency"] = currency(given.currency, "invoicing.currency")
    return kept | _texts(given)


def _texts(given: InvoicingIn) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if given.prefix is not None:
        if not _PREFIX.fullmatch(given.prefix):
            raise invalid("invoicing.prefix", "takes up to 20 letters, digits and the characters . / _ -")
        kept["prefix"] = given.prefix
    if given.seller is not None:
        fields = msgspec.to_builtins(given.seller)
        for name, longest in _SELLER_MAX.items():
            bodies.text(fields[name], f"invoicing.seller.{name}", longest, shortest=0)
        kept["seller"] = fields
    if given.footer is not None:
        kept["footer"] = memo(given.footer, "invoicing.footer")
    return kept


def _ladder(given: Sequence[DunningIn]) -> list[dict[str, object]]:
    if len(given) > STEPS_MAX:
        raise invalid("invoicing.dunning", f"holds at most {STEPS_MAX} steps.")
    for index, step in enumerate(given):
        bodies.whole(step.days, f"invoicing.dunning[{index}].days", most=TERMS_MAX_DAYS)
        if step.action not in ACTIONS:
            raise invalid(f"invoicing.dunning[{index}].action", f"is one of {', '.join(ACTIONS)}.")
    return [{"days": step.days, "action": step.action} for step in sorted(given, key=lambda step: step.days)]
