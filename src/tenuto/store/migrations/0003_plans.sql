-- Plans: what is sold, accounts on it, their periods and steps, grants, and prices agreed with one account.

alter table balance
    add column arrived bigint not null default 0,
    add column burned bigint not null default 0;
update balance set arrived = moved.amount
from (
    select account_id, denomination, sum(amount) as amount from transaction where book <> 'usage'
    group by account_id, denomination
) as moved
where moved.account_id = balance.account_id and moved.denomination = balance.denomination;
update balance set burned = arrived - amount;

alter table refill add column by_plan boolean not null default false;

alter table event_price add column plan_version_id bigint;
drop index event_price_rule_key;
create unique index event_price_rule_key on event_price (environment_id, type, denomination, match_key)
    where deleted_at is null and plan_version_id is null;

-- Counters are kept by a period's name: the first day of a calendar month as before, or the id of a plan period.
alter table price_counter drop constraint price_counter_pkey;
alter table price_counter add column period text collate "C";
update price_counter set period = month::text;
alter table price_counter drop column month;
alter table price_counter alter column period set not null;
alter table price_counter add constraint price_counter_pkey primary key (account_id, price_id, period);
update event set prior = replace(prior::text, '"month":', '"period":')::json where prior is not null;
update event set first = replace(first::text, '"month":', '"period":')::json where first is not null;
update event_charge set prior = replace(prior::text, '"month":', '"period":')::json where prior is not null;

-- --- plans ------------------------------------------------------------------------------------------------------------

-- What is sold to accounts. A plan is changed by a new version; accounts stay on theirs until they are moved.
create table plan (
    environment_id integer     not null,
    id             bigint      not null,
    code           text        collate "C", -- the company's own name for it, by which plans as code find it
    created_at     timestamptz not null,
    archived_at    timestamptz,
    constraint plan_pkey primary key (environment_id, id),
    constraint plan_environment_fkey foreign key (environment_id) references environment (id)
);
create unique index plan_code_key on plan (environment_id, code) where code is not null and archived_at is null;

-- Immutable terms. `id` is unique in the environment and is what a subscription points at.
create table plan_version (
    environment_id integer     not null,
    id             bigint      not null,
    plan_id        bigint      not null,
    number         integer     not null,
    terms          json        not null,
    created_at     timestamptz not null,
    constraint plan_version_pkey primary key (environment_id, id),
    constraint plan_version_number_key unique (environment_id, plan_id, number),
    constraint plan_version_plan_fkey foreign key (environment_id, plan_id) references plan (environment_id, id)
);

-- A version's terms as agreed with one account: `changes` are what differs, `terms` the whole.
create table plan_override (
    account_id bigint      not null,
    id         bigint      not null,
    version_id bigint      not null,
    changes    json        not null,
    terms      json        not null,
    created_at timestamptz not null,
    constraint plan_override_pkey primary key (account_id, id),
    constraint plan_override_account_fkey foreign key (account_id) references account (id)
);

-- Versions of the event prices agreed with one account; `id` is what an event points at, as to event_price_version.
create table price_override (
    account_id   bigint      not null,
    id           bigint      not null,
    price_id     bigint      not null,
    number       integer     not null,
    type         text        not null,
    denomination text        not null,
    match        json        not null,
    match_key    text        not null,
    terms        json        not null,
    created_at   timestamptz not null, -- of the price; every version carries it
    effective_at timestamptz not null,
    ended_at     timestamptz, -- of the price, on each of its versions
    constraint price_override_pkey primary key (account_id, id),
    constraint price_override_number_key unique (account_id, price_id, number),
    constraint price_override_account_fkey foreign key (account_id) references account (id)
);
create unique index price_override_rule_key on price_override (account_id, type, denomination, match_key)
    where ended_at is null and number = 1;

-- An account on a plan: what it is on now, or was on last. status: pending_card, trialing, active, past_due, paused,
-- cancelled. `number` is of the next renewal, counted from the anchor; `next_at` when something is to be done.
create table subscription (
    account_id       bigint      not null,
    environment_id   integer     not null,
    plan_id          bigint      not null,
    version_id       bigint      not null,
    override_id      bigint,
    cadence          text        not null, -- MONTHLY, YEARLY, ONE_OFF
    status           text        not null,
    zone             text        not null, -- of the company when it began
    anchor_at        timestamptz not null,
    number           integer     not null,
    period_id        bigint      not null, -- 0 while it has none
    period_start     timestamptz,
    period_end       timestamptz,
    refill_number    integer     not null, -- of the next refill of the balances, counted from the period's start
    refill_at        timestamptz,
    variable_units   json        not null,
    scheduled        json,       -- what it changes to at the next renewal
    cancels_at_end   boolean     not null,
    payment_id       bigint,     -- of the renewal that is being paid for, or was not
    declines         integer     not null, -- of a balance that was to pay
    next_at          timestamptz,
    renewed_at       timestamptz,
    created_at       timestamptz not null,
    updated_at       timestamptz not null,
    ended_at         timestamptz,
    constraint subscription_pkey primary key (account_id),
    constraint subscription_account_fkey foreign key (account_id) references account (id)
) with (fillfactor = 80);
create index subscription_due on subscription (environment_id, next_at) where next_at is not null;
create index subscription_plan on subscription (environment_id, plan_id, account_id);

