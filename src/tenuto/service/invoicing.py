"""Invoices: cut, made final, collected, dunned, paid, credited and void; each in one unit, under the account's lock.

A month of an account goes through four sweeps: ``cut_invoices`` makes a draft when the company's month ends,
``finalize_invoices`` makes it final after its grace, ``collect_invoices`` has a card charged for it, ``dun_invoices``
takes the steps of the ladder. Each looks again under the lock, so several clockworks do no more than one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog

from tenuto.core import invoice as rules
from tenuto.core.cards import minimum
from tenuto.core.event import AccountState
from tenuto.core.identifiers import read_of_account, spell, spell_of_account
from tenuto.core.invoice import (
    Collection,
    Invoice,
    InvoiceSettings,
    InvoiceTerms,
    ManualLine,
    TaxLine,
    TaxRate,
)
from tenuto.core.ledger import CREDIT_NOTE_BOOK, VOID_BOOK
from tenuto.core.money import AMOUNT_MAX, BALANCE_MAX, is_fiat
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import LEASE, Payment, paid_in
from tenuto.core.period import month_of, month_start
from tenuto.engine import Engine, Once
from tenuto.store import accounts, due, invoices, ledger, payments, tax_ids
from tenuto.store.accounts import Account, Environment
from tenuto.store.database import AccountMovedOn, Reader, Record, Unit, translated
from tenuto.store.invoices import CreditNote, Gathered, WholeInvoice
from tenuto.store.payments import Link
from tenuto.store.records import owns_account

TERMS_MAX: Final = 10
"""Currencies one account may be invoiced in."""

_log = structlog.get_logger()


class _Taken(NamedTuple):
    """An account that is locked, as it is now. ``tick`` is the largest id that was given in it or may not be given."""

    state: AccountState
    now: datetime
    tick: int


async def _take(engine: Engine, unit: Unit, environment: Environment, account_id: int) -> _Taken:
    """Lock an account, then read it in the next statement. Raises Refusal ``not_found``."""
    now = engine.now_of(environment)
    state = await ledger.take_account(unit, environment.id, account_id, now)
    return _Taken(state, now, max(engine.tick() - 1, state.tick))


async def _invoice(unit: Unit, environment: Environment, account_id: int, invoice_id: int) -> Invoice:
    found = await invoices.read_invoice(unit, environment.id, account_id, invoice_id)
    if found is None:
        raise Refusal("not_found")
    return found


# --- terms ------------------------------------------------------------------------------------------------------------


class TermsWanted(NamedTuple):
    """How an account is to be invoiced; None is the company's choice."""

    currency: str
    collection: Collection = "send_invoice"
    terms_days: int | None = None
    grace: timedelta | None = None
    taxes: tuple[TaxRate, ...] | None = None
    memo: str | None = None


async def set_terms(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, wanted: TermsWanted
) -> InvoiceTerms:
    """Let an account pay by invoice from now on, or change how it does. What was posted before stays unbilled."""
    currency = wanted.currency
    if not is_fiat(currency):
        raise invalid("currency", "is money, by its code in ISO 4217: nothing else is invoiced.")
    taken = await _take(engine, unit, environment, account_id)
    found = await invoices.read_terms(unit, account_id)
    known = next((terms for terms in found if terms.currency == currency), None)
    if known is None and len(found) >= TERMS_MAX:
        raise invalid("currency", f"an account is invoiced in at most {TERMS_MAX} currencies.", "out_of_range")
    now, zone = taken.now, environment.terms.zone
    terms = known or InvoiceTerms(
        account_id=account_id,
        environment_id=environment.id,
        currency=currency,
        terms_days=0,
        grace=None,
        collection=wanted.collection,
        taxes=None,
        memo=None,
        invoiced_tick=taken.state.tick,
        anchor_at=now,
        number=0,
        last_at=now,
        next_at=month_start(month_of(now, zone), 1, zone),
        created_at=now,
    )
    usual = rules.settings_of(environment.money)
    terms = terms._replace(
        terms_days=usual.terms_days if wanted.terms_days is None else wanted.terms_days,
        grace=wanted.grace,
        collection=wanted.collection,
        taxes=wanted.taxes,
        memo=wanted.memo,
    )
    await invoices.save_terms(unit, terms, now)
    return terms


