"""The ledger's file: its schema, and the checks on opening it.

A ledger that has lost tasks is worse than none: the tasks would be treated as new and paid
for again. An existing file is therefore validated before use.
"""

import logging
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aireiter_async._ledger._errors import OLD_FORMAT, corrupt_error, emptied_error
from aireiter_async._ledger._lock import Lock, compare_lock, resolve
from aireiter_async._mounts import find_network
from aireiter_async.errors import LedgerError

_log = logging.getLogger(__name__)

_APPLICATION_ID: Final = 0x41524C47  # "ARLG"
_USER_VERSION: Final = 2
# The first with UPDATE ... FROM.
_OLDEST_SQLITE: Final = (3, 33)
# Ledgers up to this many 4 KiB pages are checked completely: 50,000 tasks, 0.1 seconds.
_CHECKED_PAGES: Final = 4096
_HEADER: Final = 100  # bytes; SQLite may treat a shorter file as new

# Users query it, too: ``sqlite3 run.db "select state, count(*) from tasks group by state"``.
_SCHEMA: Final = """
CREATE TABLE batch (
    -- Random: generated IDs start with it, so that no two ledgers generate the same ID.
    salt TEXT NOT NULL,
    -- Host, port and path of the service that the tasks belong to; NULL before the first run.
    service TEXT,
    -- UTC, ISO 8601.
    created_at TEXT NOT NULL
);
CREATE TABLE tasks (
    -- The order in which the requests were recorded.
    number INTEGER PRIMARY KEY,
    -- The task's ID at the service.
    out_task_id TEXT NOT NULL UNIQUE,
    -- The first 16 bytes of the SHA-256 of the request as the caller made it.
    content BLOB NOT NULL,
    -- The occurrence number of this content in the input, from 1; NULL if the caller chose the ID,
    -- and for the second and later attempts of a request.
    occurrence INTEGER,
    -- intended: may have been sent. submitted: accepted. completed, failed: ended.
    -- downloaded: completed, and the files are on disk. rejected: definitely not accepted.
    -- uncertain: the response was lost and the service could not be queried.
    -- lost: accepted, but the service no longer knows it.
    -- Comparisons, since SQLite builds a table of what is IN (...) for each row that it writes.
    state TEXT NOT NULL CHECK (state = 'intended' OR state = 'submitted' OR state = 'completed'
        OR state = 'failed' OR state = 'rejected' OR state = 'uncertain' OR state = 'downloaded'
        OR state = 'lost'),
    model TEXT NOT NULL,
    -- The request without its ID and callback_url, as JSON with sorted keys; data URIs as digests.
    -- Its local files are in "inputs", as {"param", "path", "size", "sha256"}.
    request TEXT NOT NULL,
    -- Credits, NULL if the service did not report them.
    estimated_credits REAL,
    credits_used REAL,
    -- The service's last reply about the task, as JSON.
    reply TEXT,
    -- Why it was rejected or is uncertain: {"type", "message", "code"} as JSON.
    error TEXT,
    -- The files, as a JSON array of {"path", "size", "sha256"}.
    paths TEXT,
    -- The ID of the task that replaced this one after it had failed.
    retried_as TEXT REFERENCES tasks (out_task_id),
    -- When the request was recorded, just before its submit: UTC, ISO 8601.
    created_at TEXT NOT NULL,
    -- When the state last changed, not counting the download: UTC, ISO 8601.
    updated_at TEXT NOT NULL
);
CREATE UNIQUE INDEX contents ON tasks (content, occurrence) WHERE occurrence IS NOT NULL;
CREATE INDEX retries ON tasks (retried_as) WHERE retried_as IS NOT NULL;
"""


