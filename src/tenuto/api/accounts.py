"""Companies, keys, settings, clocks; accounts and their balances."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from tenuto.core.identifiers import ID_MAX, spell
from tenuto.core.ledger import Transaction
from tenuto.core.money import AMOUNT_MAX
from tenuto.core.outcomes import Refusal, invalid
from tenuto.core.payment import Payment, RefillCaps
from tenuto.core.plan import SCHEMES
from tenuto.core.subscription import FAILED_RENEWALS
from tenuto.core.topic import rules_to_settings
from tenuto.core.user import SCOPES, judge_password
from tenuto.engine import Answer, Once
from tenuto.service import accounts as service
from tenuto.service import cards, subscriptions
from tenuto.service import payments as payment_service
from tenuto.service.idempotency import Steps
from tenuto.service.subscriptions import Begun, PlanAsk
from tenuto.service.users import hash_password
from tenuto.store import accounts, records
from tenuto.store import payments as payment_store
from tenuto.store.accounts import Account
from tenuto.store.database import Unit
from tenuto.store.invoices import read_owed

from . import body as bodies
from . import invoice_input, shapes
from .account_plans import PlanAskedIn, in_steps, plan_asked, shown_account
from .clearance import BillablesIn, billable_settings
from .invoice_input import InvoicingIn
from .payments import refused_payment
from .refills import balance_in, put_refill
from .routes import PAGING, Call, Param, Route
from .usage import page_of
from .webhooks import LevelIn, rules_of_body

NAME_MAX: Final = 200
EMAIL_MAX: Final = 254
STRIPE_ID_MAX: Final = 255
REASON_MAX: Final = 500
LATE_MAX: Final = timedelta(days=3650)
AHEAD_MAX: Final = timedelta(days=1)
_EMAIL: Final = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)*")
TOKEN_MAX: Final = 255


class CompanyIn(msgspec.Struct, forbid_unknown_fields=True):
    """A company to open, with its first user."""

    name: str
    email: str
    password: str


class RefillCapsIn(msgspec.Struct, forbid_unknown_fields=True):
    """How often one balance may be refilled by itself, and for how much a day; null: no bound."""

    per_hour: int = RefillCaps().per_hour
    per_day: int | None = RefillCaps().per_day
    amount_per_day: int | None = None


class PlanSettingsIn(msgspec.Struct, forbid_unknown_fields=True):
    """How plans change where no scheme is named, and what becomes of one whose renewal was refused for good."""

    scheme: str = "sleeping_beauty"
    failed_renewal: str = "past_due"


class CompanyChange(BillablesIn, forbid_unknown_fields=True):
    """Settings to change; what is missing stays as it is."""

    name: str | None = None
    time_zone: str | None = None
    default_credit_limit: int | None = None
    late_event_seconds: int | None = None
    ahead_event_seconds: int | None = None
    invoicing: InvoicingIn | None = None
    stripe_key: str | None = None
    stripe_publishable_key: str | None = None
    stripe_webhook_secret: str | None = None
    refill_caps: RefillCapsIn | None = None
    plans: PlanSettingsIn | None = None
    levels: list[LevelIn] | msgspec.UnsetType | None = msgspec.UNSET


class KeyIn(msgspec.Struct, forbid_unknown_fields=True):
    """An API key to issue. Without ``scopes`` it gets those of the key that asks."""

    name: str = ""
    mode: str | None = None
    scopes: list[str] | None = None
    expires_at: str | None = None


class AccountIn(PlanAskedIn, forbid_unknown_fields=True):
    """An account to open."""

    name: str
    email: str
    metadata: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    stripe_id: str | None = None
    credit_limit: int | None = None
    enable_card_collector: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    token: str | None = None
    billing_address_id: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class AccountChange(msgspec.Struct, forbid_unknown_fields=True):
    """Fields of an account to change; what is missing stays as it is."""

    name: str | None = None
    email: str | None = None
    metadata: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    stripe_id: str | msgspec.UnsetType | None = msgspec.UNSET
    credit_limit: int | msgspec.UnsetType | None = msgspec.UNSET


class BalanceIn(msgspec.Struct, forbid_unknown_fields=True):
    """A balance to open, with how it is refilled where it is."""

    amount: int = 0
    credit_limit: int | None = None
    threshold: int | None = None
    refill_amount: int | None = None
    usd_charge: int | None = None
    refill_monthly: bool | None = None


class BalanceChange(msgspec.Struct, forbid_unknown_fields=True):
    """A balance's own credit limit; null gives the decision back to account and company."""

    credit_limit: int | None


