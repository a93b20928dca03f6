"""The audit of organizations: clean with every kind of row there is, and naming the very row that is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import asyncpg
import pytest

from tenuto.core.organization import DEPTH_MAX
from tenuto.service import issuers, organizations, tax_ids
from tenuto.service.cards import customer_of
from tenuto.service.issuers import Source
from tenuto.service.subscriptions import PlanAsk
from tenuto.store import accounts, audit, clearances
from tenuto.store.database import migrate
from tests.conftest import MadeUpClock
from tests.inside import Inside
from tests.simulated import Simulated
from tests.store.plan_world import FREE, PlanWorld
from tests.store.test_audit import (
    ORGANIZATION_CHECKS,
    ORGANIZATION_COUNTS,
    Wrong,
    account,
    expect_clean,
    expect_named,
    torn_open,
)
from tests.store.test_audit_money import dropped

KEY: Final = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
SECRET: Final = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
JWKS: Final = "https://auth.example.com/jwks"
DEPTH: Final = DEPTH_MAX - 3


class Customers(PlanWorld):
    """A company whose customers are organizations."""

    async def opened(self, name: str, **address: str) -> int:
        await self.placed(name)
        async with self.engine.database.writing() as unit:
            known = await organizations.read_placed(unit, self.environment, name)
            made = await organizations.open_billing_account(
                self.engine,
                unit,
                self.environment,
                known.organization.id,
                name="Hannes",
                email="hannes@example.com",
                country="AU",
            )
            await organizations.change_billing_account(
                self.engine, unit, self.environment, made.id, {"address": address}
            )
        return made.id

    async def placed(self, name: str, **changes: Any) -> None:
        async with self.engine.database.writing() as unit:
            await organizations.place(self.engine, unit, self.environment, name, changes)

    async def believe(self, audience: str, algorithm: str, source: Source) -> None:
        asked = {"issuer": "https://auth.example.com", "audience": audience, "algorithm": algorithm}
        async with self.engine.database.writing() as unit:
            await issuers.create_issuer(
                self.engine, unit, self.environment, {**asked, "opens": True, "max_life": 3600}, source
            )

    async def number(self, account_id: int, type: str, value: str) -> int:
        async with self.engine.database.writing() as unit:
            made = await tax_ids.add_tax_id(self.engine, unit, self.environment, account_id, type=type, value=value)
        return made.id

    async def turn(self) -> None:
        await tax_ids.verify_due(self.engine, customer_of, now=self.engine.now(), limit=100)
        self.stripe.release()
        self.clock.forward(minutes=1)

    async def cleared(self, name: str) -> None:
        async with self.engine.database.writing() as unit:
            known = (await organizations.read_placed(unit, self.environment, name)).organization
            await clearances.keep(unit, self.environment.id, known.id, "Site", 3, self.clock.at)


@pytest.fixture(scope="module")
def stripe() -> Iterator[Simulated]:
    with Simulated() as found:
        yield found


@pytest.fixture(scope="module")
async def world(new_database: Callable[[str], str], stripe: Simulated) -> AsyncIterator[Customers]:
    dsn = new_database("audit_organizations")
    await migrate(dsn)
    found = await Customers.made(dsn, MadeUpClock(), stripe)
    assert isinstance(found, Customers)
    try:
        await fill(found)
        yield found
    finally:
        await found.engine.close()


async def fill(world: Customers) -> None:
    top = await world.opened("top", city="Perth", line1="1 Hay Street")
    await world.step(top, PlanAsk(await world.plan(FREE)))
    await world.opened("second")
    # One that was a customer before it was an organization, and has no currency yet.
    known = await world.company.account()
    await world.step(known, PlanAsk(await world.plan(FREE)))
    await world.placed("linked", account_id=known)
    await world.placed("child", parent="top")
    await world.placed("grandchild", parent="child")
    above = "grandchild"
    for level in range(DEPTH):
        await world.placed(f"level {level}", parent=above)
        above = f"level {level}"
    await world.cleared("top")
    await world.cleared("child")
    await number_everything(world, top)
    await world.believe("keys", "EdDSA", Source(keys=[KEY]))
    await world.believe("published", "RS256", Source(jwks_url=JWKS))
    await world.believe("shared", "HS256", Source(secret=SECRET))
    # The other company has an account, too.
    other = await Inside.open(world.engine)
    await other.account()


async def number_everything(world: Customers, account_id: int) -> None:
    await world.number(account_id, "za_vat", "4123456789")
    await world.number(account_id, "eu_vat", "DE000000000")
    await world.number(account_id, "eu_vat", "DE111111111")
    gone = [await world.number(account_id, "eu_vat", value) for value in ("DE222222222", "DE 333 333 333")]
    await world.turn()
    await world.turn()
    never = await world.number(account_id, "eu_vat", "DE444444444")
    for tax_id in (*gone, never):
        async with world.engine.database.writing() as unit:
            await tax_ids.remove_tax_id(world.engine, unit, world.environment, account_id, tax_id)
    # It may come again once it is gone.
    await world.number(account_id, "eu_vat", "DE333333333")


@pytest.fixture
async def books(world: Customers) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction that is rolled back: what a test breaks, nobody ever sees."""
    async with torn_open(world.engine.settings.database) as connection:
        yield connection


