"""Organizations: who stands behind a token, the tree in which the top pays, and the account of the top."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from tenuto.core.money import is_fiat
from tenuto.core.organization import DEPTH_MAX, Claims, path_to_root
from tenuto.core.outcomes import Refusal, invalid
from tenuto.engine import Engine
from tenuto.store import accounts, ledger, organizations, subscriptions
from tenuto.store.accounts import Account, Environment
from tenuto.store.database import Reader, Unit, translated
from tenuto.store.organizations import Organization, Placed

PUBLIC_ID_CHARACTERS: Final = 14
_LETTERS: Final = string.ascii_letters + string.digits


class Standing(NamedTuple):
    """An organization, who pays for it (itself at the top of its tree), and that one's account, if it has one yet."""

    organization: Organization
    payer: Organization
    account: Account | None
    is_told_below: bool = False
    """Its token says that it stands below another, whatever we know of its tree."""

    @property
    def is_direct(self) -> bool:
        """Whether it pays for itself: only where neither the tree nor its token puts it below another."""
        return self.payer.id == self.organization.id and not self.is_told_below

    def own_account(self) -> Account:
        """The account that is its own to see. Raises Refusal ``parent_pays`` or ``no_account``."""
        if not self.is_direct:
            raise Refusal("parent_pays")
        if self.account is None:
            raise Refusal("no_account", "You need to create an account first")
        return self.account


async def standing_of(engine: Engine, environment: Environment, claims: Claims, *, opens: bool) -> Standing:
    """Where the organization of a token stands; it is made at first sight where that is allowed.

    Raises Refusal ``organization_unknown``.
    """
    async with engine.database.reading() as reader:
        known = await organizations.read_named(reader, environment.id, claims.organization)
        if known is not None:
            return await _stands(reader, known, claims)
    if not opens:
        raise Refusal("organization_unknown")
    async with translated(), engine.database.writing() as unit:
        return await _stands(
            unit, await organizations.insert_organization(unit, _new(engine, environment, claims)), claims
        )


async def _stands(reader: Reader, known: Organization, claims: Claims) -> Standing:
    path = await organizations.read_path(reader, known.environment_id, known.id)
    if not path:
        # It was deleted between two statements.
        raise Refusal("organization_unknown")
    account = None
    if path[-1].account_id is not None:
        account = await accounts.read_account(reader, known.environment_id, path[-1].account_id)
    return Standing(path[0], path[-1], account, claims.is_direct is False)


def _new(engine: Engine, environment: Environment, claims: Claims) -> Organization:
    now = engine.now_of(environment)
    return Organization(environment.id, engine.new_id(), claims.organization, None, None, "", claims.user, now, None)


async def open_billing_account(
    engine: Engine, unit: Unit, environment: Environment, organization_id: int, *, name: str, email: str, country: str
) -> Account:
    """The account of an organization that pays for itself. Raises Refusal ``account_exists`` or ``parent_pays``."""
    await accounts.lock_environment(unit, environment.id)
    path = await organizations.read_path(unit, environment.id, organization_id)
    if not path:
        raise Refusal("organization_unknown")
    if len(path) > 1:
        raise Refusal("parent_pays")
    if path[0].account_id is not None:
        raise Refusal("account_exists")
    now = engine.now_of(environment)
    account = Account(
        id=engine.new_id(),
        environment_id=environment.id,
        company_id=environment.company_id,
        name=name,
        email=email,
        metadata=None,
        stripe_id=None,
        credit_limit=None,
        opened=engine.tick(),
        created_at=now,
        updated_at=None,
    )
    await accounts.insert_account(unit, account)
    changes = {"public_id": _public_id(), "address": {"country": country}}
    await accounts.update_account(unit, account.id, changes, now, engine.tick())
    await organizations.update_organization(unit, environment.id, organization_id, {"account_id": account.id}, now)
    found = await accounts.read_account(unit, environment.id, account.id)
    assert found is not None
    return found


async def change_billing_account(
    engine: Engine, unit: Unit, environment: Environment, account_id: int, changes: Mapping[str, Any]
) -> Account:
    """Change name, email and parts of the address of an account; ``""`` unsets a part of the address."""
    now = engine.now_of(environment)
    await ledger.take_account(unit, environment.id, account_id, now)
    found = await accounts.read_account(unit, environment.id, account_id)
    assert found is not None
    wanted = {name: changes[name] for name in ("name", "email") if name in changes}
    if changes.get("address"):
        merged = {**(found.address or {}), **changes["address"]}
        wanted["address"] = {name: value for name, value in merged.items() if value}
    if wanted:
        await accounts.update_account(unit, account_id, wanted, now, engine.tick())
    again = await accounts.read_account(unit, environment.id, account_id)
    assert again is not None
    return again


