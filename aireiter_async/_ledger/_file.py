"""The ledger's file: how it is locked and opened, and what to say when it cannot be used.

A ledger that has lost tasks is worse than none: they would be taken for new ones,
and paid for again. So a file that was there before is looked at with suspicion.
"""

import os
import sqlite3
import zlib
from pathlib import Path
from typing import Final

from aireiter_async._ledger._schema import (
    APPLICATION_ID,
    SCHEMA,
    USER_VERSION,
    last_task,
    timestamp,
)
from aireiter_async.errors import LedgerError

# UPDATE ... FROM came with it.
_OLDEST_SQLITE: Final = (3, 33)
# Pages of 4 KiB up to which a ledger is checked in full: 50,000 tasks, a tenth of a second.
_CHECKED_PAGES: Final = 4096
_HEADER: Final = 100  # bytes; with fewer, SQLite may take a file for a new one
_PATIENCE: Final = 0.2  # seconds: of two that come at once, one is to get the lock
_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "another program is writing to it",
    sqlite3.SQLITE_CANTOPEN: "it has to be a file, in a directory that is there and writable",
    sqlite3.SQLITE_CORRUPT: "put an intact copy in its place, with its -wal if it has one",
    sqlite3.SQLITE_FULL: "make room",
    sqlite3.SQLITE_IOERR: "see whether the disk is full, or gone",
    sqlite3.SQLITE_NOTADB: "put the ledger in its place, or name another file",
    sqlite3.SQLITE_READONLY: "it has to be writable, and so has its directory",
}


def follow(path: Path) -> Path:
    """Return the one name of a file, whatever links and working directories there are."""
    return Path(os.path.realpath(path))


def explain(error: BaseException, path: Path) -> LedgerError:
    """Say in our words why the file could not be used, and what to do about it."""
    if isinstance(error, sqlite3.Error):
        advice = _ADVICE.get(_code(error))
        told = f"{error} (SQLite){f': {advice}' if advice else ''}"
    else:
        told = f"{type(error).__name__}: {error}"
    return LedgerError(told, str(path))


def damaged(what: object, path: Path) -> LedgerError:
    """Say that the file holds what no ledger does."""
    return LedgerError(f"it is damaged ({what}): {_ADVICE[sqlite3.SQLITE_CORRUPT]}", str(path))


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary code; 0 for an error that Python's module made by itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


class Lock:
    """The lock beside a ledger, which also remembers how far the ledger was.

    It is an SQLite file without tables: SQLite has locks on every system, which
    the system drops with the process, however that ends; and the ledger itself
    stays readable. In its header there is room for two numbers: which ledger it
    was, and the last task recorded there. They are flushed to the disk only where
    they go down: a power cut must not make them doubt the ledger.

    Attributes:
        last: The number of the last task that the ledger is known to have had.
    """

    def __init__(self, path: Path, file: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self._file = file
        self._db = db
        db.execute("PRAGMA journal_mode = MEMORY")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # until it is closed
        (self._ledger,) = db.execute("PRAGMA application_id").fetchone()
        (self.last,) = db.execute("PRAGMA user_version").fetchone()
        db.execute(f"PRAGMA user_version = {self.last}")  # an error if it cannot be written
        db.execute("COMMIT")

    def compare(self, salt: str, last: int) -> None:
        """Compare what is remembered with the ledger of *salt*, whose last task is *last*.

        Raises:
            LedgerError: It is another ledger, or one that has lost tasks.
        """
        lock, ledger = self._file.name, zlib.crc32(salt.encode()) >> 1
        if self.last and self._ledger != ledger:
            raise LedgerError(
                f"{lock} is another ledger's: delete it, if this is the right one",
                str(self._path),
            )
        if last < self.last:
            raise LedgerError(
                f"its last task is number {last}, and was {self.last}: it is an old copy, or its "
                "-wal is gone or damaged; put the newest in its place. To submit what is missing "
                f"once more, and maybe pay for it twice, delete {lock}",
                str(self._path),
            )
        self._db.execute(f"PRAGMA application_id = {ledger}")
        self.remember(last)

    def remember(self, last: int) -> None:
        """Remember that the ledger's last task is number *last*."""
        if last < self.last:
            self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA user_version = {last}")
        self._db.execute("PRAGMA synchronous = OFF")
        self.last = last

    def close(self) -> None:
        """Let go of it."""
        self._db.close()


def lock_ledger(path: Path) -> Lock:
    """Keep other processes from running a batch with the ledger at *path*.

    Raises:
        LedgerError: Another one does, or the lock cannot be made.
    """
    file = Path(f"{follow(path)}.lock")
    try:
        db = sqlite3.connect(file, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            return Lock(path, file, db)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        told = f"{file.name}: {explain(error, path).message}"
        if _code(error) == sqlite3.SQLITE_BUSY:
            told = "another batch is running with this ledger, or its disk has no locks"
        if _code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            told = f"{file.name} is no lock ({error}): delete it"
        raise LedgerError(told, str(path)) from error


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
        raise LedgerError(f"SQLite is {sqlite3.sqlite_version}: 3.33 or later is needed")
    file = follow(path)
    size = _size(file)
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
    if application_id != APPLICATION_ID:
        raise LedgerError("the file is a database, but not a ledger", str(path))
    if version > USER_VERSION:
        raise LedgerError(
            f"the ledger's schema is {version}, newer than this release's {USER_VERSION}: "
            "upgrade aireiter-async",
            str(path),
        )
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if pages <= _CHECKED_PAGES:
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise damaged(found.splitlines()[-1], path)
    return False


def _make(db: sqlite3.Connection, salt: str) -> None:
    """Make a ledger, all of it in the file itself: without its -wal it still knows its salt."""
    db.execute("PRAGMA synchronous = FULL")
    db.executescript(
        f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
        f"PRAGMA user_version = {USER_VERSION}"
    )
    db.execute("INSERT INTO batch VALUES (?, ?)", (salt, timestamp()))
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
    db.execute("UPDATE batch SET salt = salt WHERE false")  # an error if it cannot be written
    (salt,) = db.execute("SELECT salt FROM batch").fetchone() or (None,)
    if not isinstance(salt, str):
        raise damaged("it has no salt", path)
    return salt, last_task(db)


def _emptied(path: Path) -> LedgerError:
    return LedgerError(
        "it is empty or cut short, and had tasks: put a copy in its place, or delete it to begin a "
        "new batch",
        str(path),
    )
