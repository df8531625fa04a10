"""The ledger's file: its schema, its lock, how it is opened, and why it cannot be used.

A ledger that has lost tasks is worse than none: they would be taken for new ones, and
paid for again. So an existing file is validated before use.
"""

import errno
import os
import sqlite3
import struct
import sys
import zlib
from datetime import UTC, datetime
from os.path import samestat
from pathlib import Path
from typing import Final

from aireiter_async.errors import LedgerError

_APPLICATION_ID: Final = 0x41524C47  # "ARLG"
_USER_VERSION: Final = 2
# UPDATE ... FROM came with it.
_OLDEST_SQLITE: Final = (3, 33)
# Pages of 4 KiB up to which a ledger is checked in full: 50,000 tasks, a tenth of a second.
_CHECKED_PAGES: Final = 4096
_HEADER: Final = 100  # bytes; with fewer, SQLite may take a file for a new one
_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "another program is writing to it",
    sqlite3.SQLITE_CANTOPEN: "it must be a file, in a directory that exists and is writable",
    sqlite3.SQLITE_CORRUPT: "replace it with an intact copy, with its -wal if it has one",
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_IOERR: "check whether the disk is full or gone",
    sqlite3.SQLITE_NOTADB: "replace it with the ledger, or name another file",
    sqlite3.SQLITE_READONLY: "it must be writable, and so must its directory",
}
_OLD_FORMAT: Final = (
    "its format is older than this release: it identifies requests by their position in the "
    "input, so resuming it could pay for them again; finish it with the version that made it, "
    "or start a new ledger"
)

# For people, too: ``sqlite3 run.db "select state, count(*) from tasks group by state"``.
_SCHEMA: Final = """
CREATE TABLE batch (
    -- Random: IDs that the ledger generates depend on it, so no two ledgers generate the same.
    salt TEXT NOT NULL,
    -- Host, port and path of the service that the tasks belong to; NULL before the first run.
    service TEXT,
    -- UTC, ISO 8601.
    created_at TEXT NOT NULL
);
CREATE TABLE tasks (
    -- The order in which the requests were recorded.
    number INTEGER PRIMARY KEY,
    -- The ID that the service knows the task by.
    out_task_id TEXT NOT NULL UNIQUE,
    -- The first 16 bytes of the SHA-256 of the request as the caller made it.
    content BLOB NOT NULL,
    -- How often this content had come in the input, from 1; NULL where the caller chose the ID,
    -- and for the second and later attempts of a request.
    occurrence INTEGER,
    -- intended: may have been sent. submitted: accepted. completed, failed: ended.
    -- downloaded: completed, and the files are on disk. refused: certainly not accepted.
    -- uncertain: the response was lost and the service could not be asked.
    -- lost: accepted, but the service no longer knows it.
    state TEXT NOT NULL CHECK (state IN ('intended', 'submitted', 'completed', 'failed',
        'refused', 'uncertain', 'downloaded', 'lost')),
    model TEXT NOT NULL,
    -- The request without its ID and callback_url, as JSON with sorted keys; data URIs as digests.
    -- Local files that it was made of are in "inputs", as {"param", "path", "size", "sha256"}.
    request TEXT NOT NULL,
    -- Credits. NULL: the service did not say.
    estimated_credits REAL,
    credits_used REAL,
    -- The service's last reply about the task, as JSON.
    reply TEXT,
    -- Why it was refused or is uncertain: {"type", "message", "code"} as JSON.
    error TEXT,
    -- The files, as a JSON array of {"path", "size", "sha256"}.
    paths TEXT,
    -- The ID of the task that was submitted in this one's place after it had failed.
    retried_as TEXT REFERENCES tasks (out_task_id),
    -- When the request was recorded, just before its submit: UTC, ISO 8601.
    created_at TEXT NOT NULL,
    -- When the state changed last, not counting the download: UTC, ISO 8601.
    updated_at TEXT NOT NULL
);
CREATE UNIQUE INDEX contents ON tasks (content, occurrence) WHERE occurrence IS NOT NULL;
CREATE INDEX retries ON tasks (retried_as) WHERE retried_as IS NOT NULL;
"""


