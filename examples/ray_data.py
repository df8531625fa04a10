"""Generate an image for each row of a data set, with Ray Data.

::

    pip install . "ray[data]" && python examples/ray_data.py

This generates 200 images on your own machine. With a key and a JSON Lines file, each row of which
needs a ``prompt``::

    export AIREITER_API_KEY=...
    python examples/ray_data.py catalogue.jsonl images.jsonl

If a worker dies, Ray runs its blocks again, and so does this program if it is started again: every
row is paid for once, as long as ``claims.db`` is kept. On several machines, use `PostgresStore` in
place of the file, and the address of your cluster in ``ray.init``.
"""

import argparse
import json
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import demo
import ray

from aireiter_async import AsyncClient, RetryPolicy, SQLiteStore
from aireiter_async.cluster import generate

_BLOCK = 250  # rows


def make_request(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a row's request."""
    return "nano_banana_v2", {"prompt": row["prompt"]}


def connect(timeout: float) -> AsyncClient:
    """Create a worker's client; the claims of a dead worker expire after twice the timeout."""
    return AsyncClient(timeout=timeout, retry=RetryPolicy(max_retry_after=timeout))


def generate_block(
    block: dict[str, list[str]], *, claims: str, timeout: float, workers: int
) -> dict[str, list[str]]:
    """Return a record for each row, both as JSON; runs in a worker."""
    records = generate(
        map(json.loads, map(str, block["row"])),
        request=make_request,
        connect=partial(connect, timeout),
        namespace="ray-example",
        store=partial(SQLiteStore, claims),
        share=1 / workers,
    )
    return {"record": [json.dumps(record) for record in records]}


def main() -> int:
    """Generate for each row, and return whether any failed."""
    parser = argparse.ArgumentParser(description="Generate an image for each row, on Ray.")
    parser.add_argument("rows", type=Path, nargs="?", help="JSON Lines, each with a prompt")
    parser.add_argument("records", type=Path, nargs="?", default=Path("images.jsonl"))
    parser.add_argument("--claims", type=Path, help="default: claims.db")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=60, help="seconds per request")
    options = parser.parse_args()
    if options.rows is None:
        rows = [json.dumps({"prompt": f"a heron, number {n}"}) for n in range(200)]
    else:
        rows = options.rows.read_text(encoding="utf-8").splitlines()
    failed = 0
    with ExitStack() as stack:
        state = stack.enter_context(demo.environment())
        ray.init(
            num_cpus=options.workers,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
        )
        stack.callback(ray.shutdown)
        out = stack.enter_context(options.records.open("w", encoding="utf-8"))
        blocks = ray.data.from_items(
            [{"row": row} for row in rows], override_num_blocks=-(-len(rows) // _BLOCK)
        )
        records = blocks.map_batches(
            partial(
                generate_block,
                claims=str((options.claims or state / "claims.db").resolve()),
                timeout=options.timeout,
                workers=options.workers,
            ),
            batch_size=None,  # a block is a batch: what Ray runs again
            compute=ray.data.TaskPoolStrategy(size=options.workers),
        )
        for row in records.iter_rows():
            out.write(f"{row['record']}\n")
            failed += json.loads(row["record"])["error"] is not None
    print(f"{len(rows)} rows, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an example reports nothing
    raise SystemExit(main())
