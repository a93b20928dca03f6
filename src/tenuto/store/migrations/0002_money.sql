-- Money: cards, payments, refunds, refills, invoices, links, and the provider's messages.

alter table environment
    add column stripe_key bytea,
    add column stripe_key_hint text,
    add column stripe_publishable_key text,
    add column stripe_webhook_secret bytea,
    add column money json not null default '{}',
    add column capture_suspended boolean not null default false;

alter table account
    add column paused_at timestamptz,
    add column paused_by text,
    add column credit_blocked_at timestamptz,
    add column credit_blocked_by text,
    add column capture_suspended boolean not null default false;

create index event_taken_back on event (account_id, posting) where state = 2 and reason = 3;

alter table transaction add column cause_id bigint;
create unique index transaction_cause_key on transaction (account_id, cause_id, denomination, book)
    where cause_id is not null;

-- A card (or another method) of an account, kept at the payment provider; here is what may be shown of it.
create table payment_method (
    account_id  bigint      not null,
    id          bigint      not null,
    gateway_id  text        not null,
    brand       text        not null,
    last4       text        not null,
    exp_month   smallint    not null,
    exp_year    smallint    not null,
    is_default  boolean     not null,
    created_at  timestamptz not null,
    removed_at  timestamptz,
    constraint payment_method_pkey primary key (account_id, id),
    constraint payment_method_account_fkey foreign key (account_id) references account (id)
);
create unique index payment_method_default_key on payment_method (account_id) where is_default and removed_at is null;

-- Money that is to come in, written before anybody is asked for it (design 7). status: intended, created, confirming,
-- processing, succeeded, failed, skipped, voiding, voided. An open one with a `slot` keeps others out of it: one refill
-- per balance, one collection per currency. `next_attempt_at` is in the company's time, `claimed_until` in real time.
create table payment (
    account_id          bigint      not null,
    id                  bigint      not null,
    environment_id      integer     not null,
    method              text        not null, -- card, balance, out_of_band
    reason              text        not null, -- deposit, refill, threshold_refill, refill_start, invoice
    status              text        not null,
    amount              bigint      not null,
    currency            text        collate "C" not null,
    denomination        text        collate "C" not null, -- the balance that success credits
    units               bigint      not null, -- and by how much
    settings            json,       -- what a first refill sets up when it is paid
    description         text        not null,
    slot                text        collate "C",
    period_at           timestamptz, -- the date that a refill by date is due for
    request_key         text        collate "C",
    fingerprint         bytea,
    intent_id           text        collate "C",
    charge_id           text        collate "C",
    card_id             bigint,
    attempts            integer     not null,
    declines            integer     not null,
    code                text,
    message             text,
    refunded            bigint      not null,
    units_returned      bigint      not null,
    fence               integer     not null,
    due_at              timestamptz not null,
    next_attempt_at     timestamptz,
    claimed_until       timestamptz,
    created_at          timestamptz not null,
    updated_at          timestamptz not null,
    finished_at         timestamptz,
    constraint payment_pkey primary key (account_id, id),
    constraint payment_amount_positive check (amount >= 0 and units >= 0),
    constraint payment_refunded_within check (refunded between 0 and amount),
    constraint payment_account_fkey foreign key (account_id) references account (id)
) with (fillfactor = 70);
create unique index payment_slot_key on payment (account_id, slot)
    where slot is not null and status in ('intended', 'created', 'confirming', 'processing', 'voiding');
create unique index payment_period_key on payment (account_id, denomination, period_at) where period_at is not null;
create unique index payment_request_key on payment (account_id, request_key) where request_key is not null;
create index payment_intent on payment (intent_id) where intent_id is not null;
create index payment_due on payment (environment_id, next_attempt_at)
    where status in ('intended', 'created', 'confirming', 'processing', 'voiding');
create index payment_listing on payment (environment_id, id desc, account_id desc);

create table payment_attempt (
    account_id bigint      not null,
    payment_id bigint      not null,
    number     integer     not null,
    card_id    bigint,
    outcome    text,       -- null while nobody knows; succeeded, declined, processing
    code       text,
    message    text,
    started_at timestamptz not null,
    ended_at   timestamptz,
    constraint payment_attempt_pkey primary key (account_id, payment_id, number)
);

-- Money that goes back: a refund that we ask for, or a dispute that the bank opened. status: intended, succeeded, failed.
create table refund (
    account_id      bigint      not null,
    id              bigint      not null,
    environment_id  integer     not null,
    payment_id      bigint      not null,
    kind            text        not null, -- refund, dispute
    status          text        not null,
    amount          bigint      not null,
    units           bigint      not null, -- what it takes off the balance
    credited        bigint      not null, -- and what of that is credited again, for it had paid invoices
    reason          text        not null,
    gateway_id      text        collate "C",
    request_key     text        collate "C",
    fingerprint     bytea,
    code            text,
    fence           integer     not null,
    next_attempt_at timestamptz,
    claimed_until   timestamptz,
    created_at      timestamptz not null,
    finished_at     timestamptz,
    constraint refund_pkey primary key (account_id, id),
    constraint refund_amount_positive check (amount > 0 and units >= 0),
    constraint refund_credited_within check (credited between 0 and units),
    constraint refund_payment_fkey foreign key (account_id, payment_id) references payment (account_id, id)
);
create index refund_payment on refund (account_id, payment_id);
create unique index refund_gateway_key on refund (account_id, kind, gateway_id) where gateway_id is not null;
create unique index refund_request_key on refund (account_id, request_key) where request_key is not null;
create index refund_due on refund (environment_id, next_attempt_at) where status = 'intended';

