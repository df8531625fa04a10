"""The SQLite side of the ledger: groups of changes, each in one transaction.

Executing a statement releases and reacquires the GIL, which costs more than the statement
itself while the event loop is busy: rows are written in bulk.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from os.path import samestat
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from aireiter_async._ledger._errors import corrupt_error, ledger_error
from aireiter_async._ledger._file import check_names, last_task, open_ledger, timestamp
from aireiter_async._ledger._lock import Lock, resolve
from aireiter_async._tasks import LedgerState
from aireiter_async.errors import LedgerError

_LARGEST_BULK: Final = 64  # rows: SQLite's oldest limit is 999 values per statement
_MAX_ID: Final = 64
_SELECT: Final = (
    "SELECT number, out_task_id, content, state, model, estimated_credits, reply, error, paths, "
    "retried_as FROM tasks WHERE "
)

# A query or a rare change, run within a transaction.
Change = Callable[[sqlite3.Connection], Any]
Row = tuple[Any, ...]


@define
class Entry:
    """One task of the ledger, with the columns that the next run needs.

    Attributes:
        first: The ID of the request's first attempt.
    """

    first: str
    out_task_id: str
    content: bytes
    state: LedgerState
    model: str
    estimated_credits: float | None = None
    reply: str | None = None
    error: str | None = None
    paths: str | None = None
    retried_as: str | None = None


@define
class Intent:
    """The intent to submit a request, recorded before its submit.

    Attributes:
        batch: The number of the batch, within which occurrences and IDs are counted.
        out_task_id: Its ID; if *generated*, it is replaced by the ledger's.
        unique: Whether the ID must not have been used in the batch.
        content: The digest of the request.
        request: The request as JSON.
        record: Whether to record it now, or only to look the request up.
        counted: Whether `occurrence` and `repeated` are known.
        occurrence: The occurrence number of this content, if the ID is generated.
        entry: The existing row, or None.
        repeated: Whether the batch has used the ID before.
    """

    batch: int
    out_task_id: str
    generated: bool
    unique: bool
    content: bytes
    model: str
    request: str
    record: bool = True
    counted: bool = False
    occurrence: int | None = None
    entry: Entry | None = None
    repeated: bool = False


@define
class Update:
    """Changes of one row; None leaves a column as it is."""

    state: LedgerState
    estimated_credits: float | None = None
    credits_used: float | None = None
    reply: str | None = None
    error: str | None = None
    paths: str | None = None


@define
class Group:
    """Changes written together: acceptances, updates, other changes, then intents.

    Attributes:
        intents: Requests to look up and, if new, record.
        accepted: Estimates of accepted tasks, by ID.
        updates: Other updates by ID, in order.
        changes: Everything else.
    """

    intents: list[Intent] = field(factory=list)
    accepted: dict[str, float | None] = field(factory=dict)
    updates: dict[str, list[Update]] = field(factory=dict)
    changes: list[Change] = field(factory=list)

    def __bool__(self) -> bool:
        return bool(self.intents or self.accepted or self.updates or self.changes)


class Store:
    """An open ledger file, locked against other processes; its methods block.

    Raises:
        LedgerError: The file is in use, not a ledger, of another format,
            or cannot be opened or written.
    """

    def __init__(self, path: Path, salt: str) -> None:
        self._path = path
        self._file = resolve(path)
        self._lock = Lock(path)
        self._turn = 0
        try:
            self._db, self._salt, self._last = open_ledger(path, salt, self._lock)
            self._opened = self._file.stat()
        except BaseException as error:
            self._lock.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise ledger_error(error, path) from error
            raise

    def close(self) -> None:
        """Close the file, then release the lock."""
        self._db.close()
        self._lock.close()

    def apply(self, group: Group) -> list[Any]:
        """Write all changes of *group* in one transaction, durable on return.

        The intents are completed in place.

        Returns:
            The results of `Group.changes`.

        Raises:
            LedgerError: They were not written, or the next run will not find them.
        """
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                _accept(db, group.accepted)
                _update(db, group.updates)
                results = [change(db) for change in group.changes]
                last = last_task(db) if group.changes else self._last
                if group.intents:
                    self._record(group.intents, last)
                    last = last_task(db)
                # The lock must never be ahead of the ledger, nor behind what was sent.
                if last < self._last:
                    self._lock.remember(last)
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # after a full disk, already rolled back
                    db.execute("ROLLBACK")
                raise
            if last > self._last:
                self._lock.remember(last)
        except (sqlite3.Error, OSError) as error:
            raise ledger_error(error, self._path) from error
        except (TypeError, ValueError) as error:
            raise corrupt_error(error, self._path) from error
        self._last = last
        self._check_identity()
        return results

    def _record(self, intents: Sequence[Intent], last: int) -> None:
        """Record new requests, and look up the others; nearly always, all are new."""
        db, now = self._db, timestamp()
        self._turn += 1
        _count(db, [each for each in intents if not each.counted], self._turn)
        rows = []
        for number, intent in enumerate(intents, last + 1):
            if intent.repeated or not intent.record:
                continue
            if intent.generated:
                # Ascending IDs with a common prefix keep index writes local: random ones take
                # three times as long to record. The digest prevents a ledger that has lost
                # its last tasks from reusing an ID for another request.
                intent.out_task_id = f"{self._salt}-{number:08d}-{intent.content.hex()[:16]}"
            rows.append(_row(intent, number, now))
        if _insert(db, rows) == len(intents):
            return
        new: set[int] = set()
        for intent in intents:
            if intent.repeated:
                continue
            number, entry = _find(db, intent)
            if intent.record and number > last and number not in new:
                new.add(number)
            else:
                intent.entry = entry

    def _check_identity(self) -> None:
        """Check that the next run will find what was written, and that no second run can write.

        Raises:
            LedgerError: It will not, or one can.
        """
        try:
            found = self._file.stat()
        except OSError:
            found = None
        if found is None or not samestat(found, self._opened):
            raise LedgerError(
                "the file was deleted or replaced while the batch ran: restore it, or the next "
                "run will pay for its tasks again",
                str(self._path),
            )
        check_names(self._file, self._path)
        self._lock.check()


def bind(service: str, *, rebind: bool) -> Change:
    """Bind the ledger to a service; return the service that it is bound to."""

    def change(db: sqlite3.Connection) -> str:
        known: str | None
        (known,) = db.execute("SELECT service FROM batch").fetchone()
        if known is None or rebind:
            db.execute("UPDATE batch SET service = ?", (service,))
            known = service
        return known

    return change


def forget(batch: int) -> Change:
    """Delete the counts of an ended batch."""

    def change(db: sqlite3.Connection) -> None:
        db.execute(
            "DELETE FROM seen WHERE key >= ? AND key < ?", (_key(batch, b""), _key(batch + 1, b""))
        )

    return change


def find(out_task_id: str) -> Change:
    """Return the row of an ID, or of the task that replaced it, or None."""

    def change(db: sqlite3.Connection) -> Entry | None:
        found = _follow(db, "out_task_id = ?", (out_task_id,))
        return None if found is None else found[1]

    return change


def replace(out_task_id: str, state: LedgerState) -> Change:
    """Record another attempt for a task that ended in *state*; return its ID.

    The ID is that of the first attempt with the number of the new attempt appended.
    """

    def change(db: sqlite3.Connection) -> str:
        root, attempt = out_task_id, 2
        while first := db.execute(
            "SELECT out_task_id FROM tasks WHERE retried_as = ?", (root,)
        ).fetchone():
            (root,), attempt = first, attempt + 1
        again = _attempt_id(root, attempt)
        while db.execute("SELECT 1 FROM tasks WHERE out_task_id = ?", (again,)).fetchone():
            attempt += 1
            again = _attempt_id(root, attempt)
        now = timestamp()
        db.execute(
            "INSERT INTO tasks "
            "(out_task_id, content, state, model, request, created_at, updated_at) "
            "SELECT ?, content, ?, model, request, ?, ? FROM tasks WHERE out_task_id = ?",
            (again, LedgerState.INTENDED.value, now, now, out_task_id),
        )
        db.execute(
            "UPDATE tasks SET retried_as = ?, state = ? WHERE out_task_id = ?",
            (again, state.value, out_task_id),
        )
        return again

    return change


def withdraw(out_task_id: str) -> Change:
    """Delete an intent that the service has definitely not accepted."""

    def change(db: sqlite3.Connection) -> None:
        db.execute("UPDATE tasks SET retried_as = NULL WHERE retried_as = ?", (out_task_id,))
        db.execute("DELETE FROM tasks WHERE out_task_id = ?", (out_task_id,))

    return change


def counts(db: sqlite3.Connection) -> dict[LedgerState, int]:
    """Return the number of tasks in each state."""
    rows = db.execute("SELECT state, count(*) FROM tasks GROUP BY state")
    return {LedgerState(state): number for state, number in rows}


def spent(db: sqlite3.Connection) -> tuple[float, int]:
    """Return the credits of accepted tasks without refunds, and the number of unknown costs."""
    total, unknown = db.execute(
        "SELECT coalesce(sum(cost), 0.0), count(*) - count(cost) FROM ("
        "SELECT coalesce(credits_used, estimated_credits) AS cost FROM tasks "
        "WHERE state IN ('submitted', 'completed', 'downloaded', 'lost'))"
    ).fetchone()
    return total, unknown


def costs(db: sqlite3.Connection) -> list[tuple[str, float, int, float | None]]:
    """Return by model: credits, number of tasks of unknown cost, highest known cost."""
    return db.execute(
        "SELECT model, coalesce(sum(cost), 0.0), count(*) - count(cost), max(cost) FROM ("
        "SELECT model, coalesce(credits_used, nullif(estimated_credits, 0)) AS cost FROM tasks "
        "WHERE state NOT IN ('failed', 'rejected')) GROUP BY model"
    ).fetchall()


def page(after: int, size: int, read: Callable[[Row], Any]) -> Change:
    """Return up to *size* rows after number *after*, each with its number and read by *read*."""

    def change(db: sqlite3.Connection) -> list[tuple[int, Any]]:
        rows = db.execute(
            "SELECT number, out_task_id, state, model, request, estimated_credits, credits_used, "
            "reply, error, paths, retried_as, created_at, updated_at "
            "FROM tasks WHERE number > ? ORDER BY number LIMIT ?",
            (after, size),
        )
        return [(row[0], read(row)) for row in rows]  # one by one: a reply may take megabytes

    return change


def _key(batch: int, key: bytes) -> bytes:
    return batch.to_bytes(4, "big") + key


def _count(db: sqlite3.Connection, intents: Sequence[Intent], turn: int) -> None:
    """Number the occurrences of each content, and find repeated IDs.

    Nearly always, all contents and IDs are new: count as if they were, and count again only if
    recording them shows that some are not. *turn* grows with each call, and tells its rows from
    earlier ones.
    """
    first: dict[bytes, int] = {}
    _number(intents, first)
    if _remember(db, first, turn, "IGNORE") == len(first):
        return
    known: dict[bytes, int] = {}
    for bulk in _bulks([(key,) for key in first]):
        places = _places(1, len(bulk))
        found = db.execute(
            f"SELECT key, count FROM seen WHERE turn < ? AND key IN (VALUES {places})",  # noqa: S608
            [turn, *chain.from_iterable(bulk)],
        )
        known.update(found)
    seen = {**dict.fromkeys(first, 0), **known}
    _number(intents, seen)
    changed = {key: n for key, n in seen.items() if key in known or n != first[key]}
    _remember(db, changed, turn, "REPLACE")


def _number(intents: Sequence[Intent], seen: dict[bytes, int]) -> None:
    """Number *intents*, given how often each key was seen, and count them there."""
    for intent in intents:
        prefix = intent.batch.to_bytes(4, "big")
        if intent.unique:
            key = prefix + intent.out_task_id.encode()
            intent.repeated = seen.get(key, 0) > 0
            seen[key] = 1
        if intent.generated and not intent.repeated:
            key = prefix + b"\0" + intent.content  # no ID begins like this
            intent.occurrence = seen[key] = seen.get(key, 0) + 1
        intent.counted = True


def _remember(db: sqlite3.Connection, seen: dict[bytes, int], turn: int, conflict: str) -> int:
    """Record how often each key was seen; return how many rows that has changed."""
    before = db.total_changes
    for bulk in _bulks([(key, count, turn) for key, count in seen.items()]):
        db.execute(_seen_statement(len(bulk), conflict), list(chain.from_iterable(bulk)))
    return db.total_changes - before


def _row(intent: Intent, number: int, now: str) -> Row:
    return (
        number,
        intent.out_task_id,
        intent.content,
        intent.occurrence,
        LedgerState.INTENDED.value,
        intent.model,
        intent.request,
        now,
        now,
    )


def _insert(db: sqlite3.Connection, rows: Sequence[Row]) -> int:
    """Insert the rows that are new; return their number."""
    before = db.total_changes
    for bulk in _bulks(rows):
        db.execute(_insert_statement(len(bulk)), list(chain.from_iterable(bulk)))
    return db.total_changes - before


def _find(db: sqlite3.Connection, intent: Intent) -> tuple[int, Entry | None]:
    """Return the number of an intent's row, or 0, and its last attempt."""
    if intent.occurrence is None:
        found = _follow(db, "out_task_id = ?", (intent.out_task_id,))
    else:
        found = _follow(db, "content = ? AND occurrence = ?", (intent.content, intent.occurrence))
    return found or (0, None)


