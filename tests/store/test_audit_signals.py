"""The audit of signals: clean after everything was told that can be told, and naming the very row that is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import pytest

from tenuto.core.event import Settlement
from tenuto.core.plan import FlagValue
from tenuto.core.topic import Level
from tenuto.engine import Engine, Settings
from tenuto.service import flags, pauses, webhooks
from tenuto.service.flags import FlagAsk
from tenuto.service.usage import open_lanes, replay_all
from tenuto.service.webhooks import TopicAsk
from tenuto.store import audit, deliveries
from tenuto.store.database import Database, migrate
from tenuto.store.deliveries import Attempt, Ended
from tenuto.store.pauses import BY_HAND
from tests.conftest import SECRET_KEY, MadeUpClock
from tests.inside import Inside, event
from tests.store.test_audit import SIGNAL_CHECKS, SIGNAL_COUNTS, Wrong, expect_clean, expect_named, torn_open
from tests.store.test_audit_money import dropped

URL: Final = "https://{}.example.com/hook"
CHANGES: Final = "balance_change"
WITH_URL: Final = "exists (select from webhook w where w.id = {}webhook_id and w.url is not null)"


class Told:
    """A company that listens, and a courier whose receivers are made up."""

    def __init__(self, engine: Engine, clock: MadeUpClock, company: Inside) -> None:
        self.engine, self.clock, self.company = engine, clock, company
        self.answers: dict[str, bool | None] = {}
        """What the receiver of a host does: takes, refuses for the last time, or refuses and is tried again (None)."""

    async def done(self, verb: Callable[..., Awaitable[Any]], *arguments: object, **more: object) -> Any:
        """A verb of the service about this half of the company, a second later than the one before."""
        self.clock.forward(seconds=1)
        async with self.engine.database.writing() as unit:
            found = await verb(self.engine, unit, self.company.environment, *arguments, **more)
        await self.company.look()
        return found

    async def hook(self, host: str | None, *topics: TopicAsk, **fields: object) -> int:
        asked = {"url": None if host is None else URL.format(host), **fields}
        made, _ = await self.done(webhooks.create_webhook, asked, topics)
        return int(made.webhook.id)

    async def flag(self, account_id: int, name: str, value: FlagValue | None) -> None:
        await self.done(flags.change_flag, account_id, FlagAsk(name, value, "as agreed", "k_1"))

    async def use(self, account_id: int, *costs: tuple[int, str], **more: Any) -> None:
        for cost in costs:
            self.clock.forward(seconds=1)
            await self.company.send(account_id, event("USED", override=cost, **more))

    async def replayed(self) -> None:
        await replay_all(self.engine, self.company.environment.id)

    async def courier(self) -> None:
        """Publish all, and make every attempt that is due."""
        async with self.engine.database.writing() as unit:
            while await deliveries.publish(unit, self.company.environment.id, self.clock.at, limit=7):
                continue
        for _ in range(100):
            self.clock.forward(seconds=1)
            async with self.engine.database.writing() as unit:
                due = await deliveries.next_attempts(unit, now=self.clock.at, under_way=(), limit=100, failing=100)
                await deliveries.save_ended(unit, [self._ended(one) for one in due], self.clock.at)
            if not due:
                return
        raise AssertionError("there is always something due")

    def _ended(self, attempt: Attempt) -> Ended:
        is_taken = next((taken for host, taken in self.answers.items() if host in attempt.url), True)
        again = self.clock.at + timedelta(days=1) if is_taken is None else None
        log = {"at": str(self.clock.at), "url": attempt.url, "status": 200 if is_taken else 500}
        return Ended(attempt.place, is_taken=bool(is_taken), next_attempt_at=again, log=log)


@pytest.fixture(scope="module")
async def told(new_database: Callable[[str], str]) -> AsyncIterator[Told]:
    dsn = new_database("audit_signals")
    await migrate(dsn)
    # Real time, for what is old enough to be forgotten is not looked for.
    clock = MadeUpClock(datetime.now(UTC) - timedelta(days=2))
    engine = Engine(Settings(database=dsn, lanes=2, secret_key=SECRET_KEY), await Database.connect(dsn), clock)
    engine.lanes = open_lanes(engine)
    engine.lanes.start()
    try:
        found = Told(engine, clock, await Inside.open(engine))
        await fill(found)
        yield found
    finally:
        await engine.close()


async def fill(told: Told) -> None:
    company = told.company
    for name in ("USED", "CHAT"):
        await company.price(name, "credits", amount="1")
    ada, poor, aside, later = [await company.account(credits=1_000, USD=100) for _ in range(4)]
    await told.use(ada, (10, "credits"), (20, "USD"))
    await listen(told, ada)
    await told.use(ada, (10, "credits"), (20, "credits"), (30, "USD"), (500, "credits"), (400, "credits"))
    await move(told, ada)
    await raise_flags(told, ada)
    await told.courier()
    await owe(told, poor)
    await wait(told, aside)
    told.answers = {"lost": False, "slow": None}
    await told.use(ada, (1, "credits"), (2, "credits"), (3, "credits"))
    await told.courier()
    await told.use(ada, (4, "credits"))
    await told.courier()
    await again(told)
    await wait_for_good(told, later)
    # The last ones: published but not sent, and not published.
    await told.use(ada, (1, "USD"))
    async with told.engine.database.writing() as unit:
        await deliveries.publish(unit, company.environment.id, told.clock.at)
    await told.use(ada, (2, "USD"))


async def listen(told: Told, ada: int) -> None:
    """Webhooks of every kind, half an hour before anything else happens."""
    await told.hook("all", TopicAsk(CHANGES), TopicAsk("threshold"), merges=True)
    await told.hook("lost", TopicAsk(CHANGES, denomination="credits"))
    await told.hook("slow", TopicAsk("*", ada), username="user", password="long enough")
    await told.hook(None, TopicAsk("*"))
    levels = (TopicAsk("threshold", ada, "credits", Level("consumed", 50)), TopicAsk("flag.changed"))
    one = await told.hook("one", TopicAsk(CHANGES, ada, "credits"), *levels)
    await told.done(webhooks.rotate_secret, one, timedelta(days=1))
    paused = await told.hook("paused", TopicAsk(CHANGES), merges=True)
    await told.done(webhooks.change_webhook, paused, {"paused": True})
    gone = await told.hook("gone", TopicAsk(CHANGES), username="user", password="long enough")
    await told.done(webhooks.rotate_secret, gone, timedelta(days=1))
    await told.done(webhooks.delete_webhook, gone)
    told.clock.forward(minutes=30)


async def move(told: Told, account_id: int) -> None:
    """Whatever else moves a balance."""
    company = told.company
    await company.adjust(account_id, "credits", 300)
    await company.adjust(account_id, "credits", -5)
    sent = await company.send(account_id, event("CHAT", "7"))
    await company.void(account_id, sent.event.id)
    hold = await company.send(account_id, event("CHAT", "9", state="pending"))
    await company.finish(account_id, hold.event.id, Settlement("complete", None, None))
    await company.balance_opened(account_id, "tokens", 50)


async def raise_flags(told: Told, account_id: int) -> None:
    values: dict[str, FlagValue] = {"exports": True, "storage": 8, "region": "eu", "sms": {"metered": "tokens"}}
    for name, value in values.items():
        await told.flag(account_id, name, value)
    await told.flag(account_id, "storage", 9)
    await told.flag(account_id, "old", True)
    await told.flag(account_id, "old", None)
    await told.use(account_id, (50, "tokens"))
    await told.company.adjust(account_id, "tokens", 10)
    for is_paused in (True, False, True):
        await told.done(pauses.pause_account, account_id, is_paused=is_paused, word=BY_HAND)


async def owe(told: Told, account_id: int) -> None:
    """Blocked by a level, freed by a payment, blocked by it once more; and somebody who is blocked by hand."""
    company = told.company
    await company.balance_opened(account_id, "EUR", 0, credit_limit=100)
    await told.use(account_id, (200, "EUR"))
    await company.adjust(account_id, "EUR", 190)
    await told.use(account_id, (150, "EUR"), (50, "EUR"))
    other = await company.account(credits=10)
    await told.done(pauses.block_credit, other, is_blocked=True, word=BY_HAND)


async def wait(told: Told, account_id: int) -> None:
    """Events that were kept aside and then billed, voided, ended one by one, or not; and new ones that wait."""
    company = told.company
    for queued in ("replay", "void", "keep"):
        await told.done(pauses.suspend_usage, account_id, word=BY_HAND)
        await told.use(account_id, (5, "credits"))
        for state in ("complete", "pending", "cancelled"):
            await company.send(account_id, event("CHAT", "2", state=state))
        asked = await company.send(account_id, event("CHAT", "3"))
        hold = await company.send(account_id, event("CHAT", "3", state="pending"))
        await company.finish(account_id, hold.event.id, Settlement("cancelled", None, None))
        if queued != "keep":
            await company.void(account_id, asked.event.id)
        await told.done(pauses.resume_usage, account_id, queued=queued, word=BY_HAND)
        await told.replayed()
    taken = await company.rows("select id from event where account_id = $1 and state = 0 order by id", account_id)
    await company.void(account_id, taken[0]["id"])
    await told.done(pauses.suspend_usage, account_id, word=BY_HAND)


async def again(told: Told) -> None:
    """What was delivered is asked for once more, and taken by some."""
    hooks = await told.company.rows("select id, url from webhook where url is not null and deleted_at is null")
    told.answers = {"lost": False, "slow": None}
    for row in hooks:
        since, until = (1, 5) if "all" in row["url"] else (3, 4)
        await told.done(webhooks.send_again, row["id"], since=since, until=until, status=None)
    await told.courier()


async def wait_for_good(told: Told, account_id: int) -> None:
    """What is to be taken up and was not yet: of an account, and of the whole half."""
    for suspend, resume, of in (
        (pauses.suspend_usage, pauses.resume_usage, (account_id,)),
        (pauses.suspend_company, pauses.resume_company, ()),
    ):
        await told.done(suspend, *of, word=BY_HAND)
        await told.use(account_id, (6, "credits"))
        await told.done(resume, *of, queued="replay", word=BY_HAND)


@pytest.fixture
async def books(told: Told) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction that is rolled back: what a test breaks, nobody ever sees."""
    async with torn_open(told.engine.settings.database) as connection:
        yield connection


