-- The console: people who sign in, their sessions, and what was done by whom.

alter table console_user alter column password_hash drop not null;
alter table console_user add column code_secret bytea;
alter table console_user add column code_step bigint;
alter table console_user add column invitation bytea;
alter table console_user add column invited_until timestamptz;
alter table console_user add column signed_in_at timestamptz;
create index console_user_email on console_user (email);
create unique index console_user_invitation on console_user (invitation) where invitation is not null;

create table console_session (
    digest           bytea       not null,
    company_id       bigint      not null,
    user_id          bigint      not null,
    live             boolean     not null,
    created_at       timestamptz not null,
    seen_at          timestamptz not null,
    authenticated_at timestamptz not null,
    address          text        not null,
    agent            text        not null,
    constraint console_session_pkey primary key (digest),
    constraint console_session_user_fkey foreign key (company_id, user_id)
        references console_user (company_id, id) on delete cascade
);
create index console_session_user on console_session (company_id, user_id);
create index console_session_age on console_session (seen_at);

create table sign_in_failure (
    email   text        not null,
    address text        not null,
    at      timestamptz not null
);
create index sign_in_failure_email on sign_in_failure (email, at);
create index sign_in_failure_address on sign_in_failure (address, at);
create index sign_in_failure_age on sign_in_failure (at);

create table activity (
    company_id     bigint      not null,
    id             bigint      not null generated always as identity,
    environment_id integer,
    at             timestamptz not null,
    actor          text        not null,
    actor_name     text        not null,
    address        text        not null,
    action         text        not null,
    target         text        not null,
    asked          json,
    number         bigint,
    digest         bytea,
    constraint activity_pkey primary key (company_id, id),
    constraint activity_number_key unique (company_id, number),
    constraint activity_company_fkey foreign key (company_id) references company (id)
);
create index activity_unsealed on activity (company_id, id) where number is null;