class AdjustmentIn(msgspec.Struct, forbid_unknown_fields=True):
    """Units to put on a balance, or (negative) to take off it, and why."""

    amount: int
    reason: str | None = None


async def open_company(call: Call) -> Answer:
    """A company with its first user and its first key, which is shown this once."""
    given = call.decoded(CompanyIn)
    settings = call.engine.settings
    if not settings.is_registration_open:
        _, _, token = call.headers.get(b"authorization", b"").partition(b" ")
        if not settings.operator_token or not hmac.compare_digest(token.strip(), settings.operator_token.encode()):
            raise Refusal("registration_closed")
    name = bodies.text(given.name, "name", NAME_MAX)
    address = email(given.email, "email")
    judge_password(given.password, address)
    password_hash = await hash_password(given.password)

    async def verb(unit: Unit) -> service.CompanyOpened:
        return await service.open_company(call.engine, unit, name=name, email=address, password_hash=password_hash)

    def render(opened: service.CompanyOpened) -> bytes:
        return shapes.wrapped(
            shapes.CompanyOpenedOut(
                id=spell("c", opened.company_id),
                name=opened.name,
                mode="test",
                api_key=opened.api_key,
                user=shapes.UserOut(id=spell("u", opened.user_id), email=opened.email),
            )
        )

    return await call.once(verb, render)


def email(value: str, path: str) -> str:
    """An e-mail address that could be one, in lower case."""
    if len(value) > EMAIL_MAX or not value.isprintable() or not _EMAIL.fullmatch(value):
        raise invalid(path, f"takes an e-mail address of at most {EMAIL_MAX} characters.")
    return value.lower()


async def get_company(call: Call) -> Answer:
    """The company and the settings of the half the key belongs to."""
    call.company()
    return Answer(200, shapes.wrapped(shapes.company(call.environment)))


async def change_company(call: Call) -> Answer:
    """Change name and settings."""
    call.company()
    given = call.decoded(CompanyChange)
    name = None if given.name is None else bodies.text(given.name, "name", NAME_MAX)
    changes: dict[str, object] = {}
    if given.time_zone is not None:
        changes["zone"] = zone(given.time_zone, "time_zone")
    if given.default_credit_limit is not None:
        changes["default_credit_limit"] = bodies.whole(given.default_credit_limit, "default_credit_limit")
    if given.late_event_seconds is not None:
        changes["late_seconds"] = bodies.seconds(given.late_event_seconds, "late_event_seconds", LATE_MAX)
    if given.ahead_event_seconds is not None:
        changes["ahead_seconds"] = bodies.seconds(given.ahead_event_seconds, "ahead_event_seconds", AHEAD_MAX)
    sections = {**_sections(given), **billable_settings(call.engine, given)}
    if sections:
        changes["money"] = sections
    environment = call.environment
    secrets_given = {
        field: value
        for field in ("stripe_key", "stripe_publishable_key", "stripe_webhook_secret")
        if (value := getattr(given, field)) is not None
    }
    kept = await cards.check_stripe(call.engine, environment, secrets_given)

    async def verb(unit: Unit) -> accounts.Environment:
        await service.change_company(call.engine, unit, environment, name=name, settings=changes)
        if kept:
            await cards.keep_stripe(call.engine, unit, environment, kept)
        found = await accounts.read_environment(unit, environment.id)
        assert found is not None
        return found

    return await call.once(verb, lambda found: shapes.wrapped(shapes.company(found)))


def _caps(given: RefillCapsIn) -> dict[str, int | None]:
    per_day, amount = given.per_day, given.amount_per_day
    return {
        "per_hour": bodies.whole(given.per_hour, "refill_caps.per_hour", least=1, most=1000),
        "per_day": None if per_day is None else bodies.whole(per_day, "refill_caps.per_day", least=1, most=24_000),
        "amount_per_day": None if amount is None else bodies.whole(amount, "refill_caps.amount_per_day", least=1),
    }


