"""The store in an SQLite file, which a thread writes."""

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aireiter_async._mounts import MOUNTS, find_network
from aireiter_async.errors import StoreError
from aireiter_async.stores._protocol import Claim

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
_BUSY_TIMEOUT: Final = 30.0  # seconds
_BUSY_WAIT: Final = 0.005
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
        mounts: Path = MOUNTS,
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
        deadline = time.monotonic() + _BUSY_TIMEOUT
        while self._db is None:
            try:
                self._db = self._connect()
            except sqlite3.OperationalError as error:
                # SQLite does not wait for another process that is creating the same file.
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > deadline:
                    raise
                time.sleep(_BUSY_WAIT)
        return self._db

    def _connect(self) -> sqlite3.Connection:
        shared = find_network(self._path, self._mounts)
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
        return db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
