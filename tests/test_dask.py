"""The example on a Dask cluster of processes, one of which is killed."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from aireiter_async.testing import FakeService, Fault
from tests.example_programs import EXAMPLES, charged, end, start
from tests.worker_killer import WorkerKiller

# Not imported here: it changes how every exception of the process pickles.
pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(find_spec("distributed") is None, reason="needs dask[distributed]"),
]

EXAMPLE = EXAMPLES / "dask_cluster.py"
ROWS = 2000


def is_worker(command: list[str]) -> bool:
    return any("spawn_main" in word for word in command)


async def test_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": f"a cat, number {n}"} for n in range(ROWS)]
    source, target = tmp_path / "rows.jsonl", tmp_path / "records.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    losses = {Fault.lost_response(): 0.01, Fault.lost_response(accepted=True): 0.02}
    killer = WorkerKiller(4 * ROWS, is_worker)  # a task takes more than four reads
    async with FakeService(used_id="charge", faults=losses, clock=killer, record=False) as service:
        program = await start(
            EXAMPLE, source, target, "--timeout", "5", service=service, cwd=tmp_path
        )
        killer.program = program.pid
        ran = await end(program, 300)
        assert ran.status == 0, ran.out + ran.err
        assert len(killer.killed) == 1
        assert charged(service) == (ROWS, ROWS)
    records = list(map(json.loads, target.read_text(encoding="utf-8").splitlines()))
    assert {record["error"] for record in records} == {None}
    key = json.dumps
    assert sorted(key(record["row"]) for record in records) == sorted(map(key, rows))
