"""Idempotency stores: processes and machines agree on which of them may submit an ID.

An ID is claimed right before its POST. A claim is granted to one owner at a time, so that workers
that receive the same job (a redelivered message, a form posted twice) submit it once.
"""

import asyncio
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, runtime_checkable

from attrs import frozen

from aireiter_async._encoding import check_values
from aireiter_async.errors import StoreError

__all__ = ["Claim", "IdempotencyStore", "PostgresStore", "SQLiteStore", "stable_id"]


@frozen
class Claim:
    """The result of a claim.

    Attributes:
        held: Whether the caller may submit the ID now.
        remaining: Seconds until another owner's claim expires; 0 if there is none.
        same_request: Whether the stored fingerprint is equal: the ID belongs to the same request.
        accepted: Whether the service has accepted the ID: it must never be submitted again.
        taken_over: Whether an earlier owner's claim expired without being released, so that the
            request may have been sent: look the ID up before submitting it.
    """

    held: bool
    remaining: float = 0.0
    same_request: bool = True
    accepted: bool = False
    taken_over: bool = False


@runtime_checkable
class IdempotencyStore(Protocol):
    """Where processes agree on which of them may submit an ID.

    Each method is atomic and durable on return, and may be called from any number of processes.
    Implementations raise `StoreError` where the store cannot be used.
    """

    async def claim(self, out_task_id: str, fingerprint: str, *, owner: str, lease: float) -> Claim:
        """Claim the right to submit an ID.

        It is granted if the ID is unclaimed, claimed by *owner*, or claimed by another owner whose
        lease has expired without the ID being accepted; never if the fingerprint differs. A claim
        that is not granted changes nothing.

        Args:
            out_task_id: The ID.
            fingerprint: The digest of the request.
            owner: Identifies the claimant: random per call.
            lease: Seconds for which the claim holds, by the store's own clock.
        """
        ...

    async def release(self, out_task_id: str, owner: str, *, accepted: bool) -> None:
        """End a claim of *owner*.

        Args:
            out_task_id: The ID.
            owner: The claim's owner; another owner's claim is not changed.
            accepted: True: the service has accepted the ID, which must never be submitted again.
                False: it has definitely not, and the ID may be claimed by anyone.
        """
        ...


