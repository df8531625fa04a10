"""What a submit costs, counted instead of timed: the same numbers on any machine.

Each gate is a number that was counted when it was written, on Python 3.11 to
3.13, and a few calls more. A change that passes one has a price that every task
pays: find out what it buys, then either mend it or move the gate.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import pytest

from aireiter_async import AsyncClient, Ledger, PollPolicy, SubmitRequest, models

MODEL = "seedance_1_5_pro"
PARAMS: dict[str, Any] = {"prompt": "A cute kitten", "video_length": 5, "aspect_ratio": "16:9"}
CREATED = "2026-11-22T18:00:00.000Z"
TIMES = 50
ITEMS = 200
Run = Callable[[int], Awaitable[object]]


def answer(task: dict[str, Any]) -> bytes:
    """Return the whole response of the service about *task*."""
    body = json.dumps({"statusCode": 200, "message": "", "data": task}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


PENDING = answer({"status": "pending", "estimated_credits": 100, "created_at": CREATED})
PROCESSING = answer({"status": "processing", "created_at": CREATED})


class Lean(asyncio.Protocol):
    """A service that answers each submit with a pending task, and each query with a running one.

    Args:
        connections: Where it keeps its transports.
    """

    def __init__(self, connections: list[asyncio.Transport]) -> None:
        self.connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connections.append(transport)
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        """Answer once the request is complete."""
        self.seen += data
        if self.seen.endswith(b"}"):  # pragma: no branch - some aiohttp sends the head apart
            self.transport.write(PENDING if b"/submit" in self.seen else PROCESSING)
            self.seen = b""


class Counts:
    """What was called while a block ran, and by whom."""

    def __init__(self) -> None:
        self.calls = 0
        self.ours: Counter[str] = Counter()
        self.total = 0
        self.aiohttp = 0
        self.loop: Counter[str] = Counter()

    @property
    def made(self) -> int:
        """How many tasks were made."""
        return self.loop["BaseEventLoop.create_task"]

    def __call__(  # pragma: no cover - nothing traces what profiles
        self, frame: FrameType, event: str, argument: object
    ) -> None:
        """Count a call of ours, of Python's or of C's functions, or a turn of the loop."""
        code, module = frame.f_code, frame.f_globals.get("__name__") or ""
        # Submits that are in flight together share a turn of the loop: it is no single one's.
        turn = module == "selectors" or code.co_name in {"_run_once", "_process_events"}
        if event in {"call", "c_call"} and not turn and not module.startswith("tests."):
            self.total += 1
            self.aiohttp += module.startswith("aiohttp.")
        if event == "call" and module.startswith("asyncio."):
            self.loop[code.co_qualname] += 1
        # What attrs and cattrs have generated for our classes has no file but a name in brackets.
        generated = code.co_filename.startswith("<") and "aireiter_async" in code.co_filename
        if event in {"call", "c_call"} and (generated or module.startswith("aireiter_async")):
            self.calls += 1
            called = "" if event == "call" else f" -> {getattr(argument, '__qualname__', argument)}"
            self.ours[f"{module}.{code.co_qualname}{called}"] += 1

    def listed(self, times: int) -> str:
        """Return what was called how often, for whoever has passed a limit."""
        return "\n".join(f"{n / times:6.2f} {name}" for name, n in self.ours.most_common())


@pytest.fixture
def url() -> Iterator[str]:
    """Run the lean service, in a thread of its own: what it does is not counted."""
    loop = asyncio.new_event_loop()
    connections: list[asyncio.Transport] = []
    started = loop.create_server(lambda: Lean(connections), "127.0.0.1", 0)
    server = loop.run_until_complete(started)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def stop() -> None:
        server.close()
        for each in connections:
            each.abort()
        loop.call_soon(loop.stop)

    loop.call_soon_threadsafe(stop)
    thread.join()
    loop.close()


async def count(run: Run, times: int = TIMES) -> Counts:
    """Count what *run* does, after it has run once: connections and caches are there by then."""
    await run(times)
    counts, before = Counts(), sys.getprofile()
    sys.setprofile(counts)
    try:
        await run(times)
    finally:
        sys.setprofile(before)
    return counts


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncClient]:
    """Make a client of the lean service that looks for tasks without waiting."""
    polling = PollPolicy(first=0, step=0, cap=0)
    async with AsyncClient("sk-x", base_url=url, max_concurrency=4, polling=polling) as client:
        yield client


async def submit(client: AsyncClient, times: int) -> None:
    """Submit one request after another."""
    for _ in range(times):
        await client.submit(SubmitRequest(MODEL, PARAMS))


async def bare(url: str, times: int) -> Counts:
    """Count what the same exchanges cost with nothing but aiohttp, tuned."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout
    ) as session:

        async def post(times: int) -> None:
            for _ in range(times):
                async with session.post(f"{url}/submit", data=b"{}") as response:
                    await response.read()

        return await count(post, times)


