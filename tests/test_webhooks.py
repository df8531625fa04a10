"""Callbacks: hints that end a wait early, and that may be forged, lost, repeated or early."""

import asyncio
import contextlib
import gzip
import itertools
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from aireiter_async import (
    AsyncClient,
    Ledger,
    PollPolicy,
    SQLiteStore,
    SubmitRequest,
    Task,
    TaskTimeoutError,
)
from aireiter_async._client import _shared, api_of
from aireiter_async.testing import FakeService, Fault
from aireiter_async.webhooks import Receiver, find_ids
from tests.hostile_time import Clock

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]
Serve = Callable[[Receiver], Awaitable[str]]

QUERY = "/api/openapi/query"
SECRET = "s3cret-0123456789"
LARGEST = 64 * 1024
NEVER = PollPolicy(first=3600, jitter=0)


def request(url: str | None = None, out_task_id: str | None = None) -> SubmitRequest:
    return SubmitRequest("seedream_v5", {"prompt": "a heron"}, out_task_id, url)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return what serves a receiver's aiohttp handler, and gives the URL to be given to it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(receiver: Receiver) -> str:
            app = web.Application()
            app.router.add_route("*", "/hooks/{secret}", receiver.aiohttp)
            runner = web.AppRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"

        yield start


async def post(url: str, body: bytes = b"", **options: Any) -> int:
    return (await ask("POST", url, body, **options))[0]


