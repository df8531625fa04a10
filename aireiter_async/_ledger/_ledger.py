"""The public interface of the ledger."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aireiter_async._ledger import _store
from aireiter_async._ledger._errors import corrupt_error, ledger_error
from aireiter_async._ledger._file import check_contents, check_format
from aireiter_async._ledger._journal import Journal
from aireiter_async._ledger._lock import read_lock, resolve
from aireiter_async._ledger._store import Change
from aireiter_async._tasks import LedgerState, Task
from aireiter_async._wire import platform_id, restore_task
from aireiter_async.errors import AireiterError, LedgerError

_PAGE: Final = 500  # rows read at once
_ENDED: Final = frozenset({"completed", "failed", "downloaded"})
_STEPS: Final = 1_000  # of SQLite's virtual machine, between two checks of the time


class Ledger:
    """The record of one batch in one SQLite file; an async context manager.

    Open it and pass it to `AsyncClient.submit_many` or `AsyncClient.run_many`. The intent
    to submit a task is durable before its POST is sent; its acceptance, end and files are
    recorded as they happen. However a run ended, running the same batch with the same
    ledger again does exactly what remains.

    A request is identified by the caller's ID, else by its content and that content's
    occurrence number in the input: inserting, deleting, sorting or saving the input again
    never pays again. A callback URL is neither part of the content nor stored; data URIs
    are stored as digests only. A ledger belongs to one service, identified by host, port
    and path.

    `counts`, `spent`, `costs` and `rows` also work without opening it, while another
    process runs the batch. You can query the file yourself: its schema is documented in
    it (``.schema tasks``).

    While it is open, and after a kill, SQLite's ``-wal`` and ``-shm`` files are beside it,
    and a ``.lock`` that remembers the last task: move and copy them together, while no
    batch runs. A ledger that has lost tasks (emptied, truncated, an old copy, or without
    its ``-wal``) is rejected, since the batch would pay for them again; without the
    ``.lock``, that goes unnoticed. To start over, delete the file or choose another. An
    empty file counts as a new ledger.

    Opening checks files of up to 16 MB (50,000 tasks) for damage completely; check larger
    ones with ``sqlite3 run.db "PRAGMA integrity_check"``.

    Args:
        path: The file; created if missing.
        rebind: Whether to accept a ledger of another service and bind it to the
            client's: for a service that has moved to another address.

    Raises:
        LedgerError: On opening: the file is used by another batch, not a ledger,
            damaged, of another format, or not writable.
        RuntimeError: It was opened in another event loop or before a fork.
    """

    def __init__(self, path: str | PathLike[str], *, rebind: bool = False) -> None:
        self._path = Path(path)
        self._journal = Journal(self._path, rebind=rebind)

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self._path

    async def __aenter__(self) -> Self:
        await self._journal.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write pending changes and close the file.

        Raises:
            LedgerError: A change could not be written; running the batch again
                reconciles it.
        """
        await self._journal.close()
        if self._journal.broken is not None and error is None:
            raise self._journal.broken

    async def counts(self) -> dict[LedgerState, int]:
        """Return the number of tasks in each state.

        Raises:
            LedgerError: The file cannot be read.
        """
        found: dict[LedgerState, int] = await self._query(_store.counts)
        return found

    async def spent(self) -> tuple[float, int]:
        """Return the credits of all accepted tasks, and the number of tasks of unknown cost.

        Raises:
            LedgerError: The file cannot be read.
        """
        found: tuple[float, int] = await self._query(_store.spent)
        return found

    async def costs(self) -> list[tuple[str, float, int, float | None]]:
        """Return the costs so far by model.

        Returns:
            For each model: its name, the credits of its accepted tasks without
            refunds, the number of further tasks of unknown cost, and the highest
            known cost of a task, or None.

        Raises:
            LedgerError: The file cannot be read.
        """
        found: list[tuple[str, float, int, float | None]] = await self._query(_store.costs)
        return found

    async def rows(self) -> AsyncIterator[dict[str, Any]]:
        """Yield each task as a dict, in the order in which they were recorded.

        Keys: ``out_task_id``, ``state`` (`LedgerState`), ``model``, ``params``, ``metadata``,
        ``prompt``, ``estimated_credits``, ``credits_used``, ``error`` (a dict or None),
        ``paths``, ``files`` (each with ``path``, absolute or what a sink returned, ``size`` in
        bytes and ``sha256``), ``inputs`` (the same for each local file sent, with its
        ``param``), ``task_id`` (the service's own), ``retried_as``, ``created_at`` and
        ``completed_at`` (ISO 8601, when this batch recorded them).

        Raises:
            LedgerError: The file cannot be read.
        """
        last, read = 0, partial(_read_row, path=self._path)
        while rows := await self._query(_store.page(last, _PAGE, read)):
            for last, row in rows:  # noqa: B007 - used for the next page
                if isinstance(row, LedgerError):
                    raise row
                yield row

    async def _query(self, query: Change) -> Any:
        if self._journal.is_open:
            return await self._journal.schedule(query)
        return await asyncio.to_thread(_read, self._path, query)


