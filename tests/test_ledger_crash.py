"""
Kill -9: whatever a run is doing when it dies, the next ones finish exactly the rest.
"""

import asyncio
import random
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

import attrs
import pytest

from aireiter_async.testing import FakeService, Fault
from aireiter_async.testing._options import UsedId

USED_ID: tuple[UsedId, ...] = ("refuse", "return", "charge")
LOSSES = {Fault.lost_answer(): 0.015, Fault.lost_answer(accepted=True): 0.015}

PROGRAM = """
import asyncio, sys
from aireiter_async import AsyncClient, Ledger, PollPolicy, RetryPolicy, SubmitRequest, run_many

async def main(key, url, path, results, count):
    requests = (SubmitRequest("nano_banana", {"prompt": str(n)}) for n in range(int(count)))
    quick = {
        "retry": RetryPolicy(base=0, settle=0, attempts=9),
        "polling": PollPolicy(first=0, step=0, cap=0),
    }
    async with (
        AsyncClient(key, base_url=url, max_concurrency=32, **quick) as client,
        Ledger(path) as ledger,
    ):
        batch = run_many(client, requests, ledger=ledger, download_to=results)
        async for outcome in batch:
            if not outcome.ok:
                raise outcome.error

asyncio.run(main(*sys.argv[1:]))
"""


@attrs.define
class Trap:
    """
    A clock for the service that kills a process once it has been read so many times.

    It is read with every request, and again with whatever the service does for it.
    """

    process: asyncio.subprocess.Process | None = None
    reads_left: int = -1

    def __call__(self) -> float:
        """
        Tell the time, or strike.
        """
        self.reads_left -= 1
        if self.reads_left == 0 and self.process is not None and self.process.returncode is None:
            self.process.kill()
        return time.monotonic()


def is_there(file: str) -> bool:
    """
    Tell whether a file has been saved.
    """
    return Path(file).stat().st_size > 0


async def kill_and_rerun(directory: Path, used_id: UsedId, *, count: int, kills: int) -> int:
    """
    Run a batch again and again, killed at moments drawn from a seed, then in peace to its end.

    Returns:
        How often it was killed.
    """
    draws = random.Random(f"{used_id} {count}")  # noqa: S311 - repeatable, guards nothing
    path = directory / "run.db"
    trap, killed = Trap(), 0
    # What a run of the whole batch reads at the least, shared out over the kills and one more.
    share = 5 * count // (kills + 1)
    async with FakeService(
        used_id=used_id, clock=trap, faults=LOSSES, seed=draws.randrange(1000), price=0.5
    ) as service:
        for turn in range(kills + 1):
            trap.reads_left = draws.randint(1, 2 * share - 1) if turn < kills else -1
            arguments = (service.api_key, service.url, path, directory / "results", count)
            trap.process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM, *map(str, arguments), stderr=asyncio.subprocess.PIPE
            )
            _, told = await trap.process.communicate()
            status = trap.process.returncode
            killed += status == -9
            assert status in {0, -9}, told.decode()
        ids = Counter(charge.out_task_id for charge in service.charges)
        assert status == 0
        assert (len(ids), ids.total()) == (count, count)
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT state, count(*), sum(credits_used) FROM tasks GROUP BY state")
        assert rows.fetchall() == [("downloaded", count, count / 2)]
        kept = db.execute("SELECT out_task_id, json_extract(paths, '$[0]') FROM tasks").fetchall()
    db.close()
    assert {out_task_id for out_task_id, _ in kept} == set(ids)
    assert all(map(is_there, (file for _, file in kept)))
    return killed


@pytest.mark.parametrize("used_id", USED_ID)
@pytest.mark.parametrize(
    ("count", "kills"), [(200, 5), pytest.param(800, 13, marks=pytest.mark.soak)]
)
async def test_a_killed_batch_is_finished_without_paying_twice(
    tmp_path: Path, used_id: UsedId, count: int, kills: int
) -> None:
    """
    A batch killed with SIGKILL again and again ends with one charge and one file for each task.
    """
    # A kill may come after the run's end: the draws leave at most a few of those.
    assert await kill_and_rerun(tmp_path, used_id, count=count, kills=kills) >= kills * 10 // 13
