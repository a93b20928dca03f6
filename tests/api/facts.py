"""What a company's rows say, as one value to compare before and after: a refused request must not change it."""

from __future__ import annotations

from typing import Final

import asyncpg

_ENVIRONMENTS: Final = (
    "(select v.id from environment v where v.company_id = $1 and ($2::boolean is null or v.live = $2))"
)
_ACCOUNTS: Final = f"(select a.id from account a where a.environment_id in {_ENVIRONMENTS})"
_INVOICES: Final = ("invoice_terms", "invoice", "credit_note")
_OF_INVOICES: Final = ("invoice_line", "invoice_tax", "invoice_payment")
# Not gateway_event: the simulator sends its messages whenever it likes.
_MONEY: Final = ("payment", "refund", "refill", "payment_link")
_PLANS: Final = ("plan", "plan_version")
_SIGNALS: Final = ("webhook", "webhook_topic", "issuer", "organization", "clearance")
_BY_ENVIRONMENT: Final = (
    *("event_price", "event_price_version", "stored_answer", "account", *_INVOICES, *_MONEY, *_PLANS, *_SIGNALS),
)
_BY_ACCOUNT: Final = (
    *("balance", "event", "event_charge", "gated_event", "transaction", "price_counter"),
    *("price_override", "payment_method", "payment_attempt", "account_flag", "flag_change", *_OF_INVOICES),
)
_ROWS: Final = {
    "company": "select * from company where id = $1",
    "console_user": "select * from console_user where company_id = $1",
    "environment": f"select * from environment where id in {_ENVIRONMENTS}",
    # When a key was last used is noted by a sweep, whatever came of its request.
    "api_key": "select environment_id, id, name, digest, scopes, expires_at, revoked_at from api_key"
    f" where environment_id in {_ENVIRONMENTS}",
    # What was written down is published a moment later, and gets its number then, whatever was asked meanwhile.
    "number_series": f"select * from number_series where environment_id in {_ENVIRONMENTS} and name <> 'notification'",
    "notification": "select environment_id, id, account_id, topic, data::text from notification"
    f" where environment_id in {_ENVIRONMENTS}",
    **{table: f"select * from {table} where environment_id in {_ENVIRONMENTS}" for table in _BY_ENVIRONMENT},
    **{table: f"select * from {table} where account_id in {_ACCOUNTS}" for table in _BY_ACCOUNT},
}
_QUERY: Final = " union all ".join(
    f"select '{table}' as name, count(*)::text || ' rows ' ||"
    f" coalesce(md5(string_agg(md5(x::text), '' order by md5(x::text))), '') as facts from ({rows}) x"
    for table, rows in _ROWS.items()
)


async def facts_of(connection: asyncpg.Connection, company: str, *, live: bool | None = None) -> dict[str, str]:
    """Per table the count and the digest of a company's rows; of one half of it where ``live`` says which."""
    rows = await connection.fetch(
        f"with given as (select $1::bigint, $2::boolean) {_QUERY}", int(company.removeprefix("c_"), 36), live
    )
    return {row["name"]: row["facts"] for row in rows}


async def counts(connection: asyncpg.Connection) -> tuple[int, int]:
    """How many companies and accounts there are at all."""
    row = await connection.fetchrow("select (select count(*) from company), (select count(*) from account)")
    assert row is not None
    return row[0], row[1]