def timestamp() -> str:
    """Return the time as the columns have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def last_task(db: sqlite3.Connection) -> int:
    """Return the number of the last task, 0 if there is none."""
    last: int
    (last,) = db.execute("SELECT coalesce(max(number), 0) FROM tasks").fetchone()
    return last


def resolve(path: Path) -> Path:
    """Return the one name of a file, whatever links and working directories there are."""
    return Path(os.path.realpath(path))


def explain(error: BaseException, path: Path) -> LedgerError:
    """Say in our words why the file could not be used, and what to do about it."""
    if isinstance(error, sqlite3.Error):
        advice = _ADVICE.get(_code(error))
        message = f"{error} (SQLite){f': {advice}' if advice else ''}"
    else:
        message = f"{type(error).__name__}: {error}"
    return LedgerError(message, str(path))


def damaged(what: object, path: Path) -> LedgerError:
    """Return the error for a corrupt ledger."""
    return LedgerError(f"it is damaged ({what}): {_ADVICE[sqlite3.SQLITE_CORRUPT]}", str(path))


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary code; 0 for an error that Python's module made by itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


if sys.platform == "win32":  # pragma: no cover - elsewhere there is no msvcrt
    import msvcrt

    def _lock_file(fd: int) -> None:
        os.lseek(fd, 1 << 30, os.SEEK_SET)  # beyond the record: such locks are mandatory
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock_file(fd: int) -> None:
        # Unlike SQLite's own locks, this one survives that the same process opens and closes
        # the file, such as to copy it.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """The lock beside a ledger, which also remembers how far the ledger was.

    The system drops it with the process, however that ends. It is a file of its own, so the
    ledger stays readable. It holds two numbers: which ledger it was, and the last task
    recorded there. They are flushed to the disk only where they go down: a power cut must
    not make them doubt the ledger.

    Args:
        path: The ledger.

    Attributes:
        last: The number of the last task that the ledger is known to have had.

    Raises:
        LedgerError: Another process has it, or it is no lock.
    """

    _RECORD: Final = struct.Struct("<4sQQI")  # magic, ledger, last, checksum
    _MAGIC: Final = b"ARLK"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = Path(f"{resolve(path)}.lock")
        self.last = 0
        self._ledger = 0
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        try:
            self._fd = os.open(self._file, flags, 0o644)
        except OSError as error:
            advice = _ADVICE[sqlite3.SQLITE_READONLY]
            raise LedgerError(
                f"{self._file.name}: {error.strerror}: {advice}", str(path)
            ) from error
        try:
            self._acquire()
        except BaseException:
            os.close(self._fd)
            raise

    def _acquire(self) -> None:
        try:
            _lock_file(self._fd)
        except OSError as error:
            raise LedgerError(
                "another batch is running with this ledger, or its disk has no locks",
                str(self._path),
            ) from error
        self.check()
        os.lseek(self._fd, 0, os.SEEK_SET)
        record = os.read(self._fd, self._RECORD.size + 1)
        if not record:
            return
        if record.startswith(b"SQLite"):
            raise LedgerError(_OLD_FORMAT, str(self._path))
        try:
            magic, self._ledger, self.last, checksum = self._RECORD.unpack(record)
        except struct.error:
            magic = checksum = None
        if magic != self._MAGIC or zlib.crc32(record[:-4]) != checksum:
            raise LedgerError(f"{self._file.name} is not a lock: delete it", str(self._path))

    def check(self) -> None:
        """Make sure that a second run would find the lock taken.

        Raises:
            LedgerError: It would not: the file was deleted or replaced.
        """
        try:
            same = samestat(os.fstat(self._fd), self._file.stat())
        except OSError:
            same = False
        if not same:
            raise LedgerError(
                f"{self._file.name} was deleted or replaced while the batch ran, so a second "
                "run could start: end all runs, then run the batch again",
                str(self._path),
            )

    def compare(self, salt: str, last: int) -> None:
        """Compare what is remembered with the ledger of *salt*, whose last task is *last*.

        Raises:
            LedgerError: It is another ledger, or one that has lost tasks.
        """
        lock, ledger = self._file.name, zlib.crc32(salt.encode())
        if self.last and self._ledger != ledger:
            raise LedgerError(
                f"{lock} belongs to another ledger: delete it, if this is the right one",
                str(self._path),
            )
        if last < self.last:
            raise LedgerError(
                f"the ledger has tasks up to number {last}, but {self.last} were recorded: it is "
                "an old copy, or its -wal is missing. Restore the newest copy. Deleting "
                f"{lock} overrides this check and may pay for the missing tasks again",
                str(self._path),
            )
        self._ledger = ledger
        self.remember(last)

    def remember(self, last: int) -> None:
        """Remember that the ledger's last task is number *last*."""
        record = self._RECORD.pack(self._MAGIC, self._ledger, last, 0)[:-4]
        os.lseek(self._fd, 0, os.SEEK_SET)
        record += zlib.crc32(record).to_bytes(4, "little")
        if os.write(self._fd, record) < len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if last < self.last:
            os.fsync(self._fd)
        self.last = last

    def close(self) -> None:
        """Release it."""
        os.close(self._fd)


