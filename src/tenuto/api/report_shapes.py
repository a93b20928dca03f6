"""The objects of reports, as they are written to the wire: rows that add up, and filters that show what they sum."""

from __future__ import annotations

import msgspec

from . import shapes


class UsageRowOut(shapes.Shape):
    """What events of one day, month or type came to in one denomination; null: events without a price.

    An event counts once, in the row of its first charge; further charges, such as of overage, add to the amount of
    theirs. ``cogs`` is what the events cost the company, by currency.
    """

    bucket: str
    denomination: str | None
    events: int
    quantity: str
    amount: int
    cogs: dict[str, int]


class UsageOut(shapes.Shape):
    """What an account used: complete events by when they were recorded, from ``from`` up to before ``to``."""

    account_id: str
    from_: str = msgspec.field(name="from")
    to: str
    by: str
    rows: list[UsageRowOut]
    has_more: bool


class MovementRowOut(shapes.Shape):
    """What moved one balance against one book on a day or in a month, and what was on it after the last of that."""

    bucket: str
    denomination: str
    book: str
    amount: int
    ending_balance: int


class MovementsOut(shapes.Shape):
    """The movements of an account's balances, recorded from ``from`` up to before ``to``."""

    account_id: str
    from_: str = msgspec.field(name="from")
    to: str
    by: str
    rows: list[MovementRowOut]


class TotalOut(shapes.Shape):
    """All events of a report in one denomination."""

    denomination: str | None
    events: int
    quantity: str
    amount: int
    cogs: dict[str, int]


class ReportRowOut(UsageRowOut):
    """The same of a company; ``filters`` are those of the list of events that shows them, but for further charges."""

    filters: dict[str, str]


class UsageReportOut(shapes.Shape):
    """What all accounts used: complete events by when they were recorded. ``totals`` count what ``limit`` cut, too."""

    from_: str = msgspec.field(name="from")
    to: str
    by: str
    rows: list[ReportRowOut]
    totals: list[TotalOut]
    has_more: bool


class AccountRowOut(shapes.Shape):
    """What one account used in one denomination."""

    account_id: str
    name: str
    denomination: str | None
    events: int
    quantity: str
    amount: int
    cogs: dict[str, int]
    filters: dict[str, str]


class AccountsReportOut(shapes.Shape):
    """The accounts that were charged most, in each denomination; ``totals`` are of all accounts."""

    from_: str = msgspec.field(name="from")
    to: str
    rows: list[AccountRowOut]
    totals: list[TotalOut]
    has_more: bool


class CostRowOut(shapes.Shape):
    """What usage brought in one currency, what it cost the company, and what is left: margin is revenue less cogs.

    ``bucket`` is a type, a day, a month, or the id of an account, whose ``name`` is told too.
    """

    bucket: str
    name: str | None
    currency: str
    revenue: int
    cogs: int
    margin: int
    margin_percent: str | None
    filters: dict[str, str]


class CostTotalOut(shapes.Shape):
    """The same of all of them."""

    currency: str
    revenue: int
    cogs: int
    margin: int
    margin_percent: str | None


class CostsReportOut(shapes.Shape):
    """Revenue of usage in currencies, costs and margin; what is charged in tokens counts where they are bought."""

    from_: str = msgspec.field(name="from")
    to: str
    by: str
    rows: list[CostRowOut]
    totals: list[CostTotalOut]
    has_more: bool


class RevenueTotalOut(shapes.Shape):
    """Money that came in, and that went back by refund or dispute; ``net`` is what is left of it."""

    currency: str
    payments: int
    amount: int
    refunds: int
    refunded: int
    disputes: int
    disputed: int
    net: int


class RevenueRowOut(RevenueTotalOut):
    """The same for one reason of payment, on one day or in one month. What came from a balance is not in it.

    ``filters`` are those of the list of payments that shows what ``payments`` and ``amount`` count.
    """

    bucket: str
    reason: str
    filters: dict[str, str]


class RevenueReportOut(shapes.Shape):
    """Payments by when they succeeded, less refunds by when they did."""

    from_: str = msgspec.field(name="from")
    to: str
    by: str
    rows: list[RevenueRowOut]
    totals: list[RevenueTotalOut]


class AccountRevenueOut(shapes.Shape):
    """The same of one account."""

    account_id: str
    from_: str = msgspec.field(name="from")
    to: str
    by: str
    rows: list[RevenueRowOut]
    totals: list[RevenueTotalOut]


class OwedRowOut(shapes.Shape):
    """What an account owes: what its open invoices wait for, and how far its balance is below zero.

    The two are not to be added: what an invoice waits for mostly stands on the balance as well.
    """

    account_id: str
    name: str
    currency: str
    owed: int
    overdue: int
    invoices: int
    due_at: str | None
    negative: int
    filters: dict[str, str]


class OwedTotalOut(shapes.Shape):
    """The same of all accounts that owe."""

    currency: str
    accounts: int
    owed: int
    overdue: int
    invoices: int
    negative: int


class OwedReportOut(shapes.Shape):
    """Accounts that owe at this moment, those with most first."""

    at: str
    rows: list[OwedRowOut]
    totals: list[OwedTotalOut]
    has_more: bool


class RecurringTotalOut(shapes.Shape):
    """Subscriptions and what they pay in a month; a year's price counts by its twelfth, rounded for each plan."""

    currency: str
    active: int
    mrr: int
    past_due: int
    past_due_mrr: int
    trialing: int
    trialing_mrr: int


class RecurringRowOut(RecurringTotalOut):
    """The same of one plan."""

    plan_id: str
    name: str


class PlanMovementOut(shapes.Shape):
    """Accounts that came to a plan and that left it. ``trials`` are those of ``started`` that began with a trial."""

    plan_id: str
    name: str
    started: int
    trials: int
    converted: int
    changed_in: int
    changed_out: int
    ended: int


class RecurringReportOut(shapes.Shape):
    """Subscriptions at this moment, and the movement between ``from`` and ``to``."""

    at: str
    from_: str = msgspec.field(name="from")
    to: str
    rows: list[RecurringRowOut]
    totals: list[RecurringTotalOut]
    movement: list[PlanMovementOut]


class MoneyFigureOut(shapes.Shape):
    """One currency: what came in this calendar month less what went back, and what open invoices wait for."""

    currency: str
    revenue: int
    owed: int


class FiguresOut(shapes.Shape):
    """How things stand, some seconds ago. ``events`` and ``refused`` are of 24 hours, ``failed_payments`` of 7 days.

    ``money`` is null for who may not read reports. ``clockwork`` says whether what is due is being done, ``waiting``
    how many events wait to be decided in the process that answers.
    """

    at: str
    accounts: int
    events: int
    refused: int
    failed_payments: int
    parked_refills: int
    failing_webhooks: int
    clockwork: bool
    waiting: int
    money: list[MoneyFigureOut] | None


class ParkedRowOut(shapes.Shape):
    """A refill that begins nothing more until somebody acts: a card that works, or ``autorefill/resume``."""

    account_id: str
    name: str
    denomination: str
    amount: int
    charge_amount: int
    charge_denomination: str
    parked_at: str | None
    code: str | None


class ParkedOut(shapes.Shape):
    """Refills that are parked, the newest first."""

    rows: list[ParkedRowOut]
    has_more: bool
