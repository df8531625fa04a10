"""One client in a process of its own, that does what it is told on its standard input.

    python -m benchmarks.driver ours:mapping http://127.0.0.1:8000 64 asyncio

Each line is a number of submits; the answer is the CPU time that they took
this process, user and system, all threads, in seconds.
"""

import asyncio
import importlib
import sys
import time

from benchmarks.clients._run import Run

WARM_UP = 200
LARGE = 1024 * 1024  # bytes


async def drive(client: str, url: str, concurrency: int) -> None:
    """Connect *client* and serve the lines of the standard input."""
    module, _, name = client.partition(":")
    connect = getattr(importlib.import_module(f"benchmarks.clients.{module}"), name)
    loop = asyncio.get_running_loop()
    async with connect(url, concurrency) as run:
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(await measure(run, int(line)), flush=True)


async def measure(run: Run, count: int) -> float:
    """Return the CPU seconds of *count* submits."""
    began = time.process_time()
    await run(count)
    return time.process_time() - began


def main() -> None:
    """Drive the client that the command line names."""
    # What is freed here decides for the life of a process how glibc makes the buffers of asyncio's
    # reads: all are to be alike, and like one that has run for a while.
    bytearray(LARGE)
    client, url, concurrency, loop = sys.argv[1:]
    factory = importlib.import_module(loop).new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(drive(client, url, int(concurrency)))


if __name__ == "__main__":
    main()