def _sections(given: CompanyChange) -> dict[str, object]:
    """The settings about money that were given, section by section."""
    sections: dict[str, object] = {}
    if given.invoicing is not None:
        sections["invoicing"] = invoice_input.invoicing(given.invoicing)
    if given.refill_caps is not None:
        sections["refills"] = _caps(given.refill_caps)
    if given.plans is not None:
        sections["plans"] = _plan_settings(given.plans)
    if not isinstance(given.levels, msgspec.UnsetType):
        sections["levels"] = None if given.levels is None else rules_to_settings(rules_of_body(given.levels))
    return sections


def _plan_settings(given: PlanSettingsIn) -> dict[str, str]:
    if given.scheme not in SCHEMES:
        raise invalid("plans.scheme", f"is one of {', '.join(SCHEMES)}.")
    if given.failed_renewal not in FAILED_RENEWALS:
        raise invalid("plans.failed_renewal", f"is one of {', '.join(FAILED_RENEWALS)}.")
    return {"scheme": given.scheme, "failed_renewal": given.failed_renewal}


def zone(value: str, path: str) -> str:
    """An IANA zone name."""
    if value not in available_timezones():
        raise invalid(path, "is an IANA name such as Europe/Berlin.", "unknown_zone")
    ZoneInfo(value)
    return value


async def issue_key(call: Call) -> Answer:
    """Another key, for the test or the live half; it is shown this once."""
    call.company()
    given = call.decoded(KeyIn) if call.body else KeyIn()
    environment, own = call.environment, call.caller.key
    mode = given.mode or environment.mode
    if mode not in {"test", "live"}:
        raise invalid("mode", "is test or live.")
    if given.name:
        bodies.text(given.name, "name", NAME_MAX)
    scopes = sorted(own.scopes) if given.scopes is None else given.scopes
    for index, scope in enumerate(scopes):
        if scope not in SCOPES:
            raise invalid(f"scopes[{index}]", f"is one of {', '.join(SCOPES)}.")
        if scope not in own.scopes:
            raise Refusal("insufficient_scope", f"A key cannot give away {scope}, which it lacks itself.", scope=scope)
    if not scopes:
        raise invalid("scopes", "holds at least one scope.")
    expires_at = None if given.expires_at is None else bodies.moment(given.expires_at, "expires_at")
    if expires_at is not None and expires_at <= call.engine.now():
        raise invalid("expires_at", "lies in the future.")

    async def verb(unit: Unit) -> tuple[accounts.Key, str]:
        return await service.issue_key(
            call.engine,
            unit,
            environment,
            live=mode == "live",
            name=given.name,
            scopes=scopes,
            expires_at=expires_at,
        )

    def render(issued: tuple[accounts.Key, str]) -> bytes:
        key, secret = issued
        return shapes.wrapped(shapes.KeyIssuedOut(**shapes.key_fields(key, live=mode == "live"), api_key=secret))

    return await call.once(verb, render, is_secret=True)


async def list_keys(call: Call) -> Answer:
    """The keys of the half that the asking key belongs to, without their secrets."""
    call.company()
    keys = sorted(call.environment.keys.values(), key=lambda key: (key.created_at, key.id), reverse=True)
    after, limit = call.after(1), call.limit()
    start = 0
    if after is not None:
        start = next((index + 1 for index, key in enumerate(keys) if key.id == after[0]), len(keys))
    return page_of(
        call,
        keys[start : start + limit + 1],
        lambda key: (key.id,),
        lambda key: shapes.KeyOut(**shapes.key_fields(key, live=call.environment.live)),
    )


async def revoke_key(call: Call) -> Answer:
    """End a key at once."""
    call.company()
    key_id, environment = call.id("k", "key_id"), call.environment

    async def verb(unit: Unit) -> accounts.Key:
        await service.revoke_key(call.engine, unit, environment, key_id)
        found = await accounts.read_environment(unit, environment.id)
        assert found is not None
        return found.keys[key_id]

    return await call.once(
        verb, lambda key: shapes.wrapped(shapes.KeyOut(**shapes.key_fields(key, live=environment.live)))
    )


