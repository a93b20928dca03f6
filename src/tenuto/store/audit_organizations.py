"""What the audit asks about organizations: the tree, the accounts that pay, tax numbers, issuers, clearances.

The problem, on one example. A reseller R pays for its customer C and for C's branch B:

    row                                    what has to stand beside it
    organization B, below C                C in the same half of the company, and a top within 32 levels: no circle
    organization R, account a_1            no parent, an account of the same half, and of no other organization
    account a_1, cus_OdMmvWHZ8Y2rEH        an organization; an address of parts that there are
    account a_1, currency AUD              a plan in Australian dollars that began
    tax number DE123456789, pending        a turn that is due; nothing else has one, but a deleted number
    issuer with HS256                      a sealed secret, and neither keys nor an address of keys

The statements give what those of ``audit_queries`` give. An account that was given to an organization while its plan
ran has no currency until the next one begins, so that one without a currency is not held to its plans. Sources:
contract 5.2 to 5.10, decisions 0045 and 0046.
"""

from __future__ import annotations

from typing import Final

from tenuto.core.money import CURRENCY_EXPONENTS
from tenuto.core.organization import COUNTRIES, DEPTH_MAX, TAX_TYPES

from .audit_money import listed

COUNTS: Final = """
select (select count(*) from organization) as organizations, (select count(*) from tax_id) as tax_ids,
    (select count(*) from issuer) as issuers, (select count(*) from clearance) as clearances
"""


# --- the tree, and who pays -------------------------------------------------------------------------------------------

_PARTS: Final = listed(("city", "country", "line1", "line2", "postal_code", "state"))

ORGANIZATIONS: Final = f"""
with recursive tree as (
    select environment_id, id, 1 as depth from organization where parent_id is null
    union all
    select o.environment_id, o.id, t.depth + 1
    from organization o join tree t on t.environment_id = o.environment_id and t.id = o.parent_id
    where t.depth < {DEPTH_MAX}
),
placed as (
    select o.environment_id, o.id, o.external_id, o.parent_id, o.account_id, case
        when o.parent_id is not null and p.id is null then 'a parent of its half of the company'
        when t.id is null then 'a top of its tree, {DEPTH_MAX} levels high at most, and no circle'
        when o.account_id is null then null
        when o.parent_id is not null then 'no account: the top of its tree pays'
        when (a.environment_id = o.environment_id) is not true then 'an account of its half of the company'
        when count(*) over (partition by o.account_id) > 1 then 'an account that is no other''s'
        end as expected
    from organization o
    left join organization p on p.environment_id = o.environment_id and p.id = o.parent_id
    left join tree t on t.environment_id = o.environment_id and t.id = o.id
    left join account a on a.id = o.account_id
),
begun as (select distinct account_id, denomination from subscription_step where kind = 'start'),
payer as (
    select a.id, a.public_id, a.address, a.currency, case
        when a.public_id is null then 'a public id, for it has an organization, an address or a currency'
        when o.account_id is null then 'an organization, for it has a public id'
        when a.public_id !~ '^cus_[A-Za-z0-9]{{14}}$' then 'a public id of cus_ and 14 letters and digits'
        when count(*) over (partition by a.environment_id, a.public_id) > 1 then 'a public id that is no other''s'
        when json_typeof(a.address) <> 'object' or exists (
            select from json_each(a.address) as part (name, value)
            where name not in ({_PARTS}) or json_typeof(value) <> 'string' or value #>> '{{}}' = '')
            or a.address ->> 'country' not in ({listed(COUNTRIES)})
            then 'an address of parts that there are, none of them empty, in a country that there is'
        when a.currency not in ({listed(frozenset(CURRENCY_EXPONENTS))})
            or a.currency is not null and b.account_id is null then 'the currency of a plan that it began, or none'
        end as expected
    from account a
    left join (select distinct account_id from organization) o on o.account_id = a.id
    left join begun b on b.account_id = a.id and b.denomination = a.currency
    where o.account_id is not null or num_nonnulls(a.public_id, a.address, a.currency) > 0
)
select 'organization', environment_id::bigint, id, external_id,
    format('below %s, account %s', coalesce(parent_id::text, 'none'), coalesce(account_id::text, 'none')), expected
from placed where expected is not null
union all
select 'account', id, 0::bigint, '', format('public id %s, address %s, currency %s', coalesce(public_id, 'none'),
    coalesce(address::text, 'none'), coalesce(currency, 'none')), expected
from payer where expected is not null
"""


