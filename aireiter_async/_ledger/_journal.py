"""The asyncio side of the ledger: changes are grouped and written in a thread."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from aireiter_async import events
from aireiter_async._ledger import _store
from aireiter_async._ledger._errors import ledger_error
from aireiter_async._ledger._store import Change, Entry, Group, Intent, Store, Update
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import LedgerState, Task, TaskStatus
from aireiter_async._threads import outlast
from aireiter_async.errors import AireiterError, APIError, LedgerError

_SALT_BYTES: Final = 6
# Seconds to gather a group before writing it: about one flush of a disk, and far less than a
# submit takes.
_GATHER: Final = 0.005
_DIGEST_BYTES: Final = 16


class Journal:
    """Records the batches of an open ledger.

    Args:
        path: The ledger's file.
        rebind: Whether the ledger may be bound to another service.
    """

    def __init__(self, path: Path, *, rebind: bool) -> None:
        self.path = path
        self._rebind = rebind
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._next = Group()
        self._recorded: list[asyncio.Future[None]] = []
        self._results: list[asyncio.Future[Any]] = []
        self._committing: asyncio.Task[None] | None = None
        self._locked: dict[str, asyncio.Event | None] = {}
        self._batches = 0
        self._dispatchers: set[events.Dispatcher] = set()
        self.broken: LedgerError | None = None

    @property
    def is_open(self) -> bool:
        return self._executor is not None

    async def open(self) -> None:
        """Open and lock the file."""
        if self._executor is not None:
            raise RuntimeError("this Ledger is already open: enter it once")
        self._executor = executor = ThreadPoolExecutor(1, thread_name_prefix="aireiter-ledger")
        opening = executor.submit(Store, self.path, secrets.token_hex(_SALT_BYTES))
        try:
            self._store = await asyncio.wrap_future(opening)
        except BaseException:
            self._executor = None
            executor.shutdown(wait=True)
            if not opening.cancelled() and opening.exception() is None:
                opening.result().close()
            raise
        self._loop = asyncio.get_running_loop()
        self.broken = None

    async def close(self) -> None:
        """Write pending changes and close the file."""
        if self._store is not None and self.broken is None:
            self._check_loop()
        closing = asyncio.ensure_future(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await outlast(closing)  # this takes milliseconds
            raise

    async def _close(self) -> None:
        try:
            while self._next or self._is_writing():
                await asyncio.wait([self._start_writing()])
        finally:
            store, executor = self._store, self._executor
            self._store = self._executor = None
            self._dispatchers.clear()
            if store is not None and executor is not None:
                closed = asyncio.wrap_future(executor.submit(store.close))
                try:
                    await asyncio.shield(closed)
                finally:
                    executor.shutdown(wait=True)

    async def begin_batch(self, service: str, dispatcher: events.Dispatcher) -> int:
        """Start a batch on a service, given as host, port and path; return its number.

        *dispatcher* emits what is stored from now on until the ledger is closed.

        Raises:
            LedgerError: The ledger belongs to another service.
        """
        known = await self.schedule(_store.bind(service, rebind=self._rebind))
        if known != service:
            raise LedgerError(
                f"its tasks belong to {known}, not to {service}: use another ledger, or rebind "
                "this one if both are the same service",
                str(self.path),
            )
        self._batches += 1
        self._dispatchers.add(dispatcher)
        return self._batches

    def end_batch(self, batch: int) -> None:
        """Drop a batch's temporary records, if the ledger is still open."""
        if self._store is not None and self.broken is None:
            self.schedule(_store.forget(batch))

    async def lock(self, out_task_id: str) -> bool:
        """Lock an ID until `unlock`: batches that share a ledger may process the same one.

        Returns:
            Whether it had to wait for another batch.
        """
        waited = False
        while out_task_id in self._locked:
            waited = True
            released = self._locked[out_task_id]
            if released is None:  # an event is made for a waiter only
                released = self._locked[out_task_id] = asyncio.Event()
            await released.wait()
        self._locked[out_task_id] = None
        return waited

    def unlock(self, out_task_id: str) -> None:
        released = self._locked.pop(out_task_id)
        if released is not None:
            released.set()

    def make_intent(
        self, batch: int, request: SubmitRequest, content: str, *, unique: bool, record: bool
    ) -> Intent:
        """Return the intent to submit *request*, to pass to `record`."""
        kept = content
        if request.inputs:  # stored, but no part of the identity: files may be renamed
            kept = f'{content[:-1]},"inputs":{json.dumps(request.inputs)}}}'
        return Intent(
            batch,
            request.out_task_id,
            request.generated,
            unique,
            hashlib.sha256(content.encode()).digest()[:_DIGEST_BYTES],
            request.model,
            kept,
            record,
        )

    async def record(self, intent: Intent) -> None:
        """Look up a request and, if `Intent.record` is set and it is new, record the intent.

        On return, the intent is durable, and `Intent.entry` is the existing row, if any.

        Raises:
            LedgerError: The ID belongs to another request, or the file cannot be written.
        """
        self._check_loop()
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next.intents.append(intent)
        self._recorded.append(recorded)
        self._start_writing()
        await recorded
        entry = intent.entry
        if entry is not None and entry.content != intent.content:
            raise LedgerError(
                f"out_task_id {intent.out_task_id} belongs to another request in this ledger, or "
                "to its retry: give this one another ID",
                str(self.path),
            )

    async def find(self, out_task_id: str) -> Entry | None:
        """Return the current row of an ID, or of the task that replaced it."""
        found: Entry | None = await self.schedule(_store.find(out_task_id))
        return found

    async def replace(self, out_task_id: str, state: LedgerState) -> str:
        """Record the intent to submit a request again after its task ended in *state*.

        Returns:
            The ID of the new task.
        """
        again: str = await self.schedule(_store.replace(out_task_id, state))
        return again

    def accepted(self, task: Task) -> None:
        """Record that the service has accepted a task."""
        self._check_loop()
        group, out_task_id = self._next, task.out_task_id
        if out_task_id in group.updates:  # these are older, but would be written later
            self._note(out_task_id, Update(LedgerState.SUBMITTED, task.estimated_credits))
        else:
            group.accepted[out_task_id] = task.estimated_credits
            self._start_writing()

    def ended(self, task: Task) -> None:
        """Record the end of a task and the service's reply."""
        failed = task.status is TaskStatus.FAILED
        state = LedgerState.FAILED if failed else LedgerState.COMPLETED
        update = Update(state, credits_used=task.credits_used, reply=json.dumps(task.raw))
        self._note(task.out_task_id, update)

    def downloaded(self, task: Task, files: Sequence[Mapping[str, Any]]) -> None:
        """Record the files of a completed task: path, size and SHA-256."""
        self._note(task.out_task_id, Update(LedgerState.DOWNLOADED, paths=json.dumps(files)))

    def rejected(self, out_task_id: str, error: AireiterError, state: LedgerState) -> None:
        """Record why a request was rejected or is uncertain."""
        detail: dict[str, str | int] = {"type": type(error).__name__, "message": error.message}
        if isinstance(error, APIError):
            detail["code"] = error.code
        self._note(out_task_id, Update(state, error=json.dumps(detail)))

    def withdraw(self, out_task_id: str) -> None:
        """Delete an intent that the service has definitely not accepted."""
        self.schedule(_store.withdraw(out_task_id))

    def schedule(self, change: Change) -> "asyncio.Future[Any]":
        """Schedule a change; the future holds its result once it is durable."""
        self._check_loop()
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._next.changes.append(change)
        self._results.append(result)
        self._start_writing()
        return result

    def _check_loop(self) -> None:
        """Raise unless the ledger is open in this event loop."""
        if self.broken is not None:
            raise self.broken
        if self._store is None:
            raise RuntimeError("the Ledger is not open: use 'async with Ledger(...) as ledger'")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "this Ledger was opened in another event loop, or before a fork: open one in each"
            )

    def _note(self, out_task_id: str, update: Update) -> None:
        """Schedule a change without waiting for it; a failure breaks the ledger for later calls."""
        self._check_loop()
        self._next.updates.setdefault(out_task_id, []).append(update)
        self._start_writing()

    def _is_writing(self) -> bool:
        return self._committing is not None and not self._committing.done()

    def _start_writing(self) -> asyncio.Task[None]:
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit())
        return self._committing

    async def _commit(self) -> None:
        """Write groups until nothing is pending."""
        store, loop = self._store, asyncio.get_running_loop()
        assert store is not None  # noqa: S101 - `_close` waits for this task first
        while self._next:
            await asyncio.sleep(_GATHER)
            group, recorded, results = self._next, self._recorded, self._results
            self._next, self._recorded, self._results = Group(), [], []
            try:
                values = await loop.run_in_executor(self._executor, store.apply, group)
            except BaseException as error:  # every waiter must be woken
                self._break(error, (*recorded, *results, *self._recorded, *self._results))
                if not isinstance(error, Exception):
                    raise
            else:
                _emit(self._dispatchers, group)
                for each in recorded:
                    if not each.done():
                        each.set_result(None)
                for future, value in zip(results, values, strict=True):
                    if not future.done():
                        future.set_result(value)

    def _break(self, error: BaseException, waiting: Iterable["asyncio.Future[Any]"]) -> None:
        """Fail all pending and future changes."""
        self._next, self._recorded, self._results = Group(), [], []
        if not isinstance(error, LedgerError):
            cause, error = error, ledger_error(error, self.path)
            error.__cause__ = cause
        self.broken = error
        for future in waiting:
            if not future.done():
                future.set_exception(self.broken)
                future.exception()  # retrieved: the waiter may be gone


def _emit(dispatchers: Iterable[events.Dispatcher], group: Group) -> None:
    """Emit the states that *group* has recorded, to dispatchers with listeners."""
    for dispatcher in dispatchers:
        if dispatcher.listeners:
            for out_task_id, state in _states(group):
                dispatcher.emit(events.TaskStored(out_task_id, state))


def _states(group: Group) -> Iterator[tuple[str, LedgerState]]:
    for out_task_id in group.accepted:
        yield out_task_id, LedgerState.SUBMITTED
    for out_task_id, updates in group.updates.items():
        for update in updates:
            yield out_task_id, update.state
    for intent in group.intents:
        if intent.record and intent.entry is None and not intent.repeated:
            yield intent.out_task_id, LedgerState.INTENDED
