"""The doctor's checks of this machine: versions, the results' directory, ledgers.

A check returns a `Check`, a value; ``_command`` renders them.
"""

import asyncio
import errno
import importlib.metadata
import os
import platform
import re
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final, Literal, Protocol, TypeAlias, TypeVar

from attrs import frozen

from aireiter_async import LedgerError, __version__
from aireiter_async.cli._display import plural
from aireiter_async.cli._errors import FREE_SPACE, NO_SPACE, advice, summarize

T = TypeVar("T")
State: TypeAlias = Literal["ok", "warning", "error", "skipped"]

_PACKAGE: Final = "aireiter-async"
_REQUIRED: Final = ("aiohttp", "attrs", "backoff", "cattrs", "cyclopts", "rich")
_OPTIONAL: Final = ("Pillow", "pillow-heif", "asyncpg", "uvloop")
_AT_LEAST: Final = re.compile(r"([\w.-]+)>=([\d.]+)")
_BLOCK: Final = bytes(64 * 1024)
_LOW: Final = 100_000_000  # bytes
_MAX_LEDGERS: Final = 20
# SQLite's application ID of a ledger, "ARLG", at its place in the header of a database.
_APPLICATION_ID: Final = slice(68, 72)


@frozen(kw_only=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was checked.
        state: ``skipped`` if it depends on one that failed.
        text: What was found.
        advice: What to do about it.
        source: Where a setting comes from: an option, a variable, or "default".
    """

    name: str
    state: State = "ok"
    text: str
    advice: str = ""
    source: str = ""


def skip(name: str, cause: str) -> Check:
    """Return the check *name*, which could not be made because *cause* failed."""
    return Check(name=name, state="skipped", text=f"skipped: depends on {cause}")


class Problem(Exception):  # noqa: N818 - an outcome of a check, not a fault of it
    """A problem that a check has found."""

    def __init__(self, text: str, advice: str = "", state: State = "error") -> None:
        super().__init__(text)
        self.text = text
        self.advice = advice
        self.state: State = state


async def in_thread(function: Callable[[], T], seconds: float) -> T:
    """Run what may block for any time, such as DNS or a network drive, for at most *seconds*.

    A thread that is still blocked then is left behind: unlike an executor's, it does not keep
    the program from ending.

    Raises:
        TimeoutError: It took longer.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: Any, error: Exception | None) -> None:
        if not future.done():
            future.set_result(value) if error is None else future.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = function()
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            failure = error
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(settle, value, failure)

    Thread(target=work, name="aireiter-doctor", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await future


def check_versions(
    version: Callable[[str], str] = importlib.metadata.version,
    requires: Callable[[str], list[str] | None] = importlib.metadata.requires,
) -> list[Check]:
    """Check the versions of Python and of the packages.

    Args:
        version: Returns the version of an installed package.
        requires: Returns the requirements of an installed package.
    """
    system = f"{platform.system()} {platform.machine()}"
    python = f"{platform.python_version()} on {system}, {ssl.OPENSSL_VERSION}"
    first = _check_python(python)
    found: dict[str, str] = {}
    for name in (*_REQUIRED, *_OPTIONAL):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = version(name)
    listed = ", ".join(f"{name} {number}" for name, number in found.items())
    text = f"{_PACKAGE} {__version__}, {listed}"
    minimums = _minimums(requires)
    old = [f"{name}>={least}" for name, least in minimums if _older(found.get(name), least)]
    if old:
        wanted = " ".join(f'"{each}"' for each in old)
        return [
            first,
            Check(name="packages", state="error", text=text, advice=f"pip install {wanted}"),
        ]
    return [first, Check(name="packages", text=text)]


def _check_python(text: str) -> Check:
    try:
        import sqlite3  # noqa: PLC0415 - a Python may have been built without it
    except ModuleNotFoundError as error:  # pragma: no cover - in another process
        hint = advice(error)
        return Check(name="Python", state="warning", text=f"{text}, no SQLite", advice=hint)
    return Check(name="Python", text=f"{text}, SQLite {sqlite3.sqlite_version}")


def _minimums(requires: Callable[[str], list[str] | None]) -> Iterator[tuple[str, str]]:
    """Yield the names and lowest versions of the packages that are needed here."""
    with suppress(importlib.metadata.PackageNotFoundError):  # run from a copy of its source
        matches = map(_AT_LEAST.match, requires(_PACKAGE) or ())
        yield from ((each[1], each[2]) for each in matches if each and each[1] in _REQUIRED)


def _older(version: str | None, least: str) -> bool:
    """Return whether *version* is lower than *least*; False for an unknown one."""
    return version is not None and _numbers(version) < _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


class Usage(Protocol):
    """What ``shutil.disk_usage`` returns."""

    @property
    def free(self) -> int:
        """Free bytes."""
        ...


def _temporary_file(directory: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=directory, buffering=0)


@frozen(kw_only=True)
class Disk:
    """Access to a disk; tests replace it with a full one.

    Attributes:
        create: Creates a temporary file in a directory.
        usage: Returns the usage of the disk that a directory is on.
    """

    create: Callable[[Path], IO[bytes]] = _temporary_file
    usage: Callable[[Path], Usage] = shutil.disk_usage


def check_directory(directory: Path | None, disk: Disk) -> Check:
    """Check that results can be saved; blocks.

    Args:
        directory: The directory; None: the current one.
        disk: The disk it is on.
    """
    source = "default" if directory is None else "--download"
    path = Path(directory or "").absolute()
    place = next(each for each in (path, *path.parents) if each.exists())
    check = partial(Check, name="results", source=source)
    try:
        with disk.create(place) as file:
            if file.write(_BLOCK) < len(_BLOCK):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 - a short write
            os.fsync(file.fileno())
        free = disk.usage(place).free
    except OSError as error:
        what = f"{place} cannot be written: {error.strerror or error}"
        hint = FREE_SPACE if error.errno in NO_SPACE else "save elsewhere with --download DIR"
        return check(state="error", text=what, advice=hint)
    new = "" if place == path else ", and will be created"
    text = f"{path} is writable{new}, {_size(free)} free"
    if free < _LOW:
        return check(state="warning", text=text, advice=FREE_SPACE)
    return check(text=text)


def _size(count: int) -> str:
    """Format a number of bytes, as disks are labelled."""
    value = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1000:  # noqa: PLR2004 - the next unit
            return f"{value:,.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def find_ledgers(directory: Path | None) -> list[Path]:
    """Return the ledgers in the current directory and in *directory*; blocks."""
    places = {Path().absolute(), Path(directory or "").absolute()}
    files = sorted(file for place in places if place.is_dir() for file in place.glob("*.db"))
    return [file for file in files if _is_ledger(file)][:_MAX_LEDGERS]


def _is_ledger(file: Path) -> bool:
    if not file.is_file():  # reading a pipe would block
        return False
    if file.with_name(f"{file.name}.lock").is_file():  # also if its header is damaged
        return True
    try:
        with file.open("rb") as opened:
            return opened.read(_APPLICATION_ID.stop)[_APPLICATION_ID] == b"ARLG"
    except OSError:
        return False


def check_ledger(path: Path, source: str, seconds: float) -> Check:
    """Check one ledger, without changing it or disturbing a batch that uses it; blocks.

    Args:
        path: The ledger.
        source: Where its path comes from.
        seconds: The longest time the check may take.
    """
    check = partial(Check, name="ledger", source=source)
    try:
        from aireiter_async._ledger import verify  # noqa: PLC0415 - needs SQLite
    except ModuleNotFoundError as error:  # pragma: no cover - in another process
        text = f"{path} cannot be checked: {summarize(error)}"
        return check(state="error", text=text, advice=advice(error))
    if not path.exists():
        text = f"{path} does not exist"
        return check(state="warning", text=text, advice="check the path: a batch would create it")
    try:
        counts = verify(path, seconds)
    except LedgerError as error:
        return check(state="error", text=summarize(error), advice=advice(error))
    if counts is None:
        text = f"{path} is too large to check in {seconds:g} s"
        hint = f'check it with: sqlite3 {path.name} "PRAGMA integrity_check"'
        return check(state="warning", text=text, advice=hint)
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    tasks = plural(sum(counts.values()), "task")
    return check(text=f"{path} is intact: {tasks}{f' ({states})' if states else ''}")
