"""The taskiq example: its jobs are delivered again, to live workers and after a kill."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from aireiter_async.testing import FakeService, Fault
from tests.example_programs import EXAMPLES, charged, end, environment, start, wait_until

pytestmark = pytest.mark.integrations
pytest.importorskip("taskiq_nats")

LOSSES = {Fault.lost_response(): 0.02, Fault.lost_response(accepted=True): 0.04}
JOBS = 40
# The example's broker, and a log of what each delivery returned.
WATCHED = """
from taskiq import TaskiqMiddleware
from taskiq_worker import broker

class Log(TaskiqMiddleware):
    def post_execute(self, message, result):
        if result.is_err:
            return
        with open("deliveries.txt", "a") as file:
            task = result.return_value
            file.write(f"{message.task_id} {task['out_task_id']} {task['outputs'][0]['url']}\\n")

broker.add_middlewares(Log())
"""


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[str]:
    """Start a NATS server with JetStream, and give its URL."""
    directory = tmp_path / "nats"
    directory.mkdir()
    server = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("nats-server"),
        *("--jetstream", "--store_dir", directory, "--addr", "127.0.0.1"),
        *("--port", "-1", "--ports_file_dir", directory),
        stderr=subprocess.DEVNULL,
    )
    await wait_until(lambda: list(directory.glob("*.ports")))
    (ports,) = directory.glob("*.ports")
    await wait_until(ports.read_text)
    try:
        yield json.loads(ports.read_text(encoding="utf-8"))["nats"][0]
    finally:
        server.kill()
        await server.wait()


@pytest.fixture
async def start_worker(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Return what starts a worker in a session of its own; it is killed in the end."""
    workers: list[Process] = []

    async def start_worker(env: Mapping[str, str]) -> Process:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "taskiq", "worker", "--workers", "1", "watched:broker"),
            cwd=tmp_path,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        workers.append(worker)
        return worker

    yield start_worker
    for worker in workers:
        if worker.returncode is None:
            os.killpg(worker.pid, signal.SIGKILL)
            await worker.wait()


async def test_redelivered_jobs_are_one_task_and_one_charge(
    nats: str, start_worker: Callable[..., Awaitable[Process]], tmp_path: Path
) -> None:
    """Tasks take five times as long as NATS waits; one of two workers is killed.

    A job that fails because of the account is delivered again, until it succeeds.
    """
    (tmp_path / "watched.py").write_text(WATCHED, encoding="utf-8")
    log = tmp_path / "deliveries.txt"
    async with FakeService(used_id="charge", faults=LOSSES, durations=5.0) as service:
        more = {"NATS_URL": nats, "REDELIVER_AFTER": "1", "REQUEST_TIMEOUT": "2"}
        more["PYTHONPATH"] = os.pathsep.join(map(str, (EXAMPLES.parent, EXAMPLES, tmp_path)))
        env = environment(service, **more)
        service.script("submit", Fault.no_credits(), Fault.no_credits())
        workers = [await start_worker(env) for _ in range(2)]
        prompts = [f"a cat, number {n}" for n in range(JOBS)]
        sender = await start(
            EXAMPLES / "taskiq_worker.py", *prompts, service=service, cwd=tmp_path, **more
        )
        await wait_until(lambda: len(service.charges) >= JOBS // 2)
        os.killpg(workers[0].pid, signal.SIGKILL)
        ran = await end(sender)
        assert (ran.status, ran.complaints) == (0, [])
        assert len(ran.out.splitlines()) == JOBS
        await wait_until(lambda: len(log.read_text(encoding="utf-8").splitlines()) > 2 * JOBS)
        assert charged(service) == (JOBS, JOBS)
    returned = defaultdict(set)
    for line in log.read_text(encoding="utf-8").splitlines():
        job, out_task_id, url = line.split()
        assert job == out_task_id
        returned[job].add(url)
    assert [len(urls) for urls in returned.values()] == [1] * JOBS