def _judge_person(call: Call, given: AccountIn) -> None:
    """What opens on credit, or pays for a plan at once, takes more of a person than opening an account."""
    for is_given, scope in ((given.plan_id, "payments:write"), (given.credit_limit is not None, "balances:write")):
        if is_given:
            call.caller.needs_for_money(scope)


async def open_account(call: Call) -> Answer:
    """An account for an end customer."""
    call.company()
    given = call.decoded(AccountIn)
    if len(given.billing_address_id):
        raise invalid("billing_address_id", "is not served yet.", "not_supported_yet")
    _judge_person(call, given)
    fields: dict[str, Any] = {
        "name": bodies.text(given.name, "name", NAME_MAX),
        "email": email(given.email, "email"),
        "metadata": bodies.metadata(given.metadata, "metadata"),
        "stripe_id": None if given.stripe_id is None else bodies.token(given.stripe_id, "stripe_id", STRIPE_ID_MAX),
        "credit_limit": None if given.credit_limit is None else bodies.whole(given.credit_limit, "credit_limit"),
    }

    ask = plan_asked(given)
    collects = _is_truthy(given.enable_card_collector)
    if given.token is not None:
        return await _open_with_card(call, fields, bodies.token(given.token, "token", TOKEN_MAX), ask)
    if ask is not None and not collects:
        return await _open_on_plan(call, fields, ask)

    async def verb(unit: Unit) -> tuple[Account, str | None]:
        opened = await service.open_account(call.engine, unit, call.environment, **fields)
        if not collects:
            return opened, None
        if ask is not None:
            await subscriptions.wait_for_card(call.engine, unit, call.environment, opened.id, ask)
            opened = await _reread(call, unit, opened.id)
        _, token = await cards.make_link(call.engine, unit, call.environment, opened.id, return_url=None)
        return opened, f"{call.engine.public_url}/pay/{token}"

    def render(made: tuple[Account, str | None]) -> bytes:
        opened, address = made
        shown = shapes.account(opened, {}, call.currency())
        if address is not None:
            shown.card_collector_url = address
        return shapes.wrapped(shown)

    return await call.once(verb, render, is_secret=collects)


async def _reread(call: Call, unit: Unit, account_id: int) -> Account:
    found = await accounts.read_account(unit, call.environment.id, account_id)
    assert found is not None
    return found


async def _open_on_plan(call: Call, fields: dict[str, Any], ask: PlanAsk) -> Answer:
    """Open an account that begins with a plan; where the plan cannot be paid for, no account is left behind."""
    account_id, once = _named_id(call), call.idempotency()

    async def begin(unit: Unit) -> Begun:
        await service.open_account(call.engine, unit, call.environment, id=account_id, **fields)
        return await _begin_plan(call, unit, account_id, ask, once)

    return await in_steps(call, account_id, begin)


async def _begin_plan(call: Call, unit: Unit, account_id: int, ask: PlanAsk, once: Once | None) -> Begun:
    offer = subscriptions.new_offer(call.environment, ask)
    decide = subscriptions.starting(offer, call.environment.zone_name)
    return await subscriptions.begin_step(
        call.engine, unit, call.environment, account_id, decide, once=once, opens_account=True
    )


def _named_id(call: Call) -> int:
    """An account id; the same request again, by its key, must be the same account to the provider and to itself."""
    once = call.idempotency()
    if once is None:
        return call.engine.new_id()
    named = f"{call.environment.id} {once.key}".encode() + once.fingerprint
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest()) % ID_MAX + 1


def _is_truthy(raw: msgspec.Raw) -> bool:
    """Any JSON that is not false, 0, null or empty (contract 6.1, 14)."""
    return bytes(raw) not in {b"", b"null", b"false", b"0", b'""', b"[]", b"{}"}