async def test_books_in_which_everything_was_told_are_clean(books: asyncpg.Connection) -> None:
    planned = await expect_clean(books)
    assert all(planned.counts[name] for name in SIGNAL_COUNTS), planned.counts


async def test_the_books_hold_what_the_rules_are_about(books: asyncpg.Connection) -> None:
    async def words(query: str) -> set[str]:
        return {row[0] for row in await books.fetch(query)}

    assert await words("select status from delivery") == {"waiting", "delivered", "failed", "merged"}
    assert await words("select topic from notification") >= {
        *(CHANGES, "threshold", "flag.changed", "credit_limit", "pause_balance", "negative_balance"),
        *("account.paused", "account.resumed", "account.credit_blocked", "account.credit_unblocked"),
        *("account.usage_suspended", "account.usage_resumed"),
    }
    assert await words("select source from flag_change") >= {"operator", "system", "balance"}
    assert await words("select credit_blocked_by from account where credit_blocked_at is not null") == {
        "level",
        "manual",
    }
    assert await words("select coalesce(first #>> '{first,state}', first ->> 'state') from event") >= {"0", "1", "3"}
    assert await words("select state::text from event") == {"0", "1", "2", "3"}
    assert await words("select replays_as from account where replays_to is not null") == {"replay"}
    assert await words("select replays_as from environment where replays_as is not null") == {"replay"}