-- How a balance is filled again: every month, below a threshold, or both. `payment_id` is the open refill. `due_at` says
-- that a debit has left the balance below the threshold; whoever saves the debit writes it.
create table refill (
    account_id     bigint      not null,
    denomination   text        collate "C" not null,
    environment_id integer     not null,
    amount         bigint      not null,
    charge_amount  bigint      not null,
    charge_denomination text   collate "C" not null,
    source         text        not null, -- card, balance
    threshold      bigint,
    is_monthly     boolean     not null,
    anchor_at      timestamptz, -- the first monthly refill
    number         integer     not null, -- of the next monthly refill, counted from the anchor
    last_at        timestamptz,
    next_at        timestamptz,
    scheduled      json,       -- what changes at the next monthly refill
    due_at         timestamptz,
    payment_id     bigint,
    declines       integer     not null,
    retry_at       timestamptz,
    parked_at      timestamptz,
    parked_code    text,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    constraint refill_pkey primary key (account_id, denomination),
    constraint refill_amounts_positive check (amount > 0 and charge_amount >= 0),
    constraint refill_monthly_has_date check (is_monthly = (next_at is not null)),
    constraint refill_balance_fkey foreign key (account_id, denomination) references balance (account_id, denomination)
);
create index refill_by_date on refill (environment_id, next_at)
    where next_at is not null and payment_id is null and parked_at is null;
create index refill_by_threshold on refill (environment_id, due_at)
    where due_at is not null and payment_id is null and parked_at is null;

-- Terms of an account that pays by invoice. Everything posted up to `invoiced_tick` stands on an invoice.
create table invoice_terms (
    account_id     bigint      not null,
    environment_id integer     not null,
    currency       text        collate "C" not null,
    terms_days     integer     not null,
    grace_seconds  integer     not null,
    collection     text        not null, -- charge_automatically, send_invoice
    taxes          json        not null,
    memo           text,
    invoiced_tick  bigint      not null,
    anchor_at      timestamptz not null,
    number         integer     not null, -- of the next cut, counted from the anchor
    last_at        timestamptz not null,
    next_at        timestamptz,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    constraint invoice_terms_pkey primary key (account_id, currency),
    constraint invoice_terms_account_fkey foreign key (account_id) references account (id)
);
create index invoice_terms_due on invoice_terms (environment_id, next_at) where next_at is not null;

-- status: draft, open, paid, void, uncollectible. What was posted with ids above tick_from up to tick_to stands on it.
-- amount_due = total - applied; what remains = amount_due - amount_paid - amount_credited.
create table invoice (
    account_id      bigint      not null,
    id              bigint      not null,
    environment_id  integer     not null,
    currency        text        collate "C" not null,
    status          text        not null,
    number          text        collate "C",
    collection      text        not null,
    terms_days      integer     not null,
    period_start    timestamptz not null,
    period_end      timestamptz not null,
    tick_from       bigint      not null,
    tick_to         bigint      not null,
    subtotal        bigint      not null,
    tax             bigint      not null, -- added to the subtotal
    tax_included    bigint      not null, -- inside the subtotal
    total           bigint      not null,
    applied         bigint      not null, -- covered by what the balance held
    amount_due      bigint      not null,
    amount_paid     bigint      not null,
    amount_credited bigint      not null,
    memo            text,
    seller          json        not null, -- names as they were when it was finalized
    customer        json        not null,
    finalize_at     timestamptz,
    finalized_at    timestamptz,
    due_at          timestamptz,
    paid_at         timestamptz,
    voided_at       timestamptz,
    dunning_step    integer     not null,
    next_dunning_at timestamptz,
    next_collection_at timestamptz,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint invoice_pkey primary key (account_id, id),
    constraint invoice_adds_up check (total = subtotal + tax and amount_due = total - applied),
    constraint invoice_not_overpaid check (amount_paid >= 0 and amount_credited >= 0),
    constraint invoice_account_fkey foreign key (account_id) references account (id)
) with (fillfactor = 80);
create index invoice_number on invoice (environment_id, number) where number is not null;
create index invoice_open on invoice (account_id, currency, id) where status = 'open';
create index invoice_listing on invoice (environment_id, id desc, account_id desc);
create index invoice_finalize_due on invoice (environment_id, finalize_at) where status = 'draft' and finalize_at is not null;
create index invoice_dunning_due on invoice (environment_id, next_dunning_at)
    where status = 'open' and next_dunning_at is not null;
