"""The SQLite side of the ledger: groups of changes, each in one transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from os.path import samestat
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from aireiter_async._ledger._bulk import insert_rows, update_rows
from aireiter_async._ledger._file import damaged, explain, follow, lock_ledger, open_ledger
from aireiter_async._ledger._schema import last_task, timestamp
from aireiter_async.errors import LedgerError

_SELECT: Final = (
    "SELECT number, out_task_id, position, state, model, request, estimated_credits, credits_used, "
    "reply, error, paths, retried_as FROM tasks WHERE out_task_id = ?"
)

# A question or a rare change, asked within a transaction; what it returns is handed on.
Change = Callable[[sqlite3.Connection], Any]


class LedgerState(StrEnum):
    """Where a task of a batch is, as the ledger's column ``state`` has it."""

    INTENDED = "intended"
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    FAILED = "failed"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"
    DOWNLOADED = "downloaded"


@frozen
class Entry:
    """One row of the ledger; its attributes are the columns of the table ``tasks``."""

    out_task_id: str
    position: int
    state: LedgerState
    model: str
    request: str
    estimated_credits: float | None = None
    credits_used: float | None = None
    reply: str | None = None
    error: str | None = None
    paths: str | None = None
    retried_as: str | None = None


@frozen
class Update:
    """What has changed about one row; None leaves a column as it is."""

    state: LedgerState
    estimated_credits: float | None = None
    credits_used: float | None = None
    reply: str | None = None
    error: str | None = None
    paths: str | None = None


@define
class Group:
    """Changes that are made together: the updates first, then the rest, then the claims.

    Attributes:
        claims: Rows to insert, each where there is none yet with its id: a row that
            is there is found as it has become.
        updates: What has changed, by id, in the order in which it did.
        changes: Everything else.
    """

    claims: list[Entry] = field(factory=list)
    updates: dict[str, list[Update]] = field(factory=dict)
    changes: list[Change] = field(factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.claims or self.updates or self.changes)


class Store:
    """An open ledger file, locked against other processes; its methods block.

    Args:
        path: Where it is; made if it is missing.
        salt: For a new file.

    Raises:
        LedgerError: The file is in use, not a ledger, newer than this release,
            or cannot be opened or written.
    """

    def __init__(self, path: Path, salt: str) -> None:
        self._path = path
        self._file = follow(path)
        self._lock = lock_ledger(path)
        try:
            self._db, self.salt, self._last = open_ledger(path, salt, self._lock)
            self._opened = self._file.stat()
        except BaseException as error:
            self._lock.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise explain(error, path) from error
            raise

    def close(self) -> None:
        """Close the file, then give up the lock."""
        self._db.close()
        self._lock.close()

    def apply(self, group: Group) -> tuple[list[Entry | None], list[Any]]:
        """Make all changes of *group* in one transaction, durable on return.

        Returns:
            For each claim None, or the row that was there already; and what
            each of the other changes returned.

        Raises:
            LedgerError: They were not made, or will not be found by the next run.
        """
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                _update(db, group.updates)
                answers = [change(db) for change in group.changes]
                last = last_task(db) if group.changes else self._last
                found = _claim(db, group.claims, last)
                if group.claims:
                    last = last_task(db)
                # The lock must never remember more than there is, nor less than was sent.
                if last < self._last:
                    self._lock.remember(last)
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled it back already
                    db.execute("ROLLBACK")
                raise
            if last > self._last:
                self._lock.remember(last)
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        except (TypeError, ValueError) as error:
            raise damaged(error, self._path) from error
        self._last = last
        self._look_for_it()
        return found, answers

    def _look_for_it(self) -> None:
        """Make sure that what was written is in the file that the next run opens.

        Raises:
            LedgerError: It is not.
        """
        try:
            there = samestat(self._file.stat(), self._opened)
        except OSError:
            there = False
        if not there:
            raise LedgerError(
                "the file was deleted or replaced while the batch ran: put it back, or the next "
                "run will pay for its tasks again",
                str(self._path),
            )


def find(out_task_id: str) -> Change:
    """Return the row of an id, or that of the task that was retried in its place, or None."""

    def change(db: sqlite3.Connection) -> Entry | None:
        return _find(db, out_task_id)

    return change


