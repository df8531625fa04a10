"""The examples, run against a service of their own."""

import asyncio
import importlib.util
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aireiter_async.testing import FakeService, Fault

Until = Callable[[Callable[[], object]], Awaitable[None]]

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    """Import an example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeService]:
    """Run a service that the environment points to."""
    async with FakeService() as service:
        monkeypatch.setenv("AIREITER_API_KEY", service.api_key or "")
        monkeypatch.setenv("AIREITER_BASE_URL", service.url)
        yield service


async def test_a_job_is_not_lost_although_its_database_fails(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until: Until
) -> None:
    """Storing a result and renewing leases fail once; one that cannot be sent fails for good."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("JOB_LEASE", "0.3")
    monkeypatch.chdir(tmp_path)
    jobs = load("jobs")
    failed: set[str] = set()

    class Database(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            for part in ("SET result", "SELECT out_task_id, params"):
                if part in sql and part not in failed:
                    failed.add(part)
                    raise sqlite3.OperationalError("database is locked")
            return super().execute(sql, *parameters)

    connect = sqlite3.connect
    monkeypatch.setattr(jobs.sqlite3, "connect", partial(connect, factory=Database))
    async with jobs.Jobs() as running:
        running.create("ada", "1", {"prompt": "a heron"})
        running.create("ada", "2", {"prompt": "\ud83d"})
        await until(lambda: (running.get("ada", "1") or {}).get("urls"))
        assert running.get("ada", "2")["status"] == "failed"
    assert (len(service.charges), len(failed)) == (1, 2)


async def fan_out(*argv: object) -> asyncio.subprocess.Process:
    """Start the example as a program."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", str(EXAMPLES / "fan_out.py"), *map(str, argv)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_fan_out_saves_a_result_per_line_and_continues_where_it_was(
    service: FakeService, tmp_path: Path
) -> None:
    """Two runs of the same lines make one task per line, and end with its file on disk."""
    for _ in range(2):
        process = await fan_out(tmp_path / "run.db", tmp_path / "results")
        printed, told = await process.communicate(b"a cat\n\na dog\n")
        assert (process.returncode, told) == (0, b"")
        assert len(printed.splitlines()) == 2
    assert len(service.charges) == 2
    assert len(list((tmp_path / "results").iterdir())) == 2


async def test_fan_out_continues_while_it_waits_for_the_next_line(
    service: FakeService, tmp_path: Path
) -> None:
    """A pipe that says nothing more for now does not hold up what has been read."""
    process = await fan_out(tmp_path / "run.db", tmp_path / "results")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"a cat\n")
    assert (await process.stdout.readline()).startswith(b"0 completed ")
    assert len(service.charges) == 1
    process.stdin.close()
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 0


async def test_fan_out_prints_why_a_task_failed(service: FakeService, tmp_path: Path) -> None:
    service.script("submit", Fault.failed("NSFW", "no"))
    process = await fan_out(tmp_path / "other.db", tmp_path / "results")
    assert (await process.communicate(b"a dog\n"))[0].startswith(b"0 the task failed: NSFW: no")
    assert process.returncode == 1


async def test_fan_out_says_what_it_takes(service: FakeService) -> None:
    """Without arguments there is a usage message, and nothing is sent."""
    process = await fan_out()
    _, told = await process.communicate()
    assert (process.returncode, told.startswith(b"usage: fan_out.py")) == (2, True)
    assert service.requests == []


async def test_fan_out_runs_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIREITER_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    process = await fan_out("run.db", "results")
    printed, told = await process.communicate(b"a heron\nan otter\n")
    assert (process.returncode, printed.count(b" completed results/")) == (0, 2)
    assert told.endswith(b"the fake service charged 2 tasks\n")
    assert sorted(map(str, tmp_path.glob("*.db*"))) == []  # noqa: ASYNC240 - a glance
