"""The asyncio side of the ledger: changes are grouped, and made off the loop's thread."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aireiter_async._ledger import _store
from aireiter_async._ledger._file import explain
from aireiter_async._ledger._store import Change, Entry, Group, LedgerState, Store, Update
from aireiter_async._requests import SubmitRequest
from aireiter_async._tasks import Task, TaskStatus
from aireiter_async._wire import encode_content
from aireiter_async.errors import AireiterError, APIError, LedgerError

_SALT_BYTES: Final = 6
# Seconds for which a group gathers before it is written: a disk's flush takes as long, and a
# submit many times that.
_LINGER: Final = 0.005
_DIGEST_LENGTH: Final = 16  # hexadecimal characters, of the content of one position


class Ledger:
    """The record of one batch in one SQLite file; an async context manager.

    Hand it to `submit_many` or `run_many`. That a task is about to be submitted
    is durable before its POST leaves; its acceptance, its end and its files
    follow. Running the same batch with the same ledger again finishes exactly
    the rest, whatever ended the run before.

    The file can be read while a batch runs: the table ``tasks`` has one row per
    task, its schema is documented in the file itself (``.schema tasks``).

    Beside it stand SQLite's ``-wal`` and ``-shm`` while it is open and after a
    kill, and a ``.lock`` that remembers how far it was: move and copy them
    together, while no batch runs. A ledger that has lost tasks (emptied, cut
    short, an old copy, without its ``-wal``) is refused, as the batch would pay
    for them again; without the ``.lock`` this is not noticed. To begin anew,
    delete the file or name another. It may also be an empty one, as ``mktemp``
    makes it, where no ledger was.

    Damage is looked for on entry: in all of a file of up to 16 MB (50,000 tasks);
    for a larger one there is ``sqlite3 run.db "PRAGMA integrity_check"``. Times
    are recorded for people, nothing depends on the clock.

    Args:
        path: The file; made if it is missing.

    Raises:
        LedgerError: On entry: another batch uses the file, or it is not a
            ledger, damaged, newer than this release, or not writable.
        RuntimeError: It was opened in another event loop, or before a fork.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._next = Group()
        self._claimed: list[asyncio.Future[Entry | None]] = []
        self._answers: list[asyncio.Future[Any]] = []
        self._committing: asyncio.Task[None] | None = None
        self._broken: LedgerError | None = None
        self._held: dict[str, asyncio.Event] = {}

    @property
    def path(self) -> Path:
        """Where the ledger is."""
        return self._path

    @property
    def broken(self) -> LedgerError | None:
        """Why nothing can be written any more, if that is so."""
        return self._broken

    async def __aenter__(self) -> Self:
        """Open the file and lock it."""
        if self._executor is not None:
            raise RuntimeError("this Ledger is open already")
        self._executor = executor = ThreadPoolExecutor(1, thread_name_prefix="aireiter-ledger")
        opening = executor.submit(Store, self._path, secrets.token_hex(_SALT_BYTES))
        try:
            self._store = await asyncio.wrap_future(opening)
        except BaseException:
            self._executor = None
            executor.shutdown(wait=True)
            if not opening.cancelled() and opening.exception() is None:
                opening.result().close()
            raise
        self._loop = asyncio.get_running_loop()
        self._broken = None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what is waiting, and close the file.

        Raises:
            LedgerError: Something could not be written; running the batch again
                finds out what.
        """
        if self._store is not None and self._broken is None:
            self._check_loop()
        closing = asyncio.ensure_future(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():  # however often it is cancelled: it is a matter of milliseconds
            try:
                await asyncio.wait([closing])
            except asyncio.CancelledError as again:
                cancelled = again
        closing.result()
        if cancelled is not None:
            raise cancelled
        if self._broken is not None and error is None:
            raise self._broken

    async def _close(self) -> None:
        try:
            while self._next or self._writing():
                await asyncio.wait([self._schedule()])
        finally:
            store, executor = self._store, self._executor
            self._store = self._executor = None
            if store is not None and executor is not None:
                closed = asyncio.wrap_future(executor.submit(store.close))
                try:
                    await asyncio.shield(closed)
                finally:
                    executor.shutdown(wait=True)

    async def counts(self) -> dict[LedgerState, int]:
        """Return how many tasks are in each state."""
        found: dict[LedgerState, int] = await self._ask(_store.counts)
        return found

    async def spent(self) -> tuple[float, int]:
        """Return the credits of the tasks accepted so far, and how many of them gave no number."""
        found: tuple[float, int] = await self._ask(_store.spent)
        return found

    async def costs(self) -> list[tuple[str, float, int, float | None]]:
        """Return what each model has cost so far.

        Returns:
            For each: its name; the credits of its tasks accepted and not refunded;
            how many more may have cost something, with the number not known; and
            the most that one is known to have cost.
        """
        found: list[tuple[str, float, int, float | None]] = await self._ask(_store.costs)
        return found

    def intend(self, request: SubmitRequest, position: int) -> tuple[SubmitRequest, Entry]:
        """Give *request* the id that it has on every run of the batch, and make its row.

        An id that the caller gave is kept. A drawn one is replaced by one drawn
        from the ledger, the position and the content: the same line of the same
        input is the same task, and the same input with a new ledger is not.

        Raises:
            TypeError: The request's params are not JSON values.
            ValueError: The request's params cannot be sent as JSON.
        """
        content = encode_content(request)
        if request.generated:
            request = request.with_id(self._draw(position, content))
        return request, _row(request, position, content)

    async def claim(self, entry: Entry) -> Entry | None:
        """Record the intent to submit a request; on return it is durable.

        Returns:
            None, or the row that an earlier run has left for it.

        Raises:
            LedgerError: The id stands for another request, or the file cannot
                be written.
        """
        self._check_loop()
        claimed: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._next.claims.append(entry)
        self._claimed.append(claimed)
        self._schedule()
        return _same(await claimed, entry, self._path)

    async def find(self, entry: Entry) -> Entry | None:
        """Return the row that an earlier run has left for a request, if any.

        Raises:
            LedgerError: The id stands for another request.
        """
        return _same(await self._ask(_store.find(entry.out_task_id)), entry, self._path)

    async def replace(self, entry: Entry, request: SubmitRequest) -> SubmitRequest:
        """Record the intent to submit *request* again, in the place of a task that failed.

        Returns:
            The request with the new id, to which the old row is linked.
        """
        again = request.with_id(self._draw(entry.position, entry.out_task_id))
        row = _row(again, entry.position, entry.request)
        await self._ask(_store.replace(entry.out_task_id, row))
        return again

    def reserved(self, out_task_id: str) -> "_Held":
        """Keep an ID to the block: batches that share a ledger may work on the same one."""
        return _Held(self._held, out_task_id)

    def accepted(self, task: Task) -> None:
        """Record that the service has accepted a task."""
        self._note(task.out_task_id, Update(LedgerState.SUBMITTED, task.estimated_credits))

    def ended(self, task: Task) -> None:
        """Record that a task has completed or failed, and the service's answer."""
        state = LedgerState.FAILED if task.status is TaskStatus.FAILED else LedgerState.COMPLETED
        update = Update(state, credits_used=task.credits_used, reply=json.dumps(task.raw))
        self._note(task.out_task_id, update)

    def downloaded(self, task: Task, paths: Sequence[Path]) -> None:
        """Record where the files of a completed task are."""
        names = json.dumps([str(path) for path in paths])
        self._note(task.out_task_id, Update(LedgerState.DOWNLOADED, paths=names))

    def refused(self, out_task_id: str, error: AireiterError, state: LedgerState) -> None:
        """Record why a request was refused, or is uncertain."""
        detail: dict[str, str | int] = {"type": type(error).__name__, "message": error.message}
        if isinstance(error, APIError):
            detail["code"] = error.code
        self._note(out_task_id, Update(state, error=json.dumps(detail)))

    def withdraw(self, out_task_id: str) -> None:
        """Forget an intent of which it is certain that the service has accepted nothing."""
        self._ask(_store.withdraw(out_task_id))

    def _draw(self, position: int, text: str) -> str:
        """Draw the id of a line: batch, position, and a digest of its content.

        Ids that begin alike and count up keep the file's index in one place:
        random ones cost three times as much to record.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
        return f"{self._open().salt}-{position:08d}-{digest}"

    def _check_loop(self) -> None:
        """Refuse to be used unopened, or in another loop, whose futures are others."""
        self._open()
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "this Ledger was opened in another event loop, or before a fork: open one in each"
            )

    def _open(self) -> Store:
        if self._broken is not None:
            raise self._broken
        if self._store is None:
            raise RuntimeError("the Ledger is not open: use 'async with Ledger(...) as ledger'")
        return self._store

    def _note(self, out_task_id: str, update: Update) -> None:
        """Make a change that nobody waits for; if it fails, the ledger is broken for the next."""
        self._check_loop()
        self._next.updates.setdefault(out_task_id, []).append(update)
        self._schedule()

    def _ask(self, change: Change) -> asyncio.Future[Any]:
        """Make a change, and hand on what it returns once it is durable."""
        self._check_loop()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._next.changes.append(change)
        self._answers.append(answer)
        self._schedule()
        return answer

    def _writing(self) -> bool:
        return self._committing is not None and not self._committing.done()

    def _schedule(self) -> asyncio.Task[None]:
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit())
        return self._committing

    async def _commit(self) -> None:
        """Write group after group, until nothing is waiting."""
        store, loop = self._open(), asyncio.get_running_loop()
        while self._next:
            await asyncio.sleep(_LINGER)
            group, claimed, answers = self._next, self._claimed, self._answers
            self._next, self._claimed, self._answers = Group(), [], []
            try:
                found, answered = await loop.run_in_executor(self._executor, store.apply, group)
            except BaseException as error:  # nobody may wait for what is not written
                self._break(error, (*claimed, *answers, *self._claimed, *self._answers))
                if not isinstance(error, Exception):
                    raise
            else:
                for future, result in chain(
                    zip(claimed, found, strict=True), zip(answers, answered, strict=True)
                ):
                    if not future.done():
                        future.set_result(result)

    def _break(self, error: BaseException, waiting: Iterable[asyncio.Future[Any]]) -> None:
        """Refuse all that is waiting, and all that comes."""
        self._next, self._claimed, self._answers = Group(), [], []
        if not isinstance(error, LedgerError):
            cause, error = error, explain(error, self._path)
            error.__cause__ = cause
        self._broken = error
        for future in waiting:
            if not future.done():
                future.set_exception(self._broken)
                future.exception()  # whoever waited may be gone


class _Held:
    """Keeps an ID to one block at a time."""

    __slots__ = ("_held", "_out_task_id")

    def __init__(self, held: dict[str, asyncio.Event], out_task_id: str) -> None:
        self._held = held
        self._out_task_id = out_task_id

    async def __aenter__(self) -> None:
        while held := self._held.get(self._out_task_id):
            await held.wait()
        self._held[self._out_task_id] = asyncio.Event()

    async def __aexit__(self, *_error: object) -> None:
        self._held.pop(self._out_task_id).set()


def _row(request: SubmitRequest, position: int, content: str) -> Entry:
    return Entry(request.out_task_id, position, LedgerState.INTENDED, request.model, content)


def _same(found: Entry | None, entry: Entry, path: Path) -> Entry | None:
    if found is not None and found.request != entry.request:
        raise LedgerError(
            f"out_task_id {entry.out_task_id} stands for another request in this ledger: "
            "give the changed request an id of its own",
            str(path),
        )
    return found