def _follow(db: sqlite3.Connection, where: str, values: Row) -> tuple[int, Entry] | None:
    """Return the number of a row, and the row of its last attempt."""
    found = db.execute(_SELECT + where, values).fetchone()
    if found is None:
        return None
    first, first_id = found[:2]
    last = first
    while (again := found[-1]) is not None:
        following = db.execute(f"{_SELECT}out_task_id = ?", (again,)).fetchone()
        if following[0] <= last:
            raise ValueError(f"{again} was recorded before the task that it retries")
        found, last = following, following[0]
    _, out_task_id, content, state, *rest = found
    return first, Entry(first_id, out_task_id, content, LedgerState(state), *rest)


def _accept(db: sqlite3.Connection, accepted: dict[str, float | None]) -> None:
    now = timestamp() if accepted else ""
    for bulk in _bulks(list(accepted.items())):
        db.execute(_accept_statement(len(bulk)), [now, *chain.from_iterable(bulk)])


def _update(db: sqlite3.Connection, updates: dict[str, list[Update]]) -> None:
    """Write updates in bulk: first the first update of each row, then the second, and so on."""
    now, turn = timestamp() if updates else "", 0
    while rows := [
        (id_, u.state.value, u.estimated_credits, u.credits_used, u.reply, u.error, u.paths, now)
        for id_, row_updates in updates.items()
        for u in row_updates[turn : turn + 1]
    ]:
        for bulk in _bulks(rows):
            db.execute(_update_statement(len(bulk)), list(chain.from_iterable(bulk)))
        turn += 1