async def end_terms(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, currency: str | None
) -> InvoiceTerms:
    """Cut no more invoices in a currency. Drafts and open ones stay as they are. Raises ``no_invoice_terms``."""
    await _take(engine, unit, environment, account_id)
    ended = await _terms(unit, account_id, currency)
    await invoices.delete_terms(unit, account_id, ended.currency)
    return ended


async def _terms(unit: Reader, account_id: int, currency: str | None) -> InvoiceTerms:
    """The terms for a currency; for the only one there is, where none is named."""
    found = await invoices.read_terms(unit, account_id)
    if currency is None and len(found) > 1:
        raise invalid("currency", "is needed, for the account is invoiced in several.", "missing_field")
    for terms in found:
        if currency in {None, terms.currency}:
            return terms
    raise Refusal("no_invoice_terms", currency=currency)


# --- drafts -----------------------------------------------------------------------------------------------------------


async def cut_invoice(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    *,
    currency: str | None,
    manual: Sequence[ManualLine] = (),
    is_preview: bool = False,
) -> WholeInvoice:
    """A draft of all that was posted since the last one, until now; of a preview nothing is kept.

    Raises Refusal ``no_invoice_terms`` or ``nothing_to_invoice``.
    """
    gathered = await _gather(engine, environment, account_id, currency)
    taken = await _take(engine, unit, environment, account_id)
    terms = _same(await _terms(unit, account_id, currency), gathered)
    whole = await _drafted(unit, environment, terms, taken, gathered, manual, taken.now)
    if whole.invoice.subtotal <= 0:
        raise Refusal("nothing_to_invoice", subtotal=whole.invoice.subtotal)
    rules.must_stay_in_range(taken.state, whole.invoice, whole.lines, most=AMOUNT_MAX if manual else BALANCE_MAX)
    if not is_preview:
        await _keep(unit, taken, terms._replace(last_at=taken.now), whole)
    return whole


async def _gather(engine: Engine, environment: Environment, account_id: int, currency: str | None) -> Gathered:
    """What was posted since the last cut, added up before anything is locked."""
    async with engine.database.reading() as reader:
        if not await owns_account(reader, environment.id, account_id):
            raise Refusal("not_found")
        terms = await _terms(reader, account_id, currency)
        return await invoices.gather_posted(reader, account_id, terms.currency, terms.invoiced_tick)


def _same(terms: InvoiceTerms, gathered: Gathered) -> InvoiceTerms:
    """The terms, if nobody has cut or discarded meanwhile; else the unit is tried again."""
    if (terms.currency, terms.invoiced_tick) != (gathered.currency, gathered.tick_from):
        raise AccountMovedOn
    return terms


async def _drafted(
    unit: Unit,
    environment: Environment,
    terms: InvoiceTerms,
    taken: _Taken,
    gathered: Gathered,
    manual: Sequence[ManualLine],
    period_end: datetime,
) -> WholeInvoice:
    settings = rules.settings_of(environment.money)
    lines = rules.lines_of(gathered.posted, manual)
    draft = rules.draft_of(
        terms, settings, id=taken.tick + 1, tick_to=gathered.tick_to, period_end=period_end, now=taken.now
    )
    account = await accounts.read_account(unit, environment.id, terms.account_id)
    assert account is not None
    draft = draft._replace(customer=await _customer(unit, account))
    taxes = rules.taxes_of(max(0, sum(line.amount for line in lines)), _rates(terms, settings))
    return WholeInvoice(rules.summed(draft, lines, taxes), lines, taxes)


