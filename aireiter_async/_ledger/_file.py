"""
The ledger's file: its schema, its lock, and what to say when it cannot be used.

The schema is for people too: ``sqlite3 run.db "select state, count(*) from tasks
group by state"``. ``user_version`` is the schema's number, ``application_id``
says that the file is a ledger of ours.
"""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aireiter_async.errors import LedgerError

_APPLICATION_ID: Final = 0x41524C47  # "ARLG"
_USER_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE batch (
    -- Drawn once: ids that the ledger draws depend on it, so no two ledgers draw the same.
    salt TEXT NOT NULL,
    -- UTC, ISO 8601.
    created_at TEXT NOT NULL
);
CREATE TABLE tasks (
    -- The order in which the requests were recorded.
    number INTEGER PRIMARY KEY,
    -- The id that the service knows the task by.
    out_task_id TEXT NOT NULL UNIQUE,
    -- Where in the input the request stood, from 0.
    position INTEGER NOT NULL,
    -- intended: may have been sent. submitted: accepted. completed, failed: ended.
    -- downloaded: completed, and the files are on disk. refused: certainly not accepted.
    -- uncertain: the answer was lost and the service could not be asked.
    state TEXT NOT NULL CHECK (state IN ('intended', 'submitted', 'completed', 'failed',
        'refused', 'uncertain', 'downloaded')),
    model TEXT NOT NULL,
    -- The request without its id, as JSON with sorted keys.
    request TEXT NOT NULL,
    -- Credits. NULL: the service did not say.
    estimated_credits REAL,
    credits_used REAL,
    -- The service's last answer about the task, as JSON.
    reply TEXT,
    -- Why it was refused or is uncertain: {"type", "message", "code"} as JSON.
    error TEXT,
    -- The files, as a JSON array.
    paths TEXT,
    -- The id of the task that was submitted in this one's place after it had failed.
    retried_as TEXT REFERENCES tasks (out_task_id),
    -- UTC, ISO 8601.
    updated_at TEXT NOT NULL
);
CREATE INDEX retries ON tasks (retried_as) WHERE retried_as IS NOT NULL;
"""
# UPDATE ... FROM came with it.
_OLDEST_SQLITE: Final = (3, 33)


def timestamp() -> str:
    """Return the time as the ledger's columns have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def explain(error: sqlite3.Error, path: Path) -> LedgerError:
    """Say in our words what SQLite met."""
    return LedgerError(f"{error} (SQLite)", str(path))


def lock_ledger(path: Path) -> sqlite3.Connection:
    """
    Keep other processes from running a batch with the ledger at *path*.

    Raises:
        LedgerError: Another one does.
        sqlite3.Error: The lock cannot be made.
    """
    # A lock of its own beside the file: the file itself stays readable while a batch runs,
    # and the operating system drops the lock with the process, however that ends.
    lock = sqlite3.connect(f"{path}.lock", timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        raise LedgerError("another batch is running with this ledger", str(path)) from error
    return lock


def open_ledger(path: Path, salt: str) -> tuple[sqlite3.Connection, str]:
    """
    Open the ledger at *path*, or make it.

    Args:
        path: The file.
        salt: For a new ledger.

    Returns:
        The connection, and the ledger's salt.

    Raises:
        LedgerError: It is not a ledger, or newer than this release.
        sqlite3.Error: It cannot be opened or written.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise LedgerError(f"SQLite is {sqlite3.sqlite_version}: 3.33 or later is needed")
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        return db, _prepare(db, path, salt)
    except BaseException:
        db.close()
        raise


def _prepare(db: sqlite3.Connection, path: Path, salt: str) -> str:
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application_id != _APPLICATION_ID:
        raise LedgerError("the file is a database, but not a ledger", str(path))
    if version > _USER_VERSION:
        raise LedgerError(
            f"the ledger's schema is {version}, newer than this release's {_USER_VERSION}: "
            "upgrade aireiter-async",
            str(path),
        )
    # Durable through a power cut, at one flush of the disk per group of changes.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    if not tables:
        db.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID};"
            f"PRAGMA user_version = {_USER_VERSION}; COMMIT"
        )
    db.execute(
        "INSERT INTO batch SELECT ?, ? WHERE NOT EXISTS (SELECT * FROM batch)", (salt, timestamp())
    )
    kept: str = db.execute("SELECT salt FROM batch").fetchone()[0]
    return kept