def _public_id() -> str:
    """The name of an account for the people of its organization, such as ``cus_OdMmvWHZ8Y2rEH`` (seed S3)."""
    return "cus_" + "".join(secrets.choice(_LETTERS) for _ in range(PUBLIC_ID_CHARACTERS))


async def place(
    engine: Engine, unit: Unit, environment: Environment, external_id: str, changes: Mapping[str, Any]
) -> Placed:
    """Make an organization, or change what is given of it.

    ``changes``: ``name``, ``owner_id``, ``parent`` by that one's own name (None: it pays for itself), ``account_id`` of
    an account that is to be its own from now on.

    Raises Refusal ``organization_cycle``; ``account_exists`` where one with an account would stand below another, or
    account and organization are not both free; ``invalid_field`` for a parent or an account that is not there.
    """
    # Two moves at once could close a circle that neither of them sees.
    await accounts.lock_environment(unit, environment.id)
    now = engine.now_of(environment)
    known = await organizations.read_named(unit, environment.id, external_id)
    if known is None:
        made = Organization(environment.id, engine.new_id(), external_id, None, None, "", None, now, None)
        known = await organizations.insert_organization(unit, made)
    wanted = {name: changes[name] for name in ("name", "owner_id") if name in changes}
    if "parent" in changes:
        known = known._replace(parent_id=await _parent(unit, environment, known, changes["parent"]))
        wanted["parent_id"] = known.parent_id
    if changes.get("account_id", known.account_id) != known.account_id:
        await _link(engine, unit, environment, known, changes["account_id"], now)
        wanted["account_id"] = changes["account_id"]
    if wanted:
        await organizations.update_organization(unit, environment.id, known.id, wanted, now)
    return await read_placed(unit, environment, external_id)


async def read_placed(reader: Reader, environment: Environment, external_id: str) -> Placed:
    """One organization of a half of a company. Raises Refusal ``not_found``."""
    named = {"external_id": external_id}
    found = await organizations.list_organizations(reader, environment.id, limit=1, after=None, filters=named)
    if not found:
        raise Refusal("not_found")
    return found[0]


async def remove(unit: Unit, environment: Environment, external_id: str) -> Placed:
    """Forget an organization that has no account and none below it.

    Raises Refusal ``not_found`` or ``organization_in_use``.
    """
    await accounts.lock_environment(unit, environment.id)
    found = await read_placed(unit, environment, external_id)
    known = found.organization
    if known.account_id is not None or await organizations.read_height(unit, environment.id, known.id, 1):
        raise Refusal("organization_in_use")
    await organizations.delete_organization(unit, environment.id, known.id)
    return found


async def _parent(unit: Unit, environment: Environment, known: Organization, parent: str | None) -> int | None:
    if parent is None:
        return None
    above = await organizations.read_named(unit, environment.id, parent)
    if above is None:
        raise invalid("parent", "is the id of no organization here.")
    parents = await organizations.read_parents(unit, environment.id, above.id)
    below = await organizations.read_height(unit, environment.id, known.id, DEPTH_MAX)
    path_to_root({**parents, known.id: above.id}, known.id, below)
    if known.account_id is not None:
        raise Refusal("account_exists", "An organization with an account of its own pays for itself.")
    return above.id


async def _link(
    engine: Engine, unit: Unit, environment: Environment, known: Organization, account_id: int, now: datetime
) -> None:
    """Make an account that is there the organization's own, by a name that its people may see."""
    account = await accounts.read_account(unit, environment.id, account_id)
    if account is None:
        raise invalid("account_id", "is the id of no account here.")
    if known.parent_id is not None:
        raise Refusal("account_exists", "An organization below another has no account of its own: the top pays.")
    if known.account_id is not None or account.organization_id is not None:
        raise Refusal("account_exists", "An account belongs to one organization, and stays with it.")
    await ledger.take_account(unit, environment.id, account_id, now)
    if account.public_id is None:
        await accounts.update_account(unit, account_id, {"public_id": _public_id()}, now, engine.tick())
    running = await subscriptions.read_subscription(unit, account_id)
    if running is not None and running.is_running:
        terms = await subscriptions.read_terms(unit, environment.id, account_id, running)
        if is_fiat(terms.denomination):
            # A plan that the company has put it on fixes its currency, whoever came first (decision 0046).
            await accounts.fix_currency(unit, account_id, terms.denomination)