async def _open_with_card(call: Call, fields: dict[str, Any], token: str, ask: PlanAsk | None) -> Answer:
    """Open an account whose card is given with it; where the bank refuses the card no account is left behind."""
    account_id, once = _named_id(call), call.idempotency()
    if ask is not None:
        # What the company does not sell is said before anybody is asked about a card.
        subscriptions.new_offer(call.environment, ask)

    async def nothing(_: Unit) -> None:
        return None

    async def finish(_: None) -> Answer:
        async with call.engine.database.reading() as reader:
            known = await accounts.read_account(reader, call.environment.id, account_id)
            begun = None if once is None else await payment_store.find_by_request(reader, account_id, once.key)
        if known is not None:
            # The same request got as far as this before its answer could be kept.
            return await _paid_for(call, account_id, begun)
        customer, given = await cards.give_first_card(
            call.engine, call.environment, account_id, token, name=fields["name"], email=fields["email"]
        )
        payments: list[Payment | None] = []

        async def opening(unit: Unit) -> Account:
            return await service.open_account(
                call.engine, unit, call.environment, id=account_id, **{**fields, "stripe_id": customer}
            )

        async def then(unit: Unit) -> None:
            if ask is not None:
                payments.append((await _begin_plan(call, unit, account_id, ask, once)).payment)

        await cards.open_with_card(call.engine, call.environment, opening, given, then)
        return await _paid_for(call, account_id, payments[0] if payments else None)

    return await call.once_in_steps(Steps(nothing, nothing, finish, leaves_nothing=True))


async def _paid_for(call: Call, account_id: int, payment: Payment | None) -> Answer:
    """An account that was just opened, once the plan that it begins with is paid for."""
    status = 200
    if payment is not None:
        driven = await payment_service.drive(call.engine, call.environment, account_id, payment.id, fence=0)
        if driven.status in {"failed", "voided"}:
            # The account has gone with it, so the key may be used again.
            raise refused_payment(driven)
        status = 202 if driven.is_open else 200
    return Answer(status, shapes.wrapped(await shown_account(call, account_id)))


async def list_accounts(call: Call) -> Answer:
    """The company's accounts, newest first."""
    call.company()
    after = call.after(2)
    async with call.engine.database.reading() as reader:
        found = await accounts.list_accounts(
            reader, call.environment.id, limit=call.limit() + 1, after=after, filters=call.filters()
        )
        owed = await read_owed(reader, [account.id for account in found])
    return page_of(
        call,
        found,
        lambda account: (account.opened, account.id),
        lambda account: shapes.account(account, owed.get(account.id, {}), call.currency()),
    )


async def get_account(call: Call) -> Answer:
    """One account."""
    account = await call.account()
    async with call.engine.database.reading() as reader:
        owed = await read_owed(reader, [account.id])
    return Answer(200, shapes.wrapped(shapes.account(account, owed.get(account.id, {}), call.currency())))


async def edit_account(call: Call) -> Answer:
    """Change an account; what is not in the body stays as it is."""
    account_id = call.id("a", "account_id")
    given, tree = bodies.decode(call.body, AccountChange)
    changes: dict[str, object] = {}
    if "credit_limit" in tree:
        call.caller.needs_for_money("balances:write")
    if given.name is not None:
        changes["name"] = bodies.text(given.name, "name", NAME_MAX)
    if given.email is not None:
        changes["email"] = email(given.email, "email")
    if "metadata" in tree:
        changes["metadata"] = bodies.metadata(given.metadata, "metadata")
    if given.stripe_id is not msgspec.UNSET:
        changes["stripe_id"] = (
            None if given.stripe_id is None else bodies.token(given.stripe_id, "stripe_id", STRIPE_ID_MAX)
        )
    if given.credit_limit is not msgspec.UNSET:
        changes["credit_limit"] = (
            None if given.credit_limit is None else bodies.whole(given.credit_limit, "credit_limit")
        )

    async def verb(unit: Unit) -> tuple[Account, dict[str, int]]:
        edited = await service.edit_account(call.engine, unit, call.environment, account_id, changes)
        return edited, (await read_owed(unit, [account_id])).get(account_id, {})

    return await call.once(verb, lambda found: shapes.wrapped(shapes.account(*found, call.currency())))


async def list_balances(call: Call) -> Answer:
    """All balances of an account."""
    account = await call.account()
    async with call.engine.database.reading() as reader:
        found = await records.list_balances(reader, account.id, call.engine.now_of(call.environment))
    return Answer(200, shapes.listed([shapes.balance(row) for row in found], None))