# --- what is made wrong -----------------------------------------------------------------------------------------------


def said(change: str, where: str = f"topic = '{CHANGES}'") -> str:
    """Change the first notification that was published."""
    return f"""update notification set {change} where id = (
        select id from notification where position is not null and {where} order by id limit 1)
        returning 'notification', environment_id::bigint, id, topic"""


def data(name: str, value: str) -> str:
    return f"data = jsonb_set(data::jsonb, '{{{name}}}', '{value}')::json"


def sent(change: str, where: str) -> str:
    """Change the first delivery."""
    return f"""update delivery d set {change} where (webhook_id, position) = (
        select webhook_id, position from delivery d where {where} order by position, webhook_id limit 1)
        returning 'delivery', environment_id::bigint, position, webhook_id::text"""


def unsent(where: str) -> str:
    return f"""with gone as (delete from delivery where (webhook_id, position) = (select d.webhook_id, d.position
        from delivery d join webhook w on w.id = d.webhook_id join notification n on n.position = d.position
        where {where} order by d.position limit 1) returning *)
        select 'notification', n.environment_id::bigint, n.position, n.topic from notification n
        join gone on gone.position = n.position"""


def hooked(change: str, where: str) -> str:
    return f"""update webhook set {change} where id = (select id from webhook where {where} order by id limit 1)
        returning 'webhook', environment_id::bigint, id, ''"""