def journal_of(ledger: Ledger) -> Journal:
    """Return a ledger's journal, for batches; internal, hence not a method."""
    if not isinstance(ledger, Ledger):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"ledger must be an open Ledger, got {type(ledger).__name__}")
    return ledger._journal  # noqa: SLF001


def verify(
    path: Path, seconds: float, *, now: Callable[[], float] = time.monotonic
) -> dict[LedgerState, int] | None:
    """Check a ledger completely, without changing it or taking its lock; blocks.

    Args:
        path: The file.
        seconds: The longest time it may take.
        now: Returns monotonic seconds.

    Returns:
        The number of tasks in each state; None if the time did not suffice.

    Raises:
        LedgerError: It is damaged, not a ledger, or has lost tasks.
    """
    end = now() + seconds
    try:
        remembered = read_lock(path)  # before the ledger, which may grow meanwhile
        with closing(sqlite3.connect(f"{resolve(path).as_uri()}?mode=ro", uri=True)) as db:
            db.set_progress_handler(lambda: now() > end, _STEPS)
            if not check_contents(db, path, remembered):
                return {}
            last, read = 0, partial(_read_row, path=path)
            while rows := _store.page(last, _PAGE, read)(db):
                for last, row in rows:  # noqa: B007 - used for the next page
                    if isinstance(row, LedgerError):
                        raise row
                if now() > end:
                    return None
            return _store.counts(db)
    except (sqlite3.Error, OSError) as error:
        if now() > end:
            return None
        raise ledger_error(error, path) from error


def _read(path: Path, query: Change) -> Any:
    """Run a query on a ledger that another process may be using."""
    try:
        with closing(sqlite3.connect(f"{resolve(path).as_uri()}?mode=ro", uri=True)) as db:
            check_format(db, path)
            return query(db)
    except sqlite3.Error as error:
        raise ledger_error(error, path) from error


def _read_row(row: tuple[Any, ...], path: Path) -> dict[str, Any] | LedgerError:
    """Return a row as a dict, or its error: raising it here would end a running batch."""
    _, out_task_id, state, model, request, estimated, used, reply, error, saved, *rest = row
    retried_as, created_at, updated_at = rest
    try:
        content, files = json.loads(request), json.loads(saved or "[]")
        task = None if reply is None else restore_task(reply, out_task_id, model)
        return {
            "out_task_id": out_task_id,
            "state": LedgerState(state),
            "model": model,
            "params": content["params"],
            "metadata": content.get("metadata"),
            "prompt": content["params"].get("prompt"),
            "estimated_credits": estimated,
            "credits_used": used,
            "error": json.loads(error or "null") or _failure(task),
            "paths": [file["path"] for file in files],
            "files": files,
            "inputs": content.get("inputs", []),
            "task_id": None if task is None else platform_id(task),
            "retried_as": retried_as,
            "created_at": created_at,
            "completed_at": updated_at if state in _ENDED else None,
        }
    except (AireiterError, AttributeError, KeyError, TypeError, ValueError) as problem:
        broken = corrupt_error(f"task {out_task_id}: {problem}", path)
        broken.__cause__ = problem
        return broken


def _failure(task: Task | None) -> dict[str, Any] | None:
    """Return a failed task's reason, else None."""
    if task is None or task.error is None or not task.failed:
        return None
    return {"type": "TaskFailedError", "code": task.error.code, "message": task.error.message}