async def _customer(unit: Unit, account: Account) -> dict[str, object]:
    """Who is to pay, as it stands on the invoice: with the tax numbers, whatever a register said of them."""
    numbers = await tax_ids.list_tax_ids(unit, account.id)
    shown: dict[str, object] = {"name": account.name, "email": account.email}
    return {**shown, "tax_ids": [{"type": one.type, "value": one.value} for one in numbers]} if numbers else shown


def _rates(terms: InvoiceTerms | None, settings: InvoiceSettings) -> tuple[TaxRate, ...]:
    return settings.taxes if terms is None or terms.taxes is None else terms.taxes


async def _keep(unit: Unit, taken: _Taken, terms: InvoiceTerms, whole: WholeInvoice) -> None:
    draft = whole.invoice
    await ledger.save_moves(unit, taken.state, draft.id, [], taken.now)
    await invoices.insert_invoice(unit, draft)
    await invoices.save_lines(unit, draft, whole.lines)
    await invoices.save_taxes(unit, draft, whole.taxes)
    await invoices.save_terms(unit, terms._replace(invoiced_tick=draft.tick_to, number=terms.number + 1), taken.now)


class DraftChange(NamedTuple):
    """What is to change about a draft; None leaves it.

    ``taxes`` are amounts that were worked out elsewhere; ``by_rates`` goes back to the rates of the account.
    """

    manual: tuple[ManualLine, ...] | None = None
    taxes: tuple[TaxLine, ...] | None = None
    by_rates: bool = False
    memo: str | None = None


async def edit_draft(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, invoice_id: int, change: DraftChange
) -> WholeInvoice:
    """Change the manual lines, taxes or memo of a draft. Raises Refusal ``invoice_not_draft``."""
    taken = await _take(engine, unit, environment, account_id)
    draft = await _invoice(unit, environment, account_id, invoice_id)
    if draft.status != "draft":
        raise Refusal("invoice_not_draft", status=draft.status)
    lines, taxes = await invoices.read_lines(unit, draft), await invoices.read_taxes(unit, draft)
    if change.manual is not None:
        lines = rules.with_manual(lines, change.manual)
    subtotal = sum(line.amount for line in lines)
    if subtotal < 0:
        raise invalid("lines", "would take the subtotal below zero.", "out_of_range")
    if change.taxes is not None:
        taxes = change.taxes
    elif change.by_rates:
        found = await invoices.read_terms(unit, account_id)
        terms = next((terms for terms in found if terms.currency == draft.currency), None)
        taxes = rules.taxes_of(subtotal, _rates(terms, rules.settings_of(environment.money)))
    else:
        taxes = rules.recomputed(subtotal, taxes)
    draft = rules.summed(draft, lines, taxes)._replace(memo=draft.memo if change.memo is None else change.memo)
    is_taxed = change.taxes is not None or change.by_rates
    if change.manual is not None or is_taxed:
        rules.must_stay_in_range(taken.state, draft, lines, is_taxed=is_taxed)
    await invoices.save_lines(unit, draft, lines)
    await invoices.save_taxes(unit, draft, taxes)
    await invoices.update_invoice(unit, draft, taken.now)
    return WholeInvoice(draft, lines, taxes)


async def discard_draft(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, invoice_id: int
) -> WholeInvoice:
    """Forget a draft; what stood on it stands on the next one. Raises ``invoice_not_draft``, ``not_latest_invoice``."""
    taken = await _take(engine, unit, environment, account_id)
    draft = await _invoice(unit, environment, account_id, invoice_id)
    if draft.status != "draft":
        raise Refusal("invoice_not_draft", status=draft.status)
    whole = await invoices.read_whole(unit, draft)
    for terms in await invoices.read_terms(unit, account_id):
        if terms.currency == draft.currency:
            if terms.invoiced_tick != draft.tick_to:
                raise Refusal("not_latest_invoice")
            before = terms._replace(invoiced_tick=draft.tick_from, last_at=draft.period_start, number=terms.number - 1)
            await invoices.save_terms(unit, before, taken.now)
    await invoices.delete_invoice(unit, draft)
    return whole


