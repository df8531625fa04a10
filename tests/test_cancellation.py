"""Cancellation at each suspension in turn, before and after what is awaited has completed.

After each the slots are free, the pool is bounded, no task and no file is left, no id is lost,
and the client works.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from aireiter_async import (
    AsyncClient,
    Batch,
    Ledger,
    Output,
    RetryPolicy,
    SubmitRequest,
    Task,
    TaskStatus,
)
from aireiter_async.testing import FakeService, Fault
from tests.hostile_steps import Blow, Sweep, cancel_at, counting
from tests.hostile_wire import Peer, piece, whole

pytestmark = pytest.mark.usefixtures("path_in_soak")

Connect = Callable[..., AsyncClient]
Until = Callable[[Callable[[], object]], Awaitable[None]]

SLOTS = 2
QUICK = RetryPolicy(base=0.0005, settle=0.002)
LATE = pytest.mark.parametrize("late", [False, True], ids=["before", "after"])


@attrs.frozen
class World:
    """The service, the client and the directory of one call."""

    service: FakeService
    client: AsyncClient
    request: SubmitRequest
    directory: Path

    async def after(self, until: Until) -> None:
        """Fail unless a cancelled call has left the client as it was."""
        stats = self.client.stats
        assert (stats.in_flight, stats.waiting) == (0, 0)
        assert list(self.directory.rglob("*.part")) == []
        self.service.visible_after_polls = 0
        self.service._plan._scripts["balance"].clear()
        # Every slot is free, and all of them at once.
        self.service.script("balance", *[Fault.hang()] * SLOTS)
        holders = [asyncio.create_task(self.client.balance()) for _ in range(SLOTS)]
        await until(lambda: self.service.in_flight == SLOTS)
        for holder in holders:
            holder.cancel()
        await asyncio.wait(holders)
        others = [SubmitRequest("veo3_1", {"n": n}) for n in range(SLOTS)]
        async with asyncio.timeout(60):
            await asyncio.gather(*map(self.client.submit, others))
            again = await self.client.run(self.request, maybe_sent=True)
        assert again.status is TaskStatus.COMPLETED
        await until(lambda: self.service.connections <= SLOTS)
        charged = sorted(charge.out_task_id for charge in self.service.charges)
        assert charged == sorted(self.service.tasks)  # none twice
        await self.client.close()
        await until(lambda: self.service.connections == 0)


Call = Callable[[World], Coroutine[Any, Any, Any]]
Worlds = Callable[..., AbstractAsyncContextManager[World]]


async def submit(world: World) -> Task:
    return await world.client.submit(world.request)


async def submit_lost(world: World) -> Task:
    """Submit where the response is lost and the task becomes visible late."""
    world.service.visible_after_polls = 2
    world.service.script("submit", Fault.lost_response(accepted=True))
    return await world.client.submit(world.request)


async def submit_twice(world: World) -> Task:
    """Submit where the first POST does not arrive and a poll fails once."""
    world.service.script("submit", Fault.reset(), Fault.no_data(accepted=True))
    world.service.script("query", Fault.server_error(), Fault.ok(), Fault.lost_response())
    return await world.client.submit(world.request)


async def submit_refused(world: World) -> Task:
    """Submit where the service rejects for the rate."""
    world.service.script(
        "submit", Fault.too_many_requests(0.001), Fault.too_many_requests(0, in_envelope=True)
    )
    return await world.client.submit(world.request)


async def submit_large(world: World) -> Task:
    """Submit a body that is sent in pieces."""
    large = SubmitRequest("veo3_1", {"image_url": "A" * 3_000_000}, world.request.out_task_id)
    return await world.client.submit(large)


async def wait(world: World) -> Task:
    """Wait through failing polls."""
    world.service.script(
        "query",
        Fault.task_status("processing"),
        Fault.lost_response(),
        Fault.too_many_requests(0.001),
        Fault.truncated(),
    )
    return await world.client.wait(await world.client.submit(world.request))


async def run(world: World) -> Task:
    """Submit and wait with an async callback."""
    world.service.script("query", Fault.task_status("processing"))

    async def on_update(_task: Task) -> None:
        await asyncio.sleep(0)

    return await world.client.run(world.request, on_update=on_update, timeout=20)


async def query(world: World) -> Task:
    """Query where the first response is truncated."""
    task = await world.client.submit(world.request)
    world.service.script("query", Fault.truncated())
    return await world.client.query(task)


async def balance(world: World) -> Any:
    """Get the balance where the second response drips."""
    world.service.script("balance", Fault.html(502), Fault.drip(0.01))
    return await world.client.balance()


async def download(world: World) -> list[Path]:
    """Run, and save several results, one of them with its second attempt."""
    world.service.outputs = 3
    world.service.script("result", Fault.ok(), Fault.truncated(), Fault.drip(0.01))
    task = await world.client.run(world.request)
    paths = await world.client.download(task, world.directory / "results")
    assert all(path.stat().st_size for path in paths)
    return paths


CALLS: list[Call] = [
    submit,
    submit_lost,
    submit_twice,
    submit_refused,
    submit_large,
    wait,
    run,
    query,
    balance,
    download,
]


@pytest.fixture
def world(connect: Connect, tmp_path: Path) -> Worlds:
    """Return a function that makes the world of one call."""

    @asynccontextmanager
    async def make(**options: Any) -> AsyncIterator[World]:
        async with FakeService(used_id="charge") as service:
            options = {
                "api_key": service.api_key,
                "base_url": service.url,
                "max_concurrency": SLOTS,
                "retry": QUICK,
            } | options
            client = connect(**options)
            yield World(service, client, SubmitRequest("veo3_1", {}), tmp_path)
            await client.close()

    return make


@LATE
@pytest.mark.parametrize("call", CALLS)
async def test_a_call_is_cancelled_anywhere(
    world: Worlds, until: Until, call: Call, *, late: bool
) -> None:
    for step in (sweep := Sweep()):
        async with world() as here:
            sweep.struck = await cancel_at(partial(call, here), step, late=late)
            await here.after(until)
    assert step > 3


@LATE
async def test_a_large_download_is_cancelled_anywhere(tmp_path: Path, *, late: bool) -> None:
    """A cancelled download leaves the whole file or nothing."""
    body = bytes(2_500_000)
    for step in (sweep := Sweep()):
        directory = tmp_path / str(step)
        async with Peer() as peer, AsyncClient("sk-test", base_url=peer.url) as client:
            peer.play(*(piece(data) for data in (whole(body)[:1_300_000], whole(body)[1_300_000:])))
            output = Output(f"{peer.url}/a.mp4", "video")
            sweep.struck = await cancel_at(
                partial(client.download, output, directory), step, late=late
            )
            assert (client.stats.in_flight, client.stats.waiting) == (0, 0)
        found = list(directory.rglob("*"))
        assert [path.name for path in found] in ([], ["a.mp4"])
        assert [path.stat().st_size for path in found] in ([], [len(body)])
    assert found
    assert step > 5


@LATE
@pytest.mark.parametrize("max_rate", [None, 2000.0], ids=["slots", "turns"])
async def test_a_call_in_the_queue_is_cancelled_anywhere(
    world: Worlds, until: Until, max_rate: float | None, *, late: bool
) -> None:
    """A call that is cancelled in the queue keeps no slot and no turn."""
    for step in (sweep := Sweep()):
        async with world(max_rate=max_rate) as here:
            others = [
                asyncio.create_task(here.client.submit(SubmitRequest("veo3_1", {"n": n})))
                for n in range(2 * SLOTS)
            ]
            await asyncio.sleep(0)  # they are before it in the queue
            sweep.struck = await cancel_at(partial(submit, here), step, late=late)
            async with asyncio.timeout(60):
                await asyncio.gather(*others)
            await here.after(until)
    assert step > 1


@pytest.mark.parametrize("first", [0, 1, 2])
async def test_all_are_cancelled_at_once(world: Worlds, until: Until, first: int) -> None:
    for turns in range(first, 60, 3):
        async with world() as here:
            tasks = [
                asyncio.create_task(here.client.submit(SubmitRequest("veo3_1", {"n": n})))
                for n in range(3 * SLOTS)
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[::-1] if turns % 2 else tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await here.after(until)


def rows(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT out_task_id, state FROM tasks"))


def batch(kind: str, world: World, requests: list[SubmitRequest], ledger: Ledger) -> Batch[Any]:
    if kind == "submit_many":
        return world.client.submit_many(requests, ledger=ledger)
    return world.client.run_many(
        requests,
        ledger=ledger,
        window=2,
        ordered=kind == "ordered",
        max_credits=1000 if kind == "ordered" else None,
        download_to=world.directory if kind == "run_many" else None,
    )


@LATE
@pytest.mark.parametrize("kind", ["submit_many", "run_many", "ordered"])
@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.soak)])
async def test_a_batch_is_cancelled_anywhere(
    world: Worlds, until: Until, kind: str, stride: int, *, late: bool
) -> None:
    for step in (sweep := Sweep(stride)):
        async with world() as here:
            path = here.directory / f"{step}.db"
            requests = [SubmitRequest("veo3_1", {"n": n}) for n in range(2)]
            here.service.script("submit", Fault.ok(), Fault.lost_response(accepted=True))
            blow = Blow(step, late=late)

            async def consume(
                here: World = here, path: Path = path, requests: list[SubmitRequest] = requests
            ) -> list[Any]:
                async with (
                    Ledger(path) as ledger,
                    aclosing(batch(kind, here, requests, ledger)) as outcomes,
                ):
                    return [outcome async for outcome in outcomes]

            with counting(blow):
                blow.task = asyncio.create_task(consume())
                async with asyncio.timeout(30):
                    await asyncio.wait([blow.task])
            if blow.struck:
                assert blow.task.cancelled() or blow.task.exception() is None
            charged = {charge.out_task_id for charge in here.service.charges}
            known = rows(path) if path.exists() else {}
            assert charged <= set(known)
            assert [task for task in asyncio.all_tasks() if "aireiter" in repr(task)] == []
            outcomes = await consume()
            assert [outcome.error for outcome in outcomes] == [None] * 2
            assert len(here.service.charges) == 2
            assert set(rows(path)) == {charge.out_task_id for charge in here.service.charges}
            await here.after(until)
        sweep.struck = blow.struck
    assert step > 10


async def test_a_ledger_whose_opening_or_closing_is_cancelled_can_be_opened(tmp_path: Path) -> None:
    for late in (False, True):
        for step in (sweep := Sweep()):
            path = tmp_path / f"{late}-{step}.db"

            async def use(path: Path = path) -> None:
                async with Ledger(path) as ledger:
                    await ledger.counts()

            sweep.struck = await cancel_at(use, step, late=late)
            async with asyncio.timeout(60), Ledger(path) as ledger:
                assert await ledger.counts() == {}
            with suppress(FileNotFoundError):
                path.unlink()
        assert step > 3
