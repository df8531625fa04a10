"""The errors of a ledger's file, with advice."""

import sqlite3
from pathlib import Path
from typing import Final

from aireiter_async.errors import LedgerError

ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "another program is writing to it",
    sqlite3.SQLITE_CANTOPEN: "it must be a file, in a directory that exists and is writable",
    sqlite3.SQLITE_CORRUPT: "replace it with an intact copy, with its -wal if it has one",
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_IOERR: "check whether the disk is full or was removed",
    sqlite3.SQLITE_NOTADB: "replace it with the ledger, or choose another file",
    sqlite3.SQLITE_READONLY: "it must be writable, and so must its directory",
}
OLD_FORMAT: Final = (
    "its format is older than this release: it identifies requests by their position in the "
    "input, so resuming it could pay for them again; finish it with the version that created it, "
    "or start a new ledger"
)


def ledger_error(error: BaseException, path: Path) -> LedgerError:
    """Return a `LedgerError` for *error*, with advice."""
    if isinstance(error, sqlite3.Error):
        advice = ADVICE.get(_code(error))
        message = f"{error} (SQLite){f': {advice}' if advice else ''}"
    else:
        message = f"{type(error).__name__}: {error}"
    return LedgerError(message, str(path))


def corrupt_error(reason: object, path: Path) -> LedgerError:
    return LedgerError(f"it is damaged ({reason}): {ADVICE[sqlite3.SQLITE_CORRUPT]}", str(path))


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code, or 0 for an error raised by Python's module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def emptied_error(path: Path) -> LedgerError:
    return LedgerError(
        "it is empty or truncated, and had tasks: restore a copy, or delete it to start over",
        str(path),
    )