async def test_calls_of_a_submit(url: str) -> None:
    """A submit makes 79 calls of ours, 40 of aiohttp's and 158 in all, in two turns of the loop."""
    async with connected(url) as client:
        counts = await count(lambda times: submit(client, times))
        assert client._shared.transport.path == "short"
    assert counts.calls / TIMES <= 82, counts.listed(TIMES)
    # No event is made for nobody.
    assert not [name for name in counts.ours if name.startswith("aireiter_async.events")]
    assert counts.aiohttp / TIMES <= 44
    assert counts.total / TIMES <= 162
    assert counts.loop["BaseEventLoop._run_once"] / TIMES <= 2.1
    assert counts.made == 0
    assert counts.loop["BaseEventLoop.call_at"] <= 2


async def test_calls_of_a_typed_submit(url: str) -> None:
    """To create a models instance, to check it and to encode it takes 13 calls more."""

    async def run(times: int) -> None:
        for _ in range(times):
            await client.submit(models.Seedance15Pro(**PARAMS))

    async with connected(url) as client:
        counts = await count(run)
    assert counts.calls / TIMES <= 95, counts.listed(TIMES)


def batches(client: AsyncClient, ledger: Ledger | None = None) -> Run:
    """Make what submits one batch after another, each request of all of them another one."""
    numbers = itertools.count()

    async def run(times: int) -> None:
        requests = (
            SubmitRequest(MODEL, {**PARAMS, "seed": number})
            for number in itertools.islice(numbers, times)
        )
        async with contextlib.aclosing(client.submit_many(requests, ledger=ledger)) as outcomes:
            async for outcome in outcomes:
                assert outcome.ok

    return run


async def test_an_item_of_a_batch(url: str) -> None:
    """An item makes 133 calls, 54 of them the batch's, and no task; it wakes the loop twice."""
    async with connected(url) as client:
        counts = await count(batches(client), ITEMS)
        workers = 2 * client.max_concurrency
    reference = await bare(url, ITEMS)
    assert counts.calls / ITEMS <= 135, counts.listed(ITEMS)
    assert counts.loop["Handle._run"] - reference.loop["Handle._run"] <= 3 * ITEMS
    assert counts.made - reference.made <= workers
    assert counts.loop["BaseEventLoop.call_at"] <= 1


async def test_an_item_of_a_batch_with_a_ledger(url: str, tmp_path: Path) -> None:
    """Recording an item takes 32 more calls, and one timer for each group."""
    async with connected(url) as client, Ledger(tmp_path / "run.db") as ledger:
        counts = await count(batches(client, ledger), ITEMS)
    reference = await bare(url, ITEMS)
    assert counts.calls / ITEMS <= 170, counts.listed(ITEMS)
    assert counts.loop["Handle._run"] - reference.loop["Handle._run"] <= 4 * ITEMS
    assert counts.made - reference.made <= ITEMS / 2
    assert counts.loop["BaseEventLoop.call_at"] <= ITEMS / 2


async def test_calls_of_a_look(url: str) -> None:
    """A poll of `wait` makes 84 calls, to look, to find that the task runs on and to sleep."""
    looks = 0

    async def run(times: int) -> None:
        nonlocal looks
        counters = client._shared.counters  # what `stats` reads, without its calls
        before = counters.requests
        waiting = asyncio.ensure_future(client.wait("a"))
        while (looks := counters.requests - before) < times:  # noqa: ASYNC110 - it only turns
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

    async with connected(url) as client:
        counts = await count(run)
    assert counts.calls / looks <= 88, counts.listed(looks)


async def test_turns_of_the_loop(url: str) -> None:
    """A submit wakes the loop no more often than the bare exchange."""
    async with connected(url) as client:
        counts = await count(lambda times: submit(client, times))
    reference = await bare(url, TIMES)
    assert counts.loop["Handle._run"] <= reference.loop["Handle._run"]
    assert counts.made <= reference.made
    assert counts.loop["BaseEventLoop.call_at"] <= 1
