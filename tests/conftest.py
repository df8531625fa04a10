"""Shared fixtures: a service, checked clients, a clock that only sleeping moves."""

import asyncio
import contextlib
import faulthandler
import functools
import gc
import inspect
import logging
import os
import pickle
import signal
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from aireiter_async import AireiterError, AsyncClient, Balance, PollPolicy, RetryPolicy, Task
from aireiter_async._transport import _leases
from aireiter_async.cli import main
from aireiter_async.testing import FakeService
from tests.command import KEY, Ran, serving
from tests.hostile_time import ClientClock, Clock

QUICK = RetryPolicy(base=0, settle=0)
LONGEST = 120.0  # seconds that one test may take
AT_ONCE = PollPolicy(first=0, step=0, cap=0, grace=0)

Answer = Callable[[bytes], bytes | tuple[bytes, ...]]

# The default run is quick and repeatable; `nox -s soak` looks further.
ANY_PACE = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("quick", ANY_PACE, max_examples=80, derandomize=True)
hypothesis.settings.register_profile("soak", ANY_PACE, max_examples=1000)
hypothesis.settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WATCHDOG] = Watchdog()
    # A shell has what it runs in the background ignore SIGINT, which some tests send.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    # Tests that wait for a disk, a timer or another program leave room for one more than cores.
    return (os.cpu_count() or 1) + 1


def pytest_unconfigure() -> None:
    faulthandler.cancel_dump_traceback_later()


def pytest_collection_finish() -> None:
    # The thousands of collected tests stay; no garbage collection need look at them again.
    gc.collect()
    gc.freeze()


def search(error: BaseException, key: str) -> list[str]:
    """Return each line of an error's tracebacks, texts and pickles that contains *key*."""
    formatted = traceback.TracebackException.from_exception(error, capture_locals=True)
    lines = "".join(formatted.format()).splitlines()
    chain: BaseException | None = error
    while chain is not None:
        lines += [repr(chain), str(chain)]
        if isinstance(chain, AireiterError):
            lines.append(repr(pickle.dumps(chain)))
        chain = chain.__cause__ or chain.__context__
    return [line for line in lines if key in line]


def check_error(error: BaseException, key: str) -> None:
    """Fail unless an error is the package's or a plain Python one, and does not show the key."""
    plain = ValueError | TypeError | RuntimeError | OSError | asyncio.CancelledError
    assert isinstance(error, AireiterError | plain)
    assert not type(error).__module__.startswith("aiohttp")
    assert search(error, key) == []