-- A span that was paid for whole. `price` is what was asked for it (what a change added included), `credited` what was
-- given back of it; `spent_before` what usage had taken of its denomination when it began.
create table subscription_period (
    account_id     bigint      not null,
    id             bigint      not null,
    environment_id integer     not null,
    plan_id        bigint      not null,
    version_id     bigint      not null,
    override_id    bigint,
    cadence        text        not null,
    is_trial       boolean     not null,
    start_at       timestamptz not null,
    end_at         timestamptz, -- as it was meant to end; null: without end
    ended_at       timestamptz, -- as it did
    denomination   text        collate "C" not null,
    price          bigint      not null,
    credited       bigint      not null,
    spent_before   bigint      not null,
    created_at     timestamptz not null,
    constraint subscription_period_pkey primary key (account_id, id),
    constraint subscription_period_amounts check (price >= 0 and credited between 0 and price),
    constraint subscription_period_ends check (end_at > start_at and ended_at >= start_at),
    constraint subscription_period_account_fkey foreign key (account_id) references account (id)
);
create unique index subscription_period_start_key on subscription_period (account_id, start_at)
    where ended_at is null or ended_at > start_at;

-- What was done to a subscription, line by line, as it was previewed; its transactions name it as their cause.
create table subscription_step (
    account_id     bigint      not null,
    id             bigint      not null,
    environment_id integer     not null,
    kind           text        not null, -- start, renewal, refill, change, modify, cancel
    scheme         text,
    for_at         timestamptz not null,
    period_id      bigint      not null,
    plan_id        bigint      not null,
    version_id     bigint      not null,
    denomination   text        collate "C" not null,
    charge         bigint      not null,
    credit         bigint      not null,
    lines          json        not null,
    granted        json        not null,
    cancelled      json        not null,
    payment_id     bigint,
    created_at     timestamptz not null,
    constraint subscription_step_pkey primary key (account_id, id),
    constraint subscription_step_account_fkey foreign key (account_id) references account (id)
);
create unique index subscription_step_renewal_key on subscription_step (account_id, for_at) where kind = 'renewal';
create unique index subscription_step_refill_key on subscription_step (account_id, for_at) where kind = 'refill';
create unique index subscription_step_payment_key on subscription_step (account_id, payment_id)
    where payment_id is not null;

-- Units that arrived and end together: what a plan included, what was given by hand, credit of a plan change. Burned
-- down lazily: `units_left` is as of `balance.burned`. Burned in the order priority, expires_at, id.
create table balance_grant (
    account_id     bigint      not null,
    id             bigint      not null,
    environment_id integer     not null,
    denomination   text        collate "C" not null,
    source         text        not null, -- plan, manual, credit
    units          bigint      not null,
    units_left     bigint      not null,
    priority       smallint    not null,
    price          bigint      not null, -- what was paid for them, in smallest units of price_denomination
    price_denomination text    collate "C" not null,
    plan_id        bigint,
    period_id      bigint,
    until_at       timestamptz, -- when the period that a plan gave them for was meant to end
    expires_at     timestamptz,
    reason         text        not null,
    created_at     timestamptz not null,
    closed_at      timestamptz,
    constraint balance_grant_pkey primary key (account_id, id),
    constraint balance_grant_units check (units > 0 and units_left between 0 and units and price >= 0),
    constraint balance_grant_account_fkey foreign key (account_id) references account (id)
);
create index balance_grant_open on balance_grant (account_id, denomination) where closed_at is null;
create index balance_grant_expiry on balance_grant (environment_id, expires_at)
    where closed_at is null and expires_at is not null;

create or replace function tenuto_put_balances(balances json) returns void
language plpgsql
as $$
begin
    insert into balance (
        account_id, denomination, amount, pending, seq, residue_num, residue_den, arrived, created_at, updated_at
    )
    select account_id, denomination, amount, pending, seq, residue_num, residue_den, coalesce(arrived, 0), updated_at,
        updated_at
    from json_to_recordset(balances) as b (
        account_id bigint, denomination text, amount bigint, pending bigint, seq bigint, residue_num numeric,
        residue_den numeric, arrived bigint, updated_at timestamptz
    )
    on conflict (account_id, denomination) do update
    set amount = excluded.amount, pending = excluded.pending, seq = excluded.seq,
        residue_num = excluded.residue_num, residue_den = excluded.residue_den,
        arrived = balance.arrived + excluded.arrived, updated_at = excluded.updated_at;