# --- final ------------------------------------------------------------------------------------------------------------


async def finalize_invoice(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, invoice_id: int
) -> WholeInvoice:
    """Make a draft final, after the older drafts of its currency.

    Raises Refusal ``invoice_not_draft``, or ``balance_out_of_range`` where the balance has no room for it.
    """
    if not await _finalize_up_to(engine, unit, environment, account_id, invoice_id):
        raise Refusal("balance_out_of_range")
    return await invoices.read_whole(unit, await _invoice(unit, environment, account_id, invoice_id))


async def _finalize_up_to(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, invoice_id: int
) -> bool:
    """Whether the draft is final now. An older one that cannot be posted stays a draft and keeps no other."""
    await _take(engine, unit, environment, account_id)
    draft = await _invoice(unit, environment, account_id, invoice_id)
    if draft.status != "draft":
        raise Refusal("invoice_not_draft", status=draft.status)
    is_final = False
    for older in await invoices.list_drafts(unit, account_id, draft.currency, draft.id):
        is_final = await _finalize(engine, unit, environment, older)
    return is_final


async def _finalize(engine: Engine, unit: Unit, environment: Environment, draft: Invoice) -> bool:
    # Read again for each: the one before has posted its tax.
    taken = await _take(engine, unit, environment, draft.account_id)
    lines = await invoices.read_lines(unit, draft)
    if not rules.posts_within(taken.state, draft, lines):
        public = spell_of_account("inv", draft.account_id, draft.id)
        _log.error("invoice", invoice=public, outcome="stays a draft", reason="balance_out_of_range")
        return False
    account = await accounts.read_account(unit, environment.id, draft.account_id)
    assert account is not None
    settings = rules.settings_of(environment.money)
    around = rules.Around(
        await invoices.read_posted_since(unit, draft.account_id, draft.currency, draft.tick_to),
        await invoices.read_waiting(unit, draft),
    )
    number = rules.spelled_number(settings.prefix, await invoices.next_number(unit, environment.id, "invoice"))
    final = rules.finalize(
        taken.state,
        draft,
        lines,
        paper=rules.Paper(number, settings, await _customer(unit, account)),
        around=around,
        now=taken.now,
        zone=environment.terms.zone,
        tick=taken.tick,
    )
    await ledger.save_moves(unit, taken.state, final.tick, final.moves, taken.now)
    await invoices.update_invoice(unit, final.invoice, taken.now)
    return True


async def _clear_captures(unit: Unit, taken: _Taken, currency: str) -> bool:
    """Give up a capture that was to pay what is about to be owed no more: it would take the money a second time.

    Raises Refusal ``payment_in_progress`` where it may be paid at this moment.
    """
    found = await payments.open_payment(unit, taken.state.account_id, rules.slot_of(currency))
    if found is None:
        return False
    await payments.update_payment(unit, rules.cleared(found, now=taken.now), taken.now)
    return True


async def void_invoice(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, invoice_id: int
) -> WholeInvoice:
    """Take back a final invoice of which nothing was paid.

    Raises Refusal ``invoice_not_open``, ``invoice_settled`` or ``payment_in_progress``.
    """
    taken = await _take(engine, unit, environment, account_id)
    found = await _invoice(unit, environment, account_id, invoice_id)
    after = rules.voided(found, now=taken.now)
    was_cleared = await _clear_captures(unit, taken, found.currency)
    moved = rules.put_back(
        taken.state,
        found,
        found.remaining,
        id=taken.tick + 1,
        cause_id=found.id,
        book=VOID_BOOK,
        said=f"{found.number} is void",
        now=taken.now,
    )
    await ledger.save_moves(unit, taken.state, taken.tick + 1, [moved], taken.now)
    await invoices.update_invoice(unit, after, taken.now)
    if was_cleared:
        await invoices.collect_again(unit, account_id, found.currency, taken.now)
    await invoices.relieve(unit, account_id, now=taken.now, tick=engine.tick())
    return await invoices.read_whole(unit, after)