def replace(out_task_id: str, entry: Entry) -> Change:
    """Insert *entry* as the task that is submitted in the place of another."""

    def change(db: sqlite3.Connection) -> None:
        _record(db, [entry])
        db.execute(
            "UPDATE tasks SET retried_as = ? WHERE out_task_id = ?",
            (entry.out_task_id, out_task_id),
        )

    return change


def withdraw(out_task_id: str) -> Change:
    """Forget an intent of which it is certain that the service has accepted nothing."""

    def change(db: sqlite3.Connection) -> None:
        db.execute("UPDATE tasks SET retried_as = NULL WHERE retried_as = ?", (out_task_id,))
        db.execute("DELETE FROM tasks WHERE out_task_id = ?", (out_task_id,))

    return change


def counts(db: sqlite3.Connection) -> dict[LedgerState, int]:
    """Return the number of tasks in each state."""
    rows = db.execute("SELECT state, count(*) FROM tasks GROUP BY state")
    return {LedgerState(state): number for state, number in rows}


def spent(db: sqlite3.Connection) -> tuple[float, int]:
    """Return the credits of all tasks accepted and not refunded, and how many say none."""
    total, unknown = db.execute(
        "SELECT coalesce(sum(cost), 0.0), count(*) - count(cost) FROM ("
        "SELECT coalesce(credits_used, estimated_credits) AS cost FROM tasks "
        "WHERE state IN ('submitted', 'completed', 'downloaded'))"
    ).fetchone()
    return total, unknown


def costs(db: sqlite3.Connection) -> list[tuple[str, float, int, float | None]]:
    """Return by model: credits, tasks that may have cost something more, the highest price."""
    return db.execute(
        "SELECT model, coalesce(sum(cost), 0.0), count(*) - count(cost), max(cost) FROM ("
        "SELECT model, coalesce(credits_used, nullif(estimated_credits, 0)) AS cost FROM tasks "
        "WHERE state NOT IN ('failed', 'refused')) GROUP BY model"
    ).fetchall()


def _record(db: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    """Insert what is not there yet; return how many rows that was."""
    before, now = db.total_changes, timestamp()
    rows = [(e.out_task_id, e.position, e.state.value, e.model, e.request, now) for e in entries]
    insert_rows(db, rows)
    return db.total_changes - before


def _claim(db: sqlite3.Connection, entries: Sequence[Entry], last: int) -> list[Entry | None]:
    """Insert what is not there yet; nearly always that is all of it, and nothing is looked up.

    Args:
        db: Where.
        entries: The rows.
        last: The number of the last task that was there before.
    """
    if _record(db, entries) == len(entries):
        return [None] * len(entries)
    taken: set[str] = set()
    found: list[Entry | None] = []
    for entry in entries:
        (number,) = db.execute(
            "SELECT number FROM tasks WHERE out_task_id = ?", (entry.out_task_id,)
        ).fetchone()
        new = number > last and entry.out_task_id not in taken
        taken.add(entry.out_task_id)
        found.append(None if new else _find(db, entry.out_task_id))
    return found


def _update(db: sqlite3.Connection, updates: dict[str, list[Update]]) -> None:
    """Write what has changed, one bulk for the first change of each row, one for the second."""
    now = timestamp()
    turn = 0
    while rows := [
        (id_, u.state.value, u.estimated_credits, u.credits_used, u.reply, u.error, u.paths, now)
        for id_, row_updates in updates.items()
        for u in row_updates[turn : turn + 1]
    ]:
        update_rows(db, rows)
        turn += 1


def _find(db: sqlite3.Connection, out_task_id: str | None) -> Entry | None:
    entry, last = None, 0
    while out_task_id is not None:
        row = db.execute(_SELECT, (out_task_id,)).fetchone()
        if row is None:
            return entry
        number, id_, position, state, *rest = row
        if number <= last:
            raise ValueError(f"{id_} was recorded before the task that it is a retry of")
        last = number
        entry = Entry(id_, position, LedgerState(state), *rest)
        out_task_id = entry.retried_as
    return entry