def open_ledger(path: Path, salt: str, lock: Lock) -> tuple[sqlite3.Connection, str, int]:
    """Open the ledger at *path*, or make it.

    Args:
        path: The file.
        salt: For a new ledger.
        lock: Its lock; remembers what it has.

    Returns:
        The connection, the ledger's salt, and the number of its last task.

    Raises:
        LedgerError: It is not a ledger, damaged, or newer than this release.
        sqlite3.Error: It cannot be opened or written.
        OSError: It cannot be looked for.
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
        raise _emptied(path)  # to SQLite it is a new file, whose -wal it deletes
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        if _is_empty(db, path):
            if had_tasks:
                raise _emptied(path)  # noqa: TRY301 - the file is open
            _make(db, salt)
        kept, last = _read(db, path)
        lock.compare(kept, last)
    except BaseException:
        db.close()
        raise
    return db, kept, last


def check_names(file: Path, path: Path) -> None:
    """Make sure that a file has one name: SQLite's locks and its -wal go by the name.

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
    """Return how many bytes a file has, None if it is not there."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def _is_empty(db: sqlite3.Connection, path: Path) -> bool:
    """Tell a file with nothing in it from a ledger.

    Raises:
        LedgerError: It is neither.
    """
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not (tables or application_id):
        return True
    check_format(application_id, version, path)
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if pages <= _CHECKED_PAGES:
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise damaged(found.splitlines()[-1], path)
    return False


def check_format(application_id: int, version: int, path: Path) -> None:
    """Check that a database is a ledger of this release's format.

    Raises:
        LedgerError: It is not.
    """
    if application_id != _APPLICATION_ID:
        raise LedgerError("the file is a database, but not a ledger", str(path))
    if version > _USER_VERSION:
        raise LedgerError(
            f"the ledger's format is {version}, newer than this release's {_USER_VERSION}: "
            "upgrade aireiter-async",
            str(path),
        )
    if version < _USER_VERSION:
        raise LedgerError(_OLD_FORMAT, str(path))


def _make(db: sqlite3.Connection, salt: str) -> None:
    """Make a ledger, all of it in the file itself: without its -wal it still knows its salt."""
    db.execute("PRAGMA synchronous = FULL")
    db.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID};"
        f"PRAGMA user_version = {_USER_VERSION}"
    )
    db.execute("INSERT INTO batch VALUES (?, NULL, ?)", (salt, timestamp()))
    db.execute("COMMIT")


def _read(db: sqlite3.Connection, path: Path) -> tuple[str, int]:
    """Make ready to write, and return the salt and the number of the last task.

    Raises:
        LedgerError: It has no salt.
    """
    # Durable through a power cut, at one flush of the disk per group of changes.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    # What this run has read of its input: on disk if it grows, and gone with the connection.
    db.execute("PRAGMA temp.journal_mode = MEMORY")
    db.execute(
        "CREATE TEMP TABLE seen (key BLOB PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID"
    )
    db.execute("UPDATE batch SET salt = salt WHERE false")  # an error if it cannot be written
    (salt,) = db.execute("SELECT salt FROM batch").fetchone() or (None,)
    if not isinstance(salt, str):
        raise damaged("it has no salt", path)
    return salt, last_task(db)


def _emptied(path: Path) -> LedgerError:
    return LedgerError(
        "it is empty or truncated, and had tasks: restore a copy, or delete it to start over",
        str(path),
    )
