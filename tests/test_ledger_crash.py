"""Kill -9: whatever a run is doing when it dies, the next ones finish exactly the rest."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aireiter_async import AsyncClient, Ledger, SubmitRequest
from aireiter_async.testing import FakeService
from aireiter_async.testing._options import UsedId

USED_ID: tuple[UsedId, ...] = ("reject", "return", "charge")

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
@pytest.mark.parametrize("times", [4, pytest.param(48, marks=pytest.mark.soak)])
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
    assert killed >= len(afters) * 3 // 4
