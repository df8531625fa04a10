r"""Run one prompt per line of standard input, and save the results.

::

    pip install . && printf 'a heron\nan otter\n' | python examples/fan_out.py run.db results

After an interruption, run the same command again: it resumes. It ends only after the current line
of a terminal or a pipe, since a thread that reads cannot be interrupted. Without
``AIREITER_API_KEY``, it uses a fake service, which forgets its tasks in the end.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing

import demo

from aireiter_async import AsyncClient, Ledger, models


async def requests() -> AsyncIterator[models.NanoBananaV2]:
    """Yield a request per line, read in a thread, since reading a pipe may block."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        if prompt := line.strip():
            yield models.NanoBananaV2(prompt=prompt, aspect_ratio="16:9")


async def main(ledger_path: str, directory: str) -> int:
    """Run the batch, and return the number of failures."""
    failed = 0
    async with AsyncClient() as client, Ledger(ledger_path) as ledger:
        batch = client.run_many(requests(), ledger=ledger, download_to=directory)
        async with aclosing(batch):
            async for outcome in batch:
                failed += not outcome.ok
                print(outcome.index, outcome.error or "completed", *outcome.paths, flush=True)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a prompt per line of standard input.")
    parser.add_argument("ledger", help="the record of the batch, an SQLite file")
    parser.add_argument("directory", help="where the results are saved")
    options = parser.parse_args()
    with demo.environment() as state:  # the current directory, with a key
        failures = asyncio.run(main(str(state / options.ledger), options.directory))
    sys.exit(1 if failures else 0)
