"""Batches that are interrupted, or cancelled again while they end."""

import asyncio
import gc
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import (
    AsyncClient,
    Ledger,
    Outcome,
    PollPolicy,
    RetryPolicy,
    SubmitRequest,
)
from aireiter_async.testing import FakeService, Fault
from tests.command import serving
from tests.hostile_steps import Blow, Sweep, counting, stepped

LATE = pytest.mark.parametrize("late", [False, True], ids=["before", "after"])


class Blows(Blow):
    """Cancels a task at its *step*-th suspension, and again *gap* suspensions later."""

    def __init__(self, step: int, gap: int, *, late: bool) -> None:
        super().__init__(step, late=late)
        self.second = Blow(step + gap, late=late)

    def __call__(self, awaited: Any) -> None:
        self.second.task = self.task
        super().__call__(awaited)
        self.second(awaited)


class Interrupts(Blow):
    """Presses Ctrl-C twice: the first cancels the main task, the second breaks off the loop."""

    def _strike(self, _done: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def connect(service: FakeService) -> AsyncClient:
    return AsyncClient(
        service.api_key,
        base_url=service.url,
        max_concurrency=2,
        retry=RetryPolicy(base=0.0005, settle=0.002),
        polling=PollPolicy(first=0, step=0.001, cap=0.001),
    )


async def stubborn(requests: list[SubmitRequest]) -> AsyncIterator[SubmitRequest]:
    """Yield requests; the end, and a cancellation, take some turns of the loop."""
    try:
        for request in requests:
            yield request
        for _ in range(20):
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        for _ in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        raise


async def consume(
    kind: str, client: AsyncClient, directory: Path, blow: Blow | None = None
) -> list[Outcome[Any]]:
    """Run a batch of two requests with all options, or leave it after the first outcome.

    However it ends, its workers have ended before it.
    """
    requests = stubborn([SubmitRequest("veo3_1", {"n": n}) for n in range(2)])
    outcomes: list[Outcome[Any]] = []
    async with Ledger(directory / "run.db") as ledger:
        if kind == "submit_many":
            batch = client.submit_many(requests, ledger=ledger, on_progress=print)
        else:
            batch = client.run_many(
                requests,
                ledger=ledger,
                window=2,
                ordered=kind == "ordered",
                max_credits=1000 if kind == "ordered" else None,
                download_to=directory,
                on_progress=print,
            )
        try:
            async with aclosing(batch):
                async for outcome in batch:
                    outcomes.append(outcome)
                    if kind == "left":
                        break
        finally:
            made = blow.made if blow is not None else []
            assert [task for file, task in made if "_batch" in file and not task.done()] == []
    return outcomes


def check(service: FakeService, outcomes: list[Outcome[Any]], directory: Path) -> None:
    """Fail unless the resumed batch is complete and each of its tasks was paid for once."""
    assert [outcome.error for outcome in outcomes] == [None] * 2
    with closing(sqlite3.connect(directory / "run.db")) as db:
        known = {row[0] for row in db.execute("SELECT out_task_id FROM tasks")}
    charged = [charge.out_task_id for charge in service.charges]
    assert sorted(charged) == sorted(known)
    assert len(charged) == 2


@LATE
@pytest.mark.parametrize("kind", ["submit_many", "run_many", "ordered", "left"])
@pytest.mark.parametrize("strides", [(10, 7), pytest.param((1, 1), marks=pytest.mark.soak)])
async def test_a_batch_is_cancelled_twice_anywhere(
    tmp_path: Path, kind: str, strides: tuple[int, int], *, late: bool
) -> None:
    """Cancelled at a suspension and again at a later one, a batch ends cleanly and can resume."""
    pairs = 0
    for step in (firsts := Sweep(strides[0])):
        for gap in (seconds := Sweep(strides[1])):
            directory = tmp_path / f"{step}-{gap}"
            directory.mkdir()
            blow = Blows(step, gap, late=late)
            async with FakeService(used_id="charge") as service, connect(service) as client:
                service.script("submit", Fault.ok(), Fault.lost_response(accepted=True))
                with counting(blow):
                    running = stepped(consume(kind, client, directory, blow), blow)
                    blow.task = asyncio.create_task(running)
                    async with asyncio.timeout(30):
                        await asyncio.wait([blow.task])
                assert blow.task.cancelled() or blow.task.exception() is None
                assert (client.stats.in_flight, client.stats.waiting) == (0, 0)
                check(service, await consume("run_many", client, directory), directory)
            seconds.struck = blow.second.struck
            pairs += 1
        firsts.struck = blow.struck
    assert pairs > step / strides[0]


@LATE
@pytest.mark.parametrize("stride", [10, pytest.param(1, marks=pytest.mark.soak)])
def test_a_batch_is_interrupted_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stride: int, *, late: bool
) -> None:
    for step in (sweep := Sweep(stride)):
        directory = tmp_path / str(step)
        directory.mkdir()
        blow = Interrupts(step, late=late)

        async def main(service: FakeService, directory: Path, blow: Blow) -> list[Outcome[Any]]:
            blow.task = asyncio.current_task()
            async with connect(service) as client:
                with counting(blow):
                    return await stepped(consume("run_many", client, directory), blow)

        with serving(FakeService(used_id="charge")) as service:
            service.script("submit", Fault.ok(), Fault.lost_response(accepted=True))
            try:
                asyncio.run(main(service, directory, blow))
            except KeyboardInterrupt:
                assert blow.struck
            gc.collect()
            assert [record.getMessage() for record in caplog.records] == []
            outcomes = asyncio.run(main(service, directory, Blow(0, late=late)))
            check(service, outcomes, directory)
        sweep.struck = blow.struck
    assert step > 10