async def credit_invoice(
    engine: Engine,
    unit: Unit,
    environment: Environment,
    account_id: int,
    invoice_id: int,
    *,
    amount: int,
    reason: str,
) -> tuple[WholeInvoice, CreditNote]:
    """A credit note: units back on the balance, and less to be paid.

    Raises Refusal ``invoice_not_open``, ``credit_exceeds_invoice`` (bar I-55) or ``payment_in_progress``.
    """
    taken = await _take(engine, unit, environment, account_id)
    found = await _invoice(unit, environment, account_id, invoice_id)
    before = await invoices.sum_credit_notes(unit, found)
    refunded = await invoices.returned_of(unit, found)
    after = rules.credited(found, amount, before=before, refunded=refunded, now=taken.now)
    was_cleared = found.remaining > 0 and await _clear_captures(unit, taken, found.currency)
    note_id = taken.tick + 1
    number = await invoices.next_number(unit, environment.id, "credit_note")
    note = CreditNote(
        account_id,
        note_id,
        environment.id,
        found.id,
        rules.spelled_number(rules.CREDIT_NOTE_PREFIX, number),
        amount,
        reason,
        taken.now,
    )
    moved = rules.put_back(
        taken.state,
        found,
        amount,
        id=note_id + 1,
        cause_id=note_id,
        book=CREDIT_NOTE_BOOK,
        said=f"{note.number} for {found.number}: {reason}",
        now=taken.now,
    )
    await ledger.save_moves(unit, taken.state, note_id + 1, [moved], taken.now)
    await invoices.insert_credit_note(unit, note)
    await invoices.update_invoice(unit, after, taken.now)
    if was_cleared:
        await invoices.collect_again(unit, account_id, found.currency, taken.now)
    await invoices.relieve(unit, account_id, now=taken.now, tick=engine.tick())
    return await invoices.read_whole(unit, after), note


async def give_up_invoice(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, invoice_id: int
) -> WholeInvoice:
    """Expect no payment any more; the debt stays on the balance, and what dunning did stays done."""
    taken = await _take(engine, unit, environment, account_id)
    after = rules.given_up(await _invoice(unit, environment, account_id, invoice_id))
    await invoices.update_invoice(unit, after, taken.now)
    return await invoices.read_whole(unit, after)


async def mark_paid(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, invoice_id: int, *, reference: str
) -> WholeInvoice:
    """Note that all that remains of an invoice was paid some other way.

    Raises Refusal ``invoice_not_open``, ``invoice_settled`` or ``payment_in_progress``.
    """
    taken = await _take(engine, unit, environment, account_id)
    found = await _invoice(unit, environment, account_id, invoice_id)
    rules.must_be_payable(found)
    was_cleared = await _clear_captures(unit, taken, found.currency)
    now, amount = taken.now, found.remaining
    payment = Payment(
        account_id=account_id,
        id=taken.tick + 1,
        environment_id=environment.id,
        method="out_of_band",
        reason="invoice",
        status="succeeded",
        amount=amount,
        currency=found.currency,
        denomination=found.currency,
        units=amount,
        description=f"{found.number} paid: {reference}",
        created_at=now,
        due_at=now,
        finished_at=now,
    )
    await payments.insert_payment(unit, payment)
    tick = payment.id + 1
    await ledger.save_moves(unit, taken.state, tick, [paid_in(taken.state, payment, id=tick, now=now)], now)
    settled = rules.settle([found], amount, now=now)
    await invoices.save_settled(unit, payment.id, settled, now)
    if was_cleared:
        await invoices.collect_again(unit, account_id, found.currency, now)
    await invoices.relieve(unit, account_id, now=now, tick=engine.tick())
    return await invoices.read_whole(unit, settled[0][0])


