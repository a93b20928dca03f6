"""What the audit asks about signals: notifications against the movements they tell of, deliveries, what was filled.

The problem, on one example. A webhook hears ``balance_change`` of all accounts since noon:

    row                                     what has to stand beside it
    transaction tokens 7, 105 -> 85, 13:00  a notification of sequence 7 that says 105, -20 and 85, told once
    notification 12 in the log              its text, and 11 before it; a delivery to every webhook that hears it
    delivery of it, delivered               an end, and an attempt in its log
    delivery of 11, merged into 12          a text of 12 that speaks from the first of them on
    balance tokens, filled 1,000            the last units that arrived left 1,000
    flag exports, set by hand to true       the last change by hand in its history says true

The statements give what those of ``audit_queries`` give. Accounts that are heard and companies that are heard are
joined apart, each by a hash: ten thousand accounts of one company with a webhook of their own cost no more.
"""

from __future__ import annotations

from typing import Final

from tenuto.core.ledger import PASSING_BOOKS, TAKEN_BOOKS
from tenuto.core.topic import BLOCKED_FLAG, EVERY_TOPIC, OF_BALANCES, PAUSED_FLAG, SUSPENDED_FLAG, TOPICS, WITH_LEVELS

from .audit_money import listed

COUNTS: Final = """
select (select count(*) from webhook) as webhooks, (select count(*) from webhook_topic) as topics,
    (select count(*) from notification) as notifications, (select count(*) from delivery) as deliveries,
    (select count(*) from account_flag) as flags, (select count(*) from flag_change) as flag_changes
"""

# Notifications are kept for 42 days and deliveries for 35; what is younger than this cannot have been forgotten. The
# clocks of companies are never behind, so by theirs nothing is forgotten earlier.
_KEPT: Final = "clock_timestamp() - interval '30 days'"
# For what was under way when somebody began to listen.
_GRACE: Final = "interval '1 minute'"


# --- what is told -----------------------------------------------------------------------------------------------------

# A notification of several movements of one save tells of the last of them.
TOLD: Final = """
with said as (
    select environment_id, id, account_id, denomination, sequence, topic, data ->> 'amount' as amount,
        data ->> 'previous_amount' as previous, data ->> 'change' as change, data ->> 'sequence' as spelled
    from notification where sequence is not null and data ->> 'amount' is not null
)
select 'notification', s.environment_id::bigint, s.id, s.topic, format('%s from %s by %s, sequence %s', s.amount,
        s.previous, coalesce(s.change, 'some'), s.spelled),
    case when t.seq is null then format('a transaction %s of the balance %s', s.sequence, s.denomination)
        else format('%s from %s by %s, sequence %s', t.ending_balance, t.starting_balance, t.amount, t.seq) end
from said s
left join transaction t on t.account_id = s.account_id and t.denomination = s.denomination and t.seq = s.sequence
where t.seq is null or s.amount <> t.ending_balance::text or (s.spelled = t.seq::text) is not true
    or s.topic = 'balance_change' and (s.previous = t.starting_balance::text and s.change = t.amount::text) is not true
union all
select 'notification', environment_id::bigint, max(id), 'balance_change',
    format('sequence %s of the balance %s, told %s times', sequence, denomination, count(*)), 'told once'
from notification where topic = 'balance_change'
group by environment_id, account_id, denomination, sequence having count(*) > 1
"""

UNTOLD: Final = f"""
with ears as (
    select environment_id, account_id, denomination, min(created_at) + {_GRACE} as since from webhook_topic
    where topic in ('{EVERY_TOPIC}', 'balance_change') and level is null
    group by environment_id, account_id, denomination
),
heard as (
    select t.account_id, t.denomination, t.seq, t.id
    from transaction t
    join account a on a.id = t.account_id
    join ears e on e.environment_id = a.environment_id and e.account_id is null
    where coalesce(e.denomination, t.denomination) = t.denomination and t.recorded_at > greatest(e.since, {_KEPT})
    union
    select t.account_id, t.denomination, t.seq, t.id
    from transaction t join ears e on e.account_id = t.account_id
    where coalesce(e.denomination, t.denomination) = t.denomination and t.recorded_at > greatest(e.since, {_KEPT})
)
select 'transaction', h.account_id, h.id, h.denomination, 'nobody was told', 'a notification of topic balance_change'
from heard h
left join notification n on n.account_id = h.account_id and n.denomination = h.denomination and n.sequence = h.seq
    and n.topic = 'balance_change'
where n.id is null
"""

_TOPICS: Final = listed(frozenset(TOPICS))

