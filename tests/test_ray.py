"""The example on Ray Data, one of whose workers is killed."""

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from aireiter_async.testing import FakeService, Fault
from tests.example_programs import EXAMPLES, charged, command_of, end, start
from tests.worker_killer import WorkerKiller

# Not imported here: it starts threads.
pytestmark = [
    pytest.mark.integrations,
    pytest.mark.soak,  # for its time limit
    pytest.mark.skipif(find_spec("ray") is None, reason="needs ray[data]"),
]

EXAMPLE = EXAMPLES / "ray_data.py"
ROWS = 2000


def is_worker(command: list[str]) -> bool:
    return command[0].startswith("ray::MapBatches")


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
        ran = await end(program, 600)
        assert ran.status == 0, ran.err
        assert ran.out.endswith(f"{ROWS} rows, 0 failed\n")
        assert len(killer.killed) == 1
        assert charged(service) == (ROWS, ROWS)
    records = list(map(json.loads, target.read_text(encoding="utf-8").splitlines()))
    assert {record["error"] for record in records} == {None}
    assert Counter(record["row"]["prompt"] for record in records) == Counter(
        row["prompt"] for row in rows
    )


async def test_the_command_at_the_top_runs_without_a_key(tmp_path: Path) -> None:
    assert command_of("ray_data.py") == (["ray[data]"], ["python", "examples/ray_data.py"])
    ran = await end(await start(EXAMPLE, service=None, cwd=tmp_path))
    assert (ran.status, ran.out) == (0, "200 rows, 0 failed\n"), ran.err
    assert "the fake service charged 200 tasks\n" in ran.err
