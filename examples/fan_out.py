"""
Run a prompt per line of standard input, and save what comes of each.

::

    export AIREITER_API_KEY=...
    python examples/fan_out.py prompts.db results < prompts.txt

Interrupted, it goes on where it was: run the same line again.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import aclosing

from aireiter_async import AsyncClient, Ledger, models, run_many


def requests() -> Iterator[models.NanoBananaV2]:
    """Yield a request per line."""
    for line in sys.stdin:
        if prompt := line.strip():
            yield models.NanoBananaV2(prompt=prompt, aspect_ratio="16:9")


async def main(ledger_path: str, directory: str) -> int:
    """Run the batch, and return how many requests came to nothing."""
    failed = 0
    async with AsyncClient() as client, Ledger(ledger_path) as ledger:
        batch = run_many(client, requests(), ledger=ledger, download_to=directory)
        async with aclosing(batch):
            async for outcome in batch:
                failed += not outcome.ok
                print(outcome.index, outcome.error or outcome.paths[0])
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main(*sys.argv[1:])) else 0)