def stable_id(namespace: str, *parts: Any) -> str:
    """Return an ID that is the same for equal parts, in every process and on every machine.

    Args:
        namespace: Such as the name of the application: equal parts in different namespaces
            give different IDs.
        *parts: JSON values; the order of keys in a mapping does not count. 1 and 1.0 differ.

    Returns:
        The first 32 hexadecimal digits of the SHA-256 of the parts as canonical JSON.

    Raises:
        TypeError: A part is not a JSON value.
        ValueError: A part is NaN or infinite.
    """
    try:
        text = json.dumps(
            [namespace, *parts], sort_keys=True, separators=(",", ":"), allow_nan=False
        )
    except (TypeError, ValueError) as error:
        check_values("parts", parts)  # raises an error that names the part
        raise type(error)(f"parts cannot be JSON: {error}") from error  # pragma: no cover
    return hashlib.sha256(text.encode()).hexdigest()[:32]


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS claims (
    out_task_id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    owner TEXT NOT NULL,
    -- Seconds since the epoch.
    expires_at REAL NOT NULL,
    -- Whether the service has accepted the ID.
    accepted INTEGER NOT NULL DEFAULT 0,
    -- Whether an earlier claim expired without a release: the request may have been sent.
    taken_over INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID
"""
# File systems whose locks are unreliable between machines.
_SHARED_FILE_SYSTEMS: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "nfs", "nfs4", "smb3", "smbfs"}
)
_BUSY_TIMEOUT: Final = 30.0
_USE_POSTGRES: Final = "use PostgresStore to share claims between machines"

_Job = Callable[[sqlite3.Connection], Any]


class SQLiteStore:
    """Stores claims in an SQLite file, for any number of processes on one machine.

    The file is opened at the first claim. Claims that arrive while others are being written are
    committed together.

    Args:
        path: The file; created if missing. It must be on a local disk.
        clock: Returns seconds since the epoch, the same in all processes.
        mounts: The system's mount table, to detect network file systems.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        mounts: Path = Path("/proc/self/mounts"),
    ) -> None:
        self._mounts = mounts
        self._path = Path(path)
        self._clock = clock
        self._jobs: deque[tuple[_Job, Future[Any]]] = deque()
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self._path

    async def __aenter__(self) -> Self:
        await self._run(lambda _db: None)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the file; the next claim opens it again."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            closing = executor.submit(self._close)
            executor.shutdown(wait=False)
            # Closed even if this is cancelled before the thread gets to it.
            await asyncio.shield(asyncio.wrap_future(closing))

    async def claim(self, out_task_id: str, fingerprint: str, *, owner: str, lease: float) -> Claim:
        """See `IdempotencyStore.claim`.

        Raises:
            StoreError: The file cannot be used; nothing was claimed.
        """

        def job(db: sqlite3.Connection) -> Claim:
            now = self._clock()
            row = db.execute(
                "SELECT fingerprint, owner, expires_at, accepted, taken_over FROM claims "
                "WHERE out_task_id = ?",
                (out_task_id,),
            ).fetchone()
            if row is None:
                found, taken_over = None, False
            else:
                found = Claim(
                    held=False,
                    remaining=max(0.0, row[2] - now) if row[1] != owner and not row[3] else 0.0,
                    same_request=row[0] == fingerprint,
                    accepted=bool(row[3]),
                )
                taken_over = bool(row[4]) or row[1] != owner
            if found is not None and (
                found.accepted or not found.same_request or found.remaining > 0
            ):
                return found
            db.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, 0, ?)",
                (out_task_id, fingerprint, owner, now + lease, taken_over),
            )
            return Claim(held=True, taken_over=taken_over)

        claim: Claim = await self._run(job)
        return claim

    async def release(self, out_task_id: str, owner: str, *, accepted: bool) -> None:
        """See `IdempotencyStore.release`.

        Raises:
            StoreError: The file cannot be written; the claim expires with its lease.
        """

        def job(db: sqlite3.Connection) -> None:
            held = (out_task_id, owner)
            if accepted:
                db.execute(
                    "UPDATE claims SET accepted = 1 WHERE out_task_id = ? AND owner = ?", held
                )
                return
            db.execute(
                "DELETE FROM claims WHERE out_task_id = ? AND owner = ? "
                "AND NOT accepted AND NOT taken_over",
                held,
            )
            # After a takeover, the first owner's request may still have arrived.
            db.execute(
                "UPDATE claims SET expires_at = 0 WHERE out_task_id = ? AND owner = ? "
                "AND NOT accepted",
                held,
            )

        await self._run(job)

    async def _run(self, job: _Job) -> Any:
        done: Future[Any] = Future()
        with self._lock:
            self._jobs.append((job, done))
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="aireiter-store")
            if len(self._jobs) == 1:  # the thread takes all jobs that are queued by then
                self._executor.submit(self._work)
        # A claim is written even if its caller is cancelled meanwhile.
        return await asyncio.shield(asyncio.wrap_future(done))

    def _work(self) -> None:
        """Run all queued jobs in one transaction."""
        with self._lock:
            jobs = [job for job in self._jobs if job[1].set_running_or_notify_cancel()]
            self._jobs.clear()
        try:
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                results = [job(db) for job, _ in jobs]
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled it back already
                    db.execute("ROLLBACK")
                raise
        except BaseException as error:  # noqa: BLE001 - every waiter must be woken
            failure = error
            if isinstance(error, sqlite3.Error | OSError):
                failure = StoreError(f"{self._path}: {error}")
                failure.__cause__ = error
            for _, done in jobs:
                done.set_exception(failure)
        else:
            for (_, done), result in zip(jobs, results, strict=True):
                done.set_result(result)

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            shared = _shared_file_system(self._path, self._mounts)
            if shared is not None:
                raise StoreError(
                    f"{self._path} is on {shared}, whose locks SQLite cannot rely on: "
                    f"{_USE_POSTGRES}, or choose a file on a local disk"
                )
            db = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            try:
                (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
                if mode != "wal":
                    raise StoreError(  # noqa: TRY301 - the file is open
                        f"{self._path} does not support SQLite's write-ahead log "
                        f"(journal_mode is {mode!r}): {_USE_POSTGRES}, or choose a file on a "
                        "local disk"
                    )
                db.execute("PRAGMA synchronous = FULL")
                db.execute(_SCHEMA)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _shared_file_system(path: Path, mounts: Path) -> str | None:
    """Return the type of *path*'s file system if it is a network file system, else None."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux: rely on journal_mode
        return None
    place = os.path.realpath(path)
    deepest, kind = "", ""
    for line in lines:
        _, mount, found, *_ = line.split(" ")
        mount = mount.encode().decode("unicode_escape")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(deepest):
            deepest, kind = mount, found
    return kind if kind in _SHARED_FILE_SYSTEMS else None


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
