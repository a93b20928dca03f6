"""What becomes of a read that cannot be done."""

from __future__ import annotations

import asyncpg
import pytest

from tenuto.engine import Engine
from tenuto.store.database import Contended


async def count_accounts(engine: Engine) -> None:
    async with engine.database.reading() as reader:
        await reader.execute("set lock_timeout = '10ms'")
        await reader.fetchval("select count(*) from account")


async def test_a_table_that_somebody_else_holds_is_busy_and_no_fault(engine: Engine) -> None:
    holder = await asyncpg.connect(engine.database.dsn)
    transaction = holder.transaction()
    await transaction.start()
    try:
        await holder.execute("lock table account in access exclusive mode")
        with pytest.raises(Contended):
            await count_accounts(engine)
    finally:
        await transaction.rollback()
        await holder.close()