async def open_balance(call: Call) -> Answer:
    """A balance in a denomination of the company's choice."""
    account_id, denomination = call.id("a", "account_id"), call.denomination()
    given = call.decoded(BalanceIn) if call.body else BalanceIn()
    amount = bodies.whole(given.amount, "amount", least=-AMOUNT_MAX)
    limit = None if given.credit_limit is None else bodies.whole(given.credit_limit, "credit_limit")
    changes = _refill_of(given)

    async def opening(unit: Unit) -> None:
        await service.open_account_balance(
            call.engine, unit, call.environment, account_id, denomination, amount=amount, credit_limit=limit
        )

    if changes:
        call.caller.needs("payments:write")
        if changes.get("is_monthly"):
            # Its first refill is charged at once, and a card that refuses it must not leave a balance behind.
            raise invalid("refill_monthly", "is set with PUT …/autorefill, once the balance is there.")
        return await put_refill(call, await call.account(), denomination, changes, opening=opening)

    async def verb(unit: Unit) -> records.BalanceRow:
        await opening(unit)
        return await balance_in(call, unit, account_id, denomination)

    return await call.once(verb, lambda found: shapes.wrapped(shapes.balance(found)))


def _refill_of(given: BalanceIn) -> dict[str, Any]:
    """The refill that a balance is opened with, if it says any (contract 2.2)."""
    changes: dict[str, Any] = {}
    if given.refill_amount is not None:
        changes["amount"] = bodies.whole(given.refill_amount, "refill_amount", least=1)
    if given.usd_charge is not None:
        changes["charge_amount"] = bodies.whole(given.usd_charge, "usd_charge")
    if given.threshold is not None:
        changes["threshold"] = bodies.whole(given.threshold, "threshold")
    if given.refill_monthly is not None:
        changes["is_monthly"] = given.refill_monthly
    return changes


async def change_balance(call: Call) -> Answer:
    """Set a balance's own credit limit."""
    account_id, denomination = call.id("a", "account_id"), call.denomination()
    given = call.decoded(BalanceChange)
    limit = None if given.credit_limit is None else bodies.whole(given.credit_limit, "credit_limit")

    async def verb(unit: Unit) -> records.BalanceRow:
        await service.limit_balance(call.engine, unit, call.environment, account_id, denomination, limit)
        return await balance_in(call, unit, account_id, denomination)

    return await call.once(verb, lambda found: shapes.wrapped(shapes.balance(found)))


async def adjust_balance(call: Call) -> Answer:
    """Put units on a balance, or take them off, without payment."""
    account_id, denomination = call.id("a", "account_id"), call.denomination()
    given = call.decoded(AdjustmentIn)
    amount = bodies.whole(given.amount, "amount", least=-AMOUNT_MAX)
    if amount == 0:
        raise invalid("amount", "is above or below zero.")
    reason = (
        f"adjustment with key {call.caller.actor}" if call.caller.user is None else f"adjustment by {call.caller.actor}"
    )
    if given.reason is not None:
        reason = bodies.text(given.reason, "reason", REASON_MAX)

    async def verb(unit: Unit) -> tuple[Transaction, str]:
        made = await service.adjust_balance(
            call.engine, unit, call.environment, account_id, denomination, amount=amount, reason=reason
        )
        found = await accounts.read_account(unit, call.environment.id, account_id)
        assert found is not None
        return made, found.name

    return await call.once(verb, lambda made: shapes.wrapped(shapes.made_transaction(made[0], account_id, made[1])))


_ACCOUNT_EXAMPLE: Final = {"name": "Ada", "email": "ada@example.com", "metadata": {"organization_id": 500}}

