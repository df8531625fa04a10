"""How long a caller waits under load: many in flight, a service of 50 ms."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from aireiter_async import SubmitRequest
from benchmarks.clients._run import KEY, MODEL, PARAMS
from benchmarks.clients.ours import connect
from benchmarks.fleet import Service, ask
from benchmarks.report import Section, Table, Target

_IN_FLIGHT: Final = 1000
_DELAY: Final = 0.05
_SUBMITS: Final = 20_000
_SMALL: Final = 100
_PROBE: Final = 0.005
# Who, and how many connections for 1,000 callers.
_CASES: Final = {
    "aireiter_async": ("ours", _IN_FLIGHT),
    "aireiter_async, max_concurrency=100": ("ours", _SMALL),
    "aiohttp": ("aiohttp", _IN_FLIGHT),
    "aiohttp, pool limit 100": ("aiohttp", _SMALL),
}

Submit = Callable[[], Awaitable[object]]


def measure(share: float) -> Section:
    """Measure each case in a process of its own."""
    found = {}
    with Service() as service:
        service.control(delay=_DELAY)
        for label, (client, limit) in _CASES.items():
            count = round(_SUBMITS * share)
            found[label] = ask("benchmarks.latency", client, service.url, limit, count)
    rows = [
        [
            label,
            f"{one['rate']:,.0f}",
            f"{one['allowed']:,.0f}",
            f"{one['median']:.0f}",
            f"{one['p99']:.0f}",
            f"{one['longest']:.0f}",
            f"{one['lag']:.1f}",
        ]
        for label, one in found.items()
    ]
    ours = found["aireiter_async"]
    queued = found["aireiter_async, max_concurrency=100"]
    text = (
        "1,000 callers, each submitting again as soon as it is answered, "
        f"{round(_SUBMITS * share):,} in all; the service answers after 50 ms. Little's law allows "
        "connections / 0.05 s; with 1,000 connections one core is the limit before that. "
        "Milliseconds of the wall clock, as the caller sees them, the queue for a slot included; "
        "loop lag is the 99th percentile of how late a sleep of "
        f"{1000 * _PROBE:.0f} ms comes back."
    )
    head = ["client", "submits/s", "Little", "median", "99th percentile", "longest", "loop lag"]
    return Section(
        "Latency under load",
        text,
        [Table(head, rows)],
        [
            Target("99th percentile / median, 1,000 in flight", 2, ours["p99"] / ours["median"]),
            Target(
                "share of Little's law that is missed, 1,000 in flight",
                0.4,
                1 - ours["rate"] / ours["allowed"],
                why="the client and the service share two cores: an idle machine is needed",
            ),
            Target(
                "longest / median, 1,000 callers for 100 slots (nobody is starved)",
                5,
                queued["longest"] / queued["median"],
            ),
        ],
    )


@asynccontextmanager
async def ours(url: str, limit: int) -> AsyncIterator[Submit]:
    """Submit with our client."""
    async with connect(url, limit) as client:
        yield lambda: client.submit(SubmitRequest(MODEL, PARAMS))


@asynccontextmanager
async def bare(url: str, limit: int) -> AsyncIterator[Submit]:
    """Submit with aiohttp, whose pool is the only queue."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit)) as session:

        async def submit() -> None:
            async with session.post(
                f"{url}/api/openapi/submit",
                json={"model": MODEL, "params": PARAMS, "out_task_id": "a" * 32},
                headers={"Authorization": f"Bearer {KEY}"},
            ) as response:
                await response.read()

        yield submit


async def load(client: str, url: str, limit: int, count: int) -> dict[str, Any]:
    """Keep 1,000 callers busy until *count* submits are done."""
    opening = ours if client == "ours" else bare
    taken: list[float] = []
    lags: list[float] = []
    async with opening(url, limit) as submit:
        await asyncio.gather(*(submit() for _ in range(limit)))  # connect
        probe = asyncio.create_task(watch(lags))
        left = iter(range(count))

        async def caller() -> None:
            for _ in left:
                began = time.perf_counter()
                await submit()
                taken.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(min(_IN_FLIGHT, count))))
        passed = time.perf_counter() - began
        probe.cancel()
    return {
        "rate": count / passed,
        "allowed": limit / _DELAY,
        "median": 1e3 * statistics.median(taken),
        "p99": 1e3 * statistics.quantiles(taken, n=100)[-1],
        "longest": 1e3 * max(taken),
        "lag": 1e3 * statistics.quantiles(lags, n=100)[-1],
    }


async def watch(lags: list[float]) -> None:
    """Note how late a short sleep comes back, again and again."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_PROBE)
        lags.append(time.perf_counter() - began - _PROBE)


if __name__ == "__main__":
    told = asyncio.run(load(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    print(json.dumps(told))
