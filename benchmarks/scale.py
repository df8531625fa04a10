"""How memory and CPU grow with a batch, and what waiting for many costs."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from itertools import count as counter
from pathlib import Path
from typing import Any, Final

from aireiter_async import AsyncClient, PollPolicy
from benchmarks.clients._run import KEY
from benchmarks.clients.ours import connect, requests
from benchmarks.fleet import Service, ask
from benchmarks.latency import watch
from benchmarks.report import Section, Table, Target

_SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
_CONCURRENCY: Final = 64
_WAITING: Final = 10_000


def measure(share: float) -> Section:
    """Measure each size in a process of its own: a peak is the process's."""
    rows, grown, gathered = [], {}, {}
    with Service() as service, ThreadPoolExecutor(2) as pool:
        for size in _SIZES:
            # Both at once, for the time it takes: memory, the subject, is each process's own.
            asked = [
                pool.submit(ask, "benchmarks.scale", how, service.url, round(size * share))
                for how in ("many", "gather")
            ]
            many, gather = (one.result() for one in asked)
            grown[size], gathered[size] = many["grown"], gather["grown"]
            rows.append([f"{size * share:,.0f}", *_cells(many), *_cells(gather)])
        idle = ask("benchmarks.scale", "idle", service.url, round(_WAITING * share))
        lag = ask("benchmarks.scale", "lag", service.url, round(20_000 * share))
    text = (
        f"{_CONCURRENCY} in flight. MB: by how much the process's peak grew beyond what it was "
        "with the client open; us: CPU per item. `gather` is behind an `asyncio.Semaphore`, as "
        "usual, over the same client. Both run at once, on two cores, with the service: "
        "CPU times are higher here than above.\n\n"
        f"`run_many` with a window of {idle['waiting']:,} waiting tasks: {idle['mb']:.0f} MB in "
        f"all, {idle['kb']:.1f} KB each; between polls {100 * idle['share']:.2f} per cent of one "
        f"core; a poll costs {idle['look']:.0f} us of CPU.\n\n"
        f"Loop lag while 1,000 are in flight: median {lag['median']:.1f} ms, 99th percentile "
        f"{lag['p99']:.1f} ms."
    )
    head = ["items", "submit_many MB", "us", "gather MB", "us"]
    return Section(
        "Scale",
        text,
        [Table(head, rows)],
        [
            Target(
                f"MB that submit_many takes for {_SIZES[3] * share:,.0f} items more than for "
                f"{_SIZES[1] * share:,.0f}",
                5,
                grown[_SIZES[3]] - grown[_SIZES[1]],
            ),
            Target(
                f"{idle['waiting']:,} waiting tasks between polls, per cent of a core",
                3,
                100 * idle["share"],
            ),
        ],
        [
            ("aireiter_async submit_many", "ours", max(0.1, grown[_SIZES[3]])),
            ("gather behind a semaphore", "bare", gathered[_SIZES[3]]),
        ],
        f"MB of memory for a batch of {_SIZES[3] * share:,.0f}",
    )


def _cells(told: dict[str, Any]) -> Iterator[str]:
    yield f"{told['grown']:.1f}"
    yield f"{told['micros']:.0f}"


async def many(client: AsyncClient, count: int) -> None:
    """Submit a batch."""
    async with aclosing(client.submit_many(requests(count, counter()))) as outcomes:
        async for outcome in outcomes:
            assert outcome.ok, outcome.error


async def gather(client: AsyncClient, count: int) -> None:
    """Submit all at once, a task each, behind a semaphore."""
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def submit(request: Any) -> object:
        async with slots:
            return await client.submit(request)

    await asyncio.gather(*map(submit, requests(count, counter())))


async def grow(how: str, url: str, count: int) -> dict[str, float]:
    """Return by how many MB the peak grows over *count* items, and what one costs."""
    async with connect(url, _CONCURRENCY) as client:
        await many(client, 4 * _CONCURRENCY)
        before, began = peak(), time.process_time()
        await (many if how == "many" else gather)(client, count)
        spent = time.process_time() - began
    return {"grown": peak() - before, "micros": 1e6 * spent / count}


async def idle(url: str, count: int) -> dict[str, float]:
    """Wait for *count* tasks at once, and measure between two looks, then a round of looks."""
    first = 6.0 + count / 1000
    polling = PollPolicy(first=first, step=3600, cap=3600, jitter=0)
    async with AsyncClient(
        KEY, base_url=url, max_concurrency=_CONCURRENCY, polling=polling
    ) as client:
        await many(client, 4 * _CONCURRENCY)
        before = peak()
        running = asyncio.create_task(_drain(client, count))
        while client.stats.submitted < count + 4 * _CONCURRENCY:  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.05)
        grown = peak() - before
        began, spent = time.monotonic(), time.process_time()
        await asyncio.sleep(2)
        share = (time.process_time() - spent) / (time.monotonic() - began)
        asked, spent = client.stats.requests, time.process_time()
        while client.stats.requests < asked + count:  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.05)
        look = (time.process_time() - spent) / count
        running.cancel()
        await asyncio.wait([running])
    return {
        "waiting": count,
        "mb": grown,
        "kb": 1000 * grown / count,
        "share": share,
        "look": 1e6 * look,
    }


async def _drain(client: AsyncClient, count: int) -> None:
    source = requests(count, counter())
    async with aclosing(client.run_many(source, window=count)) as outcomes:
        async for outcome in outcomes:
            assert outcome.ok, outcome.error


async def lag(url: str, count: int) -> dict[str, float]:
    """Watch the loop while 1,000 are in flight."""
    lags: list[float] = []
    async with connect(url, 1000) as client:
        await many(client, 2000)
        probe = asyncio.create_task(watch(lags))
        await many(client, count)
        probe.cancel()
    lags.sort()
    return {"median": 1e3 * lags[len(lags) // 2], "p99": 1e3 * lags[len(lags) * 99 // 100]}


def peak() -> float:
    """Return the most memory that the process has held, in MB."""
    # getrusage's number begins with the parent's peak: exec does not set it back.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


if __name__ == "__main__":
    what, where, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what in {"many", "gather"}:
        result = asyncio.run(grow(what, where, number))
    else:
        result = asyncio.run((idle if what == "idle" else lag)(where, number))
    print(json.dumps(result))