ROUTES: Final = (
    Route(
        "POST",
        "/companies",
        open_company,
        "Open a company",
        "Companies",
        shapes.CompanyOpenedOut,
        body=CompanyIn,
        refusals=("registration_closed",),
        example={"name": "Acme", "email": "owner@example.com", "password": "a long passphrase"},
        is_open=True,
    ),
    Route(
        "GET",
        "/companies/{company_id}",
        get_company,
        "Get the company",
        "Companies",
        shapes.CompanyOut,
        scope="company:read",
    ),
    Route(
        "PUT",
        "/companies/{company_id}",
        change_company,
        "Change the company's settings",
        "Companies",
        shapes.CompanyOut,
        scope="company:write",
        body=CompanyChange,
        refusals=("unknown_zone", "gateway_refused", "gateway_unavailable"),
        example={"time_zone": "Europe/Berlin", "default_credit_limit": 0},
    ),
    *(
        route
        for path in ("/companies/{company_id}/keys", "/companies/{company_id}/apikeys")
        for route in (
            Route(
                "POST",
                path,
                issue_key,
                "Issue an API key",
                "Keys",
                shapes.KeyIssuedOut,
                scope="keys:write",
                body=KeyIn,
                example={"name": "ingest", "scopes": ["events:write", "balances:read"]},
            ),
            Route(
                "GET",
                path,
                list_keys,
                "List API keys",
                "Keys",
                shapes.KeyOut,
                scope="keys:write",
                query=PAGING,
                is_list=True,
                refusals=("invalid_cursor",),
            ),
            Route(
                "DELETE",
                path + "/{key_id}",
                revoke_key,
                "Revoke an API key",
                "Keys",
                shapes.KeyOut,
                scope="keys:write",
                refusals=("last_key",),
            ),
        )
    ),
    Route(
        "POST",
        "/companies/{company_id}/accounts",
        open_account,
        "Open an account",
        "Accounts",
        shapes.AccountOut,
        scope="accounts:write",
        body=AccountIn,
        refusals=(
            *("not_supported_yet", "payment_failed", "gateway_refused", "gateway_not_configured"),
            *("gateway_unavailable", "payment_method_required", "insufficient_balance"),
        ),
        example=_ACCOUNT_EXAMPLE,
    ),
    Route(
        "GET",
        "/companies/{company_id}/accounts",
        list_accounts,
        "List accounts",
        "Accounts",
        shapes.AccountOut,
        scope="accounts:read",
        query=(
            *PAGING,
            Param("name", "text", "Only accounts of this name."),
            Param("email", "text", "Only accounts with this address."),
            Param("stripe_id", "text", "Only the account of this Stripe customer."),
            Param("plan_id", "plan_id", "Only accounts that are on this plan, at any of its versions."),
        ),
        is_list=True,
        refusals=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/accounts/{account_id}",
        get_account,
        "Get an account",
        "Accounts",
        shapes.AccountOut,
        scope="accounts:read",
    ),
    Route(
        "PUT",
        "/accounts/{account_id}",
        edit_account,
        "Edit an account",
        "Accounts",
        shapes.AccountOut,
        scope="accounts:write",
        body=AccountChange,
        example={"name": "Ada L.", "credit_limit": 5000},
    ),
    *(
        Route(
            "GET",
            path,
            list_balances,
            "List an account's balances",
            "Balances",
            shapes.BalanceOut,
            scope="balances:read",
            is_list=True,
        )
        for path in ("/accounts/{account_id}/balance", "/accounts/{account_id}/balances")
    ),
    Route(
        "POST",
        "/accounts/{account_id}/balance/{denomination}",
        open_balance,
        "Open a balance",
        "Balances",
        shapes.BalanceOut,
        scope="balances:write",
        body=BalanceIn,
        refusals=(
            *("balance_exists", "payment_method_required", "payment_failed", "refill_in_progress"),
            *("amount_not_chargeable", "balance_out_of_range"),
        ),
        pending="Opened; whether its first refill is paid is not known yet. It goes on by itself.",
        example={"amount": 1000},
    ),
    Route(
        "PUT",
        "/accounts/{account_id}/balance/{denomination}",
        change_balance,
        "Set a balance's credit limit",
        "Balances",
        shapes.BalanceOut,
        scope="balances:write",
        body=BalanceChange,
        example={"credit_limit": 500},
    ),
    Route(
        "POST",
        "/accounts/{account_id}/balance/{denomination}/adjust",
        adjust_balance,
        "Adjust a balance without payment",
        "Balances",
        shapes.TransactionOut,
        scope="balances:write",
        body=AdjustmentIn,
        refusals=("balance_out_of_range",),
        example={"amount": 100, "reason": "goodwill"},
    ),
)