def hears(change: str, where: str) -> str:
    return f"""update webhook_topic set {change} where id = (
        select id from webhook_topic where {where} order by id limit 1)
        returning 'topic', environment_id::bigint, webhook_id, topic"""


def flag(change: str, where: str) -> str:
    return f"""update account_flag set {change} where {where} returning 'flag', account_id, 0::bigint, name"""


def changed(change: str, where: str) -> str:
    return f"""update flag_change set {change} where (account_id, name, id) = (select account_id, name, id
        from flag_change where {where} order by id desc limit 1) returning 'flag', account_id, 0::bigint, name"""


def raised(change: str, where: str, name: str) -> str:
    return f"""update account set {change} where id = (select id from account where {where} order by id limit 1)
        returning 'flag', id, 0::bigint, '{name}'"""


def account(change: str, where: str = "true") -> str:
    return f"""update account set {change} where id = (select id from account where {where} order by id limit 1)
        returning 'account', id, 0::bigint, ''"""


def half(change: str) -> str:
    return f"""update environment set {change} where replays_as is not null
        returning 'environment', company_id, id::bigint, 'test'"""


def happened(change: str, where: str) -> str:
    """Change the last event of a kind."""
    return f"""update event set {change} where (account_id, id) = (
        select account_id, id from event where {where} order by id desc limit 1)
        returning 'event', account_id, id, denomination"""


ASIDE: Final = "state = 3"
BILLED_LATE: Final = "state = 0 and first #>> '{state}' = '3'"
UNTOLD: Final = f"""with gone as (delete from notification where id = (select max(id) from notification
    where topic = '{CHANGES}' and {{}}) returning *)
    select 'transaction', t.account_id, t.id, t.denomination from transaction t join gone
    on gone.account_id = t.account_id and gone.denomination = t.denomination and gone.sequence = t.seq"""
LAST_PLACE: Final = "(select max(position) from notification)"