create index invoice_collection_due on invoice (environment_id, next_collection_at)
    where status = 'open' and next_collection_at is not null;

create table invoice_line (
    account_id       bigint  not null,
    invoice_id       bigint  not null,
    position         integer not null,
    kind             text    not null, -- usage, reversal, adjustment, refill, manual, and the other books that are billed
    description      text    not null,
    event_type       text    collate "C",
    price_version_id bigint,
    quantity         text    collate "C",
    event_count      integer not null,
    exact            text    collate "C", -- the exact cost, where it is a fraction
    amount           bigint  not null,
    constraint invoice_line_pkey primary key (account_id, invoice_id, position),
    constraint invoice_line_invoice_fkey foreign key (account_id, invoice_id) references invoice (account_id, id)
);

create table invoice_tax (
    account_id   bigint  not null,
    invoice_id   bigint  not null,
    position     integer not null,
    name         text    not null,
    rate         text    collate "C" not null, -- percent, as it was given
    is_inclusive boolean not null,
    amount       bigint  not null,
    constraint invoice_tax_pkey primary key (account_id, invoice_id, position),
    constraint invoice_tax_invoice_fkey foreign key (account_id, invoice_id) references invoice (account_id, id)
);

-- Which payment paid how much of which invoice.
create table invoice_payment (
    account_id bigint      not null,
    invoice_id bigint      not null,
    payment_id bigint      not null,
    amount     bigint      not null,
    paid_at    timestamptz not null,
    constraint invoice_payment_pkey primary key (account_id, invoice_id, payment_id),
    constraint invoice_payment_positive check (amount > 0),
    constraint invoice_payment_invoice_fkey foreign key (account_id, invoice_id) references invoice (account_id, id),
    constraint invoice_payment_payment_fkey foreign key (account_id, payment_id) references payment (account_id, id)
);

create table credit_note (
    account_id     bigint      not null,
    id             bigint      not null,
    environment_id integer     not null,
    invoice_id     bigint      not null,
    number         text        collate "C" not null,
    amount         bigint      not null,
    reason         text        not null,
    refund_id      bigint,
    created_at     timestamptz not null,
    constraint credit_note_pkey primary key (account_id, id),
    constraint credit_note_positive check (amount > 0),
    constraint credit_note_invoice_fkey foreign key (account_id, invoice_id) references invoice (account_id, id)
);
create index credit_note_number on credit_note (environment_id, number);
create index credit_note_invoice on credit_note (account_id, invoice_id);

-- Numbers without a gap, one series per half of a company and kind of paper.
create table number_series (
    environment_id integer not null,
    name           text    not null,
    last_number    bigint  not null,
    constraint number_series_pkey primary key (environment_id, name)
);

-- A hosted page that was made for one customer. The address is signed; nothing here lets anybody make one.
create table payment_link (
    account_id     bigint      not null,
    id             bigint      not null,
    environment_id integer     not null,
    kind           text        not null, -- card, invoice
    invoice_id     bigint,
    setup_intent   text        collate "C",
    return_url     text,
    expires_at     timestamptz not null,
    used_at        timestamptz,
    created_at     timestamptz not null,
    constraint payment_link_pkey primary key (account_id, id),
    constraint payment_link_account_fkey foreign key (account_id) references account (id)
);

-- Messages of the payment provider that were taken in, so that none counts twice.
create table gateway_event (
    environment_id integer     not null,
    id             text        collate "C" not null,
    type           text        not null,
    outcome        text        not null,
    received_at    timestamptz not null,
    constraint gateway_event_pkey primary key (environment_id, id)
);
create index gateway_event_age on gateway_event (received_at);

create or replace function tenuto_put_transactions(transactions json) returns void
language plpgsql
as $$
begin
    insert into transaction (
        account_id, denomination, seq, id, amount, starting_balance, ending_balance, first_event_id, recorded_at,
        event_count, book, type, description, unit_cost, max_value_billing_amount, max_value_billing_previous_id,
        cause_id
    )
    select account_id, denomination, seq, id, amount, starting_balance, ending_balance, first_event_id, recorded_at,
        event_count, book, type, description, unit_cost, max_value_billing_amount, max_value_billing_previous_id,
        cause_id
    from json_to_recordset(transactions) as t (
        account_id bigint, denomination text, seq bigint, id bigint, amount bigint, starting_balance bigint,
        ending_balance bigint, first_event_id bigint, recorded_at timestamptz, event_count integer, book text,
        type text, description text, unit_cost text, max_value_billing_amount text,
        max_value_billing_previous_id bigint, cause_id bigint
    );
end
$$;

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

    insert into price_counter (account_id, price_id, month, units, billed, maximum_transaction_id)
    select account_id, price_id, month, units, billed, maximum_transaction_id
    from json_to_recordset(rest -> 'counters') as counter (
        account_id bigint, price_id bigint, month date, units text, billed text, maximum_transaction_id bigint
    )
    on conflict (account_id, price_id, month) do update
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
