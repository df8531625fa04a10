"""The lock beside a ledger, which detects ledgers that have lost tasks."""

import errno
import os
import sqlite3
import struct
import sys
import time
import zlib
from os.path import samestat
from pathlib import Path
from typing import Final

from aireiter_async._ledger._errors import ADVICE, OLD_FORMAT
from aireiter_async.errors import LedgerError

_LOCK_ATTEMPTS: Final = 5
_LOCK_WAIT: Final = 0.05  # seconds between two attempts
_RECORD: Final = struct.Struct("<4sQQI")  # magic, ledger, last, checksum
_MAGIC: Final = b"ARLK"

if sys.platform == "win32":  # pragma: no cover - msvcrt
    import msvcrt

    def _lock_file(fd: int) -> None:
        os.lseek(fd, 1 << 30, os.SEEK_SET)  # beyond the record: such locks are mandatory
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock_file(fd: int) -> None:
        # Unlike SQLite's own locks, this one survives if the same process opens and closes the
        # file, such as to copy it.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def resolve(path: Path) -> Path:
    """Return the canonical path of a ledger, beside which its lock is."""
    return Path(os.path.realpath(path))


class Lock:
    """The lock beside a ledger, which also remembers the ledger's last task.

    The system releases it when the process ends, however that happens. It is a separate file,
    so that the ledger remains readable. It holds two numbers: an ID of the ledger and its last
    task. They are flushed to disk only when they decrease: after a power cut, they must not
    be ahead of the ledger.

    Attributes:
        last: The number of the last task that the ledger is known to have had.

    Raises:
        LedgerError: Another process holds it, or the file is not a lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = Path(f"{resolve(path)}.lock")
        self.last = 0
        self._ledger = 0
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        try:
            self._fd = os.open(self._file, flags, 0o644)
        except OSError as error:
            advice = ADVICE[sqlite3.SQLITE_READONLY]
            raise LedgerError(
                f"{self._file.name}: {error.strerror}: {advice}", str(path)
            ) from error
        try:
            self._acquire()
        except BaseException:
            os.close(self._fd)
            raise

    def _acquire(self) -> None:
        left = _LOCK_ATTEMPTS
        while True:
            try:
                _lock_file(self._fd)
                break
            except OSError as error:  # a process that is just ending may still hold it
                left -= 1
                if not left:
                    raise LedgerError(
                        "another batch is running with this ledger, or its disk has no locks: wait "
                        "for that batch, or use a local disk",
                        str(self._path),
                    ) from error
                time.sleep(_LOCK_WAIT)
        self.check()
        os.lseek(self._fd, 0, os.SEEK_SET)
        record = os.read(self._fd, _RECORD.size + 1)
        self._ledger, self.last = _read_record(record, self._path)

    def check(self) -> None:
        """Check that a second run would find the lock held.

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
        """Compare the record with the ledger of *salt*, whose last task is *last*.

        Raises:
            LedgerError: It is another ledger, or one that has lost tasks.
        """
        compare_lock((self._ledger, self.last), salt, last, self._path)
        self._ledger = zlib.crc32(salt.encode())
        self.remember(last)

    def remember(self, last: int) -> None:
        """Remember that the ledger's last task is number *last*."""
        record = _RECORD.pack(_MAGIC, self._ledger, last, 0)[:-4]
        os.lseek(self._fd, 0, os.SEEK_SET)
        record += zlib.crc32(record).to_bytes(4, "little")
        if os.write(self._fd, record) < len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if last < self.last:
            os.fsync(self._fd)
        self.last = last

    def close(self) -> None:
        """Release the lock."""
        os.close(self._fd)


def _read_record(record: bytes, path: Path) -> tuple[int, int]:
    """Return the ID of the ledger and its last task from the *record* in the lock of *path*."""
    if not record:
        return 0, 0
    if record.startswith(b"SQLite"):
        raise LedgerError(OLD_FORMAT, str(path))
    try:
        magic, ledger, last, checksum = _RECORD.unpack(record)
    except struct.error:
        magic, ledger, last, checksum = b"", 0, 0, 0
    if magic != _MAGIC or zlib.crc32(record[:-4]) != checksum:
        raise LedgerError(f"{resolve(path).name}.lock is not a lock: delete it", str(path))
    return ledger, last


def compare_lock(remembered: tuple[int, int], salt: str, last: int, path: Path) -> None:
    """Compare a lock's record with the ledger of *salt*, whose last task is *last*."""
    lock = f"{resolve(path).name}.lock"
    ledger, recorded = remembered
    if recorded and ledger != zlib.crc32(salt.encode()):
        raise LedgerError(
            f"{lock} belongs to another ledger: delete it if this ledger is the right one",
            str(path),
        )
    if last < recorded:
        raise LedgerError(
            f"the ledger has tasks up to number {last}, but {recorded} were recorded: it is "
            "an old copy, or its -wal is missing. Restore the newest copy. Deleting "
            f"{lock} overrides this check and may pay for the missing tasks again",
            str(path),
        )


def read_lock(path: Path) -> tuple[int, int]:
    """Return the record in the lock of *path*, without acquiring it; zeros if there is none.

    Raises:
        LedgerError: The file is not a lock.
    """
    try:
        record = Path(f"{resolve(path)}.lock").read_bytes()
    except FileNotFoundError:
        record = b""
    return _read_record(record, path)
