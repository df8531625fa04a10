"""Kill -9: whatever a run is doing when it dies, the next ones finish exactly the rest."""

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from aireiter_async import AsyncClient, Ledger, SubmitRequest
from aireiter_async.testing import FakeService, Fault
from aireiter_async.testing._options import UsedId

USED_ID: tuple[UsedId, ...] = ("refuse", "return", "charge")
LOSSES = {Fault.lost_answer(): 0.015, Fault.lost_answer(accepted=True): 0.015}

PROGRAM = """
import asyncio, random, sys
from aireiter_async import AsyncClient, Ledger, PollPolicy, RetryPolicy, SubmitRequest

async def main(key, url, path, results, count, turn):
    prompts = [str(n // 2) for n in range(int(count))]  # each comes twice
    if int(turn):  # the input is sorted otherwise, and lines are missing
        random.Random(turn).shuffle(prompts)
        del prompts[: int(count) // 10]
    requests = (SubmitRequest("nano_banana", {"prompt": prompt}) for prompt in prompts)
    quick = {
        "retry": RetryPolicy(base=0, settle=0, attempts=9),
        "polling": PollPolicy(first=0, step=0, cap=0),
    }
    async with (
        AsyncClient(key, base_url=url, max_concurrency=32, **quick) as client,
        Ledger(path) as ledger,
    ):
        batch = client.run_many(requests, ledger=ledger, download_to=results)
        async for outcome in batch:
            if not outcome.ok:
                raise outcome.error

asyncio.run(main(*sys.argv[1:]))
"""


@attrs.define
class Trap:
    """A clock for the service that kills a process once it has been read so many times.

    It is read with every request, and again with whatever the service does for it.
    """

    process: asyncio.subprocess.Process | None = None
    reads_left: int = -1

    def __call__(self) -> float:
        """Tell the time, or strike."""
        self.reads_left -= 1
        if self.reads_left == 0 and self.process is not None and self.process.returncode is None:
            self.process.kill()
        return time.monotonic()


def is_there(file: str) -> bool:
    """Tell whether a file has been saved."""
    return Path(file).stat().st_size > 0


async def kill_and_rerun(directory: Path, used_id: UsedId, *, count: int, kills: int) -> int:
    """Run a batch again and again, killed at random, its input edited; then in peace to its end.

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
            edit = kills - turn  # the last run has the whole input
            arguments = (service.api_key, service.url, path, directory / "results", count, edit)
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
    # A kill may come after the run's end: the draws leave at most a few of those.
    assert await kill_and_rerun(tmp_path, used_id, count=count, kills=kills) >= kills * 10 // 13


# Forks a process for each line that it reads, which dies in the way that the line says.
FORKING = """
import asyncio, json, os, resource, signal, sqlite3, sys, traceback
from aireiter_async import AsyncClient, Ledger, PollPolicy, RetryPolicy, SubmitRequest
from aireiter_async._ledger._store import Store

connect, close = sqlite3.connect, Store.close

def doom(path, death, after):
    left = after

    def strike(*_):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def watched(*args, **options):
        db = connect(*args, **options)
        if death == "statement":
            db.set_trace_callback(strike)
        elif death == "instruction":
            db.set_progress_handler(strike, 1)
        elif death == "checkpoint":
            db.execute("PRAGMA wal_autocheckpoint = 1")
        return db

    def closed(store):
        if death == "close":
            limit(os.path.getsize(path) + after)
        close(store)

    sqlite3.connect, Store.close = watched, closed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if death == "write":
        limit(after)
    elif death == "checkpoint":
        limit(os.path.getsize(path) + after)

async def main(key, url, path, prompts):
    requests = [SubmitRequest("nano_banana", {"prompt": prompt}) for prompt in prompts]
    quick = {
        "retry": RetryPolicy(base=0, settle=0),
        "polling": PollPolicy(first=0, step=0, cap=0),
    }
    async with AsyncClient(key, base_url=url, **quick) as client, Ledger(path) as ledger:
        async for outcome in client.run_many(requests, ledger=ledger, window=4):
            assert outcome.ok, outcome.error

for line in sys.stdin:
    told = json.loads(line)
    child = os.fork()
    if not child:
        try:
            doom(told["path"], *told.pop("doom"))
            asyncio.run(main(**told))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
KILLED = {-signal.SIGKILL, -signal.SIGXFSZ}
Die = Callable[[FakeService, Path, list[str], tuple[str, int]], int]


@pytest.fixture(scope="module")
def die() -> Iterator[Die]:
    """Return what runs a batch in a process that dies, and tells how it has ended."""
    with subprocess.Popen(  # noqa: S603 - a program of ours
        [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(service: FakeService, path: Path, prompts: list[str], doom: tuple[str, int]) -> int:
            told = {"key": service.api_key, "url": service.url, "path": str(path)}
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(told | {"prompts": prompts, "doom": doom}) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run


async def rerun(client: AsyncClient, path: Path, prompts: Iterable[str]) -> list[Any]:
    """Run the batch in this process."""
    requests = [SubmitRequest("nano_banana", {"prompt": prompt}) for prompt in prompts]
    async with Ledger(path) as ledger:
        return [outcome async for outcome in client.run_many(requests, ledger=ledger)]


# Ways to die, and after how many of what: statements, SQLite's instructions, or bytes of a file.
DEATHS = {
    "statement": range(1, 49),
    "instruction": range(1, 3000, 25),
    "write": range(0, 72_000, 500),
    "checkpoint": range(0, 15_000, 300),
    "close": range(0, 15_000, 300),
}
COPIES = {"checkpoint", "close"}


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("times", [8, pytest.param(48, marks=pytest.mark.soak)])
async def test_a_batch_that_dies_in_sqlite_is_finished_without_paying_twice(
    service: FakeService, client: AsyncClient, die: Die, tmp_path: Path, death: str, times: int
) -> None:
    prompts = [f"{n} " + "kitten " * 400 for n in range(12)]
    # To die while its pages are copied, the file has to be larger than its log.
    begun = [f"{n} " + "kitten " * 3000 for n in range(4)] if death in COPIES else []
    prompts[: len(begun)] = begun
    afters = DEATHS[death][:: len(DEATHS[death]) // times]
    killed = 0
    for turn, after in enumerate(afters):
        service.used_id = USED_ID[turn % 3]
        service.charges.clear()
        path = tmp_path / f"{after}.db"
        if begun:
            await rerun(client, path, begun)
            assert len(service.charges) == len(begun)
            limit = path.stat().st_size + after
        status = await asyncio.to_thread(die, service, path, prompts, (death, after))
        assert status in {*KILLED, 0}
        killed += status != 0
        if begun and status:
            assert path.stat().st_size == limit
        outcomes = await rerun(client, path, prompts)
        assert sorted(outcome.index for outcome in outcomes) == list(range(12))
        assert [outcome.error for outcome in outcomes] == [None] * 12
        assert len(service.charges) == 12, (death, after)
    assert killed > len(afters) * 3 // 4
