"""Generate an image for each row of a JSON Lines file, on a Dask cluster.

::

    pip install . "dask[distributed]" && python examples/dask_cluster.py

This generates 200 images on your own machine. With a key and a file, each row of which needs a
``prompt``::

    export AIREITER_API_KEY=...
    python examples/dask_cluster.py catalogue.jsonl images.jsonl

If a worker dies, Dask runs its partitions again, and so does this program if it is started again:
every row is paid for once, as long as ``claims.db`` is kept. On several machines, use
`PostgresStore` in place of the file, and the scheduler's address in place of `LocalCluster`.
"""

import argparse
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import demo
from distributed import Client, LocalCluster, as_completed

from aireiter_async import AsyncClient, RetryPolicy, SQLiteStore
from aireiter_async.cluster import generate

_PARTITION = 250  # rows


def make_request(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a row's request."""
    return "nano_banana_v2", {"prompt": row["prompt"]}


def connect(timeout: float) -> AsyncClient:
    """Create a worker's client; the claims of a dead worker expire after twice the timeout."""
    return AsyncClient(timeout=timeout, retry=RetryPolicy(max_retry_after=timeout))


def generate_partition(
    rows: Iterable[dict[str, Any]], *, claims: str, timeout: float, workers: int
) -> list[dict[str, Any]]:
    """Return a record for each row; runs in a worker."""
    return list(
        generate(
            rows,
            request=make_request,
            connect=partial(connect, timeout),
            namespace="dask-example",
            store=partial(SQLiteStore, claims),
            share=1 / workers,
        )
    )


def main() -> int:
    """Generate for each row, and return whether any failed."""
    parser = argparse.ArgumentParser(description="Generate an image for each row, on Dask.")
    parser.add_argument("rows", type=Path, nargs="?", help="JSON Lines, each with a prompt")
    parser.add_argument("records", type=Path, nargs="?", default=Path("images.jsonl"))
    parser.add_argument("--claims", type=Path, help="default: claims.db")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=60, help="seconds per request")
    options = parser.parse_args()
    if options.rows is None:
        rows = [{"prompt": f"a heron, number {n}"} for n in range(200)]
    else:
        rows = list(map(json.loads, options.rows.read_text(encoding="utf-8").splitlines()))
    failed = 0
    with (
        demo.environment() as state,
        LocalCluster(
            n_workers=options.workers, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        Client(cluster) as dask,
        options.records.open("w", encoding="utf-8") as out,
    ):
        partition = partial(
            generate_partition,
            claims=str((options.claims or state / "claims.db").resolve()),
            timeout=options.timeout,
            workers=options.workers,
        )
        parts = [rows[first : first + _PARTITION] for first in range(0, len(rows), _PARTITION)]
        futures = dask.map(partition, parts, pure=False)
        for _, records in as_completed(futures, with_results=True):
            for record in records:
                out.write(f"{json.dumps(record)}\n")
                failed += record["error"] is not None
    print(f"{len(rows)} rows, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
