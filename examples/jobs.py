"""The jobs of a web application, which survive restarts; used by both web applications here.

A job is stored before anything is sent, under an ID that is derived from its user. One of the
application's processes leases it, submits it and waits for it. If that process dies, the lease
ends, and another one takes the job over; the idempotency store keeps it from being paid for twice.
"""

import asyncio
import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self

import demo

from aireiter_async import AsyncClient, RetryPolicy, SQLiteStore, Task, models, stable_id
from aireiter_async.errors import (
    AireiterError,
    IDInUseError,
    InvalidRequestError,
    ResultMissingError,
    TaskFailedError,
)

MODEL = "nano_banana_v2"
LEASE = float(os.environ.get("JOB_LEASE", "30"))  # seconds until a dead process's jobs are taken
TIMEOUT = float(os.environ.get("REQUEST_TIMEOUT", "30"))  # its claims end after twice that
HEARTBEAT = 15.0  # seconds between two comments in a stream where nothing happens
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    out_task_id TEXT PRIMARY KEY,
    params TEXT NOT NULL,
    worker TEXT,
    leased_until REAL NOT NULL DEFAULT 0,
    result TEXT
)
"""
_LOGGER = logging.getLogger(__name__)


class Jobs:
    """The jobs, one client for all of them, and the tasks that work on those of this process."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._worker = secrets.token_hex(8)
        self._working: dict[str, asyncio.Task[None]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        directory = self._stack.enter_context(demo.environment())  # the current one, with a key
        retry = RetryPolicy(max_retry_after=TIMEOUT)
        client, store = (
            AsyncClient(timeout=TIMEOUT, retry=retry),
            SQLiteStore(directory / "claims.db"),
        )
        self.client = await self._stack.enter_async_context(client)
        self.store = await self._stack.enter_async_context(store)
        self._db = sqlite3.connect(directory / "jobs.db", timeout=30, isolation_level=None)
        self._stack.callback(self._db.close)
        self._db.execute(_SCHEMA)
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the open jobs to the next process, at once."""
        self.stopping.set()
        tasks = [self._keeper, *self._working.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._db.execute("UPDATE jobs SET leased_until = 0 WHERE worker = ?", (self._worker,))
        await self._stack.aclose()

    def create(self, user: str, key: str, params: dict[str, Any]) -> dict[str, Any]:
        """Store a job and start it; the same key of the same user is the same job.

        Raises:
            ValueError: The params are wrong.
            IDInUseError: The user has used the key for something else.
        """
        models.build(MODEL, params)
        out_task_id, text = self.id_of(user, key), json.dumps(params, sort_keys=True)
        self._db.execute(
            "INSERT INTO jobs (out_task_id, params) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (out_task_id, text),
        )
        (stored,) = self._db.execute(
            "SELECT params FROM jobs WHERE out_task_id = ?", (out_task_id,)
        ).fetchone()
        if stored != text:
            raise IDInUseError(409, "this key stands for another request", None, out_task_id)
        self._take(out_task_id, params)
        return {"id": out_task_id, "key": key}

    def get(self, user: str, key: str) -> dict[str, Any] | None:
        """Return a job as its user sees it, None if the user has none with this key."""
        row = self._db.execute(
            "SELECT result FROM jobs WHERE out_task_id = ?", (self.id_of(user, key),)
        ).fetchone()
        if row is None:
            return None
        return json.loads(row[0]) if row[0] else {"status": "open", "urls": [], "error": None}

    @staticmethod
    def id_of(user: str, key: str) -> str:
        """Return the ID of a job, which nobody but its user can name."""
        return stable_id("app", user, key)

    async def events(self, user: str, key: str) -> AsyncIterator[str]:
        """Yield server-sent events: the task with each change, until it or the application ends."""
        updates = aiter(self.client.watch(self.id_of(user, key)))
        stopping = asyncio.create_task(self.stopping.wait())
        upcoming: asyncio.Task[Task | None] | None = None
        try:
            while not stopping.done():
                upcoming = upcoming or asyncio.create_task(_next(updates))
                await asyncio.wait(
                    {upcoming, stopping}, timeout=HEARTBEAT, return_when="FIRST_COMPLETED"
                )
                if not upcoming.done():
                    yield ": nothing new\n\n"
                    continue
                try:
                    task = upcoming.result()
                except AireiterError as error:
                    yield f"event: error\ndata: {json.dumps(str(error))}\n\n"
                    return
                if task is None:
                    return
                yield f"data: {json.dumps(task.to_dict())}\n\n"
                upcoming = None
        finally:
            for each in filter(None, (upcoming, stopping)):
                each.cancel()

    async def _keep(self) -> None:
        """Hold the leases of this process, and take the jobs that nobody works on."""
        while True:
            try:
                self._renew()
            except sqlite3.Error:
                _LOGGER.exception("the jobs' leases are not renewed")
            await asyncio.sleep(LEASE / 3)

    def _renew(self) -> None:
        now = time.time()
        self._db.executemany(
            "UPDATE jobs SET leased_until = ? WHERE out_task_id = ? AND worker = ?",
            [(now + LEASE, out_task_id, self._worker) for out_task_id in self._working],
        )
        for out_task_id, params in self._db.execute(
            "SELECT out_task_id, params FROM jobs WHERE result IS NULL AND leased_until < ?",
            (now,),
        ).fetchall():
            self._take(out_task_id, json.loads(params))

    def _take(self, out_task_id: str, params: dict[str, Any]) -> None:
        """Work on a job, unless a process does."""
        now = time.time()
        taken = self._db.execute(
            "UPDATE jobs SET worker = ?, leased_until = ? "
            "WHERE out_task_id = ? AND result IS NULL AND leased_until < ?",
            (self._worker, now + LEASE, out_task_id, now),
        ).rowcount
        if taken and out_task_id not in self._working:
            task = asyncio.create_task(self._work(out_task_id, params))
            self._working[out_task_id] = task
            task.add_done_callback(lambda _: self._working.pop(out_task_id))

    async def _work(self, out_task_id: str, params: dict[str, Any]) -> None:
        try:
            result = json.dumps(await self._run(out_task_id, params))
            self._db.execute(
                "UPDATE jobs SET result = ? WHERE out_task_id = ?", (result, out_task_id)
            )
        except Exception:  # of the account, the network or the disk: it is retried later
            _LOGGER.exception("the job is left open")

    async def _run(self, out_task_id: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            task = await self.client.run(
                MODEL, params, out_task_id=out_task_id, idempotency=self.store
            )
        except (InvalidRequestError, ResultMissingError, TaskFailedError, ValueError) as error:
            return {"status": "failed", "urls": [], "error": str(error)}
        return {"status": str(task.status), "urls": list(task.urls), "error": None}


async def _next(updates: AsyncIterator[Task]) -> Task | None:
    with suppress(StopAsyncIteration):
        return await anext(updates)
    return None
