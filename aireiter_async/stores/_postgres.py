"""The store in a PostgreSQL table, by way of an asyncpg pool."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from attrs import frozen

from aireiter_async.errors import StoreError
from aireiter_async.stores._protocol import Claim


class _Connection(Protocol):
    async def execute(self, query: str, *args: Any) -> Any: ...
    async def fetch(self, query: str, *args: Any) -> Sequence[Mapping[str, Any]]: ...


class _Pool(Protocol):
    def acquire(self) -> AbstractAsyncContextManager[Any]: ...


_TABLE: Final = """
CREATE TABLE IF NOT EXISTS aireiter_claims (
    out_task_id text PRIMARY KEY,
    fingerprint text NOT NULL,
    owner text NOT NULL,
    expires_at timestamptz NOT NULL,
    accepted boolean NOT NULL DEFAULT false,
    taken_over boolean NOT NULL DEFAULT false
)
"""
# Sorted: groups that lock their rows in the same order cannot deadlock.
_CLAIM: Final = """
INSERT INTO aireiter_claims AS c (out_task_id, fingerprint, owner, expires_at)
SELECT id, print, who, clock_timestamp() + make_interval(secs => lease)
FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[]) AS t (id, print, who, lease)
ORDER BY id
ON CONFLICT (out_task_id) DO UPDATE
SET owner = excluded.owner, expires_at = excluded.expires_at,
    taken_over = c.taken_over OR c.owner <> excluded.owner
WHERE NOT c.accepted AND c.fingerprint = excluded.fingerprint
    AND (c.owner = excluded.owner OR c.expires_at <= clock_timestamp())
RETURNING out_task_id, taken_over
"""
_FIND: Final = """
SELECT out_task_id, fingerprint, owner, accepted,
    greatest(0, extract(epoch FROM expires_at - clock_timestamp()))::float8 AS remaining
FROM aireiter_claims WHERE out_task_id = ANY($1::text[])
"""
_ACCEPT: Final = "UPDATE aireiter_claims SET accepted = true WHERE out_task_id = $1 AND owner = $2"
_RELEASE: Final = """
WITH gone AS (
    DELETE FROM aireiter_claims
    WHERE out_task_id = $1 AND owner = $2 AND NOT accepted AND NOT taken_over
)
UPDATE aireiter_claims SET expires_at = 'epoch'
WHERE out_task_id = $1 AND owner = $2 AND NOT accepted AND taken_over
"""
_LARGEST_GROUP: Final = 256
# invalid_sql_statement_name, duplicate_prepared_statement, and a plan of another session's table.
_PREPARED_STATEMENTS: Final = frozenset({"26000", "42P05"})
_UNDEFINED_TABLE: Final = "42P01"


@frozen
class _PendingClaim:
    out_task_id: str
    fingerprint: str
    owner: str
    lease: float
    result: asyncio.Future[Claim]


class PostgresStore:
    """Stores claims in a PostgreSQL table, for any number of machines.

    The table is ``aireiter_claims``; `create_table` creates it. Claims that arrive while others
    are in progress are sent together, in one statement. A store belongs to one event loop.

    Behind pgbouncer in transaction mode, make the pool with ``statement_cache_size=0``.

    Args:
        pool: An asyncpg pool, which the caller closes.
    """

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._queue: deque[_PendingClaim] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def create_table(self) -> None:
        """Create the table ``aireiter_claims`` if missing.

        Raises:
            StoreError: The database cannot be used.
        """
        await self._execute(_TABLE)

    async def claim(self, out_task_id: str, fingerprint: str, *, owner: str, lease: float) -> Claim:
        """See `IdempotencyStore.claim`.

        Raises:
            StoreError: The database cannot be used; the ID may or may not have been claimed.
        """
        result: asyncio.Future[Claim] = asyncio.get_running_loop().create_future()
        self._queue.append(_PendingClaim(out_task_id, fingerprint, owner, lease, result))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
            self._sending.add_done_callback(self._on_sender_done)
        return await result

    async def release(self, out_task_id: str, owner: str, *, accepted: bool) -> None:
        """See `IdempotencyStore.release`.

        Raises:
            StoreError: The database cannot be used; the claim expires with its lease.
        """
        await self._execute(_ACCEPT if accepted else _RELEASE, out_task_id, owner)

    async def _send(self) -> None:
        while self._queue:
            group: dict[str, _PendingClaim] = {}
            later: list[_PendingClaim] = []
            while self._queue and len(group) < _LARGEST_GROUP:
                waiter = self._queue.popleft()
                # One statement must not touch a row twice.
                if waiter.out_task_id in group:
                    later.append(waiter)
                elif not waiter.result.done():
                    group[waiter.out_task_id] = waiter
            self._queue.extendleft(reversed(later))
            try:
                await self._claim(group)
            except BaseException as error:
                self._queue.extend(group.values())
                self._fail_waiting(error)
                if not isinstance(error, Exception):
                    raise

    def _on_sender_done(self, sender: asyncio.Task[None]) -> None:
        if sender.cancelled():  # perhaps before its first step
            self._fail_waiting(asyncio.CancelledError("the store's task was cancelled"))

    def _fail_waiting(self, error: BaseException) -> None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.result.done():
                waiter.result.set_exception(_store_error(error))

    async def _claim(self, group: dict[str, _PendingClaim]) -> None:
        async with self._pool.acquire() as acquired:
            connection: _Connection = acquired
            while group:
                pending = sorted(group.values(), key=lambda waiter: waiter.out_task_id)
                columns = zip(
                    *((w.out_task_id, w.fingerprint, w.owner, w.lease) for w in pending),
                    strict=True,
                )
                for row in await connection.fetch(_CLAIM, *map(list, columns)):
                    claim = Claim(held=True, taken_over=row["taken_over"])
                    _set_result(group.pop(row["out_task_id"]), claim)
                if not group:
                    return
                # A claim released between the two statements is retried.
                for row in await connection.fetch(_FIND, list(group)):
                    waiter = group[row["out_task_id"]]
                    claim = Claim(
                        held=False,
                        remaining=0.0 if row["accepted"] else row["remaining"],
                        same_request=row["fingerprint"] == waiter.fingerprint,
                        accepted=row["accepted"],
                    )
                    if claim.accepted or not claim.same_request or claim.remaining > 0:
                        _set_result(group.pop(waiter.out_task_id), claim)

    async def _execute(self, query: str, *args: Any) -> None:
        try:
            async with self._pool.acquire() as connection:
                await connection.execute(query, *args)
        except Exception as error:
            raise _store_error(error) from error


def _set_result(waiter: _PendingClaim, claim: Claim) -> None:
    if not waiter.result.done():
        waiter.result.set_result(claim)


def _store_error(error: BaseException) -> StoreError:
    """Convert an asyncpg error to a `StoreError`, with advice by SQLSTATE."""
    state = getattr(error, "sqlstate", None)
    message = f"PostgreSQL: {type(error).__name__}: {error}"
    if state in _PREPARED_STATEMENTS:
        message += "; behind pgbouncer, make the pool with statement_cache_size=0"
    elif state == _UNDEFINED_TABLE:
        message += "; create the table with 'await store.create_table()'"
    failure = StoreError(message)
    failure.__cause__ = error
    return failure