async def begin_payment(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, invoice_id: int, once: Once | None = None
) -> Payment:
    """Write down a card payment of what remains of one invoice; whoever drives payments charges it.

    Somebody asked for it, so it is charged while captures by themselves are suspended; one that was skipped gives its
    place up. Raises Refusal ``invoice_not_open``, ``invoice_settled``, ``payment_in_progress``,
    ``payment_method_required`` or ``amount_not_chargeable``.
    """
    taken = await _take(engine, unit, environment, account_id)
    found = await _invoice(unit, environment, account_id, invoice_id)
    rules.must_be_payable(found)
    before = await payments.open_payment(unit, account_id, rules.slot_of(found.currency))
    if before is not None and before.status != "skipped":
        raise Refusal("payment_in_progress", currency=found.currency, status=before.status)
    if await payments.chargeable_card(unit, account_id) is None:
        raise Refusal("payment_method_required")
    if found.remaining < minimum(found.currency):
        raise Refusal("amount_not_chargeable", amount=found.remaining, minimum=minimum(found.currency))
    if before is not None:
        await payments.update_payment(unit, rules.cleared(before, now=taken.now), taken.now)
    payment = await _capture(
        unit, environment, taken, [found], found.remaining, claimed_until=engine.now() + LEASE, once=once
    )
    await invoices.update_invoice(unit, found._replace(next_collection_at=None), taken.now)
    if before is not None:
        await invoices.collect_again(unit, account_id, found.currency, taken.now)
    return payment


async def _capture(
    unit: Unit,
    environment: Environment,
    taken: _Taken,
    paid: Sequence[Invoice],
    amount: int,
    *,
    claimed_until: datetime | None = None,
    once: Once | None = None,
) -> Payment:
    """Write a capture down. ``claimed_until``: somebody asked for it by hand, and drives it until then."""
    account = await accounts.read_account(unit, environment.id, taken.state.account_id)
    assert account is not None
    said = f"Invoice {paid[0].number}" if len(paid) == 1 else f"{len(paid)} invoices up to {paid[-1].number}"
    payment = rules.capture_of(
        paid[0],
        amount,
        id=taken.tick + 1,
        now=taken.now,
        is_suspended=claimed_until is None and (account.capture_suspended or environment.capture_suspended),
        description=said,
    )
    if once is not None:
        payment = payment._replace(request_key=once.key, fingerprint=once.fingerprint)
    await payments.insert_payment(unit, payment, claimed_until=claimed_until)
    await ledger.raise_tick(unit, payment.account_id, payment.id)
    return payment


# --- hosted pages -----------------------------------------------------------------------------------------------------


async def make_link(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, invoice_id: int, *, life: timedelta
) -> tuple[Link, str]:
    """A link to a page that shows a final invoice to whoever has it; the link and its token."""
    taken = await _take(engine, unit, environment, account_id)
    found = await _invoice(unit, environment, account_id, invoice_id)
    if found.status == "draft":
        raise Refusal("invoice_not_open", status=found.status)
    # The person who opens it lives in real time, whatever the company's test clock says.
    now, tick = engine.now(), taken.tick + 1
    link = Link(account_id, tick, environment.id, "invoice", found.id, None, None, now + life, None, now)
    await payments.insert_link(unit, link)
    await ledger.raise_tick(unit, account_id, tick)
    return link, _token(engine, account_id, tick)


def _token(engine: Engine, account_id: int, link_id: int) -> str:
    public = spell_of_account(_LINK, account_id, link_id)
    return f"{public}.{engine.vault.sign(f'invoice {public}')}"