async def ask(method: str, url: str, body: bytes = b"", **options: Any) -> tuple[int, str | None]:
    """Return the status of a response, and the methods that it allows."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=body, **options) as response,
    ):
        assert await response.read() == b""
        return response.status, response.headers.get("Allow")


async def call(
    receiver: Receiver,
    *messages: dict[str, Any],
    path: str = f"/{SECRET}",
    method: str = "POST",
    query: str = "",
    kind: str = "http",
) -> list[Any]:
    """Call the ASGI application, and return what it sends."""
    sent: list[Any] = []
    upcoming = iter(messages)

    async def receive() -> Any:
        return next(upcoming)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "method": method, "query_string": query.encode()}
    await receiver.asgi(scope, receive, send)
    return sent


def chunk(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def naming(out_task_id: str) -> bytes:
    return json.dumps({"out_task_id": out_task_id}).encode()


# The wait


async def by_run(client: AsyncClient, url: str, receiver: Receiver) -> Task:
    return await client.run(request(url), webhooks=receiver)


async def by_wait(client: AsyncClient, url: str, receiver: Receiver) -> Task:
    task = await client.submit(request(url))
    return await client.wait(task.out_task_id if task.done else task, webhooks=receiver)


async def by_watch(client: AsyncClient, url: str, receiver: Receiver) -> Task:
    task = await client.submit(request(url))
    return [each async for each in client.watch(task, webhooks=receiver)][-1]


async def by_batch(client: AsyncClient, url: str, receiver: Receiver) -> Task:
    (outcome,) = [each async for each in client.run_many([request(url)], webhooks=receiver)]
    return outcome.result()


@pytest.mark.parametrize("verb", [by_run, by_wait, by_watch, by_batch])
@pytest.mark.parametrize("callbacks", ["early", "once", "twice"])
async def test_a_callback_ends_the_wait_with_one_query(
    service: FakeService, connect: Connect, clock: Clock, serve: Serve, callbacks: Any, verb: Any
) -> None:
    """Time stands still, so that nothing is polled for."""
    service.callbacks, clock.held = (callbacks,), True
    client = connect(polling=NEVER)
    receiver = Receiver(client, secret=SECRET)
    task = await verb(client, receiver.url(await serve(receiver)), receiver)
    assert task.succeeded
    assert service.counts[QUERY] == 1
    assert receiver._expected == {}


async def test_a_callback_before_the_response_to_the_submit_is_kept(
    service: FakeService, connect: Connect, clock: Clock, serve: Serve
) -> None:
    service.callbacks, clock.held = ("early",), True
    client = connect(polling=NEVER)
    receiver = Receiver(client, secret=SECRET)
    url = receiver.url(await serve(receiver))
    task = await client.submit(request(url, "order-17"))
    assert [(each.out_task_id, each.status) for each in service.callbacks_sent] == [
        ("order-17", 200)
    ]
    assert (await client.wait(task, webhooks=receiver)).succeeded
    assert service.counts[QUERY] == 1


async def test_three_deliveries_during_a_query_are_answered_and_cause_no_other(
    connect: Connect, clock: Clock, serve: Serve, until: Until
) -> None:
    queries, answer = itertools.count(), asyncio.Event()

    async def respond(request: web.BaseRequest) -> web.Response:
        data: dict[str, Any] = {"status": "pending"}
        if request.path == QUERY:
            next(queries)
            await answer.wait()
            data = {"status": "completed", "output": [{"url": "https://a.example/1.png"}]}
        return web.json_response({"statusCode": 200, "data": data})

    runner = web.ServerRunner(web.Server(respond))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    clock.held = True
    client = connect(polling=NEVER, base_url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    receiver = Receiver(client, secret=SECRET)
    url = receiver.url(await serve(receiver))
    running = asyncio.create_task(client.run(request(url, "a"), webhooks=receiver))
    await until(lambda: "a" in receiver._expected)
    for _ in range(3):
        assert await post(url, naming("a")) == 200
        await until(lambda: client.stats.in_flight)
    answer.set()
    assert (await running).succeeded
    assert next(queries) == 1
    await runner.cleanup()


async def test_a_callback_may_reach_a_process_that_does_not_wait_for_the_task(
    service: FakeService, connect: Connect, serve: Serve
) -> None:
    service.durations = 30.0
    client, other = connect(polling=PollPolicy(jitter=0)), connect()
    receiver, others = Receiver(client, secret=SECRET), Receiver(other, secret=SECRET)
    url = others.url(await serve(others))
    service.callbacks = ("early",)
    assert (await client.run(request(url), webhooks=receiver)).succeeded
    assert [each.status for each in service.callbacks_sent] == [200]
    assert other.stats.requests == 0
    assert service.counts[QUERY] == 3  # after 8, 16 and 32 seconds


async def test_all_waits_for_a_task_are_woken(
    service: FakeService, connect: Connect, clock: Clock, until: Until
) -> None:
    clock.held = True
    client = connect(polling=NEVER)
    receiver = Receiver(client, secret=SECRET)
    task = await client.submit(request())
    waits = [asyncio.create_task(client.wait(task, webhooks=receiver)) for _ in range(3)]
    await until(lambda: len(receiver._expected.get(task.out_task_id, ())) == 3)
    await call(receiver, chunk(naming(task.out_task_id)))
    assert all(each.succeeded for each in await asyncio.gather(*waits))
    assert service.counts[QUERY] == 3


class Always:
    """Announces a callback whenever one is expected."""

    def expect(self, out_task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        assert out_task_id
        wake()
        wake()
        return lambda: None


class First:
    """Announces one callback, as soon as one is expected."""

    def __init__(self) -> None:
        self.called = False

    def expect(self, out_task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        assert out_task_id
        if not self.called:
            wake()
        self.called = True
        return lambda: None


async def test_a_callback_before_the_end_leaves_the_schedule_as_it_is(
    service: FakeService, connect: Connect
) -> None:
    service.durations = 100.0
    client = connect(polling=PollPolicy(first=30, step=1, jitter=0))
    task = await client.submit(request())
    assert (await client.wait(task, webhooks=First())).succeeded
    assert service.counts[QUERY] == 2  # at once, and after 120 seconds


async def test_a_flood_of_callbacks_is_polled_for_four_times_a_second(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    service.durations = 1.0
    client = connect(polling=NEVER)
    assert (await client.run(request(), webhooks=Always())).succeeded
    assert slept == [0.25] * 4
    assert service.counts[QUERY] == 5


async def test_a_callback_does_not_shorten_a_retry_after(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    service.script("query", Fault.too_many_requests(20))
    client = connect(polling=NEVER)
    assert (await client.run(request(), webhooks=Always())).succeeded
    assert sum(slept) == pytest.approx(20)


async def test_a_callback_does_not_outlast_the_timeout(
    service: FakeService, connect: Connect, clock: Clock
) -> None:
    service.durations = 3600.0
    began, client = clock.now, connect(polling=NEVER)
    task = await client.submit(request())
    with pytest.raises(TaskTimeoutError):
        await client.wait(task, timeout=1.1, webhooks=Always())
    assert clock.now == pytest.approx(began + 1.1)
    assert service.counts[QUERY] == 6  # at 0, 0.25, 0.5, 0.75 and 1 second, and the final one


async def test_without_a_callback_url_polls_are_as_frequent_as_ever(
    service: FakeService, connect: Connect, slept: list[float]
) -> None:
    service.durations, service.callbacks = 10.0, ("never",)
    client = connect(polling=PollPolicy(first=1, step=1, growth=1, jitter=0))
    receiver = Receiver(client, secret=SECRET)
    await client.run(request(), webhooks=receiver)
    [_ async for _ in client.run_many([request()], webhooks=receiver)]
    assert slept == [1] * 20
    await client.run(request("https://app.example/hooks"), webhooks=receiver)
    assert slept[20:] == [4, 4, 4]


@pytest.mark.parametrize(("receiving", "expected"), [(True, 10.0), (False, 9.0)])
async def test_the_time_of_a_callback_is_learned_from(
    service: FakeService, connect: Connect, clock: Clock, *, receiving: bool, expected: float
) -> None:
    """Without the service's times, a poll that comes too late shows less than a callback."""
    done = {"status": "completed", "output": [{"url": "https://a.example/1.png"}]}
    service.script("query", Fault.reply(200, json.dumps({"statusCode": 200, "data": done})))
    client = connect(polling=PollPolicy(first=10, jitter=0))
    durations = api_of(client).shared.durations
    durations.learn("seedream_v5", 10.0)

    class After10:
        def expect(self, out_task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
            assert out_task_id
            clock.now += 10.0
            wake()
            return lambda: None

    await client.run(request(), webhooks=After10() if receiving else None)
    assert durations.expect("seedream_v5", None).seconds == pytest.approx(expected)


async def test_a_wait_that_is_left_expects_nothing(
    service: FakeService, connect: Connect, clock: Clock, until: Until
) -> None:
    service.durations, clock.held = 3600.0, True
    client = connect(polling=NEVER)
    receiver = Receiver(client, secret=SECRET)
    task = await client.submit(request())
    async for _ in client.watch(task, webhooks=receiver):
        break
    assert receiver._expected == {}
    running = asyncio.create_task(client.wait(task, webhooks=receiver))
    await until(lambda: receiver._expected)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert receiver._expected == {}
    running = asyncio.create_task(client.wait(task, webhooks=receiver))
    await until(lambda: receiver._expected)
    await client.close()
    with pytest.raises(RuntimeError):
        await running
    assert receiver._expected == {}


async def test_other_objects_are_rejected_before_anything_is_sent(
    service: FakeService, client: AsyncClient
) -> None:
    wrong: Any = "https://app.example/hooks"
    rejected = partial(pytest.raises, TypeError, match=r"must be a webhooks\.Receiver, got str")
    with rejected():
        await client.run(request(), webhooks=wrong)
    with rejected():
        await client.wait("a", webhooks=wrong)
    with rejected():
        client.watch("a", webhooks=wrong)
    with rejected():
        client.run_many([request()], webhooks=wrong)
    assert service.counts == {}


# Batches


class Timeline(_shared.Clock):
    """Time that passes when the test says so, and then for every sleeper alike."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._sleepers: dict[asyncio.Future[bool], float] = {}
        super().__init__(lambda: self.time)

    async def sleep(self, seconds: float, waker: asyncio.Future[bool] | None = None) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waker = waker or asyncio.get_running_loop().create_future()
        self._sleepers[waker] = self.time + seconds
        try:
            await waker
        finally:
            del self._sleepers[waker]

    @property
    def asleep(self) -> dict[asyncio.Future[bool], float]:
        """Return who sleeps, and until when."""
        return {waker: until for waker, until in self._sleepers.items() if not waker.done()}

    def advance(self, ends: Iterable[float]) -> None:
        """Go to the next of *ends* or the end of the next sleep, and wake the sleepers."""
        asleep = self.asleep
        self.time = min([*asleep.values(), *(end for end in ends if end > self.time)])
        for waker, until in asleep.items():
            if until <= self.time:
                waker.set_result(False)


async def count_queries(
    serve: Serve, until: Until, size: int, *, receiving: bool, batch: bool
) -> float:
    """Return the queries per task of 4 to 12 seconds, half of whose callbacks are lost."""
    timeline = Timeline()

    class Client(AsyncClient):
        @staticmethod
        def _new_clock() -> Timeline:
            return timeline

    async with (
        FakeService(
            clock=timeline.now, durations=8.0, spread=0.5, callbacks=["once", "never"]
        ) as service,
        Client(service.api_key, base_url=service.url) as client,
    ):
        receiver = Receiver(client, secret=SECRET)
        url = receiver.url(await serve(receiver)) if receiving else None
        webhooks = receiver if receiving else None
        done: list[Any] = []

        async def run_batch(requests: list[SubmitRequest]) -> None:
            async for outcome in client.run_many(requests, webhooks=webhooks):
                done.append(outcome.result())  # noqa: PERF401 - counted meanwhile

        async def run_each(requests: list[SubmitRequest]) -> None:
            async def run(each: SubmitRequest) -> None:
                done.append(await client.run(each, webhooks=webhooks))

            await asyncio.gather(*map(run, requests))

        def is_idle() -> bool:
            ends = [service.tasks[each.out_task_id].ends_at for each in service.charges[::2]]
            due = sum(end <= timeline.time for end in ends) if receiving else 0
            asleep, sent = len(timeline.asleep), len(service.callbacks_sent)
            return running.done() or (0 < asleep == target - len(done) and sent == due)

        for target in (size, 2 * size):
            requests = [request(url, f"task-{target}-{n}") for n in range(size)]
            running = asyncio.create_task(run_batch(requests) if batch else run_each(requests))
            await until(is_idle)
            while not running.done():
                timeline.advance(task.ends_at for task in service.tasks.values())
                await until(is_idle)
            await running
        assert len(service.charges) == 2 * size
        assert all(task.succeeded for task in done)
        assert receiver._expected == {}
        return service.counts[QUERY] / (2 * size)


@pytest.mark.parametrize("batch", [False, True])
async def test_with_half_of_the_callbacks_lost_polls_fall_by_half(
    serve: Serve, until: Until, *, batch: bool
) -> None:
    """Half of the tasks are of a model whose durations are not known yet."""
    polling = await count_queries(serve, until, 20, receiving=False, batch=batch)
    receiving = await count_queries(serve, until, 20, receiving=True, batch=batch)
    assert receiving <= polling / 2


async def test_a_batch_makes_no_task_per_item_and_expects_its_window_only(
    service: FakeService, connect: Connect, serve: Serve
) -> None:
    client = connect(polling=PollPolicy(first=1, jitter=0))
    receiver = Receiver(client, secret=SECRET)
    url = receiver.url(await serve(receiver))
    service.callbacks = ("never",)
    largest = 0

    class Counting:
        def expect(self, out_task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
            nonlocal largest
            end = receiver.expect(out_task_id, wake)
            largest = max(largest, len(receiver._expected))
            return end

    batch = client.run_many((request(url) for _ in range(100)), window=8, webhooks=Counting())
    tasks = 0
    async for outcome in batch:
        assert outcome.ok
        tasks = max(tasks, len(asyncio.all_tasks()))
    assert 0 < largest <= 8
    assert tasks < 40
    assert (receiver._expected, len(receiver._kept)) == ({}, 0)


async def test_a_resumed_batch_neither_stores_nor_compares_the_url(
    service: FakeService, connect: Connect, clock: Clock, serve: Serve, tmp_path: Path
) -> None:
    service.callbacks, clock.held = ("never",), True
    client = connect(polling=NEVER)
    receiver = Receiver(client, secret=SECRET)
    path = tmp_path / "batch.ledger"
    first = SubmitRequest("seedream_v5", {"prompt": "a"}, None, "https://old.example/0ld-s3cret")
    async with Ledger(path) as ledger:
        (outcome,) = [each async for each in client.submit_many([first], ledger=ledger)]
        assert outcome.task
    again = SubmitRequest("seedream_v5", {"prompt": "a"}, None, receiver.url(await serve(receiver)))
    await post(again.callback_url or "", naming(outcome.task.out_task_id))
    async with Ledger(path) as ledger:
        batch = client.run_many([again], ledger=ledger, webhooks=receiver)
        (outcome,) = [each async for each in batch]
    assert outcome.ok
    assert outcome.resumed
    assert (len(service.charges), service.counts[QUERY]) == (1, 1)
    stored = b"".join(each.read_bytes() for each in tmp_path.iterdir())  # noqa: ASYNC240
    assert b"s3cret" not in stored
    assert b"old.example" not in stored


async def test_a_store_neither_keeps_nor_compares_the_url(
    service: FakeService, client: AsyncClient, tmp_path: Path
) -> None:
    async with SQLiteStore(tmp_path / "claims.db") as store:
        for url in ("https://a.example/0ld-s3cret", "https://b.example/n3w-s3cret", None):
            task = await client.submit(request(url, "order-17"), idempotency=store)
            assert task.out_task_id == "order-17"
    assert len(service.charges) == 1
    stored = b"".join(each.read_bytes() for each in tmp_path.iterdir())  # noqa: ASYNC240
    assert b"s3cret" not in stored


# The receiver


ANSWERS = [
    ("POST", f"/hooks/{SECRET}", b"", 200),
    ("POST", f"/hooks/{SECRET}", b'{"status": "completed"}', 200),
    ("POST", f"/hooks/{SECRET}", b"\xff\x00{[", 200),
    ("POST", f"/hooks/{SECRET}?out_task_id=a", b"", 200),
    ("POST", f"/hooks/{SECRET}", b"x" * LARGEST, 200),
    ("POST", f"/hooks/{SECRET}", b"x" * (LARGEST + 1), 413),
    ("POST", "/hooks/another", b"x" * (LARGEST + 1), 404),
    ("POST", f"/hooks/{SECRET}x", b"", 404),
    ("POST", "/hooks/%ff%F0", b"", 404),
    ("GET", f"/hooks/{SECRET}?out_task_id=a", b"", 405),
    ("HEAD", f"/hooks/{SECRET}", b"", 405),
    ("DELETE", f"/hooks/{SECRET}", b"", 405),
    ("GET", "/hooks/another", b"", 404),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), ANSWERS)
async def test_a_request_is_answered_by_what_it_is(
    client: AsyncClient, serve: Serve, method: str, path: str, body: bytes, status: int
) -> None:
    receiver = Receiver(client, secret=SECRET)
    url = (await serve(receiver)).removesuffix("/hooks")
    allowed = "POST" if status == 405 else None
    assert await ask(method, url + path, body) == (status, allowed)
    path, _, query = path.partition("?")
    start, end = await call(receiver, chunk(body), path=path, method=method, query=query)
    assert (start["type"], start["status"]) == ("http.response.start", status)
    assert dict(start["headers"]).get(b"allow") == (b"POST" if allowed else None)
    assert end == {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize("path", [f"/{SECRET}", f"/{SECRET}/", f"/a/b/{SECRET}//", SECRET])
async def test_the_secret_is_the_last_segment(client: AsyncClient, path: str) -> None:
    """However a framework strips the prefix of a mount."""
    start, _ = await call(Receiver(client, secret=SECRET), chunk(b""), path=path)
    assert start["status"] == 200


@pytest.mark.parametrize("path", ["", "/", "//", f"/{SECRET}/x", "/\ud800", f"/{SECRET[:-1]}"])
async def test_without_the_secret_there_is_nothing(client: AsyncClient, path: str) -> None:
    start, _ = await call(Receiver(client, secret=SECRET), chunk(naming("a")), path=path)
    assert start["status"] == 404


async def test_a_body_may_come_in_pieces(client: AsyncClient, serve: Serve) -> None:
    receiver = Receiver(client, secret=SECRET)
    body = naming("order-17")
    pieces = [chunk(body[:5], more=True), chunk(b"", more=True), chunk(body[5:])]
    start, _ = await call(receiver, *pieces)
    assert start["status"] == 200
    assert [*receiver._kept] == ["order-17", "out_task_id"]

    async def halves() -> AsyncIterator[bytes]:
        yield body[:5]
        yield body[5:]

    other = Receiver(client, secret=SECRET)
    assert await post(other.url(await serve(other)), halves()) == 200  # type: ignore[arg-type]
    assert other._kept.keys() == receiver._kept.keys()


async def test_a_body_that_breaks_off_is_dropped(
    client: AsyncClient, serve: Serve, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(client, secret=SECRET)
    gone = {"type": "http.disconnect"}
    assert await call(receiver, chunk(naming("a"), more=True), gone) == []
    url = receiver.url(await serve(receiver))
    host, _, port = url.split("/")[2].partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /hooks/{SECRET} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n"
    writer.write(head.encode() + naming("a"))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await post(url, b"{}") == 200
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert receiver._kept.keys() == set()
    assert "Traceback" not in caplog.text


async def test_a_compressed_body_is_unpacked_within_the_limit(
    client: AsyncClient, serve: Serve
) -> None:
    receiver = Receiver(client, secret=SECRET)
    url = receiver.url(await serve(receiver))
    headers = {"Content-Encoding": "gzip"}
    assert await post(url, gzip.compress(naming("a")), headers=headers) == 200
    assert "a" in receiver._kept
    assert await post(url, gzip.compress(b"x" * 10**7), headers=headers) == 413
    assert await post(url, b"no gzip", headers=headers) == 400


async def test_the_application_speaks_the_rest_of_asgi(client: AsyncClient) -> None:
    receiver = Receiver(client, secret=SECRET)
    phases = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    assert await call(receiver, *phases, kind="lifespan") == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]
    opening = {"type": "websocket.connect"}
    assert await call(receiver, opening, kind="websocket") == [{"type": "websocket.close"}]
    with pytest.raises(ValueError, match="ASGI scope must be http, websocket or lifespan"):
        await call(receiver, kind="mqtt")


async def test_unknown_ids_are_kept_for_a_while_and_in_bounds(
    client: AsyncClient, clock: Clock
) -> None:
    receiver = Receiver(client, secret=SECRET)
    await call(receiver, chunk(b" ".join(b"w%d" % n for n in range(1000))))
    assert len(receiver._kept) == 16
    for n in range(10_010):
        receiver._deliver(b"", f"id={n}")
    assert len(receiver._kept) == 10_000
    clock.now += 599
    woken: list[str] = []
    receiver.expect("10009", lambda: woken.append("in time"))()
    receiver.expect("10009", lambda: woken.append("again"))()
    receiver.expect("0", lambda: woken.append("too many since"))()
    clock.now += 1
    receiver.expect("10008", lambda: woken.append("too late"))()
    assert woken == ["in time"]
    receiver._deliver(b"new", "")
    assert [*receiver._kept] == ["new"]


async def test_the_secret_is_shown_nowhere(
    connect: Connect, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="aireiter_async")
    client = connect()
    receiver = Receiver(client, secret=SECRET)
    url = receiver.url(await serve(receiver))
    assert url.endswith(f"/hooks/{SECRET}")
    wanted = request(url)
    assert (await client.run(wanted, webhooks=receiver)).succeeded
    await ask("GET", url)
    await ask("GET", url + "x")
    ours = [each for each in caplog.records if each.name.startswith("aireiter_async")]
    logged = [each.getMessage() for each in ours]
    assert logged[-1].endswith(": rejected, without the secret")
    shown = f"{receiver!r} {vars(receiver)} {wanted!r} {logged}"
    assert SECRET not in shown
    assert SECRET[-8:] not in shown


@pytest.mark.parametrize("secret", ["", "a/b", "ä", "..", "a b", "a\n", None, b"abc"])
async def test_a_secret_is_checked(client: AsyncClient, secret: Any) -> None:
    with pytest.raises(
        ValueError if isinstance(secret, str) else TypeError, match="secret must be"
    ):
        Receiver(client, secret=secret)


async def test_the_other_arguments_are_checked(client: AsyncClient) -> None:
    wrong: Any = "key"
    with pytest.raises(TypeError, match="client must be an AsyncClient, got str"):
        Receiver(wrong, secret=SECRET)
    receiver = Receiver(client, secret=SECRET)
    assert receiver.url("https://a.example/") == f"https://a.example/{SECRET}"
    for base in ("", "a.example", "ftp://a.example", "https://a.example?x=1", "https://"):
        with pytest.raises(ValueError, match="base must be an http or https URL"):
            receiver.url(base)


def test_the_documentation_names_the_models_that_document_callback_url() -> None:
    root = Path(__file__).parent
    catalogue = json.loads((root / "data" / "models.json").read_text(encoding="utf-8"))
    documented = {
        model["model"]
        for model in catalogue
        if "callback_url" in model.get("extra_top_level_fields", {})
    }
    page = (root.parent / "docs" / "webhooks.md").read_text(encoding="utf-8")
    sentence = page.partition("Five models document")[2].partition("Others")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) - {"callback_url"} == documented
    assert len(documented) == 5


# What a callback names

ORDER = "order-17"
NESTED: Any = ORDER
for _ in range(50):
    NESTED = {"a": [NESTED]}


@pytest.mark.parametrize(
    ("body", "query"),
    [
        (b'{"out_task_id": "order-17", "status": "completed"}', ""),
        (b'\xef\xbb\xbf {"outTaskId": "order-17"}', ""),
        (b'{"statusCode": 200, "data": {"task_id": "order-17"}}', ""),
        (b'[{"event": "done", "data": {"task": {"id": "order-17"}}}]', ""),
        (b'{"ids": ["order-16", "order-17"]}', ""),
        (b'{"order-17": {"status": "completed"}}', ""),
        (b'"order-17"', ""),
        (b"order-17\n", ""),
        (b"Task order-17: completed.", ""),
        (b'{"out_task_id": "order-17", "message": "\xff\xfe"}', ""),
        (b'{"out_task_id": "order-17"', ""),
        (b"out_task_id=order-17&status=completed", ""),
        (b"payload=%7B%22out_task_id%22%3A%22order-17%22%7D", ""),
        (json.dumps({"data": json.dumps({"data": json.dumps({"id": ORDER})})}).encode(), ""),
        (b"<task><out_task_id>order-17</out_task_id></task>", ""),
        (b'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\norder-17\r\n--b--', ""),
        (json.dumps(NESTED).encode(), ""),
        (b"", "out_task_id=order-17"),
        (b"{}", "event=done&id=order-17"),
        (b"", "order-17"),
    ],
)
def test_an_id_is_found_in_any_plausible_form(body: bytes, query: str) -> None:
    assert ORDER in find_ids(body, query)


def test_ids_by_their_names_come_first() -> None:
    reply = {
        "statusCode": 200,
        "data": {"status": "completed", "model": "m", "task_id": "order_1", "out_task_id": "a"},
    }
    assert find_ids(json.dumps(reply).encode())[:2] == ["order_1", "a"]


@pytest.mark.parametrize(
    ("value", "found"), [(17, ["17"]), (10**64, []), (1.5, []), (None, []), ("x" * 65, [])]
)
def test_a_number_may_be_an_id(value: Any, found: list[str]) -> None:
    body = json.dumps({"out_task_id": value, "count": 3}).encode()
    assert [each for each in find_ids(body) if each not in {"out_task_id", "count"}] == found


HOSTILE = [
    b"[" * LARGEST,
    b'{"a":' * (LARGEST // 5),
    b"9" * LARGEST,
    b"a" * LARGEST,
    b"a=b&" * (LARGEST // 4),
    b"[[],[]," + b"[]," * (LARGEST // 4) + b"[]]",
    json.dumps({"a": "[" * (LARGEST // 2)}).encode(),
    b'{"id": ' + b"9" * 4000 + b"}",
    b'"\\ud800"',
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_body_names_little(body: bytes) -> None:
    assert len(find_ids(body, body[:1000].decode())) <= 2_000


@given(st.binary(max_size=200), st.text(max_size=50))
def test_no_bytes_raise(body: bytes, query: str) -> None:
    assert all(0 < len(each) <= 64 for each in find_ids(body, query))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=10), inner),
        max_leaves=20,
    ),
    st.sampled_from(["out_task_id", "outTaskId", "task_id", "id", "x"]),
)
def test_an_id_beside_anything_is_found(other: Any, name: str) -> None:
    body = json.dumps([other, {"data": {"more": other, name: ORDER}}]).encode()
    assert ORDER in find_ids(body)