# --- tax numbers ------------------------------------------------------------------------------------------------------

# Numbers are told apart without the signs that set them in groups. A turn that was lost may have made a number at the
# provider; it was counted before the one in which the number was deleted.
TAX_IDS: Final = f"""
with plain as (
    select t.*, a.environment_id as half, count(*) filter (where t.deleted_at is null) over (
        partition by t.account_id, t.type, upper(translate(t.value, ' .-/', '') collate "C")) as alive
    from tax_id t left join account a on a.id = t.account_id
),
judged as (
    select account_id, id, type, value, status, next_at, deleted_at, case
        when (half = environment_id) is not true then 'an account of its half of the company'
        when type not in ({listed(TAX_TYPES)}) then 'a kind of tax number that there is'
        when country !~ '^[A-Z][A-Z]$' then 'a country'
        when status not in ('pending', 'verified', 'unverified', 'unavailable')
            then 'pending, verified, unverified or unavailable'
        when status = 'verified' and gateway_id is null then 'an id at the provider, who has verified it'
        when tries < 0 then 'no turn or some'
        when deleted_at is null and (status = 'pending') <> (next_at is not null)
            then 'a turn that is due if it is pending, and else none'
        when deleted_at is not null and next_at is not null and gateway_id is null and tries < 2
            then 'no turn: the provider never knew of it'
        when deleted_at is null and alive > 1 then 'a number that its account has once'
        end as expected
    from plain
)
select 'tax number', account_id, id, '', format('%s %s, %s, next turn %s, deleted %s', type, value, status,
    coalesce(next_at::text, 'never'), coalesce(deleted_at::text, 'never')), expected
from judged where expected is not null
"""


# --- whose tokens are believed ----------------------------------------------------------------------------------------

# What seals a secret adds 29 bytes to the base64 of 32 to 512 bytes.
_SEALED: Final = "substring(secret from 1 for 1) = '\\x01' and octet_length(secret) between 73 and 713"

ISSUERS: Final = f"""
with kind (algorithm, kty) as (
    values ('RS256', 'RSA'), ('PS256', 'RSA'), ('ES256', 'EC'), ('EdDSA', 'OKP'), ('HS256', null)
),
judged as (
    select i.environment_id, i.id, i.issuer, i.algorithm, i.jwks_url, i.secret, i.next_fetch_at, case
        when k.algorithm is null then 'an algorithm that there is'
        when json_typeof(i.keys) <> 'object' then 'keys by their names'
        when k.kty is null and (secret is null or jwks_url is not null or i.keys::text <> '{{}}')
            then 'a secret and nothing else, for its algorithm has no public keys'
        when k.kty is not null and (secret is not null or jwks_url is null and i.keys::text = '{{}}')
            then 'public keys or an address of such, and no secret'
        when secret is not null and not ({_SEALED}) then 'a secret of 32 to 512 bytes, sealed by this version'
        when exists (select from json_each(i.keys) as own (name, jwk)
            where (jwk ->> 'kty' = k.kty and jwk ->> 'kid' = name) is not true) then 'keys of its algorithm, by kid'
        when (jwks_url is null) <> (next_fetch_at is null) then 'a next look at its keys, if they are published'
        end as expected
    from issuer i left join kind k on k.algorithm = i.algorithm
)
select 'issuer', environment_id::bigint, id, '', format('%s with %s, keys at %s, a secret of %s bytes, next look %s',
    issuer, algorithm, coalesce(jwks_url, 'no address'), coalesce(octet_length(secret), 0),
    coalesce(next_fetch_at::text, 'never')), expected
from judged where expected is not null
"""


# --- clearances -------------------------------------------------------------------------------------------------------

CLEARANCES: Final = """
select 'clearance', c.environment_id::bigint, c.organization_id, c.basename, format('%s expected', c.expected),
    case when o.id is null then 'an organization of its half of the company' else 'none or some' end
from clearance c
left join organization o on o.environment_id = c.environment_id and o.id = c.organization_id
where o.id is null or c.expected < 0
"""


# --- what is added to the checks of all rows --------------------------------------------------------------------------

GIVEN: Final = """
    union all select account_id, max(id) from tax_id group by account_id
"""
"""Ids of accounts, for ``audit_queries.TICKS``."""
