"""What it takes to open and to resume a large ledger; what it costs per task is in `submit`."""

import asyncio
import json
import sys
import tempfile
import time
from contextlib import aclosing
from itertools import count as counter
from pathlib import Path
from typing import Final

from aireiter_async import Ledger, LedgerState
from aireiter_async._ledger import journal_of
from aireiter_async._ledger._store import Group, Store
from benchmarks.clients.ours import connect, requests
from benchmarks.fleet import ask
from benchmarks.report import Section, Table

_ROWS: Final = 1_000_000
_GROUP: Final = 10_000


def measure(share: float) -> Section:
    """Write a ledger, then open it and run its batch again, in a process of its own."""
    rows = round(_ROWS * share)
    told = ask("benchmarks.ledger", rows)
    text = (
        f"A ledger of {rows:,} rows, each accepted: {told['mb']:.0f} MB. Resumed: the same batch "
        "run again by `submit_many`, "
        "with `max_concurrency=1000`, which finds every row and sends nothing."
    )
    table = Table(
        ["operation", "seconds", "CPU us per row"],
        [
            ["open", f"{told['open']:.3f}", "-"],
            ["count the states", f"{told['counts']:.2f}", "-"],
            ["resume", f"{told['resume']:.1f}", f"{told['micros']:.0f}"],
        ],
    )
    return Section("Ledger", text, [table])


async def resume(rows: int) -> dict[str, float]:
    """Time opening and resuming."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "run.db")
        await write(path, rows)
        size = path.stat().st_size  # noqa: ASYNC240 - nothing else runs
        began = time.perf_counter()
        async with connect("http://127.0.0.1:9", 1000) as client, Ledger(path) as record:
            opened = time.perf_counter()
            counts = await record.counts()
            counted, spent = time.perf_counter(), time.process_time()
            batch = client.submit_many(requests(rows, counter()), ledger=record)
            async with aclosing(batch) as outcomes:
                async for outcome in outcomes:
                    assert outcome.ok, outcome.error
            spent = time.process_time() - spent
            resumed = time.perf_counter()
            assert counts[LedgerState.SUBMITTED] == rows
            assert client.stats.requests == 0
    return {
        "mb": size / 1e6,
        "open": opened - began,
        "counts": counted - opened,
        "resume": resumed - counted,
        "micros": 1e6 * spent / rows,
    }


async def write(path: Path, rows: int) -> None:
    """Write what a batch of *rows* accepted tasks leaves, without submitting it."""
    async with Ledger(path) as record:
        journal = journal_of(record)
        intents = [
            journal.make_intent(1, each, each.encode_content(), unique=False, record=True)
            for each in requests(rows, counter())
        ]
    store = Store(path, "")
    for start in range(0, rows, _GROUP):
        some = intents[start : start + _GROUP]
        store.apply(Group(intents=some))
        store.apply(Group(accepted={each.out_task_id: 100.0 for each in some}))
    store.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(resume(int(sys.argv[1])))))
