"""Answers kept under their Idempotency-Keys: claimed in the unit of the effect, stored with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from .database import Reader, Unit


class StoredAnswer(NamedTuple):
    """The answer to a request that came with an Idempotency-Key; ``status`` None while it is being worked on."""

    environment_id: int
    key: str
    fingerprint: bytes
    status: int | None
    body: bytes
    created_at: datetime


async def find_answers(unit: Reader, asked: Sequence[tuple[int, str]]) -> dict[tuple[int, str], StoredAnswer]:
    """Stored answers by (environment id, idempotency key)."""
    if not asked:
        return {}
    rows = await unit.fetch(
        "select s.environment_id, s.key, s.fingerprint, s.status, s.body, s.created_at from stored_answer s"
        " join unnest($1::integer[], $2::text[]) as asked (environment_id, key)"
        " on asked.environment_id = s.environment_id and asked.key = s.key",
        [environment_id for environment_id, _ in asked],
        [key for _, key in asked],
    )
    return {(row["environment_id"], row["key"]): StoredAnswer(*row) for row in rows}


async def claim_answer(unit: Unit, environment_id: int, key: str, fingerprint: bytes, now: datetime) -> bool:
    """Take an idempotency key inside a unit; False if it is taken. Waits for a unit that is taking the same one."""
    return (
        await unit.fetchval(
            "insert into stored_answer (environment_id, key, fingerprint, created_at) values ($1, $2, $3, $4)"
            " on conflict (environment_id, key) do nothing returning 1",
            environment_id,
            key,
            fingerprint,
            now,
        )
        is not None
    )


async def store_answer(unit: Unit, environment_id: int, key: str, status: int, body: bytes) -> None:
    """Keep the answer under a key claimed in the same unit."""
    await unit.execute(
        "update stored_answer set status = $3, body = $4 where environment_id = $1 and key = $2",
        environment_id,
        key,
        status,
        body,
    )


async def let_go_of_answer(unit: Unit, environment_id: int, key: str) -> None:
    """Give an idempotency key back that was claimed and never got an answer."""
    await unit.execute(
        "delete from stored_answer where environment_id = $1 and key = $2 and status is null", environment_id, key
    )


async def forget_answers(unit: Unit, before: datetime, limit: int) -> int:
    """Delete stored answers made before a moment; how many."""
    done: str = await unit.execute(
        "delete from stored_answer where (environment_id, key) in"
        " (select environment_id, key from stored_answer where created_at < $1 limit $2)",
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])
