"""The doctor's checks of this machine: versions, settings, the results' directory, ledgers.

A check returns a `Check`, a value; ``_doctor`` renders them.
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
from typing import IO, Any, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from attrs import field, frozen

from aireiter_async import LedgerError, __version__
from aireiter_async._client._settings import (
    DEFAULT_BASE_URL,
    read_base_url,
    read_key,
    read_user_agent,
)
from aireiter_async._transport import Proxy, find_proxy, is_loopback
from aireiter_async.cli._display import plural
from aireiter_async.cli._errors import advice, summarize, with_options
from aireiter_async.cli._options import Connection

T = TypeVar("T")
State: TypeAlias = Literal["ok", "warning", "error", "skipped"]

_PACKAGE: Final = "aireiter-async"
_REQUIRED: Final = ("aiohttp", "attrs", "backoff", "cattrs", "cyclopts", "rich")
_OPTIONAL: Final = ("Pillow", "pillow-heif", "asyncpg", "uvloop")
_AT_LEAST: Final = re.compile(r"([\w.-]+)>=([\d.]+)")
PORTS: Final = {"http": 80, "https": 443}
_BLOCK: Final = bytes(64 * 1024)
_LOW: Final = 100_000_000  # bytes
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
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


class Problem(Exception):  # noqa: N818 - an outcome of a check, not a fault of it
    """What a check found to be wrong."""

    def __init__(self, text: str, advice: str = "", state: State = "error") -> None:
        super().__init__(text)
        self.text = text
        self.advice = advice
        self.state: State = state


@frozen(kw_only=True)
class Setup:
    """The settings as every command would use them; None where one is missing or invalid.

    Attributes:
        checks: One per setting.
        base_url: The service.
        api_key: The key.
        user_agent: The User-Agent.
        proxy: The proxy for the service, if any.
        usable: Whether the service can be reached with them.
    """

    checks: tuple[Check, ...]
    base_url: str | None
    api_key: str | None = field(repr=False)
    user_agent: str | None
    proxy: Proxy | None

    @property
    def usable(self) -> bool:
        names = {"base URL", "User-Agent", "proxy"}
        return not any(each.name in names and each.state == "error" for each in self.checks)


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


def check_versions(version: Callable[[str], str] = importlib.metadata.version) -> list[Check]:
    """Check the versions of Python and of the packages.

    Args:
        version: Returns the version of an installed package.
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
    old = [f"{name}>={least}" for name, least in _minimums() if _older(found.get(name), least)]
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


def _minimums() -> Iterator[tuple[str, str]]:
    """Yield the names and lowest versions of the packages that are needed here."""
    with suppress(importlib.metadata.PackageNotFoundError):  # run from a copy of its source
        matches = map(_AT_LEAST.match, importlib.metadata.requires(_PACKAGE) or ())
        yield from ((each[1], each[2]) for each in matches if each and each[1] in _REQUIRED)


def _older(version: str | None, least: str) -> bool:
    """Return whether *version* is lower than *least*; False for an unknown one."""
    return version is not None and _numbers(version) < _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


class _Setting(NamedTuple):
    """One setting: its check, and its value if it is valid."""

    check: Check
    value: Any = None


def read_setup(connection: Connection) -> Setup:
    """Read the settings as the client does, each by itself."""
    base_url = _base_url(connection)
    key = _key(connection)
    user_agent = _read(
        "User-Agent",
        "--user-agent" if connection.user_agent is not None else "default",
        partial(read_user_agent, connection.user_agent),
        str,
    )
    proxy = _proxy(connection, base_url.value)
    return Setup(
        checks=(base_url.check, key.check, user_agent.check, proxy.check),
        base_url=base_url.value,
        api_key=key.value,
        user_agent=user_agent.value,
        proxy=proxy.value,
    )


def _base_url(connection: Connection) -> _Setting:
    variable = "AIREITER_BASE_URL"
    source = _source("--base-url", connection.base_url, variable, required=False)
    given = os.environ.get(variable) if connection.base_url is None else connection.base_url
    try:
        host = urlsplit(given or DEFAULT_BASE_URL).hostname
    except ValueError:
        host = None
    if not host:  # not shown: it may well be the key, in the wrong place
        text = f"{source} must be an absolute URL such as {DEFAULT_BASE_URL}"
        return _Setting(Check(name="base URL", state="error", text=text, source=source))
    read = partial(read_base_url, connection.base_url, allow_http=connection.allow_http)
    return _read("base URL", source, read, str)


def _key(connection: Connection) -> _Setting:
    variable = "AIREITER_API_KEY"
    source = _source("--api-key", connection.api_key, variable, required=True)
    return _read("API key", source, partial(read_key, connection.api_key), lambda _: "set")


def _source(option: str, given: str | None, variable: str, *, required: bool) -> str:
    present = variable in os.environ if required else bool(os.environ.get(variable))
    if given is not None:
        return f"{option}, not {variable}" if present else option
    if present:
        return variable
    return "" if required else "default"


def _read(name: str, source: str, read: Callable[[], Any], show: Callable[[Any], str]) -> _Setting:
    try:
        value = read()
    except ValueError as error:
        text = with_options(str(error))
        if source.isupper():  # a variable, which the library's message does not name
            text = text.replace("--api-key", source).replace("--base-url", source)
        what, _, hint = text.partition(": ")
        return _Setting(Check(name=name, state="error", text=what, advice=hint, source=source))
    return _Setting(Check(name=name, text=show(value), source=source), value)


def _proxy(connection: Connection, base_url: str | None) -> _Setting:
    url = base_url or DEFAULT_BASE_URL
    parts = urlsplit(url)
    scheme, host = parts.scheme, parts.hostname or ""
    given = connection.proxy
    names = [f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    present = [name for name in names if os.environ.get(name)]
    if given is not None:
        source = f"--proxy, not {present[0]}" if present else "--proxy"
        show = partial(_shown_proxy)
        return _read("proxy", source, partial(find_proxy, url, given), show)
    proxy = find_proxy(url, None)
    if proxy is not None:
        source = present[0] if present else "the system's settings"
        return _Setting(Check(name="proxy", text=_shown_proxy(proxy), source=source), proxy)
    if not present:
        return _Setting(Check(name="proxy", text="none", source="default"))
    port = parts.port or PORTS[scheme]
    if is_loopback(host):
        text = f"none: {present[0]} does not apply to this machine"
    elif proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        text = f"none: NO_PROXY excludes {host} from {present[0]}"
    else:
        text = f"none: {present[0]} is ignored, because it is not an http or https URL"
        hint = f"set {present[0]} to an http:// or https:// URL; SOCKS is not supported"
        check = Check(name="proxy", state="warning", text=text, advice=hint, source=present[0])
        return _Setting(check)
    return _Setting(Check(name="proxy", text=text, source=present[0]))


def _shown_proxy(proxy: Proxy) -> str:
    return f"{proxy.url} with a user name" if proxy.headers else proxy.url


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
    """Access to a disk: tests replace it by a full one.

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
        full = error.errno in _NO_SPACE
        hint = "free some space, or save" if full else "save"
        return check(state="error", text=what, advice=f"{hint} elsewhere with --download DIR")
    new = "" if place == path else ", and will be created"
    text = f"{path} is writable{new}, {_size(free)} free"
    if free < _LOW:
        hint = "free some space, or save elsewhere with --download DIR"
        return check(state="warning", text=text, advice=hint)
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