# Places are given in the order of writing, so the younger of two neighbours is not forgotten before the older.
PUBLISHED: Final = f"""
with told as (
    select environment_id, id, topic, account_id, denomination, level, by_rule, sequence, created_at, position, body,
        data ->> 'amount' as amount, body::json as said,
        lag(position) over w as last_position, lag(created_at) over w as last_at,
        lag(sequence) over (partition by account_id, denomination, topic order by position) as last_sequence
    from notification window w as (partition by environment_id order by position)
),
judged as (
    select n.environment_id, n.id, n.topic, n.position, n.body is null as is_silent, case
        when (n.position is null) <> (n.body is null) then 'both or neither'
        when n.position > coalesce(s.last_number, 0) then format('a place up to %s', coalesce(s.last_number, 0))
        when n.position <> n.last_position + 1
            and n.last_at - v.clock_offset * interval '1 microsecond' > {_KEPT}
            then format('place %s, the next one', n.last_position + 1)
        when n.topic = 'balance_change' and n.position is not null and n.sequence <= n.last_sequence
            then format('a sequence above %s, which was told before it', n.last_sequence)
        when n.topic not in ({_TOPICS}) then 'a topic that there is'
        when n.body is not null and ((n.said ->> 'topic') is distinct from n.topic
            or ((n.said ->> 'account_id') is null) <> (n.account_id is null)
            or n.sequence is not null and (n.said #>> '{{data,amount}}') is distinct from n.amount)
            then 'a text that says what happened, and to whom'
        when n.by_rule and n.level is null then 'a level, for it is one of a rule'
        when n.level is not null and n.topic not in ({listed(frozenset(WITH_LEVELS))})
            then 'no level: its topic has none'
        when n.sequence is not null and (n.account_id is null or n.denomination is null)
            then 'an account and a balance, for it has a sequence'
        end as expected
    from told n
    join environment v on v.id = n.environment_id
    left join number_series s on s.environment_id = n.environment_id and s.name = 'notification'
)
select 'notification', environment_id::bigint, id, topic,
    format('place %s, %s', coalesce(position::text, 'none'), case when is_silent then 'no text' else 'a text' end),
    expected
from judged where expected is not null
union all
select 'series', s.environment_id::bigint, 0::bigint, s.name, format('last place %s', s.last_number),
    format('last place %s, that of the last one published', n.position)
from number_series s
join environment v on v.id = s.environment_id
join (select environment_id, max(position) as position, max(created_at) as at from notification
    where position is not null group by environment_id) n on n.environment_id = s.environment_id
where s.name = 'notification' and s.last_number > n.position
    and n.at - v.clock_offset * interval '1 microsecond' > {_KEPT}
"""


# --- deliveries -------------------------------------------------------------------------------------------------------

DELIVERIES: Final = f"""
with merged as (
    select d.environment_id, d.webhook_id, d.merged_into, min(n.sequence) as first
    from delivery d
    join notification n on n.environment_id = d.environment_id and n.position = d.position
    where d.status = 'merged' group by d.environment_id, d.webhook_id, d.merged_into
),
judged as (
    select d.environment_id, d.webhook_id, d.position, d.status, d.attempts, d.finished_at, d.merged_into, case
        when d.status not in ('waiting', 'delivered', 'failed', 'merged') then 'waiting, delivered, failed or merged'
        when (d.status = 'merged') <> (d.merged_into is not null) or d.merged_into <= d.position
            then 'a later change that speaks for it, if it is merged'
        when (d.status = 'waiting') <> (d.finished_at is null) then 'an end, unless it waits'
        when d.status in ('delivered', 'failed') and d.attempts < 1 then 'an attempt'
        when d.attempts < 0 or d.status <> 'merged' and coalesce(json_array_length(d.log), 0) < d.attempts
            then 'every attempt in its log'
        when d.status = 'merged' and w.deleted_at is null and d.created_at > {_KEPT}
            and (t.status = 'merged' or t.body is null or t.account_id <> d.account_id)
            then 'to be merged into one of its account that is sent, and says so'
        when m.first is not null and ((d.body::json #>> '{{data,merged_from_sequence}}')::bigint <= m.first) is not true
            then format('a text that speaks from sequence %s on', m.first)
        end as expected
    from delivery d
    left join delivery t on t.environment_id = d.environment_id and t.webhook_id = d.webhook_id
        and t.position = d.merged_into
    left join merged m on m.environment_id = d.environment_id and m.webhook_id = d.webhook_id
        and m.merged_into = d.position
    left join webhook w on w.environment_id = d.environment_id and w.id = d.webhook_id
)
select 'delivery', j.environment_id::bigint, j.position, j.webhook_id::text,
    format('%s, %s attempts, finished_at %s, merged into %s', j.status, j.attempts,
        coalesce(j.finished_at::text, 'none'), coalesce(j.merged_into::text, 'none')),
    coalesce(j.expected, 'a published notification, to a webhook that exists')
from judged j
left join notification n on n.environment_id = j.environment_id and n.position = j.position
left join webhook w on w.environment_id = j.environment_id and w.id = j.webhook_id
where j.expected is not null or n.id is null or w.id is null
"""