def open_ledger(path: Path, salt: str, lock: Lock) -> tuple[sqlite3.Connection, str, int]:
    """Open the ledger at *path*, or create one with *salt*; update its lock.

    Returns:
        The connection, the ledger's salt, and the number of its last task.

    Raises:
        LedgerError: It is not a ledger, damaged, or newer than this release.
        sqlite3.Error: It cannot be opened or written.
        OSError: The path cannot be accessed.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise LedgerError(f"SQLite is {sqlite3.sqlite_version}: 3.33 or later is needed", str(path))
    file = resolve(path)
    size = _size(file)
    check_names(file, path)
    had_tasks = size is not None and bool(lock.last or _size(Path(f"{file}-wal")))
    if size is None:
        lock.remember(0)
    elif had_tasks and size < _HEADER:
        raise emptied_error(path)  # SQLite would treat it as new and delete its -wal
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        if _is_new(db):
            if had_tasks:
                raise emptied_error(path)  # noqa: TRY301 - the file is open
            _create(db, salt)
        else:
            check_format(db, path)
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            if pages <= _CHECKED_PAGES:
                _check_integrity(db, path)
        kept, last = _prepare(db, path)
        lock.compare(kept, last)
    except BaseException:
        db.close()
        raise
    return db, kept, last


def check_contents(db: sqlite3.Connection, path: Path, remembered: tuple[int, int]) -> bool:
    """Check a ledger that is open for reading; return whether it has tables.

    *remembered* is the record in its lock, read before the ledger was opened.

    Raises:
        LedgerError: It is damaged, of another format, or has lost tasks.
        sqlite3.Error: It cannot be read.
    """
    if _is_new(db):
        if remembered[1]:
            raise emptied_error(path)
        return False
    check_format(db, path)
    (salt,) = db.execute("SELECT salt FROM batch").fetchone() or ("",)
    compare_lock(remembered, salt, last_task(db), path)
    _check_integrity(db, path)
    return True


def check_names(file: Path, path: Path) -> None:
    """Check that a file has only one name, on which SQLite's locks and -wal depend.

    Raises:
        LedgerError: It has a hard link.
    """
    if file.is_file() and file.stat().st_nlink > 1:
        raise LedgerError(
            "the file has another name (a hard link), so two runs could use it at once: delete "
            "the other name, or make it a symbolic link",
            str(path),
        )


def _size(file: Path) -> int | None:
    """Return a file's size in bytes, or None if it does not exist."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def _is_new(db: sqlite3.Connection) -> bool:
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not (tables or application_id)


def check_format(db: sqlite3.Connection, path: Path) -> None:
    """Check that a database is a ledger of this release's format.

    Raises:
        LedgerError: It is not.
    """
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application_id != _APPLICATION_ID:
        raise LedgerError("the file is a database, but not a ledger", str(path))
    if version > _USER_VERSION:
        raise LedgerError(
            f"the ledger's format is {version}, newer than this release's {_USER_VERSION}: "
            "upgrade aireiter-async",
            str(path),
        )
    if version < _USER_VERSION:
        raise LedgerError(OLD_FORMAT, str(path))


def _check_integrity(db: sqlite3.Connection, path: Path) -> None:
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise corrupt_error(found.splitlines()[-1], path)


def _create(db: sqlite3.Connection, salt: str) -> None:
    """Create a ledger without a -wal, so that the salt is in the file itself."""
    db.execute("PRAGMA synchronous = FULL")
    db.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID};"
        f"PRAGMA user_version = {_USER_VERSION}"
    )
    db.execute("INSERT INTO batch VALUES (?, NULL, ?)", (salt, timestamp()))
    db.execute("COMMIT")


def _prepare(db: sqlite3.Connection, path: Path) -> tuple[str, int]:
    """Prepare for writing, and return the salt and the number of the last task.

    Raises:
        LedgerError: It has no salt.
    """
    # Durable through a power cut, at one flush of the disk per group of changes.
    _prepare_journal(db, path)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    # The input read by this run: spills to disk, and is deleted with the connection. It needs no
    # journal: after a failed transaction, the ledger is no longer used.
    db.execute("PRAGMA temp.journal_mode = OFF")
    db.execute(
        "CREATE TEMP TABLE seen (key BLOB PRIMARY KEY, count INTEGER NOT NULL, "
        "turn INTEGER NOT NULL) WITHOUT ROWID"
    )
    db.execute("UPDATE batch SET salt = salt WHERE false")  # an error if it cannot be written
    (salt,) = db.execute("SELECT salt FROM batch").fetchone() or (None,)
    if not isinstance(salt, str):
        raise corrupt_error("it has no salt", path)
    return salt, last_task(db)


def _prepare_journal(db: sqlite3.Connection, path: Path) -> None:
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    network = find_network(path)
    if mode != "wal" or network is not None:
        _log.warning(
            "the ledger %s is on %s: use it on one machine only; to share claims between machines, "
            "use PostgresStore",
            *(path, network or f"a file system without SQLite's write-ahead log ({mode})"),
        )


def timestamp() -> str:
    """Return the current time in the format of the columns."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def last_task(db: sqlite3.Connection) -> int:
    """Return the number of the last task, 0 if there is none."""
    last: int
    (last,) = db.execute("SELECT coalesce(max(number), 0) FROM tasks").fetchone()
    return last
