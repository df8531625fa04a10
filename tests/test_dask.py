"""The example on a Dask cluster of processes, one of which is killed."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from aireiter_async.testing import FakeService, Fault

# Not imported here: it changes how every exception of the process pickles.
pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(find_spec("distributed") is None, reason="needs dask[distributed]"),
]
psutil = pytest.importorskip("psutil")

EXAMPLE = Path(__file__).parent.parent / "examples" / "dask_cluster.py"
ROWS = 2000


class Killer:
    """A clock for the service that kills a worker of Dask once it has been read so many times."""

    def __init__(self, reads: int) -> None:
        self.reads_left = reads
        self.program = 0
        self.killed: list[int] = []

    def __call__(self) -> float:
        self.reads_left -= 1
        if self.reads_left == 0:
            worker = next(
                child
                for child in psutil.Process(self.program).children(recursive=True)
                if any("spawn_main" in word for word in child.cmdline())
            )
            worker.kill()
            self.killed.append(worker.pid)
        return time.monotonic()


async def test_a_killed_worker_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"a cat, number {n}"} for n in range(ROWS)]
    source, target = tmp_path / "rows.jsonl", tmp_path / "records.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    losses = {Fault.lost_response(): 0.01, Fault.lost_response(accepted=True): 0.02}
    killer = Killer(4 * ROWS)  # a task takes more than four reads
    async with FakeService(used_id="charge", faults=losses, clock=killer, record=False) as service:
        monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, str(EXAMPLE), str(source), str(target), "--timeout", "5"),
            *("--claims", str(tmp_path / "claims.db")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        killer.program = program.pid
        stdout, stderr = await program.communicate()
    assert program.returncode == 0, (stdout + stderr).decode()
    assert len(killer.killed) == 1
    charges = Counter(charge.out_task_id for charge in service.charges)
    assert (len(charges), charges.total()) == (ROWS, ROWS)
    records = list(map(json.loads, target.read_text(encoding="utf-8").splitlines()))
    assert {record["error"] for record in records} == {None}
    key = json.dumps
    assert sorted(key(record["row"]) for record in records) == sorted(map(key, rows))
