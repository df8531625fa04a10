"""A long batch through faults, restarts and a rate limit, in virtual time (``nox -s soak``)."""

import asyncio
import os
import random
import resource
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from aireiter_async import (
    AsyncClient,
    Ledger,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_time import Clock, clocked
from tests.test_resources import NO_PROC, churn

ITEMS = int(os.environ.get("AIREITER_SOAK_ITEMS", "20000"))
RESTARTS = 8
SPEED = 60.0  # virtual seconds per real one
RATE = 10.0  # requests per second that the service grants
DURATION = 90.0  # seconds that a task takes
MOST_MEMORY = 300.0  # MB, with all that the service remembers
# Five in a hundred requests meet one of these.
FAULTS = {
    Fault.lost_answer(accepted=True).on("submit"): 0.006,
    Fault.lost_answer(): 0.006,
    Fault.reset(accepted=True).on("submit"): 0.006,
    Fault.reset(): 0.006,
    Fault.truncated(): 0.005,
    Fault.html(502, accepted=True).on("submit"): 0.005,
    Fault.html(502): 0.005,
    Fault.no_data(accepted=True).on("submit"): 0.003,
    Fault.server_error(): 0.004,
    Fault.too_many_requests(1): 0.002,
    Fault.failed(): 0.002,
}


class FastClock(Clock):
    """Time that passes by itself, a number of times as fast as the real one."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self.speed = speed

    def __call__(self) -> float:
        """Tell the time."""
        return time.monotonic() * self.speed

    def pass_by(self, seconds: float) -> float:
        """Return for how many real seconds to sleep."""
        return seconds / self.speed


@attrs.define
class Books:
    """What has happened over all runs."""

    runs: int = 0
    retries: int = 0
    settled: int = 0
    refusals: int = 0
    unsure: int = 0
    ends: Counter[str] = attrs.field(factory=Counter[str])
    descriptors: list[int] = attrs.field(factory=list[int])

    def add(self, client: AsyncClient) -> None:
        """Take in what a client has counted."""
        stats = client.stats
        assert (stats.in_flight, stats.waiting) == (0, 0)
        self.retries += stats.retries
        self.settled += stats.settled
        self.refusals += stats.rate_limited


def descriptors() -> int:
    """Count the file descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def peak_memory() -> float:
    """Return the most memory that this process has had, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


async def requests(numbers: range) -> AsyncIterator[SubmitRequest]:
    """Yield the batch's requests."""
    for n in numbers:
        yield SubmitRequest("veo3_1", {"prompt": f"scene {n}"})


async def run_once(
    service: FakeService, clock: Clock, path: Path, books: Books, stop_after: int | None = None
) -> None:
    books.runs += 1
    client = clocked(
        clock,
        service.api_key,
        base_url=service.url,
        max_concurrency=64,
        retry=RetryPolicy(base=0.5),
        polling=PollPolicy(),
        timeout=60,
    )
    async with client, Ledger(path) as ledger:
        outcomes = client.run_many(requests(range(ITEMS)), ledger=ledger, window=2000)
        async with aclosing(outcomes):
            seen = 0
            async for outcome in outcomes:
                seen += 1
                name = "ok" if outcome.error is None else type(outcome.error).__name__
                books.ends[name] += 1
                books.unsure += name == "AmbiguousSubmitError"
                if seen == stop_after:
                    await service.close()  # in the middle of everything
                    await service.start()
                if stop_after is not None and seen >= 2 * stop_after:
                    break
        books.descriptors.append(descriptors())
    books.add(client)


@pytest.mark.soak
@NO_PROC
async def test_a_long_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock, books = FastClock(SPEED), Books()
    began = clock()
    path = tmp_path / "run.db"
    chance = random.Random(5)  # noqa: S311 - repeatable, guards nothing
    before = descriptors()
    async with FakeService(
        clock=clock,
        used_id="charge",
        durations=DURATION,
        max_rate=RATE,
        faults=FAULTS,
        visible_after_looks=1,
        record=False,
        credits=1e12,
    ) as service:
        for _ in range(RESTARTS):
            await run_once(service, clock, path, books, chance.randrange(1, ITEMS // 20))
        stopped = books.ends.copy()
        await run_once(service, clock, path, books)
        refused = service.refusals[429]
        charged = Counter(charge.out_task_id for charge in service.charges)
        failed = {task.out_task_id for task in service.tasks.values() if task.failure}
    seconds = clock() - began
    with closing(sqlite3.connect(path)) as db:
        states: dict[str, str] = dict(db.execute("SELECT out_task_id, state FROM tasks"))
    table: dict[str, Any] = {
        "items": ITEMS,
        "runs": books.runs,
        "charges": charged.total(),
        "lost": len(set(charged) - set(states)),
        "doubled": charged.total() - len(charged),
        "unsure": sum(state in {"intended", "uncertain"} for state in states.values()),
        "states": dict(Counter(states.values())),
        "outcomes": dict(books.ends),
        "retries": books.retries,
        "settled": books.settled,
        "refusals": books.refusals,
        "refused by the service": refused,
        "virtual hours": round(seconds / 3600, 2),
        "peak memory, MB": round(peak_memory()),
        "descriptors at most": max(books.descriptors),
    }
    with capsys.disabled():
        print()  # noqa: T201 - the table is what it is for
        for name, value in table.items():
            print(f"{name:>24}  {value}")  # noqa: T201 - likewise
    assert table["lost"] == table["doubled"] == 0
    assert table["unsure"] == 0
    assert states == {each: "failed" if each in failed else "completed" for each in charged}
    assert len(states) == charged.total() == ITEMS
    last = books.ends - stopped
    assert last == Counter(ok=ITEMS - len(failed), TaskFailedError=len(failed))
    # Or there were no faults, no rate limit, and no bound.
    assert min(len(failed), books.retries, books.settled, books.refusals, refused) > 0
    assert seconds > 0.9 * 2 * ITEMS / RATE
    assert peak_memory() < MOST_MEMORY
    await asyncio.sleep(0)
    assert descriptors() <= before + 4
    assert max(books.descriptors) < before + 64 + 64 + 64


@pytest.mark.soak
@NO_PROC
async def test_many_submits() -> None:
    """A hundred thousand submits leave memory and descriptors as they were."""
    grown, opened = await churn(100_000)
    assert grown < 300_000
    assert opened <= 16
