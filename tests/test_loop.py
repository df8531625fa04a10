"""Clients and their event loop: closed while busy, left open, forked, shared by many calls."""

import asyncio
import gc
import logging
import os
import pickle
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from aireiter_async import (
    AmbiguousSubmitError,
    AsyncClient,
    Ledger,
    Output,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
    TaskStatus,
    TransportError,
)
from aireiter_async._client import _shared
from aireiter_async._transport._deadlines import Deadlines
from aireiter_async.testing import FakeService, Fault
from tests.hostile_steps import stepped

Until = Callable[[Callable[[], object]], Awaitable[None]]
Make = Callable[..., AsyncClient]

# Longer than any test may take: a call that waits for it was not ended by closing.
LONG = 3600.0
PATIENT = RetryPolicy(base=LONG * 1000, cap=LONG * 1000, settle=LONG, max_retry_after=LONG * 2)


def request() -> SubmitRequest:
    return SubmitRequest("veo3_1", {"prompt": "a kitten"})


@pytest.fixture(params=["owned", "borrowed"])
async def make(request: pytest.FixtureRequest, service: FakeService) -> AsyncIterator[Make]:
    """Return a function that makes patient clients, with their own or a borrowed session."""
    async with aiohttp.ClientSession() as session:

        def made(**options: Any) -> AsyncClient:
            chosen: dict[str, Any] = {
                "base_url": service.url,
                "retry": PATIENT,
                "polling": PollPolicy(first=LONG, jitter=0),
                "timeout": LONG,
                "session": session if request.param == "borrowed" else None,
            } | options
            return AsyncClient(service.api_key, **chosen)

        yield made


async def close(client: AsyncClient, *tasks: asyncio.Task[Any]) -> list[Any]:
    """Close *client*, and return what each task has returned or raised."""
    assert not any(task.done() for task in tasks)
    async with asyncio.timeout(60):
        await client.close()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    stats = client.stats
    assert (stats.in_flight, stats.waiting) == (0, 0)
    return ends


def start(*calls: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(call) for call in calls]


def closed(error: BaseException) -> bool:
    return type(error) is RuntimeError and "closed" in str(error)


async def test_closing_ends_calls_in_flight(service: FakeService, make: Make, until: Until) -> None:
    """The submit is then ambiguous; the others raise that the client is closed."""
    client = make()
    service.script("submit", Fault.hang(accepted=True))
    service.script("query", Fault.hang(), Fault.hang())
    service.script("balance", Fault.hang())
    wanted = request()
    tasks = start(
        client.submit(wanted),
        client.query("a"),
        client.wait("b"),
        client.balance(),
    )
    await until(lambda: service.in_flight == 4)
    submitted, *others = await close(client, *tasks)
    assert isinstance(submitted, AmbiguousSubmitError)
    assert submitted.out_task_id == wanted.out_task_id
    assert [closed(error) for error in others] == [True] * 3
    assert pickle.loads(pickle.dumps(submitted)).out_task_id == wanted.out_task_id  # noqa: S301


async def test_closing_ends_calls_in_the_queue(
    service: FakeService, make: Make, until: Until
) -> None:
    """They were not sent."""
    client = make(max_concurrency=1)
    service.script("balance", Fault.hang())
    tasks = start(client.balance(), *(client.submit(request()) for _ in range(20)))
    await until(lambda: service.in_flight == 1 and client.stats.waiting == 20)
    ends = await close(client, *tasks)
    assert [closed(error) for error in ends] == [True] * 21
    assert service.counts == {"/api/openapi/balance": 1}


async def test_closing_ends_calls_that_wait_for_the_rate(
    service: FakeService, make: Make, until: Until
) -> None:
    client = make(max_rate=1 / LONG)
    await client.balance()
    tasks = start(*(client.submit(request()) for _ in range(20)))
    await until(lambda: client.stats.waiting == 20)
    for _ in range(5):
        await asyncio.sleep(0)
    assert [closed(error) for error in await close(client, *tasks)] == [True] * 20
    assert service.charges == []


async def test_closing_ends_calls_between_attempts(
    service: FakeService, make: Make, until: Until
) -> None:
    client = make()
    service.script("balance", Fault.server_error())
    service.script("submit", Fault.too_many_requests(LONG))
    tasks = start(client.balance(), client.submit(request()))
    await until(lambda: client.stats.retries == 2)
    assert [closed(error) for error in await close(client, *tasks)] == [True] * 2