async def links_to(
    engine: Engine, environment: Environment, account_id: int, invoice_ids: Sequence[int]
) -> dict[int, str]:
    """Tokens of links to final invoices, by invoice: those that can be used for days yet, else new ones."""
    async with engine.database.reading() as reader:
        known = await payments.read_invoice_links(reader, account_id, engine.now() + LINK_LEFT)
    tokens = {id: _token(engine, account_id, known[id]) for id in invoice_ids if id in known}
    missing = [id for id in invoice_ids if id not in known]
    if missing:
        async with translated(), engine.database.writing() as unit:
            for id in missing:
                _, tokens[id] = await make_link(engine, unit, environment, account_id, id, life=LINK_LIFE)
    return tokens


LINK_LIFE: Final = timedelta(days=90)
LINK_LEFT: Final = timedelta(days=7)
"""How long a link that is shown again can still be used at least."""
_LINK: Final = "il"


async def open_link(engine: Engine, token: str) -> tuple[WholeInvoice, Environment]:
    """The invoice behind a token. Raises Refusal ``link_not_usable``, the same for every reason."""
    public, _, mac = token.partition(".")
    found = read_of_account(_LINK, public)
    if found is None or not engine.vault.verify(f"invoice {public}", mac):
        raise Refusal("link_not_usable")
    async with engine.database.reading() as reader:
        link = await payments.read_link(reader, *found)
        if link is None or link.invoice_id is None or link.expires_at <= engine.now():
            raise Refusal("link_not_usable")
        invoice = await invoices.read_invoice(reader, link.environment_id, link.account_id, link.invoice_id)
        if invoice is None:
            raise Refusal("link_not_usable")
        whole = await invoices.read_whole(reader, invoice)
    environment = await engine.environment(invoice.environment_id)
    if environment is None:
        raise Refusal("link_not_usable")
    return whole, environment


async def can_be_paid(engine: Engine, invoice: Invoice) -> bool:
    """Whether a card is there that could be charged what remains of an invoice now."""
    if invoice.status not in {"open", "uncollectible"} or invoice.remaining < minimum(invoice.currency):
        return False
    async with engine.database.reading() as reader:
        slot = rules.slot_of(invoice.currency)
        if await payments.open_payment(reader, invoice.account_id, slot, or_skipped=False) is not None:
            return False
        return await payments.chargeable_card(reader, invoice.account_id) is not None


async def begin_hosted_payment(engine: Engine, environment: Environment, invoice: Invoice) -> Payment:
    """The same as :func:`begin_payment`, in a unit of its own: somebody pressed the button of the page."""
    async with translated(), engine.database.writing() as unit:
        return await begin_payment(engine, unit, environment, invoice.account_id, invoice.id)


# --- the clockwork ----------------------------------------------------------------------------------------------------