# Whether a webhook had an address is known from its last change on. The clock of a company only moves forward.
HEARD: Final = f"""
with ears as (
    select h.environment_id, h.webhook_id, h.account_id, h.denomination, h.level,
        greatest(h.created_at, coalesce(w.updated_at, w.created_at)) + {_GRACE} as since,
        unnest(case h.topic when '{EVERY_TOPIC}' then array[{_TOPICS}] else array[h.topic::text] end)
            collate "C" as topic
    from webhook_topic h join webhook w on w.environment_id = h.environment_id and w.id = h.webhook_id
    where w.url is not null and w.deleted_at is null
),
told as (
    select n.environment_id, n.position, n.topic, n.account_id, n.denomination, n.level, n.by_rule, n.created_at
    from notification n join environment v on v.id = n.environment_id
    where n.position is not null and n.topic <> 'webhook.test'
        and n.created_at - v.clock_offset * interval '1 microsecond' > {_KEPT}
),
heard as (
    select n.*, e.webhook_id, e.denomination as only, e.level as at_level, e.since
    from told n join ears e on e.environment_id = n.environment_id and e.topic = n.topic and e.account_id is null
    union all
    select n.*, e.webhook_id, e.denomination, e.level, e.since
    from told n join ears e on e.environment_id = n.environment_id and e.topic = n.topic and e.account_id = n.account_id
)
select distinct 'notification', h.environment_id::bigint, h.position, h.topic,
    format('not on its way to webhook %s', h.webhook_id), 'a delivery to every webhook that hears it'
from heard h
left join delivery d on d.environment_id = h.environment_id and d.webhook_id = h.webhook_id and d.position = h.position
where d.position is null and h.created_at > h.since and (h.only is null or h.only = h.denomination)
    and (h.at_level is not distinct from h.level or h.at_level is null and h.by_rule)
"""

_NARROWED: Final = listed(OF_BALANCES | {EVERY_TOPIC, "flag.changed"})
_LEVELS: Final = " or ".join(
    f"topic = '{topic}' and split_part(level, ':', 1) in ({listed(kinds)})" for topic, kinds in WITH_LEVELS.items()
)

# One without an address is only there to be read: nothing is signed with its secret.
WEBHOOKS: Final = rf"""
with judged as (
    select environment_id, id, url, paused_at, paused_by, case
        when (paused_at is null) <> (paused_by is null) or paused_by not in ('manual', 'failures')
            then 'since when it is paused and by what (manual, failures), or neither'
        when url is not null and (substring(secret from 1 for 1) <> '\x01' or octet_length(secret) <= 29)
            then 'a secret, sealed by this version'
        when substring(old_secret from 1 for 1) <> '\x01' or substring(password from 1 for 1) <> '\x01'
            then 'secrets that are sealed by this version'
        when deleted_at is not null and num_nonnulls(password, old_secret) > 0 then 'nothing secret: it was deleted'
        when deleted_at is null and (old_secret is null) <> (old_secret_until is null)
            then 'an end of the secret before, if and only if there is one'
        end as expected
    from webhook
)
select 'webhook', environment_id::bigint, id, '', format('to %s, paused %s by %s', coalesce(url, 'nowhere'),
    coalesce(paused_at::text, 'never'), coalesce(paused_by, 'nobody')), expected
from judged where expected is not null
union all
select 'topic', environment_id::bigint, webhook_id, topic,
    format('denomination %s, level %s', coalesce(denomination, 'none'), coalesce(level, 'none')),
    'a topic that there is, with a denomination or a level only where it has such'
from webhook_topic
where topic not in ('{EVERY_TOPIC}', {_TOPICS}) or denomination is not null and topic not in ({_NARROWED})
    or level is not null and ({_LEVELS}) is not true or level !~ '^[a-z]+:[1-9][0-9]*$'
"""


# --- what is derived --------------------------------------------------------------------------------------------------

_NOT_FILLING: Final = listed(PASSING_BOOKS | frozenset(TAKEN_BOOKS))