async def test_closing_ends_a_submit_that_is_being_settled(
    service: FakeService, make: Make, until: Until
) -> None:
    client = make()
    service.visible_after_polls = 2
    service.script("submit", Fault.lost_response(accepted=True))
    tasks = start(client.submit(request()))
    await until(lambda: service.counts["/api/openapi/query"] == 1 and not service.in_flight)
    [error] = await close(client, *tasks)
    assert isinstance(error, AmbiguousSubmitError)
    assert len(service.charges) == 1


async def test_closing_ends_waits_between_polls(make: Make, until: Until) -> None:
    """Those of a view, too."""
    client = make()
    tasks = start(client.run(request()), client.with_options(timeout=5).run(request()))
    await until(lambda: client.stats.submitted == 2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert [closed(error) for error in await close(client, *tasks)] == [True] * 2


async def test_closing_ends_downloads(
    service: FakeService, make: Make, until: Until, tmp_path: Path
) -> None:
    """Before the first byte or between two: no file is left."""
    client = make(polling=PollPolicy(first=0))
    task = await client.run(request())
    [output] = task.outputs
    service.script("result", Fault.hang(), Fault.drip(8 * LONG))
    tasks = start(
        client.download(task, tmp_path),
        client.download(output, tmp_path),
        client.download(Output(f"{service.results_url}/upload/a/b", "image"), tmp_path),
    )
    await until(lambda: service.counts["/upload"] == 3 and client.stats.retries == 1)
    ends = await close(client, *tasks)
    assert [closed(error) for error in ends] == [True] * 3
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a coroutine function


async def test_closing_ends_last_attempts(
    service: FakeService, make: Make, until: Until, tmp_path: Path
) -> None:
    client = make(retry=RetryPolicy(attempts=1), polling=PollPolicy(first=0))
    task = await client.run(request())
    service.script("result", Fault.hang(), Fault.drip(8 * LONG))
    service.script("query", Fault.hang(), Fault.hang())
    service.script("balance", Fault.hang())
    tasks = start(
        client.balance(),
        client.query("a"),
        client.wait("b", timeout=0),
        *(client.download(task, tmp_path, name=name) for name in "cd"),
    )
    await until(lambda: service.in_flight == 3 and service.counts["/upload"] == 2)
    assert [closed(error) for error in await close(client, *tasks)] == [True] * 5
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a coroutine function


async def test_closing_ends_a_batch(
    service: FakeService, make: Make, until: Until, tmp_path: Path
) -> None:
    """Another client resumes it: each task is paid for once."""
    requests = [SubmitRequest("veo3_1", {"n": n}) for n in range(40)]
    client = make(max_concurrency=4, timeout=0.5)
    service.script("submit", Fault.ok(), Fault.hang(accepted=True))
    service.durations = LONG

    async def consume(client: AsyncClient) -> list[Any]:
        async with Ledger(tmp_path / "run.db") as ledger:
            return [each async for each in client.run_many(requests, ledger=ledger)]

    [task] = start(consume(client))
    await until(lambda: len(service.charges) > 8)
    [error] = await close(client, task)
    assert closed(error)
    service.durations = 0.0
    again = make(polling=PollPolicy(first=0), retry=RetryPolicy(base=0, settle=0))
    for task_kept in service.tasks.values():
        task_kept.duration = 0
    outcomes = await consume(again)
    await again.close()
    assert [outcome.error for outcome in outcomes] == [None] * 40
    assert len(service.charges) == len(service.tasks) == 40


async def test_closing_from_within(service: FakeService, make: Make) -> None:
    """A callback may close the client: the call that made it raises that."""
    client = make(polling=PollPolicy(first=0))
    with pytest.raises(RuntimeError, match="closed"):
        await client.run(request(), on_update=lambda _task: client.close())
    assert len(service.charges) == 1


async def test_closing_while_connecting(make: Make, listen: Callable[..., Awaitable[str]]) -> None:
    """A handshake without an answer is abandoned."""
    silent = await listen(lambda _: None)
    client = make(base_url=silent.replace("http", "https"), connect_timeout=LONG)
    tasks = start(client.balance(), client.submit(request()))
    for _ in range(50):
        await asyncio.sleep(0)
    balance, submit = await close(client, *tasks)
    assert closed(balance)
    assert isinstance(submit, AmbiguousSubmitError | RuntimeError)


async def test_an_unclosed_client_warns_once(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that is dropped with open connections warns once, at once, and closes them."""
    client = AsyncClient(service.api_key, base_url=service.url)
    await asyncio.gather(*(client.balance() for _ in range(3)))
    service.script("balance", Fault.server_error(), Fault.server_error())
    await client.with_options(retry=RetryPolicy(base=0)).balance()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client
        told_at_once = len(caught)
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
    assert [str(each.message)[:21] for each in caught] == ["unclosed AsyncClient:"]
    assert told_at_once == 1
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_a_client_dropped_after_its_loop_warns_once(caplog: pytest.LogCaptureFixture) -> None:

    async def main() -> AsyncClient:
        async with FakeService() as service:
            client = AsyncClient(service.api_key, base_url=service.url)
            await client.balance()
            return client

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client = asyncio.run(main())
        del client
        gc.collect()
    assert [str(each.message)[:21] for each in caught if "nclosed" in str(each.message)] == [
        "unclosed AsyncClient:"
    ]
    assert caplog.records == []


@pytest.mark.parametrize("turns", [False, True], ids=["closes next", "runs again"])
@pytest.mark.parametrize("views", [0, 2])
def test_a_client_dropped_while_its_loop_is_stopped_warns_once(
    caplog: pytest.LogCaptureFixture, views: int, *, turns: bool
) -> None:
    loop = asyncio.new_event_loop()
    service = FakeService()
    loop.run_until_complete(service.start())
    clients = [AsyncClient(service.api_key, base_url=service.url)]
    clients += [clients[0].with_options(timeout=1 + n) for n in range(views)]
    for client in clients:
        loop.run_until_complete(client.balance())
    raised: list[Any] = []
    with warnings.catch_warnings(record=True) as caught, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", raised.append)
        warnings.simplefilter("always")
        del client
        clients.clear()
        gc.collect()
        assert [str(each.message)[:21] for each in caught] == ["unclosed AsyncClient:"]
        if turns:
            loop.run_until_complete(asyncio.sleep(0))
            assert service.connections == 0
        loop.run_until_complete(service.close())
        loop.close()
        gc.collect()
    assert len(caught) == 1
    assert raised == []
    assert caplog.records == []


class Keeping(asyncio.Protocol):
    """A server that answers every request alike, and keeps its connections."""

    BODY = b'{"statusCode":200,"data":{"status":"pending","credits":2.5}}'

    def __init__(self, connections: list[object]) -> None:
        connections.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if b"GET " in data or data.endswith(b"}"):  # pragma: no branch - the body may come apart
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.BODY)
            self._transport.write(head + self.BODY)


def in_child(act: Callable[[], str]) -> str:
    """Return what *act* returns in a forked process."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there may be other threads
        child = os.fork()
    if child == 0:  # pragma: no cover - another process
        said = "nothing"
        try:
            said = act()
        except BaseException as error:  # noqa: BLE001 - it is told
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize("closed", [False, True], ids=["forgotten", "closed"])
async def test_a_forked_client_closes_its_copies_only(
    service: FakeService, until: Until, *, closed: bool
) -> None:
    """In another process (played by this one) a client is rejected, and closes descriptors only."""
    client = AsyncClient(service.api_key, base_url=service.url)
    await client.balance()
    transport = client._shared.transport
    session = transport.open()
    connector: Any = session.connector
    await client.submit(request())
    sockets = list(connector._sockets)
    transport.close_idle()
    await until(lambda: service.connections == 1)  # one socket is closed, and still known
    transport._process = -1
    with pytest.raises(RuntimeError, match="before a fork"):
        await client.balance()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if closed:
            await client.close()
            await client.close()
        del client, transport
    assert [each.category for each in caught] == ([] if closed else [ResourceWarning])
    assert connector.closed
    await until(lambda: service.connections == 0)
    assert {each.fileno() for each in sockets} == {-1}


async def test_closing_deadlines_twice_ends_a_block_once() -> None:
    """A block that is ended by `close` raises our error, not a cancellation."""
    deadlines = Deadlines(LONG)

    async def block() -> None:
        with deadlines:
            await asyncio.sleep(LONG)

    [task] = start(block())
    await asyncio.sleep(0)
    deadlines.close()
    deadlines.close()
    with pytest.raises(TransportError, match="closed"):
        await task
    assert task.cancelling() == 0


async def test_a_sleep_ends_with_its_waker() -> None:
    clock = _shared.Clock()
    waker: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    [task] = start(clock.sleep(LONG, waker))
    await asyncio.sleep(0)
    waker.set_result(True)
    await task


async def test_a_sleep_that_is_over_is_not_ended_again() -> None:
    """A sleep that was cancelled just before its client closes stays cancelled."""
    clock = _shared.Clock()
    [task] = start(clock.sleep(LONG))
    await asyncio.sleep(0)
    task.cancel()
    clock.close()
    await asyncio.wait([task])
    assert task.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        await clock.sleep(LONG)
    over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    over.cancel()
    _shared._wake(over)
    assert over.cancelled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("another", [False, True], ids=["same loop", "another loop"])
def test_a_client_does_not_survive_a_fork(*, another: bool) -> None:
    """In a forked process a client raises, closing it is harmless, and the parent continues."""
    loop = asyncio.new_event_loop()
    service = FakeService()
    loop.run_until_complete(service.start())
    client = AsyncClient(service.api_key, base_url=service.url)
    assert loop.run_until_complete(client.balance()).credits == 1_000_000

    def use() -> str:  # pragma: no cover - another process
        running = asyncio.new_event_loop() if another else loop
        try:
            running.run_until_complete(client.balance())
        except RuntimeError as error:
            running.run_until_complete(client.close())
            return str(error)
        return "it worked"

    assert in_child(use) == "this AsyncClient was used before a fork: create one per process"
    assert loop.run_until_complete(client.balance()).credits == 1_000_000
    assert service.peak_connections == 1
    loop.run_until_complete(client.close())
    loop.run_until_complete(service.close())
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_forked_child_that_drops_its_client_leaves_the_parent_alone(*, secure: bool) -> None:
    loop = asyncio.new_event_loop()
    authority, heard = trustme.CA(), list[object]()
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    server = loop.run_until_complete(
        loop.create_server(lambda: Keeping(heard), "127.0.0.1", 0, ssl=theirs if secure else None)
    )
    port = server.sockets[0].getsockname()[1]
    clients = [
        AsyncClient(
            "sk-test-0a1b2c3d",
            base_url=f"http{'s' if secure else ''}://127.0.0.1:{port}",
            ssl=ours,
            timeout=10,
        )
    ]

    def forget() -> str:  # pragma: no cover - another process
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            clients.clear()
            gc.collect()
        return "forgotten"

    made = 0
    for _ in range(2):
        submitted = clients[0].submit(request())
        assert loop.run_until_complete(submitted).status is TaskStatus.PENDING
        assert loop.run_until_complete(clients[0].balance()).credits == 2.5
        made = made or len(heard)
        assert in_child(forget) == "forgotten"
    assert len(heard) == made  # the parent's connections are as they were
    loop.run_until_complete(clients[0].close())
    server.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.mark.parametrize("verb", ["run", "download"])
async def test_the_loop_stays_free(tmp_path: Path, verb: str) -> None:
    """With a thousand in flight no step of ours holds the loop: by its CPU time, not the clock."""
    steps: list[float] = []
    began = 0.0

    def on_resume() -> None:
        nonlocal began
        began = time.thread_time()

    def call() -> Coroutine[Any, Any, object]:
        ours = client.run(request()) if verb == "run" else client.download(done, tmp_path)
        return stepped(ours, lambda _: steps.append(time.thread_time() - began), on_resume)

    async with (
        FakeService(record=False) as service,
        AsyncClient(
            service.api_key,
            base_url=service.url,
            max_concurrency=1000,
            polling=PollPolicy(first=0, step=0, cap=0),
        ) as client,
    ):
        done = await client.run(request())  # what is made once is made
        gc.collect()
        gc.disable()  # it would look at everything that the tests before have left
        try:
            await asyncio.gather(*(call() for _ in range(1000)))
        finally:
            gc.enable()
    assert len(steps) > 1000
    assert max(steps) < 0.02, max(steps)


async def test_the_loop_turns_between_responses(service: FakeService) -> None:
    """Other tasks get their turn while a thousand calls are served."""
    service.record = False
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with AsyncClient(service.api_key, base_url=service.url, max_concurrency=100) as client:
        counting = asyncio.create_task(count())
        await asyncio.gather(*(client.submit(request()) for _ in range(1000)))
        counting.cancel()
        await asyncio.wait([counting])
    assert turns > 20