end
$$;

-- The rare part of tenuto_save, apart so that the common part stays small.
create or replace function tenuto_save_rest(rest json) returns void
language plpgsql
as $$
begin
    if exists (
        select from json_to_recordset(rest -> 'probes') as probe (account_id bigint, key_digest text)
        join gated_event
            on gated_event.account_id = probe.account_id
            and gated_event.key_digest = decode(probe.key_digest, 'hex')
    ) then
        raise exception 'a key was refused before' using errcode = 'TN003';
    end if;

    -- A refusal takes no key in event, so nothing else would notice that the key has an accepted event already.
    if exists (
        select from json_to_recordset(rest -> 'gated') as gated (account_id bigint, key_digest text)
        join event on event.account_id = gated.account_id and event.key_digest = decode(gated.key_digest, 'hex')
    ) then
        raise exception 'a key has an event' using errcode = 'TN003';
    end if;

    perform tenuto_put_balances(rest -> 'opened');

    update account set has_refusals = true
    from json_to_recordset(rest -> 'refusing') as refusing (account_id bigint)
    where account.id = refusing.account_id;

    insert into stored_answer (environment_id, key, fingerprint, status, body, created_at)
    select environment_id, key, decode(fingerprint, 'hex'), status, convert_to(body, 'UTF8'), created_at
    from json_to_recordset(rest -> 'answers') as answer (
        environment_id integer, key text, fingerprint text, status smallint, body text, created_at timestamptz
    );

    insert into event_charge (
        account_id, event_id, position, denomination, amount, balance_amount, balance_pending, transaction_seq,
        price_version_id, cost, residue, prior
    )
    select account_id, event_id, position, denomination, amount, balance_amount, balance_pending, transaction_seq,
        price_version_id, cost, residue, prior
    from json_to_recordset(rest -> 'charges') as charge (
        account_id bigint, event_id bigint, position smallint, denomination text, amount bigint, balance_amount bigint,
        balance_pending bigint, transaction_seq bigint, price_version_id bigint, cost text, residue text, prior json
    )
    on conflict (account_id, event_id, position) do update
    set amount = excluded.amount, balance_amount = excluded.balance_amount,
        balance_pending = excluded.balance_pending, transaction_seq = excluded.transaction_seq,
        cost = excluded.cost, residue = excluded.residue, prior = excluded.prior;

    insert into price_counter (account_id, price_id, period, units, billed, maximum_transaction_id)
    select account_id, price_id, period, units, billed, maximum_transaction_id
    from json_to_recordset(rest -> 'counters') as counter (
        account_id bigint, price_id bigint, period text, units text, billed text, maximum_transaction_id bigint
    )
    on conflict (account_id, price_id, period) do update
    set units = excluded.units, billed = excluded.billed, maximum_transaction_id = excluded.maximum_transaction_id;

    insert into gated_event (
        account_id, id, fingerprint, occurred_at, recorded_at, tag, type, quantity, state, key, key_digest, code,
        details, metadata, request_id
    )
    select account_id, id, fingerprint, occurred_at, recorded_at, tag, type, quantity, state, key,
        decode(key_digest, 'hex'), code, details, metadata::json, request_id
    from json_to_recordset(rest -> 'gated') as gated (
        account_id bigint, id bigint, fingerprint bigint, occurred_at timestamptz, recorded_at timestamptz,
        tag smallint, type text, quantity numeric, state smallint, key text, key_digest text, code text, details json,
        metadata text, request_id text
    );

    update event
    set posting = ended.posting, state = ended.state, reason = ended.reason, quantity = ended.quantity,
        amount = ended.amount, balance_amount = ended.balance_amount, balance_pending = ended.balance_pending,
        transaction_seq = ended.transaction_seq, cost = ended.cost, residue = ended.residue, prior = ended.prior,
        finished_at = ended.finished_at, first = ended.first
    from json_to_recordset(rest -> 'finished') as ended (
        account_id bigint, id bigint, posting bigint, state smallint, reason smallint, quantity numeric, amount bigint,
        balance_amount bigint, balance_pending bigint, transaction_seq bigint, cost text, residue text, prior json,
        finished_at timestamptz, first json
    )
    where event.account_id = ended.account_id and event.id = ended.id;

    update refill set due_at = coalesce(refill.due_at, low.at)
    from json_to_recordset(rest -> 'low') as low (account_id bigint, denomination text, at timestamptz)
    where refill.account_id = low.account_id and refill.denomination = low.denomination;
end
$$;