def _bulks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Split *rows* into sizes that are powers of two, to reuse prepared statements."""
    start = 0
    while start < len(rows):
        size = min(_LARGEST_BULK, 1 << ((len(rows) - start).bit_length() - 1))
        yield rows[start : start + size]
        start += size


@cache
def _places(columns: int, rows: int) -> str:
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)


@cache
def _insert_statement(size: int) -> str:
    return (
        "INSERT INTO tasks (number, out_task_id, content, occurrence, state, model, request, "  # noqa: S608
        f"created_at, updated_at) VALUES {_places(9, size)} ON CONFLICT DO NOTHING"
    )


@cache
def _seen_statement(size: int, conflict: str) -> str:
    return f"INSERT OR {conflict} INTO seen VALUES {_places(3, size)}"  # noqa: S608 - places


@cache
def _accept_statement(size: int) -> str:
    return (
        "UPDATE tasks SET state = 'submitted', updated_at = ?, "  # noqa: S608 - nothing but places
        "estimated_credits = coalesce(new.column2, estimated_credits) "
        f"FROM (VALUES {_places(2, size)}) AS new WHERE out_task_id = new.column1"
    )


@cache
def _update_statement(size: int) -> str:
    return (
        "UPDATE tasks SET state = new.column2, "  # noqa: S608 - nothing but places for values
        "estimated_credits = coalesce(new.column3, estimated_credits), "
        "credits_used = coalesce(new.column4, credits_used), "
        "reply = coalesce(new.column5, reply), error = coalesce(new.column6, error), "
        "paths = coalesce(new.column7, paths), updated_at = "
        "CASE new.column2 WHEN 'downloaded' THEN updated_at ELSE new.column8 END "
        f"FROM (VALUES {_places(8, size)}) AS new WHERE out_task_id = new.column1"
    )


def _attempt_id(root: str, attempt: int) -> str:
    suffix = f"-{attempt}"
    return f"{root[: _MAX_ID - len(suffix)]}{suffix}"