FILLED: Final = f"""
with last as (
    select distinct on (account_id, denomination) account_id, denomination, greatest(0, ending_balance) as filled
    from transaction where amount > 0 and book not in ({_NOT_FILLING})
    order by account_id, denomination, seq desc
)
select 'balance', b.account_id, 0::bigint, b.denomination, format('filled to %s', b.filled),
    format('filled to %s: what it held when units last arrived', coalesce(last.filled, 0))
from balance b left join last on last.account_id = b.account_id and last.denomination = b.denomination
where b.filled <> coalesce(last.filled, 0)
"""

# A pause that began before histories were kept has none; from its first change on they agree.
FLAGS: Final = f"""
with last as (
    select distinct on (account_id, name) account_id, name, source, after, changed_at from flag_change
    order by account_id, name, id desc
),
by_hand as (
    select distinct on (account_id, name) account_id, name, changed_at, case after ->> 'type'
            when 'binary' then (after -> 'enabled')::jsonb
            when 'metered' then jsonb_build_object('metered', after ->> 'denomination')
            else (after -> 'value')::jsonb end as value
    from flag_change where source = 'operator' order by account_id, name, id desc
),
raised as (
    select a.id as account_id, x.name, x.is_up from account a
    cross join lateral (values ('{PAUSED_FLAG}', paused_at is not null),
        ('{BLOCKED_FLAG}', credit_blocked_at is not null),
        ('{SUSPENDED_FLAG}', usage_suspended_at is not null)) as x (name, is_up)
)
select 'flag', f.account_id, 0::bigint, f.name, format('set to %s at %s', f.value, f.changed_at),
    coalesce(format('set to %s at %s, as its history says', h.value, h.changed_at), 'a change in its history')
from account_flag f join by_hand h on h.account_id = f.account_id and h.name = f.name
where (h.value = f.value::jsonb and h.changed_at = f.changed_at) is not true
union all
select 'flag', r.account_id, 0::bigint, r.name, case when r.is_up then 'up' else 'down' end,
    format('%s, as its history says since %s', case when r.is_up then 'down' else 'up' end, l.changed_at)
from raised r join last l on l.account_id = r.account_id and l.name = r.name and l.source = 'system'
where (l.after ->> 'enabled')::boolean is distinct from r.is_up
union all
select 'flag', account_id, 0::bigint, name, format('changed by %s from %s to %s', source, before, after),
    'a change, by plan, operator, system or balance'
from flag_change
where source not in ('plan', 'operator', 'system', 'balance')
    or source <> 'operator' and before::jsonb is not distinct from after::jsonb
"""

REPLAYS: Final = """
select 'account', id, 0::bigint, '',
    format('what waits up to %s is to be: %s', coalesce(replays_to::text, 'nothing'), coalesce(replays_as, 'nothing')),
    'up to an id that was given, to be replayed or voided, or nothing of it'
from account
where (replays_to is null) <> (replays_as is null) or replays_as not in ('replay', 'void') or replays_to > tick
union all
select 'environment', company_id, id::bigint, case when live then 'live' else 'test' end,
    format('what waits is to be: %s, until %s, usage suspended at %s', coalesce(replays_as, 'nothing'),
        coalesce(replays_until::text, 'no time'), coalesce(usage_suspended_at::text, 'no time')),
    'to be replayed or voided until a time while its usage goes on, or nothing of it'
from environment
where (replays_as is null) <> (replays_until is null) or replays_as not in ('replay', 'void')
    or replays_as is not null and usage_suspended_at is not null
"""


# --- what is added to the checks of all rows --------------------------------------------------------------------------

# An account that was opened with a plan whose payment failed is gone, and what was told of it is not.
OWNERS: Final = """
union all
select 'topic', h.environment_id::bigint, h.webhook_id, h.topic,
    format('of account %s', coalesce(h.account_id::text, 'all')),
    'a webhook that exists, and an account of its company'
from webhook_topic h
left join webhook w on w.environment_id = h.environment_id and w.id = h.webhook_id and w.deleted_at is null
left join account a on a.id = h.account_id and a.environment_id = h.environment_id
where w.id is null or (h.account_id is not null and a.id is null)
union all
select 'notification', n.environment_id::bigint, n.id, n.topic, format('of account %s', n.account_id),
    'a half of a company that exists, and its account''s'
from notification n
left join environment v on v.id = n.environment_id
left join account a on a.id = n.account_id
where v.id is null or a.environment_id <> n.environment_id
union all
select 'flag', f.account_id, 0::bigint, f.name, 'set by hand', 'a change in its history that says so'
from account_flag f
left join (select distinct account_id, name from flag_change where source = 'operator') c
    on c.account_id = f.account_id and c.name = f.name
where c.name is null
"""