@contextlib.contextmanager
def checking(key: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        check_error(error, key)
        raise


class CheckedClient(AsyncClient):
    """A client that checks each error it raises."""

    async def submit(self, *args: Any, **options: Any) -> Task:
        with checking(self._settings.api_key):
            return await super().submit(*args, **options)

    async def query(self, *args: Any, **options: Any) -> Task:
        with checking(self._settings.api_key):
            return await super().query(*args, **options)

    async def wait(self, *args: Any, **options: Any) -> Task:
        with checking(self._settings.api_key):
            return await super().wait(*args, **options)

    async def run(self, *args: Any, **options: Any) -> Task:
        with checking(self._settings.api_key):
            return await super().run(*args, **options)

    async def balance(self) -> Balance:
        with checking(self._settings.api_key):
            return await super().balance()

    async def download(self, *args: Any, **options: Any) -> Any:
        with checking(self._settings.api_key):
            return await super().download(*args, **options)


class Watchdog:
    """Ends the run, and says where it was, if a test hangs.

    Arming it starts a thread, which takes longer than many a test: that is done every few seconds.
    """

    def __init__(self) -> None:
        self._armed = (0.0, 0.0)

    def watch(self, longest: float, stderr: int) -> None:
        now = time.monotonic()
        seconds, since = self._armed
        if seconds != longest or now - since > longest / 10:
            faulthandler.dump_traceback_later(longest, exit=True, file=stderr)
            self._armed = longest, now


WATCHDOG = pytest.StashKey[Watchdog]()


@pytest.fixture(autouse=True)
def _calm(request: pytest.FixtureRequest) -> None:
    soak = request.node.get_closest_marker("soak")
    stash = request.config.stash
    stash[WATCHDOG].watch(10 * LONGEST if soak else LONGEST, stash[fault_handler_stderr_fd_key])
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("no_task_left")


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fail a coroutine test that leaves tasks behind or errors that only the loop has seen."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, error: complaints.append(error))
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert complaints == []


@pytest.fixture(params=["short", "session"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test over both paths of the transport; without it, POSTs take the short one."""
    return take_path(request.param, monkeypatch)


@pytest.fixture(params=["short", pytest.param("session", marks=pytest.mark.soak)])
def path_in_soak(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test over the short path, and in the soak session over both."""
    return take_path(request.param, monkeypatch)


def take_path(path: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make POSTs take *path*: for "session", the self-check of the short path fails."""
    if path == "session":

        async def fail(_limits: object) -> bool:
            return False

        monkeypatch.setattr(_leases, "_is_supported", fail)
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slept(clock: Clock) -> list[float]:
    """Return how long the clients have slept, in seconds: between polls and for their rate."""
    return clock.slept


@pytest.fixture
async def service(clock: Clock) -> AsyncIterator[FakeService]:
    """Run a service without faults; tests may assign to its options."""
    async with FakeService(clock=clock) as service:
        yield service


@pytest.fixture
async def connect(
    service: FakeService, clock: Clock, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Callable[..., AsyncClient]]:
    """Return a function that makes clients, which must be idle in the end; no log holds a key."""
    caplog.set_level(logging.DEBUG)
    clients: list[AsyncClient] = []

    class Client(CheckedClient):
        @staticmethod
        def _new_clock() -> ClientClock:
            return ClientClock(clock)

    def make(**options: Any) -> AsyncClient:
        options = {
            "api_key": service.api_key,
            "base_url": service.url,
            "retry": QUICK,
            "polling": AT_ONCE,
            "timeout": 30,
        } | options
        client = Client(options.pop("api_key"), **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        stats = client.stats
        await client.close()
        assert (stats.in_flight, stats.waiting) == (0, 0)
        key = str(client._settings.api_key)
        # Other keys are words that belong there.
        assert not key.startswith("sk-") or key not in f"{caplog.text} {client!r} {stats!r}"


@pytest.fixture
async def client(connect: Callable[..., AsyncClient]) -> AsyncClient:
    return connect()


@pytest.fixture
def find_key() -> Callable[[BaseException, str], list[str]]:
    return search


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Return a function that lets the loop run until a condition holds."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - any condition, of either side of a socket
                await asyncio.sleep(0)

    return wait


class Raw(asyncio.Protocol):
    """A server that reads a request, or its beginning, and answers with arbitrary bytes.

    Pieces are sent separately; after an empty piece the connection stays open.
    """

    def __init__(self, answer: Answer, *, eager: bool) -> None:
        self._answer = answer
        self._eager = eager
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, _, body = self._seen.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")),
            0,
        )
        complete = b"\r\n\r\n" in self._seen and len(body) >= length
        if not complete and not self._eager:
            return
        answer = self._answer(self._seen)
        self._send(answer if isinstance(answer, tuple) else (answer,))

    def _send(self, pieces: tuple[bytes, ...]) -> None:
        self._transport.write(pieces[0])
        if pieces[1:] == (b"",):
            return
        if pieces[1:]:
            # Later, so that the client reads them separately.
            asyncio.get_running_loop().call_later(0.01, self._send, pieces[1:])
        else:
            self._transport.close()


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Return a function that starts a `Raw` server, with TLS if given a context: its URL."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            answer: Answer, tls: ssl.SSLContext | None = None, *, eager: bool = False
        ) -> str:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(
                lambda: Raw(answer, eager=eager), "127.0.0.1", 0, ssl=tls
            )
            stack.callback(server.close)
            port: int = server.sockets[0].getsockname()[1]
            return f"http{'s' if tls else ''}://127.0.0.1:{port}"

        yield start


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """Run a service that the environment points to, with a stopped clock, in an empty directory."""
    with serving(FakeService(clock=Clock())) as service:
        monkeypatch.setenv("AIREITER_API_KEY", KEY)
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        monkeypatch.chdir(tmp_path)
        yield service


@pytest.fixture
def aireiter(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Return a function that runs the command in this process and polls without waiting."""
    polling = PollPolicy(first=0, step=0.001, cap=0.001)
    quick = functools.partial(AsyncClient, polling=polling, retry=QUICK)
    monkeypatch.setattr("aireiter_async.cli._options.AsyncClient", quick)

    def aireiter(*argv: str) -> Ran:
        return Ran(main(argv), *capsys.readouterr())

    return aireiter