async def test_books_of_organizations_are_clean(books: asyncpg.Connection) -> None:
    planned = await expect_clean(books)
    assert all(planned.counts[name] for name in ORGANIZATION_COUNTS), planned.counts


async def test_the_books_hold_what_the_rules_are_about(books: asyncpg.Connection) -> None:
    async def words(query: str) -> set[object]:
        return {row[0] for row in await books.fetch(query)}

    assert await words("select status from tax_id") == {"pending", "verified", "unverified", "unavailable"}
    assert await words("select next_at is null from tax_id where deleted_at is not null") == {True, False}
    assert await words("select currency from account where public_id is not null") == {"USD", None}
    assert await words("select algorithm from issuer") == {"EdDSA", "RS256", "HS256"}


async def test_nothing_is_cleared_for_an_organization_that_is_gone(world: Customers) -> None:
    await world.placed("gone")
    async with world.engine.database.writing() as unit:
        known = (await organizations.remove(unit, world.environment, "gone")).organization
    async with world.engine.database.writing() as unit:
        await clearances.keep(unit, world.environment.id, known.id, "Site", 1, world.clock.at)

        kept = await clearances.read_known(unit, world.environment.id, known.id, known.id, "Site")
        assert await unit.fetchval("select count(*) from clearance where organization_id = $1", known.id) == 0
    assert kept.expected is None


async def test_who_forgets_an_organization_waits_for_what_is_cleared_for_it(world: Customers) -> None:
    async def forget() -> None:
        async with world.engine.database.writing() as unit:
            await organizations.remove(unit, world.environment, "left")

    await world.placed("left")
    async with world.engine.database.writing() as unit:
        known = (await organizations.read_placed(unit, world.environment, "left")).organization
        await clearances.keep(unit, world.environment.id, known.id, "Site", 1, world.clock.at)
        forgetting = asyncio.create_task(forget())
        finished, _ = await asyncio.wait({forgetting}, timeout=0.3)
        assert not finished
    await forgetting

    async with world.engine.database.reading() as reader:
        assert await reader.fetchval("select count(*) from clearance where organization_id = $1", known.id) == 0


async def test_an_account_that_was_given_to_an_organization_is_not_taken_back(world: Customers) -> None:
    given, plain = await world.company.account(), await world.company.account()
    await world.placed("given", account_id=given)

    async with world.engine.database.writing() as unit:
        assert not await accounts.delete_opened(unit, given)
        assert await accounts.delete_opened(unit, plain)


def organization(change: str, name: str) -> str:
    return f"""update organization set {change} where external_id = '{name}'
        returning 'organization', environment_id::bigint, id, external_id"""


def number(change: str, where: str) -> str:
    return f"""update tax_id set {change} where (account_id, id) = (
        select account_id, id from tax_id where {where} order by id desc limit 1)
        returning 'tax number', account_id, id, ''"""


def issuer(change: str, audience: str) -> str:
    return f"""update issuer set {change} where audience = '{audience}'
        returning 'issuer', environment_id::bigint, id, ''"""


def named(name: str) -> str:
    return f"(select id from organization where external_id = '{name}')"


def payer(change: str, name: str = "top") -> str:
    return account(change, f"id = (select account_id from organization where external_id = '{name}')")


NO_PARENT: Final = dropped("organization", "organization_parent_fkey")
ELSEWHERE: Final = "(select a.id from account a where a.environment_id <> organization.environment_id limit 1)"
GONE: Final = "deleted_at is not null and next_at is not null"

