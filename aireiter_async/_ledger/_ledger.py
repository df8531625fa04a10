"""The public face of the ledger."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aireiter_async._ledger import _store
from aireiter_async._ledger._file import check_format, damaged, explain, resolve
from aireiter_async._ledger._journal import Journal
from aireiter_async._ledger._store import Change, LedgerState
from aireiter_async._tasks import Task
from aireiter_async._wire import platform_id, restore_task
from aireiter_async.errors import AireiterError, LedgerError

_PAGE: Final = 500  # rows that are read at once
_ENDED: Final = frozenset({"completed", "failed", "downloaded"})


class Ledger:
    """The record of one batch in one SQLite file; an async context manager.

    Open it and hand it to `AsyncClient.submit_many` or `AsyncClient.run_many`. That a
    task is about to be submitted is durable before its POST leaves; its acceptance, its
    end and its files follow. Running the same batch with the same ledger again finishes
    exactly the rest, whatever ended the run before.

    A request is identified by the ID that the caller chose, else by its content and how
    often that content has come in the input: inserting, deleting, sorting or saving the
    input again never pays again. A callback URL is neither part of the content nor
    stored, and of a data URI only the digest is. The ledger belongs to one service, by
    its host, port and path.

    `counts`, `spent`, `costs` and `rows` also work without opening it, while another
    process runs the batch. The file is for people, too: its schema is documented in it
    (``.schema tasks``).

    Beside it stand SQLite's ``-wal`` and ``-shm`` while it is open and after a kill, and
    a ``.lock`` that remembers how far it was: move and copy them together, while no
    batch runs. A ledger that has lost tasks (emptied, truncated, an old copy, without
    its ``-wal``) is rejected, as the batch would pay for them again; without the
    ``.lock`` this is not noticed. To start over, delete the file or name another. It may
    be an empty file where no ledger was.

    Damage is looked for on opening: in all of a file of up to 16 MB (50,000 tasks); for
    a larger one there is ``sqlite3 run.db "PRAGMA integrity_check"``.

    Args:
        path: The file; made if it is missing.
        rebind: Whether a ledger of another service is accepted, and belongs to the
            client's from then on: for the same service under another address.

    Raises:
        LedgerError: On opening: another batch uses the file, or it is not a
            ledger, damaged, of another format, or not writable.
        RuntimeError: It was opened in another event loop, or before a fork.
    """

    def __init__(self, path: str | PathLike[str], *, rebind: bool = False) -> None:
        self._path = Path(path)
        self._journal = Journal(self._path, rebind=rebind)

    @property
    def path(self) -> Path:
        """Where the ledger is."""
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
        """Write what is waiting, and close the file.

        Raises:
            LedgerError: Something could not be written; running the batch again
                finds out what.
        """
        await self._journal.close()
        if self._journal.broken is not None and error is None:
            raise self._journal.broken

    async def counts(self) -> dict[LedgerState, int]:
        """Return how many tasks are in each state.

        Raises:
            LedgerError: The file cannot be read.
        """
        found: dict[LedgerState, int] = await self._ask(_store.counts)
        return found

    async def spent(self) -> tuple[float, int]:
        """Return the credits of the tasks accepted so far, and how many of them gave no number.

        Raises:
            LedgerError: The file cannot be read.
        """
        found: tuple[float, int] = await self._ask(_store.spent)
        return found

    async def costs(self) -> list[tuple[str, float, int, float | None]]:
        """Return what each model has cost so far.

        Returns:
            For each: its name; the credits of its tasks accepted and not refunded;
            how many more may have cost something, with the number not known; and
            the most that one is known to have cost.

        Raises:
            LedgerError: The file cannot be read.
        """
        found: list[tuple[str, float, int, float | None]] = await self._ask(_store.costs)
        return found

    async def rows(self) -> AsyncIterator[dict[str, Any]]:
        """Yield each task as a dict, in the order in which they were recorded.

        Keys: ``out_task_id``, ``state`` (`LedgerState`), ``model``, ``params``,
        ``metadata``, ``prompt``, ``estimated_credits``, ``credits_used``, ``error`` (a
        dict or None), ``paths``, ``files`` (of each ``path``, ``size`` in bytes and
        ``sha256``), ``inputs`` (the same of each local file that was sent, and its
        ``param``), ``task_id`` (the service's own), ``retried_as``, ``created_at`` and
        ``completed_at`` (ISO 8601; when this batch recorded them).

        Raises:
            LedgerError: The file cannot be read.
        """
        last, read = 0, partial(_read_row, path=self._path)
        while rows := await self._ask(_store.page(last, _PAGE, read)):
            for last, row in rows:  # noqa: B007 - used for the next page
                if isinstance(row, LedgerError):
                    raise row
                yield row

    async def _ask(self, question: Change) -> Any:
        if self._journal.opened:
            return await self._journal.ask(question)
        return await asyncio.to_thread(_read, self._path, question)


def journal_of(ledger: Ledger) -> Journal:
    """Return what a batch writes to: internal, so it is not a method."""
    return ledger._journal  # noqa: SLF001


def _read(path: Path, question: Change) -> Any:
    """Ask a ledger that another process may be using."""
    try:
        with closing(sqlite3.connect(f"{resolve(path).as_uri()}?mode=ro", uri=True)) as db:
            (application_id,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            check_format(application_id, version, path)
            return question(db)
    except sqlite3.Error as error:
        raise explain(error, path) from error


def _read_row(row: tuple[Any, ...], path: Path) -> dict[str, Any] | LedgerError:
    """Return a row as a dict, or why it cannot be read: raised here, it would end a batch."""
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
        broken = damaged(f"task {out_task_id}: {problem}", path)
        broken.__cause__ = problem
        return broken


def _failure(task: Task | None) -> dict[str, Any] | None:
    """Return why a task has failed, None if it has not."""
    if task is None or task.error is None or not task.failed:
        return None
    return {"type": "TaskFailedError", "code": task.error.code, "message": task.error.message}
