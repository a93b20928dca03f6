-- Organizations: whose tokens a company believes, the tree of its customers' organizations, tax numbers, clearances.

alter table account add column public_id text collate "C";
alter table account add column address json;
alter table account add column currency text collate "C";
alter table account add column customer_made boolean not null default false;
alter table payment_method add column name text;
create unique index account_public_id on account (environment_id, public_id) where public_id is not null;

-- --- organizations ----------------------------------------------------------------------------------------------------

-- Whose tokens are believed: an issuer and an audience, one algorithm, and the keys. Keys are fetched by a sweep and
-- never because of a token.
create table issuer (
    environment_id  integer     not null,
    id              bigint      not null,
    issuer          text        collate "C" not null,
    audience        text        collate "C" not null,
    algorithm       text        not null, -- RS256, PS256, ES256, EdDSA, HS256
    jwks_url        text,
    keys            json        not null, -- public keys as JWKs, by kid; an object
    secret          bytea,      -- sealed; of HS256
    opens           boolean     not null, -- organizations are made at the first sight of a token
    max_life        integer     not null, -- seconds from iat to exp
    fetched_at      timestamptz,
    good_at         timestamptz,
    fetch_error     text,
    next_fetch_at   timestamptz,
    created_at      timestamptz not null,
    updated_at      timestamptz,
    constraint issuer_pkey primary key (environment_id, id),
    constraint issuer_key unique (issuer, audience),
    constraint issuer_environment_fkey foreign key (environment_id) references environment (id)
);
create index issuer_fetch on issuer (next_fetch_at) where next_fetch_at is not null;

-- An organization as its tokens name it. The one at the top of a tree has the account that pays.
create table organization (
    environment_id integer     not null,
    id             bigint      not null,
    external_id    text        collate "C" not null, -- the claim id
    parent_id      bigint,
    account_id     bigint,
    name           text        not null,
    owner_id       text,       -- the claim user_id of who came first
    created_at     timestamptz not null,
    updated_at     timestamptz,
    constraint organization_pkey primary key (environment_id, id),
    constraint organization_key unique (environment_id, external_id),
    constraint organization_parent_fkey foreign key (environment_id, parent_id)
        references organization (environment_id, id)
);
create unique index organization_account on organization (account_id) where account_id is not null;
create index organization_children on organization (environment_id, parent_id) where parent_id is not null;

-- Tax numbers of an account. status: pending, verified, unverified, unavailable.
create table tax_id (
    account_id       bigint      not null,
    id               bigint      not null,
    environment_id   integer     not null,
    gateway_id       text        collate "C",
    type             text        not null,
    value            text        not null,
    country          text        not null,
    status           text        not null,
    verified_name    text,
    verified_address text,
    tries            integer     not null default 0,
    next_at          timestamptz,
    created_at       timestamptz not null,
    deleted_at       timestamptz,
    constraint tax_id_pkey primary key (account_id, id),
    constraint tax_id_account_fkey foreign key (account_id) references account (id)
);
create unique index tax_id_value on tax_id (account_id, type, value) where deleted_at is null;
create index tax_id_due on tax_id (environment_id, next_at) where next_at is not null;

-- How many of something an organization will have once what was cleared lately is made.
create table clearance (
    environment_id  integer     not null,
    organization_id bigint      not null,
    basename        text        collate "C" not null,
    expected        bigint      not null,
    until           timestamptz not null, -- real time
    constraint clearance_pkey primary key (environment_id, organization_id, basename)
);