WRONGS = {
    "circle": Wrong("organizations", organization(f"parent_id = {named('grandchild')}", "child")),
    "organization below itself": Wrong("organizations", organization("parent_id = id", "child")),
    "tree that is too high": Wrong(
        "organizations",
        "insert into organization select environment_id, 7, 'leaf', id, null, '', null, created_at from organization"
        f" where external_id = 'level {DEPTH - 1}' returning 'organization', environment_id::bigint, id, external_id",
    ),
    "parent that is gone": Wrong("organizations", organization("parent_id = 7", "child"), NO_PARENT),
    "parent of another half": Wrong("organizations", organization("environment_id = 7", "grandchild"), NO_PARENT),
    "account below another": Wrong("organizations", organization(f"parent_id = {named('top')}", "second")),
    "account of another half": Wrong("organizations", organization(f"account_id = {ELSEWHERE}", "second")),
    "account of nobody": Wrong("organizations", organization("account_id = 7", "second")),
    "account of two": Wrong(
        "organizations",
        organization(
            "account_id = (select account_id from organization where external_id = 'top' limit 1)",
            "second",
        ),
        "drop index organization_account",
    ),
    "account that its organization has lost": Wrong(
        "organizations",
        "with lost as (update organization set account_id = null where external_id = 'second' returning 1)"
        " select 'account', account_id, 0::bigint, '' from organization, lost where external_id = 'second'",
    ),
    "organization's account without a public id": Wrong("organizations", payer("public_id = null", "second")),
    "address of no organization": Wrong(
        "organizations", account('address = \'{"country": "AU"}\'', "public_id is null")
    ),
    "public id of other signs": Wrong("organizations", payer("public_id = 'cus_0123456789-abc'")),
    "public id that is too long": Wrong("organizations", payer("public_id = public_id || 'x'")),
    "public id of two": Wrong(
        "organizations",
        payer(
            "public_id = (select public_id from account where id = (select account_id from organization"
            " where external_id = 'top'))",
            "second",
        ),
        "drop index account_public_id",
    ),
    "address that is a list": Wrong("organizations", payer("address = '[]'")),
    "address with a planet": Wrong("organizations", payer('address = \'{"planet": "Mars"}\'')),
    "address with a part that is empty": Wrong("organizations", payer('address = \'{"city": ""}\'')),
    "address with a number": Wrong("organizations", payer("address = '{\"city\": 7}'")),
    "address in no country": Wrong("organizations", payer('address = \'{"country": "XX"}\'')),
    "currency that is a token": Wrong("organizations", payer("currency = 'tokens'")),
    "currency of no plan": Wrong("organizations", payer("currency = 'AUD'")),
    "status that is none": Wrong("tax_ids", number("status = 'perhaps'", "status = 'unavailable'")),
    "kind that is none": Wrong("tax_ids", number("type = 'xx_vat'", "type = 'za_vat'")),
    "country that is none": Wrong("tax_ids", number("country = 'Germany'", "status = 'verified'")),
    "verified by nobody": Wrong("tax_ids", number("gateway_id = null", "status = 'verified'")),
    "looked up less than never": Wrong("tax_ids", number("tries = -1", "status = 'verified'")),
    "pending for ever": Wrong("tax_ids", number("next_at = null", "status = 'pending' and deleted_at is null")),
    "looked up though it is known": Wrong("tax_ids", number("next_at = created_at", "status = 'verified'")),
    "looked up though it never is": Wrong("tax_ids", number("next_at = created_at", "type = 'za_vat'")),
    "forgotten though nobody knew": Wrong("tax_ids", number("gateway_id = null, tries = 1", GONE)),
    "number that is there twice": Wrong("tax_ids", number("value = 'DE-000.000 000'", "value = 'DE111111111'")),
    "number of another half": Wrong("tax_ids", number("environment_id = 7", "status = 'verified'")),
    "number of nobody": Wrong(
        "tax_ids", number("account_id = 7", "status = 'verified'"), dropped("tax_id", "tax_id_account_fkey")
    ),
    "number above the tick": Wrong(
        "ticks",
        "update tax_id t set id = a.tick + 1 from account a where a.id = t.account_id and t.status = 'verified'"
        " returning 'account', a.id, 0::bigint, ''",
    ),
    "algorithm that is none": Wrong("issuers", issuer("algorithm = 'none'", "keys")),
    "keys of another algorithm": Wrong("issuers", issuer("algorithm = 'ES256'", "keys")),
    "keys that are no object": Wrong("issuers", issuer("keys = '[]'", "published")),
    "no keys": Wrong("issuers", issuer("keys = '{}'", "keys")),
    "key by another name": Wrong("issuers", issuer("keys = json_build_object('k2', keys -> 'k1')", "keys")),
    "keys and a secret": Wrong("issuers", issuer("secret = '\\x01'", "keys")),
    "shared without a secret": Wrong("issuers", issuer("secret = null", "shared")),
    "shared and published": Wrong("issuers", issuer("jwks_url = 'https://a', next_fetch_at = created_at", "shared")),
    "shared, with public keys": Wrong("issuers", issuer('keys = \'{"k1": {"kid": "k1"}}\'', "shared")),
    "secret in the open": Wrong("issuers", issuer(f"secret = '{SECRET * 2}'", "shared")),
    "secret that is too short": Wrong("issuers", issuer("secret = substring(secret from 1 for 72)", "shared")),
    "published, never looked at": Wrong("issuers", issuer("next_fetch_at = null", "published")),
    "looked at, not published": Wrong("issuers", issuer("next_fetch_at = created_at", "keys")),
    "cleared for nobody": Wrong(
        "clearances",
        "update clearance set organization_id = 7 where organization_id = (select id from organization"
        " where external_id = 'child') returning 'clearance', environment_id::bigint, organization_id, basename",
    ),
    "cleared below none": Wrong(
        "clearances",
        "update clearance set expected = -1 where organization_id = (select id from organization"
        " where external_id = 'child') returning 'clearance', environment_id::bigint, organization_id, basename",
    ),
}


@pytest.mark.parametrize("name", WRONGS)
async def test_a_wrong_fact_about_organizations_is_named(books: asyncpg.Connection, name: str) -> None:
    await expect_named(books, WRONGS[name])


def test_every_rule_about_organizations_has_a_wrong_fact_that_it_names() -> None:
    assert set(ORGANIZATION_CHECKS) <= {check.name for check in audit.CHECKS}
    assert {wrong.check for wrong in WRONGS.values()} >= set(ORGANIZATION_CHECKS)