WRONGS: Final = {
    "change that says another amount": Wrong("told", said(data("amount", "77"))),
    "change that says another beginning": Wrong("told", said(data("previous_amount", "77"))),
    "change that says another change": Wrong("told", said(data("change", "77"))),
    "change that says no change": Wrong("told", said("data = (data::jsonb - 'change')::json")),
    "change that says another sequence": Wrong("told", said(data("sequence", "77"))),
    "change of no transaction": Wrong("told", said("sequence = 7777")),
    "level that says another amount": Wrong("told", said(data("amount", "-77"), "topic = 'threshold'")),
    "transaction that was told otherwise": Wrong(
        "told",
        """with moved as (update transaction set amount = amount - 1, ending_balance = ending_balance - 1
        where (account_id, id) = (select account_id, id from transaction where book = 'usage' order by id desc limit 1)
        returning *) select 'notification', n.environment_id::bigint, n.id, n.topic from notification n join moved m
        on m.account_id = n.account_id and m.denomination = n.denomination and m.seq = n.sequence""",
    ),
    "change told twice": Wrong(
        "told",
        """insert into notification (environment_id, account_id, topic, denomination, by_rule, sequence, data,
        created_at) select environment_id, account_id, topic, denomination, by_rule, sequence, data, created_at
        from notification where topic = 'balance_change' order by id limit 1
        returning 'notification', environment_id::bigint, id, topic""",
    ),
    "change that nobody was told": Wrong("untold", UNTOLD.format("true")),
    "change of a balance that nobody was told": Wrong("untold", UNTOLD.format("denomination = 'USD'")),
    "change of an account that nobody was told": Wrong(
        "untold", UNTOLD.format("denomination = 'credits'"), "delete from webhook_topic where account_id is null"
    ),
    "place without a text": Wrong("published", said("body = null")),
    "text without a place": Wrong("published", said("position = null")),
    "place beyond the last": Wrong("published", said("position = 7777")),
    "log with a gap": Wrong(
        "published",
        f"""with gone as (delete from notification where position = {LAST_PLACE} - 3 returning *)
        select 'notification', n.environment_id::bigint, n.id, n.topic from notification n
        join gone on gone.position = n.position - 1""",
    ),
    "log without its end": Wrong(
        "published",
        f"""delete from notification where position = {LAST_PLACE}
        returning 'series', environment_id::bigint, 0::bigint, 'notification'""",
    ),
    "changes in another order": Wrong(
        "published",
        f"""update notification set sequence = 0 where position = (select max(position) from notification
        where topic = '{CHANGES}') returning 'notification', environment_id::bigint, id, topic""",
    ),
    "series behind the log": Wrong(
        "published",
        f"""with behind as (update number_series set last_number = last_number - 1 where name = 'notification')
        select 'notification', environment_id::bigint, id, topic from notification where position = {LAST_PLACE}""",
    ),
    "topic that there is not": Wrong("published", said("topic = 'gift'").replace("id, topic", "id, 'gift'")),
    "text of another topic": Wrong("published", said("body = replace(body, 'balance_change', 'threshold')")),
    "text of another amount": Wrong("published", said("body = replace(body, '\"amount\":', '\"amount\":7')")),
    "text of nobody": Wrong("published", said("body = (body::jsonb || '{\"account_id\": null}')::text")),
    "text that is none": Wrong("published", said("body = '{}'")),
    "level of no rule": Wrong("published", said("by_rule = true")),
    "level of a topic without": Wrong("published", said("level = 'below:5'")),
    "sequence of no balance": Wrong("published", said("denomination = null")),
    "delivery of no status": Wrong("deliveries", sent("status = 'sent'", "status = 'waiting'")),
    "merged into nothing": Wrong("deliveries", sent("merged_into = null", "status = 'merged'")),
    "merged into an earlier one": Wrong("deliveries", sent("merged_into = position", "status = 'merged'")),
    "merged into one that is gone": Wrong("deliveries", sent("merged_into = 7777", "status = 'merged'")),
    "merged into one of another account": Wrong(
        "deliveries",
        f"""with wrong as (update delivery d set account_id = 7 where {WITH_URL.format("d.")} and exists (select
        from delivery m where m.webhook_id = d.webhook_id and m.merged_into = d.position) returning *)
        select 'delivery', m.environment_id::bigint, m.position, m.webhook_id::text from delivery m
        join wrong w on w.webhook_id = m.webhook_id and w.position = m.merged_into limit 1""",
    ),
    "delivered, though merged": Wrong("deliveries", sent("status = 'delivered'", "status = 'merged'")),
    "delivered at no time": Wrong("deliveries", sent("finished_at = null", "status = 'delivered'")),
    "waiting, though it ended": Wrong("deliveries", sent("finished_at = created_at", "status = 'waiting'")),
    "delivered by no attempt": Wrong("deliveries", sent("attempts = 0", "status = 'delivered'")),
    "failed by no attempt": Wrong("deliveries", sent("attempts = 0", "status = 'failed'")),
    "attempt that is not in the log": Wrong("deliveries", sent("attempts = attempts + 9", "status = 'failed'")),
    "attempts below none": Wrong("deliveries", sent("attempts = -1", "status = 'waiting'")),
    "attempt without a log": Wrong("deliveries", sent("log = null", "status = 'delivered'")),
    "text that speaks from later on": Wrong(
        "deliveries",
        sent(
            "body = jsonb_set(body::jsonb, '{data,merged_from_sequence}', '7777')::text",
            "body is not null and status = 'delivered'",
        ),
    ),
    "text that speaks for itself": Wrong("deliveries", sent("body = '{}'", "body is not null")),
    "delivery of nothing": Wrong("deliveries", sent("position = 7777", "status = 'delivered' and body is null")),
    "delivery to nobody": Wrong("deliveries", sent("webhook_id = 7", "status = 'failed'")),
    "change on its way to nobody": Wrong("heard", unsent("w.url like '%all%' and w.deleted_at is null")),
    "change of one account on its way to nobody": Wrong(
        "heard", unsent(f"w.url like '%one%' and n.topic = '{CHANGES}'")
    ),
    "level on its way to nobody": Wrong("heard", unsent("w.url like '%one%' and n.level = 'consumed:50'")),
    "level of a rule on its way to nobody": Wrong("heard", unsent("w.url like '%all%' and n.by_rule")),
    "anything on its way to nobody": Wrong("heard", unsent("w.url like '%slow%' and n.topic = 'account.paused'")),
    "webhook that is paused by nobody": Wrong("webhooks", hooked("paused_by = null", "paused_at is not null")),
    "webhook that is paused by chance": Wrong("webhooks", hooked("paused_by = 'chance'", "paused_at is not null")),
    "webhook without a secret": Wrong("webhooks", hooked("secret = ''", "url is not null")),
    "webhook with a plain secret": Wrong("webhooks", hooked("secret = 'whsec_0123456789'", "url is not null")),
    "webhook with a plain password": Wrong("webhooks", hooked("password = 'long enough'", "password is not null")),
    "webhook with a plain secret before": Wrong("webhooks", hooked("old_secret = 'x'", "old_secret is not null")),
    "webhook whose secret before never ends": Wrong(
        "webhooks", hooked("old_secret_until = null", "old_secret is not null")
    ),
    "webhook that is deleted, its password not": Wrong(
        "webhooks", hooked("deleted_at = created_at", "password is not null")
    ),
    "topic that nobody tells": Wrong("webhooks", hears("topic = 'gift'", "topic = 'flag.changed'")),
    "topic of no balance, of one": Wrong("webhooks", hears("topic = 'account.paused'", "denomination is not null")),
    "topic without levels, at one": Wrong("webhooks", hears("topic = 'pause_balance'", "level is not null")),
    "level of credit, of what was consumed": Wrong("webhooks", hears("topic = 'credit_limit'", "level is not null")),
    "level that is none": Wrong("webhooks", hears("level = 'consumed:all'", "level is not null")),
    "balance filled to more": Wrong(
        "filled",
        "update balance set filled = filled + 1 where denomination = 'tokens'"
        " returning 'balance', account_id, 0::bigint, denomination",
    ),
    "balance filled by what only passed through": Wrong(
        "filled",
        """update transaction set book = 'payment' where (account_id, id) = (select account_id, id from transaction
        where denomination = 'tokens' and amount > 0 order by id desc limit 1)
        returning 'balance', account_id, 0::bigint, denomination""",
    ),
    "flag set to another value": Wrong("flags", flag("value = 'false'", "name = 'exports'")),
    "limit set to another value": Wrong("flags", flag("value = '8'", "name = 'storage'")),
    "text set to another value": Wrong("flags", flag("value = '\"us\"'", "name = 'region'")),
    "flag that follows another balance": Wrong("flags", flag('value = \'{"metered": "USD"}\'', "name = 'sms'")),
    "flag set at another time": Wrong(
        "flags", flag("changed_at = changed_at - interval '1 second'", "name = 'exports'")
    ),
    "history of another value": Wrong("flags", changed("after = null", "name = 'storage' and source = 'operator'")),
    "change of nothing": Wrong("flags", changed("before = after", "source = 'balance'")),
    "change by nobody": Wrong("flags", changed("source = 'chance'", "source = 'balance'")),
    "paused, not by its history": Wrong(
        "flags",
        raised(
            "paused_at = null, paused_by = null",
            "paused_at is not null",
            "account_paused",
        ),
    ),
    "blocked, not by its history": Wrong(
        "flags",
        raised(
            "credit_blocked_at = null, credit_blocked_by = null",
            "credit_blocked_by = 'level'",
            "credit_blocked",
        ),
    ),
    "suspended, not by its history": Wrong(
        "flags", raised("usage_suspended_at = null", "usage_suspended_at is not null", "usage_suspended")
    ),
    "goes on, not by its history": Wrong(
        "flags",
        raised(
            "usage_suspended_at = created_at",
            "usage_suspended_at is null and replays_to is not null",
            "usage_suspended",
        ),
    ),
    "flag without a history": Wrong(
        "owners",
        "insert into account_flag (account_id, name, value, changed_at) select account_id, 'gift', value, changed_at"
        " from account_flag limit 1 returning 'flag', account_id, 0::bigint, name",
    ),
    "taken up as a gift": Wrong("replays", account("replays_as = 'gift'", "replays_to is not null")),
    "taken up as nothing": Wrong("replays", account("replays_as = null", "replays_to is not null")),
    "taken up as much as nothing": Wrong("replays", account("replays_as = 'void'", "replays_to is null")),
    "taken up beyond all ids": Wrong("replays", account("replays_to = tick + 1", "replays_to is not null")),
    "half taken up as a gift": Wrong("replays", half("replays_as = 'gift'")),
    "half taken up without an end": Wrong("replays", half("replays_until = null")),
    "half taken up while it is suspended": Wrong("replays", half("usage_suspended_at = created_at")),
    "blocked by chance": Wrong("pauses", account("credit_blocked_by = 'chance'", "credit_blocked_by = 'level'")),
    "blocked by a level at no time": Wrong(
        "pauses", account("credit_blocked_at = null", "credit_blocked_by = 'level'")
    ),
    "topic of no webhook": Wrong(
        "owners", hears("webhook_id = 7", "true"), dropped("webhook_topic", "webhook_topic_webhook_fkey")
    ),
    "topic of a webhook that is gone": Wrong(
        "owners",
        "with gone as (update webhook set deleted_at = created_at where url like '%paused%' returning *)"
        " select 'topic', t.environment_id::bigint, t.webhook_id, t.topic from webhook_topic t"
        " join gone on gone.id = t.webhook_id",
    ),
    "topic of no account": Wrong("owners", hears("account_id = 7", "account_id is not null")),
    "notification of another half": Wrong("owners", said("environment_id = environment_id + 1")),
    "waits, with a reason": Wrong("states", happened("reason = 1", ASIDE)),
    "waits, though it ended": Wrong("states", happened("finished_at = recorded_at", ASIDE)),
    "waits, though it is held": Wrong("states", happened("expires_at = recorded_at + interval '1 hour'", ASIDE)),
    "waits for nothing": Wrong("states", happened("prior = null", ASIDE)),
    "waits for nothing that is said": Wrong("states", happened('prior = \'{"period": "2026-01"}\'', ASIDE)),
    "waits, though it is charged": Wrong(
        "states",
        happened(
            "denomination = 'credits', amount = 0, cost = '0', residue = '0', balance_amount = 0, balance_pending = 0",
            ASIDE,
        ),
    ),
    "waits, with a charge beside it": Wrong(
        "owners",
        """insert into event_charge (account_id, event_id, position, denomination, amount, balance_amount,
        balance_pending, cost, residue) select account_id, id, 1, 'credits', 1, 1, 1, '1', '0' from event
        where state = 3 order by id limit 1 returning 'event', account_id, event_id, denomination""",
    ),
    "billed late at no time": Wrong("states", happened("finished_at = null", BILLED_LATE)),
    "billed late, not as it waited": Wrong("states", happened("first = null", BILLED_LATE)),
    "billed late for a reason": Wrong("states", happened("reason = 1", BILLED_LATE)),
    "billed late, and pays another amount": Wrong("amounts", happened("amount = amount + 2", BILLED_LATE)),
    "voided for no reason": Wrong("states", happened("reason = null", "state = 2 and first #>> '{state}' = '3'")),
    "voided at no time": Wrong("states", happened("finished_at = null", "state = 2 and first #>> '{state}' = '3'")),
}


@pytest.mark.parametrize("name", WRONGS)
async def test_a_wrong_fact_about_signals_is_named(books: asyncpg.Connection, name: str) -> None:
    await expect_named(books, WRONGS[name])


def test_every_rule_about_signals_has_a_wrong_fact_that_it_names() -> None:
    assert set(SIGNAL_CHECKS) <= {check.name for check in audit.CHECKS}
    assert {wrong.check for wrong in WRONGS.values()} >= set(SIGNAL_CHECKS)