async def cut_invoices(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: a draft for each account whose month has ended, of all that was posted until now (decision 0016)."""

    async def cut(unit: Unit, environment: Environment, row: Record) -> None:
        gathered = await _gather(engine, environment, row["account_id"], row["currency"])
        taken = await _take(engine, unit, environment, row["account_id"])
        terms = await _terms(unit, row["account_id"], row["currency"])
        if terms.next_at is None or terms.next_at > taken.now:
            return
        _same(terms, gathered)
        zone = environment.terms.zone
        month = month_of(taken.now, zone)
        boundary = month_start(month, 0, zone)
        whole = await _drafted(unit, environment, terms, taken, gathered, (), boundary)
        later = terms._replace(next_at=month_start(month, 1, zone))
        if whole.invoice.total > BALANCE_MAX or not rules.posts_within(taken.state, whole.invoice, whole.lines):
            account = spell("a", row["account_id"])
            _log.error("invoice", account=account, outcome="not cut", reason="balance_out_of_range")
            await invoices.save_terms(unit, later, taken.now)
            return
        if whole.invoice.subtotal > 0:
            await _keep(unit, taken, later._replace(last_at=boundary), whole)
            return
        # Nothing to bill: an empty month is over, one with more credit than usage waits for the next one.
        await invoices.save_terms(unit, later if whole.lines else later._replace(last_at=boundary), taken.now)

    return await _sweep(engine, due.INVOICES_TO_CUT, "t.account_id, t.currency", cut, now, limit, environment_id)


async def finalize_invoices(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: drafts whose grace is over become final; one that the balance has no room for is left for a day."""

    async def finalize(unit: Unit, environment: Environment, row: Record) -> None:
        if not await _finalize_up_to(engine, unit, environment, row["account_id"], row["id"]):
            now = engine.now_of(environment)
            draft = await _invoice(unit, environment, row["account_id"], row["id"])
            await invoices.update_invoice(unit, draft._replace(finalize_at=now + rules.FINALIZE_AGAIN), now)

    return await _sweep(engine, due.INVOICES_TO_FINALIZE, "t.account_id, t.id", finalize, now, limit, environment_id)


async def collect_invoices(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: one card payment per account and currency for all that remains of invoices that are charged by themselves.

    Below the card's minimum it waits for the next invoice (design 11, Captures); without a card it is tried again.
    """

    async def collect(unit: Unit, environment: Environment, row: Record) -> None:
        taken = await _take(engine, unit, environment, row["account_id"])
        found = await invoices.open_invoices(unit, row["account_id"], row["currency"])
        paid = [one for one in found if one.status == "open" and one.collection == "charge_automatically"]
        at = [invoice.next_collection_at for invoice in paid if invoice.next_collection_at is not None]
        if not any(moment <= taken.now for moment in at):
            return
        again: datetime | None = None
        amount = rules.collectable(paid)
        slot = rules.slot_of(row["currency"])
        if amount >= minimum(row["currency"]):
            is_free = await payments.open_payment(unit, row["account_id"], slot) is None
            if is_free and await payments.chargeable_card(unit, row["account_id"]) is not None:
                await _capture(unit, environment, taken, paid, amount)
            else:
                again = taken.now + rules.COLLECT_AGAIN
        for invoice in paid:
            await invoices.update_invoice(unit, invoice._replace(next_collection_at=again), taken.now)

    return await _sweep(
        engine, due.INVOICES_TO_COLLECT, "t.account_id, t.currency", collect, now, limit, environment_id
    )


async def dun_invoices(engine: Engine, *, now: datetime, limit: int, environment_id: int | None = None) -> int:
    """Sweep: the steps of the company's ladder for invoices that are past due."""

    async def dun(unit: Unit, environment: Environment, row: Record) -> None:
        taken = await _take(engine, unit, environment, row["account_id"])
        found = await _invoice(unit, environment, row["account_id"], row["id"])
        if found.next_dunning_at is None or found.next_dunning_at > taken.now:
            return
        settings = rules.settings_of(environment.money)
        after, actions = rules.dun(found, settings, now=taken.now, zone=environment.terms.zone)
        await invoices.update_invoice(unit, after, taken.now)
        standing = await invoices.load_standing(unit, row["account_id"], taken.now)
        changes = rules.punished(standing, actions, taken.now)
        if changes:
            await accounts.update_account(unit, row["account_id"], changes, taken.now, engine.tick())

    return await _sweep(engine, due.INVOICES_TO_DUN, "t.account_id, t.id", dun, now, limit, environment_id)


async def _sweep(
    engine: Engine,
    kind: due.Due,
    columns: str,
    step: Callable[[Unit, Environment, Record], Awaitable[None]],
    now: datetime,
    limit: int,
    environment_id: int | None,
) -> int:
    """Do a step for each due row, in a unit of its own; one that is refused is told in the log and keeps no other."""

    async def one(environment: Environment, row: Record) -> bool:
        async with translated(), engine.database.writing() as unit:
            await step(unit, environment, row)
        return True

    return await engine.each_due(kind, columns, one, now=now, limit=limit, environment_id=environment_id)
